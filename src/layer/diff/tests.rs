use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};

use proptest::prelude::*;
use rustix::mount::{MountFlags, UnmountFlags};

use super::*;
use crate::layer::archive::{self, Times};
use crate::layer::sample::{
    self, Change, Description, any_change, describe, describe_tree, is_root, make, without_links,
};
use crate::layer::unpack::{Owners, unpack};
use crate::layer::view::Tops;

const TRUSTED: OverlayXattr = OverlayXattr::Trusted;

/// A mounted overlay with an upper directory of its own.
struct Overlay {
    root: tempfile::TempDir,
}

impl Overlay {
    fn over(lowers: &[PathBuf], xattr: OverlayXattr) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["upper", "work", "merged"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let lowers: Vec<_> = lowers.iter().map(|path| path.to_str().unwrap()).collect();
        let at = root.path().to_str().unwrap();
        let own = if xattr == OverlayXattr::User { "userxattr" } else { "redirect_dir=off,metacopy=off" };
        let options = format!("lowerdir={},upperdir={at}/upper,workdir={at}/work,index=off,{own}", lowers.join(":"));
        let options = std::ffi::CString::new(options).unwrap();
        rustix::mount::mount("overlay", root.path().join("merged"), "overlay", MountFlags::empty(), Some(&*options))
            .unwrap();
        Self { root }
    }

    fn merged(&self) -> PathBuf {
        self.root.path().join("merged")
    }

    fn upper(&self) -> PathBuf {
        self.root.path().join("upper")
    }

    fn unmount(&self) {
        // Another test that is starting a process just now holds what we had open, until that process is on its own.
        let is_free = || rustix::mount::unmount(self.merged(), UnmountFlags::empty()).is_ok();
        for _ in 0..5000 {
            if is_free() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the overlay is still in use");
    }
}

impl Drop for Overlay {
    fn drop(&mut self) {
        // Most often it is unmounted already; a failed test must not leave it.
        let _ = rustix::mount::unmount(self.merged(), UnmountFlags::DETACH);
    }
}

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

/// Writes the layer in `tree`, unpacks it beside and checks that it would be written the same again.
fn through_an_archive(tree: &Path, xattr: OverlayXattr) -> PathBuf {
    let unpacked = tree.with_extension("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut bytes = Vec::new();
    let measured = archive::write(tree, xattr, Times::default(), &mut bytes).unwrap();
    assert_eq!(unpack(bytes.as_slice(), &unpacked, xattr, Owners::Kept).unwrap().measured, measured);
    assert_eq!(archive::measure(&unpacked, xattr, Times::default()).unwrap(), measured);
    unpacked
}

/// What a layer has to keep. Links between layers are cut, and a directory of which only the time changed is left out, so
/// that times of directories say nothing here.
fn compared(description: Description) -> Description {
    let timeless = |line: String| match line.split_once(", at ") {
        Some((what, rest)) if line.starts_with("directory") => {
            format!("{what}, {}", rest.split_once(", ").map_or("", |(_, attributes)| attributes))
        }
        _ => line,
    };
    without_links(description).into_iter().map(|(path, line)| (path, timeless(line))).collect()
}

fn check_steps(steps: &[Vec<Change>], xattr: OverlayXattr) -> Result<(), TestCaseError> {
    let base = tempfile::tempdir().unwrap();
    let mut lowers = vec![base.path().join("base")];
    make(&lowers[0], &steps[0]);
    let mut overlays = Vec::new();
    for changes in &steps[1..] {
        let overlay = Overlay::over(&lowers, xattr);
        changes.iter().for_each(|change| change.make(&overlay.merged()));
        let expected = compared(describe(&overlay.merged()));
        overlay.unmount();
        tidy_over(&overlay.upper(), &lowers, xattr).unwrap();
        lowers.insert(0, overlay.upper());
        let tidied = View::over(&lowers, xattr).unwrap();
        prop_assert_eq!(&compared(describe_tree(&tidied)), &expected);
        lowers[0] = through_an_archive(&overlay.upper(), xattr);
        let unpacked = View::over(&lowers, xattr).unwrap();
        prop_assert_eq!(&compared(describe_tree(&unpacked)), &expected);
        overlays.push(overlay);
    }
    Ok(())
}

proptest! {
    #![proptest_config(sample::cases(64))]

    #[test]
    fn layers_are_what_the_overlay_showed(
        steps in prop::collection::vec(prop::collection::vec(any_change(), 0..30), 2..5), user: bool,
    ) {
        if is_root() {
            check_steps(&steps, if user { OverlayXattr::User } else { TRUSTED })?;
        }
    }
}
