//! What is fetched: repositories over git's own protocol and ssh, archives of every kind, the times that belong to them,
//! and that all of it is fetched once only.
//!
//! Every server runs on loopback and is the test's own.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::contexts::{archive, build, built, fails, gzip, image, nothing_left, served};
use crate::file_server::MODIFIED;
use crate::layout::Image;
use crate::registry::{free_address, run, shared};
use crate::skip::{is_root, skip};
use crate::workspace::Workspace;

/// When every commit of these tests was made.
const COMMITTED: u64 = 1_234_567_890;

/// A server process that ends with the test.
struct Server {
    child: Child,
}

impl Server {
    /// Starts a program, and waits until it answers at an address of loopback.
    fn start(mut command: Command, address: &str) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let server = Self { child };
        let until = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(address).is_err() {
            assert!(Instant::now() < until, "{command:?} never listened at {address}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `git` in a directory, without anybody's settings.
fn git(directory: &Path, arguments: &[&str]) -> String {
    let date = format!("{COMMITTED} +0100");
    let mut command = Command::new("git");
    command.current_dir(directory).args(["-c", "user.name=t", "-c", "user.email=t@example.invalid"]);
    command.args(["-c", "protocol.file.allow=always", "-c", "init.defaultBranch=main"]).args(arguments);
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
    command.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date);
    run(&mut command).trim().to_owned()
}

/// What [`repositories`] made.
pub(crate) struct Made {
    /// The commit of `main`.
    main: String,
    /// The commit that the tag `v1` is of.
    first: String,
    /// The tag object `v1`.
    tag: String,
}

/// Repositories below `root`: `sub.git`, and `top.git` which has it as its submodule `module`, and two commits.
pub(crate) fn repositories(root: &Path) -> Made {
    for name in ["sub", "top"] {
        fs::create_dir_all(root.join(name)).unwrap();
        git(&root.join(name), &["init", "-q", "."]);
    }
    let (sub, top) = (root.join("sub"), root.join("top"));
    fs::write(sub.join("inner.txt"), "inner\n").unwrap();
    git(&sub, &["add", "-A"]);
    git(&sub, &["commit", "-q", "-m", "sub"]);
    git(root, &["clone", "-q", "--bare", "sub", "sub.git"]);
    fs::write(top.join("Dockerfile"), "FROM scratch\nCOPY . /\n").unwrap();
    fs::create_dir(top.join("dir")).unwrap();
    fs::write(top.join("dir/a.txt"), "first\n").unwrap();
    symlink("/etc", top.join("out")).unwrap();
    git(&top, &["add", "-A"]);
    git(&top, &["commit", "-q", "-m", "one"]);
    git(&top, &["tag", "-a", "-m", "a tag", "v1"]);
    let first = git(&top, &["rev-parse", "HEAD"]);
    fs::write(top.join("dir/a.txt"), "second\n").unwrap();
    // Relative, so that the same holds for every protocol.
    git(&top, &["submodule", "add", "-q", "../sub.git", "module"]);
    git(&top, &["commit", "-q", "-a", "-m", "two"]);
    let main = git(&top, &["rev-parse", "HEAD"]);
    let tag = git(&top, &["rev-parse", "v1"]);
    git(root, &["clone", "-q", "--bare", "top", "top.git"]);
    for name in ["sub.git", "top.git"] {
        git(&root.join(name), &["config", "uploadpack.allowAnySHA1InWant", "true"]);
        git(&root.join(name), &["update-server-info"]);
    }
    Made { main, first, tag }
}

/// Serves the repositories of a directory over git's own protocol; gives the address of the directory.
fn daemon(root: &Path) -> (Server, String) {
    let address = free_address();
    let (host, port) = address.split_once(':').unwrap();
    // The program itself: `git daemon` would be its parent, and only that would be ended.
    let program = PathBuf::from(run(Command::new("git").arg("--exec-path")).trim()).join("git-daemon");
    let mut command = Command::new(program);
    command.args(["--export-all", "--reuseaddr"]).arg(format!("--listen={host}")).arg(format!("--port={port}"));
    command.arg(format!("--base-path={}", root.display())).arg(root);
    (Server::start(command, &address), format!("git://{address}"))
}

fn again(workspace: &Workspace, arguments: &[&str], context: &str) -> Image {
    let _ = fs::remove_dir_all(workspace.out("image"));
    build(workspace, arguments, context).run().success();
    workspace.assert_nothing_left();
    image(workspace)
}

fn created(image: &Image) -> &str {
    image.config["created"].as_str().unwrap()
}

#[test]
fn every_key_of_an_address_counts() {
    let workspace = Workspace::new();
    // Elsewhere, because no process may be left that has to do with the workspace.
    let elsewhere = tempfile::tempdir().unwrap();
    let Made { main, first, tag } = repositories(elsewhere.path());
    let (_daemon, base) = daemon(elsewhere.path());
    let url = format!("{base}/top.git");
    let made = |rest: &str| again(&workspace, &[], &format!("{url}{rest}"));

    let plain = made("");
    assert_eq!((plain.text("dir/a.txt").as_str(), plain.text("module/inner.txt").as_str()), ("second\n", "inner\n"));
    assert!(!plain.tree.contains_key(".git") && !plain.tree.contains_key("module/.git"));
    assert_ne!(plain.tree["dir/a.txt"].mtime, COMMITTED);
    let by_tag = format!("?tag=v1&commit={}", &tag[..12]);
    for v1 in ["#v1", "?tag=v1", "?ref=refs/tags/v1", "?tag=refs/tags/v1", by_tag.as_str()] {
        assert_eq!(made(v1).text("dir/a.txt"), "first\n", "{v1}");
    }
    let by_commit = [
        format!("#{first}"),
        format!("?commit={first}"),
        format!("?ref=v1&checksum={}", &first[..7].to_uppercase()),
        format!("?branch=main&commit={first}&fetch-by-commit=true"),
    ];
    for rest in by_commit {
        assert_eq!(made(&rest).text("dir/a.txt"), "first\n", "{rest}");
    }
    let bare = made("?branch=main&submodules=false");
    assert!(!bare.tree.contains_key("module/inner.txt") && bare.tree.contains_key("module"));
    // Times are in no key.
    let old = again(&workspace, &["--no-cache"], &format!("{url}?mtime=commit"));
    for path in ["dir", "dir/a.txt", "out", "module/inner.txt"] {
        assert_eq!(old.tree[path].mtime, COMMITTED, "{path}");
    }
    assert!(made("?keep-git-dir").tree.contains_key(".git/HEAD"));
    workspace.dockerfile(&format!(
        "FROM scratch\nADD {url}?subdir=dir&ref=main /d/\nADD --checksum={tag} {url}#v1:dir /v/\n"
    ));
    let added = built(&workspace, &[]);
    assert_eq!((added.text("d/a.txt"), added.text("v/a.txt")), ("second\n".to_owned(), "first\n".to_owned()));

    let short = format!("#{}", &first[..8]);
    for (rest, code, needles) in [
        ("?subdirs=x", 2, ["`subdirs` in its query", "did you mean `subdir`"]),
        ("?ref=main&ref=v1", 2, ["twice", "ref"]),
        ("?ref=main&commit=0000000", 1, [main.as_str(), "0000000 is expected"]),
        (short.as_str(), 1, ["no branch, tag or ref", "its whole id"]),
        ("#main:nowhere", 1, ["no directory", "nowhere"]),
        ("#main:out", 1, ["no directory", "out"]),
        ("#main:../sub", 2, ["leads out", "subdirectory"]),
    ] {
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, &[], &format!("{url}{rest}")).run().fails(code, &needles);
        nothing_left(&workspace);
    }
}

#[test]
fn repositories_come_over_ssh() {
    const WHAT: &str = "repositories over ssh";
    const SSHD: &str = "/usr/sbin/sshd";
    if !is_root() {
        return skip(WHAT, "sshd lets nobody but root log another process in");
    }
    if !Path::new(SSHD).exists() {
        return skip(WHAT, "there is no sshd; scripts/setup installs it");
    }
    let workspace = Workspace::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let Made { main, .. } = repositories(elsewhere.path());
    let keys = elsewhere.path().join("keys");
    fs::create_dir(&keys).unwrap();
    for name in ["host", "user"] {
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(keys.join(name)));
    }
    let address = free_address();
    let (host, port) = address.split_once(':').unwrap();
    fs::create_dir_all("/run/sshd").unwrap();
    let config = format!(
        "ListenAddress {address}\nHostKey {keys}/host\nAuthorizedKeysFile {keys}/user.pub\nStrictModes no\nUsePAM no\n\
         PidFile none\nPermitRootLogin yes\n",
        keys = keys.display()
    );
    fs::write(keys.join("config"), config).unwrap();
    let mut sshd = Command::new(SSHD);
    sshd.args(["-D", "-f"]).arg(keys.join("config"));
    let _sshd = Server::start(sshd, &address);
    let socket = keys.join("agent");
    let mut agent = Command::new("ssh-agent");
    agent.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null());
    let _agent = Server { child: agent.spawn().unwrap() };
    let until = Instant::now() + Duration::from_secs(20);
    // The socket is there before anybody listens at it.
    while std::os::unix::net::UnixStream::connect(&socket).is_err() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(10));
    }
    run(Command::new("ssh-add").arg("-q").arg(keys.join("user")).env("SSH_AUTH_SOCK", &socket));

    let url = format!("ssh://root@{address}{}/top.git", elsewhere.path().display());
    let stranger = build(&workspace, &[], &url).env("SSH_AUTH_SOCK", &socket).run();
    stranger.fails(1, &["Host key verification failed"]);
    let known = workspace.path().join("home/.ssh");
    fs::create_dir(&known).unwrap();
    let host_key = fs::read_to_string(keys.join("host.pub")).unwrap();
    fs::write(known.join("known_hosts"), format!("[{host}]:{port} {host_key}")).unwrap();
    build(&workspace, &[], &format!("{url}#{main}")).env("SSH_AUTH_SOCK", &socket).run().success();
    assert_eq!(image(&workspace).text("module/inner.txt"), "inner\n");
    workspace.assert_nothing_left();
}

