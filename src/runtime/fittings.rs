//! What every sandbox adds to its root, made ready in memory before the sandbox exists.
//!
//! Takes the plan's files, gives one detached tmpfs with `/dev`, those files and an empty directory (from which the
//! child binds each part to its place), a `devpts` and the tmpfs of `/dev/shm`. Nothing of it is ever on disk. Attaches
//! nothing.

use std::ffi::{CStr, CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;

use super::filesystem::{Context, INERT};
use super::{Error, Overlaid};

/// Name and device number of the nodes in `/dev`, all character devices that anyone may read and write.
pub(super) const DEVICES: [(&CStr, u32, u32); 6] =
    [(c"null", 1, 3), (c"zero", 1, 5), (c"full", 1, 7), (c"random", 1, 8), (c"urandom", 1, 9), (c"tty", 5, 0)];

/// Symbolic links in `/dev`.
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    ("core", "/proc/kcore"),
];

/// Directories in `/dev` that file systems are mounted on.
const MOUNT_POINTS: [&str; 3] = ["pts", "shm", "mqueue"];

/// Whether every sandbox has something of this name in `/dev`.
pub(super) fn is_taken(name: &OsStr) -> bool {
    let devices = DEVICES.iter().map(|(device, ..)| device.to_bytes());
    let others = LINKS.iter().map(|(link, _)| *link).chain(MOUNT_POINTS).map(str::as_bytes);
    devices.chain(others).any(|taken| taken == name.as_bytes())
}

/// Where device nodes come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Nodes {
    /// Made in the tmpfs: a step may change their modes and owners without touching anyone else's.
    Own,
    /// The host's, bound read-only (which still lets one write *to* the device): all that a user namespace allows.
    Host,
}

/// The file systems of a sandbox beside its root.
#[derive(Debug)]
pub(super) struct Fittings {
    /// A tmpfs: `dev/`, `empty/`, and `files/` with the overlaid files by number.
    pub tmpfs: OwnedFd,
    /// The tmpfs of `/dev/shm`.
    pub shm: OwnedFd,
    /// The `devpts` of `/dev/pts`.
    pub pts: OwnedFd,
    /// Where the device nodes come from.
    pub nodes: Nodes,
    /// Path of each overlaid file outside `/dev` in the tmpfs, in the plan's order.
    pub files: Vec<CString>,
}

impl Fittings {
    /// Makes them; `shm_size` is the size of `/dev/shm` in bytes, `label` the SELinux label of all they have.
    pub(super) fn new(overlaid: &[Overlaid], shm_size: Option<u64>, label: Option<&CStr>) -> Result<Self, Error> {
        // Not `nodev`: the nodes bound from here must work. The copy that becomes `/dev` is made `nodev` by the child.
        // Nor `noexec`, as with Docker: a step's script may be one of the files in `/dev`.
        let nosuid = MountAttrFlags::MOUNT_ATTR_NOSUID;
        // Docker gives both 64 MiB.
        let tmpfs = Tmpfs { mode: c"0755", size: c"64m", attributes: nosuid, label, unswapped: false };
        let shm_size = shm_size.and_then(|size| CString::new(size.to_string()).ok());
        let shm_size = shm_size.as_deref().unwrap_or(tmpfs.size);
        let shm = Tmpfs { mode: c"1777", size: shm_size, attributes: INERT, ..tmpfs }.mount()?;
        let tmpfs = tmpfs.mount()?;
        let failed = |source| Error::FileSystem { kind: "tmpfs", said: "while filling it".to_owned(), source };
        let nodes = fill_dev(&tmpfs).map_err(failed)?;
        make_directory(&tmpfs, "empty").map_err(failed)?;
        let files = write_files(&tmpfs, overlaid).map_err(failed)?;
        Ok(Self { tmpfs, shm, pts: devpts(label)?, nodes, files })
    }
}

/// Memory as a file system.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tmpfs<'a> {
    /// The mode of its root.
    pub mode: &'a CStr,
    /// How much fits: bytes, or with `m` or `%` behind the number.
    pub size: &'a CStr,
    /// What may be done there.
    pub attributes: MountAttrFlags,
    /// The SELinux label of everything in it.
    pub label: Option<&'a CStr>,
    /// Whether it is never to be swapped out to a disk, where the kernel can promise that: as root since Linux 6.4.
    pub unswapped: bool,
}

