//! What one step may use at most, and for how long.
//!
//! Takes what people write for Docker's flags, gives values with their meaning; merges those of the command line with
//! those of the settings. Never part of a key: a limit decides whether a step succeeds, not what it makes. Sets nothing;
//! that is the runtime's.

use std::path::{Component, Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::units;

/// The limits of each step of a build. What is absent is not limited.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Memory in bytes, page cache included.
    pub memory: Option<u64>,
    /// Memory and swap together. Where only `memory` is limited this is twice as much, as with Docker.
    pub memory_swap: Option<Swap>,
    /// How much processor time.
    pub processor_time: Option<Bandwidth>,
    /// How much processor time in proportion to others that want it, 2 to 262144; others have 1024.
    pub cpu_shares: Option<u64>,
    /// On which processors, in the kernel's list format: `0-3,5`.
    pub cpuset_cpus: Option<String>,
    /// From which memory nodes.
    pub cpuset_mems: Option<String>,
    /// How many processes and threads at once.
    pub pids: Option<Pids>,
    /// The control group that those of steps are made in, relative to the root of each hierarchy.
    pub cgroup_parent: Option<PathBuf>,
    /// Limits of single processes; of several for one resource the last counts.
    pub ulimits: Vec<Ulimit>,
    /// Size of `/dev/shm` in bytes.
    pub shm_size: Option<u64>,
    /// How long a step may take.
    pub timeout: Option<Duration>,
}

impl Limits {
    /// These limits, and `defaults` where they say nothing.
    #[must_use]
    pub fn over(self, defaults: &Self) -> Self {
        let defaults = defaults.clone();
        let mut ulimits = defaults.ulimits;
        ulimits.extend(self.ulimits);
        Self {
            // A limit on swap belongs to the limit on memory beside it.
            memory_swap: if self.memory.is_some() {
                self.memory_swap
            } else {
                self.memory_swap.or(defaults.memory_swap)
            },
            memory: self.memory.or(defaults.memory),
            processor_time: self.processor_time.or(defaults.processor_time),
            cpu_shares: self.cpu_shares.or(defaults.cpu_shares),
            cpuset_cpus: self.cpuset_cpus.or(defaults.cpuset_cpus),
            cpuset_mems: self.cpuset_mems.or(defaults.cpuset_mems),
            pids: self.pids.or(defaults.pids),
            cgroup_parent: self.cgroup_parent.or(defaults.cgroup_parent),
            ulimits,
            shm_size: self.shm_size.or(defaults.shm_size),
            timeout: self.timeout.or(defaults.timeout),
        }
    }

    /// Refuses what cannot be had together.
    ///
    /// # Errors
    /// If swap is limited and memory is not, or to less than memory.
    pub fn check(&self) -> Result<(), Error> {
        match (self.memory, self.memory_swap) {
            (None, Some(Swap::Total(_))) => Err(Error::SwapAlone),
            (Some(memory), Some(Swap::Total(total))) if total < memory => Err(Error::SwapBelowMemory { memory, total }),
            _ => Ok(()),
        }
    }
}

/// How much memory and swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Swap {
    /// So many bytes.
    Total(u64),
    /// As much swap as there is.
    Unlimited,
}

/// How much processor time in each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bandwidth {
    /// Microseconds, added up over all processors; without, no limit.
    pub quota: Option<u64>,
    /// Microseconds, 1000 to 1000000.
    pub period: u64,
}

impl Bandwidth {
    /// The period where nobody says otherwise.
    pub const PERIOD: u64 = 100_000;
}

/// How many processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pids {
    /// So many.
    Most(u64),
    /// Any number, whatever a default says.
    Unlimited,
}

/// A limit of single processes, as `setrlimit(2)` sets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ulimit {
    /// What is limited.
    pub resource: Resource,
    /// What counts; `None` is no limit.
    pub soft: Option<u64>,
    /// How far a process may raise it.
    pub hard: Option<u64>,
}

