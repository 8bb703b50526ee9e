//! Applies a layer's archive to an empty directory, which becomes overlay-ready.
//!
//! Takes the uncompressed tar stream of any layer found in the wild (ustar, GNU, star, PAX) and trusts nothing in it.
//! Gives the tree, and the digest of every byte of the stream. Nothing outside the directory can be read or written:
//! every path is resolved by the kernel with the directory as its root (`openat2`, `RESOLVE_IN_ROOT`), and the last
//! part of a path is never followed.
//!
//! What an archive may do and what becomes of it:
//!
//! - `.wh.NAME` becomes a whiteout, `.wh..wh..opq` makes its directory opaque, at whatever place in the archive they
//!   stand. They hide lower layers only: a file that this layer has itself stays, and a directory that it has itself
//!   becomes opaque.
//! - A path that comes twice: the later entry counts, and a directory that stays one keeps what is in it.
//! - A leading slash does not count. `..` is refused in names and in hard links' targets; symbolic links may point anywhere, since
//!   they are only ever followed inside the root.
//! - A parent that the archive does not have is made: root's, mode 0755, time zero. A parent that is a symbolic link
//!   of this layer is followed inside the layer.
//! - Extended attributes of the kinds that an image has are set, records of overlays escaped; those of a host
//!   (`security.selinux` …) are not applied.
//! - What AUFS left in old layers (`.wh..wh.aufs`, `.wh..wh.orph`, `.wh..wh.plnk` at the root) is passed over.
//! - What the kernel does not let this process make (a device in a user namespace, an attribute that the file system
//!   does not know) is left out and named in [`Unpacked::left_out`].

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;

use self::directories::Finish;
use self::metadata::timestamps;
use super::entries::{ArchiveEntry, Entries, EntryKind, shown};
use super::inode::{self, ChildKind};
use super::xattr::{self, At};
use super::{Measured, OPAQUE_MARKER, OverlayXattr, WHITEOUT_PREFIX, incoming};

mod directories;
mod metadata;

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever the archive says; in a user namespace all its ids must be mapped.
    Kept,
    /// User and group 0 for all, where only one id is mapped.
    Squashed,
}

/// How an archive's names are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meaning {
    /// A layer's: some stand for what is deleted in lower layers.
    Layer,
    /// Files and nothing else.
    Files,
}

/// A layer that was unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// What its archive is.
    pub measured: Measured,
    /// What could not be made here.
    pub left_out: Vec<LeftOut>,
}

/// Something of a layer that could not be made on this system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// The device itself: this process may not make devices.
    Device {
        /// Its path in the layer.
        entry: PathBuf,
    },
    /// One extended attribute of an entry: the file system or the kernel does not take it.
    Attribute {
        /// The entry's path in the layer.
        entry: PathBuf,
        /// The attribute's name.
        name: OsString,
    },
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { entry } => {
                write!(f, "the device {} cannot be made by this user and is left out", entry.display())
            }
            Self::Attribute { entry, name } => {
                write!(f, "the attribute {} of {} cannot be set here and is left out", name.display(), entry.display())
            }
        }
    }
}

/// Why a layer could not be unpacked. Entries are named as the archive names them.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory to unpack into cannot be used.
    #[error("cannot unpack a layer into {path:?}")]
    Target {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The stream cannot be read.
    #[error("cannot read the layer's archive")]
    Stream {
        /// What the stream says.
        #[source]
        source: io::Error,
    },
    /// The stream ends too early.
    #[error("the layer's archive is cut off in or after {entry:?}")]
    Truncated {
        /// The last entry that was begun.
        entry: PathBuf,
    },
    /// A header makes no sense.
    #[error("the layer's archive has a bad header after {after:?}: {reason}")]
    Header {
        /// The entry before it; empty if it is the first.
        after: PathBuf,
        /// What is wrong.
        reason: &'static str,
    },
    /// An entry that is not wanted in any image.
    #[error("entry {entry:?} of the layer is refused: {reason}")]
    Refused {
        /// The entry.
        entry: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// A hard link to something that the layer does not have.
    #[error("hard link {entry:?} points to {target:?}, which is not a file of the same layer")]
    LinkTarget {
        /// The link.
        entry: PathBuf,
        /// Its target.
        target: PathBuf,
    },
    /// An owner that this user namespace has no id for.
    #[error(
        "{entry:?} belongs to user {uid} and group {gid}, which are not mapped in this user namespace: give the user a range of at least 65536 ids in /etc/subuid and /etc/subgid"
    )]
    UnmappedOwner {
        /// The entry.
        entry: PathBuf,
        /// Its user.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// The system did not let an entry be made.
    #[error("cannot unpack entry {entry:?} of the layer")]
    Write {
        /// The entry.
        entry: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        Self::Stream { source }
    }
}

