//! What `COPY` and `ADD` leave behind, as tables of small trees.
//!
//! A tree is a list of lines: `dir/`, `file = content`, `link -> target`, `same == file` for a further name of a file, each with
//! ` @mode` and ` @mode:uid:gid` where they are not 0755 or 0644 and root's.

use std::collections::HashMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use proptest::prelude::*;

use super::apply::apply;
use super::select::{Selection, in_order, select};
use crate::context::Context;
use crate::context::ignore::Ignore;
use crate::execute::owner::{self, Owner};
use crate::graph::{CopyOp, CopySource, InlineFile, MkdirOp, NodeId};
use crate::layer::OverlayXattr;
use crate::layer::view::View;

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        eprintln!("NOT TESTED: a layer gives files to their owners in the image, which only root may do");
    }
    root
}

fn make(dir: &Path, lines: &[&str]) {
    for line in lines {
        let (line, rights) = line.split_once(" @").unwrap_or((line, ""));
        let mut rights = rights.split(':');
        let mode = rights.next().filter(|mode| !mode.is_empty()).map(|mode| u32::from_str_radix(mode, 8).unwrap());
        let path = dir.join(line.split(' ').next().unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        if let Some((_, target)) = line.split_once(" -> ") {
            symlink(target, &path).unwrap();
        } else if let Some((_, other)) = line.split_once(" == ") {
            fs::hard_link(dir.join(other), &path).unwrap();
        } else if line.ends_with('/') {
            fs::create_dir_all(&path).unwrap();
        } else {
            fs::write(&path, line.split_once(" = ").map_or("", |(_, content)| content)).unwrap();
        }
        if let Some(uid) = rights.next() {
            lchown(&path, Some(uid.parse().unwrap()), Some(rights.next().unwrap().parse().unwrap())).unwrap();
        }
        if let Some(mode) = mode {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn show(dir: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let mut first_of: HashMap<u64, String> = HashMap::new();
    let mut pending = vec![dir.to_owned()];
    let mut paths = Vec::new();
    while let Some(at) = pending.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.symlink_metadata().unwrap().is_dir() {
                pending.push(path.clone());
            }
            paths.push(path);
        }
    }
    paths.sort();
    for path in paths {
        let name = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
        let metadata = path.symlink_metadata().unwrap();
        let kind = metadata.file_type();
        let (mut line, usual) = if kind.is_dir() {
            (format!("{name}/"), 0o755)
        } else if kind.is_symlink() {
            (format!("{name} -> {}", fs::read_link(&path).unwrap().display()), 0o777)
        } else if kind.is_fifo() {
            (format!("{name} |"), 0o644)
        } else if let Some(first) = first_of.get(&metadata.ino()).filter(|_| metadata.nlink() > 1) {
            (format!("{name} == {first}"), 0o644)
        } else {
            first_of.insert(metadata.ino(), name.clone());
            (format!("{name} = {}", fs::read_to_string(&path).unwrap()), 0o644)
        };
        let mode = metadata.mode() & 0o7777;
        if mode != usual || metadata.uid() != 0 || metadata.gid() != 0 {
            line += &format!(" @{mode:o}");
            if metadata.uid() != 0 || metadata.gid() != 0 {
                line += &format!(":{}:{}", metadata.uid(), metadata.gid());
            }
        }
        lines.push(line);
    }
    lines
}

/// An operation from the words of an instruction: flags, sources, destination.
fn op(words: &str) -> CopyOp {
    let mut op = CopyOp {
        parent: NodeId(0),
        from: NodeId(1),
        sources: Vec::new(),
        destination: String::new(),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        epoch: None,
        unpack: false,
    };
    let mut words: Vec<&str> = words.split(' ').collect();
    op.destination = words.pop().unwrap().to_owned();
    for word in words {
        match word.split_once('=') {
            Some(("--chown", value)) => op.chown = Some(value.to_owned()),
            Some(("--chmod", value)) => op.chmod = Some(value.to_owned()),
            Some(("--exclude", value)) => op.exclude.push(value.to_owned()),
            Some(("--inline", value)) => {
                op.sources.push(CopySource::Inline(InlineFile { name: value.into(), content: b"inline".to_vec() }));
            }
            Some(("--epoch", value)) => op.epoch = Some(value.parse().unwrap()),
            _ if word == "--parents" => op.parents = true,
            _ if word == "--unpack" => op.unpack = true,
            _ => op.sources.push(CopySource::Path(word.to_owned())),
        }
    }
    op
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text += ": ";
        text += &source.to_string();
        next = source.source();
    }
    text
}

fn view(dir: &Path) -> View {
    View::over(&[dir.to_owned()], OverlayXattr::Trusted).unwrap()
}

struct Scene {
    dir: tempfile::TempDir,
}

impl Scene {
    fn new(from: &[&str], parent: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (name, lines) in [("from", from), ("parent", parent)] {
            fs::create_dir(dir.path().join(name)).unwrap();
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(0o755)).unwrap();
            make(&dir.path().join(name), lines);
        }
        Self { dir }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    fn context(&self) -> Context {
        Context::open(&self.path("from"), Ignore::default(), None).unwrap()
    }

    /// Copies from the directory as a context, or as a stage where owners count.
    fn run(&self, op: &CopyOp, as_stage: bool) -> Result<Vec<String>, String> {
        let parent = view(&self.path("parent"));
        let owner =
            op.chown.as_deref().map(|spec| owner::for_files(spec, &parent).map(|found| found.owner)).transpose();
        let owner = owner.map_err(|error| chain(&error))?;
        let (context, stage) = (self.context(), view(&self.path("from")));
        let from: &dyn crate::layer::tree::Tree = if as_stage { &stage } else { &context };
        let selection = select(op, from).map_err(|error| chain(&error))?;
        let into = self.path("into");
        let _ = fs::remove_dir_all(&into);
        apply(op, &selection, from, &parent, &into, OverlayXattr::Trusted, owner.as_ref()).map_err(|e| chain(&e))?;
        Ok(show(&into))
    }
}

#[track_caller]
fn check(from: &[&str], parent: &[&str], words: &str, expected: Result<&[&str], &str>) {
    if !is_root() {
        return;
    }
    let result = Scene::new(from, parent).run(&op(words), false);
    let result = result.as_ref().map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(result.as_ref().map(Vec::as_slice).map_err(|e| e.as_str()), expected, "{words}");
}

#[test]
fn places_and_names() {
    let files = &["f = one", "d/a = a", "d/b/c = c", "e/"][..];
    check(files, &[], "f /x", Ok(&["x = one"]));
    check(files, &[], "f /x/", Ok(&["x/", "x/f = one"]));
    check(files, &[], "f /x/.", Ok(&["x/", "x/f = one"]));
    check(files, &[], "f /", Ok(&["f = one"]));
    check(files, &[], "f /p/q/x", Ok(&["p/", "p/q/", "p/q/x = one"]));
    check(files, &["x/y"], "f /x", Ok(&["x/", "x/f = one"]));
    check(files, &["x = old"], "f /x", Ok(&["x = one"]));
    check(files, &[], "/../f x", Ok(&["x = one"]));
    check(files, &[], "f d/a /x/", Ok(&["x/", "x/a = a", "x/f = one"]));
    check(files, &[], "d /x", Ok(&["x/", "x/a = a", "x/b/", "x/b/c = c"]));
    check(files, &[], "d/ /x/", Ok(&["x/", "x/a = a", "x/b/", "x/b/c = c"]));
    check(files, &[], "d /", Ok(&["a = a", "b/", "b/c = c"]));
    check(files, &[], "e /x", Ok(&["x/"]));
    check(files, &[], ". /", Ok(&["d/", "d/a = a", "d/b/", "d/b/c = c", "e/", "f = one"]));
    check(files, &["x/old = o"], "d /x", Ok(&["x/", "x/a = a", "x/b/", "x/b/c = c"]));
    check(&["a/f = 1", "b/f = 2"], &[], "a b /x/", Ok(&["x/", "x/f = 2"]));
    check(files, &[], "--inline=name /x/", Ok(&["x/", "x/name = inline"]));
    check(files, &[], "--inline=name f /x/", Ok(&["x/", "x/f = one", "x/name = inline"]));
}

#[test]
fn sources() {
    let files = &["a.txt = a", "b.txt = b", "c.md = c", "d/x.txt = x", "d/sub/y.txt = y", "arr[0] = z"][..];
    check(files, &[], "missing /x", Err("\"missing\" was not found"));
    check(files, &[], "a.txt/more /x", Err("\"a.txt/more\" was not found"));
    check(files, &[], "*.go /x/", Ok(&[]));
    check(files, &[], "missin[g] a.txt /x/", Ok(&["x/", "x/a.txt = a"]));
    check(files, &[], "missing/*.go /x/", Err("\"missing/*.go\" was not found"));
    check(files, &[], "*.txt /x/", Ok(&["x/", "x/a.txt = a", "x/b.txt = b"]));
    check(files, &[], "*.txt /x", Ok(&["x = b"]));
    check(files, &[], "*/*.txt /", Ok(&["x.txt = x"]));
    check(files, &[], "d/*/y.txt /", Ok(&["y.txt = y"]));
    check(files, &[], "? /x/", Ok(&["x/", "x/sub/", "x/sub/y.txt = y", "x/x.txt = x"]));
    check(files, &[], "arr[[]0] /x", Ok(&["x = z"]));
    check(files, &[], "[^z].txt /x/", Ok(&["x/", "x/a.txt = a", "x/b.txt = b"]));
    check(files, &[], "d[^x]x.txt /x/", Ok(&["x/", "x/x.txt = x"]));
    let bad = "a source is not a valid pattern: a [ without its ] in the pattern \"a[\"";
    check(files, &[], "a[ /x", Err(bad));
}

#[test]
fn links_in_sources() {
    let files = &["d/f = f", "d/l -> f", "d/abs -> /etc/passwd", "dir -> d", "file -> d/f", "out -> ../../secret"][..];
    check(files, &[], "file /x", Ok(&["x = f"]));
    check(files, &[], "file /x/", Ok(&["x/", "x/file = f"]));
    check(files, &[], "dir /x", Ok(&["x/", "x/abs -> /etc/passwd", "x/f = f", "x/l -> f"]));
    check(files, &[], "dir/f /x", Ok(&["x = f"]));
    check(files, &[], "d/abs /x", Err("\"d/abs\" was not found"));
    check(files, &[], "out /x", Err("\"out\" was not found"));
    check(files, &[], "fil* /x/", Ok(&["x/", "x/file = f"]));
    check(files, &[], "dir/* /x/", Err("\"dir/*\" was not found"));
    check(&["d/f = f", "dir -> d"], &[], "dir/* /x/", Ok(&["x/", "x/f = f"]));
    check(
        &["a -> b", "b -> a"],
        &[],
        "a /x",
        Err("cannot read a to copy it: Too many levels of symbolic links (os error 40)"),
    );
}

#[test]
fn links_in_the_destination() {
    let files = &["f = f", "d/s/g = g"][..];
    check(files, &["real/", "link -> real"], "f /link", Ok(&["real/", "real/f = f"]));
    check(files, &["real/", "link -> real"], "f /link/", Ok(&["real/", "real/f = f"]));
    check(files, &["real/", "link -> /real"], "f /link/x", Ok(&["real/", "real/x = f"]));
    check(files, &["real/", "link -> ../../real"], "d /link", Ok(&["real/", "real/s/", "real/s/g = g"]));
    check(files, &["link -> gone/deep"], "f /link", Ok(&["gone/", "gone/deep = f"]));
    check(files, &["link -> gone"], "d /link", Ok(&["gone/", "gone/s/", "gone/s/g = g"]));
    check(files, &["t = old", "link -> t"], "f /link", Ok(&["t = f"]));
    check(files, &["f -> t", "t = old"], "f /", Ok(&["f = f"]));
}

#[test]
fn conflicts() {
    let files = &["f = f", "d/x = x", "e/x/y = y"][..];
    check(files, &["t = t"], "f /t/", Err("cannot make the directory /t: something that is not a directory is there"));
    check(files, &["t = t"], "f /t/u", Err("cannot make the directory /t: something that is not a directory is there"));
    check(files, &["t = t"], "d /t", Err("cannot copy a directory to /t: something that is not a directory is there"));
    check(
        files,
        &["t/x = old"],
        "e /t",
        Err("cannot copy a directory to /t/x: something that is not a directory is there"),
    );
    check(
        files,
        &["t/x -> y", "t/y/"],
        "e /t",
        Err("cannot copy a directory to /t/x: something that is not a directory is there"),
    );
    check(files, &["t/x/"], "d /t", Err("cannot copy a file to /t/x: a directory is there"));
    check(files, &["t/f/"], "f /t", Err("cannot copy a file to /t/f: a directory is there"));
    check(files, &[], "d e /t/", Err("cannot copy a directory to /t/x: something that is not a directory is there"));
    check(files, &[], "e d /t/", Err("cannot copy a file to /t/x: a directory is there"));
    check(files, &["t/x -> /etc"], "d /t", Ok(&["t/", "t/x = x"]));
    check(
        files,
        &["l -> l"],
        "f /l/x",
        Err("cannot read /l of the file system to add to: Too many levels of symbolic links (os error 40)"),
    );
}

#[test]
fn metadata() {
    if !is_root() {
        return;
    }
    let files = &["f = f @4755", "d/ @700", "d/s/ @711", "d/s/g = g @600", "l -> f"][..];
    let parent =
        &["etc/passwd = root:x:0:0::/:\napp:x:5:6::/:", "etc/group = web:x:7:", "t/ @1777:3:4", "t/s/ @750:8:9"][..];
    check(files, parent, "f /x", Ok(&["x = f @4755"]));
    check(files, parent, "f /t/", Ok(&["t/ @1777:3:4", "t/f = f @4755"]));
    // A directory that is there keeps its metadata as the destination, and takes the source's below it.
    check(files, parent, "d /t", Ok(&["t/ @1777:3:4", "t/s/ @711", "t/s/g = g @600"]));
    // A new one is 0755, whatever the source's own is.
    check(files, parent, "d /n", Ok(&["n/", "n/s/ @711", "n/s/g = g @600"]));
    check(files, parent, "--chown=app f /p/x", Ok(&["p/ @755:5:6", "p/x = f @4755:5:6"]));
    check(files, parent, "--chown=app:web d /t", Ok(&["t/ @1777:3:4", "t/s/ @711:5:7", "t/s/g = g @600:5:7"]));
    check(files, parent, "--chown=1000 l /x", Ok(&["x = f @4755:1000:1000"]));
    check(
        files,
        parent,
        "--chown=1:2 . /x/",
        Ok(&[
            "x/ @755:1:2",
            "x/d/ @700:1:2",
            "x/d/s/ @711:1:2",
            "x/d/s/g = g @600:1:2",
            "x/f = f @4755:1:2",
            "x/l -> f @777:1:2",
        ]),
    );
    check(files, parent, "--chmod=640 f /x", Ok(&["x = f @640"]));
    check(files, parent, "--chmod=750 f /p/x", Ok(&["p/ @750", "p/x = f @750"]));
    check(files, parent, "--chmod=750 d /t", Ok(&["t/ @1777:3:4", "t/s/ @750", "t/s/g = g @750"]));
    check(files, parent, "--chmod=u=rwX,go=rX d /n", Ok(&["n/", "n/s/", "n/s/g = g"]));
    check(files, parent, "--chmod=go-rwx --inline=i /q/", Ok(&["q/ @700", "q/i = inline @600"]));
    check(files, parent, "--chown=nobody f /x", Ok(&["x = f @4755"]));
    let not_a_mode = "\"abc\" is not a mode: expected an octal number up to 7777, or letters such as u=rwX,go=rX";
    check(files, parent, "--chmod=abc f /x", Err(not_a_mode));
}

#[test]
fn a_context_belongs_to_root_and_a_stage_keeps_its_owners() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&["d/f = f @640:11:12", "d/s/ @755:13:14", "d/l -> f @:15:16"], &[]);
    assert_eq!(scene.run(&op("d /x"), false).unwrap(), ["x/", "x/f = f @640", "x/l -> f", "x/s/"]);
    assert_eq!(
        scene.run(&op("d /x"), true).unwrap(),
        ["x/", "x/f = f @640:11:12", "x/l -> f @777:15:16", "x/s/ @755:13:14"]
    );
    assert_eq!(scene.run(&op("d/f /x"), true).unwrap(), ["x = f @640:11:12"]);
}

