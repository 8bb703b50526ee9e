//! Showing a registry who is asking.
//!
//! Takes the challenge of a `401` answer and the user's credentials, gives the `Authorization` header to ask again with:
//! basic credentials, or a token fetched from the server that the challenge names. One is kept for each host and
//! repository, in memory alone; one that is refused or has run out is fetched anew, with the credentials looked up again,
//! and by one thread while the others wait. Never asks before it is challenged, and never shows a secret.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::{HeaderMap, HeaderValue, Method, Uri, header};

use super::address::{Origin, query_value};
use super::credential::{Credential, CredentialFiles, Login, Proof, Secret};
use super::error::{Error, LoginOrigin, Target};
use super::transport::{Call, Transport};
use crate::settings::Host;

/// The largest answer of a token server.
const TOKEN_LIMIT: u64 = 1024 * 1024;

/// How long a token lives whose server does not say (distribution token specification).
const TOKEN_LIFE: Duration = Duration::from_secs(60);

/// A token is not used any more when it has less than this left, or a tenth of its life.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);

/// The value of an `Authorization` header.
#[derive(Clone)]
pub(super) struct Authorization {
    header: HeaderValue,
    /// What the header is made of: a password or a token.
    secret: Secret,
    expires: Option<Instant>,
    login: Option<LoginOrigin>,
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorization").field("login", &self.login).finish_non_exhaustive()
    }
}

impl Authorization {
    fn new(
        kind: &str,
        shown: &str,
        secret: Secret,
        expires: Option<Instant>,
        login: Option<LoginOrigin>,
    ) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("{kind} {shown}")).ok()?;
        header.set_sensitive(true);
        Some(Self { header, secret, expires, login })
    }

    fn basic(user: &str, password: &Secret, login: LoginOrigin) -> Option<Self> {
        let shown = STANDARD.encode(format!("{user}:{}", password.expose()));
        Self::new("Basic", &shown, password.clone(), None, Some(login))
    }

    /// What a secret of the command line says, as it is.
    pub(super) fn from_secret(credential: &Credential) -> Option<Self> {
        let Credential { id, header } = credential;
        let mut value = HeaderValue::from_str(header.expose()).ok()?;
        value.set_sensitive(true);
        Some(Self {
            header: value,
            secret: header.clone(),
            expires: None,
            login: Some(LoginOrigin::Secret { id: id.clone() }),
        })
    }

    pub(super) fn header(&self) -> HeaderValue {
        self.header.clone()
    }

    /// Whose credentials it was made with.
    pub(super) fn login(&self) -> Option<&LoginOrigin> {
        self.login.as_ref()
    }

    /// Whether a text repeats what must not be seen.
    pub(super) fn appears_in(&self, text: &str) -> bool {
        let shown = self.header.to_str().unwrap_or_default().split(' ').next_back().unwrap_or_default();
        [shown, self.secret.expose()].iter().any(|secret| !secret.is_empty() && text.contains(secret))
    }

    fn is_current(&self) -> bool {
        self.expires.is_none_or(|expires| Instant::now() < expires)
    }
}

/// Who the questions of one client come from.
#[derive(Debug)]
pub(super) struct Authenticator {
    files: CredentialFiles,
    slots: Mutex<HashMap<(Host, String), Slot>>,
}

/// What is in force for one host and repository; locked while it is being fetched.
type Slot = Arc<Mutex<Option<Authorization>>>;

/// A `401` to be answered.
#[derive(Debug)]
pub(super) struct Demand<'a> {
    /// Who demands.
    pub(super) origin: &'a Origin,
    /// The repository, as that host names it.
    pub(super) repository: &'a str,
    /// The headers of its answer.
    pub(super) headers: &'a HeaderMap,
    /// What it was shown and did not accept.
    pub(super) rejected: Option<&'a Authorization>,
    /// What was asked for.
    pub(super) target: &'a Target,
}

impl Authenticator {
    pub(super) fn new(files: CredentialFiles) -> Self {
        Self { files, slots: Mutex::default() }
    }

    /// What was last accepted for a repository, if it still holds.
    pub(super) fn remembered(&self, host: &Host, repository: &str) -> Option<Authorization> {
        let slot = self.slot(host, repository);
        let current = slot.lock().unwrap_or_else(PoisonError::into_inner);
        current.as_ref().filter(|authorization| authorization.is_current()).cloned()
    }

