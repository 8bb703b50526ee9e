//! The root that a process sees, what is laid over it, and what is left of it in the upper directory.

use super::*;

pub(super) fn unrunnable_programs(lab: &Lab) {
    let layer = lab.layer();
    let executable = |name: &str, content: &[u8]| {
        fs::write(layer.join(name), content).unwrap();
        fs::set_permissions(layer.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    executable("script", b"#!/usr/bin/nope -x\n");
    executable("dos", b"#!/bin/sh\r\n");
    executable("plain", b"echo\n");
    executable("empty", b"");
    executable("foreign", b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xf3\0\x01\0\0\0");
    fs::write(layer.join("data"), "x").unwrap();
    fs::create_dir(layer.join("dir")).unwrap();
    for (program, status, words) in [
        ("nonsense", 127, "nonsense: not found in the root file system (PATH is /usr/bin:/bin)"),
        ("/bin/nonsense", 127, "/bin/nonsense: not found in the root file system"),
        ("", 127, ": not found in the root file system"),
        ("/script", 127, "/script: exists, but its interpreter /usr/bin/nope does not"),
        ("/dos", 127, "/dos: exists, but its interpreter /bin/sh\\r does not"),
        ("/plain", 126, "/plain: cannot be run: it is neither an ELF file nor a script with a #! line: Exec format"),
        ("/empty", 126, "/empty: cannot be run: it is empty"),
        ("/foreign", 126, "/foreign: cannot be run: it is made for RISC-V; this host is"),
        ("/data", 126, "/data: cannot be run: it is not executable for this user: Permission denied"),
        ("/dir", 126, "/dir: cannot be run: it is not a file: Permission denied"),
        ("/etc/passwd/x", 127, "/etc/passwd/x: not found in the root file system"),
    ] {
        let mut plan = lab.plan("");
        plan.lowers.insert(0, layer.clone());
        plan.argv = strings(&[program]);
        let ran = lab.run(plan);
        let text = chain(ran.error());
        assert_eq!(ran.error().exit_status(), Some(status), "{program}: {text}");
        assert!(text.starts_with(words), "{program}: {text}");
    }
    let mut plan = lab.plan("");
    plan.argv = strings(&["./busybox", "pwd"]);
    plan.cwd = "/bin".into();
    assert_eq!(lab.run(plan).text(), "/bin");
    let mut plan = lab.plan("");
    plan.argv = strings(&["busybox", "echo", "found"]);
    plan.env = strings(&["PATH=/etc/passwd::/nowhere"]);
    plan.cwd = "/bin".into();
    assert_eq!(lab.run(plan).text(), "found", "an empty entry of PATH is the working directory");
}

pub(super) fn overlaid_files(lab: &Lab) {
    let script = "cat /etc/hosts /etc/resolv.conf /opt/deep/file; echo no > /etc/hosts; echo yes > /etc/resolv.conf; \
                  cat /etc/hosts /etc/resolv.conf; rm -f /etc/hosts; mv /etc/resolv.conf /etc/x; \
                  stat -c %a /etc/hosts; true";
    let mut plan = lab.plan(script);
    plan.overlaid = vec![
        overlaid("/etc/hosts", "hosts\n", false),
        overlaid("/etc/resolv.conf", "resolv\n", true),
        overlaid("/opt/deep/file", "deep\n", false),
    ];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "hosts\nresolv\ndeep\nhosts\nyes\n644");
    assert_eq!(tree(&ran.upper), ["etc/"; 0]);
    assert_eq!(fs::metadata(&ran.upper).unwrap().mtime(), 1_000_000, "the root's time is that of the layer below");

    let mut plan = lab.plan("/dev/pipes/script; ls -l /dev/pipes | tail -1 | cut -c1-10");
    let script = Overlaid { mode: 0o755, ..overlaid("/dev/pipes/script", "#!/bin/sh\necho ran \"$0\"\n", false) };
    plan.overlaid = vec![overlaid("/etc/hosts", "", false), script];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "ran /dev/pipes/script\n-rwxr-xr-x");
    assert_eq!(tree(&ran.upper), ["etc/"; 0]);

    let refused = ["relative", "/", "/proc/x", "/dev/shm/x", "/dev/null/x", "/dev/x", "/dev/a/../x", "/etc/../../x"];
    for target in refused {
        let mut plan = lab.plan("true");
        plan.overlaid = vec![overlaid(target, "", false)];
        assert!(matches!(lab.run(plan).error(), Error::Plan { .. }), "{target}");
    }
}

pub(super) fn upper_is_exact(lab: &Lab) {
    let mut plan =
        lab.plan("echo new > /new; rm /old; mkdir -p /opt/a; touch /opt/deep/x; chmod 700 /etc; ln -s /proc /p");
    plan.overlaid = vec![overlaid("/etc/hosts", "", false), overlaid("/opt/deep/file", "", false)];
    let ran = lab.run(plan);
    ran.text();
    assert_eq!(tree(&ran.upper), ["!old", "etc/", "new", "opt/", "opt/a/", "opt/deep/", "opt/deep/x", "p"]);
    assert_eq!(fs::metadata(ran.upper.join("etc")).unwrap().mode() & 0o777, 0o700);
    assert_eq!(
        fs::metadata(ran.upper.join("etc")).unwrap().mtime(),
        1_000_000,
        "a change of mode is not one of content"
    );
}

/// Mount points that the skeleton below all layers cannot provide, since something above hides it.
pub(super) fn hidden_mount_points(lab: &Lab) {
    let xattr = if userns::inside() { "user.overlay.opaque" } else { "trusted.overlay.opaque" };
    let layer = lab.layer();
    // An opaque /etc, a deleted /proc, a dangling link to a directory that is not there, and a directory with a look.
    fs::create_dir(layer.join("etc")).unwrap();
    rustix::fs::setxattr(layer.join("etc"), xattr, b"y", rustix::fs::XattrFlags::empty()).unwrap();
    symlink("../run/deep/stub", layer.join("etc/resolv.conf")).unwrap();
    let whiteout = rustix::fs::FileType::CharacterDevice;
    rustix::fs::mknodat(rustix::fs::CWD, layer.join("proc"), whiteout, rustix::fs::Mode::empty(), 0).unwrap();
    fs::create_dir(layer.join("run")).unwrap();
    fs::set_permissions(layer.join("run"), fs::Permissions::from_mode(0o1770)).unwrap();
    rustix::fs::setxattr(layer.join("run"), "user.look", b"kept", rustix::fs::XattrFlags::empty()).unwrap();
    for path in ["etc", "run", ""] {
        set_time(&layer.join(path), 2_000_000);
    }
    let script = "cat /etc/hosts /run/deep/stub /etc/resolv.conf; stat -c '%a %Y' /run /etc; \
                  test -e /proc/self && touch /run/new";
    let mut plan = lab.plan(script);
    plan.lowers.insert(0, layer);
    plan.overlaid = vec![overlaid("/etc/hosts", "hosts\n", false), overlaid("/etc/resolv.conf", "resolv\n", false)];
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "hosts\nresolv\nresolv\n1770 2000000\n755 2000000");
    assert_eq!(tree(&ran.upper), ["run/", "run/new"]);
    let run = fs::metadata(ran.upper.join("run")).unwrap();
    assert_eq!(run.mode() & 0o7777, 0o1770);
    let mut value = [0; 8];
    assert_eq!(rustix::fs::getxattr(ran.upper.join("run"), "user.look", value.as_mut_slice()), Ok(4));
}

