//! Which file a command names, and why it could not be run.
//!
//! Before the run: every path that a search of `PATH` would try, in order, ready for `execve`. After a failure: the
//! words for it, from a look at the file inside the root. Never resolves a path of the image on the host.

use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::OFlags;

use super::inside::open_inside;
use super::{Error, Plan};

/// Searched where the environment has no `PATH`: the value that Docker gives an image without one.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The paths to try for a plan's program, in order.
pub(super) fn candidates(plan: &Plan) -> Result<Vec<CString>, Error> {
    let Some(program) = plan.argv.first() else {
        return Err(Error::Plan { problem: "there is no program to run".to_owned() });
    };
    if program.is_empty() {
        return Err(Error::ProgramNotFound { program: String::new(), path: None });
    }
    if has_slash(program) {
        return Ok(vec![program.clone()]);
    }
    let candidates = search_path(plan).split(|&byte| byte == b':').map(|directory| {
        let directory = if directory.is_empty() { b".".as_slice() } else { directory };
        CString::new([directory, b"/", program.to_bytes()].concat())
    });
    candidates.collect::<Result<_, _>>().map_err(|_| Error::Plan { problem: "PATH has a NUL byte".to_owned() })
}

/// Puts into words why none of the candidates was run: `tried` is the one whose error counts, or `None` if none exists.
pub(super) fn explain(plan: &Plan, root: impl AsFd, tried: Option<&CStr>, source: io::Error) -> Error {
    let program = plan.argv.first().map_or_else(String::new, |program| program.to_string_lossy().into_owned());
    let Some(tried) = tried else {
        let searched = plan.argv.first().is_some_and(|program| !has_slash(program));
        let path = searched.then(|| String::from_utf8_lossy(search_path(plan)).into_owned());
        return Error::ProgramNotFound { program, path };
    };
    let head = read_head(root, &plan.cwd.join(OsStr::from_bytes(tried.to_bytes())));
    let is_no_file = head.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::InvalidInput);
    match source.raw_os_error() {
        Some(libc::ENOENT) => match head.ok().as_deref().and_then(interpreter) {
            Some(interpreter) => Error::InterpreterNotFound { program, interpreter },
            None => Error::NotExecutable { program, problem: "something that it needs is missing".to_owned(), source },
        },
        errno => {
            let problem = match errno {
                Some(libc::EACCES) if is_no_file => "it is not a file".to_owned(),
                Some(libc::EACCES) => "it is not executable for this user".to_owned(),
                Some(libc::ENOEXEC) => format_problem(head.ok().as_deref()),
                Some(libc::E2BIG) => "arguments and environment are larger than the kernel takes".to_owned(),
                _ => "the kernel refused".to_owned(),
            };
            Error::NotExecutable { program, problem, source }
        }
    }
}

fn has_slash(program: &CStr) -> bool {
    program.to_bytes().contains(&b'/')
}

fn search_path(plan: &Plan) -> &[u8] {
    plan.env.iter().find_map(|variable| variable.to_bytes().strip_prefix(b"PATH=")).unwrap_or(DEFAULT_PATH)
}

/// The first bytes of a program: enough for a `#!` line, the headers of an ELF file and its interpreter's name.
fn read_head(root: impl AsFd, path: &Path) -> io::Result<Vec<u8>> {
    let fd = open_inside(root, path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)?;
    let file = std::fs::File::from(fd);
    if !file.metadata()?.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut head = Vec::new();
    file.take(16384).read_to_end(&mut head)?;
    Ok(head)
}

/// What the kernel has to load to run a program that begins with `head`.
fn interpreter(head: &[u8]) -> Option<String> {
    let name = match head.strip_prefix(b"#!") {
        Some(line) => {
            let line = line.split(|&byte| byte == b'\n').next()?;
            let mut words = line.split(|byte| matches!(byte, b' ' | b'\t')).filter(|word| !word.is_empty());
            // A carriage return becomes part of the name; shown as `\r`, it explains itself.
            words.next()?
        }
        None => elf_interpreter(head)?,
    };
    Some(String::from_utf8_lossy(name).escape_default().to_string())
}

