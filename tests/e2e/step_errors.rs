//! What is said of a step that cannot be done: one sentence, its place, and help where there is some.
//!
//! The same for root and for users, except where users have fewer ids.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Who, Workspace};

/// The start of a program for another processor: an ELF header of RISC-V, and nothing else.
const FOREIGN: &[u8] = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0";

/// Instructions after `FROM`, and what is said of the last of them; places are of the instructions alone.
const ROWS: [(&str, &[&str]); 19] = [
    ("COPY fil /", &["\"fil\" not found in the build context", "1:6", "did you mean `file`?"]),
    ("COPY --from=base /etc/passwdd /", &["not found in the stage or image", "1:18", "did you mean `etc/passwd`?"]),
    ("COPY [\"/dir/no\", \"/\"]", &["not found in the build context", "1:8"]),
    ("RUN --mount=type=bind,from=base,source=/nope,target=/m true", &["\"nope\" not found in the stage", "1:40"]),
    ("RUN --mount=type=bind,source=fil,target=/m true", &["not found in the build context", "1:30", "`file`"]),
    ("RUN no-such-program", &["no-such-program: not found", "exit code: 127", "1:1"]),
    ("RUN [\"/no/such/program\"]", &["/no/such/program: not found in the root file system", "1:1"]),
    ("RUN [\"no-such\"]", &["no-such: not found", "PATH is", "1:1"]),
    ("COPY data /\nRUN [\"/data\"]", &["/data: cannot be run: it is not executable", "2:1"]),
    ("COPY script /\nRUN [\"/script\"]", &["its interpreter /no/such/interpreter does not", "2:1"]),
    ("COPY foreign /\nRUN [\"/foreign\"]", &["it is made for", "this host is", "2:1"]),
    ("RUN [\"/etc\"]", &["/etc: cannot be run: it is not a file", "1:1"]),
    ("SHELL [\"/bin/bashh\", \"-c\"]\nRUN true", &["/bin/bashh: not found", "has no /bin/bashh", "JSON form", "2:1"]),
    ("COPY file /f\nWORKDIR /f/x", &["something that is not a directory is there", "/f/x", "2:1"]),
    ("COPY file /f\nCOPY dir /f/", &["/f: something that is not a directory is there", "2:1"]),
    ("RUN mkdir -p /x/f\nCOPY dir /x", &["cannot copy a file to /x/f: a directory is there", "2:1"]),
    ("USER nobody-here\nRUN true", &["no user \"nobody-here\" in /etc/passwd", "2:1"]),
    ("RUN --mount=type=tmpfs,target=/etc/passwd true", &["/etc/passwd: it is not a directory", "1:1"]),
    ("RUN kill -9 $$", &["was ended by signal SIGKILL (9)", "memory", "1:1"]),
];

/// The same of what a user without these ids cannot do; root can.
const IDS: [(&str, &[&str]); 4] = [
    ("COPY --chown=400000:400000 file /x", &["/x cannot belong to 400000:400000", "/etc/subuid", "1:6"]),
    ("USER 400000\nRUN true", &["the ids must be mapped", "/etc/subuid", "2:1"]),
    ("RUN --mount=type=cache,uid=400000,target=/c true", &["the ids must be mapped", "/etc/subuid", "1:1"]),
    ("RUN --mount=type=secret,id=s,uid=400000 true", &["the ids must be mapped", "/etc/subuid", "1:1"]),
];

fn check(who: Who, rows: &[(&str, &[&str])], codes: &[i32]) {
    let workspace = Workspace::of(who.clone());
    workspace.write("file", "x\n");
    workspace.write("dir/f", "y\n");
    workspace.write("data", "x");
    for (name, content) in [("script", b"#!/no/such/interpreter\n".as_slice()), ("foreign", FOREIGN)] {
        fs::set_permissions(workspace.write(name, content), fs::Permissions::from_mode(0o755)).unwrap();
    }
    let secret = format!("--secret=id=s,src={}", workspace.context().join("file").display());
    for (instructions, needles) in rows {
        workspace.dockerfile(&format!("ARG BASE\nFROM $BASE AS base\nRUN true\nFROM $BASE\n{instructions}\n"));
        let finished = workspace.build([&shared().base_argument(), &secret]).run().fails_with_any(codes, &[]);
        // What comes last is the place.
        for needle in *needles {
            let needle = match needle.split_once(':') {
                Some((line, column)) if [line, column].iter().all(|text| text.parse::<usize>().is_ok()) => {
                    format!("Dockerfile:{}:{column}", line.parse::<usize>().unwrap() + 4)
                }
                _ => (*needle).to_owned(),
            };
            assert!(finished.stderr.contains(&needle), "{who:?}: {instructions}: {needle}\n{}", finished.describe());
        }
        workspace.assert_nothing_left();
    }
}

#[test]
fn a_step_that_cannot_be_done_is_explained() {
    check(Who::Caller, &ROWS, &[1]);
}

#[test]
fn users_are_told_the_same_and_which_ids_they_lack() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "step errors: as a user") else { return };
        check(who.clone(), &ROWS, &[1]);
        check(who, &IDS, &[3]);
    }
}

#[test]
fn an_image_without_a_shell_is_named() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\nRUN true\n");
    let said = ["/bin/sh: not found", "the image has no /bin/sh", "JSON form", "Dockerfile:3:1"];
    workspace.build(["-t", "x"]).run().fails(1, &said);
}
