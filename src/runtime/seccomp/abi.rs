//! The binary interfaces of the host's kernel that a program in a sandbox may use, and their system calls.
//!
//! Gives one [`Abi`] for the host's own word size and one for 32-bit programs. Data only.

use super::{aarch64, arm, i386, x86_64};

/// The system calls of one ABI that the policy speaks of.
#[derive(Debug)]
pub(super) struct Table {
    /// Number and name of those that are allowed whatever their arguments, in order of number.
    pub allowed: &'static [(u32, &'static str)],
    /// `clone`: allowed unless it makes a namespace.
    pub clone: u32,
    /// `clone3`: said not to exist, since its flags are out of a filter's reach.
    pub clone3: u32,
    /// `personality`: only the harmless ones.
    pub personality: u32,
    /// `socket`: not for every family.
    pub socket: u32,
    /// Names that the policy allows and this ABI does not have.
    #[cfg(test)]
    pub absent: &'static [&'static str],
}

/// One ABI.
#[derive(Debug)]
pub(super) struct Abi {
    /// The `AUDIT_ARCH_…` value by which a filter knows it.
    pub audit: u32,
    /// Its system calls.
    pub table: &'static Table,
}

/// x86-64. Its x32 variant shares the audit value but has bit 30 set in every number, so no number of it is listed.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "kept for the tests, which check every ABI"))]
pub(super) const X86_64: Abi = Abi { audit: 0xc000_003e, table: &x86_64::TABLE };
/// 32-bit programs on x86-64.
#[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "kept for the tests, which check every ABI"))]
pub(super) const I386: Abi = Abi { audit: 0x4000_0003, table: &i386::TABLE };
/// AArch64.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "kept for the tests, which check every ABI"))]
pub(super) const AARCH64: Abi = Abi { audit: 0xc000_00b7, table: &aarch64::TABLE };
/// 32-bit programs on AArch64.
#[cfg_attr(not(target_arch = "aarch64"), allow(dead_code, reason = "kept for the tests, which check every ABI"))]
pub(super) const ARM: Abi = Abi { audit: 0x4000_0028, table: &arm::TABLE };

/// The ABIs of this host: its own, then that of 32-bit programs.
#[cfg(target_arch = "x86_64")]
pub(super) const HOST: [&Abi; 2] = [&X86_64, &I386];
/// The ABIs of this host: its own, then that of 32-bit programs.
#[cfg(target_arch = "aarch64")]
pub(super) const HOST: [&Abi; 2] = [&AARCH64, &ARM];
