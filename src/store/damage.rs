//! What the store found broken, and went on without.
//!
//! Takes notes from the other files, gives them once to whoever asks; never stops a build: a damaged thing is a miss.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::digest::{DiffId, Digest};

/// One thing that was damaged, and has been taken out of the store; what needs it fetches or makes it again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Damage {
    /// A blob's bytes did not have its digest.
    Blob {
        /// The digest it was stored under.
        digest: Digest,
    },
    /// A layer's description was unreadable or did not match its own check sum.
    Layer {
        /// The layer.
        diff_id: DiffId,
    },
    /// A layer's files were not what they were when it came into the store.
    LayerFiles {
        /// The layer.
        diff_id: DiffId,
    },
    /// A layer may not have reached the disk before power was lost.
    Unwritten {
        /// The layer.
        diff_id: DiffId,
    },
    /// A record did not match its own check sum.
    Record {
        /// Where it was.
        path: PathBuf,
    },
    /// The list of names was gone or could not be read, and was taken from its copy.
    Index {
        /// Where it is.
        path: PathBuf,
    },
    /// What `stat` said of a context's files could not be read.
    Context {
        /// Where it is.
        path: PathBuf,
    },
    /// The store was of an older schema, or of none that is known.
    Schema {
        /// What its `version` said.
        found: String,
    },
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { digest } => write!(f, "blob {digest} was damaged, and is fetched or made again when needed"),
            Self::Layer { diff_id } => {
                write!(f, "layer {diff_id} was damaged, and is unpacked or made again when needed")
            }
            Self::LayerFiles { diff_id } => {
                write!(
                    f,
                    "layer {diff_id} was damaged: it and what was made of it is unpacked or made again when needed"
                )
            }
            Self::Unwritten { diff_id } => {
                write!(f, "layer {diff_id} may not have reached the disk before the machine stopped, and is dropped")
            }
            Self::Record { path } => write!(f, "record {} was damaged, and counts as a miss", path.display()),
            Self::Index { path } => {
                write!(f, "{} was damaged: the names of images were taken from its copy", path.display())
            }
            Self::Context { path } => {
                write!(f, "the index {} was damaged: the context's files are read again", path.display())
            }
            Self::Schema { found } => write!(
                f,
                "the store had schema {found:?}, which this strata does not use: its images stay, layers and cache are \
                 made again when needed"
            ),
        }
    }
}

/// The notes of one store in this process.
#[derive(Debug, Default)]
pub(super) struct Notes(Mutex<Vec<Damage>>);

impl Notes {
    pub(super) fn add(&self, damage: Damage) {
        let mut notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !notes.contains(&damage) {
            notes.push(damage);
        }
    }

    pub(super) fn layers(&self) -> Vec<DiffId> {
        let notes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let layer = |note: &Damage| if let Damage::LayerFiles { diff_id } = note { Some(*diff_id) } else { None };
        notes.iter().filter_map(layer).collect()
    }

    pub(super) fn has(&self, damage: &Damage) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(damage)
    }

    pub(super) fn take(&self) -> Vec<Damage> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
