//! What a build tells about itself while it goes on.
//!
//! The engine sends [`Event`]s to a [`Sink`] and never prints. Views ([`plain`], [`terminal`], [`json`]) turn them into
//! lines; none of them is on the path of the work.

mod explanation;
pub mod json;
mod lines;
pub mod plain;
pub mod summary;
pub mod terminal;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

pub use explanation::{Answer, Explanation};
pub(crate) use lines::Lines as OutputLines;

/// Names one unit of work (a step, a layer transfer, an export) within one build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId(pub u64);

/// Which of a process's outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A step of an earlier build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Earlier {
    /// The build's id.
    pub build: Arc<str>,
    /// The step's number in it.
    pub step: u64,
}

/// Something that happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// Work began. `title` is what people read, such as `[builder 2/5] RUN make`.
    Started {
        /// The work.
        task: TaskId,
        /// What it is.
        title: Arc<str>,
    },
    /// A step's result was known: nothing was done. No `Started` precedes it.
    Cached {
        /// The work.
        task: TaskId,
        /// What it is.
        title: Arc<str>,
        /// Where what it wrote is kept, if that is known.
        from: Option<Earlier>,
        /// Why it was known, where that is wanted.
        explanation: Option<Box<Explanation>>,
    },
    /// Why a step that began has to be made.
    Explained {
        /// The work.
        task: TaskId,
        /// Why.
        explanation: Box<Explanation>,
    },
    /// Bytes a step's process wrote; lines may be cut anywhere.
    Output {
        /// The work.
        task: TaskId,
        /// Which output.
        stream: Stream,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// How far a transfer is.
    Transferred {
        /// The work.
        task: TaskId,
        /// Bytes so far.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// What the work waits for, such as another process building the same step.
    Waiting {
        /// The work.
        task: TaskId,
        /// For what.
        reason: String,
    },
    /// Work ended.
    Finished {
        /// The work.
        task: TaskId,
        /// How long it took.
        elapsed: Duration,
        /// The error, in one line, where it failed.
        error: Option<String>,
    },
    /// A sentence that concerns the whole build.
    Warning(String),
}

/// Where events go. Called from many threads; must not block for long.
pub trait Sink: Send + Sync {
    /// Takes one event.
    fn event(&self, event: Event);
}

/// Sees events on their way to the sink. Called from many threads; must not block for long.
pub trait Observer: Send + Sync {
    /// Sees one event.
    fn observe(&self, event: &Event);
}

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _event: Event) {}
}

/// Hands out tasks and sends their events to one sink.
pub struct Reporter {
    sink: Arc<dyn Sink>,
    observer: RwLock<Option<Arc<dyn Observer>>>,
    next: AtomicU64,
}

impl std::fmt::Debug for Reporter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Reporter(..)")
    }
}

impl Reporter {
    /// A reporter whose tasks count from 1.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, observer: RwLock::default(), next: AtomicU64::new(1) }
    }

    /// Lets an observer see every event from now on, in place of an earlier one; or none.
    pub fn observe(&self, observer: Option<Arc<dyn Observer>>) {
        *self.observer.write().unwrap_or_else(PoisonError::into_inner) = observer;
    }

    fn tell(&self, event: Event) {
        if let Some(observer) = &*self.observer.read().unwrap_or_else(PoisonError::into_inner) {
            observer.observe(&event);
        }
        self.sink.event(event);
    }

    fn id(&self) -> TaskId {
        TaskId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// Work began.
    pub fn start(&self, title: &str) -> Task<'_> {
        let task = Task { reporter: self, id: self.id(), started: Instant::now(), finished: false };
        self.tell(Event::Started { task: task.id, title: title.into() });
        task
    }

    /// A step's result was known, `from` an earlier build; with why, where that is wanted.
    pub fn cached(&self, title: &str, from: Option<Earlier>, explanation: Option<Explanation>) {
        let explanation = explanation.map(Box::new);
        self.tell(Event::Cached { task: self.id(), title: title.into(), from, explanation });
    }

    /// A sentence that concerns the whole build.
    pub fn warning(&self, sentence: impl Into<String>) {
        self.tell(Event::Warning(sentence.into()));
    }
}

/// Work under way. Counts as broken off unless [`Task::finish`] is called.
pub struct Task<'a> {
    reporter: &'a Reporter,
    id: TaskId,
    started: Instant,
    finished: bool,
}

impl std::fmt::Debug for Task<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Task({})", self.id.0)
    }
}

impl Task<'_> {
    /// Its number, as views show it.
    pub fn number(&self) -> u64 {
        self.id.0
    }

    /// Why the work is done.
    pub fn explained(&self, explanation: Explanation) {
        self.reporter.tell(Event::Explained { task: self.id, explanation: Box::new(explanation) });
    }

    /// Bytes the step's process wrote.
    pub fn output(&self, stream: Stream, bytes: &[u8]) {
        self.reporter.tell(Event::Output { task: self.id, stream, bytes: bytes.to_vec() });
    }

    /// How far a transfer is.
    pub fn transferred(&self, done: u64, total: Option<u64>) {
        self.reporter.tell(Event::Transferred { task: self.id, done, total });
    }

    /// What the work waits for.
    pub fn waiting(&self, reason: impl Into<String>) {
        self.reporter.tell(Event::Waiting { task: self.id, reason: reason.into() });
    }

    /// Ends the work: well, or with an error in one line.
    pub fn finish(mut self, error: Option<String>) {
        self.end(error);
    }

    fn end(&mut self, error: Option<String>) {
        if !std::mem::replace(&mut self.finished, true) {
            self.reporter.tell(Event::Finished { task: self.id, elapsed: self.started.elapsed(), error });
        }
    }
}

impl Drop for Task<'_> {
    fn drop(&mut self) {
        self.end(Some("broken off".to_owned()));
    }
}
