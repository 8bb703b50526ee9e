//! A build as it is kept: begun before anything else of it, ended with whatever came of it. Takes the request and the
//! outcome; never fails a build.

use std::sync::Arc;

use super::contexts::{ContextSource, RecipeSource, without_credentials};
use super::{Error, Request, Workplace, sentence};
use crate::cache::{self, history::Notes};
use crate::journal::{self, Head, Outcome, Recording};
use crate::store::BuildId;

/// How many lines of a failed step's output go with its error.
const LAST_LINES: usize = 20;

/// The log of a step that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepLog {
    /// The build that has it.
    pub build: BuildId,
    /// The step's number, as progress shows it.
    pub step: u64,
    /// Its last lines, as a terminal would show them.
    pub last: Vec<String>,
}

/// The record of a build that goes on, if it could be begun.
#[derive(Debug)]
pub(super) struct Record<'a> {
    place: &'a Workplace,
    recording: Option<Arc<Recording>>,
}

impl<'a> Record<'a> {
    /// Begins it.
    pub(super) fn begin(request: &Request, place: &'a Workplace) -> Self {
        let recording = match Recording::begin(&place.store, head(request)) {
            Ok(recording) => Some(Arc::new(recording)),
            Err(error) => {
                place.reporter.warning(format!("this build is not kept: {}", sentence(&error)));
                None
            }
        };
        if let Some(recording) = &recording {
            place.reporter.observe(Some(Arc::clone(recording) as _));
        }
        Self { place, recording }
    }

    /// The build's id.
    pub(super) fn id(&self) -> Option<&BuildId> {
        self.recording.as_ref().map(|recording| recording.id())
    }

    /// The log of the step with this title, which failed.
    pub(super) fn log_of(&self, title: &str) -> Option<Box<StepLog>> {
        let recording = self.recording.as_ref()?;
        let step = recording.failed_step(title)?;
        let last = journal::last_lines(&recording.stored(), step, LAST_LINES);
        Some(Box::new(StepLog { build: recording.id().clone(), step, last }))
    }

    /// Ends it.
    pub(super) fn end(self, outcome: Outcome) {
        let Some(recording) = &self.recording else { return };
        self.place.reporter.observe(None);
        if let Err(error) = recording.end(&self.place.store, outcome, self.place.kept) {
            self.place.reporter.warning(format!("not everything about this build is kept: {}", sentence(&error)));
        }
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        // After a panic the build counts as killed.
        self.place.reporter.observe(None);
    }
}

/// How a build ended that failed.
pub(super) fn failure(error: &Error) -> Outcome {
    match error {
        Error::Cancelled => Outcome::Cancelled,
        error => Outcome::Failed { error: sentence(error) },
    }
}

/// An empty list of what the build makes, under the name of where its recipe comes from.
pub(super) fn notes(request: &Request) -> Notes {
    let Head { context, recipe, .. } = head(request);
    Notes::new(&format!("{context}\0{}", recipe.unwrap_or_default()))
}

/// Adds what was made to what is known of all builds. Without it a later build is only explained less well.
pub(super) fn keep_notes(notes: &Notes, place: &Workplace) {
    if let Err(error) = cache::remember_runs(&place.store, notes.take()) {
        place.reporter.warning(format!("what this build made cannot be compared with later: {}", sentence(&error)));
    }
}

fn head(request: &Request) -> Head {
    let context = match &request.context {
        ContextSource::Directory(path) => {
            std::path::absolute(path).unwrap_or_else(|_| path.clone()).display().to_string()
        }
        ContextSource::Stdin => "-".to_owned(),
        ContextSource::Http(address) => without_credentials(address),
        ContextSource::Git(address) => without_credentials(&address.remote),
    };
    let recipe = match &request.recipe {
        RecipeSource::Default => None,
        RecipeSource::File(path) => Some(path.display().to_string()),
        RecipeSource::Stdin => Some("-".to_owned()),
        RecipeSource::Http(address) => Some(without_credentials(address)),
    };
    let names = request.names.iter().map(|name| name.familiar()).collect();
    Head { context, recipe, target: request.graph.target.clone(), names }
}
