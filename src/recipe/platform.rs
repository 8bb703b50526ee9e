//! Platforms: operating system, architecture and variant, spelled and compared as containerd does.
//!
//! Takes text, gives a normalised [`Platform`]; never asks the machine anything but what it was compiled for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::diagnostic::nearest;

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

/// Operating systems that may be named alone (Go's `GOOS`).
const SYSTEMS: [&str; 17] = [
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

/// Architectures that may be named alone (Go's `GOARCH`).
const ARCHITECTURES: [&str; 26] = [
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "ppc64",
    "ppc64le",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
    "wasm32",
    "alpha",
];

impl Platform {
    /// The platform this binary was compiled for.
    pub fn host() -> Self {
        Self { os: host_os().to_owned(), architecture: host_architecture().to_owned(), variant: None, os_version: None }
            .normalized()
    }

    /// The same platform with every part in its usual spelling: `x86_64` is `amd64`, `arm64/v8` is `arm64`, `arm` is
    /// `arm/v7`. What [`str::parse`] gives is normalised; what a registry or a file says may not be.
    #[must_use]
    pub fn normalized(self) -> Self {
        let os = match self.os.to_lowercase() {
            os if os.is_empty() => host_os().to_owned(),
            os if os == "macos" => "darwin".to_owned(),
            os => os,
        };
        let variant = self.variant.unwrap_or_default().to_lowercase();
        let (architecture, variant) = normalize(&self.architecture.to_lowercase(), &variant);
        Self { os, architecture, variant: Some(variant).filter(|variant| !variant.is_empty()), ..self }
    }

    /// The part that is no known operating system or architecture, with the known one nearest to it. Such a platform is
    /// one all the same: somebody may have images for it.
    pub fn unknown_part(&self) -> Option<(&str, Option<&'static str>)> {
        let unknown = |part: &'_ str, known: &[&'static str]| !part.is_empty() && !known.contains(&part);
        if unknown(&self.os, &SYSTEMS) && !self.os.starts_with("wasi") {
            return Some((&self.os, nearest(&self.os, SYSTEMS)));
        }
        unknown(&self.architecture, &ARCHITECTURES)
            .then(|| (self.architecture.as_str(), nearest(&self.architecture, ARCHITECTURES)))
    }

    /// Whether an image for `self` can serve where `wanted` is asked for.
    pub fn serves(&self, wanted: &Self) -> bool {
        self.rank(wanted).is_some()
    }

    /// How well an image for `self` serves where `wanted` is asked for: 0 for the very platform, more for each older
    /// variant or 32-bit relative that the processor also runs, `None` for what it cannot run.
    pub fn rank(&self, wanted: &Self) -> Option<usize> {
        let this = self.clone().normalized();
        let wanted = wanted.clone().normalized();
        if this.os != wanted.os || !version_serves(&this, &wanted) {
            return None;
        }
        let variant = this.variant.unwrap_or_default();
        runs(&wanted.architecture, wanted.variant.as_deref().unwrap_or_default())
            .into_iter()
            .position(|(architecture, runs)| architecture == this.architecture && runs == variant)
    }
}

/// The architectures and variants that a processor runs, the best first.
fn runs(architecture: &str, variant: &str) -> Vec<(String, String)> {
    let number = variant.strip_prefix('v').unwrap_or(variant);
    let older = |from: u32, to: u32| (to..from).rev().map(|version| (architecture.to_owned(), format!("v{version}")));
    let mut all = vec![(architecture.to_owned(), variant.to_owned())];
    match (architecture, number.parse::<u32>()) {
        ("amd64", version) => {
            if let Ok(version @ 2..=64) = version {
                all.extend(older(version, 2));
                // The first version is what is meant where none is written.
                all.push(("amd64".to_owned(), String::new()));
            }
            all.push(("386".to_owned(), String::new()));
        }
        ("arm", Ok(version @ 6..=64)) => all.extend(older(version, 5)),
        ("arm64", _) => {
            all = arm64_runs(number);
            all.extend((5..=8).rev().map(|version| ("arm".to_owned(), format!("v{version}"))));
        }
        _ => {}
    }
    all
}

