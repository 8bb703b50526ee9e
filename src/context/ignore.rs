//! Which files of a context a build does not see: the text of a `.dockerignore` in, a verdict for each path out.
//!
//! The rules are those of BuildKit: a pattern that matches a directory covers what is below it, `!` brings paths back, and the
//! last pattern that matches wins. They are applied as BuildKit applies them while it walks: whether a directory matched is
//! remembered on the way down ([`Inherited`]), which shows only in a pattern repeated after an exception to it. Never touches a
//! file, but for [`locate`], which looks for one.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::glob::{BadPattern, PathPattern};

/// What can be wrong with ignore patterns.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// A pattern is malformed.
    #[error("{file}:{line}: invalid ignore pattern")]
    Pattern {
        /// The file it stands in.
        file: String,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        #[source]
        source: BadPattern,
    },
}

/// The patterns of one ignore file, or of one flag.
#[derive(Debug, Clone, Default)]
pub struct Ignore {
    file: String,
    patterns: Vec<Pattern>,
}

#[derive(Debug, Clone)]
struct Pattern {
    line: usize,
    /// As written, without the space around it.
    text: String,
    /// Whether it brings paths back (`!`).
    exception: bool,
    path: PathPattern,
}

/// A pattern, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternRef {
    /// The file it stands in.
    pub file: String,
    /// Its line, from 1.
    pub line: usize,
    /// The pattern as written.
    pub text: String,
}

/// What the patterns say about a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// The pattern that hides it; `None` where it is visible.
    pub hidden_by: Option<PatternRef>,
}

/// Which patterns matched a directory or one above it: what its entries start from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inherited {
    matched: Vec<bool>,
}

/// The place of a pattern among its fellows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PatternIndex(usize);

