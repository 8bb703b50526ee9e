//! Strata's own sandbox: one process tree in a root of its own.
//!
//! Takes a [`Plan`] (an overlay root, files to lay over it, a process), gives an [`Outcome`] and the overlay's upper
//! directory with what the process changed and nothing of what the sandbox itself needed. Never lets the process see or
//! reach more than the plan gives it; knows nothing of recipes, images or caches.
//!
//! [`run`] goes through these steps:
//!
//! 1. The root is mounted as an overlay, detached (`overlay`), with the mount points that the image lacks in a layer of
//!    their own (`skeleton`). Everything that will be mounted on is looked up now, inside the root (`inside` and
//!    `rootfs`): later nothing depends on what the image has at any path.
//! 2. What every sandbox adds is made in memory (`fittings`), and what this run mounts is made ready (`mounts`).
//! 3. `clone3` starts pid 1 of new mount, pid, ipc, uts, cgroup and, for [`Network::None`], network namespaces. It
//!    attaches the root and all the rest by descriptor, changes over to it, and starts the process itself (`init`). Where the
//!    limits of the plan need a control group, it enters that before anything else (`cgroup`).
//! 4. That one closes what it has of the builder's, gives up all but Docker's default capabilities (`privilege`), comes
//!    under a filter of system calls (`seccomp`) and, on hosts that have one, a profile or label (`apparmor`, `selinux`), takes on its user
//!    and becomes the program (`program`).
//! 5. The parent streams the output (`supervise`), and when pid 1 has ended, and with it every process, takes the root
//!    apart.
//!
//! A network with a way out that is not the host's own is made once for many runs ([`network`]).
//!
//! As an ordinary user all of this happens in a user namespace, which [`userns::enter`] makes once at the start of the
//! program. [`probe`] says what of it a host can do.

mod apparmor;
mod attribute;
mod cancel;
mod cgroup;
mod error;
mod filesystem;
mod fittings;
mod idmap;
mod init;
mod inside;
mod mounts;
pub mod network;
mod overlay;
mod privilege;
pub mod probe;
mod program;
mod report;
mod rootfs;
mod seccomp;
mod selinux;
mod skeleton;
mod supervise;
mod sys;
mod terminal;
#[cfg(test)]
mod tests;
pub mod userns;

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::fs::Gid;
use rustix::mount::MountAttrFlags;

pub use cancel::Cancel;
pub use cgroup::{Reached, sweep};
pub use error::{Error, Stage};
pub use mounts::{Mount, Source};
pub use terminal::{Terminal, restore as restore_terminal};

use crate::limits::Limits;
use cgroup::Group;
use filesystem::INERT;
use fittings::Fittings;
use init::Setup;
use mounts::Mounts;
use report::Report;
use rootfs::Root;
use supervise::{Ended, PipeWriters, Pipes, Way};
use sys::{CommandLine, Namespaces, Strings};
use terminal::Pty;

/// The network a process sees.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Network {
    /// The network of the caller.
    Host,
    /// A namespace made before, which several processes share.
    Shared(network::Namespace),
    /// A namespace with loopback only.
    None,
}

/// How far a process is confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Security {
    /// Docker's default capabilities, the filter of system calls, the host's settings hidden or read-only.
    Sandbox,
    /// Every capability of the caller, no filter, `/proc` and `/sys` as they are. Namespaces and root stay.
    Insecure,
}

/// Who a process runs as, by number.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// User id inside the root.
    pub uid: u32,
    /// Group id inside the root.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// A file made for one run and laid over the root; leaves no trace in the upper directory.
#[derive(Debug, Clone)]
pub struct Overlaid {
    /// Absolute path inside the root, not below `/dev`, `/proc` or `/sys`. Links in the image are followed inside the
    /// root.
    pub target: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Whether the process may write to it (into memory; lost afterwards).
    pub writable: bool,
}

