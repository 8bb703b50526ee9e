//! Layers: a directory of changes on disk ⇄ a deterministic tar archive, and stacks of them read as one tree.

pub mod tree;

/// Which extended attributes an overlay keeps its own records in (Linux, Documentation/filesystems/overlayfs).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OverlayXattr {
    /// `trusted.overlay.`: as root of the machine.
    Trusted,
    /// `user.overlay.` (mount option `userxattr`): in a user namespace.
    User,
}
