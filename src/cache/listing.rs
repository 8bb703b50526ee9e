//! The files that a step read, as far as explaining a change takes them: path, type, mode, owner, the beginning of a digest.
//!
//! Takes the entries of a selection, gives bytes that are kept beside the cache's records, and tells what two listings
//! differ in. Never part of a key, and never needed: a listing that is missing or cannot be read makes an explanation
//! poorer. Pure.
//!
//! Paths are written as what they add to the path before, so ten thousand files take some hundred kilobytes and well under
//! a millisecond. Where there are more than [`MOST`] entries, what lies deep is only counted together for each directory.

use std::collections::BTreeMap;
use std::fmt;

/// More entries than this are kept for each directory together.
pub const MOST: usize = 50_000;

/// The first bytes of a listing; the number changes with the form.
const MAGIC: &[u8] = b"strata listing 1\n";

/// The depth of a listing in which nothing is counted together.
const WHOLE: u8 = u8::MAX;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A regular file.
    File = b'f',
    /// A directory.
    Directory = b'd',
    /// A symbolic link.
    Link = b'l',
    /// A device node.
    Device = b'n',
    /// A named pipe.
    Pipe = b'p',
    /// Everything deep below a directory, together.
    Below = b'*',
}

impl Kind {
    fn read(letter: u8) -> Option<Self> {
        [Self::File, Self::Directory, Self::Link, Self::Device, Self::Pipe, Self::Below]
            .into_iter()
            .find(|kind| *kind as u8 == letter)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::File => "a file",
            Self::Directory => "a directory",
            Self::Link => "a symbolic link",
            Self::Device => "a device",
            Self::Pipe => "a named pipe",
            Self::Below => "what is below",
        })
    }
}

/// The mode of an entry whose own does not count, as under an exact `--chmod`.
pub const ANY_MODE: u16 = u16::MAX;
/// The owner of an entry whose own does not count, as under `--chown`.
pub const ANYBODY: (u32, u32) = (u32::MAX, u32::MAX);

/// What is known of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Its type.
    pub kind: Kind,
    /// Permission bits, or [`ANY_MODE`].
    pub mode: u16,
    /// Owner and group, or [`ANYBODY`].
    pub owner: (u32, u32),
    /// The beginning of a digest of a file's content, a link's target or a device's numbers.
    pub content: u64,
    /// The same of its extended attributes; 0 if it has none.
    pub attributes: u64,
}

/// The entries of a selection, sorted by path, each path once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Below so many directories entries are counted together; [`WHOLE`] where none are.
    depth: u8,
    entries: Vec<(Vec<u8>, Facts)>,
}

/// One path that two listings differ in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The path, in the context or image it comes from; ends with `/` where it stands for what is below.
    pub path: String,
    /// What about it.
    pub what: What,
}

/// What became of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// It was not there.
    Added,
    /// It is not there any more.
    Removed,
    /// It is another; never without an aspect.
    Changed(Vec<Aspect>),
}

/// One thing that is different about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aspect {
    /// Its type.
    Type(Kind, Kind),
    /// The content of a file, the target of a link, the numbers of a device.
    Content,
    /// Permission bits.
    Mode(u16, u16),
    /// Owner and group.
    Owner((u32, u32), (u32, u32)),
    /// Extended attributes.
    Attributes,
}

impl fmt::Display for Aspect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type(old, new) => write!(f, "{old} → {new}"),
            Self::Content => f.write_str("content"),
            Self::Mode(old, new) => write!(f, "mode {old:04o} → {new:04o}"),
            Self::Owner(old, new) => write!(f, "owner {}:{} → {}:{}", old.0, old.1, new.0, new.1),
            Self::Attributes => f.write_str("extended attributes"),
        }
    }
}

impl Listing {
    /// A listing of these entries, in any order. Of several with the same path the first counts.
    pub fn new(mut entries: Vec<(Vec<u8>, Facts)>) -> Self {
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        entries.dedup_by(|later, first| later.0 == first.0);
        let mut listing = Self { depth: WHOLE, entries };
        for depth in [8, 4, 2, 1, 0] {
            if listing.entries.len() <= MOST {
                break;
            }
            listing = listing.coarse(depth);
        }
        listing
    }

