//! The user's terminal, lent to a sandboxed process.
//!
//! The process gets a terminal of the sandbox's own `/dev/pts`, never the user's: what is typed is carried in, what is
//! written is carried out, and the size follows. Meanwhile the user's terminal is raw, so that every key, Ctrl-C
//! included, is the process's. It is put back on every way out: when the run ends, when a panic passes, and, by
//! [`restore`], when a signal is about to end the program.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, Termios, isatty, tcgetattr, tcgetwinsize, tcsetattr, tcsetwinsize};

use super::Error;

/// What the user's terminal was like before it became raw, while it is.
static BEFORE: Mutex<Option<(OwnedFd, Termios)>> = Mutex::new(None);

/// The terminal on standard input and output.
#[derive(Debug)]
pub struct Terminal {
    input: OwnedFd,
    output: OwnedFd,
}

impl Terminal {
    /// The terminal, if standard input and output are one.
    ///
    /// # Errors
    /// [`Error::NoTerminal`] if one of them is something else.
    pub fn of_this_process() -> Result<Self, Error> {
        let (stdin, stdout) = (io::stdin(), io::stdout());
        for (name, is_terminal) in [("input", isatty(&stdin)), ("output", isatty(&stdout))] {
            if !is_terminal {
                return Err(Error::NoTerminal { stream: name });
            }
        }
        let duplicate = |result: io::Result<OwnedFd>| result.map_err(|source| failed("use", source));
        Ok(Self {
            input: duplicate(stdin.as_fd().try_clone_to_owned())?,
            output: duplicate(stdout.as_fd().try_clone_to_owned())?,
        })
    }
}

/// Puts the user's terminal back as it was, if it is raw. For those who end the program without returning.
pub fn restore() {
    if let Some((terminal, before)) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // A terminal that went away needs no care.
        let _ = tcsetattr(&terminal, OptionalActions::Drain, &before);
    }
}

/// A terminal of a sandbox.
#[derive(Debug)]
pub(super) struct Pty {
    master: OwnedFd,
    /// The end for the process; taken by the set-up.
    pub slave: OwnedFd,
}

impl Pty {
    /// Makes one in a `devpts` that need not be attached anywhere yet.
    pub(super) fn new(devpts: &OwnedFd) -> Result<Self, Error> {
        let make = || -> io::Result<Self> {
            let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
            let master = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty())?;
            rustix::pty::unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            Ok(Self { slave: rustix::pty::ioctl_tiocgptpeer(&master, flags)?, master })
        };
        make().map_err(|source| failed("make", source))
    }

    /// The end that stays here.
    pub(super) fn into_master(self) -> OwnedFd {
        self.master
    }
}

/// Makes the user's terminal raw for as long as it lives.
struct Raw;

impl Raw {
    fn new(terminal: &Terminal) -> io::Result<Self> {
        let before = tcgetattr(&terminal.input)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some((terminal.input.try_clone()?, before));
        // From here on the guard puts it back.
        let guard = Self;
        tcsetattr(&terminal.input, OptionalActions::Now, &raw)?;
        Ok(guard)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

/// Tells when the user's terminal changes its size.
struct Resizes {
    reader: UnixStream,
    signal: signal_hook::SigId,
}

impl Resizes {
    fn new() -> io::Result<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let signal = signal_hook::low_level::pipe::register(signal_hook::consts::SIGWINCH, writer)?;
        Ok(Self { reader, signal })
    }

    fn forget(&self) {
        let mut bytes = [0; 64];
        while io::Read::read(&mut &self.reader, &mut bytes).is_ok_and(|count| count == bytes.len()) {}
    }
}

impl Drop for Resizes {
    fn drop(&mut self) {
        signal_hook::low_level::unregister(self.signal);
    }
}

/// Carries bytes between the user's terminal and the sandbox's until the first process has ended.
pub(super) fn relay(terminal: &Terminal, master: &OwnedFd, pidfd: &OwnedFd) -> Result<(), Error> {
    let carry = || -> io::Result<()> {
        let resizes = Resizes::new()?;
        let _raw = Raw::new(terminal)?;
        resize(terminal, master);
        let mut relay = Relay { terminal, master, typed: Vec::new(), input_open: true };
        while relay.turn(pidfd, &resizes)? {}
        Ok(())
    };
    carry().map_err(|source| failed("serve", source))
}

/// The size of one terminal becomes that of the other, whose processes are told by the kernel.
fn resize(terminal: &Terminal, master: &OwnedFd) {
    // A terminal without a size has none to pass on.
    if let Ok(size) = tcgetwinsize(&terminal.input) {
        let _ = tcsetwinsize(master, size);
    }
}

struct Relay<'a> {
    terminal: &'a Terminal,
    master: &'a OwnedFd,
    /// Typed and not taken yet.
    typed: Vec<u8>,
    input_open: bool,
}

