//! The entries of a layer that is being unpacked, made one after the other.
//!
//! Takes an entry and the directory it goes into, which was found inside the layer's root; never follows the last part
//! of a path. A name that is taken goes first: the later entry counts.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, SeekFrom};
use rustix::io::Errno;

use super::directories::Finish;
use super::metadata::timestamps;
use super::{Archive, Error, LeftOut, Unpacking};
use crate::layer::entries::{ArchiveEntry, EntryKind, shown};
use crate::layer::inode::{self, ChildKind};
use crate::layer::xattr::{self, At};

impl Unpacking {
    pub(super) fn make_opaque(&mut self, entry: &ArchiveEntry, parent_path: &[u8]) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        At::Path(&xattr::path_in(parent.as_fd(), b".")).make_opaque(self.xattr).map_err(|error| entry.failed(error))
    }

    pub(super) fn whiteout(&mut self, entry: &ArchiveEntry, parent_path: &[u8], hidden: &[u8]) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        match mknod(parent.as_fd(), hidden, FileType::CharacterDevice, (0, 0)) {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|error| entry.failed(error)),
        }
        let stat = inode::stat(parent.as_fd(), hidden).map_err(|error| entry.failed(error))?;
        if inode::child_kind(&stat) == ChildKind::Directory {
            self.not_implied(&stat);
            let directory = xattr::path_in(parent.as_fd(), hidden);
            At::Path(&directory).make_opaque(self.xattr).map_err(|error| entry.failed(error))?;
        }
        Ok(())
    }

    pub(super) fn make(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent_path: &[u8],
        name: &[u8],
        archive: &mut Archive<'_>,
    ) -> Result<(), Error> {
        let parent = self.parent(entry, parent_path)?;
        let parent = parent.as_fd();
        match &entry.kind {
            EntryKind::File => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = self.replacing(entry, path, parent, name, || {
                    rustix::fs::openat(parent, name, flags, Mode::RUSR | Mode::WUSR)
                })?;
                copy_content(entry, archive, &file)?;
                self.open_metadata(entry, file.as_fd())?;
                rustix::fs::futimens(&file, &timestamps(entry.mtime)).map_err(|error| entry.failed(error))
            }
            EntryKind::Directory => self.directory(entry, path, parent, name),
            EntryKind::HardLink { target } => self.hard_link(entry, path, parent, name, target),
            EntryKind::Symlink { target } => {
                if target.is_empty() || target.contains(&0) {
                    return Err(entry.refused("it is a symbolic link without a proper target"));
                }
                self.replacing(entry, path, parent, name, || rustix::fs::symlinkat(target.as_slice(), parent, name))?;
                self.closed_metadata(entry, parent, name)
            }
            EntryKind::Fifo => self.node(entry, path, parent, name, FileType::Fifo, (0, 0)),
            EntryKind::CharDevice { device: (0, 0) } => {
                Err(entry.refused("a character device 0:0 is what an overlay takes for a deleted file"))
            }
            EntryKind::CharDevice { device } => {
                self.node(entry, path, parent, name, FileType::CharacterDevice, *device)
            }
            EntryKind::BlockDevice { device } => self.node(entry, path, parent, name, FileType::BlockDevice, *device),
        }
    }

    fn directory(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Error> {
        if let Err(error) = rustix::fs::mkdirat(parent, name, Mode::RWXU) {
            if error != Errno::EXIST {
                return Err(entry.failed(error));
            }
            self.make_way_for_directory(parent, name).map_err(|error| entry.failed(error))?;
        }
        let directory = inode::open_directory(parent, name).map_err(|error| entry.failed(error))?;
        if !self.implied.is_empty() {
            self.not_implied(&rustix::fs::fstat(&directory).map_err(|error| entry.failed(error))?);
        }
        self.open_metadata(entry, directory.as_fd())?;
        self.directories.insert(path.to_vec(), Finish::of(entry));
        Ok(())
    }

    /// Makes a directory where something is already; a directory stays. One that this layer also hides in lower
    /// layers becomes opaque.
    pub(super) fn make_way_for_directory(&mut self, parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
        let kind = inode::child_kind(&inode::stat(parent, name)?);
        if kind == ChildKind::Directory {
            return Ok(());
        }
        self.last_parent = None;
        rustix::fs::unlinkat(parent, name, AtFlags::empty())?;
        rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
        if kind == ChildKind::Whiteout {
            At::Path(&xattr::path_in(parent, name)).make_opaque(self.xattr)?;
        }
        Ok(())
    }

    fn hard_link(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        target: &[u8],
    ) -> Result<(), Error> {
        let missing = || Error::LinkTarget { entry: entry.shown(), target: shown(target) };
        let target_path =
            self.plain_path(target).map_err(|_| entry.refused("its target has \"..\" or a zero byte in it"))?;
        let (above, target_name) = match target_path.iter().rposition(|byte| *byte == b'/') {
            Some(slash) => (&target_path[..slash], &target_path[slash + 1..]),
            None => (&b""[..], target_path.as_slice()),
        };
        if target_name.is_empty() || target_path == path {
            return Err(missing());
        }
        let above = self.open_inside(above, OFlags::PATH).map_err(|_| missing())?;
        let stat = inode::stat(above.as_fd(), target_name).map_err(|_| missing())?;
        if matches!(inode::child_kind(&stat), ChildKind::Directory | ChildKind::Whiteout) {
            return Err(missing());
        }
        self.replacing(entry, path, parent, name, || {
            rustix::fs::linkat(&above, target_name, parent, name, AtFlags::empty())
        })?;
        // A link's own header counts, and for all names of the file: so it does where containers run.
        let is_symlink = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        if is_symlink || self.has_metadata(entry, &stat) {
            return Ok(());
        }
        self.closed_metadata(entry, parent, name)
    }

    fn node(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        kind: FileType,
        device: (u32, u32),
    ) -> Result<(), Error> {
        let result = self.replacing(entry, path, parent, name, || match mknod(parent, name, kind, device) {
            Err(Errno::PERM) if kind != FileType::Fifo => Ok(false),
            result => result.map(|()| true),
        })?;
        if !result {
            self.left_out.push(LeftOut::Device { entry: entry.shown() });
            return Ok(());
        }
        self.closed_metadata(entry, parent, name)
    }

    /// Makes something; if the name is taken, what has it goes first: the later entry counts.
    fn replacing<T>(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        parent: BorrowedFd<'_>,
        name: &[u8],
        mut make: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, Error> {
        match make() {
            Err(Errno::EXIST) => {}
            result => return result.map_err(|error| entry.failed(error)),
        }
        self.last_parent = None;
        let stat = inode::stat(parent, name).map_err(|error| entry.failed(error))?;
        if inode::child_kind(&stat) == ChildKind::Directory {
            let inside = [path, b"/"].concat();
            self.directories.retain(|known, _| known != path && !known.starts_with(&inside));
            std::fs::remove_dir_all(xattr::path_in(parent, name))
                .map_err(|source| Error::Write { entry: entry.shown(), source })?;
        } else {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|error| entry.failed(error))?;
        }
        make().map_err(|error| entry.failed(error))
    }
}

