//! `RUN --mount`: what a step mounts, made ready for the sandbox.
//!
//! Takes the mounts of an operation and what they come from; gives the runtime's mounts, the variables that hold
//! secrets or lead to agents, and the values to keep out of the log. Files of a context are copied once a build, by the
//! same code as `COPY`, so that a step sees just what its key names, with the owners that a `COPY` would give; layers of
//! a stage are shown as they are. What is held for the step (locks, sockets, directories) ends with [`Mounted`].

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use crate::digest::ContentId;
use crate::execute::agent::{self, Forwarding};
use crate::execute::cache_mount::{self, Taken};
use crate::execute::mask::Mask;
use crate::execute::{Error, Executor, Files, From, copy, missing};
use crate::graph::{ContextName, CopyOp, CopySource, NodeId, RunMount, RunOp};
use crate::image::chain::Chain;
use crate::layer::tree::Tree;
use crate::layer::view::{Follow, resolve};
use crate::progress::Task;
use crate::runtime::{Mount, Source};
use crate::secret;
use crate::store::Scratch;

/// What a mount shows.
#[derive(Debug)]
pub enum Shown {
    /// Files of a context, as they were when the step's key was made.
    Files(Files),
    /// A path in a chain of layers.
    Layers {
        /// The layers.
        chain: Chain,
        /// The path, relative to their root.
        source: String,
    },
}

/// Files of contexts, copied for the steps of one build that mount them.
#[derive(Debug, Default)]
pub struct Staged(Mutex<BTreeMap<ContentId, StagedPlace>>);

/// Where one selection's copy is kept, for the first that needs it to fill.
type StagedPlace = Arc<Mutex<Option<Arc<StagedFiles>>>>;

/// One selection of files, copied.
#[derive(Debug)]
struct StagedFiles {
    /// The directory that holds them.
    tree: PathBuf,
    /// What of it is meant: the name of a single file, or all of it.
    path: PathBuf,
    /// Removes them at the end.
    _scratch: Scratch,
}

/// A step's mounts, and all that they need while it runs.
#[derive(Default)]
pub(super) struct Mounted {
    /// For the sandbox.
    pub mounts: Vec<Mount>,
    /// Further variables of the process, which take the place of others of their names.
    pub env: Vec<(String, Vec<u8>)>,
    /// What nobody should see.
    pub mask: Mask,
    caches: BTreeMap<ContentId, Taken>,
    staged: Vec<Arc<StagedFiles>>,
    agents: Vec<Forwarding>,
    /// Whether there was a mount of an agent.
    agent_named: bool,
    scratch: Option<Scratch>,
}

impl Executor<'_> {
    /// Selects what a mount shows of a context.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn show_context(&self, source: &str, name: &ContextName) -> Result<Files, Error> {
        let context = self.context(name);
        let selection = copy::select::select_path(source, context.tree())
            .map_err(|error| missing::in_context(error, name, context))?;
        Ok(Files { selection, from: From::Context(name.clone()), fetched: Vec::new() })
    }

    /// The digest of what a mount shows of a chain of layers: the files, and the directory itself. With the files.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn shown_of_layers(&self, source: &str, from: &Chain) -> Result<(ContentId, Files), Error> {
        let view = self.view(from)?;
        let selection = copy::select::select_path(source, &view).map_err(|error| missing::in_layers(error, &view))?;
        let failed = |source| Error::Layers { source };
        let entry = resolve(&view, below_root(source), Follow::All).map_err(failed)?.entry;
        let Some(entry) = entry else {
            return Err(missing::in_layers(copy::Error::NotFound { word: source.to_owned() }, &view));
        };
        let mut hasher = blake3::Hasher::new_derive_key("strata shown files");
        hasher.update(selection.digest.as_bytes());
        for number in [entry.mode, entry.uid, entry.gid] {
            hasher.update(&number.to_le_bytes());
        }
        let digest = ContentId::from(hasher.finalize());
        Ok((digest, Files { selection, from: From::Layers(view), fetched: Vec::new() }))
    }

    /// A copy of what a mount would show, as a directory of this name.
    pub(super) fn copy_of(&self, shown: &Shown, scratch: &Scratch, name: &str) -> Result<PathBuf, Error> {
        match shown {
            Shown::Files(files) => self.stage(files, scratch, name),
            Shown::Layers { chain, source } => {
                let view = self.view(chain)?;
                let selection =
                    copy::select::select_path(source, &view).map_err(|error| missing::in_layers(error, &view))?;
                self.stage(&Files { selection, from: From::Layers(view), fetched: Vec::new() }, scratch, name)
            }
        }
    }

    fn stage(&self, files: &Files, scratch: &Scratch, name: &str) -> Result<PathBuf, Error> {
        let tree = scratch.dir(name)?;
        let from: &dyn Tree = match &files.from {
            From::Context(name) => self.context(name).tree(),
            From::Layers(view) => view,
        };
        let root = self.view(&Chain::scratch())?;
        copy::apply::apply(&to_root(), &files.selection, from, &root, &tree, self.xattr(), None)?;
        Ok(tree)
    }

    /// Files of a context, copied by this step or by another of this build before it.
    fn staged(&self, files: &Files) -> Result<Arc<StagedFiles>, Error> {
        let place = {
            let mut known = self.staged.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(known.entry(files.digest()).or_default())
        };
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(staged) = &*place {
            return Ok(Arc::clone(staged));
        }
        let scratch = self.store.scratch()?;
        let tree = self.stage(files, &scratch, "tree")?;
        let single = files.selection.groups.first().filter(|group| !group.is_directory);
        let path = single.map(|group| PathBuf::from(&group.name)).unwrap_or_default();
        let staged = Arc::new(StagedFiles { tree, path, _scratch: scratch });
        *place = Some(Arc::clone(&staged));
        Ok(staged)
    }
}

