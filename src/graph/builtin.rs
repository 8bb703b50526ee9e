//! Build arguments that steer the build itself, and that no `ARG` has to declare.
//!
//! Knows their names, and which of them mean something to BuildKit and nothing here. What the others do is said where it
//! is done.

use std::collections::BTreeMap;

use crate::recipe::remote::boolean;

/// Every name.
pub(super) const NAMES: [&str; 10] = [
    "BUILDKIT_BUILD_NAME",
    "BUILDKIT_CACHE_MOUNT_NS",
    "BUILDKIT_CONTEXT_KEEP_GIT_DIR",
    "BUILDKIT_DOCKERFILE_CHECK",
    "BUILDKIT_INLINE_CACHE",
    "BUILDKIT_MULTI_PLATFORM",
    "BUILDKIT_SANDBOX_HOSTNAME",
    "BUILDKIT_SBOM_SCAN_CONTEXT",
    "BUILDKIT_SBOM_SCAN_STAGE",
    "BUILDKIT_SYNTAX",
];

/// Those that change nothing here, and why.
const WITHOUT_EFFECT: [(&str, &str); 2] = [
    ("BUILDKIT_BUILD_NAME", "no history of builds is kept that the name could stand in"),
    ("BUILDKIT_INLINE_CACHE", "the cache is never written into an image"),
];

/// Which of the arguments given change nothing, and why. One that is switched off is none of them.
pub(super) fn without_effect(given: &BTreeMap<String, String>) -> impl Iterator<Item = (&'static str, &'static str)> {
    let is_on = |name: &str| given.get(name).is_some_and(|value| !value.is_empty() && boolean(value) != Some(false));
    WITHOUT_EFFECT.into_iter().filter(move |(name, _)| is_on(name))
}
