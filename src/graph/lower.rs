//! Recipe → graph: stages, scopes of variables, triggers, and what each instruction does to the image configuration.
//!
//! Takes a recipe, the user's choices and the configurations of base images known so far; gives the graph of what the
//! target needs, or the images still to be looked up. Follows BuildKit's built-in Dockerfile frontend (syntax 1.26) in
//! what it makes of a recipe, down to the texts of the history. Pure, and linear in the size of the recipe but for what
//! the result itself repeats (each `RUN` holds its whole environment).

use std::collections::{BTreeMap, HashSet};

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::graph::instruction::{StageInProgress, is_shown};
use crate::graph::lint::{self, Singles};
use crate::graph::nodes::Nodes;
use crate::graph::scope::Globals;
use crate::graph::stage::{Base, PlannedStage, Reached, Stages, Trigger};
use crate::graph::state::{StageState, settle_platform};
use crate::graph::{ContextName, CopyOp, CopySource, Graph, ImageRequest, NodeId, Op, Origin, Request, epoch, history};
use crate::image::config::{History, ImageConfig};
use crate::recipe::{Instruction, Recipe, Step};

/// What lowering came to.
#[derive(Debug)]
pub enum Lowered {
    /// The whole graph, with warnings. A warning about the command line has an empty span.
    Graph(Box<Graph>, Vec<Diagnostic>),
    /// These images' configurations have to be known first: bases, and images that files are copied from. More may
    /// be asked for once these are known, because a base can bring triggers.
    Needs(Vec<ImageRequest>),
}

/// Lowers what the target needs of a recipe. `bases` holds the configuration of every image known so far.
///
/// # Errors
/// The diagnostics, at least one of them an error.
pub fn lower(
    recipe: &Recipe,
    request: &Request,
    bases: &BTreeMap<ImageRequest, ImageConfig>,
) -> Result<Lowered, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let globals = Globals::new(recipe, request, &mut findings);
    if let Some((value, span)) = globals.epoch_name() {
        findings.push(epoch::meaningless(value, span, recipe));
    }
    let Some(stages) = Stages::resolve(recipe, request, &globals, &mut findings) else { return Err(findings) };
    let target = match stages.target(request.target.as_deref()) {
        Ok(target) => target,
        Err(finding) => {
            findings.push(finding);
            return Err(findings);
        }
    };
    stages.check_sources(&mut findings);
    lint::default_bases(recipe, request, &mut findings);
    let mut findings = without_errors(findings)?;
    let everything = request.every_stage && request.target.as_ref().is_none_or(String::is_empty);
    let wanted = if everything { (0..stages.planned.len()).collect() } else { vec![target] };
    let reached = stages.reach(wanted, bases, &mut findings);
    // What is wrong with the recipe is said before anything is asked of a registry.
    let mut findings = without_errors(findings)?;
    if !reached.needs.is_empty() {
        return Ok(Lowered::Needs(reached.needs.into_iter().collect()));
    }

    globals.warn_of_unused(&declared_arguments(recipe, &reached), &mut findings);
    let mut lowering = Lowering::new(&globals, &stages, request, bases, target, &reached);
    for (number, triggers) in &reached.stages {
        lowering.stage(*number, triggers, &mut findings);
    }
    let findings = without_errors(findings)?;
    Ok(Lowered::Graph(Box::new(lowering.finish(target, everything)), findings))
}

fn without_errors(findings: Vec<Diagnostic>) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
    let fine = findings.iter().all(|finding| finding.severity < Severity::Error);
    if fine { Ok(findings) } else { Err(findings) }
}

/// The names that `ARG`s declare in any stage, needed or not, and in the triggers met.
fn declared_arguments<'a>(recipe: &'a Recipe, reached: &'a Reached) -> HashSet<&'a str> {
    let in_stages = recipe.stages.iter().flat_map(|stage| &stage.steps);
    let in_triggers = reached.stages.values().flatten().map(|trigger| &trigger.step);
    let arguments = |step: &'a Step| match &step.instruction {
        Instruction::Arg(arguments) => arguments.as_slice(),
        _ => &[],
    };
    in_stages.chain(in_triggers).flat_map(arguments).map(|argument| argument.name.value.as_str()).collect()
}

