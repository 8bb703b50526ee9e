//! `HEALTHCHECK`: what is run to see whether a container works, and how often.
//!
//! Takes its arguments, gives a [`Healthcheck`]. Durations are written as Go writes them (`1m30s`).

use std::time::Duration;

use super::command::command_line;
use super::flag::{Flags, Known, Takes};
use super::instruction::Input;
use crate::diagnostic::Diagnostic;
use crate::recipe::{CommandLine, Healthcheck};
use crate::units;

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
    let Some((negative, duration)) = units::duration(&word.value) else {
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
