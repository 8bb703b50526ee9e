#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::check::rule::RULES;
use crate::diagnostic::{SourceFile, Span};
use crate::graph::Request;
use crate::graph::lower::{Lowered, lower};
use crate::recipe::dockerfile;
use crate::recipe::platform::Platform;

/// One example of a page.
#[derive(Debug, Default)]
struct Example {
    dockerfile: String,
    dockerignore: String,
    build_args: BTreeMap<String, String>,
}

/// The bad and the good example.
fn examples(page: &str) -> [Example; 2] {
    let (_, examples) = page.split_once("\nBad:\n").unwrap();
    let (bad, good) = examples.split_once("\nGood:\n").unwrap();
    [bad, good].map(|part| {
        let mut example = Example::default();
        for block in part.split("\n```\n").filter(|block| block.contains("```")) {
            let (kind, text) = block.split_once("```").unwrap().1.split_once('\n').unwrap();
            match kind {
                "dockerfile" => example.dockerfile = format!("{text}\n"),
                "dockerignore" => example.dockerignore = text.to_owned(),
                "console" => {
                    let pairs = text.split(' ').filter_map(|word| word.split_once('='));
                    example.build_args = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
                }
                other => panic!("unknown block {other}"),
            }
        }
        assert!(!example.dockerfile.is_empty());
        example
    })
}

fn request(build_args: BTreeMap<String, String>) -> Request {
    let platform: Platform = "linux/amd64".parse().unwrap();
    Request {
        target: None,
        build_args,
        platform: platform.clone(),
        platform_given: false,
        build_platform: platform,
        source_date_epoch: None,
        contexts: crate::graph::named::NamedContexts::default(),
        allow: crate::graph::Allowed::default(),
        every_stage: true,
    }
}

/// Every finding in an example. Images whose name says so are for another machine.
fn check(example: &Example, purpose: Purpose) -> Vec<Diagnostic> {
    let source = SourceFile { name: "Dockerfile".into(), text: example.dockerfile.as_str().into() };
    let (recipe, mut reported) = dockerfile::parse(&source);
    let request = request(example.build_args.clone());
    let mut bases = BTreeMap::new();
    let graph = loop {
        match lower(&recipe, &request, &bases) {
            Ok(Lowered::Graph(graph, more)) => {
                reported.extend(more);
                break Some(*graph);
            }
            Ok(Lowered::Needs(images)) => {
                for image in images {
                    let arm = image.reference.repository.contains("arm64");
                    let architecture = if arm { "arm64" } else { "amd64" };
                    let config = serde_json::json!({ "os": "linux", "architecture": architecture });
                    let config = serde_json::from_value(config).unwrap();
                    bases.insert(image, config);
                }
            }
            Err(errors) => {
                // What is not built yet can be checked all the same.
                assert!(errors.iter().all(|error| error.message.contains("not supported yet")), "{errors:#?}");
                break None;
            }
        }
    };
    let ignore = Ignore::parse(".dockerignore", example.dockerignore.as_bytes()).unwrap();
    findings(&Subject { recipe: &recipe, graph: graph.as_ref(), ignore: Some(&ignore) }, reported, purpose)
}

fn rules(text: &str) -> Vec<&'static str> {
    let example = Example { dockerfile: text.to_owned(), ..Example::default() };
    check(&example, Purpose::Check).into_iter().map(|finding| finding.rule.unwrap_or("error")).collect()
}

#[test]
fn the_examples_of_a_page_are_what_they_say() {
    for rule in RULES {
        assert!(rule.page.starts_with(&format!("# {}\n\n", rule.name)), "{}", rule.name);
        let [bad, good] = examples(rule.page);
        let found = |example| -> BTreeSet<_> {
            check(example, Purpose::Check).into_iter().map(|finding| finding.rule.unwrap_or("error")).collect()
        };
        assert_eq!(found(&bad), BTreeSet::from([rule.name]), "the bad example of {}", rule.name);
        assert_eq!(found(&good), BTreeSet::new(), "the good example of {}", rule.name);
        let in_build = !check(&bad, Purpose::Build).is_empty();
        assert_eq!(in_build, rule.regime != Regime::WhenChecked, "{} in a build", rule.name);
    }
}

#[test]
fn every_finding_of_an_example_has_a_place_or_is_about_the_command_line() {
    for rule in RULES.iter().filter(|rule| rule.name != "UnusedBuildArg") {
        let [bad, _] = examples(rule.page);
        for finding in check(&bad, Purpose::Check) {
            assert!(finding.span.end > finding.span.start || rule.name == "NoEmptyContinuation", "{finding:?}");
            assert!(finding.span.end <= bad.dockerfile.len(), "{finding:?}");
        }
    }
}

