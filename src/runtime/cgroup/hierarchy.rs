//! Where control groups are mounted, and which of them this process is in.
//!
//! Takes the texts of `/proc/self/mountinfo` and `/proc/self/cgroup`, gives [`Hierarchies`]. Knows that a machine can
//! have several: one of version 1 for each controller, one of version 2, or both (a controller is in one of them only).

use std::fmt;
use std::path::{Path, PathBuf};

/// What can be limited by a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Controller {
    /// Memory.
    Memory,
    /// Processor time.
    Cpu,
    /// Which processors and memory nodes.
    Cpuset,
    /// How many processes.
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Cpuset, Self::Pids];

    /// The kernel's name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Cpuset => "cpuset",
            Self::Pids => "pids",
        }
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The version of the kernel's interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Version {
    /// A hierarchy for each controller.
    One,
    /// One hierarchy.
    Two,
}

/// A mounted hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The directory of the group that this process is in; the mount itself if that group is outside what is mounted.
    pub own: PathBuf,
    /// The controllers of version 1; empty for version 2, where files tell.
    pub controllers: Vec<Controller>,
}

/// All hierarchies that matter.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Hierarchies {
    /// Those of version 1 with controllers that matter.
    pub v1: Vec<Hierarchy>,
    /// That of version 2.
    pub v2: Option<Hierarchy>,
}

impl Hierarchies {
    /// Reads what the kernel says of this process. What cannot be read counts as not there.
    pub(super) fn of_this_process() -> Self {
        let read = |path| std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        Self::parse(&read("/proc/self/mountinfo").unwrap_or_default(), &read("/proc/self/cgroup").unwrap_or_default())
    }

    /// The hierarchies in the texts of `mountinfo` and `cgroup` (proc(5), cgroups(7)).
    pub(super) fn parse(mountinfo: &str, own: &str) -> Self {
        let mut hierarchies = Self::default();
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            let Some(group) = own.lines().find_map(|line| mount.own_group(line)) else { continue };
            let Some(hierarchy) = mount.hierarchy(group) else { continue };
            let known = |known: &Hierarchy| known.controllers == hierarchy.controllers;
            match mount.version {
                // The first mount is the system's; later ones are copies in containers and chroots.
                Version::One if !hierarchies.v1.iter().any(known) => hierarchies.v1.push(hierarchy),
                Version::Two if hierarchies.v2.is_none() => hierarchies.v2 = Some(hierarchy),
                _ => {}
            }
        }
        hierarchies
    }

    /// The hierarchy of version 1 that has a controller.
    pub(super) fn v1_with(&self, controller: Controller) -> Option<&Hierarchy> {
        self.v1.iter().find(|hierarchy| hierarchy.controllers.contains(&controller))
    }

    /// For each hierarchy its mount and the directory of this process's group.
    pub(super) fn own_directories(self) -> impl Iterator<Item = (PathBuf, PathBuf)> {
        self.v1.into_iter().chain(self.v2).map(|hierarchy| (hierarchy.mount, hierarchy.own))
    }
}

/// A line of `mountinfo` about control groups.
struct Mount {
    /// Which part of the hierarchy is mounted.
    root: String,
    point: PathBuf,
    version: Version,
    /// The options of the super block, which for version 1 name the controllers.
    options: Vec<String>,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut file_system = file_system.split(' ');
        let version = match file_system.next()? {
            "cgroup" => Version::One,
            "cgroup2" => Version::Two,
            _ => return None,
        };
        let options = file_system.nth(1)?.split(',').map(str::to_owned).collect();
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (unescape(mount.next()?), unescape(mount.next()?));
        Some(Self { root, point: point.into(), version, options })
    }

    /// The group in a line of `/proc/self/cgroup`, if the line is about this mount's hierarchy.
    fn own_group<'l>(&self, line: &'l str) -> Option<&'l str> {
        let mut parts = line.splitn(3, ':');
        let (number, controllers, group) = (parts.next()?, parts.next()?, parts.next()?);
        let matches = match self.version {
            Version::Two => number == "0" && controllers.is_empty(),
            Version::One => {
                !controllers.is_empty()
                    && controllers.split(',').all(|controller| self.options.iter().any(|option| option == controller))
            }
        };
        matches.then_some(group)
    }

    fn hierarchy(&self, group: &str) -> Option<Hierarchy> {
        let has = |controller: &Controller| self.options.iter().any(|option| option == controller.name());
        let controllers: Vec<_> = match self.version {
            Version::One => Controller::ALL.into_iter().filter(has).collect(),
            Version::Two => Vec::new(),
        };
        if self.version == Version::One && controllers.is_empty() {
            return None;
        }
        let below = Path::new(group).strip_prefix(&self.root).ok();
        let below = below.filter(|path| !path.components().any(|part| part == std::path::Component::ParentDir));
        let own = match below {
            Some(below) if !below.as_os_str().is_empty() => self.point.join(below),
            _ => self.point.clone(),
        };
        Some(Hierarchy { mount: self.point.clone(), own, controllers })
    }
}

/// Undoes the kernel's escapes of space, tab, newline and backslash: `\040`.
fn unescape(text: &str) -> String {
    let mut parts = text.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.get(..3).and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                plain.push(char::from(byte));
                plain.push_str(&part[3..]);
            }
            None => {
                plain.push('\\');
                plain.push_str(part);
            }
        }
    }
    plain
}
