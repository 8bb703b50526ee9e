//! Files by their address, over the same connections as everything else.
//!
//! Takes an http or https address and what is known of an earlier answer, gives the bytes to a sink, or says that they
//! have not changed. Broken transfers begin again, as often as the settings say. Never sends a credential to another host
//! than that of the address, nor over plain http unless the settings allow it, and never goes from https to http.

use std::io::{self, Write};

use ureq::http::{HeaderName, Uri, header};

use super::Client;
use super::address::{Origin, Scheme, escape};
use super::auth::Authorization;
use super::credential::Credential;
use super::error::{Error, Item, LoginOrigin, Target, Withheld};
use super::retry::Patience;
use super::transport::{Call, Reply};

/// How many bytes are read at once.
const BUFFER: usize = 128 * 1024;

/// What a host said of a file, by which it can tell later whether the file has changed (RFC 9110, 8.8).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Validators {
    /// `ETag`
    pub etag: Option<String>,
    /// `Last-Modified`
    pub last_modified: Option<String>,
}

/// What came of a download.
#[derive(Debug)]
pub enum Download<S> {
    /// The file is still what the validators were given for.
    Unchanged,
    /// The whole file is in the sink.
    Whole {
        /// What the host said of it.
        validators: Validators,
        /// How many bytes it has.
        size: u64,
        /// Where they are.
        sink: S,
    },
}

/// What is asked for.
struct Wanted<'a> {
    address: &'a Uri,
    target: &'a Target,
    known: &'a Validators,
    authorization: Option<&'a Authorization>,
}

impl Client {
    /// Fetches a file, showing `credential` to the host of its address. `start` makes an empty sink, anew for each attempt; `progress` is told how many bytes came, and how
    /// many there will be.
    ///
    /// # Errors
    /// The host cannot be asked, does not have it, or breaks off again and again; or a sink fails.
    pub fn download<S: Write>(
        &self,
        address: &str,
        credential: Option<&Credential>,
        known: &Validators,
        start: &mut dyn FnMut() -> io::Result<S>,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Download<S>, Error> {
        let (uri, origin, target) = parse(address)?;
        let may_be_sent = origin.scheme == Scheme::Https || self.may_go_plain(origin.host.as_str());
        let authorization = credential.filter(|_| may_be_sent).and_then(Authorization::from_secret);
        let wanted = Wanted { address: &uri, target: &target, known, authorization: authorization.as_ref() };
        let mut patience = Patience::new(&self.transport.settings().network);
        loop {
            match self.download_once(&wanted, start, progress) {
                Ok(done) => return Ok(done),
                Err(error) => match patience.wait(&error) {
                    Some(wait) => self.transport.pause(wait)?,
                    None if may_be_sent => return Err(error),
                    None => return Err(withheld(error, credential)),
                },
            }
        }
    }

    fn download_once<S: Write>(
        &self,
        wanted: &Wanted<'_>,
        start: &mut dyn FnMut() -> io::Result<S>,
        progress: &dyn Fn(u64, Option<u64>),
    ) -> Result<Download<S>, Error> {
        let Wanted { address, target, known, authorization } = *wanted;
        let mut conditions: Vec<(HeaderName, String)> = Vec::new();
        conditions.extend(known.etag.clone().map(|etag| (header::IF_NONE_MATCH, etag)));
        if conditions.is_empty() {
            conditions.extend(known.last_modified.clone().map(|date| (header::IF_MODIFIED_SINCE, date)));
        }
        let is_conditional = !conditions.is_empty();
        let reply =
            self.transport.send(&Call { conditions, authorization, ..Call::get(address.clone(), "*/*", target) })?;
        if is_conditional && reply.status == 304 {
            reply.drain();
            return Ok(Download::Unchanged);
        }
        receive(reply.success()?, target, start, progress)
    }
}

/// The error, with the secret that might have helped but was not sent.
fn withheld(error: Error, credential: Option<&Credential>) -> Error {
    match (error, credential) {
        (Error::Unauthorized { host, target, login: None, detail }, Some(credential)) => {
            let login = LoginOrigin::Withheld { id: credential.id.clone(), reason: Withheld::PlainHttp };
            Error::Unauthorized { host, target, login: Some(Box::new(login)), detail }
        }
        (error, _) => error,
    }
}

fn receive<S: Write>(
    reply: Reply<'_>,
    target: &Target,
    start: &mut dyn FnMut() -> io::Result<S>,
    progress: &dyn Fn(u64, Option<u64>),
) -> Result<Download<S>, Error> {
    let fail = |source| Error::Sink { target: Box::new(target.clone()), source };
    let text = |name| reply.header(name).map(str::to_owned);
    let validators = Validators { etag: text(header::ETAG), last_modified: text(header::LAST_MODIFIED) };
    let length = reply.length();
    let mut incoming = reply.into_incoming();
    let mut sink = start().map_err(fail)?;
    let (mut size, mut buffer) = (0, vec![0; BUFFER]);
    loop {
        let read = incoming.read(&mut buffer)?;
        if read == 0 {
            break;
        }
        sink.write_all(&buffer[..read]).map_err(fail)?;
        size += read as u64;
        progress(size, length);
    }
    if length.is_some_and(|length| length != size) {
        return Err(incoming.interrupted("the body ended too early"));
    }
    sink.flush().map_err(fail)?;
    Ok(Download::Whole { validators, size, sink })
}

/// An address as it can be asked for, and as messages show it: without its query, which may be a signature.
fn parse(address: &str) -> Result<(Uri, Origin, Target), Error> {
    let shown = address.split(['?', '#']).next().unwrap_or_default();
    let wrong = || Error::Address { text: shown.to_owned() };
    let uri: Uri = escape(address.split('#').next().unwrap_or_default()).parse().map_err(|_| wrong())?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(Error::Credentials { host: uri.host().unwrap_or_default().to_owned() });
    }
    let origin = Origin::of(&uri).ok_or_else(wrong)?;
    let item = Item::Address(shown.to_owned());
    let target = Target { registry: origin.host.to_string(), repository: String::new(), item };
    Ok((uri, origin, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_without_what_may_be_secret() {
        let (uri, _, target) = parse("http://h:1/a b/c?sig=x#top").unwrap();
        assert_eq!(uri.to_string(), "http://h:1/a%20b/c?sig=x");
        assert_eq!(target.to_string(), "http://h:1/a b/c");
        assert!(matches!(parse("https://user:secret@h/x"), Err(Error::Credentials { host }) if host == "h"));
        assert!(parse("https://").is_err());
    }
}
