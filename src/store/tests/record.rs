//! Records: remembered, or a miss.

use super::*;
use crate::image::manifest::{Descriptor, media_type};
use crate::recipe::platform::Platform;

const BUCKET: Bucket = Bucket::new("steps-v1");

fn path(fixture: &Fixture, key: &Key) -> PathBuf {
    fixture.root().join("cache/steps-v1").join(&key.hex()[..2]).join(key.hex())
}

#[test]
fn gives_back_what_was_written() {
    let fixture = Fixture::new();
    let key = Key::from_bytes([0xab; 32]);
    assert_eq!(fixture.store.read_record(BUCKET, &key), None);
    for value in [&b"one"[..], b"", b"two\nlines\n\0"] {
        fixture.store.write_record(BUCKET, &key, value).unwrap();
        assert_eq!(fixture.reopen().read_record(BUCKET, &key).as_deref(), Some(value));
    }
    assert!(path(&fixture, &key).exists());
    assert_eq!(fixture.store.read_record(Bucket::new("images-v1"), &key), None);
    assert!(fixture.store.remove_record(BUCKET, &key).unwrap());
    assert!(!fixture.store.remove_record(BUCKET, &key).unwrap());
    assert_eq!(fixture.store.take_damage(), []);
}

#[test]
fn a_torn_record_is_a_miss_told_once() {
    let fixture = Fixture::new();
    let key = Key::from_bytes([1; 32]);
    fixture.store.write_record(BUCKET, &key, b"value").unwrap();
    let path = path(&fixture, &key);
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        assert_eq!(fixture.store.read_record(BUCKET, &key), None, "{length}");
        assert_eq!(fixture.store.read_record(BUCKET, &key), None, "{length}");
        assert_eq!(fixture.store.take_damage(), [Damage::Record { path: path.clone() }]);
    }
}

#[test]
fn writers_of_one_record_never_mix() {
    let fixture = Fixture::new();
    let key = Key::from_bytes([1; 32]);
    std::thread::scope(|scope| {
        for number in 0..4_u8 {
            let (store, key) = (&fixture.store, &key);
            scope.spawn(move || {
                for _ in 0..50 {
                    store.write_record(BUCKET, key, &vec![number; 10_000]).unwrap();
                    let value = store.read_record(BUCKET, key).unwrap();
                    assert!(value.len() == 10_000 && value.iter().all(|byte| *byte == value[0]));
                }
            });
        }
    });
}

#[test]
fn remembers_pulls_by_name_and_platform() {
    let fixture = Fixture::new();
    let platform = |architecture: &str, variant: Option<&str>| Platform {
        os: "linux".to_owned(),
        architecture: architecture.to_owned(),
        variant: variant.map(str::to_owned),
        os_version: None,
    };
    let image = |content: &[u8]| PulledImage {
        manifest: Descriptor::new(media_type::MANIFEST, Digest::of(content), 1),
        index: Some(Descriptor::new(media_type::INDEX, Digest::of(b"index"), 2)),
        resolved_at: 1_700_000_000,
    };
    let (debian, alpine) = (tag::reference("debian", "12"), tag::reference("alpine", "12"));
    let (arm, v7) = (platform("arm", None), platform("arm", Some("v7")));
    fixture.store.remember_pull(&debian, &arm, &image(b"a")).unwrap();
    fixture.store.remember_pull(&debian, &v7, &image(b"b")).unwrap();
    assert_eq!(fixture.store.recall_pull(&debian, &arm), Some(image(b"a")));
    assert_eq!(fixture.store.recall_pull(&debian, &v7), Some(image(b"b")));
    assert_eq!(fixture.store.recall_pull(&alpine, &arm), None);
    assert_eq!(fixture.store.recall_pull(&debian, &platform("armv7", None)), None);
}

#[test]
fn context_indexes_are_replaced_whole() {
    let fixture = Fixture::new();
    let id = crate::digest::ContentId::from_bytes([2; 32]);
    fixture.store.replace(&fixture.store.context_index_path(&id), b"one").unwrap();
    fixture.store.replace(&fixture.store.context_index_path(&id), b"two").unwrap();
    assert_eq!(std::fs::read(fixture.store.context_index_path(&id)).unwrap(), b"two");
    assert_eq!(names(&fixture.root().join("cache/contexts")), [id.hex()]);
}