impl Overlaid {
    /// Its path in `/dev`, if it is in a directory of its own there: such a file is made in the sandbox's own `/dev` and
    /// needs no mount.
    fn in_dev(&self) -> Option<&Path> {
        let path = self.target.strip_prefix("/dev").ok()?;
        let mut parts = path.components();
        let Some(Component::Normal(directory)) = parts.next() else { return None };
        let has_name = parts.clone().next().is_some() && parts.all(|part| matches!(part, Component::Normal(_)));
        (has_name && !fittings::is_taken(directory)).then_some(path)
    }
}

/// Everything one run needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The lower directories, topmost first; may be empty, at most 498.
    pub lowers: Vec<PathBuf>,
    /// An existing empty directory that receives the changes. It gets the mode, owner and times of the topmost lower
    /// directory (0755 without any), since it is what the process sees as `/`.
    pub upper: PathBuf,
    /// An existing empty directory on the same file system, for the overlay's own use; empty again afterwards.
    pub work: PathBuf,
    /// Whether the overlay keeps its records in `user.overlay.` (as it must in a user namespace) and not in
    /// `trusted.overlay.`.
    pub userxattr: bool,
    /// Program (searched in `PATH` of `env` where it has no slash) and arguments.
    pub argv: Vec<CString>,
    /// `NAME=value`, in order.
    pub env: Vec<CString>,
    /// Working directory inside the root; made (0755) where it is missing, as part of the result.
    pub cwd: PathBuf,
    /// Who the process runs as.
    pub identity: Identity,
    /// The host name it sees.
    pub hostname: String,
    /// Files such as `/etc/hosts` and `/etc/resolv.conf`.
    pub overlaid: Vec<Overlaid>,
    /// What else is mounted, at most 1000. One that lies in another's target is mounted on top of it, whatever their
    /// order; of two with the same target the later one is seen.
    pub mounts: Vec<Mount>,
    /// The network it sees.
    pub network: Network,
    /// How far it is confined.
    pub security: Security,
    /// What it may use at most, and for how long.
    pub limits: Limits,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It returned this code.
    Exited(i32),
    /// This signal ended it.
    Signaled(i32),
    /// [`Cancel`] ended it.
    Cancelled,
    /// It took longer than its limits allow, and was killed.
    TimedOut,
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How the process ended.
    pub status: Status,
    /// Which of its limits it came up against.
    pub reached: Reached,
    /// Wall time from the first system call to the last.
    pub elapsed: Duration,
    /// Processor time of the whole process tree.
    pub cpu: Duration,
}

/// Where a piece of output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Runs the plan's process to its end, and that of every process it started.
///
/// `output` is called on this thread with each piece of output as it arrives, in order for each stream; a slow callback
/// slows the process down and loses nothing. `cancel` ends everything from any other thread.
///
/// The caller needs `CAP_SYS_ADMIN` in its user namespace, see [`userns::enter`]. When this returns, no process, mount
/// or descriptor of the run is left, and the work directory is empty.
///
/// # Errors
/// If the run could not be made, see [`Error`]; a process that ran and failed is an [`Outcome`].
pub fn run(plan: &Plan, output: &(dyn Fn(OutputStream, &[u8]) + Sync), cancel: &Cancel) -> Result<Outcome, Error> {
    run_to_the_end(plan, &Talk::Output(output), cancel)
}

/// Runs the plan's process on the user's terminal to its end, and that of every process it started.
///
/// The process is the leader of a session on a terminal in the sandbox's own `/dev/pts`, so that job control works. In
/// all else this is [`run`].
///
/// # Errors
/// As for [`run`].
pub fn run_on_terminal(plan: &Plan, terminal: &Terminal, cancel: &Cancel) -> Result<Outcome, Error> {
    run_to_the_end(plan, &Talk::Terminal(terminal), cancel)
}

