//! What a step may use: that it is held to it, that the error names the limit and the knob, and that nothing is left.
//!
//! Control groups differ between machines. As root the tests run wherever a group can be made; without root they need one
//! that was delegated, and where there is none it is the error that is tested.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::skip::{is_root, skip};
use crate::workspace::Workspace;

/// Whether control groups with limits can be made here; otherwise the skip is announced.
pub(crate) fn limited(what: &str) -> bool {
    if !is_root() {
        skip(what, "limits take root, or a control group that was delegated");
        return false;
    }
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
    let has = |name: &str| {
        controllers.split_whitespace().any(|controller| controller == name)
            || rustix::fs::access(format!("/sys/fs/cgroup/{name}"), rustix::fs::Access::WRITE_OK).is_ok()
    };
    let all = ["memory", "pids", "cpu"].into_iter().all(has);
    if !all {
        skip(what, "no control groups with memory, pids and cpu can be made below /sys/fs/cgroup");
    }
    all
}

/// The control groups of a process that is no more, or of this one.
fn groups(directory: &Path, pid: u32, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.starts_with("strata-") && name.split('-').nth(2) == Some(&pid.to_string()) {
                found.push(entry.path());
            }
            groups(&entry.path(), pid, found);
        }
    }
}

pub(crate) fn groups_of(pid: u32) -> Vec<PathBuf> {
    let mut found = Vec::new();
    groups(Path::new("/sys/fs/cgroup"), pid, &mut found);
    found
}

fn workspace(run: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {run}\n"));
    workspace
}

#[test]
fn a_memory_bomb_is_named() {
    if !limited("memory limit") {
        return;
    }
    const BOMB: &str = "dd if=/dev/zero of=/dev/null bs=256M count=1";
    for (run, ended) in [(format!("exec {BOMB}"), "SIGKILL"), (format!("{BOMB}; exit 7"), "exit code: 7")] {
        let workspace = workspace(&run);
        let build = workspace.build(["--memory=16m", "--memory-swap=16m", &shared().base_argument()]);
        build.run().fails(1, &["Dockerfile:3", ended, "more than --memory 16m", "[step]"]);
        workspace.assert_nothing_left();
    }
    // Who goes on without is not failed for it.
    workspace(&format!("{BOMB}; true")).build(["-m", "16m", &shared().base_argument()]).run().success();
}

#[test]
fn a_fork_bomb_is_named() {
    if !limited("pids limit") {
        return;
    }
    let workspace = workspace("for i in $(seq 100); do sleep 3600 & done; echo all-\"started\"");
    let build = workspace.build(["--pids-limit=20", &shared().base_argument()]);
    let finished = build.run().fails(1, &["Dockerfile:3", "--pids-limit 20", "[step]"]);
    assert_eq!(finished.count("all-started"), 0, "{}", finished.describe());
    workspace.assert_nothing_left();
    // So many, and not one less: the sandbox's own process is not counted.
    let exact = "/bin/busybox true & wait; :";
    self::workspace(exact).build(["--pids-limit=2", &shared().base_argument()]).run().success();
}

#[test]
fn a_step_that_takes_too_long_is_named() {
    let workspace = workspace("trap '' TERM; echo begun-\"now\"; sleep 3600");
    let build = workspace.build(["--step-timeout=1s", &shared().base_argument()]);
    let finished = build.run().fails(1, &["Dockerfile:3", "longer than --step-timeout 1s", "[step]"]);
    // Once as it came, once among the last lines.
    assert_eq!(finished.count("begun-now"), 2, "{}", finished.describe());
    workspace.assert_nothing_left();
    workspace.assert_store_usable();
}

#[test]
fn every_limit_can_be_set_at_once_and_none_is_in_a_key() {
    if !limited("all limits") {
        return;
    }
    let workspace = workspace("cat /proc/self/cgroup; ulimit -n; ulimit -Hn; df -k /dev/shm; echo ran-\"step\"");
    let flags = "--memory=1g --memory-swap=-1 --cpus=0.5 --cpu-shares=512 --cpuset-cpus=0 --cpuset-mems=0 \
                 --pids-limit=100 --ulimit nofile=100:200 --shm-size=10m --step-timeout=2m";
    let mut arguments: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
    arguments.push(shared().base_argument());
    let finished = workspace.build(&arguments).run().success();
    for line in [" 100", " 200", "ran-step"] {
        assert!(finished.stderr.lines().any(|found| found.ends_with(line)), "{line:?}: {}", finished.describe());
    }
    assert!(finished.stderr.contains(" 10240 "), "{}", finished.describe());
    // Inside, the group of the step is the root of all groups.
    assert!(!finished.stderr.contains("strata-"), "{}", finished.describe());
    let again = workspace.build(["--memory=2g", "--ulimit=nofile=50", &shared().base_argument()]).run().success();
    assert_eq!(again.count("ran-step"), 0, "{}", again.describe());
}

