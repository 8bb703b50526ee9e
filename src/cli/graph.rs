//! `strata graph`

use std::sync::Arc;

use clap::{Args, ValueEnum};

use crate::build;
use crate::cli::build::Recipe;
use crate::cli::{exit, print, print_json, workplace};
use crate::graph::explain;
use crate::progress::Silent;

/// The arguments of `graph`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// How the graph is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For Graphviz
    Dot,
    /// For programs
    Json,
}

/// Prints the graph.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let request = arguments.recipe.request()?;
    let place = workplace::open(Arc::new(Silent))?;
    let (plan, known) = build::plan(&request, &place)?;
    let status: Vec<_> = known.iter().map(|known| known.status).collect();
    match arguments.format {
        Format::Text => print(&explain::text(&plan.graph, &status)),
        Format::Dot => print(&explain::dot(&plan.graph, &status)),
        Format::Json => print_json(&explain::json(&plan.graph, &status)),
    }
}
