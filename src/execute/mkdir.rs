//! `WORKDIR`: a directory that has to be there.
//!
//! Takes the operation and the root; gives a layer with the directories that were missing, mode 0755, all owned by the current
//! user as BuildKit has it. Where nothing was missing the layer is empty.

use std::path::Path;

use super::owner::Owner;
use super::stage::{Error, NewDirectory, Stage};
use crate::context::ignore::clean;
use crate::graph::MkdirOp;
use crate::layer::OverlayXattr;
use crate::layer::tree::{Kind, Tree};

/// Writes the layer that `op` makes on top of `parent` into the directory `into`, which is made if it is missing and has to be
/// empty otherwise. `owner` is what the current user resolved to for files. Says whether anything was missing.
///
/// # Errors
/// Something that is not a directory is in the way, or the layer cannot be written.
pub fn make(op: &MkdirOp, parent: &dyn Tree, into: &Path, xattr: OverlayXattr, owner: &Owner) -> Result<bool, Error> {
    let mut stage = Stage::new(parent, into, xattr, op.epoch)?;
    let place = stage.resolve(Path::new(&clean(&format!("/{}", op.path))))?;
    let made = if stage.kind(&place)? == Some(Kind::Directory) {
        false
    } else {
        stage.directories(&place, NewDirectory { mode: 0o755, uid: owner.uid, gid: owner.gid })?
    };
    stage.write(None)?;
    Ok(made)
}
