//! Physical lines → logical lines: continuations joined, comments and blank lines inside them dropped.
//!
//! Takes the text of a recipe, gives one [`Line`] for each instruction, with a way back from every byte of it to the
//! source. Knows nothing of instructions; heredoc bodies are read on demand, because only the instruction knows
//! whether it has any.

use std::borrow::Cow;
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::recipe::Word;

/// The longest physical line in bytes, without its line feed; BuildKit reads through a buffer of 64 KiB.
const LONGEST: usize = 65_535;

/// A part of a logical line, with its offset in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part<'a> {
    pub(super) text: &'a str,
    pub(super) at: usize,
}

impl<'a> Part<'a> {
    /// These bytes of it.
    pub(super) fn sub(self, range: Range<usize>) -> Self {
        Self { text: &self.text[range.clone()], at: self.at + range.start }
    }

    /// What follows this many bytes.
    pub(super) fn skip(self, bytes: usize) -> Self {
        self.sub(bytes..self.text.len())
    }

    /// It without white space at either end.
    pub(super) fn trim(self) -> Self {
        let left = self.text.len() - self.text.trim_start().len();
        self.sub(left..left + self.text[left..].trim_end().len())
    }

    /// Everything up to the first byte that is one of [`is_blank`], and everything after that run of blanks.
    pub(super) fn split_blank(self) -> (Self, Option<Self>) {
        let Some(end) = self.text.find(is_blank) else { return (self, None) };
        let rest = self.text[end..].trim_start_matches(is_blank);
        (self.sub(0..end), Some(self.skip(self.text.len() - rest.len())))
    }

    fn range(self) -> Range<usize> {
        self.at..self.at + self.text.len()
    }
}

/// The characters that separate words: fewer than Unicode's white space.
pub(super) fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

/// Where the bytes of a logical line come from.
#[derive(Debug)]
enum Origin {
    /// For every piece its offset in the logical line and in the source, ascending.
    Pieces(Vec<(usize, usize)>),
    /// All from this place; the text was made up from it.
    Fixed(Span),
}

/// One logical line: an instruction without its heredoc bodies.
#[derive(Debug)]
pub(super) struct Line<'a> {
    text: Cow<'a, str>,
    origin: Origin,
    /// From its first byte to its last, continuations included.
    pub(super) span: Span,
    /// The comments directly above it, without `#`.
    pub(super) comments: Vec<Spanned<String>>,
    /// The first blank line inside its continuation.
    pub(super) blank: Option<Span>,
    /// Whether a physical line of it was refused, so that it cannot be understood.
    pub(super) broken: bool,
}

impl Line<'_> {
    /// The whole of it.
    pub(super) fn all(&self) -> Part<'_> {
        Part { text: &self.text, at: 0 }
    }

    /// Where a part of it was written.
    pub(super) fn span_of(&self, part: Part<'_>) -> Span {
        self.span_at(part.range())
    }

    /// Where a range of it was written.
    pub(super) fn span_at(&self, range: Range<usize>) -> Span {
        match &self.origin {
            Origin::Fixed(span) => *span,
            Origin::Pieces(pieces) => {
                let place = |offset: usize| {
                    let piece = pieces.partition_point(|(at, _)| *at <= offset).saturating_sub(1);
                    let (at, source) = pieces.get(piece).copied().unwrap_or_default();
                    source + offset.saturating_sub(at)
                };
                let start = place(range.start);
                let end = if range.is_empty() { start } else { place(range.end - 1) + 1 };
                Span::new(start, end)
            }
        }
    }

    /// A part of it as a word.
    pub(super) fn word(&self, part: Part<'_>) -> Word {
        Spanned::new(part.text.to_owned(), self.span_of(part))
    }
}

/// A heredoc's body as it stands in the source.
#[derive(Debug)]
pub(super) struct Body<'a> {
    /// The body with its line endings and leading tabs.
    pub(super) text: &'a str,
    /// Where it stands.
    pub(super) span: Span,
    /// Where the line that ends it ends, without its line ending.
    pub(super) end: usize,
}

/// One physical line.
#[derive(Debug, Clone, Copy)]
struct Physical<'a> {
    /// Without its line ending.
    text: &'a str,
    start: usize,
    too_long: bool,
}

/// Reads logical lines one after the other.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    source: &'a str,
    at: usize,
    escape: char,
    /// If the text is not the recipe itself, where in the recipe it came from.
    fixed: Option<Span>,
    /// Comments that begin before this offset are directives.
    directives_end: usize,
    /// The comments that stood inside of lines.
    pub(super) inner_comments: Vec<Span>,
}

impl<'a> Reader<'a> {
    /// A reader of a whole recipe, whose directives end at this offset.
    pub(super) fn new(source: &'a str, escape: char, directives_end: usize) -> Self {
        let at = if source.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        Self { source, at, escape, fixed: None, directives_end, inner_comments: Vec::new() }
    }

