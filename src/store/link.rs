//! Hands a blob out of the store without copying it where the file systems allow.
//!
//! Takes a digest and a path outside, gives the path the blob's bytes: by hard link, else by reflink, else by copy.
//! Never changes the bytes, and never leaves a part of them under the path asked for.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::Store;
use super::blob::BLOB_MODE;
use super::error::Error;
use super::id::Id;
use crate::digest::Digest;

/// How a file came to have a blob's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Linked {
    /// It is the blob's file under another name.
    HardLink,
    /// It shares the blob's blocks until one of them is written.
    Reflink,
    /// It is a copy.
    Copy,
}

impl Store {
    /// Gives the file `dest` the bytes of a blob, replacing what was there.
    ///
    /// # Errors
    /// [`Error::NoBlob`] if the store does not have it; otherwise what the operating system refused.
    pub fn link_blob(&self, digest: &Digest, dest: &Path) -> Result<Linked, Error> {
        let source = self.layout.blob(digest);
        let mut name = dest.as_os_str().to_owned();
        name.push(format!(".{}", Id::random()));
        let temporary = PathBuf::from(name);
        let outcome = bring(&source, &temporary).and_then(|how| std::fs::rename(&temporary, dest).map(|()| how));
        // Renaming one name of a file to another of its names does nothing, and leaves both.
        let _ = std::fs::remove_file(&temporary);
        outcome.map_err(|error| match error.kind() {
            io::ErrorKind::NotFound if !source.exists() => Error::NoBlob { digest: *digest },
            _ => Error::at("write", dest, error),
        })
    }
}

fn bring(source: &Path, temporary: &Path) -> io::Result<Linked> {
    match std::fs::hard_link(source, temporary) {
        Ok(()) => return Ok(Linked::HardLink),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::StorageFull) => {
            return Err(error);
        }
        // Another file system, one without hard links, too many of them, or another owner's file.
        Err(_) => {}
    }
    let from = File::open(source)?;
    let to = OpenOptions::new().write(true).create_new(true).mode(0o600).open(temporary)?;
    let how = if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        Linked::Reflink
    } else {
        io::copy(&mut &from, &mut &to)?;
        Linked::Copy
    };
    to.set_permissions(std::fs::Permissions::from_mode(BLOB_MODE))?;
    Ok(how)
}
