//! What the names in `index.json` reach: documents, packed layers and unpacked ones.
//!
//! Takes descriptors, reads the documents behind them, gives sets of names. Changes nothing, and pins nothing, so that a
//! collection can ask while it keeps everybody else from pinning.

use std::collections::HashSet;

use serde::Deserialize;

use super::Store;
use super::error::Error;
use crate::digest::{DiffId, Digest};
use crate::image::manifest::Descriptor;

/// An index in an index in an index… is followed so far.
const DEEPEST: usize = 8;

/// Everything that some images need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// Their layers, unpacked.
    pub layers: HashSet<DiffId>,
    /// Their manifests, indexes and configurations.
    pub documents: HashSet<Digest>,
    /// Their layers, packed.
    pub packed: HashSet<Digest>,
}

impl Reached {
    /// Whether a blob is among it.
    pub fn has_blob(&self, digest: &Digest) -> bool {
        self.documents.contains(digest) || self.packed.contains(digest)
    }
}

/// As much of a manifest, an index or a configuration as says what belongs to it.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

#[derive(Debug, Default, Deserialize)]
struct Configuration {
    #[serde(default)]
    rootfs: Layers,
}

#[derive(Debug, Default, Deserialize)]
struct Layers {
    #[serde(default)]
    diff_ids: Vec<DiffId>,
}

impl Store {
    /// Adds everything that `index.json` lists, named or not.
    ///
    /// # Errors
    /// [`Error::UnknownEntry`] where an entry of it is not understood, and may reach anything; otherwise what the operating
    /// system refused.
    pub fn reach_tags(&self, reached: &mut Reached) -> Result<(), Error> {
        let Some(listed) = self.listed()? else { return Err(Error::UnknownEntry { path: self.layout.index() }) };
        listed.iter().try_for_each(|image| self.reach(image, reached))
    }

    /// Adds what an image needs. A document that is missing or damaged reaches nothing.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn reach(&self, image: &Descriptor, reached: &mut Reached) -> Result<(), Error> {
        self.gather(image, DEEPEST, reached)
    }

    fn gather(&self, image: &Descriptor, depth: usize, reached: &mut Reached) -> Result<(), Error> {
        if depth == 0 || !reached.documents.insert(image.digest) {
            return Ok(());
        }
        let document: Document = self.document(&image.digest)?;
        reached.packed.extend(document.layers.iter().map(|layer| layer.digest));
        if let Some(config) = document.config
            && reached.documents.insert(config.digest)
        {
            let Configuration { rootfs } = self.document(&config.digest)?;
            reached.layers.extend(rootfs.diff_ids);
        }
        document.manifests.iter().try_for_each(|manifest| self.gather(manifest, depth - 1, reached))
    }

    fn document<T: serde::de::DeserializeOwned + Default>(&self, digest: &Digest) -> Result<T, Error> {
        let bytes = self.peek_blob(digest)?;
        Ok(bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }
}
