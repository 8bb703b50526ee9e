//! From a reference to the one image that serves a platform: manifest and configuration, each under its digest.
//!
//! Takes a reference and a platform, gives a [`Resolved`]. Indexes are walked (image-spec, image-index.md), attestations
//! passed over, and the best image for the platform taken in containerd's order. What the caller already has
//! ([`Documents`]) is not asked for again: a reference pinned by digest then costs no question at all, a tag that has not
//! moved a single one without a body. Never fetches a layer.

use serde::Deserialize;
use serde::de::IgnoredAny;
use ureq::http::{Method, header};

use super::address::Source;
use super::error::{Error, Item, Target};
use super::{Client, Question};
use crate::digest::Digest;
use crate::image::config::ImageConfig;
use crate::image::manifest::{Descriptor, Index, Manifest, media_type};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;

/// The types a manifest may have.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json, \
    application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json";

/// The largest manifest or index (distribution-spec, "Pushing Manifests").
const MANIFEST_LIMIT: u64 = 4 * 1024 * 1024;

/// The largest configuration.
const CONFIG_LIMIT: u64 = 8 * 1024 * 1024;

/// How many indexes may stand between a reference and its manifest.
const MAX_INDEX_DEPTH: u32 = 4;

/// How many entries of one index are looked into.
const MAX_CANDIDATES: usize = 16;

/// The annotation by which BuildKit marks what describes an image and is none.
const ATTESTATION: &str = "vnd.docker.reference.type";

/// Manifests, indexes and configurations that are already at hand, by digest.
pub trait Documents {
    /// The document of this digest, if it is here. What is given is checked again, so it may be damaged.
    fn load(&self, digest: &Digest) -> Option<Vec<u8>>;

    /// Takes a document that was fetched and is right.
    fn keep(&self, descriptor: &Descriptor, bytes: &[u8]);

    /// The digest a tag had when it was last looked up; if given, the registry is first asked whether it still has it.
    fn last_known(&self, reference: &Reference) -> Option<Digest>;
}

/// Nothing is at hand, and nothing is kept.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDocuments;

impl Documents for NoDocuments {
    fn load(&self, _digest: &Digest) -> Option<Vec<u8>> {
        None
    }

    fn keep(&self, _descriptor: &Descriptor, _bytes: &[u8]) {}

    fn last_known(&self, _reference: &Reference) -> Option<Digest> {
        None
    }
}

/// The image that a reference stands for on a platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The index that the reference names; `None` where it names the manifest itself.
    pub index: Option<Descriptor>,
    /// The manifest.
    pub manifest: Descriptor,
    /// The manifest's bytes, as its digest has them.
    pub manifest_bytes: Vec<u8>,
    /// What they say.
    pub document: Manifest,
    /// The configuration's bytes, as its digest has them.
    pub config_bytes: Vec<u8>,
    /// What they say.
    pub config: ImageConfig,
    /// What the image really runs on. An image that stands alone, outside an index, may be for another platform than asked.
    pub platform: Platform,
}

impl Resolved {
    /// The digest that pins the reference, for every platform it has.
    pub fn pin(&self) -> Digest {
        self.index.as_ref().unwrap_or(&self.manifest).digest
    }
}

impl Client {
    /// The image that `reference` stands for on `platform`. A digest in the reference counts, whatever its tag.
    ///
    /// # Errors
    /// No source has it, it has nothing for the platform, or it is not a valid image.
    pub fn resolve(
        &self,
        reference: &Reference,
        platform: &Platform,
        documents: &dyn Documents,
    ) -> Result<Resolved, Error> {
        let search = Search { client: self, reference, platform, documents };
        let top = search.top()?;
        let target = Box::new(Target::new(reference, top.item.clone()));
        let index = matches!(top.content, Content::Index(_)).then(|| top.descriptor.clone());
        let mut available = Vec::new();
        match search.descend(top, 0, &mut available)? {
            Some(resolved) => Ok(Resolved { index, ..resolved }),
            None => Err(Error::NoPlatform { target, wanted: Box::new(platform.clone()), available }),
        }
    }

