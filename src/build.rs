//! The main path: a request in, events on the way, an image out.
//!
//! Read this first. Each line of [`build`] is a call into one part, in the order data flows: recipe, context, base
//! images, graph, schedule, image, export. [`plan`] is the same up to the graph and only asks what is known.

pub mod contexts;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use self::contexts::{Arrivals, ContextSource, RecipeSource};
use crate::base::{self, BaseImage, Bases, layers::Layers};
use crate::check;
use crate::context;
use crate::context::opened::Opened;
use crate::diagnostic::{Diagnostic, Severity, SourceFile, Span, nearest};
use crate::digest::Digest;
use crate::execute::Executor;
use crate::execute::agent::Agents;
use crate::execute::mount::Staged;
use crate::execute::secret::Secrets;
use crate::export::{
    blobs, layout,
    spec::{Destination, Output},
};
use crate::fetch::Fetcher;
use crate::graph::explain::Status;
use crate::graph::lower::{Lowered, lower};
use crate::graph::outline::{self, Outline};
use crate::graph::{self, ContextName, Graph, ImageRequest, NodeId};
use crate::image::assemble::{Base, Built as BuiltLayer, Image, assemble};
use crate::image::manifest::Descriptor;
use crate::layer::OverlayXattr;
use crate::layer::unpack::Owners;
use crate::progress::Reporter;
use crate::recipe::reference::Reference;
use crate::recipe::{Checks, Network, Recipe, dockerfile};
use crate::registry::Client;
use crate::runtime::Cancel;
use crate::schedule::{self, solve};
use crate::store::{self, Store};

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
    /// Stages, by name in any case, for which results of earlier builds do not count.
    pub fresh_stages: Vec<String>,
    /// The network of steps that do not ask for one.
    pub network: Network,
    /// Names that steps can resolve besides those the machine knows; never part of a key.
    pub hosts: Vec<(String, IpAddr)>,
    /// Labels of the image, over those of the recipe.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the image's manifest, over our own.
    pub annotations: BTreeMap<String, String>,
    /// Secrets that steps may mount.
    pub secrets: Secrets,
    /// SSH agents that steps may use.
    pub agents: Agents,
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
}

impl Workplace {
    /// What fetches contexts and recipes.
    fn fetcher(&self) -> Fetcher<'_> {
        Fetcher { store: &self.store, client: &self.client, cancel: &self.cancel }
    }
}

/// A finished build.
#[derive(Debug, Clone)]
pub struct Built {
    /// The digest of the image's configuration.
    pub image_id: Digest,
    /// The manifest in the local store.
    pub descriptor: Descriptor,
    /// The names the image got.
    pub names: Vec<Reference>,
    /// Where else it went, with the manifest there.
    pub exported: Vec<(Destination, Descriptor)>,
}

