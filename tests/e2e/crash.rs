//! Strata that is killed, out of room, or on a disk that fails: the next command works, `strata fsck` finds nothing wrong,
//! and what is built then is what an undisturbed build makes, bit for bit.
//!
//! Nothing in the program helps with that. Instants are found from outside in two ways: [`kills`] ends a command at a
//! random moment of its length, and `strace` ends it at, or fails, exactly its n-th system call of a kind. `make test` has a
//! few of each; `make soak` (`STRATA_SOAK`) hundreds. A failure names the seed and the instant.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use rustix::process::Signal;

use crate::registry::shared;
use crate::skip::{is_root, skip};
use crate::workspace::{Finished, Strata, Workspace};

/// Numbers that look like chance, the same for the same seed.
struct Chance(u64);

impl Chance {
    fn new() -> Self {
        let seed = std::env::var("STRATA_SOAK_SEED").ok().and_then(|seed| seed.parse().ok());
        Self(seed.unwrap_or(20_261_122))
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound.max(1)
    }
}

/// Whether the whole length was asked for.
fn is_soak() -> bool {
    std::env::var_os("STRATA_SOAK").is_some()
}

/// A recipe whose image is the same in every build, with a step of every kind.
fn recipe(workspace: &Workspace) {
    for number in 0..20 {
        workspace.write(&format!("files/{number}"), vec![number; 20_000]);
    }
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS one\nRUN mkdir /d && for n in 1 2 3 4 5 6 7 8 9; do echo $n >/d/$n; done && \
         touch -d @1 /d/* /d\nFROM ${BASE}\nCOPY files /files\nCOPY --from=one /d /d\nWORKDIR /w\n\
         RUN --mount=type=cache,target=/c cat /d/1 >/w/f && echo x >>/c/f && touch -d @1 /w/f /w\n",
    );
}

/// A build that pulls, unpacks, runs, makes layers, compresses, writes an archive and a directory, and moves a name.
fn build(workspace: &Workspace) -> Strata {
    let archive = format!("--output=type=oci,dest={}", workspace.out("image.tar").display());
    let directory = workspace.layout_output("image");
    let arguments = ["-t", "crash", "--build-arg=SOURCE_DATE_EPOCH=1", &shared().base_argument(), &archive, &directory];
    workspace.build(arguments).env("STRATA_PASTA", "off")
}

/// What decides that two builds came to the same: the archive's bytes, and the directory's list.
#[derive(Debug, PartialEq, Eq)]
struct Results {
    archive: blake3::Hash,
    index: String,
}

fn results(workspace: &Workspace) -> Results {
    Results {
        archive: blake3::hash(&fs::read(workspace.out("image.tar")).unwrap()),
        index: fs::read_to_string(workspace.out("image").join("index.json")).unwrap(),
    }
}

/// What an undisturbed build makes, and how long it takes.
fn undisturbed() -> (Results, Duration) {
    let workspace = Workspace::new();
    recipe(&workspace);
    let start = Instant::now();
    build(&workspace).run().success();
    (results(&workspace), start.elapsed())
}

/// Takes away what an earlier build made, so that the next one starts anew; but not always.
fn forget(workspace: &Workspace, chance: &mut Chance) {
    let state = workspace.state();
    let gone: &[&str] = match chance.below(4) {
        0 => &["layers", "cache", "oci/blobs"],
        1 => &["layers"],
        2 => &["cache"],
        _ => &["oci/blobs/sha256"],
    };
    for directory in gone {
        let _ = fs::remove_dir_all(state.join(directory));
    }
    for output in ["image.tar", "image"] {
        let path = workspace.out(output);
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
    }
    // What was taken away is no damage of the product's: it is as if it had never been.
    workspace.strata(["fsck", "--repair"]).run();
}

/// The store is whole, and nothing of a killed process is left in it.
#[track_caller]
fn assert_whole(workspace: &Workspace, about: &str) {
    let images = workspace.strata(["images"]).run();
    assert_eq!(images.code(), Some(0), "{about}: {}", images.describe());
    let fsck = workspace.strata(["fsck"]).run();
    assert_eq!(fsck.code(), Some(0), "{about}: {}", fsck.describe());
    assert!(!fsck.stderr.contains("panicked"), "{about}: {}", fsck.describe());
    for directory in ["tmp", "cache/contexts"] {
        let left = names(&workspace.state().join(directory));
        let left: Vec<_> = left.iter().filter(|name| directory == "tmp" || name.starts_with('.')).collect();
        assert!(left.is_empty(), "{about}: {directory} has {left:?}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

/// The next build makes what an undisturbed one makes.
#[track_caller]
fn assert_recovers(workspace: &Workspace, expected: &Results, about: &str) {
    let built = build(workspace).run();
    assert_eq!(built.code(), Some(0), "{about}: {}", built.describe());
    assert!(!built.stderr.contains("damaged"), "{about}: {}", built.describe());
    assert_eq!(results(workspace), *expected, "{about}: another image");
}

#[test]
fn killed_at_any_instant() {
    let (expected, length) = undisturbed();
    let workspace = Workspace::new();
    recipe(&workspace);
    build(&workspace).run().success();
    let mut chance = Chance::new();
    let kills = if is_soak() { 300 } else { 20 };
    for number in 0..kills {
        let about = format!("STRATA_SOAK_SEED: kill {number}");
        let (repairs, prunes) = (number % 7 == 6, number % 7 == 5);
        if chance.below(3) > 0 && !prunes {
            forget(&workspace, &mut chance);
        }
        let command = if repairs {
            damage_something(&workspace);
            workspace.strata(["fsck", "--repair"])
        } else if prunes {
            build(&workspace).run().success();
            workspace.strata(["prune", "--all", "--force"])
        } else {
            build(&workspace)
        };
        // One of these is a tenth as long.
        let longest = if repairs || prunes { length / 8 } else { length * 5 / 4 };
        let running = command.start();
        std::thread::sleep(Duration::from_micros(chance.below(longest.as_micros() as u64)));
        running.signal(Signal::KILL);
        running.wait();
        if repairs {
            // What was damaged before may still be: but a repair that comes to its end ends it.
            let repaired = workspace.strata(["fsck", "--repair"]).run();
            assert_eq!(repaired.code(), Some(0), "{about}: {}", repaired.describe());
        }
        assert_whole(&workspace, &about);
        if number % 3 == 0 {
            assert_recovers(&workspace, &expected, &about);
        }
    }
    assert_recovers(&workspace, &expected, "after all of them");
    workspace.assert_nothing_left();
}

/// Damages a few things that a repair will find, and can be made again.
fn damage_something(workspace: &Workspace) {
    let cache = workspace.state().join("cache");
    let mut pending = vec![cache];
    while let Some(path) = pending.pop() {
        if path.is_dir() {
            pending.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else {
            fs::write(&path, "rubbish").unwrap();
        }
    }
    fs::write(workspace.state().join("oci/index.json"), "rubbish").unwrap();
}

/// Whether `strace` can follow processes here.
fn can_trace(what: &str) -> bool {
    let traced = Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    let can = traced.as_ref().is_ok_and(|status| status.success());
    if !can {
        skip(what, "strace cannot follow processes here");
    }
    can
}

/// The command under `strace`, with something injected.
fn traced(workspace: &Workspace, strata: &Strata, injection: &str) -> Finished {
    let calls = injection.split(':').next().unwrap();
    let log = workspace.path().join("strace.log");
    let log = log.to_str().unwrap();
    let arguments = [
        "-f",
        "-qq",
        "-o",
        log,
        "-e",
        "signal=none",
        "-e",
        &format!("trace={calls}"),
        "-e",
        &format!("inject={injection}"),
    ];
    strata.under("strace", &arguments).run()
}

/// Kinds of system calls by which something appears, or comes to the disk.
const STEPS: [&str; 6] = [
    "rename,renameat,renameat2",
    "fsync,fdatasync",
    "mkdir,mkdirat",
    "unlink,unlinkat",
    "link,linkat",
    "write,pwrite64,writev",
];

#[test]
fn killed_at_each_step_of_the_store() {
    if !can_trace("killed_at_each_step_of_the_store") {
        return;
    }
    let (expected, _) = undisturbed();
    let mut chance = Chance::new();
    for (number, calls) in STEPS.iter().enumerate() {
        let workspace = Workspace::new();
        recipe(&workspace);
        // Each thread counts for itself: the numbers are small.
        let instants: Vec<u64> =
            if is_soak() { (1..=25).collect() } else { vec![1 + chance.below(3), 4 + chance.below(12)] };
        for when in instants {
            let about = format!("SIGKILL at {calls} {when}");
            let killed = traced(&workspace, &build(&workspace), &format!("{calls}:signal=KILL:when={when}"));
            assert!(!killed.stderr.contains("panicked"), "{about}: {}", killed.describe());
            assert_whole(&workspace, &about);
        }
        assert_recovers(&workspace, &expected, calls);
        if number == 0 {
            workspace.assert_nothing_left();
        }
    }
}

#[test]
fn disks_that_fail() {
    if !can_trace("disks_that_fail") {
        return;
    }
    let (expected, _) = undisturbed();
    let mut chance = Chance::new();
    let errors = ["EIO", "ENOSPC"];
    for calls in
        ["write,pwrite64,writev", "fsync,fdatasync", "rename,renameat,renameat2", "openat,open", "mkdir,mkdirat"]
    {
        let workspace = Workspace::new();
        recipe(&workspace);
        let instants: Vec<u64> = if is_soak() { (1..=40).collect() } else { vec![1 + chance.below(30)] };
        for when in instants {
            for error in if is_soak() { &errors[..] } else { &errors[(when % 2) as usize..][..1] } {
                let about = format!("{error} of {calls} {when}");
                let failed = traced(&workspace, &build(&workspace), &format!("{calls}:error={error}:when={when}"));
                assert!(!failed.stderr.contains("panicked"), "{about}: {}", failed.describe());
                match failed.code() {
                    Some(0) => {}
                    Some(_) => {
                        let said = failed.stderr.contains("error:") || failed.stderr.contains("error while loading");
                        assert!(said, "{about}: {}", failed.describe());
                    }
                    None => panic!("{about}: {}", failed.describe()),
                }
                assert_whole(&workspace, &about);
            }
        }
        assert_recovers(&workspace, &expected, calls);
    }
}

/// A file system in memory, of so many KiB, as long as this lives.
struct Small(PathBuf);

impl Small {
    fn mount(path: PathBuf, kilobytes: u64) -> Self {
        fs::create_dir_all(&path).unwrap();
        let small = Self(path);
        small.set(MountFlags::empty(), kilobytes);
        small
    }

    fn grow(&self, kilobytes: u64) {
        let options = std::ffi::CString::new(format!("size={kilobytes}k")).unwrap();
        rustix::mount::mount_remount(&self.0, MountFlags::empty(), options.as_c_str()).unwrap();
    }

    fn set(&self, flags: MountFlags, kilobytes: u64) {
        let options = std::ffi::CString::new(format!("size={kilobytes}k,mode=0755")).unwrap();
        rustix::mount::mount("tmpfs", &self.0, "tmpfs", flags, options.as_c_str()).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.0, UnmountFlags::DETACH);
    }
}

#[test]
fn disks_that_are_full() {
    if !is_root() {
        return skip("disks_that_are_full", "a small file system takes root to mount");
    }
    let (expected, _) = undisturbed();
    let step = if is_soak() { 40 } else { 700 };
    let mut failed = 0;
    let mut kilobytes = 24;
    loop {
        let workspace = Workspace::new();
        recipe(&workspace);
        let disk = Small::mount(workspace.state(), kilobytes);
        let about = format!("{kilobytes} KiB");
        let built = build(&workspace).run();
        assert!(!built.stderr.contains("panicked"), "{about}: {}", built.describe());
        if built.code() == Some(0) {
            assert_eq!(results(&workspace), expected, "{about}");
            break;
        }
        failed += 1;
        let names_it = built.stderr.contains("full") || built.stderr.contains("No space left");
        assert!(names_it, "{about}: {}", built.describe());
        assert!(matches!(built.code(), Some(1 | 3)), "{about}: {}", built.describe());
        // With room again, everything goes on; nothing of the failure is in the way.
        disk.grow(64 << 10);
        assert_whole(&workspace, &about);
        assert_recovers(&workspace, &expected, &about);
        assert_whole(&workspace, &about);
        kilobytes += step;
        assert!(kilobytes < 64 << 10, "it never fits");
    }
    assert!(failed > 2, "the disk was never full");
}
