//! The system calls that `rustix` does not have, each behind a function that is safe to call.
//!
//! Takes plain numbers, descriptors and C strings, gives `io::Result`s. Nothing here allocates or takes a lock on its
//! successful path, because most of it runs between `clone3` and `execve` in a copy of a process that had other
//! threads. This is the one file of the crate that may use `unsafe`; it decides nothing.
#![expect(unsafe_code, reason = "raw system calls that no safe crate offers; kept in this one file")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::mount::MountAttrFlags;
use rustix::process::Pid;

use super::seccomp::bpf::Instruction;

/// The process that [`clone3`] made.
#[derive(Debug)]
pub(super) struct Cloned {
    /// Its id in the caller's pid namespace.
    pub pid: Pid,
    /// A descriptor that stands for it: signals and waits through it can never hit another process.
    pub pidfd: OwnedFd,
}

/// Namespaces of a new process, as `CLONE_NEW…` bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Namespaces(u64);

impl Namespaces {
    /// Shares all namespaces with the caller.
    pub(super) const NONE: Self = Self(0);
    /// A user namespace.
    pub(super) const USER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// A mount namespace.
    pub(super) const MOUNT: Self = Self(libc::CLONE_NEWNS as u64);
    /// A pid namespace.
    pub(super) const PID: Self = Self(libc::CLONE_NEWPID as u64);
    /// System V and POSIX message-queue namespace.
    pub(super) const IPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// A host-name namespace.
    pub(super) const UTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// A cgroup namespace.
    pub(super) const CGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);
    /// A network namespace.
    pub(super) const NETWORK: Self = Self(libc::CLONE_NEWNET as u64);

    /// What is in this set and not in the other.
    pub(super) const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Both sets together.
    pub(super) const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What the parent hears when a process made by [`clone3`] ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EndSignal {
    /// Nothing: only a wait through the pid descriptor sees it. Other code's `waitpid(-1)` cannot take its status.
    None,
    /// `SIGCHLD`, as for any child.
    Child,
}

/// Starts a process that runs `child` in a copy of the caller's memory and then ends with the code it returns.
///
/// In a process with several threads `child` must not allocate, take a lock or panic. Should it panic nevertheless, the
/// new process ends with code 255 and never returns into the caller's code.
pub(super) fn clone3(namespaces: Namespaces, end: EndSignal, child: impl FnOnce() -> i32) -> io::Result<Cloned> {
    clone3_into(namespaces, end, None, child)
}

/// Does what [`clone3`] does, and has the process start in a control group (its directory in version 2).
pub(super) fn clone3_into(
    namespaces: Namespaces,
    end: EndSignal,
    group: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> io::Result<Cloned> {
    /// `CLONE_INTO_CGROUP`, which not every C library declares as a number of this width.
    const INTO_CGROUP: u64 = 1 << 33;
    let mut pidfd: RawFd = -1;
    let args = libc::clone_args {
        flags: namespaces.0 | libc::CLONE_PIDFD as u64 | if group.is_some() { INTO_CGROUP } else { 0 },
        pidfd: (&raw mut pidfd).addr() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: match end {
            EndSignal::None => 0,
            EndSignal::Child => libc::SIGCHLD as u64,
        },
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: group.map_or(0, |group| u64::from(group.as_raw_fd().unsigned_abs())),
    };
    // SAFETY: `args` is a whole `clone_args` of the size given, `pidfd` outlives the call, and no flag shares memory or
    // the stack, so the child runs on its own copy of both.
    let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    match result {
        0 => {
            let _guard = ExitOnUnwind;
            exit(child())
        }
        pid => match i32::try_from(pid).ok().and_then(Pid::from_raw) {
            Some(pid) if pid.as_raw_pid() > 0 => {
                // SAFETY: the kernel has just stored a new descriptor there that nobody else knows.
                Ok(Cloned { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
            }
            _ => Err(io::Error::last_os_error()),
        },
    }
}

/// Runs `child` in a copy of the process that has only the calling thread, by way of the C library, so that it may
/// allocate and start threads; gives the wait status. For tests, whose harness always has a second thread.
#[cfg(test)]
pub(super) fn fork_and_wait(child: impl FnOnce() -> i32) -> i32 {
    // SAFETY: `fork` prepares the C library for going on in the child; the other threads of the harness only wait.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let _guard = ExitOnUnwind;
        exit(child())
    }
    let mut status = -1;
    // SAFETY: the pointer is to an integer that outlives the call.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    status
}

/// Ends the process instead of letting a panic unwind into code that belongs to the parent.
struct ExitOnUnwind;

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        exit(255);
    }
}

