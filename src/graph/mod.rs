//! The layer graph: what has to be made, from what, in which order it *may* happen.
//!
//! Takes a [`Recipe`](crate::recipe::Recipe), the user's choices ([`Request`]) and the configurations of base images already resolved; gives a
//! [`Graph`] and the image configuration that goes with its target, or the list of base images it still needs to know.
//! Pure: same values in, same graph out, byte for byte. Never looks at a file or the network.

pub mod epoch;
pub mod explain;
pub mod lower;
pub mod named;
pub mod outline;
pub mod owner;

mod advice;
mod builtin;
mod chmod;
mod copy;
mod history;
mod instruction;
mod lint;
mod mount;
mod nodes;
mod path;
mod ports;
mod run;
mod scope;
mod signal;
mod stage;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

pub use self::lint::sounds_secret;
use crate::diagnostic::Span;
use crate::digest::Digest;
use crate::image::config::ImageConfig;
use crate::recipe::Caching;
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::recipe::remote::GitAddress;

/// The argument that bounds times, for which a default may stand before the first stage.
pub const SOURCE_DATE_EPOCH: &str = "SOURCE_DATE_EPOCH";

/// What the user asked of a recipe.
#[derive(Debug, Clone)]
pub struct Request {
    /// `--target`: a stage's name or number; the last stage where absent.
    pub target: Option<String>,
    /// `--build-arg`. A bare name that the environment does not have is left out.
    pub build_args: BTreeMap<String, String>,
    /// What the image is for.
    pub platform: Platform,
    /// Whether the user asked for that platform. If not, a target whose base is for another one says so in its
    /// configuration; if so, the configuration says what was asked for.
    pub platform_given: bool,
    /// What the build runs on.
    pub build_platform: Platform,
    /// Seconds since 1970 that no time in a new layer may exceed.
    pub source_date_epoch: Option<i64>,
    /// Whether stages that no target needs are lowered too, where there is no `target`: what is found in them counts
    /// when a recipe is checked.
    pub every_stage: bool,
    /// `--build-context`: what names in the recipe stand for before stages of another name and images are looked for.
    pub contexts: named::NamedContexts,
    /// What steps may have beyond the sandbox, `--allow`.
    pub allow: Allowed,
}

impl Request {
    /// What somebody asks for who says nothing: the last stage, for the platform that builds it.
    pub fn plain(platform: Platform) -> Self {
        Self {
            target: None,
            build_args: BTreeMap::new(),
            platform: platform.clone(),
            platform_given: false,
            build_platform: platform,
            source_date_epoch: None,
            every_stage: false,
            contexts: named::NamedContexts::default(),
            allow: Allowed::default(),
        }
    }
}

/// What a `RUN` may have that reaches beyond its sandbox: only what the user grants on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowed {
    /// `network.host`: the host's network.
    pub network_host: bool,
    /// `security.insecure`: all capabilities and no filter of system calls.
    pub security_insecure: bool,
}

/// A base image the graph refers to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Its name.
    pub reference: Reference,
    /// The platform wanted of it.
    pub platform: Platform,
    /// The OCI layout on disk that has it; its registry where absent.
    pub layout: Option<PathBuf>,
}

/// The place of a node in [`Graph::nodes`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub usize);

/// What has to be made. Nodes stand after everything they need; equal nodes are one.
#[derive(Debug, Clone)]
pub struct Graph {
    /// The nodes the target needs, and no others unless [`Request::every_stage`] asks for them.
    pub nodes: Vec<Node>,
    /// The node whose chain of layers is the image's.
    pub target: NodeId,
    /// The image's configuration, complete but for `created`, `rootfs` and the times in `history`. The base's history
    /// comes first, untouched; then one entry a step, of which the `n`th with a layer belongs to the `n`th layer node on
    /// the target's chain.
    pub config: ImageConfig,
    /// The base image at the bottom of the target's chain; `None` for `scratch`.
    pub base: Option<ImageRequest>,
    /// How many entries of `config.history` are the base's.
    pub base_history: usize,
    /// What the image is for.
    pub platform: Platform,
    /// Bound on the times of the image itself, from [`Request::source_date_epoch`] or the recipe's
    /// `ARG SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

/// One thing to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What is done.
    pub op: Op,
    /// Which step of the recipe asks for it: the first, where several do.
    pub origin: Origin,
    /// The stages of the others.
    pub also: Vec<String>,
    /// Whether an earlier result counts.
    pub caching: Caching,
}

impl Node {
    /// A node that one step asks for.
    pub fn new(op: Op, origin: Origin) -> Self {
        Self { op, origin, also: Vec::new(), caching: Caching::default() }
    }
}

