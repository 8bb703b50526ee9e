//! OCI image layouts (OCI image-spec, image-layout.md): as a directory whose blobs are links into the store, and as a
//! tar archive.
//!
//! An archive or a new directory appears under its name only when it is complete. A directory that already is a layout
//! gains the image: its other images stay.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde_json::Map;

use crate::digest::Digest;
use crate::image::assemble::Image;
use crate::image::manifest::{Descriptor, Index, Manifest, media_type};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::store::{self, Store};

/// What `oci-layout` holds.
const OCI_LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// The annotation by which tools find an image in a layout.
const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// The annotation with the image's full name that containerd and Docker read.
const IMAGE_NAME: &str = "io.containerd.image.name";
/// The annotation with the time the image was made.
const CREATED: &str = "org.opencontainers.image.created";

/// Why a layout cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused.
    #[error("{path} cannot be written: {source}")]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A blob the image names is not in the store.
    #[error("blob {digest} is not in the store")]
    MissingBlob {
        /// The blob.
        digest: Digest,
    },
    /// A blob was found damaged while it was written out.
    #[error("blob {digest} was damaged in the store, and is gone from it: build again")]
    DamagedBlob {
        /// The blob.
        digest: Digest,
    },
    /// The destination is in use for something else.
    #[error("{path} exists and is not an OCI image layout; choose another destination or remove it")]
    NotALayout {
        /// The destination.
        path: PathBuf,
    },
    /// The destination's own index cannot be understood.
    #[error("{path} is not valid: {source}")]
    Index {
        /// The index.
        path: PathBuf,
        /// What the JSON reader said.
        source: serde_json::Error,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Whether a blob is not in the store any more, so that it must be made or fetched again.
    pub fn is_loss(&self) -> bool {
        matches!(self, Self::MissingBlob { .. } | Self::DamagedBlob { .. } | Self::Store(store::Error::NoBlob { .. }))
    }
}

/// What goes into a layout: an assembled image whose blobs are all in the store.
#[derive(Debug)]
pub struct Content<'a> {
    /// Where the blobs are.
    pub store: &'a Store,
    /// The image.
    pub image: &'a Image,
    /// What it is for.
    pub platform: &'a Platform,
    /// The names it goes by; may be empty.
    pub names: &'a [Reference],
}

impl Content<'_> {
    /// The blobs of the image, each once, sorted.
    fn blobs(&self) -> Result<BTreeSet<Digest>, Error> {
        let manifest: Manifest = serde_json::from_slice(&self.image.manifest.bytes)
            .map_err(|source| Error::Index { path: "the manifest".into(), source })?;
        let own = [self.image.manifest.descriptor.digest, manifest.config.digest];
        Ok(own.into_iter().chain(manifest.layers.iter().map(|layer| layer.digest)).collect())
    }

    /// One entry for each name, or one without.
    fn entries(&self) -> Vec<Descriptor> {
        let entry = |name: Option<&Reference>| {
            let mut annotations = BTreeMap::from([(CREATED.to_owned(), self.image.created.clone())]);
            if let Some(name) = name {
                annotations.insert(IMAGE_NAME.to_owned(), name.to_string());
                annotations.insert(REF_NAME.to_owned(), name.tag.clone().unwrap_or_else(|| "latest".to_owned()));
            }
            let platform = Some(self.platform.clone());
            Descriptor { annotations, platform, ..self.image.manifest.descriptor.clone() }
        };
        if self.names.is_empty() {
            vec![entry(None)]
        } else {
            self.names.iter().map(|name| entry(Some(name))).collect()
        }
    }

    fn index(&self, others: Vec<Descriptor>) -> Result<Vec<u8>, Error> {
        let mut manifests = others;
        for entry in self.entries() {
            manifests.retain(|other| !same_name(other, &entry));
            manifests.push(entry);
        }
        let index = Index {
            schema_version: 2,
            media_type: Some(media_type::INDEX.to_owned()),
            manifests,
            annotations: BTreeMap::new(),
            other: Map::new(),
        };
        serde_json::to_vec(&index).map_err(|source| Error::Index { path: "index.json".into(), source })
    }

    /// Does something that reads every blob, and fails if one of them is damaged. They are verified beside it, while their
    /// bytes are in memory anyway.
    fn verified(&self, read: impl FnOnce() -> Result<(), Error>) -> Result<(), Error> {
        let blobs: Vec<Digest> = self.blobs()?.into_iter().collect();
        std::thread::scope(|scope| {
            let verifying = scope.spawn(|| {
                blobs.par_iter().try_for_each(|digest| match self.store.verify_blob(digest) {
                    Ok(true) => Ok(()),
                    Ok(false) => Err(Error::DamagedBlob { digest: *digest }),
                    Err(error) => Err(error.into()),
                })
            });
            let read = read();
            verifying.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            read
        })
    }

    fn open(&self, digest: &Digest) -> Result<File, Error> {
        let path = self.store.blob_path(digest).ok_or(Error::MissingBlob { digest: *digest })?;
        File::open(&path).map_err(|source| Error::Write { path, source })
    }
}

