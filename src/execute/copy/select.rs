//! Which files a `COPY` or `ADD` means, and a digest that says so.
//!
//! Takes the operation and the tree its sources come from; gives every entry that will be copied, relative to where it will be
//! put, with the digests of contents. Reads no content that the tree knows the digest of, and never looks at the root that
//! files are added to: what is there decides only where files land.
//!
//! The digest covers what can reach the layer and nothing else: no times, and no source path beyond the name that a file keeps.
//! Where `--chown` or an octal `--chmod` sets an attribute, the source's own does not count either.

use std::cmp::Ordering;
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::Error;
use super::chmod::Chmod;
use crate::context::glob::Glob;
use crate::context::ignore::{Ignore, Inherited, clean};
use crate::digest::ContentId;
use crate::fetch::Joined;
use crate::graph::{CopyOp, CopySource, InlineFile};
use crate::layer::tree::{Entry, Kind, Tree};
use crate::layer::view::{Follow, resolve};

/// Permission bits of a file that stands in the recipe.
const INLINE_MODE: u32 = 0o644;

/// What a copy operation copies.
#[derive(Debug, Clone)]
pub struct Selection {
    /// One for each source, or for each match of a source with wildcards, in the order they are copied in.
    pub groups: Vec<Group>,
    /// Names all of it. Equal digests, destinations and flags on equal roots give equal layers, but for times.
    pub digest: ContentId,
}

/// One thing that is copied.
#[derive(Debug, Clone)]
pub struct Group {
    /// The name it takes if it is put into a directory; empty for the root of a tree.
    pub name: OsString,
    /// Whether it is a directory, of which the contents are copied; else it is the one item.
    pub is_directory: bool,
    /// Its entries in path order, parents first.
    pub items: Vec<Item>,
    /// Whether it is unpacked if it is an archive.
    pub unpack: bool,
    /// The time of the directory whose contents are copied; none for the root of a tree, whose time is an accident.
    pub mtime: Option<(i64, u32)>,
}

/// One entry that is copied.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it goes, relative to the group; empty for the item of a group that is no directory.
    pub path: PathBuf,
    /// Where its content comes from.
    pub origin: Origin,
    /// Its metadata at the source.
    pub entry: Entry,
    /// The digest of its content, for regular files.
    pub content: Option<ContentId>,
    /// Its extended attributes, sorted by name.
    pub xattrs: Vec<(OsString, Vec<u8>)>,
    /// A directory that was not meant itself and comes along for something in it.
    pub implied: bool,
    /// Names everything about the item that the selection's digest covers, so that two selections can be compared item by item.
    pub id: ContentId,
}

/// Where an item's content comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A path in the source tree.
    Tree(PathBuf),
    /// The recipe.
    Inline(Arc<[u8]>),
}

/// Selects what `op` copies out of `from`.
///
/// A source without wildcards has to exist, and is followed if it is a symbolic link, never out of the tree. A source with
/// wildcards may match nothing. A directory stands for its contents, in which links are copied as links. `--exclude` applies to
/// what is in a directory, not to a source that is a file itself, as in BuildKit.
///
/// # Errors
/// A source that is missing or cannot be read, or a pattern or mode that is not valid.
pub fn select(op: &CopyOp, from: &dyn Tree) -> Result<Selection, Error> {
    select_among(op, from, &[])
}

