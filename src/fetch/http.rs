//! Files over HTTP, each fetched once.
//!
//! A file is kept as a blob of the store. What its host said of it is remembered under its address; with that the host is
//! asked whether it has changed. Where the recipe gives the checksum, what is known to have it is taken without asking.

use std::io;

use serde::{Deserialize, Serialize};

use super::{Error, FetchedTree, Fetcher};
use crate::digest::{Digest, Key};
use crate::fetch::tree::OneFile;
use crate::progress::Task;
use crate::recipe::remote::file_name;
use crate::registry::{Download, Validators};
use crate::store::{self, Bucket};

/// What hosts said of files, by address.
const DOWNLOADS: Bucket = Bucket::new("downloads-v1");

/// A file that was fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpFile {
    /// The name it gets: the last part of its address.
    pub name: String,
    /// The blob it is.
    pub digest: Digest,
    /// When its host last changed it, in seconds since 1970, where the host says so.
    pub modified: Option<i64>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Known {
    digest: Digest,
    etag: Option<String>,
    last_modified: Option<String>,
}

impl Fetcher<'_> {
    /// The file at an address, in the store. With `checksum` it is that one or none.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn http(&self, address: &str, checksum: Option<&Digest>, task: &Task<'_>) -> Result<HttpFile, Error> {
        let key = Key::from(blake3::hash(address.as_bytes()));
        let _lock = self.lock(&format!("download-{}", key.hex()), "fetch a file", task)?;
        let known = self.known(&key);
        if let Some(known) = known.as_ref().filter(|known| checksum == Some(&known.digest)) {
            return Ok(file(address, known));
        }
        let validators = known.as_ref().map(Known::validators).unwrap_or_default();
        let mut start = || self.store.blob_writer().map_err(io::Error::other);
        let progress = |done, total| task.transferred(done, total);
        let credential = self.credential_for_file(address)?;
        let downloaded = self.client.download(address, credential.as_ref(), &validators, &mut start, &progress);
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let known = match (downloaded?, known) {
            (Download::Unchanged, Some(known)) => {
                verify(address, checksum, known.digest)?;
                known
            }
            // Only who gave validators is told that nothing changed, and only what is known has some.
            (Download::Unchanged, None) => return Err(Error::Cancelled),
            (Download::Whole { validators, size, sink }, _) => {
                let committed = sink.commit(checksum.map(|checksum| (checksum, size)));
                let (digest, _) = committed.map_err(|error| match (error, checksum) {
                    (store::Error::Mismatch { found, .. }, Some(expected)) => mismatch(address, *expected, found),
                    (error, _) => error.into(),
                })?;
                let Validators { etag, last_modified } = validators;
                Known { digest, etag, last_modified }
            }
        };
        // Without the record the file is fetched again, and that is all.
        if let Ok(value) = serde_json::to_vec(&known) {
            let _ = self.store.write_record(DOWNLOADS, &key, &value);
        }
        Ok(file(address, &known))
    }

    /// What is known of an address, if the file is still there.
    fn known(&self, key: &Key) -> Option<Known> {
        let known: Known = serde_json::from_slice(&self.store.read_record(DOWNLOADS, key)?).ok()?;
        self.store.blob_path(&known.digest).map(|_| known)
    }

    pub(super) fn open_file(&self, file: &HttpFile) -> Result<FetchedTree, Error> {
        // Its bytes become part of a layer under the name of this digest: they must have it.
        let is_whole = self.store.verify_blob(&file.digest)?;
        let path = self.store.blob_path(&file.digest).filter(|_| is_whole);
        let path = path.ok_or(store::Error::NoBlob { digest: file.digest })?;
        // A file of which nothing is said is from 1970, as in BuildKit.
        let one = OneFile::new(&file.name, path.clone(), file.modified.unwrap_or(0));
        Ok(FetchedTree::File(one.map_err(|source| Error::File { path, source })?))
    }
}

impl Known {
    fn validators(&self) -> Validators {
        Validators { etag: self.etag.clone(), last_modified: self.last_modified.clone() }
    }
}

fn file(address: &str, known: &Known) -> HttpFile {
    let parse = |date: &String| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date).ok();
    let modified = known.last_modified.as_ref().and_then(parse).map(|date| date.as_second());
    HttpFile { name: file_name(address), digest: known.digest, modified }
}

fn verify(address: &str, checksum: Option<&Digest>, actual: Digest) -> Result<(), Error> {
    match checksum {
        Some(expected) if *expected != actual => Err(mismatch(address, *expected, actual)),
        _ => Ok(()),
    }
}

fn mismatch(address: &str, expected: Digest, actual: Digest) -> Error {
    let address = address.split(['?', '#']).next().unwrap_or_default().to_owned();
    Error::Checksum { address, expected, actual }
}
