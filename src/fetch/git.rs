//! Commits of git repositories, by the `git` program.
//!
//! Takes an address, gives the commit it stands for by asking the remote for its refs alone, and the files of the commit
//! when asked. `git` runs without the configuration of user and system, without hooks, without asking anybody for
//! anything, and over http, https, git and ssh only, so that a repository cannot name files of this machine. What it is told
//! of secrets, certificates and proxies (`settings`) is in its environment, never among its arguments. Fetches no more
//! history than the remote makes it.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{AtFlags, Timespec, Timestamps};
use rustix::process::{Pid, Signal, kill_process_group};

use super::settings::shown;
use super::{Error, Fetcher, Kept};
use crate::recipe::remote::{CheckoutTimes, GitAddress, is_commit_id};

/// Settings for every call. Hooks and file-system watchers of a repository are never run; a transfer that stands still
/// for a minute is given up.
const SETTINGS: [&str; 6] = [
    "core.hooksPath=/dev/null",
    "core.fsmonitor=false",
    "init.defaultBranch=main",
    "advice.detachedHead=false",
    "http.lowSpeedLimit=1",
    "http.lowSpeedTime=60",
];

/// How `git` calls `ssh`. That goes by the user's entry in `/etc/passwd`, which in a user namespace is root's; so it is told
/// whose known hosts count. Keys come from the user's agent.
const SSH: &str = "ssh -o BatchMode=yes -o UserKnownHostsFile=\"${HOME:-/root}/.ssh/known_hosts\"";

/// How often a running `git` is looked at.
const TICK: Duration = Duration::from_millis(5);

/// What the shell returns where there is no such program.
const NOT_FOUND: i32 = 127;

/// What is said that git was to do where it fetches submodules.
pub(super) const SUBMODULES: &str = "fetch the submodules of";

/// What an address stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Commit {
    address: GitAddress,
    /// The commit's id.
    id: String,
    /// What is asked of the remote to get it.
    wanted: String,
}

impl Commit {
    /// Names the files.
    pub(super) fn identity(&self) -> String {
        let Self { address, id, .. } = self;
        let subdir = address.subdir.as_deref().unwrap_or_default();
        let modules = if address.without_submodules { " without submodules" } else { "" };
        let times = if address.times == Some(CheckoutTimes::Commit) { " as old as the commit" } else { "" };
        // What is in `.git` depends on more than the commit.
        let kept =
            if address.keep_git_dir { format!(" with {} {}", address.remote, self.wanted) } else { String::new() };
        format!("commit {id} {subdir:?}{modules}{times}{kept}")
    }
}

