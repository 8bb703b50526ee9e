//! Tags: none lost, nothing of others touched, and readable by others.

use serde_json::{Value, json};

use super::*;
use crate::image::manifest::{Descriptor, media_type};
use crate::recipe::reference::Reference;

pub(super) fn reference(repository: &str, tag: &str) -> Reference {
    Reference {
        registry: "registry.example".to_owned(),
        repository: repository.to_owned(),
        tag: Some(tag.to_owned()),
        digest: None,
    }
}

pub(super) fn descriptor(digest: Digest) -> Descriptor {
    Descriptor::new(media_type::MANIFEST, digest, 1)
}

fn index(fixture: &Fixture) -> Value {
    serde_json::from_slice(&std::fs::read(fixture.root().join("oci/index.json")).unwrap()).unwrap()
}

/// Stores an image without layers, and names it.
fn image(store: &Store, reference: &Reference, author: &str) -> Descriptor {
    document_of(store, reference, author, &[], &[])
}

/// Stores an image of these layers, and names it.
pub(super) fn image_of(store: &Store, reference: &Reference, layers: &[DiffId], packed: &[Digest]) -> Descriptor {
    document_of(store, reference, "somebody", layers, packed)
}

fn document_of(store: &Store, reference: &Reference, author: &str, layers: &[DiffId], packed: &[Digest]) -> Descriptor {
    let packed: Vec<_> = packed.iter().map(|digest| Descriptor::new(media_type::LAYER_GZIP, *digest, 1)).collect();
    let config = json!({
        "author": author, "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": layers},
    });
    let config = store_document(store, media_type::CONFIG, &config);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": packed,
    });
    let manifest = store_document(store, media_type::MANIFEST, &manifest);
    store.tag(reference, &manifest).unwrap();
    manifest
}

fn store_document(store: &Store, media_type: &str, document: &Value) -> Descriptor {
    let bytes = document.to_string().into_bytes();
    Descriptor::new(media_type, store.put_blob(&bytes).unwrap(), bytes.len() as u64)
}

#[test]
fn a_name_has_one_image() {
    let fixture = Fixture::new();
    let (a, b) = (reference("a", "1"), reference("b", "1"));
    let mut annotated = descriptor(Digest::of(b"1"));
    annotated.annotations.insert("org.opencontainers.image.created".to_owned(), "today".to_owned());
    fixture.store.tag(&b, &descriptor(Digest::of(b"0"))).unwrap();
    fixture.store.tag(&a, &descriptor(Digest::of(b"0"))).unwrap();
    fixture.store.tag(&a, &annotated).unwrap();
    let store = fixture.reopen();
    assert_eq!(store.tagged(&a).unwrap(), Some(annotated.clone()));
    assert_eq!(store.tags().unwrap(), [(a.clone(), annotated), (b.clone(), descriptor(Digest::of(b"0")))]);
    assert!(store.untag(&a).unwrap());
    assert!(!store.untag(&a).unwrap());
    assert_eq!(fixture.store.tagged(&a).unwrap(), None);
    assert!(fixture.store.tagged(&b).unwrap().is_some());
}

