//! A graph as people and programs read it: text, DOT and JSON.

use crate::graph::Graph;

/// What is known of a node beside the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its result is known; nothing would be done.
    Cached,
    /// It would be made.
    Miss,
    /// Whether it would be made depends on a result that is not known yet.
    Unknown,
}

/// One block a stage, one line a step, with what it depends on.
pub fn text(_graph: &Graph, _status: &[Status]) -> String {
    todo!()
}

/// Graphviz.
pub fn dot(_graph: &Graph, _status: &[Status]) -> String {
    todo!()
}

/// A JSON document with `nodes` (id, op, stage, step, text, inputs, status) and `target`.
pub fn json(_graph: &Graph, _status: &[Status]) -> serde_json::Value {
    todo!()
}
