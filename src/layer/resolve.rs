//! Follows symbolic links inside a tree, as a process would for which the tree is the root.
//!
//! Takes a tree and a path as a recipe or a container writes it, gives the path without symbolic links, `.` or `..`.
//! Never leaves the tree: `..` at the root is the root, and an absolute link starts at the tree's root.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use super::tree::{Entry, Kind, Tree};

/// How many symbolic links one path may pass, as in Linux.
const MOST_LINKS: usize = 40;

/// Whether a link at the very end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// It is, as by `open` or `COPY` to a destination.
    All,
    /// It is not, as by `lstat`; links before the end are.
    Parents,
}

/// Where a path leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// The path in the tree, without a symbolic link in it (but for the last part, if that is not followed).
    pub path: PathBuf,
    /// What is there, if there is something.
    pub entry: Option<Entry>,
    /// How much of `path` exists: all of it if there is an entry, else a directory above it.
    pub existing: PathBuf,
}

/// Resolves a path inside a tree. It may be absolute or relative, both count from the tree's root. Parts that do not
/// exist are taken as the directories they would be.
///
/// # Errors
/// The tree's; [`io::ErrorKind::NotADirectory`] if the path goes on after something that is no directory;
/// [`io::ErrorKind::FilesystemLoop`] if it passes more than 40 symbolic links.
pub fn resolve(tree: &dyn Tree, path: &Path, last: Follow) -> io::Result<Resolved> {
    let mut ahead: VecDeque<OsString> = parts(path).map(OsStr::to_owned).collect();
    let mut walk = Walk { path: PathBuf::new(), entries: vec![tree.entry(Path::new(""))?] };
    let mut links = 0;
    while let Some(part) = ahead.pop_front() {
        if part == ".." {
            walk.up();
            continue;
        }
        let entry = walk.look_up(tree, &part)?;
        if let Some(Entry { kind: Kind::Symlink { target }, .. }) = &entry
            && (last == Follow::All || !ahead.is_empty())
        {
            links += 1;
            if links > MOST_LINKS {
                return Err(rustix::io::Errno::LOOP.into());
            }
            if target.is_absolute() {
                walk.back_to_root();
            }
            for part in parts(target).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(part.to_owned());
            }
            continue;
        }
        walk.down(&part, entry);
    }
    Ok(walk.end())
}

/// The parts of a path that say where to go.
fn parts(path: &Path) -> impl Iterator<Item = &OsStr> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name),
        Component::ParentDir => Some(OsStr::new("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Where the resolution is: a path, and what is at each of its parts, the root first.
struct Walk {
    path: PathBuf,
    entries: Vec<Option<Entry>>,
}

impl Walk {
    fn look_up(&self, tree: &dyn Tree, part: &OsStr) -> io::Result<Option<Entry>> {
        match self.entries.last().and_then(Option::as_ref).map(|entry| &entry.kind) {
            None => Ok(None),
            Some(Kind::Directory) => tree.entry(&self.path.join(part)),
            Some(_) => Err(rustix::io::Errno::NOTDIR.into()),
        }
    }

    fn down(&mut self, part: &OsStr, entry: Option<Entry>) {
        self.path.push(part);
        self.entries.push(entry);
    }

    fn up(&mut self) {
        if self.entries.len() > 1 {
            self.path.pop();
            self.entries.pop();
        }
    }

    fn back_to_root(&mut self) {
        self.path.clear();
        self.entries.truncate(1);
    }

    fn end(mut self) -> Resolved {
        let missing = self.entries.iter().rev().take_while(|entry| entry.is_none()).count();
        let mut existing = self.path.clone();
        for _ in 0..missing {
            existing.pop();
        }
        Resolved { path: self.path, entry: self.entries.pop().flatten(), existing }
    }
}

#[cfg(test)]
mod tests;
