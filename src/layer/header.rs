//! One entry's header in a tar archive: its canonical encoding, and decoding of what is found in the wild.
//!
//! Encoding gives a POSIX ustar header, preceded by a PAX extended header only where ustar cannot say it. Decoding
//! reads the fixed 512 bytes of ustar, GNU, star and pre-POSIX headers; extended headers are put together with it
//! elsewhere. Neither touches a file.

use super::pax;
use super::xattr::Attribute;

/// Archives are made of blocks of this many bytes.
pub(super) const BLOCK: usize = 512;

/// What a typeflag stands for, as far as an image can hold it.
pub(super) mod typeflag {
    pub(in crate::layer) const FILE: u8 = b'0';
    pub(in crate::layer) const OLD_FILE: u8 = 0;
    pub(in crate::layer) const CONTIGUOUS: u8 = b'7';
    pub(in crate::layer) const HARD_LINK: u8 = b'1';
    pub(in crate::layer) const SYMLINK: u8 = b'2';
    pub(in crate::layer) const CHAR_DEVICE: u8 = b'3';
    pub(in crate::layer) const BLOCK_DEVICE: u8 = b'4';
    pub(in crate::layer) const DIRECTORY: u8 = b'5';
    pub(in crate::layer) const FIFO: u8 = b'6';
    pub(in crate::layer) const PAX: u8 = b'x';
    pub(in crate::layer) const PAX_GLOBAL: u8 = b'g';
    pub(in crate::layer) const GNU_LONG_NAME: u8 = b'L';
    pub(in crate::layer) const GNU_LONG_LINK: u8 = b'K';
    pub(in crate::layer) const GNU_SPARSE: u8 = b'S';
}

/// What the key of an extended attribute's PAX record begins with (star, and everybody since).
pub(super) const XATTR_KEY: &[u8] = b"SCHILY.xattr.";

/// Byte ranges of the fields (POSIX.1-2017, pax, "ustar Interchange Format").
mod field {
    use std::ops::Range;

    pub(super) const NAME: Range<usize> = 0..100;
    pub(super) const MODE: Range<usize> = 100..108;
    pub(super) const UID: Range<usize> = 108..116;
    pub(super) const GID: Range<usize> = 116..124;
    pub(super) const SIZE: Range<usize> = 124..136;
    pub(super) const MTIME: Range<usize> = 136..148;
    pub(super) const CHECKSUM: Range<usize> = 148..156;
    pub(super) const TYPEFLAG: usize = 156;
    pub(super) const LINK: Range<usize> = 157..257;
    pub(super) const MAGIC: Range<usize> = 257..265;
    pub(super) const MAJOR: Range<usize> = 329..337;
    pub(super) const MINOR: Range<usize> = 337..345;
    pub(super) const PREFIX: Range<usize> = 345..500;
    pub(super) const STAR_PREFIX: Range<usize> = 345..476;
    pub(super) const STAR_TRAILER: Range<usize> = 508..512;
}

/// The largest number in an eight-byte field.
const LARGEST_ID: u64 = 0o7_777_777;

/// The largest number in a twelve-byte field: sizes from 8 GiB on do not fit.
const LARGEST_NUMBER: u64 = 0o77_777_777_777;

/// One entry as it is to be written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Header<'a> {
    /// The whole path; a directory's ends with a slash.
    pub(super) name: &'a [u8],
    /// What the entry is.
    pub(super) typeflag: u8,
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u32,
    /// Group.
    pub(super) gid: u32,
    /// Bytes of content that follow.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// Target of a link, else empty.
    pub(super) link: &'a [u8],
    /// Major and minor number of a device, else zero.
    pub(super) device: (u32, u32),
    /// Extended attributes, sorted by name, no name with an equals sign.
    pub(super) xattrs: &'a [Attribute],
}

/// The extended header that an entry needs is larger than any reader takes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