    /// The digest that a reference has now, for the price of a question without a body.
    ///
    /// # Errors
    /// No source has it.
    pub fn digest(&self, reference: &Reference) -> Result<Digest, Error> {
        let item = item(reference);
        if let Item::Manifest(digest) = item {
            return Ok(digest);
        }
        let question = question(Method::HEAD, reference, &item);
        self.ask_sources(reference, |source| {
            self.patiently(source, |_| {
                let announced = match self.ask(source, &question) {
                    Ok(reply) => announced_digest(reply.header("docker-content-digest")),
                    // Not every registry answers such a question.
                    Err(Error::Status { .. }) => None,
                    Err(error) => return Err(error),
                };
                match announced {
                    Some(digest) => Ok(digest),
                    None => {
                        self.fetch(source, reference, &item, MANIFEST_LIMIT).map(|fetched| Digest::of(&fetched.bytes))
                    }
                }
            })
        })
    }

    /// Fetches a document from one source, and checks it against its digest.
    fn fetch(&self, source: &Source, reference: &Reference, item: &Item, limit: u64) -> Result<Fetched, Error> {
        let reply = self.ask(source, &question(Method::GET, reference, item))?;
        let host = reply.host();
        let expected = match item {
            Item::Manifest(digest) | Item::Blob(digest) => Some(*digest),
            Item::Tag(_) | Item::Address(_) => announced_digest(reply.header("docker-content-digest")),
        };
        let media_type =
            reply.header(header::CONTENT_TYPE).map(|text| text.split(';').next().unwrap_or(text).trim().to_owned());
        let bytes = reply.into_document(limit)?;
        let actual = Digest::of(&bytes);
        match expected {
            Some(expected) if expected != actual => Err(Error::WrongDigest {
                host,
                target: Box::new(Target::new(reference, item.clone())),
                expected,
                actual,
            }),
            _ => Ok(Fetched { host, media_type, bytes, is_new: true }),
        }
    }
}

fn item(reference: &Reference) -> Item {
    match (&reference.digest, &reference.tag) {
        (Some(digest), _) => Item::Manifest(*digest),
        (None, Some(tag)) => Item::Tag(tag.clone()),
        (None, None) => Item::Tag("latest".to_owned()),
    }
}

fn question(method: Method, reference: &Reference, item: &Item) -> Question {
    let (path, accept) = match item {
        Item::Tag(tag) => (format!("manifests/{tag}"), MANIFEST_TYPES),
        Item::Manifest(digest) => (format!("manifests/{digest}"), MANIFEST_TYPES),
        Item::Blob(digest) => (format!("blobs/{digest}"), "*/*"),
        Item::Address(address) => (address.clone(), "*/*"),
    };
    Question { method, path, accept, from: 0, target: Target::new(reference, item.clone()) }
}

/// The digest in a `Docker-Content-Digest` header; another algorithm's says nothing to us.
fn announced_digest(header: Option<&str>) -> Option<Digest> {
    header?.trim().parse().ok()
}

/// The bytes of a document, from whom.
struct Fetched {
    host: String,
    media_type: Option<String>,
    bytes: Vec<u8>,
    /// Whether it was not at hand.
    is_new: bool,
}

/// A manifest or index, read.
struct Document {
    item: Item,
    descriptor: Descriptor,
    bytes: Vec<u8>,
    content: Content,
}

enum Content {
    Manifest(Box<Manifest>),
    Index(Index),
}

/// One search for an image.
struct Search<'a> {
    client: &'a Client,
    reference: &'a Reference,
    platform: &'a Platform,
    documents: &'a dyn Documents,
}

