//! Removes an image: its name, and the documents that nothing else in the store reaches.
//!
//! Takes a reference. Never removes a layer, packed or unpacked: those are shared, and the collection's business.

use super::Store;
use super::blob::BLOBS_LOCK;
use super::error::Error;
use super::reach::Reached;
use super::removal::remove_file;
use super::uses::Used;
use crate::digest::Digest;

/// What went with a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RemovedImage {
    /// How many documents (manifests, indexes, configurations) were removed.
    pub blobs: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
}

impl Store {
    /// Takes a name away, with the manifests and configurations that nothing listed in `index.json` reaches any more.
    /// `None` if there was no such name. Documents that a running build uses stay: it may be about to name them.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn remove_image(&self, reference: &crate::recipe::reference::Reference) -> Result<Option<RemovedImage>, Error> {
        let images = self.remove_tag(reference)?;
        if images.is_empty() {
            return Ok(None);
        }
        let gate = self.gate()?;
        // Before the index: whoever ends between the two has written its tag.
        let pinned = self.pinned(&gate)?;
        let mut kept = Reached::default();
        match self.reach_tags(&mut kept) {
            // What the entry needs is not known: only the name goes.
            Err(Error::UnknownEntry { .. }) => return Ok(Some(RemovedImage::default())),
            outcome => outcome?,
        }
        let mut gone = Reached::default();
        images.iter().try_for_each(|image| self.reach(image, &mut gone))?;
        let is_used = |digest: &Digest| kept.has_blob(digest) || pinned.contains(&Used::Blob(*digest));
        self.remove_documents(gone.documents.iter().filter(|digest| !is_used(digest))).map(Some)
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
