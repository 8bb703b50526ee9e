//! `strata doctor`: what this machine lets Strata do.
//!
//! Looks at the kernel and its settings (`runtime::probe`), then tries what a build would do: opens the store, runs a
//! step, asks the registries. Every finding that is not fine says what is lost and the command or setting that mends it.

use std::ffi::CString;
use std::path::Path;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use crate::build::{Workplace, sentence};
use crate::cli::table::size;
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::layer::OverlayXattr;
use crate::limits::Limits;
use crate::progress::Silent;
use crate::registry::{Client, CredentialFiles, Reached};
use crate::runtime::probe::{Condition, Finding, probe};
use crate::runtime::{self, Cancel, Identity, Network, Plan, Security, Status, network};
use crate::settings::{Host, Location, Settings};
use crate::store::Room;

/// The arguments of `doctor`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// Ask this registry, too, besides those of the settings (repeatable)
    #[arg(long, value_name = "HOST[:PORT]")]
    registry: Vec<String>,

    /// Ask no registry
    #[arg(long, conflicts_with = "registry")]
    offline: bool,

    /// How findings are printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// One finding, as `--format json` prints it.
#[derive(Debug, Serialize)]
struct Row<'a> {
    name: &'a str,
    condition: &'static str,
    detail: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<&'a str>,
}

impl<'a> From<&'a Finding> for Row<'a> {
    fn from(finding: &'a Finding) -> Self {
        let Finding { name, detail, remedy, .. } = finding;
        Self { name, condition: word(finding.condition), detail, remedy: remedy.as_deref() }
    }
}

/// Fewer free bytes than this are too few for a build of any size.
const SCARCE: u64 = 5_000_000_000;

/// Fewer free bytes than this are too few for any build.
const NONE_LEFT: u64 = 100_000_000;

/// Fewer free files than this are too few: a base image of a distribution has some thousands.
const FEW_FILES: u64 = 20_000;

/// The registry of images that name none.
const USUAL_REGISTRY: &str = "docker.io";

/// Looks at everything, and prints what it found. Anything that is missing is a failure.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let extra = arguments.registry.iter().map(|text| host(text)).collect::<Result<Vec<Host>, _>>()?;
    // Before anything enters a user namespace, because it is the user's own rights that matter.
    let mut findings = probe();
    match workplace::open(Arc::new(Silent)) {
        Ok(place) => {
            findings.push(store(&place));
            findings.push(file_system(&place));
            findings.push(step(&place));
            findings.push(network::probe(&place.pasta));
        }
        Err(error) => findings.push(broken("store", &error, "set STRATA_ROOT to a directory that you can write")),
    }
    if !arguments.offline {
        findings.extend(registries(extra)?);
    }
    match arguments.format {
        Format::Text => print(&text(&findings))?,
        Format::Json => print_json(&findings.iter().map(Row::from).collect::<Vec<_>>())?,
    }
    let missing = findings.iter().filter(|finding| finding.condition == Condition::Missing).count();
    if missing == 0 { Ok(()) } else { Err(exit::Error::Unfit { missing }) }
}

fn host(text: &str) -> Result<Host, exit::Error> {
    text.parse().map_err(|error| exit::Error::Usage(format!("--registry: {error}")))
}

/// Whether there is a store, and room in it.
fn store(place: &Workplace) -> Finding {
    let root = place.store.root().display().to_string();
    match place.store.room() {
        Ok(room) => room_finding(&root, room),
        Err(error) => broken("store", &error, "set STRATA_ROOT to a directory that you can write"),
    }
}

fn room_finding(root: &str, room: Room) -> Finding {
    let few_files = room.free_files.filter(|files| *files < FEW_FILES);
    let condition = match room.free {
        0..NONE_LEFT => Condition::Missing,
        NONE_LEFT..SCARCE => Condition::Degraded,
        _ if few_files.is_some() => Condition::Degraded,
        _ => Condition::Fine,
    };
    let files = few_files.map(|files| format!(", and only {files} more files can be made")).unwrap_or_default();
    let detail = format!("{root}: {} of {} are free{files}", size(room.free), size(room.total));
    let remedy = "remove images with strata rm, or set STRATA_ROOT to a directory on a larger disk";
    Finding { name: "store", condition, detail, remedy: (condition != Condition::Fine).then(|| remedy.to_owned()) }
}

