//! Mirrors: asked first and in order, passed over when they fail, and never believed.

use super::*;
use crate::registry::NoDocuments;
use crate::settings::{Mirror, Registry};

/// Settings in which these hosts mirror `origin` under `hub`.
fn mirrored(origin: &str, mirrors: &[&str]) -> Settings {
    let mirror = |host: &&str| Mirror { host: host.parse().unwrap(), prefix: "hub".into(), plain: false };
    let registry = Registry { mirrors: mirrors.iter().map(mirror).collect(), ..Registry::default() };
    let mut settings = settings();
    settings.registries.insert(origin.parse().unwrap(), registry);
    settings
}

fn image() -> (Repository, Descriptor, Vec<u8>) {
    let layer = noise(7, 50_000);
    let mut repository = Repository::default();
    repository.image("1", "linux/amd64", &[&layer]);
    (repository, Descriptor::new(media_type::LAYER, Digest::of(&layer), layer.len() as u64), layer)
}

#[test]
fn the_first_that_has_it_serves() {
    let (repository, layer, bytes) = image();
    let (empty, full, origin) = (Repository::default().serve(), repository.serve(), repository.serve());
    let client = Client::new(mirrored(&origin.host(), &[&empty.host(), &full.host()]), CredentialFiles::none());
    client.resolve(&reference(&origin.host(), "1"), &platform("linux/amd64"), &NoDocuments).unwrap();
    let (sink, result) = fetch(&client, &origin.host(), &layer);
    result.unwrap();
    assert_eq!(sink, bytes);
    assert_eq!(empty.log().len(), 3);
    assert_eq!(full.lines()[0], "GET /v2/hub/acme/app/manifests/1");
    assert_eq!(origin.log().len(), 0);
}

#[test]
fn a_transfer_goes_on_at_the_next_source() {
    let (repository, layer, bytes) = image();
    let origin = repository.serve();
    let broken = Server::start(move |request, _| repository.answer(request).cut(10_000));
    let client = Client::new(mirrored(&origin.host(), &[&broken.host()]), CredentialFiles::none());
    let (sink, result) = fetch(&client, &origin.host(), &layer);
    result.unwrap();
    assert_eq!(sink, bytes);
    assert_eq!(broken.log().len(), 2);
    assert_eq!(origin.log()[0].range_start(), Some(20_000));
}

#[test]
fn a_mirror_that_lies_is_found_out() {
    let (repository, layer, bytes) = image();
    let origin = repository.serve();
    let (reversed, other) = (bytes.iter().rev().copied().collect::<Vec<_>>(), b"{}".to_vec());
    let liar = Server::start(move |request, _| match request.path.contains("/blobs/") {
        true => Answer::ranged(request, &reversed),
        false => Answer::new(200, other.clone()),
    });
    let client = Client::new(mirrored(&origin.host(), &[&liar.host()]), CredentialFiles::none());
    let (_, result) = fetch(&client, &origin.host(), &layer);
    assert!(matches!(result, Err(Error::WrongDigest { ref host, .. }) if *host == liar.host()), "{result:?}");
    // The second time it is left out.
    let (sink, result) = fetch(&client, &origin.host(), &layer);
    result.unwrap();
    assert_eq!(sink, bytes);
    assert_eq!(liar.log().len(), 1);

    // A document has not been handed on when the lie is found, so the next source is asked at once.
    let pinned = Digest::of(&repository.0["manifests/1"].1).to_string();
    let client = Client::new(mirrored(&origin.host(), &[&liar.host()]), CredentialFiles::none());
    client.resolve(&reference(&origin.host(), &pinned), &platform("linux/amd64"), &NoDocuments).unwrap();
}

#[test]
fn a_mirror_that_serves_something_else_is_passed_over() {
    let (repository, _, _) = image();
    let origin = repository.serve();
    for page in ["<html>please log in</html>", "{}", ""] {
        let portal = Server::start(move |_, _| Answer::new(200, page).with("Content-Type", "text/html"));
        let client = Client::new(mirrored(&origin.host(), &[&portal.host()]), CredentialFiles::none());
        client.resolve(&reference(&origin.host(), "1"), &platform("linux/amd64"), &NoDocuments).unwrap();
        assert_eq!(portal.lines()[0], "GET /v2/hub/acme/app/manifests/1");
    }
}

#[test]
fn when_all_fail_all_are_named() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let gone = format!("127.0.0.1:{port}");
    let origin = Repository::default().serve();
    let client = Client::new(mirrored(&origin.host(), &[&gone]), CredentialFiles::none());
    for _ in 0..2 {
        let error =
            client.resolve(&reference(&origin.host(), "1"), &platform("linux/amd64"), &NoDocuments).unwrap_err();
        let text = shown(&error);
        assert!(matches!(error, Error::NoSource { .. }), "{text}");
        assert!(text.contains(&gone) && text.contains(&format!("{} has no", origin.host())), "{text}");
    }
}
