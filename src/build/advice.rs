//! Which word of a step an error is about, and what a person can do about it.
//!
//! Takes a failed step as the recipe has it and the error, gives a narrower place and a sentence of help. Where a word is
//! not there as it is meant, because a variable stands for it, the place is the whole step.

use std::path::Path;

use super::error::is_full_disk;
use crate::diagnostic::{SourceFile, Span};
use crate::execute::{self, copy, stage};
use crate::fetch;
use crate::graph::{Op, Origin};
use crate::runtime;

/// The place of the word that an error is about, or that of the whole step.
pub(super) fn place(source: &SourceFile, origin: &Origin, op: &Op, error: &execute::Error) -> Span {
    let is_it = |word: &str| match error {
        execute::Error::NotFound { source_path, .. } => bare(word) == bare(source_path),
        execute::Error::Fetch(fetch::Error::Checksum { .. }) if has_flag(source, origin.span, "--checksum=") => {
            word.starts_with("--checksum=")
        }
        execute::Error::Fetch(error) => address(op, error).is_some_and(|address| word.starts_with(address)),
        error if is_owner(error) => word.starts_with("--chown="),
        _ => false,
    };
    words(source, origin.span).find(|(_, word)| is_it(word)).map_or(origin.span, |(span, _)| span)
}

/// What a person can do about an error; `root` is where the store is.
pub(super) fn help(source: &SourceFile, origin: &Origin, error: &execute::Error, root: &Path) -> Option<String> {
    match error {
        execute::Error::NotFound { nearest: Some(nearest), .. } => Some(format!("did you mean `{nearest}`?")),
        execute::Error::Fetch(error) => error.advice(),
        execute::Error::Runtime(runtime::Error::ProgramNotFound { program, .. })
            if source.text.get(origin.span.start..origin.span.end).is_some_and(|text| !text.contains(program)) =>
        {
            Some(format!(
                "the step is in shell form, and the image has no {program}: start from an image that has one, name \
                 another with SHELL, or use the JSON form, RUN [\"program\", \"argument\"]"
            ))
        }
        execute::Error::Copy(_) | execute::Error::Mkdir(_) if is_full_disk(error) => Some(format!(
            "the file system of {} is full: make room, or set STRATA_ROOT to a directory on a larger one",
            root.display()
        )),
        _ => None,
    }
}

fn is_owner(error: &execute::Error) -> bool {
    matches!(
        error,
        execute::Error::Owner(_)
            | execute::Error::NameInScratch { .. }
            | execute::Error::Copy(copy::Error::Stage(stage::Error::Owner { .. }))
    )
}

/// The address that a fetch failed for, as the recipe has it.
fn address<'a>(op: &'a Op, error: &'a fetch::Error) -> Option<&'a str> {
    match op {
        Op::Http(source) => Some(&source.address),
        Op::Git(address) => Some(&address.remote),
        _ => error.remote(),
    }
}

/// A path as one and the same whether it is written from the root on or not.
fn bare(path: &str) -> &str {
    let path = path.trim_matches('/');
    path.strip_prefix("./").unwrap_or(path)
}

fn has_flag(source: &SourceFile, span: Span, flag: &str) -> bool {
    words(source, span).any(|(_, word)| word.starts_with(flag))
}

/// The words of a step after its instruction, without the marks of the JSON form; of a mount also the paths it names.
fn words(source: &SourceFile, span: Span) -> impl Iterator<Item = (Span, &str)> {
    let text = source.text.get(span.start..span.end).unwrap_or_default();
    let start = text.as_ptr() as usize;
    let place = move |word: &str| {
        let offset = span.start + (word.as_ptr() as usize - start);
        Span::new(offset, offset + word.len())
    };
    text.split_ascii_whitespace().skip(1).flat_map(move |word| {
        let word = word.trim_matches(['[', ']', ',', '"', '\'']);
        let paths = word.strip_prefix("--mount=").into_iter().flat_map(|fields| fields.split(','));
        let paths = paths.filter_map(|field| field.strip_prefix("source=").or(field.strip_prefix("src=")));
        std::iter::once(word).chain(paths).map(move |word| (place(word), word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_is_meant_is_found() {
        for (text, path, expected) in [
            ("COPY --from=a /etc/x b/ /y", "etc/x", Some("/etc/x")),
            ("COPY [\"./b\", \"b\", \"/y\"]", "b", Some("./b")),
            ("RUN --mount=type=bind,from=a,source=/nope,target=/m ls nope", "nope", Some("/nope")),
            ("COPY $X /y", "etc/x", None),
        ] {
            let text = format!("FROM a\n{text}");
            let source = SourceFile { name: "Dockerfile".into(), text: text.as_str().into() };
            let span = Span::new(7, text.len());
            let found = words(&source, span).find(|(_, word)| bare(word) == path);
            assert_eq!(found.map(|(_, word)| word), expected, "{text}");
            assert!(found.is_none_or(|(span, word)| &text[span.start..span.end] == word), "{text}");
        }
    }
}
