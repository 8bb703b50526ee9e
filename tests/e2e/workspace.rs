//! A directory for one test: a build context, a store, a home, and the binary to run in them.
//!
//! Every run is bounded in time, has an environment of its own and leaves its output as text. When a workspace goes, its
//! processes and mounts are gone already, or the test says which are left.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longer than any single run needs, even on a busy machine.
const LIMIT: Duration = Duration::from_secs(180);

/// Who runs the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Who {
    /// The user who runs the tests.
    Caller,
    /// Another user of this machine; the caller is root.
    User {
        /// The name in `/etc/passwd`.
        name: String,
        /// The user's number.
        uid: u32,
        /// The number of the user's group.
        gid: u32,
    },
}

impl Who {
    /// A user of this machine by name, where there is one.
    pub(crate) fn named(name: &str) -> Option<Self> {
        let passwd = fs::read_to_string("/etc/passwd").ok()?;
        let fields = passwd.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|fields| fields[0] == name)?;
        Some(Self::User { name: name.to_owned(), uid: fields[2].parse().ok()?, gid: fields[3].parse().ok()? })
    }
}

/// A directory for one test.
#[derive(Debug)]
pub(crate) struct Workspace {
    directory: TempDir,
    who: Who,
    binary: PathBuf,
}

impl Workspace {
    /// A workspace of the caller's.
    pub(crate) fn new() -> Self {
        Self::of(Who::Caller)
    }

    /// A workspace in which another user runs the binary.
    pub(crate) fn of(who: Who) -> Self {
        let directory = tempfile::Builder::new().prefix("strata-e2e-").tempdir().unwrap();
        let mut binary = PathBuf::from(env!("CARGO_BIN_EXE_strata"));
        if let Who::User { uid, gid, .. } = who {
            // The build directory may be closed to others.
            fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
            let copy = directory.path().join("strata");
            fs::hard_link(&binary, &copy).or_else(|_| fs::copy(&binary, &copy).map(drop)).unwrap();
            binary = copy;
            for name in ["home", "out", "tmp"] {
                fs::create_dir(directory.path().join(name)).unwrap();
                chown(directory.path().join(name), Some(uid), Some(gid)).unwrap();
            }
        } else {
            for name in ["home", "out", "tmp"] {
                fs::create_dir(directory.path().join(name)).unwrap();
            }
        }
        fs::create_dir(directory.path().join("context")).unwrap();
        fs::write(directory.path().join("config.toml"), "").unwrap();
        Self { directory, who, binary }
    }

    /// Who runs the binary here.
    pub(crate) fn who(&self) -> &Who {
        &self.who
    }

    /// The directory of everything.
    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The build context.
    pub(crate) fn context(&self) -> PathBuf {
        self.path().join("context")
    }

    /// Strata's state directory; not made yet.
    pub(crate) fn state(&self) -> PathBuf {
        self.path().join("home/state")
    }

    /// A path that the binary's user may write to; nothing is there yet.
    pub(crate) fn out(&self, name: &str) -> PathBuf {
        self.path().join("out").join(name)
    }

    /// Writes a file of the context, and the directories above it.
    pub(crate) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.context().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Makes the context its user's own, as a checkout would be.
    pub(crate) fn give_context_away(&self) {
        if let Who::User { uid, gid, .. } = self.who {
            let mut chown = Command::new("chown");
            crate::registry::run(chown.args(["-hR", &format!("{uid}:{gid}")]).arg(self.context()));
        }
    }

    /// Writes the Dockerfile of the context.
    pub(crate) fn dockerfile(&self, text: &str) {
        self.write("Dockerfile", text);
    }

