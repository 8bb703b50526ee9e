//! Base images out of an OCI layout on disk (image-spec, image-layout.md).
//!
//! Takes a layout's directory and a name, gives documents now and the bytes of a layer when asked, each checked against
//! the digest that names it. Never writes into the layout, and never trusts it: what it holds is bounded as if it came
//! from a registry.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::base::Error as BaseError;
use crate::digest::{Digest, Sha256};
use crate::graph::ImageRequest;
use crate::image::manifest::{Descriptor, Index, media_type};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;

use super::BaseImage;

/// The annotation that gives a manifest of a layout its tag.
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The annotation with the whole name, as containerd writes it.
const IMAGE_NAME: &str = "io.containerd.image.name";

/// The annotation by which BuildKit marks what describes an image and is none.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// The largest document that is read.
const DOCUMENT_LIMIT: u64 = 8 * 1024 * 1024;

/// How many indexes may stand between a name and its manifest.
const MAX_INDEX_DEPTH: u32 = 4;

/// How many bytes of a layer are read at once.
const PIECE: usize = 128 * 1024;

/// Why a layout does not give an image or a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the layout cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A document is no document of its kind.
    #[error("{} is not valid: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A blob does not have the digest it is named by.
    #[error("{} is damaged: it has the digest {actual}", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// What its bytes are.
        actual: Digest,
    },
    /// Nothing in the layout has the name.
    #[error("the OCI layout {} has no image {wanted:?}; it has: {available}", path.display())]
    NotFound {
        /// The layout.
        path: PathBuf,
        /// The tag or digest.
        wanted: String,
        /// The tags and digests there are.
        available: String,
    },
    /// The image is for other platforms.
    #[error("the image {wanted:?} in the OCI layout {} has nothing for {platform}", path.display())]
    NoPlatform {
        /// The layout.
        path: PathBuf,
        /// The tag or digest.
        wanted: String,
        /// The platform asked for.
        platform: Box<Platform>,
    },
    /// The bytes could not be handed on.
    #[error("blob {digest} cannot be stored: {source}")]
    Sink {
        /// The blob.
        digest: Digest,
        /// Why.
        source: io::Error,
    },
}

/// The image that a request means in the layout at `path`.
pub(super) fn resolve(path: &Path, request: &ImageRequest) -> Result<BaseImage, BaseError> {
    let ImageRequest { reference, platform, .. } = request;
    let layout = Layout { path, reference, platform };
    let top = layout.named()?;
    let manifest = layout.manifest(&top, 0)?.ok_or_else(|| Error::NoPlatform {
        path: path.to_owned(),
        wanted: layout.wanted(),
        platform: Box::new(platform.clone()),
    })?;
    let manifest_bytes = layout.document(&manifest)?;
    let config: Descriptor =
        super::parse::<crate::image::manifest::Manifest>(reference, "the manifest", &manifest_bytes)?.config;
    let config_bytes = layout.document(&config)?;
    super::read(reference, top.digest, &manifest_bytes, &config_bytes)
}

/// Writes a blob of the layout at `path` to `sink`, and checks it on the way.
pub(super) fn copy_blob(
    path: &Path,
    blob: &Descriptor,
    sink: &mut dyn Write,
    progress: &dyn Fn(u64),
) -> Result<(), Error> {
    let file_path = blob_path(path, &blob.digest);
    let read_error = |source| Error::Read { path: file_path.clone(), source };
    // One byte more than there may be, so that too many are seen.
    let mut file = File::open(&file_path).map_err(read_error)?.take(blob.size.saturating_add(1));
    let (mut hash, mut done, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let length = match file.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(error)),
        };
        hash.update(&piece[..length]);
        sink.write_all(&piece[..length]).map_err(|source| Error::Sink { digest: blob.digest, source })?;
        done += length as u64;
        progress(done);
    }
    let actual = hash.finish();
    if actual == blob.digest { Ok(()) } else { Err(Error::WrongDigest { path: file_path, actual }) }
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

struct Layout<'a> {
    path: &'a Path,
    reference: &'a Reference,
    platform: &'a Platform,
}

