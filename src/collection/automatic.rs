//! Collection without being asked: whether it is time, and a thread that does it.

use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use super::choose::{Policy, Scope};
use super::inventory::{Inventory, Sizes};
use super::{Caps, collect};
use crate::store::{Error, Store};

/// A collection goes this much further than it has to, in parts of what may be kept, so that not every build needs one.
const FURTHER: u64 = 10;

/// Keeps a store below its caps. Called when a build has ended and told its result: where the build added something and the
/// account says that it is too much, a thread collects. The caller waits for it no longer than `patience`; it ends with the
/// process, and leaves a good store at any instant.
///
/// # Errors
/// What was refused until then. Nothing depends on it, but somebody may want to know why the disk fills.
pub fn automatic(store: &Store, caps: &Caps, patience: Duration) -> Result<(), Error> {
    match store.account() {
        Ok(false) => return Ok(()),
        // A full disk is the best of reasons.
        Ok(true) | Err(Error::Full { .. }) => {}
        Err(error) => return Err(error),
    }
    let room = store.room()?;
    let is_due = store.estimate().is_none_or(|used| caps.keep(used, &room).is_some_and(|keep| used > keep));
    if !is_due {
        return Ok(());
    }
    let (root, caps) = (store.root().to_owned(), *caps);
    let (done, ended) = sync_channel(1);
    let work = move || {
        // A store of its own: the caller's may be gone before this ends.
        let outcome = Store::open(&root).and_then(|store| keep_below(&store, &caps));
        // Nobody may be waiting any more.
        let _ = done.send(outcome);
    };
    let thread = std::thread::Builder::new().name("strata-collect".to_owned()).spawn(work);
    thread.map_err(|error| Error::at("start a thread to collect in", store.root(), error))?;
    match ended.recv_timeout(patience) {
        Ok(outcome) => outcome,
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(()),
    }
}

/// Counts, and removes what is too much.
fn keep_below(store: &Store, caps: &Caps) -> Result<(), Error> {
    // Another process is at it.
    let Some(collection) = store.begin_collection()? else { return Ok(()) };
    let inventory = Inventory::take(store, Sizes::Known)?;
    let used = inventory.bytes();
    let keep = caps.keep(used, &store.room()?).filter(|keep| used > *keep);
    let Some(keep) = keep else { return store.counted(used) };
    let policy = Policy { scope: Scope::Cap, before: None, keep: Some(keep - keep / FURTHER) };
    let removed = collect(store, &collection, &inventory, &policy)?;
    let freed = removed.freed.iter().map(|freed| freed.bytes).sum();
    // After the room for it is there.
    removed.taken.delete()?;
    store.counted(used.saturating_sub(freed))
}
