//! Stages: their names, their descriptions, and whether anything uses them.

use std::collections::{BTreeSet, HashSet};

use crate::diagnostic::{Diagnostic, Span};
use crate::recipe::{Instruction, MountKind, Recipe, Stage, Step};

/// Names that mean something else: the build context, and nothing.
const RESERVED: [&str; 2] = ["context", "scratch"];

/// With more words than this whose meaning is not known, nothing is called unused.
const OPEN: usize = 1_000;

pub(super) fn check(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    names(recipe, findings);
    unused(recipe, findings);
    descriptions(recipe, findings);
}

fn names(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    let mut seen = HashSet::new();
    for name in recipe.stages.iter().filter_map(|stage| stage.name.as_ref()) {
        if RESERVED.contains(&name.value.as_str()) {
            let message = format!("a stage named `{}` hides what that name means otherwise", name.value);
            findings.push(Diagnostic::warning("ReservedStageName", name.span, message).help("give it another name"));
        }
        if !seen.insert(&name.value) {
            let message = format!("there is a stage named `{}` above already", name.value);
            findings.push(Diagnostic::warning("DuplicateStageName", name.span, message).help("give it another name"));
        }
    }
}

/// A stage that is neither the last, nor used by another, nor described as something to be built by name.
fn unused(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    let Some((_, others)) = recipe.stages.split_last() else { return };
    let used = References::of(recipe);
    for (number, stage) in others.iter().enumerate() {
        if stage.description.is_none() && !used.has(stage, number) {
            let label = stage.name.as_ref().map_or_else(|| number.to_string(), |name| name.value.clone());
            let span = stage.name.as_ref().map_or(stage.base.span, |name| name.span);
            let message = format!("nothing uses stage `{label}`");
            let finding = Diagnostic::warning("UnusedStage", span, message);
            let help = match &stage.name {
                Some(name) => format!("if it is built with --target, say what it is for: # {} …", name.value),
                None => "remove it, or give it a name".to_owned(),
            };
            findings.push(finding.help(help));
        }
    }
}

/// The words of a recipe that may name a stage.
struct References<'a> {
    words: HashSet<String>,
    /// What such words begin with where a variable follows: what they name is not known here.
    beginnings: BTreeSet<&'a str>,
    triggers: BTreeSet<&'a str>,
}

impl<'a> References<'a> {
    fn of(recipe: &'a Recipe) -> Self {
        let mut references = Self { words: HashSet::new(), beginnings: BTreeSet::new(), triggers: BTreeSet::new() };
        for stage in &recipe.stages {
            references.add(&stage.base.value);
            for step in &stage.steps {
                references.add_step(step);
            }
        }
        references
    }

    fn add(&mut self, word: &'a str) {
        match word.split_once('$') {
            Some((beginning, _)) => self.beginnings.insert(beginning),
            None => self.words.insert(word.to_lowercase()),
        };
    }

    fn add_step(&mut self, step: &'a Step) {
        match &step.instruction {
            Instruction::Copy(copy) => {
                if let Some(from) = &copy.from {
                    self.add(&from.value);
                }
            }
            Instruction::Run(run) => {
                for mount in &run.mounts {
                    match &mount.kind {
                        MountKind::Bind { from: Some(from), .. } | MountKind::Cache { from: Some(from), .. } => {
                            self.add(&from.value);
                        }
                        // What it names is known when its variables are.
                        MountKind::Deferred(_) => {
                            self.beginnings.insert("");
                        }
                        _ => {}
                    }
                }
            }
            Instruction::Onbuild(trigger) => {
                self.triggers.insert(&trigger.value);
            }
            _ => {}
        }
    }

    fn has(&self, stage: &Stage, number: usize) -> bool {
        if self.triggers.len().max(self.beginnings.len()) > OPEN {
            return true;
        }
        let name = stage.name.as_ref().map(|name| name.value.as_str());
        let named = |name: &str| {
            self.words.contains(name)
                || self.beginnings.iter().any(|beginning| name.starts_with(beginning))
                || self.triggers.iter().any(|trigger| trigger.contains(name))
        };
        named(&number.to_string()) || name.is_some_and(named)
    }
}

/// Comments directly above something that can be described, which do not begin with its name.
fn descriptions(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    for stage in &recipe.stages {
        if let Some(name) = &stage.name {
            description(recipe, stage.span, "FROM", &[&name.value], findings);
        }
    }
    let in_stages = recipe.stages.iter().flat_map(|stage| &stage.steps);
    for step in recipe.global_args.iter().chain(in_stages) {
        if let Instruction::Arg(arguments) = &step.instruction {
            let names: Vec<&str> = arguments.iter().map(|argument| argument.name.value.as_str()).collect();
            description(recipe, step.span, "ARG", &names, findings);
        }
    }
}

fn description(recipe: &Recipe, span: Span, keyword: &str, names: &[&str], findings: &mut Vec<Diagnostic>) {
    let above = recipe.source.text.get(..span.start).unwrap_or_default();
    let above = &above[..above.rfind('\n').map_or(0, |end| end + 1)];
    let Some(line) = above.lines().next_back() else { return };
    let Some(comment) = line.trim_start().strip_prefix('#').map(str::trim).filter(|text| !text.is_empty()) else {
        return;
    };
    let first = comment.split(' ').next().unwrap_or(comment);
    let directive = comment.split_once('=').is_some_and(|(key, _)| {
        ["check", "syntax", "escape"].iter().any(|known| key.trim().eq_ignore_ascii_case(known))
    });
    if names.contains(&first) || directive {
        return;
    }
    let start = above.len() - above[above.rfind(line).unwrap_or(0)..].len();
    let example = if let [name] = names { name } else { "name" };
    let message = format!("this comment does not describe the {keyword} below it by name");
    let finding = Diagnostic::warning("InvalidDefinitionDescription", Span::new(start, start + line.len()), message);
    findings.push(finding.help(format!("write # {example} and what it is, or leave an empty line below the comment")));
}