/// Whether the store is on a file system that layers can be kept and stacked on.
fn file_system(place: &Workplace) -> Finding {
    match rustix::fs::statfs(place.store.root()) {
        Ok(found) => file_system_finding(found.f_type & 0xffff_ffff),
        Err(error) => broken("file system", &error, "set STRATA_ROOT to a directory that you can write"),
    }
}

/// The file systems that are known to serve, and those that are known not to, by the numbers of `statfs(2)`.
///
/// Whether an unknown one serves is for the sandbox to find out.
fn file_system_finding(number: i64) -> Finding {
    const DISK: &str = "a disk of this machine: ext4, xfs or btrfs";
    let (name, lost) = match number {
        0xef53 => ("ext4", ""),
        0x5846_5342 => ("xfs", ""),
        0x9123_683e => ("btrfs", ""),
        0x2fc1_2fc1 => ("zfs", ""),
        0x0102_1994 => ("tmpfs", "the store takes up memory, and is gone after a reboot"),
        0x794c_7630 => ("overlay", "steps cannot run on it, because overlays do not stack"),
        0x6969 => ("nfs", "steps cannot run on it, because it keeps no records of an overlay"),
        0xff53_4d42 | 0xfe53_4d42 => {
            ("smb", "steps cannot run on it, because it keeps neither owners nor overlay records")
        }
        0x4d44 => ("vfat", "steps cannot run on it, because it keeps neither owners nor modes"),
        0x6573_5546 => ("fuse", "steps may not run on it, and are slow where they do"),
        0x0102_1997 => ("9p", "steps may not run on it, and are slow where they do"),
        _ => ("one that Strata has not been tried on", ""),
    };
    let (condition, detail) = match lost {
        "" => (Condition::Fine, name.to_owned()),
        lost => (Condition::Degraded, format!("{name}: {lost}")),
    };
    let remedy = (condition != Condition::Fine).then(|| format!("set STRATA_ROOT to a directory on {DISK}"));
    Finding { name: "file system", condition, detail, remedy }
}

/// Runs this very program as a step would run, in a root that holds nothing else.
fn step(place: &Workplace) -> Finding {
    match try_step(place) {
        Ok(outcome) if outcome.status == Status::Exited(0) => {
            let took = format!("a sandboxed program ran and ended in {:.1} ms", outcome.elapsed.as_secs_f64() * 1000.0);
            Finding { name: "sandbox", condition: Condition::Fine, detail: took, remedy: None }
        }
        Ok(outcome) => {
            let detail = format!("a sandboxed program that should have ended well did not: {:?}", outcome.status);
            Finding {
                name: "sandbox",
                condition: Condition::Missing,
                detail,
                remedy: Some("see whether a security module (dmesg, journalctl -k) denies something".to_owned()),
            }
        }
        Err(error) => broken("sandbox", &*error, "mend what the other lines name"),
    }
}

fn try_step(place: &Workplace) -> Result<runtime::Outcome, Box<dyn std::error::Error>> {
    let scratch = place.store.scratch()?;
    let (base, upper, work) = (scratch.dir("base")?, scratch.dir("upper")?, scratch.dir("work")?);
    std::fs::copy("/proc/self/exe", base.join("strata"))?;
    let plan = Plan {
        argv: vec![CString::from(c"/strata"), CString::from(c"--version")],
        ..idle_plan(&base, &upper, &work, place.xattr)
    };
    let outcome = runtime::run(&plan, &|_, _| (), &Cancel::new())?;
    scratch.remove()?;
    Ok(outcome)
}

fn idle_plan(base: &Path, upper: &Path, work: &Path, xattr: OverlayXattr) -> Plan {
    Plan {
        lowers: vec![base.to_owned()],
        upper: upper.to_owned(),
        work: work.to_owned(),
        userxattr: xattr == OverlayXattr::User,
        argv: Vec::new(),
        env: Vec::new(),
        cwd: "/".into(),
        identity: Identity::default(),
        hostname: "doctor".to_owned(),
        overlaid: Vec::new(),
        mounts: Vec::new(),
        network: Network::None,
        limits: Limits::default(),
        security: Security::Sandbox,
    }
}

