//! Setting up interfaces: messages to the kernel's routing socket, and its answers.
//!
//! Takes indices, addresses and prefixes, gives the bytes of rtnetlink(7) and what the kernel says to them. Knows
//! nothing of sandboxes; acts on the network namespace of the thread that opened the socket.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// The bytes of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A routing socket.
#[derive(Debug)]
pub(super) struct Netlink {
    socket: OwnedFd,
    /// Only an Internet socket can be asked for an interface by its name.
    inet: OwnedFd,
}

impl Netlink {
    /// Opens one in the namespace of the calling thread.
    pub(super) fn open() -> io::Result<Self> {
        let open = |family, kind| socket_with(family, kind, SocketFlags::CLOEXEC, None);
        // Protocol 0 of this family is NETLINK_ROUTE.
        let socket = open(AddressFamily::NETLINK, SocketType::RAW)?;
        Ok(Self { socket, inet: open(AddressFamily::INET, SocketType::DGRAM)? })
    }

    /// The index of an interface.
    pub(super) fn index(&self, name: &str) -> io::Result<u32> {
        Ok(name_to_index(&self.inet, name)?)
    }

    /// Makes a pair of connected interfaces: `name` here, `peer` in the namespace given.
    pub(super) fn add_pair(&self, name: &str, peer: &str, peer_in: impl AsFd, mtu: u32) -> io::Result<()> {
        let namespace = peer_in.as_fd().as_raw_fd().to_ne_bytes();
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        message.bytes.extend(interface(0, 0));
        message.attribute(libc::IFLA_IFNAME, &text(name));
        message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        message.nested(libc::IFLA_LINKINFO, |info| {
            info.attribute(libc::IFLA_INFO_KIND, b"veth");
            info.nested(libc::IFLA_INFO_DATA, |data| {
                data.nested(VETH_INFO_PEER, |other| {
                    other.bytes.extend(interface(0, 0));
                    other.attribute(libc::IFLA_IFNAME, &text(peer));
                    other.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
                    other.attribute(libc::IFLA_NET_NS_FD, &namespace);
                });
            });
        });
        self.ask(message)
    }

    /// Sets an interface up.
    pub(super) fn set_up(&self, index: u32, mtu: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_NEWLINK, 0);
        message.bytes.extend(interface(index, libc::IFF_UP.unsigned_abs()));
        message.attribute(libc::IFLA_MTU, &mtu.to_ne_bytes());
        self.ask(message)
    }

    /// Has the kernel take note of whether there is somebody behind an interface, which it otherwise does at leisure, up
    /// to a second later, and then throws away what waits there. (Kernels before 6.9 do not do it on this request.)
    pub(super) fn settle(&self, index: u32) -> io::Result<()> {
        let mut message = Message::new(libc::RTM_GETLINK, 0);
        message.bytes.extend(interface(index, 0));
        self.send(message)?;
        // The description of the interface comes before the acknowledgement.
        self.answer(&mut [0; 4096])?;
        self.acknowledgement()
    }

    /// Gives an interface an address, valid at once.
    pub(super) fn add_address(&self, index: u32, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let address = address.into();
        let mut message = Message::new(libc::RTM_NEWADDR, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        // Nobody else is on these links, so that looking for another owner of the address would only take time.
        #[expect(clippy::cast_possible_truncation, reason = "the flag is 2")]
        let flags = if address.is_ipv6() { libc::IFA_F_NODAD as u8 } else { 0 };
        message.bytes.extend([family(address), prefix, flags, libc::RT_SCOPE_UNIVERSE]);
        message.bytes.extend(index.to_ne_bytes());
        message.attribute(libc::IFA_LOCAL, &octets(address));
        message.attribute(libc::IFA_ADDRESS, &octets(address));
        self.ask(message)
    }

    /// Sends everything that has no other route to `gateway`, which is taken to be on the link.
    pub(super) fn add_default_route(&self, index: u32, gateway: impl Into<IpAddr>) -> io::Result<()> {
        let gateway = gateway.into();
        let mut message = Message::route(family(gateway), 0, libc::RTN_UNICAST, RTNH_F_ONLINK);
        message.attribute(libc::RTA_OIF, &index.to_ne_bytes());
        message.attribute(libc::RTA_GATEWAY, &octets(gateway));
        self.ask(message)
    }

    /// Lets nothing be forwarded to a range of addresses.
    pub(super) fn refuse(&self, address: impl Into<IpAddr>, prefix: u8) -> io::Result<()> {
        let address = address.into();
        let mut message = Message::route(family(address), prefix, libc::RTN_UNREACHABLE, 0);
        message.attribute(libc::RTA_DST, &octets(address));
        self.ask(message)
    }

    /// Sends a message that the kernel answers with nothing but an acknowledgement.
    fn ask(&self, message: Message) -> io::Result<()> {
        self.send(message)?;
        self.acknowledgement()
    }

    fn send(&self, message: Message) -> io::Result<()> {
        let message = message.finish();
        match send(&self.socket, &message, SendFlags::empty())? {
            length if length == message.len() => Ok(()),
            _ => Err(io::ErrorKind::WriteZero.into()),
        }
    }

    fn acknowledgement(&self) -> io::Result<()> {
        let mut answer = [0; 4096];
        let length = self.answer(&mut answer)?;
        verdict(answer.get(..length).unwrap_or_default())
    }

    /// Reads one answer, as much of it as there is room for; gives its length.
    fn answer(&self, room: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| recv(&self.socket, &mut *room, RecvFlags::empty()))?.0)
    }
}