#[test]
fn excludes() {
    let files = &["a.txt = a", "b.md = b", "d/c.txt = c", "d/e.md = e", "n/m/k = k", "n/o = o"][..];
    check(
        files,
        &[],
        "--exclude=*.txt . /",
        Ok(&["b.md = b", "d/", "d/c.txt = c", "d/e.md = e", "n/", "n/m/", "n/m/k = k", "n/o = o"]),
    );
    check(files, &[], "--exclude=**/*.txt --exclude=n . /", Ok(&["b.md = b", "d/", "d/e.md = e"]));
    check(files, &[], "--exclude=* --exclude=!n/m . /", Ok(&["n/", "n/m/", "n/m/k = k"]));
    check(files, &[], "--exclude=* d /x", Ok(&["x/"]));
    check(files, &[], "--exclude=c.txt d /x", Ok(&["x/", "x/e.md = e"]));
    // As in BuildKit, a file that is named itself is not subject to it, nor is a pattern with a leading slash.
    check(files, &[], "--exclude=a.txt *.txt /x/", Ok(&["x/", "x/a.txt = a"]));
    check(files, &[], "--exclude=/c.txt d /x", Ok(&["x/", "x/c.txt = c", "x/e.md = e"]));
    check(
        files,
        &[],
        "--exclude=[ d /x",
        Err("a pattern is not valid: --exclude:1: invalid ignore pattern: a [ without its ] in the pattern \"[\""),
    );
}

