//! Many steps, many kills: nothing is left, nothing grows, and what comes of it is what undisturbed builds make.
//!
//! `make test` runs a short version; `make soak` sets `STRATA_SOAK` to the numbers of steps and kills (`1000,50`) and
//! shows the figures. The instants of the kills come from `STRATA_SOAK_SEED`, which a failure names.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::network::is_running;
use crate::registry::shared;
use crate::rootless::{RANGES, user};
use crate::skip::is_root;
use crate::step_limits::{groups_of, limited};
use crate::workspace::{Who, Workspace};

/// Steps of one stage: an overlay cannot stack all of them.
const STAGE: usize = 40;

/// How many steps there are, and how many kills.
fn extent() -> (usize, usize) {
    let Ok(text) = std::env::var("STRATA_SOAK") else { return (60, 6) };
    let (steps, kills) = text.split_once(',').expect("STRATA_SOAK is STEPS,KILLS");
    (steps.parse().expect("a number of steps"), kills.parse().expect("a number of kills"))
}

/// Shows a figure where somebody asked for it.
fn tell(figure: &str) {
    if std::env::var_os("STRATA_SOAK").is_some() {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("SOAK {figure}\n").as_bytes());
    }
}

/// Numbers that look like chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("STRATA_SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(20_261_122))
    }

    /// One from 0 up to `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// A recipe of so many steps, whose result is the same in every build: each leaves a file of a fixed time, and some
/// leave a process behind that must not outlive them.
fn recipe(steps: usize) -> String {
    let stages = steps.div_ceil(STAGE);
    let mut recipe = "ARG BASE\n".to_owned();
    for stage in 0..stages {
        recipe.push_str(&format!("FROM ${{BASE}} AS s{stage}\n"));
        for step in stage * STAGE..steps.min((stage + 1) * STAGE) {
            let orphan = if step % 10 == 0 { "(setsid sleep 3600 >/dev/null 2>&1 &); " } else { "" };
            recipe.push_str(&format!("RUN {orphan}echo {step} >/f{step} && touch -d @1 /f{step}\n"));
        }
    }
    recipe.push_str("FROM scratch\n");
    for stage in 0..stages {
        recipe.push_str(&format!("COPY --from=s{stage} /f{} /\n", stage * STAGE));
    }
    recipe
}

