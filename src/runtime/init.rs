//! The two processes of a sandbox, from `clone3` to `execve`.
//!
//! [`first`] is pid 1 of the new namespaces: it puts the mounts together, changes over to the new root, starts the
//! second process, reaps whatever becomes its child, and ends when that one ends, which ends all others. [`second`]
//! turns itself into the process of the plan. Both run in a copy of a process that had other threads: they allocate
//! nothing, take no lock and cannot panic. Everything they need was made before, in [`Setup`]; what fails is told to
//! the parent as a [`Report`].

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions, WaitStatus};
use rustix::thread::{CapabilitySet, LinkNameSpaceType};

use super::cgroup::Group;
use super::error::Stage;
use super::filesystem::{Context, INERT, attach, clone_mount};
use super::fittings::{DEVICES, Fittings, Nodes};
use super::mounts::Ready;
use super::report::Report;
use super::rootfs::Root;
use super::seccomp::bpf::Instruction;
use super::selinux::Labels;
use super::sys::{self, CommandLine, EndSignal, Namespaces, Strings};
use crate::limits::{self, Ulimit};

/// Paths below `/proc` that only show something of the host: hidden, as Docker hides them.
const MASKED_PROC: [&CStr; 10] = [
    c"acpi",
    c"asound",
    c"interrupts",
    c"kcore",
    c"keys",
    c"latency_stats",
    c"sched_debug",
    c"scsi",
    c"timer_list",
    c"timer_stats",
];
/// Paths below `/proc` through which root could change the host: read-only, as in Docker.
const READ_ONLY_PROC: [&CStr; 5] = [c"bus", c"fs", c"irq", c"sys", c"sysrq-trigger"];
/// Paths below `/sys` that only show something of the host: hidden, as Docker hides them.
const MASKED_SYS: [&CStr; 2] = [c"firmware", c"devices/virtual/powercap"];

/// Everything that the processes need, made before there are any.
#[derive(Debug)]
pub(super) struct Setup<'a> {
    /// The root and the places in it.
    pub root: &'a Root,
    /// What is added to it.
    pub fittings: &'a Fittings,
    /// What else is mounted, the shallowest first.
    pub mounts: &'a [Ready],
    /// Whether the process is kept from the host's settings.
    pub confined: bool,
    /// Whether the program is to run under an AppArmor profile.
    pub apparmor: bool,
    /// The SELinux labels of the program and its files, where they have any.
    pub labels: Option<&'a Labels>,
    /// Attributes of the overlaid files' mounts, in order.
    pub file_attributes: Vec<MountAttrFlags>,
    /// Further paths below `/sys` to hide, which differ between machines.
    pub masked_sys: &'static [CString],
    /// The host name.
    pub hostname: &'a [u8],
    /// Whether the network namespace is new, so that its loopback interface has to be set up.
    pub own_network: bool,
    /// The network namespace to enter, where it is neither the caller's nor new.
    pub network: Option<BorrowedFd<'a>>,
    /// The working directory.
    pub cwd: CString,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Supplementary groups, unless the user namespace forbids to set them.
    pub groups: Option<Vec<Gid>>,
    /// The capabilities of root.
    pub capabilities: CapabilitySet,
    /// The filter of system calls.
    pub filter: Option<&'static [Instruction]>,
    /// The paths of the program to try, in order.
    pub candidates: Vec<CString>,
    /// Its arguments.
    pub arguments: Strings,
    /// Its environment.
    pub environment: Strings,
    /// Where the command line of this process is kept, to be overwritten in its copy.
    pub command_line: Option<CommandLine>,
    /// The control group of the run, to be entered before anything else.
    pub group: Option<&'a Group>,
    /// Limits of the process.
    pub ulimits: &'a [Ulimit],
    /// The parent's end of the report; closed at once.
    pub report_reader: OwnedFd,
    /// Where failures and the end of the process are written to.
    pub report: OwnedFd,
    /// Standard output of the process.
    pub stdout: OwnedFd,
    /// Standard error of the process.
    pub stderr: OwnedFd,
    /// Whether both are a terminal, which then becomes that of the process.
    pub terminal: bool,
}