impl Layout<'_> {
    fn wanted(&self) -> String {
        let Reference { tag, digest, .. } = self.reference;
        digest.map(|digest| digest.to_string()).or_else(|| tag.clone()).unwrap_or_default()
    }

    /// The entry of `index.json` that the reference names. Without a tag, the only entry there is will do.
    fn named(&self) -> Result<Descriptor, Error> {
        let path = self.path.join("index.json");
        let index: Index = parse(&path, &read_bounded(&path)?)?;
        let entries = index.manifests;
        let has_tag = |entry: &&Descriptor, tag: &str| {
            let named = |name: &str| entry.annotations.get(name).map(String::as_str);
            named(REF_NAME).is_some_and(|name| name == tag || name.ends_with(&format!(":{tag}")))
                || named(IMAGE_NAME).is_some_and(|name| name.ends_with(&format!(":{tag}")))
        };
        let found = match (&self.reference.digest, &self.reference.tag) {
            (Some(digest), _) => match entries.iter().find(|entry| entry.digest == *digest) {
                Some(entry) => Some(entry.clone()),
                None => self.unlisted(digest)?,
            },
            (None, Some(tag)) => entries.iter().find(|entry| has_tag(entry, tag)).cloned(),
            (None, None) => {
                let only = if let [only] = entries.as_slice() { Some(only) } else { None };
                entries.iter().find(|entry| has_tag(entry, "latest")).or(only).cloned()
            }
        };
        found.ok_or_else(|| Error::NotFound {
            path: self.path.to_owned(),
            wanted: if self.wanted().is_empty() { "latest".to_owned() } else { self.wanted() },
            available: available(&entries),
        })
    }

    /// A document that no entry lists but that is there: its digest is all that is needed.
    fn unlisted(&self, digest: &Digest) -> Result<Option<Descriptor>, Error> {
        let path = blob_path(self.path, digest);
        let Ok(size) = path.metadata().map(|metadata| metadata.len()) else { return Ok(None) };
        let value: serde_json::Value = parse(&path, &read_bounded(&path)?)?;
        let kind = if value.get("manifests").is_some() { media_type::INDEX } else { media_type::MANIFEST };
        Ok(Some(Descriptor::new(kind, *digest, size)))
    }

    /// The manifest for the platform at or below a descriptor.
    fn manifest(&self, descriptor: &Descriptor, depth: u32) -> Result<Option<Descriptor>, Error> {
        if !matches!(descriptor.media_type.as_str(), media_type::INDEX | media_type::DOCKER_INDEX) {
            return Ok(Some(descriptor.clone()));
        }
        let path = blob_path(self.path, &descriptor.digest);
        if depth == MAX_INDEX_DEPTH {
            return Err(Error::Malformed { path, reason: format!("it nests more than {MAX_INDEX_DEPTH} indexes") });
        }
        let index: Index = parse(&path, &self.document(descriptor)?)?;
        let ranked = |entry: &Descriptor| match &entry.platform {
            Some(platform) => platform.clone().normalized().rank(self.platform),
            None => Some(usize::MAX),
        };
        let mut entries: Vec<(usize, &Descriptor)> = index
            .manifests
            .iter()
            .filter(|entry| !entry.annotations.contains_key(ATTESTATION))
            .filter_map(|entry| Some((ranked(entry)?, entry)))
            .collect();
        entries.sort_by_key(|(rank, _)| *rank);
        for (_, entry) in entries {
            if let Some(found) = self.manifest(entry, depth + 1)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn document(&self, descriptor: &Descriptor) -> Result<Vec<u8>, Error> {
        let path = blob_path(self.path, &descriptor.digest);
        let bytes = read_bounded(&path)?;
        let actual = Digest::of(&bytes);
        if actual == descriptor.digest { Ok(bytes) } else { Err(Error::WrongDigest { path, actual }) }
    }
}

fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let fail = |source| Error::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(fail)?.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(Error::Malformed {
            path: path.to_owned(),
            reason: format!("it has more than {DOCUMENT_LIMIT} bytes"),
        });
    }
    Ok(bytes)
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Malformed { path: path.to_owned(), reason: error.to_string() })
}

fn available(entries: &[Descriptor]) -> String {
    const SHOWN: usize = 8;
    let mut names: Vec<String> = entries
        .iter()
        .take(SHOWN)
        .map(|entry| entry.annotations.get(REF_NAME).cloned().unwrap_or_else(|| entry.digest.to_string()))
        .collect();
    if entries.len() > SHOWN {
        names.push("…".to_owned());
    }
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}
