//! Which system calls a step may make: an allow-list equal to Docker's default profile, or stricter.
//!
//! Gives one BPF program for the host's two ABIs, made for Docker's default set of capabilities. What is not listed
//! fails with `EPERM`; `clone3` fails with `ENOSYS`, so that C libraries fall back to `clone`, whose flags a filter can
//! see. Stricter than Docker in two places: x32 calls are refused, and `socket` is judged by the 32 bits the kernel
//! looks at. Never reads a profile from disk.

mod aarch64;
mod abi;
mod arm;
pub(super) mod bpf;
mod i386;
#[cfg(test)]
mod tests;
mod x86_64;

use std::sync::OnceLock;

use abi::{Abi, HOST};
use bpf::{Action, Instruction, Segment, assemble};

const EPERM: u16 = 1;
const ENOSYS: u16 = 38;

/// The `CLONE_NEW…` flags of `clone`: cgroup, uts, ipc, user, pid, net and mount namespaces.
const NAMESPACE_FLAGS: u32 = 0x7e02_0000;
/// `AF_ALG`, the kernel's cryptography, and `AF_VSOCK`, which reaches the host of a virtual machine past every
/// namespace.
const REFUSED_FAMILIES: &[u32] = &[38, 40];
/// `PER_LINUX`, `PER_LINUX32`, both also with `UNAME26`, and the question which one is set.
const PERSONALITIES: &[u32] = &[0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The program for this host, put together once.
pub(super) fn program() -> &'static [Instruction] {
    static PROGRAM: OnceLock<Vec<Instruction>> = OnceLock::new();
    PROGRAM.get_or_init(|| assemble_for(&HOST))
}

fn assemble_for(abis: &[&Abi]) -> Vec<Instruction> {
    assemble(&abis.iter().map(|abi| (abi.audit, segments(abi))).collect::<Vec<_>>())
}

/// The policy of one ABI as runs of numbers that are treated alike.
fn segments(abi: &Abi) -> Vec<Segment> {
    let table = abi.table;
    let mut calls: Vec<(u32, Action)> = table.allowed.iter().map(|(number, _)| (*number, Action::Allow)).collect();
    calls.extend([
        (table.clone, Action::AllowWithout(NAMESPACE_FLAGS, EPERM)),
        (table.clone3, Action::Fail(ENOSYS)),
        (table.personality, Action::AllowOnly(PERSONALITIES, EPERM)),
        (table.socket, Action::AllowExcept(REFUSED_FAMILIES, EPERM)),
    ]);
    calls.sort_unstable_by_key(|(number, _)| *number);
    calls.dedup_by_key(|(number, _)| *number);

    let mut segments = vec![Segment { from: 0, action: Action::Fail(EPERM) }];
    let mut next = 0;
    for (number, action) in calls {
        if number != next {
            begin(&mut segments, next, Action::Fail(EPERM));
        }
        begin(&mut segments, number, action);
        next = number + 1;
    }
    begin(&mut segments, next, Action::Fail(EPERM));
    segments
}

/// Begins a segment at `from`, unless the one before does the same or begins there too.
fn begin(segments: &mut Vec<Segment>, from: u32, action: Action) {
    match segments.last_mut() {
        Some(last) if last.action == action => {}
        Some(last) if last.from == from => last.action = action,
        _ => segments.push(Segment { from, action }),
    }
}
