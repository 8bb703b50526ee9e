//! What `$x` and `${x:-y}` stand for, and what quotes and escapes mean, in the words of a recipe.
//!
//! Takes a word as written and the variables in scope, gives the word (or words) meant. Never looks anything up itself.

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
}

/// The word with quotes removed and variables replaced; no splitting.
pub fn expand(_word: &str, _escape: char, _scope: &Scope<'_>) -> Result<String, Error> {
    todo!()
}

/// As [`expand`], but only variables are replaced: quotes and escapes stay (BuildKit's `ProcessWordWithMatches` with raw quotes).
pub fn expand_raw(_word: &str, _escape: char, _scope: &Scope<'_>) -> Result<String, Error> {
    todo!()
}

/// As [`expand`], then split at blanks that came from outside quotes.
pub fn expand_split(_word: &str, _escape: char, _scope: &Scope<'_>) -> Result<Vec<String>, Error> {
    todo!()
}

/// The names a word refers to, in order.
pub fn names(_word: &str, _escape: char) -> Vec<String> {
    todo!()
}
