//! Opens a store, making what is missing of it.
//!
//! Looks, and writes only where something is missing: an existing store costs 17 system calls. Never touches
//! a store of a newer schema, nor a directory that holds something else.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::Store;
use super::error::Error;
use super::layout::{DIRECTORIES, Layout};
use super::place::Durability;

/// The schema of the whole tree. It changes when an older release could not use, or would spoil, what a newer one wrote.
const SCHEMA: u64 = 1;

/// What `oci-layout` says (OCI image-spec, image-layout.md).
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// The lock under which a new store is made.
const OPEN_LOCK: &str = "open";

/// Makes sure that the store is there and can be written.
pub(super) fn prepare(store: &Store) -> Result<(), Error> {
    let layout = &store.layout;
    let known = check_schema(layout)?;
    if !known {
        std::fs::create_dir_all(layout.root()).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => Error::NotADirectory { path: layout.root().to_owned() },
            _ => Error::at("create", layout.root(), error),
        })?;
        refuse_strangers(layout.root())?;
    }
    for (name, mode) in DIRECTORIES {
        make_directory(&layout.root().join(name), mode)?;
    }
    check_writable(layout)?;
    if known && layout.oci_layout().exists() && layout.index().exists() {
        return Ok(());
    }
    let _lock = store.own_lock(OPEN_LOCK)?;
    store.place(&layout.oci_layout(), OCI_LAYOUT, 0o644, Durability::Synced)?;
    store.create_index()?;
    // Last, since it says that the rest is there. Another process may have been faster, and newer.
    if check_schema(layout)? {
        return Ok(());
    }
    store.place(&layout.version(), format!("{SCHEMA}\n").as_bytes(), 0o644, Durability::Synced)
}

/// Whether there is a store of this schema; `false` if there is none.
fn check_schema(layout: &Layout) -> Result<bool, Error> {
    let path = layout.version();
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::NotADirectory { path: layout.root().to_owned() });
        }
        Err(error) => return Err(Error::at("read", &path, error)),
    };
    match text.parse::<u64>() {
        Ok(SCHEMA) => Ok(true),
        Ok(found) if found > SCHEMA => Err(Error::NewerSchema { path, found, supported: SCHEMA }),
        _ => Err(Error::UnknownSchema { path, text: text.chars().take(40).collect() }),
    }
}

/// A store is made in an empty directory, or goes on being made in one where that was interrupted.
fn refuse_strangers(root: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(root).map_err(|error| Error::at("list", root, error))? {
        let name = entry.map_err(|error| Error::at("list", root, error))?.file_name();
        let name = name.to_string_lossy();
        // A file system made for the store has a `lost+found`; the version may be of a process that was faster.
        let ours = DIRECTORIES.iter().any(|(ours, _)| *ours == name) || matches!(&*name, "lost+found" | "version");
        if !ours {
            return Err(Error::NotAStore { path: root.to_owned(), entry: name.into_owned() });
        }
    }
    Ok(())
}

fn make_directory(path: &Path, mode: u32) -> Result<(), Error> {
    if path.is_dir() {
        return Ok(());
    }
    match rustix::fs::mkdir(path, Mode::from_raw_mode(mode)) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) if path.is_dir() => Ok(()),
        Err(Errno::EXIST) => Err(Error::NotADirectory { path: path.to_owned() }),
        Err(errno) => Err(Error::at("create", path, errno)),
    }
}

/// Says now what the first write would say later, in the middle of a build.
fn check_writable(layout: &Layout) -> Result<(), Error> {
    let path = layout.tmp();
    rustix::fs::accessat(CWD, &path, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS)
        .or_else(|errno| match errno {
            // Some sandboxes know `access` only without flags.
            Errno::NOSYS | Errno::INVAL => rustix::fs::access(&path, Access::WRITE_OK | Access::EXEC_OK),
            _ => Err(errno),
        })
        .map_err(|errno| Error::at("write to", &path, errno))
}
