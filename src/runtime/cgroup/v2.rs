//! Control groups of version 2: one hierarchy, parts of which can be delegated to users.
//!
//! A group may hand controllers down to groups below it only while it holds no process itself (the root of the hierarchy
//! excepted). So the group of a run cannot always be made in the one that this process is in. It is made in the nearest
//! group, from that one up, which hands down what is needed or can be told to and which this process may write to. If
//! that is its own and it is alone there, it first moves into a group of its own below. Where there is none, somebody
//! has to delegate one.

use std::path::{Path, PathBuf};

use super::hierarchy::{Controller, Hierarchy, Version};
use super::owner::Owner;
use super::plan::{Action, Look, Planned, Setting, parents};
use super::{Asked, Counter, Error, pids_max};
use crate::limits::{Limits, Swap};

/// Counts the processes that were killed for want of memory.
pub(super) const MEMORY_EVENTS: Counter = ("memory.events", "oom_kill");
/// Counts the processes that were refused.
pub(super) const PIDS_EVENTS: Counter = ("pids.events", "max");

const AVAILABLE: &str = "cgroup.controllers";
const HANDED_DOWN: &str = "cgroup.subtree_control";
const PROCESSES: &str = "cgroup.procs";

/// Adds what it takes to have `controllers` in a group called `name`.
pub(super) fn plan(
    planned: &mut Planned,
    hierarchy: &Hierarchy,
    limits: &Limits,
    asked: &Asked,
    controllers: &[Controller],
    name: &str,
    look: &dyn Look,
) -> Result<(), Error> {
    let search = Search { hierarchy, asked, controllers, look };
    let base = match &limits.cgroup_parent {
        Some(parent) => search.named(planned, parent)?,
        None => search.nearest(planned, name)?,
    };
    let group = base.join(name);
    planned.group(&group, Version::Two);
    for controller in controllers {
        settings(*controller, limits).into_iter().for_each(|setting| planned.write(&group, setting));
    }
    Ok(())
}

struct Search<'a> {
    hierarchy: &'a Hierarchy,
    asked: &'a Asked,
    controllers: &'a [Controller],
    look: &'a dyn Look,
}

/// How a group can be made to hand down what it must.
enum Way {
    Already,
    Told,
    /// After this process has left it.
    Left,
}

