//! The private network of a build: a network namespace that its steps share, with a way out through `pasta`.
//!
//! Takes the name of the program, gives a [`Namespace`] for a [`Plan`](super::Plan). Nothing is made before the first
//! step asks; then the namespace is complete within a few milliseconds and `pasta` starts beside the step, which can
//! use the network from its first instruction: what it sends waits for `pasta` in the kernel (see `namespace`).
//! Forwards no port in either direction, and lets nothing reach the host's loopback.
//!
//! Where it cannot be made, an [`Unavailable`] says why; what to do then is the caller's to decide.

mod namespace;
mod netlink;
mod pasta;
mod resolver;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use super::cancel::kill;
use super::probe::{Condition, Finding};
use super::{sys, userns};
use namespace::Wired;
use pasta::Pasta;

/// Which `pasta` to use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Program {
    /// The one in `PATH`.
    #[default]
    InPath,
    /// This one.
    At(PathBuf),
    /// None: steps use the host's network.
    Off,
}

impl Program {
    /// What a setting says: `off`, or a path. Nothing and an empty text leave it to `PATH`.
    #[must_use]
    pub fn from_setting(text: Option<&std::ffi::OsStr>) -> Self {
        match text {
            None => Self::InPath,
            Some(text) if text.is_empty() => Self::InPath,
            Some(text) if text == "off" => Self::Off,
            Some(path) => Self::At(path.into()),
        }
    }

    fn find(&self) -> Result<PathBuf, Unavailable> {
        let is_program =
            |path: &Path| path.metadata().is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0);
        match self {
            Self::Off => Err(Unavailable::Off),
            Self::At(path) if is_program(path) => Ok(path.clone()),
            Self::At(path) => Err(Unavailable::Missing { path: Some(path.clone()) }),
            Self::InPath => {
                let path = std::env::var_os("PATH").unwrap_or_default();
                let mut candidates = std::env::split_paths(&path).map(|directory| directory.join("pasta"));
                candidates.find(|path| is_program(path)).ok_or(Unavailable::Missing { path: None })
            }
        }
    }
}

/// Why there is no private network.
#[derive(Debug, thiserror::Error)]
pub enum Unavailable {
    /// The user does not want one.
    #[error("pasta is turned off")]
    Off,
    /// There is no `pasta`.
    #[error("pasta is not installed{} (the package is called passt)", path.as_ref().map_or_else(String::new, |path| format!(" at {}", path.display())))]
    Missing {
        /// Where it should be, if somewhere in particular.
        path: Option<PathBuf>,
    },
    /// `/dev/net/tun` cannot be used.
    #[error("{} cannot be opened: {source} (modprobe tun; chmod 666 {})", namespace::TUN, namespace::TUN)]
    Tun {
        /// What the kernel said.
        source: io::Error,
    },
    /// The host has no way out itself.
    #[error("this machine has no default route")]
    NoRoute,
    /// The kernel refused something.
    #[error("cannot {action} a private network: {source}")]
    Setup {
        /// What was tried.
        action: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// `pasta` gave up.
    #[error("pasta failed: {said}")]
    Failed {
        /// What it said.
        said: String,
    },
}

/// Which versions of the Internet protocol lead out of this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Families {
    v4: bool,
    v6: bool,
}

/// A network namespace to run steps in; lasts until the last copy is gone.
#[derive(Debug, Clone)]
pub struct Namespace {
    fd: Arc<OwnedFd>,
    resolv_conf: Arc<str>,
}

impl Namespace {
    /// What `/etc/resolv.conf` has to say there.
    #[must_use]
    pub fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.fd, &other.fd)
    }
}

impl Eq for Namespace {}

