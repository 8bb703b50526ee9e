//! A shell at a point of a recipe: everything before it is built, and what would come next is not run.
//!
//! Takes a request and, if somebody named one, a line; gives the sandbox of a `RUN` at that point. A point that is no
//! `RUN` gets one that does nothing: what a step sees there is then worked out by the code that works it out for all.

use super::error::{ended, step_failed};
use super::prepare::prepare_with;
use super::record::{Record, failure, keep_notes, notes};
use super::{Error, Request, Workplace, executor, share, solver};
use crate::diagnostic::{Diagnostic, Span, Spanned, line_column};
use crate::execute::shell::Sandbox;
use crate::graph::NodeId;
use crate::journal::Outcome;
use crate::recipe::{Caching, CommandLine, Instruction, Recipe, Run, Stage, Step};
use crate::schedule::{self, mend, solve};

/// Builds what comes before a point of a stage, and hands the sandbox of that point to `open`.
///
/// The stage is the request's target, else the one that the line is in, else the last. At the line of a `RUN` the point
/// is that step's, with its mounts; at another instruction's it is before that; without a line it is the end of the stage.
///
/// # Errors
/// See [`Error`].
pub fn shell<T>(
    request: &Request,
    line: Option<usize>,
    place: &Workplace,
    open: impl FnOnce(&Sandbox) -> T,
) -> Result<T, Error> {
    let sweep = place.store.sweep()?;
    let _shared = share(place)?;
    let record = Record::begin(request, place);
    let made = before(request, line, place, &record).map_err(|error| ended(error, &place.cancel));
    record.end(match &made {
        Ok(_) => Outcome::Done { image: None },
        Err(error) => failure(error),
    });
    drop(sweep);
    Ok(open(&made?))
}

/// Builds what comes before the point.
fn before(request: &Request, line: Option<usize>, place: &Workplace, record: &Record<'_>) -> Result<Sandbox, Error> {
    let target = request.graph.target.as_deref();
    let plan = prepare_with(request, place, &|recipe| cut(recipe, target, line))?;
    let executor = executor(&plan, request, place);
    let (memory, notes) = (mend::Memory::default(), notes(request));
    let asked = solver(&plan, &executor, request, place, (&memory, &notes));
    let solver = solve::Solver { build: record.id(), ..asked };
    let mut graph = plan.graph.clone();
    // The target is the last node, because nothing needs it.
    graph.nodes.pop();
    let failed = |failed| step_failed(&plan, failed, record, place.store.root());
    let solved = schedule::run(&graph, &solver, place.slots);
    keep_notes(&notes, place);
    let solved = solved.map_err(failed)?;
    solver.enter(NodeId(graph.nodes.len()), &solved).map_err(failed)
}

/// Leaves of a recipe what comes before a point, and a `RUN` there.
fn cut(recipe: &mut Recipe, target: Option<&str>, line: Option<usize>) -> Result<(), Vec<Diagnostic>> {
    let text = recipe.source.text.clone();
    let line_of = |offset: usize| line_column(&text, offset).0;
    let named =
        |stage: &Stage, wanted: &str| stage.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(wanted));
    let place = match (target, line) {
        (Some(wanted), _) => {
            let by_name = recipe.stages.iter().rposition(|stage| named(stage, wanted));
            let by_number = wanted.parse().ok().filter(|number| *number < recipe.stages.len());
            // Nobody's name: the graph says so, with the nearest.
            let Some(place) = by_name.or(by_number) else { return Ok(()) };
            place
        }
        (None, Some(line)) => {
            let above = recipe.stages.iter().rposition(|stage| line_of(stage.span.start) <= line);
            above.ok_or_else(|| vec![outside(recipe, line)])?
        }
        (None, None) => recipe.stages.len().saturating_sub(1),
    };
    recipe.stages.truncate(place + 1);
    let Some(stage) = recipe.stages.last_mut() else { return Ok(()) };
    let mut span = stage.steps.last().map_or(stage.span, |step| step.span);
    if let Some(line) = line {
        let last_line = line_of(span.end.saturating_sub(1).max(span.start));
        if line < line_of(stage.span.start) || line > last_line + 1 {
            return Err(vec![outside(recipe, line)]);
        }
        let next = stage.steps.iter().position(|step| line <= line_of(step.span.end.saturating_sub(1)));
        if let Some(next) = next {
            let is_run = stage.steps.get(next).is_some_and(|step| matches!(step.instruction, Instruction::Run(_)));
            stage.steps.truncate(next + usize::from(is_run));
            if is_run {
                return Ok(());
            }
            span = stage.steps.last().map_or(stage.span, |step| step.span);
        }
    }
    stage.steps.push(nothing(span));
    Ok(())
}

fn outside(recipe: &Recipe, line: usize) -> Diagnostic {
    let span = recipe.stages.last().map(|stage| stage.span).unwrap_or_default();
    Diagnostic::error(span, format!("line {line} is not in the stage that is built"))
        .help("name a line of that stage with --at, or another stage with --target")
}

/// A `RUN` that does nothing, for a point where the recipe has none.
fn nothing(span: Span) -> Step {
    let command = CommandLine::Shell(Spanned::new("exit".to_owned(), span));
    let run = Run { command, heredocs: Vec::new(), mounts: Vec::new(), network: None, security: None };
    let caching = Caching::default();
    Step { span, text: "RUN (a shell)".to_owned(), instruction: Instruction::Run(run), caching }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::recipe::dockerfile;

    #[test]
    fn a_line_names_a_point() {
        let text = "ARG X\nFROM a AS one\nENV A=b\nRUN --mount=type=tmpfs,target=/t one \\\n  more\n\n# comment\nCOPY a b\n\
                    FROM one AS two\nRUN two\n";
        for (target, line, expected) in [
            (None, None, Some("FROM a|FROM one|RUN two|RUN (a shell)")),
            (
                Some("one"),
                None,
                Some("FROM a|ENV A=b|RUN --mount=type=tmpfs,target=/t one more|COPY a b|RUN (a shell)"),
            ),
            (Some("0"), Some(3), Some("FROM a|RUN (a shell)")),
            (Some("ONE"), Some(2), Some("FROM a|RUN (a shell)")),
            (None, Some(4), Some("FROM a|ENV A=b|RUN --mount=type=tmpfs,target=/t one more")),
            (None, Some(5), Some("FROM a|ENV A=b|RUN --mount=type=tmpfs,target=/t one more")),
            (None, Some(7), Some("FROM a|ENV A=b|RUN --mount=type=tmpfs,target=/t one more|RUN (a shell)")),
            (None, Some(10), Some("FROM a|FROM one|RUN two")),
            (Some("one"), Some(10), None),
            (None, Some(1), None),
            (None, Some(99), None),
        ] {
            let source = SourceFile { name: "Dockerfile".into(), text: text.into() };
            let (mut recipe, _) = dockerfile::parse(&source);
            let outcome = cut(&mut recipe, target, line).map(|()| {
                let stage = |stage: &Stage| {
                    let base = format!("FROM {}", stage.base.value);
                    let steps =
                        stage.steps.iter().map(|step| step.text.split_whitespace().collect::<Vec<_>>().join(" "));
                    std::iter::once(base).chain(steps).collect::<Vec<_>>().join("|")
                };
                let stages: Vec<_> = recipe.stages.iter().map(stage).collect();
                if stages.len() == 2 { format!("FROM a|{}", stages[1]) } else { stages[0].clone() }
            });
            assert_eq!(outcome.ok().as_deref(), expected, "{target:?} {line:?}");
        }
    }
}
