//! A socket of a step's own, and what answers on it.
//!
//! Takes an agent; gives a socket with the owner and mode that the step asked for. Requests that are allowed go to the
//! agent, all others are refused on the spot, for as long as the step runs. The step never gets the agent's own socket.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use rustix::fs::{Gid, Mode, OFlags, Uid};

use super::keyring::{Keyring, is_allowed, read_message, refusal, write_message};
use crate::graph::Access;

/// What answers.
#[derive(Debug, Clone)]
pub(in crate::execute) enum Agent {
    /// An agent of the user's, by its socket.
    Socket(PathBuf),
    /// Keys that were given by path.
    Keys(Arc<Keyring>),
}

/// A socket that is answered until this is dropped.
#[derive(Debug)]
pub(in crate::execute) struct Forwarding {
    /// Where the socket is.
    pub path: PathBuf,
    listener: UnixListener,
    thread: Option<JoinHandle<()>>,
}

impl Forwarding {
    /// Makes the socket `name` in `directory` and begins to listen.
    pub(in crate::execute) fn start(agent: &Agent, directory: &Path, name: &str, access: Access) -> io::Result<Self> {
        // A socket's address is short; a descriptor makes any directory's path short enough.
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(directory, flags, Mode::empty())?;
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))?;
        let path = directory.join(name);
        rustix::fs::chmod(&path, Mode::from_raw_mode(access.mode & 0o7777))?;
        rustix::fs::chown(&path, Some(Uid::from_raw(access.uid)), Some(Gid::from_raw(access.gid)))?;
        let (accepting, agent) = (listener.try_clone()?, agent.clone());
        let thread = named_thread(move || {
            // Ends with the error that the shutdown of the socket brings about.
            while let Ok((step, _)) = accepting.accept() {
                let agent = agent.clone();
                // Without a thread, and whenever something goes wrong, the step sees a connection that ends.
                let _ = named_thread(move || {
                    let _ = serve(step, &agent);
                });
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

fn named_thread(body: impl FnOnce() + Send + 'static) -> io::Result<JoinHandle<()>> {
    std::thread::Builder::new().name("ssh agent".to_owned()).spawn(body)
}

/// Answers one connection until the step closes it, with the step at the latest.
fn serve(mut step: UnixStream, agent: &Agent) -> io::Result<()> {
    let mut upstream = match agent {
        Agent::Socket(path) => Some(UnixStream::connect(path)?),
        Agent::Keys(_) => None,
    };
    while let Some(request) = read_message(&mut step)? {
        let answer = match (agent, &mut upstream) {
            _ if !is_allowed(&request) => refusal(),
            (Agent::Keys(keys), _) => keys.answer(&request),
            (Agent::Socket(_), Some(agent)) => {
                write_message(agent, &request)?;
                read_message(agent)?.ok_or(io::ErrorKind::UnexpectedEof)?
            }
            (Agent::Socket(_), None) => refusal(),
        };
        write_message(&mut step, &answer)?;
    }
    Ok(())
}
