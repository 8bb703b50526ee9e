//! `strata prune`

use std::io::{BufRead, IsTerminal};
use std::time::{Duration, SystemTime};

use clap::Args;
use serde::Serialize;

use crate::build::sentence;
use crate::cli::table::{size, table};
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::collection::{Caps, Freed, Inventory, Policy, Scope, Sizes, collect, would_free};
use crate::store::Store;
use crate::units::{self, Amount};

/// The arguments of `prune`, which are those of `docker builder prune` where these mean something here.
#[derive(Debug, Args)]
#[command(
    after_help = "Without --all: layers and blobs that no tag reaches and no running build uses, with the results of \
    steps that need them. With --all also cache mounts, all else that is remembered, and past builds' logs. Whatever goes \
    is made or fetched again when it is needed. SIZE is a number of bytes such as 20GB, or a share of the disk such as 10%."
)]
pub(super) struct Arguments {
    /// Also remove cache mounts, names of base images, indexes of contexts and logs of past builds
    #[arg(short, long)]
    all: bool,

    /// Only what was not used for so long, such as 24h, 7d or 2w
    #[arg(long, value_name = "AGE")]
    older_than: Option<String>,

    /// Only as much as it takes for the store to take no more than this; what was used longest ago goes first
    #[arg(long, visible_aliases = ["max-used-space"], value_name = "SIZE")]
    keep_storage: Option<String>,

    /// As much as it takes for so much of the disk to be free
    #[arg(long, value_name = "SIZE")]
    min_free_space: Option<String>,

    /// Leave the store so much; with --min-free-space, even if the disk stays full
    #[arg(long, value_name = "SIZE")]
    reserved_space: Option<String>,

    /// As Docker has it: until=AGE or unused-for=AGE, which mean --older-than
    #[arg(long, value_name = "FILTER")]
    filter: Vec<String>,

    /// Only say what would go
    #[arg(long)]
    dry_run: bool,

    /// Do not ask
    #[arg(short, long)]
    force: bool,

    /// How the outcome is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    dry_run: bool,
    kinds: Vec<Freed>,
    /// All of it, in bytes.
    freed: u64,
}

/// Removes.
pub(super) fn run(arguments: &Arguments) -> Result<(), exit::Error> {
    let age = arguments.age()?;
    let caps = arguments.caps()?;
    let may_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !arguments.force && !arguments.dry_run && !may_ask {
        return Err(exit::Error::Usage(
            "nobody can be asked whether to go on: add --force to remove, or --dry-run to see what would go".to_owned(),
        ));
    }
    let store = workplace::whole_store()?;
    let collection = store.await_collection()?;
    let inventory = Inventory::take(&store, Sizes::Exact)?;
    let used = inventory.bytes();
    let keep = match caps {
        Some(caps) => Some(caps.keep(used, &store.room()?).unwrap_or(u64::MAX)),
        None => None,
    };
    let scope = if arguments.all { Scope::Everything } else { Scope::Unneeded };
    let policy = Policy { scope, before: age.map(before), keep };
    let freed = if arguments.dry_run {
        would_free(&inventory, &policy)
    } else {
        if !arguments.force && !agreed(&would_free(&inventory, &policy)) {
            return Ok(());
        }
        let removed = collect(&store, &collection, &inventory, &policy)?;
        for failure in &removed.failures {
            exit::say(&format!("warning: {}\n", sentence(failure)));
        }
        removed.taken.delete()?;
        recount(&store, used, &removed.freed);
        removed.freed
    };
    let report =
        Report { dry_run: arguments.dry_run, freed: freed.iter().map(|freed| freed.bytes).sum(), kinds: freed };
    match arguments.format {
        Format::Json => print_json(&report),
        Format::Text => print(&report.text()),
    }
}

/// The time that was so long ago; of what cannot be that old nothing is.
fn before(age: Duration) -> SystemTime {
    SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// What is left is known exactly now; nothing depends on its being written down.
fn recount(store: &Store, used: u64, freed: &[Freed]) {
    let freed = freed.iter().map(|freed| freed.bytes).sum();
    let _ = store.counted(used.saturating_sub(freed));
}

/// Asks on the terminal.
fn agreed(freed: &[Freed]) -> bool {
    if freed.is_empty() {
        return true;
    }
    let lines: Vec<_> = freed.iter().map(line).collect();
    exit::say(&format!("this removes from the local store:\n{}go on? [y/N] ", table(&lines)));
    let mut answer = String::new();
    // Whoever cannot answer did not agree.
    std::io::stdin().lock().read_line(&mut answer).is_ok()
        && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}

fn line(freed: &Freed) -> Vec<String> {
    vec![freed.kind.name().to_owned(), freed.count.to_string(), size(freed.bytes)]
}

impl Report {
    fn text(&self) -> String {
        let done = if self.dry_run { "would free" } else { "freed" };
        let mut lines = Vec::new();
        if !self.kinds.is_empty() {
            let freed = if self.dry_run { "WOULD FREE" } else { "FREED" };
            lines.push(["KIND", "COUNT", freed].map(str::to_owned).to_vec());
            lines.extend(self.kinds.iter().map(line));
        }
        format!("{}{done} {}\n", table(&lines), size(self.freed))
    }
}

impl Arguments {
    /// How long what goes was not used.
    fn age(&self) -> Result<Option<Duration>, exit::Error> {
        let mut given = self.older_than.as_ref().map(|text| ("--older-than".to_owned(), text.clone()));
        for filter in &self.filter {
            let (key, value) = filter.split_once('=').unwrap_or((filter, ""));
            if !matches!(key, "until" | "unused-for") {
                return Err(exit::Error::Usage(format!(
                    "--filter {filter}: only until=AGE and unused-for=AGE are known here; strata du --verbose lists what \
                     there is"
                )));
            }
            if let Some((other, _)) = given.replace((format!("--filter {key}"), value.to_owned())) {
                return Err(exit::Error::Usage(format!("{other} and --filter {key} say the same thing twice")));
            }
        }
        let Some((flag, text)) = given else { return Ok(None) };
        let age = units::age(&text).ok_or_else(|| {
            exit::Error::Usage(format!("{flag}: {text:?} is no age: expected a duration such as 24h, 7d or 2w"))
        })?;
        Ok(Some(age))
    }

    /// What bounds the store; `None` where nothing does, and all goes.
    fn caps(&self) -> Result<Option<Caps>, exit::Error> {
        let read = |flag: &str, text: &Option<String>| {
            let wrong = |text: &String| {
                exit::Error::Usage(format!("{flag}: {text:?} is no size: expected one such as 20GB, or 10%"))
            };
            text.as_ref().map(|text| units::amount(text).ok_or_else(|| wrong(text))).transpose()
        };
        let most = read("--keep-storage", &self.keep_storage)?;
        let free = read("--min-free-space", &self.min_free_space)?;
        let reserved = read("--reserved-space", &self.reserved_space)?;
        if most.is_none() && free.is_none() && reserved.is_none() {
            return Ok(None);
        }
        if most.is_some() && reserved.is_some() {
            return Err(exit::Error::Usage(
                "--keep-storage and --reserved-space both say how much the store keeps: give one of them".to_owned(),
            ));
        }
        // What is reserved is all that a store keeps of which nothing else is said.
        let most = most.or(reserved.filter(|_| free.is_none()));
        Ok(Some(Caps { most, free, reserved: reserved.unwrap_or(Amount::Bytes(0)) }))
    }
}
