//! What an ignore file hides, found by trying everything: slow, and for tests and fuzzing only.
//!
//! Takes clean patterns and a path, says whether the path is hidden. Follows the description of moby/patternmatcher and
//! shares no code with the matcher it judges. Knows `?`, `*`, `**`, classes of plain characters, and `\` before a
//! character that is no letter and no digit.

/// Whether a path, relative to the context's root, is hidden. A pattern is an exception, or not, and its text.
pub(crate) fn hides(patterns: &[(bool, String)], path: &str) -> bool {
    let mut matched_above = vec![false; patterns.len()];
    let mut hidden = false;
    let parts: Vec<&str> = path.split('/').collect();
    for depth in 1..=parts.len() {
        let prefix = parts[..depth].join("/");
        hidden = false;
        let mut matched_here = vec![false; patterns.len()];
        for (index, (exception, pattern)) in patterns.iter().enumerate() {
            if matched_above[index] || (*exception == hidden && matches(pattern, &prefix)) {
                matched_here[index] = true;
                hidden = !exception;
            }
        }
        matched_above = matched_here;
    }
    hidden
}

/// Whether one pattern matches the whole of a path.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let path: Vec<char> = path.chars().collect();
    let wild = |text: &[char]| text.iter().any(|c| matches!(c, '*' | '?' | '[' | ']' | '\\'));
    match &pattern[..] {
        // Three shapes are compared as texts, not as expressions; that shows in what `**` may stand for.
        [start @ .., '*', '*'] | [start @ .., '*', '*', '/'] if !wild(start) => path.starts_with(start),
        ['*', '*', end @ ..] if !end.is_empty() && !wild(end) => {
            path.ends_with(end) || end.strip_prefix(&['/']).is_some_and(|rest| rest == path)
        }
        all => tried(all, &path),
    }
}

fn tried(pattern: &[char], path: &[char]) -> bool {
    let one = |accepts: bool, rest: &[char]| accepts && tried(rest, &path[1..]);
    match pattern {
        [] => path.is_empty(),
        // At the end it takes everything; elsewhere nothing, or anything that ends in a slash.
        ['*', '*'] | ['*', '*', '/'] => !path.contains(&'\n'),
        ['*', '*', '/', rest @ ..] | ['*', '*', rest @ ..] => {
            tried(rest, path) || (0..path.len()).any(|at| path[at] == '/' && tried(rest, &path[at + 1..]))
        }
        ['*', rest @ ..] => tried(rest, path) || path.first().is_some_and(|c| *c != '/') && tried(pattern, &path[1..]),
        ['?', rest @ ..] => one(path.first().is_some_and(|c| *c != '/'), rest),
        ['\\', quoted, rest @ ..] => one(path.first() == Some(quoted), rest),
        ['[', class @ ..] => {
            let Some(end) = class.iter().position(|c| *c == ']') else { return false };
            let (negated, members) = match &class[..end] {
                ['^', members @ ..] => (true, members),
                members => (false, members),
            };
            one(path.first().is_some_and(|c| members.contains(c) != negated), &class[end + 1..])
        }
        [plain, rest @ ..] => one(path.first() == Some(plain), rest),
    }
}
