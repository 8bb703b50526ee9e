//! Reads the entries of a tar archive one after the other: ustar, GNU, star and PAX put together into plain values.
//!
//! Takes a stream of unknown origin. Gives entries, and their content as it passes. Holds no more than one entry's
//! header in memory and trusts no length in it. Knows nothing of layers or files.

use std::ffi::OsString;
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::header::{self, BLOCK, Raw, XATTR_KEY, typeflag};
use super::pax;
use super::sparse::{self, Part};
use super::unpack::Error;
use super::xattr::Attribute;

/// The largest file that is believed: 16 TiB, more than the file systems take that layers are unpacked to.
const LARGEST_FILE: u64 = 1 << 44;

/// What the keys of PAX records for sparse files begin with.
const SPARSE_KEY: &[u8] = b"GNU.sparse.";

const BAD_MAP: &str = "its map of a sparse file makes no sense";

const TOO_LARGE: &str = "it claims to be larger than 16 TiB";

/// Why the map of a sparse file cannot be had.
enum MapError {
    Malformed,
    Stream(Error),
}

impl From<sparse::Malformed> for MapError {
    fn from(_: sparse::Malformed) -> Self {
        Self::Malformed
    }
}

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// A regular file; its content follows.
    File,
    /// A further name of a file.
    HardLink {
        /// The file's path in the archive.
        target: Vec<u8>,
    },
    /// A symbolic link.
    Symlink {
        /// Where it points.
        target: Vec<u8>,
    },
    /// A character device.
    CharDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A block device.
    BlockDevice {
        /// Major and minor number.
        device: (u32, u32),
    },
    /// A directory.
    Directory,
    /// A named pipe.
    Fifo,
}

/// One entry.
#[derive(Debug, Clone)]
pub(crate) struct ArchiveEntry {
    /// The path as the archive has it.
    pub(crate) name: Vec<u8>,
    /// What it is.
    pub(crate) kind: EntryKind,
    /// Permission bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Last change: seconds and nanoseconds since 1970.
    pub(crate) mtime: (i64, u32),
    /// Extended attributes in the order of the archive.
    pub(crate) xattrs: Vec<Attribute>,
}

impl ArchiveEntry {
    /// The name for people.
    pub(crate) fn shown(&self) -> PathBuf {
        shown(&self.name)
    }
}

/// A path of an archive for people.
pub(crate) fn shown(name: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(name.to_vec()))
}

/// The entries of an archive.
pub(crate) struct Entries<'a, R> {
    input: &'a mut R,
    /// Content of the current entry that was not read yet.
    content: u64,
    /// What fills the content's last block.
    padding: u64,
    /// What is left of a sparse file, last part first; empty for every other entry.
    parts: Vec<Part>,
    /// The current entry's name.
    current: PathBuf,
}

/// What a hole reads as, piece by piece.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What extended headers said about the entry that follows them.
#[derive(Default)]
struct Extended {
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    size: Option<u64>,
    uid: Option<u64>,
    gid: Option<u64>,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<Attribute>,
    sparse: Option<sparse::Records>,
}

impl<'a, R: BufRead> Entries<'a, R> {
    /// Reads from the start of an archive.
    pub(crate) fn new(input: &'a mut R) -> Self {
        Self { input, content: 0, padding: 0, parts: Vec::new(), current: PathBuf::new() }
    }

    /// The next entry; `None` at the archive's end. What was not read of the last entry's content is passed over.
    pub(crate) fn next(&mut self) -> Result<Option<ArchiveEntry>, Error> {
        self.skip_content()?;
        let mut extended = Extended::default();
        let mut extends = false;
        loop {
            let Some(block) = self.header_block()? else {
                return if extends { Err(self.malformed("the archive ends with it")) } else { Ok(None) };
            };
            let raw = header::decode(&block).map_err(|error| self.malformed(error.0))?;
            extends = true;
            match raw.typeflag {
                typeflag::PAX => self.pax(&raw, &mut extended)?,
                // Such a header would speak for all entries after it. Nobody who writes layers means that, and other
                // readers of layers do not heed it either; git puts a commit's id there.
                typeflag::PAX_GLOBAL => drop(self.small_content(&raw)?),
                typeflag::GNU_LONG_NAME => extended.path = Some(self.gnu_text(&raw)?),
                typeflag::GNU_LONG_LINK => extended.link = Some(self.gnu_text(&raw)?),
                typeflag::GNU_SPARSE => return self.old_sparse(raw, extended, &block).map(Some),
                _ => return self.assemble(raw, extended).map(Some),
            }
        }
    }

