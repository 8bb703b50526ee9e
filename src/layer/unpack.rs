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
//! - A leading slash does not count. `..` is refused in names and in hard links' targets; symbolic links may point
//!   anywhere, since they are only ever followed inside the root.
//! - A parent that the archive does not have is made: root's, mode 0755, time zero, and named in [`Unpacked::implied`],
//!   because it should look like the one in the layers below, which nobody knows here. A parent that is a symbolic link
//!   of this layer is followed inside the layer.
//! - Long runs of zeros in a file become holes, and so do the holes of files that the archive says are sparse.
//! - Extended attributes of the kinds that an image has are set, records of overlays escaped; those of a host
//!   (`security.selinux` …) are not applied.
//! - What AUFS left in old layers (`.wh..wh.aufs`, `.wh..wh.orph`, `.wh..wh.plnk` at the root) is passed over.
//! - What the kernel does not let this process make (a device in a user namespace, an attribute that the file system
//!   does not know) is left out and named in [`Unpacked::left_out`].

use std::collections::{BTreeMap, HashMap};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::io::Errno;

use self::directories::Finish;
pub use self::error::{Error, LeftOut};
use super::entries::{ArchiveEntry, Entries, EntryKind};
use super::{Measured, OPAQUE_MARKER, OverlayXattr, WHITEOUT_PREFIX, incoming, inode};

mod directories;
mod error;
mod make;
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
    /// The directories that the archive has no entry for and that may continue one of a lower layer: their owner, mode,
    /// time and attributes say nothing ([`super::implied`]). Sorted, so that parents come first.
    pub implied: Vec<PathBuf>,
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
        implied: HashMap::new(),
        left_out: Vec::new(),
        entries: 0,
    };
    let ((), digest, size) = incoming::hashed(reader, |stream| unpacking.run(&mut Entries::new(stream)))?;
    let measured = Measured { diff_id: digest.into(), size, entries: unpacking.entries };
    let implied = unpacking.take_implied(into)?;
    Ok(Unpacked { measured, left_out: unpacking.left_out, implied })
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
    /// Directories that were made for the sake of what is in them, with the path that each was made under. By device and
    /// inode, because links of the layer can give one directory several paths.
    implied: HashMap<(u64, u64), Vec<u8>>,
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

/// What Docker's AUFS driver kept for itself at the root of layers, until about 2015.
fn is_aufs_bookkeeping(path: &[u8]) -> bool {
    let first = path.split(|byte| *byte == b'/').next().unwrap_or_default();
    matches!(first, b".wh..wh.aufs" | b".wh..wh.orph" | b".wh..wh.plnk")
}

#[cfg(test)]
mod tests;