/// The 64-bit variants that an ARM processor runs: Armv9.n is Armv8.(n+5) and more.
fn arm64_runs(number: &str) -> Vec<(String, String)> {
    let mut parts = if number.is_empty() { "8" } else { number }.splitn(2, '.');
    let mut next = || parts.next().map_or(Ok(0), str::parse::<u32>);
    let named = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    let variants: Vec<String> = match (next(), next()) {
        (Ok(8), Ok(minor @ 0..=64)) => (0..=minor).rev().map(|minor| named(8, minor)).collect(),
        (Ok(9), Ok(minor @ 0..=64)) => {
            let ninth = (0..=minor).rev().map(|minor| named(9, minor));
            ninth.chain((0..=minor + 5).rev().map(|minor| named(8, minor))).collect()
        }
        _ => vec![format!("v{number}")],
    };
    variants.into_iter().map(|variant| ("arm64".to_owned(), variant)).collect()
}

/// Whether a Windows image of this version runs on the version that is wanted: major, minor and build must agree.
fn version_serves(this: &Platform, wanted: &Platform) -> bool {
    if this.os != "windows" {
        return true;
    }
    match (&this.os_version, &wanted.os_version) {
        (Some(this), Some(wanted)) => this.split('.').take(3).eq(wanted.split('.').take(3)),
        _ => true,
    }
}

fn normalize(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = match (architecture, variant) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "8.0" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64", variant) => ("arm64", variant),
        ("armhf", _) | ("arm", "" | "7") => ("arm", "v7"),
        ("armel", _) | ("arm", "6") => ("arm", "v6"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "8") => ("arm", "v8"),
        other => other,
    };
    (architecture.to_owned(), variant.to_owned())
}

fn host_os() -> &'static str {
    match std::env::consts::OS {
        "macos" => "darwin",
        os => os,
    }
}

fn host_architecture() -> &'static str {
    match (std::env::consts::ARCH, cfg!(target_endian = "little")) {
        ("x86_64", _) => "amd64",
        ("x86", _) => "386",
        ("aarch64", _) => "arm64",
        ("powerpc64", true) => "ppc64le",
        ("powerpc64", false) => "ppc64",
        ("mips64", true) => "mips64le",
        ("mips", true) => "mipsle",
        ("loongarch64", _) => "loong64",
        (architecture, _) => architecture,
    }
}

impl FromStr for Platform {
    type Err = ParseError;

    /// Reads `os/architecture[/variant]`, where `os` may carry a version as in `windows(10.0.17763)`. An operating
    /// system or an architecture alone takes the rest from the host.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let fail = || ParseError { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        let (os, os_version) = split_version(parts[0]).ok_or_else(fail)?;
        if !parts[1..].iter().all(|part| is_word(part)) {
            return Err(fail());
        }
        let platform = |os: &str, architecture: &str, variant: Option<&str>| {
            let os_version = os_version.map(str::to_owned);
            let (os, architecture) = (os.to_owned(), architecture.to_owned());
            Self { os, architecture, variant: variant.map(str::to_owned), os_version }.normalized()
        };
        match parts.as_slice() {
            [_] => {
                let as_os = platform(os, host_architecture(), None);
                if SYSTEMS.contains(&as_os.os.as_str()) {
                    return Ok(as_os);
                }
                let as_architecture = platform(host_os(), os, None);
                let known = ARCHITECTURES.contains(&as_architecture.architecture.as_str());
                if known && os_version.is_none() { Ok(as_architecture) } else { Err(fail()) }
            }
            [_, architecture] => Ok(platform(os, architecture, None)),
            [_, architecture, variant] => Ok(platform(os, architecture, Some(variant))),
            _ => Err(fail()),
        }
    }
}

/// An operating system and the version in parentheses behind it.
fn split_version(text: &str) -> Option<(&str, Option<&str>)> {
    let Some((os, rest)) = text.split_once('(') else { return is_word(text).then_some((text, None)) };
    let version = rest.strip_suffix(')')?;
    let valid = is_word(os) && version.split('+').all(|part| part.is_empty() || is_word(part));
    valid.then_some((os, Some(version).filter(|version| !version.is_empty())))
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
}

