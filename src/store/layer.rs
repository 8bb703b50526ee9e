//! Layers unpacked: directories an overlay can stack, named by the DiffID of the archive they came from or will become.
//!
//! Takes a finished tree from a scratch directory, gives it back under its name, with what is known of it. A layer
//! appears complete, by one rename. Never looks into a tree, and never waits for the disk: `recovery` says how a layer
//! that power loss cut short is known.
//!
//! `layers/<diffid>/` holds `tree/` and `layer.json`, which ends with a check sum of itself.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use super::Store;
use super::damage::Damage;
use super::dated;
use super::error::Error;
use super::id::Id;
use super::layout::Layout;
use super::place::Durability;
use super::removal::remove_all;
use super::scratch::rename_directory;
use super::uses::{GRANULARITY, Used};
use crate::digest::{ContentId, DiffId, Key};
use crate::image::manifest::Descriptor;

/// The form of `layer.json` that this release writes, and the newest it reads.
const VERSION: u64 = 1;

const TREE: &str = "tree";

/// A layer in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredLayer {
    /// Its name.
    pub diff_id: DiffId,
    /// The directory with its files and whiteouts, as an overlay wants them. Never to be written.
    pub tree: PathBuf,
    /// What is known of it.
    pub meta: LayerMeta,
}

/// What is known of a layer beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerMeta {
    /// The size of its uncompressed archive in bytes.
    pub tar_size: u64,
    /// How many entries the archive has.
    pub entries: u64,
    /// About how many bytes its files take on the disk, counted when it was published.
    pub disk: u64,
    /// Where it came from.
    pub origin: Origin,
    /// The bound on times (`SOURCE_DATE_EPOCH`) its archive was made with, and must be made with again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clamp: Option<i64>,
    /// The compressed forms known for it; their blobs need not be in the store.
    #[serde(default)]
    pub forms: Vec<Form>,
    /// The directories in it that its archive has no entry for: what they look like depends on the layers below.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "paths")]
    pub implied: Vec<PathBuf>,
}

/// Paths in JSON: as text where they are, else as their bytes.
mod paths {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    use std::path::PathBuf;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    #[serde(untagged)]
    enum Form {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(super) fn serialize<S: Serializer>(paths: &[PathBuf], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(paths.iter().map(|path| match path.to_str() {
            Some(text) => Form::Text(text.to_owned()),
            None => Form::Bytes(path.as_os_str().as_bytes().to_vec()),
        }))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
        let forms = Vec::<Form>::deserialize(deserializer)?;
        Ok(forms
            .into_iter()
            .map(|form| match form {
                Form::Text(text) => text.into(),
                Form::Bytes(bytes) => OsString::from_vec(bytes).into(),
            })
            .collect())
    }
}

/// Where a layer came from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
pub enum Origin {
    /// Unpacked from an image's layer.
    Pulled {
        /// The image, by its full name.
        reference: String,
        /// The content of the tree: the BLAKE3 of the archive that Strata's own writer makes of it. The layer's own archive
        /// was made by another, and cannot be made again to be compared.
        seal: ContentId,
    },
    /// Made by a step.
    Built {
        /// The step's key.
        key: Key,
    },
}

/// One archive that unpacks to a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Form {
    /// What made these very bytes: `gzip-1` and `zstd-1` are Strata's own writers in their first version, `foreign` is
    /// any other.
    pub format: String,
    /// The archive as a manifest names it.
    pub descriptor: Descriptor,
}

