//! Wildcards in names of files: text in, a matcher out.
//!
//! [`Glob`] is Go's `filepath.Match`, which `COPY` and `ADD` sources follow; [`PathPattern`] is the dialect of
//! `.dockerignore`, `--exclude` and `--parents`, which adds `**` and turns a pattern into a regular expression before it
//! matches. The two agree on common patterns and differ on odd ones, so each has its own matcher here. Both work on the bytes
//! of a path, in time proportional to pattern times path, and neither ever looks at a file.

mod regular;

use regular::Program;

/// A pattern is malformed.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{reason} in the pattern {pattern:?}")]
pub struct BadPattern {
    /// The pattern as it was given.
    pub pattern: String,
    /// What is wrong with it, such as `a [ without its ]`.
    pub reason: &'static str,
}

/// A set of characters given as ranges, both ends included.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Class {
    negated: bool,
    ranges: Vec<(u32, u32)>,
}

impl Class {
    fn contains(&self, rune: u32) -> bool {
        self.ranges.iter().any(|&(low, high)| low <= rune && rune <= high) != self.negated
    }
}

/// A pattern as Go's `filepath.Match` reads it: `*` and `?` stop at `/`, `[a-z]` and `[^a]` are classes, `\` quotes.
///
/// The whole path has to match. As in Go, `*` takes as little as it can and never gives back, which shows only where a class
/// can match `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    chunks: Vec<Chunk>,
}

/// The part of a [`Glob`] up to the next `*`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Chunk {
    /// Whether a `*` stands before it.
    star: bool,
    elements: Vec<Element>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Element {
    Byte(u8),
    AnyButSlash,
    Class(Class),
}

impl Glob {
    /// Compiles a pattern.
    ///
    /// # Errors
    /// The pattern ends inside a class or after `\`, or a class is empty or has a malformed range.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let fail = |reason| BadPattern { pattern: pattern.to_owned(), reason };
        let mut chunks = Vec::new();
        let mut chunk = Chunk::default();
        let mut rest = pattern;
        while let Some(first) = rest.chars().next() {
            rest = &rest[first.len_utf8()..];
            match first {
                '*' => {
                    if !chunk.elements.is_empty() {
                        chunks.push(std::mem::take(&mut chunk));
                    }
                    chunk.star = true;
                }
                '?' => chunk.elements.push(Element::AnyButSlash),
                '[' => {
                    let (class, after) = parse_class(rest).map_err(fail)?;
                    chunk.elements.push(Element::Class(class));
                    rest = after;
                }
                '\\' => {
                    let quoted = rest.chars().next().ok_or_else(|| fail("a \\ at the end"))?;
                    push_bytes(&mut chunk.elements, quoted);
                    rest = &rest[quoted.len_utf8()..];
                }
                plain => push_bytes(&mut chunk.elements, plain),
            }
        }
        if chunk.star || !chunk.elements.is_empty() {
            chunks.push(chunk);
        }
        Ok(Self { chunks })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        let mut name = path;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let last = index + 1 == self.chunks.len();
            if chunk.star && chunk.elements.is_empty() {
                return !name.contains(&b'/');
            }
            match chunk.find(name, last) {
                Some(rest) => name = rest,
                None => return false,
            }
        }
        name.is_empty()
    }

    /// Whether some class of the pattern matches `/`, so that a match may have more components than the pattern.
    pub fn may_cross_directories(&self) -> bool {
        self.chunks
            .iter()
            .flat_map(|chunk| &chunk.elements)
            .any(|element| matches!(element, Element::Class(class) if class.contains(u32::from(b'/'))))
    }

    /// Whether a text has a character that makes it a pattern. A quoted one does not count.
    pub fn has_wildcards(text: &str) -> bool {
        let mut bytes = text.bytes();
        while let Some(byte) = bytes.next() {
            match byte {
                b'*' | b'?' | b'[' => return true,
                b'\\' => {
                    bytes.next();
                }
                _ => {}
            }
        }
        false
    }
}