/// The one attribute of a pair's own, from `linux/veth.h`.
const VETH_INFO_PEER: u16 = 1;
/// The gateway is on the link whatever the addresses say, from `linux/rtnetlink.h`.
const RTNH_F_ONLINK: u32 = 4;

/// What an acknowledgement says: the number of an error, negated, or zero.
fn verdict(answer: &[u8]) -> io::Result<()> {
    let number = answer.get(HEADER..HEADER + 4).and_then(|bytes| bytes.try_into().ok()).map(i32::from_ne_bytes);
    match number {
        Some(0) => Ok(()),
        Some(number) => Err(io::Error::from_raw_os_error(number.saturating_neg())),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// A message being written.
#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// Begins a request that is to be acknowledged.
    fn new(kind: u16, flags: i32) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the flags have 16 bits")]
        let flags = (flags | libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        let mut bytes = vec![0; HEADER];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes[6..8].copy_from_slice(&flags.to_ne_bytes());
        Self { bytes }
    }

    /// Begins a request for a route: `struct rtmsg`.
    fn route(family: u8, prefix: u8, kind: u8, flags: u32) -> Self {
        let mut message = Self::new(libc::RTM_NEWROUTE, libc::NLM_F_CREATE | libc::NLM_F_EXCL);
        let (table, scope) = (libc::RT_TABLE_MAIN, libc::RT_SCOPE_UNIVERSE);
        message.bytes.extend([family, prefix, 0, 0, table, libc::RTPROT_STATIC, scope, kind]);
        message.bytes.extend(flags.to_ne_bytes());
        message
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes.extend(value));
    }

    /// An attribute whose value `fill` writes. Its length leaves out what pads it to four bytes.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.bytes.len() - start).expect("the messages here have a few hundred bytes");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("the messages here have a few hundred bytes");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// `struct ifinfomsg`: the interface and the flags it gets.
fn interface(index: u32, flags: u32) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..].copy_from_slice(&flags.to_ne_bytes());
    bytes
}

fn text(name: &str) -> Vec<u8> {
    [name.as_bytes(), &[0]].concat()
}

fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 2,
        IpAddr::V6(_) => 10,
    }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn attributes_are_padded_and_nest() {
        let mut message = Message::new(libc::RTM_NEWLINK, libc::NLM_F_EXCL);
        message.nested(1, |inner| inner.attribute(2, b"abc"));
        message.attribute(3, b"");
        let bytes = message.finish();
        let number = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        assert_eq!(bytes.len(), 32);
        assert_eq!(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]), 32);
        assert_eq!((number(4), number(6)), (16, 0x205));
        // The outer attribute is padded by the inner one, and counts that.
        assert_eq!((number(16), number(18)), (12, 1));
        assert_eq!((number(20), number(22)), (7, 2));
        assert_eq!(&bytes[24..28], b"abc\0");
        assert_eq!((number(28), number(30)), (4, 3));
    }

    #[test]
    fn the_kernel_s_answers_are_understood() {
        let answer = |number: i32| [vec![0; HEADER], number.to_ne_bytes().to_vec()].concat();
        assert!(verdict(&answer(0)).is_ok());
        assert_eq!(verdict(&answer(-libc::EEXIST)).unwrap_err().raw_os_error(), Some(libc::EEXIST));
        assert!(verdict(&answer(i32::MIN)).is_err());
        assert!(verdict(&[]).is_err());
        // Needs no rights: whatever the kernel says, it says it.
        let refused = Netlink::open().unwrap().add_address(u32::MAX, Ipv4Addr::LOCALHOST, 8).unwrap_err();
        assert!(matches!(refused.raw_os_error(), Some(libc::EPERM | libc::ENODEV)), "{refused}");
    }
}
