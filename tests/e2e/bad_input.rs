//! Everything that goes wrong around a recipe: registries, disks, signals, command lines.
//!
//! What is wrong in a recipe itself is in `tests/cases/errors`. After every failure there is no image, no mount, no
//! process, and the next build works: [`fails_cleanly`].

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::lying_registry::{Lie, LyingRegistry};
use crate::registry::{free_address, run, shared};
use crate::skip::{is_root, skip};
use crate::workspace::{Finished, Workspace};

/// Builds a recipe that must fail with one of these codes and with these texts, and checks what is left.
#[track_caller]
fn fails_cleanly(recipe: &str, codes: &[i32], needles: &[&str]) -> Finished {
    let workspace = Workspace::new();
    workspace.dockerfile(recipe);
    let output = workspace.layout_output("image");
    let finished = workspace.build(["-t", "never", &output]).run().fails_with_any(codes, needles);
    assert_clean(&workspace, &finished);
    finished
}

/// No result, no image, no mount, no process; and a good build works.
#[track_caller]
fn assert_clean(workspace: &Workspace, finished: &Finished) {
    assert_eq!(finished.stdout, "", "a failed build has no result");
    assert!(!workspace.out("image").exists(), "a partial image is left");
    workspace.assert_nothing_left();
    let images = workspace.strata(["images", "--format", "json"]).run().success().stdout;
    assert!(!images.contains("never"), "a failed build left a name: {images}");
    workspace.assert_store_usable();
}

#[test]
fn a_registry_that_is_down() {
    let address = free_address();
    let recipe = format!("FROM {address}/down/image\nRUN true\n");
    fails_cleanly(&recipe, &[3], &[&address, "Dockerfile:1"]);
}

#[test]
fn a_host_that_does_not_exist() {
    fails_cleanly("FROM registry.invalid/image\nRUN true\n", &[3], &["registry.invalid", "Dockerfile:1"]);
}

#[test]
fn a_tag_that_the_registry_lacks() {
    let name = format!("{}:no-such-tag", shared().image("busybox"));
    fails_cleanly(&format!("# a comment\nFROM {name}\nRUN true\n"), &[1], &[&name, "Dockerfile:2"]);
}

#[test]
fn a_repository_that_the_registry_lacks() {
    let name = format!("{}/no/such/image", shared().address());
    fails_cleanly(&format!("FROM {name}\nRUN true\n"), &[1], &[&name, "Dockerfile:1"]);
}

#[test]
fn a_digest_that_the_registry_lacks() {
    let digest = format!("sha256:{}", "5".repeat(64));
    let name = format!("{}@{digest}", shared().image("busybox"));
    fails_cleanly(&format!("FROM {name}\nRUN true\n"), &[1], &[&digest, "Dockerfile:1"]);
}

#[test]
fn registries_that_send_wrong_bytes() {
    let base = crate::layout::read(&shared().layout("busybox"));
    let layer = base.manifest["layers"][0]["digest"].as_str().unwrap();
    let config = base.manifest["config"]["digest"].as_str().unwrap();
    for (lie, needle) in [
        (Lie::LayerByte, layer),
        (Lie::LayerCut, layer),
        (Lie::ConfigByte, config),
        (Lie::Manifest, base.digest.as_str()),
        (Lie::NotJson, base.digest.as_str()),
    ] {
        let registry = LyingRegistry::start(&shared().layout("busybox"), lie);
        let name = format!("{}@{}", registry.image(), base.digest);
        // A connection that ends early may be the network's doing.
        let codes: &[i32] = if lie == Lie::LayerCut { &[1, 3] } else { &[1] };
        let finished = fails_cleanly(&format!("FROM {name}\nRUN touch /x\n"), codes, &["Dockerfile:1"]);
        // The digest may be shortened for people.
        assert!(finished.stderr.contains(&needle[..19]), "{lie:?}: expected {needle}\n{}", finished.describe());
    }
}

