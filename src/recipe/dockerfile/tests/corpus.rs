//! Recipes on disk: those that must be accepted, compared with a second parser, and those that must be refused.

use std::fs;
use std::path::{Path, PathBuf};

use parse_dockerfile::Instruction as Other;

use super::*;

fn recipes(kind: &str) -> Vec<(String, PathBuf)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/recipes").join(kind);
    let entries = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path());
    let mut recipes: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "Dockerfile"))
        .map(|path| (path.file_stem().unwrap().to_string_lossy().into_owned(), path))
        .collect();
    recipes.sort();
    recipes
}

/// Recipes that the second parser does not read as BuildKit does, and why.
const TOLERATED: &[(&str, &str)] = &[
    ("double-backslash-end", "it takes the second of two escape characters for a continuation"),
    ("heredoc-mid-line", "it does not see a heredoc that is not the first word of a command"),
    ("heredoc-several", "it does not see a heredoc that is not the first word of a command"),
    ("run-empty", "it asks for an argument where the built-in frontend takes an empty command"),
];

fn keyword(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::Arg(_) => "ARG",
        Instruction::Env(_) => "ENV",
        Instruction::Label(_) => "LABEL",
        Instruction::Maintainer(_) => "MAINTAINER",
        Instruction::Run(_) => "RUN",
        Instruction::Copy(_) => "COPY",
        Instruction::Add(_) => "ADD",
        Instruction::Workdir(_) => "WORKDIR",
        Instruction::User(_) => "USER",
        Instruction::Cmd(_) => "CMD",
        Instruction::Entrypoint(_) => "ENTRYPOINT",
        Instruction::Expose(_) => "EXPOSE",
        Instruction::Volume(_) => "VOLUME",
        Instruction::StopSignal(_) => "STOPSIGNAL",
        Instruction::Shell(_) => "SHELL",
        Instruction::Healthcheck(_) => "HEALTHCHECK",
        Instruction::Onbuild(_) => "ONBUILD",
    }
}

fn other_keyword(instruction: &Other<'_>) -> &'static str {
    match instruction {
        Other::Arg(_) => "ARG",
        Other::Env(_) => "ENV",
        Other::Label(_) => "LABEL",
        Other::Maintainer(_) => "MAINTAINER",
        Other::Run(_) => "RUN",
        Other::Copy(_) => "COPY",
        Other::Add(_) => "ADD",
        Other::Workdir(_) => "WORKDIR",
        Other::User(_) => "USER",
        Other::Cmd(_) => "CMD",
        Other::Entrypoint(_) => "ENTRYPOINT",
        Other::Expose(_) => "EXPOSE",
        Other::Volume(_) => "VOLUME",
        Other::Stopsignal(_) => "STOPSIGNAL",
        Other::Shell(_) => "SHELL",
        Other::Healthcheck(_) => "HEALTHCHECK",
        Other::Onbuild(_) => "ONBUILD",
        Other::From(_) => "FROM",
        _ => "?",
    }
}

/// The keywords of a recipe in order, with bases and stage names, to be compared.
fn sequence(recipe: &Recipe) -> Vec<String> {
    let mut sequence: Vec<String> =
        recipe.global_args.iter().map(|step| keyword(&step.instruction).to_owned()).collect();
    for stage in &recipe.stages {
        sequence.push(format!("FROM {}", stage.base.value));
        sequence.extend(stage.steps.iter().map(|step| keyword(&step.instruction).to_owned()));
    }
    sequence
}

fn other_sequence(text: &str) -> Result<Vec<String>, String> {
    let recipe = parse_dockerfile::parse(text).map_err(|error| error.to_string())?;
    let instructions = recipe.instructions.iter().map(|instruction| match instruction {
        Other::From(from) => format!("FROM {}", from.image.value),
        other => other_keyword(other).to_owned(),
    });
    Ok(instructions.collect())
}

#[test]
fn accepted_recipes_are_read_as_a_second_parser_reads_them() {
    let recipes = recipes("accept");
    assert!(recipes.len() >= 40, "only {} recipes", recipes.len());
    let mut wrong = Vec::new();
    for (name, path) in recipes {
        let text = fs::read_to_string(&path).unwrap();
        let (recipe, diagnostics) = parse(&source(&text));
        let errors: Vec<_> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
        assert!(errors.is_empty(), "{name}: {}", crate::diagnostic::render(&diagnostics, &recipe.source, false));
        let ours = sequence(&recipe);
        let theirs = other_sequence(&text);
        let differs = theirs != Ok(ours.clone());
        match TOLERATED.iter().find(|(tolerated, _)| *tolerated == name) {
            Some((_, reason)) if !differs => wrong.push(format!("{name} is read alike by now, although {reason}")),
            None if differs => wrong.push(format!("{name}:\n  ours   {ours:?}\n  theirs {theirs:?}")),
            _ => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn refused_recipes_say_why() {
    let recipes = recipes("reject");
    assert!(recipes.len() >= 25, "only {} recipes", recipes.len());
    for (name, path) in recipes {
        let text = fs::read_to_string(&path).unwrap();
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap();
        let (recipe, diagnostics) = parse(&source(&text));
        let first: Vec<_> = diagnostics.into_iter().filter(Diagnostic::is_error).take(1).collect();
        assert_eq!(crate::diagnostic::render(&first, &recipe.source, false), expected, "{name}");
    }
}
