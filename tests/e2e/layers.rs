//! Base layers as others write them: what of them steps see, what they become part of, and what is refused.

use std::fs;
use std::io::Write as _;
use std::process::Command;

use serde_json::json;
use tar::{EntryType, Header};

use crate::layout::{self, sha256};
use crate::registry::run;
use crate::rootless::{RANGES, user};
use crate::shells::Session;
use crate::workspace::{Who, Workspace};

/// An archive, put together entry by entry.
struct Archive(tar::Builder<Vec<u8>>);

/// One entry: its path, what it is, mode, owner, and content or target.
type Entry<'a> = (&'a str, EntryType, u32, u64, &'a [u8]);

impl Archive {
    fn of(entries: &[Entry<'_>]) -> Vec<u8> {
        let mut archive = Self(tar::Builder::new(Vec::new()));
        entries.iter().for_each(|entry| archive.add(entry));
        archive.0.into_inner().unwrap()
    }

    fn add(&mut self, (path, kind, mode, owner, content): &Entry<'_>) {
        let mut header = Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(*owner);
        header.set_gid(*owner);
        header.set_mtime(1_600_000_000 + owner);
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.set_link_name(std::str::from_utf8(content).unwrap()).unwrap();
        }
        let content: &[u8] = if is_link { b"" } else { content };
        header.set_size(content.len() as u64);
        // As it stands, also where the library would not write such a path.
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_cksum();
        self.0.append(&header, content).unwrap();
    }
}

/// A layer with a shell and its tools.
fn tools() -> Vec<Entry<'static>> {
    static PROGRAM: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
    let program = PROGRAM.get_or_init(|| fs::read("/bin/busybox").unwrap());
    let mut entries: Vec<Entry<'_>> =
        vec![("bin/", EntryType::Directory, 0o755, 0, b""), ("bin/busybox", EntryType::Regular, 0o755, 0, program)];
    let links =
        ["bin/sh", "bin/stat", "bin/touch", "bin/chmod", "bin/chown", "bin/ls", "bin/cat", "bin/rm", "bin/true"];
    entries.extend(links.map(|link| (link, EntryType::Symlink, 0o777, 0, &b"busybox"[..])));
    entries
}

/// A layer as an image names it.
struct Layer {
    /// What follows `application/vnd.oci.image.layer.v1.` in its media type.
    kind: &'static str,
    blob: Vec<u8>,
    /// The digest of its archive.
    diff_id: String,
}

impl Layer {
    fn plain(archive: &[u8]) -> Self {
        Self { kind: "tar", blob: archive.to_vec(), diff_id: sha256(archive) }
    }
}

/// Writes an image of these layers, base first, as an OCI layout; gives the argument that names it `base`.
fn image(workspace: &Workspace, layers: &[Layer]) -> String {
    let directory = workspace.path().join("base");
    let blobs = directory.join("blobs/sha256");
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": bytes.len()})
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| &layer.diff_id).collect();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({
        "os": "linux", "architecture": architecture, "config": {"Env": ["PATH=/bin"]},
        "history": vec![json!({"created_by": "the test"}); diff_ids.len()],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put("config.v1+json", config.to_string().as_bytes());
    let layers: Vec<_> = layers.iter().map(|layer| put(&format!("layer.v1.{}", layer.kind), &layer.blob)).collect();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": layers,
    });
    let manifest = put("manifest.v1+json", manifest.to_string().as_bytes());
    fs::write(directory.join("index.json"), json!({"schemaVersion": 2, "manifests": [manifest]}).to_string()).unwrap();
    fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
    run(Command::new("chmod").arg("-R").arg("a+rX").arg(&directory));
    format!("--build-context=base=oci-layout://{}", directory.display())
}

/// Root, and a user with ranges of ids where the tests can be one.
fn everybody(what: &str) -> Vec<Who> {
    [Some(Who::Caller), user(RANGES, what)].into_iter().flatten().collect()
}

/// Mode, owner and time of a directory of an image, as `stat -c '%n %a %u %Y'` has it.
#[track_caller]
fn looks(image: &layout::Image, path: &str) -> String {
    let entry = &image.tree[path];
    format!("/{path} {:o} {} {}", entry.mode, entry.uid, entry.mtime)
}

