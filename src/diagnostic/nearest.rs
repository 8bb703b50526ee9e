//! The name that was probably meant by a misspelt one.
//!
//! Takes a word and the names that would have been valid, gives the nearest if it is near enough.

/// Words longer than this, in characters, are not misspelt names.
const LONGEST: usize = 64;

/// The candidate nearest to a word, unless it is too far away to be a likely mistake. Case does not count; a letter
/// added, left out, changed or swapped with its neighbour does, and there may be one of those for every three letters.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
    if word.is_empty() || word.len() > LONGEST {
        return None;
    }
    let near = |candidate: &'a str| {
        let letters: Vec<char> = candidate.chars().take(LONGEST + 1).flat_map(char::to_lowercase).collect();
        let allowed = (word.len().max(letters.len()) / 3).max(1);
        // A word of one or two letters is near to everything short; then only its letters in another case will do.
        let allowed = if word.len() < 3 { 0 } else { allowed };
        let far = letters.len().abs_diff(word.len()) > allowed;
        Some(distance(&word, &letters))
            .filter(|distance| !far && *distance <= allowed)
            .map(|distance| (distance, candidate))
    };
    candidates.into_iter().filter_map(near).min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

/// The number of letters added, left out, changed or swapped with a neighbour (optimal string alignment).
fn distance(left: &[char], right: &[char]) -> usize {
    let mut before: Vec<usize> = vec![0; right.len() + 1];
    let mut above: Vec<usize> = (0..=right.len()).collect();
    for (i, &a) in left.iter().enumerate() {
        let mut row = Vec::with_capacity(right.len() + 1);
        row.push(i + 1);
        for (j, &b) in right.iter().enumerate() {
            let mut best = (above[j] + usize::from(a != b)).min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a == right[j - 1] && left[i - 1] == b {
                best = best.min(before[j - 1] + 1);
            }
            row.push(best);
        }
        before = std::mem::replace(&mut above, row);
    }
    above[right.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_mistakes_are_understood() {
        let names = ["FROM", "RUN", "COPY", "ENTRYPOINT", "EXPOSE", "ENV", "ADD"];
        for (word, expected) in [
            ("FRMO", Some("FROM")),
            ("form", Some("FROM")),
            ("RUNN", Some("RUN")),
            ("rn", None),
            ("entrypiont", Some("ENTRYPOINT")),
            ("entry_point", Some("ENTRYPOINT")),
            ("expos", Some("EXPOSE")),
            ("COPPYY", Some("COPY")),
            ("banana", None),
            ("", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, names), expected, "{word}");
        }
        assert_eq!(nearest("as", ["AS"]), Some("AS"));
        assert_eq!(nearest(&"x".repeat(1_000_000), names), None);
    }

    #[test]
    fn distances_count_edits() {
        let count = |a: &str, b: &str| distance(&a.chars().collect::<Vec<_>>(), &b.chars().collect::<Vec<_>>());
        for (a, b, expected) in
            [("", "", 0), ("a", "", 1), ("ab", "ba", 1), ("abc", "acb", 1), ("kitten", "sitting", 3)]
        {
            assert_eq!((count(a, b), count(b, a)), (expected, expected), "{a} {b}");
        }
    }
}
