//! The network namespaces of a build: one that its steps are in, and a router between that and `pasta`.
//!
//! ```text
//! steps: eth0 ── step ┃ router ┃ pasta ── pasta ── sockets on the host
//! ```
//!
//! For the steps everything is ready as soon as it is made, whether `pasta` is there yet or not: what they send waits
//! for the router's link-layer address, which the router gives only when `pasta` is there ([`connect`]).
//!
//! The router is what keeps a step from the host's own loopback. `pasta` connects to whatever address a packet names,
//! older versions (Debian 12's) to `127.0.0.1` too, and a program can send a packet with that address out through any
//! interface (`SO_BINDTODEVICE`, raw sockets); a kernel that *forwards* throws it away.
//!
//! Only the router belongs to a user namespace of its own, in which `pasta` may do as it likes. The steps' namespace
//! belongs to that of the caller: the kernel gives whoever has made a user namespace every capability in it, by user id
//! alone, and the root of a step has the caller's. In a namespace below, a step would have `CAP_NET_ADMIN` after all.
//!
//! Gives descriptors; when the last one is closed, the kernel takes everything down. Touches no namespace of anyone
//! else's, and needs no privilege beyond the user namespace that the caller is root in.

use std::fs::{self, File};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Signal;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::netlink::Netlink;
use super::{Families, Unavailable};
use crate::runtime::sys::{self, EndSignal, Namespaces, SignalsBlocked};
use crate::runtime::userns;

/// What makes interfaces that a program is behind.
pub(super) const TUN: &str = "/dev/net/tun";
/// The router's interface that `pasta` is behind.
pub(super) const TAP: &str = "pasta";
/// The router's address on the side of `pasta`. Nobody outside sees any of these: they were chosen to be rare.
pub(super) const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(10, 87, 143, 5);
/// Where `pasta` takes questions for the host's resolver, if no other resolver can be reached.
pub(super) const RESOLVER: Ipv4Addr = Ipv4Addr::new(10, 87, 143, 6);
/// The steps' address.
pub(super) const STEP_V4: Ipv4Addr = Ipv4Addr::new(10, 87, 143, 2);
/// The steps' address, unique-local, so that programs prefer version 4 where a name has both.
pub(super) const STEP_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x7472, 0x6174, 0x61, 0, 0, 0, 2);
/// What `pasta` answers to.
pub(super) const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1);

/// The router's addresses on the side of the steps.
const ROUTER_V4: Ipv4Addr = Ipv4Addr::new(10, 87, 143, 1);
const ROUTER_V6: Ipv6Addr = Ipv6Addr::new(0xfd73, 0x7472, 0x6174, 0x61, 0, 0, 0, 1);
/// The router's link-local address on the side of `pasta`.
const ROUTER_LINK_V6: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 2);
/// IPv4 addresses written as IPv6, which a socket of the host's would take for what they stand for.
const MAPPED: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0);
/// The largest packet that `pasta` takes: nothing has to be small, since nothing here crosses a wire.
pub(super) const MTU: u32 = 65520;
/// `nobody`, who owns nothing.
const NOBODY: u32 = 65534;

/// The namespaces.
#[derive(Debug)]
pub(super) struct Wired {
    /// The one of the steps.
    pub step: OwnedFd,
    /// The one that `pasta` is to serve.
    pub router: OwnedFd,
    /// The user namespace that owns the router: all that `pasta` has rights in.
    pub owner: OwnedFd,
}

/// What of it `pasta` gets.
#[derive(Debug)]
struct Router {
    network: OwnedFd,
    owner: OwnedFd,
}

/// Makes the namespaces and what is in them.
pub(super) fn make(families: Families) -> Result<Wired, Unavailable> {
    let making = |source| Unavailable::Setup { action: "make namespaces for", source };
    let wiring = |source| Unavailable::Setup { action: "set up the interfaces of", source };
    let Router { network: router, owner } = hold().map_err(making)?;
    let work = || {
        let step = leave_for_new().map_err(making)?;
        enter(&router).map_err(wiring)?;
        // An interface belongs to the namespace in which this was opened.
        let tun = File::options().read(true).write(true).open(TUN).map_err(|source| Unavailable::Tun { source })?;
        wire_router(tun, &step, families).map_err(wiring)?;
        enter(&step).map_err(wiring)?;
        wire_step(families).map_err(wiring)?;
        Ok(step)
    };
    let step = on_its_own_thread(work).map_err(making)??;
    Ok(Wired { step, router, owner })
}

/// Runs `work` on a thread that ends with it: one that has entered a namespace can in general not go back.
///
/// The outer error is that there is no such thread.
fn on_its_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("namespace".to_owned()).spawn_scoped(scope, work)?;
        Ok(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    })
}

/// Takes the calling thread into a new network namespace of the caller's own user namespace.
fn leave_for_new() -> io::Result<OwnedFd> {
    sys::unshare(Namespaces::NETWORK)?;
    File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
}

