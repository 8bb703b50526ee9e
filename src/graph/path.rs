//! Paths as recipes write them, made absolute or relative by their text alone.
//!
//! Takes what a word expanded to, gives a path that cannot leave the root it is meant for. Never looks at a file, so a
//! symbolic link in the middle of a path is not seen here.

/// An absolute path without `.`, `..`, doubled or trailing slashes. A relative one counts from `/`.
pub(super) fn clean(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// What `WORKDIR path` makes of the working directory before it. BuildKit keeps an absolute path as it was written,
/// and cleans a relative one while joining it.
pub(super) fn workdir(current: &str, path: &str) -> String {
    if path.starts_with('/') {
        path.to_owned()
    } else if path.is_empty() && current.starts_with('/') {
        current.to_owned()
    } else {
        clean(&format!("{current}/{path}"))
    }
}

/// The destination of a copy: absolute, with a trailing `/` where the word means a directory (`.`, `dir/`, `dir/.`).
pub(super) fn destination(workdir: &str, path: &str) -> String {
    let directory = matches!(path, "" | ".") || path.ends_with('/') || path.ends_with("/.");
    let mut full = if path.starts_with('/') { clean(path) } else { clean(&format!("{workdir}/{path}")) };
    if directory && !full.ends_with('/') {
        full.push('/');
    }
    full
}

/// The source of a copy, relative to the root it is copied from; `.` is that root itself.
pub(super) fn source(path: &str) -> String {
    let cleaned = clean(path);
    match &cleaned[1..] {
        "" => ".".to_owned(),
        inside => inside.to_owned(),
    }
}

/// As [`source`], but the first `/./` stays: for `--parents` it marks where the kept part of the path begins.
pub(super) fn source_with_pivot(path: &str) -> String {
    match path.split_once("/./") {
        Some((above, kept)) if source(above) != "." => format!("{}/./{}", source(above), source(kept)),
        _ => source(path),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn cleaning_is_final_and_never_climbs(written in "[a./]{0,12}", workdir in "/[a./]{0,8}") {
            let cleaned = clean(&written);
            prop_assert!(cleaned.starts_with('/'));
            prop_assert!(cleaned.split('/').all(|part| part != ".." && part != "."));
            prop_assert_eq!(clean(&cleaned), cleaned.clone());
            prop_assert_eq!(source(&cleaned), source(&written));
            let to = destination(&workdir, &written);
            prop_assert_eq!(destination("/elsewhere", &to), to.clone());
            prop_assert_eq!(clean(&to), if written.starts_with('/') { cleaned } else { clean(&format!("{workdir}/{written}")) });
        }
    }

    #[test]
    fn no_path_leaves_its_root() {
        for (written, expected) in [
            ("", "."),
            ("/", "."),
            ("..", "."),
            ("../../etc/passwd", "etc/passwd"),
            ("a//b/./c/..", "a/b"),
            ("a/", "a"),
        ] {
            assert_eq!(source(written), expected, "{written:?}");
        }
    }

    #[test]
    fn destinations_keep_what_their_slash_says() {
        for (workdir, written, expected) in [
            ("/", ".", "/"),
            ("/app", ".", "/app/"),
            ("/app", "", "/app/"),
            ("/app", "x", "/app/x"),
            ("/app", "x/", "/app/x/"),
            ("/app", "x/.", "/app/x/"),
            ("/app", "..", "/"),
            ("/app", "/../../x", "/x"),
            ("", "x", "/x"),
        ] {
            assert_eq!(destination(workdir, written), expected, "{workdir:?} {written:?}");
        }
    }

    #[test]
    fn working_directories_join() {
        for (current, written, expected) in [
            ("", "a", "/a"),
            ("/a", "b", "/a/b"),
            ("/a", "../b", "/b"),
            ("/a", "/b/", "/b/"),
            ("/a", "", "/a"),
            ("a", "", "/a"),
        ] {
            assert_eq!(workdir(current, written), expected, "{current:?} {written:?}");
        }
    }

    #[test]
    fn the_pivot_survives() {
        for (written, expected) in
            [("a/./b/../c", "a/./c"), ("/./b", "b"), ("a/b", "a/b"), ("../x/./y", "x/./y"), ("./a/./b", "a/./b")]
        {
            assert_eq!(source_with_pivot(written), expected, "{written:?}");
        }
    }
}
