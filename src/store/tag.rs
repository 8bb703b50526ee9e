//! Tags: names of images, kept in the OCI layout's `index.json`.
//!
//! Takes and gives references with descriptors. A tag is an entry whose annotation `org.opencontainers.image.ref.name`
//! is the full reference (OCI image-spec, image-layout.md). Every change rewrites the file under a lock, whole and
//! synced. Entries that are not understood stay as they are. Never looks at what a descriptor names.

use std::io;

use serde_json::{Map, Value, json};

use super::error::Error;
use super::place::{Durability, sync_directory};
use super::{Lock, Store};
use crate::image::manifest::{Descriptor, media_type};
use crate::recipe::reference::Reference;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The lock under which `index.json` is rewritten.
const INDEX_LOCK: &str = "index";

impl Store {
    /// Gives an image a name; the name's earlier image loses it. The image's blobs are in the store already.
    ///
    /// # Errors
    /// [`Error::Document`] if `index.json` is damaged; otherwise what the operating system refused.
    pub fn tag(&self, reference: &Reference, image: &Descriptor) -> Result<(), Error> {
        let name = reference.to_string();
        let entry = self.entry(&name, image)?;
        let lock = self.own_lock(INDEX_LOCK)?;
        let mut index = self.index()?;
        let mut others = index.entries.iter().filter(|other| name_of(other) == Some(&name));
        if others.next() == Some(&entry) && others.next().is_none() {
            return Ok(());
        }
        index.entries.retain(|other| name_of(other) != Some(&name));
        index.entries.push(entry);
        // The blobs' bytes are on the disk, their names may not be.
        sync_directory(&self.layout.blobs())?;
        self.write_index(index, &lock)
    }

    /// Takes a name away; whether there was one. The image's blobs stay: see [`Store::remove_image`].
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn untag(&self, reference: &Reference) -> Result<bool, Error> {
        Ok(!self.remove_tag(reference)?.is_empty())
    }

    /// The image of a name.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn tagged(&self, reference: &Reference) -> Result<Option<Descriptor>, Error> {
        let name = reference.to_string();
        Ok(self.index()?.entries.iter().find(|entry| name_of(entry) == Some(&name)).and_then(descriptor))
    }

    /// All names and their images, sorted by name. Entries of other tools that no reference names are left out.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn tags(&self) -> Result<Vec<(Reference, Descriptor)>, Error> {
        let named = |entry: &Value| Some((name_of(entry)?.parse().ok()?, descriptor(entry)?));
        let mut tags: Vec<_> = self.index()?.entries.iter().filter_map(named).collect();
        tags.sort_unstable_by(|(a, _): &(Reference, _), (b, _)| a.cmp(b));
        Ok(tags)
    }

    /// Takes a name away, and gives the images it had.
    pub(super) fn remove_tag(&self, reference: &Reference) -> Result<Vec<Descriptor>, Error> {
        let name = reference.to_string();
        let lock = self.own_lock(INDEX_LOCK)?;
        let mut index = self.index()?;
        let removed: Vec<_> = index.entries.extract_if(.., |entry| name_of(entry) == Some(&name)).collect();
        if !removed.is_empty() {
            self.write_index(index, &lock)?;
        }
        Ok(removed.iter().filter_map(descriptor).collect())
    }

    /// Everything that `index.json` lists, named or not; `None` if an entry is not understood.
    pub(super) fn listed(&self) -> Result<Option<Vec<Descriptor>>, Error> {
        Ok(self.index()?.entries.iter().map(descriptor).collect())
    }

    /// Makes `index.json` if it is not there.
    pub(super) fn create_index(&self) -> Result<(), Error> {
        let lock = self.own_lock(INDEX_LOCK)?;
        if self.layout.index().exists() { Ok(()) } else { self.write_index(Index::empty(), &lock) }
    }

    fn entry(&self, name: &str, image: &Descriptor) -> Result<Value, Error> {
        let mut image = image.clone();
        image.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        serde_json::to_value(image).map_err(|source| Error::Document { path: self.layout.index(), source })
    }

    fn index(&self) -> Result<Index, Error> {
        let path = self.layout.index();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Index::empty()),
            Err(error) => return Err(Error::at("read", &path, error)),
        };
        Index::parse(&text).map_err(|source| Error::Document { path, source })
    }

    fn write_index(&self, index: Index, _held: &Lock) -> Result<(), Error> {
        let path = self.layout.index();
        let text = index.into_text().map_err(|source| Error::Document { path: path.clone(), source })?;
        self.place(&path, &text, 0o644, Durability::Synced)
    }
}

/// `index.json`, with its entries as they stand in it.
#[derive(Debug)]
struct Index {
    entries: Vec<Value>,
    other: Map<String, Value>,
}

impl Index {
    fn empty() -> Self {
        let mut other = Map::new();
        other.insert("schemaVersion".to_owned(), json!(2));
        other.insert("mediaType".to_owned(), json!(media_type::INDEX));
        Self { entries: Vec::new(), other }
    }

    fn parse(text: &[u8]) -> Result<Self, serde_json::Error> {
        let mut other: Map<String, Value> = serde_json::from_slice(text)?;
        let entries = other.remove("manifests").unwrap_or_default();
        // Go writes an empty list as `null`.
        let entries = serde_json::from_value::<Option<Vec<Value>>>(entries)?.unwrap_or_default();
        Ok(Self { entries, other })
    }

    fn into_text(mut self) -> Result<Vec<u8>, serde_json::Error> {
        self.other.insert("manifests".to_owned(), Value::Array(self.entries));
        serde_json::to_vec(&self.other)
    }
}

fn name_of(entry: &Value) -> Option<&str> {
    entry.get("annotations")?.get(REF_NAME)?.as_str()
}

/// The image of an entry, without the name that the entry gives it.
fn descriptor(entry: &Value) -> Option<Descriptor> {
    let mut descriptor: Descriptor = serde_json::from_value(entry.clone()).ok()?;
    descriptor.annotations.remove(REF_NAME);
    Some(descriptor)
}
