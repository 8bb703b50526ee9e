//! How long a cold parse and the graph of a large recipe take: the part of every build that is done before anything
//! is known to be in the cache. The aim is less than two milliseconds for 500 lines.

use std::collections::BTreeMap;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::diagnostic::{Diagnostic, SourceFile};
use strata::graph::lower::{Lowered, lower};
use strata::graph::{Graph, ImageRequest, Request};
use strata::image::config::ImageConfig;
use strata::recipe::Recipe;
use strata::recipe::dockerfile::parse;
use strata::recipe::platform::Platform;

const LARGE: &str = include_str!("../testdata/recipes/accept/large.Dockerfile");

fn parsed(text: &str) -> Recipe {
    let (recipe, findings) = parse(&SourceFile { name: "Dockerfile".into(), text: text.into() });
    assert!(!findings.iter().any(Diagnostic::is_error), "{findings:#?}");
    recipe
}

/// The graph of a recipe; with the number of times that images were asked for, each with the same configuration.
fn graph(recipe: &Recipe, request: &Request, bases: &mut BTreeMap<ImageRequest, ImageConfig>) -> Graph {
    loop {
        match lower(recipe, request, bases).expect("the recipe is good") {
            Lowered::Graph(graph, _) => return *graph,
            Lowered::Needs(images) => bases.extend(images.into_iter().map(|image| (image, configuration()))),
        }
    }
}

fn configuration() -> ImageConfig {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/usr/bin:/bin"]},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    serde_json::from_str(text).expect("it is a configuration")
}

fn recipes(criterion: &mut Criterion) {
    let request = Request::plain(Platform::host());
    let mut group = criterion.benchmark_group("recipe");
    group.throughput(Throughput::Elements(LARGE.lines().count() as u64));
    group.bench_function("parse", |bencher| bencher.iter(|| parsed(black_box(LARGE))));
    // Every stage is needed here; nothing is left out.
    for target in ["release", "test-results"] {
        let request = Request { target: Some(target.to_owned()), ..request.clone() };
        group.bench_function(format!("parse and graph of {target}"), |bencher| {
            bencher.iter(|| graph(&parsed(black_box(LARGE)), &request, &mut BTreeMap::new()));
        });
    }
    group.finish();
}

criterion_group!(benches, recipes);
criterion_main!(benches);