/// Unpacks an uncompressed layer into the empty directory `into`. The stream is read to its end, also behind the
/// archive's, and hashed while files are made.
///
/// # Errors
/// A stream that is not a layer or is dangerous, or a system that does not take it. What `into` has then is to be
/// thrown away.
pub fn unpack(reader: impl Read + Send, into: &Path, xattr: OverlayXattr, owners: Owners) -> Result<Unpacked, Error> {
    unpack_as(Meaning::Layer, reader, into, xattr, owners)
}

/// Like [`unpack`], for an archive of files that is no layer, such as a build context. Names like whiteouts are plain
/// names, `..` counts where it stays inside, and devices and pipes are passed over, all as in Docker.
///
/// # Errors
/// As for [`unpack`].
pub fn unpack_files(
    reader: impl Read + Send,
    into: &Path,
    xattr: OverlayXattr,
    owners: Owners,
) -> Result<Unpacked, Error> {
    unpack_as(Meaning::Files, reader, into, xattr, owners)
}

fn unpack_as(
    meaning: Meaning,
    reader: impl Read + Send,
    into: &Path,
    xattr: OverlayXattr,
    owners: Owners,
) -> Result<Unpacked, Error> {
    let mut unpacking = Unpacking {
        root: open_target(into)?,
        meaning,
        xattr,
        owners,
        last_parent: None,
        directories: BTreeMap::new(),
        left_out: Vec::new(),
        entries: 0,
    };
    let ((), digest, size) = incoming::hashed(reader, |stream| unpacking.run(&mut Entries::new(stream)))?;
    let measured = Measured { diff_id: digest.into(), size, entries: unpacking.entries };
    Ok(Unpacked { measured, left_out: unpacking.left_out })
}

fn open_target(path: &Path) -> Result<Rc<OwnedFd>, Error> {
    let fail = |error: Errno| Error::Target { path: path.to_owned(), source: error.into() };
    let root = inode::open_root(path).map_err(fail)?;
    let is_empty = inode::list(root.as_fd()).map_err(fail)?.is_empty();
    if is_empty { Ok(Rc::new(root)) } else { Err(fail(Errno::NOTEMPTY)) }
}

struct Unpacking {
    root: Rc<OwnedFd>,
    meaning: Meaning,
    xattr: OverlayXattr,
    owners: Owners,
    /// The directory that the last entry was made in; most often the next one's too.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// What directories get when nothing is made in them any more, by path.
    directories: BTreeMap<Vec<u8>, Finish>,
    left_out: Vec<LeftOut>,
    entries: u64,
}

type Archive<'a> = Entries<'a, incoming::Incoming>;

