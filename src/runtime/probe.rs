//! What this host lets the sandbox do.
//!
//! Looks at the kernel and its settings, gives a list of [`Finding`]s, each with the command that mends it. Changes
//! nothing, needs no privilege, and can be asked for before or after [`enter`](super::userns::enter).

mod confinement;
mod limits;

use std::fs;

use super::cgroup::Usable;
use super::idmap::{ranges, user_name};
use super::sys::{self, EndSignal, Namespaces};
use super::userns;

/// How good something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// As it should be.
    Fine,
    /// Something is lost; the detail says what.
    Degraded,
    /// Nothing can be run without it.
    Missing,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What it is, for example `kernel`.
    pub name: &'static str,
    /// How good it is.
    pub condition: Condition,
    /// What was found, and what that means.
    pub detail: String,
    /// The command or setting that mends it.
    pub remedy: Option<String>,
}

/// The oldest kernel with every system call that is used.
const OLDEST_KERNEL: (u32, u32) = (5, 12);

/// Looks at everything that matters to the sandbox.
#[must_use]
pub fn probe() -> Vec<Finding> {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let filesystems = fs::read_to_string("/proc/filesystems").unwrap_or_default();
    vec![
        kernel(&release),
        user_namespaces(),
        ids(),
        overlay(&filesystems, &release),
        limits::cgroups(&Usable::here(), rustix::process::geteuid().is_root()),
        confinement::seccomp(fs::read_to_string("/proc/sys/kernel/seccomp/actions_avail").ok().as_deref()),
        confinement::landlock(sys::landlock_version()),
        confinement::security_module(),
        git(in_path("git")),
    ]
}

fn finding(name: &'static str, condition: Condition, detail: impl Into<String>, remedy: Option<&str>) -> Finding {
    Finding { name, condition, detail: detail.into(), remedy: remedy.map(str::to_owned) }
}

fn kernel(release: &str) -> Finding {
    match version(release) {
        Some(version) if version >= OLDEST_KERNEL => {
            finding("kernel", Condition::Fine, format!("Linux {release}"), None)
        }
        Some(_) => finding(
            "kernel",
            Condition::Missing,
            format!("Linux {release} lacks calls that the sandbox is made with"),
            Some("boot Linux 5.12 or newer"),
        ),
        None => finding("kernel", Condition::Degraded, format!("the version {release:?} cannot be read"), None),
    }
}

/// Major and minor number of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

fn user_namespaces() -> Finding {
    const NAME: &str = "user namespaces";
    if !userns::needed() && !userns::inside() {
        return finding(NAME, Condition::Fine, "not needed: running as root", None);
    }
    if userns::inside() {
        return finding(NAME, Condition::Fine, "in one already", None);
    }
    // The second call shows whether a security module has taken away what the first one gave.
    let child = sys::clone3(Namespaces::USER, EndSignal::None, || match sys::unshare(Namespaces::UTS) {
        Ok(()) => 0,
        Err(_) => 1,
    });
    let usable = child.and_then(|child| sys::wait(&child.pidfd)).map(|ended| ended.signal.is_none() && ended.code == 0);
    match usable {
        Ok(true) => finding(NAME, Condition::Fine, "available to users", None),
        Ok(false) => {
            let knob = userns::knob();
            finding(NAME, Condition::Missing, "they come without any capability", knob.as_deref())
        }
        Err(error) => finding(NAME, Condition::Missing, format!("cannot be made: {error}"), userns::knob().as_deref()),
    }
}

fn ids() -> Finding {
    const NAME: &str = "id ranges";
    if userns::inside() || !userns::needed() {
        let map = fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
        let count: u64 = map.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).sum();
        return ids_finding(count, "this process");
    }
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name = user_name(&passwd, uid);
    let count = |path| -> u64 {
        let text = fs::read_to_string(path).unwrap_or_default();
        ranges(&text, name, uid).iter().map(|range| u64::from(range.count)).sum()
    };
    let granted = count("/etc/subuid").min(count("/etc/subgid"));
    let user = name.map_or_else(|| uid.to_string(), str::to_owned);
    if granted > 0 && !["newuidmap", "newgidmap"].iter().all(|program| in_path(program)) {
        return finding(
            NAME,
            Condition::Missing,
            format!("{granted} ids are granted to {user}, but newuidmap and newgidmap are not installed"),
            Some("apt-get install uidmap (Fedora: dnf install shadow-utils)"),
        );
    }
    ids_finding(granted + 1, &user)
}

fn ids_finding(count: u64, user: &str) -> Finding {
    const NAME: &str = "id ranges";
    if count >= 65536 {
        return finding(NAME, Condition::Fine, format!("{count} ids"), None);
    }
    finding(
        NAME,
        Condition::Degraded,
        format!("only {count} ids: files and processes of other users of an image cannot exist"),
        Some(&format!("usermod --add-subuids 100000-165535 --add-subgids 100000-165535 {user}")),
    )
}

fn in_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).is_file())
}

fn git(is_there: bool) -> Finding {
    const NAME: &str = "git";
    if is_there {
        return finding(NAME, Condition::Fine, "repositories can be contexts and sources of ADD", None);
    }
    finding(
        NAME,
        Condition::Degraded,
        "not installed: a build with a repository as its context, or in ADD, fails",
        Some("apt-get install git (Fedora: dnf install git)"),
    )
}

fn overlay(filesystems: &str, release: &str) -> Finding {
    const NAME: &str = "overlay";
    if filesystems.lines().any(|line| line.split_whitespace().next_back() == Some("overlay")) {
        return finding(NAME, Condition::Fine, "the kernel has it", None);
    }
    // Mounting loads the module for root; a user cannot cause that.
    let module = format!("/lib/modules/{release}/kernel/fs/overlayfs");
    if fs::exists(module).unwrap_or(false) {
        let condition = if userns::needed() || userns::inside() { Condition::Missing } else { Condition::Fine };
        return finding(NAME, condition, "its module is not loaded", Some("modprobe overlay"));
    }
    finding(
        NAME,
        Condition::Missing,
        "the kernel does not list it",
        Some("modprobe overlay, or a kernel with CONFIG_OVERLAY_FS"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_releases_are_compared_by_number() {
        for (release, condition) in [
            ("6.18.44", Condition::Fine),
            ("5.12.0-1-generic", Condition::Fine),
            ("5.11.22", Condition::Missing),
            ("10.0-rc1", Condition::Fine),
            ("odd", Condition::Degraded),
        ] {
            assert_eq!(kernel(release).condition, condition, "{release}");
        }
    }

    #[test]
    fn everything_that_is_not_fine_says_what_to_do() {
        let found = probe();
        assert_eq!(found.len(), 9);
        for finding in found.iter().chain([
            &ids_finding(1, "alice"),
            &confinement::seccomp(None),
            &git(false),
            &overlay("", "none"),
        ]) {
            assert!(finding.condition == Condition::Fine || finding.remedy.is_some(), "{finding:?}");
        }
    }
}
