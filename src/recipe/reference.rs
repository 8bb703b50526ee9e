//! Names of images: `registry/repository:tag@digest`, normalised as Docker does.
//!
//! Takes text, gives a [`Reference`]; never asks a registry. The grammar is that of the distribution project's
//! `reference` package; of digests only SHA-256 is known.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// The registry that is meant where none is written.
const DEFAULT_REGISTRY: &str = "docker.io";
/// An older name of it.
const LEGACY_REGISTRY: &str = "index.docker.io";
/// Where its repositories with a single name live.
const OFFICIAL: &str = "library/";
/// The longest repository name in bytes.
const LONGEST_NAME: usize = 255;
/// The longest tag in bytes.
const LONGEST_TAG: usize = 128;

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
        let name = if self.registry == DEFAULT_REGISTRY {
            let official = self.repository.strip_prefix(OFFICIAL).filter(|name| !name.contains('/'));
            official.unwrap_or(&self.repository).to_owned()
        } else {
            format!("{}/{}", self.registry, self.repository)
        };
        format!("{name}{}", Pin(self))
    }
}

impl FromStr for Reference {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        parse(text).map_err(|reason| ParseError { text: text.to_owned(), reason })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err("64 hexadecimal digits name an image's identity, not the image");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|_| "after '@' there must be sha256: and 64 hexadecimal digits")?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (registry, remote) = split_registry(rest);
    let (path, tag) = match remote.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (remote, None),
    };
    check_registry(registry)?;
    check_path(path)?;
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let repository =
        if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("{OFFICIAL}{path}") } else { path.to_owned() };
    if repository.len() > LONGEST_NAME {
        return Err("the repository's name has more than 255 characters");
    }
    let tag = tag.or_else(|| digest.is_none().then_some("latest")).map(str::to_owned);
    Ok(Reference { registry: registry.to_owned(), repository, tag, digest })
}

/// The registry and the rest. What stands before the first `/` is a registry only if it cannot be part of a path.
fn split_registry(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((LEGACY_REGISTRY, rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first == "localhost"
                || first.contains(['.', ':'])
                || first.bytes().any(|byte| byte.is_ascii_uppercase()) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, text),
    }
}

/// Host names are letters, digits and hyphens between dots; or an IPv6 address in brackets; then maybe a port.
fn check_registry(registry: &str) -> Result<(), &'static str> {
    const WRONG: &str = "the registry must be a host name or address with an optional port";
    let (host_ok, port) = if let Some(rest) = registry.strip_prefix('[') {
        let (address, rest) = rest.split_once(']').ok_or(WRONG)?;
        let valid = !address.is_empty() && address.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':');
        (valid, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("0")))
    } else {
        let (host, port) = registry.split_once(':').unwrap_or((registry, "0"));
        let label = |label: &str| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        };
        (host.split('.').all(label), Some(port))
    };
    let port_ok = port.is_some_and(|port| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()));
    if host_ok && port_ok { Ok(()) } else { Err(WRONG) }
}

/// Each component is runs of lower-case letters and digits, joined by one dot, one or two underscores, or hyphens.
fn check_path(path: &str) -> Result<(), &'static str> {
    if path.chars().any(char::is_uppercase) {
        return Err("the repository's name must be lower-case");
    }
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let component = |component: &str| {
        let separators = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let bytes = component.as_bytes();
        bytes.first().is_some_and(|first| alphanumeric(*first))
            && bytes.last().is_some_and(|last| alphanumeric(*last))
            && separators.into_iter().all(|run| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
    };
    if path.split('/').all(component) { Ok(()) } else { Err("the repository's name has a part that is not allowed") }
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    if tag.len() > LONGEST_TAG {
        return Err("the tag has more than 128 characters");
    }
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    if bytes.next().is_some_and(word) && bytes.all(|byte| word(byte) || matches!(byte, b'.' | b'-')) {
        return Ok(());
    }
    Err("the tag must be letters, digits, '_', '.' and '-', and must not begin with '.' or '-'")
}

/// The full, normalised name: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.registry, self.repository, Pin(self))
    }
}

/// `:tag@digest`, as far as there are any.
struct Pin<'a>(&'a Reference);

impl fmt::Display for Pin<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_normalised() {
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("library/debian:12", "docker.io/library/debian:12", "debian:12"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest"),
            ("grafana/loki", "docker.io/grafana/loki:latest", "grafana/loki:latest"),
            ("localhost/a", "localhost/a:latest", "localhost/a:latest"),
            ("localhost:5000/a/b:c", "localhost:5000/a/b:c", "localhost:5000/a/b:c"),
            ("quay.io/a__b/c.d-e---f:V1.0_x", "quay.io/a__b/c.d-e---f:V1.0_x", "quay.io/a__b/c.d-e---f:V1.0_x"),
            ("Registry/a", "Registry/a:latest", "Registry/a:latest"),
            ("[::1]/a", "[::1]/a:latest", "[::1]/a:latest"),
            ("[fe80::1]:5000/a:b", "[fe80::1]:5000/a:b", "[fe80::1]:5000/a:b"),
            ("a:5000", "docker.io/library/a:5000", "a:5000"),
            ("10.0.0.1/a", "10.0.0.1/a:latest", "10.0.0.1/a:latest"),
        ] {
            let reference: Reference = text.parse().unwrap();
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar), "{text}");
            assert_eq!(full.parse(), Ok(reference.clone()), "{text}");
            assert_eq!(familiar.parse(), Ok(reference), "{text}");
        }
    }

    #[test]
    fn a_digest_pins() {
        let pinned: Reference = format!("debian@{DIGEST}").parse().unwrap();
        assert_eq!((pinned.tag.as_deref(), pinned.familiar()), (None, format!("debian@{DIGEST}")));
        let both: Reference = format!("debian:12@{DIGEST}").parse().unwrap();
        assert_eq!(both.to_string(), format!("docker.io/library/debian:12@{DIGEST}"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let hexadecimal = &DIGEST["sha256:".len()..];
        for (text, part) in [
            ("", "empty"),
            (hexadecimal, "64 hexadecimal"),
            ("Debian", "lower-case"),
            ("docker.io/Debian:12", "lower-case"),
            ("a/B", "lower-case"),
            ("debian:", "the tag"),
            ("debian:.x", "the tag"),
            ("debian:a/b", "the registry"),
            ("quay.io/a:b/c", "the tag"),
            (&format!("debian:{}", "x".repeat(129)), "128"),
            (&"x".repeat(256), "255"),
            ("debian@sha256:12", "after '@'"),
            ("debian@", "after '@'"),
            ("a//b", "a part"),
            ("/a", "a part"),
            ("a/", "a part"),
            ("a..b", "a part"),
            ("a___b", "a part"),
            ("a._b", "a part"),
            ("-a", "a part"),
            ("a-", "a part"),
            ("a b", "a part"),
            ("é", "a part"),
            ("-x.y/a", "the registry"),
            ("x..y/a", "the registry"),
            ("x.y:/a", "the registry"),
            ("x.y:b/a", "the registry"),
            ("[::1/a", "the registry"),
            ("[::1]x/a", "the registry"),
            ("https://example.com/a", "the registry"),
        ] {
            let error = text.parse::<Reference>().unwrap_err();
            assert!(error.reason.contains(part), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_printing_is_its_inverse(text in "\\PC{0,40}|[a-zA-Z0-9.:/@_\\[\\]-]{0,30}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse(), Ok(reference));
            }
        }
    }
}
