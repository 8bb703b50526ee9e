use std::fs;

use super::*;
use crate::layer::sample::{self, is_root};

fn layers(root: &Path) -> Vec<PathBuf> {
    let [top, middle, bottom] = ["top", "middle", "bottom"].map(|name| root.join(name));
    for directory in [bottom.join("etc/old"), bottom.join("opaque/below"), middle.join("opaque"), top.join("etc")] {
        fs::create_dir_all(directory).unwrap();
    }
    fs::create_dir_all(top.join("opaque")).unwrap();
    fs::write(bottom.join("etc/hosts"), "bottom").unwrap();
    fs::write(bottom.join("etc/gone"), "").unwrap();
    fs::write(bottom.join("replaced"), "").unwrap();
    fs::create_dir(middle.join("replaced")).unwrap();
    fs::write(middle.join("replaced/inside"), "").unwrap();
    fs::create_dir(middle.join("etc")).unwrap();
    fs::write(middle.join("etc/hosts"), "middle!").unwrap();
    sample::whiteout(&top.join("etc/gone"));
    sample::whiteout(&middle.join("etc/old"));
    sample::opaque(&middle.join("opaque"));
    vec![top, middle, bottom]
}

#[test]
fn shows_what_an_overlay_would() {
    if !is_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let (trees, tops) = (layers(directory.path()), Tops::default());
    shows(&View::over(&trees, OverlayXattr::Trusted).unwrap());
    // The second time from memory.
    shows(&View::among(&tops, &trees, OverlayXattr::Trusted).unwrap());
    shows(&View::among(&tops, &trees, OverlayXattr::Trusted).unwrap());
}

fn shows(view: &View) {
    let names = |path: &str| view.names(Path::new(path)).unwrap();
    assert_eq!(names(""), ["etc", "opaque", "replaced"]);
    assert_eq!(names("etc"), ["hosts"]);
    assert!(names("opaque").is_empty());
    assert_eq!(names("replaced"), ["inside"]);
    for absent in ["etc/gone", "etc/old", "opaque/below", "etc/hosts/x", "no/thing", "replaced/x"] {
        assert_eq!(view.entry(Path::new(absent)).unwrap(), None, "{absent}");
    }
    let hosts = view.entry(Path::new("etc/hosts")).unwrap().unwrap();
    assert_eq!(hosts.kind, Kind::File { size: 7 });
    assert_eq!(view.content_id(Path::new("etc/hosts"), &hosts).unwrap(), blake3::hash(b"middle!").into());
    assert_eq!(view.names(Path::new("etc/hosts")).unwrap_err().kind(), io::ErrorKind::NotADirectory);
    assert_eq!(view.names(Path::new("etc/gone")).unwrap_err().kind(), io::ErrorKind::NotFound);
    assert_eq!(view.open(Path::new("etc")).unwrap_err().kind(), io::ErrorKind::IsADirectory);
}

#[test]
fn links_in_parents_are_not_followed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("real")).unwrap();
    fs::write(directory.path().join("real/file"), "").unwrap();
    std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
    let view = View::over(&[directory.path().to_owned()], OverlayXattr::Trusted).unwrap();
    assert_eq!(view.entry(Path::new("link/file")).unwrap(), None);
    assert!(view.open(Path::new("link/file")).is_err());
    let link = view.entry(Path::new("link")).unwrap().unwrap();
    assert_eq!(link.kind, Kind::Symlink { target: "real".into() });
}

#[test]
fn no_layers_are_an_empty_root() {
    let view = View::over(&[], OverlayXattr::User).unwrap();
    assert_eq!(view.entry(Path::new("")).unwrap().unwrap().kind, Kind::Directory);
    assert!(view.names(Path::new("")).unwrap().is_empty());
    assert_eq!(view.entry(Path::new("etc")).unwrap(), None);
    let missing = View::over(&[PathBuf::from("/nonexistent/layer")], OverlayXattr::User).unwrap_err();
    assert!(missing.to_string().contains("/nonexistent/layer"));
}
