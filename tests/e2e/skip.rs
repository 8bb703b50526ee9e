//! The only way for a test not to run.
//!
//! A skipped test is announced on the real standard error (not the one the test runner captures) and written to the file
//! that `scripts/test` counts. It returns normally, since the runner knows only passed and failed.

use std::fs::OpenOptions;
use std::io::Write;

/// Announces that the test (or the named part of it) does not run, and why.
pub(crate) fn skip(what: &str, reason: &str) {
    let line = format!("SKIPPED: {what}: {reason}\n");
    let _ = std::io::stderr().write_all(line.as_bytes());
    if let Some(path) = std::env::var_os("STRATA_TEST_SKIPS") {
        let mut file = OpenOptions::new().append(true).create(true).open(path).expect("STRATA_TEST_SKIPS is writable");
        file.write_all(line.as_bytes()).expect("the list of skipped tests is writable");
    }
}

/// Whether these tests run as root.
pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