/// `layer.json`.
#[derive(Debug, Serialize, Deserialize)]
struct LayerFile {
    version: u64,
    layer: Body,
    /// The BLAKE3 of `layer`, written without white space.
    check: ContentId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Body {
    /// The process that published the layer, as `locks/writer-<id>` names it.
    writer: Id,
    /// The boot of the machine it ran in.
    boot: String,
    meta: LayerMeta,
}

/// What stands under a layer's name, as far as its description tells.
#[derive(Debug)]
pub enum LayerState {
    /// Nothing.
    Missing,
    /// A layer that can be used.
    Whole(StoredLayer),
    /// A layer whose description cannot be read, or whose tree is gone.
    Damaged,
    /// A layer that a loss of power may have cut short.
    Unwritten,
}

/// What stands under a layer's name.
#[derive(Debug)]
enum Found {
    Nothing,
    /// A layer, and when it was last used.
    Layer(Box<Body>, SystemTime),
    /// The description cannot be read, or the tree is gone.
    Damaged,
    /// The machine has stopped since, and nobody knows whether the disk has it all.
    Unwritten,
}

impl LayerMeta {
    /// The archive that a format's writer makes of the layer, if it has been made.
    pub fn form(&self, format: &str) -> Option<&Form> {
        self.forms.iter().find(|form| form.format == format)
    }
}

impl Store {
    /// The layer of a name, if the store has it whole. A damaged one is set aside and noted, and missing. Whoever shares
    /// the store ([`Store::share`]) keeps what was found, and finds it again without looking.
    ///
    /// # Errors
    /// [`Error::NewerSchema`] if a newer release wrote it; otherwise what the operating system refused.
    pub fn layer(&self, diff_id: &DiffId) -> Result<Option<StoredLayer>, Error> {
        if let Some(known) = self.uses.known(diff_id) {
            return Ok(Some(known));
        }
        self.uses.pin(Used::Layer(*diff_id))?;
        match self.find(diff_id)? {
            Found::Layer(body, used) => {
                let directory = self.layout.layer(diff_id);
                self.uses.note(&self.layout.layer_meta(diff_id), used, GRANULARITY);
                let layer = StoredLayer { diff_id: *diff_id, tree: directory.join(TREE), meta: body.meta };
                self.uses.learn(&layer);
                Ok(Some(layer))
            }
            Found::Damaged => {
                self.drop_unusable(diff_id)?;
                Ok(None)
            }
            Found::Nothing | Found::Unwritten => Ok(None),
        }
    }

    /// What stands under a layer's name. Changes nothing.
    ///
    /// # Errors
    /// As for [`Store::layer`].
    pub fn look_at_layer(&self, diff_id: &DiffId) -> Result<LayerState, Error> {
        Ok(match self.find(diff_id)? {
            Found::Nothing => LayerState::Missing,
            Found::Damaged => LayerState::Damaged,
            Found::Unwritten => LayerState::Unwritten,
            Found::Layer(body, _) => {
                let tree = self.layout.layer(diff_id).join(TREE);
                LayerState::Whole(StoredLayer { diff_id: *diff_id, tree, meta: body.meta })
            }
        })
    }

    /// Takes a layer whose files are not what they were out of the store, noted as [`Damage`]; whether there was one.
    /// Its files stay where a running step that has them mounted finds them, until this process ends.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn discard_layer(&self, diff_id: &DiffId) -> Result<bool, Error> {
        let _lock = self.own_layer_lock(diff_id)?;
        self.take_away(diff_id)
    }

    fn take_away(&self, diff_id: &DiffId) -> Result<bool, Error> {
        let (path, aside) = (self.layout.layer(diff_id), self.workspace()?.fresh());
        self.uses.forget(diff_id);
        match rename_directory(&path, &aside) {
            Ok(()) => {
                self.notes.add(Damage::LayerFiles { diff_id: *diff_id });
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::at("set aside", &path, error)),
        }
    }

