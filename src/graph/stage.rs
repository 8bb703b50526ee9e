//! The stages of a recipe: what each stands on, which others it copies from, and which of them a target needs.
//!
//! Takes the recipe and the base configurations known so far; gives the stages to lower, their triggers, and the images
//! still to be looked up. Names are resolved as BuildKit does: `FROM` sees stages above it, `--from` sees all by name or
//! number, and a name that no stage has is an image. Nothing here recurses, so a long recipe needs no deep stack.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::diagnostic::{Diagnostic, Span, Spanned};
use crate::graph::advice::did_you_mean;
use crate::graph::named::{NamedContext, NamedContexts};
use crate::graph::scope::Globals;
use crate::graph::{ImageRequest, Request, lint};
use crate::image::config::ImageConfig;
use crate::recipe::platform::Platform;
use crate::recipe::{Checks, Instruction, MountKind, Recipe, Stage, Step, Word, dockerfile, variable};

/// What a stage stands on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Base {
    /// Nothing.
    Scratch,
    /// The result of an earlier stage.
    Stage(usize),
    /// An image.
    Image(Box<ImageRequest>),
    /// The files of a named context.
    Files(String),
}

/// What `--from` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Source {
    /// The main build context: nothing was named.
    Context,
    /// No files.
    Scratch,
    /// The result of a stage.
    Stage(usize),
    /// An image.
    Image(Box<ImageRequest>),
    /// The files of a named context.
    Files(String),
}

impl From<Base> for Source {
    fn from(base: Base) -> Self {
        match base {
            Base::Scratch => Self::Scratch,
            Base::Stage(number) => Self::Stage(number),
            Base::Image(image) => Self::Image(image),
            Base::Files(name) => Self::Files(name),
        }
    }
}

/// One stage with its names resolved.
#[derive(Debug)]
pub(super) struct PlannedStage<'a> {
    pub(super) stage: &'a Stage,
    /// The stage's name, or `stage-N` for one without.
    pub(super) label: String,
    pub(super) base: Base,
    /// Its steps; none where a named context of the stage's name takes the stage's place.
    pub(super) steps: &'a [Step],
    /// Whether a named context takes the stage's place.
    pub(super) replaced: bool,
}

/// A step that a base has left for the builds on top of it.
#[derive(Debug)]
pub(super) struct Trigger {
    pub(super) step: Step,
    /// Whether it comes from an image, so that its spans mean nothing in this recipe.
    pub(super) foreign: bool,
}

/// The stages a target needs.
#[derive(Debug, Default)]
pub(super) struct Reached {
    /// Their numbers and triggers, in the order of the recipe.
    pub(super) stages: BTreeMap<usize, Vec<Trigger>>,
    /// Images whose configuration is not known yet.
    pub(super) needs: BTreeSet<ImageRequest>,
}

/// Every stage of a recipe.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pub(super) planned: Vec<PlannedStage<'a>>,
    by_name: HashMap<&'a str, usize>,
    platform: &'a Platform,
    contexts: &'a NamedContexts,
    escape: char,
    /// Which warnings the recipe wants to see.
    pub(super) checks: &'a Checks,
}