/// The history one stage adds, and what it adds it to.
#[derive(Debug, Default)]
struct StageHistory<'a> {
    below: Option<Below<'a>>,
    entries: Vec<History>,
}

#[derive(Debug)]
enum Below<'a> {
    Stage(usize),
    Image(&'a [History]),
}

/// Every stage on the way to the target.
struct Lowering<'a> {
    globals: &'a Globals,
    stages: &'a Stages<'a>,
    request: &'a Request,
    bases: &'a BTreeMap<ImageRequest, ImageConfig>,
    nodes: Nodes,
    /// How many more stages start from a stage's state; the last one takes it, the others copy it.
    users: Vec<usize>,
    states: Vec<Option<StageState>>,
    results: Vec<Option<NodeId>>,
    histories: Vec<StageHistory<'a>>,
}

impl<'a> Lowering<'a> {
    fn new(
        globals: &'a Globals,
        stages: &'a Stages<'a>,
        request: &'a Request,
        bases: &'a BTreeMap<ImageRequest, ImageConfig>,
        target: usize,
        reached: &Reached,
    ) -> Self {
        let count = stages.planned.len();
        let mut users = vec![0; count];
        // The target's own state is needed at the end.
        users[target] = 1;
        for number in reached.stages.keys() {
            if let Base::Stage(base) = stages.planned[*number].base {
                users[base] += 1;
            }
        }
        Self {
            globals,
            stages,
            request,
            bases,
            nodes: Nodes::default(),
            users,
            states: vec![None; count],
            results: vec![None; count],
            histories: (0..count).map(|_| StageHistory::default()).collect(),
        }
    }

    /// Lowers one stage; everything it needs was lowered before.
    fn stage(&mut self, number: usize, triggers: &[Trigger], findings: &mut Vec<Diagnostic>) {
        let stages = self.stages;
        let planned = &stages.planned[number];
        let shown_steps = triggers.iter().map(|trigger| &trigger.step).chain(planned.steps);
        let shown_total = shown_steps.filter(|step| is_shown(step)).count() + usize::from(shows_base(planned));
        let Some((state, below, history)) = self.start(planned, shown_total, findings) else { return };
        let mut progress = StageInProgress {
            globals: self.globals,
            stages,
            results: &self.results,
            nodes: &mut self.nodes,
            findings,
            state,
            history,
            label: &planned.label,
            shown: usize::from(shows_base(planned)),
            shown_total,
            command_set: false,
            singles: Singles::default(),
        };
        for trigger in triggers {
            let before = progress.findings.len();
            let span = if trigger.foreign { Span::default() } else { trigger.step.span };
            let step = Step { span, ..trigger.step.clone() };
            progress.step(&step, true);
            planned.place_findings(trigger, &mut progress.findings[before..]);
        }
        for step in planned.steps {
            progress.step(step, false);
        }
        let StageInProgress { state, history: entries, .. } = progress;
        self.results[number] = Some(state.node);
        self.states[number] = (self.users[number] > 0).then_some(state);
        self.histories[number] = StageHistory { below, entries };
    }

