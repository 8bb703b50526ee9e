//! The records of a PAX extended header (POSIX.1-2017, pax, "pax Extended Header").
//!
//! Takes keys and values, gives `length key=value\n` records, and back. Knows nothing of what a key means.

/// The largest extended header that is read or written, in bytes. Readers written in Go refuse more.
pub(super) const LARGEST: usize = 1 << 20;

/// Adds one record. The key has no `=` in it; the value may be any bytes.
pub(super) fn push(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    debug_assert!(!key.contains(&b'='), "a key ends at its first equals sign");
    // The length counts its own digits, so it is what it takes to write itself and the rest.
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + digits(length) {
        length = rest + digits(length);
    }
    records.extend_from_slice(format!("{length} ").as_bytes());
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

fn digits(number: usize) -> usize {
    number.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// Takes the first record off `records`. `None` if it is not a record.
pub(super) fn take<'a>(records: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    let space = records.iter().take(20).position(|byte| *byte == b' ')?;
    let length: usize = std::str::from_utf8(&records[..space]).ok()?.parse().ok()?;
    let (record, rest) = records.split_at_checked(length)?;
    let body = record.get(space + 1..)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    *records = rest;
    Some((&body[..equals], &body[equals + 1..]))
}

/// A decimal number.
pub(super) fn number(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A time in decimal seconds, with a sign and a fraction of any length, as seconds and nanoseconds since 1970;
/// what is finer than a nanosecond is cut off towards the past.
pub(super) fn time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let seconds: i64 = whole.parse().ok()?;
    let kept = &fraction[..fraction.len().min(9)];
    let nanoseconds: u32 = format!("{kept:0<9}").parse().ok()?;
    if !negative {
        return Some((seconds, nanoseconds));
    }
    let lost = fraction.bytes().skip(9).any(|digit| digit != b'0');
    match nanoseconds + u32::from(lost) {
        0 => Some((-seconds, 0)),
        past => Some((-seconds - 1, 1_000_000_000 - past)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn lengths_count_themselves() {
        for (key, value, expected) in [
            ("path", "a", "9 path=a\n"),
            ("path", "", "8 path=\n"),
            ("k", "1234", "9 k=1234\n"),
            ("k", "12345", "11 k=12345\n"),
        ] {
            let mut records = Vec::new();
            push(&mut records, key.as_bytes(), value.as_bytes());
            assert_eq!(String::from_utf8(records).unwrap(), expected);
        }
    }

    #[test]
    fn times_are_cut_towards_the_past() {
        for (text, expected) in [
            ("0", Some((0, 0))),
            ("12.5", Some((12, 500_000_000))),
            ("12.1234567899", Some((12, 123_456_789))),
            ("-1", Some((-1, 0))),
            ("-1.5", Some((-2, 500_000_000))),
            ("-0.0000000001", Some((-1, 999_999_999))),
            ("", None),
            ("1.x", None),
            ("+1", None),
            ("99999999999999999999", None),
        ] {
            assert_eq!(time(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_record_is_refused() {
        for bad in ["", "x", "5 a=b\n", "99 a=b\n", "6 a=b", "4 ab\n", " a=b\n", "-6 a=b\n", "0 a=b\n", "1 a=b\n"] {
            assert_eq!(take(&mut bad.as_bytes()), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn records_round_trip(key in "[a-z.]{1,20}", value in prop::collection::vec(any::<u8>(), 0..1200)) {
            let mut records = Vec::new();
            push(&mut records, key.as_bytes(), &value);
            push(&mut records, b"next", b"");
            let mut rest = records.as_slice();
            prop_assert_eq!(take(&mut rest), Some((key.as_bytes(), value.as_slice())));
            prop_assert_eq!(take(&mut rest), Some((&b"next"[..], &b""[..])));
            prop_assert!(rest.is_empty());
        }

        #[test]
        fn hostile_records_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let mut rest = bytes.as_slice();
            while take(&mut rest).is_some() {}
            let _ = (time(&bytes), number(&bytes));
        }
    }
}