/// Ends the calling process at once: no destructors, no exit handlers, no flushing of the parent's buffers.
pub(super) fn exit(code: i32) -> ! {
    // SAFETY: `_exit` takes any code and does not return.
    unsafe { libc::_exit(code) }
}

/// Leaves the namespaces given for new ones.
pub(super) fn unshare(namespaces: Namespaces) -> io::Result<()> {
    // SAFETY: `unshare` with namespace bits touches no memory of the caller. (No CLONE_FILES: descriptors stay shared.)
    check(unsafe { libc::syscall(libc::SYS_unshare, namespaces.0) })
}

/// Replaces the program of the calling process; returns only when that failed.
pub(super) fn execve(program: &CStr, arguments: &Strings, environment: &Strings) -> io::Error {
    // SAFETY: the path is a C string, both arrays are null-terminated arrays of C strings that `Strings` keeps alive.
    unsafe { libc::execve(program.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    io::Error::last_os_error()
}

/// C strings and the null-terminated array of pointers to them that `execve` wants, made before the process is cloned.
#[derive(Debug)]
pub(super) struct Strings {
    /// What the pointers point to. Never changed: moving a `CString` leaves its bytes where they are.
    _owner: Vec<CString>,
    pointers: Vec<*const libc::c_char>,
}

impl Strings {
    /// Takes the strings in order.
    pub(super) fn new(strings: Vec<CString>) -> Self {
        let pointers = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { _owner: strings, pointers }
    }
}

/// Installs a filter of system calls for the calling thread and everything it starts.
///
/// Needs `CAP_SYS_ADMIN` in the user namespace, and therefore no `no_new_privs`.
pub(super) fn seccomp(program: &[Instruction]) -> io::Result<()> {
    const SET_MODE_FILTER: libc::c_ulong = 1;
    const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
    let len = u16::try_from(program.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `filter` describes `len` instructions laid out like `sock_filter`, which the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, 0_u32, &raw const filter) })
}

/// The oldest version of Landlock that can allow files to be renamed, of Linux 5.19.
pub(super) const OLDEST_LANDLOCK: i64 = 2;

/// Which version of Landlock the kernel has. `ENOSYS` where it has none, `EOPNOTSUPP` where it is turned off.
pub(super) fn landlock_version() -> io::Result<i64> {
    const VERSION: u32 = 1;
    let nothing = std::ptr::null::<u64>();
    // SAFETY: the question for the version takes no attributes.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, nothing, 0_usize, VERSION) };
    check(version).map(|()| version)
}

/// Lets the calling thread and everything it starts execute only files in the directory given and below, whatever
/// mounts are there; renaming and linking across directories stays allowed there. Keeps them, where the kernel can (since
/// Linux 6.12), from abstract sockets of others, which a shared network namespace has in common.
///
/// `ENOSYS` or `EOPNOTSUPP` where the kernel has no Landlock, or one that could not allow the renaming (before Linux
/// 5.19). Needs `CAP_SYS_ADMIN` in the user namespace.
pub(super) fn restrict_execution(directory: impl AsFd) -> io::Result<()> {
    const PATH_BENEATH: u32 = 1;
    /// `LANDLOCK_ACCESS_FS_EXECUTE` and `…_REFER`.
    const ACCESS: u64 = 1 | 1 << 13;
    /// `LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET`.
    const SOCKETS: u64 = 1;
    #[repr(C, packed)]
    struct PathBeneath {
        allowed_access: u64,
        parent_fd: RawFd,
    }
    let create = |attributes: &[u64]| {
        let size = size_of_val(attributes);
        // SAFETY: the kernel reads a `landlock_ruleset_attr` of the size given, which has the fields in this order.
        unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, attributes.as_ptr(), size, 0_u32) }
    };
    let version = landlock_version()?;
    let ruleset = match version {
        ..OLDEST_LANDLOCK => return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        OLDEST_LANDLOCK..6 => create(&[ACCESS]),
        _ => create(&[ACCESS, 0, SOCKETS]),
    };
    check(ruleset)?;
    let ruleset = RawFd::try_from(ruleset).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    let ruleset = unsafe { OwnedFd::from_raw_fd(ruleset) };
    let rule = PathBeneath { allowed_access: ACCESS, parent_fd: directory.as_fd().as_raw_fd() };
    let number = ruleset.as_raw_fd();
    // SAFETY: `rule` is a whole `landlock_path_beneath_attr`, which the kernel only reads.
    check(unsafe { libc::syscall(libc::SYS_landlock_add_rule, number, PATH_BENEATH, &raw const rule, 0_u32) })?;
    // SAFETY: takes numbers only.
    check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, number, 0_u32) })
}