    /// A run of the binary with these arguments.
    pub(crate) fn strata<I, S>(&self, arguments: I) -> Strata
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut environment: BTreeMap<OsString, OsString> = BTreeMap::new();
        let mut set = |name: &str, value: &OsStr| environment.insert(name.into(), value.to_owned());
        set("PATH", OsStr::new("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"));
        set("HOME", self.path().join("home").as_os_str());
        set("TMPDIR", self.path().join("tmp").as_os_str());
        set("STRATA_ROOT", self.state().as_os_str());
        set("STRATA_CONFIG", self.path().join("config.toml").as_os_str());
        set("DOCKER_CONFIG", self.path().join("home/.docker").as_os_str());
        Strata {
            binary: self.binary.clone(),
            who: self.who.clone(),
            directory: self.path().to_owned(),
            arguments: arguments.into_iter().map(|argument| argument.as_ref().to_owned()).collect(),
            environment,
            stdin: None,
            memory: None,
            under: Vec::new(),
            umask: None,
        }
    }

    /// `strata build` with plain progress, these further arguments, and the context at the end.
    pub(crate) fn build<I, S>(&self, arguments: I) -> Strata
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut strata = self.strata(["build", "--progress", "plain"]);
        strata.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        strata.arguments.push(self.context().into());
        strata
    }

    /// The `--output` argument for an OCI layout directory at [`Self::out`].
    pub(crate) fn layout_output(&self, name: &str) -> String {
        format!("--output=type=oci,dest={},tar=false", self.out(name).display())
    }

    /// Fails the test if a mount or a process of this workspace is left anywhere on the machine.
    ///
    /// Processes in other mount namespaces are found by what is mounted there. What a killed process leaves is
    /// torn down by the kernel a moment later, so a few seconds are allowed.
    pub(crate) fn assert_nothing_left(&self) {
        let deadline = Instant::now() + Duration::from_secs(5);
        loop {
            let left = self.left_behind();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < deadline, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn left_behind(&self) -> Vec<String> {
        let needle = self.path().to_str().unwrap();
        let own = std::process::id().to_string();
        let mut left = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().filter_map(Result::ok) {
            let name = entry.file_name().into_string().unwrap_or_default();
            if !name.bytes().all(|byte| byte.is_ascii_digit()) {
                continue;
            }
            let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
            let mounts = String::from_utf8_lossy(&read("mountinfo")).into_owned();
            for line in mounts.lines().filter(|line| line.contains(needle)) {
                left.push(format!("mount seen by process {name}: {line}"));
            }
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            if name != own && command.contains(needle) {
                left.push(format!("process {name}: {command}"));
            }
        }
        left
    }

    /// Fails the test if the store cannot be used for a small build that works.
    pub(crate) fn assert_store_usable(&self) {
        let good = self.path().join("good");
        fs::create_dir_all(&good).unwrap();
        fs::write(good.join("Dockerfile"), "FROM scratch\nCOPY Dockerfile /\n").unwrap();
        self.strata([OsStr::new("build"), OsStr::new("-t"), OsStr::new("good"), good.as_os_str()]).run().success();
    }
}

/// A run of the binary, not started yet.
#[derive(Debug, Clone)]
pub(crate) struct Strata {
    binary: PathBuf,
    who: Who,
    directory: PathBuf,
    arguments: Vec<OsString>,
    environment: BTreeMap<OsString, OsString>,
    stdin: Option<Vec<u8>>,
    memory: Option<u64>,
    under: Vec<OsString>,
    umask: Option<String>,
}

impl Strata {
    /// Has another program run it, with these arguments before it.
    pub(crate) fn under(&self, program: &str, arguments: &[&str]) -> Self {
        let under = std::iter::once(program).chain(arguments.iter().copied()).map(OsString::from).collect();
        Self { under, ..self.clone() }
    }

    /// Gives it something to read on standard input.
    pub(crate) fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.stdin = Some(bytes.into());
        self
    }

    /// Limits its address space to so many bytes.
    pub(crate) fn limited_to(mut self, bytes: u64) -> Self {
        self.memory = Some(bytes);
        self
    }

    /// Runs it with this mask of modes, in octal; for the caller only.
    pub(crate) fn with_umask(mut self, mask: &str) -> Self {
        self.umask = Some(mask.to_owned());
        self
    }

    /// Sets a variable of the environment.
    pub(crate) fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.environment.insert(name.into(), value.as_ref().to_owned());
        self
    }

    /// Gives it one more argument, before all that it has but the command.
    pub(crate) fn arg(mut self, argument: &str) -> Self {
        self.arguments.insert(1, argument.into());
        self
    }

    /// Runs it to its end.
    pub(crate) fn run(&self) -> Finished {
        self.start().wait()
    }

    /// Runs it to its end, which must be a good one, and gives the bytes of its standard output.
    pub(crate) fn output(&self) -> Vec<u8> {
        let output = self.command().stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{:?}: {}", self.arguments, String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Starts it.
    pub(crate) fn start(&self) -> Running {
        let mut command = self.command();
        let mut child = command
            .stdin(if self.stdin.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        if let Some(bytes) = self.stdin.clone() {
            let mut pipe = child.stdin.take().unwrap();
            // It may end before it has read everything.
            std::thread::spawn(move || drop(std::io::Write::write_all(&mut pipe, &bytes)));
        }
        let stdout = collect(child.stdout.take().unwrap());
        let stderr = collect(child.stderr.take().unwrap());
        Running { child, stdout, stderr, described: format!("{:?}", self.arguments) }
    }

    /// The command that runs it.
    pub(crate) fn command(&self) -> Command {
        let mut command = match &self.who {
            Who::Caller if self.umask.is_some() => {
                let mut command = Command::new("/bin/sh");
                let mask = self.umask.as_deref().unwrap_or_default();
                command.arg("-c").arg(format!("umask {mask} && exec \"$0\" \"$@\"")).arg(&self.binary);
                command
            }
            Who::Caller => match self.memory {
                Some(bytes) => {
                    let mut command = Command::new("prlimit");
                    command.arg(format!("--as={bytes}")).arg("--").arg(&self.binary);
                    command
                }
                None if !self.under.is_empty() => {
                    let mut command = Command::new(&self.under[0]);
                    command.args(&self.under[1..]).arg(&self.binary);
                    command
                }
                None => Command::new(&self.binary),
            },
            Who::User { name, uid, gid } => {
                let mut command = Command::new("setpriv");
                command.args(["--reuid", &uid.to_string(), "--regid", &gid.to_string(), "--init-groups", "--"]);
                command.arg(&self.binary);
                command.env("USER", name);
                command
            }
        };
        command.args(&self.arguments).env_clear().envs(&self.environment).current_dir(&self.directory);
        command
    }
}

fn collect(mut stream: impl Read + Send + 'static) -> Collector {
    let text = std::sync::Arc::new(std::sync::Mutex::new(String::new()));
    let shared = text.clone();
    let thread = std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            shared.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
    });
    Collector { text, thread }
}

