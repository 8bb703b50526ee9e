//! Addresses of what has to be fetched: files over HTTP and git repositories.
//!
//! Takes text, tells addresses from paths, and takes an address of a repository apart as BuildKit does: a fragment
//! `#ref:subdir`, or a query with `ref`, `tag`, `branch`, `subdir`, `checksum` (or `commit`), `keep-git-dir`,
//! `submodules`, `fetch-by-commit` and `mtime`. Never fetches anything.

use std::collections::BTreeSet;

use crate::diagnostic::nearest;

/// How a source that is not a path is fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// One file over HTTP, by its whole address.
    Http(String),
    /// A git repository.
    Git(GitAddress),
}

/// A repository, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct GitAddress {
    /// What git is given: the address without query and fragment.
    pub remote: String,
    /// A branch, a tag, a whole name such as `refs/pull/1/head`, or a commit; the remote's `HEAD` where absent.
    pub reference: Option<String>,
    /// The directory wanted, relative to the repository's root.
    pub subdir: Option<String>,
    /// What the commit's id has to begin with.
    pub checksum: Option<String>,
    /// Whether `.git` is wanted too.
    pub keep_git_dir: bool,
    /// Whether submodules are left out.
    pub without_submodules: bool,
    /// Whether the commit that `checksum` names whole is fetched, whatever the reference stands for by now.
    pub fetch_by_commit: bool,
    /// What times the files get, where the address says so.
    pub times: Option<CheckoutTimes>,
}

/// What times the files of a repository get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum CheckoutTimes {
    /// That of the checkout.
    Checkout,
    /// That of the commit.
    Commit,
}

/// The keys that a query may have.
const KEYS: [&str; 10] =
    ["ref", "tag", "branch", "subdir", "checksum", "commit", "keep-git-dir", "submodules", "fetch-by-commit", "mtime"];

/// Why an address of a repository cannot be used.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not the address of a git repository: {reason}")]
pub struct ParseError {
    /// The address as written.
    pub text: String,
    /// What is wrong with it.
    pub reason: String,
}

/// Reads a source; `None` for a path. Over HTTP only a path that ends in `.git` is a repository; `user@host:path`,
/// `ssh://` and `git://` always are.
///
/// # Errors
/// If it is the address of a repository with a query that is not understood.
pub fn parse(text: &str) -> Result<Option<Remote>, ParseError> {
    if text.starts_with("http://") || text.starts_with("https://") {
        let end = text.find(['?', '#']).unwrap_or(text.len());
        return match text[..end].ends_with(".git") {
            true => git(text).map(|address| Some(Remote::Git(address))),
            false => Ok(Some(Remote::Http(text.to_owned()))),
        };
    }
    if text.starts_with("git://") || text.starts_with("ssh://") || is_scp_like(text) {
        return git(text).map(|address| Some(Remote::Git(address)));
    }
    Ok(None)
}

/// `user@host:path`
fn is_scp_like(text: &str) -> bool {
    let plain = |text: &str, extra: &str| {
        !text.is_empty() && text.chars().all(|character| character.is_ascii_alphanumeric() || extra.contains(character))
    };
    text.split_once('@').is_some_and(|(user, rest)| {
        rest.split_once(':').is_some_and(|(host, _)| plain(user, "-_") && plain(host, "-."))
    })
}

fn git(text: &str) -> Result<GitAddress, ParseError> {
    let fail = |reason: String| ParseError { text: text.to_owned(), reason };
    let (rest, fragment) = match text.split_once('#') {
        Some((rest, fragment)) => (rest, Some(fragment)),
        None => (text, None),
    };
    let (remote, query) = match rest.split_once('?') {
        Some((remote, query)) => (remote, query),
        None => (rest, ""),
    };
    let mut address = GitAddress { remote: remote.to_owned(), ..GitAddress::default() };
    let mut given = BTreeSet::new();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        if !given.insert(key) {
            return Err(fail(format!("`{key}` stands twice in its query")));
        }
        address.option(key, &unescaped(value)).map_err(fail)?;
    }
    if let Some(fragment) = fragment {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        if !reference.is_empty() {
            set(&mut address.reference, reference.to_owned(), "ref").map_err(fail)?;
        }
        if !subdir.is_empty() {
            set(&mut address.subdir, subdir.to_owned(), "subdir").map_err(fail)?;
        }
    }
    address.settle_commit().map_err(fail)?;
    if let Some(reference) = &address.reference
        && (reference.starts_with('-') || reference.contains(|c: char| c.is_whitespace() || c.is_control()))
    {
        return Err(fail(format!("{reference:?} cannot be a ref")));
    }
    if address.remote.starts_with('-') || address.remote.contains(|c: char| c.is_whitespace() || c.is_control()) {
        return Err(fail("it holds characters that no address has".to_owned()));
    }
    address.subdir = address.subdir.take().map(|subdir| subdir.trim_matches('/').to_owned()).filter(|s| !s.is_empty());
    if address.subdir.as_ref().is_some_and(|subdir| subdir.split('/').any(|part| part == "..")) {
        return Err(fail("its subdirectory leads out of the repository".to_owned()));
    }
    Ok(address)
}

