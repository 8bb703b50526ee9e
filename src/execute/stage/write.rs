//! From memory to disk: writes a staged layer into its directory.
//!
//! Directories first and open to nobody else, then everything in them with all threads, then names of shared inodes, and the
//! directories' own metadata last, deepest first, because each thing made in a directory changes its time.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid};

use super::filling::{self, Filling};
use super::{Body, Error, Leaf, LinkId, Meta, Over, Placed, Stage};
use crate::digest::ContentId;
use crate::layer::OverlayXattr;
use crate::layer::archive::{Arriving, InodeId};
use crate::layer::tree::Tree;
use crate::layer::xattr::{At, Place, place};

/// How many bytes are copied at once where they are also digested.
const PIECE: usize = 256 << 10;

impl Stage<'_> {
    /// Writes the layer. `from` is the tree that [`Body::Source`] speaks of.
    pub(in crate::execute) fn write(self, from: Option<&dyn Tree>) -> Result<(), Error> {
        self.write_most(from).and_then(settle)
    }

    /// Writes the layer but for the content of large files, which comes when the result is read. Such files are only where
    /// the root has nothing, so that nobody has to compare them with anything.
    pub(in crate::execute) fn write_most(self, from: Option<&dyn Tree>) -> Result<Arriving<'static>, Error> {
        for (path, placed) in &self.placed {
            if matches!(placed, Placed::Directory { .. }) {
                self.realize(path)?;
            }
        }
        let mut first_of: HashMap<LinkId, &Path> = HashMap::new();
        let mut leaves: Vec<(&Path, &Leaf)> = Vec::new();
        let mut names: Vec<(&Path, &Path)> = Vec::new();
        for (path, placed) in &self.placed {
            let Placed::Leaf(leaf) = placed else { continue };
            match leaf.link.map(|link| *first_of.entry(link).or_insert(path)) {
                Some(first) if first != path => names.push((path, first)),
                _ => leaves.push((path, leaf)),
            }
        }
        let mut arriving = Arriving::new();
        if let Some(from) = from.filter(|from| from.may_change()) {
            let mut later = Vec::new();
            for (path, leaf) in &leaves {
                if arriving.len() < filling::MOST
                    && let Some((inode, filling)) = self.begin_large(path, leaf, from)?
                {
                    arriving.insert(inode, Box::new(filling) as _);
                    later.push(*path);
                }
            }
            leaves.retain(|(path, _)| !later.contains(path));
        }
        leaves.par_iter().try_for_each(|(path, leaf)| self.write_leaf(path, leaf, from))?;
        for (path, first) in names {
            std::fs::hard_link(self.into.join(first), self.into.join(path))
                .map_err(fail(path, "adding a hard link"))?;
        }
        for (path, placed) in self.placed.iter().rev() {
            if let Placed::Directory { meta, over } = placed {
                self.finish_directory(path, meta, *over)?;
            }
        }
        Ok(arriving)
    }

    /// Makes a large file without its content, if the leaf is one that can get it later.
    fn begin_large(&self, path: &Path, leaf: &Leaf, from: &dyn Tree) -> Result<Option<(InodeId, Filling)>, Error> {
        let Body::Source { path: source_path, content: Some(expected), size: filling::LARGE.. } = &leaf.body else {
            return Ok(None);
        };
        if leaf.link.is_some() || self.parent_entry(path)?.is_some() {
            return Ok(None);
        }
        let unreadable = |error| read_error(source_path, error);
        let source = from.open(source_path).map_err(unreadable)?;
        let left = source.metadata().map_err(unreadable)?.len();
        let into = create(&self.into.join(path), path)?;
        into.set_len(left).map_err(fail(path, "making a file"))?;
        let finish = self.finish();
        finish.file(&into, path, &leaf.meta)?;
        let made = into.metadata().map_err(fail(path, "making a file"))?;
        let filling = Filling {
            source,
            source_path: source_path.clone(),
            into,
            path: path.to_owned(),
            meta: leaf.meta.clone(),
            finish,
            expected: *expected,
            hasher: blake3::Hasher::new(),
            left,
            is_done: false,
        };
        Ok(Some(((made.dev(), made.ino()), filling)))
    }

    /// Makes the directory of a placed directory. Its own bits come last.
    fn realize(&self, path: &Path) -> Result<(), Error> {
        match rustix::fs::mkdirat(CWD, self.into.join(path), Mode::RWXU) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => Ok(()),
            Err(error) => Err(fail(path, "making a directory")(error.into())),
        }
    }

    pub(super) fn realize_parents(&self, path: &Path) -> Result<(), Error> {
        let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
        above.reverse();
        above.into_iter().try_for_each(|directory| self.realize(directory))
    }

    fn write_leaf(&self, path: &Path, leaf: &Leaf, from: Option<&dyn Tree>) -> Result<(), Error> {
        let place = self.into.join(path);
        let meta = &leaf.meta;
        match &leaf.body {
            Body::Written => Ok(()),
            Body::Source { path: source, content, .. } => {
                let from = from.ok_or_else(|| read_error(source, io::ErrorKind::NotFound.into()))?;
                let file = create(&place, path)?;
                copy(from, source, content.filter(|_| from.may_change()), &file, path)?;
                self.finish().file(&file, path, meta)
            }
            Body::Parent { path: source } => {
                let file = create(&place, path)?;
                copy(self.parent, source, None, &file, path)?;
                self.finish().file(&file, path, meta)
            }
            Body::Inline(bytes) => {
                let mut file = create(&place, path)?;
                file.write_all(bytes).map_err(fail(path, "writing its content"))?;
                self.finish().file(&file, path, meta)
            }
            Body::Symlink { target } => {
                std::os::unix::fs::symlink(target, &place).map_err(fail(path, "making a symbolic link"))?;
                self.finish().path(&place, path, meta, false)
            }
            Body::Node { kind, device: (major, minor) } => {
                let device = rustix::fs::makedev(*major, *minor);
                rustix::fs::mknodat(CWD, &place, *kind, Mode::RUSR | Mode::WUSR, device)
                    .map_err(io::Error::from)
                    .map_err(fail(path, "making a device or pipe"))?;
                self.finish().path(&place, path, meta, true)
            }
        }
    }

    /// What gives entries their metadata.
    pub(super) fn finish(&self) -> Finish {
        Finish { xattr: self.xattr, epoch: self.epoch }
    }

    fn finish_directory(&self, path: &Path, meta: &Meta, over: Over) -> Result<(), Error> {
        let place = self.into.join(path);
        if over == Over::Hidden {
            At::Path(&place)
                .make_opaque(self.xattr)
                .map_err(io::Error::from)
                .map_err(fail(path, "marking a directory as opaque"))?;
        }
        self.finish().path(&place, path, meta, true)
    }
}

