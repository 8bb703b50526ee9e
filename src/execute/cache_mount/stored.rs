//! The caches of a store: listed, sized, removed.
//!
//! Takes a store, gives what is in its `mounts/`. Changes nothing while a build runs: [`alone`] says whether one does.
//! A directory there that says not of which cache it is was left by a release that is no more, and is passed over.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use crate::store::{self, Lock, Store};

/// Why caches cannot be listed, removed or carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A build runs, and may be using them.
    #[error("the cache mounts are in use by a build in this store: try again when it has ended")]
    InUse,
    /// The store refused.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A file or directory of a cache.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// One cache of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredCache {
    /// Its id, as recipes have it.
    pub id: String,
    /// The platform whose steps use it.
    pub platform: String,
    /// How many copies there are: one, and those that steps with `sharing=private` took beside it.
    pub copies: usize,
    /// When a step last took it.
    pub used: SystemTime,
    pub(super) directory: PathBuf,
}

/// Keeps builds off the store until the lock is dropped.
///
/// # Errors
/// [`Error::InUse`] where one runs.
pub fn alone(store: &Store, purpose: &str) -> Result<Lock, Error> {
    match store.exclusive(purpose, &mut |_| ControlFlow::Break(())) {
        Err(store::Error::Cancelled { .. }) => Err(Error::InUse),
        outcome => Ok(outcome?),
    }
}

/// Every cache, by id and platform.
///
/// # Errors
/// [`Error::Io`]
pub fn list(store: &Store) -> Result<Vec<StoredCache>, Error> {
    let mounts = store.mounts();
    let mut caches = Vec::new();
    for directory in entries(&mounts)? {
        let about = directory.join("id");
        let (text, meta) = match (std::fs::read_to_string(&about), std::fs::metadata(&about)) {
            (Ok(text), Ok(meta)) => (text, meta),
            (Err(error), _) | (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            (Err(source), _) | (_, Err(source)) => return Err(Error::Io { action: "read", path: about, source }),
        };
        // The platform is the last line; an id may have several.
        let Some((id, platform)) = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n')) else { continue };
        caches.push(StoredCache {
            id: id.to_owned(),
            platform: platform.to_owned(),
            copies: entries(&directory)?.iter().filter(|path| **path != about).count(),
            used: meta.modified().unwrap_or(SystemTime::UNIX_EPOCH),
            directory,
        });
    }
    caches.sort_by(|a, b| (&a.id, &a.platform).cmp(&(&b.id, &b.platform)));
    Ok(caches)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Io { action: "list", path: directory.to_owned(), source };
    let found = std::fs::read_dir(directory).map_err(failed)?;
    found.map(|entry| entry.map(|entry| entry.path()).map_err(failed)).collect()
}

impl StoredCache {
    /// How many bytes it takes on the disk, hard links once. What cannot be looked at does not count.
    pub fn size(&self) -> u64 {
        let mut seen = HashSet::new();
        let mut pending = vec![self.directory.clone()];
        let mut size = 0;
        while let Some(directory) = pending.pop() {
            for entry in std::fs::read_dir(&directory).into_iter().flatten().flatten() {
                // Links are not followed.
                let Ok(meta) = entry.metadata() else { continue };
                if meta.nlink() < 2 || meta.is_dir() || seen.insert((meta.dev(), meta.ino())) {
                    size += meta.blocks() * 512;
                }
                if meta.is_dir() {
                    pending.push(entry.path());
                }
            }
        }
        size
    }

    /// Removes it and all its copies.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Store`]
    pub fn remove(&self, store: &Store, _alone: &Lock) -> Result<(), Error> {
        let scratch = store.scratch()?;
        let failed = |source| Error::Io { action: "remove", path: self.directory.clone(), source };
        std::fs::rename(&self.directory, scratch.path().join("cache")).map_err(failed)?;
        Ok(scratch.remove()?)
    }
}

/// Notes that a step takes the cache in this directory. Only `ls` and people look at it.
pub(super) fn touch(directory: &Path) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let _ = rustix::fs::utimensat(CWD, directory.join("id"), &times, AtFlags::SYMLINK_NOFOLLOW);
}
