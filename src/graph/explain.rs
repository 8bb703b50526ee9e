//! A graph as people and programs read it: text, DOT and JSON.
//!
//! Takes a graph and what is known of its nodes, gives a document. Decides nothing and looks nothing up: a node without a
//! status counts as unknown.

use std::collections::HashMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::graph::{ContextName, Graph, Node, NodeId, Op};

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

impl Status {
    /// The status of a node among those given in the order of the nodes.
    fn of(node: NodeId, known: &[Self]) -> Self {
        known.get(node.0).copied().unwrap_or(Self::Unknown)
    }

    fn marker(self) -> char {
        match self {
            Self::Cached => '✓',
            Self::Miss => '●',
            Self::Unknown => '?',
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Cached => "cached",
            Self::Miss => "miss",
            Self::Unknown => "unknown",
        }
    }

    /// The fill of a node in DOT.
    fn colour(self) -> &'static str {
        match self {
            Self::Cached => "#d7f0d7",
            Self::Miss => "#fbe3c4",
            Self::Unknown => "#ececec",
        }
    }
}

/// The nodes of one stage, in order.
struct Block<'a> {
    /// The stage's name; empty for what stages share (contexts, images that are only copied from).
    stage: &'a str,
    nodes: Vec<NodeId>,
}

/// One block a stage, one line a step, with what it depends on beside the line above it.
pub fn text(graph: &Graph, status: &[Status]) -> String {
    let mut lines = vec!["✓ cached   ● to be made   ? depends on a result not known yet".to_owned()];
    for block in blocks(graph) {
        lines.push(String::new());
        lines.push(if block.stage.is_empty() { "inputs".to_owned() } else { format!("stage {}", block.stage) });
        let width = block.nodes.iter().map(|id| title(&graph[*id]).chars().count()).max().unwrap_or_default();
        let mut above = None;
        for (place, id) in block.nodes.iter().enumerate() {
            let branch = if place + 1 == block.nodes.len() { "└─" } else { "├─" };
            let marker = Status::of(*id, status).marker();
            let needs = needs(graph, *id, above);
            let title = title(&graph[*id]);
            let line = if needs.is_empty() {
                format!("{branch} {marker} {title}")
            } else {
                format!("{branch} {marker} {title:width$}  ← {}", needs.join(", "))
            };
            lines.push(if *id == graph.target { format!("{line}  (target)") } else { line });
            above = Some(*id);
        }
    }
    lines.push(String::new());
    lines.join("\n")
}

/// Graphviz: a cluster for each stage, solid edges to parents, dashed ones to what files are copied from.
pub fn dot(graph: &Graph, status: &[Status]) -> String {
    let mut lines = vec![
        "digraph strata {".to_owned(),
        "  rankdir=BT;".to_owned(),
        "  node [shape=box, style=\"rounded,filled\", fontname=\"monospace\"];".to_owned(),
    ];
    for (number, block) in blocks(graph).iter().enumerate() {
        let shared = block.stage.is_empty();
        let indent = if shared { "  " } else { "    " };
        if !shared {
            lines.push(format!("  subgraph cluster_{number} {{"));
            lines.push(format!("    label={};", quoted(block.stage)));
        }
        for id in &block.nodes {
            let border = if *id == graph.target { ", penwidth=2" } else { "" };
            lines.push(format!(
                "{indent}n{} [label={}, fillcolor=\"{}\"{border}];",
                id.0,
                quoted(&title(&graph[*id])),
                Status::of(*id, status).colour()
            ));
        }
        if !shared {
            lines.push("  }".to_owned());
        }
    }
    for (number, node) in graph.nodes.iter().enumerate() {
        for input in node.op.inputs() {
            let style = if node.op.parent() == Some(input) { "" } else { " [style=dashed]" };
            lines.push(format!("  n{number} -> n{}{style};", input.0));
        }
    }
    lines.push("}".to_owned());
    lines.push(String::new());
    lines.join("\n")
}

/// A JSON document with `nodes` (id, op, stage, step, of, text, inputs, status) and `target`.
pub fn json(graph: &Graph, status: &[Status]) -> Value {
    let nodes: Vec<Value> =
        graph.nodes.iter().enumerate().map(|(number, node)| json_node(number, node, status)).collect();
    json!({ "target": graph.target.0, "nodes": nodes })
}

fn json_node(number: usize, node: &Node, status: &[Status]) -> Value {
    let inputs: Vec<usize> = node.op.inputs().iter().map(|input| input.0).collect();
    json!({
        "id": number,
        "op": kind(&node.op),
        "stage": node.origin.stage,
        "step": node.origin.step,
        "of": node.origin.of,
        "text": title_text(node),
        "inputs": inputs,
        "status": Status::of(NodeId(number), status).name(),
    })
}

/// The nodes by stage, in the order in which the stages first appear; what stages share comes first.
fn blocks(graph: &Graph) -> Vec<Block<'_>> {
    let mut blocks = vec![Block { stage: "", nodes: Vec::new() }];
    let mut places = HashMap::from([("", 0)]);
    for (number, node) in graph.nodes.iter().enumerate() {
        let stage = node.origin.stage.as_str();
        let place = *places.entry(stage).or_insert_with(|| {
            blocks.push(Block { stage, nodes: Vec::new() });
            blocks.len() - 1
        });
        blocks[place].nodes.push(NodeId(number));
    }
    blocks.retain(|block| !block.nodes.is_empty());
    blocks
}

/// What a node needs that the reader does not see in the line above it.
fn needs(graph: &Graph, id: NodeId, above: Option<NodeId>) -> Vec<String> {
    let node = &graph[id];
    let parent = node.op.parent();
    node.op
        .inputs()
        .into_iter()
        .filter(|input| !(Some(*input) == parent && Some(*input) == above))
        .filter(|input| graph[*input].op != Op::Scratch)
        .map(|input| name(&graph[input], node))
        .collect()
}

/// A node as others refer to it.
fn name(node: &Node, seen_from: &Node) -> String {
    match &node.op {
        Op::Context(ContextName::Main) => "context".to_owned(),
        Op::Context(ContextName::Named(name)) => format!("context {name}"),
        Op::Http(_) | Op::Git(_) => node.origin.text.clone(),
        Op::Image(image) if node.origin.stage != seen_from.origin.stage => image.reference.familiar(),
        _ => {
            let mut name = String::new();
            if node.origin.stage != seen_from.origin.stage {
                name.push_str(&node.origin.stage);
                name.push(' ');
            }
            // Writing to a string cannot fail.
            let _ = write!(name, "{}/{}", node.origin.step, node.origin.of);
            name
        }
    }
}

/// `2/5 RUN make`, or the text alone for what has no number.
fn title(node: &Node) -> String {
    let text = title_text(node);
    if node.origin.of == 0 { text } else { format!("{}/{} {text}", node.origin.step, node.origin.of) }
}

fn title_text(node: &Node) -> String {
    match &node.op {
        Op::Context(ContextName::Named(name)) => format!("build context {name}"),
        _ => node.origin.text.clone(),
    }
}

fn kind(op: &Op) -> &'static str {
    match op {
        Op::Scratch => "scratch",
        Op::Image(_) => "image",
        Op::Context(_) => "context",
        Op::Http(_) => "http",
        Op::Git(_) => "git",
        Op::Run(_) => "run",
        Op::Copy(_) => "copy",
        Op::Mkdir(_) => "mkdir",
    }
}

/// A string of DOT: quotes and backslashes escaped, so that no backslash starts one of DOT's own escapes.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            other if other.is_control() => out.push(' '),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests;
