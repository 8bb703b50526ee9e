//! What a build came to: how many steps ran and where the time went.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::progress::{Event, Sink, TaskId};

/// How many of the slowest steps are listed.
const LISTED: usize = 10;

/// Passes events on to a view, and keeps the times.
pub struct Summary {
    view: Mutex<Option<Box<dyn Sink>>>,
    began: Instant,
    times: Mutex<Times>,
}

#[derive(Debug, Default)]
struct Times {
    titles: HashMap<TaskId, Arc<str>>,
    finished: Vec<(Arc<str>, Duration)>,
    cached: usize,
}

impl std::fmt::Debug for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Summary").field("times", &self.times).finish_non_exhaustive()
    }
}

impl Summary {
    /// A summary of what `view` shows.
    pub fn new(view: Box<dyn Sink>) -> Self {
        Self { view: Mutex::new(Some(view)), began: Instant::now(), times: Mutex::default() }
    }

    /// Ends the view, so that what is printed next stands below it.
    pub fn close(&self) {
        *self.view.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Prints how many steps ran, how many were cached, the build's id, and the slowest steps with their times.
    pub fn print(&self, sink: &mut impl Write, build: Option<&str>) {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        let mut slowest: Vec<_> = times.finished.iter().filter(|(_, elapsed)| elapsed.as_millis() >= 100).collect();
        slowest.sort_by_key(|(_, elapsed)| std::cmp::Reverse(*elapsed));
        let total = self.began.elapsed().as_secs_f64();
        let build = build.map(|build| format!(", build {build}")).unwrap_or_default();
        let mut text = format!("{} done, {} cached, {total:.2}s{build}\n", times.finished.len(), times.cached);
        for (title, elapsed) in slowest.iter().take(LISTED) {
            text += &format!("{:>8.1}s {title}\n", elapsed.as_secs_f64());
        }
        // A reader that went away is no reason to fail.
        let _ = sink.write_all(text.as_bytes());
    }
}

impl Sink for Summary {
    fn event(&self, event: Event) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        match &event {
            Event::Started { task, title } => {
                times.titles.insert(*task, title.clone());
            }
            Event::Cached { .. } => times.cached += 1,
            Event::Finished { task, elapsed, error: None } => {
                if let Some(title) = times.titles.remove(task) {
                    times.finished.push((title, *elapsed));
                }
            }
            _ => {}
        }
        drop(times);
        if let Some(view) = &*self.view.lock().unwrap_or_else(PoisonError::into_inner) {
            view.event(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Silent;

    #[test]
    fn counts_and_times() {
        let summary = Summary::new(Box::new(Silent));
        summary.event(Event::Cached { task: TaskId(1), title: "a".into(), from: None, explanation: None });
        summary.event(Event::Started { task: TaskId(2), title: "RUN slow".into() });
        summary.event(Event::Finished { task: TaskId(2), elapsed: Duration::from_secs(3), error: None });
        let mut text = Vec::new();
        summary.print(&mut text, Some("0123"));
        let text = String::from_utf8(text).unwrap();
        assert!(
            text.starts_with("1 done, 1 cached, ")
                && text.contains("s, build 0123\n")
                && text.contains("3.0s RUN slow"),
            "{text}"
        );
    }
}
