//! Damage of every kind of file in the store: the next build makes the same image, says once what was damaged, and leaves
//! a store that `strata fsck` finds nothing wrong with.
//!
//! What a build cannot notice at no cost (a file of an unpacked layer that only a `RUN` reads, a log) is found by `fsck` and
//! repaired by `fsck --repair`, and then the same holds.
//!
//! `make soak` runs every kind with every damage; `make test` every kind with one of them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::layout;
use crate::registry::{run, shared};
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Finished, Workspace};

/// What happens to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    /// One bit in its middle is another.
    Flip,
    /// Its second half is gone.
    Truncate,
    /// It is gone.
    Delete,
}

/// Who finds the damage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Finder {
    /// The next build, which says so where a loss can be told from what never was.
    Build,
    /// `strata fsck`; a build does not look.
    Fsck,
}

/// One kind of file.
struct Kind {
    name: &'static str,
    /// The file in a store.
    file: fn(&Store) -> PathBuf,
    finder: Finder,
    /// Whether the next build has something new to make on top of everything.
    changed: bool,
}

const KINDS: &[Kind] = &[
    Kind { name: "the blob of a base layer", file: |s| s.base_layer_blob(), finder: Finder::Build, changed: true },
    Kind {
        name: "the manifest of a base",
        file: |s| s.blob(&s.base_manifest()),
        finder: Finder::Build,
        changed: false,
    },
    Kind {
        name: "the configuration of a base",
        file: |s| s.blob(&s.base_config()),
        finder: Finder::Build,
        changed: false,
    },
    Kind {
        name: "the manifest of an image",
        file: |s| s.blob(&s.own_manifest()),
        finder: Finder::Build,
        changed: false,
    },
    Kind {
        name: "the configuration of an image",
        file: |s| s.blob(&s.own_config()),
        finder: Finder::Build,
        changed: false,
    },
    Kind { name: "the compressed form of a layer", file: |s| s.form_blob(), finder: Finder::Build, changed: false },
    Kind {
        name: "the description of a layer",
        file: |s| s.layer_of("one").join("layer.json"),
        finder: Finder::Build,
        changed: true,
    },
    Kind {
        name: "the description of a base layer",
        file: |s| s.base_layer().join("layer.json"),
        finder: Finder::Build,
        changed: true,
    },
    Kind {
        name: "a file of a layer that is copied",
        file: |s| s.layer_of("one").join("tree/one"),
        finder: Finder::Build,
        changed: false,
    },
    Kind {
        name: "a file of a layer that is exported",
        file: |s| s.layer_of("two").join("tree/two"),
        finder: Finder::Build,
        changed: true,
    },
    Kind {
        name: "a file of a base layer",
        file: |s| s.base_layer().join("tree/etc/passwd"),
        finder: Finder::Fsck,
        changed: true,
    },
    Kind { name: "the record of a step", file: |s| s.record("steps-v1"), finder: Finder::Build, changed: false },
    Kind {
        name: "the record of a selection",
        file: |s| s.record("selections-v1"),
        finder: Finder::Build,
        changed: false,
    },
    Kind { name: "the record of a pull", file: |s| s.record("pulls-v1"), finder: Finder::Build, changed: false },
    Kind {
        name: "the index of a context",
        file: |s| first(&s.0.join("cache/contexts")),
        finder: Finder::Build,
        changed: false,
    },
    Kind { name: "index.json", file: |s| s.0.join("oci/index.json"), finder: Finder::Build, changed: false },
    Kind { name: "the copy of index.json", file: |s| s.0.join("index-copy"), finder: Finder::Fsck, changed: false },
    Kind { name: "oci-layout", file: |s| s.0.join("oci/oci-layout"), finder: Finder::Fsck, changed: false },
    Kind { name: "the schema number", file: |s| s.0.join("version"), finder: Finder::Build, changed: false },
    Kind {
        name: "what a build did",
        file: |s| first(&s.0.join("builds")).join("build.jsonl"),
        finder: Finder::Fsck,
        changed: false,
    },
    Kind {
        name: "whose cache mount it is",
        file: |s| first(&s.0.join("mounts")).join("id"),
        finder: Finder::Fsck,
        changed: false,
    },
];

impl Kind {
    /// Whether it is noticed that it is gone: for most of the store that is no loss, but how things begin.
    fn is_missed(&self) -> bool {
        self.name == "index.json" || self.name.contains("layer that is") || self.name.contains("description")
    }
}

/// A store that the test's first build filled.
struct Store(PathBuf);

impl Store {
    fn json(path: &Path) -> Value {
        serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
    }

    fn blob(&self, digest: &str) -> PathBuf {
        self.0.join("oci/blobs/sha256").join(digest.strip_prefix("sha256:").unwrap())
    }

    fn document(&self, digest: &str) -> Value {
        Self::json(&self.blob(digest))
    }

    fn own_manifest(&self) -> String {
        text(&Self::json(&self.0.join("oci/index.json"))["manifests"][0]["digest"])
    }

    fn own_config(&self) -> String {
        text(&self.document(&self.own_manifest())["config"]["digest"])
    }

