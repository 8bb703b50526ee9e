//! `strata explain`

use std::sync::Arc;

use clap::Args;
use serde_json::{Value, json};

use crate::build::{self, Known, Plan};
use crate::cli::build::Recipe;
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::diagnostic::line_column;
use crate::graph::explain::Status;
use crate::graph::{Node, Op};
use crate::progress::{Answer, Silent};

/// The arguments of `explain`.
#[derive(Debug, Args)]
#[command(
    after_help = "HIT      the step's result is known: when it was made, by which build and step, and how long it took\n\
    MISS     it would run: what is not as it was in the nearest earlier run of the same step\n\
    UNKNOWN  it depends on a step that would run\n\n\
    Nothing is run, nothing but documents of base images is fetched, and no later answer changes."
)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    /// How the answers are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Prints what the cache says of each step, and why.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let mut request = arguments.recipe.request()?;
    request.explain = true;
    let place = workplace::open(Arc::new(Silent))?;
    let (plan, known) = build::plan(&request, &place)?;
    match arguments.format {
        Format::Text => print(&text(&plan, &known)),
        Format::Json => print_json(&document(&plan, &known)),
    }
}

/// The nodes that are steps, with what is known of them.
fn steps<'a>(plan: &'a Plan, known: &'a [Known]) -> impl Iterator<Item = (&'a Node, &'a Known)> {
    let is_step = |node: &Node| matches!(node.op, Op::Run(_) | Op::Copy(_) | Op::Mkdir(_));
    plan.graph.nodes.iter().zip(known).filter(move |(node, _)| is_step(node))
}

const fn answer(status: Status) -> Answer {
    match status {
        Status::Cached => Answer::Hit,
        Status::Miss => Answer::Miss,
        Status::Unknown => Answer::Unknown,
    }
}

fn text(plan: &Plan, known: &[Known]) -> String {
    let mut text = String::new();
    let mut counts = [0; 3];
    for (node, known) in steps(plan, known) {
        let word = answer(known.status);
        counts[word as usize] += 1;
        text += &format!("{:7}  {}\n", word.word(), one_line(&node.origin.title()));
        if let Some(explanation) = &known.explanation {
            for line in std::iter::once(&explanation.summary).chain(&explanation.details) {
                text += &format!("         {line}\n");
            }
        }
    }
    let [hits, misses, unknown] = counts;
    text + &format!("{hits} known, {misses} to be made, {unknown} depend on these\n")
}

/// A step's title may go over several lines.
fn one_line(title: &str) -> String {
    title.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn document(plan: &Plan, known: &[Known]) -> Value {
    let step = |(node, known): (&Node, &Known)| {
        let origin = &node.origin;
        let line = (origin.span.end > 0).then(|| line_column(&plan.recipe.source.text, origin.span.start).0);
        let mut object = json!({
            "title": origin.title(),
            "stage": origin.stage,
            "step": origin.step,
            "of": origin.of,
            "text": origin.text,
            "line": line,
            "answer": answer(known.status).name(),
        });
        if let (Value::Object(object), Some(Value::Object(more))) =
            (&mut object, known.explanation.as_ref().map(|explanation| explanation.object()))
        {
            object.extend(more);
        }
        object
    };
    json!({ "recipe": &*plan.recipe.source.name, "steps": steps(plan, known).map(step).collect::<Vec<_>>() })
}
