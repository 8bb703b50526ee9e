//! Layers: published once, dropped when power loss may have cut them short.

use std::fs::FileTimes;
use std::time::SystemTime;

use super::*;
use crate::image::manifest::{Descriptor, media_type};

pub(super) fn id(content: &[u8]) -> DiffId {
    Digest::of(content).into()
}

pub(super) fn meta(tar_size: u64) -> LayerMeta {
    LayerMeta {
        tar_size,
        entries: 1,
        disk: 4096,
        origin: Origin::Built { key: Key::from_bytes([4; 32]) },
        clamp: None,
        forms: Vec::new(),
        implied: Vec::new(),
    }
}

/// Makes a layer of one file.
pub(super) fn publish(store: &Store, content: &[u8]) -> StoredLayer {
    let scratch = store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    std::fs::write(tree.join("file"), content).unwrap();
    store.publish_layer(&id(content), &tree, meta(content.len() as u64)).unwrap()
}

fn content(layer: &StoredLayer) -> Vec<u8> {
    std::fs::read(layer.tree.join("file")).unwrap()
}

fn description(fixture: &Fixture, content: &[u8]) -> PathBuf {
    fixture.root().join("layers").join(id(content).hex()).join("layer.json")
}

fn writers(fixture: &Fixture) -> Vec<String> {
    names(&fixture.root().join("locks")).into_iter().filter(|name| name.starts_with("writer-")).collect()
}

/// Makes the store look as if the machine had been started anew since its writers wrote.
fn reboot(fixture: &Fixture) {
    let locks = fixture.root().join("locks");
    let this = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let earlier = "00000000-1111-2222-3333-444444444444";
    for writer in writers(fixture) {
        std::fs::write(locks.join(writer), earlier).unwrap();
    }
    for layer in fixture.store.layers().unwrap() {
        let path = fixture.root().join("layers").join(layer.hex()).join("layer.json");
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        assert_eq!(file["layer"]["boot"], this.trim());
        file["layer"]["boot"] = earlier.into();
        // The check sum covers the fields in the order they are written, which a `Value` sorts.
        let layer = format!(
            r#"{{"writer":{},"boot":{},"meta":{{"tar_size":{},"entries":{},"disk":4096,"origin":{{"kind":"built","key":{}}},"forms":[]}}}}"#,
            file["layer"]["writer"],
            file["layer"]["boot"],
            file["layer"]["meta"]["tar_size"],
            file["layer"]["meta"]["entries"],
            file["layer"]["meta"]["origin"]["key"],
        );
        file["check"] = format!("blake3:{}", blake3::hash(layer.as_bytes()).to_hex()).into();
        std::fs::write(&path, file.to_string()).unwrap();
    }
}

#[test]
fn gives_back_what_was_published() {
    let fixture = Fixture::new();
    assert_eq!(fixture.store.layer(&id(b"a")).unwrap(), None);
    let published = publish(&fixture.store, b"a");
    assert_eq!(content(&published), b"a");
    assert_eq!(fixture.reopen().layer(&id(b"a")).unwrap().as_ref(), Some(&published));
    assert_eq!(fixture.store.layers().unwrap(), [id(b"a")]);
    assert_eq!(writers(&fixture).len(), 1);
}

#[test]
fn implied_directories_of_any_name_are_kept() {
    use std::os::unix::ffi::OsStringExt as _;

    let fixture = Fixture::new();
    let odd = std::ffi::OsString::from_vec(b"odd/\xff\n\"".to_vec());
    let implied: Vec<PathBuf> = vec!["tmp".into(), "usr/lib".into(), "\u{e4}".into(), odd.into()];
    let scratch = fixture.store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    let meta = LayerMeta { implied: implied.clone(), ..meta(1) };
    fixture.store.publish_layer(&id(b"a"), &tree, meta).unwrap();
    assert_eq!(fixture.reopen().layer(&id(b"a")).unwrap().unwrap().meta.implied, implied);
}

#[test]
fn the_first_of_two_stays() {
    let fixture = Fixture::new();
    let first = publish(&fixture.store, b"a");
    let scratch = fixture.store.scratch().unwrap();
    let tree = scratch.dir("tree").unwrap();
    let second = fixture.store.publish_layer(&id(b"a"), &tree, meta(99)).unwrap();
    assert_eq!(second, first);
    assert!(!tree.exists());
}

#[test]
fn one_layer_from_many_threads_and_stores() {
    let fixture = Fixture::new();
    let other = fixture.reopen();
    std::thread::scope(|scope| {
        for number in 0..8 {
            let store = if number % 2 == 0 { &fixture.store } else { &other };
            scope.spawn(move || {
                for round in 0..20_u8 {
                    assert_eq!(content(&publish(store, &[round])), [round]);
                }
            });
        }
    });
    assert_eq!(fixture.store.layers().unwrap().len(), 20);
    assert_eq!(fixture.store.take_damage(), []);
    let left = walk(&fixture.root().join("tmp"));
    assert!(left.len() <= 2, "only the two processes' directories: {left:?}");
}

