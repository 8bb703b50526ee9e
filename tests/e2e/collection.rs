//! `strata du`, `strata prune`, and what a build removes of itself: never what an image or a running build needs.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use rustix::process::Signal;
use serde_json::Value;

use crate::parallel::MeetingPoint;
use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::shells::Session;
use crate::skip::{is_root, skip};
use crate::workspace::{Finished, Who, Workspace};

fn json(finished: &Finished) -> Value {
    serde_json::from_str(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {}", finished.describe()))
}

fn du(workspace: &Workspace) -> Value {
    json(&workspace.strata(["du", "--format", "json"]).run().success())
}

/// What is there of each kind, and of each one the field.
fn by_kind(report: &Value, field: &str) -> BTreeMap<String, u64> {
    let rows = report["kinds"].as_array().unwrap();
    rows.iter().map(|row| (row["kind"].as_str().unwrap().to_owned(), row[field].as_u64().unwrap())).collect()
}

fn prune(workspace: &Workspace, arguments: &[&str]) -> Value {
    let all = [&["prune", "--format", "json"], arguments].concat();
    json(&workspace.strata(all).run().success())
}

/// What coreutils say that a directory takes, in bytes.
fn disk_usage(path: &Path) -> u64 {
    let said = crate::registry::run(Command::new("du").args(["-s", "-B1"]).arg(path));
    said.split_whitespace().next().unwrap().parse().unwrap()
}

fn entries(workspace: &Workspace, directory: &str) -> usize {
    fs::read_dir(workspace.state().join(directory)).unwrap().count()
}

/// Makes everything in a store look as if it had last been used so long ago.
fn age(workspace: &Workspace, by: Duration) {
    let time = SystemTime::now() - by;
    for directory in ["layers", "oci/blobs/sha256", "cache", "mounts"] {
        let mut pending = vec![workspace.state().join(directory)];
        while let Some(directory) = pending.pop() {
            for path in fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()) {
                if path.is_dir() && !path.ends_with("tree") {
                    pending.push(path);
                } else if path.is_file() {
                    // Blobs cannot be opened for writing by everybody, but their times can be set by path.
                    let stamp = rustix::fs::Timespec {
                        tv_sec: time.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs().try_into().unwrap(),
                        tv_nsec: 0,
                    };
                    let times = rustix::fs::Timestamps { last_access: stamp, last_modification: stamp };
                    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, rustix::fs::AtFlags::empty()).unwrap();
                }
            }
        }
    }
}

/// Two images of which one has a name, a cache mount, and packed layers.
fn fill(workspace: &Workspace) {
    let recipe = |name: &str| {
        format!(
            "ARG BASE\nFROM ${{BASE}} AS build\nRUN echo {name} >/built && ln /built /again\n\
             FROM ${{BASE}}\nRUN --mount=type=cache,target=/c echo ran-\"{name}\"; seq 20000 >/c/{name}\n\
             COPY --from=build /built /\nCOPY {name}.txt /\n"
        )
    };
    for name in ["kept", "loose"] {
        workspace.write(&format!("{name}.txt"), name.repeat(5000));
        workspace.dockerfile(&recipe(name));
        let output = workspace.layout_output(name);
        let named = if name == "kept" { vec!["-t", "kept"] } else { Vec::new() };
        let arguments = named.into_iter().chain([shared().base_argument().leak() as &str, &output]);
        workspace.build(arguments.collect::<Vec<_>>()).run().success();
    }
    workspace.dockerfile(&recipe("kept"));
}

fn every_user(what: &str) -> Vec<Workspace> {
    let others = [RANGES, SINGLE].into_iter().filter_map(|name| user(name, what));
    std::iter::once(Who::Caller).chain(others).map(Workspace::of).collect()
}

