//! `RUN`: a process in the sandbox, and the layer of what it changed.

use std::ffi::CString;
use std::path::{Path, PathBuf};

use crate::digest::{DiffId, Key};
use crate::execute::{Error, Executor, owner};
use crate::graph::RunOp;
use crate::image::chain::Chain;
use crate::layer::{OverlayXattr, diff};
use crate::progress::{Stream, Task};
use crate::recipe;
use crate::runtime::{self, Identity, Network, OutputStream, Overlaid, Plan, Status};

/// The name a step's host goes by; the same everywhere, because it can end up in a layer. It is BuildKit's.
const HOSTNAME: &str = "buildkitsandbox";

/// Runs the step and publishes its layer.
pub(super) fn run(
    executor: &Executor<'_>,
    op: &RunOp,
    key: &Key,
    parent: &Chain,
    task: &Task<'_>,
) -> Result<DiffId, Error> {
    let lowers = executor.trees(parent)?;
    let user = owner::for_process(&op.user, &executor.view(parent)?)?;
    let scratch = executor.store.scratch()?;
    let upper = scratch.dir("tree")?;
    let plan = Plan {
        lowers: lowers.clone(),
        upper: upper.clone(),
        work: scratch.dir("work")?,
        userxattr: executor.xattr() == OverlayXattr::User,
        argv: op.argv.iter().map(|word| c_string(word)).collect::<Result<_, _>>()?,
        env: environment(op, user.home.as_deref().unwrap_or("/"))?,
        cwd: PathBuf::from(&op.workdir),
        identity: Identity { uid: user.uid, gid: user.gid, groups: user.groups },
        hostname: HOSTNAME.to_owned(),
        overlaid: overlaid(op)?,
        network: match op.network {
            recipe::Network::None => Network::None,
            recipe::Network::Default | recipe::Network::Host => Network::Host,
        },
    };
    let output = |stream: OutputStream, bytes: &[u8]| {
        let stream = match stream {
            OutputStream::Stdout => Stream::Stdout,
            OutputStream::Stderr => Stream::Stderr,
        };
        task.output(stream, bytes);
    };
    let outcome = runtime::run(&plan, &output, executor.cancel)?;
    verdict(op, outcome.status)?;
    diff::tidy(&upper, &lowers, executor.xattr())?;
    executor.publish(&upper, key, op.epoch)
}

fn verdict(op: &RunOp, status: Status) -> Result<(), Error> {
    let command = || op.argv.join(" ");
    match status {
        Status::Exited(0) => Ok(()),
        Status::Exited(code) => Err(Error::Exit { command: command(), code }),
        Status::Signaled(signal) => Err(Error::Signal { command: command(), signal: signal_name(signal) }),
        Status::Cancelled => Err(Error::Cancelled),
    }
}

fn signal_name(signal: i32) -> String {
    let name = match signal {
        libc::SIGKILL => "SIGKILL (9): the system may have run out of memory",
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

/// The step's environment: as configured, then the proxies, and a `HOME` where nothing set one.
fn environment(op: &RunOp, home: &str) -> Result<Vec<CString>, Error> {
    let has_home = op.env.iter().any(|(name, _)| name == "HOME");
    let home = (!has_home).then(|| ("HOME".to_owned(), home.to_owned()));
    op.env.iter().chain(&op.proxy_env).chain(&home).map(|(name, value)| c_string(&format!("{name}={value}"))).collect()
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::NulByte { text: text.to_owned() })
}

/// The files every step sees in place of the image's: none of them ends up in a layer.
fn overlaid(op: &RunOp) -> Result<Vec<Overlaid>, Error> {
    let hosts = format!("{}127.0.0.1\t{HOSTNAME}\n", read_or_empty(Path::new("/etc/hosts"))?);
    let mut files = vec![
        Overlaid { target: "/etc/hosts".into(), content: hosts.into(), mode: 0o644, writable: false },
        Overlaid { target: "/etc/resolv.conf".into(), content: resolv_conf()?.into(), mode: 0o644, writable: false },
    ];
    files.extend(op.scripts.iter().map(|script| Overlaid {
        target: Path::new("/dev/pipes").join(&script.name),
        content: script.content.clone(),
        mode: 0o755,
        writable: false,
    }));
    Ok(files)
}

/// The host's resolver configuration. Steps share the host's network, so that a resolver on loopback serves them too.
fn resolv_conf() -> Result<String, Error> {
    read_or_empty(Path::new("/etc/resolv.conf"))
}

fn read_or_empty(path: &Path) -> Result<String, Error> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            Ok(text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Host { path: path.to_owned(), source }),
    }
}
