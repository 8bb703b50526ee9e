//! What can go wrong in the store, told so that a person knows which path or knob to turn to.
//!
//! Takes what the operating system said, gives an [`Error`] that tells a full disk, a read-only file system and a
//! missing permission apart. Never repeats the source's own words: whoever prints an error prints its chain.

use std::io;
use std::path::{Path, PathBuf};

use crate::digest::Digest;

/// A store could not be opened, read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system that holds the store, or the user's quota on it, is full.
    #[error(
        "cannot {action} {path}: its file system is full ({free} bytes are free): make room, or set STRATA_ROOT to a \
         directory on a larger file system",
        path = path.display()
    )]
    Full {
        /// What was attempted.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// The bytes an unprivileged user could still write; 0 where that could not be found out.
        free: u64,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The store lies on a file system mounted read-only.
    #[error(
        "cannot {action} {path}: its file system is read-only: set STRATA_ROOT to a directory that can be written",
        path = path.display()
    )]
    ReadOnly {
        /// What was attempted.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// This user may not do that there.
    #[error(
        "no permission to {action} {path}: run as its owner, or set STRATA_ROOT to a directory of your own",
        path = path.display()
    )]
    Permission {
        /// What was attempted.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// A part of the store's path is a file.
    #[error("{path} is not a directory: remove it, or set STRATA_ROOT to another path", path = path.display())]
    NotADirectory {
        /// The path that should be a directory.
        path: PathBuf,
    },
    /// The directory holds something else, and a store would be strewn between it.
    #[error(
        "{path} holds no store, and is not empty ({entry:?} is in it): set STRATA_ROOT to an empty or a new directory",
        path = path.display()
    )]
    NotAStore {
        /// The directory.
        path: PathBuf,
        /// One entry that is no part of a store.
        entry: String,
    },
    /// A newer Strata wrote this; reading it as the older form could destroy it.
    #[error(
        "{path} has schema {found}, and this strata knows schemas up to {supported}: use the newer strata that wrote \
         it, or set STRATA_ROOT to another directory",
        path = path.display()
    )]
    NewerSchema {
        /// The file that carries the number.
        path: PathBuf,
        /// The number found.
        found: u64,
        /// The newest number this program knows.
        supported: u64,
    },
    /// An older Strata is using the store, which must be rebuilt.
    #[error(
        "{path} has schema {found:?}, and the store must be rebuilt for this strata, but another one is using it: try \
         again when that has ended, or set STRATA_ROOT to another directory",
        path = path.display()
    )]
    OlderInUse {
        /// The file that carries the number.
        path: PathBuf,
        /// What it says.
        found: String,
    },
    /// The schema number is no number of any release, and nothing else there is a store's.
    #[error("{path} holds {text:?}, which is no schema number: set STRATA_ROOT to another directory", path = path.display())]
    UnknownSchema {
        /// The file that carries the number.
        path: PathBuf,
        /// Its beginning.
        text: String,
    },
    /// What was to become a blob is not what was announced.
    #[error(
        "content does not match its descriptor: expected {expected} of {expected_size} bytes, got {found} of {found_size} bytes"
    )]
    Mismatch {
        /// The digest announced.
        expected: Digest,
        /// The size announced, in bytes.
        expected_size: u64,
        /// The digest of what came.
        found: Digest,
        /// The size of what came, in bytes.
        found_size: u64,
    },
    /// A blob that was asked for by name is not in the store.
    #[error("the store holds no blob {digest}")]
    NoBlob {
        /// Its digest.
        digest: Digest,
    },
    /// A document of the store cannot be understood, and nothing else holds what it says.
    #[error("{path} is damaged: restore it, or remove it to go on without what it listed", path = path.display())]
    Document {
        /// The document.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// A tool put an entry into `index.json` that is no descriptor: what it needs is not known.
    #[error(
        "{path} has an entry that is not understood, and may need anything: nothing is removed until it is gone",
        path = path.display()
    )]
    UnknownEntry {
        /// The document.
        path: PathBuf,
    },
    /// The caller gave up waiting for a lock.
    #[error("gave up waiting for the lock to {purpose}")]
    Cancelled {
        /// What the lock was wanted for.
        purpose: String,
    },
    /// Anything else the operating system refused.
    #[error("cannot {action} {path}", path = path.display())]
    Io {
        /// What was attempted.
        action: &'static str,
        /// What it was attempted on.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Sorts what the operating system said about a path in the store into the variant a person can act on.
    /// `action` completes the phrase "cannot … path".
    pub fn at(action: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        let source = source.into();
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                let free = free_bytes(&path);
                Self::Full { action, path, free, source }
            }
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly { action, path, source },
            io::ErrorKind::PermissionDenied => Self::Permission { action, path, source },
            io::ErrorKind::NotADirectory => Self::NotADirectory { path },
            _ => Self::Io { action, path, source },
        }
    }

    /// The kind of the failure in the standard library's terms, for those who speak [`io::Error`].
    pub(super) fn kind(&self) -> io::ErrorKind {
        match self {
            Self::Full { source, .. }
            | Self::ReadOnly { source, .. }
            | Self::Permission { source, .. }
            | Self::Io { source, .. } => source.kind(),
            Self::NotADirectory { .. } => io::ErrorKind::NotADirectory,
            Self::NoBlob { .. } => io::ErrorKind::NotFound,
            Self::Cancelled { .. } => io::ErrorKind::Interrupted,
            Self::NotAStore { .. }
            | Self::NewerSchema { .. }
            | Self::OlderInUse { .. }
            | Self::UnknownSchema { .. }
            | Self::Mismatch { .. }
            | Self::UnknownEntry { .. }
            | Self::Document { .. } => io::ErrorKind::InvalidData,
        }
    }
}

/// What is free where the path lies or, if it does not exist, where its nearest existing parent lies.
fn free_bytes(path: &Path) -> u64 {
    path.ancestors()
        .find_map(|place| rustix::fs::statvfs(place).ok())
        .map_or(0, |status| status.f_bavail.saturating_mul(status.f_frsize))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn sorts_what_a_person_can_act_on() {
        for (errno, variant) in [
            (Errno::NOSPC, "Full"),
            (Errno::DQUOT, "Full"),
            (Errno::ROFS, "ReadOnly"),
            (Errno::ACCESS, "Permission"),
            (Errno::PERM, "Permission"),
            (Errno::NOTDIR, "NotADirectory"),
            (Errno::IO, "Io"),
        ] {
            let error = Error::at("write", Path::new("/no/such/file"), errno);
            assert!(format!("{error:?}").starts_with(variant), "{errno:?}: {error:?}");
            assert!(error.to_string().contains("/no/such/file"), "{error}");
        }
    }
}
