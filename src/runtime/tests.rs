//! Real runs, as root and in user namespaces.
//!
//! Each mode is one process of its own, this test binary started again, that goes through all [`SCENARIOS`] one after
//! the other: entering a user namespace needs a process without threads, and counting descriptors one without
//! neighbours.

use std::ffi::CString;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::*;

/// Names the mode of a process that [`laboratory`] runs in.
const MODE: &str = "STRATA_RUNTIME_TEST_MODE";
const BUSYBOX: &str = "/bin/busybox";

type Scenario = (&'static str, fn(&Lab));

const SCENARIOS: &[Scenario] = &[
    ("exit codes and signals are passed on", exit_codes_and_signals),
    ("ten megabytes arrive whole on both streams", output_is_whole),
    ("orphans are reaped, what is left is killed", orphans),
    ("cancelling ends every process", cancelling),
    ("limits are the plan's", limits),
    ("a panic in the callback ends every process", panicking_callback),
    ("environment, directory, user and host name are the plan's", surroundings),
    ("the host is out of sight", host_out_of_sight),
    ("capabilities are Docker's", capabilities),
    ("system calls are filtered", system_calls),
    ("32-bit programs run", narrow_programs),
    ("the filter answers as the policy says", filter_in_the_kernel),
    ("the kernel's settings are protected", protected_settings),
    ("devices work and cannot be made", devices),
    ("the network is the plan's", networks),
    ("programs that cannot run are explained", unrunnable_programs),
    ("overlaid files leave no trace", overlaid_files),
    ("the upper directory has what the process did", upper_is_exact),
    ("hidden mount points leave no trace", hidden_mount_points),
    ("mounts of every kind are seen and leave no trace", mounts_of_every_kind),
    ("mounts lie in each other in any order", nested_mounts),
    ("mounts that cannot be made are explained", impossible_mounts),
    ("without confinement only the namespaces stay", insecure),
    ("hostile links stay inside", hostile_links),
    ("what is the builder's is out of reach", out_of_reach),
    ("things in the way are named", things_in_the_way),
    ("a root without lower directories works", no_lowers),
    ("a hundred layers work", many_layers),
    ("runs side by side do not disturb each other", side_by_side),
    ("nothing leaks", nothing_leaks),
    ("killing the builder ends the sandbox", killed_builder),
];

#[test]
fn as_root() {
    let Some(()) = privileged("the sandbox as root") else { return };
    start_laboratory("root", None);
}

#[test]
fn as_user_with_a_single_id() {
    if privileged("the sandbox of a user without granted ids").is_some() {
        // Nobody's, in no file below /etc.
        start_laboratory("user", Some((54_321, 54_321)));
    }
}

#[test]
fn as_user_with_granted_ids() {
    if !rustix::process::geteuid().is_root() {
        // Whoever runs the tests, with whatever ids they have.
        return start_laboratory("user", None);
    }
    let Some(()) = privileged("the sandbox of a user with granted ids") else { return };
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let granted = fs::read_to_string("/etc/subuid").unwrap_or_default();
    let user = passwd.lines().find_map(|line| {
        let fields: Vec<_> = line.split(':').collect();
        let id = |n: usize| fields.get(n)?.parse::<u32>().ok();
        let (uid, gid) = (id(2)?, id(3)?);
        (uid != 0 && granted.lines().any(|line| line.split(':').next() == fields.first().copied()))
            .then_some((uid, gid))
    });
    match user {
        Some(user) => start_laboratory("user", Some(user)),
        None => eprintln!("SKIPPED: no user has a line in /etc/subuid: useradd -m strata-test makes one"),
    }
}

/// The one place where tests that need root say that they are not run.
fn privileged(what: &str) -> Option<()> {
    if !rustix::process::geteuid().is_root() || userns::needed() {
        eprintln!("SKIPPED: {what} is only tested by root, who can also become others");
        return None;
    }
    assert!(Path::new(BUSYBOX).exists(), "the tests run {BUSYBOX}: apt-get install busybox-static");
    Some(())
}

/// Starts this binary again to run [`laboratory`] as somebody, in a directory of theirs.
fn start_laboratory(mode: &str, user: Option<(u32, u32)>) {
    let home = tempfile::tempdir().unwrap();
    let mut command = this_test_binary(mode, home.path());
    if let Some((uid, gid)) = user {
        chown(home.path(), Some(uid), Some(gid)).unwrap();
        command.uid(uid).gid(gid);
    }
    let output = command.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "mode {mode} as {user:?}:\n{}", String::from_utf8_lossy(&text));
}

