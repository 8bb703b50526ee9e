//! Reading the tables of the file: each value with its type, its bounds and, where it is wrong, its place.

use std::ops::Range;
use std::path::Path;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{Error, Host, Logs, Mirror, Network, Place, Registry, Storage};
use crate::diagnostic::nearest;
use crate::limits::{self, Limits};
use crate::units::{self, Amount};

/// A key with its place.
type Key<'a> = Spanned<std::borrow::Cow<'a, str>>;

/// A mirror with the place it was written, for checks that need the whole file.
type PlacedMirror = (Mirror, Range<usize>);

/// The file being read: turns places into lines, and values into types.
pub(super) struct File<'a> {
    /// Where it is.
    pub path: &'a Path,
    /// What it says.
    pub text: &'a str,
}

impl File<'_> {
    /// `[registry."host"]`; its mirrors are added to `all`, too.
    pub(super) fn registry(
        &self,
        host: &Host,
        value: &Spanned<DeValue<'_>>,
        all: &mut Vec<PlacedMirror>,
    ) -> Result<Registry, Error> {
        const KEYS: &[&str] = &["ca", "insecure", "mirrors"];
        let mut registry = Registry::default();
        for (key, value) in self.table(host.as_str(), value)? {
            match key.get_ref().as_ref() {
                "mirrors" => {
                    let fail = || self.wrong_type(key, value, "a list of texts");
                    for item in value.get_ref().as_array().ok_or_else(fail)?.iter() {
                        let mirror = self.mirror(item.get_ref().as_str().ok_or_else(fail)?, item.span())?;
                        all.push((mirror.clone(), item.span()));
                        registry.mirrors.push(mirror);
                    }
                }
                "insecure" => {
                    let given = value.get_ref().as_bool();
                    registry.insecure = given.ok_or_else(|| self.wrong_type(key, value, "true or false"))?;
                }
                "ca" => {
                    let given = value.get_ref().as_str().filter(|text| !text.is_empty());
                    let given = given.ok_or_else(|| self.wrong_type(key, value, "the path of a PEM file"))?;
                    registry.ca = Some(self.path.parent().unwrap_or(Path::new("")).join(given));
                }
                _ => return Err(self.unknown(key, &format!("[registry.\"{host}\"]"), KEYS)),
            }
        }
        Ok(registry)
    }

    fn mirror(&self, text: &str, span: Range<usize>) -> Result<Mirror, Error> {
        let fail =
            || self.invalid(span.clone(), "mirrors", "addresses such as https://host:port/prefix", format!("{text:?}"));
        let (plain, rest) = match text.split_once("://") {
            Some(("https", rest)) => (false, rest),
            Some(("http", rest)) => (true, rest),
            Some(_) => return Err(fail()),
            None => (false, text),
        };
        let (host, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let prefix = prefix.trim_matches('/');
        // `https://host/v2/` is what other tools want written; the protocol's own root adds nothing.
        let prefix = if prefix == "v2" { "" } else { prefix.strip_prefix("v2/").unwrap_or(prefix) };
        let is_plain_path = prefix.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~/".contains(&b));
        if !is_plain_path || prefix.split('/').any(|part| part == ".." || part == ".") {
            return Err(fail());
        }
        Ok(Mirror { host: host.parse().map_err(|_| fail())?, prefix: prefix.to_owned(), plain })
    }

    /// `[network]`
    pub(super) fn network(&self, value: &Spanned<DeValue<'_>>) -> Result<Network, Error> {
        const KEYS: &[&str] = &["connect-timeout", "idle-timeout", "pasta", "retries", "retry-delay"];
        let mut network = Network::default();
        for (key, value) in self.table("network", value)? {
            match key.get_ref().as_ref() {
                "connect-timeout" => network.connect_timeout = self.seconds(key, value)?,
                "idle-timeout" => network.idle_timeout = self.seconds(key, value)?,
                "retry-delay" => network.retry_delay = self.seconds(key, value)?,
                "pasta" => {
                    let given = value.get_ref().as_str().filter(|text| *text == "off" || text.starts_with('/'));
                    let given = given.ok_or_else(|| self.wrong_type(key, value, "\"off\" or an absolute path"))?;
                    network.pasta = Some(given.into());
                }
                "retries" => {
                    let count = value.get_ref().as_integer().and_then(|number| number.as_str().parse().ok());
                    let count = count.filter(|count| *count <= 100);
                    network.retries = count.ok_or_else(|| self.wrong_type(key, value, "a number from 0 to 100"))?;
                }
                _ => return Err(self.unknown(key, "[network]", KEYS)),
            }
        }
        Ok(network)
    }

    /// `[logs]`
    pub(super) fn logs(&self, value: &Spanned<DeValue<'_>>) -> Result<Logs, Error> {
        let mut logs = Logs::default();
        for (key, value) in self.table("logs", value)? {
            let number = value.get_ref().as_integer().and_then(|number| number.as_str().parse::<u32>().ok());
            let number = || {
                let number = number.filter(|number| (1..=1_000_000).contains(number));
                number.ok_or_else(|| self.wrong_type(key, value, "a number from 1 to 1000000"))
            };
            match key.get_ref().as_ref() {
                "builds" => logs.builds = number()? as usize,
                "megabytes" => logs.bytes = u64::from(number()?) << 20,
                _ => return Err(self.unknown(key, "[logs]", &["builds", "megabytes"])),
            }
        }
        Ok(logs)
    }

    /// `[step]`
    pub(super) fn step(&self, value: &Spanned<DeValue<'_>>) -> Result<Limits, Error> {
        const KEYS: &[&str] =
            &["cgroup-parent", "cpus", "memory", "memory-swap", "pids-limit", "shm-size", "timeout", "ulimits"];
        let mut step = Limits::default();
        for (key, value) in self.table("step", value)? {
            match key.get_ref().as_ref() {
                "memory" => step.memory = Some(self.limit(key, value, limits::memory)?),
                "memory-swap" => step.memory_swap = Some(self.limit(key, value, limits::swap)?),
                "cpus" => step.processor_time = Some(self.limit(key, value, limits::processors)?),
                "pids-limit" => step.pids = Some(self.limit(key, value, limits::pids)?),
                "shm-size" => step.shm_size = self.limit(key, value, limits::shm_size)?,
                "cgroup-parent" => step.cgroup_parent = Some(self.limit(key, value, limits::cgroup_parent)?),
                "timeout" if value.get_ref().as_str().is_some() => {
                    step.timeout = Some(self.limit(key, value, limits::timeout)?);
                }
                "timeout" => step.timeout = Some(self.seconds(key, value)?),
                "ulimits" => {
                    let list = value.get_ref().as_array();
                    let list =
                        list.ok_or_else(|| self.wrong_type(key, value, "a list such as [\"nofile=1024:2048\"]"))?;
                    for item in list.iter() {
                        step.ulimits.push(self.limit(key, item, str::parse)?);
                    }
                }
                _ => return Err(self.unknown(key, "[step]", KEYS)),
            }
        }
        let wrong = |why| Error::Limit { place: self.place(value.span()), key: "step".to_owned(), why };
        step.check().map_err(wrong)?;
        Ok(step)
    }

    /// `[store]`
    pub(super) fn store(&self, value: &Spanned<DeValue<'_>>) -> Result<Storage, Error> {
        let mut store = Storage::default();
        for (key, value) in self.table("store", value)? {
            match key.get_ref().as_ref() {
                "keep-storage" => store.keep_storage = Some(self.bound(key, value)?),
                "min-free" => store.min_free = Some(self.bound(key, value)?),
                "reserved" => store.reserved = Some(self.amount(key, value, "a size such as \"2 GB\", or \"10%\"")?),
                _ => return Err(self.unknown(key, "[store]", &["keep-storage", "min-free", "reserved"])),
            }
        }
        Ok(store)
    }

    /// An amount, or `"off"`.
    fn bound(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<Option<Amount>, Error> {
        if value.get_ref().as_str() == Some("off") {
            return Ok(None);
        }
        self.amount(key, value, "a size such as \"20 GB\", a share of the disk such as \"10%\", or \"off\"").map(Some)
    }

    fn amount(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>, expected: &'static str) -> Result<Amount, Error> {
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            DeValue::Integer(number) => Some(number.as_str()),
            _ => None,
        };
        text.and_then(units::amount).ok_or_else(|| self.wrong_type(key, value, expected))
    }

    /// Reads a limit as the command line would, from a text or a plain number.
    fn limit<T>(
        &self,
        key: &Key<'_>,
        value: &Spanned<DeValue<'_>>,
        read: impl Fn(&str) -> Result<T, limits::Error>,
    ) -> Result<T, Error> {
        let text = match value.get_ref() {
            DeValue::String(text) => text.as_ref(),
            DeValue::Integer(number) => number.as_str(),
            DeValue::Float(number) => number.as_str(),
            _ => return Err(self.wrong_type(key, value, "a text or a number")),
        };
        let (place, key) = (self.place(value.span()), key.get_ref().as_ref().to_owned());
        read(text).map_err(|why| Error::Limit { place, key, why })
    }

    fn seconds(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>) -> Result<Duration, Error> {
        let number = match value.get_ref() {
            DeValue::Integer(number) => number.as_str().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        };
        number
            .filter(|seconds| *seconds >= 0.001 && *seconds <= 86_400.0)
            .map(Duration::from_secs_f64)
            .ok_or_else(|| self.wrong_type(key, value, "a number of seconds between 0.001 and 86400"))
    }

    /// The host that names a table.
    pub(super) fn host(&self, key: &Key<'_>) -> Result<Host, Error> {
        let fail = |_| {
            self.invalid(key.span(), "registry", "followed by a quoted host[:port]", format!("{:?}", key.get_ref()))
        };
        key.get_ref().parse().map_err(fail)
    }

    /// A value that must be a table.
    pub(super) fn table<'t, 'i>(&self, key: &str, value: &'t Spanned<DeValue<'i>>) -> Result<&'t DeTable<'i>, Error> {
        let found = || format!("a {}", value.get_ref().type_str());
        value.get_ref().as_table().ok_or_else(|| self.invalid(value.span(), key, "a table", found()))
    }

    /// The error for a key that nobody knows.
    pub(super) fn unknown(&self, key: &Key<'_>, table: &str, known: &'static [&'static str]) -> Error {
        let name = key.get_ref().as_ref();
        Error::UnknownKey {
            place: self.place(key.span()),
            key: name.to_owned(),
            table: table.to_owned(),
            known,
            nearest: nearest(name, known.iter().copied()),
        }
    }

    fn wrong_type(&self, key: &Key<'_>, value: &Spanned<DeValue<'_>>, expected: &'static str) -> Error {
        let found = self.text.get(value.span()).unwrap_or_default().lines().next().unwrap_or_default();
        self.invalid(value.span(), key.get_ref(), expected, format!("`{found}`"))
    }

    /// The error for a value that means nothing here.
    pub(super) fn invalid(
        &self,
        span: Range<usize>,
        key: &str,
        expected: &'static str,
        found: impl Into<String>,
    ) -> Error {
        Error::Invalid { place: self.place(span), key: key.to_owned(), expected, found: found.into() }
    }

    /// Where a range of the text begins.
    pub(super) fn place(&self, span: Range<usize>) -> Place {
        let before = self.text.get(..span.start).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Place {
            path: self.path.to_owned(),
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
        }
    }
}
