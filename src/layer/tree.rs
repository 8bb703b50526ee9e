//! A read-only tree of files, whatever holds it: a build context, or the merged view of a stack of layers.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::digest::ContentId;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File {
        /// Its length in bytes.
        size: u64,
    },
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink {
        /// Where it points, as stored.
        target: PathBuf,
    },
    /// A character device.
    CharDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A named pipe.
    Fifo,
    /// A socket: seen, never copied.
    Socket,
}

/// The metadata of one entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// Permission bits with set-id and sticky bits: the low twelve.
    pub mode: u32,
    /// Owner as it counts in the image (0 for files of a context).
    pub uid: u32,
    /// Group as it counts in the image (0 for files of a context).
    pub gid: u32,
    /// Last change of the content: seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// Names the inode where several names share it: (device, inode), only for files with more than one link.
    pub link_group: Option<(u64, u64)>,
}

/// A read-only tree. Paths are relative to its root, without `.`, `..` or a leading `/`; the empty path is the root.
/// No method follows a symbolic link, not even in a parent: whoever wants that resolves first
/// (`crate::layer::view::resolve`).
pub trait Tree: Sync {
    /// The entry at a path; `None` where there is none (or where a rule hides it).
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>>;

    /// The names in a directory, sorted by bytes.
    fn names(&self, path: &Path) -> io::Result<Vec<OsString>>;

    /// Opens a regular file for reading.
    fn open(&self, path: &Path) -> io::Result<File>;

    /// Extended attributes that belong to the entry in an image, sorted by name; never the overlay's own.
    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>>;

    /// The BLAKE3 of a regular file's content, remembered where the tree can.
    fn content_id(&self, path: &Path, entry: &Entry) -> io::Result<ContentId>;

    /// Whether somebody else may change the tree while it is read. What is copied out of such a tree has to be checked
    /// against the digest it was chosen by.
    fn may_change(&self) -> bool {
        false
    }
}
