//! The regular expressions that moby/patternmatcher makes of ignore patterns, and a machine that runs them.
//!
//! Patterns of `.dockerignore` mean what the expression made of them means, odd cases included (`\d` is a digit, a `*` inside
//! a class ends the class). So the pattern is rewritten first, and the small part of Go's expression syntax that can come out
//! is then compiled to states that are followed all at once: no input makes it slow. Nothing else of that syntax is known here.

use super::{Class, decode};

/// What a pattern comes down to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Translation {
    /// Nothing special in it: the path equals the pattern.
    Exact,
    /// Only a `**` at its end: the path starts with the rest.
    Prefix,
    /// Only a `**` at its start: the path ends with the rest.
    Suffix,
    /// Anything else.
    Expression(String),
}

/// Rewrites a pattern the way patternmatcher does.
pub(super) fn translate(pattern: &str) -> Translation {
    let mut kind = Translation::Exact;
    let mut expression = String::from("^");
    let mut chars = pattern.chars().peekable();
    let mut at_start = true;
    let regular = || Translation::Expression(String::new());
    while let Some(next) = chars.next() {
        match next {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                if chars.peek().is_some() {
                    expression.push_str("(.*/)?");
                    kind = regular();
                } else if kind == Translation::Exact {
                    kind = Translation::Prefix;
                } else {
                    expression.push_str(".*");
                    kind = regular();
                }
                if at_start {
                    kind = Translation::Suffix;
                }
            }
            '*' => {
                expression.push_str("[^/]*");
                kind = regular();
            }
            '?' => {
                expression.push_str("[^/]");
                kind = regular();
            }
            '.' | '+' | '(' | ')' | '|' | '{' | '}' | '$' => expression.extend(['\\', next]),
            '\\' => {
                expression.push('\\');
                if let Some(quoted) = chars.next() {
                    expression.push(quoted);
                    kind = regular();
                }
            }
            '[' | ']' => {
                expression.push(next);
                kind = regular();
            }
            plain => expression.push(plain),
        }
        at_start = false;
    }
    match kind {
        Translation::Expression(_) => Translation::Expression(expression + "$"),
        simple => simple,
    }
}

/// A compiled expression.
#[derive(Debug, Clone)]
pub(super) struct Program {
    states: Vec<State>,
    /// Bytes that every match ends with: most paths fail here already.
    tail: Vec<u8>,
}

/// One state; reaching the number past the last state is a match.
#[derive(Debug, Clone)]
enum State {
    /// Takes one character and goes on.
    One(Set),
    /// Takes any number of characters.
    Many(Set),
    /// Goes on to `Directories` or past it.
    MaybeDirectories,
    /// Takes anything and may go on after each `/`.
    Directories,
    /// Takes nothing.
    Assert(Assertion),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Set {
    Rune(u32),
    Class(Class),
    /// `.`, which in Go stops at a line break.
    AnyButNewline,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Assertion {
    Start,
    WordBoundary,
    NoWordBoundary,
}

/// Set of states as bits.
type States = Vec<u64>;

impl Program {
    /// Compiles what [`translate`] gives.
    pub(super) fn new(expression: &str) -> Result<Self, &'static str> {
        let mut states = Vec::new();
        let body = expression.strip_prefix('^').unwrap_or(expression);
        let mut rest = body.strip_suffix('$').unwrap_or(body);
        while let Some(next) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("(.*/)?") {
                states.extend([State::MaybeDirectories, State::Directories]);
                rest = after;
                continue;
            }
            rest = &rest[next.len_utf8()..];
            let set = match next {
                '^' => {
                    states.push(State::Assert(Assertion::Start));
                    continue;
                }
                '.' => Set::AnyButNewline,
                '[' => {
                    let (class, after) = parse_class(rest)?;
                    rest = after;
                    Set::Class(class)
                }
                '\\' => {
                    let quoted = rest.chars().next().ok_or("a \\ at the end")?;
                    rest = &rest[quoted.len_utf8()..];
                    match escape(quoted)? {
                        Escape::Set(set) => set,
                        Escape::Assertion(assertion) => {
                            states.push(State::Assert(assertion));
                            continue;
                        }
                    }
                }
                plain => Set::Rune(u32::from(plain)),
            };
            states.push(match rest.strip_prefix('*') {
                Some(after) => {
                    rest = after;
                    State::Many(set)
                }
                None => State::One(set),
            });
        }
        let tail = literal_tail(&states);
        Ok(Self { states, tail })
    }

    pub(super) fn matches(&self, path: &[u8]) -> bool {
        if !path.ends_with(&self.tail) {
            return false;
        }
        let reached = self.run(path, false);
        contains(&reached, self.states.len())
    }

