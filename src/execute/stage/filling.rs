//! A large file of a layer that gets its content while the layer is digested, so that its bytes pass through memory once
//! and not twice.
//!
//! Takes the file as [`Stage`](super::Stage) made it, with all its metadata and its length, and its source. Whoever reads
//! a [`Filling`] to its end gets the content and has put it into the file; the end is only reached where the content is
//! what the step's key names, and then the file has its metadata again.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::PathBuf;

use super::{Error, Meta};
use crate::digest::ContentId;
use crate::execute::stage::write::Finish;

/// From this length on a file may be filled later.
pub(super) const LARGE: u64 = 16 << 20;

/// How many files are filled later at most; each has two descriptors open until then.
pub(super) const MOST: usize = 16;

/// See the [module](self).
pub(super) struct Filling {
    pub(super) source: File,
    pub(super) source_path: PathBuf,
    pub(super) into: File,
    /// Its place in the layer.
    pub(super) path: PathBuf,
    pub(super) meta: Meta,
    pub(super) finish: Finish,
    pub(super) expected: ContentId,
    pub(super) hasher: blake3::Hasher,
    /// How many bytes are still to come.
    pub(super) left: u64,
    pub(super) is_done: bool,
}

impl Filling {
    fn changed(&self) -> io::Error {
        io::Error::other(Error::Changed { path: self.source_path.clone() })
    }

    fn end(&mut self) -> Result<(), io::Error> {
        if self.left > 0 || ContentId::from(self.hasher.finalize()) != self.expected {
            return Err(self.changed());
        }
        self.is_done = true;
        // What was written took set-id bits, capabilities and the time away.
        self.finish.file(&self.into, &self.path, &self.meta).map_err(io::Error::other)
    }
}

impl Read for Filling {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() || self.is_done {
            return Ok(0);
        }
        let length = self
            .source
            .read(buffer)
            .map_err(|source| io::Error::other(Error::Read { path: self.source_path.clone(), source }))?;
        self.left = self.left.checked_sub(length as u64).ok_or_else(|| self.changed())?;
        if length == 0 {
            return self.end().map(|()| 0);
        }
        let piece = &buffer[..length];
        let (hasher, into) = (&mut self.hasher, &mut self.into);
        let (written, _) = rayon::join(|| into.write_all(piece), || _ = hasher.update_rayon(piece));
        let failed = super::write::fail(&self.path, "writing its content");
        written.map_err(|source| io::Error::other(failed(source)))?;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
