//! What a `COPY` takes, its two halves apart: finding out what is selected (when nothing is remembered of the context, and
//! when everything is), and putting it into a layer.

#![allow(clippy::unwrap_used, reason = "a benchmark without its ground cannot go on")]

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use strata::context::Context;
use strata::context::ignore::Ignore;
use strata::execute::copy::apply::apply;
use strata::execute::copy::select::select;
use strata::graph::{CopyOp, CopySource, NodeId};
use strata::layer::OverlayXattr;
use strata::layer::view::View;

const FILES: usize = 10_000;
const SMALL: usize = 8 << 10;
const LARGE: usize = 512 << 20;

/// `COPY . /data/`
fn everything() -> CopyOp {
    CopyOp {
        parent: NodeId(0),
        from: NodeId(1),
        sources: vec![CopySource::Path(".".into())],
        destination: "/data/".into(),
        chown: None,
        chmod: None,
        link: true,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
        epoch: None,
    }
}

fn content(length: usize, seed: usize) -> Vec<u8> {
    (0..length as u64 / 8).flat_map(|n| (n ^ (seed as u64) << 40).to_le_bytes()).collect()
}

fn small_files(root: &Path) -> std::io::Result<()> {
    for number in 0..FILES {
        let directory = root.join(format!("{:02}", number / 100));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("{:02}", number % 100)), content(SMALL, number))?;
    }
    Ok(())
}

fn copies(criterion: &mut Criterion) {
    let (small, large) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    small_files(small.path()).unwrap();
    std::fs::write(large.path().join("file"), content(LARGE, 0)).unwrap();
    // Files that were written a moment ago are never trusted.
    std::thread::sleep(Duration::from_millis(100));
    let op = everything();
    let mut group = criterion.benchmark_group("copy");
    group.sample_size(10);
    for (name, root) in [("10000 x 8 KiB", small.path()), ("512 MiB", large.path())] {
        let place = tempfile::tempdir().unwrap();
        let open = |index: Option<PathBuf>| Context::open(root, Ignore::default(), index).unwrap();
        let index = place.path().join("index");
        group.bench_function(format!("select {name}, nothing remembered"), |bencher| {
            bencher.iter(|| black_box(select(&op, &open(None)).unwrap()));
        });
        let known = open(Some(index.clone()));
        select(&op, &known).unwrap();
        known.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
        group.bench_function(format!("select {name}, everything remembered"), |bencher| {
            bencher.iter(|| black_box(select(&op, &open(Some(index.clone()))).unwrap()));
        });
        let context = open(None);
        let selection = select(&op, &context).unwrap();
        let nothing = View::over(&[], OverlayXattr::Trusted).unwrap();
        group.bench_function(format!("apply {name}"), |bencher| {
            let fresh = || tempfile::tempdir_in(place.path()).unwrap();
            bencher.iter_batched(
                fresh,
                |into| {
                    let tree = into.path().join("tree");
                    apply(&op, &selection, &context, &nothing, &tree, OverlayXattr::Trusted, None).unwrap();
                    into
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, copies);
criterion_main!(benches);
