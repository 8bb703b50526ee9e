//! Any bytes as an ignore file and a path, against a matcher that tries everything.
//!
//! Checked: no panic, whatever the bytes; and, with the bytes read as choices among the parts that patterns are made
//! of, that the verdict is the slow matcher's, and that a walk may skip what `may_show_below` lets it skip.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use strata::context::ignore::Ignore;

#[path = "../../src/context/ignore/tests/oracle.rs"]
mod oracle;

fuzz_target!(|bytes: &[u8]| {
    let Some((&kind, bytes)) = bytes.split_first() else { return };
    if kind % 4 == 0 {
        let at = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        let (file, path) = (&bytes[..at], String::from_utf8_lossy(bytes.get(at + 1..).unwrap_or(b"a/b")));
        if let Ok(ignore) = Ignore::parse("i", file) {
            let path = Path::new(path.trim_start_matches('/'));
            ignore.verdict(path);
            ignore.may_show_below(path);
            ignore.may_hide_below(path);
        }
        return;
    }
    let (patterns, path) = chosen(bytes);
    // The root itself is never hidden, and the slow matcher knows nothing of it.
    if path.is_empty() {
        return;
    }
    let file = patterns.iter().map(|(exception, pattern)| format!("{}{pattern}\n", if *exception { "!" } else { "" }));
    let file: String = file.collect();
    let ignore = Ignore::parse("i", file.as_bytes()).expect("every part is a pattern, and so are parts in a row");
    let hidden = ignore.verdict(Path::new(&path)).hidden_by.is_some();
    assert_eq!(hidden, oracle::hides(&patterns, &path), "{file:?} and {path:?}");
    for (at, _) in path.match_indices('/') {
        let above = Path::new(&path[..at]);
        if ignore.verdict(above).hidden_by.is_some() && !ignore.may_show_below(above) {
            assert!(hidden, "{file:?}: {above:?} would be skipped, with {path:?}");
        }
    }
});

/// Reads bytes as choices: patterns of up to eight parts, and a path of up to twelve characters.
fn chosen(bytes: &[u8]) -> (Vec<(bool, String)>, String) {
    const PARTS: &[&str] = &["a", "b", ".", "/", "*", "?", "**", "**/", "/**", "[ab]", "[^a]", "\\*", "é", "a/b", "+"];
    const PATH: &[&str] = &["a", "b", "/", ".", "*", "é", "/a", "+"];
    let mut bytes = bytes.iter();
    let mut next = |count: usize| bytes.next().map(|byte| usize::from(*byte) % count);
    let mut path = String::new();
    for _ in 0..next(12).unwrap_or(0) + 1 {
        path.push_str(PATH[next(PATH.len()).unwrap_or(0)]);
    }
    let path = path.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/");
    let mut patterns = Vec::new();
    while let Some(shape) = next(16)
        && patterns.len() < 6
    {
        let mut pattern = String::new();
        for _ in 0..=shape / 2 {
            pattern.push_str(PARTS[next(PARTS.len()).unwrap_or(0)]);
        }
        let pattern = pattern.split('/').filter(|part| !matches!(*part, "" | "." | "..")).collect::<Vec<_>>().join("/");
        if !pattern.is_empty() {
            patterns.push((shape % 2 == 1, pattern));
        }
    }
    (patterns, path)
}
