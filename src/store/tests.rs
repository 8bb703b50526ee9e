//! Tests of the store as its users see it: on a real file system, from threads, and from processes that are this test
//! binary started again in a role.

mod blob;
mod builds;
mod layer;
mod lock;
mod open;
mod record;
mod role;
mod rubbish;
mod scratch;
mod tag;
mod uses;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, UnmountFlags};
use tempfile::TempDir;

use super::*;
use crate::digest::{DiffId, Digest, Key};

/// A store in a directory of its own.
struct Fixture {
    directory: TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        Self { directory, store }
    }

    fn root(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// The same store as another process sees it.
    fn reopen(&self) -> Store {
        Store::open(&self.root()).unwrap()
    }

    /// How many entries a directory of the store has.
    fn count(&self, directory: &str) -> usize {
        names(&self.root().join(directory)).len()
    }
}

fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    names
}

/// Every path below a directory, sorted.
fn walk(directory: &Path) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    let mut open = vec![directory.to_owned()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            paths.push(entry.path());
        }
    }
    paths.sort_unstable();
    paths
}

fn patient(_: &LockOwner) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

fn wait_for(path: &Path) {
    let start = Instant::now();
    while !path.exists() {
        assert!(start.elapsed() < Duration::from_secs(60), "{} did not appear", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Whether this test can run; the one place where a test may not.
fn can(what: &str, possible: bool) -> bool {
    if !possible {
        eprintln!("SKIPPED, NOT TESTED: this test needs {what}");
    }
    possible
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// A small memory file system, as long as this lives.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(flags: MountFlags) -> Self {
        Self::mount_with(flags, c"size=1m,mode=0755")
    }

    fn mount_with(flags: MountFlags, options: &std::ffi::CStr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", flags, options).unwrap();
        Self(directory)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        rustix::mount::unmount(self.0.path(), UnmountFlags::DETACH).unwrap();
    }
}

/// This test binary in a role of [`role`], on a store.
fn respawn(role: &str, root: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "store::tests::role::play", "--nocapture"])
        .env(role::ROLE, role)
        .env(role::ROOT, root)
        .stdout(std::process::Stdio::null());
    command
}