/// The build argument that stands in for a recipe's `# check=`.
const CHECK_ARGUMENT: &str = "BUILDKIT_DOCKERFILE_CHECK";

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The recipe cannot be read.
    #[error("the recipe {path} cannot be read")]
    ReadRecipe {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The recipe is wrong.
    #[error("{} has errors", .0.source.name)]
    Recipe(Box<Findings>),
    /// The recipe asks that some warnings fail the build, and there are such.
    #[error("the recipe asks with `# check=error=true` that warnings fail the build: {}", .rules.join(", "))]
    Violations {
        /// The rules broken.
        rules: Vec<&'static str>,
    },
    /// `BUILDKIT_DOCKERFILE_CHECK` cannot be read.
    #[error("--build-arg {CHECK_ARGUMENT}={value:?}: {reason}")]
    CheckArgument {
        /// What was given.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The context cannot be used.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// A context or the recipe cannot be had.
    #[error(transparent)]
    Contexts(#[from] contexts::Error),
    /// A base image cannot be used.
    #[error("base image {reference} cannot be used")]
    Base {
        /// The image.
        reference: Box<Reference>,
        /// The recipe, with the place that names the image.
        at: Box<Findings>,
        /// Why.
        source: Box<base::Error>,
    },
    /// A step failed.
    #[error("step {title} failed")]
    Step {
        /// The step as progress shows it.
        title: String,
        /// The recipe, with the place of the step.
        at: Box<Findings>,
        /// Why.
        source: Box<solve::Error>,
    },
    /// The user ended the build.
    #[error("the build was cancelled")]
    Cancelled,
    /// A layer's blob cannot be had.
    #[error(transparent)]
    Blobs(#[from] blobs::Error),
    /// An output cannot be written.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A document of the image could not be written as JSON.
    #[error("the image's documents cannot be written: {0}")]
    Document(#[from] serde_json::Error),
}

impl Error {
    /// Whether this machine, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        let by_part = match self {
            Self::Base { source, .. } => source.is_environment(),
            Self::Step { source, .. } => source.is_environment(),
            Self::Blobs(error) => error.is_environment(),
            Self::Contexts(error) => error.is_environment(),
            Self::Store(_) | Self::Layout(_) => true,
            Self::ReadRecipe { .. }
            | Self::Recipe(_)
            | Self::Violations { .. }
            | Self::CheckArgument { .. }
            | Self::Context(_)
            | Self::Cancelled
            | Self::Document(_) => false,
        };
        by_part || is_full_disk(self)
    }
}

/// Whether a disk without room is anywhere among the causes.
fn is_full_disk(error: &(dyn std::error::Error + 'static)) -> bool {
    let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::ReadOnlyFilesystem];
    std::iter::successors(Some(error), |error| error.source())
        .filter_map(|error| error.downcast_ref::<io::Error>())
        .any(|error| full.contains(&error.kind()))
}

/// A recipe with what was found in it.
#[derive(Debug, Clone)]
pub struct Findings {
    /// The recipe's text.
    pub source: SourceFile,
    /// Findings, in the order of their places.
    pub diagnostics: Vec<Diagnostic>,
}

/// A build up to its graph.
#[derive(Debug)]
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// The graph.
    pub graph: Graph,
    /// Warnings, those that the recipe skips left out.
    pub warnings: Vec<Diagnostic>,
    bases: Bases,
    contexts: BTreeMap<ContextName, Opened>,
    /// Directories that contexts were brought into.
    _arrivals: Arrivals,
}

/// Builds an image.
///
/// # Errors
/// See [`Error`]. After any of them no output was written, no name was moved, nothing of the build still runs.
pub fn build(request: &Request, place: &Workplace) -> Result<Built, Error> {
    let sweep = place.store.sweep()?;
    let _shared = share(place)?;
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
    let executor = executor(&plan, request, place);
    let solver = solver(&plan, &executor, request, place);
    let solved = schedule::run(&plan.graph, &solver, place.slots);
    for context in plan.contexts.values() {
        if let Err(error) = context.save() {
            place.reporter.warning(format!("the context's index is not remembered: {error}"));
        }
    }
    let solved = solved.map_err(|failed| step_failed(&plan, failed))?;
    let finish = Finish { request, place, plan: &plan, executor: &executor, solved: &solved };
    let (image, exported) = finish.outputs()?;
    // What dead processes left is removed in the background: the next build goes on where this one stops.
    drop(sweep);
    for damage in place.store.take_damage() {
        place.reporter.warning(damage.to_string());
    }
    Ok(Built {
        image_id: image.config.descriptor.digest,
        descriptor: image.manifest.descriptor,
        names: request.names.clone(),
        exported,
    })
}

/// Makes the graph of a build and tells, node by node, what the cache knows. Runs nothing.
///
/// # Errors
/// See [`Error`].
pub fn plan(request: &Request, place: &Workplace) -> Result<(Plan, Vec<Status>), Error> {
    let plan = prepare(request, place)?;
    let executor = executor(&plan, request, place);
    let status = solver(&plan, &executor, request, place).status();
    Ok((plan, status))
}

/// What the request's target takes, with the recipe. Looks up nothing.
///
/// # Errors
/// If the recipe cannot be read, or has mistakes.
pub fn outline(request: &Request, place: &Workplace) -> Result<(Recipe, Outline), Error> {
    let source = request.read_recipe(&Arrivals::default().main(request, place)?, place)?;
    let (recipe, _) = parse(&source)?;
    let outline = outline::outline(&recipe, &request.graph)
        .map_err(|diagnostics| Error::Recipe(Box::new(Findings { source, diagnostics })))?;
    Ok((recipe, outline))
}

/// What a check came to.
#[derive(Debug)]
pub struct Checked {
    /// The recipe and every finding, errors included.
    pub findings: Findings,
    /// Why not everything could be checked; errors in the recipe itself are among the findings.
    pub failure: Option<Error>,
}

/// Checks a recipe: all of it, unless the request names a target. Looks up base images, fetches no layer, runs nothing.
///
/// # Errors
/// If there is no recipe to check. What goes wrong later is part of the result.
pub fn check(request: &Request, place: &Workplace) -> Result<Checked, Error> {
    let graph = graph::Request { every_stage: true, ..request.graph.clone() };
    let request = &Request { graph, ..request.clone() };
    let mut arrivals = Arrivals::default();
    let main = arrivals.main(request, place)?;
    let source = request.read_recipe(&main, place)?;
    let (mut recipe, mut reported) = dockerfile::parse(&source);
    override_checks(&mut recipe, request)?;
    let readable = !reported.iter().any(Diagnostic::is_error);
    let made = readable.then(|| {
        let (graph, _, warnings) = resolve(&recipe, request, place)?;
        let contexts = arrivals.open_used(&graph, main, request, place)?;
        Ok((graph, contexts, warnings))
    });
    let (made, failure) = match made {
        None => (None, None),
        Some(Ok((graph, contexts, warnings))) => {
            reported.extend(warnings);
            (Some((graph, contexts)), None)
        }
        Some(Err(Error::Recipe(findings))) => {
            reported.extend(findings.diagnostics);
            (None, None)
        }
        Some(Err(other)) => (None, Some(other)),
    };
    let ignore = made.as_ref().and_then(|(_, contexts)| contexts.get(&ContextName::Main)).and_then(Opened::ignore);
    let subject = check::Subject { recipe: &recipe, graph: made.as_ref().map(|(graph, _)| graph), ignore };
    let diagnostics = check::findings(&subject, reported, check::Purpose::Check);
    Ok(Checked { findings: Findings { source, diagnostics }, failure })
}

/// Keeps collections away while a build reads and writes the store.
fn share(place: &Workplace) -> Result<store::Lock, Error> {
    let waiting = &mut |_: &store::LockOwner| match place.cancel.is_cancelled() {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    };
    Ok(place.store.share(waiting)?)
}

fn executor<'a>(plan: &'a Plan, request: &'a Request, place: &'a Workplace) -> Executor<'a> {
    let Workplace { store, client, reporter, cancel, xattr, owners, .. } = place;
    let layers = Layers { store, bases: &plan.bases, client, reporter, cancel, xattr: *xattr, owners: *owners };
    Executor {
        store,
        layers,
        bases: &plan.bases,
        contexts: &plan.contexts,
        cancel,
        epoch: plan.graph.epoch,
        platform: &plan.graph.platform,
        secrets: &request.secrets,
        agents: &request.agents,
        staged: Staged::default(),
        hosts: &request.hosts,
    }
}

