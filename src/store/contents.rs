//! Everything that is in a store, as files: what each is, where, and when it was last used.
//!
//! Gives lists; changes nothing, pins nothing and trusts nothing. What is in the store's directory and belongs to none of its
//! parts is listed as well, so that all of it together is what the file system says.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::builds::StoredBuild;
use super::error::Error;
use super::layer::LayerMeta;
use super::layout::DIRECTORIES;
use super::lock;
use super::removal::{remove_all, remove_file};
use super::scratch::lock_directory;
use super::{Store, Used};
use crate::digest::{ContentId, DiffId, Digest};

/// One thing in a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub what: What,
    /// Where it is.
    pub path: PathBuf,
    /// When it was last used; long ago where nobody knows.
    pub last_use: SystemTime,
}

/// The parts of a store.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// What can be pinned.
    Used(Used),
    /// A record, by the name of its bucket.
    Record(String),
    /// What `stat` said of the files of a context.
    ContextIndex,
    /// A build's record and logs.
    Build {
        /// Its id.
        id: String,
        /// Whether it goes on.
        is_running: bool,
    },
    /// What a process has in hand, or a dead one left.
    Scratch {
        /// Whether the process lives.
        is_alive: bool,
    },
    /// A directory of the store itself, without what is in it.
    Directory,
    /// Anything else.
    Other,
}

impl Store {
    /// Everything in the store.
    ///
    /// # Errors
    /// What the operating system refused. What goes while it is looked for is left out.
    pub fn contents(&self) -> Result<Vec<Content>, Error> {
        let mut found = Contents { store: self, all: Vec::new() };
        found.everything()?;
        Ok(found.all)
    }

    /// What is known of a layer, whether or not it can be used; nothing is pinned.
    pub fn describe_layer(&self, diff_id: &DiffId) -> Option<LayerMeta> {
        self.peek_layer(diff_id)
    }

    /// What living processes have pinned at this moment.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn in_use(&self) -> Result<std::collections::HashSet<Used>, Error> {
        self.pinned(&self.gate()?)
    }

    /// The value of a record in this file, whatever its key. `None` if it is damaged.
    pub fn peek_record(&self, path: &Path) -> Option<Vec<u8>> {
        super::record::value_in(path)
    }

    /// Removes a record, an index of a context, or a build that does not go on. Other things are removed by a collection
    /// ([`Store::begin_collection`]) or a sweep. Whether it is gone.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn remove_content(&self, content: &Content) -> Result<bool, Error> {
        match &content.what {
            What::Record(_) | What::ContextIndex => remove_file(&content.path).map(|()| true),
            What::Build { .. } => match lock_directory(&content.path)? {
                Some(_lock) => remove_all(&content.path).map(|()| true),
                None => Ok(false),
            },
            What::Used(_) | What::Scratch { .. } | What::Directory | What::Other => Ok(false),
        }
    }
}

struct Contents<'a> {
    store: &'a Store,
    all: Vec<Content>,
}

impl Contents<'_> {
    fn everything(&mut self) -> Result<(), Error> {
        let layout = &self.store.layout;
        let root = layout.root().to_owned();
        self.add(What::Directory, &root);
        let known: HashMap<PathBuf, ()> = DIRECTORIES.iter().map(|(name, _)| (root.join(name), ())).collect();
        for directory in std::iter::once(root.clone()).chain(DIRECTORIES.iter().map(|(name, _)| root.join(name))) {
            for path in list(&directory)? {
                if known.contains_key(&path) {
                    self.add(What::Directory, &path);
                } else {
                    self.sort(&directory, path)?;
                }
            }
        }
        Ok(())
    }

    /// Says what an entry of one of the store's directories is.
    fn sort(&mut self, directory: &Path, path: PathBuf) -> Result<(), Error> {
        let layout = &self.store.layout;
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let what = if *directory == layout.layers() {
            format!("sha256:{name}").parse::<DiffId>().map_or(What::Other, |id| What::Used(Used::Layer(id)))
        } else if *directory == layout.blobs() {
            format!("sha256:{name}").parse::<Digest>().map_or(What::Other, |digest| What::Used(Used::Blob(digest)))
        } else if *directory == layout.mounts() {
            format!("blake3:{name}").parse::<ContentId>().map_or(What::Other, |name| What::Used(Used::Mount(name)))
        } else if *directory == layout.builds() {
            let build = StoredBuild::at(&path);
            What::Build { is_running: build.is_running(), id: name }
        } else if *directory == layout.tmp() {
            What::Scratch { is_alive: is_held(&path) }
        } else if *directory == layout.contexts() {
            What::ContextIndex
        } else if *directory == layout.cache() && path.is_dir() {
            return self.bucket(&name, &path);
        } else {
            What::Other
        };
        self.add(what, &path);
        Ok(())
    }

    fn bucket(&mut self, name: &str, bucket: &Path) -> Result<(), Error> {
        self.add(What::Directory, bucket);
        for directory in list(bucket)? {
            if !directory.is_dir() {
                self.add(What::Other, &directory);
                continue;
            }
            self.add(What::Directory, &directory);
            for record in list(&directory)? {
                self.add(What::Record(name.to_owned()), &record);
            }
        }
        Ok(())
    }

    fn add(&mut self, what: What, path: &Path) {
        let dated = match &what {
            What::Used(used) => self.store.dated(*used),
            What::Build { .. } => StoredBuild::at(path).record_path(),
            _ => path.to_owned(),
        };
        let last_use = std::fs::symlink_metadata(dated).and_then(|meta| meta.modified());
        self.all.push(Content { what, path: path.to_owned(), last_use: last_use.unwrap_or(SystemTime::UNIX_EPOCH) });
    }
}

/// Whether a living process has a directory of `tmp/`.
fn is_held(path: &Path) -> bool {
    std::fs::File::open(path).is_ok_and(|file| !lock::try_lock(path, file.try_lock_shared()).unwrap_or(false))
}

fn list(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let fail = |error| Error::at("list", directory, error);
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(fail(error)),
    };
    entries.map(|entry| entry.map(|entry| entry.path()).map_err(fail)).collect()
}
