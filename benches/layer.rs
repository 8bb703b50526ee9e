//! How fast layers are written and unpacked: many small files, and one large one.

use std::hint::black_box;
use std::path::Path;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::layer::OverlayXattr;
use strata::layer::archive::{Times, measure, write};
use strata::layer::compress::{Compression, Encoder};
use strata::layer::unpack::{Owners, unpack};

const SMALL_FILES: usize = 10_000;
const SMALL: usize = 8 << 10;
const LARGE: usize = 256 << 20;

/// Bytes that do not repeat, the same in every run.
fn content(length: usize) -> Vec<u8> {
    let mut state = 1u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0] & 0x3f
    };
    (0..length).map(|_| next()).collect()
}

fn many_small_files(root: &Path) -> std::io::Result<()> {
    let content = content(SMALL);
    for number in 0..SMALL_FILES {
        let directory = root.join(format!("{:02}", number / 100));
        std::fs::create_dir_all(&directory)?;
        std::fs::write(directory.join(format!("{:02}", number % 100)), &content)?;
    }
    Ok(())
}

fn layers(criterion: &mut Criterion) {
    let prepared = || -> std::io::Result<_> {
        let (small, large) = (tempfile::tempdir()?, tempfile::tempdir()?);
        many_small_files(small.path())?;
        std::fs::write(large.path().join("file"), content(LARGE))?;
        Ok((small, large))
    };
    let (small, large) = prepared().expect("the temporary directory has room");
    let mut group = criterion.benchmark_group("layer");
    group.sample_size(10);
    for (name, tree, bytes) in [("10000 x 8 KiB", &small, SMALL_FILES * SMALL), ("256 MiB", &large, LARGE)] {
        let tree = tree.path();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("write {name}"), |bencher| {
            bencher.iter(|| black_box(measure(tree, OverlayXattr::Trusted, Times::default())).expect("it is readable"));
        });
        for compression in [Compression::Gzip { level: 6 }, Compression::Zstd { level: 3 }] {
            let suffix = compression.media_type_suffix();
            group.bench_function(format!("write {name} {suffix}"), |bencher| {
                bencher.iter(|| {
                    let mut encoder = Encoder::new(compression, std::io::sink()).expect("the level exists");
                    write(tree, OverlayXattr::Trusted, Times::default(), &mut encoder).expect("it is readable");
                    encoder.finish().expect("nowhere takes everything")
                });
            });
        }
        let mut archive = Vec::new();
        write(tree, OverlayXattr::Trusted, Times::default(), &mut archive).expect("it is readable");
        group.bench_function(format!("unpack {name}"), |bencher| {
            bencher.iter_with_large_drop(|| {
                let into = tempfile::tempdir().expect("the temporary directory has room");
                unpack(archive.as_slice(), into.path(), OverlayXattr::Trusted, Owners::Squashed)
                    .expect("it was just written");
                into
            });
        });
    }
    group.finish();
}

criterion_group!(benches, layers);
criterion_main!(benches);