pub(super) fn things_in_the_way(lab: &Lab) {
    let layer = lab.layer();
    fs::write(layer.join("proc"), "").unwrap();
    let mut plan = lab.plan("true");
    plan.lowers.insert(0, layer.clone());
    let error = chain(lab.run(plan).error());
    assert_eq!(error, "the root has no place for /proc: it is not a directory");
    fs::remove_file(layer.join("proc")).unwrap();
    fs::create_dir_all(layer.join("etc/hosts")).unwrap();
    symlink("loop", layer.join("loop")).unwrap();
    for (target, words) in [
        ("/etc/hosts", "not a regular file"),
        ("/old/x", "other than a directory"),
        ("/loop/x", "circle"),
        ("/bin/sh", ""),
    ] {
        let mut plan = lab.plan("true");
        plan.lowers.insert(0, layer.clone());
        plan.overlaid = vec![overlaid(target, "", false)];
        let ran = lab.run(plan);
        let error = chain(ran.error());
        assert!(error.contains(words), "{target}: {error}");
    }
    for cwd in ["/old", "/old/x"] {
        let mut plan = lab.plan("true");
        plan.cwd = cwd.into();
        assert!(matches!(lab.run(plan).error(), Error::WorkingDirectory { .. }), "{cwd}");
    }
    for cwd in ["/proc/self", "/dev/shm", "/sys"] {
        let mut plan = lab.plan("true");
        plan.cwd = cwd.into();
        let ran = lab.run(plan);
        ran.text();
        assert_eq!(tree(&ran.upper), [""; 0], "{cwd}");
    }
    let mut plan = lab.plan("true");
    plan.cwd = "/dev/shm/missing".into();
    assert!(matches!(lab.run(plan).error(), Error::Setup { stage: Stage::WorkingDirectory, .. }));
    let mut plan = lab.plan("true");
    plan.lowers.push(lab.dir.path().join("missing"));
    let error = chain(lab.run(plan).error());
    assert!(error.contains("cannot open") && error.contains("missing"), "{error}");
}

pub(super) fn no_lowers(lab: &Lab) {
    let upper = lab.layer();
    fs::create_dir(upper.join("bin")).unwrap();
    fs::copy(BUSYBOX, upper.join("bin/busybox")).unwrap();
    let mut plan = lab.plan("");
    plan.lowers = Vec::new();
    plan.upper = upper;
    plan.argv = strings(&["busybox", "sh", "-c", "busybox ls /; busybox touch /x; busybox stat -c %a /"]);
    let ran = lab.run(plan);
    assert_eq!(ran.text(), "bin\ndev\nproc\nsys\n755");
    assert_eq!(tree(&ran.upper), ["bin/", "bin/busybox", "x"]);
}

pub(super) fn many_layers(lab: &Lab) {
    let mut plan = lab.plan("cat /number; ls /many | wc -l");
    for number in 0..100 {
        let layer = lab.layer();
        fs::create_dir(layer.join("many")).unwrap();
        fs::write(layer.join("many").join(number.to_string()), "").unwrap();
        fs::write(layer.join("number"), format!("{number}\n")).unwrap();
        plan.lowers.insert(0, layer);
    }
    assert_eq!(lab.run(plan).text(), "99\n100");
    let mut plan = lab.plan("true");
    plan.lowers = vec![lab.base.clone(); 501];
    assert!(matches!(lab.run(plan).error(), Error::TooManyLayers { count: 501, .. }));
}
