//! What recipes name by address: files over HTTP, and git repositories.
//!
//! Takes addresses, gives an identity now (a digest, a commit) and the files when asked. What was fetched is kept in the
//! store, so that an unchanged file costs one question without an answer's body, and one with a known checksum none.
//! Shows a host the secret that the command line names for it, and shows it to no other host; never asks a person for any,
//! and never hands on bytes that are not what the recipe says.

mod credential;
pub mod git;
pub mod http;
pub mod kept;
mod settings;
mod tree;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::layer::OverlayXattr;
use crate::progress::Task;
use crate::registry::{self, Client};
use crate::runtime::Cancel;
use crate::secret::{self, Secrets};
use crate::store::{self, Store};

pub use self::git::Commit;
pub use self::http::HttpFile;
pub use self::kept::Kept;
pub use self::tree::{FetchedTree, Joined};

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The host did not give the file.
    #[error(transparent)]
    Http(#[from] registry::Error),
    /// The file is not the one the recipe means.
    #[error("{address} has the digest {actual}, but {expected} is expected")]
    Checksum {
        /// The file's address, without its query.
        address: String,
        /// The digest the recipe gives.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// There is no `git` to run.
    #[error("the program git, which fetches {remote}, is not installed or not in PATH")]
    NoGit {
        /// The repository.
        remote: String,
    },
    /// `git` could not be started or watched.
    #[error("git cannot be run to fetch {remote}: {source}")]
    StartGit {
        /// The repository.
        remote: String,
        /// What the system said.
        source: io::Error,
    },
    /// `git` failed.
    #[error("git could not {action} {remote}: {said}")]
    Git {
        /// What it was to do.
        action: &'static str,
        /// The repository.
        remote: String,
        /// What it said.
        said: String,
        /// Whether it never reached the host.
        unreachable: bool,
    },
    /// The host of a repository wants credentials, or other ones.
    #[error("{remote} refuses access: {advice} (git says: {said})")]
    Refused {
        /// The repository.
        remote: String,
        /// What a person can do.
        advice: String,
        /// What git said.
        said: String,
    },
    /// The host of a repository redirects, and a secret goes nowhere else.
    #[error(
        "{remote} redirects elsewhere, and the secret {id} is for this host alone: give the address it redirects to"
    )]
    Redirected {
        /// The repository.
        remote: String,
        /// The secret.
        id: String,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// A secret cannot be shown to a host.
    #[error("the secret {id} can be no http header: it holds a line end or another character that none may have")]
    NoHeader {
        /// Its id.
        id: String,
    },
    /// The repository has no such ref.
    #[error("{remote} has no branch, tag or ref {reference:?}{}", short_commit_advice(.reference))]
    UnknownRef {
        /// The repository.
        remote: String,
        /// The ref.
        reference: String,
    },
    /// The ref does not lead to the commit the recipe means.
    #[error("{remote} is at commit {actual}, but {expected} is expected")]
    WrongCommit {
        /// The repository.
        remote: String,
        /// What the recipe gives.
        expected: String,
        /// What the ref leads to.
        actual: String,
    },
    /// The repository has no such directory.
    #[error("{remote} has no directory {subdir:?} at commit {commit}")]
    NoSubdir {
        /// The repository.
        remote: String,
        /// The directory.
        subdir: String,
        /// The commit.
        commit: String,
    },
    /// A file that was fetched cannot be read or written.
    #[error("{path} cannot be used: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another failure, or the user, ended the build.
    #[error("the build was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether this machine or its network, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Http(error) => error.is_about_the_network(),
            Self::Git { unreachable, .. } => *unreachable,
            Self::Store(_) | Self::NoGit { .. } | Self::StartGit { .. } | Self::File { .. } => true,
            _ => false,
        }
    }
}

impl Error {
    /// The repository it is about.
    pub fn remote(&self) -> Option<&str> {
        match self {
            Self::NoGit { remote }
            | Self::StartGit { remote, .. }
            | Self::Git { remote, .. }
            | Self::Refused { remote, .. }
            | Self::Redirected { remote, .. }
            | Self::UnknownRef { remote, .. }
            | Self::WrongCommit { remote, .. }
            | Self::NoSubdir { remote, .. } => Some(remote),
            _ => None,
        }
    }

    /// What a person can do about it, where the message does not say so.
    pub fn advice(&self) -> Option<String> {
        Some(match self {
            Self::Http(registry::Error::NotFound { .. }) => {
                "the host answers, so look at the path: a file may have moved to another version's place".to_owned()
            }
            Self::Http(registry::Error::Connect { .. }) => {
                "see whether something listens there, and whether a proxy is needed (https_proxy, no_proxy)".to_owned()
            }
            Self::Checksum { actual, .. } => {
                format!("if the file was meant to change, look at what came and expect {actual}")
            }
            Self::NoGit { .. } => "install git (Debian: apt-get install git)".to_owned(),
            Self::UnknownRef { remote, .. } => format!("git ls-remote {remote} lists what it has"),
            Self::NoSubdir { .. } => "a directory is named from the root of the repository on".to_owned(),
            Self::Git { action: git::SUBMODULES, .. } => {
                "the query ?submodules=false in the address leaves submodules out".to_owned()
            }
            Self::Git { unreachable: true, .. } => {
                "see whether this machine can reach it, and whether a proxy is needed (https_proxy, no_proxy); in the \
                 configuration file, [registry.\"HOST\"] can name a private authority with `ca`"
                    .to_owned()
            }
            _ => return None,
        })
    }
}

/// What to say of a ref that looks like the beginning of a commit's id.
fn short_commit_advice(reference: &str) -> &'static str {
    let is_short = (4..40).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_short { "; a commit has to be named by its whole id" } else { "" }
}

/// Fetches.
#[derive(Debug, Clone, Copy)]
pub struct Fetcher<'a> {
    /// Where what was fetched is kept.
    pub store: &'a Store,
    /// Who talks to hosts.
    pub client: &'a Client,
    /// Ends everything.
    pub cancel: &'a Cancel,
    /// How overlays keep their records here.
    pub xattr: OverlayXattr,
    /// What may authenticate a fetch.
    pub secrets: &'a Secrets,
}

/// Something that an address stood for, and that can be had.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetched {
    /// A file in the store.
    File(HttpFile),
    /// A commit, not fetched yet.
    Commit(Commit),
}

impl Fetched {
    /// Names its files: equal identities are equal files, but for times.
    pub fn identity(&self) -> String {
        match self {
            Self::File(file) => format!("file {} {}", file.name, file.digest),
            Self::Commit(commit) => commit.identity(),
        }
    }
}

impl Fetcher<'_> {
    /// The files of something fetched.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(&self, fetched: &Fetched) -> Result<FetchedTree, Error> {
        match fetched {
            Fetched::File(file) => self.open_file(file),
            Fetched::Commit(commit) => Ok(FetchedTree::Checkout(Box::new(self.checkout(commit)?))),
        }
    }

    fn lock(&self, name: &str, purpose: &str, task: &Task<'_>) -> Result<store::Lock, Error> {
        let mut told = false;
        let waiting = &mut |owner: &store::LockOwner| {
            if !std::mem::replace(&mut told, true) {
                task.waiting(owner.as_reason());
            }
            if self.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Ok(self.store.lock(name, purpose, waiting)?)
    }
}
