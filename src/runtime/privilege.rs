//! What a process in a sandbox may do beyond what its user may: capabilities, user and groups.
//!
//! Takes an identity, gives the steps that turn a process of Strata's into one of the user's. They run between
//! `clone3` and `execve`, so nothing here allocates.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// Docker's default set.
pub(super) const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// Everything that the caller has, whatever the kernel knows.
pub(super) const fn all_capabilities() -> CapabilitySet {
    CapabilitySet::from_bits_retain(u64::MAX)
}

/// Takes everything but `keep` out of the set that bounds what any program run later can gain.
pub(super) fn limit_bounding_set(keep: CapabilitySet) -> io::Result<()> {
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        if keep.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) => {}
            // The kernel knows no capability of this number, nor any above.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Leaves the process `keep` if it is root, and nothing if it is not; nothing is ever inheritable or ambient.
///
/// Comes after the change of user, which has taken the effective and permitted sets away from anyone but root.
pub(super) fn set_capabilities(uid: u32, keep: CapabilitySet) -> io::Result<()> {
    let effective = if uid == 0 {
        keep.intersection(rustix::thread::capabilities(None)?.permitted)
    } else {
        CapabilitySet::empty()
    };
    rustix::thread::clear_ambient_capability_set()?;
    let sets = CapabilitySets { effective, permitted: effective, inheritable: CapabilitySet::empty() };
    Ok(rustix::thread::set_capabilities(None, sets)?)
}

/// Whether the user namespace lets its processes change their supplementary groups. Allocates.
pub(super) fn may_set_groups() -> bool {
    std::fs::read("/proc/self/setgroups").map_or(true, |answer| !answer.starts_with(b"deny"))
}
