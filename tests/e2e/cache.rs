//! What is done again, and what is not.
//!
//! A step that runs prints a word that its own text does not hold ([`say`]), so [`ran`] cannot be misled by a title.

use std::collections::BTreeSet;
use std::fs;
use std::mem::MaybeUninit;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::fs::inotify;

use crate::layout;
use crate::registry::{self, shared};
use crate::workspace::{Finished, Workspace};

/// A command that prints `ran-NAME`.
fn say(name: &str) -> String {
    format!("echo ran-\"{name}\"")
}

/// Which of the steps with [`say`] ran.
fn ran(finished: &Finished) -> BTreeSet<String> {
    let words = finished.stderr.split(|c: char| c.is_whitespace() || c == '\r');
    words
        .filter_map(|word| word.strip_prefix("ran-"))
        .filter(|name| !name.starts_with(['"', '\\']))
        .map(str::to_owned)
        .collect()
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Two stages: `left` depends on `left.txt`, `right` on `right.txt`, the target on both and on `own.txt`.
fn two_stages(workspace: &Workspace) {
    workspace.dockerfile(&format!(
        "ARG BASE\n\
         FROM ${{BASE}} AS left\nCOPY left.txt /\nRUN {} && cp left.txt left.out\n\
         FROM ${{BASE}} AS right\nCOPY right.txt /\nRUN {} && cp right.txt right.out\n\
         FROM ${{BASE}}\nRUN {}\nCOPY --from=left /left.out /\nCOPY --from=right /right.out /\nRUN {}\nCOPY own.txt /\nRUN {}\n",
        say("left"),
        say("right"),
        say("first"),
        say("joined"),
        say("own"),
    ));
    for name in ["left", "right", "own"] {
        workspace.write(&format!("{name}.txt"), format!("{name}\n"));
    }
}

fn build(workspace: &Workspace, arguments: &[&str]) -> Finished {
    let base = shared().base_argument();
    workspace.build([&["-t", "cached", &base], arguments].concat()).run().success()
}

#[test]
fn an_unchanged_tree_runs_nothing() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    let first = build(&workspace, &[]);
    assert_eq!(ran(&first), set(&["first", "joined", "left", "own", "right"]));
    let second = build(&workspace, &[]);
    assert_eq!(ran(&second), set(&[]), "{}", second.describe());
    second.cached("COPY own.txt");
    assert_eq!(first.stdout, second.stdout, "the same image");
}

#[test]
fn touching_a_file_runs_nothing() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    build(&workspace, &[]);
    registry::run(Command::new("touch").arg(workspace.context().join("left.txt")));
    assert_eq!(ran(&build(&workspace, &[])), set(&[]));
}

#[test]
fn a_changed_file_runs_what_depends_on_it() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    build(&workspace, &[]);
    workspace.write("left.txt", "changed\n");
    let second = build(&workspace, &[&workspace.layout_output("image")]);
    assert_eq!(ran(&second), set(&["left", "joined", "own"]));
    assert_eq!(layout::read(&workspace.out("image")).text("left.out"), "changed\n");
    workspace.write("own.txt", "changed\n");
    assert_eq!(ran(&build(&workspace, &[])), set(&["own"]));
}

#[test]
fn a_change_that_keeps_size_and_time_is_seen() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    let path = workspace.context().join("own.txt");
    registry::run(Command::new("touch").args(["-d", "@1000000000"]).arg(&path));
    build(&workspace, &[]);
    fs::write(&path, "OWN\n").unwrap();
    registry::run(Command::new("touch").args(["-d", "@1000000000"]).arg(&path));
    assert_eq!(ran(&build(&workspace, &[])), set(&["own"]));
}

#[test]
fn a_changed_mode_is_a_change_and_a_changed_ignored_file_is_none() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    workspace.write(".dockerignore", "*.log\n");
    build(&workspace, &[]);
    workspace.write("new.log", "noise\n");
    assert_eq!(ran(&build(&workspace, &[])), set(&[]));
    fs::set_permissions(workspace.context().join("own.txt"), fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(ran(&build(&workspace, &[])), set(&["own"]));
}

#[test]
fn going_back_to_an_earlier_content_runs_nothing() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    let first = build(&workspace, &[]);
    workspace.write("left.txt", "other\n");
    build(&workspace, &[]);
    workspace.write("left.txt", "left\n");
    let third = build(&workspace, &[]);
    assert_eq!(ran(&third), set(&[]));
    assert_eq!(first.stdout, third.stdout, "the image of the first build");
}

#[test]
fn a_step_that_gives_the_same_result_stops_the_change() {
    let workspace = Workspace::new();
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}} AS count\nCOPY list.txt /\nRUN {} && wc -l </list.txt >/count\n\
         FROM ${{BASE}}\nCOPY --from=count /count /\nRUN {}\n",
        say("count"),
        say("after"),
    ));
    workspace.write("list.txt", "one\ntwo\n");
    build(&workspace, &[]);
    workspace.write("list.txt", "three\nfour\n");
    assert_eq!(ran(&build(&workspace, &[])), set(&["count"]), "the count is the same, so nothing after it runs");
}

