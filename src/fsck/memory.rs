//! What is only remembered: records, and the indexes of contexts. Each has a check sum of its own.

use std::collections::BTreeSet;
use std::path::Path;

use super::finding::{Outcome, Subject};
use super::{Check, Error, Verified};
use crate::cache::{self, Meaning};
use crate::context;
use crate::digest::{DiffId, Digest};
use crate::image::manifest::Manifest;
use crate::store::{LayerState, PulledImage, RecordFile};

/// What base images are known to have, and so can be fetched again.
#[derive(Debug, Default)]
pub(super) struct Elsewhere(BTreeSet<Digest>);

impl Elsewhere {
    pub(super) fn has(&self, digest: &Digest) -> bool {
        self.0.contains(digest)
    }
}

impl Check<'_> {
    /// Reads every record; gives what is known to be had from registries.
    pub(super) fn records(&self, verified: &mut Verified) -> Result<Elsewhere, Error> {
        let task = self.reporter.start("verify records");
        let (mut elsewhere, mut dangling) = (Elsewhere::default(), 0_u64);
        for bucket in self.store.buckets()? {
            self.go_on()?;
            let mut outcome = Ok(());
            self.store.records(&bucket, &mut |file| {
                verified.records += 1;
                if outcome.is_ok() {
                    outcome = self.record(&file, &mut elsewhere, &mut dangling);
                }
            })?;
            outcome?;
        }
        for path in self.store.context_indexes()? {
            verified.records += 1;
            let sound = std::fs::read(&path).map_or(true, |bytes| context::index::is_sound(&bytes));
            if !sound {
                self.forget(&path, "it is not what was written")?;
            }
        }
        if dangling > 0 {
            self.findings.note(format!("{dangling} records name layers that are not in the store: they are misses"));
        }
        task.finish(None);
        Ok(elsewhere)
    }

    fn record(&self, file: &RecordFile, elsewhere: &mut Elsewhere, dangling: &mut u64) -> Result<(), Error> {
        let Some(value) = &file.value else { return self.forget(&file.path, "it is not what was written") };
        match cache::meaning(&file.bucket, value) {
            Meaning::Nonsense => self.forget(&file.path, "it cannot be understood")?,
            Meaning::Layer(layer) if self.is_missing(&layer)? => *dangling += 1,
            Meaning::Layer(_) => {}
            Meaning::Other => self.pulled(value, elsewhere)?,
        }
        Ok(())
    }

    fn is_missing(&self, layer: &DiffId) -> Result<bool, Error> {
        Ok(!matches!(self.store.look_at_layer(layer)?, LayerState::Whole(_)))
    }

    /// Adds what a base image has, if that is what the record is about.
    fn pulled(&self, value: &[u8], elsewhere: &mut Elsewhere) -> Result<(), Error> {
        let Ok(pulled) = serde_json::from_slice::<PulledImage>(value) else { return Ok(()) };
        let Some(bytes) = self.store.read_blob(&pulled.manifest.digest)? else { return Ok(()) };
        if let Ok(manifest) = serde_json::from_slice::<Manifest>(&bytes) {
            elsewhere.0.extend(manifest.layers.iter().map(|layer| layer.digest));
        }
        Ok(())
    }

    fn forget(&self, path: &Path, detail: &str) -> Result<(), Error> {
        self.found(Subject::Record { path: path.to_owned() }, detail, || {
            self.store.forget(path)?;
            Ok(Outcome::Repaired)
        })
    }
}
