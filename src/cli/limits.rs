//! The flags that say what a step may use: what was typed → [`Limits`].
//!
//! They are those of `docker build` with the classic builder's meaning, which BuildKit takes and ignores; `--resource` is
//! buildx's way to give the same ones; `--cpus`, `--pids-limit` and `--step-timeout` are our own.

use clap::Args;

use crate::cli::exit::Error;
use crate::diagnostic::nearest;
use crate::limits::{self, Bandwidth, Limits, Ulimit};

/// Where help shows them.
const HEADING: &str = "Limits of each step";

/// The flags.
#[derive(Debug, Args)]
pub(super) struct LimitFlags {
    /// Memory, such as 512m or 2g
    #[arg(help_heading = HEADING, short, long, value_name = "BYTES", allow_hyphen_values = true)]
    memory: Option<String>,

    /// Memory and swap together, or -1 for any amount of swap [default: twice --memory]
    #[arg(help_heading = HEADING, long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,

    /// Processors' time, such as 1.5
    #[arg(help_heading = HEADING, long, value_name = "NUMBER")]
    cpus: Option<String>,

    /// Microseconds of processor time in each period, or -1
    #[arg(help_heading = HEADING, long, value_name = "MICROSECONDS", allow_hyphen_values = true, conflicts_with = "cpus")]
    cpu_quota: Option<String>,

    /// The period of --cpu-quota
    #[arg(help_heading = HEADING, long, value_name = "MICROSECONDS", conflicts_with = "cpus")]
    cpu_period: Option<String>,

    /// Processor time in proportion to others', who have 1024
    #[arg(help_heading = HEADING, short = 'c', long, value_name = "SHARES")]
    cpu_shares: Option<String>,

    /// The processors to run on, such as 0-3,5
    #[arg(help_heading = HEADING, long, value_name = "LIST")]
    cpuset_cpus: Option<String>,

    /// The memory nodes to use
    #[arg(help_heading = HEADING, long, value_name = "LIST")]
    cpuset_mems: Option<String>,

    /// Processes and threads at once, or -1
    #[arg(help_heading = HEADING, long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<String>,

    /// How long a step may take, such as 90s or 1h30m
    #[arg(help_heading = HEADING, long, value_name = "DURATION", allow_hyphen_values = true)]
    step_timeout: Option<String>,

    /// A limit of each process, such as nofile=1024:2048
    #[arg(help_heading = HEADING, long = "ulimit", value_name = "NAME=SOFT[:HARD]")]
    ulimits: Vec<String>,

    /// Size of /dev/shm [default: 64m]
    #[arg(help_heading = HEADING, long, value_name = "BYTES", allow_hyphen_values = true)]
    shm_size: Option<String>,

    /// The control group that steps run below
    #[arg(help_heading = HEADING, long, value_name = "GROUP")]
    cgroup_parent: Option<String>,

    /// Limits as buildx takes them: memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus, cpuset-mems
    #[arg(help_heading = HEADING, long = "resource", value_name = "NAME=VALUE")]
    resources: Vec<String>,
}

impl LimitFlags {
    /// What they mean.
    pub(super) fn read(mut self) -> Result<Limits, Error> {
        std::mem::take(&mut self.resources).iter().try_for_each(|text| self.take_resources(text))?;
        let ulimit = |text: &String| text.parse::<Ulimit>().map_err(|error| wrong("--ulimit", text, &error));
        Ok(Limits {
            memory: given("--memory", self.memory.as_ref(), limits::memory)?,
            memory_swap: given("--memory-swap", self.memory_swap.as_ref().filter(|text| *text != "0"), limits::swap)?,
            processor_time: self.processor_time()?,
            cpu_shares: given("--cpu-shares", self.cpu_shares.as_ref(), limits::cpu_shares)?.flatten(),
            cpuset_cpus: given("--cpuset-cpus", self.cpuset_cpus.as_ref(), limits::list)?,
            cpuset_mems: given("--cpuset-mems", self.cpuset_mems.as_ref(), limits::list)?,
            pids: given("--pids-limit", self.pids_limit.as_ref(), limits::pids)?,
            cgroup_parent: given("--cgroup-parent", self.cgroup_parent.as_ref(), limits::cgroup_parent)?,
            ulimits: self.ulimits.iter().map(ulimit).collect::<Result<_, _>>()?,
            shm_size: given("--shm-size", self.shm_size.as_ref(), limits::shm_size)?.flatten(),
            timeout: given("--step-timeout", self.step_timeout.as_ref(), limits::timeout)?,
        })
    }

    /// Takes a `--resource` for the flag that says the same.
    fn take_resources(&mut self, text: &str) -> Result<(), Error> {
        for part in resources(text) {
            let expected = || Error::Usage(format!("--resource {part:?}: NAME=VALUE is expected"));
            let (name, value) = part.split_once('=').ok_or_else(expected)?;
            let flag = match name {
                "memory" => &mut self.memory,
                "memory-swap" => &mut self.memory_swap,
                "cpu-shares" => &mut self.cpu_shares,
                "cpu-period" => &mut self.cpu_period,
                "cpu-quota" => &mut self.cpu_quota,
                "cpuset-cpus" => &mut self.cpuset_cpus,
                "cpuset-mems" => &mut self.cpuset_mems,
                _ => return Err(unknown_resource(name)),
            };
            if flag.replace(value.to_owned()).is_some() {
                return Err(Error::Usage(format!("--resource {part:?}: {name} is given already")));
            }
        }
        if self.cpus.is_some() && (self.cpu_quota.is_some() || self.cpu_period.is_some()) {
            return Err(Error::Usage("--cpus cannot be used with cpu-quota and cpu-period of --resource".to_owned()));
        }
        Ok(())
    }

