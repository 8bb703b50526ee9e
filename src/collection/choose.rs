//! Which things of a store go. Takes an inventory and a policy, gives places in the inventory; looks at nothing else, so
//! that its rules can be tested as values.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use super::inventory::{Hold, Inventory, Item, Kind};
use crate::digest::DiffId;
use crate::store::{Size, Used, What};

/// What a collection is after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// What `strata prune` removes: layers and blobs that nobody needs, with the records of these layers.
    Unneeded,
    /// What `strata prune --all` removes: also cache mounts, all other records, the documents of known base images, and what
    /// is kept of past builds.
    Everything,
    /// What is removed to stay below a cap: as `Everything`, without what is kept of past builds, which has bounds of its own.
    Cap,
}

/// What is to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// What the collection is after.
    pub scope: Scope,
    /// Only what was last used before this.
    pub before: Option<SystemTime>,
    /// Only as much as it takes for the whole store to take no more bytes than this.
    pub keep: Option<u64>,
}

/// Chooses the victims, in the order in which they are to go. Records whose layer is missing are always among them.
pub fn choose(inventory: &Inventory, policy: &Policy) -> Vec<usize> {
    let items = &inventory.items;
    let mut choice =
        Choice { items, chosen: Vec::new(), is_chosen: HashSet::new(), removed: Size::default(), freed: 0 };
    let layers: HashSet<DiffId> = items.iter().filter_map(layer).collect();
    let mut records: HashMap<DiffId, Vec<usize>> = HashMap::new();
    for (place, item) in items.iter().enumerate() {
        match item.needs {
            Some(layer) if !layers.contains(&layer) => choice.add(place),
            Some(layer) => records.entry(layer).or_default().push(place),
            None => {}
        }
    }
    let all = inventory.bytes();
    let mut candidates: Vec<usize> = (0..items.len()).filter(|&place| policy.is_after(&items[place])).collect();
    candidates.sort_by_key(|&place| (items[place].content.last_use, rank(items[place].kind), place));
    for place in candidates {
        if policy.keep.is_some_and(|keep| all - choice.freed <= keep) {
            break;
        }
        // What an exported layout has, too, would be lost, and make no room.
        if policy.keep.is_some() && items[place].size.freed() == 0 && items[place].size.bytes() > 0 {
            continue;
        }
        choice.add(place);
        for record in layer(&items[place]).and_then(|layer| records.get(&layer)).into_iter().flatten() {
            choice.add(*record);
        }
    }
    choice.chosen
}

impl Policy {
    /// Whether a thing may be chosen.
    fn is_after(&self, item: &Item) -> bool {
        let held = match item.hold {
            Hold::Free => false,
            Hold::Named => self.scope == Scope::Unneeded,
            Hold::Tagged | Hold::InUse | Hold::Fixed => true,
        };
        let is_old = self.before.is_none_or(|before| item.content.last_use < before);
        !held && is_old && self.scope.has(item)
    }
}

impl Scope {
    fn has(self, item: &Item) -> bool {
        match (item.kind, self) {
            (Kind::BaseLayers | Kind::BuiltLayers | Kind::Blobs, _) => true,
            // The record of a layer that stays is worth more than its few bytes.
            (Kind::Records, Self::Everything) => item.needs.is_none(),
            (Kind::CacheMounts, Self::Everything | Self::Cap) | (Kind::Records, Self::Cap) => true,
            (Kind::BuildLogs, Self::Everything) => true,
            (Kind::CacheMounts | Kind::Records | Kind::BuildLogs, _) | (Kind::Other, _) => false,
        }
    }
}

/// Of things last used at the same time the one goes first that costs least to have again.
const fn rank(kind: Kind) -> u8 {
    match kind {
        Kind::Blobs => 0,
        Kind::BaseLayers => 1,
        Kind::BuiltLayers => 2,
        Kind::BuildLogs => 3,
        Kind::Records => 4,
        Kind::CacheMounts => 5,
        Kind::Other => 6,
    }
}

fn layer(item: &Item) -> Option<DiffId> {
    match item.content.what {
        What::Used(Used::Layer(id)) => Some(id),
        _ => None,
    }
}

struct Choice<'a> {
    items: &'a [Item],
    chosen: Vec<usize>,
    is_chosen: HashSet<usize>,
    removed: Size,
    freed: u64,
}

impl Choice<'_> {
    fn add(&mut self, place: usize) {
        if self.is_chosen.insert(place) {
            self.chosen.push(place);
            self.freed += self.removed.add(&self.items[place].size).freed;
        }
    }
}

#[cfg(test)]
mod tests;
