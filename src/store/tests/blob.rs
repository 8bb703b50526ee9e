//! Blobs: complete or absent, never wrong.

use std::io::Write;
use std::os::unix::fs::MetadataExt;

use super::*;

fn spoil(path: &Path, bytes: &[u8]) {
    // A blob is not writable, and may be missing.
    let _ = std::fs::remove_file(path);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn gives_back_what_was_put() {
    let fixture = Fixture::new();
    for bytes in [&b""[..], b"{}", &[7; 1_000_000]] {
        let digest = fixture.store.put_blob(bytes).unwrap();
        assert_eq!(digest, Digest::of(bytes));
        assert_eq!(fixture.reopen().read_blob(&digest).unwrap().as_deref(), Some(bytes));
        assert!(fixture.store.verify_blob(&digest).unwrap());
        assert_eq!(std::fs::read(fixture.store.blob_path(&digest).unwrap()).unwrap(), bytes);
    }
    let absent = Digest::of(b"absent");
    assert_eq!(fixture.store.read_blob(&absent).unwrap(), None);
    assert_eq!(fixture.store.blob_path(&absent), None);
    assert!(!fixture.store.verify_blob(&absent).unwrap());
}

#[test]
fn takes_only_what_was_announced() {
    let fixture = Fixture::new();
    let (right, wrong) = (Digest::of(b"content"), Digest::of(b"other"));
    for (digest, size, fits) in [(right, 7, true), (right, 8, false), (wrong, 7, false)] {
        let mut writer = fixture.store.blob_writer().unwrap();
        writer.write_all(b"con").unwrap();
        writer.write_all(b"tent").unwrap();
        match writer.commit(Some((&digest, size))) {
            Ok(found) => assert!(fits && found == (right, 7)),
            Err(Error::Mismatch { found, found_size, .. }) => assert!(!fits && (found, found_size) == (right, 7)),
            Err(other) => panic!("{other:?}"),
        }
    }
    assert_eq!(names(&fixture.root().join("oci/blobs/sha256")), [right.hex()]);
}

#[test]
fn a_dropped_writer_leaves_nothing() {
    let fixture = Fixture::new();
    let mut writer = fixture.store.blob_writer().unwrap();
    writer.write_all(&[0; 500_000]).unwrap();
    drop(writer);
    assert_eq!(fixture.count("oci/blobs/sha256"), 0);
    assert!(walk(&fixture.root().join("tmp")).iter().all(|path| path.is_dir()));
}

#[test]
fn a_damaged_blob_is_missing_told_once_and_healed() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let digest = store.put_blob(b"content").unwrap();
    let path = store.blob_path(&digest).unwrap();
    for damaged in [&b"contenT"[..], b"cont", b"", b"content and more"] {
        for verify in [false, true] {
            spoil(&path, damaged);
            if verify {
                assert!(!store.verify_blob(&digest).unwrap());
            } else {
                assert_eq!(store.read_blob(&digest).unwrap(), None);
            }
            assert_eq!(store.blob_path(&digest), None);
            assert_eq!(store.read_blob(&digest).unwrap(), None);
            assert_eq!(store.take_damage(), [Damage::Blob { digest }]);
            assert_eq!(store.take_damage(), []);
        }
        spoil(&path, damaged);
        assert_eq!(store.put_blob(b"content").unwrap(), digest);
        assert_eq!(store.read_blob(&digest).unwrap().as_deref(), Some(&b"content"[..]));
        assert_eq!(store.take_damage(), [Damage::Blob { digest }]);
    }
}

#[test]
fn one_blob_from_many_threads() {
    let fixture = Fixture::new();
    let bytes = vec![3; 200_000];
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| (0..10).for_each(|_| assert!(fixture.store.put_blob(&bytes).is_ok())));
        }
    });
    assert!(fixture.store.verify_blob(&Digest::of(&bytes)).unwrap());
    assert_eq!(fixture.store.take_damage(), []);
}

#[test]
fn links_a_blob_out() {
    let fixture = Fixture::new();
    let digest = fixture.store.put_blob(b"content").unwrap();
    let outside = fixture.directory.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let dest = outside.join("blob");
    for _ in 0..2 {
        assert_eq!(fixture.store.link_blob(&digest, &dest).unwrap(), Linked::HardLink);
        assert_eq!(names(&outside), ["blob"]);
    }
    assert_eq!(dest.metadata().unwrap().ino(), fixture.store.blob_path(&digest).unwrap().metadata().unwrap().ino());
    std::fs::remove_file(&dest).unwrap();
    std::fs::write(&dest, "something else").unwrap();
    fixture.store.link_blob(&digest, &dest).unwrap();
    assert_eq!(std::fs::read(&dest).unwrap(), b"content");

    let error = fixture.store.link_blob(&Digest::of(b"absent"), &dest).unwrap_err();
    assert!(matches!(error, Error::NoBlob { .. }), "{error:?}");
    let error = fixture.store.link_blob(&digest, &outside.join("no/such/place")).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error:?}");
}

#[test]
fn copies_a_blob_to_another_file_system() {
    if !can("root, to mount another file system", is_root()) {
        return;
    }
    let fixture = Fixture::new();
    let place = Tmpfs::mount(MountFlags::empty());
    let digest = fixture.store.put_blob(b"content").unwrap();
    assert_eq!(fixture.store.link_blob(&digest, &place.path().join("blob")).unwrap(), Linked::Copy);
    assert_eq!(names(place.path()), ["blob"]);
    assert_eq!(std::fs::read(place.path().join("blob")).unwrap(), b"content");
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing() {
    if !can("root, to mount a small file system", is_root()) {
        return;
    }
    let place = Tmpfs::mount(MountFlags::empty());
    let store = Store::open(place.path()).unwrap();
    let small = store.put_blob(b"before").unwrap();
    let mut writer = store.blob_writer().unwrap();
    let error = loop {
        if let Err(error) = writer.write_all(&[5; 64 * 1024]) {
            break error;
        }
    };
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    assert!(error.to_string().contains("STRATA_ROOT"), "{error}");
    let full = error.downcast::<Error>().unwrap();
    assert!(matches!(full, Error::Full { free: 0..1_000_000, .. }), "{full:?}");

    let key = Key::from_bytes([1; 32]);
    let bucket = Bucket::new("steps-v1");
    let error = store.write_record(bucket, &key, &[9; 2_000_000]).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    assert_eq!(store.read_record(bucket, &key), None);
    drop(writer);

    let after = store.put_blob(b"after").unwrap();
    assert_eq!(names(&place.path().join("oci/blobs/sha256")).len(), 2);
    assert!(store.verify_blob(&small).unwrap() && store.verify_blob(&after).unwrap());
    drop(store);
    assert_eq!(names(&place.path().join("tmp")).len(), 0);
}

#[test]
fn a_full_disk_cannot_make_a_store() {
    if !can("root, to mount a small file system", is_root()) {
        return;
    }
    let place = Tmpfs::mount(MountFlags::empty());
    let _ = std::fs::write(place.path().join("lost+found"), vec![0; 2_000_000]);
    let error = Store::open(place.path()).unwrap_err();
    assert!(matches!(error, Error::Full { .. }), "{error:?}");
    std::fs::remove_file(place.path().join("lost+found")).unwrap();
    Store::open(place.path()).unwrap();
}