#[test]
fn comments_and_directives_switch_rules_off() {
    let table: &[(&str, &[&str])] = &[
        ("FROM alpine\nCMD a\n", &["JSONArgsRecommended"]),
        ("# check=skip=JSONArgsRecommended\nFROM alpine\nCMD a\n", &[]),
        ("# check=skip=all\nFROM alpine\nCMD a\n", &[]),
        ("# check=skip=jsonargsrecommended\nFROM alpine\nCMD a\n", &["UnknownRule", "JSONArgsRecommended"]),
        ("FROM alpine\n# check=skip=JSONArgsRecommended\nCMD a\n", &[]),
        ("FROM alpine\n# check=skip=all\nCMD a\nENTRYPOINT b\n", &["JSONArgsRecommended"]),
        ("FROM alpine\n# check=skip=JSONArgsRecommended\nENTRYPOINT [\"b\"]\nCMD a\n", &["JSONArgsRecommended"]),
        ("# check=experimental=UnpinnedBaseImage\nFROM alpine\n", &["UnpinnedBaseImage"]),
        ("# check=skip=all;experimental=UnpinnedBaseImage\nFROM alpine\n", &["UnpinnedBaseImage"]),
        ("FROM alpine\n", &[]),
        // What follows a blank does not count, in directives as in comments.
        ("FROM alpine\n# check=skip=JSONArgsRecommended since signals do not matter\nCMD a\n", &[]),
        ("# check=skip=UndefinedVar, JSONArgsRecommended\nFROM alpine\nCMD a\n", &["JSONArgsRecommended"]),
        // An empty line does not part a comment from its instruction, an empty comment does.
        ("FROM alpine\n# check=skip=JSONArgsRecommended\n\nCMD a\n", &[]),
        ("FROM alpine\n# check=skip=JSONArgsRecommended\n# more\nCMD a\n", &[]),
        ("FROM alpine\n# check=skip=JSONArgsRecommended\n#\nCMD a\n", &["JSONArgsRecommended"]),
        ("FROM alpine\n# Check = skip=JSONArgsRecommended\nCMD a\n", &[]),
        ("FROM alpine\n# CHECK =skip=JSONArgsRecommended\nCMD a\n", &[]),
        ("FROM alpine\n# check=nonsense\nCMD a\n", &["InvalidCheckComment", "JSONArgsRecommended"]),
        // Of two instructions of which one counts, either may have the comment.
        ("FROM alpine\n# check=skip=MultipleInstructionsDisallowed\nCMD [\"a\"]\nCMD [\"b\"]\n", &[]),
        ("FROM alpine\nCMD [\"a\"]\n# check=skip=MultipleInstructionsDisallowed\nCMD [\"b\"]\n", &[]),
        // A comment can switch a rule on, too.
        (
            "FROM alpine\n# check=experimental=InvalidDefinitionDescription\n# wrong\nARG X\n# wrong\nARG Y\n",
            &["InvalidDefinitionDescription"],
        ),
    ];
    for (text, expected) in table {
        assert_eq!(rules(text), *expected, "{text}");
    }
}

#[test]
fn what_the_command_line_has_wrong_has_no_place() {
    let rule = rule::find("UnusedBuildArg").unwrap();
    let [bad, _] = examples(rule.page);
    let found = check(&bad, Purpose::Build);
    let [finding] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!((finding.rule, finding.span), (Some("UnusedBuildArg"), Span::default()));
    let source = SourceFile { name: "Dockerfile".into(), text: bad.dockerfile.as_str().into() };
    let shown = crate::diagnostic::render(&found, &source, false);
    assert!(shown.contains("VERSOIN") && shown.contains("did you mean"), "{shown}");
    assert!(!shown.contains("Dockerfile:") && !shown.contains('^'), "{shown}");
}

