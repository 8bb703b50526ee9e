//! Names of images: `index.json`, and that everything an image names is there, or can be had again.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::finding::{Finding, Outcome, Subject};
use super::memory::Elsewhere;
use super::{Check, Error, Verified};
use crate::digest::{DiffId, Digest};
use crate::image::config::ImageConfig;
use crate::image::manifest::Descriptor;
use crate::store::{BlobState, IndexState, LayerState};

/// An index in an index in an index… is followed so far.
const DEEPEST: usize = 8;

/// As much of a manifest or an index as says what belongs to it.
#[derive(Debug, Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Descriptor>,
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

impl Check<'_> {
    /// Follows every name. `damaged` are layers that do not count as being there.
    pub(super) fn names(
        &self,
        damaged: &BTreeSet<DiffId>,
        elsewhere: &Elsewhere,
        verified: &mut Verified,
    ) -> Result<(), Error> {
        let [index, copy] = self.store.index_paths();
        if !self.store.oci_layout_is_sound() {
            let path = index.with_file_name("oci-layout");
            self.found(Subject::Index { path }, "it does not say that this is an image layout", || {
                self.store.mend_oci_layout()?;
                Ok(Outcome::Repaired)
            })?;
        }
        match self.store.look_at_index()? {
            IndexState::Whole => {}
            IndexState::Restorable => {
                self.found(
                    Subject::Index { path: index.clone() },
                    "it is gone or cannot be read, but its copy can",
                    || Ok(Outcome::Repaired),
                )?;
            }
            IndexState::Lost => {
                self.found(Subject::Index { path: index.clone() }, "neither it nor its copy can be read", || {
                    Ok(Outcome::Lost)
                })?;
            }
        }
        if !self.store.index_copy_is_sound() {
            self.found(Subject::Index { path: copy }, "it is not what was written", || Ok(Outcome::Repaired))?;
        }
        if self.repair {
            self.mend_names(damaged, elsewhere)?;
        }
        let Ok(listed) = self.store.listing() else { return Ok(()) };
        verified.names = listed.len() as u64;
        for (name, image) in listed {
            self.go_on()?;
            if let Some(missing) = self.missing(&image, damaged, elsewhere, DEEPEST)? {
                // A build or `strata rm` may have moved the name meanwhile.
                if self.store.listing().is_ok_and(|now| now.contains(&(name.clone(), image.clone()))) {
                    let name = name.unwrap_or_else(|| image.digest.to_string());
                    self.findings.add(Finding {
                        subject: Subject::Name { name },
                        detail: missing,
                        outcome: Outcome::Found,
                    });
                }
            }
        }
        Ok(())
    }

    /// Makes `index.json` list what can be had. Names that cannot are told one by one.
    fn mend_names(&self, damaged: &BTreeSet<DiffId>, elsewhere: &Elsewhere) -> Result<(), Error> {
        let mut why = BTreeMap::new();
        let mut trouble = None;
        let mut needed = self.store.look_at_index()? != IndexState::Whole || !self.store.index_copy_is_sound();
        let mut good = |image: &Descriptor| match self.missing(image, damaged, elsewhere, DEEPEST) {
            Ok(None) => true,
            Ok(Some(missing)) => {
                why.insert(image.digest, missing);
                false
            }
            Err(error) => {
                trouble = Some(error);
                true
            }
        };
        if let Ok(listed) = self.store.listing() {
            needed |= !listed.iter().all(|(_, image)| good(image));
        }
        if !needed {
            return trouble.map_or(Ok(()), Err);
        }
        let lost = self.store.mend_index(&mut good)?;
        if let Some(error) = trouble {
            return Err(error);
        }
        let mut lost_names = BTreeSet::new();
        for (name, digest) in lost {
            let detail = why.get(&digest).cloned().unwrap_or_else(|| "its image is gone".to_owned());
            lost_names.insert(digest);
            self.findings.add(Finding { subject: Subject::Name { name }, detail, outcome: Outcome::Lost });
        }
        for (digest, detail) in why.iter().filter(|(digest, _)| !lost_names.contains(*digest)) {
            // The copy had another image for the name, which is whole.
            let subject = Subject::Name { name: digest.to_string() };
            self.findings.add(Finding { subject, detail: detail.clone(), outcome: Outcome::Repaired });
        }
        Ok(())
    }

    /// What an image names that is not there and cannot be had again, if anything.
    fn missing(
        &self,
        image: &Descriptor,
        damaged: &BTreeSet<DiffId>,
        elsewhere: &Elsewhere,
        depth: usize,
    ) -> Result<Option<String>, Error> {
        // Read without a note: a damaged one was found among the blobs.
        let Some(bytes) = self.document(&image.digest)? else {
            return Ok(Some(format!("its manifest {} is gone or damaged", image.digest)));
        };
        // What others put there may be of any kind.
        let Ok(document) = serde_json::from_slice::<Document>(&bytes) else { return Ok(None) };
        for manifest in document.manifests.iter().filter(|_| depth > 0) {
            if let Some(missing) = self.missing(manifest, damaged, elsewhere, depth - 1)? {
                return Ok(Some(missing));
            }
        }
        let Some(config) = &document.config else { return Ok(None) };
        let Some(bytes) = self.document(&config.digest)? else {
            return Ok(Some(format!("its configuration {} is gone or damaged", config.digest)));
        };
        let Ok(config) = serde_json::from_slice::<ImageConfig>(&bytes) else { return Ok(None) };
        for (layer, diff_id) in document.layers.iter().zip(&config.rootfs.diff_ids) {
            // A layer that the build made is listed as its plain archive. All others were the base's before.
            let is_own = layer.digest == Digest::from(*diff_id) && !elsewhere.has(&layer.digest);
            if is_own && !self.is_there(diff_id, damaged)? {
                return Ok(Some(format!("its layer {diff_id} is gone or damaged")));
            }
        }
        Ok(None)
    }

    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        match self.store.look_at_blob(digest, &|_| {})? {
            BlobState::Whole => Ok(self.store.read_blob(digest)?),
            BlobState::Damaged | BlobState::Missing => Ok(None),
        }
    }

    fn is_there(&self, layer: &DiffId, damaged: &BTreeSet<DiffId>) -> Result<bool, Error> {
        let unpacked = matches!(self.store.look_at_layer(layer)?, LayerState::Whole(_)) && !damaged.contains(layer);
        Ok(unpacked || self.store.look_at_blob(&Digest::from(*layer), &|_| {})? == BlobState::Whole)
    }
}
