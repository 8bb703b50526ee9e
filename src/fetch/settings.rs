//! What `git` is told of secrets, certificates and proxies, and what its complaints mean.
//!
//! Takes what the user says to Strata, in the settings and in the environment, gives the same to `git` in its own words:
//! as settings in its environment (`GIT_CONFIG_COUNT`, git-config(1)), which nobody else can read. A secret is for scheme,
//! host and port of one address; while it is in use, git follows no redirect there.

use std::process::Command;

use super::credential::origin;
use super::{Error, Fetcher};
use crate::registry::Credential;

/// How much of what `git` says is kept.
const SAID_LIMIT: usize = 2000;

/// What `git` says when it never came to talk to the other side.
const UNREACHABLE: [&str; 7] = [
    "Could not resolve",
    "Failed to connect",
    "Couldn't connect",
    "Connection refused",
    "Connection timed out",
    "Network is unreachable",
    "unable to look up",
];

/// What `git` says when the other side wants to know who is asking.
const REFUSED: [&str; 5] = [
    "terminal prompts disabled",
    "could not read Username",
    "Authentication failed",
    "returned error: 401",
    "returned error: 403",
];

/// What `git` says of a redirect that it does not follow.
const REDIRECTED: [&str; 5] =
    ["returned error: 301", "returned error: 302", "returned error: 303", "returned error: 307", "returned error: 308"];

/// What `git` says of a certificate that it does not trust.
const UNTRUSTED: [&str; 3] = ["certificate", "SSL connect", "TLS connect"];

/// A remote as it may be shown and kept: without user and password.
pub(super) fn shown(remote: &str) -> String {
    match (remote.split_once("://"), origin(remote)) {
        (Some((scheme, rest)), Some((_, host))) => {
            let path = &rest[rest.find(['/', '?', '#']).unwrap_or(rest.len())..];
            format!("{scheme}://{host}{path}")
        }
        _ => remote.to_owned(),
    }
}

/// The secret for the host of a repository.
#[derive(Debug, Default)]
pub(super) struct Access {
    /// What is shown to it.
    credential: Option<Credential>,
    /// The secret that would be shown to it, if everybody on the way could not read it.
    withheld: Option<String>,
}

impl Fetcher<'_> {
    /// The secret for the host of a repository.
    pub(super) fn access(&self, remote: &str) -> Result<Access, Error> {
        let Some(credential) = self.credential_for_repository(remote)? else { return Ok(Access::default()) };
        let is_safe = origin(remote).is_some_and(|(scheme, host)| scheme == "https" || self.client.may_go_plain(host));
        Ok(match is_safe {
            true => Access { credential: Some(credential), withheld: None },
            false => Access { credential: None, withheld: Some(credential.id().to_owned()) },
        })
    }

    /// Tells a `git` what it may show whom, and whom to trust.
    pub(super) fn tell(&self, command: &mut Command, remote: &str, access: &Access) {
        let environment = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let mut settings: Vec<(String, std::ffi::OsString)> = Vec::new();
        // Whom Strata's own connections trust; of git's own names for it the user may have set one, too.
        let certificates = [
            ("http.sslCAInfo", ["GIT_SSL_CAINFO", "SSL_CERT_FILE"]),
            ("http.sslCAPath", ["GIT_SSL_CAPATH", "SSL_CERT_DIR"]),
        ];
        for (setting, names) in certificates {
            if let Some(value) = names.iter().find_map(|name| environment(name)) {
                settings.push((setting.to_owned(), value));
            }
        }
        for trust in self.client.trusted() {
            let of = |setting: &str| format!("http.https://{}/.{setting}", trust.host);
            match &trust.authorities {
                _ if trust.insecure => settings.push((of("sslVerify"), "false".into())),
                Some(path) => settings.push((of("sslCAInfo"), path.into())),
                None => {}
            }
        }
        if let Some((scheme, host)) = origin(remote) {
            let of = |setting: &str| format!("http.{scheme}://{host}/.{setting}");
            if self.client.is_this_machine(host) {
                settings.push((of("proxy"), "".into()));
            }
            if let Some(credential) = &access.credential {
                settings.push((of("extraHeader"), format!("Authorization: {}", credential.expose()).into()));
                // It would take the header along.
                settings.push((of("followRedirects"), "false".into()));
            }
        }
        // The library below git reads this one in small letters only.
        if let (Some(proxy), None) = (environment("HTTP_PROXY"), environment("http_proxy")) {
            command.env("http_proxy", proxy);
        }
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (key, value)) in settings.into_iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), key).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
    }
}

