//! What a process's environment decides: credential helpers on the path, and proxies.
//!
//! A test must not change its own environment, so each of these starts this test program again, with one test and an
//! environment of its own.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::*;
use crate::registry::NoDocuments;

/// Runs one of the ignored tests below in an environment; what it printed, and whether it passed.
fn run_inner(test: &str, environment: &[(&str, &str)]) -> (String, bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for name in
        ["ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "NO_PROXY", "no_proxy"]
    {
        command.env_remove(name);
    }
    command.args(["--ignored", "--exact", "--nocapture", &format!("registry::tests::environment::{test}")]);
    let output = command.envs(environment.iter().copied()).output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), output.status.success())
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_default()
}

/// Asks `$TEST_HOST` with the credentials of `$TEST_AUTH`, allowing plain http.
#[test]
#[ignore = "needs an environment of its own: the others start it"]
fn inner() {
    let mut settings = settings();
    let registry = crate::settings::Registry { insecure: true, ..Default::default() };
    for host in ["192.0.2.1:5000", "192.0.2.2:5000"] {
        settings.registries.insert(host.parse().unwrap(), registry.clone());
    }
    let auth = variable("TEST_AUTH");
    let files = if auth.is_empty() { CredentialFiles::none() } else { CredentialFiles::only(auth.as_ref()) };
    let client = Client::new(settings, files);
    match client.resolve(&reference(&variable("TEST_HOST"), "1"), &platform("linux/amd64"), &NoDocuments) {
        Ok(_) => println!("RESOLVED"),
        Err(error) => println!("FAILED {}", shown(&error)),
    }
}

#[test]
fn credential_helpers_are_asked() {
    let directory = tempfile::tempdir().unwrap();
    let mut repository = Repository::default();
    repository.image("1", "linux/amd64", &[b"x"]);
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some("Basic dXNlcjpodW50ZXIy") => repository.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x"),
    });
    let auth = directory.path().join("config.json");
    std::fs::write(&auth, json!({ "credHelpers": { registry.host(): "test" } }).to_string()).unwrap();
    let helper = directory.path().join("docker-credential-test");
    let path = format!("{}:/usr/bin:/bin", directory.path().display());
    for (script, words) in [
        ("echo '{\"Username\":\"user\",\"Secret\":\"hunter2\"}'", "RESOLVED"),
        ("echo 'credentials not found in native keychain'; exit 1", "none were sent"),
        ("echo 'the keychain is locked' >&2; exit 1", "docker-credential-test, named in"),
        ("echo 'the keychain is locked'; exit 1", "gave nothing for 127.0.0.1"),
        ("echo 'no answer at all'", "its answer makes no sense"),
    ] {
        std::fs::write(&helper, format!("#!/bin/sh\nread -r host\n{script}\n")).unwrap();
        std::fs::set_permissions(&helper, std::fs::Permissions::from_mode(0o755)).unwrap();
        let environment =
            [("PATH", path.as_str()), ("TEST_HOST", &registry.host()), ("TEST_AUTH", auth.to_str().unwrap())];
        let (text, passed) = run_inner("inner", &environment);
        assert!(passed && text.contains(words) && !text.contains("hunter2"), "{script}: {text}");
    }
}

#[test]
fn proxies_are_used_but_not_for_this_machine() {
    let mut repository = Repository::default();
    repository.image("1", "linux/amd64", &[b"x"]);
    let direct = repository.serve();
    // Once the tunnel stands, the proxy plays the registry at its other end. It knows no TLS.
    let here = direct.host();
    let proxy = Server::start(move |request, _| match (request.method.as_str(), request.header("host")) {
        ("CONNECT", _) => Answer::new(200, ""),
        (_, Some("192.0.2.2:5000")) => Answer::new(307, "").with("Location", format!("http://{here}{}", request.path)),
        _ => repository.answer(request),
    });
    let address = format!("http://{}", proxy.host());
    let (text, _) = run_inner("inner", &[("HTTPS_PROXY", &address), ("TEST_HOST", &direct.host())]);
    assert!(text.contains("RESOLVED") && proxy.log().is_empty(), "{text}");
    let (text, _) = run_inner("inner", &[("HTTPS_PROXY", &address), ("TEST_HOST", "192.0.2.1:5000")]);
    assert!(text.contains("RESOLVED"), "{text}");
    assert_eq!(proxy.lines()[0], "CONNECT 192.0.2.1:5000");

    let before = direct.log().len();
    let (text, _) = run_inner("inner", &[("HTTPS_PROXY", &address), ("TEST_HOST", "192.0.2.2:5000")]);
    assert!(text.contains("it leads to this machine") && direct.log().len() == before, "{text}");
}