    /// How many entries it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// What became of each path between two listings, in the order of the paths.
    pub fn changes(old: &Self, new: &Self) -> Vec<Change> {
        if old.depth != new.depth {
            let depth = old.depth.min(new.depth);
            return Self::changes(&old.coarse(depth), &new.coarse(depth));
        }
        let mut changes = Vec::new();
        let (mut olds, mut news) = (old.entries.iter().peekable(), new.entries.iter().peekable());
        loop {
            let order = match (olds.peek(), news.peek()) {
                (None, None) => return changes,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((old, _)), Some((new, _))) => old.cmp(new),
            };
            let (path, what) = match order {
                std::cmp::Ordering::Less => match olds.next() {
                    Some((path, _)) => (path, What::Removed),
                    None => return changes,
                },
                std::cmp::Ordering::Greater => match news.next() {
                    Some((path, _)) => (path, What::Added),
                    None => return changes,
                },
                std::cmp::Ordering::Equal => {
                    let (Some((path, before)), Some((_, now))) = (olds.next(), news.next()) else { return changes };
                    let aspects = aspects(before, now);
                    if aspects.is_empty() {
                        continue;
                    }
                    (path, What::Changed(aspects))
                }
            };
            changes.push(Change { path: String::from_utf8_lossy(path).into_owned(), what });
        }
    }

    /// The same with everything below so many directories counted together.
    fn coarse(&self, depth: u8) -> Self {
        if depth >= self.depth {
            return self.clone();
        }
        let mut entries: BTreeMap<Vec<u8>, Facts> = BTreeMap::new();
        for (path, facts) in &self.entries {
            let mut slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
            let head = match depth {
                0 if path.is_empty() => None,
                0 => Some(&b""[..]),
                _ => slashes.nth(usize::from(depth) - 1).map(|at| &path[..at]),
            };
            let Some(head) = head else {
                entries.insert(path.clone(), *facts);
                continue;
            };
            let together = [head, b"/"].concat();
            let sum = entries.entry(together).or_insert(Facts {
                kind: Kind::Below,
                mode: 0,
                owner: (0, 0),
                content: 0,
                attributes: 0,
            });
            // A sum does not depend on an order, so that what was counted together already can be added as it is.
            sum.content = sum.content.wrapping_add(match facts.kind {
                Kind::Below => facts.content,
                _ => summand(path, facts),
            });
        }
        Self { depth, entries: entries.into_iter().collect() }
    }

    /// The listing as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + 16 + self.entries.len() * 40);
        out.extend(MAGIC);
        out.push(self.depth);
        put_number(&mut out, self.entries.len() as u64);
        let mut before: &[u8] = b"";
        for (path, facts) in &self.entries {
            let shared = before.iter().zip(path).take_while(|(a, b)| a == b).count();
            put_number(&mut out, shared as u64);
            put_number(&mut out, (path.len() - shared) as u64);
            out.extend(&path[shared..]);
            before = path;
            out.push(facts.kind as u8);
            for number in [facts.mode.into(), facts.owner.0, facts.owner.1] {
                put_number(&mut out, u64::from(number));
            }
            out.extend(facts.content.to_le_bytes());
            put_number(&mut out, facts.attributes);
        }
        out
    }

    /// The listing in some bytes; `None` if they are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let mut input = Input(bytes.strip_prefix(MAGIC)?);
        let depth = input.byte()?;
        let count = usize::try_from(input.number()?).ok()?;
        // An entry takes more than eight bytes, so that a damaged count asks for no more memory than the bytes do.
        let mut entries: Vec<(Vec<u8>, Facts)> = Vec::with_capacity(count.min(bytes.len() / 8));
        for _ in 0..count {
            let shared = usize::try_from(input.number()?).ok()?;
            let length = usize::try_from(input.number()?).ok()?;
            let before = entries.last().map_or(&b""[..], |(path, _)| path.as_slice());
            let path = [before.get(..shared)?, input.take(length)?].concat();
            if entries.last().is_some_and(|(before, _)| *before >= path) {
                return None;
            }
            let kind = Kind::read(input.byte()?)?;
            let mode = u16::try_from(input.number()?).ok()?;
            let owner = (u32::try_from(input.number()?).ok()?, u32::try_from(input.number()?).ok()?);
            let content = u64::from_le_bytes(*input.take(8)?.first_chunk()?);
            let attributes = input.number()?;
            entries.push((path, Facts { kind, mode, owner, content, attributes }));
        }
        input.0.is_empty().then_some(Self { depth, entries })
    }
}

fn aspects(old: &Facts, new: &Facts) -> Vec<Aspect> {
    if old.kind != new.kind {
        return vec![Aspect::Type(old.kind, new.kind)];
    }
    let mut aspects = Vec::new();
    if old.content != new.content {
        aspects.push(Aspect::Content);
    }
    if old.mode != new.mode && old.mode != ANY_MODE && new.mode != ANY_MODE {
        aspects.push(Aspect::Mode(old.mode, new.mode));
    }
    if old.owner != new.owner && old.owner != ANYBODY && new.owner != ANYBODY {
        aspects.push(Aspect::Owner(old.owner, new.owner));
    }
    if old.attributes != new.attributes {
        aspects.push(Aspect::Attributes);
    }
    aspects
}

/// What an entry adds to the sum of its directory.
fn summand(path: &[u8], facts: &Facts) -> u64 {
    let mut hasher = blake3::Hasher::new();
    hasher.update(path).update(&[0, facts.kind as u8]).update(&facts.mode.to_le_bytes());
    hasher.update(&facts.owner.0.to_le_bytes()).update(&facts.owner.1.to_le_bytes());
    hasher.update(&facts.content.to_le_bytes()).update(&facts.attributes.to_le_bytes());
    short(hasher.finalize().as_bytes())
}

/// The beginning of a digest: enough to tell two contents of one file apart.
pub fn short(digest: &[u8; 32]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *digest;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

/// Seven bits a byte, the lowest first; the highest bit says that more follow.
fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(u8::try_from(number & 0x7f).unwrap_or_default() | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or_default());
}

/// What is left of the bytes.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits.checked_shl(shift)? >> shift != bits {
                return None;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }
}

#[cfg(test)]
mod tests;
