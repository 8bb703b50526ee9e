//! What is remembered of a context between builds: the digest of each file beside the `stat` result it was taken under.
//!
//! Takes a file of its own and gives answers for files whose `stat` result has not changed, so that an unchanged file is never
//! read again. The file is only a memory: where it is missing, torn, foreign or of another version, it counts as empty. It is
//! replaced as a whole by a rename, so that any number of builds may use it at once; the last one to finish wins.
//!
//! **Racy entries.** A file may be written twice within one tick of the clock that stamps it, and then has changed without its
//! `stat` result changing. So an entry is kept only if both its times were older, when reading *began*, than [`margin`] says:
//! a later change then necessarily gets a later stamp.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::digest::ContentId;

/// The first bytes of the file; the number changes with the format.
const MAGIC: &[u8] = b"strata stat index 1\n";

/// Seconds and nanoseconds since 1970.
pub(super) type Time = (i64, u32);

/// What has to be equal for a file to count as unchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) device: u64,
    pub(super) inode: u64,
    pub(super) size: u64,
    pub(super) mtime: Time,
    pub(super) ctime: Time,
    /// With the bits of the file type.
    pub(super) mode: u32,
}

impl Stat {
    /// Whether a digest or attribute taken when the clock said `taken` says nothing about the file as it is under this result.
    pub(super) fn is_racy(&self, taken: Time) -> bool {
        self.youth(taken).is_some()
    }

    /// How long after `taken` a digest can be taken that is to be remembered, if it is too early for that.
    pub(super) fn youth(&self, taken: Time) -> Option<Duration> {
        let newest = nanoseconds(self.mtime.max(self.ctime));
        let left = newest + margin(self).as_nanos().cast_signed() - nanoseconds(taken);
        (left >= 0).then(|| Duration::from_nanos(u64::try_from(left).unwrap_or(u64::MAX).saturating_add(1)))
    }
}

/// How much older than the reading both times have to be.
///
/// Linux stamps files from a clock that moves once a tick: 10 ms at the slowest configuration; twice that is asked for. File
/// systems that keep whole seconds (or, like FAT, pairs of them) are known by their zeros, and get two seconds and a tick.
fn margin(stat: &Stat) -> Duration {
    let whole_seconds = stat.mtime.1 == 0 && stat.ctime.1 == 0;
    Duration::from_millis(if whole_seconds { 2020 } else { 20 })
}

fn nanoseconds((seconds, nanoseconds): Time) -> i128 {
    i128::from(seconds) * 1_000_000_000 + i128::from(nanoseconds)
}

/// Extended attributes, sorted by name.
pub(super) type Xattrs = Vec<(OsString, Vec<u8>)>;

/// What is known about one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) stat: Stat,
    /// Absent for what is not a regular file, and where nobody asked.
    pub(super) content: Option<ContentId>,
    /// Absent where nobody asked.
    pub(super) xattrs: Option<Xattrs>,
}

/// Everything known about a context.
#[derive(Debug, Default)]
pub(super) struct Index {
    /// By the bytes of the path: hashing and comparing a path part by part takes several times as long.
    records: HashMap<OsString, Record>,
}

impl Index {
    /// Reads an index; empty where there is none, `None` where there is one that cannot be used.
    pub(super) fn load(path: &Path) -> Option<Self> {
        // A memory that cannot be read is no memory: the files themselves are always there to be read again.
        std::fs::read(path).map_or_else(|_| Some(Self::default()), |bytes| parse(&bytes))
    }

    /// What is known about a path under exactly this `stat` result.
    pub(super) fn get(&self, path: &Path, stat: &Stat) -> Option<&Record> {
        self.records.get(path.as_os_str()).filter(|record| record.stat == *stat)
    }

    pub(super) fn insert(&mut self, path: PathBuf, record: Record) {
        self.records.insert(path.into_os_string(), record);
    }

