//! What a build tells about itself while it goes on.
//!
//! The engine sends [`Event`]s to a [`Sink`] and never prints. Views ([`plain`], [`terminal`], [`json`]) turn them into
//! lines; none of them is on the path of the work.

pub mod json;
pub mod plain;
pub mod terminal;

use std::sync::Arc;
use std::time::Duration;

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

/// Drops every event.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Sink for Silent {
    fn event(&self, _event: Event) {}
}