    /// The content of the current entry, piece by piece; empty at its end. Holes of a sparse file are zeros.
    pub(crate) fn content(&mut self) -> Result<&[u8], Error> {
        let most = match self.parts.last() {
            Some(Part::Hole(left)) => {
                return Ok(&ZEROS[..usize::try_from(*left).map_or(ZEROS.len(), |left| left.min(ZEROS.len()))]);
            }
            Some(Part::Content(left)) => *left,
            None => self.content,
        };
        let available = self.input.fill_buf().map_err(|source| Error::Stream { source })?;
        if available.is_empty() && self.content > 0 {
            return Err(Error::Truncated { entry: self.current.clone() });
        }
        let length = usize::try_from(most).map_or(available.len(), |left| left.min(available.len()));
        Ok(&available[..length])
    }

    /// Counts bytes of [`Self::content`] as read.
    pub(crate) fn consume(&mut self, length: usize) {
        if let Some(part) = self.parts.last_mut() {
            let is_hole = matches!(part, Part::Hole(_));
            let (Part::Hole(left) | Part::Content(left)) = part;
            *left -= length as u64;
            if *left == 0 {
                self.parts.pop();
            }
            if is_hole {
                return;
            }
        }
        self.input.consume(length);
        self.content -= length as u64;
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        self.parts.clear();
        self.content += std::mem::take(&mut self.padding);
        loop {
            let length = self.content()?.len();
            if length == 0 {
                return Ok(());
            }
            self.consume(length);
        }
    }

