//! The blobs that carry an image's layers, each in the form an output asks for.

use std::io::{self, Write};

use crate::base::layers::{self, Layers};
use crate::digest::{DiffId, Digest};
use crate::image::manifest::{Descriptor, media_type};
use crate::layer::archive::{self, Times};
use crate::layer::compress::{Compression, Encoder};
use crate::progress::Reporter;
use crate::store::{self, Form, Store, StoredLayer};

/// Why a layer's blob cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The layer is not in the store.
    #[error(transparent)]
    Layers(#[from] layers::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The layer's files could not be read or compressed.
    #[error("layer {layer} cannot be written")]
    Archive {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: archive::Error,
    },
    /// The compressed form could not be finished.
    #[error("layer {layer} cannot be compressed: {source}")]
    Compress {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Whether the layer is not in the store any more, so that it must be made again.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::Layers(layers::Error::Lost { .. }))
    }

    /// Whether this machine, and not an image, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Layers(error) => error.is_environment(),
            Self::Store(_) | Self::Compress { .. } => true,
            Self::Archive { .. } => false,
        }
    }
}

/// What a manifest in the local store says of a layer the build made: its plain archive, which is written only when
/// somebody needs the bytes.
///
/// # Errors
/// If the layer is not in the store.
pub fn plain(store: &Store, layer: DiffId) -> Result<Descriptor, Error> {
    let stored = stored(store, layer)?;
    Ok(Descriptor::new(media_type::LAYER, Digest::from(layer), stored.meta.tar_size))
}

/// Sees to it that a layer the build made is in the store as a blob of this form, and gives its descriptor. Done once:
/// the store remembers the forms a layer has.
///
/// # Errors
/// See [`Error`].
pub fn compressed(
    layers: &Layers<'_>,
    reporter: &Reporter,
    layer: DiffId,
    compression: Compression,
) -> Result<Descriptor, Error> {
    let store = layers.store;
    let format = form_name(compression);
    let stored = stored(store, layer)?;
    let known = stored.meta.form(&format);
    if let Some(Form { descriptor, .. }) = known
        && store.has_blob(&descriptor.digest, descriptor.size)?
    {
        return Ok(descriptor.clone());
    }
    let task = reporter.start(&format!("export layer {} as {format}", &layer.to_string()[..19]));
    let written = write(layers, &stored, layer, compression);
    task.finish(written.as_ref().err().map(ToString::to_string));
    let descriptor = written?;
    store.add_form(&layer, Form { format, descriptor: descriptor.clone() })?;
    Ok(descriptor)
}

/// What the store remembers a form by: everything that decides its bytes.
fn form_name(compression: Compression) -> String {
    let version = compression.format();
    match compression {
        Compression::None => "tar".to_owned(),
        Compression::Gzip { level } => format!("gzip-{version}-{level}"),
        Compression::Zstd { level } => format!("zstd-{version}-{level}"),
    }
}

fn stored(store: &Store, layer: DiffId) -> Result<StoredLayer, Error> {
    Ok(store.layer(&layer)?.ok_or(layers::Error::Lost { layer })?)
}

fn write(
    layers: &Layers<'_>,
    stored: &StoredLayer,
    layer: DiffId,
    compression: Compression,
) -> Result<Descriptor, Error> {
    let blob = layers.store.blob_writer()?;
    let mut encoder = Encoder::new(compression, blob).map_err(|source| Error::Compress { layer, source })?;
    let times = Times { clamp: stored.meta.clamp };
    match archive::write(&stored.tree, layers.xattr, times, &mut encoder) {
        Ok(measured) if measured.diff_id == layer => {}
        Err(source) if !source.is_damage() => return Err(Error::Archive { layer, source }),
        // Its files are not what they were when it was made: it is made again.
        Ok(_) | Err(_) => {
            layers.store.discard_layer(&layer)?;
            return Err(layers::Error::Lost { layer }.into());
        }
    }
    let mut blob = encoder.finish().map_err(|source| Error::Compress { layer, source })?;
    blob.flush().map_err(|source| Error::Compress { layer, source })?;
    let (digest, size) = blob.commit(None)?;
    let media_type = format!("{}{}", media_type::LAYER, compression.media_type_suffix());
    Ok(Descriptor::new(&media_type, digest, size))
}
