//! The user's configuration file: how registries are reached, and with how much patience.
//!
//! Takes the text of a TOML file (and the values of a few environment variables that say where it is), gives typed
//! [`Settings`]. Never guesses: an unknown key, a value of the wrong type or a contradiction is an error that names the
//! line. Never reads the environment by itself, and never opens the files it names.
//!
//! ```toml
//! [registry."docker.io"]
//! mirrors = ["https://mirror.example/dockerhub", "localhost:5000"]
//!
//! [registry."registry.lan:5000"]
//! ca = "lan-ca.pem"        # trusted for this registry, instead of the system's authorities
//! insecure = true          # an unverified certificate or plain http is good enough
//!
//! [network]                # times in seconds
//! connect-timeout = 15
//! idle-timeout = 60
//! retries = 5
//! retry-delay = 0.5
//! pasta = "off"            # what gives steps a network of their own: a path, or "off" for the host's
//!
//! [logs]                   # of past builds; whichever is reached first
//! builds = 100
//! megabytes = 1024
//!
//! [store]                  # sizes, or shares of the disk that the store is on; "off" for no bound
//! keep-storage = "60%"     # after a build, what was used longest ago goes, down to this
//! min-free = "10%"         # and as much more as it takes for this to be free
//! reserved = "10%"         # but for that no further down than this
//!
//! [step]                   # what each RUN may use where the command line says nothing; as there, or a plain number
//! memory = "2g"
//! memory-swap = "2g"
//! cpus = 1.5
//! pids-limit = 512
//! timeout = "30m"          # a number is seconds
//! shm-size = "64m"
//! ulimits = ["nofile=1024:4096"]
//! cgroup-parent = "builds"
//! ```

mod file;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeTable;

use crate::limits::{self, Limits};
use crate::units::Amount;
use file::File;

/// What the configuration file says; the defaults where it says nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[registry."host[:port]"]`, by host.
    pub registries: BTreeMap<Host, Registry>,
    /// `[network]`
    pub network: Network,
    /// `[logs]`
    pub logs: Logs,
    /// `[step]`
    pub step: Limits,
    /// `[store]`
    pub store: Storage,
}

/// How one registry (or any other host that a registry sends us to) is reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Registry {
    /// Places to ask before the registry itself, in order.
    pub mirrors: Vec<Mirror>,
    /// Whether an unverified certificate, or plain http, is accepted.
    pub insecure: bool,
    /// A PEM file of the only certificate authorities trusted for this host; the system's where absent.
    pub ca: Option<PathBuf>,
}

/// A place that serves a registry's repositories under a path prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The host that is asked.
    pub host: Host,
    /// What stands between `/v2/` and the repository, without slashes at its ends; often empty.
    pub prefix: String,
    /// Whether it was written with `http://`.
    pub plain: bool,
}

/// How long to wait and how often to try again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Network {
    /// For a name to be looked up, and for a connection to stand, TLS included; each.
    pub connect_timeout: Duration,
    /// The longest time in which no byte (or next to none) arrives or leaves.
    pub idle_timeout: Duration,
    /// How many times in a row something that may pass is tried again.
    pub retries: u32,
    /// The wait before the first of these; it doubles each time.
    pub retry_delay: Duration,
    /// The program that gives steps a network of their own, or `off`; looked for in `PATH` where absent.
    pub pasta: Option<OsString>,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            idle_timeout: Duration::from_secs(60),
            retries: 5,
            retry_delay: Duration::from_millis(500),
            pasta: None,
        }
    }
}

/// How much is kept of what past builds wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logs {
    /// Of how many builds.
    pub builds: usize,
    /// How many bytes in all.
    pub bytes: u64,
}

impl Default for Logs {
    fn default() -> Self {
        Self { builds: 100, bytes: 1 << 30 }
    }
}

/// How much the store may take; what is absent is as it is by default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Storage {
    /// At most this; `Some(None)` for no bound.
    pub keep_storage: Option<Option<Amount>>,
    /// So much of the disk stays free; `Some(None)` for no bound.
    pub min_free: Option<Option<Amount>>,
    /// So much it may take even where others fill the disk.
    pub reserved: Option<Amount>,
}

/// A host with an optional port, in lower case: `ghcr.io`, `localhost:5000`, `[::1]:5000`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Host(String);

/// The text is not `host[:port]`.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
#[error("{text:?} is not a host[:port]")]
pub struct HostError {
    /// The text as it was given.
    pub text: String,
}

impl Host {
    /// The whole text, port included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name or address without port and brackets.
    pub fn name(&self) -> &str {
        match self.0.strip_prefix('[') {
            Some(rest) => rest.split(']').next().unwrap_or(rest),
            None => self.0.split(':').next().unwrap_or(&self.0),
        }
    }

