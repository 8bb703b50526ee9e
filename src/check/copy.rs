//! `ADD` where `COPY` would do.

use crate::check::step::keyword;
use crate::diagnostic::Diagnostic;
use crate::recipe::{Add, Step};

/// Parts of names that archives have.
const ARCHIVES: [&str; 8] = [".tar", ".tgz", ".tbz", ".txz", ".tzst", ".gz", ".xz", ".zst"];

/// Warns of an `ADD` that neither fetches nor unpacks anything, as far as its words tell.
pub(super) fn add_or_copy(step: &Step, add: &Add, findings: &mut Vec<Diagnostic>) {
    let special = add.checksum.is_some() || add.keep_git_dir.is_some() || add.unpack.is_some();
    if special || !add.files.sources.iter().all(|source| is_plain(&source.value)) {
        return;
    }
    let message = "`ADD` does here what `COPY` does: it neither fetches nor unpacks anything";
    findings.push(Diagnostic::warning("AddInsteadOfCopy", keyword(step, "ADD"), message).help("write COPY"));
}

/// Whether a source is certainly neither an archive nor something to fetch.
fn is_plain(source: &str) -> bool {
    let name = source.trim_end_matches('/').rsplit('/').next().unwrap_or(source).to_lowercase();
    let open = source.contains('$') || name.contains(['*', '?', '[']);
    let remote = source.contains("://") || (source.contains('@') && source.contains(':'));
    !open && !remote && !ARCHIVES.iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_plain_for_certain_counts() {
        for (source, expected) in [
            (".", true),
            ("src/", true),
            ("a.txt", true),
            ("<<EOF", true),
            ("a.tar.gz", false),
            ("rootfs.TAR", false),
            ("*", false),
            ("$FILE", false),
            ("https://example.com/a.txt", false),
            ("git@example.com:a/b.git", false),
        ] {
            assert_eq!(is_plain(source), expected, "{source}");
        }
    }
}
