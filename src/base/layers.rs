//! Layers on disk: those a build made, and those of base images, fetched when their bytes are first needed.

use std::io::{self, Read, Write};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use crate::base::completion::{self, Completions};
use crate::base::{BaseBlob, Bases, layout};
use crate::digest::DiffId;
use crate::image::chain::Chain;
use crate::image::manifest::Descriptor;
use crate::layer::archive::{self, Times};
use crate::layer::unpack::{self, Unpacked};
use crate::layer::{self, compress};
use crate::progress::{Reporter, Task};
use crate::recipe::reference::Reference;
use crate::registry::{self, Client};
use crate::runtime::Cancel;
use crate::store::{self, BlobWriter, Form, LayerMeta, Origin, Scratch, Store, StoredLayer};

/// Why a layer's files cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store has no such layer and no base image names it.
    #[error("layer {layer} is not in the store and no base image has it; build again with --no-cache")]
    Lost {
        /// The layer.
        layer: DiffId,
    },
    /// The registry did not give the blob.
    #[error("a layer of {} cannot be fetched", reference.familiar())]
    Registry {
        /// The image the layer belongs to.
        reference: Box<Reference>,
        /// Why.
        source: registry::Error,
    },
    /// The OCI layout did not give the blob.
    #[error("a layer of {} cannot be read", reference.familiar())]
    Layout {
        /// The image the layer belongs to.
        reference: Box<Reference>,
        /// Why.
        source: layout::Error,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The archive is not one that can be unpacked safely.
    #[error("layer {} of {reference} cannot be unpacked", .blob.digest)]
    Unpack {
        /// The image the layer belongs to.
        reference: Box<Reference>,
        /// The blob.
        blob: Box<Descriptor>,
        /// What is wrong with it.
        source: UnpackError,
    },
    /// The blob does not hold what the image's configuration says.
    #[error("layer {} of {reference} holds {found}, but the image's configuration says {expected}", .blob.digest)]
    WrongDiffId {
        /// The image the layer belongs to.
        reference: Box<Reference>,
        /// The blob.
        blob: Box<Descriptor>,
        /// What the configuration says.
        expected: DiffId,
        /// What the blob holds.
        found: DiffId,
    },
    /// The files of an unpacked layer could not be read back.
    #[error("layer {layer} cannot be sealed")]
    Seal {
        /// The layer.
        layer: DiffId,
        /// Why.
        source: archive::Error,
    },
    /// Layers that leave something to those below them could not be completed.
    #[error(transparent)]
    Completion(#[from] completion::Error),
    /// A blob in the store could not be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The blob's file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another failure, or the user, ended the build.
    #[error("the build was cancelled")]
    Cancelled,
}

impl Error {
    /// The base image that is the cause, if one is.
    pub fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Registry { reference, .. }
            | Self::Layout { reference, .. }
            | Self::Unpack { reference, .. }
            | Self::WrongDiffId { reference, .. } => Some(reference),
            Self::Lost { .. }
            | Self::Store(_)
            | Self::Seal { .. }
            | Self::Completion(_)
            | Self::Read { .. }
            | Self::Cancelled => None,
        }
    }

    /// Whether this machine or its network, and not an image, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Registry { source, .. } => source.is_about_the_network(),
            Self::Store(_) | Self::Seal { .. } | Self::Completion(_) | Self::Read { .. } => true,
            Self::Lost { .. }
            | Self::Layout { .. }
            | Self::Unpack { .. }
            | Self::WrongDiffId { .. }
            | Self::Cancelled => false,
        }
    }
}

/// What is wrong with a blob that should be a layer.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not compressed in a way that is known, or damaged.
    #[error("it cannot be decompressed: {0}")]
    Decode(io::Error),
    /// The archive in it is damaged or dangerous.
    #[error(transparent)]
    Unpack(unpack::Error),
}

/// The format of an archive that another writer made.
const FOREIGN: &str = "foreign";

