//! Why a build failed: every part's error, with the recipe and the place in it that a person must look at.

use std::io;
use std::path::{Path, PathBuf};

use super::Plan;
use super::advice;
use super::contexts;
use super::record::{Record, StepLog};
use crate::base;
use crate::context;
use crate::diagnostic::{Diagnostic, SourceFile, Span};
use crate::export::{blobs, layout};
use crate::limits;
use crate::recipe::Recipe;
use crate::recipe::reference::Reference;
use crate::runtime::Cancel;
use crate::schedule::solve;
use crate::store;

/// The build argument that stands in for a recipe's `# check=`.
pub(super) const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// The build argument that stands in for a recipe's `# syntax=`.
pub(super) const FRONTEND_ARGUMENT: &str = "BUILDKIT_SYNTAX";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe cannot be read.
    #[error("the recipe {path} cannot be read")]
    ReadRecipe {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recipe is wrong.
    #[error("{} has errors", .0.source.name)]
    Recipe(Box<Findings>),
    /// The recipe asks that some warnings fail the build, and there are such.
    #[error("the recipe asks with `# check=error=true` that warnings fail the build: {}", .rules.join(", "))]
    Violations {
        /// The rules broken.
        rules: Vec<&'static str>,
    },
    /// `BUILDKIT_DOCKERFILE_CHECK` cannot be read.
    #[error("--build-arg {CHECK_ARGUMENT}={value:?}: {reason}")]
    CheckArgument {
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The context cannot be used.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// A context or the recipe cannot be had.
    #[error(transparent)]
    Contexts(#[from] contexts::Error),
    /// A base image cannot be used.
    #[error("base image {reference} cannot be used")]
    Base {
        /// The image.
        reference: Box<Reference>,
        /// The recipe, with the place that names the image.
        at: Box<Findings>,
        /// Why.
        source: Box<base::Error>,
    },
    /// A step failed.
    #[error("step {title} failed")]
    Step {
        /// The step as progress shows it.
        title: String,
        /// The recipe, with the place of the step.
        at: Box<Findings>,
        /// Why.
        source: Box<solve::Error>,
        /// Where what it wrote is kept.
        log: Option<Box<StepLog>>,
    },
    /// The user ended the build.
    #[error("the build was cancelled")]
    Cancelled,
    /// A layer's blob cannot be had.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    /// An output cannot be written.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Limits that cannot be had together.
    #[error("the limits of a step contradict each other")]
    Limits(#[from] limits::Error),
    /// A document of the image could not be written as JSON.
    #[error("the image's documents cannot be written: {0}")]
    Document(#[from] serde_json::Error),
}

impl Error {
    /// Whether an output needs something that was in the store and is not there any more.
    pub(super) fn is_loss(&self) -> bool {
        match self {
            Self::Blobs(error) => error.is_loss(),
            Self::Layout(error) => error.is_loss(),
            _ => false,
        }
    }

    /// Whether this machine, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        let by_part = match self {
            Self::Base { source, .. } => source.is_environment(),
            Self::Step { source, .. } => source.is_environment(),
            Self::Blobs(error) => error.is_environment(),
            Self::Contexts(error) => error.is_environment(),
            Self::Store(_) | Self::Layout(_) => true,
            Self::ReadRecipe { .. }
            | Self::Recipe(_)
            | Self::Violations { .. }
            | Self::CheckArgument { .. }
            | Self::Context(_)
            | Self::Limits(_)
            | Self::Cancelled
            | Self::Document(_) => false,
        };
        by_part || is_full_disk(self)
    }
}

/// Whether a disk without room is anywhere among the causes.
pub(super) fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| full.contains(&error.kind()))
}

/// A recipe with what was found in it.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The recipe's text.
    pub source: SourceFile,
    /// Findings, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
}

pub(super) fn base_failed(recipe: &Recipe, reference: &Reference, source: base::Error) -> Error {
    let (span, help) = recipe.place_of_image(reference);
    let mut finding = Diagnostic::error(span, sentence(&source));
    finding.help = help;
    let at = Box::new(Findings { source: recipe.source.clone(), diagnostics: vec![finding] });
    Error::Base { reference: Box::new(reference.clone()), at, source: Box::new(source) }
}

/// What a build failed with that may have been ended by its user: then whatever else went wrong is a consequence of
/// that. A step that fails ends the others in the same way, and is what failed.
pub(super) fn ended(error: Error, cancel: &Cancel) -> Error {
    match error {
        step @ Error::Step { .. } => step,
        _ if cancel.is_cancelled() => Error::Cancelled,
        error => error,
    }
}

pub(super) fn step_failed(plan: &Plan, failed: solve::Failed, record: &Record<'_>, root: &Path) -> Error {
    let solve::Failed { node, error } = failed;
    if matches!(error, solve::Error::Cancelled) {
        return Error::Cancelled;
    }
    let origin = &plan.graph[node].origin;
    let log = record.log_of(&origin.title());
    if let solve::Error::Execute(crate::execute::Error::Base(cause)) = &error
        && let Some(reference) = cause.reference()
    {
        // A step is only the first to want the layer: what is wrong is the image.
        let (span, _) = plan.recipe.place_of_image(reference);
        return Error::Step {
            title: origin.title(),
            at: finding(&plan.recipe.source, span, sentence(&error)),
            source: Box::new(error),
            log,
        };
    }
    let source = &plan.recipe.source;
    let mut at = finding(source, origin.span, sentence(&error));
    if let solve::Error::Execute(error) = &error {
        for finding in &mut at.diagnostics {
            finding.span = advice::place(source, origin, error);
            finding.help = advice::help(source, origin, error, root);
        }
    }
    Error::Step { title: origin.title(), at, source: Box::new(error), log }
}

fn finding(source: &SourceFile, span: Span, message: String) -> Box<Findings> {
    Box::new(Findings { source: source.clone(), diagnostics: vec![Diagnostic::error(span, message)] })
}

/// An error with all its causes, in one line. A cause that has been said is not said again.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text += &format!(": {more}");
        }
        cause = error.source();
    }
    text
}
