//! Trees for tests: made by random changes, and described so that two of them can be compared.
//!
//! Changes only go below a directory of the test's own and never through a symbolic link.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::tree::{Kind, Tree};
use crate::digest::Digest;

pub(super) mod applier;
pub(super) mod overlay;

/// Whether a test that needs root can run. The one place where tests of layers are left out.
pub(super) fn is_root() -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("NOT TESTED: this test makes devices, owners or mounts, and must be run as root");
    }
    is_root
}

/// How many cases a property is tried with: `usual`, or as many as `PROPTEST_CASES` says for a long run.
pub(super) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}

/// One change to a tree. Changes that cannot be made where a tree stands are not.
#[derive(Debug, Clone)]
pub(super) enum Change {
    Write { path: PathBuf, length: usize, byte: u8 },
    Append { path: PathBuf },
    Sparse { path: PathBuf, holes: u64 },
    Directory { path: PathBuf },
    Symlink { path: PathBuf, target: String },
    Fifo { path: PathBuf },
    Socket { path: PathBuf },
    Device { path: PathBuf, block: bool, major: u32, minor: u32 },
    HardLink { from: PathBuf, to: PathBuf },
    Remove { path: PathBuf },
    Rename { from: PathBuf, to: PathBuf },
    Mode { path: PathBuf, mode: u32 },
    Owner { path: PathBuf, uid: u32, gid: u32 },
    SameOwner { path: PathBuf },
    Time { path: PathBuf, seconds: i64, nanoseconds: i64 },
    Attribute { path: PathBuf, name: &'static str, value: Vec<u8> },
}

/// Any path of a small number, so that changes meet.
pub(super) fn any_path() -> impl Strategy<Value = PathBuf> {
    let name = prop_oneof![
        4 => Just(b"a".to_vec()),
        4 => Just(b"b".to_vec()),
        2 => Just(b"a-".to_vec()),
        1 => Just(b"a0".to_vec()),
        1 => Just("ä".as_bytes().to_vec()),
        1 => Just(b"\xff\x01 \n".to_vec()),
        1 => Just(vec![b'l'; 120]),
        1 => Just(vec![b'm'; 200]),
    ];
    prop::collection::vec(name, 1..4).prop_map(|names| names.iter().map(|name| OsStr::from_bytes(name)).collect())
}

/// Any change.
pub(super) fn any_change() -> impl Strategy<Value = Change> {
    let attribute = prop_oneof![
        Just(("user.one", b"1".to_vec())),
        Just(("user.two", b"a\nb\0c=\xff".to_vec())),
        Just(("security.capability", capability())),
        Just(("system.posix_acl_access", acl())),
        Just(("system.posix_acl_default", acl())),
    ];
    let length = prop_oneof![Just(0), Just(1), Just(511), Just(512), Just(513), Just(1 << 20), 0usize..3000];
    let id = prop_oneof![Just(0u32), Just(1000), Just((1 << 21) - 1), Just(1 << 21), Just(3_000_000_000)];
    let seconds = prop_oneof![Just(-1i64), Just(0), Just(1_700_000_000), Just(-2_000_000_000), Just(1 << 33)];
    prop_oneof![
        6 => (any_path(), length, any::<u8>()).prop_map(|(path, length, byte)| Change::Write { path, length, byte }),
        2 => any_path().prop_map(|path| Change::Append { path }),
        1 => (any_path(), 0u64..3 << 20).prop_map(|(path, holes)| Change::Sparse { path, holes }),
        1 => any_path().prop_map(|path| Change::Socket { path }),
        6 => any_path().prop_map(|path| Change::Directory { path }),
        2 => (any_path(), prop_oneof!["[a/.]{1,5}", "[a-z/ö]{90,110}"]).prop_map(|(path, target)| Change::Symlink { path, target }),
        1 => any_path().prop_map(|path| Change::Fifo { path }),
        1 => (any_path(), any::<bool>(), 1u32..4000, 0u32..1 << 20)
            .prop_map(|(path, block, major, minor)| Change::Device { path, block, major, minor }),
        2 => (any_path(), any_path()).prop_map(|(from, to)| Change::HardLink { from, to }),
        4 => any_path().prop_map(|path| Change::Remove { path }),
        2 => (any_path(), any_path()).prop_map(|(from, to)| Change::Rename { from, to }),
        2 => (any_path(), 0u32..0o10000).prop_map(|(path, mode)| Change::Mode { path, mode }),
        2 => (any_path(), id.clone(), id).prop_map(|(path, uid, gid)| Change::Owner { path, uid, gid }),
        3 => any_path().prop_map(|path| Change::SameOwner { path }),
        2 => (any_path(), seconds, 0i64..1_000_000_000)
            .prop_map(|(path, seconds, nanoseconds)| Change::Time { path, seconds, nanoseconds }),
        2 => (any_path(), attribute).prop_map(|(path, (name, value))| Change::Attribute { path, name, value }),
    ]
}

/// `cap_net_raw+ep` as the kernel stores it (version 2).
fn capability() -> Vec<u8> {
    let mut value = vec![0; 20];
    value[..8].copy_from_slice(&[1, 0, 0, 2, 0, 0x20, 0, 0]);
    value
}

/// An ACL that gives one more user the right to read.
fn acl() -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, permissions, id) in
        [(1u8, 6u8, u32::MAX), (2, 4, 1000), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 4, u32::MAX)]
    {
        value.extend_from_slice(&[tag, 0, permissions, 0]);
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

impl Change {
    /// Makes the change below `root`, if it can be made.
    pub(super) fn make(&self, root: &Path) {
        // A change that does not fit the tree as it stands changes nothing; which ones fit is the same for all trees
        // that are compared.
        let _ = self.try_make(root);
    }

    fn try_make(&self, root: &Path) -> Option<()> {
        match self {
            Self::Write { path, length, byte } => {
                let path = inside(root, path)?;
                if fs::symlink_metadata(&path).is_ok_and(|found| !found.is_file()) {
                    return None;
                }
                fs::write(path, vec![*byte; *length]).ok()
            }
            Self::Append { path } => {
                use std::io::Write as _;
                let path =
                    inside(root, path).filter(|path| path.symlink_metadata().is_ok_and(|found| found.is_file()))?;
                fs::OpenOptions::new().append(true).open(path).ok()?.write_all(b"more").ok()
            }
            Self::Sparse { path, holes } => {
                use std::os::unix::fs::FileExt as _;
                let path = inside(root, path).filter(|path| !path.is_symlink())?;
                let file = fs::OpenOptions::new().write(true).create_new(true).open(path).ok()?;
                file.write_all_at(b"between", holes / 2).ok()?;
                file.set_len(*holes).ok()
            }
            Self::Directory { path } => fs::create_dir(inside(root, path)?).ok(),
            Self::Symlink { path, target } => symlink(target, inside(root, path)?).ok(),
            Self::Fifo { path } => node(&inside(root, path)?, FileType::Fifo, 0),
            Self::Socket { path } => node(&inside(root, path)?, FileType::Socket, 0),
            Self::Device { path, block, major, minor } => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                node(&inside(root, path)?, kind, rustix::fs::makedev(*major, *minor))
            }
            Self::HardLink { from, to } => fs::hard_link(inside(root, from)?, inside(root, to)?).ok(),
            Self::Remove { path } => {
                let path = inside(root, path)?;
                if path.symlink_metadata().ok()?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
                    .ok()
            }
            Self::Rename { from, to } => fs::rename(inside(root, from)?, inside(root, to)?).ok(),
            Self::Mode { path, mode } => {
                let path = inside(root, path).filter(|path| !path.is_symlink())?;
                fs::set_permissions(path, fs::Permissions::from_mode(*mode)).ok()
            }
            Self::Owner { path, uid, gid } => lchown(inside(root, path)?, Some(*uid), Some(*gid)).ok(),
            Self::SameOwner { path } => {
                let path = inside(root, path)?;
                let found = path.symlink_metadata().ok().filter(|found| found.mode() & 0o6000 == 0)?;
                lchown(path, Some(found.uid()), Some(found.gid())).ok()
            }
            Self::Time { path, seconds, nanoseconds } => {
                let time = Timespec { tv_sec: *seconds, tv_nsec: *nanoseconds };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, inside(root, path)?, &times, AtFlags::SYMLINK_NOFOLLOW).ok()
            }
            Self::Attribute { path, name, value } => {
                rustix::fs::lsetxattr(inside(root, path)?, *name, value, XattrFlags::empty()).ok()
            }
        }
    }
}

