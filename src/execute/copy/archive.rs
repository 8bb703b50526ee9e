//! `ADD` of a local archive: what is in it instead of itself.
//!
//! Whether a file is an archive is told by its content: plain tar, or tar in gzip, bzip2, xz or zstd. Entries keep their owner
//! (unless `--chown` says otherwise), mode, time and attributes, replace what is in their way whatever it is, and never leave the
//! destination, which is the root for the archive's own symbolic links. Names like whiteouts are plain names here. Devices and
//! pipes are passed over, as in BuildKit; `--chmod` does not apply.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use super::Error;
use crate::execute::owner::Owner;
use crate::execute::stage::{Body, Leaf, Meta, NewDirectory, Stage};
use crate::layer::compress::archive_decoder;
use crate::layer::entries::{ArchiveEntry, Entries, EntryKind};
use crate::layer::tree::{Kind, Tree};
use crate::layer::xattr::belongs_to_image;

/// How many bytes of a decoded archive are read ahead.
const AHEAD: usize = 256 << 10;

/// Directories that an archive needs but does not have.
const IMPLIED: NewDirectory = NewDirectory { mode: 0o755, uid: 0, gid: 0 };

/// Whether a file's content begins as an archive does.
pub(super) fn is_archive(from: &dyn Tree, path: &Path) -> Result<bool, Error> {
    let file = from.open(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
    // What cannot be decoded is a file that looks like an archive, and is copied.
    let Ok(stream) = archive_decoder(file) else { return Ok(false) };
    Ok(matches!(Entries::new(&mut BufReader::new(stream)).next(), Ok(Some(_))))
}

/// Unpacks the archive at `path` of `from` into the directory `destination`, which is placed.
pub(super) fn unpack(
    stage: &mut Stage<'_>,
    from: &dyn Tree,
    path: &Path,
    destination: &Path,
    owner: Option<&Owner>,
) -> Result<(), Error> {
    let read = |source| Error::Read { path: path.to_owned(), source };
    let stream = from.open(path).and_then(archive_decoder).map_err(read)?;
    let mut input = BufReader::with_capacity(AHEAD, stream);
    let mut unpacking = Unpacking { stage, archive: path, destination, owner, directories: Vec::new() };
    let mut entries = Entries::new(&mut input);
    while let Some(entry) = entries.next().map_err(|source| unpacking.damaged(source))? {
        unpacking.entry(&entry, &mut entries)?;
    }
    // Only now: everything that is put into a directory changes its time.
    for (place, mtime) in unpacking.directories {
        unpacking.stage.set_time(&place, mtime);
    }
    Ok(())
}

struct Unpacking<'s, 'a> {
    stage: &'s mut Stage<'a>,
    archive: &'s Path,
    destination: &'s Path,
    owner: Option<&'s Owner>,
    /// The directories of the archive and their times.
    directories: Vec<(PathBuf, (i64, u32))>,
}

impl Unpacking<'_, '_> {
    fn entry<R: BufRead>(&mut self, entry: &ArchiveEntry, entries: &mut Entries<'_, R>) -> Result<(), Error> {
        let Some(place) = self.place(entry, &entry.name)? else { return Ok(()) };
        match &entry.kind {
            EntryKind::Directory => self.directory(&place, self.meta(entry)),
            EntryKind::File => {
                self.stage.clear(&place)?;
                let (archive, meta) = (self.archive, self.meta(entry));
                self.stage.write_now(&place, meta, |file| copy_content(entries, file, archive, &place))
            }
            EntryKind::Symlink { target } => {
                self.stage.clear(&place)?;
                let target = OsString::from_vec(target.clone()).into();
                // No attributes: those that exist for links are the machine's own.
                let meta = Meta { xattrs: Vec::new(), ..self.meta(entry) };
                Ok(self.stage.put(&place, Leaf { meta, body: Body::Symlink { target }, link: None })?)
            }
            EntryKind::HardLink { target } => self.hard_link(entry, &place, target),
            EntryKind::CharDevice { .. } | EntryKind::BlockDevice { .. } | EntryKind::Fifo => Ok(()),
        }
    }

    /// Where a name of the archive lands; `None` for the archive's own root. Directories on the way are placed.
    fn place(&mut self, entry: &ArchiveEntry, name: &[u8]) -> Result<Option<PathBuf>, Error> {
        let Some(path) = plain(name).map_err(|reason| self.refused(entry, reason))? else { return Ok(None) };
        let (parent, last) = (path.parent().unwrap_or(Path::new("")), path.file_name().unwrap_or_default());
        let parent = self.stage.resolve_in(self.destination, parent)?;
        self.stage.directories(&parent, IMPLIED)?;
        Ok(Some(parent.join(last)))
    }

    fn directory(&mut self, place: &Path, meta: Meta) -> Result<(), Error> {
        self.directories.push((place.to_owned(), meta.mtime));
        match self.stage.kind(place)? {
            Some(Kind::Directory) | None => Ok(self.stage.directory(place, meta)?),
            Some(_) => {
                let cleared = self.stage.clear(place)?;
                self.stage.directory_after_clear(place, meta, cleared);
                Ok(())
            }
        }
    }

    fn hard_link(&mut self, entry: &ArchiveEntry, place: &Path, target: &[u8]) -> Result<(), Error> {
        let missing = "it is a hard link to something that is not a file";
        let Some(to) = self.place(entry, target)? else { return Err(self.refused(entry, missing)) };
        if to == place {
            return Ok(());
        }
        let staged = self.stage.leaf(&to).cloned();
        let below = self.stage.parent_leaf(&to)?;
        match (staged, below) {
            (Some(Leaf { body: Body::Written, .. }), _) => {
                self.stage.clear(place)?;
                self.stage.link_now(place, &to)?;
            }
            (Some(leaf), _) => {
                let link = self.stage.share(&to);
                self.stage.clear(place)?;
                self.stage.put(place, Leaf { link, ..leaf })?;
            }
            // A name for a file of the root below: a layer cannot share its inode, so it gets a copy.
            (None, Some((meta, kind))) => {
                let body = match kind {
                    Kind::File { .. } => Body::Parent { path: to },
                    Kind::Symlink { target } => Body::Symlink { target },
                    _ => return Err(self.refused(entry, missing)),
                };
                self.stage.clear(place)?;
                self.stage.put(place, Leaf { meta, body, link: None })?;
            }
            (None, None) => return Err(self.refused(entry, missing)),
        }
        Ok(())
    }

    fn meta(&self, entry: &ArchiveEntry) -> Meta {
        let (uid, gid) = self.owner.map_or((entry.uid, entry.gid), |owner| (owner.uid, owner.gid));
        let xattrs = entry.xattrs.iter().filter(|(name, _)| belongs_to_image(name));
        Meta {
            mode: entry.mode & 0o7777,
            uid,
            gid,
            mtime: if entry.mtime.0 < 0 { (0, 0) } else { entry.mtime },
            xattrs: xattrs.map(|(name, value)| (OsStr::from_bytes(name).to_owned(), value.clone())).collect(),
        }
    }

    fn refused(&self, entry: &ArchiveEntry, reason: &'static str) -> Error {
        Error::ArchiveEntry { archive: self.archive.to_owned(), entry: entry.shown(), reason }
    }

    fn damaged(&self, source: crate::layer::unpack::Error) -> Error {
        Error::Archive { archive: self.archive.to_owned(), source }
    }
}

/// A name of an archive as a path below the destination; `None` for the destination itself.
fn plain(name: &[u8]) -> Result<Option<PathBuf>, &'static str> {
    let mut path = PathBuf::new();
    if name.contains(&0) {
        return Err("its name has a zero byte");
    }
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => path.push(part),
            Component::ParentDir if path.pop() => {}
            Component::ParentDir => return Err("its name leads out of the archive"),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
    Ok((!path.as_os_str().is_empty()).then_some(path))
}

fn copy_content<R: BufRead>(
    entries: &mut Entries<'_, R>,
    mut file: &File,
    archive: &Path,
    place: &Path,
) -> Result<(), Error> {
    loop {
        let piece = entries.content().map_err(|source| Error::Archive { archive: archive.to_owned(), source })?;
        if piece.is_empty() {
            return Ok(());
        }
        let written = file.write_all(piece).map_err(|source| {
            let source: io::Error = source;
            crate::execute::stage::Error::Write { path: place.to_owned(), action: "writing its content", source }
        });
        let length = piece.len();
        written?;
        entries.consume(length);
    }
}
