//! `strata shell` and `strata build --on-error=shell`, by somebody at a terminal.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};

use crate::registry::shared;
use crate::rootless::{RANGES, user};
use crate::workspace::{Strata, Who, Workspace};

/// Longer than anything here takes.
const LIMIT: Duration = Duration::from_secs(120);

/// A run of the binary on a terminal of its own.
pub(crate) struct Session {
    master: File,
    /// Keeps the terminal, and its settings, when the binary has ended.
    slave: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    before: LocalModes,
}

impl Session {
    /// Starts it.
    pub(crate) fn start(strata: &Strata) -> Self {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = openpt(flags).unwrap();
        unlockpt(&master).unwrap();
        let slave = File::from(ioctl_tiocgptpeer(&master, flags).unwrap());
        let master = File::from(master);
        let before = tcgetattr(&slave).unwrap().local_modes;
        let plain = strata.command();
        let mut command = Command::new("setsid");
        command.arg("--ctty").arg(plain.get_program()).args(plain.get_args()).env_clear();
        command.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("TERM", "vt100");
        command.current_dir(plain.get_current_dir().unwrap());
        let stream = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(stream()).stdout(stream()).stderr(stream()).spawn().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (shared, mut reader) = (Arc::clone(&seen), master.try_clone().unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                shared.lock().unwrap().extend_from_slice(&buffer[..count]);
            }
        });
        let session = Self { master, slave, child, seen, before };
        session.resize(24, 80);
        session
    }

    fn screen(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap()).into_owned()
    }

    /// Waits until the screen has shown a text.
    pub(crate) fn wait_for(&mut self, needle: &str) {
        let deadline = Instant::now() + LIMIT;
        while !self.screen().contains(needle) {
            let ended = self.child.try_wait().unwrap();
            if ended.is_some() {
                // What it said last may still be on its way.
                std::thread::sleep(Duration::from_millis(300));
            }
            assert!(
                ended.is_none() || self.screen().contains(needle),
                "it ended ({ended:?}) before {needle:?} came:\n{}",
                self.screen()
            );
            assert!(Instant::now() < deadline, "{needle:?} never came:\n{}", self.screen());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Types.
    pub(crate) fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Types a command and waits for what it answers, which must not be in the command itself.
    pub(crate) fn ask(&mut self, command: &str, answer: &str) {
        assert!(!command.contains(answer), "the terminal shows what is typed");
        self.keys(&format!("{command}\n"));
        self.wait_for(answer);
    }

    fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
    }

    fn is_raw(&self) -> bool {
        !tcgetattr(&self.slave).unwrap().local_modes.contains(LocalModes::ICANON)
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end, after which the terminal must be as it was.
    pub(crate) fn end(mut self) -> (ExitStatus, String) {
        let deadline = Instant::now() + LIMIT;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            if Instant::now() > deadline {
                let _ = self.child.kill();
                panic!("it does not end:\n{}", self.screen());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let after = tcgetattr(&self.slave).unwrap().local_modes;
        assert_eq!(after, self.before, "the terminal is put back");
        std::thread::sleep(Duration::from_millis(50));
        (status, self.screen())
    }
}

/// Root, and a user whose steps can have several ids.
fn somebody(what: &str) -> Vec<Who> {
    std::iter::once(Who::Caller).chain(user(RANGES, what)).collect()
}

/// A build whose last step fails, with a shell where it did.
fn failed(who: &Who) -> (Workspace, Session) {
    let workspace = Workspace::of(who.clone());
    std::fs::write(workspace.path().join("secret"), "known-here").unwrap();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\nRUN mkdir /work && chown 1000:1000 /work\nUSER 1000\nWORKDIR /work\nENV COLOUR=blue\n\
         RUN --mount=type=tmpfs,target=/memory --mount=type=secret,id=s,uid=1000 \\\n  \
         echo left-behind >file; echo last-\"words\"; exit 9\n",
    );
    let secret = format!("--secret=id=s,src={}", workspace.path().join("secret").display());
    let session = Session::start(&workspace.build([&shared().base_argument(), "--on-error=shell", &secret]));
    (workspace, session)
}

#[test]
fn a_failed_step_is_entered_as_its_command_left_it() {
    for who in somebody("rootless: the shell of a failed step") {
        let (workspace, mut session) = failed(&who);
        session.wait_for("last-words");
        session.wait_for("exit code: 9");
        session.wait_for("a shell in the failed step");
        session.ask("echo \"<$COLOUR:$(id -u):$(pwd):$(cat file)>\"", "<blue:1000:/work:left-behind>");
        assert!(session.is_raw());
        session.ask("echo \"<$(cat /run/secrets/s):$(tty):$TERM>\"", "<known-here:/dev/pts/0:vt100>");
        session.ask("grep -c ' /memory tmpfs' /proc/mounts | sed s/^/mem/", "mem1");
        session.ask("test -e /dev/console || echo no-\"console\"", "no-console");
        // The size is that of the user's terminal, and follows it.
        session.ask("echo \"<$(stty size)>\"", "<24 80>");
        session.resize(33, 111);
        session.keys("while [ \"$(stty size)\" != '33 111' ]; do sleep 0.1; done; echo re\"sized\"\n");
        session.wait_for("resized");
        // Keys are the shell's own: Ctrl-C ends what runs there, Ctrl-Z stops it, and nothing ends Strata.
        session.ask("sleep 3600 & jobs; kill $!", "Running");
        session.ask("echo go-\"on\"; sleep 3600", "go-on");
        std::thread::sleep(Duration::from_millis(300));
        session.keys("\x03");
        session.ask("echo af\"ter\"; sleep 3600", "after");
        std::thread::sleep(Duration::from_millis(300));
        session.keys("\x1a");
        session.wait_for("Stopped");
        session.ask("kill -9 %1 %2; echo kil\"led\"", "killed");
        // The first is refused where the shell still thinks that a job is stopped.
        session.keys("touch mine-alone; exit 4\nexit 4\n");
        let (status, screen) = session.end();
        assert_eq!(status.code(), Some(1), "{screen}");
        assert_eq!(
            screen.matches("did not complete successfully").count(),
            2,
            "progress and error, once each\n{screen}"
        );
        workspace.assert_nothing_left();
        // What was done there is in no layer: the step fails as before.
        let again = workspace.build([shared().base_argument()]).run().fails(1, &["exit code: 9"]);
        assert_eq!(again.count("mine-alone"), 0, "{}", again.describe());
    }
}

#[test]
fn a_shell_opens_at_any_line() {
    for who in somebody("rootless: a shell at a line") {
        let workspace = Workspace::of(who);
        workspace.write("a.txt", "of the context\n");
        workspace.dockerfile(
            "ARG BASE\nFROM ${BASE} AS one\nENV WHERE=one\nRUN echo made >/one\nCOPY a.txt /copied\n\
             RUN --mount=target=/context touch /never\nFROM one AS two\nARG TYPED=default\nWORKDIR /two\nRUN touch /two/done\n\
             FROM scratch\nCOPY --from=two /two /\n",
        );
        let context = workspace.context().to_str().unwrap().to_owned();
        let shell = |arguments: &[&str]| {
            let mut all = vec!["shell"];
            let base = shared().base_argument();
            all.extend(arguments.iter().chain([&base.as_str(), &context.as_str()]));
            Session::start(&workspace.strata(all))
        };
        let look = "echo \"<$WHERE:$TYPED:$(pwd):$(for f in /one /copied /never /two/done /context/a.txt; \
                    do test -e $f && printf '%s ' $f; done)>\"";
        for (arguments, expected) in [
            (&["--target=two"][..], "<one:default:/two:/one /copied /never /two/done >"),
            (&["--target=one", "--at=3"], "<::/:>"),
            (&["--at=5"], "<one::/:/one >"),
            (&["--at=6"], "<one::/:/one /copied /context/a.txt >"),
            (&["--at=10", "--build-arg=TYPED=given"], "<one:given:/two:/one /copied /never >"),
        ] {
            let mut session = shell(arguments);
            session.ask(look, expected);
            session.keys("exit 7\n");
            let (status, screen) = session.end();
            assert_eq!(status.code(), Some(7), "{arguments:?}\n{screen}");
        }
        workspace.assert_nothing_left();
        let listed = workspace.strata(["logs", "last"]).run().success().stdout;
        assert!(listed.contains("RUN touch /two/done"), "{listed}");
    }
}

#[test]
fn signals_end_a_shell_and_put_the_terminal_back() {
    for who in somebody("rootless: signals and shells") {
        for signal in [Signal::TERM, Signal::HUP] {
            let (workspace, mut session) = failed(&who);
            session.ask("trap '' TERM HUP INT; echo re\"ady\"", "ready");
            session.signal(signal);
            let (status, screen) = session.end();
            assert!(!status.success(), "{screen}");
            workspace.assert_nothing_left();
            workspace.assert_store_usable();
        }
    }
}

#[test]
fn without_a_terminal_no_shell_is_opened() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let context = workspace.context();
    workspace.strata(["shell".as_ref(), context.as_os_str()]).run().fails(2, &["standard input is no terminal"]);
    workspace.build(["--on-error=shell"]).run().fails(2, &["standard input is no terminal"]);
    assert!(!workspace.state().exists(), "nothing is built");
    // A root without a shell says what was looked for.
    let mut session = Session::start(&workspace.strata(["shell".as_ref(), context.as_os_str()]));
    session.wait_for("/bin/sh: not found");
    assert_eq!(session.end().0.code(), Some(1));
    let mut session = Session::start(&workspace.strata(["shell", "--at=9", context.to_str().unwrap()]));
    session.wait_for("line 9 is not in the stage");
    assert_eq!(session.end().0.code(), Some(2));
}