/// A step that failed.
struct Failure(Report);

/// Names the step that an operation belongs to.
trait At<T> {
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| {
            Failure(Report::Failed { stage, errno: error.raw_os_error().unwrap_or(0), candidate: None })
        })
    }
}

impl<T> At<T> for rustix::io::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(io::Error::from).at(stage)
    }
}

/// Pid 1 of the sandbox. Returns its exit code, which means nothing: the parent reads the report.
pub(super) fn first(setup: &Setup<'_>) -> i32 {
    match set_up_and_start(setup) {
        Ok(main) => supervise(setup, main),
        Err(Failure(report)) => {
            report.send(&setup.report);
            1
        }
    }
}

fn set_up_and_start(setup: &Setup<'_>) -> Result<rustix::process::Pid, Failure> {
    become_init(setup)?;
    enter_group(setup)?;
    if let Some(network) = setup.network {
        // Before `/sys` is mounted, which shows the network of whoever mounts it.
        rustix::thread::move_into_link_name_space(network, Some(LinkNameSpaceType::Network)).at(Stage::Network)?;
    }
    attach_root(setup)?;
    let dev = mount_dev(setup)?;
    mount_proc(setup)?;
    mount_sys(setup)?;
    lay_files(setup)?;
    mount_extras(setup)?;
    if setup.own_network {
        let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None);
        let socket = socket.at(Stage::Loopback)?;
        sys::loopback_up(socket).at(Stage::Loopback)?;
    }
    rustix::system::sethostname(setup.hostname).at(Stage::HostName)?;
    pivot(setup)?;
    let stdin = rustix::fs::openat(&dev, c"null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let stdin = stdin.at(Stage::StandardInput)?;
    let main = sys::clone3(Namespaces::NONE, EndSignal::Child, || second(setup, &stdin)).at(Stage::Fork)?;
    Ok(main.pid)
}

/// Dies with the parent from here on, and shows nothing of it.
fn become_init(setup: &Setup<'_>) -> Result<(), Failure> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at(Stage::ParentDeath)?;
    // The parent may have died just before. Then nobody has the other end of the report any more.
    sys::close_range(raw(&setup.report_reader), raw(&setup.report_reader)).at(Stage::ParentDeath)?;
    let mut poll = [rustix::event::PollFd::new(&setup.report, rustix::event::PollFlags::empty())];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut poll, Some(&now)).at(Stage::ParentDeath)? != 0 {
        return Err(Errno::PIPE).at(Stage::ParentDeath);
    }
    // This process has the builder's memory: its secrets and credentials. Nobody inside may look into it, nor is it
    // ever written out.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable).at(Stage::ParentDeath)?;
    // A SIGCHLD that the parent ignores would be ignored here too, and take away the status of the process.
    sys::reset_signal_dispositions();
    if let Some(command_line) = setup.command_line {
        command_line.overwrite(c"init");
    }
    rustix::thread::set_name(c"init").at(Stage::ParentDeath)
}

/// Enters the control group, as far as the clone did not, and takes it for the root of all groups from here on.
fn enter_group(setup: &Setup<'_>) -> Result<(), Failure> {
    let Some(group) = setup.group else { return Ok(()) };
    for procs in group.procs() {
        rustix::io::write(procs, b"0").at(Stage::ControlGroup)?;
    }
    // A namespace made by the clone would have the parent's group as its root.
    sys::unshare(Namespaces::CGROUP).at(Stage::ControlGroup)
}

fn attach_root(setup: &Setup<'_>) -> Result<(), Failure> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let old_root = rustix::fs::open(c"/", flags, Mode::empty()).at(Stage::PrivateMounts)?;
    sys::mount_make_private(&old_root).at(Stage::PrivateMounts)?;
    // Parts of the fittings can only be bound from a mount that is attached; the root then covers it.
    let point = rustix::fs::open(&*setup.root.mount_point, flags, Mode::empty()).at(Stage::AttachFittings)?;
    attach(&setup.fittings.tmpfs, &point).at(Stage::AttachFittings)?;
    // The same goes for parts of what the plan mounts.
    let mut top = setup.fittings.tmpfs.as_fd();
    for hidden in setup.mounts.iter().filter(|mount| mount.part.is_some()) {
        attach(&hidden.mount, top).at(Stage::AttachFittings)?;
        top = hidden.mount.as_fd();
    }
    attach(&setup.root.mount, top).at(Stage::AttachRoot)
}

