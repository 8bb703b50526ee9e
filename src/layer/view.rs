//! Reads a stack of layers as the one tree that a container would see, without mounting anything.
//!
//! Takes overlay-ready directories, topmost first. Gives what an overlay of them would show: whiteouts hide, opaque
//! directories hide what is below them, directories of the same path are one with the metadata of the topmost. Never
//! follows a symbolic link, and looks at no path twice by name: every lookup is one resolution by the kernel below a
//! layer's open root.
//!
//! The layers must not change while a view is used: it remembers which of them make up each directory. A view is made
//! for one step and thrown away.

mod top;

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

use self::top::Top;
pub use self::top::Tops;
use super::OverlayXattr;
use super::inode::{self, ChildKind};
pub use super::resolve::{Follow, Resolved, resolve};
use super::tree::{Entry, Kind, Tree};
use super::xattr::{self, At, Attributes};
use crate::digest::ContentId;

/// A stack of layers.
#[derive(Debug)]
pub struct View {
    /// Each layer, topmost first.
    trees: Vec<Layer>,
    xattr: OverlayXattr,
    /// For each directory looked at: which layers make it up, topmost first. `None` where there is no directory.
    merges: RwLock<HashMap<PathBuf, Option<Merge>>>,
}

pub(super) type Merge = Arc<[usize]>;

/// One layer of a view.
#[derive(Debug)]
struct Layer {
    tree: PathBuf,
    /// Its root, once it was needed.
    root: OnceLock<OwnedFd>,
    /// What its root holds, where that is known.
    top: Option<Arc<Top>>,
}

impl Layer {
    fn root(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        if self.root.get().is_none() {
            // Where two threads open it, one of the two is kept.
            let _ = self.root.set(inode::open_root(&self.tree)?);
        }
        self.root.get().map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn may_have(&self, path: &Path) -> bool {
        self.top.as_ref().is_none_or(|top| top.may_have(path))
    }
}

/// An inode of one of the layers.
pub(super) struct Found {
    tree: usize,
    inode: OwnedFd,
    pub(super) stat: Stat,
}

impl View {
    /// A view of layers, given topmost first. No layers are an empty root directory.
    ///
    /// # Errors
    /// A layer's directory that cannot be opened, with its path.
    pub fn over(trees: &[PathBuf], xattr: OverlayXattr) -> io::Result<Self> {
        let open = |tree: &PathBuf| {
            let root = inode::open_root(tree).map_err(|error| unopened(tree, error.into()))?;
            Ok(Layer { tree: tree.clone(), root: root.into(), top: None })
        };
        let trees = trees.iter().map(open).collect::<io::Result<_>>()?;
        Ok(Self { trees, xattr, merges: RwLock::default() })
    }

    /// The same of layers that other views look at, too. What is learned of each is in `tops`, and only the layers that
    /// have something of what is looked for are opened.
    ///
    /// # Errors
    /// As for [`View::over`].
    pub fn among(tops: &Tops, trees: &[PathBuf], xattr: OverlayXattr) -> io::Result<Self> {
        let know = |tree: &PathBuf| {
            let top = tops.of(tree, xattr).map_err(|error| unopened(tree, error))?;
            Ok(Layer { tree: tree.clone(), root: OnceLock::new(), top: Some(top) })
        };
        let trees = trees.iter().map(know).collect::<io::Result<_>>()?;
        Ok(Self { trees, xattr, merges: RwLock::default() })
    }

    /// Finds what the stack shows at a path.
    fn find(&self, path: &Path) -> io::Result<Option<Found>> {
        let Some(parent) = path.parent() else { return self.find_in(path, 0..self.trees.len()) };
        let Some(merge) = self.merge(parent)? else { return Ok(None) };
        self.find_in(path, merge.iter().copied())
    }

    /// Finds the topmost inode of a path in some of the layers, unless a whiteout comes first.
    fn find_in(&self, path: &Path, trees: impl Iterator<Item = usize>) -> io::Result<Option<Found>> {
        for tree in trees {
            if let Some(found) = self.find_in_tree(path, tree)? {
                return Ok((inode::child_kind(&found.stat) != ChildKind::Whiteout).then_some(found));
            }
        }
        Ok(None)
    }