impl Tmpfs<'_> {
    /// Mounts it, detached.
    pub(super) fn mount(&self) -> Result<OwnedFd, Error> {
        make(c"tmpfs", "tmpfs", |context| {
            context.set(c"source", c"tmpfs")?;
            context.set(c"mode", self.mode)?;
            context.set(c"size", self.size)?;
            context.label(self.label)?;
            if self.unswapped {
                // Refused in a user namespace and unknown to older kernels: there it is for the host to have no swap,
                // or to encrypt it.
                let _ = context.flag(c"noswap");
            }
            context.mount(self.attributes)
        })
    }
}

/// A `devpts` of its own. Its terminals belong to group 5, as everywhere, unless that id is not mapped.
fn devpts(label: Option<&CStr>) -> Result<OwnedFd, Error> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let with = |group: Option<&CStr>| {
        make(c"devpts", "devpts", |context| {
            context.set(c"source", c"devpts")?;
            context.flag(c"newinstance")?;
            context.set(c"ptmxmode", c"0666")?;
            context.set(c"mode", c"0620")?;
            if let Some(group) = group {
                context.set(c"gid", group)?;
            }
            context.label(label)?;
            context.mount(attributes)
        })
    };
    match with(Some(c"5")) {
        Err(Error::FileSystem { source, .. }) if source.raw_os_error() == Some(libc::EINVAL) => with(None),
        result => result,
    }
}

fn make(
    kind: &'static CStr,
    name: &'static str,
    configure: impl Fn(&Context) -> io::Result<OwnedFd>,
) -> Result<OwnedFd, Error> {
    let failed = |said, source| Error::FileSystem { kind: name, said, source };
    let context = Context::open(kind).map_err(|source| failed(String::new(), source))?;
    configure(&context).map_err(|source| failed(context.said(), source))
}

fn fill_dev(tmpfs: &OwnedFd) -> io::Result<Nodes> {
    make_directory(tmpfs, "dev")?;
    let dev = rustix::fs::openat(tmpfs, "dev", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for name in MOUNT_POINTS {
        make_directory(&dev, name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)?;
    }
    let mut nodes = Nodes::Own;
    for (name, major, minor) in DEVICES {
        let mode = Mode::from_raw_mode(0o666);
        if nodes == Nodes::Own {
            match rustix::fs::mknodat(&dev, name, FileType::CharacterDevice, mode, makedev(major, minor)) {
                // Only the initial user namespace may make device nodes.
                Err(Errno::PERM) => nodes = Nodes::Host,
                result => result?,
            }
        }
        if nodes == Nodes::Host {
            rustix::fs::mknodat(&dev, name, FileType::RegularFile, mode, 0)?;
        }
        rustix::fs::chmodat(&dev, name, mode, AtFlags::empty())?;
    }
    Ok(nodes)
}

/// A directory with mode 0755 whatever the umask.
fn make_directory(parent: impl AsFd, name: &str) -> io::Result<()> {
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
    Ok(rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())?)
}

fn write_files(tmpfs: &OwnedFd, overlaid: &[Overlaid]) -> io::Result<Vec<CString>> {
    make_directory(tmpfs, "files")?;
    let mut names = Vec::with_capacity(overlaid.len());
    for (number, file) in overlaid.iter().enumerate() {
        let name = match file.in_dev() {
            Some(path) => make_parents(tmpfs, path)?,
            None => CString::new(format!("files/{number}")).map_err(io::Error::other)?,
        };
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(tmpfs, name.as_c_str(), flags, Mode::from_raw_mode(0o600))?;
        let mut rest = file.content.as_slice();
        while !rest.is_empty() {
            let written = rustix::io::retry_on_intr(|| rustix::io::write(&fd, rest))?;
            rest = rest.get(written..).unwrap_or_default();
        }
        rustix::fs::fchown(&fd, Some(Uid::ROOT), Some(Gid::ROOT))?;
        rustix::fs::fchmod(&fd, Mode::from_raw_mode(file.mode & 0o7777))?;
        if file.in_dev().is_none() {
            names.push(name);
        }
    }
    Ok(names)
}

/// The place of a file in `dev/`, with the directories above it made.
fn make_parents(tmpfs: &OwnedFd, path: &Path) -> io::Result<CString> {
    let path = Path::new("dev").join(path);
    let mut above: Vec<&Path> = path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
    above.reverse();
    for directory in above {
        match make_directory(tmpfs, &directory.to_string_lossy()) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result?,
        }
    }
    CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other)
}
