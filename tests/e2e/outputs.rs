//! What `--output` writes, and what tools that others wrote say of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::layout::{self, Entry, Image};
use crate::registry::{self, run, shared};
use crate::skip::{is_root, skip};
use crate::workspace::Workspace;

/// A context with something of everything: several owners, links, modes, whiteouts, an opaque directory, attributes.
fn varied() -> Workspace {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG RICH\nFROM ${RICH}\nUSER root\nWORKDIR /made\nCOPY --chown=app:staff a.txt dir ./\n\
         RUN ln -s a.txt l && ln a.txt h && mkfifo p && chmod 4750 a.txt && mkdir -m 1777 sticky\n\
         RUN rm /srv/data/one && rm -r /srv/replaced && mkdir /srv/replaced && echo again >/srv/replaced/again\n\
         RUN rm -r /home/app && echo a file now >/home/app\n\
         ENV VARIED=yes\nLABEL org.example.varied=yes\nCMD [\"cat\", \"/made/a.txt\"]\n",
    );
    workspace.write("a.txt", "a\n");
    let attributed = workspace.write("dir/b.txt", "b\n");
    rustix::fs::setxattr(&attributed, "user.origin", b"context", rustix::fs::XattrFlags::empty()).unwrap();
    workspace
}

fn rich_argument() -> String {
    format!("--build-arg=RICH={}", shared().image("rich"))
}

/// Builds with an `--output` of these attributes, and reads what came.
fn build_to(workspace: &Workspace, name: &str, attributes: &str) -> Image {
    let out = workspace.out(name);
    let output = format!("--output=type=oci,dest={}{attributes}", out.display());
    workspace.build([rich_argument(), output]).run().success();
    layout::read(&out)
}

/// Builds [`varied`] as a directory, with a name in its index that umoci can use.
fn varied_with_name() -> (Workspace, PathBuf, Image) {
    let workspace = varied();
    let image = build_to(&workspace, "image", ",tar=false");
    let named = workspace.path().join("named");
    let source = format!("oci:{}", workspace.out("image").display());
    run(Command::new("skopeo").args(["copy", "--quiet", &source, &format!("oci:{}:latest", named.display())]));
    (workspace, named, image)
}

fn needs_root(what: &str) -> bool {
    if !is_root() {
        skip(what, "the base image has files of several owners, which takes root");
    }
    is_root()
}

#[test]
fn archive_and_directory_are_the_same_image() {
    if !needs_root("outputs: archive and directory") {
        return;
    }
    let workspace = varied();
    let directory = build_to(&workspace, "image", ",tar=false");
    let archive = build_to(&workspace, "image.tar", "");
    assert!(workspace.out("image.tar").is_file() && workspace.out("image").is_dir());
    assert_eq!(directory.digest, archive.digest);
}

#[test]
fn compression_changes_the_form_of_new_layers_only() {
    if !needs_root("outputs: compression") {
        return;
    }
    let workspace = varied();
    let base = layout::read(&shared().layout("rich"));
    let base_layers = base.manifest["layers"].as_array().unwrap();
    let mut diff_ids = BTreeSet::new();
    for (compression, suffix) in [("uncompressed", ".tar"), ("gzip", "tar+gzip"), ("zstd", "tar+zstd")] {
        let image = build_to(&workspace, compression, &format!(",tar=false,compression={compression}"));
        let layers = image.manifest["layers"].as_array().unwrap();
        assert_eq!(&layers[..base_layers.len()], base_layers, "the base's descriptors are its own manifest's");
        for layer in &layers[base_layers.len()..] {
            assert!(layer["mediaType"].as_str().unwrap().ends_with(suffix), "{compression}: {layer}");
        }
        diff_ids.insert(image.config["rootfs"]["diff_ids"].to_string());
    }
    assert_eq!(diff_ids.len(), 1, "the layers are the same, whatever their form");
    let default = build_to(&workspace, "default", ",tar=false");
    let last = default.manifest["layers"].as_array().unwrap().last().unwrap();
    assert!(last["mediaType"].as_str().unwrap().ends_with("tar+gzip"), "gzip where nothing is said");
}

