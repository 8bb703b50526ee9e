//! The command line: what the user typed → a request, and an outcome → an exit code.
//!
//! One file a command. Results go to standard output, everything else to standard error. Nothing imports this module.

mod arguments;
mod build;
mod cache_mounts;
mod call;
mod check;
mod contexts;
mod doctor;
mod du;
mod exit;
mod explain;
mod flags;
mod fsck;
mod graph;
mod images;
mod inspect;
mod limits;
mod logs;
mod prune;
mod rm;
mod shell;
mod table;
mod workplace;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

/// Builds container images from Dockerfiles: no daemon, no root needed.
#[derive(Debug, Parser)]
#[command(name = "strata", version, propagate_version = true, disable_help_subcommand = true)]
#[command(after_help = "State is kept in $STRATA_ROOT (as root /var/lib/strata, otherwise $XDG_DATA_HOME/strata).\n\
    Exit codes: 0 done, 1 the build failed, 2 the recipe or the command line is wrong, 3 this machine cannot do it,\n\
    130 ended by Ctrl-C.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build::Arguments>),
    /// List, remove, export and import the caches of RUN --mount=type=cache
    CacheMounts(cache_mounts::Arguments),
    /// Look for mistakes in a Dockerfile, without building anything
    Check(check::Arguments),
    /// Say what this machine lets Strata do, and how to mend what it does not
    Doctor(doctor::Arguments),
    /// Show what the local store takes on the disk
    Du(du::Arguments),
    /// Say of each step of a build whether its result is known, and why not, without running anything
    Explain(explain::Arguments),
    /// Verify the local store, and repair it
    Fsck(fsck::Arguments),
    /// Show the layer graph of a build and what is cached, without running anything
    Graph(graph::Arguments),
    /// List the images in the local store
    Images(images::Arguments),
    /// Show an image's configuration and layers
    Inspect(inspect::Arguments),
    /// Show what the steps of a build wrote, or list the builds
    Logs(logs::Arguments),
    /// Remove what no image and no build needs from the local store
    Prune(prune::Arguments),
    /// Open a shell at a point of a Dockerfile, after building what comes before
    Shell(Box<shell::Arguments>),
    /// Remove names of images from the local store
    Rm(rm::Arguments),
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Runs the program with these arguments.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => return exit::usage(&error),
    };
    let outcome = match arguments.command {
        Command::Build(arguments) => build::run(*arguments),
        Command::CacheMounts(arguments) => cache_mounts::run(arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Doctor(arguments) => doctor::run(arguments),
        Command::Du(arguments) => du::run(&arguments),
        Command::Explain(arguments) => explain::run(arguments),
        Command::Fsck(arguments) => fsck::run(arguments),
        Command::Graph(arguments) => graph::run(arguments),
        Command::Images(arguments) => images::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Logs(arguments) => logs::run(arguments),
        Command::Prune(arguments) => prune::run(&arguments),
        Command::Shell(arguments) => shell::run(*arguments),
        Command::Rm(arguments) => rm::run(arguments),
    };
    exit::code(outcome)
}

/// Writes a result to standard output. A reader that went away is not an error.
fn print(text: &str) -> Result<(), exit::Error> {
    use std::io::Write;
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(exit::Error::Stdout(error)),
        _ => Ok(()),
    }
}

fn print_json(value: &impl serde::Serialize) -> Result<(), exit::Error> {
    let text = serde_json::to_string_pretty(value).map_err(|error| exit::Error::Stdout(error.into()))?;
    print(&(text + "\n"))
}
