//! Any bytes as a layer: decompressed as a registry's blob is, unpacked, written again, and that unpacked.
//!
//! Checked: no panic, whatever the bytes; nothing beside the directory is touched; what was unpacked can be written
//! as a layer, and that layer unpacks to the same layer, and completes what the first left out. Run as root, this makes
//! devices in a temporary directory.

#![no_main]

use std::fs;
use std::path::Path;

use libfuzzer_sys::fuzz_target;
use strata::layer::OverlayXattr;
use strata::layer::archive::{Times, measure, write};
use strata::layer::compress::decoder;
use strata::layer::implied::{Layer, complete};
use strata::layer::unpack::{Owners, unpack};

/// A bomb's content is not wanted here.
const LIMIT: u64 = 4 << 20;

fuzz_target!(|bytes: &[u8]| {
    let place = tempfile::tempdir().expect("the temporary directory has room");
    let beside = place.path().join("beside");
    fs::write(&beside, "untouched").expect("the directory is new");
    let (first, second) = (place.path().join("first"), place.path().join("second"));
    for directory in [&first, &second] {
        fs::create_dir(directory).expect("the directory is new");
    }
    let Ok(stream) = decoder(bytes) else { return };
    let Ok(unpacked) = unpack(std::io::Read::take(stream, LIMIT), &first, OverlayXattr::Trusted, Owners::Squashed) else {
        assert_untouched(place.path(), &beside);
        return;
    };
    assert_untouched(place.path(), &beside);
    for path in &unpacked.implied {
        assert!(fs::symlink_metadata(first.join(path)).is_ok_and(|found| found.is_dir()), "{path:?} is implied");
    }
    let mut archive = Vec::new();
    let Ok(measured) = write(&first, OverlayXattr::Trusted, Times::default(), &mut archive) else { return };
    unpack(archive.as_slice(), &second, OverlayXattr::Trusted, Owners::Squashed).expect("our own layer unpacks");
    // That layer leaves nothing out, so it says what the first one's implied directories look like.
    let completion = place.path().join("completion");
    fs::create_dir(&completion).expect("the directory is new");
    let layers = [Layer { tree: &first, implied: &unpacked.implied }, Layer { tree: &second, implied: &[] }];
    let is_needed = complete(&layers, OverlayXattr::Trusted, &completion).expect("what we unpacked can be completed");
    let has_some = fs::read_dir(&completion).expect("it is still there").next().is_some();
    assert_eq!(is_needed, has_some);
    let again = measure(&second, OverlayXattr::Trusted, Times::default()).expect("what we unpacked can be read");
    assert_eq!(measured.diff_id, again.diff_id, "the layer changed on the way");
});

fn assert_untouched(place: &Path, beside: &Path) {
    assert_eq!(fs::read(beside).expect("it is still there"), b"untouched");
    assert_eq!(fs::read_dir(place).expect("it is still there").count(), 3, "something was made beside the layer");
}