#[test]
fn parents() {
    let files = &["a/ @700", "a/b/c/f = f", "a/b/c/g = g", "a/b2/c/f = f2", "a/x = x"][..];
    check(files, &[], "--parents a/b/c/f /", Ok(&["a/ @700", "a/b/", "a/b/c/", "a/b/c/f = f"]));
    check(files, &[], "--parents a/b/./c/f /o/", Ok(&["o/", "o/c/", "o/c/f = f"]));
    check(
        files,
        &[],
        "--parents ./a/b/c/. /o/",
        Ok(&["o/", "o/a/ @700", "o/a/b/", "o/a/b/c/", "o/a/b/c/f = f", "o/a/b/c/g = g"]),
    );
    check(
        files,
        &[],
        "--parents a/./*/c/f /o",
        Ok(&["o/", "o/b/", "o/b/c/", "o/b/c/f = f", "o/b2/", "o/b2/c/", "o/b2/c/f = f2"]),
    );
    check(files, &[], "--parents a/b*/./c/f /o/", Ok(&["o/", "o/c/", "o/c/f = f2"]));
    check(files, &[], "--parents a/**/g /o/", Ok(&["o/", "o/a/ @700", "o/a/b/", "o/a/b/c/", "o/a/b/c/g = g"]));
    check(
        files,
        &[],
        "--parents --exclude=**/g a/b /o/",
        Ok(&["o/", "o/a/ @700", "o/a/b/", "o/a/b/c/", "o/a/b/c/f = f"]),
    );
    check(files, &[], "--parents a/z*/c /o/", Ok(&["o/"]));
    check(files, &[], "--parents a/z /o/", Err("\"a/z\" was not found"));
    check(files, &[], "--parents a/z/./c /o/", Err("\"a/z/./c\" was not found"));
    // A directory that comes along changes only the mode of one that is there.
    if is_root() {
        check(files, &["a/ @711:1:2"], "--parents a/x /", Ok(&["a/ @700:1:2", "a/x = x"]));
    }
}