impl Header<'_> {
    /// Writes the entry's header blocks into `out`, which is emptied first.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Result<(), TooLarge> {
        out.clear();
        let mut block = [0; BLOCK];
        let records = self.fill(&mut block);
        if records.len() > pax::LARGEST {
            return Err(TooLarge);
        }
        if !records.is_empty() {
            encode_extended(self.name, &records, out);
        }
        finish(&mut block);
        out.extend_from_slice(&block);
        Ok(())
    }

    /// Fills the block and gives the PAX records for what the block cannot hold, sorted by key.
    fn fill(&self, block: &mut [u8; BLOCK]) -> Vec<u8> {
        let mut records = Vec::new();
        block[field::TYPEFLAG] = self.typeflag;
        octal(block, field::MODE, self.mode.into());
        octal(block, field::MAJOR, self.device.0.into());
        octal(block, field::MINOR, self.device.1.into());
        // From here on in the order of the records' keys.
        put_number(block, field::GID, self.gid.into(), LARGEST_ID, b"gid", &mut records);
        if self.link.len() <= field::LINK.len() && self.link.is_ascii() {
            block[field::LINK.start..][..self.link.len()].copy_from_slice(self.link);
        } else {
            put_ascii(block, field::LINK, self.link);
            pax::push(&mut records, b"linkpath", self.link);
        }
        match u64::try_from(self.mtime) {
            Ok(mtime) if mtime <= LARGEST_NUMBER => octal(block, field::MTIME, mtime),
            _ => {
                octal(block, field::MTIME, 0);
                pax::push(&mut records, b"mtime", self.mtime.to_string().as_bytes());
            }
        }
        match split(self.name) {
            Some((prefix, name)) => {
                block[field::PREFIX.start..][..prefix.len()].copy_from_slice(prefix);
                block[field::NAME.start..][..name.len()].copy_from_slice(name);
            }
            None => {
                put_ascii(block, field::NAME, self.name);
                pax::push(&mut records, b"path", self.name);
            }
        }
        put_number(block, field::SIZE, self.size, LARGEST_NUMBER, b"size", &mut records);
        put_number(block, field::UID, self.uid.into(), LARGEST_ID, b"uid", &mut records);
        // Capital letters sort before the small ones of POSIX's own keys.
        if self.xattrs.is_empty() {
            return records;
        }
        let mut sorted = Vec::new();
        for (name, value) in self.xattrs {
            pax::push(&mut sorted, &[XATTR_KEY, name].concat(), value);
        }
        sorted.append(&mut records);
        sorted
    }
}

/// The extended header's own header and its records. Its name matters only to a reader that does not know PAX and
/// makes a file of it.
fn encode_extended(name: &[u8], records: &[u8], out: &mut Vec<u8>) {
    let trimmed = name.strip_suffix(b"/").unwrap_or(name);
    let base = trimmed.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let mut block = [0; BLOCK];
    put_ascii(&mut block, field::NAME, &[b"PaxHeaders.0/", base].concat());
    octal(&mut block, field::MODE, 0o644);
    octal(&mut block, field::UID, 0);
    octal(&mut block, field::GID, 0);
    octal(&mut block, field::SIZE, records.len() as u64);
    octal(&mut block, field::MTIME, 0);
    octal(&mut block, field::MAJOR, 0);
    octal(&mut block, field::MINOR, 0);
    block[field::TYPEFLAG] = typeflag::PAX;
    finish(&mut block);
    out.extend_from_slice(&block);
    out.extend_from_slice(records);
    out.resize(out.len().next_multiple_of(BLOCK), 0);
}

/// Puts in what every header has and closes it with its checksum.
fn finish(block: &mut [u8; BLOCK]) {
    block[field::MAGIC].copy_from_slice(b"ustar\x0000");
    let (unsigned, _) = checksums(block);
    let text = format!("{unsigned:06o}\0 ");
    block[field::CHECKSUM].copy_from_slice(text.as_bytes());
}

/// The path as ustar holds it: (prefix, name), joined by a slash if there is a prefix. `None` if it cannot.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= field::NAME.len() {
        return Some((b"", path));
    }
    // The longest prefix that fits, so that one path has one encoding; a closing slash stays with the name.
    let within = path.len().saturating_sub(1).min(field::PREFIX.len() + 1);
    let slash = path[..within].iter().rposition(|byte| *byte == b'/')?;
    let (prefix, name) = (&path[..slash], &path[slash + 1..]);
    (!prefix.is_empty() && name.len() <= field::NAME.len()).then_some((prefix, name))
}

fn put_number(
    block: &mut [u8; BLOCK],
    range: std::ops::Range<usize>,
    number: u64,
    largest: u64,
    key: &[u8],
    records: &mut Vec<u8>,
) {
    if number <= largest {
        octal(block, range, number);
    } else {
        octal(block, range, 0);
        pax::push(records, key, number.to_string().as_bytes());
    }
}

/// Zero-padded octal digits, closed by a zero byte.
fn octal(block: &mut [u8; BLOCK], range: std::ops::Range<usize>, number: u64) {
    let mut rest = number;
    for byte in block[range.start..range.end - 1].iter_mut().rev() {
        *byte = b'0' + u8::try_from(rest & 7).unwrap_or(0);
        rest >>= 3;
    }
    debug_assert_eq!(rest, 0, "{number} was checked to fit");
}

/// What is left of a text in ASCII and in the field's length, for readers that do not know PAX.
fn put_ascii(block: &mut [u8; BLOCK], range: std::ops::Range<usize>, text: &[u8]) {
    for (to, from) in block[range].iter_mut().zip(text.iter().filter(|byte| byte.is_ascii())) {
        *to = *from;
    }
}

