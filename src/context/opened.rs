//! A build context of any origin, ready to be read: a directory, or what was unpacked from an archive.

use std::path::Path;

use crate::context::ignore::{Ignore, PatternRef};
use crate::context::{Context, Error};
use crate::layer::tree::Tree;
use crate::layer::view::View;

/// An open context.
#[derive(Debug)]
pub enum Opened {
    /// A directory, whose ignore patterns count and whose files all belong to 0:0.
    Directory(Box<Context>),
    /// An archive that was unpacked, with the owners it names. Nothing in it is hidden, as in BuildKit.
    Unpacked(View),
}

impl Opened {
    /// Its files.
    pub fn tree(&self) -> &dyn Tree {
        match self {
            Self::Directory(context) => context.as_ref(),
            Self::Unpacked(view) => view,
        }
    }

    /// What it hides, if it can hide anything.
    pub fn ignore(&self) -> Option<&Ignore> {
        match self {
            Self::Directory(context) => Some(context.ignore()),
            Self::Unpacked(_) => None,
        }
    }

    /// The ignore pattern that hides a path, whether the path exists or not.
    pub fn hidden_by(&self, path: &Path) -> Option<PatternRef> {
        match self {
            Self::Directory(context) => context.hidden_by(path),
            Self::Unpacked(_) => None,
        }
    }

    /// Remembers what was learned about the files, where that can help a later build.
    ///
    /// # Errors
    /// The index cannot be written.
    pub fn save(&self) -> Result<(), Error> {
        match self {
            Self::Directory(context) => context.save(),
            Self::Unpacked(_) => Ok(()),
        }
    }
}
