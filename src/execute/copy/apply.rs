//! Puts a selection into a new layer on top of a root file system.
//!
//! Takes a [`Selection`], the tree it was made from and the root; gives an overlay-ready directory with exactly the new layer.
//! Where things land follows BuildKit: a file goes into a directory that is there or that `/` asks for, and else takes the
//! destination's name; a directory's contents join the destination; links in the destination's own path are followed inside the
//! root, links met further down are not; a file replaces a file or link, but neither a directory a file nor a file a
//! directory. Directories that come into being have mode 0755, or what `--chmod` says, and belong to root, or to `--chown`.
//! A directory's time is that of the last change in it, or of the directory that it was copied from. An entry that equals the
//! root's is written all the same; what is superfluous goes later ([`crate::layer::diff`]).

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::chmod::Chmod;
use super::select::{Group, Item, Origin, Selection};
use super::{Error, archive};
use crate::context::ignore::clean;
use crate::execute::owner::Owner;
use crate::execute::stage::{Body, Leaf, LinkId, Meta, NewDirectory, Stage, settle};
use crate::graph::CopyOp;
use crate::layer::OverlayXattr;
use crate::layer::archive::Arriving;
use crate::layer::tree::{Kind, Tree};

/// Writes the layer that `op` makes into the directory `into`, which is made if it is missing and has to be empty otherwise.
///
/// `from` is the tree that `selection` was made from; `parent` is the root that is added to, empty for `--link`; `owner` is what
/// `--chown` resolved to. Files of a tree that may change are digested again while they are copied.
///
/// # Errors
/// Something is in the way, a source cannot be read or is not what it was, or the layer cannot be written. What was written then
/// is to be thrown away.
pub fn apply(
    op: &CopyOp,
    selection: &Selection,
    from: &dyn Tree,
    parent: &dyn Tree,
    into: &Path,
    xattr: OverlayXattr,
    owner: Option<&Owner>,
) -> Result<(), Error> {
    Ok(settle(apply_most(op, selection, from, parent, into, xattr, owner)?)?)
}

/// The same but for the content of large files, which comes when the result is read.
///
/// # Errors
/// As for [`apply`].
pub fn apply_most(
    op: &CopyOp,
    selection: &Selection,
    from: &dyn Tree,
    parent: &dyn Tree,
    into: &Path,
    xattr: OverlayXattr,
    owner: Option<&Owner>,
) -> Result<Arriving<'static>, Error> {
    let chmod = op.chmod.as_deref().map(Chmod::parse).transpose()?;
    let stage = Stage::new(parent, into, xattr, op.epoch)?;
    let mut copying = Copying { stage, from, owner, chmod, destination: Destination::new(&op.destination) };
    for group in &selection.groups {
        copying.group(group)?;
    }
    Ok(copying.stage.write_most(Some(from))?)
}

/// The destination as it is written, from the root, without `.` and `..`.
struct Destination {
    path: PathBuf,
    /// Written so that it can only be a directory.
    is_directory: bool,
}

impl Destination {
    fn new(text: &str) -> Self {
        let path = PathBuf::from(&clean(&format!("/{text}"))[1..]);
        Self { is_directory: text.ends_with('/') || text.ends_with("/.") || path.as_os_str().is_empty(), path }
    }
}

struct Copying<'a> {
    stage: Stage<'a>,
    from: &'a dyn Tree,
    owner: Option<&'a Owner>,
    chmod: Option<Chmod>,
    destination: Destination,
}

