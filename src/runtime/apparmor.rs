//! The AppArmor profile of a step, on hosts that enforce one.
//!
//! Gives the program that a process is about to run the profile that Docker loads for its containers, where AppArmor is
//! on and that profile is there. Does nothing anywhere else, and never loads a profile: that is the host's business.

use std::ffi::CStr;
use std::io;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

/// Whether the kernel enforces AppArmor profiles.
pub(super) fn is_on() -> bool {
    says_yes(Path::new("/sys/module/apparmor/parameters/enabled"))
}

fn says_yes(setting: &Path) -> bool {
    std::fs::read(setting).is_ok_and(|text| text.starts_with(b"Y"))
}

/// Puts the next program of the calling process under `docker-default`. Allocates nothing.
///
/// A host without that profile is no error: nobody has asked for one there.
pub(super) fn change_on_exec() -> io::Result<()> {
    let attribute = match open_attribute(c"/proc/self/attr/apparmor/exec") {
        // The name before Linux 5.1, when there was one security module for all of these.
        Err(Errno::NOENT) => open_attribute(c"/proc/self/attr/exec")?,
        attribute => attribute?,
    };
    // What an image could put in the way of /proc would take the profile and do nothing.
    if rustix::fs::fstatfs(&attribute)?.f_type != PROC_SUPER_MAGIC {
        return Err(Errno::XDEV.into());
    }
    match rustix::io::write(attribute, b"exec docker-default") {
        Err(Errno::NOENT) => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

fn open_attribute(path: &CStr) -> rustix::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
}

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
