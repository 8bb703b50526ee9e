//! Where recipes and files come from: named contexts, standard input, addresses, git repositories.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

use crate::file_server::{FileServer, MODIFIED};
use crate::layout::{self, Image};
use crate::registry::{free_address, run, shared};
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Finished, Strata, Who, Workspace};

/// A build of any context.
pub(crate) fn build(workspace: &Workspace, arguments: &[&str], context: &str) -> Strata {
    let output = workspace.layout_output("image");
    let mut all = vec!["build", "--progress", "plain", &output];
    all.extend(arguments);
    all.push(context);
    workspace.strata(all)
}

pub(crate) fn image(workspace: &Workspace) -> Image {
    layout::read(&workspace.out("image"))
}

/// A build of the workspace's own context that must work, and its image.
pub(crate) fn built(workspace: &Workspace, arguments: &[&str]) -> Image {
    let _ = fs::remove_dir_all(workspace.out("image"));
    build(workspace, arguments, workspace.context().to_str().unwrap()).run().success();
    workspace.assert_nothing_left();
    image(workspace)
}

/// A build of the workspace's own context that must fail with nothing left of it.
#[track_caller]
pub(crate) fn fails(workspace: &Workspace, arguments: &[&str], code: i32, needles: &[&str]) -> Finished {
    let finished = build(workspace, arguments, workspace.context().to_str().unwrap()).run().fails(code, needles);
    nothing_left(workspace);
    finished
}

pub(crate) fn nothing_left(workspace: &Workspace) {
    assert!(!workspace.out("image").exists(), "a partial image is left");
    workspace.assert_nothing_left();
    let scratch = workspace.state().join("tmp");
    let left: Vec<_> = fs::read_dir(&scratch).into_iter().flatten().filter_map(Result::ok).collect();
    assert!(left.is_empty(), "scratch files are left: {left:?}");
}

pub(crate) fn archive(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_mode(0o640);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, content.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

pub(crate) fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    std::io::Write::write_all(&mut encoder, bytes).unwrap();
    encoder.finish().unwrap()
}

/// What is served: a directory of the workspace.
pub(crate) fn served(workspace: &Workspace) -> (PathBuf, FileServer) {
    let root = workspace.path().join("served");
    fs::create_dir_all(&root).unwrap();
    fs::write(workspace.path().join("config.toml"), "[network]\nretries = 1\nretry-delay = 0.01\n").unwrap();
    let server = FileServer::start(&root);
    (root, server)
}

/// A repository `repo.git` below `root`, ready for dumb http: one commit on `main`, one more on `side`, a tag `v1`
/// on the first. Gives the ids of the two.
fn repository(root: &Path) -> [String; 2] {
    let work = root.join("work");
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        command.current_dir(&work).args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"]).args(arguments);
        run(command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1")).trim().to_owned()
    };
    fs::create_dir_all(work.join("sub")).unwrap();
    fs::write(work.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::write(work.join("sub/Dockerfile"), "FROM scratch\nCOPY . /below/\n").unwrap();
    fs::write(work.join("a.txt"), "first\n").unwrap();
    // Nothing is hidden in a context from a repository.
    fs::write(work.join(".dockerignore"), "a.txt\n").unwrap();
    git(&["init", "-q", "-b", "main", "."]);
    git(&["add", "-A"]);
    git(&["commit", "-q", "-m", "one"]);
    git(&["tag", "-a", "-m", "a tag", "v1"]);
    let first = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "-q", "-b", "side"]);
    fs::write(work.join("a.txt"), "second\n").unwrap();
    git(&["commit", "-q", "-a", "-m", "two"]);
    let second = git(&["rev-parse", "HEAD"]);
    git(&["checkout", "-q", "main"]);
    git(&["clone", "-q", "--bare", ".", "../repo.git"]);
    git(&["--git-dir", "../repo.git", "update-server-info"]);
    [first, second]
}

