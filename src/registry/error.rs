//! Why a registry did not give what was asked for.
//!
//! Every message names the host that was talked to and the image, manifest or blob it was about, and says what a
//! person can do. None ever holds a credential, nor the address of a redirect (which often is one).

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::credential::Login;
use crate::digest::Digest;
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::settings::Host;

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The registry as image names write it.
    pub registry: String,
    /// The repository.
    pub repository: String,
    /// What in the repository.
    pub item: Item,
}

/// One thing in a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item {
    /// The manifest or index that a tag names.
    Tag(String),
    /// The manifest or index of this digest.
    Manifest(Digest),
    /// The blob of this digest.
    Blob(Digest),
    /// A file at this address, which is in no repository.
    Address(String),
}

impl Target {
    pub(super) fn new(reference: &Reference, item: Item) -> Self {
        Self { registry: reference.registry.clone(), repository: reference.repository.clone(), item }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, repository, item } = self;
        match item {
            Item::Tag(tag) => write!(f, "{registry}/{repository}:{tag}"),
            Item::Manifest(digest) => write!(f, "{registry}/{repository}@{digest}"),
            Item::Blob(digest) => write!(f, "blob {digest} of {registry}/{repository}"),
            Item::Address(address) => f.write_str(address),
        }
    }
}

/// Why a registry did not give what was asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The registry does not have it.
    #[error("{host} has no {target}{detail}")]
    NotFound {
        /// The host that answered.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What the host said about it.
        detail: Said,
    },
    /// The registry wants other credentials, or none would do.
    #[error("{host} refuses access to {target}{detail}: {}", refusal(.login.as_deref(), .target))]
    Unauthorized {
        /// The host that refused.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// Whose credentials were sent, if any.
        login: Option<Box<LoginOrigin>>,
        /// What the host said about it.
        detail: Said,
    },
    /// The host asks for a kind of authentication that Strata does not have, or asks in a way that makes no sense.
    #[error("{host} asks for an authentication that cannot be given: {reason}")]
    Challenge {
        /// The host that asked.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A file of credentials cannot be used.
    #[error("cannot use the credentials in {path}: {reason}")]
    CredentialFile {
        /// The file.
        path: PathBuf,
        /// What is wrong, without any of its content.
        reason: String,
    },
    /// A credential helper did not do its work.
    #[error("the credential helper {helper}, named in {path}, gave nothing for {host}: {reason}")]
    Helper {
        /// The program.
        helper: String,
        /// The file that names it.
        path: PathBuf,
        /// The host whose credentials were wanted.
        host: String,
        /// What went wrong.
        reason: String,
    },
    /// No such host.
    #[error("there is no host {host} (wanted for {target}): check its name and this machine's name servers")]
    UnknownHost {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
    },
    /// No connection came about.
    #[error("cannot connect to {host} for {target}")]
    Connect {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// Why.
        source: io::Error,
    },
    /// The proxy of the environment did not connect us.
    #[error("the proxy of the environment did not connect to {host} for {target}: {reason}")]
    Proxy {
        /// The host that was to be reached.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What the proxy said.
        reason: String,
    },
    /// The host is not who it claims to be, or does not speak TLS.
    #[error(
        "no secure connection to {host} for {target}: {reason} \
         (in the configuration file, [registry.\"{host}\"] can name a private authority with `ca`, or allow this with `insecure = true`)"
    )]
    Tls {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What is wrong with the handshake or certificate.
        reason: String,
    },
    /// The certificate authorities named in the configuration file cannot be read.
    #[error("cannot read the certificate authorities in {path} for {host}: {reason}")]
    Authorities {
        /// The PEM file.
        path: PathBuf,
        /// The host they are for.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// Only plain http leads there, and nobody allowed that.
    #[error(
        "{host} would have to be asked over plain http for {target} \
         (in the configuration file, [registry.\"{host}\"] can allow this with `insecure = true`)"
    )]
    PlainHttp {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
    },
    /// Nothing, or next to nothing, came for too long.
    #[error("{host} kept silent for too long while {target} was {phase} (waited {} s; [network] in the configuration file sets this)", .waited.as_secs_f32())]
    Timeout {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What was going on.
        phase: Phase,
        /// The time-out that ran out.
        waited: Duration,
    },
    /// The connection broke, and trying again did not help.
    #[error("the connection to {host} broke while {target} was {phase}")]
    Interrupted {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What was going on.
        phase: Phase,
        /// How it broke.
        source: io::Error,
    },
    /// The answer is not http.
    #[error("{host} does not answer in http when asked for {target}")]
    Protocol {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What is wrong with the answer.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The host asks to be left alone for a while.
    #[error("{host} limits how often it may be asked, and refuses {target}{detail}{}", later(*.retry_after))]
    RateLimited {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The wait it asks for.
        retry_after: Option<Duration>,
        /// What the host said about it.
        detail: Said,
    },
    /// The host is in trouble.
    #[error("{host} answered with status {status} when asked for {target}{detail}{}", later(*.retry_after))]
    Unavailable {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The http status, 5xx or 408.
        status: u16,
        /// The wait it asks for.
        retry_after: Option<Duration>,
        /// What the host said about it.
        detail: Said,
    },
    /// An answer that the protocol does not have.
    #[error("{host} answered with the unexpected status {status} when asked for {target}{detail}")]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The http status.
        status: u16,
        /// What the host said about it.
        detail: Said,
    },
    /// Redirects without end.
    #[error("{host} redirects {target} more than {limit} times")]
    TooManyRedirects {
        /// The host that was asked first.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// How many were followed.
        limit: u32,
    },
    /// A redirect that cannot be followed.
    #[error("{host} redirects {target} to an address that cannot be followed: {reason}")]
    Redirect {
        /// The host that redirects.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What is wrong with the address.
        reason: &'static str,
    },
    /// The bytes are not those of the digest.
    #[error("{host} sent wrong bytes for {target}: expected {expected}, got {actual}")]
    WrongDigest {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The digest that names the content.
        expected: Digest,
        /// The digest of the bytes that came.
        actual: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{host} sent {} bytes for {target}, but its size is {expected}", amount(*.actual, .expected))]
    WrongSize {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The size the descriptor gives.
        expected: u64,
        /// The size that came or was announced; `None` for more than expected.
        actual: Option<u64>,
    },
    /// A document larger than any honest one.
    #[error("{host} sent more than {limit} bytes for {target}, which no honest document has")]
    TooLarge {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// The limit in bytes.
        limit: u64,
    },
    /// Something other than an image.
    #[error("{target} is of type {media_type:?}, not an image{}", old_schema(.media_type))]
    UnexpectedType {
        /// What was asked for.
        target: Box<Target>,
        /// The type that the host gives.
        media_type: String,
    },
    /// A document that makes no sense.
    #[error("{target} as {host} serves it is not valid: {reason}")]
    Malformed {
        /// The host.
        host: String,
        /// What was asked for.
        target: Box<Target>,
        /// What is wrong.
        reason: String,
    },
    /// An index without an image for the platform.
    #[error("{target} has no image for {wanted}; it has: {}", list(.available))]
    NoPlatform {
        /// What was asked for.
        target: Box<Target>,
        /// The platform asked for.
        wanted: Box<Platform>,
        /// The platforms there are.
        available: Vec<String>,
    },
    /// Indexes within indexes within indexes.
    #[error("{target} nests more than {limit} indexes")]
    TooDeep {
        /// What was asked for.
        target: Box<Target>,
        /// The limit.
        limit: u32,
    },
    /// Neither the registry nor a mirror of it could serve.
    #[error("no mirror could help either ({mirrors})")]
    NoSource {
        /// The mirrors tried, each with its error.
        mirrors: String,
        /// What the registry itself answered.
        source: Box<Self>,
    },
    /// The bytes could not be handed on.
    #[error("cannot store {target}")]
    Sink {
        /// What was asked for.
        target: Box<Target>,
        /// Why.
        source: io::Error,
    },
    /// The reference holds something that no address can.
    #[error("{text:?} cannot be part of an address")]
    Address {
        /// The text.
        text: String,
    },
    /// An address with a user name or password in it.
    #[error("the address on {host} holds credentials, which would be kept with the recipe: leave them out")]
    Credentials {
        /// The host.
        host: String,
    },
    /// [`super::Client::cancel`] was called.
    #[error("cancelled")]
    Cancelled,
}

