//! From a request to a [`Plan`]: recipe, base images, graph and contexts. Takes a request and the workplace; fetches
//! documents and what contexts need, never a layer, and runs nothing.

use std::collections::BTreeMap;

use super::contexts::{Arrivals, Located};
use super::error::{CHECK_ARGUMENT, FRONTEND_ARGUMENT, base_failed};
use super::{Error, Findings, Request, Workplace, share};
use crate::base::{self, BaseImage, Bases};
use crate::check;
use crate::context::opened::Opened;
use crate::diagnostic::{Diagnostic, Severity, SourceFile, nearest};
use crate::graph::lower::{Lowered, lower};
use crate::graph::outline::{self, Outline};
use crate::graph::{self, ContextName, Graph, ImageRequest, SOURCE_DATE_EPOCH, epoch};
use crate::recipe::{Checks, Recipe, Stage, dockerfile};

/// A build up to its graph.
#[derive(Debug)]
pub struct Plan {
    /// The recipe.
    pub recipe: Recipe,
    /// The graph.
    pub graph: Graph,
    /// Warnings, those that the recipe skips left out.
    pub warnings: Vec<Diagnostic>,
    /// The stages, as progress names them, for which results of earlier builds do not count.
    pub(super) fresh: Vec<String>,
    pub(super) bases: Bases,
    pub(super) contexts: BTreeMap<ContextName, Opened>,
    /// Directories that contexts were brought into.
    pub(super) _arrivals: Arrivals,
}

/// What the request's target takes, with the recipe. Looks up nothing.
///
/// # Errors
/// If the recipe cannot be read, or has mistakes.
pub fn outline(request: &Request, place: &Workplace) -> Result<(Recipe, Outline), Error> {
    let _shared = share(place)?;
    let source = request.read_recipe(&Arrivals::default().main(request, place)?, place)?;
    let (recipe, _) = parse(&source, request)?;
    let outline = outline::outline(&recipe, &request.graph)
        .map_err(|diagnostics| Error::Recipe(Box::new(Findings { source, diagnostics })))?;
    Ok((recipe, outline))
}

