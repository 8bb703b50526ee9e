//! The attack suite: `tests/attack/probe.rs` in a step, as root, as a user with ranges of ids and as one without, and
//! the same program in a container of runc's with Docker's defaults and with runc's own.
//!
//! [`EXPECTED`] says what each probe must come to in Strata. What comes of it in runc is compared: where runc stops a
//! probe, Strata does; [`BY_CAPABILITY`] are the exceptions, against runc's own defaults only. The table in
//! `docs/security.md` is what was found, and is held against it.

use std::collections::BTreeMap;
use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::registry::run;
use crate::rootless::{RANGES, SINGLE, user};
use crate::skip::{is_root, skip};
use crate::workspace::{Who, Workspace};

/// What each probe must come to in a step of Strata's: one of the words, which differ between root and users (who are
/// stopped by other checks of the kernel) and between kernels (which do not all have the same files).
const EXPECTED: &[(&str, &[&str])] = &[
    (
        "EPERM",
        &[
            "mount-tmpfs",
            "mount-proc-anew",
            "mount-bind",
            "remount-proc-sys-writable",
            "uncover-kcore",
            "pivot-root",
            "fsopen",
            "fspick",
            "open-tree-clone",
            "move-mount",
            "mount-setattr",
            "unshare-nothing",
            "unshare-user",
            "unshare-mount",
            "unshare-pid",
            "unshare-network",
            "clone-user",
            "clone-mount",
            "clone-cgroup",
            "setns-own",
            "parent-of-pid-namespace",
            "ptrace-init",
            "read-memory-of-init",
            "descriptor-taken-from-init",
            "compare-with-init",
            "advise-memory-of-init",
            "init-module",
            "finit-module",
            "delete-module",
            "kexec-load",
            "reboot",
            "swapon",
            "swapoff",
            "bpf",
            "perf-event",
            "userfaultfd",
            "io-uring-setup",
            "io-uring-enter",
            "io-uring-register",
            "keyctl",
            "add-key",
            "request-key",
            "kernel-log",
            "quota",
            "accounting",
            "open-by-handle",
            "fanotify",
            "set-time-of-day",
            "set-clock",
            "adjust-clock",
            "set-host-name",
            "set-domain-name",
            "hang-up",
            "memory-policy",
            "no-address-randomisation",
            "read-implies-exec",
            "overlay-record",
            "raise-capabilities",
            "raise-ambient-capability",
            "set-memory-map",
            "raise-limit",
            "realtime-scheduling",
            "vsock",
            "kernel-crypto",
            "interface-down",
            "loopback-down",
            "interface-address",
            "make-interface",
            "make-route",
            "i386-mount",
            "i386-unshare",
            "i386-keyctl",
            "i386-bpf",
            "i386-vsock",
            "i386-kernel-crypto",
            "i386-vm86",
            "x32-getpid",
            "port-access",
            "port-level",
        ],
    ),
    ("ENOSYS", &["clone3", "i386-clone3"]),
    ("ESRCH", &["signal-outside-process", "ptrace-outside-process", "pidfd-of-outside-process"]),
    ("no-effect", &["kill-init"]),
    ("ECONNREFUSED EPERM", &["abstract-socket-of-host"]),
    // Some kernels have no packet filter.
    ("EPERM hidden", &["packet-filter"]),
    ("ENOTTY", &["terminal-input"]),
    ("ENXIO", &["controlling-terminal"]),
    ("ENOSPC", &["fill-dev", "fill-shared-memory"]),
    (
        "EACCES EPERM",
        &[
            "through-root-link-of-init",
            "through-cwd-link-of-init",
            "setns-init",
            "open-memory-of-init",
            "maps-of-init",
            "environment-of-init",
            "program-of-init",
            "overwrite-program-of-init",
            "root-of-init",
            "descriptors-of-init",
            "raise-priority",
            "immunity-from-oom",
            "disk-node-in-root",
            "memory-node-in-root",
            "null-node-in-tmp",
            "node-in-dev",
            "node-in-shared-memory",
            "read-kernel-messages",
        ],
    ),
    (
        "hidden",
        &[
            "chroot-climb",
            "through-descriptors",
            "descriptors-left-open",
            "host-path-in-mount-table",
            "see-outside-processes",
            "inherit-environment",
            "foreign-shared-memory",
            "capabilities-beyond-dockers",
            "inheritable-or-ambient-capabilities",
            "devices-at-hand",
            "host-name-of-the-host",
        ],
    ),
    (
        "ENOENT",
        &[
            "dot-dot",
            "through-own-root-link",
            "through-own-cwd-link",
            "console",
            "physical-memory",
            "kernel-messages-device",
            "fuse",
            "virtual-machines",
            "tunnel",
            "loop-control",
            "make-in-proc",
            "secrets-of-others",
        ],
    ),
    // What a kernel has of these is covered or read-only, and some have none of it.
    (
        "hidden ENOENT EPERM EACCES",
        &[
            "list-acpi",
            "list-scsi",
            "read-kcore",
            "read-keys",
            "read-timer-list",
            "read-interrupts",
            "read-sched-debug",
            "list-firmware",
            "list-power-meters",
            "list-heat-counters",
            "debug-file-system",
            "trace-file-system",
            "security-file-system",
        ],
    ),
    (
        "EROFS EACCES ENOENT",
        &[
            "write-core-pattern",
            "write-modprobe",
            "write-host-name",
            "write-drop-caches",
            "register-binary-format",
            "sysrq-trigger",
            "write-irq",
            "make-in-sys",
            "write-sys-power",
            "write-uevent-helper",
            "write-profiling",
            "make-cgroup",
            "cgroup-release-agent",
        ],
    ),
    // Docker's default capabilities include CAP_NET_RAW; a user has it only in a network namespace of the step's own.
    ("ok EPERM", &["raw-socket", "packet-socket"]),
    // Not an attack: 32-bit programs must run, where the kernel runs them at all.
    ("ok killed", &["i386-getpid"]),
];

