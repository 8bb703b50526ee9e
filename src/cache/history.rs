//! Which steps were made before: how a miss finds the earlier run that it is compared with.
//!
//! Takes what a build made, gives for a step the earlier runs that are most likely of the same step. A single value for a
//! whole store, of bounded size, replaced at the end of every build that made something. Never needed: without it a miss
//! is only not explained. The choosing is pure.
//!
//! A step is known by its recipe (where it came from), its stage, its number there and its text as it stands in the recipe,
//! variables and all. The text alone finds it in a checkout elsewhere; place and kind alone find it when its text was edited.

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use crate::digest::{ContentId, Key};

/// How many runs of one step are kept.
const RUNS: usize = 8;
/// How many runs are kept in all.
const MOST: usize = 4096;
/// The first bytes; the number changes with the form.
const MAGIC: &[u8] = b"strata history 1\n";
/// The bytes of one run.
const RUN: usize = 8 + 8 + 4 + 1 + 8 + 32 + 32;

/// What stands for no listing.
const NO_LISTING: [u8; 32] = [0; 32];

/// A digest's first bytes: names something well enough to compare it with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Short([u8; 8]);

impl Short {
    /// Names a text.
    pub fn of(text: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = *blake3::hash(text.as_bytes()).as_bytes();
        Self([a, b, c, d, e, f, g, h])
    }
}

/// A step of a recipe, whatever its inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Place {
    /// Where the recipe came from.
    pub recipe: Short,
    /// The stage's name.
    pub stage: Short,
    /// The step's number in it.
    pub number: u32,
    /// `r`un, `c`opy or `m`kdir.
    pub kind: u8,
    /// The step's text.
    pub text: Short,
}

/// One time that a step was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// The step.
    pub place: Place,
    /// Its key then.
    pub key: Key,
    /// A listing that is kept for it. A step that read several selections is noted once for each.
    pub listing: Option<ContentId>,
}

/// What a build that goes on has made so far.
#[derive(Debug)]
pub struct Notes {
    recipe: Short,
    runs: Mutex<Vec<Run>>,
}

impl Notes {
    /// No runs yet of the recipe from here, such as a path or an address.
    pub fn new(recipe: &str) -> Self {
        Self { recipe: Short::of(recipe), runs: Mutex::default() }
    }

    /// Where the recipe came from.
    pub fn recipe(&self) -> Short {
        self.recipe
    }