impl Ignore {
    /// Reads an ignore file. `name` stands in messages.
    ///
    /// A byte order mark is skipped; a line that starts with `#` is a comment; space around a pattern does not count; `/` in front
    /// and behind, double `/`, `.` and `..` are cleaned away.
    ///
    /// # Errors
    /// A pattern is malformed, or `!` stands alone.
    pub fn parse(name: &str, text: &[u8]) -> Result<Self, Error> {
        let text = String::from_utf8_lossy(text.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(text));
        let mut patterns = Vec::new();
        for (index, line) in text.split('\n').enumerate() {
            let trimmed = line.trim();
            if line.starts_with('#') || trimmed.is_empty() {
                continue;
            }
            let fail = |source| Error::Pattern { file: name.to_owned(), line: index + 1, source };
            let (exception, pattern) = match trimmed.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, trimmed),
            };
            let cleaned = clean(pattern);
            let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
            patterns.push(Pattern::new(index + 1, trimmed, exception, relative, pattern.is_empty()).map_err(fail)?);
        }
        Ok(Self { file: name.to_owned(), patterns })
    }

    /// Whether one of the patterns is for everything at the root of the context.
    pub fn hides_everything(&self) -> bool {
        self.patterns.iter().any(|pattern| !pattern.exception && matches!(&*pattern.text, "*" | "**" | "**/*"))
    }

    /// Takes patterns as a flag gives them (`--exclude`): `!` counts, and a `/` in front is *not* dropped, so that such a
    /// pattern matches nothing. `name` stands in messages; the line is the place in the list.
    ///
    /// # Errors
    /// A pattern is malformed, or `!` stands alone.
    pub fn from_patterns<'p>(name: &str, patterns: impl IntoIterator<Item = &'p str>) -> Result<Self, Error> {
        let mut compiled = Vec::new();
        for (index, pattern) in patterns.into_iter().enumerate() {
            let trimmed = pattern.trim();
            if trimmed.is_empty() {
                continue;
            }
            let fail = |source| Error::Pattern { file: name.to_owned(), line: index + 1, source };
            let cleaned = clean(trimmed);
            let (exception, text) = match cleaned.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, cleaned.as_str()),
            };
            compiled.push(Pattern::new(index + 1, trimmed, exception, text, text.is_empty()).map_err(fail)?);
        }
        Ok(Self { file: name.to_owned(), patterns: compiled })
    }

    /// Whether there are no patterns, so that nothing is hidden.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether a pattern brings paths back (`!`).
    pub fn has_exceptions(&self) -> bool {
        self.patterns.iter().any(|pattern| pattern.exception)
    }

    /// What the patterns say about a path, relative to the context's root. The root is never hidden.
    pub fn verdict(&self, path: &Path) -> Verdict {
        let mut inherited = Inherited::default();
        let mut hidden_by = None;
        let mut at = PathBuf::new();
        for component in path.components() {
            at.push(component);
            (hidden_by, inherited) = self.enter(&inherited, &at);
        }
        Verdict { hidden_by: hidden_by.map(|index| self.pattern(index)) }
    }

    /// Says which pattern hides the directory `path`, if any, and what its entries inherit. `inherited` is what the directory
    /// that holds it gave; the default for entries of the root.
    pub fn enter(&self, inherited: &Inherited, path: &Path) -> (Option<PatternIndex>, Inherited) {
        let mut matched = vec![false; self.patterns.len()];
        let hidden_by = self.evaluate(inherited, path, |index| matched[index] = true);
        (hidden_by, Inherited { matched })
    }

    /// Says which pattern hides `path`, if any; like [`Ignore::enter`] for what is not a directory.
    pub fn hides(&self, inherited: &Inherited, path: &Path) -> Option<PatternIndex> {
        self.evaluate(inherited, path, |_| {})
    }

    /// Whether something below the hidden directory `path` could be visible. A walk may skip the directory where this is
    /// `false`.
    ///
    /// Sound because a path below is judged by the patterns that matched the directory, whose last one hides, and by those that
    /// match the path or a directory in between: only an exception among the latter can show it.
    pub fn may_show_below(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.patterns.iter().any(|pattern| pattern.exception && pattern.path.may_match_below(path))
    }

    /// Whether a pattern that hides could match something below `path`.
    pub fn may_hide_below(&self, path: &Path) -> bool {
        let path = path.as_os_str().as_bytes();
        self.patterns.iter().any(|pattern| !pattern.exception && pattern.path.may_match_below(path))
    }

    /// A pattern, for people.
    pub fn pattern(&self, index: PatternIndex) -> PatternRef {
        let pattern = &self.patterns[index.0];
        PatternRef { file: self.file.clone(), line: pattern.line, text: pattern.text.clone() }
    }

    fn evaluate(&self, inherited: &Inherited, path: &Path, mut note: impl FnMut(usize)) -> Option<PatternIndex> {
        let path = path.as_os_str().as_bytes();
        let mut hidden_by = None;
        for (index, pattern) in self.patterns.iter().enumerate() {
            let from_above = inherited.matched.get(index).copied().unwrap_or(false);
            // A pattern that would not change the verdict is not tried, as in BuildKit.
            let useful = pattern.exception == hidden_by.is_some();
            if from_above || (useful && pattern.path.matches(path)) {
                note(index);
                hidden_by = (!pattern.exception).then_some(PatternIndex(index));
            }
        }
        hidden_by
    }
}

impl Pattern {
    fn new(line: usize, text: &str, exception: bool, pattern: &str, empty: bool) -> Result<Self, BadPattern> {
        if empty {
            return Err(BadPattern { pattern: text.to_owned(), reason: "nothing after !" });
        }
        Ok(Self { line, text: text.to_owned(), exception, path: PathPattern::new(pattern)? })
    }
}

/// Finds the ignore file of a context: `<Dockerfile>.dockerignore` beside the Dockerfile, else `.dockerignore` in the context.
/// The two do not merge.
///
/// # Errors
/// Whether one of them exists cannot be told.
pub fn locate(dockerfile: Option<&Path>, context: &Path) -> io::Result<Option<PathBuf>> {
    let own = dockerfile.map(|path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".dockerignore");
        PathBuf::from(name)
    });
    for candidate in own.into_iter().chain([context.join(".dockerignore")]) {
        if candidate.try_exists()? {
            return Ok(Some(candidate));
        }
    }
    Ok(None)
}

/// The shortest path that means the same without looking at a file: Go's `path.Clean`.
pub(crate) fn clean(path: &str) -> String {
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    let joined = parts.join("/");
    match (rooted, joined.is_empty()) {
        (true, _) => format!("/{joined}"),
        (false, true) => ".".to_owned(),
        (false, false) => joined,
    }
}

#[cfg(test)]
mod tests;
