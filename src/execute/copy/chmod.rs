//! `--chmod`: text in, a change of permission bits out.
//!
//! Octal numbers set all twelve bits. Letters work as in chmod(1) of the BSDs, with no umask: `u`, `g`, `o`, `a`; `+`, `-`,
//! `=`; `r`, `w`, `x`, `X`, `s`, `t`, or one of `u`, `g`, `o` to copy from.

use super::Error;

/// A parsed `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Chmod {
    /// These bits.
    Exact(u32),
    /// These changes, in order.
    Changes(Vec<Change>),
}

/// One operator with what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// The bits that may be touched; `None` where no letter stood before the operator.
    who: Option<u32>,
    operator: char,
    what: Vec<What>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum What {
    Bits(u32),
    /// `X`
    ExecuteIfAny,
    /// The permissions of a class, by how far they are shifted.
    CopyOf(u32),
}

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const EXECUTE: u32 = 0o111;
/// What is meant where nobody is named: all but the sticky bit.
const EVERYONE: u32 = 0o6777;

impl Chmod {
    /// Parses the flag's value.
    pub(super) fn parse(text: &str) -> Result<Self, Error> {
        let fail = || Error::Chmod { text: text.to_owned() };
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            return u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777).map(Self::Exact).ok_or_else(fail);
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            changes.extend(parse_clause(clause).ok_or_else(fail)?);
        }
        Ok(Self::Changes(changes))
    }

    /// The bits after the change.
    pub(super) fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Exact(bits) => *bits,
            Self::Changes(changes) => {
                let may_execute = is_directory || mode & EXECUTE != 0;
                changes.iter().fold(mode, |now, change| change.apply(now, may_execute))
            }
        }
    }
}

fn parse_clause(clause: &str) -> Option<Vec<Change>> {
    let operator_at = clause.find(['+', '-', '='])?;
    let (letters, mut rest) = clause.split_at(operator_at);
    let mut who = (!letters.is_empty()).then_some(0);
    for letter in letters.chars() {
        let bits = match letter {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            'a' => EVERYONE,
            _ => return None,
        };
        who = who.map(|sum| sum | bits);
    }
    let mut changes = Vec::new();
    while let Some(operator) = rest.chars().next() {
        rest = &rest[1..];
        let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
        let (what, after) = rest.split_at(end);
        rest = after;
        // Set-id and sticky bits say nothing about others.
        let special = |bits| if who == Some(0o0007) { 0 } else { bits };
        let what = what.chars().map(|letter| {
            Some(match letter {
                'r' => What::Bits(0o444),
                'w' => What::Bits(0o222),
                'x' => What::Bits(EXECUTE),
                'X' => What::ExecuteIfAny,
                's' => What::Bits(special(SET_ID)),
                't' => What::Bits(special(STICKY)),
                'u' => What::CopyOf(6),
                'g' => What::CopyOf(3),
                'o' => What::CopyOf(0),
                _ => return None,
            })
        });
        changes.push(Change { who, operator, what: what.collect::<Option<_>>()? });
    }
    Some(changes)
}

impl Change {
    fn apply(&self, mode: u32, may_execute: bool) -> u32 {
        let bits = self.what.iter().fold(0, |sum, what| {
            sum | match what {
                What::Bits(bits) => *bits,
                What::ExecuteIfAny if self.operator != '-' && may_execute => EXECUTE,
                What::ExecuteIfAny => 0,
                What::CopyOf(shift) => (mode >> shift & 7) * EXECUTE,
            }
        });
        let touched = self.who.unwrap_or(EVERYONE) | bits & STICKY;
        match self.operator {
            '+' => mode | bits & touched,
            '-' => mode & !(bits & touched),
            _ => mode & !touched | bits & touched,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_bits_as_chmod_does() {
        for (text, before, is_directory, after) in [
            ("755", 0o644, false, 0o755),
            ("0644", 0o4755, true, 0o644),
            ("7777", 0, false, 0o7777),
            ("0", 0o777, false, 0),
            ("u+x", 0o644, false, 0o744),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("go=", 0o777, false, 0o700),
            ("go-rwx", 0o755, true, 0o700),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("+X", 0o644, false, 0o644),
            ("+X", 0o744, false, 0o755),
            ("+X", 0o644, true, 0o755),
            ("-X", 0o755, false, 0o755),
            ("u+s", 0o755, false, 0o4755),
            ("g+s", 0o755, true, 0o2755),
            ("o+s", 0o755, false, 0o755),
            ("+t", 0o777, true, 0o1777),
            ("-t", 0o1777, true, 0o777),
            ("=r", 0o6777, false, 0o444),
            ("g=u", 0o740, false, 0o770),
            ("o=g-w", 0o760, false, 0o764),
            ("u=rw,g+w,o-r", 0o744, false, 0o660),
            ("ug=rw", 0o007, false, 0o667),
        ] {
            let chmod = Chmod::parse(text).unwrap();
            assert_eq!(
                chmod.apply(before, is_directory),
                after,
                "{text} on {before:o}: {:o}",
                chmod.apply(before, is_directory)
            );
        }
    }

    #[test]
    fn refuses_what_is_not_a_mode() {
        for text in ["", "10000", "8", "75x", "x", "u", "u=q", "z+x", "u+x,", ",", "rwx", "0o755", "99999999999"] {
            assert!(Chmod::parse(text).is_err(), "{text:?}");
        }
    }
}
