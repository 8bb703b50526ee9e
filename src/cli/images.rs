//! `strata images`

use std::time::SystemTime;

use clap::Args;
use serde::Serialize;

use crate::cli::table::{age, size, table};
use crate::cli::{Format, exit, inspect, print, print_json, workplace};
use crate::digest::Digest;

/// The arguments of `images`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// How the list is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    id: Digest,
    digest: Digest,
    created: Option<String>,
    platform: String,
    /// The sum of the layers' sizes as the manifest gives them, in bytes.
    size: u64,
}

/// Lists the images.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let store = workplace::store()?;
    let mut rows = Vec::new();
    for (name, descriptor) in store.tags()? {
        let stored = inspect::read(&store, &name, &descriptor)?;
        rows.push(Row {
            name: name.familiar(),
            id: stored.manifest.config.digest,
            digest: descriptor.digest,
            platform: format!("{}/{}", stored.config.os, stored.config.architecture),
            size: stored.manifest.layers.iter().map(|layer| layer.size).sum(),
            created: stored.config.created,
        });
    }
    rows.sort_by(|a, b| a.name.cmp(&b.name));
    match arguments.format {
        Format::Json => print_json(&rows),
        Format::Text => print(&text(&rows, SystemTime::now())),
    }
}

fn text(rows: &[Row], now: SystemTime) -> String {
    let mut lines = vec![["NAME", "IMAGE ID", "CREATED", "SIZE"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let created = row.created.as_deref().map_or_else(|| "unknown".to_owned(), |created| age(created, now));
        vec![row.name.clone(), row.id.hex()[..12].to_owned(), created, size(row.size)]
    }));
    table(&lines)
}
