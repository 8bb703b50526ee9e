use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};

use super::*;
use crate::layer::archive::{self, Times};
use crate::layer::sample::overlay::Overlay;
use crate::layer::sample::{self, describe, is_root};
use crate::layer::view::Tops;

mod cases;
mod sequences;

const TRUSTED: OverlayXattr = OverlayXattr::Trusted;

/// Makes changes on an overlay over `lower` and gives the tidied upper directory.
fn changed(lower: &Path, change: impl FnOnce(&Path)) -> Overlay {
    let overlay = Overlay::over(&[lower.to_owned()], TRUSTED);
    change(&overlay.merged());
    overlay.unmount();
    tidy_over(&overlay.upper(), &[lower.to_owned()], TRUSTED).unwrap();
    overlay
}

fn lower() -> tempfile::TempDir {
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("etc/deep")).unwrap();
    fs::create_dir(lower.path().join("empty")).unwrap();
    fs::write(lower.path().join("etc/one"), "1").unwrap();
    fs::write(lower.path().join("etc/deep/two"), "2").unwrap();
    fs::hard_link(lower.path().join("etc/one"), lower.path().join("etc/uno")).unwrap();
    lower
}

fn paths(root: &Path) -> Vec<String> {
    describe(root).into_keys().map(|path| path.to_str().unwrap().to_owned()).collect()
}

fn tidy_over(upper: &Path, lowers: &[PathBuf], xattr: OverlayXattr) -> Result<(), Error> {
    tidy(upper, &View::among(&Tops::default(), lowers, xattr).unwrap(), xattr)
}

#[test]
fn changes_that_change_nothing_cost_nothing() {
    if !is_root() {
        return;
    }
    let lower = lower();
    let overlay = changed(lower.path(), |root| {
        for path in paths(root) {
            lchown(root.join(path), Some(0), Some(0)).unwrap();
        }
    });
    assert_eq!(paths(&overlay.upper()), [""; 0]);
}

#[test]
fn only_what_hides_something_is_a_whiteout() {
    if !is_root() {
        return;
    }
    let lower = lower();
    let overlay = changed(lower.path(), |root| {
        fs::remove_file(root.join("etc/one")).unwrap();
        fs::remove_dir_all(root.join("etc/deep")).unwrap();
        fs::create_dir(root.join("etc/deep")).unwrap();
        fs::create_dir(root.join("new")).unwrap();
        fs::remove_dir(root.join("empty")).unwrap();
        fs::create_dir(root.join("empty")).unwrap();
    });
    // The kernel puts none of these there today, but other kernels did.
    sample::whiteout(&overlay.upper().join("new/absent"));
    sample::opaque(&overlay.upper().join("new"));
    let before = fs::metadata(overlay.upper().join("new")).unwrap().mtime_nsec();
    tidy_over(&overlay.upper(), &[lower.path().to_owned()], TRUSTED).unwrap();
    assert_eq!(paths(&overlay.upper()), ["etc", "etc/deep", "etc/deep/two", "etc/one", "new"]);
    assert_eq!(fs::metadata(overlay.upper().join("new")).unwrap().mtime_nsec(), before);
    for path in ["etc/deep", "new"] {
        let path = overlay.upper().join(path);
        assert!(!At::Path(&path).is_opaque(TRUSTED).unwrap(), "{path:?}");
    }
}

#[test]
fn what_is_made_and_removed_leaves_no_trace() {
    if !is_root() {
        return;
    }
    let lower = lower();
    let overlay = changed(lower.path(), |root| {
        fs::write(root.join("etc/deep/temporary"), "x").unwrap();
        fs::remove_file(root.join("etc/deep/temporary")).unwrap();
    });
    assert_eq!(paths(&overlay.upper()), [""; 0]);
}

#[test]
fn sockets_go() {
    if !is_root() {
        return;
    }
    let lower = lower();
    let overlay = changed(lower.path(), |root| {
        let _new = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        fs::remove_file(root.join("etc/uno")).unwrap();
        let _old = std::os::unix::net::UnixListener::bind(root.join("etc/uno")).unwrap();
    });
    assert_eq!(paths(&overlay.upper()), ["etc", "etc/uno"]);
    let found = inode::stat(inode::open_root(&overlay.upper().join("etc")).unwrap().as_fd(), b"uno").unwrap();
    assert_eq!(inode::child_kind(&found), ChildKind::Whiteout);
}

#[test]
fn a_new_name_of_an_old_file_is_a_file_of_its_own() {
    if !is_root() {
        return;
    }
    let lower = lower();
    let overlay = changed(lower.path(), |root| fs::hard_link(root.join("etc/one"), root.join("etc/eins")).unwrap());
    assert_eq!(paths(&overlay.upper()), ["etc", "etc/eins"]);
    assert_eq!(fs::metadata(overlay.upper().join("etc/eins")).unwrap().nlink(), 1);
}

#[test]
fn records_that_mislead_are_errors() {
    if !is_root() {
        return;
    }
    for (record, value) in [("redirect", "/etc"), ("metacopy", ""), ("whiteout", ""), ("opaque", "x"), ("future", "")] {
        let upper = tempfile::tempdir().unwrap();
        fs::create_dir(upper.path().join("inode")).unwrap();
        let name = format!("trusted.overlay.{record}");
        At::Path(&upper.path().join("inode")).set(name.as_bytes(), value.as_bytes()).unwrap();
        let error = tidy_over(upper.path(), &[], TRUSTED).unwrap_err();
        assert!(matches!(&error, Error::OverlayRecord { path, .. } if path == Path::new("inode")), "{record}: {error}");
        assert!(archive::measure(upper.path(), TRUSTED, Times::default()).is_err(), "{record}");
    }
}

#[test]
fn records_of_a_container_stay() {
    if !is_root() {
        return;
    }
    let upper = tempfile::tempdir().unwrap();
    fs::write(upper.path().join("file"), "").unwrap();
    let path = upper.path().join("file");
    for name in ["trusted.overlay.origin", "trusted.overlay.overlay.origin"] {
        At::Path(&path).set(name.as_bytes(), b"1").unwrap();
    }
    tidy_over(upper.path(), &[], TRUSTED).unwrap();
    let left = Attributes::read(At::Path(&path), TRUSTED).unwrap();
    assert_eq!((left.image, left.records), (vec![(b"trusted.overlay.origin".to_vec(), b"1".to_vec())], vec![]));
}
