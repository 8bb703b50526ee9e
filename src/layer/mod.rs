//! Layers: a directory of changes on disk ⇄ a deterministic tar archive, and stacks of them read as one tree.
//!
//! A layer on disk is *overlay-ready*: the kernel's overlay file system can take the directory as a lower one as it
//! stands. A whiteout is a character device 0:0, a directory that hides everything below it carries the extended
//! attribute `overlay.opaque` with the value `y`, and everything else is what it looks like.
//!
//! In the order data passes through: [`diff`] tidies an overlay's upper directory into a layer, [`archive`] writes a
//! layer as a tar archive, [`compress`] packs archives, [`unpack`] applies an archive to an empty directory, [`implied`]
//! supplies what a layer leaves to those below it, and [`view`] reads a stack of layers as the one tree that a container
//! would see. Nothing here mounts anything, and
//! nothing trusts a path inside an archive.

pub mod archive;
pub mod compress;
pub mod diff;
pub(crate) mod entries;
mod header;
pub mod implied;
mod incoming;
mod inode;
mod outgoing;
mod pax;
mod resolve;
#[cfg(test)]
mod sample;
mod sparse;
pub mod tree;
pub mod unpack;
pub mod view;
pub(crate) mod xattr;

use crate::digest::DiffId;

/// Which extended attributes an overlay keeps its own records in (Linux, Documentation/filesystems/overlayfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattr {
    /// `trusted.overlay.`: as root of the machine.
    Trusted,
    /// `user.overlay.` (mount option `userxattr`): in a user namespace.
    User,
}

impl OverlayXattr {
    /// What the name of every attribute of the overlay's own begins with.
    const fn prefix(self) -> &'static str {
        match self {
            Self::Trusted => "trusted.overlay.",
            Self::User => "user.overlay.",
        }
    }
}

/// What passing over a whole uncompressed archive tells about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measured {
    /// The SHA-256 of the archive, to its very last byte.
    pub diff_id: DiffId,
    /// The length of the archive in bytes.
    pub size: u64,
    /// How many entries it has: files, directories, links, whiteouts and opaque markers.
    pub entries: u64,
}

/// What the base name of a whiteout begins with (OCI image-spec, layer.md, "Whiteouts").
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The base name that makes its directory opaque (OCI image-spec, layer.md, "Opaque Whiteout").
const OPAQUE_MARKER: &[u8] = b".wh..wh..opq";

/// How many bytes pass between threads at once.
const CHUNK: usize = 1 << 20;

/// How many chunks may be under way between two threads.
const CHUNKS_IN_FLIGHT: usize = 4;