    /// Adds a run.
    pub fn add(&self, run: Run) {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).push(run);
    }

    /// All runs, in the order in which they ended.
    pub fn take(&self) -> Vec<Run> {
        std::mem::take(&mut *self.runs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// The runs that are known, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct History(Vec<Run>);

impl History {
    /// Adds runs, newest last, and forgets what is too much. Gives the listings that no run needs any more.
    pub fn add(&mut self, runs: impl IntoIterator<Item = Run>) -> HashSet<ContentId> {
        self.0.extend(runs);
        let mut listings: HashSet<ContentId> = self.0.iter().filter_map(|run| run.listing).collect();
        let mut seen = HashSet::new();
        let mut of_one: HashMap<(Short, Short, u8, Short), usize> = HashMap::new();
        let mut kept: Vec<Run> = self
            .0
            .drain(..)
            .rev()
            .filter(|run| {
                let Place { recipe, stage, kind, text, .. } = run.place;
                let count = of_one.entry((recipe, stage, kind, text)).or_default();
                let keep = *count < RUNS && seen.insert((run.place, run.key, run.listing));
                *count += usize::from(keep);
                keep
            })
            .take(MOST)
            .collect();
        kept.reverse();
        self.0 = kept;
        for run in &self.0 {
            if let Some(listing) = &run.listing {
                listings.remove(listing);
            }
        }
        listings
    }

    /// Whether a key was made before.
    pub fn has(&self, key: &Key) -> bool {
        self.0.iter().any(|run| run.key == *key)
    }

    /// The earlier runs of a step, in groups: those most likely its own first, within a group the nearest and newest first.
    /// `others` are the texts of all other steps of the recipe as it is now: a run of one of these is not one of this step
    /// with another text.
    pub fn earlier(&self, place: &Place, others: &HashSet<Short>) -> Vec<Vec<&Run>> {
        let distance = |run: &Run| run.place.number.abs_diff(place.number);
        let group = |wanted: &dyn Fn(&Place) -> bool| {
            let mut runs: Vec<&Run> =
                self.0.iter().rev().filter(|run| run.place.kind == place.kind && wanted(&run.place)).collect();
            runs.sort_by_key(|run| distance(run));
            runs.truncate(2 * RUNS);
            runs
        };
        let same_recipe = |run: &Place| run.recipe == place.recipe;
        let same_stage = |run: &Place| same_recipe(run) && run.stage == place.stage;
        // Of steps with another text only the nearest place says anything.
        let mut edited = group(&|run| same_stage(run) && run.text != place.text && !others.contains(&run.text));
        if let Some(nearest) = edited.first().map(|run| distance(run)) {
            edited.retain(|run| distance(run) == nearest);
        }
        let groups = [
            group(&|run| same_stage(run) && run.text == place.text),
            group(&|run| same_recipe(run) && run.text == place.text),
            edited,
            group(&|run| run.text == place.text),
        ];
        groups.into_iter().filter(|group| !group.is_empty()).collect()
    }

    /// The history as bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(MAGIC.len() + self.0.len() * RUN);
        out.extend(MAGIC);
        for Run { place, key, listing } in &self.0 {
            out.extend(place.recipe.0);
            out.extend(place.stage.0);
            out.extend(place.number.to_le_bytes());
            out.push(place.kind);
            out.extend(place.text.0);
            out.extend(key.as_bytes());
            out.extend(listing.as_ref().map_or(&NO_LISTING, ContentId::as_bytes));
        }
        out
    }

    /// The history in some bytes; empty if they are not one.
    pub fn decode(bytes: &[u8]) -> Self {
        let Some(runs) = bytes.strip_prefix(MAGIC).filter(|runs| runs.len() % RUN == 0) else { return Self::default() };
        Self(runs.chunks_exact(RUN).filter_map(run).collect())
    }
}

fn run(bytes: &[u8]) -> Option<Run> {
    let (recipe, rest) = bytes.split_first_chunk::<8>()?;
    let (stage, rest) = rest.split_first_chunk::<8>()?;
    let (number, rest) = rest.split_first_chunk::<4>()?;
    let ([kind], rest) = rest.split_first_chunk::<1>()?;
    let (text, rest) = rest.split_first_chunk::<8>()?;
    let place = Place {
        recipe: Short(*recipe),
        stage: Short(*stage),
        number: u32::from_le_bytes(*number),
        kind: *kind,
        text: Short(*text),
    };
    let (key, rest) = rest.split_first_chunk::<32>()?;
    let listing = *rest.first_chunk::<32>()?;
    let listing = (listing != NO_LISTING).then(|| ContentId::from_bytes(listing));
    Some(Run { place, key: Key::from_bytes(*key), listing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: u8) -> Key {
        Key::from_bytes([number; 32])
    }

    fn place(recipe: &str, stage: &str, number: u32, text: &str) -> Place {
        Place { recipe: Short::of(recipe), stage: Short::of(stage), number, kind: b'r', text: Short::of(text) }
    }

    fn run(recipe: &str, stage: &str, number: u32, text: &str, made: u8) -> Run {
        Run { place: place(recipe, stage, number, text), key: key(made), listing: None }
    }

    #[test]
    fn the_likeliest_runs_come_first() {
        let mut history = History::default();
        history.add([
            run("a", "one", 2, "RUN x", 1),
            run("a", "one", 3, "RUN y", 2),
            run("a", "two", 2, "RUN x", 3),
            run("b", "one", 2, "RUN x", 4),
            run("a", "one", 2, "RUN x", 5),
            run("a", "one", 4, "RUN x", 6),
            run("b", "one", 3, "RUN new", 7),
        ]);
        let found = |place: &Place, others: &[&str]| -> Vec<u8> {
            let others = others.iter().map(|text| Short::of(text)).collect();
            let mut keys = Vec::new();
            for run in history.earlier(place, &others).into_iter().flatten() {
                let [first, ..] = *run.key.as_bytes();
                if !keys.contains(&first) {
                    keys.push(first);
                }
            }
            keys
        };
        assert_eq!(found(&place("a", "one", 2, "RUN x"), &["RUN y"]), [5, 1, 6, 3, 4]);
        assert_eq!(found(&place("a", "one", 4, "RUN x"), &["RUN y"])[0], 6, "two steps of one text are told by number");
        assert_eq!(found(&place("a", "one", 3, "RUN edited"), &["RUN x"]), [2], "not one that is a step of its own");
        assert_eq!(found(&place("c", "one", 3, "RUN x"), &[])[0], 6, "in a checkout elsewhere");
        assert_eq!(found(&place("c", "one", 3, "RUN z"), &[]), [0; 0]);
        assert!(history.has(&key(7)) && !history.has(&key(8)));
    }

    #[test]
    fn listings_go_with_the_last_run_that_needs_them() {
        let listing = |number: u8| ContentId::from_bytes([number; 32]);
        let with = |made: u8, of: u8| Run { listing: Some(listing(of)), ..run("a", "one", 2, "COPY x", made) };
        let mut history = History::default();
        // The first two runs read the same files; so does another step.
        let other = Run { listing: Some(listing(3)), ..run("a", "one", 3, "COPY y", 1) };
        assert!(history.add([with(1, 1), with(2, 1), with(3, 3), other]).is_empty());
        let runs = u8::try_from(RUNS).unwrap();
        let mut gone = Vec::new();
        for made in 4..4 + runs {
            gone.push(history.add([with(made, made)]).into_iter().collect::<Vec<_>>());
        }
        gone.retain(|listings| !listings.is_empty());
        assert_eq!(gone, [[listing(1)]], "with the second of both, and not what the other step needs");
        assert_eq!(History::decode(&history.encode()), history);
    }

    #[test]
    fn it_stays_bounded_and_comes_back() {
        let mut history = History::default();
        for round in 0..100 {
            history.add([run("a", "one", 2, "RUN x", round), run("a", "one", 2, "RUN x", 0)]);
        }
        assert_eq!(history.0.len(), RUNS);
        assert_eq!(history.0.last().unwrap().key, key(0));
        history.add((0..u32::try_from(2 * MOST).unwrap()).map(|number| run("a", "b", number, &number.to_string(), 1)));
        assert_eq!(history.0.len(), MOST);
        let bytes = history.encode();
        assert_eq!(History::decode(&bytes), history);
        for damaged in [&bytes[..bytes.len() - 1], &bytes[1..], b"", b"strata history 9\n"] {
            assert_eq!(History::decode(damaged), History::default());
        }
    }
}