/// How much content is looked at for a hole, and the least that becomes one.
const HOLE: (usize, usize) = (64 << 10, 4 << 10);

/// Writes an entry's content. Zeros become holes: what was a sparse file of many gigabytes before it was archived, as
/// `/var/log/lastlog` is with large user ids, takes no room again.
fn copy_content(entry: &ArchiveEntry, archive: &mut Archive<'_>, file: &OwnedFd) -> Result<(), Error> {
    static ZEROS: [u8; HOLE.0] = [0; HOLE.0];
    let mut length = 0;
    let mut ends_in_hole = false;
    loop {
        let content = archive.content()?;
        let piece = &content[..content.len().min(HOLE.0)];
        if piece.is_empty() {
            break;
        }
        ends_in_hole = piece.len() >= HOLE.1 && piece == &ZEROS[..piece.len()];
        let passed = if ends_in_hole {
            rustix::fs::seek(file, SeekFrom::Current(piece.len().try_into().unwrap_or(0))).map(|_| piece.len())
        } else {
            rustix::io::write(file, piece)
        };
        match passed {
            Ok(passed) => {
                length += passed as u64;
                archive.consume(passed);
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(entry.failed(error)),
        }
    }
    if ends_in_hole { rustix::fs::ftruncate(file, length).map_err(|error| entry.failed(error)) } else { Ok(()) }
}

fn mknod(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, (major, minor): (u32, u32)) -> rustix::io::Result<()> {
    let mode = if (major, minor) == (0, 0) && kind == FileType::CharacterDevice { 0 } else { 0o600 };
    rustix::fs::mknodat(parent, name, kind, Mode::from_raw_mode(mode), rustix::fs::makedev(major, minor))
}