#[test]
fn hard_links_stay_inside_one_source() {
    let files = &["d/a = one", "d/b == d/a", "d/s/c == d/a", "e/z == d/a"][..];
    check(files, &[], "d /x", Ok(&["x/", "x/a = one", "x/b == x/a", "x/s/", "x/s/c == x/a"]));
    check(files, &[], "d e /x/", Ok(&["x/", "x/a = one", "x/b == x/a", "x/s/", "x/s/c == x/a", "x/z = one"]));
    // The first name is replaced by a later source; the others still share.
    check(
        &["d/a = one", "d/b == d/a", "d/c == d/a", "e/a = two"],
        &[],
        "d e /x/",
        Ok(&["x/", "x/a = two", "x/b = one", "x/c == x/b"]),
    );
}

#[test]
fn pipes_are_copied_and_times_kept() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&["d/f = f"], &["t/"]);
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.path("from/d/p"), 0o644.into()).unwrap();
    let set = |path: &str, seconds: i64| {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 123_456_789 };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(rustix::fs::CWD, scene.path(path), &times, rustix::fs::AtFlags::empty()).unwrap();
    };
    set("from/d/f", 1000);
    set("from/d", 3000);
    set("parent/t", 2000);
    assert_eq!(scene.run(&op("d /t"), false).unwrap(), ["t/", "t/f = f", "t/p |"]);
    let time = |path: &str| {
        let metadata = scene.path(path).metadata().unwrap();
        (metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!(time("into/t/f"), (1000, 123_456_789));
    // The directory whose contents a directory gets gives it its time.
    assert_eq!(time("into/t"), (3000, 123_456_789));
    scene.run(&op("--epoch=1500 --inline=i d /t/n/"), false).unwrap();
    assert_eq!(time("into/t/n/f"), (1000, 123_456_789));
    assert_eq!(time("into/t/n/i"), (1500, 0));
    assert_eq!(time("into/t/n"), (1500, 0));
    assert_eq!(time("into/t"), (1500, 0));
}

#[test]
fn the_mark_of_a_deleted_file_is_not_copied() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&["d/f = f"], &[]);
    let device = rustix::fs::makedev(0, 0);
    let kind = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, scene.path("from/d/gone"), kind, 0o600.into(), device).unwrap();
    let error = scene.run(&op("d /x"), false).unwrap_err();
    assert_eq!(error, "cannot copy d/gone: a character device 0:0 in a layer stands for a deleted file");
}

