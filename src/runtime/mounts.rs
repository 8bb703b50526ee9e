//! What one run mounts beside its root: files of other layers, directories of the host, memory, secrets.
//!
//! Takes the plan's [`Mount`]s, makes each of them ready as a detached mount before the sandbox exists, finds out where
//! in the root it goes, and makes the places that are missing: in the root by the skeleton, in another mount where one
//! lies in the other. Leaves nothing in the layer, and nothing of a secret on a disk. Attaches nothing: the child does.

use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};

use super::filesystem::{INERT, clone_mount};
use super::fittings::Tmpfs;
use super::inside::{locate, make_directories, open_inside, relative};
use super::overlay::{Changes, Overlay};
use super::rootfs::Root;
use super::selinux::Labels;
use super::skeleton::{Kind, MountPoint, Skeleton};
use super::{Error, Plan};

/// More mounts than this are refused: each of them takes descriptors.
const MAX_MOUNTS: usize = 1000;

/// Something that is mounted inside the root for one run.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Absolute path inside the root, not `/` and not below `/proc`, `/sys` or (but for `/dev/shm`) `/dev`. Links in the
    /// image are followed inside the root.
    pub target: PathBuf,
    /// What is seen there.
    pub source: Source,
    /// Whether the process may write.
    pub writable: bool,
}

/// What a mount shows.
#[derive(Clone)]
pub enum Source {
    /// A file, directory or socket of the host itself: what is written stays. Its last component is not followed if it
    /// is a symbolic link.
    Host(PathBuf),
    /// A path in a stack of layers. What is written is lost.
    Layers {
        /// The directories, topmost first; may be empty.
        lowers: Vec<PathBuf>,
        /// What of them is shown, relative to their root; links are followed inside.
        path: PathBuf,
        /// An existing empty directory for the overlay's own use, which the caller removes.
        scratch: PathBuf,
    },
    /// An empty file system in memory. It takes on the mode of the directory it covers; 1777 where there is none.
    Memory {
        /// How many bytes fit; half of the machine's memory where absent.
        size: Option<u64>,
    },
    /// A file in memory that is never on a disk.
    Secret {
        /// What it holds; never shown when this is printed.
        content: Vec<u8>,
        /// Its permission bits.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Host(path) => f.debug_tuple("Host").field(path).finish(),
            Self::Layers { lowers, path, .. } => {
                f.debug_struct("Layers").field("lowers", lowers).field("path", path).finish_non_exhaustive()
            }
            Self::Memory { size } => f.debug_struct("Memory").field("size", size).finish(),
            Self::Secret { mode, uid, gid, .. } => {
                let secret = &mut f.debug_struct("Secret");
                secret.field("mode", mode).field("uid", uid).field("gid", gid).finish_non_exhaustive()
            }
        }
    }
}

/// A mount that the child only has to attach.
#[derive(Debug)]
pub(super) struct Ready {
    /// The target as the plan has it.
    pub target: PathBuf,
    /// A detached mount.
    pub mount: OwnedFd,
    /// What of it is shown, unless that is all of it.
    pub part: Option<OwnedFd>,
    /// Where it goes: the path inside the root, without leading slash or links.
    pub at: CString,
    /// What the process may do there.
    pub attributes: MountAttrFlags,
    /// Whether its root takes on the mode of the directory it covers.
    pub takes_mode: bool,
    kind: Kind,
    /// The number of the plan's mount.
    number: usize,
    /// `at` as a path.
    location: PathBuf,
}

/// All of a run's mounts.
#[derive(Debug)]
pub(super) struct Mounts<'a> {
    /// Before [`Mounts::place`] in the plan's order, after it the shallowest first.
    pub ready: Vec<Ready>,
    /// The run's SELinux labels.
    pub labels: Option<&'a Labels>,
    plan: &'a Plan,
}

