//! The files a build may read: a directory, less what its ignore patterns hide, as a [`Tree`].
//!
//! Takes a directory, patterns and the place of a stat index; gives entries and content digests. Each directory is listed once
//! and each unchanged file is read never: its digest is remembered beside its `stat` result (`index`). Never writes into the
//! context, never copies it to look at it, and never follows a symbolic link: a link is an entry like any other, so nothing
//! outside the directory can be read through one. Files count as owned by 0:0, whoever owns them here.

pub mod glob;
pub mod ignore;
pub mod index;
mod listing;
pub mod opened;

use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

use self::ignore::{Ignore, Inherited, PatternRef};
use self::index::{Index, Record, Stat, Time, Xattrs};
use self::listing::{Listing, Node};
use crate::digest::ContentId;
use crate::layer::tree::{Entry, Kind, Tree};

/// What can go wrong with a context.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory cannot be opened.
    #[error("cannot open the build context {}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Something in the context cannot be read. Methods of [`Tree`] give this inside an [`io::Error`].
    #[error("cannot read {} in the build context {}", path.display(), root.display())]
    Read {
        /// The context's directory.
        root: PathBuf,
        /// The path in it.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file was written to each time it was read. Methods of [`Tree`] give this inside an [`io::Error`].
    #[error("{} in the build context {} keeps changing while it is read; try again when nothing writes to it", path.display(), root.display())]
    Changing {
        /// The context's directory.
        root: PathBuf,
        /// The path in it.
        path: PathBuf,
    },
    /// The ignore file has a pattern that is not valid.
    #[error(transparent)]
    Ignore(#[from] ignore::Error),
    /// The stat index cannot be written.
    #[error("cannot save the stat index {}", path.display())]
    SaveIndex {
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// The ignore patterns of a context: those of the file that [`ignore::locate`] finds, or none.
///
/// # Errors
/// The file cannot be read, or has a pattern that is not valid.
pub fn ignore_patterns(context: &Path, dockerfile: Option<&Path>) -> Result<Ignore, Error> {
    let fail = |path: &Path, source| Error::Read { root: context.to_owned(), path: path.to_owned(), source };
    let located = ignore::locate(dockerfile, context).map_err(|source| fail(Path::new(".dockerignore"), source))?;
    let Some(path) = located else { return Ok(Ignore::default()) };
    let text = std::fs::read(&path).map_err(|source| fail(&path, source))?;
    let name = path.strip_prefix(context).unwrap_or(&path).to_string_lossy();
    Ok(Ignore::parse(&name, &text)?)
}

/// A build context on disk, as it is seen by one build.
#[derive(Debug)]
pub struct Context {
    path: PathBuf,
    root: OwnedFd,
    root_node: Node,
    ignore: Ignore,
    /// By path, as bytes.
    listings: RwLock<HashMap<OsString, Arc<Listing>>>,
    /// Hidden directories that turned out to hold nothing visible.
    empty: Mutex<HashSet<PathBuf>>,
    index_path: Option<PathBuf>,
    /// What earlier builds knew, read when first asked; `None` where that cannot be used.
    index: OnceLock<Option<Index>>,
    /// What this build learned.
    learned: Mutex<HashMap<OsString, Learned>>,
    /// Whether something was learned that a later build can trust.
    worth_saving: AtomicBool,
    files_read: AtomicU64,
    /// How many bytes of files were looked at that had been written a moment ago.
    young: AtomicU64,
}

/// A [`Record`] and the time its parts were taken.
#[derive(Debug)]
struct Learned {
    record: Record,
    taken: Time,
}

/// How often a file is read again because it changed meanwhile.
const ATTEMPTS: usize = 5;

impl Context {
    /// Opens the directory `path`. With `index`, digests are remembered in that file from build to build.
    ///
    /// # Errors
    /// The directory cannot be opened.
    pub fn open(path: &Path, ignore: Ignore, index: Option<PathBuf>) -> Result<Self, Error> {
        let fail = |source| Error::Open { path: path.to_owned(), source };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, rustix::fs::Mode::empty()).map_err(io::Error::from).map_err(fail)?;
        let root_node = listing::root_node(root.as_fd()).map_err(fail)?;
        Ok(Self {
            path: path.to_owned(),
            root,
            root_node,
            ignore,
            listings: RwLock::default(),
            empty: Mutex::default(),
            index_path: index,
            index: OnceLock::new(),
            learned: Mutex::default(),
            worth_saving: AtomicBool::new(false),
            files_read: AtomicU64::new(0),
            young: AtomicU64::new(0),
        })
    }

    /// The directory on disk.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it hides.
    pub fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    /// The ignore pattern that hides a path, whether the path exists or not.
    pub fn hidden_by(&self, path: &Path) -> Option<PatternRef> {
        self.ignore.verdict(path).hidden_by
    }

    /// How many times a file was read because its digest was not known.
    pub fn files_read(&self) -> u64 {
        self.files_read.load(Ordering::Relaxed)
    }

    /// The stat index, where one was given that was there and could not be used.
    pub fn damaged_index(&self) -> Option<&Path> {
        let is_damaged = self.index.get().is_some_and(|loaded| loaded.is_none());
        self.index_path.as_deref().filter(|_| is_damaged)
    }

    /// Has the stat index put in its place, if one was given and there is anything new. Digests that could be stale without
    /// showing it are left out. `put` takes the path that was given and all of the bytes; a reader must see the old file or
    /// the new one.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, put: &dyn Fn(&Path, &[u8]) -> io::Result<()>) -> Result<(), Error> {
        let Some(path) = self.index_path.as_ref().filter(|_| self.worth_saving.swap(false, Ordering::Relaxed)) else {
            return Ok(());
        };
        // Another build may have saved meanwhile: what it knows is kept.
        let mut index = Index::load(path).unwrap_or_default();
        for (path, learned) in self.learned.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            if !learned.record.stat.is_racy(learned.taken) {
                index.insert(path.into(), learned.record.clone());
            }
        }
        let listings = self.listings.read().unwrap_or_else(PoisonError::into_inner);
        index.forget(|path| {
            let listing = path.parent().and_then(|parent| listings.get(parent.as_os_str()));
            listing.is_some_and(|listing| path.file_name().is_some_and(|name| listing.find(name).is_none()))
        });
        drop(listings);
        put(path, &index.encode()).map_err(|source| Error::SaveIndex { path: path.clone(), source })
    }

    fn fail(&self, path: &Path, source: io::Error) -> io::Error {
        let kind = source.kind();
        io::Error::new(kind, Error::Read { root: self.path.clone(), path: path.to_owned(), source })
    }

    fn not_found(&self, path: &Path) -> io::Error {
        self.fail(path, io::ErrorKind::NotFound.into())
    }

    /// The listing of a directory; `None` where the path is not a visible directory.
    fn listing(&self, path: &Path) -> io::Result<Option<Arc<Listing>>> {
        // From the root down, because what a directory inherits is known in the listing that holds it.
        let mut listing = self.listing_of(Path::new(""), &Inherited::default())?;
        let mut at = PathBuf::new();
        for part in path {
            at.push(part);
            let Some(node) = listing.find(part).filter(|node| node.entry.kind == Kind::Directory) else {
                return Ok(None);
            };
            let below = self.listing_of(&at, &node.inherited)?;
            listing = below;
        }
        Ok(Some(listing))
    }

    fn listing_of(&self, path: &Path, inherited: &Inherited) -> io::Result<Arc<Listing>> {
        if let Some(known) = self.cached(path) {
            return Ok(known);
        }
        let listing = Arc::new(
            listing::read(self.root.as_fd(), path, &self.ignore, inherited).map_err(|error| self.fail(path, error))?,
        );
        // The first one in stays: a build sees one state of a directory.
        let mut listings = self.listings.write().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::clone(listings.entry(path.as_os_str().to_owned()).or_insert(listing)))
    }

    fn cached(&self, path: &Path) -> Option<Arc<Listing>> {
        self.listings.read().unwrap_or_else(PoisonError::into_inner).get(path.as_os_str()).cloned()
    }

    /// The directory that holds a path, and the path's name in it.
    fn holder<'p>(&self, path: &'p Path) -> io::Result<Option<(Arc<Listing>, &'p OsStr)>> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
        let listing = match self.cached(parent) {
            Some(known) => Some(known),
            None => self.listing(parent)?,
        };
        Ok(listing.map(|listing| (listing, name)))
    }

    fn with_node<T>(&self, path: &Path, action: impl FnOnce(&Node) -> io::Result<T>) -> io::Result<Option<T>> {
        if path.as_os_str().is_empty() {
            return action(&self.root_node).map(Some);
        }
        let Some((listing, name)) = self.holder(path)? else { return Ok(None) };
        let Some(node) = listing.find(name) else { return Ok(None) };
        if node.half_hidden && !self.shows_anything(path)? {
            return Ok(None);
        }
        action(node).map(Some)
    }

    /// Whether a hidden directory holds anything visible, at any depth.
    fn shows_anything(&self, path: &Path) -> io::Result<bool> {
        let mut visited = vec![path.to_owned()];
        let mut next = 0;
        while let Some(directory) = visited.get(next).cloned() {
            next += 1;
            if self.empty.lock().unwrap_or_else(PoisonError::into_inner).contains(&directory) {
                continue;
            }
            let Some(listing) = self.listing(&directory)? else { continue };
            for node in &listing.nodes {
                if !node.half_hidden {
                    return Ok(true);
                }
                visited.push(directory.join(&node.name));
            }
        }
        self.empty.lock().unwrap_or_else(PoisonError::into_inner).extend(visited);
        Ok(false)
    }

    fn known<T>(&self, path: &Path, stat: &Stat, part: impl Fn(&Record) -> Option<T>) -> Option<T> {
        let load = || self.index_path.as_deref().map_or_else(|| Some(Index::default()), Index::load);
        let index = self.index.get_or_init(load).as_ref();
        if let Some(found) = index.and_then(|index| index.get(path, stat)).and_then(&part) {
            return Some(found);
        }
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        learned
            .get(path.as_os_str())
            .filter(|learned| learned.record.stat == *stat)
            .and_then(|learned| part(&learned.record))
    }

    fn learn(&self, path: &Path, stat: Stat, taken: Time, content: Option<ContentId>, xattrs: Option<Xattrs>) {
        let earlier = self.known(path, &stat, |record| Some(record.clone()));
        let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        // Of two parts taken at different times the earlier decides whether the record can be trusted.
        let taken =
            learned.get(path.as_os_str()).filter(|l| l.record.stat == stat).map_or(taken, |l| l.taken.min(taken));
        let mut record = earlier.unwrap_or(Record { stat, content: None, xattrs: None });
        record.content = content.or(record.content);
        record.xattrs = xattrs.or(record.xattrs);
        if !stat.is_racy(taken) {
            self.worth_saving.store(true, Ordering::Relaxed);
        }
        learned.insert(path.as_os_str().to_owned(), Learned { record, taken });
    }

    fn open_file(&self, path: &Path) -> io::Result<File> {
        // Without waiting: a pipe may have taken the file's place.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let file = File::from(listing::open_below(self.root.as_fd(), path, flags)?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// Waits a moment before a file is looked at that was written a moment ago, if there is much of such: else the next
    /// build, too, would read it all, because what is seen of it now says nothing about later. At most one moment a build:
    /// afterwards all that was young is older.
    fn settle(&self, stat: &Stat) {
        /// So many bytes are sooner read again than waited for.
        const LITTLE: u64 = 1 << 20;
        /// What nobody notices.
        const MOMENT: Duration = Duration::from_millis(25);
        if let Some(youth) = stat.youth(now()).filter(|youth| *youth <= MOMENT)
            && self.young.fetch_add(stat.size, Ordering::Relaxed) + stat.size >= LITTLE
        {
            std::thread::sleep(youth);
        }
    }

    /// Reads a file for its digest, again if it changes meanwhile.
    fn digest(&self, path: &Path) -> io::Result<ContentId> {
        for _ in 0..ATTEMPTS {
            let file = self.open_file(path).map_err(|error| self.fail(path, error))?;
            self.settle(&listing::stat_open(&file).map_err(|error| self.fail(path, error))?);
            let taken = now();
            let before = listing::stat_open(&file).map_err(|error| self.fail(path, error))?;
            self.files_read.fetch_add(1, Ordering::Relaxed);
            let content = ContentId::of_all(&file, before.size).map_err(|error| self.fail(path, error))?;
            let after = listing::stat_open(&file).map_err(|error| self.fail(path, error))?;
            if before == after {
                self.learn(path, before, taken, Some(content), None);
                return Ok(content);
            }
        }
        Err(io::Error::other(Error::Changing { root: self.path.clone(), path: path.to_owned() }))
    }
}

