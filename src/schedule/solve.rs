//! How one node is solved: known already, known by the time its lock is ours, or made now.
//!
//! A hit needs no layer on disk but its own; `mend` says what happens where more is needed and not there. `inputs` says what a
//! step's key is made of.

use std::ops::ControlFlow;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::cache;
use crate::cache::history::{Notes, Place, Run};
use crate::cache::key::Fields;
use crate::cache::record::{MadeBy, Record};
use crate::digest::{DiffId, Key};
use crate::execute::shell::Sandbox;
use crate::execute::{self, Executor, Selected};
use crate::fetch::Fetched;
use crate::graph::{ContextName, Graph, Node, NodeId, Op};
use crate::image::chain::Chain;
use crate::progress::{Earlier, Reporter, Task};
use crate::schedule::Solve;
use crate::schedule::explain::{self, Explainer, Step};
use crate::schedule::inputs::{fetched, listings};
use crate::schedule::mend::{MENDS, Memory};
use crate::store::{self, BuildId, Store};

/// Why a node could not be solved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The step itself failed.
    #[error(transparent)]
    Execute(#[from] execute::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Another failure, or the user, ended the build.
    #[error("the build was cancelled")]
    Cancelled,
}

impl Error {
    /// Whether this machine, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Execute(error) => error.is_environment(),
            Self::Store(_) => true,
            Self::Cancelled => false,
        }
    }

    /// Whether something that an earlier step or a fetch gave was needed and is not in the store.
    pub(super) fn is_loss(&self) -> bool {
        matches!(self, Self::Execute(error) if error.is_loss())
    }
}

/// A node's failure, with the node.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct Failed {
    /// Which node.
    pub node: NodeId,
    /// Why.
    #[source]
    pub error: Error,
}

/// A layer a step made, now or earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Made {
    /// The layer.
    pub layer: DiffId,
    /// When it was made: seconds since 1970.
    pub created: i64,
}

impl Made {
    pub(super) fn of(record: &Record) -> Self {
        Self { layer: record.layer, created: record.created }
    }
}

/// What the cache says of a step.
#[derive(Debug)]
pub(super) enum Look {
    /// Its result is known and counts.
    Hit(Box<Record>),
    /// It has to be made.
    Miss(Why),
}

/// Why no earlier result counts.
#[derive(Debug)]
pub(super) enum Why {
    /// Nobody wants any (`--no-cache`).
    NoCache,
    /// Nobody wants any of this stage (`--no-cache-filter`).
    Filter {
        /// The stage's name.
        stage: String,
    },
    /// The recipe wants none (`# strata: no-cache`).
    Comment,
    /// It is older than the recipe wants (`# strata: ttl=…`).
    Expired {
        /// What is remembered.
        record: Box<Record>,
        /// How old it may be.
        ttl: Duration,
    },
    /// The store does not have the layer any more.
    LayerGone,
    /// Nothing is known.
    Nothing,
}

/// What a solved node gives.
#[derive(Debug, Clone, Default)]
pub struct Solved {
    /// The layers, from the base up. Those of a context hold its files; a directory of this machine has none.
    pub chain: Chain,
    /// The layer the node itself added.
    pub made: Option<Made>,
    /// What the node fetched.
    pub fetched: Option<Fetched>,
}

/// Solves the nodes of one graph with the cache and the executor.
#[derive(Debug)]
pub struct Solver<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// What makes layers.
    pub executor: &'a Executor<'a>,
    /// Where results are remembered.
    pub store: &'a Store,
    /// Where progress is told.
    pub reporter: &'a Reporter,
    /// Whether results of earlier builds count (`--no-cache`: they do not).
    pub use_cache: bool,
    /// The build, where it is kept: whoever finds a step in the cache later is told where its log is.
    pub build: Option<&'a BuildId>,
    /// Stages for which they do not count (`--no-cache-filter`), in any case.
    pub fresh: &'a [String],
    /// What this build has come to know.
    pub memory: &'a Memory,
    /// What was made, for those who want to know later why it was made again.
    pub notes: &'a Notes,
    /// What answers of the cache are explained with, where that is wanted.
    pub explain: Option<&'a Explainer<'a>>,
}