/// Serves a directory over https with a certificate of an authority that nobody knows; gives the server, its address and
/// the authority's certificate.
fn https(root: &Path) -> (Server, String, PathBuf) {
    const SERVE: &str = "import http.server,ssl,sys\nc=ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n\
        c.load_cert_chain('server.pem','server.key')\nh,p=sys.argv[1].split(':')\n\
        s=http.server.ThreadingHTTPServer((h,int(p)),http.server.SimpleHTTPRequestHandler)\n\
        s.socket=c.wrap_socket(s.socket,server_side=True,do_handshake_on_connect=False)\ns.serve_forever()\n";
    let openssl = |arguments: &str| run(Command::new("openssl").args(arguments.split(' ')).current_dir(root));
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {curve} -keyout ca.key -out ca.pem -subj /CN=test-authority -days 2"));
    openssl(&format!("req {curve} -keyout server.key -out server.csr -subj /CN=127.0.0.1"));
    fs::write(root.join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n").unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
    let address = free_address();
    let mut python = Command::new("python3");
    python.args(["-c", SERVE, &address]).current_dir(root);
    (Server::start(python, &address), address, root.join("ca.pem"))
}

#[test]
fn files_come_over_https() {
    let workspace = Workspace::new();
    let root = workspace.path().join("tls");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("a.txt"), "a\n").unwrap();
    let (_server, address, ca) = https(&root);
    workspace.dockerfile(&format!("FROM scratch\nADD https://{address}/a.txt /\n"));
    fails(&workspace, &[], 3, &[&address, "Dockerfile:2:5"]);
    let trust = format!("[registry.\"{address}\"]\nca = \"{}\"\n", ca.display());
    fs::write(workspace.path().join("config.toml"), trust).unwrap();
    assert_eq!(built(&workspace, &[]).text("a.txt"), "a\n");
}