/// Takes what [`Stage::write_most`] left to its end.
pub(in crate::execute) fn settle(arriving: Arriving<'_>) -> Result<(), Error> {
    for mut filling in arriving.into_values() {
        let failed = |error| arrived(error).unwrap_or_else(|source| read_error(Path::new(""), source));
        io::copy(&mut filling, &mut io::sink()).map_err(failed)?;
    }
    Ok(())
}

/// Why a file that arrived could not be filled, where an error of reading it comes from there.
pub(in crate::execute) fn arrived(error: io::Error) -> Result<Error, io::Error> {
    error.downcast()
}

/// How entries get their metadata: owner before bits and attributes, because a change of owner drops set-id bits and
/// capabilities; bits after attributes, because a file that nobody may write to takes none; times last.
#[derive(Debug, Clone, Copy)]
pub(super) struct Finish {
    xattr: OverlayXattr,
    /// No time is after this, in seconds since 1970.
    epoch: Option<i64>,
}

impl Finish {
    pub(super) fn file(self, file: &File, path: &Path, meta: &Meta) -> Result<(), Error> {
        let (uid, gid) = ids(meta);
        rustix::fs::fchown(file, uid, gid).map_err(owner_failed(path, meta))?;
        self.set_xattrs(At::Descriptor(file.as_fd()), path, meta)?;
        let mode = Mode::from_raw_mode(meta.mode & 0o7777);
        rustix::fs::fchmod(file, mode).map_err(io::Error::from).map_err(fail(path, "setting its mode"))?;
        rustix::fs::futimens(file, &self.times(meta)).map_err(io::Error::from).map_err(fail(path, "setting its time"))
    }