/// `/dev` and what is mounted below it; returns `/dev`.
fn mount_dev(setup: &Setup<'_>) -> Result<OwnedFd, Failure> {
    let fittings = setup.fittings;
    let dev = clone_mount(&fittings.tmpfs, c"dev", OpenTreeFlags::empty()).at(Stage::Devices)?;
    // Nodes that the process makes here are dead, as everywhere; those bound below are mounts of their own.
    sys::mount_setattr(&dev, MountAttrFlags::MOUNT_ATTR_NODEV, false).at(Stage::Devices)?;
    attach(&dev, &setup.root.dev).at(Stage::Devices)?;
    let host_dev = match fittings.nodes {
        Nodes::Own => None,
        Nodes::Host => Some(open_path(CWD, c"/dev").at(Stage::Devices)?),
    };
    let own_dev = open_path(fittings.tmpfs.as_fd(), c"dev").at(Stage::Devices)?;
    for (name, _, _) in DEVICES {
        let source = host_dev.as_ref().unwrap_or(&own_dev);
        let node = clone_mount(source, name, OpenTreeFlags::empty()).at(Stage::Devices)?;
        if host_dev.is_some() {
            sys::mount_setattr(&node, MountAttrFlags::MOUNT_ATTR_RDONLY, false).at(Stage::Devices)?;
        }
        attach(&node, open_path(dev.as_fd(), name).at(Stage::Devices)?).at(Stage::Devices)?;
    }
    let pts = open_path(dev.as_fd(), c"pts").at(Stage::Terminals)?;
    attach(&fittings.pts, pts).at(Stage::Terminals)?;
    let shm = open_path(dev.as_fd(), c"shm").at(Stage::SharedMemory)?;
    attach(&fittings.shm, shm).at(Stage::SharedMemory)?;
    match Context::open(c"mqueue").and_then(|context| context.mount(INERT)) {
        // A kernel without POSIX message queues has no use for the directory either.
        Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
        mount => {
            let target = open_path(dev.as_fd(), c"mqueue").at(Stage::MessageQueues)?;
            let mount = mount.at(Stage::MessageQueues)?;
            if let Some(labels) = setup.labels {
                label_root(&mount, labels).at(Stage::MessageQueues)?;
            }
            attach(mount, target).at(Stage::MessageQueues)?;
        }
    }
    Ok(dev)
}

/// Labels the root of a file system that takes no label as an option: everyone's message queues have one policy.
fn label_root(mount: &OwnedFd, labels: &Labels) -> io::Result<()> {
    // A descriptor of a mount cannot be labelled, its path can; and this process goes to the new root before it ends here.
    rustix::process::fchdir(mount)?;
    match rustix::fs::setxattr(c".", c"security.selinux", labels.files.to_bytes_with_nul(), XattrFlags::empty()) {
        // Then programs have no message queues, which few ever want.
        Err(Errno::OPNOTSUPP | Errno::PERM | Errno::ACCESS) => Ok(()),
        result => Ok(result?),
    }
}

fn mount_proc(setup: &Setup<'_>) -> Result<(), Failure> {
    let mount = Context::open(c"proc").and_then(|context| context.mount(INERT));
    let proc = mount.at(Stage::Proc)?;
    attach(&proc, &setup.root.proc).at(Stage::Proc)?;
    if !setup.confined {
        return Ok(());
    }
    for path in READ_ONLY_PROC {
        match clone_mount(&proc, path, OpenTreeFlags::AT_SYMLINK_NOFOLLOW) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            copy => {
                let copy = copy.at(Stage::MaskProc)?;
                sys::mount_setattr(&copy, MountAttrFlags::MOUNT_ATTR_RDONLY, false).at(Stage::MaskProc)?;
                attach(copy, open_path(proc.as_fd(), path).at(Stage::MaskProc)?).at(Stage::MaskProc)?;
            }
        }
    }
    for path in MASKED_PROC {
        mask(setup, proc.as_fd(), path).at(Stage::MaskProc)?;
    }
    Ok(())
}

