//! Credentials: shown to whom they are meant for, and to nobody else.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::server::{Answer, Request, Server};
use super::*;
use crate::registry::NoDocuments;

/// `user:hunter2`, as basic authentication shows it.
const BASIC: &str = "Basic dXNlcjpodW50ZXIy";

/// A directory with an `auth.json` that has `entry` for some hosts.
fn credentials(hosts: &[String], entry: &Value) -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("auth.json");
    let auths: serde_json::Map<_, _> = hosts.iter().map(|host| (host.clone(), entry.clone())).collect();
    std::fs::write(&path, json!({ "auths": auths }).to_string()).unwrap();
    (directory, path)
}

fn password(hosts: &[String]) -> (tempfile::TempDir, Client) {
    let (directory, path) = credentials(hosts, &json!({ "username": "user", "password": "hunter2" }));
    (directory, Client::new(settings(), CredentialFiles::only(&path)))
}

fn repository() -> Repository {
    let mut repository = Repository::default();
    repository.image("1", "linux/amd64", &[b"layer"]);
    repository
}

fn resolve(client: &Client, host: &str) -> Result<Digest, Error> {
    client.resolve(&reference(host, "1"), &platform("linux/amd64"), &NoDocuments).map(|resolved| resolved.pin())
}

/// A registry that wants what a token server at `realm` gives.
fn guarded(realm: String, is_valid: impl Fn(&str) -> bool + Send + Sync + 'static) -> Server {
    let repository = repository();
    Server::start(move |request, _| {
        match request.header("authorization").and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if is_valid(token) => repository.answer(request),
            _ => {
                let challenge =
                    format!(r#"Bearer realm="{realm}",service="the registry",scope="repository:acme/app:pull""#);
                Answer::new(401, r#"{"errors":[{"code":"UNAUTHORIZED"}]}"#).with("WWW-Authenticate", challenge)
            }
        }
    })
}

fn realm(server: &Server) -> String {
    format!("http://{}/token?from=realm", server.host())
}

#[test]
fn a_token_is_fetched_once_and_shown_from_then_on() {
    let tokens = Server::start(|_, _| Answer::new(200, r#"{"token":"t0","expires_in":300}"#));
    let registry = guarded(realm(&tokens), |token| token == "t0");
    let client = client();
    resolve(&client, &registry.host()).unwrap();
    resolve(&client, &registry.host()).unwrap();
    assert_eq!(
        tokens.lines(),
        ["GET /token?from=realm&service=the%20registry&client_id=strata&scope=repository%3Aacme%2Fapp%3Apull"]
    );
    assert_eq!(tokens.log()[0].header("authorization"), None);
    assert_eq!(registry.log().len(), 5, "one more than four documents: the refused one");
}

#[test]
fn a_password_goes_to_the_token_server_alone() {
    let tokens = Server::start(|request, _| match request.header("authorization") {
        Some(BASIC) => Answer::new(200, r#"{"access_token":"t0"}"#),
        _ => Answer::new(401, ""),
    });
    let registry = guarded(realm(&tokens), |token| token == "t0");
    let (_directory, client) = password(&[registry.host()]);
    resolve(&client, &registry.host()).unwrap();
    assert!(tokens.lines()[0].contains("&account=user&"), "{:?}", tokens.lines());
    assert!(registry.log().iter().all(|request| request.header("authorization") != Some(BASIC)));
}

#[test]
fn an_identity_token_is_posted() {
    let tokens = Server::start(|request, _| match request.body.contains("&refresh_token=long-lived") {
        true => Answer::new(200, r#"{"access_token":"t0"}"#),
        false => Answer::new(400, ""),
    });
    let registry = guarded(realm(&tokens), |token| token == "t0");
    let (_directory, path) = credentials(&[registry.host()], &json!({ "identitytoken": "long-lived" }));
    resolve(&Client::new(settings(), CredentialFiles::only(&path)), &registry.host()).unwrap();
    let log = tokens.log();
    assert_eq!((log.len(), log[0].method.as_str()), (1, "POST"));
    assert!(
        log[0].body.contains("grant_type=refresh_token")
            && log[0].body.contains("scope=repository%3Aacme%2Fapp%3Apull")
    );
    assert!(!log[0].path.contains("long"), "{}", log[0].path);
}

#[test]
fn a_token_that_has_run_out_is_fetched_anew() {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = issued.clone();
    let tokens = Server::start(move |_, _| {
        let token = count.fetch_add(1, Ordering::SeqCst) + 1;
        Answer::new(200, json!({ "token": format!("t{token}"), "expires_in": 3600 }).to_string())
    });
    // Every token is good for two questions, whatever its paper says.
    let uses = AtomicUsize::new(0);
    let registry = guarded(realm(&tokens), move |token| {
        token == format!("t{}", uses.load(Ordering::SeqCst) / 2 + 1) && uses.fetch_add(1, Ordering::SeqCst) < 100
    });
    let client = client();
    for _ in 0..4 {
        resolve(&client, &registry.host()).unwrap();
    }
    assert_eq!(issued.load(Ordering::SeqCst), 4);
}

#[test]
fn one_thread_fetches_the_token_for_all() {
    let tokens = Server::start(|_, _| Answer::new(200, r#"{"token":"t0"}"#));
    let registry = guarded(realm(&tokens), |token| token == "t0");
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| resolve(&client, &registry.host()).unwrap());
        }
    });
    assert_eq!(tokens.log().len(), 1);
}

#[test]
fn basic_credentials_are_shown_when_asked_for() {
    let repository = repository();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some(BASIC) => repository.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", r#"Basic realm="here""#),
    });
    let (_directory, client) = password(&[registry.host()]);
    resolve(&client, &registry.host()).unwrap();
    assert_eq!(registry.log()[0].header("authorization"), None, "shown before it was asked for");
    assert_eq!(registry.log().len(), 3);
}

#[test]
fn refusals_say_what_was_shown_and_never_what_it_was() {
    let echo = |request: &Request| {
        let shown =
            request.header("authorization").map_or("nothing".to_owned(), |shown| format!("{shown} alias hunter2"));
        json!({ "errors": [{ "code": "DENIED", "message": format!("{shown} will not do") }] }).to_string()
    };
    let basic =
        Server::start(move |request, _| Answer::new(401, echo(request)).with("WWW-Authenticate", "Basic realm=x"));
    let forbidden = Server::start(move |request, _| Answer::new(403, echo(request)));
    let no_tokens = Server::start(move |request, _| Answer::new(401, echo(request)));
    let bearer = guarded(realm(&no_tokens), |_| false);
    let useless = Server::start(|_, _| Answer::new(200, r#"{"token":"hunter2"}"#));
    let unimpressed = guarded(realm(&useless), |_| false);
    let odd = Server::start(|_, _| Answer::new(401, "").with("WWW-Authenticate", "Negotiate"));
    let lost = guarded("not an address".to_owned(), |_| false);
    let babbling = Server::start(|_, _| Answer::new(200, r#"{"tok"#));
    let confused = guarded(realm(&babbling), |_| false);
    for (name, server, with, without) in [
        ("basic", &basic, "auth.json do not allow it", "none were sent"),
        ("forbidden", &forbidden, "none were sent", "none were sent"),
        ("bearer", &bearer, "auth.json do not allow it", "none were sent"),
        ("a token that is not taken", &unimpressed, "auth.json do not allow it", "none were sent"),
        ("an odd challenge", &odd, "it accepts Negotiate", "it accepts Negotiate"),
        ("a lost token server", &lost, "no valid address", "no valid address"),
        ("a babbling token server", &confused, "makes no sense", "makes no sense"),
    ] {
        let (_directory, known) = password(&[server.host()]);
        for (client, words) in [(known, with), (client(), without)] {
            let error = resolve(&client, &server.host()).unwrap_err();
            let text = format!("{} {error:?} {client:?}", shown(&error));
            assert!(matches!(error, Error::Unauthorized { .. } | Error::Challenge { .. }), "{name}: {text}");
            assert!(text.contains(words), "{name}: {text}");
            assert!(!text.contains("hunter2") && !text.contains("dXNlcjpodW50ZXIy"), "{name}: {text}");
        }
    }
}

#[test]
fn credentials_do_not_follow_a_redirect_to_another_host() {
    let repository = repository();
    let elsewhere = {
        let repository = repository.clone();
        Server::start(move |request, _| repository.answer(request))
    };
    let there = elsewhere.host();
    let registry = Server::start(move |request, _| match request.header("authorization") {
        Some(BASIC) if request.path.contains("/blobs/") => {
            Answer::new(307, "moved").with("Location", format!("http://{there}{}", request.path))
        }
        Some(BASIC) if request.path.starts_with("/v2/") => {
            Answer::new(302, "").with("Location", request.path.replace("/v2/", "/really/"))
        }
        Some(BASIC) => repository.answer(request),
        _ => Answer::new(401, "").with("WWW-Authenticate", "Basic"),
    });
    // Even though there are credentials for the other host as well, nobody there has asked for any.
    let (_directory, client) = password(&[registry.host(), elsewhere.host()]);
    resolve(&client, &registry.host()).unwrap();
    assert_eq!(elsewhere.log().len(), 1);
    assert_eq!(elsewhere.log()[0].header("authorization"), None);
    let within = registry.log().into_iter().find(|request| request.path.starts_with("/really/")).unwrap();
    assert_eq!(within.header("authorization"), Some(BASIC));
}

#[test]
fn another_host_cannot_ask_for_credentials() {
    let thief = Server::start(|_, _| Answer::new(401, "").with("WWW-Authenticate", "Basic realm=x"));
    let there = thief.host();
    let registry = Server::start(move |request, _| {
        Answer::new(307, "").with("Location", format!("http://{there}{}", request.path))
    });
    let (_directory, client) = password(&[registry.host(), thief.host()]);
    let error = resolve(&client, &registry.host()).unwrap_err();
    assert!(matches!(&error, Error::Unauthorized { host, .. } if *host == thief.host()), "{error:?}");
    assert_eq!(thief.log().len(), 1);
    assert_eq!(thief.log()[0].header("authorization"), None);
}
