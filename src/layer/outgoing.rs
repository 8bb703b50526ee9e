//! Bytes of an archive on their way out: collected into chunks, handed to a sink, and hashed on another thread.
//! Which hash is the caller's choice: SHA-256 names a layer, BLAKE3 seals one at a tenth of the price.
//!
//! Memory is bounded by a few chunks, whatever is written. The order of bytes is the order of the calls.

use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, channel, sync_channel};
use std::thread;

use super::{CHUNK, CHUNKS_IN_FLIGHT};
use crate::digest::{ContentId, Digest, Sha256};

/// Where an archive's bytes are put.
pub(super) struct Outgoing<'a> {
    sink: &'a mut dyn Write,
    chunk: Chunk,
    to_hash: SyncSender<Chunk>,
    hashed: Receiver<Chunk>,
    size: u64,
}

struct Chunk {
    bytes: Vec<u8>,
    filled: usize,
}

impl Chunk {
    fn empty() -> Self {
        Self { bytes: vec![0; CHUNK], filled: 0 }
    }
}

/// What takes the bytes one after the other, and gives their digest.
pub(super) trait Hash: Default + Send {
    type Digest: Send;

    fn update(&mut self, bytes: &[u8]);

    fn finish(self) -> Self::Digest;
}

impl Hash for Sha256 {
    type Digest = Digest;

    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn finish(self) -> Digest {
        Self::finish(self)
    }
}

impl Hash for blake3::Hasher {
    type Digest = ContentId;

    fn update(&mut self, bytes: &[u8]) {
        Self::update(self, bytes);
    }

    fn finish(self) -> ContentId {
        self.finalize().into()
    }
}

/// Runs `produce` with a place to put bytes. Gives the digest and the number of all bytes put there.
pub(super) fn hashed<H: Hash, E: From<SinkError>>(
    sink: &mut dyn Write,
    produce: impl FnOnce(&mut Outgoing<'_>) -> Result<(), E>,
) -> Result<(H::Digest, u64), E> {
    let (to_hash, incoming) = sync_channel::<Chunk>(CHUNKS_IN_FLIGHT);
    let (give_back, hashed) = channel();
    thread::scope(|scope| {
        let hasher = scope.spawn(move || {
            let mut hash = H::default();
            for chunk in incoming {
                hash.update(&chunk.bytes[..chunk.filled]);
                // After the last chunk nobody takes it back.
                let _ = give_back.send(chunk);
            }
            hash.finish()
        });
        let mut outgoing = Outgoing { sink, chunk: Chunk::empty(), to_hash, hashed, size: 0 };
        produce(&mut outgoing)?;
        outgoing.pass_on()?;
        let size = outgoing.size;
        drop(outgoing);
        let digest = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((digest, size))
    })
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
        if self.chunk.filled == CHUNK {
            self.pass_on()?;
            // Some chunks are made first; from then on the hasher's are used again, which also keeps pace with it.
            self.chunk = if self.size <= (CHUNKS_IN_FLIGHT * CHUNK) as u64 {
                Chunk::empty()
            } else {
                let used = self.hashed.recv().expect("the hasher runs until it is told that no more comes");
                Chunk { filled: 0, ..used }
            };
        }
        Ok(&mut self.chunk.bytes[self.chunk.filled..])
    }

    /// Counts bytes that were put into [`Self::space`].
    pub(super) fn advance(&mut self, length: usize) {
        self.chunk.filled += length;
        debug_assert!(self.chunk.filled <= CHUNK, "no more is filled than there was room for");
    }

    fn pass_on(&mut self) -> Result<(), SinkError> {
        let chunk = std::mem::replace(&mut self.chunk, Chunk { bytes: Vec::new(), filled: 0 });
        self.sink.write_all(&chunk.bytes[..chunk.filled]).map_err(SinkError)?;
        self.size += chunk.filled as u64;
        self.to_hash.send(chunk).expect("the hasher runs until it is told that no more comes");
        Ok(())
    }
}