/// The directory of a layer's files in a scratch directory.
const TREE: &str = "tree";

/// How many layers of a base are fetched at a time.
const AT_ONCE: usize = 4;

/// Where layers come from.
#[derive(Debug)]
pub struct Layers<'a> {
    /// Where they are kept.
    pub store: &'a Store,
    /// Where base layers can be had.
    pub bases: &'a Bases,
    /// Who fetches them.
    pub client: &'a Client,
    /// Where progress is told.
    pub reporter: &'a Reporter,
    /// Ends waiting and fetching.
    pub cancel: &'a Cancel,
    /// How overlays keep their records here.
    pub xattr: layer::OverlayXattr,
    /// Whose files a layer's files become.
    pub owners: unpack::Owners,
    /// What completes layers that leave something to those below them. Directories of a chain last as long as this does.
    pub completions: Arc<Completions>,
}

impl Layers<'_> {
    /// The directories of a chain, base first. Base layers that are not there yet are fetched and unpacked, several at
    /// a time. Where layers have directories that their archives only imply, there is one more directory than there are
    /// layers, which says what those look like.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn trees(&self, chain: &Chain) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::with_capacity(chain.layers().len());
        for layer in chain.layers() {
            found.push(self.store.layer(layer)?);
        }
        let missing: Vec<usize> = (0..found.len()).filter(|&n| found[n].is_none()).collect();
        for batch in missing.chunks(AT_ONCE) {
            let fetched: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> =
                    batch.iter().map(|&n| scope.spawn(move || self.fetch(chain.layers()[n]))).collect();
                threads.into_iter().map(|thread| thread.join().unwrap_or(Err(Error::Cancelled))).collect()
            });
            for (&n, stored) in batch.iter().zip(fetched) {
                found[n] = Some(stored?);
            }
        }
        let found: Vec<StoredLayer> = found.into_iter().flatten().collect();
        let mut trees: Vec<_> = found.iter().map(|stored| stored.tree.clone()).collect();
        if let Some(last) = found.iter().rposition(|stored| !stored.meta.implied.is_empty())
            && let Some(completion) = self.completions.of(self.store, self.xattr, &found[..=last])?
        {
            trees.insert(last + 1, completion);
        }
        Ok(trees)
    }

    /// Looks at every file of the layers of a chain that are in the store, takes those that are damaged out of it, and gives
    /// their names.
    ///
    /// # Errors
    /// What keeps them from being read or removed.
    pub fn discard_damaged(&self, chain: &Chain) -> Result<Vec<DiffId>, store::Error> {
        let mut damaged = Vec::new();
        for layer in chain.layers() {
            let Some(stored) = self.store.layer(layer)? else { continue };
            let whole = is_whole(&stored, self.xattr).or_else(|error| error.is_damage().then_some(false).ok_or(error));
            // What cannot be read for another reason is nobody's fault.
            if matches!(whole, Ok(false)) && self.store.discard_layer(layer)? {
                damaged.push(*layer);
            }
        }
        Ok(damaged)
    }

    /// Sees to it that the blob of a base layer is in the store.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn blob(&self, layer: &DiffId) -> Result<Descriptor, Error> {
        let home = self.bases.blob(layer).ok_or(Error::Lost { layer: *layer })?;
        let BaseBlob { reference, descriptor: blob, .. } = home;
        if !self.store.has_blob(&blob.digest, blob.size)? {
            let task = self.reporter.start(&fetch_title(reference, blob));
            let fetched = self.lock(&format!("blob-{}", blob.digest.hex()), &task).and_then(|_lock| {
                if self.store.blob_path(&blob.digest).is_some() { Ok(()) } else { self.download(home, &task, None) }
            });
            task.finish(fetched.as_ref().err().map(ToString::to_string));
            fetched?;
        }
        Ok(blob.clone())
    }

    fn fetch(&self, layer: DiffId) -> Result<StoredLayer, Error> {
        let home = self.bases.blob(&layer).ok_or(Error::Lost { layer })?;
        let task = self.reporter.start(&fetch_title(&home.reference, &home.descriptor));
        let fetched = self.fetch_locked(layer, home, &task);
        task.finish(fetched.as_ref().err().map(ToString::to_string));
        fetched
    }

    fn fetch_locked(&self, layer: DiffId, home: &BaseBlob, task: &Task<'_>) -> Result<StoredLayer, Error> {
        let BaseBlob { reference, descriptor: blob, .. } = home;
        let _lock = self.lock(&format!("blob-{}", blob.digest.hex()), task)?;
        if let Some(stored) = self.store.layer(&layer)? {
            return Ok(stored);
        }
        let (scratch, Unpacked { measured, left_out, implied }) = match self.unpack_stored(layer, home)? {
            Some(unpacked) => unpacked,
            None => self.unpack_fetched(layer, home, task)?,
        };
        for left_out in left_out {
            self.reporter.warning(format!("{}: {left_out}", reference.familiar()));
        }
        let tree = scratch.path().join(TREE);
        let seal = archive::seal(&tree, self.xattr).map_err(|source| Error::Seal { layer, source })?;
        Ok(self.store.publish_layer(
            &layer,
            &tree,
            LayerMeta {
                tar_size: measured.size,
                entries: measured.entries,
                disk: store::allocated(&tree),
                origin: Origin::Pulled { reference: reference.to_string(), seal },
                clamp: None,
                forms: vec![Form { format: FOREIGN.to_owned(), descriptor: blob.clone() }],
                implied,
            },
        )?)
    }

    /// Unpacks the blob that the store has; `None` if it has none, or one that is damaged, which is then gone.
    fn unpack_stored(&self, layer: DiffId, home: &BaseBlob) -> Result<Option<(Scratch, Unpacked)>, Error> {
        let blob = &home.descriptor;
        if !self.store.has_blob(&blob.digest, blob.size)? {
            return Ok(None);
        }
        let Some(path) = self.store.blob_path(&blob.digest) else { return Ok(None) };
        let scratch = self.store.scratch()?;
        let tree = scratch.dir(TREE)?;
        let file = std::fs::File::open(&path).map_err(|source| Error::Read { path, source })?;
        match matching(layer, home, unpack_blob(file, &tree, self.xattr, self.owners)) {
            Ok(unpacked) => Ok(Some((scratch, unpacked))),
            // What the image itself is to blame for stays so when it is fetched again.
            Err(error) if self.store.verify_blob(&blob.digest)? => Err(error),
            Err(_) => Ok(None),
        }
    }

    /// Fetches the blob into the store and unpacks it on the way.
    fn unpack_fetched(&self, layer: DiffId, home: &BaseBlob, task: &Task<'_>) -> Result<(Scratch, Unpacked), Error> {
        let scratch = self.store.scratch()?;
        let tree = scratch.dir(TREE)?;
        let (sender, receiver) = sync_channel(16);
        let unpacked = std::thread::scope(|scope| {
            let unpacking = scope.spawn(|| unpack_blob(Incoming::new(receiver), &tree, self.xattr, self.owners));
            self.download(home, task, Some(sender))?;
            unpacking.join().map_err(|_| Error::Cancelled)
        })?;
        Ok((scratch, matching(layer, home, unpacked)?))
    }

    /// Fetches a blob into the store, and hands a copy of its bytes to whoever unpacks them.
    fn download(&self, home: &BaseBlob, task: &Task<'_>, copy: Option<SyncSender<Vec<u8>>>) -> Result<(), Error> {
        let BaseBlob { reference, descriptor: blob, layout } = home;
        let boxed = || Box::new(reference.clone());
        let mut sink = Tee { writer: self.store.blob_writer()?, copy, cancel: self.cancel };
        let progress = |done: u64| task.transferred(done, Some(blob.size));
        let fetched = match layout {
            None => self
                .client
                .fetch_blob(reference, blob, &mut sink, &progress)
                .map_err(|source| Error::Registry { reference: boxed(), source }),
            Some(path) => layout::copy_blob(path, blob, &mut sink, &progress)
                .map_err(|source| Error::Layout { reference: boxed(), source }),
        };
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        fetched?;
        sink.writer.commit(Some((&blob.digest, blob.size)))?;
        Ok(())
    }

    fn lock(&self, name: &str, task: &Task<'_>) -> Result<store::Lock, Error> {
        let mut told = false;
        let waiting = &mut |owner: &store::LockOwner| {
            if !std::mem::replace(&mut told, true) {
                task.waiting(owner.as_reason());
            }
            if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Ok(self.store.lock(name, "fetch a layer", waiting)?)
    }
}

