//! Any bytes where the cache keeps its memory: a step's record, a record's file, and a context's stat index.
//!
//! Checked: no panic; a record that can be read is written as it was; a record's file that is not the one written is
//! a miss; a context finds the digests it would find without an index.

#![no_main]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use strata::cache::record::Record;
use strata::context::{Context, ignore::Ignore};
use strata::digest::{ContentId, Key};
use strata::layer::tree::Tree;
use strata::store::{Bucket, Store};

const BUCKET: Bucket = Bucket::new("fuzz-v1");
const KEY: Key = Key::from_bytes([7; 32]);

struct Place {
    _directory: tempfile::TempDir,
    store: Store,
    context: PathBuf,
    index: PathBuf,
    digest: ContentId,
}

static PLACE: LazyLock<Place> = LazyLock::new(|| {
    let directory = tempfile::tempdir().expect("the temporary directory has room");
    let store = Store::open(&directory.path().join("store")).expect("the directory is new");
    let (context, index) = (directory.path().join("context"), directory.path().join("index"));
    fs::create_dir(&context).expect("the directory is new");
    fs::write(context.join("file"), "content").expect("the directory is new");
    let fresh = Context::open(&context, Ignore::default(), None).expect("the context is there");
    let digest = digest(&fresh);
    Place { _directory: directory, store, context, index, digest }
});

fuzz_target!(|bytes: &[u8]| {
    if let Some(record) = Record::decode(bytes) {
        assert_eq!(Record::decode(&record.encode()).as_ref(), Some(&record));
    }

    let place = &*PLACE;
    let written = place.store.write_record(BUCKET, &KEY, b"the value");
    written.expect("the store takes a record");
    let file = find(&place.store.root().join("cache")).expect("a record has a file");
    let whole = fs::read(&file).expect("it was just written");
    fs::write(&file, bytes).expect("the store is ours");
    let read = place.store.read_record(BUCKET, &KEY);
    assert_eq!(read.is_some(), whole == bytes, "a record that is another was taken");
    place.store.take_damage();

    fs::write(&place.index, bytes).expect("the directory is ours");
    let context = Context::open(&place.context, Ignore::default(), Some(place.index.clone()));
    assert_eq!(digest(&context.expect("the context is there")), place.digest);
});

fn digest(context: &Context) -> ContentId {
    let path = Path::new("file");
    let entry = context.entry(path).expect("the context can be read").expect("the file is there");
    context.content_id(path, &entry).expect("the file can be read")
}

/// The only file below the bucket's directory.
fn find(cache: &Path) -> Option<PathBuf> {
    let mut left = vec![cache.join(BUCKET.name())];
    while let Some(path) = left.pop() {
        if path.is_file() {
            return Some(path);
        }
        left.extend(fs::read_dir(path).ok()?.filter_map(|entry| Some(entry.ok()?.path())));
    }
    None
}