/// Selects what `op` copies out of `from` and of what was fetched for it, one tree for each of [`CopyOp::fetched`]. Where
/// there are any, origins are paths in the [`Joined`] tree of `from` and these.
///
/// # Errors
/// See [`select`].
pub fn select_among(op: &CopyOp, from: &dyn Tree, fetched: &[&dyn Tree]) -> Result<Selection, Error> {
    let exclude = Ignore::from_patterns("--exclude", op.exclude.iter().map(String::as_str))
        .map_err(|source| Error::Pattern { source })?;
    let chmod = op.chmod.as_deref().map(Chmod::parse).transpose()?;
    let counts = Counts { owner: op.chown.is_none(), mode: !matches!(chmod, Some(Chmod::Exact(_))) };
    let mut groups = Vec::new();
    let mut fetched_before = 0;
    for source in &op.sources {
        let (tree, number, mut found) = match source {
            CopySource::Inline(file) => (from, 0, vec![inline(file)]),
            CopySource::Path(word) => (from, 0, Source::new(op, word, &exclude, from)?.groups()?),
            CopySource::Fetched { path, unpack, .. } => {
                let tree = fetched[fetched_before];
                fetched_before += 1;
                let source = Source { unpack: *unpack, ..Source::new(op, path, &exclude, tree)? };
                (tree, fetched_before, vec![source.group(Path::new(if path == "." { "" } else { path }))?])
            }
        };
        for group in &mut found {
            group.items.par_iter_mut().try_for_each(|item| {
                complete(item, tree, counts)?;
                if let Origin::Tree(path) = &mut item.origin
                    && !fetched.is_empty()
                {
                    *path = Joined::path(number, path);
                }
                Ok::<(), Error>(())
            })?;
        }
        groups.append(&mut found);
    }
    let digest = digest(&groups);
    Ok(Selection { groups, digest })
}

/// Selects one path of `from` as it is written: what a mount shows, for which `*` is a name like any other.
///
/// # Errors
/// A path that is missing or cannot be read.
pub fn select_path(path: &str, from: &dyn Tree) -> Result<Selection, Error> {
    let exclude = Ignore::from_patterns("--exclude", []).map_err(|source| Error::Pattern { source })?;
    let base = clean(&format!("/{path}"))[1..].to_owned();
    let source = Source { word: path, from, exclude: &exclude, include: None, unpack: false, base };
    let mut group = source.group(Path::new(&source.base))?;
    let counts = Counts { owner: true, mode: true };
    group.items.par_iter_mut().try_for_each(|item| complete(item, from, counts))?;
    let groups = vec![group];
    let digest = digest(&groups);
    Ok(Selection { groups, digest })
}

/// Which attributes of the source reach the layer.
#[derive(Debug, Clone, Copy)]
struct Counts {
    owner: bool,
    mode: bool,
}

fn inline(file: &InlineFile) -> Group {
    let entry = Entry {
        kind: Kind::File { size: file.content.len() as u64 },
        mode: INLINE_MODE,
        uid: 0,
        gid: 0,
        mtime: (i64::MAX, 0),
        link_group: None,
    };
    let item = Item::new(PathBuf::new(), Origin::Inline(file.content.as_slice().into()), entry, false);
    Group { name: file.name.clone().into(), is_directory: false, items: vec![item], unpack: false, mtime: None }
}

impl Item {
    fn new(path: PathBuf, origin: Origin, entry: Entry, implied: bool) -> Self {
        let id = ContentId::from_bytes([0; 32]);
        Self { path, origin, entry, content: None, xattrs: Vec::new(), implied, id }
    }
}

/// One source that is a path or a pattern.
struct Source<'a> {
    word: &'a str,
    from: &'a dyn Tree,
    exclude: &'a Ignore,
    /// With `--parents`: what is meant below `base`, as patterns that "hide" what they select.
    include: Option<Ignore>,
    /// Whether archives are unpacked.
    unpack: bool,
    /// The part that is expanded: all of the word, or what stands before `/./` with `--parents`.
    base: String,
}

impl<'a> Source<'a> {
    fn new(op: &CopyOp, word: &'a str, exclude: &'a Ignore, from: &'a dyn Tree) -> Result<Self, Error> {
        let relative = |text: &str| clean(&format!("/{text}"))[1..].to_owned();
        if !op.parents {
            return Ok(Self { word, from, exclude, include: None, unpack: op.unpack, base: relative(word) });
        }
        let (base, pattern) = word.split_once("/./").unwrap_or(("", word));
        let (base, pattern) = (relative(base), relative(pattern));
        let source = Self { word, from, exclude, include: None, unpack: op.unpack, base };
        if pattern.is_empty() {
            return Ok(source);
        }
        if !Glob::has_wildcards(&source.base) && !Glob::has_wildcards(&pattern) {
            source.existing(&Path::new(&source.base).join(&pattern))?;
        }
        let include =
            Ignore::from_patterns("--parents", [pattern.as_str()]).map_err(|source| Error::Pattern { source })?;
        Ok(Self { include: Some(include), ..source })
    }

