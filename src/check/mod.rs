//! Checks: what is doubtful in a recipe, found without building anything.
//!
//! Takes a recipe, its graph where there is one, the ignore patterns of its context, and what parser and graph reported;
//! gives the warnings that somebody wants to see, in the order of their places. Which rules there are is in [`rule`], what
//! each means in a page a rule under `rules/`. The rules with BuildKit's names hold under BuildKit's conditions. Those that
//! need the value of a variable or the state of a stage are found by `graph`; all others here. Pure.

pub mod rule;

mod casing;
mod context;
mod copy;
mod image;
mod mount;
mod shell;
mod stage;
mod step;

use crate::check::rule::{Regime, Rule};
use crate::context::ignore::Ignore;
use crate::diagnostic::Diagnostic;
use crate::graph::Graph;
use crate::recipe::{Checks, Recipe};

/// What is checked.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// The recipe.
    pub recipe: &'a Recipe,
    /// Its graph; rules that need it find nothing without.
    pub graph: Option<&'a Graph>,
    /// What the main context hides, if the recipe reads one.
    pub ignore: Option<&'a Ignore>,
}

/// What the findings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// A build goes on, and its user should know of likely mistakes.
    Build,
    /// Somebody asked for everything there is to say.
    Check,
}

/// Everything to be said about a recipe. `reported` is what parser and graph found: its warnings are subject to the same
/// rules as those found here, its errors stay.
pub fn findings(subject: &Subject<'_>, reported: Vec<Diagnostic>, purpose: Purpose) -> Vec<Diagnostic> {
    let mut findings = reported;
    let recipe = subject.recipe;
    casing::check(recipe, &mut findings);
    stage::check(recipe, &mut findings);
    step::check(recipe, &mut findings);
    mount::check(recipe, &mut findings);
    unknown_rules(&recipe.checks, &mut findings);
    if let Some(graph) = subject.graph {
        image::check(graph, &mut findings);
        if let Some(ignore) = subject.ignore {
            context::check(graph, ignore, &mut findings);
        }
    }
    findings.retain(|finding| is_wanted(finding, &recipe.checks, purpose));
    findings.sort_by_key(|finding| (finding.span.start, finding.span.end, finding.rule));
    findings.dedup();
    findings
}

/// The names of the rules, each once and sorted, for whose findings the recipe asks that the build fails
/// (`# check=error=true`). Only BuildKit's rules count: a recipe that says so was written for these.
pub fn violations(checks: &Checks, findings: &[Diagnostic]) -> Vec<&'static str> {
    if !checks.error {
        return Vec::new();
    }
    let of_buildkit = |name: &&str| rule::find(name).is_some_and(|rule| rule.origin == rule::Origin::BuildKit);
    let mut names: Vec<&'static str> = findings.iter().filter_map(|finding| finding.rule).filter(of_buildkit).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn is_wanted(finding: &Diagnostic, checks: &Checks, purpose: Purpose) -> bool {
    let Some(Rule { name, regime, .. }) = finding.rule.and_then(rule::find) else { return true };
    let on = match regime {
        Regime::Always => true,
        Regime::WhenChecked => purpose == Purpose::Check,
        // What is switched on by name is not switched off by `skip=all`.
        Regime::OnRequest => return checks.wants(name, finding.span) && !checks.skips_here(name, finding.span),
    };
    on && !checks.skips(name, finding.span)
}

/// Names in `# check=` that no rule has.
fn unknown_rules(checks: &Checks, findings: &mut Vec<Diagnostic>) {
    let local = checks.local.iter().flat_map(|above| above.skip.names.iter().chain(&above.experimental.names));
    for name in checks.skip.names.iter().chain(&checks.experimental.names).chain(local) {
        if rule::find(&name.value).is_none() {
            let message = format!("there is no rule named `{}`", name.value);
            let mut finding = Diagnostic::warning("UnknownRule", name.span, message);
            finding.help = rule::nearest_to(&name.value).map(|rule| format!("did you mean `{rule}`?"));
            findings.push(finding);
        }
    }
}

#[cfg(test)]
mod tests;