#[test]
fn a_directory_stands_for_a_name() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "FROM scratch AS deps\nCOPY nothing /\nFROM scratch\nCOPY --from=deps /a.txt /stage\nCOPY --from=other . /o/\n",
    );
    let other = workspace.path().join("other");
    fs::create_dir_all(other.join("hidden")).unwrap();
    fs::write(other.join("a.txt"), "a\n").unwrap();
    fs::write(other.join("hidden/b"), "b\n").unwrap();
    fs::write(other.join(".dockerignore"), "hidden\n").unwrap();
    // The main context's own ignore file means nothing elsewhere.
    workspace.write(".dockerignore", "a.txt\n");
    let argument = |name: &str| format!("--build-context={name}={}", other.display());
    let image = built(&workspace, &[&argument("deps"), &argument("other")]);
    assert_eq!((image.text("stage"), image.text("o/a.txt")), ("a\n".to_owned(), "a\n".to_owned()));
    assert!(!image.tree.contains_key("o/hidden"), "its own .dockerignore counts");
}

#[test]
fn a_directory_can_be_a_base() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM files\nCOPY Dockerfile /d\n");
    let files = workspace.path().join("files");
    fs::create_dir_all(&files).unwrap();
    fs::write(files.join("x"), "x\n").unwrap();
    let image = built(&workspace, &[&format!("--build-context=files={}", files.display())]);
    assert_eq!(image.text("x"), "x\n");
    assert!(image.tree.contains_key("d"));
    assert_eq!(image.layers.len(), 2);
}

#[test]
fn images_stand_for_names() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM debian\nRUN echo hello >/hello\n");
    let from_registry = format!("--build-context=debian=docker-image://{}", shared().image("busybox"));
    let base = layout::read(&shared().layout("busybox"));
    let image = built(&workspace, &[&from_registry]);
    assert_eq!(image.text("hello"), "hello\n");
    assert_eq!(image.manifest["layers"][0], base.manifest["layers"][0], "the base's layers are referenced");

    let other = Workspace::new();
    other.dockerfile("FROM debian:latest\nRUN echo hello >/hello\nCOPY --from=debian /etc/passwd /p\n");
    let layout = format!("--build-context=debian=oci-layout://{}", shared().layout("busybox").display());
    let image = built(&other, &[&layout]);
    assert_eq!(image.text("hello"), "hello\n");
    assert_eq!(image.manifest["layers"][0]["digest"], base.manifest["layers"][0]["digest"]);
    let pinned = built(&other, &[&format!("{layout}@{}", base.digest)]);
    assert_eq!(pinned.digest, image.digest);
    assert!(
        image.manifest["annotations"]["org.opencontainers.image.base.name"].is_null(),
        "nobody can pull it by a name"
    );

    let scratch = Workspace::new();
    scratch.dockerfile("FROM debian\nCOPY Dockerfile /\n");
    assert_eq!(built(&scratch, &["--build-context=debian=docker-image://scratch"]).layers.len(), 1);
}

#[test]
fn layouts_are_not_trusted() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM base\nRUN true\n");
    let copy = workspace.path().join("layout");
    run(Command::new("cp").arg("-r").arg(shared().layout("busybox")).arg(&copy));
    let argument = format!("--build-context=base=oci-layout://{}", copy.display());
    fails(&workspace, &[&format!("{argument}:nope")], 1, &["nope", "layout", "Dockerfile:1"]);
    let base = layout::read(&copy);
    let digest = base.manifest["layers"][0]["digest"].as_str().unwrap();
    let blob = copy.join("blobs").join(digest.replace(':', "/"));
    let mut bytes = fs::read(&blob).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    run(Command::new("chmod").arg("u+w").arg(&blob));
    fs::write(&blob, bytes).unwrap();
    fails(&workspace, &[&argument], 1, &[digest.strip_prefix("sha256:").unwrap(), "damaged"]);
}

