//! Mounting by descriptor: a file system is made, set up and mounted without ever having a path.
//!
//! Takes a type and its settings, gives a descriptor of a detached mount that vanishes with it. Never attaches anything
//! to the caller's mount namespace.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, OpenTreeFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

/// `nosuid,nodev,noexec`.
pub(super) const INERT: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NODEV).union(MountAttrFlags::MOUNT_ATTR_NOEXEC);

/// A file system being set up.
#[derive(Debug)]
pub(super) struct Context {
    fd: OwnedFd,
}

impl Context {
    /// Begins one of the type given.
    pub(super) fn open(kind: &CStr) -> io::Result<Self> {
        Ok(Self { fd: fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)? })
    }

    /// Sets `key` to `value`.
    pub(super) fn set(&self, key: &CStr, value: &CStr) -> io::Result<()> {
        Ok(fsconfig_set_string(&self.fd, key, value)?)
    }

    /// Sets `key`, which takes no value.
    pub(super) fn flag(&self, key: &CStr) -> io::Result<()> {
        Ok(fsconfig_set_flag(&self.fd, key)?)
    }

    /// Sets the SELinux label of everything in it, if there is to be one.
    pub(super) fn label(&self, label: Option<&CStr>) -> io::Result<()> {
        label.map_or(Ok(()), |label| self.set(c"context", label))
    }

    /// Makes the file system and mounts it, detached.
    pub(super) fn mount(&self, attributes: MountAttrFlags) -> io::Result<OwnedFd> {
        fsconfig_create(&self.fd)?;
        Ok(fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    }

    /// The errors and warnings that the kernel has noted about the attempt, in one line. Allocates.
    pub(super) fn said(&self) -> String {
        let mut words = Vec::new();
        let mut line = [0_u8; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut line) {
            let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default()).trim().to_owned();
            // "e overlay: …": the first letter says how serious it is.
            words.push(text.split_once(' ').map_or(text.clone(), |(_, rest)| rest.to_owned()));
        }
        words.join("; ")
    }
}

/// A detached copy of the mount that `path` below `directory` is on, beginning there. Allocates nothing.
pub(super) fn clone_mount(directory: impl AsFd, path: &CStr, flags: OpenTreeFlags) -> io::Result<OwnedFd> {
    Ok(open_tree(directory, path, flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC)?)
}

/// Attaches a detached mount at the place that `target` stands for. Allocates nothing.
pub(super) fn attach(mount: impl AsFd, target: impl AsFd) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    Ok(move_mount(mount, c"", target, c"", flags)?)
}
