//! Writes a layer's directory as a deterministic tar archive: same tree, same bytes.
//!
//! Takes an overlay-ready directory, gives a POSIX tar stream and its digest. The bytes depend on nothing but what is
//! in the tree: not on the order a file system lists names in, holes in files, the user, the umask, the locale or the
//! number of threads. It reads by descriptor, never through a symbolic link, and never changes the tree.
//!
//! # Format version 1
//!
//! A digest that Strata gave once stays right: whatever changes one byte of what follows raises [`FORMAT`].
//!
//! - **Order.** Depth first, parents before children. In each directory: the marker `.wh..wh..opq` if it is opaque,
//!   then its whiteouts `.wh.NAME` by name, then everything else, sorted by the bytes of the archive's path (so a
//!   directory sorts with its closing slash). The root itself has no entry, as in BuildKit's archives: where containers
//!   run, an entry for it is passed over (containerd) or every layer's would count (Docker).
//! - **Names.** Relative, without `./`; a directory's ends with `/`. Bytes are taken as they are.
//! - **Headers.** ustar, magic `ustar\0`, version `00`, user and group names empty, numbers zero-padded octal. A path
//!   over 100 bytes is split between prefix and name at the last slash that leaves a prefix of at most 155 bytes.
//! - **PAX** records, sorted by key, only for: a path or link that is not ASCII or does not fit (`path`, `linkpath`),
//!   a size from 8 GiB on (`size`), an id above 2^21 − 1 (`uid`, `gid`), a time before 1970 or after 8^11 − 1 seconds
//!   (`mtime`), and extended attributes (`SCHILY.xattr.NAME`, raw bytes). The extended header is called
//!   `PaxHeaders.0/NAME`, mode 0644, all other numbers zero.
//! - **Times.** Modification times in whole seconds, cut towards the past, at most [`Times::clamp`]. Fractions could be
//!   written (PAX), and readers that heed them exist; but containerd and BuildKit cut them off too, compare files by whole
//!   seconds where one of two times has no fraction, and so a layer that went through either would be another one.
//! - **Attributes.** Extended attributes that belong to an image: `user.*`, `security.capability` and POSIX ACLs, and
//!   an overlay's records of a container's own, un-escaped.
//! - **Hard links.** The first path in the archive's order is the file, each further one a link to it; a name outside
//!   the tree does not count. A link repeats its file's metadata and attributes, because readers apply them again.
//! - **Whiteouts** and opaque markers are empty files; mode, owner and time are zero. What is only called like one is
//!   written as it is, as by other writers: whoever reads it will take it for one.
//! - **Content.** Whole, holes as zeros. Sockets are left out: they mean nothing without the process behind them.
//! - **End.** Two blocks of zeros, no further padding.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::vec;

use rustix::fs::{FileType, Stat};

use super::header::{BLOCK, Header, typeflag};
use super::inode::{self, Child, ChildKind};
use super::outgoing::{self, Algorithm, Outgoing, SinkError};
use super::xattr::{self, At, Attributes};
use super::{Measured, OPAQUE_MARKER, OverlayXattr, WHITEOUT_PREFIX};
use crate::digest::{ContentId, DiffId};

/// The version of the archive's format, part of every key that stands for a layer Strata made.
pub const FORMAT: u32 = 1;

/// The device and number of an inode.
pub type InodeId = (u64, u64);

/// Content that is not in the tree yet, by the inode of its file: reading it to the end also puts it there. It has as many
/// bytes as its file.
pub type Arriving<'a> = HashMap<InodeId, Box<dyn Read + Send + 'a>>;

/// In pieces of this size file systems give a file its blocks, mostly.
const PAGE: u64 = 4096;

/// How modification times are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Times {
    /// The latest time there may be, in seconds since 1970 (`SOURCE_DATE_EPOCH`); `None` for any.
    pub clamp: Option<i64>,
}

