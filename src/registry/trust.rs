//! How far hosts are trusted, for programs other than ours that talk to them, as `git` does.
//!
//! Takes hosts, gives what the settings say of them. Never connects.

use std::path::PathBuf;

use super::Client;
use crate::settings::Host;

/// How one host's certificate is judged, where that is not left to the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// The host, with its port where that is not the usual one.
    pub host: String,
    /// The certificate authorities that count for it, a PEM file.
    pub authorities: Option<PathBuf>,
    /// Whether any certificate will do.
    pub insecure: bool,
}

impl Client {
    /// The hosts of which the settings say whom to trust.
    pub fn trusted(&self) -> Vec<Trust> {
        let hosts = self.transport.settings().registries.iter();
        let trust = hosts.map(|(host, registry)| Trust {
            host: host.to_string(),
            authorities: registry.ca.clone(),
            insecure: registry.insecure,
        });
        trust.filter(|trust| trust.insecure || trust.authorities.is_some()).collect()
    }

    /// Whether a secret may go to a host over plain http: to this machine, and where the settings allow it.
    pub fn may_go_plain(&self, host: &str) -> bool {
        host.parse::<Host>().is_ok_and(|host| host.is_loopback() || self.transport.settings().is_insecure(&host))
    }

    /// Whether a host is this machine, to which no proxy leads.
    pub fn is_this_machine(&self, host: &str) -> bool {
        host.parse::<Host>().is_ok_and(|host| host.is_loopback())
    }
}
