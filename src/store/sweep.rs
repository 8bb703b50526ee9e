//! Clears away what dead processes left behind.
//!
//! Finds directories of `tmp/`, keyed locks, leases and writers whose owner is dead, which the kernel tells by their free locks.
//! What must be done before layers are used is done at once; what may take long is done by a thread that nobody has to
//! wait for. Never touches what a living process holds.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::Store;
use super::collect::sync_all;
use super::error::Error;
use super::layout::{LEASE_PREFIX, LOCK_ENDING};
use super::lock;
use super::recovery::DeadWriter;
use super::removal::remove_all;
use super::scratch::{Workspace, lock_directory};

/// A sweep that goes on in the background. Dropping this does not stop it; the end of the process does, and the next
/// sweep finds what was left.
#[derive(Debug)]
pub struct Sweep {
    thread: Option<JoinHandle<Swept>>,
    failures: Vec<Error>,
}

/// What a sweep did in the background.
#[derive(Debug, Default)]
pub struct Swept {
    /// How many directories it removed.
    pub removed: usize,
    /// What it could not do. Nothing depends on it, but somebody may want to know why the disk fills.
    pub failures: Vec<Error>,
}

impl Sweep {
    /// Waits for its end.
    pub fn wait(self) -> Swept {
        // A thread that panicked has reported itself, and left its work to the next sweep.
        let mut swept = self.thread.and_then(|thread| thread.join().ok()).unwrap_or_default();
        swept.failures.extend(self.failures);
        swept
    }
}

/// Work for the background.
#[derive(Debug)]
struct Chores {
    /// Dead processes' directories, each with its lock.
    dead: Vec<(PathBuf, File)>,
    /// Directories of layers that were set aside, in this process's own directory.
    aside: Vec<PathBuf>,
    /// Keeps that directory.
    _workspace: Option<Arc<Workspace>>,
    unsettled: Vec<DeadWriter>,
    /// Where a dead collection may have taken things from.
    places: [PathBuf; 3],
}

impl Store {
    /// Clears away what dead processes left: first drops the layers that a loss of power may have cut short, then, in
    /// the background, removes their scratch directories and brings their last layers to the disk. A build calls this
    /// before it looks at its first layer; with nothing to do it lists two directories.
    ///
    /// # Errors
    /// What the operating system refused while layers were recovered. What fails later is in [`Sweep::wait`].
    pub fn sweep(&self) -> Result<Sweep, Error> {
        let recovered = self.recover()?;
        let mut failures = Vec::new();
        self.remove_stale_locks(&mut failures);
        let chores = Chores {
            dead: self.dead_directories(&mut failures),
            _workspace: if recovered.aside.is_empty() { None } else { Some(self.workspace()?) },
            aside: recovered.aside,
            unsettled: recovered.unsettled,
            places: self.places(),
        };
        if chores.is_empty() {
            return Ok(Sweep { thread: None, failures });
        }
        let thread = std::thread::Builder::new().name("strata-sweep".to_owned()).spawn(move || chores.run());
        match thread {
            Ok(thread) => Ok(Sweep { thread: Some(thread), failures }),
            Err(error) => {
                failures.push(Error::at("start a thread to sweep", self.layout.root(), error));
                Ok(Sweep { thread: None, failures })
            }
        }
    }

    /// Whether a killed process left something that a sweep would remove. Looks at two directories.
    pub fn has_leftovers(&self) -> bool {
        let mut failures = Vec::new();
        let is_free =
            |path: &PathBuf| File::open(path).is_ok_and(|file| lock::try_lock(path, file.try_lock()).unwrap_or(false));
        let is_keyed = |path: &PathBuf| path.to_string_lossy().ends_with(LOCK_ENDING);
        self.has_dead_leases()
            || entries(&self.layout.tmp(), &mut failures).iter().any(is_free)
            || entries(&self.layout.locks(), &mut failures).iter().any(|path| is_keyed(path) && is_free(path))
    }

    fn remove_stale_locks(&self, failures: &mut Vec<Error>) {
        let locks = self.layout.locks();
        let mut leases = false;
        for path in entries(&locks, failures) {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.ends_with(LOCK_ENDING) {
                failures.extend(lock::remove_stale(&path).err());
            }
            leases |= name.starts_with(LEASE_PREFIX);
        }
        if leases {
            failures.extend(self.remove_dead_leases().err());
        }
    }

    /// The directories of `tmp/` whose lock is free, locked; anything else in `tmp/` is nobody's, and removed.
    fn dead_directories(&self, failures: &mut Vec<Error>) -> Vec<(PathBuf, File)> {
        let mut dead = Vec::new();
        for path in entries(&self.layout.tmp(), failures) {
            match lock_directory(&path) {
                Ok(Some(lock)) => dead.push((path, lock)),
                Ok(None) => {}
                Err(Error::NotADirectory { .. }) => failures.extend(remove_all(&path).err()),
                Err(error) => failures.push(error),
            }
        }
        dead
    }
}

impl Chores {
    const fn is_empty(&self) -> bool {
        self.dead.is_empty() && self.aside.is_empty() && self.unsettled.is_empty()
    }

    fn run(self) -> Swept {
        let mut swept = Swept::default();
        if let Err(error) = sync_all(&self.places) {
            return Swept { removed: 0, failures: vec![error] };
        }
        let directories = self.dead.iter().map(|(path, _lock)| path).chain(&self.aside);
        for path in directories {
            match remove_all(path) {
                Ok(()) => swept.removed += 1,
                Err(error) => swept.failures.push(error),
            }
        }
        swept.failures.extend(DeadWriter::settle(&self.unsettled).err());
        swept
    }
}

fn entries(directory: &Path, failures: &mut Vec<Error>) -> Vec<PathBuf> {
    let fail = |error| Error::at("list", directory, error);
    let mut paths = Vec::new();
    match std::fs::read_dir(directory) {
        Ok(entries) => {
            for entry in entries {
                match entry {
                    Ok(entry) => paths.push(entry.path()),
                    Err(error) => failures.push(fail(error)),
                }
            }
        }
        Err(error) => failures.push(fail(error)),
    }
    paths
}
