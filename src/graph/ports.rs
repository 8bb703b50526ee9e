//! What the words of `EXPOSE` stand for.
//!
//! Takes `[[ip:]host:]port[-port][/protocol]`, gives `port/protocol` for each port of the image. Addresses and ports of a
//! host mean nothing to an image: they are checked and dropped, as BuildKit does.

use std::net::IpAddr;

use super::advice::did_you_mean;

/// What can be behind the slash.
const PROTOCOLS: [&str; 3] = ["tcp", "udp", "sctp"];

/// The word does not say which ports are meant.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(super) enum Error {
    /// The part after `/`.
    #[error("{protocol:?} is not a protocol: expected tcp, udp or sctp")]
    Protocol {
        /// What was written.
        protocol: String,
    },
    /// A port or range that is not one.
    #[error("{port:?} is not a port from 0 to 65535, nor a range of them such as 8000-8010")]
    Port {
        /// What was written.
        port: String,
    },
    /// The address before the ports.
    #[error("{address:?} is not an IP address")]
    Address {
        /// What was written.
        address: String,
    },
    /// Ranges of different sizes.
    #[error("the host's ports {host} and the container's ports {container} are ranges of different sizes")]
    Ranges {
        /// The host's side.
        host: String,
        /// The container's side.
        container: String,
    },
}

impl Error {
    /// Advice for whoever wrote it.
    pub(super) fn help(&self) -> Option<String> {
        match self {
            Self::Protocol { protocol } => did_you_mean(&protocol.to_lowercase(), PROTOCOLS),
            _ => None,
        }
    }
}

/// One word, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ports {
    /// `port/protocol`, lowest first.
    pub(super) exposed: Vec<String>,
    /// Whether the word names an address or port of the host, which has no effect.
    pub(super) names_host: bool,
    /// Whether the protocol was not written in lower case.
    pub(super) odd_case: bool,
}

/// Reads one word of `EXPOSE`.
pub(super) fn parse(word: &str) -> Result<Ports, Error> {
    let mut sides = word.rsplitn(3, ':');
    let container = sides.next().unwrap_or_default();
    let host = sides.next().unwrap_or_default();
    let address = sides.next().unwrap_or_default();

    let (container, written) = container.split_once('/').unwrap_or((container, ""));
    let protocol = if written.is_empty() { "tcp".to_owned() } else { written.to_lowercase() };
    if !PROTOCOLS.contains(&protocol.as_str()) {
        return Err(Error::Protocol { protocol: written.to_owned() });
    }
    let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(Error::Address { address: address.to_owned() });
    }
    let (first, last) = range(container)?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host)?;
        if last != first && last - first != host_last - host_first {
            return Err(Error::Ranges { host: host.to_owned(), container: container.to_owned() });
        }
    }
    Ok(Ports {
        exposed: (first..=last).map(|port| format!("{port}/{protocol}")).collect(),
        names_host: word.contains(':'),
        odd_case: protocol != written && !written.is_empty(),
    })
}

fn range(text: &str) -> Result<(u16, u16), Error> {
    let wrong = || Error::Port { port: text.to_owned() };
    // Only digits: `parse` alone would also take a sign.
    let number = |digits: &str| {
        (digits.bytes().all(|byte| byte.is_ascii_digit())).then(|| digits.parse().ok()).flatten().ok_or_else(wrong)
    };
    match text.split_once('-') {
        None => number(text).map(|port| (port, port)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first <= last { Ok((first, last)) } else { Err(wrong()) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_give_ports() {
        for (word, expected) in [
            ("80", vec!["80/tcp"]),
            ("80/", vec!["80/tcp"]),
            ("53/UDP", vec!["53/udp"]),
            ("8000-8002/sctp", vec!["8000/sctp", "8001/sctp", "8002/sctp"]),
            ("127.0.0.1:8080:80", vec!["80/tcp"]),
            ("[::1]:8080:80", vec!["80/tcp"]),
            ("::1:8080:80", vec!["80/tcp"]),
            ("8000-8010:80", vec!["80/tcp"]),
            ("65535", vec!["65535/tcp"]),
        ] {
            assert_eq!(parse(word).map(|ports| ports.exposed), Ok(expected.iter().map(ToString::to_string).collect()));
        }
        assert!(parse("1:2").unwrap().names_host);
        assert!(parse("1/Tcp").unwrap().odd_case);
        assert!(!parse("1/tcp").unwrap().odd_case);
    }

    #[test]
    fn a_misspelt_protocol_has_a_nearest_one() {
        for (word, expected) in [("80/tpc", "tcp"), ("80/UDPP", "udp"), ("80-90/sctpp", "sctp")] {
            assert_eq!(parse(word).unwrap_err().help(), Some(format!("did you mean `{expected}`?")), "{word}");
        }
        for word in ["80/http", "80/xyz", "x"] {
            assert_eq!(parse(word).unwrap_err().help(), None, "{word}");
        }
    }

    #[test]
    fn wrong_words_say_what_is_wrong() {
        for word in ["", "/tcp", "65536", "-1", "+1", "2-1", "80/http", "1-2-3", "x:1:80", "1-2:3-5", "a", "80-"] {
            assert!(parse(word).is_err(), "{word:?}");
        }
    }
}
