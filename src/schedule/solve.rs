//! How one node is solved: known already, known by the time its lock is ours, or made now.
//!
//! A hit needs no layer on disk but its own, and what was there when it was asked for may be found damaged, or gone, when
//! a later step or an output needs it. That is no failure: everything the step needs is solved once more ([`Solver::again`]),
//! where a record whose layer is gone is a miss like any other, and then the step itself.
//!
//! A layer whose files were found changed had them for nobody knows how long. So what was made on top of it is not trusted
//! either: every step of this build that has it among its inputs is made again.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::base;
use crate::cache::history::{Notes, Place, Run};
use crate::cache::key::Fields;
use crate::cache::record::{MadeBy, Record};
use crate::cache::{self, key};
use crate::digest::{ContentId, DiffId, Key};
use crate::execute::mount::Shown;
use crate::execute::shell::Sandbox;
use crate::execute::{self, Executor, Files, Selected};
use crate::fetch::Fetched;
use crate::graph::{ContextName, CopyOp, Graph, Node, NodeId, Op, RunMount, RunOp};
use crate::image::chain::Chain;
use crate::progress::{Earlier, Reporter, Task};
use crate::schedule::explain::{self, Explainer, Step};
use crate::schedule::{Solve, listing};
use crate::store::{self, BuildId, LayerState, Store};

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
    fn is_loss(&self) -> bool {
        matches!(self, Self::Execute(error) if error.is_loss())
    }
}

