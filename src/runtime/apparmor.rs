//! The AppArmor profile of a step, on hosts that enforce one.
//!
//! Gives the program that a process is about to run the profile that Docker loads for its containers, where AppArmor is
//! on and that profile is there. Does nothing anywhere else, and never loads a profile: that is the host's business.

use std::io;
use std::path::Path;

use rustix::io::Errno;

use super::attribute;
use super::sys::{self, EndSignal, Namespaces};

/// Whether the kernel enforces AppArmor profiles.
pub(super) fn is_on() -> bool {
    says_yes(Path::new("/sys/module/apparmor/parameters/enabled"))
}

fn says_yes(setting: &Path) -> bool {
    std::fs::read(setting).is_ok_and(|text| text.starts_with(b"Y"))
}

/// What came of asking for the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Profile {
    /// The next program will run under it.
    Taken,
    /// The host has none of the name.
    NotLoaded,
}

/// Puts the next program of the calling process under `docker-default`. Allocates nothing.
///
/// A host without that profile is no error: nobody has asked for one there.
pub(super) fn change_on_exec() -> io::Result<Profile> {
    let attribute = match attribute::open(c"/proc/self/attr/apparmor/exec") {
        // The name before Linux 5.1, when there was one security module for all of these.
        Err(Errno::NOENT) => attribute::open(c"/proc/self/attr/exec")?,
        attribute => attribute?,
    };
    match rustix::io::write(attribute, b"exec docker-default") {
        Err(Errno::NOENT) => Ok(Profile::NotLoaded),
        result => Ok(result.map(|_| Profile::Taken)?),
    }
}

/// What a step would get, tried in a process that runs no program. The list of profiles is for root's eyes only.
pub(super) fn try_profile() -> io::Result<Profile> {
    let child = sys::clone3(Namespaces::NONE, EndSignal::None, || match change_on_exec() {
        Ok(Profile::Taken) => 0,
        Ok(Profile::NotLoaded) => NOT_LOADED,
        Err(error) => error.raw_os_error().filter(|errno| *errno != NOT_LOADED).unwrap_or(libc::EIO),
    })?;
    match sys::wait(&child.pidfd)?.code {
        0 => Ok(Profile::Taken),
        NOT_LOADED => Ok(Profile::NotLoaded),
        errno => Err(io::Error::from_raw_os_error(errno)),
    }
}

/// How the child of [`try_profile`] says that there is no profile: the error number that means so.
const NOT_LOADED: i32 = libc::ENOENT;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apparmor_is_on_where_the_kernel_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let setting = directory.path().join("enabled");
        assert!(!says_yes(&setting), "a kernel without AppArmor");
        for (text, on) in [("Y\n", true), ("N\n", false), ("", false)] {
            std::fs::write(&setting, text).unwrap();
            assert_eq!(says_yes(&setting), on, "{text:?}");
        }
    }
}
