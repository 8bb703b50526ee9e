//! The networks that steps see: what they reach, what they do not, and what is left.
//!
//! The servers they look for are the test's own, on the machine's address and on its loopback. A private network takes
//! `pasta`, a way out of the machine and `/dev/net/tun` open to the user; where one is missing, its tests are skipped.

use std::fs;
use std::io::Write;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;

use crate::registry::shared;
use crate::rootless::{RANGES, SINGLE, user};
use crate::skip::skip;
use crate::workspace::{Who, Workspace};

/// Everybody who can have a private network here.
pub(crate) fn everybody(what: &str) -> Vec<Who> {
    let missing = if !Path::new("/usr/bin/pasta").exists() {
        Some("pasta is not installed; `scripts/setup` installs it")
    } else if own_address().is_none() {
        Some("this machine has no default route")
    } else {
        None
    };
    if let Some(reason) = missing {
        skip(what, reason);
        return Vec::new();
    }
    let mut all = vec![Who::Caller];
    let mode = fs::metadata("/dev/net/tun").map_or(0, |found| found.permissions().mode());
    if mode & 0o006 == 0o006 {
        all.extend([RANGES, SINGLE].into_iter().filter_map(|name| user(name, what)));
    } else {
        skip(what, "/dev/net/tun is not open to users; `scripts/setup --user` opens it");
    }
    all
}

/// The address that this machine goes out with.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("198.51.100.1:9").ok()?;
    Some(socket.local_addr().ok()?.ip())
}

/// A server that greets everyone who connects; gives its port.
fn greeter(address: IpAddr) -> u16 {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().filter_map(Result::ok) {
            let _ = stream.write_all(b"greetings\n");
        }
    });
    port
}

/// Lets `nobody`, as whom root runs `pasta`, into the workspace.
pub(crate) fn open(workspace: &Workspace) {
    fs::set_permissions(workspace.path(), fs::Permissions::from_mode(0o755)).unwrap();
}

fn build(workspace: &Workspace, recipe: &str) -> crate::workspace::Finished {
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\n{recipe}\n"));
    workspace.build([shared().base_argument()]).run()
}

#[test]
fn a_step_reaches_the_machine_s_address_but_not_its_loopback() {
    let loopback = greeter([127, 0, 0, 1].into());
    for who in everybody("network: what a step reaches") {
        let address = own_address().unwrap();
        let outside = greeter(address);
        let workspace = Workspace::of(who);
        // From the first instruction on, whether `pasta` is there yet or not. (The program must not end its side first:
        // Debian 12's `pasta` then repeats what the server has said, for ever.)
        let recipe = format!("RUN sleep 1 | nc -w 20 {address} {outside}; ! nc -w 2 127.0.0.1 {loopback} </dev/null");
        let built = build(&workspace, &recipe).success();
        assert_eq!(built.count(" greetings"), 1, "{}", built.describe());
        assert_eq!(built.count("host's network"), 0, "{}", built.describe());
        workspace.assert_nothing_left();
        // Under the address of the router and that of `pasta` there is no way to the loopback either.
        let recipe =
            format!("RUN for a in 1 5 6; do ! nc -w 1 10.87.143.$a {loopback} </dev/null | grep gree || exit 1; done");
        build(&workspace, &recipe).success();
    }
}

#[test]
fn packets_for_loopback_do_not_leave_a_step() {
    for who in everybody("network: packets for loopback") {
        let own = own_address().unwrap();
        let bind = |address: IpAddr| UdpSocket::bind((address, 0)).unwrap();
        let (inside, outside) = (bind([127, 0, 0, 1].into()), bind(own));
        let workspace = Workspace::of(who);
        // The ports tried are those around the one meant. For loopback an interface is given, so that the kernel does
        // not take the packet to the step's own; the other shows that this program's packets do get out.
        let probe = |to: &UdpSocket, more: &str| {
            let address = to.local_addr().unwrap();
            format!("traceroute -n {more} -q 3 -w 1 -f 9 -m 9 -p {} {}", address.port() - 2, address.ip())
        };
        build(&workspace, &format!("RUN {} && {}", probe(&inside, "-i eth0"), probe(&outside, ""))).success();
        let arrived = |socket: &UdpSocket| {
            socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
            socket.recv(&mut [0; 64]).is_ok()
        };
        assert!(arrived(&outside), "no packet came to the machine's address");
        assert!(!arrived(&inside), "a packet came through to the host's loopback");
    }
}

#[test]
fn a_step_sees_only_its_own_interfaces() {
    for who in everybody("network: interfaces") {
        let workspace = Workspace::of(who);
        let built = build(
            &workspace,
            "RUN echo sees:$(ls /sys/class/net | tr '\\n' ' ') && cat /etc/hosts && cat /etc/resolv.conf && \
             grep -q '^nameserver' /etc/resolv.conf && ! grep -q '^nameserver 127' /etc/resolv.conf\n\
             RUN --network=none echo none:$(ls /sys/class/net | tr '\\n' ' ') && nc -l -p 7777 & sleep 1; \
             echo hello | nc -w 5 127.0.0.1 7777",
        )
        .success();
        assert!(built.stderr.contains("sees:eth0 lo"), "{}", built.describe());
        assert!(built.stderr.contains("none:lo"), "{}", built.describe());
        assert!(built.stderr.contains("127.0.0.1\tlocalhost"), "{}", built.describe());
        workspace.assert_nothing_left();
    }
}

