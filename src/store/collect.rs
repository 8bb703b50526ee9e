//! Takes things out of the store that nobody needs.
//!
//! Takes victims, which somebody chose from what he saw; gives those that could go, out of their places and ready to be
//! deleted. Never takes what a tag reaches, what a living process has pinned, or what was used since it was seen. `uses`
//! says how that is made sure of.
//!
//! Victims are renamed into a scratch directory of their own, a few at a time, so that nobody waits for more than a few
//! renames. Before anything in there is deleted, the directories they came from are synced: after a loss of power a
//! victim is in its place and whole, or it is gone.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::Error;
use super::id::Id;
use super::layout::Layout;
use super::place::sync_directory;
use super::reach::Reached;
use super::removal::remove_all;
use super::scratch::{Workspace, rename_directory};
use super::{Lock, Store, Used};

/// The lock that one collection has at a time.
const COLLECTION: &str = "collection";

/// So many victims are renamed while nobody can pin anything.
const AT_ONCE: usize = 200;

/// Something that is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Victim {
    /// What.
    pub what: Used,
    /// When it was last used, as far as its chooser saw.
    pub last_use: SystemTime,
}

/// The right to collect, which one process has at a time.
#[derive(Debug)]
pub struct Collection<'a> {
    store: &'a Store,
    _lock: Lock,
}

/// What was taken out of its place, and waits to be deleted; that happens when this is dropped, too. What a process that
/// ends leaves of it, the next sweep deletes.
#[derive(Debug)]
pub struct Taken {
    /// What it was.
    pub what: Vec<Used>,
    paths: Vec<PathBuf>,
    /// Where it is; `None` where there was no room for a directory, and it is in `tmp/` itself.
    workspace: Option<Workspace>,
}

impl Store {
    /// Begins a collection, unless one goes on.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn begin_collection(&self) -> Result<Option<Collection<'_>>, Error> {
        let lock = self.try_own_lock(COLLECTION)?;
        Ok(lock.map(|lock| Collection { store: self, _lock: lock }))
    }

    /// Begins a collection, after the one that goes on.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn await_collection(&self) -> Result<Collection<'_>, Error> {
        Ok(Collection { store: self, _lock: self.own_lock(COLLECTION)? })
    }

    /// The directories that things are taken out of.
    pub(super) fn places(&self) -> [PathBuf; 3] {
        [self.layout.layers(), self.layout.blobs(), self.layout.mounts()]
    }

    /// The file whose time is that of the last use of something.
    pub(super) fn dated(&self, what: Used) -> PathBuf {
        match what {
            Used::Layer(diff_id) => self.layout.layer_meta(&diff_id),
            Used::Blob(digest) => self.layout.blob(&digest),
            Used::Mount(name) => self.layout.mounts().join(name.hex()).join("id"),
        }
    }

    /// What is removed when something goes.
    pub(super) fn whole(&self, what: Used) -> PathBuf {
        match what {
            Used::Layer(diff_id) => self.layout.layer(&diff_id),
            Used::Blob(digest) => self.layout.blob(&digest),
            Used::Mount(name) => self.layout.mounts().join(name.hex()),
        }
    }
}

impl Collection<'_> {
    /// Takes victims out of their places, as far as nobody needs them.
    ///
    /// # Errors
    /// [`Error::UnknownEntry`] where nobody knows what the tags reach; otherwise what the operating system refused. What was
    /// taken until then is deleted by the next sweep.
    pub fn take(&self, victims: &[Victim]) -> Result<Taken, Error> {
        let workspace = match Workspace::create(&self.store.layout) {
            Ok(workspace) => Some(workspace),
            // A rename takes no room. Any sweep may delete what lies there, and that is all.
            Err(Error::Full { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut taken = Taken { what: Vec::new(), paths: Vec::new(), workspace };
        let mut reached = Reached::default();
        let mut all = victims.chunks(AT_ONCE);
        let outcome = all.try_for_each(|victims| self.take_some(victims, &mut reached, &mut taken));
        let synced = if taken.what.is_empty() { Ok(()) } else { sync_all(&self.store.places()) };
        if let Err(error) = synced {
            // This process deletes nothing of it: the disk may still have it in its place.
            std::mem::forget(taken);
            return Err(error);
        }
        outcome.map(|()| taken)
    }

    fn take_some(&self, victims: &[Victim], reached: &mut Reached, taken: &mut Taken) -> Result<(), Error> {
        let store = self.store;
        let gate = store.gate()?;
        // Before the tags: whoever ends between the two has written his.
        let pinned = store.pinned(&gate)?;
        // What was reached a moment ago and is no more stays until the next collection.
        store.reach_tags(reached)?;
        for Victim { what, last_use } in victims {
            let is_reached = match what {
                Used::Layer(diff_id) => reached.layers.contains(diff_id),
                Used::Blob(digest) => reached.has_blob(digest),
                Used::Mount(_) => false,
            };
            if is_reached || pinned.contains(what) || is_newer(&store.dated(*what), *last_use) {
                continue;
            }
            let (path, aside) = (store.whole(*what), taken.fresh(&store.layout));
            match rename_directory(&path, &aside) {
                Ok(()) => {
                    taken.what.push(*what);
                    taken.paths.push(aside);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::at("remove", &path, error)),
            }
        }
        Ok(())
    }
}

/// Makes sure that what was renamed out of these directories is not found there again, in parts, after a loss of power.
pub(super) fn sync_all(places: &[PathBuf]) -> Result<(), Error> {
    places.iter().try_for_each(|directory| sync_directory(directory))
}

/// Whether a file was used after a time. What cannot be looked at is not there, or damaged.
fn is_newer(path: &Path, last_use: SystemTime) -> bool {
    std::fs::symlink_metadata(path).and_then(|meta| meta.modified()).is_ok_and(|modified| modified > last_use)
}

impl Taken {
    fn fresh(&self, layout: &Layout) -> PathBuf {
        match &self.workspace {
            Some(workspace) => workspace.fresh(),
            None => layout.tmp().join(Id::random().to_string()),
        }
    }

    /// Deletes what was taken.
    ///
    /// # Errors
    /// The first thing that the operating system refused; the rest was deleted all the same, and the next sweep tries again.
    pub fn delete(self) -> Result<(), Error> {
        self.paths.iter().map(|path| remove_all(path)).fold(Ok(()), Result::and)
    }
}