    /// As [`Store::discard_layer`], unless a living process uses the layer; whether it is gone.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn discard_unused_layer(&self, diff_id: &DiffId) -> Result<bool, Error> {
        let gate = self.gate()?;
        if self.pinned(&gate)?.contains(&super::Used::Layer(*diff_id)) {
            return Ok(false);
        }
        // Not under the layer's lock: whoever has that may be waiting for the gate.
        self.take_away(diff_id).map(|_| true)
    }

    /// Makes a finished tree, a directory in a [`super::Scratch`], the layer of this name. If the store has the layer,
    /// that one stays and the tree is removed: under one DiffID there is one content.
    ///
    /// # Errors
    /// What the operating system refused; the tree is then still in its scratch directory, or gone with it.
    pub fn publish_layer(&self, diff_id: &DiffId, tree: &Path, meta: LayerMeta) -> Result<StoredLayer, Error> {
        if let Some(there) = self.layer(diff_id)? {
            // What resists goes with its scratch directory, or the next sweep says why not.
            let _ = remove_all(tree);
            return Ok(there);
        }
        let staged = self.stage(tree, meta.clone())?;
        let outcome = self.settle(diff_id, &staged, meta);
        // Nothing is there if it became the layer; otherwise it was not needed, or there was no way to use it.
        let _ = remove_all(&staged);
        outcome
    }

    /// Remembers one more archive of a layer, in place of one with the same digest. `None` if the layer is not there.
    ///
    /// # Errors
    /// As for [`Store::layer`].
    pub fn add_form(&self, diff_id: &DiffId, form: Form) -> Result<Option<StoredLayer>, Error> {
        let _lock = self.own_layer_lock(diff_id)?;
        let Found::Layer(mut body, _) = self.find(diff_id)? else { return Ok(None) };
        let directory = self.layout.layer(diff_id);
        if !body.meta.forms.contains(&form) {
            body.meta.forms.retain(|known| known.descriptor.digest != form.descriptor.digest);
            body.meta.forms.push(form);
            let path = self.layout.layer_meta(diff_id);
            // Synced, since the layer may be older than any process that runs: an empty description would lose it.
            self.place(&path, &encode(&path, (*body).clone())?, 0o600, Durability::Synced)?;
        }
        let layer = StoredLayer { diff_id: *diff_id, tree: directory.join(TREE), meta: body.meta };
        self.uses.learn(&layer);
        Ok(Some(layer))
    }

    /// The names of all layers, in order, whole or not.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn layers(&self) -> Result<Vec<DiffId>, Error> {
        let path = self.layout.layers();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&path).map_err(|error| Error::at("list", &path, error))? {
            let entry = entry.map_err(|error| Error::at("list", &path, error))?;
            if let Some(Ok(diff_id)) = entry.file_name().to_str().map(|hex| format!("sha256:{hex}").parse()) {
                names.push(diff_id);
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// What is known of a layer, whether or not it can be used. Pins nothing, and changes nothing.
    pub(super) fn peek_layer(&self, diff_id: &DiffId) -> Option<LayerMeta> {
        let path = self.layout.layer_meta(diff_id);
        let text = std::fs::read(&path).ok()?;
        Some(decode(&path, &text).ok()??.meta)
    }

    /// Whether something stands under a layer's name that must not be used.
    pub(super) fn is_unusable(&self, diff_id: &DiffId) -> Result<bool, Error> {
        Ok(matches!(self.find(diff_id)?, Found::Damaged | Found::Unwritten))
    }

    /// Moves a layer that cannot be used out of `layers/`, and says where to; `None` if what is there can be used.
    pub(super) fn set_aside(&self, diff_id: &DiffId) -> Result<Option<PathBuf>, Error> {
        let _lock = self.own_layer_lock(diff_id)?;
        let damage = match self.find(diff_id)? {
            Found::Nothing | Found::Layer(..) => return Ok(None),
            Found::Damaged => Damage::Layer { diff_id: *diff_id },
            Found::Unwritten => Damage::Unwritten { diff_id: *diff_id },
        };
        self.uses.forget(diff_id);
        let aside = self.workspace()?.fresh();
        let path = self.layout.layer(diff_id);
        match rename_directory(&path, &aside) {
            // A collection was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            outcome => outcome.map_err(|error| Error::at("set aside", &path, error))?,
        }
        self.notes.add(damage);
        Ok(Some(aside))
    }

    /// Puts tree and description together beside the store's other layers.
    fn stage(&self, tree: &Path, meta: LayerMeta) -> Result<PathBuf, Error> {
        let writer = self.writer()?;
        let staged = self.workspace()?.fresh_directory()?;
        let path = Layout::meta_in(&staged);
        let body = Body { writer, boot: self.boot()?.to_owned(), meta };
        std::fs::write(&path, encode(&path, body)?).map_err(|error| Error::at("write", &path, error))?;
        rename_directory(tree, &staged.join(TREE)).map_err(|error| Error::at("publish", tree, error))?;
        Ok(staged)
    }

    /// Gives a staged layer its name, which nothing usable has.
    fn settle(&self, diff_id: &DiffId, staged: &Path, meta: LayerMeta) -> Result<StoredLayer, Error> {
        let path = self.layout.layer(diff_id);
        loop {
            match std::fs::rename(staged, &path) {
                Ok(()) => {
                    self.uses.note_new(&self.layout.layer_meta(diff_id));
                    self.grow(meta.disk);
                    let layer = StoredLayer { diff_id: *diff_id, tree: path.join(TREE), meta };
                    self.uses.learn(&layer);
                    return Ok(layer);
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) => {}
                Err(error) => return Err(Error::at("publish", &path, error)),
            }
            if let Some(there) = self.layer(diff_id)? {
                return Ok(there);
            }
            self.drop_unusable(diff_id)?;
        }
    }

    fn drop_unusable(&self, diff_id: &DiffId) -> Result<(), Error> {
        if let Some(aside) = self.set_aside(diff_id)? {
            // What resists goes with the process's directory, or the next sweep says why not.
            let _ = remove_all(&aside);
        }
        Ok(())
    }

    /// The lock under which a name's layer is replaced or described anew.
    fn own_layer_lock(&self, diff_id: &DiffId) -> Result<super::Lock, Error> {
        let mut patient = |_: &super::LockOwner| std::ops::ControlFlow::Continue(());
        self.lock(&format!("layer-{}", diff_id.hex()), "describe a layer", &mut patient)
    }

    fn find(&self, diff_id: &DiffId) -> Result<Found, Error> {
        let directory = self.layout.layer(diff_id);
        let path = self.layout.layer_meta(diff_id);
        let (text, used) = match dated::read(&path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(if directory.exists() { Found::Damaged } else { Found::Nothing });
            }
            Err(error) => return Err(Error::at("read", &path, error)),
        };
        let Some(body) = decode(&path, &text)? else { return Ok(Found::Damaged) };
        if !self.reached_the_disk(&body.writer, &body.boot)? {
            return Ok(Found::Unwritten);
        }
        Ok(if directory.join(TREE).is_dir() { Found::Layer(Box::new(body), used) } else { Found::Damaged })
    }
}

