//! Bytes of an archive on their way out: collected into chunks, handed to a sink, and hashed, on another thread where
//! they are many. SHA-256 names a layer; BLAKE3 seals one at a tenth of the price.
//!
//! Memory is bounded by a few chunks, whatever is written. The order of bytes is the order of the calls.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};

use super::{CHUNK, CHUNKS_IN_FLIGHT};
use crate::digest::Sha256;

/// The size of the first chunk. Most layers fit: they are worth neither a thread nor a large buffer.
const FIRST_CHUNK: usize = 64 << 10;

/// Where an archive's bytes are put.
pub(super) struct Outgoing<'a> {
    algorithm: Algorithm,
    sink: &'a mut dyn Write,
    chunk: Chunk,
    /// Begun when the first chunk is full.
    hasher: Option<Hasher>,
    size: u64,
}

struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
}

impl Chunk {
    fn empty(size: usize) -> Self {
        Self { bytes: vec![0; size], filled: 0 }
    }
}

/// Which digest the bytes get.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Sha256,
    Blake3,
}

enum Hash {
    Sha256(Box<Sha256>),
    Blake3(Box<blake3::Hasher>),
}

impl Hash {
    fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Sha256 => Self::Sha256(Box::default()),
            Algorithm::Blake3 => Self::Blake3(Box::default()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hash) => hash.update(bytes),
            Self::Blake3(hash) => drop(hash.update(bytes)),
        }
    }

    fn finish(self) -> [u8; 32] {
        match self {
            Self::Sha256(hash) => *hash.finish().as_bytes(),
            Self::Blake3(hash) => *hash.finalize().as_bytes(),
        }
    }
}

/// A thread that hashes chunks and gives them back.
struct Hasher {
    to_hash: SyncSender<Chunk>,
    hashed: Receiver<Chunk>,
    thread: JoinHandle<[u8; 32]>,
}

impl Hasher {
    fn begin(algorithm: Algorithm) -> Self {
        let (to_hash, incoming) = sync_channel::<Chunk>(CHUNKS_IN_FLIGHT);
        let (give_back, hashed) = channel();
        let thread = thread::spawn(move || {
            let mut hash = Hash::new(algorithm);
            for chunk in incoming {
                hash.update(&chunk.bytes[..chunk.filled]);
                // After the last chunk nobody takes it back.
                let _ = give_back.send(chunk);
            }
            hash.finish()
        });
        Self { to_hash, hashed, thread }
    }

    fn hash(&self, chunk: Chunk) {
        self.to_hash.send(chunk).expect("the hasher runs until it is told that no more comes");
    }

    fn finish(self) -> [u8; 32] {
        drop(self.to_hash);
        self.thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

/// Runs `produce` with a place to put bytes. Gives the digest and the number of all bytes put there.
pub(super) fn hashed<E: From<SinkError>>(
    algorithm: Algorithm,
    sink: &mut dyn Write,
    produce: impl FnOnce(&mut Outgoing<'_>) -> Result<(), E>,
) -> Result<([u8; 32], u64), E> {
    let mut outgoing = Outgoing { algorithm, sink, chunk: Chunk::empty(FIRST_CHUNK), hasher: None, size: 0 };
    produce(&mut outgoing)?;
    Ok(outgoing.finish()?)
}

/// The sink took no more.
#[derive(Debug)]
pub(super) struct SinkError(pub(super) io::Error);

impl Outgoing<'_> {
    /// Puts bytes at the end.
    pub(super) fn put(&mut self, mut bytes: &[u8]) -> Result<(), SinkError> {
        while !bytes.is_empty() {
            let space = self.space()?;
            let length = space.len().min(bytes.len());
            space[..length].copy_from_slice(&bytes[..length]);
            self.advance(length);
            bytes = &bytes[length..];
        }
        Ok(())
    }

    /// Room for at least one byte, to be filled from its start and then counted with [`Self::advance`].
    pub(super) fn space(&mut self) -> Result<&mut [u8], SinkError> {
        if self.chunk.filled == self.chunk.bytes.len() {
            self.write_out()?;
            let algorithm = self.algorithm;
            let hasher = self.hasher.get_or_insert_with(|| Hasher::begin(algorithm));
            // Some chunks are made first; from then on the hasher's are used again, which also keeps pace with it.
            let next = if self.size <= (CHUNKS_IN_FLIGHT * CHUNK) as u64 {
                Chunk::empty(CHUNK)
            } else {
                let used = hasher.hashed.recv().expect("the hasher runs until it is told that no more comes");
                Chunk { filled: 0, ..used }
            };
            hasher.hash(std::mem::replace(&mut self.chunk, next));
        }
        Ok(&mut self.chunk.bytes[self.chunk.filled..])
    }

    /// Counts bytes that were put into [`Self::space`].
    pub(super) fn advance(&mut self, length: usize) {
        self.chunk.filled += length;
        debug_assert!(self.chunk.filled <= self.chunk.bytes.len(), "no more is filled than there was room for");
    }

    fn write_out(&mut self) -> Result<(), SinkError> {
        self.sink.write_all(&self.chunk.bytes[..self.chunk.filled]).map_err(SinkError)?;
        self.size += self.chunk.filled as u64;
        Ok(())
    }

    fn finish(mut self) -> Result<([u8; 32], u64), SinkError> {
        self.write_out()?;
        let digest = match self.hasher {
            None => {
                let mut hash = Hash::new(self.algorithm);
                hash.update(&self.chunk.bytes[..self.chunk.filled]);
                hash.finish()
            }
            Some(hasher) => {
                hasher.hash(self.chunk);
                hasher.finish()
            }
        };
        Ok((digest, self.size))
    }
}
