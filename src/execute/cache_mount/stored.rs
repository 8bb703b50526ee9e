//! The caches of a store: listed, sized, removed.
//!
//! Takes a store, gives what is in its `mounts/`. Changes nothing while a build runs: [`alone`] says whether one does.
//! A directory there that says not of which cache it is was left by a release that is no more, and is passed over.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW};

use super::name_of;
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

/// The caches of a store by their form.
#[derive(Debug, Default)]
pub struct Forms {
    /// How many are as they should be.
    pub sound: u64,
    /// Those that are not, each with what is wrong.
    pub wrong: Vec<(PathBuf, String)>,
}

/// Looks at the form of every cache: that it says whose it is and holds directories. A directory in which there is nothing
/// yet is one that a killed build was making, and is sound.
///
/// # Errors
/// [`Error::Io`]
pub fn forms(store: &Store) -> Result<Forms, Error> {
    let mut forms = Forms::default();
    for directory in entries(&store.mounts())? {
        match wrong_form(&directory) {
            Some(detail) => forms.wrong.push((directory, detail)),
            None => forms.sound += 1,
        }
    }
    Ok(forms)
}

fn wrong_form(directory: &Path) -> Option<String> {
    let Ok(found) = entries(directory) else { return Some("it is not a directory".to_owned()) };
    let about = directory.join("id");
    let text = std::fs::read_to_string(&about).unwrap_or_default();
    let said = text.strip_suffix('\n').and_then(|text| text.rsplit_once('\n'));
    let is_its_own =
        said.is_some_and(|(id, platform)| Some(OsStr::new(&name_of(id, platform).hex())) == directory.file_name());
    let copies = found.iter().filter(|path| **path != about);
    let is_copy = |path: &&PathBuf| {
        let numbered =
            path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.parse::<usize>().is_ok());
        numbered && path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
    };
    if !found.is_empty() && !is_its_own {
        return Some("it does not say which cache it is".to_owned());
    }
    let stranger = copies.clone().find(|path| !is_copy(path));
    stranger.map(|path| format!("{} is no copy of a cache", path.display()))
}

/// Removes the directory of a cache, whatever it holds.
///
/// # Errors
/// [`Error::Io`], [`Error::Store`]
pub fn remove(store: &Store, directory: &Path, _alone: &Lock) -> Result<(), Error> {
    let scratch = store.scratch()?;
    let failed = |source| Error::Io { action: "remove", path: directory.to_owned(), source };
    std::fs::rename(directory, scratch.path().join("cache")).map_err(failed)?;
    Ok(scratch.remove()?)
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
    pub fn remove(&self, store: &Store, alone: &Lock) -> Result<(), Error> {
        remove(store, &self.directory, alone)
    }
}

/// Notes that a step takes the cache in this directory, which is of this id and platform: only `ls` and people look at it.
pub(super) fn touch(directory: &Path, id: &str, platform: &str) {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: now };
    let about = directory.join("id");
    if rustix::fs::utimensat(CWD, &about, &times, AtFlags::SYMLINK_NOFOLLOW).is_err() {
        // It was lost, and nothing but who takes the cache knows what stood there.
        let _ = std::fs::write(&about, said_of(id, platform));
    }
}

/// What `id` says of a cache.
pub(super) fn said_of(id: &str, platform: &str) -> String {
    format!("{id}\n{platform}\n")
}