    /// The next block that is a header. The archive ends with two blocks of zeros; one, or none, is accepted if the
    /// stream ends there too.
    fn header_block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let Some(block) = self.block()? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block()? {
            Some(second) if second != [0; BLOCK] => Err(self.malformed("a block of zeros comes before it")),
            _ => Ok(None),
        }
    }

    fn block(&mut self) -> Result<Option<[u8; BLOCK]>, Error> {
        let mut block = [0; BLOCK];
        let mut filled = 0;
        while filled < BLOCK {
            match self.input.read(&mut block[filled..]) {
                Ok(0) if filled == 0 => return Ok(None),
                Ok(0) => return Err(Error::Truncated { entry: self.current.clone() }),
                Ok(length) => filled += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Stream { source }),
            }
        }
        Ok(Some(block))
    }

    /// The content of an entry that speaks of another one.
    fn small_content(&mut self, raw: &Raw) -> Result<Vec<u8>, Error> {
        if raw.size > pax::LARGEST as u64 {
            return Err(self.malformed("its extended header is larger than 1 MiB"));
        }
        self.expect_content(raw.size);
        let mut bytes = Vec::new();
        loop {
            let piece = self.content()?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            bytes.extend_from_slice(piece);
            self.consume(length);
        }
        self.skip_content()?;
        Ok(bytes)
    }

    fn expect_content(&mut self, size: u64) {
        self.content = size;
        self.padding = (BLOCK as u64 - size % BLOCK as u64) % BLOCK as u64;
    }

    fn gnu_text(&mut self, raw: &Raw) -> Result<Vec<u8>, Error> {
        let mut text = self.small_content(raw)?;
        while text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn pax(&mut self, raw: &Raw, extended: &mut Extended) -> Result<(), Error> {
        let records = self.small_content(raw)?;
        let mut rest = records.as_slice();
        while !rest.is_empty() {
            let (key, value) =
                pax::take(&mut rest).ok_or_else(|| self.malformed("its extended header has a bad record"))?;
            self.record(key, value, extended)?;
        }
        Ok(())
    }

    /// Takes in one record. An empty value takes the meaning of the key back (POSIX.1-2017, pax).
    fn record(&self, key: &[u8], value: &[u8], extended: &mut Extended) -> Result<(), Error> {
        if let Some(name) = key.strip_prefix(XATTR_KEY) {
            if name.is_empty() || name.contains(&0) {
                return Err(self.malformed("an extended attribute has no proper name"));
            }
            extended.xattrs.retain(|(known, _)| known != name);
            extended.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        let number = |what| -> Result<Option<u64>, Error> {
            if value.is_empty() {
                return Ok(None);
            }
            pax::number(value).map(Some).ok_or_else(|| self.malformed(what))
        };
        let text = || (!value.is_empty()).then(|| value.to_vec());
        match key {
            b"path" => extended.path = text(),
            b"linkpath" => extended.link = text(),
            b"size" => extended.size = number("its size is not a number")?,
            b"uid" => extended.uid = number("its owner is not a number")?,
            b"gid" => extended.gid = number("its group is not a number")?,
            b"mtime" if value.is_empty() => extended.mtime = None,
            b"mtime" => {
                let time = pax::time(value).ok_or_else(|| self.malformed("its time is not a number"))?;
                extended.mtime = Some(time);
            }
            _ if key.starts_with(SPARSE_KEY) => {
                let records = extended.sparse.get_or_insert_default();
                records.record(&key[SPARSE_KEY.len()..], value).map_err(|_| self.malformed(BAD_MAP))?;
            }
            // Access and change times, user names, comments, and what other programs keep for themselves.
            _ => {}
        }
        Ok(())
    }

    /// A sparse file as GNU's type `S`: the map is in the header and in blocks behind it.
    fn old_sparse(&mut self, raw: Raw, extended: Extended, header: &[u8; BLOCK]) -> Result<ArchiveEntry, Error> {
        let content = extended.size.unwrap_or(raw.size);
        let mut numbers = Vec::new();
        let size = sparse::old_header(header, &mut numbers).map_err(|_| self.malformed(BAD_MAP))?;
        let mut goes_on = sparse::old_header_goes_on(header);
        while goes_on {
            let block = self.block()?.ok_or_else(|| Error::Truncated { entry: self.current.clone() })?;
            goes_on = sparse::old_extension(&block, &mut numbers).map_err(|_| self.malformed(BAD_MAP))?;
        }
        let entry = self.assemble(Raw { typeflag: typeflag::FILE, ..raw }, Extended { sparse: None, ..extended })?;
        self.expect_parts(&numbers, size, content)?;
        Ok(entry)
    }

    /// A sparse file as a PAX header says it, with its content still ahead.
    fn sparse(&mut self, records: &sparse::Records) -> Result<(), Error> {
        let size = records.size.ok_or_else(|| self.unfit(BAD_MAP))?;
        if records.major == 0 {
            return self.expect_parts(&records.numbers, size, self.content);
        }
        let mut left = self.content;
        let map = sparse::leading_map(|| {
            left = left.checked_sub(BLOCK as u64).ok_or(MapError::Malformed)?;
            match self.block() {
                Ok(Some(block)) => Ok(block),
                Ok(None) => Err(MapError::Stream(Error::Truncated { entry: self.current.clone() })),
                Err(error) => Err(MapError::Stream(error)),
            }
        });
        let (numbers, _) = map.map_err(|error| match error {
            MapError::Malformed => self.unfit(BAD_MAP),
            MapError::Stream(error) => error,
        })?;
        self.content = left;
        self.expect_parts(&numbers, size, left)
    }

    fn expect_parts(&mut self, numbers: &[u64], size: u64, content: u64) -> Result<(), Error> {
        if size > LARGEST_FILE {
            return Err(self.unfit(TOO_LARGE));
        }
        self.parts = sparse::parts(numbers, size, content).map_err(|_| self.unfit(BAD_MAP))?;
        Ok(())
    }

    fn assemble(&mut self, raw: Raw, mut extended: Extended) -> Result<ArchiveEntry, Error> {
        let records = extended.sparse.take();
        let name = records.as_ref().and_then(|records| records.name.clone()).or(extended.path).unwrap_or(raw.name);
        self.current = shown(&name);
        let link = extended.link.unwrap_or(raw.link);
        let kind = match raw.typeflag {
            // Before POSIX a directory was a file with a slash at the end.
            typeflag::FILE | typeflag::OLD_FILE if name.ends_with(b"/") => EntryKind::Directory,
            typeflag::FILE | typeflag::OLD_FILE | typeflag::CONTIGUOUS => EntryKind::File,
            typeflag::HARD_LINK => EntryKind::HardLink { target: link },
            typeflag::SYMLINK => EntryKind::Symlink { target: link },
            typeflag::CHAR_DEVICE => EntryKind::CharDevice { device: raw.device },
            typeflag::BLOCK_DEVICE => EntryKind::BlockDevice { device: raw.device },
            typeflag::DIRECTORY => EntryKind::Directory,
            typeflag::FIFO => EntryKind::Fifo,
            _ => return Err(self.unfit("its type is none that an image can hold")),
        };
        // Only a file has content; for other types the size is left over from whatever the writer looked at.
        if matches!(raw.typeflag, typeflag::FILE | typeflag::OLD_FILE | typeflag::CONTIGUOUS) {
            let size = extended.size.unwrap_or(raw.size);
            if size > LARGEST_FILE {
                return Err(self.unfit(TOO_LARGE));
            }
            self.expect_content(size);
            if let Some(records) = records {
                self.sparse(&records)?;
            }
        }
        let id = |number: u64, what| u32::try_from(number).map_err(|_| self.unfit(what));
        let uid = id(extended.uid.unwrap_or(raw.uid), "its owner is larger than any user id")?;
        let gid = id(extended.gid.unwrap_or(raw.gid), "its group is larger than any group id")?;
        let mtime = extended.mtime.unwrap_or((raw.mtime, 0));
        Ok(ArchiveEntry { name, kind, mode: raw.mode, uid, gid, mtime, xattrs: extended.xattrs })
    }

    /// Something is wrong with an entry whose name is not known yet.
    fn malformed(&self, reason: &'static str) -> Error {
        Error::Header { after: self.current.clone(), reason }
    }

    /// Something is wrong with the current entry.
    fn unfit(&self, reason: &'static str) -> Error {
        Error::Refused { entry: self.current.clone(), reason }
    }
}
