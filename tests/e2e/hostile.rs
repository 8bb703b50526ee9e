//! Recipes, base images and cache mounts that are made to lead Strata out of a step's root.
//!
//! Each test has a directory on the host with a file in it, and a recipe that tries to read it, write to it or make
//! something beside it. Whether the build succeeds does not matter, as long as it ends, says why it did not, and the
//! directory is what it was.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::PathBuf;

use crate::layout;
use crate::registry::shared;
use crate::rootless::{RANGES, user};
use crate::workspace::{Finished, Who, Workspace};

/// What the file on the host holds: nothing of the recipe's may know it.
const TREASURE: &str = "7b1e-treasure-of-the-host";

/// A workspace with a directory that must stay as it is.
struct Target {
    workspace: Workspace,
    directory: PathBuf,
    before: Vec<(String, i64, u64)>,
}

impl Target {
    fn new(who: Who) -> Self {
        let workspace = Workspace::of(who);
        let directory = workspace.path().join("out/treasure");
        fs::create_dir(&directory).unwrap();
        for name in ["file", "hosts", "resolv.conf", "passwd"] {
            fs::write(directory.join(name), TREASURE).unwrap();
        }
        fs::create_dir(directory.join("sub")).unwrap();
        if let Who::User { uid, gid, .. } = workspace.who() {
            // The user's own, so that nothing but the sandbox keeps the step from it.
            crate::registry::run(
                std::process::Command::new("chown").args(["-R", &format!("{uid}:{gid}")]).arg(&directory),
            );
        }
        let before = looks(&directory);
        Self { workspace, directory, before }
    }

    fn path(&self) -> &str {
        self.directory.to_str().unwrap()
    }

    /// Builds, and fails the test if the directory was seen or changed.
    #[track_caller]
    fn build(&self, about: &str, recipe: &str) -> Finished {
        self.workspace.dockerfile(recipe);
        let finished = self.workspace.build(["-t", "x", "--no-cache", &shared().base_argument()]).run();
        assert!(!finished.describe().contains(TREASURE), "{about}: the host's file was read\n{}", finished.describe());
        assert_eq!(self.before, looks(&self.directory), "{about}: the host was changed\n{}", finished.describe());
        if finished.code() != Some(0) {
            assert!(finished.stderr.contains("error"), "{about}\n{}", finished.describe());
            assert!(!finished.stderr.contains("panicked"), "{about}\n{}", finished.describe());
        }
        finished
    }
}

/// Names, times and contents below a directory.
fn looks(directory: &std::path::Path) -> Vec<(String, i64, u64)> {
    let mut found: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(Result::unwrap)
        .map(|entry| {
            let metadata = entry.metadata().unwrap();
            if metadata.is_file() {
                assert_eq!(fs::read_to_string(entry.path()).unwrap(), TREASURE);
            }
            (entry.file_name().into_string().unwrap(), metadata.mtime_nsec(), metadata.ino())
        })
        .collect();
    found.sort();
    let own = fs::metadata(directory).unwrap();
    found.push((".".to_owned(), own.mtime_nsec(), own.ino()));
    found
}

/// Root, and a user with ranges of ids where the tests can be one.
fn everybody(what: &str) -> Vec<Who> {
    [Some(Who::Caller), user(RANGES, what)].into_iter().flatten().collect()
}

#[test]
fn no_working_directory_leads_through_descriptors() {
    for who in everybody("hostile working directories as a user") {
        let target = Target::new(who);
        let treasure = target.path().trim_start_matches('/').to_owned();
        let script = format!(
            "cat ../../../../../../../../../../{treasure}/file; echo x >../../../../../../../../{treasure}/x; pwd"
        );
        let numbers = (0..20).map(|number| format!("/proc/self/fd/{number}"));
        let links = ["/proc/self/cwd", "/proc/self/root", "/proc/1/cwd", "/proc/1/root", "/proc/thread-self/fd/7"];
        for place in numbers.chain(links.map(str::to_owned)) {
            let stage = "ARG BASE\nFROM ${BASE}\n";
            let finished = target.build(&place, &format!("{stage}WORKDIR {place}\nRUN {script}\n"));
            assert_ne!(finished.code(), Some(0), "{place}: a directory of the builder's\n{}", finished.describe());
        }
        let recipe = format!("ARG BASE\nFROM ${{BASE}}\nRUN ln -s /proc/self/fd/6 /w\nWORKDIR /w\nRUN {script}\n");
        target.build("a link to a descriptor", &recipe);
        target.workspace.assert_nothing_left();
    }
}

