use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};

use super::*;
use crate::layer::sample::{self, is_root};

const TRUSTED: OverlayXattr = OverlayXattr::Trusted;

/// A directory of a layer: its path, and mode, owner and time where the layer's archive says them.
type Said<'a> = (&'a str, Option<(u32, u32, i64)>);

/// Makes layers, topmost first, and completes them. What the completed stack then shows of some paths.
fn completed(layers: &[&[Said<'_>]], change: impl FnOnce(&Path), paths: &[&str]) -> (bool, Vec<String>) {
    let root = tempfile::tempdir().unwrap();
    let mut trees = Vec::new();
    let mut implied = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let tree = root.path().join(number.to_string());
        fs::create_dir(&tree).unwrap();
        layer.iter().for_each(|(path, _)| fs::create_dir(tree.join(path)).unwrap());
        for (path, said) in layer.iter().rev() {
            let (mode, owner, time) = said.unwrap_or((0o755, 0, 0));
            lchown(tree.join(path), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(tree.join(path), fs::Permissions::from_mode(mode)).unwrap();
            sample::set_time(&tree.join(path), time, 0);
        }
        trees.push(tree);
        implied.push(layer.iter().filter(|said| said.1.is_none()).map(|said| said.0.into()).collect::<Vec<PathBuf>>());
    }
    change(root.path());
    let layers: Vec<_> = trees.iter().zip(&implied).map(|(tree, implied)| Layer { tree, implied }).collect();
    let into = root.path().join("completion");
    fs::create_dir(&into).unwrap();
    let is_needed = complete(&layers, TRUSTED, &into).unwrap();
    assert_eq!(is_needed, fs::read_dir(&into).unwrap().count() > 0);
    trees.insert(0, into);
    let view = View::over(&trees, TRUSTED).unwrap();
    use crate::layer::tree::Tree as _;
    let shown = paths.iter().map(|path| match view.entry(Path::new(path)).unwrap() {
        None => "nothing".to_owned(),
        Some(entry) => format!("{:o} {}:{} {}", entry.mode, entry.uid, entry.gid, entry.mtime.0),
    });
    (is_needed, shown.collect())
}

#[test]
fn the_next_layer_that_says_it_counts() {
    if !is_root() {
        return;
    }
    let (said, other) = (Some((0o1777, 5, 77)), Some((0o700, 6, 88)));
    let plain = Some((0o755, 0, 1));
    let cases: [(&str, &[&[Said<'_>]], &str, bool); 8] = [
        ("below", &[&[("d", None)], &[("d", said)]], "1777 5:5 77", true),
        ("two below", &[&[("d", None)], &[("d", None)], &[("x", plain)], &[("d", said)]], "1777 5:5 77", true),
        ("the nearer one", &[&[("d", None)], &[("d", said)], &[("d", other)]], "1777 5:5 77", true),
        ("above", &[&[("d", said)], &[("d", None)], &[("d", other)]], "1777 5:5 77", false),
        ("in the middle", &[&[("d", None)], &[("d", said)], &[("d", None)]], "1777 5:5 77", true),
        ("nowhere", &[&[("d", None)], &[("x", plain)]], "755 0:0 0", false),
        ("nowhere, twice", &[&[("d", None)], &[("d", None)]], "755 0:0 0", false),
        ("nothing implied", &[&[("d", said)], &[("d", other)]], "1777 5:5 77", false),
    ];
    for (what, layers, expected, is_needed) in cases {
        assert_eq!(completed(layers, |_| {}, &["d"]), (is_needed, vec![expected.to_owned()]), "{what}");
    }
}

#[test]
fn parents_look_as_they_did() {
    if !is_root() {
        return;
    }
    let (a, b, c) = (Some((0o711, 1, 11)), Some((0o722, 2, 22)), Some((0o733, 3, 33)));
    let layers: [&[Said<'_>]; 2] = [&[("a", a), ("a/b", None), ("a/b/c", c)], &[("a", b), ("a/b", b)]];
    let (is_needed, shown) = completed(&layers, |_| {}, &["a", "a/b", "a/b/c"]);
    assert!(is_needed);
    assert_eq!(shown, ["711 1:1 11", "722 2:2 22", "733 3:3 33"]);
}

#[test]
fn what_hides_a_directory_ends_the_search() {
    if !is_root() {
        return;
    }
    let said = Some((0o1777, 5, 77));
    let below: &[Said<'_>] = &[("p", said), ("p/d", said)];
    let layers: [&[Said<'_>]; 3] = [&[("p", None), ("p/d", None)], &[("p", said)], below];
    let shown = |change: &dyn Fn(&Path)| completed(&layers, change, &["p/d"]).1.remove(0);
    let default = "755 0:0 0";
    assert_eq!(shown(&|_| {}), "1777 5:5 77");
    assert_eq!(shown(&|root| sample::whiteout(&root.join("1/p/d"))), default, "a whiteout");
    assert_eq!(shown(&|root| fs::write(root.join("1/p/d"), "").unwrap()), default, "a file");
    assert_eq!(shown(&|root| sample::opaque(&root.join("1/p"))), default, "an opaque parent below");
    assert_eq!(shown(&|root| sample::opaque(&root.join("0/p"))), default, "its own opaque parent");
    assert_eq!(shown(&|root| sample::opaque(&root.join("0/p/d"))), "1777 5:5 77", "its content is hidden, it is not");
}

#[test]
fn links_are_followed_in_the_layers_below() {
    if !is_root() {
        return;
    }
    let (usr, lib) = (Some((0o755, 0, 1)), Some((0o750, 7, 9)));
    let layers: [&[Said<'_>]; 3] = [&[("lib", None)], &[("x", usr)], &[("usr", usr), ("usr/lib", lib)]];
    for (target, expected) in [
        ("usr/lib", "750 7:7 9"),
        ("/usr/../../usr/lib/", "750 7:7 9"),
        ("usr/none", "755 0:0 0"),
        ("lib", "755 0:0 0"),
        ("/etc", "755 0:0 0"),
    ] {
        let (_, shown) = completed(&layers, |root| symlink(target, root.join("1/lib")).unwrap(), &["lib"]);
        assert_eq!(shown, [expected], "{target}");
    }
}

#[test]
fn attributes_and_the_root_are_copied() {
    if !is_root() {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let [top, bottom, into] = ["top", "bottom", "into"].map(|name| root.path().join(name));
    for path in [top.join("d/e"), bottom.join("d/e"), into.clone()] {
        fs::create_dir_all(path).unwrap();
    }
    let from = bottom.join("d");
    At::Path(&from).set(b"user.x", b"1").unwrap();
    At::Path(&from).set(b"trusted.overlay.overlay.y", b"2").unwrap();
    At::Path(&from).set(b"trusted.overlay.origin", b"3").unwrap();
    let acl = [&[2, 0, 0, 0][..], &[1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255]].concat();
    let acl = [&acl[..], &[32, 0, 0, 0, 255, 255, 255, 255]].concat();
    At::Path(&from).set(crate::layer::xattr::DEFAULT_ACL.as_bytes(), &acl).unwrap();
    fs::set_permissions(&top, fs::Permissions::from_mode(0o711)).unwrap();
    sample::set_time(&top, 4, 5);
    let implied = ["d".into(), "d/e".into()];
    let layers = [Layer { tree: &top, implied: &implied }, Layer { tree: &bottom, implied: &[] }];
    assert!(complete(&layers, TRUSTED, &into).unwrap());
    let looks = |path: &Path| {
        let found = Attributes::read(At::Path(path), TRUSTED).unwrap();
        let metadata = fs::metadata(path).unwrap();
        (found.image, metadata.mode(), metadata.mtime(), metadata.mtime_nsec())
    };
    assert_eq!(looks(&into.join("d")), looks(&from));
    assert_eq!(looks(&into.join("d/e")), looks(&from.join("e")), "the default ACL is not handed on");
    assert_eq!(looks(&into), looks(&top));
    assert!(Attributes::read(At::Path(&into.join("d")), TRUSTED).unwrap().records.is_empty());
}
