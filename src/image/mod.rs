//! Images as documents: descriptors, manifests, indexes and configurations of the OCI image specification 1.1.
//!
//! Takes and gives JSON and layer chains; pure values. Never reads a blob and never re-digests a base layer:
//! a base's descriptors are passed through as they stand in its own manifest.

pub mod assemble;
pub mod chain;
pub mod config;
pub mod manifest;
