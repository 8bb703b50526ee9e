//! Comments that say when the result of the instruction below may come from the cache: `# strata: no-cache`,
//! `# strata: ttl=6h`.
//!
//! Takes the comments above an instruction, gives what they ask for, and a warning for what cannot be understood: to
//! BuildKit they are comments like any other, so they must never fail a build. Which comments stand "above" is the same as
//! for `# check=`: blank lines and other comments may come between, an empty comment ends them, and what is inside a
//! continued instruction is not above it.

use crate::diagnostic::{Diagnostic, Span, Spanned, nearest};
use crate::recipe::{Caching, Instruction};
use crate::units;

const RULE: &str = "InvalidCacheComment";
const OPTIONS: [&str; 2] = ["no-cache", "ttl"];

/// What the comments above an instruction ask for. `text` is the recipe, which shows how they are indented.
pub(super) fn read(
    comments: &[Spanned<String>],
    instruction: &Instruction,
    text: &str,
    diagnostics: &mut Vec<Diagnostic>,
) -> Caching {
    let mut caching = Caching::default();
    if !makes_layer(instruction) {
        refuse(comments, text, diagnostics);
        return caching;
    }
    for comment in comments {
        let Some(options) = options(comment, text) else { continue };
        if options.is_empty() {
            let message = "this comment asks for nothing";
            diagnostics.push(Diagnostic::warning(RULE, comment.span, message).help(EXPECTED));
        }
        for option in options {
            if let Err(finding) = apply(&mut caching, &option) {
                diagnostics.push(finding);
            }
        }
    }
    caching
}

/// Says of comments above an instruction that makes no layer that they have no effect.
pub(super) fn refuse(comments: &[Spanned<String>], text: &str, diagnostics: &mut Vec<Diagnostic>) {
    for comment in comments.iter().filter(|comment| options(comment, text).is_some()) {
        let message = "this comment has no effect: the instruction below it makes no layer";
        diagnostics.push(
            Diagnostic::warning(RULE, comment.span, message).help("put it directly above a RUN, COPY, ADD or WORKDIR"),
        );
    }
}

const EXPECTED: &str = "the options are no-cache and ttl=AGE, such as ttl=6h";

/// The words after `strata:`, with their places; none if the comment is another.
fn options<'a>(comment: &'a Spanned<String>, text: &str) -> Option<Vec<Spanned<&'a str>>> {
    // An indented comment still has its `#`; one that is commented out has one more.
    let line = text.get(..comment.span.start)?.rfind('\n').map_or(0, |end| end + 1);
    let line = text.get(line..)?.trim_start_matches('\u{feff}').trim_start();
    if line.starts_with("##") {
        return None;
    }
    let content = comment.value.strip_prefix('#').unwrap_or(&comment.value).trim_start();
    let after = content.get(.."strata".len()).filter(|key| key.eq_ignore_ascii_case("strata"));
    let list = content[after?.len()..].trim_start().strip_prefix(':')?;
    let start = comment.value.len() - list.len();
    let separates = |c: char| c == ',' || c.is_whitespace();
    let mut words = Vec::new();
    let mut at = 0;
    for word in list.split(separates) {
        let place = comment.span.start + start + at;
        // The separator is one character, of any length in bytes.
        at += word.len() + list[at + word.len()..].chars().next().map_or(0, char::len_utf8);
        if !word.is_empty() {
            words.push(Spanned::new(word, Span::new(place, place + word.len())));
        }
    }
    Some(words)
}

fn apply(caching: &mut Caching, option: &Spanned<&str>) -> Result<(), Diagnostic> {
    let warning = |message: String| Diagnostic::warning(RULE, option.span, message);
    let (name, value) = match option.value.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (option.value, None),
    };
    match (name.to_ascii_lowercase().as_str(), value) {
        ("no-cache", None) => caching.no_cache = true,
        ("no-cache", Some(_)) => return Err(warning("no-cache takes no value".to_owned()).help(EXPECTED)),
        ("ttl", None) => return Err(warning("ttl has no age".to_owned()).help(EXPECTED)),
        ("ttl", Some(value)) => {
            let ttl = units::age(value)
                .filter(|age| !age.is_zero())
                .ok_or_else(|| warning(format!("`{value}` is no age")).help("write it as 90s, 10m, 1h30m or 7d"))?;
            if caching.ttl.replace(ttl).is_some() {
                return Err(warning("ttl is given twice; the last one counts".to_owned()));
            }
        }
        (name, _) => {
            let finding = warning(format!("there is no cache option `{name}`"));
            return Err(match nearest(name, OPTIONS) {
                Some(known) => finding.help(format!("did you mean `{known}`?")),
                None => finding.help(EXPECTED),
            });
        }
    }
    Ok(())
}

