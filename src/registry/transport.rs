//! One question to one host: connections, TLS, proxies, time-outs, redirects, cancellation.
//!
//! Takes an address, gives the answer it finally leads to, with every failure as an [`Error`] that names the host. Redirects
//! are followed here and not in the library, so that credentials stay with the origin they are meant for and no hop leaves
//! https unless the settings allow it. Nothing is loaded before the first connection: the system's certificate
//! authorities are read when the first https connection is made. Never asks twice.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ureq::http::header::AsHeaderName;
use ureq::http::{self, HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, BodyReader};

use super::address::{Origin, Scheme, redirected};
use super::auth::Authorization;
use super::error::{Error, Item, LoginOrigin, Phase, Said, Target, Withheld};
use super::retry::retry_after;
use crate::settings::{Host, Settings};

/// How many redirects are followed.
const MAX_REDIRECTS: u32 = 10;

/// Fewer bytes than this in a whole idle time-out count as silence.
const LEAST_TRICKLE: u64 = 4096;

/// How many idle time-outs a document may take in all; documents are small, so a slow one is a broken one.
const DOCUMENT_PATIENCE: u32 = 5;

/// How much of an unwanted answer is read, to keep its connection.
const DRAINED: u64 = 64 * 1024;

/// How much of a refusal is read for what the host says about it.
const REFUSAL_LIMIT: u64 = 8 * 1024;

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Transport {
    settings: Settings,
    agents: Mutex<HashMap<Trust, Agent>>,
    cancelled: Mutex<bool>,
    woken: Condvar,
}

/// What distinguishes connections that must not be mixed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Trust {
    verification: Verification,
    /// Never through a proxy: this machine itself.
    direct: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Verification {
    System,
    Authorities(PathBuf),
    Nothing,
}

/// One question.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) address: Uri,
    pub(super) accept: &'static str,
    /// The first byte wanted; the whole where 0.
    pub(super) from: u64,
    pub(super) authorization: Option<&'a Authorization>,
    /// Conditions under which the answer is wanted whole.
    pub(super) conditions: Vec<(HeaderName, String)>,
    /// A form to post.
    pub(super) form: Option<String>,
    pub(super) target: &'a Target,
}

impl<'a> Call<'a> {
    pub(super) fn get(address: Uri, accept: &'static str, target: &'a Target) -> Self {
        Self {
            method: Method::GET,
            address,
            accept,
            from: 0,
            authorization: None,
            conditions: Vec::new(),
            form: None,
            target,
        }
    }
}

impl Transport {
    pub(super) fn new(settings: Settings) -> Self {
        Self { settings, agents: Mutex::default(), cancelled: Mutex::new(false), woken: Condvar::new() }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Ends everything that is going on, and lets nothing begin.
    pub(super) fn cancel(&self) {
        *lock(&self.cancelled) = true;
        self.woken.notify_all();
        for (_, agent) in lock(&self.agents).drain() {
            agent.shutdown();
        }
    }

    /// Waits, unless and until cancelled.
    pub(super) fn pause(&self, wait: Duration) -> Result<(), Error> {
        let waiting = self.woken.wait_timeout_while(lock(&self.cancelled), wait, |cancelled| !*cancelled);
        let (cancelled, _) = waiting.unwrap_or_else(PoisonError::into_inner);
        if *cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }

    fn is_cancelled(&self) -> bool {
        *lock(&self.cancelled)
    }

    /// Asks, and follows redirects. The answer may have any status but a followed redirect's.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Reply<'_>, Error> {
        let mut address = call.address.clone();
        let first = origin(&address)?;
        for _ in 0..=MAX_REDIRECTS {
            let here = origin(&address)?;
            let authorization = call.authorization.filter(|_| here == first);
            let reply = self.exchange(call, &address, here, authorization)?;
            // A form holds a secret, so it goes nowhere else.
            let Some(location) = reply.location().filter(|_| call.form.is_none()) else { return Ok(reply) };
            let refuse = |reason| {
                let (host, target) = (reply.host(), Box::new(call.target.clone()));
                Error::Redirect { host, target, reason }
            };
            address = redirected(&address, location).map_err(refuse)?;
            // Nobody far away has business with what listens on this machine.
            if origin(&address)?.host.is_loopback() && !reply.origin.host.is_loopback() {
                return Err(refuse("it leads to this machine"));
            }
            reply.drain();
        }
        Err(Error::TooManyRedirects {
            host: first.host.to_string(),
            target: Box::new(call.target.clone()),
            limit: MAX_REDIRECTS,
        })
    }

