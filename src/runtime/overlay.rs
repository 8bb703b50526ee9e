//! The overlay that is a run's root.
//!
//! Takes lower directories, an upper and a work directory, gives a detached mount. Every directory is handed to the
//! kernel as a short path of a descriptor, so neither the length nor the spelling of host paths matters, and none shows
//! inside. Device files on the overlay are dead (`nodev`): a process may make them, as in Docker, but not open them.

use std::ffi::{CStr, CString};
use std::fmt::Write as _;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::mount::{MountAttrFlags, MountFlags, OpenTreeFlags};

use super::filesystem::{Context, clone_mount};
use super::{Error, sys};

/// How many lower directories the kernel stacks.
pub(super) const MAX_LOWERS: usize = 500;

/// The directories of an overlay.
#[derive(Debug)]
pub(super) struct Overlay<'a> {
    /// Read-only directories, topmost first.
    pub lowers: Vec<&'a Path>,
    /// What receives the changes, and a directory of the kernel's own on the same file system. Without them the root
    /// is read-only and needs two lower directories.
    pub changes: Option<Changes<'a>>,
    /// Whether the overlay's records are `user.overlay.…`.
    pub userxattr: bool,
    /// The SELinux label of everything in it, in place of those that its files have on disk.
    pub label: Option<&'a CStr>,
}

/// Where an overlay keeps what changes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes<'a> {
    /// What receives the changes.
    pub upper: &'a Path,
    /// The kernel's own, on the same file system.
    pub work: &'a Path,
}

impl Overlay<'_> {
    /// Mounts it, detached.
    pub(super) fn mount(&self) -> Result<OwnedFd, Error> {
        if self.lowers.len() > MAX_LOWERS {
            return Err(Error::TooManyLayers { count: self.lowers.len(), limit: MAX_LOWERS });
        }
        let context = Context::open(c"overlay").map_err(|source| self.failed(String::new(), source))?;
        match self.mount_with(&context)? {
            Ok(mount) => Ok(mount),
            Err(source) if source.raw_os_error() == Some(libc::EINVAL) => {
                // Kernels before 6.7 cannot be told the lower directories one by one.
                let said = context.said();
                drop(context);
                self.mount_the_old_way(said, source)
            }
            Err(source) => Err(self.failed(context.said(), source)),
        }
    }

    /// The way of Linux 6.7: one setting for each lower directory. The inner error is the kernel's about the mount.
    fn mount_with(&self, context: &Context) -> Result<io::Result<OwnedFd>, Error> {
        let set = |key, path| -> Result<io::Result<()>, Error> {
            let directory = open(path)?;
            let value = CString::new(format!("/proc/self/fd/{}", directory.as_raw_fd()));
            Ok(value.map_err(io::Error::other).and_then(|value| context.set(key, &value)))
        };
        for lower in &self.lowers {
            if let Err(error) = set(c"lowerdir+", lower)? {
                return Ok(Err(error));
            }
        }
        if let Some(Changes { upper, work }) = self.changes {
            for (key, path) in [(c"upperdir", upper), (c"workdir", work)] {
                if let Err(error) = set(key, path)? {
                    return Ok(Err(error));
                }
            }
        }
        let settings = || {
            context.set(c"source", c"overlay")?;
            context.set(c"index", c"off")?;
            context.set(c"metacopy", c"off")?;
            if self.userxattr {
                context.flag(c"userxattr")?;
            } else {
                context.set(c"redirect_dir", c"nofollow")?;
            }
            if self.changes.is_some() {
                context.flag(c"volatile")?;
            }
            context.label(self.label)?;
            context.mount(MountAttrFlags::MOUNT_ATTR_NODEV)
        };
        Ok(settings())
    }

    /// The way of older kernels: `mount(2)` with one string of settings, at most a page long.
    ///
    /// That call attaches to a path, so it happens in a mount namespace that lives only as long as one thread does.
    fn mount_the_old_way(&self, said: String, first: io::Error) -> Result<OwnedFd, Error> {
        let mounted = std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("overlay".to_owned());
            let thread = thread.spawn_scoped(scope, || self.mount_in_own_namespace())?;
            thread.join().unwrap_or_else(|_| Err(io::Error::other("the mounting thread panicked")))
        });
        mounted.map_err(|source| {
            // EINVAL again: the cause was not the way of asking, and the first answer had the kernel's words.
            let source = if source.raw_os_error() == Some(libc::EINVAL) { first } else { source };
            self.failed(said, source)
        })
    }

    fn mount_in_own_namespace(&self) -> io::Result<OwnedFd> {
        sys::unshare(sys::Namespaces::MOUNT)?;
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        sys::mount_make_private(rustix::fs::open("/", flags, Mode::empty())?)?;
        // The directories have to be opened anew: the kernel takes none from another mount namespace.
        let reopen = |path: &Path| rustix::fs::open(path, flags, Mode::empty());
        let lowers = self.lowers.iter().map(|path| reopen(path)).collect::<Result<Vec<_>, _>>()?;
        let changes = self.changes.map(|changes| io::Result::Ok((reopen(changes.upper)?, reopen(changes.work)?)));
        let changes = changes.transpose()?;
        // Any directory will do: the mount is only ever reached by descriptor.
        let place = self.changes.map_or_else(|| self.lowers.last().copied(), |changes| Some(changes.upper));
        let place = place.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let point = reopen(place)?;
        let target = PathBuf::from(format!("/proc/thread-self/fd/{}", point.as_raw_fd()));
        let data = CString::new(self.options(&lowers, changes.as_ref())).map_err(io::Error::other)?;
        // Numbers alone are valid paths here, so 500 of them fit a page.
        rustix::process::chdir("/proc/thread-self/fd")?;
        rustix::mount::mount("overlay", &target, "overlay", MountFlags::NODEV, Some(data.as_c_str()))?;
        let flags = OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
        // A descriptor of the directory below would not see the new mount; the path does.
        let path = CString::new(place.as_os_str().as_encoded_bytes()).map_err(io::Error::other)?;
        clone_mount(rustix::fs::CWD, &path, flags)
    }

    fn options(&self, lowers: &[OwnedFd], changes: Option<&(OwnedFd, OwnedFd)>) -> String {
        let mut data = String::from("lowerdir=");
        for (index, lower) in lowers.iter().enumerate() {
            let separator = if index == 0 { "" } else { ":" };
            // Writing to a string cannot fail.
            let _ = write!(data, "{separator}{}", lower.as_raw_fd());
        }
        if let Some((upper, work)) = changes {
            let _ = write!(data, ",upperdir={},workdir={},volatile", upper.as_raw_fd(), work.as_raw_fd());
        }
        data.push_str(",index=off,metacopy=off");
        data.push_str(if self.userxattr { ",userxattr" } else { ",redirect_dir=nofollow" });
        if let Some(label) = self.label {
            // In quotes, because there is a comma between its categories.
            let _ = write!(data, ",context=\"{}\"", label.to_string_lossy());
        }
        data
    }

    fn failed(&self, mut said: String, source: io::Error) -> Error {
        if said.is_empty() {
            said = match source.raw_os_error() {
                Some(libc::EPERM) => "mounting an overlay as a user needs Linux 5.11",
                Some(libc::ENODEV) => "the kernel has no overlay file system: modprobe overlay",
                Some(libc::EINVAL | libc::EOPNOTSUPP) if self.userxattr => {
                    "the upper directory must be on a file system that has user xattrs and whiteouts, such as ext4, \
                     xfs or btrfs"
                }
                Some(libc::EINVAL | libc::EOPNOTSUPP) => {
                    "the upper directory must be on a file system that has trusted xattrs and whiteouts, such as ext4, \
                     xfs or btrfs, not on another overlay"
                }
                _ => "",
            }
            .to_owned();
        }
        let upper = self.changes.map(|changes| changes.upper).or(self.lowers.first().copied());
        Error::Overlay { upper: upper.unwrap_or(Path::new("")).to_owned(), said, source }
    }
}