/// The recipe alone, whose stages can be built. Looks up nothing, and expands no variable.
///
/// # Errors
/// If the recipe cannot be read.
pub fn targets(request: &Request, place: &Workplace) -> Result<Recipe, Error> {
    let _shared = share(place)?;
    let source = request.read_recipe(&Arrivals::default().main(request, place)?, place)?;
    Ok(parse(&source, request)?.0)
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
    // What a step may have is between the user and a build.
    let allow = graph::Allowed { network_host: true, security_insecure: true };
    let graph = graph::Request { every_stage: true, allow, ..request.graph.clone() };
    let request = &Request { graph, ..request.clone() };
    let _shared = share(place)?;
    let mut arrivals = Arrivals::default();
    let main = arrivals.main(request, place)?;
    let source = request.read_recipe(&main, place)?;
    let (mut recipe, mut reported) = dockerfile::parse_with(&source, frontend(request));
    override_checks(&mut recipe, request)?;
    let readable = !reported.iter().any(Diagnostic::is_error);
    let made = readable.then(|| {
        let request = &settle_epoch(&recipe, request, &mut arrivals, &main, place)?;
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
    let rules = check::violations(&recipe.checks, &diagnostics);
    let failure = failure.or_else(|| (!rules.is_empty()).then_some(Error::Violations { rules }));
    Ok(Checked { findings: Findings { source, diagnostics }, failure })
}

/// Recipe and base images → graph and contexts.
pub(super) fn prepare(request: &Request, place: &Workplace) -> Result<Plan, Error> {
    prepare_with(request, place, &|_| Ok(()))
}

/// The same with a change to the recipe.
pub(super) fn prepare_with(
    request: &Request,
    place: &Workplace,
    change: &dyn Fn(&mut Recipe) -> Result<(), Vec<Diagnostic>>,
) -> Result<Plan, Error> {
    let mut arrivals = Arrivals::default();
    let main = arrivals.main(request, place)?;
    let source = request.read_recipe(&main, place)?;
    let (mut recipe, mut reported) = parse(&source, request)?;
    override_checks(&mut recipe, request)?;
    change(&mut recipe)
        .map_err(|diagnostics| Error::Recipe(Box::new(Findings { source: source.clone(), diagnostics })))?;
    let request = &settle_epoch(&recipe, request, &mut arrivals, &main, place)?;
    let (mut graph, bases, more) = resolve(&recipe, request, place)?;
    reported.extend(more);
    graph.config.config.labels.extend(request.labels.clone());
    graph.set_network(request.network);
    let fresh = fresh_stages(&recipe, request, place);
    let contexts = arrivals.open_used(&graph, main, request, place)?;
    let ignore = contexts.get(&ContextName::Main).and_then(Opened::ignore);
    let subject = check::Subject { recipe: &recipe, graph: Some(&graph), ignore };
    let warnings = check::findings(&subject, reported, check::Purpose::Build);
    Ok(Plan { recipe, graph, warnings, fresh, bases, contexts, _arrivals: arrivals })
}

/// Puts the time in the place of what `SOURCE_DATE_EPOCH` names. What has no time of its own bounds nothing, as in BuildKit.
fn settle_epoch(
    recipe: &Recipe,
    request: &Request,
    arrivals: &mut Arrivals,
    main: &Located,
    place: &Workplace,
) -> Result<Request, Error> {
    let mut request = request.clone();
    let source = epoch::time_source(recipe, &request.graph)
        .map_err(|diagnostics| Error::Recipe(Box::new(Findings { source: recipe.source.clone(), diagnostics })))?;
    if let Some(source) = source {
        request.graph.source_date_epoch = arrivals.time_of(&source, main, &request, place)?;
        if request.graph.source_date_epoch.is_none() {
            request.graph.build_args.insert(SOURCE_DATE_EPOCH.to_owned(), String::new());
        }
    }
    Ok(request)
}

/// The stages that `--no-cache-filter` means, by name in any case or by number. Says of every other word in it that it means
/// none; Docker ignores such words.
fn fresh_stages(recipe: &Recipe, request: &Request, place: &Workplace) -> Vec<String> {
    let label = |number: usize, stage: &Stage| match &stage.name {
        Some(name) => name.value.clone(),
        None => format!("stage-{number}"),
    };
    let labels: Vec<String> = recipe.stages.iter().enumerate().map(|(number, stage)| label(number, stage)).collect();
    let mut fresh = Vec::new();
    for wanted in request.fresh_stages.iter().map(|wanted| wanted.trim()).filter(|wanted| !wanted.is_empty()) {
        let by_name = labels.iter().find(|label| label.eq_ignore_ascii_case(wanted));
        let by_number = || wanted.parse::<usize>().ok().and_then(|number| labels.get(number));
        if let Some(label) = by_name.or_else(by_number) {
            fresh.push(label.clone());
            continue;
        }
        let nearest = nearest(wanted, labels.iter().map(String::as_str));
        let nearest = nearest.map(|name| format!("; did you mean {name}?")).unwrap_or_default();
        place.reporter.warning(format!("--no-cache-filter {wanted} names no stage of the recipe{nearest}"));
    }
    fresh
}

/// Lets the build argument say what the recipe's `# check=` would; comments above single instructions stay.
fn override_checks(recipe: &mut Recipe, request: &Request) -> Result<(), Error> {
    let Some(value) = request.graph.build_args.get(CHECK_ARGUMENT) else { return Ok(()) };
    let checks = dockerfile::read_checks(value)
        .map_err(|reason| Error::CheckArgument { value: value.clone(), reason: reason.message })?;
    recipe.checks = Checks { local: std::mem::take(&mut recipe.checks.local), ..checks };
    Ok(())
}

/// The frontend that the user names in place of the recipe's.
fn frontend(request: &Request) -> Option<&str> {
    request.graph.build_args.get(FRONTEND_ARGUMENT).map(String::as_str).filter(|name| !name.is_empty())
}

fn parse(source: &SourceFile, request: &Request) -> Result<(Recipe, Vec<Diagnostic>), Error> {
    let (recipe, diagnostics) = dockerfile::parse_with(source, frontend(request));
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
