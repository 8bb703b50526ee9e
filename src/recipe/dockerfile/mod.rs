//! Dockerfile text → [`Recipe`], to the letter of BuildKit's built-in frontend (Dockerfile syntax 1.26, stable set).
//!
//! Two passes: physical lines become logical lines, logical lines become instructions. Linear in the input, never
//! recursive in it, and every finding is a [`Diagnostic`] with its place.

mod caching;
mod command;
mod directive;
mod files;
mod flag;
mod healthcheck;
mod heredoc;
mod instruction;
mod line;
mod mount;
mod word;

use self::instruction::{Parsed, Statement};
use self::line::{Line, Reader};
pub use self::mount::{mount_source, read_mount};
use crate::diagnostic::{Diagnostic, SourceFile, Span, Spanned};
use crate::recipe::{Checks, Instruction, LocalChecks, Recipe, RuleSet, Stage, Step};

/// Reads a whole Dockerfile. The recipe is complete only if no diagnostic is an error.
pub fn parse(source: &SourceFile) -> (Recipe, Vec<Diagnostic>) {
    parse_with(source, None)
}

/// Like [`parse`], where the frontend is named elsewhere than in the Dockerfile, whose `# syntax=` does not count then. What
/// is found about that name has an empty span.
pub fn parse_with(source: &SourceFile, frontend: Option<&str>) -> (Recipe, Vec<Diagnostic>) {
    let mut diagnostics = Vec::new();
    let directives = directive::read(&source.text, frontend, &mut diagnostics);
    let mut reader = Reader::new(&source.text, directives.escape, directives.end);
    let mut assembly = Assembly { checks: directives.checks, ..Assembly::default() };
    while let Some(line) = reader.next(&mut diagnostics) {
        assembly.read(&line, &mut reader, directives.escape, &mut diagnostics);
    }
    assembly.check_whole(&source.text, &mut diagnostics);
    let recipe = Recipe {
        source: source.clone(),
        escape: directives.escape,
        global_args: assembly.global_args,
        stages: assembly.stages,
        checks: assembly.checks,
        inner_comments: reader.inner_comments,
    };
    (recipe, diagnostics)
}

/// Reads one trigger of a base image's `OnBuild`, which may not be `ONBUILD`, `FROM` or `MAINTAINER`.
///
/// BuildKit reads triggers with `\` as the escape character, whatever it was in the recipe they come from. Everything
/// in the step has the trigger's own place.
pub fn parse_trigger(trigger: &Spanned<String>, escape: char) -> Result<Step, Diagnostic> {
    let mut diagnostics = Vec::new();
    let mut reader = Reader::fixed(&trigger.value, escape, trigger.span);
    let Some(line) = reader.next(&mut diagnostics) else {
        return Err(Diagnostic::error(trigger.span, "an ONBUILD trigger is empty"));
    };
    let statement = Statement::split(&line, line.all(), escape);
    instruction::check_trigger(&line, &statement)?;
    let parsed = read_line(&line, statement, &mut reader, escape, &mut diagnostics)?;
    if reader.next(&mut diagnostics).is_some() {
        let message = "an ONBUILD trigger must be a single instruction";
        return Err(Diagnostic::error(trigger.span, message));
    }
    if let Some(error) = diagnostics.into_iter().find(Diagnostic::is_error) {
        return Err(error);
    }
    match parsed {
        Parsed::Step(step) => Ok(Step { span: trigger.span, ..step }),
        Parsed::Stage(_) => Err(Diagnostic::error(trigger.span, "FROM isn't allowed as an ONBUILD trigger")),
    }
}

/// Reads the value of a `# check=` directive that was given elsewhere; all places in it are the recipe's beginning.
///
/// # Errors
/// An option that is not understood.
pub fn read_checks(value: &str) -> Result<Checks, Diagnostic> {
    let mut checks = directive::parse_checks(&Spanned::new(value, Span::new(0, value.len())))?;
    let names = checks.skip.names.iter_mut().chain(&mut checks.experimental.names);
    names.for_each(|name| name.span = Span::default());
    Ok(checks)
}

