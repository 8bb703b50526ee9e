//! Pins against collections: between threads, between processes, and after a death.

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use super::*;
use crate::digest::ContentId;

fn victim(what: Used) -> Victim {
    Victim { what, last_use: SystemTime::now() + Duration::from_secs(3600) }
}

/// Takes everything away that may go.
fn collect(store: &Store) -> Vec<Used> {
    let mut victims: Vec<_> = store.layers().unwrap().into_iter().map(|id| victim(Used::Layer(id))).collect();
    for name in names(&store.layout.blobs()) {
        victims.push(victim(Used::Blob(format!("sha256:{name}").parse().unwrap())));
    }
    for name in names(&store.mounts()) {
        victims.push(victim(Used::Mount(format!("blake3:{name}").parse().unwrap())));
    }
    let taken = store.await_collection().unwrap().take(&victims).unwrap();
    let what = taken.what.clone();
    taken.delete().unwrap();
    what
}

fn leases(fixture: &Fixture) -> usize {
    names(&fixture.root().join("locks")).iter().filter(|name| name.starts_with("uses-")).count()
}

fn impatient(_: &LockOwner) -> ControlFlow<()> {
    ControlFlow::Break(())
}

#[test]
fn what_a_process_found_or_made_stays_until_its_share_ends() {
    let fixture = Fixture::new();
    let (build, other) = (fixture.reopen(), &fixture.store);
    let old = layer::publish(other, b"old").diff_id;
    let idle = layer::publish(other, b"idle").diff_id;
    let document = other.put_blob(b"document").unwrap();
    let mount = ContentId::from_bytes([9; 32]);
    std::fs::create_dir_all(other.mounts().join(mount.hex()).join("0")).unwrap();

    let share = build.share(&mut impatient).unwrap();
    assert!(build.layer(&old).unwrap().is_some());
    let made = layer::publish(&build, b"made").diff_id;
    let blob = build.put_blob(b"blob").unwrap();
    assert!(build.blob_path(&document).is_some());
    build.pin_mount(mount).unwrap();
    assert_eq!(collect(other), [Used::Layer(idle)]);
    assert_eq!(other.layers().unwrap().len(), 2);

    // A second share in the process keeps them, too.
    let second = build.share(&mut impatient).unwrap();
    drop(share);
    assert_eq!(collect(other), []);
    assert!(build.layer(&old).unwrap().is_some(), "found again");
    drop(second);
    assert_eq!(leases(&fixture), 0);
    let mut all = vec![Used::Layer(old), Used::Layer(made), Used::Blob(blob), Used::Blob(document), Used::Mount(mount)];
    let mut gone = collect(other);
    all.sort_unstable();
    gone.sort_unstable();
    assert_eq!(gone, all);
    assert!(build.layer(&old).unwrap().is_none());
    assert_eq!(fixture.count("layers") + fixture.count("mounts") + fixture.count("oci/blobs/sha256"), 0);
    assert_eq!(names(&fixture.root().join("tmp")).len(), 2, "those of the two stores");
}

#[test]
fn what_a_tag_reaches_stays() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let name = tag::reference("a", "1");
    let below = layer::publish(store, b"below").diff_id;
    let packed = store.put_blob(b"packed").unwrap();
    tag::image_of(store, &name, &[below], &[packed]);
    layer::publish(store, b"loose");
    assert_eq!(collect(store).len(), 1);
    assert!(store.layer(&below).unwrap().is_some());
    assert_eq!(fixture.count("oci/blobs/sha256"), 3);
    store.remove_image(&name).unwrap();
    assert_eq!(collect(store).len(), 2);
    assert_eq!(fixture.count("oci/blobs/sha256") + fixture.count("layers"), 0);
}

#[test]
fn what_was_used_since_it_was_seen_stays() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let id = layer::publish(store, b"x").diff_id;
    let seen = Victim { what: Used::Layer(id), last_use: SystemTime::now() - Duration::from_secs(60) };
    let collection = store.await_collection().unwrap();
    assert!(store.begin_collection().unwrap().is_none(), "one at a time");
    assert_eq!(collection.take(&[seen]).unwrap().what, []);
    assert_eq!(collection.take(&[victim(seen.what)]).unwrap().what, [seen.what]);
}

