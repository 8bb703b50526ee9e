//! `strata fsck`

use std::fmt::Write;
use std::sync::Arc;

use clap::Args;

use crate::build::Workplace;
use crate::cli::table::{size, table};
use crate::cli::{Format, build, exit, print, print_json, workplace};
use crate::fsck::{self, Outcome, Report, Verified};

/// The arguments of `fsck`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Remove what is damaged, so that it is fetched or made again when it is needed; names whose image cannot be had again
    /// are removed too, and told
    #[arg(long)]
    repair: bool,

    /// How the findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// Verifies the store. Fails if something is wrong with it afterwards, or a name was lost.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let Workplace { store, reporter, cancel, xattr, .. } = workplace::open(Arc::from(build::progress_view()))?;
    // Dead processes' files are no damage.
    let swept = store.sweep()?.wait();
    let mut report = fsck::check(&store, xattr, arguments.repair, &reporter, &cancel)?;
    report.notes.extend(swept.failures.iter().map(ToString::to_string));
    match arguments.format {
        Format::Json => print_json(&report)?,
        Format::Text => print(&text(&report))?,
    }
    if report.is_good() {
        return Ok(());
    }
    let count = |outcome| report.findings.iter().filter(|finding| finding.outcome == outcome).count();
    Err(exit::Error::Unsound { found: count(Outcome::Found) + count(Outcome::InUse), lost: count(Outcome::Lost) })
}

fn text(report: &Report) -> String {
    let Verified { blobs, blob_bytes, layers, layer_bytes, names, records, cache_mounts, builds } = report.verified;
    let row = |what: &str, count: u64, bytes: Option<u64>| {
        vec![what.to_owned(), count.to_string(), bytes.map(size).unwrap_or_default()]
    };
    let rows = [
        row("VERIFIED", 0, None).into_iter().take(1).chain(["COUNT".to_owned(), "SIZE".to_owned()]).collect(),
        row("blobs", blobs, Some(blob_bytes)),
        row("layers", layers, Some(layer_bytes)),
        row("names", names, None),
        row("records", records, None),
        row("cache mounts", cache_mounts, None),
        row("builds", builds, None),
    ];
    let mut text = table(&rows);
    for finding in &report.findings {
        let _ = writeln!(text, "wrong: {finding}");
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(
        text,
        "{}",
        match (report.is_good(), report.findings.is_empty()) {
            (true, true) => "the store is whole",
            (true, false) => "the store is whole now",
            (false, _) => "the store is not whole",
        }
    );
    text
}
