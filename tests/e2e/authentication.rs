//! Secrets that authenticate what is fetched: who is shown them, who is not, and that they are nowhere else.
//!
//! Every server runs on loopback and is the test's own.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::contexts::{build, built, fails, image, nothing_left, served};
use crate::file_server::{FileServer, TOKEN};
use crate::sources::repositories;
use crate::workspace::{Strata, Workspace};

/// A token that no server accepts.
const WRONG: &str = "wrong-token-5f1c";

/// The forms in which a token is sent.
fn forms(token: &str) -> [String; 2] {
    [token.to_owned(), STANDARD.encode(format!("x-access-token:{token}"))]
}

/// A build of the workspace's context that is given secrets, each from a variable of its own.
fn with_secrets(workspace: &Workspace, secrets: &[(&str, &str)], context: &str) -> Strata {
    let _ = fs::remove_dir_all(workspace.out("image"));
    let variable = |number: usize| format!("STRATA_TEST_SECRET_{number}");
    let flags: Vec<String> = secrets
        .iter()
        .enumerate()
        .map(|(number, (id, _))| format!("--secret=id={id},env={}", variable(number)))
        .collect();
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let strata = build(workspace, &flags, context);
    secrets.iter().enumerate().fold(strata, |strata, (number, (_, value))| strata.env(&variable(number), value))
}

/// Fails if any file below a directory holds one of some texts.
fn assert_nowhere(directory: &Path, texts: &[String]) {
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).unwrap().filter_map(Result::ok) {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                directories.push(entry.path());
            } else if kind.is_file() {
                let bytes = fs::read(entry.path()).unwrap();
                for text in texts {
                    let found = bytes.windows(text.len()).any(|window| window == text.as_bytes());
                    assert!(!found, "{} holds a secret", entry.path().display());
                }
            }
        }
    }
}

#[test]
fn files_are_fetched_with_the_secret_of_their_host() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a.txt"), "a\n").unwrap();
    let url = server.url("/private/a.txt");
    workspace.dockerfile(&format!("FROM scratch\nADD {url} /\n"));
    let context = workspace.context();
    let context = context.to_str().unwrap();
    fails(&workspace, &[], 1, &["id=HTTP_AUTH_TOKEN_127.0.0.1", "Dockerfile:2:5", "refuses access"]);
    let header = format!("Bearer {TOKEN}\n");
    for secrets in [
        &[("HTTP_AUTH_TOKEN_127.0.0.1", TOKEN)][..],
        &[("HTTP_AUTH_HEADER_127.0.0.1", &header)],
        &[("HTTP_AUTH_TOKEN_127.0.0.1", ""), ("HTTP_AUTH_HEADER_127.0.0.1", &header)],
    ] {
        let _ = fs::remove_dir_all(workspace.state());
        with_secrets(&workspace, secrets, context).run().success();
        assert_eq!(image(&workspace).text("a.txt"), "a\n");
    }
    assert_nowhere(&workspace.state(), &forms(TOKEN));
    assert_nowhere(&workspace.out("image"), &forms(TOKEN));
    // What is known is still asked for, and not given to who may not have it.
    fails_with(&workspace, &[("HTTP_AUTH_TOKEN_127.0.0.1", WRONG)], &["secret HTTP_AUTH_TOKEN_127.0.0.1", "2:5"]);
    fails_with(&workspace, &[("HTTP_AUTH_TOKEN_localhost", TOKEN)], &["none were sent"]);
    fails_with(
        &workspace,
        &[("HTTP_AUTH_HEADER_127.0.0.1", "top-secret-1\ntop-secret-2")],
        &["HTTP_AUTH_HEADER_127.0.0.1 can be no http header"],
    );
    // A context is a file, too.
    fs::write(root.join("Dockerfile"), "FROM scratch\nCOPY context /c\n").unwrap();
    let recipe = server.url("/private/Dockerfile");
    with_secrets(&workspace, &[("HTTP_AUTH_TOKEN_127.0.0.1", TOKEN)], &recipe).run().success();
    with_secrets(&workspace, &[], &recipe).run().fails(1, &["id=HTTP_AUTH_TOKEN_127.0.0.1"]);
}

