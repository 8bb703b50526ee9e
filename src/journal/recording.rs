//! A build's events → its directory in the store, as they come.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::entry::{Earlier, Entry, FORMAT, Head, Outcome};
use super::frames::{MAGIC, frame};
use crate::progress::{Event, Observer, Stream, TaskId};
use crate::store::{self, BuildDirectory, BuildId, Kept, Store, StoredBuild};

/// What is kept of a build that goes on.
#[derive(Debug)]
pub struct Recording {
    directory: BuildDirectory,
    began: Instant,
    steps: Mutex<HashMap<TaskId, Arc<Mutex<Log>>>>,
    /// Steps that failed, in their order.
    failed: Mutex<Vec<(Arc<str>, u64)>>,
    /// The first thing that could not be kept.
    trouble: Mutex<Option<store::Error>>,
    written: AtomicU64,
}

/// The log of a running step.
#[derive(Debug)]
struct Log {
    title: Arc<str>,
    began: Instant,
    /// Made with the first piece.
    file: Option<File>,
    bytes: u64,
    /// Something could not be kept: nothing that comes later is, because a reader would take it for what is missing.
    cut: bool,
}

impl Recording {
    /// Begins to keep a build.
    ///
    /// # Errors
    /// What the store was refused.
    pub fn begin(store: &Store, head: Head) -> Result<Self, store::Error> {
        let recording = Self {
            directory: store.begin_build()?,
            began: Instant::now(),
            steps: Mutex::default(),
            failed: Mutex::default(),
            trouble: Mutex::default(),
            written: AtomicU64::new(0),
        };
        let strata = env!("CARGO_PKG_VERSION").to_owned();
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        recording.try_note(&Entry::Began { format: FORMAT, strata, time: milliseconds(time), head })?;
        Ok(recording)
    }

    /// The build's id.
    pub fn id(&self) -> &BuildId {
        self.directory.id()
    }

    /// The build as its readers see it.
    pub fn stored(&self) -> StoredBuild {
        self.directory.stored()
    }

    /// The number of the step with this title that failed.
    pub fn failed_step(&self, title: &str) -> Option<u64> {
        lock(&self.failed).iter().find(|(failed, _)| **failed == *title).map(|(_, step)| *step)
    }

    /// Ends the record, and makes room for it among the others.
    ///
    /// # Errors
    /// The first thing that could not be kept, here or earlier.
    pub fn end(&self, store: &Store, outcome: Outcome, kept: Kept) -> Result<(), store::Error> {
        self.note(&Entry::Ended { at: self.now(), outcome });
        let trimmed = store.trim_builds(kept, self.written.load(Ordering::Relaxed));
        lock(&self.trouble).take().map_or(trimmed, Err)
    }

    fn now(&self) -> u64 {
        milliseconds(self.began.elapsed())
    }

    fn note(&self, entry: &Entry) {
        if let Err(error) = self.try_note(entry) {
            lock(&self.trouble).get_or_insert(error);
        }
    }

    fn try_note(&self, entry: &Entry) -> Result<(), store::Error> {
        let line = serde_json::to_vec(entry).expect("an entry holds only strings and numbers");
        self.written.fetch_add(line.len() as u64, Ordering::Relaxed);
        self.directory.note(&line)
    }

    fn start(&self, task: TaskId, title: Arc<str>) {
        self.note(&Entry::Started { step: task.0, title: title.to_string(), at: self.now() });
        let log = Log { title, began: Instant::now(), file: None, bytes: 0, cut: false };
        lock(&self.steps).insert(task, Arc::new(Mutex::new(log)));
    }

    fn keep(&self, task: TaskId, stream: Stream, bytes: &[u8]) {
        let Some(log) = lock(&self.steps).get(&task).cloned() else { return };
        let mut log = lock(&log);
        log.bytes += bytes.len() as u64;
        if log.cut {
            return;
        }
        let kept = self.try_keep(&mut log, task, stream, bytes);
        if let Err(error) = kept {
            log.cut = true;
            lock(&self.trouble).get_or_insert(error);
        }
    }

    fn try_keep(&self, log: &mut Log, task: TaskId, stream: Stream, bytes: &[u8]) -> Result<(), store::Error> {
        let at = log.began.elapsed();
        let mut text = frame(stream, at, bytes);
        self.written.fetch_add(text.len() as u64, Ordering::Relaxed);
        let failed = |error: io::Error| self.directory.log_error(task.0, error);
        match &mut log.file {
            Some(file) => file.write_all(&text).map_err(failed),
            file @ None => {
                text.splice(..0, MAGIC.iter().copied());
                file.insert(self.directory.log(task.0)?).write_all(&text).map_err(failed)
            }
        }
    }

    fn finish(&self, task: TaskId, elapsed: Duration, error: Option<String>) {
        let Some(log) = lock(&self.steps).remove(&task) else { return };
        let log = lock(&log);
        if error.is_some() {
            lock(&self.failed).push((Arc::clone(&log.title), task.0));
        }
        let elapsed = milliseconds(elapsed);
        self.note(&Entry::Finished { step: task.0, at: self.now(), elapsed, bytes: log.bytes, cut: log.cut, error });
    }
}

impl Observer for Recording {
    fn observe(&self, event: &Event) {
        match event {
            Event::Started { task, title } => self.start(*task, Arc::clone(title)),
            Event::Cached { task, title, from, .. } => {
                let from = from.as_ref().map(|from| Earlier { build: from.build.to_string(), step: from.step });
                self.note(&Entry::Cached { step: task.0, title: title.to_string(), at: self.now(), from });
            }
            Event::Output { task, stream, bytes } if !bytes.is_empty() => self.keep(*task, *stream, bytes),
            Event::Finished { task, elapsed, error } => self.finish(*task, *elapsed, error.clone()),
            Event::Warning(text) => self.note(&Entry::Warning { at: self.now(), text: text.clone() }),
            Event::Output { .. } | Event::Transferred { .. } | Event::Waiting { .. } | Event::Explained { .. } => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