impl<'a> Stages<'a> {
    /// Resolves what every stage stands on, needed or not; `None` after reporting an error.
    pub(super) fn resolve(
        recipe: &'a Recipe,
        request: &'a Request,
        globals: &Globals,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<Self> {
        let mut stages = Self {
            planned: Vec::with_capacity(recipe.stages.len()),
            by_name: HashMap::new(),
            platform: &request.platform,
            contexts: &request.contexts,
            escape: recipe.escape,
            checks: &recipe.checks,
        };
        let mut complete = true;
        for (number, stage) in recipe.stages.iter().enumerate() {
            let replacement = stage.name.as_ref().and_then(|name| stages.named(&name.value, &request.platform));
            let replaced = replacement.is_some();
            let base = replacement.or_else(|| stages.base(stage, globals, findings));
            complete &= base.is_some();
            let steps = if replaced { &[] } else { stage.steps.as_slice() };
            let label = stage.name.as_ref().map_or_else(|| format!("stage-{number}"), |name| name.value.clone());
            stages.planned.push(PlannedStage { stage, label, base: base.unwrap_or(Base::Scratch), steps, replaced });
            if let Some(name) = &stage.name {
                stages.by_name.insert(&name.value, number);
            }
        }
        if stages.planned.is_empty() {
            findings.push(Diagnostic::error(Span::default(), "the recipe has no stage: `FROM` is missing"));
        }
        (complete && !stages.planned.is_empty()).then_some(stages)
    }

    fn base(&self, stage: &Stage, globals: &Globals, findings: &mut Vec<Diagnostic>) -> Option<Base> {
        let name = globals.expand_in_from(&stage.base, findings)?;
        lint::platform_of_base(stage, globals, findings);
        let platform = match &stage.platform {
            Some(word) => self.base_platform(word, globals, findings)?,
            None => self.platform.clone(),
        };
        if name.is_empty() {
            let message = format!("`FROM {}` names no base: it is empty once expanded", stage.base.value);
            findings.push(Diagnostic::error(stage.base.span, message));
            return None;
        }
        // Unlike `--from` and `--target`, this takes the case as it is written: names of stages are in lower case.
        if let Some(number) = self.by_name.get(name.as_str()) {
            return Some(Base::Stage(*number));
        }
        if name == "scratch" {
            return Some(Base::Scratch);
        }
        if let Some(named) = self.named(&name, &platform) {
            return Some(named);
        }
        self.image(&name, platform, stage.base.span)
            .map(|image| Base::Image(Box::new(image)))
            .map_err(|finding| findings.push(finding))
            .ok()
    }

    fn base_platform(&self, word: &Word, globals: &Globals, findings: &mut Vec<Diagnostic>) -> Option<Platform> {
        let text = globals.expand_in_from(word, findings)?;
        match text.parse() {
            Ok(platform) => Some(platform),
            Err(_) if text.is_empty() => {
                let message = format!("`--platform={}` is empty once expanded", word.value);
                findings.push(Diagnostic::error(word.span, message));
                None
            }
            Err(error) => {
                findings.push(Diagnostic::error(word.span, error.to_string()));
                None
            }
        }
    }

    /// What `--build-context` says a name stands for on a platform.
    fn named(&self, name: &str, platform: &Platform) -> Option<Base> {
        let (name, context) = self.contexts.get(name, platform)?;
        Some(match context {
            NamedContext::Files => Base::Files(name.to_owned()),
            NamedContext::Scratch => Base::Scratch,
            NamedContext::Image { reference, layout } => Base::Image(Box::new(ImageRequest {
                reference: reference.clone(),
                platform: platform.clone(),
                layout: layout.clone(),
            })),
        })
    }

    fn image(&self, name: &str, platform: Platform, span: Span) -> Result<ImageRequest, Diagnostic> {
        name.parse().map(|reference| ImageRequest { reference, platform, layout: None }).map_err(
            |error: crate::recipe::reference::ParseError| {
                let mut finding = Diagnostic::error(span, error.to_string());
                finding.help = did_you_mean(name, self.names());
                finding
            },
        )
    }

    /// The stage to build: by name, then by number, else the last.
    pub(super) fn target(&self, wanted: Option<&str>) -> Result<usize, Diagnostic> {
        let last = self.planned.len() - 1;
        let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) else { return Ok(last) };
        if let Some(number) = self.by_name.get(wanted.to_lowercase().as_str()) {
            return Ok(*number);
        }
        if let Some(number) = wanted.parse::<usize>().ok().filter(|number| *number <= last) {
            return Ok(number);
        }
        let span = self.planned[last].stage.span;
        let mut finding = Diagnostic::error(span, format!("there is no stage `{wanted}` to build"));
        finding.help = did_you_mean(wanted, self.names()).or_else(|| self.known_stages());
        Err(finding)
    }

    /// What a `--from` names.
    pub(super) fn source(&self, from: Option<&Word>) -> Result<Source, Diagnostic> {
        let Some(word) = from.filter(|word| !word.value.is_empty()) else { return Ok(Source::Context) };
        if variable::expand(&word.value, self.escape, &|_| None).ok().as_ref() != Some(&word.value) {
            return Err(Diagnostic::error(word.span, "`--from` takes no variables and no quotes")
                .help("give the base a name with `FROM … AS name`, where variables are allowed, and copy from that"));
        }
        if let Ok(number) = word.value.parse::<i64>() {
            return usize::try_from(number)
                .ok()
                .filter(|number| *number < self.planned.len())
                .map(Source::Stage)
                .ok_or_else(|| self.no_such_number(word, number));
        }
        match self.by_name.get(word.value.to_lowercase().as_str()) {
            Some(number) => Ok(Source::Stage(*number)),
            None if word.value == "scratch" => Ok(Source::Scratch),
            None => match self.named(&word.value, self.platform) {
                Some(named) => Ok(named.into()),
                None => self
                    .image(&word.value, self.platform.clone(), word.span)
                    .map(|image| Source::Image(Box::new(image))),
            },
        }
    }