/// Opens one of the caller's directories, to be named by number.
pub(super) fn open(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|source| Error::Directory {
        action: "open",
        path: path.to_owned(),
        source: source.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both ways of mounting give the same root, also with far more layers than a page of long paths would take.
    #[test]
    fn old_and_new_way_stack_the_same() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("SKIPPED: mounting an overlay needs root, and this test runs without");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let layers: Vec<PathBuf> = (0..300).map(|n| dir.path().join(format!("a,layer:with\\odd name {n}"))).collect();
        for (n, layer) in layers.iter().enumerate() {
            std::fs::create_dir(layer).unwrap();
            std::fs::write(layer.join("top"), n.to_string()).unwrap();
            std::fs::write(layer.join(format!("file{n}")), "").unwrap();
        }
        type Way = fn(&Overlay<'_>) -> OwnedFd;
        let ways: [Way; 2] = [|o| o.mount().unwrap(), |o| o.mount_in_own_namespace_for_test()];
        for (n, way) in ways.iter().enumerate() {
            let (upper, work) = (dir.path().join(format!("upper{n}")), dir.path().join(format!("work{n}")));
            std::fs::create_dir(&upper).unwrap();
            std::fs::create_dir(&work).unwrap();
            let lowers = layers.iter().map(PathBuf::as_path).collect();
            let mount = way(&Overlay {
                lowers,
                changes: Some(Changes { upper: &upper, work: &work }),
                userxattr: false,
                label: None,
            });
            let at = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
            assert_eq!(std::fs::read_to_string(at.join("top")).unwrap(), "0", "way {n}");
            assert_eq!(std::fs::read_dir(&at).unwrap().count(), 301, "way {n}");
            assert_eq!(std::fs::read_dir(&upper).unwrap().count(), 0, "way {n}");
        }
    }

    impl Overlay<'_> {
        fn mount_in_own_namespace_for_test(&self) -> OwnedFd {
            self.mount_the_old_way(String::new(), io::Error::from_raw_os_error(libc::EINVAL)).unwrap()
        }
    }
}
