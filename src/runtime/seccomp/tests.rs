//! The policy as the kernel would judge by it: an interpreter of classic BPF, and Docker's profile as the yardstick.

use std::collections::BTreeSet;
use std::path::Path;

use proptest::prelude::*;
use serde_json::Value;

use super::abi::{AARCH64, ARM, Abi, I386, X86_64};
use super::bpf::{
    Instruction, JUMP, JUMP_ANY_BIT, JUMP_AT_LEAST, JUMP_EQUAL, LOAD, OFFSET_ARCHITECTURE, OFFSET_ARGUMENT,
    OFFSET_NUMBER, RETURN,
};
use super::{assemble_for, program};

const ALLOW: u32 = 0x7fff_0000;
const KILL: u32 = 0x8000_0000;
const EPERM: u32 = 0x0005_0001;
const ENOSYS: u32 = 0x0005_0026;

/// Runs `program` over one call, as the kernel does.
fn judge(program: &[Instruction], audit: u32, number: u32, argument: u64) -> u32 {
    let (mut at, mut accumulator) = (0_usize, 0_u32);
    loop {
        let instruction = program[at];
        at += 1;
        let condition = match instruction.code {
            LOAD => {
                accumulator = match instruction.operand {
                    OFFSET_NUMBER => number,
                    OFFSET_ARCHITECTURE => audit,
                    OFFSET_ARGUMENT => u32::try_from(argument & 0xffff_ffff).unwrap(),
                    other => panic!("load from offset {other}"),
                };
                continue;
            }
            JUMP => {
                at += usize::try_from(instruction.operand).unwrap();
                continue;
            }
            RETURN => return instruction.operand,
            JUMP_EQUAL => accumulator == instruction.operand,
            JUMP_AT_LEAST => accumulator >= instruction.operand,
            JUMP_ANY_BIT => accumulator & instruction.operand != 0,
            other => panic!("unknown operation {other:#x}"),
        };
        at += usize::from(if condition { instruction.jump_true } else { instruction.jump_false });
    }
}

/// What the policy says about a call, without an assembler in between.
fn expected(abi: &Abi, number: u32, argument: u64) -> u32 {
    let argument = argument & 0xffff_ffff;
    let table = abi.table;
    let allowed = match number {
        n if n == table.clone3 => return ENOSYS,
        n if n == table.clone => argument & 0x7e02_0000 == 0,
        n if n == table.personality => [0, 8, 0x20000, 0x20008, 0xffff_ffff].contains(&argument),
        n if n == table.socket => ![38, 40].contains(&argument),
        n => table.allowed.iter().any(|(listed, _)| *listed == n),
    };
    if allowed { ALLOW } else { EPERM }
}

const PAIRS: [[&Abi; 2]; 2] = [[&X86_64, &I386], [&AARCH64, &ARM]];

#[test]
fn every_number_of_every_abi_gets_its_verdict() {
    for pair in PAIRS {
        let program = assemble_for(&pair);
        assert!(program.len() < 4096, "the kernel takes 4096 instructions, this has {}", program.len());
        for abi in pair {
            let numbers = (0..1024).chain(0xf_0000..0xf_0010).chain(0x4000_0000..0x4000_0400).chain([u32::MAX]);
            for number in numbers {
                for argument in [0, 1, 2, 38, 39, 40, 41, 0x1_0000_0026, 0x1000_0000, 0x20008, 0xffff_ffff, u64::MAX] {
                    assert_eq!(
                        judge(&program, abi.audit, number, argument),
                        expected(abi, number, argument),
                        "call {number} of {:#x} with {argument:#x}",
                        abi.audit
                    );
                }
            }
        }
        assert_eq!(judge(&program, 0x1234, 0, 0), KILL, "an unknown architecture");
    }
}

proptest! {
    #[test]
    fn any_call_gets_its_verdict(number in any::<u32>(), argument in any::<u64>(), compat in any::<bool>()) {
        for pair in PAIRS {
            let abi = pair[usize::from(compat)];
            prop_assert_eq!(judge(&assemble_for(&pair), abi.audit, number, argument), expected(abi, number, argument));
        }
    }
}

#[test]
fn dangerous_calls_are_refused_on_the_host() {
    let refused = [
        libc::SYS_mount,
        libc::SYS_umount2,
        libc::SYS_pivot_root,
        libc::SYS_unshare,
        libc::SYS_setns,
        libc::SYS_keyctl,
        libc::SYS_add_key,
        libc::SYS_request_key,
        libc::SYS_bpf,
        libc::SYS_perf_event_open,
        libc::SYS_userfaultfd,
        libc::SYS_io_uring_setup,
        libc::SYS_init_module,
        libc::SYS_finit_module,
        libc::SYS_kexec_load,
        libc::SYS_reboot,
        libc::SYS_swapon,
        libc::SYS_open_by_handle_at,
        libc::SYS_clock_settime,
        libc::SYS_settimeofday,
        libc::SYS_fsopen,
        libc::SYS_move_mount,
        libc::SYS_open_tree,
        libc::SYS_mount_setattr,
        libc::SYS_quotactl,
        libc::SYS_acct,
        libc::SYS_syslog,
    ];
    let audit = super::HOST[0].audit;
    for number in refused {
        assert_eq!(judge(program(), audit, u32::try_from(number).unwrap(), 0), EPERM, "system call {number}");
    }
    for number in [libc::SYS_read, libc::SYS_execve, libc::SYS_chroot, libc::SYS_openat2, libc::SYS_socket] {
        assert_eq!(judge(program(), audit, u32::try_from(number).unwrap(), 2), ALLOW, "system call {number}");
    }
}