/// The private network of one build. When it is dropped, its `pasta` is gone.
#[derive(Debug)]
pub struct PrivateNetwork {
    program: Program,
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    begun: bool,
    namespace: Option<Result<Namespace, Arc<Unavailable>>>,
    /// Whether `pasta` has come up.
    ready: bool,
    /// Why nothing leads out of the namespace any more.
    broken: Option<Arc<Unavailable>>,
    /// The process to kill at the end.
    process: Option<Arc<OwnedFd>>,
    ended: bool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl PrivateNetwork {
    /// A network that does not exist yet.
    #[must_use]
    pub fn new(program: Program) -> Self {
        Self { program, shared: Arc::default(), thread: Mutex::new(None) }
    }

    /// Begins to make it, beside the caller. Further calls do nothing.
    pub fn begin(&self) {
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.begun, true) {
            return;
        }
        drop(state);
        let (program, shared) = (self.program.clone(), Arc::clone(&self.shared));
        // The thread stays as long as `pasta` does, which ends with the thread that started it.
        let thread = std::thread::Builder::new().name("network".to_owned()).spawn(move || serve(&program, &shared));
        match thread {
            Ok(thread) => *self.thread.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread),
            Err(source) => {
                let error = Unavailable::Setup { action: "start a thread for", source };
                self.shared.change(|state| state.namespace = Some(Err(Arc::new(error))));
            }
        }
    }

    /// The namespace, begun now if it was not before. Does not wait for `pasta`.
    ///
    /// It stays the same one if its `pasta` ends too early, see [`PrivateNetwork::broken`]: steps that could bring that
    /// about must not get another network for it.
    ///
    /// # Errors
    /// Why there is none; from the moment that `pasta` is seen not to have started, that.
    pub fn namespace(&self) -> Result<Namespace, Arc<Unavailable>> {
        self.begin();
        let state = self.shared.lock();
        let waited = self.shared.changed.wait_while(state, |state| state.namespace.is_none());
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        state.namespace.clone().expect("waited until it was there")
    }

    /// Why nothing leads out of the namespace any more, if that is so.
    #[must_use]
    pub fn broken(&self) -> Option<Arc<Unavailable>> {
        self.shared.lock().broken.clone()
    }

    /// Ends it, without waiting for the end; nothing is made any more.
    pub fn end(&self) {
        self.shared.change(|state| {
            state.ended = true;
            if let Some(process) = &state.process {
                kill(process);
            }
        });
    }

    /// Waits until packets flow.
    fn wait_until_ready(&self) -> Result<(), Arc<Unavailable>> {
        self.namespace()?;
        let waiting = |state: &mut State| !state.ready && matches!(state.namespace, Some(Ok(_)));
        let waited = self.shared.changed.wait_while(self.shared.lock(), waiting);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        state.namespace.clone().map_or(Ok(()), |namespace| namespace.map(drop))
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        self.end();
        if let Some(thread) = self.thread.get_mut().unwrap_or_else(PoisonError::into_inner).take() {
            // A panic in there has been printed already, and there is nothing left to end.
            let _ = thread.join();
        }
    }
}

/// Makes the network, and stays with its `pasta` to the end.
fn serve(program: &Program, shared: &Shared) {
    let (pasta, wired, families) = match make(program, shared) {
        Ok(made) => made,
        Err(error) => return shared.change(|state| state.namespace = Some(Err(Arc::new(error)))),
    };
    let connect = || namespace::connect(&wired, families).map_err(|error| error.to_string());
    match pasta.wait_until_ready().and_then(|()| connect()) {
        Ok(()) => shared.change(|state| state.ready = true),
        Err(said) => shared.change(|state| {
            // What was asked to end was not a failure.
            if !state.ended {
                state.namespace = Some(Err(Arc::new(Unavailable::Failed { said })));
            }
        }),
    }
    // From here on `pasta` alone keeps the router.
    drop(wired);
    // The process is a child of ours and is waited for nowhere else.
    let ended = sys::wait(&*pasta.process);
    shared.change(|state| {
        if !state.ended && state.ready {
            let said = match ended {
                Ok(_) => "it ended before the build did".to_owned(),
                Err(error) => error.to_string(),
            };
            state.broken = Some(Arc::new(Unavailable::Failed { said }));
        }
    });
}

