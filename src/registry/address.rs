//! Where to ask: the hosts that may serve a repository, the addresses on them, and where a redirect leads.
//!
//! Takes settings and names, gives addresses. Never connects. A host is asked over https alone, except that this machine
//! itself and hosts listed as insecure may be asked over http.

use std::fmt;

use ureq::http::Uri;

use crate::settings::{Host, Mirror, Settings};

/// How to talk to a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    Https,
    Http,
}

impl fmt::Display for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Https => "https",
            Self::Http => "http",
        })
    }
}

/// One host that may have a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Source {
    /// The host as people name it, and as credentials are filed under.
    pub(super) host: Host,
    /// Where it really listens.
    authority: String,
    /// What stands before the repository, with a slash at its end if any.
    prefix: String,
    /// The schemes that may be tried, in order; never empty.
    pub(super) schemes: Vec<Scheme>,
    /// Whether it stands in for the registry of the reference.
    pub(super) is_mirror: bool,
}

impl Source {
    /// The hosts that may have the repositories of `registry`: its mirrors in order, then itself.
    pub(super) fn all(settings: &Settings, registry: &Host) -> Vec<Self> {
        let mirrors = settings.registry(registry).map(|registry| registry.mirrors.as_slice()).unwrap_or_default();
        let mirrors = mirrors.iter().map(|mirror| Self::mirror(settings, mirror));
        mirrors.chain([Self::origin(settings, registry)]).collect()
    }

    fn mirror(settings: &Settings, mirror: &Mirror) -> Self {
        let mut source = Self::origin(settings, &mirror.host);
        source.is_mirror = true;
        if !mirror.prefix.is_empty() {
            source.prefix = format!("{}/", mirror.prefix);
        }
        if mirror.plain {
            source.schemes = vec![Scheme::Http];
        }
        source
    }

    fn origin(settings: &Settings, host: &Host) -> Self {
        let has_authorities = settings.registry(host).is_some_and(|registry| registry.ca.is_some());
        let schemes = if settings.is_insecure(host) {
            vec![Scheme::Https, Scheme::Http]
        } else if host.is_loopback() && !has_authorities {
            vec![Scheme::Http, Scheme::Https]
        } else {
            vec![Scheme::Https]
        };
        // Docker Hub answers under another name than the one its images have.
        let authority = if host.as_str() == "docker.io" { "registry-1.docker.io" } else { host.as_str() };
        Self { host: host.clone(), authority: authority.to_owned(), prefix: String::new(), schemes, is_mirror: false }
    }

    /// The address of the protocol itself, `/v2/`; the text of it where it is none.
    pub(super) fn base(&self, scheme: Scheme) -> Result<Uri, String> {
        let text = format!("{scheme}://{}/v2/", self.authority);
        text.parse().map_err(|_| text)
    }

    /// The repository's path on this host.
    pub(super) fn repository(&self, repository: &str) -> String {
        format!("{}{repository}", self.prefix)
    }

    /// The address of something in a repository, such as `manifests/latest`; the text of it where it is none.
    pub(super) fn address(&self, scheme: Scheme, repository: &str, rest: &str) -> Result<Uri, String> {
        let text = format!("{scheme}://{}/v2/{}/{rest}", self.authority, self.repository(repository));
        text.parse().map_err(|_| text)
    }
}

/// Scheme, host and port of an address: who gets to see what is sent there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    /// With the port where it is not the scheme's own.
    pub(super) host: Host,
}

impl Origin {
    /// The origin of an address, or `None` where it is not an http address of a host.
    pub(super) fn of(address: &Uri) -> Option<Self> {
        let (scheme, usual_port) = match address.scheme_str()? {
            "https" => (Scheme::Https, 443),
            "http" => (Scheme::Http, 80),
            _ => return None,
        };
        let name = address.host()?;
        let host = match address.port_u16() {
            Some(port) if port != usual_port => format!("{name}:{port}"),
            _ => name.to_owned(),
        };
        Some(Self { scheme, host: host.parse().ok()? })
    }
}