#[test]
fn git_trusts_whom_the_settings_trust() {
    let workspace = Workspace::new();
    let root = workspace.path().join("tls");
    fs::create_dir(&root).unwrap();
    repositories(&root);
    let (_server, address, ca) = https(&root);
    workspace.dockerfile(&format!("FROM scratch\nADD https://{address}/top.git#main:dir /d/\n"));
    fails(&workspace, &[], 3, &[&address, "Dockerfile:2:5", "certificate", "`ca`"]);
    let context = workspace.context();
    let context = context.to_str().unwrap();
    let settings = workspace.path().join("config.toml");
    let table = format!("[registry.\"{address}\"]\n");
    for (text, variable) in [
        (format!("{table}ca = \"{}\"\n", ca.display()), None),
        (format!("{table}insecure = true\n"), None),
        (String::new(), Some("SSL_CERT_FILE")),
        (String::new(), Some("GIT_SSL_CAINFO")),
    ] {
        let _ = (fs::remove_dir_all(workspace.state()), fs::remove_dir_all(workspace.out("image")));
        fs::write(&settings, &text).unwrap();
        let mut strata = build(&workspace, &[], context);
        if let Some(name) = variable {
            strata = strata.env(name, &ca);
        }
        strata.run().success();
        assert_eq!(image(&workspace).text("d/a.txt"), "second\n", "{text} {variable:?}");
    }
}

