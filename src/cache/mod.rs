//! Have we done this before?
//!
//! Takes a step's key, gives the layer that it made the last time, or a miss. Never required: anything wrong with a
//! record, or with the layer it names, is a miss and never a failed build.

pub mod difference;
pub mod history;
pub mod key;
pub mod listing;
pub mod record;

use std::ops::ControlFlow;

use crate::digest::{ContentId, DiffId, Key};
use crate::store::{Bucket, Store};

use history::{History, Run};
use listing::Listing;
use record::Record;

/// What steps made, by their keys.
pub const STEPS: Bucket = Bucket::new("steps-v1");
const SELECTIONS: Bucket = Bucket::new("selections-v1");
const LISTINGS: Bucket = Bucket::new("listings-v1");
const HISTORY: Bucket = Bucket::new("history-v1");

/// What the cache says of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// Its layer is there.
    Layer(Box<Record>),
    /// Its layer was made, and is not in the store any more.
    Gone(Box<Record>),
    /// Nothing is known.
    Nothing,
}

/// What is remembered of a step, if the record is sound, and whether its layer is in the store.
pub fn lookup(store: &Store, key: &Key) -> Found {
    let record = store.read_record(STEPS, key).and_then(|bytes| Record::decode(&bytes));
    let Some(record) = record else { return Found::Nothing };
    match store.layer(&record.layer) {
        Ok(Some(_)) => Found::Layer(Box::new(record)),
        Ok(None) | Err(_) => Found::Gone(Box::new(record)),
    }
}

/// Whether the record of a step was damaged when it was last looked for.
pub fn was_damaged(store: &Store, key: &Key) -> bool {
    store.found_damaged(STEPS, key)
}

/// The record of a step, if it is sound, whether its layer is still there or not; looking at it does not count as a use.
pub fn recall(store: &Store, key: &Key) -> Option<Record> {
    Record::decode(&store.glance_at_record(STEPS, key)?)
}

/// The layer that the bytes of a step's record name.
pub fn layer_in(bytes: &[u8]) -> Option<DiffId> {
    Some(Record::decode(bytes)?.layer)
}

/// Remembers what a step made.
///
/// # Errors
/// If the store cannot be written; the layer itself is safe, so callers may go on.
pub fn remember(store: &Store, key: &Key, record: &Record) -> Result<(), crate::store::Error> {
    store.write_record(STEPS, key, &record.encode())
}

/// What a record is about, as far as somebody who verifies it must know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// It stands for a layer.
    Layer(DiffId),
    /// It is the record of a step or of a selection, and cannot be understood.
    Nonsense,
    /// Anything else.
    Other,
}

/// What the value of a record in the bucket of this name is about.
pub fn meaning(bucket: &str, value: &[u8]) -> Meaning {
    if bucket == STEPS.name() {
        Record::decode(value).map_or(Meaning::Nonsense, |record| Meaning::Layer(record.layer))
    } else if bucket == SELECTIONS.name() && value.len() != size_of::<ContentId>() {
        Meaning::Nonsense
    } else {
        Meaning::Other
    }
}

/// The digest of a selection of files of a chain of layers, if it was taken before. `question` names the chain and
/// what is selected of it; layers never change, so the answer never does.
pub fn recall_selection(store: &Store, question: &Key) -> Option<ContentId> {
    let bytes = store.read_record(SELECTIONS, question)?;
    Some(ContentId::from_bytes(bytes.try_into().ok()?))
}

/// Forgets the answer to [`recall_selection`].
///
/// # Errors
/// If the store cannot be written.
pub fn forget_selection(store: &Store, question: &Key) -> Result<(), crate::store::Error> {
    store.remove_record(SELECTIONS, question).map(drop)
}

/// Remembers the answer to [`recall_selection`].
///
/// # Errors
/// If the store cannot be written.
pub fn remember_selection(store: &Store, question: &Key, digest: &ContentId) -> Result<(), crate::store::Error> {
    store.write_record(SELECTIONS, question, digest.as_bytes())
}

/// The listing of a selection of files, if it was kept.
pub fn recall_listing(store: &Store, selection: &ContentId) -> Option<Listing> {
    Listing::decode(&store.glance_at_record(LISTINGS, &named(selection))?)
}

/// Keeps the listing of a selection of files, so that it can be told later what changed.
///
/// # Errors
/// If the store cannot be written.
pub fn remember_listing(store: &Store, selection: &ContentId, listing: &[u8]) -> Result<(), crate::store::Error> {
    store.write_record(LISTINGS, &named(selection), listing)
}

/// Every run that is remembered; none where the memory is missing or damaged.
pub fn history(store: &Store) -> History {
    store.glance_at_record(HISTORY, &the_history()).map(|bytes| History::decode(&bytes)).unwrap_or_default()
}

/// Adds runs to the history, newest last, and forgets the listings of files of those that are too many. Builds that end at
/// the same time wait for each other.
///
/// # Errors
/// If the store cannot be written.
pub fn remember_runs(store: &Store, runs: Vec<Run>) -> Result<(), crate::store::Error> {
    if runs.is_empty() {
        return Ok(());
    }
    let _lock = store.lock("history", "remember what was made", &mut |_| ControlFlow::Continue(()))?;
    let mut history = history(store);
    let forgotten = history.add(runs);
    store.write_record(HISTORY, &the_history(), &history.encode())?;
    forgotten.iter().try_for_each(|selection| store.remove_record(LISTINGS, &named(selection)).map(drop))
}

fn named(selection: &ContentId) -> Key {
    Key::from_bytes(*selection.as_bytes())
}

/// There is one history a store.
fn the_history() -> Key {
    blake3::hash(b"strata history").into()
}
