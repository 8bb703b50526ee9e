//! Have we done this before?
//!
//! Takes a step's key, gives the layer that it made the last time, or a miss. Never required: anything wrong with a
//! record, or with the layer it names, is a miss and never a failed build.

pub mod key;
pub mod record;

use crate::digest::{ContentId, DiffId, Key};
use crate::store::{Bucket, Store};

use record::Record;

/// What steps made, by their keys.
pub const STEPS: Bucket = Bucket::new("steps-v1");
const SELECTIONS: Bucket = Bucket::new("selections-v1");

/// The record of a step, if it is sound and its layer is in the store.
pub fn lookup(store: &Store, key: &Key) -> Option<Record> {
    let record = Record::decode(&store.read_record(STEPS, key)?)?;
    store.layer(&record.layer).ok()?.map(|_| record)
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

/// The digest of a selection of files of a chain of layers, if it was taken before. `question` names the chain and
/// what is selected of it; layers never change, so the answer never does.
pub fn recall_selection(store: &Store, question: &Key) -> Option<ContentId> {
    let bytes = store.read_record(SELECTIONS, question)?;
    Some(ContentId::from_bytes(bytes.try_into().ok()?))
}

/// Remembers the answer to [`recall_selection`].
///
/// # Errors
/// If the store cannot be written.
pub fn remember_selection(store: &Store, question: &Key, digest: &ContentId) -> Result<(), crate::store::Error> {
    store.write_record(SELECTIONS, question, digest.as_bytes())
}
