//! Opens a store, making what is missing of it.
//!
//! Looks, and writes only where something is missing: an existing store costs 17 system calls. Never touches
//! a store of a newer schema, nor a directory that holds something else.
//!
//! A store of an older schema, or one whose `version` cannot be read, is *rebuilt*: what others can read and nobody could
//! make again stays (`oci/` with the names, cache mounts, logs), and `layers/` and `cache/`, whose form is ours alone, are
//! dropped as one drops a cache. There is one rule for all older schemas, so that there is no code for any of them.

use std::io;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, Mode};
use rustix::io::Errno;

use super::Store;
use super::damage::Damage;
use super::error::Error;
use super::layout::{DIRECTORIES, INDEX_COPY, Layout};
use super::place::{Durability, sync_directory};

/// The schema of the whole tree. It changes when an older release could not use, or would spoil, what a newer one wrote,
/// or this one not use what an older one wrote.
///
/// 2: layers that others made have a seal; `index.json` has a copy.
pub(super) const SCHEMA: u64 = 2;

/// What of a store is dropped when its schema is not ours.
const DROPPED: [&str; 2] = ["layers", "cache"];

/// What stands in `version`.
#[derive(Debug, PartialEq, Eq)]
enum Schema {
    /// Nothing: there is no store, or not yet.
    None,
    Ours,
    /// A number below ours, or no number.
    Older(String),
}

/// What `oci-layout` says (OCI image-spec, image-layout.md).
const OCI_LAYOUT: &[u8] = b"{\"imageLayoutVersion\":\"1.0.0\"}\n";

/// The lock under which a new store is made.
const OPEN_LOCK: &str = "open";

/// Makes sure that the store is there and can be written.
pub(super) fn prepare(store: &Store) -> Result<(), Error> {
    let layout = &store.layout;
    let schema = check_schema(layout)?;
    if let Schema::Older(found) = &schema {
        return rebuild(store, found);
    }
    let known = schema == Schema::Ours;
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
    write_oci_layout(store)?;
    store.create_index()?;
    // Last, since it says that the rest is there. Another process may have been faster, and newer.
    if check_schema(layout)? == Schema::Ours {
        return Ok(());
    }
    write_version(store)
}

pub(super) fn write_oci_layout(store: &Store) -> Result<(), Error> {
    store.place(&store.layout.oci_layout(), OCI_LAYOUT, 0o644, Durability::Synced)
}

fn write_version(store: &Store) -> Result<(), Error> {
    store.place(&store.layout.version(), format!("{SCHEMA}\n").as_bytes(), 0o644, Durability::Synced)
}

/// Makes a store of another schema one of ours, without what only that schema's releases understand.
fn rebuild(store: &Store, found: &str) -> Result<(), Error> {
    let layout = &store.layout;
    // What is there to be kept must be a store's: not every directory with a file called `version` is one.
    if !layout.oci_layout().exists() || !layout.locks().is_dir() {
        return Err(Error::UnknownSchema { path: layout.version(), text: found.to_owned() });
    }
    for (name, mode) in DIRECTORIES {
        make_directory(&layout.root().join(name), mode)?;
    }
    check_writable(layout)?;
    let mut impatient = |_: &super::LockOwner| std::ops::ControlFlow::Break(());
    let _alone = store.exclusive("rebuild the store", &mut impatient).map_err(|error| match error {
        Error::Cancelled { .. } => Error::OlderInUse { path: layout.version(), found: found.to_owned() },
        error => error,
    })?;
    // Another process may have been faster.
    if check_schema(layout)? == Schema::Ours {
        return Ok(());
    }
    for name in DROPPED {
        // The next sweep removes what is moved here; killed on the way, the next opening goes on.
        let path = layout.root().join(name);
        std::fs::rename(&path, store.workspace()?.fresh()).map_err(|error| Error::at("drop", &path, error))?;
    }
    for (name, mode) in DIRECTORIES {
        make_directory(&layout.root().join(name), mode)?;
    }
    sync_directory(layout.root())?;
    write_version(store)?;
    store.notes.add(Damage::Schema { found: found.to_owned() });
    Ok(())
}

/// Which schema a store has.
fn check_schema(layout: &Layout) -> Result<Schema, Error> {
    let path = layout.version();
    let text = match std::fs::read(&path) {
        Ok(text) => String::from_utf8_lossy(&text).trim().to_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Schema::None),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(Error::NotADirectory { path: layout.root().to_owned() });
        }
        Err(error) => return Err(Error::at("read", &path, error)),
    };
    match text.parse::<u64>() {
        Ok(SCHEMA) => Ok(Schema::Ours),
        Ok(found) if found > SCHEMA => Err(Error::NewerSchema { path, found, supported: SCHEMA }),
        _ => Ok(Schema::Older(text.chars().take(40).collect())),
    }
}

/// A store is made in an empty directory, or goes on being made in one where that was interrupted.
fn refuse_strangers(root: &Path) -> Result<(), Error> {
    for entry in std::fs::read_dir(root).map_err(|error| Error::at("list", root, error))? {
        let name = entry.map_err(|error| Error::at("list", root, error))?.file_name();
        let name = name.to_string_lossy();
        // A file system made for the store has a `lost+found`; the version may be of a process that was faster.
        let ours = DIRECTORIES.iter().any(|(ours, _)| *ours == name)
            || matches!(&*name, "lost+found" | "version" | INDEX_COPY);
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
