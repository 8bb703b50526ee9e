//! Collections of a real store. What a running process keeps is tested with the store.

use std::time::{Duration, SystemTime};

use tempfile::TempDir;

use super::*;
use crate::cache::key::Fields;
use crate::cache::record::{Below, Record};
use crate::cache::{self, Found};
use crate::digest::{DiffId, Digest, Key};
use crate::store::{LayerMeta, Origin, Store};

struct Place {
    _directory: TempDir,
    store: Store,
}

fn key(number: u8) -> Key {
    Key::from_bytes([number; 32])
}

fn id(number: u8) -> DiffId {
    Digest::of(&[number]).into()
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        Self { _directory: directory, store }
    }

    /// A step's layer of so many KiB, and its record.
    fn step(&self, number: u8, kibibytes: usize) {
        let scratch = self.store.scratch().unwrap();
        let tree = scratch.dir("tree").unwrap();
        std::fs::write(tree.join("file"), vec![number; kibibytes << 10]).unwrap();
        let meta = LayerMeta {
            tar_size: 0,
            entries: 1,
            disk: crate::store::allocated(&tree),
            origin: Origin::Built { key: key(number) },
            clamp: None,
            forms: Vec::new(),
            implied: Vec::new(),
        };
        self.store.publish_layer(&id(number), &tree, meta).unwrap();
        self.remember(number);
    }

    fn remember(&self, number: u8) {
        let record = Record {
            fields: Fields::default(),
            layer: id(number),
            created: 0,
            made: 0,
            elapsed_ms: 0,
            step: "RUN".to_owned(),
            below: Below::Scratch,
            made_by: None,
        };
        cache::remember(&self.store, &key(number), &record).unwrap();
    }

    fn inventory(&self) -> Inventory {
        Inventory::take(&self.store, Sizes::Exact).unwrap()
    }

    fn collect(&self, inventory: &Inventory, policy: &Policy) -> Vec<Freed> {
        let collection = self.store.await_collection().unwrap();
        let removed = collect(&self.store, &collection, inventory, policy).unwrap();
        assert!(removed.failures.is_empty(), "{:?}", removed.failures);
        removed.taken.delete().unwrap();
        removed.freed
    }

    fn on_disk(&self) -> u64 {
        crate::store::allocated(self.store.root())
    }

    fn knows(&self, number: u8) -> bool {
        matches!(cache::lookup(&self.store, &key(number)), Found::Layer(_))
    }
}

const UNNEEDED: Policy = Policy { scope: Scope::Unneeded, before: None, keep: None };

#[test]
fn a_layer_goes_with_its_record_and_the_sum_is_right() {
    let place = Place::new();
    place.step(1, 100);
    place.step(2, 10);
    let inventory = place.inventory();
    assert_eq!(inventory.bytes(), place.on_disk());
    assert_eq!(usage(&inventory).iter().map(|usage| usage.size).sum::<u64>(), place.on_disk());
    let told = would_free(&inventory, &UNNEEDED);
    let before = place.on_disk();
    let freed = place.collect(&inventory, &UNNEEDED);
    assert_eq!(told, freed);
    let counts: Vec<_> = freed.iter().map(|freed| (freed.kind, freed.count)).collect();
    assert_eq!(counts, [(Kind::BuiltLayers, 2), (Kind::Records, 2)]);
    let left = place.on_disk();
    assert_eq!(before - left, freed.iter().map(|freed| freed.bytes).sum::<u64>());
    assert!(!place.knows(1) && !place.knows(2));
    assert!(place.inventory().items.iter().all(|item| item.hold == Hold::Fixed || item.hold == Hold::InUse));
}

#[test]
fn what_was_made_again_meanwhile_stays() {
    let place = Place::new();
    place.step(1, 1);
    place.step(2, 1);
    place.remember(3);
    let seen = place.inventory();
    // Seen without its layer; the layer comes before the record goes.
    place.step(3, 1);
    // Used since it was seen.
    let share = place.store.share(&mut |_| std::ops::ControlFlow::Break(())).unwrap();
    assert!(place.knows(2));
    let freed = place.collect(&seen, &UNNEEDED);
    let counts: Vec<_> = freed.iter().map(|freed| (freed.kind, freed.count)).collect();
    assert_eq!(counts, [(Kind::BuiltLayers, 1), (Kind::Records, 1)]);
    drop(share);
    assert!(!place.knows(1) && place.knows(2) && place.knows(3));
}

#[test]
fn it_is_time_when_the_account_says_so() {
    let place = Place::new();
    let caps = |kibibytes: u64| Caps {
        most: Some(crate::units::Amount::Bytes(kibibytes << 10)),
        free: None,
        reserved: crate::units::Amount::Bytes(0),
    };
    let automatic = |kibibytes| automatic(&place.store, &caps(kibibytes), Duration::from_secs(60)).unwrap();
    assert_eq!(place.store.estimate(), None, "nobody counted");
    automatic(1);
    assert_eq!(place.store.estimate(), None, "nothing was added, so nobody looks");
    place.step(1, 400);
    automatic(10_000);
    let counted = place.store.estimate().unwrap();
    assert!(counted.abs_diff(place.on_disk()) < 64 << 10, "{counted}");
    std::thread::sleep(Duration::from_millis(20));
    place.step(2, 400);
    automatic(10_000);
    assert!(place.knows(1) && place.store.estimate().unwrap() > counted + (300 << 10));
    std::thread::sleep(Duration::from_millis(20));
    place.step(3, 400);
    let used = place.on_disk() >> 10;
    automatic(used - 100);
    assert!(!place.knows(1), "the oldest goes");
    assert!(place.knows(2) && place.knows(3), "and no more than has to");
    assert!(place.store.estimate().unwrap() >> 10 < used - 100);
    let old = Policy { before: SystemTime::now().checked_sub(Duration::from_secs(3600)), ..UNNEEDED };
    assert_eq!(would_free(&place.inventory(), &old), []);
}

#[test]
fn what_makes_no_room_stays_below_a_cap() {
    let place = Place::new();
    let blob = place.store.put_blob(&vec![1; 100 << 10]).unwrap();
    place.store.link_blob(&blob, &place.store.root().join("../exported")).unwrap();
    place.step(1, 10);
    let inventory = place.inventory();
    let none = Policy { scope: Scope::Cap, before: None, keep: Some(0) };
    let kinds = |policy| would_free(&inventory, &policy).iter().map(|freed| freed.kind).collect::<Vec<_>>();
    assert_eq!(kinds(none), [Kind::BuiltLayers, Kind::Records]);
    assert_eq!(kinds(UNNEEDED), [Kind::BuiltLayers, Kind::Blobs, Kind::Records]);
    let blobs = usage(&inventory).into_iter().find(|usage| usage.kind == Kind::Blobs).unwrap();
    assert!(blobs.shared >= 100 << 10 && blobs.reclaimable == 0, "{blobs:?}");
}
