//! A run's root, ready to be entered: the overlay, where in it things are mounted, and the working directory.
//!
//! Takes the directories of a plan, gives a detached mount and descriptors of its mount points, all resolved inside the
//! root before anything runs there, so that no link in the image can lead a mount astray. Leaves nothing in the upper
//! directory but a working directory that was missing. Clears the work directory when it is done.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};

use super::inside::{Location, locate, make_directories, open_inside, relative};
use super::mounts::Mounts;
use super::overlay::{Changes, MAX_LOWERS, Overlay, open};
use super::skeleton::{Kind, MountPoint, Skeleton, copy_attributes};
use super::{Error, Plan};

/// Where the file systems go that every sandbox has.
const FILE_SYSTEMS: [&str; 3] = ["/proc", "/sys", "/dev"];

/// A root that is mounted but not attached anywhere.
#[derive(Debug)]
pub(super) struct Root {
    /// The overlay.
    pub mount: OwnedFd,
    /// `/proc` in it.
    pub proc: OwnedFd,
    /// `/sys` in it.
    pub sys: OwnedFd,
    /// `/dev` in it.
    pub dev: OwnedFd,
    /// The targets of the plan's overlaid files, in order.
    pub files: Vec<OwnedFd>,
    /// Where the targets of the plan's mounts lead to, in their order.
    pub mount_locations: Vec<PathBuf>,
    /// A directory on the host that the root is attached to, in the sandbox's own mount namespace only: the work
    /// directory.
    pub mount_point: CString,
    /// Dropped last.
    work: WorkDirectory,
}

impl Root {
    /// Mounts the plan's root and finds the places in it.
    pub(super) fn prepare(plan: &Plan, mounts: &Mounts) -> Result<Self, Error> {
        let upper = absolute(&plan.upper)?;
        let lowers = plan.lowers.iter().map(|path| absolute(path)).collect::<Result<Vec<_>, _>>()?;
        dress_upper(&upper, lowers.first().map(PathBuf::as_path))?;
        let mut work = WorkDirectory::new(absolute(&plan.work)?);
        let mut points = mount_points(plan)?;
        let own = points.len();
        points.extend(mounts.points());

        let mut stack: Vec<_> = lowers.iter().map(PathBuf::as_path).collect();
        let expected_missing = missing_in_base(lowers.last(), &points);
        let bottom = if expected_missing.is_empty() { None } else { Some(work.make("bottom")?) };
        // Without room for that layer, what it would have had is missed below.
        if let Some(bottom) = bottom.as_deref().filter(|_| stack.len() < MAX_LOWERS) {
            Skeleton { directory: bottom }.bottom(&expected_missing)?;
            stack.push(bottom);
        }
        let mut mount = overlay(plan, &stack, &upper, &work.make("overlay")?, mounts.label())?;
        let mut locations = locate_all(&mount, &points)?;
        if locations.iter().any(|location| location.kind.is_none()) {
            let top = work.make("top")?;
            Skeleton { directory: &top }.top(&at_locations(&points, &locations), &mount)?;
            stack.insert(0, &top);
            // The upper directory serves one overlay at a time, and a volatile one leaves its records used up.
            drop(mount);
            mount = overlay(plan, &stack, &upper, &work.make("second-overlay")?, mounts.label())?;
            locations = locate_all(&mount, &points)?;
        }
        let mut targets = Vec::with_capacity(points.len());
        for (number, (point, location)) in points.iter().zip(&locations).enumerate() {
            let target = open_target(&mount, point, location)?;
            if number < own {
                targets.push(target);
            }
        }
        let mount_locations = locations.split_off(own).into_iter().map(|location| location.path).collect();
        refuse_kernel_paths(&mount_locations, &locations)?;
        make_working_directory(&mount, &plan.cwd, locations.get(..FILE_SYSTEMS.len()).unwrap_or_default())?;

        let mut targets = targets.into_iter();
        let mut next = || targets.next().ok_or_else(|| Error::Plan { problem: "a mount point got lost".to_owned() });
        let (proc, sys, dev) = (next()?, next()?, next()?);
        let mount_point = CString::new(work.path.as_os_str().as_bytes())
            .map_err(|_| Error::Plan { problem: "the work directory's path has a NUL byte".to_owned() })?;
        Ok(Self { mount, proc, sys, dev, files: targets.collect(), mount_locations, mount_point, work })
    }