fn solver<'a>(
    plan: &'a Plan,
    executor: &'a Executor<'a>,
    request: &'a Request,
    place: &'a Workplace,
) -> solve::Solver<'a> {
    let Workplace { store, reporter, .. } = place;
    solve::Solver {
        graph: &plan.graph,
        executor,
        store,
        reporter,
        use_cache: request.use_cache,
        fresh: &request.fresh_stages,
    }
}

/// Recipe and base images → graph and contexts.
fn prepare(request: &Request, place: &Workplace) -> Result<Plan, Error> {
    let mut arrivals = Arrivals::default();
    let main = arrivals.main(request, place)?;
    let source = request.read_recipe(&main, place)?;
    let (mut recipe, mut reported) = parse(&source)?;
    override_checks(&mut recipe, request)?;
    let (mut graph, bases, more) = resolve(&recipe, request, place)?;
    reported.extend(more);
    graph.config.config.labels.extend(request.labels.clone());
    graph.set_network(request.network);
    warn_of_unknown_stages(&recipe, request, place);
    let contexts = arrivals.open_used(&graph, main, request, place)?;
    let ignore = contexts.get(&ContextName::Main).and_then(Opened::ignore);
    let subject = check::Subject { recipe: &recipe, graph: Some(&graph), ignore };
    let warnings = check::findings(&subject, reported, check::Purpose::Build);
    Ok(Plan { recipe, graph, warnings, bases, contexts, _arrivals: arrivals })
}