impl Error {
    /// Whether no host that could have the answer was reached: the network's doing, or that of whoever set it up.
    pub fn is_about_the_network(&self) -> bool {
        self.is_unreachable() || matches!(self, Self::UnknownHost { .. } | Self::Proxy { .. })
    }

    /// Whether the same request may do better in a moment.
    pub(super) fn is_transient(&self) -> bool {
        use Error::{Interrupted, RateLimited, Timeout, Unavailable};
        matches!(self, Interrupted { .. } | Timeout { .. } | RateLimited { .. } | Unavailable { .. })
    }

    /// Whether the host could not be talked to at all, so that another scheme might do.
    pub(super) fn is_unreachable(&self) -> bool {
        use Error::{Connect, Interrupted, Protocol, Timeout, Tls};
        matches!(self, Connect { .. } | Tls { .. } | Protocol { .. } | Interrupted { phase: Phase::Asked, .. })
            || matches!(self, Timeout { phase: Phase::Connecting, .. })
    }

    /// Whether a host that answers so is not worth another question.
    pub(super) fn discredits(&self) -> bool {
        use Error::{Malformed, UnknownHost, WrongDigest, WrongSize};
        self.is_unreachable()
            || matches!(self, UnknownHost { .. } | WrongDigest { .. } | WrongSize { .. } | Malformed { .. })
    }

