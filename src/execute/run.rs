//! `RUN`: a process in the sandbox, and the layer of what it changed.

use std::ffi::CString;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::base::completion::Completions;
use crate::digest::{DiffId, Key};
use crate::execute::mask::Mask;
use crate::execute::mount::{Mounted, Shown};
use crate::execute::network::{self, HOSTNAME, Networks};
use crate::execute::shell::Sandbox;
use crate::execute::{Ended, Error, Executor, c_string, owner};
use crate::graph::RunOp;
use crate::image::chain::Chain;
use crate::layer::view::View;
use crate::layer::{OverlayXattr, diff};
use crate::limits::{Limits, Pids};
use crate::progress::{Stream, Task};
use crate::recipe;
use crate::runtime::{self, Cancel, Identity, Network, Outcome, OutputStream, Overlaid, Plan, Security, Status};
use crate::store::Scratch;
use crate::units;

/// Runs the step and publishes its layer.
pub(super) fn run(
    executor: &Executor<'_>,
    op: &RunOp,
    key: &Key,
    parent: &Chain,
    shown: Vec<Shown>,
    task: &Task<'_>,
) -> Result<DiffId, Error> {
    let prepared = prepare(executor, op, parent, shown, task)?;
    let outcome = run_and_tell(&prepared.plan, &prepared.mounted.mask, executor.cancel, task)?;
    executor.networks.check(&prepared.plan.network, executor.layers.reporter);
    let verdict = verdict(op, &outcome, &executor.limits);
    if let Err(error) = verdict.map_err(|error| on_full_disk(error, executor.store.root())) {
        if executor.keeps_failed && !matches!(error, Error::Cancelled) {
            let mut kept = executor.failed.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.is_none() {
                *kept = Some(Sandbox::of(op, prepared)?);
            }
        }
        return Err(error);
    }
    // Sockets, locks and directories of the mounts end with the processes; what follows takes its time without them.
    let Prepared { plan, mounted, root, scratch: _scratch, .. } = prepared;
    let upper = plan.upper.clone();
    drop((plan, mounted));
    diff::tidy(&upper, &root, executor.xattr())?;
    executor.publish(&upper, key, op.epoch)
}

/// All that a step is run with.
pub(super) struct Prepared {
    /// For the sandbox.
    pub plan: Plan,
    /// What its mounts need, and what is hidden in its output.
    pub mounted: Mounted,
    /// What it starts from.
    pub root: View,
    /// Where its changes go.
    pub scratch: Scratch,
    /// What keeps its network alive.
    pub networks: Arc<Networks>,
    /// What keeps directories of its root that no layer has.
    pub completions: Arc<Completions>,
}

/// Makes everything ready that a step is run with.
pub(super) fn prepare(
    executor: &Executor<'_>,
    op: &RunOp,
    parent: &Chain,
    shown: Vec<Shown>,
    task: &Task<'_>,
) -> Result<Prepared, Error> {
    // Made while the step is got ready, so that it does not wait.
    executor.networks.begin(op.network);
    let mut mounted = Mounted::open(executor, op, shown, task)?;
    let lowers = executor.trees(parent)?;
    let root = executor.view_over(&lowers)?;
    let user = owner::for_process(&op.user, &root)?;
    let scratch = executor.store.scratch()?;
    let upper = scratch.dir("tree")?;
    let reporter = executor.layers.reporter;
    let network = executor.networks.network(op.network, reporter);
    let plan = Plan {
        lowers,
        upper,
        work: scratch.dir("work")?,
        userxattr: executor.xattr() == OverlayXattr::User,
        argv: op.argv.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?,
        env: environment(op, &mounted.env, user.home.as_deref().unwrap_or("/"))?,
        cwd: PathBuf::from(&op.workdir),
        identity: Identity { uid: user.uid, gid: user.gid, groups: user.groups },
        hostname: hostname(op).to_owned(),
        overlaid: overlaid(op, &network, executor.hosts)?,
        network,
        security: match op.security {
            recipe::Security::Sandbox => Security::Sandbox,
            recipe::Security::Insecure => Security::Insecure,
        },
        mounts: std::mem::take(&mut mounted.mounts),
        limits: executor.limits.clone(),
    };
    let (networks, completions) = (Arc::clone(&executor.networks), Arc::clone(&executor.layers.completions));
    Ok(Prepared { plan, mounted, root, scratch, networks, completions })
}