#[derive(Debug)]
struct Collector {
    text: std::sync::Arc<std::sync::Mutex<String>>,
    thread: JoinHandle<()>,
}

/// A run of the binary that is going on.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Collector,
    stderr: Collector,
    described: String,
}

impl Running {
    /// Waits until standard error holds a text.
    pub(crate) fn wait_for(&mut self, needle: &str) {
        self.wait_for_times(needle, 1);
    }

    /// Waits until standard error holds a text so many times.
    pub(crate) fn wait_for_times(&mut self, needle: &str, times: usize) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let stderr = self.stderr.text.lock().unwrap().clone();
            if stderr.matches(needle).count() >= times {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none(), "{} ended ({ended:?}) before {needle:?} came:\n{stderr}", self.described);
            assert!(Instant::now() < deadline, "{needle:?} never came:\n{stderr}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Finished {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                let stderr = self.stderr.text.lock().unwrap().clone();
                panic!("{} did not end within {LIMIT:?}; it said:\n{stderr}", self.described);
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let text = |collector: Collector| {
            // A process that outlives the binary may hold the pipe; what it left is found by `assert_nothing_left`.
            let until = Instant::now() + Duration::from_secs(2);
            while !collector.thread.is_finished() && Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            collector.text.lock().unwrap().clone()
        };
        Finished { status, stdout: text(self.stdout), stderr: text(self.stderr), described: self.described }
    }
}

/// What came of a run.
#[derive(Debug, Clone)]
pub(crate) struct Finished {
    status: ExitStatus,
    /// Its standard output.
    pub(crate) stdout: String,
    /// Its standard error.
    pub(crate) stderr: String,
    described: String,
}

impl Finished {
    /// Its exit code; `None` where a signal ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub(crate) fn ended_by(&self) -> Option<i32> {
        self.status.signal()
    }

    /// Everything about it, for a message.
    pub(crate) fn describe(&self) -> String {
        let Self { status, stdout, stderr, described } = self;
        format!("strata {described}: {status}\n--- stdout\n{stdout}--- stderr\n{stderr}---")
    }

    /// Fails the test unless it succeeded.
    #[track_caller]
    pub(crate) fn success(self) -> Self {
        assert!(self.status.success(), "expected success\n{}", self.describe());
        self
    }

    /// Fails the test unless it ended with this code.
    pub(crate) fn ended_with(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{}", self.describe());
        self
    }

    /// Fails the test unless it ended with this code and said each of these on standard error, starting with `error:`
    /// on a line of its own and without a panic.
    #[track_caller]
    pub(crate) fn fails(self, code: i32, needles: &[&str]) -> Self {
        self.fails_with_any(&[code], needles)
    }

    /// Like [`Self::fails`], where what the machine or the network does decides between several codes.
    #[track_caller]
    pub(crate) fn fails_with_any(self, codes: &[i32], needles: &[&str]) -> Self {
        let code = self.code();
        assert!(code.is_some_and(|code| codes.contains(&code)), "expected exit code {codes:?}\n{}", self.describe());
        let has_error = self.stderr.lines().any(|line| line.starts_with("error:") || line.starts_with("error["));
        assert!(has_error, "expected a line that starts with `error:`\n{}", self.describe());
        assert!(!self.stderr.contains("panicked at"), "expected no panic\n{}", self.describe());
        for needle in needles {
            assert!(self.stderr.contains(needle), "expected {needle:?} on standard error\n{}", self.describe());
        }
        self
    }

    /// Fails the test unless a step whose title holds `needle` was taken from the cache.
    #[track_caller]
    pub(crate) fn cached(&self, needle: &str) -> &Self {
        let found = self.stderr.lines().any(|line| line.contains(needle) && line.contains("CACHED"))
            || self.step_numbers(needle).iter().any(|number| {
                self.stderr.lines().any(|line| line.starts_with(&format!("{number} ")) && line.contains("CACHED"))
            });
        assert!(found, "expected {needle:?} to be cached\n{}", self.describe());
        self
    }

    /// What plain progress puts before the lines of the steps whose title holds `needle`, such as `#3`.
    fn step_numbers(&self, needle: &str) -> Vec<&str> {
        let lines = self.stderr.lines().filter(|line| line.contains(needle));
        lines.filter_map(|line| line.split(' ').next()).filter(|word| word.starts_with('#')).collect()
    }

    /// How often a text stands in its standard error.
    pub(crate) fn count(&self, needle: &str) -> usize {
        self.stderr.matches(needle).count()
    }
}