impl Solve for Solver<'_> {
    type Output = Solved;
    type Error = Failed;

    fn solve(&self, id: NodeId, inputs: Vec<Solved>) -> Result<Solved, Failed> {
        let mut solved = self.attempt(id, &inputs, Round::First);
        for _ in 0..MENDS {
            match &solved {
                Err(failed) if self.can_mend(failed, &inputs) => {}
                _ => break,
            }
            let inputs = self.solved_again(id)?;
            let inputs: Vec<Solved> = self.inputs(id, &inputs);
            solved = self.attempt(id, &inputs, Round::Again);
        }
        solved
    }

    fn cancel(&self) {
        self.executor.cancel.cancel();
        self.executor.layers.client.cancel();
    }
}

/// When a step was asked for, and in which round.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    round: Round,
}

/// Whether a node is solved for the first time in this build.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Round {
    First,
    /// What this build made counts, and hits have been told of.
    Again,
}

impl Solver<'_> {
    pub(super) fn attempt(&self, id: NodeId, inputs: &[Solved], round: Round) -> Result<Solved, Failed> {
        let node = &self.graph[id];
        let solved = match &node.op {
            Op::Scratch => Ok(Solved::default()),
            Op::Context(name) => Ok(self.context(name)),
            Op::Image(request) => Ok(Solved { chain: self.executor.bases.chain(request), ..Solved::default() }),
            Op::Http(_) | Op::Git(_) => self.fetch(node),
            Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => self.layer(node, inputs, round),
        };
        solved.map_err(|error| {
            // Whatever goes wrong once the build is being ended is a consequence of that.
            let error = if self.executor.cancel.is_cancelled() { Error::Cancelled } else { error };
            Failed { node: id, error }
        })
    }

    /// Makes the place of a `RUN` ready instead of running it. `solved` are the results of all nodes before it.
    ///
    /// # Errors
    /// Whatever keeps the node from being run; another kind of node has no place.
    pub fn enter(&self, id: NodeId, solved: &[Solved]) -> Result<Sandbox, Failed> {
        let node = &self.graph[id];
        let inputs: Vec<Solved> = node.op.inputs().into_iter().map(|input| solved[input.0].clone()).collect();
        let task = self.reporter.start(&node.origin.title());
        let entered = match (&node.op, self.fields(node, &inputs)) {
            (Op::Run(op), Ok((_, Selected::Shown(shown)))) => {
                self.executor.enter(op, &inputs[0].chain, shown, &task).map_err(Error::from)
            }
            (_, Err(error)) => Err(error),
            _ => unreachable!("a shell is opened in the place of a RUN"),
        };
        task.finish(entered.as_ref().err().map(ToString::to_string));
        entered.map_err(|error| Failed { node: id, error })
    }

    pub(super) fn context(&self, name: &ContextName) -> Solved {
        let chain = self.executor.layer_of_context(name).into_iter().collect();
        Solved { chain, ..Solved::default() }
    }

    /// What the address of a source stands for now.
    fn fetch(&self, node: &Node) -> Result<Solved, Error> {
        let fetcher = self.executor.fetcher();
        let task = self.reporter.start(&node.origin.text);
        let fetched = match &node.op {
            Op::Http(source) => fetcher.http(&source.address, source.checksum.as_ref(), &task).map(Fetched::File),
            Op::Git(address) => fetcher.commit(address).map(Fetched::Commit),
            _ => unreachable!("only sources are fetched"),
        };
        task.finish(fetched.as_ref().err().map(ToString::to_string));
        let fetched = fetched.map_err(execute::Error::from)?;
        Ok(Solved { fetched: Some(fetched), ..Solved::default() })
    }

    fn layer(&self, node: &Node, inputs: &[Solved], round: Round) -> Result<Solved, Error> {
        let title = node.origin.title();
        let parent = &inputs[0].chain;
        let asked = Asked { at: Instant::now(), round };
        let (fields, files) = self.fields(node, inputs).inspect_err(|error| {
            self.reporter.start(&title).finish(Some(error.to_string()));
        })?;
        let key = fields.key();
        let solved = |made: Made| Solved { chain: parent.with(made.layer), made: Some(made), fetched: None };
        if let Some(made) = self.made_here(&key, inputs, round) {
            return Ok(solved(made));
        }
        let why = match self.look_and_trust(node, &key, inputs) {
            Look::Hit(record) => {
                if round == Round::First {
                    self.reporter.cached(&title, earlier(&record), self.explain_hit(&record));
                }
                self.remember(key, Made::of(&record));
                return Ok(solved(Made::of(&record)));
            }
            Look::Miss(why) => why,
        };
        let task = self.reporter.start(&title);
        let step = Step { node, fields: &fields, key, files: &files, inputs };
        if let Some(explanation) = self.explain_miss(step, &why) {
            task.explained(explanation);
        }
        let made = self.make(node, &fields, files, inputs, &task, asked);
        if let Ok(made) = made {
            self.remember(key, made);
        }
        task.finish(made.as_ref().err().map(ToString::to_string));
        made.map(solved)
    }

    /// What the cache has under a step's key, and whether that counts.
    pub(super) fn look(&self, node: &Node, key: &Key) -> Look {
        if !self.use_cache {
            return Look::Miss(Why::NoCache);
        }
        if node.caching.no_cache {
            return Look::Miss(Why::Comment);
        }
        let mut stages = node.also.iter().chain([&node.origin.stage]);
        if let Some(stage) = stages.find(|stage| self.fresh.iter().any(|fresh| fresh.eq_ignore_ascii_case(stage))) {
            return Look::Miss(Why::Filter { stage: stage.clone() });
        }
        let record = match cache::lookup(self.store, key) {
            cache::Found::Layer(record) => record,
            cache::Found::Gone(_) => return Look::Miss(Why::LayerGone),
            cache::Found::Nothing => return Look::Miss(Why::Nothing),
        };
        match node.caching.ttl {
            Some(ttl) if explain::age(record.made, now()) > ttl => Look::Miss(Why::Expired { record, ttl }),
            _ => Look::Hit(record),
        }
    }

    /// Makes the layer, unless another thread or process made it while this one waited for the step's lock.
    fn make(
        &self,
        node: &Node,
        fields: &Fields,
        files: Selected,
        inputs: &[Solved],
        task: &Task<'_>,
        asked: Asked,
    ) -> Result<Made, Error> {
        let key = fields.key();
        let _lock = self.lock(&key.hex(), &node.origin.text, task)?;
        if let Some(made) = self.made_here(&key, inputs, asked.round) {
            return Ok(made);
        }
        if let Look::Hit(record) = self.look_and_trust(node, &key, inputs) {
            if let Some(Earlier { build, step }) = earlier(&record) {
                task.waiting(format!("made by build {build}, step {step}"));
            }
            return Ok(Made::of(&record));
        }
        let files = match (files, &node.op) {
            (Selected::Remembered(digest), Op::Copy(op)) => Selected::Files(self.selected(op, digest, inputs)?),
            (files, _) => files,
        };
        let chains: Vec<Chain> = inputs.iter().map(|input| input.chain.clone()).collect();
        let listings = listings(node, &files);
        let layer = self.executor.execute(&node.op, &key, &chains, &fetched(inputs), files, task)?;
        let made = now();
        let record = Record {
            fields: fields.clone(),
            layer,
            created: self.executor.epoch.unwrap_or(made / 1000),
            made,
            elapsed_ms: u64::try_from(asked.at.elapsed().as_millis()).unwrap_or(u64::MAX),
            step: node.origin.text.clone(),
            below: self.below(node, inputs),
            made_by: self.build.map(|build| MadeBy { build: build.to_string(), step: task.number() }),
        };
        if let Err(error) = cache::remember(self.store, &key, &record) {
            self.reporter.warning(format!("the result of {:?} is not remembered: {error}", node.origin.text));
        }
        listings.iter().for_each(|(digest, listing)| self.keep_listing(digest, listing));
        self.note(self.place(node, fields), fields, key);
        Ok(Made::of(&record))
    }

    /// Notes that a step was made.
    fn note(&self, place: Place, fields: &Fields, key: Key) {
        let selections = fields.selections();
        if selections.is_empty() {
            self.notes.add(Run { place, key, listing: None });
        }
        selections.into_iter().for_each(|one| self.notes.add(Run { place, key, listing: Some(one) }));
    }

    fn lock(&self, key: &str, purpose: &str, task: &Task<'_>) -> Result<store::Lock, Error> {
        let mut told = false;
        let waiting = &mut |owner: &store::LockOwner| {
            if !std::mem::replace(&mut told, true) {
                task.waiting(owner.as_reason());
            }
            if self.executor.cancel.is_cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        };
        Ok(self.store.lock(&format!("step-{key}"), purpose, waiting)?)
    }
}

/// The step of an earlier build that made a result.
fn earlier(record: &Record) -> Option<Earlier> {
    let MadeBy { build, step } = record.made_by.as_ref()?;
    Some(Earlier { build: build.as_str().into(), step: *step })
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
