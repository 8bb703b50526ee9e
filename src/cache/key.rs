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
//! | `network` | ✓ | | | `default`, `none` or `host` |
//! | `security` | ✓ | | | `insecure`, where asked for |
//! | `hostname` | ✓ | | | the host name the step sees, where the user gave one |
//! | `mounts` | ✓ | | | for each mount its kind and target, and² |
//! | `scripts` | ✓ | | | name and content of heredoc scripts |
//! | `files` | | ✓ | | digest of the selected files: names, types, modes, owners, contents; never times |
//! | `destination`, `chown`, `chmod`, `flags` | | ✓ | | as expanded |
//! | `path`, `owner` | | | ✓ | as expanded |
//! | `epoch` | ✓ | ✓ | ✓ | `SOURCE_DATE_EPOCH`, where set |
//!
//! ¹ not for `--link`, whose layer is the same on any parent.
//! ² of a bind mount, whether it is writable and the digest of the files it shows, as of a copy (of all of a stage or
//! image, its ChainID); of a cache mount, whether it is writable; of a tmpfs, its size and whether it is writable; of a
//! secret, its id, variable, mode and owner; of an agent's socket, its id, mode and owner.
//!
//! Never in a key: the values of secrets, whether a secret is required, limits, what is in a cache mount, its id, its
//! sharing and what it starts from, proxies, names of other hosts, a stage's name, a source path that carries no
//! meaning, times of context files. `FORMAT` is hashed in; whoever changes a field, its meaning or the layer format
//! raises it.

use serde::{Deserialize, Serialize};

use crate::digest::{ContentId, Digest, Key};
use crate::graph::{Access, CopyOp, CopySource, MkdirOp, RunMount, RunOp};
use crate::image::chain::Chain;
use crate::recipe::platform::Platform;
use crate::recipe::{Network, Security};

/// The version of the key format.
pub const FORMAT: u32 = 2;

/// One value of a field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Field {
    /// One text.
    Text(String),
    /// Several, in an order that matters.
    List(Vec<String>),
}

impl Field {
    /// The texts of a list, or the one text.
    pub fn entries(&self) -> &[String] {
        match self {
            Self::Text(text) => std::slice::from_ref(text),
            Self::List(entries) => entries,
        }
    }
}

/// The named fields a key is made of, in a fixed order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Fields(Vec<(String, Field)>);

impl Fields {
    /// The names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.as_str())
    }

    /// The field of a name.
    pub fn get(&self, name: &str) -> Option<&Field> {
        self.0.iter().find(|(own, _)| own == name).map(|(_, field)| field)
    }

    /// The digests of files among them: of what a copy selects, and of what each bind mount shows.
    pub fn selections(&self) -> Vec<ContentId> {
        let binds =
            self.get("mounts").map(Field::entries).unwrap_or_default().iter().filter(|of| of.starts_with("bind "));
        let digests = self.get("files").map(Field::entries).unwrap_or_default().iter().chain(binds);
        digests.filter_map(|text| text.rsplit(' ').next()?.parse().ok()).collect()
    }

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

/// What a `RUN` depends on. `shown` has the digest of what each of its bind mounts shows, in their order.
pub fn run(op: &RunOp, parent: &Chain, platform: &Platform, shown: &[ContentId]) -> Fields {
    let network = match op.network {
        Network::Default => "default",
        Network::None => "none",
        Network::Host => "host",
    };
    let scripts = op.scripts.iter().map(|script| format!("{} {}", script.name, Digest::of(&script.content)));
    let fields = Fields::new("run")
        .text("parent", chain_text(parent))
        .text("platform", platform.to_string())
        .list("argv", op.argv.iter().cloned())
        .list("env", op.env.iter().map(|(name, value)| format!("{name}={value}")))
        .text("workdir", op.workdir.as_str())
        .text("user", op.user.as_str())
        .text("network", network)
        .list("scripts", scripts)
        .optional("epoch", epoch_text(op.epoch))
        .optional("hostname", op.hostname.as_deref())
        .optional("security", (op.security == Security::Insecure).then_some("insecure"));
    if op.mounts.is_empty() { fields } else { fields.list("mounts", mounts(&op.mounts, shown)) }
}

/// One text for each mount. Names are quoted, so that none can look like two.
fn mounts(mounts: &[RunMount], shown: &[ContentId]) -> Vec<String> {
    let may_write = |writable: bool| if writable { "rw" } else { "ro" };
    let access = |access: &Access| format!("{:o} {}:{}", access.mode, access.uid, access.gid);
    let mut shown = shown.iter();
    let text = |mount: &RunMount| match mount {
        RunMount::Bind { target, writable, .. } => {
            let files = shown.next().map(ToString::to_string).unwrap_or_default();
            format!("bind {target:?} {} {files}", may_write(*writable))
        }
        RunMount::Cache(cache) => format!("cache {:?} {}", cache.target, may_write(cache.writable)),
        RunMount::Tmpfs { target, size, writable } => {
            let size = size.map_or_else(|| "any".to_owned(), |size| size.to_string());
            format!("tmpfs {target:?} {} {size}", may_write(*writable))
        }
        RunMount::Secret { id, target, env, access: of, .. } => {
            format!("secret {id:?} file {:?} env {:?} {}", target.as_deref(), env.as_deref(), access(of))
        }
        RunMount::Ssh { id, target, access: of, .. } => format!("ssh {id:?} {target:?} {}", access(of)),
    };
    mounts.iter().map(text).collect()
}