impl<'a> Mounts<'a> {
    /// Makes what is to be mounted ready.
    pub(super) fn open(plan: &'a Plan, labels: Option<&'a Labels>) -> Result<Self, Error> {
        if plan.mounts.len() > MAX_MOUNTS {
            let problem = format!("a run cannot have {} mounts: the limit is {MAX_MOUNTS}", plan.mounts.len());
            return Err(Error::Plan { problem });
        }
        let label = labels.map(|labels| labels.files.as_c_str());
        let ready = plan.mounts.iter().enumerate().map(|(number, mount)| ready(plan, label, number, mount, &[]));
        let mounts = Self { ready: ready.collect::<Result<_, _>>()?, labels, plan };
        mounts.check()?;
        Ok(mounts)
    }

    /// Refuses what no root has a place for: something inside a file, or a file and a directory in one place.
    fn check(&self) -> Result<(), Error> {
        for file in self.ready.iter().filter(|ready| ready.kind == Kind::File) {
            let in_the_way = self.ready.iter().find(|other| match other.target == file.target {
                true => other.kind != Kind::File,
                false => other.target.starts_with(&file.target),
            });
            if let Some(other) = in_the_way {
                let problem = format!("a file is mounted on {}", file.target.display());
                return Err(Error::Target { target: other.target.clone(), problem });
            }
        }
        Ok(())
    }

