//! How steps end: with all their processes, whatever these do about it, and whoever ends them.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Running, Who, Workspace};

/// Commands that leave processes of every stubborn kind: in a session of their own, twice forked, deaf to signals,
/// stopped, in the background. `mark` is a number of seconds that nobody else sleeps.
fn stubborn(mark: &str) -> String {
    format!(
        "(setsid sh -c 'trap \"\" TERM INT HUP QUIT; sleep {mark}; sleep {mark}' >/dev/null 2>&1 &); \
         (setsid sh -c 'kill -STOP $$; sleep {mark}' &) & \
         (sh -c 'sleep {mark} & sh -c \"sleep {mark} &\" &' &) & \
         nohup sleep {mark} </dev/null & \
         sleep 0.3"
    )
}

/// A number that marks the processes of one test.
fn mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{}.{}", 40_000 + std::process::id() % 10_000, 1000 + NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The processes of this machine with a mark.
fn marked(mark: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if command.contains(mark) {
            found.push(format!("{}: {command}", entry.path().display()));
        }
    }
    found
}

fn assert_ended(mark: &str, what: &str) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !marked(mark).is_empty() {
        assert!(Instant::now() < deadline, "{what}: these go on:\n{}", marked(mark).join("\n"));
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Root, and ordinary users of both kinds.
fn everybody(what: &str) -> Vec<Who> {
    let users = [RANGES, SINGLE].into_iter().filter_map(|name| user(name, what));
    std::iter::once(Who::Caller).chain(users).collect()
}

/// A build with two steps that run, each with processes that do not want to end.
fn two_stubborn_steps(who: &Who, mark: &str) -> (Workspace, Running) {
    let workspace = Workspace::of(who.clone());
    let stubborn = stubborn(mark);
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}} AS other\nRUN {stubborn}; mkdir -m 700 /closed; touch /closed/file; echo other-\"runs\"; sleep {mark}\n\
         FROM ${{BASE}}\nRUN trap '' INT TERM HUP; {stubborn}; echo this-\"runs\"; sleep {mark}; sleep {mark}\n\
         COPY --from=other /etc/passwd /\n"
    ));
    let mut running = workspace.build([&shared().base_argument(), "-t", "never"]).start();
    running.wait_for("other-runs");
    running.wait_for("this-runs");
    assert!(marked(mark).len() > 8, "{:?}", marked(mark));
    (workspace, running)
}

#[test]
fn what_a_step_leaves_behind_ends_with_it() {
    for who in everybody("rootless: what a step leaves behind") {
        let (workspace, mark) = (Workspace::of(who), mark());
        workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {}; echo ends\nRUN echo next\n", stubborn(&mark)));
        workspace.build([shared().base_argument()]).run().success();
        assert_ended(&mark, "after a step that ended");
        workspace.assert_nothing_left();
    }
}

#[test]
fn signals_end_every_process_of_every_step() {
    for who in everybody("rootless: stubborn processes and signals") {
        for signal in [Signal::INT, Signal::TERM, Signal::HUP] {
            let mark = mark();
            let (workspace, running) = two_stubborn_steps(&who, &mark);
            running.signal(signal);
            let finished = running.wait();
            assert_eq!(finished.code(), Some(130), "{}", finished.describe());
            assert_ended(&mark, &format!("{who:?} {signal:?}"));
            workspace.assert_nothing_left();
            let listed = workspace.strata(["logs", "--format", "json"]).run().success().stdout;
            assert!(listed.contains("\"cancelled\""), "{listed}");
        }
    }
}

#[test]
fn a_failing_sibling_ends_every_process_of_a_step() {
    for who in everybody("rootless: stubborn processes and a failing sibling") {
        let (workspace, mark) = (Workspace::of(who), mark());
        let stubborn = stubborn(&mark);
        workspace.dockerfile(&format!(
            "ARG BASE\nFROM ${{BASE}} AS fails\nRUN sleep 1; exit 3\n\
             FROM ${{BASE}}\nRUN trap '' INT TERM; {stubborn}; sleep {mark}\nCOPY --from=fails /etc/passwd /\n"
        ));
        workspace.build([shared().base_argument()]).run().fails(1, &["exit code: 3"]);
        assert_ended(&mark, "after a sibling failed");
        workspace.assert_nothing_left();
    }
}

#[test]
fn after_a_kill_the_next_command_sweeps() {
    for who in everybody("rootless: sweeping after a kill") {
        for command in [&["images"][..], &["logs"]] {
            let mark = mark();
            let (workspace, running) = two_stubborn_steps(&who, &mark);
            running.signal(Signal::KILL);
            assert_eq!(running.wait().ended_by(), Some(9));
            assert_ended(&mark, &format!("{who:?} after a kill"));
            workspace.assert_nothing_left();
            let names = |directory: &str| -> Vec<String> {
                let entries = fs::read_dir(workspace.state().join(directory)).unwrap();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            };
            assert_ne!(names("tmp"), Vec::<String>::new(), "the kill left something to sweep");
            workspace.strata(command).run().success();
            assert_eq!(names("tmp"), Vec::<String>::new(), "{who:?}");
            let locks: Vec<String> = names("locks").into_iter().filter(|name| name.ends_with(".lock")).collect();
            assert_eq!(locks, Vec::<String>::new(), "{who:?}");
            workspace.assert_store_usable();
        }
    }
}

/// Waiting for another process is ended like everything else: it is nobody's failure.
#[test]
fn signals_end_a_wait_for_another_process() {
    let (done, waits) = (Workspace::new(), Workspace::new());
    done.dockerfile("ARG BASE\nFROM ${BASE}\nRUN true\n");
    done.build([shared().base_argument()]).run().success();
    waits.dockerfile("ARG BASE\nFROM ${BASE}\nRUN true\n");
    waits.strata(["images"]).run().success();
    // Whichever of them is the base layer, another process has it in hand.
    let locks: Vec<fs::File> = fs::read_dir(done.state().join("oci/blobs/sha256"))
        .unwrap()
        .map(|blob| {
            let name = format!("blob-{}.lock", blob.unwrap().file_name().into_string().unwrap());
            let file = fs::File::create_new(waits.state().join("locks").join(name)).unwrap();
            file.lock().unwrap();
            file
        })
        .collect();
    let mut running = waits.build([shared().base_argument()]).start();
    running.wait_for("waiting for");
    running.signal(Signal::INT);
    let finished = running.wait();
    assert_eq!(finished.code(), Some(130), "{}", finished.describe());
    drop(locks);
    waits.build([shared().base_argument()]).run().success();
}