impl Tree for Context {
    fn entry(&self, path: &Path) -> io::Result<Option<Entry>> {
        self.with_node(path, |node| Ok(node.entry.clone()))
    }

    fn names(&self, path: &Path) -> io::Result<Vec<OsString>> {
        let listing = self.listing(path)?.ok_or_else(|| self.not_found(path))?;
        let mut names = Vec::with_capacity(listing.nodes.len());
        for node in &listing.nodes {
            if !node.half_hidden || self.shows_anything(&path.join(&node.name))? {
                names.push(node.name.clone());
            }
        }
        Ok(names)
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        self.with_node(path, |_| self.open_file(path).map_err(|error| self.fail(path, error)))?
            .ok_or_else(|| self.not_found(path))
    }

    fn xattrs(&self, path: &Path) -> io::Result<Vec<(OsString, Vec<u8>)>> {
        let stat = self.with_node(path, |node| Ok(node.stat))?.ok_or_else(|| self.not_found(path))?;
        if let Some(known) = self.known(path, &stat, |record| record.xattrs.clone()) {
            return Ok(known);
        }
        self.settle(&stat);
        let taken = now();
        let xattrs = read_xattrs(&self.root, path).map_err(|error| self.fail(path, error))?;
        self.learn(path, stat, taken, None, Some(xattrs.clone()));
        Ok(xattrs)
    }