fn mount_sys(setup: &Setup<'_>) -> Result<(), Failure> {
    let read_only = if setup.confined { INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY) } else { INERT };
    let fresh = Context::open(c"sysfs").and_then(|context| context.mount(read_only));
    let (sys, of_host) = match fresh {
        // A user namespace may not mount a view of a network namespace that it does not own: then the caller's is
        // bound.
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => {
            let copy = clone_mount(CWD, c"/sys", OpenTreeFlags::AT_RECURSIVE).at(Stage::Sys)?;
            sys::mount_setattr(&copy, read_only, true).at(Stage::Sys)?;
            (copy, true)
        }
        mount => (mount.at(Stage::Sys)?, false),
    };
    attach(&sys, &setup.root.sys).at(Stage::Sys)?;
    if !setup.confined {
        return Ok(());
    }
    for path in MASKED_SYS {
        mask(setup, sys.as_fd(), path).at(Stage::MaskSys)?;
    }
    for path in setup.masked_sys {
        mask(setup, sys.as_fd(), path).at(Stage::MaskSys)?;
    }
    if of_host {
        mask(setup, sys.as_fd(), c"fs/cgroup").at(Stage::MaskSys)?;
    }
    Ok(())
}

/// Covers a file with the null device, a directory with an empty one. What is not there needs no cover.
fn mask(setup: &Setup<'_>, directory: BorrowedFd<'_>, path: &CStr) -> io::Result<()> {
    let target = match open_path(directory, path) {
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(()),
        target => target?,
    };
    let is_directory = FileType::from_raw_mode(rustix::fs::fstat(&target)?.st_mode) == FileType::Directory;
    let cover = match (is_directory, setup.fittings.nodes) {
        (true, _) => clone_mount(&setup.fittings.tmpfs, c"empty", OpenTreeFlags::empty())?,
        (false, Nodes::Own) => clone_mount(&setup.fittings.tmpfs, c"dev/null", OpenTreeFlags::empty())?,
        (false, Nodes::Host) => clone_mount(CWD, c"/dev/null", OpenTreeFlags::empty())?,
    };
    sys::mount_setattr(&cover, MountAttrFlags::MOUNT_ATTR_RDONLY, false)?;
    attach(cover, target)
}

fn lay_files(setup: &Setup<'_>) -> Result<(), Failure> {
    let files = setup.fittings.files.iter().zip(&setup.root.files).zip(&setup.file_attributes);
    for ((name, target), attributes) in files {
        let mount = clone_mount(&setup.fittings.tmpfs, name, OpenTreeFlags::empty()).at(Stage::Overlaid)?;
        sys::mount_setattr(&mount, *attributes, false).at(Stage::Overlaid)?;
        attach(mount, target).at(Stage::Overlaid)?;
    }
    Ok(())
}

/// What the plan mounts. Each target is looked up only now, so that it is found in what was mounted above it; links are
/// not followed any more, because the parent did.
fn mount_extras(setup: &Setup<'_>) -> Result<(), Failure> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    for (number, extra) in setup.mounts.iter().enumerate() {
        let mounted = || -> io::Result<()> {
            let target = rustix::fs::openat2(&setup.root.mount, &*extra.at, flags, Mode::empty(), resolve)?;
            match &extra.part {
                None => {
                    if extra.takes_mode {
                        let mode = Mode::from_raw_mode(rustix::fs::fstat(&target)?.st_mode);
                        rustix::fs::chmodat(&extra.mount, c".", mode, AtFlags::empty())?;
                    }
                    sys::mount_setattr(&extra.mount, extra.attributes, false)?;
                    attach(&extra.mount, target)
                }
                Some(part) => {
                    let copy = clone_mount(part, c"", OpenTreeFlags::AT_EMPTY_PATH)?;
                    sys::mount_setattr(&copy, extra.attributes, false)?;
                    attach(copy, target)
                }
            }
        };
        mounted().map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(0);
            Failure(Report::Failed { stage: Stage::Mounts, errno, candidate: Some(number) })
        })?;
    }
    Ok(())
}

