mod races;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::thread::sleep;
use std::time::Duration;

use super::*;

/// A directory with files, given as (path, content); a path that ends with `/` is a directory.
fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (path, content) in files {
        let path = dir.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.as_os_str().as_bytes().ends_with(b"/") {
            fs::create_dir_all(path).unwrap();
        } else {
            fs::write(path, content).unwrap();
        }
    }
    dir
}

fn open(dir: &Path, ignore: &str, index: Option<&Path>) -> Context {
    let ignore = Ignore::parse(".dockerignore", ignore.as_bytes()).unwrap();
    Context::open(dir, ignore, index.map(Path::to_owned)).unwrap()
}

fn names(context: &Context, path: &str) -> Vec<String> {
    context.names(Path::new(path)).unwrap().into_iter().map(|name| name.into_string().unwrap()).collect()
}

fn content(context: &Context, path: &str) -> ContentId {
    let path = Path::new(path);
    let entry = context.entry(path).unwrap().unwrap();
    context.content_id(path, &entry).unwrap()
}

/// Makes a file old enough to be trusted.
fn age(_: &Path) {
    sleep(Duration::from_millis(60));
}

#[test]
fn ignored_files_are_absent() {
    let dir = tree(&[("a", ""), ("b/c", ""), ("b/d/e", ""), ("node_modules/x/y", ""), ("z/keep/f", ""), ("z/g", "")]);
    let context = open(dir.path(), "node_modules\nb/d\nz\n!z/keep", None);
    assert_eq!(names(&context, ""), ["a", "b", "z"]);
    assert_eq!(names(&context, "b"), ["c"]);
    assert_eq!(names(&context, "z"), ["keep"]);
    assert_eq!(names(&context, "z/keep"), ["f"]);
    for hidden in ["node_modules", "node_modules/x", "b/d", "b/d/e", "z/g"] {
        assert_eq!(context.entry(Path::new(hidden)).unwrap(), None, "{hidden}");
        assert!(context.names(Path::new(hidden)).is_err(), "{hidden}");
        assert!(context.open(Path::new(hidden)).is_err(), "{hidden}");
        assert!(context.hidden_by(Path::new(hidden)).is_some(), "{hidden}");
    }
    assert_eq!(context.hidden_by(Path::new("b/d/e")).map(|p| (p.line, p.text)), Some((2, "b/d".into())));
}

#[test]
fn a_hidden_directory_shows_only_for_what_it_holds() {
    let dir = tree(&[("a/b/x.txt", ""), ("c/d/x.go", ""), ("e/", "")]);
    let context = open(dir.path(), "*\n!**/*.go", None);
    assert_eq!(names(&context, ""), ["c"]);
    assert_eq!(context.entry(Path::new("a")).unwrap(), None);
    assert_eq!(context.entry(Path::new("e")).unwrap(), None);
    assert!(context.entry(Path::new("c/d/x.go")).unwrap().is_some());
}

#[test]
fn an_ignored_directory_is_never_entered() {
    let dir = tree(&[("node_modules/deep/x", ""), ("src/a", "")]);
    let context = open(dir.path(), "**/node_modules\n!src/keep", None);
    names(&context, "");
    names(&context, "src");
    assert!(context.cached(Path::new("node_modules")).is_none());
    assert_eq!(context.entry(Path::new("node_modules/deep/x")).unwrap(), None);
    assert!(context.cached(Path::new("node_modules")).is_none());
}

