//! What was fetched, as trees that files can be copied from.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use super::Kept;
use crate::digest::ContentId;
use crate::layer::tree::{Entry, Kind, Tree};

/// Permission bits of a file fetched by its address, as in BuildKit.
const FILE_MODE: u32 = 0o600;

/// The files of something fetched.
#[derive(Debug)]
pub enum FetchedTree {
    /// One file.
    File(OneFile),
    /// A commit of a repository.
    Checkout(Box<Kept>),
}

impl FetchedTree {
    /// The files.
    pub fn tree(&self) -> &dyn Tree {
        match self {
            Self::File(file) => file,
            Self::Checkout(kept) => &kept.view,
        }
    }
}

/// A root directory with one file in it, which is somewhere else on disk under another name.
#[derive(Debug)]
pub struct OneFile {
    name: OsString,
    path: PathBuf,
    entry: Entry,
}

impl OneFile {
    pub(super) fn new(name: &str, path: PathBuf, modified: i64) -> io::Result<Self> {
        let kind = Kind::File { size: path.metadata()?.len() };
        let entry = Entry { kind, mode: FILE_MODE, uid: 0, gid: 0, mtime: (modified, 0), link_group: None };
        Ok(Self { name: name.into(), path, entry })
    }

    fn is_it(&self, path: &Path) -> bool {
        path.as_os_str() == self.name
    }
}

const ROOT: Entry = Entry { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), link_group: None };

impl Tree for OneFile {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        Ok(match path {
            path if path.as_os_str().is_empty() => Some(ROOT),
            path if self.is_it(path) => Some(self.entry.clone()),
            _ => None,
        })
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        if path.as_os_str().is_empty() { Ok(vec![self.name.clone()]) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        if self.is_it(path) { File::open(&self.path) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn xattrs(&self, _path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        Ok(Vec::new())
    }

    fn content_id(&self, path: &Path, _entry: &Entry) -> io::Result<ContentId> {
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(self.open(path)?)?;
        Ok(hasher.finalize().into())
    }
}

/// Several trees as one: the first part of a path is the tree's number.
pub struct Joined<'a>(Vec<&'a dyn Tree>);

impl std::fmt::Debug for Joined<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Joined({} trees)", self.0.len())
    }
}

impl<'a> Joined<'a> {
    /// Puts trees beside each other, in order.
    pub fn new(trees: Vec<&'a dyn Tree>) -> Self {
        Self(trees)
    }

    /// The path that a path of one of the trees has here.
    pub fn path(tree: usize, path: &Path) -> PathBuf {
        Path::new(&tree.to_string()).join(path)
    }

    fn find<'p>(&self, path: &'p Path) -> io::Result<(&'a dyn Tree, &'p Path)> {
        let number = path.iter().next().and_then(|first| first.to_str()).and_then(|first| first.parse::<usize>().ok());
        let tree = number.and_then(|number| self.0.get(number)).ok_or(io::ErrorKind::NotFound)?;
        let mut rest = path.components();
        rest.next();
        Ok((*tree, rest.as_path()))
    }
}

impl Tree for Joined<'_> {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let (tree, path) = self.find(path)?;
        tree.entry(path)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let (tree, path) = self.find(path)?;
        tree.names(path)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let (tree, path) = self.find(path)?;
        tree.open(path)
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let (tree, path) = self.find(path)?;
        tree.xattrs(path)
    }

    fn content_id(&self, path: &Path, entry: &Entry) -> io::Result<ContentId> {
        let (tree, path) = self.find(path)?;
        tree.content_id(path, entry)
    }

    fn may_change(&self) -> bool {
        self.0.iter().any(|tree| tree.may_change())
    }
}