/// A workspace with that recipe, and what `strata build` is told.
fn prepared(who: &Who, steps: usize, grouped: bool) -> (Workspace, Vec<String>) {
    let workspace = Workspace::of(who.clone());
    workspace.dockerfile(&recipe(steps));
    // A copy that no other test runs, where there is one.
    crate::network::open(&workspace);
    let _ = fs::copy("/usr/bin/pasta", workspace.path().join("pasta"));
    let mut arguments = vec![shared().base_argument(), "--build-arg=SOURCE_DATE_EPOCH=1".to_owned()];
    arguments.push(workspace.layout_output("image"));
    if grouped {
        arguments.push("--pids-limit=100".to_owned());
    }
    (workspace, arguments)
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

/// Fails the test if a build of the workspace has left anything, now that another command has swept.
fn assert_swept(workspace: &Workspace, pids: &[u32]) {
    workspace.strata(["images"]).run().success();
    workspace.assert_nothing_left();
    assert!(!is_running(&workspace.path().join("pasta")), "a pasta is left");
    assert_eq!(names(&workspace.state().join("tmp")), Vec::<String>::new());
    assert_eq!(names(&workspace.path().join("tmp")), Vec::<String>::new());
    let locks: Vec<String> =
        names(&workspace.state().join("locks")).into_iter().filter(|name| name.ends_with(".lock")).collect();
    assert_eq!(locks, Vec::<String>::new());
    let groups: Vec<_> = pids.iter().flat_map(|pid| groups_of(*pid)).collect();
    assert!(groups.is_empty(), "control groups are left: {groups:?}");
}

/// Builds until the recipe is done, ended so many times on the way; gives the ids of the processes.
fn disturbed(workspace: &Workspace, arguments: &[String], kills: usize, undisturbed: Duration) -> Vec<u32> {
    let mut chance = Chance::new();
    let longest = 2 * undisturbed.as_millis() as u64 / kills.max(1) as u64;
    let pasta = workspace.path().join("pasta");
    let mut pids = Vec::new();
    let (mut hits, mut again) = (0, false);
    for round in 0..4 * kills {
        if hits == kills {
            break;
        }
        let mut all = arguments.to_vec();
        // Done already: all of it once more.
        all.extend(again.then(|| "--no-cache".to_owned()));
        let running = workspace.build(&all).env("STRATA_PASTA", &pasta).start();
        pids.push(running.id());
        std::thread::sleep(Duration::from_millis(chance.below(longest.max(50))));
        let signal = match round % 5 {
            3 => Signal::TERM,
            4 => Signal::INT,
            _ => Signal::KILL,
        };
        running.signal(signal);
        let finished = running.wait();
        again = finished.code() == Some(0);
        let ended = finished.ended_by().is_some() || matches!(finished.code(), Some(0 | 130));
        assert!(ended, "{}", finished.describe());
        hits += usize::from(!again);
    }
    assert_eq!(hits, kills, "STRATA_SOAK_SEED: too few of the kills hit a build");
    pids
}

fn soak(who: &Who, grouped: bool) {
    let (steps, kills) = extent();
    let (calm, arguments) = prepared(who, steps, grouped);
    let start = Instant::now();
    let pasta = calm.path().join("pasta");
    calm.build(&arguments).env("STRATA_PASTA", &pasta).run().success();
    let undisturbed = start.elapsed();

    let (stormy, arguments) = prepared(who, steps, grouped);
    let start = Instant::now();
    let mut pids = disturbed(&stormy, &arguments, kills, undisturbed);
    let last = stormy.build(&arguments).env("STRATA_PASTA", stormy.path().join("pasta")).start();
    pids.push(last.id());
    last.wait().success();
    assert_swept(&stormy, &pids);
    let index = |workspace: &Workspace| fs::read_to_string(workspace.out("image").join("index.json")).unwrap();
    assert_eq!(index(&stormy), index(&calm), "{who:?}: another image than an undisturbed build's");
    assert_eq!(names(&stormy.state().join("layers")), names(&calm.state().join("layers")), "{who:?}");
    stormy.assert_store_usable();
    tell(&format!(
        "{who:?}: {steps} steps in {undisturbed:.1?}; with {kills} ends on the way {:.1?}; nothing left",
        start.elapsed()
    ));
}

#[test]
fn builds_that_are_killed_again_and_again_leave_nothing() {
    soak(&Who::Caller, is_root() && limited("soak: control groups"));
    if let Some(who) = user(RANGES, "soak as a user with ranges") {
        soak(&who, false);
    }
}

/// What `count` gives in a running build at its tenth step, and that many steps later.
fn at_two_steps(later: usize, count: impl Fn(u32) -> usize) -> (usize, usize) {
    let workspace = Workspace::new();
    let mut recipe = "ARG BASE\nFROM ${BASE}\n".to_owned();
    for step in 0..=10 + later {
        let marked = step == 10 || step == 10 + later;
        let wait = if marked { format!("echo at-\"{step}\"-now; sleep 1; ") } else { String::new() };
        recipe.push_str(&format!("RUN {wait}echo {step} >/file\n"));
    }
    workspace.dockerfile(&recipe);
    let mut running = workspace.build([shared().base_argument()]).start();
    let pid = running.id();
    running.wait_for("at-10-now");
    let before = count(pid);
    running.wait_for(&format!("at-{}-now", 10 + later));
    let after = count(pid);
    running.wait().success();
    workspace.assert_nothing_left();
    (before, after)
}

#[test]
fn a_long_build_keeps_no_descriptors() {
    let later = if std::env::var_os("STRATA_SOAK").is_some() { 200 } else { 40 };
    let (before, after) = at_two_steps(later, |pid| fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count());
    tell(&format!("descriptors at step 10: {before}, {later} steps later: {after}"));
    assert!(after <= before + 2, "{before} descriptors became {after} in {later} steps");
}

/// Kilobytes of memory of a process, pages that several share counted in parts, and of all that it has started; those
/// that have become another program are left out, since that memory is the step's.
fn memory_of_builder(pid: u32, program: &Path) -> usize {
    let own = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let is_ours = |pid: u32| {
        let exe = fs::metadata(format!("/proc/{pid}/exe"));
        let ours = fs::metadata(program).unwrap();
        use std::os::unix::fs::MetadataExt;
        exe.is_ok_and(|exe| (exe.dev(), exe.ino()) == (ours.dev(), ours.ino()))
    };
    let line = own.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap_or_default();
    let mut total: usize = line.trim().trim_end_matches(" kB").parse().unwrap_or(0);
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
        let children = children.split_whitespace().filter_map(|child| child.parse().ok());
        total += children.filter(|child| is_ours(*child)).map(|child| memory_of_builder(child, program)).sum::<usize>();
    }
    total
}