#[test]
fn entries_are_what_the_disk_has() {
    let dir = tree(&[("f", "12345"), ("g/", "")]);
    fs::set_permissions(dir.path().join("f"), fs::Permissions::from_mode(0o4750)).unwrap();
    fs::hard_link(dir.path().join("f"), dir.path().join("h")).unwrap();
    symlink("/etc/passwd", dir.path().join("link")).unwrap();
    rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe"), 0o600.into()).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(dir.path().join("socket")).unwrap();
    let context = open(dir.path(), "", None);
    assert_eq!(names(&context, ""), ["f", "g", "h", "link", "pipe"]);
    let entry = |path: &str| context.entry(Path::new(path)).unwrap().unwrap();
    let metadata = fs::metadata(dir.path().join("f")).unwrap();
    let file = entry("f");
    assert_eq!((file.kind.clone(), file.mode, file.uid, file.gid), (Kind::File { size: 5 }, 0o4750, 0, 0));
    assert_eq!(file.mtime, (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap()));
    assert_eq!(file.link_group, entry("h").link_group);
    assert!(file.link_group.is_some());
    assert_eq!(entry("g").link_group, None);
    assert_eq!(entry("link").kind, Kind::Symlink { target: "/etc/passwd".into() });
    assert_eq!(entry("pipe").kind, Kind::Fifo);
    assert_eq!(entry("").kind, Kind::Directory);
}

#[test]
fn no_link_leads_outside() {
    let outside = tree(&[("secret", "s"), ("dir/secret", "s")]);
    let dir = tree(&[("a/f", "")]);
    symlink(outside.path().join("secret"), dir.path().join("file")).unwrap();
    symlink(outside.path().join("dir"), dir.path().join("dir")).unwrap();
    symlink("..", dir.path().join("a/up")).unwrap();
    let context = open(dir.path(), "", None);
    for path in ["file", "dir/secret", "a/up/a/f"] {
        assert!(context.open(Path::new(path)).is_err(), "{path}");
    }
    for path in ["dir", "a/up"] {
        assert!(context.names(Path::new(path)).is_err(), "{path}");
    }
    assert_eq!(context.entry(Path::new("dir/secret")).unwrap(), None);
}

#[test]
fn a_directory_swapped_for_a_link_is_not_followed() {
    let outside = tree(&[("f", "secret")]);
    let dir = tree(&[("d/f", "own")]);
    let context = open(dir.path(), "", None);
    assert!(context.entry(Path::new("d/f")).unwrap().is_some());
    fs::rename(dir.path().join("d"), dir.path().join("old")).unwrap();
    symlink(outside.path(), dir.path().join("d")).unwrap();
    assert!(context.open(Path::new("d/f")).is_err());
    assert!(context.xattrs(Path::new("d/f")).is_err());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    assert!(listing::open_step_by_step(context.root.as_fd(), Path::new("d/f"), flags).is_err());
    assert!(listing::open_step_by_step(context.root.as_fd(), Path::new("old/f"), flags).is_ok());
}

#[test]
fn unchanged_files_are_not_read_again() {
    let dir = tree(&[("a", "one"), ("b/c", "two"), ("b/d", "three")]);
    let store = tempfile::tempdir().unwrap();
    let index = store.path().join("index");
    age(dir.path());
    let first = open(dir.path(), "", Some(&index));
    let expected: Vec<_> = ["a", "b/c", "b/d"].map(|path| content(&first, path)).into();
    assert_eq!(first.files_read(), 3);
    assert_eq!(expected[0], blake3::hash(b"one").into());
    content(&first, "a");
    assert_eq!(first.files_read(), 3);
    first.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();

    let second = open(dir.path(), "", Some(&index));
    assert_eq!(["a", "b/c", "b/d"].map(|path| content(&second, path)).as_slice(), expected);
    assert_eq!(second.files_read(), 0);

    fs::write(dir.path().join("b/c"), "TWO").unwrap();
    fs::remove_file(dir.path().join("b/d")).unwrap();
    age(dir.path());
    let third = open(dir.path(), "", Some(&index));
    assert_eq!(content(&third, "b/c"), blake3::hash(b"TWO").into());
    assert_eq!(content(&third, "a"), expected[0]);
    assert_eq!(third.files_read(), 1);
    third.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
    assert!(!fs::read(&index).unwrap().windows(3).any(|part| part == b"b/d"));
}

