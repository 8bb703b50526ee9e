//! Advice for a name that does not exist.
//!
//! Takes the name and those that would have been valid, gives a sentence for [`crate::diagnostic::Diagnostic::help`].

use crate::diagnostic::nearest;

/// How many names are looked at, so that a long recipe full of mistakes is still answered at once.
const CANDIDATES: usize = 1_000;

/// `did you mean …?` for the nearest valid name.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let candidates = candidates.into_iter().filter(|candidate| !candidate.is_empty()).take(CANDIDATES);
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}
