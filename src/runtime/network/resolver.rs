//! `/etc/resolv.conf` for a network namespace other than the host's.
//!
//! Takes the host's resolver configuration, gives one whose resolvers can be reached from elsewhere: those on the
//! host's loopback are left out, and if none is left, `pasta` is asked to stand in. Never invents a public resolver.

use std::net::{IpAddr, Ipv4Addr};

/// A resolver configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolver {
    /// The text of the file.
    pub text: String,
    /// Whether it names the address that `pasta` is to answer at.
    pub forwarded: bool,
}

/// Makes the configuration from the host's `/etc/resolv.conf` and, should all in there be on loopback, from the list of
/// the resolvers behind (`systemd-resolved` keeps one). `stand_in` is the address at which `pasta` can answer.
pub(super) fn resolver(host: &str, behind: Option<&str>, stand_in: Ipv4Addr) -> Resolver {
    let usable = |text: &str| text.lines().any(|line| nameserver(line).is_some_and(is_reachable));
    let forwarded = !usable(host) && !behind.is_some_and(usable);
    let source = if usable(host) { host } else { behind.filter(|text| usable(text)).unwrap_or(host) };
    let kept = source.lines().filter(|line| !is_nameserver(line) || nameserver(line).is_some_and(is_reachable));
    let mut text: String = kept.map(|line| format!("{line}\n")).collect();
    if forwarded {
        text.push_str(&format!("nameserver {stand_in}\n"));
    }
    Resolver { text, forwarded }
}

fn is_nameserver(line: &str) -> bool {
    line.split_whitespace().next() == Some("nameserver")
}

/// The address that a line names. One with a zone (`fe80::1%eth0`) belongs to an interface of the host's.
fn nameserver(line: &str) -> Option<IpAddr> {
    let mut words = line.split_whitespace();
    (words.next()? == "nameserver").then_some(())?;
    words.next()?.parse().ok()
}

fn is_reachable(address: IpAddr) -> bool {
    let link_local = matches!(address, IpAddr::V6(address) if address.is_unicast_link_local());
    !(address.is_loopback() || address.is_unspecified() || link_local)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn resolvers_on_loopback_are_replaced() {
        let stand_in = Ipv4Addr::new(10, 0, 0, 6);
        for (host, behind, expected, forwarded) in [
            ("nameserver 10.1.1.1\nsearch lan\n", None, "nameserver 10.1.1.1\nsearch lan\n", false),
            ("nameserver 127.0.0.1\nnameserver 10.1.1.1", None, "nameserver 10.1.1.1\n", false),
            ("nameserver 127.0.0.53\noptions edns0\n", None, "options edns0\nnameserver 10.0.0.6\n", true),
            (
                "nameserver 127.0.0.53\n",
                Some("nameserver 9.9.9.9\nsearch x\n"),
                "nameserver 9.9.9.9\nsearch x\n",
                false,
            ),
            ("nameserver 127.0.0.53\n", Some("# none\n"), "nameserver 10.0.0.6\n", true),
            ("nameserver fe80::1%eth0\nnameserver ::1\n", None, "nameserver 10.0.0.6\n", true),
            ("nameserver fd00::53\n", Some("nameserver 9.9.9.9\n"), "nameserver fd00::53\n", false),
            ("", None, "nameserver 10.0.0.6\n", true),
        ] {
            let expected = Resolver { text: expected.to_owned(), forwarded };
            assert_eq!(resolver(host, behind, stand_in), expected, "{host:?}");
        }
    }
}
