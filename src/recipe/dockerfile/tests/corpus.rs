//! Recipes on disk: those that must be accepted, and those that must be refused with these very words.

use std::fs;
use std::path::{Path, PathBuf};

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

#[test]
fn accepted_recipes_have_no_errors() {
    let recipes = recipes("accept");
    assert!(recipes.len() >= 40, "only {} recipes", recipes.len());
    for (name, path) in recipes {
        let (recipe, diagnostics) = parse(&source(&fs::read_to_string(&path).unwrap()));
        let errors: Vec<_> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
        assert!(errors.is_empty(), "{name}: {}", crate::diagnostic::render(&diagnostics, &recipe.source, false));
    }
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
