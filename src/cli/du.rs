//! `strata du`

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use crate::cli::table::{age, size, table};
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::collection::{Hold, Inventory, Item, Kind, Sizes, Usage, usage};
use crate::store::{Used, What};

/// The arguments of `du`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Also list every single thing
    #[arg(short, long)]
    verbose: bool,

    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Everything, for programs. Sizes are in bytes, as the disk counts them.
#[derive(Debug, Serialize)]
struct Report {
    kinds: Vec<Row>,
    size: u64,
    reclaimable: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    items: Option<Vec<Single>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    kind: Kind,
    count: usize,
    size: u64,
    shared: u64,
    unique: u64,
    reclaimable: u64,
    last_used: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Single {
    kind: Kind,
    id: String,
    size: u64,
    hold: Hold,
    last_used: String,
}

/// Lists what there is.
pub(super) fn run(arguments: &Arguments) -> Result<(), exit::Error> {
    let store = workplace::whole_store()?;
    let inventory = Inventory::take(&store, Sizes::Exact)?;
    let report = Report::of(&inventory, arguments.verbose);
    match arguments.format {
        Format::Json => print_json(&report),
        Format::Text => print(&report.text(SystemTime::now())),
    }
}

impl Report {
    fn of(inventory: &Inventory, verbose: bool) -> Self {
        let kinds: Vec<Row> = usage(inventory).into_iter().map(Row::of).collect();
        Self {
            size: kinds.iter().map(|row| row.size).sum(),
            reclaimable: kinds.iter().map(|row| row.reclaimable).sum(),
            kinds,
            items: verbose.then(|| singles(inventory)),
        }
    }

    fn text(&self, now: SystemTime) -> String {
        let heads = ["KIND", "COUNT", "SIZE", "SHARED", "UNIQUE", "RECLAIMABLE", "LAST USED"];
        let mut lines = vec![heads.map(str::to_owned).to_vec()];
        lines.extend(self.kinds.iter().map(|row| {
            let sizes = [row.size, row.shared, row.unique, row.reclaimable].map(size);
            let used = row.last_used.as_ref().map_or_else(|| "-".to_owned(), |used| age(used, now));
            let mut line = vec![row.kind.name().to_owned(), row.count.to_string()];
            line.extend(sizes.into_iter().chain([used]));
            line
        }));
        let blank = String::new();
        let total = ["total".to_owned(), blank.clone(), size(self.size), blank.clone(), blank, size(self.reclaimable)];
        lines.push(total.to_vec());
        let mut text = table(&lines);
        if let Some(items) = &self.items {
            let mut lines = vec![["KIND", "ID", "SIZE", "KEPT BY", "LAST USED"].map(str::to_owned).to_vec()];
            lines.extend(items.iter().map(|item| {
                let id = item.id.escape_debug().to_string();
                let used = age(&item.last_used, now);
                vec![item.kind.name().to_owned(), id, size(item.size), kept_by(item.hold).to_owned(), used]
            }));
            text += "\n";
            text += &table(&lines);
        }
        text
    }
}

impl Row {
    fn of(usage: Usage) -> Self {
        let Usage { kind, count, size, shared, reclaimable, last_use } = usage;
        Self { kind, count, size, shared, unique: size - shared, reclaimable, last_used: last_use.map(written) }
    }
}

const fn kept_by(hold: Hold) -> &'static str {
    match hold {
        Hold::Free => "-",
        Hold::Named => "a base image's name",
        Hold::Tagged => "a tag",
        Hold::InUse => "a running build",
        Hold::Fixed => "the store",
    }
}

fn written(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

/// Every thing but the store's own directories: by kind, the largest first.
fn singles(inventory: &Inventory) -> Vec<Single> {
    let mut items: Vec<Single> = inventory
        .items
        .iter()
        .filter(|item| item.content.what != What::Directory)
        .map(|item| Single {
            kind: item.kind,
            id: id(item),
            size: item.size.bytes(),
            hold: item.hold,
            last_used: written(item.content.last_use),
        })
        .collect();
    items.sort_by(|a, b| (a.kind, b.size, &a.id).cmp(&(b.kind, a.size, &b.id)));
    items
}

fn id(item: &Item) -> String {
    let name = item.content.path.file_name().unwrap_or_default().to_string_lossy();
    match &item.content.what {
        What::Used(Used::Layer(diff_id)) => diff_id.to_string(),
        What::Used(Used::Blob(digest)) => digest.to_string(),
        // The first line of its file is what recipes call it.
        What::Used(Used::Mount(_)) => std::fs::read_to_string(item.content.path.join("id"))
            .ok()
            .and_then(|text| Some(text.strip_suffix('\n')?.rsplit_once('\n')?.0.to_owned()))
            .unwrap_or_else(|| name.into_owned()),
        What::Record(bucket) => format!("{bucket}/{name}"),
        What::ContextIndex => format!("contexts/{name}"),
        What::Build { .. } | What::Scratch { .. } | What::Directory | What::Other => name.into_owned(),
    }
}
