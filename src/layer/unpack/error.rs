//! What can go wrong while a layer is unpacked, and what is left out without being wrong.
//!
//! Entries are named as the archive names them; which layer and image it was is for whoever unpacks to add.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use rustix::io::Errno;

use crate::layer::entries::ArchiveEntry;

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

impl ArchiveEntry {
    pub(super) fn refused(&self, reason: &'static str) -> Error {
        Error::Refused { entry: self.shown(), reason }
    }

    pub(super) fn failed(&self, error: Errno) -> Error {
        Error::Write { entry: self.shown(), source: error.into() }
    }
}
