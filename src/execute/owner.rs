//! Users and groups by the words a recipe uses: `USER`, `--chown` and the owner of a `WORKDIR`.
//!
//! Takes a word such as `app`, `1000` or `app:www-data` and the root file system it counts in; gives numbers. Names are
//! looked up in that root's own `/etc/passwd` and `/etc/group`, with symbolic links followed inside it, never in those of the
//! machine. The two rules differ on purpose, as Docker's do: a bare number means its own number as group for `--chown`
//! ([`for_files`]), and the group of its entry, else 0, for a process ([`for_process`]).

use std::io::{self, Read};
use std::path::Path;

use crate::graph::owner;
use crate::layer::tree::{Kind, Tree};
use crate::layer::view::{Follow, resolve};

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// The largest database that is read, in bytes.
const LARGEST: u64 = 64 << 20;

/// The largest id a process may run as; as in Docker.
const LARGEST_PROCESS_ID: u32 = i32::MAX.cast_unsigned();

/// The id that tells the kernel not to change an owner.
const UNCHANGED: u32 = u32::MAX;

/// Why a user or group is not known.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such name.
    #[error("no {what} {name:?} in {file} of the image that is built")]
    Unknown {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// Where it was looked up.
        file: &'static str,
    },
    /// There is no file to look a name up in.
    #[error("cannot look up the {what} {name:?}: the image that is built has no {file}; give a number instead")]
    NoDatabase {
        /// `user` or `group`.
        what: &'static str,
        /// The name.
        name: String,
        /// The file that is missing.
        file: &'static str,
    },
    /// The entry of a name has no number where one belongs.
    #[error("the entry of {name:?} in {file} of the image that is built is malformed")]
    Malformed {
        /// The name.
        name: String,
        /// The file.
        file: &'static str,
    },
    /// A number is too large.
    #[error("{id} is not an id: the largest is {largest}")]
    OutOfRange {
        /// The number as written.
        id: String,
        /// The largest that would do.
        largest: u32,
    },
    /// The file cannot be read.
    #[error("cannot read {file} of the image that is built")]
    Read {
        /// The file.
        file: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A user by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Owner {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, in the order of the group file, and the own group; only for processes.
    pub groups: Vec<u32>,
    /// The home directory; only for processes, and only where the user has an entry.
    pub home: Option<String>,
}

/// Who files are given to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileOwner {
    /// The ids.
    pub owner: Owner,
    /// What to tell the user of names that the root does not know.
    pub unknown: Vec<String>,
}

/// Who files belong to: `--chown`, and `USER` for a `WORKDIR`. A bare number is also the group; a bare name brings its own
/// group. What is too large for an id is a name ([`owner::id`]), and a name that is not known is 0. The id -1 leaves the owner
/// as it is (chown(2)), which is 0 for a new file.
///
/// # Errors
/// An entry that has no number, or a file that cannot be read.
pub fn for_files(spec: &str, root: &dyn Tree) -> Result<FileOwner, Error> {
    let (user, group) = spec.split_once(':').map_or((spec, None), |(user, group)| (user, Some(group)));
    let mut unknown = Vec::new();
    let (uid, own_gid) = if let Some(id) = owner::id(user) {
        (id, id)
    } else {
        let passwd = read(root, PASSWD)?;
        match users(passwd.as_deref().unwrap_or_default()).find(|entry| entry.name == user && !user.is_empty()) {
            Some(entry) => entry.ids(user)?,
            None => {
                unknown.extend(unknown_name("user", user, "root"));
                (0, 0)
            }
        }
    };
    let gid = match group.map(|group| (group, owner::id(group))) {
        None => own_gid,
        Some((_, Some(id))) => id,
        // As in BuildKit, a colon with nothing behind it is group 0.
        Some(("", None)) => 0,
        Some((group, None)) => match find_group(read(root, GROUP)?.as_deref(), group) {
            Err(Error::Unknown { .. } | Error::NoDatabase { .. }) => {
                unknown.extend(unknown_name("group", group, "the user's own group"));
                own_gid
            }
            found => found?,
        },
    };
    let [uid, gid] = [uid, gid].map(|id| if id == UNCHANGED { 0 } else { id });
    Ok(FileOwner { owner: Owner { uid, gid, ..Owner::default() }, unknown })
}

/// What to say of a name that is not known; nothing of no name at all.
fn unknown_name(what: &str, name: &str, instead: &str) -> Option<String> {
    (!name.is_empty())
        .then(|| format!("the image has no {what} {name:?}: files are given to {instead}, as with `docker build`"))
}

