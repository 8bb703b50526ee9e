//! Where everything in a store lies: the directory tree of the module's documentation, as paths.
//!
//! Takes names, gives paths; never touches the disk.

use std::path::{Path, PathBuf};

use super::builds::BuildId;
use super::id::Id;
use super::record::Bucket;
use crate::digest::{ContentId, DiffId, Digest, Key};

/// Every directory of a store but its root, parents first, with its permission bits. Unpacked layers hold set-user-id
/// programs of any age and origin, so nobody but the owner gets near them.
pub(super) const DIRECTORIES: [(&str, u32); 10] = [
    ("oci", 0o755),
    ("oci/blobs", 0o755),
    ("oci/blobs/sha256", 0o755),
    ("layers", 0o700),
    ("cache", 0o700),
    ("cache/contexts", 0o700),
    ("mounts", 0o700),
    ("builds", 0o700),
    ("tmp", 0o700),
    ("locks", 0o700),
];

/// The name of the copy of `index.json`.
pub(super) const INDEX_COPY: &str = "index-copy";

/// How the file of a keyed lock ends; the store's own locks have no ending.
pub(super) const LOCK_ENDING: &str = ".lock";

/// How the file of a running process that publishes layers begins.
pub(super) const WRITER_PREFIX: &str = "writer-";

/// How the file begins in which a running process notes what it uses.
pub(super) const LEASE_PREFIX: &str = "uses-";

/// The paths of one store.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    root: PathBuf,
}

impl Layout {
    pub(super) const fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn version(&self) -> PathBuf {
        self.root.join("version")
    }

    pub(super) fn oci(&self) -> PathBuf {
        self.root.join("oci")
    }

    pub(super) fn oci_layout(&self) -> PathBuf {
        self.root.join("oci/oci-layout")
    }

    pub(super) fn index(&self) -> PathBuf {
        self.root.join("oci/index.json")
    }

    /// The last `index.json` that was written, for the day when that cannot be read.
    pub(super) fn index_copy(&self) -> PathBuf {
        self.root.join(INDEX_COPY)
    }

    pub(super) fn blobs(&self) -> PathBuf {
        self.root.join("oci/blobs/sha256")
    }

    pub(super) fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("oci/blobs/sha256").join(digest.hex())
    }

    pub(super) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    pub(super) fn layer(&self, diff_id: &DiffId) -> PathBuf {
        self.root.join("layers").join(diff_id.hex())
    }

    /// What is known of a layer; its time is that of the layer's last use.
    pub(super) fn layer_meta(&self, diff_id: &DiffId) -> PathBuf {
        Self::meta_in(&self.layer(diff_id))
    }

    /// The same in a layer's directory that is not in its place.
    pub(super) fn meta_in(directory: &Path) -> PathBuf {
        directory.join("layer.json")
    }

    pub(super) fn record(&self, bucket: Bucket, key: &Key) -> PathBuf {
        let hex = key.hex();
        self.root.join("cache").join(bucket.name()).join(&hex[..2]).join(hex)
    }

    pub(super) fn context_index(&self, id: &ContentId) -> PathBuf {
        self.root.join("cache/contexts").join(id.hex())
    }

    pub(super) fn cache(&self) -> PathBuf {
        self.root.join("cache")
    }

    pub(super) fn contexts(&self) -> PathBuf {
        self.root.join("cache/contexts")
    }

    pub(super) fn growth(&self) -> PathBuf {
        self.root.join("cache/growth")
    }

    pub(super) fn mounts(&self) -> PathBuf {
        self.root.join("mounts")
    }

    pub(super) fn builds(&self) -> PathBuf {
        self.root.join("builds")
    }

    pub(super) fn build(&self, id: &BuildId) -> PathBuf {
        self.root.join("builds").join(id.as_str())
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.root.join("tmp")
    }

    pub(super) fn locks(&self) -> PathBuf {
        self.root.join("locks")
    }

    /// One of the store's own locks, whose file stays.
    pub(super) fn own_lock(&self, name: &str) -> PathBuf {
        self.root.join("locks").join(name)
    }

    /// The lock of a key. A name that is not plain enough for a file name is replaced by its digest; `=` keeps the
    /// two kinds apart.
    pub(super) fn keyed_lock(&self, name: &str) -> PathBuf {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let file = if !name.is_empty() && name.len() <= 200 && name.chars().all(plain) {
            format!("{name}{LOCK_ENDING}")
        } else {
            format!("={}{LOCK_ENDING}", blake3::hash(name.as_bytes()).to_hex())
        };
        self.root.join("locks").join(file)
    }

    pub(super) fn lease(&self, id: &Id) -> PathBuf {
        self.root.join("locks").join(format!("{LEASE_PREFIX}{id}"))
    }

    pub(super) fn writer(&self, id: &Id) -> PathBuf {
        self.root.join("locks").join(format!("{WRITER_PREFIX}{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_makes_a_lock_file_of_its_own() {
        let layout = Layout::new(PathBuf::from("/s"));
        let names = ["step-1", "step.1", "", ".", "..", "../version", "/root/.cache", "a b", &"x".repeat(300), "=a"];
        let paths: std::collections::BTreeSet<_> = names.iter().map(|name| layout.keyed_lock(name)).collect();
        assert_eq!(paths.len(), names.len());
        assert!(paths.iter().all(|path| path.parent() == Some(Path::new("/s/locks"))), "{paths:?}");
        assert_eq!(layout.keyed_lock("step-1"), Path::new("/s/locks/step-1.lock"));
    }
}