/// Where runc's own defaults stop what Strata, like Docker, does not: they leave root three capabilities, with which no
/// package could be installed.
const BY_CAPABILITY: &[&str] = &["raw-socket", "packet-socket"];

/// Outcomes by probe.
type Outcomes = BTreeMap<String, String>;

/// The probe program, built by cargo beside the tests.
fn probe() -> &'static Path {
    static PROBE: OnceLock<PathBuf> = OnceLock::new();
    PROBE.get_or_init(|| {
        // `cargo test` has built it already, but for runs of a single test program.
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--offline", "--example", "attack-probe"]);
        run(build.current_dir(env!("CARGO_MANIFEST_DIR")));
        let tests = std::env::current_exe().unwrap();
        let directory = tests.ancestors().nth(2).unwrap();
        directory.join("examples/attack-probe")
    })
}

/// What of the host must not be seen or changed, as it is now.
fn host() -> Vec<String> {
    let files = ["/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe"];
    let devices = ["/dev/null", "/dev/zero", "/dev/tty"].map(|device| {
        let found = fs::metadata(device).unwrap();
        format!("{device} {:o}", found.permissions().mode())
    });
    files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).chain(devices).collect()
}

/// The variables that tell the probes what is on the host: a file, a process, the name.
fn clues(marker: &Path, pid: u32) -> Vec<(&'static str, String)> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    vec![
        ("PROBE_MARKER", marker.display().to_string()),
        ("PROBE_PID", pid.to_string()),
        ("PROBE_HOSTNAME", name.trim().to_owned()),
    ]
}

/// An abstract socket of the marker's name.
fn listen(marker: &Path) -> UnixListener {
    let name = marker.strip_prefix("/").unwrap().as_os_str().as_encoded_bytes();
    UnixListener::bind_addr(&SocketAddr::from_abstract_name(name).unwrap()).unwrap()
}

fn outcomes(text: &str) -> Outcomes {
    let found = text.lines().filter_map(|line| line.split_once("PROBE ")).filter_map(|(_, rest)| {
        let mut words = rest.split_whitespace();
        Some((words.next()?.to_owned(), words.next()?.to_owned()))
    });
    found.filter(|(name, _)| EXPECTED.iter().any(|(_, names)| names.contains(&name.as_str()))).collect()
}

