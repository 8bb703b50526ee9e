//! What can be said to a recipe: its arguments, secrets, agents and caches, and its stages.
//!
//! Takes a recipe and the user's choices, gives what the target makes of them, as `docker build --call=outline` and
//! `--call=targets` do. Asks for no base image: what one would add to variables or triggers is not there. Pure.

use std::collections::{BTreeMap, HashMap};

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::Request;
use crate::graph::scope::{self, Arguments, Environment, Globals, Scope};
use crate::graph::stage::{Base, Stages};
use crate::recipe::{Instruction, MountKind, Recipe, Run, Step, Word};

/// What a target takes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outline {
    /// The target's name; `None` for a stage without.
    pub name: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// Arguments the target uses, in the order of the recipe.
    pub arguments: Vec<Argument>,
    /// Secrets its steps mount, in the order of the recipe.
    pub secrets: Vec<Mounted>,
    /// SSH agents its steps mount.
    pub ssh: Vec<Mounted>,
    /// Caches its steps mount.
    pub caches: Vec<Mounted>,
}

/// One argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// The value it has with this request.
    pub value: Option<String>,
    /// What the comment above it says.
    pub description: Option<String>,
    /// Where it is declared.
    pub span: Span,
}

/// Something that steps mount by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounted {
    /// The id.
    pub id: String,
    /// Whether a step fails without it.
    pub required: bool,
    /// Where it is first mounted.
    pub span: Span,
}

/// What the request's target takes.
///
/// # Errors
/// Mistakes in the recipe that make it unclear which stages the target needs.
pub fn outline(recipe: &Recipe, request: &Request) -> Result<Outline, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    let globals = Globals::new(recipe, request, &mut findings);
    let Some(stages) = Stages::resolve(recipe, request, &globals, &mut findings) else { return Err(findings) };
    let target = stages.target(request.target.as_deref()).map_err(|finding| vec![finding])?;
    stages.check_sources(&mut findings);
    if !findings.iter().all(|finding| !finding.is_error()) {
        return Err(findings);
    }
    // What else stands in the way of a build stands not in the way of a look.
    let reached = stages.reach(vec![target], &BTreeMap::new(), &mut Vec::new());

    let stage = stages.planned[target].stage;
    let mut survey = Survey {
        recipe,
        globals: &globals,
        outline: Outline::default(),
        variables: HashMap::new(),
        arguments: HashMap::new(),
    };
    survey.outline.name = stage.name.as_ref().map(|name| name.value.clone());
    survey.outline.description.clone_from(&stage.description);
    for number in reached.stages.keys() {
        survey.stage(&stages, *number);
    }
    let arguments = survey.of_target(&stages, target);
    let mut outline = Outline { arguments, ..survey.outline };
    outline.arguments.sort_by_key(|argument| argument.span.start);
    Ok(outline)
}

/// An outline in the making.
struct Survey<'a> {
    recipe: &'a Recipe,
    globals: &'a Globals,
    outline: Outline,
    /// What each stage leaves to those on top of it.
    variables: HashMap<usize, (Environment, Arguments)>,
    /// What each stage declares or uses of what is declared before the first one, by name.
    arguments: HashMap<usize, BTreeMap<String, Argument>>,
}

impl Survey<'_> {
    fn stage(&mut self, stages: &Stages<'_>, number: usize) {
        let planned = &stages.planned[number];
        let mut own = BTreeMap::new();
        for word in std::iter::once(&planned.stage.base).chain(&planned.stage.platform) {
            for name in self.globals.look_into(word).map(|seen| seen.set).unwrap_or_default() {
                self.global(name, &mut own);
            }
        }
        let below = match planned.base {
            Base::Stage(base) => self.variables.get(&base).cloned(),
            _ => None,
        };
        let (mut environment, mut arguments) = below.unwrap_or_default();
        for step in &planned.stage.steps {
            self.step(step, &mut environment, &mut arguments, &mut own);
        }
        self.variables.insert(number, (environment, arguments));
        self.arguments.insert(number, own);
    }

    fn step(
        &mut self,
        step: &Step,
        environment: &mut Environment,
        arguments: &mut Arguments,
        own: &mut BTreeMap<String, Argument>,
    ) {
        let mut unseen = Vec::new();
        match &step.instruction {
            Instruction::Arg(declared) => {
                for argument in declared {
                    let shown = scope::declare(self.globals, environment, arguments, argument, &mut unseen);
                    let value = shown.and_then(|shown| shown.split_once('=').map(|(_, value)| value.to_owned()));
                    let (name, span) = (argument.name.value.clone(), argument.name.span);
                    // The value of one from before the first stage, or of one that nobody has to declare.
                    let inherited = argument.default.is_none() && self.globals.get(&name).is_some();
                    if inherited && !self.globals.is_given(&name) {
                        self.global(name, own);
                        continue;
                    }
                    let description = argument.description.clone();
                    own.insert(name.clone(), Argument { name, value, description, span });
                }
            }
            Instruction::Env(pairs) => {
                let scope = Scope { globals: self.globals, environment, arguments };
                let pairs: Vec<_> = pairs
                    .iter()
                    .filter_map(|pair| {
                        Some((scope.word(&pair.name, &mut unseen)?, scope.word(&pair.value, &mut unseen)?))
                    })
                    .collect();
                pairs.iter().for_each(|(name, value)| environment.set(name, value));
            }
            Instruction::Run(run) => {
                let scope = Scope { globals: self.globals, environment, arguments };
                mounts(run, &scope, &mut self.outline);
            }
            _ => {}
        }
    }

    /// Adds an argument declared before the first stage, if there is one of this name and the stage has no other, and
    /// those that its default is made of.
    fn global(&self, name: String, own: &mut BTreeMap<String, Argument>) {
        let mut waiting = vec![name];
        while let Some(name) = waiting.pop() {
            if own.contains_key(&name) {
                continue;
            }
            let declared = self.recipe.global_args.iter().filter_map(|step| match &step.instruction {
                Instruction::Arg(declared) => Some(declared),
                _ => None,
            });
            // The last declaration is the one in force.
            let Some(argument) = declared.flatten().rfind(|argument| argument.name.value == name) else {
                continue;
            };
            if let (Some(default), false) = (&argument.default, self.globals.is_given(&name)) {
                waiting.extend(self.globals.look_into(default).map(|seen| seen.set).unwrap_or_default());
            }
            let value = self.globals.get(&name).map(str::to_owned);
            let (description, span) = (argument.description.clone(), argument.name.span);
            own.insert(name.clone(), Argument { name, value, description, span });
        }
    }

    /// The arguments of a stage and of those it stands on or copies from; of several with one name that of the stage
    /// nearest to it.
    fn of_target(&mut self, stages: &Stages<'_>, target: usize) -> Vec<Argument> {
        let mut found = BTreeMap::new();
        let mut next = Some(target);
        while let Some(number) = next {
            for (name, argument) in self.arguments.remove(&number).unwrap_or_default() {
                found.entry(name).or_insert(argument);
            }
            next = match stages.planned[number].base {
                Base::Stage(base) => Some(base),
                _ => None,
            };
        }
        let mut others: Vec<_> = std::mem::take(&mut self.arguments).into_iter().collect();
        others.sort_unstable_by_key(|(number, _)| std::cmp::Reverse(*number));
        for (name, argument) in others.into_iter().flat_map(|(_, arguments)| arguments) {
            found.entry(name).or_insert(argument);
        }
        found.into_values().collect()
    }
}

