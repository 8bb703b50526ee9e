//! `--output` as the user writes it: `type=oci,dest=image.tar,compression=zstd`.

use std::path::PathBuf;
use std::str::FromStr;

use crate::diagnostic::nearest;
use crate::layer::compress::Compression;

/// One output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Where and in which shape.
    pub destination: Destination,
    /// How layers made by the build are compressed; base layers keep their own form.
    pub compression: Compression,
}

/// Where an output goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// An OCI layout in a tar archive.
    Archive(PathBuf),
    /// The same to standard output.
    Stdout,
    /// An OCI layout as a directory.
    Directory(PathBuf),
}

/// The text is not an output that can be made.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum ParseError {
    /// A type that does not exist, or not yet.
    #[error("output type {found:?} is not supported{}", hint(.nearest))]
    Type {
        /// The type as written.
        found: String,
        /// The nearest type there is.
        nearest: Option<&'static str>,
    },
    /// An option that does not exist.
    #[error("option {found:?} of an output is not known{}", hint(.nearest))]
    Option {
        /// The option as written.
        found: String,
        /// The nearest option there is.
        nearest: Option<&'static str>,
    },
    /// An option with a value it cannot have.
    #[error("{option}={value} is not valid: expected {expected}")]
    Value {
        /// The option.
        option: &'static str,
        /// The value as written.
        value: String,
        /// What it may be.
        expected: &'static str,
    },
    /// An option that is needed and not there.
    #[error("an output needs {option}, as in {example}")]
    Missing {
        /// The option.
        option: &'static str,
        /// A whole output that has it.
        example: &'static str,
    },
}

fn hint(nearest: &Option<&'static str>) -> String {
    nearest.map(|name| format!("; did you mean {name:?}?")).unwrap_or_default()
}

const TYPES: [&str; 1] = ["oci"];
const OPTIONS: [&str; 5] = ["type", "dest", "tar", "compression", "compression-level"];

impl FromStr for Output {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let (mut kind, mut dest, mut tar, mut compression, mut level) = (None, None, true, "gzip", None);
        for field in text.split(',') {
            let (name, value) = field.split_once('=').unwrap_or((field, ""));
            match name.trim() {
                "type" => kind = Some(value),
                "dest" => dest = Some(value),
                "tar" => tar = boolean("tar", value)?,
                "compression" => compression = value,
                "compression-level" => level = Some(value),
                other => {
                    return Err(ParseError::Option { found: other.to_owned(), nearest: nearest_of(other, &OPTIONS) });
                }
            }
        }
        match kind {
            Some("oci") => {}
            Some(other) => {
                return Err(ParseError::Type { found: other.to_owned(), nearest: nearest_of(other, &TYPES) });
            }
            None => return Err(ParseError::Missing { option: "type=", example: "type=oci,dest=image.tar" }),
        }
        Ok(Self { destination: destination(dest, tar)?, compression: parse_compression(compression, level)? })
    }
}

fn nearest_of(word: &str, names: &[&'static str]) -> Option<&'static str> {
    nearest(word, names.iter().copied())
}

fn boolean(option: &'static str, value: &str) -> Result<bool, ParseError> {
    match value {
        "true" | "1" | "" => Ok(true),
        "false" | "0" => Ok(false),
        other => Err(ParseError::Value { option, value: other.to_owned(), expected: "true or false" }),
    }
}

fn destination(dest: Option<&str>, tar: bool) -> Result<Destination, ParseError> {
    match (dest, tar) {
        (Some("") | None, false) => {
            Err(ParseError::Missing { option: "dest=", example: "type=oci,tar=false,dest=DIRECTORY" })
        }
        (Some("-") | None, true) => Ok(Destination::Stdout),
        (Some(""), true) => Err(ParseError::Missing { option: "dest=", example: "type=oci,dest=image.tar" }),
        (Some(path), true) => Ok(Destination::Archive(path.into())),
        (Some(path), false) => Ok(Destination::Directory(path.into())),
    }
}

fn parse_compression(name: &str, level: Option<&str>) -> Result<Compression, ParseError> {
    let in_range = |range: std::ops::RangeInclusive<u8>, default: u8, expected: &'static str| match level {
        None => Ok(default),
        Some(text) => text.parse().ok().filter(|level| range.contains(level)).ok_or_else(|| ParseError::Value {
            option: "compression-level",
            value: text.to_owned(),
            expected,
        }),
    };
    match name {
        "gzip" => Ok(Compression::Gzip { level: in_range(1..=12, 6, "1 to 12")? }),
        "zstd" => Ok(Compression::Zstd { level: in_range(1..=22, 3, "1 to 22")? }),
        "uncompressed" if level.is_some() => Err(ParseError::Value {
            option: "compression-level",
            value: level.unwrap_or_default().to_owned(),
            expected: "nothing, without compression",
        }),
        "uncompressed" => Ok(Compression::None),
        other => Err(ParseError::Value {
            option: "compression",
            value: other.to_owned(),
            expected: "gzip, zstd or uncompressed",
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_users_write() {
        let ok = |text: &str| text.parse::<Output>().unwrap();
        assert_eq!(ok("type=oci,dest=a.tar").destination, Destination::Archive("a.tar".into()));
        assert_eq!(ok("type=oci,dest=a,tar=false").destination, Destination::Directory("a".into()));
        assert_eq!(ok("type=oci").destination, Destination::Stdout);
        assert_eq!(ok("type=oci,compression=zstd,compression-level=9").compression, Compression::Zstd { level: 9 });
        for (text, part) in [
            ("type=ocl,dest=a", "did you mean \"oci\""),
            ("type=oci,dst=a", "did you mean \"dest\""),
            ("type=oci,dest=a,compression=lz4", "gzip, zstd or uncompressed"),
            ("type=oci,dest=a,compression-level=99", "1 to 12"),
            ("type=oci,tar=false", "needs dest="),
            ("dest=a", "needs type="),
            ("type=oci,tar=maybe", "true or false"),
        ] {
            let message = text.parse::<Output>().unwrap_err().to_string();
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
