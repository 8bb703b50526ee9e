//! Recipes in, graphs out: one table for each rule of the language.

use serde_json::{Value, json};

use super::*;
use crate::diagnostic::SourceFile;
use crate::graph::named::{NamedContext, NamedContexts};
use crate::graph::{Access, Allowed, CacheMount, CopyOp, CopySource, Graph, MkdirOp, RunMount, RunOp};
use crate::recipe::dockerfile;
use crate::recipe::platform::Platform;
use crate::recipe::{Network, Security, Sharing};

const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Names and values, or places and messages.
type Pairs<'a> = &'a [(&'a str, &'a str)];

fn platform(text: &str) -> Platform {
    text.parse().unwrap()
}

fn request() -> Request {
    Request {
        target: None,
        build_args: BTreeMap::new(),
        platform: platform("linux/amd64"),
        platform_given: false,
        build_platform: platform("linux/amd64"),
        source_date_epoch: None,
        every_stage: false,
        contexts: NamedContexts::default(),
        allow: Allowed::default(),
    }
}

fn with_args(args: Pairs<'_>) -> Request {
    let build_args = args.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Request { build_args, ..request() }
}

fn with_target(target: &str) -> Request {
    Request { target: Some(target.to_owned()), ..request() }
}

fn parse(text: &str) -> Recipe {
    let source = SourceFile { name: "Dockerfile".into(), text: text.into() };
    let (recipe, findings) = dockerfile::parse(&source);
    let errors: Vec<_> = findings.iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert!(errors.is_empty(), "{text}\n{errors:#?}");
    recipe
}

/// The images of these tests.
fn image(name: &str) -> Value {
    let config = match name {
        "alpine" => json!({ "Env": ["PATH=/bin"], "Cmd": ["/bin/sh"] }),
        "app" => json!({
            "Env": ["PATH=/opt", "A=base", "B"], "Cmd": ["serve"], "Entrypoint": ["/entry"], "WorkingDir": "/srv",
            "User": "web", "Labels": { "k": "base" }, "ExposedPorts": { "80/tcp": {} }, "Volumes": null,
            "StopTimeout": 7, "Shell": ["/bin/bash", "-c"],
        }),
        "onbuild" => json!({ "OnBuild": ["COPY . /src", "RUN make ${X}"] }),
        "onbuild-from" => json!({ "OnBuild": ["COPY --from=tools /bin/tool /bin/"] }),
        "onbuild-bad" => json!({ "OnBuild": ["EXPOSE nothing"] }),
        _ => json!({ "Env": ["PATH=/bin"] }),
    };
    let architecture = if name == "arm" { "arm64" } else { "amd64" };
    json!({
        "created": "2024-01-01T00:00:00Z", "author": "somebody", "architecture": architecture, "os": "linux",
        "config": config, "rootfs": { "type": "layers", "diff_ids": [] },
        "history": [{ "created": "2024-01-01T00:00:00Z", "created_by": format!("base of {name}") }],
        "moby.buildkit.cache.v0": "stale", "com.example.kept": 1,
    })
}

/// Lowers, looking up whatever images are asked for. Also says how often that was.
fn lower_in_rounds(text: &str, request: &Request) -> Result<(Graph, Vec<Diagnostic>, usize), Vec<Diagnostic>> {
    let recipe = parse(text);
    let mut bases = BTreeMap::new();
    for round in 0..10 {
        match lower(&recipe, request, &bases)? {
            Lowered::Graph(graph, warnings) => return Ok((*graph, warnings, round)),
            Lowered::Needs(images) => {
                assert!(!images.is_empty());
                for wanted in images {
                    let name = wanted.reference.repository.rsplit('/').next().unwrap().to_owned();
                    let config = serde_json::from_value(image(&name)).unwrap();
                    assert!(bases.insert(wanted, config).is_none(), "asked twice for {name}");
                }
            }
        }
    }
    panic!("images were asked for without end: {text}");
}

/// Lowers a recipe without mistakes, and checks what holds of every graph.
fn graph(text: &str, request: &Request) -> Graph {
    let (graph, ..) = lower_in_rounds(text, request).unwrap_or_else(|findings| panic!("{text}\n{findings:#?}"));
    for (number, node) in graph.nodes.iter().enumerate() {
        assert!(node.op.inputs().iter().all(|input| input.0 < number), "{text}: a node stands before what it needs");
    }
    let mut layers = 0;
    let mut next = Some(graph.target);
    while let Some(id) = next {
        next = graph[id].op.parent();
        layers += usize::from(next.is_some());
    }
    let entries = graph.config.history[graph.base_history..].iter().filter(|entry| !entry.empty_layer).count();
    assert_eq!(entries, layers, "{text}: one entry of the history for each layer");
    graph
}

/// The history the recipe adds; `-` marks entries without a layer.
fn history(graph: &Graph) -> Vec<String> {
    graph.config.history[graph.base_history..]
        .iter()
        .map(|entry| {
            assert_eq!(entry.comment.as_deref(), Some("buildkit.dockerfile.v0"));
            let mark = if entry.empty_layer { "- " } else { "" };
            format!("{mark}{}", entry.created_by.as_deref().unwrap())
        })
        .collect()
}

/// One line a node: what it does and to what.
fn ops(graph: &Graph) -> Vec<String> {
    graph.nodes.iter().map(|node| op_line(&node.op)).collect()
}

fn op_line(op: &Op) -> String {
    match op {
        Op::Scratch => "scratch".to_owned(),
        Op::Image(image) => {
            format!("image {} {}", image.reference.familiar().trim_end_matches(":latest"), image.platform)
        }
        Op::Context(_) => "context".to_owned(),
        Op::Http(source) => format!("http {}", source.address),
        Op::Git(address) => format!("git {}", address.remote),
        Op::Run(RunOp { parent, argv, workdir, user, .. }) => {
            format!("run {} {argv:?} in {workdir} as {user:?}", parent.0)
        }
        Op::Mkdir(MkdirOp { parent, path, user, .. }) => format!("mkdir {} {path} as {user:?}", parent.0),
        Op::Copy(copy) => copy_line(copy),
    }
}

fn copy_line(copy: &CopyOp) -> String {
    let sources: Vec<String> = copy
        .sources
        .iter()
        .map(|source| match source {
            CopySource::Path(path) => path.clone(),
            CopySource::Inline(file) => format!("{}={:?}", file.name, String::from_utf8_lossy(&file.content)),
            CopySource::Fetched { from, path, .. } => format!("{}:{path}", from.0),
        })
        .collect();
    let verb = if copy.unpack { "add" } else { "copy" };
    format!("{verb} {} from {} {} to {}", copy.parent.0, copy.from.0, sources.join(" "), copy.destination)
}