fn mounts(run: &Run, scope: &Scope<'_>, outline: &mut Outline) {
    let said = |word: &Word| scope.word(word, &mut Vec::new()).unwrap_or_else(|| word.value.clone());
    for mount in &run.mounts {
        let target = mount.target.as_ref();
        let (list, id, required) = match &mount.kind {
            MountKind::Secret { id, required, .. } => {
                let id = id.as_ref().map(said);
                let last = || target.map(|word| said(word).rsplit('/').next().unwrap_or_default().to_owned());
                (&mut outline.secrets, id.or_else(last).unwrap_or_default(), *required)
            }
            MountKind::Ssh { id, required, .. } => {
                (&mut outline.ssh, id.as_ref().map_or_else(|| "default".to_owned(), said), *required)
            }
            MountKind::Cache { id, .. } => {
                (&mut outline.caches, id.as_ref().or(target).map(said).unwrap_or_default(), false)
            }
            _ => continue,
        };
        match list.iter_mut().find(|known| known.id == id) {
            Some(known) => known.required |= required,
            None => list.push(Mounted { id, required, span: mount.span }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::recipe::dockerfile;

    #[test]
    fn what_the_target_uses_is_listed() {
        let text = "# BASE is the image below\nARG BASE=alpine\nARG UNUSED=1\nARG SHARED=2\n\
                    FROM $BASE AS tools\nARG SHARED\nENV P=/p\nARG Q=$P/q\n\
                    RUN --mount=type=secret,id=token --mount=type=ssh --mount=type=cache,target=/c true\n\
                    FROM alpine AS other\nARG NEVER\n\
                    # app is the result\nFROM tools AS app\nARG LAST\n\
                    RUN --mount=type=secret,id=token,required --mount=type=secret,target=/run/x true\n";
        let (recipe, _) = dockerfile::parse(&SourceFile { name: "Dockerfile".into(), text: text.into() });
        let platform: crate::recipe::platform::Platform = "linux/amd64".parse().unwrap();
        let request = Request {
            target: None,
            build_args: BTreeMap::from([("SHARED".to_owned(), "3".to_owned())]),
            platform: platform.clone(),
            platform_given: false,
            build_platform: platform,
            source_date_epoch: None,
            contexts: crate::graph::named::NamedContexts::default(),
            allow: crate::graph::Allowed::default(),
            every_stage: false,
        };
        let found = outline(&recipe, &request).unwrap();
        assert_eq!(found.name.as_deref(), Some("app"));
        assert_eq!(found.description.as_deref(), Some("is the result"));
        let arguments: Vec<_> =
            found.arguments.iter().map(|a| (a.name.as_str(), a.value.as_deref(), a.description.as_deref())).collect();
        assert_eq!(
            arguments,
            [
                ("BASE", Some("alpine"), Some("is the image below")),
                ("SHARED", Some("3"), None),
                ("Q", Some("/p/q"), None),
                ("LAST", None, None),
            ]
        );
        let ids = |list: &[Mounted]| list.iter().map(|m| (m.id.clone(), m.required)).collect::<Vec<_>>();
        assert_eq!(ids(&found.secrets), [("token".to_owned(), true), ("x".to_owned(), false)]);
        assert_eq!(ids(&found.ssh), [("default".to_owned(), false)]);
        assert_eq!(ids(&found.caches), [("/c".to_owned(), false)]);
    }
}