    /// Unmounts the root and clears the work directory.
    pub(super) fn finish(self) -> Result<(), Error> {
        let Self { mount, proc, sys, dev, files, mount_locations: _, mount_point: _, work } = self;
        drop((proc, sys, dev, files));
        drop(mount);
        work.clear()
    }
}

fn overlay(plan: &Plan, lowers: &[&Path], upper: &Path, work: &Path, label: Option<&CStr>) -> Result<OwnedFd, Error> {
    let changes = Some(Changes { upper, work });
    Overlay { lowers: lowers.to_vec(), changes, userxattr: plan.userxattr, label }.mount()
}

/// The mount points that the lowest layer does not have, where nearly every image that has them has them.
///
/// This is only a guess that saves making what is there already: what counts is what the overlay shows.
fn missing_in_base(base: Option<&PathBuf>, points: &[MountPoint]) -> Vec<MountPoint> {
    let base = base.and_then(|base| open(base).ok());
    let has = |point: &&MountPoint| {
        let location = base.as_ref().and_then(|base| locate(base, &point.path).ok());
        location.is_some_and(|location| location.kind.is_some() && location.path == relative(&point.path))
    };
    points.iter().filter(|point| !has(point)).cloned().collect()
}

/// All mount points of a run: [`FILE_SYSTEMS`], then the overlaid files.
fn mount_points(plan: &Plan) -> Result<Vec<MountPoint>, Error> {
    let mut points: Vec<_> =
        FILE_SYSTEMS.iter().map(|path| MountPoint { path: path.into(), kind: Kind::Directory }).collect();
    for file in plan.overlaid.iter().filter(|file| file.in_dev().is_none()) {
        let target = &file.target;
        let climbs = target.components().any(|component| component == Component::ParentDir);
        if climbs || !target.is_absolute() || target.file_name().is_none() {
            return Err(Error::Plan { problem: format!("{} is no absolute path of a file", target.display()) });
        }
        if FILE_SYSTEMS.iter().any(|above| target.starts_with(above)) {
            return Err(Error::Plan { problem: format!("{} lies where the kernel's own files are", target.display()) });
        }
        points.push(MountPoint { path: target.clone(), kind: Kind::File });
    }
    Ok(points)
}

fn locate_all(root: &OwnedFd, points: &[MountPoint]) -> Result<Vec<Location>, Error> {
    let located = points.iter().map(|point| {
        locate(root, &point.path).map_err(|source| match source.raw_os_error() {
            Some(libc::ENOTDIR) => target_error(&point.path, "something other than a directory is on the way"),
            Some(libc::ELOOP) => target_error(&point.path, "symbolic links lead in a circle"),
            _ => Error::Inside { action: "find", path: point.path.clone(), source },
        })
    });
    located.collect()
}

/// The missing ones of `points`, each at the path that it leads to.
fn at_locations(points: &[MountPoint], locations: &[Location]) -> Vec<MountPoint> {
    let missing = points.iter().zip(locations).filter(|(_, location)| location.kind.is_none());
    missing.map(|(point, location)| MountPoint { path: location.path.clone(), kind: point.kind }).collect()
}

fn open_target(root: &OwnedFd, point: &MountPoint, location: &Location) -> Result<OwnedFd, Error> {
    let problem = match (point.kind, location.kind) {
        // The root itself as `/proc` would cover everything.
        _ if location.path.as_os_str().is_empty() => "it leads to the root itself",
        (Kind::Directory | Kind::Memory, Some(FileType::Directory)) | (Kind::File, Some(FileType::RegularFile)) => {
            return open_inside(root, &location.path, OFlags::PATH | OFlags::NOFOLLOW)
                .map_err(|source| Error::Inside { action: "open", path: point.path.clone(), source });
        }
        (_, None) => "it is missing and cannot be made",
        (Kind::Directory | Kind::Memory, Some(_)) => "it is not a directory",
        (Kind::File, Some(_)) => "it is not a regular file",
    };
    Err(target_error(&point.path, problem))
}

