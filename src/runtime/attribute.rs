//! The attributes below `/proc` by which a process asks its security module for a profile or label.
//!
//! Takes the name of one, gives it opened for writing. Allocates nothing, so that the process of a step can use it.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

/// Opens one, but nothing that an image has put in the way of `/proc`: that would take the text and do nothing.
pub(super) fn open(path: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let attribute = rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)?;
    match rustix::fs::fstatfs(&attribute)?.f_type {
        PROC_SUPER_MAGIC => Ok(attribute),
        _ => Err(Errno::XDEV),
    }
}
