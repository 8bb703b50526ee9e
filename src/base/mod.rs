//! Base images: from a name to documents, and from descriptors to layers on disk.
//!
//! Takes the images a graph names; gives their configuration and their layers' names at the price of a manifest and a
//! configuration, and the layers themselves only when somebody asks for the bytes ([`layers`], with what they leave out
//! supplied by [`completion`]). Never asks the network
//! what the store knows: a digest is known for good, a tag until the user asks for a fresh look (`--pull`).

pub mod completion;
pub mod layers;
pub mod layout;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::digest::DiffId;
use crate::digest::Digest;
use crate::graph::ImageRequest;
use crate::image::chain::Chain;
use crate::image::config::ImageConfig;
use crate::image::manifest::{Descriptor, Manifest};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::registry::{self, Client, Documents};
use crate::store::{self, PulledImage, Store};

/// A base image as its documents describe it.
#[derive(Debug, Clone)]
pub struct BaseImage {
    /// What the name stood for: the digest of an index, or of the manifest where there is none.
    pub digest: Digest,
    /// Its manifest.
    pub manifest: Manifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// The blob that carries a layer of a base image, and where it can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBlob {
    /// The image it belongs to.
    pub reference: Reference,
    /// The blob.
    pub descriptor: Descriptor,
    /// The OCI layout on disk that has it; the image's registry where absent.
    pub layout: Option<PathBuf>,
}

/// Why a base image cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry did not give it.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The OCI layout did not give it.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A document is not what it should be.
    #[error("{document} of {reference} is not valid JSON of its kind: {source}")]
    Document {
        /// The image.
        reference: Box<Reference>,
        /// `the manifest` or `the configuration`.
        document: &'static str,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// Manifest and configuration disagree.
    #[error("{reference} is broken: its manifest has {layers} layers and its configuration {diff_ids}")]
    LayerCount {
        /// The image.
        reference: Box<Reference>,
        /// Layers of the manifest.
        layers: usize,
        /// DiffIDs of the configuration.
        diff_ids: usize,
    },
}

impl Error {
    /// Whether this machine or its network, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Registry(error) => error.is_about_the_network(),
            Self::Store(_) => true,
            Self::Layout(_) | Self::Document { .. } | Self::LayerCount { .. } => false,
        }
    }
}

/// Every base image of one build.
#[derive(Debug, Default)]
pub struct Bases {
    images: BTreeMap<ImageRequest, BaseImage>,
    /// For each layer of each base: the blob that carries it, and where that blob can be had.
    blobs: HashMap<DiffId, BaseBlob>,
}

impl Bases {
    /// Resolves an image: from the layout it is in, or from the store, else (or if `fresh` is set and the name is not pinned by digest) from its
    /// registry.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn resolve(store: &Store, client: &Client, request: &ImageRequest, fresh: bool) -> Result<BaseImage, Error> {
        let ImageRequest { reference, platform, layout } = request;
        if let Some(path) = layout {
            return layout::resolve(path, request);
        }
        if (!fresh || reference.digest.is_some())
            && let Some(pulled) = store.recall_pull(reference, platform)
            && let Some(image) = stored(store, reference, &pulled)?
        {
            return Ok(image);
        }
        let resolved = client.resolve(reference, platform, &Kept { store, platform })?;
        let image = image(reference, resolved.pin(), resolved.document, resolved.config)?;
        store.put_blob(&resolved.manifest_bytes)?;
        store.put_blob(&resolved.config_bytes)?;
        store.remember_pull(
            reference,
            platform,
            &PulledImage { manifest: resolved.manifest, index: resolved.index, resolved_at: now() },
        )?;
        Ok(image)
    }

    /// Adds a resolved image.
    pub fn insert(&mut self, request: ImageRequest, image: BaseImage) {
        for (diff_id, layer) in image.config.rootfs.diff_ids.iter().zip(&image.manifest.layers) {
            self.blobs.entry(*diff_id).or_insert_with(|| BaseBlob {
                reference: request.reference.clone(),
                descriptor: layer.clone(),
                layout: request.layout.clone(),
            });
        }
        self.images.insert(request, image);
    }

    /// The image a request was resolved to.
    pub fn get(&self, request: &ImageRequest) -> Option<&BaseImage> {
        self.images.get(request)
    }

    /// The configurations, as the graph wants them.
    pub fn configs(&self) -> BTreeMap<ImageRequest, ImageConfig> {
        self.images.iter().map(|(request, image)| (request.clone(), image.config.clone())).collect()
    }

    /// The layers of an image; none if it was never resolved.
    pub fn chain(&self, request: &ImageRequest) -> Chain {
        self.images.get(request).into_iter().flat_map(|image| image.config.rootfs.diff_ids.iter().copied()).collect()
    }

    /// The blob that carries a base layer.
    pub fn blob(&self, layer: &DiffId) -> Option<&BaseBlob> {
        self.blobs.get(layer)
    }
}

/// The documents in the store, for a registry client that need not fetch what is there.
struct Kept<'a> {
    store: &'a Store,
    platform: &'a Platform,
}

impl Documents for Kept<'_> {
    fn load(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.store.read_blob(digest).ok().flatten()
    }

    fn keep(&self, _descriptor: &Descriptor, bytes: &[u8]) {
        // A document that cannot be kept is fetched again; what the build needs itself is put with its errors heard.
        let _ = self.store.put_blob(bytes);
    }

    fn last_known(&self, reference: &Reference) -> Option<Digest> {
        let pulled = self.store.recall_pull(reference, self.platform)?;
        Some(pulled.index.unwrap_or(pulled.manifest).digest)
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The image an earlier resolution left in the store, if both its documents are still there.
fn stored(store: &Store, reference: &Reference, pulled: &PulledImage) -> Result<Option<BaseImage>, Error> {
    let Some(manifest_bytes) = store.read_blob(&pulled.manifest.digest)? else { return Ok(None) };
    let manifest = parse(reference, "the manifest", &manifest_bytes)?;
    let Manifest { config, .. } = &manifest;
    let Some(config_bytes) = store.read_blob(&config.digest)? else { return Ok(None) };
    let digest = pulled.index.as_ref().unwrap_or(&pulled.manifest).digest;
    read(reference, digest, &manifest_bytes, &config_bytes).map(Some)
}

fn read(reference: &Reference, digest: Digest, manifest: &[u8], config: &[u8]) -> Result<BaseImage, Error> {
    image(
        reference,
        digest,
        parse(reference, "the manifest", manifest)?,
        parse(reference, "the configuration", config)?,
    )
}

fn image(reference: &Reference, digest: Digest, manifest: Manifest, config: ImageConfig) -> Result<BaseImage, Error> {
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::LayerCount { reference: Box::new(reference.clone()), layers, diff_ids });
    }
    Ok(BaseImage { digest, manifest, config })
}

fn parse<T: serde::de::DeserializeOwned>(
    reference: &Reference,
    document: &'static str,
    bytes: &[u8],
) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| Error::Document {
        reference: Box::new(reference.clone()),
        document,
        source,
    })
}
