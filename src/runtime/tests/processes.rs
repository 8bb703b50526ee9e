//! How processes begin and end, and that nothing of them is left.

use super::*;

pub(super) fn exit_codes_and_signals(lab: &Lab) {
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

pub(super) fn output_is_whole(lab: &Lab) {
    let ran = lab.sh("(yes abcdefg | head -c 10485760) & (yes 1234567 | head -c 10485760) >&2; wait");
    assert_eq!(ran.status(), Status::Exited(0));
    assert!(ran.stdout == "abcdefg\n".repeat(1_310_720), "stdout has {} bytes", ran.stdout.len());
    assert!(ran.stderr == "1234567\n".repeat(1_310_720), "stderr has {} bytes", ran.stderr.len());
}

pub(super) fn orphans(lab: &Lab) {
    let long = long_sleep(1);
    let ran = lab.sh(&format!("(sleep 0.05 &) ; ({long} &) ; sleep 0.2; ps -o stat,args"));
    assert!(!ran.text().lines().any(|line| line.starts_with('Z')), "a zombie: {}", ran.stdout);
    assert!(ran.stdout.contains(&long), "{}", ran.stdout);
    assert_eq!(processes(&long), 0, "what the process left running is gone");
}

pub(super) fn cancelling(lab: &Lab) {
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

pub(super) fn limits(lab: &Lab) {
    use crate::limits::Pids;
    let limited = |script: &str, limits: Limits| lab.run(Plan { limits, ..lab.plan(script) });
    let long = long_sleep(7);
    // Long enough for a busy machine to have come as far as the script.
    let timeout = Some(Duration::from_secs(2));
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

pub(super) fn panicking_callback(lab: &Lab) {
    let long = long_sleep(3);
    let notice = |_, _: &[u8]| panic!("on purpose");
    let ran = catch_unwind(AssertUnwindSafe(|| {
        lab.run_with(lab.plan(&format!("echo; {long}")), &Cancel::new(), &notice);
    }));
    assert!(ran.is_err());
    assert_eq!(processes(&long), 0);
}

pub(super) fn side_by_side(lab: &Lab) {
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

pub(super) fn mounts() -> String {
    fs::read_to_string("/proc/self/mountinfo").unwrap()
}

pub(super) fn nothing_leaks(lab: &Lab) {
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

pub(super) fn killed_builder(lab: &Lab) {
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
pub(super) const VICTIMS_COMMAND: &str = "STRATA_TEST_VICTIMS_COMMAND";

/// Runs something long, to be killed. (Root of a user namespace already, if its parent is.)
pub(super) fn be_a_victim() {
    let lab = Lab::new(false);
    let mut plan = lab.plan("");
    let command = std::env::var(VICTIMS_COMMAND).unwrap();
    plan.argv = strings(&command.split(' ').collect::<Vec<_>>());
    lab.run(plan);
}
