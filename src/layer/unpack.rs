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
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::entries::{ArchiveEntry, Entries, EntryKind, shown};
use super::inode::{self, ChildKind};
use super::xattr::{self, At, DEFAULT_ACL, Place};
use super::{Measured, OPAQUE_MARKER, OverlayXattr, WHITEOUT_PREFIX, incoming};

/// Whose the files become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owners {
    /// Whoever the archive says; in a user namespace all its ids must be mapped.
    Kept,
    /// User and group 0 for all, where only one id is mapped.
    Squashed,
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
    let mut unpacking = Unpacking {
        root: open_target(into)?,
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
    xattr: OverlayXattr,
    owners: Owners,
    /// The directory that the last entry was made in; most often the next one's too.
    last_parent: Option<(Vec<u8>, Rc<OwnedFd>)>,
    /// What directories get when nothing is made in them any more, by path.
    directories: BTreeMap<Vec<u8>, Finish>,
    left_out: Vec<LeftOut>,
    entries: u64,
}

/// What would be undone by, or would spoil, what is made in a directory later.
#[derive(Default)]
struct Finish {
    mtime: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

type Archive<'a> = Entries<'a, incoming::Incoming>;

impl Unpacking {
    fn run(&mut self, archive: &mut Archive<'_>) -> Result<(), Error> {
        while let Some(entry) = archive.next()? {
            self.entries += 1;
            let path = plain_path(&entry.name).map_err(|reason| Error::Refused { entry: entry.shown(), reason })?;
            self.apply(&entry, &path, archive)?;
        }
        self.finish_directories()
    }

