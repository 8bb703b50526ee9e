//! Why the cache answered as it did: a step and the answer → an explanation for people and programs.
//!
//! Looks up the earlier runs of a step that missed, chooses the nearest (the fewest differences, then the newest), and has
//! [`words`] put what is different into words, with the values of secrets hidden. Costs nothing unless it is asked for, and
//! changes nothing: what is missing or damaged makes an explanation poorer, never a build fail.

mod words;

use std::collections::HashSet;
use std::sync::OnceLock;
use std::time::Duration;

use serde_json::json;

use self::words::Changed;
use crate::cache::difference::{Difference, differences};
use crate::cache::history::{History, Place, Run, Short};
use crate::cache::key::{Field, Fields};
use crate::cache::listing::Listing;
use crate::cache::record::{Below, Record};
use crate::cache::{self};
use crate::digest::{ContentId, Key};
use crate::execute::Selected;
use crate::execute::mask::Mask;
use crate::execute::mount::Shown;
use crate::graph::{Graph, Node, NodeId, Op};
use crate::progress::{Answer, Explanation};
use crate::recipe::Recipe;
use crate::schedule::listing;
use crate::schedule::solve::{Solved, Solver, Why, now};
use crate::store::Store;

/// What a build explains its answers with.
#[derive(Debug)]
pub struct Explainer<'a> {
    recipe: &'a Recipe,
    mask: Mask,
    history: OnceLock<History>,
    texts: OnceLock<HashSet<Short>>,
}

/// A step whose inputs are known.
#[derive(Clone, Copy)]
pub(super) struct Step<'a> {
    pub(super) node: &'a Node,
    pub(super) fields: &'a Fields,
    pub(super) key: Key,
    pub(super) files: &'a Selected,
    pub(super) inputs: &'a [Solved],
}

impl<'a> Explainer<'a> {
    /// One that knows the recipe, and what nobody should see.
    pub fn new(recipe: &'a Recipe, mask: Mask) -> Self {
        Self { recipe, mask, history: OnceLock::new(), texts: OnceLock::new() }
    }

    fn history(&self, store: &Store) -> &History {
        self.history.get_or_init(|| cache::history(store))
    }

    /// The texts of all steps.
    fn texts(&self, graph: &Graph) -> &HashSet<Short> {
        self.texts.get_or_init(|| graph.nodes.iter().map(|node| Short::of(&node.origin.text)).collect())
    }
}