/// A build of the workspace's context that must fail, with no secret in what it leaves or says.
#[track_caller]
fn fails_with(workspace: &Workspace, secrets: &[(&str, &str)], needles: &[&str]) {
    let finished = with_secrets(workspace, secrets, workspace.context().to_str().unwrap()).run().fails(1, needles);
    let texts: Vec<String> = secrets.iter().flat_map(|(_, value)| forms(value)).collect();
    assert!(!texts.iter().any(|text| finished.describe().contains(text)), "{}", finished.describe());
    nothing_left(workspace);
    assert_nowhere(&workspace.state(), &texts);
}

#[test]
fn a_secret_stays_with_its_host() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    let other = FileServer::start(&root);
    repositories(&root);
    fs::write(root.join("a.txt"), "a\n").unwrap();
    let port = other.url("").rsplit(':').next().unwrap().to_owned();
    // Another port is another host.
    workspace.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url(&format!("/elsewhere/{port}/files/a.txt"))));
    let context = workspace.context();
    let secret = [("HTTP_AUTH_TOKEN_127.0.0.1", TOKEN)];
    with_secrets(&workspace, &secret, context.to_str().unwrap()).run().success();
    workspace.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url(&format!("/elsewhere/{port}/private/a.txt"))));
    fails_with(&workspace, &secret, &["is for 127.0.0.1", "redirects here"]);
    assert!(server.shown().iter().any(|shown| shown.contains(TOKEN)), "the first host is shown it");
    assert_eq!(other.shown(), Vec::<String>::new());
    let repository = server.url(&format!("/elsewhere/{port}/files/top.git"));
    let token = [("GIT_AUTH_TOKEN", TOKEN)];
    let said = ["redirects elsewhere", "GIT_AUTH_TOKEN", "give the address it redirects to"];
    with_secrets(&workspace, &token, &repository).run().fails(1, &said);
    assert_eq!(other.shown(), Vec::<String>::new());
    with_secrets(&workspace, &[], &repository).run().success();
}

#[test]
fn repositories_are_fetched_with_the_secret_of_their_host() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    // What git is given as arguments is written down.
    let tools = workspace.path().join("tools");
    fs::create_dir(&tools).unwrap();
    let arguments = workspace.path().join("arguments");
    let wrapper = format!("#!/bin/sh\necho \"$@\" >>{}\nexec /usr/bin/git \"$@\"\n", arguments.display());
    fs::write(tools.join("git"), wrapper).unwrap();
    fs::set_permissions(tools.join("git"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());

    let url = server.url("/private/top.git");
    let host = url.split('/').nth(2).unwrap();
    let (token, header) = (format!("GIT_AUTH_TOKEN.{host}"), format!("GIT_AUTH_HEADER.{host}"));
    let whole = format!("Basic {}", forms(TOKEN)[1]);
    workspace.dockerfile(&format!("FROM scratch\nADD {url} /r/\nCOPY --from=named / /n/\n"));
    let context = workspace.context();
    for secrets in [
        vec![("GIT_AUTH_TOKEN", TOKEN)],
        vec![("GIT_AUTH_HEADER", whole.as_str())],
        vec![("GIT_AUTH_TOKEN", WRONG), (token.as_str(), TOKEN)],
        vec![(token.as_str(), WRONG), (header.as_str(), whole.as_str()), ("GIT_AUTH_TOKEN", WRONG)],
    ] {
        let _ = fs::remove_dir_all(workspace.state());
        with_secrets(&workspace, &secrets, &url).env("PATH", &path).run().success();
        assert_eq!(image(&workspace).text("module/inner.txt"), "inner\n", "{secrets:?}");
        let named = with_secrets(&workspace, &secrets, context.to_str().unwrap());
        named.arg(&format!("--build-context=named={url}#main:dir")).env("PATH", &path).run().success();
        let image = image(&workspace);
        assert_eq!((image.text("r/dir/a.txt"), image.text("n/a.txt")), ("second\n".to_owned(), "second\n".to_owned()));
        assert_nowhere(&workspace.state(), &[forms(TOKEN), forms(WRONG)].concat());
        assert_nowhere(&workspace.out("image"), &[forms(TOKEN), forms(WRONG)].concat());
    }
    let given = fs::read_to_string(&arguments).unwrap();
    assert!(given.contains("ls-remote") && !given.contains(&whole) && !given.contains(TOKEN), "{given}");

    workspace.dockerfile(&format!("FROM scratch\nADD {url} /r/\n"));
    let _ = fs::remove_dir_all(workspace.state());
    fails_with(&workspace, &[("GIT_AUTH_TOKEN", WRONG)], &["what the secret GIT_AUTH_TOKEN holds", "Dockerfile:2:5"]);
    fails_with(&workspace, &[("GIT_AUTH_TOKEN.h", TOKEN)], &[&format!("id={token}"), "Dockerfile:2:5"]);
    with_secrets(&workspace, &[("GIT_AUTH_TOKEN", WRONG)], &url).run().fails(1, &["secret GIT_AUTH_TOKEN"]);
}

