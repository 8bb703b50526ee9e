use std::fs;
use std::os::unix::fs::symlink;

use super::*;
use crate::layer::OverlayXattr;
use crate::layer::view::View;

fn tree(root: &Path) -> View {
    fs::create_dir_all(root.join("usr/lib/deep")).unwrap();
    fs::write(root.join("usr/lib/file"), "").unwrap();
    for (target, link) in [
        ("usr/lib", "lib"),
        ("/usr/lib", "absolute"),
        ("../../../../usr", "out"),
        ("../file", "usr/lib/deep/up"),
        ("loop", "loop"),
        ("missing/place", "dangling"),
        ("lib/deep/up", "chain"),
    ] {
        symlink(target, root.join(link)).unwrap();
    }
    View::over(&[root.to_owned()], OverlayXattr::Trusted).unwrap()
}

#[test]
fn paths_stay_inside() {
    let directory = tempfile::tempdir().unwrap();
    let tree = tree(directory.path());
    for (path, last, real, existing) in [
        ("", Follow::All, "", ""),
        ("/", Follow::All, "", ""),
        ("/..//../.", Follow::All, "", ""),
        ("lib/file", Follow::All, "usr/lib/file", "usr/lib/file"),
        ("/absolute/deep/", Follow::All, "usr/lib/deep", "usr/lib/deep"),
        ("out/lib/file", Follow::All, "usr/lib/file", "usr/lib/file"),
        ("chain", Follow::All, "usr/lib/file", "usr/lib/file"),
        ("chain", Follow::Parents, "chain", "chain"),
        ("lib/deep/up", Follow::Parents, "usr/lib/deep/up", "usr/lib/deep/up"),
        ("lib/../file", Follow::All, "usr/file", "usr"),
        ("lib/new/er", Follow::All, "usr/lib/new/er", "usr/lib"),
        ("lib/new/../file", Follow::All, "usr/lib/file", "usr/lib/file"),
        ("dangling/x", Follow::All, "missing/place/x", ""),
        ("dangling", Follow::Parents, "dangling", "dangling"),
    ] {
        let found = resolve(&tree, Path::new(path), last).unwrap();
        assert_eq!((found.path.as_path(), found.existing.as_path()), (Path::new(real), Path::new(existing)), "{path}");
        assert_eq!(found.entry.is_some(), real == existing, "{path}");
    }
}

#[test]
fn dead_ends_are_errors() {
    let directory = tempfile::tempdir().unwrap();
    let tree = tree(directory.path());
    for (path, expected) in [
        ("loop", rustix::io::Errno::LOOP),
        ("loop/x", rustix::io::Errno::LOOP),
        ("lib/file/x", rustix::io::Errno::NOTDIR),
    ] {
        let error = resolve(&tree, Path::new(path), Follow::All).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(expected.raw_os_error()), "{path}");
    }
}