    /// The manifest that a base's name was resolved to: the one that is not the image's own, nor its export's.
    fn base_manifest(&self) -> String {
        let index = Self::json(&shared().layout("busybox").join("index.json"));
        text(&index["manifests"][0]["digest"])
    }

    fn base_config(&self) -> String {
        text(&self.document(&self.base_manifest())["config"]["digest"])
    }

    fn base_layer_blob(&self) -> PathBuf {
        self.blob(&text(&self.document(&self.base_manifest())["layers"][0]["digest"]))
    }

    fn base_layer(&self) -> PathBuf {
        self.layer(&text(&self.document(&self.base_config())["rootfs"]["diff_ids"][0]))
    }

    fn layer(&self, diff_id: &str) -> PathBuf {
        self.0.join("layers").join(diff_id.strip_prefix("sha256:").unwrap())
    }

    /// The layer that has this file.
    fn layer_of(&self, file: &str) -> PathBuf {
        let layers = fs::read_dir(self.0.join("layers")).unwrap().map(|entry| entry.unwrap().path());
        let mut having: Vec<_> = layers.filter(|layer| layer.join("tree").join(file).exists()).collect();
        having.sort_by_key(|layer| fs::read_dir(layer.join("tree")).unwrap().count());
        having.swap_remove(0)
    }

    fn form_blob(&self) -> PathBuf {
        let meta = Self::json(&self.layer_of("two").join("layer.json"));
        self.blob(&text(&meta["layer"]["meta"]["forms"][0]["descriptor"]["digest"]))
    }

    fn record(&self, bucket: &str) -> PathBuf {
        first(&first(&self.0.join("cache").join(bucket)))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

/// The first entry of a directory.
fn first(directory: &Path) -> PathBuf {
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.swap_remove(0)
}

impl Damage {
    fn apply(self, path: &Path) {
        if self == Self::Delete {
            return fs::remove_file(path).unwrap();
        }
        let mut bytes = fs::read(path).unwrap();
        assert!(!bytes.is_empty(), "{} is empty", path.display());
        let middle = bytes.len() / 2;
        match self {
            Self::Flip => bytes[middle] ^= 4,
            _ => bytes.truncate(middle),
        }
        // In place, as a disk does it.
        let mode = fs::metadata(path).unwrap().permissions();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path, bytes).unwrap();
        fs::set_permissions(path, mode).unwrap();
    }
}

/// A store in which everything there is has been made, by a build whose last step's text has `last` in it.
fn recipe(workspace: &Workspace) {
    workspace.write("file.txt", "file\n");
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS one\nRUN echo one >/one && touch -d @1 /one\n\
         FROM ${BASE}\nARG LAST=1\nCOPY file.txt /file\nCOPY --from=one /one /copied\n\
         RUN --mount=type=cache,target=/c cat /copied /etc/passwd >/two && touch -d @1 /two\n\
         RUN echo $LAST >/last && touch -d @1 /last\n",
    );
}

/// Builds the recipe of another workspace; an output of each kind reads all that an output can read.
fn build(workspace: &Workspace, seed: &Workspace, last: u32, compression: &str) -> Finished {
    let archive = format!("--output=type=oci,dest={},compression={compression}", workspace.out("image.tar").display());
    let last = format!("--build-arg=LAST={last}");
    let base = shared().base_argument();
    let arguments =
        ["build", "--progress=plain", "-t", "damaged", "--build-arg=SOURCE_DATE_EPOCH=1", &base, &last, &archive];
    // The index of a context goes by the context's path: all builds have the same one.
    let context = seed.context();
    workspace.strata(arguments.iter().copied().chain(context.to_str())).env("STRATA_PASTA", "off").run()
}

/// What decides that two images are the same.
fn image(workspace: &Workspace) -> String {
    layout::read(&workspace.out("image.tar")).digest
}

fn copy_store(from: &Workspace, to: &Workspace) {
    run(Command::new("cp").arg("-a").arg(from.state()).arg(to.state()));
}

fn fsck(workspace: &Workspace, arguments: &[&str]) -> Finished {
    workspace.strata([&["fsck"], arguments].concat()).run()
}

#[test]
fn damage_is_noticed_mended_and_told_once() {
    let thorough = std::env::var_os("STRATA_SOAK").is_some();
    let seed = Workspace::new();
    recipe(&seed);
    build(&seed, &seed, 1, "gzip").success();
    fsck(&seed, &[]).success();
    // What undisturbed builds make.
    let calm = Workspace::new();
    copy_store(&seed, &calm);
    let expected = [(1, "gzip"), (2, "zstd")].map(|(last, compression)| {
        build(&calm, &seed, last, compression).success();
        image(&calm)
    });
    let damages = [Damage::Flip, Damage::Truncate, Damage::Delete];
    for (number, kind) in KINDS.iter().enumerate() {
        for damage in damages {
            if !thorough && damages[number % damages.len()] != damage {
                continue;
            }
            // A log that is shorter is that of a build that was killed; half of the schema's number is the number.
            let is_harmless = match kind.name {
                "what a build did" => damage != Damage::Flip,
                "the schema number" => damage == Damage::Truncate,
                _ => false,
            };
            if is_harmless {
                continue;
            }
            check(&seed, kind, damage, &expected);
        }
    }
}