#[test]
fn wrong_contexts_are_usage_errors() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    for (argument, needle) in [
        ("--build-context=nothing", "NAME=SOURCE"),
        ("--build-context=a b=.", "not an image name"),
        ("--build-context=x=/no/such/directory", "/no/such/directory"),
        ("--build-context=x=oci-layout:///no/such", "index.json"),
        ("--build-context=x=docker-image://UPPER", "image name"),
        ("--build-context=x=https://h/x.git?what=1", "what"),
    ] {
        fails(&workspace, &[argument], 2, &["--build-context", needle]);
    }
    let recipe_twice = build(&workspace, &["-f", "-"], "-").stdin("FROM scratch\n").run();
    recipe_twice.fails(2, &["standard input"]);
    let ambiguous = build(&workspace, &["-f", "Dockerfile"], "-").stdin("FROM scratch\n").run();
    ambiguous.fails(2, &["--file"]);
}

#[test]
fn standard_input_is_an_archive_or_a_recipe() {
    let tar = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("sub/a.txt", "a\n"), (".dockerignore", "sub\n")]);
    for input in [tar.clone(), gzip(&tar)] {
        let workspace = Workspace::new();
        build(&workspace, &[], "-").stdin(input).run().success();
        assert_eq!(image(&workspace).text("sub/a.txt"), "a\n");
        fs::remove_dir_all(workspace.out("image")).unwrap();
        nothing_left(&workspace);
    }
    let workspace = Workspace::new();
    build(&workspace, &[], "-").stdin("FROM scratch\nCOPY <<x /x\nhello\nx\n").run().success();
    assert_eq!(image(&workspace).text("x"), "hello\n");
    let workspace = Workspace::new();
    let finished = build(&workspace, &[], "-").stdin("FROM scratch\nCOPY a.txt /\n").run();
    finished.fails(1, &["a.txt", "standard input:2"]);
    workspace.write("a.txt", "a\n");
    let context = workspace.context();
    build(&workspace, &["-f", "-"], context.to_str().unwrap()).stdin("FROM scratch\nCOPY a.txt /\n").run().success();
    assert_eq!(image(&workspace).text("a.txt"), "a\n");
}

#[test]
fn bad_input_on_standard_input_leaves_nothing() {
    let whole = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a.txt", &"a".repeat(5000))]);
    let cut = whole[..2500].to_vec();
    let mut lying = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("AAAA/escaped", "x")]);
    let place = lying.windows(4).position(|window| window == b"AAAA").unwrap();
    lying[place..place + 4].copy_from_slice(b"../.");
    for (input, code) in
        [(cut, 1), (lying, 1), (archive(&[("a.txt", "a")]), 2), (vec![0xff; 4000], 1), (vec![b'x'; 17 << 20], 2)]
    {
        let workspace = Workspace::new();
        build(&workspace, &[], "-").stdin(input).run().fails(code, &[]);
        nothing_left(&workspace);
    }
}

#[test]
fn add_fetches_a_url_once() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a%b.txt"), "content\n").unwrap();
    fs::write(root.join("x.tar"), archive(&[("in/x", "x\n")])).unwrap();
    workspace.write("local.txt", "local\n");
    workspace.dockerfile(&format!(
        "FROM scratch\nADD {} local.txt /d/\nADD --chmod=640 --chown=3:4 {} /named\nADD {} /t/\nADD --unpack=true {} /u/\n",
        server.url("/files/a%b.txt"),
        server.url("/redirect/a%b.txt"),
        server.url("/files/x.tar"),
        server.url("/files/x.tar?again"),
    ));
    let first = built(&workspace, &[]);
    assert_eq!(first.text("d/a%b.txt"), "content\n");
    assert_eq!(first.text("d/local.txt"), "local\n");
    let entry = &first.tree["d/a%b.txt"];
    assert_eq!((entry.mode & 0o7777, entry.mtime), (0o600, MODIFIED.1));
    let named = &first.tree["named"];
    assert_eq!((named.mode & 0o7777, named.uid, named.gid), (0o640, 3, 4));
    assert!(first.tree.contains_key("t/x.tar"), "archives from URLs are not unpacked unless asked");
    assert_eq!(first.text("u/in/x"), "x\n");
    let asked = server.log().len();
    let second = built(&workspace, &[]);
    assert_eq!(second.digest, first.digest);
    let log = server.log();
    assert!(!log[asked..].iter().any(|line| line.starts_with("200")), "an unchanged file came again: {log:?}");
    fs::write(root.join("a%b.txt"), "changed\n").unwrap();
    assert_eq!(built(&workspace, &[]).text("d/a%b.txt"), "changed\n");
}

