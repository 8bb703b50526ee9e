//! Tables for people, and the units in them.

use std::time::SystemTime;

use crate::units;

/// Columns of words, each as wide as its widest word, two blanks apart.
pub(super) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|n| rows.iter().filter_map(|row| row.get(n)).map(|word| word.chars().count()).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let line: Vec<String> = row.iter().zip(&widths).map(|(word, width)| format!("{word:width$}")).collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A size in decimal units, as Docker shows them.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TB", 1_000_000_000_000), ("GB", 1_000_000_000), ("MB", 1_000_000), ("kB", 1_000)];
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit),
        None => format!("{bytes} B"),
    }
}

/// How long ago a time (RFC 3339) was, in the largest whole unit.
pub(super) fn age(created: &str, now: SystemTime) -> String {
    let Ok(created) = created.parse::<jiff::Timestamp>() else { return "unknown".to_owned() };
    let now = jiff::Timestamp::try_from(now).unwrap_or(jiff::Timestamp::MAX);
    units::write_age(u64::try_from(now.as_second() - created.as_second()).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!([0, 999, 1_500, 2_345_678, 7_000_000_000].map(size), ["0 B", "999 B", "1.5 kB", "2.3 MB", "7.0 GB"]);
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7200);
        assert_eq!(age("1970-01-01T00:00:00Z", now), "2 hours ago");
        assert_eq!(age("1970-01-01T01:59:59Z", now), "1 second ago");
        assert_eq!(age("long ago", now), "unknown");
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["A".to_owned(), "B".to_owned()], vec!["long".to_owned(), "x".to_owned()]];
        assert_eq!(table(&rows), "A     B\nlong  x\n");
    }
}
