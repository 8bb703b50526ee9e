//! What happens at the same time, and what only once.
//!
//! No time is measured: steps meet at a [`MeetingPoint`], a listener of the test's that they call with `nc`, and go on
//! only when the test lets them. It is on the machine's loopback, and so these builds do without `pasta`.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use crate::registry::shared;
use crate::workspace::Workspace;

/// Where steps call in and wait.
pub(crate) struct MeetingPoint {
    port: u16,
    calls: Receiver<(String, TcpStream)>,
}

impl MeetingPoint {
    pub(crate) fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (sender, calls) = channel();
        std::thread::spawn(move || {
            for mut stream in listener.incoming().filter_map(Result::ok) {
                let mut name = [0; 1];
                if stream.read_exact(&mut name).is_ok()
                    && sender.send((String::from_utf8_lossy(&name).into(), stream)).is_err()
                {
                    return;
                }
            }
        });
        Self { port, calls }
    }

    /// A command that calls in with a name of one letter, and ends when the test drops the connection.
    pub(crate) fn call(&self, name: char) -> String {
        format!("echo {name} | nc 127.0.0.1 {}", self.port)
    }

    /// The next caller.
    pub(crate) fn next(&self) -> (String, TcpStream) {
        self.calls.recv_timeout(Duration::from_secs(120)).expect("a step calls in")
    }

    /// Whether somebody calls within a second.
    fn anybody_else(&self) -> bool {
        self.calls.recv_timeout(Duration::from_secs(1)).is_ok()
    }
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    let names = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'];
    let mut recipe = String::from("ARG BASE\n");
    for name in names {
        recipe.push_str(&format!("FROM ${{BASE}} AS stage-{name}\nRUN {} && echo {name} >/{name}\n", point.call(name)));
    }
    recipe.push_str("FROM scratch\n");
    for name in names {
        recipe.push_str(&format!("COPY --from=stage-{name} /{name} /\n"));
    }
    workspace.dockerfile(&recipe);
    let running = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
    // None goes on before all have come.
    let waiting: Vec<_> = names.iter().map(|_| point.next()).collect();
    drop(waiting);
    running.wait().success();
}

#[test]
fn identical_steps_of_two_stages_run_once() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    let step = format!("RUN {} && echo done >/done", point.call('x'));
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}} AS one\n{step}\nFROM ${{BASE}} AS two\n{step}\n\
         FROM scratch\nCOPY --from=one /done /one\nCOPY --from=two /done /two\n"
    ));
    let running = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
    let first = point.next();
    assert!(!point.anybody_else(), "the step runs twice");
    drop(first);
    running.wait().success();
    assert!(!point.anybody_else(), "the step ran again afterwards");
}

#[test]
fn two_processes_run_an_identical_step_once() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {} && echo done >/done\n", point.call('x')));
    let build =
        |name: &str| workspace.build([&shared().base_argument(), "-t", name]).env("STRATA_PASTA", "off").start();
    let mut one = build("one");
    let first = point.next();
    // The other says which process it waits for, and what that does.
    let mut two = build("two");
    two.wait_for(&format!("waiting for process {}", one.id()));
    two.wait_for("(RUN echo x | nc");
    assert!(!point.anybody_else(), "the step runs twice");
    drop(first);
    one.wait_for("DONE");
    let digest = |stdout: &str| stdout.split_whitespace().find(|word| word.starts_with("sha256:")).map(str::to_owned);
    let (one, two) = (one.wait().success(), two.wait().success());
    assert!(!point.anybody_else(), "the step ran again afterwards");
    assert!(digest(&one.stdout).is_some(), "{}", one.describe());
    assert_eq!(digest(&one.stdout), digest(&two.stdout), "{}\n{}", one.describe(), two.describe());
}

#[test]
fn a_process_that_waits_takes_over_when_the_other_dies() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {} && echo done >/done\n", point.call('x')));
    let one = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
    let first = point.next();
    let two = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
    assert!(!point.anybody_else(), "the step runs twice");
    one.signal(rustix::process::Signal::KILL);
    one.wait();
    let second = point.next();
    drop((first, second));
    two.wait().success();
    workspace.assert_nothing_left();
}

