//! The encoding that SSH's key files, signatures and agent protocol share (RFC 4251, section 5).
//!
//! Takes bytes apart and puts them together; a value that is cut off is `None`. Allocates nothing that a length in the
//! input asks for, and knows nothing of what the values mean.

/// Takes values from the front of some bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    /// `byte`
    pub(super) fn byte(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    /// `uint32`
    pub(super) fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    /// `string`
    pub(super) fn string(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        self.take(length)
    }

    /// `mpint` that is not negative, without leading zeros.
    pub(super) fn integer(&mut self) -> Option<&'a [u8]> {
        let bytes = self.string()?;
        let negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
        (!negative).then(|| without_zeros(bytes))
    }
}

/// Appends a `string`.
pub(super) fn put_string(out: &mut Vec<u8>, bytes: &[u8]) {
    // What is written here is some kilobytes at most.
    let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Appends an `mpint` that is not negative, given as big-endian bytes.
pub(super) fn put_integer(out: &mut Vec<u8>, bytes: &[u8]) {
    let bytes = without_zeros(bytes);
    // The highest bit is the sign.
    let sign: &[u8] = if bytes.first().is_some_and(|byte| *byte >= 0x80) { &[0] } else { &[] };
    put_string(out, &[sign, bytes].concat());
}

/// A big-endian number without the zeros it begins with.
pub(super) fn without_zeros(bytes: &[u8]) -> &[u8] {
    let first = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len());
    &bytes[first..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_read() {
        // The examples of RFC 4251 that are not negative.
        for (value, encoded) in [
            (&[][..], "00000000"),
            (&[0x09, 0xa3, 0x78, 0xf9, 0xb2, 0xe3, 0x32, 0xa7], "0000000809a378f9b2e332a7"),
            (&[0x80], "000000020080"),
            (&[0, 0, 0x7f], "000000017f"),
        ] {
            let mut out = Vec::new();
            put_integer(&mut out, value);
            assert_eq!(out.iter().map(|byte| format!("{byte:02x}")).collect::<String>(), encoded);
            let mut reader = Reader::new(&out);
            assert_eq!(reader.integer(), Some(without_zeros(value)));
            assert_eq!(reader.byte(), None);
        }
        let mut out = Vec::new();
        put_string(&mut out, b"testing");
        assert_eq!(out, b"\0\0\0\x07testing");
        assert_eq!(Reader::new(&out).string(), Some(&b"testing"[..]));
    }

    #[test]
    fn what_is_cut_off_or_negative_is_nothing() {
        assert_eq!(Reader::new(&[0, 0, 0]).number(), None);
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 1]).string(), None);
        assert_eq!(Reader::new(&[0, 0, 0, 1, 0x80]).integer(), None);
    }
}
