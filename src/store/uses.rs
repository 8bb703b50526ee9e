//! What running processes use, so that a collection can tell it from what nobody needs.
//!
//! Takes notes of layers, blobs and cache mounts while somebody holds a [`Share`] of the store; gives a collection the
//! notes of every living process. Never keeps a build waiting for a collection, nor a collection for a build, for longer
//! than a few renames take.
//!
//! # Pins
//!
//! A process that shares the store has a *lease*: the file `locks/uses-<id>`, locked (`flock(2)`) as long as the process
//! shares the store, and so as long as it lives. To use something a process first *pins* it: under a shared hold of
//! `locks/uses` (the gate) it appends its name to its lease. Only then does it look whether the thing is there, or
//! rename what it made into its place. A collection takes the gate alone, reads the leases whose owners live, decides,
//! renames the victims out of their places, and lets the gate go; it deletes them afterwards.
//!
//! Why nothing is lost, whatever happens between two of these steps:
//!
//! - *Lookup against removal.* Either the name was written before the collection had the gate, which then reads it and
//!   leaves the thing alone. Or it was written after the collection let the gate go; then all renames are done, and the
//!   look that comes after finds the thing gone: a miss, and a true one.
//! - *Publishing against removal.* The same: what is renamed into its place was pinned before.
//! - *Tag against removal.* What a tag reaches was pinned by the build that writes the tag, until after it is written. A
//!   collection reads the leases first and `index.json` after them: a lease that it finds gone had its tag written.
//! - *Death.* A lease of a dead process has no lock, counts for nothing, and is swept. A process that dies with the gate
//!   lets go of it. A collection that dies leaves some victims in its scratch, which is swept, and the others in place.
//! - *Loss of power.* No lease means anything after it: nobody lives. Nothing here waits for the disk.
//! - *A full disk.* Where there is no room for a lease or a pin, the gate itself is shared until the process ends: no
//!   collection goes on meanwhile.
//!
//! What has no name here needs none. A record is read in one go, and where it is gone that is a miss; so is the index of a
//! context. Builds and scratch directories have locks of their own. What a name stood for when a build began, such as a tag
//! of a base image, is a document that the build has read, and pinned by that.
//!
//! A name is pinned once; the second use costs a look into a table. With it the process remembers the description of
//! each layer it has found, which nobody can remove any more.
//!
//! # Times
//!
//! A thing's last use is the modification time of its file (for a layer, of `layer.json`). It is brought up to date when
//! the share ends, and only where it is older than [`GRANULARITY`]. What was used first gets the latest time, each other
//! a microsecond less: of a chain of layers those above become victims before those that they stand on.

use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::Store;
use super::error::Error;
use super::id::Id;
use super::layer::StoredLayer;
use super::layout::{LEASE_PREFIX, Layout};
use super::lock::{self, Lock, LockOwner};
use super::removal::remove_file;
use crate::digest::{ContentId, DiffId, Digest};

/// The lock under which pins are written, and which a collection has alone while it decides.
const GATE: &str = "uses";

/// A last use is this exact.
pub(super) const GRANULARITY: Duration = Duration::from_secs(60);

/// A record's last use is this exact: there are many, and little depends on them.
pub(super) const RECORD_GRANULARITY: Duration = Duration::from_secs(3600);

/// How many bytes a pin takes in a lease: one for the kind, and the name.
const PIN_BYTES: usize = 33;

/// Something in the store that can be removed, and must not be while it is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Used {
    /// A layer.
    Layer(DiffId),
    /// A blob.
    Blob(Digest),
    /// A cache mount, with all its copies, by the name of its directory.
    Mount(ContentId),
}

impl Used {
    fn to_bytes(self) -> [u8; PIN_BYTES] {
        let (kind, name) = match &self {
            Self::Layer(diff_id) => (b'l', diff_id.as_bytes()),
            Self::Blob(digest) => (b'b', digest.as_bytes()),
            Self::Mount(name) => (b'm', name.as_bytes()),
        };
        let mut bytes = [kind; PIN_BYTES];
        bytes[1..].copy_from_slice(name);
        bytes
    }

    fn from_bytes(bytes: &[u8; PIN_BYTES]) -> Option<Self> {
        let (kind, name) = bytes.split_first()?;
        let name: [u8; 32] = name.try_into().ok()?;
        match kind {
            b'l' => Some(Self::Layer(Digest::from_bytes(name).into())),
            b'b' => Some(Self::Blob(Digest::from_bytes(name))),
            b'm' => Some(Self::Mount(ContentId::from_bytes(name))),
            _ => None,
        }
    }
}

/// A share of the store. While any share of this process lives, nothing that it uses is removed by others.
#[derive(Debug)]
#[must_use = "the share ends when this is dropped"]
pub struct Share {
    uses: Arc<Uses>,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut state = self.uses.state();
        state.holders -= 1;
        if state.holders == 0 {
            touch(&std::mem::take(&mut state.stale));
            state.pinned.clear();
            state.known.clear();
            state.lease = None;
        }
    }
}

