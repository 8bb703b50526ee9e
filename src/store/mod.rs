//! Everything on disk: content by its digest, layers, tags and records, shared by any number of processes.
//!
//! Takes bytes and trees, gives blobs, layers, tags, records and locks. It is the only part that writes under the state
//! directory. Never leaves a half-written thing visible, and never fails a build because something it only remembered is
//! damaged: that is a miss, and told once ([`Store::take_damage`]).
//!
//! # The tree
//!
//! ```text
//! $STRATA_ROOT/
//!   version                   the schema's number                                            open.rs
//!   index-copy                the last index.json, with a check sum                          tag.rs
//!   oci/                      an OCI image layout that other tools can read
//!     oci-layout  index.json  the tags, by full reference                                    tag.rs
//!     blobs/sha256/<hex>      manifests, configurations, compressed layers                   blob.rs, link.rs
//!   layers/<diffid>/          tree/ as an overlay wants it, layer.json                       layer.rs
//!   cache/<bucket>/<aa>/<hex> records: small values by key                                   record.rs, pull.rs
//!   cache/growth              about how much all this takes on the disk                        growth.rs
//!   cache/contexts/<hex>      indexes of what `stat` said, one for each context              (context fills them)
//!   mounts/                   cache mounts                                                   (execute fills them)
//!   builds/<id>/              what happened in a build, and what its steps wrote               builds.rs
//!   tmp/<id>/                 scratch of one running process                                 scratch.rs
//!   locks/<name>.lock         keyed locks                                                    lock.rs
//!   locks/writer-<id>         a process whose layers are not known to be on the disk         recovery.rs
//!   locks/uses-<id>           what a running process uses, so that nobody removes it          uses.rs
//!   locks/{uses,index,blobs,open,collection}  the store's own locks
//! ```
//!
//! # Complete or absent
//!
//! Everything is made in `tmp/<id>/` and renamed into its place. `kill -9` at any instant leaves scratch, whose lock is
//! then free; [`Store::sweep`] removes it. Blobs and `index.json` are synced before they are renamed. Layers are not,
//! and `recovery.rs` says why they are safe all the same. Records are not; they carry a check sum.
//!
//! # Many at once
//!
//! All methods take `&self` and may be called from any number of threads and processes. Where two make the same thing,
//! the first to rename wins and both go on with equal content; doing it only once is what [`Store::lock`] is for.
//! Locks are taken in this order, and never the other way round: the store ([`Store::share`], [`Store::exclusive`]);
//! a name ([`Store::lock`]); within one call of the store, one layer, then one of `uses`, `index`, `blobs`.
//! What a process that shares the store has found or made stays there for it, whoever collects: see `uses.rs`.

mod blob;
mod builds;
mod collect;
mod contents;
mod damage;
mod dated;
mod error;
mod growth;
mod id;
mod image;
mod inspection;
mod layer;
mod layout;
mod link;
mod lock;
mod measure;
mod open;
mod place;
mod pull;
mod reach;
mod record;
mod recovery;
mod removal;
mod room;
mod scratch;
mod sweep;
mod tag;
mod uses;

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock};

use self::layout::Layout;
use self::place::Durability;
use self::recovery::Writer;
use self::scratch::Workspace;
use self::uses::Uses;
use crate::digest::{ContentId, DiffId};

pub use self::blob::BlobWriter;
pub use self::builds::{BuildDirectory, BuildId, Kept, StoredBuild};
pub use self::collect::{Collection, Taken, Victim};
pub use self::contents::{Content, What};
pub use self::damage::Damage;
pub use self::error::Error;
pub use self::image::RemovedImage;
pub use self::inspection::{BlobState, Blobs, RecordFile};
pub use self::layer::{Form, LayerMeta, LayerState, Origin, StoredLayer};
pub use self::link::Linked;
pub use self::lock::{Lock, LockOwner};
pub use self::measure::{Added, Size, allocated};
pub use self::pull::{PULLS, PulledImage};
pub use self::reach::Reached;
pub use self::record::Bucket;
pub use self::room::Room;
pub use self::scratch::Scratch;
pub use self::sweep::{Sweep, Swept};
pub use self::tag::IndexState;
pub use self::uses::{Share, Used};

/// An open store.
#[derive(Debug)]
pub struct Store {
    layout: Layout,
    notes: damage::Notes,
    /// The machine's boot id, once it was needed.
    boot: OnceLock<String>,
    /// This process's directory under `tmp/`, once it was needed.
    workspace: Mutex<Option<Arc<Workspace>>>,
    /// This process as a writer of layers, once it published one.
    writer: Mutex<Option<Writer>>,
    /// What this process uses.
    uses: Arc<Uses>,
    /// How many bytes it added that are not accounted for.
    grown: AtomicU64,
}

impl Store {
    /// Opens the store in a directory, making what is missing. Nothing else of the machine is touched, and nothing is
    /// cleared away: see [`Store::sweep`].
    ///
    /// # Errors
    /// [`Error::NewerSchema`] if a newer release made it, [`Error::NotADirectory`] and [`Error::NotAStore`] if something
    /// else is there, [`Error::Permission`], [`Error::ReadOnly`] and [`Error::Full`] if it cannot be written.
    pub fn open(root: &Path) -> Result<Self, Error> {
        // The working directory may change; overlays and child processes get these paths.
        let root = std::path::absolute(root).map_err(|error| Error::at("find", root, error))?;
        let store = Self {
            layout: Layout::new(root),
            notes: damage::Notes::default(),
            boot: OnceLock::new(),
            workspace: Mutex::new(None),
            writer: Mutex::new(None),
            uses: Arc::default(),
            grown: AtomicU64::new(0),
        };
        open::prepare(&store)?;
        Ok(store)
    }

    /// The directory the store is in, absolute.
    pub fn root(&self) -> &Path {
        self.layout.root()
    }

    /// The OCI image layout in it.
    pub fn oci_layout(&self) -> PathBuf {
        self.layout.oci()
    }

    /// The directory of cache mounts, which `execute` divides.
    pub fn mounts(&self) -> PathBuf {
        self.layout.mounts()
    }

    /// Where the index of a context's files is kept, by whatever names the context.
    pub fn context_index_path(&self, id: &ContentId) -> PathBuf {
        self.layout.context_index(id)
    }

    /// Replaces a file of the store that is only a memory, such as the index of a context's files, whole. After a loss of
    /// power it may be rubbish: its reader must see that.
    ///
    /// # Errors
    /// What the operating system refused. A build can go on without the file.
    pub fn replace(&self, path: &Path, bytes: &[u8]) -> Result<(), Error> {
        self.place(path, bytes, 0o600, Durability::Lazy)
    }

    /// Notes that something of the store was found damaged by who reads it.
    pub fn note_damage(&self, damage: Damage) {
        self.notes.add(damage);
    }

    /// The layers whose files were found damaged, as far as nobody has asked for the damage yet, in the order of their finding.
    pub fn damaged_layers(&self) -> Vec<DiffId> {
        self.notes.layers()
    }

    /// What was found damaged since this was last asked, each once.
    pub fn take_damage(&self) -> Vec<Damage> {
        self.notes.take()
    }
}

#[cfg(test)]
mod tests;