/// `os/architecture[/variant]`, the version in parentheses behind the operating system.
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if let Some(version) = &self.os_version {
            write!(f, "({version})")?;
        }
        write!(f, "/{}", self.architecture)?;
        if let Some(variant) = &self.variant {
            write!(f, "/{variant}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Platform {
        text.parse().unwrap()
    }

    #[test]
    fn spellings_are_normalised() {
        for (text, normal) in [
            ("linux/amd64", "linux/amd64"),
            ("Linux/X86_64", "linux/amd64"),
            ("linux/x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("linux/i386", "linux/386"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/8", "linux/arm64"),
            ("linux/arm64/v9", "linux/arm64/v9"),
            ("linux/arm", "linux/arm/v7"),
            ("linux/arm/7", "linux/arm/v7"),
            ("linux/arm/v6", "linux/arm/v6"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/armel", "linux/arm/v6"),
            ("linux/riscv64", "linux/riscv64"),
            ("macos/arm64", "darwin/arm64"),
            ("windows(10.0.17763)/amd64", "windows(10.0.17763)/amd64"),
            ("windows()/amd64", "windows/amd64"),
            ("plan/nine", "plan/nine"),
        ] {
            assert_eq!(parse(text).to_string(), normal, "{text}");
            assert_eq!(parse(normal), parse(text));
        }
        assert_eq!(parse("linux").architecture, Platform::host().architecture);
        assert_eq!(parse("arm64").os, Platform::host().os);
        assert_eq!(parse("arm").variant.as_deref(), Some("v7"));
    }

    #[test]
    fn other_text_is_no_platform() {
        for text in [
            "",
            "/",
            "linux/",
            "/amd64",
            "linux/amd64/v1/x",
            "*",
            "linux/*",
            "nonsense",
            "a b/c",
            "windows(/amd64",
            "linux(1)x/amd64",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_variants_serve_newer_processors() {
        for (image, wanted, rank) in [
            ("linux/amd64", "linux/amd64", Some(0)),
            ("linux/386", "linux/amd64", Some(1)),
            ("linux/amd64", "linux/386", None),
            ("linux/amd64/v2", "linux/amd64/v3", Some(1)),
            ("linux/amd64", "linux/amd64/v3", Some(2)),
            ("linux/amd64/v3", "linux/amd64", None),
            ("linux/arm64", "linux/arm64", Some(0)),
            ("linux/arm64", "linux/arm64/v8", Some(0)),
            ("linux/arm64", "linux/arm64/v9", Some(6)),
            ("linux/arm64/v9", "linux/arm64", None),
            ("linux/arm/v7", "linux/arm64", Some(2)),
            ("linux/arm/v8", "linux/arm64", Some(1)),
            ("linux/arm64", "linux/arm/v7", None),
            ("linux/arm/v6", "linux/arm/v7", Some(1)),
            ("linux/arm/v5", "linux/arm/v7", Some(2)),
            ("linux/arm/v7", "linux/arm/v6", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/s390x", "linux/s390x", Some(0)),
            ("windows(10.0.17763.1)/amd64", "windows(10.0.17763.9)/amd64", Some(0)),
            ("windows(10.0.17763)/amd64", "windows(10.0.20348)/amd64", None),
            ("windows/amd64", "windows(10.0.20348)/amd64", Some(0)),
        ] {
            assert_eq!(parse(image).rank(&parse(wanted)), rank, "{image} for {wanted}");
            assert_eq!(parse(image).serves(&parse(wanted)), rank.is_some());
        }
    }

    #[test]
    fn what_a_registry_says_is_normalised_when_compared() {
        let said: Platform = serde_json::from_str(r#"{"os":"linux","architecture":"arm64","variant":"v8"}"#).unwrap();
        assert!(said.serves(&parse("linux/arm64")));
        let host = Platform::host();
        assert!(host.serves(&host) && host.to_string().parse::<Platform>().unwrap() == host);
    }
}
