//! The distribution protocol (OCI distribution-spec 1.1): images as registries hold them.
//!
//! Takes a reference, gives its manifest and configuration now ([`Client::resolve`]) and the bytes of a layer only when
//! asked ([`Client::fetch_blob`]). Whatever comes is checked against the digest that names it, so it does not matter which
//! host sent it: mirrors are asked first, broken transfers are taken up where they broke. Never writes a file, never keeps
//! a credential beyond the process, and never hands on bytes that nobody asked for.
//!
//! The way of one question: [`Client`] picks the host (`address`) and asks with what the host wants to see (`auth`,
//! `credential`) over a connection (`transport`), again after a wait if that may help (`retry`).

mod address;
mod auth;
mod blob;
mod credential;
mod download;
mod error;
mod reach;
mod resolve;
mod retry;
#[cfg(test)]
mod tests;
mod transport;
mod trust;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

use ureq::http::Method;

pub use self::credential::{Credential, CredentialFiles};
pub use self::download::{Download, Validators};
pub use self::error::{Error, Item, LoginOrigin, Phase, Said, Target, Withheld};
pub use self::reach::Reached;
pub use self::resolve::{Documents, NoDocuments, Resolved};
pub use self::trust::Trust;

use self::address::{Scheme, Source};
use self::auth::{Authenticator, Demand};
use self::retry::Patience;
use self::transport::{Call, Reply, Transport};
use crate::recipe::reference::Reference;
use crate::settings::{Host, Settings};

/// Asks registries. Cheap to make, shared by threads, one for each build: [`Self::cancel`] ends all it does.
#[derive(Debug)]
pub struct Client {
    transport: Transport,
    authenticator: Authenticator,
    /// How the hosts that may be asked in two ways answered.
    schemes: Mutex<HashMap<Host, Scheme>>,
    /// Mirrors that could not be reached, or sent something wrong.
    discredited: Mutex<HashSet<Host>>,
}

/// Something wanted from a repository.
struct Question {
    method: Method,
    /// What follows the repository in the address, such as `manifests/latest`.
    path: String,
    accept: &'static str,
    /// The first byte wanted.
    from: u64,
    target: Target,
}

impl Client {
    /// A client that has not yet done anything: no file is read and no connection made before the first question.
    pub fn new(settings: Settings, credentials: CredentialFiles) -> Self {
        Self {
            transport: Transport::new(settings),
            authenticator: Authenticator::new(credentials),
            schemes: Mutex::default(),
            discredited: Mutex::default(),
        }
    }

    /// Ends every question that is being asked, and every later one, with [`Error::Cancelled`]. Transfers and waits end
    /// at once; looking up a host and connecting to it last at most the connect time-out.
    pub fn cancel(&self) {
        self.transport.cancel();
    }

    /// Asks the mirrors of a reference's registry, then the registry, until one has an answer.
    fn ask_sources<T>(
        &self,
        reference: &Reference,
        mut ask: impl FnMut(&Source) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let registry: Host =
            reference.registry.parse().map_err(|_| Error::Address { text: reference.registry.clone() })?;
        let mut failures = Vec::new();
        for source in Source::all(self.transport.settings(), &registry) {
            if source.is_mirror && locked(&self.discredited, |hosts| hosts.contains(&source.host)) {
                failures.push(format!("{}: not asked again after an earlier error", source.host));
                continue;
            }
            match ask(&source) {
                Ok(answer) => return Ok(answer),
                Err(error) if source.is_mirror && error.concerns_host() => {
                    if error.discredits() {
                        self.discredit(&source.host);
                    }
                    failures.push(in_one_line(&error));
                }
                Err(error) if failures.is_empty() || !error.concerns_host() => return Err(error),
                Err(error) => return Err(Error::NoSource { mirrors: failures.join("; "), source: Box::new(error) }),
            }
        }
        // The registry itself is the last of the sources, and either answers or fails.
        Err(Error::Address { text: reference.registry.clone() })
    }

