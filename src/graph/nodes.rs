//! The nodes of a graph while it is being made.
//!
//! Takes operations in the order they are met, gives each an id; equal operations on equal inputs get the same one, so a
//! step that two stages share is one node. At the end the nodes that the target does not need are left out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::graph::{CopySource, Node, NodeId, Op, Origin, RunMount};
use crate::recipe::Caching;

/// Nodes met so far, each after everything it needs.
#[derive(Debug, Default)]
pub(super) struct Nodes {
    nodes: Vec<Node>,
    known: HashMap<Op, NodeId>,
}

impl Nodes {
    /// The node that does this; the origin is that of the first step to ask for it.
    pub(super) fn intern(&mut self, op: Op, origin: impl FnOnce() -> Origin) -> NodeId {
        match self.known.entry(op) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(free) => {
                let id = NodeId(self.nodes.len());
                self.nodes.push(Node::new(free.key().clone(), origin()));
                free.insert(id);
                id
            }
        }
    }

    /// The node of a step of a stage, which says when an earlier result counts: where several steps are one node, the
    /// strictest of them decides.
    pub(super) fn intern_step(
        &mut self,
        op: Op,
        stage: &str,
        caching: Caching,
        origin: impl FnOnce() -> Origin,
    ) -> NodeId {
        let id = self.intern(op, origin);
        let node = &mut self.nodes[id.0];
        node.caching = node.caching.and(caching);
        if node.origin.stage != stage && !node.also.iter().any(|other| other == stage) {
            node.also.push(stage.to_owned());
        }
        id
    }

    /// Every node, needed or not.
    pub(super) fn all(self) -> Vec<Node> {
        self.nodes
    }

    /// What the target needs, renumbered, and the target's new number.
    pub(super) fn finish(self, target: NodeId) -> (Vec<Node>, NodeId) {
        let mut needed = vec![false; self.nodes.len()];
        needed[target.0] = true;
        // Inputs have smaller numbers than what needs them, so one pass from the top reaches everything.
        for place in (0..self.nodes.len()).rev().filter(|place| *place <= target.0) {
            if needed[place] {
                for input in self.nodes[place].op.inputs() {
                    needed[input.0] = true;
                }
            }
        }
        let mut numbers = vec![NodeId(0); self.nodes.len()];
        let mut kept = Vec::new();
        for (place, mut node) in self.nodes.into_iter().enumerate() {
            if needed[place] {
                numbers[place] = NodeId(kept.len());
                renumber(&mut node.op, &numbers);
                kept.push(node);
            }
        }
        (kept, numbers[target.0])
    }
}

fn renumber(op: &mut Op, numbers: &[NodeId]) {
    let moved = |id: &mut NodeId| *id = numbers[id.0];
    match op {
        Op::Scratch | Op::Image(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => {}
        Op::Run(run) => {
            moved(&mut run.parent);
            for mount in &mut run.mounts {
                match mount {
                    RunMount::Bind { from, .. } => moved(from),
                    RunMount::Cache(cache) => {
                        if let Some((from, _)) = &mut cache.from {
                            moved(from);
                        }
                    }
                    RunMount::Tmpfs { .. } | RunMount::Secret { .. } | RunMount::Ssh { .. } => {}
                }
            }
        }
        Op::Copy(copy) => {
            moved(&mut copy.parent);
            moved(&mut copy.from);
            for source in &mut copy.sources {
                if let CopySource::Fetched { from, .. } = source {
                    moved(from);
                }
            }
        }
        Op::Mkdir(mkdir) => moved(&mut mkdir.parent),
    }
}