#[test]
fn directories_that_a_layer_leaves_out_are_those_below_it() {
    let file = EntryType::Regular;
    let directory = EntryType::Directory;
    let mut first = tools();
    first.extend([
        ("tmp/", directory, 0o1777, 3, &b""[..]),
        ("srv/", directory, 0o750, 7, b""),
        ("srv/data/", directory, 0o2770, 8, b""),
        ("usr/", directory, 0o755, 0, b""),
        ("usr/lib/", directory, 0o711, 9, b""),
        ("lib", EntryType::Symlink, 0o777, 0, b"usr/lib"),
        ("gone/", directory, 0o700, 9, b""),
    ]);
    let second: [Entry<'_>; 6] = [
        ("tmp/foo", file, 0o644, 0, b"foo"),
        ("srv/data/x", file, 0o644, 0, b"x"),
        ("lib/y", file, 0o644, 0, b"y"),
        ("new/z", file, 0o644, 0, b"z"),
        (".wh.gone", file, 0, 0, b""),
        ("gone/again", file, 0o644, 0, b""),
    ];
    let third: [Entry<'_>; 1] = [("srv/top", file, 0o644, 0, b"top")];
    for who in everybody("base layers without parents as a user") {
        let workspace = Workspace::of(who);
        let base = image(&workspace, &[&first[..], &second, &third].map(|entries| Layer::plain(&Archive::of(entries))));
        workspace.dockerfile(
            "FROM base\n\
             RUN stat -c '%n %a %u %Y' /tmp /srv /srv/data /lib /usr/lib /new /gone >/looks && cat /srv/top\n\
             RUN touch /tmp/x && rm /tmp/x && chown 3:3 /tmp && chmod 1777 /tmp\n\
             COPY Dockerfile /srv/data/\n\
             RUN echo >/tmp/bar\n\
             FROM base AS seen\n\
             COPY --from=0 /tmp /copied\n\
             COPY --from=0 / /\n",
        );
        let build = |target: &str, out: &str| {
            let arguments = [&base, target, &workspace.layout_output(out)].map(str::to_owned);
            workspace.build(arguments).run().success();
            layout::read(&workspace.out(out))
        };
        let built = build("--target=0", "image");
        let expected = [
            "/tmp 1777 3 1600000003",
            "/srv 750 7 1600000007",
            "/srv/data 2770 8 1600000008",
            "/lib 711 9 1600000009",
            "/usr/lib 711 9 1600000009",
            "/new 755 0 0",
            "/gone 755 0 0",
        ];
        assert_eq!(built.text("looks").lines().collect::<Vec<_>>(), expected);
        let layers: Vec<_> = built.layers[3..].iter().map(|layer| layer.join(" ")).collect();
        assert_eq!(layers, ["looks", "", "srv srv/data srv/data/Dockerfile", "tmp tmp/bar"]);
        let modes = ["tmp", "srv", "srv/data"].map(|path| looks(&built, path).rsplit_once(' ').unwrap().0.to_owned());
        assert_eq!(modes, ["/tmp 1777 3", "/srv 750 7", "/srv/data 2770 8"]);

        let copied = build("--target=seen", "copied");
        assert_eq!(copied.tree["srv/data"].mode, 0o2770);
        workspace.assert_nothing_left();
    }
}

#[test]
fn a_shell_sees_the_directories_that_a_layer_leaves_out() {
    let workspace = Workspace::new();
    let mut first = tools();
    first.push(("tmp/", EntryType::Directory, 0o1777, 3, b""));
    let second: [Entry<'_>; 1] = [("tmp/foo", EntryType::Regular, 0o644, 0, b"foo")];
    let base = image(&workspace, &[&first[..], &second].map(|entries| Layer::plain(&Archive::of(entries))));
    workspace.dockerfile("FROM base\nRUN cat /none\n");
    let context = workspace.context();
    let context = context.to_str().unwrap();
    for arguments in [["shell", "--at=2", &base, context], ["build", "--on-error=shell", &base, context]] {
        let mut session = Session::start(&workspace.strata(arguments));
        session.ask("stat -c '<%n %a %u>' /tmp", "</tmp 1777 3>");
        session.keys("exit\n");
        session.end();
    }
    workspace.assert_nothing_left();
}

#[test]
fn what_is_wrong_with_a_layer_is_said_with_its_digest_and_the_entry() {
    let file = EntryType::Regular;
    let large: &[u8] = b"29 size=99999999999999999999\n";
    let cases: [(&str, &[Entry<'_>], &str); 9] = [
        ("a path that leads out", &[("../../evil", file, 0o644, 0, b"")], "../../evil"),
        ("a path through a directory", &[("a/../../evil", file, 0o644, 0, b"")], "a/../../evil"),
        ("a link out", &[("passwd", EntryType::Link, 0o644, 0, b"../../etc/passwd")], "passwd"),
        ("a link to a file of the host", &[("shadow", EntryType::Link, 0o644, 0, b"/etc/shadow")], "shadow"),
        (
            "a file through a link to nothing",
            &[("out", EntryType::Symlink, 0o777, 0, b"/etc/cron.d"), ("out/evil", file, 0o644, 0, b"")],
            "out/evil",
        ),
        ("a whiteout of nothing", &[("dir/.wh.", file, 0, 0, b"")], "dir/.wh."),
        ("a whiteout of the parent", &[("dir/.wh...", file, 0, 0, b"")], "dir/.wh..."),
        ("a size that is none", &[("before", file, 0o644, 0, b""), ("x", EntryType::XHeader, 0, 0, large)], "before"),
        ("a sparse file without a map", &[("holes", EntryType::GNUSparse, 0o644, 0, b"x")], "holes"),
    ];
    let workspace = Workspace::new();
    workspace.dockerfile("FROM base\nCOPY --from=base / /copy\n");
    for (what, entries, named) in cases {
        let layer = Layer::plain(&Archive::of(entries));
        let digest = layer.diff_id.clone();
        let base = image(&workspace, &[layer]);
        workspace.build(["--no-cache", &base]).run().fails(1, &[&digest, &format!("{named:?}")]);
        assert_eq!(fs::read_dir(workspace.state().join("layers")).unwrap().count(), 0, "{what}");
    }
    let whole = Archive::of(&[("file", file, 0o644, 0, &[7; 3000])]);
    for length in [600, 2000] {
        let layer = Layer::plain(&whole[..length]);
        let digest = layer.diff_id.clone();
        let base = image(&workspace, &[layer]);
        workspace.build(["--no-cache", &base]).run().fails(1, &[&digest, "\"file\""]);
    }
    let lie = Layer { diff_id: sha256(b"another"), ..Layer::plain(&whole) };
    let base = image(&workspace, &[lie]);
    workspace.build(["--no-cache", &base]).run().fails(1, &[&sha256(&whole), &sha256(b"another")]);
    workspace.assert_nothing_left();
}

/// One archive, compressed in every way that layers are.
fn compressed(archive: &[u8]) -> Vec<(&'static str, Vec<u8>)> {
    let gzip = |bytes: &[u8]| {
        let mut member = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        member.write_all(bytes).unwrap();
        member.finish().unwrap()
    };
    let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 1).unwrap();
    let (one, two) = archive.split_at(archive.len() / 3);
    let skipped = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"toc"].concat();
    vec![
        ("tar", archive.to_vec()),
        ("tar+gzip", gzip(archive)),
        ("tar+gzip", [gzip(one), gzip(b""), gzip(two)].concat()),
        ("tar+zstd", zstd(archive)),
        ("tar+zstd", [zstd(one), skipped.clone(), zstd(two), skipped].concat()),
        // What a media type says is not believed.
        ("tar+gzip", zstd(archive)),
    ]
}

#[test]
fn every_form_of_an_archive_gives_the_same_files() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY --from=base / /copy/\n");
    let tree = workspace.path().join("tree");
    fs::create_dir_all(tree.join("directory/sub")).unwrap();
    fs::write(tree.join("directory/file"), "content\n").unwrap();
    fs::write(tree.join("directory/large"), vec![7; 3 << 20]).unwrap();
    fs::hard_link(tree.join("directory/file"), tree.join("directory/sub/link")).unwrap();
    std::os::unix::fs::symlink("../file", tree.join("directory/sub/symlink")).unwrap();
    let archive = |format: &str| {
        let mut tar = Command::new("tar");
        tar.args(["--create", "--sort=name", "--mtime=@1600000000", "--owner=0", "--group=0", "--numeric-owner"]);
        tar.arg(format!("--format={format}")).arg("-C").arg(&tree).arg("directory");
        tar.output().unwrap().stdout
    };
    let mut layers = Vec::new();
    let mut build = |layer: Layer, what: &str| {
        let base = image(&workspace, &[layer]);
        let out = format!("image-{}", layers.len());
        workspace
            .build(["--build-arg=SOURCE_DATE_EPOCH=1600000000", &base, &workspace.layout_output(&out)])
            .run()
            .success();
        let image = layout::read(&workspace.out(&out));
        assert_eq!(image.text("copy/directory/sub/link"), "content\n", "{what}");
        layers.push((what.to_owned(), image.config["rootfs"]["diff_ids"][0].clone()));
    };
    for format in ["v7", "oldgnu", "gnu", "ustar", "posix"] {
        build(Layer::plain(&archive(format)), format);
    }
    let archive = archive("gnu");
    for (kind, blob) in compressed(&archive) {
        build(Layer { kind, blob, diff_id: sha256(&archive) }, kind);
    }
    let (_, expected) = layers[0].clone();
    layers.iter().for_each(|(what, layer)| assert_eq!(*layer, expected, "{what}"));
}

#[test]
fn a_large_file_in_a_layer_takes_little_memory_and_its_zeros_no_room() {
    /// 1 GiB.
    const SIZE: usize = 1 << 30;
    let workspace = Workspace::new();
    workspace.dockerfile("FROM base\nCOPY Dockerfile /\nRUN [\"/bin/true\"]\n");
    let mut header = Header::new_gnu();
    header.set_path("large").unwrap();
    header.set_mode(0o644);
    header.set_size(SIZE as u64);
    header.set_cksum();
    let mut archive = vec![0; 512 + SIZE + 1024];
    archive[..512].copy_from_slice(header.as_bytes());
    let (blob, diff_id) = (zstd::encode_all(archive.as_slice(), 1).unwrap(), sha256(&archive));
    drop(archive);
    let base = image(&workspace, &[Layer::plain(&Archive::of(&tools())), Layer { kind: "tar+zstd", blob, diff_id }]);
    let running = workspace.build([base]).start();
    let status = format!("/proc/{}/status", running.id());
    let peak = std::thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = fs::read_to_string(&status) {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
            let Some(now) = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<usize>().ok()) else { break };
            peak = peak.max(now);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        peak
    });
    running.wait().success();
    let peak = peak.join().unwrap();
    assert!((1..100_000).contains(&peak), "it took {peak} kB");
    let files =
        run(Command::new("find").arg(workspace.state().join("layers")).args(["-name", "large", "-printf", "%s %b"]));
    let (size, blocks) = files.split_once(' ').unwrap();
    assert_eq!(size, SIZE.to_string());
    assert!(blocks.parse::<u64>().unwrap() < 2048, "{blocks} blocks");
}

