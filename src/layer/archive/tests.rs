use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::layer::sample::applier::{apply_with_umoci, extract_with_gnu_tar};
use crate::layer::sample::{self, any_change, describe, is_root, make};
use crate::layer::unpack::{Owners, unpack};
use crate::layer::view::View;

const TRUSTED: OverlayXattr = OverlayXattr::Trusted;
const ANY_TIME: Times = Times { clamp: None };

fn written(tree: &Path) -> Vec<u8> {
    let mut archive = Vec::new();
    let measured = write(tree, TRUSTED, ANY_TIME, &mut archive).unwrap();
    assert_eq!(measured.diff_id, Digest::of(&archive).into());
    assert_eq!(measured.size, archive.len() as u64);
    archive
}

fn names(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    let entries = archive.entries().unwrap();
    entries.map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).into_owned()).collect()
}

/// A tree with one of everything, in which every time is fixed.
fn everything(root: &Path) {
    fs::create_dir_all(root.join("etc/deep")).unwrap();
    fs::create_dir(root.join("opaque")).unwrap();
    fs::write(root.join("etc/file"), "content\n").unwrap();
    fs::write(root.join("etc-file"), "").unwrap();
    fs::write(root.join("opaque").join("n".repeat(200)), vec![7; 1_500_000]).unwrap();
    fs::write(root.join("ä"), "x").unwrap();
    fs::hard_link(root.join("etc/file"), root.join("a-link")).unwrap();
    symlink("../etc", root.join("etc/deep/symlink")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        root.join("null"),
        FileType::CharacterDevice,
        rustix::fs::Mode::empty(),
        rustix::fs::makedev(1, 3),
    )
    .unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), FileType::Fifo, rustix::fs::Mode::empty(), 0).unwrap();
    sample::whiteout(&root.join("opaque-not"));
    sample::whiteout(&root.join("zz"));
    sample::opaque(&root.join("opaque"));
    lchown(root.join("ä"), Some(3_000_000), Some(5)).unwrap();
    for (path, mode) in [
        ("etc", 0o755),
        ("etc/deep", 0o2700),
        ("opaque", 0o1777),
        ("etc/file", 0o4755),
        ("ä", 0o600),
        ("etc-file", 0o644),
        ("null", 0o666),
        ("pipe", 0o640),
    ] {
        fs::set_permissions(root.join(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(root.join("opaque").join("n".repeat(200)), fs::Permissions::from_mode(0o644)).unwrap();
    rustix::fs::lsetxattr(root.join("ä"), "user.b", b"2", rustix::fs::XattrFlags::empty()).unwrap();
    rustix::fs::lsetxattr(root.join("ä"), "user.a", b"1", rustix::fs::XattrFlags::empty()).unwrap();
    for path in describe(root).keys().rev() {
        sample::set_time(&root.join(path), 1_600_000_000, 999_999_999);
    }
    sample::set_time(&root.join("etc-file"), -2, 500_000_000);
}

#[test]
fn the_format_has_not_changed() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    everything(directory.path());
    let measured = measure(directory.path(), TRUSTED, ANY_TIME).unwrap();
    let digest = measured.diff_id.to_string();
    assert_eq!(
        digest, "sha256:c2b87ca4320649fa8561629a9fd6b796b89248dbf675defc0a320419e691fb7f",
        "raise FORMAT if this is meant"
    );
    assert_eq!(measured.entries, 14);
}

#[test]
fn entries_are_in_order() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    everything(directory.path());
    let long = format!("opaque/{}", "n".repeat(200));
    let expected = [
        ".wh.opaque-not",
        ".wh.zz",
        "a-link",
        "etc-file",
        "etc/",
        "etc/deep/",
        "etc/deep/symlink",
        "etc/file",
        "null",
        "opaque/",
        "opaque/.wh..wh..opq",
        &long,
        "pipe",
        "ä",
    ];
    assert_eq!(names(&written(directory.path())), expected);
}

#[test]
fn times_are_cut_and_clamped() {
    let directory = tempfile::tempdir().unwrap();
    for (name, seconds) in [("early", -2), ("late", 2_000_000_000)] {
        fs::write(directory.path().join(name), "").unwrap();
        sample::set_time(&directory.path().join(name), seconds, 999_999_999);
    }
    let mut bytes = Vec::new();
    write(directory.path(), TRUSTED, Times { clamp: Some(1_000) }, &mut bytes).unwrap();
    let early = &bytes[512..1024];
    assert!(early.starts_with(b"12 mtime=-2\n"), "{}", early.escape_ascii());
    let late = tar::Archive::new(bytes.as_slice()).entries().unwrap().nth(1).unwrap().unwrap().header().mtime();
    assert_eq!(late.unwrap(), 1_000);
}

#[test]
fn names_like_whiteouts_are_written_and_told_of() {
    let directory = tempfile::tempdir().unwrap();
    for path in ["a", ".wh.a", "d/.wh.b"] {
        fs::create_dir_all(directory.path().join(path).parent().unwrap()).unwrap();
        fs::write(directory.path().join(path), "x").unwrap();
    }
    let mut told = Vec::new();
    let (measured, _) =
        measure_and_tell(directory.path(), TRUSTED, ANY_TIME, &mut Arriving::new(), &mut |path| told.push(path))
            .unwrap();
    assert_eq!(told, [Path::new(".wh.a"), Path::new("d/.wh.b")]);
    assert_eq!(measured, measure(directory.path(), TRUSTED, ANY_TIME).unwrap());
    assert_eq!(measured.entries, 4);
}

