//! What a step reads: the fields of its key, and the files that were looked at to know them.
//!
//! Files of a context are looked at in every build; those of layers once, because layers never change. Never makes a layer.

use crate::base;
use crate::cache::key::Fields;
use crate::cache::{self, key};
use crate::digest::ContentId;
use crate::execute::mount::Shown;
use crate::execute::{self, Files, Selected};
use crate::fetch::Fetched;
use crate::graph::{ContextName, CopyOp, Node, NodeId, Op, RunMount, RunOp};
use crate::image::chain::Chain;
use crate::schedule::listing;
use crate::schedule::solve::{Error, Solved, Solver};

impl Solver<'_> {
    /// The fields of a node's key, and the selected files where they had to be listed to know.
    pub(super) fn fields(&self, node: &Node, inputs: &[Solved]) -> Result<(Fields, Selected), Error> {
        let parent = &inputs[0].chain;
        Ok(match &node.op {
            Op::Run(op) => {
                let (digests, shown) = self.shown(op, &inputs[1..])?;
                (key::run(op, parent, &self.graph.platform, &digests), Selected::Shown(shown))
            }
            Op::Mkdir(op) => (key::mkdir(op, parent), Selected::Nothing),
            Op::Copy(op) => {
                let (digest, files) = self.files(op, &inputs[1].chain, &fetched(inputs))?;
                (key::copy(op, parent, &digest), files.map_or(Selected::Remembered(digest), Selected::Files))
            }
            Op::Scratch | Op::Image(_) | Op::Context(_) | Op::Http(_) | Op::Git(_) => {
                unreachable!("only nodes that make a layer have a key")
            }
        })
    }

    /// The digest of what each bind mount of a step shows, and what each mount with files shows. Of a whole stage or
    /// image its chain says that, of a part of one the answer is remembered, and a context's files are looked at.
    fn shown(&self, op: &RunOp, inputs: &[Solved]) -> Result<(Vec<ContentId>, Vec<Shown>), Error> {
        let (mut digests, mut all) = (Vec::new(), Vec::new());
        let mut inputs = inputs.iter();
        for mount in &op.mounts {
            let (from, source) = match mount {
                RunMount::Bind { from, source, .. } => (*from, source),
                RunMount::Cache(cache) => match &cache.from {
                    Some((from, source)) => (*from, source),
                    None => continue,
                },
                RunMount::Tmpfs { .. } | RunMount::Secret { .. } | RunMount::Ssh { .. } => continue,
            };
            let chain = inputs.next().map(|input| input.chain.clone()).unwrap_or_default();
            let counts = matches!(mount, RunMount::Bind { .. });
            if let Some(name) = self.may_change(from) {
                let files = self.executor.show_context(source, name)?;
                if counts {
                    digests.push(files.digest());
                }
                all.push(Shown::Files(files));
                continue;
            }
            if counts {
                digests.push(self.shown_of_layers(source, &chain, from)?);
            }
            all.push(Shown::Layers { chain, source: source.clone() });
        }
        Ok((digests, all))
    }

    fn shown_of_layers(&self, source: &str, chain: &Chain, from: NodeId) -> Result<ContentId, Error> {
        let question = key::shown(source, chain);
        if source == "." {
            return Ok(ContentId::from_bytes(*question.as_bytes()));
        }
        if let Some(digest) = cache::recall_selection(self.store, &question) {
            return Ok(digest);
        }
        let shown = self.executor.shown_of_layers(source, chain);
        let (digest, files) = shown.map_err(|error| self.in_context(from, error))?;
        self.keep_listing(&digest, &listing::of(&files, None).encode());
        if let Err(error) = cache::remember_selection(self.store, &question, &digest) {
            self.reporter.warning(format!("a selection of files is not remembered: {error}"));
        }
        Ok(digest)
    }

    /// The digest of the files a copy selects. Of a chain of layers it is remembered, because layers never change; of a
    /// context the files are looked at, and what was found is handed on.
    fn files(&self, op: &CopyOp, from: &Chain, fetched: &[Fetched]) -> Result<(ContentId, Option<Files>), Error> {
        if let Some(name) = self.may_change(op.from) {
            let files = self.executor.select_from_context(op, name, fetched)?;
            return Ok((files.digest(), Some(files)));
        }
        let identities: Vec<String> = fetched.iter().map(Fetched::identity).collect();
        let question = key::selection(op, from, &identities);
        if let Some(digest) = cache::recall_selection(self.store, &question) {
            return Ok((digest, None));
        }
        let files = self.executor.select_from_layers(op, from, fetched);
        let files = files.map_err(|error| self.in_context(op.from, error))?;
        if let Err(error) = cache::remember_selection(self.store, &question, &files.digest()) {
            self.reporter.warning(format!("a selection of files is not remembered: {error}"));
        }
        Ok((files.digest(), Some(files)))
    }

    /// A missing file of a context that is read as layers is missing in the context.
    fn in_context(&self, from: NodeId, error: execute::Error) -> execute::Error {
        match (error, &self.graph[from].op) {
            (execute::Error::NotFound { source_path, hidden, nearest, .. }, Op::Context(name)) => {
                execute::Error::NotFound { source_path, place: execute::place_of(name), hidden, nearest }
            }
            (error, _) => error,
        }
    }

    /// The files of a copy whose digest was remembered, which they must still have.
    pub(super) fn selected(&self, op: &CopyOp, digest: ContentId, inputs: &[Solved]) -> Result<Files, Error> {
        let (from, fetched) = (&inputs[1].chain, fetched(inputs));
        let selected = self.executor.select_from_layers(op, from, &fetched);
        let is_right = selected.as_ref().is_ok_and(|files| files.digest() == digest);
        let Some(top) = from.layers().last().filter(|_| !is_right) else { return Ok(selected?) };
        // The layers are not what they were, or the memory is wrong: neither is used any more.
        let identities: Vec<String> = fetched.iter().map(Fetched::identity).collect();
        cache::forget_selection(self.store, &key::selection(op, from, &identities))?;
        let damaged = self.executor.layers.discard_damaged(from)?;
        let lost = base::layers::Error::Lost { layer: *damaged.first().unwrap_or(top) };
        Err(execute::Error::from(lost).into())
    }

    /// Whether the input of a node is a context that may change, so that its files are looked at in every build.
    pub(super) fn may_change(&self, input: NodeId) -> Option<&ContextName> {
        let Op::Context(name) = &self.graph[input].op else { return None };
        self.executor.layer_of_context(name).is_none().then_some(name)
    }

    /// Keeps what files a step read. Without it, a later explanation cannot name those that changed; nothing else is lost.
    pub(super) fn keep_listing(&self, digest: &ContentId, listing: &[u8]) {
        let _ = cache::remember_listing(self.store, digest, listing);
    }
}

/// The listings of the files that a step was seen to read.
pub(super) fn listings(node: &Node, files: &Selected) -> Vec<(ContentId, Vec<u8>)> {
    let one = |files: &Files| (files.digest(), listing::of(files, node.op.copy()).encode());
    match files {
        Selected::Nothing | Selected::Remembered(_) => Vec::new(),
        Selected::Files(files) => vec![one(files)],
        Selected::Shown(shown) => shown
            .iter()
            .filter_map(|shown| match shown {
                Shown::Files(files) => Some(one(files)),
                Shown::Layers { .. } => None,
            })
            .collect(),
    }
}

/// What was fetched among a node's inputs, in order.
pub(super) fn fetched(inputs: &[Solved]) -> Vec<Fetched> {
    inputs.iter().filter_map(|input| input.fetched.clone()).collect()
}
