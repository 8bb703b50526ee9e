//! Control groups: a group of its own for a run whose limits need one.
//!
//! Takes [`Limits`], gives a [`Group`] that the sandbox's first process is put into before it does anything, and
//! afterwards what the limits did ([`Reached`]). What is to be made and written is decided first, as a list of
//! [`Action`]s (`plan`, `v1`, `v2`); carrying it out decides nothing. Never a limit that is asked for and not set: what
//! this machine cannot do is an [`Error`] that says what is missing. A run without such limits costs nothing here.
//!
//! A group is made below the one that this process is in, so that limits which hold for Strata hold for its steps. Its
//! name tells its owner ([`owner`]), so that [`sweep`] can remove what a killed one left; groups are only ever removed
//! when they are empty, and no process outside a sandbox is ever killed or moved but this one.

mod error;
mod hierarchy;
mod owner;
mod plan;
#[cfg(test)]
mod tests;
mod usable;
mod v1;
mod v2;

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{Access, AtFlags, CWD, Mode, OFlags};

pub(super) use error::{Asked, Error};
pub(super) use hierarchy::Controller;
pub(super) use usable::Usable;

use crate::limits::{Limits, Pids};
use hierarchy::{Hierarchies, Version};
use owner::Owner;
use plan::{Action, Look, Planned};

/// Which limits a run came up against.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Reached {
    /// The kernel killed a process of it, because all of them together wanted more memory than they may have.
    pub memory: bool,
    /// The kernel refused it a process.
    pub pids: bool,
}

/// The control group of one run. Removed when dropped.
#[derive(Debug)]
pub(super) struct Group {
    /// Its directories, one in each hierarchy that is used.
    places: Vec<Place>,
    /// Directories above them that were made for it.
    parents: Vec<PathBuf>,
    /// The directory in version 2, to be cloned into.
    unified: Option<OwnedFd>,
    /// `cgroup.procs` in each hierarchy of version 1.
    procs: Vec<OwnedFd>,
}

#[derive(Debug)]
struct Place {
    directory: PathBuf,
    version: Version,
}

impl Group {
    /// Makes the group that these limits need; none if they need none.
    pub(super) fn make(limits: &Limits) -> Result<Option<Self>, Error> {
        let asked = Asked::of(limits);
        if asked.is_empty() && limits.cgroup_parent.is_none() {
            return Ok(None);
        }
        let hierarchies = Hierarchies::of_this_process();
        let this = Owner::of_this_process()?;
        let planned = plan::plan(&hierarchies, limits, &asked, &this.next_name(), &Host)?;
        // Whoever else made groups there and was killed is most likely to be noticed here.
        let parents = planned.places.iter().filter_map(|(directory, _)| directory.parent());
        parents.for_each(|directory| sweep_directory(directory, &this));
        Self::carry_out(planned).map(Some)
    }