fn fetch_title(reference: &Reference, blob: &Descriptor) -> String {
    format!("fetch {} {}", reference.familiar(), &blob.digest.to_string()[..19])
}

/// What was unpacked, if it is the layer that the image's configuration names.
fn matching(layer: DiffId, home: &BaseBlob, unpacked: Result<Unpacked, UnpackError>) -> Result<Unpacked, Error> {
    let (reference, blob) = (Box::new(home.reference.clone()), Box::new(home.descriptor.clone()));
    match unpacked {
        Err(source) => Err(Error::Unpack { reference, blob, source }),
        Ok(unpacked) if unpacked.measured.diff_id != layer => {
            Err(Error::WrongDiffId { reference, blob, expected: layer, found: unpacked.measured.diff_id })
        }
        Ok(unpacked) => Ok(unpacked),
    }
}

/// Whether a layer's files are still what they were when the layer came into the store. Reads all of them: of a layer that
/// Strata made its archive is made again, which has its DiffID; of another's, its seal.
///
/// # Errors
/// What keeps the files from being read.
pub fn is_whole(layer: &StoredLayer, xattr: layer::OverlayXattr) -> Result<bool, archive::Error> {
    match &layer.meta.origin {
        Origin::Pulled { seal, .. } => Ok(archive::seal(&layer.tree, xattr)? == *seal),
        Origin::Built { .. } => {
            let measured = archive::measure(&layer.tree, xattr, Times { clamp: layer.meta.clamp })?;
            Ok(measured.diff_id == layer.diff_id)
        }
    }
}

