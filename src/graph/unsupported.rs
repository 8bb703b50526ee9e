//! What a recipe may say that no part of the engine does yet.
//!
//! Reports each such thing at its place with its name. Nothing here is ever ignored in silence; whoever builds one of
//! these deletes its lines here.

use crate::diagnostic::{Diagnostic, Span};

/// Reports a `SOURCE_DATE_EPOCH` that is not a number: it may name a context or a stage to take the time from.
pub(super) fn epoch(value: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("`SOURCE_DATE_EPOCH={value}` is not a number of seconds since 1970"))
        .help("taking the time from a context or a stage is not supported yet")
}
