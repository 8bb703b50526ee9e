//! Tests of the verification on stores made by hand; `tests/e2e/damage.rs` damages those that builds made.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::json;
use tempfile::TempDir;

use super::*;
use crate::digest::{DiffId, Digest, Key};
use crate::image::manifest::{Descriptor, media_type};
use crate::layer::archive::{self, Times};
use crate::progress::Silent;
use crate::recipe::reference::Reference;
use crate::store::{Bucket, LayerMeta, Origin};

const XATTR: OverlayXattr = OverlayXattr::User;

/// A store with an image of one layer of each origin, a record, a cache mount and a build.
struct Fixture {
    directory: TempDir,
    store: Store,
    built: DiffId,
    pulled: DiffId,
    manifest: Digest,
    name: Reference,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        let built = layer(&store, "built", false);
        let pulled = layer(&store, "pulled", true);
        let name: Reference = "registry.example/image:1".parse().unwrap();
        let manifest = image(&store, &name, built);
        store.write_record(Bucket::new("selections-v1"), &Key::from_bytes([1; 32]), &[7; 32]).unwrap();
        drop(store.begin_build().unwrap());
        Self { directory, store, built, pulled, manifest, name }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("store").join(name)
    }

    fn layer(&self, layer: &DiffId) -> PathBuf {
        self.path("layers").join(layer.hex())
    }

    fn check(&self, repair: bool) -> Report {
        check(&self.store, XATTR, repair, &Reporter::new(Arc::new(Silent)), &Cancel::new()).unwrap()
    }
}

fn layer(store: &Store, content: &str, is_pulled: bool) -> DiffId {
    let scratch = store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    std::fs::write(tree.join("file"), content).unwrap();
    let measured = archive::measure(&tree, XATTR, Times::default()).unwrap();
    let (diff_id, origin) = if is_pulled {
        let seal = archive::seal(&tree, XATTR).unwrap();
        // Another writer's archive has another digest than ours would have.
        (DiffId::from(Digest::of(b"foreign")), Origin::Pulled { reference: "base".to_owned(), seal })
    } else {
        (measured.diff_id, Origin::Built { key: Key::from_bytes([2; 32]) })
    };
    let meta = LayerMeta {
        tar_size: measured.size,
        disk: 0,
        entries: measured.entries,
        origin,
        clamp: None,
        forms: Vec::new(),
        implied: Vec::new(),
    };
    store.publish_layer(&diff_id, &tree, meta).unwrap().diff_id
}

fn image(store: &Store, name: &Reference, layer: DiffId) -> Digest {
    let document = |media_type: &str, value: serde_json::Value| {
        let bytes = value.to_string().into_bytes();
        Descriptor::new(media_type, store.put_blob(&bytes).unwrap(), bytes.len() as u64)
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
    });
    let config = document(media_type::CONFIG, config);
    let layers = [Descriptor::new(media_type::LAYER, Digest::from(layer), 1)];
    let manifest = json!({
        "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers,
    });
    let manifest = document(media_type::MANIFEST, manifest);
    store.tag(name, &manifest).unwrap();
    manifest.digest
}

fn overwrite(path: &Path, bytes: &[u8]) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn a_whole_store_is_good_and_everything_in_it_was_looked_at() {
    let fixture = Fixture::new();
    for repair in [false, true] {
        let Report { verified, findings, notes } = fixture.check(repair);
        assert!(findings.is_empty() && notes.is_empty(), "{findings:?} {notes:?}");
        let Verified { blobs, layers, names, records, builds, .. } = verified;
        assert_eq!((blobs, layers, names, records, builds), (2, 2, 1, 1, 1));
    }
    assert!(fixture.store.tagged(&fixture.name).unwrap().is_some());
}

#[test]
fn what_is_damaged_is_found_and_a_repair_removes_nothing_else() {
    type Spoil = fn(&Fixture);
    // What is spoiled, what the finding is called, and what becomes of the name.
    let cases: [(&str, Spoil, &str, bool); 11] = [
        ("a built layer", |f| overwrite(&f.layer(&f.built).join("tree/file"), b"BUILT"), "layer", false),
        ("a built layer's mode", |f| overwrite(&f.layer(&f.built).join("tree/file"), b"built"), "layer", false),
        ("a pulled layer", |f| overwrite(&f.layer(&f.pulled).join("tree/file"), b"PULLED"), "layer", true),
        (
            "a pulled layer's file",
            |f| std::fs::remove_file(f.layer(&f.pulled).join("tree/file")).unwrap(),
            "layer",
            true,
        ),
        ("a description", |f| overwrite(&f.layer(&f.pulled).join("layer.json"), b"{}"), "layer", true),
        ("a tree", |f| std::fs::remove_dir_all(f.layer(&f.pulled).join("tree")).unwrap(), "layer", true),
        ("a manifest", |f| overwrite(&f.path("oci/blobs/sha256").join(f.manifest.hex()), b"{}"), "blob", false),
        ("the names", |f| overwrite(&f.path("oci/index.json"), b"rubbish"), "index", true),
        ("the copy", |f| overwrite(&f.path("index-copy"), b"rubbish"), "index", true),
        ("the layout", |f| overwrite(&f.path("oci/oci-layout"), b""), "index", true),
        ("a context's index", |f| f.store.replace(&f.path("cache/contexts/aa"), b"rubbish").unwrap(), "record", true),
    ];
    for (about, spoil, kind, keeps_name) in cases {
        let fixture = Fixture::new();
        spoil(&fixture);
        let before = fixture.check(false);
        assert!(!before.is_good(), "{about}");
        let found = serde_json::to_value(&before.findings).unwrap();
        assert_eq!(found[0]["kind"], kind, "{about}: {found}");
        // Looking changes nothing.
        assert_eq!(before.findings, fixture.check(false).findings, "{about}");
        let repaired = fixture.check(true);
        assert_eq!(repaired.is_good(), keeps_name, "{about}: {:?}", repaired.findings);
        let lost = repaired.findings.iter().any(|finding| finding.outcome == Outcome::Lost);
        assert_eq!(lost, !keeps_name, "{about}: {:?}", repaired.findings);
        let after = fixture.check(false);
        assert!(after.findings.is_empty(), "{about}: {:?}", after.findings);
        assert_eq!(fixture.store.tagged(&fixture.name).unwrap().is_some(), keeps_name, "{about}");
    }
}

#[test]
fn a_layer_is_not_taken_from_a_build() {
    let fixture = Fixture::new();
    overwrite(&fixture.layer(&fixture.pulled).join("tree/file"), b"PULLED");
    let build = Store::open(fixture.store.root()).unwrap();
    let share = build.share(&mut |_| ControlFlow::Continue(())).unwrap();
    assert!(build.layer(&fixture.pulled).unwrap().is_some());
    let report = fixture.check(true);
    assert!(matches!(&report.findings[..], [Finding { outcome: Outcome::InUse, .. }]), "{report:?}");
    assert!(build.layer(&fixture.pulled).unwrap().is_some());
    drop(share);
    assert!(fixture.check(true).is_good());
    assert!(build.layer(&fixture.pulled).unwrap().is_none());
}