    pub(super) fn find_in_tree(&self, path: &Path, tree: usize) -> io::Result<Option<Found>> {
        if !self.trees[tree].may_have(path) {
            return Ok(None);
        }
        match self.open_in_tree(path, tree, OFlags::PATH) {
            Ok(inode) => {
                let stat = rustix::fs::fstat(&inode)?;
                Ok(Some(Found { tree, inode, stat }))
            }
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn open_in_tree(&self, path: &Path, tree: usize, access: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let root = self.trees[tree].root()?;
        let flags = access | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inside = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        loop {
            match rustix::fs::openat2(root, path, flags, Mode::empty(), inside) {
                Err(Errno::INTR) => {}
                // A parent of the path is a symbolic link in this layer, so the path is not there.
                Err(Errno::LOOP) => return Err(Errno::NOENT),
                result => return result,
            }
        }
    }

    /// Which layers make up a directory.
    pub(super) fn merge(&self, path: &Path) -> io::Result<Option<Merge>> {
        if let Some(known) = self.merges.read().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(known.clone());
        }
        let merge = match path.parent() {
            None => self.merge_of(path, 0..self.trees.len())?,
            Some(parent) => match self.merge(parent)? {
                Some(above) => self.merge_of(path, above.iter().copied())?,
                None => None,
            },
        };
        self.merges.write().unwrap_or_else(PoisonError::into_inner).insert(path.to_owned(), merge.clone());
        Ok(merge)
    }

    fn merge_of(&self, path: &Path, trees: impl Iterator<Item = usize>) -> io::Result<Option<Merge>> {
        let mut merge = Vec::new();
        for tree in trees {
            if let Some(top) = self.trees[tree].top.as_ref().filter(|_| path.as_os_str().is_empty()) {
                merge.push(tree);
                if top.is_opaque {
                    break;
                }
                continue;
            }
            let Some(found) = self.find_in_tree(path, tree)? else { continue };
            if inode::child_kind(&found.stat) != ChildKind::Directory {
                break;
            }
            merge.push(tree);
            // By way of the link of the kernel's to it, since its own descriptor may only be used to find things.
            let through = xattr::path_in(found.inode.as_fd(), b".");
            if At::Path(&through).is_opaque(self.xattr)? {
                break;
            }
        }
        let is_directory = !merge.is_empty() || (self.trees.is_empty() && path.as_os_str().is_empty());
        Ok(is_directory.then(|| merge.into()))
    }

    fn required(&self, path: &Path) -> io::Result<Found> {
        self.find(path)?.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

impl Tree for View {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let Some(found) = self.find(path)? else {
            let is_root = self.trees.is_empty() && path.as_os_str().is_empty();
            return Ok(is_root.then_some(EMPTY_ROOT));
        };
        inode::entry(&found.stat, || inode::link_target(found.inode.as_fd(), b"")).map(Some)
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let Some(merge) = self.merge(path)? else {
            let kind = if self.find(path)?.is_some() { io::ErrorKind::NotADirectory } else { io::ErrorKind::NotFound };
            return Err(kind.into());
        };
        let mut names = BTreeMap::new();
        for tree in merge.iter() {
            let directory = self.open_in_tree(path, *tree, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for child in inode::list(directory.as_fd())? {
                names.entry(child.name).or_insert(child.kind);
            }
        }
        names.retain(|_, kind| *kind != ChildKind::Whiteout);
        Ok(names.into_keys().map(OsString::from_vec).collect())
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        let found = self.required(path)?;
        match FileType::from_raw_mode(found.stat.st_mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
        Ok(self.open_in_tree(path, found.tree, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?.into())
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let found = match self.find(path)? {
            Some(found) => found,
            None if self.trees.is_empty() && path.as_os_str().is_empty() => return Ok(Vec::new()),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        let attributes = self.attributes(path, &found)?;
        Ok(attributes.image.into_iter().map(|(name, value)| (OsString::from_vec(name), value)).collect())
    }

    fn content_id(&self, path: &Path, _entry: &Entry) -> io::Result<ContentId> {
        let file = self.open(path)?;
        let size = file.metadata()?.len();
        ContentId::of_all(&file, size)
    }
}

impl View {
    fn attributes(&self, path: &Path, found: &Found) -> io::Result<Attributes> {
        // A descriptor for finding things cannot be asked for attributes, but a name in its parent can.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Attributes::read(At::Descriptor(self.trees[found.tree].root()?), self.xattr);
        };
        let parent = self.open_in_tree(parent, found.tree, OFlags::PATH | OFlags::DIRECTORY)?;
        Attributes::read(At::Path(&xattr::path_in(parent.as_fd(), name.as_bytes())), self.xattr)
    }
}

fn unopened(tree: &Path, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("cannot open the layer in {}: {error}", tree.display()))
}

/// What the root of no layers looks like.
const EMPTY_ROOT: Entry = Entry { kind: Kind::Directory, mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), link_group: None };

#[cfg(test)]
mod tests;