    /// The SELinux label of the run's file systems.
    pub(super) fn label(&self) -> Option<&'a CStr> {
        self.labels.map(|labels| labels.files.as_c_str())
    }

    /// The places that the root must have, in the plan's order.
    pub(super) fn points(&self) -> impl Iterator<Item = MountPoint> + '_ {
        self.ready.iter().map(|ready| MountPoint { path: ready.target.clone(), kind: ready.kind })
    }

    /// Orders the mounts by where in the root they turned out to go, and makes places in those that others lie in.
    pub(super) fn place(&mut self, root: &Root) -> Result<(), Error> {
        for (ready, location) in self.ready.iter_mut().zip(&root.mount_locations) {
            ready.location.clone_from(location);
            ready.at = c_string(location)?;
        }
        // A stable order: of two with one target the later one stays on top.
        self.ready.sort_by_key(|ready| ready.location.components().count());
        for outer in 0..self.ready.len() {
            let Some(ready) = self.ready.get(outer) else { break };
            let inner: Vec<MountPoint> = self
                .ready
                .iter()
                .skip(outer + 1)
                .filter(|inner| inner.location != ready.location)
                .filter_map(|inner| {
                    let path = inner.location.strip_prefix(&ready.location).ok()?.to_owned();
                    Some(MountPoint { path, kind: inner.kind })
                })
                .collect();
            if !inner.is_empty() {
                self.make_room(outer, &inner)?;
            }
        }
        Ok(())
    }

    /// Gives the mount number `outer` the places that it lacks.
    fn make_room(&mut self, outer: usize, inner: &[MountPoint]) -> Result<(), Error> {
        let label = self.label();
        let Some(ready) = self.ready.get_mut(outer) else { return Ok(()) };
        let shown = ready.part.as_ref().unwrap_or(&ready.mount);
        let failed = |path: &Path, source: io::Error| Error::Inside {
            action: "make a mount point at",
            path: ready.target.join(path),
            source,
        };
        if ready.kind == Kind::File {
            let problem = format!("a file is mounted on {}", ready.target.display());
            let target = inner.first().map_or_else(PathBuf::new, |point| ready.target.join(&point.path));
            return Err(Error::Target { target, problem });
        }
        let mut missing = Vec::new();
        for point in inner {
            let location = locate(shown, &point.path).map_err(|source| failed(&point.path, source))?;
            if location.path != point.path {
                let problem = "a symbolic link in another mount is on the way".to_owned();
                return Err(Error::Target { target: ready.target.join(&point.path), problem });
            }
            if location.kind.is_none() {
                missing.push(point.clone());
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        let number = ready.number;
        match self.plan.mounts.get(number) {
            Some(mount @ Mount { source: Source::Layers { .. }, .. }) => {
                let again = self::ready(self.plan, label, number, mount, &missing)?;
                ready.mount = again.mount;
                ready.part = again.part;
            }
            _ => {
                for point in &missing {
                    make_point(shown, point).map_err(|source| failed(&point.path, source))?;
                }
            }
        }
        Ok(())
    }
}

/// Makes a place in a file system that is written to directly.
fn make_point(root: &OwnedFd, point: &MountPoint) -> io::Result<()> {
    if point.kind != Kind::File {
        return make_directories(root, &point.path);
    }
    let above = point.path.parent().unwrap_or(Path::new(""));
    make_directories(root, above)?;
    let name = point.path.file_name().ok_or(Errno::INVAL)?;
    let above = open_inside(root, above, OFlags::PATH | OFlags::DIRECTORY)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat2(&above, Path::new(name), flags, Mode::from_raw_mode(0o644), ResolveFlags::BENEATH)?;
    Ok(())
}

/// Makes one mount ready; `inner` are places that its layers lack, relative to what is shown of them.
fn ready(
    plan: &Plan,
    label: Option<&CStr>,
    number: usize,
    mount: &Mount,
    inner: &[MountPoint],
) -> Result<Ready, Error> {
    let target = &mount.target;
    let climbs = target.components().any(|component| component == Component::ParentDir);
    if climbs || !target.is_absolute() || target.file_name().is_none() {
        return Err(Error::Plan { problem: format!("{} is no absolute path to mount on", target.display()) });
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    if !mount.writable {
        attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
    }
    let (opened, part, kind) = match &mount.source {
        Source::Host(path) => of_host(target, path)?,
        Source::Layers { lowers, path, scratch } => {
            let layers = LayersToShow { lowers, path: relative(path), scratch, writable: mount.writable, label };
            layers.open(plan, target, inner)?
        }
        Source::Memory { size } => {
            attributes |= MountAttrFlags::MOUNT_ATTR_NOSUID;
            let size = size.map_or_else(|| Ok(c"50%".to_owned()), |size| c_string(Path::new(&size.to_string())))?;
            let attributes = attributes & !MountAttrFlags::MOUNT_ATTR_RDONLY;
            let tmpfs = Tmpfs { mode: c"1777", size: &size, attributes, label, unswapped: false };
            (tmpfs.mount()?, None, Kind::Memory)
        }
        Source::Secret { content, mode, uid, gid } => {
            attributes |= INERT;
            let (tmpfs, file) = secret(target, content, *mode, (*uid, *gid), label)?;
            (tmpfs, Some(file), Kind::File)
        }
    };
    Ok(Ready {
        target: target.clone(),
        mount: opened,
        part,
        at: CString::default(),
        attributes,
        takes_mode: kind == Kind::Memory,
        kind,
        number,
        location: PathBuf::new(),
    })
}

type Opened = (OwnedFd, Option<OwnedFd>, Kind);

fn of_host(target: &Path, path: &Path) -> Result<Opened, Error> {
    let failed = |source: io::Error| Error::Mount { target: target.to_owned(), source };
    let name = c_string(path)?;
    let mount = clone_mount(CWD, &name, OpenTreeFlags::AT_SYMLINK_NOFOLLOW).map_err(failed)?;
    let stat = rustix::fs::fstat(&mount).map_err(|errno| failed(errno.into()))?;
    Ok((mount, None, kind_of(FileType::from_raw_mode(stat.st_mode))))
}

fn kind_of(found: FileType) -> Kind {
    if found == FileType::Directory { Kind::Directory } else { Kind::File }
}

/// A path in a stack of layers.
struct LayersToShow<'a> {
    lowers: &'a [PathBuf],
    path: &'a Path,
    scratch: &'a Path,
    writable: bool,
    label: Option<&'a CStr>,
}

impl LayersToShow<'_> {
    fn open(&self, plan: &Plan, target: &Path, inner: &[MountPoint]) -> Result<Opened, Error> {
        // A read-only overlay has at least two lower directories; these two are empty.
        let mut stack = self.lowers.to_vec();
        while stack.len() < if self.writable { 1 } else { 2 } {
            stack.push(self.make(&format!("empty-{}", stack.len()))?);
        }
        let mut mount = self.overlay(plan, &stack, "")?;
        let inside = |source| Error::Inside { action: "find", path: self.path.to_owned(), source };
        let location = locate(&mount, self.path).map_err(inside)?;
        let Some(found) = location.kind else {
            return Err(Error::MountSource { path: Path::new("/").join(self.path), target: target.to_owned() });
        };
        if !inner.is_empty() {
            let places: Vec<MountPoint> = inner
                .iter()
                .map(|point| MountPoint { path: location.path.join(&point.path), kind: point.kind })
                .collect();
            let top = self.make("top")?;
            Skeleton { directory: &top }.top(&places, &mount)?;
            stack.insert(0, top);
            // An upper directory serves one overlay at a time.
            drop(mount);
            mount = self.overlay(plan, &stack, "-with-places")?;
        }
        let part = match location.path.as_os_str().is_empty() {
            true => None,
            false => Some(open_inside(&mount, &location.path, OFlags::PATH | OFlags::NOFOLLOW).map_err(inside)?),
        };
        Ok((mount, part, kind_of(found)))
    }

    fn overlay(&self, plan: &Plan, stack: &[PathBuf], suffix: &str) -> Result<OwnedFd, Error> {
        let lowers = stack.iter().map(PathBuf::as_path).collect();
        let changes = match self.writable {
            true => Some((self.make(&format!("upper{suffix}"))?, self.make_work(&format!("work{suffix}"))?)),
            false => None,
        };
        let changes = changes.as_ref().map(|(upper, work)| Changes { upper, work });
        if let (Some(changes), Some(first)) = (changes, stack.first()) {
            super::rootfs::dress_upper(changes.upper, Some(first))?;
        }
        Overlay { lowers, changes, userxattr: plan.userxattr, label: self.label }.mount()
    }

    /// An empty directory for the kernel's own use: what another overlay left in it would be refused.
    fn make_work(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.scratch.join(name);
        match std::fs::remove_dir_all(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(Error::Directory { action: "clear", path, source })
            }
            _ => self.make(name),
        }
    }

    /// A directory of this name, made where there is none yet: room for inner mounts takes a second overlay.
    fn make(&self, name: &str) -> Result<PathBuf, Error> {
        let path = self.scratch.join(name);
        let failed = |source| Error::Directory { action: "create", path: path.clone(), source };
        std::fs::create_dir_all(&path).map_err(failed)?;
        rustix::fs::chmod(&path, Mode::from_raw_mode(0o755)).map_err(|errno| failed(errno.into()))?;
        Ok(path)
    }
}

