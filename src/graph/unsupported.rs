//! What a recipe may say that no part of the engine does yet.
//!
//! Takes a step, reports each such thing at its place with its name. Nothing here is ever ignored in silence; whoever
//! builds one of these deletes its lines here.

use crate::diagnostic::{Diagnostic, Span};
use crate::recipe::{Add, Instruction, Step};

/// Reports what in a step cannot be done yet, as far as it can be seen without expanding variables.
pub(super) fn refuse(step: &Step, findings: &mut Vec<Diagnostic>) {
    if let Instruction::Add(add) = &step.instruction {
        refuse_in_add(add, step.span, findings);
    }
}

fn refuse_in_add(add: &Add, step: Span, findings: &mut Vec<Diagnostic>) {
    if let Some(checksum) = &add.checksum {
        findings.push(not_yet(checksum.span, "`ADD --checksum`"));
    }
    if add.keep_git_dir.is_some() {
        findings.push(not_yet(step, "`ADD --keep-git-dir`"));
    }
    if add.unpack.is_some() {
        findings.push(not_yet(step, "`ADD --unpack`"));
    }
}

/// Reports a source of `ADD` that is fetched from elsewhere.
pub(super) fn remote_source(remote: Remote, span: Span) -> Diagnostic {
    let what = match remote {
        Remote::Http => "`ADD` of a URL",
        Remote::Git => "`ADD` of a git repository",
    };
    not_yet(span, what).help("fetch it before the build, or in a `RUN` step")
}

/// Reports a `SOURCE_DATE_EPOCH` that is not a number: it may name a context or a stage to take the time from.
pub(super) fn epoch(value: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("`SOURCE_DATE_EPOCH={value}` is not a number of seconds since 1970"))
        .help("taking the time from a context or a stage is not supported yet")
}

fn not_yet(span: Span, what: &str) -> Diagnostic {
    Diagnostic::error(span, format!("{what} is not supported yet")).label("not supported yet")
}

/// How a source that is not a path is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// One file over HTTP.
    Http,
    /// A git repository.
    Git,
}

/// Whether a source names something to fetch. Over HTTP only a path that ends in `.git` is a repository; `user@host:path`,
/// `ssh://` and `git://` always are.
pub(super) fn remote(source: &str) -> Option<Remote> {
    if source.starts_with("http://") || source.starts_with("https://") {
        let end = source.find(['?', '#']).unwrap_or(source.len());
        return Some(if source[..end].ends_with(".git") { Remote::Git } else { Remote::Http });
    }
    if source.starts_with("git://") || source.starts_with("ssh://") {
        return Some(Remote::Git);
    }
    let (user, rest) = source.split_once('@')?;
    let (host, _) = rest.split_once(':')?;
    let plain = |text: &str, extra: &str| {
        !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || extra.contains(character))
    };
    (plain(user, "-_") && plain(host, "-.")).then_some(Remote::Git)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        for (source, expected) in [
            ("https://example.com/a.tar.gz", Some(Remote::Http)),
            ("https://example.com/a.git", Some(Remote::Git)),
            ("https://example.com/a.git?ref=v1#x", Some(Remote::Git)),
            ("git@example.com:a/b", Some(Remote::Git)),
            ("ssh://git@example.com/a", Some(Remote::Git)),
            ("github.com/a/b", None),
            ("a/b", None),
            ("a@b", None),
            ("dir/a@b:c", None),
        ] {
            assert_eq!(remote(source), expected, "{source}");
        }
    }
}
