//! Graph + a way to solve one node → every node solved, in parallel.
//!
//! The only place that decides *when* something happens. A node starts as soon as all its inputs are solved; the first
//! failure starts nothing new, cancels what runs and is the result. Knows nothing of layers, caches or processes.

pub mod explain;
mod inputs;
mod listing;
pub mod mend;
pub mod solve;
pub mod status;

use std::any::Any;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::Scope;

use crate::graph::{Graph, NodeId};

/// Solves single nodes.
pub trait Solve: Sync {
    /// What a solved node gives to those that need it.
    type Output: Clone + Send;
    /// Why a node could not be solved.
    type Error: Send;

    /// Solves a node; `inputs` are the results of [`crate::graph::Op::inputs`], in that order.
    ///
    /// # Errors
    /// Whatever keeps the node from being solved; the build ends.
    fn solve(&self, node: NodeId, inputs: Vec<Self::Output>) -> Result<Self::Output, Self::Error>;

    /// Ends every `solve` under way soon. Called once, after the first failure.
    fn cancel(&self);
}

/// Solves every node of a graph, at most `slots` at a time, and gives the results in the order of the nodes.
///
/// A chain of nodes that are solved at once is walked on the caller's own thread; threads are added only while more
/// nodes are ready than threads wait. They are plain threads and no pool, because a node may block for minutes.
///
/// # Errors
/// The first failure of any node.
///
/// # Panics
/// If a node's `solve` panics: the panic goes on here, after the other nodes were cancelled.
pub fn run<S: Solve>(graph: &Graph, solver: &S, slots: usize) -> Result<Vec<S::Output>, S::Error> {
    let queue = Queue::new(graph, solver, slots.max(1));
    std::thread::scope(|scope| queue.work(scope));
    let state = queue.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    match state.failure {
        Some(Failure::Error(error)) => Err(error),
        Some(Failure::Panic(panic)) => resume_unwind(panic),
        None => Ok(state.results.into_iter().flatten().collect()),
    }
}

enum Failure<E> {
    Error(E),
    Panic(Box<dyn Any + Send>),
}

struct State<S: Solve> {
    ready: VecDeque<NodeId>,
    results: Vec<Option<S::Output>>,
    /// Unsolved inputs of each node.
    missing: Vec<usize>,
    solved: usize,
    threads: usize,
    idle: usize,
    failure: Option<Failure<S::Error>>,
}

struct Queue<'a, S: Solve> {
    solver: &'a S,
    slots: usize,
    inputs: Vec<Vec<NodeId>>,
    /// The nodes that need a node, once for each time they name it.
    dependents: Vec<Vec<NodeId>>,
    state: Mutex<State<S>>,
    changed: Condvar,
}

impl<'a, S: Solve> Queue<'a, S> {
    fn new(graph: &Graph, solver: &'a S, slots: usize) -> Self {
        let inputs: Vec<Vec<NodeId>> = graph.nodes.iter().map(|node| node.op.inputs()).collect();
        let mut dependents = vec![Vec::new(); inputs.len()];
        for (node, inputs) in inputs.iter().enumerate() {
            for input in inputs {
                dependents[input.0].push(NodeId(node));
            }
        }
        let missing: Vec<usize> = inputs.iter().map(Vec::len).collect();
        let ready = (0..inputs.len()).filter(|&node| missing[node] == 0).map(NodeId).collect();
        let results = inputs.iter().map(|_| None).collect();
        let state = State { ready, results, missing, solved: 0, threads: 1, idle: 0, failure: None };
        Self { solver, slots, inputs, dependents, state: Mutex::new(state), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State<S>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) {
        while let Some((node, inputs)) = self.next(scope) {
            let outcome = catch_unwind(AssertUnwindSafe(|| self.solver.solve(node, inputs)));
            self.done(node, outcome);
        }
    }

    /// Waits for a node that can be solved, and sees to it that others that can be solved find a thread.
    fn next<'scope>(&'scope self, scope: &'scope Scope<'scope, '_>) -> Option<(NodeId, Vec<S::Output>)> {
        let mut state = self.lock();
        loop {
            if state.failure.is_some() || state.solved == state.results.len() {
                return None;
            }
            if let Some(node) = state.ready.pop_front() {
                if state.ready.len() > state.idle && state.threads < self.slots {
                    state.threads += 1;
                    scope.spawn(|| self.work(scope));
                }
                let inputs = self.inputs[node.0].iter().filter_map(|input| state.results[input.0].clone()).collect();
                return Some((node, inputs));
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }

    fn done(&self, node: NodeId, outcome: std::thread::Result<Result<S::Output, S::Error>>) {
        let mut state = self.lock();
        let failure = match outcome {
            Ok(Ok(output)) => {
                state.results[node.0] = Some(output);
                state.solved += 1;
                for dependent in &self.dependents[node.0] {
                    state.missing[dependent.0] -= 1;
                    if state.missing[dependent.0] == 0 {
                        state.ready.push_back(*dependent);
                    }
                }
                None
            }
            Ok(Err(error)) => Some(Failure::Error(error)),
            Err(panic) => Some(Failure::Panic(panic)),
        };
        if state.failure.is_none() && failure.is_some() {
            state.failure = failure;
            self.solver.cancel();
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