/// Makes the new root `/` and takes the old one out of the namespace altogether.
fn pivot(setup: &Setup<'_>) -> Result<(), Failure> {
    rustix::process::fchdir(&setup.root.mount).at(Stage::PivotRoot)?;
    rustix::process::pivot_root(c".", c".").at(Stage::PivotRoot)?;
    // The old root now lies on top of the new one, at the same place.
    rustix::mount::unmount(c".", UnmountFlags::DETACH).at(Stage::PivotRoot)?;
    rustix::process::chdir(c"/").at(Stage::PivotRoot)
}

/// Reaps until the process of the plan has ended; the end of this one then ends all that are left.
fn supervise(setup: &Setup<'_>, main: rustix::process::Pid) -> i32 {
    let report = raw(&setup.report);
    if report > 0 {
        let _ = sys::close_range(0, report - 1);
    }
    // With a descriptor left open the output of the process would never end; but the kernel refuses this only for
    // arguments that are not in order.
    let _ = sys::close_range(report + 1, u32::MAX);
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) if pid == main => {
                ended(status).send(&setup.report);
                return 0;
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 1,
        }
    }
}

fn ended(status: WaitStatus) -> Report {
    match (status.exit_status(), status.terminating_signal()) {
        (_, Some(signal)) => Report::Signaled(signal),
        (code, None) => Report::Exited(code.unwrap_or(0)),
    }
}

/// The process of the plan.
fn second(setup: &Setup<'_>, stdin: &OwnedFd) -> i32 {
    let Err(Failure(report)) = become_the_process(setup, stdin);
    report.send(&setup.report);
    1
}

fn become_the_process(setup: &Setup<'_>, stdin: &OwnedFd) -> Result<Infallible, Failure> {
    rustix::process::setsid().at(Stage::Session)?;
    match sys::join_new_session_keyring() {
        // A kernel without keyrings, or a policy around Strata that keeps everyone inside from using any.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {}
        result => result.at(Stage::Keyring)?,
    }
    connect(setup, stdin).at(Stage::StandardOutput)?;
    close_all_but_streams(setup).at(Stage::Descriptors)?;
    rustix::process::umask(Mode::from_raw_mode(0o022));
    enter_working_directory(&setup.cwd).at(Stage::WorkingDirectory)?;
    super::privilege::limit_bounding_set(setup.capabilities).at(Stage::BoundingSet)?;
    if setup.confined {
        keep_to_programs_of_the_root().at(Stage::Landlock)?;
    }
    if setup.apparmor {
        super::apparmor::change_on_exec().at(Stage::AppArmor)?;
    }
    if let Some(labels) = setup.labels {
        super::selinux::change_on_exec(&labels.process).at(Stage::Selinux)?;
    }
    // Last of what takes descriptors, of which the process may get few.
    limit_resources(setup)?;
    // Needs a capability that the process is about to lose. Everything after this is on the list.
    if let Some(filter) = setup.filter {
        sys::seccomp(filter).at(Stage::Seccomp)?;
    }
    if let Some(groups) = &setup.groups {
        rustix::thread::set_thread_groups(groups).at(Stage::Groups)?;
    }
    let (uid, gid) = (Uid::from_raw(setup.uid), Gid::from_raw(setup.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).at(Stage::User)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).at(Stage::User)?;
    super::privilege::set_capabilities(setup.uid, setup.capabilities).at(Stage::Capabilities)?;
    sys::unblock_signals().at(Stage::Signals)?;
    Err(Failure(execute(setup)))
}

/// Sets the limits of the process, while it may still raise them.
fn limit_resources(setup: &Setup<'_>) -> Result<(), Failure> {
    for (number, ulimit) in setup.ulimits.iter().enumerate() {
        let limit = Rlimit { current: ulimit.soft, maximum: ulimit.hard };
        rustix::process::setrlimit(resource(ulimit.resource), limit).map_err(|errno| {
            Failure(Report::Failed { stage: Stage::Ulimits, errno: errno.raw_os_error(), candidate: Some(number) })
        })?;
    }
    Ok(())
}