#[test]
fn a_manifest_that_is_a_web_page() {
    let registry = LyingRegistry::start(&shared().layout("busybox"), Lie::NotJson);
    fails_cleanly(&format!("FROM {}\nRUN true\n", registry.image()), &[1], &[&registry.image(), "Dockerfile:1"]);
}

#[test]
fn wrong_bytes_are_not_kept() {
    let workspace = Workspace::new();
    let (lying, honest) = (Lie::LayerByte, Lie::None);
    let registry = LyingRegistry::start(&shared().layout("busybox"), lying);
    workspace.dockerfile(&format!("FROM {}\nRUN touch /x\n", registry.image()));
    workspace.build(["-t", "never"]).run().fails(1, &[]);
    let registry = LyingRegistry::start(&shared().layout("busybox"), honest);
    workspace.dockerfile(&format!("FROM {}\nRUN touch /x\n", registry.image()));
    workspace.build(["-t", "good"]).run().success();
}

#[test]
fn a_registry_that_is_out_of_order_or_speaks_in_riddles() {
    for (lie, needle) in [(Lie::ServerError, "500"), (Lie::Unauthorized, "401")] {
        let registry = LyingRegistry::start(&shared().layout("busybox"), lie);
        let recipe = format!("FROM {}\nRUN true\n", registry.image());
        let finished = fails_cleanly(&recipe, &[1, 3], &["Dockerfile:1"]);
        let named = finished.stderr.contains(needle) || finished.stderr.to_lowercase().contains("auth");
        assert!(named, "expected {needle}\n{}", finished.describe());
    }
}

#[test]
fn a_command_line_that_is_wrong() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\n");
    for arguments in [
        vec!["bild", "."],
        vec!["build"],
        vec!["build", "--no-such-flag", "."],
        vec!["build", "--progress", "loud", "."],
        vec!["build", "--build-arg", "=x", "context"],
        vec!["build", "-t", "Not A Name", "context"],
        vec!["build", "--platform", "linux/", "context"],
    ] {
        let finished = workspace.strata(&arguments).run();
        assert_eq!(finished.code(), Some(2), "{}", finished.describe());
        assert!(finished.stderr.contains("error:") && finished.stdout.is_empty(), "{}", finished.describe());
    }
    let finished = workspace.strata(["bild", "."]).run();
    assert!(finished.stderr.contains("build"), "the nearest command is suggested\n{}", finished.describe());
}

#[test]
fn a_context_or_a_dockerfile_that_is_not_there() {
    let workspace = Workspace::new();
    workspace.strata(["build", "no/such/directory"]).run().fails(2, &["no/such/directory"]);
    workspace.strata(["build", "context"]).run().fails(2, &["Dockerfile"]);
    workspace.strata(["build", "-f", "no.Dockerfile", "context"]).run().fails(2, &["no.Dockerfile"]);
}

#[test]
fn a_dockerfile_that_is_no_text() {
    for bytes in [b"\x7fELF\x02\x01\x01\0\0\0\0\xff\xfe".to_vec(), vec![0xff; 4096], vec![0; 100], Vec::new()] {
        let workspace = Workspace::new();
        workspace.write("Dockerfile", &bytes);
        let finished = workspace.build(["-t", "never"]).run().fails(2, &["Dockerfile"]);
        assert_clean(&workspace, &finished);
    }
}

#[test]
fn a_state_directory_that_cannot_be_written() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let file = workspace.path().join("a-file");
    fs::write(&file, "not a directory").unwrap();
    for state in [file.join("state"), PathBuf::from("/proc/strata-cannot-be-here")] {
        let build = workspace.build(["-t", "never"]).env("STRATA_ROOT", &state);
        build.run().fails(3, &[state.to_str().unwrap()]);
    }
    workspace.assert_nothing_left();
}