impl GitAddress {
    fn option(&mut self, key: &str, value: &str) -> Result<(), String> {
        let text = || {
            let named = (!value.is_empty()).then(|| value.to_owned());
            named.ok_or_else(|| format!("`{key}` in its query has no value"))
        };
        let switch = || match value {
            "" => Ok(true),
            value => boolean(value).ok_or_else(|| format!("`{key}={value}` in its query is neither true nor false")),
        };
        match key {
            "ref" => set(&mut self.reference, text()?, "ref"),
            "tag" => set(&mut self.reference, whole_name("refs/tags/", text()?), "ref"),
            "branch" => set(&mut self.reference, whole_name("refs/heads/", text()?), "ref"),
            "subdir" => set(&mut self.subdir, text()?, "subdir"),
            "checksum" | "commit" => set(&mut self.checksum, text()?, "checksum"),
            "keep-git-dir" => switch().map(|on| self.keep_git_dir = on),
            "submodules" => switch().map(|on| self.without_submodules = !on),
            "fetch-by-commit" => switch().map(|on| self.fetch_by_commit = on),
            "mtime" => {
                self.times = Some(match value {
                    "checkout" => CheckoutTimes::Checkout,
                    "commit" => CheckoutTimes::Commit,
                    other => return Err(format!("`mtime={other}` in its query is neither `checkout` nor `commit`")),
                });
                Ok(())
            }
            other => {
                let advice = nearest(other, KEYS).map(|key| format!("; did you mean `{key}`?")).unwrap_or_default();
                Err(format!("`{other}` in its query is not known{advice}"))
            }
        }
    }

    /// A commit that is expected is also what is wanted, where no other ref is.
    fn settle_commit(&mut self) -> Result<(), String> {
        if let Some(checksum) = &mut self.checksum {
            if !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err(format!("{checksum:?} is not the beginning of a commit's id"));
            }
            checksum.make_ascii_lowercase();
        }
        if self.fetch_by_commit && !self.checksum.as_deref().is_some_and(is_commit_id) {
            return Err("`fetch-by-commit` needs a whole commit id as `commit`".to_owned());
        }
        if self.reference.is_none() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }
}

/// Whether a text is a whole commit id, of SHA-1 or SHA-256.
pub fn is_commit_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// What a word such as `true` or `0` says, of those that Go's `strconv.ParseBool` takes.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn whole_name(kind: &str, name: String) -> String {
    if name.starts_with(kind) { name } else { format!("{kind}{name}") }
}

fn set(place: &mut Option<String>, value: String, what: &str) -> Result<(), String> {
    match place {
        Some(earlier) if *earlier != value => {
            Err(format!("it gives two values for its {what}: {earlier:?} and {value:?}"))
        }
        _ => {
            *place = Some(value);
            Ok(())
        }
    }
}