#[test]
fn what_a_layer_cannot_hold_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("file");
    fs::write(&path, "").unwrap();
    rustix::fs::lsetxattr(&path, "user.a=b", b"", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(matches!(measure(directory.path(), TRUSTED, ANY_TIME), Err(Error::AttributeName { .. })));
    rustix::fs::lremovexattr(&path, "user.a=b").unwrap();
    rustix::fs::lsetxattr(&path, "user.overlay.metacopy", b"", rustix::fs::XattrFlags::empty()).unwrap();
    assert!(matches!(
        measure(directory.path(), OverlayXattr::User, ANY_TIME),
        Err(Error::OverlayRecord { record, .. }) if record == "metacopy"
    ));
    assert!(measure(directory.path(), TRUSTED, ANY_TIME).is_ok(), "to root's overlay it is anybody's attribute");
}

#[test]
fn the_kind_of_overlay_does_not_show() {
    let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (root, name) in [(one.path(), "user.overlay.mine"), (other.path(), "user.overlay.overlay.mine")] {
        fs::write(root.join("file"), "").unwrap();
        sample::set_time(&root.join("file"), 1, 0);
        rustix::fs::lsetxattr(root.join("file"), name, b"1", rustix::fs::XattrFlags::empty()).unwrap();
    }
    let trusted = measure(one.path(), TRUSTED, ANY_TIME).unwrap();
    assert_eq!(measure(other.path(), OverlayXattr::User, ANY_TIME).unwrap(), trusted);
}

#[test]
fn the_order_in_which_files_were_made_does_not_show() {
    let mut names: Vec<_> = (0..500).map(|number: u32| format!("{:x}", number.wrapping_mul(2_654_435_761))).collect();
    let mut archives = Vec::new();
    for round in 0..3 {
        let directory = tempfile::tempdir().unwrap();
        for name in &names {
            let place = directory.path().join(&name[..1]);
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join(name), name).unwrap();
        }
        // Two names of one file: which came first does not count either.
        let (one, other) = (directory.path().join("one"), directory.path().join("other"));
        let (earlier, later) = if round == 1 { (&other, &one) } else { (&one, &other) };
        fs::write(earlier, "").unwrap();
        fs::hard_link(earlier, later).unwrap();
        for path in describe(directory.path()).keys().rev() {
            sample::set_time(&directory.path().join(path), 1, 0);
        }
        archives.push(written(directory.path()));
        if round == 0 { names.reverse() } else { names.sort() }
    }
    assert!(archives.iter().all(|archive| *archive == archives[0]));
}

#[test]
fn holes_do_not_show() {
    let (sparse, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::File::create(sparse.path().join("file")).unwrap().set_len(20_000_001).unwrap();
    fs::write(whole.path().join("file"), vec![0; 20_000_001]).unwrap();
    for root in [sparse.path(), whole.path()] {
        sample::set_time(&root.join("file"), 1, 0);
    }
    assert_eq!(written(sparse.path()), written(whole.path()));
}

#[test]
fn a_sink_that_fails_is_an_error() {
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("file"), vec![0; 10 << 20]).unwrap();
    assert!(matches!(write(directory.path(), TRUSTED, ANY_TIME, &mut Full), Err(Error::Sink { .. })));
}

#[test]
fn trees_deeper_than_a_stack_are_written() {
    let directory = tempfile::tempdir().unwrap();
    let mut parent = inode::open_root(directory.path()).unwrap();
    for _ in 0..700 {
        rustix::fs::mkdirat(&parent, "deep", rustix::fs::Mode::RWXU).unwrap();
        parent = inode::open_directory(parent.as_fd(), b"deep").unwrap();
    }
    assert_eq!(measure(directory.path(), TRUSTED, ANY_TIME).unwrap().entries, 700);
}

#[test]
fn umoci_reads_the_same_layers() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (lower, upper) = (directory.path().join("lower"), directory.path().join("upper"));
    for path in ["etc/deep", "opaque/gone", "zz"] {
        fs::create_dir_all(lower.join(path)).unwrap();
    }
    fs::write(lower.join("etc/kept"), "").unwrap();
    everything(&upper);
    // What the version of umoci that Debian has does not restore.
    rustix::fs::lremovexattr(upper.join("ä"), "user.a").unwrap();
    let out = apply_with_umoci(&[written(&lower), written(&upper)], directory.path());
    let view = View::over(&[upper, lower], TRUSTED).unwrap();
    assert_eq!(describe(&out), sample::describe_tree(&view));
}

proptest! {
    #![proptest_config(sample::cases(48))]

    #[test]
    fn any_tree_comes_back(changes in prop::collection::vec(any_change(), 0..40)) {
        if !is_root() {
            return Ok(());
        }
        let directory = tempfile::tempdir().unwrap();
        let [tree, by_tar, by_us] = ["tree", "by-tar", "by-us"].map(|name| directory.path().join(name));
        make(&tree, &changes);
        fs::create_dir(&by_tar).unwrap();
        fs::create_dir(&by_us).unwrap();
        let archive = written(&tree);

        extract_with_gnu_tar(&archive, &by_tar);
        prop_assert_eq!(describe(&by_tar), describe(&tree));

        let unpacked = unpack(archive.as_slice(), &by_us, TRUSTED, Owners::Kept).unwrap();
        prop_assert_eq!(describe(&by_us), describe(&tree));
        prop_assert_eq!(unpacked.left_out, []);
        prop_assert_eq!(unpacked.measured, measure(&tree, TRUSTED, ANY_TIME).unwrap());
        prop_assert!(written(&by_us) == archive);
    }
}