    fn carry_out(planned: Planned) -> Result<Self, Error> {
        let mut group = Self { places: Vec::new(), parents: Vec::new(), unified: None, procs: Vec::new() };
        for action in planned.actions {
            match action {
                Action::Parent(path) => match make_directory(&path)? {
                    Made::Now => group.parents.push(path),
                    Made::Before => {}
                },
                Action::Leave(leaf) => leave(&leaf)?,
                Action::Group(path, version) => {
                    make_directory(&path)?;
                    group.places.push(Place { directory: path, version });
                }
                Action::Write { path, text, optional } => match write(&path, &text) {
                    Err(error) if optional && error.kind() == io::ErrorKind::NotFound => {}
                    result => result.map_err(|source| Error::Write { path, text, source })?,
                },
            }
        }
        for place in &group.places {
            let open = |path: &Path, flags| {
                rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty())
                    .map_err(|errno| Error::Open { path: path.to_owned(), source: errno.into() })
            };
            match place.version {
                Version::One => group.procs.push(open(&place.directory.join("cgroup.procs"), OFlags::WRONLY)?),
                // A process is in one group of each hierarchy, so there is one directory of version 2 at most.
                Version::Two => group.unified = Some(open(&place.directory, OFlags::PATH | OFlags::DIRECTORY)?),
            }
        }
        Ok(group)
    }

    /// The directory that `clone3` is to start the first process in.
    pub(super) fn unified(&self) -> Option<BorrowedFd<'_>> {
        self.unified.as_ref().map(AsFd::as_fd)
    }

    /// The files that the first process is to write its id (or `0`, which is the writer) to.
    pub(super) fn procs(&self) -> &[OwnedFd] {
        &self.procs
    }

    /// What the limits did so far.
    pub(super) fn reached(&self) -> Reached {
        let mut reached = Reached::default();
        for place in &self.places {
            let (kills, refusals) = match place.version {
                Version::One => (v1::MEMORY_EVENTS, v1::PIDS_EVENTS),
                Version::Two => (v2::MEMORY_EVENTS, v2::PIDS_EVENTS),
            };
            reached.memory |= counted(&place.directory, kills);
            reached.pids |= counted(&place.directory, refusals);
        }
        reached
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel takes a moment to let go of a process that was reaped.
        for place in &self.places {
            remove(&place.directory, 100);
        }
        // In use by another run, or by somebody else: then they stay.
        self.parents.iter().rev().for_each(|parent| remove(parent, 0));
    }
}

/// A file of `key number` lines, and the key that counts.
type Counter = (&'static str, &'static str);

fn counted(directory: &Path, (file, key): Counter) -> bool {
    let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
    count(&text, key).is_some_and(|count| count > 0)
}

/// The number behind `key` in a file of `key number` lines.
fn count(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}

fn remove(directory: &Path, tries: u32) {
    for _ in 0..=tries {
        match rustix::fs::rmdir(directory) {
            Err(rustix::io::Errno::BUSY) if tries > 0 => std::thread::sleep(Duration::from_millis(1)),
            // What resists is left for a sweep.
            _ => return,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Made {
    Now,
    Before,
}

fn make_directory(path: &Path) -> Result<Made, Error> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => Ok(Made::Now),
        Err(rustix::io::Errno::EXIST) => Ok(Made::Before),
        Err(errno) => Err(Error::Make { path: path.to_owned(), source: errno.into() }),
    }
}

/// Moves this process into a group of its own below the one it is in.
fn leave(leaf: &Path) -> Result<(), Error> {
    make_directory(leaf)?;
    let path = leaf.join("cgroup.procs");
    write(&path, "0").map_err(|source| Error::Write { path, text: "0".to_owned(), source })
}

/// Writes into a file that the kernel made, in one go.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let file = rustix::fs::open(path, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    rustix::io::write(&file, text.as_bytes())?;
    Ok(())
}

/// The kernel's own files.
#[derive(Debug)]
struct Host;

impl Look for Host {
    fn read(&self, path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    fn may_write(&self, path: &Path) -> bool {
        rustix::fs::accessat(CWD, path, Access::WRITE_OK, AtFlags::EACCESS).is_ok()
    }

    fn own_pid(&self) -> String {
        std::process::id().to_string()
    }
}

/// Removes the groups of owners that are no more. What cannot be removed is left.
pub fn sweep() {
    let Ok(this) = Owner::of_this_process() else { return };
    let hierarchies = Hierarchies::of_this_process();
    for (mount, own) in hierarchies.own_directories() {
        let directories = own.ancestors().take_while(|directory| directory.starts_with(&mount));
        directories.for_each(|directory| sweep_directory(directory, &this));
    }
}

fn sweep_directory(directory: &Path, this: &Owner) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if let Some(owner) = Owner::of_group(OsStr::new(&entry.file_name()))
            && owner.is_gone(this)
        {
            remove(&entry.path(), 0);
        }
    }
}

/// How many processes the group of a run may hold: those of the plan, and the sandbox's own first one.
fn pids_max(pids: Option<Pids>) -> Option<u64> {
    match pids {
        Some(Pids::Most(count)) => Some(count + 1),
        Some(Pids::Unlimited) | None => None,
    }
}