/// The step of the recipe a node comes from; never part of a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// The stage's name, or `stage-N` for one without.
    pub stage: String,
    /// The number of the step in its stage, from 1 (`FROM` is 1); only steps that show progress count.
    pub step: usize,
    /// How many such steps the stage has.
    pub of: usize,
    /// The instruction as shown to people, such as `RUN make`.
    pub text: String,
    /// Where it stands; empty for a trigger of a base image.
    pub span: Span,
}

/// What a node does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Op {
    /// No layers.
    Scratch,
    /// The layers of an image.
    Image(ImageRequest),
    /// The files of a build context.
    Context(ContextName),
    /// A file over HTTP.
    Http(HttpSource),
    /// The files of a git repository.
    Git(GitAddress),
    /// Run a process.
    Run(RunOp),
    /// Copy files in.
    Copy(CopyOp),
    /// Make a directory and its parents (`WORKDIR`).
    Mkdir(MkdirOp),
}

/// A file over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpSource {
    /// Its address.
    pub address: String,
    /// What its digest has to be.
    pub checksum: Option<Digest>,
}

/// Which build context.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ContextName {
    /// The one named on the command line.
    Main,
    /// One given by `--build-context`.
    Named(String),
}

/// A variable's name and value.
pub type Variable = (Arc<str>, Arc<str>);

/// Variables in order. A recipe has as many of these lists as it has steps, so that their texts are shared.
pub type Variables = Arc<[Variable]>;

/// `RUN`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RunOp {
    /// The root file system it starts from.
    pub parent: NodeId,
    /// Program and arguments, the shell included.
    pub argv: Vec<String>,
    /// The whole environment in order, `PATH` included; build arguments in scope included.
    pub env: Variables,
    /// Proxy variables given by `--build-arg` but not declared: seen by the process, never part of a key.
    pub proxy_env: Vec<(String, String)>,
    /// Working directory, absolute.
    pub workdir: String,
    /// User and optional group, by name or number; empty for root.
    pub user: String,
    /// The network it sees.
    pub network: crate::recipe::Network,
    /// Whether it is kept in the sandbox.
    pub security: crate::recipe::Security,
    /// What is mounted for the run, in the order written.
    pub mounts: Vec<RunMount>,
    /// A script given as a heredoc with `#!`: mounted read-only at `/dev/pipes/NAME`, mode 0755, for the run.
    pub scripts: Vec<InlineFile>,
    /// Bound on times in the layer.
    pub epoch: Option<i64>,
    /// The host name it sees, where the user gave one.
    pub hostname: Option<String>,
}

/// One `--mount` of a `RUN`, expanded.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RunMount {
    /// Files from a context or from layers.
    Bind {
        /// Where they come from.
        from: NodeId,
        /// A path in it, relative to its root; `.` is that root itself.
        source: String,
        /// Absolute path in the root, never `/`.
        target: String,
        /// Whether the process may write; what it writes is thrown away.
        writable: bool,
    },
    /// A directory that outlives the build.
    Cache(CacheMount),
    /// Memory.
    Tmpfs {
        /// Absolute path in the root, never `/`.
        target: String,
        /// Its size in bytes; half the machine's memory where absent.
        size: Option<u64>,
        /// Whether the process may write.
        writable: bool,
    },
    /// A secret given on the command line.
    Secret {
        /// Its name there.
        id: String,
        /// The file that holds it, as an absolute path in the root, never `/`.
        target: Option<String>,
        /// The variable that holds it.
        env: Option<String>,
        /// Whether the step fails without it.
        required: bool,
        /// Who may do what with the file.
        access: Access,
    },
    /// The socket of an SSH agent given on the command line.
    Ssh {
        /// Its name there.
        id: String,
        /// Absolute path of the socket in the root, never `/`.
        target: String,
        /// Whether the step fails without it.
        required: bool,
        /// Who may do what with the socket.
        access: Access,
    },
}

/// Owner and mode of what a mount makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
}

/// `RUN --mount=type=cache`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CacheMount {
    /// What it is known by, together with the platform.
    pub id: String,
    /// Absolute path in the root, never `/`.
    pub target: String,
    /// How several steps use it.
    pub sharing: crate::recipe::Sharing,
    /// What an empty cache starts from: a node and a path relative to its root.
    pub from: Option<(NodeId, String)>,
    /// Permission bits of its root when it is made.
    pub mode: Option<u32>,
    /// Owner of its root when it is made.
    pub uid: Option<u32>,
    /// Group of its root when it is made.
    pub gid: Option<u32>,
    /// Whether the process may write.
    pub writable: bool,
}

/// A file whose content stands in the recipe.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct InlineFile {
    /// Its name, without directories.
    pub name: String,
    /// Its content.
    pub content: Vec<u8>,
}

