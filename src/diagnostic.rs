//! What is wrong or doubtful in a text that the user wrote, and where.
//!
//! Takes spans and sentences from everything that reads a recipe; gives them rendered, with the source line
//! and a caret. Never decides whether a build goes on: that is [`Severity`] read by the caller.

mod nearest;
mod render;

use std::ops::Range;
use std::sync::Arc;

pub use self::nearest::nearest;
pub use self::render::{SHOWN, line_column, render};

/// A text the user wrote, with the name it is shown by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// The path or other name shown to the user, such as `Dockerfile` or `<stdin>`.
    pub name: Arc<str>,
    /// The whole text.
    pub text: Arc<str>,
}

/// A range of bytes of a [`SourceFile`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset past the last byte.
    pub end: usize,
}

impl Span {
    /// The span of these byte offsets.
    pub const fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// The smallest span that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

impl From<Range<usize>> for Span {
    fn from(range: Range<usize>) -> Self {
        Self { start: range.start, end: range.end }
    }
}

/// A value together with the place it was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Spanned<T> {
    /// The value.
    pub value: T,
    /// Where it stands in the source.
    pub span: Span,
}

impl<T> Spanned<T> {
    /// A value written at a place.
    pub const fn new(value: T, span: Span) -> Self {
        Self { value, span }
    }

    /// The same place with another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned { value: f(self.value), span: self.span }
    }
}

/// Whether a diagnostic stops the build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Doubtful, but the build goes on.
    Warning,
    /// The recipe cannot be built.
    Error,
}

/// One finding about a text, with the place it concerns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// Whether it stops the build.
    pub severity: Severity,
    /// The name of the rule, for warnings that can be switched off (such as `StageNameCasing`).
    pub rule: Option<&'static str>,
    /// What is wrong, in one lower-case sentence without a full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// A few words under the caret; may be empty.
    pub label: String,
    /// What to do about it, such as the nearest valid name.
    pub help: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, rule: None, message: message.into(), span, label: String::new(), help: None }
    }

    /// A warning of a named rule at a place.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            rule: Some(rule),
            message: message.into(),
            span,
            label: String::new(),
            help: None,
        }
    }

    /// Whether it stops the build.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The same with a few words under the caret.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// The same with advice.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }
}
