//! How long a context of ten thousand files takes to be listed and hashed: for the first time, and when the stat index
//! of an earlier build knows every file.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use strata::context::Context;
use strata::context::ignore::Ignore;
use strata::digest::ContentId;
use strata::layer::tree::{Kind, Tree};

const FILES: usize = 10_000;
const SIZE: usize = 4 << 10;

fn make(root: &Path) -> std::io::Result<()> {
    for number in 0..FILES {
        let directory = root.join(format!("{:02}", number / 100));
        std::fs::create_dir_all(&directory)?;
        let content: Vec<u8> = number.to_string().bytes().cycle().take(SIZE).collect();
        std::fs::write(directory.join(format!("{:02}", number % 100)), content)?;
    }
    Ok(())
}

/// The digests of every file below a path, in order.
fn hash(context: &Context, path: &Path, digests: &mut Vec<ContentId>) -> std::io::Result<()> {
    for name in context.names(path)? {
        let path: PathBuf = path.join(name);
        let Some(entry) = context.entry(&path)? else { continue };
        match entry.kind {
            Kind::Directory => hash(context, &path, digests)?,
            _ => digests.push(context.content_id(&path, &entry)?),
        }
    }
    Ok(())
}

fn contexts(criterion: &mut Criterion) {
    let place = tempfile::tempdir().expect("the temporary directory has room");
    let (root, index) = (place.path().join("context"), place.path().join("index"));
    make(&root).expect("the temporary directory has room");
    // Files that were written a moment ago are never trusted.
    std::thread::sleep(Duration::from_millis(100));
    let all = |index: Option<PathBuf>| {
        let context = Context::open(&root, Ignore::default(), index).expect("the context is there");
        let mut digests = Vec::with_capacity(FILES);
        hash(&context, Path::new(""), &mut digests).expect("the context can be read");
        assert_eq!(digests.len(), FILES);
        (context, digests)
    };
    let mut group = criterion.benchmark_group("context of 10000 files");
    group.sample_size(20);
    group.throughput(Throughput::Elements(FILES as u64));
    group.bench_function("first time", |bencher| bencher.iter(|| black_box(all(None))));
    all(Some(index.clone())).0.save(&|path, bytes| std::fs::write(path, bytes)).expect("the index can be written");
    assert_eq!(all(Some(index.clone())).0.files_read(), 0, "the index knows every file");
    group.bench_function("nothing changed", |bencher| bencher.iter(|| black_box(all(Some(index.clone())))));
    let patterns = Ignore::parse(".dockerignore", b"*\n!00\n").expect("they are patterns");
    group.bench_function("all but one directory ignored", |bencher| {
        bencher.iter(|| {
            let context = Context::open(&root, patterns.clone(), None).expect("the context is there");
            let mut digests = Vec::new();
            hash(&context, Path::new(""), &mut digests).expect("the context can be read");
            assert_eq!(digests.len(), 100);
            black_box(digests)
        });
    });
    group.finish();
}

criterion_group!(benches, contexts);
criterion_main!(benches);