    /// Something better to show than what was rejected, or `None` where there is nothing.
    pub(super) fn answer(&self, transport: &Transport, demand: &Demand<'_>) -> Result<Option<Authorization>, Error> {
        let slot = self.slot(&demand.origin.host, demand.repository);
        let mut current = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let rejected = demand.rejected.map(Authorization::header);
        // Another thread may have been quicker.
        if let Some(newer) = current.as_ref().filter(|newer| newer.is_current() && Some(newer.header()) != rejected) {
            return Ok(Some(newer.clone()));
        }
        *current = None;
        let login = self.files.login(&demand.origin.host, demand.repository)?;
        let fetched = self.obtain(transport, demand, login)?;
        *current = fetched.filter(|fetched| Some(fetched.header()) != rejected);
        Ok(current.clone())
    }

    fn slot(&self, host: &Host, repository: &str) -> Slot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry((host.clone(), repository.to_owned())).or_default().clone()
    }

    fn obtain(
        &self,
        transport: &Transport,
        demand: &Demand<'_>,
        login: Option<Login>,
    ) -> Result<Option<Authorization>, Error> {
        let challenges: Vec<Challenge> = demand
            .headers
            .get_all(header::WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let of = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme.eq_ignore_ascii_case(scheme));
        if let Some(bearer) = of("bearer") {
            return fetch_token(transport, demand, bearer, login.as_ref()).map(Some);
        }
        let unsupported = |reason: String| Error::Challenge { host: demand.origin.host.to_string(), reason };
        if of("basic").is_none() {
            let names: Vec<_> = challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
            let names = if names.is_empty() { "nothing that is known".to_owned() } else { names.join(", ") };
            return Err(unsupported(format!("it accepts {names}, but only Bearer and Basic can be given")));
        }
        match login {
            None => Ok(None),
            Some(Login { proof: Proof::Password { user, password }, origin }) => {
                Ok(Authorization::basic(&user, &password, origin))
            }
            Some(Login { proof: Proof::IdentityToken(_), .. }) => Err(unsupported(
                "it wants a name and a password, but the credentials found are an identity token".to_owned(),
            )),
        }
    }
}

/// What a token server answers.
#[derive(Deserialize)]
struct Token {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    expires_in: Option<u64>,
}

/// Fetches a token as the distribution token specification (and, with an identity token, its OAuth 2 variant) asks.
fn fetch_token(
    transport: &Transport,
    demand: &Demand<'_>,
    bearer: &Challenge,
    login: Option<&Login>,
) -> Result<Authorization, Error> {
    let unusable = |reason: &str| Error::Challenge { host: demand.origin.host.to_string(), reason: reason.to_owned() };
    let realm: Uri = bearer
        .parameter("realm")
        .and_then(|realm| realm.parse().ok())
        .filter(|realm| {
            Origin::of(realm).is_some() && realm.authority().is_some_and(|authority| !authority.as_str().contains('@'))
        })
        .ok_or_else(|| unusable("its token server has no valid address"))?;
    let own_scope = format!("repository:{}:pull", demand.repository);
    let scope = bearer.parameter("scope").filter(|scope| !scope.is_empty()).unwrap_or(&own_scope);
    let mut fields: Vec<(&str, &str)> =
        bearer.parameter("service").map(|service| ("service", service)).into_iter().collect();
    fields.push(("client_id", "strata"));

    let basic = match login {
        Some(Login { proof: Proof::Password { user, password }, origin }) => {
            fields.push(("account", user));
            Authorization::basic(user, password, origin.clone())
        }
        _ => None,
    };
    let mut call = Call::get(realm, "application/json", demand.target);
    call.authorization = basic.as_ref();
    if let Some(Login { proof: Proof::IdentityToken(token), .. }) = login {
        fields.extend([("grant_type", "refresh_token"), ("refresh_token", token.expose()), ("scope", scope)]);
        call.method = Method::POST;
        call.form = Some(query(&fields));
    } else {
        fields.extend(scope.split(' ').map(|scope| ("scope", scope)));
        call.address = with_query(&call.address, &query(&fields))
            .ok_or_else(|| unusable("its token server has no valid address"))?;
    }
    let asked = Instant::now();
    let reply = transport.send(&call)?.success().map_err(|error| with_login(error, login))?;
    let body = reply.into_document(TOKEN_LIMIT)?;
    let token: Token =
        serde_json::from_slice(&body).map_err(|_| unusable("the answer of its token server makes no sense"))?;
    let text = if token.token.is_empty() { token.access_token } else { token.token };
    let life = token.expires_in.filter(|seconds| *seconds > 0).map_or(TOKEN_LIFE, Duration::from_secs);
    let expires = asked.checked_add(life - TOKEN_MARGIN.min(life / 10));
    let origin = login.map(LoginOrigin::from);
    Some(text)
        .filter(|text| !text.is_empty())
        .and_then(|text| Authorization::new("Bearer", &text.clone(), Secret::new(text), expires, origin))
        .ok_or_else(|| unusable("its token server gave no usable token"))
}