    /// Whether a match may start with `prefix` and go on after it.
    pub(super) fn may_continue(&self, prefix: &[u8]) -> bool {
        let reached = self.run(prefix, true);
        (0..self.states.len()).any(|state| contains(&reached, state))
    }

    /// The states reached after all of `text`; with `open`, more text may follow.
    fn run(&self, text: &[u8], open: bool) -> States {
        let words = self.states.len() / 64 + 1;
        let mut now: States = vec![0; words];
        let mut next: States = vec![0; words];
        let mut before = None;
        let mut rest = text;
        insert(&mut now, 0);
        loop {
            let head = decode(rest);
            let after = head.map(|(rune, _)| rune);
            self.spread(&mut now, before, after, open && head.is_none());
            let Some((rune, length)) = head else { return now };
            next.fill(0);
            for_each(&now, |state| self.take(state, rune, &mut next));
            std::mem::swap(&mut now, &mut next);
            if now.iter().all(|&word| word == 0) {
                return now;
            }
            before = after;
            rest = &rest[length..];
        }
    }

    /// Adds the states that can be reached without taking a character. All such steps lead forward, so one pass is enough.
    fn spread(&self, set: &mut States, before: Option<u32>, after: Option<u32>, unknown: bool) {
        for word in 0..set.len() {
            let mut pending = set[word];
            while pending != 0 {
                let state = word * 64 + pending.trailing_zeros() as usize;
                pending &= pending - 1;
                let steps: &[usize] = match self.states.get(state) {
                    Some(State::Many(_)) => &[1],
                    Some(State::MaybeDirectories) => &[1, 2],
                    Some(State::Assert(assertion)) if unknown || assertion.holds(before, after) => &[1],
                    _ => &[],
                };
                for step in steps {
                    let target = state + step;
                    if !contains(set, target) {
                        insert(set, target);
                        if target / 64 == word {
                            pending |= 1 << (target % 64);
                        }
                    }
                }
            }
        }
    }

    fn take(&self, state: usize, rune: u32, next: &mut States) {
        match self.states.get(state) {
            Some(State::One(set)) if set.contains(rune) => insert(next, state + 1),
            Some(State::Many(set)) if set.contains(rune) => insert(next, state),
            Some(State::Directories) if Set::AnyButNewline.contains(rune) => {
                insert(next, state);
                if rune == u32::from(b'/') {
                    insert(next, state + 1);
                }
            }
            _ => {}
        }
    }
}

impl Set {
    fn contains(&self, rune: u32) -> bool {
        match self {
            Self::Rune(own) => *own == rune,
            Self::Class(class) => class.contains(rune),
            Self::AnyButNewline => rune != u32::from(b'\n'),
        }
    }
}

impl Assertion {
    fn holds(self, before: Option<u32>, after: Option<u32>) -> bool {
        let word =
            |rune: Option<u32>| rune.and_then(char::from_u32).is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
        match self {
            Self::Start => before.is_none(),
            Self::WordBoundary => word(before) != word(after),
            Self::NoWordBoundary => word(before) == word(after),
        }
    }
}

fn insert(set: &mut States, state: usize) {
    set[state / 64] |= 1 << (state % 64);
}

fn contains(set: &States, state: usize) -> bool {
    set[state / 64] & (1 << (state % 64)) != 0
}

fn for_each(set: &States, mut action: impl FnMut(usize)) {
    for (word, &bits) in set.iter().enumerate() {
        let mut pending = bits;
        while pending != 0 {
            action(word * 64 + pending.trailing_zeros() as usize);
            pending &= pending - 1;
        }
    }
}

/// The ASCII text at the end of an expression; other characters are left to the machine, which reads broken UTF-8 as Go does.
fn literal_tail(states: &[State]) -> Vec<u8> {
    let mut tail: Vec<u8> = states
        .iter()
        .rev()
        .map_while(|state| match state {
            State::One(Set::Rune(rune)) => u8::try_from(*rune).ok().filter(u8::is_ascii),
            _ => None,
        })
        .collect();
    tail.reverse();
    tail
}

enum Escape {
    Set(Set),
    Assertion(Assertion),
}

/// What `\` and a character mean in Go's expressions. The few meanings that no file name can have been meant with are refused.
fn escape(quoted: char) -> Result<Escape, &'static str> {
    let single = |code: u32| Ok(Escape::Set(Set::Rune(code)));
    match quoted {
        'a' => single(7),
        't' => single(9),
        'n' => single(10),
        'v' => single(11),
        'f' => single(12),
        'r' => single(13),
        'b' => Ok(Escape::Assertion(Assertion::WordBoundary)),
        'B' => Ok(Escape::Assertion(Assertion::NoWordBoundary)),
        _ if quoted.is_ascii() && !quoted.is_ascii_alphanumeric() => single(u32::from(quoted)),
        _ => perl_class(quoted)
            .map(|class| Escape::Set(Set::Class(class)))
            .ok_or("a \\ before a letter or digit (use / between directories)"),
    }
}