/// Asks the usual registry, those of the settings and those named on the command line, all at once.
fn registries(extra: Vec<Host>) -> Result<Vec<Finding>, exit::Error> {
    let environment = |name: &str| std::env::var_os(name);
    let mut settings = Settings::load(&Location::from_environment(&environment))?;
    settings.network.connect_timeout = settings.network.connect_timeout.min(std::time::Duration::from_secs(5));
    let mut hosts: Vec<Host> = settings.registries.keys().cloned().chain(extra).collect();
    hosts.extend(USUAL_REGISTRY.parse::<Host>());
    hosts.sort();
    hosts.dedup();
    let client = Client::new(settings, CredentialFiles::none());
    let reached: Vec<Reached> = std::thread::scope(|scope| {
        let asked: Vec<_> = hosts.iter().map(|host| scope.spawn(|| client.reach(host))).collect();
        asked
            .into_iter()
            .flat_map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    Ok(reached.into_iter().map(reached_finding).collect())
}

fn reached_finding(Reached { host, is_mirror, outcome }: Reached) -> Finding {
    let what = if is_mirror { "mirror" } else { "registry" };
    match outcome {
        Ok(()) => Finding { name: what, condition: Condition::Fine, detail: format!("{host} answers"), remedy: None },
        // What is in the store already can be built on all the same.
        Err(error) => Finding {
            name: what,
            condition: Condition::Degraded,
            detail: format!("images of {host} that are not in the store cannot be used: {}", sentence(&error)),
            remedy: Some(format!("see whether curl https://{host}/v2/ answers; proxies are read from HTTPS_PROXY")),
        },
    }
}

fn broken(name: &'static str, error: &dyn std::error::Error, remedy: &str) -> Finding {
    Finding { name, condition: Condition::Missing, detail: sentence(error), remedy: Some(remedy.to_owned()) }
}

fn word(condition: Condition) -> &'static str {
    match condition {
        Condition::Fine => "fine",
        Condition::Degraded => "degraded",
        Condition::Missing => "missing",
    }
}

fn text(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.name.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { name, condition, detail, remedy } in findings {
        text += &format!("{:8}  {name:width$}  {detail}\n", word(*condition));
        if let Some(remedy) = remedy.as_ref().filter(|_| *condition != Condition::Fine) {
            text += &format!("{:8}  {:width$}  to mend it: {remedy}\n", "", "");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_judged() {
        let room = |free, free_files| Room { free, total: 1_000_000_000_000, free_files };
        for (room, condition) in [
            (room(900_000_000_000, None), Condition::Fine),
            (room(900_000_000_000, Some(1_000_000)), Condition::Fine),
            (room(900_000_000_000, Some(10)), Condition::Degraded),
            (room(1_000_000_000, None), Condition::Degraded),
            (room(0, None), Condition::Missing),
        ] {
            let finding = room_finding("/store", room);
            assert_eq!(finding.condition, condition, "{finding:?}");
            assert_eq!(finding.remedy.is_some(), condition != Condition::Fine, "{finding:?}");
        }
    }

    #[test]
    fn file_systems_are_judged() {
        for (number, name, condition) in [
            (0xef53, "ext4", Condition::Fine),
            (0x9123_683e, "btrfs", Condition::Fine),
            (0x794c_7630, "overlay", Condition::Degraded),
            (0x6969, "nfs", Condition::Degraded),
            (0x0102_1994, "tmpfs", Condition::Degraded),
            (0x1234, "not been tried", Condition::Fine),
        ] {
            let finding = file_system_finding(number);
            assert!(finding.detail.contains(name), "{finding:?}");
            assert_eq!((finding.condition, finding.remedy.is_some()), (condition, condition != Condition::Fine));
        }
        // What the kernel says of a file system that is here.
        let of_proc = rustix::fs::statfs("/proc").unwrap().f_type & 0xffff_ffff;
        assert_eq!(of_proc, 0x9fa0);
    }

    #[test]
    fn what_mends_it_stands_below() {
        let fine = Finding { name: "kernel", condition: Condition::Fine, detail: "Linux 6.1".to_owned(), remedy: None };
        let bad = broken("store", &std::io::Error::other("no"), "buy a disk");
        assert_eq!(
            text(&[fine, bad]),
            "fine      kernel  Linux 6.1\nmissing   store   no\n                  to mend it: buy a disk\n"
        );
    }
}
