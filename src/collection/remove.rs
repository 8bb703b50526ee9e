//! Carries a choice out, and says what it came to.

use std::collections::{HashMap, HashSet};

use serde::Serialize;

use super::choose::{Policy, choose};
use super::inventory::{Inventory, Item, Kind};
use crate::store::{self, Collection, Size, Store, Taken, Used, Victim, What};

/// What went of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Freed {
    /// The kind.
    pub kind: Kind,
    /// How many things.
    pub count: usize,
    /// How many bytes came free.
    pub bytes: u64,
}

/// What a collection removed.
#[derive(Debug)]
pub struct Removed {
    /// By kind; kinds of which nothing went are left out.
    pub freed: Vec<Freed>,
    /// What is out of its place and waits to be deleted.
    pub taken: Taken,
    /// What could not be removed, and why. Nothing depends on it.
    pub failures: Vec<store::Error>,
}

/// What a policy would remove, by kind.
pub fn would_free(inventory: &Inventory, policy: &Policy) -> Vec<Freed> {
    tally(choose(inventory, policy).into_iter().map(|place| &inventory.items[place]))
}

/// Removes what a policy is after, as far as nobody needs it at the moment when it goes.
///
/// # Errors
/// What the operating system refused while layers, blobs and cache mounts were taken out of their places.
pub fn collect(
    store: &Store,
    collection: &Collection<'_>,
    inventory: &Inventory,
    policy: &Policy,
) -> Result<Removed, store::Error> {
    let chosen: Vec<&Item> = choose(inventory, policy).into_iter().map(|place| &inventory.items[place]).collect();
    let victims: Vec<Victim> = chosen.iter().filter_map(|item| victim(item)).collect();
    let taken = collection.take(&victims)?;
    let gone: HashSet<Used> = taken.what.iter().copied().collect();
    let mut failures = Vec::new();
    let mut removed = Vec::new();
    for item in chosen {
        let is_gone = match &item.content.what {
            What::Used(used) => gone.contains(used),
            // Its layer stayed, because somebody came to use it, or was made again.
            _ if item.needs.is_some_and(|layer| store.describe_layer(&layer).is_some()) => false,
            _ => store.remove_content(&item.content).unwrap_or_else(|error| {
                failures.push(error);
                false
            }),
        };
        if is_gone {
            removed.push(item);
        }
    }
    Ok(Removed { freed: tally(removed.into_iter()), taken, failures })
}

fn victim(item: &Item) -> Option<Victim> {
    match item.content.what {
        What::Used(what) => Some(Victim { what, last_use: item.content.last_use }),
        _ => None,
    }
}

fn tally<'a>(items: impl Iterator<Item = &'a Item>) -> Vec<Freed> {
    let mut removed = Size::default();
    let mut kinds: HashMap<Kind, Freed> = HashMap::new();
    for item in items {
        let freed = kinds.entry(item.kind).or_insert(Freed { kind: item.kind, count: 0, bytes: 0 });
        freed.count += 1;
        freed.bytes += removed.add(&item.size).freed;
    }
    Kind::ALL.iter().filter_map(|kind| kinds.get(kind).copied()).collect()
}