impl Search<'_> {
    fn top(&self) -> Result<Document, Error> {
        let mut item = item(self.reference);
        if let Item::Tag(_) = item
            && let Some(last) = self.documents.last_known(self.reference)
            && self.client.digest(self.reference)? == last
        {
            item = Item::Manifest(last);
        }
        self.manifest(item, None)
    }

    /// The image for the platform at or below a document, if there is one; else what there is.
    fn descend(&self, document: Document, depth: u32, available: &mut Vec<String>) -> Result<Option<Resolved>, Error> {
        let index = match document.content {
            Content::Manifest(manifest) => {
                return self.image(document.descriptor, document.bytes, *manifest).map(Some);
            }
            Content::Index(index) => index,
        };
        if depth == MAX_INDEX_DEPTH {
            return Err(Error::TooDeep { target: self.target(document.item), limit: MAX_INDEX_DEPTH });
        }
        for entry in self.candidates(index.manifests, available) {
            let child = self.manifest(Item::Manifest(entry.digest), Some(&entry))?;
            let Some(resolved) = self.descend(child, depth + 1, available)? else { continue };
            // An entry that does not say what it is for is judged by its configuration.
            if entry.platform.is_some() || resolved.platform.serves(self.platform) {
                return Ok(Some(resolved));
            }
            note(available, &resolved.platform);
        }
        Ok(None)
    }

    /// The entries of an index that may lead to an image for the platform, best first.
    fn candidates(&self, entries: Vec<Descriptor>, available: &mut Vec<String>) -> Vec<Descriptor> {
        let mut candidates = Vec::new();
        for entry in entries {
            if is_attestation(&entry) {
                continue;
            }
            match &entry.platform {
                // What containerd does: the same architecture before a lesser one that also runs, the newest variant first.
                Some(platform) if platform.serves(self.platform) => {
                    let same = platform.architecture == self.platform.architecture;
                    let exact = platform == self.platform;
                    candidates.push(((false, !exact, !same, std::cmp::Reverse(variant(platform))), entry));
                }
                Some(platform) => note(available, platform),
                None => candidates.push(((true, true, true, std::cmp::Reverse(0)), entry)),
            }
        }
        candidates.sort_by_key(|(rank, _)| *rank);
        candidates.truncate(MAX_CANDIDATES);
        candidates.into_iter().map(|(_, entry)| entry).collect()
    }

    fn image(&self, descriptor: Descriptor, bytes: Vec<u8>, document: Manifest) -> Result<Resolved, Error> {
        let listed = &document.config;
        if listed.media_type != media_type::CONFIG && listed.media_type != media_type::DOCKER_CONFIG {
            let target = self.target(Item::Manifest(descriptor.digest));
            return Err(Error::UnexpectedType { target, media_type: listed.media_type.clone() });
        }
        let item = Item::Blob(listed.digest);
        let (fetched, config) = self.obtain(&item, Some(listed), CONFIG_LIMIT, |fetched| {
            let malformed = |reason: String| self.malformed(&fetched.host, &item, &reason);
            let config: ImageConfig =
                serde_json::from_slice(&fetched.bytes).map_err(|error| malformed(error.to_string()))?;
            let (layers, diff_ids) = (document.layers.len(), config.rootfs.diff_ids.len());
            if layers == diff_ids {
                Ok(config)
            } else {
                Err(malformed(format!("it names {diff_ids} layers, but the manifest {layers}")))
            }
        })?;
        if fetched.is_new {
            self.documents.keep(listed, &fetched.bytes);
        }
        let platform = Platform {
            os: config.os.clone(),
            architecture: config.architecture.clone(),
            variant: config.variant.clone(),
            os_version: config.other.get("os.version").and_then(|value| value.as_str()).map(str::to_owned),
        };
        let (manifest_bytes, config_bytes) = (bytes, fetched.bytes);
        Ok(Resolved { index: None, manifest: descriptor, manifest_bytes, document, config_bytes, config, platform })
    }

    /// A manifest or index, which `listed` describes where an index lists it.
    fn manifest(&self, item: Item, listed: Option<&Descriptor>) -> Result<Document, Error> {
        let (fetched, (media_type, content)) = self.obtain(&item, listed, MANIFEST_LIMIT, |fetched| {
            let announced = listed.map(|listed| listed.media_type.as_str()).or(fetched.media_type.as_deref());
            read(&fetched.bytes, announced).map_err(|unread| match unread {
                Unread::Foreign(media_type) => Error::UnexpectedType { target: self.target(item.clone()), media_type },
                Unread::Invalid(reason) => self.malformed(&fetched.host, &item, &reason),
            })
        })?;
        let descriptor = match listed {
            Some(listed) => listed.clone(),
            None => Descriptor::new(&media_type, Digest::of(&fetched.bytes), fetched.bytes.len() as u64),
        };
        if fetched.is_new {
            self.documents.keep(&descriptor, &fetched.bytes);
        }
        Ok(Document { item, descriptor, bytes: fetched.bytes, content })
    }

    /// A document and what `read` makes of it: the one at hand, else that of the first source whose document can be read.
    fn obtain<T>(
        &self,
        item: &Item,
        listed: Option<&Descriptor>,
        limit: u64,
        read: impl Fn(&Fetched) -> Result<T, Error>,
    ) -> Result<(Fetched, T), Error> {
        if let Item::Manifest(digest) | Item::Blob(digest) = item
            && let Some(bytes) = self.documents.load(digest)
            && Digest::of(&bytes) == *digest
        {
            let at_hand = Fetched { host: "the local store".to_owned(), media_type: None, bytes, is_new: false };
            return read(&at_hand).map(|read| (at_hand, read));
        }
        let client = self.client;
        client.ask_sources(self.reference, |source| {
            let fetched = client.patiently(source, |_| client.fetch(source, self.reference, item, limit))?;
            let actual = fetched.bytes.len() as u64;
            if let Some(expected) = listed.map(|listed| listed.size).filter(|expected| *expected != actual) {
                let (host, target) = (fetched.host, self.target(item.clone()));
                return Err(Error::WrongSize { host, target, expected, actual: Some(actual) });
            }
            read(&fetched).map(|read| (fetched, read))
        })
    }

    fn target(&self, item: Item) -> Box<Target> {
        Box::new(Target::new(self.reference, item))
    }

    fn malformed(&self, host: &str, item: &Item, reason: &str) -> Error {
        // The parser quotes the document, which may say anything at any length.
        let reason = reason.chars().filter(|c| !c.is_control()).take(300).collect();
        Error::Malformed { host: host.to_owned(), target: self.target(item.clone()), reason }
    }
}

