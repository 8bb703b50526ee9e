#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use super::*;
use crate::cache::difference::differences;
use crate::cache::key::{Field, Fields};
use crate::cache::listing::Aspect;
use crate::diagnostic::SourceFile;
use crate::digest::{DiffId, Digest};
use crate::graph::Request;
use crate::graph::lower::{Lowered, lower};
use crate::recipe::dockerfile;

const RECIPE: &str = "FROM scratch AS one\nARG VERSION=1\nENV A=b C=d\nWORKDIR /a\nRUN make $VERSION\n";

fn fields(fields: &[(&str, Field)]) -> Fields {
    serde_json::from_value(serde_json::to_value(fields).unwrap()).unwrap()
}

fn text(text: &str) -> Field {
    Field::Text(text.to_owned())
}

fn list(entries: &[&str]) -> Field {
    Field::List(entries.iter().map(|entry| (*entry).to_owned()).collect())
}

fn record(below: Below) -> Record {
    Record {
        fields: Fields::default(),
        layer: DiffId::from(Digest::of(b"layer")),
        created: 0,
        made: 1_000_000,
        elapsed_ms: 1500,
        step: "RUN make $VERSION".to_owned(),
        below,
        made_by: Some(MadeBy { build: "0123456789abcdef".to_owned(), step: 4 }),
    }
}

fn step(layer: u8) -> Below {
    Below::Step { text: "WORKDIR /a".to_owned(), layer: Some(DiffId::from(Digest::of(&[layer]))) }
}

fn image(name: &str, digest: u8) -> Below {
    Below::Image { name: name.to_owned(), digest: Digest::of(&[digest]).to_string() }
}

/// What is said of the recipe's `RUN`, whose inputs are different in this.
fn said(found: &[Difference], before: Below, below: Below, mask: &Mask) -> Explanation {
    let source = SourceFile { name: "Dockerfile".into(), text: RECIPE.into() };
    let (recipe, _) = dockerfile::parse(&source);
    let request = Request::plain("linux/amd64".parse().unwrap());
    let Ok(Lowered::Graph(graph, _)) = lower(&recipe, &request, &BTreeMap::new()) else { panic!("it has no base") };
    let node = &graph[graph.target];
    let before = record(before);
    Changed { found, before: &before, below, graph: &graph, node, recipe: &recipe, mask }.explain(8_200_000)
}

fn of_fields(old: &[(&str, Field)], new: &[(&str, Field)], mask: &Mask) -> Explanation {
    said(&differences(&fields(old), &fields(new), &|_| None), step(1), step(1), mask)
}

#[test]
fn values_are_named_as_people_name_them() {
    let env = |entries: &[&str]| vec![("env", list(entries))];
    let long = |end: &str| format!("{}{end}", "some common words ".repeat(6));
    for (old, new, summary) in [
        (env(&["VERSION=1"]), env(&["VERSION=2"]), "VERSION: 1 → 2 (ARG, line 2)"),
        (env(&["C=d"]), env(&["C="]), "C: d → \"\" (ENV, line 3)"),
        (env(&["X=1"]), env(&[]), "X is gone (it was 1)"),
        (env(&[]), env(&["X=a b"]), "X=\"a b\" is new"),
        (env(&["API_TOKEN=1"]), env(&["API_TOKEN=2"]), "API_TOKEN changed (its value is not shown)"),
        (env(&["API_TOKEN=1"]), env(&[]), "API_TOKEN is gone (it was ***)"),
        (
            env(&["A=1", "B=2"]),
            env(&["B=2", "A=1"]),
            "the order of variables: \"\"A=1\" \"B=2\"\" → \"\"B=2\" \"A=1\"\"",
        ),
        (vec![("user", text(""))], vec![("user", text("me"))], "user: root → me"),
        (vec![], vec![("chmod", text("755"))], "--chmod: not set → 755"),
        (vec![("flags", list(&[]))], vec![("flags", list(&["link"]))], "--link is new"),
        (vec![("workdir", text("/a\u{1b}[2J"))], vec![("workdir", text("/b"))], "workdir: /a\\u{1b}[2J → /b"),
        (
            vec![("argv", list(&["sh", "-c", &long("one")]))],
            vec![("argv", list(&["sh", "-c", &long("two")]))],
            "the command: \"…me common words one\" → \"…me common words two\"",
        ),
        (
            vec![("user", text("a")), ("network", text("none")), ("epoch", text("1"))],
            vec![("user", text("b")), ("network", text("host")), ("epoch", text("2"))],
            "user: a → b, network: none → host (+1 more)",
        ),
        (vec![], vec![], "nothing that is known changed; another version of Strata made it"),
    ] {
        let explanation = of_fields(&old, &new, &Mask::default());
        assert_eq!(explanation.summary, summary);
        assert_eq!(
            explanation.details.last().map(String::as_str),
            Some("compared with the run made 1970-01-01 00:16:40Z (2 hours ago) by build 01234567, step 4")
        );
        let lines = if explanation.document["differences"].as_array().unwrap().len() > 1 { 4 } else { 1 };
        assert_eq!(explanation.details.len(), lines, "{:?}", explanation.details);
    }
}

