//! Flags of `docker build` about the image, its network and what is written about a build: what was typed → what it means.
//!
//! A value that has no meaning here is refused with a reason; none is ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use serde_json::json;

use crate::build::Built;
use crate::cli::exit::Error;
use crate::recipe::Network;
use crate::runtime::network;

/// Flags about the image and about what is written when it is built.
#[derive(Debug, Args)]
pub(super) struct ImageFlags {
    /// Set a label of the image, over what the recipe says
    #[arg(long = "label", value_name = "NAME=VALUE")]
    labels: Vec<String>,

    /// Annotate the image's manifest
    #[arg(long = "annotation", value_name = "[manifest:]NAME=VALUE")]
    annotations: Vec<String>,

    /// Write the image's id to a file
    #[arg(long, value_name = "FILE")]
    iidfile: Option<PathBuf>,

    /// Write digests and names of the image to a file, as JSON
    #[arg(long, value_name = "FILE")]
    metadata_file: Option<PathBuf>,

    /// Provenance attestations: only false, which is the default
    #[arg(long, value_name = "false")]
    provenance: Option<String>,

    /// SBOM attestations: only false, which is the default
    #[arg(long, value_name = "false")]
    sbom: Option<String>,

    /// Attestations: only with disabled=true, which is the default
    #[arg(long = "attest", value_name = "type=TYPE,disabled=true")]
    attestations: Vec<String>,
}

impl ImageFlags {
    /// `--label`
    pub(super) fn labels(&self) -> Result<BTreeMap<String, String>, Error> {
        // A label without a value is an empty one, as with Docker.
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').unwrap_or((text, ""));
            named("--label", text, name).map(|name| (name, value.to_owned()))
        };
        self.labels.iter().map(pair).collect()
    }

    /// `--annotation`
    pub(super) fn annotations(&self) -> Result<BTreeMap<String, String>, Error> {
        let pair = |text: &String| {
            let (name, value) = text
                .split_once('=')
                .ok_or_else(|| Error::Usage(format!("--annotation {text:?} has no value: expected NAME=VALUE")))?;
            let name = match name.split_once(':') {
                Some(("manifest", name)) => name,
                Some((level, _)) if is_level(level) => {
                    return Err(Error::Usage(format!(
                        "--annotation {text:?} is not supported yet: only the manifest can be annotated, not {level}"
                    )));
                }
                _ => name,
            };
            named("--annotation", text, name).map(|name| (name, value.to_owned()))
        };
        self.annotations.iter().map(pair).collect()
    }

    /// `--provenance`, `--sbom`, `--attest`: nothing is attested, so only that can be asked for.
    pub(super) fn refuse_attestations(&self) -> Result<(), Error> {
        let off = |value: &str| matches!(value, "0" | "f" | "F" | "false" | "FALSE" | "False" | "disabled=true");
        for (flag, value) in [("--provenance", &self.provenance), ("--sbom", &self.sbom)] {
            if let Some(value) = value.as_deref().filter(|value| !off(value)) {
                return Err(Error::Usage(format!("{flag} {value} is not supported yet: no attestations are made")));
            }
        }
        let disabled = |value: &&String| !value.split(',').any(|part| part == "disabled=true");
        match self.attestations.iter().find(disabled) {
            Some(value) => {
                Err(Error::Usage(format!("--attest {value} is not supported yet: no attestations are made")))
            }
            None => Ok(()),
        }
    }

    /// Removes the file of an earlier build, so that a failed one leaves no id that is not its own.
    pub(super) fn clear(&self) -> Result<(), Error> {
        let Some(path) = &self.iidfile else { return Ok(()) };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Write { path: path.clone(), source: error })
            }
            _ => Ok(()),
        }
    }

    /// Writes what was asked for about a finished build.
    pub(super) fn write(&self, built: &Built) -> Result<(), Error> {
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).map_err(|source| Error::Write { path: path.to_owned(), source })
        };
        if let Some(path) = &self.iidfile {
            write(path, built.image_id.to_string())?;
        }
        if let Some(path) = &self.metadata_file {
            write(path, format!("{:#}\n", metadata(built)))?;
        }
        Ok(())
    }
}