    /// Forgets every path that `gone` says does not exist any more.
    pub(super) fn forget(&mut self, gone: impl Fn(&Path) -> bool) {
        self.records.retain(|path, _| !gone(Path::new(path)));
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = MAGIC.to_vec();
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_unstable_by_key(|(path, _)| *path);
        put_length(&mut out, records.len());
        for (path, record) in records {
            put_bytes(&mut out, path.as_bytes());
            let stat = &record.stat;
            for number in [stat.device, stat.inode, stat.size] {
                out.extend(number.to_le_bytes());
            }
            for (seconds, nanoseconds) in [stat.mtime, stat.ctime] {
                out.extend(seconds.to_le_bytes());
                out.extend(nanoseconds.to_le_bytes());
            }
            out.extend(stat.mode.to_le_bytes());
            out.push(u8::from(record.content.is_some()) | u8::from(record.xattrs.is_some()) << 1);
            if let Some(content) = &record.content {
                out.extend(content.as_bytes());
            }
            if let Some(xattrs) = &record.xattrs {
                put_length(&mut out, xattrs.len());
                for (name, value) in xattrs {
                    put_bytes(&mut out, name.as_bytes());
                    put_bytes(&mut out, value);
                }
            }
        }
        let check = blake3::hash(&out);
        out.extend(check.as_bytes());
        out
    }
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend((length as u64).to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend(bytes);
}

/// Whether the bytes are an index that was written whole.
pub fn is_sound(bytes: &[u8]) -> bool {
    parse(bytes).is_some()
}

fn parse(bytes: &[u8]) -> Option<Index> {
    let (body, check) = bytes.split_last_chunk::<32>()?;
    let mut input = Input(body.strip_prefix(MAGIC)?);
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let count = input.length()?;
    let mut records = HashMap::with_capacity(count.min(bytes.len() / 64));
    for _ in 0..count {
        let path = OsString::from_vec(input.bytes()?.to_vec());
        records.insert(path, input.record()?);
    }
    input.0.is_empty().then_some(Index { records })
}

/// What is left of the file.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn number(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn length(&mut self) -> Option<usize> {
        self.number()?.try_into().ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = self.length()?;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    fn time(&mut self) -> Option<Time> {
        Some((i64::from_le_bytes(self.array()?), u32::from_le_bytes(self.array()?)))
    }

    fn record(&mut self) -> Option<Record> {
        let (device, inode, size) = (self.number()?, self.number()?, self.number()?);
        let (mtime, ctime) = (self.time()?, self.time()?);
        let mode = u32::from_le_bytes(self.array()?);
        let [flags] = self.array()?;
        let content = if flags & 1 != 0 { Some(ContentId::from_bytes(self.array()?)) } else { None };
        let xattrs = if flags & 2 != 0 { Some(self.xattrs()?) } else { None };
        Some(Record { stat: Stat { device, inode, size, mtime, ctime, mode }, content, xattrs })
    }

    fn xattrs(&mut self) -> Option<Xattrs> {
        (0..self.length()?)
            .map(|_| Some((OsStr::from_bytes(self.bytes()?).to_owned(), self.bytes()?.to_vec())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(mtime: Time, ctime: Time) -> Stat {
        Stat { device: 1, inode: 2, size: 3, mtime, ctime, mode: 0o100_644 }
    }

    fn index() -> Index {
        let mut index = Index::default();
        let content = Some(ContentId::from_bytes([7; 32]));
        index.insert(
            "a/b".into(),
            Record { stat: stat((1, 2), (-3, 4)), content, xattrs: Some(vec![("user.x".into(), vec![0, 1])]) },
        );
        index.insert("a".into(), Record { stat: stat((5, 6), (7, 8)), content: None, xattrs: None });
        index
    }

    #[test]
    fn survives_the_disk() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::fs::write(&path, index().encode()).unwrap();
        assert_eq!(Index::load(&path).unwrap().records, index().records);
        std::fs::write(&path, "rubbish").unwrap();
        assert!(Index::load(&path).is_none());
    }

    #[test]
    fn any_damage_makes_it_empty() {
        let whole = index().encode();
        assert!(parse(&whole).is_some());
        for cut in 0..whole.len() {
            assert!(parse(&whole[..cut]).is_none());
        }
        for at in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[at] ^= 1;
            assert!(parse(&damaged).is_none());
        }
        assert!(Index::load(Path::new("/nonexistent/index")).unwrap().records.is_empty());
    }

    #[test]
    fn young_entries_are_racy() {
        let at = |milliseconds: u32| (100, milliseconds * 1_000_000 + 1);
        for (mtime, ctime, taken, racy) in [
            (at(0), at(0), at(0), true),
            (at(0), at(0), at(20), true),
            (at(0), at(0), at(21), false),
            (at(0), at(15), at(30), true),
            (at(15), at(0), at(30), true),
            ((100, 0), (100, 0), (102, 0), true),
            ((100, 0), (100, 0), (102, 20_000_001), false),
            ((200, 5), (100, 0), at(999), true),
        ] {
            let stat = stat(mtime, ctime);
            assert_eq!(stat.is_racy(taken), racy, "{mtime:?} {ctime:?} {taken:?}");
            if let Some(wait) = stat.youth(taken) {
                let then = Duration::new(taken.0.cast_unsigned(), taken.1) + wait;
                let then = (then.as_secs().cast_signed(), then.subsec_nanos());
                assert!(!stat.is_racy(then), "{mtime:?} {ctime:?} {taken:?} {wait:?}");
            }
        }
    }
}
