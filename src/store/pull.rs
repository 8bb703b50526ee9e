//! What a name of a base image stood for when its registry was last asked.
//!
//! Takes and gives descriptors under (reference, platform), as records. Never decides whether they are still fresh:
//! that is the caller's policy.

use serde::{Deserialize, Serialize};

use super::Store;
use super::error::Error;
use super::record::Bucket;
use crate::digest::Key;
use crate::image::manifest::Descriptor;
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;

/// Where the answers of registries are remembered.
pub const PULLS: Bucket = Bucket::new("pulls-v1");

/// What a reference stood for, for one platform.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PulledImage {
    /// The image's manifest.
    pub manifest: Descriptor,
    /// The index that listed it, where the reference named one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index: Option<Descriptor>,
    /// When the registry said so, in seconds since 1970 by the caller's clock.
    pub resolved_at: u64,
}

impl Store {
    /// Remembers what a reference stands for.
    ///
    /// # Errors
    /// What the operating system refused. A build can go on without it.
    pub fn remember_pull(&self, reference: &Reference, platform: &Platform, image: &PulledImage) -> Result<(), Error> {
        let key = key(reference, platform);
        let path = self.layout.record(PULLS, &key);
        let value = serde_json::to_vec(image).map_err(|source| Error::Document { path, source })?;
        self.write_record(PULLS, &key, &value)
    }

    /// What a reference stood for when last remembered.
    pub fn recall_pull(&self, reference: &Reference, platform: &Platform) -> Option<PulledImage> {
        let value = self.read_record(PULLS, &key(reference, platform))?;
        serde_json::from_slice(&value).ok()
    }
}

fn key(reference: &Reference, platform: &Platform) -> Key {
    let reference = reference.to_string();
    let mut hasher = blake3::Hasher::new();
    for field in [
        reference.as_str(),
        &platform.os,
        &platform.architecture,
        platform.variant.as_deref().unwrap_or_default(),
        platform.os_version.as_deref().unwrap_or_default(),
    ] {
        // The length before each field: no two lists of fields are the same bytes.
        hasher.update(&(field.len() as u64).to_le_bytes()).update(field.as_bytes());
    }
    hasher.finalize().into()
}
