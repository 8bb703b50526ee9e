//! Random changes, step after step, each on an overlay of what the steps before left: whoever applies the layers must
//! get what the last step saw.

use proptest::prelude::*;

use super::*;
use crate::layer::sample::applier::{apply_with_gnu_tar, apply_with_umoci};
use crate::layer::sample::{Change, Description, any_change, describe_tree, make, without_links};
use crate::layer::unpack::{Owners, unpack};

/// Writes the layer in `tree`, unpacks it beside and checks that it would be written the same again. Gives the archive
/// and where it was unpacked to.
fn through_an_archive(tree: &Path, xattr: OverlayXattr) -> (Vec<u8>, PathBuf) {
    let unpacked = tree.with_extension("unpacked");
    fs::create_dir(&unpacked).unwrap();
    let mut bytes = Vec::new();
    let measured = archive::write(tree, xattr, Times::default(), &mut bytes).unwrap();
    let result = unpack(bytes.as_slice(), &unpacked, xattr, Owners::Kept).unwrap();
    assert_eq!((result.measured, result.left_out, result.implied), (measured, vec![], vec![]));
    assert_eq!(archive::measure(&unpacked, xattr, Times::default()).unwrap(), measured);
    (bytes, unpacked)
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

fn without_attributes(description: &Description) -> Description {
    let cut = |line: &String| line.split(", {").next().unwrap().to_owned();
    description.iter().map(|(path, line)| (path.clone(), cut(line))).collect()
}

/// Takes the steps and gives the layers' archives, base first, with what the last step saw.
fn check_steps(steps: &[Vec<Change>], xattr: OverlayXattr) -> Result<(Vec<Vec<u8>>, Description), TestCaseError> {
    let base = tempfile::tempdir().unwrap();
    let tree = base.path().join("base");
    make(&tree, &steps[0]);
    let mut expected = compared(describe(&tree));
    let (archive, unpacked) = through_an_archive(&tree, xattr);
    let (mut archives, mut lowers) = (vec![archive], vec![unpacked]);
    let (mut overlays, tops) = (Vec::new(), Tops::default());
    for changes in &steps[1..] {
        let overlay = Overlay::over(&lowers, xattr);
        prop_assert_eq!(&compared(describe(&overlay.merged())), &expected, "what the next step sees");
        changes.iter().for_each(|change| change.make(&overlay.merged()));
        expected = compared(describe(&overlay.merged()));
        overlay.unmount();
        tidy_over(&overlay.upper(), &lowers, xattr).unwrap();
        lowers.insert(0, overlay.upper());
        let tidied = View::among(&tops, &lowers, xattr).unwrap();
        prop_assert_eq!(&compared(describe_tree(&tidied)), &expected, "the layer as it was tidied");
        let (archive, unpacked) = through_an_archive(&overlay.upper(), xattr);
        archives.push(archive);
        lowers[0] = unpacked;
        let unpacked = View::over(&lowers, xattr).unwrap();
        prop_assert_eq!(&compared(describe_tree(&unpacked)), &expected, "the layer as it is unpacked");
        overlays.push(overlay);
    }
    Ok((archives, expected))
}

fn steps(most: usize) -> impl Strategy<Value = Vec<Vec<Change>>> {
    prop::collection::vec(prop::collection::vec(any_change(), 0..30), 2..most)
}

proptest! {
    #![proptest_config(sample::cases(64))]

    #[test]
    fn layers_are_what_the_overlay_showed(steps in steps(5), user: bool) {
        if is_root() {
            let (archives, expected) = check_steps(&steps, if user { OverlayXattr::User } else { TRUSTED })?;
            let by_tar = tempfile::tempdir().unwrap();
            apply_with_gnu_tar(&archives, by_tar.path());
            prop_assert_eq!(&compared(describe(by_tar.path())), &expected, "by GNU tar");
        }
    }
}

proptest! {
    // Every case takes it half a second.
    #![proptest_config(ProptestConfig { cases: sample::cases(5).cases.min(100), ..sample::cases(5) })]

    #[test]
    fn umoci_gives_what_the_overlay_showed(steps in steps(4)) {
        if is_root() {
            let (archives, expected) = check_steps(&steps, TRUSTED)?;
            let place = tempfile::tempdir().unwrap();
            let root = apply_with_umoci(&archives, place.path());
            // The version of umoci that Debian has does not restore attributes.
            prop_assert_eq!(without_attributes(&compared(describe(&root))), without_attributes(&expected));
        }
    }

}

proptest! {
    #![proptest_config(sample::cases(16))]

    #[test]
    #[ignore = "a_user_s_overlay_is_no_different runs it where it can run"]
    fn in_a_namespace_of_one_user(steps in steps(5)) {
        check_steps(&steps, OverlayXattr::User)?;
    }
}

/// Runs the test before this one as root of a user namespace, where devices and owners cannot be made but overlays can be
/// mounted.
#[test]
fn a_user_s_overlay_is_no_different() {
    let test = "layer::diff::tests::sequences::in_a_namespace_of_one_user";
    let result = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "--ignored", test])
        .output()
        .unwrap();
    let output = String::from_utf8_lossy(&result.stdout);
    assert!(result.status.success() && output.contains("1 passed"), "{output}");
}