/// Closes the descriptors `first..=last`.
pub(super) fn close_range(first: u32, last: u32) -> io::Result<()> {
    // SAFETY: only used in a process of our own making that is about to `execve` or does nothing but wait; no object
    // that owns one of these descriptors is used or dropped afterwards.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0_u32) })
}

/// Makes descriptor number `number` a copy of `fd` that stays open across `execve`.
pub(super) fn duplicate_onto(fd: impl AsFd, number: RawFd) -> io::Result<()> {
    let from = fd.as_fd().as_raw_fd();
    // SAFETY: `dup2` and `fcntl` only change the descriptor table, in a process that is about to `execve`.
    let result = unsafe { if from == number { libc::fcntl(from, libc::F_SETFD, 0) } else { libc::dup2(from, number) } };
    check(result.into())
}

/// Adds `set` to the attributes of the mount at `mount` itself, and of those below it with `recursive`.
pub(super) fn mount_setattr(mount: impl AsFd, set: MountAttrFlags, recursive: bool) -> io::Result<()> {
    set_mount_attributes(mount.as_fd(), set.bits().into(), 0, recursive)
}

/// Cuts the mount at `mount` and all below it off from the propagation of mounts, in both directions.
pub(super) fn mount_make_private(mount: impl AsFd) -> io::Result<()> {
    set_mount_attributes(mount.as_fd(), 0, libc::MS_PRIVATE, true)
}

fn set_mount_attributes(mount: BorrowedFd<'_>, set: u64, propagation: u64, recursive: bool) -> io::Result<()> {
    let attributes = libc::mount_attr { attr_set: set, attr_clr: 0, propagation, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | if recursive { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is an empty C string and `attributes` a whole `mount_attr` of the size given, only read.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of_val(&attributes),
        )
    })
}

/// Gives the calling process a new, empty session keyring.
pub(super) fn join_new_session_keyring() -> io::Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_ulong = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is read or written.
    check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) })
}

/// Sets the loopback interface of the calling process's network namespace up.
pub(super) fn loopback_up(socket: impl AsFd) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed() as libc::c_char;
    }
    #[expect(clippy::cast_possible_truncation, reason = "both flags are among the lowest seven bits")]
    let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    // SAFETY: the request is a whole `ifreq` with a terminated name and flags, as SIOCSIFFLAGS reads it.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) }.into())
}

/// Makes an Ethernet interface that stays when `tun`, which it is made with, is closed, for another program to be behind.
pub(super) fn persistent_tap(tun: impl AsFd, name: &str) -> io::Result<()> {
    // SAFETY: `ifreq` is plain data for which all zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays zero and ends the name.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name.iter_mut().take(room).zip(name.bytes()) {
        *to = from.cast_signed() as libc::c_char;
    }
    #[expect(clippy::cast_possible_truncation, reason = "both flags are among the lowest fifteen bits")]
    let flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    request.ifr_ifru.ifru_flags = flags;
    let tun = tun.as_fd().as_raw_fd();
    // SAFETY: the request is a whole `ifreq` with a terminated name and flags, which the kernel reads and fills.
    check(unsafe { libc::ioctl(tun, libc::TUNSETIFF as _, &raw mut request) }.into())?;
    // SAFETY: this request takes a number and touches no memory.
    check(unsafe { libc::ioctl(tun, libc::TUNSETPERSIST as _, 1) }.into())
}

/// Gives every signal its default disposition.
pub(super) fn reset_signal_dispositions() {
    /// Larger than any kernel's `struct sigaction`; all zeroes are `SIG_DFL` without flags.
    const DEFAULT: [u64; 8] = [0; 8];
    for signal in 1..=64 {
        // SAFETY: the kernel reads a `struct sigaction` from `DEFAULT` and writes nothing. The raw call also reaches
        // the two signals that the C library keeps to itself. SIGKILL and SIGSTOP are refused, which is right.
        unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, DEFAULT.as_ptr(), std::ptr::null::<u64>(), 8_usize);
        }
    }
}

