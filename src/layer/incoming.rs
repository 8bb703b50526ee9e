//! Bytes of an archive on their way in: read on one thread, hashed on a second, used on the caller's.
//!
//! Memory is bounded by a few chunks, whatever comes. Every byte of the stream is hashed, also those after the end of
//! what the caller makes use of.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::{CHUNK, CHUNKS_IN_FLIGHT};
use crate::digest::{Digest, Sha256};

type Chunk = Arc<Vec<u8>>;

/// The stream as its user sees it.
pub(super) struct Incoming {
    chunks: Receiver<io::Result<Chunk>>,
    current: Chunk,
    at: usize,
}

/// Runs `consume` on a stream while the stream is read and hashed elsewhere; then reads the stream to its end. Gives
/// what `consume` gave, and the SHA-256 and number of all bytes.
pub(super) fn hashed<T, E: From<io::Error>>(
    reader: impl Read + Send,
    consume: impl FnOnce(&mut Incoming) -> Result<T, E>,
) -> Result<(T, Digest, u64), E> {
    let (to_user, chunks) = sync_channel(CHUNKS_IN_FLIGHT);
    let (to_hash, for_hash) = sync_channel::<Chunk>(CHUNKS_IN_FLIGHT);
    thread::scope(|scope| {
        scope.spawn(move || pump(reader, &to_user, &to_hash));
        let hasher = scope.spawn(move || {
            let (mut hash, mut size) = (Sha256::new(), 0);
            for chunk in for_hash {
                hash.update(&chunk);
                size += chunk.len() as u64;
            }
            (hash.finish(), size)
        });
        let mut incoming = Incoming { chunks, current: Chunk::default(), at: 0 };
        let made = consume(&mut incoming)?;
        incoming.drain()?;
        let (digest, size) = hasher.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok((made, digest, size))
    })
}

/// Reads until the end, an error, or until the user is gone.
fn pump(mut reader: impl Read, to_user: &SyncSender<io::Result<Chunk>>, to_hash: &SyncSender<Chunk>) {
    loop {
        let chunk = match next_chunk(&mut reader) {
            Ok(chunk) if chunk.is_empty() => return,
            Ok(chunk) => Arc::new(chunk),
            Err(error) => {
                // The user may have gone first, with an error of its own.
                let _ = to_user.send(Err(error));
                return;
            }
        };
        if to_hash.send(Arc::clone(&chunk)).is_err() || to_user.send(Ok(chunk)).is_err() {
            return;
        }
    }
}

/// As much as a chunk holds, less only at the end.
fn next_chunk(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut chunk = vec![0; CHUNK];
    let mut filled = 0;
    while filled < CHUNK {
        match reader.read(&mut chunk[filled..]) {
            Ok(0) => break,
            Ok(length) => filled += length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    chunk.truncate(filled);
    Ok(chunk)
}

impl Incoming {
    fn drain(&mut self) -> io::Result<()> {
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut available = self.fill_buf()?;
        let length = available.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Incoming {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.at == self.current.len() {
            match self.chunks.recv() {
                Ok(chunk) => {
                    self.current = chunk?;
                    self.at = 0;
                }
                // The pump ends where the stream does.
                Err(_) => return Ok(&[]),
            }
        }
        Ok(&self.current[self.at..])
    }

    fn consume(&mut self, length: usize) {
        self.at += length;
    }
}