impl Unpacking {
    fn run(&mut self, archive: &mut Archive<'_>) -> Result<(), Error> {
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            let path =
                self.plain_path(&entry.name).map_err(|reason| Error::Refused { entry: entry.shown(), reason })?;
            self.apply(&entry, &path, archive)?;
        }
        self.finish_directories()
    }

    fn apply(&mut self, entry: &ArchiveEntry, path: &[u8], archive: &mut Archive<'_>) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Refused { entry: entry.shown(), reason });
        if path.is_empty() {
            return self.root_metadata(entry);
        }
        if self.meaning == Meaning::Layer && is_aufs_bookkeeping(path) {
            return Ok(());
        }
        let (parent_path, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
        if self.meaning == Meaning::Files {
            return match entry.kind {
                EntryKind::Fifo | EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } => Ok(()),
                _ => self.make(entry, path, parent_path, name, archive),
            };
        }
        if parent_path.split(|byte| *byte == b'/').any(|part| part.starts_with(WHITEOUT_PREFIX)) {
            return refuse("it lies in a directory called like a whiteout");
        }
        if name == OPAQUE_MARKER {
            return self.make_opaque(entry, parent_path);
        }
        match name.strip_prefix(WHITEOUT_PREFIX) {
            None => self.make(entry, path, parent_path, name, archive),
            Some(b"") => refuse("a whiteout must name what it hides"),
            Some(b"." | b"..") => refuse("a whiteout cannot hide a directory's own name"),
            Some(hidden) if hidden.starts_with(WHITEOUT_PREFIX) => refuse("a whiteout cannot hide a whiteout"),
            Some(hidden) => self.whiteout(entry, parent_path, hidden),
        }
    }

    fn make_opaque(&mut self, entry: &ArchiveEntry, parent_path: &[u8]) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        At::Path(&xattr::path_in(parent.as_fd(), b".")).make_opaque(self.xattr).map_err(|error| entry.failed(error))
    }

    fn whiteout(&mut self, entry: &ArchiveEntry, parent_path: &[u8], hidden: &[u8]) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        match mknod(parent.as_fd(), hidden, FileType::CharacterDevice, (0, 0)) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|error| entry.failed(error)),
        }
        let stat = inode::stat(parent.as_fd(), hidden).map_err(|error| entry.failed(error))?;
        if inode::child_kind(&stat) == ChildKind::Directory {
            let directory = xattr::path_in(parent.as_fd(), hidden);
            At::Path(&directory).make_opaque(self.xattr).map_err(|error| entry.failed(error))?;
        }
        Ok(())
    }

    fn make(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent_path: &[u8],
        name: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        let parent = parent.as_fd();
        match &entry.kind {
            EntryKind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = self.replacing(entry, path, parent, name, || {
                    rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
                })?;
                copy_content(entry, archive, &file)?;
                self.open_metadata(entry, file.as_fd())?;
                rustix::fs::futimens(&file, &timestamps(entry.mtime)).map_err(|error| entry.failed(error))
            }
            EntryKind::Directory => self.directory(entry, path, parent, name),
            EntryKind::HardLink { target } => self.hard_link(entry, path, parent, name, target),
            EntryKind::Symlink { target } => {
                if target.is_empty() || target.contains(&0) {
                    return Err(entry.refused("it is a symbolic link without a proper target"));
                }
                self.replacing(entry, path, parent, name, || rustix::fs::symlinkat(target.as_slice(), parent, name))?;
                self.closed_metadata(entry, parent, name)
            }
            EntryKind::Fifo => self.node(entry, path, parent, name, FileType::Fifo, (0, 0)),
            EntryKind::CharDevice { device: (0, 0) } => {
                Err(entry.refused("a character device 0:0 is what an overlay takes for a deleted file"))
            }
            EntryKind::CharDevice { device } => {
                self.node(entry, path, parent, name, FileType::CharacterDevice, *device)
            }
            EntryKind::BlockDevice { device } => self.node(entry, path, parent, name, FileType::BlockDevice, *device),
        }
    }

    fn directory(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Error> {
        if let Err(error) = rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            if error != Errno::EXIST {
                return Err(entry.failed(error));
            }
            self.make_way_for_directory(parent, name).map_err(|error| entry.failed(error))?;
        }
        let directory = inode::open_directory(parent, name).map_err(|error| entry.failed(error))?;
        self.open_metadata(entry, directory.as_fd())?;
        self.directories.insert(path.to_vec(), Finish::of(entry));
        Ok(())
    }

    /// Makes a directory where something is already; a directory stays. One that this layer also hides in lower
    /// layers becomes opaque.
    fn make_way_for_directory(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        let kind = inode::child_kind(&inode::stat(parent, name)?);
        if kind == ChildKind::Directory {
            return Ok(());
        }
        self.last_parent = None;
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        if kind == ChildKind::Whiteout {
            At::Path(&xattr::path_in(parent, name)).make_opaque(self.xattr)?;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), Error> {
        let missing = || Error::LinkTarget { entry: entry.shown(), target: shown(target) };
        let target_path =
            self.plain_path(target).map_err(|_| entry.refused("its target has \"..\" or a zero byte in it"))?;
        let (above, target_name) = match target_path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target_path[..slash], &target_path[slash + 1..]),
            None => (&b""[..], target_path.as_slice()),
        };
        if target_name.is_empty() || target_path == path {
            return Err(missing());
        }
        let above = self.open_inside(above, OFlags::PATH).map_err(|_| missing())?;
        let stat = inode::stat(above.as_fd(), target_name).map_err(|_| missing())?;
        if matches!(inode::child_kind(&stat), ChildKind::Directory | ChildKind::Whiteout) {
            return Err(missing());
        }
        self.replacing(entry, path, parent, name, || {
            rustix::fs::linkat(&above, target_name, parent, name, AtFlags::empty())
        })?;
        // A link's own header counts, and for all names of the file: so it does where containers run.
        let is_symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if is_symlink || self.has_metadata(entry, &stat) {
            return Ok(());
        }
        self.closed_metadata(entry, parent, name)
    }

    fn node(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), Error> {
        let result = self.replacing(entry, path, parent, name, || match mknod(parent, name, kind, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
            result => result.map(|()| true),
        })?;
        if !result {
            self.left_out.push(LeftOut::Device { entry: entry.shown() });
            return Ok(());
        }
        self.closed_metadata(entry, parent, name)
    }

    /// Makes something; if the name is taken, what has it goes first: the later entry counts.
    fn replacing<T>(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, Error> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|error| entry.failed(error)),
        }
        self.last_parent = None;
        let stat = inode::stat(parent, name).map_err(|error| entry.failed(error))?;
        if inode::child_kind(&stat) == ChildKind::Directory {
            let inside = [path, b"/"].concat();
            self.directories.retain(|known, _| known != path && !known.starts_with(&inside));
            std::fs::remove_dir_all(xattr::path_in(parent, name))
                .map_err(|source| Error::Write { entry: entry.shown(), source })?;
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|error| entry.failed(error))?;
        }
        make().map_err(|error| entry.failed(error))
    }
}

