//! Names that `--build-context` gives to files and images.
//!
//! Takes names as typed and what they stand for; answers what a name in the recipe means. Names are compared as image
//! names: `debian`, `docker.io/library/debian` and `debian:latest` are one. A name followed by `::os/arch` counts for
//! that platform only, and before the plain name. Never looks at what a name stands for.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::recipe::platform::Platform;
use crate::recipe::reference::{ParseError, Reference};

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// Files: a directory, a repository or an archive.
    Files,
    /// An image.
    Image {
        /// Its name.
        reference: Reference,
        /// The OCI layout it is read from, absolute; its registry where absent.
        layout: Option<PathBuf>,
    },
    /// `docker-image://scratch`: nothing.
    Scratch,
}

/// Every name that was given.
#[derive(Debug, Clone, Default)]
pub struct NamedContexts(BTreeMap<String, NamedContext>);

impl NamedContexts {
    /// Gives a name a meaning, in place of an earlier one. The name is as [`name`] gives it.
    pub fn insert(&mut self, name: String, context: NamedContext) {
        self.0.insert(name, context);
    }

    /// What a name in the recipe stands for, and the name it was given by.
    pub(super) fn get(&self, written: &str, platform: &Platform) -> Option<(&str, &NamedContext)> {
        if self.0.is_empty() {
            return None;
        }
        let plain = name(written).ok()?;
        let found = self.0.get_key_value(&format!("{plain}::{platform}")).or_else(|| self.0.get_key_value(&plain));
        found.map(|(name, context)| (name.as_str(), context))
    }
}

/// A name as names are compared: short, in lower case, without `:latest`; with its `::platform`, if it has one.
///
/// # Errors
/// If the text cannot be an image name, or what follows `::` is not a platform.
pub fn name(text: &str) -> Result<String, ParseError> {
    let (plain, platform) = match text.split_once("::") {
        Some((plain, platform)) => (plain, Some(platform)),
        None => (text, None),
    };
    let reference: Reference = plain.to_lowercase().parse()?;
    let familiar = reference.familiar();
    let familiar = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let Some(platform) = platform else { return Ok(familiar.to_owned()) };
    let wrong = |_| ParseError { text: text.to_owned(), reason: "after '::' there must be a platform" };
    let platform: Platform = platform.parse().map_err(wrong)?;
    Ok(format!("{familiar}::{platform}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_as_image_names() {
        for (text, expected) in [
            ("debian", Some("debian")),
            ("debian:latest", Some("debian")),
            ("docker.io/library/debian", Some("debian")),
            ("Base", Some("base")),
            ("debian:12", Some("debian:12")),
            ("ghcr.io/a/b", Some("ghcr.io/a/b")),
            ("debian::linux/arm64", Some("debian::linux/arm64")),
            ("debian::what/is/this/x", None),
            ("", None),
            ("a b", None),
        ] {
            assert_eq!(name(text).ok().as_deref(), expected, "{text:?}");
        }
    }

    #[test]
    fn a_name_for_one_platform_comes_first() {
        let mut contexts = NamedContexts::default();
        contexts.insert("base".to_owned(), NamedContext::Files);
        contexts.insert("base::linux/arm64".to_owned(), NamedContext::Scratch);
        let get = |platform: &str| contexts.get("Base", &platform.parse().unwrap()).map(|(_, context)| context.clone());
        assert_eq!(get("linux/amd64"), Some(NamedContext::Files));
        assert_eq!(get("linux/arm64"), Some(NamedContext::Scratch));
        assert_eq!(contexts.get("other", &"linux/amd64".parse().unwrap()), None);
    }
}
