//! What an unpacked entry gets besides its content: owner, mode, extended attributes and times.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::rc::Rc;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, Uid};
use rustix::io::Errno;

use super::directories::Finish;
use super::{Error, LeftOut, Owners, Unpacking};
use crate::layer::entries::{ArchiveEntry, EntryKind};
use crate::layer::xattr::{self, At, DEFAULT_ACL, Place};

impl Unpacking {
    pub(super) fn root_metadata(&mut self, entry: &ArchiveEntry) -> Result<(), Error> {
        if entry.kind != EntryKind::Directory {
            return Err(entry.refused("the root of a layer must be a directory"));
        }
        let root = Rc::clone(&self.root);
        self.open_metadata(entry, root.as_fd())?;
        self.directories.insert(Vec::new(), Finish::of(entry));
        Ok(())
    }

    /// Owner, mode and attributes, in the order in which none undoes another: a change of owner clears set-id bits
    /// and capabilities.
    pub(super) fn open_metadata(&mut self, entry: &ArchiveEntry, inode: BorrowedFd<'_>) -> Result<(), Error> {
        let (uid, gid) = self.owner(entry);
        rustix::fs::fchown(inode, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|error| owner_error(entry, error))?;
        rustix::fs::fchmod(inode, Mode::from_raw_mode(entry.mode)).map_err(|error| entry.failed(error))?;
        self.attributes(entry, At::Descriptor(inode))
    }

    /// The same for what cannot be opened, and its time. A symbolic link has no mode.
    pub(super) fn closed_metadata(
        &mut self,
        entry: &ArchiveEntry,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<(), Error> {
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        let (uid, gid) = self.owner(entry);
        rustix::fs::chownat(parent, name, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)), nofollow)
            .map_err(|error| owner_error(entry, error))?;
        if !matches!(entry.kind, EntryKind::Symlink { .. }) {
            rustix::fs::chmodat(parent, name, Mode::from_raw_mode(entry.mode), AtFlags::empty())
                .map_err(|error| entry.failed(error))?;
        }
        if !entry.xattrs.is_empty() {
            self.attributes(entry, At::Path(&xattr::path_in(parent, name)))?;
        }
        rustix::fs::utimensat(parent, name, &timestamps(entry.mtime), nofollow).map_err(|error| entry.failed(error))
    }

    /// Whether an inode has an entry's owner and mode already. Setting them again would take its capabilities away.
    pub(super) fn has_metadata(&self, entry: &ArchiveEntry, stat: &rustix::fs::Stat) -> bool {
        (stat.st_uid, stat.st_gid) == self.owner(entry) && stat.st_mode & 0o7777 == entry.mode
    }

    fn owner(&self, entry: &ArchiveEntry) -> (u32, u32) {
        match self.owners {
            Owners::Kept => (entry.uid, entry.gid),
            Owners::Squashed => (0, 0),
        }
    }

    fn attributes(&mut self, entry: &ArchiveEntry, at: At<'_>) -> Result<(), Error> {
        for (name, value) in &entry.xattrs {
            let is_late = name == DEFAULT_ACL.as_bytes() && entry.kind == EntryKind::Directory;
            let on_disk = match xattr::place(name, self.xattr) {
                Place::Name(on_disk) if !is_late => on_disk,
                Place::Nowhere => {
                    self.leave_out_attribute(entry.shown(), name);
                    continue;
                }
                Place::Name(_) | Place::Foreign => continue,
            };
            match at.set(&on_disk, value) {
                Ok(()) => {}
                Err(error) if is_not_taken(error) => self.leave_out_attribute(entry.shown(), name),
                Err(error) => return Err(entry.failed(error)),
            }
        }
        Ok(())
    }

    pub(super) fn leave_out_attribute(&mut self, entry: PathBuf, name: &[u8]) {
        self.left_out.push(LeftOut::Attribute { entry, name: OsStr::from_bytes(name).to_owned() });
    }
}

/// A system that has no place for an attribute, as opposed to one that failed.
pub(super) fn is_not_taken(error: Errno) -> bool {
    matches!(error, Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS)
}

fn owner_error(entry: &ArchiveEntry, error: Errno) -> Error {
    if error == Errno::INVAL {
        return Error::UnmappedOwner { entry: entry.shown(), uid: entry.uid, gid: entry.gid };
    }
    entry.failed(error)
}

/// Both times of a file; when it was last read is nothing that an archive knows.
pub(super) fn timestamps((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: time, last_modification: time }
}