#[test]
fn forms_are_added_once() {
    let fixture = Fixture::new();
    publish(&fixture.store, b"a");
    let form = |format: &str, content: &[u8]| Form {
        format: format.to_owned(),
        descriptor: Descriptor::new(media_type::LAYER_GZIP, Digest::of(content), content.len() as u64),
    };
    for form in [form("gzip-1", b"1"), form("foreign", b"2"), form("foreign", b"3"), form("gzip-1", b"1")] {
        fixture.store.add_form(&id(b"a"), form).unwrap().unwrap();
    }
    let layer = fixture.reopen().layer(&id(b"a")).unwrap().unwrap();
    assert_eq!(layer.meta.forms, [form("gzip-1", b"1"), form("foreign", b"2"), form("foreign", b"3")]);
    assert_eq!(layer.meta.form("gzip-1"), Some(&form("gzip-1", b"1")));
    assert_eq!(layer.meta.form("zstd-1"), None);
    assert_eq!(fixture.store.add_form(&id(b"absent"), form("gzip-1", b"1")).unwrap(), None);
}

#[test]
fn a_damaged_layer_is_missing_told_once_and_made_again() {
    let damages: [fn(&Path); 5] = [
        |path| std::fs::write(path, "").unwrap(),
        |path| std::fs::remove_file(path).unwrap(),
        |path| std::fs::write(path, &std::fs::read(path).unwrap()[..100]).unwrap(),
        |path| {
            let flipped = std::fs::read_to_string(path).unwrap().replace("\"entries\": 1", "\"entries\": 2");
            std::fs::write(path, flipped).unwrap();
        },
        |path| std::fs::remove_dir_all(path.with_file_name("tree")).unwrap(),
    ];
    for damage in damages {
        let fixture = Fixture::new();
        publish(&fixture.store, b"a");
        damage(&description(&fixture, b"a"));
        assert_eq!(fixture.store.layer(&id(b"a")).unwrap(), None);
        assert_eq!(fixture.store.layer(&id(b"a")).unwrap(), None);
        assert_eq!(fixture.store.take_damage(), [Damage::Layer { diff_id: id(b"a") }]);
        assert_eq!(content(&publish(&fixture.store, b"a")), b"a");
        assert!(fixture.store.layer(&id(b"a")).unwrap().is_some());
    }
}

#[test]
fn a_layer_of_a_newer_release_is_left_alone() {
    let fixture = Fixture::new();
    publish(&fixture.store, b"a");
    let path = description(&fixture, b"a");
    std::fs::write(&path, r#"{"version":2,"stack":"unheard of"}"#).unwrap();
    let error = fixture.store.layer(&id(b"a")).unwrap_err();
    assert!(matches!(error, Error::NewerSchema { found: 2, supported: 1, .. }), "{error:?}");
    assert!(path.exists());
}

#[test]
fn what_power_loss_may_have_cut_short_is_dropped() {
    let fixture = Fixture::new();
    publish(&fixture.reopen(), b"a");
    publish(&fixture.reopen(), b"b");
    reboot(&fixture);
    std::fs::write(description(&fixture, b"b"), "").unwrap();
    // A reader knows before any sweep.
    assert_eq!(fixture.store.layer(&id(b"a")).unwrap(), None);
    assert!(description(&fixture, b"a").exists());
    let swept = fixture.store.sweep().unwrap().wait();
    assert!(swept.failures.is_empty(), "{:?}", swept.failures);
    assert_eq!(fixture.store.layers().unwrap(), []);
    assert_eq!(writers(&fixture), [""; 0]);
    let damage = fixture.store.take_damage();
    assert_eq!(damage.len(), 2, "{damage:?}");
    assert!(damage.contains(&Damage::Unwritten { diff_id: id(b"a") }));
    assert!(damage.contains(&Damage::Layer { diff_id: id(b"b") }));
}

#[test]
fn a_layer_cut_short_is_replaced_without_a_sweep() {
    let fixture = Fixture::new();
    publish(&fixture.reopen(), b"a");
    reboot(&fixture);
    assert_eq!(content(&publish(&fixture.store, b"a")), b"a");
    fixture.store.sweep().unwrap().wait();
    assert!(fixture.store.layer(&id(b"a")).unwrap().is_some(), "the new one is not its dead writer's");
}

#[test]
fn a_settled_layer_survives_the_next_boot() {
    let fixture = Fixture::new();
    publish(&fixture.reopen(), b"a");
    let [name] = &writers(&fixture)[..] else { panic!("one writer") };
    let writer = fixture.root().join("locks").join(name);
    fixture.store.sweep().unwrap().wait();
    assert!(writer.exists(), "it is too young to be settled");
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(61));
    std::fs::File::open(&writer).unwrap().set_times(old).unwrap();
    let swept = fixture.store.sweep().unwrap().wait();
    assert!(swept.failures.is_empty() && !writer.exists());
    reboot(&fixture);
    assert!(fixture.store.layer(&id(b"a")).unwrap().is_some());
    fixture.store.sweep().unwrap().wait();
    assert!(fixture.store.layer(&id(b"a")).unwrap().is_some());
}

#[test]
fn a_living_writer_is_left_alone() {
    let fixture = Fixture::new();
    publish(&fixture.store, b"a");
    let before = writers(&fixture);
    let old = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(1000));
    std::fs::File::open(fixture.root().join("locks").join(&before[0])).unwrap().set_times(old).unwrap();
    fixture.reopen().sweep().unwrap().wait();
    assert_eq!(writers(&fixture), before);
}
