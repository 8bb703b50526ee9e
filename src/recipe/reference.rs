//! Names of images: `registry/repository:tag@digest`, normalised as Docker does.
//!
//! Takes text, gives a [`Reference`]; never asks a registry.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// A normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// Host and optional port; `docker.io` where none was written.
    pub registry: String,
    /// The path, such as `library/debian`.
    pub repository: String,
    /// The tag; `latest` where neither tag nor digest was written.
    pub tag: Option<String>,
    /// The digest, if pinned.
    pub digest: Option<Digest>,
}

/// The text is not an image name.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not an image name: {reason}")]
pub struct ParseError {
    /// The text as it was given.
    pub text: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// The name as Docker's users write it: `docker.io/library/` left out.
    pub fn familiar(&self) -> String {
        todo!()
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(_text: &str) -> Result<Self, ParseError> {
        todo!()
    }
}

/// The full, normalised name: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