/// Whom the process talks to.
enum Talk<'a> {
    /// It only writes.
    Output(supervise::Output<'a>),
    /// Somebody at a terminal.
    Terminal(&'a Terminal),
}

fn run_to_the_end(plan: &Plan, talk: &Talk<'_>, cancel: &Cancel) -> Result<Outcome, Error> {
    let start = Instant::now();
    if cancel.is_cancelled() {
        let (reached, cpu) = (Reached::default(), Duration::ZERO);
        return Ok(Outcome { status: Status::Cancelled, reached, elapsed: start.elapsed(), cpu });
    }
    let labels = selinux::labels(plan);
    let mut mounts = Mounts::open(plan, labels.as_ref())?;
    let root = Root::prepare(plan, &mounts)?;
    mounts.place(&root)?;
    let fittings = Fittings::new(&plan.overlaid, plan.limits.shm_size, mounts.label())?;
    let group = Group::make(&plan.limits)?;
    let (pipes, writers) = Pipes::new()?;
    let (writers, way) = match talk {
        Talk::Output(output) => (writers, Way::Output(*output)),
        Talk::Terminal(terminal) => {
            let pty = Pty::new(&fittings.pts)?;
            (writers.on_terminal(&pty)?, Way::Terminal { terminal, master: pty.into_master() })
        }
    };
    let on_terminal = matches!(way, Way::Terminal { .. });
    let setup = set_up(plan, &root, &fittings, &mounts, group.as_ref(), writers, on_terminal)?;
    // Somebody at a terminal takes the time they take.
    let timeout = plan.limits.timeout.filter(|_| !on_terminal);
    let deadline = timeout.and_then(|timeout| start.checked_add(timeout));
    let namespaces = namespaces(&plan.network, group.is_some());
    let ended = supervise::run(namespaces, setup, &pipes, &way, cancel, deadline)?;
    let status = status(plan, &root, &mounts, &ended, cancel);
    let reached = group.as_ref().map(Group::reached).unwrap_or_default();
    drop(group);
    drop((fittings, mounts));
    let finished = root.finish();
    // What went wrong first matters more than what went wrong clearing up after it.
    let status = status?;
    finished?;
    Ok(Outcome { status, reached, elapsed: start.elapsed(), cpu: ended.cpu })
}

/// Makes everything that the child needs and cannot make itself.
fn set_up<'a>(
    plan: &'a Plan,
    root: &'a Root,
    fittings: &'a Fittings,
    mounts: &'a Mounts,
    group: Option<&'a Group>,
    writers: PipeWriters,
    terminal: bool,
) -> Result<Setup<'a>, Error> {
    let cwd = CString::new(plan.cwd.as_os_str().as_bytes())
        .map_err(|_| Error::Plan { problem: "the working directory has a NUL byte".to_owned() })?;
    if plan.hostname.len() > 64 {
        return Err(Error::Plan { problem: format!("the host name {:?} has more than 64 bytes", plan.hostname) });
    }
    let groups = plan.identity.groups.iter().copied().map(Gid::from_raw).collect();
    let confined = plan.security == Security::Sandbox;
    Ok(Setup {
        root,
        fittings,
        mounts: &mounts.ready,
        confined,
        apparmor: confined && apparmor::is_on(),
        labels: mounts.labels,
        file_attributes: plan
            .overlaid
            .iter()
            .filter(|file| file.in_dev().is_none())
            .map(|file| if file.writable { INERT } else { INERT.union(MountAttrFlags::MOUNT_ATTR_RDONLY) })
            .collect(),
        masked_sys: thermal_sensors(),
        hostname: plan.hostname.as_bytes(),
        own_network: plan.network == Network::None,
        network: match &plan.network {
            Network::Shared(namespace) => Some(namespace.fd()),
            Network::Host | Network::None => None,
        },
        cwd,
        uid: plan.identity.uid,
        gid: plan.identity.gid,
        groups: privilege::may_set_groups().then_some(groups),
        capabilities: if confined { privilege::DEFAULT_CAPABILITIES } else { privilege::all_capabilities() },
        filter: confined.then(seccomp::program),
        candidates: program::candidates(plan)?,
        arguments: Strings::new(plan.argv.clone()),
        environment: Strings::new(plan.env.clone()),
        command_line: CommandLine::of_this_process(),
        group,
        ulimits: &plan.limits.ulimits,
        report_reader: writers.report_reader,
        report: writers.report,
        stdout: writers.stdout,
        stderr: writers.stderr,
        terminal,
    })
}