/// Declares the resources with their names, so that the list cannot be incomplete.
macro_rules! resources {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// What a [`Ulimit`] limits. (Not address space: Docker does not take that either.)
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Resource { $($(#[$doc])* $variant,)* }

        impl Resource {
            /// Every name.
            const NAMES: &'static [(&'static str, Self)] = &[$(($name, Self::$variant),)*];

            /// Its name in `--ulimit`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)* }
            }
        }
    };
}

resources! {
    /// Size of a core dump in bytes.
    Core = "core",
    /// Processor time in seconds.
    Cpu = "cpu",
    /// Data segment in bytes.
    Data = "data",
    /// Size of a file that is written, in bytes.
    Fsize = "fsize",
    /// Locks of files.
    Locks = "locks",
    /// Locked memory in bytes.
    Memlock = "memlock",
    /// Message queues in bytes.
    Msgqueue = "msgqueue",
    /// Ceiling of the nice value.
    Nice = "nice",
    /// Open files.
    Nofile = "nofile",
    /// Processes of the user.
    Nproc = "nproc",
    /// Resident pages; has no effect since Linux 2.4.30.
    Rss = "rss",
    /// Ceiling of the real-time priority.
    Rtprio = "rtprio",
    /// Real-time processor time in microseconds.
    Rttime = "rttime",
    /// Signals that wait.
    Sigpending = "sigpending",
    /// Stack in bytes.
    Stack = "stack",
}

/// Why a text is no limit.
#[derive(Debug, thiserror::Error, Clone, PartialEq, Eq)]
pub enum Error {
    /// Not a number of bytes.
    #[error("a number of bytes is expected, such as 512m or 1.5g")]
    Bytes,
    /// Less memory than any step can start with.
    #[error("at least 6m is needed")]
    TooLittleMemory,
    /// Not a number of bytes or -1.
    #[error("a number of bytes (memory and swap together), such as 1g, or -1 for no limit is expected")]
    Swap,
    /// Swap is limited and memory is not.
    #[error("a limit on memory and swap together needs a limit on memory")]
    SwapAlone,
    /// The sum is less than one of its parts.
    #[error(
        "memory and swap together ({}) cannot be less than memory ({})",
        units::write_bytes(*total),
        units::write_bytes(*memory)
    )]
    SwapBelowMemory {
        /// The limit on memory.
        memory: u64,
        /// The limit on both.
        total: u64,
    },
    /// Not a number of processors.
    #[error("a number of processors from 0.01 up is expected, such as 1.5")]
    Processors,
    /// Not a number in the range.
    #[error("a number {range} is expected")]
    Number {
        /// The range.
        range: &'static str,
    },
    /// Not a list of processors or memory nodes.
    #[error("a list such as 0-3,5 is expected")]
    List,
    /// Not a duration.
    #[error("a duration above zero is expected, such as 90s, 10m or 1h30m")]
    Duration,
    /// No control group can be called that.
    #[error("the name of a control group is expected, relative to the root of its hierarchy")]
    Group,
    /// `--ulimit` without a limit.
    #[error("invalid ulimit argument: NAME=SOFT[:HARD] is expected")]
    UlimitForm,
    /// No such resource.
    #[error("invalid ulimit type: {name} (the types are {})", Resource::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "))]
    UlimitName {
        /// The name.
        name: String,
    },
    /// The soft or hard limit is no number.
    #[error("invalid ulimit value {value:?}: a number, or -1 or infinity for no limit, is expected")]
    UlimitValue {
        /// What was given.
        value: String,
    },
    /// More than a soft and a hard limit.
    #[error("too many limits: there can only be two, SOFT[:HARD]")]
    UlimitCount,
    /// The soft limit is above the hard one.
    #[error("the soft limit must be less than or equal to the hard limit")]
    UlimitOrder,
}

