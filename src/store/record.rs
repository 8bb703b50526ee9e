//! Records: small values remembered under a key, such as what a step gave.
//!
//! Takes and gives any bytes. A record is never needed: one that is missing, torn by a loss of power, changed by a
//! failing disk or found under another key is a miss. So nothing waits for the disk here.
//!
//! A file is one line, `strata-record 1 LENGTH BLAKE3`, and the value; the digest covers bucket, key and value.

use std::io;
use std::path::Path;

use super::Store;
use super::damage::Damage;
use super::dated;
use super::error::Error;
use super::place::Durability;
use super::uses::RECORD_GRANULARITY;
use crate::digest::Key;

/// What every record begins with; the number is this file format's.
const MAGIC: &str = "strata-record 1";

/// One kind of records, a directory under `cache/`. Its name carries the version of their form, so that another
/// release never reads what it does not understand: `steps-v1`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bucket(&'static str);

impl Bucket {
    /// The bucket of a name: lower-case letters, digits and hyphens, and not `contexts`.
    ///
    /// # Panics
    /// Where the name is anything else; in a `const`, that is an error of the compiler.
    pub const fn new(name: &'static str) -> Self {
        let bytes = name.as_bytes();
        let mut index = 0;
        while index < bytes.len() {
            assert!(matches!(bytes[index], b'a'..=b'z' | b'0'..=b'9' | b'-'), "a bucket is named by [a-z0-9-]");
            index += 1;
        }
        assert!(!bytes.is_empty() && !matches!(bytes, b"contexts"), "a bucket needs a name of its own");
        Self(name)
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

impl Store {
    /// What was remembered under a key. Any trouble is a miss; a damaged record is removed and noted.
    pub fn read_record(&self, bucket: Bucket, key: &Key) -> Option<Vec<u8>> {
        let path = self.layout.record(bucket, key);
        let (mut file, modified) = dated::read(&path).ok()?;
        let Some(start) = value_start(bucket, key, &file) else {
            // Whoever replaced it meanwhile loses a record, which is a miss like any other.
            let _ = std::fs::remove_file(&path);
            self.notes.add(Damage::Record { path });
            return None;
        };
        file.drain(..start);
        self.uses.note(&path, modified, RECORD_GRANULARITY);
        Some(file)
    }

    /// The same for somebody who only wants to know: it does not count as a use, and what is damaged stays.
    pub fn glance_at_record(&self, bucket: Bucket, key: &Key) -> Option<Vec<u8>> {
        let mut file = std::fs::read(self.layout.record(bucket, key)).ok()?;
        let start = value_start(bucket, key, &file)?;
        file.drain(..start);
        Some(file)
    }

    /// Whether the record of a key was found damaged, since damage was last asked for.
    pub fn found_damaged(&self, bucket: Bucket, key: &Key) -> bool {
        self.notes.has(&Damage::Record { path: self.layout.record(bucket, key) })
    }

    /// Remembers a value under a key, in place of an older one.
    ///
    /// # Errors
    /// What the operating system refused. A build can go on without the record.
    pub fn write_record(&self, bucket: Bucket, key: &Key, value: &[u8]) -> Result<(), Error> {
        let mut file = header(bucket.name(), key, value).into_bytes();
        file.extend_from_slice(value);
        self.place(&self.layout.record(bucket, key), &file, 0o600, Durability::Lazy)
    }

    /// Forgets what was remembered under a key; whether there was anything.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn remove_record(&self, bucket: Bucket, key: &Key) -> Result<bool, Error> {
        let path = self.layout.record(bucket, key);
        match std::fs::remove_file(&path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(Error::at("remove", &path, error)),
        }
    }
}

/// The value in a record's file, if the file is what was written under this key in the bucket of this name.
pub(super) fn value_of(bucket: &str, key: &Key, mut file: Vec<u8>) -> Option<Vec<u8>> {
    let start = start_of(bucket, key, &file)?;
    file.drain(..start);
    Some(file)
}

/// The value in a record's file; `None` if it is not whole. The key is taken from the path.
pub(super) fn value_in(path: &Path) -> Option<Vec<u8>> {
    let key = format!("blake3:{}", path.file_name()?.to_str()?).parse().ok()?;
    let bucket = path.parent()?.parent()?.file_name()?.to_str()?;
    let mut file = std::fs::read(path).ok()?;
    let start = start_of(bucket, &key, &file)?;
    file.drain(..start);
    Some(file)
}

fn header(bucket: &str, key: &Key, value: &[u8]) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(bucket.as_bytes()).update(&[0]).update(key.as_bytes()).update(value);
    format!("{MAGIC} {} {}\n", value.len(), hasher.finalize().to_hex())
}

/// Where the value begins, if the file is whole. The header is made anew and compared: there is nothing to parse.
pub(super) fn value_start(bucket: Bucket, key: &Key, file: &[u8]) -> Option<usize> {
    start_of(bucket.name(), key, file)
}

fn start_of(bucket: &str, key: &Key, file: &[u8]) -> Option<usize> {
    let start = file.iter().position(|byte| *byte == b'\n')? + 1;
    let (found, value) = file.split_at(start);
    (found == header(bucket, key, value).as_bytes()).then_some(start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BUCKET: Bucket = Bucket::new("steps-v1");

    fn whole(key: &Key, value: &[u8]) -> Vec<u8> {
        [header(BUCKET.name(), key, value).as_bytes(), value].concat()
    }

    proptest! {
        #[test]
        fn a_whole_record_gives_its_value(value: Vec<u8>, key: [u8; 32]) {
            let key = Key::from_bytes(key);
            let file = whole(&key, &value);
            let start = value_start(BUCKET, &key, &file).unwrap();
            prop_assert_eq!(&file[start..], &value[..]);
        }

        #[test]
        fn any_other_record_is_none(value: Vec<u8>, at: prop::sample::Index, flip in 1..=255u8, cut: bool) {
            let key = Key::from_bytes([7; 32]);
            let mut file = whole(&key, &value);
            let at = at.index(file.len());
            if cut { file.truncate(at) } else { file[at] ^= flip }
            prop_assert_eq!(value_start(BUCKET, &key, &file), None);
        }

        #[test]
        fn rubbish_is_none(file: Vec<u8>) {
            prop_assert_eq!(value_start(BUCKET, &Key::from_bytes([0; 32]), &file), None);
        }
    }

    #[test]
    fn a_record_counts_for_its_own_key_only() {
        let (key, other) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let file = whole(&key, b"value");
        assert!(value_start(BUCKET, &key, &file).is_some());
        assert!(value_start(BUCKET, &other, &file).is_none());
        assert!(value_start(Bucket::new("images-v1"), &key, &file).is_none());
    }
}
