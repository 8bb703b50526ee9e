//! Keeps the values of secrets out of what people see of a step.
//!
//! Takes a step's output piece by piece, gives it on with every value replaced by `***`, wherever the pieces were cut:
//! the end of a piece that may be the start of a value waits for the next one. What a step makes of a value (encoded,
//! split into lines) is beyond it.

use crate::secret::Secrets;

/// Shorter values are left alone: they would match everywhere.
const SHORTEST: usize = 4;
const STARS: &[u8] = b"***";

/// The values to hide.
#[derive(Default)]
pub struct Mask {
    /// Never empty texts.
    values: Vec<Vec<u8>>,
}

impl std::fmt::Debug for Mask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mask({} values)", self.values.len())
    }
}

impl Mask {
    /// Hides the values of all secrets that can be read without anybody noticing.
    pub fn of(secrets: &Secrets) -> Self {
        let mut mask = Self::default();
        secrets.readable().for_each(|value| mask.add(&value));
        mask
    }

    /// A whole text with the values in it replaced.
    pub fn text(&self, text: &str) -> String {
        let (out, _) = self.replace(text.as_bytes(), true);
        String::from_utf8_lossy(&out).into_owned()
    }

    /// Hides one more value, with and without the line end that files have.
    pub fn add(&mut self, value: &[u8]) {
        let trimmed = value.trim_ascii_end();
        for value in [value, trimmed] {
            if value.len() >= SHORTEST && trimmed.len() >= SHORTEST && !self.values.iter().any(|known| known == value) {
                self.values.push(value.to_owned());
            }
        }
    }

    /// Replaces values in `waiting` followed by `piece`, and leaves in `waiting` what the next piece may complete.
    pub(super) fn feed(&self, waiting: &mut Vec<u8>, piece: &[u8]) -> Vec<u8> {
        waiting.extend_from_slice(piece);
        let (out, used) = self.replace(waiting, false);
        waiting.drain(..used);
        out
    }

    /// What is left at the end of the output.
    pub(super) fn finish(&self, waiting: &mut Vec<u8>) -> Vec<u8> {
        let (out, _) = self.replace(&std::mem::take(waiting), true);
        out
    }

    /// Whether there is anything to hide.
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// The text with values replaced, and how much of it that covers.
    fn replace(&self, text: &[u8], ended: bool) -> (Vec<u8>, usize) {
        let mut out = Vec::with_capacity(text.len());
        let mut at = 0;
        while let Some(rest) = text.get(at..).filter(|rest| !rest.is_empty()) {
            let may_go_on = |value: &Vec<u8>| value.len() > rest.len() && value.starts_with(rest);
            if !ended && self.values.iter().any(may_go_on) {
                break;
            }
            let found = self.values.iter().filter(|value| rest.starts_with(value)).map(Vec::len).max();
            match found {
                Some(length) => {
                    out.extend_from_slice(STARS);
                    at += length;
                }
                None => {
                    out.extend(rest.first());
                    at += 1;
                }
            }
        }
        (out, at)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mask(values: &[&str]) -> Mask {
        let mut mask = Mask::default();
        values.iter().for_each(|value| mask.add(value.as_bytes()));
        mask
    }

    fn through(mask: &Mask, pieces: &[&[u8]]) -> String {
        let mut waiting = Vec::new();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(mask.feed(&mut waiting, piece));
        }
        out.extend(mask.finish(&mut waiting));
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn values_are_hidden_and_nothing_else() {
        for (values, text, expected) in [
            (&["hunter2\n"][..], "a hunter2 b\nhunter2\n", "a *** b\n***"),
            (&["abc"], "abc", "abc"),
            (&["  \n \n"], "     \n \n", "     \n \n"),
            (&["aaaa"], "aaaaaaaaa", "******a"),
            (&["abcd", "abcdef"], "abcdef abcdx abcde", "*** ***x ***e"),
            (&["abcd"], "abc", "abc"),
        ] {
            assert_eq!(through(&mask(values), &[text.as_bytes()]), expected, "{values:?} {text:?}");
        }
    }

    proptest! {
        #[test]
        fn where_pieces_are_cut_makes_no_difference(text in "[ab]{0,40}", cuts in prop::collection::vec(0_usize..40, 0..6)) {
            let mask = mask(&["abab", "aabba", "bbbbb"]);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text.as_bytes()[cut[0]..cut[1]]).collect();
            prop_assert_eq!(through(&mask, &pieces), through(&mask, &[text.as_bytes()]));
        }
    }
}
