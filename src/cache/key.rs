//! What a step depends on, and the key made of it.
//!
//! | field | run | copy | mkdir | what it holds |
//! |---|---|---|---|---|
//! | `op` | ✓ | ✓ | ✓ | the kind of step |
//! | `parent` | ✓ | ✓¹ | ✓ | the ChainID of what the step starts from; empty for `scratch` |
//! | `platform` | ✓ | | | what the process runs on |
//! | `argv` | ✓ | | | program and arguments, the shell included |
//! | `env` | ✓ | | | the environment, in order, undeclared proxies left out |
//! | `workdir`, `user` | ✓ | | | as configured; names are looked up in the parent, which is a field already |
//! | `network` | ✓ | | | `default` or `none`… |
//! | `scripts` | ✓ | | | name and content of heredoc scripts |
//! | `files` | | ✓ | | digest of the selected files: names, types, modes, owners, contents; never times |
//! | `destination`, `chown`, `chmod`, `flags` | | ✓ | | as expanded |
//! | `path`, `owner` | | | ✓ | as expanded |
//! | `epoch` | ✓ | ✓ | ✓ | `SOURCE_DATE_EPOCH`, where set |
//!
//! ¹ not for `--link`, whose layer is the same on any parent.
//!
//! Never in a key: secrets, limits, cache mounts, proxies, host names, a stage's name, a source path that carries no
//! meaning, times of context files. `FORMAT` is hashed in; whoever changes a field, its meaning or the layer format
//! raises it.

use serde::{Deserialize, Serialize};

use crate::digest::{ContentId, Digest, Key};
use crate::graph::{CopyOp, CopySource, MkdirOp, RunOp};
use crate::image::chain::Chain;
use crate::recipe::Network;
use crate::recipe::platform::Platform;

/// The version of the key format.
pub const FORMAT: u32 = 1;

/// One value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// One text.
    Text(String),
    /// Several, in an order that matters.
    List(Vec<String>),
}

/// The named fields a key is made of, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fields(Vec<(String, Field)>);

impl Fields {
    fn new(op: &str) -> Self {
        Self::default().text("op", op)
    }

    fn text(mut self, name: &str, value: impl Into<String>) -> Self {
        self.0.push((name.to_owned(), Field::Text(value.into())));
        self
    }

    fn list(mut self, name: &str, values: impl IntoIterator<Item = String>) -> Self {
        self.0.push((name.to_owned(), Field::List(values.into_iter().collect())));
        self
    }

    fn optional(self, name: &str, value: Option<impl Into<String>>) -> Self {
        match value {
            Some(value) => self.text(name, value),
            None => self,
        }
    }

    /// The fields by name, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Field)> {
        self.0.iter().map(|(name, field)| (name.as_str(), field))
    }

    /// The key: a digest of the canonical encoding (every text with its length before it, every list with its count).
    pub fn key(&self) -> Key {
        let mut hasher = blake3::Hasher::new_derive_key("strata step key");
        hasher.update(&FORMAT.to_le_bytes());
        let mut text = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        for (name, field) in &self.0 {
            text(name);
            match field {
                Field::Text(value) => {
                    text("text");
                    text(value);
                }
                Field::List(values) => {
                    text("list");
                    text(&values.len().to_string());
                    values.iter().for_each(|value| text(value));
                }
            }
        }
        hasher.finalize().into()
    }
}

fn chain_text(chain: &Chain) -> String {
    chain.id().map(|id| id.to_string()).unwrap_or_default()
}

fn epoch_text(epoch: Option<i64>) -> Option<String> {
    epoch.map(|epoch| epoch.to_string())
}

/// What a `RUN` depends on.
pub fn run(op: &RunOp, parent: &Chain, platform: &Platform) -> Fields {
    let network = match op.network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    };
    let scripts = op.scripts.iter().map(|script| format!("{} {}", script.name, Digest::of(&script.content)));
    Fields::new("run")
        .text("parent", chain_text(parent))
        .text("platform", platform.to_string())
        .list("argv", op.argv.iter().cloned())
        .list("env", op.env.iter().map(|(name, value)| format!("{name}={value}")))
        .text("workdir", op.workdir.as_str())
        .text("user", op.user.as_str())
        .text("network", network)
        .list("scripts", scripts)
        .optional("epoch", epoch_text(op.epoch))
}

