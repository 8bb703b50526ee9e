//! What `--chown` and `USER` may say without a look into an image.
//!
//! Takes the words, says which of them are ids. As in BuildKit an id is a decimal number of 32 bits with a sign, so anything
//! larger is a name, however odd; looking names up is the engine's part.

/// The id that a word is: `root` and every number that fits. A negative one is what the kernel makes of it.
pub fn id(word: &str) -> Option<u32> {
    if word == "root" { Some(0) } else { word.parse().ok().map(i32::cast_unsigned) }
}

/// The first part of an owner that has to be looked up. No word at all is nobody's name.
pub(super) fn name(spec: &str) -> Option<&str> {
    spec.splitn(2, ':').find(|part| !part.is_empty() && id(part).is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbers_of_32_bits() {
        for (word, expected) in [
            ("0", Some(0)),
            ("007", Some(7)),
            ("+5", Some(5)),
            ("-2", Some(u32::MAX - 1)),
            ("root", Some(0)),
            ("2147483647", Some(2_147_483_647)),
            ("2147483648", None),
            ("99999999999", None),
            ("0x10", None),
            ("", None),
        ] {
            assert_eq!(id(word), expected, "{word}");
        }
    }

    #[test]
    fn knows_which_owners_have_names() {
        for (spec, expected) in [
            ("1", None),
            ("1:2", None),
            ("a", Some("a")),
            ("1:b", Some("b")),
            ("1:", None),
            (":root", None),
            (":", None),
        ] {
            assert_eq!(name(spec), expected, "{spec}");
        }
    }
}
