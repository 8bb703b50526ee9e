//! Blobs: documents and compressed layers, named by the SHA-256 of their bytes, as files of the OCI layout.
//!
//! Takes bytes, gives digests, and bytes back. A blob appears complete, verified and on the disk, or not at all. Never
//! trusts what it reads: a blob that does not have its digest any more is removed, noted as [`Damage`], and missing.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::damage::Damage;
use super::error::Error;
use super::removal::remove_file;
use super::scratch::Workspace;
use super::uses::{GRANULARITY, Used};
use super::{Store, lock};
use crate::digest::{Digest, Sha256};

/// Nobody writes a blob: exported layouts share it by hard link.
pub(super) const BLOB_MODE: u32 = 0o444;
/// Enough to make the system calls few; larger writes pass by the buffer.
const BUFFER: usize = 128 * 1024;

/// The lock under which a blob's name comes to mean another file.
pub(super) const BLOBS_LOCK: &str = "blobs";

impl Store {
    /// Where a blob's bytes are, if the store has it. They are as they were when written, unless the disk failed:
    /// whoever reads them checks the digest, and calls [`Store::verify_blob`] if it is wrong.
    pub fn blob_path(&self, digest: &Digest) -> Option<PathBuf> {
        // What cannot be kept from a collection counts as missing: whoever makes it anew is told why.
        self.uses.pin(Used::Blob(*digest)).ok()?;
        let path = self.layout.blob(digest);
        let meta = std::fs::metadata(&path).ok().filter(Metadata::is_file)?;
        self.note_blob(&path, &meta);
        Some(path)
    }

    /// Whether a blob is there and has its size, which costs a look at its inode. One of another size is removed and noted.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn has_blob(&self, digest: &Digest, size: u64) -> Result<bool, Error> {
        self.uses.pin(Used::Blob(*digest))?;
        let path = self.layout.blob(digest);
        let Some(file) = open(&path)? else { return Ok(false) };
        let found = file.metadata().map_err(|error| Error::at("look at", &path, error))?;
        self.note_blob(&path, &found);
        if found.is_file() && found.len() != size {
            self.discard(digest, &path, &file)?;
        }
        Ok(found.is_file() && found.len() == size)
    }

    /// The bytes of a small blob, verified. `None` if the store does not have it, or had it damaged.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn read_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        self.uses.pin(Used::Blob(*digest))?;
        let path = self.layout.blob(digest);
        let Some(mut file) = open(&path)? else { return Ok(None) };
        let meta = file.metadata().map_err(|error| Error::at("read", &path, error))?;
        self.note_blob(&path, &meta);
        let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0).min(BUFFER) + 1);
        file.read_to_end(&mut bytes).map_err(|error| Error::at("read", &path, error))?;
        if Digest::of(&bytes) == *digest {
            return Ok(Some(bytes));
        }
        self.discard(digest, &path, &file)?;
        Ok(None)
    }

    /// The bytes of a small blob, verified and not pinned: for whoever decides what is removed, and has the gate.
    pub(super) fn peek_blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        let path = self.layout.blob(digest);
        let Some(mut file) = open(&path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(|error| Error::at("read", &path, error))?;
        Ok((Digest::of(&bytes) == *digest).then_some(bytes))
    }

    /// Whether a blob of any size is there and has its digest. One that is damaged is removed and noted.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn verify_blob(&self, digest: &Digest) -> Result<bool, Error> {
        self.uses.pin(Used::Blob(*digest))?;
        let path = self.layout.blob(digest);
        let Some(mut file) = open(&path)? else { return Ok(false) };
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => hasher.update(&buffer[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Error::at("read", &path, error)),
            }
        }
        let whole = hasher.finish() == *digest;
        if !whole {
            self.discard(digest, &path, &file)?;
        }
        Ok(whole)
    }

    /// Stores the bytes of a small blob, and gives its digest. Nothing is written if the store has them.
    ///
    /// # Errors
    /// What the operating system refused; [`Error::Full`] if there is no room.
    pub fn put_blob(&self, bytes: &[u8]) -> Result<Digest, Error> {
        let digest = Digest::of(bytes);
        if self.read_blob(&digest)?.is_none() {
            let mut writer = self.blob_writer()?;
            writer.write_all(bytes).map_err(|error| Error::at("write", &writer.path, error))?;
            writer.commit(Some((&digest, bytes.len() as u64)))?;
        }
        Ok(digest)
    }

    /// Starts a blob whose bytes come one after the other.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn blob_writer(&self) -> Result<BlobWriter<'_>, Error> {
        let workspace = self.workspace()?;
        let path = workspace.fresh();
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(|error| Error::at("create", &path, error))?;
        Ok(BlobWriter {
            store: self,
            path,
            file: BufWriter::with_capacity(BUFFER, file),
            hasher: Sha256::new(),
            size: 0,
            _workspace: workspace,
        })
    }

    /// Notes the use of a blob. A file that an exported layout shares keeps its time, which is part of that.
    fn note_blob(&self, path: &Path, meta: &Metadata) {
        if let (1, Ok(modified)) = (meta.nlink(), meta.modified()) {
            self.uses.note(path, modified, GRANULARITY);
        }
    }

    /// Removes a damaged blob, unless its name has come to mean another file since it was opened.
    fn discard(&self, digest: &Digest, path: &Path, file: &File) -> Result<(), Error> {
        let _lock = self.own_lock(BLOBS_LOCK)?;
        if lock::still_named(path, file)? {
            remove_file(path)?;
            self.notes.add(Damage::Blob { digest: *digest });
        }
        Ok(())
    }
}