#[test]
fn add_checks_what_it_fetches() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a"), "content\n").unwrap();
    let (right, wrong) = (layout::sha256(b"content\n"), "5".repeat(64));
    let right = right.trim_start_matches("sha256:");
    let recipe = |sum: &str| {
        workspace.dockerfile(&format!("FROM scratch\nADD --checksum=sha256:{sum} {} /\n", server.url("/files/a")));
    };
    recipe(&wrong);
    fails(&workspace, &[], 1, &[&wrong, right, "Dockerfile:2"]);
    recipe(right);
    built(&workspace, &[]);
    let asked = server.log().len();
    built(&workspace, &[]);
    assert_eq!(server.log().len(), asked, "a file with a known checksum is not asked for");
    let _ = fs::remove_dir_all(workspace.out("image"));
    recipe(&wrong);
    fails(&workspace, &[], 1, &[&wrong, right]);
}

#[test]
fn urls_that_cannot_be_had() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a"), vec![b'a'; 100_000]).unwrap();
    let nobody = free_address();
    for (address, code, needle) in [
        (server.url("/files/missing"), 1, "/files/missing"),
        (server.url("/cut/a"), 1, "/cut/a"),
        (format!("http://{nobody}/a"), 3, nobody.as_str()),
        ("https://host.invalid/a".to_owned(), 3, "host.invalid"),
        ("https://user:secret@host.invalid/a".to_owned(), 1, "credentials"),
    ] {
        workspace.dockerfile(&format!("FROM scratch\nADD {address} /\n"));
        let finished = fails(&workspace, &[], code, &[needle, "Dockerfile:2"]);
        assert!(!finished.stderr.contains("secret@") || address.contains("secret"), "{}", finished.describe());
    }
}

#[test]
fn an_endless_file_can_be_interrupted() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a"), "a").unwrap();
    workspace.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url("/endless/a")));
    let mut running = build(&workspace, &[], workspace.context().to_str().unwrap()).start();
    running.wait_for("fetch http");
    running.signal(Signal::INT);
    assert_eq!(running.wait().code(), Some(130));
    nothing_left(&workspace);
    workspace.assert_store_usable();
}

#[test]
fn repositories_are_sources_and_contexts() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    let [first, second] = repository(&root);
    let url = server.url("/files/repo.git");
    workspace.dockerfile(&format!("FROM scratch\nADD {url} /main/\nADD {url}#side /side/\nADD --checksum={} {url}?tag=v1&subdir=sub /sub/\nADD --keep-git-dir=true {url}#{second} /kept/\n", &first[..8]));
    let added = built(&workspace, &[]);
    assert_eq!((added.text("main/a.txt"), added.text("side/a.txt")), ("first\n".to_owned(), "second\n".to_owned()));
    assert!(added.tree.contains_key("sub/Dockerfile") && !added.tree.contains_key("main/.git"));
    assert!(added.tree.contains_key("kept/.git"));
    assert_eq!(added.tree["main/a.txt"].mode & 0o7777, 0o644);
    let again = build(&workspace, &[], workspace.context().to_str().unwrap());
    again.run().success().cached("ADD --checksum");
    for (context, path, content) in [
        (url.clone(), "a.txt", "first\n"),
        (format!("{url}#side"), "a.txt", "second\n"),
        (format!("{url}#v1:sub"), "below/Dockerfile", "FROM scratch\nCOPY . /below/\n"),
    ] {
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, &[], &context).run().success();
        assert_eq!(image(&workspace).text(path), content, "{context}");
        assert!(!image(&workspace).tree.contains_key(".git"));
    }
    let _ = fs::remove_dir_all(workspace.out("image"));
    build(&workspace, &["--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"], &url).run().success();
    assert!(image(&workspace).tree.contains_key(".git"));
    workspace.dockerfile("FROM scratch\nCOPY --from=repo a.txt /\n");
    assert_eq!(built(&workspace, &[&format!("--build-context=repo={url}#side")]).text("a.txt"), "second\n");
}