fn unpack_blob(
    blob: impl Read + Send,
    tree: &std::path::Path,
    xattr: layer::OverlayXattr,
    owners: unpack::Owners,
) -> Result<Unpacked, UnpackError> {
    let archive = compress::decoder(blob).map_err(UnpackError::Decode)?;
    unpack::unpack(archive, tree, xattr, owners).map_err(UnpackError::Unpack)
}

/// Writes to the store and to whoever unpacks; gives up when the build is cancelled.
struct Tee<'a> {
    writer: BlobWriter<'a>,
    copy: Option<SyncSender<Vec<u8>>>,
    cancel: &'a Cancel,
}

impl Write for Tee<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            // Not `Interrupted`, which callers of `write` take as an invitation to try again.
            return Err(io::Error::other("the build was cancelled"));
        }
        self.writer.write_all(bytes)?;
        // An unpacker that failed hangs up; its own error is the one to show, after the blob is safe.
        if self.copy.as_ref().is_some_and(|copy| copy.send(bytes.to_vec()).is_err()) {
            self.copy = None;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

/// The reading end of a [`Tee`].
struct Incoming {
    receiver: Receiver<Vec<u8>>,
    current: io::Cursor<Vec<u8>>,
}

impl Incoming {
    fn new(receiver: Receiver<Vec<u8>>) -> Self {
        Self { receiver, current: io::Cursor::default() }
    }
}

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.current.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            match self.receiver.recv() {
                Ok(bytes) => self.current = io::Cursor::new(bytes),
                Err(_) => return Ok(0),
            }
        }
    }
}