    fn content_id(&self, path: &Path, _entry: &Entry) -> io::Result<ContentId> {
        let stat = self.with_node(path, |node| Ok(node.stat))?.ok_or_else(|| self.not_found(path))?;
        match self.known(path, &stat, |record| record.content) {
            Some(content) => Ok(content),
            None => self.digest(path),
        }
    }

    fn may_change(&self) -> bool {
        true
    }
}

fn now() -> Time {
    // A clock before 1970 makes every file young, so that nothing is trusted: slow, never wrong.
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// Reads the attributes that belong into an image. Through `/proc`, because no call reads those of a link by descriptor.
fn read_xattrs(root: &OwnedFd, path: &Path) -> io::Result<Xattrs> {
    let parent = path.parent().unwrap_or(Path::new(""));
    let directory = listing::open_below(root.as_fd(), parent, OFlags::PATH | OFlags::DIRECTORY)?;
    let mut place = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd()));
    place.push(path.file_name().unwrap_or(OsStr::new(".")));
    let mut names = Vec::new();
    let length = match rustix::fs::llistxattr_query(&place) {
        Ok(0) | Err(rustix::io::Errno::OPNOTSUPP) => return Ok(Vec::new()),
        result => result?,
    };
    names.resize(length, 0);
    let length = rustix::fs::llistxattr(&place, &mut names[..])?;
    let mut found = Vec::new();
    for name in names[..length].split(|&byte| byte == 0) {
        let name = OsStr::from_bytes(name);
        if belongs_in_image(name) {
            let mut value = vec![0; rustix::fs::lgetxattr_query(&place, name)?];
            let length = rustix::fs::lgetxattr(&place, name, &mut value[..])?;
            value.truncate(length);
            found.push((name.to_owned(), value));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Attributes of the machine (labels, access lists, an overlay's own records) stay here.
fn belongs_in_image(name: &OsStr) -> bool {
    let name = name.as_bytes();
    name == b"security.capability" || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

#[cfg(test)]
mod tests;
