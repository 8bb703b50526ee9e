//! The patterns of `${x#p}`, `${x%p}` and `${x/p/r}`: text with `*` (anything) and `?` (one character).
//!
//! Takes a pattern and a value, gives the value trimmed or replaced. A pattern is run as a set of states over the
//! value, so no pattern can make it backtrack. As in BuildKit, `*` and `?` do not match a line break, and the
//! replacement of all matches is a template of Go's `regexp` package, in which `$0` is the match.

use super::Error;

/// One element of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Atom {
    Anything,
    One,
    Exactly(char),
}

/// A pattern, ready to be matched.
#[derive(Debug)]
pub(super) struct Pattern {
    atoms: Vec<Atom>,
    reversed: Vec<Atom>,
}

impl Pattern {
    /// Reads a pattern. `\` escapes `*`, `?` and itself; before `}` and `/`, where the surrounding syntax needs it,
    /// it vanishes; before anything else it is an error.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let mut atoms = Vec::with_capacity(text.len());
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            atoms.push(match character {
                '*' => Atom::Anything,
                '?' => Atom::One,
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Atom::Exactly(escaped),
                    other => {
                        let character = other.map_or_else(String::new, String::from);
                        return Err(Error::PatternEscape { pattern: text.to_owned(), character });
                    }
                },
                other => Atom::Exactly(other),
            });
        }
        let reversed = atoms.iter().rev().copied().collect();
        Ok(Self { atoms, reversed })
    }

    /// The value without the shortest or longest match at its start.
    pub(super) fn trim_start<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let matched = States::new(&self.atoms).run(value.chars(), longest);
        matched.map_or(value, |length| &value[length..])
    }

    /// The value without the shortest or longest match at its end.
    pub(super) fn trim_end<'v>(&self, value: &'v str, longest: bool) -> &'v str {
        let matched = States::new(&self.reversed).run(value.chars().rev(), longest);
        matched.map_or(value, |length| &value[..value.len() - length])
    }

    /// The value with its first, longest match replaced by exactly this text.
    pub(super) fn replace_first(&self, value: &str, replacement: &str) -> String {
        let starts = self.starts(value);
        match self.find(value, &starts, 0) {
            Some((start, end)) => [&value[..start], replacement, &value[end..]].concat(),
            None => value.to_owned(),
        }
    }

    /// The value with all its matches replaced, where `$0` and `${0}` in the template stand for the match, `$$` for a
    /// dollar sign and any other reference for nothing. `None` where the result would have more than `limit` bytes.
    pub(super) fn replace_all(&self, value: &str, template: &str, limit: usize) -> Option<String> {
        let starts = self.starts(value);
        let mut result = String::with_capacity(value.len());
        let mut copied = 0;
        let mut from = 0;
        while from <= value.len() {
            let Some((start, end)) = self.find(value, &starts, from) else { break };
            result.push_str(&value[copied..start]);
            // An empty match directly after another match does not count.
            if end > copied || start == 0 {
                fill_template(template, &value[start..end], limit, &mut result);
            }
            if result.len() > limit {
                return None;
            }
            copied = end;
            let width = value[from..].chars().next().map_or(1, char::len_utf8);
            from = end.max(from + width);
        }
        result.push_str(&value[copied..]);
        (result.len() <= limit).then_some(result)
    }

    /// The places of the value, in order, at which a match can start.
    fn starts(&self, value: &str) -> Vec<usize> {
        let mut states = States::new(&self.reversed);
        let mut starts = Vec::new();
        let mut at = value.len();
        let mut characters = value.chars().rev();
        loop {
            states.begin();
            if states.accepted() {
                starts.push(at);
            }
            let Some(character) = characters.next() else { break };
            states.step(character);
            at -= character.len_utf8();
        }
        starts.reverse();
        starts
    }

    /// The leftmost match that starts at `from` or later, as long as it can be.
    fn find(&self, value: &str, starts: &[usize], from: usize) -> Option<(usize, usize)> {
        let start = *starts.get(starts.partition_point(|start| *start < from))?;
        let length = States::new(&self.atoms).run(value[start..].chars(), true)?;
        Some((start, start + length))
    }
}

/// The states a pattern can be in: numbers of the atoms that come next.
struct States<'p> {
    atoms: &'p [Atom],
    now: Vec<usize>,
    then: Vec<usize>,
    /// For every state the generation in which it was last entered.
    entered: Vec<usize>,
    generation: usize,
}

impl<'p> States<'p> {
    fn new(atoms: &'p [Atom]) -> Self {
        Self { atoms, now: Vec::new(), then: Vec::new(), entered: vec![0; atoms.len() + 1], generation: 1 }
    }

    /// The length in bytes of the shortest or longest match at the start of these characters.
    fn run(&mut self, characters: impl Iterator<Item = char>, longest: bool) -> Option<usize> {
        self.begin();
        let mut best = None;
        let mut length = 0;
        for character in characters {
            if self.accepted() {
                best = Some(length);
                if !longest {
                    return best;
                }
            }
            if self.now.is_empty() {
                return best;
            }
            self.step(character);
            length += character.len_utf8();
        }
        if self.accepted() { Some(length) } else { best }
    }

    /// Also starts a match here.
    fn begin(&mut self) {
        let mut now = std::mem::take(&mut self.now);
        self.enter(0, &mut now);
        self.now = now;
    }

    fn accepted(&self) -> bool {
        self.entered[self.atoms.len()] == self.generation
    }

    fn step(&mut self, character: char) {
        self.generation += 1;
        let now = std::mem::take(&mut self.now);
        let mut then = std::mem::take(&mut self.then);
        then.clear();
        for &state in &now {
            match self.atoms.get(state) {
                Some(Atom::Anything) if character != '\n' => self.enter(state, &mut then),
                Some(Atom::One) if character != '\n' => self.enter(state + 1, &mut then),
                Some(Atom::Exactly(wanted)) if *wanted == character => self.enter(state + 1, &mut then),
                _ => {}
            }
        }
        self.now = then;
        self.then = now;
    }

    /// Enters a state and those that follow it without a character.
    fn enter(&mut self, mut state: usize, list: &mut Vec<usize>) {
        while self.entered[state] != self.generation {
            self.entered[state] = self.generation;
            list.push(state);
            if self.atoms.get(state) != Some(&Atom::Anything) {
                return;
            }
            state += 1;
        }
    }
}

/// Writes a template of Go's `regexp.Expand` for an expression without groups.
/// Appends the template, each reference in it replaced. Stops once the result has more than `limit` bytes.
fn fill_template(template: &str, matched: &str, limit: usize, result: &mut String) {
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('$') {
        result.push_str(before);
        if result.len() > limit {
            return;
        }
        rest = after;
        if let Some(after) = rest.strip_prefix('$') {
            result.push('$');
            rest = after;
            continue;
        }
        let name_starts = usize::from(rest.starts_with('{'));
        let name = &rest[name_starts..];
        let name = &name[..name.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(name.len())];
        let closed = name_starts == 0 || rest[name_starts + name.len()..].starts_with('}');
        if name.is_empty() || !closed {
            result.push('$');
            continue;
        }
        if name == "0" {
            result.push_str(matched);
        }
        rest = &rest[name_starts * 2 + name.len()..];
    }
    result.push_str(rest);
}
