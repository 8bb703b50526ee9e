//! Every flag of `docker buildx build`: taken with Docker's meaning, or refused by name.

use std::fs;

use serde_json::Value;

use crate::layout;
use crate::registry::shared;
use crate::workspace::Workspace;

/// The flags of buildx 0.30, each as it is commonly given. What needs a file gets one that is there.
const FLAGS: &[&[&str]] = &[
    &["--add-host", "name:1.2.3.4"],
    &["--allow", "network.host"],
    &["--annotation", "a=b"],
    &["--attest", "type=provenance,disabled=true"],
    &["--build-arg", "A=b"],
    &["--build-context", "name=/"],
    &["--builder", "default"],
    &["--cache-from", "type=gha"],
    &["--cache-to", "type=gha"],
    &["--call", "targets"],
    &["--cgroup-parent", "x"],
    &["--check"],
    &["--file", "@/context/Dockerfile"],
    &["--iidfile", "@/out/id"],
    &["--label", "a=b"],
    &["--load"],
    &["--metadata-file", "@/out/metadata"],
    &["--network", "host"],
    &["--no-cache"],
    &["--no-cache-filter", "one"],
    &["--output", "type=oci,dest=@/out/image,tar=false"],
    &["--platform", "linux/amd64"],
    &["--policy", "reset=true"],
    &["--progress", "rawjson"],
    &["--provenance=false"],
    &["--pull"],
    &["--push"],
    &["--quiet"],
    &["--resource", "memory=1g"],
    &["--sbom=false"],
    &["--secret", "id=a,src=@/context/Dockerfile"],
    &["--shm-size", "1g"],
    &["--ssh", "default=@/agent"],
    &["--tag", "a"],
    &["--target", "one"],
    &["--ulimit", "nofile=1"],
];

#[test]
fn every_flag_of_buildx_is_taken_or_refused_by_name() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch AS one\nCOPY Dockerfile /\n");
    let place = workspace.path().to_str().unwrap().to_owned();
    let _agent = std::os::unix::net::UnixListener::bind(workspace.path().join("agent")).unwrap();
    for flag in FLAGS {
        let arguments: Vec<String> = flag.iter().map(|word| word.replace('@', &place)).collect();
        let mut all = vec!["build".to_owned()];
        all.extend(arguments);
        all.push(workspace.context().to_str().unwrap().to_owned());
        let finished = workspace.strata(all).run();
        let name = flag[0].split('=').next().unwrap();
        let refused = finished.stderr.contains(&format!("{name} is not supported yet"));
        match finished.code() {
            Some(0) => assert!(!refused, "{}", finished.describe()),
            Some(2) => assert!(refused, "{flag:?} is refused, but not by name:\n{}", finished.describe()),
            _ => panic!("{flag:?}:\n{}", finished.describe()),
        }
    }
}

#[test]
fn values_without_meaning_are_refused() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    for (flag, part) in [
        ("--provenance=true", "--provenance"),
        ("--sbom=generator=x", "--sbom"),
        ("--attest=type=sbom", "--attest"),
        ("--network=bridge", "bridge"),
        ("--add-host=a", "NAME:ADDRESS"),
        ("--annotation=index:a=b", "index"),
        ("--annotation=a", "no value"),
        ("--label==b", "no name"),
        ("--call=outlin", "did you mean outline?"),
        ("--call=outline,format=xml", "format=json"),
    ] {
        let finished = workspace.build([flag]).run().ended_with(2);
        assert!(finished.stderr.contains(part), "{flag}: {}", finished.describe());
    }
}

#[test]
fn labels_and_annotations_reach_the_image() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\nLABEL a=recipe b=recipe\n");
    let (image, metadata, id) = (workspace.out("image"), workspace.out("metadata.json"), workspace.out("id"));
    let output = workspace.layout_output("image");
    let arguments = [
        "-t",
        "named:1",
        "--label",
        "a=flag",
        "--label",
        "c",
        "--annotation",
        "x=y",
        "--annotation",
        "manifest:z=1",
        output.as_str(),
        "--metadata-file",
        metadata.to_str().unwrap(),
        "--iidfile",
        id.to_str().unwrap(),
    ];
    workspace.build(arguments).run().success();

    let written: Value = serde_json::from_slice(&fs::read(&metadata).unwrap()).unwrap();
    let read = layout::read(&image);
    assert_eq!(written["containerimage.digest"], Value::from(read.digest.clone()));
    assert_eq!(written["containerimage.descriptor"]["digest"], Value::from(read.digest.clone()));
    assert_eq!(written["containerimage.config.digest"], Value::from(fs::read_to_string(&id).unwrap()));
    assert_eq!(written["image.name"], "docker.io/library/named:1");
    assert_eq!(read.config["config"]["Labels"], serde_json::json!({ "a": "flag", "b": "recipe", "c": "" }));
    let blob = image.join("blobs").join(read.digest.replace(':', "/"));
    let manifest: Value = serde_json::from_slice(&fs::read(blob).unwrap()).unwrap();
    assert_eq!((&manifest["annotations"]["x"], &manifest["annotations"]["z"]), (&"y".into(), &"1".into()));
}

#[test]
fn a_failed_build_leaves_no_id_of_an_earlier_one() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY missing /\n");
    let id = workspace.out("id");
    fs::write(&id, "sha256:old").unwrap();
    workspace.build(["--iidfile", id.to_str().unwrap()]).run().ended_with(1);
    assert!(!id.exists());
}

#[test]
fn only_the_stages_named_run_again() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS one\nRUN echo first\nFROM ${BASE} AS two\nRUN echo second\n\
         FROM ${BASE}\nCOPY --from=one /etc /1/\nCOPY --from=two /etc /2/\n",
    );
    workspace.build([&shared().base_argument()]).run().success();
    let again = workspace.build(["--no-cache-filter", "TWO", &shared().base_argument()]).run().success();
    let ran =
        |text: &str| again.stderr.lines().any(|line| line.ends_with(&format!(" {text}")) && !line.contains("RUN"));
    assert!(ran("second") && !ran("first"), "{}", again.describe());
    let unknown = workspace.build(["--no-cache-filter", "tow", &shared().base_argument()]).run().success();
    assert!(unknown.stderr.contains("did you mean two?"), "{}", unknown.describe());
}

#[test]
fn steps_know_added_hosts_and_their_network() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN cat /etc/hosts; cat /proc/net/dev\n");
    let added = workspace.build(["--add-host", "added.example:10.1.2.3", &shared().base_argument()]).run().success();
    assert!(added.stderr.contains("10.1.2.3\tadded.example"), "{}", added.describe());
    // Hosts are no part of a key, the network is.
    let again = workspace.build(["--add-host", "other.example:10.1.2.4", &shared().base_argument()]).run().success();
    assert!(!again.stderr.contains("10.1.2.4"), "{}", again.describe());
    let none = workspace.build(["--network", "none", &shared().base_argument()]).run().success();
    let interfaces = none.stderr.lines().filter(|line| line.contains(": ") && line.trim_end().ends_with(" 0")).count();
    assert!(none.stderr.contains("lo:") && interfaces <= 1, "{}", none.describe());
}