/// The sum of all bytes with the checksum's own taken as spaces; historic writers summed signed bytes.
fn checksums(block: &[u8; BLOCK]) -> (i64, i64) {
    let mut sums = (0, 0);
    for (at, byte) in block.iter().enumerate() {
        let byte = if field::CHECKSUM.contains(&at) { b' ' } else { *byte };
        sums.0 += i64::from(byte);
        sums.1 += i64::from(byte.cast_signed());
    }
    sums
}

/// A header as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Raw {
    /// The path, with ustar's prefix put before it.
    pub(super) name: Vec<u8>,
    /// Target of a link.
    pub(super) link: Vec<u8>,
    /// What the entry is.
    pub(super) typeflag: u8,
    /// Permission bits.
    pub(super) mode: u32,
    /// Owner.
    pub(super) uid: u64,
    /// Group.
    pub(super) gid: u64,
    /// Bytes of content.
    pub(super) size: u64,
    /// Seconds since 1970.
    pub(super) mtime: i64,
    /// Major and minor number, for devices only.
    pub(super) device: (u32, u32),
}

/// What is wrong with a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

/// Reads a header. The block of nothing but zeros that ends an archive is the caller's to know.
pub(super) fn decode(block: &[u8; BLOCK]) -> Result<Raw, Malformed> {
    let sum = number(block, field::CHECKSUM).ok_or(Malformed("its checksum is not a number"))?;
    let (unsigned, signed) = checksums(block);
    if sum != unsigned && sum != signed {
        return Err(Malformed("its header's checksum does not match"));
    }
    let typeflag = block[field::TYPEFLAG];
    let unsigned =
        |range, what| number(block, range).and_then(|number| u64::try_from(number).ok()).ok_or(Malformed(what));
    let is_device = matches!(typeflag, typeflag::CHAR_DEVICE | typeflag::BLOCK_DEVICE);
    let device = |range| -> Result<u32, Malformed> {
        if !is_device {
            return Ok(0);
        }
        let number = unsigned(range, "its device number is not a number")?;
        u32::try_from(number).map_err(|_| Malformed("its device number is too large"))
    };
    Ok(Raw {
        name: whole_name(block),
        link: text(&block[field::LINK]).to_vec(),
        typeflag,
        // Some writers put the type's bits here, and some a number of all bits.
        mode: u32::try_from(unsigned(field::MODE, "its mode is not a number")? & 0o7777).unwrap_or(0),
        uid: unsigned(field::UID, "its owner is not a number")?,
        gid: unsigned(field::GID, "its group is not a number")?,
        size: unsigned(field::SIZE, "its size is not a number")?,
        mtime: number(block, field::MTIME).ok_or(Malformed("its time is not a number"))?,
        device: (device(field::MAJOR)?, device(field::MINOR)?),
    })
}

