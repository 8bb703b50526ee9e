//! What confines a step beside its namespaces: the filter of system calls, Landlock, the host's security module.

use std::io;

use super::{Condition, Finding, finding};
use crate::runtime::apparmor::{self, Profile};
use crate::runtime::selinux::{self, Refusal, Verdict};
use crate::runtime::sys;

/// Whether the kernel has filters of system calls; takes the actions that it has for them.
pub(super) fn seccomp(actions: Option<&str>) -> Finding {
    const NAME: &str = "seccomp";
    let wanted = ["kill_process", "errno", "allow"];
    match actions {
        Some(actions) if wanted.iter().all(|action| actions.split_whitespace().any(|had| had == *action)) => {
            finding(NAME, Condition::Fine, "filters are available", None)
        }
        _ => finding(
            NAME,
            Condition::Missing,
            "the kernel has no filters of system calls",
            Some("a kernel with CONFIG_SECCOMP_FILTER"),
        ),
    }
}

/// Whether Landlock keeps a step from the program that builds it.
pub(super) fn landlock(version: io::Result<i64>) -> Finding {
    const NAME: &str = "landlock";
    const LOST: &str = "a recipe can start Strata's own program inside its step";
    match version {
        Ok(version) if version >= sys::OLDEST_LANDLOCK => {
            finding(NAME, Condition::Fine, format!("version {version}"), None)
        }
        Ok(version) => finding(
            NAME,
            Condition::Degraded,
            format!("version {version} is too old: {LOST}"),
            Some("boot Linux 5.19 or newer"),
        ),
        Err(error) => finding(
            NAME,
            Condition::Degraded,
            format!("the kernel does not offer it: {LOST}"),
            Some(match error.raw_os_error() {
                Some(libc::EOPNOTSUPP) => "put landlock first in lsm= on the kernel's command line",
                Some(libc::EPERM) => "a seccomp policy around Strata that lets landlock_create_ruleset through",
                _ => "a kernel of 5.19 or newer with CONFIG_SECURITY_LANDLOCK",
            }),
        ),
    }
}

/// What the host's security module does for steps.
pub(super) fn security_module() -> Finding {
    let profile = apparmor::is_on().then(apparmor::try_profile);
    module_finding(profile, selinux::verdict())
}

fn module_finding(apparmor: Option<io::Result<Profile>>, selinux: &Verdict) -> Finding {
    const NAME: &str = "security module";
    const LOST: &str = "steps run as Strata itself does";
    let label = || selinux::Labels::TYPE;
    match (selinux, apparmor) {
        (Verdict::Labelled, _) => finding(NAME, Condition::Fine, format!("SELinux: steps run as {}", label()), None),
        (Verdict::Refused(refusal), _) => {
            let remedy = match refusal {
                Refusal::Unknown { .. } => "dnf install container-selinux",
                Refusal::Denied { .. } => "chcon -t container_runtime_exec_t \"$(command -v strata)\"",
                Refusal::Silent { .. } => {
                    "where Strata runs in a container, its /sys/fs/selinux must be the host's or hidden"
                }
            };
            finding(NAME, Condition::Degraded, format!("SELinux: {LOST}, because {refusal}"), Some(remedy))
        }
        (Verdict::Off | Verdict::Permissive, Some(Ok(Profile::Taken))) => {
            finding(NAME, Condition::Fine, "AppArmor: steps run under docker-default", None)
        }
        (Verdict::Off | Verdict::Permissive, Some(Ok(Profile::NotLoaded))) => finding(
            NAME,
            Condition::Degraded,
            format!("AppArmor: {LOST}, because there is no profile docker-default"),
            // Nobody ships it as a file: its loader is Docker.
            Some("apt-get install docker.io, whose daemon loads it at its start"),
        ),
        (Verdict::Off | Verdict::Permissive, Some(Err(error))) => finding(
            NAME,
            Condition::Degraded,
            format!("AppArmor: the profile docker-default cannot be asked for: {error}"),
            Some("see whether journalctl -k tells of a denial"),
        ),
        (Verdict::Permissive, None) => finding(NAME, Condition::Fine, "SELinux is permissive and denies nothing", None),
        (Verdict::Off, None) => finding(NAME, Condition::Fine, "none that confines steps is on", None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_of_landlock_is_judged() {
        let error = |errno| Err(io::Error::from_raw_os_error(errno));
        for (version, condition, remedy) in [
            (Ok(7), Condition::Fine, None),
            (Ok(2), Condition::Fine, None),
            (Ok(1), Condition::Degraded, Some("5.19")),
            (error(libc::ENOSYS), Condition::Degraded, Some("CONFIG_SECURITY_LANDLOCK")),
            (error(libc::EOPNOTSUPP), Condition::Degraded, Some("lsm=")),
            (error(libc::EPERM), Condition::Degraded, Some("seccomp")),
        ] {
            let finding = landlock(version);
            assert_eq!(finding.condition, condition, "{finding:?}");
            let said = finding.remedy.as_deref();
            assert_eq!(said.is_some(), remedy.is_some(), "{finding:?}");
            assert!(remedy.is_none_or(|word| said.is_some_and(|said| said.contains(word))), "{finding:?}");
        }
    }

    #[test]
    fn every_security_module_is_judged() {
        let unknown = Verdict::Refused(Refusal::Unknown { label: "container_t".to_owned() });
        let denied = Verdict::Refused(Refusal::Denied {
            source: "a".to_owned(),
            target: "b".to_owned(),
            class: "process",
            permission: "transition",
        });
        type Answer = Option<io::Result<Profile>>;
        let cases: [(Answer, &Verdict, Condition, &str); 7] = [
            (None, &Verdict::Off, Condition::Fine, "none"),
            (None, &Verdict::Permissive, Condition::Fine, "permissive"),
            (None, &Verdict::Labelled, Condition::Fine, "container_t"),
            (None, &unknown, Condition::Degraded, "container_t"),
            (None, &denied, Condition::Degraded, "transition"),
            (Some(Ok(Profile::Taken)), &Verdict::Off, Condition::Fine, "docker-default"),
            (Some(Ok(Profile::NotLoaded)), &Verdict::Off, Condition::Degraded, "docker-default"),
        ];
        for (apparmor, selinux, condition, word) in cases {
            let finding = module_finding(apparmor, selinux);
            assert_eq!(finding.condition, condition, "{finding:?}");
            assert_eq!(finding.remedy.is_some(), condition != Condition::Fine, "{finding:?}");
            assert!(finding.detail.contains(word), "{finding:?}");
        }
    }
}