/// The document of `--metadata-file`, with buildx's keys. The digest is that of the last output, or of the image in the
/// local store where there is none.
fn metadata(built: &Built) -> serde_json::Value {
    let descriptor = built.exported.last().map_or(&built.descriptor, |(_, descriptor)| descriptor);
    let mut document = json!({
        "containerimage.config.digest": built.image_id.to_string(),
        "containerimage.descriptor": descriptor,
        "containerimage.digest": descriptor.digest.to_string(),
    });
    if !built.names.is_empty() {
        let names: Vec<String> = built.names.iter().map(ToString::to_string).collect();
        document["image.name"] = names.join(",").into();
    }
    document
}

/// `--network` of the whole build.
pub(super) fn network(value: Option<&str>) -> Result<Network, Error> {
    match value {
        None | Some("default") => Ok(Network::Default),
        Some("none") => Ok(Network::None),
        Some("host") => Ok(Network::Host),
        Some(other) => Err(Error::Usage(format!(
            "--network {other} is not supported: the networks of a build are default, none and host"
        ))),
    }
}

/// `--add-host`: `NAME:ADDRESS` or `NAME=ADDRESS`, an address of IPv6 in brackets or not, or `host-gateway`, which is
/// where steps reach this machine.
pub(super) fn hosts(values: &[String]) -> Result<Vec<(String, IpAddr)>, Error> {
    let one = |text: &String| {
        let wrong = || Error::Usage(format!("--add-host {text:?}: expected NAME:ADDRESS or NAME=ADDRESS"));
        let (name, address) = text.split_once('=').or_else(|| text.split_once(':')).ok_or_else(wrong)?;
        if address == "host-gateway" {
            let address = network::host_address().ok_or_else(|| {
                Error::Usage(format!("--add-host {text:?}: this machine has no address that steps could reach it by"))
            })?;
            return Ok((name.to_owned(), address));
        }
        let address = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        let address = address.parse().map_err(|_| wrong())?;
        let plain = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '#');
        if plain { Ok((name.to_owned(), address)) } else { Err(wrong()) }
    };
    values.iter().map(one).collect()
}

fn named(flag: &str, text: &str, name: &str) -> Result<String, Error> {
    if name.is_empty() {
        return Err(Error::Usage(format!("{flag} {text:?} has no name: expected NAME=VALUE")));
    }
    Ok(name.to_owned())
}

/// Whether this is one of the things that buildx can annotate, with or without a platform.
fn is_level(text: &str) -> bool {
    let level = text.split('[').next().unwrap_or(text);
    level.split(',').all(|level| ["index", "manifest", "index-descriptor", "manifest-descriptor"].contains(&level))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_read_in_every_form() {
        for (text, expected) in [
            ("a:1.2.3.4", Some("1.2.3.4")),
            ("a=1.2.3.4", Some("1.2.3.4")),
            ("a:::1", Some("::1")),
            ("a=[::1]", Some("::1")),
            ("a:[::1]", Some("::1")),
            ("a", None),
            (":1.2.3.4", None),
            ("a b=1.2.3.4", None),
            ("a=nowhere", None),
        ] {
            let read = hosts(&[text.to_owned()]).ok();
            let expected = expected.map(|address| vec![("a".to_owned(), address.parse().expect("an address"))]);
            assert_eq!(read, expected, "{text}");
        }
    }

    #[test]
    fn levels_of_annotations_are_told_from_names() {
        for (text, expected) in
            [("index", true), ("manifest[linux/amd64]", true), ("index,manifest", true), ("org.example", false)]
        {
            assert_eq!(is_level(text), expected, "{text}");
        }
    }
}
