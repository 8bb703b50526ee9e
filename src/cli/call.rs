//! `strata build --call`: what can be asked about a build in place of a build.

use std::str::FromStr;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::build::{self, Request};
use crate::cli::table::table;
use crate::cli::{Format, check, exit, print, print_json, workplace};
use crate::diagnostic::{Span, line_column, nearest};
use crate::graph::outline::{Argument, Mounted, Outline};
use crate::progress::Silent;
use crate::recipe::Recipe;

/// The names of the methods.
const METHODS: [&str; 4] = ["build", "check", "outline", "targets"];

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Call {
    /// To build after all.
    Build,
    /// What is doubtful in the recipe.
    Check(Format),
    /// What the target takes.
    Outline(Format),
    /// Which stages there are.
    Targets(Format),
}

impl FromStr for Call {
    type Err = exit::Error;

    /// Reads `METHOD[,format=json]`.
    fn from_str(text: &str) -> Result<Self, exit::Error> {
        let mut format = Format::Text;
        let mut method = None;
        for field in text.split(',') {
            match field.split_once('=') {
                Some(("format", "json")) => format = Format::Json,
                Some(("format", "text")) => format = Format::Text,
                Some(_) => {
                    return Err(exit::Error::Usage(format!(
                        "--call {text}: {field:?} is not format=text or format=json"
                    )));
                }
                None if method.replace(field).is_some() => {
                    return Err(exit::Error::Usage(format!("--call {text} names two methods")));
                }
                None => {}
            }
        }
        match method.unwrap_or("build") {
            "build" => Ok(Self::Build),
            "check" | "lint" => Ok(Self::Check(format)),
            "outline" => Ok(Self::Outline(format)),
            "targets" => Ok(Self::Targets(format)),
            other => {
                let known = nearest(other, METHODS).map_or_else(
                    || format!("the methods are {}", METHODS.join(", ")),
                    |known| format!("did you mean {known}?"),
                );
                Err(exit::Error::Usage(format!("--call {other} is not supported; {known}")))
            }
        }
    }
}

impl Call {
    /// Prints the answer.
    pub(super) fn answer(self, request: &Request) -> Result<(), exit::Error> {
        let place = || workplace::open(Arc::new(Silent));
        match self {
            Self::Build => Ok(()),
            Self::Check(format) => check::findings(request, format),
            Self::Outline(format) => {
                let (recipe, outline) = build::outline(request, &place()?)?;
                match format {
                    Format::Text => print(&outline_text(&outline)),
                    Format::Json => print_json(&outline_document(&recipe, &outline)),
                }
            }
            Self::Targets(format) => {
                let recipe = build::targets(request, &place()?)?;
                match format {
                    Format::Text => print(&targets_text(&recipe)),
                    Format::Json => print_json(&targets_document(&recipe)),
                }
            }
        }
    }
}

fn row(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// As `docker build --call=outline` prints it: a table for each kind of thing there is.
fn outline_text(outline: &Outline) -> String {
    let mut tables = Vec::new();
    if outline.name.is_some() || outline.description.is_some() {
        let mut rows = vec![row(&["TARGET:", outline.name.as_deref().unwrap_or("(default)")])];
        rows.extend(outline.description.as_ref().map(|text| row(&["DESCRIPTION:", text])));
        tables.push(table(&rows));
    }
    if !outline.arguments.is_empty() {
        let mut rows = vec![row(&["BUILD ARG", "VALUE", "DESCRIPTION"])];
        rows.extend(outline.arguments.iter().map(|Argument { name, value, description, .. }| {
            row(&[name, value.as_deref().unwrap_or_default(), description.as_deref().unwrap_or_default()])
        }));
        tables.push(table(&rows));
    }
    for (title, mounted) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !mounted.is_empty() {
            let mut rows = vec![row(&[title, "REQUIRED"])];
            rows.extend(mounted.iter().map(|one| row(&[&one.id, if one.required { "true" } else { "" }])));
            tables.push(table(&rows));
        }
    }
    if !outline.caches.is_empty() {
        let mut rows = vec![row(&["CACHE MOUNT"])];
        rows.extend(outline.caches.iter().map(|one| row(&[&one.id])));
        tables.push(table(&rows));
    }
    tables.join("\n")
}

fn outline_document(recipe: &Recipe, outline: &Outline) -> Value {
    let place = |span| location(recipe, span);
    let mounted = |list: &[Mounted]| -> Value {
        list.iter()
            .map(|one| {
                let required = one.required.then_some(true);
                without_nulls(json!({ "name": one.id, "required": required, "location": place(one.span) }))
            })
            .collect()
    };
    let argument = |one: &Argument| {
        without_nulls(json!({
            "name": one.name,
            "value": one.value.as_ref().filter(|value| !value.is_empty()),
            "description": one.description,
            "location": place(one.span),
        }))
    };
    without_nulls(json!({
        "name": outline.name,
        "description": outline.description,
        "args": outline.arguments.iter().map(argument).collect::<Vec<_>>(),
        "secrets": mounted(&outline.secrets),
        "ssh": mounted(&outline.ssh),
        "sources": [check::encoded(&recipe.source)],
        "cache": outline.caches.iter().map(|one| json!({ "ID": one.id, "location": place(one.span) })).collect::<Value>(),
    }))
}

/// As `docker build --call=targets` prints it.
fn targets_text(recipe: &Recipe) -> String {
    let last = recipe.stages.len().saturating_sub(1);
    let mut rows = vec![row(&["TARGET", "DESCRIPTION"])];
    for (number, stage) in recipe.stages.iter().enumerate() {
        let name = stage.name.as_ref().map_or("", |name| &name.value);
        let name = match (name, number == last) {
            ("", true) => "(default)".to_owned(),
            (name, true) => format!("{name} (default)"),
            (name, false) => name.to_owned(),
        };
        rows.push(vec![name, stage.description.clone().unwrap_or_default()]);
    }
    table(&rows)
}

fn targets_document(recipe: &Recipe) -> Value {
    let last = recipe.stages.len().saturating_sub(1);
    let target = |(number, stage): (usize, &crate::recipe::Stage)| {
        without_nulls(json!({
            "name": stage.name.as_ref().map(|name| &name.value),
            "default": (number == last).then_some(true),
            "description": stage.description,
            "base": stage.base.value,
            "platform": stage.platform.as_ref().map(|word| &word.value),
            "location": location(recipe, stage.span),
        }))
    };
    json!({
        "targets": recipe.stages.iter().enumerate().map(target).collect::<Vec<_>>(),
        "sources": [check::encoded(&recipe.source)],
    })
}

/// A range for each line.
fn location(recipe: &Recipe, span: Span) -> Value {
    let line = |offset: usize| line_column(&recipe.source.text, offset).0;
    let lines = line(span.start)..=line(span.end);
    let ranges: Vec<Value> = lines.map(|line| json!({ "start": { "line": line }, "end": { "line": line } })).collect();
    json!({ "ranges": ranges })
}

fn without_nulls(mut document: Value) -> Value {
    if let Value::Object(fields) = &mut document {
        fields.retain(|_, value| !value.is_null());
    }
    document
}