    fn processor_time(&self) -> Result<Option<Bandwidth>, Error> {
        let (quota, period) = (self.cpu_quota.as_deref(), self.cpu_period.as_deref());
        limits::bandwidth(quota, None).map_err(|error| wrong("--cpu-quota", quota.unwrap_or_default(), &error))?;
        let time = limits::bandwidth(quota, period);
        let time = time.map_err(|error| wrong("--cpu-period", period.unwrap_or_default(), &error))?;
        Ok(given("--cpus", self.cpus.as_ref(), limits::processors)?.or(time))
    }
}

/// The parts of a list. A part without a name goes on with the value before it: `cpuset-cpus=0,2,memory=1g` are two.
fn resources(text: &str) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in text.split(',') {
        match parts.last_mut() {
            Some(last) if !part.contains('=') => *last += &format!(",{part}"),
            _ => parts.push(part.to_owned()),
        }
    }
    parts
}

fn unknown_resource(name: &str) -> Error {
    const NAMES: [&str; 7] =
        ["memory", "memory-swap", "cpu-shares", "cpu-period", "cpu-quota", "cpuset-cpus", "cpuset-mems"];
    let advice = match nearest(name, NAMES) {
        Some(name) => format!("did you mean {name}?"),
        None => format!("expected one of {}", NAMES.join(", ")),
    };
    Error::Usage(format!("--resource {name:?} is not known: {advice}"))
}

/// Reads a flag that may be absent.
fn given<T>(
    flag: &str,
    text: Option<&String>,
    read: impl Fn(&str) -> Result<T, limits::Error>,
) -> Result<Option<T>, Error> {
    text.map(|text| read(text).map_err(|error| wrong(flag, text, &error))).transpose()
}

fn wrong(flag: &str, text: &str, error: &limits::Error) -> Error {
    Error::Usage(format!("{flag} {text:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::limits::{Pids, Swap};

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        limits: LimitFlags,
    }

    fn read(words: &[&str]) -> Result<Limits, String> {
        let line = Line::try_parse_from(["x"].iter().chain(words)).map_err(|error| error.to_string())?;
        line.limits.read().map_err(|error| error.to_string())
    }

    #[test]
    fn flags_and_resources_say_the_same() {
        let expected = Limits {
            memory: Some(1 << 30),
            memory_swap: Some(Swap::Unlimited),
            processor_time: Some(Bandwidth { quota: Some(50_000), period: 20_000 }),
            cpu_shares: Some(512),
            cpuset_cpus: Some("0,2".to_owned()),
            cpuset_mems: Some("0".to_owned()),
            ..Limits::default()
        };
        let flags =
            "-m 1g --memory-swap -1 --cpu-quota 50000 --cpu-period 20000 -c 512 --cpuset-cpus 0,2 --cpuset-mems 0";
        assert_eq!(read(&flags.split(' ').collect::<Vec<_>>()).as_ref(), Ok(&expected));
        let resources =
            "memory=1g,memory-swap=-1,cpu-quota=50000,cpu-period=20000,cpu-shares=512,cpuset-cpus=0,2,cpuset-mems=0";
        assert_eq!(read(&["--resource", resources]).as_ref(), Ok(&expected));
        let ours =
            read(&["--cpus=0.5", "--pids-limit=-1", "--step-timeout=1m", "--shm-size=0", "--memory-swap=0"]).unwrap();
        let time = Some(Bandwidth { quota: Some(50_000), period: 100_000 });
        assert_eq!(
            (ours.processor_time, ours.pids, ours.shm_size, ours.memory_swap),
            (time, Some(Pids::Unlimited), None, None)
        );
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (words, part) in [
            ("--memory x", "--memory \"x\": a number of bytes"),
            ("--memory 1m", "at least 6m"),
            ("--memory -1", "a number of bytes"),
            ("--memory-swap -2", "-1 for no limit"),
            ("--cpus 0", "--cpus \"0\""),
            ("--cpus 1 --cpu-quota 5000", "cannot be used with"),
            ("--cpus 1 --resource cpu-quota=5000", "cannot be used with"),
            ("--cpu-quota 1", "--cpu-quota \"1\""),
            ("--cpu-period 1", "--cpu-period \"1\""),
            ("--cpuset-cpus a", "0-3,5"),
            ("--pids-limit few", "--pids-limit"),
            ("--step-timeout 10", "such as 90s"),
            ("--ulimit foo=1", "invalid ulimit type: foo"),
            ("--shm-size 1x", "--shm-size"),
            ("--cgroup-parent /", "--cgroup-parent"),
            ("--resource memory", "NAME=VALUE"),
            ("--resource memori=1g", "did you mean memory?"),
            ("--resource memory=1g --memory 2g", "given already"),
        ] {
            let error = read(&words.split(' ').collect::<Vec<_>>()).expect_err(words);
            assert!(error.contains(part), "{words}: {error}");
        }
    }
}