#[test]
fn attributes_are_kept() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&["f = f"], &["t/ @755"]);
    let set =
        |path: &str, name: &str| rustix::fs::setxattr(scene.path(path), name, b"v", rustix::fs::XattrFlags::empty());
    if let Err(error) = set("from/f", "user.note") {
        eprintln!("NOT TESTED: the file system of the temporary directory has no user attributes: {error}");
        return;
    }
    set("parent/t", "user.dir").unwrap();
    scene.run(&op("f /t/"), false).unwrap();
    for (path, name) in [("into/t/f", "user.note"), ("into/t", "user.dir")] {
        let mut value = [0; 8];
        let length = rustix::fs::getxattr(scene.path(path), name, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"v");
    }
}

#[test]
fn a_change_between_selection_and_copy_is_an_error() {
    let scene = Scene::new(&["f = one"], &[]);
    let (context, parent) = (scene.context(), view(&scene.path("parent")));
    let op = op("f /x");
    let selection = select(&op, &context).unwrap();
    fs::write(scene.path("from/f"), "two").unwrap();
    let into = scene.path("into");
    let error = apply(&op, &selection, &context, &parent, &into, OverlayXattr::Trusted, None).unwrap_err();
    assert!(error.to_string().starts_with("f was changed while the build was copying it"), "{error}");
}