/// A network namespace in a new user namespace. They come from a process that waits until they are in hand.
fn hold() -> io::Result<Router> {
    let (go_reader, go) = pipe_with(PipeFlags::CLOEXEC)?;
    let holder = {
        let _blocked = SignalsBlocked::new()?;
        sys::clone3(Namespaces::USER.and(Namespaces::NETWORK), EndSignal::None, || {
            i32::from(be_held(&go, &go_reader).is_err())
        })?
    };
    drop(go_reader);
    let process = format!("/proc/{}", holder.pid.as_raw_pid());
    let collect = || {
        let outside = outside_id();
        for map in ["uid_map", "gid_map"] {
            fs::write(format!("{process}/{map}"), format!("0 {outside} 1"))?;
        }
        let namespace = |name: &str| File::open(format!("{process}/ns/{name}")).map(OwnedFd::from);
        Ok(Router { network: namespace("net")?, owner: namespace("user")? })
    };
    let router = collect();
    // The end of the pipe is the holder's, too.
    drop(go);
    sys::wait(&holder.pidfd)?;
    router
}

/// The process that [`hold`] takes the namespaces from. Allocates nothing.
fn be_held(go: &OwnedFd, go_reader: &OwnedFd) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // Otherwise the pipe would never end.
    let own = go.as_raw_fd().unsigned_abs();
    sys::close_range(own, own)?;
    rustix::io::retry_on_intr(|| rustix::io::read(go_reader, &mut [0]))?;
    Ok(())
}

/// Whose rights outside `pasta` has: nobody's, unless only root may open [`TUN`].
fn outside_id() -> u32 {
    let open_to_all = fs::metadata(TUN).is_ok_and(|device| device.mode() & 0o006 == 0o006);
    if !userns::inside() && open_to_all { NOBODY } else { 0 }
}

/// Lets packets of the steps into the router, now that `pasta` is there to take them.
///
/// Until now they waited on the steps' side: the router itself would throw away what waits for `pasta` at the moment
/// that `pasta` takes its place.
pub(super) fn connect(wired: &Wired, families: Families) -> io::Result<()> {
    let work = || {
        enter(&wired.router)?;
        let netlink = Netlink::open()?;
        let index = netlink.index("step")?;
        netlink.set_up(index, MTU)?;
        if families.v4 {
            netlink.add_address(index, ROUTER_V4, 30)?;
        }
        if families.v6 {
            netlink.add_address(index, ROUTER_V6, 64)?;
        }
        netlink.settle(index)
    };
    on_its_own_thread(work)?
}

fn enter(namespace: &OwnedFd) -> io::Result<()> {
    Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
}

/// All of the router but its interface to the steps, which stays down.
fn wire_router(tun: File, step: &OwnedFd, families: Families) -> io::Result<()> {
    sys::persistent_tap(&tun, TAP)?;
    drop(tun);
    let netlink = Netlink::open()?;
    netlink.add_pair("step", "eth0", step, MTU)?;
    let outer = netlink.index(TAP)?;
    if families.v4 {
        set("ipv4/ip_forward", "1")?;
        ask_often("ipv4", "step")?;
        ask_often("ipv4", TAP)?;
    }
    if families.v6 {
        set("ipv6/conf/all/forwarding", "1")?;
        ask_often("ipv6", "step")?;
        ask_often("ipv6", TAP)?;
    }
    // Before there is a single address, the kernel takes any gateway for one that cannot be.
    netlink.set_up(netlink.index("lo")?, 65536)?;
    netlink.set_up(outer, MTU)?;
    if families.v4 {
        netlink.add_default_route(outer, GATEWAY_V4)?;
    }
    if families.v6 {
        netlink.add_address(outer, ROUTER_LINK_V6, 64)?;
        netlink.add_default_route(outer, GATEWAY_V6)?;
        netlink.refuse(MAPPED, 96)?;
    }
    Ok(())
}

/// Has whoever is behind an interface be asked for their link-layer address every 20 ms, for half a minute, and not every
/// second for three. Packets wait meanwhile: those of the steps for the router, and so for `pasta`.
fn ask_often(family: &str, interface: &str) -> io::Result<()> {
    set(&format!("{family}/neigh/{interface}/retrans_time_ms"), "20")?;
    set(&format!("{family}/neigh/{interface}/mcast_solicit"), "1500")
}

fn wire_step(families: Families) -> io::Result<()> {
    let netlink = Netlink::open()?;
    let index = netlink.index("eth0")?;
    netlink.set_up(netlink.index("lo")?, 65536)?;
    netlink.set_up(index, MTU)?;
    netlink.settle(index)?;
    if families.v4 {
        ask_often("ipv4", "eth0")?;
        netlink.add_address(index, STEP_V4, 30)?;
        netlink.add_default_route(index, ROUTER_V4)?;
    }
    if families.v6 {
        ask_often("ipv6", "eth0")?;
        netlink.add_address(index, STEP_V6, 64)?;
        netlink.add_default_route(index, ROUTER_V6)?;
    }
    Ok(())
}

/// Sets a setting of the calling thread's network namespace.
fn set(name: &str, value: &str) -> io::Result<()> {
    let path = format!("/proc/sys/net/{name}");
    fs::write(&path, value).map_err(|error| io::Error::new(error.kind(), format!("{path}: {error}")))
}
