//! Control groups of version 1: a hierarchy for each controller, usable by root alone.
//!
//! Gives the actions that make a group below the one of this process (or below a named one) and the files that count what
//! its limits did.

use std::path::Path;

use super::hierarchy::{Controller, Hierarchy, Version};
use super::plan::{Look, Planned, Setting, parents};
use super::{Asked, Counter, Error, pids_max};
use crate::limits::{Limits, Swap};

/// Counts the processes that were killed for want of memory.
pub(super) const MEMORY_EVENTS: Counter = ("memory.oom_control", "oom_kill");
/// Counts the processes that were refused.
pub(super) const PIDS_EVENTS: Counter = ("pids.events", "max");

/// Adds what it takes in one hierarchy.
pub(super) fn plan(
    planned: &mut Planned,
    hierarchy: &Hierarchy,
    limits: &Limits,
    asked: &Asked,
    name: &str,
    look: &dyn Look,
) -> Result<(), Error> {
    let made = match &limits.cgroup_parent {
        Some(parent) => parents(&hierarchy.mount, parent),
        None => Vec::new(),
    };
    let base = made.last().unwrap_or(&hierarchy.own);
    let exists = |directory: &Path| look.read(&directory.join("cgroup.procs")).is_some();
    let nearest = base.ancestors().find(|directory| *directory == hierarchy.mount || exists(directory));
    if !nearest.is_some_and(|directory| look.may_write(directory)) {
        return Err(Error::VersionOne { asked: asked.clone() });
    }
    let is_cpuset = hierarchy.controllers.contains(&Controller::Cpuset);
    let inherited = nearest.filter(|_| is_cpuset).map(|directory| inherit(directory, look)).unwrap_or_default();
    for directory in &made {
        planned.actions.push(super::Action::Parent(directory.clone()));
        if !exists(directory) {
            inherited.iter().for_each(|setting| planned.write(directory, setting.clone()));
        }
    }
    let group = base.join(name);
    planned.group(&group, Version::One);
    inherited.into_iter().for_each(|setting| planned.write(&group, setting));
    for controller in &hierarchy.controllers {
        settings(*controller, limits).into_iter().for_each(|setting| planned.write(&group, setting));
    }
    Ok(())
}

/// A new group has no processors and no memory nodes, and nothing can enter it before it has.
fn inherit(from: &Path, look: &dyn Look) -> Vec<Setting> {
    let value = |file| look.read(&from.join(file)).map(|text| Setting::new(file, text.trim()));
    ["cpuset.cpus", "cpuset.mems"].into_iter().filter_map(value).collect()
}

/// Which file gets which text.
pub(super) fn settings(controller: Controller, limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    match controller {
        Controller::Memory => {
            if let Some(memory) = limits.memory {
                settings.push(Setting::new("memory.limit_in_bytes", memory));
                // After the other, since it may not be the smaller one. A kernel can count swap or not.
                settings.push(match limits.memory_swap {
                    None => Setting::where_possible("memory.memsw.limit_in_bytes", memory.saturating_mul(2)),
                    Some(Swap::Unlimited) => Setting::where_possible("memory.memsw.limit_in_bytes", "-1"),
                    Some(Swap::Total(total)) => Setting::new("memory.memsw.limit_in_bytes", total),
                });
            }
        }
        Controller::Cpu => {
            if let Some(time) = limits.processor_time {
                settings.push(Setting::new("cpu.cfs_period_us", time.period));
                let quota = time.quota.map_or_else(|| "-1".to_owned(), |quota| quota.to_string());
                settings.push(Setting::new("cpu.cfs_quota_us", quota));
            }
            settings.extend(limits.cpu_shares.map(|shares| Setting::new("cpu.shares", shares)));
        }
        Controller::Cpuset => {
            settings.extend(limits.cpuset_cpus.as_ref().map(|list| Setting::new("cpuset.cpus", list)));
            settings.extend(limits.cpuset_mems.as_ref().map(|list| Setting::new("cpuset.mems", list)));
        }
        Controller::Pids => settings.extend(pids_max(limits.pids).map(|count| Setting::new("pids.max", count))),
    }
    settings
}