/// The `PT_INTERP` segment of an ELF file.
fn elf_interpreter(head: &[u8]) -> Option<&[u8]> {
    const PT_INTERP: u64 = 3;
    let elf = Elf::parse(head)?;
    let (table, size, count) = match elf.wide {
        true => (elf.number(32, 8)?, elf.number(54, 2)?, elf.number(56, 2)?),
        false => (elf.number(28, 4)?, elf.number(42, 2)?, elf.number(44, 2)?),
    };
    let header = (0..count).map(|n| table.saturating_add(n * size)).find(|at| elf.number(*at, 4) == Some(PT_INTERP))?;
    let (start, length) = match elf.wide {
        true => (elf.number(header.checked_add(8)?, 8)?, elf.number(header.checked_add(32)?, 8)?),
        false => (elf.number(header.checked_add(4)?, 4)?, elf.number(header.checked_add(16)?, 4)?),
    };
    let (start, end) = (usize::try_from(start).ok()?, usize::try_from(start.checked_add(length)?).ok()?);
    head.get(start..end)?.split(|&byte| byte == 0).next()
}

/// Why the kernel does not know what to do with a file.
fn format_problem(head: Option<&[u8]>) -> String {
    let machine = head.and_then(Elf::parse).and_then(|elf| elf.number(18, 2));
    match (machine, head) {
        (Some(machine), _) => {
            let name = match machine {
                3 => "x86 (32-bit)",
                20 | 21 => "POWER",
                22 => "s390x",
                40 => "Arm (32-bit)",
                62 => "x86-64",
                183 => "AArch64",
                243 => "RISC-V",
                258 => "LoongArch",
                _ => return format!("it is made for another kind of processor (ELF machine {machine})"),
            };
            format!("it is made for {name}; this host is {}", std::env::consts::ARCH)
        }
        (None, Some([])) => "it is empty".to_owned(),
        (None, _) => "it is neither an ELF file nor a script with a #! line".to_owned(),
    }
}

/// An ELF header.
struct Elf<'a> {
    bytes: &'a [u8],
    wide: bool,
    big: bool,
}

impl<'a> Elf<'a> {
    fn parse(bytes: &'a [u8]) -> Option<Self> {
        let identity = bytes.strip_prefix(b"\x7fELF")?;
        Some(Self { bytes, wide: *identity.first()? == 2, big: *identity.get(1)? == 2 })
    }

    /// The number of `length` bytes at `offset`.
    fn number(&self, offset: u64, length: usize) -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(length)?)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(if self.big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interpreters_are_found() {
        for (head, expected) in [
            (b"#!/bin/sh\necho".as_slice(), Some("/bin/sh")),
            (b"#! /usr/bin/env python3\n", Some("/usr/bin/env")),
            (b"#!/bin/bash\r\n", Some("/bin/bash\\r")),
            (b"#!", None),
            (b"echo", None),
            (b"\x7fELF\x02\x01", None),
        ] {
            assert_eq!(interpreter(head).as_deref(), expected, "{head:?}");
        }
        let shell = std::fs::read("/proc/self/exe").unwrap();
        // Whatever the test binary is linked like, a truncated header must not be misread.
        for length in 0..200 {
            let _ = interpreter(&shell[..length]);
        }
    }

    #[test]
    fn elf_headers_are_read_in_both_widths() {
        let mut wide = vec![0; 200];
        wide[..6].copy_from_slice(b"\x7fELF\x02\x01");
        wide[32] = 64; // program headers
        wide[54] = 56; // their size
        wide[56] = 1; // their count
        wide[64] = 3; // PT_INTERP
        wide[72] = 150; // offset
        wide[96] = 12; // size
        wide[150..162].copy_from_slice(b"/lib/ld.so.1");
        assert_eq!(interpreter(&wide).as_deref(), Some("/lib/ld.so.1"));
        let mut narrow = vec![0; 200];
        narrow[..6].copy_from_slice(b"\x7fELF\x01\x01");
        narrow[28] = 52;
        narrow[42] = 32;
        narrow[44] = 1;
        narrow[52] = 3;
        narrow[56] = 150;
        narrow[68] = 12;
        narrow[150..162].copy_from_slice(b"/lib/ld.so.1");
        assert_eq!(interpreter(&narrow).as_deref(), Some("/lib/ld.so.1"));
        narrow[18] = 183;
        assert!(format_problem(Some(&narrow)).contains("AArch64"));
    }
}