fn digest(files: &[&str], words: &str) -> Selection {
    let scene = Scene::new(files, &[]);
    select(&op(words), &scene.context()).unwrap()
}

#[test]
fn the_digest_covers_what_reaches_the_layer_and_no_more() {
    let base = digest(&["a/x = 1"], "a/x /t").digest;
    let same = |files: &[&str], words: &str| assert_eq!(digest(files, words).digest, base, "{words}");
    let other = |files: &[&str], words: &str| assert_ne!(digest(files, words).digest, base, "{files:?} {words}");
    same(&["b/c/x = 1", "noise"], "b/c/x /t");
    same(&["a/x = 1", "l -> a"], "l/x /t");
    other(&["a/x = 2"], "a/x /t");
    other(&["a/x = 1 @600"], "a/x /t");
    other(&["a/y = 1"], "a/y /t");
    other(&["a/x -> 1", "a/1 = 1"], "a /t");
    other(&["a/x = 1"], "a /t");
    assert_eq!(
        digest(&["a/x = 1 @600"], "--chmod=644 a/x /t").digest,
        digest(&["a/x = 1"], "--chmod=644 a/x /t").digest
    );
    assert_ne!(
        digest(&["a/x = 1 @600"], "--chmod=g+r a/x /t").digest,
        digest(&["a/x = 1"], "--chmod=g+r a/x /t").digest
    );
    assert_eq!(digest(&["a/x = 1"], "a /t").digest, digest(&["b/x = 1", "b/ @700"], "b /t").digest);
    assert_ne!(
        digest(&["a/x = 1", "a/y = 1"], "a /t").digest,
        digest(&["a/x = 1", "a/y == a/x"], "a /t").digest,
        "hard links count"
    );
    if is_root() {
        let staged = |files: &[&str], words: &str| {
            let scene = Scene::new(files, &[]);
            select(&op(words), &view(&scene.path("from"))).unwrap().digest
        };
        assert_ne!(staged(&["x = 1 @644:1:1"], "x /t"), staged(&["x = 1"], "x /t"));
        assert_eq!(staged(&["x = 1 @644:1:1"], "--chown=5 x /t"), staged(&["x = 1"], "--chown=5 x /t"));
        assert_eq!(staged(&["x = 1"], "x /t"), digest(&["x = 1"], "x /t").digest);
    }
}