fn open(path: &Path) -> Result<Option<File>, Error> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::at("read", path, error)),
    }
}

/// A blob on its way into the store; dropped without [`BlobWriter::commit`], it was never there.
///
/// Its [`Write`] wraps an [`Error`] of this module in the [`io::Error`] it gives, so that a full disk says where and
/// how much, whoever passes it on.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    store: &'a Store,
    path: PathBuf,
    file: BufWriter<File>,
    hasher: Sha256,
    size: u64,
    /// Keeps the process's directory locked.
    _workspace: Arc<Workspace>,
}

impl BlobWriter<'_> {
    /// Makes the blob visible, and gives its digest and size. With `expected`, only if it has this digest and size.
    ///
    /// # Errors
    /// [`Error::Mismatch`] if it is not what was expected; otherwise what the operating system refused.
    pub fn commit(mut self, expected: Option<(&Digest, u64)>) -> Result<(Digest, u64), Error> {
        let fail = |path: &Path, error| Error::at("write", path, error);
        self.file.flush().map_err(|error| fail(&self.path, error))?;
        let (found, found_size) = (std::mem::take(&mut self.hasher).finish(), self.size);
        if let Some((&expected, expected_size)) = expected
            && (expected, expected_size) != (found, found_size)
        {
            return Err(Error::Mismatch { expected, expected_size, found, found_size });
        }
        let file = self.file.get_ref();
        file.set_permissions(std::fs::Permissions::from_mode(BLOB_MODE)).map_err(|error| fail(&self.path, error))?;
        file.sync_data().map_err(|error| fail(&self.path, error))?;
        // Before it is there, so that no collection finds it first.
        self.store.uses.pin(Used::Blob(found))?;
        let path = self.store.layout.blob(&found);
        let _lock = self.store.own_lock(BLOBS_LOCK)?;
        std::fs::rename(&self.path, &path).map_err(|error| fail(&path, error))?;
        self.store.grow(found_size);
        Ok((found, found_size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes).map_err(|error| explain(&self.path, error))?;
        self.hasher.update(&bytes[..length]);
        self.size += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush().map_err(|error| explain(&self.path, error))
    }
}

impl Drop for BlobWriter<'_> {
    fn drop(&mut self) {
        // After a commit there is nothing under this name; what cannot be removed goes with the process's directory.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// The same failure, told by this module.
fn explain(path: &Path, error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::Interrupted {
        return error;
    }
    let error = Error::at("write", path, error);
    io::Error::new(error.kind(), error)
}
