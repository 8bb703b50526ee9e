//! What a plan mounts.

use super::*;

pub(super) fn mount(target: &str, source: Source, writable: bool) -> Mount {
    Mount { target: target.into(), source, writable }
}

pub(super) fn secret(content: &str) -> Source {
    Source::Secret { content: content.into(), mode: 0o400, uid: 0, gid: 0 }
}

impl Lab {
    /// A mount of a new layer with a file `f` and a directory `d` that has a file `g`.
    fn layers(&self, path: &str) -> Source {
        let layer = self.layer();
        fs::write(layer.join("f"), "f\n").unwrap();
        fs::create_dir(layer.join("d")).unwrap();
        fs::write(layer.join("d/g"), "g\n").unwrap();
        symlink("/d/g", layer.join("link")).unwrap();
        Source::Layers { lowers: vec![layer], path: path.into(), scratch: self.layer() }
    }
}

pub(super) fn mounts_of_every_kind(lab: &Lab) {
    let host = lab.layer();
    fs::write(host.join("kept"), "kept\n").unwrap();
    let mut plan = lab.plan(
        "cat /a/f /b /c/g /d /e/kept /s; touch /a/x || echo read-only; echo new > /w/f && cat /w/f; echo y > /e/y; \
         echo no > /s || stat -c '%a %s' /s; stat -c %a /t /tmp; touch /t/x; head -c 70000 /dev/zero > /t/y || echo full",
    );
    plan.mounts = vec![
        mount("/a", lab.layers(""), false),
        mount("/b", lab.layers("f"), false),
        mount("/c", lab.layers("d"), false),
        mount("/d", lab.layers("link"), false),
        mount("/w", lab.layers(""), true),
        mount("/e", Source::Host(host.clone()), true),
        mount("/s", secret("secret\n"), false),
        mount("/t", Source::Memory { size: Some(65536) }, true),
        mount("/tmp", Source::Memory { size: None }, true),
        mount("/old", lab.layers("f"), false),
    ];
    assert!(!format!("{plan:?}").contains("115, 101, 99"), "a secret is not shown with the plan");
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "f\nf\ng\ng\nkept\nsecret\nread-only\nnew\n400 7\n1777\n1777\nfull");
    assert_eq!(tree(&ran.upper), [""; 0]);
    assert_eq!(fs::metadata(&ran.upper).unwrap().mtime(), 1_000_000, "the root's time is that of the layer below");
    assert_eq!(tree(&host), ["kept", "y"]);
}

pub(super) fn nested_mounts(lab: &Lab) {
    let host = lab.layer();
    let mut plan = lab.plan("cat /a/d/new/deep /a/h/b/f /a/d/g /m/s /run/l/s; test -d /a/m");
    let link = lab.layer();
    symlink("/m", link.join("via")).unwrap();
    fs::create_dir(link.join("run")).unwrap();
    symlink("../m", link.join("run/l")).unwrap();
    plan.lowers.insert(0, link);
    plan.mounts = vec![
        mount("/a/h/b", lab.layers(""), false),
        mount("/a/d/new/deep", secret("deep\n"), false),
        mount("/a/h", Source::Host(host.clone()), true),
        mount("/a/m", Source::Memory { size: None }, true),
        mount("/a", lab.layers(""), false),
        mount("/via/s", secret("through a link\n"), false),
        mount("/m", Source::Memory { size: None }, true),
    ];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "deep\nf\ng\nthrough a link\nthrough a link");
    assert_eq!(tree(&ran.upper), [""; 0]);
    assert_eq!(tree(&host), ["b/"], "a directory of the host keeps the place");
}

pub(super) fn impossible_mounts(lab: &Lab) {
    let file = || lab.layers("f");
    let cases: Vec<(Vec<Mount>, &str)> = vec![
        (vec![mount("/etc", file(), false)], "/etc: it is not a regular file"),
        (vec![mount("/etc/passwd", lab.layers(""), false)], "/etc/passwd: it is not a directory"),
        (vec![mount("/x", lab.layers("missing"), false)], "/missing on /x"),
        (vec![mount("/proc/sys", Source::Memory { size: None }, true)], "/proc/sys"),
        (vec![mount("/sys", Source::Memory { size: None }, true)], "/sys"),
        (vec![mount("/dev/x", Source::Memory { size: None }, true)], "/dev/x"),
        (vec![mount("/", Source::Memory { size: None }, true)], "/ is no absolute path"),
        (vec![mount("/a/../b", Source::Memory { size: None }, true)], "/a/../b is no absolute path"),
        (vec![mount("/x", Source::Host("/no/such".into()), true)], "cannot mount on /x"),
        (vec![mount("/f", file(), false), mount("/f/x", file(), false)], "/f/x: a file is mounted on /f"),
        (vec![mount("/f", file(), false), mount("/f", lab.layers(""), false)], "/f: a file is mounted on /f"),
        (vec![mount("/a", lab.layers(""), false), mount("/a/link/x", file(), false)], "/a/link"),
    ];
    for (mounts, part) in cases {
        let mut plan = lab.plan("true");
        plan.mounts = mounts;
        let ran = lab.run(plan);
        let text = chain(ran.error());
        assert!(text.contains(part), "{part}: {text}");
        assert_eq!(tree(&ran.upper), [""; 0], "{part}");
    }
}