/// Says of every name in `--no-cache-filter` that no stage has it; Docker ignores such names.
fn warn_of_unknown_stages(recipe: &Recipe, request: &Request, place: &Workplace) {
    let names = || recipe.stages.iter().filter_map(|stage| Some(stage.name.as_ref()?.value.as_str()));
    for wanted in &request.fresh_stages {
        if !names().any(|name| name.eq_ignore_ascii_case(wanted)) {
            let nearest = nearest(wanted, names()).map(|name| format!("; did you mean {name}?")).unwrap_or_default();
            place.reporter.warning(format!("--no-cache-filter {wanted} names no stage of the recipe{nearest}"));
        }
    }
}

/// Lets the build argument say what the recipe's `# check=` would; comments above single instructions stay.
fn override_checks(recipe: &mut Recipe, request: &Request) -> Result<(), Error> {
    let Some(value) = request.graph.build_args.get(CHECK_ARGUMENT) else { return Ok(()) };
    let checks = dockerfile::read_checks(value)
        .map_err(|reason| Error::CheckArgument { value: value.clone(), reason: reason.message })?;
    recipe.checks = Checks { local: std::mem::take(&mut recipe.checks.local), ..checks };
    Ok(())
}

fn parse(source: &SourceFile) -> Result<(Recipe, Vec<Diagnostic>), Error> {
    let (recipe, diagnostics) = dockerfile::parse(source);
    if diagnostics.iter().any(|finding| finding.severity == Severity::Error) {
        return Err(Error::Recipe(Box::new(Findings { source: source.clone(), diagnostics })));
    }
    Ok((recipe, diagnostics))
}

/// Lowers the recipe, resolving the base images it turns out to need, until the graph is whole.
fn resolve(recipe: &Recipe, request: &Request, place: &Workplace) -> Result<(Graph, Bases, Vec<Diagnostic>), Error> {
    let mut bases = Bases::default();
    loop {
        let lowered = lower(recipe, &request.graph, &bases.configs())
            .map_err(|diagnostics| Error::Recipe(Box::new(Findings { source: recipe.source.clone(), diagnostics })))?;
        let needed = match lowered {
            Lowered::Graph(graph, warnings) => return Ok((*graph, bases, warnings)),
            Lowered::Needs(needed) => needed,
        };
        let resolved: Vec<Result<BaseImage, base::Error>> = std::thread::scope(|scope| {
            let look_up = |request_: &ImageRequest| Bases::resolve(&place.store, &place.client, request_, request.pull);
            match needed.as_slice() {
                [one] => vec![look_up(one)],
                many => {
                    let threads: Vec<_> = many.iter().map(|one| scope.spawn(move || look_up(one))).collect();
                    threads
                        .into_iter()
                        .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                        .collect()
                }
            }
        });
        for (image, resolved) in needed.into_iter().zip(resolved) {
            let resolved = resolved.map_err(|source| base_failed(recipe, &image.reference, source))?;
            bases.insert(image, resolved);
        }
    }
}

fn base_failed(recipe: &Recipe, reference: &Reference, source: base::Error) -> Error {
    let (span, help) = recipe.place_of_image(reference);
    let mut finding = Diagnostic::error(span, sentence(&source));
    finding.help = help;
    let at = Box::new(Findings { source: recipe.source.clone(), diagnostics: vec![finding] });
    Error::Base { reference: Box::new(reference.clone()), at, source: Box::new(source) }
}

fn step_failed(plan: &Plan, failed: solve::Failed) -> Error {
    let solve::Failed { node, error } = failed;
    if matches!(error, solve::Error::Cancelled | solve::Error::Execute(crate::execute::Error::Cancelled)) {
        return Error::Cancelled;
    }
    let origin = &plan.graph[node].origin;
    if let solve::Error::Execute(crate::execute::Error::Base(cause)) = &error
        && let Some(reference) = cause.reference()
    {
        // A step is only the first to want the layer: what is wrong is the image.
        let (span, _) = plan.recipe.place_of_image(reference);
        return Error::Step {
            title: origin.title(),
            at: finding(&plan.recipe.source, span, sentence(&error)),
            source: Box::new(error),
        };
    }
    Error::Step {
        title: origin.title(),
        at: finding(&plan.recipe.source, origin.span, sentence(&error)),
        source: Box::new(error),
    }
}

