use proptest::prelude::*;

use super::*;

mod oracle;

fn hidden(ignore: &str, path: &str) -> Option<String> {
    Ignore::parse(".dockerignore", ignore.as_bytes()).unwrap().verdict(Path::new(path)).hidden_by.map(|p| p.text)
}

#[test]
fn verdicts() {
    for (ignore, path, expected) in [
        ("", "a", None),
        ("a", "a", Some("a")),
        ("a", "a/b", Some("a")),
        ("a", "b/a", None),
        ("**/a", "b/a/c", Some("**/a")),
        ("/a", "a", Some("/a")),
        ("a/", "a/b", Some("a/")),
        ("./a/../b//c", "b/c", Some("./a/../b//c")),
        (".", "a", None),
        ("/", "a", None),
        ("..", "a", None),
        ("../a", "a", None),
        ("*", "a/b", Some("*")),
        ("*\n!a", "a/b", None),
        ("*\n!a/b", "a/b/c", None),
        ("*\n!a/b", "a/c", Some("*")),
        ("*.md\n!README.md", "README.md", None),
        ("*.md\n!README*.md\nREADME-secret.md", "README-secret.md", Some("README-secret.md")),
        ("*.md\nREADME-secret.md\n!README*.md", "README-secret.md", None),
        ("!a\na", "a", Some("a")),
        ("a\n!a/b\na/b/c", "a/b/c", Some("a/b/c")),
        // The repeated pattern did not match the directory, which was hidden already, and does not match the path.
        ("a\n!a/b\na", "a/b", None),
        ("#a", "#a", None),
        (" #a", "#a", Some("#a")),
        ("  a  ", "a", Some("a")),
        ("a\r\nb\r\n", "b", Some("b")),
        ("\u{FEFF}a", "a", Some("a")),
        ("\u{FEFF}# note\nb", "b", Some("b")),
        ("*\n! a", "a", None),
        ("*\n!/a/", "a/b", None),
        ("*/temp*", "x/temporary/y", Some("*/temp*")),
        ("*/*/temp*", "x/temp", None),
        ("temp?", "tempa", Some("temp?")),
        ("a b", "a b", Some("a b")),
    ] {
        assert_eq!(hidden(ignore, path).as_deref(), expected, "{ignore:?} and {path:?}");
    }
}

#[test]
fn an_error_names_file_line_and_pattern() {
    for (ignore, message) in [
        ("ok\n[a\n", "x.dockerignore:2: invalid ignore pattern"),
        ("\n\n!\n", "x.dockerignore:3: invalid ignore pattern"),
        ("a\\", "x.dockerignore:1: invalid ignore pattern"),
    ] {
        let error = Ignore::parse("x.dockerignore", ignore.as_bytes()).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
}

#[test]
fn a_flag_keeps_its_leading_slash() {
    let flag = |patterns: &[&str], path: &str| {
        let ignore = Ignore::from_patterns("--exclude", patterns.iter().copied()).unwrap();
        ignore.verdict(Path::new(path)).hidden_by.is_some()
    };
    assert!(!flag(&["/a"], "a"));
    assert!(flag(&["a/"], "a/b"));
    assert!(!flag(&["*", "!a"], "a"));
    assert!(Ignore::from_patterns("--exclude", ["!"]).is_err());
}

#[test]
fn the_dockerfiles_own_file_wins() {
    let dir = tempfile::tempdir().unwrap();
    let dockerfile = dir.path().join("build/app.Dockerfile");
    std::fs::create_dir(dir.path().join("build")).unwrap();
    assert_eq!(locate(Some(&dockerfile), dir.path()).unwrap(), None);
    std::fs::write(dir.path().join(".dockerignore"), "").unwrap();
    assert_eq!(locate(Some(&dockerfile), dir.path()).unwrap(), Some(dir.path().join(".dockerignore")));
    let own = dir.path().join("build/app.Dockerfile.dockerignore");
    std::fs::write(&own, "").unwrap();
    assert_eq!(locate(Some(&dockerfile), dir.path()).unwrap(), Some(own));
}

/// Parts that patterns are made of; those of more than one character are where matchers go wrong.
fn pattern() -> impl Strategy<Value = (bool, String)> {
    let part = prop::sample::select(vec![
        "a", "b", "a", "b", "/", "/", "*", "?", "**", "**/", "/**", "[ab]", "[^a]", "\\*", "é", ".", "+", "a/b",
    ]);
    let text = prop::collection::vec(part, 1..7).prop_map(|parts| clean(&parts.concat()));
    let text = text.prop_map(|text| text.trim_start_matches('/').to_owned());
    (
        any::<bool>(),
        text.prop_filter("a pattern that is the root, or nothing", |text| !matches!(&**text, "" | "." | "..")),
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn verdict_equals_the_oracle_and_pruning_is_sound(
        patterns in prop::collection::vec(pattern(), 0..6),
        path in "[abé*+.]{1,3}(/[abé]{1,2}){0,3}",
    ) {
        let path = clean(&path);
        prop_assume!(!path.starts_with('.'));
        let lines = patterns.iter().map(|(exception, text)| format!("{}{text}", if *exception { "!" } else { "" }));
        let ignore = Ignore::parse("i", lines.collect::<Vec<_>>().join("\n").as_bytes()).unwrap();
        let verdict = ignore.verdict(Path::new(&path)).hidden_by.is_some();
        prop_assert_eq!(verdict, oracle::hides(&patterns, &path));
        for (at, _) in path.match_indices('/') {
            let above = Path::new(&path[..at]);
            if ignore.verdict(above).hidden_by.is_some() && !ignore.may_show_below(above) {
                prop_assert!(verdict, "{above:?} would be skipped");
            }
            if ignore.verdict(above).hidden_by.is_none() && !ignore.may_hide_below(above) {
                prop_assert!(!verdict, "{above:?} would be taken whole");
            }
        }
    }

    #[test]
    fn no_file_panics(text in any::<Vec<u8>>(), path in "[a-z/.]{0,12}") {
        if let Ok(ignore) = Ignore::parse("i", &text) {
            ignore.verdict(Path::new(&path));
        }
    }

    #[test]
    fn clean_is_stable(path in "[a./]{0,12}") {
        let once = clean(&path);
        prop_assert_eq!(clean(&once), once);
    }
}