#[test]
fn an_unknown_output_is_refused() {
    let workspace = varied();
    for (output, needle) in [
        ("type=carrier-pigeon,dest=x", "carrier-pigeon"),
        ("type=oci,tar=false", "dest"),
        ("type=oci,dest=x,compression=rar", "rar"),
        ("type=oci,dest=x,colour=blue", "colour"),
    ] {
        workspace.build([&rich_argument(), "--output", output]).run().fails(2, &[needle]);
    }
}

#[test]
fn blobs_of_the_base_are_hard_links_into_the_store() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN touch /new\n");
    workspace.build([shared().base_argument(), workspace.layout_output("image")]).run().success();
    let base = layout::read(&shared().layout("busybox"));
    for layer in base.manifest["layers"].as_array().unwrap() {
        let path = format!("blobs/{}", layer["digest"].as_str().unwrap().replace(':', "/"));
        let (written, stored) = (workspace.out("image").join(&path), workspace.state().join("oci").join(&path));
        let inode =
            |path: &Path| fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).ino();
        assert_eq!(inode(&written), inode(&stored), "{path} is a copy");
    }
}

#[test]
fn skopeo_reads_it() {
    if !needs_root("outputs: skopeo") {
        return;
    }
    let (_workspace, named, image) = varied_with_name();
    let name = format!("oci:{}:latest", named.display());
    let inspected: Value = serde_json::from_str(&run(Command::new("skopeo").args(["inspect", &name]))).unwrap();
    assert_eq!(inspected["Digest"], image.digest.as_str());
    assert_eq!(inspected["Labels"]["org.example.varied"], "yes");
    assert_eq!(inspected["Layers"].as_array().map(Vec::len), image.manifest["layers"].as_array().map(Vec::len));
    let config: Value =
        serde_json::from_str(&run(Command::new("skopeo").args(["inspect", "--config", &name]))).unwrap();
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "/made/a.txt"]));
}

#[test]
fn skopeo_carries_it_to_a_registry_and_strata_builds_on_it() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo first >/first\nENV FIRST=1\n");
    workspace.build([shared().base_argument(), workspace.layout_output("first")]).run().success();
    let name = format!("{}/round/trip:1", shared().address());
    let source = format!("oci:{}", workspace.out("first").display());
    run(Command::new("skopeo").args([
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        &source,
        &format!("docker://{name}"),
    ]));
    workspace.dockerfile(&format!("FROM {name}\nRUN cat /first >/second\n"));
    let fresh = Workspace::new();
    fresh.dockerfile(&format!("FROM {name}\nRUN cat /first >/second && echo $FIRST >>/second\n"));
    fresh.build([fresh.layout_output("second")]).run().success();
    let (first, second) = (layout::read(&workspace.out("first")), layout::read(&fresh.out("second")));
    assert_eq!(second.text("second"), "first\n1\n");
    let descriptors = |image: &Image| image.manifest["layers"].as_array().unwrap().clone();
    assert!(descriptors(&second).starts_with(&descriptors(&first)));
}

