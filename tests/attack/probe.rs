//! What a hostile step would try, as one program: each probe is an attempt with a name, run in a process of its own.
//!
//! Takes the names of probes, or none for all of them; prints `PROBE name outcome` for each. The outcome is the name of
//! the error that the kernel gave, `ok` where the attempt succeeded, or one of the words in [`Outcome`]. Judges nothing:
//! `tests/e2e/attack.rs` knows what each outcome must be, in Strata and in runc. What the probes look for on the host is
//! told by `PROBE_MARKER` (a file there, and an abstract socket of its name), `PROBE_PID` (a process there) and `PROBE_HOSTNAME`.
//!
//! Statically linked like Strata itself, so that it runs in any root.
#![allow(
    unsafe_code,
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::cast_sign_loss,
    clippy::cast_possible_truncation,
    reason = "a test program: it makes the system calls that a safe program does not, and says on standard output what came of them"
)]

use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, chroot};
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::Path;

/// What came of an attempt.
enum Outcome {
    /// The attacker got what the probe is after.
    Ok,
    /// The kernel refused.
    Refused(i32),
    /// What there was to see is covered, empty, or the sandbox's own.
    Hidden,
    /// The call was made and did nothing to anybody.
    NoEffect,
}

use Outcome::{Hidden, NoEffect, Ok as Got, Refused};

impl Outcome {
    fn words(&self) -> String {
        match self {
            Self::Ok => "ok".to_owned(),
            Self::Hidden => "hidden".to_owned(),
            Self::NoEffect => "no-effect".to_owned(),
            Self::Refused(errno) => errno_name(*errno).map_or_else(|| format!("errno-{errno}"), str::to_owned),
        }
    }
}

fn errno_name(errno: i32) -> Option<&'static str> {
    Some(match errno {
        libc::EPERM => "EPERM",
        libc::ENOENT => "ENOENT",
        libc::ESRCH => "ESRCH",
        libc::ENXIO => "ENXIO",
        libc::EBADF => "EBADF",
        libc::EACCES => "EACCES",
        libc::EFAULT => "EFAULT",
        libc::EBUSY => "EBUSY",
        libc::EEXIST => "EEXIST",
        libc::ENODEV => "ENODEV",
        libc::ENOTDIR => "ENOTDIR",
        libc::EINVAL => "EINVAL",
        libc::ENOTTY => "ENOTTY",
        libc::ENOSPC => "ENOSPC",
        libc::EROFS => "EROFS",
        libc::ENOSYS => "ENOSYS",
        libc::ELOOP => "ELOOP",
        libc::ENOKEY => "ENOKEY",
        libc::EOPNOTSUPP => "EOPNOTSUPP",
        libc::EAFNOSUPPORT => "EAFNOSUPPORT",
        libc::EPROTONOSUPPORT => "EPROTONOSUPPORT",
        libc::ECONNREFUSED => "ECONNREFUSED",
        libc::EAGAIN => "EAGAIN",
        _ => return None,
    })
}

/// A probe's name and its attempt.
type Probe = (&'static str, fn() -> Outcome);

/// A system call of this machine's own ABI.
fn call(number: i64, arguments: [usize; 6]) -> Result<i64, i32> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the probes pass numbers, null pointers, and pointers to values that outlive the call. A probe that is not
    // refused may harm this process, which has no other purpose.
    let result = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if result == -1 { Err(io::Error::last_os_error().raw_os_error().unwrap_or(0)) } else { Ok(result) }
}

/// What a system call came to that should have been refused.
fn refused(number: i64, arguments: [usize; 6]) -> Outcome {
    match call(number, arguments) {
        Ok(_) => Got,
        Err(errno) => Refused(errno),
    }
}