    /// A reader of text that was recorded elsewhere; everything it reads has this place.
    pub(super) fn fixed(text: &'a str, escape: char, span: Span) -> Self {
        Self { source: text, at: 0, escape, fixed: Some(span), directives_end: 0, inner_comments: Vec::new() }
    }

    /// The whole text.
    pub(super) fn source(&self) -> &'a str {
        self.source
    }

    /// The next logical line, if there is one.
    pub(super) fn next(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Option<Line<'a>> {
        let mut comments = Vec::new();
        loop {
            let physical = self.physical(diagnostics)?;
            let text = physical.text.trim_start();
            if text.starts_with('#') {
                self.remember_comment(physical, &mut comments);
                continue;
            }
            let start = physical.start + physical.text.len() - text.len();
            if !text.is_empty() {
                return Some(self.join(text, start, physical.too_long, comments, diagnostics));
            }
        }
    }

    /// Reads a heredoc's body up to the line that is its name; `None` where the text ends first.
    pub(super) fn body(&mut self, name: &str, strip_tabs: bool, diagnostics: &mut Vec<Diagnostic>) -> Option<Body<'a>> {
        let start = self.at;
        loop {
            let physical = self.physical(diagnostics)?;
            let text = if strip_tabs { physical.text.trim_start_matches('\t') } else { physical.text };
            if text == name {
                let span = self.fixed.unwrap_or(Span::new(start, physical.start));
                let end = self.fixed.map_or(physical.start + physical.text.len(), |span| span.end);
                return Some(Body { text: &self.source[start..physical.start], span, end });
            }
        }
    }

    /// Joins a line with those that continue it.
    fn join(
        &mut self,
        first: &'a str,
        start: usize,
        broken: bool,
        comments: Vec<Spanned<String>>,
        diagnostics: &mut Vec<Diagnostic>,
    ) -> Line<'a> {
        let mut line = Line {
            text: Cow::Borrowed(first),
            origin: self.fixed.map_or_else(|| Origin::Pieces(vec![(0, start)]), Origin::Fixed),
            span: self.fixed.unwrap_or(Span::new(start, start + first.len())),
            comments,
            blank: None,
            broken,
        };
        let mut open = continued(first, self.escape);
        if let Some(length) = open {
            line.text = Cow::Borrowed(&first[..length]);
        }
        while open.is_some() {
            let Some(physical) = self.physical(diagnostics) else { break };
            line.broken |= physical.too_long;
            let trimmed = physical.text.trim_start();
            let end = physical.start + physical.text.len();
            if trimmed.starts_with('#') {
                self.inner_comments.push(Span::new(physical.start, end));
                continue;
            }
            if trimmed.is_empty() {
                line.blank.get_or_insert(self.fixed.unwrap_or(Span::new(physical.start, end)));
                continue;
            }
            open = continued(physical.text, self.escape);
            if let Origin::Pieces(pieces) = &mut line.origin {
                pieces.push((line.text.len(), physical.start));
                line.span.end = end;
            }
            line.text.to_mut().push_str(&physical.text[..open.unwrap_or(physical.text.len())]);
        }
        line
    }

    /// Keeps a comment for the instruction below it. An empty one separates: what stands above it is forgotten.
    fn remember_comment(&self, physical: Physical<'_>, comments: &mut Vec<Spanned<String>>) {
        if physical.start < self.directives_end {
            return;
        }
        // Only the line's first character is left out, so an indented comment describes nothing, as in BuildKit.
        let mut characters = physical.text.chars();
        characters.next();
        let after = characters.as_str();
        let comment = after.trim();
        if comment.is_empty() {
            comments.clear();
        } else {
            let blanks = after.len() - after.trim_start().len();
            let start = physical.start + physical.text.len() - after.len() + blanks;
            let span = Span::new(start, start + comment.len());
            comments.push(Spanned::new(comment.to_owned(), self.fixed.unwrap_or(span)));
        }
    }

    /// The next physical line, reported if it is too long.
    fn physical(&mut self, diagnostics: &mut Vec<Diagnostic>) -> Option<Physical<'a>> {
        let (start, rest) = (self.at, &self.source[self.at..]);
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').unwrap_or(rest.len());
        self.at = (start + length + 1).min(self.source.len());
        let too_long = length > LONGEST;
        if too_long {
            let span = self.fixed.unwrap_or(Span::new(start, start + length));
            let message = format!("this line has {length} bytes; a line may have at most {LONGEST}");
            diagnostics.push(Diagnostic::error(span, message).help("break the line with a continuation character"));
        }
        Some(Physical { text: rest[..length].trim_end_matches('\r'), start, too_long })
    }
}

/// The length of the text before its continuation character, if it ends in one. Blanks may follow the character; one
/// that is directly preceded by another does not continue the line, however many there are.
fn continued(text: &str, escape: char) -> Option<usize> {
    let before = text.trim_end_matches([' ', '\t']).strip_suffix(escape)?;
    (!before.ends_with(escape)).then_some(before.len())
}