#[test]
fn conditions_are_those_of_buildkit() {
    let table: &[(&str, &[&str])] = &[
        // A shell that was chosen is meant.
        ("FROM alpine\nSHELL [\"/bin/bash\", \"-c\"]\nCMD a\n", &[]),
        // A stage below has set the directory; only the first relative one is reported.
        ("FROM alpine AS a\nWORKDIR /x\nFROM a\nWORKDIR y\n", &[]),
        ("FROM alpine\nWORKDIR x\nWORKDIR y\n", &["WorkdirRelativePath"]),
        ("FROM alpine\nARG D=/d\nWORKDIR $D\n", &[]),
        // The one without effect is the earlier.
        ("FROM alpine AS a\nCMD [\"a\"]\nFROM a\nCMD [\"b\"]\n", &[]),
        ("FROM alpine\nHEALTHCHECK NONE\nHEALTHCHECK CMD [\"a\"]\n", &["MultipleInstructionsDisallowed"]),
        // Mixed keywords are a matter of their own; arguments before the first stage do not count.
        ("From scratch as a\nCOPY a /\n", &["ConsistentInstructionCasing"]),
        ("from scratch AS a\ncopy a /\n", &["FromAsCasing"]),
        ("arg X=1\nFROM scratch\nCOPY a /\n", &[]),
        ("FROM scratch\ncopy a /\n", &["ConsistentInstructionCasing"]),
        // Constants in the name of the platform.
        ("FROM --platform=linux/arm64 alpine AS tools-arm64\n", &["InvalidBaseImagePlatform"]),
        ("FROM --platform=linux alpine AS tools\n", &["FromPlatformFlagConstDisallowed"]),
        ("FROM --platform=${TARGETPLATFORM:-x} alpine\n", &["RedundantTargetPlatform"]),
        ("ARG P=linux/amd64\nFROM --platform=$P alpine\n", &[]),
        ("FROM --platform=$BUILDOS/amd46 scratch\n", &["UnknownPlatform"]),
        // Whether there is a fall-back or not: an argument may only have been forgotten in this stage.
        ("ARG X=1\nFROM alpine\nENV Y=${X:-2}\n", &["UndefinedVar"]),
        // Secrets.
        ("ARG TOKEN\nFROM alpine\n", &[]),
        ("FROM alpine\nARG TOKEN\n", &["SecretsUsedInArgOrEnv"]),
        ("FROM alpine\nENV PUBLIC_KEY=a PASSWORD_FILE=b TOKEN_VERSION=c\n", &[]),
        // All stages are looked at, needed or not.
        ("# a is built by name\nFROM alpine AS a\nENV X 1\nFROM alpine\n", &["LegacyKeyValueFormat"]),
    ];
    for (text, expected) in table {
        assert_eq!(rules(text), *expected, "{text}");
    }
}

#[test]
fn a_stage_is_used_by_whatever_may_name_it() {
    for (use_, unused) in [
        ("FROM a", false),
        ("FROM scratch\nCOPY --from=a / /", false),
        ("FROM scratch\nCOPY --from=0 / /", false),
        ("ARG X=a\nFROM scratch\nCOPY --from=b / /", true),
        ("FROM alpine\nRUN --mount=from=a,target=/x true", false),
        ("FROM alpine\nONBUILD COPY --from=a / /", false),
        ("FROM alpine\nRUN true", true),
    ] {
        let found = rules(&format!("FROM scratch AS a\nCOPY x /\nFROM scratch AS b\nCOPY y /\n{use_}\n"));
        // The second stage is only there to be another one.
        let names = found.iter().filter(|rule| **rule == "UnusedStage").count();
        let other = usize::from(!use_.contains("from=b"));
        assert_eq!(names, usize::from(unused) + other, "{use_}: {found:?}");
    }
    let found = rules("ARG X=a\nFROM alpine AS stage-a\nFROM alpine AS other\nFROM stage-$X\n");
    assert_eq!(found, ["UnusedStage"]);
}

#[test]
fn exceptions_in_the_ignore_file_silence_its_rule() {
    for (ignore, source, expected) in [
        ("*.md", "a.md", true),
        ("docs", "docs/a.md", true),
        ("docs", "./docs/../docs/", true),
        ("*.md\n!a.md", "b.md", false),
        ("*.md", "a.txt", false),
        ("*", ".", true),
        ("**/*", "/", true),
        ("*.*", ".", false),
        ("a\nb", ".", false),
    ] {
        let example = Example {
            dockerfile: format!("FROM scratch\nCOPY {source} /x/\nADD {source} /y/\n"),
            dockerignore: ignore.to_owned(),
            ..Example::default()
        };
        let found = check(&example, Purpose::Build);
        assert_eq!(found.len(), if expected { 2 } else { 0 }, "{ignore:?} {source}: {found:?}");
    }
}

#[test]
fn only_rules_of_buildkit_fail_a_build() {
    let source = |text: &str| {
        let example = Example { dockerfile: text.to_owned(), ..Example::default() };
        let (recipe, _) =
            dockerfile::parse(&SourceFile { name: "Dockerfile".into(), text: example.dockerfile.as_str().into() });
        violations(&recipe.checks, &check(&example, Purpose::Build))
    };
    assert_eq!(
        source("# check=error=true\nFROM alpine\nCMD a\nCMD b\n"),
        ["JSONArgsRecommended", "MultipleInstructionsDisallowed"]
    );
    assert!(source("FROM alpine\nCMD a\n").is_empty());
    assert!(source("# check=error=true\nFROM alpine\nRUN ['a']\n").is_empty());
    assert!(source("# check=error=true;skip=JSONArgsRecommended\nFROM alpine\nCMD a\n").is_empty());
}
