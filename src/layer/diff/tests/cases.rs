//! What a step does to files, and what of it is in the layer: by name, for both kinds of overlay.

use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

/// What a step starts from: a directory with files in it, two names of one file, and one of each other kind.
fn lower(root: &Path) {
    for directory in ["d/sub/deep", "empty", "other"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    for (path, content) in [("d/one", "one"), ("d/two", "two"), ("d/sub/three", "three"), ("d/sub/deep/four", "4")] {
        fs::write(root.join(path), content).unwrap();
    }
    fs::hard_link(root.join("d/one"), root.join("d/uno")).unwrap();
    symlink("one", root.join("d/link")).unwrap();
    symlink("sub", root.join("d/to-sub")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("d/pipe"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    At::Path(&root.join("d/two")).set(b"user.x", b"1").unwrap();
    for path in describe(root).keys().rev() {
        sample::set_time(&root.join(path), 1_500_000_000, 7);
    }
}

type Step = fn(&Path);

/// What is done, and the layer's entries in their order.
const CASES: &[(&str, Step, &[&str])] = &[
    ("nothing", |_| {}, &[]),
    ("owners that are the owners already", |root| each(root, |path| lchown(path, Some(0), Some(0)).unwrap()), &[]),
    ("modes that are the modes already", |root| each(root, same_mode), &[]),
    ("the same content at the same time", |root| rewrite(&root.join("d/two"), "two"), &[]),
    ("other content at the same time", |root| rewrite(&root.join("d/two"), "owt"), &["d/", "d/two"]),
    (
        "removed and made the same again",
        |root| {
            fs::remove_file(root.join("d/sub/three")).unwrap();
            rewrite(&root.join("d/sub/three"), "three");
        },
        &[],
    ),
    ("a time", |root| sample::set_time(&root.join("d/two"), 1_500_000_000, 8), &["d/", "d/two"]),
    ("a directory's time", |root| sample::set_time(&root.join("d/sub"), 1, 0), &[]),
    ("a link's time", |root| sample::set_time(&root.join("d/link"), 1, 0), &["d/", "d/link"]),
    ("a mode", |root| mode(&root.join("d/two"), 0o4755), &["d/", "d/two"]),
    ("a directory's mode", |root| mode(&root.join("d/sub"), 0o1777), &["d/", "d/sub/"]),
    ("an owner", |root| lchown(root.join("d/link"), Some(5), None).unwrap(), &["d/", "d/link"]),
    ("a group", |root| lchown(root.join("d/pipe"), None, Some(5)).unwrap(), &["d/", "d/pipe"]),
    ("an attribute", |root| At::Path(&root.join("d/two")).set(b"user.x", b"2").unwrap(), &["d/", "d/two"]),
    ("one attribute fewer", |root| At::Path(&root.join("d/two")).remove(b"user.x").unwrap(), &["d/", "d/two"]),
    ("a directory's attribute", |root| At::Path(&root.join("d/sub")).set(b"user.y", b"").unwrap(), &["d/", "d/sub/"]),
    ("a link's target", |root| replace_link(&root.join("d/link"), "two"), &["d/", "d/link"]),
    ("a link made anew", |root| replace_link(&root.join("d/link"), "one"), &[]),
    (
        "made and removed",
        |root| {
            fs::create_dir_all(root.join("d/new/x")).unwrap();
            fs::remove_dir_all(root.join("d/new")).unwrap();
        },
        &[],
    ),
    ("a file removed", |root| fs::remove_file(root.join("d/two")).unwrap(), &["d/", "d/.wh.two"]),
    ("a directory removed", |root| fs::remove_dir_all(root.join("d")).unwrap(), &[".wh.d"]),
    ("one of two names removed", |root| fs::remove_file(root.join("d/uno")).unwrap(), &["d/", "d/.wh.uno"]),
    (
        "a directory emptied",
        |root| {
            fs::remove_file(root.join("d/sub/deep/four")).unwrap();
        },
        &["d/", "d/sub/", "d/sub/deep/", "d/sub/deep/.wh.four"],
    ),
    (
        "a directory made anew, empty",
        |root| {
            fs::remove_dir_all(root.join("d/sub")).unwrap();
            fs::create_dir(root.join("d/sub")).unwrap();
        },
        &["d/", "d/sub/", "d/sub/.wh.deep", "d/sub/.wh.three"],
    ),
    (
        "a directory made anew with one of its names",
        |root| {
            fs::remove_dir_all(root.join("d/sub")).unwrap();
            fs::create_dir(root.join("d/sub")).unwrap();
            fs::write(root.join("d/sub/three"), "another").unwrap();
            fs::write(root.join("d/sub/new"), "").unwrap();
            fs::remove_file(root.join("d/sub/new")).unwrap();
        },
        &["d/", "d/sub/", "d/sub/.wh.deep", "d/sub/three"],
    ),
    (
        "a directory made anew with the same in it",
        |root| {
            fs::remove_dir_all(root.join("d/sub/deep")).unwrap();
            fs::create_dir(root.join("d/sub/deep")).unwrap();
            rewrite(&root.join("d/sub/deep/four"), "4");
        },
        &[],
    ),
    (
        "directories made anew inside one another",
        |root| {
            fs::remove_dir_all(root.join("d")).unwrap();
            fs::create_dir_all(root.join("d/sub")).unwrap();
            fs::write(root.join("d/sub/new"), "").unwrap();
        },
        &[
            "d/",
            "d/.wh.link",
            "d/.wh.one",
            "d/.wh.pipe",
            "d/.wh.to-sub",
            "d/.wh.two",
            "d/.wh.uno",
            "d/sub/",
            "d/sub/.wh.deep",
            "d/sub/.wh.three",
            "d/sub/new",
        ],
    ),
    (
        "a file in place of a directory",
        |root| {
            fs::remove_dir_all(root.join("d/sub")).unwrap();
            fs::write(root.join("d/sub"), "").unwrap();
        },
        &["d/", "d/sub"],
    ),
    (
        "a directory in place of a file",
        |root| {
            fs::remove_file(root.join("d/two")).unwrap();
            fs::create_dir(root.join("d/two")).unwrap();
            fs::write(root.join("d/two/x"), "").unwrap();
        },
        &["d/", "d/two/", "d/two/x"],
    ),
    (
        "a directory in place of a link to one",
        |root| {
            fs::remove_file(root.join("d/to-sub")).unwrap();
            fs::create_dir(root.join("d/to-sub")).unwrap();
        },
        &["d/", "d/to-sub/"],
    ),
    (
        "a file for a moment in place of a directory",
        |root| {
            fs::remove_dir_all(root.join("d/sub/deep")).unwrap();
            fs::write(root.join("d/sub/deep"), "").unwrap();
            fs::remove_file(root.join("d/sub/deep")).unwrap();
            fs::create_dir(root.join("d/sub/deep")).unwrap();
            fs::write(root.join("d/sub/deep/new"), "").unwrap();
        },
        &["d/", "d/sub/", "d/sub/deep/", "d/sub/deep/.wh.four", "d/sub/deep/new"],
    ),
    (
        "a file renamed",
        |root| fs::rename(root.join("d/two"), root.join("other/two")).unwrap(),
        &["d/", "d/.wh.two", "other/", "other/two"],
    ),
    (
        "a file renamed onto another",
        |root| fs::rename(root.join("d/two"), root.join("d/sub/three")).unwrap(),
        &["d/", "d/.wh.two", "d/sub/", "d/sub/three"],
    ),
    (
        "a directory renamed",
        |root| {
            // The kernel refuses, and whoever moves then copies.
            fs::rename(root.join("d/sub/deep"), root.join("other/deep")).unwrap_err();
            fs::create_dir(root.join("other/deep")).unwrap();
            fs::rename(root.join("d/sub/deep/four"), root.join("other/deep/four")).unwrap();
            fs::remove_dir(root.join("d/sub/deep")).unwrap();
        },
        &["d/", "d/sub/", "d/sub/.wh.deep", "other/", "other/deep/", "other/deep/four"],
    ),
    (
        "a new directory renamed onto an old empty one",
        |root| {
            fs::create_dir(root.join("new")).unwrap();
            fs::write(root.join("new/x"), "").unwrap();
            fs::rename(root.join("new"), root.join("empty")).unwrap();
        },
        &["empty/", "empty/x"],
    ),
    (
        "another name for a file",
        |root| fs::hard_link(root.join("d/two"), root.join("other/due")).unwrap(),
        &["other/", "other/due"],
    ),
    (
        "two more names for a file",
        |root| {
            fs::hard_link(root.join("d/one"), root.join("other/a")).unwrap();
            fs::hard_link(root.join("d/one"), root.join("other/b")).unwrap();
        },
        &["other/", "other/a", "other/b -> other/a"],
    ),
    (
        "another name for a file that changes",
        |root| {
            fs::hard_link(root.join("d/two"), root.join("other/due")).unwrap();
            mode(&root.join("other/due"), 0o600);
        },
        &["d/", "d/two", "other/", "other/due -> d/two"],
    ),
    ("one of two names changes", |root| fs::write(root.join("d/uno"), "eins").unwrap(), &["d/", "d/uno"]),
    ("a socket", |root| socket(&root.join("d/socket")), &[]),
    (
        "a socket in place of a file",
        |root| {
            fs::remove_file(root.join("d/two")).unwrap();
            socket(&root.join("d/two"));
        },
        &["d/", "d/.wh.two"],
    ),
    (
        "the root's own mode, owner and time",
        |root| {
            mode(root, 0o700);
            lchown(root, Some(5), Some(5)).unwrap();
            sample::set_time(root, 1, 0);
        },
        &[],
    ),
];

fn each(root: &Path, change: impl Fn(&Path)) {
    describe(root).keys().for_each(|path| change(&root.join(path)));
}

fn same_mode(path: &Path) {
    let found = path.symlink_metadata().unwrap();
    if !found.is_symlink() {
        fs::set_permissions(path, found.permissions()).unwrap();
    }
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn rewrite(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    sample::set_time(path, 1_500_000_000, 7);
}

fn replace_link(path: &Path, target: &str) {
    fs::remove_file(path).unwrap();
    symlink(target, path).unwrap();
    sample::set_time(path, 1_500_000_000, 7);
}

fn socket(path: &Path) {
    drop(std::os::unix::net::UnixListener::bind(path).unwrap());
}

/// The entries of a layer, in their order.
fn entries(tree: &Path, xattr: OverlayXattr) -> Vec<String> {
    let mut bytes = Vec::new();
    archive::write(tree, xattr, Times::default(), &mut bytes).unwrap();
    let mut archive = tar::Archive::new(bytes.as_slice());
    let shown = archive.entries().unwrap().map(|entry| {
        let entry = entry.unwrap();
        let path = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
        match entry.header().entry_type() {
            tar::EntryType::Link => format!("{path} -> {}", entry.link_name().unwrap().unwrap().display()),
            _ => path,
        }
    });
    shown.collect()
}

#[test]
fn layers_have_what_changed_and_nothing_else() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    lower(base.path());
    let lowers = [base.path().to_owned()];
    for xattr in [TRUSTED, OverlayXattr::User] {
        for (what, step, expected) in CASES {
            let overlay = Overlay::over(&lowers, xattr);
            step(&overlay.merged());
            overlay.unmount();
            tidy_over(&overlay.upper(), &lowers, xattr).unwrap();
            assert_eq!(entries(&overlay.upper(), xattr), *expected, "{what}, {xattr:?}");
        }
    }
}

#[test]
fn records_of_an_overlay_in_a_step_are_its_own() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir().unwrap();
    lower(base.path());
    let lowers = [base.path().to_owned()];
    for (xattr, name) in [(TRUSTED, "trusted.overlay.opaque"), (OverlayXattr::User, "user.overlay.opaque")] {
        let overlay = Overlay::over(&lowers, xattr);
        match At::Path(&overlay.merged().join("empty")).set(name.as_bytes(), b"y") {
            // Kernels before 6.7 do not let anything in an overlay have such an attribute.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::PERM) => continue,
            result => result.unwrap(),
        }
        overlay.unmount();
        tidy_over(&overlay.upper(), &lowers, xattr).unwrap();
        let left = Attributes::read(At::Path(&overlay.upper().join("empty")), xattr).unwrap();
        assert_eq!((left.image, left.records), (vec![(name.as_bytes().to_vec(), b"y".to_vec())], vec![]));
        assert_eq!(entries(&overlay.upper(), xattr), ["empty/"], "it is no mark of ours: {xattr:?}");
    }
}
