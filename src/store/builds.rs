//! `builds/`: what is kept of every build, one directory each, named by the build's id.
//!
//! Takes and gives files that are only ever appended to: `build.jsonl`, what happened, and `<step>.log`, what a step wrote.
//! (`journal` knows what stands in them.) A process holds a lock on its build's directory (the directory itself is locked,
//! `flock(2)`) as long as it builds, so that a build that was killed can be told from one that runs. Nothing waits for the
//! disk: what a killed process appended is there, and after a loss of power its readers take as much as they can read.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustix::fs::Mode;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use super::Store;
use super::error::Error;
use super::id::Id;
use super::lock;
use super::removal::remove_all;
use super::scratch::lock_directory;

/// The file that says what happened.
const RECORD: &str = "build.jsonl";
/// How the file of a step's output ends.
const LOG_ENDING: &str = ".log";
/// How much of an id people are shown.
const SHORT: usize = 8;

/// Names one build of a store: 32 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BuildId(String);

impl BuildId {
    /// All of it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first digits, which are enough for a person to name it by.
    pub fn short(&self) -> &str {
        self.0.get(..SHORT).unwrap_or(&self.0)
    }
}

impl fmt::Display for BuildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How much of past builds is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// At most so many builds; at least one, the one that is going on.
    pub builds: usize,
    /// At most so many bytes in all, as far as the last build alone does not have more.
    pub bytes: u64,
}

impl Default for Kept {
    fn default() -> Self {
        Self { builds: 100, bytes: 1 << 30 }
    }
}

/// The directory of a build that goes on in this process.
#[derive(Debug)]
pub struct BuildDirectory {
    id: BuildId,
    path: PathBuf,
    record: File,
    /// Holds the lock.
    directory: File,
}

impl BuildDirectory {
    /// The build's id.
    pub fn id(&self) -> &BuildId {
        &self.id
    }

    /// Appends a line to the record. One line is one write, so that a kill leaves it whole or not at all.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn note(&self, line: &[u8]) -> Result<(), Error> {
        let line = [line, b"\n"].concat();
        (&self.record).write_all(&line).map_err(|error| Error::at("write", &self.path.join(RECORD), error))
    }

    /// Opens the file of a step's output for appending; makes it.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn log(&self, step: u64) -> Result<File, Error> {
        let path = self.path.join(format!("{step}{LOG_ENDING}"));
        append(&path)
    }

    /// Puts what was refused about a step's file into words.
    pub fn log_error(&self, step: u64, error: io::Error) -> Error {
        Error::at("write", &self.path.join(format!("{step}{LOG_ENDING}")), error)
    }
}

impl BuildDirectory {
    /// The same for its readers.
    pub fn stored(&self) -> StoredBuild {
        StoredBuild { id: self.id.clone(), path: self.path.clone() }
    }
}

impl Drop for BuildDirectory {
    fn drop(&mut self) {
        let _ = self.directory.unlock();
    }
}

/// A build of this store, past or going on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBuild {
    /// Its id.
    pub id: BuildId,
    path: PathBuf,
}

impl StoredBuild {
    /// The build in a directory of `builds/`.
    pub(super) fn at(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { id: BuildId(name), path: path.to_owned() }
    }

    /// Where its record is; its time is that of the last thing that happened.
    pub(super) fn record_path(&self) -> PathBuf {
        self.path.join(RECORD)
    }

    /// Its record as far as it was written; empty where nothing can be read.
    pub fn record(&self) -> Vec<u8> {
        std::fs::read(self.path.join(RECORD)).unwrap_or_default()
    }

    /// What a step wrote; `None` if it wrote nothing.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn log(&self, step: u64) -> Result<Option<File>, Error> {
        let path = self.path.join(format!("{step}{LOG_ENDING}"));
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::at("open", &path, error)),
        }
    }

    /// Puts what was wrong with a step's file into words.
    pub fn log_error(&self, step: u64, error: io::Error) -> Error {
        Error::at("read", &self.path.join(format!("{step}{LOG_ENDING}")), error)
    }

    /// Whether a living process holds it.
    pub fn is_running(&self) -> bool {
        let Ok(directory) = File::open(&self.path) else { return false };
        // A shared lock, so that two who ask do not take each other for the builder.
        !lock::try_lock(&self.path, directory.try_lock_shared()).unwrap_or(false)
    }

    fn bytes(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(&self.path) else { return 0 };
        entries.flatten().filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
    }

    fn written(&self) -> SystemTime {
        let written = std::fs::metadata(self.path.join(RECORD)).and_then(|metadata| metadata.modified());
        written.unwrap_or(SystemTime::UNIX_EPOCH)
    }
}

impl Store {
    /// Makes the directory of a new build, held by this process.
    ///
    /// # Errors
    /// What the operating system refused. A build can go on without.
    pub fn begin_build(&self) -> Result<BuildDirectory, Error> {
        loop {
            let id = BuildId(Id::random().to_string());
            let path = self.layout.build(&id);
            match rustix::fs::mkdir(&path, Mode::RWXU) {
                Ok(()) => {}
                Err(Errno::EXIST) => continue,
                Err(errno) => return Err(Error::at("create", &path, errno)),
            }
            // Somebody who clears away may see the new directory before it is locked, and take it for a dead one.
            if let Some(directory) = lock_directory(&path)? {
                let record = append(&path.join(RECORD))?;
                return Ok(BuildDirectory { id, path, record, directory });
            }
        }
    }

    /// Every build that is kept, in no order.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn builds(&self) -> Result<Vec<StoredBuild>, Error> {
        let directory = self.layout.builds();
        let fail = |error| Error::at("list", &directory, error);
        let mut builds = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if let Ok(name) = entry.file_name().into_string() {
                builds.push(StoredBuild { id: BuildId(name), path: entry.path() });
            }
        }
        Ok(builds)
    }

    /// Removes what is kept of a build, unless it goes on; whether it did.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn remove_build(&self, build: &StoredBuild) -> Result<bool, Error> {
        let Some(_lock) = lock_directory(&build.path)? else { return Ok(false) };
        remove_all(&build.path).map(|()| true)
    }

    /// Removes the oldest builds until no more are left than are to be kept. `written` is about how many bytes were
    /// added since the last time: where it is little, sizes are not looked at. Never removes one that goes on.
    ///
    /// # Errors
    /// What the operating system refused.
    pub fn trim_builds(&self, kept: Kept, written: u64) -> Result<(), Error> {
        /// So many builds of less than this are no reason to count.
        const LITTLE: u64 = 1 << 20;
        let mut builds = self.builds()?;
        let weighs = written >= LITTLE.min(kept.bytes);
        if builds.len() <= kept.builds && !weighs {
            return Ok(());
        }
        // A tenth more goes than has to, so that not every build looks at the age of every other.
        let most = if builds.len() > kept.builds { kept.builds - kept.builds / 10 } else { kept.builds };
        builds.sort_by_cached_key(|build| std::cmp::Reverse(build.written()));
        let mut bytes = 0_u64;
        for (place, build) in builds.iter().enumerate() {
            if weighs {
                bytes = bytes.saturating_add(build.bytes());
            }
            let too_many = place >= most.max(1) || (bytes > kept.bytes && place > 0);
            // Whoever builds holds the lock, and so do we while we remove.
            if too_many && let Some(_lock) = lock_directory(&build.path)? {
                remove_all(&build.path)?;
            }
        }
        Ok(())
    }
}

fn append(path: &Path) -> Result<File, Error> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
    file.map_err(|error| Error::at("create", path, error))
}