/// A small file system of its own at a path, gone with the value.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, size: &str) -> Self {
        fs::create_dir_all(path).unwrap();
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &format!("size={size}"), "strata-e2e"]).arg(path));
        Self(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk() {
    if !is_root() {
        return skip("bad_input: a full disk", "mounting a small file system takes root");
    }
    for recipe in ["FROM ${BASE}\nCOPY big /big\n", "FROM ${BASE}\nRUN dd if=/dev/zero of=/big bs=1M count=64\n"] {
        let workspace = Workspace::new();
        let context = Workspace::new();
        let disk = SmallDisk::mount(&workspace.state(), "24m");
        context.dockerfile(&format!("ARG BASE\n{recipe}"));
        context.write("big", vec![b'x'; 64 << 20]);
        let build = context.build([shared().base_argument(), context.layout_output("image")]);
        let build = build.env("STRATA_ROOT", workspace.state());
        let finished = build.run();
        let finished =
            if recipe.contains("RUN") { finished.fails(1, &["is full"]) } else { finished.fails(3, &["is full"]) };
        assert!(finished.stderr.contains("STRATA_ROOT"), "{}", finished.describe());
        assert!(finished.stderr.contains("No space left on device"), "{}", finished.describe());
        assert!(!context.out("image").exists());
        context.assert_nothing_left();

        // The store goes on with what room there is.
        context.dockerfile("ARG BASE\nFROM ${BASE}\nRUN touch /small\n");
        let build = context.build([shared().base_argument(), "-t=good".to_owned()]);
        build.env("STRATA_ROOT", workspace.state()).run().success();
        drop(disk);
    }
}

#[test]
fn an_output_that_cannot_be_written() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let output = "type=oci,dest=/proc/no/image,tar=false";
    let finished = workspace.build(["--output", output]).run();
    assert!(matches!(finished.code(), Some(1 | 3)), "{}", finished.describe());
    assert!(finished.stderr.contains("/proc/no/image"), "{}", finished.describe());
    workspace.assert_nothing_left();
    workspace.assert_store_usable();
}

/// Sends a signal in the middle of a `RUN`; gives the workspace and what came.
fn interrupted_by(signal: Signal) -> (Workspace, Finished) {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS other\nRUN echo other-\"sleeps\"; sleep 3600\n\
         FROM ${BASE}\nRUN echo now-\"sleeping\"; sleep 3600 & sleep 3600\nCOPY --from=other /etc/passwd /\n",
    );
    let output = workspace.layout_output("image");
    let mut running = workspace.build([&shared().base_argument(), "-t", "never", &output]).start();
    running.wait_for("now-sleeping");
    running.wait_for("other-sleeps");
    running.signal(signal);
    (workspace, running.wait())
}

#[test]
fn control_c_in_the_middle_of_a_step() {
    for signal in [Signal::INT, Signal::TERM] {
        let (workspace, finished) = interrupted_by(signal);
        let stopped = finished.ended_by().is_some() || finished.code().is_some_and(|code| code != 0);
        assert!(stopped, "expected a failure\n{}", finished.describe());
        assert!(!finished.stderr.contains("panicked at"), "{}", finished.describe());
        assert_clean(&workspace, &finished);
    }
}

#[test]
fn a_kill_in_the_middle_of_a_step() {
    let (workspace, finished) = interrupted_by(Signal::KILL);
    assert_eq!(finished.ended_by(), Some(9));
    assert_clean(&workspace, &finished);
    let left: Vec<_> = fs::read_dir(workspace.state().join("tmp")).into_iter().flatten().collect();
    assert!(left.is_empty(), "the next command sweeps what was half-written: {left:?}");
}

#[test]
fn a_step_cannot_leave_processes() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN (setsid sleep 3600 >/dev/null 2>&1 &) ; echo started\n");
    workspace.build([&shared().base_argument(), "-t", "x"]).run().success();
    workspace.assert_nothing_left();
}

#[test]
fn output_without_line_ends_and_without_end_is_no_trouble() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\nRUN head -c 5000000 /dev/zero | tr '\\0' x; printf '\\xff\\xfe\\033[2J\\r\\r'\nRUN yes | head -n 200000\n",
    );
    workspace.build([&shared().base_argument(), "-t", "x"]).run().success();
}