#[test]
fn umoci_unpacks_the_tree_that_the_recipe_says() {
    if !needs_root("outputs: umoci unpack") {
        return;
    }
    let (workspace, named, image) = varied_with_name();
    let root = unpacked_like_read(&workspace, &named, &image);

    // The same against the recipe itself, so that a mistake shared by both readers is seen.
    let at = |path: &str| fs::symlink_metadata(root.join(path));
    let made = at("made/a.txt").unwrap();
    assert_eq!((made.mode() & 0o7777, made.uid(), made.gid()), (0o4750, 1000, 50));
    assert_eq!(made.ino(), at("made/h").unwrap().ino(), "a hard link");
    assert_eq!(fs::read_link(root.join("made/l")).unwrap(), Path::new("a.txt"));
    assert!(at("made/p").unwrap().file_type().is_fifo());
    assert_eq!(at("made/sticky").unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(attribute(&root.join("made/b.txt"), "user.origin").as_deref(), Some(b"context".as_slice()));
    assert_eq!(fs::read(root.join("home/app")).unwrap(), b"a file now\n");
    assert_eq!(fs::read(root.join("srv/replaced/again")).unwrap(), b"again\n");
    for gone in ["srv/replaced/new", "srv/replaced/old", "srv/data/one", "srv/doomed", "home/app/.profile"] {
        assert!(at(gone).is_err(), "{gone} is back");
    }
}

#[test]
fn umoci_and_the_reader_of_these_tests_agree_on_a_base() {
    if !needs_root("outputs: umoci unpack of a base") {
        return;
    }
    let workspace = Workspace::new();
    let layout = shared().layout("rich");
    let image = layout::read(&layout);
    assert_eq!(image.text("srv/replaced/new"), "seen\n");
    assert!(!image.tree.contains_key("srv/doomed") && !image.tree.contains_key("srv/replaced/old"));
    unpacked_like_read(&workspace, &layout, &image);
}

/// Unpacks an image with umoci, compares it file by file with what our reader made of it, and gives its root.
fn unpacked_like_read(workspace: &Workspace, layout: &Path, image: &Image) -> PathBuf {
    let bundle = workspace.path().join("bundle");
    run(Command::new("umoci").args(["unpack", "--image"]).arg(format!("{}:latest", layout.display())).arg(&bundle));
    let root = bundle.join("rootfs");
    let mut differences = Vec::new();
    for (path, entry) in image.tree.iter().filter(|(path, _)| !path.is_empty()) {
        differences.extend(compare(&root, path, entry));
    }
    for path in paths_below(&root) {
        if !image.tree.contains_key(&path) {
            differences.push(format!("{path}: unpacked, but not in the layers"));
        }
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
    root
}

fn compare(root: &Path, path: &str, entry: &Entry) -> Vec<String> {
    let full = root.join(path);
    let Ok(found) = fs::symlink_metadata(&full) else {
        return vec![format!("{path}: not unpacked")];
    };
    let kind = match found.file_type() {
        kind if kind.is_dir() => "dir",
        kind if kind.is_symlink() => "symlink",
        kind if kind.is_fifo() => "fifo",
        kind if kind.is_char_device() => "char",
        kind if kind.is_block_device() => "block",
        _ => "file",
    };
    let mut differences = Vec::new();
    let mut differs = |field: &str, unpacked: String, read: String| {
        if unpacked != read {
            differences.push(format!("{path}: {field} {unpacked} unpacked, {read} in the layers"));
        }
    };
    differs("type", kind.to_owned(), entry.kind.to_owned());
    differs("owner", format!("{}:{}", found.uid(), found.gid()), format!("{}:{}", entry.uid, entry.gid));
    if kind != "symlink" {
        differs("mode", format!("{:o}", found.mode() & 0o7777), format!("{:o}", entry.mode));
    }
    if kind == "file" {
        differs("content", layout::sha256(&fs::read(&full).unwrap()), layout::sha256(&entry.content));
        differs("mtime", found.mtime().to_string(), entry.mtime.to_string());
    }
    if kind == "symlink" {
        differs("link", fs::read_link(&full).unwrap().display().to_string(), entry.link.clone());
    }
    for (name, value) in &entry.xattrs {
        let found = attribute(&full, name).map(|value| String::from_utf8_lossy(&value).into_owned());
        differs(name, format!("{found:?}"), format!("{:?}", Some(String::from_utf8_lossy(value).into_owned())));
    }
    differences
}

fn attribute(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut buffer = [0_u8; 1024];
    let length = rustix::fs::lgetxattr(path, name, &mut buffer[..]).ok()?;
    Some(buffer[..length].to_vec())
}

fn paths_below(root: &Path) -> Vec<String> {
    let mut paths = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
            paths.push(entry.path().strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            if entry.file_type().unwrap().is_dir() {
                todo.push(entry.path());
            }
        }
    }
    paths
}

#[test]
fn the_documents_fit_the_specification_s_schemas() {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/reference/schemas");
    if !schemas.is_dir() {
        return skip("outputs: schemas", &format!("{} is not there", schemas.display()));
    }
    let python = ["/usr/bin/python3", "python3"].into_iter().find(|python| {
        let probe = Command::new(python).args(["-W", "ignore", "-c", "import jsonschema"]).output();
        probe.is_ok_and(|output| output.status.success())
    });
    let Some(python) = python else {
        return skip("outputs: schemas", "Python's jsonschema is not installed");
    };
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\nRUN touch /x\nUSER 1:2\nEXPOSE 80\nENV A=1\nVOLUME /v\nLABEL a=b\nSTOPSIGNAL 9\n\
         WORKDIR /w\nCMD [\"x\"]\nENTRYPOINT [\"y\"]\nHEALTHCHECK CMD z\nSHELL [\"/bin/sh\", \"-c\"]\nONBUILD RUN w\n",
    );
    workspace.build([shared().base_argument(), workspace.layout_output("image")]).run().success();
    let image = layout::read(&workspace.out("image"));
    let written = |name: &str, document: &Value| {
        let path = workspace.path().join(name);
        fs::write(&path, document.to_string()).unwrap();
        path
    };
    let documents = BTreeMap::from([
        ("config-schema.json", written("config.json", &image.config)),
        ("image-manifest-schema.json", written("manifest.json", &image.manifest)),
        ("image-index-schema.json", workspace.out("image").join("index.json")),
        ("image-layout-schema.json", workspace.out("image").join("oci-layout")),
    ]);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/validate.py");
    for (schema, document) in documents {
        run(Command::new(python).args(["-W", "ignore"]).arg(&script).arg(schemas.join(schema)).arg(document));
    }
}

#[test]
fn with_an_epoch_two_stores_give_the_same_bytes() {
    let digests: BTreeSet<String> = (0..2)
        .map(|_| {
            let workspace = Workspace::new();
            workspace.dockerfile(
                "ARG BASE\nFROM ${BASE}\nCOPY . /all/\nRUN date >/dev/null && mkdir /d && echo x >/d/x && ln -s x /d/l\nWORKDIR /w\n",
            );
            workspace.write("sub/a.txt", "a\n");
            let build = workspace.build([shared().base_argument(), workspace.layout_output("image")]);
            build.env("SOURCE_DATE_EPOCH", "1600000000").run().success();
            let image = layout::read(&workspace.out("image"));
            assert_eq!(image.tree["d/x"].mtime, 1_600_000_000);
            assert!(image.config["created"].as_str().unwrap().starts_with("2020-09-13T12:26:40"));
            image.digest
        })
        .collect();
    assert_eq!(digests.len(), 1, "{digests:?}");
}

#[test]
fn an_output_never_replaces_what_is_not_an_image() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let precious = workspace.out("precious");
    fs::create_dir(&precious).unwrap();
    fs::write(precious.join("thesis.txt"), "years of work").unwrap();
    workspace.build([workspace.layout_output("precious")]).run();
    assert_eq!(fs::read_to_string(precious.join("thesis.txt")).unwrap(), "years of work");
}

