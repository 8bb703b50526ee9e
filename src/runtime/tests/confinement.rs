//! What a process may see and do.

use super::*;

pub(super) fn surroundings(lab: &Lab) {
    let mut plan = lab.plan("env | sort; pwd; id -u; id -g; hostname; umask; cat; echo end >/dev/stderr");
    plan.env = strings(&["PATH=/bin", "A=b c"]);
    plan.cwd = "/made/here".into();
    plan.hostname = "my-host".to_owned();
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "A=b c\nPATH=/bin\nPWD=/made/here\nSHLVL=1\n/made/here\n0\n0\nmy-host\n0022");
    assert_eq!(ran.stderr, "end\n");
    let made = fs::metadata(ran.upper.join("made")).unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o755, 0, 0));
    if !lab.many_ids {
        let mut plan = lab.plan("true");
        plan.identity.uid = 1000;
        let error = chain(lab.run(plan).error());
        assert!(error.contains("/etc/subuid"), "{error}");
        return;
    }
    let mut plan = lab.plan("id -u; id -g; id -G; echo > /tmp/file; echo end >/dev/stderr; echo x > /old");
    plan.identity = Identity { uid: 1000, gid: 1001, groups: vec![1002, 1003] };
    let ran = lab.run(plan);
    assert_eq!(ran.status(), Status::Exited(1), "/old is not theirs: {}", ran.stderr);
    assert_eq!(ran.stdout, "1000\n1001\n1001 1002 1003\n");
    assert!(ran.stderr.starts_with("end\n"), "the streams can be opened again: {}", ran.stderr);
    let file = fs::metadata(ran.upper.join("tmp/file")).unwrap();
    assert_eq!((file.uid(), file.gid()), (1000, 1001));
}

pub(super) fn host_out_of_sight(lab: &Lab) {
    let ran = lab.sh("ls -a / | tr '\\n' ' '; echo; ps -o pid,args; tr '\\0' ' ' </proc/1/cmdline; ls /proc/self/fd; \
                      cat /proc/self/mountinfo; cat /proc/self/cgroup");
    let text = ran.text();
    assert_eq!(text.lines().next(), Some(". .. bin dev etc old proc sys tmp "));
    assert!(text.lines().nth(2).unwrap().contains("init"), "pid 1: {text}");
    assert!(!text.contains("laboratory"), "the builder's command line: {text}");
    assert!(!text.contains(lab.dir.path().to_str().unwrap()), "paths of the host: {text}");
    for script in [
        "cat /proc/1/environ",
        "cat /proc/1/fd/*",
        "readlink /proc/1/fd/*",
        "readlink /proc/1/exe",
        "ls /proc/1/root/",
        "cat /proc/1/mem",
        "kill -9 1; kill -0 1",
    ] {
        let ran = lab.sh(script);
        let harmless = script.starts_with("kill");
        assert_eq!(ran.status() == Status::Exited(0), harmless, "{script}: {}{}", ran.stdout, ran.stderr);
    }
    let (before, after) = (super::processes::mounts(), super::processes::mounts());
    assert_eq!(before, after);
}

pub(super) fn capabilities(lab: &Lab) {
    let own = rustix::thread::capabilities(None).unwrap().permitted;
    let root = privilege::DEFAULT_CAPABILITIES.intersection(own).bits();
    assert_eq!(privilege::DEFAULT_CAPABILITIES.bits(), 0xa804_25fb);
    let script = "grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status | tr '\\n\\t' ' '; umask";
    let status = |held: u64| {
        format!(
            "CapInh: 0000000000000000 CapPrm: {held:016x} CapEff: {held:016x} CapBnd: {root:016x} \
             CapAmb: 0000000000000000 NoNewPrivs: 0 Seccomp: 2 0022"
        )
    };
    assert_eq!(lab.sh(script).text(), status(root));
    if lab.many_ids {
        let mut plan = lab.plan(script);
        plan.identity = Identity { uid: 1000, gid: 1000, groups: vec![] };
        assert_eq!(lab.run(plan).text(), status(0));
    }
}