#[test]
fn names_survive_the_loss_of_their_list() {
    type Spoil = fn(&Path);
    let spoils: [Spoil; 4] = [
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, "").unwrap(),
        |path| std::fs::write(path, "{\"schemaVersion\":2,\"manif").unwrap(),
        |path| std::fs::write(path, [0; 100]).unwrap(),
    ];
    let (a, b) = (reference("a", "1"), reference("b", "1"));
    for (number, spoil) in spoils.into_iter().enumerate() {
        let fixture = Fixture::new();
        fixture.store.tag(&a, &descriptor(Digest::of(b"0"))).unwrap();
        fixture.store.tag(&b, &descriptor(Digest::of(b"1"))).unwrap();
        spoil(&fixture.root().join("oci/index.json"));
        assert_eq!(fixture.store.look_at_index().unwrap(), IndexState::Restorable);
        let store = if number % 2 == 0 { fixture.reopen() } else { Store::open(&fixture.root()).unwrap() };
        assert_eq!(store.tags().unwrap().len(), 2);
        let damage = store.take_damage();
        assert!(matches!(&damage[..], [Damage::Index { .. }]), "{damage:?}");
        assert!(store.untag(&a).unwrap());
        assert_eq!(store.look_at_index().unwrap(), IndexState::Whole);
        // With neither, nothing is guessed.
        spoil(&fixture.root().join("oci/index.json"));
        std::fs::write(fixture.root().join("index-copy"), "rubbish").unwrap();
        assert!(!store.index_copy_is_sound());
        assert_eq!(store.look_at_index().unwrap(), IndexState::Lost);
        let lost = store.mend_index(&mut |_| true).unwrap();
        assert!(lost.is_empty() && store.tags().unwrap().is_empty() && store.index_copy_is_sound());
    }
}

#[test]
fn a_name_whose_image_is_gone_gets_the_copys_or_goes() {
    let fixture = Fixture::new();
    let (a, b) = (reference("a", "1"), reference("b", "1"));
    let [good, bad, gone] = [b"0", b"1", b"2"].map(|bytes| descriptor(Digest::of(bytes)));
    fixture.store.tag(&a, &good).unwrap();
    fixture.store.tag(&b, &gone).unwrap();
    let copy = std::fs::read(fixture.root().join("index-copy")).unwrap();
    fixture.store.tag(&a, &bad).unwrap();
    std::fs::write(fixture.root().join("index-copy"), copy).unwrap();
    let lost = fixture.store.mend_index(&mut |image| image.digest == good.digest).unwrap();
    assert_eq!(lost, [(b.to_string(), gone.digest)]);
    assert_eq!(fixture.store.tags().unwrap(), [(a, good)]);
}

#[test]
fn the_same_tag_again_writes_nothing() {
    let fixture = Fixture::new();
    let path = fixture.root().join("oci/index.json");
    fixture.store.tag(&reference("a", "1"), &descriptor(Digest::of(b"0"))).unwrap();
    let before = path.metadata().unwrap().modified().unwrap();
    fixture.store.tag(&reference("a", "1"), &descriptor(Digest::of(b"0"))).unwrap();
    assert_eq!(path.metadata().unwrap().modified().unwrap(), before);
}

#[test]
fn what_others_wrote_stays() {
    let fixture = Fixture::new();
    let foreign = json!({
        "schemaVersion": 2,
        "annotations": {"who": "somebody else"},
        "manifests": [
            {"mediaType": "text/plain", "digest": "sha512:00", "size": 1, "note": "of another algorithm"},
            {"mediaType": media_type::MANIFEST, "digest": Digest::of(b"x"), "size": 1},
            {"mediaType": media_type::MANIFEST, "digest": Digest::of(b"y"), "size": 1,
             "annotations": {"org.opencontainers.image.ref.name": "!not a reference!"}},
        ],
    });
    std::fs::write(fixture.root().join("oci/index.json"), foreign.to_string()).unwrap();
    assert_eq!(fixture.store.tags().unwrap(), []);
    fixture.store.tag(&reference("a", "1"), &descriptor(Digest::of(b"0"))).unwrap();
    assert_eq!(fixture.store.tags().unwrap().len(), 1);
    assert_eq!(index(&fixture)["manifests"].as_array().unwrap().len(), 4);
    fixture.store.untag(&reference("a", "1")).unwrap();
    assert_eq!(index(&fixture), foreign);
}