/// A number of bytes of memory.
///
/// # Errors
/// If it is not, or less than 6 MiB, with which nothing starts (Docker's bound).
pub fn memory(text: &str) -> Result<u64, Error> {
    let bytes = units::bytes(text).ok_or(Error::Bytes)?;
    if bytes < 6 << 20 { Err(Error::TooLittleMemory) } else { Ok(bytes) }
}

/// Memory and swap together, or -1.
///
/// # Errors
/// If it is neither.
pub fn swap(text: &str) -> Result<Swap, Error> {
    if text == "-1" { Ok(Swap::Unlimited) } else { units::bytes(text).map(Swap::Total).ok_or(Error::Swap) }
}

/// The size of `/dev/shm`; 0 is Docker's way to ask for the default.
///
/// # Errors
/// If it is not a number of bytes.
pub fn shm_size(text: &str) -> Result<Option<u64>, Error> {
    units::bytes(text).map(|bytes| (bytes > 0).then_some(bytes)).ok_or(Error::Bytes)
}

/// A number of processors → their time.
///
/// # Errors
/// If it is not a number, or less than a hundredth.
pub fn processors(text: &str) -> Result<Bandwidth, Error> {
    let thousandths = units::processors(text).filter(|count| *count >= 10).ok_or(Error::Processors)?;
    let quota = thousandths.checked_mul(Bandwidth::PERIOD / 1000).ok_or(Error::Processors)?;
    Ok(Bandwidth { quota: Some(quota), period: Bandwidth::PERIOD })
}

/// Docker's quota and period in microseconds.
///
/// # Errors
/// If one of them is out of its range.
pub fn bandwidth(quota: Option<&str>, period: Option<&str>) -> Result<Option<Bandwidth>, Error> {
    if quota.is_none() && period.is_none() {
        return Ok(None);
    }
    let quota = match quota {
        None | Some("-1" | "0") => None,
        Some(text) => Some(number(text, 1000, u64::MAX >> 1, "of microseconds from 1000 up, or -1 for no limit,")?),
    };
    let period = match period {
        None | Some("0") => Bandwidth::PERIOD,
        Some(text) => number(text, 1000, 1_000_000, "of microseconds from 1000 to 1000000")?,
    };
    Ok(Some(Bandwidth { quota, period }))
}

/// Relative shares of processor time; 0 is Docker's way to ask for the default.
///
/// # Errors
/// If it is not a number.
pub fn cpu_shares(text: &str) -> Result<Option<u64>, Error> {
    let shares = number(text, 0, u64::MAX, "of shares, of which others have 1024,")?;
    Ok((shares > 0).then(|| shares.clamp(2, 262_144)))
}

/// How many processes; -1 and 0 are no limit.
///
/// # Errors
/// If it is not a number.
pub fn pids(text: &str) -> Result<Pids, Error> {
    match text {
        "-1" | "0" => Ok(Pids::Unlimited),
        // The kernel's own limit on pids is 2^22.
        _ => number(text, 1, 1 << 22, "of processes up to 4194304, or -1 for no limit,").map(Pids::Most),
    }
}

/// A list of processors or memory nodes.
///
/// # Errors
/// If the kernel could not read it.
pub fn list(text: &str) -> Result<String, Error> {
    let is_number = |text: &str| text.parse::<u16>().is_ok() && !text.starts_with('+');
    let item = |item: &str| match item.split_once('-') {
        Some((from, to)) => is_number(from) && is_number(to),
        None => is_number(item),
    };
    if text.split(',').all(item) { Ok(text.to_owned()) } else { Err(Error::List) }
}

/// How long a step may take.
///
/// # Errors
/// If it is not a duration, or not above zero.
pub fn timeout(text: &str) -> Result<Duration, Error> {
    match units::duration(text) {
        Some((false, duration)) if !duration.is_zero() => Ok(duration),
        _ => Err(Error::Duration),
    }
}

