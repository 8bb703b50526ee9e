//! End-to-end tests: the real binary, on real files, with a real registry, looked at by other people's tools.
//!
//! The first modules are what the tests stand on: [`workspace`] runs the binary with a store of its own, [`registry`] is
//! Debian's registry with base images in it, [`lying_registry`] one that misbehaves, [`file_server`] a web server, [`layout`] an OCI reader that
//! shares no code with Strata, [`skip`] the only way not to run a test. The others hold the tests, one topic each.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::cast_possible_truncation,
    reason = "a test that cannot go on panics; the lints protect the program, not its tests"
)]

mod file_server;
mod layout;
mod lying_registry;
mod registry;
mod skip;
mod workspace;

// What a recipe gives, one directory a case: `tests/cases/GROUP/NAME/`.
mod cases;
// Where recipes and files come from: named contexts, standard input, URLs, repositories.
mod contexts;
// Repositories over every protocol, archives of every kind, and what of them is fetched once only.
mod sources;
// Secrets that authenticate what is fetched, and where they never are.
mod authentication;
// What is said of a step that cannot be done.
mod step_errors;
// What is not done again.
mod cache;
// Why it is done again.
mod explain;
// What is done at the same time, and what only once.
mod parallel;
// How steps end, with all their processes.
mod ends;
// Shells in failed steps and at any line of a recipe.
mod shells;
// What steps write: shown without loss, kept whole, found again.
mod logs;
// What steps reach, and what they do not.
mod network;
// What RUN --mount keeps, hides and depends on.
mod mounts;
// cache-mounts: listing, removing and carrying what RUN --mount=type=cache keeps.
mod cache_mounts;
// du, prune, and what builds remove of themselves.
mod collection;
// Archives, directories, compression, and what skopeo and umoci say of them.
mod outputs;
// Everything that goes wrong: exit codes, messages, and what is left behind.
mod bad_input;
// Recipes that are too large, too deep, or no text: within bounds of time and memory.
mod limits;
// What a step may use, and what is said when it wants more.
mod step_limits;
// The same for a user who is not root.
mod rootless;
// Base layers as others write them: what they leave out, and what is refused.
mod layers;
// images, inspect, rm, graph.
mod commands;
// doctor.
mod doctor;
// check, --check, --call.
mod checks;
// What a real BuildKit said of the recipes in testdata/checks.
mod agreement;
// Every flag of `docker buildx build`.
mod flags;
// A hundred things that a hostile step would try, in Strata's steps and in runc's containers.
mod attack;
// Recipes, images and cache mounts made to lead Strata out of a step's root.
mod hostile;
// Many steps and many kills: nothing is left, and nothing grows.
mod soak;
// Damaged stores: noticed, mended, told once.
mod damage;
// Builds that are killed at chosen and at random instants, on full disks, and on disks that fail.
mod crash;
// docs/security.md names tests that exist.
mod security_page;