impl Copying<'_> {
    fn group(&mut self, group: &Group) -> Result<(), Error> {
        if group.unpack
            && let Some(path) = archive_of(group, self.from)?
        {
            let place = self.stage.resolve(&self.destination.path)?;
            // `--chmod` is for what is copied, not for what is unpacked.
            self.stage.directories(&place, NewDirectory { mode: 0o755, ..self.new_directory() })?;
            return archive::unpack(&mut self.stage, self.from, path, &place, self.owner);
        }
        let above = if self.destination.is_directory {
            self.destination.path.as_path()
        } else {
            self.destination.path.parent().unwrap_or(Path::new(""))
        };
        let above = self.stage.resolve(above)?;
        self.stage.directories(&above, self.new_directory())?;
        let place = self.stage.resolve(&self.destination.path)?;
        if group.is_directory { self.contents(group, place) } else { self.single(group, place) }
    }

    /// What is not a directory goes into the destination if that is one, and else becomes it.
    fn single(&mut self, group: &Group, mut place: PathBuf) -> Result<(), Error> {
        if self.stage.kind(&place)? == Some(Kind::Directory) {
            place.push(&group.name);
        }
        if let Some(above) = place.parent() {
            self.stage.directories(above, self.new_directory())?;
        }
        group.items.iter().try_for_each(|item| self.leaf(item, &place, None))
    }

    /// The contents of a directory join the destination, which keeps its own metadata but for the time.
    fn contents(&mut self, group: &Group, place: PathBuf) -> Result<(), Error> {
        if !matches!(self.stage.kind(&place)?, None | Some(Kind::Directory)) {
            return Err(Error::DirectoryOverFile { path: place });
        }
        self.stage.directories(&place, self.new_directory())?;
        let mut links = HashMap::new();
        for item in &group.items {
            let target = place.join(&item.path);
            if item.entry.kind == Kind::Directory {
                self.directory(item, &target)?;
            } else {
                let link = item.link_group().map(|inode| *links.entry(inode).or_insert_with(|| self.stage.new_link()));
                self.leaf(item, &target, link)?;
            }
        }
        self.restore_times(group, &place);
        Ok(())
    }

    /// What was put into the directories changed their times. Those that were copied get their sources' times back, the
    /// destination that of the directory whose contents it takes; those that only come along for something in them do not.
    fn restore_times(&mut self, group: &Group, place: &Path) {
        let mtime = group.mtime.unwrap_or(self.stage.now());
        self.stage.set_time(place, mtime);
        for item in group.items.iter().filter(|item| item.entry.kind == Kind::Directory && !item.implied) {
            self.stage.set_time(&place.join(&item.path), item.entry.mtime);
        }
    }

    fn directory(&mut self, item: &Item, target: &Path) -> Result<(), Error> {
        let meta = self.meta(item);
        match self.stage.kind(target)? {
            // One that only comes along for something in it changes no more than the mode of one that is there.
            Some(Kind::Directory) if item.implied => Ok(self.stage.change_mode(target, meta.mode)?),
            Some(Kind::Directory) | None => Ok(self.stage.directory(target, meta)?),
            Some(_) => Err(Error::DirectoryOverFile { path: target.to_owned() }),
        }
    }

    fn leaf(&mut self, item: &Item, target: &Path, link: Option<LinkId>) -> Result<(), Error> {
        if self.stage.kind(target)? == Some(Kind::Directory) {
            return Err(Error::FileOverDirectory { path: target.to_owned() });
        }
        let node = |kind, device| Body::Node { kind, device };
        let body = match (&item.entry.kind, &item.origin) {
            (Kind::Symlink { target }, _) => Body::Symlink { target: target.clone() },
            (Kind::CharDevice { device }, _) => node(rustix::fs::FileType::CharacterDevice, *device),
            (Kind::BlockDevice { device }, _) => node(rustix::fs::FileType::BlockDevice, *device),
            (Kind::Fifo, _) => node(rustix::fs::FileType::Fifo, (0, 0)),
            (_, Origin::Inline(bytes)) => Body::Inline(bytes.clone()),
            (Kind::File { size }, Origin::Tree(path)) => {
                Body::Source { path: path.clone(), content: item.content, size: *size }
            }
            (_, Origin::Tree(path)) => Body::Source { path: path.clone(), content: item.content, size: 0 },
        };
        Ok(self.stage.put(target, Leaf { meta: self.meta(item), body, link })?)
    }

    fn meta(&self, item: &Item) -> Meta {
        let entry = &item.entry;
        let (uid, gid) = self.owner.map_or((entry.uid, entry.gid), |owner| (owner.uid, owner.gid));
        let mode =
            self.chmod.as_ref().map_or(entry.mode, |chmod| chmod.apply(entry.mode, entry.kind == Kind::Directory));
        let mtime = if matches!(item.origin, Origin::Inline(_)) { self.stage.now() } else { entry.mtime };
        Meta { mode, uid, gid, mtime, xattrs: item.xattrs.clone() }
    }

    fn new_directory(&self) -> NewDirectory {
        let mode = self.chmod.as_ref().map_or(0o755, |chmod| chmod.apply(0o755, true) & 0o777);
        let (uid, gid) = self.owner.map_or((0, 0), |owner| (owner.uid, owner.gid));
        NewDirectory { mode, uid, gid }
    }
}

/// The path of the archive that a group is, if it is one.
fn archive_of<'g>(group: &'g Group, from: &dyn Tree) -> Result<Option<&'g Path>, Error> {
    let [Item { origin: Origin::Tree(path), entry, .. }] = group.items.as_slice() else { return Ok(None) };
    if group.is_directory || !matches!(entry.kind, Kind::File { .. }) {
        return Ok(None);
    }
    Ok(archive::is_archive(from, path)?.then_some(path.as_path()))
}