    /// Whether another host may well answer otherwise.
    pub(super) fn concerns_host(&self) -> bool {
        use Error::{Address, Cancelled, Sink};
        !matches!(self, Address { .. } | Cancelled | Sink { .. })
    }
}

/// What was going on when something failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The connection was not yet there.
    Connecting,
    /// The question was sent, the answer had not begun.
    Asked,
    /// The answer had begun.
    Received,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "to be asked for (connecting)",
            Self::Asked => "asked for",
            Self::Received => "received",
        })
    }
}

/// What a host said about an error, cut to a readable length; shown in parentheses.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said(pub String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0) }
    }
}

/// Where credentials came from. Never the credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LoginOrigin {
    /// A file as Docker and Podman write them.
    File {
        /// The file that has them or names the helper.
        path: PathBuf,
        /// The helper that gave them.
        helper: Option<String>,
    },
    /// A secret of the command line.
    Secret {
        /// Its id.
        id: String,
    },
    /// A secret of the command line that was not sent.
    Withheld {
        /// Its id.
        id: String,
        /// Why not.
        reason: Withheld,
    },
}

/// Why a secret that is there was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Withheld {
    /// Everybody on the way could read it.
    PlainHttp,
    /// It is for the host that was asked first, and that redirected to this one.
    OtherHost,
}

impl From<&Login> for LoginOrigin {
    fn from(login: &Login) -> Self {
        login.origin.clone()
    }
}

fn refusal(login: Option<&LoginOrigin>, target: &Target) -> String {
    let registry = &target.registry;
    match login {
        None if matches!(target.item, Item::Address(_)) => {
            let name = registry.parse::<Host>().map_or_else(|_| registry.clone(), |host| host.name().to_owned());
            format!(
                "it may be had with credentials only, and none were sent \
                 (--secret id=HTTP_AUTH_TOKEN_{name},env=VARIABLE gives a bearer token for it, \
                 HTTP_AUTH_HEADER_{name} a whole Authorization header)"
            )
        }
        None => format!(
            "either it does not exist, or it needs credentials and none were sent (`docker login {registry}` stores them)"
        ),
        Some(LoginOrigin::File { path, helper: None }) => {
            format!("either it does not exist, or the credentials in {} do not allow it", path.display())
        }
        Some(LoginOrigin::File { path, helper: Some(helper) }) => {
            format!(
                "either it does not exist, or the credentials that {helper} gave (named in {}) do not allow it",
                path.display()
            )
        }
        Some(LoginOrigin::Secret { id }) => format!("it does not accept what the secret {id} holds"),
        Some(LoginOrigin::Withheld { id, reason: Withheld::PlainHttp }) => format!(
            "the secret {id} was not sent to it, because everybody on the way can read plain http \
             (use https, or allow it in the configuration file with `insecure = true` in [registry.\"{registry}\"])"
        ),
        Some(LoginOrigin::Withheld { id, reason: Withheld::OtherHost }) => {
            format!("the secret {id} is for {registry}, which redirects here, and was not sent to another host")
        }
    }
}

fn later(wait: Option<Duration>) -> String {
    wait.map(|wait| format!("; it asks to come back in {} s", wait.as_secs())).unwrap_or_default()
}

fn amount(actual: Option<u64>, expected: &u64) -> String {
    actual.map_or_else(|| format!("more than {expected}"), |actual| actual.to_string())
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

fn old_schema(media_type: &str) -> &'static str {
    if media_type.contains("distribution.manifest.v1") {
        " that can be built on: this old format (schema 1) has to be pushed again with a current tool"
    } else {
        ""
    }
}