/// Percent-escapes resolved (RFC 3986, 2.1); what is no escape, or no text once resolved, stays as it is.
pub fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped = tail.get(..2).filter(|_| first == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match escaped.filter(|digits| !digits.starts_with('+')).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

/// The name a file fetched from an HTTP address gets: the last part of its path, as BuildKit has it.
pub fn file_name(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let path = rest.split_once('/').map_or("", |(_, path)| path).trim_end_matches('/');
    match unescaped(path.rsplit('/').next().unwrap_or_default()).rsplit('/').next() {
        None | Some("" | "." | "..") => "__unnamed__".to_owned(),
        Some(name) if name.contains('\0') => "__unnamed__".to_owned(),
        Some(name) => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_sources_are_told_from_paths() {
        for (source, expected) in [
            ("https://example.com/a.tar.gz", "http"),
            ("https://example.com/a.git", "git"),
            ("https://example.com/a.git?ref=v1#:x", "git"),
            ("git@example.com:a/b", "git"),
            ("ssh://git@example.com/a", "git"),
            ("github.com/a/b", "path"),
            ("a/b", "path"),
            ("a@b", "path"),
            ("dir/a@b:c", "path"),
        ] {
            let found = match parse(source) {
                Ok(Some(Remote::Http(_))) => "http",
                Ok(Some(Remote::Git(_))) => "git",
                Ok(None) => "path",
                Err(_) => "error",
            };
            assert_eq!(found, expected, "{source}");
        }
    }

    #[test]
    fn repositories_are_taken_apart() {
        let git = |text: &str| match parse(text) {
            Ok(Some(Remote::Git(address))) => Ok((address.reference, address.subdir, address.checksum)),
            Ok(_) => panic!("{text} is a repository"),
            Err(error) => Err(error.reason),
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(git("https://h/a.git"), Ok((None, None, None)));
        assert_eq!(git("https://h/a.git#v1:sub/dir/"), Ok((some("v1"), some("sub/dir"), None)));
        assert_eq!(git("https://h/a.git#:sub"), Ok((None, some("sub"), None)));
        assert_eq!(git("https://h/a.git?tag=v1&subdir=%2Fx"), Ok((some("refs/tags/v1"), some("x"), None)));
        assert_eq!(git("git://h/a?branch=b&commit=abc"), Ok((some("refs/heads/b"), None, some("abc"))));
        assert_eq!(git("git://h/a?commit=ABC"), Ok((some("abc"), None, some("abc"))), "it is what is wanted");
        assert_eq!(git("git://h/a?tag=refs/tags/v1#refs/tags/v1"), Ok((some("refs/tags/v1"), None, None)));
        for (wrong, reason) in [
            ("?ref=a#b", "two values"),
            ("?tag=a&branch=a", "two values"),
            ("?ref=a&ref=a", "twice"),
            ("?nonsense=1", "`nonsense` in its query is not known"),
            ("?submodule=0", "did you mean `submodules`?"),
            ("?keep_git_dir=1", "did you mean `keep-git-dir`?"),
            ("?ref", "no value"),
            ("?commit=nothex", "commit's id"),
            ("?fetch-by-commit=1&ref=a", "whole commit id"),
            ("?mtime=now", "neither `checkout` nor `commit`"),
            ("#--upload-pack=x", "cannot be a ref"),
            ("#a:../x", "leads out"),
            ("?subdir=a/../../x", "leads out"),
            ("?keep-git-dir=maybe", "neither true nor false"),
        ] {
            let found = git(&format!("https://h/a.git{wrong}"));
            assert!(found.as_ref().is_err_and(|text| text.contains(reason)), "{wrong}: {found:?}");
        }
    }

    #[test]
    fn every_key_is_understood() {
        let id = "0123456789".repeat(4);
        let text = format!("https://h/a.git?submodules=F&keep-git-dir&mtime=commit&fetch-by-commit=true&commit={id}");
        let Ok(Some(Remote::Git(address))) = parse(&text) else { panic!("{text} is a repository") };
        assert!(address.without_submodules && address.keep_git_dir && address.fetch_by_commit);
        assert_eq!((address.times, address.checksum), (Some(CheckoutTimes::Commit), Some(id)));
    }

    #[test]
    fn commit_ids_are_whole() {
        assert!(is_commit_id(&"a1".repeat(20)));
        assert!(!is_commit_id("a1b2c3d"));
        assert!(!is_commit_id(&"A1".repeat(20)));
    }

    #[test]
    fn files_are_named_by_their_address() {
        for (address, expected) in [
            ("https://h/a/b.tgz?x=/y#z", "b.tgz"),
            ("https://h/a/", "a"),
            ("https://h/a%20b", "a b"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/a%2F..", "__unnamed__"),
        ] {
            assert_eq!(file_name(address), expected, "{address}");
        }
    }
}