/// The namespaces that the first process is made in. With a control group of its own it makes that namespace itself, when
/// it has entered the group.
fn namespaces(network: &Network, grouped: bool) -> Namespaces {
    let base = Namespaces::MOUNT.and(Namespaces::PID).and(Namespaces::IPC).and(Namespaces::UTS).and(Namespaces::CGROUP);
    let base = if grouped { base.without(Namespaces::CGROUP) } else { base };
    match network {
        // One that exists is entered by the first process: to clone into it is not possible.
        Network::Host | Network::Shared(_) => base,
        Network::None => base.and(Namespaces::NETWORK),
    }
}

/// Each processor's heat counters below `/sys`, which tell what others on the machine do. Docker hides them, too.
///
/// Looked for once: a machine does not grow sensors.
fn thermal_sensors() -> &'static [CString] {
    static SENSORS: OnceLock<Vec<CString>> = OnceLock::new();
    SENSORS.get_or_init(|| {
        let Ok(processors) = std::fs::read_dir("/sys/devices/system/cpu") else { return Vec::new() };
        let sensors = processors.flatten().map(|processor| processor.path().join("thermal_throttle"));
        let sensors = sensors.filter(|sensor| sensor.exists());
        let below_sys = sensors.filter_map(|sensor| sensor.strip_prefix("/sys").map(Path::to_owned).ok());
        below_sys.filter_map(|sensor| CString::new(sensor.as_os_str().as_bytes()).ok()).collect()
    })
}

/// What the processes' end means.
fn status(plan: &Plan, root: &Root, mounts: &Mounts, ended: &Ended, cancel: &Cancel) -> Result<Status, Error> {
    match ended.report {
        Some(Report::Exited(code)) => Ok(Status::Exited(code)),
        Some(Report::Signaled(signal)) => Ok(Status::Signaled(signal)),
        Some(Report::Failed { stage, errno, candidate }) => Err(failure(plan, root, mounts, stage, errno, candidate)),
        None if cancel.is_cancelled() => Ok(Status::Cancelled),
        None if ended.timed_out => Ok(Status::TimedOut),
        // Someone outside killed pid 1, most likely the kernel for want of memory.
        None => ended.signal.map(Status::Signaled).ok_or(Error::Vanished),
    }
}

fn failure(plan: &Plan, root: &Root, mounts: &Mounts, stage: Stage, errno: i32, candidate: Option<usize>) -> Error {
    let source = io::Error::from_raw_os_error(errno);
    match stage {
        Stage::WorkingDirectory if errno == libc::ENOTDIR => Error::WorkingDirectory { path: plan.cwd.clone() },
        Stage::Execute => {
            let candidates = program::candidates(plan).unwrap_or_default();
            let tried = candidate.and_then(|number| candidates.get(number));
            program::explain(plan, &root.mount, tried.map(CString::as_c_str), source)
        }
        Stage::Ulimits => match candidate.and_then(|number| plan.limits.ulimits.get(number)) {
            Some(ulimit) => Error::Ulimit { ulimit: ulimit.clone(), source },
            None => Error::Setup { stage, source },
        },
        Stage::Mounts => match candidate.and_then(|number| mounts.ready.get(number)) {
            Some(mount) => Error::Mount { target: mount.target.clone(), source },
            None => Error::Setup { stage, source },
        },
        stage => Error::Setup { stage, source },
    }
}
