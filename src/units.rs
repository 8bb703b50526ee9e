//! How people write quantities: sizes, durations, numbers of processors.
//!
//! Takes a text in the words that Docker and Go take, gives a number, or nothing where the text is none; and writes sizes
//! and durations the same way. Never rounds up, never guesses a unit.

use std::time::Duration;

/// A number of bytes such as `64`, `1.5g`, `10 MiB`: powers of 1024, as Docker reads them.
pub fn bytes(text: &str) -> Option<u64> {
    let last = text.rfind(|c: char| c.is_ascii_digit() || matches!(c, '.' | ' '))?;
    let (number, unit) = text.split_at(last + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let mut unit = unit.to_ascii_lowercase();
    let exponent = match unit.chars().next() {
        None | Some('b') => 0,
        Some(letter) => {
            let exponent = 1 + "kmgtp".find(letter)?;
            unit.remove(0);
            exponent
        }
    };
    if !matches!((unit.as_str(), exponent), ("" | "b", _) | ("ib", 1..)) {
        return None;
    }
    if !number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        return None;
    }
    let factor = 1024_u64.checked_pow(u32::try_from(exponent).ok()?)?;
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(factor);
    }
    let (whole, fraction) = number.split_once('.')?;
    let whole = if whole.is_empty() { 0 } else { whole.parse::<u64>().ok()? };
    // A fraction is only ever a few digits of a power of 1024, so 128 bits hold the product; the rest is below a byte.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = if fraction.is_empty() { 0 } else { fraction.parse::<u128>().ok()? };
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let part = u64::try_from(digits * u128::from(factor) / scale).ok()?;
    whole.checked_mul(factor)?.checked_add(part)
}

/// A size, or a share of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths.
    Percent(u8),
}

impl Amount {
    /// The bytes it stands for, out of a whole.
    pub fn of(self, whole: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            // Divided last, in room enough, so that nothing is lost.
            Self::Percent(percent) => u64::try_from(u128::from(whole) * u128::from(percent) / 100).unwrap_or(u64::MAX),
        }
    }
}

/// A number of bytes, or a share such as `10%`, of at most the whole.
pub fn amount(text: &str) -> Option<Amount> {
    match text.strip_suffix('%') {
        Some(percent) => percent.trim_end().parse().ok().filter(|percent| *percent <= 100).map(Amount::Percent),
        None => bytes(text).map(Amount::Bytes),
    }
}

/// An age: a duration as Go reads it, or a number of days (`d`) or weeks (`w`).
pub fn age(text: &str) -> Option<Duration> {
    const DAY: u64 = 24 * 3600;
    let (number, unit) = text.split_at(text.len().checked_sub(1).filter(|at| text.is_char_boundary(*at))?);
    let seconds = match unit {
        "d" => DAY,
        "w" => 7 * DAY,
        _ => return duration(text).filter(|(negative, _)| !negative).map(|(_, age)| age),
    };
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// A duration as Go's `time.ParseDuration` reads it, such as `1m30s`: whether it is negative, and its size.
pub fn duration(text: &str) -> Option<(bool, Duration)> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let negative = text.starts_with('-');
    if unsigned == "0" {
        return Some((negative, Duration::ZERO));
    }
    let mut nanoseconds: u128 = 0;
    let mut rest = unsigned;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = after.strip_prefix('.').map_or(("", after), digits);
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let unit_length = after.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_length);
        let unit: u128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        // What lies beyond eighteen decimal places is less than a nanosecond of any unit.
        let fraction = &fraction[..fraction.len().min(18)];
        let part: u128 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
        let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        nanoseconds = nanoseconds.checked_add(whole.checked_mul(unit)?)?.checked_add(part * unit / scale)?;
        rest = after;
    }
    let nanoseconds = i64::try_from(nanoseconds).ok().and_then(|value| u64::try_from(value).ok())?;
    Some((negative, Duration::from_nanos(nanoseconds)))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A number of processors such as `2` or `0.5`, in thousandths.
///
/// A digit beyond the third place is refused: it would mean something to nobody.
pub fn processors(text: &str) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !is_number(whole) || !is_number(fraction) {
        return None;
    }
    let fraction = fraction.trim_end_matches('0');
    if fraction.len() > 3 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    whole.checked_mul(1000)?.checked_add(format!("{fraction:0<3}").parse().ok()?)
}

