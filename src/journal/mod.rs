//! What is kept of every build: what happened, and all that its steps wrote.
//!
//! Takes the events of a build, gives them to the store as they come ([`Recording`]); reads what the store has of earlier
//! builds ([`builds`]). What a step wrote is kept byte for byte as progress was told it, so secrets are hidden here as
//! on the screen. Never fails a build: what cannot be kept is told at its end.
//!
//! A build's record is a line of JSON for each [`Entry`]. Lines are only added; a reader takes as many as it understands,
//! so that a killed build leaves what it had come to, and another release may add kinds of lines. Step outputs are
//! in `frames`.

mod entry;
mod frames;
mod history;
mod recording;
#[cfg(test)]
mod tests;

pub use self::entry::{Earlier, Head, Outcome};
pub use self::frames::{Line, Lines, whole_lines};
pub use self::history::{Build, State, Step, StepState, builds, is_readable, last_lines, lines};
pub use self::recording::Recording;