#[test]
fn what_cannot_be_fetched_is_said_in_its_place() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    fs::write(root.join("a.txt"), "a\n").unwrap();
    let (file, top, closed) = (server.url("/files/a.txt"), server.url("/files/top.git"), free_address());
    let wrong = format!("sha256:{}", "0".repeat(64));
    let right = crate::layout::sha256(b"a\n");
    let rows = [
        ("ADD http://no-such-host.invalid/x /".to_owned(), 3, 5, vec!["there is no host no-such-host.invalid"]),
        (format!("ADD http://{closed}/x /"), 3, 5, vec!["cannot connect to", "https_proxy"]),
        (format!("ADD {} /", server.url("/files/none")), 1, 5, vec!["has no http", "look at the path"]),
        (
            format!("ADD {} /", server.url("/private/a.txt")),
            1,
            5,
            vec!["refuses access", "id=HTTP_AUTH_TOKEN_127.0.0.1"],
        ),
        (format!("ADD {} /", server.url("/cut/a.txt")), 1, 5, vec!["broke"]),
        (format!("ADD --checksum={wrong} {file} /"), 1, 5, vec!["has the digest", &right, &wrong, "expect sha256"]),
        (format!("ADD --chown=1 {file} \\\n  {} /d/", server.url("/files/none")), 1, 3, vec!["has no http"]),
        ("ADD http://no-such-host.invalid/x.git /".to_owned(), 3, 5, vec!["Could not resolve", "https_proxy"]),
        (format!("ADD http://{closed}/x.git /"), 3, 5, vec!["git could not ask", &closed]),
        (format!("ADD {} /", server.url("/files/none.git")), 1, 5, vec!["none.git", "not found"]),
        (
            format!("ADD {} /", server.url("/private/top.git")),
            1,
            5,
            vec!["refuses access", "id=GIT_AUTH_TOKEN.127.0.0.1:"],
        ),
        (format!("ADD {top}#nope /"), 1, 5, vec!["no branch, tag or ref \"nope\"", "git ls-remote"]),
        (format!("ADD {top}#main:nope /"), 1, 5, vec!["no directory \"nope\"", "from the root of the repository"]),
    ];
    for (line, code, column, needles) in rows {
        workspace.dockerfile(&format!("FROM scratch\n{line}\n"));
        let place = format!("Dockerfile:{}:{column}", 1 + line.lines().count());
        let finished = fails(&workspace, &[], code, &[&needles[..], &[place.as_str()]].concat());
        assert!(finished.stderr.contains("^^"), "{}", finished.describe());
    }
    workspace.dockerfile(&format!("FROM scratch\nADD {top} /\n"));
    let context = workspace.context();
    let context = context.to_str().unwrap();
    let needles = ["the program git", "not installed", "apt-get install git", "Dockerfile:2:5"];
    build(&workspace, &[], context).env("PATH", "/no/such/directory").run().fails(3, &needles);
    build(&workspace, &[], &top).env("PATH", "/no/such/directory").run().fails(3, &["apt-get install git"]);
    build(&workspace, &[], &format!("{top}#nope")).run().fails(1, &["no branch", "hint: git ls-remote"]);
    fs::remove_dir_all(root.join("sub.git")).unwrap();
    fails(&workspace, &[], 1, &["fetch the submodules of", "sub.git", "submodules=false", "Dockerfile:2:5"]);
}

