//! `strata check`, which is also `strata build --check`

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine as _};
use clap::Args;
use serde_json::{Value, json};

use crate::build::{self, Checked, Findings, Request};
use crate::check::rule::{self, Rule};
use crate::cli::build::Recipe;
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::diagnostic::{Diagnostic, SourceFile, line_column, render};
use crate::progress::Silent;

/// The arguments of `check`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: Option<Recipe>,

    /// Print a rule's page, with a bad and a good example; `all` lists the rules
    #[arg(long, value_name = "RULE", exclusive = true)]
    explain: Option<String>,

    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Checks a recipe, or explains a rule.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    match (arguments.explain, arguments.recipe) {
        (Some(name), _) => explain(&name),
        (None, Some(recipe)) => findings(&recipe.request()?, arguments.format),
        (None, None) => Err(exit::Error::Usage("strata check takes the CONTEXT whose recipe it checks".to_owned())),
    }
}

/// Prints what is found. Finding anything is a failure, as with `docker build --check`.
pub(super) fn findings(request: &Request, format: Format) -> Result<(), exit::Error> {
    let place = workplace::open(Arc::new(Silent))?;
    let Checked { findings, failure } = build::check(request, &place)?;
    match format {
        Format::Text => print(&text(&findings))?,
        Format::Json => print_json(&document(&findings, failure.as_ref()))?,
    }
    match failure {
        Some(failure) => Err(failure.into()),
        None if findings.diagnostics.is_empty() => Ok(()),
        None => Err(exit::Error::Findings { errors: findings.diagnostics.iter().any(Diagnostic::is_error) }),
    }
}

fn explain(name: &str) -> Result<(), exit::Error> {
    if name == "all" {
        let row = |rule: &Rule| vec![rule.name.to_owned(), rule.summary.to_owned()];
        return print(&crate::cli::table::table(&rule::RULES.iter().map(row).collect::<Vec<_>>()));
    }
    match rule::find(name) {
        Some(rule) => print(rule.page),
        None => Err(exit::Error::NoRule { name: name.to_owned(), nearest: rule::nearest_to(name) }),
    }
}

fn text(findings: &Findings) -> String {
    let count = |errors: bool| findings.diagnostics.iter().filter(|finding| finding.is_error() == errors).count();
    let sum = match (count(true), count(false)) {
        (0, 0) => "Check complete, no warnings found.".to_owned(),
        (0, warnings) => format!("Check complete, {}.", counted(warnings, "warning")),
        (errors, 0) => format!("Check complete, {}.", counted(errors, "error")),
        (errors, warnings) => {
            format!("Check complete, {}, {}.", counted(errors, "error"), counted(warnings, "warning"))
        }
    };
    format!("{}{sum}\n", render(&findings.diagnostics, &findings.source, exit::stdout_colour()))
}

fn counted(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// The document of `docker build --call=check,format=json`; `help` and `character` are more than Docker says.
fn document(findings: &Findings, failure: Option<&build::Error>) -> Value {
    let warnings = findings.diagnostics.iter().filter(|finding| !finding.is_error());
    let mut document = json!({
        "warnings": warnings.map(|finding| warning(finding, findings)).collect::<Vec<_>>(),
        "sources": [{
            "filename": findings.source.name.as_ref(), "language": "Dockerfile", "data": encoded(&findings.source),
        }],
    });
    let error = findings.diagnostics.iter().find(|finding| finding.is_error());
    if let Some(error) = error {
        document["buildError"] =
            json!({ "message": error.message, "help": error.help, "location": location(error, findings) });
    } else if let Some(failure) = failure {
        document["buildError"] = json!({ "message": build::sentence(failure) });
    }
    document
}

/// The text of a recipe as Docker's documents hold it.
pub(super) fn encoded(source: &SourceFile) -> String {
    BASE64_STANDARD.encode(source.text.as_bytes())
}

fn warning(finding: &Diagnostic, findings: &Findings) -> Value {
    let rule = finding.rule.and_then(rule::find);
    json!({
        "ruleName": finding.rule,
        "description": rule.map(|rule| rule.summary),
        "url": rule.and_then(Rule::url),
        "detail": finding.message,
        "help": finding.help,
        "location": location(finding, findings),
    })
}

/// Lines count from 1, characters from 0, as in Docker's documents; `null` where the finding is about the command line.
fn location(finding: &Diagnostic, findings: &Findings) -> Value {
    if finding.span == crate::diagnostic::Span::default() {
        return Value::Null;
    }
    let position = |offset: usize| {
        let (line, column) = line_column(&findings.source.text, offset);
        json!({ "line": line, "character": column - 1 })
    };
    json!({ "ranges": [{ "start": position(finding.span.start), "end": position(finding.span.end) }] })
}
