//! Base layers as others write them: what of them steps see, what they become part of, and what is refused.

use std::fs;
use std::process::Command;

use serde_json::json;
use tar::{EntryType, Header};

use crate::layout::{self, sha256};
use crate::registry::run;
use crate::rootless::{RANGES, user};
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

/// Writes an image of these layers, base first, as an OCI layout; gives the argument that names it `base`.
fn image(workspace: &Workspace, layers: &[Vec<u8>]) -> String {
    let directory = workspace.path().join("base");
    let blobs = directory.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = sha256(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        json!({"mediaType": format!("application/vnd.oci.image.{media_type}"), "digest": digest, "size": bytes.len()})
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| sha256(layer)).collect();
    let layers: Vec<_> = layers.iter().map(|layer| put("layer.v1.tar", layer)).collect();
    let architecture = if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" };
    let config = json!({
        "os": "linux", "architecture": architecture, "config": {"Env": ["PATH=/bin"]},
        "history": vec![json!({"created_by": "the test"}); diff_ids.len()],
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = put("config.v1+json", config.to_string().as_bytes());
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
        let base = image(&workspace, &[Archive::of(&first), Archive::of(&second), Archive::of(&third)]);
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
