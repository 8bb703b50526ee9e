//! What this test binary does when another test starts it again.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};

use super::*;

pub(super) const ROLE: &str = "STRATA_STORE_TEST_ROLE";
pub(super) const ROOT: &str = "STRATA_STORE_TEST_ROOT";
pub(super) const ARGUMENT: &str = "STRATA_STORE_TEST_ARGUMENT";

#[test]
fn play() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let root = PathBuf::from(std::env::var_os(ROOT).unwrap());
    let argument = std::env::var(ARGUMENT).unwrap_or_default();
    match role.as_str() {
        "count" => count(&root),
        "tag" => tag(&root, &argument),
        "die" => die(&root),
        "tidy" => tidy(&root),
        "stranger" => stranger(&root),
        other => panic!("no role {other}"),
    }
}

/// Adds 25 to a number that only a lock protects.
pub(super) fn count(root: &Path) {
    let store = Store::open(root).unwrap();
    let path = root.join("../number");
    for _ in 0..25 {
        let _lock = store.lock("number", "count", &mut patient).unwrap();
        let number: u32 = std::fs::read_to_string(&path).unwrap().parse().unwrap();
        std::thread::yield_now();
        std::fs::write(&path, (number + 1).to_string()).unwrap();
    }
}

fn tag(root: &Path, name: &str) {
    let store = Store::open(root).unwrap();
    for number in 0..20 {
        let digest = store.put_blob(format!("{name} {number}").as_bytes()).unwrap();
        store.tag(&super::tag::reference(name, &number.to_string()), &super::tag::descriptor(digest)).unwrap();
    }
}

/// Holds everything a process can hold, and waits to be killed.
fn die(root: &Path) {
    let store = Store::open(root).unwrap();
    let _share = store.share(&mut patient).unwrap();
    let _lock = store.lock("step", "run make", &mut patient).unwrap();
    let scratch = store.scratch().unwrap();
    std::fs::write(scratch.dir("upper").unwrap().join("file"), "half").unwrap();
    let mut writer = store.blob_writer().unwrap();
    writer.write_all(&[1; 300_000]).unwrap();
    super::layer::publish(&store, b"killed");
    assert!(store.layer(&super::layer::id(b"killed")).unwrap().is_some());
    std::fs::write(root.join("../ready"), "").unwrap();
    loop {
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// As a user without privileges: everything that a step may leave goes, and a read-only tree becomes a layer.
pub(super) fn tidy(root: &Path) {
    let store = Store::open(root).unwrap();
    let scratch = store.scratch().unwrap();
    let top = scratch.dir("tree").unwrap();
    let outside = root.join("../outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("kept"), "").unwrap();
    let closed = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    for mode in [0o000, 0o111, 0o222, 0o444, 0o555, 0o7777] {
        let directory = top.join(format!("d{mode:o}"));
        std::fs::create_dir_all(directory.join("inner/empty")).unwrap();
        std::fs::write(directory.join("inner/file"), "x").unwrap();
        symlink(&outside, directory.join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::empty(),
            0,
        )
        .unwrap();
        closed(&directory.join("inner"), mode);
        closed(&directory, mode);
    }
    closed(&top, 0o000);
    let path = scratch.path().to_owned();
    scratch.remove().unwrap();
    assert!(!path.exists());
    assert!(outside.join("kept").exists());

    let scratch = store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    closed(&tree, 0o555);
    let meta = super::layer::meta(0);
    let layer = store.publish_layer(&super::layer::id(b"read-only"), &tree, meta).unwrap();
    assert_eq!(layer.tree.metadata().unwrap().permissions().mode() & 0o7777, 0o555);
}

/// As a user without privileges, on a store of somebody else's.
fn stranger(root: &Path) {
    let error = Store::open(root).unwrap_err();
    assert!(matches!(error, Error::Permission { .. }), "{error:?}");
    assert!(error.to_string().contains("STRATA_ROOT"), "{error}");
}
