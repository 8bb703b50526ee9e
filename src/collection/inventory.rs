//! A store, looked at: every thing in it, with its size, its last use, and what holds it.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

use rayon::prelude::*;
use serde::Serialize;

use crate::cache;
use crate::digest::{DiffId, Digest};
use crate::fetch;
use crate::store::{self, Content, LayerMeta, Origin, Reached, Size, Store, Used, What};

/// What a thing is, as people are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A layer of an image that was pulled, unpacked.
    BaseLayers,
    /// A layer that a step made, or a fetched context.
    BuiltLayers,
    /// Manifests, configurations, packed layers, downloads.
    Blobs,
    /// A cache of `RUN --mount=type=cache`.
    CacheMounts,
    /// What is remembered: results of steps, selections of files, names of base images, indexes of contexts.
    Records,
    /// What is kept of a build.
    BuildLogs,
    /// The store's own files and directories, and what processes have in hand.
    Other,
}

impl Kind {
    /// Every kind, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::BaseLayers,
        Self::BuiltLayers,
        Self::Blobs,
        Self::CacheMounts,
        Self::Records,
        Self::BuildLogs,
        Self::Other,
    ];

    /// Its name for people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::BaseLayers => "base layers",
            Self::BuiltLayers => "built layers",
            Self::Blobs => "blobs",
            Self::CacheMounts => "cache mounts",
            Self::Records => "records",
            Self::BuildLogs => "build logs",
            Self::Other => "other",
        }
    }
}

/// What keeps a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Hold {
    /// Nothing.
    Free,
    /// A known name of a base image: only who wants everything gone takes it.
    Named,
    /// A tag.
    Tagged,
    /// A running process.
    InUse,
    /// It is a part of the store itself.
    Fixed,
}

/// One thing in a store.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// What it is and where.
    pub content: Content,
    /// What people call it.
    pub kind: Kind,
    /// What it takes on the disk.
    pub size: Size,
    /// What keeps it.
    pub hold: Hold,
    /// The layer without which it is good for nothing.
    pub needs: Option<DiffId>,
}

/// How sizes are found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sizes {
    /// Every file is looked at.
    Exact,
    /// Layers have the size that was written down when they were published.
    Known,
}

/// Everything in a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Inventory {
    /// The things, in no order.
    pub items: Vec<Item>,
}

impl Inventory {
    /// Looks at a store.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn take(store: &Store, sizes: Sizes) -> Result<Self, store::Error> {
        let contents = store.contents()?;
        let holds = Holds::of(store, &contents)?;
        let look = |content: Content| {
            let meta = match content.what {
                What::Used(Used::Layer(id)) => store.describe_layer(&id),
                _ => None,
            };
            let kind = kind_of(&content, meta.as_ref());
            let needs = holds.needs.get(&content.path).copied();
            let hold = holds.hold(&content, needs.as_ref());
            let size = match (&content.what, sizes, &meta) {
                (What::Directory, ..) => Size::of_one(&content.path),
                (_, Sizes::Known, Some(meta)) => Size::estimate(meta.disk),
                _ => Size::of(&content.path),
            };
            Item { content, kind, size, hold, needs }
        };
        Ok(Self { items: contents.into_par_iter().map(look).collect() })
    }

    /// What all of it takes on the disk, in bytes; a file with several names counts once.
    pub fn bytes(&self) -> u64 {
        let mut all = Size::default();
        self.items.iter().map(|item| all.add(&item.size).new).sum()
    }
}

fn kind_of(content: &Content, meta: Option<&LayerMeta>) -> Kind {
    match &content.what {
        What::Used(Used::Layer(_)) => match meta.map(|meta| &meta.origin) {
            Some(Origin::Pulled { .. }) => Kind::BaseLayers,
            Some(Origin::Built { .. }) | None => Kind::BuiltLayers,
        },
        What::Used(Used::Blob(_)) => Kind::Blobs,
        What::Used(Used::Mount(_)) => Kind::CacheMounts,
        What::Record(_) | What::ContextIndex => Kind::Records,
        What::Build { .. } => Kind::BuildLogs,
        What::Scratch { .. } | What::Directory | What::Other => Kind::Other,
    }
}

/// Who holds what.
struct Holds {
    tagged: Reached,
    named: Reached,
    in_use: HashSet<Used>,
    /// The layers that records name, by the records' files.
    needs: HashMap<PathBuf, DiffId>,
    layers: HashSet<DiffId>,
}

impl Holds {
    fn of(store: &Store, contents: &[Content]) -> Result<Self, store::Error> {
        // As the store itself does it: first those who are about to write tags, then the tags.
        let in_use = store.in_use()?;
        let (mut tagged, mut named) = (Reached::default(), Reached::default());
        store.reach_tags(&mut tagged)?;
        for pulled in contents.iter().filter_map(|content| pulled_in(store, content)) {
            // A name keeps its documents, and no layer.
            store.reach(&pulled.manifest, &mut named)?;
            named.documents.extend(pulled.index.map(|index| index.digest));
        }
        let needs = contents.par_iter().filter_map(|content| Some((content.path.clone(), layer_of(store, content)?)));
        let layers = contents.iter().filter_map(|content| match content.what {
            What::Used(Used::Layer(id)) => Some(id),
            _ => None,
        });
        Ok(Self { tagged, named, in_use, needs: needs.collect(), layers: layers.collect() })
    }

    fn hold(&self, content: &Content, needs: Option<&DiffId>) -> Hold {
        match &content.what {
            What::Used(used) if self.in_use.contains(used) => Hold::InUse,
            What::Used(Used::Layer(id)) if self.tagged.layers.contains(id) => Hold::Tagged,
            What::Used(Used::Blob(digest)) => self.hold_of_blob(digest),
            What::Used(_) => Hold::Free,
            What::Record(_) => match needs {
                Some(layer) if self.layers.contains(layer) && self.tagged.layers.contains(layer) => Hold::Tagged,
                Some(layer) if self.in_use.contains(&Used::Layer(*layer)) => Hold::InUse,
                _ => Hold::Free,
            },
            What::Build { is_running: true, .. } | What::Scratch { is_alive: true } => Hold::InUse,
            What::Build { .. } | What::ContextIndex => Hold::Free,
            What::Scratch { .. } | What::Directory | What::Other => Hold::Fixed,
        }
    }

    fn hold_of_blob(&self, digest: &Digest) -> Hold {
        if self.tagged.has_blob(digest) {
            Hold::Tagged
        } else if self.named.documents.contains(digest) {
            Hold::Named
        } else {
            Hold::Free
        }
    }
}

/// What a name of a base image stood for, where this is the record of that.
fn pulled_in(store: &Store, content: &Content) -> Option<store::PulledImage> {
    let What::Record(bucket) = &content.what else { return None };
    if bucket != store::PULLS.name() {
        return None;
    }
    serde_json::from_slice(&store.peek_record(&content.path)?).ok()
}

/// The layer that a record names, where it is good for nothing without.
fn layer_of(store: &Store, content: &Content) -> Option<DiffId> {
    let What::Record(bucket) = &content.what else { return None };
    let layer_in = match bucket {
        bucket if bucket == cache::STEPS.name() => cache::layer_in,
        bucket if bucket == fetch::kept::TREES.name() => fetch::kept::layer_in,
        _ => return None,
    };
    layer_in(&store.peek_record(&content.path)?)
}
