//! What the cache knows of a whole graph, without making or fetching anything.

use crate::cache::{self, key};
use crate::graph::explain::Status;
use crate::graph::{CopyOp, Node, NodeId, Op, RunMount, RunOp};
use crate::progress::Explanation;
use crate::schedule::explain::Step;
use crate::schedule::solve::{Look, Made, Solved, Solver};

/// What is known of one node.
#[derive(Debug)]
pub struct Known {
    /// Whether its result is known.
    pub status: Status,
    /// Why, for steps, where that is wanted.
    pub explanation: Option<Explanation>,
}

impl Known {
    fn of(status: Status) -> Self {
        Self { status, explanation: None }
    }
}

impl Solver<'_> {
    /// What the cache knows of each node.
    pub fn status(&self) -> Vec<Known> {
        let mut solved: Vec<Option<Solved>> = Vec::with_capacity(self.graph.nodes.len());
        let mut all: Vec<Known> = Vec::with_capacity(self.graph.nodes.len());
        for node in &self.graph.nodes {
            let inputs = node.op.inputs();
            let missing = inputs.iter().copied().find(|input| solved[input.0].is_none());
            let (known, result) = match (&node.op, missing) {
                (_, Some(missing)) => {
                    let would_run = all[missing.0].status == Status::Miss;
                    // Only the parent is missing: what else counts is known.
                    let is_parent = node.op.parent() == Some(missing)
                        && inputs[1..].iter().all(|input| *input != missing && solved[input.0].is_some());
                    let known = match is_parent {
                        true => {
                            let beside: Vec<Solved> =
                                inputs.iter().map(|input| solved[input.0].clone().unwrap_or_default()).collect();
                            self.orphan_status(node, &beside, missing, would_run)
                        }
                        false => Known {
                            explanation: self.explain_unknown(node, missing, would_run),
                            ..Known::of(Status::Unknown)
                        },
                    };
                    (known, None)
                }
                (Op::Scratch, _) => (Known::of(Status::Cached), Some(Solved::default())),
                (Op::Context(name), _) => (Known::of(Status::Cached), Some(self.context(name))),
                (Op::Image(request), _) => {
                    let chain = self.executor.bases.chain(request);
                    (Known::of(Status::Cached), Some(Solved { chain, ..Solved::default() }))
                }
                // Only the host knows whether it has changed, and nobody is asked here.
                (Op::Http(_) | Op::Git(_), _) => (Known::of(Status::Unknown), None),
                _ => {
                    let inputs: Vec<Solved> = inputs.iter().filter_map(|input| solved[input.0].clone()).collect();
                    self.step_status(node, &inputs)
                }
            };
            all.push(known);
            solved.push(result);
        }
        all
    }

    fn step_status(&self, node: &Node, inputs: &[Solved]) -> (Known, Option<Solved>) {
        if let Some(unread) = self.needs_layers(node, inputs) {
            let explanation = self.explain_unknown(node, unread, false);
            return (Known { explanation, ..Known::of(Status::Unknown) }, None);
        }
        // A source that is missing is the build's to report: here it only means that the step would run.
        let (fields, files) = match self.fields(node, inputs) {
            Ok(found) => found,
            Err(error) => {
                return (Known { explanation: self.explain_failure(&error), ..Known::of(Status::Miss) }, None);
            }
        };
        let key = fields.key();
        match self.look(node, &key) {
            Look::Hit(record) => {
                let explanation = self.explain_hit(&record);
                let made = Made::of(&record);
                let chain = inputs[0].chain.with(made.layer);
                (
                    Known { explanation, ..Known::of(Status::Cached) },
                    Some(Solved { chain, made: Some(made), fetched: None }),
                )
            }
            Look::Miss(why) => {
                let step = Step { node, fields: &fields, key, files: &files, inputs };
                (Known { explanation: self.explain_miss(step, &why), ..Known::of(Status::Miss) }, None)
            }
        }
    }

    /// What is known of a step without its parent, which is empty in `inputs`.
    fn orphan_status(&self, node: &Node, inputs: &[Solved], parent: NodeId, would_run: bool) -> Known {
        // A linked copy is made without a look at its parent.
        if node.op.copy().is_some_and(|copy| copy.link) {
            return self.step_status(node, inputs).0;
        }
        let unread = self.explain.is_none() || self.needs_layers(node, inputs).is_some();
        let explanation = match (!unread).then(|| self.fields(node, inputs)) {
            Some(Ok((fields, files))) => {
                let step = Step { node, fields: &fields, key: fields.key(), files: &files, inputs };
                self.explain_orphan(step, parent, would_run)
            }
            _ => self.explain_unknown(node, parent, would_run),
        };
        Known { explanation, ..Known::of(Status::Unknown) }
    }

    /// The input whose layers would have to be read to know what a step selects of them.
    fn needs_layers(&self, node: &Node, inputs: &[Solved]) -> Option<NodeId> {
        let of_copy = |op: &CopyOp| {
            let unread = self.may_change(op.from).is_none()
                && cache::recall_selection(self.store, &key::selection(op, &inputs[1].chain, &[])).is_none();
            unread.then_some(op.from)
        };
        let of_run = |op: &RunOp| {
            let mounts = op.mounts.iter().filter(|mount| mount.from().is_some()).zip(&inputs[1..]);
            mounts.into_iter().find_map(|(mount, input)| match mount {
                RunMount::Bind { from, source, .. } if source != "." => {
                    let unread = self.may_change(*from).is_none()
                        && cache::recall_selection(self.store, &key::shown(source, &input.chain)).is_none();
                    unread.then_some(*from)
                }
                _ => None,
            })
        };
        match &node.op {
            Op::Copy(op) => of_copy(op),
            Op::Run(op) => of_run(op),
            _ => None,
        }
    }
}
