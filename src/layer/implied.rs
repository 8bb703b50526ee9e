//! Directories that a layer has but says nothing of, because its archive has entries only for what is in them.
//!
//! Such a directory is the one of the layers below, with its owner, mode, times and attributes; an overlay takes them from
//! the layer on disk instead, where they could only be guessed. So where a stack has such layers, one more is put on top of
//! them ([`complete`]): a layer of just those directories, looking as they should. Everything that stacks layers then has it
//! right without knowing: the kernel's overlay, [`View`], and the comparison of what a step changed.
//!
//! What a directory looks like is decided as in containerd (`archive/tar.go`, `mkparent`): the topmost lower layer that
//! really has it counts, also if this layer hides its content; a symbolic link there is followed; anything else, or nothing,
//! leaves root's directory of mode 0755.

use std::collections::{BTreeSet, HashSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::OverlayXattr;
use super::inode::{self, ChildKind};
use super::tree::{Entry, Kind};
use super::view::{Follow, View, resolve};
use super::xattr::{At, Attributes, Place, place};

/// A layer of a stack.
#[derive(Debug, Clone, Copy)]
pub struct Layer<'a> {
    /// Its directory.
    pub tree: &'a Path,
    /// The directories in it of which its archive says nothing, as [`super::unpack::Unpacked::implied`] gives them.
    pub implied: &'a [PathBuf],
}

/// Makes the empty directory `into` a layer that completes `layers` (topmost first) when it is put on top of them. `false`
/// if they are complete as they are; `into` is then still empty.
///
/// # Errors
/// What the operating system refused; `into` is then to be thrown away.
pub fn complete(layers: &[Layer<'_>], xattr: OverlayXattr, into: &Path) -> io::Result<bool> {
    let stack = Stack::over(layers, xattr)?;
    let mut wanted = BTreeSet::new();
    for path in layers.iter().flat_map(|layer| layer.implied) {
        if stack.source(path)?.is_some_and(|source| source.is_borrowed) {
            wanted.extend(path.ancestors());
        }
    }
    let target = View::over(&[into.to_owned()], xattr)?;
    let open = |path: &Path, access| target.open_in_tree(path, 0, access | OFlags::DIRECTORY);
    // Parents come first, and all are made before the looks of any are set, since a default ACL would be handed on.
    for path in &wanted {
        if let (Some(parent), Some(name)) = (path.parent(), path.file_name()) {
            rustix::fs::mkdirat(open(parent, OFlags::PATH)?, name, Mode::RWXU)?;
        }
    }
    for path in &wanted {
        let source = stack.source(path)?.ok_or(io::ErrorKind::NotFound)?;
        copy_looks(source.directory.as_fd(), open(path, OFlags::RDONLY)?.as_fd(), xattr)?;
    }
    Ok(!wanted.is_empty())
}

/// Layers, topmost first, and what is implied in each.
struct Stack<'a> {
    layers: &'a [Layer<'a>],
    implied: Vec<HashSet<&'a Path>>,
    view: View,
    xattr: OverlayXattr,
}

/// The directory that another one looks like.
struct Source {
    directory: OwnedFd,
    /// Whether it is not what the topmost layer that has the path has there.
    is_borrowed: bool,
}

impl<'a> Stack<'a> {
    fn over(layers: &'a [Layer<'a>], xattr: OverlayXattr) -> io::Result<Self> {
        let trees: Vec<_> = layers.iter().map(|layer| layer.tree.to_owned()).collect();
        let implied = layers.iter().map(|layer| layer.implied.iter().map(PathBuf::as_path).collect()).collect();
        Ok(Self { layers, implied, view: View::over(&trees, xattr)?, xattr })
    }

    /// What the directory at a path looks like; `None` if the stack shows no directory there.
    fn source(&self, path: &Path) -> io::Result<Option<Source>> {
        let among: Vec<usize> = match path.parent() {
            None => (0..self.layers.len()).collect(),
            Some(parent) => self.view.merge(parent)?.map(|merge| merge.to_vec()).unwrap_or_default(),
        };
        let mut own = None;
        for tree in among {
            let Some(found) = self.view.find_in_tree(path, tree)? else { continue };
            let is_symlink = FileType::from_raw_mode(found.stat.st_mode) == FileType::Symlink;
            if inode::child_kind(&found.stat) != ChildKind::Directory {
                let followed = if is_symlink && own.is_some() { self.follow(path, tree)? } else { None };
                if let Some(directory) = followed {
                    return Ok(Some(Source { directory, is_borrowed: true }));
                }
                break;
            }
            if !self.implied[tree].contains(path) {
                return Ok(Some(Source { directory: self.open(path, tree)?, is_borrowed: own.is_some() }));
            }
            own.get_or_insert(tree);
        }
        own.map(|tree| Ok(Source { directory: self.open(path, tree)?, is_borrowed: false })).transpose()
    }

    /// The directory that a symbolic link of a layer leads to, in that layer and those below it.
    fn follow(&self, path: &Path, tree: usize) -> io::Result<Option<OwnedFd>> {
        let below = Stack::over(&self.layers[tree..], self.xattr)?;
        let resolved = match resolve(&below.view, path, Follow::All) {
            Err(error) if leads_nowhere(&error) => return Ok(None),
            resolved => resolved?,
        };
        match resolved.entry {
            Some(Entry { kind: Kind::Directory, .. }) => {
                Ok(below.source(&resolved.path)?.map(|source| source.directory))
            }
            _ => Ok(None),
        }
    }

    fn open(&self, path: &Path, tree: usize) -> io::Result<OwnedFd> {
        Ok(self.view.open_in_tree(path, tree, OFlags::RDONLY | OFlags::DIRECTORY)?)
    }
}

/// Whether a link passes something that is no directory, or leads in a circle.
fn leads_nowhere(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

/// Gives a new directory owner, mode, attributes and times of another, in the order in which none undoes another.
fn copy_looks(like: BorrowedFd<'_>, directory: BorrowedFd<'_>, xattr: OverlayXattr) -> io::Result<()> {
    let stat = rustix::fs::fstat(like)?;
    rustix::fs::fchown(directory, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(directory, Mode::from_raw_mode(inode::permissions(&stat)))?;
    for (name, value) in Attributes::read(At::Descriptor(like), xattr)?.image {
        if let Place::Name(on_disk) = place(&name, xattr) {
            At::Descriptor(directory).set(&on_disk, &value)?;
        }
    }
    let (seconds, nanoseconds) = inode::mtime(&stat);
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Ok(rustix::fs::futimens(directory, &Timestamps { last_access: time, last_modification: time })?)
}

#[cfg(test)]
mod tests;
