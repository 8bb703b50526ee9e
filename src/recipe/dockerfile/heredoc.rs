//! Here-documents: which words of a line announce one, and what their bodies are.
//!
//! Takes a logical line and the reader that stands below it, gives the heredocs in order. A word announces a heredoc if
//! the whole of it is `[fd]<<[-]WORD`, or `[fd]<< WORD` with blanks between; a line whose quotes do not match announces none,
//! as in BuildKit.

use super::line::{Line, Reader};
use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::recipe::Heredoc;
use crate::recipe::variable::{Error, Expander};

/// The escape character of heredoc words, whatever that of the recipe is.
const ESCAPE: char = '\\';

/// A heredoc, and where the recipe goes on.
#[derive(Debug)]
pub(super) struct Read {
    /// The heredoc.
    pub(super) heredoc: Heredoc,
    /// Where the line that ends it ends.
    pub(super) end: usize,
}

/// A word that announces a heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Announced {
    /// The word after `<<`, without its quotes.
    pub(super) name: String,
    /// Whether variables in the body are expanded: no part of the word was quoted.
    pub(super) expand: bool,
    /// `<<-`
    pub(super) strip_tabs: bool,
    /// The number before `<<`.
    pub(super) fd: u32,
}

/// Reads the bodies of all heredocs that a line announces.
pub(super) fn read(
    line: &Line<'_>,
    reader: &mut Reader<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Vec<Read>, Diagnostic> {
    let text = line.all().text;
    if !text.contains("<<") {
        return Ok(Vec::new());
    }
    let rules = Expander::new(ESCAPE).keep_quotes(true).keep_escapes(true).keep_unset(true).join_heredocs(true);
    let Ok(expansion) = rules.expand(text, &|_| None) else { return Ok(Vec::new()) };
    let mut heredocs = Vec::new();
    let mut from = 0;
    for word in expansion.words() {
        let announced = announced(&word).map_err(|error| Diagnostic::error(line.span, error.to_string()))?;
        let Some(announced) = announced else { continue };
        let found = text[from..].find(&word).map(|at| from + at..from + at + word.len());
        let span = found.clone().map_or(line.span, |range| line.span_at(range));
        from = found.map_or(from, |range| range.end);
        heredocs.push(body(announced, span, reader, diagnostics)?);
    }
    Ok(heredocs)
}

fn body(
    announced: Announced,
    span: Span,
    reader: &mut Reader<'_>,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Read, Diagnostic> {
    let Announced { name, expand, strip_tabs, fd } = announced;
    let Some(body) = reader.body(&name, strip_tabs, diagnostics) else {
        return Err(Diagnostic::error(span, format!("unterminated heredoc \"{name}\""))
            .label("begins here and is never ended")
            .help(format!("end it with a line that says exactly {name}")));
    };
    let text = if strip_tabs { without_tabs(body.text) } else { body.text.to_owned() };
    let (raw, text) = (body.text.to_owned(), Spanned::new(text, body.span));
    let heredoc = Heredoc { name, body: text, raw, expand, strip_tabs, fd };
    Ok(Read { heredoc, end: body.end })
}

/// The body without the tabs that its lines begin with.
fn without_tabs(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

/// The heredoc that a word announces, if it does.
pub(super) fn announced(word: &str) -> Result<Option<Announced>, Error> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (fd, rest) = word.split_at(digits);
    let Some(rest) = rest.strip_prefix("<<") else { return Ok(None) };
    let (strip_tabs, name) = rest.strip_prefix('-').map_or((false, rest), |name| (true, name));
    let name = name.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
    if name.is_empty() || name.contains('<') {
        return Ok(None);
    }
    let rules = Expander::new(ESCAPE).keep_unset(true);
    let plain = rules.expand(name, &|_| None)?.words();
    let [plain] = plain.as_slice() else { return Ok(None) };
    // If reading the word takes quotes off, part of it was quoted.
    let quoted = rules.keep_quotes(true).expand(name, &|_| None)?.words();
    let quotes = |word: &str| word.chars().filter(|c| matches!(c, '\'' | '"')).count();
    let expand = quoted.iter().map(|word| quotes(word)).sum::<usize>() == quotes(plain);
    Ok(Some(Announced { name: plain.clone(), expand, strip_tabs, fd: fd.parse().unwrap_or(0) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_that_announce_a_heredoc() {
        for (word, name, expand, strip_tabs, fd) in [
            ("<<EOF", "EOF", true, false, 0),
            ("<<-EOF", "EOF", true, true, 0),
            ("<<'EOF'", "EOF", false, false, 0),
            ("<<\"EOF\"", "EOF", false, false, 0),
            ("<<E'O'F", "EOF", false, false, 0),
            ("<<-\"E O F\"", "E O F", false, true, 0),
            ("3<<EOF", "EOF", true, false, 3),
            ("<<file.txt", "file.txt", true, false, 0),
            ("<<$X", "$X", true, false, 0),
            ("<<\\EOF", "EOF", true, false, 0),
            ("<< EOF", "EOF", true, false, 0),
            ("3<< \t'EOF'", "EOF", false, false, 3),
            ("99999999999999999999<<E", "E", true, false, 0),
        ] {
            let expected = Announced { name: name.to_owned(), expand, strip_tabs, fd };
            assert_eq!(announced(word), Ok(Some(expected)), "{word}");
        }
        for word in ["", "<", "<<", "<< ", "<<-", "<<<EOF", "<<a<b", "a<<EOF", "EOF", "<<''", "-<<EOF"] {
            assert_eq!(announced(word), Ok(None), "{word}");
        }
    }

    #[test]
    fn tabs_are_taken_off_every_line() {
        assert_eq!(without_tabs("\t\ta\n\tb\tc\n \td\n\n"), "a\nb\tc\n \td\n\n");
    }
}