/// A tar archive with entries given as in [`make`].
fn tar(lines: &[&str]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for line in lines {
        let (line, rights) = line.split_once(" @").unwrap_or((line, ""));
        let mut rights = rights.split(':');
        let mode = rights.next().filter(|mode| !mode.is_empty());
        let name = line.split(' ').next().unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode.map_or(0o644, |mode| u32::from_str_radix(mode, 8).unwrap()));
        header.set_uid(rights.next().map_or(0, |uid| uid.parse().unwrap()));
        header.set_gid(rights.next().map_or(0, |gid| gid.parse().unwrap()));
        header.set_mtime(500);
        let mut content = "";
        let mut link = None;
        if let Some((_, target)) = line.split_once(" -> ") {
            header.set_entry_type(tar::EntryType::Symlink);
            link = Some(target);
        } else if let Some((_, target)) = line.split_once(" == ") {
            header.set_entry_type(tar::EntryType::Link);
            link = Some(target);
        } else if name.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            if mode.is_none() {
                header.set_mode(0o755);
            }
        } else if line.ends_with(" |") {
            header.set_entry_type(tar::EntryType::Fifo);
        } else {
            content = line.split_once(" = ").map_or("", |(_, content)| content);
        }
        header.set_size(content.len() as u64);
        // Written raw, because the library refuses the names that matter here.
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        if let Some(link) = link {
            header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
        }
        header.set_cksum();
        archive.append(&header, content.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

#[track_caller]
fn check_archive(lines: &[&str], parent: &[&str], words: &str, expected: Result<&[&str], &str>) {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&[], parent);
    fs::write(scene.path("from/a"), tar(lines)).unwrap();
    let result = scene.run(&op(words), false);
    let result = result.as_ref().map(|lines| lines.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(result.as_ref().map(Vec::as_slice).map_err(|e| e.as_str()), expected, "{lines:?} {words}");
}

#[test]
fn archives_are_unpacked() {
    if !is_root() {
        return;
    }
    let files = &["d/ @711:1:2", "d/f = f @4755:3:4", "g = g", "d/h == g", "l -> g @777:5:6", "p |"][..];
    let plain = &["t/", "t/d/ @711:1:2", "t/d/f = f @4755:3:4", "t/d/h = g", "t/g == t/d/h", "t/l -> g @777:5:6"][..];
    check_archive(files, &[], "--unpack a /t", Ok(plain));
    check_archive(files, &["t/ @700:7:7"], "--unpack a /t/", Ok(&[&["t/ @700:7:7"], &plain[1..]].concat()));
    check_archive(&["f = f @600:1:1"], &[], "--unpack --chown=8:9 a /t", Ok(&["t/ @755:8:9", "t/f = f @600:8:9"]));
    check_archive(&["f = f @600"], &[], "--unpack --chmod=750 a /t", Ok(&["t/", "t/f = f @600"]));
    check_archive(&["a/b/f = f"], &[], "--unpack --chown=1 a /", Ok(&["a/", "a/b/", "a/b/f = f @644:1:1"]));
    check_archive(&["./", "./x = x", "/y = y"], &[], "--unpack a /", Ok(&["x = x", "y = y"]));
    check_archive(&[".wh.x = x"], &["x = x"], "--unpack a /", Ok(&[".wh.x = x"]));
    check_archive(&["f = 1", "f = 2"], &[], "--unpack a /", Ok(&["f = 2"]));
    check_archive(&["f = new"], &["f = old"], "--unpack a /", Ok(&["f = new"]));
    check_archive(&["d = now a file"], &["d/x = x"], "--unpack a /", Ok(&["d = now a file"]));
    check_archive(&["d/ @700"], &["d = file"], "--unpack a /", Ok(&["d/ @700"]));
    check_archive(
        &["lib/ @755", "lib/x = x"],
        &["lib -> usr/lib", "usr/lib/"],
        "--unpack a /",
        Ok(&["lib/", "lib/x = x"]),
    );
    check_archive(
        &["lib/x = x"],
        &["lib -> usr/lib", "usr/lib/"],
        "--unpack a /",
        Ok(&["usr/", "usr/lib/", "usr/lib/x = x"]),
    );
    check_archive(&["x == old"], &["old = o"], "--unpack a /", Ok(&["x = o"]));
    check_archive(
        &["f = f"],
        &["t = file"],
        "--unpack a /t",
        Err("cannot make the directory /t: something that is not a directory is there"),
    );
}

#[test]
fn archives_never_lead_outside() {
    check_archive(
        &["../x = x"],
        &[],
        "--unpack a /t",
        Err("cannot unpack ../x from the archive a: its name leads out of the archive"),
    );
    check_archive(
        &["a/../../x = x"],
        &[],
        "--unpack a /t",
        Err("cannot unpack a/../../x from the archive a: its name leads out of the archive"),
    );
    check_archive(
        &["l -> /etc", "l/x = x"],
        &["etc/"],
        "--unpack a /t",
        Ok(&["t/", "t/etc/", "t/etc/x = x", "t/l -> /etc"]),
    );
    check_archive(&["l -> ../../..", "l/x = x"], &[], "--unpack a /t", Ok(&["t/", "t/l -> ../../..", "t/x = x"]));
    let missing = "cannot unpack x from the archive a: it is a hard link to something that is not a file";
    check_archive(
        &["x == ../../etc/passwd"],
        &[],
        "--unpack a /t",
        Err("cannot unpack x from the archive a: its name leads out of the archive"),
    );
    check_archive(&["x == etc/passwd"], &["etc/passwd = p"], "--unpack a /t", Err(missing));
    check_archive(&["l -> /", "x == l/f"], &["f = f"], "--unpack a /t", Err(missing));
}

#[test]
fn a_directory_that_comes_back_hides_the_roots() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&[], &["d/old = o"]);
    fs::write(scene.path("from/a"), tar(&["d = file", "d/", "d/new = n"])).unwrap();
    assert_eq!(scene.run(&op("--unpack a /"), false).unwrap(), ["d/", "d/new = n"]);
    let stack = View::over(&[scene.path("into"), scene.path("parent")], OverlayXattr::Trusted).unwrap();
    let names = crate::layer::tree::Tree::names(&stack, Path::new("d")).unwrap();
    assert_eq!(names, ["new"]);
}

