//! What the root directory of a layer holds, so that a view need not ask a layer for what it cannot have.
//!
//! Takes a layer's directory, lists it once, and answers from memory. A chain of steps is looked at once for each of them, and
//! most of its layers have nothing of what is looked for. Layers never change, so neither do the answers.

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::layer::OverlayXattr;
use crate::layer::inode;
use crate::layer::xattr::At;

/// More names than this are not kept.
const MOST: usize = 4096;

/// One layer's root.
#[derive(Debug)]
pub(super) struct Top {
    /// The names in it, whiteouts too; `None` where they are too many.
    names: Option<HashSet<Vec<u8>>>,
    /// Whether it hides everything below it.
    pub(super) is_opaque: bool,
}

impl Top {
    fn read(tree: &Path, xattr: OverlayXattr) -> io::Result<Self> {
        let root = inode::open_root(tree)?;
        let children = inode::list(root.as_fd())?;
        let names =
            (children.len() <= MOST).then(|| children.into_iter().map(|child| child.name).collect::<HashSet<_>>());
        Ok(Self { names, is_opaque: At::Descriptor(root.as_fd()).is_opaque(xattr)? })
    }

    /// Whether the layer can have anything at a path.
    pub(super) fn may_have(&self, path: &Path) -> bool {
        let (Some(names), Some(first)) = (&self.names, path.iter().next()) else { return true };
        names.contains(first.as_bytes())
    }
}

/// What was learned of layers, by their directories. For as long as none of them is removed or made anew.
#[derive(Debug, Default)]
pub struct Tops(Mutex<HashMap<PathBuf, Arc<Top>>>);

impl Tops {
    /// Forgets all of them: a layer that was found damaged is made again under the same path.
    pub fn forget(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(super) fn of(&self, tree: &Path, xattr: OverlayXattr) -> io::Result<Arc<Top>> {
        if let Some(known) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(tree) {
            return Ok(Arc::clone(known));
        }
        let top = Arc::new(Top::read(tree, xattr)?);
        let mut tops = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(tops.entry(tree.to_owned()).or_insert(top)))
    }
}