fn finding(source: &SourceFile, span: Span, message: String) -> Box<Findings> {
    Box::new(Findings { source: source.clone(), diagnostics: vec![Diagnostic::error(span, message)] })
}

/// The last part of a build: from layers to images under their names.
struct Finish<'a> {
    request: &'a Request,
    place: &'a Workplace,
    plan: &'a Plan,
    executor: &'a Executor<'a>,
    solved: &'a [solve::Solved],
}

impl Finish<'_> {
    /// Writes every output, then the names in the local store, which make the image visible, last.
    fn outputs(&self) -> Result<(Image, Vec<(Destination, Descriptor)>), Error> {
        let store = &self.place.store;
        let mut exported = Vec::new();
        for output in &self.request.outputs {
            exported.push((output.destination.clone(), self.export(output)?));
        }
        let image = self.assemble(|layer| blobs::plain(store, layer))?;
        self.put_documents(&image)?;
        for name in &self.request.names {
            let platform = Some(self.plan.graph.platform.clone());
            store.tag(name, &Descriptor { platform, ..image.manifest.descriptor.clone() })?;
        }
        Ok((image, exported))
    }

    fn export(&self, output: &Output) -> Result<Descriptor, Error> {
        let (layers, reporter) = (&self.executor.layers, &self.place.reporter);
        let image = self.assemble(|layer| blobs::compressed(layers, reporter, layer, output.compression))?;
        self.put_documents(&image)?;
        if let Some(base) = self.base() {
            for layer in &base.config.rootfs.diff_ids {
                layers.blob(layer).map_err(blobs::Error::from)?;
            }
        }
        let platform = &self.plan.graph.platform;
        let content = layout::Content { store: &self.place.store, image: &image, platform, names: &self.request.names };
        match &output.destination {
            Destination::Archive(path) => layout::archive(&content, path)?,
            Destination::Directory(path) => layout::directory(&content, path)?,
            Destination::Stdout => layout::stream(&content, io::stdout().lock())?,
        }
        Ok(image.manifest.descriptor)
    }

    fn base(&self) -> Option<&BaseImage> {
        self.plan.graph.base.as_ref().and_then(|request| self.plan.bases.get(request))
    }

    /// The nodes that made the image's own layers, lowest first.
    fn made(&self) -> Vec<solve::Made> {
        let mut made = Vec::new();
        let mut next = Some(self.plan.graph.target);
        while let Some(NodeId(node)) = next {
            made.extend(self.solved[node].made);
            next = self.plan.graph.nodes[node].op.parent();
        }
        made.reverse();
        made
    }

    fn assemble(
        &self,
        mut blob: impl FnMut(crate::digest::DiffId) -> Result<Descriptor, blobs::Error>,
    ) -> Result<Image, Error> {
        let graph = &self.plan.graph;
        let mut built = Vec::new();
        for solve::Made { layer, created } in self.made() {
            built.push(BuiltLayer { diff_id: layer, blob: blob(layer)?, created: rfc3339(created) });
        }
        let base = self.base();
        let named = graph.base.as_ref().zip(base).map(|(request, image)| Base {
            name: request.layout.is_none().then_some(&request.reference),
            digest: image.digest,
            layers: &image.manifest.layers,
        });
        let diff_ids = base.map_or(&[][..], |image| &image.config.rootfs.diff_ids);
        let scratch_time = rfc3339(self.executor.epoch.unwrap_or(0));
        let annotations = &self.request.annotations;
        Ok(assemble(&graph.config, graph.base_history, named.as_ref(), diff_ids, &built, annotations, &scratch_time)?)
    }

    fn put_documents(&self, image: &Image) -> Result<(), Error> {
        self.place.store.put_blob(&image.config.bytes)?;
        self.place.store.put_blob(&image.manifest.bytes)?;
        Ok(())
    }
}

/// An error with all its causes, in one line.
pub fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