impl Mounted {
    /// Makes everything ready. `shown` has what each mount with files shows, in the order of the mounts.
    pub(super) fn open(executor: &Executor<'_>, op: &RunOp, shown: Vec<Shown>, task: &Task<'_>) -> Result<Self, Error> {
        let mut mounted = Self::default();
        if op.mounts.is_empty() {
            return Ok(mounted);
        }
        let mut sources = shown.into_iter();
        let with_sources: Vec<(&RunMount, Option<Shown>)> =
            op.mounts.iter().map(|mount| (mount, mount.from().and_then(|_| sources.next()))).collect();
        mounted.take_caches(executor, &with_sources, task)?;
        for (number, (mount, shown)) in with_sources.iter().enumerate() {
            mounted.add(executor, number, mount, shown.as_ref())?;
        }
        Ok(mounted)
    }

    /// Takes the caches in the order of their names: two steps that want the same two then never wait for each other.
    fn take_caches(
        &mut self,
        executor: &Executor<'_>,
        mounts: &[(&RunMount, Option<Shown>)],
        task: &Task<'_>,
    ) -> Result<(), Error> {
        let mut wanted = BTreeMap::new();
        for (mount, shown) in mounts {
            if let RunMount::Cache(cache) = mount {
                wanted.entry(cache_mount::name(executor, cache)).or_insert((cache, shown.as_ref()));
            }
        }
        for (name, (cache, shown)) in wanted {
            self.caches.insert(name, cache_mount::take(executor, cache, shown, task)?);
        }
        Ok(())
    }

    fn add(
        &mut self,
        executor: &Executor<'_>,
        number: usize,
        mount: &RunMount,
        shown: Option<&Shown>,
    ) -> Result<(), Error> {
        match mount {
            RunMount::Bind { target, writable, .. } => {
                let Some(shown) = shown else { return Ok(()) };
                let source = self.files(executor, number, shown)?;
                self.push(target, source, *writable);
            }
            RunMount::Cache(cache) => {
                if let Some(taken) = self.caches.get(&cache_mount::name(executor, cache)) {
                    let source = Source::Host(taken.path.clone());
                    self.push(&cache.target, source, cache.writable);
                }
            }
            RunMount::Tmpfs { target, size, writable } => {
                self.push(target, Source::Memory { size: *size }, *writable);
            }
            RunMount::Secret { id, target, env, required, access } => {
                let Some(content) = executor.secrets.value(id)? else {
                    let missing = || secret::Error::Missing { id: id.clone() };
                    return if *required { Err(missing().into()) } else { Ok(()) };
                };
                self.mask.add(&content);
                if let Some(name) = env {
                    if content.contains(&0) {
                        return Err(secret::Error::NulByte { id: id.clone() }.into());
                    }
                    self.env.push((name.clone(), content.clone()));
                }
                if let Some(target) = target {
                    let source = Source::Secret { content, mode: access.mode, uid: access.uid, gid: access.gid };
                    self.push(target, source, false);
                }
            }
            RunMount::Ssh { id, target, required, access } => {
                // BuildKit names the place of the first socket whether anybody listens there or not.
                if !std::mem::replace(&mut self.agent_named, true) {
                    self.env.push(("SSH_AUTH_SOCK".to_owned(), target.clone().into_bytes()));
                }
                let Some(agent) = executor.agents.get(id) else {
                    let missing = || agent::Error::Missing { id: id.clone() };
                    return if *required { Err(missing().into()) } else { Ok(()) };
                };
                let directory = self.directory(executor, number)?;
                let socket = Forwarding::start(agent, &directory, "agent", *access)
                    .map_err(|source| agent::Error::Socket { id: id.clone(), source })?;
                self.push(target, Source::Host(socket.path.clone()), true);
                self.agents.push(socket);
            }
        }
        Ok(())
    }

    fn files(&mut self, executor: &Executor<'_>, number: usize, shown: &Shown) -> Result<Source, Error> {
        let scratch = self.directory(executor, number)?;
        Ok(match shown {
            Shown::Files(files) => {
                let staged = executor.staged(files)?;
                let (lowers, path) = (vec![staged.tree.clone()], staged.path.clone());
                self.staged.push(staged);
                Source::Layers { lowers, path, scratch }
            }
            Shown::Layers { chain, source } => {
                Source::Layers { lowers: executor.trees(chain)?, path: below_root(source).to_owned(), scratch }
            }
        })
    }

    /// A directory for one mount's own use.
    fn directory(&mut self, executor: &Executor<'_>, number: usize) -> Result<PathBuf, Error> {
        let scratch = match self.scratch.take() {
            Some(scratch) => scratch,
            None => executor.store.scratch()?,
        };
        let directory = scratch.dir(&format!("mount-{number}"));
        self.scratch = Some(scratch);
        Ok(directory?)
    }

    fn push(&mut self, target: &str, source: Source, writable: bool) {
        self.mounts.push(Mount { target: target.into(), source, writable });
    }
}

/// A mount's source as a path in a tree, where the root has no name.
fn below_root(source: &str) -> &Path {
    Path::new(if source == "." { "" } else { source })
}

/// What puts a mount's files, selected already, into the root of nothing.
fn to_root() -> CopyOp {
    CopyOp {
        parent: NodeId(0),
        from: NodeId(0),
        sources: vec![CopySource::Path(".".to_owned())],
        destination: "/".to_owned(),
        chown: None,
        chmod: None,
        link: true,
        parents: false,
        exclude: Vec::new(),
        unpack: false,
        epoch: None,
    }
}
