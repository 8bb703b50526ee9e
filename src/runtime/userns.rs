//! Working without root: the whole program moves into a user namespace where it is root.
//!
//! [`enter`] is called once, at the start of the program, while it has one thread. Afterwards unpacking with owners,
//! mounting overlays and everything else works as for root, within the ids that the user has. Never gains anything that
//! the user did not have; changes nothing on the host.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::thread::CapabilitySet;

use super::idmap::{Mapping, mapping, ranges, total, user_name};
use super::sys::{self, EndSignal, Namespaces};

/// What [`enter`] has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entered {
    /// How many user ids the namespace has: the user's own as 0, then those of `/etc/subuid`.
    pub ranges: u32,
    /// Whether the user's own id is the only one, so that files cannot belong to anyone else.
    pub single: bool,
}

/// Why the program could not move.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program has more than one thread already; a mistake in the program.
    #[error("a user namespace can only be entered before the program has started threads")]
    Threads,
    /// The kernel does not give this user a user namespace.
    #[error("cannot make a user namespace{}", knob.as_deref().map_or_else(String::new, |knob| format!(" ({knob})")))]
    Forbidden {
        /// The setting that forbids it and how to change it, if it was found.
        knob: Option<String>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The user has ranges of ids, but no program to map them.
    #[error(
        "/etc/subuid grants ids to this user, but {program} to map them is not installed (the package is called \
         uidmap or shadow-utils)"
    )]
    ProgramMissing {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// What starting it gave.
        #[source]
        source: io::Error,
    },
    /// Mapping the ids failed.
    #[error("{program} failed: {said}")]
    Program {
        /// `newuidmap` or `newgidmap`.
        program: &'static str,
        /// What it wrote.
        said: String,
    },
    /// Mapping the user's own id failed.
    #[error("cannot write {path}{}", knob.as_deref().map_or_else(String::new, |knob| format!(" ({knob})")))]
    Map {
        /// Which file.
        path: &'static str,
        /// The setting that forbids it and how to change it, if it was found.
        knob: Option<String>,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// Preparing for it failed.
    #[error("cannot {action} to enter a user namespace")]
    Prepare {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// Whether this process lacks what [`run`](super::run) needs, so that [`enter`] has to be called first.
#[must_use]
pub fn needed() -> bool {
    let admin = rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN));
    !(admin && rustix::process::geteuid().is_root())
}

/// Whether this process is in a user namespace other than the host's, where overlays must keep their records in
/// `user.overlay.` (see [`Plan::userxattr`](super::Plan::userxattr)).
#[must_use]
pub fn inside() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_ascii_whitespace().ne(["0", "0", "4294967295"])
}

/// Moves this process into a new user namespace as its root, and into a mount namespace of its own.
///
/// The ids are those that `/etc/subuid` and `/etc/subgid` grant the user, mapped by `newuidmap` and `newgidmap`;
/// without such a grant only the user's own.
///
/// # Errors If the process has other threads, if the kernel forbids it, or if the user has ids that cannot be mapped.
/// The process is then of no use for anything but saying so.
pub fn enter() -> Result<Entered, Error> {
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|source| prepare("read /proc/self/task", source))?;
    if tasks.count() != 1 {
        return Err(Error::Threads);
    }
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let maps = Maps::of(uid, gid)?;
    match &maps {
        Some(maps) => enter_with(maps)?,
        None => enter_alone(uid, gid)?,
    }
    let ranges = maps.as_ref().map_or(1, |maps| total(&maps.users));
    Ok(Entered { ranges, single: maps.is_none() })
}

/// The mappings for a user with ids beyond the own.
#[derive(Debug)]
struct Maps {
    users: Vec<Mapping>,
    groups: Vec<Mapping>,
}

impl Maps {
    /// What the files below `/etc` grant; `None` if that is not both users and groups.
    fn of(uid: u32, gid: u32) -> Result<Option<Self>, Error> {
        let passwd = read_if_there("/etc/passwd")?;
        let name = user_name(&passwd, uid);
        let users = ranges(&read_if_there("/etc/subuid")?, name, uid);
        // Ranges of groups belong to users too, so the user's number is what a numeric owner means.
        let groups = ranges(&read_if_there("/etc/subgid")?, name, uid);
        if users.is_empty() || groups.is_empty() {
            return Ok(None);
        }
        Ok(Some(Self { users: mapping(uid, &users), groups: mapping(gid, &groups) }))
    }
}

fn read_if_there(path: &'static str) -> Result<String, Error> {
    match std::fs::read(path) {
        // Only lines about one user matter; a name in another encoding is not that user's.
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(prepare("read the ids granted in /etc/subuid and /etc/subgid", source)),
    }
}

/// Enters with ranges of ids: a process that stays outside runs the programs that may map them.
fn enter_with(maps: &Maps) -> Result<(), Error> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC).map_err(|source| prepare("make a pipe", source.into()));
    let ((go_reader, go), (answer, answer_writer)) = (pipe()?, pipe()?);
    let pid = rustix::process::getpid().as_raw_nonzero().get().to_string();
    // There are no other threads, so the child may do as it likes.
    let helper = sys::clone3(Namespaces::NONE, EndSignal::Child, || {
        sys::close_range(raw(&go), raw(&go)).map_or(1, |()| help(maps, &pid, &go_reader, &answer_writer))
    });
    let helper = helper.map_err(|source| prepare("start a helper", source))?;
    drop((go_reader, answer_writer));

    let unshared = sys::unshare(Namespaces::USER.and(Namespaces::MOUNT));
    if unshared.is_ok() {
        // A helper that is gone already has left its reasons in the other pipe.
        let _ = rustix::io::write(&go, b"g");
    }
    drop(go);
    let mut said = Vec::new();
    let read = io::Read::read_to_end(&mut std::fs::File::from(answer), &mut said);
    sys::wait(&helper.pidfd).map_err(|source| prepare("wait for a helper", source))?;
    unshared.map_err(forbidden)?;
    read.map_err(|source| prepare("hear from a helper", source))?;
    answer_to_result(&said)
}

