//! Why a limit cannot be set, in words that say who can change that and how.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::hierarchy::Controller;
use crate::limits::{Limits, Pids};

/// Why the control group of a run could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only root can make groups of version 1.
    #[error(
        "{asked} cannot be set: the control groups of this machine are of version 1, which only root can use (build as root, \
         boot with systemd.unified_cgroup_hierarchy=1, or leave the limit out of the command line and of [step] \
         in the settings; --ulimit, --shm-size and --step-timeout work without)"
    )]
    VersionOne {
        /// What was asked for.
        asked: Asked,
    },
    /// No group at or above that of this process may be used by it.
    #[error(
        "{asked} cannot be set: the control group {} is not delegated to this user (start the build with `systemd-run \
         --user --scope --property=Delegate=yes strata build …`, build as root, or leave the limit out of the command \
         line and of [step] in the settings)", group.display()
    )]
    NotDelegated {
        /// What was asked for.
        asked: Asked,
        /// The group of this process.
        group: PathBuf,
    },
    /// The kernel has no controller for it, or it is not handed down to the group of this process.
    #[error("{asked} cannot be set: there is no control group with the controller {controller} here (it must be in {}, \
         or mounted as version 1{})", file.display(), boot_hint(*controller))]
    NoController {
        /// What was asked for.
        asked: Asked,
        /// What is missing.
        controller: Controller,
        /// The file that would list it.
        file: PathBuf,
    },
    /// A group could not be made.
    #[error("cannot make the control group {}", path.display())]
    Make {
        /// Its directory.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A group could not be opened.
    #[error("cannot open {} of the control group", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A limit could not be written.
    #[error("cannot {}, which takes {text:?} in {}", purpose(path), path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What was to be written.
        text: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// This process cannot tell who it is.
    #[error("cannot read {path} to name a control group")]
    Owner {
        /// Which file.
        path: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// What a file of a group is written for.
fn purpose(file: &Path) -> &'static str {
    const PURPOSES: [(&str, &str); 8] = [
        ("memory.memsw", "set --memory-swap"),
        ("memory.swap", "set --memory-swap"),
        ("memory.", "set --memory"),
        ("cpu.shares", "set --cpu-shares"),
        ("cpu.weight", "set --cpu-shares"),
        ("cpu.", "set --cpus"),
        ("cpuset.cpus", "set --cpuset-cpus"),
        ("cpuset.mems", "set --cpuset-mems"),
    ];
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    match PURPOSES.iter().find(|(prefix, _)| name.starts_with(prefix)) {
        Some((_, purpose)) => purpose,
        None if name == "pids.max" => "set --pids-limit",
        None => "set up the control group of the step",
    }
}

fn boot_hint(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "; some systems boot without it: add cgroup_enable=memory to the kernel's command line",
        _ => "",
    }
}

/// The limits that need a control group, by the flags that ask for them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked(Vec<(&'static str, Controller)>);

impl Asked {
    /// Those that are set.
    pub(super) fn of(limits: &Limits) -> Self {
        let time = limits.processor_time.is_some_and(|time| time.quota.is_some());
        let flags = [
            ("--memory", Controller::Memory, limits.memory.is_some()),
            ("--cpus", Controller::Cpu, time),
            ("--cpu-shares", Controller::Cpu, limits.cpu_shares.is_some()),
            ("--cpuset-cpus", Controller::Cpuset, limits.cpuset_cpus.is_some()),
            ("--cpuset-mems", Controller::Cpuset, limits.cpuset_mems.is_some()),
            ("--pids-limit", Controller::Pids, matches!(limits.pids, Some(Pids::Most(_)))),
        ];
        Self(flags.into_iter().filter(|(.., set)| *set).map(|(flag, controller, _)| (flag, controller)).collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The controllers it takes, each once.
    pub(super) fn controllers(&self) -> Vec<Controller> {
        let mut controllers: Vec<_> = self.0.iter().map(|(_, controller)| *controller).collect();
        controllers.dedup();
        controllers
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("--cgroup-parent");
        }
        let flags: Vec<_> = self.0.iter().map(|(flag, _)| *flag).collect();
        f.write_str(&flags.join(" and "))
    }
}
