//! An assembler for the classic BPF programs that decide about system calls.
//!
//! Takes, for each ABI, a list of [`Segment`]s (from this number on, do that), gives the instructions: one comparison
//! of the architecture, then a binary search over the segments, about seven comparisons for a whole policy. Knows
//! nothing of which calls are good or bad.

/// One instruction, laid out as the kernel's `struct sock_filter`.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Instruction {
    /// Operation.
    pub code: u16,
    /// Instructions to skip if a comparison holds.
    pub jump_true: u8,
    /// Instructions to skip if it does not.
    pub jump_false: u8,
    /// Constant operand.
    pub operand: u32,
}

/// `ld [k]`: a word of the system call's description into the accumulator.
pub(super) const LOAD: u16 = 0x20;
/// `ja k`: skips `k` instructions.
pub(super) const JUMP: u16 = 0x05;
/// `jeq k`: whether the accumulator equals `k`.
pub(super) const JUMP_EQUAL: u16 = 0x15;
/// `jge k`: whether the accumulator is at least `k`, unsigned.
pub(super) const JUMP_AT_LEAST: u16 = 0x35;
/// `jset k`: whether the accumulator has any bit of `k`.
pub(super) const JUMP_ANY_BIT: u16 = 0x45;
/// `ret k`: the verdict.
pub(super) const RETURN: u16 = 0x06;

/// Where the description has the number of the call.
pub(super) const OFFSET_NUMBER: u32 = 0;
/// Where the description has the architecture.
pub(super) const OFFSET_ARCHITECTURE: u32 = 4;
/// Where the description has the low half of the first argument (both supported architectures are little-endian).
pub(super) const OFFSET_ARGUMENT: u32 = 16;

/// What is done about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    /// It is made.
    Allow,
    /// It fails with this error number.
    Fail(u16),
    /// The process is killed.
    Kill,
    /// Fails with the error number if the low half of the first argument is one of these; made otherwise.
    ///
    /// The kernel reads these arguments as 32-bit numbers, so the high half must not make a difference.
    AllowExcept(&'static [u32], u16),
    /// Made if the low half of the first argument is one of these; fails with the error number otherwise.
    AllowOnly(&'static [u32], u16),
    /// Made if the first argument has none of these bits; fails with the error number otherwise.
    AllowWithout(u32, u16),
}

/// From this system-call number on, up to the next segment, that is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// The first number.
    pub from: u32,
    /// What is done.
    pub action: Action,
}

/// Puts a whole program together: `abis` are audit values with segments, in order of number and starting at 0.
///
/// Calls of an architecture that is not listed kill the process.
pub(super) fn assemble(abis: &[(u32, Vec<Segment>)]) -> Vec<Instruction> {
    let mut program = vec![plain(LOAD, OFFSET_ARCHITECTURE)];
    for (audit, segments) in abis {
        let mut body = vec![plain(LOAD, OFFSET_NUMBER)];
        body.extend(search(segments));
        program.push(Instruction { code: JUMP_EQUAL, jump_true: 1, jump_false: 0, operand: *audit });
        program.push(plain(JUMP, length(&body)));
        program.extend(body);
    }
    program.extend(verdict(Action::Kill));
    program
}

/// A search tree over `segments`; every leaf ends the program.
fn search(segments: &[Segment]) -> Vec<Instruction> {
    let (low, high) = match segments {
        [] => return verdict(Action::Kill),
        [only] => return verdict(only.action),
        more => more.split_at(more.len() / 2),
    };
    let (below, above) = (search(low), search(high));
    let boundary = high.first().map_or(0, |segment| segment.from);
    let mut code = match u8::try_from(below.len()) {
        Ok(skip) => vec![Instruction { code: JUMP_AT_LEAST, jump_true: skip, jump_false: 0, operand: boundary }],
        // Conditional jumps reach 255 instructions, unconditional ones any number.
        Err(_) => vec![
            Instruction { code: JUMP_AT_LEAST, jump_true: 0, jump_false: 1, operand: boundary },
            plain(JUMP, length(&below)),
        ],
    };
    code.extend(below);
    code.extend(above);
    code
}

/// The instructions that end a program with `action`.
fn verdict(action: Action) -> Vec<Instruction> {
    const KILL_PROCESS: u32 = 0x8000_0000;
    const ERRNO: u32 = 0x0005_0000;
    const ALLOW: u32 = 0x7fff_0000;
    let fail = |errno: u16| plain(RETURN, ERRNO | u32::from(errno));
    let allow = plain(RETURN, ALLOW);
    match action {
        Action::Allow => vec![allow],
        Action::Fail(errno) => vec![fail(errno)],
        Action::Kill => vec![plain(RETURN, KILL_PROCESS)],
        Action::AllowExcept(values, errno) => compare(values, allow, fail(errno)),
        Action::AllowOnly(values, errno) => compare(values, fail(errno), allow),
        Action::AllowWithout(bits, errno) => vec![
            plain(LOAD, OFFSET_ARGUMENT),
            Instruction { code: JUMP_ANY_BIT, jump_true: 1, jump_false: 0, operand: bits },
            allow,
            fail(errno),
        ],
    }
}

/// `matched` if the first argument is one of `values`, `otherwise` if not.
fn compare(values: &[u32], otherwise: Instruction, matched: Instruction) -> Vec<Instruction> {
    let mut code = vec![plain(LOAD, OFFSET_ARGUMENT)];
    for value in values {
        code.push(Instruction { code: JUMP_EQUAL, jump_true: 0, jump_false: 1, operand: *value });
        code.push(matched);
    }
    code.push(otherwise);
    code
}

fn plain(code: u16, operand: u32) -> Instruction {
    Instruction { code, jump_true: 0, jump_false: 0, operand }
}

/// How many instructions `code` has; a policy has hundreds, and the kernel takes 4096.
fn length(code: &[Instruction]) -> u32 {
    u32::try_from(code.len()).unwrap_or(u32::MAX)
}