    fn exchange(
        &self,
        call: &Call<'_>,
        address: &Uri,
        origin: Origin,
        authorization: Option<&Authorization>,
    ) -> Result<Reply<'_>, Error> {
        let side = Side { transport: self, origin, target: call.target.clone() };
        let host = &side.origin.host;
        // Whoever names a file by such an address asked for plain http; a redirect from https to it did not.
        let asked_for = matches!(call.target.item, Item::Address(_)) && call.address.scheme_str() == Some("http");
        if side.origin.scheme == Scheme::Http && !asked_for && !host.is_loopback() && !self.settings.is_insecure(host) {
            return Err(Error::PlainHttp { host: host.to_string(), target: Box::new(side.target) });
        }
        let agent = self.agent(&side.origin)?;
        let result = match &call.form {
            None => request(call, address, authorization)
                .body(())
                .map_err(ureq::Error::from)
                .and_then(|request| agent.run(request)),
            Some(form) => {
                let kind = "application/x-www-form-urlencoded";
                let request =
                    request(call, address, authorization).header(header::CONTENT_TYPE, kind).body(form.as_str());
                request.map_err(ureq::Error::from).and_then(|request| agent.run(request))
            }
        };
        match result {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let Side { origin, target, .. } = side;
                let was_shown = authorization.is_some();
                let authorization = call.authorization.cloned();
                Ok(Reply {
                    status: head.status,
                    headers: head.headers,
                    origin,
                    target,
                    authorization,
                    was_shown,
                    body: body.into_reader(),
                    transport: self,
                })
            }
            Err(error) => Err(side.failure(error, Phase::Asked)),
        }
    }

    fn agent(&self, origin: &Origin) -> Result<Agent, Error> {
        let host = &origin.host;
        let verification = match self.settings.registry(host) {
            Some(registry) if registry.insecure => Verification::Nothing,
            Some(crate::settings::Registry { ca: Some(path), .. }) => Verification::Authorities(path.clone()),
            _ => Verification::System,
        };
        let trust = Trust { verification, direct: host.is_loopback() };
        let mut agents = lock(&self.agents);
        // Looked at under the lock that `cancel` takes after setting it, so that no agent is made behind its back.
        if self.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if let Some(agent) = agents.get(&trust) {
            return Ok(agent.clone());
        }
        let agent = self.make_agent(&trust, host)?;
        agents.insert(trust, agent.clone());
        Ok(agent)
    }

    fn make_agent(&self, trust: &Trust, host: &Host) -> Result<Agent, Error> {
        let network = &self.settings.network;
        let tls = TlsConfig::builder();
        let tls = match &trust.verification {
            Verification::System => tls.root_certs(RootCerts::PlatformVerifier),
            Verification::Nothing => tls.disable_verification(true),
            Verification::Authorities(path) => tls.root_certs(authorities(path, host)?),
        };
        let config = Agent::config_builder()
            .tls_config(tls.build())
            .http_status_as_error(false)
            .max_redirects(0)
            .user_agent(concat!("strata/", env!("CARGO_PKG_VERSION")))
            // Digests are of the bytes as stored, so nothing on the way shall compress them.
            .accept_encoding("identity")
            .timeout_resolve(Some(network.connect_timeout))
            .timeout_connect(Some(network.connect_timeout))
            .timeout_send_request(Some(network.idle_timeout))
            .timeout_recv_response(Some(network.idle_timeout))
            .timeout_per_read(Some(network.idle_timeout))
            .timeout_per_write(Some(network.idle_timeout))
            .max_idle_connections(64)
            .max_idle_connections_per_host(16);
        let config = if trust.direct { config.proxy(None) } else { config };
        Ok(config.build().new_agent())
    }
}

fn request(call: &Call<'_>, address: &Uri, authorization: Option<&Authorization>) -> http::request::Builder {
    let request =
        http::Request::builder().method(call.method.clone()).uri(address.clone()).header(header::ACCEPT, call.accept);
    let request = if call.from > 0 { request.header(header::RANGE, format!("bytes={}-", call.from)) } else { request };
    let conditions = call.conditions.iter();
    let request = conditions.fold(request, |request, (name, value)| request.header(name, value));
    match authorization {
        Some(authorization) => request.header(header::AUTHORIZATION, authorization.header()),
        None => request,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn origin(address: &Uri) -> Result<Origin, Error> {
    // Without its query, which may be a signature.
    Origin::of(address).ok_or_else(|| Error::Address { text: address.path().to_owned() })
}

fn authorities(path: &std::path::Path, host: &Host) -> Result<RootCerts, Error> {
    let fail = |reason: String| Error::Authorities { path: path.to_owned(), host: host.to_string(), reason };
    let pem = std::fs::read(path).map_err(|error| fail(error.to_string()))?;
    let mut certificates = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| fail(error.to_string()))? {
            certificates.push(certificate);
        }
    }
    if certificates.is_empty() {
        return Err(fail("it holds no PEM certificate".to_owned()));
    }
    Ok(RootCerts::from(certificates))
}