#[test]
fn tables_are_in_order() {
    for abi in PAIRS.as_flattened() {
        assert!(abi.table.allowed.is_sorted_by_key(|(number, _)| *number), "{:#x}", abi.audit);
    }
}

/// The reference profile, or `None` with a loud word: it lies beside the project, not in it.
fn reference_profile() -> Option<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = path.ancestors().map(|dir| dir.join("shared/reference/data/docker-seccomp-default.json"));
    let found = found.chain([path.join("../shared/reference/data/docker-seccomp-default.json")]).find(|p| p.exists());
    let Some(found) = found.or_else(|| std::env::var_os("STRATA_SECCOMP_REFERENCE").map(Into::into)) else {
        eprintln!(
            "SKIPPED: Docker's default profile was not found at ../shared/reference/data/docker-seccomp-default.json \
             (nor where $STRATA_SECCOMP_REFERENCE points), so the system-call tables were not compared with it"
        );
        return None;
    };
    Some(serde_json::from_str(&std::fs::read_to_string(found).unwrap()).unwrap())
}

#[test]
fn tables_equal_dockers_default_profile() {
    let Some(profile) = reference_profile() else { return };
    assert_eq!(profile["defaultAction"], "SCMP_ACT_ERRNO");
    assert_eq!(profile["defaultErrnoRet"], 1);
    for (abi, architectures) in [
        (&X86_64, ["amd64", "x32", "x86"].as_slice()),
        (&I386, &["amd64", "x32", "x86"]),
        (&AARCH64, &["arm64", "arm"]),
        (&ARM, &["arm64", "arm"]),
    ] {
        let unconditional = allowed_by(&profile, architectures);
        let listed: BTreeSet<_> = abi.table.allowed.iter().map(|(_, name)| (*name).to_owned()).collect();
        let absent: BTreeSet<_> = abi.table.absent.iter().map(|name| (*name).to_owned()).collect();
        assert!(listed.is_disjoint(&absent));
        assert_eq!(listed.union(&absent).cloned().collect::<BTreeSet<_>>(), unconditional, "{:#x}", abi.audit);
    }
    assert_eq!(conditions(&profile, "socket"), [(38, "SCMP_CMP_LT"), (39, "SCMP_CMP_EQ"), (40, "SCMP_CMP_GT")]);
    assert_eq!(
        conditions(&profile, "personality").iter().map(|(value, _)| *value).collect::<Vec<_>>(),
        [0, 8, 0x20000, 0x20008, 0xffff_ffff]
    );
    assert_eq!(conditions(&profile, "clone")[0], (0x7e02_0000, "SCMP_CMP_MASKED_EQ"));
}

/// The names that the profile allows whatever the arguments, under Docker's default capabilities.
fn allowed_by(profile: &Value, architectures: &[&str]) -> BTreeSet<String> {
    let capabilities: BTreeSet<String> =
        super::super::privilege::DEFAULT_CAPABILITIES.iter_names().map(|(name, _)| format!("CAP_{name}")).collect();
    let strings = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().map(|item| item.as_str().unwrap().to_owned()).collect()
    };
    let rules = profile["syscalls"].as_array().unwrap().iter().filter(|rule| {
        let wanted = strings(&rule["includes"]["caps"]);
        let machines = strings(&rule["includes"]["arches"]);
        rule["action"] == "SCMP_ACT_ALLOW"
            && rule["args"].as_array().is_none_or(Vec::is_empty)
            && wanted.iter().all(|capability| capabilities.contains(capability))
            && (machines.is_empty() || machines.iter().any(|machine| architectures.contains(&machine.as_str())))
            && !strings(&rule["excludes"]["caps"]).iter().any(|capability| capabilities.contains(capability))
    });
    rules.flat_map(|rule| strings(&rule["names"])).collect()
}

/// Value and operator of each condition on the arguments of `name`.
fn conditions<'a>(profile: &'a Value, name: &str) -> Vec<(u64, &'a str)> {
    let rules = profile["syscalls"].as_array().unwrap().iter();
    rules
        .filter(|rule| rule["names"].as_array().unwrap().iter().any(|listed| listed == name))
        .flat_map(|rule| rule["args"].as_array().into_iter().flatten())
        .map(|argument| (argument["value"].as_u64().unwrap(), argument["op"].as_str().unwrap()))
        .collect()
}