/// Why a document is neither a manifest nor an index.
enum Unread {
    /// It is something else, of this type.
    Foreign(String),
    /// It is nothing at all.
    Invalid(String),
}

/// As much of a document as tells what it is.
#[derive(Deserialize)]
#[serde(expecting = "a manifest or an index")]
struct Shape {
    #[serde(rename = "schemaVersion")]
    schema_version: Option<u32>,
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
    manifests: Option<IgnoredAny>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
}

/// Reads a document that is announced as `announced`; gives the type it really has.
fn read(bytes: &[u8], announced: Option<&str>) -> Result<(String, Content), Unread> {
    let foreign = announced.filter(|announced| !is_index(announced) && !is_manifest(announced));
    let invalid = |error: serde_json::Error| match foreign {
        Some(foreign) => Unread::Foreign(foreign.to_owned()),
        None => Unread::Invalid(error.to_string()),
    };
    let shape: Shape = serde_json::from_slice(bytes).map_err(invalid)?;
    if shape.schema_version == Some(1) {
        let schema_1 = "application/vnd.docker.distribution.manifest.v1+json";
        return Err(Unread::Foreign(shape.media_type.unwrap_or_else(|| schema_1.to_owned())));
    }
    let has_images = shape.manifests.is_some();
    if has_images == (shape.layers.is_some() || shape.config.is_some()) {
        return Err(match foreign {
            Some(foreign) => Unread::Foreign(foreign.to_owned()),
            None => Unread::Invalid("it must be either an index or a manifest".to_owned()),
        });
    }
    let is_right: fn(&str) -> bool = if has_images { is_index } else { is_manifest };
    // What is a manifest to one reader and an index to another is an attack (CVE-2021-41190).
    if let Some(other) = announced.filter(|announced| foreign.is_none() && !is_right(announced)) {
        return Err(Unread::Invalid(format!("it is announced as {other}, but is none")));
    }
    let usual = if has_images { media_type::INDEX } else { media_type::MANIFEST };
    let media_type = shape
        .media_type
        .or(announced.filter(|_| foreign.is_none()).map(str::to_owned))
        .unwrap_or_else(|| usual.to_owned());
    if !is_right(&media_type) {
        return Err(Unread::Foreign(media_type));
    }
    let content = if has_images {
        serde_json::from_slice(bytes).map(Content::Index)
    } else {
        serde_json::from_slice(bytes).map(Box::new).map(Content::Manifest)
    };
    content.map(|content| (media_type, content)).map_err(invalid)
}

fn is_index(media_type: &str) -> bool {
    media_type == media_type::INDEX || media_type == media_type::DOCKER_INDEX
}

fn is_manifest(media_type: &str) -> bool {
    media_type == media_type::MANIFEST || media_type == media_type::DOCKER_MANIFEST
}

/// Whether an entry of an index describes an image instead of being one.
fn is_attestation(entry: &Descriptor) -> bool {
    let is_unknown = |platform: &Platform| platform.os == "unknown" && platform.architecture == "unknown";
    entry.annotations.contains_key(ATTESTATION) || entry.platform.as_ref().is_some_and(is_unknown)
}

/// The number of a variant, such as 7 of `v7`.
fn variant(platform: &Platform) -> u32 {
    platform.variant.as_deref().and_then(|variant| variant.trim_start_matches('v').parse().ok()).unwrap_or(0)
}

fn note(available: &mut Vec<String>, platform: &Platform) {
    let name = platform.to_string();
    if !available.contains(&name) {
        available.push(name);
    }
}
