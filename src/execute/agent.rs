//! SSH agents of the command line, and a socket of a step's own for each one it mounts.
//!
//! Takes `--ssh` as typed: sockets of agents, and private keys by path, which an agent of our own then holds in memory.
//! Steps may list keys and have something signed, and nothing else; no key itself ever leaves this process.

mod forwarding;
mod key;
mod keyring;
mod wire;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use self::key::Key;
use self::keyring::Keyring;

pub(super) use self::forwarding::{Agent, Forwarding};
pub use self::key::Error as KeyError;

/// More of a key's file is not read, as in BuildKit.
const LARGEST_KEY: u64 = 100 * 1024;

/// The name of an agent for which none is given.
const DEFAULT: &str = "default";

/// Why an agent cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `--ssh` is not as it should be.
    #[error("--ssh {spec:?}: {problem}")]
    Spec {
        /// As typed.
        spec: String,
        /// What is wrong.
        problem: String,
    },
    /// A socket or a key cannot be read.
    #[error("--ssh {spec:?}: {} cannot be read", path.display())]
    Read {
        /// As typed.
        spec: String,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file is no key that can be used.
    #[error("--ssh {spec:?}: {} cannot be used", path.display())]
    Key {
        /// As typed.
        spec: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: KeyError,
    },
    /// A step needs one that was not given.
    #[error("the SSH agent {id} is required and was not given: add --ssh {id}")]
    Missing {
        /// Its name.
        id: String,
    },
    /// Its socket for the step cannot be made.
    #[error("the socket for the SSH agent {id} cannot be made")]
    Socket {
        /// The agent's name.
        id: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

/// The agents given on the command line, by their names.
#[derive(Debug, Clone, Default)]
pub struct Agents(BTreeMap<String, Agent>);

impl Agents {
    /// Reads every `--ssh` as `docker buildx build` does: `NAME` alone is the agent of `SSH_AUTH_SOCK`, `NAME=SOCKET`
    /// the one that listens there, `NAME=KEY,KEY…` one that holds these keys. No name means `default`.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Read`] or [`Error::Key`].
    pub fn parse(specs: &[String]) -> Result<Self, Error> {
        let own = std::env::var_os("SSH_AUTH_SOCK").map(PathBuf::from);
        Self::parse_with(specs, own.as_deref())
    }

    fn parse_with(specs: &[String], own: Option<&Path>) -> Result<Self, Error> {
        let mut agents = BTreeMap::new();
        for spec in specs {
            let (id, agent) = parse(spec, own)?;
            if agents.insert(id.clone(), agent).is_some() {
                return Err(Error::Spec { spec: spec.clone(), problem: format!("the name {id} is given already") });
            }
        }
        Ok(Self(agents))
    }

    /// The agent of this name.
    pub(super) fn get(&self, id: &str) -> Option<&Agent> {
        self.0.get(id)
    }
}

fn parse(spec: &str, own: Option<&Path>) -> Result<(String, Agent), Error> {
    let wrong = |problem: &str| Error::Spec { spec: spec.to_owned(), problem: problem.to_owned() };
    let (id, paths) = spec.split_once('=').unwrap_or((spec, ""));
    let id = if id.is_empty() { DEFAULT } else { id };
    let paths: Vec<PathBuf> = match own.filter(|own| !own.as_os_str().is_empty()) {
        _ if !paths.is_empty() => paths.split(',').map(PathBuf::from).collect(),
        Some(own) => vec![own.to_owned()],
        None => return Err(wrong("SSH_AUTH_SOCK is not set: start an agent, or name its socket or a key")),
    };
    let (mut socket, mut keys) = (None, Keyring::default());
    for path in &paths {
        match opened(spec, path)? {
            None => socket = Some(path.clone()),
            Some(key) => keys.add(key),
        }
    }
    let agent = match socket {
        Some(_) if paths.len() > 1 => return Err(wrong("a socket stands alone: one of an agent, or keys")),
        Some(path) => Agent::Socket(path),
        None => Agent::Keys(Arc::new(keys)),
    };
    Ok((id.to_owned(), agent))
}

/// The key in a file; `None` if it is a socket.
fn opened(spec: &str, path: &Path) -> Result<Option<Key>, Error> {
    let failed = |source| Error::Read { spec: spec.to_owned(), path: path.to_owned(), source };
    if std::fs::metadata(path).map_err(failed)?.file_type().is_socket() {
        return Ok(None);
    }
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST_KEY).read_to_end(&mut content)).map_err(failed)?;
    let key = Key::read(&content);
    Ok(Some(key.map_err(|source| Error::Key { spec: spec.to_owned(), path: path.to_owned(), source })?))
}

#[cfg(test)]
mod tests;