    /// The state a stage starts from, what its history goes on from, and what that history starts with.
    fn start(
        &mut self,
        planned: &PlannedStage<'_>,
        of: usize,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<(StageState, Option<Below<'a>>, Vec<History>)> {
        let origin =
            |text: String| Origin { stage: planned.label.clone(), step: 1, of, text, span: planned.stage.span };
        match &planned.base {
            Base::Scratch => {
                let node = self.nodes.intern(Op::Scratch, || Origin {
                    text: "FROM scratch".to_owned(),
                    span: planned.stage.span,
                    ..Origin::default()
                });
                Some((StageState::from_scratch(node, &self.request.platform), None, Vec::new()))
            }
            Base::Stage(base) => {
                self.users[*base] -= 1;
                let kept = &mut self.states[*base];
                let state = if self.users[*base] == 0 { kept.take() } else { kept.clone() };
                // A state is missing only where its stage was never started, for which there was a reason to report.
                Some((StageState::from_stage(state?), Some(Below::Stage(*base)), Vec::new()))
            }
            Base::Image(image) => {
                let config = self.bases.get(image)?;
                check_platform(planned, image, config, findings);
                let text = format!("FROM {}", image.reference);
                let node = self.nodes.intern(Op::Image(*image.clone()), || origin(text));
                Some((StageState::from_image(node, image, config), Some(Below::Image(&config.history)), Vec::new()))
            }
            Base::Files(name) => {
                let text = format!("FROM {name}");
                let op = self.all_files_of(name);
                let node = self.nodes.intern(op, || origin(text.clone()));
                let history = vec![history::entry(text, true)];
                Some((StageState::from_scratch(node, &self.request.platform), None, history))
            }
        }
    }

    /// Everything in a named context as a layer, which a stage can stand on.
    fn all_files_of(&mut self, name: &str) -> Op {
        let parent = self.nodes.intern(Op::Scratch, || Origin { text: "FROM scratch".to_owned(), ..Origin::default() });
        let context = Op::Context(ContextName::Named(name.to_owned()));
        let from = self.nodes.intern(context, || Origin { text: "build context".to_owned(), ..Origin::default() });
        Op::Copy(CopyOp {
            parent,
            from,
            sources: vec![CopySource::Path(".".to_owned())],
            destination: "/".to_owned(),
            chown: None,
            chmod: None,
            link: false,
            parents: false,
            exclude: Vec::new(),
            unpack: false,
            epoch: self.globals.epoch,
        })
    }

    fn finish(mut self, target: usize, everything: bool) -> Graph {
        let state = self.states[target].take().expect("the target was lowered and its state was kept");
        let mut config = state.config;
        let platform = settle_platform(&mut config, &self.request.platform, self.request.platform_given);
        let (history, base_history) = self.whole_history(target);
        config.history = history;
        let (nodes, target) = if everything { (self.nodes.all(), state.node) } else { self.nodes.finish(state.node) };
        Graph { nodes, target, config, base: state.base, base_history, platform, epoch: self.globals.epoch }
    }

    /// The target's history from the bottom up, and how much of it is the base image's.
    fn whole_history(&mut self, target: usize) -> (Vec<History>, usize) {
        let mut stages = vec![];
        let mut next = Some(target);
        let mut base: &[History] = &[];
        while let Some(number) = next {
            stages.push(number);
            next = match &self.histories[number].below {
                Some(Below::Stage(below)) => Some(*below),
                Some(Below::Image(history)) => {
                    base = *history;
                    None
                }
                None => None,
            };
        }
        let mut history = base.to_vec();
        for number in stages.into_iter().rev() {
            history.append(&mut self.histories[number].entries);
        }
        (history, base.len())
    }
}

/// Whether a stage's `FROM` shows progress: only an image or the files of a context have to be looked at.
fn shows_base(planned: &PlannedStage<'_>) -> bool {
    matches!(planned.base, Base::Image(_) | Base::Files(_))
}

fn check_platform(
    planned: &PlannedStage<'_>,
    image: &ImageRequest,
    config: &ImageConfig,
    findings: &mut Vec<Diagnostic>,
) {
    let wanted = &image.platform;
    let unknown = config.os.is_empty() || config.architecture.is_empty();
    if unknown || (config.os == wanted.os && config.architecture == wanted.architecture) {
        return;
    }
    findings.push(Diagnostic::warning(
        "InvalidBaseImagePlatform",
        planned.stage.base.span,
        format!(
            "`{}` is for {}/{}, but {wanted} was asked for",
            planned.stage.base.value, config.os, config.architecture
        ),
    ));
}

#[cfg(test)]
mod tests;