#[test]
fn the_same_files_make_the_same_image_everywhere() {
    let mut first = None;
    let elsewhere = tempfile::tempdir_in("/dev/shm").ok();
    let variants: [(&str, &[(&str, &str)]); 7] = [
        ("022", &[]),
        ("000", &[("LC_ALL", "C")]),
        ("077", &[("LC_ALL", "tr_TR.UTF-8"), ("TZ", "Asia/Kathmandu")]),
        ("022", &[("RAYON_NUM_THREADS", "1")]),
        ("022", &[("RAYON_NUM_THREADS", "2")]),
        ("027", &[("RAYON_NUM_THREADS", "8")]),
        ("022", &[("STRATA_ROOT", "memory")]),
    ];
    for (umask, variables) in variants {
        let workspace = Workspace::new();
        workspace.dockerfile(
            "FROM scratch AS made\nCOPY --chmod=0640 files /files/\nCOPY Dockerfile /deep/er/\n\
             FROM base\nCOPY --from=made / /made\nWORKDIR /work/here\nRUN mkdir -m 1777 d && echo x >d/x && ln d/x d/y && \
             ln -s x d/z && chmod 4711 d/x && touch -d @1500000000 d/x d && rm -r /gone && mkdir /gone && touch -d @5 /gone\n",
        );
        // In an order that differs from workspace to workspace.
        let mut numbers: Vec<usize> = (0..40).collect();
        if umask != "022" {
            numbers.reverse();
        }
        for number in numbers {
            workspace.write(&format!("files/{number}"), vec![number as u8; number * 5000]);
        }
        run(Command::new("chmod").arg("-R").arg("u=rwX,go=rX").arg(workspace.context()));
        let mut entries = tools();
        entries.extend([
            ("gone/", EntryType::Directory, 0o755, 0, &b""[..]),
            ("gone/x", EntryType::Regular, 0o644, 0, b""),
        ]);
        let base = image(&workspace, &[Layer::plain(&Archive::of(&entries))]);
        let output = workspace.layout_output("image");
        let mut build = workspace.build(["--build-arg=SOURCE_DATE_EPOCH=1600000000", &base, &output]);
        for (name, value) in variables {
            let value = match (*value, &elsewhere) {
                ("memory", Some(place)) => place.path().to_str().unwrap(),
                ("memory", None) => continue,
                (value, _) => value,
            };
            build = build.env(name, value);
        }
        build.with_umask(umask).run().success();
        let image = layout::read(&workspace.out("image"));
        let made = (image.digest.clone(), image.config["rootfs"].clone());
        assert_eq!(*first.get_or_insert_with(|| made.clone()), made, "umask {umask}, {variables:?}");
    }
}