#[test]
fn a_changed_argument_runs_the_steps_after_its_declaration() {
    let workspace = Workspace::new();
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}}\nRUN {}\nARG VERSION=1\nRUN {} $VERSION\n",
        say("before"),
        say("after"),
    ));
    build(&workspace, &[]);
    assert_eq!(ran(&build(&workspace, &["--build-arg=VERSION=2"])), set(&["after"]));
    assert_eq!(ran(&build(&workspace, &["--build-arg=VERSION=1"])), set(&[]), "an earlier value is remembered");
}

#[test]
fn a_changed_proxy_runs_nothing() {
    let workspace = Workspace::new();
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {}\n", say("step")));
    build(&workspace, &[]);
    assert_eq!(ran(&build(&workspace, &["--build-arg=http_proxy=http://proxy.invalid:1"])), set(&[]));
}

#[test]
fn no_cache_runs_everything_again() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    build(&workspace, &[]);
    assert_eq!(ran(&build(&workspace, &["--no-cache"])), set(&["first", "joined", "left", "own", "right"]));
}

#[test]
fn a_failed_step_is_not_remembered_but_those_before_it_are() {
    let workspace = Workspace::new();
    let base = shared().base_argument();
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN {}\nRUN {} && false\n", say("good"), say("bad")));
    assert_eq!(ran(&workspace.build([&base]).run().fails(1, &[])), set(&["good", "bad"]));
    assert_eq!(ran(&workspace.build([&base]).run().fails(1, &[])), set(&["bad"]));
}

#[test]
fn another_directory_with_the_same_content_runs_nothing() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    build(&workspace, &[]);
    let moved = workspace.path().join("moved");
    fs::rename(workspace.context(), &moved).unwrap();
    let base = shared().base_argument();
    let again = workspace.strata(["build", "--progress=plain", &base, moved.to_str().unwrap()]).run().success();
    assert_eq!(ran(&again), set(&[]));
}

#[test]
fn a_broken_cache_is_a_miss() {
    let workspace = Workspace::new();
    two_stages(&workspace);
    build(&workspace, &[]);
    let mut todo = vec![workspace.state().join("cache")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            fs::write(path, b"\0 not what it was").unwrap();
        }
    }
    build(&workspace, &[]);
}

/// Whether a file below `directory` was opened while `action` ran.
fn opened_during(directory: &Path, action: impl FnOnce()) -> bool {
    let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
    inotify::add_watch(&watch, directory, inotify::WatchFlags::OPEN).unwrap();
    action();
    let mut buffer = [MaybeUninit::uninit(); 4096];
    let mut reader = inotify::Reader::new(&watch, &mut buffer);
    while let Ok(event) = reader.next() {
        if !event.events().contains(inotify::ReadFlags::ISDIR) {
            return true;
        }
    }
    false
}

#[test]
fn an_unchanged_file_is_not_opened() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY data /data\n");
    for number in 0..20 {
        workspace.write(&format!("data/{number}"), format!("{number}\n"));
    }
    let data = workspace.context().join("data");
    assert!(opened_during(&data, || drop(build_scratch(&workspace))), "the first build reads the files");
    // What was written just before it was read is not trusted, so the second build may read once more.
    std::thread::sleep(Duration::from_secs(3));
    build_scratch(&workspace);
    assert!(!opened_during(&data, || drop(build_scratch(&workspace))), "the files were read again");
}

fn build_scratch(workspace: &Workspace) -> Finished {
    workspace.build(["-t", "scratch"]).run().success()
}

#[test]
fn a_cached_build_asks_the_registry_for_no_blob() {
    let workspace = Workspace::new();
    let honest =
        crate::lying_registry::LyingRegistry::start(&shared().layout("busybox"), crate::lying_registry::Lie::None);
    workspace.dockerfile(&format!("FROM {}\nRUN {}\n", honest.image(), say("step")));
    workspace.build(["-t", "x"]).run().success();
    let before = honest.requests().len();
    let again = workspace.build(["-t", "x"]).run().success();
    assert_eq!(ran(&again), set(&[]));
    let blobs: Vec<_> =
        honest.requests().split_off(before).into_iter().filter(|line| line.contains("/blobs/")).collect();
    assert!(blobs.is_empty(), "{blobs:?}");
}

#[test]
fn a_build_of_metadata_only_fetches_no_layer() {
    let workspace = Workspace::new();
    let honest =
        crate::lying_registry::LyingRegistry::start(&shared().layout("busybox"), crate::lying_registry::Lie::None);
    workspace.dockerfile(&format!("FROM {}\nLABEL a=b\n", honest.image()));
    workspace.build(["-t", "x"]).run().success();
    let layer = layout::read(&shared().layout("busybox")).manifest["layers"][0]["digest"].as_str().unwrap().to_owned();
    let fetched = honest.requests().into_iter().filter(|line| line.contains(&layer)).count();
    assert_eq!(fetched, 0, "{:?}", honest.requests());
}