impl Access {
    /// What a failure of `git` means, from what it said.
    pub(super) fn failure(&self, remote: &str, action: &'static str, said: &str) -> Error {
        let says = |signs: &[&str]| signs.iter().any(|sign| said.contains(sign));
        let said_so = || in_one_line(&self.masked(&said.replace(remote, &shown(remote))));
        let remote = shown(remote);
        if says(&REFUSED) {
            return Error::Refused { advice: self.advice(&remote), remote, said: said_so() };
        }
        match &self.credential {
            Some(credential) if says(&REDIRECTED) => Error::Redirected { remote, id: credential.id().to_owned() },
            _ => Error::Git { action, remote, said: said_so(), unreachable: says(&UNREACHABLE) || says(&UNTRUSTED) },
        }
    }

    fn advice(&self, remote: &str) -> String {
        let Some((_, host)) = origin(remote) else { return "it wants other credentials".to_owned() };
        match (&self.credential, &self.withheld) {
            (Some(credential), _) => format!("it does not accept what the secret {} holds", credential.id()),
            (None, Some(id)) => format!(
                "the secret {id} was not sent to it, because everybody on the way can read plain http (use https, or \
                 allow it in the configuration file with `insecure = true` in [registry.\"{host}\"])"
            ),
            (None, None) => format!(
                "it does not exist, or may be had with credentials only, and none were sent (--secret \
                 id=GIT_AUTH_TOKEN.{host},env=VARIABLE gives a token for it, GIT_AUTH_HEADER.{host} a whole \
                 Authorization header)"
            ),
        }
    }

    /// A text without what must not be seen, should the other side repeat it.
    fn masked(&self, text: &str) -> String {
        let Some(credential) = &self.credential else { return text.to_owned() };
        let last = credential.expose().split(' ').next_back().unwrap_or_default();
        if last.is_empty() { text.to_owned() } else { text.replace(last, "***") }
    }
}

fn in_one_line(said: &str) -> String {
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let line: String = lines.join("; ").chars().filter(|character| !character.is_control()).take(SAID_LIMIT).collect();
    if line.is_empty() { "it gave no reason".to_owned() } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remotes_are_shown_without_credentials() {
        for (remote, expected) in [
            ("https://h/a.git", "https://h/a.git"),
            ("https://user:secret@h:1/a@b.git", "https://h:1/a@b.git"),
            ("https://token@h", "https://h"),
            ("ssh://git@h/a", "ssh://git@h/a"),
            ("git@h:a/b", "git@h:a/b"),
        ] {
            assert_eq!(shown(remote), expected);
        }
    }

    #[test]
    fn complaints_are_understood() {
        let credential = Credential::new("GIT_AUTH_TOKEN", "Basic c2VjcmV0".to_owned());
        let with = Access { credential, withheld: None };
        let without = Access::default();
        let held = Access { credential: None, withheld: Some("GIT_AUTH_TOKEN".to_owned()) };
        let prompt = "fatal: could not read Username for 'https://h': terminal prompts disabled";
        for (access, said, expected) in [
            (&with, prompt, "does not accept what the secret GIT_AUTH_TOKEN holds"),
            (&without, prompt, "id=GIT_AUTH_TOKEN.h,env=VARIABLE"),
            (&held, prompt, "not sent to it, because everybody"),
            (&with, "fatal: unable to access 'x': The requested URL returned error: 302", "redirects elsewhere"),
            (&without, "fatal: unable to access 'x': The requested URL returned error: 302", "git could not ask"),
            (&with, "remote: you sent c2VjcmV0", "you sent ***"),
            (&without, "fatal: unable to access 'https://u:p@h/a.git/'", "unable to access 'https://h/a.git/'"),
        ] {
            let error = access.failure("https://u:p@h/a.git", "ask", said).to_string();
            assert!(error.contains(expected) && !error.contains("u:p@"), "{said}: {error}");
        }
    }
}
