//! The lines of a build's record.

use serde::{Deserialize, Serialize};

/// The version of the record's and the logs' form, in every record's first line.
pub(super) const FORMAT: u32 = 1;

/// What is known when a build begins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Head {
    /// Where the files come from, without credentials.
    pub context: String,
    /// The recipe, where it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipe: Option<String>,
    /// The stage, where it was named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The names the image gets.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Where the log of a cached step is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// The build that ran it.
    pub build: String,
    /// Its number there.
    pub step: u64,
}

/// How a build ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "camelCase")]
pub enum Outcome {
    /// With an image.
    Done {
        /// The image's id, where one was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        image: Option<String>,
    },
    /// With an error.
    Failed {
        /// The error, in one line.
        error: String,
    },
    /// Because somebody asked for it.
    Cancelled,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub(super) enum Entry {
    /// The first line.
    Began {
        /// The version of all this.
        format: u32,
        /// The version of the program.
        strata: String,
        /// Milliseconds since 1970.
        time: u64,
        /// What was known then.
        #[serde(flatten)]
        head: Head,
    },
    /// A step began. `at` is in milliseconds since the build began, here and below.
    Started {
        /// Its number, as progress shows it.
        step: u64,
        /// What it is.
        title: String,
        /// When.
        at: u64,
    },
    /// A step's result was known.
    Cached {
        /// Its number.
        step: u64,
        /// What it is.
        title: String,
        /// When.
        at: u64,
        /// Where its log is, if that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        from: Option<Earlier>,
    },
    /// A step ended.
    Finished {
        /// Its number.
        step: u64,
        /// When.
        at: u64,
        /// How long it took, in milliseconds.
        elapsed: u64,
        /// How many bytes it wrote.
        bytes: u64,
        /// Whether its log ends before it did, because it could not be kept.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cut: bool,
        /// The error, in one line.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<String>,
    },
    /// A sentence that concerns the whole build.
    Warning {
        /// When.
        at: u64,
        /// The sentence.
        text: String,
    },
    /// The last line.
    Ended {
        /// When.
        at: u64,
        /// How.
        #[serde(flatten)]
        outcome: Outcome,
    },
}