fn node(path: &Path, kind: FileType, device: u64) -> Option<()> {
    rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o644), device).ok()
}

/// The path below the root, if its parents are directories and not links to some.
fn inside(root: &Path, path: &Path) -> Option<PathBuf> {
    let path = root.join(path);
    let parents = path.ancestors().skip(1).take_while(|parent| parent.starts_with(root));
    parents.into_iter().all(|parent| parent.symlink_metadata().is_ok_and(|found| found.is_dir())).then_some(path)
}

/// Everything about a tree that an image holds, by path; the root itself and sockets are left out.
pub(super) type Description = BTreeMap<PathBuf, String>;

/// What a directory on disk holds, read with nothing of what is tested.
pub(super) fn describe(root: &Path) -> Description {
    let (mut description, mut names) = (Description::new(), HashMap::<_, Vec<PathBuf>>::new());
    let mut ahead = vec![PathBuf::new()];
    while let Some(directory) = ahead.pop() {
        for found in fs::read_dir(root.join(&directory)).unwrap() {
            let relative = directory.join(found.unwrap().file_name());
            let path = root.join(&relative);
            let found = path.symlink_metadata().unwrap();
            let kind = found.file_type();
            if kind.is_socket() {
                continue;
            }
            let device = (rustix::fs::major(found.rdev()), rustix::fs::minor(found.rdev()));
            let what = if kind.is_dir() {
                ahead.push(relative.clone());
                "directory".to_owned()
            } else if kind.is_symlink() {
                format!("link to {:?}", fs::read_link(&path).unwrap())
            } else if kind.is_file() {
                format!("file {}", Digest::of(&fs::read(&path).unwrap()))
            } else if kind.is_fifo() {
                "fifo".to_owned()
            } else {
                format!("device {} {device:?}", if kind.is_block_device() { 'b' } else { 'c' })
            };
            if !kind.is_dir() && found.nlink() > 1 {
                names.entry((found.dev(), found.ino())).or_default().push(relative.clone());
            }
            let mode = found.mode() & 0o7777;
            let owner = (found.uid(), found.gid());
            description.insert(relative, line(&what, mode, owner, found.mtime(), attributes(&path)));
        }
    }
    with_links(description, names.into_values())
}

