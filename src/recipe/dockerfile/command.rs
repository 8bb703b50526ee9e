//! The instructions that run something: `RUN`, `CMD`, `ENTRYPOINT`, and `SHELL`, which says how.
//!
//! Takes their arguments, gives a command in shell or exec form. Text that only looks like JSON is text for the shell.

use super::flag::{Flags, Known, Takes};
use super::instruction::{Input, heredocs};
use super::line::Part;
use super::mount;
use crate::diagnostic::{Diagnostic, Spanned};
use crate::recipe::{CommandLine, Network, Run, Security};

const RUN: Known = &[("mount", Takes::List), ("network", Takes::Text), ("security", Takes::Text)];

/// `RUN …`
pub(super) fn run(mut input: Input<'_>, warnings: &mut Vec<Diagnostic>) -> Result<Run, Diagnostic> {
    let command = command_line(&input, input.arguments)?;
    let flags = input.flags(RUN)?;
    let mut mounts = Vec::new();
    for (value, span) in flags.list("mount") {
        mounts.push(mount::parse(&value, span, input.escape, warnings)?);
    }
    let network = one_of(
        &flags,
        "network",
        "invalid network mode",
        &[("default", Network::Default), ("none", Network::None), ("host", Network::Host)],
    )?;
    let security = one_of(
        &flags,
        "security",
        "invalid security mode",
        &[("sandbox", Security::Sandbox), ("insecure", Security::Insecure)],
    )?;
    Ok(Run { command, heredocs: heredocs(input.heredocs), mounts, network, security })
}

/// `CMD …` and `ENTRYPOINT …`
pub(super) fn plain(mut input: Input<'_>) -> Result<CommandLine, Diagnostic> {
    let command = command_line(&input, input.arguments)?;
    input.flags(&[])?;
    Ok(command)
}

/// `SHELL ["program", "argument"…]`
pub(super) fn shell(mut input: Input<'_>) -> Result<Vec<String>, Diagnostic> {
    let words = input.json(input.arguments)?;
    input.flags(&[])?;
    match words {
        Some(words) if !words.is_empty() => Ok(words.into_iter().map(|word| word.value).collect()),
        None if !input.arguments.text.is_empty() => {
            let message = "SHELL requires the arguments to be in JSON form";
            Err(Diagnostic::error(input.line.span_of(input.arguments), message)
                .help("write it like SHELL [\"/bin/bash\", \"-c\"]"))
        }
        _ => Err(input.error("SHELL requires at least one argument")),
    }
}

/// A command in either form.
pub(super) fn command_line(input: &Input<'_>, part: Part<'_>) -> Result<CommandLine, Diagnostic> {
    Ok(match input.json(part)? {
        Some(words) => CommandLine::Exec(words.into_iter().map(|word| word.value).collect()),
        None => CommandLine::Shell(input.line.word(part)),
    })
}

/// The value of a flag that has a fixed set of them.
fn one_of<T: Copy>(
    flags: &Flags,
    name: &str,
    wrong: &str,
    known: &[(&str, T)],
) -> Result<Option<Spanned<T>>, Diagnostic> {
    let Some(word) = flags.given(name) else { return Ok(None) };
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == word.value) {
        return Ok(Some(Spanned::new(*value, word.span)));
    }
    let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
    let diagnostic = Diagnostic::error(word.span, format!("{wrong} \"{}\"", word.value));
    Err(mount::suggest(diagnostic, &word.value, &names))
}
