//! Any bytes as a recipe: parsed, lowered, and its messages rendered.
//!
//! Checked: no panic; a recipe without stages has an error; every message points into the text, at whole characters;
//! no graph names a node that comes later than the one that needs it.

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use strata::diagnostic::{Diagnostic, SourceFile, render};
use strata::graph::Request;
use strata::graph::lower::{Lowered, lower};
use strata::recipe::dockerfile::parse;
use strata::recipe::platform::Platform;

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let source = SourceFile { name: "Dockerfile".into(), text: (&*text).into() };
    let (recipe, diagnostics) = parse(&source);
    assert_pointing_into(&text, &diagnostics);
    render(&diagnostics, &source, false);
    if diagnostics.iter().any(Diagnostic::is_error) {
        return;
    }
    assert!(!recipe.stages.is_empty(), "a recipe without stages and without an error");
    let request = Request {
        build_args: BTreeMap::from([("GIVEN".to_owned(), "a b".to_owned())]),
        ..Request::plain("linux/amd64".parse::<Platform>().expect("it is a platform"))
    };
    match lower(&recipe, &request, &BTreeMap::new()) {
        Ok(Lowered::Graph(graph, warnings)) => {
            assert_pointing_into(&text, &warnings);
            for (place, node) in graph.nodes.iter().enumerate() {
                assert!(node.op.inputs().iter().all(|input| input.0 < place), "node {place} needs a later one");
            }
            assert!(graph.target.0 < graph.nodes.len());
        }
        Ok(Lowered::Needs(images)) => assert!(!images.is_empty()),
        Err(errors) => {
            assert!(errors.iter().any(Diagnostic::is_error), "refused without an error");
            assert_pointing_into(&text, &errors);
            render(&errors, &source, false);
        }
    }
});

fn assert_pointing_into(text: &str, diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let span = diagnostic.span;
        assert!(text.get(span.start..span.end).is_some(), "{span:?} is no place of the text: {diagnostic:?}");
    }
}