fn whole_name(block: &[u8; BLOCK]) -> Vec<u8> {
    let name = text(&block[field::NAME]);
    // GNU headers have `ustar` and a space, and use the prefix's bytes for something else.
    if block[field::MAGIC].get(..6) != Some(b"ustar\0") {
        return name.to_vec();
    }
    let star = &block[field::STAR_TRAILER] == b"tar\0";
    let prefix = text(&block[if star { field::STAR_PREFIX } else { field::PREFIX }]);
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

/// A field's text: up to its first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A number in octal digits between spaces and zero bytes, or in GNU's binary form (first bit set, two's
/// complement). No digits are zero.
pub(super) fn number(block: &[u8; BLOCK], range: std::ops::Range<usize>) -> Option<i64> {
    let bytes = &block[range];
    if bytes[0] & 0x80 != 0 {
        return binary(bytes);
    }
    let is_blank = |byte: &u8| matches!(byte, b' ' | 0);
    let start = bytes.iter().position(|byte| !is_blank(byte)).unwrap_or(bytes.len());
    let digits = bytes[start..].split(is_blank).next().unwrap_or_default();
    digits.iter().try_fold(0i64, |sum, digit| match digit {
        b'0'..=b'7' => sum.checked_mul(8)?.checked_add((digit - b'0').into()),
        _ => None,
    })
}

fn binary(bytes: &[u8]) -> Option<i64> {
    // The first bit marks the form, the second is the sign.
    let negative = bytes[0] & 0x40 != 0;
    let first = if negative { bytes[0] } else { bytes[0] & 0x7f };
    let mut sum = if negative { -1i64 } else { 0 };
    for byte in std::iter::once(&first).chain(&bytes[1..]) {
        sum = sum.checked_mul(256)?.checked_add(i64::from(*byte))?;
    }
    Some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file<'a>(name: &'a [u8], xattrs: &'a [Attribute]) -> Header<'a> {
        let (typeflag, device) = (typeflag::FILE, (0, 0));
        Header { name, typeflag, mode: 0o644, uid: 0, gid: 0, size: 0, mtime: 0, link: b"", device, xattrs }
    }

    fn encoded(header: &Header<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        header.encode(&mut out).unwrap();
        out
    }

    fn decoded(bytes: &[u8]) -> Raw {
        decode(bytes[bytes.len() - BLOCK..].try_into().unwrap()).unwrap()
    }

    #[test]
    fn pax_only_where_ustar_cannot() {
        let long = |length: usize| vec![b'a'; length];
        let nested = [long(155), long(100)].join(&b'/');
        let deep = [long(156), long(3)].join(&b'/');
        let plain = file(b"a", &[]);
        let xattrs = [(b"user.x".to_vec(), b"1".to_vec())];
        for (what, header, blocks) in [
            ("100 bytes", file(&long(100), &[]), 1),
            ("101 bytes without a slash", file(&long(101), &[]), 3),
            ("split at the last place", file(&nested, &[]), 1),
            ("prefix too long", file(&deep, &[]), 3),
            ("not ASCII", file("ä".as_bytes(), &[]), 3),
            ("largest size", Header { size: (8 << 30) - 1, ..plain }, 1),
            ("8 GiB", Header { size: 8 << 30, ..plain }, 3),
            ("largest id", Header { uid: (1 << 21) - 1, ..plain }, 1),
            ("large id", Header { gid: 1 << 21, ..plain }, 3),
            ("before 1970", Header { mtime: -1, ..plain }, 3),
            ("after 2242", Header { mtime: 1 << 33, ..plain }, 3),
            ("long link", Header { link: &long(101), ..plain }, 3),
            ("xattr", file(b"a", &xattrs), 3),
        ] {
            assert_eq!(encoded(&header).len() / BLOCK, blocks, "{what}");
        }
    }

    #[test]
    fn records_are_sorted_by_key() {
        let xattrs = [(b"user.b".to_vec(), vec![]), (b"user.c".to_vec(), vec![])];
        let name = [b'n'; 300];
        let header =
            Header { gid: 1 << 30, uid: 1 << 30, size: 1 << 40, mtime: -5, link: &name, ..file(&name, &xattrs) };
        let bytes = encoded(&header);
        let mut records = &bytes[BLOCK..bytes.len() - BLOCK];
        let keys: Vec<_> = std::iter::from_fn(|| pax::take(&mut records)).map(|record| record.0.to_vec()).collect();
        assert_eq!(keys.len(), 8);
        assert!(keys.is_sorted());
    }

    #[test]
    fn binary_numbers_have_a_sign() {
        let mut block = [0; BLOCK];
        for (bytes, expected) in [
            ([0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0], Some(8 << 30)),
            ([0xff; 12], Some(-1)),
            ([0x80, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff], None),
        ] {
            block[field::SIZE].copy_from_slice(&bytes);
            assert_eq!(number(&block, field::SIZE), expected);
        }
    }

    proptest! {
        #[test]
        fn what_fits_round_trips(
            name in "[a-z/]{1,100}", mode in 0u32..0o10000, uid in 0u32..1 << 21, size in 0u64..8 << 30,
            mtime in 0i64..1 << 33, link in "[a-z/.]{0,100}", device in (0u32..4096, 0u32..1 << 20),
        ) {
            let header = Header {
                name: name.as_bytes(), typeflag: typeflag::CHAR_DEVICE, mode, uid, gid: uid / 2, size, mtime,
                link: link.as_bytes(), device, xattrs: &[],
            };
            let bytes = encoded(&header);
            prop_assert_eq!(bytes.len(), BLOCK);
            let raw = decoded(&bytes);
            prop_assert_eq!(raw, Raw {
                name: name.into(), link: link.into(), typeflag: typeflag::CHAR_DEVICE, mode, uid: uid.into(),
                gid: (uid / 2).into(), size, mtime, device,
            });
        }

        #[test]
        fn another_reader_agrees(name in "[a-z/é]{1,300}", uid: u32, mtime: u32, size in 0u64..1 << 40) {
            let header = Header { uid, mtime: mtime.into(), size, ..file(name.as_bytes(), &[]) };
            let bytes = encoded(&header);
            let mut archive = tar::Archive::new(bytes.as_slice());
            let entry = archive.entries().unwrap().next().unwrap().unwrap();
            prop_assert_eq!(&*entry.path_bytes(), name.as_bytes());
            prop_assert_eq!(entry.size(), size);
            prop_assert_eq!(entry.header().uid().unwrap(), u64::from(uid));
            prop_assert_eq!(entry.header().mtime().unwrap(), u64::from(mtime));
        }

        #[test]
        fn hostile_headers_never_panic(bytes in prop::collection::vec(any::<u8>(), BLOCK)) {
            let mut block: [u8; BLOCK] = bytes.try_into().unwrap();
            let _ = decode(&block);
            finish(&mut block);
            let _ = decode(&block);
        }
    }
}
