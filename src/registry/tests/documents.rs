//! Manifests, indexes and configurations: the right one is found, and wrong ones are named.

use std::collections::HashMap;
use std::sync::Mutex;

use super::*;
use crate::registry::{Documents, NoDocuments, Resolved};

fn resolve(server: &Server, tag: &str, on: &str) -> Result<Resolved, Error> {
    client().resolve(&reference(&server.host(), tag), &platform(on), &NoDocuments)
}

#[test]
fn an_image_is_found_by_tag_and_by_digest() {
    let mut repository = Repository::default();
    let manifest = repository.image("1.0", "linux/amd64", &[b"layer"]);
    let server = repository.serve();
    for name in ["1.0".to_owned(), manifest.digest.to_string()] {
        let resolved = resolve(&server, &name, "linux/amd64").unwrap();
        assert_eq!(resolved.manifest.digest, manifest.digest);
        assert_eq!(Digest::of(&resolved.manifest_bytes), manifest.digest);
        assert_eq!(Digest::of(&resolved.config_bytes), resolved.document.config.digest);
        assert_eq!(resolved.document.layers.len(), 1);
        assert_eq!((resolved.index.as_ref(), resolved.pin()), (None, manifest.digest));
    }
    let accept = server.log()[0].header("accept").unwrap().to_owned();
    for known in [media_type::INDEX, media_type::MANIFEST, media_type::DOCKER_INDEX, media_type::DOCKER_MANIFEST] {
        assert!(accept.contains(known), "{accept}");
    }
}

#[test]
fn docker_s_types_are_read_as_well() {
    let mut repository = Repository::default();
    let config = json!({ "architecture": "amd64", "os": "linux", "rootfs": { "type": "layers", "diff_ids": [] } });
    let config = repository.put("blobs", "", media_type::DOCKER_CONFIG, config.to_string().as_bytes());
    let manifest =
        json!({ "schemaVersion": 2, "mediaType": media_type::DOCKER_MANIFEST, "config": config, "layers": [] });
    let mut manifest = repository.document("", media_type::DOCKER_MANIFEST, &manifest);
    manifest.platform = Some(platform("linux/amd64"));
    let list = json!({ "schemaVersion": 2, "mediaType": media_type::DOCKER_INDEX, "manifests": [manifest] });
    repository.document("1", media_type::DOCKER_INDEX, &list);
    let resolved = resolve(&repository.serve(), "1", "linux/amd64").unwrap();
    assert_eq!(resolved.manifest.digest, manifest.digest);
    assert_eq!(resolved.index.unwrap().media_type, media_type::DOCKER_INDEX);
}

#[test]
fn the_best_entry_of_an_index_is_taken() {
    let mut repository = Repository::default();
    let mut attestation = repository.image("", "unknown/unknown", &[b"provenance"]);
    attestation.annotations.insert("vnd.docker.reference.type".into(), "attestation-manifest".into());
    let amd64 = repository.image("", "linux/amd64", &[b"amd64"]);
    let v6 = repository.image("", "linux/arm/v6", &[b"v6"]);
    let v7 = repository.image("", "linux/arm/v7", &[b"v7"]);
    let index = repository.index("1", &[attestation, v6, amd64.clone(), v7.clone()]);
    let server = repository.serve();
    for (on, expected) in [("linux/amd64", &amd64), ("linux/arm/v7", &v7)] {
        let resolved = resolve(&server, "1", on).unwrap();
        assert_eq!(resolved.manifest.digest, expected.digest, "{on}");
        assert_eq!(resolved.pin(), index.digest);
    }
    let error = resolve(&server, "1", "linux/s390x").unwrap_err();
    let text = shown(&error);
    assert!(matches!(error, Error::NoPlatform { .. }), "{text}");
    assert!(text.contains("linux/s390x; it has: linux/arm/v6, linux/amd64, linux/arm/v7"), "{text}");
}

#[test]
fn indexes_within_indexes_are_walked_but_not_for_ever() {
    let mut repository = Repository::default();
    let image = repository.image("", "linux/amd64", &[b"x"]);
    let mut inner = repository.index("", std::slice::from_ref(&image));
    for depth in 2..=6 {
        inner = repository.index(&format!("depth{depth}"), std::slice::from_ref(&inner));
    }
    let server = repository.serve();
    assert_eq!(resolve(&server, "depth4", "linux/amd64").unwrap().manifest.digest, image.digest);
    let error = resolve(&server, "depth5", "linux/amd64").unwrap_err();
    assert!(matches!(error, Error::TooDeep { limit: 4, .. }), "{error:?}");
}