#[test]
fn du_adds_up_to_what_the_file_system_says() {
    for workspace in every_user("collection: du") {
        fill(&workspace);
        let report = du(&workspace);
        let total = disk_usage(&workspace.state());
        assert_eq!(report["size"].as_u64(), Some(total), "{report:#}");
        assert_eq!(by_kind(&report, "size").values().sum::<u64>(), total);
        let (shared, unique) = (by_kind(&report, "shared"), by_kind(&report, "unique"));
        for (kind, size) in by_kind(&report, "size") {
            assert_eq!(shared[&kind] + unique[&kind], size, "{kind}");
        }
        let counts = by_kind(&report, "count");
        for (kind, least) in
            [("built-layers", 6), ("base-layers", 1), ("cache-mounts", 1), ("build-logs", 2), ("blobs", 4)]
        {
            assert!(counts[kind] >= least, "{kind}: {report:#}");
        }
        assert!(shared["built-layers"] > 0 && unique["built-layers"] > 0, "{report:#}");
        assert!(shared["blobs"] > 0, "the exported layouts have them, too: {report:#}");
        let table = workspace.strata(["du", "--verbose"]).run().success().stdout;
        for needle in ["KIND", "cache mounts", "total", "KEPT BY", "a tag", "/c", "steps-v1/"] {
            assert!(table.contains(needle), "{needle:?} in\n{table}");
        }
        assert_eq!(disk_usage(&workspace.state()), total, "looking changes nothing");
        workspace.assert_nothing_left();
    }
}

#[test]
fn a_dry_run_tells_the_truth_and_images_stay_whole() {
    for workspace in every_user("collection: prune") {
        fill(&workspace);
        // What an exported layout shares would not come free.
        let first = crate::layout::read(&workspace.out("kept")).digest;
        fs::remove_dir_all(workspace.out("kept")).unwrap();
        fs::remove_dir_all(workspace.out("loose")).unwrap();
        let before = disk_usage(&workspace.state());
        let files = entries(&workspace, "layers");
        workspace.strata(["prune"]).run().fails(2, &["--force", "--dry-run"]);
        let told = prune(&workspace, &["--dry-run"]);
        assert_eq!((disk_usage(&workspace.state()), entries(&workspace, "layers")), (before, files), "{told:#}");
        let done = prune(&workspace, &["--force"]);
        assert_eq!((&told["kinds"], &told["freed"]), (&done["kinds"], &done["freed"]));
        assert!(by_kind(&done, "count").contains_key("built-layers"), "{done:#}");
        assert!(!by_kind(&done, "count").contains_key("cache-mounts"), "{done:#}");
        let after = disk_usage(&workspace.state());
        assert_eq!(before - after, done["freed"].as_u64().unwrap());
        assert_eq!(prune(&workspace, &["--force"])["freed"], 0, "once is enough");

        // The image with a name is built without running anything, and comes out whole.
        let output = workspace.layout_output("again");
        let again = workspace.build([&shared().base_argument(), &output]).run().success();
        assert_eq!(again.count("ran-kept"), 0, "{}", again.describe());
        assert_eq!(crate::layout::read(&workspace.out("again")).digest, first);
        assert!(workspace.strata(["images"]).run().success().stdout.contains("kept"));

        // Everything goes but the image; and with its name, the image.
        assert!(by_kind(&prune(&workspace, &["--all", "-f"]), "count").contains_key("cache-mounts"));
        assert_eq!(entries(&workspace, "mounts"), 0);
        assert!(entries(&workspace, "layers") > 0);
        workspace.strata(["inspect", "kept"]).run().success();
        workspace.strata(["rm", "kept"]).run().success();
        prune(&workspace, &["--all", "-f"]);
        assert_eq!(entries(&workspace, "layers") + entries(&workspace, "oci/blobs/sha256"), 0);
        let rebuilt = workspace.build([&shared().base_argument(), &workspace.layout_output("rebuilt")]).run().success();
        assert!(rebuilt.count("ran-kept") > 0, "{}", rebuilt.describe());
        workspace.assert_nothing_left();
    }
}

#[test]
fn a_running_build_keeps_what_it_uses() {
    let workspace = Workspace::new();
    let point = MeetingPoint::open();
    let recipe = |last: &str| {
        format!(
            "ARG BASE\nFROM ${{BASE}} AS other\nRUN echo other >/other\nFROM ${{BASE}}\nRUN echo one >/one\n\
             RUN --mount=type=cache,target=/c echo two >/two && touch /c/mine\n{last}"
        )
    };
    let build = || workspace.build([shared().base_argument()]).env("STRATA_PASTA", "off");
    workspace.dockerfile(&recipe("COPY --from=other /other /unneeded\n"));
    build().run().success();
    // Old layers, found in the cache, below a step that goes on.
    let last = format!(
        "RUN --mount=type=cache,target=/c {} && cat /one /two && ls /c\nCOPY --from=other /other /\n",
        point.call('x')
    );
    workspace.dockerfile(&recipe(&last));
    let output = workspace.layout_output("image");
    let running = workspace.build([&shared().base_argument(), &output, "--tag=x"]).env("STRATA_PASTA", "off").start();
    let step = point.next();
    let before = entries(&workspace, "layers");
    let freed = prune(&workspace, &["--all", "--force"]);
    assert_eq!(entries(&workspace, "layers"), before - 1, "only what the build does not use: {freed:#}");
    assert!(!by_kind(&freed, "count").contains_key("cache-mounts"), "{freed:#}");
    drop(step);
    let finished = running.wait().success();
    assert!(finished.stderr.contains("mine"), "{}", finished.describe());
    let image = crate::layout::read(&workspace.out("image"));
    assert_eq!(
        (image.text("one"), image.text("two"), image.text("other")),
        ("one\n".into(), "two\n".into(), "other\n".into())
    );
    workspace.assert_nothing_left();
}

