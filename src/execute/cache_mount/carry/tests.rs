//! Archives of caches: there and back, and those that nobody should trust.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::*;

struct Place {
    _directory: tempfile::TempDir,
    store: Store,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::open(&directory.path().join("store")).unwrap();
        Self { _directory: directory, store }
    }

    /// Puts a cache there as steps do.
    fn cache(&self, id: &str, platform: &str, files: &[(&str, &str)]) -> PathBuf {
        let scratch = self.store.scratch().unwrap();
        let tree = scratch.dir("tree").unwrap();
        for (name, content) in files {
            let path = tree.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let directory = self.store.mounts().join(name_of(id, platform).hex());
        put(&scratch, (id, platform), &tree, &directory, &directory.join("0")).unwrap();
        directory.join("0")
    }

    fn export(&self) -> Vec<u8> {
        let alone = stored::alone(&self.store, "test").unwrap();
        let mut archive = Vec::new();
        export(&stored::list(&self.store).unwrap(), OverlayXattr::User, &alone, &mut archive).unwrap();
        archive
    }

    fn import(&self, archive: &[u8]) -> Result<Vec<Imported>, Error> {
        let alone = stored::alone(&self.store, "test").unwrap();
        let owners = if rustix::process::geteuid().is_root() { Owners::Kept } else { Owners::Squashed };
        import(&self.store, OverlayXattr::User, owners, &alone, &mut &*archive)
    }

    fn ids(&self) -> Vec<(String, String)> {
        stored::list(&self.store).unwrap().into_iter().map(|cache| (cache.id, cache.platform)).collect()
    }

    fn shared_copy(&self, id: &str) -> PathBuf {
        shared_copy(stored::list(&self.store).unwrap().iter().find(|cache| cache.id == id).unwrap())
    }
}

#[test]
fn caches_go_from_one_store_to_another_and_back() {
    let here = Place::new();
    let path = here.cache("a", "linux/amd64", &[("f", "one"), ("d/e/g", "two")]);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
    std::fs::hard_link(path.join("f"), path.join("d/h")).unwrap();
    std::os::unix::fs::symlink("../f", path.join("d/l")).unwrap();
    here.cache("a", "linux/arm64", &[]);
    here.cache("/root/.cache with\na line", "linux/amd64", &[("f", "three")]);
    let archive = here.export();
    assert_eq!(archive, here.export(), "the same content, the same bytes");

    let there = Place::new();
    there.cache("a", "linux/amd64", &[("old", "")]);
    there.cache("other", "linux/amd64", &[("kept", "")]);
    let imported = there.import(&archive).unwrap();
    assert_eq!(imported.len(), 3);
    let mut ids = here.ids();
    ids.push(("other".to_owned(), "linux/amd64".to_owned()));
    assert_eq!(there.ids(), ids);
    let copy = there.store.mounts().join(name_of("a", "linux/amd64").hex()).join("0");
    assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o7777, 0o700);
    assert_eq!(std::fs::read_to_string(copy.join("d/e/g")).unwrap(), "two");
    assert_eq!(std::fs::metadata(copy.join("d/h")).unwrap().nlink(), 2);
    assert_eq!(std::fs::read_link(copy.join("d/l")).unwrap(), Path::new("../f"));
    assert!(!copy.join("old").exists(), "what was there is replaced");
    assert!(there.shared_copy("other").join("kept").exists());
    let alone = stored::alone(&there.store, "test").unwrap();
    stored::list(&there.store)
        .unwrap()
        .iter()
        .find(|cache| cache.id == "other")
        .unwrap()
        .remove(&there.store, &alone)
        .unwrap();
    drop(alone);
    assert_eq!(there.export(), archive, "and back");
}

#[test]
fn nothing_is_done_while_a_build_runs() {
    let place = Place::new();
    let build = place.store.share(&mut |_| std::ops::ControlFlow::Break(())).unwrap();
    assert!(matches!(stored::alone(&place.store, "test"), Err(stored::Error::InUse)));
    drop(build);
    stored::alone(&place.store, "test").map(drop).unwrap();
}

