//! Progress as lines, for logs: `#3 [build 2/4] RUN make`, `#3 1.204 output`, `#3 DONE 2.1s`.
//!
//! Every line of a step's output is whole and carries the step's number and the seconds since it began.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use crate::progress::lines::Lines;
use crate::progress::{Event, Explanation, Sink, Stream, TaskId};

/// A view that writes lines.
#[derive(Debug)]
pub struct Plain<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    sink: W,
    tasks: HashMap<TaskId, Shown>,
    /// The last task that a line was about: a blank line parts it from the next.
    last: Option<TaskId>,
}

#[derive(Debug)]
struct Shown {
    title: Arc<str>,
    started: Instant,
    output: [Lines; 2],
    transferred: Option<(u64, Option<u64>)>,
}

impl<W: Write + Send> Plain<W> {
    /// A view that writes to `sink`. What cannot be written is dropped: progress never ends a build.
    pub fn new(sink: W) -> Self {
        Self { state: Mutex::new(State { sink, tasks: HashMap::new(), last: None }) }
    }
}

impl<W: Write + Send> Sink for Plain<W> {
    fn event(&self, event: Event) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).show(event);
    }
}

impl<W: Write> State<W> {
    fn show(&mut self, event: Event) {
        match event {
            Event::Started { task, title } => {
                self.line(task, &title);
                let shown = Shown { title, started: Instant::now(), output: Default::default(), transferred: None };
                self.tasks.insert(task, shown);
            }
            Event::Cached { task, title, explanation, .. } => {
                self.line(task, &title);
                self.line(task, "CACHED");
                self.explain(task, explanation.as_deref());
            }
            Event::Explained { task, explanation } => self.explain(task, Some(&explanation)),
            Event::Output { task, stream, bytes } => {
                let Some(shown) = self.tasks.get_mut(&task) else { return };
                let seconds = shown.started.elapsed().as_secs_f64();
                let lines = shown.output[usize::from(stream == Stream::Stderr)].push(&bytes);
                self.lines(task, seconds, &lines);
            }
            Event::Transferred { task, done, total } => {
                if let Some(shown) = self.tasks.get_mut(&task) {
                    shown.transferred = Some((done, total));
                }
            }
            Event::Waiting { task, reason } => self.line(task, &reason),
            Event::Finished { task, elapsed, error } => {
                let Some(shown) = self.tasks.remove(&task) else { return };
                self.finish(task, shown, elapsed.as_secs_f64(), error);
            }
            Event::Warning(sentence) => self.write(&format!("{}\n", sentence.trim_end())),
        }
    }

    fn explain(&mut self, task: TaskId, explanation: Option<&Explanation>) {
        explanation.into_iter().flat_map(Explanation::lines).for_each(|line| self.line(task, &line));
    }

    fn finish(&mut self, task: TaskId, shown: Shown, seconds: f64, error: Option<String>) {
        let rest: Vec<String> = shown.output.into_iter().filter_map(Lines::rest).collect();
        self.lines(task, seconds, &rest);
        if let Some((done, _)) = shown.transferred {
            self.line(task, &format!("{done} bytes"));
        }
        match error {
            None => self.line(task, &format!("DONE {seconds:.1}s")),
            Some(error) => self.line(task, &format!("ERROR {}: {error}", shown.title)),
        }
    }

    /// Lines of a step's output, all in one write: a step may write millions.
    fn lines(&mut self, task: TaskId, seconds: f64, lines: &[String]) {
        if lines.is_empty() {
            return;
        }
        let mut text = String::from(self.gap(task));
        let start = format!("#{} {seconds:.3} ", task.0);
        for line in lines {
            text.push_str(&start);
            text.push_str(line);
            text.push('\n');
        }
        self.write(&text);
    }

    fn line(&mut self, task: TaskId, text: &str) {
        let gap = self.gap(task);
        self.write(&format!("{gap}#{} {text}\n", task.0));
    }

    /// What parts the next line from those of another task.
    fn gap(&mut self, task: TaskId) -> &'static str {
        if self.last.replace(task).is_some_and(|last| last != task) { "\n" } else { "" }
    }

    fn write(&mut self, text: &str) {
        // A reader of progress that went away is no reason to stop building.
        let _ = self.sink.write_all(text.as_bytes()).and_then(|()| self.sink.flush());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::progress::Answer;

    #[test]
    fn lines_stay_whole_and_name_their_task() {
        let view = Plain::new(Vec::new());
        let (a, b) = (TaskId(1), TaskId(2));
        let output = |task, bytes: &[u8]| Event::Output { task, stream: Stream::Stdout, bytes: bytes.to_vec() };
        view.event(Event::Started { task: a, title: "[1/2] RUN a".into() });
        view.event(Event::Started { task: b, title: "[2/2] RUN b".into() });
        view.event(output(a, b"hel"));
        view.event(output(b, b"other\n"));
        view.event(output(a, b"lo\nrest"));
        view.event(Event::Finished { task: a, elapsed: Duration::from_millis(1500), error: None });
        view.event(Event::Finished { task: b, elapsed: Duration::ZERO, error: Some("exit code: 1".into()) });
        view.event(Event::Cached { task: TaskId(3), title: "[1/1] RUN c".into(), from: None, explanation: None });
        let text = String::from_utf8(view.state.into_inner().unwrap().sink).unwrap();
        let words: Vec<&str> =
            text.lines().filter(|line| !line.is_empty()).map(|line| line.rsplit_once(' ').unwrap().1).collect();
        assert_eq!(words, ["a", "b", "other", "hello", "rest", "1.5s", "1", "c", "CACHED"]);
        assert!(text.contains("#2 ERROR [2/2] RUN b: exit code: 1"));
    }
    #[test]
    fn explanations_stand_below_what_they_explain() {
        let view = Plain::new(Vec::new());
        let explanation = |answer, details: &[&str]| {
            let details = details.iter().map(|line| (*line).to_owned()).collect();
            Box::new(Explanation { details, ..Explanation::new(answer, "why", serde_json::json!({})) })
        };
        let hit = Some(explanation(Answer::Hit, &[]));
        view.event(Event::Cached { task: TaskId(1), title: "[1/2] RUN a".into(), from: None, explanation: hit });
        view.event(Event::Started { task: TaskId(2), title: "[2/2] RUN b".into() });
        view.event(Event::Explained { task: TaskId(2), explanation: explanation(Answer::Miss, &["more", "still"]) });
        let text = String::from_utf8(view.state.into_inner().unwrap().sink).unwrap();
        assert_eq!(
            text,
            "#1 [1/2] RUN a\n#1 CACHED\n#1 HIT why\n\n#2 [2/2] RUN b\n#2 MISS why\n#2   more\n#2   still\n"
        );
    }
}
