//! The directories of a layer that is being unpacked: found inside its root, made where the archive lacks them, and
//! finished when nothing is made in them any more.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use rustix::fs::{Gid, Mode, OFlags, ResolveFlags, Stat, Uid};
use rustix::io::Errno;

use super::metadata::{is_not_taken, timestamps};
use super::{Error, Unpacking};
use crate::layer::entries::{ArchiveEntry, shown};
use crate::layer::inode::{self, ChildKind};
use crate::layer::view::{Follow, View, resolve};
use crate::layer::xattr::{At, DEFAULT_ACL};

/// What would be undone by, or would spoil, what is made in a directory later.
#[derive(Default)]
pub(super) struct Finish {
    mtime: (i64, u32),
    default_acl: Option<Vec<u8>>,
}

impl Finish {
    pub(super) fn of(entry: &ArchiveEntry) -> Self {
        let default_acl = entry.xattrs.iter().find(|(name, _)| name == DEFAULT_ACL.as_bytes());
        Self { mtime: entry.mtime, default_acl: default_acl.map(|(_, value)| value.clone()) }
    }
}

impl Unpacking {
    /// The directory that an entry goes into, made if the archive did not have it.
    pub(super) fn parent(&mut self, entry: &ArchiveEntry, path: &[u8]) -> Result<Rc<OwnedFd>, Error> {
        if path.is_empty() {
            return Ok(Rc::clone(&self.root));
        }
        if let Some((known, parent)) = &self.last_parent
            && known == path
        {
            return Ok(Rc::clone(parent));
        }
        let parent = match self.open_inside(path, OFlags::PATH) {
            Err(Errno::NOENT | Errno::NOTDIR) => self.make_parents(entry, path)?,
            result => result.map_err(|error| entry.failed(error))?,
        };
        let parent = Rc::new(parent);
        self.last_parent = Some((path.to_vec(), Rc::clone(&parent)));
        Ok(parent)
    }

    /// Opens a directory by its path in the layer. Symbolic links of the layer are followed inside it.
    pub(super) fn open_inside(&self, path: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        let flags = access | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        // The kernel gives up on `..` in a link while anything on the system is renamed or mounted (openat2(2)).
        for _ in 0..100 {
            match rustix::fs::openat2(&self.root, path, flags, Mode::empty(), inside) {
                Err(Errno::AGAIN | Errno::INTR) => std::thread::yield_now(),
                result => return result,
            }
        }
        Err(Errno::AGAIN)
    }

    fn make_parents(&mut self, entry: &ArchiveEntry, path: &[u8]) -> Result<OwnedFd, Error> {
        let mut directory = self.open_inside(b"", OFlags::PATH).map_err(|error| entry.failed(error))?;
        let mut end = 0;
        for name in path.split(|byte| *byte == b'/') {
            end += name.len();
            let so_far = &path[..end];
            end += 1;
            directory = match self.open_inside(so_far, OFlags::PATH) {
                Ok(found) => found,
                Err(Errno::NOENT | Errno::NOTDIR) => self.make_parent(entry, so_far, directory.as_fd(), name)?,
                Err(error) => return Err(entry.failed(error)),
            };
        }
        Ok(directory)
    }

    fn make_parent(
        &mut self,
        entry: &ArchiveEntry,
        path: &[u8],
        above: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<OwnedFd, Error> {
        let mut is_new = false;
        match rustix::fs::mkdirat(above, name, Mode::RWXU) {
            Err(Errno::EXIST) => {
                let stat = inode::stat(above, name).map_err(|error| entry.failed(error))?;
                match inode::child_kind(&stat) {
                    ChildKind::Whiteout => {
                        self.make_way_for_directory(above, name).map_err(|error| entry.failed(error))?;
                    }
                    ChildKind::Other => {
                        return Err(
                            entry.refused("it lies in something that is not a directory, or in a link to nothing")
                        );
                    }
                    _ => return Err(entry.refused("it lies in something that is not a directory")),
                }
            }
            result => {
                result.map_err(|error| entry.failed(error))?;
                is_new = true;
            }
        }
        let made = inode::open_directory(above, name).map_err(|error| entry.failed(error))?;
        rustix::fs::fchown(&made, Some(Uid::ROOT), Some(Gid::ROOT)).map_err(|error| entry.failed(error))?;
        rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755)).map_err(|error| entry.failed(error))?;
        if is_new {
            let stat = rustix::fs::fstat(&made).map_err(|error| entry.failed(error))?;
            self.implied.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        self.directories.insert(path.to_vec(), Finish::default());
        Ok(made)
    }

    /// The directory behind a descriptor or a name was given a meaning of its own by the archive.
    pub(super) fn not_implied(&mut self, stat: &Stat) {
        self.implied.remove(&(stat.st_dev, stat.st_ino));
    }

    /// The directories that are implied still, by the paths that they have in the tree without passing a link.
    pub(super) fn take_implied(&mut self, into: &Path) -> Result<Vec<PathBuf>, Error> {
        let implied = std::mem::take(&mut self.implied);
        if implied.is_empty() {
            return Ok(Vec::new());
        }
        let failed = |source| Error::Target { path: into.to_owned(), source };
        let view = View::over(&[into.to_owned()], self.xattr).map_err(failed)?;
        let mut paths = BTreeSet::new();
        for (inode, path) in implied {
            // Removed since, and perhaps something else is there now.
            let Ok(found) = self.open_inside(&path, OFlags::PATH) else { continue };
            let stat = rustix::fs::fstat(&found).map_err(|error| failed(error.into()))?;
            if (stat.st_dev, stat.st_ino) == inode {
                paths.insert(resolve(&view, Path::new(OsStr::from_bytes(&path)), Follow::All).map_err(failed)?.path);
            }
        }
        Ok(paths.into_iter().collect())
    }

    pub(super) fn finish_directories(&mut self) -> Result<(), Error> {
        self.last_parent = None;
        for (path, finish) in std::mem::take(&mut self.directories) {
            let failed = |error: Errno| Error::Write { entry: shown(&path), source: error.into() };
            let directory = match self.open_inside(&path, OFlags::RDONLY | OFlags::NOFOLLOW) {
                // Under another name for the same place (through a link) it may have been replaced since.
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                result => result.map_err(failed)?,
            };
            if let Some(acl) = finish.default_acl {
                match At::Descriptor(directory.as_fd()).set(DEFAULT_ACL.as_bytes(), &acl) {
                    Err(error) if is_not_taken(error) => {
                        self.leave_out_attribute(shown(&path), DEFAULT_ACL.as_bytes());
                    }
                    result => result.map_err(failed)?,
                }
            }
            rustix::fs::futimens(&directory, &timestamps(finish.mtime)).map_err(failed)?;
        }
        Ok(())
    }
}
