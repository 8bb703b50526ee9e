//! Blobs and layers: what is named by a digest of its bytes.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::finding::{Outcome, Subject};
use super::{Check, Error, Verified};
use crate::base::layers::is_whole;
use crate::digest::{DiffId, Digest};
use crate::store::{BlobState, Blobs, LayerState, StoredLayer};

impl Check<'_> {
    /// Reads every blob.
    pub(super) fn blobs(&self, verified: &mut Verified) -> Result<(), Error> {
        let Blobs { mut blobs, strangers } = self.store.blobs()?;
        // The longest first, so that no processor is left with one of them at the end.
        blobs.sort_unstable_by_key(|(_, size)| std::cmp::Reverse(*size));
        let total: u64 = blobs.iter().map(|(_, size)| size).sum();
        (verified.blobs, verified.blob_bytes) = (blobs.len() as u64, total);
        let task = self.reporter.start(&format!("verify {} blobs", blobs.len()));
        let done = AtomicU64::new(0);
        let passed = |bytes: u64| {
            let done = done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            task.transferred(done, Some(total));
        };
        let outcome = blobs.par_iter().try_for_each(|(digest, _)| self.blob(digest, &passed));
        task.finish(outcome.as_ref().err().map(ToString::to_string));
        for path in strangers {
            self.findings.note(format!("{} is no blob; nothing uses it", path.display()));
        }
        outcome
    }

    fn blob(&self, digest: &Digest, passed: &(dyn Fn(u64) + Sync)) -> Result<(), Error> {
        self.go_on()?;
        // Gone meanwhile is no damage: whether something needs it is seen where that is looked at.
        if self.store.look_at_blob(digest, passed)? != BlobState::Damaged {
            return Ok(());
        }
        self.found(Subject::Blob { digest: *digest }, "its bytes are not what its name says", || {
            self.store.verify_blob(digest)?;
            Ok(Outcome::Repaired)
        })
    }

    /// Reads every layer; gives those that cannot be used.
    pub(super) fn layers(&self, verified: &mut Verified) -> Result<BTreeSet<DiffId>, Error> {
        let (mut whole, damaged) = (Vec::new(), Mutex::new(BTreeSet::new()));
        for diff_id in self.store.layers()? {
            match self.store.look_at_layer(&diff_id)? {
                LayerState::Missing => {}
                LayerState::Whole(layer) => whole.push(layer),
                // Power was lost: the next build drops it, and what is dropped counts as missing already.
                LayerState::Unwritten => drop(damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id)),
                LayerState::Damaged => {
                    damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(diff_id);
                    let detail = "its description cannot be read, or its files are gone";
                    self.found(Subject::Layer { diff_id }, detail, || self.discard(&diff_id))?;
                }
            }
        }
        whole.sort_unstable_by_key(|layer| std::cmp::Reverse(layer.meta.tar_size));
        let total: u64 = whole.iter().map(|layer| layer.meta.tar_size).sum();
        (verified.layers, verified.layer_bytes) = (whole.len() as u64, total);
        let task = self.reporter.start(&format!("verify {} layers", whole.len()));
        let done = AtomicU64::new(0);
        let outcome = whole.par_iter().try_for_each(|layer| {
            if self.layer(layer)? {
                damaged.lock().unwrap_or_else(PoisonError::into_inner).insert(layer.diff_id);
            }
            let bytes = layer.meta.tar_size;
            task.transferred(done.fetch_add(bytes, Ordering::Relaxed) + bytes, Some(total));
            Ok(())
        });
        task.finish(outcome.as_ref().err().map(|error: &Error| error.to_string()));
        outcome?;
        Ok(damaged.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether a layer's files are damaged.
    fn layer(&self, layer: &StoredLayer) -> Result<bool, Error> {
        self.go_on()?;
        let diff_id = layer.diff_id;
        let detail = match is_whole(layer, self.xattr) {
            Ok(true) => return Ok(false),
            Ok(false) => "its files are not what they were when it came into the store".to_owned(),
            Err(error) => format!("its files cannot be read: {}", sentence(&error)),
        };
        // A build may have removed it while its files were read.
        if !matches!(self.store.look_at_layer(&diff_id)?, LayerState::Whole(_)) {
            return Ok(false);
        }
        self.found(Subject::Layer { diff_id }, detail, || self.discard(&diff_id))?;
        Ok(true)
    }

    fn discard(&self, diff_id: &DiffId) -> Result<Outcome, Error> {
        Ok(if self.store.discard_unused_layer(diff_id)? { Outcome::Repaired } else { Outcome::InUse })
    }
}

/// An error with its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