    fn no_such_number(&self, word: &Word, number: i64) -> Diagnostic {
        let message =
            format!("there is no stage number {number}: the recipe has stages 0 to {}", self.planned.len() - 1);
        Diagnostic::error(word.span, message)
    }

    /// Resolves every `--from` of the recipe and reports those that cannot be: unknown numbers, variables, and stages
    /// that copy from each other.
    pub(super) fn check_sources(&self, findings: &mut Vec<Diagnostic>) {
        let mut copies: Vec<Vec<(usize, Span)>> = Vec::with_capacity(self.planned.len());
        for planned in &self.planned {
            let mut from_stages = Vec::new();
            for from in planned.steps.iter().flat_map(sources_of) {
                match self.source(Some(&from)) {
                    Ok(Source::Stage(number)) => from_stages.push((number, from.span)),
                    Ok(_) => {}
                    Err(finding) => findings.push(finding),
                }
            }
            copies.push(from_stages);
        }
        if let Some(cycle) = find_cycle(&copies) {
            findings.push(self.circular(&cycle));
        }
    }

    fn circular(&self, cycle: &[(usize, Span)]) -> Diagnostic {
        const SHOWN: usize = 8;
        let label = |(number, _): &(usize, Span)| format!("`{}`", self.planned[*number].label);
        let (_, span) = cycle[0];
        if let [stage] = cycle {
            return Diagnostic::error(span, format!("stage {} copies from itself", label(stage)));
        }
        let mut names: Vec<String> = cycle.iter().take(SHOWN).map(label).collect();
        if cycle.len() > SHOWN {
            names.push("…".to_owned());
        }
        names.push(label(&cycle[0]));
        Diagnostic::error(span, format!("stages copy from each other in a circle: {}", names.join(" → ")))
    }

    /// What these stages need: bases, sources of copies, and what the triggers of known bases add to these.
    pub(super) fn reach(
        &self,
        mut waiting: Vec<usize>,
        bases: &BTreeMap<ImageRequest, ImageConfig>,
        findings: &mut Vec<Diagnostic>,
    ) -> Reached {
        let mut reached = Reached::default();
        while let Some(number) = waiting.pop() {
            if reached.stages.contains_key(&number) {
                continue;
            }
            let planned = &self.planned[number];
            let triggers = self.triggers(planned, bases, &mut reached.needs, findings);
            if let Base::Stage(base) = planned.base {
                waiting.push(base);
            }
            for step in planned.steps {
                self.follow(number, step, &mut waiting, &mut reached.needs, bases, findings);
            }
            for trigger in &triggers {
                let before = findings.len();
                self.follow(number, &trigger.step, &mut waiting, &mut reached.needs, bases, findings);
                planned.place_findings(trigger, &mut findings[before..]);
            }
            reached.stages.insert(number, triggers);
        }
        reached
    }

    fn follow(
        &self,
        number: usize,
        step: &Step,
        waiting: &mut Vec<usize>,
        needs: &mut BTreeSet<ImageRequest>,
        bases: &BTreeMap<ImageRequest, ImageConfig>,
        findings: &mut Vec<Diagnostic>,
    ) {
        for from in sources_of(step) {
            match self.source(Some(&from)) {
                Ok(Source::Stage(source)) if source >= number => {
                    findings.push(self.too_late(number, source, step, from.span));
                }
                Ok(Source::Stage(source)) => waiting.push(source),
                Ok(Source::Image(image)) if !bases.contains_key(&*image) => {
                    needs.insert(*image);
                }
                // An error in the recipe itself was reported by `check_sources`; one in a trigger is reported when the
                // trigger is lowered.
                Ok(_) | Err(_) => {}
            }
        }
    }

