use std::collections::BTreeMap;
use std::fs;
use std::io::{Seek, SeekFrom};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use super::super::arrived;
use super::*;
use crate::context::Context;
use crate::context::ignore::Ignore;
use crate::execute::stage::{Body, Leaf, Stage};
use crate::layer::OverlayXattr;
use crate::layer::archive::{self, Arriving, Times};
use crate::layer::tree::Tree;
use crate::layer::view::View;

const XATTR: OverlayXattr = OverlayXattr::Trusted;

/// A directory of large and small files, as a context.
fn scene(names: &[&str], length: u64) -> (tempfile::TempDir, Context) {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("context")).unwrap();
    for (number, name) in names.iter().enumerate() {
        let file = File::create(dir.path().join("context").join(name)).unwrap();
        let mut pieces = io::BufWriter::new(file);
        for n in 0..length / 8 {
            pieces.write_all(&(n ^ (number as u64) << 40).to_le_bytes()).unwrap();
        }
    }
    let context = Context::open(&dir.path().join("context"), Ignore::default(), None).unwrap();
    (dir, context)
}

/// Stages all files of a context, set-user-id, in a layer at `into`.
fn stage<'a>(context: &Context, names: &[&str], parent: &'a View, into: &'a Path) -> Stage<'a> {
    let mut stage = Stage::new(parent, into, XATTR, None).unwrap();
    for name in names {
        let path = Path::new(name);
        let entry = context.entry(path).unwrap().unwrap();
        let crate::layer::tree::Kind::File { size } = entry.kind else { panic!("a file") };
        let content = Some(context.content_id(path, &entry).unwrap());
        let body = Body::Source { path: path.to_owned(), content, size };
        let own = rustix::process::getuid().as_raw();
        let meta = Meta {
            mode: 0o4755,
            uid: own,
            gid: rustix::process::getgid().as_raw(),
            mtime: (77, 5),
            xattrs: Vec::new(),
        };
        stage.put(path, Leaf { meta, body, link: None }).unwrap();
    }
    stage
}

fn shown(tree: &Path) -> BTreeMap<String, (u32, i64, i64, blake3::Hash)> {
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let meta = entry.metadata().unwrap();
        let content = blake3::hash(&fs::read(entry.path()).unwrap());
        (
            entry.file_name().into_string().unwrap(),
            (meta.permissions().mode(), meta.mtime(), meta.mtime_nsec(), content),
        )
    };
    fs::read_dir(tree).unwrap().map(read).collect()
}

#[test]
fn a_layer_is_the_same_whenever_its_files_are_filled() {
    let names: Vec<String> = (0..=MOST).map(|n| format!("f{n:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (dir, context) = scene(&names, LARGE);
    let parent = View::over(&[], XATTR).unwrap();
    let (at_once, later) = (dir.path().join("a"), dir.path().join("b"));
    stage(&context, &names, &parent, &at_once).write(Some(&context)).unwrap();
    let mut arriving = stage(&context, &names, &parent, &later).write_most(Some(&context)).unwrap();
    assert_eq!(arriving.len(), MOST, "one more than are filled later");
    let misread = &mut |_| {};
    let (measured, disk) = archive::measure_and_tell(&later, XATTR, Times::default(), &mut arriving, misread).unwrap();
    assert!(arriving.is_empty());
    assert!(disk > 0);
    assert_eq!(measured, archive::measure(&at_once, XATTR, Times::default()).unwrap());
    assert_eq!(measured, archive::measure(&later, XATTR, Times::default()).unwrap());
    assert_eq!(shown(&later), shown(&at_once));
}

#[test]
fn only_large_files_where_nothing_is_come_later() {
    let (dir, context) = scene(&["small"], LARGE - 8);
    let parent = View::over(&[], XATTR).unwrap();
    let small = dir.path().join("a");
    assert!(stage(&context, &["small"], &parent, &small).write_most(Some(&context)).unwrap().is_empty());
    let (dir, context) = scene(&["large"], LARGE);
    fs::create_dir(dir.path().join("parent")).unwrap();
    fs::write(dir.path().join("parent/large"), "").unwrap();
    let parent = View::over(&[dir.path().join("parent")], XATTR).unwrap();
    let over = dir.path().join("b");
    assert!(stage(&context, &["large"], &parent, &over).write_most(Some(&context)).unwrap().is_empty());
    assert_eq!(fs::metadata(over.join("large")).unwrap().len(), LARGE);
}

/// What a test does to a file behind the builder's back.
type Change = fn(&mut File);

#[test]
fn a_file_that_changed_meanwhile_is_told_by_its_name() {
    let changes: [(&str, Change); 3] = [
        ("another byte", |file| {
            file.seek(SeekFrom::Start(LARGE / 2)).unwrap();
            file.write_all(b"!!").unwrap();
        }),
        ("shorter", |file| file.set_len(LARGE - 1).unwrap()),
        ("longer", |file| file.set_len(LARGE + 1).unwrap()),
    ];
    for (what, change) in changes {
        let (dir, context) = scene(&["large"], LARGE);
        let parent = View::over(&[], XATTR).unwrap();
        let into = dir.path().join("a");
        let mut arriving: Arriving<'_> =
            stage(&context, &["large"], &parent, &into).write_most(Some(&context)).unwrap();
        change(&mut File::options().write(true).open(dir.path().join("context/large")).unwrap());
        let misread = &mut |_| {};
        let error = archive::measure_and_tell(&into, XATTR, Times::default(), &mut arriving, misread).unwrap_err();
        let archive::Error::Read { source, .. } = error else { panic!("{what}: {error}") };
        let error = arrived(source).unwrap();
        assert!(matches!(&error, Error::Changed { path } if path == Path::new("large")), "{what}: {error}");
    }
}
