//! What makes no difference to the machine is tested here; the network itself where steps are run, in `tests/e2e`.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test that cannot go on fails")]

use std::ffi::OsStr;

use super::*;

#[test]
fn a_setting_names_a_program_or_turns_it_off() {
    for (text, expected) in [
        (None, Program::InPath),
        (Some(""), Program::InPath),
        (Some("off"), Program::Off),
        (Some("/opt/pasta"), Program::At("/opt/pasta".into())),
    ] {
        assert_eq!(Program::from_setting(text.map(OsStr::new)), expected, "{text:?}");
    }
}

#[test]
fn what_is_not_there_is_named_and_mended() {
    let missing = PrivateNetwork::new(Program::At("/nowhere/pasta".into()));
    let reason = missing.namespace().unwrap_err().to_string();
    assert!(reason.contains("/nowhere/pasta") && reason.contains("passt"), "{reason}");
    assert!(matches!(&*PrivateNetwork::new(Program::Off).namespace().unwrap_err(), Unavailable::Off));
    for program in [Program::At("/nowhere/pasta".into()), Program::At("/proc/self/stat".into()), Program::Off] {
        let finding = probe(&program);
        assert_eq!(finding.condition, Condition::Degraded, "{finding:?}");
        assert!(finding.remedy.is_some(), "{finding:?}");
    }
}

#[test]
fn a_network_that_nobody_asked_for_costs_nothing() {
    let unused = PrivateNetwork::new(Program::InPath);
    unused.end();
    assert!(unused.thread.lock().unwrap().is_none());
}

#[test]
fn what_pasta_says_of_its_failure_is_handed_on() {
    if userns::needed() {
        eprintln!("SKIPPED: a program in the place of pasta: needs root");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("pasta");
    std::fs::write(&program, "#!/bin/sh\necho 'no luck today' >&2\nexit 3\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    match PrivateNetwork::new(Program::At(program)).wait_until_ready() {
        Err(reason) => match &*reason {
            Unavailable::Failed { said } => assert_eq!(said, "no luck today"),
            other => eprintln!("SKIPPED: a program in the place of pasta: {other}"),
        },
        Ok(()) => panic!("a program that fails was taken for one that works"),
    }
}
