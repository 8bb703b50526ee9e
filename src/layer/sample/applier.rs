//! Layers applied by other people's programs, to compare with: GNU tar with a few lines for what is deleted, and `umoci`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write as _;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::attributes;
use crate::layer::entries::{Entries, EntryKind};

/// Extracts an archive, with all that it says.
pub(in crate::layer) fn extract_with_gnu_tar(archive: &[u8], into: &Path) {
    let mut tar = Command::new("tar")
        .args(["--extract", "--xattrs", "--xattrs-include=*", "--numeric-owner", "--same-permissions"])
        .args(["--warning=no-timestamp", "--directory"])
        .arg(into)
        .env("LC_ALL", "C.UTF-8")
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    tar.stdin.take().unwrap().write_all(archive).unwrap();
    assert!(tar.wait().unwrap().success());
}

/// Applies layers, base first, to an empty directory, one on top of the other as the image specification says.
pub(in crate::layer) fn apply_with_gnu_tar(layers: &[Vec<u8>], into: &Path) {
    for layer in layers {
        let mut marks = Vec::new();
        let mut bytes = layer.as_slice();
        let mut entries = Entries::new(&mut bytes);
        while let Some(entry) = entries.next().unwrap() {
            let path = into.join(OsString::from_vec(entry.name));
            make_way(&path, entry.kind == EntryKind::Directory);
            if path.file_name().unwrap().as_bytes().starts_with(b".wh.") {
                marks.push(path);
            }
        }
        extract_with_gnu_tar(layer, into);
        marks.iter().for_each(|mark| remove(mark));
    }
}

/// Removes what an entry of the next layer deletes or takes the place of.
fn make_way(path: &Path, is_directory: bool) {
    let (parent, name) = (path.parent().unwrap(), path.file_name().unwrap().as_bytes());
    if name == b".wh..wh..opq" {
        let names: Vec<_> = fs::read_dir(parent).into_iter().flatten().map(|found| found.unwrap().path()).collect();
        return names.iter().for_each(|path| remove(path));
    }
    if let Some(hidden) = name.strip_prefix(b".wh.") {
        return remove(&parent.join(OsStr::from_bytes(hidden)));
    }
    match path.symlink_metadata() {
        // Attributes are the new entry's alone.
        Ok(found) if found.is_dir() && is_directory => {
            attributes(path).keys().for_each(|name| rustix::fs::lremovexattr(path, name.as_str()).unwrap());
        }
        Ok(_) => remove(path),
        Err(_) => {}
    }
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Applies layers, base first, as those of an image; gives the directory of its root, in `place`.
pub(in crate::layer) fn apply_with_umoci(layers: &[Vec<u8>], place: &Path) -> PathBuf {
    let umoci = |arguments: &[&str]| {
        let result = Command::new("umoci").args(arguments).current_dir(place).output().unwrap();
        assert!(result.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&result.stderr));
    };
    umoci(&["init", "--layout", "image"]);
    umoci(&["new", "--image", "image:tag"]);
    for layer in layers {
        fs::write(place.join("layer.tar"), layer).unwrap();
        umoci(&["raw", "add-layer", "--image", "image:tag", "layer.tar"]);
    }
    umoci(&["raw", "unpack", "--image", "image:tag", "out"]);
    place.join("out")
}
