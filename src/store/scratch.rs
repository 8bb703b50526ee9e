//! Room for what is not finished: `tmp/<id>/`, one directory a process, and private directories in it.
//!
//! Gives paths on the store's own file system, so that what is finished can be renamed into its place. Everything here
//! is removed when it is dropped. A process holds a lock on its directory (the directory itself is locked, `flock(2)`)
//! from the moment it may hold anything; a directory whose lock is free belongs to a dead process, and is swept.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::Store;
use super::error::Error;
use super::id::Id;
use super::layout::Layout;
use super::lock;
use super::removal::remove_all;

/// This process's directory under `tmp/`.
#[derive(Debug)]
pub(super) struct Workspace {
    path: PathBuf,
    /// Holds the lock.
    directory: File,
    next: AtomicU64,
}

impl Workspace {
    /// Makes a directory of this process's, and locks it.
    pub(super) fn create(layout: &Layout) -> Result<Self, Error> {
        loop {
            let path = layout.tmp().join(Id::random().to_string());
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(Error::at("create", &path, errno)),
            }
            // A sweep may see the new directory before it is locked, and take it for a dead one: then try another.
            if let Some(directory) = lock_directory(&path)? {
                return Ok(Self { path, directory, next: AtomicU64::new(0) });
            }
        }
    }

    /// A path in the directory that names nothing yet.
    pub(super) fn fresh(&self) -> PathBuf {
        self.path.join(self.next.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A new empty directory, for its owner alone.
    pub(super) fn fresh_directory(&self) -> Result<PathBuf, Error> {
        let path = self.fresh();
        rustix::fs::mkdir(&path, Mode::RWXU).map_err(|errno| Error::at("create", &path, errno))?;
        Ok(path)
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        // What resists stays for the next sweep, which can say so.
        let _ = remove_all(&self.path);
        let _ = self.directory.unlock();
    }
}

/// Locks a directory of `tmp/`; `None` if another has it or it is gone.
pub(super) fn lock_directory(path: &Path) -> Result<Option<File>, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(directory) => File::from(directory),
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(Error::at("open", path, errno)),
    };
    let held = lock::try_lock(path, directory.try_lock())? && lock::still_named(path, &directory)?;
    Ok(held.then_some(directory))
}

/// A private directory on the store's file system, removed with all it holds when this is dropped.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    /// Keeps the process's directory locked.
    _workspace: Arc<Workspace>,
}

impl Scratch {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a directory in it, readable and searchable by all (0755 whatever the umask), as the root of a file system
    /// is. `name` is a plain file name.
    ///
    /// # Errors
    /// What the operating system refused, also if the name is taken.
    pub fn dir(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        let mode = Mode::from_raw_mode(0o755);
        rustix::fs::mkdir(&path, mode)
            .and_then(|()| rustix::fs::chmod(&path, mode))
            .map_err(|errno| Error::at("create", &path, errno))?;
        Ok(path)
    }

    /// Removes it now, and says what could not be removed; dropping it leaves that to a later sweep.
    ///
    /// # Errors
    /// What the operating system refused, for instance because something is still mounted in it.
    pub fn remove(self) -> Result<(), Error> {
        remove_all(&self.path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What resists stays for the next sweep, which can say so.
        let _ = remove_all(&self.path);
    }
}

impl Store {
    /// Makes a private directory under `tmp/`, held by this process's lock.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn scratch(&self) -> Result<Scratch, Error> {
        let workspace = self.workspace()?;
        Ok(Scratch { path: workspace.fresh_directory()?, _workspace: workspace })
    }

    /// This process's directory, made when it is first needed: a build that hits everywhere never does.
    pub(super) fn workspace(&self) -> Result<Arc<Workspace>, Error> {
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(workspace) = &*workspace {
            return Ok(Arc::clone(workspace));
        }
        let created = Arc::new(Workspace::create(&self.layout)?);
        *workspace = Some(Arc::clone(&created));
        Ok(created)
    }
}

/// Moves a directory. Its own owner must be able to write it for that (its `..` changes), which a mode like 0555 forbids
/// to all but root; so the mode is lifted for the moment.
pub(super) fn rename_directory(from: &Path, to: &Path) -> io::Result<()> {
    match rustix::fs::rename(from, to) {
        Err(Errno::ACCESS) => {
            let mode = Mode::from_raw_mode(rustix::fs::lstat(from)?.st_mode);
            rustix::fs::chmod(from, mode | Mode::RWXU)?;
            let outcome = rustix::fs::rename(from, to);
            rustix::fs::chmod(if outcome.is_ok() { to } else { from }, mode)?;
            Ok(outcome?)
        }
        outcome => Ok(outcome?),
    }
}
