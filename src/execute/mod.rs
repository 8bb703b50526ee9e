//! One graph node → one layer.
//!
//! Takes an operation and the chains of its inputs, gives the DiffID of the layer it made, published in the store.
//! Decides *how* a step is done and never *when* or *whether*: that is `schedule`'s.

pub mod agent;
pub mod cache_mount;
pub mod copy;
pub mod mask;
mod missing;
pub mod mkdir;
pub mod mount;
pub mod network;
pub mod owner;
mod run;
pub mod shell;
pub mod stage;

use std::collections::{BTreeMap, HashSet};
use std::ffi::CString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use crate::base::{self, Bases, layers::Layers};
use crate::context;
use crate::context::opened::Opened;
use crate::digest::{ContentId, DiffId, Key};
use crate::fetch::{self, Fetched, FetchedTree, Fetcher, Joined};
use crate::graph::{ContextName, CopyOp, MkdirOp, Op};
use crate::image::chain::Chain;
use crate::layer::archive::{self, Arriving, Times};
use crate::layer::tree::Tree;
use crate::layer::view::{Tops, View};
use crate::layer::{OverlayXattr, diff};
use crate::limits::Limits;
use crate::progress::Task;
use crate::recipe::platform::Platform;
use crate::runtime::{self, Cancel};
use crate::secret::{self, Secrets};
use crate::store::{self, LayerMeta, Origin, Store};

