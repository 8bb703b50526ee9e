//! `strata cache-mounts`

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::build::Workplace;
use crate::cli::table::{age, size, table};
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::diagnostic::nearest;
use crate::execute::cache_mount::carry;
use crate::execute::cache_mount::stored::{self, StoredCache};
use crate::progress::Silent;
use crate::recipe::platform::Platform;

/// The arguments of `cache-mounts`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the caches that RUN --mount=type=cache keeps
    Ls {
        /// How the list is printed
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Remove caches, unless a build runs
    Rm(Which),
    /// Write caches to an archive
    Export {
        #[command(flatten)]
        which: Which,

        /// The archive; - for standard output
        #[arg(short, long, value_name = "FILE")]
        output: PathBuf,
    },
    /// Put the caches of an archive into the local store; one that is there is replaced
    Import {
        /// The archive; - for standard input
        #[arg(value_name = "FILE")]
        input: PathBuf,
    },
}

#[derive(Debug, Args)]
struct Which {
    /// The caches' ids
    #[arg(value_name = "ID", required_unless_present = "all", conflicts_with = "all")]
    ids: Vec<String>,

    /// All caches
    #[arg(long)]
    all: bool,

    /// Only those of this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    id: String,
    platform: String,
    copies: usize,
    /// In bytes, as the disk counts them.
    size: u64,
    last_used: String,
}

/// Does what was asked for.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let place = workplace::open(Arc::new(Silent))?;
    match arguments.command {
        Command::Ls { format } => list(&place, format),
        Command::Rm(which) => remove(&place, &which),
        Command::Export { which, output } => export(&place, &which, &output),
        Command::Import { input } => import(&place, &input),
    }
}

fn list(place: &Workplace, format: Format) -> Result<(), exit::Error> {
    let rows: Vec<Row> = stored::list(&place.store)?
        .into_iter()
        .map(|cache| Row {
            size: cache.size(),
            last_used: jiff::Timestamp::try_from(cache.used).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string(),
            copies: cache.copies,
            platform: cache.platform,
            id: cache.id,
        })
        .collect();
    match format {
        Format::Json => print_json(&rows),
        Format::Text => print(&text(&rows, SystemTime::now())),
    }
}

fn text(rows: &[Row], now: SystemTime) -> String {
    let mut lines = vec![["ID", "PLATFORM", "COPIES", "SIZE", "LAST USED"].map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        let id = row.id.escape_debug().to_string();
        vec![id, row.platform.clone(), row.copies.to_string(), size(row.size), age(&row.last_used, now)]
    }));
    table(&lines)
}

fn remove(place: &Workplace, which: &Which) -> Result<(), exit::Error> {
    let alone = stored::alone(&place.store, "remove cache mounts")?;
    for cache in which.of(stored::list(&place.store)?)? {
        cache.remove(&place.store, &alone)?;
        print(&format!("removed {} ({})\n", cache.id, cache.platform))?;
    }
    Ok(())
}

fn export(place: &Workplace, which: &Which, output: &Path) -> Result<(), exit::Error> {
    let alone = stored::alone(&place.store, "export cache mounts")?;
    let caches = which.of(stored::list(&place.store)?)?;
    if output == Path::new("-") {
        if std::io::stdout().is_terminal() {
            return Err(exit::Error::Usage("an archive is not written to a terminal: use -o FILE".to_owned()));
        }
        return Ok(carry::export(&caches, place.xattr, &alone, &mut std::io::stdout().lock())?);
    }
    // Whole under its name or not at all.
    let failed = |source| exit::Error::Write { path: output.to_owned(), source };
    let directory = output.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // As readable as any new file is.
    let mode = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(mode).tempfile_in(directory).map_err(failed)?;
    {
        let mut sink = std::io::BufWriter::with_capacity(1 << 20, &mut file);
        carry::export(&caches, place.xattr, &alone, &mut sink)?;
        sink.flush().map_err(failed)?;
    }
    file.persist(output).map_err(|error| failed(error.error))?;
    for cache in &caches {
        print(&format!("exported {} ({})\n", cache.id, cache.platform))?;
    }
    Ok(())
}

fn import(place: &Workplace, input: &Path) -> Result<(), exit::Error> {
    let mut reader: Box<dyn Read + Send> = if input == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        let failed = |source| exit::Error::Read { path: input.to_owned(), source };
        Box::new(std::io::BufReader::with_capacity(1 << 20, File::open(input).map_err(failed)?))
    };
    let alone = stored::alone(&place.store, "import cache mounts")?;
    for cache in carry::import(&place.store, place.xattr, place.owners, &alone, &mut *reader)? {
        print(&format!("imported {} ({})\n", cache.id, cache.platform))?;
        for left_out in cache.left_out {
            print(&format!("  {left_out}\n"))?;
        }
    }
    Ok(())
}

impl Which {
    /// Those that are meant; all that are named have to be there.
    fn of(&self, caches: Vec<StoredCache>) -> Result<Vec<StoredCache>, exit::Error> {
        let platform = self.platform.as_deref().map(str::parse::<Platform>).transpose()?.map(|found| found.to_string());
        let here: Vec<StoredCache> = caches
            .into_iter()
            .filter(|cache| platform.as_ref().is_none_or(|platform| *platform == cache.platform))
            .collect();
        let known: BTreeSet<&str> = here.iter().map(|cache| cache.id.as_str()).collect();
        if let Some(id) = self.ids.iter().find(|id| !known.contains(id.as_str())) {
            let nearest = nearest(id, known.iter().copied()).map(str::to_owned);
            return Err(exit::Error::NoCacheMount { id: id.clone(), nearest });
        }
        Ok(here.into_iter().filter(|cache| self.all || self.ids.contains(&cache.id)).collect())
    }
}
