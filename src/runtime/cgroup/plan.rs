//! Which directories are made and which file gets which text, for the limits of a run.
//!
//! Takes the hierarchies, the limits and a way to look at the kernel's files, gives a list of [`Action`]s in their order,
//! or why it cannot be done. Changes nothing.

use std::path::{Path, PathBuf};

use super::hierarchy::{Hierarchies, Version};
use super::{Asked, Error, v1, v2};
use crate::limits::Limits;

/// A look at the kernel's files.
pub(super) trait Look {
    /// The text of a file, if it can be read.
    fn read(&self, path: &Path) -> Option<String>;
    /// Whether this process may write to a file or make entries in a directory.
    fn may_write(&self, path: &Path) -> bool;
    /// The id of this process.
    fn own_pid(&self) -> String;
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Action {
    /// Make a directory above the group, unless it is there.
    Parent(PathBuf),
    /// Make a group for this process alone and move it there.
    Leave(PathBuf),
    /// Make the group of the run in a hierarchy.
    Group(PathBuf, Version),
    /// Write a text into a file.
    Write {
        /// The file.
        path: PathBuf,
        /// The text.
        text: String,
        /// Whether a kernel without the file is as good.
        optional: bool,
    },
}

/// What is to be done for a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Planned {
    /// In this order.
    pub actions: Vec<Action>,
    /// The directories of the group, which are among the actions.
    pub places: Vec<(PathBuf, Version)>,
}

impl Planned {
    pub(super) fn write(&mut self, directory: &Path, setting: Setting) {
        let Setting { file, text, optional } = setting;
        self.actions.push(Action::Write { path: directory.join(file), text, optional });
    }

    pub(super) fn group(&mut self, directory: &Path, version: Version) {
        self.actions.push(Action::Group(directory.to_owned(), version));
        self.places.push((directory.to_owned(), version));
    }
}

/// A file of a group, and what is written to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// The file.
    pub file: &'static str,
    /// The text.
    pub text: String,
    /// Whether a kernel without the file is as good.
    pub optional: bool,
}

impl Setting {
    /// Something that must be set.
    pub(super) fn new(file: &'static str, text: impl ToString) -> Self {
        Self { file, text: text.to_string(), optional: false }
    }

    /// Something that is set where it exists.
    pub(super) fn where_possible(file: &'static str, text: impl ToString) -> Self {
        Self { optional: true, ..Self::new(file, text) }
    }
}

/// Decides how a run gets a group called `name` with these limits.
pub(super) fn plan(
    hierarchies: &Hierarchies,
    limits: &Limits,
    asked: &Asked,
    name: &str,
    look: &dyn Look,
) -> Result<Planned, Error> {
    let mut planned = Planned::default();
    let parent = limits.cgroup_parent.as_deref();
    let controllers = asked.controllers();
    let (one, two): (Vec<_>, Vec<_>) =
        controllers.into_iter().partition(|controller| hierarchies.v1_with(*controller).is_some());
    for hierarchy in &hierarchies.v1 {
        // Whoever names a group means it for everything that it limits.
        if parent.is_some() || one.iter().any(|controller| hierarchy.controllers.contains(controller)) {
            v1::plan(&mut planned, hierarchy, limits, asked, name, look)?;
        }
    }
    match &hierarchies.v2 {
        Some(hierarchy) if parent.is_some() || !two.is_empty() => {
            v2::plan(&mut planned, hierarchy, limits, asked, &two, name, look)?;
        }
        Some(_) => {}
        None => {
            if let Some(missing) = two.first() {
                let file = PathBuf::from("/sys/fs/cgroup/cgroup.controllers");
                return Err(Error::NoController { asked: asked.clone(), controller: *missing, file });
            }
        }
    }
    Ok(planned)
}

/// The directories from below `mount` down to `mount/parent`.
pub(super) fn parents(mount: &Path, parent: &Path) -> Vec<PathBuf> {
    let mut directories: Vec<_> = parent.ancestors().filter(|path| !path.as_os_str().is_empty()).collect();
    directories.reverse();
    directories.into_iter().map(|path| mount.join(path)).collect()
}
