//! What the store holds, what of it is needed, and how the rest goes.
//!
//! Takes a store and a policy; gives an [`Inventory`], and what a collection removed. Who chooses ([`choose`]) only looks
//! at values; who removes ([`collect`]) trusts the choice in nothing: the store itself makes sure that what a tag reaches
//! or a running build has pinned stays (`store/uses.rs`).
//!
//! # What is needed
//!
//! - What a tag of the local store reaches is never removed: manifest, configuration, layers unpacked and packed, and the
//!   step records of these layers, so that its own steps are found again. (Stages that only gave it files are not part of
//!   it, and may run again.)
//! - What a running build uses is never removed: layers, blobs, cache mounts, its record and logs.
//! - The documents of base images whose names are known stay, unless everything is to go: they are small, and without them
//!   the next build asks the network.
//!
//! Everything else can be made or fetched again. [`Scope`] says what of it a collection is after.
//!
//! # The order
//!
//! What was used longest ago goes first, whatever it is. That is a good order for what lies here, because a last use says
//! more than it seems to: a build uses every layer of its chain, so a chain grows old together, and the layer at its top,
//! on which nothing stands, is the oldest by a hair (`store/uses.rs`). A packed layer grows old as soon as it is unpacked,
//! while its tree is used in each build: so of the two the one goes first that can be fetched or compressed again. A step's
//! record goes with its layer, for without it it is a miss.
//!
//! # Automatic collection
//!
//! At the end of a build that added something, [`automatic`] compares an account of the store's size, which costs one read,
//! with the caps of the settings. Where they are exceeded it counts, and removes as much as it takes to be a tenth below
//! them. All of that happens after the build's answer is told and in a thread that nobody waits for longer than a moment;
//! what it leaves undone at the end of the process is swept by the next build.

mod automatic;
mod caps;
mod choose;
mod inventory;
mod remove;
mod usage;

pub use self::automatic::automatic;
pub use self::caps::Caps;
pub use self::choose::{Policy, Scope, choose};
pub use self::inventory::{Hold, Inventory, Item, Kind, Sizes};
pub use self::remove::{Freed, Removed, collect, would_free};
pub use self::usage::{Usage, usage};

#[cfg(test)]
mod tests;