#[test]
fn the_builders_own_program_cannot_be_run() {
    for who in everybody("the builder's program as a user") {
        let target = Target::new(who);
        let script = "printf '#!/proc/self/exe\\n' >/evil && chmod 755 /evil && ln -s /proc/self/exe /evil-link";
        for program in ["/proc/self/exe", "/proc/thread-self/exe", "/evil", "/evil-link"] {
            let recipe = format!("ARG BASE\nFROM ${{BASE}}\nRUN {script}\nRUN [\"{program}\", \"--version\"]\n");
            let finished = target.build(program, &recipe);
            assert_ne!(finished.code(), Some(0), "{program}: {}", finished.describe());
            assert_eq!(finished.count(concat!("strata ", env!("CARGO_PKG_VERSION"))), 0, "{}", finished.describe());
        }
    }
}

#[test]
fn a_hostile_image_does_not_lead_out() {
    for who in everybody("hostile images as a user") {
        let target = Target::new(who);
        let host = target.path().to_owned();
        let up = format!("../../../../../../../../../..{host}");
        let through = format!("/proc/self/root{host}");
        let places =
            ["proc", "dev", "sys", "etc", "tmp", "run", "work", "mnt", "etc/hosts", "etc/resolv.conf", "etc/passwd"];
        for place in places {
            for to in [&host, &up, &through] {
                let root = target.workspace.context().join("root");
                let _ = fs::remove_dir_all(&root);
                fs::create_dir_all(root.join("bin")).unwrap();
                fs::create_dir_all(root.join(place).parent().unwrap()).unwrap();
                fs::copy("/bin/busybox", root.join("bin/sh")).unwrap();
                let file = place.strip_prefix("etc/").map(|name| format!("/{name}")).unwrap_or_default();
                symlink(format!("{to}{file}"), root.join(place)).unwrap();
                let recipe = "FROM scratch\nCOPY root/ /\nWORKDIR /work/sub\nUSER 0\n\
                    RUN --mount=type=tmpfs,target=/mnt/made --mount=type=cache,target=/run/sub/cache \
                    --mount=target=/tmp/context,source=Dockerfile \
                    for f in /etc/hosts /etc/resolv.conf /etc/passwd /tmp/file /run/file /mnt/file /work/file; do \
                    read -r line <$f && echo \"$line\"; echo evil >$f; done; echo evil >/tmp/new; echo evil >/work/new\n\
                    COPY Dockerfile /tmp/sub/\nCOPY Dockerfile /work/sub/copied\n";
                target.build(&format!("/{place} -> {to}"), recipe);
            }
        }
        target.workspace.assert_nothing_left();
    }
}

#[test]
fn a_hostile_cache_mount_does_not_lead_out() {
    for who in everybody("hostile cache mounts as a user") {
        let target = Target::new(who);
        let host = target.path();
        let fill = format!(
            "ARG BASE\nFROM ${{BASE}}\nRUN --mount=type=cache,id=c,target=/c cd /c && ln -sf {host} out && \
             ln -sf ../../../../../../../..{host} up && ln -sf {host}/file file && cp /bin/busybox suid && chmod 4755 suid\n"
        );
        target.build("filling it", &fill).success();
        for inner in ["/c/out/x", "/c/up/x", "/c/out/sub", "/c/file"] {
            for kind in ["tmpfs", "cache"] {
                let recipe = format!(
                    "ARG BASE\nFROM ${{BASE}}\nRUN --mount=type=cache,id=c,target=/c --mount=type={kind},target={inner} \
                     cat /c/file /c/out/file; echo evil >/c/out/evil; echo evil >{inner}/evil; true\n"
                );
                target.build(&format!("{kind} on {inner}"), &recipe);
            }
        }
        let from = format!(
            "ARG BASE\nFROM ${{BASE}}\nRUN --mount=type=cache,id=c,target=/c cat /c/file; cat /c/up/file; echo x >/c/up/x; \
             ! cat {host}/file\n"
        );
        target.build("reading through it", &from).success();
        // An id is no path.
        let named = "ARG BASE\nFROM ${BASE}\nRUN --mount=type=cache,id=../../../../evil,target=/c touch /c/f\n";
        target.build("an id that climbs", named).success();
        assert!(!target.workspace.path().join("evil").exists() && !target.workspace.path().join("home/evil").exists());
        target.workspace.assert_nothing_left();
    }
}

