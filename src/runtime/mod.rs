//! Strata's own sandbox: one process tree in a root of its own.
//!
//! Takes a [`Plan`] (an overlay root, files to lay over it, a process, limits), gives an [`Outcome`] and the overlay's
//! upper directory with what the process changed and nothing of what the sandbox itself needed. Never lets the process
//! see or reach more than the plan gives it; knows nothing of recipes, images or caches.

use std::ffi::CString;
use std::path::PathBuf;
use std::time::Duration;

/// The network a process sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// The network of the caller.
    Host,
    /// A namespace with loopback only.
    None,
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
    /// Absolute path inside the root.
    pub target: PathBuf,
    /// What it holds.
    pub content: Vec<u8>,
    /// Its permission bits.
    pub mode: u32,
    /// Whether the process may write to it (into memory; lost afterwards).
    pub writable: bool,
}

/// Everything one run needs to know.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The lower directories, topmost first; may be empty.
    pub lowers: Vec<PathBuf>,
    /// An existing empty directory that receives the changes.
    pub upper: PathBuf,
    /// An existing empty directory on the same file system, for the overlay's own use; and for the mount point.
    pub work: PathBuf,
    /// Whether the overlay keeps its records in `user.overlay.` (as it must in a user namespace) and not in `trusted.overlay.`.
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
    /// The network it sees.
    pub network: Network,
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
}

/// What came of a run.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// How the process ended.
    pub status: Status,
    /// Wall time from the first system call to the last.
    pub elapsed: Duration,
    /// Processor time of the whole process tree.
    pub cpu: Duration,
}
