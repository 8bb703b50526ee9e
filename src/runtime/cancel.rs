//! Ending runs from outside.
//!
//! A [`Cancel`] is handed to any number of runs; [`Cancel::cancel`] kills the first process of each, and with it, by
//! the rules of pid namespaces, every other. It is never un-cancelled, and never waits for a process to be gone: the
//! run does.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::process::{Signal, pidfd_send_signal};

/// A handle that ends every run it was given to. Clones are the same handle.
#[derive(Debug, Clone, Default)]
pub struct Cancel {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    cancelled: bool,
    running: Vec<Arc<OwnedFd>>,
}

impl Cancel {
    /// A handle that nothing has cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Kills all processes of the runs under way, and keeps further ones from starting.
    ///
    /// Returns at once; each run returns [`Status::Cancelled`](super::Status::Cancelled) when its processes are gone.
    pub fn cancel(&self) {
        let mut state = self.lock();
        state.cancelled = true;
        state.running.iter().for_each(|pidfd| kill(pidfd));
    }

    /// Whether [`Cancel::cancel`] was called.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.lock().cancelled
    }

    /// Puts the process behind `pidfd` within reach of [`Cancel::cancel`] for as long as the result lives.
    pub(super) fn register(&self, pidfd: Arc<OwnedFd>) -> Registration {
        let mut state = self.lock();
        if state.cancelled {
            kill(&pidfd);
        }
        state.running.push(Arc::clone(&pidfd));
        Registration { cancel: self.clone(), pidfd }
    }

    /// The state, whether or not a thread panicked with it in hand: every change to it is a single step.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends `SIGKILL`. The only error left is that the process has ended already, which is what was wanted.
pub(super) fn kill(pidfd: &OwnedFd) {
    let _ = pidfd_send_signal(pidfd, Signal::KILL);
}

/// A process within reach of a [`Cancel`].
#[derive(Debug)]
pub(super) struct Registration {
    cancel: Cancel,
    pidfd: Arc<OwnedFd>,
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.cancel.lock().running.retain(|other| !Arc::ptr_eq(other, &self.pidfd));
    }
}
