//! Removes an image: its name, and the documents that nothing else in the store reaches.
//!
//! Takes a reference. Never removes a layer, packed or unpacked: those are shared, and the collection's business.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Store;
use super::blob::BLOBS_LOCK;
use super::error::Error;
use super::removal::remove_file;
use crate::digest::Digest;
use crate::image::manifest::Descriptor;

/// An index in an index in an index… is followed so far.
const DEEPEST: usize = 8;

/// What went with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovedImage {
    /// How many documents (manifests, indexes, configurations) were removed.
    pub blobs: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
}

/// As much of a manifest or an index as says which documents belong to it.
#[derive(Debug, Default, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
}

impl Store {
    /// Takes a name away, with the manifests and configurations that nothing listed in `index.json` reaches any more.
    /// `None` if there was no such name. While any process shares the store (the caller too), only the name goes: a
    /// build may be about to name the same documents.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn remove_image(&self, reference: &crate::recipe::reference::Reference) -> Result<Option<RemovedImage>, Error> {
        let images = self.remove_tag(reference)?;
        if images.is_empty() {
            return Ok(None);
        }
        let mut impatient = |_: &super::LockOwner| std::ops::ControlFlow::Break(());
        let _alone = match self.exclusive("remove an image", &mut impatient) {
            Ok(lock) => lock,
            Err(Error::Cancelled { .. }) => return Ok(Some(RemovedImage::default())),
            Err(error) => return Err(error),
        };
        let Some(kept) = self.kept()? else { return Ok(Some(RemovedImage::default())) };
        let mut documents = BTreeSet::new();
        for image in &images {
            self.gather(image, DEEPEST, &mut documents)?;
        }
        self.remove_documents(documents.difference(&kept)).map(Some)
    }

    /// The documents that `index.json` reaches; `None` if an entry of it is not understood, and may reach anything.
    fn kept(&self) -> Result<Option<BTreeSet<Digest>>, Error> {
        let Some(listed) = self.listed()? else { return Ok(None) };
        let mut kept = BTreeSet::new();
        for image in &listed {
            self.gather(image, DEEPEST, &mut kept)?;
        }
        Ok(Some(kept))
    }

    fn gather(&self, image: &Descriptor, depth: usize, into: &mut BTreeSet<Digest>) -> Result<(), Error> {
        if depth == 0 || !into.insert(image.digest) {
            return Ok(());
        }
        // A document that is missing or is not one of ours reaches nothing that we could remove.
        let document = self
            .read_blob(&image.digest)?
            .and_then(|bytes| serde_json::from_slice::<Document>(&bytes).ok())
            .unwrap_or_default();
        into.extend(document.config.map(|config| config.digest));
        document.manifests.iter().try_for_each(|manifest| self.gather(manifest, depth - 1, into))
    }

    fn remove_documents<'a>(&self, digests: impl Iterator<Item = &'a Digest>) -> Result<RemovedImage, Error> {
        let _lock = self.own_lock(BLOBS_LOCK)?;
        let mut removed = RemovedImage::default();
        for digest in digests {
            let path = self.layout.blob(digest);
            let Ok(meta) = path.symlink_metadata() else { continue };
            remove_file(&path)?;
            removed.blobs += 1;
            removed.bytes += meta.len();
        }
        Ok(removed)
    }
}