fn this_test_binary(mode: &str, home: &Path) -> Command {
    // Not its path: another build may have put a new binary there meanwhile.
    let mut command = Command::new("/proc/self/exe");
    command.args(["runtime::tests::laboratory", "--exact", "--nocapture", "--test-threads=1"]);
    command.env(MODE, mode).env("TMPDIR", home).current_dir("/");
    command
}

/// Not a test by itself: what the processes started by the tests above do.
#[test]
fn laboratory() {
    let Ok(mode) = std::env::var(MODE) else { return };
    let status = sys::fork_and_wait(|| {
        match mode.as_str() {
            "victim" => be_a_victim(),
            mode => go_through_all(mode),
        }
        0
    });
    assert_eq!(status, 0);
}

fn go_through_all(mode: &str) {
    let entered = (mode == "user").then(|| userns::enter().unwrap());
    eprintln!("entered: {entered:?}");
    let lab = Lab::new(entered.is_none_or(|entered| !entered.single));
    let only = std::env::var("STRATA_RUNTIME_TEST_ONLY").unwrap_or_default();
    let mut failed = Vec::new();
    for (name, scenario) in SCENARIOS.iter().filter(|(name, _)| name.contains(&only)) {
        eprintln!("--- {name}");
        if catch_unwind(AssertUnwindSafe(|| scenario(&lab))).is_err() {
            failed.push(*name);
        }
    }
    assert!(failed.is_empty(), "failed: {failed:#?}");
}

/// A base with busybox, and a way to run things on it.
struct Lab {
    dir: tempfile::TempDir,
    base: PathBuf,
    /// Whether ids other than 0 can be used.
    many_ids: bool,
}

/// What one run gave.
struct Ran {
    outcome: Result<Outcome, Error>,
    stdout: String,
    stderr: String,
    /// The upper directory, kept as long as this.
    upper: PathBuf,
    _scratch: tempfile::TempDir,
}

impl Ran {
    fn status(&self) -> Status {
        match &self.outcome {
            Ok(outcome) => outcome.status,
            Err(error) => panic!("{}", chain(error)),
        }
    }

    fn error(&self) -> &Error {
        self.outcome.as_ref().expect_err("the run should not have been possible")
    }

