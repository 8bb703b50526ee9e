//! The part of SSH's agent protocol that a step may use, and an agent of our own for keys that are given by path.
//!
//! Takes one request, gives its answer (draft-ietf-sshm-ssh-agent). A step may list keys and have something signed;
//! whatever else it asks for (adding, removing, locking, extensions) is refused here, and never reaches a real agent.

use std::io::{self, Read, Write};

use super::key::Key;
use super::wire::{Reader, put_string};

/// The largest message, as in OpenSSH.
const LARGEST: u32 = 256 * 1024;

const FAILURE: u8 = 5;
const REQUEST_IDENTITIES: u8 = 11;
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_REQUEST: u8 = 13;
const SIGN_RESPONSE: u8 = 14;

/// Keys that were given by path.
#[derive(Debug, Default)]
pub(in crate::execute) struct Keyring {
    keys: Vec<Key>,
}

impl Keyring {
    /// Adds a key, once.
    pub(super) fn add(&mut self, key: Key) {
        if !self.keys.iter().any(|known| known.public == key.public) {
            self.keys.push(key);
        }
    }

    /// Answers a request.
    pub(super) fn answer(&self, request: &[u8]) -> Vec<u8> {
        let mut reader = Reader::new(request);
        match reader.byte() {
            Some(REQUEST_IDENTITIES) => self.identities(),
            Some(SIGN_REQUEST) => self.signature(reader).unwrap_or_else(refusal),
            _ => refusal(),
        }
    }

    /// Names the keys; without the comments in their files, which say whose they are and where.
    fn identities(&self) -> Vec<u8> {
        let count = u32::try_from(self.keys.len()).unwrap_or(u32::MAX);
        let mut answer = vec![IDENTITIES_ANSWER];
        answer.extend(count.to_be_bytes());
        for key in &self.keys {
            put_string(&mut answer, &key.public);
            put_string(&mut answer, b"");
        }
        answer
    }

    fn signature(&self, mut request: Reader<'_>) -> Option<Vec<u8>> {
        let (public, data, flags) = (request.string()?, request.string()?, request.number()?);
        let key = self.keys.iter().find(|key| key.public == public)?;
        let mut answer = vec![SIGN_RESPONSE];
        put_string(&mut answer, &key.sign(data, flags)?);
        Some(answer)
    }
}

/// What is answered to what is not allowed.
pub(super) fn refusal() -> Vec<u8> {
    vec![FAILURE]
}

/// Whether a step may ask an agent for this.
pub(super) fn is_allowed(request: &[u8]) -> bool {
    matches!(request.first(), Some(&(REQUEST_IDENTITIES | SIGN_REQUEST)))
}

/// Reads one message; `None` at the end of the stream.
///
/// # Errors
/// What the stream says, and a message that is larger than any.
pub(super) fn read_message(stream: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    if stream.read(&mut length[..1])? == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut length[1..])?;
    let length = u32::from_be_bytes(length);
    if length > LARGEST {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = Vec::new();
    stream.take(u64::from(length)).read_to_end(&mut message)?;
    if u32::try_from(message.len()) != Ok(length) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(Some(message))
}

/// Writes one message.
///
/// # Errors
/// What the stream says.
pub(super) fn write_message(stream: &mut impl Write, message: &[u8]) -> io::Result<()> {
    let mut framed = Vec::with_capacity(message.len() + 4);
    put_string(&mut framed, message);
    stream.write_all(&framed)
}
