//! Fetching a blob: bytes to a sink, checked on the way.
//!
//! Takes a descriptor, gives exactly its bytes, each once and in order, however often the connection breaks: a transfer is
//! taken up where it broke, with a range where the host knows ranges and by skipping where it does not, and goes on at
//! another source if one fails. Never gives more bytes than the descriptor says, and never calls wrong bytes right: the
//! sink must not make anything visible before [`Client::fetch_blob`] has returned without an error.

use std::io::Write;

use ureq::http::{Method, header};

use super::address::Source;
use super::error::{Error, Item, Target};
use super::transport::Reply;
use super::{Client, Question};
use crate::digest::Sha256;
use crate::image::manifest::Descriptor;
use crate::recipe::reference::Reference;

/// How many bytes are read at once.
const BUFFER: usize = 128 * 1024;

/// A transfer that came this much further has earned all its attempts again.
const PROGRESS: u64 = 1024 * 1024;

impl Client {
    /// Writes the blob that `descriptor` names to `sink`, calling `progress` with the number of bytes written so far.
    ///
    /// # Errors
    /// The blob cannot be had whole and right from any source, or the sink fails. What the sink was given is then to be
    /// thrown away. After [`Error::WrongDigest`], another call may do better: mirrors that took part are left out.
    pub fn fetch_blob(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut dyn Write,
        progress: &dyn Fn(u64),
    ) -> Result<(), Error> {
        let target = Target::new(reference, Item::Blob(descriptor.digest));
        let mut transfer =
            Transfer { sink, progress, target, hash: Sha256::new(), written: 0, descriptor, knows_ranges: true };
        let mut mirrors = Vec::new();
        let last = self.ask_sources(reference, |source| {
            let before = transfer.written;
            let result = self.patiently(source, |patience| {
                let before = transfer.written;
                let result = self.continue_transfer(source, &mut transfer);
                if transfer.written - before >= PROGRESS {
                    patience.refill();
                }
                result
            });
            if source.is_mirror && transfer.written > before {
                mirrors.push(source.host.clone());
            }
            result
        })?;
        let actual = transfer.hash.finish();
        if actual == descriptor.digest {
            return Ok(());
        }
        for mirror in mirrors {
            self.discredit(&mirror);
        }
        let target = Box::new(transfer.target);
        Err(if last.is_overlong {
            Error::WrongSize { host: last.host, target, expected: descriptor.size, actual: None }
        } else {
            Error::WrongDigest { host: last.host, target, expected: descriptor.digest, actual }
        })
    }

    /// Asks for what is still missing, and takes what comes.
    fn continue_transfer(&self, source: &Source, transfer: &mut Transfer<'_>) -> Result<Last, Error> {
        let from = if transfer.knows_ranges { transfer.written } else { 0 };
        let question = |from| Question {
            method: Method::GET,
            path: format!("blobs/{}", transfer.descriptor.digest),
            accept: "*/*",
            from,
            target: transfer.target.clone(),
        };
        let answer = self.ask(source, &question(from));
        let is_range_refused = match &answer {
            Err(Error::Status { status: 416, .. }) => true,
            Ok(reply) => reply.status == 206 && range_start(reply) != Some(from),
            Err(_) => false,
        };
        if from > 0 && is_range_refused {
            transfer.knows_ranges = false;
            let reply = self.ask(source, &question(0))?;
            return transfer.receive(reply);
        }
        transfer.receive(answer?)
    }
}

/// The first byte of a partial answer (RFC 9110, 14.4).
fn range_start(reply: &Reply<'_>) -> Option<u64> {
    let range = reply.header(header::CONTENT_RANGE)?.trim().strip_prefix("bytes")?;
    range.trim_start().split('-').next()?.trim().parse().ok()
}

/// The size of the whole, as a partial answer gives it.
fn range_size(reply: &Reply<'_>) -> Option<u64> {
    reply.header(header::CONTENT_RANGE)?.rsplit('/').next()?.trim().parse().ok()
}

/// Who sent the last bytes, and whether more would have followed.
struct Last {
    host: String,
    is_overlong: bool,
}

/// A blob on its way, over as many answers as it takes.
struct Transfer<'a> {
    sink: &'a mut dyn Write,
    progress: &'a dyn Fn(u64),
    target: Target,
    descriptor: &'a Descriptor,
    hash: Sha256,
    written: u64,
    /// Whether asking for a range has not yet failed.
    knows_ranges: bool,
}

impl Transfer<'_> {
    fn receive(&mut self, reply: Reply<'_>) -> Result<Last, Error> {
        let expected = self.descriptor.size;
        let is_partial = reply.status == 206;
        if !is_partial && reply.status != 200 || is_partial && range_start(&reply) != Some(self.written) {
            let (host, target, status) = (reply.host(), Box::new(self.target.clone()), reply.status.as_u16());
            return Err(Error::Status { host, target, status, detail: super::Said::default() });
        }
        let (host, length) = (reply.host(), reply.length());
        let announced = if is_partial { range_size(&reply) } else { length };
        if announced.is_some_and(|announced| announced != expected) {
            return Err(self.wrong_size(host, announced));
        }
        let ends_by_itself = reply.header(header::TRANSFER_ENCODING).is_some();
        let mut skip = if is_partial { 0 } else { self.written };
        let mut incoming = reply.into_incoming();
        let mut buffer = vec![0; BUFFER];
        while self.written < expected {
            let read = incoming.read(&mut buffer)?;
            if read == 0 && ends_by_itself && !is_partial {
                return Err(self.wrong_size(host, Some(self.written)));
            }
            if read == 0 {
                return Err(incoming.interrupted("the body ended too early"));
            }
            let skipped = skip.min(read as u64);
            skip -= skipped;
            self.take(&buffer[usize::try_from(skipped).unwrap_or(read)..read])?;
        }
        // The end of a body whose length is known is at hand, and reading it frees the connection. Any other is waited for
        // only to tell what kind of wrong this is.
        let is_wrong = || self.hash.clone().finish() != self.descriptor.digest;
        let is_overlong = (length.is_some() || is_wrong()) && matches!(incoming.read(&mut buffer), Ok(1..));
        Ok(Last { host, is_overlong })
    }

    /// Hands on what is wanted of some bytes.
    fn take(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let missing = usize::try_from(self.descriptor.size - self.written).unwrap_or(usize::MAX);
        let bytes = &bytes[..bytes.len().min(missing)];
        self.hash.update(bytes);
        self.sink.write_all(bytes).map_err(|source| Error::Sink { target: Box::new(self.target.clone()), source })?;
        self.written += bytes.len() as u64;
        (self.progress)(self.written);
        Ok(())
    }

    fn wrong_size(&self, host: String, actual: Option<u64>) -> Error {
        Error::WrongSize { host, target: Box::new(self.target.clone()), expected: self.descriptor.size, actual }
    }
}