/// Runs every probe in a step, and sees that the host is what it was.
fn in_strata(who: Who) -> Outcomes {
    let workspace = Workspace::of(who);
    let marker = workspace.path().join("marker");
    fs::write(&marker, "of the host").unwrap();
    let _listener = listen(&marker);
    let mut bystander = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
    let variables = clues(&marker, bystander.id());
    let variables: String = variables.iter().map(|(name, value)| format!("ENV {name}=\"{value}\"\n")).collect();
    // A step that shares the host's network is kept from abstract sockets by newer kernels only.
    let alone = "RUN --network=none [\"/probe\", \"abstract-socket-of-host\"]\n";
    let steps = format!("WORKDIR /tmp\n{variables}RUN [\"/probe\"]\n{alone}");
    workspace.dockerfile(&format!("FROM scratch\nCOPY probe /probe\n{steps}"));
    fs::copy(probe(), workspace.context().join("probe")).unwrap();
    let before = host();
    let finished = workspace.build(["-t", "x"]).env("PROBE_SECRET", "of the builder").run().success();
    assert_eq!(before, host());
    assert_eq!(fs::read_to_string(&marker).unwrap(), "of the host");
    assert!(bystander.try_wait().unwrap().is_none(), "a process outside was ended");
    bystander.kill().unwrap();
    bystander.wait().unwrap();
    workspace.assert_nothing_left();
    outcomes(&finished.stderr)
}

