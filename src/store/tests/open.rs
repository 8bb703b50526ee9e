//! Opening, and refusing to open.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use super::*;

#[test]
fn makes_what_is_missing_and_nothing_else() {
    let fixture = Fixture::new();
    let made = ["builds", "cache", "index-copy", "layers", "locks", "mounts", "oci", "tmp", "version"];
    assert_eq!(names(&fixture.root()), made);
    assert_eq!(std::fs::read_to_string(fixture.root().join("version")).unwrap(), "2\n");
    for private in ["layers", "tmp", "cache"] {
        assert_eq!(fixture.root().join(private).metadata().unwrap().permissions().mode() & 0o777, 0o700, "{private}");
    }
    std::fs::remove_dir(fixture.root().join("mounts")).unwrap();
    std::fs::remove_file(fixture.root().join("oci/index.json")).unwrap();
    fixture.reopen();
    assert!(fixture.root().join("mounts").is_dir());
    assert!(fixture.root().join("oci/index.json").is_file());
}

#[test]
fn opening_again_writes_nothing() {
    let fixture = Fixture::new();
    drop(fixture.reopen());
    let before: Vec<_> =
        walk(&fixture.root()).into_iter().map(|path| path.metadata().unwrap().modified().unwrap()).collect();
    drop(fixture.reopen());
    let after: Vec<_> =
        walk(&fixture.root()).into_iter().map(|path| path.metadata().unwrap().modified().unwrap()).collect();
    assert_eq!(before, after);
}

#[test]
fn many_make_one_store() {
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("a/b/store");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let root = &root;
            scope.spawn(move || {
                let store = Store::open(root).unwrap();
                store.tag(&tag::reference("many", &number.to_string()), &tag::descriptor(Digest::of(b"x"))).unwrap();
            });
        }
    });
    assert_eq!(Store::open(&root).unwrap().tags().unwrap().len(), 8);
}

#[test]
fn goes_on_where_making_was_interrupted() {
    let directory = tempfile::tempdir().unwrap();
    for done in ["oci/blobs", "tmp/0123", "lost+found"] {
        std::fs::create_dir_all(directory.path().join(done)).unwrap();
    }
    Store::open(directory.path()).unwrap();
}

#[test]
fn refuses_what_is_no_store_of_ours() {
    let version = |text: &'static str| move |root: &Path| std::fs::write(root.join("version"), text).unwrap();
    type Spoil = Box<dyn Fn(&Path)>;
    let cases: [(&str, Spoil, &[&str]); 6] = [
        ("NewerSchema", Box::new(version("3\n")), &["version", "schema 3", "up to 2"]),
        ("UnknownSchema", Box::new(version("0\n")), &["version", "\"0\""]),
        ("UnknownSchema", Box::new(version("")), &["version", "\"\""]),
        ("UnknownSchema", Box::new(version("one")), &["version", "\"one\""]),
        ("NotAStore", Box::new(|root| std::fs::write(root.join("thesis.txt"), "").unwrap()), &["thesis.txt"]),
        ("NotADirectory", Box::new(|root| std::fs::write(root.join("tmp"), "").unwrap()), &["tmp"]),
    ];
    for (variant, spoil, words) in cases {
        let directory = tempfile::tempdir().unwrap();
        spoil(directory.path());
        let before = walk(directory.path());
        let error = Store::open(directory.path()).unwrap_err();
        assert!(format!("{error:?}").starts_with(variant), "{error:?}");
        for word in words.iter().chain([&"STRATA_ROOT"]) {
            assert!(error.to_string().contains(word), "{error} lacks {word}");
        }
        if variant != "NotADirectory" {
            assert_eq!(walk(directory.path()), before, "a store was strewn into {variant}");
        }
    }
}

#[test]
fn a_store_of_another_schema_is_rebuilt_and_keeps_what_cannot_be_made_again() {
    for text in ["1\n", "0\n", "", "\u{1}\u{2}", "one"] {
        let fixture = Fixture::new();
        let Fixture { store, .. } = &fixture;
        let (name, blob) = (tag::reference("a", "1"), store.put_blob(b"blob").unwrap());
        store.tag(&name, &tag::descriptor(blob)).unwrap();
        let layer = layer::publish(store, b"layer");
        let key = Key::from_bytes([1; 32]);
        store.write_record(Bucket::new("steps-v1"), &key, b"value").unwrap();
        std::fs::create_dir(fixture.root().join("mounts/m")).unwrap();
        drop(fixture.store.begin_build().unwrap());
        std::fs::write(fixture.root().join("version"), text).unwrap();
        // Who uses it may be of that schema.
        let share = fixture.store.share(&mut patient).unwrap();
        let error = Store::open(&fixture.root()).unwrap_err();
        assert!(matches!(error, Error::OlderInUse { .. }), "{error:?}");
        drop(share);

        let rebuilt = Store::open(&fixture.root()).unwrap();
        let damage = rebuilt.take_damage();
        assert!(matches!(&damage[..], [Damage::Schema { .. }]), "{damage:?}");
        assert_eq!(rebuilt.tagged(&name).unwrap(), Some(tag::descriptor(blob)));
        assert_eq!(rebuilt.read_blob(&blob).unwrap().as_deref(), Some(&b"blob"[..]));
        assert!(rebuilt.layer(&layer.diff_id).unwrap().is_none());
        assert!(rebuilt.read_record(Bucket::new("steps-v1"), &key).is_none());
        assert_eq!((fixture.count("mounts"), fixture.count("builds")), (1, 1));
        drop(rebuilt);
        assert!(fixture.reopen().take_damage().is_empty());
    }
}

#[test]
fn refuses_a_file_as_root_or_parent() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    for root in [file.clone(), file.join("store")] {
        let error = Store::open(&root).unwrap_err();
        assert!(matches!(error, Error::NotADirectory { .. }), "{error:?}");
    }
}

#[test]
fn says_who_may_not_write() {
    if !can("root, to become another user", is_root()) {
        return;
    }
    let fixture = Fixture::new();
    let open = |path: &Path| std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    open(fixture.directory.path());
    for root in [fixture.root(), fixture.directory.path().join("new")] {
        let status = respawn("stranger", &root).uid(65534).gid(65534).status().unwrap();
        assert!(status.success(), "{}", root.display());
    }
}

#[test]
fn says_that_a_file_system_is_read_only() {
    if !can("root, to mount a read-only file system", is_root()) {
        return;
    }
    let place = Tmpfs::mount(MountFlags::empty());
    drop(Store::open(place.path()).unwrap());
    rustix::mount::mount_remount(place.path(), MountFlags::RDONLY, c"").unwrap();
    let error = Store::open(place.path()).unwrap_err();
    assert!(matches!(error, Error::ReadOnly { .. }), "{error:?}");
}