#[test]
fn an_entry_without_a_platform_is_judged_by_its_configuration() {
    let mut repository = Repository::default();
    let bare = |mut descriptor: Descriptor| {
        descriptor.platform = None;
        descriptor
    };
    let arm = bare(repository.image("", "linux/arm64", &[b"arm"]));
    let amd = bare(repository.image("", "linux/amd64", &[b"amd"]));
    repository.index("1", &[arm, amd.clone()]);
    let server = repository.serve();
    assert_eq!(resolve(&server, "1", "linux/amd64").unwrap().manifest.digest, amd.digest);
    let text = shown(&resolve(&server, "1", "linux/s390x").unwrap_err());
    assert!(text.contains("it has: linux/arm64, linux/amd64"), "{text}");
}

#[test]
fn an_image_that_stands_alone_says_what_it_is_for() {
    let mut repository = Repository::default();
    repository.image("1", "linux/arm64", &[b"arm"]);
    let resolved = resolve(&repository.serve(), "1", "linux/amd64").unwrap();
    assert_eq!(resolved.platform, platform("linux/arm64"));
}

#[test]
fn what_is_not_an_image_is_refused() {
    let mut repository = Repository::default();
    let image = repository.image("good", "linux/amd64", &[b"x"]);
    let empty = repository.put("blobs", "", media_type::CONFIG, b"{}");
    let garbage = repository.put("blobs", "", media_type::CONFIG, b"not json");
    let chart = Descriptor::new("application/vnd.cncf.helm.config.v1+json", empty.digest, empty.size);
    let manifest = |config: &Descriptor, layers: Value| json!({ "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers });
    let mut longer = image.clone();
    longer.size += 1;
    repository.document("garbage", media_type::MANIFEST, &json!("not a manifest"));
    repository.document("page", "text/html", &json!("log in to the hotel's network"));
    repository.document(
        "both",
        media_type::MANIFEST,
        &json!({ "schemaVersion": 2, "config": empty, "layers": [], "manifests": [] }),
    );
    repository.document("neither", media_type::MANIFEST, &json!({ "schemaVersion": 2 }));
    repository.document("confused", media_type::INDEX, &manifest(&empty, json!([])));
    repository.document(
        "old",
        "application/vnd.docker.distribution.manifest.v1+prettyjws",
        &json!({ "schemaVersion": 1, "fsLayers": [] }),
    );
    repository.document("chart", media_type::MANIFEST, &manifest(&chart, json!([])));
    repository.document("config", media_type::MANIFEST, &manifest(&garbage, json!([])));
    repository.document("layers", media_type::MANIFEST, &manifest(&empty, json!([image])));
    repository.document(
        "traversal",
        media_type::MANIFEST,
        &json!({ "schemaVersion": 2, "layers": [],
        "config": { "mediaType": media_type::CONFIG, "size": 2, "digest": "sha256:../../../../etc/passwd" } }),
    );
    repository.index("longer", &[longer]);
    repository.document("vast", media_type::MANIFEST, &json!(" ".repeat(5 << 20)));
    let server = repository.serve();
    for (tag, words) in [
        ("missing", "has no 127.0.0.1"),
        ("garbage", "is not valid: invalid type: string"),
        ("page", "is of type \"text/html\", not an image"),
        ("both", "either an index or a manifest"),
        ("neither", "either an index or a manifest"),
        ("confused", "announced as application/vnd.oci.image.index.v1+json, but is none"),
        ("old", "this old format (schema 1)"),
        ("chart", "is of type \"application/vnd.cncf.helm.config.v1+json\""),
        ("config", "is not valid: expected ident"),
        ("layers", "it names 0 layers, but the manifest 1"),
        ("traversal", "is not a sha256 digest"),
        ("longer", "but its size is"),
        ("vast", "more than 4194304 bytes"),
    ] {
        let text = shown(&resolve(&server, tag, "linux/amd64").expect_err(tag));
        assert!(text.contains(words), "{tag}: {text}");
        assert!(text.contains("/acme/app"), "{tag}: {text}");
    }
}

#[test]
fn a_document_must_have_its_digest() {
    let mut repository = Repository::default();
    let image = repository.image("1", "linux/amd64", &[b"x"]);
    let other = repository.image("2", "linux/arm64", &[b"y"]);
    // By digest, the bytes of another; by tag, a header that does not fit.
    let wrong = repository.0[&format!("manifests/{}", other.digest)].clone();
    repository.0.insert(format!("manifests/{}", image.digest), wrong);
    let honest = repository.clone();
    let server = Server::start(move |request, _| {
        let answer = honest.answer(request);
        if request.path.ends_with("/1") {
            Answer { headers: vec![], ..answer }.with("Docker-Content-Digest", Digest::of(b"z"))
        } else {
            answer
        }
    });
    for name in ["1".to_owned(), image.digest.to_string()] {
        let error = resolve(&server, &name, "linux/amd64").unwrap_err();
        assert!(matches!(error, Error::WrongDigest { .. }), "{error:?}");
    }
}

#[test]
fn vast_and_endless_documents_are_cut_off() {
    for answer in [
        Answer { endless: true, ..Answer::new(200, vec![b' '; 60_000]) },
        Answer { chunked: true, ..Answer::new(200, vec![b' '; 5 << 20]) },
        Answer::new(200, "").with("Content-Length", 100_u64 << 20),
    ] {
        let server = Server::start(move |_, _| answer.clone());
        let error = resolve(&server, "1", "linux/amd64").unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    }
}

#[test]
fn documents_survive_a_bad_line() {
    let mut repository = Repository::default();
    repository.image("1", "linux/amd64", &[b"x"]);
    let honest = repository.clone();
    let server = Server::start(move |request, n| match n % 3 {
        0 => Answer { hang_up: true, ..Answer::default() },
        1 => honest.answer(request).cut(20),
        _ => honest.answer(request),
    });
    resolve(&server, "1", "linux/amd64").unwrap();
    assert_eq!(server.log().iter().filter(|request| request.range_start().is_some()).count(), 0);
}

/// Documents in memory.
#[derive(Default)]
struct Shelf {
    documents: Mutex<HashMap<Digest, Vec<u8>>>,
    last: Mutex<Option<Digest>>,
}

impl Documents for Shelf {
    fn load(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.documents.lock().unwrap().get(digest).cloned()
    }

    fn keep(&self, descriptor: &Descriptor, bytes: &[u8]) {
        assert_eq!((descriptor.digest, descriptor.size), (Digest::of(bytes), bytes.len() as u64));
        self.documents.lock().unwrap().insert(descriptor.digest, bytes.to_vec());
    }

    fn last_known(&self, _reference: &Reference) -> Option<Digest> {
        *self.last.lock().unwrap()
    }
}

#[test]
fn what_is_at_hand_is_not_asked_for_again() {
    let mut repository = Repository::default();
    let image = repository.image("", "linux/amd64", &[b"x"]);
    let index = repository.index("1", &[image]);
    let server = repository.serve();
    let (client, shelf, on) = (client(), Shelf::default(), platform("linux/amd64"));
    let by_tag = reference(&server.host(), "1");
    let first = client.resolve(&by_tag, &on, &shelf).unwrap();
    assert_eq!(server.log().len(), 3);
    assert_eq!(shelf.documents.lock().unwrap().len(), 3);

    // Pinned: no question.
    let pinned = reference(&server.host(), &first.pin().to_string());
    assert_eq!(client.resolve(&pinned, &on, &shelf).unwrap(), first);
    assert_eq!(server.log().len(), 3);

    // A tag that has not moved: one, without a body.
    *shelf.last.lock().unwrap() = Some(index.digest);
    assert_eq!(client.resolve(&by_tag, &on, &shelf).unwrap(), first);
    assert_eq!(server.lines()[3..], ["HEAD /v2/acme/app/manifests/1"]);

    // A tag that has moved is followed.
    *shelf.last.lock().unwrap() = Some(Digest::of(b"before"));
    assert_eq!(client.resolve(&by_tag, &on, &shelf).unwrap(), first);

    // What is damaged is fetched anew.
    shelf.documents.lock().unwrap().insert(index.digest, b"damaged".to_vec());
    assert_eq!(client.resolve(&pinned, &on, &shelf).unwrap(), first);
}

#[test]
fn the_digest_of_a_tag_is_had_for_a_question_without_a_body() {
    let mut repository = Repository::default();
    let image = repository.image("1", "linux/amd64", &[b"x"]);
    let server = repository.serve();
    assert_eq!(client().digest(&reference(&server.host(), "1")).unwrap(), image.digest);
    assert_eq!(server.lines(), ["HEAD /v2/acme/app/manifests/1"]);

    let mute = Server::start(move |request, _| match request.method.as_str() {
        "HEAD" => Answer::new(405, ""),
        _ => Answer { headers: vec![], ..repository.answer(request) },
    });
    assert_eq!(client().digest(&reference(&mute.host(), "1")).unwrap(), image.digest);
    assert!(matches!(client().digest(&reference(&server.host(), "2")), Err(Error::NotFound { .. })));
}
