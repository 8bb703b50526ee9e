//! Everything a store holds, listed and looked at by who verifies it.
//!
//! Gives what is there and whether it is what its name says. Changes nothing, except where something found damaged is
//! expressly to be removed; then what needs it counts it as a miss.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::Store;
use super::error::Error;
use super::layout::Layout;
use super::record::value_of;
use super::removal::remove_file;
use crate::digest::{Digest, Key, Sha256};

/// The directory of `cache/` that holds no records.
const CONTEXTS: &str = "contexts";

/// Enough to make the system calls few.
const BUFFER: usize = 256 * 1024;

/// What is in the directory of blobs.
#[derive(Debug, Default)]
pub struct Blobs {
    /// The blobs, with their sizes in bytes.
    pub blobs: Vec<(Digest, u64)>,
    /// What has no digest for a name.
    pub strangers: Vec<PathBuf>,
}

/// Whether a blob is what its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlobState {
    /// Its bytes have its digest.
    Whole,
    /// They have not.
    Damaged,
    /// It is not there.
    Missing,
}

/// A file of a bucket.
#[derive(Debug)]
pub struct RecordFile {
    /// The bucket's name.
    pub bucket: String,
    /// Where it is.
    pub path: PathBuf,
    /// What it remembers; `None` if it is not what was written under its name.
    pub value: Option<Vec<u8>>,
}

impl Store {
    /// The blobs there are.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn blobs(&self) -> Result<Blobs, Error> {
        let mut found = Blobs::default();
        for path in entries(&self.layout.blobs())? {
            let digest = name(&path).and_then(|hex| format!("sha256:{hex}").parse().ok());
            match (digest, path.symlink_metadata()) {
                (Some(digest), Ok(meta)) if meta.is_file() => found.blobs.push((digest, meta.len())),
                // Removed meanwhile.
                (_, Err(error)) if error.kind() == io::ErrorKind::NotFound => {}
                _ => found.strangers.push(path),
            }
        }
        Ok(found)
    }

    /// Reads a blob and tells whether it has its digest. `passed` is told how many bytes were read.
    ///
    /// # Errors
    /// What the operating system refused; what the disk cannot read counts as damaged.
    pub fn look_at_blob(&self, digest: &Digest, passed: &dyn Fn(u64)) -> Result<BlobState, Error> {
        let path = self.layout.blob(digest);
        let mut file = match std::fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BlobState::Missing),
            Err(error) => return Err(Error::at("read", &path, error)),
        };
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; BUFFER];
        loop {
            match file.read(&mut buffer) {
                Ok(0) => break,
                Ok(length) => {
                    hasher.update(&buffer[..length]);
                    passed(length as u64);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(libc::EIO) => return Ok(BlobState::Damaged),
                Err(error) => return Err(Error::at("read", &path, error)),
            }
        }
        Ok(if hasher.finish() == *digest { BlobState::Whole } else { BlobState::Damaged })
    }

    /// The names of the buckets that hold records.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn buckets(&self) -> Result<Vec<String>, Error> {
        let all = entries(&self.layout.root().join("cache"))?;
        let mut names: Vec<String> = all.iter().filter_map(|path| name(path)).map(str::to_owned).collect();
        names.retain(|name| name != CONTEXTS);
        names.sort_unstable();
        Ok(names)
    }

    /// Reads the records of a bucket, one after the other. What is called otherwise than a record is damaged.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn records(&self, bucket: &str, each: &mut dyn FnMut(RecordFile)) -> Result<(), Error> {
        for directory in entries(&self.layout.root().join("cache").join(bucket))? {
            for path in entries(&directory)? {
                let key = name(&path).and_then(|hex| format!("blake3:{hex}").parse::<Key>().ok());
                let file = match std::fs::read(&path) {
                    Ok(file) => Some(file),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(_) => None,
                };
                let value = key.zip(file).and_then(|(key, file)| value_of(bucket, &key, file));
                each(RecordFile { bucket: bucket.to_owned(), path, value });
            }
        }
        Ok(())
    }

    /// The indexes of contexts.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn context_indexes(&self) -> Result<Vec<PathBuf>, Error> {
        entries(&self.layout.root().join("cache").join(CONTEXTS))
    }

    /// Removes a damaged file below `cache/`.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn forget(&self, path: &Path) -> Result<(), Error> {
        debug_assert!(path.starts_with(self.layout.root().join("cache")), "only memories are forgotten");
        remove_file(path)
    }

    /// Whether the file that says that `oci/` is an OCI layout says so.
    pub fn oci_layout_is_sound(&self) -> bool {
        std::fs::read(self.layout.oci_layout()).is_ok_and(|bytes| {
            let document = serde_json::from_slice::<serde_json::Value>(&bytes);
            document.is_ok_and(|document| document.get("imageLayoutVersion").is_some())
        })
    }

    /// Writes that file anew.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn mend_oci_layout(&self) -> Result<(), Error> {
        super::open::write_oci_layout(self)
    }

    /// Where the list of names and its copy are.
    pub fn index_paths(&self) -> [PathBuf; 2] {
        let layout: &Layout = &self.layout;
        [layout.index(), layout.index_copy()]
    }
}

fn name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// The entries of a directory; none if it is gone.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |error| Error::at("list", directory, error);
    match std::fs::read_dir(directory) {
        Ok(found) => found.map(|entry| entry.map(|entry| entry.path()).map_err(fail)).collect(),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(Vec::new()),
        Err(error) => Err(fail(error)),
    }
}
