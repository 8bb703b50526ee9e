//! Puts a small file in its place: whole, or not at all.
//!
//! Takes bytes and a path, writes them in the process's own directory and renames them. Never leaves a half-written
//! file under a name that is read.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::Store;
use super::error::Error;

/// What is left of a file after the machine lost power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// The old file, the new one, or rubbish: its reader can tell.
    Lazy,
    /// The old file or the new one, and the new one from the moment the call returned.
    Synced,
}

impl Store {
    /// Replaces the file at `path` by these bytes, making its directory if need be.
    pub(super) fn place(&self, path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> Result<(), Error> {
        let temporary = self.workspace()?.fresh();
        let written = write(&temporary, bytes, mode, durability)
            .map_err(|error| Error::at("write", path, error))
            .and_then(|()| rename(&temporary, path));
        if written.is_err() {
            // The first failure is the one to tell; the rest goes with the process's directory.
            let _ = std::fs::remove_file(&temporary);
        }
        written?;
        match (durability, path.parent()) {
            (Durability::Synced, Some(directory)) => sync_directory(directory),
            _ => Ok(()),
        }
    }
}

fn write(path: &Path, bytes: &[u8], mode: u32, durability: Durability) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.write_all(bytes)?;
    if durability == Durability::Synced { file.sync_data() } else { Ok(()) }
}

/// Renames a finished file, making the directory it goes to if it is not there.
fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    let fail = |error| Error::at("write", to, error);
    match std::fs::rename(from, to) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let Some(directory) = to.parent() else { return Err(fail(error)) };
            std::fs::create_dir_all(directory).map_err(|error| Error::at("create", directory, error))?;
            std::fs::rename(from, to).map_err(fail)
        }
        outcome => outcome.map_err(fail),
    }
}

/// Makes the names in a directory survive a loss of power.
pub(super) fn sync_directory(path: &Path) -> Result<(), Error> {
    File::open(path).and_then(|directory| directory.sync_all()).map_err(|error| Error::at("sync", path, error))
}