    fn apply(&mut self, entry: &ArchiveEntry, path: &[u8], archive: &mut Archive<'_>) -> Result<(), Error> {
        let refuse = |reason| Err(Error::Refused { entry: entry.shown(), reason });
        if path.is_empty() {
            return self.root_metadata(entry);
        }
        if is_aufs_bookkeeping(path) {
            return Ok(());
        }
        let (parent_path, name) = match path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (&b""[..], path),
        };
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
            plain_path(target).map_err(|_| entry.refused("its target has \"..\" or a zero byte in it"))?;
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
        })
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

    fn root_metadata(&mut self, entry: &ArchiveEntry) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(entry.refused("the root of a layer must be a directory"));
        }
        let root = Rc::clone(&self.root);
        self.open_metadata(entry, root.as_fd())?;
        self.directories.insert(Vec::new(), Finish::of(entry));
        Ok(())
    }

    /// Owner, mode and attributes, in the order in which none undoes another: a change of owner clears set-id bits
    /// and capabilities.
    fn open_metadata(&mut self, entry: &ArchiveEntry, inode: BorrowedFd<'_>) -> Result<(), Error> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(inode, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| owner_error(entry, error))?;
        rustix::fs::fchmod(inode, Mode::from_raw_mode(entry.mode)).map_err(|error| entry.failed(error))?;
        self.attributes(entry, At::Descriptor(inode))
    }

    /// The same for what cannot be opened, and its time. A symbolic link has no mode.
    fn closed_metadata(&mut self, entry: &ArchiveEntry, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
            .map_err(|error| owner_error(entry, error))?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| entry.failed(error))?;
        }
        if !entry.xattrs.is_empty() {
            self.attributes(entry, At::Path(&xattr::path_in(parent, name)))?;
        }
        rustix::fs::utimensat(parent, name, &timestamps(entry.mtime), nofollow).map_err(|error| entry.failed(error))
    }

    fn owner(&self, entry: &ArchiveEntry) -> (u32, u32) {
        match self.owners {
            Owners::Kept => (entry.uid, entry.gid),
            Owners::Squashed => (0, 0),
        }
    }

    fn attributes(&mut self, entry: &ArchiveEntry, at: At<'_>) -> Result<(), Error> {
        for (name, value) in &entry.xattrs {
            let is_late = name == DEFAULT_ACL.as_bytes() && entry.kind == EntryKind::Directory;
            let on_disk = match xattr::place(name, self.xattr) {
                Place::Name(on_disk) if !is_late => on_disk,
                Place::Nowhere => {
                    self.leave_out_attribute(entry.shown(), name);
                    continue;
                }
                Place::Name(_) | Place::Foreign => continue,
            };
            match at.set(&on_disk, value) {
                Ok(()) => {}
                Err(error) if is_not_taken(error) => self.leave_out_attribute(entry.shown(), name),
                Err(error) => return Err(entry.failed(error)),
            }
        }
        Ok(())
    }

    fn leave_out_attribute(&mut self, entry: PathBuf, name: &[u8]) {
        self.left_out.push(LeftOut::Attribute { entry, name: OsStr::from_bytes(name).to_owned() });
    }

    /// The directory that an entry goes into, made if the archive did not have it.
    fn parent(&mut self, entry: &ArchiveEntry, path: &[u8]) -> Result<Rc<OwnedFd>, Error> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((known, parent)) = &self.last_parent
            && known == path
        {
            return Ok(Rc::clone(parent));
        }
        let parent = match self.open_inside(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, path)?,
            result => result.map_err(|error| entry.failed(error))?,
        };
        let parent = Rc::new(parent);
        self.last_parent = Some((path.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    /// Opens a directory by its path in the layer. Symbolic links of the layer are followed inside it.
    fn open_inside(&self, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel gives up on `..` in a link while anything on the system is renamed or mounted (openat2(2)).
        for _ in 0..100 {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    fn make_parents(&mut self, entry: &ArchiveEntry, path: &[u8]) -> Result<OwnedFd, Error> {
        let mut directory = self.open_inside(b"", OFlags::PATH).map_err(|error| entry.failed(error))?;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            end += name.len();
            let so_far = &path[..end];
            end += 1;
            directory = match self.open_inside(so_far, OFlags::PATH) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parent(entry, so_far, directory.as_fd(), name)?,
                Err(error) => return Err(entry.failed(error)),
            };
        }
        Ok(directory)
    }

    fn make_parent(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        above: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<OwnedFd, Error> {
        match rustix::fs::mkdirat(above, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = inode::stat(above, name).map_err(|error| entry.failed(error))?;
                match inode::child_kind(&stat) {
                    ChildKind::Whiteout => {
                        self.make_way_for_directory(above, name).map_err(|error| entry.failed(error))?;
                    }
                    ChildKind::Other => {
                        return Err(
                            entry.refused("it lies in something that is not a directory, or in a link to nothing")
                        );
                    }
                    _ => return Err(entry.refused("it lies in something that is not a directory")),
                }
            }
            result => result.map_err(|error| entry.failed(error))?,
        }
        let made = inode::open_directory(above, name).map_err(|error| entry.failed(error))?;
        rustix::fs::fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(|error| entry.failed(error))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(|error| entry.failed(error))?;
        self.directories.insert(path.to_vec(), Finish::default());
        Ok(made)
    }

    fn finish_directories(&mut self) -> Result<(), Error> {
        self.last_parent = None;
        for (path, finish) in std::mem::take(&mut self.directories) {
            let failed = |error: Errno| Error::Write { entry: shown(&path), source: error.into() };
            let directory = match self.open_inside(&path, OFlags::RDONLY | OFlags::NOFOLLOW) {
                // Under another name for the same place (through a link) it may have been replaced since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(failed)?,
            };
            if let Some(acl) = finish.default_acl {
                match At::Descriptor(directory.as_fd()).set(DEFAULT_ACL.as_bytes(), &acl) {
                    Err(error) if is_not_taken(error) => {
                        self.leave_out_attribute(shown(&path), DEFAULT_ACL.as_bytes());
                    }
                    result => result.map_err(failed)?,
                }
            }
            rustix::fs::futimens(&directory, &timestamps(finish.mtime)).map_err(failed)?;
        }
        Ok(())
    }
}

impl Finish {
    fn of(entry: &ArchiveEntry) -> Self {
        let default_acl = entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL.as_bytes());
        Self { mtime: entry.mtime, default_acl: default_acl.map(|(_, value)| value.clone()) }
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

/// A path without empty parts, `.`, or a slash at either end; the root is empty.
fn plain_path(name: &[u8]) -> Result<Vec<u8>, &'static str> {
    let mut plain = Vec::with_capacity(name.len());
    for part in name.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => continue,
            b".." => return Err("its path has \"..\" in it"),
            _ if part.contains(&0) => return Err("its path has a zero byte in it"),
            _ if plain.is_empty() => {}
            _ => plain.push(b'/'),
        }
        plain.extend_from_slice(part);
    }
    Ok(plain)
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

/// A system that has no place for an attribute, as opposed to one that failed.
fn is_not_taken(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS)
}

fn owner_error(entry: &ArchiveEntry, error: Errno) -> Error {
    if error == Errno::INVAL {
        return Error::UnmappedOwner { entry: entry.shown(), uid: entry.uid, gid: entry.gid };
    }
    entry.failed(error)
}

/// Both times of a file; when it was last read is nothing that an archive knows.
fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}

#[cfg(test)]
mod tests;