/// A proxy that takes every host for one server; gives its address.
fn proxy(server: &FileServer) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let server = server.url("").replace("http://", "");
    std::thread::spawn(move || {
        for stream in listener.incoming().filter_map(Result::ok) {
            let server = server.clone();
            std::thread::spawn(move || pass_on(stream, &server).ok());
        }
    });
    format!("http://{address}")
}

fn pass_on(mut client: TcpStream, server: &str) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let (mut line, mut head) = (String::new(), String::new());
    reader.read_line(&mut line)?;
    while head.is_empty() || !head.ends_with("\r\n\r\n") {
        if reader.read_line(&mut head)? <= 2 {
            break;
        }
    }
    let mut server = TcpStream::connect(server)?;
    if line.starts_with("CONNECT ") {
        client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
    } else {
        // `GET http://host/path HTTP/1.1`
        let mut words = line.split(' ');
        let (method, address) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = address.splitn(4, '/').nth(3).unwrap_or_default();
        write!(server, "{method} /{path} HTTP/1.1\r\n{head}")?;
    }
    let (mut up, mut down) = (server.try_clone()?, client.try_clone()?);
    std::thread::spawn(move || std::io::copy(&mut reader, &mut up));
    std::io::copy(&mut server, &mut down).map(drop)
}

#[test]
fn the_proxy_of_the_environment_is_used_for_files_and_repositories() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    repositories(&root);
    fs::write(root.join("a.txt"), "a\n").unwrap();
    let proxy = proxy(&server);
    let host = "files.strata.invalid";
    workspace
        .dockerfile(&format!("FROM scratch\nADD http://{host}/files/a.txt /\nADD http://{host}/files/top.git /r/\n"));
    let context = workspace.context();
    let context = context.to_str().unwrap();
    for variable in ["http_proxy", "HTTP_PROXY"] {
        let _ = fs::remove_dir_all(workspace.state());
        with_secrets(&workspace, &[], context).env(variable, &proxy).run().success();
        let image = image(&workspace);
        assert_eq!((image.text("a.txt"), image.text("r/dir/a.txt")), ("a\n".to_owned(), "second\n".to_owned()));
    }
    // What listens on this machine is not a proxy's business.
    workspace.dockerfile(&format!("FROM scratch\nADD {} /r/\n", server.url("/files/top.git")));
    with_secrets(&workspace, &[], context).env("http_proxy", "http://127.0.0.1:9").run().success();
    // Over plain http a secret goes nowhere but to this machine, unless the settings say so.
    for (source, id) in
        [("/private/a.txt", "HTTP_AUTH_TOKEN_files.strata.invalid"), ("/private/top.git", "GIT_AUTH_TOKEN")]
    {
        fs::write(workspace.path().join("config.toml"), "").unwrap();
        workspace.dockerfile(&format!("FROM scratch\nADD http://{host}{source} /r/\n"));
        let build = || with_secrets(&workspace, &[(id, TOKEN)], context).env("http_proxy", &proxy).run();
        let asked = server.shown().len();
        build().fails(1, &[id, "not sent", "insecure = true", "Dockerfile:2:5"]);
        assert_eq!(server.shown().len(), asked);
        fs::write(workspace.path().join("config.toml"), format!("[registry.\"{host}\"]\ninsecure = true\n")).unwrap();
        build().success();
    }
}

#[test]
fn a_secret_that_nobody_asks_for_changes_nothing() {
    let workspace = Workspace::new();
    let (root, server) = served(&workspace);
    fs::write(root.join("a.txt"), "a\n").unwrap();
    workspace.dockerfile(&format!("FROM scratch\nADD {} /\n", server.url("/files/a.txt")));
    let context = workspace.context();
    let context = context.to_str().unwrap();
    let first = built(&workspace, &[]);
    let secrets = [("HTTP_AUTH_TOKEN_127.0.0.1", TOKEN)];
    with_secrets(&workspace, &secrets, context).run().success().cached("ADD");
    assert_eq!(image(&workspace).digest, first.digest, "a secret is in no key");
}
