//! `HEALTHCHECK`: what is run to see whether a container works, and how often.
//!
//! Takes its arguments, gives a [`Healthcheck`]. Durations are written as Go writes them (`1m30s`).

use std::time::Duration;

use super::command::command_line;
use super::flag::{Flags, Known, Takes};
use super::instruction::Input;
use crate::diagnostic::Diagnostic;
use crate::recipe::{CommandLine, Healthcheck};

const FLAGS: Known = &[
    ("interval", Takes::Text),
    ("timeout", Takes::Text),
    ("start-period", Takes::Text),
    ("start-interval", Takes::Text),
    ("retries", Takes::Text),
];

/// `HEALTHCHECK NONE` or `HEALTHCHECK [flags] CMD …`
pub(super) fn parse(mut input: Input<'_>, warnings: &mut Vec<Diagnostic>) -> Result<Healthcheck, Diagnostic> {
    let text = input.arguments.text;
    if text.is_empty() {
        return Err(input.error("HEALTHCHECK requires at least one argument"));
    }
    let end = text.find(char::is_whitespace).unwrap_or(text.len());
    let kind = input.arguments.sub(0..end);
    let rest = input.arguments.skip(end).trim();
    let command = command_line(&input, rest)?;
    let empty = match &command {
        CommandLine::Shell(word) => word.value.is_empty(),
        CommandLine::Exec(words) => words.is_empty(),
    };
    if kind.text.eq_ignore_ascii_case("NONE") {
        if !empty {
            return Err(Diagnostic::error(input.line.span_of(rest), "HEALTHCHECK NONE takes no arguments"));
        }
        input.forget_flags(warnings);
        return Ok(Healthcheck::None);
    }
    let flags = input.flags(FLAGS)?;
    if !kind.text.eq_ignore_ascii_case("CMD") {
        let message = format!("unknown type \"{}\" in HEALTHCHECK (try CMD)", kind.text.to_uppercase());
        return Err(
            Diagnostic::error(input.line.span_of(kind), message).help("write HEALTHCHECK CMD before the command")
        );
    }
    if empty {
        return Err(input.error("missing command after HEALTHCHECK CMD"));
    }
    Ok(Healthcheck::Command {
        command,
        interval: duration(&flags, "interval")?,
        timeout: duration(&flags, "timeout")?,
        start_period: duration(&flags, "start-period")?,
        start_interval: duration(&flags, "start-interval")?,
        retries: retries(&flags)?,
    })
}

/// A duration of at least a millisecond; zero counts as not given.
fn duration(flags: &Flags, name: &str) -> Result<Option<Duration>, Diagnostic> {
    let Some(word) = flags.text(name) else { return Ok(None) };
    let Some((negative, duration)) = go_duration(&word.value) else {
        let message = format!("invalid duration \"{}\" for --{name}", word.value);
        return Err(Diagnostic::error(word.span, message).help("write it like 30s, 1m30s or 500ms"));
    };
    if duration.is_zero() {
        return Ok(None);
    }
    if negative || duration < Duration::from_millis(1) {
        return Err(Diagnostic::error(word.span, format!("interval \"{name}\" cannot be less than 1ms")));
    }
    Ok(Some(duration))
}

fn retries(flags: &Flags) -> Result<Option<u32>, Diagnostic> {
    let Some(word) = flags.text("retries") else { return Ok(None) };
    match word.value.parse::<i32>() {
        Ok(count) => match u32::try_from(count) {
            Ok(count) => Ok(Some(count).filter(|count| *count > 0)),
            Err(_) => Err(Diagnostic::error(word.span, format!("--retries cannot be negative ({count})"))),
        },
        Err(_) => Err(Diagnostic::error(word.span, format!("--retries is not a number: {}", word.value))),
    }
}

/// Reads a duration as Go's `time.ParseDuration` does: its sign and its size.
fn go_duration(text: &str) -> Option<(bool, Duration)> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
            assert_eq!(go_duration(text), Some((false, Duration::from_nanos(nanoseconds))), "{text}");
        }
        for text in
            ["", "+", "1", "s", ".s", "1d", "1 s", "1s ", "9999999999h", "99999999999999999999999999999999999999999s"]
        {
            assert_eq!(go_duration(text), None, "{text}");
        }
        assert_eq!(go_duration("-1s"), Some((true, Duration::from_secs(1))));
    }
}
