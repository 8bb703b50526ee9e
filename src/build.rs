//! The main path: a request in, events on the way, an image out.
//!
//! Read this first. Each line of [`build`] is a call into one part, in the order data flows: recipe, context, base
//! images, graph, schedule, image, export. [`plan`] is the same up to the graph and only asks what is known.

mod advice;
pub mod contexts;
mod error;
mod finish;
mod prepare;
mod record;
mod shell;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

pub use self::error::{Error, Findings, sentence};
pub use self::prepare::{Checked, Plan, check, outline, targets};
pub use self::record::StepLog;
pub use self::shell::shell;
pub use crate::schedule::status::Known;

use self::contexts::{ContextSource, RecipeSource};
use self::error::{ended, step_failed};
use self::finish::Finish;
use self::prepare::prepare;
use self::record::Record;
use crate::base::completion::Completions;
use crate::base::layers::Layers;
use crate::cache::history::Notes;
use crate::check;
use crate::digest::Digest;
use crate::execute::Executor;
use crate::execute::agent::Agents;
use crate::execute::mask::Mask;
use crate::execute::mount::Staged;
use crate::execute::network::Networks;
use crate::execute::shell::Sandbox;
use crate::export::spec::{Destination, Output};
use crate::fetch::Fetcher;
use crate::graph;
use crate::image::manifest::Descriptor;
use crate::journal::Outcome;
use crate::layer::OverlayXattr;
use crate::layer::unpack::Owners;
use crate::layer::view::Tops;
use crate::limits::Limits;
use crate::progress::Reporter;
use crate::recipe::Network;
use crate::recipe::reference::Reference;
use crate::registry::Client;
use crate::runtime::network::Program;
use crate::runtime::{self, Cancel};
use crate::schedule::explain::Explainer;
use crate::schedule::{self, mend, solve};
use crate::secret::Secrets;
use crate::store::{self, BuildId, Kept, Store};

/// What to build.
#[derive(Debug, Clone)]
pub struct Request {
    /// Where the files that `COPY` and `ADD` read come from.
    pub context: ContextSource,
    /// Where the files of named contexts come from, by the names that [`graph::Request::contexts`] knows.
    pub contexts: BTreeMap<String, ContextSource>,
    /// Where the recipe comes from.
    pub recipe: RecipeSource,
    /// Target, arguments and platforms.
    pub graph: graph::Request,
    /// Names the image gets in the local store.
    pub names: Vec<Reference>,
    /// Where else it goes.
    pub outputs: Vec<Output>,
    /// Whether results of earlier builds count.
    pub use_cache: bool,
    /// Whether names of base images are looked up anew.
    pub pull: bool,
    /// Stages, by name in any case or by number, for which results of earlier builds do not count.
    pub fresh_stages: Vec<String>,
    /// Whether it is told of each step why it is made or not.
    pub explain: bool,
    /// The network of steps that do not ask for one.
    pub network: Network,
    /// Names that steps can resolve besides those the machine knows; never part of a key.
    pub hosts: Vec<(String, IpAddr)>,
    /// Labels of the image, over those of the recipe.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the image's manifest, over our own.
    pub annotations: BTreeMap<String, String>,
    /// Secrets that steps may mount, and that authenticate what is fetched.
    pub secrets: Secrets,
    /// SSH agents that steps may use.
    pub agents: Agents,
    /// What each step may use at most; never part of a key.
    pub limits: Limits,
    /// What is done in the place of a `RUN` that failed, before it is cleared away.
    pub on_failure: Option<OnFailure>,
}

/// Takes a build's error, and the place of the step that failed.
type Act = dyn Fn(&Error, &Sandbox) + Send + Sync;

/// What is done in the place of a failed step.
#[derive(Clone)]
pub struct OnFailure(pub Arc<Act>);

impl std::fmt::Debug for OnFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("OnFailure(..)")
    }
}