impl Fetcher<'_> {
    /// The commit an address stands for now. A whole commit id costs no question.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn commit(&self, address: &GitAddress) -> Result<Commit, Error> {
        let reference = address.reference.as_deref().unwrap_or("HEAD");
        let found = if is_commit_id(reference) {
            Found { commit: reference.to_owned(), tag: None, name: reference.to_owned() }
        } else if let Some(checksum) = address.checksum.as_ref().filter(|_| address.fetch_by_commit) {
            // What the ref stands for by now is not asked.
            Found { commit: checksum.clone(), tag: None, name: checksum.clone() }
        } else {
            let peeled = format!("{reference}^{{}}");
            let refs =
                self.git(address, "ask", None, &["ls-remote", "--quiet", "--", &address.remote, reference, &peeled])?;
            find_ref(&refs, reference)
                .ok_or_else(|| Error::UnknownRef { remote: shown(&address.remote), reference: reference.to_owned() })?
        };
        let Found { commit: id, tag, name: wanted } = found;
        match &address.checksum {
            // A tag with a message may be meant itself, or the commit it tags.
            Some(expected) if ![Some(&id), tag.as_ref()].into_iter().flatten().any(|id| id.starts_with(expected)) => {
                Err(Error::WrongCommit { remote: shown(&address.remote), expected: expected.clone(), actual: id })
            }
            _ => Ok(Commit { address: address.clone(), id, wanted }),
        }
    }

    /// The files of a commit. They are fetched once, and kept.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn checkout(&self, commit: &Commit) -> Result<Kept, Error> {
        let name = commit.identity();
        if let Some(kept) = self.kept(&name)? {
            return Ok(kept);
        }
        let scratch = self.store.scratch()?;
        let directory = scratch.dir("repository")?;
        let Commit { address, id, .. } = commit;
        let run = |action, arguments: &[&str]| self.git(address, action, Some(&directory), arguments);
        run("prepare a copy of", &["init", "--quiet", "."])?;
        // Submodules may be named relative to it.
        run("prepare a copy of", &["remote", "add", "origin", &address.remote])?;
        self.fetch(commit, &directory)?;
        run("check out", &["checkout", "--quiet", "--force", "--detach", id])?;
        let time = run("read the commit of", &["show", "--no-patch", "--format=%ct", "HEAD"])?.trim().parse().ok();
        let has_modules = !address.without_submodules && directory.join(".gitmodules").is_file();
        if has_modules {
            run(SUBMODULES, &["submodule", "update", "--quiet", "--init", "--recursive"])?;
        }
        if !address.keep_git_dir {
            remove_git_files(&directory)?;
        }
        let wanted = subdirectory(&directory, commit)?;
        if let Some(time) = time.filter(|_| address.times == Some(CheckoutTimes::Commit)) {
            set_times(&wanted, time)?;
        }
        self.keep(&name, &wanted, time, scratch)
    }

    /// Fetches as little as the remote allows: the commit alone, with its history, or at last everything.
    fn fetch(&self, commit: &Commit, directory: &Path) -> Result<(), Error> {
        let Commit { address, wanted, id } = commit;
        let alone = ["fetch", "--quiet", "--no-tags", "--depth=1", "--", &address.remote, wanted];
        let with_history = ["fetch", "--quiet", "--no-tags", "--", &address.remote, wanted];
        let everything = [
            "fetch",
            "--quiet",
            "--",
            &address.remote,
            "+refs/heads/*:refs/remotes/origin/*",
            "+refs/tags/*:refs/tags/*",
        ];
        let has_it = || {
            let object = format!("{id}^{{commit}}");
            self.git(address, "find the commit in", Some(directory), &["cat-file", "-e", &object]).is_ok()
        };
        let mut failure = None;
        for attempt in [&alone[..], &with_history, &everything] {
            match self.git(address, "fetch", Some(directory), attempt) {
                Ok(_) if has_it() => return Ok(()),
                Ok(_) => {}
                Err(error @ (Error::Cancelled | Error::Git { unreachable: true, .. })) => return Err(error),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.unwrap_or_else(|| Error::UnknownRef { remote: shown(&address.remote), reference: id.clone() }))
    }

    /// Runs `git` and gives what it printed.
    fn git(
        &self,
        address: &GitAddress,
        action: &'static str,
        directory: Option<&Path>,
        arguments: &[&str],
    ) -> Result<String, Error> {
        let remote = || shown(&address.remote);
        let access = self.access(&address.remote)?;
        let start = |source| Error::StartGit { remote: remote(), source };
        let mut command = command(directory, arguments);
        self.tell(&mut command, &address.remote, &access);
        let mut child = command.spawn().map_err(start)?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let (status, printed, said) = std::thread::scope(|scope| {
            let printed = scope.spawn(|| text(stdout));
            let said = scope.spawn(|| text(stderr));
            let status = self.watch(&mut child);
            (status, printed.join().unwrap_or_default(), said.join().unwrap_or_default())
        });
        let status = status.map_err(start)?;
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        match status.code() {
            Some(0) => Ok(printed),
            Some(NOT_FOUND) => Err(Error::NoGit { remote: remote() }),
            _ => Err(access.failure(&address.remote, action, &said)),
        }
    }

    /// Waits for `git`, and ends it with all it started when the build is cancelled.
    fn watch(&self, child: &mut Child) -> std::io::Result<std::process::ExitStatus> {
        let mut killed = false;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            if self.cancel.is_cancelled() && !std::mem::replace(&mut killed, true) {
                // It leads a group of its own; that it is gone already is no trouble.
                let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
            }
            std::thread::sleep(TICK);
        }
    }
}

/// `git` with these arguments, in a clean environment. The shell sets the mask that decides the modes of files.
fn command(directory: Option<&Path>, arguments: &[&str]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "umask 022; exec git \"$@\"", "git"]);
    command.args(SETTINGS.iter().flat_map(|setting| ["-c", *setting]));
    command.args(arguments);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_ALLOW_PROTOCOL", "http:https:git:ssh")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_ASKPASS", "")
        .env("SSH_ASKPASS", "")
        .env("GIT_SSH_COMMAND", SSH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command.current_dir(directory.unwrap_or(Path::new("/")));
    command
}