/// Who a process runs as: `USER` for a `RUN`. Empty means root. A user with an entry brings the groups that list it, unless a
/// group is given.
///
/// # Errors
/// A name that is not known, a number that is too large, or a file that cannot be read.
pub fn for_process(spec: &str, root: &dyn Tree) -> Result<Owner, Error> {
    let (user, group) = split(spec);
    let user = if user.is_empty() { "0" } else { user };
    let passwd = read(root, PASSWD)?;
    let text = passwd.as_deref().unwrap_or_default();
    let entry = if is_number(user) {
        let id = number(user, LARGEST_PROCESS_ID)?;
        users(text)
            .find(|entry| entry.uid == Some(id))
            .map_or(Ok((id, 0, None)), |entry| entry.ids(entry.name).map(|(uid, gid)| (uid, gid, Some(entry))))?
    } else if passwd.is_none() && user == "root" {
        (0, 0, None)
    } else if passwd.is_none() {
        return Err(Error::NoDatabase { what: "user", name: user.to_owned(), file: PASSWD });
    } else {
        let entry = find_user(text, user)?;
        let (uid, gid) = entry.ids(user)?;
        (uid, gid, Some(entry))
    };
    let (uid, own_gid, entry) = entry;
    let home = entry.as_ref().map(|entry| entry.home.to_owned());
    let (gid, mut groups) = match (group, entry) {
        (Some(group), _) if is_number(group) => (number(group, LARGEST_PROCESS_ID)?, Vec::new()),
        (Some(group), _) => (find_group(read(root, GROUP)?.as_deref(), group)?, Vec::new()),
        (None, Some(entry)) => (own_gid, groups_of(&read(root, GROUP)?.unwrap_or_default(), entry.name)),
        (None, None) => (own_gid, Vec::new()),
    };
    // As in containers of other engines, the list of groups has the process's own as well.
    if !groups.contains(&gid) {
        groups.push(gid);
    }
    Ok(Owner { uid, gid, groups, home })
}

/// User and group of a process; an empty group counts as none.
fn split(spec: &str) -> (&str, Option<&str>) {
    match spec.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (spec, None),
    }
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn number(text: &str, largest: u32) -> Result<u32, Error> {
    let parsed = text.parse().ok().filter(|id| *id <= largest);
    parsed.ok_or_else(|| Error::OutOfRange { id: text.to_owned(), largest })
}

/// The text of a file in the root; `None` where there is none.
fn read(root: &dyn Tree, file: &'static str) -> Result<Option<String>, Error> {
    let fail = |source| Error::Read { file, source };
    let found = match resolve(root, Path::new(file), Follow::All) {
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => return Ok(None),
        result => result.map_err(fail)?,
    };
    let Some(entry) = found.entry else { return Ok(None) };
    if !matches!(entry.kind, Kind::File { .. }) {
        return Err(fail(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")));
    }
    let mut bytes = Vec::new();
    root.open(&found.path).and_then(|open| open.take(LARGEST + 1).read_to_end(&mut bytes)).map_err(fail)?;
    if bytes.len() as u64 > LARGEST {
        return Err(fail(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// `name:password:uid:gid:comment:home:shell` (passwd(5)).
struct User<'t> {
    name: &'t str,
    uid: Option<u32>,
    gid: Option<u32>,
    home: &'t str,
}

impl User<'_> {
    fn ids(&self, name: &str) -> Result<(u32, u32), Error> {
        self.uid.zip(self.gid).ok_or_else(|| Error::Malformed { name: name.to_owned(), file: PASSWD })
    }
}

fn users(passwd: &str) -> impl Iterator<Item = User<'_>> {
    passwd.lines().map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().unwrap_or_default();
        let mut fields = fields.skip(1);
        let uid = fields.next().and_then(|field| field.parse().ok());
        let gid = fields.next().and_then(|field| field.parse().ok());
        User { name, uid, gid, home: fields.nth(1).unwrap_or_default() }
    })
}

fn find_user<'t>(passwd: &'t str, name: &str) -> Result<User<'t>, Error> {
    let unknown = || Error::Unknown { what: "user", name: name.to_owned(), file: PASSWD };
    users(passwd).find(|user| user.name == name).ok_or_else(unknown)
}

/// `name:password:gid:member,member` (group(5)).
fn groups(group: &str) -> impl Iterator<Item = (&str, Option<u32>, &str)> {
    group.lines().map(|line| {
        let mut fields = line.trim().split(':');
        let name = fields.next().unwrap_or_default();
        let gid = fields.nth(1).and_then(|field| field.parse().ok());
        (name, gid, fields.next().unwrap_or_default())
    })
}

fn find_group(group: Option<&str>, name: &str) -> Result<u32, Error> {
    let Some(text) = group else {
        let missing = Error::NoDatabase { what: "group", name: name.to_owned(), file: GROUP };
        return if name == "root" { Ok(0) } else { Err(missing) };
    };
    let unknown = || Error::Unknown { what: "group", name: name.to_owned(), file: GROUP };
    let (_, gid, _) = groups(text).find(|(own, ..)| *own == name).ok_or_else(unknown)?;
    gid.ok_or_else(|| Error::Malformed { name: name.to_owned(), file: GROUP })
}

