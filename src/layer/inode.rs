//! Reading directories and inodes by descriptor, never through a symbolic link.
//!
//! Takes open directories and names, gives sorted listings, opened children and their metadata. Never changes
//! anything, and never opens a device or waits for a pipe's other end.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat};
use rustix::io::Errno;

use super::tree::{Entry, Kind};

/// How many bytes of directory entries are asked for at once: about a thousand names.
const LISTING: usize = 32 << 10;

/// One name in a directory.
#[derive(Debug)]
pub(super) struct Child {
    /// The name.
    pub(super) name: Vec<u8>,
    /// What it is.
    pub(super) kind: ChildKind,
}

/// What a name in a layer's directory stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ChildKind {
    /// A whiteout: the name is hidden below and there is nothing here.
    Whiteout,
    /// A directory.
    Directory,
    /// A regular file.
    File,
    /// A socket.
    Socket,
    /// A symbolic link, a device or a named pipe.
    Other,
}

/// Opens the directory that a layer's tree is in. Its own path may pass symbolic links: it is the caller's.
pub(super) fn open_root(path: &Path) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a directory in a directory.
pub(super) fn open_directory(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Opens a regular file in a directory for reading and gives its metadata. If it has become something else since
/// the directory was listed, that is an error.
pub(super) fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(parent, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile { Ok((file, stat)) } else { Err(Errno::STALE) }
}

/// The metadata of a name in a directory.
pub(super) fn stat(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Stat> {
    rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)
}

/// Everything in a directory, in no particular order.
pub(super) fn list(directory: BorrowedFd<'_>) -> rustix::io::Result<Vec<Child>> {
    let mut buffer = vec![MaybeUninit::uninit(); LISTING];
    let mut listing = RawDir::new(directory, &mut buffer);
    let mut children = Vec::new();
    while let Some(found) = listing.next() {
        let found = found?;
        let name = found.file_name().to_bytes();
        if name == b"." || name == b".." {
            continue;
        }
        let kind = match found.file_type() {
            FileType::RegularFile => ChildKind::File,
            FileType::Directory => ChildKind::Directory,
            FileType::Socket => ChildKind::Socket,
            FileType::Symlink | FileType::Fifo | FileType::BlockDevice => ChildKind::Other,
            // The listing does not say which character device it is, or (some file systems) says nothing.
            FileType::CharacterDevice | FileType::Unknown => child_kind(&stat(directory, name)?),
        };
        children.push(Child { name: name.to_vec(), kind });
    }
    Ok(children)
}

/// What an inode stands for in a layer's directory.
pub(super) fn child_kind(stat: &Stat) -> ChildKind {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => ChildKind::File,
        FileType::Directory => ChildKind::Directory,
        FileType::Socket => ChildKind::Socket,
        FileType::CharacterDevice if stat.st_rdev == 0 => ChildKind::Whiteout,
        _ => ChildKind::Other,
    }
}

/// Where a symbolic link in a directory points. An empty name stands for the link that the descriptor is open on.
pub(super) fn link_target(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<Vec<u8>> {
    Ok(rustix::fs::readlinkat(parent, name, Vec::new())?.into_bytes())
}

/// The metadata of an inode as a [`Tree`](super::tree::Tree) gives it. `target` is asked for symbolic links only.
pub(super) fn entry(stat: &Stat, target: impl FnOnce() -> rustix::io::Result<Vec<u8>>) -> io::Result<Entry> {
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File { size: size(stat) },
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink { target: PathBuf::from(OsString::from_vec(target()?)) },
        FileType::CharacterDevice => Kind::CharDevice { device: device(stat) },
        FileType::BlockDevice => Kind::BlockDevice { device: device(stat) },
        FileType::Fifo => Kind::Fifo,
        FileType::Socket => Kind::Socket,
        FileType::Unknown => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    let shared = stat.st_nlink > 1 && kind != Kind::Directory;
    Ok(Entry {
        kind,
        mode: permissions(stat),
        uid: stat.st_uid,
        gid: stat.st_gid,
        mtime: mtime(stat),
        link_group: shared.then_some((stat.st_dev, stat.st_ino)),
    })
}

/// The low twelve bits of the mode.
pub(super) fn permissions(stat: &Stat) -> u32 {
    stat.st_mode & 0o7777
}

/// The length of a file in bytes.
pub(super) fn size(stat: &Stat) -> u64 {
    u64::try_from(stat.st_size).unwrap_or(0)
}

/// What an inode takes on the disk, in bytes.
pub(super) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}

/// The time of the last change of content, in seconds and nanoseconds.
pub(super) fn mtime(stat: &Stat) -> (i64, u32) {
    (stat.st_mtime, u32::try_from(stat.st_mtime_nsec).unwrap_or(0))
}

/// Major and minor number of a device.
pub(super) fn device(stat: &Stat) -> (u32, u32) {
    (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev))
}
