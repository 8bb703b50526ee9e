use std::io::{Read, Write};

use super::*;

#[test]
fn a_build_is_found_again_and_known_to_run() {
    let fixture = Fixture::new();
    let build = fixture.store.begin_build().unwrap();
    build.note(b"one").unwrap();
    build.log(3).unwrap().write_all(b"output").unwrap();
    let stored = fixture.store.builds().unwrap();
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].id, *build.id());
    assert!(stored[0].is_running() && stored[0].is_running());
    build.note(b"two").unwrap();
    assert_eq!(stored[0].record(), b"one\ntwo\n");
    let mut text = String::new();
    stored[0].log(3).unwrap().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "output");
    assert!(stored[0].log(4).unwrap().is_none());
    drop(build);
    assert!(!stored[0].is_running());
}

#[test]
fn the_oldest_go_and_running_ones_stay() {
    let fixture = Fixture::new();
    let make = |age: u64| {
        let build = fixture.store.begin_build().unwrap();
        build.note(b"{}").unwrap();
        let record = fixture.store.layout.build(build.id()).join("build.jsonl");
        let time = std::time::SystemTime::now() - std::time::Duration::from_secs(age);
        std::fs::File::options().append(true).open(record).unwrap().set_modified(time).unwrap();
        build
    };
    let running = make(1000);
    let ended: Vec<BuildId> = [10, 20, 30, 40].map(|age| make(age).id().clone()).to_vec();
    let left = |kept: Kept, written: u64| {
        fixture.store.trim_builds(kept, written).unwrap();
        let mut left: Vec<BuildId> = fixture.store.builds().unwrap().into_iter().map(|build| build.id).collect();
        left.sort();
        left
    };
    let expected = |ids: &[&BuildId]| {
        let mut ids: Vec<BuildId> = ids.iter().map(|id| (*id).clone()).collect();
        ids.sort();
        ids
    };
    let (many, huge) = (usize::MAX, u64::MAX);
    assert_eq!(left(Kept { builds: 5, bytes: huge }, 0).len(), 5);
    assert_eq!(left(Kept { builds: 3, bytes: huge }, 0), expected(&[&ended[0], &ended[1], &ended[2], running.id()]));
    // Each record has three bytes.
    assert_eq!(left(Kept { builds: many, bytes: 6 }, 3), left(Kept { builds: many, bytes: huge }, huge));
    assert_eq!(left(Kept { builds: many, bytes: 6 }, 7), expected(&[&ended[0], &ended[1], running.id()]));
    assert_eq!(left(Kept { builds: 0, bytes: 0 }, huge), expected(&[&ended[0], running.id()]));
    (100..109).for_each(|age| drop(make(age)));
    assert_eq!(left(Kept { builds: 11, bytes: huge }, 0).len(), 11);
    assert_eq!(left(Kept { builds: 10, bytes: huge }, 0).len(), 10, "nine, and one that runs");
}
