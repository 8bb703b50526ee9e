//! Overlays for tests, mounted by the kernel as a step's root is.

use std::fs;
use std::path::PathBuf;

use rustix::mount::{MountFlags, UnmountFlags};

use crate::layer::OverlayXattr;

/// A mounted overlay with an upper directory of its own.
pub(in crate::layer) struct Overlay {
    root: tempfile::TempDir,
}

impl Overlay {
    pub(in crate::layer) fn over(lowers: &[PathBuf], xattr: OverlayXattr) -> Self {
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

    pub(in crate::layer) fn merged(&self) -> PathBuf {
        self.root.path().join("merged")
    }

    pub(in crate::layer) fn upper(&self) -> PathBuf {
        self.root.path().join("upper")
    }

    pub(in crate::layer) fn unmount(&self) {
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
