//! Names of content: every digest Strata handles, each a type of its own.
//!
//! Takes bytes, gives fixed-size digests and their `algorithm:hex` text. Never opens a file.
//! [`Digest`] and [`DiffId`] are SHA-256, as the OCI specifications ask; [`ContentId`] and [`Key`] are
//! BLAKE3 and never leave the store.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The text given is not a digest of the expected algorithm.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not a {algorithm} digest")]
pub struct ParseError {
    /// The text as it was given.
    pub text: String,
    /// The algorithm that was expected, such as `sha256`.
    pub algorithm: &'static str,
}

fn parse_hex(text: &str, algorithm: &'static str) -> Result<[u8; 32], ParseError> {
    let fail = || ParseError { text: text.to_owned(), algorithm };
    let hex = text
        .strip_prefix(algorithm)
        .and_then(|rest| rest.strip_prefix(':'))
        .filter(|hex| hex.len() == 64)
        .ok_or_else(fail)?;
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = (nibble(pair[0]).ok_or_else(fail)? << 4) | nibble(pair[1]).ok_or_else(fail)?;
    }
    Ok(bytes)
}

fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
}

macro_rules! digest_type {
    ($(#[$doc:meta])* $name:ident, $algorithm:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// The digest with exactly these bytes.
            pub const fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }

            /// The 32 bytes of the digest.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }

            /// The digest as 64 lower-case hexadecimal digits, without its algorithm.
            pub fn hex(&self) -> String {
                struct Hex<'a>(&'a [u8; 32]);
                impl fmt::Display for Hex<'_> {
                    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write_hex(self.0, f)
                    }
                }
                Hex(&self.0).to_string()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!($algorithm, ":"))?;
                write_hex(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = ParseError;

            fn from_str(text: &str) -> Result<Self, ParseError> {
                parse_hex(text, $algorithm).map(Self)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

digest_type! {
    /// The SHA-256 of a blob as it is stored or sent: what an OCI descriptor names.
    Digest, "sha256"
}

digest_type! {
    /// The SHA-256 of a layer's *uncompressed* tar archive, as an image configuration's
    /// `rootfs.diff_ids` lists it (OCI image-spec, config.md).
    DiffId, "sha256"
}

digest_type! {
    /// The BLAKE3 of a file's bytes or of a selection of files: names content inside the cache only.
    ContentId, "blake3"
}

digest_type! {
    /// A step's cache key: the BLAKE3 of the canonical encoding of what the step depends on.
    Key, "blake3"
}

impl Digest {
    /// The digest of bytes held in memory.
    pub fn of(bytes: &[u8]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(bytes);
        hasher.finish()
    }
}

impl From<Digest> for DiffId {
    fn from(digest: Digest) -> Self {
        Self(digest.0)
    }
}

impl From<DiffId> for Digest {
    fn from(diff_id: DiffId) -> Self {
        Self(diff_id.0)
    }
}

impl From<blake3::Hash> for ContentId {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

/// How much is read at once. Whoever has more is hashed by all cores, while the next piece is read.
const PIECE: usize = 1 << 20;

impl ContentId {
    /// The digest of everything that can be read from a source. `size` is what is expected: a source that gives just that
    /// in a read with room for more is taken to be at its end.
    ///
    /// # Errors
    /// What the source says.
    pub fn of_all(mut source: impl Read + Send, size: u64) -> io::Result<Self> {
        let mut hasher = blake3::Hasher::new();
        let room = usize::try_from(size + 1).map_or(PIECE, |room| room.min(PIECE));
        let mut piece = vec![0; room];
        let mut length = read_full(&mut source, &mut piece, size)?;
        if length == PIECE {
            let mut next = vec![0; PIECE];
            while length == PIECE {
                let read = || read_full(&mut source, &mut next, u64::MAX);
                let (_, read) = rayon::join(|| _ = hasher.update_rayon(&piece), read);
                length = read?;
                std::mem::swap(&mut piece, &mut next);
            }
        }
        while length > 0 {
            hasher.update(&piece[..length]);
            length = if length < piece.len() { 0 } else { read_full(&mut source, &mut piece, u64::MAX)? };
        }
        Ok(hasher.finalize().into())
    }
}

/// Reads until the buffer is full, or the source at its end, or there is as much as there is to be.
fn read_full(source: &mut impl Read, buffer: &mut [u8], whole: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() && filled as u64 != whole {
        match source.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

impl From<blake3::Hash> for Key {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.into())
    }
}

/// A running SHA-256. The one place that names the library computing it.
#[derive(Clone)]
pub struct Sha256(ring::digest::Context);

impl fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sha256(..)")
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// A hash of no bytes yet.
    pub fn new() -> Self {
        Self(ring::digest::Context::new(&ring::digest::SHA256))
    }

    /// Adds bytes to what is hashed.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of all bytes added.
    pub fn finish(self) -> Digest {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(self.0.finish().as_ref());
        Digest(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EMPTY: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn content_of_any_length_is_digested_whole() {
        for length in [0, 1, 1000, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 3 * PIECE + 77] {
            let bytes: Vec<u8> = (0..length).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
            // A size that is no longer true changes nothing but how it is read, as long as it is not reached too early.
            for size in [length as u64, length as u64 + 1, u64::MAX - 1] {
                assert_eq!(
                    ContentId::of_all(&bytes[..], size).unwrap(),
                    blake3::hash(&bytes).into(),
                    "{length} {size}"
                );
            }
        }
    }

    #[test]
    fn text_round_trips() {
        let digest = Digest::of(b"");
        assert_eq!(digest.to_string(), EMPTY);
        assert_eq!(EMPTY.parse::<Digest>(), Ok(digest));
        assert_eq!(digest.hex(), EMPTY["sha256:".len()..]);
    }

    #[test]
    fn refuses_what_is_not_a_digest() {
        for text in ["", "sha256:", "sha256:zz", "sha512:00", &EMPTY.to_uppercase(), &EMPTY[..70]] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
    }
}