/// Why a directory could not be written as a layer. Paths are relative to the layer's root.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading the tree failed.
    #[error("cannot read {path:?} of the layer")]
    Read {
        /// What was to be read; empty for the root.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A file was written to while it was read.
    #[error("{path:?} changed while it was read: it had {size} bytes when it was opened")]
    Changed {
        /// The file.
        path: PathBuf,
        /// Its length when it was opened.
        size: u64,
    },
    /// An extended attribute's name cannot be written in a PAX record.
    #[error("the extended attribute {name:?} of {path:?} cannot be part of an image: its name has an equals sign")]
    AttributeName {
        /// The file that has it.
        path: PathBuf,
        /// The attribute.
        name: OsString,
    },
    /// Names and attributes of an entry are larger than readers take.
    #[error("{path:?} cannot be part of an image: its name and extended attributes take more than 1 MiB")]
    HeaderTooLarge {
        /// The entry.
        path: PathBuf,
    },
    /// The overlay keeps the content of a file or the children of a directory elsewhere.
    #[error(
        "{path:?} is not whole in this layer: it has the overlay's record {record:?}; mount with metacopy and redirect_dir off"
    )]
    OverlayRecord {
        /// The inode.
        path: PathBuf,
        /// The record's name after the prefix.
        record: String,
    },
    /// The sink took no more.
    #[error("cannot write the layer's archive")]
    Sink {
        /// What the sink says.
        #[source]
        source: io::Error,
    },
}

impl From<SinkError> for Error {
    fn from(error: SinkError) -> Self {
        Self::Sink { source: error.0 }
    }
}

impl Error {
    /// Whether the tree is at fault, which was written as an archive before: something of it is gone, is another kind of
    /// thing, or cannot be read from the disk.
    pub fn is_damage(&self) -> bool {
        use rustix::io::Errno;
        match self {
            Self::Read { source, .. } => {
                let gone = [Errno::NOENT, Errno::NOTDIR, Errno::ISDIR, Errno::LOOP, Errno::STALE];
                let broken = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA];
                source
                    .raw_os_error()
                    .is_some_and(|code| gone.iter().chain(&broken).any(|errno| errno.raw_os_error() == code))
            }
            Self::Changed { .. }
            | Self::AttributeName { .. }
            | Self::HeaderTooLarge { .. }
            | Self::OverlayRecord { .. } => true,
            Self::Sink { .. } => false,
        }
    }
}

/// Writes the layer in `tree` to `sink` and measures it on the way.
///
/// # Errors
/// Whatever keeps the archive from being the tree, the tree's or the sink's; what the sink got then is no archive.
pub fn write(tree: &Path, xattr: OverlayXattr, times: Times, sink: &mut dyn Write) -> Result<Measured, Error> {
    write_and_tell(tree, xattr, times, sink, &mut Arriving::new(), &mut |_| {}).map(|(measured, _)| measured)
}

/// Measures the layer in `tree` without keeping its bytes.
///
/// # Errors
/// As [`write`], but no sink can fail.
pub fn measure(tree: &Path, xattr: OverlayXattr, times: Times) -> Result<Measured, Error> {
    write(tree, xattr, times, &mut io::sink())
}

/// As [`measure`], with the content of some files still to come, and tells of every path whose name begins as a
/// whiteout's: readers of the archive will remove something instead of making it. Also gives how many bytes the tree takes
/// on the disk, as far as it is part of the archive.
///
/// # Errors
/// As [`measure`], and [`Error::Read`] with whatever a source of content says.
pub fn measure_and_tell(
    tree: &Path,
    xattr: OverlayXattr,
    times: Times,
    arriving: &mut Arriving<'_>,
    misread: &mut dyn FnMut(PathBuf),
) -> Result<(Measured, u64), Error> {
    write_and_tell(tree, xattr, times, &mut io::sink(), arriving, misread)
}

/// The content of the layer in `tree`, as one digest: the BLAKE3 of the archive that [`write`] makes of it. It seals the
/// tree of a layer whose own archive another writer made.
///
/// # Errors
/// As [`measure`].
pub fn seal(tree: &Path, xattr: OverlayXattr) -> Result<ContentId, Error> {
    let (mut arriving, mut misread) = (Arriving::default(), |_| {});
    let (seal, ..) =
        hashed(Algorithm::Blake3, tree, xattr, Times::default(), &mut io::sink(), &mut arriving, &mut misread)?;
    Ok(ContentId::from_bytes(seal))
}

