//! The process of `pasta`, which carries what steps send to the host's sockets and back.
//!
//! Takes the program, the namespaces and whether names are to be forwarded; gives a process to kill. `pasta` runs with
//! rights in nothing but the namespaces it serves, forwards no port, and does not map any address to the host's
//! loopback. It is in a pid namespace of its own whose first process dies with this one: however a build ends, so does
//! its `pasta`.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{DumpableBehavior, Signal, WaitOptions};
use rustix::thread::{Gid, LinkNameSpaceType, Uid, move_into_link_name_space};

use super::namespace::{GATEWAY_V4, GATEWAY_V6, MTU, RESOLVER, STEP_V4, STEP_V6, TAP, Wired};
use super::{Families, Unavailable};
use crate::runtime::sys::{self, CommandLine, EndSignal, Namespaces, SignalsBlocked, Strings};

/// A `pasta` that was started.
#[derive(Debug)]
pub(super) struct Pasta {
    /// The first process of its pid namespace.
    pub process: Arc<OwnedFd>,
    /// What it says until it is ready.
    said: OwnedFd,
    /// One byte, when it is ready or has given up.
    report: OwnedFd,
}

impl Pasta {
    /// Starts it. The thread that calls this must live as long as it is to run.
    pub(super) fn start(
        program: &Path,
        wired: &Wired,
        families: Families,
        forward_names: bool,
    ) -> Result<Self, Unavailable> {
        let failed = |source| Unavailable::Setup { action: "start pasta for", source };
        let path = CString::new(program.as_os_str().as_bytes()).map_err(|error| failed(error.into()))?;
        let arguments = Strings::new(arguments(families, forward_names).map_err(failed)?);
        let environment = Strings::new(Vec::new());
        let start = || -> io::Result<Self> {
            let pipe = || pipe_with(PipeFlags::CLOEXEC);
            let ((said, said_writer), (report, report_writer)) = (pipe()?, pipe()?);
            let command_line = CommandLine::of_this_process();
            let shell = Shell { wired, said: said_writer, report: report_writer, command_line };
            let _blocked = SignalsBlocked::new()?;
            let reader = report.as_raw_fd().unsigned_abs();
            let process = sys::clone3(Namespaces::PID, EndSignal::None, || {
                let become_pasta = || sys::execve(&path, &arguments, &environment);
                shell.run(reader, &become_pasta)
            })?;
            Ok(Self { process: Arc::new(process.pidfd), said, report })
        };
        start().map_err(failed)
    }

    /// Waits until packets flow.
    ///
    /// # Errors
    /// What it said, if it gave up.
    pub(super) fn wait_until_ready(&self) -> Result<(), String> {
        let (mut said, mut status) = (Vec::new(), Vec::new());
        let hear = |pipe: &OwnedFd, most, into: &mut Vec<u8>| -> io::Result<usize> {
            File::from(pipe.try_clone()?).take(most).read_to_end(into)
        };
        let heard = hear(&self.report, 1, &mut status);
        // It may keep this one open in the background: what counts is there by now.
        if rustix::fs::fcntl_setfl(&self.said, OFlags::NONBLOCK).is_ok() {
            let _ = hear(&self.said, 65536, &mut said);
        }
        match (heard, status.as_slice()) {
            (Ok(_), [0]) => Ok(()),
            (Err(error), _) => Err(error.to_string()),
            (Ok(_), status) => {
                let said = String::from_utf8_lossy(&said);
                let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !is_noise(line)).collect();
                Err(match (lines.is_empty(), status) {
                    (false, _) => lines.join("; "),
                    (true, [code, ..]) => format!("it ended with code {code}"),
                    (true, []) => "it ended without a word".to_owned(),
                })
            }
        }
    }
}

/// What older versions say where no system log is.
fn is_noise(line: &str) -> bool {
    line.is_empty() || line.ends_with("to syslog")
}