pub(super) fn system_calls(lab: &Lab) {
    for script in [
        "mount -t tmpfs x /tmp",
        "umount /proc",
        "mount -o remount,rw /proc/sys",
        "unshare -U true",
        "unshare -n true",
        "unshare -m true",
        "pivot_root / /tmp",
        "hostname other",
        "swapoff -a /old",
        "dmesg",
        "insmod /old",
        "nsenter -t 1 -m true",
        "reboot -f",
    ] {
        let ran = lab.sh(script);
        assert_ne!(ran.status(), Status::Exited(0), "{script}: {}", ran.stdout);
    }
    // This one fails without saying so in its exit code.
    assert!(lab.sh("date -s 2000-01-01").stderr.contains("not permitted"));
    assert_eq!(
        lab.sh("mkdir -p /tmp/r/bin && cp /bin/busybox /tmp/r/bin && chroot /tmp/r /bin/busybox echo in").text(),
        "in"
    );
}

/// A whole i386 program: one system call, then an exit with its error number.
#[cfg(target_arch = "x86_64")]
pub(super) fn narrow_program(number: u32, argument: u32) -> Vec<u8> {
    let word = u32::to_le_bytes;
    let mut program = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x03\0".to_vec();
    program.extend([1, 0x0804_8054, 52, 0, 0].map(word).as_flattened());
    program.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    program.extend([1, 0, 0x0804_8000, 0x0804_8000, 0x100, 0x100, 5, 0x1000].map(word).as_flattened());
    // mov eax, number; mov ebx, argument; xor ecx, ecx; xor edx, edx; int 0x80
    program.extend([[0xb8].as_slice(), &word(number), &[0xbb], &word(argument), b"\x31\xc9\x31\xd2\xcd\x80"].concat());
    // neg eax; mov ebx, eax; mov eax, exit; int 0x80
    program.extend(b"\xf7\xd8\x89\xc3\xb8\x01\0\0\0\xcd\x80");
    program.resize(0x100, 0);
    program
}

/// The same for x86-64.
#[cfg(target_arch = "x86_64")]
pub(super) fn wide_program(number: u32, argument: u32) -> Vec<u8> {
    let (word, long) = (u32::to_le_bytes, u64::to_le_bytes);
    let mut program = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    program.extend([0x40_0078, 64, 0].map(long).as_flattened());
    program.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    program.extend([1, 5].map(word).as_flattened());
    program.extend([0, 0x40_0000, 0x40_0000, 0x100, 0x100, 0x1000].map(long).as_flattened());
    // mov eax, number; mov edi, argument; xor esi, esi; xor edx, edx; syscall
    program.extend([[0xb8].as_slice(), &word(number), &[0xbf], &word(argument), b"\x31\xf6\x31\xd2\x0f\x05"].concat());
    // neg eax; mov edi, eax; mov eax, exit; syscall
    program.extend(b"\xf7\xd8\x89\xc7\xb8\x3c\0\0\0\x0f\x05");
    program.resize(0x100, 0);
    program
}

