//! `strata check`, `--check`, `--call`, and what a build says of a doubtful recipe.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;

use crate::workspace::Workspace;

const DOUBTFUL: &str = "FROM scratch AS Build\nCOPY Dockerfile /\nCMD serve\n";

fn check(workspace: &Workspace, arguments: &[&str]) -> crate::workspace::Finished {
    let context = workspace.context();
    let mut all = vec!["check"];
    all.extend(arguments);
    all.push(context.to_str().unwrap());
    workspace.strata(all).run()
}

#[test]
fn findings_are_printed_with_their_places_and_fail_the_check() {
    let workspace = Workspace::new();
    workspace.dockerfile(DOUBTFUL);
    let found = check(&workspace, &[]).ended_with(1);
    for part in ["StageNameCasing", "Dockerfile:1:", "JSONArgsRecommended", "Dockerfile:3:1", "2 warnings", "^^^"] {
        assert!(found.stdout.contains(part), "{part} in\n{}", found.describe());
    }
    assert!(found.stderr.is_empty(), "{}", found.describe());
    let same = workspace.build(["--check"]).run().ended_with(1);
    assert_eq!(same.stdout, found.stdout);

    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    assert!(check(&workspace, &[]).success().stdout.contains("no warnings found"));
    assert!(!workspace.state().join("oci/index.json").exists() || check(&workspace, &[]).stderr.is_empty());
}

#[test]
fn findings_as_json_have_dockers_fields() {
    let workspace = Workspace::new();
    workspace.dockerfile(DOUBTFUL);
    for found in [
        check(&workspace, &["--format", "json"]).ended_with(1),
        workspace.build(["--call=check,format=json"]).run().ended_with(1),
    ] {
        let document: Value = serde_json::from_str(&found.stdout).unwrap();
        let warning = &document["warnings"][1];
        assert_eq!(warning["ruleName"], "JSONArgsRecommended");
        assert_eq!(warning["url"], "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
        assert_eq!(warning["location"]["ranges"][0]["start"]["line"], 3);
        assert_eq!(document["sources"][0]["filename"], "Dockerfile");
        let text = BASE64_STANDARD.decode(document["sources"][0]["data"].as_str().unwrap()).unwrap();
        assert_eq!(text, DOUBTFUL.as_bytes());
        assert_eq!(document["buildError"], Value::Null);
    }
    workspace.dockerfile(&format!("# check=error=true\n{DOUBTFUL}"));
    let violated = check(&workspace, &["--format", "json"]).ended_with(1);
    let violated: Value = serde_json::from_str(&violated.stdout).unwrap();
    assert!(violated["buildError"]["message"].as_str().unwrap().contains("StageNameCasing"), "{violated}");
    assert_eq!(violated["warnings"].as_array().unwrap().len(), 2);

    workspace.dockerfile("FROM scratch\nCOPPY a b\n");
    let wrong = check(&workspace, &["--format", "json"]).ended_with(2);
    let document: Value = serde_json::from_str(&wrong.stdout).unwrap();
    assert_eq!(document["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
}

#[test]
fn a_build_warns_and_fails_only_if_asked_to() {
    let workspace = Workspace::new();
    workspace.dockerfile(DOUBTFUL);
    let built = workspace.build([""; 0]).run().success();
    assert!(built.stderr.contains("StageNameCasing"), "{}", built.describe());

    workspace.dockerfile(&format!("# check=error=true\n{DOUBTFUL}"));
    let failed = workspace.build([""; 0]).run().ended_with(1);
    assert!(failed.stderr.contains("JSONArgsRecommended, StageNameCasing"), "{}", failed.describe());

    let relaxed = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"];
    let built = workspace.build(relaxed).run().success();
    assert!(!built.stderr.contains("StageNameCasing"), "{}", built.describe());
    let strict = ["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=eror=true"];
    let failed = workspace.build(strict).run().ended_with(2);
    assert!(failed.stderr.contains("BUILDKIT_DOCKERFILE_CHECK"), "{}", failed.describe());
}

#[test]
fn rules_are_explained() {
    let workspace = Workspace::new();
    let page = workspace.strata(["check", "--explain", "StageNameCasing"]).run().success().stdout;
    assert!(page.contains("Bad:") && page.contains("Good:"), "{page}");
    let list = workspace.strata(["check", "--explain", "all"]).run().success().stdout;
    assert!(list.lines().count() > 30 && list.contains("UnusedStage"), "{list}");
    let unknown = workspace.strata(["check", "--explain", "StageNameCase"]).run().ended_with(2);
    assert!(unknown.stderr.contains("did you mean StageNameCasing?"), "{}", unknown.describe());
    workspace.strata(["check"]).run().ended_with(2);
}

#[test]
fn outline_and_targets_look_like_dockers() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "# VERSION is what is built\nARG VERSION=1\nFROM scratch AS base\nARG VERSION\n\
         # app is the result\nFROM base AS app\nARG MODE=fast\n",
    );
    let outline = workspace.build(["--call", "outline"]).run().success().stdout;
    for line in
        ["TARGET:       app", "DESCRIPTION:  is the result", "VERSION    1      is what is built", "MODE       fast"]
    {
        assert!(outline.lines().any(|found| found == line), "{line:?} in\n{outline}");
    }
    let of_base = workspace.build(["--call=outline,format=json", "--target", "base"]).run().success().stdout;
    let document: Value = serde_json::from_str(&of_base).unwrap();
    assert_eq!(document["name"], "base");
    assert_eq!(document["args"][0]["value"], "1");
    assert_eq!(document["args"].as_array().unwrap().len(), 1);

    let targets = workspace.build(["--call", "targets"]).run().success().stdout;
    assert!(targets.lines().any(|line| line == "app (default)  is the result"), "{targets}");
    let targets = workspace.build(["--call=targets,format=json"]).run().success().stdout;
    let document: Value = serde_json::from_str(&targets).unwrap();
    assert_eq!(document["targets"][1]["default"], true);
    assert_eq!(document["targets"][1]["base"], "base");
}