/// Nothing of a plan's goes where the kernel's own files are; only `/dev/shm` may be something else.
fn refuse_kernel_paths(targets: &Vec<PathBuf>, file_systems: &[Location]) -> Result<(), Error> {
    for target in targets {
        let shared_memory = file_systems.get(2).is_some_and(|dev| *target == dev.path.join("shm"));
        let of_kernel = file_systems.iter().take(FILE_SYSTEMS.len()).any(|above| target.starts_with(&above.path));
        if of_kernel && !shared_memory {
            return Err(target_error(&Path::new("/").join(target), "it lies where the kernel's own files are"));
        }
    }
    Ok(())
}

fn target_error(target: &Path, problem: &str) -> Error {
    Error::Target { target: target.to_owned(), problem: problem.to_owned() }
}

/// Makes the working directory if it is missing, unless it lies in one of the file systems that come later.
fn make_working_directory(root: &OwnedFd, cwd: &Path, file_systems: &[Location]) -> Result<(), Error> {
    if !cwd.is_absolute() {
        return Err(Error::Plan { problem: format!("the working directory {} is not absolute", cwd.display()) });
    }
    let not_a_directory = || Error::WorkingDirectory { path: cwd.to_owned() };
    let location = locate(root, relative(cwd)).map_err(|source| match source.raw_os_error() {
        Some(libc::ENOTDIR) => not_a_directory(),
        _ => Error::Inside { action: "find", path: cwd.to_owned(), source },
    })?;
    if file_systems.iter().any(|above| location.path.starts_with(&above.path)) {
        return Ok(());
    }
    match location.kind {
        Some(FileType::Directory) => Ok(()),
        Some(_) => Err(not_a_directory()),
        None => make_directories(root, &location.path).map_err(|source| Error::Inside {
            action: "make the working directory",
            path: cwd.to_owned(),
            source,
        }),
    }
}

/// Gives the upper directory, which the process sees as `/`, the looks of the root below it.
pub(super) fn dress_upper(upper: &Path, below: Option<&Path>) -> Result<(), Error> {
    let failed = |source: io::Error| Error::Directory { action: "set the mode of", path: upper.to_owned(), source };
    match below {
        None => rustix::fs::chmod(upper, Mode::from_raw_mode(0o755)).map_err(|source| failed(source.into())),
        Some(below) => {
            let upper = rustix::fs::open(upper, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|source| failed(source.into()))?;
            copy_attributes(open(below)?, upper).map_err(failed)
        }
    }
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(|source| Error::Directory { action: "find", path: path.to_owned(), source })
}

/// What a run keeps in the plan's work directory: cleared when dropped, or by [`WorkDirectory::clear`], which can fail.
#[derive(Debug)]
struct WorkDirectory {
    path: PathBuf,
    /// The directories made in it.
    made: Vec<PathBuf>,
}

impl WorkDirectory {
    fn new(path: PathBuf) -> Self {
        Self { path, made: Vec::new() }
    }

    /// Makes a directory in it.
    fn make(&mut self, name: &str) -> Result<PathBuf, Error> {
        let path = self.path.join(name);
        match std::fs::create_dir(&path) {
            Ok(()) => {
                self.made.push(path.clone());
                Ok(path)
            }
            Err(source) => Err(Error::Directory { action: "create", path, source }),
        }
    }

    fn clear(mut self) -> Result<(), Error> {
        self.remove()
    }

    /// Removes what was made, all that can be; gives the last error.
    fn remove(&mut self) -> Result<(), Error> {
        let mut result = Ok(());
        for path in std::mem::take(&mut self.made) {
            if let Err(source) = std::fs::remove_dir_all(&path) {
                result = Err(Error::Directory { action: "remove", path, source });
            }
        }
        result
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        // On this path another error is on its way already; the caller removes the work directory in any case.
        let _ = self.remove();
    }
}
