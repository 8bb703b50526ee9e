//! Scratch: private, and gone afterwards.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use rustix::fs::{CWD, IFlags};

use super::*;

#[test]
fn is_private_and_goes_with_its_owner() {
    let fixture = Fixture::new();
    let (one, two) = (fixture.store.scratch().unwrap(), fixture.store.scratch().unwrap());
    assert_ne!(one.path(), two.path());
    assert_eq!(one.path().metadata().unwrap().permissions().mode() & 0o7777, 0o700);
    let upper = one.dir("upper").unwrap();
    assert_eq!(upper.metadata().unwrap().permissions().mode() & 0o7777, 0o755);
    assert!(one.dir("upper").is_err(), "a name is given once");
    std::fs::write(upper.join("file"), "x").unwrap();
    let path = one.path().to_owned();
    drop(one);
    assert!(!path.exists() && two.path().exists());
    let workspace = two.path().parent().unwrap().to_owned();
    drop(two);
    assert!(workspace.exists());
    drop(fixture.store);
    assert!(!workspace.exists());
}

#[test]
fn outlives_the_store_it_came_from() {
    let fixture = Fixture::new();
    let scratch = fixture.store.scratch().unwrap();
    drop(fixture.store);
    Store::open(&fixture.directory.path().join("store")).unwrap().sweep().unwrap().wait();
    assert!(scratch.path().exists());
}

#[test]
fn a_user_without_privileges_removes_closed_directories() {
    let directory = tempfile::tempdir().unwrap();
    if is_root() {
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let status = respawn("tidy", &directory.path().join("store")).uid(65534).gid(65534).status().unwrap();
        assert!(status.success());
    } else {
        role::tidy(&directory.path().join("store"));
    }
}

#[test]
fn any_depth_is_removed() {
    let fixture = Fixture::new();
    let scratch = fixture.store.scratch().unwrap();
    // Deeper than a path may be long, so it is made from the bottom up.
    std::fs::create_dir(scratch.path().join("0")).unwrap();
    for number in 0..1500 {
        let (inner, outer) = (scratch.path().join(number.to_string()), scratch.path().join((number + 1).to_string()));
        std::fs::create_dir(&outer).unwrap();
        std::fs::write(outer.join("file"), "").unwrap();
        std::fs::rename(inner, outer.join("a-name-of-some-length")).unwrap();
    }
    let path = scratch.path().to_owned();
    scratch.remove().unwrap();
    assert!(!path.exists());
}

#[test]
fn immutable_files_are_removed() {
    let fixture = Fixture::new();
    let scratch = fixture.store.scratch().unwrap();
    let inner = scratch.dir("inner").unwrap();
    let paths = [inner.join("file"), inner];
    std::fs::write(&paths[0], "").unwrap();
    let held = |path: &Path| {
        let file = rustix::fs::openat(CWD, path, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty())?;
        rustix::fs::ioctl_setflags(&file, IFlags::IMMUTABLE)
    };
    let possible = paths.iter().try_for_each(|path| held(path)).is_ok();
    if can("root and a file system with immutable files", possible) {
        scratch.remove().unwrap();
    }
}

#[test]
fn what_is_mounted_in_it_stays_untouched() {
    if !can("root, to mount something", is_root()) {
        return;
    }
    let fixture = Fixture::new();
    let precious = fixture.directory.path().join("precious");
    std::fs::create_dir(&precious).unwrap();
    std::fs::write(precious.join("thesis"), "").unwrap();
    let scratch = fixture.store.scratch().unwrap();
    let mounted = scratch.dir("mounted").unwrap();
    rustix::mount::mount_bind(&precious, &mounted).unwrap();
    let path = scratch.path().to_owned();
    let error = scratch.remove().unwrap_err();
    rustix::mount::unmount(&mounted, UnmountFlags::DETACH).unwrap();
    assert!(
        matches!(&error, Error::Io { source, .. } if source.kind() == std::io::ErrorKind::ResourceBusy),
        "{error:?}"
    );
    assert!(precious.join("thesis").exists());
    drop(fixture.store);
    assert!(!path.exists(), "without the mount it goes");
}

#[test]
fn a_sweep_takes_what_is_nobodys() {
    let fixture = Fixture::new();
    let mine = fixture.store.scratch().unwrap();
    let tmp = fixture.root().join("tmp");
    std::fs::create_dir_all(tmp.join("dead/0/upper")).unwrap();
    std::fs::write(tmp.join("dead/0/upper/half"), "ha").unwrap();
    std::fs::write(tmp.join("stray"), "").unwrap();
    std::fs::write(fixture.root().join("locks/stale.lock"), "").unwrap();
    let held = fixture.store.lock("held", "test", &mut patient).unwrap();
    let swept = fixture.reopen().sweep().unwrap().wait();
    assert!(swept.failures.is_empty(), "{:?}", swept.failures);
    assert_eq!(names(&tmp).len(), 1);
    assert!(mine.path().exists());
    assert!(!fixture.root().join("locks/stale.lock").exists());
    assert!(fixture.root().join("locks/held.lock").exists());
    drop(held);
}

#[test]
fn sweeps_never_take_from_the_living() {
    let fixture = Fixture::new();
    let root = fixture.root();
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let swept = fixture.store.sweep().unwrap().wait();
                assert!(swept.failures.is_empty(), "{:?}", swept.failures);
            }
        });
        let builders: Vec<_> = (0..3_u8)
            .map(|builder| {
                let root = &root;
                scope.spawn(move || {
                    for round in 0..40_u8 {
                        let store = Store::open(root).unwrap();
                        let _lock = store.lock(&format!("step {builder}"), "test", &mut patient).unwrap();
                        let layer = layer::publish(&store, &[builder, round]);
                        assert_eq!(store.layer(&layer.diff_id).unwrap(), Some(layer));
                    }
                })
            })
            .collect();
        for builder in builders {
            builder.join().unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        sweeper.join().unwrap();
    });
    assert_eq!(fixture.store.layers().unwrap().len(), 120);
    assert_eq!(fixture.store.take_damage(), []);
}
