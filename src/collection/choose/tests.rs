//! The choice, over made-up inventories.

use std::path::PathBuf;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::digest::{ContentId, Digest};
use crate::store::Content;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn item(number: u8, kind: Kind, bytes: u64, used: u64, hold: Hold, needs: Option<u8>) -> Item {
    let id = |number: u8| Digest::from_bytes([number; 32]);
    let what = match kind {
        Kind::BaseLayers | Kind::BuiltLayers => What::Used(Used::Layer(id(number).into())),
        Kind::Blobs => What::Used(Used::Blob(id(number))),
        Kind::CacheMounts => What::Used(Used::Mount(ContentId::from_bytes([number; 32]))),
        Kind::Records => What::Record("steps-v1".to_owned()),
        Kind::BuildLogs => What::Build { id: number.to_string(), is_running: hold == Hold::InUse },
        Kind::Other => What::Other,
    };
    let content = Content { what, path: PathBuf::from(number.to_string()), last_use: at(used) };
    let needs = needs.map(|number| id(number).into());
    Item { content, kind, size: Size::estimate(bytes), hold, needs }
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop::sample::select(Kind::ALL.to_vec())
}

fn holds() -> impl Strategy<Value = Hold> {
    prop_oneof![
        4 => Just(Hold::Free),
        1 => Just(Hold::Named),
        1 => Just(Hold::Tagged),
        1 => Just(Hold::InUse),
    ]
}

fn inventories() -> impl Strategy<Value = Inventory> {
    let one = (kinds(), 0..1000_u64, 0..20_u64, holds(), prop::option::of(0..30_u8));
    prop::collection::vec(one, 0..30).prop_map(|all| {
        let numbered = all.into_iter().zip(0..).map(|((kind, bytes, used, hold, needs), number)| {
            let needs = needs.filter(|_| kind == Kind::Records);
            let hold = if kind == Kind::Other { Hold::Fixed } else { hold };
            // A record is held by what holds its layer, and only a blob by a name.
            let hold = if needs.is_some() || (hold == Hold::Named && kind != Kind::Blobs) { Hold::Free } else { hold };
            item(number, kind, bytes, used, hold, needs)
        });
        Inventory { items: numbered.collect() }
    })
}

fn policies() -> impl Strategy<Value = Policy> {
    let scope = prop::sample::select(vec![Scope::Unneeded, Scope::Everything, Scope::Cap]);
    (scope, prop::option::of(0..20_u64), prop::option::of(0..20_000_u64)).prop_map(|(scope, before, keep)| Policy {
        scope,
        before: before.map(at),
        keep,
    })
}

proptest! {
    #[test]
    fn nothing_that_is_held_goes_and_nothing_twice(inventory in inventories(), policy in policies()) {
        let chosen = choose(&inventory, &policy);
        let different: HashSet<_> = chosen.iter().collect();
        prop_assert_eq!(different.len(), chosen.len());
        for place in chosen {
            let Item { hold, kind, .. } = inventory.items[place];
            prop_assert!(matches!(hold, Hold::Free | Hold::Named), "{:?}", hold);
            prop_assert!(hold == Hold::Free || policy.scope != Scope::Unneeded);
            prop_assert!(kind != Kind::CacheMounts || policy.scope != Scope::Unneeded);
        }
    }

    #[test]
    fn a_cap_is_met_where_it_can_be_and_no_more_goes_than_it_takes(inventory in inventories(), policy in policies()) {
        let chosen = choose(&inventory, &policy);
        let size = |places: &[usize]| places.iter().map(|&place| inventory.items[place].size.bytes()).sum::<u64>();
        let left = inventory.bytes() - size(&chosen);
        let everything = choose(&inventory, &Policy { keep: None, ..policy });
        prop_assert!(everything.starts_with(&chosen), "a smaller cap only goes on");
        if let Some(keep) = policy.keep {
            prop_assert!(left <= keep || chosen.len() == everything.len());
            // Without the last victim (and the records that go with it) it would not be met.
            let is_layer = |place: &usize| inventory.items[*place].needs.is_none();
            if let Some(last) = chosen.iter().rposition(is_layer) {
                prop_assert!(inventory.bytes() - size(&chosen[..last]) > keep);
            }
        }
    }

    #[test]
    fn what_was_used_longest_ago_goes_first(inventory in inventories(), policy in policies()) {
        let chosen = choose(&inventory, &policy);
        let by_age: Vec<_> = chosen
            .iter()
            .map(|&place| &inventory.items[place])
            .filter(|item| item.needs.is_none())
            .map(|item| item.content.last_use)
            .collect();
        prop_assert!(by_age.is_sorted());
        let youngest = by_age.last().copied();
        for (place, item) in inventory.items.iter().enumerate() {
            let stays = !chosen.contains(&place) && policy.is_after(item);
            prop_assert!(!stays || youngest.is_none_or(|youngest| item.content.last_use >= youngest));
        }
        if let Some(before) = policy.before {
            prop_assert!(by_age.iter().all(|last_use| *last_use < before));
        }
    }

    #[test]
    fn a_record_is_never_left_without_its_layer(inventory in inventories(), policy in policies()) {
        let chosen: HashSet<_> = choose(&inventory, &policy).into_iter().collect();
        let left: HashSet<_> = (0..inventory.items.len())
            .filter(|place| !chosen.contains(place))
            .filter_map(|place| layer(&inventory.items[place]))
            .collect();
        for (place, item) in inventory.items.iter().enumerate() {
            let whole = chosen.contains(&place) || item.needs.is_none_or(|layer| left.contains(&layer));
            prop_assert!(whole);
        }
    }
}

#[test]
fn scopes() {
    let items = vec![
        item(0, Kind::BuiltLayers, 1, 1, Hold::Free, None),
        item(1, Kind::Records, 1, 9, Hold::Free, Some(0)),
        item(2, Kind::BuiltLayers, 1, 1, Hold::Tagged, None),
        item(3, Kind::Records, 1, 1, Hold::Tagged, Some(2)),
        item(4, Kind::Blobs, 1, 2, Hold::Named, None),
        item(5, Kind::CacheMounts, 1, 3, Hold::Free, None),
        item(6, Kind::Records, 1, 4, Hold::Free, None),
        item(7, Kind::BuildLogs, 1, 5, Hold::Free, None),
        item(8, Kind::Records, 1, 9, Hold::Free, Some(99)),
        item(9, Kind::Blobs, 1, 6, Hold::InUse, None),
    ];
    let inventory = Inventory { items };
    for (scope, expected) in [
        (Scope::Unneeded, vec![8, 0, 1]),
        (Scope::Everything, vec![8, 0, 1, 4, 5, 6, 7]),
        (Scope::Cap, vec![8, 0, 1, 4, 5, 6]),
    ] {
        assert_eq!(choose(&inventory, &Policy { scope, before: None, keep: None }), expected, "{scope:?}");
    }
    let cap = Policy { scope: Scope::Cap, before: None, keep: Some(8) };
    assert_eq!(choose(&inventory, &cap), [8, 0, 1]);
    let old = Policy { scope: Scope::Cap, before: Some(at(3)), keep: None };
    assert_eq!(choose(&inventory, &old), [8, 0, 1, 4]);
}
