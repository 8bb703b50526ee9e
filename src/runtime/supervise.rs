//! The parent's side of a run: from `clone3` to the last byte of output.
//!
//! Takes a [`Setup`], gives how the processes ended. Streams what they write as it arrives, in full, and reaps the
//! first process on every path, panics in the caller's callback included.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::time::Timespec;

use super::cancel::{Cancel, kill};
use super::cgroup::Group;
use super::init::{Setup, first};
use super::report::Report;
use super::sys::{self, EndSignal, Namespaces, SignalsBlocked};
use super::terminal::{self, Pty, Terminal};
use super::{Error, OutputStream};

/// Receives output as it arrives.
pub(super) type Output<'a> = &'a (dyn Fn(OutputStream, &[u8]) + Sync);

/// Where the process's streams lead.
pub(super) enum Way<'a> {
    /// Into pipes, whose content is handed on.
    Output(Output<'a>),
    /// To a terminal of the sandbox's own.
    Terminal {
        /// The user's terminal.
        terminal: &'a Terminal,
        /// The near end of the sandbox's.
        master: OwnedFd,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    /// What the sandbox reported; nothing if it was killed before it could.
    pub report: Option<Report>,
    /// The signal that ended the first process, if one did.
    pub signal: Option<i32>,
    /// Whether it took longer than it may, and was killed for that.
    pub timed_out: bool,
    /// Processor time of all processes.
    pub cpu: Duration,
}

/// The reading ends of a sandbox's pipes.
#[derive(Debug)]
pub(super) struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
}

/// The writing ends.
#[derive(Debug)]
pub(super) struct PipeWriters {
    /// For standard output.
    pub stdout: OwnedFd,
    /// For standard error.
    pub stderr: OwnedFd,
    /// For the report.
    pub report: OwnedFd,
    /// The parent's end of the report, for the child to close.
    pub report_reader: OwnedFd,
}

impl Pipes {
    /// Makes three pipes.
    pub(super) fn new() -> Result<(Self, PipeWriters), Error> {
        let make = || -> io::Result<_> {
            let pipe = || pipe_with(PipeFlags::CLOEXEC);
            let ((stdout, out), (stderr, err), (report, report_writer)) = (pipe()?, pipe()?, pipe()?);
            for reader in [&stdout, &stderr, &report] {
                // This is a flag of the reading end alone: the process sees ordinary pipes.
                rustix::fs::fcntl_setfl(reader, OFlags::NONBLOCK)?;
            }
            let report_reader = rustix::io::fcntl_dupfd_cloexec(&report, 3)?;
            let writers = PipeWriters { stdout: out, stderr: err, report: report_writer, report_reader };
            Ok((Self { stdout, stderr, report }, writers))
        };
        make().map_err(|source| Error::Supervise { action: "make pipes for", source })
    }
}

impl PipeWriters {
    /// The same with a terminal in place of both streams.
    pub(super) fn on_terminal(self, pty: &Pty) -> Result<Self, Error> {
        let copy = || rustix::io::fcntl_dupfd_cloexec(&pty.slave, 3);
        let copies = copy().and_then(|stdout| Ok((stdout, copy()?)));
        let (stdout, stderr) = copies.map_err(|source| Error::Terminal { action: "make", source: source.into() })?;
        Ok(Self { stdout, stderr, ..self })
    }
}

/// Starts the sandbox and stays with it to the end, or until `deadline`.
pub(super) fn run(
    namespaces: Namespaces,
    setup: Setup<'_>,
    pipes: &Pipes,
    way: &Way<'_>,
    cancel: &Cancel,
    deadline: Option<Instant>,
) -> Result<Ended, Error> {
    let child = {
        let _blocked = SignalsBlocked::new().map_err(|source| Error::Start { source })?;
        let group = setup.group.and_then(Group::unified);
        let cloned = sys::clone3_into(namespaces, EndSignal::None, group, || first(&setup));
        Child { pidfd: Arc::new(cloned.map_err(|source| Error::Start { source })?.pidfd), reaped: false }
    };
    // The writing ends are in there: without this the pipes would never end.
    drop(setup);
    let registration = cancel.register(Arc::clone(&child.pidfd));
    let timed_out = match way {
        Way::Output(output) => stream(pipes, &child.pidfd, *output, deadline)?,
        Way::Terminal { terminal, master } => {
            terminal::relay(terminal, master, &child.pidfd)?;
            false
        }
    };
    drop(registration);
    let ended = child.reap()?;
    Ok(Ended { report: Report::receive(&pipes.report), signal: ended.signal, timed_out, cpu: ended.cpu })
}

/// Hands on output until the first process has ended, and with it all others, and what they left in the pipes. At the
/// deadline it kills that process; whether it did.
fn stream(pipes: &Pipes, pidfd: &OwnedFd, output: Output<'_>, deadline: Option<Instant>) -> Result<bool, Error> {
    let mut buffer = vec![0_u8; 65536];
    let mut open = [Some((OutputStream::Stdout, &pipes.stdout)), Some((OutputStream::Stderr, &pipes.stderr))];
    let mut running = true;
    let mut deadline = deadline;
    let mut timed_out = false;
    while running {
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            kill(pidfd);
            (deadline, timed_out) = (None, true);
        }
        let mut polled = vec![PollFd::new(pidfd, PollFlags::IN)];
        polled.extend(open.iter().flatten().map(|(_, pipe)| PollFd::new(*pipe, PollFlags::IN)));
        match poll(&mut polled, deadline.map(until).as_ref()) {
            Err(Errno::INTR) => continue,
            result => result.map_err(|source| supervise("wait for", source.into()))?,
        };
        // Looked at before the pipes are read: what is in them once nobody is left to write is all there will be.
        running = polled.first().is_some_and(|first| first.revents().is_empty());
        for slot in &mut open {
            if let Some((stream, pipe)) = *slot
                && drain(pipe, stream, &mut buffer, output)?
            {
                *slot = None;
            }
        }
    }
    Ok(timed_out)
}

/// How long it is until then; a moment more, so that it has come when the wait is over.
fn until(deadline: Instant) -> Timespec {
    let wait = deadline.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
    // The longest wait is nothing that anybody lives to see, and the loop would wait again.
    Timespec { tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX >> 1), tv_nsec: wait.subsec_nanos().into() }
}

/// Reads all that is in the pipe now; whether its end was reached.
fn drain(pipe: &OwnedFd, stream: OutputStream, buffer: &mut [u8], output: Output<'_>) -> Result<bool, Error> {
    loop {
        match rustix::io::read(pipe, &mut *buffer) {
            Ok(0) => return Ok(true),
            Ok(length) => output(stream, buffer.get(..length).unwrap_or_default()),
            Err(Errno::AGAIN) => return Ok(false),
            Err(Errno::INTR) => {}
            Err(source) => return Err(supervise("read the output of", source.into())),
        }
    }
}

fn supervise(action: &'static str, source: io::Error) -> Error {
    Error::Supervise { action, source }
}

/// The first process of a sandbox. Killed and reaped when dropped.
#[derive(Debug)]
struct Child {
    pidfd: Arc<OwnedFd>,
    reaped: bool,
}

impl Child {
    fn reap(mut self) -> Result<sys::Ended, Error> {
        self.reaped = true;
        sys::wait(&*self.pidfd).map_err(|source| supervise("wait for", source))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.reaped {
            kill(&self.pidfd);
            // On this path another error or a panic is on its way already.
            let _ = sys::wait(&*self.pidfd);
        }
    }
}