    fn discredit(&self, mirror: &Host) {
        locked(&self.discredited, |hosts| hosts.insert(mirror.clone()));
    }

    /// Does something with a source again as long as that may help.
    fn patiently<T>(
        &self,
        source: &Source,
        mut attempt: impl FnMut(&mut Patience) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let mut network = self.transport.settings().network.clone();
        if source.is_mirror {
            network.retries = network.retries.min(1);
        }
        let mut patience = Patience::new(&network);
        loop {
            match attempt(&mut patience) {
                Ok(done) => return Ok(done),
                Err(error) => match patience.wait(&error) {
                    Some(wait) => self.transport.pause(wait)?,
                    None => return Err(error),
                },
            }
        }
    }

    /// Asks one source once, in the scheme it is known to answer in or, while that is not known, in each it may.
    fn ask(&self, source: &Source, question: &Question) -> Result<Reply<'_>, Error> {
        let known = locked(&self.schemes, |schemes| schemes.get(&source.host).copied());
        let known = known.filter(|scheme| source.schemes.contains(scheme));
        let schemes = known.map_or_else(|| source.schemes.clone(), |scheme| vec![scheme]);
        let mut failure: Option<Result<Reply<'_>, Error>> = None;
        for scheme in schemes {
            let answer = self.ask_in(scheme, source, question);
            let is_wrong_scheme = match &answer {
                // What a server that expects TLS says to someone who does not.
                Ok(reply) => known.is_none() && scheme == Scheme::Http && reply.status == 400,
                Err(error) => error.is_unreachable(),
            };
            if !is_wrong_scheme {
                locked(&self.schemes, |schemes| schemes.insert(source.host.clone(), scheme));
                return answer.and_then(Reply::success);
            }
            failure = Some(match failure {
                None => answer,
                Some(earlier) => more_telling(earlier, answer),
            });
        }
        failure.unwrap_or_else(|| Err(Error::Address { text: source.host.to_string() })).and_then(Reply::success)
    }

    /// Asks one source once, and once more with what a `401` demands.
    fn ask_in(&self, scheme: Scheme, source: &Source, question: &Question) -> Result<Reply<'_>, Error> {
        let Question { method, path, accept, from, target } = question;
        let address = source.address(scheme, &target.repository, path).map_err(|text| Error::Address { text })?;
        let repository = source.repository(&target.repository);
        let authorization = self.authenticator.remembered(&source.host, &repository);
        let mut call = Call { method: method.clone(), from: *from, ..Call::get(address, accept, target) };
        call.authorization = authorization.as_ref();
        let reply = self.transport.send(&call)?;
        // A host that we were redirected to has no claim to credentials.
        if reply.status != 401 || reply.origin.host != source.host {
            return Ok(reply);
        }
        let demand = Demand {
            origin: &reply.origin,
            repository: &repository,
            headers: &reply.headers,
            rejected: call.authorization,
            target,
        };
        let Some(better) = self.authenticator.answer(&self.transport, &demand)? else { return Ok(reply) };
        reply.drain();
        self.transport.send(&Call { authorization: Some(&better), ..call })
    }
}

/// Of two failures to talk to a host, in the scheme tried first and the other, the one that says what is wrong.
fn more_telling<'t>(first: Result<Reply<'t>, Error>, second: Result<Reply<'t>, Error>) -> Result<Reply<'t>, Error> {
    let is_second_better = match (&first, &second) {
        // It expects TLS, and we did not like its certificate.
        (Ok(_) | Err(Error::Protocol { .. }), Err(Error::Tls { reason, .. })) => reason.contains("certificate"),
        // It does not expect TLS, and plain http nearly worked.
        (Err(Error::Tls { .. } | Error::Connect { .. }), Err(second)) => second.is_transient(),
        _ => false,
    };
    if is_second_better { second } else { first }
}

fn locked<T, R>(mutex: &Mutex<T>, with: impl FnOnce(&mut T) -> R) -> R {
    with(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

fn in_one_line(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
