//! A build context of any origin, ready to be read: a directory, or what was unpacked from an archive.

use std::io;
use std::path::Path;

use crate::context::ignore::{Ignore, PatternRef};
use crate::context::{Context, Error};
use crate::digest::DiffId;
use crate::layer::tree::Tree;
use crate::layer::view::View;

/// An open context.
#[derive(Debug)]
pub enum Opened {
    /// A directory, whose ignore patterns count and whose files all belong to 0:0.
    Directory(Box<Context>),
    /// What was fetched or unpacked, with the owners it came with. Nothing in it is hidden, as in BuildKit.
    Fixed {
        /// Its files, which nobody changes.
        view: View,
        /// The layer of the store that they are kept as, where they are: then they are looked at once and for all.
        layer: Option<DiffId>,
    },
}

impl Opened {
    /// Its files.
    pub fn tree(&self) -> &dyn Tree {
        match self {
            Self::Directory(context) => context.as_ref(),
            Self::Fixed { view, .. } => view,
        }
    }

    /// The layer that holds all its files, where there is one.
    pub fn layer(&self) -> Option<DiffId> {
        match self {
            Self::Fixed { layer, .. } => *layer,
            Self::Directory(_) => None,
        }
    }

    /// What it hides, if it can hide anything.
    pub fn ignore(&self) -> Option<&Ignore> {
        match self {
            Self::Directory(context) => Some(context.ignore()),
            Self::Fixed { .. } => None,
        }
    }

    /// The ignore pattern that hides a path, whether the path exists or not.
    pub fn hidden_by(&self, path: &Path) -> Option<PatternRef> {
        match self {
            Self::Directory(context) => context.hidden_by(path),
            Self::Fixed { .. } => None,
        }
    }

    /// The stat index, where there was one that could not be used.
    pub fn damaged_index(&self) -> Option<&Path> {
        match self {
            Self::Directory(context) => context.damaged_index(),
            Self::Fixed { .. } => None,
        }
    }

    /// Remembers what was learned about the files, where that can help a later build: see [`Context::save`].
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn save(&self, put: &dyn Fn(&Path, &[u8]) -> io::Result<()>) -> Result<(), Error> {
        match self {
            Self::Directory(context) => context.save(put),
            Self::Fixed { .. } => Ok(()),
        }
    }
}
