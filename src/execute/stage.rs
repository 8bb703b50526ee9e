//! A layer in the making: what is put where on top of a root file system, first in memory and then on disk.
//!
//! Takes places for directories, files and links; gives an overlay-ready directory that holds them and the directories on the
//! way to them. Where one step passes a place twice, the later one wins, and nothing is written for the earlier. Directories
//! that the root already has appear with the root's own metadata, since an overlay needs them there; only their time changes
//! with the names in them. Nothing is ever
//! written through a symbolic link: places are resolved against root and layer together, and every directory above a place is
//! a real one.

mod filling;
mod write;

pub(super) use self::write::{arrived, settle};

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::digest::ContentId;
use crate::layer::OverlayXattr;
use crate::layer::tree::{Entry, Kind, Tree};
use crate::layer::view::{Follow, resolve};

/// Why a layer cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The root file system that the layer goes on top of cannot be read.
    #[error("cannot read /{} of the file system to add to", path.display())]
    Parent {
        /// The path in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something that is not a directory is in the way.
    #[error("cannot make the directory /{}: something that is not a directory is there", path.display())]
    NotADirectory {
        /// Where.
        path: PathBuf,
    },
    /// The source of a file cannot be read.
    #[error("cannot read {} to copy it", path.display())]
    Read {
        /// Its path in the source.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file has another content than it had when the step began.
    #[error("{} was changed while the build was copying it; try again when nothing writes to it", path.display())]
    Changed {
        /// Its path in the source.
        path: PathBuf,
    },
    /// The owner of a file has an id that this user has not.
    #[error(
        "/{} cannot belong to {uid}:{gid}: the ids must be mapped, and the ranges of this user in /etc/subuid and \
         /etc/subgid do not reach them (usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST USER adds one)",
        path.display()
    )]
    Owner {
        /// The place in the layer.
        path: PathBuf,
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The layer cannot be written.
    #[error("cannot write /{} into the new layer: {action}", path.display())]
    Write {
        /// The place in the layer.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// What an entry has besides its content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Meta {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) xattrs: Vec<(OsString, Vec<u8>)>,
}

/// Directories that come into being because something is put into them.
#[derive(Debug, Clone, Copy)]
pub(super) struct NewDirectory {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// Names an inode that several places share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct LinkId(u64);

/// What is not a directory.
#[derive(Debug, Clone)]
pub(super) struct Leaf {
    pub(super) meta: Meta,
    pub(super) body: Body,
    pub(super) link: Option<LinkId>,
}

/// What a leaf holds.
#[derive(Debug, Clone)]
pub(super) enum Body {
    /// A file of the source tree, the digest it was selected by, and its length then.
    Source { path: PathBuf, content: Option<ContentId>, size: u64 },
    /// A file of the root file system itself.
    Parent { path: PathBuf },
    /// A file with this content.
    Inline(Arc<[u8]>),
    /// A file that is in the layer's directory already, metadata and all.
    Written,
    /// A symbolic link.
    Symlink { target: PathBuf },
    /// A device or named pipe.
    Node { kind: rustix::fs::FileType, device: (u32, u32) },
}

#[derive(Debug)]
enum Placed {
    Directory { meta: Meta, over: Over },
    Leaf(Leaf),
}

/// What a directory of the layer lies over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// A directory of the root, whose entries show through.
    Directory,
    /// Nothing, or something that is not a directory.
    Nothing,
    /// A directory of the root that must not show through any more.
    Hidden,
}

/// See the [module](self).
pub(super) struct Stage<'a> {
    parent: &'a dyn Tree,
    into: &'a Path,
    xattr: OverlayXattr,
    now: (i64, u32),
    /// No time in the layer is after this, in seconds since 1970.
    epoch: Option<i64>,
    /// By path. The directories above every path are in it too, the root (the empty path) always.
    placed: BTreeMap<PathBuf, Placed>,
    links: u64,
}

