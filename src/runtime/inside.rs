//! Looking at and making things inside a root that may be hostile.
//!
//! Takes a descriptor of the root and a path as a process inside would write it; gives where that leads *inside*, with
//! every symbolic link followed as if the root were `/`. Never leaves the root, whatever the links say: each step is an
//! `openat2` that the kernel confines, and nothing is looked up by a path on the host.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;

/// How many symbolic links one path may lead through, as in the kernel.
const MAX_LINKS: usize = 40;

/// Where a path leads inside a root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Location {
    /// The path from the root, without leading slash, links, `.` and `..`; empty for the root itself.
    pub path: PathBuf,
    /// What is there; `None` if nothing is.
    pub kind: Option<FileType>,
}

/// Follows `path` inside `root` to its end, through links that dangle, too.
///
/// # Errors
/// `ENOTDIR` if something other than a directory is on the way, `ELOOP` after too many links, and what `openat2` says.
pub(super) fn locate(root: impl AsFd, path: &Path) -> io::Result<Location> {
    let root = root.as_fd();
    let mut rest: VecDeque<OsString> = VecDeque::new();
    queue(&mut rest, path);
    let mut here = Location { path: PathBuf::new(), kind: Some(FileType::Directory) };
    let mut links = 0;
    while let Some(name) = rest.pop_front() {
        match here.kind {
            Some(FileType::Directory) | None => {}
            Some(_) => return Err(Errno::NOTDIR.into()),
        }
        if name == ".." {
            here.path.pop();
            here.kind = kind(root, &here.path)?;
            continue;
        }
        let next = here.path.join(&name);
        let found = if here.kind.is_some() { kind(root, &next)? } else { None };
        if found == Some(FileType::Symlink) {
            links += 1;
            if links > MAX_LINKS {
                return Err(Errno::LOOP.into());
            }
            let target = read_link(root, &next)?;
            if target.is_absolute() {
                here.path = PathBuf::new();
            }
            let mut front = VecDeque::new();
            queue(&mut front, &target);
            front.append(&mut rest);
            rest = front;
            continue;
        }
        here = Location { path: next, kind: found };
    }
    Ok(here)
}

/// Appends the components of `path` that mean something.
fn queue(rest: &mut VecDeque<OsString>, path: &Path) {
    rest.extend(path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    }));
}

/// What is at `path`, which must have no links on its way.
fn kind(root: BorrowedFd<'_>, path: &Path) -> io::Result<Option<FileType>> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS) {
        Ok(fd) => Ok(Some(FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode))),
        // With NO_SYMLINKS the kernel also says ELOOP to a link at the end, unless O_NOFOLLOW asks for the link itself.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn read_link(root: BorrowedFd<'_>, path: &Path) -> io::Result<PathBuf> {
    let link = open(root, path, OFlags::PATH | OFlags::NOFOLLOW, ResolveFlags::NO_SYMLINKS)?;
    let target = rustix::fs::readlinkat(link, "", Vec::new())?;
    Ok(PathBuf::from(OsString::from_vec(target.into_bytes())))
}

/// Opens `path` inside `root`, every link followed inside, those of `/proc` not at all.
pub(super) fn open_inside(root: impl AsFd, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    open(root.as_fd(), path, flags, ResolveFlags::NO_MAGICLINKS)
}

fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        let flags = flags | OFlags::CLOEXEC;
        match rustix::fs::openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | resolve) {
            // A rename elsewhere on the machine can make a confined lookup uncertain for a moment.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

/// Makes the directory at `location` and those above it that are missing: 0755, owned by 0:0, whatever the umask.
pub(super) fn make_directories(root: impl AsFd, location: &Path) -> io::Result<()> {
    let root = root.as_fd();
    let mut done = PathBuf::new();
    for name in location {
        let parent = open(root, &done, OFlags::PATH | OFlags::DIRECTORY, ResolveFlags::NO_SYMLINKS)?;
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                // A directory with the set-group-id bit hands down its group.
                let (owner, group) = (Some(Uid::ROOT), Some(Gid::ROOT));
                rustix::fs::chownat(&parent, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
                rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            }
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        done.push(name);
    }
    Ok(())
}

/// `path` as the kernel's calls want it from a root's descriptor: without leading slashes.
pub(super) fn relative(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    let start = bytes.iter().position(|&byte| byte != b'/').unwrap_or(bytes.len());
    Path::new(OsStr::from_bytes(bytes.get(start..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, OwnedFd) {
        let dir = tempfile::tempdir().unwrap();
        let at = dir.path();
        std::fs::create_dir_all(at.join("usr/etc")).unwrap();
        std::fs::write(at.join("usr/etc/hosts"), "").unwrap();
        symlink("/usr/etc", at.join("etc")).unwrap();
        symlink("/tmp/outside", at.join("proc")).unwrap();
        symlink("../../../../run/stub", at.join("usr/etc/resolv.conf")).unwrap();
        symlink("loop", at.join("loop")).unwrap();
        symlink("/usr/etc/hosts", at.join("file")).unwrap();
        let fd = rustix::fs::open(at, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
        (dir, fd)
    }

    #[test]
    fn paths_lead_where_a_process_inside_would_get() {
        let (_dir, root) = root();
        for (path, expected, kind) in [
            ("/", "", Some(FileType::Directory)),
            ("/etc/hosts", "usr/etc/hosts", Some(FileType::RegularFile)),
            ("/etc/../etc/./hosts", "usr/etc/hosts", Some(FileType::RegularFile)),
            ("/../../etc", "usr/etc", Some(FileType::Directory)),
            ("/proc", "tmp/outside", None),
            ("/etc/resolv.conf", "run/stub", None),
            ("/missing/../etc/hosts", "usr/etc/hosts", Some(FileType::RegularFile)),
            ("/missing/deep", "missing/deep", None),
        ] {
            let found = locate(&root, Path::new(path)).unwrap();
            assert_eq!(found, Location { path: expected.into(), kind }, "{path}");
        }
        for (path, errno) in [("/loop", Errno::LOOP), ("/file/x", Errno::NOTDIR), ("/etc/hosts/x/y", Errno::NOTDIR)] {
            let error = locate(&root, Path::new(path)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{path}");
        }
    }

    #[test]
    fn directories_are_made_inside_only() {
        let (dir, root) = root();
        make_directories(&root, Path::new("a/b/c")).unwrap();
        assert!(dir.path().join("a/b/c").is_dir());
        // A link that appeared after the path was located is not followed.
        assert!(make_directories(&root, Path::new("etc/x")).is_err());
        assert!(!dir.path().join("usr/etc/x").exists());
    }
}