fn perl_class(letter: char) -> Option<Class> {
    let ranges: &[(char, char)] = match letter.to_ascii_lowercase() {
        'd' => &[('0', '9')],
        's' => &[('\t', '\n'), ('\x0c', '\r'), (' ', ' ')],
        'w' => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        _ => return None,
    };
    Some(Class { negated: letter.is_ascii_uppercase(), ranges: numeric(ranges) })
}

fn numeric(ranges: &[(char, char)]) -> Vec<(u32, u32)> {
    ranges.iter().map(|&(low, high)| (u32::from(low), u32::from(high))).collect()
}

/// The ranges outside of some others, for `[\D]` and `[[:^digit:]]`.
fn complement(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut outside = Vec::new();
    let mut next = 0;
    for (low, high) in ranges {
        if low > next {
            outside.push((next, low - 1));
        }
        next = next.max(high + 1);
    }
    outside.push((next, u32::from(char::MAX)));
    outside
}

/// Reads a class of an expression after its `[`.
fn parse_class(text: &str) -> Result<(Class, &str), &'static str> {
    let unfinished = "a [ without its ]";
    let (negated, mut rest) = match text.strip_prefix('^') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    let mut first = true;
    loop {
        if let Some(after) = rest.strip_prefix(']').filter(|_| !first) {
            return Ok((Class { negated, ranges }, after));
        }
        first = false;
        if let Some((named, after)) = named_class(rest)? {
            ranges.extend(named);
            rest = after;
            continue;
        }
        if let Some(class) = rest.strip_prefix('\\').and_then(|rest| rest.chars().next()).and_then(perl_class) {
            ranges.extend(if class.negated { complement(class.ranges) } else { class.ranges });
            rest = &rest[2..];
            continue;
        }
        let (low, after) = class_rune(rest).ok_or(unfinished)??;
        let mut high = low;
        rest = after;
        if let Some(after) = rest.strip_prefix('-').filter(|after| !after.starts_with(']')) {
            (high, rest) = class_rune(after).ok_or(unfinished)??;
        }
        if high < low {
            return Err("a range that runs backwards");
        }
        ranges.push((low, high));
    }
}

fn class_rune(text: &str) -> Option<Result<(u32, &str), &'static str>> {
    let mut chars = text.chars();
    let rune = match chars.next()? {
        '\\' => match escape(chars.next()?) {
            Ok(Escape::Set(Set::Rune(rune))) => rune,
            Ok(_) => return Some(Err("a \\ before a letter that a class cannot hold")),
            Err(reason) => return Some(Err(reason)),
        },
        plain => u32::from(plain),
    };
    Some(Ok((rune, chars.as_str())))
}

type Ranges = Vec<(u32, u32)>;

/// Reads `[:name:]` inside a class, where there is one.
fn named_class(text: &str) -> Result<Option<(Ranges, &str)>, &'static str> {
    let Some((name, after)) = text.strip_prefix("[:").and_then(|rest| rest.split_once(":]")) else { return Ok(None) };
    let (negated, name) = match name.strip_prefix('^') {
        Some(name) => (true, name),
        None => (false, name),
    };
    let ranges: &[(char, char)] = match name {
        "alnum" => &[('0', '9'), ('A', 'Z'), ('a', 'z')],
        "alpha" => &[('A', 'Z'), ('a', 'z')],
        "ascii" => &[('\0', '\x7f')],
        "blank" => &[('\t', '\t'), (' ', ' ')],
        "cntrl" => &[('\0', '\x1f'), ('\x7f', '\x7f')],
        "digit" => &[('0', '9')],
        "graph" => &[('!', '~')],
        "lower" => &[('a', 'z')],
        "print" => &[(' ', '~')],
        "punct" => &[('!', '/'), (':', '@'), ('[', '`'), ('{', '~')],
        "space" => &[('\t', '\r'), (' ', ' ')],
        "upper" => &[('A', 'Z')],
        "word" => &[('0', '9'), ('A', 'Z'), ('_', '_'), ('a', 'z')],
        "xdigit" => &[('0', '9'), ('A', 'F'), ('a', 'f')],
        _ => return Err("a [:class:] that does not exist"),
    };
    let ranges = numeric(ranges);
    Ok(Some((if negated { complement(ranges) } else { ranges }, after)))
}
