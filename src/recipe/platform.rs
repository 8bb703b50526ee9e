//! Platforms: operating system, architecture and variant, spelled and compared as containerd does.
//!
//! Takes text, gives a normalised [`Platform`]; never asks the machine anything but what it was compiled for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on (OCI image-index, `platform`), normalised.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// `linux`, `windows`…
    pub os: String,
    /// `amd64`, `arm64`… in Go's names.
    pub architecture: String,
    /// `v7`, `v8`… where the architecture has variants that matter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// `os.version`, for Windows.
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
}

/// The text does not name a platform.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not a platform: expected os/architecture[/variant], such as linux/amd64")]
pub struct ParseError {
    /// The text as it was given.
    pub text: String,
}

impl Platform {
    /// The platform this binary was compiled for.
    pub fn host() -> Self {
        todo!()
    }

    /// Whether an image for `self` can serve where `wanted` is asked for.
    pub fn serves(&self, _wanted: &Self) -> bool {
        todo!()
    }
}

impl FromStr for Platform {
    type Err = ParseError;

    fn from_str(_text: &str) -> Result<Self, ParseError> {
        todo!()
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}