fn of(result: io::Result<impl Sized>) -> Outcome {
    match result {
        Ok(_) => Got,
        Err(error) => Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// The address of a C string that is never freed.
fn text(text: &str) -> usize {
    CString::new(text).unwrap().into_raw().addr()
}

/// A system call of the 32-bit ABI, which a 64-bit program can make too.
#[cfg(target_arch = "x86_64")]
fn narrow(number: u32, arguments: [u32; 3]) -> Result<i32, i32> {
    let [a, b, c] = arguments;
    let result: i32;
    // SAFETY: as in `call`. `rbx` is kept by hand, since the compiler keeps it to itself.
    unsafe {
        std::arch::asm!(
            "push rbx", "mov ebx, {b:e}", "int 0x80", "pop rbx",
            b = in(reg) a, inlateout("eax") number => result, in("ecx") b, in("edx") c, in("esi") 0, in("edi") 0,
            lateout("r8") _, lateout("r9") _, lateout("r10") _, lateout("r11") _,
        );
    }
    if result < 0 { Err(-result) } else { Ok(result) }
}

#[cfg(target_arch = "x86_64")]
fn narrow_refused(number: u32, arguments: [u32; 3]) -> Outcome {
    match narrow(number, arguments) {
        Ok(_) => Got,
        Err(errno) => Refused(errno),
    }
}

/// `clone` with these flags; the child, if there is one, ends at once.
fn clone(flags: usize) -> Outcome {
    match call(libc::SYS_clone, [flags | libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) {
        // SAFETY: ends the child, which shares nothing with its parent.
        Ok(0) => unsafe { libc::_exit(0) },
        Ok(_) => Got,
        Err(errno) => Refused(errno),
    }
}

/// Reading: `Hidden` if there is nothing in it.
fn read(path: &str) -> Outcome {
    let mut buffer = [0; 4096];
    match File::open(path).and_then(|mut file| file.read(&mut buffer)) {
        Ok(0) => Hidden,
        Ok(_) => Got,
        Err(error) => Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

/// Opening for writing; nothing is written.
fn write(path: &str) -> Outcome {
    of(OpenOptions::new().write(true).open(path))
}

/// Looking at a directory: `Hidden` if it is empty.
fn list(path: &str) -> Outcome {
    match fs::read_dir(path).and_then(|mut entries| entries.next().transpose()) {
        Ok(Some(_)) => Got,
        Ok(None) => Hidden,
        Err(error) => Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    }
}

fn link(path: &str) -> Outcome {
    of(fs::read_link(path))
}

/// Makes a device node and uses it: what counts is whether the device answers.
fn device(path: &str, kind: u32, major: u32, minor: u32) -> Outcome {
    let path_pointer = CString::new(path).unwrap();
    // SAFETY: a C string and numbers.
    let made = unsafe { libc::mknod(path_pointer.as_ptr(), kind | 0o666, libc::makedev(major, minor)) };
    if made == -1 {
        return Refused(io::Error::last_os_error().raw_os_error().unwrap_or(0));
    }
    let outcome = of(File::open(path));
    let _ = fs::remove_file(path);
    outcome
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// The marker on the host, without its leading slash.
fn marker() -> String {
    variable("PROBE_MARKER").unwrap_or_else(|| "/no-marker".to_owned()).trim_start_matches('/').to_owned()
}

/// Whether the host's marker is found at the end of a path.
fn find_marker(above: &str) -> Outcome {
    of(fs::metadata(Path::new(above).join(marker())))
}

fn outside_pid() -> usize {
    variable("PROBE_PID").and_then(|pid| pid.parse().ok()).unwrap_or(0x3f_fff0)
}

/// A socket of the host's that has no path, only the marker's name.
fn abstract_socket() -> Outcome {
    of(SocketAddr::from_abstract_name(marker()).and_then(|address| UnixStream::connect_addr(&address)))
}

/// Fills a directory in memory with up to 512 MiB.
fn fill(path: &str) -> Outcome {
    let chunk = vec![1_u8; 1 << 20];
    let file = Path::new(path).join("filler");
    let outcome = of(File::create(&file).and_then(|mut out| (0..512).try_for_each(|_| out.write_all(&chunk))));
    let _ = fs::remove_file(file);
    outcome
}

fn chroot_climb() -> Outcome {
    let climb = || -> io::Result<()> {
        fs::create_dir_all("/tmp/jail")?;
        chroot("/tmp/jail")?;
        for _ in 0..64 {
            std::env::set_current_dir("..")?;
        }
        chroot(".")
    };
    match climb() {
        Ok(()) => match find_marker("/") {
            Refused(_) => Hidden,
            outcome => outcome,
        },
        Err(error) => Refused(error.raw_os_error().unwrap_or(0)),
    }
}

/// Signals pid 1 and sees whether it lives on: if it does not, nothing is printed at all.
fn kill_init() -> Outcome {
    match call(libc::SYS_kill, [1, libc::SIGKILL as usize, 0, 0, 0, 0]) {
        Ok(_) => {
            std::thread::sleep(std::time::Duration::from_millis(20));
            NoEffect
        }
        Err(errno) => Refused(errno),
    }
}

fn other_processes() -> Outcome {
    let seen = fs::read_dir("/proc").into_iter().flatten().flatten().any(|entry| {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).into_owned();
        command.contains("strata build") || command.contains("build\0--progress") || command.contains("registry\0serve")
    });
    if seen { Got } else { Hidden }
}

/// Any descriptor beyond the standard streams, but for the one that looks.
fn open_descriptors() -> Outcome {
    let entries = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let numbers: Vec<i32> = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    let leaked = numbers.iter().filter(|number| **number > 2).count() > 1;
    if leaked { Got } else { Hidden }
}

/// Where a descriptor of pid 1 leads: their numbers are no secret, and root sees them.
fn descriptors_of_init() -> Outcome {
    let mut outcome = Hidden;
    for number in 0..64 {
        match fs::read_link(format!("/proc/1/fd/{number}")) {
            Ok(_) => return Got,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => outcome = of(Err::<(), _>(error)),
        }
    }
    outcome
}

fn descriptors_lead_out() -> Outcome {
    for number in 0..1024 {
        for above in ["..", "../..", "../../../../../.."] {
            if matches!(find_marker(&format!("/proc/self/fd/{number}/{above}")), Got) {
                return Got;
            }
        }
    }
    Hidden
}

fn terminal_input() -> Outcome {
    for descriptor in 0..3_usize {
        let byte = b'x';
        if call(libc::SYS_ioctl, [descriptor, libc::TIOCSTI as usize, (&raw const byte).addr(), 0, 0, 0]).is_ok() {
            return Got;
        }
    }
    Refused(libc::ENOTTY)
}

fn mount_table_tells() -> Outcome {
    let table = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let directory = Path::new("/").join(marker()).parent().map(Path::to_owned).unwrap_or_default();
    if table.contains(&*directory.to_string_lossy()) { Got } else { Hidden }
}

fn host_name() -> Outcome {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if variable("PROBE_HOSTNAME").is_some_and(|host| host == name.trim()) { Got } else { Hidden }
}

fn environment() -> Outcome {
    if variable("PROBE_SECRET").is_some() { Got } else { Hidden }
}

fn shared_segments() -> Outcome {
    let segments = fs::read_to_string("/proc/sysvipc/shm").unwrap_or_default();
    if segments.lines().count() > 1 { Got } else { Hidden }
}

fn raise_capabilities() -> Outcome {
    // Header (version 3, this process) and two halves of effective, permitted and inheritable.
    let header = [0x2008_0522_u32, 0];
    let all = [u32::MAX; 6];
    refused(libc::SYS_capset, [header.as_ptr().addr(), all.as_ptr().addr(), 0, 0, 0, 0])
}

/// Any of the capabilities that Docker does not give, in any set.
fn held_capabilities() -> Outcome {
    const DOCKERS: u64 = 0xa804_25fb;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let sets = status.lines().filter(|line| line.starts_with("Cap")).filter_map(|line| line.split('\t').nth(1));
    let more = sets.filter_map(|set| u64::from_str_radix(set, 16).ok()).any(|set| set & !DOCKERS != 0);
    if more { Got } else { Hidden }
}

fn inheritable_capabilities() -> Outcome {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let empty = |name: &str| status.lines().any(|line| line == format!("{name}:\t0000000000000000"));
    if empty("CapInh") && empty("CapAmb") { Hidden } else { Got }
}

fn raise_limit() -> Outcome {
    let limit = [1_u64 << 40, 1 << 40];
    refused(libc::SYS_prlimit64, [0, libc::RLIMIT_NOFILE as usize, limit.as_ptr().addr(), 0, 0, 0])
}

fn set_time(number: i64, first: usize) -> Outcome {
    let time = [1_i64, 0];
    refused(
        number,
        if number == libc::SYS_settimeofday {
            [time.as_ptr().addr(), 0, 0, 0, 0, 0]
        } else {
            [first, time.as_ptr().addr(), 0, 0, 0, 0]
        },
    )
}

fn adjust_clock() -> Outcome {
    // ADJ_TICK with a tick that is not the usual one: needs the privilege before it is looked at.
    let mut timex = [0_u64; 26];
    timex[0] = 0x4000;
    refused(libc::SYS_adjtimex, [timex.as_mut_ptr().addr(), 0, 0, 0, 0, 0])
}

/// A request about an interface that changes something: its flags, or its address.
fn change_interface(name: &str, request: libc::c_ulong) -> Outcome {
    // SAFETY: plain data for which zeroes are valid: no flags, or an address of no family.
    let mut interface: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    match call(libc::SYS_socket, [libc::AF_INET as usize, libc::SOCK_DGRAM as usize, 0, 0, 0, 0]) {
        Ok(socket) => {
            refused(libc::SYS_ioctl, [socket as usize, request as usize, (&raw const interface).addr(), 0, 0, 0])
        }
        Err(errno) => Refused(errno),
    }
}

/// The interface that leads out, or loopback.
fn way_out() -> String {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.find(|name| name != "lo").unwrap_or_else(|| "lo".to_owned())
}

/// A message to the kernel's routing socket, and the error in its answer.
fn netlink(protocol: i32, kind: u16, body: &[u8]) -> Outcome {
    /// `NLM_F_REQUEST | NLM_F_ACK | NLM_F_EXCL | NLM_F_CREATE`
    const FLAGS: u16 = 1 | 4 | 0x200 | 0x400;
    let mut message = (16 + body.len() as u32).to_ne_bytes().to_vec();
    message.extend([kind.to_ne_bytes(), FLAGS.to_ne_bytes()].concat());
    message.extend([0; 8]);
    message.extend(body);
    let ask = || -> Result<i32, i32> {
        let socket =
            call(libc::SYS_socket, [libc::AF_NETLINK as usize, libc::SOCK_RAW as usize, protocol as usize, 0, 0, 0])?;
        call(libc::SYS_sendto, [socket as usize, message.as_ptr().addr(), message.len(), 0, 0, 0])?;
        let mut answer = [0_u8; 4096];
        call(libc::SYS_recvfrom, [socket as usize, answer.as_mut_ptr().addr(), answer.len(), 0, 0, 0])?;
        Ok(-i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]))
    };
    match ask() {
        Ok(0) => Got,
        Ok(errno) | Err(errno) => Refused(errno),
    }
}

/// `RTM_NEWLINK`: a `struct ifinfomsg` and the kind of the new interface.
fn make_interface() -> Outcome {
    let mut body = vec![0; 16];
    // IFLA_LINKINFO (18) with IFLA_INFO_KIND (1).
    body.extend([14_u16, 18, 10, 1].map(u16::to_ne_bytes).concat());
    body.extend(b"bridge\0\0");
    netlink(libc::NETLINK_ROUTE, 16, &body)
}

/// `RTM_NEWROUTE`: what is sent to 192.0.2.0/24 is to go nowhere.
fn make_route() -> Outcome {
    let mut body = vec![2, 24, 0, 0, 254, 4, 0, 6, 0, 0, 0, 0];
    // RTA_DST (1).
    body.extend([8_u16, 1].map(u16::to_ne_bytes).concat());
    body.extend([192, 0, 2, 0]);
    netlink(libc::NETLINK_ROUTE, 24, &body)
}

/// The first message of a transaction of nftables, which is looked at before anything else: `NFNL_MSG_BATCH_BEGIN`.
fn packet_filter() -> Outcome {
    match netlink(libc::NETLINK_NETFILTER, 16, &[0, 0, 0, 10]) {
        Refused(libc::EPROTONOSUPPORT) => Hidden,
        outcome => outcome,
    }
}

/// A service that listens on the host's loopback, asked for at the addresses that have led there in other builders.
fn service_on_loopback() -> Outcome {
    let port = variable("PROBE_PORT").and_then(|port| port.parse().ok()).unwrap_or(9);
    let wait = std::time::Duration::from_millis(500);
    let addresses: [std::net::IpAddr; 4] =
        [[127, 0, 0, 1].into(), [10, 87, 143, 1].into(), [10, 87, 143, 5].into(), [0; 16].into()];
    let mut outcome = Refused(libc::ECONNREFUSED);
    for address in addresses {
        match std::net::TcpStream::connect_timeout(&(address, port).into(), wait) {
            Ok(_) => return Got,
            Err(_) => outcome = Refused(libc::ECONNREFUSED),
        }
    }
    outcome
}

/// Any interface but loopback and the one that every private network has.
fn foreign_interfaces() -> Outcome {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    let table = fs::read_to_string("/proc/net/dev").unwrap_or_default();
    let told = table.lines().skip(2).filter_map(|line| Some(line.split_once(':')?.0.trim().to_owned()));
    let mut names = entries.filter_map(|entry| entry.file_name().into_string().ok()).chain(told);
    if names.any(|name| name != "lo" && name != "eth0") { Got } else { Hidden }
}

/// Takes memory until there is no more: 256 MiB at most.
fn memory_bomb() -> Outcome {
    let mut taken = Vec::new();
    for _ in 0..256 {
        taken.push(std::hint::black_box(vec![1_u8; 1 << 20]));
    }
    std::hint::black_box(&taken);
    Got
}

/// Starts processes that each start processes, until there are 500; ends them all again.
fn fork_bomb() -> Outcome {
    let mut started = Vec::new();
    let mut outcome = Got;
    for _ in 0..500 {
        match call(libc::SYS_clone, [libc::SIGCHLD as usize, 0, 0, 0, 0, 0]) {
            Ok(0) => loop {
                std::thread::park();
            },
            Ok(pid) => started.push(pid),
            Err(errno) => {
                outcome = Refused(errno);
                break;
            }
        }
    }
    for pid in started {
        let _ = call(libc::SYS_kill, [pid as usize, libc::SIGKILL as usize, 0, 0, 0, 0]);
    }
    outcome
}

fn namespace_parent() -> Outcome {
    const NS_GET_PARENT: usize = 0xb702;
    match File::open("/proc/self/ns/pid") {
        Ok(own) => refused(libc::SYS_ioctl, [own.as_raw_fd() as usize, NS_GET_PARENT, 0, 0, 0, 0]),
        Err(error) => Refused(error.raw_os_error().unwrap_or(0)),
    }
}

fn enter_own_namespace() -> Outcome {
    match File::open("/proc/self/ns/mnt") {
        Ok(own) => refused(libc::SYS_setns, [own.as_raw_fd() as usize, 0, 0, 0, 0, 0]),
        Err(error) => Refused(error.raw_os_error().unwrap_or(0)),
    }
}

fn foreign_descriptor() -> Outcome {
    match call(libc::SYS_pidfd_open, [1, 0, 0, 0, 0, 0]) {
        Ok(init) => refused(libc::SYS_pidfd_getfd, [init as usize, 1, 0, 0, 0, 0]),
        Err(errno) => Refused(errno),
    }
}

fn read_memory_of_init() -> Outcome {
    let mut buffer = [0_u8; 8];
    let (own, other) = ([buffer.as_mut_ptr().addr(), 8], [0x40_0000_usize, 8]);
    refused(libc::SYS_process_vm_readv, [1, own.as_ptr().addr(), 1, other.as_ptr().addr(), 1, 0])
}

fn overlay_record() -> Outcome {
    let (path, name, value) = (text("/tmp"), text("trusted.overlay.redirect"), text("/etc"));
    refused(libc::SYS_setxattr, [path, name, value, 4, 0, 0])
}

/// Any block device, or a character device beyond the harmless ones.
fn devices_at_hand() -> Outcome {
    const HARMLESS: [&str; 9] = ["null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "pts"];
    let entries = fs::read_dir("/dev").into_iter().flatten().flatten();
    let mut others = entries.filter(|entry| {
        let kind = entry.file_type().unwrap();
        let name = entry.file_name();
        kind.is_block_device() || kind.is_char_device() && !HARMLESS.iter().any(|known| **known == *name)
    });
    if others.next().is_some() { Got } else { Hidden }
}

fn hidden_directories() -> Outcome {
    match list("/sys/devices/system/cpu/cpu0/thermal_throttle") {
        Refused(libc::ENOENT) => Hidden,
        outcome => outcome,
    }
}

/// A vsock or crypto socket, by number.
fn socket(family: usize, kind: i32, protocol: usize) -> Outcome {
    refused(libc::SYS_socket, [family, kind as usize, protocol, 0, 0, 0])
}

const NEW_USER: usize = 0x1000_0000;
const NEW_MOUNT: usize = 0x2_0000;
const NEW_PID: usize = 0x2000_0000;
const NEW_NETWORK: usize = 0x4000_0000;
const NEW_CGROUP: usize = 0x200_0000;

/// Every probe, by what it attacks.
#[rustfmt::skip]
const PROBES: &[Probe] = &[
    // Mounts and the root.
    ("mount-tmpfs", || refused(libc::SYS_mount, [text("x"), text("/tmp"), text("tmpfs"), 0, 0, 0])),
    ("mount-proc-anew", || refused(libc::SYS_mount, [text("proc"), text("/tmp"), text("proc"), 0, 0, 0])),
    ("mount-bind", || refused(libc::SYS_mount, [text("/"), text("/tmp"), 0, libc::MS_BIND as usize, 0, 0])),
    ("remount-proc-sys-writable", || refused(libc::SYS_mount, [0, text("/proc/sys"), 0, (libc::MS_REMOUNT | libc::MS_BIND) as usize, 0, 0])),
    ("uncover-kcore", || refused(libc::SYS_umount2, [text("/proc/kcore"), libc::MNT_DETACH as usize, 0, 0, 0, 0])),
    ("pivot-root", || refused(libc::SYS_pivot_root, [text("/tmp"), text("/tmp"), 0, 0, 0, 0])),
    ("fsopen", || refused(libc::SYS_fsopen, [text("tmpfs"), 0, 0, 0, 0, 0])),
    ("fspick", || refused(libc::SYS_fspick, [libc::AT_FDCWD as usize, text("/"), 0, 0, 0, 0])),
    ("open-tree-clone", || refused(libc::SYS_open_tree, [libc::AT_FDCWD as usize, text("/"), 1, 0, 0, 0])),
    ("move-mount", || refused(libc::SYS_move_mount, [libc::AT_FDCWD as usize, text("/proc"), libc::AT_FDCWD as usize, text("/tmp"), 0, 0])),
    ("mount-setattr", || {
        let attributes = [0_u64, 1, 0, 0];
        refused(libc::SYS_mount_setattr, [libc::AT_FDCWD as usize, text("/proc/sys"), 0, attributes.as_ptr().addr(), 32, 0])
    }),
    ("chroot-climb", chroot_climb),
    ("dot-dot", || find_marker("/../../../../../..")),
    ("through-own-root-link", || find_marker("/proc/self/root/../../..")),
    ("through-own-cwd-link", || find_marker("/proc/self/cwd/../../..")),
    ("through-root-link-of-init", || find_marker("/proc/1/root")),
    ("through-cwd-link-of-init", || find_marker("/proc/1/cwd")),
    ("through-descriptors", descriptors_lead_out),
    ("descriptors-left-open", open_descriptors),
    ("host-path-in-mount-table", mount_table_tells),
    // Namespaces.
    ("unshare-nothing", || refused(libc::SYS_unshare, [0; 6])),
    ("unshare-user", || refused(libc::SYS_unshare, [NEW_USER, 0, 0, 0, 0, 0])),
    ("unshare-mount", || refused(libc::SYS_unshare, [NEW_MOUNT, 0, 0, 0, 0, 0])),
    ("unshare-pid", || refused(libc::SYS_unshare, [NEW_PID, 0, 0, 0, 0, 0])),
    ("unshare-network", || refused(libc::SYS_unshare, [NEW_NETWORK, 0, 0, 0, 0, 0])),
    ("clone-user", || clone(NEW_USER)),
    ("clone-mount", || clone(NEW_MOUNT)),
    ("clone-cgroup", || clone(NEW_CGROUP)),
    ("clone3", || refused(libc::SYS_clone3, [0; 6])),
    ("setns-own", enter_own_namespace),
    ("setns-init", || of(File::open("/proc/1/ns/mnt"))),
    ("parent-of-pid-namespace", namespace_parent),
    // Other processes.
    ("see-outside-processes", other_processes),
    ("signal-outside-process", || refused(libc::SYS_kill, [outside_pid(), 0, 0, 0, 0, 0])),
    ("ptrace-outside-process", || refused(libc::SYS_ptrace, [libc::PTRACE_ATTACH as usize, outside_pid(), 0, 0, 0, 0])),
    ("pidfd-of-outside-process", || refused(libc::SYS_pidfd_open, [outside_pid(), 0, 0, 0, 0, 0])),
    ("kill-init", kill_init),
    // Seizing does not stop: in runc this may be the program itself.
    ("ptrace-init", || refused(libc::SYS_ptrace, [libc::PTRACE_SEIZE as usize, 1, 0, 0, 0, 0])),
    ("read-memory-of-init", read_memory_of_init),
    ("open-memory-of-init", || read("/proc/1/mem")),
    ("maps-of-init", || read("/proc/1/maps")),
    ("environment-of-init", || read("/proc/1/environ")),
    ("program-of-init", || link("/proc/1/exe")),
    ("overwrite-program-of-init", || write("/proc/1/exe")),
    ("root-of-init", || list("/proc/1/root/")),
    ("descriptors-of-init", descriptors_of_init),
    ("descriptor-taken-from-init", foreign_descriptor),
    ("compare-with-init", || refused(libc::SYS_kcmp, [1, 1, 0, 0, 0, 0])),
    ("advise-memory-of-init", || refused(libc::SYS_process_madvise, [0; 6])),
    ("inherit-environment", environment),
    ("terminal-input", terminal_input),
    ("controlling-terminal", || of(File::open("/dev/tty"))),
    ("foreign-shared-memory", shared_segments),
    // The kernel.
    ("init-module", || refused(libc::SYS_init_module, [0; 6])),
    ("finit-module", || refused(libc::SYS_finit_module, [0; 6])),
    ("delete-module", || refused(libc::SYS_delete_module, [text("x"), 0, 0, 0, 0, 0])),
    ("kexec-load", || refused(libc::SYS_kexec_load, [0; 6])),
    ("reboot", || refused(libc::SYS_reboot, [0; 6])),
    ("swapon", || refused(libc::SYS_swapon, [text("/tmp/x"), 0, 0, 0, 0, 0])),
    ("swapoff", || refused(libc::SYS_swapoff, [text("/tmp/x"), 0, 0, 0, 0, 0])),
    ("bpf", || refused(libc::SYS_bpf, [0; 6])),
    ("perf-event", || refused(libc::SYS_perf_event_open, [0; 6])),
    ("userfaultfd", || refused(libc::SYS_userfaultfd, [0; 6])),
    ("io-uring-setup", || refused(libc::SYS_io_uring_setup, [1, [0_u64; 15].as_ptr().addr(), 0, 0, 0, 0])),
    ("io-uring-enter", || refused(libc::SYS_io_uring_enter, [0; 6])),
    ("io-uring-register", || refused(libc::SYS_io_uring_register, [0; 6])),
    ("keyctl", || refused(libc::SYS_keyctl, [0, usize::MAX - 4, 0, 0, 0, 0])),
    ("add-key", || refused(libc::SYS_add_key, [text("user"), text("x"), text("x"), 1, usize::MAX - 1, 0])),
    ("request-key", || refused(libc::SYS_request_key, [text("user"), text("x"), 0, 0, 0, 0])),
    ("kernel-log", || refused(libc::SYS_syslog, [3, [0_u8; 64].as_ptr().addr(), 64, 0, 0, 0])),
    ("quota", || refused(libc::SYS_quotactl, [0; 6])),
    ("accounting", || refused(libc::SYS_acct, [0; 6])),
    ("open-by-handle", || refused(libc::SYS_open_by_handle_at, [libc::AT_FDCWD as usize, [0_u32, 0].as_ptr().addr(), 0, 0, 0, 0])),
    ("fanotify", || refused(libc::SYS_fanotify_init, [0; 6])),
    ("set-time-of-day", || set_time(libc::SYS_settimeofday, 0)),
    ("set-clock", || set_time(libc::SYS_clock_settime, 0)),
    ("adjust-clock", adjust_clock),
    ("set-host-name", || refused(libc::SYS_sethostname, [text("x"), 1, 0, 0, 0, 0])),
    ("set-domain-name", || refused(libc::SYS_setdomainname, [text("x"), 1, 0, 0, 0, 0])),
    ("hang-up", || refused(libc::SYS_vhangup, [0; 6])),
    ("memory-policy", || refused(libc::SYS_set_mempolicy, [0; 6])),
    ("no-address-randomisation", || refused(libc::SYS_personality, [0x4_0000, 0, 0, 0, 0, 0])),
    ("read-implies-exec", || refused(libc::SYS_personality, [0x40_0000, 0, 0, 0, 0, 0])),
    ("overlay-record", overlay_record),
    // Privileges.
    ("capabilities-beyond-dockers", held_capabilities),
    ("inheritable-or-ambient-capabilities", inheritable_capabilities),
    ("raise-capabilities", raise_capabilities),
    ("raise-ambient-capability", || refused(libc::SYS_prctl, [47, 2, 21, 0, 0, 0])),
    ("set-memory-map", || refused(libc::SYS_prctl, [35, 1, 0x40_0000, 0, 0, 0])),
    ("raise-limit", raise_limit),
    ("raise-priority", || refused(libc::SYS_setpriority, [0, 0, -20_isize as usize, 0, 0, 0])),
    ("realtime-scheduling", || refused(libc::SYS_sched_setscheduler, [0, 1, [1_u32].as_ptr().addr(), 0, 0, 0])),
    ("immunity-from-oom", || of(OpenOptions::new().write(true).open("/proc/self/oom_score_adj").and_then(|mut file| file.write_all(b"-1000")))),
    // Sockets.
    ("vsock", || socket(40, libc::SOCK_STREAM, 0)),
    ("kernel-crypto", || socket(38, libc::SOCK_SEQPACKET, 0)),
    ("raw-socket", || socket(libc::AF_INET as usize, libc::SOCK_RAW, 1)),
    ("packet-socket", || socket(libc::AF_PACKET as usize, libc::SOCK_RAW, 0)),
    ("interface-down", || change_interface(&way_out(), libc::SIOCSIFFLAGS as libc::c_ulong)),
    ("loopback-down", || change_interface("lo", libc::SIOCSIFFLAGS as libc::c_ulong)),
    ("interface-address", || change_interface(&way_out(), libc::SIOCSIFADDR as libc::c_ulong)),
    ("make-interface", make_interface),
    ("make-route", make_route),
    ("packet-filter", packet_filter),
    ("abstract-socket-of-host", abstract_socket),
    // Devices.
    ("devices-at-hand", devices_at_hand),
    ("disk-node-in-root", || device("/disk", libc::S_IFBLK, 254, 0)),
    ("memory-node-in-root", || device("/memory", libc::S_IFCHR, 1, 1)),
    ("null-node-in-tmp", || device("/tmp/node", libc::S_IFCHR, 1, 5)),
    ("node-in-dev", || device("/dev/node", libc::S_IFCHR, 1, 5)),
    ("node-in-shared-memory", || device("/dev/shm/node", libc::S_IFCHR, 1, 5)),
    ("console", || write("/dev/console")),
    ("physical-memory", || read("/dev/mem")),
    ("kernel-messages-device", || read("/dev/kmsg")),
    ("fuse", || write("/dev/fuse")),
    ("virtual-machines", || write("/dev/kvm")),
    ("tunnel", || write("/dev/net/tun")),
    ("loop-control", || write("/dev/loop-control")),
    ("fill-dev", || fill("/dev")),
    ("fill-shared-memory", || fill("/dev/shm")),
    // /proc and /sys.
    ("write-core-pattern", || write("/proc/sys/kernel/core_pattern")),
    ("write-modprobe", || write("/proc/sys/kernel/modprobe")),
    ("write-host-name", || write("/proc/sys/kernel/hostname")),
    ("write-drop-caches", || write("/proc/sys/vm/drop_caches")),
    ("register-binary-format", || write("/proc/sys/fs/binfmt_misc/register")),
    ("sysrq-trigger", || write("/proc/sysrq-trigger")),
    ("write-irq", || write("/proc/irq/default_smp_affinity")),
    ("list-scsi", || list("/proc/scsi")),
    ("list-acpi", || list("/proc/acpi")),
    ("read-kcore", || read("/proc/kcore")),
    ("read-keys", || read("/proc/keys")),
    ("read-timer-list", || read("/proc/timer_list")),
    ("read-interrupts", || read("/proc/interrupts")),
    ("read-sched-debug", || read("/proc/sched_debug")),
    ("read-kernel-messages", || read("/proc/kmsg")),
    ("make-in-proc", || of(File::create("/proc/x"))),
    ("make-in-sys", || of(File::create("/sys/x"))),
    ("write-sys-power", || write("/sys/power/state")),
    ("write-uevent-helper", || write("/sys/kernel/uevent_helper")),
    ("write-profiling", || write("/sys/kernel/profiling")),
    ("make-cgroup", || of(fs::create_dir("/sys/fs/cgroup/x"))),
    ("cgroup-release-agent", || write("/sys/fs/cgroup/release_agent")),
    ("list-firmware", || list("/sys/firmware")),
    ("list-power-meters", || list("/sys/devices/virtual/powercap")),
    ("list-heat-counters", hidden_directories),
    ("debug-file-system", || list("/sys/kernel/debug")),
    ("trace-file-system", || list("/sys/kernel/tracing")),
    ("security-file-system", || list("/sys/kernel/security")),
    ("host-name-of-the-host", host_name),
    ("secrets-of-others", || list("/run/secrets")),
    // The other ABIs of the machine.
    #[cfg(target_arch = "x86_64")] ("i386-mount", || narrow_refused(21, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("i386-unshare", || narrow_refused(310, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("i386-keyctl", || narrow_refused(288, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("i386-bpf", || narrow_refused(357, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("i386-vsock", || narrow_refused(359, [40, 1, 0])),
    #[cfg(target_arch = "x86_64")] ("i386-kernel-crypto", || narrow_refused(359, [38, 5, 0])),
    #[cfg(target_arch = "x86_64")] ("i386-clone3", || narrow_refused(435, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("i386-vm86", || narrow_refused(166, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("x32-getpid", || refused(0x4000_0000 | 39, [0; 6])),
    #[cfg(target_arch = "x86_64")] ("i386-getpid", || narrow_refused(20, [0; 3])),
    #[cfg(target_arch = "x86_64")] ("port-access", || refused(libc::SYS_ioperm, [0x80, 1, 1, 0, 0, 0])),
    #[cfg(target_arch = "x86_64")] ("port-level", || refused(libc::SYS_iopl, [3, 0, 0, 0, 0, 0])),
];

/// What needs a limit or a private network to be stopped by: run only when named.
const ON_REQUEST: &[Probe] = &[
    ("memory-bomb", memory_bomb),
    ("fork-bomb", fork_bomb),
    ("service-on-loopback", service_on_loopback),
    ("foreign-interfaces", foreign_interfaces),
];

/// Runs a probe in a process of its own, which is given ten seconds.
fn run((name, attempt): &Probe) {
    // SAFETY: the program has one thread, so the child may do as it likes.
    match unsafe { libc::fork() } {
        0 => {
            // SAFETY: takes a number.
            unsafe { libc::alarm(10) };
            println!("PROBE {name} {}", attempt().words());
            let _ = io::stdout().flush();
            // SAFETY: ends the process; what it printed is out.
            unsafe { libc::_exit(0) };
        }
        child => {
            let mut status = 0;
            // SAFETY: the pointer is to an integer that outlives the call.
            unsafe { libc::waitpid(child, &raw mut status, 0) };
            if status != 0 {
                println!("PROBE {name} killed");
            }
        }
    }
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let named = |(name, _): &&Probe| wanted.iter().any(|word| word == name);
    for probe in PROBES.iter().filter(|probe| wanted.is_empty() || named(probe)).chain(ON_REQUEST.iter().filter(named))
    {
        run(probe);
    }
}