impl<'a> Stage<'a> {
    /// Begins a layer on top of `parent`, to be written into the directory `into`, which is made if it is missing.
    pub(super) fn new(
        parent: &'a dyn Tree,
        into: &'a Path,
        xattr: OverlayXattr,
        epoch: Option<i64>,
    ) -> Result<Self, Error> {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos());
        let mut stage = Self { parent, into, xattr, now, epoch, placed: BTreeMap::new(), links: 0 };
        let root = Path::new("");
        match stage.parent_entry(root)? {
            Some(entry) => stage.carry(root, &entry)?,
            None => stage.make(root, NewDirectory { mode: 0o755, uid: 0, gid: 0 }),
        }
        Ok(stage)
    }

    /// The moment the layer is made at: the time of everything that has none of its own.
    pub(super) fn now(&self) -> (i64, u32) {
        self.now
    }

    /// A name for an inode that several leaves will share.
    pub(super) fn new_link(&mut self) -> LinkId {
        self.links += 1;
        LinkId(self.links)
    }

    /// What is at a path, in the layer or else in the root. Links are not followed.
    pub(super) fn kind(&self, path: &Path) -> Result<Option<Kind>, Error> {
        Ok(match self.placed.get(path) {
            Some(Placed::Directory { .. }) => Some(Kind::Directory),
            Some(Placed::Leaf(leaf)) => Some(leaf.kind()),
            None if self.shows_parent(path) => self.parent_entry(path)?.map(|entry| entry.kind),
            None => None,
        })
    }

    /// What the layer has at a path.
    pub(super) fn leaf(&self, path: &Path) -> Option<&Leaf> {
        match self.placed.get(path) {
            Some(Placed::Leaf(leaf)) => Some(leaf),
            _ => None,
        }
    }

    /// Makes the leaf at a path share its inode with others from now on.
    pub(super) fn share(&mut self, path: &Path) -> Option<LinkId> {
        let fresh = self.new_link();
        match self.placed.get_mut(path) {
            Some(Placed::Leaf(leaf)) => Some(*leaf.link.get_or_insert(fresh)),
            _ => None,
        }
    }

    /// The metadata of a leaf of the root file system that the layer does not hide.
    pub(super) fn parent_leaf(&self, path: &Path) -> Result<Option<(Meta, Kind)>, Error> {
        if self.placed.contains_key(path) || !self.shows_parent(path) {
            return Ok(None);
        }
        match self.parent_entry(path)? {
            Some(entry) if entry.kind != Kind::Directory => Ok(Some((self.parent_meta(path, &entry)?, entry.kind))),
            _ => Ok(None),
        }
    }

    /// Follows symbolic links of root and layer; what does not exist yet stays as it is written.
    pub(super) fn resolve(&self, path: &Path) -> Result<PathBuf, Error> {
        self.resolve_in(Path::new(""), path)
    }

    /// The same as for a process whose root is the directory `root`, itself resolved. The result counts from the real root.
    pub(super) fn resolve_in(&self, root: &Path, path: &Path) -> Result<PathBuf, Error> {
        let full = || root.join(path.strip_prefix("/").unwrap_or(path));
        match resolve(&Merged { stage: self, root }, path, Follow::All) {
            Ok(resolved) => Ok(root.join(resolved.path)),
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => Err(Error::NotADirectory { path: full() }),
            Err(source) => Err(Error::Parent { path: full(), source }),
        }
    }

    /// Sees to it that there is a directory at a resolved path, with all above it. Says whether any had to be made.
    pub(super) fn directories(&mut self, path: &Path, new: NewDirectory) -> Result<bool, Error> {
        let mut made = false;
        let mut at = PathBuf::new();
        for part in path {
            at.push(part);
            match self.placed.get(&at) {
                Some(Placed::Directory { .. }) => continue,
                Some(Placed::Leaf(_)) => return Err(Error::NotADirectory { path: at }),
                None => {}
            }
            let below = if self.shows_parent(&at) { self.parent_entry(&at)? } else { None };
            match below {
                Some(entry) if entry.kind == Kind::Directory => self.carry(&at, &entry)?,
                Some(_) => return Err(Error::NotADirectory { path: at }),
                None => {
                    self.make(&at, new);
                    made = true;
                }
            }
        }
        Ok(made)
    }

    /// Puts a directory at a path whose parent is placed. One that is there already takes the metadata given; attributes it has
    /// besides stay.
    pub(super) fn directory(&mut self, path: &Path, mut meta: Meta) -> Result<(), Error> {
        match self.placed.get_mut(path) {
            Some(Placed::Directory { meta: own, .. }) => {
                merge_xattrs(&mut meta, std::mem::take(&mut own.xattrs));
                *own = meta;
                return Ok(());
            }
            Some(Placed::Leaf(_)) => return Err(Error::NotADirectory { path: path.to_owned() }),
            None => {}
        }
        let below = if self.shows_parent(path) { self.parent_entry(path)? } else { None };
        let over = match below {
            Some(entry) if entry.kind == Kind::Directory => {
                merge_xattrs(&mut meta, self.parent_meta(path, &entry)?.xattrs);
                Over::Directory
            }
            Some(_) => return Err(Error::NotADirectory { path: path.to_owned() }),
            None => Over::Nothing,
        };
        if over == Over::Nothing {
            self.touch_above(path);
        }
        self.placed.insert(path.to_owned(), Placed::Directory { meta, over });
        Ok(())
    }

    /// Sets the time of a directory of the layer, which everything that is put into it later changes again.
    pub(super) fn set_time(&mut self, path: &Path, mtime: (i64, u32)) {
        if let Some(Placed::Directory { meta, .. }) = self.placed.get_mut(path) {
            meta.mtime = mtime;
        }
    }

    /// Changes the permission bits of a directory that is there, in the layer or the root.
    pub(super) fn change_mode(&mut self, path: &Path, mode: u32) -> Result<(), Error> {
        self.directories(path, NewDirectory { mode, uid: 0, gid: 0 })?;
        if let Some(Placed::Directory { meta, .. }) = self.placed.get_mut(path) {
            meta.mode = mode;
        }
        Ok(())
    }

    /// Puts a leaf at a path whose parent is placed and where no directory is. An earlier leaf is replaced.
    pub(super) fn put(&mut self, path: &Path, leaf: Leaf) -> Result<(), Error> {
        self.discard_written(path)?;
        self.touch_above(path);
        self.placed.insert(path.to_owned(), Placed::Leaf(leaf));
        Ok(())
    }

    /// Makes place for something of another kind at a path whose parent is placed: whatever is there goes, in the layer and
    /// out of sight in the root. What comes next has to be placed at once.
    pub(super) fn clear(&mut self, path: &Path) -> Result<Cleared, Error> {
        let had_directory = match self.placed.get(path) {
            Some(Placed::Directory { over, .. }) => *over != Over::Nothing,
            _ => {
                let hides = self.shows_parent(path);
                hides && self.parent_entry(path)?.is_some_and(|entry| entry.kind == Kind::Directory)
            }
        };
        self.discard_written(path)?;
        if matches!(self.placed.get(path), Some(Placed::Directory { .. })) {
            self.placed.retain(|placed, _| !placed.starts_with(path));
            match std::fs::remove_dir_all(self.into.join(path)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(write::fail(path, "removing what an archive replaces")(error));
                }
                _ => {}
            }
        }
        self.placed.remove(path);
        Ok(Cleared { had_directory })
    }

    /// Puts a new directory where [`Stage::clear`] made place.
    pub(super) fn directory_after_clear(&mut self, path: &Path, meta: Meta, cleared: Cleared) {
        let over = if cleared.had_directory { Over::Hidden } else { Over::Nothing };
        self.touch_above(path);
        self.placed.insert(path.to_owned(), Placed::Directory { meta, over });
    }

    /// Writes a file at once, whose content comes from `fill`; its place has to be free ([`Stage::clear`]).
    pub(super) fn write_now<E: From<Error>>(
        &mut self,
        path: &Path,
        meta: Meta,
        fill: impl FnOnce(&File) -> Result<(), E>,
    ) -> Result<(), E> {
        self.realize_parents(path)?;
        let file = write::create(&self.into.join(path), path)?;
        fill(&file)?;
        self.finish().file(&file, path, &meta)?;
        self.touch_above(path);
        self.placed.insert(path.to_owned(), Placed::Leaf(Leaf { meta, body: Body::Written, link: None }));
        Ok(())
    }

    /// Adds a name for a file written by [`Stage::write_now`]; the place has to be free.
    pub(super) fn link_now(&mut self, path: &Path, to: &Path) -> Result<(), Error> {
        let Some(leaf) = self.leaf(to).cloned() else { return Ok(()) };
        self.realize_parents(path)?;
        std::fs::hard_link(self.into.join(to), self.into.join(path))
            .map_err(write::fail(path, "adding a hard link"))?;
        self.touch_above(path);
        self.placed.insert(path.to_owned(), Placed::Leaf(leaf));
        Ok(())
    }

    /// Whether the root's entry at a path, if there is one, is not covered by something in the layer above it.
    fn shows_parent(&self, path: &Path) -> bool {
        let nearest = path.ancestors().skip(1).find_map(|above| self.placed.get(above));
        matches!(nearest, Some(Placed::Directory { over: Over::Directory, .. }) | None)
    }

    fn parent_entry(&self, path: &Path) -> Result<Option<Entry>, Error> {
        self.parent.entry(path).map_err(|source| Error::Parent { path: path.to_owned(), source })
    }

    fn parent_meta(&self, path: &Path, entry: &Entry) -> Result<Meta, Error> {
        let xattrs = self.parent.xattrs(path).map_err(|source| Error::Parent { path: path.to_owned(), source })?;
        Ok(Meta { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs })
    }

    fn carry(&mut self, path: &Path, entry: &Entry) -> Result<(), Error> {
        let meta = self.parent_meta(path, entry)?;
        self.placed.insert(path.to_owned(), Placed::Directory { meta, over: Over::Directory });
        Ok(())
    }

    fn make(&mut self, path: &Path, new: NewDirectory) {
        let NewDirectory { mode, uid, gid } = new;
        let meta = Meta { mode, uid, gid, mtime: self.now, xattrs: Vec::new() };
        self.touch_above(path);
        self.placed.insert(path.to_owned(), Placed::Directory { meta, over: Over::Nothing });
    }

    /// A directory's time is that of the last change to its names, as on any file system.
    fn touch_above(&mut self, path: &Path) {
        let now = self.now;
        if let Some(above) = path.parent() {
            self.set_time(above, now);
        }
    }

    fn discard_written(&self, path: &Path) -> Result<(), Error> {
        match self.leaf(path) {
            Some(Leaf { body: Body::Written, .. }) => {
                std::fs::remove_file(self.into.join(path)).map_err(write::fail(path, "replacing an earlier file"))
            }
            _ => Ok(()),
        }
    }
}

