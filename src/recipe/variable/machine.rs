//! Reading one word: quotes, escapes and substitutions, from its first character to its last.
//!
//! Takes a word, the rules and the variables in scope, gives the text meant and what its blanks mean. Nesting is kept on a
//! stack of its own, so that no word can be too deep.

use super::{Error, Expander, LIMIT, Scope, pattern};

/// `-`, `+`, `?`, `#`, `%`, or something that is refused once its word has been read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Default,
    Alternative,
    Require,
    TrimStart,
    TrimEnd,
    Other(char),
}

/// A substitution whose end has not been read yet.
#[derive(Debug)]
struct Open {
    name: String,
    value: Option<String>,
    /// Where in the output its word begins.
    mark: usize,
    /// What `keep_escapes` was outside of it.
    outer_escapes: bool,
    rest: Rest,
}

/// What is being read of an [`Open`] substitution.
#[derive(Debug)]
enum Rest {
    /// The word after an operator; `colon` says that an empty value counts as unset.
    Word { operator: Operator, colon: bool },
    /// The pattern of `${x/pattern/replacement}`.
    Pattern { all: bool },
    /// Its replacement.
    Replacement { all: bool, pattern: String },
}

#[derive(Debug)]
enum Frame {
    /// Inside double quotes; `mark` is where the output stood before them.
    Quote {
        mark: usize,
    },
    Substitution(Box<Open>),
}

/// The state of one expansion: an explicit stack in place of recursion, one output buffer for all levels.
pub(super) struct Machine<'a> {
    input: &'a str,
    at: usize,
    rules: Expander,
    scope: &'a Scope<'a>,
    keep_escapes: bool,
    /// What is meant, as far as it has been read.
    pub(super) output: String,
    /// Where in it blanks do not split.
    pub(super) protected: Vec<std::ops::Range<usize>>,
    /// The names that were asked for and are not set.
    pub(super) unset: Vec<String>,
    frames: Vec<Frame>,
    /// How many bytes values and replacements brought in so far.
    taken: usize,
}

impl<'a> Machine<'a> {
    /// Begins with a word.
    pub(super) fn new(input: &'a str, rules: Expander, scope: &'a Scope<'a>) -> Self {
        Self {
            input,
            at: 0,
            rules,
            scope,
            keep_escapes: rules.keep_escapes,
            output: String::with_capacity(input.len()),
            protected: Vec::new(),
            unset: Vec::new(),
            frames: Vec::new(),
            taken: 0,
        }
    }

    /// Reads it to its end.
    pub(super) fn run(&mut self) -> Result<(), Error> {
        while let Some(character) = self.next() {
            match self.frames.last() {
                Some(Frame::Quote { .. }) => self.in_quotes(character)?,
                Some(Frame::Substitution(open)) => {
                    let stop = if matches!(open.rest, Rest::Pattern { .. }) { '/' } else { '}' };
                    if character == stop { self.close()? } else { self.in_text(character)? }
                }
                None => self.in_text(character)?,
            }
        }
        match self.frames.pop() {
            None => Ok(()),
            Some(Frame::Quote { .. }) => Err(Error::UnclosedQuote { quote: '"' }),
            Some(Frame::Substitution(open)) if matches!(open.rest, Rest::Pattern { .. }) => {
                Err(Error::MissingSlash { name: open.name })
            }
            Some(Frame::Substitution(open)) => Err(Error::Unclosed { name: open.name }),
        }
    }