/// What `pasta` is called with. Every option is known to Debian 12's version (2023) and later ones.
fn arguments(families: Families, forward_names: bool) -> io::Result<Vec<CString>> {
    let (v4, gateway_v4) = (STEP_V4.to_string(), GATEWAY_V4.to_string());
    let (v6, gateway_v6, mtu) = (STEP_V6.to_string(), GATEWAY_V6.to_string(), MTU.to_string());
    let resolver = RESOLVER.to_string();
    // Standard input is the namespace: later versions close every other descriptor before they look.
    let mut words = vec!["pasta", "--quiet", "--netns", "/proc/self/fd/0", "--no-netns-quit", "--ns-ifname", TAP];
    words.extend(["--mtu", &mtu, "--no-map-gw", "--no-dhcp", "--no-dhcpv6", "--no-ra"]);
    words.extend(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
    if families.v4 {
        words.extend(["--address", &v4, "--netmask", "29", "--gateway", &gateway_v4]);
    } else {
        words.push("-6");
    }
    if families.v6 {
        words.extend(["--address", &v6, "--gateway", &gateway_v6]);
    } else {
        words.push("-4");
    }
    if forward_names {
        words.extend(["--dns-forward", &resolver]);
    }
    words.into_iter().map(|word| CString::new(word).map_err(Into::into)).collect()
}

/// What the first process of the pid namespace needs. It allocates nothing.
#[derive(Debug)]
struct Shell<'a> {
    wired: &'a Wired,
    said: OwnedFd,
    report: OwnedFd,
    command_line: Option<CommandLine>,
}

impl Shell<'_> {
    /// Starts `pasta`, tells how that went, and stays until it and all it started have ended.
    fn run(&self, report_reader: u32, become_pasta: &dyn Fn() -> io::Error) -> i32 {
        match self.start(report_reader, become_pasta) {
            Ok(starter) => self.stay(starter),
            Err(_) => 1,
        }
    }

    fn start(&self, report_reader: u32, become_pasta: &dyn Fn() -> io::Error) -> io::Result<rustix::process::Pid> {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
        // The parent may have died just before. Then nobody has the other end of the report any more.
        sys::close_range(report_reader, report_reader)?;
        let mut end = [PollFd::new(&self.report, PollFlags::empty())];
        if poll(&mut end, Some(&rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 }))? != 0 {
            return Err(Errno::PIPE.into());
        }
        // This process has the builder's memory, and `pasta` is in its pid namespace.
        rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
        sys::reset_signal_dispositions();
        if let Some(command_line) = self.command_line {
            command_line.overwrite(c"strata-network");
        }
        rustix::thread::set_name(c"strata-network")?;
        let starter = sys::clone3(Namespaces::NONE, EndSignal::Child, || {
            let error = self.enter().err().unwrap_or_else(become_pasta);
            // The number of the error, as far as a code can hold it; all that matters fit.
            error.raw_os_error().unwrap_or(1)
        })?;
        Ok(starter.pid)
    }

    /// The starter's way into the user namespace, where it owns what it is to serve and nothing else.
    fn enter(&self) -> io::Result<()> {
        // A user namespace with a single id does not let anyone change groups.
        let _ = rustix::thread::set_thread_groups(&[]);
        move_into_link_name_space(self.wired.owner.as_fd(), Some(LinkNameSpaceType::User))?;
        rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
        rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
        rustix::process::chdir(c"/")?;
        sys::duplicate_onto(&self.wired.router, 0)?;
        sys::duplicate_onto(&self.said, 1)?;
        sys::duplicate_onto(&self.said, 2)?;
        sys::close_range(3, u32::MAX)?;
        sys::unblock_signals()
    }

    fn stay(&self, starter: rustix::process::Pid) -> i32 {
        let report = self.report.as_raw_fd().unsigned_abs();
        if report > 0 {
            let _ = sys::close_range(0, report - 1);
        }
        // The kernel refuses this only for arguments that are not in order.
        let _ = sys::close_range(report + 1, u32::MAX);
        loop {
            match rustix::process::wait(WaitOptions::empty()) {
                Ok(Some((pid, status))) if pid == starter => {
                    let code = status.exit_status().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
                    // If nobody listens any more, the end is near.
                    let _ = rustix::io::write(&self.report, &[code]);
                }
                Ok(_) | Err(Errno::INTR) => {}
                // All that it started have ended.
                Err(_) => return 0,
            }
        }
    }
}
