//! Removes directory trees that a step, an archive or a crash left, whatever they hold.
//!
//! Takes a path, and removes what is there by file descriptors, so that no link in it leads elsewhere. Directories
//! without permissions, files that are immutable and paths deeper than any limit are removed too. Never enters another
//! mount: what a step had bound into its tree stays untouched, and the removal fails instead.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, IFlags, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::error::Error;

/// Directories open at once, one below the other. What lies deeper is first moved up.
const DEEPEST: usize = 64;

/// Removes whatever a path names, if it names anything.
///
/// # Errors
/// What the operating system refused; [`Error::Io`] with `ResourceBusy` if another file system is mounted in the tree.
pub(super) fn remove_all(path: &Path) -> Result<(), Error> {
    let fail = |errno: Errno| Error::at("remove", path, errno);
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(fail(Errno::INVAL));
    };
    let name = CString::new(name.as_bytes()).map_err(|_| fail(Errno::INVAL))?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = match rustix::fs::openat(CWD, parent, flags, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(fail(errno)),
    };
    remove_top(parent.as_fd(), &name).map_err(fail)
}

/// Removes a tree whose root has this name in a directory.
fn remove_top(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match unlink(parent, name) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let root = match open_directory(parent, name) {
        Ok(root) => root,
        Err(Errno::NOENT) => return Ok(()),
        Err(errno) => return Err(errno),
    };
    let mut removal = Removal { root: root.as_fd(), moved: 0 };
    // What lies too deep is moved into the root while the root is being emptied, hence more than one round.
    while removal.empty(root.as_fd(), 1)? {}
    remove_directory(parent, name)
}

struct Removal<'a> {
    root: BorrowedFd<'a>,
    /// How many directories were moved into the root; numbers them.
    moved: usize,
}

impl Removal<'_> {
    /// Removes all entries of a directory; whether there were any.
    fn empty(&mut self, directory: BorrowedFd<'_>, depth: usize) -> Result<bool, Errno> {
        // The names are read first: a directory that changes while it is read may skip some.
        let mut entries = Vec::new();
        for entry in Dir::read_from(directory)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push((entry.file_name().to_owned(), entry.file_type()));
            }
        }
        for (name, kind) in &entries {
            self.remove(directory, name, *kind, depth)?;
        }
        Ok(!entries.is_empty())
    }

    fn remove(&mut self, parent: BorrowedFd<'_>, name: &CStr, kind: FileType, depth: usize) -> Result<(), Errno> {
        if kind != FileType::Directory {
            match unlink(parent, name) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // The file system does not tell kinds in its listing.
                Err(Errno::ISDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let directory = match open_directory(parent, name) {
            Ok(directory) => directory,
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        };
        if depth >= DEEPEST {
            return self.move_up(parent, name);
        }
        self.empty(directory.as_fd(), depth + 1)?;
        drop(directory);
        remove_directory(parent, name)
    }

    /// Moves a directory into the root, under a name that is free there.
    fn move_up(&mut self, parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        loop {
            self.moved += 1;
            let place = format!(".deep-{}", self.moved);
            match rustix::fs::renameat(parent, name, self.root, place.as_str()) {
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => {}
                outcome => return outcome,
            }
        }
    }
}

/// Opens a directory for emptying it, and gives its owner the permissions that this takes.
fn open_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let directory = match open_beneath(parent, name, OFlags::RDONLY) {
        Err(Errno::ACCESS) => {
            let unopened = open_beneath(parent, name, OFlags::PATH)?;
            allow_owner(unopened.as_fd())?;
            open_beneath(parent, name, OFlags::RDONLY)?
        }
        outcome => outcome?,
    };
    let status = rustix::fs::fstat(&directory)?;
    if !Mode::from_raw_mode(status.st_mode).contains(Mode::RWXU) {
        match rustix::fs::fchmod(&directory, Mode::RWXU) {
            // Root needs no permission bits, and may be barred from changing them: emptying will tell.
            Ok(()) | Err(Errno::PERM) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(directory)
}

/// Changes the mode of a directory that cannot be opened: only through `/proc` does the kernel do it by descriptor.
fn allow_owner(unopened: BorrowedFd<'_>) -> Result<(), Errno> {
    use std::os::fd::AsRawFd;
    rustix::fs::chmod(format!("/proc/self/fd/{}", unopened.as_raw_fd()), Mode::RWXU)
}

/// Opens a directory without following a link and without leaving the mount.
fn open_beneath(parent: BorrowedFd<'_>, name: &CStr, access: OFlags) -> Result<OwnedFd, Errno> {
    let flags = access | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        Err(Errno::XDEV) => Err(Errno::BUSY),
        // Before Linux 5.6, and under filters that do not know the call.
        Err(Errno::NOSYS | Errno::PERM) => {
            let directory = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            if rustix::fs::fstat(&directory)?.st_dev != rustix::fs::fstat(parent)?.st_dev {
                return Err(Errno::BUSY);
            }
            Ok(directory)
        }
        outcome => outcome,
    }
}

/// Removes a name that is not a directory's; [`Errno::ISDIR`] for one that is.
fn unlink(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::PERM) => {
            release(parent, name);
            rustix::fs::unlinkat(parent, name, AtFlags::empty())
        }
        outcome => outcome,
    }
}

fn remove_directory(parent: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR) {
        Err(Errno::PERM) => {
            release(parent, name);
            rustix::fs::unlinkat(parent, name, AtFlags::REMOVEDIR)
        }
        Err(Errno::NOENT) => Ok(()),
        outcome => outcome,
    }
}

/// Takes back "immutable" and "append only" (`chattr +ia`), which a privileged step can set on a file or on the
/// directory it is in. Whether it helped shows when the removal is tried again.
fn release(parent: BorrowedFd<'_>, name: &CStr) {
    let release = |file: BorrowedFd<'_>| {
        if let Ok(flags) = rustix::fs::ioctl_getflags(file) {
            let held = IFlags::IMMUTABLE | IFlags::APPEND;
            if flags.intersects(held) {
                let _ = rustix::fs::ioctl_setflags(file, flags - held);
            }
        }
    };
    release(parent);
    let regular = rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).is_ok_and(|status| {
        matches!(FileType::from_raw_mode(status.st_mode), FileType::RegularFile | FileType::Directory)
    });
    // Opening a device may do something; only files and directories carry the flags in practice.
    if regular {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if let Ok(file) = rustix::fs::openat(parent, name, flags, Mode::empty()) {
            release(file.as_fd());
        }
    }
}

/// Removes a file if it is there.
pub(super) fn remove_file(path: &Path) -> Result<(), Error> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::at("remove", path, error)),
        _ => Ok(()),
    }
}