/// Whom a failure is about.
struct Side<'t> {
    transport: &'t Transport,
    origin: Origin,
    target: Target,
}

impl Side<'_> {
    fn failure(&self, error: ureq::Error, phase: Phase) -> Error {
        if self.transport.is_cancelled() {
            return Error::Cancelled;
        }
        let host = self.origin.host.to_string();
        let target = Box::new(self.target.clone());
        match error {
            ureq::Error::Timeout(timeout) => self.timeout(timeout, phase),
            ureq::Error::HostNotFound => Error::UnknownHost { host, target },
            ureq::Error::Io(source) => self.io_failure(source, phase),
            ureq::Error::Rustls(error) => Error::Tls { host, target, reason: error.to_string() },
            ureq::Error::Tls(reason) => Error::Tls { host, target, reason: reason.to_owned() },
            ureq::Error::ConnectProxyFailed(reason) => Error::Proxy { host, target, reason },
            // These quote the address, which may be a signed one.
            ureq::Error::BadUri(_) | ureq::Error::RequireHttpsOnly(_) => Error::Address { text: host },
            error => Error::Protocol { host, target, source: Box::new(error) },
        }
    }

    fn io_failure(&self, source: io::Error, phase: Phase) -> Error {
        let host = self.origin.host.to_string();
        let target = Box::new(self.target.clone());
        match source.kind() {
            ErrorKind::ConnectionRefused
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::AddrNotAvailable
            | ErrorKind::PermissionDenied => Error::Connect { host, target, source },
            ErrorKind::TimedOut | ErrorKind::WouldBlock => self.timeout(ureq::Timeout::PerRead, phase),
            // How the TLS library reports what it does not accept; later, it is only a garbled connection.
            ErrorKind::InvalidData if self.origin.scheme == Scheme::Https && phase == Phase::Asked => {
                Error::Tls { host, target, reason: source.to_string() }
            }
            // The standard library has no kind for a name that cannot be looked up.
            _ if source.to_string().starts_with("failed to lookup address") => Error::UnknownHost { host, target },
            _ => Error::Interrupted { host, target, phase, source },
        }
    }

    fn timeout(&self, timeout: ureq::Timeout, phase: Phase) -> Error {
        let network = &self.transport.settings.network;
        let (phase, waited) = match timeout {
            ureq::Timeout::Resolve | ureq::Timeout::Connect => (Phase::Connecting, network.connect_timeout),
            _ => (phase, network.idle_timeout),
        };
        Error::Timeout { host: self.origin.host.to_string(), target: Box::new(self.target.clone()), phase, waited }
    }
}

/// An answer, its body not yet read.
pub(super) struct Reply<'t> {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// Who answered, after redirects.
    pub(super) origin: Origin,
    pub(super) target: Target,
    /// What the first host of the redirects was shown.
    authorization: Option<Authorization>,
    /// Whether the host that answered was shown it, too.
    was_shown: bool,
    body: BodyReader<'static>,
    transport: &'t Transport,
}