    fn peek(&self) -> Option<char> {
        self.input[self.at..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let character = self.peek()?;
        self.at += character.len_utf8();
        Some(character)
    }

    /// One character outside double quotes.
    fn in_text(&mut self, character: char) -> Result<(), Error> {
        match character {
            '$' => return self.dollar(),
            '"' if !self.rules.ignore_quotes => {
                self.frames.push(Frame::Quote { mark: self.output.len() });
                if self.rules.keep_quotes {
                    self.output.push('"');
                }
            }
            '\'' if !self.rules.ignore_quotes => return self.single_quotes(),
            _ if character == self.rules.escape => {
                let mark = self.output.len();
                if self.keep_escapes {
                    self.output.push(character);
                }
                // An escape character at the very end escapes nothing and is dropped.
                if let Some(escaped) = self.next() {
                    self.output.push(escaped);
                }
                self.protect(mark);
            }
            '<' if self.rules.join_heredocs && self.peek() == Some('<') => {
                let mark = self.output.len();
                self.output.push_str("<<");
                self.at += '<'.len_utf8();
                while let Some(blank) = self.peek().filter(|next| matches!(next, ' ' | '\t')) {
                    self.output.push(blank);
                    self.at += blank.len_utf8();
                }
                self.protect(mark);
            }
            _ => self.output.push(character),
        }
        Ok(())
    }

    /// One character inside double quotes, where only `"`, `$` and the escape character can be escaped.
    fn in_quotes(&mut self, character: char) -> Result<(), Error> {
        match character {
            '"' => {
                if self.rules.keep_quotes {
                    self.output.push('"');
                }
                if let Some(Frame::Quote { mark }) = self.frames.pop() {
                    self.protect(mark);
                }
            }
            '$' => return self.dollar(),
            _ if character == self.rules.escape => {
                if self.keep_escapes {
                    self.output.push(character);
                }
                match self.peek() {
                    Some(escaped) if escaped == '"' || escaped == '$' || escaped == character => {
                        self.at += escaped.len_utf8();
                        self.output.push(escaped);
                    }
                    Some(_) => self.output.push(character),
                    None => {}
                }
            }
            _ => self.output.push(character),
        }
        Ok(())
    }

    fn single_quotes(&mut self) -> Result<(), Error> {
        let rest = &self.input[self.at..];
        let length = rest.find('\'').ok_or(Error::UnclosedQuote { quote: '\'' })?;
        let mark = self.output.len();
        if self.rules.keep_quotes {
            self.output.push('\'');
        }
        self.output.push_str(&rest[..length]);
        if self.rules.keep_quotes {
            self.output.push('\'');
        }
        self.at += length + 1;
        self.protect(mark);
        Ok(())
    }

    /// Notes that the output since `mark` does not split. Only the outermost level counts: what a substitution
    /// yields is split wherever it has blanks.
    fn protect(&mut self, mark: usize) {
        if self.frames.is_empty() && mark < self.output.len() {
            self.protected.push(mark..self.output.len());
        }
    }

    /// After a `$`.
    fn dollar(&mut self) -> Result<(), Error> {
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                self.output.push('$');
            } else if let Some(value) = self.look_up(&name)? {
                self.output.push_str(&value);
            } else if self.rules.keep_unset {
                self.output.push('$');
                self.output.push_str(&name);
            }
            return Ok(());
        }
        self.at += 1;
        if matches!(self.peek(), Some('{' | '}' | ':')) {
            return Err(Error::BadSubstitution);
        }
        let name = self.name();
        let Some(character) = self.next() else { return Err(Error::Unclosed { name }) };
        match character {
            '}' => {
                match self.look_up(&name)? {
                    Some(value) => self.output.push_str(&value),
                    None if self.rules.keep_unset => self.output.extend(["${", &name, "}"]),
                    None => {}
                }
                Ok(())
            }
            ':' => match self.next() {
                None => Err(Error::Unclosed { name }),
                Some(sign @ ('#' | '%')) => Err(Error::UnsupportedModifier { name, modifier: format!(":{sign}") }),
                Some('-') => self.open(name, Rest::Word { operator: Operator::Default, colon: true }, ":-"),
                Some('+') => self.open(name, Rest::Word { operator: Operator::Alternative, colon: true }, ":+"),
                Some('?') => self.open(name, Rest::Word { operator: Operator::Require, colon: true }, ":?"),
                Some(sign) => {
                    let written = format!(":{sign}");
                    self.open(name, Rest::Word { operator: Operator::Other(sign), colon: true }, &written)
                }
            },
            '-' => self.open(name, Rest::Word { operator: Operator::Default, colon: false }, "-"),
            '+' => self.open(name, Rest::Word { operator: Operator::Alternative, colon: false }, "+"),
            '?' => self.open(name, Rest::Word { operator: Operator::Require, colon: false }, "?"),
            '#' => self.open(name, Rest::Word { operator: Operator::TrimStart, colon: false }, "#"),
            '%' => self.open(name, Rest::Word { operator: Operator::TrimEnd, colon: false }, "%"),
            '/' => {
                let all = self.peek() == Some('/');
                if all {
                    self.at += 1;
                }
                self.open(name, Rest::Pattern { all }, "/")
            }
            other => Err(Error::UnsupportedModifier { name, modifier: other.to_string() }),
        }
    }

    /// Reads a variable's name: letters, digits and `_`; or only digits; or one of the shell's special parameters.
    fn name(&mut self) -> String {
        let rest = &self.input[self.at..];
        let length = match rest.chars().next() {
            Some('0'..='9') => rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()),
        };
        self.at += length;
        rest[..length].to_owned()
    }

    fn look_up(&mut self, name: &str) -> Result<Option<String>, Error> {
        let value = (self.scope)(name);
        match &value {
            Some(value) => self.take(value.len())?,
            None => self.unset.push(name.to_owned()),
        }
        Ok(value)
    }

    /// Counts bytes that were not written in the word itself.
    fn take(&mut self, bytes: usize) -> Result<(), Error> {
        self.taken = self.taken.saturating_add(bytes);
        if self.taken > LIMIT { Err(Error::TooLong) } else { Ok(()) }
    }

    /// Begins a substitution that has a word, a pattern or a replacement to read first.
    fn open(&mut self, name: String, rest: Rest, written: &str) -> Result<(), Error> {
        let value = self.look_up(&name)?;
        if value.is_none() && self.rules.keep_unset {
            // The substitution stays as written, so its parts are read straight into their final place.
            self.output.extend(["${", &name, written]);
        }
        let outer_escapes = self.keep_escapes;
        self.keep_escapes = match rest {
            Rest::Word { operator, .. } => matches!(operator, Operator::TrimStart | Operator::TrimEnd),
            Rest::Pattern { .. } | Rest::Replacement { .. } => true,
        };
        let mark = self.output.len();
        self.frames.push(Frame::Substitution(Box::new(Open { name, value, mark, outer_escapes, rest })));
        Ok(())
    }

    /// At the `}` or `/` that the innermost substitution was waiting for.
    fn close(&mut self) -> Result<(), Error> {
        let Some(Frame::Substitution(mut open)) = self.frames.pop() else { return Ok(()) };
        if open.value.is_none() && self.rules.keep_unset {
            if let Rest::Pattern { all } = open.rest {
                self.output.push('/');
                open.rest = Rest::Replacement { all, pattern: String::new() };
                self.frames.push(Frame::Substitution(open));
            } else {
                self.output.push('}');
                self.keep_escapes = open.outer_escapes;
            }
            return Ok(());
        }
        if let Rest::Pattern { all } = open.rest {
            let pattern = self.output.split_off(open.mark);
            open.rest = Rest::Replacement { all, pattern };
            self.frames.push(Frame::Substitution(open));
            return Ok(());
        }
        self.keep_escapes = open.outer_escapes;
        let Open { name, value, mark, rest, .. } = *open;
        match rest {
            Rest::Word { operator, colon } => self.apply(operator, colon, name, value, mark),
            Rest::Replacement { all, pattern } => {
                let replacement = self.output.split_off(mark);
                let value = value.unwrap_or_default();
                let compiled = pattern::Pattern::parse(&pattern)?;
                let result = if all {
                    compiled.replace_all(&value, &replacement, LIMIT).ok_or(Error::TooLong)?
                } else {
                    compiled.replace_first(&value, &replacement)
                };
                self.take(result.len())?;
                self.output.push_str(&result);
                Ok(())
            }
            Rest::Pattern { .. } => Ok(()),
        }
    }

    /// Replaces the word, which is the output since `mark`, by what the operator makes of it and of the value.
    fn apply(
        &mut self,
        operator: Operator,
        colon: bool,
        name: String,
        value: Option<String>,
        mark: usize,
    ) -> Result<(), Error> {
        let usable = value.as_ref().is_some_and(|value| !colon || !value.is_empty());
        match operator {
            Operator::Default if usable => self.replace(mark, &value.unwrap_or_default()),
            Operator::Alternative if !usable => self.output.truncate(mark),
            Operator::Default | Operator::Alternative => {}
            Operator::Require if usable => self.replace(mark, &value.unwrap_or_default()),
            Operator::Require => {
                let written = self.output.split_off(mark);
                let message = match (written.is_empty(), value) {
                    (false, _) => written,
                    (true, None) => "is not allowed to be unset".to_owned(),
                    (true, Some(_)) => "is not allowed to be empty".to_owned(),
                };
                return Err(Error::Required { name, message });
            }
            Operator::TrimStart | Operator::TrimEnd => {
                let word = self.output.split_off(mark);
                let value = value.unwrap_or_default();
                let sign = if operator == Operator::TrimStart { '#' } else { '%' };
                let (written, longest) = word.strip_prefix(sign).map_or((word.as_str(), false), |rest| (rest, true));
                let compiled = pattern::Pattern::parse(written)?;
                self.output.push_str(if operator == Operator::TrimStart {
                    compiled.trim_start(&value, longest)
                } else {
                    compiled.trim_end(&value, longest)
                });
            }
            Operator::Other(sign) => {
                let modifier = format!("{}{sign}", if colon { ":" } else { "" });
                return Err(Error::UnsupportedModifier { name, modifier });
            }
        }
        Ok(())
    }

    fn replace(&mut self, mark: usize, value: &str) {
        self.output.truncate(mark);
        self.output.push_str(value);
    }
}
