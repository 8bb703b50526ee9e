//! `strata logs`

use std::io::{self, BufWriter, Write};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::{Value, json};

use crate::cli::table::{age, table};
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::journal::{self, Build, Earlier, Line, Outcome, State, Step, StepState};
use crate::progress::Stream;
use crate::store::{Store, StoredBuild};

/// The arguments of `logs`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The build: its id, the beginning of it, or last; without it, all builds are listed, the newest first
    build: Option<String>,

    /// The step: its number, its stage, stage/number or a part of its text; without it, all steps
    #[arg(requires = "build")]
    step: Option<String>,

    /// How it is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Shows the builds, or what one of them wrote.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let store = workplace::store()?;
    let builds = journal::builds(&store)?;
    let Some(name) = arguments.build else {
        return match arguments.format {
            Format::Json => print_json(&builds.iter().map(document).collect::<Vec<_>>()),
            Format::Text => print(&list(&builds, SystemTime::now())),
        };
    };
    let build = find(&builds, &name)?;
    let steps = match &arguments.step {
        None => build.steps.iter().collect(),
        Some(step) => some(build, step)?,
    };
    let mut stdout = BufWriter::with_capacity(1 << 16, io::stdout().lock());
    let logs = Logs { store: &store, build };
    let shown = match arguments.format {
        Format::Json => logs.as_json(&steps, &mut stdout),
        Format::Text => logs.as_text(&steps, arguments.step.is_none() || steps.len() > 1, &mut stdout),
    };
    match shown.and_then(|()| Ok(stdout.flush()?)) {
        Err(Trouble::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(Trouble::Write(error)) => Err(exit::Error::Stdout(error)),
        Err(Trouble::Store(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Why a log could not be shown.
enum Trouble {
    Write(io::Error),
    Store(crate::store::Error),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Write(error)
    }
}

impl From<crate::store::Error> for Trouble {
    fn from(error: crate::store::Error) -> Self {
        Self::Store(error)
    }
}

fn find<'a>(builds: &'a [Build], name: &str) -> Result<&'a Build, exit::Error> {
    let none = || exit::Error::NoBuild { name: name.to_owned() };
    if name == "last" {
        return builds.first().ok_or_else(none);
    }
    let wanted = name.to_ascii_lowercase();
    let mut meant = builds.iter().filter(|build| !wanted.is_empty() && build.id().as_str().starts_with(&wanted));
    let first = meant.next().ok_or_else(none)?;
    let mut ids: Vec<String> = meant.map(|build| build.id().to_string()).collect();
    if ids.is_empty() {
        return Ok(first);
    }
    ids.insert(0, first.id().to_string());
    Err(exit::Error::SeveralBuilds { name: name.to_owned(), ids })
}

fn some<'a>(build: &'a Build, name: &str) -> Result<Vec<&'a Step>, exit::Error> {
    let steps = build.named(name);
    if steps.is_empty() {
        let titles = build.steps.iter().map(|step| format!("#{} {}", step.number, step.title)).collect();
        return Err(exit::Error::NoStep { build: build.id().short().to_owned(), name: name.to_owned(), titles });
    }
    Ok(steps)
}

/// Shows logs of one build.
struct Logs<'a> {
    store: &'a Store,
    build: &'a Build,
}

impl Logs<'_> {
    fn as_text(&self, steps: &[&Step], titles: bool, sink: &mut impl Write) -> Result<(), Trouble> {
        for (place, step) in steps.iter().enumerate() {
            if titles {
                let gap = if place > 0 { "\n" } else { "" };
                writeln!(sink, "{gap}#{} {}", step.number, step.title)?;
            }
            let ended = journal::whole_lines(self.lines_of(step)?, sink)?;
            let remark = remark(step);
            if titles {
                if !ended {
                    writeln!(sink)?;
                }
                writeln!(sink, "#{} {}", step.number, remark.unwrap_or_else(|| outcome(step)))?;
            } else if let Some(remark) = remark {
                // A single step's output comes out as it was: what is not its own goes elsewhere.
                sink.flush()?;
                writeln!(io::stderr(), "{remark}")?;
            }
        }
        if titles && self.build.state == State::Killed {
            let gap = if steps.is_empty() { "" } else { "\n" };
            writeln!(sink, "{gap}the build was killed: its logs end where it did")?;
        }
        Ok(())
    }

    /// What a step wrote, wherever that is kept.
    fn lines_of(&self, step: &Step) -> Result<impl Iterator<Item = Result<Line, Trouble>>, Trouble> {
        let (place, number) = self.place_of(step)?;
        let lines = place.as_ref().map(|place| journal::lines(place, number)).transpose()?.flatten();
        let failed = move |error| match &place {
            Some(place) => Trouble::Store(place.log_error(number, error)),
            None => Trouble::Write(error),
        };
        Ok(lines.into_iter().flatten().map(move |line| line.map_err(&failed)))
    }

    /// The build and the number by which a step's log is kept: for a cached step those of the build that ran it, if it is
    /// still there.
    fn place_of(&self, step: &Step) -> Result<(Option<StoredBuild>, u64), Trouble> {
        match &step.state {
            StepState::Cached { from: Some(Earlier { build, step }) } => {
                let place = self.store.builds()?.into_iter().find(|stored| stored.id.as_str() == build);
                Ok((place, *step))
            }
            StepState::Cached { from: None } => Ok((None, step.number)),
            _ => Ok((Some(self.build.stored.clone()), step.number)),
        }
    }

    /// One document, written as it is read: a log may be larger than the memory.
    fn as_json(&self, steps: &[&Step], sink: &mut impl Write) -> Result<(), Trouble> {
        let mut head = document(self.build);
        if let Value::Object(head) = &mut head {
            head.remove("steps");
        }
        let head = head.to_string();
        write!(sink, "{},\"steps\":[", head.strip_suffix('}').unwrap_or(&head))?;
        for (place, step) in steps.iter().enumerate() {
            let comma = if place > 0 { "," } else { "" };
            let about = step_document(step).to_string();
            write!(sink, "{comma}\n{},\"lines\":[", about.strip_suffix('}').unwrap_or(&about))?;
            let mut comma = "";
            for line in self.lines_of(step)? {
                let line = line?;
                let stream = if line.stream == Stream::Stdout { "stdout" } else { "stderr" };
                let text = String::from_utf8_lossy(&line.bytes);
                let object = json!({ "stream": stream, "seconds": line.at.as_secs_f64(), "text": text });
                write!(sink, "{comma}\n{object}")?;
                comma = ",";
            }
            write!(sink, "]}}")?;
        }
        Ok(writeln!(sink, "]}}")?)
    }
}

