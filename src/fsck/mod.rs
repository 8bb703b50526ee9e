//! Verifies a store: every digest, every reference, every record.
//!
//! Takes a store, gives a [`Report`] of what is wrong in it. Reads every byte that has a digest, on all processors, a few
//! buffers at a time. Runs beside builds: what changes while it is looked at is looked at again. Changes nothing, unless
//! it is asked to repair: then what is damaged is removed, so that it counts as missing and is fetched or made again by the
//! build that needs it, and names whose image cannot be had again are removed and told. Nothing that is sound is removed.
//!
//! What is verified, and by what:
//!
//! | what | by what |
//! | --- | --- |
//! | blobs | the SHA-256 in their name |
//! | layers that steps made | their archive, made again, has their DiffID |
//! | layers of base images | their seal: a digest of the tree as it was unpacked (`layer::archive::seal`) |
//! | descriptions of layers, records, indexes of contexts | their own check sums |
//! | `index.json`, manifests, configurations | what they name is there, or can be fetched again |
//! | cache mounts, logs of builds | their form: what is in them is the steps' own |

mod content;
mod finding;
mod memory;
mod names;
mod rest;

use std::ops::ControlFlow;

use serde::Serialize;

pub use self::finding::{Finding, Outcome, Subject};

use self::finding::Findings;
use crate::layer::OverlayXattr;
use crate::progress::Reporter;
use crate::runtime::Cancel;
use crate::store::{self, Lock, Store};

/// Why a store could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store could not be used.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The cache mounts could not be looked at.
    #[error(transparent)]
    CacheMounts(#[from] crate::execute::cache_mount::stored::Error),
    /// The user ended it.
    #[error("the verification was cancelled")]
    Cancelled,
}

/// How much was verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// Blobs.
    pub blobs: u64,
    /// Their size together, in bytes.
    pub blob_bytes: u64,
    /// Unpacked layers.
    pub layers: u64,
    /// The size of their archives together, in bytes.
    pub layer_bytes: u64,
    /// Entries of `index.json`.
    pub names: u64,
    /// Records, and indexes of contexts.
    pub records: u64,
    /// Cache mounts.
    pub cache_mounts: u64,
    /// Builds that are kept.
    pub builds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Report {
    /// How much was verified.
    pub verified: Verified,
    /// What is wrong, in the order of the store's parts.
    pub findings: Vec<Finding>,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether the store is whole now, and nobody lost anything that cannot be made again.
    pub fn is_good(&self) -> bool {
        self.findings.iter().all(|finding| finding.outcome == Outcome::Repaired)
    }
}

/// Everything a check works with.
#[derive(Debug)]
struct Check<'a> {
    store: &'a Store,
    xattr: OverlayXattr,
    reporter: &'a Reporter,
    cancel: &'a Cancel,
    repair: bool,
    findings: Findings,
}

/// Verifies a store, and repairs it if that is asked for.
///
/// # Errors
/// What keeps it from being verified; what is wrong in the store is in the report.
pub fn check(
    store: &Store,
    xattr: OverlayXattr,
    repair: bool,
    reporter: &Reporter,
    cancel: &Cancel,
) -> Result<Report, Error> {
    let findings = Findings::default();
    // What opening it has mended already.
    store.take_damage().into_iter().for_each(|damage| findings.opened(&damage));
    let check = Check { store, xattr, reporter, cancel, repair, findings };
    let mut verified = Verified::default();
    check.blobs(&mut verified)?;
    let damaged = check.layers(&mut verified)?;
    let known = check.records(&mut verified)?;
    check.names(&damaged, &known, &mut verified)?;
    check.cache_mounts(&mut verified)?;
    check.builds(&mut verified)?;
    check.leftovers();
    // What a repair noted is in the findings.
    store.take_damage();
    let (findings, notes) = check.findings.into_parts();
    Ok(Report { verified, findings, notes })
}

impl Check<'_> {
    fn go_on(&self) -> Result<(), Error> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// Does what repairs a finding, if that is asked for, and adds the finding.
    fn found(
        &self,
        subject: Subject,
        detail: impl Into<String>,
        mend: impl FnOnce() -> Result<Outcome, Error>,
    ) -> Result<(), Error> {
        let outcome = if self.repair { mend()? } else { Outcome::Found };
        self.findings.add(Finding { subject, detail: detail.into(), outcome });
        Ok(())
    }

    /// Keeps builds off, for what they cannot be robbed of while they run; `None` while one does.
    fn alone(&self) -> Result<Option<Lock>, Error> {
        match self.store.exclusive("repair the store", &mut |_| ControlFlow::Break(())) {
            Ok(lock) => Ok(Some(lock)),
            Err(store::Error::Cancelled { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests;