    /// The same for what cannot be opened; a link has no bits.
    pub(super) fn path(self, place: &Path, path: &Path, meta: &Meta, has_mode: bool) -> Result<(), Error> {
        let (uid, gid) = ids(meta);
        rustix::fs::chownat(CWD, place, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(owner_failed(path, meta))?;
        self.set_xattrs(At::Path(place), path, meta)?;
        if has_mode {
            rustix::fs::chmodat(CWD, place, Mode::from_raw_mode(meta.mode & 0o7777), AtFlags::empty())
                .map_err(io::Error::from)
                .map_err(fail(path, "setting its mode"))?;
        }
        rustix::fs::utimensat(CWD, place, &self.times(meta), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(io::Error::from)
            .map_err(fail(path, "setting its time"))
    }

    fn set_xattrs(&self, at: At<'_>, path: &Path, meta: &Meta) -> Result<(), Error> {
        for (name, value) in &meta.xattrs {
            // Trees give attributes of the image only; those without a place in this kind of overlay cannot come from one.
            let Place::Name(on_disk) = place(name.as_bytes(), self.xattr) else { continue };
            at.set(&on_disk, value).map_err(io::Error::from).map_err(fail(path, "setting an extended attribute"))?;
        }
        Ok(())
    }

    fn times(&self, meta: &Meta) -> Timestamps {
        let (tv_sec, nanoseconds) = match self.epoch {
            Some(epoch) if meta.mtime.0 >= epoch => (epoch, 0),
            _ => meta.mtime,
        };
        let time = Timespec { tv_sec, tv_nsec: nanoseconds.into() };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// An error about a place in the layer.
pub(super) fn fail(path: &Path, action: &'static str) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Write { path, action, source }
}

fn read_error(path: &Path, source: io::Error) -> Error {
    Error::Read { path: path.to_owned(), source }
}

/// Makes a file where there is none.
pub(super) fn create(place: &PathBuf, path: &Path) -> Result<File, Error> {
    File::options().write(true).create_new(true).mode(0o600).open(place).map_err(fail(path, "making a file"))
}

/// Why a file did not get its owner: an id that is not mapped is no valid argument.
fn owner_failed<'a>(path: &'a Path, meta: &'a Meta) -> impl FnOnce(rustix::io::Errno) -> Error + use<'a> {
    move |errno| match errno {
        rustix::io::Errno::INVAL => {
            Error::Owner { path: path.to_owned(), uid: meta.uid, gid: meta.gid, source: errno.into() }
        }
        errno => fail(path, "setting its owner")(errno.into()),
    }
}

fn ids(meta: &Meta) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(meta.uid)), Some(Gid::from_raw(meta.gid)))
}

/// Copies a file's content. With `expected`, the copy is digested on the way and has to be that.
fn copy(from: &dyn Tree, source: &Path, expected: Option<ContentId>, into: &File, path: &Path) -> Result<(), Error> {
    let mut open = from.open(source).map_err(|error| read_error(source, error))?;
    let mut into = into;
    let Some(expected) = expected else {
        // Within the kernel where the file systems allow it, without copying at all where they share blocks.
        return io::copy(&mut open, &mut into).map(drop).map_err(fail(path, "copying its content"));
    };
    let mut hasher = blake3::Hasher::new();
    let size = open.metadata().map_err(|error| read_error(source, error))?.len();
    let mut piece = vec![0; usize::try_from(size).map_or(PIECE, |size| size.clamp(4096, PIECE))];
    loop {
        let length = match open.read(&mut piece) {
            Ok(0) => break,
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(read_error(source, error)),
        };
        hasher.update(&piece[..length]);
        into.write_all(&piece[..length]).map_err(fail(path, "writing its content"))?;
    }
    if ContentId::from(hasher.finalize()) == expected {
        Ok(())
    } else {
        Err(Error::Changed { path: source.to_owned() })
    }
}