#[test]
fn the_host_s_network_is_there_for_those_who_ask() {
    let loopback = greeter([127, 0, 0, 1].into());
    let workspace = Workspace::new();
    workspace
        .dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN --network=host nc -w 5 127.0.0.1 {loopback} </dev/null\n"));
    let arguments = |more: &str| vec![more.to_owned(), shared().base_argument()];
    let allowed = workspace.build(arguments("--allow=network.host")).run().success();
    assert_eq!(allowed.count(" greetings"), 1, "{}", allowed.describe());
    workspace
        .dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\nRUN nc -w 5 127.0.0.1 {loopback} </dev/null; echo again\n"));
    let whole = workspace.build(arguments("--network=host")).run().success();
    assert_eq!(whole.count(" greetings"), 1, "{}", whole.describe());
}

#[test]
fn without_pasta_steps_get_the_host_s_network_and_that_is_said_once() {
    let loopback = greeter([127, 0, 0, 1].into());
    let workspace = Workspace::new();
    let recipe =
        format!("RUN nc -w 5 127.0.0.1 {loopback} </dev/null\nRUN nc -w 5 127.0.0.1 {loopback} </dev/null; true");
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\n{recipe}\n"));
    // A PATH with all that a build needs but `pasta`.
    let programs = workspace.path().join("programs");
    fs::create_dir(&programs).unwrap();
    for name in ["newuidmap", "newgidmap", "git"] {
        symlink(Path::new("/usr/bin").join(name), programs.join(name)).unwrap();
    }
    let build = || workspace.build([shared().base_argument(), "--no-cache".to_owned()]);
    let without = build().env("PATH", &programs).run().success();
    assert_eq!(without.count(" greetings"), 2, "{}", without.describe());
    assert_eq!(without.count("pasta is not installed"), 1, "{}", without.describe());
    assert!(without.stderr.contains("passt"), "{}", without.describe());
    // What was asked for needs no warning.
    let off = build().env("STRATA_PASTA", "off").run().success();
    assert_eq!((off.count(" greetings"), off.count("host's network")), (2, 0), "{}", off.describe());
    fs::write(workspace.path().join("config.toml"), "[network]\npasta = \"off\"\n").unwrap();
    let off = build().run().success();
    assert_eq!((off.count(" greetings"), off.count("host's network")), (2, 0), "{}", off.describe());
    // One that fails is said, with its own words.
    open(&workspace);
    let broken = programs.join("broken");
    fs::write(&broken, "#!/bin/sh\necho no luck today >&2\nexit 1\n").unwrap();
    fs::set_permissions(&broken, fs::Permissions::from_mode(0o755)).unwrap();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN sleep 1\nRUN sleep 0.1\n");
    let failed = build().env("STRATA_PASTA", &broken).run().success();
    assert!(failed.count("no luck today") == 1 || failed.count("cannot be opened") == 1, "{}", failed.describe());
    workspace.assert_nothing_left();
}

#[test]
fn steps_of_a_build_share_a_network() {
    for who in everybody("network: shared by steps") {
        let workspace = Workspace::of(who);
        workspace.dockerfile(
            "ARG BASE\nFROM ${BASE} AS server\nRUN echo from the other step | nc -w 60 -l -p 7070 && echo served >/served\n\
             FROM ${BASE} AS client\nRUN until nc -w 1 127.0.0.1 7070 </dev/null >/heard; do sleep 0.1; done\n\
             FROM scratch\nCOPY --from=server /served /\nCOPY --from=client /heard /\n",
        );
        workspace.build([shared().base_argument(), workspace.layout_output("image")]).run().success();
        assert_eq!(crate::layout::read(&workspace.out("image")).text("heard"), "from the other step\n");
    }
}

#[test]
fn pasta_ends_with_the_build_however_that_ends() {
    for who in everybody("network: the end of pasta") {
        // A copy that no other test runs.
        for end in [None, Some(Signal::TERM), Some(Signal::KILL)] {
            let workspace = Workspace::of(who.clone());
            let pasta = workspace.path().join("pasta");
            fs::copy("/usr/bin/pasta", &pasta).unwrap();
            open(&workspace);
            workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo be-gun | tr -d - ; sleep 5\n");
            let mut running =
                workspace.build([shared().base_argument()]).env("STRATA_PASTA", pasta.as_os_str()).start();
            running.wait_for("begun");
            match end {
                None => drop(running.wait().success()),
                Some(signal) => {
                    running.signal(signal);
                    running.wait();
                }
            }
            workspace.assert_nothing_left();
            assert!(!is_running(&pasta), "pasta outlived its build, which {end:?} ended");
        }
    }
}

/// Whether a process of this program is there; what was killed is given a moment to go.
pub(crate) fn is_running(program: &Path) -> bool {
    let named = || {
        let mut processes = fs::read_dir("/proc").unwrap().filter_map(Result::ok);
        processes.any(|process| fs::read_link(process.path().join("exe")).is_ok_and(|exe| exe == program))
    };
    (0..50).all(|_| {
        std::thread::sleep(Duration::from_millis(100));
        named()
    })
}
