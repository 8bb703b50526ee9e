//! Sparse files in archives: which parts of a file are content and which are holes.
//!
//! Our own archives have none, and the image specification advises against them; but GNU tar and libarchive write them
//! when asked to, and what other builders import is kept as it was. Four ways of saying it are in use: GNU's type `S`, and
//! GNU's versions 0.0, 0.1 and 1.0 for PAX. This takes their numbers and gives a file's parts, checked: in order, without
//! overlap, inside the file, and with as much content as the archive has.

use super::header::{BLOCK, number};

/// A file with more parts than this is not believed.
const MOST: usize = 1 << 20;

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// So many zeros that the archive does not have.
    Hole(u64),
    /// So many bytes of content.
    Content(u64),
}

/// A map makes no sense.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// What PAX records say of a sparse file.
#[derive(Debug, Default)]
pub(super) struct Records {
    /// `GNU.sparse.major`: 1 for the version whose map precedes the content.
    pub(super) major: u64,
    /// `GNU.sparse.name`: the path, in versions 0.1 and 1.0.
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`: the file's length.
    pub(super) size: Option<u64>,
    /// Starts and lengths in turn, in versions 0.0 and 0.1.
    pub(super) numbers: Vec<u64>,
}

impl Records {
    /// Takes in one record whose key begins with `GNU.sparse.`, without that.
    pub(super) fn record(&mut self, key: &[u8], value: &[u8]) -> Result<(), Malformed> {
        let number = || super::pax::number(value).ok_or(Malformed);
        match key {
            b"major" => self.major = number()?,
            b"name" => self.name = Some(value.to_vec()),
            b"size" | b"realsize" => self.size = Some(number()?),
            // Offset and length come in turn; each counts where it stands.
            b"offset" if self.numbers.len().is_multiple_of(2) => self.push(number()?)?,
            b"numbytes" if !self.numbers.len().is_multiple_of(2) => self.push(number()?)?,
            b"offset" | b"numbytes" => return Err(Malformed),
            b"map" => {
                self.numbers.clear();
                for text in value.split(|byte| *byte == b',').filter(|text| !text.is_empty()) {
                    self.push(super::pax::number(text).ok_or(Malformed)?)?;
                }
            }
            // How many parts there are, and the minor version, say nothing more.
            _ => {}
        }
        Ok(())
    }

    fn push(&mut self, number: u64) -> Result<(), Malformed> {
        self.numbers.push(number);
        if self.numbers.len() > 2 * MOST { Err(Malformed) } else { Ok(()) }
    }
}

/// Reads version 1.0's map, which precedes a file's content: decimal numbers, each on a line, in whole blocks. Gives the
/// numbers and how many bytes they took.
pub(super) fn leading_map<E: From<Malformed>>(
    mut block: impl FnMut() -> Result<[u8; BLOCK], E>,
) -> Result<(Vec<u64>, u64), E> {
    let (mut numbers, mut wanted, mut taken, mut digits) = (Vec::new(), None, 0, Vec::new());
    loop {
        let bytes = block()?;
        taken += BLOCK as u64;
        for byte in bytes {
            if byte != b'\n' {
                digits.push(byte);
                if digits.len() > 20 {
                    return Err(Malformed.into());
                }
                continue;
            }
            let number = super::pax::number(&digits).filter(|_| !digits.is_empty()).ok_or(Malformed)?;
            digits.clear();
            match wanted {
                None if number > MOST as u64 => return Err(Malformed.into()),
                None => wanted = Some(2 * number),
                Some(_) => numbers.push(number),
            }
            if wanted == Some(numbers.len() as u64) {
                // Zeros fill the block.
                return Ok((numbers, taken));
            }
        }
    }
}

/// What the header of GNU's type `S` says: the numbers that fit there, and the file's length.
pub(super) fn old_header(block: &[u8; BLOCK], numbers: &mut Vec<u64>) -> Result<u64, Malformed> {
    old_numbers(block, 386, 4, numbers)?;
    field(block, 483)
}

/// Whether another block of the map follows the header.
pub(super) fn old_header_goes_on(block: &[u8; BLOCK]) -> bool {
    block[482] != 0
}

/// Takes the numbers of a further block, and says whether yet another follows.
pub(super) fn old_extension(block: &[u8; BLOCK], numbers: &mut Vec<u64>) -> Result<bool, Malformed> {
    old_numbers(block, 0, 21, numbers)?;
    Ok(block[504] != 0)
}

fn old_numbers(block: &[u8; BLOCK], start: usize, most: usize, numbers: &mut Vec<u64>) -> Result<(), Malformed> {
    // An empty offset ends a list, as for GNU's and BSD's tar.
    for at in (start..).step_by(24).take(most).take_while(|at| block[*at] != 0) {
        numbers.extend([field(block, at)?, field(block, at + 12)?]);
    }
    if numbers.len() > 2 * MOST { Err(Malformed) } else { Ok(()) }
}

fn field(block: &[u8; BLOCK], at: usize) -> Result<u64, Malformed> {
    number(block, at..at + 12).and_then(|number| u64::try_from(number).ok()).ok_or(Malformed)
}

/// The parts of a file of `size` bytes, last one first, from starts and lengths of its content in turn. `content` is how
/// much of it the archive has.
pub(super) fn parts(numbers: &[u64], size: u64, content: u64) -> Result<Vec<Part>, Malformed> {
    let (pairs, []) = numbers.as_chunks::<2>() else { return Err(Malformed) };
    let (mut parts, mut at, mut sum) = (Vec::with_capacity(2 * pairs.len() + 1), 0, 0u64);
    for [start, length] in pairs {
        let end = start.checked_add(*length).filter(|end| *start >= at && *end <= size).ok_or(Malformed)?;
        parts.extend([Part::Hole(start - at), Part::Content(*length)]);
        at = end;
        sum += length;
    }
    if sum != content {
        return Err(Malformed);
    }
    parts.push(Part::Hole(size - at));
    parts.retain(|part| !matches!(part, Part::Hole(0) | Part::Content(0)));
    parts.reverse();
    Ok(parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_checked() {
        use Part::{Content, Hole};
        /// The map's numbers, the file's length, what the archive has, and what comes of it.
        type Case<'a> = (&'a [u64], u64, u64, Option<&'a [Part]>);
        let cases: [Case<'_>; 12] = [
            (&[], 0, 0, Some(&[])),
            (&[], 9, 0, Some(&[Hole(9)])),
            (&[0, 9], 9, 9, Some(&[Content(9)])),
            (&[3, 2, 7, 1, 9, 0], 9, 3, Some(&[Hole(1), Content(1), Hole(2), Content(2), Hole(3)])),
            (&[0, 1, 1, 1], 2, 2, Some(&[Content(1), Content(1)])),
            (&[3], 9, 0, None),
            (&[3, 2, 4, 2], 9, 4, None),
            (&[7, 1, 3, 1], 9, 2, None),
            (&[8, 2], 9, 2, None),
            (&[u64::MAX, 2], 9, 2, None),
            (&[0, 2], 9, 1, None),
            (&[0, 2], 9, 3, None),
        ];
        for (numbers, size, content, expected) in cases {
            assert_eq!(parts(numbers, size, content).ok().as_deref(), expected, "{numbers:?} {size} {content}");
        }
    }

    #[test]
    fn leading_maps_are_checked() {
        let read = |text: &str| {
            let mut bytes = text.as_bytes().to_vec();
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
            let mut blocks = bytes.chunks(BLOCK).map(|block| <[u8; BLOCK]>::try_from(block).unwrap());
            leading_map(|| blocks.next().ok_or(Malformed))
        };
        assert_eq!(read("0\n"), Ok((vec![], 512)));
        assert_eq!(read("2\n0\n1\n5\n7\n"), Ok((vec![0, 1, 5, 7], 512)));
        let long = format!("300\n{}", "1000000\n".repeat(600));
        assert_eq!(read(&long), Ok((vec![1_000_000; 600], 5120)));
        for wrong in ["", "1\n2\n", "x\n", "\n", "-1\n", "1048577\n", "123456789012345678901234567890\n"] {
            assert_eq!(read(wrong), Err(Malformed), "{wrong:?}");
        }
    }

    #[test]
    fn records_are_checked() {
        let take = |records: &[(&str, &str)]| {
            let mut taken = Records::default();
            records.iter().try_for_each(|(key, value)| taken.record(key.as_bytes(), value.as_bytes())).map(|()| taken)
        };
        let taken = take(&[("numblocks", "1"), ("offset", "5"), ("numbytes", "7"), ("size", "20")]).unwrap();
        assert_eq!((taken.numbers, taken.size), (vec![5, 7], Some(20)));
        assert_eq!(take(&[("map", "1,2,3,4")]).unwrap().numbers, [1, 2, 3, 4]);
        for wrong in [[("offset", "x")], [("numbytes", "1")], [("map", "1,x")], [("size", "-1")], [("major", "")]] {
            // An empty number is none.
            assert!(take(&wrong).is_err() || wrong[0].1.is_empty(), "{wrong:?}");
        }
        assert!(take(&[("offset", "1"), ("offset", "2")]).is_err());
    }
}
