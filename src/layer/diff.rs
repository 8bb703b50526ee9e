//! Makes an overlay's upper directory into a layer's: what the overlay recorded becomes what an image needs.
//!
//! Takes an upper directory whose overlay is no longer mounted, and the layers that were below it. Changes the upper
//! directory in place:
//!
//! - What equals the lower layers' in kind, content, mode, owner, time and attributes goes: a file that was copied up
//!   by a `chown` to its own owner, or because it got another name, which is then a file of its own, as it is in BuildKit.
//!   Times must be equal to the nanosecond.
//! - A directory goes whose own children all went and of which nothing but the time is another: so a file that is made and
//!   removed leaves no trace. This is what BuildKit's comparison does too.
//! - Whiteouts that hide nothing go. The opaque mark goes everywhere: the kernel puts it on every directory that it makes,
//!   and a directory that was made anew becomes what it changed, with a whiteout for each name that it has no more.
//! - The overlay's own records go. Those that say that content is elsewhere (`redirect`, `metacopy`) are an error:
//!   the overlay was mounted in a way that layers cannot be made from.
//! - Sockets go, as they would from an archive; one that stands in the place of a lower file leaves a whiteout.
//!
//! Directories keep their times through all of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::vec;

use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps, UTIME_OMIT};

use super::OverlayXattr;
use super::inode::{self, Child, ChildKind};
use super::tree::{Entry, Kind, Tree};
use super::view::View;
use super::xattr::{self, At, Attributes, record_name};

/// How many bytes of two files are compared at once.
const PIECE: usize = 256 << 10;

/// Why an upper directory could not be made into a layer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Reading or changing the upper directory failed.
    #[error("cannot make a layer of {path:?}")]
    Upper {
        /// The path in the upper directory; empty for its root.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Reading the lower layers failed.
    #[error("cannot compare {path:?} with the layers below")]
    Lower {
        /// The path in the layers; empty for their root.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// The overlay keeps the content of a file or the children of a directory elsewhere.
    #[error("{path:?} is not whole: it has the overlay's record {record:?}; mount with metacopy and redirect_dir off")]
    OverlayRecord {
        /// The path in the upper directory.
        path: PathBuf,
        /// The record's name after the prefix.
        record: String,
    },
}

/// Makes the overlay's upper directory `upper` into a layer on `lower`.
///
/// # Errors
/// Anything that cannot be read or changed, with its path. The upper directory is then half done and may be tidied
/// again.
pub fn tidy(upper: &Path, lower: &View, xattr: OverlayXattr) -> Result<(), Error> {
    let mut tidying = Tidying { lower, xattr, path: PathBuf::new() };
    let root = inode::open_root(upper).map_err(|error| tidying.failed(error))?;
    tidying.walk(root)
}

struct Tidying<'a> {
    lower: &'a View,
    xattr: OverlayXattr,
    /// What is being looked at, relative to the upper directory.
    path: PathBuf,
}

/// A directory that is being tidied. The walk keeps these itself: a step can nest directories deeper than any stack.
struct Open {
    directory: OwnedFd,
    /// Its metadata before anything was changed.
    stat: Stat,
    attributes: Attributes,
    /// Whether nothing of the lower layers showed in it.
    is_opaque: bool,
    children: vec::IntoIter<Child>,
    /// How many children stay.
    staying: usize,
    /// Whether something was removed from it, which changed its time.
    is_touched: bool,
}