#[test]
fn nothing_is_fetched_twice() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    let url = server.url("/files/top.git");
    let first = again(&workspace, &[], &url);
    let asked = server.log().len();
    let second = again(&workspace, &[], &url);
    assert_eq!(second.digest, first.digest);
    let log = server.log();
    assert!(
        log[asked..].iter().all(|line| !line.contains("/objects/")),
        "a known commit came again: {:?}",
        &log[asked..]
    );
    let no_cache = again(&workspace, &["--no-cache"], &url);
    assert_eq!(no_cache.text("dir/a.txt"), "second\n");

    let tar = gzip(&archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a.txt", "a\n")]));
    fs::write(root.join("c.tgz"), &tar).unwrap();
    let url = server.url("/files/c.tgz");
    let first = again(&workspace, &[], &url);
    let asked = server.log().len();
    assert_eq!(again(&workspace, &[], &url).digest, first.digest);
    assert_eq!(server.log()[asked..], ["304 /files/c.tgz"]);
    let changed = archive(&[("Dockerfile", "FROM scratch\nCOPY . /\n"), ("a.txt", "b\n")]);
    fs::write(root.join("c.tgz"), gzip(&changed)).unwrap();
    assert_eq!(again(&workspace, &[], &url).text("a.txt"), "b\n");

    // The same archive on standard input is known, too.
    for _ in 0..2 {
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, &[], "-").stdin(tar.clone()).run().success().cached("COPY . /");
        assert_eq!(image(&workspace).digest, first.digest);
    }
    // A step that mounts a kept context sees its files, and may write over them.
    let context = archive(&[
        ("Dockerfile", "ARG BASE\nFROM $BASE\nRUN --mount=target=/c,rw cat /c/a.txt >/a && touch /c/new\n"),
        ("a.txt", "a\n"),
    ]);
    for attempt in 0..2 {
        let _ = fs::remove_dir_all(workspace.out("image"));
        let run = build(&workspace, &[&shared().base_argument()], "-").stdin(context.clone()).run().success();
        if attempt == 1 {
            run.cached("RUN");
        }
        assert_eq!(image(&workspace).text("a"), "a\n");
    }
    nothing_left_but_image(&workspace);
}

fn nothing_left_but_image(workspace: &Workspace) {
    let _ = fs::remove_dir_all(workspace.out("image"));
    nothing_left(workspace);
}

/// An archive with what only careful readers survive.
fn odd_archive() -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut put = |path: &str, kind: tar::EntryType, link: Option<&str>, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_mtime(77);
        header.set_size(content.len() as u64);
        match link {
            Some(link) => builder.append_link(&mut header, path, link).unwrap(),
            None => builder.append_data(&mut header, path, content).unwrap(),
        }
    };
    let file = tar::EntryType::Regular;
    put("recipes/one", file, None, b"FROM scratch\nCOPY data /\n");
    put("Dockerfile", file, None, b"FROM scratch\nCOPY data escape /d/\n");
    put("data/a", file, None, b"a\n");
    put("data/b", tar::EntryType::Link, Some("data/a"), b"");
    put("data/link", tar::EntryType::Symlink, Some("../../../etc/passwd"), b"");
    put("data/gone", file, None, b"still here\n");
    put(".wh.data", file, None, b"");
    put(".wh..wh..opq", file, None, b"");
    put("pipe", tar::EntryType::Fifo, None, b"");
    put("escape/x", file, None, b"x\n");
    builder.into_inner().unwrap()
}

fn compressed(program: &str, bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let mut child = Command::new(program).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut pipe = child.stdin.take().unwrap();
    let bytes = bytes.to_vec();
    let writer = std::thread::spawn(move || pipe.write_all(&bytes).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    output.stdout
}

#[test]
fn archives_of_every_kind_are_contexts() {
    let plain = odd_archive();
    for program in ["cat", "gzip", "bzip2", "xz", "zstd"] {
        let workspace = Workspace::new();
        let bytes = if program == "cat" { plain.clone() } else { compressed(program, &plain) };
        build(&workspace, &[], "-").stdin(bytes.clone()).run().success();
        let made = image(&workspace);
        assert_eq!(
            (made.text("d/a"), made.text("d/gone"), made.text("d/x")),
            ("a\n".into(), "still here\n".into(), "x\n".into()),
            "{program}"
        );
        assert_eq!(made.text("d/b"), "a\n");
        assert_eq!(made.tree["d/link"].link, "../../../etc/passwd");
        assert_eq!(made.tree["d/a"].mtime, 77);
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, &["-f", "recipes/one"], "-").stdin(bytes).run().success();
        assert_eq!(image(&workspace).text("a"), "a\n");
        let _ = fs::remove_dir_all(workspace.out("image"));
        nothing_left(&workspace);
    }
    let workspace = Workspace::new();
    build(&workspace, &["-f", "recipes/two"], "-").stdin(plain).run().fails(2, &["recipes/two"]);
    nothing_left(&workspace);
}

