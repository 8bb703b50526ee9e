//! Dockerfile text → [`Recipe`], to the letter of BuildKit's built-in frontend (Dockerfile syntax 1.26, stable set).
//!
//! Two passes: physical lines become logical lines, logical lines become instructions. Linear in the input, never
//! recursive in it, and every finding is a [`Diagnostic`] with its place.

use crate::diagnostic::{Diagnostic, SourceFile, Spanned};
use crate::recipe::{Recipe, Step};

/// Reads a whole Dockerfile. The recipe is complete only if no diagnostic is an error.
pub fn parse(_source: &SourceFile) -> (Recipe, Vec<Diagnostic>) {
    todo!()
}

/// Reads one trigger of a base image's `OnBuild`, which may not be `ONBUILD`, `FROM` or `MAINTAINER`.
pub fn parse_trigger(_trigger: &Spanned<String>, _escape: char) -> Result<Step, Diagnostic> {
    todo!()
}