    /// Whether it is this machine: `localhost`, `127.0.0.0/8` or `::1`.
    pub fn is_loopback(&self) -> bool {
        self.name() == "localhost" || self.name().parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Host {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let fail = || HostError { text: text.to_owned() };
        let lower = text.to_ascii_lowercase();
        let (name, port) = match lower.strip_prefix('[') {
            Some(rest) => {
                let (address, port) = rest.split_once(']').ok_or_else(fail)?;
                address.parse::<std::net::Ipv6Addr>().map_err(|_| fail())?;
                (address, port.strip_prefix(':').or((!port.is_empty()).then_some("")))
            }
            None => match lower.split_once(':') {
                Some((name, port)) => (name, Some(port)),
                None => (lower.as_str(), None),
            },
        };
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b)) {
            return Err(fail());
        }
        if port.is_some_and(|port| !matches!(port.parse::<u16>(), Ok(1..))) {
            return Err(fail());
        }
        // Docker Hub has several names; the one image names are normalised to stands for all.
        Ok(match lower.as_str() {
            "index.docker.io" | "registry-1.docker.io" => Self("docker.io".to_owned()),
            _ => Self(lower),
        })
    }
}

/// Where something stands in the configuration file; counted from 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line.
    pub line: usize,
    /// The column, in characters.
    pub column: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

/// Why the configuration file cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read the configuration file {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {message}")]
    Syntax {
        /// Where.
        place: Place,
        /// What the parser says.
        message: String,
    },
    /// A key that means nothing here.
    #[error("{place}: unknown key `{key}` in {table}; {}", advice(*.nearest, .known))]
    UnknownKey {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// The table it stands in.
        table: String,
        /// The keys that would mean something.
        known: &'static [&'static str],
        /// The one of these that was probably meant.
        nearest: Option<&'static str>,
    },
    /// A limit that a step cannot have.
    #[error("{place}: `{key}`: {why}")]
    Limit {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// Why.
        why: limits::Error,
    },
    /// A value that the key cannot have.
    #[error("{place}: `{key}` must be {expected}, not {found}")]
    Invalid {
        /// Where.
        place: Place,
        /// The key.
        key: String,
        /// What the value should be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}

fn advice(nearest: Option<&str>, known: &[&str]) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None => format!("known keys: {}", known.join(", ")),
    }
}

/// Looks up an environment variable.
pub type Environment<'a> = dyn Fn(&str) -> Option<OsString> + 'a;

/// Where the configuration file is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Location {
    /// Named by `$STRATA_CONFIG`: it must exist.
    Named(PathBuf),
    /// The usual places: the first that exists is taken, and none need exist.
    Usual(Vec<PathBuf>),
}

impl Location {
    /// `$STRATA_CONFIG`, else `$XDG_CONFIG_HOME/strata/config.toml` (default `~/.config`), else `/etc/strata/config.toml`.
    pub fn from_environment(environment: &Environment<'_>) -> Self {
        let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = set("STRATA_CONFIG") {
            return Self::Named(path);
        }
        // The base directory specification has relative values ignored.
        let user = set("XDG_CONFIG_HOME")
            .filter(|path| path.is_absolute())
            .or_else(|| set("HOME").map(|home| home.join(".config")))
            .map(|base| base.join("strata/config.toml"));
        Self::Usual(user.into_iter().chain([PathBuf::from("/etc/strata/config.toml")]).collect())
    }
}

impl Settings {
    /// The settings of the file at `location`; the defaults where no file is.
    ///
    /// # Errors
    /// The file exists but cannot be read or is wrong, or it was named and does not exist.
    pub fn load(location: &Location) -> Result<Self, Error> {
        let (paths, must_exist) = match location {
            Location::Named(path) => (std::slice::from_ref(path), true),
            Location::Usual(paths) => (paths.as_slice(), false),
        };
        for path in paths {
            match std::fs::read_to_string(path) {
                Ok(text) => return Self::parse(path, &text),
                Err(error) if !must_exist && is_absent(&error) => {}
                Err(source) => return Err(Error::Read { path: path.clone(), source }),
            }
        }
        Ok(Self::default())
    }

