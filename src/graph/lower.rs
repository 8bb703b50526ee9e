//! Recipe → graph: stages, scopes of variables, triggers, and what each instruction does to the image configuration.

use std::collections::BTreeMap;

use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, ImageRequest, Request};
use crate::image::config::ImageConfig;
use crate::recipe::Recipe;

/// What lowering came to.
#[derive(Debug)]
pub enum Lowered {
    /// The whole graph, with warnings.
    Graph(Box<Graph>, Vec<Diagnostic>),
    /// These base images' configurations have to be known first.
    Needs(Vec<ImageRequest>),
}

/// Lowers what the target needs of a recipe. `bases` holds the configuration of every image known so far.
///
/// # Errors
/// The diagnostics, at least one of them an error.
pub fn lower(
    _recipe: &Recipe,
    _request: &Request,
    _bases: &BTreeMap<ImageRequest, ImageConfig>,
) -> Result<Lowered, Vec<Diagnostic>> {
    todo!()
}
