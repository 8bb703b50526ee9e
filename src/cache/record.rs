//! What is remembered of a step: the fields of its key, so that a miss can be explained, and the layer it made.

use serde::{Deserialize, Serialize};

use crate::cache::key::Fields;
use crate::digest::DiffId;

/// One step's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// The fields the key was made of.
    pub fields: Fields,
    /// The layer the step made.
    pub layer: DiffId,
    /// The time that the image gives the step: `SOURCE_DATE_EPOCH` where it is set, else when it was made; seconds since
    /// 1970.
    pub created: i64,
    /// When it was made by the clock: seconds since 1970. Its age counts from here.
    pub made: i64,
    /// How long it took, in milliseconds.
    pub elapsed_ms: u64,
    /// The step as it stood in the recipe.
    pub step: String,
    /// What it started from, so that another parent can be told by name.
    pub below: Below,
    /// The build that made it, which has what the step wrote; records of earlier releases do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made_by: Option<MadeBy>,
}

/// What a step started from: not part of its key, which has the layers themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Below {
    /// Nothing.
    Scratch,
    /// A base image.
    Image {
        /// Its name.
        name: String,
        /// The digest it had: of its index, where it has one.
        digest: String,
    },
    /// Another step.
    Step {
        /// The step as it stood in the recipe.
        text: String,
        /// The layer it made.
        layer: Option<DiffId>,
    },
}

/// A step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeBy {
    /// The build's id.
    pub build: String,
    /// The step's number in it.
    pub step: u64,
}

impl Record {
    /// The record as bytes for the store, whose own check guards them.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record holds only strings and numbers")
    }

    /// The record in some bytes; `None` if they are not one.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok()
    }
}