impl Unpacking {
    /// A path without empty parts, `.`, or a slash at either end; the root is empty.
    fn plain_path(&self, name: &[u8]) -> Result<Vec<u8>, &'static str> {
        let mut plain = Vec::with_capacity(name.len());
        for part in name.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => continue,
                b".." if self.meaning == Meaning::Files && !plain.is_empty() => {
                    plain.truncate(plain.iter().rposition(|byte| *byte == b'/').unwrap_or(0));
                    continue;
                }
                b".." => return Err("its path has \"..\" in it"),
                _ if part.contains(&0) => return Err("its path has a zero byte in it"),
                _ if plain.is_empty() => {}
                _ => plain.push(b'/'),
            }
            plain.extend_from_slice(part);
        }
        Ok(plain)
    }
}

impl ArchiveEntry {
    fn refused(&self, reason: &'static str) -> Error {
        Error::Refused { entry: self.shown(), reason }
    }

    fn failed(&self, error: Errno) -> Error {
        Error::Write { entry: self.shown(), source: error.into() }
    }
}

/// What Docker's AUFS driver kept for itself at the root of layers, until about 2015.
fn is_aufs_bookkeeping(path: &[u8]) -> bool {
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(first, b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")
}

fn copy_content(entry: &ArchiveEntry, archive: &mut Archive<'_>, file: &OwnedFd) -> Result<(), Error> {
    loop {
        let piece = archive.content()?;
        if piece.is_empty() {
            return Ok(());
        }
        match rustix::io::write(file, piece) {
            Ok(length) => archive.consume(length),
            Err(Errno::INTR) => {}
            Err(error) => return Err(entry.failed(error)),
        }
    }
}

fn mknod(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, (major, minor): (u32, u32)) -> rustix::io::Result<()> {
    let mode = if (major, minor) == (0, 0) && kind == FileType::CharacterDevice { 0 } else { 0o600 };
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode), rustix::fs::makedev(major, minor))
}

#[cfg(test)]
mod tests;
