//! Layers + configuration → the configuration document and the manifest of an image.
//!
//! Pure. Base layers come in as the descriptors of the base's own manifest and leave as the same descriptors; only
//! Docker's media types are replaced by the OCI types that mean the same, because a manifest is of one family.

use std::collections::BTreeMap;

use crate::digest::{DiffId, Digest};
use crate::image::config::ImageConfig;
use crate::image::manifest::{Descriptor, Manifest, media_type};
use crate::recipe::reference::Reference;

/// The annotation that names an image's base (OCI image-spec, annotations.md).
pub const BASE_NAME: &str = "org.opencontainers.image.base.name";
/// The annotation with the digest of the base's manifest.
pub const BASE_DIGEST: &str = "org.opencontainers.image.base.digest";

/// The base of an image, as far as its documents name it.
#[derive(Debug, Clone)]
pub struct Base<'a> {
    /// The name the recipe used, where others can pull it by that.
    pub name: Option<&'a Reference>,
    /// What that name stood for: the digest of an index or a manifest.
    pub digest: Digest,
    /// The layers as the base's manifest describes them.
    pub layers: &'a [Descriptor],
}

/// A layer that a build made.
#[derive(Debug, Clone)]
pub struct Built {
    /// Its DiffID.
    pub diff_id: DiffId,
    /// The blob that carries it, in the form asked for.
    pub blob: Descriptor,
    /// When it was made, RFC 3339.
    pub created: String,
}

/// A JSON document with the digest and size of exactly these bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// What names it.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub bytes: Vec<u8>,
}

impl Document {
    /// Serialises a value. All maps in it are sorted, so that equal values give equal bytes.
    ///
    /// # Errors
    /// If the value cannot be JSON, which no document of this crate can cause.
    pub fn new(media_type: &str, value: &impl serde::Serialize) -> serde_json::Result<Self> {
        let bytes = serde_json::to_vec(value)?;
        let descriptor = Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64);
        Ok(Self { descriptor, bytes })
    }
}

/// An image's two documents.
#[derive(Debug, Clone)]
pub struct Image {
    /// The configuration: its digest is the image's id.
    pub config: Document,
    /// The manifest: its digest names the image in a registry.
    pub manifest: Document,
    /// When the image was made, RFC 3339.
    pub created: String,
}

/// Puts an image together.
///
/// `config` comes from the graph: its first `base_history` entries of history are the base's, and of the others the
/// `n`th that is not empty belongs to `built[n]`. Every time in the result is the time its layer was made (the one
/// below for steps without a layer), so that a build that found everything in the cache gives the same bytes again;
/// `annotations` are the user's, over our own; `scratch_time` serves where there is no layer at all.
///
/// # Errors
/// If a document cannot be JSON, which values from a graph cannot cause.
pub fn assemble(
    config: &ImageConfig,
    base_history: usize,
    base: Option<&Base<'_>>,
    base_diff_ids: &[DiffId],
    built: &[Built],
    annotations: &BTreeMap<String, String>,
    scratch_time: &str,
) -> serde_json::Result<Image> {
    let mut config = config.clone();
    let base_time =
        config.history[..base_history.min(config.history.len())].iter().rev().find_map(|h| h.created.clone());
    let mut time = base_time.unwrap_or_else(|| scratch_time.to_owned());
    let mut made = built.iter();
    for entry in config.history.iter_mut().skip(base_history) {
        if !entry.empty_layer
            && let Some(layer) = made.next()
        {
            time.clone_from(&layer.created);
        }
        entry.created = Some(time.clone());
    }
    let created = built.iter().map(|layer| layer.created.as_str()).max().unwrap_or(&time).to_owned();
    config.created = Some(created.clone());
    config.rootfs.diff_ids = base_diff_ids.iter().copied().chain(built.iter().map(|layer| layer.diff_id)).collect();
    let config = Document::new(media_type::CONFIG, &config)?;

    let base_layers = base.map_or(&[][..], |base| base.layers);
    let mut all_annotations = base.map(base_annotations).unwrap_or_default();
    all_annotations.extend(annotations.clone());
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::MANIFEST.to_owned()),
        config: config.descriptor.clone(),
        layers: base_layers.iter().map(in_oci_terms).chain(built.iter().map(|layer| layer.blob.clone())).collect(),
        annotations: all_annotations,
        other: serde_json::Map::new(),
    };
    let manifest = Document::new(media_type::MANIFEST, &manifest)?;
    Ok(Image { config, manifest, created })
}

fn base_annotations(base: &Base<'_>) -> BTreeMap<String, String> {
    let name = base.name.map(|name| Reference { digest: None, ..name.clone() });
    let name = name.map(|name| (BASE_NAME.to_owned(), name.to_string()));
    name.into_iter().chain([(BASE_DIGEST.to_owned(), base.digest.to_string())]).collect()
}

fn in_oci_terms(layer: &Descriptor) -> Descriptor {
    let media_type = match layer.media_type.as_str() {
        media_type::DOCKER_LAYER_GZIP => media_type::LAYER_GZIP,
        media_type::DOCKER_LAYER => media_type::LAYER,
        media_type::DOCKER_FOREIGN_LAYER_GZIP => media_type::NONDISTRIBUTABLE_LAYER_GZIP,
        other => other,
    };
    Descriptor { media_type: media_type.to_owned(), ..layer.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::config::History;

    fn history(by: &str, created: Option<&str>, empty_layer: bool) -> History {
        History {
            created_by: Some(by.to_owned()),
            created: created.map(str::to_owned),
            empty_layer,
            ..History::default()
        }
    }

    #[test]
    fn times_come_from_layers_and_nothing_else() {
        let diff_id = DiffId::from(Digest::of(b"layer"));
        let config = ImageConfig {
            history: vec![
                history("base", Some("2020-01-01T00:00:00Z"), false),
                history("ENV a=b", None, true),
                history("RUN x", None, false),
                history("CMD x", None, true),
            ],
            ..ImageConfig::default()
        };
        let built = [Built {
            diff_id,
            blob: Descriptor::new(media_type::LAYER, diff_id.into(), 5),
            created: "2024-05-05T00:00:00Z".to_owned(),
        }];
        let image = assemble(&config, 1, None, &[], &built, &BTreeMap::new(), "1970-01-01T00:00:00Z").unwrap();
        assert_eq!(image.created, "2024-05-05T00:00:00Z");
        let written: ImageConfig = serde_json::from_slice(&image.config.bytes).unwrap();
        let times: Vec<_> = written.history.iter().map(|h| h.created.as_deref().unwrap()[..4].to_owned()).collect();
        assert_eq!(times, ["2020", "2020", "2024", "2024"]);
        assert_eq!(written.rootfs.diff_ids, [diff_id]);
        assert_eq!(
            assemble(&config, 1, None, &[], &built, &BTreeMap::new(), "1970-01-01T00:00:00Z").unwrap().manifest,
            image.manifest
        );
    }
}