/// What a build works with.
#[derive(Debug)]
pub struct Workplace {
    /// Where everything is kept.
    pub store: Store,
    /// Who talks to registries.
    pub client: Arc<Client>,
    /// Where progress is told.
    pub reporter: Reporter,
    /// Ends the build.
    pub cancel: Cancel,
    /// How overlays keep their records here.
    pub xattr: OverlayXattr,
    /// Whose files a layer's files become.
    pub owners: Owners,
    /// How many steps may run at once.
    pub slots: usize,
    /// How much of past builds is kept.
    pub kept: Kept,
    /// What steps reach the network through.
    pub pasta: Program,
    /// What each step may use at most where a request says nothing.
    pub limits: Limits,
}

impl Workplace {
    /// What fetches contexts and recipes.
    fn fetcher<'a>(&'a self, secrets: &'a Secrets) -> Fetcher<'a> {
        Fetcher { store: &self.store, client: &self.client, cancel: &self.cancel, xattr: self.xattr, secrets }
    }
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The build's id in the store, which has its logs; none where they could not be kept.
    pub build: Option<BuildId>,
    /// The digest of the image's configuration.
    pub image_id: Digest,
    /// The manifest in the local store.
    pub descriptor: Descriptor,
    /// The names the image got.
    pub names: Vec<Reference>,
    /// Where else it went, with the manifest there.
    pub exported: Vec<(Destination, Descriptor)>,
}

/// Builds an image.
///
/// # Errors
/// See [`Error`]. After any of them no output was written, no name was moved, nothing of the build still runs.
pub fn build(request: &Request, place: &Workplace) -> Result<Built, Error> {
    let sweep = place.store.sweep()?;
    // Control groups that killed builds left: nothing depends on them, so nothing waits for this, or fails without it.
    let _ = std::thread::Builder::new().name("strata-groups".to_owned()).spawn(runtime::sweep);
    let _shared = share(place)?;
    request.limits.clone().over(&place.limits).check()?;
    let record = Record::begin(request, place);
    let mut left = None;
    let outcome = recorded(request, place, &record, &mut left).map_err(|error| ended(error, &place.cancel));
    for damage in place.store.take_damage() {
        place.reporter.warning(damage.to_string());
    }
    record.end(match &outcome {
        Ok(built) => Outcome::Done { image: Some(built.image_id.to_string()) },
        Err(error) => record::failure(error),
    });
    // What dead processes left is removed in the background: the next build goes on where this one stops.
    drop(sweep);
    if let (Err(error), Some(sandbox), Some(OnFailure(act))) = (&outcome, &left, &request.on_failure) {
        act(error, sandbox);
    }
    outcome
}

/// A build, between the beginning and the end of its record. `left` gets the place of a step that failed.
fn recorded(
    request: &Request,
    place: &Workplace,
    record: &Record<'_>,
    left: &mut Option<Sandbox>,
) -> Result<Built, Error> {
    let plan = prepare(request, place)?;
    for warning in plan.warnings.iter().take(crate::diagnostic::SHOWN) {
        place.reporter.warning(crate::diagnostic::render(std::slice::from_ref(warning), &plan.recipe.source, false));
    }
    if let Some(more @ 1..) = plan.warnings.len().checked_sub(crate::diagnostic::SHOWN) {
        place.reporter.warning(format!("the recipe has {more} more warnings"));
    }
    let rules = check::violations(&plan.recipe.checks, &plan.warnings);
    if !rules.is_empty() {
        return Err(Error::Violations { rules });
    }
    let (executor, memory) = (executor(&plan, request, place), mend::Memory::default());
    let notes = record::notes(request);
    let explainer = explainer(&plan, request);
    let asked = solver(&plan, &executor, request, place, (&memory, &notes));
    let solver = solve::Solver { build: record.id(), explain: explainer.as_ref(), ..asked };
    let solved = match schedule::run(&plan.graph, &solver, place.slots) {
        Ok(_) if solver.has_mended() => solver.again(),
        outcome => outcome,
    };
    record::keep_notes(&notes, place);
    *left = executor.failed.lock().unwrap_or_else(PoisonError::into_inner).take();
    if left.is_none() {
        executor.networks.end();
    }
    for context in plan.contexts.values() {
        if let Some(path) = context.damaged_index() {
            place.store.note_damage(store::Damage::Context { path: path.to_owned() });
        }
        let put = |path: &Path, bytes: &[u8]| place.store.replace(path, bytes).map_err(io::Error::other);
        if let Err(error) = context.save(&put) {
            place.reporter.warning(format!("the context's index is not remembered: {error}"));
        }
    }
    let failed = |failed| step_failed(&plan, failed, record, place.store.root());
    let mut solved = solved.map_err(failed)?;
    let finish = |solved: &[_]| Finish { request, place, plan: &plan, executor: &executor, solved }.outputs();
    let mut finished = finish(&solved);
    for _ in 0..mend::MENDS {
        if !finished.as_ref().is_err_and(Error::is_loss) {
            break;
        }
        // What the outputs found damaged or gone is made again, and all that depends on it. The steps' network has ended.
        let executor = self::executor(&plan, request, place);
        let solver =
            solve::Solver { build: record.id(), ..self::solver(&plan, &executor, request, place, (&memory, &notes)) };
        solved = solver.again().map_err(failed)?;
        finished = finish(&solved);
    }
    let (image, exported) = finished?;
    Ok(Built {
        build: record.id().cloned(),
        image_id: image.config.descriptor.digest,
        descriptor: image.manifest.descriptor,
        names: request.names.clone(),
        exported,
    })
}

