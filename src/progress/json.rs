//! Progress for programs: one JSON object a line.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::progress::{Event, Sink, Stream, TaskId};

/// A view that writes JSON lines. Every object has `event` and, but for warnings, `task`.
#[derive(Debug)]
pub struct Json<W> {
    state: Mutex<State<W>>,
}

#[derive(Debug)]
struct State<W> {
    sink: W,
    /// The beginnings of characters whose other bytes have not come yet, at the ends of tasks' outputs.
    begun: HashMap<TaskId, [Vec<u8>; 2]>,
}

impl<W: Write + Send> Json<W> {
    /// A view that writes to `sink`. What cannot be written is dropped: progress never ends a build.
    pub fn new(sink: W) -> Self {
        Self { state: Mutex::new(State { sink, begun: HashMap::new() }) }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn event(&self, event: Event) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Output { task, stream, bytes } => {
                let begun = &mut state.begun.entry(task).or_default()[usize::from(stream == Stream::Stderr)];
                let bytes = whole_characters(begun, bytes);
                state.write(&Event::Output { task, stream, bytes });
            }
            Event::Finished { task, .. } => {
                let rest = state.begun.remove(&task).unwrap_or_default();
                for (stream, bytes) in [Stream::Stdout, Stream::Stderr].into_iter().zip(rest) {
                    state.write(&Event::Output { task, stream, bytes });
                }
                state.write(&event);
            }
            event => state.write(&event),
        }
    }
}

impl<W: Write> State<W> {
    fn write(&mut self, event: &Event) {
        if matches!(event, Event::Output { bytes, .. } if bytes.is_empty()) {
            return;
        }
        // A reader of progress that went away is no reason to stop building.
        let _ = self.sink.write_all(format!("{}\n", object(event)).as_bytes());
    }
}

/// What was begun and what came now, but for the beginning of a character at the end, which waits for the rest of it.
fn whole_characters(begun: &mut Vec<u8>, bytes: Vec<u8>) -> Vec<u8> {
    let mut whole = std::mem::take(begun);
    whole.extend(bytes);
    let last = whole.utf8_chunks().last().map_or(0, |chunk| chunk.invalid().len());
    let end = whole.len() - last;
    let is_begun =
        std::str::from_utf8(whole.get(end..).unwrap_or_default()).is_err_and(|error| error.error_len().is_none());
    if is_begun {
        *begun = whole.split_off(end);
    }
    whole
}

fn object(event: &Event) -> Value {
    match event {
        Event::Started { task, title } => json!({ "event": "started", "task": task.0, "title": &**title }),
        Event::Cached { task, title, from, explanation } => {
            let from = from.as_ref().map(|from| json!({ "build": &*from.build, "step": from.step }));
            let mut object = json!({ "event": "cached", "task": task.0, "title": &**title, "from": from });
            if let Some(explanation) = explanation {
                object["explanation"] = explanation.object();
            }
            object
        }
        Event::Explained { task, explanation } => {
            json!({ "event": "explained", "task": task.0, "explanation": explanation.object() })
        }
        Event::Output { task, stream, bytes } => {
            let stream = match stream {
                Stream::Stdout => "stdout",
                Stream::Stderr => "stderr",
            };
            json!({ "event": "output", "task": task.0, "stream": stream, "text": String::from_utf8_lossy(bytes) })
        }
        Event::Transferred { task, done, total } => {
            json!({ "event": "transferred", "task": task.0, "done": done, "total": total })
        }
        Event::Waiting { task, reason } => json!({ "event": "waiting", "task": task.0, "reason": reason }),
        Event::Finished { task, elapsed, error } => {
            json!({ "event": "finished", "task": task.0, "seconds": elapsed.as_secs_f64(), "error": error })
        }
        Event::Warning(sentence) => json!({ "event": "warning", "text": sentence }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::TaskId;

    #[test]
    fn one_object_a_line() {
        let view = Json::new(Vec::new());
        view.event(Event::Started { task: TaskId(1), title: "a\nb".into() });
        view.event(Event::Warning("w".into()));
        let text = String::from_utf8(view.state.into_inner().unwrap().sink).unwrap();
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0], json!({ "event": "started", "task": 1, "title": "a\nb" }));
        assert_eq!(objects[1]["event"], "warning");
    }

    #[test]
    fn characters_are_whole_wherever_output_is_cut() {
        let view = Json::new(Vec::new());
        let task = TaskId(1);
        for byte in "aß€𝄞\u{7f}".as_bytes().iter().chain(b"\xff\xe2\x82") {
            view.event(Event::Output { task, stream: Stream::Stderr, bytes: vec![*byte] });
        }
        view.event(Event::Finished { task, elapsed: std::time::Duration::ZERO, error: None });
        let text = String::from_utf8(view.state.into_inner().unwrap().sink).unwrap();
        let objects = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let shown: String = objects.filter_map(|object| Some(object["text"].as_str()?.to_owned())).collect();
        assert_eq!(shown, "aß€𝄞\u{7f}\u{fffd}\u{fffd}");
    }
}