/// A number of bytes in the largest unit in which it is whole: `512m`, `1000`.
pub fn write_bytes(bytes: u64) -> String {
    let fits = |shift: &u32| bytes != 0 && bytes.trailing_zeros() >= *shift;
    match [40, 30, 20, 10].into_iter().find(fits) {
        Some(shift) => {
            let unit = ["k", "m", "g", "t"][shift as usize / 10 - 1];
            format!("{}{unit}", bytes >> shift)
        }
        None => bytes.to_string(),
    }
}

/// A duration as Go writes it: `1h2m3s`, `1.5s`, `20ms`.
pub fn write_duration(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    let rest = match (seconds % 60, millis) {
        (0, 0) if seconds > 0 => String::new(),
        (0, millis) if seconds == 0 => format!("{millis}ms"),
        (seconds, 0) => format!("{seconds}s"),
        (seconds, millis) => format!("{seconds}.{}s", format!("{millis:03}").trim_end_matches('0')),
    };
    let part = |number: u64, unit: &str| if number > 0 { format!("{number}{unit}") } else { String::new() };
    format!("{}{}{rest}", part(hours, "h"), part(minutes, "m"))
}

/// How long ago something was, in the largest whole unit: `2 hours ago`.
pub fn write_age(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024() {
        for (text, size) in [
            ("0", 0),
            ("64", 64),
            ("64b", 64),
            ("1k", 1024),
            ("1KB", 1024),
            ("1 KiB", 1024),
            ("2m", 2 << 20),
            ("1.5g", 3 << 29),
            (".5k", 512),
            ("1t", 1 << 40),
            ("1p", 1 << 50),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "k", "-1", "1kk", "1x", "1ib", "1 2k", "99999999999999999999", "1..2"] {
            assert_eq!(bytes(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_sizes_or_shares() {
        for (text, expected) in [
            ("10%", Some(Amount::Percent(10))),
            ("100 %", Some(Amount::Percent(100))),
            ("20 GB", Some(Amount::Bytes(20 << 30))),
            ("0", Some(Amount::Bytes(0))),
            ("101%", None),
            ("-1%", None),
            ("%", None),
            ("much", None),
        ] {
            assert_eq!(amount(text), expected, "{text}");
        }
        assert_eq!(Amount::Percent(10).of(u64::MAX), u64::MAX / 10);
        for (text, hours) in [("24h", Some(24)), ("7d", Some(168)), ("2w", Some(336)), ("0", Some(0)), ("-1h", None)] {
            assert_eq!(age(text), hours.map(|hours| Duration::from_secs(hours * 3600)), "{text}");
        }
        assert!(["", "d", "x", "1.5d", "é"].iter().all(|text| age(text).is_none()));
    }

    #[test]
    fn durations_are_written_as_in_go() {
        for (text, nanoseconds) in [
            ("0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5h", 5_400_000_000_000),
            ("100ms", 100_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1us1µs1μs1ns", 3_001),
            ("+1s", 1_000_000_000),
        ] {
            assert_eq!(duration(text), Some((false, Duration::from_nanos(nanoseconds))), "{text}");
        }
        for text in
            ["", "+", "1", "s", ".s", "1d", "1 s", "1s ", "9999999999h", "99999999999999999999999999999999999999999s"]
        {
            assert_eq!(duration(text), None, "{text}");
        }
        assert_eq!(duration("-1s"), Some((true, Duration::from_secs(1))));
    }

    #[test]
    fn processors_are_counted_in_thousandths() {
        for (text, thousandths) in
            [("1", Some(1000)), ("0.5", Some(500)), (".25", Some(250)), ("1.", Some(1000)), ("0.0010", Some(1))]
        {
            assert_eq!(processors(text), thousandths, "{text}");
        }
        for text in ["", ".", "-1", "1.0001", "1e3", "two", "99999999999999999999"] {
            assert_eq!(processors(text), None, "{text}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (bytes, text) in
            [(0, "0"), (1000, "1000"), (1024, "1k"), (512 << 20, "512m"), (3 << 29, "1536m"), (1 << 40, "1t")]
        {
            assert_eq!(write_bytes(bytes), text);
            assert_eq!(super::bytes(text), Some(bytes));
        }
        for (millis, text) in [
            (20, "20ms"),
            (1000, "1s"),
            (1500, "1.5s"),
            (90_000, "1m30s"),
            (3_600_000, "1h"),
            (3_661_005, "1h1m1.005s"),
        ] {
            assert_eq!(write_duration(Duration::from_millis(millis)), text);
            assert_eq!(duration(text), Some((false, Duration::from_millis(millis))));
        }
    }
}
