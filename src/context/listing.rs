//! One directory of a context, read once: names in, entries with their `stat` results out.
//!
//! Everything is opened relative to the context's own descriptor, in one step that refuses every symbolic link, so nothing
//! outside the context is ever read, however the tree changes meanwhile. Costs one `statx` for each entry that a build may see,
//! and nothing for one that the patterns hide.

use std::ffi::{CStr, OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::ignore::{Ignore, Inherited, PatternIndex};
use super::index::Stat;
use crate::layer::tree::{Entry, Kind};

/// A directory's visible entries and what its patterns say about everything below.
#[derive(Debug)]
pub(super) struct Listing {
    /// Sorted by name.
    pub(super) nodes: Vec<Node>,
}

/// One entry.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) name: OsString,
    pub(super) entry: Entry,
    pub(super) stat: Stat,
    /// For a directory: what its entries inherit.
    pub(super) inherited: Inherited,
    /// Hidden itself, but something below may be visible.
    pub(super) half_hidden: bool,
}

impl Listing {
    pub(super) fn find(&self, name: &OsStr) -> Option<&Node> {
        self.nodes.binary_search_by(|node| node.name.as_os_str().cmp(name)).ok().map(|at| &self.nodes[at])
    }
}

/// Reads the directory `path`, whose entries start from `inherited`.
pub(super) fn read(root: BorrowedFd<'_>, path: &Path, ignore: &Ignore, inherited: &Inherited) -> io::Result<Listing> {
    let directory = open_below(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut nodes = Vec::new();
    for (name, kind) in names(directory.as_fd())? {
        let child = path.join(&name);
        if let Some(node) = node(directory.as_fd(), name, kind, &child, ignore, inherited)? {
            nodes.push(node);
        }
    }
    nodes.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(Listing { nodes })
}

/// The entry of the context's own directory.
pub(super) fn root_node(root: BorrowedFd<'_>) -> io::Result<Node> {
    let result = rustix::fs::statx(root, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(Node {
        name: OsString::new(),
        entry: entry(&result, Kind::Directory),
        stat: stat(&result),
        inherited: Inherited::default(),
        half_hidden: false,
    })
}

/// Opens a path below `root` without following any symbolic link.
pub(super) fn open_below(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let flags = flags | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match rustix::fs::openat2(root, path, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or under a filter that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_step_by_step(root, path, flags),
        result => Ok(result?),
    }
}

pub(super) fn open_step_by_step(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let mut parts = path.components().peekable();
    let mut at: Option<OwnedFd> = None;
    while let Some(part) = parts.next() {
        if !matches!(part, Component::Normal(_) | Component::CurDir) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let wanted = if parts.peek().is_some() { directory } else { flags };
        let from = at.as_ref().map_or(root, AsFd::as_fd);
        at = Some(rustix::fs::openat(from, part.as_os_str(), wanted, Mode::empty())?);
    }
    at.ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// The `stat` result of an open file, and its entry if it is a regular file.
pub(super) fn stat_open(file: &File) -> io::Result<Stat> {
    let result = rustix::fs::statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
    Ok(stat(&result))
}

fn names(directory: BorrowedFd<'_>) -> io::Result<Vec<(OsString, FileType)>> {
    let mut buffer = Vec::with_capacity(32 * 1024);
    let mut found = Vec::new();
    let mut entries = RawDir::new(directory, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            found.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

fn node(
    directory: BorrowedFd<'_>,
    name: OsString,
    kind: FileType,
    path: &Path,
    ignore: &Ignore,
    inherited: &Inherited,
) -> io::Result<Option<Node>> {
    if kind == FileType::Socket {
        return Ok(None);
    }
    let maybe_directory = matches!(kind, FileType::Directory | FileType::Unknown);
    let mut hidden: Option<PatternIndex> = None;
    let mut below = Inherited::default();
    if !ignore.is_empty() {
        if maybe_directory {
            (hidden, below) = ignore.enter(inherited, path);
        } else {
            hidden = ignore.hides(inherited, path);
        }
        if hidden.is_some() && !(maybe_directory && ignore.may_show_below(path)) {
            return Ok(None);
        }
    }
    let result = match rustix::fs::statx(directory, &name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS) {
        // Removed since its name was read.
        Err(Errno::NOENT) => return Ok(None),
        result => result?,
    };
    let kind = match FileType::from_raw_mode(result.stx_mode.into()) {
        FileType::RegularFile => Kind::File { size: result.stx_size },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: read_link(directory, &name)? },
        FileType::CharacterDevice => Kind::CharDevice { device: (result.stx_rdev_major, result.stx_rdev_minor) },
        FileType::BlockDevice => Kind::BlockDevice { device: (result.stx_rdev_major, result.stx_rdev_minor) },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket | FileType::Unknown => return Ok(None),
    };
    if hidden.is_some() && kind != Kind::Directory {
        return Ok(None);
    }
    let entry = entry(&result, kind);
    Ok(Some(Node { name, entry, stat: stat(&result), inherited: below, half_hidden: hidden.is_some() }))
}

fn read_link(directory: BorrowedFd<'_>, name: &OsStr) -> io::Result<PathBuf> {
    let target = rustix::fs::readlinkat(directory, name, Vec::new())?;
    Ok(OsString::from_vec(CStr::to_bytes(&target).to_vec()).into())
}

fn entry(result: &Statx, kind: Kind) -> Entry {
    let shared = result.stx_nlink > 1 && matches!(kind, Kind::File { .. });
    let stat = stat(result);
    Entry {
        kind,
        mode: stat.mode & 0o7777,
        uid: 0,
        gid: 0,
        mtime: stat.mtime,
        link_group: shared.then_some((stat.device, stat.inode)),
    }
}

fn stat(result: &Statx) -> Stat {
    Stat {
        device: u64::from(result.stx_dev_major) << 32 | u64::from(result.stx_dev_minor),
        inode: result.stx_ino,
        size: result.stx_size,
        mtime: (result.stx_mtime.tv_sec, result.stx_mtime.tv_nsec),
        ctime: (result.stx_ctime.tv_sec, result.stx_ctime.tv_nsec),
        mode: result.stx_mode.into(),
    }
}
