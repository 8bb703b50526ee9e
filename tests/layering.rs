//! Who may use whom: the rule that lets a reader follow one build from `main.rs` to the output without turning back.
//!
//! Each module of the crate may name only the modules its row lists. The rows stand in the order of `src/lib.rs`, and a
//! row may list only rows above it, so the graph of modules has no cycle.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

const RULE: &[(&str, &[&str])] = &[
    ("digest", &[]),
    ("diagnostic", &[]),
    ("progress", &[]),
    // How quantities are written is the same in recipes, settings and flags.
    ("units", &[]),
    ("limits", &["units"]),
    ("recipe", &["digest", "diagnostic", "units"]),
    ("image", &["digest", "recipe"]),
    ("graph", &["digest", "diagnostic", "recipe", "image"]),
    ("settings", &["diagnostic", "limits", "units"]),
    // Steps mount secrets, and fetches are authenticated by them.
    ("secret", &["diagnostic", "recipe"]),
    ("store", &["digest", "recipe", "image"]),
    // What is kept of builds is made of their events, and lies in the store.
    ("journal", &["progress", "store"]),
    ("registry", &["digest", "recipe", "image", "settings"]),
    ("layer", &["digest"]),
    ("context", &["digest", "layer"]),
    ("check", &["diagnostic", "recipe", "graph", "context"]),
    // Limits are plain values.
    ("runtime", &["limits"]),
    ("base", &["digest", "progress", "recipe", "image", "graph", "store", "registry", "layer", "runtime"]),
    // What is named by address is kept in the store, comes over the registry's connections, and is read as a context is.
    ("fetch", &["digest", "progress", "recipe", "secret", "store", "registry", "layer", "runtime"]),
    ("cache", &["digest", "recipe", "image", "graph", "store"]),
    // What is needed of a store depends on what the records of steps and of fetched trees name.
    ("collection", &["digest", "units", "store", "fetch", "cache"]),
    (
        "execute",
        // `diagnostic` for the nearest name of a file that is not there.
        &[
            "diagnostic",
            "digest",
            "progress",
            "units",
            "limits",
            "recipe",
            "image",
            "graph",
            "secret",
            "store",
            "layer",
            "context",
            "runtime",
            "base",
            "fetch",
        ],
    ),
    // Verifies what all of them have put into the store.
    (
        "fsck",
        &[
            "digest", "progress", "recipe", "image", "store", "journal", "layer", "context", "runtime", "base",
            "cache", "execute",
        ],
    ),
    // Explanations name lines of the recipe, times in words, and what files of a selection are.
    (
        "schedule",
        &[
            "digest",
            "diagnostic",
            "progress",
            "units",
            "recipe",
            "image",
            "graph",
            "store",
            "layer",
            "base",
            "cache",
            "fetch",
            "execute",
        ],
    ),
    ("export", &["digest", "diagnostic", "progress", "recipe", "image", "store", "layer", "base"]),
    (
        "build",
        &[
            "check",
            "digest",
            "diagnostic",
            "progress",
            "limits",
            "recipe",
            "image",
            "graph",
            "secret",
            "store",
            "journal",
            "registry",
            "layer",
            "context",
            "runtime",
            "base",
            "fetch",
            // What a build made is noted for the next one's explanations.
            "cache",
            "execute",
            "schedule",
            "export",
        ],
    ),
    (
        "cli",
        &[
            "check",
            "digest",
            "diagnostic",
            "progress",
            "units",
            "limits",
            "recipe",
            "image",
            "graph",
            "settings",
            "secret",
            "store",
            "journal",
            "registry",
            "layer",
            "runtime",
            "base",
            "collection",
            "execute",
            "fsck",
            "export",
            "build",
            "units",
        ],
    ),
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn rust_files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file: comments removed, and everything from the test module on.
fn code(text: &str) -> String {
    let text = text.split("\n#[cfg(test)]\nmod tests {").next().unwrap_or(text);
    text.lines().map(|line| line.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The modules named by `crate::x` and `crate::{x::…, y}`.
fn named(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (start, _) in code.match_indices("crate::") {
        if code[..start].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(heads(group)),
            None => names.extend(head(rest)),
        }
    }
    names
}

fn head(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// The first word of each item of a `{…}` group.
fn heads(group: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (1, Vec::new(), String::new());
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 || (depth == 1 && c == ',') {
            items.push(std::mem::take(&mut item));
            if depth == 0 {
                break;
            }
        } else {
            item.push(c);
        }
    }
    items.iter().filter_map(|item| head(item)).collect()
}

#[test]
fn modules_use_only_what_the_rule_allows() {
    let rule: BTreeMap<&str, BTreeSet<&str>> =
        RULE.iter().map(|(name, uses)| (*name, uses.iter().copied().collect())).collect();
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    assert!(files.len() > 30, "the sources were not found");
    let mut broken = Vec::new();
    for file in files {
        let relative = file.strip_prefix(source()).unwrap();
        let top = relative.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs");
        if matches!(top, "lib" | "main") {
            continue;
        }
        let Some(allowed) = rule.get(top) else {
            broken.push(format!("{}: the rule has no row for `{top}`", relative.display()));
            continue;
        };
        for name in named(&code(&fs::read_to_string(&file).unwrap())) {
            if rule.contains_key(name.as_str()) && name != top && !allowed.contains(name.as_str()) {
                broken.push(format!("{}: `{top}` may not use `{name}`", relative.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_rule_has_no_cycle() {
    let mut above = BTreeSet::new();
    for (name, uses) in RULE {
        for used in *uses {
            assert!(above.contains(used), "`{name}` stands above `{used}`, which it uses");
        }
        above.insert(*name);
    }
}

#[test]
fn every_file_says_what_it_is() {
    let mut files = Vec::new();
    rust_files(&source(), &mut files);
    let silent: Vec<_> = files
        .iter()
        .filter(|file| !file.ends_with("tests.rs") && !file.components().any(|part| part.as_os_str() == "tests"))
        .filter(|file| !fs::read_to_string(file).unwrap().starts_with("//!"))
        .collect();
    assert!(silent.is_empty(), "files without a first `//!` paragraph: {silent:?}");
}

#[test]
fn names_are_found_in_groups_and_alone() {
    let names = |code: &str| named(code).into_iter().collect::<Vec<_>>().join(" ");
    assert_eq!(names("use crate::a::{b, c}; use crate::{d::{x, y}, e}; crate::f::g(); $crate::h!()"), "a d e f");
}
