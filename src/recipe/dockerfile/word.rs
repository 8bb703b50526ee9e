//! How the text after a keyword falls into words: at blanks, as `name=value` pairs, or as a JSON array.
//!
//! Takes parts of a logical line, gives parts of it, quotes and escapes untouched. Never expands anything.

use serde::de::IgnoredAny;

use super::line::Part;

/// The words between runs of blanks.
pub(super) fn split(part: Part<'_>) -> Vec<Part<'_>> {
    let mut words = Vec::new();
    let mut rest = Some(part);
    while let Some(part) = rest {
        let (word, after) = part.split_blank();
        if !word.text.is_empty() {
            words.push(word);
        }
        rest = after;
    }
    words
}

/// The words between white space that is neither quoted nor escaped. A quote that is never closed ends with the text;
/// an escape character at the very end is dropped.
pub(super) fn split_quoted(part: Part<'_>, escape: char) -> Vec<Part<'_>> {
    let mut words = Vec::new();
    let mut start = None;
    let mut quote = None;
    let mut end = part.text.len();
    let mut characters = part.text.char_indices();
    while let Some((at, character)) = characters.next() {
        if quote.is_none() && character.is_whitespace() {
            words.extend(start.take().map(|start| part.sub(start..at)));
            continue;
        }
        start.get_or_insert(at);
        if character == escape && quote != Some('\'') {
            if characters.next().is_none() {
                end = at;
            }
            continue;
        }
        match quote {
            Some(open) if open == character => quote = None,
            None if matches!(character, '\'' | '"') => quote = Some(character),
            _ => {}
        }
    }
    words.extend(start.filter(|start| *start < end).map(|start| part.sub(start..end)));
    words
}

/// The name and the value around the first `=`, if there is one.
pub(super) fn split_pair(word: Part<'_>) -> Option<(Part<'_>, Part<'_>)> {
    let equals = word.text.find('=')?;
    Some((word.sub(0..equals), word.skip(equals + 1)))
}

/// A string of a JSON array, and the place of its literal.
pub(super) type Element<'a> = (String, Part<'a>);

/// The text is a JSON array, but not one of strings.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotStrings;

/// The strings of a JSON array; `None` if the text is no valid JSON array, so that it means what it says.
pub(super) fn json_array(part: Part<'_>) -> Result<Option<Vec<Element<'_>>>, NotStrings> {
    let part = part.trim();
    if !part.text.starts_with('[') {
        return Ok(None);
    }
    match strings(part) {
        Some(elements) => Ok(Some(elements)),
        None if serde_json::from_str::<Vec<IgnoredAny>>(part.text).is_ok() => Err(NotStrings),
        None => Ok(None),
    }
}

/// Reads `[` string `,` string … `]` and nothing else.
fn strings(part: Part<'_>) -> Option<Vec<Element<'_>>> {
    let mut elements = Vec::new();
    let mut at = skip_space(part.text, 1);
    if part.text[at..].starts_with(']') {
        return (at + 1 == part.text.len()).then_some(elements);
    }
    loop {
        let (value, length) = string(&part.text[at..])?;
        elements.push((value, part.sub(at..at + length)));
        at = skip_space(part.text, at + length);
        match part.text.as_bytes().get(at)? {
            b',' => at = skip_space(part.text, at + 1),
            b']' => return (at + 1 == part.text.len()).then_some(elements),
            _ => return None,
        }
    }
}

fn skip_space(text: &str, at: usize) -> usize {
    let rest = &text[at..];
    text.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len()
}

/// A string literal at the start of the text, and its length in bytes. Half a surrogate pair becomes U+FFFD.
fn string(text: &str) -> Option<(String, usize)> {
    let mut characters = text.char_indices();
    characters.next().filter(|(_, quote)| *quote == '"')?;
    let mut value = String::new();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Some((value, at + 1)),
            '\\' => value.push(match characters.next()?.1 {
                simple @ ('"' | '\\' | '/') => simple,
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'u' => {
                    let high = unit(characters.as_str())?;
                    characters.nth(3);
                    let low = characters.as_str().strip_prefix("\\u").and_then(unit);
                    match low.and_then(|low| char::decode_utf16([high, low]).next()?.ok()) {
                        Some(pair) if u32::from(pair) > 0xffff => {
                            characters.nth(5);
                            pair
                        }
                        _ => char::from_u32(u32::from(high)).unwrap_or(char::REPLACEMENT_CHARACTER),
                    }
                }
                _ => return None,
            }),
            control if control < ' ' => return None,
            other => value.push(other),
        }
    }
    None
}

/// Four hexadecimal digits.
fn unit(text: &str) -> Option<u16> {
    let digits = text.get(..4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u16::from_str_radix(digits, 16).ok()
}

/// A truth value in the spellings that Go's `strconv.ParseBool` knows.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part<'_> {
        Part { text, at: 0 }
    }

    #[test]
    fn words_end_at_blanks() {
        for (text, words) in
            [("", &[] as &[&str]), ("a", &["a"]), ("a  b\tc\x0bd", &["a", "b", "c", "d"]), ("a\u{a0}b", &["a\u{a0}b"])]
        {
            let found = split(part(text));
            assert_eq!(found.iter().map(|word| word.text).collect::<Vec<_>>(), words, "{text}");
            assert!(found.iter().all(|word| text[word.at..].starts_with(word.text)));
        }
    }

    #[test]
    fn quotes_and_escapes_keep_words_together() {
        let table: &[(&str, &[&str])] = &[
            ("", &[]),
            (" a  b ", &["a", "b"]),
            ("a='b c' d", &["a='b c'", "d"]),
            ("a=\"b \\\" c\" d", &["a=\"b \\\" c\"", "d"]),
            ("a='b\\' c", &["a='b\\'", "c"]),
            ("a=b\\ c d", &["a=b\\ c", "d"]),
            ("a=\\\" b", &["a=\\\"", "b"]),
            ("\"\" x", &["\"\"", "x"]),
            ("'open a b", &["'open a b"]),
            ("a\\", &["a"]),
            ("a \\", &["a"]),
            ("\"a\\", &["\"a"]),
            ("a\u{a0}b", &["a", "b"]),
        ];
        for (text, words) in table {
            let found = split_quoted(part(text), '\\');
            assert_eq!(found.iter().map(|word| word.text).collect::<Vec<_>>(), *words, "{text}");
            assert!(found.iter().all(|word| text[word.at..].starts_with(word.text)));
        }
        assert_eq!(split_quoted(part("a=b` c\\ d"), '`').len(), 2);
    }

    #[test]
    fn json_arrays_of_strings_are_recognised() {
        let table: &[(&str, Option<&[&str]>)] = &[
            ("[]", Some(&[])),
            (" [ ] ", Some(&[])),
            ("[\"a\"]", Some(&["a"])),
            ("[ \"a\" , \"b c\" ]", Some(&["a", "b c"])),
            ("[\"\\\"\\\\\\/\\b\\f\\n\\r\\t\"]", Some(&["\"\\/\u{8}\u{c}\n\r\t"])),
            ("[\"\\u00e9\\ud83d\\ude00\"]", Some(&["é😀"])),
            ("[\"\\ud800x\\udc00\"]", Some(&["\u{fffd}x\u{fffd}"])),
            ("[\"\\ud800\\u0041\"]", Some(&["\u{fffd}A"])),
            ("['a']", None),
            ("[\"a\",]", None),
            ("[\"a\"", None),
            ("[\"a\"] x", None),
            ("[\"a\" \"b\"]", None),
            ("[\"c:\\x\"]", None),
            ("[\"\\u12\"]", None),
            ("[\"a\tb\"]", None),
            ("[ -f x ]", None),
            ("\"a\"", None),
            ("", None),
        ];
        for (text, strings) in table {
            let found = json_array(part(text)).unwrap();
            let found: Option<Vec<&str>> =
                found.as_ref().map(|all| all.iter().map(|(value, _)| value.as_str()).collect());
            assert_eq!(found.as_deref(), *strings, "{text}");
        }
        for text in ["[1]", "[\"a\", null]", "[[\"a\"]]", "[{}]", "[ true ]"] {
            assert_eq!(json_array(part(text)), Err(NotStrings), "{text}");
        }
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        assert_eq!(json_array(part(&deep)), Err(NotStrings));
        let found = json_array(part(" [\"a\",  \"b\"]")).unwrap().unwrap();
        assert_eq!((found[1].1.at, found[1].1.text), (8, "\"b\""));
    }
}