/// What this process uses.
#[derive(Debug, Default)]
pub(super) struct Uses(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// How many shares live.
    holders: usize,
    /// There while any does.
    lease: Option<Lease>,
    pinned: HashSet<Used>,
    known: HashMap<DiffId, StoredLayer>,
    /// Files whose time is to be brought up to date, in the order of their first use.
    stale: Vec<PathBuf>,
}

/// The file in which a process notes what it uses.
#[derive(Debug)]
struct Lease {
    gate: File,
    /// Where the pins are written; `None` where there was no room for them, and the gate is held instead.
    notes: Option<Notes>,
}

#[derive(Debug)]
struct Notes {
    path: PathBuf,
    /// Holds the lock that says that the process lives.
    file: File,
    /// How many pins are written.
    count: u64,
}

impl Lease {
    /// Makes a lease. The caller shares the gate, so that nobody takes the new file for a dead process's.
    fn create(layout: &Layout, gate: File) -> Result<Self, Error> {
        let path = layout.lease(&Id::random());
        let file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(file) => file,
            Err(error) if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) => {
                return Ok(Self { gate, notes: None });
            }
            Err(error) => return Err(Error::at("create", &path, error)),
        };
        // Somebody who looks which leases live may have it for a moment.
        lock::patiently(&path, || file.lock())?;
        lock::patiently(&path, || gate.unlock())?;
        Ok(Self { gate, notes: Some(Notes { path, file, count: 0 }) })
    }

    fn write(&mut self, used: Used) -> Result<(), Error> {
        let Some(notes) = &mut self.notes else { return Ok(()) };
        lock::patiently(&notes.path, || self.gate.lock_shared())?;
        // By position: a pin of which a part was written is written over.
        match notes.file.write_all_at(&used.to_bytes(), notes.count * PIN_BYTES as u64) {
            Ok(()) => {
                notes.count += 1;
                lock::patiently(&notes.path, || self.gate.unlock())
            }
            // The gate stays shared, which keeps everything.
            Err(_) => {
                self.notes = None;
                Ok(())
            }
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        // What cannot be removed has no lock, and goes with the next sweep.
        let _ = std::fs::remove_file(&self.path);
        // Closing is not enough: a process forked meanwhile may share the open file for a moment.
        let _ = self.file.unlock();
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.notes = None;
        let _ = self.gate.unlock();
    }
}

impl Uses {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that this process uses something, before it looks whether it is there. Without a share nothing is noted,
    /// and what is found may be gone the next moment.
    pub(super) fn pin(&self, used: Used) -> Result<(), Error> {
        let mut state = self.state();
        let State { lease: Some(lease), pinned, .. } = &mut *state else { return Ok(()) };
        if !pinned.contains(&used) {
            lease.write(used)?;
            pinned.insert(used);
        }
        Ok(())
    }

    /// A layer that was found before, and is pinned.
    pub(super) fn known(&self, diff_id: &DiffId) -> Option<StoredLayer> {
        self.state().known.get(diff_id).cloned()
    }

    /// Remembers a layer that was found after it was pinned.
    pub(super) fn learn(&self, layer: &StoredLayer) {
        let mut state = self.state();
        if state.pinned.contains(&Used::Layer(layer.diff_id)) {
            state.known.insert(layer.diff_id, layer.clone());
        }
    }

    /// Forgets what is known of every layer.
    pub(super) fn forget_all(&self) {
        self.state().known.clear();
    }

    /// Forgets what is known of a layer.
    pub(super) fn forget(&self, diff_id: &DiffId) {
        self.state().known.remove(diff_id);
    }

    /// Notes the use of a file that was last used at this time.
    pub(super) fn note(&self, path: &Path, last: SystemTime, granularity: Duration) {
        // A time in the future is as wrong as one that is long past.
        if SystemTime::now().duration_since(last).is_ok_and(|age| age < granularity) {
            return;
        }
        self.note_new(path);
    }

    /// Notes the use of a file that this process made.
    pub(super) fn note_new(&self, path: &Path) {
        let mut state = self.state();
        if state.holders > 0 {
            state.stale.push(path.to_owned());
        }
    }
}

/// Gives files the present as their time, the first the latest. One that is gone, or not ours, keeps what it has.
fn touch(paths: &[PathBuf]) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut seen = HashSet::new();
    for (place, path) in paths.iter().filter(|path| seen.insert(*path)).enumerate() {
        let time = now.saturating_sub(Duration::from_micros(place as u64));
        let (Ok(tv_sec), tv_nsec) = (i64::try_from(time.as_secs()), time.subsec_nanos().into()) else { return };
        let unchanged = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
        let times = Timestamps { last_access: unchanged, last_modification: Timespec { tv_sec, tv_nsec } };
        let _ = rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
    }
}