/// Whether a layout can hold only one of two entries: they have the same name, or the same digest and no name.
fn same_name(a: &Descriptor, b: &Descriptor) -> bool {
    let name =
        |entry: &Descriptor| entry.annotations.get(IMAGE_NAME).or_else(|| entry.annotations.get(REF_NAME)).cloned();
    match (name(a), name(b)) {
        (None, None) => a.digest == b.digest,
        (a, b) => a == b,
    }
}

/// Writes a layout as a tar archive, which appears under `path` when it is complete.
///
/// # Errors
/// See [`Error`]; nothing is left behind.
pub fn archive(content: &Content<'_>, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if path.is_dir() {
        return Err(failed(io::Error::new(
            io::ErrorKind::IsADirectory,
            "it is a directory; add tar=false for a layout in it",
        )));
    }
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary =
        tempfile::Builder::new().prefix(".strata-").permissions(permissions()).tempfile_in(parent).map_err(failed)?;
    let mut writer = BufWriter::with_capacity(1 << 20, temporary.as_file());
    stream(content, &mut writer).map_err(|error| relocated(error, path))?;
    writer.flush().map_err(failed)?;
    drop(writer);
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}

/// What a file made with `open(2)` and the user's umask would get.
fn permissions() -> fs::Permissions {
    std::os::unix::fs::PermissionsExt::from_mode(0o666)
}

fn relocated(error: Error, destination: &Path) -> Error {
    match error {
        Error::Write { path, source } if path.as_os_str().is_empty() => {
            Error::Write { path: destination.to_owned(), source }
        }
        other => other,
    }
}

/// Writes a layout as a tar archive to a stream. Times are 0 and entries sorted: same image, same bytes. Blobs are verified
/// on the way; where one is damaged, what was written is no good.
///
/// # Errors
/// See [`Error`].
pub fn stream(content: &Content<'_>, sink: impl Write) -> Result<(), Error> {
    content.verified(|| write(content, sink))
}

fn write(content: &Content<'_>, sink: impl Write) -> Result<(), Error> {
    let failed = |source| Error::Write { path: PathBuf::new(), source };
    let mut tar = tar::Builder::new(sink);
    tar.sparse(false);
    for directory in ["blobs/", "blobs/sha256/"] {
        tar.append_data(&mut header(0, tar::EntryType::Directory, 0o755), directory, io::empty()).map_err(failed)?;
    }
    for digest in content.blobs()? {
        let mut file = content.open(&digest)?;
        let size = file.metadata().map_err(failed)?.len();
        let name = format!("blobs/sha256/{}", digest.hex());
        tar.append_data(&mut header(size, tar::EntryType::Regular, 0o644), name, &mut file).map_err(failed)?;
    }
    for (name, bytes) in [("index.json", content.index(Vec::new())?.as_slice()), ("oci-layout", OCI_LAYOUT)] {
        tar.append_data(&mut header(bytes.len() as u64, tar::EntryType::Regular, 0o644), name, bytes)
            .map_err(failed)?;
    }
    tar.into_inner().and_then(|mut sink| sink.flush()).map_err(failed)
}

fn header(size: u64, kind: tar::EntryType, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_size(size);
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

/// Writes a layout as a directory, its blobs hard-linked from the store where the file system allows it.
///
/// # Errors
/// See [`Error`]; a directory that did not exist before does not exist after a failure.
pub fn directory(content: &Content<'_>, path: &Path) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let temporary = tempfile::Builder::new().prefix(".strata-").tempdir_in(parent).map_err(failed)?;
            fill(content, temporary.path())?;
            fs::set_permissions(temporary.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))
                .map_err(failed)?;
            fs::rename(temporary.path(), path).map_err(failed)?;
            // The directory has another name now: there is nothing left to remove.
            let _ = temporary.keep();
            Ok(())
        }
        Err(error) => Err(failed(error)),
        Ok(mut entries) => {
            if entries.next().is_some() && !path.join("oci-layout").is_file() {
                return Err(Error::NotALayout { path: path.to_owned() });
            }
            fill(content, path)
        }
    }
}

/// Adds the image to a directory: blobs first, the index, which makes it visible, last.
fn fill(content: &Content<'_>, path: &Path) -> Result<(), Error> {
    let blobs = path.join("blobs/sha256");
    fs::create_dir_all(&blobs).map_err(|source| Error::Write { path: blobs.clone(), source })?;
    for digest in content.blobs()? {
        let destination = blobs.join(digest.hex());
        if !destination.exists() {
            content.store.link_blob(&digest, &destination)?;
        }
    }
    replace(&path.join("oci-layout"), OCI_LAYOUT)?;
    let index_path = path.join("index.json");
    let others = match fs::read(&index_path) {
        Ok(bytes) => {
            let index: Index =
                serde_json::from_slice(&bytes).map_err(|source| Error::Index { path: index_path.clone(), source })?;
            index.manifests
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(source) => return Err(Error::Write { path: index_path, source }),
    };
    replace(&index_path, &content.index(others)?)
}

fn replace(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut temporary = tempfile::Builder::new().permissions(permissions()).tempfile_in(parent).map_err(failed)?;
    temporary.write_all(bytes).map_err(failed)?;
    temporary.persist(path).map_err(|error| failed(error.error))?;
    Ok(())
}
