//! One line of comma-separated values, as Go's `encoding/csv` splits it: `--mount` in a recipe, `--secret` in a shell.
//!
//! Takes a line, gives its fields without their quotes and where each of them stands. Knows nothing of `key=value`.

use std::ops::Range;

/// One value of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// What it says, without quotes.
    pub content: String,
    /// Where it stands in the line, with its quotes.
    pub range: Range<usize>,
    /// Whether it has quotes.
    pub quoted: bool,
}

/// Why a line is no list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// There is nothing in it.
    #[error("it is empty")]
    Empty,
    /// Quotes around a field that do not end with it.
    #[error("extraneous or missing \" in a field")]
    Unclosed,
    /// Quotes inside a field.
    #[error("a \" may stand only around a whole key=value")]
    Bare,
}

/// Splits a line.
///
/// # Errors
/// See [`Error`].
pub fn fields(line: &str) -> Result<Vec<Field>, Error> {
    if line.is_empty() {
        return Err(Error::Empty);
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let (content, length, quoted) = if let Some(inside) = rest.strip_prefix('"') {
            let (content, length) = quoted_field(inside).ok_or(Error::Unclosed)?;
            (content, length + 1, true)
        } else {
            let length = rest.find(',').unwrap_or(rest.len());
            if rest[..length].contains('"') {
                return Err(Error::Bare);
            }
            (rest[..length].to_owned(), length, false)
        };
        fields.push(Field { content, range: at..at + length, quoted });
        at += length;
        if at == line.len() {
            return Ok(fields);
        }
        at += 1;
    }
}

/// The content of a quoted field after its first quote, and the number of bytes up to and including its last; `None` if
/// it is not closed before a comma or the end.
fn quoted_field(inside: &str) -> Option<(String, usize)> {
    let mut content = String::new();
    let mut at = 0;
    loop {
        let length = inside[at..].find('"')?;
        content.push_str(&inside[at..at + length]);
        at += length + 1;
        match inside.as_bytes().get(at) {
            Some(b'"') => {
                content.push('"');
                at += 1;
            }
            Some(b',') | None => return Some((content, at)),
            Some(_) => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_split_as_go_splits_them() {
        for (line, expected) in [
            ("a", Ok(&["a"][..])),
            ("a,b=c", Ok(&["a", "b=c"])),
            ("a,", Ok(&["a", ""])),
            (",", Ok(&["", ""])),
            ("\"a,b\",c", Ok(&["a,b", "c"])),
            ("\"a\"\"b\"", Ok(&["a\"b"])),
            ("\"\"", Ok(&[""])),
            ("", Err(Error::Empty)),
            ("\"a", Err(Error::Unclosed)),
            ("\"a\"b", Err(Error::Unclosed)),
            ("a\"b\"", Err(Error::Bare)),
        ] {
            let found = fields(line).map(|fields| fields.into_iter().map(|field| field.content).collect::<Vec<_>>());
            assert_eq!(found, expected.map(|words| words.iter().map(|&word| word.to_owned()).collect()), "{line}");
        }
        let quoted = &fields("x,\"a\",y").unwrap()[1];
        assert_eq!((quoted.range.clone(), quoted.quoted), (2..5, true));
    }
}