    fn too_late(&self, number: usize, source: usize, step: &Step, span: Span) -> Diagnostic {
        let (own, other) = (&self.planned[number].label, &self.planned[source].label);
        let (does, to_do) = match step.instruction {
            Instruction::Run(_) => ("mounts itself", "mount"),
            _ => ("copies from itself", "copy from"),
        };
        if number == source {
            return Diagnostic::error(span, format!("stage `{own}` {does}"));
        }
        Diagnostic::error(span, format!("stage `{own}` cannot {to_do} stage `{other}`, which comes after it"))
            .help(format!("move stage `{other}` above stage `{own}`"))
    }

    /// The steps that a stage's base has left for it.
    fn triggers(
        &self,
        planned: &PlannedStage<'_>,
        bases: &BTreeMap<ImageRequest, ImageConfig>,
        needs: &mut BTreeSet<ImageRequest>,
        findings: &mut Vec<Diagnostic>,
    ) -> Vec<Trigger> {
        let mut triggers = Vec::new();
        let mut read = |text: &Spanned<String>, foreign: bool| match dockerfile::parse_trigger(text, '\\') {
            Ok(step) => triggers.push(Trigger { step, foreign }),
            Err(mut finding) => {
                finding.span = if foreign { planned.stage.base.span } else { finding.span };
                findings.push(finding);
            }
        };
        match &planned.base {
            Base::Scratch | Base::Files(_) => {}
            Base::Stage(number) => {
                for step in self.planned[*number].steps {
                    if let Instruction::Onbuild(text) = &step.instruction {
                        read(text, false);
                    }
                }
            }
            Base::Image(image) => match bases.get(image) {
                Some(_) if planned.replaced => {}
                Some(config) => {
                    for text in &config.config.on_build {
                        read(&Spanned::new(text.clone(), planned.stage.base.span), true);
                    }
                }
                None => {
                    needs.insert(*image.clone());
                }
            },
        }
        triggers
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.planned.iter().filter_map(|planned| planned.stage.name.as_ref()).map(|name| name.value.as_str())
    }

    fn known_stages(&self) -> Option<String> {
        const SHOWN: usize = 10;
        let mut names: Vec<&str> = self.names().take(SHOWN + 1).collect();
        if names.len() > SHOWN {
            names[SHOWN] = "…";
        }
        (!names.is_empty()).then(|| format!("the recipe's stages are {}", names.join(", ")))
    }
}

impl PlannedStage<'_> {
    /// Moves findings about a trigger of an image to the `FROM` that brought it in, where the user can see them.
    pub(super) fn place_findings(&self, trigger: &Trigger, findings: &mut [Diagnostic]) {
        if trigger.foreign {
            for finding in findings {
                finding.span = self.stage.base.span;
                finding.message = format!("in the base's trigger `{}`: {}", trigger.step.text, finding.message);
            }
        }
    }
}

/// What a step takes files from: the `--from` of a copy, every `from=` of a mount.
fn sources_of(step: &Step) -> Vec<Word> {
    match &step.instruction {
        Instruction::Copy(copy) => copy.from.iter().cloned().collect(),
        Instruction::Run(run) => run
            .mounts
            .iter()
            .filter_map(|mount| match &mount.kind {
                MountKind::Bind { from, .. } | MountKind::Cache { from, .. } => from.clone(),
                // Its type may turn out to need no files; then one stage more than necessary is made.
                MountKind::Deferred(value) => dockerfile::mount_source(value),
                MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The first circle of stages that copy from each other: each with the place where it names the next.
fn find_cycle(copies: &[Vec<(usize, Span)>]) -> Option<Vec<(usize, Span)>> {
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Visit {
        New,
        Open,
        Done,
    }
    let mut visits = vec![Visit::New; copies.len()];
    for root in 0..copies.len() {
        if visits[root] != Visit::New {
            continue;
        }
        // The way from the root: each stage, and how many of its copies were followed.
        let mut way = vec![(root, 0)];
        visits[root] = Visit::Open;
        while let Some((stage, followed)) = way.last_mut() {
            let stage = *stage;
            let Some((next, _)) = copies[stage].get(*followed) else {
                visits[stage] = Visit::Done;
                way.pop();
                continue;
            };
            *followed += 1;
            match visits[*next] {
                Visit::Done => {}
                Visit::New => {
                    visits[*next] = Visit::Open;
                    way.push((*next, 0));
                }
                Visit::Open => {
                    let start = way.iter().position(|(stage, _)| stage == next)?;
                    return Some(
                        way[start..].iter().map(|(stage, followed)| (*stage, copies[*stage][followed - 1].1)).collect(),
                    );
                }
            }
        }
    }
    None
}
