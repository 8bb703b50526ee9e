//! What files take on the disk, in the blocks that the file system gave them.
//!
//! Takes a path, gives a [`Size`] that knows which of its files have names elsewhere too, so that several can be added up
//! and each file counts once. Never follows a symbolic link, and never enters another file system. What cannot be looked
//! at, or goes while it is looked for, does not count.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat};

/// How many bytes of blocks there are in one of what `stat` counts (POSIX leaves it open; Linux always says 512).
const BLOCK: u64 = 512;

/// What one thing of the store takes on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Size {
    /// The bytes of what has no other name.
    own: u64,
    /// What has several names, by device and inode.
    linked: BTreeMap<(u64, u64), Linked>,
}

/// What adding a size to others came to, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Added {
    /// Of files that were not among them.
    pub new: u64,
    /// Of files that have no name left elsewhere: what comes free when all of them are removed, and did not before.
    pub freed: u64,
}

/// A file with several names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Linked {
    bytes: u64,
    /// How many names it has anywhere.
    names: u64,
    /// How many of them are here.
    here: u64,
}

impl Size {
    /// What is at a path, with all that is below it.
    pub fn of(path: &Path) -> Self {
        let mut size = Self::default();
        let Ok(name) = CString::new(path.as_os_str().as_bytes()) else { return size };
        let Ok(stat) = rustix::fs::statat(CWD, &name, AtFlags::SYMLINK_NOFOLLOW) else { return size };
        size.count(&stat);
        if is_directory(&stat)
            && let Some(root) = open(CWD, &name)
        {
            size.below(root, stat.st_dev);
        }
        size
    }

    /// A size of so many bytes, of files that have no other name.
    pub const fn estimate(bytes: u64) -> Self {
        Self { own: bytes, linked: BTreeMap::new() }
    }

    /// All of it, each file once.
    pub fn bytes(&self) -> u64 {
        self.own + self.linked.values().map(|linked| linked.bytes).sum::<u64>()
    }

    /// What is at a path, without what is below it.
    pub fn of_one(path: &Path) -> Self {
        let mut size = Self::default();
        if let Ok(stat) = rustix::fs::lstat(path) {
            size.count(&stat);
        }
        size
    }

    /// Adds another; a file that is in both counts once.
    pub fn add(&mut self, other: &Self) -> Added {
        self.own += other.own;
        let mut added = Added { new: other.own, freed: other.own };
        for (inode, linked) in &other.linked {
            let here = self.linked.entry(*inode).or_insert(Linked { here: 0, ..*linked });
            if here.here == 0 {
                added.new += linked.bytes;
            }
            here.here += linked.here;
            if here.here >= here.names {
                added.freed += linked.bytes;
            }
        }
        added
    }

    /// What comes free when it is removed: files that have names elsewhere stay.
    pub fn freed(&self) -> u64 {
        let all_here = |linked: &&Linked| linked.here >= linked.names;
        self.own + self.linked.values().filter(all_here).map(|linked| linked.bytes).sum::<u64>()
    }

    /// What of it is in another, too.
    pub fn common(&self, other: &Self) -> u64 {
        self.linked.iter().filter(|(inode, _)| other.linked.contains_key(inode)).map(|(_, linked)| linked.bytes).sum()
    }

    /// Everything below an open directory. The walk keeps its own stack: a step can nest directories deeper than ours.
    fn below(&mut self, root: OwnedFd, device: u64) {
        let mut walk: Vec<Dir> = Dir::new(root).into_iter().collect();
        while let Some(directory) = walk.last_mut() {
            let Some(Ok(entry)) = directory.next() else {
                walk.pop();
                continue;
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            let Ok(parent) = directory.fd() else { continue };
            let Ok(stat) = rustix::fs::statat(parent, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if stat.st_dev != device {
                continue;
            }
            self.count(&stat);
            if is_directory(&stat)
                && let Some(child) = open(parent, entry.file_name())
            {
                walk.extend(Dir::new(child));
            }
        }
    }

    fn count(&mut self, stat: &Stat) {
        let bytes = u64::try_from(stat.st_blocks).unwrap_or(0) * BLOCK;
        if stat.st_nlink < 2 || is_directory(stat) {
            self.own += bytes;
            return;
        }
        let new = Linked { bytes, names: stat.st_nlink, here: 0 };
        self.linked.entry((stat.st_dev, stat.st_ino)).or_insert(new).here += 1;
    }
}

fn is_directory(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn open(parent: BorrowedFd<'_>, name: &std::ffi::CStr) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent.as_fd(), name, flags, Mode::empty()).ok()
}

/// What is at a path takes so many bytes on the disk.
pub fn allocated(path: &Path) -> u64 {
    Size::of(path).bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_count_once_and_come_free_with_the_last() {
        let place = tempfile::tempdir().unwrap();
        let [one, two] = ["one", "two"].map(|name| place.path().join(name));
        for directory in [&one, &two] {
            std::fs::create_dir(directory).unwrap();
        }
        std::fs::write(one.join("a"), [7; 10_000]).unwrap();
        std::fs::hard_link(one.join("a"), one.join("b")).unwrap();
        let alone = Size::of(&one);
        assert_eq!((alone.bytes(), alone.common(&Size::of(&two))), (alone.freed(), 0));

        std::fs::hard_link(one.join("a"), two.join("c")).unwrap();
        let (first, second) = (Size::of(&one), Size::of(&two));
        let content = first.common(&second);
        assert!(content >= 10_000 && first.freed() + content == first.bytes(), "{first:?}");
        let mut both = Size::default();
        both.add(&first);
        both.add(&second);
        assert_eq!(both.bytes(), first.bytes() + second.bytes() - content);
        assert_eq!(both.freed(), both.bytes());
        assert_eq!(Size::of(&place.path().join("absent")), Size::default());
    }

    #[test]
    fn adds_up_to_what_du_says() {
        let place = tempfile::tempdir().unwrap();
        let deep = place.path().join("a/b/c");
        std::fs::create_dir_all(&deep).unwrap();
        std::fs::write(deep.join("file"), vec![1; 100_000]).unwrap();
        std::os::unix::fs::symlink("/usr", deep.join("link")).unwrap();
        std::fs::hard_link(deep.join("file"), place.path().join("again")).unwrap();
        let du = std::process::Command::new("du").args(["-s", "-B512"]).arg(place.path()).output().unwrap();
        let said: u64 = String::from_utf8(du.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap();
        assert_eq!(allocated(place.path()), said * 512);
    }
}