/// Runs a program of the test's own making.
#[cfg(target_arch = "x86_64")]
pub(super) fn run_bytes(lab: &Lab, program: &[u8]) -> Ran {
    let layer = lab.layer();
    fs::write(layer.join("program"), program).unwrap();
    fs::set_permissions(layer.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut plan = lab.plan("");
    plan.lowers.insert(0, layer);
    plan.argv = strings(&["/program"]);
    lab.run(plan)
}

#[cfg(target_arch = "x86_64")]
pub(super) fn narrow_programs(lab: &Lab) {
    let exit = 1;
    let ran = run_bytes(lab, &narrow_program(exit, 42));
    match &ran.outcome {
        Err(Error::NotExecutable { problem, .. }) if problem.contains("32-bit") => {
            eprintln!("SKIPPED: this kernel does not run 32-bit programs");
        }
        _ => {
            assert_eq!(ran.status(), Status::Exited(42));
            let mount = 21;
            assert_eq!(run_bytes(lab, &narrow_program(mount, 0)).status(), Status::Exited(1), "EPERM");
        }
    }
}

/// System calls that no capability guards, so that only the filter can refuse them.
#[cfg(target_arch = "x86_64")]
pub(super) fn filter_in_the_kernel(lab: &Lab) {
    const X32: u32 = 0x4000_0000;
    for (name, number, argument, errno) in [
        ("keyctl", libc::SYS_keyctl, 0, libc::EPERM),
        ("add_key", libc::SYS_add_key, 0, libc::EPERM),
        ("bpf", libc::SYS_bpf, 0, libc::EPERM),
        ("perf_event_open", libc::SYS_perf_event_open, 0, libc::EPERM),
        ("userfaultfd", libc::SYS_userfaultfd, 0, libc::EPERM),
        ("io_uring_setup", libc::SYS_io_uring_setup, 0, libc::EPERM),
        ("unshare of nothing", libc::SYS_unshare, 0, libc::EPERM),
        ("socket(AF_VSOCK)", libc::SYS_socket, 40, libc::EPERM),
        ("socket(AF_ALG)", libc::SYS_socket, 38, libc::EPERM),
        ("personality(ADDR_NO_RANDOMIZE)", libc::SYS_personality, 0x4_0000, libc::EPERM),
        ("clone(CLONE_NEWUSER)", libc::SYS_clone, 0x1000_0000, libc::EPERM),
        ("clone3", libc::SYS_clone3, 0, libc::ENOSYS),
        ("x32 getppid", libc::SYS_getppid | i64::from(X32), 0, libc::EPERM),
        ("a number that no kernel has", 9999, 0, libc::EPERM),
        ("personality(PER_LINUX)", libc::SYS_personality, 0, 0),
        ("sync", libc::SYS_sync, 0, 0),
    ] {
        let ran = run_bytes(lab, &wide_program(u32::try_from(number).unwrap(), argument));
        assert_eq!(ran.status(), Status::Exited(errno), "{name}");
    }
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn filter_in_the_kernel(_: &Lab) {
    eprintln!("SKIPPED: the programs of this test are for x86");
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn narrow_programs(_: &Lab) {
    eprintln!("SKIPPED: the 32-bit program of this test is for x86");
}

pub(super) fn protected_settings(lab: &Lab) {
    let hostname = fs::read("/proc/sys/kernel/hostname").unwrap();
    for script in [
        "echo x > /proc/sys/kernel/hostname",
        "echo 1 > /proc/sys/vm/drop_caches",
        "echo h > /proc/sysrq-trigger",
        "echo 1 > /sys/kernel/profiling",
        "mkdir /sys/fs/cgroup/x",
        "touch /sys/x",
        "touch /proc/x",
        "test -s /proc/kcore",
        "test -s /proc/keys",
        "test -s /proc/timer_list",
        "ls /sys/firmware | grep .",
        "ls /proc/scsi | grep .",
        "chmod 777 /proc/sys",
    ] {
        assert_ne!(lab.sh(script).status(), Status::Exited(0), "{script}");
    }
    assert_eq!(fs::read("/proc/sys/kernel/hostname").unwrap(), hostname);
}

pub(super) fn devices(lab: &Lab) {
    let names = "core fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero";
    assert_eq!(lab.sh("cd /dev && echo *").text(), names);
    let ran = lab.sh(
        "echo x > /dev/null && head -c 3 /dev/zero | wc -c && head -c 4 /dev/urandom | wc -c && echo y > /dev/shm/f && \
         cat /dev/shm/f && readlink /proc/self/fd/0 && ls /dev/pts && test -w /dev/mqueue && \
         ! echo x 2>/dev/null > /dev/full",
    );
    assert_eq!(ran.text(), "3\n4\ny\n/dev/null\nptmx");
    assert_eq!(tree(&ran.upper), [""; 0]);

    // A node may be made on the root (by real root), but neither there nor in /dev, /dev/shm or a file does it work.
    let before = fs::metadata("/dev/null").unwrap();
    for place in ["/node", "/dev/node", "/dev/shm/node", "/tmp/node"] {
        let ran = lab.sh(&format!("mknod {place} c 1 5; head -c 1 {place} | grep -q ."));
        assert_ne!(ran.status(), Status::Exited(0), "{place}");
        assert!(ran.stderr.contains("ermitted") || ran.stderr.contains("denied"), "{}", ran.stderr);
    }
    lab.sh("chmod 600 /dev/null; chown 5 /dev/null; rm -f /dev/null; chmod 600 /proc/self/fd/0; touch /dev/null");
    let after = fs::metadata("/dev/null").unwrap();
    assert_eq!((before.mode(), before.uid(), before.ctime()), (after.mode(), after.uid(), after.ctime()));
}

pub(super) fn networks(lab: &Lab) {
    let script = "cat /proc/net/dev | tail -n +3 | cut -d: -f1 | tr -d ' ' | sort | tr '\\n' ' '";
    assert_eq!(lab.sh(script).text(), "lo");
    assert_eq!(lab.sh("ping -c 1 -W 2 127.0.0.1 >/dev/null && echo up").text(), "up");
    let mut plan = lab.plan(script);
    plan.network = Network::Host;
    let dev = fs::read_to_string("/proc/net/dev").unwrap();
    let mut names: Vec<_> = dev.lines().skip(2).map(|line| line.split(':').next().unwrap().trim()).collect();
    names.sort_unstable();
    assert_eq!(lab.run(plan).text(), names.join(" "));
}

pub(super) fn insecure(lab: &Lab) {
    let mut plan = lab.plan(
        "grep -q '^Seccomp:[[:space:]]*0$' /proc/self/status && mkdir /m && mount -t tmpfs none /m && umount /m && \
         unshare true && test $$ -lt 10 && grep CapEff /proc/self/status | tr -d '[:space:]'",
    );
    plan.security = Security::Insecure;
    let ran = lab.run(plan);
    let effective = ran.text().trim_start_matches("CapEff:").to_owned();
    let docker = privilege::DEFAULT_CAPABILITIES.bits();
    assert!(u64::from_str_radix(&effective, 16).unwrap() > docker, "{effective}");
}

pub(super) fn hostile_links(lab: &Lab) {
    let outside = lab.dir.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("hosts"), "host's").unwrap();
    set_time(&outside, 3_000_000);
    let host = outside.to_str().unwrap();
    let up = format!("../../../../../../../../../..{host}");
    for link in ["proc", "dev", "sys", "etc", "work", "etc/hosts"] {
        for target in [host, &up, "/proc/self/root", "/proc/1/cwd", "/proc/self/fd/3"] {
            let layer = lab.layer();
            let at = layer.join(link);
            fs::create_dir_all(at.parent().unwrap()).unwrap();
            let target = if link == "etc/hosts" { format!("{target}/hosts") } else { target.to_owned() };
            symlink(&target, &at).unwrap();
            let mut plan = lab.plan("echo from inside > /etc/hosts; echo x > /work/file; touch /dev/y; true");
            plan.lowers.insert(0, layer);
            plan.cwd = "/work/deep".into();
            plan.overlaid = vec![overlaid("/etc/hosts", "ours", true)];
            let ran = lab.run(plan);
            let untouched = tree(&outside) == ["hosts"] && fs::metadata(&outside).unwrap().mtime() == 3_000_000;
            assert!(untouched, "/{link} -> {target}: {:?}", tree(&outside));
            assert_eq!(fs::read_to_string(outside.join("hosts")).unwrap(), "host's", "/{link} -> {target}");
            // It either works inside the root, or says what is wrong with the image.
            match &ran.outcome {
                Ok(outcome) => assert_eq!(outcome.status, Status::Exited(0), "/{link} -> {target}: {}", ran.stderr),
                Err(error) => assert!(
                    matches!(error, Error::Target { .. } | Error::Setup { .. } | Error::WorkingDirectory { .. }),
                    "/{link} -> {target}: {}",
                    chain(error)
                ),
            }
        }
    }
    fs::remove_dir_all(outside).unwrap();
}

pub(super) fn out_of_reach(lab: &Lab) {
    let directory = fs::File::open("/").unwrap();
    let number = std::os::fd::AsRawFd::as_raw_fd(&directory);
    let links = ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd"].map(str::to_owned);
    for cwd in (0..40).map(|number| format!("/proc/self/fd/{number}")).chain(links) {
        let mut plan = lab.plan("pwd; ls ..");
        plan.cwd = cwd.into();
        let ran = lab.run(plan);
        let refused =
            matches!(ran.error(), Error::Setup { stage: Stage::WorkingDirectory, .. } | Error::WorkingDirectory { .. });
        assert!(refused, "{}", chain(ran.error()));
    }
    assert_eq!(lab.sh(&format!("ls /proc/self/fd/{number}/; ls /proc/self/fd | tr '\\n' ' '")).text(), "0 1 2 3");
    for program in ["/proc/self/exe", "/proc/thread-self/exe"] {
        let mut plan = lab.plan("");
        plan.argv = strings(&[program, "--list"]);
        let ran = lab.run(plan);
        assert!(matches!(ran.error(), Error::NotExecutable { .. }), "{program}: {}", chain(ran.error()));
    }
}