/// Reads one instruction and the heredocs below it.
fn read_line(
    line: &Line<'_>,
    statement: Statement<'_>,
    reader: &mut Reader<'_>,
    escape: char,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<Parsed, Diagnostic> {
    let heredocs =
        if statement.may_have_heredocs(line, escape) { heredoc::read(line, reader, diagnostics)? } else { Vec::new() };
    instruction::parse(line, statement, heredocs, escape, diagnostics)
}

/// A recipe while it is read.
#[derive(Default)]
struct Assembly {
    global_args: Vec<Step>,
    stages: Vec<Stage>,
    checks: Checks,
    /// Whether there was any instruction.
    any: bool,
    /// Whether a `FROM` was seen, understood or not.
    from: bool,
    /// Whether the current stage's `FROM` was not understood, so that its steps belong nowhere.
    lost: bool,
    /// Whether it was said that an instruction stands before the first `FROM`.
    homeless: bool,
}

impl Assembly {
    fn read(&mut self, line: &Line<'_>, reader: &mut Reader<'_>, escape: char, diagnostics: &mut Vec<Diagnostic>) {
        self.any = true;
        let statement = Statement::split(line, line.all(), escape);
        let is_from = statement.is("FROM");
        if is_from {
            self.from = true;
            self.lost = true;
        }
        if let Some(blank) = line.blank {
            let message = "an empty line inside a continued instruction will become an error in a future release";
            diagnostics.push(
                Diagnostic::warning("NoEmptyContinuation", blank, message)
                    .help("remove the empty line, or put a comment (#) in its place"),
            );
        }
        if line.broken {
            return;
        }
        match read_line(line, statement, reader, escape, diagnostics) {
            Ok(Parsed::Stage(stage)) => {
                self.lost = false;
                self.note_checks(line, stage.span, diagnostics);
                caching::refuse(&line.comments, reader.source(), diagnostics);
                self.stages.push(stage);
            }
            Ok(Parsed::Step(mut step)) => {
                self.note_checks(line, step.span, diagnostics);
                step.caching = caching::read(&line.comments, &step.instruction, reader.source(), diagnostics);
                self.place(step, diagnostics);
            }
            Err(error) => diagnostics.push(error),
        }
    }

    /// Puts a step where it belongs.
    fn place(&mut self, step: Step, diagnostics: &mut Vec<Diagnostic>) {
        if !self.from {
            if matches!(step.instruction, Instruction::Arg(_)) {
                self.global_args.push(step);
            } else if !std::mem::replace(&mut self.homeless, true) {
                let message = "no build stage in current context: an instruction other than ARG stands before FROM";
                diagnostics.push(Diagnostic::error(step.span, message).help("begin the recipe with FROM"));
            }
        } else if let (false, Some(stage)) = (self.lost, self.stages.last_mut()) {
            stage.steps.push(step);
        }
    }

    /// Remembers `# check=skip=…` directly above an instruction.
    fn note_checks(&mut self, line: &Line<'_>, span: Span, diagnostics: &mut Vec<Diagnostic>) {
        // A comment is a place of findings, too.
        let from = line.comments.first().map_or(span.start, |comment| comment.span.start.min(span.start));
        let span = Span::new(from, span.end);
        let mut local = LocalChecks { span, skip: RuleSet::default(), experimental: RuleSet::default() };
        for comment in &line.comments {
            match directive::comment_checks(comment) {
                Some(Ok(checks)) => {
                    local.skip.extend(checks.skip);
                    local.experimental.extend(checks.experimental);
                }
                Some(Err(problem)) => diagnostics.push(Diagnostic {
                    severity: crate::diagnostic::Severity::Warning,
                    rule: Some("InvalidCheckComment"),
                    ..problem
                }),
                None => {}
            }
        }
        if !local.skip.is_empty() || !local.experimental.is_empty() {
            self.checks.local.push(local);
        }
    }

    /// Says what is missing from the recipe as a whole.
    fn check_whole(&self, text: &str, diagnostics: &mut Vec<Diagnostic>) {
        let end = Span::new(text.len(), text.len());
        if !self.any {
            diagnostics.push(Diagnostic::error(end, "file with no instructions").help("begin the recipe with FROM"));
        } else if !self.from && !self.homeless {
            diagnostics.push(Diagnostic::error(end, "the recipe has no build stage").help("add a FROM instruction"));
        }
    }
}

#[cfg(test)]
mod tests;
