//! What the store and the cache take for the things every build does many times: opening, asking, remembering, locking,
//! publishing a small layer, taking in a blob; and what the documents of an image take.

#![allow(clippy::unwrap_used, reason = "a benchmark without its ground cannot go on")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::Write;
use std::ops::ControlFlow;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use strata::cache::listing::{Facts, Kind, Listing};
use strata::cache::record::{Below, Record};
use strata::cache::{self, Found, key};
use strata::digest::{ContentId, DiffId, Digest, Key};
use strata::graph::{NodeId, RunOp};
use strata::image::assemble::{Built, assemble};
use strata::image::chain::Chain;
use strata::image::config::ImageConfig;
use strata::image::manifest::{Descriptor, media_type};
use strata::layer::OverlayXattr;
use strata::layer::archive::{Times, measure};
use strata::recipe::platform::Platform;
use strata::recipe::{Network, Security};
use strata::store::{LayerMeta, Origin, Store};

fn step(number: usize) -> RunOp {
    RunOp {
        parent: NodeId(0),
        argv: vec!["/bin/sh".into(), "-c".into(), format!("make part-{number}")],
        env: (0..20).map(|n| (format!("VARIABLE_{n}").into(), "value ".repeat(n).into())).collect(),
        proxy_env: Vec::new(),
        workdir: "/".into(),
        user: String::new(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts: Vec::new(),
        scripts: Vec::new(),
        epoch: None,
        hostname: None,
    }
}

fn platform() -> Platform {
    Platform { os: "linux".into(), architecture: "amd64".into(), variant: None, os_version: None }
}

/// Publishes a layer of one small file, which no other number gives.
fn publish(store: &Store, number: usize) -> DiffId {
    let scratch = store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    std::fs::write(tree.join("file"), number.to_string()).unwrap();
    let measured = measure(&tree, OverlayXattr::Trusted, Times { clamp: Some(0) }).unwrap();
    let meta = LayerMeta {
        tar_size: measured.size,
        entries: measured.entries,
        disk: 4096,
        origin: Origin::Built { key: Key::from_bytes([0; 32]) },
        clamp: Some(0),
        forms: Vec::new(),
        implied: Vec::new(),
    };
    store.publish_layer(&measured.diff_id, &tree, meta).unwrap();
    measured.diff_id
}

fn steps(criterion: &mut Criterion) {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("store");
    let store = Store::open(&root).unwrap();
    let mut group = criterion.benchmark_group("store");
    group.bench_function("open", |bencher| bencher.iter(|| Store::open(&root).unwrap()));

    let chain = (0..40_u8).fold(Chain::scratch(), |chain, n| chain.with(DiffId::from(Digest::of(&[n]))));
    group.bench_function("key of a RUN on 40 layers", |bencher| {
        let op = step(0);
        bencher.iter(|| black_box(key::run(black_box(&op), &chain, &platform(), &[]).key()));
    });

    let layer = publish(&store, 0);
    let fields = key::run(&step(1), &chain, &platform(), &[]);
    let record = Record {
        fields: fields.clone(),
        layer,
        created: 0,
        made: 0,
        elapsed_ms: 1,
        step: "RUN make".into(),
        below: Below::Scratch,
        made_by: None,
    };
    group.bench_function("remember a step", |bencher| {
        bencher.iter(|| cache::remember(&store, &fields.key(), &record).unwrap());
    });
    group.bench_function("find a step that is known", |bencher| {
        bencher.iter(|| assert!(matches!(cache::lookup(&store, &fields.key()), Found::Layer(_))));
    });
    let unknown = key::run(&step(2), &chain, &platform(), &[]).key();
    group.bench_function("find a step that is not", |bencher| {
        bencher.iter(|| assert_eq!(cache::lookup(&store, &unknown), Found::Nothing));
    });
    group.bench_function("keep what 10,000 files were, for explaining", |bencher| {
        let id = ContentId::from_bytes([1; 32]);
        let files: Vec<(Vec<u8>, Facts)> = (0..10_000_u64)
            .map(|number| {
                let path = format!("data/directory-{:03}/file-{number:05}.txt", number / 100);
                let content = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                (path.into_bytes(), Facts { kind: Kind::File, mode: 0o644, owner: (0, 0), content, attributes: 0 })
            })
            .collect();
        bencher.iter_batched(
            || files.clone(),
            |files| cache::remember_listing(&store, &id, &Listing::new(files).encode()).unwrap(),
            BatchSize::LargeInput,
        );
    });
    group.bench_function("lock and unlock", |bencher| {
        bencher.iter(|| store.lock("step", "run a step", &mut |_| ControlFlow::Break(())).unwrap());
    });
    let mut number = 0;
    group.bench_function("measure and publish a layer of one file", |bencher| {
        bencher.iter(|| {
            number += 1;
            publish(&store, number)
        });
    });

    let megabyte = vec![7; 1 << 20];
    group.throughput(Throughput::Bytes(1 << 20));
    group.bench_function("take in a blob of 1 MiB", |bencher| {
        bencher.iter_batched(
            || store.blob_writer().unwrap(),
            |mut writer| {
                number += 1;
                writer.write_all(&number.to_le_bytes()).unwrap();
                writer.write_all(&megabyte).unwrap();
                writer.commit(None).unwrap()
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

fn documents(criterion: &mut Criterion) {
    let built: Vec<Built> = (0..40_u8)
        .map(|n| Built {
            diff_id: DiffId::from(Digest::of(&[n])),
            blob: Descriptor::new(media_type::LAYER_GZIP, Digest::of(&[n, n]), 1000),
            created: "2026-01-01T00:00:00Z".to_owned(),
        })
        .collect();
    let config = ImageConfig::default();
    let mut group = criterion.benchmark_group("image");
    group.bench_function("documents of 40 layers", |bencher| {
        let time = "2026-01-01T00:00:00Z";
        bencher.iter(|| black_box(assemble(&config, 0, None, &[], &built, &BTreeMap::new(), time).unwrap()));
    });
    group.finish();
}

criterion_group!(benches, steps, documents);
criterion_main!(benches);
