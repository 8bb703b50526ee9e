//! The name somebody probably meant.
//!
//! Takes a name that does not exist and those that do, gives the closest if it is close enough to be a slip of the hand.

/// How many candidates are looked at, so that a long recipe full of mistakes is still answered at once.
const CANDIDATES: usize = 1_000;

/// The candidate with the fewest edits from `name`, ignoring case; `None` where every one is too far off.
pub(super) fn nearest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted: Vec<char> = name.to_lowercase().chars().collect();
    let limit = (wanted.len() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .take(CANDIDATES)
        .filter(|candidate| *candidate != name && !candidate.is_empty())
        .filter_map(|candidate| {
            let candidate_chars: Vec<char> = candidate.to_lowercase().chars().collect();
            let far = wanted.len().abs_diff(candidate_chars.len()) > limit;
            let edits = if far { usize::MAX } else { distance(&wanted, &candidate_chars) };
            (edits <= limit).then_some((edits, candidate))
        })
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, candidate)| candidate)
}

/// `did you mean …?` for the closest candidate.
pub(super) fn did_you_mean<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    nearest(name, candidates).map(|candidate| format!("did you mean `{candidate}`?"))
}

/// Insertions, deletions, replacements and swaps of neighbours between two names (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before_last: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, from) in left.iter().enumerate() {
        let mut current = vec![row + 1];
        for (column, to) in right.iter().enumerate() {
            let mut best = (last[column] + usize::from(from != to)).min(last[column + 1] + 1).min(current[column] + 1);
            if row > 0 && column > 0 && *from == right[column - 1] && left[row - 1] == *to {
                best = best.min(before_last[column - 1] + 1);
            }
            current.push(best);
        }
        before_last = std::mem::replace(&mut last, current);
    }
    last[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_slips_are_corrected() {
        for (name, expected) in [
            ("biuld", Some("build")),
            ("Builds", Some("build")),
            ("buil", Some("build")),
            ("test", None),
            ("final", None),
            ("run", None),
        ] {
            assert_eq!(nearest(name, ["build", "runtime"]), expected, "{name}");
        }
    }
}