/// All signals blocked for the calling thread for as long as this lives; the mask from before comes back afterwards.
#[derive(Debug)]
pub(super) struct SignalsBlocked {
    previous: u64,
}

impl SignalsBlocked {
    /// Blocks them, so that no handler of the caller can run in a process cloned meanwhile.
    pub(super) fn new() -> io::Result<Self> {
        let mut previous = 0;
        set_signal_mask(u64::MAX, Some(&mut previous))?;
        Ok(Self { previous })
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // Cannot fail: the arguments are valid and the call has no other error.
        let _ = set_signal_mask(self.previous, None);
    }
}

/// Lets every signal through to the calling process.
pub(super) fn unblock_signals() -> io::Result<()> {
    set_signal_mask(0, None)
}

fn set_signal_mask(mask: u64, previous: Option<&mut u64>) -> io::Result<()> {
    let previous = previous.map_or(std::ptr::null_mut(), |p| &raw mut *p);
    // SAFETY: both point to the eight bytes of a kernel signal set, or nowhere.
    check(unsafe { libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, previous, 8_usize) })
}

/// How a process ended and what it and its reaped descendants used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    /// The signal that ended it, if one did.
    pub signal: Option<i32>,
    /// The code it returned otherwise.
    pub code: i32,
    /// Processor time, user and system together.
    pub cpu: Duration,
}

/// Waits for the process behind `pidfd` to end, and reaps it.
pub(super) fn wait(pidfd: impl AsFd) -> io::Result<Ended> {
    // SAFETY: both are plain data for which all zeroes are valid.
    let (mut info, mut usage): (libc::siginfo_t, libc::rusage) = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to whole structures that outlive the call. (The C library's `waitid` cannot give
        // the resource use; the system call can.)
        let result = check(unsafe {
            libc::syscall(
                libc::SYS_waitid,
                libc::P_PIDFD,
                pidfd.as_fd().as_raw_fd(),
                &raw mut info,
                libc::WEXITED | libc::__WALL,
                &raw mut usage,
            )
        });
        match result {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
            Ok(()) => break,
        }
    }
    let killed = matches!(info.si_code, libc::CLD_KILLED | libc::CLD_DUMPED);
    // SAFETY: a successful `waitid` has filled the fields of a child's end.
    let status = unsafe { info.si_status() };
    Ok(Ended {
        signal: killed.then_some(status),
        code: status,
        cpu: duration(usage.ru_utime) + duration(usage.ru_stime),
    })
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

/// Where the kernel keeps the command line of the calling process, which anyone in a pid namespace can read of pid 1.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommandLine {
    start: usize,
    length: usize,
}

impl CommandLine {
    /// Finds it; `None` where the kernel does not tell.
    pub(super) fn of_this_process() -> Option<Self> {
        let stat = std::fs::read("/proc/self/stat").ok()?;
        // The second field, the name, may hold anything; the last `)` ends it.
        let after_name = stat.iter().rposition(|&byte| byte == b')')?;
        let fields = std::str::from_utf8(stat.get(after_name + 1..)?).ok()?;
        let mut fields = fields.split_ascii_whitespace().skip(45);
        let (start, end) = (fields.next()?.parse::<usize>().ok()?, fields.next()?.parse::<usize>().ok()?);
        (start != 0 && end > start).then_some(Self { start, length: end - start })
    }

    /// Overwrites it in the calling process: `name`, then zeroes.
    ///
    /// Only for a process made by [`clone3`] that never looks at its arguments.
    pub(super) fn overwrite(self, name: &CStr) {
        let name = name.to_bytes();
        // SAFETY: the kernel says that these bytes of the stack's top hold the argument strings; the copy of the
        // process that calls this is single-threaded and holds no reference to them.
        unsafe {
            let area = std::ptr::with_exposed_provenance_mut::<u8>(self.start);
            area.write_bytes(0, self.length);
            if name.len() < self.length {
                area.copy_from_nonoverlapping(name.as_ptr(), name.len());
            }
        }
    }
}

fn check(result: libc::c_long) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
