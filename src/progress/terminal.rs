//! Progress on a terminal: a line for everything that runs, with its time and the last line it wrote; what is done
//! scrolls away above.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::progress::lines::Lines;
use crate::progress::{Event, Explanation, Sink, TaskId};

/// How often running times are redrawn.
const TICK: Duration = Duration::from_millis(100);

/// A live view.
#[derive(Debug)]
pub struct Terminal {
    bars: MultiProgress,
    tasks: Mutex<HashMap<TaskId, Shown>>,
}

#[derive(Debug)]
struct Shown {
    title: Arc<str>,
    bar: ProgressBar,
    output: Lines,
    explanation: Option<Box<Explanation>>,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// A view on standard error.
    pub fn new() -> Self {
        Self::on(ProgressDrawTarget::stderr())
    }

    fn on(target: ProgressDrawTarget) -> Self {
        Self { bars: MultiProgress::with_draw_target(target), tasks: Mutex::default() }
    }

    fn start(&self, title: Arc<str>) -> Shown {
        let bar = self
            .bars
            .add(ProgressBar::new_spinner().with_style(style("{spinner:.cyan} {prefix} {elapsed:.dim} {msg:.dim}")));
        bar.set_prefix(shorten(&title, 70));
        bar.enable_steady_tick(TICK);
        Shown { title, bar, output: Lines::default(), explanation: None }
    }

    fn finish(&self, shown: Shown, elapsed: Duration, error: Option<&str>) {
        shown.bar.finish_and_clear();
        self.bars.remove(&shown.bar);
        let seconds = elapsed.as_secs_f64();
        match error {
            None => self.say(&format!("✓ {} {seconds:.1}s", shown.title)),
            Some(error) => self.say(&format!("✗ {} {seconds:.1}s: {error}", shown.title)),
        }
        self.explain(shown.explanation.as_deref());
    }

    fn explain(&self, explanation: Option<&Explanation>) {
        explanation.into_iter().flat_map(Explanation::lines).for_each(|line| self.say(&format!("    {line}")));
    }

    fn say(&self, line: &str) {
        // A terminal that went away is no reason to stop building.
        let _ = self.bars.println(line);
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

fn shorten(text: &str, width: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= width { line } else { line.chars().take(width - 1).chain(['…']).collect() }
}

impl Sink for Terminal {
    fn event(&self, event: Event) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Started { task, title } => {
                let shown = self.start(title);
                tasks.insert(task, shown);
            }
            Event::Cached { title, explanation, .. } => {
                self.say(&format!("= {title} cached"));
                self.explain(explanation.as_deref());
            }
            Event::Explained { task, explanation } => {
                // What scrolls away is the step's last line: the reason belongs below it.
                if let Some(shown) = tasks.get_mut(&task) {
                    shown.explanation = Some(explanation);
                }
            }
            Event::Output { task, bytes, .. } => {
                let Some(shown) = tasks.get_mut(&task) else { return };
                if let Some(line) = shown.output.push(&bytes).last() {
                    shown.bar.set_message(shorten(line, 60));
                }
            }
            Event::Transferred { task, done, total } => {
                let Some(shown) = tasks.get(&task) else { return };
                let total = total.map(|total| format!(" / {}", indicatif::DecimalBytes(total))).unwrap_or_default();
                shown.bar.set_message(format!("{}{total}", indicatif::DecimalBytes(done)));
            }
            Event::Waiting { task, reason } => {
                if let Some(shown) = tasks.get(&task) {
                    shown.bar.set_message(reason);
                }
            }
            Event::Finished { task, elapsed, error } => {
                if let Some(shown) = tasks.remove(&task) {
                    self.finish(shown, elapsed, error.as_deref());
                }
            }
            Event::Warning(sentence) => self.say(sentence.trim_end()),
        }
    }
}

#[cfg(test)]
mod tests {
    use indicatif::InMemoryTerm;

    use super::*;
    use crate::progress::Stream;

    #[test]
    fn running_steps_show_their_last_line_and_finished_ones_stay() {
        let screen = InMemoryTerm::new(10, 120);
        let view = Terminal::on(ProgressDrawTarget::term_like(Box::new(screen.clone())));
        view.event(Event::Cached { task: TaskId(1), title: "[1/3] RUN a".into(), from: None, explanation: None });
        view.event(Event::Started { task: TaskId(2), title: "[2/3] RUN b".into() });
        view.event(Event::Output { task: TaskId(2), stream: Stream::Stdout, bytes: b"one\ntwo\nthr".to_vec() });
        for (_, shown) in view.tasks.lock().unwrap().iter() {
            shown.bar.tick();
        }
        let running = screen.contents();
        assert!(
            running.contains("[1/3] RUN a cached") && running.contains("[2/3] RUN b") && running.contains("two"),
            "{running}"
        );
        let explanation = Explanation::new(crate::progress::Answer::Miss, "the command changed", serde_json::json!({}));
        view.event(Event::Explained { task: TaskId(2), explanation: Box::new(explanation) });
        let error = Some("exit code: 1".to_owned());
        view.event(Event::Finished { task: TaskId(2), elapsed: Duration::from_secs(1), error });
        let done = screen.contents();
        assert!(done.contains("✗ [2/3] RUN b 1.0s: exit code: 1\n    MISS the command changed"), "{done}");
    }
}