#[test]
fn archives_are_told_by_content() {
    if !is_root() {
        return;
    }
    let archive = tar(&["f = f"]);
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    let bzip2 = {
        let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    let xz = {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(&archive).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&archive[..], 1).unwrap();
    for (name, bytes) in [("a.txt", archive), ("b", gzip), ("c.zip", bzip2), ("d", xz), ("e", zstd)] {
        let scene = Scene::new(&[], &[]);
        fs::write(scene.path("from").join(name), bytes).unwrap();
        assert_eq!(scene.run(&op(&format!("--unpack {name} /t/")), false).unwrap(), ["t/", "t/f = f"], "{name}");
    }
    let gzipped_text = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::none());
        encoder.write_all(b"just text").unwrap();
        encoder.finish().unwrap()
    };
    for (name, bytes) in [("x.tar", b"no archive".to_vec()), ("empty.tar", Vec::new()), ("y.tar.gz", gzipped_text)] {
        let scene = Scene::new(&[], &[]);
        fs::write(scene.path("from").join(name), &bytes).unwrap();
        let copied = scene.path("into/t").join(name);
        let into = scene.path("into");
        let (context, parent) = (scene.context(), view(&scene.path("parent")));
        let op = op(&format!("--unpack {name} /t/"));
        let selection = select(&op, &context).unwrap();
        apply(&op, &selection, &context, &parent, &into, OverlayXattr::Trusted, None).unwrap();
        assert_eq!(fs::read(copied).unwrap(), bytes, "{name}");
    }
}

#[test]
fn a_damaged_archive_is_an_error() {
    if !is_root() {
        return;
    }
    let scene = Scene::new(&[], &[]);
    let mut archive = tar(&["f = f", "g = g"]);
    archive.truncate(512 + 512 + 300);
    fs::write(scene.path("from/a"), archive).unwrap();
    let error = scene.run(&op("--unpack a /t"), false).unwrap_err();
    assert!(error.starts_with("cannot unpack the archive a: "), "{error}");
}

#[test]
fn working_directories() {
    if !is_root() {
        return;
    }
    let run = |parent: &[&str], path: &str| {
        let scene = Scene::new(&[], parent);
        let op = MkdirOp { parent: NodeId(0), path: path.into(), user: String::new(), epoch: None };
        let into = scene.path("into");
        let owner = Owner { uid: 5, gid: 6, ..Owner::default() };
        crate::execute::mkdir::make(&op, &view(&scene.path("parent")), &into, OverlayXattr::Trusted, &owner)
            .map(|made| (made, show(&into)))
            .map_err(|error| chain(&error))
    };
    let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
    assert_eq!(run(&[], "/a/b"), Ok((true, lines(&["a/ @755:5:6", "a/b/ @755:5:6"]))));
    assert_eq!(run(&["a/ @700"], "/a/b"), Ok((true, lines(&["a/ @700", "a/b/ @755:5:6"]))));
    assert_eq!(run(&["a/b/ @700"], "/a/b"), Ok((false, vec![])));
    assert_eq!(run(&[], "/"), Ok((false, vec![])));
    assert_eq!(run(&["l -> /r", "r/"], "/l/b"), Ok((true, lines(&["r/", "r/b/ @755:5:6"]))));
    assert_eq!(run(&["l -> /r"], "/l"), Ok((true, lines(&["r/ @755:5:6"]))));
    let in_the_way = "cannot make the directory /a: something that is not a directory is there";
    assert_eq!(run(&["a = file"], "/a"), Err(in_the_way.into()));
    assert!(run(&["a = file"], "/a/b").is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn paths_are_ordered_part_by_part(paths in prop::collection::vec("[a.\\-0\\x01/ä]{1,3}(/[a.\\-é]{1,2}){0,2}", 2)) {
        let clean = |text: &str| Path::new(text).components().filter(|part| matches!(part, std::path::Component::Normal(_))).collect::<std::path::PathBuf>();
        let (left, right) = (clean(&paths[0]), clean(&paths[1]));
        prop_assert_eq!(in_order(&left, &right), left.cmp(&right), "{:?}", paths);
    }

    #[test]
    fn the_same_files_give_the_same_digest_however_they_were_made(
        files in prop::collection::btree_map("[a-c](/[a-c]){0,2}x", "[ab]{0,2}", 1..8),
        seed in any::<prop::sample::Index>(),
    ) {
        let lines: Vec<String> = files.iter().map(|(path, content)| format!("{path} = {content}")).collect();
        let mut lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        let one = digest(&lines, ". /t");
        let turn = seed.index(lines.len());
        lines.rotate_left(turn);
        let two = digest(&lines, ". /t");
        prop_assert_eq!(one.digest, two.digest);
        let ids = |selection: &Selection| selection.groups[0].items.iter().map(|item| (item.path.clone(), item.id)).collect::<Vec<_>>();
        prop_assert_eq!(ids(&one), ids(&two));
    }
}