fn list(builds: &[Build], now: SystemTime) -> String {
    let mut rows = vec![["BUILD", "BEGAN", "STEPS", "TOOK", "OUTCOME", "WHAT"].map(str::to_owned).to_vec()];
    rows.extend(builds.iter().map(|build| {
        let what = if build.head.names.is_empty() { build.head.context.clone() } else { build.head.names.join(", ") };
        vec![
            build.id().short().to_owned(),
            age(&time(build.began), now),
            build.steps.len().to_string(),
            seconds(build.elapsed),
            state(&build.state).to_owned(),
            what,
        ]
    }));
    table(&rows)
}

fn document(build: &Build) -> Value {
    let (image, error) = match &build.state {
        State::Ended(Outcome::Done { image }) => (image.as_ref(), None),
        State::Ended(Outcome::Failed { error }) => (None, Some(error)),
        State::Ended(Outcome::Cancelled) | State::Running | State::Killed => (None, None),
    };
    json!({
        "id": build.id(),
        "began": time(build.began),
        "seconds": build.elapsed.as_secs_f64(),
        "outcome": state(&build.state),
        "context": build.head.context,
        "recipe": build.head.recipe,
        "target": build.head.target,
        "names": build.head.names,
        "image": image,
        "error": error,
        "steps": build.steps.iter().map(step_document).collect::<Vec<_>>(),
    })
}

fn step_document(step: &Step) -> Value {
    let (outcome, elapsed, error, from) = match &step.state {
        StepState::Running => ("running", None, None, None),
        StepState::Done { elapsed } => ("done", Some(elapsed), None, None),
        StepState::Failed { elapsed, error } => ("failed", Some(elapsed), Some(error), None),
        StepState::Cached { from } => ("cached", None, None, from.as_ref()),
        StepState::Killed => ("killed", None, None, None),
    };
    json!({
        "step": step.number,
        "title": step.title,
        "outcome": outcome,
        "seconds": elapsed.map(Duration::as_secs_f64),
        "error": error,
        "from": from,
        "cut": step.cut,
    })
}

const fn state(state: &State) -> &'static str {
    match state {
        State::Running => "running",
        State::Ended(Outcome::Done { .. }) => "done",
        State::Ended(Outcome::Failed { .. }) => "failed",
        State::Ended(Outcome::Cancelled) => "cancelled",
        State::Killed => "killed",
    }
}

/// What somebody must know who takes a step's log for whole and its own.
fn remark(step: &Step) -> Option<String> {
    match &step.state {
        StepState::Running => Some("RUNNING: there may be more".to_owned()),
        StepState::Killed => Some("KILLED: the log ends here".to_owned()),
        StepState::Cached { from: Some(Earlier { build, step }) } => {
            let short: String = build.chars().take(8).collect();
            Some(format!("CACHED: made by build {short}, step {step}"))
        }
        StepState::Cached { from: None } => Some("CACHED".to_owned()),
        StepState::Done { .. } | StepState::Failed { .. } if step.cut => {
            Some(format!("CUT: the rest of the log could not be kept; {}", outcome(step)))
        }
        StepState::Done { .. } | StepState::Failed { .. } => None,
    }
}

fn outcome(step: &Step) -> String {
    match &step.state {
        StepState::Done { elapsed } => format!("DONE {}", seconds(*elapsed)),
        StepState::Failed { elapsed, error } => format!("ERROR after {}: {error}", seconds(*elapsed)),
        StepState::Running | StepState::Cached { .. } | StepState::Killed => String::new(),
    }
}

fn seconds(elapsed: Duration) -> String {
    format!("{:.1}s", elapsed.as_secs_f64())
}

fn time(milliseconds: u64) -> String {
    let milliseconds = i64::try_from(milliseconds).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(milliseconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
