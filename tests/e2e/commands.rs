//! `strata images`, `inspect`, `rm` and `graph`.

use serde_json::Value;

use crate::registry::shared;
use crate::workspace::Workspace;

fn built(name: &str) -> Workspace {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS build\nCOPY a.txt /\nRUN cp a.txt b.txt\n\
         FROM ${BASE} AS unused\nRUN touch /never\n\
         FROM ${BASE}\nCOPY --from=build /b.txt /\nLABEL org.example.name=shown\nCMD [\"cat\", \"/b.txt\"]\n",
    );
    workspace.write("a.txt", "a\n");
    workspace.build(["-t", name, &shared().base_argument()]).run().success();
    workspace
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("not JSON ({error}):\n{text}"))
}

#[test]
fn build_prints_name_and_digest_on_standard_output() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let finished = workspace.build(["-t", "example:1.2", &workspace.layout_output("image")]).run().success();
    let image = crate::layout::read(&workspace.out("image"));
    assert!(finished.stdout.lines().any(|line| line == "name example:1.2"), "{}", finished.describe());
    let line = finished.stdout.lines().find(|line| line.starts_with("output "));
    assert!(line.is_some_and(|line| line.contains(&image.digest)), "{} in\n{}", image.digest, finished.describe());
}

#[test]
fn images_lists_names_in_a_table_and_in_json() {
    let workspace = built("listed");
    let table = workspace.strata(["images"]).run().success().stdout;
    assert!(table.lines().count() >= 2 && table.contains("listed"), "{table}");
    let listed = workspace.strata(["images", "--format", "json"]).run().success().stdout;
    assert!(json(&listed).to_string().contains("listed"), "{listed}");
}

#[test]
fn images_of_a_new_store_is_an_empty_table() {
    let workspace = Workspace::new();
    workspace.strata(["images"]).run().success();
    let listed = workspace.strata(["images", "--format", "json"]).run().success().stdout;
    assert_eq!(json(&listed), Value::Array(Vec::new()));
}

#[test]
fn inspect_shows_configuration_and_layers() {
    let workspace = built("seen");
    let text = workspace.strata(["inspect", "seen"]).run().success().stdout;
    for needle in ["sha256:", "cat", "org.example.name"] {
        assert!(text.contains(needle), "{needle:?} in\n{text}");
    }
    let inspected = workspace.strata(["inspect", "seen", "--format", "json"]).run().success().stdout;
    let text = json(&inspected).to_string();
    for needle in ["org.example.name", "shown", "rootfs", "diff_ids"] {
        assert!(text.contains(needle), "{needle:?} in\n{inspected}");
    }
}

#[test]
fn a_name_without_a_tag_means_latest() {
    let workspace = built("tagged");
    workspace.strata(["inspect", "tagged:latest"]).run().success();
    workspace.strata(["inspect", "tagged:other"]).run().fails(1, &["tagged:other"]);
}

#[test]
fn rm_forgets_a_name() {
    let workspace = built("gone");
    workspace.strata(["rm", "gone"]).run().success();
    workspace.strata(["inspect", "gone"]).run().fails(1, &["gone"]);
    workspace.strata(["rm", "gone"]).run().fails(1, &["gone"]);
}

#[test]
fn an_unknown_name_is_answered_with_the_nearest() {
    let workspace = built("webserver");
    workspace.strata(["inspect", "webservr"]).run().fails(1, &["webservr", "webserver"]);
}

#[test]
fn graph_shows_the_steps_and_runs_none() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS build\nRUN false\nFROM ${BASE} AS unused\nRUN touch /never\n\
         FROM scratch\nCOPY --from=build /etc/passwd /\n",
    );
    let graph = |format: &str| {
        let context = workspace.context();
        let context = context.to_str().unwrap();
        workspace.strata(["graph", "--format", format, &shared().base_argument(), context]).run().success().stdout
    };
    let text = graph("text");
    assert!(text.contains("RUN false") && text.contains("COPY --from=build"), "{text}");
    assert!(!text.contains("/never"), "a stage that the target does not need is not part of it\n{text}");
    let dot = graph("dot");
    assert!(dot.trim_start().starts_with("digraph") && dot.contains("RUN false"), "{dot}");
    assert!(json(&graph("json")).to_string().contains("RUN false"));
}

#[test]
fn graph_says_what_is_cached() {
    let workspace = built("graphed");
    let graph = || {
        let context = workspace.context();
        let context = context.to_str().unwrap();
        workspace.strata(["graph", &shared().base_argument(), context]).run().success().stdout.to_lowercase()
    };
    let line = |text: &str, needle: &str| text.lines().find(|line| line.contains(needle)).unwrap_or("").to_owned();
    let before = graph();
    assert!(line(&before, "run cp a.txt").contains('✓'), "{before}");
    workspace.write("a.txt", "changed\n");
    let after = graph();
    assert!(!line(&after, "copy a.txt").contains('✓'), "{after}");
}

#[test]
fn help_and_version_are_results() {
    let workspace = Workspace::new();
    let help = workspace.strata(["--help"]).run().success();
    for command in ["build", "cache-mounts", "images", "inspect", "rm", "graph", "logs", "shell"] {
        assert!(help.stdout.contains(command), "{command} in\n{}", help.stdout);
    }
    assert!(workspace.strata(["--version"]).run().success().stdout.starts_with("strata "));
    assert!(!workspace.state().exists(), "neither makes a store");
}
