//! Whether a registry can be talked to at all: what `strata doctor` asks.
//!
//! Takes a host, gives for it and each of its mirrors whether something there speaks the distribution protocol. Asks
//! each once and sends no credentials: being refused without them is an answer, too.

use super::address::Source;
use super::error::{Error, Item, Target};
use super::transport::Call;
use super::{Client, more_telling};
use crate::settings::Host;

/// What one host said.
#[derive(Debug)]
pub struct Reached {
    /// The host.
    pub host: Host,
    /// Whether it stands in for the registry asked for.
    pub is_mirror: bool,
    /// Nothing, if it answered as a registry does.
    pub outcome: Result<(), Error>,
}

impl Client {
    /// Asks a registry and its mirrors, in the order in which a build would, for the base of the protocol
    /// (distribution-spec, end-1).
    pub fn reach(&self, registry: &Host) -> Vec<Reached> {
        let sources = Source::all(self.transport.settings(), registry);
        let reached = |source: Source| {
            let outcome = self.greet(&source);
            Reached { host: source.host, is_mirror: source.is_mirror, outcome }
        };
        sources.into_iter().map(reached).collect()
    }

    fn greet(&self, source: &Source) -> Result<(), Error> {
        let mut failure = None;
        for scheme in &source.schemes {
            let address = source.base(*scheme).map_err(|text| Error::Address { text })?;
            let item = Item::Address(address.to_string());
            let target = Target { registry: source.host.to_string(), repository: String::new(), item };
            let answer = self.transport.send(&Call::get(address, "*/*", &target)).and_then(|reply| {
                // 401 asks for credentials, 429 for patience: both are a registry's way to say that it is there.
                if matches!(reply.status.as_u16(), 401 | 429) { Ok(reply) } else { reply.success() }
            });
            failure = Some(match (answer, failure) {
                (Ok(reply), _) => {
                    reply.drain();
                    return Ok(());
                }
                (answer, None) => answer,
                (answer, Some(earlier)) => more_telling(earlier, answer),
            });
        }
        failure.unwrap_or_else(|| Err(Error::Address { text: source.host.to_string() })).map(|_| ())
    }
}
