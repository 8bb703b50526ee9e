//! Which secret of the command line authenticates a fetch.
//!
//! Takes an address, gives the `Authorization` header that the secret named for its host holds, by BuildKit's names:
//! `HTTP_AUTH_TOKEN_<host>` and `HTTP_AUTH_HEADER_<host>` for files, `GIT_AUTH_TOKEN` and `GIT_AUTH_HEADER`, each with or
//! without `.<host>`, for repositories. Never keeps a value beyond the fetch.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::{Error, Fetcher};
use crate::registry::Credential;

/// The user that hosts of repositories take with a token, as BuildKit has it.
const TOKEN_USER: &str = "x-access-token";

/// Scheme and authority of an http or https address, the authority without user and password.
pub(super) fn origin(address: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = address.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let host = authority.rsplit('@').next().unwrap_or_default();
    (matches!(scheme, "http" | "https") && !host.is_empty()).then_some((scheme, host))
}

/// A host without its port and brackets.
fn name(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or(rest),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// Makes the header that a host is shown of what a secret says.
type Header = fn(&str) -> String;

impl Fetcher<'_> {
    /// What is shown to the host of a file. A token comes before a header, as in BuildKit.
    pub(super) fn credential_for_file(&self, address: &str) -> Result<Option<Credential>, Error> {
        let Some((_, host)) = origin(address) else { return Ok(None) };
        let host = name(host);
        self.first_of(&[
            (format!("HTTP_AUTH_TOKEN_{host}"), |token| format!("Bearer {token}")),
            (format!("HTTP_AUTH_HEADER_{host}"), str::to_owned),
        ])
    }

    /// What is shown to the host of a repository: what is for this host before what is for every host, and a header before
    /// a token.
    pub(super) fn credential_for_repository(&self, remote: &str) -> Result<Option<Credential>, Error> {
        let Some((_, host)) = origin(remote) else { return Ok(None) };
        let basic = |token: &str| format!("Basic {}", STANDARD.encode(format!("{TOKEN_USER}:{token}")));
        self.first_of(&[
            (format!("GIT_AUTH_HEADER.{host}"), str::to_owned),
            (format!("GIT_AUTH_TOKEN.{host}"), basic),
            ("GIT_AUTH_HEADER".to_owned(), str::to_owned),
            ("GIT_AUTH_TOKEN".to_owned(), basic),
        ])
    }

    /// The first secret that is there and says anything: scripts give an empty one for "none".
    fn first_of(&self, candidates: &[(String, Header)]) -> Result<Option<Credential>, Error> {
        for (id, header) in candidates {
            let Some(value) = self.secrets.value(id)? else { continue };
            let no_header = || Error::NoHeader { id: id.clone() };
            let value = String::from_utf8(value).map_err(|_| no_header())?;
            // Files end with a line end.
            let value = value.trim();
            if !value.is_empty() {
                return Credential::new(id, header(value)).map(Some).ok_or_else(no_header);
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_taken_from_addresses() {
        for (address, expected) in [
            ("https://h/a", Some(("https", "h", "h"))),
            ("https://h:1?x=@y", Some(("https", "h:1", "h"))),
            ("http://user:pass@h:1/a@b", Some(("http", "h:1", "h"))),
            ("https://[::1]:1/a", Some(("https", "[::1]:1", "::1"))),
            ("ssh://git@h/a", None),
            ("git@h:a", None),
            ("https://", None),
        ] {
            let found = origin(address).map(|(scheme, host)| (scheme, host, name(host)));
            assert_eq!(found, expected, "{address}");
        }
    }
}