#[test]
fn recipes_come_from_elsewhere() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    // A recipe at an address is the only file of its context, and called so by BuildKit.
    fs::write(root.join("recipe"), "FROM scratch\nCOPY . /all/\nCOPY context /x\n").unwrap();
    let alone = again(&workspace, &[], &server.url("/files/recipe"));
    assert_eq!(alone.text("x"), alone.text("all/context"));
    let entry = &alone.tree["x"];
    assert_eq!((entry.mode & 0o7777, entry.mtime), (0o600, MODIFIED.1));
    // A path from the root on is this machine's, beside a context that is fetched.
    let local = workspace.write("Own", "FROM scratch\nCOPY dir /own/\n");
    let own = again(&workspace, &["-f", local.to_str().unwrap()], &server.url("/files/top.git"));
    assert_eq!(own.text("own/a.txt"), "second\n");
    let _ = fs::remove_dir_all(workspace.out("image"));
    build(&workspace, &["-f", "Own"], &server.url("/files/top.git")).run().fails(2, &["Own"]);
    // A recipe on standard input has no files.
    build(&workspace, &[], "-").stdin("FROM scratch\nCOPY x /\n").run().fails(1, &["x", "the build context"]);
    nothing_left(&workspace);
}

#[test]
fn times_come_from_what_is_built() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    let url = server.url("/files/top.git");
    let epoch = "--build-arg=SOURCE_DATE_EPOCH=context";
    let committed = "2009-02-13T23:31:30Z";
    let from_git = again(&workspace, &[epoch], &url);
    assert_eq!((created(&from_git), from_git.tree["dir/a.txt"].mtime), (committed, COMMITTED));
    // Whoever bounds the times of an image wants no time of a checkout in it.
    let number = again(&workspace, &["--build-arg=SOURCE_DATE_EPOCH=4000000000"], &url);
    assert_eq!(number.tree["dir/a.txt"].mtime, COMMITTED);

    let mut entries =
        archive(&[("Dockerfile", "FROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY a.txt /\n"), ("a.txt", "a\n")]);
    fs::write(root.join("c.tar"), &entries).unwrap();
    let dated = again(&workspace, &[epoch], &server.url("/files/c.tar"));
    assert_eq!(created(&dated), "2015-10-21T07:28:00Z");
    entries = odd_archive();
    fs::write(root.join("odd.tar"), &entries).unwrap();
    for context in [server.url("/undated/odd.tar"), "-".to_owned()] {
        let _ = fs::remove_dir_all(workspace.out("image"));
        build(&workspace, &[epoch], &context).stdin(entries.clone()).run().success();
        assert_eq!(created(&image(&workspace)), "1970-01-01T00:01:17Z", "{context}");
    }

    workspace.dockerfile(&format!(
        "ARG SOURCE_DATE_EPOCH=src\nFROM scratch AS src\nARG NAME=top\nADD {} /\nFROM scratch\nARG SOURCE_DATE_EPOCH\nCOPY <<x /x\n$SOURCE_DATE_EPOCH\nx\n",
        server.url("/files/$NAME.git")
    ));
    let staged = built(&workspace, &[]);
    assert_eq!((created(&staged), staged.text("x")), (committed, format!("{COMMITTED}\n")));
    let named = built(&workspace, &[&format!("--build-context=src={}", server.url("/files/c.tar"))]);
    assert_eq!(created(&named), "2015-10-21T07:28:00Z", "a context comes before a stage");
    // A directory of this machine has no time of its own, as in BuildKit.
    let without = built(&workspace, &["--build-arg=SOURCE_DATE_EPOCH=context"]);
    assert_eq!(without.text("x"), "\n");
    assert_ne!(created(&without), committed);
    let _ = fs::remove_dir_all(workspace.out("image"));
    fails(&workspace, &["--build-arg=SOURCE_DATE_EPOCH=sr"], 2, &["SOURCE_DATE_EPOCH=sr"]);
    workspace.dockerfile("ARG SOURCE_DATE_EPOCH=cotext\nFROM scratch\nCOPY Dockerfile /\n");
    fails(&workspace, &[], 2, &["Dockerfile:1", "did you mean `context`"]);
}

