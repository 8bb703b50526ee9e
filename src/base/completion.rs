//! One more directory on top of layers that have directories their archives say nothing of.
//!
//! A layer is kept under the digest of its archive, whatever is below it in an image. So what depends on the layers below
//! is made for a stack of them ([`implied`]), and lives as long as the build.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::digest::DiffId;
use crate::layer::OverlayXattr;
use crate::layer::implied::{self, Layer};
use crate::store::{self, Scratch, Store, StoredLayer};

/// Why layers could not be completed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store has no room for it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The layers could not be read, or the directory not be written.
    #[error("cannot make the parent directories that layer {layer} leaves out")]
    Make {
        /// The topmost layer that has such directories.
        layer: DiffId,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// What was made in one build, by the layers it completes, base first. Nothing where they need nothing.
#[derive(Debug, Default)]
pub struct Completions(Mutex<HashMap<Vec<DiffId>, Option<Completion>>>);

#[derive(Debug)]
struct Completion {
    tree: PathBuf,
    /// Removes it in the end.
    _scratch: Scratch,
}

impl Completions {
    /// The directory to put on top of layers, given base first; `None` if they need none.
    pub(super) fn of(
        &self,
        store: &Store,
        xattr: OverlayXattr,
        layers: &[StoredLayer],
    ) -> Result<Option<PathBuf>, Error> {
        let names: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
        // Held while one is made, so that steps that start from the same layers share it.
        let mut made = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = made.get(&names) {
            return Ok(known.as_ref().map(|completion| completion.tree.clone()));
        }
        let completion = make(store, xattr, layers)?;
        let tree = completion.as_ref().map(|completion| completion.tree.clone());
        made.insert(names, completion);
        Ok(tree)
    }
}

fn make(store: &Store, xattr: OverlayXattr, layers: &[StoredLayer]) -> Result<Option<Completion>, Error> {
    let scratch = store.scratch()?;
    let tree = scratch.dir("tree")?;
    let stack: Vec<_> =
        layers.iter().rev().map(|layer| Layer { tree: &layer.tree, implied: &layer.meta.implied }).collect();
    match implied::complete(&stack, xattr, &tree) {
        Ok(is_needed) => Ok(is_needed.then_some(Completion { tree, _scratch: scratch })),
        Err(source) => {
            let layer = layers.iter().rev().find(|layer| !layer.meta.implied.is_empty()).map(|layer| layer.diff_id);
            Err(Error::Make { layer: layer.expect("only layers that imply something are completed"), source })
        }
    }
}