fn write_and_tell(
    tree: &Path,
    xattr: OverlayXattr,
    times: Times,
    sink: &mut dyn Write,
    arriving: &mut Arriving<'_>,
    misread: &mut dyn FnMut(PathBuf),
) -> Result<(Measured, u64), Error> {
    let (digest, size, entries, allocated) = hashed(Algorithm::Sha256, tree, xattr, times, sink, arriving, misread)?;
    Ok((Measured { diff_id: DiffId::from_bytes(digest), size, entries }, allocated))
}

/// Writes the archive, and gives its digest, its size, how many entries it has, and what the tree takes on the disk.
fn hashed(
    algorithm: Algorithm,
    tree: &Path,
    xattr: OverlayXattr,
    times: Times,
    sink: &mut dyn Write,
    arriving: &mut Arriving<'_>,
    misread: &mut dyn FnMut(PathBuf),
) -> Result<([u8; 32], u64, u64, u64), Error> {
    let (mut entries, mut allocated) = (0, 0);
    let (digest, size) = outgoing::hashed(algorithm, sink, |out| {
        let (links, path, header) = (HashMap::new(), Vec::new(), Vec::new());
        let mut writer = Writer { out, xattr, times, links, path, header, entries: 0, allocated: 0, arriving, misread };
        writer.tree(tree)?;
        (entries, allocated) = (writer.entries, writer.allocated);
        Ok::<_, Error>(())
    })?;
    Ok((digest, size, entries, allocated))
}

struct Writer<'a, 'b, 'c> {
    out: &'a mut Outgoing<'b>,
    xattr: OverlayXattr,
    times: Times,
    /// The first path of every inode that may have another.
    links: HashMap<InodeId, Vec<u8>>,
    /// The archive's path of what is being written.
    path: Vec<u8>,
    /// Header blocks, kept for their allocation.
    header: Vec<u8>,
    entries: u64,
    /// What the inodes behind the entries take on the disk, in bytes.
    allocated: u64,
    /// What is not in the tree yet.
    arriving: &'a mut Arriving<'c>,
    /// Is told of names like whiteouts.
    misread: &'a mut dyn FnMut(PathBuf),
}

/// A directory that is being written. The walk keeps these itself: a step can nest directories deeper than any stack.
struct Open {
    directory: OwnedFd,
    children: vec::IntoIter<Child>,
    path_length: usize,
}

