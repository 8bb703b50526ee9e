//! Progress for programs: one JSON object a line.

use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::progress::{Event, Sink, Stream};

/// A view that writes JSON lines. Every object has `event` and, but for warnings, `task`.
#[derive(Debug)]
pub struct Json<W> {
    sink: Mutex<W>,
}

impl<W: Write + Send> Json<W> {
    /// A view that writes to `sink`. What cannot be written is dropped: progress never ends a build.
    pub fn new(sink: W) -> Self {
        Self { sink: Mutex::new(sink) }
    }
}

impl<W: Write + Send> Sink for Json<W> {
    fn event(&self, event: Event) {
        let line = format!("{}\n", object(&event));
        // A reader of progress that went away is no reason to stop building.
        let _ = self.sink.lock().unwrap_or_else(PoisonError::into_inner).write_all(line.as_bytes());
    }
}

fn object(event: &Event) -> Value {
    match event {
        Event::Started { task, title } => json!({ "event": "started", "task": task.0, "title": &**title }),
        Event::Cached { task, title, from } => {
            let from = from.as_ref().map(|from| json!({ "build": &*from.build, "step": from.step }));
            json!({ "event": "cached", "task": task.0, "title": &**title, "from": from })
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
        let text = String::from_utf8(view.sink.into_inner().unwrap()).unwrap();
        let objects: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(objects[0], json!({ "event": "started", "task": 1, "title": "a\nb" }));
        assert_eq!(objects[1]["event"], "warning");
    }
}