/// The gate, held alone: nobody pins anything until this is dropped.
#[derive(Debug)]
pub(super) struct Gate(#[expect(dead_code, reason = "held, never looked at")] Lock);

impl Store {
    /// Takes a share of the store, as every build does: from now on, and until the last share of this process ends,
    /// nothing that it finds or makes is removed by others. Waits only while somebody has the store alone
    /// ([`Store::exclusive`]).
    ///
    /// # Errors
    /// As for [`Store::lock`].
    pub fn share(&self, waiting: &mut dyn FnMut(&LockOwner) -> ControlFlow<()>) -> Result<Share, Error> {
        let mut state = self.uses.state();
        if state.holders == 0 {
            let path = self.layout.own_lock(GATE);
            let gate = lock::open(&path)?;
            let shared = || lock::try_lock(&path, gate.try_lock_shared());
            lock::poll("use the store", shared, || waiting(&LockOwner::read(&gate)))?;
            state.lease = Some(Lease::create(&self.layout, gate)?);
        }
        state.holders += 1;
        drop(state);
        Ok(Share { uses: Arc::clone(&self.uses) })
    }

    /// Takes the whole store alone: waits until nobody shares it, the caller's own process included, and keeps everybody
    /// off until the lock is dropped. For what changes things in their place; a collection does not need it.
    ///
    /// # Errors
    /// As for [`Store::lock`].
    pub fn exclusive(
        &self,
        purpose: &str,
        waiting: &mut dyn FnMut(&LockOwner) -> ControlFlow<()>,
    ) -> Result<Lock, Error> {
        let path = self.layout.own_lock(GATE);
        // Those who share the store do not say why: what stands in the file may be long past.
        let others = LockOwner { pid: None, purpose: "use the store".to_owned() };
        let file = lock::open(&path)?;
        let alone = || -> Result<bool, Error> {
            if !lock::try_lock(&path, file.try_lock())? {
                return Ok(false);
            }
            let alone = self.leases()?.iter().all(|lease| !lease.is_alive);
            if !alone {
                lock::patiently(&path, || file.unlock())?;
            }
            Ok(alone)
        };
        lock::poll(purpose, alone, || waiting(&others))?;
        let gate = Lock::of(file);
        gate.sign(purpose);
        Ok(gate)
    }

    /// Has every layer looked at anew: one that was found may have been found damaged since, here or by another process.
    pub fn look_again(&self) {
        self.uses.forget_all();
    }

    /// Notes that this process uses a cache mount, before it looks whether it is there.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn pin_mount(&self, name: ContentId) -> Result<(), Error> {
        self.uses.pin(Used::Mount(name))
    }

    /// Takes the gate; whoever has it is done in a moment, or has the store alone.
    pub(super) fn gate(&self) -> Result<Gate, Error> {
        Ok(Gate(self.own_lock(GATE)?))
    }

    /// Everything that living processes use, this one included.
    pub(super) fn pinned(&self, _gate: &Gate) -> Result<HashSet<Used>, Error> {
        let mut pinned = HashSet::new();
        for lease in self.leases()? {
            if !lease.is_alive {
                continue;
            }
            let bytes = match std::fs::read(&lease.path) {
                Ok(bytes) => bytes,
                // Its process has ended since, after whatever tag it had to write.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::at("read", &lease.path, error)),
            };
            pinned.extend(bytes.as_chunks().0.iter().filter_map(Used::from_bytes));
        }
        Ok(pinned)
    }

    /// Removes the leases of dead processes, unless somebody has the gate: then the next sweep does it.
    pub(super) fn remove_dead_leases(&self) -> Result<(), Error> {
        if self.leases()?.iter().all(|lease| lease.is_alive) {
            return Ok(());
        }
        let path = self.layout.own_lock(GATE);
        let gate = lock::open(&path)?;
        if !lock::try_lock(&path, gate.try_lock())? {
            return Ok(());
        }
        let _gate = Lock::of(gate);
        // Looked at again: only now is nobody between making a lease and locking it.
        self.leases()?.iter().filter(|lease| !lease.is_alive).try_for_each(|lease| remove_file(&lease.path))
    }

    /// Whether a dead process left a lease.
    pub(super) fn has_dead_leases(&self) -> bool {
        self.leases().is_ok_and(|leases| leases.iter().any(|lease| !lease.is_alive))
    }

    fn leases(&self) -> Result<Vec<FoundLease>, Error> {
        let directory = self.layout.locks();
        let fail = |error| Error::at("list", &directory, error);
        let mut leases = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if !entry.file_name().to_str().is_some_and(|name| name.starts_with(LEASE_PREFIX)) {
                continue;
            }
            let path = entry.path();
            match File::open(&path) {
                // Shared, so that two who look do not take each other for the owner.
                Ok(file) => {
                    let is_alive = !lock::try_lock(&path, file.try_lock_shared())?;
                    leases.push(FoundLease { path, is_alive });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::at("open", &path, error)),
            }
        }
        Ok(leases)
    }
}

struct FoundLease {
    path: PathBuf,
    /// Whether its process lives and shares the store.
    is_alive: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_pin_is_read_as_it_was_written(name: [u8; 32]) {
            let digest = Digest::from_bytes(name);
            for used in [Used::Layer(digest.into()), Used::Blob(digest), Used::Mount(ContentId::from_bytes(name))] {
                prop_assert_eq!(Used::from_bytes(&used.to_bytes()), Some(used));
            }
        }
    }
}
