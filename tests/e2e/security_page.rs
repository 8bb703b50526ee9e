//! `docs/security.md` claims nothing that no test shows: every test it names exists.

use std::fs;
use std::path::{Path, PathBuf};

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
        if entry.file_type().unwrap().is_dir() {
            rust_files(&entry.path(), found);
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            found.push(entry.path());
        }
    }
}

/// Tests are named as [`function_name`] in the page, in brackets and backticks.
#[test]
fn every_test_that_the_security_page_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut files = Vec::new();
    rust_files(&root.join("src"), &mut files);
    rust_files(&root.join("tests"), &mut files);
    let code: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    let named: Vec<&str> =
        page.split("[`").skip(1).filter_map(|rest| rest.split_once("`]")).map(|(name, _)| name).collect();
    assert!(named.len() > 20, "the page names {} tests", named.len());
    let missing: Vec<_> = named.iter().filter(|name| !code.contains(&format!("fn {name}("))).collect();
    assert!(missing.is_empty(), "docs/security.md names tests that are not there: {missing:?}");
    // A claim without a test says so.
    let claims = page.lines().skip_while(|line| *line != "## What is defended").skip(1);
    for claim in claims.take_while(|line| !line.starts_with("## ")).filter(|line| line.starts_with("- ")) {
        assert!(claim.contains("[`"), "no test shows this claim: {claim}");
    }
}