#[test]
fn a_mirror_is_used_in_place_of_its_registry() {
    let workspace = Workspace::new();
    let config = format!("[registry.\"registry.invalid\"]\nmirrors = [\"http://{}\"]\n", shared().address());
    fs::write(workspace.path().join("config.toml"), config).unwrap();
    workspace.dockerfile("FROM registry.invalid/strata/busybox\nRUN touch /x\n");
    workspace.build([workspace.layout_output("image")]).run().success();
    assert!(layout::read(&workspace.out("image")).tree.contains_key("x"));
}

#[test]
fn a_password_opens_a_registry() {
    let workspace = Workspace::new();
    let address = registry::start_with_password(&workspace.out(""), "ada", "correct horse");
    workspace.dockerfile(&format!("FROM {address}/private/busybox\nRUN touch /x\n"));
    let docker = workspace.path().join("home/.docker");
    fs::create_dir(&docker).unwrap();
    // "ada:correct horse" in base64.
    let config = format!("{{\"auths\":{{\"{address}\":{{\"auth\":\"YWRhOmNvcnJlY3QgaG9yc2U=\"}}}}}}");
    fs::write(docker.join("config.json"), config).unwrap();
    workspace.build([workspace.layout_output("image")]).run().success();
    fs::remove_file(docker.join("config.json")).unwrap();

    let refused = Workspace::new();
    refused.dockerfile(&format!("FROM {address}/private/busybox\nRUN touch /x\n"));
    let finished = refused.build([refused.layout_output("image")]).run();
    finished.fails(1, &[&address, "Dockerfile:1"]);
    assert!(!refused.out("image").exists());
}