impl Relay<'_> {
    /// Waits for something to do and does it; whether there will be more.
    fn turn(&mut self, pidfd: &OwnedFd, resizes: &Resizes) -> io::Result<bool> {
        let reads = self.input_open && self.typed.is_empty();
        let none = PollFlags::empty();
        let mut polled = [
            PollFd::new(pidfd, PollFlags::IN),
            PollFd::new(&resizes.reader, PollFlags::IN),
            PollFd::new(
                self.master,
                if self.typed.is_empty() { PollFlags::IN } else { PollFlags::IN | PollFlags::OUT },
            ),
            PollFd::new(&self.terminal.input, if reads { PollFlags::IN } else { none }),
        ];
        // One that is not read any more must not wake us either.
        let count = if reads { 4 } else { 3 };
        match poll(polled.get_mut(..count).unwrap_or_default(), None) {
            Err(Errno::INTR) => return Ok(true),
            result => result?,
        };
        let [ended, resized, _, typed] = polled.map(|polled| !polled.revents().is_empty());
        if resized {
            resizes.forget();
            resize(self.terminal, self.master);
        }
        if reads && typed {
            self.read_input()?;
        }
        self.write_typed()?;
        let hung_up = self.copy_output()?;
        if hung_up && !ended {
            // Nobody has the terminal any more: only the end is left to wait for.
            let mut polled = [PollFd::new(pidfd, PollFlags::IN)];
            rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
            return Ok(false);
        }
        Ok(!ended)
    }

    fn read_input(&mut self) -> io::Result<()> {
        let mut buffer = [0; 4096];
        match rustix::io::read(&self.terminal.input, &mut buffer) {
            Ok(0) | Err(Errno::IO) => self.input_open = false,
            Ok(count) => self.typed.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            Err(Errno::INTR | Errno::AGAIN) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    fn write_typed(&mut self) -> io::Result<()> {
        while !self.typed.is_empty() {
            match rustix::io::write(self.master, &self.typed) {
                Ok(count) => drop(self.typed.drain(..count)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                // Nobody is left to read it.
                Err(Errno::IO) => self.typed.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Shows what was written so far; whether the last process has let go of the terminal.
    fn copy_output(&self) -> io::Result<bool> {
        let mut buffer = vec![0; 65536];
        // A program that never stops writing must not keep what is typed from it.
        for _ in 0..16 {
            match rustix::io::read(self.master, &mut *buffer) {
                Ok(0) | Err(Errno::IO) => return Ok(true),
                Ok(count) => self.show(buffer.get(..count).unwrap_or_default())?,
                Err(Errno::AGAIN) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    fn show(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match rustix::io::write(&self.terminal.output, bytes) {
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                // Somebody else made the user's terminal non-blocking.
                Err(Errno::AGAIN) => {
                    let mut polled = [PollFd::new(&self.terminal.output, PollFlags::OUT)];
                    rustix::io::retry_on_intr(|| poll(&mut polled, None))?;
                }
                // The user's terminal is gone; the signal that says so is on its way.
                Err(Errno::IO) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

fn failed(action: &'static str, source: io::Error) -> Error {
    Error::Terminal { action, source }
}
