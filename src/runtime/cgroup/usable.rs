//! Which limits can be set here: what a run would decide, for one controller after the other.
//!
//! Takes what [`plan`](super::plan) takes, gives what came of it. Carries nothing out.

use super::hierarchy::{Controller, Hierarchies};
use super::plan::{self, Look};
use super::{Asked, Error, Host};
use crate::limits::{Bandwidth, Limits, Pids};

/// What control groups are good for here.
#[derive(Debug)]
pub(in crate::runtime) struct Usable {
    /// Which versions of the kernel's interface there are.
    pub versions: &'static str,
    /// The controllers that limit something, each with what keeps it from being used.
    pub controllers: Vec<(Controller, Result<(), Error>)>,
}

impl Usable {
    /// Asks the kernel.
    pub(in crate::runtime) fn here() -> Self {
        Self::of(&Hierarchies::of_this_process(), &Host)
    }

    pub(super) fn of(hierarchies: &Hierarchies, look: &dyn Look) -> Self {
        let versions = match (hierarchies.v1.is_empty(), hierarchies.v2.is_some()) {
            (false, true) => "versions 1 and 2",
            (false, false) => "version 1",
            (true, true) => "version 2",
            (true, false) => "none",
        };
        let time = Bandwidth { quota: Some(Bandwidth::PERIOD), period: Bandwidth::PERIOD };
        let limits = [
            (Controller::Memory, Limits { memory: Some(1 << 30), ..Limits::default() }),
            (Controller::Cpu, Limits { processor_time: Some(time), ..Limits::default() }),
            (Controller::Pids, Limits { pids: Some(Pids::Most(512)), ..Limits::default() }),
        ];
        let decided = |limits: &Limits| plan::plan(hierarchies, limits, &Asked::of(limits), "probe", look).map(|_| ());
        Self {
            versions,
            controllers: limits.iter().map(|(controller, limits)| (*controller, decided(limits))).collect(),
        }
    }
}
