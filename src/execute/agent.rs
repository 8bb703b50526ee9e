//! SSH agents of the command line, and a socket of a step's own for each one it mounts.
//!
//! Takes `--ssh` as typed; gives a step a fresh socket with the owner and mode that it asked for, and passes on every
//! byte between it and the agent for as long as the step runs. The step never gets the agent's own socket. Keys given
//! by path are refused by name: an agent holds them better.

use std::collections::BTreeMap;
use std::io;
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use crate::graph::Access;

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

/// The agents given on the command line: the sockets by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agents(BTreeMap<String, PathBuf>);

impl Agents {
    /// Reads every `--ssh`: `NAME` alone is the agent of `SSH_AUTH_SOCK`, `NAME=SOCKET` the one that listens there.
    ///
    /// # Errors
    /// [`Error::Spec`]
    pub fn parse(specs: &[String]) -> Result<Self, Error> {
        let mut agents = BTreeMap::new();
        for spec in specs {
            let wrong = |problem: String| Error::Spec { spec: spec.clone(), problem };
            let (id, path) = match spec.split_once('=') {
                Some((id, path)) if !path.is_empty() => (id, PathBuf::from(path)),
                Some((id, _)) => (id, own_agent().ok_or_else(|| wrong(NO_AGENT.to_owned()))?),
                None => (spec.as_str(), own_agent().ok_or_else(|| wrong(NO_AGENT.to_owned()))?),
            };
            if id.is_empty() {
                return Err(wrong("it has no name; expected default or NAME=SOCKET".to_owned()));
            }
            match std::fs::metadata(&path) {
                Ok(found) if found.file_type().is_socket() => {}
                Ok(_) => {
                    let path = path.display();
                    return Err(wrong(format!(
                        "keys given by path are not supported yet: load {path} into an agent with ssh-add"
                    )));
                }
                Err(error) => return Err(wrong(format!("{}: {error}", path.display()))),
            }
            agents.insert(id.to_owned(), path);
        }
        Ok(Self(agents))
    }

    /// The socket of an agent.
    pub(super) fn get(&self, id: &str) -> Option<&Path> {
        self.0.get(id).map(PathBuf::as_path)
    }
}

const NO_AGENT: &str = "SSH_AUTH_SOCK is not set: start an agent, or name its socket";

fn own_agent() -> Option<PathBuf> {
    std::env::var_os("SSH_AUTH_SOCK").filter(|path| !path.is_empty()).map(PathBuf::from)
}

/// A socket whose connections are passed on to an agent until this is dropped.
#[derive(Debug)]
pub(super) struct Forwarding {
    /// Where the socket is.
    pub path: PathBuf,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Forwarding {
    /// Makes the socket `name` in `directory` and begins to listen.
    pub(super) fn start(agent: &Path, directory: &Path, name: &str, access: Access) -> io::Result<Self> {
        // A socket's address is short; a descriptor makes any directory's path short enough.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))?;
        let path = directory.join(name);
        rustix::fs::chmod(&path, Mode::from_raw_mode(access.mode & 0o7777))?;
        rustix::fs::chown(&path, Some(Uid::from_raw(access.uid)), Some(Gid::from_raw(access.gid)))?;
        let (accepting, agent) = (listener.try_clone()?, agent.to_owned());
        let thread = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(move || {
            // Ends with the error that the shutdown of the socket brings about.
            while let Ok((step, _)) = accepting.accept() {
                // An agent that is gone shows to the step as a connection that ends at once.
                if let Ok(agent) = UnixStream::connect(&agent) {
                    pass_on(step, agent);
                }
            }
        })?;
        Ok(Self { path, listener, thread: Some(thread) })
    }
}

impl Drop for Forwarding {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Copies both ways until both sides have ended. The step's side ends with the step at the latest.
fn pass_on(step: UnixStream, agent: UnixStream) {
    let (Ok(step_too), Ok(agent_too)) = (step.try_clone(), agent.try_clone()) else { return };
    for (mut from, mut to) in [(step, agent_too), (agent, step_too)] {
        // Without a thread the connection ends, since its streams are dropped.
        let _ = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(move || {
            let _ = io::copy(&mut from, &mut to);
            let _ = to.shutdown(Shutdown::Write);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn bytes_are_passed_on_both_ways() {
        let directory = tempfile::tempdir().unwrap();
        let agent_path = directory.path().join("agent");
        let agent = UnixListener::bind(&agent_path).unwrap();
        let deep = directory.path().join("x".repeat(150));
        std::fs::create_dir(&deep).unwrap();
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let forwarding = Forwarding::start(&agent_path, &deep, "s", Access { mode: 0o600, uid, gid }).unwrap();
        let opened = std::fs::File::open(&deep).unwrap();
        for round in 0..3_u8 {
            let mut step = UnixStream::connect(format!("/proc/self/fd/{}/s", opened.as_raw_fd())).unwrap();
            step.write_all(&[round]).unwrap();
            step.shutdown(Shutdown::Write).unwrap();
            let (mut accepted, _) = agent.accept().unwrap();
            let mut heard = Vec::new();
            accepted.read_to_end(&mut heard).unwrap();
            accepted.write_all(&[heard[0] + 1]).unwrap();
            drop(accepted);
            let mut answer = Vec::new();
            step.read_to_end(&mut answer).unwrap();
            assert_eq!(answer, [round + 1]);
        }
        drop(forwarding);
    }

    #[test]
    fn keys_and_what_is_missing_are_named() {
        let key = tempfile::NamedTempFile::new().unwrap();
        for (spec, part) in [
            (format!("default={}", key.path().display()), "keys given by path"),
            ("default=/no/such/socket".to_owned(), "/no/such/socket"),
            ("=/x".to_owned(), "no name"),
        ] {
            let error = Agents::parse(std::slice::from_ref(&spec)).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