/// The address that a `Location` header found at `base` stands for (RFC 9110, 10.2.2).
pub(super) fn redirected(base: &Uri, location: &str) -> Result<Uri, &'static str> {
    let location = location.split('#').next().unwrap_or_default();
    let origin =
        || format!("{}://{}", base.scheme_str().unwrap_or("https"), base.authority().map_or("", |a| a.as_str()));
    let lower = location.get(..8).unwrap_or(location).to_ascii_lowercase();
    let text = if lower.starts_with("https://") || lower.starts_with("http://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}:{location}", base.scheme_str().unwrap_or("https"))
    } else if location.starts_with('/') {
        format!("{}{location}", origin())
    } else if location.is_empty() {
        return Err("it is empty");
    } else if location.split(['/', '?']).next().is_some_and(|first| first.contains(':')) {
        return Err("it is neither https nor http");
    } else if location.starts_with('?') {
        format!("{}{}{location}", origin(), base.path())
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{}{directory}/{location}", origin())
    };
    let address: Uri = escape(&text).parse().map_err(|_| "it is not an address")?;
    match address.authority() {
        None => Err("it names no host"),
        Some(authority) if authority.as_str().contains('@') => Err("it carries credentials"),
        Some(_) if Origin::of(&address).is_none() => Err("it names no valid host"),
        Some(_) => Ok(address),
    }
}

/// Escapes what storage services put into signed addresses although it may not stand there.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// `text` as a value in the query of an address (RFC 3986, unreserved characters as they are).
pub(super) fn query_value(text: &str) -> String {
    text.bytes().fold(String::with_capacity(text.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
        escaped
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn redirects_are_resolved() {
        let base: Uri = "https://r.example:5000/v2/a/blobs/x?y=1".parse().unwrap();
        for (location, expected) in [
            ("https://cdn.example/z?sig=a|b", Ok("https://cdn.example/z?sig=a%7Cb")),
            ("HTTP://cdn.example/z#top", Ok("http://cdn.example/z")),
            ("//cdn.example/z", Ok("https://cdn.example/z")),
            ("/elsewhere", Ok("https://r.example:5000/elsewhere")),
            ("other", Ok("https://r.example:5000/v2/a/blobs/other")),
            ("?q=2", Ok("https://r.example:5000/v2/a/blobs/x?q=2")),
            ("ftp://cdn.example/z", Err("it is neither https nor http")),
            ("file:/etc/passwd", Err("it is neither https nor http")),
            ("https://user:pass@cdn.example/z", Err("it carries credentials")),
            ("https://", Err("it is not an address")),
            ("", Err("it is empty")),
        ] {
            let got = redirected(&base, location).map(|address| address.to_string());
            assert_eq!(got, expected.map(str::to_owned), "{location}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let origin = |text: &str| Origin::of(&text.parse().unwrap());
        assert_eq!(origin("https://A.example/x"), origin("https://a.example:443/y"));
        assert_ne!(origin("https://a.example/x"), origin("http://a.example/x"));
        assert_ne!(origin("https://a.example/x"), origin("https://a.example:444/x"));
        assert_ne!(origin("https://a.example/x"), origin("https://b.example/x"));
        assert_eq!(origin("ftp://a/x"), None);
    }

    #[test]
    fn sources_follow_the_settings() {
        let settings = Settings::parse(
            Path::new("c.toml"),
            "[registry.\"docker.io\"]\nmirrors = [\"https://m.example/hub\", \"http://localhost:5000\"]\n\
             [registry.lan]\ninsecure = true\n[registry.\"localhost:1\"]\nca = \"x\"",
        )
        .unwrap();
        let table = |registry: &str| -> Vec<String> {
            let sources = Source::all(&settings, &registry.parse().unwrap());
            let address = |source: &Source, scheme| source.address(scheme, "library/x", "tags").unwrap().to_string();
            sources
                .iter()
                .flat_map(|s| s.schemes.iter().map(|scheme| address(s, *scheme)).collect::<Vec<_>>())
                .collect()
        };
        assert_eq!(
            table("docker.io"),
            [
                "https://m.example/v2/hub/library/x/tags",
                "http://localhost:5000/v2/library/x/tags",
                "https://registry-1.docker.io/v2/library/x/tags"
            ]
        );
        assert_eq!(table("lan"), ["https://lan/v2/library/x/tags", "http://lan/v2/library/x/tags"]);
        assert_eq!(
            table("127.0.0.1:5"),
            ["http://127.0.0.1:5/v2/library/x/tags", "https://127.0.0.1:5/v2/library/x/tags"]
        );
        assert_eq!(table("localhost:1"), ["https://localhost:1/v2/library/x/tags"]);
    }
}
