//! Cache mounts: directories that outlive builds, in the store's `mounts/`.
//!
//! ```text
//! mounts/<name>/id        the cache's id and platform, for people
//! mounts/<name>/<number>  a directory as steps see it; 0 is the one that `shared` and `locked` mounts use
//! ```
//!
//! The name is a digest of platform and id, so that two platforms never share one. A directory appears by rename,
//! complete with what it starts from. `locked` steps take turns, `private` ones take the first copy that nobody has,
//! `shared` ones never wait: the programs in them must cope with each other. The time of `id` is that of the last use.
//!
//! [`stored`] lists and removes caches, [`carry`] takes them to another store; neither while a build runs.

pub mod carry;
pub mod stored;

use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};

use crate::digest::ContentId;
use crate::execute::mount::Shown;
use crate::execute::{Error, Executor};
use crate::graph::CacheMount;
use crate::progress::Task;
use crate::recipe::Sharing;
use crate::store::{self, Lock, LockOwner, Scratch};

/// More private copies than this are not looked for.
const MAX_COPIES: usize = 1000;

/// A cache's directory, for as long as a step has it.
#[derive(Debug)]
pub(super) struct Taken {
    /// The directory.
    pub path: PathBuf,
    /// Keeps others off.
    _lock: Option<Lock>,
}

/// What a cache is known by in the store.
pub(super) fn name(executor: &Executor<'_>, cache: &CacheMount) -> ContentId {
    name_of(&cache.id, &executor.platform.to_string())
}

fn name_of(id: &str, platform: &str) -> ContentId {
    let mut hasher = blake3::Hasher::new_derive_key("strata cache mount");
    hasher.update(platform.as_bytes());
    hasher.update(&[0]);
    hasher.update(id.as_bytes());
    hasher.finalize().into()
}

/// Takes a cache for a step, waiting for it where it has to, and makes it where there is none. `start` is what an empty
/// one starts from.
pub(super) fn take(
    executor: &Executor<'_>,
    cache: &CacheMount,
    start: Option<&Shown>,
    task: &Task<'_>,
) -> Result<Taken, Error> {
    let id = name(executor, cache);
    // Before its directory is looked for: from now on no collection takes it away.
    executor.store.pin_mount(id)?;
    let name = id.hex();
    let (number, lock) = match cache.sharing {
        Sharing::Shared => (0, None),
        Sharing::Locked => (0, Some(wait_for(executor, &copy_lock(&name, 0), cache, task)?)),
        Sharing::Private => {
            let (number, lock) = free_copy(executor, &name, cache)?;
            (number, Some(lock))
        }
    };
    let directory = executor.store.mounts().join(&name);
    let path = directory.join(number.to_string());
    if !path.is_dir() {
        let _making = wait_for(executor, &format!("mount-{name}"), cache, task)?;
        if !path.is_dir() {
            make(executor, cache, start, &directory, &path)?;
        }
    }
    stored::touch(&directory, &cache.id, &executor.platform.to_string());
    Ok(Taken { path, _lock: lock })
}

fn copy_lock(name: &str, number: usize) -> String {
    format!("mount-{name}-{number}")
}

fn wait_for(executor: &Executor<'_>, lock: &str, cache: &CacheMount, task: &Task<'_>) -> Result<Lock, Error> {
    let mut told = false;
    let waiting = &mut |owner: &LockOwner| {
        if !std::mem::replace(&mut told, true) {
            task.waiting(format!("waiting for the cache mount {}: {}", cache.id, owner.purpose));
        }
        if executor.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    match executor.store.lock(lock, &format!("use the cache mount {}", cache.id), waiting) {
        Err(store::Error::Cancelled { .. }) => Err(Error::Cancelled),
        outcome => Ok(outcome?),
    }
}

/// The first copy that nobody has.
fn free_copy(executor: &Executor<'_>, name: &str, cache: &CacheMount) -> Result<(usize, Lock), Error> {
    for number in 0..MAX_COPIES {
        let purpose = format!("use a copy of the cache mount {}", cache.id);
        match executor.store.lock(&copy_lock(name, number), &purpose, &mut |_| ControlFlow::Break(())) {
            Ok(lock) => return Ok((number, lock)),
            Err(store::Error::Cancelled { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(Error::CacheMount {
        id: cache.id.clone(),
        action: "find a free copy of",
        source: io::Error::other(format!("{MAX_COPIES} steps have one each")),
    })
}

fn make(
    executor: &Executor<'_>,
    cache: &CacheMount,
    start: Option<&Shown>,
    directory: &Path,
    path: &Path,
) -> Result<(), Error> {
    let failed = |action| move |source| Error::CacheMount { id: cache.id.clone(), action, source };
    let scratch = executor.store.scratch()?;
    let tree = match start {
        Some(start) => executor.copy_of(start, &scratch, "cache")?,
        None => scratch.dir("cache")?,
    };
    if let Some(mode) = cache.mode {
        let mode = Mode::from_raw_mode(mode & 0o7777);
        rustix::fs::chmod(&tree, mode).map_err(|errno| failed("set the mode of")(errno.into()))?;
    }
    if cache.uid.is_some() || cache.gid.is_some() {
        let (uid, gid) = (cache.uid.unwrap_or(0), cache.gid.unwrap_or(0));
        rustix::fs::chown(&tree, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|errno| Error::CacheMountOwner { id: cache.id.clone(), uid, gid, source: errno.into() })?;
    }
    put(&scratch, (&cache.id, &executor.platform.to_string()), &tree, directory, path).map_err(failed("make"))
}

/// Puts a finished tree in its place, under its cache's id and platform.
fn put(scratch: &Scratch, (id, platform): (&str, &str), tree: &Path, directory: &Path, path: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    let about = scratch.path().join("id");
    std::fs::write(&about, stored::said_of(id, platform))?;
    std::fs::rename(&about, directory.join("id"))?;
    std::fs::rename(tree, path)
}
