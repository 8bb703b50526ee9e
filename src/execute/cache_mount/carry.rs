//! Caches in a file, for another store: what CI keeps from one machine to the next.
//!
//! Takes caches and gives one tar archive, or takes that and puts the caches in their place. The same content gives the
//! same bytes. What is read is trusted in nothing: its own parts are taken in order and by name, and the files of a
//! cache go through the reader of layers (`layer::unpack`), which leaves no directory that it was given.
//!
//! ```text
//! cache-mounts.json   what is in it: ids, platforms, owners and modes, digests
//! 0.tar, 1.tar, …     the files of each, as a layer would have them
//! ```
//!
//! Only the copy that steps share is carried, not those that `sharing=private` made beside it.

use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, Uid};
use serde::{Deserialize, Serialize};

use super::stored::{self, StoredCache};
use super::{name_of, put};
use crate::digest::DiffId;
use crate::layer::archive::{self, Times};
use crate::layer::unpack::{self, Owners};
use crate::layer::{Measured, OverlayXattr};
use crate::recipe::platform::Platform;
use crate::store::{Lock, Store};

/// The form of the archive; a reader refuses any other.
const FORMAT: u32 = 1;

const TABLE: &str = "cache-mounts.json";

/// The largest table that is read, in bytes.
const LARGEST_TABLE: u64 = 1 << 20;

/// What sizes in a tar archive are rounded up to.
const BLOCK: usize = 512;

/// Why caches cannot be carried.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The caches of the store.
    #[error(transparent)]
    Stored(#[from] stored::Error),
    /// A cache cannot be written to an archive.
    #[error("the cache mount {id} cannot be exported")]
    Pack {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: archive::Error,
    },
    /// The archive cannot be written.
    #[error("the archive of cache mounts cannot be written")]
    Write {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file would be lost.
    #[error(
        "{path:?} of the cache mount {id} cannot be carried: names that begin with \".wh.\" mark deleted files in an archive"
    )]
    Name {
        /// The cache's id.
        id: String,
        /// The file.
        path: PathBuf,
    },
    /// The archive cannot be read.
    #[error("the archive of cache mounts cannot be read")]
    Read {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is something else, or damaged.
    #[error("this is no archive of cache mounts, or it is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// The files of a cache are refused.
    #[error("the cache mount {id} cannot be imported")]
    Unpack {
        /// Its id.
        id: String,
        /// Why.
        #[source]
        source: unpack::Error,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    format: u32,
    caches: Vec<Row>,
}

/// One cache of an archive.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    platform: String,
    /// Permission bits of the cache's own directory.
    mode: u32,
    uid: u32,
    gid: u32,
    digest: DiffId,
    size: u64,
}

/// A cache that was imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Imported {
    /// Its id.
    pub id: String,
    /// Its platform.
    pub platform: String,
    /// What of it could not be made by this user, in words.
    pub left_out: Vec<String>,
}

/// Writes caches to an archive.
///
/// # Errors
/// See [`Error`]. What was written until then is no archive.
pub fn export(caches: &[StoredCache], xattr: OverlayXattr, _alone: &Lock, sink: &mut dyn Write) -> Result<(), Error> {
    let rows = caches.iter().map(|cache| row(cache, xattr)).collect::<Result<Vec<_>, _>>()?;
    let table = Table { format: FORMAT, caches: rows };
    let failed = |source| Error::Write { source };
    let text = serde_json::to_vec_pretty(&table).map_err(|error| failed(error.into()))?;
    part(sink, TABLE, text.len() as u64).and_then(|()| sink.write_all(&text)).map_err(failed)?;
    pad(sink, text.len() as u64).map_err(failed)?;
    for (number, (cache, row)) in caches.iter().zip(&table.caches).enumerate() {
        part(sink, &part_name(number), row.size).map_err(failed)?;
        let pack = |source| Error::Pack { id: cache.id.clone(), source };
        let written = archive::write(&shared_copy(cache), xattr, Times::default(), sink).map_err(pack)?;
        if (written.diff_id, written.size) != (row.digest, row.size) {
            return Err(Error::Damaged { reason: format!("the cache {} changed while it was written", cache.id) });
        }
        pad(sink, row.size).map_err(failed)?;
    }
    sink.write_all(&[0; 2 * BLOCK]).and_then(|()| sink.flush()).map_err(failed)
}

fn shared_copy(cache: &StoredCache) -> PathBuf {
    cache.directory.join("0")
}

fn row(cache: &StoredCache, xattr: OverlayXattr) -> Result<Row, Error> {
    let path = shared_copy(cache);
    let failed = |source| stored::Error::Io { action: "look at", path: path.clone(), source };
    let meta = std::fs::symlink_metadata(&path).map_err(failed)?;
    let mut misread = None;
    let mut note = |path| misread = misread.take().or(Some(path));
    let (Measured { diff_id, size, .. }, _) =
        archive::measure_and_tell(&path, xattr, Times::default(), &mut archive::Arriving::new(), &mut note)
            .map_err(|source| Error::Pack { id: cache.id.clone(), source })?;
    if let Some(path) = misread {
        return Err(Error::Name { id: cache.id.clone(), path });
    }
    let (id, platform) = (cache.id.clone(), cache.platform.clone());
    Ok(Row { id, platform, mode: meta.mode() & 0o7777, uid: meta.uid(), gid: meta.gid(), digest: diff_id, size })
}

fn part_name(number: usize) -> String {
    format!("{number}.tar")
}

