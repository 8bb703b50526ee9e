//! How layers survive a loss of power though nobody waits for the disk.
//!
//! A layer may be thousands of files, and syncing them would cost more than making them. So a layer is renamed into its
//! place while the kernel still holds most of it in memory. That is safe as long as the machine runs: killing a process
//! loses nothing that it wrote. What it takes to be safe when the machine stops:
//!
//! 1. Before its first layer a process creates `locks/writer-<id>`, writes the boot id of the machine into it
//!    (`/proc/sys/kernel/random/boot_id`, new at every boot), locks it, and syncs the file and the directory. Every
//!    `layer.json` names the writer and the boot. So whatever part of a layer survives, its writer's file survives.
//! 2. A layer whose boot is not the present one is used only if its writer's file is gone. Any reader checks that, so
//!    it holds before any recovery.
//! 3. A writer's file goes in one of two ways, both in [`Store::sweep`] and only when its lock is free. If its boot is
//!    the present one, everything it wrote is in the kernel's hands: `syncfs(2)` brings it to the disk, in the background
//!    and not before the file is a minute old, when the kernel has written most of it anyway. Then the file is removed,
//!    and its layers are as good as synced. If its boot is another one, the machine stopped before that: its layers are
//!    removed, and those that cannot be read. The directory is synced, and then the file is removed.
//!
//! A record that names a removed layer is a miss. Blobs and `index.json` are synced when written, and do not need this.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::PoisonError;
use std::time::{Duration, SystemTime};

use super::Store;
use super::error::Error;
use super::id::Id;
use super::layout::{Layout, WRITER_PREFIX};
use super::lock;
use super::place::sync_directory;
use super::removal::remove_file;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// A dead writer's layers are synced when its file is this old.
const SETTLING: Duration = Duration::from_secs(60);

/// This process as a writer of layers.
#[derive(Debug)]
pub(super) struct Writer {
    id: Id,
    /// Holds the lock.
    file: File,
}

impl Writer {
    fn register(layout: &Layout, boot: &str) -> Result<Self, Error> {
        loop {
            let id = Id::random();
            let path = layout.writer(&id);
            let fail = |error| Error::at("create", &path, error);
            let mut file =
                OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).map_err(fail)?;
            // A sweep may see the new file before it is locked, and remove it: then try another.
            if !lock::try_lock(&path, file.try_lock())? || !lock::still_named(&path, &file)? {
                continue;
            }
            let registered = file
                .write_all(boot.as_bytes())
                .and_then(|()| file.sync_all())
                .map_err(fail)
                .and_then(|()| sync_directory(&layout.locks()));
            if let Err(error) = registered {
                // It has named no layer yet.
                let _ = std::fs::remove_file(&path);
                return Err(error);
            }
            return Ok(Self { id, file });
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // Closing is not enough: a process forked meanwhile may share the open file for a moment.
        let _ = self.file.unlock();
    }
}

impl Store {
    /// This process's name as a writer of layers, registered when it is first asked for.
    pub(super) fn writer(&self) -> Result<Id, Error> {
        let mut writer = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(writer) = &*writer {
            return Ok(writer.id.clone());
        }
        let registered = Writer::register(&self.layout, self.boot()?)?;
        let id = registered.id.clone();
        *writer = Some(registered);
        Ok(id)
    }

    /// The boot id of the machine.
    pub(super) fn boot(&self) -> Result<&str, Error> {
        if let Some(boot) = self.boot.get() {
            return Ok(boot);
        }
        let path = Path::new(BOOT_ID);
        let text = std::fs::read_to_string(path).map_err(|error| Error::at("read", path, error))?;
        Ok(self.boot.get_or_init(|| text.trim().to_owned()))
    }

    /// Whether what a writer wrote during a boot is known to have survived.
    pub(super) fn reached_the_disk(&self, writer: &Id, boot: &str) -> Result<bool, Error> {
        if boot == self.boot()? {
            return Ok(true);
        }
        let path = self.layout.writer(writer);
        match path.try_exists() {
            Ok(exists) => Ok(!exists),
            Err(error) => Err(Error::at("look at", &path, error)),
        }
    }

    /// Removes the layers that the machine may have lost, before anyone uses them. Gives the directories they were moved
    /// to, and the writers whose layers are still to be synced.
    pub(super) fn recover(&self) -> Result<Recovered, Error> {
        let (mut lost, mut unsettled) = (Vec::new(), Vec::new());
        for writer in self.dead_writers()? {
            if writer.boot != self.boot()? {
                lost.push(writer);
            } else if writer.age >= SETTLING {
                unsettled.push(writer);
            }
        }
        let mut aside = Vec::new();
        if !lost.is_empty() {
            for diff_id in self.layers()? {
                if self.is_unusable(&diff_id)? {
                    aside.extend(self.set_aside(&diff_id)?);
                }
            }
            sync_directory(&self.layout.layers())?;
        }
        for writer in lost {
            remove_file(&writer.path)?;
        }
        Ok(Recovered { aside, unsettled })
    }

    fn dead_writers(&self) -> Result<Vec<DeadWriter>, Error> {
        let directory = self.layout.locks();
        let mut dead = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(|error| Error::at("list", &directory, error))? {
            let entry = entry.map_err(|error| Error::at("list", &directory, error))?;
            let name = entry.file_name();
            if name.to_str().is_some_and(|name| name.starts_with(WRITER_PREFIX)) {
                dead.extend(DeadWriter::open(entry.path())?);
            }
        }
        Ok(dead)
    }
}

/// What recovery leaves to be done when nobody waits.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// Directories to be removed.
    pub(super) aside: Vec<PathBuf>,
    /// Writers to be settled.
    pub(super) unsettled: Vec<DeadWriter>,
}

/// A writer whose lock was free, and is ours now.
#[derive(Debug)]
pub(super) struct DeadWriter {
    path: PathBuf,
    file: File,
    /// The boot it ran in; empty if it died before it wrote that, and so before its first layer.
    boot: String,
    age: Duration,
}

impl DeadWriter {
    fn open(path: PathBuf) -> Result<Option<Self>, Error> {
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Error::at("open", &path, error)),
        };
        if !lock::try_lock(&path, file.try_lock())? || !lock::still_named(&path, &file)? {
            return Ok(None);
        }
        let mut boot = Vec::new();
        file.read_to_end(&mut boot).map_err(|error| Error::at("read", &path, error))?;
        let modified = file.metadata().and_then(|meta| meta.modified());
        let modified = modified.map_err(|error| Error::at("look at", &path, error))?;
        // A file from the future counts as new.
        let age = SystemTime::now().duration_since(modified).unwrap_or_default();
        Ok(Some(Self { path, file, boot: String::from_utf8_lossy(&boot).trim().to_owned(), age }))
    }

    /// Brings to the disk what a writer of this boot left to the kernel.
    pub(super) fn settle(writers: &[Self]) -> Result<(), Error> {
        let Some(any) = writers.first() else { return Ok(()) };
        rustix::fs::syncfs(&any.file).map_err(|errno| Error::at("sync the file system of", &any.path, errno))?;
        writers.iter().try_for_each(|writer| remove_file(&writer.path))
    }
}