#[test]
fn a_named_parent_is_made_and_removed_again() {
    if !limited("control group parent") {
        return;
    }
    let workspace = workspace("echo it-\"runs\"; sleep 3600");
    let name = format!("strata-test-{}", std::process::id());
    let mut running =
        workspace.build(["--cgroup-parent", &format!("/{name}/inner"), &shared().base_argument()]).start();
    running.wait_for("it-runs");
    let parents = || -> Vec<PathBuf> {
        let hierarchies = fs::read_dir("/sys/fs/cgroup").unwrap().flatten().map(|entry| entry.path());
        let all = hierarchies.chain([PathBuf::from("/sys/fs/cgroup")]).map(|path| path.join(&name));
        all.filter(|path| path.exists()).collect()
    };
    let found = parents();
    let holds = |parent: &PathBuf| {
        let groups = fs::read_dir(parent.join("inner")).unwrap().flatten().filter(|entry| entry.path().is_dir());
        let processes = groups.map(|group| fs::read_to_string(group.path().join("cgroup.procs")).unwrap_or_default());
        processes.map(|text| text.lines().count()).sum::<usize>()
    };
    assert!(!found.is_empty(), "no group {name} was made");
    assert!(found.iter().all(|parent| holds(parent) >= 2), "{found:?}");
    running.signal(Signal::INT);
    running.wait();
    assert_eq!(parents(), Vec::<PathBuf>::new());
}

#[test]
fn what_a_killed_build_left_is_swept_by_the_next() {
    if !limited("control groups of a killed build") {
        return;
    }
    let workspace = workspace("echo now-\"sleeping\"; sleep 3600");
    let mut running = workspace.build(["--pids-limit=50", &shared().base_argument()]).start();
    running.wait_for("now-sleeping");
    let pid = running.id();
    assert!(!groups_of(pid).is_empty());
    running.signal(Signal::KILL);
    running.wait();
    workspace.assert_nothing_left();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN true\n");
    workspace.build(["--pids-limit=50", &shared().base_argument()]).run().success();
    assert_eq!(groups_of(pid), Vec::<PathBuf>::new());
}

#[test]
fn the_settings_say_what_the_command_line_does_not() {
    let workspace = workspace("ulimit -n; sleep 3600");
    fs::write(workspace.path().join("config.toml"), "[step]\ntimeout = 1\nulimits = [\"nofile=77\"]\n").unwrap();
    let finished = workspace.build([shared().base_argument()]).run().fails(1, &["longer than --step-timeout 1s"]);
    assert!(finished.stderr.lines().any(|line| line.ends_with(" 77")), "{}", finished.describe());
    fs::write(workspace.path().join("config.toml"), "[step]\nmemory = \"few\"\n").unwrap();
    workspace.build([shared().base_argument()]).run().fails(2, &["config.toml:2:10", "`memory`", "512m"]);
}

#[test]
fn limits_that_contradict_each_other_are_refused() {
    let workspace = workspace("true");
    for (flags, part) in [
        (vec!["--memory-swap=1g"], "needs a limit on memory"),
        (vec!["--memory=1g", "--memory-swap=512m"], "cannot be less than memory (1g)"),
        (vec!["--ulimit=files=1"], "invalid ulimit type: files"),
        (vec!["--resource=memory=1g,cpus=2"], "--resource \"cpus\" is not known"),
    ] {
        workspace.build(flags.into_iter().chain([shared().base_argument().as_str()])).run().fails(2, &[part]);
    }
    // No machine has that many processors.
    if limited("a limit that the kernel refuses") {
        let build = workspace.build(["--cpuset-cpus=65000", &shared().base_argument()]);
        build.run().fails(3, &["cannot set --cpuset-cpus", "\"65000\"", "cpuset.cpus"]);
    }
    // Above what the kernel takes from anybody.
    let build = workspace.build(["--ulimit=nofile=99999999999", &shared().base_argument()]);
    build.run().fails(3, &["--ulimit nofile=99999999999:99999999999", "fs.nr_open"]);
}

#[test]
fn a_user_is_never_silently_unlimited() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: limits") else { return };
        let workspace = Workspace::of(who);
        workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN ulimit -n; df -k /dev/shm; echo ran-\"step\"\n");
        let limited = workspace.build(["--pids-limit=50", "--memory=1g", &shared().base_argument()]).run();
        // The tests do not delegate a group. Where somebody did, the step runs in it.
        if limited.code() != Some(0) {
            let finished = limited.fails(3, &["--memory and --pids-limit cannot be set", "build as root", "[step]"]);
            assert_eq!(finished.count("ran-step"), 0, "{}", finished.describe());
        }
        // These need nobody's help.
        let flags = ["--ulimit=nofile=100", "--shm-size=10m", "--step-timeout=1m", "--no-cache"];
        let base = shared().base_argument();
        let finished = workspace.build(flags.into_iter().chain([base.as_str()])).run().success();
        assert!(finished.stderr.contains(" 10240 "), "{}", finished.describe());
        assert!(finished.stderr.lines().any(|line| line.ends_with(" 100")), "{}", finished.describe());
        workspace.assert_nothing_left();
    }
}
