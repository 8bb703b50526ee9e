//! What a store takes on the disk, by kind, for people and programs.

use std::time::SystemTime;

use super::choose::{Policy, Scope};
use super::inventory::{Hold, Inventory, Item, Kind};
use super::remove::would_free;
use crate::store::{Size, What};

/// What one kind takes. All kinds together are what the file system says of the store's directory: a file with several names
/// counts once, for the first kind that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// The kind.
    pub kind: Kind,
    /// How many things; the store's own directories are none.
    pub count: usize,
    /// What they take, in bytes.
    pub size: u64,
    /// What of it something else needs, too: a tag reaches it, or it has further names, as in an exported layout.
    pub shared: u64,
    /// What would come free if everything went that nobody needs now.
    pub reclaimable: u64,
    /// When one of them was last used.
    pub last_use: Option<SystemTime>,
}

/// What each kind takes, in the order in which kinds are shown.
pub fn usage(inventory: &Inventory) -> Vec<Usage> {
    let everything = Policy { scope: Scope::Everything, before: None, keep: None };
    let freed = would_free(inventory, &everything);
    let mut all = Size::default();
    let of_kind = |kind| {
        let reclaimable = freed.iter().find(|freed| freed.kind == kind).map_or(0, |freed| freed.bytes);
        let mut usage = Usage { kind, count: 0, size: 0, shared: 0, reclaimable, last_use: None };
        for item in inventory.items.iter().filter(|item| item.kind == kind) {
            let new = all.add(&item.size).new;
            usage.size += new;
            usage.shared += item.shared().min(new);
            if item.content.what != What::Directory {
                usage.count += 1;
                if item.hold != Hold::Fixed {
                    usage.last_use = usage.last_use.max(Some(item.content.last_use));
                }
            }
        }
        usage
    };
    Kind::ALL.map(of_kind).to_vec()
}

impl Item {
    /// How many of its bytes something else needs, too.
    fn shared(&self) -> u64 {
        if self.hold == Hold::Tagged { self.size.bytes() } else { self.size.bytes() - self.size.freed() }
    }
}