fn makes_layer(instruction: &Instruction) -> bool {
    matches!(instruction, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::recipe::dockerfile;

    /// What the last step of a recipe asks for, and the places of the warnings of this rule.
    fn last(text: &str) -> (Caching, Vec<String>) {
        let source = SourceFile { name: "Dockerfile".into(), text: text.into() };
        let (recipe, diagnostics) = dockerfile::parse(&source);
        let step = recipe.stages.last().unwrap().steps.last().unwrap();
        let found = diagnostics.iter().filter(|finding| finding.rule == Some(RULE));
        (step.caching, found.map(|finding| text[finding.span.start..finding.span.end].to_owned()).collect())
    }

    fn ttl(seconds: u64) -> Caching {
        Caching { no_cache: false, ttl: Some(Duration::from_secs(seconds)) }
    }

    #[test]
    fn comments_above_an_instruction_count() {
        let no_cache = Caching { no_cache: true, ttl: None };
        for (above, expected) in [
            ("# strata: no-cache\n", no_cache),
            ("#strata:no-cache\n", no_cache),
            ("#  STRATA :  No-Cache  \n", no_cache),
            ("  # strata: no-cache\n", no_cache),
            ("# strata: ttl=6h\n", ttl(6 * 3600)),
            ("# strata: ttl=1h30m\n", ttl(5400)),
            ("# strata: ttl=7d\n", ttl(7 * 24 * 3600)),
            ("# strata: ttl=1h, no-cache\n", Caching { no_cache: true, ..ttl(3600) }),
            ("# strata: ttl=1h\n# strata: no-cache\n", Caching { no_cache: true, ..ttl(3600) }),
            ("# strata: no-cache\n\n# why\n\n", no_cache),
            ("# check=skip=all\n# strata: no-cache\n", no_cache),
            ("# strata: no-cache\n#\n", Caching::default()),
            ("## strata: no-cache\n", Caching::default()),
            ("# strata no-cache\n", Caching::default()),
            ("# stratax: no-cache\n", Caching::default()),
            ("# see strata: no-cache\n", Caching::default()),
        ] {
            for step in ["RUN x", "COPY a b", "ADD a b", "WORKDIR /a", "RUN <<EOF\nx\nEOF"] {
                let text = format!("FROM a\n{above}{step}\n");
                assert_eq!(last(&text), (expected, vec![]), "{text}");
            }
        }
    }

    #[test]
    fn only_what_is_above_counts() {
        for text in [
            "# strata: no-cache\nFROM a\nRUN x\n",
            "FROM a\n# strata: no-cache\nRUN x\nRUN y\n",
            "FROM a\nRUN x \\\n# strata: no-cache\n  y\n",
            "FROM a\nRUN <<EOF\n# strata: no-cache\nEOF\n",
            "FROM a\nRUN x\n# strata: no-cache\n",
            "FROM a\nRUN x # strata: no-cache\n",
        ] {
            assert_eq!(last(text).0, Caching::default(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_told_at_its_place() {
        for (text, expected, places) in [
            ("FROM a\n# strata: no-cash\nRUN x\n", Caching::default(), &["no-cash"][..]),
            ("FROM a\n# strata: tll=1h, ttl=2h\nRUN x\n", ttl(7200), &["tll=1h"]),
            ("FROM a\n# strata: ttl\nRUN x\n", Caching::default(), &["ttl"]),
            ("FROM a\n# strata: ttl=\nRUN x\n", Caching::default(), &["ttl="]),
            ("FROM a\n# strata: ttl=-1h ttl=0 ttl=6\nRUN x\n", Caching::default(), &["ttl=-1h", "ttl=0", "ttl=6"]),
            ("FROM a\n# strata: no-cache=yes\nRUN x\n", Caching::default(), &["no-cache=yes"]),
            ("FROM a\n# strata: ttl=1h\n# strata: ttl=2h\nRUN x\n", ttl(7200), &["ttl=2h"]),
            ("FROM a\n# strata:\nRUN x\n", Caching::default(), &["strata:"]),
            ("FROM a\n# strata: no-cache\nENV a=b\n", Caching::default(), &["strata: no-cache"]),
            ("FROM a\n# strata: no-cache\nONBUILD RUN x\n", Caching::default(), &["strata: no-cache"]),
        ] {
            let found = last(text);
            assert_eq!(
                (found.0, found.1.iter().map(String::as_str).collect::<Vec<_>>()),
                (expected, places.to_vec()),
                "{text}"
            );
        }
        let source = SourceFile { name: "Dockerfile".into(), text: "FROM a\n# strata: no-cash\nRUN x\n".into() };
        let help = dockerfile::parse(&source).1.into_iter().find_map(|finding| finding.help);
        assert_eq!(help.as_deref(), Some("did you mean `no-cache`?"));
        // A comment above FROM is about no step, and so is a directive at the very top.
        let source = SourceFile { name: "Dockerfile".into(), text: "# strata: no-cache\nFROM a\n".into() };
        assert_eq!(dockerfile::parse(&source).1.iter().filter(|finding| finding.rule == Some(RULE)).count(), 1);
    }
}
