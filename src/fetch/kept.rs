//! Trees that were fetched or unpacked, kept as layers of the store.
//!
//! Takes a finished tree and what names it for good: a commit, an archive's digest. Gives the tree back under that name
//! in any later build, until its layer is removed, which is a miss like any other. Never keeps what a layer cannot hold;
//! that is fetched or unpacked again each time.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Error, Fetcher};
use crate::digest::{DiffId, Key};
use crate::layer::archive::{self, Times};
use crate::layer::view::View;
use crate::store::{self, Bucket, LayerMeta, Origin, Scratch, StoredLayer};

/// Which layer holds a tree, by what names the tree.
pub const TREES: Bucket = Bucket::new("fetched-trees-v1");

/// A tree that nobody changes.
#[derive(Debug)]
pub struct Kept {
    /// Its files.
    pub view: View,
    /// The layer they are kept as; `None` where no layer can hold them.
    pub layer: Option<DiffId>,
    /// The time that belongs to the whole: when a commit was made. Seconds since 1970.
    pub time: Option<i64>,
    /// Where the files are, where that is not a layer.
    pub scratch: Option<Scratch>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    layer: DiffId,
    time: Option<i64>,
}

/// The layer that the bytes of a record of this kind name.
pub fn layer_in(bytes: &[u8]) -> Option<DiffId> {
    Some(serde_json::from_slice::<Record>(bytes).ok()?.layer)
}

impl Fetcher<'_> {
    /// The tree of a name, if it was kept.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn kept(&self, name: &str) -> Result<Option<Kept>, Error> {
        let Some(bytes) = self.store.read_record(TREES, &key(name)) else { return Ok(None) };
        let Ok(Record { layer, time }) = serde_json::from_slice(&bytes) else { return Ok(None) };
        let Some(stored) = self.store.layer(&layer)? else { return Ok(None) };
        Ok(Some(Kept { view: self.view(&stored.tree)?, layer: Some(layer), time, scratch: None }))
    }

    /// Keeps a finished tree, a directory in `scratch`, under a name.
    ///
    /// # Errors
    /// The store cannot be written, or the tree not be read.
    pub fn keep(&self, name: &str, tree: &Path, time: Option<i64>, scratch: Scratch) -> Result<Kept, Error> {
        let key = key(name);
        let Ok(measured) = archive::measure(tree, self.xattr, Times::default()) else {
            // A header too large: no layer can hold it, but files can be copied from it.
            return Ok(Kept { view: self.view(tree)?, layer: None, time, scratch: Some(scratch) });
        };
        let meta = LayerMeta {
            tar_size: measured.size,
            entries: measured.entries,
            disk: store::allocated(tree),
            origin: Origin::Built { key },
            clamp: None,
            forms: Vec::new(),
            implied: Vec::new(),
        };
        let StoredLayer { diff_id: layer, tree, .. } = self.store.publish_layer(&measured.diff_id, tree, meta)?;
        // Without the record it is fetched again, and that is all.
        if let Ok(value) = serde_json::to_vec(&Record { layer, time }) {
            let _ = self.store.write_record(TREES, &key, &value);
        }
        Ok(Kept { view: self.view(&tree)?, layer: Some(layer), time, scratch: None })
    }

    fn view(&self, tree: &Path) -> Result<View, Error> {
        View::over(&[tree.to_owned()], self.xattr).map_err(|source| Error::File { path: tree.to_owned(), source })
    }
}

fn key(name: &str) -> Key {
    let mut hasher = blake3::Hasher::new_derive_key("strata fetched tree");
    hasher.update(&archive::FORMAT.to_le_bytes());
    hasher.update(name.as_bytes());
    hasher.finalize().into()
}
