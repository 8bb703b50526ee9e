//! Real runs, as root and in user namespaces.
//!
//! Each mode is one process of its own, this test binary started again, that goes through all [`SCENARIOS`] one after
//! the other: entering a user namespace needs a process without threads, and counting descriptors one without
//! neighbours.

mod confinement;
mod mounting;
mod processes;
mod root;

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
    ("exit codes and signals are passed on", processes::exit_codes_and_signals),
    ("ten megabytes arrive whole on both streams", processes::output_is_whole),
    ("orphans are reaped, what is left is killed", processes::orphans),
    ("cancelling ends every process", processes::cancelling),
    ("limits are the plan's", processes::limits),
    ("a panic in the callback ends every process", processes::panicking_callback),
    ("environment, directory, user and host name are the plan's", confinement::surroundings),
    ("the host is out of sight", confinement::host_out_of_sight),
    ("capabilities are Docker's", confinement::capabilities),
    ("system calls are filtered", confinement::system_calls),
    ("32-bit programs run", confinement::narrow_programs),
    ("the filter answers as the policy says", confinement::filter_in_the_kernel),
    ("the kernel's settings are protected", confinement::protected_settings),
    ("devices work and cannot be made", confinement::devices),
    ("the network is the plan's", confinement::networks),
    ("programs that cannot run are explained", root::unrunnable_programs),
    ("overlaid files leave no trace", root::overlaid_files),
    ("the upper directory has what the process did", root::upper_is_exact),
    ("hidden mount points leave no trace", root::hidden_mount_points),
    ("mounts of every kind are seen and leave no trace", mounting::mounts_of_every_kind),
    ("mounts lie in each other in any order", mounting::nested_mounts),
    ("mounts that cannot be made are explained", mounting::impossible_mounts),
    ("without confinement only the namespaces stay", confinement::insecure),
    ("hostile links stay inside", confinement::hostile_links),
    ("what is the builder's is out of reach", confinement::out_of_reach),
    ("things in the way are named", root::things_in_the_way),
    ("a root without lower directories works", root::no_lowers),
    ("a hundred layers work", root::many_layers),
    ("runs side by side do not disturb each other", processes::side_by_side),
    ("nothing leaks", processes::nothing_leaks),
    ("killing the builder ends the sandbox", processes::killed_builder),
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
            "victim" => processes::be_a_victim(),
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