/// Writes the header of a part.
fn part(sink: &mut dyn Write, name: &str, size: u64) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    sink.write_all(header.as_bytes())
}

fn pad(sink: &mut dyn Write, size: u64) -> io::Result<()> {
    sink.write_all(&[0; BLOCK][..padding(size)])
}

fn padding(size: u64) -> usize {
    // The rest is less than a block.
    let over = usize::try_from(size % BLOCK as u64).unwrap_or(0);
    (BLOCK - over) % BLOCK
}

/// Puts the caches of an archive into a store. One that is there already is replaced. All of them are unpacked and
/// checked before the first is put in its place.
///
/// # Errors
/// See [`Error`].
pub fn import(
    store: &Store,
    xattr: OverlayXattr,
    owners: Owners,
    _alone: &Lock,
    reader: &mut (dyn Read + Send),
) -> Result<Vec<Imported>, Error> {
    let table = read_table(reader)?;
    let scratch = store.scratch().map_err(stored::Error::from)?;
    let mut unpacked = Vec::new();
    for (number, row) in table.caches.into_iter().enumerate() {
        let size = read_part(reader, &part_name(number))?;
        if size != row.size {
            return Err(damaged(format!("{} has another size", part_name(number))));
        }
        let tree = scratch.dir(&format!("cache-{number}")).map_err(stored::Error::from)?;
        let failed = |source| Error::Unpack { id: row.id.clone(), source };
        let done = unpack::unpack((&mut *reader).take(size), &tree, xattr, owners).map_err(failed)?;
        if done.measured.diff_id != row.digest {
            return Err(damaged(format!("the files of the cache {} have another digest", row.id)));
        }
        skip_padding(reader, size)?;
        dress(&tree, &row, owners)?;
        unpacked.push((tree, row, done.left_out.iter().map(ToString::to_string).collect()));
    }
    let mut imported = Vec::new();
    for (number, (tree, Row { id, platform, .. }, left_out)) in unpacked.into_iter().enumerate() {
        let directory = store.mounts().join(name_of(&id, &platform).hex());
        let path = directory.join("0");
        let failed = |source| stored::Error::Io { action: "put a cache mount at", path: path.clone(), source };
        match std::fs::rename(&path, scratch.path().join(format!("replaced-{number}"))) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error).into()),
            _ => {}
        }
        put(&scratch, (&id, &platform), &tree, &directory, &path).map_err(failed)?;
        imported.push(Imported { id, platform, left_out });
    }
    Ok(imported)
}

fn damaged(reason: impl Into<String>) -> Error {
    Error::Damaged { reason: reason.into() }
}

fn read_table(reader: &mut (dyn Read + Send)) -> Result<Table, Error> {
    let size = read_part(reader, TABLE)?;
    if size > LARGEST_TABLE {
        return Err(damaged(format!("{TABLE} is too large")));
    }
    let mut text = Vec::new();
    (&mut *reader).take(size).read_to_end(&mut text).map_err(|source| Error::Read { source })?;
    skip_padding(reader, size)?;
    let table: Table = serde_json::from_slice(&text).map_err(|error| damaged(format!("{TABLE}: {error}")))?;
    if table.format != FORMAT {
        return Err(damaged(format!("its format is {}, and this strata knows {FORMAT}", table.format)));
    }
    let mut known = std::collections::BTreeSet::new();
    for row in &table.caches {
        let platform: Result<Platform, _> = row.platform.parse();
        // Only the canonical form names the cache that steps use.
        if !platform.is_ok_and(|platform| platform.to_string() == row.platform) {
            return Err(damaged(format!("{:?} is no platform", row.platform)));
        }
        if row.id.is_empty() || !known.insert((&row.id, &row.platform)) {
            return Err(damaged(format!("the id {:?} is empty or comes twice", row.id)));
        }
    }
    Ok(table)
}

/// Reads the header of the part that has to come next; gives its size.
fn read_part(reader: &mut (dyn Read + Send), name: &str) -> Result<u64, Error> {
    let mut block = [0; BLOCK];
    reader.read_exact(&mut block).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
        _ => Error::Read { source: error },
    })?;
    let header = tar::Header::from_byte_slice(&block);
    let right = *header.path_bytes() == *name.as_bytes() && header.entry_type() == tar::EntryType::Regular;
    if !right {
        return Err(damaged(format!("{name} is not where it has to be")));
    }
    header.entry_size().map_err(|_| damaged(format!("the size of {name} is no number")))
}

fn skip_padding(reader: &mut (dyn Read + Send), size: u64) -> Result<(), Error> {
    let mut rest = vec![0; padding(size)];
    reader.read_exact(&mut rest).map_err(|_| damaged("it is cut off"))
}

/// Gives the cache's own directory its owner and mode, which no archive of a layer has.
fn dress(tree: &Path, row: &Row, owners: Owners) -> Result<(), Error> {
    let failed = |action| {
        move |errno: rustix::io::Errno| stored::Error::Io { action, path: tree.to_owned(), source: errno.into() }
    };
    if owners == Owners::Kept {
        rustix::fs::chown(tree, Some(Uid::from_raw(row.uid)), Some(Gid::from_raw(row.gid)))
            .map_err(failed("set the owner of"))?;
    }
    Ok(rustix::fs::chmod(tree, Mode::from_raw_mode(row.mode & 0o7777)).map_err(failed("set the mode of"))?)
}

#[cfg(test)]
mod tests;