impl Writer<'_, '_, '_> {
    fn tree(&mut self, root: &Path) -> Result<(), Error> {
        let root = inode::open_root(root).map_err(|error| self.unreadable(error))?;
        let attributes = self.attributes(At::Descriptor(root.as_fd()))?;
        let mut walk = vec![self.enter(root, &attributes)?];
        while let Some(open) = walk.last_mut() {
            self.path.truncate(open.path_length);
            let Some(child) = open.children.next() else {
                walk.pop();
                continue;
            };
            self.path.extend_from_slice(&child.name);
            let parent = open.directory.as_fd();
            match child.kind {
                ChildKind::Directory => {
                    let open = self.directory(parent, &child.name)?;
                    walk.push(open);
                }
                ChildKind::File => self.file(parent, &child.name)?,
                ChildKind::Other => self.other(parent, &child.name)?,
                ChildKind::Whiteout => self.marker(open.path_length, &[WHITEOUT_PREFIX, &child.name].concat())?,
                ChildKind::Socket => {}
            }
        }
        self.out.put(&[0; 2 * BLOCK])?;
        Ok(())
    }

    /// Lists a directory whose path (with its slash) is the current one, and writes its marker if it is opaque.
    fn enter(&mut self, directory: OwnedFd, attributes: &Attributes) -> Result<Open, Error> {
        let path_length = self.path.len();
        if attributes.has_record(b"opaque") && self.is_opaque(directory.as_fd())? {
            self.marker(path_length, OPAQUE_MARKER)?;
            self.path.truncate(path_length);
        }
        let mut children = inode::list(directory.as_fd()).map_err(|error| self.unreadable(error))?;
        for child in children.iter().filter(|child| child.name.starts_with(WHITEOUT_PREFIX)) {
            self.path.extend_from_slice(&child.name);
            let path = self.shown_path();
            (self.misread)(path);
            self.path.truncate(path_length);
        }
        children.sort_unstable_by(in_order);
        Ok(Open { directory, children: children.into_iter(), path_length })
    }

    fn is_opaque(&self, directory: BorrowedFd<'_>) -> Result<bool, Error> {
        if At::Descriptor(directory).is_opaque(self.xattr).map_err(|error| self.unreadable(error))? {
            return Ok(true);
        }
        // Any other value says that whiteouts in this directory are kept in attributes.
        Err(Error::OverlayRecord { path: self.shown_path(), record: "opaque".to_owned() })
    }

    fn directory(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<Open, Error> {
        let directory = inode::open_directory(parent, name).map_err(|error| self.unreadable(error))?;
        let stat = rustix::fs::fstat(&directory).map_err(|error| self.unreadable(error))?;
        let attributes = self.attributes(At::Descriptor(directory.as_fd()))?;
        self.path.push(b'/');
        self.header(&stat, typeflag::DIRECTORY, 0, b"", &attributes)?;
        self.enter(directory, &attributes)
    }

    fn file(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        let (file, stat) = inode::open_file(parent, name).map_err(|error| self.unreadable(error))?;
        let attributes = self.attributes(At::Descriptor(file.as_fd()))?;
        if self.linked(&stat, &attributes)? {
            return Ok(());
        }
        let size = inode::size(&stat);
        self.header(&stat, typeflag::FILE, size, b"", &attributes)?;
        match self.arriving.remove(&(stat.st_dev, stat.st_ino)) {
            Some(mut source) => {
                self.content(&mut *source, size, false)?;
                let filled = rustix::fs::fstat(&file).map_err(|error| self.unreadable(error))?;
                // Before, it was a hole.
                self.allocated += inode::allocated(&filled).saturating_sub(inode::allocated(&stat));
                Ok(())
            }
            None => self.content(&mut File::from(file), size, true),
        }
    }

    fn other(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        let stat = inode::stat(parent, name).map_err(|error| self.unreadable(error))?;
        let attributes = self.attributes(At::Path(&xattr::path_in(parent, name)))?;
        if self.linked(&stat, &attributes)? {
            return Ok(());
        }
        let mut target = Vec::new();
        let typeflag = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {
                target = inode::link_target(parent, name).map_err(|error| self.unreadable(error))?;
                typeflag::SYMLINK
            }
            FileType::CharacterDevice => typeflag::CHAR_DEVICE,
            FileType::BlockDevice => typeflag::BLOCK_DEVICE,
            FileType::Fifo => typeflag::FIFO,
            _ => return Err(self.unreadable(rustix::io::Errno::STALE)),
        };
        self.header(&stat, typeflag, 0, &target, &attributes)
    }

    /// Writes a link if the inode was written before under another name.
    fn linked(&mut self, stat: &Stat, attributes: &Attributes) -> Result<bool, Error> {
        if stat.st_nlink < 2 {
            return Ok(false);
        }
        let inode = (stat.st_dev, stat.st_ino);
        let Some(first) = self.links.get(&inode).cloned() else {
            self.links.insert(inode, self.path.clone());
            return Ok(false);
        };
        self.header(stat, typeflag::HARD_LINK, 0, &first, attributes)?;
        Ok(true)
    }

    fn header(
        &mut self,
        stat: &Stat,
        typeflag: u8,
        size: u64,
        link: &[u8],
        attributes: &Attributes,
    ) -> Result<(), Error> {
        let (seconds, _) = inode::mtime(stat);
        let is_device = matches!(typeflag, typeflag::CHAR_DEVICE | typeflag::BLOCK_DEVICE);
        let header = Header {
            name: &self.path,
            typeflag,
            mode: inode::permissions(stat),
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            mtime: self.times.clamp.map_or(seconds, |latest| seconds.min(latest)),
            link,
            device: if is_device { inode::device(stat) } else { (0, 0) },
            xattrs: &attributes.image,
        };
        header.encode(&mut self.header).map_err(|_| Error::HeaderTooLarge { path: self.shown_path() })?;
        self.out.put(&self.header)?;
        self.entries += 1;
        if typeflag != typeflag::HARD_LINK {
            // What is still to come has no blocks yet.
            let coming = if stat.st_blocks == 0 { size.next_multiple_of(PAGE) } else { 0 };
            self.allocated += inode::allocated(stat) + coming;
        }
        Ok(())
    }

    /// Writes a whiteout or an opaque marker in the directory whose path has this length.
    fn marker(&mut self, directory: usize, name: &[u8]) -> Result<(), Error> {
        self.path.truncate(directory);
        self.path.extend_from_slice(name);
        let header = Header {
            name: &self.path,
            typeflag: typeflag::FILE,
            mode: 0,
            uid: 0,
            gid: 0,
            size: 0,
            mtime: 0,
            link: b"",
            device: (0, 0),
            xattrs: &[],
        };
        header.encode(&mut self.header).map_err(|_| Error::HeaderTooLarge { path: self.shown_path() })?;
        self.out.put(&self.header)?;
        self.entries += 1;
        Ok(())
    }

    fn content(&mut self, source: &mut dyn Read, size: u64, is_file: bool) -> Result<(), Error> {
        let mut left = size;
        let mut ended = false;
        while left > 0 {
            let space = self.out.space()?;
            // One byte more than there should be: a short read then also says that the file ends there.
            let wanted = usize::try_from(left + 1).map_or(space.len(), |wanted| wanted.min(space.len()));
            let length = match source.read(&mut space[..wanted]) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.unreadable(error)),
            };
            if length == 0 || length as u64 > left {
                return Err(Error::Changed { path: self.shown_path(), size });
            }
            ended = is_file && length < wanted;
            self.out.advance(length);
            left -= length as u64;
        }
        // A file's end was seen where less came than there was room for; whoever gives content has more to do at its end.
        if !ended && source.read(&mut [0; 1]).map_err(|error| self.unreadable(error))? > 0 {
            return Err(Error::Changed { path: self.shown_path(), size });
        }
        // What a block lacks is less than a block, so it fits an index.
        let padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
        self.out.put(&[0; BLOCK][..usize::try_from(padding).unwrap_or(0)])?;
        Ok(())
    }

    fn attributes(&self, at: At<'_>) -> Result<Attributes, Error> {
        let attributes =
            Attributes::read(at, self.xattr).map_err(|source| Error::Read { path: self.shown_path(), source })?;
        if let Some(record) = attributes.misleading_record() {
            let record = String::from_utf8_lossy(record).into_owned();
            return Err(Error::OverlayRecord { path: self.shown_path(), record });
        }
        if let Some((name, _)) = attributes.image.iter().find(|(name, _)| name.contains(&b'=')) {
            let name = OsString::from_vec(name.clone());
            return Err(Error::AttributeName { path: self.shown_path(), name });
        }
        Ok(attributes)
    }

    fn unreadable(&self, error: impl Into<io::Error>) -> Error {
        Error::Read { path: self.shown_path(), source: error.into() }
    }

    fn shown_path(&self) -> PathBuf {
        PathBuf::from(OsString::from_vec(self.path.clone()))
    }
}

/// Whiteouts first, then by the archive's name.
fn in_order(left: &Child, right: &Child) -> Ordering {
    fn key(child: &Child) -> impl Iterator<Item = &u8> {
        child.name.iter().chain((child.kind == ChildKind::Directory).then_some(&b'/'))
    }
    let is_whiteout = |child: &Child| child.kind == ChildKind::Whiteout;
    is_whiteout(right).cmp(&is_whiteout(left)).then_with(|| key(left).cmp(key(right)))
}

#[cfg(test)]
mod tests;