fn encode(path: &Path, layer: Body) -> Result<Vec<u8>, Error> {
    let fail = |source| Error::Document { path: path.to_owned(), source };
    let check = blake3::hash(&serde_json::to_vec(&layer).map_err(fail)?).into();
    let mut text = serde_json::to_vec_pretty(&LayerFile { version: VERSION, layer, check }).map_err(fail)?;
    text.push(b'\n');
    Ok(text)
}

/// What `layer.json` says; `None` if it is damaged.
fn decode(path: &Path, text: &[u8]) -> Result<Option<Body>, Error> {
    #[derive(Deserialize)]
    struct Versioned {
        version: u64,
    }
    let file = match serde_json::from_slice::<LayerFile>(text) {
        Ok(file) if file.version <= VERSION => Some(file),
        // Another release may have written what this one cannot read; anything else is damage.
        _ => match serde_json::from_slice::<Versioned>(text) {
            Ok(Versioned { version: found }) if found > VERSION => {
                return Err(Error::NewerSchema { path: path.to_owned(), found, supported: VERSION });
            }
            _ => None,
        },
    };
    let whole = file.filter(|file| {
        serde_json::to_vec(&file.layer).is_ok_and(|layer| ContentId::from(blake3::hash(&layer)) == file.check)
    });
    Ok(whole.map(|file| file.layer))
}