#[test]
fn steps_take_turns_with_a_locked_cache_and_share_others() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    let build = |sharing: &str, name: char| {
        let mount = format!("--mount=type=cache,id={sharing},target=/c,sharing={sharing}");
        workspace
            .dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {mount} {} && echo {name} >>/c/f\n", point.call(name)));
        let running = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
        (running, point.next())
    };
    // Both are there at once, each with the cache. (The names differ, because how a cache is shared is not in the key.)
    for (sharing, names) in [("shared", ['a', 'b']), ("private", ['c', 'd'])] {
        let (one, two) = (build(sharing, names[0]), build(sharing, names[1]));
        drop((one.1, two.1));
        one.0.wait().success();
        two.0.wait().success();
    }
    let (one, first) = build("locked", 'e');
    let recipe = format!(
        "ARG BASE\nFROM ${{BASE}}\nRUN --mount=type=cache,id=locked,target=/c,sharing=locked {} && grep e /c/f\n",
        point.call('f')
    );
    workspace.dockerfile(&recipe);
    let mut two = workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off").start();
    two.wait_for("cache mount locked");
    assert!(!point.anybody_else(), "the second step did not wait");
    drop(first);
    one.wait().success();
    drop(point.next());
    two.wait().success();
    workspace.assert_nothing_left();
}

#[test]
fn a_failure_ends_the_steps_of_other_stages() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}} AS fails\nRUN {} ; exit 1\nFROM ${{BASE}} AS sleeps\nRUN {} ; sleep 3600\n\
         FROM scratch\nCOPY --from=fails /etc/passwd /\nCOPY --from=sleeps /etc/group /\n",
        point.call('f'),
        point.call('s'),
    ));
    let running = workspace
        .build([&shared().base_argument(), &workspace.layout_output("image")])
        .env("STRATA_PASTA", "off")
        .start();
    let both = [point.next(), point.next()];
    drop(both);
    running.wait().fails(1, &["Dockerfile:3"]);
    workspace.assert_nothing_left();
    assert!(!workspace.out("image").exists());
    workspace.assert_store_usable();
}

#[test]
fn eight_builds_of_overlapping_recipes_run_each_shared_step_once() {
    let workspace = Workspace::new();
    // Each step leaves a line where no layer has it.
    let step = |n: usize| {
        format!(
            "RUN --mount=type=cache,target=/c echo ran-{n} >>/c/log; sleep 0.2; echo {n} >/{n}; touch -d @1 /{n} /\n"
        )
    };
    let recipes: Vec<_> = (0..4)
        .map(|recipe| {
            let steps: String = (0..=recipe + 1).map(step).collect();
            let path = workspace.write(&format!("Dockerfile.{recipe}"), format!("ARG BASE\nFROM ${{BASE}}\n{steps}"));
            path.to_str().unwrap().to_owned()
        })
        .collect();
    let base = shared().base_argument();
    let running: Vec<_> = (0..8)
        .map(|n| {
            let output = workspace.layout_output(&format!("image-{n}"));
            let arguments = [&base, "--build-arg=SOURCE_DATE_EPOCH=1", "-f", &recipes[n % 4], &output];
            workspace.build(arguments).env("STRATA_PASTA", "off").start()
        })
        .collect();
    running.into_iter().for_each(|running| drop(running.wait().success()));
    let digest = |n: usize| crate::layout::read(&workspace.out(&format!("image-{n}"))).digest;
    for n in 0..4 {
        assert_eq!(digest(n), digest(n + 4), "the two builds of recipe {n}");
    }
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN --mount=type=cache,target=/c sort /c/log >/log\n");
    workspace.build([&base, &workspace.layout_output("log")]).env("STRATA_PASTA", "off").run().success();
    let log = crate::layout::read(&workspace.out("log")).text("log");
    assert_eq!(log, "ran-0\nran-1\nran-2\nran-3\nran-4\n");
    workspace.strata(["fsck"]).run().success();
    workspace.assert_nothing_left();
}

#[test]
fn many_builds_share_a_store() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nARG N\nRUN echo common >/common\nRUN echo $N >/n\n");
    let running: Vec<_> = (0..6)
        .map(|n| {
            let output = workspace.layout_output(&format!("image-{n}"));
            workspace
                .build([shared().base_argument(), format!("--build-arg=N={n}"), output])
                .env("STRATA_PASTA", "off")
                .start()
        })
        .collect();
    for (n, running) in running.into_iter().enumerate() {
        running.wait().success();
        let image = crate::layout::read(&workspace.out(&format!("image-{n}")));
        assert_eq!((image.text("common"), image.text("n")), ("common\n".into(), format!("{n}\n")));
    }
    workspace.assert_nothing_left();
}
