//! Tags: names of images, kept in the OCI layout's `index.json`.
//!
//! Takes and gives references with descriptors. A tag is an entry whose annotation `org.opencontainers.image.ref.name`
//! is the full reference (OCI image-spec, image-layout.md). Every change rewrites the file under a lock, whole and
//! synced. Entries that are not understood stay as they are. Never looks at what a descriptor names.
//!
//! Names cannot be made again as layers can. So each `index.json` is first written, with a check sum, to `index-copy`
//! beside the layout, and where `index.json` is gone or cannot be read, it is made of that.

use std::io;

use serde_json::{Map, Value, json};

use super::damage::Damage;
use super::error::Error;
use super::place::{Durability, sync_directory};
use super::{Lock, Store};
use crate::digest::Digest;
use crate::image::manifest::{Descriptor, media_type};
use crate::recipe::reference::Reference;

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// The lock under which `index.json` is rewritten.
const INDEX_LOCK: &str = "index";

/// What the copy begins with; the number is its format's.
const COPY_MAGIC: &str = "strata-index 1";

/// What stands where `index.json` should.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexState {
    /// It can be read.
    Whole,
    /// It is gone or cannot be read, and its copy is whole.
    Restorable,
    /// It cannot be read, and neither can its copy: what it listed is lost.
    Lost,
}

impl Store {
    /// Gives an image a name; the name's earlier image loses it. The image's blobs are in the store already.
    ///
    /// # Errors
    /// [`Error::Document`] if `index.json` is damaged; otherwise what the operating system refused.
    pub fn tag(&self, reference: &Reference, image: &Descriptor) -> Result<(), Error> {
        let name = reference.to_string();
        let entry = self.entry(&name, image)?;
        let lock = self.own_lock(INDEX_LOCK)?;
        let mut index = self.held_index(&lock)?;
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
        let mut index = self.held_index(&lock)?;
        let removed: Vec<_> = index.entries.extract_if(.., |entry| name_of(entry) == Some(&name)).collect();
        if !removed.is_empty() {
            self.write_index(index, &lock)?;
        }
        Ok(removed.iter().filter_map(descriptor).collect())
    }

    /// Every image that `index.json` lists, with its name where it has one. Entries that are not understood are left out.
    ///
    /// # Errors
    /// As for [`Store::tag`].
    pub fn listing(&self) -> Result<Vec<(Option<String>, Descriptor)>, Error> {
        let index = match self.read_index()? {
            Some(index) => index,
            None => Index::empty(),
        };
        let listed = |entry: &Value| Some((name_of(entry).map(str::to_owned), descriptor(entry)?));
        Ok(index.entries.iter().filter_map(listed).collect())
    }

    /// Everything that `index.json` lists, named or not; `None` if an entry is not understood.
    pub(super) fn listed(&self) -> Result<Option<Vec<Descriptor>>, Error> {
        Ok(self.index()?.entries.iter().map(descriptor).collect())
    }

    /// Makes `index.json` if it is not there.
    pub(super) fn create_index(&self) -> Result<(), Error> {
        let lock = self.own_lock(INDEX_LOCK)?;
        if self.layout.index().exists() {
            return Ok(());
        }
        match self.copied_index() {
            Some(_) => self.held_index(&lock).map(drop),
            None => self.write_index(Index::empty(), &lock),
        }
    }