impl Search<'_> {
    /// The nearest group that will do, with what it takes added to the plan.
    fn nearest(&self, planned: &mut Planned, name: &str) -> Result<PathBuf, Error> {
        let Hierarchy { mount, own, .. } = self.hierarchy;
        // Where this process has left its group before, that group is the one to begin with.
        let is_leaf = |directory: &&Path| directory.file_name().and_then(Owner::of_group).is_some();
        let above = own.ancestors().take_while(|directory| directory.starts_with(mount)).skip_while(is_leaf);
        for directory in above {
            let Some(way) = self.way(directory) else { continue };
            match way {
                Way::Already => {}
                Way::Told => planned.write(directory, self.hand_down(directory)),
                Way::Left => {
                    planned.actions.push(Action::Leave(directory.join(format!("{name}0"))));
                    planned.write(directory, self.hand_down(directory));
                }
            }
            return Ok(directory.to_owned());
        }
        self.check_kernel()?;
        Err(Error::NotDelegated { asked: self.asked.clone(), group: own.clone() })
    }

    /// A group by name; all from the root down to it have to hand down what is needed.
    fn named(&self, planned: &mut Planned, parent: &Path) -> Result<PathBuf, Error> {
        self.check_kernel()?;
        let mount = &self.hierarchy.mount;
        let made = parents(mount, parent);
        let exists = |directory: &PathBuf| self.look.read(&directory.join(PROCESSES)).is_some();
        let existing = made.iter().rev().find(|directory| exists(directory)).unwrap_or(mount);
        if !self.look.may_write(existing) {
            return Err(Error::NotDelegated { asked: self.asked.clone(), group: existing.clone() });
        }
        for directory in std::iter::once(mount).chain(&made) {
            if directory != mount {
                planned.actions.push(Action::Parent(directory.clone()));
            }
            if !self.lacking(directory).is_empty() {
                planned.write(directory, self.hand_down(directory));
            }
        }
        Ok(made.last().unwrap_or(mount).clone())
    }

    fn way(&self, directory: &Path) -> Option<Way> {
        let available = self.words(&directory.join(AVAILABLE));
        if !self.controllers.iter().all(|controller| available.iter().any(|word| word == controller.name())) {
            return None;
        }
        // To be put into a group, a process must be allowed to move below the nearest group above both.
        if !self.look.may_write(directory) || !self.look.may_write(&directory.join(PROCESSES)) {
            return None;
        }
        if self.lacking(directory).is_empty() {
            return Some(Way::Already);
        }
        if !self.look.may_write(&directory.join(HANDED_DOWN)) {
            return None;
        }
        // Only the root of the whole hierarchy has no type.
        let is_root = self.look.read(&directory.join("cgroup.type")).is_none();
        let processes = self.words(&directory.join(PROCESSES));
        match processes.as_slice() {
            _ if is_root => Some(Way::Told),
            [] => Some(Way::Told),
            [one] if *one == self.look.own_pid() => Some(Way::Left),
            _ => None,
        }
    }

    /// The controllers that a group does not hand down yet.
    fn lacking(&self, directory: &Path) -> Vec<Controller> {
        let handed = self.words(&directory.join(HANDED_DOWN));
        let lacks = |controller: &Controller| !handed.iter().any(|word| word == controller.name());
        self.controllers.iter().copied().filter(lacks).collect()
    }

    fn hand_down(&self, directory: &Path) -> Setting {
        let words: Vec<_> = self.lacking(directory).iter().map(|controller| format!("+{controller}")).collect();
        Setting::new(HANDED_DOWN, words.join(" "))
    }

    /// Whether the hierarchy has the controllers at all.
    fn check_kernel(&self) -> Result<(), Error> {
        let file = self.hierarchy.mount.join(AVAILABLE);
        let there = self.words(&file);
        let missing = self.controllers.iter().find(|controller| !there.iter().any(|word| word == controller.name()));
        match missing {
            Some(missing) => Err(Error::NoController { asked: self.asked.clone(), controller: *missing, file }),
            None => Ok(()),
        }
    }

    fn words(&self, file: &Path) -> Vec<String> {
        self.look.read(file).unwrap_or_default().split_ascii_whitespace().map(str::to_owned).collect()
    }
}

/// Which file gets which text.
pub(super) fn settings(controller: Controller, limits: &Limits) -> Vec<Setting> {
    let mut settings = Vec::new();
    match controller {
        Controller::Memory => {
            if let Some(memory) = limits.memory {
                settings.push(Setting::new("memory.max", memory));
                settings.push(match limits.memory_swap {
                    None => Setting::where_possible("memory.swap.max", memory),
                    Some(Swap::Unlimited) => Setting::where_possible("memory.swap.max", "max"),
                    Some(Swap::Total(total)) => Setting::new("memory.swap.max", total.saturating_sub(memory)),
                });
            }
        }
        Controller::Cpu => {
            if let Some(time) = limits.processor_time {
                let quota = time.quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
                settings.push(Setting::new("cpu.max", format!("{quota} {}", time.period)));
            }
            settings.extend(limits.cpu_shares.map(|shares| Setting::new("cpu.weight", weight(shares))));
        }
        Controller::Cpuset => {
            settings.extend(limits.cpuset_cpus.as_ref().map(|list| Setting::new("cpuset.cpus", list)));
            settings.extend(limits.cpuset_mems.as_ref().map(|list| Setting::new("cpuset.mems", list)));
        }
        Controller::Pids => settings.extend(pids_max(limits.pids).map(|count| Setting::new("pids.max", count))),
    }
    settings
}

/// Shares of version 1 (2 to 262144) as a weight of version 2 (1 to 10000), in proportion, as other runtimes do.
fn weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9_999 / 262_142
}
