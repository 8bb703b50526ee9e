//! Diagnostics as text for people: what is wrong, the source line with a caret, and what to do.
//!
//! Takes diagnostics and their source, gives text with or without colour. Only a window of the source is looked at, so
//! neither a line of megabytes nor a span over the whole file makes the output long or slow.

use std::borrow::Cow;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use super::{Diagnostic, Severity, SourceFile, Span};

/// As many diagnostics are shown at once; of the others only the number is.
pub const SHOWN: usize = 50;
/// As many bytes of a message are shown: it may quote a word of any length.
const MESSAGE: usize = 1_000;
/// As many lines of a span are shown.
const LINES: usize = 4;
/// As many bytes may stand in a line before the span for the renderer to cut the line and count its columns itself.
const COUNTED: usize = 2_000;
/// As many bytes are shown before the span where there are more.
const BEFORE: usize = 80;
/// As many bytes of a line are shown from where the span begins.
const AFTER: usize = 120;

/// The line and column, both from 1, of a byte offset. A column is one character; an offset past the end, or inside a
/// character, counts as the place before it.
pub fn line_column(text: &str, offset: usize) -> (usize, usize) {
    Places::new(text).line_column(offset)
}

/// The diagnostics one after the other, each ended by an empty line: the first [`SHOWN`], and how many there are more.
pub fn render(diagnostics: &[Diagnostic], source: &SourceFile, colour: bool) -> String {
    let places = Places::new(&source.text);
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut output = String::new();
    for diagnostic in diagnostics.iter().take(SHOWN) {
        output.push_str(&renderer.render(&[report(diagnostic, source, &places)]));
        output.push_str("\n\n");
    }
    if diagnostics.len() > SHOWN {
        output.push_str(&format!("… and {} more like these\n\n", diagnostics.len() - SHOWN));
    }
    output
}

/// A message, cut where it quotes more than anybody reads.
fn shortened(message: &str) -> Cow<'_, str> {
    if message.len() <= MESSAGE {
        return message.into();
    }
    let end = (0..=MESSAGE).rfind(|at| message.is_char_boundary(*at)).unwrap_or_default();
    format!("{}… ({} bytes)", &message[..end], message.len()).into()
}

fn report<'a>(diagnostic: &'a Diagnostic, source: &'a SourceFile, places: &Places<'_>) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut title = level.primary_title(shortened(&diagnostic.message));
    if let Some(rule) = diagnostic.rule {
        title = title.id(rule);
    }
    if diagnostic.rule.is_some() && diagnostic.span == Span::default() {
        // A warning without a place is about the command line.
        let group = Group::with_title(title);
        return match &diagnostic.help {
            Some(help) => group.element(Level::HELP.message(help.as_str())),
            None => group,
        };
    }
    let (line, column) = places.line_column(diagnostic.span.start);
    let window = places.window(diagnostic.span);
    let annotation = AnnotationKind::Primary.span(window.marked.clone());
    let annotation = if diagnostic.label.is_empty() { annotation } else { annotation.label(diagnostic.label.as_str()) };
    let snippet = Snippet::source(window.text).line_start(line).annotation(annotation);
    let group = if window.cut {
        title.element(Origin::path(source.name.as_ref()).line(line).char_column(column)).element(snippet)
    } else {
        title.element(snippet.path(source.name.as_ref()))
    };
    match &diagnostic.help {
        Some(help) => group.element(Level::HELP.message(shortened(help))),
        None => group,
    }
}

/// A piece of the source that is shown.
struct Window {
    text: String,
    /// What is underlined in it.
    marked: Range<usize>,
    /// Whether the start of its first line is missing, so that columns cannot be counted in it.
    cut: bool,
}

/// Where the lines of a text begin.
struct Places<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Places<'a> {
    fn new(text: &'a str) -> Self {
        let after = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        Self { text, starts: std::iter::once(0).chain(after).collect() }
    }

    /// The number of the line, from 0, that an offset is in.
    fn line(&self, offset: usize) -> usize {
        self.starts.partition_point(|start| *start <= offset).saturating_sub(1)
    }

    /// A line without its line ending and without a byte-order mark.
    fn bounds(&self, line: usize) -> Range<usize> {
        let start = self.starts.get(line).copied().unwrap_or(self.text.len());
        let mark = if line == 0 && self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
        let start = start + mark;
        let end = self.starts.get(line + 1).map_or(self.text.len(), |next| next - 1);
        let end = start + self.text[start..end].trim_end_matches('\r').len();
        start..end
    }

    fn line_column(&self, offset: usize) -> (usize, usize) {
        let offset = self.floor(offset);
        let line = self.line(offset);
        let start = self.starts.get(line).copied().unwrap_or_default();
        // A byte-order mark is not a character of the text.
        let before = self.text[start..offset].trim_start_matches('\u{feff}');
        (line + 1, before.chars().count() + 1)
    }

    /// The nearest boundary of a character at or before an offset.
    fn floor(&self, offset: usize) -> usize {
        let mut offset = offset.min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    }

    /// What is shown of a span: its first lines, each cut to a width.
    fn window(&self, span: Span) -> Window {
        let start = self.floor(span.start);
        let end = self.floor(span.end).max(start);
        let first = self.line(start);
        let last = self.line(end.saturating_sub(1).max(start)).min(first + LINES - 1);
        let mut text = String::new();
        let mut marked = 0..0;
        let mut cut = false;
        for line in first..=last {
            let bounds = self.bounds(line);
            let far = line == first && start.min(bounds.end) > bounds.start + COUNTED;
            let from = if far { start.min(bounds.end) - BEFORE } else { bounds.start };
            let to = if line == first { start.max(bounds.start) } else { bounds.start } + AFTER;
            let (from, to) = (self.floor(from), self.floor(to.min(bounds.end)).max(self.floor(from)));
            if line > first {
                text.push('\n');
            }
            if far {
                cut = true;
                text.push('…');
            }
            if line == first {
                marked.start = text.len() + start.clamp(from, to) - from;
            }
            marked.end = text.len() + end.clamp(from, to) - from;
            text.push_str(&self.text[from..to]);
            if to < bounds.end {
                text.push('…');
            }
        }
        marked.end = marked.end.clamp(marked.start, text.len());
        Window { text, marked, cut }
    }
}

#[cfg(test)]
mod tests;