#[test]
fn hostile_sources_of_mounts_and_copies_do_not_lead_out() {
    for who in everybody("hostile sources as a user") {
        let target = Target::new(who);
        let host = target.path();
        let stage = format!(
            "ARG BASE\nFROM ${{BASE}} AS hostile\nRUN ln -s {host} /out && ln -s ../../../../../../..{host}/file /file && \
             ln -s /proc/self/root{host} /through\nFROM ${{BASE}}\n"
        );
        for source in ["/out", "/out/file", "/file", "/through", "/through/file", "/../../../../out/file"] {
            let run = format!(
                "{stage}RUN --mount=from=hostile,source={source},target=/m,rw cat /m /m/file; echo x >/m/x; true\n"
            );
            target.build(&format!("bind {source}"), &run);
            let cache =
                format!("{stage}RUN --mount=type=cache,from=hostile,source={source},target=/m cat /m/file; true\n");
            target.build(&format!("cache {source}"), &cache);
            let copy = format!("{stage}COPY --from=hostile {source} /copied/\nRUN cat /copied/* /copied/*/*; true\n");
            target.build(&format!("copy {source}"), &copy);
        }
        target.workspace.assert_nothing_left();
    }
}

#[test]
fn what_a_step_leaves_is_not_followed_or_opened() {
    for who in everybody("hostile leftovers as a user") {
        let target = Target::new(who);
        let host = target.path();
        let recipe = format!(
            "ARG BASE\nFROM ${{BASE}}\nRUN mkfifo /pipe && ln -s {host}/file /link && ln -s {host} /directory && \
             ln -s loop /loop && (mknod /null c 1 3 || true)\n\
             RUN mkdir -p /a && cd /a && for i in $(seq 200); do mkdir d && cd d; done\n"
        );
        let output = target.workspace.layout_output("image");
        target.workspace.dockerfile(&recipe);
        target.workspace.build([shared().base_argument(), output]).run().success();
        let image = layout::read(&target.workspace.out("image"));
        assert_eq!((image.tree["pipe"].kind, image.tree["link"].kind), ("fifo", "symlink"));
        assert_eq!(target.before, looks(&target.directory));
        // A database that is a pipe would be waited for by whoever opens it.
        let pipes = "RUN rm -f /etc/passwd /etc/group && mkfifo /etc/passwd /etc/group\n";
        target.build("names from a pipe", &format!("{recipe}{pipes}USER nobody\nRUN true\n"));
        target.workspace.assert_nothing_left();
    }
}

#[test]
fn what_a_failed_step_has_written_goes_with_it() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN head -c 33554432 /dev/zero >/filler && false\n");
    workspace.build(["-t", "x", &shared().base_argument()]).run().fails(1, &["exit code: 1"]);
    let kept = crate::registry::run(std::process::Command::new("du").args(["-sm"]).arg(workspace.state()));
    let megabytes: u32 = kept.split_whitespace().next().unwrap().parse().unwrap();
    assert!(megabytes < 24, "the store keeps {megabytes} MB");
    workspace.assert_nothing_left();
}

#[test]
fn the_store_is_closed_to_other_users() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN cp /bin/busybox /root-shell && chmod 4755 /root-shell\n");
    workspace.build(["-t", "x", &shared().base_argument()]).run().success();
    for private in ["layers", "mounts", "cache", "tmp", "locks"] {
        let mode = fs::metadata(workspace.state().join(private)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{private} holds set-uid programs and devices that steps have made");
    }
}