/// What [`Stage::clear`] took away.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cleared {
    had_directory: bool,
}

impl Leaf {
    fn kind(&self) -> Kind {
        match &self.body {
            Body::Symlink { target } => Kind::Symlink { target: target.clone() },
            Body::Node { .. } => Kind::Fifo,
            _ => Kind::File { size: 0 },
        }
    }
}

fn merge_xattrs(meta: &mut Meta, older: Vec<(OsString, Vec<u8>)>) {
    for (name, value) in older {
        if !meta.xattrs.iter().any(|(own, _)| *own == name) {
            meta.xattrs.push((name, value));
        }
    }
    meta.xattrs.sort_unstable();
}

/// Layer and root as the one tree in which places are resolved. Only kinds are known of it, and nothing else is asked.
struct Merged<'a> {
    stage: &'a Stage<'a>,
    root: &'a Path,
}

impl Tree for Merged<'_> {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        let kind = self.stage.kind(&self.root.join(path)).map_err(|error| match error {
            Error::Parent { source, .. } => source,
            other => io::Error::other(other),
        })?;
        Ok(kind.map(|kind| Entry { kind, mode: 0, uid: 0, gid: 0, mtime: (0, 0), link_group: None }))
    }

    fn names(&self, _: &Path) -> io::Result<Vec<OsString>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn open(&self, _: &Path) -> io::Result<File> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn xattrs(&self, _: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn content_id(&self, _: &Path, _: &Entry) -> io::Result<ContentId> {
        Err(io::ErrorKind::Unsupported.into())
    }
}