#[test]
fn a_running_step_takes_little_of_the_builder_s_memory() {
    let measure = |steps: usize| {
        let workspace = Workspace::new();
        let mut recipe = "ARG BASE\n".to_owned();
        for step in 0..steps {
            recipe.push_str(&format!("FROM ${{BASE}} AS s{step}\nRUN echo run-\"ning\"; sleep 5; echo {step} >/f\n"));
        }
        recipe.push_str("FROM scratch\n");
        (0..steps).for_each(|step| recipe.push_str(&format!("COPY --from=s{step} /f /f{step}\n")));
        workspace.dockerfile(&recipe);
        let mut running = workspace.build([shared().base_argument()]).start();
        running.wait_for_times("run-ning", steps);
        let memory = memory_of_builder(running.id(), Path::new(env!("CARGO_BIN_EXE_strata")));
        running.wait().success();
        memory
    };
    let (one, many) = (measure(1), measure(32));
    let each = many.saturating_sub(one) / 31;
    tell(&format!("memory with one step: {one} kB, with 32: {many} kB, each further one: {each} kB"));
    assert!(each < 4096, "each further running step takes {each} kB of the builder's memory");
}

#[test]
fn a_file_over_8_gib_goes_into_an_image_and_out_again() {
    // What a header of POSIX's holds ends one byte before 8 GiB. The short version is a size that it holds.
    let size: u64 = if std::env::var_os("STRATA_SOAK").is_some() { (8 << 30) + 12_345 } else { 200 << 20 };
    let start = Instant::now();
    let workspace = Workspace::new();
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}}\nRUN truncate -s {size} /large && echo end >>/large && touch -d @5 /large\n"
    ));
    let out = workspace.out("image");
    let output = format!("--output=type=oci,dest={},tar=false,compression=zstd", out.display());
    workspace.build([shared().base_argument(), output]).run().success();

    let other = Workspace::new();
    other.dockerfile("FROM large\nRUN stat -c %s /large >/size && tail -c 4 /large >/end\n");
    let named = format!("--build-context=large=oci-layout://{}", out.display());
    other.build([named, "-t".to_owned(), "again".to_owned()]).run().success();
    let found = |what: &[&str]| {
        let layers = other.state().join("layers");
        crate::registry::run(std::process::Command::new("find").arg(layers).args(what))
    };
    let size = size + 4;
    assert_eq!(found(&["-name", "large", "-printf", "%s"]), size.to_string());
    let [seen, end] = ["size", "end"].map(|name| found(&["-name", name, "-exec", "cat", "{}", "+"]));
    assert_eq!((seen.trim(), end.as_str()), (size.to_string().as_str(), "end\n"));
    tell(&format!("a file of {size} bytes, written, compressed, unpacked and read: {:.1?}", start.elapsed()));
}
