//! What the cache said of a step, and why: ready to be shown, secrets hidden.

use serde_json::{Value, json};

/// What the cache said of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// The result is known.
    Hit,
    /// The step has to be made.
    Miss,
    /// That depends on a result that is not known yet.
    Unknown,
}

impl Answer {
    /// The word for it in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Unknown => "unknown",
        }
    }

    /// The word for it in lines.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Hit => "HIT",
            Self::Miss => "MISS",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// What the cache said of a step, and why.
#[derive(Debug, Clone, PartialEq)]
pub struct Explanation {
    /// What it said.
    pub answer: Answer,
    /// Why, in one line.
    pub summary: String,
    /// More of it, a line each; empty where the summary says all.
    pub details: Vec<String>,
    /// The same for programs: an object.
    pub document: Value,
}

impl Explanation {
    /// An explanation of one line; `document` has what is to be said to programs besides the answer and the summary.
    pub fn new(answer: Answer, summary: impl Into<String>, document: Value) -> Self {
        Self { answer, summary: summary.into(), details: Vec::new(), document }
    }

    /// The whole object for programs.
    pub fn object(&self) -> Value {
        let mut object = json!({ "answer": self.answer.name(), "summary": self.summary });
        if let (Value::Object(object), Value::Object(more)) = (&mut object, &self.document) {
            object.extend(more.clone());
        }
        object
    }

    /// The lines for people: the first says what and why, the others are indented.
    pub fn lines(&self) -> impl Iterator<Item = String> {
        let first = format!("{} {}", self.answer.word(), self.summary);
        std::iter::once(first).chain(self.details.iter().map(|detail| format!("  {detail}")))
    }
}