pub use copy::select::Selection;
use owner::{FileOwner, Owner};

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The process returned a code other than 0.
    #[error("process {command:?} did not complete successfully: exit code: {code}")]
    Exit {
        /// What ran.
        command: String,
        /// What it returned.
        code: i32,
    },
    /// A signal ended the process.
    #[error("process {command:?} was ended by signal {signal}{}", killed_hint(signal))]
    Signal {
        /// What ran.
        command: String,
        /// The signal's name or number.
        signal: String,
    },
    /// The kernel killed a process of the step, because all of them wanted more memory than its limit.
    #[error(
        "process {command:?} did not complete successfully: {ended}: a process of it was killed because the step wanted \
         more than --memory {limit} (give it more, or see memory in [step] of the settings)"
    )]
    OutOfMemory {
        /// What ran.
        command: String,
        /// How it ended.
        ended: Ended,
        /// The limit.
        limit: String,
    },
    /// The kernel refused the step a process, because it had as many as its limit.
    #[error(
        "process {command:?} did not complete successfully: {ended}: it reached --pids-limit {limit} and was refused a \
         process (give it more, or see pids-limit in [step] of the settings)"
    )]
    TooManyProcesses {
        /// What ran.
        command: String,
        /// How it ended.
        ended: Ended,
        /// The limit.
        limit: u64,
    },
    /// The process failed, and there is no room left where it wrote.
    #[error(
        "process {command:?} did not complete successfully: {ended}: the file system of {root} is full (make room, or set \
         STRATA_ROOT to a directory on a larger one)"
    )]
    DiskFull {
        /// What ran.
        command: String,
        /// How it ended.
        ended: Ended,
        /// Where the store is.
        root: PathBuf,
    },
    /// The step took longer than its limit.
    #[error(
        "process {command:?} was ended because it took longer than --step-timeout {limit} (give it more, or see timeout \
         in [step] of the settings)"
    )]
    TimedOut {
        /// What ran.
        command: String,
        /// The limit.
        limit: String,
    },
    /// Another failure, or the user, ended the build.
    #[error("the build was cancelled")]
    Cancelled,
    /// The sandbox could not be made, or the program could not be started.
    #[error(transparent)]
    Runtime(#[from] runtime::Error),
    /// A source of a copy is not there.
    #[error("{source_path:?} not found in {place}{}", hidden.as_ref().map(|pattern| format!(": it is excluded by {pattern}")).unwrap_or_default())]
    NotFound {
        /// The source as written.
        source_path: String,
        /// The context or image it was looked for in.
        place: String,
        /// The ignore pattern that hides it, with its file and line.
        hidden: Option<String>,
        /// The nearest path that is there.
        nearest: Option<String>,
    },
    /// Files could not be selected or written.
    #[error(transparent)]
    Copy(#[from] copy::Error),
    /// A user or group is not known.
    #[error(transparent)]
    Owner(#[from] owner::Error),
    /// A name is to own files of an image that is empty.
    #[error("{spec:?} is a name, and an image that starts from scratch has nobody of any name: give numbers")]
    NameInScratch {
        /// The owner as written.
        spec: String,
    },
    /// The working directory could not be made.
    #[error(transparent)]
    Mkdir(#[from] stage::Error),
    /// The layers the step starts from cannot be had.
    #[error(transparent)]
    Base(#[from] base::layers::Error),
    /// What the step changed could not be told.
    #[error(transparent)]
    Diff(#[from] diff::Error),
    /// What the step changed could not be read.
    #[error(transparent)]
    Archive(#[from] archive::Error),
    /// A source could not be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
    /// The context's index could not be used.
    #[error(transparent)]
    Context(#[from] context::Error),
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A word of the step holds a NUL byte, which no program can be given.
    #[error("{text:?} holds a NUL byte")]
    NulByte {
        /// The word.
        text: String,
    },
    /// A layer in the store cannot be opened.
    #[error(transparent)]
    Layers {
        /// Which, and what the system said.
        source: io::Error,
    },
    /// A secret cannot be had.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// An SSH agent cannot be had.
    #[error(transparent)]
    Agent(#[from] agent::Error),
    /// A cache mount's directory cannot be made.
    #[error("cannot {action} the cache mount {id}")]
    CacheMount {
        /// The cache's id.
        id: String,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A cache mount cannot belong to whom it should.
    #[error(
        "the cache mount {id} cannot belong to {uid}:{gid}: the ids must be mapped (add a range of ids for this user to /etc/subuid and /etc/subgid)"
    )]
    CacheMountOwner {
        /// The cache's id.
        id: String,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the host that a step needs could not be read.
    #[error("{path} cannot be read: {source}")]
    Host {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// How a process ended that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ended {
    /// It returned this code.
    Code(i32),
    /// The signal of this name or number ended it.
    Signal(String),
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code: {code}"),
            Self::Signal(signal) => write!(f, "signal: {signal}"),
        }
    }
}

impl Error {
    /// Whether something was needed that an earlier step or a fetch had left in the store, and is not there any more.
    pub fn is_loss(&self) -> bool {
        match self {
            Self::Base(error) => matches!(error, base::layers::Error::Lost { .. }),
            Self::Fetch(error) => matches!(error, fetch::Error::Store(store::Error::NoBlob { .. })),
            _ => false,
        }
    }

    /// Whether this machine, and not the recipe, is the cause.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Runtime(error) => error.is_environment(),
            Self::Base(error) => error.is_environment(),
            Self::Fetch(error) => error.is_environment(),
            Self::Copy(copy::Error::Stage(stage::Error::Owner { .. }))
            | Self::Mkdir(stage::Error::Owner { .. })
            | Self::CacheMount { .. }
            | Self::CacheMountOwner { .. }
            | Self::Store(_)
            | Self::Host { .. }
            | Self::Layers { .. } => true,
            _ => false,
        }
    }
}

/// Where nobody limited a step and it was killed, the machine is the first to suspect.
fn killed_hint(signal: &str) -> &'static str {
    if signal.starts_with("SIGKILL") { ": the system may have run out of memory" } else { "" }
}

/// The files a copy selects, and the tree to read them from.
#[derive(Debug)]
pub struct Files {
    selection: Selection,
    from: From,
    fetched: Vec<FetchedTree>,
}

#[derive(Debug)]
enum From {
    Context(ContextName),
    Layers(View),
}

impl Files {
    /// What is selected.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }

    /// Whether paths are those of several trees put together.
    pub fn is_joined(&self) -> bool {
        !self.fetched.is_empty()
    }

    /// The digest of what is selected.
    pub fn digest(&self) -> ContentId {
        self.selection.digest
    }
}

/// What was selected to make a step's key.
#[derive(Debug)]
pub enum Selected {
    /// Nothing that has to be handed on.
    Nothing,
    /// The files of a copy whose digest is known and which have not been looked at.
    Remembered(ContentId),
    /// The files of a copy.
    Files(Files),
    /// What each mount of a run that has files shows, in the order of the mounts.
    Shown(Vec<mount::Shown>),
}

/// Everything steps are made with.
#[derive(Debug)]
pub struct Executor<'a> {
    /// Where layers go.
    pub store: &'a Store,
    /// Where layers come from.
    pub layers: Layers<'a>,
    /// The base images.
    pub bases: &'a Bases,
    /// The build contexts.
    pub contexts: &'a BTreeMap<ContextName, Opened>,
    /// What is known of the layers that steps start from.
    pub tops: Tops,
    /// Ends every step.
    pub cancel: &'a Cancel,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
    /// Names that steps can resolve besides those the machine knows (`--add-host`).
    pub hosts: &'a [(String, std::net::IpAddr)],
    /// What each step may use at most; never part of a key.
    pub limits: Limits,
    /// What steps run on: caches of one id on two platforms are two.
    pub platform: &'a Platform,
    /// The secrets given on the command line.
    pub secrets: &'a Secrets,
    /// The SSH agents given on the command line.
    pub agents: &'a agent::Agents,
    /// The networks that steps see.
    pub networks: std::sync::Arc<network::Networks>,
    /// Files of contexts that steps mount.
    pub staged: mount::Staged,
    /// Whether the place of the first `RUN` that fails is kept, for somebody to look at.
    pub keeps_failed: bool,
    /// That place.
    pub failed: Mutex<Option<shell::Sandbox>>,
}

impl Executor<'_> {
    /// Makes the layer of an operation and notes the step's `key` with it. `inputs` are the chains of its inputs, in
    /// their order; `fetched` is what was fetched for it; `files` what was selected of them to make the key, where it was.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn execute(
        &self,
        op: &Op,
        key: &Key,
        inputs: &[Chain],
        fetched: &[Fetched],
        files: Selected,
        task: &Task<'_>,
    ) -> Result<DiffId, Error> {
        match op {
            Op::Run(op) => {
                let shown = match files {
                    Selected::Shown(shown) => shown,
                    Selected::Nothing | Selected::Remembered(_) | Selected::Files(_) => Vec::new(),
                };
                run::run(self, op, key, &inputs[0], shown, task)
            }
            Op::Copy(op) => {
                let files = match (files, &inputs[1]) {
                    (Selected::Files(files), _) => files,
                    (_, from) => self.select_from_layers(op, from, fetched)?,
                };
                self.copy(op, key, &inputs[0], &files)
            }
            Op::Mkdir(op) => self.mkdir(op, key, &inputs[0]),
            Op::Scratch | Op::Image(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => {
                unreachable!("only steps make layers")
            }
        }
    }

    /// Selects the files of a copy from a context.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn select_from_context(&self, op: &CopyOp, name: &ContextName, fetched: &[Fetched]) -> Result<Files, Error> {
        let context = self.context(name);
        let fetched = self.open_fetched(fetched)?;
        let selection = copy::select::select_among(op, context.tree(), &trees(&fetched))
            .map_err(|error| missing::in_context(error, name, context))?;
        Ok(Files { selection, from: From::Context(name.clone()), fetched })
    }

    /// The layer that holds a context, where one does: such a context is read as a stage is, and never looked at twice.
    pub fn layer_of_context(&self, name: &ContextName) -> Option<DiffId> {
        self.context(name).layer()
    }

    /// Selects the files of a copy from a chain of layers.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn select_from_layers(&self, op: &CopyOp, from: &Chain, fetched: &[Fetched]) -> Result<Files, Error> {
        let view = self.view(from)?;
        let fetched = self.open_fetched(fetched)?;
        let selection = copy::select::select_among(op, &view, &trees(&fetched))
            .map_err(|error| missing::in_layers(error, &view))?;
        Ok(Files { selection, from: From::Layers(view), fetched })
    }

    /// What fetches sources.
    pub fn fetcher(&self) -> Fetcher<'_> {
        let Self { store, cancel, secrets, layers, .. } = self;
        Fetcher { store, client: layers.client, cancel, xattr: self.xattr(), secrets }
    }

    fn open_fetched(&self, fetched: &[Fetched]) -> Result<Vec<FetchedTree>, Error> {
        Ok(fetched.iter().map(|fetched| self.fetcher().open(fetched)).collect::<Result<_, _>>()?)
    }

    fn context(&self, name: &ContextName) -> &Opened {
        self.contexts.get(name).expect("the graph names only contexts that the build opened")
    }

    /// The merged view of a chain, fetching what is missing.
    fn view(&self, chain: &Chain) -> Result<View, Error> {
        self.view_over(&self.trees(chain)?)
    }

    /// The merged view of directories that [`Self::trees`] gave.
    fn view_over(&self, trees: &[PathBuf]) -> Result<View, Error> {
        View::among(&self.tops, trees, self.xattr()).map_err(|source| Error::Layers { source })
    }

    /// The directories of a chain, topmost first, fetching what is missing. A layer that is in the chain several times
    /// counts once, where it is topmost: there it sets everything that it set below. (An overlay refuses the same
    /// directory twice, and steps that change nothing all make the same layer.)
    fn trees(&self, chain: &Chain) -> Result<Vec<PathBuf>, Error> {
        let mut trees = self.layers.trees(chain)?;
        trees.reverse();
        let mut seen = HashSet::new();
        trees.retain(|tree| seen.insert(tree.clone()));
        Ok(trees)
    }

    fn xattr(&self) -> OverlayXattr {
        self.layers.xattr
    }

    fn copy(&self, op: &CopyOp, key: &Key, parent: &Chain, files: &Files) -> Result<DiffId, Error> {
        let from: &dyn Tree = match &files.from {
            From::Context(name) => self.context(name).tree(),
            From::Layers(view) => view,
        };
        let joined = Joined::new([from].into_iter().chain(trees(&files.fetched)).collect());
        let from: &dyn Tree = if files.fetched.is_empty() { from } else { &joined };
        let lowers = if op.link { Vec::new() } else { self.trees(parent)? };
        let root = self.view_over(&lowers)?;
        let owner = op.chown.as_deref().map(|spec| self.file_owner(spec, &root, parent)).transpose()?;
        let scratch = self.store.scratch()?;
        let tree = scratch.dir("tree")?;
        let arriving = copy::apply::apply_most(op, &files.selection, from, &root, &tree, self.xattr(), owner.as_ref())?;
        if !op.link {
            diff::tidy(&tree, &root, self.xattr())?;
        }
        self.publish_arriving(&tree, key, op.epoch, arriving)
    }

    fn mkdir(&self, op: &MkdirOp, key: &Key, parent: &Chain) -> Result<DiffId, Error> {
        let lowers = self.trees(parent)?;
        let root = self.view_over(&lowers)?;
        let scratch = self.store.scratch()?;
        let tree = scratch.dir("tree")?;
        let owner = if op.user.is_empty() { Owner::default() } else { self.file_owner(&op.user, &root, parent)? };
        mkdir::make(op, &root, &tree, self.xattr(), &owner)?;
        diff::tidy(&tree, &root, self.xattr())?;
        self.publish(&tree, key, op.epoch)
    }

    fn file_owner(&self, spec: &str, root: &View, chain: &Chain) -> Result<Owner, Error> {
        let FileOwner { owner, unknown } = owner::for_files(spec, root)?;
        if chain.layers().is_empty() && !unknown.is_empty() {
            return Err(Error::NameInScratch { spec: spec.to_owned() });
        }
        unknown.into_iter().for_each(|sentence| self.layers.reporter.warning(sentence));
        Ok(owner)
    }

    /// Measures a finished layer directory and moves it into the store.
    fn publish(&self, tree: &Path, key: &Key, epoch: Option<i64>) -> Result<DiffId, Error> {
        self.publish_arriving(tree, key, epoch, Arriving::new())
    }

    /// The same where the content of some files comes only now.
    fn publish_arriving(
        &self,
        tree: &Path,
        key: &Key,
        epoch: Option<i64>,
        mut arriving: Arriving<'_>,
    ) -> Result<DiffId, Error> {
        let mut misread = |path: PathBuf| {
            self.layers.reporter.warning(format!(
                "/{} is called like the mark of a deleted file: in the image it removes what it would have marked",
                path.display()
            ));
        };
        let times = Times { clamp: epoch };
        let (measured, disk) = archive::measure_and_tell(tree, self.xattr(), times, &mut arriving, &mut misread)
            .map_err(|error| match error {
                archive::Error::Read { path, source } => match stage::arrived(source) {
                    Ok(failed) => copy::Error::from(failed).into(),
                    Err(source) => archive::Error::Read { path, source }.into(),
                },
                error => Error::from(error),
            })?;
        let meta = LayerMeta {
            tar_size: measured.size,
            entries: measured.entries,
            disk,
            origin: Origin::Built { key: *key },
            clamp: epoch,
            forms: Vec::new(),
            implied: Vec::new(),
        };
        self.store.publish_layer(&measured.diff_id, tree, meta)?;
        Ok(measured.diff_id)
    }
}

fn c_string(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::NulByte { text: text.to_owned() })
}

fn trees(fetched: &[FetchedTree]) -> Vec<&dyn Tree> {
    fetched.iter().map(FetchedTree::tree).collect()
}

/// A context as messages call it.
pub fn place_of(name: &ContextName) -> String {
    match name {
        ContextName::Main => "the build context".to_owned(),
        ContextName::Named(name) => format!("the build context {name:?}"),
    }
}
