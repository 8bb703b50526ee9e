//! How much room the file system under the store has. Looks, and changes nothing.

use super::{Error, Store};

/// The room on a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes that this user can still write.
    pub free: u64,
    /// Bytes in all.
    pub total: u64,
    /// Files that can still be made; `None` where the file system has no bound of its own.
    pub free_files: Option<u64>,
}

impl Store {
    /// The room on the file system that the store is on.
    ///
    /// # Errors
    /// The store's directory cannot be looked at.
    pub fn room(&self) -> Result<Room, Error> {
        let failed = |error: rustix::io::Errno| Error::at("look at", self.root(), error);
        let found = rustix::fs::statvfs(self.root()).map_err(failed)?;
        Ok(Room {
            free: found.f_bavail.saturating_mul(found.f_frsize),
            total: found.f_blocks.saturating_mul(found.f_frsize),
            free_files: (found.f_files > 0).then_some(found.f_favail),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_is_at_most_all() {
        let directory = tempfile::tempdir().unwrap();
        let room = Store::open(directory.path()).unwrap().room().unwrap();
        assert!(room.free <= room.total && room.total > 0, "{room:?}");
    }
}