#[test]
fn age_and_size_bound_what_goes() {
    let workspace = Workspace::new();
    let build = |name: &str| {
        workspace.write(&format!("{name}.bin"), name.repeat(200_000));
        workspace.dockerfile(&format!("FROM scratch\nCOPY {name}.bin /\n"));
        workspace.build::<_, &str>([]).run().success();
    };
    build("a");
    age(&workspace, Duration::from_secs(48 * 3600));
    build("b");
    for arguments in [["--older-than", "7d"], ["--filter", "until=72h"]] {
        assert_eq!(prune(&workspace, &[&arguments[..], &["--dry-run"]].concat())["freed"], 0);
    }
    assert_eq!(prune(&workspace, &["--older-than", "30000000000000w", "--force"])["freed"], 0);
    let size = du(&workspace)["size"].as_u64().unwrap();
    let plenty = size.to_string();
    assert_eq!(prune(&workspace, &["--keep-storage", &plenty, "--dry-run"])["freed"], 0);
    let bound = (size - 100_000).to_string();
    let told = prune(&workspace, &["--max-used-space", &bound, "--dry-run"]);
    assert_eq!(by_kind(&told, "count").get("built-layers"), Some(&1), "{told:#}");
    // The older of the two is the one that goes.
    let old = prune(&workspace, &["--older-than", "24h", "--force"]);
    assert_eq!(by_kind(&old, "count").get("built-layers"), Some(&1), "{old:#}");
    workspace.build::<_, &str>([]).run().success().cached("b.bin");
    assert_eq!(prune(&workspace, &["--older-than", "24h", "--force"])["freed"], 0);
    for (arguments, needle) in [
        (["--older-than", "soon"], "no age"),
        (["--keep-storage", "lots"], "no size"),
        (["--filter", "type=exec.cachemount"], "--filter type"),
        (["--filter", "id=x"], "--filter id"),
    ] {
        workspace.strata([&["prune", "-f"], &arguments[..]].concat()).run().fails(2, &[needle]);
    }
}

#[test]
fn builds_keep_the_store_below_its_cap() {
    let workspace = Workspace::new();
    fs::write(
        workspace.path().join("config.toml"),
        "[store]\nkeep-storage = \"8m\"\nmin-free = \"off\"\nreserved = 0\n",
    )
    .unwrap();
    workspace.dockerfile("FROM scratch\nCOPY kept /\n");
    workspace.write("kept", "kept");
    workspace.build(["-t", "kept"]).run().success();
    let size = || du(&workspace)["size"].as_u64().unwrap();
    for round in 0..12_u8 {
        workspace.write("content", [round].repeat(2 << 20));
        workspace.dockerfile("FROM scratch\nCOPY content /\n");
        workspace.build::<_, &str>([]).run().success();
        // Nobody waits long for a collection: on a busy machine one or two builds go by before it is done.
        assert!(size() < 15 << 20, "round {round}: {}", size());
    }
    assert!(entries(&workspace, "layers") >= 3, "no more goes than has to");
    workspace.build::<_, &str>([]).run().success().cached("COPY content");
    workspace.strata(["inspect", "kept"]).run().success();
    workspace.dockerfile("FROM scratch\nCOPY kept /\n");
    workspace.build::<_, &str>([]).run().success().cached("COPY kept");
    workspace.assert_nothing_left();
}