    /// The settings that `text`, read from `path`, stands for. Relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// The first thing wrong with the text.
    pub fn parse(path: &Path, text: &str) -> Result<Self, Error> {
        let file = File { path, text };
        let root = DeTable::parse(text).map_err(|error| Error::Syntax {
            place: file.place(error.span().unwrap_or_default()),
            message: error.message().to_owned(),
        })?;
        let mut settings = Self::default();
        let mut mirrors = Vec::new();
        for (key, value) in root.get_ref() {
            match key.get_ref().as_ref() {
                "registry" => {
                    for (name, value) in file.table("registry", value)? {
                        let host = file.host(name)?;
                        let registry = file.registry(&host, value, &mut mirrors)?;
                        settings.registries.insert(host, registry);
                    }
                }
                "network" => settings.network = file.network(value)?,
                "logs" => settings.logs = file.logs(value)?,
                "step" => settings.step = file.step(value)?,
                "store" => settings.store = file.store(value)?,
                _ => return Err(file.unknown(key, "the file", &["logs", "network", "registry", "step", "store"])),
            }
        }
        // Whether a mirror may be asked over plain http is said in a table of its own, so this comes last.
        for (mirror, span) in mirrors {
            if mirror.plain && !mirror.host.is_loopback() && !settings.is_insecure(&mirror.host) {
                return Err(file.invalid(
                    span,
                    "mirrors",
                    "https, unless the mirror's own table says `insecure = true`",
                    "http",
                ));
            }
        }
        Ok(settings)
    }

    /// What is said about a host.
    pub fn registry(&self, host: &Host) -> Option<&Registry> {
        self.registries.get(host)
    }

    /// Whether a host is listed as insecure.
    pub fn is_insecure(&self, host: &Host) -> bool {
        self.registry(host).is_some_and(|registry| registry.insecure)
    }
}

fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Settings, String> {
        Settings::parse(Path::new("/conf/config.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn reads_everything() {
        let settings = parse(
            "[registry.\"docker.io\"]\nmirrors = [\"https://mirror.example/hub/\", \"localhost:5000\", \"https://m/v2/p\"]\n\
             [registry.\"LAN:5000\"]\ninsecure = true\nca = \"lan.pem\"\n\
             [logs]\nbuilds = 7\nmegabytes = 2\n\
             [network]\nconnect-timeout = 3\nidle-timeout = 1.5\nretries = 0\nretry-delay = 0.01\n\
             [step]\nmemory = \"2g\"\nmemory-swap = -1\ncpus = 1.5\npids-limit = 512\ntimeout = 90\nshm-size = \"1m\"\n\
             ulimits = [\"nofile=1:2\", \"core=0\"]\ncgroup-parent = \"/a\"\n\
             [store]\nkeep-storage = \"20 GB\"\nmin-free = \"off\"\n",
        )
        .unwrap();
        let hub = &settings.registries[&"index.docker.io".parse().unwrap()];
        let mirrors: Vec<_> = hub.mirrors.iter().map(|m| (m.host.as_str(), m.prefix.as_str(), m.plain)).collect();
        assert_eq!(mirrors, [("mirror.example", "hub", false), ("localhost:5000", "", false), ("m", "p", false)]);
        let lan: Host = "lan:5000".parse().unwrap();
        assert!(settings.is_insecure(&lan));
        assert_eq!(settings.registries[&lan].ca.as_deref(), Some(Path::new("/conf/lan.pem")));
        assert_eq!(settings.network.idle_timeout, Duration::from_millis(1500));
        assert_eq!(settings.network.retries, 0);
        assert_eq!(settings.logs, Logs { builds: 7, bytes: 2 << 20 });
        let expected = Limits {
            memory: Some(2 << 30),
            memory_swap: Some(limits::Swap::Unlimited),
            processor_time: limits::processors("1.5").ok(),
            pids: Some(limits::Pids::Most(512)),
            timeout: Some(Duration::from_secs(90)),
            shm_size: Some(1 << 20),
            ulimits: vec!["nofile=1:2".parse().unwrap(), "core=0:0".parse().unwrap()],
            cgroup_parent: Some("a".into()),
            ..Limits::default()
        };
        assert_eq!(settings.step, expected);
        let expected =
            Storage { keep_storage: Some(Some(Amount::Bytes(20 << 30))), min_free: Some(None), reserved: None };
        assert_eq!(settings.store, expected);
        assert_eq!(parse("").unwrap(), Settings::default());
        assert_eq!(parse("[step]\ntimeout = \"1h\"").unwrap().step.timeout, Some(Duration::from_secs(3600)));
    }

    #[test]
    fn refuses_with_the_line_and_the_nearest_name() {
        for (text, expected) in [
            ("registry = 3", "config.toml:1:12: `registry` must be a table, not a integer"),
            ("[registri.x]", "config.toml:1:2: unknown key `registri` in the file; did you mean `registry`?"),
            (
                "\n[registry.x]\nmirror = []",
                "config.toml:3:1: unknown key `mirror` in [registry.\"x\"]; did you mean `mirrors`?",
            ),
            ("[network]\nwhatever = 1", "known keys: connect-timeout, idle-timeout, pasta, retries, retry-delay"),
            ("[registry.\"https://x\"]", "followed by a quoted host[:port], not \"https://x\""),
            ("[registry.x]\nmirrors = [\"ftp://y\"]", "config.toml:2:12: `mirrors` must be addresses"),
            ("[registry.x]\nmirrors = [\"https://y/a?b\"]", "`mirrors` must be addresses"),
            ("[registry.x]\nmirrors = [\"http://y.example\"]", "config.toml:2:12: `mirrors` must be https, unless"),
            ("[registry.x]\ninsecure = \"yes\"", "`insecure` must be true or false, not `\"yes\"`"),
            ("[network]\nidle-timeout = -1", "`idle-timeout` must be a number of seconds"),
            ("[network]\nretries = 1000", "`retries` must be a number from 0 to 100, not `1000`"),
            ("[logs]\nbuilds = 0", "config.toml:2:10: `builds` must be a number from 1 to 1000000, not `0`"),
            ("[logs]\nmegabyte = 1", "did you mean `megabytes`?"),
            ("[step]\nmemory = \"2x\"", "config.toml:2:10: `memory`: a number of bytes is expected"),
            ("[step]\nulimits = [\"nofile=1\", \"file=1\"]", "config.toml:2:24: `ulimits`: invalid ulimit type: file"),
            ("[step]\nmemory-swap = \"2g\"", "`step`: a limit on memory and swap together needs a limit on memory"),
            ("[step]\nmemroy = 1", "unknown key `memroy` in [step]; did you mean `memory`?"),
            ("[step]\npids-limit = true", "`pids-limit` must be a text or a number"),
            ("[store]\nkeep-storage = \"120%\"", "`keep-storage` must be a size such as \"20 GB\", a share of"),
            ("[store]\nreserved = \"off\"", "config.toml:2:12: `reserved` must be a size"),
            ("[store]\nkeep_storage = 1", "did you mean `keep-storage`?"),
            ("[network", "config.toml:1:"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        assert!(parse("[registry.x]\nmirrors = [\"http://y\"]\n[registry.y]\ninsecure = true").is_ok());
        assert!(parse("[registry.x]\nmirrors = [\"http://127.0.0.1:5000\"]").is_ok());
    }

    #[test]
    fn hosts_are_checked_and_normalised() {
        for (text, expected) in [
            ("GHCR.io", Some("ghcr.io")),
            ("localhost:5000", Some("localhost:5000")),
            ("[::1]:5000", Some("[::1]:5000")),
            ("registry-1.docker.io", Some("docker.io")),
            ("", None),
            ("a:0", None),
            ("a:70000", None),
            ("a/b", None),
            ("[::1", None),
            ("[::1]x", None),
            ("user@host", None),
        ] {
            assert_eq!(text.parse::<Host>().ok().as_ref().map(Host::as_str), expected, "{text}");
        }
        for (text, loopback) in [
            ("localhost", true),
            ("127.9.9.9:1", true),
            ("[::1]:5", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().is_loopback(), loopback, "{text}");
        }
    }

    #[test]
    fn the_place_of_the_file_follows_the_environment() {
        let place = |pairs: &[(&str, &str)]| {
            Location::from_environment(&|name| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| value.into())
            })
        };
        assert_eq!(place(&[("STRATA_CONFIG", "/x"), ("HOME", "/h")]), Location::Named("/x".into()));
        let usual = |paths: &[&str]| Location::Usual(paths.iter().map(PathBuf::from).collect());
        let etc = "/etc/strata/config.toml";
        assert_eq!(place(&[("STRATA_CONFIG", ""), ("HOME", "/h")]), usual(&["/h/.config/strata/config.toml", etc]));
        assert_eq!(place(&[("XDG_CONFIG_HOME", "/c"), ("HOME", "/h")]), usual(&["/c/strata/config.toml", etc]));
        assert_eq!(place(&[]), usual(&[etc]));
    }

    #[test]
    fn only_a_named_file_must_exist() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.toml");
        assert_eq!(Settings::load(&Location::Usual(vec![path.clone()])).unwrap(), Settings::default());
        assert!(matches!(Settings::load(&Location::Named(path.clone())), Err(Error::Read { .. })));
        std::fs::write(&path, "[network]\nretries = 7").unwrap();
        assert_eq!(Settings::load(&Location::Named(path)).unwrap().network.retries, 7);
    }
}
