//! Solving again: what was in the store when it was asked for, and is damaged or gone when a later step or an output needs
//! it, is made again within the same build.
//!
//! That is no failure: everything the step needs is solved once more ([`Solver::again`]), where a record whose layer is gone
//! is a miss like any other, and then the step itself. A layer whose files were found changed had them for nobody knows how
//! long. So what was made on top of it is not trusted either: every step of this build that has it among its inputs is made
//! again.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use crate::digest::{DiffId, Key};
use crate::graph::{Node, NodeId, Op};
use crate::schedule::solve::{Error, Failed, Look, Made, Round, Solved, Solver, Why};
use crate::store::LayerState;

/// How often a build makes again what was found damaged before it gives up: each time something new was found.
pub const MENDS: usize = 5;

/// What a build knows of its own steps.
#[derive(Debug, Default)]
pub struct Memory {
    made: Mutex<HashMap<Key, Memorized>>,
    mended: AtomicBool,
}

/// What a step made.
#[derive(Debug, Clone, Copy)]
struct Memorized {
    made: Made,
    /// How many layers were known to be damaged then: it was not made on top of these.
    damaged: usize,
}

impl Memory {
    fn remember(&self, key: Key, made: Memorized) {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).insert(key, made);
    }

    fn recall(&self, key: &Key) -> Option<Memorized> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).get(key).copied()
    }
}

impl Solver<'_> {
    /// Solves the whole graph once more, one node after another: what is known is taken as it is, and what is gone from the
    /// store is made again. With nothing gone this costs a look at each step's record.
    ///
    /// # Errors
    /// The first failure of any node.
    pub fn again(&self) -> Result<Vec<Solved>, Failed> {
        let all = self.solved_again(NodeId(self.graph.nodes.len()))?;
        Ok(all.into_iter().map(Option::unwrap_or_default).collect())
    }

    /// Whether any node was solved again, so that what [`super::run`] gave may be out of date.
    pub fn has_mended(&self) -> bool {
        self.memory.mended.load(Ordering::Relaxed)
    }

    /// Solves once more what a node needs; a node beyond the last needs everything.
    pub(super) fn solved_again(&self, id: NodeId) -> Result<Vec<Option<Solved>>, Failed> {
        self.memory.mended.store(true, Ordering::Relaxed);
        self.executor.tops.forget();
        self.store.look_again();
        let count = self.graph.nodes.len();
        let mut needed = vec![id.0 == count; count];
        // Inputs stand before the nodes that need them.
        for node in (0..count).rev() {
            if node == id.0 || needed[node] {
                self.graph.nodes[node].op.inputs().into_iter().for_each(|input| needed[input.0] = true);
            }
        }
        let mut solved: Vec<Option<Solved>> = vec![None; count];
        for node in (0..count).filter(|node| needed[*node]) {
            let inputs = self.inputs(NodeId(node), &solved);
            solved[node] = Some(self.attempt(NodeId(node), &inputs, Round::Again)?);
        }
        Ok(solved)
    }

    pub(super) fn inputs(&self, id: NodeId, solved: &[Option<Solved>]) -> Vec<Solved> {
        self.graph[id].op.inputs().into_iter().map(|input| solved[input.0].clone().unwrap_or_default()).collect()
    }

    /// Whether a failure comes from something that was in the store and is not there any more.
    pub(super) fn can_mend(&self, failed: &Failed, inputs: &[Solved]) -> bool {
        if matches!(failed.error, Error::Cancelled) || self.executor.cancel.is_cancelled() {
            return false;
        }
        // A process that failed had all its layers when it began.
        let is_gone = |layer: &DiffId| matches!(self.store.look_at_layer(layer), Ok(LayerState::Missing));
        let ran = matches!(self.graph[failed.node].op, Op::Run(_));
        failed.error.is_loss() || ran && inputs.first().is_some_and(|parent| parent.chain.layers().iter().any(is_gone))
    }

    /// What this build knows of a step that is solved again, unless it was made on top of what was found damaged since.
    pub(super) fn made_here(&self, key: &Key, inputs: &[Solved], round: Round) -> Option<Made> {
        let Memorized { made, damaged } = self.memory.recall(key).filter(|_| round == Round::Again)?;
        let since = self.store.damaged_layers().split_off(damaged);
        let is_there = matches!(self.store.layer(&made.layer), Ok(Some(_)));
        (is_there && !is_above(inputs, &since)).then_some(made)
    }

    /// As [`Solver::look`], but nothing counts that was made on top of what was found damaged.
    pub(super) fn look_and_trust(&self, node: &Node, key: &Key, inputs: &[Solved]) -> Look {
        match self.look(node, key) {
            Look::Hit(_) if is_above(inputs, &self.store.damaged_layers()) => Look::Miss(Why::LayerGone),
            look => look,
        }
    }

    pub(super) fn remember(&self, key: Key, made: Made) {
        let damaged = self.store.damaged_layers().len();
        self.memory.remember(key, Memorized { made, damaged });
    }
}

/// Whether any of these layers is among a step's inputs.
fn is_above(inputs: &[Solved], layers: &[DiffId]) -> bool {
    layers.iter().any(|layer| inputs.iter().any(|input| input.chain.layers().contains(layer)))
}