#[test]
fn a_change_that_keeps_size_and_mtime_is_seen() {
    let dir = tree(&[("a", "one")]);
    let store = tempfile::tempdir().unwrap();
    let index = store.path().join("index");
    age(dir.path());
    let first = open(dir.path(), "", Some(&index));
    content(&first, "a");
    first.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
    let path = dir.path().join("a");
    let modified = fs::metadata(&path).unwrap().modified().unwrap();
    fs::write(&path, "two").unwrap();
    File::options().write(true).open(&path).unwrap().set_modified(modified).unwrap();
    assert_eq!(content(&open(dir.path(), "", Some(&index)), "a"), blake3::hash(b"two").into());
}

#[test]
fn edits_in_a_tight_loop_never_give_a_stale_digest() {
    let dir = tree(&[("a", "")]);
    let store = tempfile::tempdir().unwrap();
    let index = store.path().join("index");
    for round in 0..400 {
        let text = format!("{round:08}");
        fs::write(dir.path().join("a"), &text).unwrap();
        if round % 37 == 0 {
            age(dir.path());
        }
        let context = open(dir.path(), "", Some(&index));
        assert_eq!(content(&context, "a"), blake3::hash(text.as_bytes()).into(), "round {round}");
        context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
        assert_eq!(content(&open(dir.path(), "", Some(&index)), "a"), blake3::hash(text.as_bytes()).into());
    }
}

#[test]
fn attributes_are_remembered_and_the_machines_own_stay_here() {
    let dir = tree(&[("a", "one")]);
    let file = dir.path().join("a");
    for (name, value) in [("user.note", &b"x"[..]), ("user.overlay.opaque", b"y")] {
        if let Err(error) = rustix::fs::setxattr(&file, name, value, rustix::fs::XattrFlags::empty()) {
            eprintln!("NOT TESTED: the file system of the temporary directory has no user attributes: {error}");
            return;
        }
    }
    let store = tempfile::tempdir().unwrap();
    let index = store.path().join("index");
    age(dir.path());
    for _ in 0..2 {
        let context = open(dir.path(), "", Some(&index));
        assert_eq!(context.xattrs(Path::new("a")).unwrap(), [("user.note".into(), b"x".to_vec())]);
        content(&context, "a");
        context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
    }
    let index = Index::load(&index).unwrap();
    let context = open(dir.path(), "", None);
    let stat = context.with_node(Path::new("a"), |node| Ok(node.stat)).unwrap().unwrap();
    let record = index.get(Path::new("a"), &stat).unwrap();
    assert!(record.content.is_some() && record.xattrs.is_some());
}

#[test]
fn much_is_remembered_however_young_it_is() {
    for (files, size) in [(1, 2 << 20), (400, 8 << 10)] {
        let dir = tree(&[]);
        let (index, root) = (dir.path().join("index"), dir.path().join("context"));
        fs::create_dir(&root).unwrap();
        let names: Vec<String> = (0..files).map(|n| n.to_string()).collect();
        for name in &names {
            fs::write(root.join(name), vec![7; size]).unwrap();
        }
        let look = || {
            let context = open(&root, "", Some(&index));
            for name in &names {
                context.xattrs(Path::new(name)).unwrap();
                content(&context, name);
            }
            context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
            context.files_read() * size as u64
        };
        assert_eq!(look(), (files * size) as u64);
        std::thread::sleep(std::time::Duration::from_millis(30));
        assert!(look() <= 1 << 20, "{files} files of {size}");
        assert_eq!(look(), 0);
    }
}

#[test]
fn errors_name_the_context() {
    let error = Context::open(Path::new("/nonexistent"), Ignore::default(), None).unwrap_err();
    assert_eq!(error.to_string(), "cannot open the build context /nonexistent");
    let dir = tree(&[]);
    let error = open(dir.path(), "", None).names(Path::new("x")).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(error.to_string().contains("cannot read x in the build context"), "{error}");
}