#[test]
fn an_index_that_nobody_understands_keeps_everything() {
    let fixture = Fixture::new();
    layer::publish(&fixture.store, b"x");
    std::fs::write(fixture.root().join("oci/index.json"), r#"{"manifests":[{"what":"is this"}]}"#).unwrap();
    let victims: Vec<_> = fixture.store.layers().unwrap().into_iter().map(|id| victim(Used::Layer(id))).collect();
    let outcome = fixture.store.await_collection().unwrap().take(&victims);
    assert!(matches!(outcome, Err(Error::UnknownEntry { .. })), "{outcome:?}");
    assert_eq!(fixture.count("layers"), 1);
}

#[test]
fn a_dead_process_keeps_nothing() {
    let fixture = Fixture::new();
    let mut process = respawn("die", &fixture.root()).spawn().unwrap();
    wait_for(&fixture.directory.path().join("ready"));
    assert_eq!(collect(&fixture.store), [], "it lives");
    assert!(!fixture.store.has_dead_leases());
    process.kill().unwrap();
    process.wait().unwrap();
    assert!(fixture.store.has_leftovers());
    assert_eq!(collect(&fixture.store), [Used::Layer(layer::id(b"killed"))]);
    assert_eq!(leases(&fixture), 1);
    drop(fixture.store.sweep().unwrap().wait());
    assert_eq!(leases(&fixture), 0);
}

#[test]
fn nobody_finds_what_is_being_taken() {
    // Threads look up and make the same layers that others take away: what was found is there as long as the share lives.
    let fixture = Fixture::new();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let collector = scope.spawn(|| {
            let store = fixture.reopen();
            let mut taken = 0;
            while !done.load(Ordering::SeqCst) {
                taken += collect(&store).len();
            }
            taken
        });
        let builders: Vec<_> = (0..3_u8)
            .map(|_| {
                scope.spawn(|| {
                    let store = fixture.reopen();
                    for round in 0..60_u8 {
                        let share = store.share(&mut patient).unwrap();
                        for number in 0..4_u8 {
                            let content = [round % 2, number];
                            let found = match store.layer(&layer::id(&content)).unwrap() {
                                Some(found) => found,
                                None => layer::publish(&store, &content),
                            };
                            std::thread::yield_now();
                            assert_eq!(std::fs::read(found.tree.join("file")).unwrap(), content);
                        }
                        drop(share);
                    }
                })
            })
            .collect();
        let outcomes: Vec<_> = builders.into_iter().map(|builder| builder.join().is_ok()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(collector.join().unwrap() > 0);
        assert!(outcomes.iter().all(|fine| *fine));
    });
}

#[test]
fn a_full_disk_keeps_everything() {
    if !can("root, to mount a small file system", is_root()) {
        return;
    }
    let place = Tmpfs::mount(MountFlags::empty());
    let store = Store::open(place.path()).unwrap();
    let id = layer::publish(&store, b"x").diff_id;
    let share = store.share(&mut patient).unwrap();
    let filler = place.path().join("filler");
    drop(std::fs::write(&filler, vec![0; 2 << 20]));
    assert!(store.layer(&id).unwrap().is_some(), "a build that makes nothing goes on");
    let other = Store::open(place.path()).unwrap();
    assert!(other.try_own_lock("uses").unwrap().is_none(), "the gate is held instead");
    drop(share);
    assert!(other.try_own_lock("uses").unwrap().is_some());
}

#[test]
fn a_disk_without_room_for_a_directory_is_collected() {
    if !can("root, to mount a small file system", is_root()) {
        return;
    }
    let place = Tmpfs::mount_with(MountFlags::empty(), c"size=1m,nr_inodes=60,mode=0755");
    let store = Store::open(place.path()).unwrap();
    let old = layer::publish(&store, b"old").diff_id;
    let blob = store.put_blob(b"blob").unwrap();
    drop(store.await_collection().unwrap());
    drop(store.gate().unwrap());
    drop(store);
    for number in 0.. {
        if std::fs::create_dir(place.path().join(format!("tmp/{number}"))).is_err() {
            break;
        }
    }
    let store = Store::open(place.path()).unwrap();
    let mut gone = collect(&store);
    gone.sort_unstable();
    assert_eq!(gone, [Used::Layer(old), Used::Blob(blob)]);
    assert!(store.layers().unwrap().is_empty() && store.blob_path(&blob).is_none());
}

#[test]
fn times_follow_use_and_lower_layers_are_the_younger() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let ids: Vec<_> = [b"a", b"b", b"c"].iter().map(|content| layer::publish(store, *content).diff_id).collect();
    let record = Bucket::new("steps-v1");
    let key = Key::from_bytes([3; 32]);
    store.write_record(record, &key, b"value").unwrap();
    let used = |path: PathBuf| path.metadata().unwrap().modified().unwrap();
    let age = |path: &Path, age: u64| {
        let file = std::fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
    };
    let time = |id: &DiffId| used(store.layout.layer_meta(id));
    ids.iter().for_each(|id| age(&store.layout.layer_meta(id), 300));
    age(&store.layout.record(record, &key), 7200);
    let before = time(&ids[0]);
    store.layer(&ids[0]).unwrap();
    assert_eq!(time(&ids[0]), before, "only a share notes what is used");

    let start = SystemTime::now();
    let share = store.share(&mut impatient).unwrap();
    for id in &ids {
        store.layer(id).unwrap();
    }
    assert!(store.read_record(record, &key).is_some());
    assert_eq!(time(&ids[0]), before, "not in the middle of the work");
    drop(share);
    assert!(time(&ids[0]) > time(&ids[1]) && time(&ids[1]) > time(&ids[2]));
    assert!(time(&ids[0]) >= start && used(store.layout.record(record, &key)) > before);

    // What was used a moment ago is left as it is.
    let times: Vec<_> = ids.iter().map(time).collect();
    let share = store.share(&mut impatient).unwrap();
    store.layer(&ids[2]).unwrap();
    drop(share);
    assert_eq!(ids.iter().map(time).collect::<Vec<_>>(), times);
}