fn check(seed: &Workspace, kind: &Kind, damage: Damage, expected: &[String; 2]) {
    let about = format!("{} ({damage:?})", kind.name);
    let workspace = Workspace::new();
    copy_store(seed, &workspace);
    let store = Store(workspace.state());
    let path = (kind.file)(&store);
    if kind.name == "a file of a layer that is copied" {
        // Its record goes too, so that the copy is made again.
        let copied = store.layer_of("copied");
        fs::remove_dir_all(copied).unwrap();
    }
    damage.apply(&path);
    if kind.finder == Finder::Fsck {
        // What is gone without a trace is not missed, if it is made anew by whoever opens the store.
        let mended = damage == Damage::Delete && matches!(kind.name, "oci-layout" | "the copy of index.json");
        if !mended {
            let found = fsck(&workspace, &[]);
            assert_eq!(found.code(), Some(1), "{about}: {}", found.describe());
        }
        let repaired = fsck(&workspace, &["--repair"]);
        assert_eq!(repaired.code(), Some(0), "{about}: {}", repaired.describe());
    }
    let (last, compression) = if kind.changed { (2, "zstd") } else { (1, "gzip") };
    let built = build(&workspace, seed, last, compression);
    assert_eq!(built.code(), Some(0), "{about}: {}", built.describe());
    assert_eq!(image(&workspace), expected[usize::from(kind.changed)], "{about}: another image");
    let told = built.stderr.lines().filter(|line| line.contains("damaged") || line.contains("schema")).count();
    // A bit in a name makes another name, which others may have given.
    if !(kind.name == "index.json" && damage == Damage::Flip) {
        let tellable = kind.finder == Finder::Build && (damage != Damage::Delete || kind.is_missed());
        assert_eq!(told, usize::from(tellable), "{about}: {}", built.describe());
    }
    let clean = fsck(&workspace, &[]);
    assert_eq!(clean.code(), Some(0), "{about}: {}", clean.describe());
    let again = build(&workspace, seed, last, compression);
    assert!(!again.stderr.contains("damaged"), "{about}: told twice: {}", again.describe());
}

#[test]
fn whole_directories_can_go() {
    let seed = Workspace::new();
    recipe(&seed);
    build(&seed, &seed, 1, "gzip").success();
    let expected = image(&seed);
    for gone in ["layers", "cache", "oci/blobs", "oci", "builds", "mounts", "tmp", "locks"] {
        let workspace = Workspace::new();
        copy_store(&seed, &workspace);
        fs::remove_dir_all(workspace.state().join(gone)).unwrap();
        let built = build(&workspace, &seed, 1, "gzip");
        assert_eq!(built.code(), Some(0), "{gone}: {}", built.describe());
        assert_eq!(image(&workspace), expected, "{gone}");
        let clean = fsck(&workspace, &[]);
        assert_eq!(clean.code(), Some(0), "{gone}: {}", clean.describe());
    }
}

#[test]
fn a_name_that_is_lost_is_told_and_others_stay() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nARG N\nCOPY Dockerfile /$N\n");
    for name in ["good", "bad"] {
        let argument = format!("--build-arg=N={name}");
        workspace.build(["-t", name, argument.as_str()]).run().success();
    }
    let index = Store::json(&workspace.state().join("oci/index.json"));
    let entries = index["manifests"].as_array().unwrap();
    let bad = entries.iter().find(|entry| entry.to_string().contains("bad:latest")).unwrap();
    Damage::Truncate.apply(&Store(workspace.state()).blob(&text(&bad["digest"])));
    let found = fsck(&workspace, &["--format", "json"]);
    let report: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!(found.code(), Some(1), "{}", found.describe());
    assert!(report["findings"].to_string().contains("bad:latest"), "{report}");
    assert!(!report["findings"].to_string().contains("good:latest"), "{report}");
    let repaired = fsck(&workspace, &["--repair"]);
    repaired.fails(1, &["is lost"]);
    let images = workspace.strata(["images"]).run().success().stdout;
    assert!(images.contains("good:latest") && !images.contains("bad:latest"), "{images}");
    fsck(&workspace, &[]).success();
}

#[test]
fn a_user_s_store_is_verified_as_the_user_sees_it() {
    for kind in [RANGES, SINGLE] {
        let Some(who) = user(kind, "fsck as a user") else { continue };
        let workspace = Workspace::of(who);
        recipe(&workspace);
        workspace.give_context_away();
        build(&workspace, &workspace, 1, "gzip").success();
        fsck(&workspace, &[]).success();
        let store = Store(workspace.state());
        Damage::Flip.apply(&store.base_layer().join("tree/etc/passwd"));
        assert_eq!(fsck(&workspace, &[]).code(), Some(1));
        fsck(&workspace, &["--repair"]).success();
        build(&workspace, &workspace, 2, "zstd").success();
        fsck(&workspace, &[]).success();
    }
}