#[test]
fn a_list_that_is_null_or_missing_is_empty_and_rubbish_is_told() {
    let fixture = Fixture::new();
    let path = fixture.root().join("oci/index.json");
    std::fs::write(&path, r#"{"schemaVersion":2,"manifests":null}"#).unwrap();
    assert_eq!(fixture.store.tags().unwrap(), []);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(fixture.store.tags().unwrap(), []);
    std::fs::write(&path, "{").unwrap();
    std::fs::write(fixture.root().join("index-copy"), "{").unwrap();
    let error = fixture.store.tag(&reference("a", "1"), &descriptor(Digest::of(b"0"))).unwrap_err();
    assert!(matches!(&error, Error::Document { path: told, .. } if *told == path), "{error:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
}

#[test]
fn eight_processes_lose_no_tag() {
    let fixture = Fixture::new();
    let processes: Vec<_> = (0..8)
        .map(|number| respawn("tag", &fixture.root()).env(role::ARGUMENT, format!("p{number}")).spawn().unwrap())
        .collect();
    for mut process in processes {
        assert!(process.wait().unwrap().success());
    }
    let tags = fixture.store.tags().unwrap();
    assert_eq!(tags.len(), 160);
    assert!(tags.iter().all(|(_, image)| fixture.store.verify_blob(&image.digest).unwrap()));
    assert_eq!(fixture.count("tmp"), 1, "ours");
}

#[test]
fn an_image_goes_with_its_last_name() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (one, two, other) = (reference("a", "1"), reference("a", "2"), reference("b", "1"));
    image(store, &one, "x");
    let shared = image(store, &two, "x");
    let kept = image(store, &other, "y");
    assert_eq!(store.remove_image(&reference("absent", "1")).unwrap(), None);
    assert_eq!(store.remove_image(&one).unwrap(), Some(RemovedImage::default()), "another name has it");
    assert!(store.blob_path(&shared.digest).is_some());
    let removed = store.remove_image(&two).unwrap().unwrap();
    assert_eq!(removed.blobs, 2);
    assert!(removed.bytes > shared.size);
    assert_eq!(store.blob_path(&shared.digest), None);
    assert!(store.blob_path(&kept.digest).is_some());
    assert_eq!(fixture.count("oci/blobs/sha256"), 2);
}

#[test]
fn an_index_reaches_its_manifests() {
    let fixture = Fixture::new();
    let store = &fixture.store;
    let (whole, part) = (reference("a", "all"), reference("a", "amd64"));
    let manifest = image(store, &part, "x");
    let index = json!({"schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": [manifest]});
    store.tag(&whole, &store_document(store, media_type::INDEX, &index)).unwrap();
    assert_eq!(store.remove_image(&part).unwrap(), Some(RemovedImage::default()));
    assert_eq!(store.remove_image(&whole).unwrap().unwrap().blobs, 3);
}

#[test]
fn what_a_build_uses_stays_without_its_name() {
    let fixture = Fixture::new();
    let build = fixture.reopen();
    let share = build.share(&mut patient).unwrap();
    let (name, again) = (reference("a", "1"), reference("a", "2"));
    let kept = image(&build, &name, "x");
    assert_eq!(fixture.store.remove_image(&name).unwrap(), Some(RemovedImage::default()));
    assert!(fixture.store.blob_path(&kept.digest).is_some());
    build.tag(&again, &kept).unwrap();
    drop(share);
    assert_eq!(fixture.store.remove_image(&again).unwrap().unwrap().blobs, 2);
}

#[test]
fn skopeo_reads_the_layout() {
    let skopeo = Command::new("skopeo").arg("--version").output();
    if !can("skopeo", skopeo.is_ok_and(|output| output.status.success())) {
        return;
    }
    let fixture = Fixture::new();
    let name = reference("group/project", "1.0");
    let manifest = image(&fixture.store, &name, "x");
    image(&fixture.store, &reference("other", "1"), "y");
    let place = format!("oci:{}:{name}", fixture.store.oci_layout().display());
    let output = Command::new("skopeo").args(["inspect", &place]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(told["Digest"], manifest.digest.to_string());
    assert_eq!(told["Architecture"], "amd64");
}