    fn groups(&self) -> Result<Vec<Group>, Error> {
        self.expand()?.into_iter().map(|path| self.group(&path)).collect()
    }

    fn group(&self, path: &Path) -> Result<Group, Error> {
        let (real, entry) = self.existing(path)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let is_directory = entry.kind == Kind::Directory;
        let mtime = (is_directory && !real.as_os_str().is_empty()).then_some(entry.mtime);
        let items = match entry.kind {
            Kind::Directory => self.contents(&real)?,
            Kind::Socket => return Err(self.read_error(path, std::io::ErrorKind::Unsupported.into())),
            _ => vec![Item::new(PathBuf::new(), Origin::Tree(real), entry, false)],
        };
        Ok(Group { name, is_directory, items, unpack: self.unpack, mtime })
    }

    /// Follows links; the path has to exist.
    fn existing(&self, path: &Path) -> Result<(PathBuf, Entry), Error> {
        let missing = || Error::NotFound { word: self.word.to_owned() };
        match resolve(self.from, path, Follow::All) {
            Ok(resolved) => Ok((resolved.path, resolved.entry.ok_or_else(missing)?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => Err(missing()),
            Err(error) => Err(self.read_error(path, error)),
        }
    }

    /// The paths that the base stands for, in the order a walk through sorted directories finds them.
    fn expand(&self) -> Result<Vec<PathBuf>, Error> {
        let parts: Vec<&str> = self.base.split('/').collect();
        let Some(first) = parts.iter().position(|part| Glob::has_wildcards(part)) else {
            return Ok(vec![self.base.clone().into()]);
        };
        let pattern = parts[first..].join("/");
        let glob = Glob::new(&pattern).map_err(|source| Error::Source { source })?;
        let (start, entry) = self.existing(&parts[..first].iter().collect::<PathBuf>())?;
        if entry.kind != Kind::Directory {
            return Ok(Vec::new());
        }
        let globs: Result<Vec<Glob>, _> = parts[first..].iter().map(|part| Glob::new(part)).collect();
        match globs {
            Ok(globs) if !glob.may_cross_directories() => self.expand_by_part(start, &globs),
            _ => self.expand_by_walk(start, &glob),
        }
    }

    fn expand_by_part(&self, start: PathBuf, globs: &[Glob]) -> Result<Vec<PathBuf>, Error> {
        let mut found = vec![start];
        for (depth, glob) in globs.iter().enumerate() {
            let mut next = Vec::new();
            for directory in &found {
                if depth > 0 && self.entry(directory)?.is_none_or(|entry| entry.kind != Kind::Directory) {
                    continue;
                }
                let names = self.names(directory)?;
                next.extend(names.iter().filter(|name| glob.matches(name.as_bytes())).map(|name| directory.join(name)));
            }
            found = next;
        }
        Ok(found)
    }

    /// For the rare pattern with a class that matches `/`: tries every path; a directory that matches is not entered.
    fn expand_by_walk(&self, start: PathBuf, glob: &Glob) -> Result<Vec<PathBuf>, Error> {
        let mut found = Vec::new();
        let mut pending = vec![start.clone()];
        while let Some(path) = pending.pop() {
            let relative = path.strip_prefix(&start).unwrap_or(&path);
            if !relative.as_os_str().is_empty() && glob.matches(relative.as_os_str().as_bytes()) {
                found.push(path);
            } else if self.entry(&path)?.is_some_and(|entry| entry.kind == Kind::Directory) {
                pending.extend(self.names(&path)?.iter().rev().map(|name| path.join(name)));
            }
        }
        Ok(found)
    }

    /// Everything selected below the directory `root`, level by level, so that no depth of tree overflows a stack.
    fn contents(&self, root: &Path) -> Result<Vec<Item>, Error> {
        let mut items = Vec::new();
        let mut level = vec![Pending::default()];
        while !level.is_empty() {
            let listed: Vec<(Vec<Item>, Vec<Pending>)> =
                level.par_iter().map(|directory| self.list(root, directory)).collect::<Result<_, _>>()?;
            level.clear();
            for (entries, directories) in listed {
                items.extend(entries);
                level.extend(directories);
            }
        }
        items.sort_unstable_by(|a, b| in_order(&a.path, &b.path));
        Ok(drop_idle_parents(items))
    }

    fn list(&self, root: &Path, directory: &Pending) -> Result<(Vec<Item>, Vec<Pending>), Error> {
        let mut items = Vec::new();
        let mut directories = Vec::new();
        for name in self.names(&root.join(&directory.path))? {
            let path = directory.path.join(name);
            let real = root.join(&path);
            let Some(entry) = self.entry(&real)?.filter(|entry| entry.kind != Kind::Socket) else { continue };
            let verdict = self.judge(directory, path);
            if entry.kind == Kind::Directory {
                if verdict.enter {
                    items.push(Item::new(verdict.below.path.clone(), Origin::Tree(real), entry, !verdict.selected));
                    directories.push(verdict.below);
                }
            } else if verdict.selected {
                items.push(Item::new(verdict.below.path, Origin::Tree(real), entry, false));
            }
        }
        Ok((items, directories))
    }

    fn judge(&self, directory: &Pending, path: PathBuf) -> Verdict {
        let (included, include) = match &self.include {
            Some(patterns) => {
                let (hit, inherited) = patterns.enter(&directory.include, &path);
                (hit.is_some(), inherited)
            }
            None => (true, Inherited::default()),
        };
        let (excluded, exclude) = self.exclude.enter(&directory.exclude, &path);
        let may_include = included || self.include.as_ref().is_some_and(|patterns| patterns.may_hide_below(&path));
        let may_show = excluded.is_none() || self.exclude.may_show_below(&path);
        Verdict {
            selected: included && excluded.is_none(),
            enter: may_include && may_show,
            below: Pending { path, include, exclude },
        }
    }

    fn entry(&self, path: &Path) -> Result<Option<Entry>, Error> {
        self.from.entry(path).map_err(|source| self.read_error(path, source))
    }

    fn names(&self, path: &Path) -> Result<Vec<OsString>, Error> {
        self.from.names(path).map_err(|source| self.read_error(path, source))
    }

    fn read_error(&self, path: &Path, source: std::io::Error) -> Error {
        Error::Read { path: path.to_owned(), source }
    }
}

/// A directory that is still to be listed, relative to its group.
#[derive(Debug, Clone, Default)]
struct Pending {
    path: PathBuf,
    include: Inherited,
    exclude: Inherited,
}

struct Verdict {
    selected: bool,
    /// For a directory: whether anything in it may be selected.
    enter: bool,
    below: Pending,
}

/// The order of paths that a walk through sorted directories finds: that of [`Path`] for paths that are clean, without
/// taking them apart.
pub(super) fn in_order(left: &Path, right: &Path) -> Ordering {
    let (left, right) = (left.as_os_str().as_bytes(), right.as_os_str().as_bytes());
    let rank = |byte: &u8| if *byte == b'/' { 0 } else { *byte };
    match left.iter().zip(right).find(|(left, right)| left != right) {
        Some((left, right)) => rank(left).cmp(&rank(right)),
        None => left.len().cmp(&right.len()),
    }
}

/// Leaves out directories that come along for nothing. `items` are sorted, so what a directory holds follows it.
fn drop_idle_parents(items: Vec<Item>) -> Vec<Item> {
    let mut kept: Vec<Item> = Vec::with_capacity(items.len());
    for item in items.into_iter().rev() {
        let holds_something = kept.last().is_some_and(|next| next.path.starts_with(&item.path));
        if !item.implied || holds_something {
            kept.push(item);
        }
    }
    kept.reverse();
    kept
}

/// Fills in what has to be asked of the tree: attributes and digests.
fn complete(item: &mut Item, from: &dyn Tree, counts: Counts) -> Result<(), Error> {
    match &item.origin {
        Origin::Inline(bytes) => item.content = Some(blake3::hash(bytes).into()),
        Origin::Tree(path) if (item.entry.kind == Kind::CharDevice { device: (0, 0) }) => {
            return Err(Error::Whiteout { path: path.clone() });
        }
        Origin::Tree(path) => {
            let fail = |source| Error::Read { path: path.clone(), source };
            item.xattrs = from.xattrs(path).map_err(fail)?;
            if matches!(item.entry.kind, Kind::File { .. }) {
                item.content = Some(from.content_id(path, &item.entry).map_err(fail)?);
            }
        }
    }
    item.id = item_id(item, counts);
    Ok(())
}

fn item_id(item: &Item, counts: Counts) -> ContentId {
    let mut hasher = Encoder::new("strata item 1");
    hasher.bytes(item.path.as_os_str().as_bytes());
    hasher.number(item.implied.into());
    let entry = &item.entry;
    let is_link = matches!(entry.kind, Kind::Symlink { .. });
    // The bits of a symbolic link mean nothing.
    hasher.number(if counts.mode && !is_link { u64::from(entry.mode) + 1 } else { 0 });
    if counts.owner {
        hasher.number(u64::from(entry.uid) + 1);
        hasher.number(u64::from(entry.gid) + 1);
    } else {
        hasher.number(0);
    }
    match &entry.kind {
        Kind::File { .. } => {
            hasher.number(1);
            hasher.bytes(item.content.as_ref().map_or(&[], |content| content.as_bytes()));
        }
        Kind::Directory => hasher.number(2),
        Kind::Symlink { target } => {
            hasher.number(3);
            hasher.bytes(target.as_os_str().as_bytes());
        }
        Kind::CharDevice { device: (major, minor) } | Kind::BlockDevice { device: (major, minor) } => {
            hasher.number(if matches!(entry.kind, Kind::CharDevice { .. }) { 4 } else { 5 });
            hasher.number((*major).into());
            hasher.number((*minor).into());
        }
        Kind::Fifo => hasher.number(6),
        Kind::Socket => hasher.number(7),
    }
    hasher.number(item.xattrs.len() as u64);
    for (name, value) in &item.xattrs {
        hasher.bytes(name.as_bytes());
        hasher.bytes(value);
    }
    hasher.finish()
}

fn digest(groups: &[Group]) -> ContentId {
    let mut hasher = Encoder::new("strata selection 1");
    hasher.number(groups.len() as u64);
    for group in groups {
        // A directory's own name is lost: only its contents are copied.
        hasher.number(group.is_directory.into());
        hasher.bytes(if group.is_directory { b"" } else { group.name.as_bytes() });
        hasher.number(group.items.len() as u64);
        let mut first_of: HashMap<(u64, u64), u64> = HashMap::new();
        for (index, item) in (0_u64..).zip(&group.items) {
            hasher.bytes(item.id.as_bytes());
            // Which earlier item shares its inode, if one does.
            let first = item.link_group().map_or(index, |inode| *first_of.entry(inode).or_insert(index));
            hasher.number(index - first);
        }
    }
    hasher.finish()
}

impl Item {
    /// Names the inode of a regular file with several names.
    pub(super) fn link_group(&self) -> Option<(u64, u64)> {
        self.entry.link_group.filter(|_| matches!(self.entry.kind, Kind::File { .. }))
    }
}

/// A hash over fields that cannot run into each other.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn new(context: &str) -> Self {
        let mut encoder = Self(blake3::Hasher::new());
        encoder.bytes(context.as_bytes());
        encoder
    }

    fn number(&mut self, number: u64) {
        self.0.update(&number.to_le_bytes());
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.update(bytes);
    }

    fn finish(self) -> ContentId {
        self.0.finalize().into()
    }
}
