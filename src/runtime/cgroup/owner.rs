//! Whose a control group is: `strata-<pid namespace>-<pid>-<start time>-<number>`.
//!
//! A pid is given again, a pid with the time its process was started is not; and a pid means something only in its pid
//! namespace. So from the name of a group anyone can tell whether its owner still runs, and nobody takes the group of a
//! process that they cannot see for an orphan.

use std::ffi::OsStr;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Error;

const PREFIX: &str = "strata";

/// A process that makes groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    namespace: u64,
    pid: u32,
    /// In clock ticks since the machine started.
    start: u64,
}

impl Owner {
    /// This process.
    pub(super) fn of_this_process() -> Result<Self, Error> {
        let namespace = namespace().map_err(|source| Error::Owner { path: "/proc/self/ns/pid", source })?;
        let pid = std::process::id();
        let stat = std::fs::read_to_string("/proc/self/stat");
        let stat = stat.map_err(|source| Error::Owner { path: "/proc/self/stat", source })?;
        let start = start_time(&stat)
            .ok_or_else(|| Error::Owner { path: "/proc/self/stat", source: io::ErrorKind::InvalidData.into() })?;
        Ok(Self { namespace, pid, start })
    }

    /// A name for a group that no other has.
    pub(super) fn next_name(&self) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        self.name(NEXT.fetch_add(1, Ordering::Relaxed))
    }

    fn name(&self, number: u64) -> String {
        let Self { namespace, pid, start } = self;
        format!("{PREFIX}-{namespace}-{pid}-{start}-{number}")
    }

    /// The owner that the name of a group tells; `None` if it is not a name of ours.
    pub(super) fn of_group(name: &OsStr) -> Option<Self> {
        let mut parts = name.to_str()?.split('-');
        if parts.next()? != PREFIX {
            return None;
        }
        let (namespace, pid, start) = (parts.next()?, parts.next()?, parts.next()?);
        parts.next()?.parse::<u64>().ok()?;
        let owner = Self { namespace: namespace.parse().ok()?, pid: pid.parse().ok()?, start: start.parse().ok()? };
        parts.next().is_none().then_some(owner)
    }

    /// Whether this process, as seen by `seer`, is certainly no more.
    pub(super) fn is_gone(&self, seer: &Self) -> bool {
        if self.namespace != seer.namespace {
            return false;
        }
        match std::fs::read_to_string(format!("/proc/{}/stat", self.pid)) {
            Ok(stat) => start_time(&stat).is_some_and(|start| start != self.start),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        }
    }
}

/// The number of this process's pid namespace.
fn namespace() -> io::Result<u64> {
    let link = std::fs::read_link("/proc/self/ns/pid")?;
    let number = link.to_str().and_then(|text| text.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok());
    number.ok_or_else(|| io::ErrorKind::InvalidData.into())
}

/// The 22nd field of `/proc/<pid>/stat`.
fn start_time(stat: &str) -> Option<u64> {
    // The second field, the name, may hold anything; the last `)` ends it.
    stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_their_owner() {
        let own = Owner::of_this_process().unwrap();
        assert_eq!(Owner::of_group(OsStr::new(&own.next_name())), Some(own.clone()));
        assert_ne!(own.next_name(), own.next_name());
        assert!(!own.is_gone(&own));
        // The same pid, given again.
        assert!(Owner { start: own.start + 1, ..own.clone() }.is_gone(&own));
        assert!(Owner { pid: u32::MAX, ..own.clone() }.is_gone(&own));
        // Of another container.
        assert!(!Owner { pid: u32::MAX, namespace: own.namespace + 1, ..own.clone() }.is_gone(&own));
        for name in ["strata", "strata-1-2-3", "strata-1-2-3-4-5", "strata-1-x-3-4", "other-1-2-3-4", "docker"] {
            assert_eq!(Owner::of_group(OsStr::new(name)), None, "{name}");
        }
        assert_eq!(start_time("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 1234 20"), Some(1234));
    }
}
