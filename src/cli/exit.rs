//! Outcome → exit code, error → message with its place in the recipe and a hint.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::build::{self, Findings};
use crate::diagnostic::render;
use crate::execute::cache_mount::{carry, stored};
use crate::execute::{self, agent};
use crate::recipe::{platform, reference};
use crate::runtime::userns;
use crate::{export, fsck, secret, settings, store};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// A build failed.
    #[error(transparent)]
    Build(#[from] build::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The user namespace could not be made.
    #[error(transparent)]
    UserNamespace(#[from] userns::Error),
    /// The settings file is wrong.
    #[error(transparent)]
    Settings(#[from] settings::Error),
    /// An image name is wrong.
    #[error(transparent)]
    Reference(#[from] reference::ParseError),
    /// A platform is wrong.
    #[error(transparent)]
    Platform(#[from] platform::ParseError),
    /// An output is wrong.
    #[error(transparent)]
    Output(#[from] export::spec::ParseError),
    /// A check found something. What it found is printed already.
    #[error("the recipe has findings")]
    Findings {
        /// Whether there are errors among them.
        errors: bool,
    },
    /// The machine lacks something. What it lacks is printed already.
    #[error("this machine lacks {missing} of what a build needs")]
    Unfit {
        /// How many things.
        missing: usize,
    },
    /// No rule has this name.
    #[error("there is no rule named {name}{}", .nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    NoRule {
        /// The name as given.
        name: String,
        /// The nearest name there is.
        nearest: Option<&'static str>,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// An SSH agent cannot be had.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// The caches of steps cannot be listed or removed.
    #[error(transparent)]
    CacheMounts(#[from] stored::Error),
    /// The caches of steps cannot be carried.
    #[error(transparent)]
    Carry(#[from] carry::Error),
    /// No cache has this id.
    #[error("no cache mount {id} in the local store{}", .nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    NoCacheMount {
        /// The id as given.
        id: String,
        /// The nearest id there is.
        nearest: Option<String>,
    },
    /// A file that was named cannot be read.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The arguments do not go together.
    #[error("{0}")]
    Usage(String),
    /// A name is not in the store.
    #[error("no image named {name} in the local store{}", .nearest.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default())]
    NoImage {
        /// The name as normalised.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// No build is meant by this.
    #[error("no build {name} in the local store: strata logs lists those that are kept")]
    NoBuild {
        /// What was given.
        name: String,
    },
    /// Several builds are meant by this.
    #[error("{name} is the beginning of several builds' ids: {}", .ids.join(", "))]
    SeveralBuilds {
        /// What was given.
        name: String,
        /// The ids.
        ids: Vec<String>,
    },
    /// No step of the build is meant by this.
    #[error("build {build} has no step {name}; its steps are:{}", .titles.iter().map(|title| format!("\n  {title}")).collect::<String>())]
    NoStep {
        /// The build.
        build: String,
        /// What was given.
        name: String,
        /// The steps there are.
        titles: Vec<String>,
    },
    /// The store could not be verified.
    #[error(transparent)]
    Fsck(#[from] fsck::Error),
    /// The store is damaged. What is wrong is printed already.
    #[error("{}", unsound(*found, *lost))]
    Unsound {
        /// How many things are wrong and still there.
        found: usize,
        /// How many are gone for good.
        lost: usize,
    },
    /// A document in the store is damaged.
    #[error("{what} of {name} is missing or damaged in the local store; build it again")]
    Damaged {
        /// The image's name.
        name: String,
        /// Which document.
        what: &'static str,
    },
    /// A file about the build cannot be written.
    #[error("{} cannot be written: {source}", path.display())]
    Write {
        /// The file.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A shell could not be opened.
    #[error("no shell can be opened")]
    Shell(#[source] execute::Error),
    /// What there is to say is said, or was a shell's to say.
    #[error("ended with code {code}")]
    Ended {
        /// The code.
        code: u8,
    },
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
    /// Standard output cannot be written.
    #[error("standard output cannot be written: {0}")]
    Stdout(std::io::Error),
}

impl Error {
    /// A build's failure that is shown already.
    pub(super) fn shown(error: &build::Error) -> Self {
        Self::Ended { code: class_of_build(error) }
    }
}

const BUILD_FAILED: u8 = 1;
const USAGE: u8 = 2;
const ENVIRONMENT: u8 = 3;
pub(super) const INTERRUPTED: u8 = 130;

/// Turns the outcome of a command into an exit code, after saying on standard error what went wrong.
pub(super) fn code(outcome: Result<(), Error>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    if !matches!(error, Error::Findings { .. } | Error::Ended { .. }) {
        say(&message(&error));
    }
    ExitCode::from(class(&error))
}

/// Flags of `docker build` that have no meaning here yet, with what to do instead where there is something: refused by
/// name, because a flag that is ignored does harm.
const NOT_YET: &[(&str, &str)] = &[
    ("--builder", "there is one builder, this program"),
    ("--cache-from", ""),
    ("--cache-to", ""),
    ("--compress", ""),
    ("--force-rm", "nothing is left behind by a failed build"),
    ("--isolation", ""),
    (
        "--load",
        "write --output type=oci,dest=image.tar and load that into Docker, or name the image with -t to keep it here",
    ),
    ("--policy", ""),
    ("--push", "write --output type=oci,dest=DIR,tar=false and push that with another tool"),
    ("--rm", "nothing is left behind by a build"),
    ("--security-opt", ""),
    ("--squash", ""),
];

/// Says what is wrong with the command line.
pub(super) fn usage(error: &clap::Error) -> ExitCode {
    if let (ErrorKind::UnknownArgument, Some(ContextValue::String(flag))) =
        (error.kind(), error.get(ContextKind::InvalidArg))
    {
        let name = flag.split('=').next().unwrap_or(flag);
        if let Some((_, instead)) = NOT_YET.iter().find(|(flag, _)| *flag == name) {
            let hint = if instead.is_empty() { String::new() } else { format!("hint: {instead}\n") };
            say(&format!("error: {name} is not supported yet\n{hint}"));
            return ExitCode::from(USAGE);
        }
    }
    // Help and version are no errors: clap prints them to standard output.
    let _ = error.print();
    ExitCode::from(if error.use_stderr() { USAGE } else { 0 })
}

/// Says something on standard error.
pub(super) fn say(text: &str) {
    // Nobody is left to tell if standard error is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

fn class(error: &Error) -> u8 {
    match error {
        Error::Build(error) => class_of_build(error),
        Error::Ended { code } => *code,
        Error::Shell(error) if !error.is_environment() => BUILD_FAILED,
        Error::Shell(_) => ENVIRONMENT,
        Error::Store(_)
        | Error::UserNamespace(_)
        | Error::Signals(_)
        | Error::Stdout(_)
        | Error::Unfit { .. }
        | Error::Write { .. } => ENVIRONMENT,
        Error::CacheMounts(stored::Error::InUse) | Error::Carry(carry::Error::Stored(stored::Error::InUse)) => {
            BUILD_FAILED
        }
        Error::Fsck(fsck::Error::Cancelled) => INTERRUPTED,
        Error::Fsck(_) => ENVIRONMENT,
        Error::Unsound { .. } => BUILD_FAILED,
        Error::CacheMounts(_) | Error::Carry(carry::Error::Stored(_) | carry::Error::Write { .. }) => ENVIRONMENT,
        Error::Carry(_) | Error::NoCacheMount { .. } => BUILD_FAILED,
        Error::Read { .. } => USAGE,
        Error::NoImage { .. }
        | Error::NoBuild { .. }
        | Error::SeveralBuilds { .. }
        | Error::NoStep { .. }
        | Error::Damaged { .. }
        | Error::Findings { errors: false } => BUILD_FAILED,
        Error::Findings { errors: true } | Error::NoRule { .. } => USAGE,
        Error::Settings(_)
        | Error::Reference(_)
        | Error::Platform(_)
        | Error::Output(_)
        | Error::Secret(_)
        | Error::Agent(_)
        | Error::Usage(_) => USAGE,
    }
}

fn class_of_build(error: &build::Error) -> u8 {
    match error {
        build::Error::ReadRecipe { .. }
        | build::Error::Recipe(_)
        | build::Error::CheckArgument { .. }
        | build::Error::Limits(_)
        | build::Error::Context(_) => USAGE,
        build::Error::Contexts(error) if error.is_usage() => USAGE,
        build::Error::Cancelled => INTERRUPTED,
        other if other.is_environment() => ENVIRONMENT,
        _ => BUILD_FAILED,
    }
}

fn unsound(found: usize, lost: usize) -> String {
    match (found, lost) {
        (0, _) => "the store was repaired, and what is named above is lost".to_owned(),
        _ => "the store is damaged: strata fsck --repair removes what is damaged, so that it is fetched or made again"
            .to_owned(),
    }
}

/// What is said of an error.
pub(super) fn message(error: &Error) -> String {
    match error {
        Error::Build(error) => of_build(error),
        other => format!("error: {}\n{}", build::sentence(other), if of_machine(other) { TO_DOCTOR } else { "" }),
    }
}

/// What to do where this machine is the cause, besides what the message itself names.
const TO_DOCTOR: &str = "hint: strata doctor says what this machine lacks, and what mends it\n";

/// Whether the doctor has something to say about the cause.
fn of_machine(error: &Error) -> bool {
    match error {
        Error::Shell(error) => error.is_environment(),
        Error::Store(_) | Error::UserNamespace(_) => true,
        _ => false,
    }
}

/// What is said of a failed build.
pub(super) fn of_build(error: &build::Error) -> String {
    let colour = colour();
    let of_machine = if class_of_build(error) == ENVIRONMENT { TO_DOCTOR } else { "" };
    let text = match error {
        build::Error::Recipe(findings) => rendered(findings, colour),
        build::Error::Step { at, log, .. } => rendered(at, colour) + &log.as_deref().map(of_log).unwrap_or_default(),
        build::Error::Base { at, .. } => rendered(at, colour),
        other => format!(
            "error: {}\n{}",
            build::sentence(other),
            hint(other).map(|hint| format!("hint: {hint}\n")).unwrap_or_default()
        ),
    };
    text + of_machine
}

/// What a failed step wrote last, and how to see the rest.
fn of_log(log: &build::StepLog) -> String {
    if log.last.is_empty() {
        return String::new();
    }
    let lines: String = log.last.iter().map(|line| format!("  │ {line}\n")).collect();
    format!("its last lines:\n{lines}hint: all of them: strata logs {} {}\n", log.build.short(), log.step)
}

fn rendered(findings: &Findings, colour: bool) -> String {
    render(&findings.diagnostics, &findings.source, colour)
}

fn hint(error: &build::Error) -> Option<String> {
    match error {
        build::Error::ReadRecipe { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            Some("name the recipe with -f FILE".to_owned())
        }
        build::Error::Contexts(build::contexts::Error::Fetch(error)) => error.advice(),
        _ => None,
    }
}

/// Whether standard output takes colours: a terminal, and nobody asked for none.
pub(super) fn stdout_colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard error takes colours: a terminal, and nobody asked for none.
pub(super) fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
