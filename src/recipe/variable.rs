//! What `$x` and `${x:-y}` stand for, and what quotes and escapes mean, in the words of a recipe.
//!
//! Takes a word as written and the variables in scope, gives the word (or words) meant. Never looks anything up itself.
//!
//! The rules are those of BuildKit's built-in Dockerfile frontend, oddities included: `$1`, `$@` and the like are read
//! as names that nobody set; patterns know only `*` and `?`, and neither matches a line break; words are split after
//! substitution, and only where the blank came from outside quotes. The work is linear in the word and in what the
//! variables put into it, and nesting costs memory, never stack.

mod machine;
mod pattern;

use machine::Machine;

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

#[cfg(test)]
mod tests;