/// The name of a control group, without what would lead out of the hierarchy: `/x`, `x` and `../x` are one, as with Docker.
///
/// # Errors
/// If nothing is left, or a part is too long for a file's name.
pub fn cgroup_parent(text: &str) -> Result<PathBuf, Error> {
    let mut path = PathBuf::new();
    for part in Path::new(text).components() {
        match part {
            Component::Normal(name) if name.len() <= 255 => path.push(name),
            Component::Normal(_) => return Err(Error::Group),
            Component::ParentDir => drop(path.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    if path.as_os_str().is_empty() || text.contains('\0') { Err(Error::Group) } else { Ok(path) }
}

fn number(text: &str, least: u64, most: u64, range: &'static str) -> Result<u64, Error> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = text.parse().ok().filter(|number| plain && (least..=most).contains(number));
    number.ok_or(Error::Number { range })
}

impl FromStr for Ulimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, values) = text.split_once('=').ok_or(Error::UlimitForm)?;
        let known = Resource::NAMES.iter().find(|(known, _)| *known == name);
        let (_, resource) = known.ok_or_else(|| Error::UlimitName { name: name.to_owned() })?;
        let value = |text: &str| match text {
            "-1" | "infinity" => Ok(None),
            _ => text.parse().map(Some).map_err(|_| Error::UlimitValue { value: text.to_owned() }),
        };
        let (soft, hard) = match *values.split(':').collect::<Vec<_>>() {
            [soft] => (value(soft)?, value(soft)?),
            [soft, hard] => (value(soft)?, value(hard)?),
            _ => return Err(Error::UlimitCount),
        };
        match (soft, hard) {
            (None, Some(_)) => Err(Error::UlimitOrder),
            (Some(soft), Some(hard)) if soft > hard => Err(Error::UlimitOrder),
            _ => Ok(Self { resource: *resource, soft, hard }),
        }
    }
}