/// Makes the graph of a build and tells, node by node, what the cache knows; and why, if the request asks for that. Runs
/// nothing.
///
/// # Errors
/// See [`Error`].
pub fn plan(request: &Request, place: &Workplace) -> Result<(Plan, Vec<Known>), Error> {
    drop(place.store.sweep()?.wait());
    let _shared = share(place)?;
    let plan = prepare(request, place)?;
    let executor = executor(&plan, request, place);
    let memory = mend::Memory::default();
    let notes = record::notes(request);
    let explainer = explainer(&plan, request);
    let solver = solver(&plan, &executor, request, place, (&memory, &notes));
    let known = solve::Solver { explain: explainer.as_ref(), ..solver }.status();
    Ok((plan, known))
}

/// What answers are explained with, if the request asks for that.
fn explainer<'a>(plan: &'a Plan, request: &Request) -> Option<Explainer<'a>> {
    request.explain.then(|| Explainer::new(&plan.recipe, Mask::of(&request.secrets)))
}

/// Keeps collections away from what a build finds and makes.
fn share(place: &Workplace) -> Result<store::Share, Error> {
    let waiting = &mut |_: &store::LockOwner| match place.cancel.is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    place.store.share(waiting).map_err(|error| ended(error.into(), &place.cancel))
}

fn executor<'a>(plan: &'a Plan, request: &'a Request, place: &'a Workplace) -> Executor<'a> {
    let Workplace { store, client, reporter, cancel, xattr, owners, .. } = place;
    let (bases, completions) = (&plan.bases, Arc::new(Completions::default()));
    let layers = Layers { store, bases, client, reporter, cancel, xattr: *xattr, owners: *owners, completions };
    Executor {
        store,
        layers,
        bases: &plan.bases,
        contexts: &plan.contexts,
        tops: Tops::default(),
        cancel,
        epoch: plan.graph.epoch,
        platform: &plan.graph.platform,
        secrets: &request.secrets,
        agents: &request.agents,
        networks: Arc::new(Networks::new(place.pasta.clone())),
        staged: Staged::default(),
        keeps_failed: request.on_failure.is_some(),
        failed: Mutex::default(),
        hosts: &request.hosts,
        limits: request.limits.clone().over(&place.limits),
    }
}

fn solver<'a>(
    plan: &'a Plan,
    executor: &'a Executor<'a>,
    request: &'a Request,
    place: &'a Workplace,
    (memory, notes): (&'a mend::Memory, &'a Notes),
) -> solve::Solver<'a> {
    let Workplace { store, reporter, .. } = place;
    solve::Solver {
        graph: &plan.graph,
        executor,
        store,
        reporter,
        use_cache: request.use_cache,
        build: None,
        fresh: &plan.fresh,
        memory,
        notes,
        explain: None,
    }
}