/// Runs the plan; what it writes goes to `task`, without what is to be hidden.
fn run_and_tell(plan: &Plan, mask: &Mask, cancel: &Cancel, task: &Task<'_>) -> Result<Outcome, Error> {
    let waiting: [Mutex<Vec<u8>>; 2] = Default::default();
    let number = |stream| match stream {
        OutputStream::Stdout => (Stream::Stdout, &waiting[0]),
        OutputStream::Stderr => (Stream::Stderr, &waiting[1]),
    };
    let output = |stream: OutputStream, bytes: &[u8]| {
        let (stream, waiting) = number(stream);
        if mask.is_empty() {
            task.output(stream, bytes);
        } else {
            let text = mask.feed(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner), bytes);
            task.output(stream, &text);
        }
    };
    let outcome = runtime::run(plan, &output, cancel);
    for stream in [OutputStream::Stdout, OutputStream::Stderr] {
        let (stream, waiting) = number(stream);
        let rest = mask.finish(&mut waiting.lock().unwrap_or_else(PoisonError::into_inner));
        if !rest.is_empty() {
            task.output(stream, &rest);
        }
    }
    Ok(outcome?)
}

/// What the end of the process means. A limit that it came up against is only the reason for a failure, where there is
/// one: many programs go on without the process or the memory that they were refused.
fn verdict(op: &RunOp, outcome: &Outcome, limits: &Limits) -> Result<(), Error> {
    let command = op.argv.join(" ");
    let ended = match outcome.status {
        Status::Exited(0) => return Ok(()),
        Status::Cancelled => return Err(Error::Cancelled),
        Status::TimedOut => {
            let limit = units::write_duration(limits.timeout.unwrap_or_default());
            return Err(Error::TimedOut { command, limit });
        }
        Status::Exited(code) => Ended::Code(code),
        Status::Signaled(signal) => Ended::Signal(signal_name(signal)),
    };
    Err(match (limits.memory, limits.pids, ended) {
        (Some(limit), _, ended) if outcome.reached.memory => {
            Error::OutOfMemory { command, ended, limit: units::write_bytes(limit) }
        }
        (_, Some(Pids::Most(limit)), ended) if outcome.reached.pids => {
            Error::TooManyProcesses { command, ended, limit }
        }
        (_, _, Ended::Code(code)) => Error::Exit { command, code },
        (_, _, Ended::Signal(signal)) => Error::Signal { command, signal },
    })
}

/// A file system with less room than this is full for whoever wants to write to it.
const FULL: u64 = 64 * 1024;

/// The error, with a full disk as its likely reason: asked while what the step wrote is still there.
fn on_full_disk(error: Error, root: &Path) -> Error {
    let is_full = rustix::fs::statvfs(root).is_ok_and(|found| found.f_bavail.saturating_mul(found.f_frsize) < FULL);
    match error {
        Error::Exit { command, code } if is_full => {
            Error::DiskFull { command, ended: Ended::Code(code), root: root.to_owned() }
        }
        error => error,
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGKILL => "SIGKILL (9)",
        libc::SIGSEGV => "SIGSEGV (11)",
        libc::SIGABRT => "SIGABRT (6)",
        libc::SIGTERM => "SIGTERM (15)",
        libc::SIGILL => "SIGILL (4)",
        libc::SIGBUS => "SIGBUS (7)",
        libc::SIGFPE => "SIGFPE (8)",
        libc::SIGSYS => "SIGSYS (31)",
        other => return other.to_string(),
    };
    name.to_owned()
}

/// The step's environment: as configured, then the proxies, a `HOME` where nothing set one, and what its mounts bring.
fn environment(op: &RunOp, mounted: &[(String, Vec<u8>)], home: &str) -> Result<Vec<CString>, Error> {
    let is_set = |name: &str| op.env.iter().any(|(known, _)| **known == *name);
    let home = (!is_set("HOME")).then_some(("HOME", home));
    let own_agent = |name: &str| name == "SSH_AUTH_SOCK" && is_set(name);
    let mounted: Vec<_> = mounted.iter().filter(|(name, _)| !own_agent(name)).collect();
    let replaced = |name: &str| mounted.iter().any(|(by, _)| by == name);
    let set = op.env.iter().map(|(name, value)| (&**name, &**value));
    let proxies = op.proxy_env.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let configured = set.chain(proxies).chain(home).filter(|(name, _)| !replaced(name));
    let mut environment: Vec<CString> =
        configured.map(|(name, value)| c_string(&format!("{name}={value}"))).collect::<Result<_, _>>()?;
    for (name, value) in mounted {
        let entry = [name.as_bytes(), b"=", value].concat();
        // The message must not show the value.
        environment.push(CString::new(entry).map_err(|_| Error::NulByte { text: name.clone() })?);
    }
    Ok(environment)
}

/// The name the step's host goes by.
fn hostname(op: &RunOp) -> &str {
    op.hostname.as_deref().unwrap_or(HOSTNAME)
}

/// The files every step sees in place of the image's: none of them ends up in a layer.
fn overlaid(op: &RunOp, network: &Network, added: &[(String, IpAddr)]) -> Result<Vec<Overlaid>, Error> {
    let mut files = Vec::from(network::files(network, hostname(op), added)?);
    files.extend(op.scripts.iter().map(|script| Overlaid {
        target: Path::new("/dev/pipes").join(&script.name),
        content: script.content.clone(),
        mode: 0o755,
        writable: false,
    }));
    Ok(files)
}
