//! Random names for what has no content to be named by: processes' directories and writers.
//!
//! Gives 128 bits that no other process has had; never asks for a name to be kept.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher;

use serde::{Deserialize, Serialize};

/// 32 hexadecimal digits, plain in a file name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Id(String);

impl Id {
    /// A name nobody had before. The standard library seeds its hash tables from the kernel's random numbers; the
    /// hash of nothing under two such seeds is as random as they are, and cannot fail.
    pub(super) fn random() -> Self {
        let half = || RandomState::new().hash_one(());
        Self(format!("{:016x}{:016x}", half(), half()))
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        let ids: std::collections::HashSet<_> = (0..1000).map(|_| Id::random()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| id.to_string().len() == 32));
    }
}
