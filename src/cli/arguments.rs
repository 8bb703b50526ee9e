//! `--build-arg`: the values, and what those mean that steer the build itself.
//!
//! Takes what was typed and the environment; refuses built-in arguments whose value means nothing, or something that
//! cannot be had. Arguments that only a recipe knows are none of its business.

use std::collections::BTreeMap;

use crate::cli::exit::Error;
use crate::graph::SOURCE_DATE_EPOCH;
use crate::recipe::remote::boolean;

/// The longest host name that the kernel takes, in bytes.
const LONGEST_HOST_NAME: usize = 64;

/// Every build argument.
#[derive(Debug, Default)]
pub(super) struct BuildArguments {
    /// The values by name. `SOURCE_DATE_EPOCH` is among them where it names something; see [`Self::epoch`].
    pub values: BTreeMap<String, String>,
    /// `SOURCE_DATE_EPOCH` where it is a number, from the command line or the environment.
    pub epoch: Option<i64>,
    /// Whether a context from a repository keeps its `.git`.
    pub keep_git_dir: bool,
}

impl BuildArguments {
    /// Reads every `--build-arg`. One without a value takes that of the environment.
    ///
    /// # Errors
    /// A name is missing, or a built-in argument has a value that cannot be used.
    pub(super) fn parse(given: &[String], variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let mut values = BTreeMap::new();
        for text in given {
            let (name, value) = match text.split_once('=') {
                Some((name, value)) => (name, Some(value.to_owned())),
                None => (text.as_str(), variable(text)),
            };
            if name.is_empty() {
                return Err(Error::Usage(format!("--build-arg {text:?} has no name: expected NAME=VALUE")));
            }
            if let Some(value) = value {
                values.insert(name.to_owned(), value);
            }
        }
        if let Some(value) = variable(SOURCE_DATE_EPOCH).filter(|value| !value.is_empty()) {
            values.entry(SOURCE_DATE_EPOCH.to_owned()).or_insert(value);
        }
        let mut arguments = Self { values, ..Self::default() };
        arguments.epoch = arguments.values.get(SOURCE_DATE_EPOCH).and_then(|text| text.parse().ok());
        arguments.keep_git_dir = arguments.switch("BUILDKIT_CONTEXT_KEEP_GIT_DIR")?;
        arguments.switch("BUILDKIT_INLINE_CACHE")?;
        if arguments.switch("BUILDKIT_MULTI_PLATFORM")? {
            return Err(Error::Usage("--build-arg BUILDKIT_MULTI_PLATFORM is not supported yet".to_owned()));
        }
        arguments.host_name()?;
        Ok(arguments)
    }

    /// Whether the user bounds the times in the image, so that a checkout should have a time of its own.
    pub(super) fn bounds_times(&self) -> bool {
        self.values.get(SOURCE_DATE_EPOCH).is_some_and(|text| !text.is_empty())
    }

    fn switch(&self, name: &str) -> Result<bool, Error> {
        let Some(value) = self.values.get(name).filter(|value| !value.is_empty()) else { return Ok(false) };
        boolean(value).ok_or_else(|| Error::Usage(format!("--build-arg {name}={value:?} is neither true nor false")))
    }

    fn host_name(&self) -> Result<(), Error> {
        const NAME: &str = "BUILDKIT_SANDBOX_HOSTNAME";
        let plain = |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '.' | '_');
        match self.values.get(NAME) {
            Some(name) if name.len() > LONGEST_HOST_NAME || !name.chars().all(plain) => {
                Err(Error::Usage(format!("--build-arg {NAME}={name:?} is not a host name of at most 64 bytes")))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(given: &[&str]) -> Result<BuildArguments, String> {
        let given: Vec<String> = given.iter().map(|text| (*text).to_owned()).collect();
        let variable = |name: &str| (name == "FROM_OUTSIDE").then(|| "value".to_owned());
        BuildArguments::parse(&given, &variable).map_err(|error| error.to_string())
    }

    #[test]
    fn values_come_from_the_command_line_or_the_environment() {
        let found = parse(&["A=1", "FROM_OUTSIDE", "NOWHERE", "SOURCE_DATE_EPOCH=5", "B="]).unwrap();
        let values: Vec<_> = found.values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(values, [("A", "1"), ("B", ""), ("FROM_OUTSIDE", "value"), ("SOURCE_DATE_EPOCH", "5")]);
        assert_eq!((found.epoch, found.bounds_times()), (Some(5), true));
        let named = parse(&["SOURCE_DATE_EPOCH=context"]).unwrap();
        assert_eq!((named.epoch, named.bounds_times()), (None, true));
        assert!(!parse(&["SOURCE_DATE_EPOCH="]).unwrap().bounds_times());
    }

    #[test]
    fn built_in_arguments_are_never_misread() {
        assert!(parse(&["BUILDKIT_CONTEXT_KEEP_GIT_DIR=T"]).unwrap().keep_git_dir);
        for fine in ["BUILDKIT_MULTI_PLATFORM=0", "BUILDKIT_INLINE_CACHE=1", "BUILDKIT_SANDBOX_HOSTNAME=a-b.c"] {
            assert!(parse(&[fine]).is_ok(), "{fine}");
        }
        for (wrong, needle) in [
            ("=x", "has no name"),
            ("BUILDKIT_CONTEXT_KEEP_GIT_DIR=yes", "neither true nor false"),
            ("BUILDKIT_INLINE_CACHE=2", "neither true nor false"),
            ("BUILDKIT_MULTI_PLATFORM=x", "neither true nor false"),
            ("BUILDKIT_MULTI_PLATFORM=1", "not supported yet"),
            ("BUILDKIT_SANDBOX_HOSTNAME=a b", "host name"),
        ] {
            assert!(parse(&[wrong]).is_err_and(|error| error.contains(needle)), "{wrong}");
        }
    }
}