/// What a tree holds, asked of the tree.
pub(super) fn describe_tree(tree: &dyn Tree) -> Description {
    let (mut description, mut names) = (Description::new(), HashMap::<_, Vec<PathBuf>>::new());
    let mut ahead = vec![PathBuf::new()];
    while let Some(directory) = ahead.pop() {
        for name in tree.names(&directory).unwrap() {
            let path = directory.join(name);
            let entry = tree.entry(&path).unwrap().unwrap();
            let what = match entry.kind {
                Kind::Directory => {
                    ahead.push(path.clone());
                    "directory".to_owned()
                }
                Kind::Symlink { target } => format!("link to {target:?}"),
                Kind::File { .. } => {
                    let mut content = Vec::new();
                    std::io::Read::read_to_end(&mut tree.open(&path).unwrap(), &mut content).unwrap();
                    format!("file {}", Digest::of(&content))
                }
                Kind::Fifo => "fifo".to_owned(),
                Kind::CharDevice { device } => format!("device c {device:?}"),
                Kind::BlockDevice { device } => format!("device b {device:?}"),
                Kind::Socket => continue,
            };
            if let Some(group) = entry.link_group {
                names.entry(group).or_default().push(path.clone());
            }
            let xattrs = tree.xattrs(&path).unwrap().into_iter();
            let xattrs = xattrs.map(|(name, value)| (name.into_string().unwrap(), value)).collect();
            description.insert(path, line(&what, entry.mode, (entry.uid, entry.gid), entry.mtime.0, xattrs));
        }
    }
    with_links(description, names.into_values())
}

fn line(what: &str, mode: u32, (uid, gid): (u32, u32), mtime: i64, xattrs: BTreeMap<String, Vec<u8>>) -> String {
    format!("{what}, {mode:o}, {uid}:{gid}, at {mtime}, {xattrs:?}")
}

fn with_links(mut description: Description, groups: impl Iterator<Item = Vec<PathBuf>>) -> Description {
    for mut group in groups.filter(|group| group.len() > 1) {
        group.sort();
        for path in &group {
            description.get_mut(path).unwrap().push_str(&format!(", as {:?}", group[0]));
        }
    }
    description
}

/// The same without which names share a file.
pub(super) fn without_links(description: Description) -> Description {
    let cut = |line: String| line.split(", as ").next().unwrap().to_owned();
    description.into_iter().map(|(path, line)| (path, cut(line))).collect()
}

fn attributes(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut names = vec![0; 4096];
    let length = rustix::fs::llistxattr(path, names.as_mut_slice()).unwrap();
    let names = String::from_utf8(names[..length].to_vec()).unwrap();
    let of_image = |name: &&str| {
        let is_record = name.starts_with("user.overlay.") || name.starts_with("trusted.");
        !name.is_empty() && !is_record && *name != "security.selinux"
    };
    let value = |name: &str| {
        let mut value = vec![0; 4096];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).unwrap();
        value[..length].to_vec()
    };
    names.split('\0').filter(of_image).map(|name| (name.to_owned(), value(name))).collect()
}

/// Makes a tree of changes; its times are not the test's.
pub(super) fn make(root: &Path, changes: &[Change]) {
    fs::create_dir_all(root).unwrap();
    changes.iter().for_each(|change| change.make(root));
}

/// Makes a whiteout.
pub(super) fn whiteout(path: &Path) {
    node(path, FileType::CharacterDevice, 0).unwrap();
}

/// Makes a directory opaque, as a root's overlay does.
pub(super) fn opaque(path: &Path) {
    rustix::fs::lsetxattr(path, "trusted.overlay.opaque", b"y", XattrFlags::empty()).unwrap();
}

/// Sets both times of a file.
pub(super) fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}
