//! A small graph made by hand, and what is told of it.

use super::*;
use crate::graph::{CopyOp, CopySource, ImageRequest, Node, Origin, RunOp};
use crate::image::config::ImageConfig;
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::recipe::{Network, Security};

fn platform() -> Platform {
    Platform { os: "linux".to_owned(), architecture: "amd64".to_owned(), variant: None, os_version: None }
}

fn image(name: &str) -> Op {
    let reference = Reference {
        registry: "docker.io".to_owned(),
        repository: format!("library/{name}"),
        tag: Some("1".to_owned()),
        digest: None,
    };
    Op::Image(ImageRequest { reference, platform: platform(), layout: None })
}

fn run(parent: usize) -> Op {
    Op::Run(RunOp {
        parent: NodeId(parent),
        argv: Vec::new(),
        env: std::sync::Arc::default(),
        proxy_env: Vec::new(),
        workdir: "/".to_owned(),
        user: String::new(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts: Vec::new(),
        scripts: Vec::new(),
        epoch: None,
        hostname: None,
    })
}

fn copy(parent: usize, from: usize) -> Op {
    Op::Copy(CopyOp {
        parent: NodeId(parent),
        from: NodeId(from),
        sources: vec![CopySource::Path("x".to_owned())],
        destination: "/".to_owned(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
        epoch: None,
    })
}

fn node(op: Op, stage: &str, step: usize, of: usize, text: &str) -> Node {
    let origin = Origin { stage: stage.to_owned(), step, of, text: text.to_owned(), ..Origin::default() };
    Node::new(op, origin)
}

fn graph() -> Graph {
    Graph {
        nodes: vec![
            node(image("golang"), "build", 1, 3, "FROM golang:1"),
            node(Op::Context(ContextName::Main), "", 0, 0, "build context"),
            node(copy(0, 1), "build", 2, 3, "COPY . /src"),
            node(run(2), "build", 3, 3, "RUN echo \"hi\\n\""),
            node(Op::Scratch, "", 0, 0, "FROM scratch"),
            node(image("certs"), "", 0, 0, "FROM certs:1"),
            node(copy(4, 3), "app", 1, 2, "COPY --from=build /out /"),
            node(copy(6, 5), "app", 2, 2, "COPY --from=certs:1 /etc /etc"),
        ],
        target: NodeId(7),
        config: ImageConfig::default(),
        base: None,
        base_history: 0,
        platform: platform(),
        epoch: None,
    }
}

#[test]
fn text_shows_stages_and_what_steps_need() {
    let status = [Status::Cached, Status::Cached, Status::Miss];
    let expected = "\
✓ cached   ● to be made   ? depends on a result not known yet

inputs
├─ ✓ build context
├─ ? FROM scratch
└─ ? FROM certs:1

stage build
├─ ✓ 1/3 FROM golang:1
├─ ● 2/3 COPY . /src      ← context
└─ ? 3/3 RUN echo \"hi\\n\"

stage app
├─ ? 1/2 COPY --from=build /out /       ← build 3/3
└─ ? 2/2 COPY --from=certs:1 /etc /etc  ← certs:1  (target)
";
    assert_eq!(text(&graph(), &status), expected);
}

#[test]
fn dot_is_balanced_and_escaped() {
    let dot = dot(&graph(), &[]);
    assert!(dot.starts_with("digraph strata {\n"), "{dot}");
    assert_eq!(dot.matches('{').count(), dot.matches('}').count(), "{dot}");
    assert!(dot.contains(r#"label="3/3 RUN echo \"hi\\n\"""#), "{dot}");
    assert!(dot.contains("  n2 -> n0;\n  n2 -> n1 [style=dashed];\n"), "{dot}");
    assert_eq!(dot.matches("subgraph cluster_").count(), 2, "{dot}");
}

#[test]
fn json_has_every_node() {
    let json = json(&graph(), &[Status::Miss]);
    assert_eq!(json["target"], 7);
    assert_eq!(json["nodes"].as_array().map(Vec::len), Some(8));
    assert_eq!(
        json["nodes"][0],
        json!({
            "id": 0, "op": "image", "stage": "build", "step": 1, "of": 3, "text": "FROM golang:1", "inputs": [],
            "status": "miss",
        })
    );
    assert_eq!(json["nodes"][7]["inputs"], json!([6, 5]));
    assert_eq!(json["nodes"][7]["status"], "unknown");
}
