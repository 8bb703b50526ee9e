//! The instructions that bring files in: `COPY` and `ADD`.
//!
//! Takes their arguments, gives sources, destination and what the flags say. Paths stay as written.

use super::flag::{Flags, Known, Takes};
use super::heredoc::{self, Announced};
use super::instruction::Input;
use crate::diagnostic::{Diagnostic, Spanned};
use crate::recipe::{Add, Copy, Files, Heredoc, Instruction, Word};

const COPY: Known = &[
    ("from", Takes::Text),
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("parents", Takes::Bool),
    ("exclude", Takes::List),
];

const ADD: Known = &[
    ("chown", Takes::Text),
    ("chmod", Takes::Text),
    ("link", Takes::Bool),
    ("keep-git-dir", Takes::Bool),
    ("checksum", Takes::Text),
    ("unpack", Takes::Bool),
    ("exclude", Takes::List),
];

/// `COPY source… destination`
pub(super) fn copy(mut input: Input<'_>) -> Result<Instruction, Diagnostic> {
    let words = arguments(&input)?;
    let flags = input.flags(COPY)?;
    let files = files(input, words, &flags)?;
    Ok(Instruction::Copy(Copy { from: flags.text("from"), files, parents: flags.switch("parents").unwrap_or(false) }))
}

/// `ADD source… destination`
pub(super) fn add(mut input: Input<'_>) -> Result<Instruction, Diagnostic> {
    let words = arguments(&input)?;
    let flags = input.flags(ADD)?;
    let files = files(input, words, &flags)?;
    Ok(Instruction::Add(Add {
        files,
        checksum: flags.text("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
    }))
}

fn arguments(input: &Input<'_>) -> Result<(Vec<Word>, Word), Diagnostic> {
    let mut words = input.list()?;
    match words.pop() {
        Some(destination) if !words.is_empty() => Ok((words, destination)),
        one => {
            let given = if one.is_some() { ", but only one was provided" } else { "" };
            let message =
                format!("{} requires at least two arguments{given}: destination could not be determined", input.name);
            Err(input.error(message))
        }
    }
}

fn files(input: Input<'_>, words: (Vec<Word>, Word), flags: &Flags) -> Result<Files, Diagnostic> {
    let (mut sources, destination) = words;
    if announced(&destination).is_some() {
        let message = format!("{} cannot accept a heredoc as a destination", input.name);
        return Err(Diagnostic::error(destination.span, message));
    }
    let mut heredocs = Vec::new();
    for source in &mut sources {
        if let Some(announced) = announced(source) {
            source.value = format!("<<{}", announced.name);
            heredocs.push(inline_file(announced, source, &input));
        }
    }
    Ok(Files {
        sources,
        destination,
        heredocs,
        chown: flags.text("chown"),
        chmod: flags.text("chmod"),
        link: flags.switch("link").unwrap_or(false),
        exclude: flags
            .list("exclude")
            .into_iter()
            .map(|(word, _)| word)
            .filter(|word| !word.value.is_empty())
            .collect(),
    })
}

fn announced(word: &Word) -> Option<Announced> {
    // A word that cannot be read as a heredoc is a path; if it cannot be read at all, its expansion will say so.
    heredoc::announced(&word.value).ok().flatten()
}

/// The heredoc of a source. Of several with one name the last counts; one without a body, which the JSON form makes
/// possible, is an empty file, as in BuildKit.
fn inline_file(announced: Announced, source: &Word, input: &Input<'_>) -> Heredoc {
    let Announced { name, expand, strip_tabs, fd } = announced;
    let read = input.heredocs.iter().rev().find(|read| read.heredoc.name == name);
    let (body, raw) = match read {
        Some(read) => (read.heredoc.body.clone(), read.heredoc.raw.clone()),
        None => (Spanned::new(String::new(), source.span), String::new()),
    };
    Heredoc { name, body, raw, expand, strip_tabs, fd }
}