#[test]
fn repositories_that_cannot_be_had() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    let [first, _] = repository(&root);
    let url = server.url("/files/repo.git");
    let nobody = free_address();
    for (source, code, needle) in [
        (format!("{url}#nope"), 1, "nope"),
        (format!("{url}#main:none"), 1, "none"),
        (format!("--checksum=00000000 {url}"), 1, first.as_str()),
        (server.url("/files/missing.git"), 1, "missing.git"),
        (format!("http://{nobody}/x.git"), 3, nobody.as_str()),
    ] {
        workspace.dockerfile(&format!("FROM scratch\nADD {source} /\n"));
        fails(&workspace, &[], code, &[needle, "Dockerfile:2"]);
    }
    build(&workspace, &[], &format!("{url}#nope")).run().fails(1, &["nope"]);
    build(&workspace, &[], &format!("http://{nobody}/x.git")).run().fails(3, &[&nobody]);
    workspace.dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    let without = build(&workspace, &[], workspace.context().to_str().unwrap()).env("PATH", "/no/programs");
    without.run().fails(3, &["git", "not installed"]);
    nothing_left(&workspace);
}

#[test]
fn addresses_are_contexts_and_recipes() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    let tar = archive(&[
        ("Dockerfile", "FROM scratch\nCOPY a.txt /\n"),
        ("other", "FROM scratch\nCOPY a.txt /b\n"),
        ("a.txt", "a\n"),
    ]);
    fs::write(root.join("context.tgz"), gzip(&tar)).unwrap();
    fs::write(root.join("recipe"), "FROM scratch\nCOPY <<x /x\nhello\nx\n").unwrap();
    let made = |arguments: &[&str], context: &str| {
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, arguments, context).run().success();
        image(&workspace)
    };
    let context = server.url("/files/context.tgz");
    assert_eq!(made(&[], &context).text("a.txt"), "a\n");
    assert_eq!(made(&["-f", "other"], &context).text("b"), "a\n");
    assert_eq!(made(&[], &server.url("/files/recipe")).text("x"), "hello\n");
    let directory = workspace.context();
    assert_eq!(made(&["-f", &server.url("/files/recipe")], directory.to_str().unwrap()).text("x"), "hello\n");
    workspace.dockerfile("FROM scratch\nCOPY --from=far a.txt /far\n");
    let named = format!("--build-context=far={context}");
    assert_eq!(made(&[&named], directory.to_str().unwrap()).text("far"), "a\n");
    let _ = fs::remove_dir_all(workspace.out("image"));
    build(&workspace, &[], &server.url("/files/missing")).run().fails(1, &["/files/missing"]);
    let nobody = free_address();
    build(&workspace, &[], &format!("http://{nobody}/c.tgz")).run().fails(3, &[&nobody]);
    nothing_left(&workspace);
}

#[test]
fn ordinary_users_fetch_too() {
    for name in [RANGES, SINGLE] {
        let Some(who) = user(name, "rootless: contexts from elsewhere") else { return };
        as_user(who);
    }
}

fn as_user(who: Who) {
    let workspace = Workspace::of(who);
    let (root, server) = served(&workspace);
    repository(&root);
    let url = server.url("/files/repo.git");
    fs::write(root.join("a"), "content\n").unwrap();
    workspace.dockerfile(&format!(
        "FROM base\nADD {} /\nADD {url} /g/\nCOPY --from=repo a.txt /\nRUN cat /a /g/a.txt >/both\n",
        server.url("/files/a")
    ));
    let layout = format!("--build-context=base=oci-layout://{}", shared().layout("busybox").display());
    let image_built = built(&workspace, &[&layout, &format!("--build-context=repo={url}#side")]);
    assert_eq!(image_built.text("both"), "content\nfirst\n");
    let _ = fs::remove_dir_all(workspace.out("image"));
    let tar = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a.txt", "a\n")]);
    build(&workspace, &[], "-").stdin(tar).run().success();
    assert_eq!(image(&workspace).text("a.txt"), "a\n");
}