fn text(stream: Option<impl Read>) -> String {
    let mut bytes = Vec::new();
    // What was read before an error is still worth showing.
    let _ = stream.map(|mut stream| stream.read_to_end(&mut bytes));
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A ref as a remote has it.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    /// The commit it leads to.
    commit: String,
    /// The tag object in between, where there is one.
    tag: Option<String>,
    /// Its whole name.
    name: String,
}

/// Finds a ref in what `git ls-remote` printed. A branch comes before a tag of the same name, as in `git checkout`; a
/// tag with a message stands for the commit it tags.
fn find_ref(printed: &str, reference: &str) -> Option<Found> {
    let refs: Vec<(&str, &str)> = printed.lines().filter_map(|line| line.split_once('\t')).collect();
    let id = |name: &str| refs.iter().find(|(_, found)| *found == name).map(|(id, _)| (*id).to_owned());
    let whole = [
        reference.to_owned(),
        format!("refs/heads/{reference}"),
        format!("refs/tags/{reference}"),
        format!("refs/{reference}"),
    ];
    whole.into_iter().find_map(|name| {
        let found = id(&name);
        match id(&format!("{name}^{{}}")) {
            Some(commit) => Some(Found { commit, tag: found, name }),
            None => Some(Found { commit: found?, tag: None, name }),
        }
    })
}

/// Removes what git keeps for itself in a checkout and in its submodules. Git tracks nothing of that name.
fn remove_git_files(directory: &Path) -> Result<(), Error> {
    let mut directories = vec![directory.to_owned()];
    while let Some(path) = directories.pop() {
        let fail = |source| Error::File { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            let is_directory = entry.file_type().map_err(fail)?.is_dir();
            if entry.file_name() == ".git" {
                let removed = if is_directory {
                    std::fs::remove_dir_all(entry.path())
                } else {
                    std::fs::remove_file(entry.path())
                };
                removed.map_err(|source| Error::File { path: entry.path(), source })?;
            } else if is_directory {
                directories.push(entry.path());
            }
        }
    }
    Ok(())
}

/// Gives a directory and all in it one time.
fn set_times(directory: &Path, seconds: i64) -> Result<(), Error> {
    let time = Timespec { tv_sec: seconds, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    // A list, not recursion: a repository may nest directories deeper than any stack.
    let mut directories = vec![directory.to_owned()];
    while let Some(path) = directories.pop() {
        let fail = |source| Error::File { path: path.clone(), source };
        for entry in std::fs::read_dir(&path).map_err(fail)? {
            let entry = entry.map_err(fail)?;
            if entry.file_type().map_err(fail)?.is_dir() {
                directories.push(entry.path());
            } else {
                let set = rustix::fs::utimensat(rustix::fs::CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW);
                set.map_err(|error| Error::File { path: entry.path(), source: error.into() })?;
            }
        }
        let set = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW);
        set.map_err(|error| Error::File { path: path.clone(), source: error.into() })?;
    }
    Ok(())
}

/// The directory wanted of a checkout. A symbolic link on the way there is none.
fn subdirectory(directory: &Path, commit: &Commit) -> Result<PathBuf, Error> {
    let Some(subdir) = &commit.address.subdir else { return Ok(directory.to_owned()) };
    let mut path = directory.to_owned();
    for part in subdir.split('/').filter(|part| !matches!(*part, "" | ".")) {
        path.push(part);
        if !path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            let (remote, commit, subdir) = (shown(&commit.address.remote), commit.id.clone(), subdir.clone());
            return Err(Error::NoSubdir { remote, subdir, commit });
        }
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refs_are_found_as_git_finds_them() {
        let printed =
            "1\trefs/heads/v1\n2\trefs/tags/v1\n3\trefs/tags/v2\n4\trefs/tags/v2^{}\n5\trefs/heads/x/v3\n6\tHEAD\n";
        let found = |reference: &str| {
            find_ref(printed, reference).map(|Found { commit, tag, name }| {
                assert_eq!(tag.as_deref(), (commit == "4").then_some("3"));
                format!("{commit} {name}")
            })
        };
        assert_eq!(found("v1").as_deref(), Some("1 refs/heads/v1"));
        assert_eq!(found("refs/tags/v1").as_deref(), Some("2 refs/tags/v1"));
        assert_eq!(found("v2").as_deref(), Some("4 refs/tags/v2"));
        assert_eq!(found("HEAD").as_deref(), Some("6 HEAD"));
        assert_eq!(found("v3"), None, "a part of a name is not the name");
    }
}
