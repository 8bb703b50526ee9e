//! Locks between everything that uses a store: threads of one process and processes alike.
//!
//! Takes a path under `locks/`, gives a [`Lock`] that ends when it is dropped or its process dies. Each lock is an
//! advisory `flock(2)` on a file opened for it alone, so two threads exclude each other as two processes do.
//! Never blocks beyond the caller's patience: it polls, and asks the caller between two tries.
//!
//! The file of a keyed lock is removed by its last holder, while it holds it. Whoever then gets the lock of a removed
//! file notices (the path names another file, or none) and starts again; so a file is never locked by two under one
//! name, and `locks/` does not grow. What killed processes left is removed by a sweep under the same rule.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Store;
use super::error::Error;

/// The pause after the first try; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_micros(200);
/// Nobody waits longer than this for a lock that is free.
const LONGEST_PAUSE: Duration = Duration::from_millis(25);
/// A purpose longer than this is cut: it is read in one go, and shown on one line.
const LONGEST_PURPOSE: usize = 400;

/// A lock that is held until this is dropped.
#[derive(Debug)]
#[must_use = "the lock ends when this is dropped"]
pub struct Lock {
    file: File,
    /// The file to remove with the lock.
    fleeting: Option<PathBuf>,
}

/// Who holds a lock, as far as it is known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LockOwner {
    /// Its process, in its own pid namespace; `None` while it has not said so yet.
    pub pid: Option<u32>,
    /// What it holds the lock for, such as the step it runs.
    pub purpose: String,
}

impl LockOwner {
    /// What one waits for, as people read it.
    pub fn as_reason(&self) -> String {
        let whom = self.pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"));
        let what = if self.purpose.is_empty() { String::new() } else { format!(" ({})", self.purpose) };
        format!("waiting for {whom}, which has the same work in hand{what}")
    }
}

impl Store {
    /// Takes the exclusive lock of a name, any text: one step's key, one cache mount.
    ///
    /// `purpose` is shown to those who wait for it, and completes "gave up waiting for the lock to …"; it must hold no
    /// secret. While another thread or process has the lock, `waiting` is called with its owner about every 25 ms, and
    /// may give up by breaking.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if `waiting` broke; otherwise what the operating system refused.
    pub fn lock(
        &self,
        name: &str,
        purpose: &str,
        waiting: &mut dyn FnMut(&LockOwner) -> ControlFlow<()>,
    ) -> Result<Lock, Error> {
        keyed(&self.layout.keyed_lock(name), purpose, waiting)
    }

    /// Takes one of the store's own short locks. Whoever has it is done in a moment, so the kernel does the waiting.
    pub(super) fn own_lock(&self, name: &str) -> Result<Lock, Error> {
        let path = self.layout.own_lock(name);
        let file = open(&path)?;
        patiently(&path, || file.lock())?;
        Ok(Lock::of(file))
    }

    /// Takes one of the store's own locks, unless another has it.
    pub(super) fn try_own_lock(&self, name: &str) -> Result<Option<Lock>, Error> {
        let path = self.layout.own_lock(name);
        let file = open(&path)?;
        Ok(try_lock(&path, file.try_lock())?.then(|| Lock::of(file)))
    }
}

impl Lock {
    /// The lock of a file, which is locked already and stays.
    pub(super) const fn of(file: File) -> Self {
        Self { file, fleeting: None }
    }

    /// Tells those who wait who has the lock.
    pub(super) fn sign(&self, purpose: &str) {
        LockOwner::current(purpose).write(&self.file);
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if let Some(path) = &self.fleeting {
            // A file that cannot be removed is locked by nobody, and goes with the next sweep.
            let _ = std::fs::remove_file(path);
        }
        // Closing is not enough: a process forked meanwhile may share the open file for a moment.
        let _ = self.file.unlock();
    }
}

/// Takes the exclusive lock of a file that its holder removes.
pub(super) fn keyed(
    path: &Path,
    purpose: &str,
    waiting: &mut dyn FnMut(&LockOwner) -> ControlFlow<()>,
) -> Result<Lock, Error> {
    loop {
        let file = open(path)?;
        poll(purpose, || try_lock(path, file.try_lock()), || waiting(&LockOwner::read(&file)))?;
        if still_named(path, &file)? {
            LockOwner::current(purpose).write(&file);
            return Ok(Lock { file, fleeting: Some(path.to_owned()) });
        }
    }
}

/// Removes a lock file that a dead process left; leaves one that is in use.
pub(super) fn remove_stale(path: &Path) -> Result<(), Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::at("open", path, error)),
    };
    if try_lock(path, file.try_lock())? && still_named(path, &file)? {
        drop(Lock { file, fleeting: Some(path.to_owned()) });
    }
    Ok(())
}

/// Whether the path names the very file that is open.
pub(super) fn still_named(path: &Path, file: &File) -> Result<bool, Error> {
    let open = file.metadata().map_err(|error| Error::at("look at", path, error))?;
    match std::fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(Error::at("look at", path, error)),
    }
}

/// Whether a try gave the lock.
pub(super) fn try_lock(path: &Path, outcome: Result<(), TryLockError>) -> Result<bool, Error> {
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Interrupted => Ok(false),
        Err(TryLockError::Error(error)) => Err(Error::at("lock", path, error)),
    }
}

/// Tries until the lock is there or the caller has had enough.
pub(super) fn poll(
    purpose: &str,
    mut attempt: impl FnMut() -> Result<bool, Error>,
    mut waiting: impl FnMut() -> ControlFlow<()>,
) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    while !attempt()? {
        if waiting().is_break() {
            return Err(Error::Cancelled { purpose: purpose.to_owned() });
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    Ok(())
}

/// Does what the kernel waits with, again where a signal interrupted it.
pub(super) fn patiently(path: &Path, mut attempt: impl FnMut() -> io::Result<()>) -> Result<(), Error> {
    loop {
        match attempt() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.map_err(|error| Error::at("lock", path, error)),
        }
    }
}

/// Opens the file of a lock; makes it.
pub(super) fn open(path: &Path) -> Result<File, Error> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::at("open", path, error))
}

impl LockOwner {
    fn current(purpose: &str) -> Self {
        let purpose = purpose.chars().take(LONGEST_PURPOSE).collect();
        Self { pid: Some(std::process::id()), purpose }
    }

    /// Writes who we are for those who wait. It informs, it does not protect: on a full disk the lock holds without it.
    fn write(&self, file: &File) {
        let Ok(text) = serde_json::to_vec(self) else { return };
        let _ = file.set_len(0).and_then(|()| file.write_all_at(&text, 0));
    }

    pub(super) fn read(file: &File) -> Self {
        let mut text = [0; 4096];
        let length = file.read_at(&mut text, 0).unwrap_or(0);
        serde_json::from_slice(&text[..length]).unwrap_or_default()
    }
}