impl Solver<'_> {
    /// Which step of which recipe this is, for [`History`].
    pub(super) fn place(&self, node: &Node, fields: &Fields) -> Place {
        let kind = match fields.get("op") {
            Some(Field::Text(op)) => op.bytes().next().unwrap_or_default(),
            _ => 0,
        };
        Place {
            recipe: self.notes.recipe(),
            stage: Short::of(&node.origin.stage),
            number: u32::try_from(node.origin.step).unwrap_or(u32::MAX),
            kind,
            text: Short::of(&node.origin.text),
        }
    }

    /// What a step starts from, by name.
    pub(super) fn below(&self, node: &Node, inputs: &[Solved]) -> Below {
        let Some(parent) = node.op.parent().map(|parent| &self.graph[parent]) else { return Below::Scratch };
        match &parent.op {
            Op::Image(request) => Below::Image {
                name: request.reference.familiar(),
                digest: self.executor.bases.get(request).map(|base| base.digest.to_string()).unwrap_or_default(),
            },
            Op::Run(_) | Op::Copy(_) | Op::Mkdir(_) => Below::Step {
                text: parent.origin.text.clone(),
                layer: inputs.first().and_then(|input| input.made).map(|made| made.layer),
            },
            Op::Scratch | Op::Context(_) | Op::Http(_) | Op::Git(_) => Below::Scratch,
        }
    }

    /// Where a result came from, if somebody wants to know.
    pub(super) fn explain_hit(&self, record: &Record) -> Option<Explanation> {
        self.explain.map(|explainer| words::hit(record, now(), &explainer.mask))
    }

    /// Why there is no result, if somebody wants to know.
    pub(super) fn explain_miss(&self, step: Step<'_>, why: &Why) -> Option<Explanation> {
        let explainer = self.explain?;
        let simple =
            |reason: &str, summary: String| Some(Explanation::new(Answer::Miss, summary, json!({ "reason": reason })));
        match why {
            Why::NoCache => simple("no-cache", "not looked up: --no-cache".to_owned()),
            Why::Filter { stage } => simple("no-cache-filter", format!("not looked up: --no-cache-filter {stage}")),
            Why::Comment => simple("comment", "not looked up: `# strata: no-cache` stands above it".to_owned()),
            Why::Expired { record, ttl } => Some(words::expired(record, *ttl, now(), &explainer.mask)),
            Why::LayerGone => simple("layer-gone", "the layer it made is not in the store any more".to_owned()),
            Why::Nothing => Some(self.explain_difference(explainer, step)),
        }
    }

    /// Why a step cannot be told from its inputs yet.
    pub(super) fn explain_unknown(&self, node: &Node, unknown: NodeId, would_run: bool) -> Option<Explanation> {
        let explainer = self.explain?;
        let waits = &self.graph[unknown];
        Some(words::unknown(waits, node, would_run, &explainer.mask))
    }

    /// Why a step cannot be made at all, as far as is known.
    pub(super) fn explain_failure(&self, error: &dyn std::error::Error) -> Option<Explanation> {
        Some(words::failure(error, &self.explain?.mask))
    }

    fn explain_difference(&self, explainer: &Explainer<'_>, step: Step<'_>) -> Explanation {
        let simple = |reason: &str, summary: &str| Explanation::new(Answer::Miss, summary, json!({ "reason": reason }));
        if cache::was_damaged(self.store, &step.key) {
            return simple("damaged", "what was remembered of it was damaged");
        }
        if explainer.history(self.store).has(&step.key) {
            return simple("forgotten", "it was made before, but what was remembered of it was removed");
        }
        let Some(record) = self.nearest_run(explainer, step) else {
            let place = self.place(step.node, step.fields);
            return match explainer.history(self.store).earlier(&place, explainer.texts(self.graph)).is_empty() {
                true => simple("never-run", "never run before"),
                false => simple("forgotten", "what was remembered of its earlier runs was removed"),
            };
        };
        self.explain_changed(explainer, step, &record, &self.found(&record, step))
    }

    /// The nearest earlier run of a step of which anything is remembered.
    fn nearest_run(&self, explainer: &Explainer<'_>, step: Step<'_>) -> Option<Record> {
        let place = self.place(step.node, step.fields);
        let groups = explainer.history(self.store).earlier(&place, explainer.texts(self.graph));
        groups.iter().find_map(|group| self.nearest(group, step.fields))
    }

    /// What is different from an earlier run.
    fn found(&self, before: &Record, step: Step<'_>) -> Vec<Difference> {
        let listing =
            |digest: &ContentId| listing_of(step, digest).or_else(|| cache::recall_listing(self.store, digest));
        differences(&before.fields, step.fields, &listing)
    }

    fn explain_changed(
        &self,
        explainer: &Explainer<'_>,
        step: Step<'_>,
        before: &Record,
        found: &[Difference],
    ) -> Explanation {
        let changed = Changed {
            found,
            before,
            below: self.below(step.node, step.inputs),
            graph: self.graph,
            node: step.node,
            recipe: explainer.recipe,
            mask: &explainer.mask,
        };
        changed.explain(now())
    }

    /// What is known to have changed of a step whose parent is not known yet, besides that.
    pub(super) fn explain_orphan(&self, step: Step<'_>, unknown: NodeId, would_run: bool) -> Option<Explanation> {
        let explainer = self.explain?;
        let changed = self.nearest_run(explainer, step).and_then(|record| {
            let mut found = self.found(&record, step);
            found.retain(|difference| difference.field != "parent");
            (!found.is_empty()).then(|| self.explain_changed(explainer, step, &record, &found))
        });
        match changed {
            Some(changed) => {
                Some(words::unknown_and_changed(&self.graph[unknown], step.node, changed, &explainer.mask))
            }
            None => self.explain_unknown(step.node, unknown, would_run),
        }
    }

    /// The run with the fewest differences; of several the first, which is the nearest and newest.
    fn nearest(&self, runs: &[&Run], fields: &Fields) -> Option<Record> {
        let records = runs.iter().filter_map(|run| cache::recall(self.store, &run.key));
        let count = |record: &Record| -> usize {
            let found: Vec<Difference> = differences(&record.fields, fields, &|_| None);
            found.len()
        };
        records.min_by_key(count)
    }
}

/// The listing of the files that were just looked at for a step.
fn listing_of(step: Step<'_>, digest: &ContentId) -> Option<Listing> {
    match step.files {
        Selected::Nothing | Selected::Remembered(_) => None,
        Selected::Files(files) => (files.digest() == *digest).then(|| listing::of(files, step.node.op.copy())),
        Selected::Shown(shown) => shown.iter().find_map(|shown| match shown {
            Shown::Files(files) if files.digest() == *digest => Some(listing::of(files, step.node.op.copy())),
            Shown::Files(_) | Shown::Layers { .. } => None,
        }),
    }
}

/// How old something is that was made at this time; both in milliseconds since 1970. What the clock says is in the future
/// is new.
pub(super) fn age(made: i64, now: i64) -> Duration {
    Duration::from_millis(u64::try_from(now.saturating_sub(made)).unwrap_or_default())
}