impl Tidying<'_> {
    fn walk(&mut self, root: OwnedFd) -> Result<(), Error> {
        let mut walk = vec![self.enter(root, false)?];
        while let Some(open) = walk.last_mut() {
            let Some(child) = open.children.next() else {
                let Some(done) = walk.pop() else { break };
                self.leave(done, walk.last_mut())?;
                self.path.pop();
                continue;
            };
            self.path.push(OsString::from_vec(child.name.clone()));
            if child.kind == ChildKind::Directory {
                let directory =
                    inode::open_directory(open.directory.as_fd(), &child.name).map_err(|error| self.failed(error))?;
                let is_opaque = open.is_opaque;
                walk.push(self.enter(directory, is_opaque)?);
            } else {
                if self.stays(open, &child)? {
                    open.staying += 1;
                } else {
                    open.is_touched = true;
                }
                self.path.pop();
            }
        }
        Ok(())
    }

    /// Begins with the directory at the current path. `is_hidden` says that what lower layers have there did not show.
    fn enter(&mut self, directory: OwnedFd, is_hidden: bool) -> Result<Open, Error> {
        let stat = rustix::fs::fstat(&directory).map_err(|error| self.failed(error))?;
        let at = At::Descriptor(directory.as_fd());
        let attributes = self.strip(at)?;
        let mut is_opaque = is_hidden;
        if attributes.has_record(b"opaque") {
            if !at.is_opaque(self.xattr).map_err(|error| self.failed(error))? {
                // Any other value says that whiteouts in this directory are kept in attributes.
                return Err(Error::OverlayRecord { path: self.path.clone(), record: "opaque".to_owned() });
            }
            at.remove(&record_name(self.xattr, b"opaque")).map_err(|error| self.failed(error))?;
            is_opaque = true;
        }
        let children = inode::list(directory.as_fd()).map_err(|error| self.failed(error))?;
        let hidden = if is_opaque { self.hide(directory.as_fd(), &children)? } else { 0 };
        let children = children.into_iter();
        Ok(Open { directory, stat, attributes, is_opaque, children, staying: hidden, is_touched: hidden > 0 })
    }

    /// Makes a whiteout for everything that lower layers have in the current directory and `children` have not. Says how
    /// many.
    fn hide(&self, directory: BorrowedFd<'_>, children: &[Child]) -> Result<usize, Error> {
        if !matches!(self.lower_entry()?, Some(Entry { kind: Kind::Directory, .. })) {
            return Ok(0);
        }
        let kept: HashSet<&[u8]> = children.iter().map(|child| child.name.as_slice()).collect();
        let mut hidden = 0;
        for name in self.lower.names(&self.path).map_err(|source| self.lower_failed(source))? {
            if !kept.contains(name.as_bytes()) {
                make_whiteout(directory, name.as_bytes()).map_err(|error| self.failed(error))?;
                hidden += 1;
            }
        }
        Ok(hidden)
    }

    /// Ends with a directory: it goes if nothing is left that it would change.
    fn leave(&self, done: Open, parent: Option<&mut Open>) -> Result<(), Error> {
        if done.is_touched {
            let before = Timespec { tv_sec: done.stat.st_mtime, tv_nsec: inode::mtime(&done.stat).1.into() };
            let keep = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
            let times = Timestamps { last_access: keep, last_modification: before };
            rustix::fs::futimens(&done.directory, &times).map_err(|error| self.failed(error))?;
        }
        let (Some(parent), Some(name)) = (parent, self.path.file_name()) else { return Ok(()) };
        let is_superfluous =
            done.staying == 0 && self.equals_lower(&done.stat, &done.attributes, done.directory.as_fd(), b"")?;
        if is_superfluous {
            rustix::fs::unlinkat(&parent.directory, name, AtFlags::REMOVEDIR).map_err(|error| self.failed(error))?;
            parent.is_touched = true;
        } else {
            parent.staying += 1;
        }
        Ok(())
    }

    /// Tidies a child that is no directory, and says whether it stays as it is.
    fn stays(&self, open: &mut Open, child: &Child) -> Result<bool, Error> {
        let (parent, name) = (open.directory.as_fd(), child.name.as_slice());
        let stays = match child.kind {
            ChildKind::Whiteout => self.lower_entry()?.is_some(),
            ChildKind::Socket => {
                if self.lower_entry()?.is_some() {
                    self.replace_with_whiteout(parent, name)?;
                    open.is_touched = true;
                    return Ok(true);
                }
                false
            }
            _ => {
                let through = xattr::path_in(parent, name);
                let attributes = self.strip(At::Path(&through))?;
                let stat = inode::stat(parent, name).map_err(|error| self.failed(error))?;
                !self.equals_lower(&stat, &attributes, parent, name)?
            }
        };
        if !stays {
            rustix::fs::unlinkat(parent, name, AtFlags::empty()).map_err(|error| self.failed(error))?;
        }
        Ok(stays)
    }

    fn replace_with_whiteout(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Error> {
        rustix::fs::unlinkat(parent, name, AtFlags::empty())
            .and_then(|()| make_whiteout(parent, name))
            .map_err(|error| self.failed(error))
    }

    /// Removes the overlay's records from an inode, all but `opaque`.
    fn strip(&self, at: At<'_>) -> Result<Attributes, Error> {
        let attributes = Attributes::read(at, self.xattr).map_err(|error| self.failed(error))?;
        if let Some(record) = attributes.misleading_record() {
            let record = String::from_utf8_lossy(record).into_owned();
            return Err(Error::OverlayRecord { path: self.path.clone(), record });
        }
        for record in attributes.records.iter().filter(|record| *record != b"opaque") {
            at.remove(&record_name(self.xattr, record)).map_err(|error| self.failed(error))?;
        }
        Ok(attributes)
    }

    /// Whether an inode of the upper directory is what lower layers have at the current path. The cheap differences
    /// come first; content is read only if everything else is equal.
    fn equals_lower(
        &self,
        stat: &Stat,
        attributes: &Attributes,
        parent: BorrowedFd<'_>,
        name: &[u8],
    ) -> Result<bool, Error> {
        let Some(lower) = self.lower_entry()? else { return Ok(false) };
        let upper = inode::entry(stat, || inode::link_target(parent, name)).map_err(|error| self.failed(error))?;
        // Which names share a lower file is not for this inode to say, and a directory's time says no more than that
        // something happened in it.
        let mtime = if upper.kind == Kind::Directory { upper.mtime } else { lower.mtime };
        if (Entry { link_group: None, ..upper.clone() }) != (Entry { link_group: None, mtime, ..lower }) {
            return Ok(false);
        }
        let lower_attributes = self.lower.xattrs(&self.path).map_err(|source| self.lower_failed(source))?;
        let lower_attributes = lower_attributes.iter().map(|(name, value)| (name.as_bytes(), value));
        if !lower_attributes.eq(attributes.image.iter().map(|(name, value)| (name.as_slice(), value))) {
            return Ok(false);
        }
        match upper.kind {
            Kind::File { .. } => self.same_content(parent, name),
            _ => Ok(true),
        }
    }

    fn same_content(&self, parent: BorrowedFd<'_>, name: &[u8]) -> Result<bool, Error> {
        let (upper, _) = inode::open_file(parent, name).map_err(|error| self.failed(error))?;
        let upper = std::fs::File::from(upper);
        let lower = self.lower.open(&self.path).map_err(|source| self.lower_failed(source))?;
        let (mut left, mut right) = (Vec::new(), Vec::new());
        loop {
            left.clear();
            right.clear();
            (&upper).take(PIECE as u64).read_to_end(&mut left).map_err(|error| self.failed(error))?;
            (&lower).take(PIECE as u64).read_to_end(&mut right).map_err(|source| self.lower_failed(source))?;
            if left != right {
                return Ok(false);
            }
            if left.is_empty() {
                return Ok(true);
            }
        }
    }

    fn lower_entry(&self) -> Result<Option<Entry>, Error> {
        self.lower.entry(&self.path).map_err(|source| self.lower_failed(source))
    }

    fn failed(&self, error: impl Into<io::Error>) -> Error {
        Error::Upper { path: self.path.clone(), source: error.into() }
    }

    fn lower_failed(&self, source: io::Error) -> Error {
        Error::Lower { path: self.path.clone(), source }
    }
}

fn make_whiteout(parent: BorrowedFd<'_>, name: &[u8]) -> rustix::io::Result<()> {
    rustix::fs::mknodat(parent, name, FileType::CharacterDevice, Mode::empty(), 0)
}

#[cfg(test)]
mod tests;