/// A tmpfs of its own with one file.
fn secret(
    target: &Path,
    content: &[u8],
    mode: u32,
    (uid, gid): (u32, u32),
    label: Option<&CStr>,
) -> Result<(OwnedFd, OwnedFd), Error> {
    // What a page holds and no more: the size counts in pages.
    let size = content.len().saturating_add(65536);
    let size = c_string(Path::new(&size.to_string()))?;
    let tmpfs = Tmpfs { mode: c"0755", size: &size, attributes: INERT, label, unswapped: true }.mount()?;
    let failed = |source: io::Error| Error::FileSystem {
        kind: "tmpfs",
        said: "while writing a secret to it".to_owned(),
        source,
    };
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let create = || rustix::fs::openat(&tmpfs, c"secret", flags, Mode::from_raw_mode(0o600));
    let file = create().map_err(|errno| failed(errno.into()))?;
    let mut rest = content;
    while !rest.is_empty() {
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&file, rest));
        rest = rest.get(written.map_err(|errno| failed(errno.into()))?..).unwrap_or_default();
    }
    rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)).map_err(|errno| failed(errno.into()))?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
        .map_err(|errno| Error::MountOwner { target: target.to_owned(), uid, gid, source: errno.into() })?;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let part = rustix::fs::openat(&tmpfs, c"secret", flags, Mode::empty());
    Ok((tmpfs, part.map_err(|errno| failed(errno.into()))?))
}

fn c_string(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::Plan { problem: format!("the path {} has a NUL byte", path.display()) })
}
