//! About how much the store takes on the disk, without looking at it.
//!
//! `cache/growth` begins with what somebody counted, and when; each process that added something appends how much, in one
//! write. Whoever counts again begins it anew. It decides only whether counting is worth while, so it may be a little wrong:
//! what a killed process added is missing until then, and what goes into cache mounts is. For that reason a count is
//! trusted for a day, and for so many additions.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Store;
use super::error::Error;
use super::place::Durability;

/// A count is trusted so long.
const TRUSTED: Duration = Duration::from_secs(24 * 3600);

/// A count is trusted for so many additions.
const ADDITIONS: usize = 500;

impl Store {
    /// Notes that this process made the store larger.
    pub(super) fn grow(&self, bytes: u64) {
        self.grown.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Adds to the account what this process added since it was last asked; whether that was anything.
    ///
    /// # Errors
    /// What the operating system refused. Nothing depends on it.
    pub fn account(&self) -> Result<bool, Error> {
        let bytes = self.grown.swap(0, Ordering::Relaxed);
        if bytes == 0 {
            return Ok(false);
        }
        let path = self.layout.growth();
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| file.write_all(&bytes.to_le_bytes()));
        written.map(|()| true).map_err(|error| Error::at("write", &path, error))
    }

    /// About how many bytes the store takes; `None` if it is time to count.
    pub fn estimate(&self) -> Option<u64> {
        let bytes = std::fs::read(self.layout.growth()).ok()?;
        let numbers: Vec<u64> = bytes.as_chunks().0.iter().map(|number| u64::from_le_bytes(*number)).collect();
        let [counted_at, counted, added @ ..] = numbers.as_slice() else { return None };
        let counted_at = UNIX_EPOCH.checked_add(Duration::from_secs(*counted_at))?;
        // A count from the future is as wrong as one that is long past.
        let is_new = SystemTime::now().duration_since(counted_at).is_ok_and(|age| age < TRUSTED);
        (is_new && added.len() < ADDITIONS).then(|| added.iter().fold(*counted, |sum, more| sum.saturating_add(*more)))
    }

    /// Begins the account anew with what was counted.
    ///
    /// # Errors
    /// What the operating system refused. Nothing depends on it.
    pub fn counted(&self, bytes: u64) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let text = [now.to_le_bytes(), bytes.to_le_bytes()].concat();
        self.place(&self.layout.growth(), &text, 0o600, Durability::Lazy)
    }
}