/// `COPY` and `ADD`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CopyOp {
    /// The root file system it adds to.
    pub parent: NodeId,
    /// Where paths among the sources come from: a context, or a node with layers.
    pub from: NodeId,
    /// What is copied, in order.
    pub sources: Vec<CopySource>,
    /// Absolute path in the root; a trailing `/` means a directory.
    pub destination: String,
    /// `--chown`, expanded: `user[:group]`, by name or number.
    pub chown: Option<String>,
    /// `--chmod`, expanded.
    pub chmod: Option<String>,
    /// `--link`: independent of what the parent holds.
    pub link: bool,
    /// `--parents`
    pub parents: bool,
    /// `--exclude`, as written.
    pub exclude: Vec<String>,
    /// `ADD`: archives among the paths are unpacked.
    pub unpack: bool,
    /// Bound on times in the layer.
    pub epoch: Option<i64>,
}

/// One source of a [`CopyOp`].
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum CopySource {
    /// A path or pattern in `from`, relative to its root, lexically cleaned so that it cannot leave it; `.` is the root
    /// itself. With [`CopyOp::parents`] the first `/./` is kept: only what follows it is made again at the destination.
    Path(String),
    /// A file that stands in the recipe.
    Inline(InlineFile),
    /// Something fetched by its address (`ADD`).
    Fetched {
        /// The node that fetches it.
        from: NodeId,
        /// What of it: the name of a file, or `.` for everything in a repository.
        path: String,
        /// Whether it is unpacked if it is an archive.
        unpack: bool,
    },
}

impl CopyOp {
    /// The nodes that fetch sources, in order.
    pub fn fetched(&self) -> impl Iterator<Item = NodeId> {
        self.sources.iter().filter_map(|source| match source {
            CopySource::Fetched { from, .. } => Some(*from),
            CopySource::Path(_) | CopySource::Inline(_) => None,
        })
    }
}

/// `WORKDIR`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MkdirOp {
    /// The root file system it adds to.
    pub parent: NodeId,
    /// Absolute path, cleaned.
    pub path: String,
    /// Owner, as in `USER`; empty for root.
    pub user: String,
    /// Bound on times in the layer.
    pub epoch: Option<i64>,
}

impl Origin {
    /// How progress and errors name the step: `[builder 2/5] RUN make`.
    pub fn title(&self) -> String {
        let Self { stage, step, of, text, .. } = self;
        let stage = if stage.is_empty() { String::new() } else { format!("{stage} ") };
        format!("[{stage}{step}/{of}] {text}")
    }
}

impl RunMount {
    /// The node its files come from.
    pub fn from(&self) -> Option<NodeId> {
        match self {
            Self::Bind { from, .. } => Some(*from),
            Self::Cache(cache) => cache.from.as_ref().map(|(from, _)| *from),
            Self::Tmpfs { .. } | Self::Secret { .. } | Self::Ssh { .. } => None,
        }
    }
}

impl Op {
    /// The nodes this one needs, in a fixed order: the parent first.
    pub fn inputs(&self) -> Vec<NodeId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Context(_) | Self::Http(_) | Self::Git(_) => Vec::new(),
            Self::Run(run) => std::iter::once(run.parent).chain(run.mounts.iter().filter_map(RunMount::from)).collect(),
            Self::Copy(copy) => [copy.parent, copy.from].into_iter().chain(copy.fetched()).collect(),
            Self::Mkdir(mkdir) => vec![mkdir.parent],
        }
    }

    /// What it copies, if it copies.
    pub fn copy(&self) -> Option<&CopyOp> {
        match self {
            Self::Copy(copy) => Some(copy),
            _ => None,
        }
    }

    /// The node whose layers this one's layer comes on top of.
    pub fn parent(&self) -> Option<NodeId> {
        match self {
            Self::Scratch | Self::Image(_) | Self::Context(_) | Self::Http(_) | Self::Git(_) => None,
            Self::Run(RunOp { parent, .. })
            | Self::Copy(CopyOp { parent, .. })
            | Self::Mkdir(MkdirOp { parent, .. }) => Some(*parent),
        }
    }
}

impl Graph {
    /// Gives every step that asked for no network of its own the build's.
    pub fn set_network(&mut self, network: crate::recipe::Network) {
        for node in &mut self.nodes {
            if let Op::Run(run) = &mut node.op
                && run.network == crate::recipe::Network::Default
            {
                run.network = network;
            }
        }
    }
}

impl std::ops::Index<NodeId> for Graph {
    type Output = Node;

    fn index(&self, id: NodeId) -> &Node {
        &self.nodes[id.0]
    }
}