#[test]
fn built_in_arguments_have_their_meaning() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "# syntax=example.com/frontend\nARG BASE\nFROM $BASE\nRUN hostname >/name; grep $(hostname) /etc/hosts\n",
    );
    let base = shared().base_argument();
    fails(&workspace, &[&base], 2, &["example.com/frontend", "Dockerfile:1"]);
    let syntax = "--build-arg=BUILDKIT_SYNTAX=docker/dockerfile:1";
    assert_eq!(built(&workspace, &[&base, syntax]).text("name"), "buildkitsandbox\n");
    let name = "--build-arg=BUILDKIT_SANDBOX_HOSTNAME=other.example";
    assert_eq!(
        built(&workspace, &[&base, "--build-arg=BUILDKIT_SYNTAX=dockerfile.v0", name]).text("name"),
        "other.example\n"
    );
    let foreign = "--build-arg=BUILDKIT_SYNTAX=example.com/x";
    let _ = fs::remove_dir_all(workspace.out("image"));
    fails(&workspace, &[&base, foreign], 2, &["the frontend image \"example.com/x\""]);
    fails(&workspace, &[&base, "--build-arg=BUILDKIT_MULTI_PLATFORM=1"], 2, &["BUILDKIT_MULTI_PLATFORM"]);
    fails(
        &workspace,
        &[&base, "--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=maybe"],
        2,
        &["BUILDKIT_CONTEXT_KEEP_GIT_DIR"],
    );
    let context = workspace.context();
    let warned = [
        ("BUILDKIT_BUILD_NAME=x", "no history of builds"),
        ("BUILDKIT_INLINE_CACHE=1", "never written into an image"),
        ("BUILDKIT_CACHE_MOUNT_NAMESPACE=x", "BUILDKIT_CACHE_MOUNT_NAMESPACE"),
    ];
    for (argument, needle) in warned {
        let argument = format!("--build-arg={argument}");
        let finished = build(&workspace, &[&base, syntax, &argument], context.to_str().unwrap()).run().success();
        assert!(finished.stderr.contains(needle), "{}", finished.describe());
        let _ = fs::remove_dir_all(workspace.out("image"));
    }
}

#[test]
fn add_says_what_is_wrong_with_an_address() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a b.txt"), "a\n").unwrap();
    fs::write(root.join("x.tar"), archive(&[("in/x", "x\n")])).unwrap();
    fs::write(workspace.context().join("local.tar"), archive(&[("in/y", "y\n")])).unwrap();
    // The name is that of the address, whatever the host calls the file.
    workspace.dockerfile(&format!(
        "FROM scratch\nADD {} /n/\nADD {} /q/\nADD --unpack=true {} /u/\nADD --unpack=false {} /k/\nADD --unpack=false local.tar /l/\nADD --unpack local.tar /m/\nADD --checksum={} {} /s/\n",
        server.url("/named/x.tar?filename=y&z=/w"),
        server.url("/files/x.tar?a=b%2Fc#frag"),
        server.url("/files/x.tar"),
        server.url("/files/x.tar"),
        crate::layout::sha256(&fs::read(root.join("x.tar")).unwrap()),
        server.url("/redirect/x.tar"),
    ));
    let made = built(&workspace, &[]);
    let files: Vec<&str> =
        made.tree.iter().filter(|(_, entry)| entry.kind == "file").map(|(path, _)| path.as_str()).collect();
    assert_eq!(files, ["k/x.tar", "l/local.tar", "m/in/y", "n/x.tar", "q/x.tar", "s/x.tar", "u/in/x"]);
    assert_eq!(made.tree["n/x.tar"].mtime, 0, "a host that gives no time");
    let url = server.url("/files/x.tar");
    for (line, code, needles) in [
        (format!("ADD --checksum=sha512:{} {url} /", "0".repeat(128)), 2, ["sha256:", "Dockerfile:2"]),
        (format!("ADD --checksum=sha384:{} {url} /", "0".repeat(96)), 2, ["sha256:", "Dockerfile:2"]),
        (format!("ADD --checksum=sha256:{} local.tar /", "0".repeat(64)), 2, ["is a path", "Dockerfile:2"]),
        (format!("ADD {} /", server.url("/files/none")), 1, ["/none", "Dockerfile:2"]),
        (format!("ADD {} /", server.url("/redirect/none")), 1, ["/none", "Dockerfile:2"]),
    ] {
        workspace.dockerfile(&format!("FROM scratch\n{line}\n"));
        let _ = fs::remove_dir_all(workspace.out("image"));
        fails(&workspace, &[], code, &needles);
    }
}