fn groups_of(group: &str, user: &str) -> Vec<u32> {
    groups(group)
        .filter(|(_, _, members)| members.split(',').any(|member| member == user))
        .filter_map(|(_, gid, _)| gid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::context::Context;
    use crate::context::ignore::Ignore;

    fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Context) {
        let dir = tempfile::tempdir().unwrap();
        for (path, content) in files {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let context = Context::open(dir.path(), Ignore::default(), None).unwrap();
        (dir, context)
    }

    const FILES: &[(&str, &str)] = &[
        (
            "etc/passwd",
            "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001:,,,:/home/app:/bin/sh\n\nbad:x:?:1\n7:x:77:78::/seven:\n3000000000:x:8:9::/:\n",
        ),
        ("etc/group", "root:x:0:\nwww:x:33:app,other\nextra:x:44:app\nbad:x::\n7:x:99:\n"),
    ];

    #[test]
    fn files_belong_to() {
        let (_dir, root) = root(FILES);
        for (spec, expected) in [
            ("0", Ok((0, 0))),
            ("1000", Ok((1000, 1000))),
            ("55", Ok((55, 55))),
            ("55:66", Ok((55, 66))),
            ("2147483647:0", Ok((2_147_483_647, 0))),
            ("99999999999", Ok((0, 0))),
            ("app:99999999999", Ok((1000, 1001))),
            ("-2:-1", Ok((4_294_967_294, 0))),
            ("+5", Ok((5, 5))),
            ("root", Ok((0, 0))),
            ("3000000000", Ok((8, 9))),
            ("app", Ok((1000, 1001))),
            ("app:", Ok((1000, 0))),
            ("5:", Ok((5, 0))),
            ("app:www", Ok((1000, 33))),
            ("app:5", Ok((1000, 5))),
            ("12:www", Ok((12, 33))),
            ("7", Ok((7, 7))),
            ("nobody", Ok((0, 0))),
            ("app:nogroup", Ok((1000, 1001))),
            ("bad", Err("the entry of \"bad\" in /etc/passwd of the image that is built is malformed")),
            ("app:bad", Err("the entry of \"bad\" in /etc/group of the image that is built is malformed")),
            (":www", Ok((0, 33))),
        ] {
            let found = for_files(spec, &root).map(|found| (found.owner.uid, found.owner.gid));
            assert_eq!(found.map_err(|error| error.to_string()), expected.map_err(str::to_owned), "{spec}");
        }
    }

    #[test]
    fn a_process_runs_as() {
        let (_dir, root) = root(FILES);
        let home = |path: &str| Some(path.to_owned());
        for (spec, expected) in [
            ("", Ok((0, 0, vec![0], home("/root")))),
            ("root", Ok((0, 0, vec![0], home("/root")))),
            ("1000", Ok((1000, 1001, vec![33, 44, 1001], home("/home/app")))),
            ("55", Ok((55, 0, vec![0], None))),
            ("55:66", Ok((55, 66, vec![66], None))),
            ("1000:1000", Ok((1000, 1000, vec![1000], home("/home/app")))),
            ("app", Ok((1000, 1001, vec![33, 44, 1001], home("/home/app")))),
            ("app:www", Ok((1000, 33, vec![33], home("/home/app")))),
            ("77", Ok((77, 78, vec![78], home("/seven")))),
            ("nobody", Err("no user \"nobody\" in /etc/passwd of the image that is built")),
            ("2147483648", Err("2147483648 is not an id: the largest is 2147483647")),
        ] {
            let owner = for_process(spec, &root)
                .map(|owner| (owner.uid, owner.gid, owner.groups, owner.home))
                .map_err(|error| error.to_string());
            assert_eq!(owner, expected.map_err(str::to_owned), "{spec}");
        }
    }

    #[test]
    fn without_files_only_numbers_and_root_are_known() {
        let (_dir, root) = root(&[]);
        let known = FileOwner { owner: Owner::default(), unknown: Vec::new() };
        assert_eq!(for_files("root:root", &root).unwrap(), known);
        assert_eq!(for_files("5", &root).unwrap().owner.gid, 5);
        assert_eq!(for_process("root", &root).unwrap(), Owner { groups: vec![0], ..Owner::default() });
        assert_eq!(for_process("5", &root).unwrap().uid, 5);
        let FileOwner { owner, unknown } = for_files("app:staff", &root).unwrap();
        assert_eq!(owner, Owner::default());
        assert!(unknown[0].contains("no user \"app\"") && unknown[1].contains("no group \"staff\""), "{unknown:?}");
        assert!(for_process("app", &root).is_err());
    }

    #[test]
    fn the_machines_own_files_are_never_read() {
        let (dir, _) = root(&[]);
        std::fs::create_dir(dir.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("etc/passwd")).unwrap();
        let context = Context::open(dir.path(), Ignore::default(), None).unwrap();
        assert!(for_files("daemon", &context).is_err());
    }
}
