use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::digest::Digest;
use crate::layer::header::{Header, typeflag};
use crate::layer::sample::{self, describe, is_root, set_time};
use crate::layer::xattr::{self, At, DEFAULT_ACL};

const TRUSTED: OverlayXattr = OverlayXattr::Trusted;

/// An archive put together entry by entry, also of what no writer would write.
#[derive(Default)]
struct Made(Vec<u8>);

impl Made {
    fn entry(mut self, name: &str, typeflag: u8, link: &str, content: &[u8]) -> Self {
        let mode = if typeflag == typeflag::DIRECTORY { 0o755 } else { 0o644 };
        let header = Header {
            name: name.as_bytes(),
            typeflag,
            mode,
            uid: 0,
            gid: 0,
            size: content.len() as u64,
            mtime: 5,
            link: link.as_bytes(),
            device: (0, 0),
            xattrs: &[],
        };
        let mut blocks = Vec::new();
        header.encode(&mut blocks).unwrap();
        self.0.extend_from_slice(&blocks);
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, name: &str) -> Self {
        self.entry(name, typeflag::FILE, "", name.as_bytes())
    }

    fn directory(self, name: &str) -> Self {
        self.entry(name, typeflag::DIRECTORY, "", b"")
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, typeflag::SYMLINK, target, b"")
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, typeflag::HARD_LINK, target, b"")
    }

    fn pax(self, records: &str) -> Self {
        self.entry("PaxHeaders", typeflag::PAX, "", records.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn try_unpack(archive: &[u8]) -> (tempfile::TempDir, Result<Unpacked, Error>) {
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("layer");
    fs::create_dir(&into).unwrap();
    let result = unpack(archive, &into, TRUSTED, Owners::Kept);
    let beside: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|found| found.unwrap().file_name()).collect();
    assert_eq!(beside, ["layer"], "nothing may be made outside");
    (directory, result)
}

fn unpacked(archive: &[u8]) -> tempfile::TempDir {
    let (directory, result) = try_unpack(archive);
    let result = result.unwrap();
    assert_eq!(result.measured.diff_id, Digest::of(archive).into());
    assert_eq!(result.measured.size, archive.len() as u64);
    directory
}

/// Path and first word of what is there, then whether it is opaque.
fn listing(directory: &tempfile::TempDir) -> Vec<String> {
    let root = directory.path().join("layer");
    let described = describe(&root);
    let shown = described.iter().map(|(path, line)| {
        let is_opaque = At::Path(&root.join(path)).is_opaque(TRUSTED).unwrap();
        let what =
            if line.starts_with("device c (0, 0)") { "whiteout" } else { line.split([' ', ',']).next().unwrap() };
        format!("{} {what}{}", path.display(), if is_opaque { " opaque" } else { "" })
    });
    shown.collect()
}

#[test]
fn in_an_archive_of_files_no_name_is_special() {
    if !is_root() {
        return;
    }
    let archive = Made::default()
        .file("a")
        .file(".wh.a")
        .file("d/.wh..wh..opq")
        .file("d/../.wh..wh.plnk/b")
        .hard_link("e", "d/../a")
        .entry("pipe", typeflag::FIFO, "", b"")
        .end();
    let directory = tempfile::tempdir().unwrap();
    let into = directory.path().join("layer");
    fs::create_dir(&into).unwrap();
    unpack_files(archive.as_slice(), &into, TRUSTED, Owners::Kept).unwrap();
    let read = |name: &str| fs::read_to_string(into.join(name)).unwrap();
    for (name, content) in [("a", "a"), (".wh.a", ".wh.a"), ("d/.wh..wh..opq", "d/.wh..wh..opq"), ("e", "a")] {
        assert_eq!(read(name), content, "{name}");
    }
    assert!(into.join(".wh..wh.plnk/b").is_file() && !into.join("pipe").exists());
    for dangerous in ["../x", "d/../../x"] {
        let into = directory.path().join(dangerous.len().to_string());
        fs::create_dir(&into).unwrap();
        let archive = Made::default().file(dangerous).end();
        let result = unpack_files(archive.as_slice(), &into, TRUSTED, Owners::Kept);
        assert!(matches!(result, Err(Error::Refused { .. })), "{dangerous}");
    }
}

#[test]
fn dangerous_entries_are_refused_by_name() {
    if !is_root() {
        return;
    }
    let made = Made::default;
    for (what, archive, named) in [
        ("dots", made().file("a/../../evil"), "a/../../evil"),
        ("dots at the end", made().directory("a/.."), "a/.."),
        ("a whiteout of nothing", made().file("d/.wh."), "d/.wh."),
        ("a whiteout of the directory", made().file("d/.wh.."), "d/.wh.."),
        ("a whiteout of the parent", made().file("d/.wh..."), "d/.wh..."),
        ("a whiteout of a whiteout", made().file(".wh..wh.x"), ".wh..wh.x"),
        ("a file in a whiteout", made().file(".wh.d/x"), ".wh.d/x"),
        ("a link out", made().hard_link("x", "../../../etc/passwd"), "x"),
        ("an absolute link to nothing of ours", made().hard_link("x", "/etc/passwd"), "x"),
        ("a link to a later file", made().hard_link("x", "y").file("y"), "x"),
        ("a link to itself", made().file("x").hard_link("x", "./x"), "x"),
        ("a link to a directory", made().directory("d").hard_link("x", "d"), "x"),
        ("a link to a whiteout", made().file(".wh.d").hard_link("x", "d"), "x"),
        ("a link through a link out", made().symlink("s", "/etc").hard_link("x", "s/passwd"), "x"),
        ("a file in a file", made().file("f").file("f/x"), "f/x"),
        ("a file in a link to nothing", made().symlink("s", "/etc/cron.d").file("s/x"), "s/x"),
        ("the root as a link", made().symlink("./", "x"), "./"),
        (
            "a sparse file with more content than its map has",
            made().pax("22 GNU.sparse.size=10\n22 GNU.sparse.map=0,3\n").file("sparse"),
            "sparse",
        ),
        (
            "a sparse file that nothing has room for",
            made().pax("34 GNU.sparse.size=99999999999999\n").entry("large", b'0', "", b""),
            "large",
        ),
        ("a volume label", made().entry("label", b'V', "", b""), "label"),
        ("a device that is a whiteout", made().entry("null", typeflag::CHAR_DEVICE, "", b""), "null"),
        ("a link to nowhere", made().symlink("s", ""), "s"),
        ("a size that nothing has", made().pax("25 size=9000000000000000\n").file("big"), "big"),
        ("an owner that nobody is", made().pax("18 uid=4294967296\n").file("x"), "x"),
    ] {
        let error = try_unpack(&archive.end()).1.map(|_| ()).expect_err(what);
        assert!(error.to_string().contains(&format!("{named:?}")), "{what}: {error}");
    }
}

#[test]
fn broken_archives_are_refused() {
    let made = Made::default;
    let whole = made().file("first").file("second").end();
    let mut flipped = whole.clone();
    flipped[1024 + 3] ^= 1;
    for (what, archive) in [
        ("cut in a header", &whole[..1024 + 100]),
        ("cut in content", &whole[..1024 + 512 + 3]),
        ("a wrong checksum", &flipped),
        ("a bad record", &made().pax("7 a=b\n").file("x").end()),
        ("a zero byte in a path", &made().pax("12 path=a\0b\n").file("x").end()),
        ("a sparse map of no numbers", &made().pax("22 GNU.sparse.map=0,x\n").file("x").end()),
        (
            "a sparse map that is not there",
            &made().pax("22 GNU.sparse.major=1\n24 GNU.sparse.size=10\n").file("x").end(),
        ),
        ("nothing after an extended header", &made().pax("9 path=a\n").end()),
        ("a header after zeros", &[&[0; 512], whole.as_slice()].concat()),
        ("a huge extended header", &made().pax(&" ".repeat((1 << 20) + 1)).file("x").end()),
        ("no archive", &b"<html>not found</html>".repeat(99)),
    ] {
        assert!(try_unpack(archive).1.is_err(), "{what}");
    }
}

#[test]
fn archives_end_in_several_ways() {
    if !is_root() {
        return;
    }
    let whole = Made::default().file("file").end();
    let entry = &whole[..whole.len() - 1024];
    for (what, archive) in [
        ("without a mark", entry.to_vec()),
        ("with half a mark", [entry, &[0; 512]].concat()),
        ("with a mark and more", [&whole, &b"what follows is part of the digest"[..]].concat()),
        ("with three chunks of zeros", [&whole[..], &vec![0; 3 << 20]].concat()),
    ] {
        assert_eq!(listing(&unpacked(&archive)), ["file file"], "{what}");
    }
    assert!(listing(&unpacked(b"")).is_empty());
}

#[test]
fn layers_become_overlays() {
    if !is_root() {
        return;
    }
    let made = Made::default;
    for (what, archive, expected) in [
        ("whiteout", made().file("d/.wh.x"), &["d directory", "d/x whiteout"][..]),
        ("opaque first", made().file("d/.wh..wh..opq").file("d/x"), &["d directory opaque", "d/x file"]),
        ("opaque last", made().directory("d").file("d/x").file("d/.wh..wh..opq"), &["d directory opaque", "d/x file"]),
        ("whiteout, then file", made().file(".wh.x").file("x"), &["x file"]),
        ("file, then whiteout", made().file("x").file(".wh.x"), &["x file"]),
        ("whiteout, then directory", made().file(".wh.d").directory("d"), &["d directory opaque"]),
        ("directory, then whiteout", made().directory("d").file(".wh.d"), &["d directory opaque"]),
        ("whiteout, then parent", made().file(".wh.d").file("d/x"), &["d directory opaque", "d/x file"]),
        ("twice", made().file("x").symlink("x", "y"), &["x link"]),
        ("directory, then file", made().file("d/e/x").file("d"), &["d file"]),
        ("file, then directory", made().file("d").directory("d").file("d/x"), &["d directory", "d/x file"]),
        ("link, then directory", made().symlink("d", "/etc").directory("d").file("d/x"), &["d directory", "d/x file"]),
        ("absolute", made().file("//a/./b"), &["a directory", "a/b file"]),
        (
            "through a link",
            made().directory("usr").symlink("l", "/../../usr").file("l/x"),
            &["l link", "usr directory", "usr/x file"],
        ),
        ("hard link", made().file("d/x").hard_link("y", "/d/x"), &["d directory", "d/x file", "y file"]),
        ("root as an old directory", made().file("./").file("x"), &["x file"]),
        ("old directory", made().entry("d/", 0, "", b""), &["d directory"]),
        ("AUFS", made().file(".wh..wh.plnk/1.2").file(".wh..wh.aufs").file("x"), &["x file"]),
        ("comment for all", made().entry("g", typeflag::PAX_GLOBAL, "", b"13 comment=x\n").file("x"), &["x file"]),
        ("size of a link", made().entry("s", typeflag::SYMLINK, "t", b"").file("x"), &["s link", "x file"]),
        (
            "GNU names",
            made()
                .entry("././@LongLink", typeflag::GNU_LONG_NAME, "", b"long\0")
                .entry("././@LongLink", typeflag::GNU_LONG_LINK, "", b"target\0")
                .symlink("short", "other"),
            &["long link"],
        ),
    ] {
        assert_eq!(listing(&unpacked(&archive.end())), expected, "{what}");
    }
}

#[test]
fn directories_without_an_entry_are_told_of() {
    if !is_root() {
        return;
    }
    let made = Made::default;
    for (what, archive, expected) in [
        ("none", made().directory("d").file("d/x"), &[][..]),
        ("some", made().file("b/c/x").directory("a").file("a/d/x"), &["a/d", "b", "b/c"]),
        ("an entry that comes later", made().file("d/x").directory("d"), &[]),
        ("an entry for the parent only", made().file("d/e/x").directory("d"), &["d/e"]),
        ("one that is removed again", made().file("d/e/x").file("d"), &[]),
        ("one that another takes the place of", made().file("d/x").file("d").directory("d"), &[]),
        ("what is hidden is not continued", made().file(".wh.d").file("d/x"), &[]),
        ("nor what is hidden afterwards", made().file("d/x").file(".wh.d"), &[]),
        ("an opaque mark says nothing of the directory", made().file("d/.wh..wh..opq").file("d/x"), &["d"]),
        ("a whiteout alone", made().file("d/.wh.x"), &["d"]),
        ("through a link", made().directory("usr").symlink("l", "usr").file("l/d/x"), &["usr/d"]),
        (
            "an entry under another name",
            made().directory("usr").symlink("l", "usr").file("l/d/x").directory("usr/d"),
            &[],
        ),
    ] {
        let expected: Vec<PathBuf> = expected.iter().map(PathBuf::from).collect();
        assert_eq!(try_unpack(&archive.end()).1.unwrap().implied, expected, "{what}");
    }
}

#[test]
fn times_of_directories_hold() {
    if !is_root() {
        return;
    }
    let directory = unpacked(&Made::default().directory("d").file("d/x").file("implied/x").directory("./").end());
    let mtime = |path: &str| fs::metadata(directory.path().join("layer").join(path)).unwrap().mtime();
    assert_eq!([mtime("d"), mtime("d/x"), mtime("implied"), mtime("")], [5, 5, 0, 5]);
}

#[test]
fn a_default_acl_is_not_inherited_while_unpacking() {
    if !is_root() {
        return;
    }
    let mut acl = vec![2, 0, 0, 0];
    for (tag, permissions) in [(1u8, 7u8), (4, 5), (32, 0)] {
        acl.extend_from_slice(&[tag, 0, permissions, 0, 255, 255, 255, 255]);
    }
    let tree = tempfile::tempdir().unwrap();
    fs::create_dir(tree.path().join("d")).unwrap();
    fs::write(tree.path().join("d/x"), "").unwrap();
    At::Path(&tree.path().join("d")).set(DEFAULT_ACL.as_bytes(), &acl).unwrap();
    set_time(&tree.path().join("d"), 1, 0);
    let mut archive = Vec::new();
    crate::layer::archive::write(tree.path(), TRUSTED, Default::default(), &mut archive).unwrap();
    assert_eq!(describe(&unpacked(&archive).path().join("layer")), describe(tree.path()));
}

#[test]
fn attributes_of_overlays_are_escaped_and_those_of_hosts_left() {
    if !is_root() {
        return;
    }
    let record = |name: &str| {
        let mut records = Vec::new();
        crate::layer::pax::push(&mut records, format!("SCHILY.xattr.{name}").as_bytes(), b"/etc");
        String::from_utf8(records).unwrap()
    };
    let records = record("trusted.overlay.redirect") + &record("security.selinux") + &record("trusted.md5");
    let directory = unpacked(&Made::default().pax(&records).directory("d").end());
    let path = directory.path().join("layer/d");
    let found = xattr::Attributes::read(At::Path(&path), TRUSTED).unwrap();
    assert_eq!(found.image, [(b"trusted.overlay.redirect".to_vec(), b"/etc".to_vec())]);
    assert!(found.records.is_empty());
    assert_eq!(At::Path(&path).get(b"trusted.md5").unwrap(), None);
}

#[test]
fn owners_are_kept_or_squashed() {
    if !is_root() {
        return;
    }
    let archive = Made::default().pax("12 uid=1000\n").file("x").end();
    for (owners, expected) in [(Owners::Kept, 1000), (Owners::Squashed, 0)] {
        let into = tempfile::tempdir().unwrap();
        unpack(archive.as_slice(), into.path(), TRUSTED, owners).unwrap();
        assert_eq!(fs::metadata(into.path().join("x")).unwrap().uid(), expected);
    }
}

#[test]
fn sparse_files_of_gnu_tar_are_read() {
    use std::os::unix::fs::FileExt as _;
    let directory = tempfile::tempdir().unwrap();
    let tree = directory.path().join("tree");
    fs::create_dir(&tree).unwrap();
    // With holes in front, between and behind; more parts than a header has room for; nothing but a hole; not sparse.
    for (name, size, parts) in [("some", 300_000, 2), ("many", 9_000_001, 60), ("none", 5 << 20, 0), ("plain", 700, 1)]
    {
        let file = fs::File::create(tree.join(name)).unwrap();
        for part in 0..parts {
            file.write_all_at(name.as_bytes(), if parts == 1 { 0 } else { (part + 1) * size / (parts + 2) }).unwrap();
        }
        file.set_len(size).unwrap();
        set_time(&tree.join(name), 5, 0);
    }
    let versions =
        ["--format=oldgnu", "--format=gnu", "--sparse-version=0.0", "--sparse-version=0.1", "--sparse-version=1.0"];
    for version in versions {
        let mut tar = std::process::Command::new("tar");
        tar.args(["--create", "--sparse", "--hole-detection=seek", version, "--directory"]).arg(&tree);
        let archive = tar.args(["some", "many", "none", "plain"]).output().unwrap().stdout;
        assert!(archive.len() < 1 << 20, "{version}: it is sparse");
        let into = tempfile::tempdir().unwrap();
        unpack(archive.as_slice(), into.path(), OverlayXattr::User, Owners::Kept).unwrap();
        assert_eq!(describe(into.path()), describe(&tree), "{version}");
        assert!(fs::metadata(into.path().join("none")).unwrap().blocks() < 64, "{version}");
    }
}

#[test]
fn zeros_become_holes() {
    let file = |content: &[u8]| {
        let archive = Made::default().entry("file", typeflag::FILE, "", content).end();
        let into = tempfile::tempdir().unwrap();
        unpack(archive.as_slice(), into.path(), OverlayXattr::User, Owners::Kept).unwrap();
        let path = into.path().join("file");
        assert!(fs::read(&path).unwrap() == content);
        fs::metadata(path).unwrap().blocks() * 512
    };
    let mut content = vec![0; 6 << 20];
    assert!(file(&content) <= 64 << 10, "nothing but zeros");
    content[3 << 20] = 1;
    assert!(file(&content) <= 256 << 10, "something in the middle");
    content[(6 << 20) - 1] = 1;
    assert!(file(&content) <= 512 << 10, "something at the end");
    for length in [0, 1, 511, 4095, 4096, 4097, 65535, 65536, 65537] {
        file(&vec![0; length]);
        file(&vec![1; length]);
    }
}

#[test]
fn devices_are_made() {
    if !is_root() {
        return;
    }
    let mut blocks = Vec::new();
    let header = Header {
        name: b"dev/null",
        typeflag: typeflag::CHAR_DEVICE,
        mode: 0o666,
        uid: 0,
        gid: 0,
        size: 0,
        mtime: 0,
        link: b"",
        device: (1, 3),
        xattrs: &[],
    };
    header.encode(&mut blocks).unwrap();
    let found = fs::metadata(unpacked(&blocks).path().join("layer/dev/null")).unwrap();
    assert!(found.file_type().is_char_device() && found.rdev() == rustix::fs::makedev(1, 3));
    assert_eq!(found.mode() & 0o7777, 0o666);
}

#[test]
fn only_an_empty_directory_is_unpacked_into() {
    let into = tempfile::tempdir().unwrap();
    fs::write(into.path().join("there"), "").unwrap();
    assert!(matches!(unpack(&b""[..], into.path(), TRUSTED, Owners::Kept), Err(Error::Target { .. })));
    let missing = into.path().join("missing");
    assert!(
        matches!(unpack(&b""[..], &missing, TRUSTED, Owners::Kept), Err(Error::Target { path, .. }) if path == missing)
    );
}

#[test]
fn a_stream_that_fails_is_an_error() {
    struct Failing(usize);
    impl Read for Failing {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            if self.0 == 0 {
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            let length = self.0.min(buffer.len());
            buffer[..length].fill(0);
            self.0 -= length;
            Ok(length)
        }
    }
    for length in [0, 100, 5 << 20] {
        let into = tempfile::tempdir().unwrap();
        let result = unpack(Failing(length), into.path(), TRUSTED, Owners::Kept);
        assert!(matches!(result, Err(Error::Stream { .. })), "{length}");
    }
}

/// Runs the test after this one again, as root of a user namespace in which that is the only user.
#[test]
fn one_user_is_enough() {
    let test = "layer::unpack::tests::in_a_namespace_of_one_user";
    let result = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", test])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success() && output.contains("1 passed"), "{output}");
}

#[test]
#[ignore = "one_user_is_enough runs it where it can run"]
fn in_a_namespace_of_one_user() {
    let mut record = Vec::new();
    crate::layer::pax::push(&mut record, b"SCHILY.xattr.trusted.overlay.origin", b"1");
    let archive = Made::default()
        .pax("12 uid=1000\n")
        .file("theirs")
        .file(".wh.gone")
        .entry("null", typeflag::BLOCK_DEVICE, "", b"")
        .pax(&String::from_utf8(record).unwrap())
        .directory("nested/")
        .file("nested/.wh..wh..opq")
        .end();
    let user = OverlayXattr::User;
    let into = tempfile::tempdir().unwrap();
    let error = unpack(archive.as_slice(), into.path(), user, Owners::Kept).unwrap_err();
    assert!(matches!(&error, Error::UnmappedOwner { uid: 1000, .. }), "{error}");
    assert!(error.to_string().contains("/etc/subuid"));

    let into = tempfile::tempdir().unwrap();
    let unpacked = unpack(archive.as_slice(), into.path(), user, Owners::Squashed).unwrap();
    let attribute = LeftOut::Attribute { entry: "nested/".into(), name: "trusted.overlay.origin".into() };
    assert_eq!(unpacked.left_out, [LeftOut::Device { entry: "null".into() }, attribute]);
    let found: Vec<_> = describe(into.path()).into_keys().collect();
    assert_eq!(found, [Path::new("gone"), Path::new("nested"), Path::new("theirs")]);
    assert!(At::Path(&into.path().join("nested")).is_opaque(user).unwrap());
}

mod properties {
    use proptest::prelude::*;

    use super::*;

    fn any_entry() -> impl Strategy<Value = (String, u8, String)> {
        let path = "(/|\\.\\./|\\./|a/|b/|\\.wh\\.){0,4}(a|b|c|\\.wh\\.a|\\.wh\\.\\.wh\\.\\.opq|\\.\\.)";
        (path, prop::sample::select(b"0125671xgLKS".to_vec()), path)
    }

    proptest! {
        #![proptest_config(sample::cases(256))]

        /// Whatever the archive: no panic, nothing outside, and if it is taken, the whole of it was hashed.
        #[test]
        fn hostile_archives_stay_inside(entries in prop::collection::vec(any_entry(), 0..12), flip in any::<prop::sample::Index>(), flips: bool) {
            if !is_root() {
                return Ok(());
            }
            let mut archive = entries
                .iter()
                .fold(Made::default(), |made, (name, kind, link)| made.entry(name, *kind, link, if *kind == b'0' { b"content" } else { b"" }))
                .end();
            if flips {
                let at = flip.index(archive.len());
                archive[at] ^= 0x55;
            }
            let (_, result) = try_unpack(&archive);
            if let Ok(unpacked) = result {
                prop_assert_eq!(unpacked.measured.diff_id, Digest::of(&archive).into());
            }
        }
    }
}