/// A refusal of the token server, with whose credentials it refused.
fn with_login(error: Error, login: Option<&Login>) -> Error {
    match error {
        Error::Unauthorized { host, target, detail, .. } => {
            Error::Unauthorized { host, target, login: login.map(|login| Box::new(login.into())), detail }
        }
        error => error,
    }
}

fn query(fields: &[(&str, &str)]) -> String {
    let fields: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={}", query_value(value))).collect();
    fields.join("&")
}

fn with_query(address: &Uri, query: &str) -> Option<Uri> {
    let mut parts = address.clone().into_parts();
    let path = parts.path_and_query.as_ref().map_or("/", |path| path.as_str());
    let joint = if path.contains('?') { '&' } else { '?' };
    parts.path_and_query = Some(format!("{path}{joint}{query}").parse().ok()?);
    Uri::from_parts(parts).ok()
}

/// One challenge of a `WWW-Authenticate` header (RFC 9110, 11.6.1).
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// The challenges in one header: names, each followed by `key=value` pairs, all parted by commas.
fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let end = rest.find([' ', '\t', ',', '=']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() && after.is_empty() {
            return challenges;
        }
        match (after.trim_start().strip_prefix('='), challenges.last_mut()) {
            (Some(after), Some(challenge)) => {
                let (value, after) = parse_value(after.trim_start());
                challenge.parameters.push((name.to_owned(), value));
                rest = after;
            }
            (Some(after), None) => rest = after,
            (None, _) => {
                challenges.push(Challenge { scheme: name.to_owned(), parameters: Vec::new() });
                rest = after;
            }
        }
    }
}

/// A token or a quoted text, and what follows it.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            c => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn challenge(scheme: &str, parameters: &[(&str, &str)]) -> Challenge {
        let parameters = parameters.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Challenge { scheme: scheme.to_owned(), parameters }
    }

    #[test]
    fn challenges_are_parsed() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.example/token",service="registry.example",scope="repository:a/b:pull,push""#,
                vec![challenge(
                    "Bearer",
                    &[
                        ("realm", "https://auth.example/token"),
                        ("service", "registry.example"),
                        ("scope", "repository:a/b:pull,push"),
                    ],
                )],
            ),
            (r#"Basic realm="a \"b\", c""#, vec![challenge("Basic", &[("realm", "a \"b\", c")])]),
            (
                r#"Negotiate, Basic realm=x , Bearer realm = "y""#,
                vec![
                    challenge("Negotiate", &[]),
                    challenge("Basic", &[("realm", "x")]),
                    challenge("Bearer", &[("realm", "y")]),
                ],
            ),
            (r#"Bearer realm="unclosed"#, vec![challenge("Bearer", &[("realm", "unclosed")])]),
            ("=", vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse_challenges(header), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn any_header_is_parsed_to_an_end(header in "[ -~]{0,60}") {
            parse_challenges(&header);
        }
    }

    #[test]
    fn queries_are_escaped_and_joined() {
        let fields = query(&[("service", "a b&c"), ("scope", "repository:x/y:pull")]);
        assert_eq!(fields, "service=a%20b%26c&scope=repository%3Ax%2Fy%3Apull");
        for (address, expected) in [
            ("https://a/token", "https://a/token?q=1"),
            ("https://a/token?x=y", "https://a/token?x=y&q=1"),
            ("https://a", "https://a/?q=1"),
        ] {
            assert_eq!(with_query(&address.parse().unwrap(), "q=1").unwrap().to_string(), expected);
        }
    }

    #[test]
    fn nothing_shows_a_secret() {
        let origin = LoginOrigin::File { path: "f".into(), helper: None };
        let basic = Authorization::basic("user", &Secret::new("hunter2".into()), origin).unwrap();
        assert_eq!(basic.header().to_str().unwrap(), "Basic dXNlcjpodW50ZXIy");
        let shown = format!("{basic:?} {:?}", basic.header());
        assert!(!shown.contains("hunter2") && !shown.contains("dXNlcjpodW50ZXIy"), "{shown}");
        assert!(
            basic.appears_in("bad password hunter2")
                && basic.appears_in("got dXNlcjpodW50ZXIy")
                && !basic.appears_in("no")
        );
        assert!(Authorization::new("Bearer", "a\nb", Secret::new(String::new()), None, None).is_none());
    }
}
