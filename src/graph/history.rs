//! The sentences of an image's history, in BuildKit's shape.
//!
//! Takes what a step did, gives the text of `created_by` and the entry around it. Tools read these texts (scanners,
//! `docker history`), so they follow Go's formatting of lists, quoted strings and durations to the letter.

use std::fmt::Write as _;

use crate::image::config::{HealthConfig, History};

/// What BuildKit writes as the comment of every entry.
const COMMENT: &str = "buildkit.dockerfile.v0";

/// An entry for one step; the times are filled in when the image is put together.
pub(super) fn entry(created_by: String, layer: bool) -> History {
    History {
        created_by: Some(created_by),
        comment: Some(COMMENT.to_owned()),
        empty_layer: !layer,
        ..History::default()
    }
}

/// `[a b c]`: a list as Go's `%v` prints it.
pub(super) fn list<T: AsRef<str>>(items: &[T]) -> String {
    let items: Vec<&str> = items.iter().map(AsRef::as_ref).collect();
    format!("[{}]", items.join(" "))
}

/// `["a" "b"]`: a list of strings as Go's `%q` prints it.
pub(super) fn quoted_list(items: &[String]) -> String {
    let items: Vec<String> = items.iter().map(|item| quoted(item)).collect();
    list(&items)
}

/// `|2 A=1 B=2 /bin/sh -c text`: a `RUN` with the build arguments it saw.
pub(super) fn run(arguments: &[(String, String)], argv: &[String]) -> String {
    let mut words = Vec::with_capacity(arguments.len() + argv.len() + 1);
    if !arguments.is_empty() {
        words.push(format!("|{}", arguments.len()));
        words.extend(arguments.iter().map(|(name, value)| format!("{name}={value}")));
    }
    words.extend_from_slice(argv);
    words.join(" ")
}

/// `{Test:[CMD-SHELL true] Interval:30s …}`: a health check as Go's `%+v` prints it.
pub(super) fn health(check: &HealthConfig) -> String {
    format!(
        "{{Test:{} Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
        list(&check.test),
        duration(check.interval),
        duration(check.timeout),
        duration(check.start_period),
        duration(check.start_interval),
        check.retries.unwrap_or_default()
    )
}

/// A string in double quotes as Go's `strconv.Quote` writes it.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            _ if is_printable(character) => out.push(character),
            _ => push_escaped(&mut out, u32::from(character)),
        }
    }
    out.push('"');
    out
}

fn push_escaped(out: &mut String, code: u32) {
    let written = match code {
        0..0x80 => write!(out, "\\x{code:02x}"),
        0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
    debug_assert!(written.is_ok(), "writing to a string cannot fail");
}

/// Whether Go would print a character as it is. The standard library's own notion of "printable" is only offered through
/// escaping, which leaves combining characters alone when they follow another character.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        '\0'..='\u{7f}' => false,
        _ if character.is_whitespace() => false,
        _ => {
            let pair: String = ['a', character].iter().collect();
            !pair.escape_debug().to_string().contains("\\u")
        }
    }
}

/// Nanoseconds as Go's `time.Duration` prints them: `1h2m3.5s`, `1.5ms`, `0s`.
fn duration(nanoseconds: Option<u64>) -> String {
    const SECOND: u64 = 1_000_000_000;
    let nanoseconds = nanoseconds.unwrap_or_default();
    match nanoseconds {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanoseconds}ns"),
        1_000..1_000_000 => format!("{}µs", decimal(nanoseconds, 1_000, 3)),
        1_000_000..SECOND => format!("{}ms", decimal(nanoseconds, 1_000_000, 6)),
        _ => {
            let minutes = nanoseconds / (60 * SECOND);
            let seconds = decimal(nanoseconds % (60 * SECOND), SECOND, 9);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{seconds}s"),
                (0, minutes) => format!("{minutes}m{seconds}s"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}s"),
            }
        }
    }
}

/// `value / unit` with as many decimals as it needs.
fn decimal(value: u64, unit: u64, digits: usize) -> String {
    let text = format!("{}.{:0digits$}", value / unit, value % unit);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_in_go() {
        for (nanoseconds, expected) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5µs"),
            (1_000_000, "1ms"),
            (999_999_999, "999.999999ms"),
            (30_000_000_000, "30s"),
            (300_000_000_000, "5m0s"),
            (3_600_000_000_000, "1h0m0s"),
            (5_025_500_000_000, "1h23m45.5s"),
        ] {
            assert_eq!(duration(Some(nanoseconds)), expected);
        }
    }

    #[test]
    fn strings_are_quoted_as_in_go() {
        for (text, expected) in [
            ("sh", r#""sh""#),
            ("a \"b\" \\", r#""a \"b\" \\""#),
            ("a\nb\tc\u{1}", r#""a\nb\tc\x01""#),
            ("é ü 漢 🙂", "\"é ü 漢 🙂\""),
            ("\u{a0}\u{200b}\u{7f}", r#""\u00a0\u200b\x7f""#),
            ("e\u{301}", "\"e\u{301}\""),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }

    #[test]
    fn a_run_lists_its_arguments_first() {
        let argv = ["/bin/sh".to_owned(), "-c".to_owned(), "make".to_owned()];
        assert_eq!(run(&[], &argv), "/bin/sh -c make");
        assert_eq!(run(&[("A".to_owned(), "1".to_owned())], &argv), "|1 A=1 /bin/sh -c make");
    }
}