fn make(program: &Program, shared: &Shared) -> Result<(Pasta, Wired, Families), Unavailable> {
    let program = program.find()?;
    let families = Families { v4: address_v4().is_some(), v6: address_v6().is_some() };
    if !families.v4 && !families.v6 {
        return Err(Unavailable::NoRoute);
    }
    let wired = namespace::make(families)?;
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let behind = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let resolver = resolver::resolver(&host, behind.as_deref(), namespace::RESOLVER);
    let step = wired.step.try_clone().map_err(|source| Unavailable::Setup { action: "hand on", source })?;
    let namespace = Namespace { fd: Arc::new(step), resolv_conf: resolver.text.into() };
    shared.change(|state| state.namespace = Some(Ok(namespace)));
    let pasta = Pasta::start(&program, &wired, families, resolver.forwarded)?;
    shared.change(|state| {
        if state.ended {
            kill(&pasta.process);
        }
        state.process = Some(Arc::clone(&pasta.process));
    });
    Ok((pasta, wired, families))
}

/// An address of this machine that others reach it by, and that steps reach it by too: the one it would itself use to
/// go out.
#[must_use]
pub fn host_address() -> Option<IpAddr> {
    address_v4().map(IpAddr::V4).or_else(|| address_v6().map(IpAddr::V6))
}

fn address_v4() -> Option<Ipv4Addr> {
    // Nothing is sent: to connect such a socket is to ask the routing table. The address is one for documentation.
    match outbound((Ipv4Addr::UNSPECIFIED, 0).into(), (Ipv4Addr::new(198, 51, 100, 1), 9).into())? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn address_v6() -> Option<Ipv6Addr> {
    let somewhere = Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 1);
    match outbound((Ipv6Addr::UNSPECIFIED, 0).into(), (somewhere, 9).into())? {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    }
}

fn outbound(from: std::net::SocketAddr, to: std::net::SocketAddr) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// Whether steps get a private network here. Where this process may, it makes one, waits for its `pasta`, and ends it.
#[must_use]
pub fn probe(program: &Program) -> Finding {
    const NAME: &str = "network";
    let found = program.find().and_then(|path| {
        if userns::needed() {
            let tun = std::fs::File::options().read(true).write(true).open(namespace::TUN);
            tun.map_err(|source| Unavailable::Tun { source })?;
        } else if let Err(error) = PrivateNetwork::new(program.clone()).wait_until_ready() {
            return Ok((path, Some(error)));
        }
        Ok((path, None))
    });
    let lost = |error: &Unavailable| Finding {
        name: NAME,
        condition: Condition::Degraded,
        detail: format!("steps use the host's network, because {error}"),
        remedy: Some(remedy(error).to_owned()),
    };
    match found {
        Ok((path, None)) => Finding {
            name: NAME,
            condition: Condition::Fine,
            detail: format!("private, through {}", path.display()),
            remedy: None,
        },
        Ok((_, Some(error))) => lost(&error),
        Err(error) => lost(&error),
    }
}

fn remedy(error: &Unavailable) -> &'static str {
    match error {
        Unavailable::Off => "unset STRATA_PASTA, and take pasta = \"off\" out of the configuration file",
        Unavailable::Missing { .. } => "apt-get install passt (Fedora: dnf install passt)",
        Unavailable::Tun { .. } => "modprobe tun; chmod 666 /dev/net/tun",
        Unavailable::NoRoute => "ip route add default via GATEWAY",
        Unavailable::Setup { .. } => "Linux with network namespaces, veth and tun, and a writable /proc/sys/net",
        Unavailable::Failed { .. } => "a newer passt, or STRATA_PASTA=off to do without knowingly",
    }
}