fn last_run(graph: &Graph) -> &RunOp {
    graph
        .nodes
        .iter()
        .rev()
        .find_map(|node| match &node.op {
            Op::Run(run) => Some(run),
            _ => None,
        })
        .expect("the recipe has a RUN")
}

fn env_of(run: &RunOp) -> Vec<String> {
    run.env.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

/// Checks the source text under each finding's span and a part of its message.
fn assert_findings(text: &str, findings: &[Diagnostic], expected: Pairs<'_>) {
    let seen: Vec<(&str, &str)> = findings
        .iter()
        .map(|finding| (&text[finding.span.start..finding.span.end], finding.message.as_str()))
        .collect();
    assert_eq!(seen.len(), expected.len(), "{text}\n{findings:#?}");
    for ((under, message), (expected_under, part)) in seen.iter().zip(expected) {
        assert_eq!(under, expected_under, "{text}\n{message}");
        assert!(message.contains(part), "{text}\n{message:?} does not say {part:?}");
    }
}

fn check_errors(text: &str, request: &Request, expected: Pairs<'_>) {
    let findings = match lower_in_rounds(text, request) {
        Ok((graph, ..)) => panic!("{text}\nwas accepted: {:#?}", ops(&graph)),
        Err(findings) => findings,
    };
    let errors: Vec<_> = findings.into_iter().filter(|finding| finding.severity == Severity::Error).collect();
    assert_findings(text, &errors, expected);
}

fn check_warnings(text: &str, request: &Request, expected: Pairs<'_>) -> Vec<Diagnostic> {
    let (_, warnings, _) = lower_in_rounds(text, request).unwrap_or_else(|findings| panic!("{text}\n{findings:#?}"));
    assert_findings(text, &warnings, expected);
    warnings
}

#[test]
fn configuration_is_what_buildkit_leaves() {
    let scratch = |extra: Value| {
        let mut config = json!({ "Env": [PATH], "WorkingDir": "/" });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        config
    };
    for (text, expected) in [
        ("FROM scratch", scratch(json!({}))),
        ("FROM scratch\nENV A=1 B=2\nENV A=3 C=$B", scratch(json!({ "Env": [PATH, "A=3", "B=2", "C=2"] }))),
        ("FROM scratch\nENV a=1\nENV a=2 b=$a", scratch(json!({ "Env": [PATH, "a=2", "b=1"] }))),
        ("FROM scratch\nENV PATH=/x:$PATH", scratch(json!({ "Env": [format!("PATH=/x:{}", &PATH[5..])] }))),
        ("FROM scratch\nARG A=1\nENV B=$A", scratch(json!({ "Env": [PATH, "B=1"] }))),
        ("FROM scratch\nENV A=1\nARG A=2\nENV B=$A", scratch(json!({ "Env": [PATH, "A=1", "B=2"] }))),
        ("FROM scratch\nCMD [\"a\", \"b\"]", scratch(json!({ "Cmd": ["a", "b"], "ArgsEscaped": true }))),
        ("FROM scratch\nCMD a b", scratch(json!({ "Cmd": ["/bin/sh", "-c", "a b"], "ArgsEscaped": true }))),
        (
            "FROM scratch\nSHELL [\"/bin/bash\", \"-c\"]\nENTRYPOINT a $b",
            scratch(json!({ "Shell": ["/bin/bash", "-c"], "Entrypoint": ["/bin/bash", "-c", "a $b"] })),
        ),
        ("FROM scratch\nCMD [\"a\"]\nCMD []", scratch(json!({ "ArgsEscaped": true }))),
        (
            "FROM scratch\nCMD [\"a\"]\nENTRYPOINT [\"e\"]",
            scratch(json!({ "Cmd": ["a"], "ArgsEscaped": true, "Entrypoint": ["e"] })),
        ),
        (
            "FROM scratch AS a\nCMD [\"a\"]\nFROM a\nENTRYPOINT [\"e\"]",
            scratch(json!({ "ArgsEscaped": true, "Entrypoint": ["e"] })),
        ),
        ("FROM scratch\nWORKDIR a\nWORKDIR b\nWORKDIR ../c", scratch(json!({ "WorkingDir": "/a/c" }))),
        ("FROM scratch\nENV D=/x\nWORKDIR $D/y", scratch(json!({ "Env": [PATH, "D=/x"], "WorkingDir": "/x/y" }))),
        ("FROM scratch\nARG U=me\nUSER ${U}:staff", scratch(json!({ "User": "me:staff" }))),
        (
            "FROM scratch\nEXPOSE 90 80/UDP 8000-8001",
            scratch(json!({ "ExposedPorts": { "80/udp": {}, "90/tcp": {}, "8000/tcp": {}, "8001/tcp": {} } })),
        ),
        (
            "FROM scratch\nARG P=\"1 2\"\nEXPOSE $P \"3\"",
            scratch(json!({ "ExposedPorts": { "1/tcp": {}, "2/tcp": {}, "3/tcp": {} } })),
        ),
        (
            "FROM scratch\nENV V=v\nVOLUME /a /$V",
            scratch(json!({ "Env": [PATH, "V=v"], "Volumes": { "/a": {}, "/v": {} } })),
        ),
        ("FROM scratch\nLABEL a=1 \"b c\"=\"d e\"", scratch(json!({ "Labels": { "a": "1", "b c": "d e" } }))),
        ("FROM scratch\nSTOPSIGNAL SIGQUIT", scratch(json!({ "StopSignal": "SIGQUIT" }))),
        (
            "FROM scratch\nHEALTHCHECK --interval=5m --retries=3 CMD curl $x",
            scratch(json!({
                "Healthcheck": { "Test": ["CMD-SHELL", "curl $x"], "Interval": 300_000_000_000_u64, "Retries": 3 },
            })),
        ),
        ("FROM scratch\nHEALTHCHECK CMD [\"a\"]", scratch(json!({ "Healthcheck": { "Test": ["CMD", "a"] } }))),
        ("FROM scratch\nHEALTHCHECK NONE", scratch(json!({ "Healthcheck": { "Test": ["NONE"] } }))),
        ("FROM scratch\nONBUILD RUN a\nONBUILD COPY b c", scratch(json!({ "OnBuild": ["RUN a", "COPY b c"] }))),
        (
            "FROM scratch AS a\nONBUILD ENV A=1\nFROM a\nONBUILD ENV B=1",
            scratch(json!({ "Env": [PATH, "A=1"], "OnBuild": ["ENV B=1"] })),
        ),
        (
            "FROM app\nENV A=2\nLABEL l=1",
            json!({
                "Env": ["PATH=/opt", "A=2", "B"], "Cmd": ["serve"], "Entrypoint": ["/entry"], "WorkingDir": "/srv",
                "User": "web", "Labels": { "k": "base", "l": "1" }, "ExposedPorts": { "80/tcp": {} },
                "StopTimeout": 7, "Shell": ["/bin/bash", "-c"],
            }),
        ),
        (
            "FROM app\nENTRYPOINT [\"e\"]\nWORKDIR x",
            json!({
                "Env": ["PATH=/opt", "A=base", "B"], "Entrypoint": ["e"], "WorkingDir": "/srv/x",
                "User": "web", "Labels": { "k": "base" }, "ExposedPorts": { "80/tcp": {} },
                "StopTimeout": 7, "Shell": ["/bin/bash", "-c"],
            }),
        ),
    ] {
        let graph = graph(text, &request());
        assert_eq!(serde_json::to_value(&graph.config.config).unwrap(), expected, "{text}");
    }
}

#[test]
fn the_document_around_it_is_the_bases() {
    let graph = graph("FROM app\nMAINTAINER me <me@example.com>", &request());
    assert_eq!(
        serde_json::to_value(&graph.config).unwrap(),
        json!({
            "author": "me <me@example.com>", "architecture": "amd64", "os": "linux", "com.example.kept": 1,
            "config": serde_json::to_value(&graph.config.config).unwrap(),
            "rootfs": { "type": "layers", "diff_ids": [] },
            "history": [
                { "created": "2024-01-01T00:00:00Z", "created_by": "base of app" },
                {
                    "created_by": "MAINTAINER me <me@example.com>", "comment": "buildkit.dockerfile.v0",
                    "empty_layer": true,
                },
            ],
        })
    );
    assert_eq!(graph.base_history, 1);
    assert_eq!(graph.base.map(|base| base.reference.repository).as_deref(), Some("library/app"));
}

#[test]
fn the_platform_is_the_one_asked_for() {
    let arm = platform("linux/arm64");
    for (text, given, expected) in [
        ("FROM scratch", true, "linux/arm64"),
        ("FROM --platform=linux/amd64 alpine", true, "linux/arm64"),
        ("FROM --platform=linux/amd64 alpine", false, "linux/amd64"),
        ("FROM --platform=$BUILDPLATFORM alpine AS a\nFROM scratch", false, "linux/arm64"),
        ("FROM arm", true, "linux/arm64"),
    ] {
        let request = Request { platform: arm.clone(), platform_given: given, ..request() };
        let graph = graph(text, &request);
        assert_eq!(format!("{}/{}", graph.config.os, graph.config.architecture), expected, "{text}");
        assert_eq!(graph.platform.to_string(), expected, "{text}");
    }
}

#[test]
fn history_reads_as_buildkits() {
    let cases: &[(&str, &[&str])] = &[
        ("FROM scratch\nENV A=b C=\"d e\"", &["- ENV A=b C=d e"]),
        ("FROM scratch\nENV A b c", &["- ENV A=b c"]),
        ("FROM scratch\nLABEL a=b", &["- LABEL a=b"]),
        ("FROM scratch\nARG A\nARG B=1 C=$B", &["- ARG A", "- ARG B=1 C=1"]),
        ("FROM scratch\nCMD [\"sh\"]", &["- CMD [\"sh\"]"]),
        ("FROM scratch\nCMD echo \"hi\"", &["- CMD [\"/bin/sh\" \"-c\" \"echo \\\"hi\\\"\"]"]),
        ("FROM scratch\nENTRYPOINT [\"a\", \"b\"]", &["- ENTRYPOINT [\"a\" \"b\"]"]),
        ("FROM scratch\nEXPOSE 90 80/udp", &["- EXPOSE [80/udp 90/tcp]"]),
        ("FROM scratch\nVOLUME /a /b", &["- VOLUME [/a /b]"]),
        ("FROM scratch\nUSER me", &["- USER me"]),
        ("FROM scratch\nSTOPSIGNAL 9", &["- STOPSIGNAL 9"]),
        ("FROM scratch\nSHELL [\"a\", \"-c\"]", &["- SHELL [a -c]"]),
        ("FROM scratch\nONBUILD RUN a", &[]),
        (
            "FROM scratch\nHEALTHCHECK --timeout=90s CMD a",
            &["- HEALTHCHECK {Test:[CMD-SHELL a] Interval:0s Timeout:1m30s StartPeriod:0s StartInterval:0s Retries:0}"],
        ),
        ("FROM scratch\nWORKDIR /\nWORKDIR x", &["- WORKDIR /", "WORKDIR /x"]),
        ("FROM scratch\nRUN make  all", &["RUN /bin/sh -c make  all # buildkit"]),
        ("FROM scratch\nRUN [\"make\", \"all\"]", &["RUN make all # buildkit"]),
        (
            "FROM scratch\nARG A=1\nARG B\nARG C=3\nENV C=4\nRUN x",
            &["- ARG A=1", "- ARG B", "- ARG C=3", "- ENV C=4", "RUN |3 A=1 B= C=4 /bin/sh -c x # buildkit"],
        ),
        ("FROM scratch AS a\nARG A=1\nFROM a\nRUN x", &["- ARG A=1", "RUN |1 A=1 /bin/sh -c x # buildkit"]),
        ("FROM scratch\nCOPY a b/", &["COPY a b/ # buildkit"]),
        ("FROM scratch\nARG D=x\nADD $D /y", &["- ARG D=x", "ADD x /y # buildkit"]),
        ("FROM scratch\nCOPY --chown=1:2 --chmod=755 --link a b .", &["COPY --chown=1:2 --chmod=755 a b . # buildkit"]),
        ("FROM scratch\nCOPY --parents a/./b .", &["COPY --parents a/./b . # buildkit"]),
        ("FROM scratch\nCOPY <<F x /d/\nhi\nF", &["COPY x <<F /d/ # buildkit"]),
        ("FROM scratch\nRUN <<F\nhi\nF", &["RUN /bin/sh -c hi\n # buildkit"]),
    ];
    for (text, expected) in cases {
        assert_eq!(history(&graph(text, &request())), *expected, "{text}");
    }
}

#[test]
fn steps_become_operations() {
    let amd = "linux/amd64";
    let cases: Vec<(&str, Vec<String>)> = vec![
        ("FROM scratch", vec!["scratch".into()]),
        (
            "FROM alpine\nUSER me\nWORKDIR /w/\nRUN a",
            vec![
                format!("image alpine {amd}"),
                "mkdir 0 /w as \"me\"".into(),
                "run 1 [\"/bin/sh\", \"-c\", \"a\"] in /w as \"me\"".into(),
            ],
        ),
        (
            "FROM scratch\nCOPY ../a /b/../c ./\nCOPY . .\nADD x.tar /y",
            vec![
                "scratch".into(),
                "context".into(),
                "copy 0 from 1 a c to /".into(),
                "copy 2 from 1 . to /".into(),
                "add 3 from 1 x.tar to /y".into(),
            ],
        ),
        (
            "FROM scratch\nWORKDIR /w\nCOPY a b\nCOPY a ../../../b/",
            vec![
                "scratch".into(),
                "mkdir 0 /w as \"\"".into(),
                "context".into(),
                "copy 1 from 2 a to /w/b".into(),
                "copy 3 from 2 a to /b/".into(),
            ],
        ),
        (
            "FROM alpine AS one\nRUN a\nFROM scratch\nCOPY --from=ONE /a /\nCOPY --from=0 b /\nCOPY --from=busybox c /",
            vec![
                format!("image alpine {amd}"),
                "run 0 [\"/bin/sh\", \"-c\", \"a\"] in / as \"\"".into(),
                "scratch".into(),
                "copy 2 from 1 a to /".into(),
                "copy 3 from 1 b to /".into(),
                format!("image busybox {amd}"),
                "copy 4 from 5 c to /".into(),
            ],
        ),
        (
            // The same steps on the same base are one node, whatever the stages are called.
            "FROM alpine AS a\nRUN x\nFROM alpine AS b\nRUN x\nRUN y\nFROM b\nCOPY --from=a /q /",
            vec![
                format!("image alpine {amd}"),
                "run 0 [\"/bin/sh\", \"-c\", \"x\"] in / as \"\"".into(),
                "run 1 [\"/bin/sh\", \"-c\", \"y\"] in / as \"\"".into(),
                "copy 2 from 1 q to /".into(),
            ],
        ),
        (
            // Stages the target does not need are not there.
            "FROM alpine AS a\nRUN a\nFROM scratch AS b\nCOPY --from=a <<F /x\nhi\nF\nFROM busybox AS c\nFROM b",
            vec!["scratch".into(), "copy 0 from 0 F=\"hi\\n\" to /x".into()],
        ),
        (
            "FROM scratch\nENV X=1\nCOPY <<A <<\"B\" /d/\n$X '$X' \\$X\nA\n$X\nB",
            vec!["scratch".into(), "copy 0 from 0 A=\"1 '1' $X\\n\" B=\"$X\\n\" to /d/".into()],
        ),
        (
            "FROM scratch\nRUN <<A\na\nb\nA\nRUN cat <<A <<B\na\nA\nb\nB",
            vec![
                "scratch".into(),
                "run 0 [\"/bin/sh\", \"-c\", \"a\\nb\\n\"] in / as \"\"".into(),
                "run 1 [\"/bin/sh\", \"-c\", \"cat <<A <<B\\na\\nA\\nb\\nB\"] in / as \"\"".into(),
            ],
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(ops(&graph(text, &request())), expected, "{text}");
    }
}

#[test]
fn a_script_with_an_interpreter_becomes_a_file() {
    let graph = graph("FROM alpine\nRUN <<PY\n#!/usr/bin/python3\nprint()\nPY", &request());
    let run = last_run(&graph);
    assert_eq!(run.argv, ["/bin/sh", "-c", "/dev/pipes/PY"]);
    assert_eq!(run.scripts.len(), 1);
    assert_eq!(run.scripts[0].name, "PY");
    assert_eq!(run.scripts[0].content, b"#!/usr/bin/python3\nprint()\n");
}

#[test]
fn flags_of_a_copy_are_expanded_and_kept() {
    let text = "FROM scratch\nARG U=me E=*.md\nCOPY --chown=$U --chmod=u+x --link --exclude=$E --exclude=b . /d";
    let graph = graph(text, &request());
    let Op::Copy(copy) = &graph[graph.target].op else { panic!("{:?}", ops(&graph)) };
    assert_eq!(copy.chown.as_deref(), Some("me"));
    assert_eq!(copy.chmod.as_deref(), Some("u+x"));
    assert_eq!(copy.exclude, ["$E", "b"]);
    assert!(!copy.link && !copy.parents && !copy.unpack, "a mode switches `--link` off, as in BuildKit");
    let graph = self::graph("FROM scratch\nCOPY --link a /d", &request());
    let Op::Copy(copy) = &graph[graph.target].op else { panic!("{:?}", ops(&graph)) };
    assert!(copy.link);
}

#[test]
fn a_run_sees_its_variables_in_the_order_they_were_set() {
    let cases: &[(&str, Pairs<'_>, &[&str])] = &[
        ("FROM alpine\nRUN x", &[], &["PATH=/bin"]),
        ("FROM app\nRUN x", &[], &["PATH=/opt", "A=base", "B="]),
        ("FROM app\nENV A=1\nRUN x", &[], &["PATH=/opt", "B=", "A=1"]),
        ("FROM alpine\nARG A=1\nENV B=2\nARG C\nRUN x", &[], &["PATH=/bin", "A=1", "B=2"]),
        ("FROM alpine\nENV X=1\nARG X=2\nRUN x", &[], &["PATH=/bin", "X=2"]),
        ("FROM alpine\nARG X=1\nENV X=2\nRUN x", &[("X", "3")], &["PATH=/bin", "X=2"]),
        ("FROM alpine\nARG X=1\nRUN x", &[("X", "3")], &["PATH=/bin", "X=3"]),
        ("ARG X=1\nFROM alpine\nARG X\nRUN x", &[], &["PATH=/bin", "X=1"]),
        ("ARG X=1\nFROM alpine\nARG X=2\nRUN x", &[], &["PATH=/bin", "X=2"]),
        ("ARG X=1\nFROM alpine\nRUN x", &[], &["PATH=/bin"]),
        ("FROM alpine AS a\nARG X=1\nENV Y=2\nFROM a\nRUN x", &[], &["X=1", "PATH=/bin", "Y=2"]),
        ("FROM alpine AS a\nENV Y=2\nARG Y=1\nFROM a\nRUN x", &[], &["PATH=/bin", "Y=2"]),
        ("FROM alpine\nARG A=1 B=$A\nRUN x", &[], &["PATH=/bin", "A=1", "B=1"]),
        (
            "FROM alpine\nARG TARGETPLATFORM TARGETARCH TARGETSTAGE\nRUN x",
            &[],
            &["PATH=/bin", "TARGETPLATFORM=linux/amd64", "TARGETARCH=amd64", "TARGETSTAGE=default"],
        ),
        ("FROM alpine AS Last\nARG TARGETSTAGE\nRUN x", &[("TARGETOS", "x")], &["PATH=/bin", "TARGETSTAGE=last"]),
        ("FROM alpine\nARG TARGETARCH\nRUN x", &[("TARGETARCH", "z80")], &["PATH=/bin", "TARGETARCH=z80"]),
        ("FROM alpine\nARG HTTP_PROXY\nRUN x", &[("HTTP_PROXY", "p")], &["PATH=/bin", "HTTP_PROXY=p"]),
        ("FROM alpine\nARG BUILDKIT_SBOM_SCAN_STAGE=1\nRUN x", &[], &["PATH=/bin"]),
    ];
    for (text, args, expected) in cases {
        let graph = graph(text, &with_args(args));
        assert_eq!(env_of(last_run(&graph)), *expected, "{text}");
    }
}

#[test]
fn undeclared_proxies_stay_out_of_the_environment() {
    let request = with_args(&[("HTTP_PROXY", "h"), ("no_proxy", "n"), ("ftp_proxy", "")]);
    let graph = graph("FROM alpine\nARG HTTP_PROXY\nRUN x", &request);
    let names: Vec<_> = last_run(&graph).proxy_env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(names, ["http_proxy=h", "NO_PROXY=n", "no_proxy=n"]);
    assert_eq!(history(&graph)[1], "RUN |1 HTTP_PROXY=h /bin/sh -c x # buildkit");
}

#[test]
fn bases_are_named_by_arguments_stages_and_images() {
    let cases: &[(&str, Pairs<'_>, &[&str])] = &[
        ("ARG V=3\nFROM alpine:$V", &[], &["image alpine:3 linux/amd64"]),
        ("ARG V=3\nFROM alpine:$V", &[("V", "4")], &["image alpine:4 linux/amd64"]),
        ("ARG A=1 B=${A}2\nFROM alpine:$B", &[], &["image alpine:12 linux/amd64"]),
        ("ARG P=linux/arm64\nFROM --platform=$P arm", &[], &["image arm linux/arm64"]),
        ("FROM --platform=linux/arm64 arm AS a\nFROM --platform=linux/amd64 a", &[], &["image arm linux/arm64"]),
        ("FROM scratch AS alpine\nFROM alpine", &[], &["scratch"]),
        ("FROM alpine AS alpine", &[], &["image alpine linux/amd64"]),
        ("FROM alpine AS later\nFROM scratch AS alpine\nFROM later", &[], &["image alpine linux/amd64"]),
        ("FROM alpine AS a\nFROM busybox AS a\nFROM a", &[], &["image busybox linux/amd64"]),
    ];
    for (text, args, expected) in cases {
        let graph = graph(text, &with_args(args));
        let base: Vec<String> = ops(&graph).into_iter().take(1).collect();
        assert_eq!(base, *expected, "{text}");
    }
}

#[test]
fn targets_are_names_and_numbers() {
    let text = "FROM scratch AS one\nENV S=1\nFROM scratch AS Two\nENV S=2\nFROM scratch\nENV S=3";
    for (target, expected) in [("one", "S=1"), ("ONE", "S=1"), ("two", "S=2"), ("2", "S=3"), ("", "S=3"), ("0", "S=1")]
    {
        let graph = graph(text, &with_target(target));
        assert_eq!(graph.config.config.env[1], expected, "{target}");
    }
    let findings = lower_in_rounds(text, &with_target("tow")).unwrap_err();
    assert!(findings[0].message.contains("`tow`"));
    assert_eq!(findings[0].help.as_deref(), Some("did you mean `two`?"));
    let findings = lower_in_rounds(text, &with_target("production")).unwrap_err();
    assert_eq!(findings[0].help.as_deref(), Some("the recipe's stages are one, two"));
    assert!(lower_in_rounds(text, &with_target("3")).is_err());
}

#[test]
fn triggers_run_right_after_from() {
    let (image, _, rounds) =
        lower_in_rounds("FROM onbuild\nARG X=1\nRUN x", &request()).unwrap_or_else(|findings| panic!("{findings:#?}"));
    assert_eq!(rounds, 1);
    assert_eq!(
        history(&image),
        [
            "COPY . /src # buildkit",
            "RUN /bin/sh -c make ${X} # buildkit",
            "- ARG X=1",
            "RUN |1 X=1 /bin/sh -c x # buildkit",
        ]
    );
    assert!(image.config.config.on_build.is_empty());
    let origins: Vec<_> = image.nodes.iter().map(|node| &node.origin).collect();
    assert_eq!((origins[0].step, origins[0].of), (1, 4));
    let copy = origins.iter().find(|origin| origin.text.contains("COPY")).unwrap();
    assert_eq!((copy.text.as_str(), copy.step, copy.span), ("ONBUILD COPY . /src", 2, Span::default()));

    // A trigger can need another stage, whose base is only then looked up.
    let text = "FROM busybox AS tools\nRUN t\nFROM onbuild-from";
    let (late, _, rounds) = lower_in_rounds(text, &request()).unwrap_or_else(|findings| panic!("{findings:#?}"));
    assert_eq!(rounds, 2);
    assert_eq!(history(&late), ["COPY /bin/tool /bin/ # buildkit"]);
    assert_eq!(late.nodes.len(), 4);

    // Those of a stage in the same recipe run in its children, but not in its grandchildren.
    let inherited = graph("FROM scratch AS a\nONBUILD RUN t\nFROM a AS b\nENV B=1\nFROM b\nENV C=1", &request());
    assert_eq!(history(&inherited), ["RUN /bin/sh -c t # buildkit", "- ENV B=1", "- ENV C=1"]);

    check_errors("FROM onbuild-bad", &request(), &[("onbuild-bad", "in the base's trigger `EXPOSE nothing`")]);
    check_errors("FROM onbuild-from AS tools", &request(), &[("onbuild-from", "copies from itself")]);
    check_errors(
        "FROM onbuild-from\nFROM scratch AS tools\nFROM 0\nCOPY --from=0 . .",
        &request(),
        &[("onbuild-from", "comes after")],
    );
}

#[test]
fn every_image_is_asked_for_at_once() {
    let text = "FROM alpine AS a\nFROM busybox AS unused\nFROM app\nCOPY --from=a x /\nCOPY --from=debian y /";
    let recipe = parse(text);
    let Ok(Lowered::Needs(images)) = lower(&recipe, &request(), &BTreeMap::new()) else { panic!("images are needed") };
    let names: Vec<String> = images.iter().map(|image| image.reference.repository.clone()).collect();
    assert_eq!(names, ["library/alpine", "library/app", "library/debian"]);
    assert_eq!(lower_in_rounds(text, &request()).map(|(.., rounds)| rounds).ok(), Some(1));
}

#[test]
fn steps_are_numbered_as_in_buildkits_progress() {
    let text = "FROM alpine AS a\nENV A=1\nRUN a\nWORKDIR /w\nFROM a\nRUN b\nCOPY --from=busybox x /";
    let graph = graph(text, &request());
    let shown: Vec<String> = graph
        .nodes
        .iter()
        .map(|node| {
            let origin = &node.origin;
            format!("[{} {}/{}] {}", origin.stage, origin.step, origin.of, origin.text)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "[a 1/3] FROM docker.io/library/alpine:latest",
            "[a 2/3] RUN a",
            "[a 3/3] WORKDIR /w",
            "[stage-1 1/2] RUN b",
            "[ 0/0] FROM docker.io/library/busybox:latest",
            "[stage-1 2/2] COPY --from=busybox x /",
        ]
    );
    let run = graph.nodes[1].origin.span;
    assert_eq!(&text[run.start..run.end], "RUN a");
}

#[test]
fn times_are_bounded_by_the_epoch() {
    for (text, args, given, expected) in [
        ("FROM scratch\nRUN x", vec![], None, None),
        ("FROM scratch\nRUN x", vec![], Some(5), Some(5)),
        ("FROM scratch\nRUN x", vec![("SOURCE_DATE_EPOCH", "7")], None, Some(7)),
        ("ARG SOURCE_DATE_EPOCH=9\nFROM scratch\nRUN x", vec![], None, Some(9)),
        ("ARG SOURCE_DATE_EPOCH=9\nFROM scratch\nRUN x", vec![("SOURCE_DATE_EPOCH", "7")], Some(5), Some(5)),
        ("FROM scratch\nARG SOURCE_DATE_EPOCH=9\nRUN x", vec![], None, None),
    ] {
        let graph = graph(text, &Request { source_date_epoch: given, ..with_args(&args) });
        assert_eq!(last_run(&graph).epoch, expected, "{text}");
        assert_eq!(graph.epoch, expected, "{text}");
    }
    let graph =
        graph("FROM scratch\nARG SOURCE_DATE_EPOCH\nRUN x", &Request { source_date_epoch: Some(5), ..request() });
    assert_eq!(env_of(last_run(&graph))[1], "SOURCE_DATE_EPOCH=5");
}

#[test]
fn mistakes_are_errors_at_their_place() {
    let cases: &[(&str, Pairs<'_>)] = &[
        ("FROM $X", &[("$X", "empty once expanded")]),
        ("FROM --platform=$X alpine", &[("$X", "empty once expanded")]),
        ("FROM --platform=a/b/c/d/e alpine", &[("a/b/c/d/e", "not a platform")]),
        ("FROM UPPER:case", &[("UPPER:case", "not an image name")]),
        ("FROM scratch AS a\nCOPY --from=a x y", &[("a", "copies from itself")]),
        ("FROM scratch AS a\nCOPY --from=0 x y", &[("0", "copies from itself")]),
        ("FROM scratch\nCOPY --from=b x y\nFROM scratch AS b", &[]),
        ("FROM scratch AS a\nCOPY --from=1 x y\nFROM a", &[("1", "comes after it")]),
        (
            "FROM scratch AS a\nCOPY --from=b x y\nFROM scratch AS b\nCOPY --from=a x y",
            &[("b", "circle: `a` → `b` → `a`")],
        ),
        ("FROM scratch\nCOPY --from=1 x y", &[("1", "no stage number 1")]),
        ("FROM scratch\nCOPY --from=-1 x y", &[("-1", "no stage number -1")]),
        ("FROM scratch AS a\nFROM scratch\nARG S=a\nCOPY --from=$S x y", &[("$S", "takes no variables")]),
        ("FROM scratch\nCOPY --chmod=9 a b", &[("9", "neither an octal mode")]),
        ("FROM scratch\nCOPY https://example.com/x y", &[("https://example.com/x", "has to be fetched")]),
        ("FROM scratch\nSTOPSIGNAL SIGTREM", &[("SIGTREM", "not a signal")]),
        ("FROM scratch\nEXPOSE 80/http x", &[("80/http", "not a protocol")]),
        ("FROM scratch\nVOLUME \"\"", &[("\"\"", "empty once expanded")]),
        ("FROM scratch\nENV A=${B:?needed}\nENV C=${D?also}", &[("${B:?needed}", "needed"), ("${D?also}", "also")]),
        ("FROM scratch\nARG A=${B?no}", &[("${B?no}", "no")]),
        ("ARG A=${B?no}\nFROM scratch", &[("${B?no}", "no")]),
        ("FROM scratch\nCOPY <<a/b c\nx\na/b", &[("x\n", "cannot name")]),
    ];
    for (text, expected) in cases {
        if expected.is_empty() {
            // An unreachable stage may look ahead: only what the target needs has to be in order.
            graph(text, &request());
        } else {
            check_errors(text, &request(), expected);
        }
    }
}

#[test]
fn what_cannot_be_done_yet_is_refused_by_name() {
    let text = "ARG SOURCE_DATE_EPOCH=cotext\nFROM alpine";
    check_errors(text, &request(), &[("ARG SOURCE_DATE_EPOCH=cotext", "no number of seconds")]);
    // Nobody is bothered about a stage that is not needed.
    graph("FROM alpine\nRUN --network=host x\nFROM scratch", &request());
    for (flag, expected) in [("none", Network::None), ("default", Network::Default)] {
        let graph = graph(&format!("FROM alpine\nRUN --network={flag} x"), &request());
        assert_eq!(last_run(&graph).network, expected);
    }
}

#[test]
fn doubtful_things_are_warned_of() {
    let cases: &[(&str, Pairs<'_>, Pairs<'_>)] = &[
        ("FROM scratch\nENV A=$B", &[], &[("$B", "`$B` is not defined")]),
        (
            "FROM scratch\nENV A=${B:-c} D=${E:+f}",
            &[],
            &[("${B:-c}", "`$B` is not defined"), ("${E:+f}", "`$E` is not defined")],
        ),
        ("FROM scratch\nARG B\nENV A=$B", &[], &[]),
        ("FROM scratch\nSHELL [\"s\"]\nRUN $x\nCMD $x\nENTRYPOINT $x", &[], &[]),
        ("FROM scratch\nCOPY <<F /x\n$y\nF", &[], &[("$y\n", "`$y` is not defined")]),
        ("FROM scratch\nCOPY <<'F' /x\n$y\nF", &[], &[]),
        ("ARG V=1\nFROM alpine:1$W", &[], &[("alpine:1$W", "`$W`, which no `ARG`")]),
        ("ARG V\nFROM alpine:1$V", &[], &[]),
        ("FROM --platform=linux/arm64 alpine AS arm64", &[], &[("alpine", "is for linux/amd64, but linux/arm64")]),
        ("FROM scratch\nEXPOSE 1/TCP", &[], &[("1/TCP", "lower case")]),
        ("FROM scratch\nEXPOSE 1:2", &[], &[("1:2", "names an address or port of the host")]),
        ("FROM scratch\nARG VERSION", &[("VERSOIN", "1")], &[("", "`--build-arg VERSOIN` has no effect")]),
        ("FROM scratch", &[("BUILDKIT_INLINE_CACHE", "1")], &[("", "the cache is never written into an image")]),
        (
            "FROM scratch",
            &[("BUILDKIT_SANDBOX_HOSTNAM", "1")],
            &[("", "`--build-arg BUILDKIT_SANDBOX_HOSTNAM` has no effect")],
        ),
        (
            "ARG A\nFROM scratch AS unused\nARG B\nFROM scratch",
            &[("A", ""), ("B", ""), ("https_proxy", ""), ("BUILDKIT_INLINE_CACHE", "0"), ("TARGETOS", "linux")],
            &[],
        ),
    ];
    for (text, args, expected) in cases {
        check_warnings(text, &with_args(args), expected);
    }
    let warnings =
        check_warnings("FROM scratch\nENV HOME_DIR=/x\nENV A=$HOME_DIT", &request(), &[("$HOME_DIT", "HOME_DIT")]);
    assert_eq!(warnings[0].rule, Some("UndefinedVar"));
    assert_eq!(warnings[0].help.as_deref(), Some("did you mean `HOME_DIR`?"));
}

#[test]
fn lowering_twice_gives_the_same() {
    let text = "ARG V=1\nFROM alpine:$V AS a\nARG X=1\nENV P=/a:$PATH\nRUN x\nFROM app AS b\nCOPY --from=a /x /y\n\
                LABEL z=1 a=2\nEXPOSE 5 4 3\nFROM b\nCOPY --from=busybox . /q/\nCOPY --from=a . /r/";
    let show = |(graph, findings, _): (Graph, Vec<Diagnostic>, usize)| format!("{graph:?}{findings:?}");
    let request = with_args(&[("NOBODY", "1"), ("X", "2")]);
    let first = lower_in_rounds(text, &request).map(show).unwrap();
    for _ in 0..5 {
        assert_eq!(lower_in_rounds(text, &request).map(show).unwrap(), first);
    }
}

/// Ten thousand of anything must neither overflow the stack nor take more than a moment: a quadratic algorithm would
/// take minutes here, which whoever runs the tests would notice.
#[test]
fn long_recipes_are_no_burden() {
    const MANY: usize = 10_000;
    let chain: String = (1..MANY).map(|n| format!("FROM s{} AS s{n}\nENV A={n}\nRUN {n}\n", n - 1)).collect();
    let chain = graph(&format!("FROM scratch AS s0\n{chain}"), &request());
    assert_eq!(chain.nodes.len(), MANY);
    assert_eq!(chain.config.history.len(), 2 * (MANY - 1));

    let copies: String = (1..MANY).map(|n| format!("FROM scratch AS s{n}\nCOPY --from=s{} / /\n", n - 1)).collect();
    let copies = graph(&format!("FROM alpine AS s0\n{copies}"), &request());
    assert_eq!(copies.nodes.len(), MANY + 1);

    let fan: String = (1..MANY).map(|n| format!("FROM s0 AS s{n}\nRUN {n}\n")).collect();
    let all: String = (1..MANY).map(|n| format!("COPY --from=s{n} /{n} /\n")).collect();
    let fan = graph(&format!("FROM scratch AS s0\n{fan}FROM scratch\n{all}"), &request());
    assert_eq!(fan.nodes.len(), 1 + 2 * (MANY - 1));

    let steps: String = (0..MANY).map(|n| format!("ENV A{}={n}\nLABEL l={n}\nCOPY {n} /\n", n % 10)).collect();
    assert_eq!(history(&graph(&format!("FROM scratch\n{steps}"), &request())).len(), 3 * MANY);

    let circle: String =
        (0..MANY).map(|n| format!("FROM scratch AS s{n}\nCOPY --from=s{} / /\n", (n + 1) % MANY)).collect();
    let findings = lower_in_rounds(&circle, &request()).map(|_| ()).unwrap_err();
    assert!(findings[0].message.contains("in a circle"), "{}", findings[0].message);
}

#[test]
fn mounts_are_expanded_and_placed() {
    let text = "FROM alpine AS base\nFROM alpine\nARG D=dir ID=x T=cache\nWORKDIR /w\n\
        RUN --mount=target=$D/a --mount=from=base,src=/../$D/./b,dst=/t/../u,rw --mount=type=$T,target=/c/,id=$ID,ro \
        --mount=type=cache,target=rel --mount=type=tmpfs,size=1k,target=/m --mount=type=secret,id=a/$ID \
        --mount=type=secret,target=s/$ID,mode=0440 --mount=type=secret,id=$ID,env=E --mount=type=secret,id=$ID,env=E,target=/f \
        --mount=type=ssh --mount=type=ssh,id=$ID,required x";
    let graph = graph(text, &request());
    let access = |mode| Access { mode, uid: 0, gid: 0 };
    let secret = |id: &str, target: Option<&str>, env: Option<&str>, mode| RunMount::Secret {
        id: id.into(),
        target: target.map(Into::into),
        env: env.map(Into::into),
        required: false,
        access: access(mode),
    };
    let cache = |id: &str, target: &str, writable| {
        RunMount::Cache(CacheMount {
            id: id.into(),
            target: target.into(),
            sharing: Sharing::Shared,
            from: None,
            mode: None,
            uid: None,
            gid: None,
            writable,
        })
    };
    let ssh = |id: &str, number: usize, required| RunMount::Ssh {
        id: id.into(),
        target: format!("/run/buildkit/ssh_agent.{number}"),
        required,
        access: access(0o600),
    };
    let run = last_run(&graph);
    let from: Vec<NodeId> = run.mounts.iter().filter_map(RunMount::from).collect();
    assert!(matches!(graph[from[0]].op, Op::Context(_)) && matches!(graph[from[1]].op, Op::Image(_)));
    let bind = |number: usize, source: &str, target: &str, writable| RunMount::Bind {
        from: from[number],
        source: source.into(),
        target: target.into(),
        writable,
    };
    let expected = [
        bind(0, ".", "/w/dir/a", false),
        bind(1, "dir/b", "/u", true),
        cache("x", "/c", false),
        cache("rel", "/w/rel", true),
        RunMount::Tmpfs { target: "/m".into(), size: Some(1024), writable: true },
        secret("a/x", Some("/run/secrets/x"), None, 0o400),
        secret("x", Some("/w/s/x"), None, 0o440),
        secret("x", None, Some("E"), 0o400),
        secret("x", Some("/f"), Some("E"), 0o400),
        ssh("default", 0, false),
        ssh("x", 1, true),
    ];
    assert_eq!(run.mounts, expected);
    assert_eq!(Op::Run(run.clone()).inputs(), [vec![run.parent], from].concat());
    let namespaced = with_args(&[("BUILDKIT_CACHE_MOUNT_NS", "team")]);
    let graph = self::graph("FROM alpine\nRUN --mount=type=cache,target=/c x", &namespaced);
    assert_eq!(last_run(&graph).mounts, [cache("team//c", "/c", true)]);
}

#[test]
fn what_reaches_out_of_the_sandbox_has_to_be_allowed() {
    let allowed = Request { allow: Allowed { network_host: true, security_insecure: true }, ..request() };
    for (flag, entitlement) in [("--network=host", "network.host"), ("--security=insecure", "security.insecure")] {
        let text = format!("FROM alpine\nRUN {flag} x");
        let findings = lower_in_rounds(&text, &request()).map(|_| ()).unwrap_err();
        assert!(findings[0].message.contains(flag), "{}", findings[0].message);
        assert!(findings[0].help.as_ref().unwrap().contains(&format!("--allow {entitlement}")));
        graph(&text, &allowed);
    }
    let run = graph("FROM alpine\nRUN --network=host --security=insecure x", &allowed);
    assert_eq!((last_run(&run).network, last_run(&run).security), (Network::Host, Security::Insecure));
}

#[test]
fn a_mount_may_not_look_ahead_or_cover_everything() {
    for (text, part) in [
        ("FROM alpine\nRUN --mount=target=/ x", "invalid mount target"),
        ("FROM alpine\nRUN --mount=type=cache x", "invalid mount target"),
        (
            "FROM alpine AS a\nRUN --mount=from=b,target=/x x\nFROM alpine AS b\nRUN --mount=from=a,target=/x x",
            "circle",
        ),
        ("FROM alpine AS a\nRUN --mount=from=a,target=/x x", "from itself"),
        ("FROM alpine\nARG T=bind\nRUN --mount=type=$T,from=9,target=/x x", "stage number 9"),
        ("FROM alpine\nARG T=magic\nRUN --mount=type=$T,target=/x x", "magic"),
    ] {
        let findings = lower_in_rounds(text, &request()).map(|_| ()).unwrap_err();
        assert!(findings.iter().any(|finding| finding.message.contains(part)), "{text}: {findings:?}");
    }
}

/// Lowers with names given by `--build-context`.
fn with_contexts(text: &str, names: &[(&str, NamedContext)]) -> Graph {
    let mut contexts = NamedContexts::default();
    for (name, context) in names {
        contexts.insert((*name).to_owned(), context.clone());
    }
    graph(text, &Request { contexts, ..request() })
}

#[test]
fn a_named_context_stands_for_a_name_everywhere() {
    let files = [("ctx", NamedContext::Files)];
    let named = |graph: &Graph| {
        let is_named = |node: &crate::graph::Node| matches!(&node.op, Op::Context(crate::graph::ContextName::Named(name)) if name == "ctx");
        graph.nodes.iter().any(is_named)
    };
    for text in [
        "FROM scratch\nCOPY --from=ctx a /",
        "FROM ctx\nENV a=b",
        "FROM debian AS ctx\nRUN never\nFROM scratch\nCOPY --from=ctx a /",
        "FROM scratch\nCOPY --from=CTX:latest a /",
    ] {
        let graph = with_contexts(text, &files);
        assert!(named(&graph), "{text}");
        assert!(!graph.nodes.iter().any(|node| matches!(node.op, Op::Run(_) | Op::Image(_))), "{text}");
    }
    let graph = with_contexts("FROM scratch AS ctx2\nCOPY a /\nFROM ctx2", &files);
    assert!(!named(&graph), "another name is another stage");
    let graph = with_contexts("FROM debian", &[("debian", NamedContext::Scratch)]);
    assert_eq!(graph.nodes[graph.target.0].op, Op::Scratch);
}

#[test]
fn sources_that_are_fetched_are_nodes_of_their_own() {
    let digest = format!("sha256:{}", "a".repeat(64));
    let text = format!("FROM scratch\nADD --checksum={digest} https://h/x.tgz?secret /d/");
    let graph = graph(&text, &request());
    let source = graph.nodes.iter().find_map(|node| match &node.op {
        Op::Http(source) => Some((source.clone(), node.origin.text.clone())),
        _ => None,
    });
    let (source, shown) = source.unwrap();
    assert_eq!((source.address.as_str(), source.checksum), ("https://h/x.tgz?secret", digest.parse().ok()));
    assert_eq!(shown, "fetch https://h/x.tgz");
}

#[test]
fn what_cannot_be_fetched_is_said_before_anything_is() {
    for (text, needle) in [
        ("ADD --checksum=sha256:00 https://h/x /", "64 hexadecimal digits"),
        ("ADD --checksum=sha256:00 a b /", "single source"),
        ("ADD --checksum=sha256:00 a /", "is a path"),
        ("ADD --checksum=main https://h/x.git /", "commit's id"),
        ("ADD https://h/x.git?nonsense=1 /", "nonsense"),
        ("COPY https://h/x /", "has to be fetched"),
    ] {
        let recipe = parse(&format!("FROM scratch\n{text}"));
        let found = lower(&recipe, &request(), &BTreeMap::new()).map(|_| ()).unwrap_err();
        assert!(found.iter().any(|finding| finding.message.contains(needle)), "{text}: {found:?}");
    }
}
