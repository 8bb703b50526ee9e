//! Mount points that an image lacks, without a trace in what a step leaves behind.
//!
//! A sandbox has `/proc`, `/dev`, `/etc/hosts` and more whether or not its image has such paths to mount them on. A
//! skeleton is one more read-only layer of the overlay that holds just those paths, empty. Since it is a lower layer,
//! nothing of it ever gets into the upper directory: there is nothing to remove afterwards and no time to restore.
//! Under the other layers it is enough for nearly every image ([`Skeleton::bottom`]); where a link, a whiteout or an
//! opaque directory hides it, one on top of them, whose directories look exactly like those they cover, does it
//! ([`Skeleton::top`]).

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

use super::Error;
use super::inside::{open_inside, relative};

/// What a mount point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A directory.
    Directory,
    /// A directory for memory to be mounted on, which takes on its mode: 1777 where it is made for this.
    Memory,
    /// A regular file.
    File,
}

/// A path that something is going to be mounted on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MountPoint {
    /// The path inside the root, as the plan has it.
    pub path: PathBuf,
    /// What it must be.
    pub kind: Kind,
}

/// Fills an existing, empty directory on the host with mount points.
#[derive(Debug)]
pub(super) struct Skeleton<'a> {
    /// The directory.
    pub directory: &'a Path,
}

impl Skeleton<'_> {
    /// Makes the mount points at the paths that the plan has, for a layer below all others.
    pub(super) fn bottom(&self, points: &[MountPoint]) -> Result<(), Error> {
        self.fill(points, None)
    }

    /// Makes the mount points at the paths that they lead to in the merged root `like`, for a layer above all others.
    ///
    /// Every directory that `like` has too gets the same mode, owner, times and extended attributes.
    pub(super) fn top(&self, points: &[MountPoint], like: &OwnedFd) -> Result<(), Error> {
        self.fill(points, Some(like))
    }

    fn fill(&self, points: &[MountPoint], like: Option<&OwnedFd>) -> Result<(), Error> {
        let failed =
            |source| Error::Directory { action: "make mount points in", path: self.directory.to_owned(), source };
        let mut parents = BTreeSet::new();
        for point in points {
            let path = relative(&point.path);
            parents.extend(path.ancestors().skip(1).filter(|parent| !parent.as_os_str().is_empty()));
            self.make(path, point.kind).map_err(|source| match source.kind() {
                io::ErrorKind::AlreadyExists | io::ErrorKind::NotADirectory => Error::Target {
                    target: point.path.clone(),
                    problem: "a file is mounted where a directory is needed".to_owned(),
                },
                _ => failed(source),
            })?;
        }
        // Times last, since making the entries has changed them. How the mount points themselves look does not matter,
        // they will be covered; nor does the skeleton's own root, which the upper directory covers.
        parents.iter().try_for_each(|parent| copy_looks(like, parent, &self.directory.join(parent))).map_err(failed)
    }

    fn make(&self, path: &Path, kind: Kind) -> io::Result<()> {
        let at = self.directory.join(path);
        match kind {
            Kind::Directory => std::fs::create_dir_all(at),
            Kind::Memory => {
                std::fs::create_dir_all(&at)?;
                Ok(rustix::fs::chmod(at, Mode::from_raw_mode(0o1777))?)
            }
            Kind::File => {
                std::fs::create_dir_all(at.parent().unwrap_or(self.directory))?;
                drop(std::fs::OpenOptions::new().write(true).create(true).truncate(false).open(at)?);
                Ok(())
            }
        }
    }
}

/// Gives the directory `at` the looks of `path` in `like`; those of a plain directory of the epoch's first second if it
/// is not there.
fn copy_looks(like: Option<&OwnedFd>, path: &Path, at: &Path) -> io::Result<()> {
    let original = match like.map(|root| open_inside(root, path, OFlags::RDONLY | OFlags::DIRECTORY)) {
        None => None,
        Some(Ok(directory)) => Some(directory),
        Some(Err(error)) if error.kind() == io::ErrorKind::NotFound => None,
        Some(Err(error)) => return Err(error),
    };
    let Some(original) = original else {
        rustix::fs::chmod(at, Mode::from_raw_mode(0o755))?;
        let start = Timespec { tv_sec: 0, tv_nsec: 0 };
        let times = Timestamps { last_access: start, last_modification: start };
        return Ok(rustix::fs::utimensat(rustix::fs::CWD, at, &times, AtFlags::SYMLINK_NOFOLLOW)?);
    };
    let copy = rustix::fs::open(at, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    copy_attributes(&original, &copy)?;
    copy_xattrs(&original, &copy)
}

/// Copies owner, mode and times of one directory to another.
pub(super) fn copy_attributes(from: impl AsFd, to: impl AsFd) -> io::Result<()> {
    let stat = rustix::fs::fstat(from)?;
    rustix::fs::fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&to, Mode::from_raw_mode(stat.st_mode))?;
    let nanoseconds = |value| i64::try_from(value).unwrap_or(0);
    let times = Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: nanoseconds(stat.st_atime_nsec) },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: nanoseconds(stat.st_mtime_nsec) },
    };
    Ok(rustix::fs::futimens(&to, &times)?)
}

/// Copies all extended attributes that the target's file system takes.
fn copy_xattrs(from: &OwnedFd, to: &OwnedFd) -> io::Result<()> {
    /// The kernel's limits on a list of names and on a value, `XATTR_LIST_MAX` and `XATTR_SIZE_MAX`.
    const LIMIT: usize = 65536;
    let mut names = vec![0_u8; LIMIT];
    let length = match rustix::fs::flistxattr(from, names.as_mut_slice()) {
        Err(Errno::NOTSUP) => return Ok(()),
        length => length?,
    };
    let mut value = vec![0_u8; LIMIT];
    for name in names.get(..length).unwrap_or_default().split(|&byte| byte == 0).filter(|name| !name.is_empty()) {
        let length = match rustix::fs::fgetxattr(from, name, value.as_mut_slice()) {
            Err(Errno::NODATA) => continue,
            length => length?,
        };
        match rustix::fs::fsetxattr(to, name, value.get(..length).unwrap_or_default(), XattrFlags::empty()) {
            // A security label is given by the host's policy, not by us; without support there is nothing to look like.
            Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {}
            result => result?,
        }
    }
    Ok(())
}