impl Chunk {
    /// What remains of `name` after the first place where the chunk matches.
    fn find<'n>(&self, name: &'n [u8], last: bool) -> Option<&'n [u8]> {
        let accepts = |rest: &&'n [u8]| !last || rest.is_empty();
        if let Some(rest) = self.match_here(name).filter(accepts) {
            return Some(rest);
        }
        if !self.star {
            return None;
        }
        let reach = name.iter().position(|&byte| byte == b'/').unwrap_or(name.len());
        (1..=reach).find_map(|skipped| self.match_here(&name[skipped..]).filter(accepts))
    }

    fn match_here<'n>(&self, mut name: &'n [u8]) -> Option<&'n [u8]> {
        for element in &self.elements {
            let (rune, length) = decode(name)?;
            let taken = match element {
                Element::Byte(byte) => (name[0] == *byte).then_some(1),
                Element::AnyButSlash => (name[0] != b'/').then_some(length),
                Element::Class(class) => class.contains(rune).then_some(length),
            }?;
            name = &name[taken..];
        }
        Some(name)
    }
}

fn push_bytes(elements: &mut Vec<Element>, plain: char) {
    elements.extend(plain.encode_utf8(&mut [0; 4]).bytes().map(Element::Byte));
}

/// Reads a class after its `[`, by Go's rules; gives it and the text after its `]`.
fn parse_class(text: &str) -> Result<(Class, &str), &'static str> {
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !ranges.is_empty()) {
            return Ok((Class { negated, ranges }, after));
        }
        let (low, after) = class_character(rest)?;
        let mut high = low;
        rest = after;
        if let Some(after) = rest.strip_prefix('-') {
            (high, rest) = class_character(after)?;
        }
        ranges.push((u32::from(low), u32::from(high)));
    }
}

fn class_character(text: &str) -> Result<(char, &str), &'static str> {
    let unfinished = "a [ without its ]";
    let mut chars = text.chars();
    let character = match chars.next().ok_or(unfinished)? {
        '-' => return Err("a - that belongs to no range"),
        ']' => return Err("an empty range or class"),
        '\\' => chars.next().ok_or(unfinished)?,
        plain => plain,
    };
    let rest = chars.as_str();
    // Go refuses a class that ends the pattern before its `]` here already.
    if rest.is_empty() { Err(unfinished) } else { Ok((character, rest)) }
}

/// The first character of some bytes and its length; a byte that is not UTF-8 counts as U+FFFD, as in Go.
fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let first = *bytes.first()?;
    if first.is_ascii() {
        return Some((u32::from(first), 1));
    }
    let head = &bytes[..bytes.len().min(4)];
    let valid = match std::str::from_utf8(head) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((0xFFFD, 1), |character| (u32::from(character), character.len_utf8())))
}

/// A pattern as `.dockerignore` reads it (moby/patternmatcher): like [`Glob`], and `**` stands for any number of directories.
///
/// It matches the path itself; that a match hides everything below is the affair of [`super::ignore::Ignore`].
#[derive(Debug, Clone)]
pub struct PathPattern {
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    Exact(Vec<u8>),
    Prefix(Vec<u8>),
    Suffix(Vec<u8>),
    Program(Program),
}

impl PathPattern {
    /// Compiles a pattern that is clean already: no leading, trailing or double `/`, no `.` or `..` inside.
    ///
    /// # Errors
    /// It is not a pattern by the rules of [`Glob`], or `\` stands before a letter or digit that a regular expression gives
    /// no meaning.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        Glob::new(pattern)?;
        let form = match regular::translate(pattern) {
            regular::Translation::Exact => Form::Exact(pattern.into()),
            regular::Translation::Prefix => Form::Prefix(pattern[..pattern.len() - 2].into()),
            regular::Translation::Suffix => Form::Suffix(pattern[2..].into()),
            regular::Translation::Expression(expression) => Form::Program(
                Program::new(&expression).map_err(|reason| BadPattern { pattern: pattern.to_owned(), reason })?,
            ),
        };
        Ok(Self { form })
    }

    /// Whether the whole of `path` matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        match &self.form {
            Form::Exact(text) => path == text,
            Form::Prefix(text) => path.starts_with(text),
            Form::Suffix(text) => path.ends_with(text) || text.strip_prefix(b"/").is_some_and(|rest| path == rest),
            Form::Program(program) => program.matches(path),
        }
    }

    /// Whether some path below the directory `dir` could match. Never wrongly `false`.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        if dir.is_empty() {
            return true;
        }
        let inside = [dir, b"/"].concat();
        match &self.form {
            Form::Exact(text) => text.starts_with(&inside),
            Form::Prefix(text) => text.starts_with(&inside) || inside.starts_with(text),
            Form::Suffix(_) => true,
            Form::Program(program) => program.may_continue(&inside),
        }
    }
}

#[cfg(test)]
mod tests;