#[test]
fn a_killed_prune_leaves_a_good_store() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nCOPY many /many\nRUN ls /many | wc -l >/count\n");
    for number in 0..300 {
        workspace.write(&format!("many/{number}"), format!("{number}"));
    }
    let build = |name: &str| {
        workspace.build([&shared().base_argument(), &workspace.layout_output(name)]).run().success();
        assert_eq!(crate::layout::read(&workspace.out(name)).text("count"), "300\n", "{name}");
    };
    build("first");
    for delay in [0, 1, 2, 4, 6, 8, 12, 20] {
        let running = workspace.strata(["prune", "--all", "--force"]).start();
        std::thread::sleep(Duration::from_millis(delay));
        running.signal(Signal::KILL);
        running.wait();
        let report = du(&workspace);
        assert_eq!(report["size"].as_u64(), Some(disk_usage(&workspace.state())), "after {delay} ms");
        build(&format!("after-{delay}"));
    }
    prune(&workspace, &["--all", "--force"]);
    assert_eq!(entries(&workspace, "layers") + entries(&workspace, "tmp"), 0);
    build("last");
    workspace.assert_nothing_left();
}

#[test]
fn builds_and_prunes_at_once_hinder_nobody() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS common\nARG ROUND\nRUN echo common $ROUND >/common\n\
         FROM ${BASE}\nARG N\nARG ROUND\nRUN --mount=type=cache,target=/c echo $N $ROUND >/n && echo $N >/c/$N\n\
         COPY file /\nCOPY --from=common /common /\nWORKDIR /w\nRUN cat /n /common /file >all\n",
    );
    workspace.write("file", "file\n");
    for round in 0..3 {
        let build = |n: u32| {
            let output = workspace.layout_output(&format!("image-{round}-{n}"));
            let arguments =
                [shared().base_argument(), format!("--build-arg=N={n}"), format!("--build-arg=ROUND={round}")];
            workspace.build(arguments.iter().chain([&output])).env("STRATA_PASTA", "off").start()
        };
        let running: Vec<_> = (0..3).map(build).collect();
        for _ in 0..6 {
            prune(&workspace, &["--all", "--force"]);
        }
        for (n, running) in running.into_iter().enumerate() {
            running.wait().success();
            let image = crate::layout::read(&workspace.out(&format!("image-{round}-{n}")));
            assert_eq!(image.text("w/all"), format!("{n} {round}\ncommon {round}\nfile\n"));
        }
    }
    prune(&workspace, &["--all", "--force"]);
    assert_eq!(entries(&workspace, "layers") + entries(&workspace, "mounts") + entries(&workspace, "tmp"), 0);
    workspace.assert_nothing_left();
}

#[test]
fn a_person_is_asked() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    workspace.build::<_, &str>([]).run().success();
    for (answer, left) in [("n", 1), ("", 1), ("yes", 0)] {
        let mut session = Session::start(&workspace.strata(["prune"]));
        session.wait_for("go on? [y/N]");
        assert_eq!(entries(&workspace, "layers"), 1);
        session.keys(&format!("{answer}\n"));
        let (status, screen) = session.end();
        assert!(status.success() && screen.contains("built layers"), "{screen}");
        assert_eq!(entries(&workspace, "layers"), left, "{screen}");
    }
    let (status, screen) = Session::start(&workspace.strata(["prune"])).end();
    assert!(status.success() && !screen.contains("go on?"), "nothing to ask: {screen}");
}

/// A small file system in memory, until this goes.
struct Mounted(PathBuf);

impl Mounted {
    fn at(path: PathBuf) -> Self {
        fs::create_dir(&path).unwrap();
        crate::registry::run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=24m", "tmpfs"]).arg(&path));
        Self(path)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

#[test]
fn a_small_disk_takes_any_number_of_builds() {
    if !is_root() {
        skip("collection: a small disk", "mounting one takes root");
        return;
    }
    let workspace = Workspace::new();
    let disk = Mounted::at(workspace.state());
    // The bounds are those of every store: shares of the disk.
    let outcomes: Vec<_> = (0..10_u8)
        .map(|round| {
            workspace.write("content", [round].repeat(5 << 20));
            workspace.dockerfile("FROM scratch\nCOPY content /\n");
            let build = || workspace.build::<_, &str>([]).run();
            let first = build();
            // Where a collection took longer than anybody waits, one build may fail for want of room; the next does not.
            if first.code() == Some(0) { first } else { build() }
        })
        .collect();
    drop(disk);
    for outcome in outcomes {
        outcome.success();
    }
    workspace.assert_nothing_left();
}