/// Holds outcomes against [`EXPECTED`].
fn check(what: &str, found: &Outcomes) {
    let mut wrong = Vec::new();
    for (words, names) in EXPECTED {
        for name in *names {
            if cfg!(not(target_arch = "x86_64")) && ["i386-", "x32-", "port-"].iter().any(|abi| name.starts_with(abi)) {
                continue;
            }
            let outcome = found.get(*name).map_or("did not run", String::as_str);
            if !words.split(' ').any(|word| word == outcome) {
                wrong.push(format!("{name}: {outcome}, expected {words}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{what}:\n{}", wrong.join("\n"));
    assert!(found.len() >= 60, "{what}: {} probes", found.len());
}

#[test]
fn every_probe_as_root() {
    if !is_root() {
        return skip("attack suite as root", "the tests are not run by root");
    }
    check("root", &in_strata(Who::Caller));
}

#[test]
fn every_probe_as_a_user_with_ranges() {
    let Some(who) = user(RANGES, "attack suite of a user with ranges") else { return };
    check(RANGES, &in_strata(who));
}

#[test]
fn every_probe_as_a_user_with_a_single_id() {
    let Some(who) = user(SINGLE, "attack suite of a user with a single id") else { return };
    check(SINGLE, &in_strata(who));
}

/// Runs probes that are run only when they are named; gives their outcomes.
fn on_request(who: &Who, names: &[&str], arguments: &[&str], variables: &str) -> Vec<String> {
    let workspace = Workspace::of(who.clone());
    let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
    workspace
        .dockerfile(&format!("FROM scratch\nCOPY probe /probe\n{variables}RUN [\"/probe\", {}]\n", quoted.join(", ")));
    fs::copy(probe(), workspace.context().join("probe")).unwrap();
    let finished = workspace.build(arguments).run();
    workspace.assert_nothing_left();
    let found = finished.stderr.lines().filter_map(|line| line.split_once("PROBE ")).map(|(_, rest)| rest.to_owned());
    let found: Vec<String> = found.collect();
    assert_eq!(found.len(), names.len(), "{}", finished.describe());
    found
}

#[test]
fn bombs_go_off_within_their_limits() {
    if !crate::step_limits::limited("attack suite: bombs") {
        return;
    }
    let stopped = on_request(&Who::Caller, &["memory-bomb"], &["--memory=32m", "--memory-swap=32m"], "");
    assert_eq!(stopped, ["memory-bomb killed"]);
    assert_eq!(on_request(&Who::Caller, &["fork-bomb"], &["--pids-limit=50"], ""), ["fork-bomb EAGAIN"]);
    // Without a limit both go off, so that it is the limits that are seen above.
    let bombs = on_request(&Who::Caller, &["memory-bomb", "fork-bomb"], &[], "");
    assert_eq!(bombs, ["memory-bomb ok", "fork-bomb ok"]);
}

#[test]
fn a_private_network_shows_and_changes_nothing_of_the_host_s() {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = format!("ENV PROBE_PORT={}\n", listener.local_addr().unwrap().port());
    for who in crate::network::everybody("attack suite: private network") {
        let names = ["service-on-loopback", "foreign-interfaces", "interface-down", "interface-address"];
        let expected = [
            "service-on-loopback ECONNREFUSED",
            "foreign-interfaces hidden",
            "interface-down EPERM",
            "interface-address EPERM",
        ];
        // The order is the program's own.
        let mut found = on_request(&who, &names, &[], &port);
        found.sort_by_key(|line| names.iter().position(|name| line.starts_with(name)));
        assert_eq!(found, expected, "{who:?}");
    }
}

#[test]
fn strata_is_nowhere_weaker_than_runc() {
    if !is_root() {
        return skip(
            "attack suite against runc",
            "runc's defaults are those of root, and the tests are not run by root",
        );
    }
    if Command::new("runc").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_err() {
        return skip("attack suite against runc", "there is no runc; `scripts/setup` installs it");
    }
    let strata = in_strata(Who::Caller);
    let plain = in_runc("plain", |_| {});
    assert_not_weaker("runc's own defaults", &strata, &plain, BY_CAPABILITY);
    let Some(profile) = dockers_profile() else {
        let reason = "Docker's profile was not found; STRATA_SECCOMP_REFERENCE says where it is";
        return skip("attack suite against runc with Docker's defaults", reason);
    };
    let docker = in_runc("docker", |config| as_docker(config, &profile));
    assert_not_weaker("runc with Docker's defaults", &strata, &docker, &[]);
    assert_table(&table(&strata, &docker, &plain));
}

fn stopped(outcome: &str) -> bool {
    outcome != "ok"
}

fn assert_not_weaker(what: &str, strata: &Outcomes, runc: &Outcomes, but: &[&str]) {
    assert!(runc.len() >= 60, "{what}: {} probes ran", runc.len());
    let not_attacks = ["i386-getpid"];
    let weaker = strata.iter().filter(|(name, outcome)| {
        let there = runc.get(*name).is_some_and(|outcome| stopped(outcome));
        there && !stopped(outcome) && !but.contains(&name.as_str()) && !not_attacks.contains(&name.as_str())
    });
    let weaker: Vec<_> = weaker.collect();
    assert!(weaker.is_empty(), "stopped by {what} and not by Strata: {weaker:?}");
}

/// The probes in a container of runc's, made from `runc spec` and what `change` does to it.
fn in_runc(name: &str, change: impl Fn(&mut Value)) -> Outcomes {
    let directory = tempfile::Builder::new().prefix("strata-e2e-runc-").tempdir().unwrap();
    let bundle = directory.path();
    for path in ["rootfs/tmp", "rootfs/etc", "rootfs/proc", "rootfs/sys", "rootfs/dev", "state"] {
        fs::create_dir_all(bundle.join(path)).unwrap();
    }
    fs::copy(probe(), bundle.join("rootfs/probe")).unwrap();
    let marker = bundle.join("marker");
    fs::write(&marker, "of the host").unwrap();
    let _listener = listen(&marker);
    run(Command::new("runc").arg("spec").current_dir(bundle));
    let path = bundle.join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    config["process"]["terminal"] = json!(false);
    config["process"]["args"] = json!(["/probe"]);
    let variables = clues(&marker, std::process::id());
    config["process"]["env"] =
        json!(variables.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>());
    change(&mut config);
    fs::write(&path, config.to_string()).unwrap();
    let container = format!("strata-e2e-{name}-{}", std::process::id());
    let runc = || {
        let mut command = Command::new("timeout");
        command.args(["--kill-after=5", "120", "runc", "--root"]).arg(bundle.join("state"));
        command
    };
    let output = runc().args(["run", "--bundle"]).arg(bundle).arg(&container).stdin(Stdio::null()).output().unwrap();
    let _ = runc().args(["delete", "--force", &container]).stderr(Stdio::null()).status();
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    let found = outcomes(&text);
    assert!(!found.is_empty(), "runc ran nothing: {text}");
    found
}

/// Docker's default profile in the form that Docker keeps it, where it is at hand: it lies beside the project.
fn dockers_profile() -> Option<Value> {
    let named = std::env::var_os("STRATA_SECCOMP_REFERENCE").map(PathBuf::from);
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let beside = above.map(|directory| directory.join("shared/reference/data/docker-seccomp-default.json"));
    let path = named.into_iter().chain(beside).find(|path| path.is_file())?;
    Some(serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap())
}

/// What Docker gives root in a container by default.
const DOCKERS_CAPABILITIES: [&str; 14] = [
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Turns runc's defaults into those of the newest Docker.
fn as_docker(config: &mut Value, profile: &Value) {
    let capabilities = json!(DOCKERS_CAPABILITIES);
    config["process"]["capabilities"] =
        json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities });
    config["process"]["noNewPrivileges"] = json!(false);
    config["root"]["readonly"] = json!(false);
    config["linux"]["maskedPaths"] = json!([
        "/proc/acpi",
        "/proc/asound",
        "/proc/interrupts",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/sched_debug",
        "/proc/scsi",
        "/proc/timer_list",
        "/proc/timer_stats",
        "/sys/devices/virtual/powercap",
        "/sys/firmware"
    ]);
    config["linux"]["seccomp"] = filter(profile);
}

/// Docker's profile as the runtime specification has it: the rules that hold for these capabilities and this machine.
fn filter(profile: &Value) -> Value {
    let (arch, architectures) = match std::env::consts::ARCH {
        "aarch64" => ("arm64", json!(["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"])),
        _ => ("amd64", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"])),
    };
    let names = |rule: &Value, condition: &str, key: &str| -> Vec<String> {
        let names = rule[condition][key].as_array().into_iter().flatten();
        names.filter_map(|name| name.as_str().map(str::to_owned)).collect()
    };
    let held = |name: &String| DOCKERS_CAPABILITIES.contains(&name.as_str());
    let applies = |rule: &&Value| {
        let arches = names(rule, "includes", "arches");
        (arches.is_empty() || arches.iter().any(|name| name == arch))
            && names(rule, "includes", "caps").iter().all(held)
            && !names(rule, "excludes", "arches").iter().any(|name| name == arch)
            && !names(rule, "excludes", "caps").iter().any(held)
    };
    let rules: Vec<Value> = profile["syscalls"]
        .as_array()
        .unwrap()
        .iter()
        .filter(applies)
        .map(|rule| {
            let mut kept = json!({ "names": rule["names"], "action": rule["action"] });
            for key in ["args", "errnoRet"] {
                if !rule[key].is_null() {
                    kept[key] = rule[key].clone();
                }
            }
            kept
        })
        .collect();
    json!({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 1, "architectures": architectures, "syscalls": rules })
}

/// The table of `docs/security.md`: whether each probe is stopped, which is the same on every machine.
fn table(strata: &Outcomes, docker: &Outcomes, plain: &Outcomes) -> String {
    let words = |outcomes: &Outcomes, name: &str| match outcomes.get(name) {
        Some(outcome) if stopped(outcome) => "stopped",
        Some(_) => "possible",
        None => "not run",
    };
    let mut table = String::from(
        "| probe | Strata | runc, Docker's defaults | runc, its own defaults |\n| --- | --- | --- | --- |\n",
    );
    let mut names: Vec<&str> = EXPECTED.iter().flat_map(|(_, names)| names.iter().copied()).collect();
    names.sort_unstable();
    for name in names.into_iter().filter(|name| *name != "i386-getpid") {
        let row = [strata, docker, plain].map(|outcomes| words(outcomes, name));
        table.push_str(&format!("| `{name}` | {} | {} | {} |\n", row[0], row[1], row[2]));
    }
    table
}

/// Holds the table against the page, or writes it there where `STRATA_WRITE_TABLES` is set.
///
/// Strata's column must be true everywhere. What runc lets through depends on its version and on the kernel, so a
/// difference in its columns is told and no failure.
fn assert_table(table: &str) {
    const BEGIN: &str = "<!-- attack table: begin -->\n";
    const END: &str = "<!-- attack table: end -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/security.md");
    let page = fs::read_to_string(&path).unwrap();
    let (before, rest) = page.split_once(BEGIN).unwrap();
    let (written, after) = rest.split_once(END).unwrap();
    if std::env::var_os("STRATA_WRITE_TABLES").is_some() {
        fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        return;
    }
    let strata = |table: &str| -> Vec<String> {
        table.lines().map(|line| line.split('|').take(3).collect::<Vec<_>>().join("|")).collect()
    };
    assert_eq!(strata(written), strata(table), "docs/security.md: STRATA_WRITE_TABLES=1 makes its table anew");
    if written != table {
        eprintln!("docs/security.md: runc does not do here what the table says of it:\n{table}");
    }
}