    /// What stands where `index.json` should. Changes nothing.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn look_at_index(&self) -> Result<IndexState, Error> {
        let copied = || self.copied_index().map_or(IndexState::Lost, |_| IndexState::Restorable);
        match self.read_index() {
            Ok(Some(_)) => Ok(IndexState::Whole),
            Ok(None) | Err(Error::Document { .. }) => Ok(copied()),
            Err(error) => Err(error),
        }
    }

    /// Whether the copy of `index.json`, if there is one, has its check sum.
    pub fn index_copy_is_sound(&self) -> bool {
        !self.layout.index_copy().exists() || self.copied_index().is_some()
    }

    /// Mends `index.json`: where it cannot be read it is made of its copy, else anew, with nothing in it; an entry whose
    /// image `is_good` refuses becomes the copy's of the same name, if that is good, and else is dropped. The copy is
    /// written anew. Gives the names that were lost, as they stood, with the images they had.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn mend_index(&self, is_good: &mut dyn FnMut(&Descriptor) -> bool) -> Result<Vec<(String, Digest)>, Error> {
        let lock = self.own_lock(INDEX_LOCK)?;
        let copied = self.copied_index();
        let mut index = match self.read_index() {
            Ok(Some(index)) => index,
            Ok(None) | Err(Error::Document { .. }) => self.copied_index().unwrap_or_else(Index::empty),
            Err(error) => return Err(error),
        };
        let mut lost = Vec::new();
        let mut good = |entry: &Value| descriptor(entry).is_none_or(|image| is_good(&image));
        index.entries.retain_mut(|entry| {
            if good(entry) {
                return true;
            }
            let same_name = |other: &&Value| name_of(entry).is_some() && name_of(other) == name_of(entry);
            let earlier = copied.iter().flat_map(|copy| &copy.entries).find(same_name).cloned();
            if let Some(earlier) = earlier.filter(|earlier| good(earlier)) {
                *entry = earlier;
                return true;
            }
            if let Some(image) = descriptor(entry) {
                lost.push((name_of(entry).unwrap_or("an image without a name").to_owned(), image.digest));
            }
            false
        });
        self.write_index(index, &lock)?;
        Ok(lost)
    }

    fn entry(&self, name: &str, image: &Descriptor) -> Result<Value, Error> {
        let mut image = image.clone();
        image.annotations.insert(REF_NAME.to_owned(), name.to_owned());
        serde_json::to_value(image).map_err(|source| Error::Document { path: self.layout.index(), source })
    }

    fn index(&self) -> Result<Index, Error> {
        match self.read_index() {
            Ok(Some(index)) => Ok(index),
            // Whoever holds the lock may have mended it by now.
            Ok(None) | Err(Error::Document { .. }) => self.held_index(&self.own_lock(INDEX_LOCK)?),
            Err(error) => Err(error),
        }
    }

    /// The index, mended from its copy where it has to be.
    fn held_index(&self, lock: &Lock) -> Result<Index, Error> {
        let damaged = match self.read_index() {
            Ok(Some(index)) => return Ok(index),
            Ok(None) => None,
            Err(error @ Error::Document { .. }) => Some(error),
            Err(error) => return Err(error),
        };
        match (self.copied_index(), damaged) {
            (Some(copy), _) => {
                self.write_index(copy.clone(), lock)?;
                self.notes.add(Damage::Index { path: self.layout.index() });
                Ok(copy)
            }
            (None, Some(error)) => Err(error),
            (None, None) => Ok(Index::empty()),
        }
    }

    /// What `index.json` says; `None` if it is not there.
    fn read_index(&self) -> Result<Option<Index>, Error> {
        let path = self.layout.index();
        match std::fs::read(&path) {
            Ok(text) => Index::parse(&text).map(Some).map_err(|source| Error::Document { path, source }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::at("read", &path, error)),
        }
    }

    /// What the copy says, if it is whole.
    fn copied_index(&self) -> Option<Index> {
        let file = std::fs::read(self.layout.index_copy()).ok()?;
        let start = file.iter().position(|byte| *byte == b'\n')? + 1;
        let (head, text) = file.split_at(start);
        (head == copy_header(text).as_bytes()).then(|| Index::parse(text).ok()).flatten()
    }

    fn write_index(&self, index: Index, _held: &Lock) -> Result<(), Error> {
        let path = self.layout.index();
        let text = index.into_text().map_err(|source| Error::Document { path: path.clone(), source })?;
        let copy = [copy_header(&text).as_bytes(), &text].concat();
        // First, so that it is never the older of the two; a copy that power loss spoils is known by its check sum.
        self.place(&self.layout.index_copy(), &copy, 0o600, Durability::Lazy)?;
        self.place(&path, &text, 0o644, Durability::Synced)
    }
}

fn copy_header(text: &[u8]) -> String {
    format!("{COPY_MAGIC} {} {}\n", text.len(), blake3::hash(text).to_hex())
}

/// `index.json`, with its entries as they stand in it.
#[derive(Debug, Clone)]
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
