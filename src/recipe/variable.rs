//! What `$x` and `${x:-y}` stand for, and what quotes and escapes mean, in the words of a recipe.
//!
//! Takes a word as written and the variables in scope, gives the word (or words) meant. Never looks anything up itself.
//!
//! The rules are those of BuildKit's built-in Dockerfile frontend, oddities included: `$1`, `$@` and the like are read
//! as names that nobody set; patterns know only `*` and `?`, and neither matches a line break; words are split after
//! substitution, and only where the blank came from outside quotes. The work is linear in the word and in what the
//! variables put into it, and nesting costs memory, never stack.

mod pattern;

/// As many bytes may substitutions bring into one word. No program could be given more, and a recipe of a few lines
/// could otherwise ask for all the memory there is.
pub const LIMIT: usize = 8 << 20;

/// The variables in scope: the value of a name, or `None` where it is not set.
pub type Scope<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Why a word cannot be expanded.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Error {
    /// `${x` without its `}`.
    #[error("the brace of ${{{name} is never closed")]
    Unclosed {
        /// The variable's name.
        name: String,
    },
    /// A quote without its partner.
    #[error("the quote {quote} is never closed")]
    UnclosedQuote {
        /// The quote that was opened.
        quote: char,
    },
    /// `${x/pattern` without the `/` before the replacement.
    #[error("${{{name}/… needs a second '/' between the pattern and its replacement")]
    MissingSlash {
        /// The variable's name.
        name: String,
    },
    /// `${}`, `${:…` or `${{`.
    #[error("bad substitution: a variable's name must follow '${{'")]
    BadSubstitution,
    /// `${x@Q}` and whatever else is not offered.
    #[error("unsupported modifier ({modifier}) in the substitution of {name}")]
    UnsupportedModifier {
        /// The variable's name.
        name: String,
        /// The modifier as it was written.
        modifier: String,
    },
    /// `${x?message}` or `${x:?message}` refused the value.
    #[error("{name}: {message}")]
    Required {
        /// The variable's name.
        name: String,
        /// What the recipe's author wanted to be said.
        message: String,
    },
    /// The word would become too long.
    #[error("the variables of this word bring in more than {LIMIT} bytes")]
    TooLong,
    /// A pattern has a backslash before a character that needs none.
    #[error("invalid escape '\\{character}' in the pattern ({pattern})")]
    PatternEscape {
        /// The pattern as it was written.
        pattern: String,
        /// The character after the backslash; empty at the pattern's end.
        character: String,
    },
}

/// The word with quotes removed and variables replaced; no splitting.
pub fn expand(word: &str, escape: char, scope: &Scope<'_>) -> Result<String, Error> {
    Ok(Expander::new(escape).expand(word, scope)?.text)
}

/// As [`expand`], but quotes are ordinary characters: the rule for the bodies of `COPY` and `ADD` heredocs, which
/// BuildKit reads with `\` as the escape character whatever the recipe's own is.
pub fn expand_raw(word: &str, escape: char, scope: &Scope<'_>) -> Result<String, Error> {
    Ok(Expander::new(escape).ignore_quotes(true).expand(word, scope)?.text)
}

/// As [`expand`], then split at blanks that came from outside quotes.
pub fn expand_split(word: &str, escape: char, scope: &Scope<'_>) -> Result<Vec<String>, Error> {
    Ok(Expander::new(escape).expand(word, scope)?.words())
}

/// The names a word refers to, in order of appearance, each as often as it is used. Where the word cannot be read
/// to its end, the names before that place.
pub fn names(word: &str, escape: char) -> Vec<String> {
    let mut machine = Machine::new(word, Expander::new(escape).keep_unset(true), &|_| None);
    // The error, if any, is reported by whoever expands the word.
    let _ = machine.run();
    machine.unset
}

/// How words are read. [`Expander::new`] gives the rules for ordinary words of an instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expander {
    escape: char,
    keep_quotes: bool,
    keep_escapes: bool,
    ignore_quotes: bool,
    keep_unset: bool,
    join_heredocs: bool,
}

impl Expander {
    /// The rules for ordinary words, with this escape character.
    pub const fn new(escape: char) -> Self {
        Self {
            escape,
            keep_quotes: false,
            keep_escapes: false,
            ignore_quotes: false,
            keep_unset: false,
            join_heredocs: false,
        }
    }

    /// Whether quotes, though they are understood, stay in the result (BuildKit's `RawQuotes`).
    #[must_use]
    pub const fn keep_quotes(mut self, yes: bool) -> Self {
        self.keep_quotes = yes;
        self
    }

    /// Whether escape characters, though they are understood, stay in the result (BuildKit's `RawEscapes`).
    #[must_use]
    pub const fn keep_escapes(mut self, yes: bool) -> Self {
        self.keep_escapes = yes;
        self
    }

    /// Whether quotes are ordinary characters (BuildKit's `SkipProcessQuotes`).
    #[must_use]
    pub const fn ignore_quotes(mut self, yes: bool) -> Self {
        self.ignore_quotes = yes;
        self
    }

    /// Whether a variable that is not set stays as it was written (BuildKit's `SkipUnsetEnv`).
    #[must_use]
    pub const fn keep_unset(mut self, yes: bool) -> Self {
        self.keep_unset = yes;
        self
    }

    /// Whether blanks right after `<<` belong to the word that follows, as in `cat << EOF`.
    #[must_use]
    pub const fn join_heredocs(mut self, yes: bool) -> Self {
        self.join_heredocs = yes;
        self
    }

    /// Expands one word.
    pub fn expand(self, word: &str, scope: &Scope<'_>) -> Result<Expansion, Error> {
        let mut machine = Machine::new(word, self, scope);
        machine.run()?;
        Ok(Expansion { text: machine.output, unset: machine.unset, protected: machine.protected })
    }
}

/// A word after expansion.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expansion {
    /// The whole text, blanks included.
    pub text: String,
    /// The names that were asked for and are not set, in order, for warnings.
    pub unset: Vec<String>,
    /// Ranges of the text whose blanks do not split: they were quoted or escaped. In order, not overlapping.
    protected: Vec<std::ops::Range<usize>>,
}

impl Expansion {
    /// The text split at unprotected blanks. Empty words vanish, even if they were written as `""`.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        let mut word = String::new();
        let mut at = 0;
        for range in &self.protected {
            split_blanks(&self.text[at..range.start], &mut word, &mut words);
            word.push_str(&self.text[range.clone()]);
            at = range.end;
        }
        split_blanks(&self.text[at..], &mut word, &mut words);
        if !word.is_empty() {
            words.push(word);
        }
        words
    }
}

fn split_blanks(text: &str, word: &mut String, words: &mut Vec<String>) {
    for character in text.chars() {
        if !character.is_whitespace() {
            word.push(character);
        } else if !word.is_empty() {
            words.push(std::mem::take(word));
        }
    }
}

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
struct Machine<'a> {
    input: &'a str,
    at: usize,
    rules: Expander,
    scope: &'a Scope<'a>,
    keep_escapes: bool,
    output: String,
    protected: Vec<std::ops::Range<usize>>,
    unset: Vec<String>,
    frames: Vec<Frame>,
    /// How many bytes values and replacements brought in so far.
    taken: usize,
}

impl<'a> Machine<'a> {
    fn new(input: &'a str, rules: Expander, scope: &'a Scope<'a>) -> Self {
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

    fn run(&mut self) -> Result<(), Error> {
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

#[cfg(test)]
mod tests;
