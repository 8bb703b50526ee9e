//! What a sandbox costs: a whole run of a program that does nothing; beside it what the kernel alone takes for such
//! namespaces, an overlay and the program; and the program without any of it.
//!
//! Needs root or an unprivileged user namespace, and a static busybox at `/bin/busybox`.
#![allow(
    missing_docs,
    unsafe_code,
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a benchmark, not an interface"
)]

use std::ffi::CString;
use std::io;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use strata::limits::{Limits, Pids};
use strata::runtime::network::{PrivateNetwork, Program};
use strata::runtime::{Cancel, Identity, Network, Overlaid, Plan, run, userns};

const BUSYBOX: &str = "/bin/busybox";

fn plan(base: &Path, scratch: &Path, network: Network, limits: Limits) -> Plan {
    let strings = |items: &[&str]| items.iter().map(|item| CString::new(*item).unwrap()).collect();
    let file = |target: &str| Overlaid {
        target: target.into(),
        content: b"127.0.0.1 localhost\n".to_vec(),
        mode: 0o644,
        writable: false,
    };
    let (upper, work) = (scratch.join("upper"), scratch.join("work"));
    std::fs::create_dir(&upper).unwrap();
    std::fs::create_dir(&work).unwrap();
    Plan {
        lowers: vec![base.to_owned()],
        upper,
        work,
        userxattr: userns::inside(),
        argv: strings(&["/bin/busybox", "true"]),
        env: strings(&["PATH=/bin"]),
        cwd: "/".into(),
        identity: Identity::default(),
        hostname: "sandbox".to_owned(),
        overlaid: vec![file("/etc/hosts"), file("/etc/resolv.conf"), file("/etc/hostname")],
        network,
        mounts: Vec::new(),
        security: strata::runtime::Security::Sandbox,
        limits,
    }
}

/// The program in an overlay and namespaces (the pid namespace's is another process, which is left out), and nothing that
/// makes a sandbox of it.
fn bare(base: &Path, scratch: &Path) {
    let [upper, work, root] = ["upper", "work", "root"].map(|name| scratch.join(name));
    for directory in [&upper, &work, &root] {
        std::fs::create_dir(directory).unwrap();
    }
    let user = if userns::inside() { ",userxattr" } else { "" };
    let options = format!("lowerdir={},upperdir={},workdir={}{user}", base.display(), upper.display(), work.display());
    mount("overlay", &root, "overlay", MountFlags::empty(), &*CString::new(options).unwrap()).unwrap();
    let mut command = Command::new("/bin/busybox");
    let inside = CString::new(root.to_str().unwrap()).unwrap();
    let namespaces =
        libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    // SAFETY: two system calls with memory that was allocated before the fork.
    unsafe {
        command.arg("true").pre_exec(move || {
            match libc::unshare(namespaces) == 0 && libc::chroot(inside.as_ptr()) == 0 {
                true => Ok(()),
                false => Err(io::Error::last_os_error()),
            }
        });
    }
    assert!(command.status().unwrap().success());
    unmount(&root, UnmountFlags::empty()).unwrap();
}

fn no_op(criterion: &mut Criterion) {
    if userns::needed() {
        userns::enter().unwrap();
    }
    let dir = tempfile::tempdir().unwrap();
    let base = dir.path().join("base");
    std::fs::create_dir_all(base.join("bin")).unwrap();
    std::fs::copy(BUSYBOX, base.join("bin/busybox")).unwrap();
    let mut group = criterion.benchmark_group("sandbox");
    let limited = Limits { memory: Some(1 << 30), pids: Some(Pids::Most(100)), ..Limits::default() };
    let mut cases =
        vec![("host-network", Network::Host, Limits::default()), ("no-network", Network::None, Limits::default())];
    // Rootless, limits take a control group that somebody delegated.
    if !userns::inside() {
        cases.push(("limited", Network::Host, limited));
    }
    let private = PrivateNetwork::new(Program::InPath);
    match private.namespace() {
        Ok(namespace) => cases.push(("private-network", Network::Shared(namespace), Limits::default())),
        Err(reason) => eprintln!("not measured: a private network, because {reason}"),
    }
    for (name, network, limits) in cases {
        group.bench_function(name, |bencher| {
            bencher.iter_batched(
                || {
                    let scratch = tempfile::tempdir_in(dir.path()).unwrap();
                    (plan(&base, scratch.path(), network.clone(), limits.clone()), scratch)
                },
                |(plan, scratch)| {
                    run(&plan, &|_, _| (), &Cancel::new()).unwrap();
                    scratch
                },
                BatchSize::PerIteration,
            );
        });
    }
    group.bench_function("kernel", |bencher| {
        bencher.iter_batched(
            || tempfile::tempdir_in(dir.path()).unwrap(),
            |scratch| {
                bare(&base, scratch.path());
                scratch
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("without", |bencher| {
        bencher.iter(|| Command::new(BUSYBOX).arg("true").status().unwrap());
    });
    group.finish();
}

criterion_group!(benches, no_op);
criterion_main!(benches);