impl<'t> Reply<'t> {
    /// A header's value, where it is readable text.
    pub(super) fn header(&self, name: impl AsHeaderName) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// `Content-Length`.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.trim().parse().ok()
    }

    /// The host that answered, for messages.
    pub(super) fn host(&self) -> String {
        self.origin.host.to_string()
    }

    fn location(&self) -> Option<&str> {
        let is_redirect = matches!(self.status.as_u16(), 301 | 302 | 303 | 307 | 308);
        if is_redirect { self.header(header::LOCATION) } else { None }
    }

    /// Reads a short rest, so that the connection can serve again.
    pub(super) fn drain(self) {
        // What comes of it does not matter: at worst the connection is not used again.
        let _ = io::copy(&mut self.body.take(DRAINED), &mut io::sink());
    }

    /// The body, to be read piece by piece.
    pub(super) fn into_incoming(self) -> Incoming<'t> {
        let idle = self.transport.settings.network.idle_timeout;
        let side = Side { transport: self.transport, origin: self.origin, target: self.target };
        Incoming { side, body: self.body, idle, since: Instant::now(), received: 0, deadline: None }
    }

    /// The whole body of a document of at most `limit` bytes.
    pub(super) fn into_document(self, limit: u64) -> Result<Vec<u8>, Error> {
        let too_large = Error::TooLarge { host: self.host(), target: Box::new(self.target.clone()), limit };
        if self.length().is_some_and(|length| length > limit) {
            return Err(too_large);
        }
        let mut incoming = self.into_incoming();
        incoming.deadline = Some(incoming.since + incoming.idle * DOCUMENT_PATIENCE);
        let mut document = Vec::new();
        let mut buffer = vec![0; 16 * 1024];
        loop {
            match incoming.read(&mut buffer)? {
                0 => return Ok(document),
                read if (document.len() + read) as u64 > limit => return Err(too_large),
                read => document.extend_from_slice(&buffer[..read]),
            }
        }
    }

    /// This answer if its status is a success, else the error it stands for.
    pub(super) fn success(self) -> Result<Self, Error> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal()) }
    }

    fn refusal(self) -> Error {
        let (host, target, status) = (self.host(), Box::new(self.target.clone()), self.status.as_u16());
        let retry_after = retry_after(&self.headers, SystemTime::now());
        let (authorization, was_shown) = (self.authorization.clone(), self.was_shown);
        let body = self.into_document(REFUSAL_LIMIT).unwrap_or_default();
        let mut detail = said(&body);
        // A host that repeats a secret does not get it printed.
        if authorization.as_ref().is_some_and(|authorization| authorization.appears_in(&detail.0)) {
            detail = Said::default();
        }
        match status {
            404 | 410 => Error::NotFound { host, target, detail },
            401 | 403 => {
                let login =
                    authorization.and_then(|authorization| authorization.login().cloned()).map(|login| match login {
                        LoginOrigin::Secret { id } if !was_shown => {
                            Box::new(LoginOrigin::Withheld { id, reason: Withheld::OtherHost })
                        }
                        login => Box::new(login),
                    });
                Error::Unauthorized { host, target, login, detail }
            }
            429 => Error::RateLimited { host, target, retry_after, detail },
            408 | 425 | 500.. => Error::Unavailable { host, target, status, retry_after, detail },
            _ => Error::Status { host, target, status, detail },
        }
    }
}

/// What a host says in the body of a refusal (distribution-spec, "Error Codes", and what token servers say instead).
fn said(body: &[u8]) -> Said {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else { return Said::default() };
    let first = &document["errors"][0];
    let texts =
        [&first["message"], &first["code"], &document["error_description"], &document["details"], &document["message"]];
    let text = texts.iter().find_map(|value| value.as_str().filter(|text| !text.trim().is_empty())).unwrap_or_default();
    Said(text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect())
}

/// A body that is arriving.
pub(super) struct Incoming<'t> {
    side: Side<'t>,
    body: BodyReader<'static>,
    idle: Duration,
    since: Instant,
    received: u64,
    deadline: Option<Instant>,
}

impl Incoming<'_> {
    /// The next bytes; 0 at the end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let read = loop {
            match self.body.read(buffer) {
                Ok(read) => break read,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.side.failure(ureq::Error::from(error), Phase::Received)),
            }
        };
        // When sockets are shut down under a body without a length, it seems to end.
        if self.side.transport.is_cancelled() {
            return Err(Error::Cancelled);
        }
        if read > 0 && self.is_stalled(read as u64) {
            return Err(self.side.timeout(ureq::Timeout::PerRead, Phase::Received));
        }
        Ok(read)
    }

    /// Whether bytes come, but too few to ever get done.
    fn is_stalled(&mut self, read: u64) -> bool {
        let now = Instant::now();
        self.received += read;
        if self.received >= LEAST_TRICKLE {
            self.received = 0;
            self.since = now;
        }
        now.duration_since(self.since) >= self.idle || self.deadline.is_some_and(|deadline| now >= deadline)
    }

    /// An error about this answer.
    pub(super) fn interrupted(&self, reason: &str) -> Error {
        let source = io::Error::new(ErrorKind::UnexpectedEof, reason);
        let (host, target) = (self.side.origin.host.to_string(), Box::new(self.side.target.clone()));
        Error::Interrupted { host, target, phase: Phase::Received, source }
    }
}