#[test]
fn another_parent_is_named() {
    for (before, below, expected) in [
        (step(1), step(2), "the step above (line 4, WORKDIR /a) made another layer".to_owned()),
        (step(1), step(1), "what is below the step above (line 4, WORKDIR /a) changed".to_owned()),
        (
            image("alpine:3", 1),
            image("alpine:3", 2),
            format!(
                "base image alpine:3 moved: {} → {}",
                brief(&Digest::of(&[1]).to_string()),
                brief(&Digest::of(&[2]).to_string())
            ),
        ),
        (image("alpine:3", 1), image("alpine:4", 2), "base image alpine:3 → alpine:4".to_owned()),
        (Below::Scratch, step(1), "it starts from WORKDIR /a, not from nothing".to_owned()),
    ] {
        let found = differences(&fields(&[("parent", text("x"))]), &fields(&[("parent", text("y"))]), &|_| None);
        let explanation = said(&found, before, below, &Mask::default());
        assert_eq!(explanation.summary, expected);
        assert_eq!(explanation.document["differences"][0]["line"], 4);
    }
}

#[test]
fn paths_are_counted_and_the_first_ones_listed() {
    let change = |path: &str, what: What| Change { path: path.to_owned(), what };
    let mut changes = vec![
        change("a\n\u{1b}x", What::Added),
        change("b", What::Changed(vec![Aspect::Content, Aspect::Mode(0o644, 0o755)])),
        change("c", What::Removed),
    ];
    let difference = |files: Option<Vec<Change>>| Difference {
        field: "files".to_owned(),
        of: None,
        old: Some("x".to_owned()),
        new: Some("y".to_owned()),
        files,
    };
    let explanation = |changes: Vec<Change>| said(&[difference(Some(changes))], step(1), step(1), &Mask::default());
    let few = explanation(changes.clone());
    assert_eq!(few.summary, "a\\n\\u{1b}x added (+2 files)");
    assert_eq!(few.details[..3], ["a\\n\\u{1b}x: added", "b: content, mode 0644 → 0755", "c: removed"]);
    changes.extend((0..2 * PATHS).map(|number| change(&format!("d/{number}"), What::Added)));
    let many = explanation(changes);
    assert_eq!(many.details.len(), LINES + 2);
    let files = &many.document["differences"][0];
    assert_eq!((&files["added"], files["paths"].as_array().unwrap().len()), (&2001.into(), PATHS));
    let unknown = said(&[difference(None)], step(1), step(1), &Mask::default());
    assert!(unknown.summary.ends_with("changed (which of them is not known)"), "{}", unknown.summary);
}

#[test]
fn secrets_are_in_no_part_of_an_explanation() {
    let mut mask = Mask::default();
    mask.add(b"hunter2");
    let all = |value: &str| {
        vec![
            ("argv", list(&["sh", "-c", &format!("echo {value}")])),
            ("env", list(&[&format!("V=x{value}"), "W=old-secret"])),
            ("mounts", list(&[&format!("bind \"/{value}\" ro x")])),
            ("workdir", text(&format!("/{value}"))),
        ]
    };
    let mut new = all("hunter2");
    new[1].1 = list(&["V=y", "W=hunter2"]);
    let explanation = of_fields(&all("hunter2!"), &new, &mask);
    let shown = format!("{:?} {}", explanation.lines().collect::<Vec<_>>(), explanation.object());
    assert!(!shown.contains("hunter2") && !shown.contains("old-secret"), "{shown}");
    assert!(shown.contains("***"), "{shown}");
}

#[test]
fn ages_are_never_negative() {
    assert_eq!(age(5, 3), Duration::ZERO);
    assert_eq!(age(i64::MIN, i64::MAX).as_millis(), i64::MAX as u128);
    assert_eq!(age(1000, 3500), Duration::from_millis(2500));
}