/// The question "what does this path of this chain show when it is mounted?", whose answer never changes.
pub fn shown(source: &str, from: &Chain) -> Key {
    Fields::new("shown path").text("from", chain_text(from)).text("source", source).key()
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
    use crate::digest::DiffId;
    use crate::graph::{CacheMount, InlineFile, NodeId};
    use crate::recipe::Sharing;

    fn run_op() -> RunOp {
        RunOp {
            parent: NodeId(0),
            argv: vec!["/bin/sh".into(), "-c".into(), "true".into()],
            env: [("PATH".into(), "/bin".into())].into(),
            proxy_env: vec![("HTTP_PROXY".into(), "http://proxy".into())],
            workdir: "/".into(),
            user: String::new(),
            network: Network::Default,
            security: Security::Sandbox,
            mounts: Vec::new(),
            scripts: Vec::new(),
            epoch: None,
            hostname: None,
        }
    }

    fn platform() -> Platform {
        Platform { os: "linux".into(), architecture: "amd64".into(), variant: None, os_version: None }
    }

    #[test]
    fn every_field_counts_and_proxies_do_not() {
        let op = run_op();
        let key = |op: &RunOp| run(op, &Chain::scratch(), &platform(), &[]).key();
        assert_eq!(key(&op), key(&RunOp { proxy_env: Vec::new(), parent: NodeId(7), ..op.clone() }));
        let changed = [
            RunOp { argv: vec!["/bin/sh".into(), "-c true".into()], ..op.clone() },
            RunOp { hostname: Some("other".into()), ..op.clone() },
            RunOp { env: [("PATH".into(), "/bin:".into())].into(), ..op.clone() },
            RunOp { workdir: "/a".into(), ..op.clone() },
            RunOp { user: "a".into(), ..op.clone() },
            RunOp { network: Network::None, ..op.clone() },
            RunOp { network: Network::Host, ..op.clone() },
            RunOp { security: Security::Insecure, ..op.clone() },
            RunOp { epoch: Some(0), ..op.clone() },
        ];
        let mut keys: Vec<Key> = changed.iter().map(key).chain([key(&op)]).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), changed.len() + 1);
    }

    fn cache(target: &str) -> CacheMount {
        CacheMount {
            id: "id".into(),
            target: target.into(),
            sharing: Sharing::Shared,
            from: None,
            mode: None,
            uid: None,
            gid: None,
            writable: true,
        }
    }

    #[test]
    fn mounts_count_by_what_a_step_can_see_of_them() {
        let one = ContentId::from_bytes([1; 32]);
        let other = ContentId::from_bytes([2; 32]);
        let key = |mount: RunMount, shown: &ContentId| {
            let op = RunOp { mounts: vec![mount], ..run_op() };
            run(&op, &Chain::scratch(), &platform(), std::slice::from_ref(shown)).key()
        };
        let bind = |from, source: &str, target: &str, writable| RunMount::Bind {
            from: NodeId(from),
            source: source.into(),
            target: target.into(),
            writable,
        };
        let tmpfs = |target: &str, size| RunMount::Tmpfs { target: target.into(), size, writable: true };
        let access = Access { mode: 0o400, uid: 0, gid: 0 };
        let secret = |id: &str, target: Option<&str>, env: Option<&str>, required, access| RunMount::Secret {
            id: id.into(),
            target: target.map(Into::into),
            env: env.map(Into::into),
            required,
            access,
        };
        let ssh =
            |id: &str, target: &str| RunMount::Ssh { id: id.into(), target: target.into(), required: true, access };
        let different = [
            run(&run_op(), &Chain::scratch(), &platform(), &[]).key(),
            key(bind(1, ".", "/a", false), &one),
            key(bind(1, ".", "/a", false), &other),
            key(bind(1, ".", "/a", true), &one),
            key(bind(1, ".", "/b", false), &one),
            key(RunMount::Cache(cache("/a")), &one),
            key(RunMount::Cache(cache("/b")), &one),
            key(RunMount::Cache(CacheMount { writable: false, ..cache("/a") }), &one),
            key(tmpfs("/a", None), &one),
            key(tmpfs("/b", None), &one),
            key(tmpfs("/a", Some(1)), &one),
            key(secret("x", Some("/a"), None, true, access), &one),
            key(secret("y", Some("/a"), None, true, access), &one),
            key(secret("x", Some("/b"), None, true, access), &one),
            key(secret("x", Some("/a"), Some("A"), true, access), &one),
            key(secret("x", None, Some("A"), true, access), &one),
            key(secret("x", Some("/a"), None, true, Access { mode: 0o444, ..access }), &one),
            key(secret("x", Some("/a"), None, true, Access { uid: 1, ..access }), &one),
            key(ssh("x", "/a"), &one),
            key(ssh("y", "/a"), &one),
            key(ssh("x", "/b"), &one),
        ];
        let count = different.len();
        assert_eq!(std::collections::BTreeSet::from(different).len(), count);
        // Where the files are, what a cache holds and who shares it, and whether a secret may be missing, do not count.
        assert_eq!(key(bind(1, ".", "/a", false), &one), key(bind(2, "elsewhere", "/a", false), &one));
        let changed = CacheMount {
            id: "other".into(),
            sharing: Sharing::Locked,
            from: Some((NodeId(3), "x".into())),
            mode: Some(0o700),
            uid: Some(1),
            gid: Some(1),
            ..cache("/a")
        };
        assert_eq!(key(RunMount::Cache(cache("/a")), &one), key(RunMount::Cache(changed), &one));
        assert_eq!(
            key(secret("x", None, Some("A"), true, access), &one),
            key(secret("x", None, Some("A"), false, access), &one)
        );
    }

    fn copy_op() -> CopyOp {
        CopyOp {
            parent: NodeId(0),
            from: NodeId(1),
            sources: vec![CopySource::Path("src".into())],
            destination: "/app/".into(),
            chown: Some("1000:1000".into()),
            chmod: Some("u=rwX".into()),
            link: false,
            parents: true,
            exclude: vec!["*.md".into()],
            unpack: true,
            epoch: Some(1_700_000_000),
        }
    }

    /// A key that changes without [`FORMAT`] changing makes every user's cache miss, or worse, hit wrongly. So each kind
    /// of key is pinned, with every field that it can have.
    #[test]
    fn keys_are_stable() {
        assert_eq!(FORMAT, 2, "new format: replace the digests below");
        let (scratch, content) = (Chain::scratch(), ContentId::from_bytes([7; 32]));
        let parent = scratch.with(DiffId::from(Digest::of(b"layer")));
        let access = Access { mode: 0o400, uid: 1, gid: 2 };
        let full = RunOp {
            security: Security::Insecure,
            hostname: Some("builder".into()),
            epoch: Some(1_700_000_000),
            scripts: vec![InlineFile { name: "EOF".into(), content: b"echo".to_vec() }],
            mounts: vec![
                RunMount::Bind { from: NodeId(1), source: ".".into(), target: "/src".into(), writable: true },
                RunMount::Cache(cache("/cache")),
                RunMount::Tmpfs { target: "/tmp".into(), size: Some(4096), writable: true },
                RunMount::Secret {
                    id: "token".into(),
                    target: Some("/run/secrets/token".into()),
                    env: Some("TOKEN".into()),
                    required: true,
                    access,
                },
                RunMount::Ssh { id: "default".into(), target: "/run/agent".into(), required: true, access },
            ],
            ..run_op()
        };
        let made = MkdirOp { parent: NodeId(0), path: "/app".into(), user: "me".into(), epoch: Some(1_700_000_000) };
        for (what, key, expected) in [
            (
                "run",
                run(&run_op(), &scratch, &platform(), &[]).key(),
                "0809a2ec1c6a6119d8e876e6e5a04e59b6715dbc9b4e8c9fb97434539f400778",
            ),
            (
                "run with everything",
                run(&full, &parent, &platform(), &[content]).key(),
                "1a8823922c5ae6d3a72316cfdb222a2f63097b23841070fdc61d854f606372b5",
            ),
            (
                "copy",
                copy(&copy_op(), &parent, &content).key(),
                "41692063698ee0b4b28a48d53a1cd29df1bf243c17f677574a55ae62e10e204b",
            ),
            (
                "linked copy",
                copy(&CopyOp { link: true, ..copy_op() }, &parent, &content).key(),
                "e4b3df188e186c2124fa4867aebf0f7c654bac248428153488776b81ed8db938",
            ),
            ("mkdir", mkdir(&made, &parent).key(), "cb04ad98cfb82bc4ef63cd3f1f06644f9b243a3e971a19529e07553b67ddb184"),
            (
                "selection",
                selection(&copy_op(), &parent, &[]),
                "421c97b6dad3672772b9a6d4fe72e2691670bf917b9b52b6c9b08e269cb63ff7",
            ),
            ("shown", shown("a/b", &parent), "6f92f3713f4ffbd8e9f63b073a84b386857c04a3fe7aaf58aed92f2a8c81777d"),
        ] {
            assert_eq!(key.to_string().strip_prefix("blake3:"), Some(expected), "{what}");
        }
    }
}