    /// The output of a run that must have succeeded.
    fn text(&self) -> &str {
        assert_eq!(self.status(), Status::Exited(0), "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        self.stdout.trim_end()
    }
}

/// An error with all its causes.
fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl Lab {
    fn new(many_ids: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        fs::create_dir_all(base.join("bin")).unwrap();
        fs::copy(BUSYBOX, base.join("bin/busybox")).unwrap();
        let applets = Command::new(BUSYBOX).arg("--list").output().unwrap().stdout;
        for applet in String::from_utf8(applets).unwrap().lines().filter(|applet| *applet != "busybox") {
            symlink("busybox", base.join("bin").join(applet)).unwrap();
        }
        fs::create_dir(base.join("tmp")).unwrap();
        fs::set_permissions(base.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::create_dir(base.join("etc")).unwrap();
        fs::write(base.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
        fs::write(base.join("old"), "old").unwrap();
        for path in ["etc/passwd", "etc", "old", "bin", "tmp", ""] {
            set_time(&base.join(path), 1_000_000);
        }
        Self { dir, base, many_ids }
    }

    /// A directory to put another layer in.
    fn layer(&self) -> PathBuf {
        tempfile::tempdir_in(self.dir.path()).unwrap().keep()
    }

    fn plan(&self, script: &str) -> Plan {
        Plan {
            lowers: vec![self.base.clone()],
            upper: PathBuf::new(),
            work: PathBuf::new(),
            userxattr: userns::inside(),
            argv: strings(&["sh", "-c", script]),
            env: strings(&["PATH=/usr/bin:/bin"]),
            cwd: "/".into(),
            identity: Identity::default(),
            hostname: "sandbox".to_owned(),
            overlaid: Vec::new(),
            mounts: Vec::new(),
            security: Security::Sandbox,
            network: Network::None,
            limits: Limits::default(),
        }
    }

    fn run(&self, plan: Plan) -> Ran {
        self.run_with(plan, &Cancel::new(), &|_, _| ())
    }

    fn run_with(&self, mut plan: Plan, cancel: &Cancel, notice: &(dyn Fn(OutputStream, &[u8]) + Sync)) -> Ran {
        let scratch = tempfile::tempdir_in(self.dir.path()).unwrap();
        if plan.upper.as_os_str().is_empty() {
            plan.upper = scratch.path().join("upper");
            fs::create_dir(&plan.upper).unwrap();
        }
        plan.work = scratch.path().join("work");
        fs::create_dir(&plan.work).unwrap();
        let texts = [Mutex::new(Vec::new()), Mutex::new(Vec::new())];
        let output = |stream, bytes: &[u8]| {
            texts[usize::from(stream == OutputStream::Stderr)].lock().unwrap().extend_from_slice(bytes);
            notice(stream, bytes);
        };
        let outcome = super::run(&plan, &output, cancel);
        assert_eq!(tree(&plan.work), [""; 0], "the work directory is empty afterwards");
        let [stdout, stderr] = texts.map(|text| String::from_utf8(text.into_inner().unwrap()).unwrap());
        Ran { outcome, stdout, stderr, upper: plan.upper, _scratch: scratch }
    }

    fn sh(&self, script: &str) -> Ran {
        self.run(self.plan(script))
    }
}

fn strings(items: &[&str]) -> Vec<CString> {
    items.iter().map(|item| CString::new(*item).unwrap()).collect()
}

fn overlaid(target: &str, content: &str, writable: bool) -> Overlaid {
    Overlaid { target: target.into(), content: content.into(), mode: 0o644, writable }
}

fn set_time(path: &Path, seconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything below a directory: `path/` for directories, `!path` for whiteouts.
fn tree(dir: &Path) -> Vec<String> {
    let (mut found, mut pending) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(&at).unwrap().map(Result::unwrap) {
            let (path, metadata) = (entry.path(), entry.metadata().unwrap());
            let name = path.strip_prefix(dir).unwrap().display().to_string();
            if metadata.is_dir() {
                found.push(format!("{name}/"));
                pending.push(path);
            } else if metadata.file_type().is_char_device() && metadata.rdev() == 0 {
                found.push(format!("!{name}"));
            } else {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// How many processes on the host have `marker` in their command line.
fn processes(marker: &str) -> usize {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| String::from_utf8_lossy(line).replace('\0', " ").contains(marker)).count()
}

/// A command that nobody else runs: the other modes of this test run at the same time and see the same `/proc`.
fn long_sleep(number: u32) -> String {
    format!("sleep {}{number}", 10_000_000 + std::process::id())
}

/// Waits for something that another process does; the limit only turns a hang into a failure.
fn eventually(what: &str, done: impl Fn() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} does not happen");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn exit_codes_and_signals(lab: &Lab) {
    for (script, status) in [
        ("exit 0", Status::Exited(0)),
        ("exit 3", Status::Exited(3)),
        ("exit 255", Status::Exited(255)),
        ("kill -TERM $$", Status::Signaled(15)),
        ("kill -KILL $$", Status::Signaled(9)),
        ("yes | head -n 1", Status::Exited(0)),
    ] {
        assert_eq!(lab.sh(script).status(), status, "{script}");
    }
    let busy = lab.sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done");
    assert!(busy.outcome.unwrap().cpu > Duration::ZERO);
}

fn output_is_whole(lab: &Lab) {
    let ran = lab.sh("(yes abcdefg | head -c 10485760) & (yes 1234567 | head -c 10485760) >&2; wait");
    assert_eq!(ran.status(), Status::Exited(0));
    assert!(ran.stdout == "abcdefg\n".repeat(1_310_720), "stdout has {} bytes", ran.stdout.len());
    assert!(ran.stderr == "1234567\n".repeat(1_310_720), "stderr has {} bytes", ran.stderr.len());
}

fn orphans(lab: &Lab) {
    let long = long_sleep(1);
    let ran = lab.sh(&format!("(sleep 0.05 &) ; ({long} &) ; sleep 0.2; ps -o stat,args"));
    assert!(!ran.text().lines().any(|line| line.starts_with('Z')), "a zombie: {}", ran.stdout);
    assert!(ran.stdout.contains(&long), "{}", ran.stdout);
    assert_eq!(processes(&long), 0, "what the process left running is gone");
}

fn cancelling(lab: &Lab) {
    let cancel = Cancel::new();
    let other = cancel.clone();
    let notice = move |_, _: &[u8]| other.cancel();
    let long = long_sleep(2);
    let script = format!("trap '' TERM INT HUP; ({long} &); echo; {long}");
    let ran = lab.run_with(lab.plan(&script), &cancel, &notice);
    assert_eq!(ran.status(), Status::Cancelled);
    assert_eq!(processes(&long), 0);
    // Once cancelled, nothing starts any more.
    assert_eq!(lab.run_with(lab.plan("exit 0"), &cancel, &|_, _| ()).status(), Status::Cancelled);
    // From another thread, at any time.
    for delay in [0, 1, 2, 3, 5, 20] {
        let cancel = Cancel::new();
        let other = cancel.clone();
        let thread = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(delay));
            other.cancel();
        });
        assert_eq!(lab.run_with(lab.plan(&long), &cancel, &|_, _| ()).status(), Status::Cancelled);
        thread.join().unwrap();
    }
    assert_eq!(processes(&long), 0);
}

fn limits(lab: &Lab) {
    use crate::limits::Pids;
    let limited = |script: &str, limits: Limits| lab.run(Plan { limits, ..lab.plan(script) });
    let long = long_sleep(7);
    let timeout = Some(Duration::from_millis(100));
    let ran =
        limited(&format!("trap '' TERM; ({long} &); echo begun; {long}"), Limits { timeout, ..Limits::default() });
    assert_eq!((ran.status(), ran.stdout.as_str()), (Status::TimedOut, "begun\n"));
    assert_eq!(processes(&long), 0);
    let ulimits = vec!["nofile=100:200".parse().unwrap(), "core=0".parse().unwrap(), "nofile=50:60".parse().unwrap()];
    let limits = Limits { ulimits, shm_size: Some(1 << 20), ..Limits::default() };
    assert_eq!(
        limited("ulimit -n; ulimit -Hn; df -k /dev/shm | tail -n 1 | tr -s ' ' | cut -d ' ' -f 2", limits).text(),
        "50\n60\n1024"
    );
    let ulimits = vec!["core=0".parse().unwrap(), "nofile=99999999999".parse().unwrap()];
    let ran = limited("true", Limits { ulimits, ..Limits::default() });
    assert!(chain(ran.error()).contains("--ulimit nofile=99999999999:99999999999 (a hard limit"), "{:?}", ran.error());
    let pids = Some(Pids::Most(10));
    let ran = limited("for i in $(seq 50); do sleep 100 & done", Limits { pids, ..Limits::default() });
    match &ran.outcome {
        Ok(outcome) => {
            assert_ne!(outcome.status, Status::Exited(0));
            assert_eq!(outcome.reached, Reached { memory: false, pids: true });
            let ran = limited("cat /proc/self/cgroup", Limits { pids, ..Limits::default() });
            let text = ran.text();
            assert!(!text.contains("strata-") && !text.contains(".."), "the group is the root of what is seen: {text}");
        }
        // Rootless, somebody has to delegate a group; and who is root in a container may not be able to make one.
        Err(error) => assert!(chain(error).contains("--pids-limit cannot be set"), "{}", chain(error)),
    }
}

fn panicking_callback(lab: &Lab) {
    let long = long_sleep(3);
    let notice = |_, _: &[u8]| panic!("on purpose");
    let ran = catch_unwind(AssertUnwindSafe(|| {
        lab.run_with(lab.plan(&format!("echo; {long}")), &Cancel::new(), &notice);
    }));
    assert!(ran.is_err());
    assert_eq!(processes(&long), 0);
}

fn surroundings(lab: &Lab) {
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

fn host_out_of_sight(lab: &Lab) {
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
    let (before, after) = (mounts(), mounts());
    assert_eq!(before, after);
}

fn capabilities(lab: &Lab) {
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

fn system_calls(lab: &Lab) {
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
fn narrow_program(number: u32, argument: u32) -> Vec<u8> {
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
fn wide_program(number: u32, argument: u32) -> Vec<u8> {
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
fn run_bytes(lab: &Lab, program: &[u8]) -> Ran {
    let layer = lab.layer();
    fs::write(layer.join("program"), program).unwrap();
    fs::set_permissions(layer.join("program"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut plan = lab.plan("");
    plan.lowers.insert(0, layer);
    plan.argv = strings(&["/program"]);
    lab.run(plan)
}

#[cfg(target_arch = "x86_64")]
fn narrow_programs(lab: &Lab) {
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
fn filter_in_the_kernel(lab: &Lab) {
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
fn filter_in_the_kernel(_: &Lab) {
    eprintln!("SKIPPED: the programs of this test are for x86");
}

#[cfg(not(target_arch = "x86_64"))]
fn narrow_programs(_: &Lab) {
    eprintln!("SKIPPED: the 32-bit program of this test is for x86");
}

fn protected_settings(lab: &Lab) {
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

fn devices(lab: &Lab) {
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

fn networks(lab: &Lab) {
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

fn unrunnable_programs(lab: &Lab) {
    let layer = lab.layer();
    let executable = |name: &str, content: &[u8]| {
        fs::write(layer.join(name), content).unwrap();
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable("script", b"#!/usr/bin/nope -x\n");
    executable("dos", b"#!/bin/sh\r\n");
    executable("plain", b"echo\n");
    executable("empty", b"");
    executable("foreign", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0");
    fs::write(layer.join("data"), "x").unwrap();
    fs::create_dir(layer.join("dir")).unwrap();
    for (program, status, words) in [
        ("nonsense", 127, "nonsense: not found in the root file system (PATH is /usr/bin:/bin)"),
        ("/bin/nonsense", 127, "/bin/nonsense: not found in the root file system"),
        ("", 127, ": not found in the root file system"),
        ("/script", 127, "/script: exists, but its interpreter /usr/bin/nope does not"),
        ("/dos", 127, "/dos: exists, but its interpreter /bin/sh\\r does not"),
        ("/plain", 126, "/plain: cannot be run: it is neither an ELF file nor a script with a #! line: Exec format"),
        ("/empty", 126, "/empty: cannot be run: it is empty"),
        ("/foreign", 126, "/foreign: cannot be run: it is made for RISC-V; this host is"),
        ("/data", 126, "/data: cannot be run: it is not executable for this user: Permission denied"),
        ("/dir", 126, "/dir: cannot be run: it is not a file: Permission denied"),
        ("/etc/passwd/x", 127, "/etc/passwd/x: not found in the root file system"),
    ] {
        let mut plan = lab.plan("");
        plan.lowers.insert(0, layer.clone());
        plan.argv = strings(&[program]);
        let ran = lab.run(plan);
        let text = chain(ran.error());
        assert_eq!(ran.error().exit_status(), Some(status), "{program}: {text}");
        assert!(text.starts_with(words), "{program}: {text}");
    }
    let mut plan = lab.plan("");
    plan.argv = strings(&["./busybox", "pwd"]);
    plan.cwd = "/bin".into();
    assert_eq!(lab.run(plan).text(), "/bin");
    let mut plan = lab.plan("");
    plan.argv = strings(&["busybox", "echo", "found"]);
    plan.env = strings(&["PATH=/etc/passwd::/nowhere"]);
    plan.cwd = "/bin".into();
    assert_eq!(lab.run(plan).text(), "found", "an empty entry of PATH is the working directory");
}

fn overlaid_files(lab: &Lab) {
    let script = "cat /etc/hosts /etc/resolv.conf /opt/deep/file; echo no > /etc/hosts; echo yes > /etc/resolv.conf; \
                  cat /etc/hosts /etc/resolv.conf; rm -f /etc/hosts; mv /etc/resolv.conf /etc/x; \
                  stat -c %a /etc/hosts; true";
    let mut plan = lab.plan(script);
    plan.overlaid = vec![
        overlaid("/etc/hosts", "hosts\n", false),
        overlaid("/etc/resolv.conf", "resolv\n", true),
        overlaid("/opt/deep/file", "deep\n", false),
    ];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "hosts\nresolv\ndeep\nhosts\nyes\n644");
    assert_eq!(tree(&ran.upper), ["etc/"; 0]);
    assert_eq!(fs::metadata(&ran.upper).unwrap().mtime(), 1_000_000, "the root's time is that of the layer below");

    let mut plan = lab.plan("/dev/pipes/script; ls -l /dev/pipes | tail -1 | cut -c1-10");
    let script = Overlaid { mode: 0o755, ..overlaid("/dev/pipes/script", "#!/bin/sh\necho ran \"$0\"\n", false) };
    plan.overlaid = vec![overlaid("/etc/hosts", "", false), script];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "ran /dev/pipes/script\n-rwxr-xr-x");
    assert_eq!(tree(&ran.upper), ["etc/"; 0]);

    let refused = ["relative", "/", "/proc/x", "/dev/shm/x", "/dev/null/x", "/dev/x", "/dev/a/../x", "/etc/../../x"];
    for target in refused {
        let mut plan = lab.plan("true");
        plan.overlaid = vec![overlaid(target, "", false)];
        assert!(matches!(lab.run(plan).error(), Error::Plan { .. }), "{target}");
    }
}

fn upper_is_exact(lab: &Lab) {
    let mut plan =
        lab.plan("echo new > /new; rm /old; mkdir -p /opt/a; touch /opt/deep/x; chmod 700 /etc; ln -s /proc /p");
    plan.overlaid = vec![overlaid("/etc/hosts", "", false), overlaid("/opt/deep/file", "", false)];
    let ran = lab.run(plan);
    ran.text();
    assert_eq!(tree(&ran.upper), ["!old", "etc/", "new", "opt/", "opt/a/", "opt/deep/", "opt/deep/x", "p"]);
    assert_eq!(fs::metadata(ran.upper.join("etc")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        fs::metadata(ran.upper.join("etc")).unwrap().mtime(),
        1_000_000,
        "a change of mode is not one of content"
    );
}

fn mount(target: &str, source: Source, writable: bool) -> Mount {
    Mount { target: target.into(), source, writable }
}

fn secret(content: &str) -> Source {
    Source::Secret { content: content.into(), mode: 0o400, uid: 0, gid: 0 }
}

impl Lab {
    /// A mount of a new layer with a file `f` and a directory `d` that has a file `g`.
    fn layers(&self, path: &str) -> Source {
        let layer = self.layer();
        fs::write(layer.join("f"), "f\n").unwrap();
        fs::create_dir(layer.join("d")).unwrap();
        fs::write(layer.join("d/g"), "g\n").unwrap();
        symlink("/d/g", layer.join("link")).unwrap();
        Source::Layers { lowers: vec![layer], path: path.into(), scratch: self.layer() }
    }
}

fn mounts_of_every_kind(lab: &Lab) {
    let host = lab.layer();
    fs::write(host.join("kept"), "kept\n").unwrap();
    let mut plan = lab.plan(
        "cat /a/f /b /c/g /d /e/kept /s; touch /a/x || echo read-only; echo new > /w/f && cat /w/f; echo y > /e/y; \
         echo no > /s || stat -c '%a %s' /s; stat -c %a /t /tmp; touch /t/x; head -c 70000 /dev/zero > /t/y || echo full",
    );
    plan.mounts = vec![
        mount("/a", lab.layers(""), false),
        mount("/b", lab.layers("f"), false),
        mount("/c", lab.layers("d"), false),
        mount("/d", lab.layers("link"), false),
        mount("/w", lab.layers(""), true),
        mount("/e", Source::Host(host.clone()), true),
        mount("/s", secret("secret\n"), false),
        mount("/t", Source::Memory { size: Some(65536) }, true),
        mount("/tmp", Source::Memory { size: None }, true),
        mount("/old", lab.layers("f"), false),
    ];
    assert!(!format!("{plan:?}").contains("115, 101, 99"), "a secret is not shown with the plan");
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "f\nf\ng\ng\nkept\nsecret\nread-only\nnew\n400 7\n1777\n1777\nfull");
    assert_eq!(tree(&ran.upper), [""; 0]);
    assert_eq!(fs::metadata(&ran.upper).unwrap().mtime(), 1_000_000, "the root's time is that of the layer below");
    assert_eq!(tree(&host), ["kept", "y"]);
}

fn nested_mounts(lab: &Lab) {
    let host = lab.layer();
    let mut plan = lab.plan("cat /a/d/new/deep /a/h/b/f /a/d/g /m/s /run/l/s; test -d /a/m");
    let link = lab.layer();
    symlink("/m", link.join("via")).unwrap();
    fs::create_dir(link.join("run")).unwrap();
    symlink("../m", link.join("run/l")).unwrap();
    plan.lowers.insert(0, link);
    plan.mounts = vec![
        mount("/a/h/b", lab.layers(""), false),
        mount("/a/d/new/deep", secret("deep\n"), false),
        mount("/a/h", Source::Host(host.clone()), true),
        mount("/a/m", Source::Memory { size: None }, true),
        mount("/a", lab.layers(""), false),
        mount("/via/s", secret("through a link\n"), false),
        mount("/m", Source::Memory { size: None }, true),
    ];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "deep\nf\ng\nthrough a link\nthrough a link");
    assert_eq!(tree(&ran.upper), [""; 0]);
    assert_eq!(tree(&host), ["b/"], "a directory of the host keeps the place");
}

fn impossible_mounts(lab: &Lab) {
    let file = || lab.layers("f");
    let cases: Vec<(Vec<Mount>, &str)> = vec![
        (vec![mount("/etc", file(), false)], "/etc: it is not a regular file"),
        (vec![mount("/etc/passwd", lab.layers(""), false)], "/etc/passwd: it is not a directory"),
        (vec![mount("/x", lab.layers("missing"), false)], "/missing on /x"),
        (vec![mount("/proc/sys", Source::Memory { size: None }, true)], "/proc/sys"),
        (vec![mount("/sys", Source::Memory { size: None }, true)], "/sys"),
        (vec![mount("/dev/x", Source::Memory { size: None }, true)], "/dev/x"),
        (vec![mount("/", Source::Memory { size: None }, true)], "/ is no absolute path"),
        (vec![mount("/a/../b", Source::Memory { size: None }, true)], "/a/../b is no absolute path"),
        (vec![mount("/x", Source::Host("/no/such".into()), true)], "cannot mount on /x"),
        (vec![mount("/f", file(), false), mount("/f/x", file(), false)], "/f/x: a file is mounted on /f"),
        (vec![mount("/f", file(), false), mount("/f", lab.layers(""), false)], "/f: a file is mounted on /f"),
        (vec![mount("/a", lab.layers(""), false), mount("/a/link/x", file(), false)], "/a/link"),
    ];
    for (mounts, part) in cases {
        let mut plan = lab.plan("true");
        plan.mounts = mounts;
        let ran = lab.run(plan);
        let text = chain(ran.error());
        assert!(text.contains(part), "{part}: {text}");
        assert_eq!(tree(&ran.upper), [""; 0], "{part}");
    }
}

fn insecure(lab: &Lab) {
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

/// Mount points that the skeleton below all layers cannot provide, since something above hides it.
fn hidden_mount_points(lab: &Lab) {
    let xattr = if userns::inside() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    let layer = lab.layer();
    // An opaque /etc, a deleted /proc, a dangling link to a directory that is not there, and a directory with a look.
    fs::create_dir(layer.join("etc")).unwrap();
    rustix::fs::setxattr(layer.join("etc"), xattr, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    symlink("../run/deep/stub", layer.join("etc/resolv.conf")).unwrap();
    let whiteout = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, layer.join("proc"), whiteout, rustix::fs::Mode::empty(), 0).unwrap();
    fs::create_dir(layer.join("run")).unwrap();
    fs::set_permissions(layer.join("run"), fs::Permissions::from_mode(0o1770)).unwrap();
    rustix::fs::setxattr(layer.join("run"), "user.look", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    for path in ["etc", "run", ""] {
        set_time(&layer.join(path), 2_000_000);
    }
    let script = "cat /etc/hosts /run/deep/stub /etc/resolv.conf; stat -c '%a %Y' /run /etc; \
                  test -e /proc/self && touch /run/new";
    let mut plan = lab.plan(script);
    plan.lowers.insert(0, layer);
    plan.overlaid = vec![overlaid("/etc/hosts", "hosts\n", false), overlaid("/etc/resolv.conf", "resolv\n", false)];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "hosts\nresolv\nresolv\n1770 2000000\n755 2000000");
    assert_eq!(tree(&ran.upper), ["run/", "run/new"]);
    let run = fs::metadata(ran.upper.join("run")).unwrap();
    assert_eq!(run.mode() & 0o7777, 0o1770);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(ran.upper.join("run"), "user.look", value.as_mut_slice()), Ok(4));
}

fn hostile_links(lab: &Lab) {
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

fn out_of_reach(lab: &Lab) {
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

fn things_in_the_way(lab: &Lab) {
    let layer = lab.layer();
    fs::write(layer.join("proc"), "").unwrap();
    let mut plan = lab.plan("true");
    plan.lowers.insert(0, layer.clone());
    let error = chain(lab.run(plan).error());
    assert_eq!(error, "the root has no place for /proc: it is not a directory");
    fs::remove_file(layer.join("proc")).unwrap();
    fs::create_dir_all(layer.join("etc/hosts")).unwrap();
    symlink("loop", layer.join("loop")).unwrap();
    for (target, words) in [
        ("/etc/hosts", "not a regular file"),
        ("/old/x", "other than a directory"),
        ("/loop/x", "circle"),
        ("/bin/sh", ""),
    ] {
        let mut plan = lab.plan("true");
        plan.lowers.insert(0, layer.clone());
        plan.overlaid = vec![overlaid(target, "", false)];
        let ran = lab.run(plan);
        let error = chain(ran.error());
        assert!(error.contains(words), "{target}: {error}");
    }
    for cwd in ["/old", "/old/x"] {
        let mut plan = lab.plan("true");
        plan.cwd = cwd.into();
        assert!(matches!(lab.run(plan).error(), Error::WorkingDirectory { .. }), "{cwd}");
    }
    for cwd in ["/proc/self", "/dev/shm", "/sys"] {
        let mut plan = lab.plan("true");
        plan.cwd = cwd.into();
        let ran = lab.run(plan);
        ran.text();
        assert_eq!(tree(&ran.upper), [""; 0], "{cwd}");
    }
    let mut plan = lab.plan("true");
    plan.cwd = "/dev/shm/missing".into();
    assert!(matches!(lab.run(plan).error(), Error::Setup { stage: Stage::WorkingDirectory, .. }));
    let mut plan = lab.plan("true");
    plan.lowers.push(lab.dir.path().join("missing"));
    let error = chain(lab.run(plan).error());
    assert!(error.contains("cannot open") && error.contains("missing"), "{error}");
}

fn no_lowers(lab: &Lab) {
    let upper = lab.layer();
    fs::create_dir(upper.join("bin")).unwrap();
    fs::copy(BUSYBOX, upper.join("bin/busybox")).unwrap();
    let mut plan = lab.plan("");
    plan.lowers = Vec::new();
    plan.upper = upper;
    plan.argv = strings(&["busybox", "sh", "-c", "busybox ls /; busybox touch /x; busybox stat -c %a /"]);
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "bin\ndev\nproc\nsys\n755");
    assert_eq!(tree(&ran.upper), ["bin/", "bin/busybox", "x"]);
}

fn many_layers(lab: &Lab) {
    let mut plan = lab.plan("cat /number; ls /many | wc -l");
    for number in 0..100 {
        let layer = lab.layer();
        fs::create_dir(layer.join("many")).unwrap();
        fs::write(layer.join("many").join(number.to_string()), "").unwrap();
        fs::write(layer.join("number"), format!("{number}\n")).unwrap();
        plan.lowers.insert(0, layer);
    }
    assert_eq!(lab.run(plan).text(), "99\n100");
    let mut plan = lab.plan("true");
    plan.lowers = vec![lab.base.clone(); 501];
    assert!(matches!(lab.run(plan).error(), Error::TooManyLayers { count: 501, .. }));
}

fn side_by_side(lab: &Lab) {
    std::thread::scope(|scope| {
        for thread in 0..6 {
            scope.spawn(move || {
                for round in 0..10 {
                    let text = format!("{thread}-{round}");
                    let ran = lab.sh(&format!("echo {text} | tee /file; sleep 0.0{thread}"));
                    assert_eq!(ran.text(), text);
                    assert_eq!(fs::read_to_string(ran.upper.join("file")).unwrap().trim(), text);
                    assert_eq!(tree(&ran.upper), ["file"]);
                }
            });
        }
    });
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

fn nothing_leaks(lab: &Lab) {
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let children = || fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    lab.sh("true");
    let before = (descriptors(), children(), mounts());
    for number in 0..50 {
        match number % 5 {
            0 => drop(lab.sh("(sleep 100 &); exit 1")),
            1 => {
                let cancel = Cancel::new();
                let other = cancel.clone();
                drop(lab.run_with(lab.plan("echo; sleep 100"), &cancel, &move |_, _| other.cancel()));
            }
            2 => {
                let mut plan = lab.plan("");
                plan.argv = strings(&["/missing"]);
                drop(lab.run(plan));
            }
            3 => {
                let mut plan = lab.plan("true");
                plan.overlaid = vec![overlaid("/old/x", "", false)];
                drop(lab.run(plan));
            }
            _ => drop(lab.sh("true")),
        }
    }
    assert_eq!((descriptors(), children(), mounts()), before);
}

fn killed_builder(lab: &Lab) {
    let mut victim = this_test_binary("victim", lab.dir.path());
    let long = long_sleep(4);
    let mut victim = victim
        .env(VICTIMS_COMMAND, &long)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    let group = rustix::process::Pid::from_child(&victim);
    let started = catch_unwind(|| eventually("the victim's sandbox", || processes(&long) == 1));
    rustix::process::kill_process_group(group, rustix::process::Signal::KILL).unwrap();
    victim.wait().unwrap();
    started.unwrap();
    eventually("the end of the sandbox", || processes(&long) == 0);
}

/// The variable by which a victim is told what to run.
const VICTIMS_COMMAND: &str = "STRATA_TEST_VICTIMS_COMMAND";

/// Runs something long, to be killed. (Root of a user namespace already, if its parent is.)
fn be_a_victim() {
    let lab = Lab::new(false);
    let mut plan = lab.plan("");
    let command = std::env::var(VICTIMS_COMMAND).unwrap();
    plan.argv = strings(&command.split(' ').collect::<Vec<_>>());
    lab.run(plan);
}