/// What a `COPY` or `ADD` depends on. `files` is the digest of the selection.
pub fn copy(op: &CopyOp, parent: &Chain, files: &ContentId) -> Fields {
    let fetched = op.sources.iter().any(|source| matches!(source, CopySource::Fetched { unpack: true, .. }));
    let flags = [("link", op.link), ("unpack", op.unpack), ("unpack-fetched", fetched)];
    Fields::new("copy")
        .optional("parent", (!op.link).then(|| chain_text(parent)))
        .text("files", files.to_string())
        .text("destination", op.destination.as_str())
        .optional("chown", op.chown.as_deref())
        .optional("chmod", op.chmod.as_deref())
        .list("flags", flags.into_iter().filter(|(_, on)| *on).map(|(name, _)| name.to_owned()))
        .optional("epoch", epoch_text(op.epoch))
}

/// What a `WORKDIR` depends on.
pub fn mkdir(op: &MkdirOp, parent: &Chain) -> Fields {
    Fields::new("mkdir")
        .text("parent", chain_text(parent))
        .text("path", op.path.as_str())
        .text("owner", op.user.as_str())
        .optional("epoch", epoch_text(op.epoch))
}

/// The question "which files of this chain does this `COPY` select, and what are they?", whose answer never changes.
/// `fetched` are the identities of what [`CopyOp::fetched`] gave.
pub fn selection(op: &CopyOp, from: &Chain, fetched: &[String]) -> Key {
    let mut identities = fetched.iter();
    let sources = op.sources.iter().map(|source| match source {
        CopySource::Path(path) => format!("path {path}"),
        CopySource::Inline(file) => format!("inline {} {}", file.name, Digest::of(&file.content)),
        CopySource::Fetched { path, .. } => {
            format!("fetched {path:?} {}", identities.next().map_or("", String::as_str))
        }
    });
    Fields::new("selection")
        .text("from", chain_text(from))
        .list("sources", sources)
        .list("exclude", op.exclude.iter().cloned())
        // Owners and modes that the copy sets anyway are not part of what is selected.
        .text("chown", if op.chown.is_some() { "set" } else { "" })
        .text("chmod", op.chmod.as_deref().unwrap_or(""))
        .list("flags", op.parents.then(|| "parents".to_owned()))
        .key()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::NodeId;

    fn run_op() -> RunOp {
        RunOp {
            parent: NodeId(0),
            argv: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: vec![("PATH".into(), "/bin".into())],
            proxy_env: vec![("HTTP_PROXY".into(), "http://proxy".into())],
            workdir: "/".into(),
            user: String::new(),
            network: Network::Default,
            scripts: Vec::new(),
            epoch: None,
        }
    }

    fn platform() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: None, os_version: None }
    }

    #[test]
    fn every_field_counts_and_proxies_do_not() {
        let op = run_op();
        let key = |op: &RunOp| run(op, &Chain::scratch(), &platform()).key();
        assert_eq!(key(&op), key(&RunOp { proxy_env: Vec::new(), parent: NodeId(7), ..op.clone() }));
        let changed = [
            RunOp { argv: vec!["/bin/sh".into(), "-c true".into()], ..op.clone() },
            RunOp { env: vec![("PATH".into(), "/bin:".into())], ..op.clone() },
            RunOp { workdir: "/a".into(), ..op.clone() },
            RunOp { user: "a".into(), ..op.clone() },
            RunOp { network: Network::None, ..op.clone() },
            RunOp { epoch: Some(0), ..op.clone() },
        ];
        let mut keys: Vec<Key> = changed.iter().map(key).chain([key(&op)]).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), changed.len() + 1);
    }

    /// A key that changes without [`FORMAT`] changing makes every user's cache miss, or worse, hit wrongly.
    #[test]
    fn keys_are_stable() {
        assert_eq!(FORMAT, 1, "new format: replace the digests below");
        let key = run(&run_op(), &Chain::scratch(), &platform()).key();
        assert_eq!(key.to_string(), "blake3:9fc9ded8d41cbc32bd55098e6e76d6b99e88e18233b09e8d242938bc4cd6a999");
    }
}
