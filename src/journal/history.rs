//! What the store has of builds → what happened in them.

use std::collections::VecDeque;
use std::fs::File;
use std::time::Duration;

use super::entry::{Earlier, Entry, FORMAT, Head, Outcome};
use super::frames::Lines;
use crate::progress::OutputLines;
use crate::store::{self, BuildId, Store, StoredBuild};

/// A build, past or going on.
#[derive(Debug, Clone)]
pub struct Build {
    /// Where its logs are.
    pub stored: StoredBuild,
    /// When it began: milliseconds since 1970.
    pub began: u64,
    /// What was known then.
    pub head: Head,
    /// Its steps, by number.
    pub steps: Vec<Step>,
    /// What has become of it.
    pub state: State,
    /// How long it took, as far as is known.
    pub elapsed: Duration,
}

/// What has become of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It goes on.
    Running,
    /// It ended by itself.
    Ended(Outcome),
    /// Its process ended before it did.
    Killed,
}

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number, as progress shows it.
    pub number: u64,
    /// What it is.
    pub title: String,
    /// What has become of it.
    pub state: StepState,
    /// Whether its log ends before it did, because it could not be kept.
    pub cut: bool,
}

/// What has become of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StepState {
    /// It goes on.
    Running,
    /// It ended well.
    Done {
        /// How long it took.
        elapsed: Duration,
    },
    /// It failed, or was ended because another did.
    Failed {
        /// How long it took.
        elapsed: Duration,
        /// The error.
        error: String,
    },
    /// Its result was known.
    Cached {
        /// Where its log is.
        from: Option<Earlier>,
    },
    /// The build's process ended before it did.
    Killed,
}

/// Every build that the store has, the newest first.
///
/// # Errors
/// If the store cannot be read. A build whose record cannot be understood is left out.
pub fn builds(store: &Store) -> Result<Vec<Build>, store::Error> {
    let mut builds: Vec<Build> = store.builds()?.into_iter().filter_map(Build::read).collect();
    builds.sort_by(|a, b| b.began.cmp(&a.began).then_with(|| b.id().cmp(a.id())));
    Ok(builds)
}

/// Whether the record of a build is what was written, as far as its form tells. A killed build's ends anywhere.
pub fn is_readable(stored: &StoredBuild) -> bool {
    let record = stored.record();
    let mut lines: Vec<&[u8]> = record.split(|&byte| byte == b'\n').collect();
    // What follows the last line end was cut off, or is nothing.
    lines.pop();
    lines.iter().all(|line| serde_json::from_slice::<serde_json::Value>(line).is_ok())
}

impl Build {
    fn read(stored: StoredBuild) -> Option<Self> {
        // Asked before the record is read: a build that ends in between is then seen to have ended.
        let running = stored.is_running();
        let record = stored.record();
        let mut lines = record.split(|&byte| byte == b'\n');
        let Ok(Entry::Began { format: FORMAT, time, head, .. }) = serde_json::from_slice(lines.next()?) else {
            return None;
        };
        let state = if running { State::Running } else { State::Killed };
        let mut build = Self { stored, began: time, head, steps: Vec::new(), state, elapsed: Duration::ZERO };
        // Lines of another release's making mean nothing here.
        lines.filter_map(|line| serde_json::from_slice(line).ok()).for_each(|entry| build.follow(entry));
        let open = if build.state == State::Running { StepState::Running } else { StepState::Killed };
        build
            .steps
            .iter_mut()
            .filter(|step| step.state == StepState::Running)
            .for_each(|step| step.state = open.clone());
        build.steps.sort_by_key(|step| step.number);
        Some(build)
    }

    fn follow(&mut self, entry: Entry) {
        let at = match entry {
            Entry::Began { .. } => return,
            Entry::Started { step, title, at } => {
                self.steps.push(Step { number: step, title, state: StepState::Running, cut: false });
                at
            }
            Entry::Cached { step, title, at, from } => {
                self.steps.push(Step { number: step, title, state: StepState::Cached { from }, cut: false });
                at
            }
            Entry::Finished { step, at, elapsed, error, cut, .. } => {
                let elapsed = Duration::from_millis(elapsed);
                if let Some(step) = self.steps.iter_mut().find(|known| known.number == step) {
                    step.cut = cut;
                    step.state = match error {
                        None => StepState::Done { elapsed },
                        Some(error) => StepState::Failed { elapsed, error },
                    };
                }
                at
            }
            Entry::Warning { at, .. } => at,
            Entry::Ended { at, outcome } => {
                self.state = State::Ended(outcome);
                at
            }
        };
        self.elapsed = self.elapsed.max(Duration::from_millis(at));
    }

    /// Its id.
    pub fn id(&self) -> &BuildId {
        &self.stored.id
    }

    /// The steps that a person means by a number (`3` or `#3`), a stage (`build`), a step of it (`build 2/4`, `build/2`)
    /// or a part of the title. The first of these that any step answers to counts.
    pub fn named(&self, text: &str) -> Vec<&Step> {
        let number = text.strip_prefix('#').unwrap_or(text).parse::<u64>().ok();
        let place = |step: &Step| {
            let (place, _) = step.title.strip_prefix('[')?.split_once(']')?;
            let (stage, count) = place.rsplit_once(' ').unwrap_or(("", place));
            let (number, of) = count.split_once('/')?;
            Some((stage.to_owned(), number.to_owned(), of.to_owned()))
        };
        let is_stage = |step: &Step| place(step).is_some_and(|(stage, ..)| stage.eq_ignore_ascii_case(text));
        let is_step_of_stage = |step: &Step| {
            place(step).is_some_and(|(stage, number, of)| {
                let whole = format!("{stage} {number}/{of}");
                whole.trim_start().eq_ignore_ascii_case(text) || format!("{stage}/{number}").eq_ignore_ascii_case(text)
            })
        };
        let ways: [&dyn Fn(&Step) -> bool; 5] = [
            &|step| number == Some(step.number),
            &|step| step.title == text,
            &is_step_of_stage,
            &|step| !text.is_empty() && is_stage(step),
            &|step| !text.is_empty() && step.title.contains(text),
        ];
        let chosen = |way: &&dyn Fn(&Step) -> bool| self.steps.iter().filter(|step| way(step)).collect::<Vec<_>>();
        ways.iter().map(chosen).find(|steps| !steps.is_empty()).unwrap_or_default()
    }
}

/// The lines that a step wrote; none where it wrote nothing.
///
/// # Errors
/// If there is a log that cannot be read.
pub fn lines(build: &StoredBuild, step: u64) -> Result<Option<Lines<File>>, store::Error> {
    let Some(file) = build.log(step)? else { return Ok(None) };
    Ok(Some(Lines::new(file).map_err(|error| build.log_error(step, error))?))
}

/// The last lines that a step wrote, as a terminal would show them. Trouble in reading them means fewer.
pub fn last_lines(build: &StoredBuild, step: u64, count: usize) -> Vec<String> {
    /// More of one line is no help.
    const WIDTH: usize = 1000;
    let mut last = VecDeque::new();
    let Ok(Some(lines)) = lines(build, step) else { return Vec::new() };
    for line in lines.map_while(Result::ok) {
        if last.len() == count {
            last.pop_front();
        }
        last.push_back(line.bytes);
    }
    let shown = |line: Vec<u8>| {
        let text = OutputLines::one(&line);
        if text.chars().count() <= WIDTH { text } else { text.chars().take(WIDTH).chain(['…']).collect() }
    };
    last.into_iter().map(shown).collect()
}