fn resource(resource: limits::Resource) -> Resource {
    match resource {
        limits::Resource::Core => Resource::Core,
        limits::Resource::Cpu => Resource::Cpu,
        limits::Resource::Data => Resource::Data,
        limits::Resource::Fsize => Resource::Fsize,
        limits::Resource::Locks => Resource::Locks,
        limits::Resource::Memlock => Resource::Memlock,
        limits::Resource::Msgqueue => Resource::Msgqueue,
        limits::Resource::Nice => Resource::Nice,
        limits::Resource::Nofile => Resource::Nofile,
        limits::Resource::Nproc => Resource::Nproc,
        limits::Resource::Rss => Resource::Rss,
        limits::Resource::Rtprio => Resource::Rtprio,
        limits::Resource::Rttime => Resource::Rttime,
        limits::Resource::Sigpending => Resource::Sigpending,
        limits::Resource::Stack => Resource::Stack,
    }
}

/// Makes the standard streams those of the process, and its user their owner, so that it can open `/dev/stdout` anew.
fn connect(setup: &Setup<'_>, stdin: &OwnedFd) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(setup.uid), Gid::from_raw(setup.gid));
    for stream in [&setup.stdout, &setup.stderr] {
        // A terminal stays that of its group, as everywhere.
        match rustix::fs::fchown(stream, Some(uid), (!setup.terminal).then_some(gid)) {
            // An id that is not mapped is reported where the process is to take it on.
            Err(Errno::INVAL | Errno::PERM) => {}
            result => result?,
        }
    }
    if setup.terminal {
        rustix::process::ioctl_tiocsctty(&setup.stdout)?;
    }
    // None of these three has a number below 3: those were open when they were made.
    let stdin = if setup.terminal { &setup.stdout } else { stdin };
    sys::duplicate_onto(stdin, 0)?;
    sys::duplicate_onto(&setup.stdout, 1)?;
    sys::duplicate_onto(&setup.stderr, 2)
}

/// Leaves the process nothing of the builder's but its streams and, up to `execve`, the report.
///
/// Comes before anything that looks at a path of the recipe or the image: one that leads through `/proc/self/fd` must
/// find no directory of the host there.
fn close_all_but_streams(setup: &Setup<'_>) -> io::Result<()> {
    let report = raw(&setup.report);
    if report > 3 {
        sys::close_range(3, report - 1)?;
    }
    sys::close_range(report + 1, u32::MAX)
}

/// Enters the working directory, but not through a link that only `/proc` can make: those lead past every root.
fn enter_working_directory(path: &CStr) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    Ok(rustix::process::fchdir(directory)?)
}

/// Lets the process run no program from outside its root. The builder's own would be one: while the process is still a
/// copy of the builder, `/proc/self/exe` is that file of the host.
fn keep_to_programs_of_the_root() -> io::Result<()> {
    let root = rustix::fs::open(c"/", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match sys::restrict_execution(root) {
        // A kernel without Landlock, or a policy around Strata that keeps everyone inside from using it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EOPNOTSUPP | libc::EPERM)) => Ok(()),
        result => result,
    }
}

/// Tries the candidates as a search of `PATH` does; gives the failure that counts.
fn execute(setup: &Setup<'_>) -> Report {
    let failed = |candidate: Option<usize>, errno| Report::Failed { stage: Stage::Execute, errno, candidate };
    let mut refused = None;
    for (number, path) in setup.candidates.iter().enumerate() {
        let errno = sys::execve(path, &setup.arguments, &setup.environment).raw_os_error().unwrap_or(0);
        let exists = || rustix::fs::statat(CWD, &**path, AtFlags::empty()).is_ok();
        match errno {
            libc::ENOENT if exists() => return failed(Some(number), errno),
            libc::ENOENT | libc::ENOTDIR | libc::ENAMETOOLONG => {}
            libc::EACCES => refused = refused.or(Some(number)),
            _ => return failed(Some(number), errno),
        }
    }
    match refused {
        Some(number) => failed(Some(number), libc::EACCES),
        None => failed(None, libc::ENOENT),
    }
}

fn open_path(directory: BorrowedFd<'_>, path: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

fn raw(fd: &OwnedFd) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}
