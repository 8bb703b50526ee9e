//! The network of each step, and the files in `/etc` that go with it.
//!
//! Takes what a step asks for, gives what the sandbox is told. A step that asks for nothing in particular gets the
//! build's private network; where there is none it gets the host's, and that is said once. Where there was one and it
//! broke, steps stay in it: what a step may have brought about must not lead to a network with more in it.

use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Error;
use crate::progress::Reporter;
use crate::recipe;
use crate::runtime::network::{PrivateNetwork, Program, Unavailable};
use crate::runtime::{Network, Overlaid};

/// The name a step's host goes by unless it is given another; the same everywhere, because it can end up in a layer. It is BuildKit's.
pub(super) const HOSTNAME: &str = "buildkitsandbox";

/// The networks of one build's steps.
#[derive(Debug)]
pub struct Networks {
    private: PrivateNetwork,
    told: AtomicBool,
}

impl Networks {
    /// Networks of which the private one, if a step asks for it, is made with this program.
    pub fn new(program: Program) -> Self {
        Self { private: PrivateNetwork::new(program), told: AtomicBool::new(false) }
    }

    /// Begins to make the network that a step asks for, while the step is got ready.
    pub(super) fn begin(&self, asked: recipe::Network) {
        if asked == recipe::Network::Default {
            self.private.begin();
        }
    }

    /// The network for a step.
    pub(super) fn network(&self, asked: recipe::Network, reporter: &Reporter) -> Network {
        match asked {
            recipe::Network::None => Network::None,
            recipe::Network::Host => Network::Host,
            recipe::Network::Default => match self.private.namespace() {
                Ok(namespace) => Network::Shared(namespace),
                Err(reason) => {
                    self.tell(&reason, reporter);
                    Network::Host
                }
            },
        }
    }

    /// Looks, after a step, whether its network held.
    pub(super) fn check(&self, network: &Network, reporter: &Reporter) {
        if !matches!(network, Network::Shared(_)) {
            return;
        }
        if let Some(reason) = self.private.broken() {
            self.warn_once(reporter, || {
                format!("the private network of this build broke; from here on, nothing leads out of it: {reason}")
            });
        } else if let Err(reason) = self.private.namespace() {
            self.tell(&reason, reporter);
        }
    }

    /// Ends the private network, if there is one: no step follows. Does not wait for its end.
    pub fn end(&self) {
        self.private.end();
    }

    fn tell(&self, reason: &Unavailable, reporter: &Reporter) {
        // Who turned it off knows.
        if !matches!(reason, Unavailable::Off) {
            self.warn_once(reporter, || format!("steps use the host's network, not one of their own: {reason}"));
        }
    }

    fn warn_once(&self, reporter: &Reporter, text: impl FnOnce() -> String) {
        if !self.told.swap(true, Ordering::Relaxed) {
            reporter.warning(text());
        }
    }
}

/// `/etc/hosts` and `/etc/resolv.conf` as a step sees them, with the names that the user adds.
pub(super) fn files(network: &Network, hostname: &str, added: &[(String, IpAddr)]) -> Result<[Overlaid; 2], Error> {
    let file = |target: &str, content: String| Overlaid {
        target: target.into(),
        content: content.into(),
        mode: 0o644,
        writable: false,
    };
    let known = match network {
        Network::Host => format!("{}127.0.0.1\t{hostname}\n", read_or_empty("/etc/hosts")?),
        // What the host calls its own addresses means nothing in another network.
        Network::Shared(_) | Network::None => {
            format!("127.0.0.1\tlocalhost {hostname}\n::1\tlocalhost ip6-localhost ip6-loopback\n")
        }
    };
    let resolv_conf = match network {
        Network::Shared(namespace) => namespace.resolv_conf().to_owned(),
        Network::Host | Network::None => read_or_empty("/etc/resolv.conf")?,
    };
    // Of several lines for a name the first counts, so those of the user come first.
    let added: String = added.iter().map(|(name, address)| format!("{address}\t{name}\n")).collect();
    Ok([file("/etc/hosts", added + &known), file("/etc/resolv.conf", resolv_conf)])
}

fn read_or_empty(path: &str) -> Result<String, Error> {
    match std::fs::read(path) {
        Ok(bytes) => {
            let mut text = String::from_utf8_lossy(&bytes).into_owned();
            if !text.is_empty() && !text.ends_with('\n') {
                text.push('\n');
            }
            Ok(text)
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        Err(source) => Err(Error::Host { path: Path::new(path).to_owned(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_a_network_of_its_own_are_not_the_host_s() {
        let added = [("added".to_owned(), IpAddr::from([10, 1, 2, 3]))];
        let [hosts, _] = files(&Network::None, HOSTNAME, &added).unwrap();
        assert_eq!(
            String::from_utf8_lossy(&hosts.content),
            "10.1.2.3\tadded\n127.0.0.1\tlocalhost buildkitsandbox\n::1\tlocalhost ip6-localhost ip6-loopback\n"
        );
        let [hosts, _] = files(&Network::Host, HOSTNAME, &added).unwrap();
        let text = String::from_utf8_lossy(&hosts.content).into_owned();
        assert!(text.starts_with("10.1.2.3\tadded\n") && text.ends_with("127.0.0.1\tbuildkitsandbox\n"), "{text}");
    }
}