/// The helper: once told that there is a namespace, maps the ids of process `pid` and writes what went wrong.
fn help(maps: &Maps, pid: &str, go: &OwnedFd, answer: &OwnedFd) -> i32 {
    let mut byte = [0];
    if !matches!(rustix::io::retry_on_intr(|| rustix::io::read(go, &mut byte)), Ok(1)) {
        return 0;
    }
    for (number, lines) in [(USERS, &maps.users), (GROUPS, &maps.groups)] {
        let mut command = Command::new(program(number));
        command.arg(pid).stdin(Stdio::null());
        for line in lines {
            command.args([line.inside, line.outside, line.count].map(|id| id.to_string()));
        }
        let complaint = match command.output() {
            Ok(output) if output.status.success() => continue,
            Ok(output) => [&[number, SAID], output.stderr.as_slice()].concat(),
            Err(error) => [[number, ERRNO].as_slice(), &error.raw_os_error().unwrap_or(0).to_le_bytes()].concat(),
        };
        // The parent takes a helper that says nothing for one that was content, so this must not go unheard.
        return i32::from(rustix::io::write(answer, &complaint).is_err());
    }
    i32::from(rustix::io::write(answer, &[DONE]).is_err())
}

/// First byte of an answer: all is well, or which program it is about.
const DONE: u8 = 0;
const USERS: u8 = 1;
const GROUPS: u8 = 2;
/// Second byte: an error number follows, or what the program said.
const ERRNO: u8 = 0;
const SAID: u8 = 1;

fn program(number: u8) -> &'static str {
    if number == USERS { "newuidmap" } else { "newgidmap" }
}

fn answer_to_result(answer: &[u8]) -> Result<(), Error> {
    match answer {
        [DONE] => Ok(()),
        [number, ERRNO, errno @ ..] => {
            let errno = errno.try_into().map_or(0, i32::from_le_bytes);
            Err(Error::ProgramMissing { program: program(*number), source: io::Error::from_raw_os_error(errno) })
        }
        [number, SAID, said @ ..] => {
            let said = String::from_utf8_lossy(said).trim().to_owned();
            Err(Error::Program { program: program(*number), said })
        }
        _ => Err(Error::Program { program: "the helper that maps ids", said: "it ended without a word".to_owned() }),
    }
}

/// Enters with the user's own id only, which needs nobody's help.
fn enter_alone(uid: u32, gid: u32) -> Result<(), Error> {
    sys::unshare(Namespaces::USER.and(Namespaces::MOUNT)).map_err(forbidden)?;
    // Giving up groups could give access that a group was denied; the kernel wants that ruled out first.
    for (path, content) in [
        ("/proc/self/setgroups", "deny".to_owned()),
        ("/proc/self/gid_map", format!("0 {gid} 1")),
        ("/proc/self/uid_map", format!("0 {uid} 1")),
    ] {
        std::fs::write(path, content).map_err(|source| Error::Map { path, knob: knob(), source })?;
    }
    Ok(())
}

fn forbidden(source: io::Error) -> Error {
    Error::Forbidden { knob: knob(), source }
}

fn prepare(action: &'static str, source: io::Error) -> Error {
    Error::Prepare { action, source }
}

/// The setting that keeps users from making user namespaces, if one does.
pub(super) fn knob() -> Option<String> {
    let setting = |name: &str| {
        let path = Path::new("/proc/sys").join(name.replace('.', "/"));
        std::fs::read_to_string(path).ok().map(|value| value.trim().to_owned())
    };
    let is = |name: &str, value: &str| setting(name).is_some_and(|set| set == value);
    if is("kernel.unprivileged_userns_clone", "0") {
        Some("they are forbidden to users: sysctl -w kernel.unprivileged_userns_clone=1".to_owned())
    } else if is("user.max_user_namespaces", "0") {
        Some("none are allowed: sysctl -w user.max_user_namespaces=15000".to_owned())
    } else if is("kernel.apparmor_restrict_unprivileged_userns", "1") {
        Some(
            "AppArmor restricts them: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or give this program \
             an AppArmor profile that allows userns"
                .to_owned(),
        )
    } else {
        None
    }
}

fn raw(fd: &OwnedFd) -> u32 {
    std::os::fd::AsRawFd::as_raw_fd(fd).unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_of_the_helper_become_errors() {
        assert!(answer_to_result(&[DONE]).is_ok());
        let error = answer_to_result(&[USERS, ERRNO, 2, 0, 0, 0]).unwrap_err().to_string();
        assert!(error.contains("newuidmap") && error.contains("package"), "{error}");
        let error = answer_to_result(b"\x02\x01newgidmap: gid range [1-2) not allowed\n").unwrap_err().to_string();
        assert_eq!(error, "newgidmap failed: newgidmap: gid range [1-2) not allowed");
        assert!(answer_to_result(&[]).is_err());
    }

    #[test]
    fn a_program_with_threads_is_refused() {
        // The test harness has at least the main thread and the one that runs this test.
        let other = std::thread::spawn(std::thread::park);
        assert!(matches!(enter(), Err(Error::Threads)));
        other.thread().unpark();
        other.join().unwrap();
    }
}
