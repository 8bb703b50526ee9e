//! The flags of an instruction: `--name=value` or `--name` before its arguments.
//!
//! Takes what follows the keyword, gives the flags, checked against those the instruction knows, and the rest. Quotes
//! around a flag or parts of it are taken off here, once; variables stay as they are.

use super::line::{Line, Part};
use crate::diagnostic::{Diagnostic, Span, Spanned, nearest};
use crate::recipe::Word;

/// What a flag takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A value.
    Text,
    /// A value; the flag may be given several times.
    List,
}

/// The flags an instruction knows.
pub(super) type Known = &'static [(&'static str, Takes)];

/// One flag as written.
#[derive(Debug)]
pub(super) struct Flag {
    name: String,
    value: Option<Word>,
    span: Span,
}

/// Flags that passed [`check`].
#[derive(Debug)]
pub(super) struct Flags(Vec<Flag>);

impl Flags {
    /// The value of a flag; an empty one counts as none.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.given(name).filter(|word| !word.value.is_empty())
    }

    /// The value of a flag, even if it is empty.
    pub(super) fn given(&self, name: &str) -> Option<Word> {
        self.0.iter().find(|flag| flag.name == name)?.value.clone()
    }

    /// Whether a flag without value is switched on; `None` where it was not given.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.0.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_ref().is_none_or(|word| word.value.eq_ignore_ascii_case("true")))
    }

    /// Every value of a flag, each with the place of the whole flag.
    pub(super) fn list(&self, name: &str) -> Vec<(Word, Span)> {
        let flags = self.0.iter().filter(|flag| flag.name == name);
        flags.filter_map(|flag| Some((flag.value.clone()?, flag.span))).collect()
    }
}

/// Takes the flags off the front of what follows a keyword. `--` ends them.
pub(super) fn extract<'a>(line: &Line<'_>, part: Part<'a>, escape: char) -> (Vec<Flag>, Part<'a>) {
    let mut flags = Vec::new();
    let mut rest = part;
    loop {
        let blank = rest.text.len() - rest.text.trim_start().len();
        rest = rest.skip(blank);
        if !rest.text.starts_with("--") {
            return (flags, rest.trim());
        }
        let (text, length) = unquote(rest.text, escape);
        let written = rest.sub(0..length);
        rest = rest.skip(length);
        if text == "--" {
            return (flags, rest.trim());
        }
        flags.push(read(line, &text, written));
    }
}

/// Reads a word up to the first white space outside quotes and takes off its quotes and escapes. Also gives the number
/// of bytes read.
fn unquote(text: &str, escape: char) -> (String, usize) {
    let mut word = String::new();
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match quote {
            None if character.is_whitespace() => return (word, at),
            None if matches!(character, '\'' | '"') => quote = Some(character),
            Some(open) if open == character => quote = None,
            _ if character == escape => word.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => word.push(character),
        }
    }
    (word, text.len())
}

fn read(line: &Line<'_>, text: &str, written: Part<'_>) -> Flag {
    let span = line.span_of(written);
    let body = text.strip_prefix("--").unwrap_or(text);
    let Some((name, value)) = body.split_once('=') else {
        return Flag { name: body.to_owned(), value: None, span };
    };
    // Where nothing was taken off, the value has a place of its own.
    let place = if text == written.text { line.span_of(written.skip(text.len() - value.len())) } else { span };
    Flag { name: name.to_owned(), value: Some(Spanned::new(value.to_owned(), place)), span }
}

/// Checks the flags of an instruction against those it knows.
pub(super) fn check(flags: Vec<Flag>, instruction: &str, known: Known) -> Result<Flags, Diagnostic> {
    let mut seen = vec![false; known.len()];
    for flag in &flags {
        let Some(index) = known.iter().position(|(name, _)| *name == flag.name) else {
            return Err(unknown(flag, instruction, known));
        };
        let takes = known[index].1;
        if std::mem::replace(&mut seen[index], true) && takes != Takes::List {
            return Err(Diagnostic::error(flag.span, format!("duplicate flag: --{}", flag.name)));
        }
        check_value(flag, takes)?;
    }
    Ok(Flags(flags))
}

fn check_value(flag: &Flag, takes: Takes) -> Result<(), Diagnostic> {
    let missing = || Diagnostic::error(flag.span, format!("missing a value on flag: --{}", flag.name));
    match (takes, &flag.value) {
        (Takes::Bool, None) | (Takes::Text | Takes::List, Some(_)) => Ok(()),
        (Takes::Text | Takes::List, None) => {
            Err(missing().help(format!("write --{}=…, with no blank around the =", flag.name)))
        }
        (Takes::Bool, Some(word)) if word.value.is_empty() => Err(missing()),
        (Takes::Bool, Some(word)) if ["true", "false"].iter().any(|known| word.value.eq_ignore_ascii_case(known)) => {
            Ok(())
        }
        (Takes::Bool, Some(word)) => Err(Diagnostic::error(
            word.span,
            format!("expecting boolean value for flag --{}, not: {}", flag.name, word.value),
        )
        .help("write true or false, or only the flag's name")),
    }
}

fn unknown(flag: &Flag, instruction: &str, known: Known) -> Diagnostic {
    let diagnostic = Diagnostic::error(flag.span, format!("unknown flag for {instruction}: --{}", flag.name));
    if instruction == "RUN" && flag.name == "device" {
        return diagnostic.help("--device exists only in the experimental (labs) syntax");
    }
    match nearest(&flag.name, known.iter().map(|(name, _)| *name)) {
        Some(name) => diagnostic.help(format!("did you mean --{name}?")),
        None if known.is_empty() => {
            diagnostic.help(format!("{instruction} takes no flags; put -- before an argument that begins with --"))
        }
        None => {
            let names: Vec<String> = known.iter().map(|(name, _)| format!("--{name}")).collect();
            diagnostic.help(format!("{instruction} takes {}", names.join(", ")))
        }
    }
}

/// Warns of flags on an instruction for which BuildKit accepts and forgets them.
pub(super) fn warn_ignored(flags: &[Flag], instruction: &str, warnings: &mut Vec<Diagnostic>) {
    warnings.extend(flags.iter().map(|flag| {
        let message = format!("{instruction} takes no flags: --{} has no effect", flag.name);
        Diagnostic::warning("FlagWithoutEffect", flag.span, message).help("remove the flag")
    }));
}