/// An archive of one cache with this table, and these bytes for its files.
fn archive_of(table: &str, name: &str, files: &[u8]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, content) in [(TABLE, table.as_bytes()), (name, files)] {
        part(&mut archive, name, content.len() as u64).unwrap();
        archive.extend(content);
        pad(&mut archive, content.len() as u64).unwrap();
    }
    archive.extend([0; 1024]);
    archive
}

fn tar_of(name: &str, kind: tar::EntryType, link: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    // `set_path` refuses what is wanted here.
    header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
    header.as_mut_bytes()[157..157 + link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(rustix::process::geteuid().as_raw().into());
    header.set_gid(rustix::process::getegid().as_raw().into());
    header.set_mtime(0);
    header.set_size(0);
    header.set_cksum();
    [header.as_bytes().as_slice(), &[0; 1024]].concat()
}

#[test]
fn archives_that_lie_change_nothing() {
    let place = Place::new();
    place.cache("a", "linux/amd64", &[("kept", "")]);
    let good = place.export();
    let fine = tar_of("f", tar::EntryType::Regular, "");
    let digest = |files: &[u8]| crate::digest::Digest::of(files).to_string();
    let row = |id: &str, platform: &str, files: &[u8]| {
        format!(
            r#"{{"id":"{id}","platform":"{platform}","mode":493,"uid":0,"gid":0,"digest":"{}","size":{}}}"#,
            digest(files),
            files.len()
        )
    };
    let table = |rows: &[String]| format!(r#"{{"format":1,"caches":[{}]}}"#, rows.join(","));
    let one = |files: &[u8]| archive_of(&table(&[row("a", "linux/amd64", files)]), "0.tar", files);
    let climbing = tar_of("../../escaped", tar::EntryType::Regular, "");
    let linking = tar_of("l", tar::EntryType::Link, "../../../version");
    let mut through = tar_of("out", tar::EntryType::Symlink, "/");
    through.truncate(512);
    through.extend(tar_of("out/escaped-through-a-link", tar::EntryType::Regular, ""));
    for (about, archive, part) in [
        ("nothing", Vec::new(), "cut off"),
        ("text", b"text".repeat(300), "is not where it has to be"),
        ("cut in its table", good[..600].to_vec(), "cut off"),
        ("cut in a cache", good[..good.len() - 2000].to_vec(), "cut off"),
        ("another format", archive_of(r#"{"format":2,"caches":[]}"#, "0.tar", &[]), "format is 2"),
        ("another key", archive_of(r#"{"format":1,"caches":[],"x":1}"#, "0.tar", &[]), "unknown field"),
        (
            "another name",
            archive_of(&table(&[row("a", "linux/amd64", &fine)]), "other.tar", &fine),
            "0.tar is not where",
        ),
        ("no platform", archive_of(&table(&[row("a", "linux amd64", &fine)]), "0.tar", &fine), "no platform"),
        ("no id", archive_of(&table(&[row("", "linux/amd64", &fine)]), "0.tar", &fine), "empty or comes twice"),
        (
            "an id twice",
            archive_of(&table(&[row("a", "linux/amd64", &fine), row("a", "linux/amd64", &fine)]), "0.tar", &fine),
            "empty or comes twice",
        ),
        (
            "other files",
            archive_of(&table(&[row("a", "linux/amd64", &fine)]), "0.tar", &tar_of("g", tar::EntryType::Regular, "")),
            "another digest",
        ),
        ("another size", archive_of(&table(&[row("a", "linux/amd64", &fine)]), "0.tar", &[0; 512]), "another size"),
        ("a path that climbs", one(&climbing), "cannot be imported"),
        ("a link that climbs", one(&linking), "cannot be imported"),
    ] {
        let error = place.import(&archive).expect_err(about);
        assert!(error.to_string().contains(part) || about.starts_with("cut"), "{about}: {error}");
        assert!(place.shared_copy("a").join("kept").exists(), "{about}");
        assert_eq!(place.ids().len(), 1, "{about}");
    }
    // A link leads nowhere but inside.
    let _ = place.import(&one(&through));
    assert!(!Path::new("/escaped-through-a-link").exists());
    assert!(!place.store.root().join("escaped").exists());
}
