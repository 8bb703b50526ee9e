//! Where a finished image goes.
//!
//! Takes an assembled image and the layers it names, gives an OCI layout (directory or archive) or an entry of the
//! local store. Never changes a digest, and never leaves a half-written thing under its final name.

pub mod blobs;
pub mod layout;
pub mod spec;
