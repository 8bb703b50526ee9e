//! `strata shell`, and the shell of a failed step.

use std::sync::Arc;

use clap::Args;

use crate::build;
use crate::cli::build::Recipe;
use crate::cli::{exit, workplace};
use crate::execute::shell::Sandbox;
use crate::progress::plain::Plain;
use crate::progress::summary::Summary;
use crate::runtime::{Cancel, Status, Terminal};

/// The arguments of `shell`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// The line of the recipe where the shell is opened: at a RUN with its mounts, elsewhere before the instruction
    /// [default: the end of the stage]
    #[arg(long, value_name = "LINE")]
    at: Option<usize>,
}

/// Builds what comes before a point of a recipe, and opens a shell there.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let terminal = terminal()?;
    let request = arguments.recipe.request()?;
    let summary = Arc::new(Summary::new(Box::new(Plain::new(std::io::stderr()))));
    let place = workplace::open(summary.clone())?;
    let status = build::shell(&request, arguments.at, &place, |sandbox| {
        summary.close();
        open(sandbox, &terminal, &place.cancel)
    })?;
    match status? {
        0 => Ok(()),
        code => Err(exit::Error::Ended { code }),
    }
}

/// The terminal that a shell needs.
pub(super) fn terminal() -> Result<Terminal, exit::Error> {
    Terminal::of_this_process().map_err(|error| exit::Error::Usage(error.to_string()))
}

/// Opens a shell in a failed step's place, after the error is shown; its outcome changes nothing.
pub(super) fn after_failure(sandbox: &Sandbox, terminal: &Terminal) {
    exit::say("a shell in the failed step; what is changed here is lost at its end\n");
    // The build's own handle has ended everything already.
    if let Err(error) = open(sandbox, terminal, &Cancel::new()) {
        exit::say(&exit::message(&error));
    }
}

/// Stays in a shell until it ends; gives its exit code as a shell would.
fn open(sandbox: &Sandbox, terminal: &Terminal, cancel: &Cancel) -> Result<u8, exit::Error> {
    let term = std::env::var("TERM").ok();
    let status = sandbox.open_shell(terminal, term.as_deref(), cancel).map_err(exit::Error::Shell)?;
    let code = match status {
        Status::Exited(code) => code,
        Status::Signaled(signal) => 128 + signal,
        Status::Cancelled | Status::TimedOut => i32::from(exit::INTERRUPTED),
    };
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}