/// How often a build makes again what was found damaged before it gives up: each time something new was found.
pub const MENDS: usize = 5;

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
enum Round {
    First,
    /// What this build made counts, and hits have been told of.
    Again,
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
    fn solved_again(&self, id: NodeId) -> Result<Vec<Option<Solved>>, Failed> {
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

    fn inputs(&self, id: NodeId, solved: &[Option<Solved>]) -> Vec<Solved> {
        self.graph[id].op.inputs().into_iter().map(|input| solved[input.0].clone().unwrap_or_default()).collect()
    }

    /// Whether a failure comes from something that was in the store and is not there any more.
    fn can_mend(&self, failed: &Failed, inputs: &[Solved]) -> bool {
        if matches!(failed.error, Error::Cancelled) || self.executor.cancel.is_cancelled() {
            return false;
        }
        // A process that failed had all its layers when it began.
        let is_gone = |layer: &DiffId| matches!(self.store.look_at_layer(layer), Ok(LayerState::Missing));
        let ran = matches!(self.graph[failed.node].op, Op::Run(_));
        failed.error.is_loss() || ran && inputs.first().is_some_and(|parent| parent.chain.layers().iter().any(is_gone))
    }

    fn attempt(&self, id: NodeId, inputs: &[Solved], round: Round) -> Result<Solved, Failed> {
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

    /// Whether the input of a node is a context that may change, so that its files are looked at in every build.
    pub(super) fn may_change(&self, input: NodeId) -> Option<&ContextName> {
        let Op::Context(name) = &self.graph[input].op else { return None };
        self.executor.layer_of_context(name).is_none().then_some(name)
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

    /// What this build knows of a step that is solved again, unless it was made on top of what was found damaged since.
    fn made_here(&self, key: &Key, inputs: &[Solved], round: Round) -> Option<Made> {
        let Memorized { made, damaged } = self.memory.recall(key).filter(|_| round == Round::Again)?;
        let since = self.store.damaged_layers().split_off(damaged);
        let is_there = matches!(self.store.layer(&made.layer), Ok(Some(_)));
        (is_there && !is_above(inputs, &since)).then_some(made)
    }

    /// As [`Solver::look`], but nothing counts that was made on top of what was found damaged.
    fn look_and_trust(&self, node: &Node, key: &Key, inputs: &[Solved]) -> Look {
        match self.look(node, key) {
            Look::Hit(_) if is_above(inputs, &self.store.damaged_layers()) => Look::Miss(Why::LayerGone),
            look => look,
        }
    }

    fn remember(&self, key: Key, made: Made) {
        let damaged = self.store.damaged_layers().len();
        self.memory.remember(key, Memorized { made, damaged });
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

    /// Keeps what files a step read. Without it, a later explanation cannot name those that changed; nothing else is lost.
    fn keep_listing(&self, digest: &ContentId, listing: &[u8]) {
        let _ = cache::remember_listing(self.store, digest, listing);
    }

    /// The files of a copy whose digest was remembered, which they must still have.
    fn selected(&self, op: &CopyOp, digest: ContentId, inputs: &[Solved]) -> Result<Files, Error> {
        let (from, fetched) = (&inputs[1].chain, fetched(inputs));
        let selected = self.executor.select_from_layers(op, from, &fetched);
        let is_right = selected.as_ref().is_ok_and(|files| files.digest() == digest);
        let Some(top) = from.layers().last().filter(|_| !is_right) else { return Ok(selected?) };
        // The layers are not what they were, or the memory is wrong: neither is used any more.
        let identities: Vec<String> = fetched.iter().map(Fetched::identity).collect();
        cache::forget_selection(self.store, &key::selection(op, from, &identities))?;
        let damaged = self.executor.layers.discard_damaged(from)?;
        let lost = base::layers::Error::Lost { layer: *damaged.first().unwrap_or(top) };
        Err(execute::Error::from(lost).into())
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

    /// The fields of a node's key, and the selected files where they had to be listed to know.
    pub(super) fn fields(&self, node: &Node, inputs: &[Solved]) -> Result<(Fields, Selected), Error> {
        let parent = &inputs[0].chain;
        Ok(match &node.op {
            Op::Run(op) => {
                let (digests, shown) = self.shown(op, &inputs[1..])?;
                (key::run(op, parent, &self.graph.platform, &digests), Selected::Shown(shown))
            }
            Op::Mkdir(op) => (key::mkdir(op, parent), Selected::Nothing),
            Op::Copy(op) => {
                let (digest, files) = self.files(op, &inputs[1].chain, &fetched(inputs))?;
                (key::copy(op, parent, &digest), files.map_or(Selected::Remembered(digest), Selected::Files))
            }
            Op::Scratch | Op::Image(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => {
                unreachable!("only nodes that make a layer have a key")
            }
        })
    }

    /// The digest of what each bind mount of a step shows, and what each mount with files shows. Of a whole stage or
    /// image its chain says that, of a part of one the answer is remembered, and a context's files are looked at.
    fn shown(&self, op: &RunOp, inputs: &[Solved]) -> Result<(Vec<ContentId>, Vec<Shown>), Error> {
        let (mut digests, mut all) = (Vec::new(), Vec::new());
        let mut inputs = inputs.iter();
        for mount in &op.mounts {
            let (from, source) = match mount {
                RunMount::Bind { from, source, .. } => (*from, source),
                RunMount::Cache(cache) => match &cache.from {
                    Some((from, source)) => (*from, source),
                    None => continue,
                },
                RunMount::Tmpfs { .. } | RunMount::Secret { .. } | RunMount::Ssh { .. } => continue,
            };
            let chain = inputs.next().map(|input| input.chain.clone()).unwrap_or_default();
            let counts = matches!(mount, RunMount::Bind { .. });
            if let Some(name) = self.may_change(from) {
                let files = self.executor.show_context(source, name)?;
                if counts {
                    digests.push(files.digest());
                }
                all.push(Shown::Files(files));
                continue;
            }
            if counts {
                digests.push(self.shown_of_layers(source, &chain, from)?);
            }
            all.push(Shown::Layers { chain, source: source.clone() });
        }
        Ok((digests, all))
    }

    fn shown_of_layers(&self, source: &str, chain: &Chain, from: NodeId) -> Result<ContentId, Error> {
        let question = key::shown(source, chain);
        if source == "." {
            return Ok(ContentId::from_bytes(*question.as_bytes()));
        }
        if let Some(digest) = cache::recall_selection(self.store, &question) {
            return Ok(digest);
        }
        let shown = self.executor.shown_of_layers(source, chain);
        let (digest, files) = shown.map_err(|error| self.in_context(from, error))?;
        self.keep_listing(&digest, &listing::of(&files, None).encode());
        if let Err(error) = cache::remember_selection(self.store, &question, &digest) {
            self.reporter.warning(format!("a selection of files is not remembered: {error}"));
        }
        Ok(digest)
    }

    /// The digest of the files a copy selects. Of a chain of layers it is remembered, because layers never change; of a
    /// context the files are looked at, and what was found is handed on.
    fn files(&self, op: &CopyOp, from: &Chain, fetched: &[Fetched]) -> Result<(ContentId, Option<Files>), Error> {
        if let Some(name) = self.may_change(op.from) {
            let files = self.executor.select_from_context(op, name, fetched)?;
            return Ok((files.digest(), Some(files)));
        }
        let identities: Vec<String> = fetched.iter().map(Fetched::identity).collect();
        let question = key::selection(op, from, &identities);
        if let Some(digest) = cache::recall_selection(self.store, &question) {
            return Ok((digest, None));
        }
        let files = self.executor.select_from_layers(op, from, fetched);
        let files = files.map_err(|error| self.in_context(op.from, error))?;
        if let Err(error) = cache::remember_selection(self.store, &question, &files.digest()) {
            self.reporter.warning(format!("a selection of files is not remembered: {error}"));
        }
        Ok((files.digest(), Some(files)))
    }

    /// A missing file of a context that is read as layers is missing in the context.
    fn in_context(&self, from: NodeId, error: execute::Error) -> execute::Error {
        match (error, &self.graph[from].op) {
            (execute::Error::NotFound { source_path, hidden, nearest, .. }, Op::Context(name)) => {
                execute::Error::NotFound { source_path, place: execute::place_of(name), hidden, nearest }
            }
            (error, _) => error,
        }
    }
}

/// The listings of the files that a step was seen to read.
fn listings(node: &Node, files: &Selected) -> Vec<(ContentId, Vec<u8>)> {
    let one = |files: &Files| (files.digest(), listing::of(files, node.op.copy()).encode());
    match files {
        Selected::Nothing | Selected::Remembered(_) => Vec::new(),
        Selected::Files(files) => vec![one(files)],
        Selected::Shown(shown) => shown
            .iter()
            .filter_map(|shown| match shown {
                Shown::Files(files) => Some(one(files)),
                Shown::Layers { .. } => None,
            })
            .collect(),
    }
}

/// The step of an earlier build that made a result.
fn earlier(record: &Record) -> Option<Earlier> {
    let MadeBy { build, step } = record.made_by.as_ref()?;
    Some(Earlier { build: build.as_str().into(), step: *step })
}

/// Whether any of these layers is among a step's inputs.
fn is_above(inputs: &[Solved], layers: &[DiffId]) -> bool {
    layers.iter().any(|layer| inputs.iter().any(|input| input.chain.layers().contains(layer)))
}

/// What was fetched among a node's inputs, in order.
fn fetched(inputs: &[Solved]) -> Vec<Fetched> {
    inputs.iter().filter_map(|input| input.fetched.clone()).collect()
}

/// Milliseconds since 1970.
pub(super) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
