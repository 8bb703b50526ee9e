//! What a verification found: each thing that is wrong, what is wrong with it, and what was done about it.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::Serialize;

use crate::digest::{DiffId, Digest};
use crate::store::Damage;

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Subject {
    /// A blob.
    Blob {
        /// Its name.
        digest: Digest,
    },
    /// An unpacked layer.
    Layer {
        /// Its name.
        #[serde(rename = "diffId")]
        diff_id: DiffId,
    },
    /// `index.json` or its copy, or `oci-layout`.
    Index {
        /// Where it is.
        path: PathBuf,
    },
    /// The name of an image.
    Name {
        /// The name as it stands.
        name: String,
    },
    /// A record, or the index of a context.
    Record {
        /// Where it is.
        path: PathBuf,
    },
    /// A cache mount.
    CacheMount {
        /// Where it is.
        path: PathBuf,
    },
    /// What is kept of a build.
    Build {
        /// Its id.
        id: String,
    },
    /// The store as a whole.
    Store,
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob { digest } => write!(f, "blob {digest}"),
            Self::Layer { diff_id } => write!(f, "layer {diff_id}"),
            Self::Index { path } => write!(f, "{}", path.display()),
            Self::Name { name } => write!(f, "name {name}"),
            Self::Record { path } => write!(f, "record {}", path.display()),
            Self::CacheMount { path } => write!(f, "cache mount {}", path.display()),
            Self::Build { id } => write!(f, "build {id}"),
            Self::Store => f.write_str("the store"),
        }
    }
}

/// What was done about a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// Nothing: no repair was asked for.
    Found,
    /// It was removed or mended: what needs it fetches it or makes it again.
    Repaired,
    /// It is gone for good.
    Lost,
    /// Nothing, because a build runs that may be using it.
    InUse,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    #[serde(flatten)]
    pub subject: Subject,
    /// What is wrong with it.
    pub detail: String,
    /// What was done about it.
    pub outcome: Outcome,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { subject, detail, outcome } = self;
        write!(f, "{subject}: {detail}")?;
        match (outcome, subject) {
            (Outcome::Found, _) => Ok(()),
            (Outcome::Repaired, Subject::Index { .. } | Subject::Name { .. } | Subject::Store) => {
                f.write_str(": mended")
            }
            (Outcome::Repaired, _) => f.write_str(": removed, and fetched or made again when it is needed"),
            (Outcome::Lost, Subject::Name { .. }) => f.write_str(": removed; build the image again"),
            (Outcome::Lost, _) => f.write_str(": lost"),
            (Outcome::InUse, _) => f.write_str(": a build runs that may be using it; repair again when it has ended"),
        }
    }
}

/// Findings and notes of several threads.
#[derive(Debug, Default)]
pub(super) struct Findings(Mutex<(Vec<Finding>, Vec<String>)>);

impl Findings {
    pub(super) fn add(&self, finding: Finding) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.push(finding);
    }

    pub(super) fn note(&self, note: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).1.push(note);
    }

    /// What was damaged and mended when the store was opened.
    pub(super) fn opened(&self, damage: &Damage) {
        let subject = match damage {
            Damage::Index { path } => Subject::Index { path: path.clone() },
            _ => Subject::Store,
        };
        self.add(Finding { subject, detail: damage.to_string(), outcome: Outcome::Repaired });
    }

    pub(super) fn into_parts(self) -> (Vec<Finding>, Vec<String>) {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner)
    }
}