impl std::fmt::Display for Ulimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |value: Option<u64>| value.map_or_else(|| "-1".to_owned(), |value| value.to_string());
        write!(f, "{}={}:{}", self.resource.name(), text(self.soft), text(self.hard))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ulimits_are_docker_s() {
        let of = |soft, hard| Ok(Ulimit { resource: Resource::Nofile, soft, hard });
        let value = |value: &str| Err(Error::UlimitValue { value: value.to_owned() });
        for (text, expected) in [
            ("nofile=5", of(Some(5), Some(5))),
            ("nofile=5:6", of(Some(5), Some(6))),
            ("nofile=-1", of(None, None)),
            ("nofile=10:-1", of(Some(10), None)),
            ("nofile=10:infinity", of(Some(10), None)),
            ("nofile=0:0", of(Some(0), Some(0))),
            ("nofile", Err(Error::UlimitForm)),
            ("foo=1", Err(Error::UlimitName { name: "foo".to_owned() })),
            ("NOFILE=1", Err(Error::UlimitName { name: "NOFILE".to_owned() })),
            ("as=1", Err(Error::UlimitName { name: "as".to_owned() })),
            ("nofile=1:2:3", Err(Error::UlimitCount)),
            ("nofile=5:3", Err(Error::UlimitOrder)),
            ("nofile=-1:10", Err(Error::UlimitOrder)),
            ("nofile=x", value("x")),
            ("nofile=10:", value("")),
            ("nofile=-2", value("-2")),
        ] {
            assert_eq!(text.parse(), expected, "{text}");
            if let Ok(ulimit) = text.parse::<Ulimit>() {
                assert_eq!(ulimit.to_string().parse(), Ok(ulimit), "{text}");
            }
        }
    }

    #[test]
    fn quantities_have_bounds() {
        assert_eq!(memory("512m"), Ok(512 << 20));
        assert_eq!(memory("5m"), Err(Error::TooLittleMemory));
        assert_eq!(memory("-1"), Err(Error::Bytes));
        assert_eq!(swap("-1"), Ok(Swap::Unlimited));
        assert_eq!(swap("1g"), Ok(Swap::Total(1 << 30)));
        assert_eq!(swap("-2"), Err(Error::Swap));
        assert_eq!((shm_size("0"), shm_size("1.5g"), shm_size("1x")), (Ok(None), Ok(Some(3 << 29)), Err(Error::Bytes)));
        assert_eq!(processors("1.5"), Ok(Bandwidth { quota: Some(150_000), period: 100_000 }));
        assert_eq!(processors("0.001"), Err(Error::Processors));
        assert_eq!((pids("0"), pids("-1"), pids("7")), (Ok(Pids::Unlimited), Ok(Pids::Unlimited), Ok(Pids::Most(7))));
        assert!(pids("+7").is_err() && pids("-7").is_err() && pids("9999999").is_err());
        assert_eq!(
            (cpu_shares("1"), cpu_shares("0"), cpu_shares("9999999")),
            (Ok(Some(2)), Ok(None), Ok(Some(262_144)))
        );
        assert_eq!(timeout("1m30s"), Ok(Duration::from_secs(90)));
        for text in ["0", "-1s", "10", ""] {
            assert_eq!(timeout(text), Err(Error::Duration), "{text}");
        }
    }

    #[test]
    fn quota_and_period_go_together() {
        let of = |quota, period| Ok(Some(Bandwidth { quota, period }));
        assert_eq!(bandwidth(None, None), Ok(None));
        assert_eq!(bandwidth(Some("50000"), None), of(Some(50_000), 100_000));
        assert_eq!(bandwidth(Some("50000"), Some("10000")), of(Some(50_000), 10_000));
        assert_eq!(bandwidth(Some("-1"), Some("10000")), of(None, 10_000));
        for (quota, period) in [(Some("999"), None), (Some("x"), None), (None, Some("999")), (None, Some("1000001"))] {
            assert!(bandwidth(quota, period).is_err(), "{quota:?} {period:?}");
        }
    }

    #[test]
    fn lists_and_groups_cannot_say_more_than_they_should() {
        for text in ["0", "0-3", "0,2-4,7"] {
            assert_eq!(list(text).as_deref(), Ok(text));
        }
        for text in ["", "a", "0-", "-1", "0,,1", "0 1", "0\n1", "+1"] {
            assert_eq!(list(text), Err(Error::List), "{text}");
        }
        for (text, expected) in [("/x", "x"), ("x/y", "x/y"), ("../../x", "x"), ("a/../b", "b"), ("x.slice", "x.slice")]
        {
            assert_eq!(cgroup_parent(text).unwrap(), Path::new(expected), "{text}");
        }
        for text in ["", "/", "..", "a/.."] {
            assert_eq!(cgroup_parent(text), Err(Error::Group), "{text}");
        }
    }

    #[test]
    fn the_command_line_goes_before_the_settings() {
        let settings = Limits {
            memory: Some(1 << 30),
            memory_swap: Some(Swap::Total(1 << 30)),
            pids: Some(Pids::Most(100)),
            ulimits: vec!["core=0".parse().unwrap()],
            ..Limits::default()
        };
        let typed = Limits { memory: Some(2 << 30), pids: Some(Pids::Unlimited), ..Limits::default() };
        let both = typed.clone().over(&settings);
        assert_eq!((both.memory, both.memory_swap, both.pids), (Some(2 << 30), None, Some(Pids::Unlimited)));
        assert_eq!(both.ulimits, settings.ulimits);
        assert_eq!(Limits::default().over(&settings), settings);
        assert_eq!(typed.clone().over(&Limits::default()), typed);
        let wrong =
            |memory, total| Limits { memory, memory_swap: Some(Swap::Total(total)), ..Limits::default() }.check();
        assert_eq!(wrong(None, 1), Err(Error::SwapAlone));
        assert_eq!(wrong(Some(2), 1), Err(Error::SwapBelowMemory { memory: 2, total: 1 }));
        assert_eq!(wrong(Some(2), 2), Ok(()));
    }
}
