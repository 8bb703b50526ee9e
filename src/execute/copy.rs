//! `COPY` and `ADD`: which files are meant, and the layer they make.
//!
//! Two halves. [`select`] looks at the source only and gives a [`select::Selection`] with a digest for the step's key; it needs
//! no root file system, so a cached step fetches none. [`apply`] puts a selection into a layer on top of a root. Both follow
//! BuildKit's observed behaviour where its documentation leaves room; where the two disagree, the behaviour.

pub mod apply;
mod archive;
mod chmod;
pub mod select;

use std::io;
use std::path::PathBuf;

use crate::context::{glob, ignore};
use crate::execute::stage;
use crate::layer;

/// Why files cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source without wildcards does not exist, or is hidden by an ignore pattern.
    #[error("{word:?} was not found")]
    NotFound {
        /// The source as it stands in the operation.
        word: String,
    },
    /// A source is not a valid pattern.
    #[error("a source is not a valid pattern")]
    Source {
        /// What is wrong.
        #[source]
        source: glob::BadPattern,
    },
    /// A pattern of `--exclude` or `--parents` is not valid.
    #[error("a pattern is not valid")]
    Pattern {
        /// Which, and what is wrong.
        #[source]
        source: ignore::Error,
    },
    /// `--chmod` is not a mode.
    #[error("{text:?} is not a mode: expected an octal number up to 7777, or letters such as u=rwX,go=rX")]
    Chmod {
        /// As written.
        text: String,
    },
    /// A source cannot be read.
    #[error("cannot read {} to copy it", path.display())]
    Read {
        /// Its path in the source.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A source is what an overlay takes for the mark of a deleted file, such as a context that is an overlay's own directory has.
    #[error("cannot copy {}: a character device 0:0 in a layer stands for a deleted file", path.display())]
    Whiteout {
        /// Its path in the source.
        path: PathBuf,
    },
    /// A directory is to be copied to where something else is.
    #[error("cannot copy a directory to /{}: something that is not a directory is there", path.display())]
    DirectoryOverFile {
        /// The place.
        path: PathBuf,
    },
    /// Something is to be copied to where a directory is.
    #[error("cannot copy a file to /{}: a directory is there", path.display())]
    FileOverDirectory {
        /// The place.
        path: PathBuf,
    },
    /// An archive to be unpacked is damaged.
    #[error("cannot unpack the archive {}", archive.display())]
    Archive {
        /// Its path in the source.
        archive: PathBuf,
        /// What is wrong.
        #[source]
        source: layer::unpack::Error,
    },
    /// An entry of an archive is refused.
    #[error("cannot unpack {} from the archive {}: {reason}", entry.display(), archive.display())]
    ArchiveEntry {
        /// The archive's path in the source.
        archive: PathBuf,
        /// The entry.
        entry: PathBuf,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The layer cannot be made.
    #[error(transparent)]
    Stage(#[from] stage::Error),
}

#[cfg(test)]
mod tests;
