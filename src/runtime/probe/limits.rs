//! Whether steps can be limited.

use super::{Condition, Finding, finding};
use crate::runtime::cgroup::{self, Controller, Usable};

const NAME: &str = "cgroups";

/// What control groups are good for here, and for whom.
pub(super) fn cgroups(usable: &Usable, is_root: bool) -> Finding {
    let names = |fits: fn(&Result<(), cgroup::Error>) -> bool| -> Vec<&'static str> {
        let fitting = usable.controllers.iter().filter(|(_, outcome)| fits(outcome));
        fitting.map(|(controller, _)| flag(*controller)).collect()
    };
    let (can, cannot) = (names(Result::is_ok), names(Result::is_err));
    let versions = usable.versions;
    let Some(error) = usable.controllers.iter().find_map(|(_, outcome)| outcome.as_ref().err()) else {
        return finding(NAME, Condition::Fine, format!("{versions}: {} can be used", can.join(", ")), None);
    };
    let work = if can.is_empty() { String::new() } else { format!("; {} can be used", can.join(", ")) };
    let detail = format!("{versions}: a build with {} fails{work}", cannot.join(", "));
    let remedy = remedy(error, is_root, !can.is_empty());
    finding(NAME, Condition::Degraded, detail, Some(&remedy))
}

/// The flag that asks for it.
fn flag(controller: Controller) -> &'static str {
    match controller {
        Controller::Memory => "--memory",
        Controller::Cpu => "--cpus",
        Controller::Cpuset => "--cpuset-cpus",
        Controller::Pids => "--pids-limit",
    }
}

fn remedy(error: &cgroup::Error, is_root: bool, some_work: bool) -> String {
    match error {
        cgroup::Error::VersionOne { .. } if is_root => {
            "mount the control groups writable: mount -o remount,rw /sys/fs/cgroup/CONTROLLER".to_owned()
        }
        cgroup::Error::VersionOne { .. } => {
            "build as root, or boot with systemd.unified_cgroup_hierarchy=1 on the kernel's command line".to_owned()
        }
        cgroup::Error::NotDelegated { .. } if is_root => {
            "systemd-run --scope --property=Delegate=yes strata build …".to_owned()
        }
        cgroup::Error::NotDelegated { .. } if some_work => {
            "put Delegate=cpu memory pids below [Service] with systemctl edit user@.service, and log in again"
                .to_owned()
        }
        cgroup::Error::NotDelegated { .. } => {
            "systemd-run --user --scope --property=Delegate=yes strata build …".to_owned()
        }
        cgroup::Error::NoController { controller: Controller::Memory, .. } => {
            "boot with cgroup_enable=memory on the kernel's command line; in a container, hand its controllers down"
                .to_owned()
        }
        cgroup::Error::NoController { controller, file, .. } => {
            format!("a kernel, or a container around Strata, that lists {controller} in {}", file.display())
        }
        // These come of carrying something out, which nobody has done.
        cgroup::Error::Make { .. }
        | cgroup::Error::Open { .. }
        | cgroup::Error::Write { .. }
        | cgroup::Error::Owner { .. } => "see what the build says".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cgroup::Asked;

    /// Makes what keeps a controller from being used.
    type Refusal = fn(Controller) -> cgroup::Error;

    fn usable(outcomes: [Option<Refusal>; 3]) -> Usable {
        let controllers = [Controller::Memory, Controller::Cpu, Controller::Pids].into_iter().zip(outcomes);
        let outcome = |(controller, refusal): (_, Option<Refusal>)| {
            (controller, refusal.map_or(Ok(()), |refusal| Err(refusal(controller))))
        };
        Usable { versions: "version 2", controllers: controllers.map(outcome).collect() }
    }

    #[test]
    fn what_limits_are_lost_is_said_by_flag() {
        let closed: Refusal = |_| cgroup::Error::NotDelegated { asked: Asked::default(), group: "/cg/x".into() };
        let absent: Refusal = |controller| cgroup::Error::NoController {
            asked: Asked::default(),
            controller,
            file: "/cg/cgroup.controllers".into(),
        };
        let old: Refusal = |_| cgroup::Error::VersionOne { asked: Asked::default() };
        let fine = cgroups(&usable([None, None, None]), false);
        assert_eq!(
            (fine.condition, fine.detail.as_str()),
            (Condition::Fine, "version 2: --memory, --cpus, --pids-limit can be used")
        );
        for (outcomes, is_root, detail, remedy) in [
            ([Some(closed); 3], false, "a build with --memory, --cpus, --pids-limit fails", "systemd-run --user"),
            ([Some(closed); 3], true, "a build with --memory, --cpus, --pids-limit fails", "systemd-run --scope"),
            (
                [None, Some(closed), None],
                false,
                "with --cpus fails; --memory, --pids-limit can be used",
                "systemctl edit",
            ),
            ([Some(absent), None, None], true, "with --memory fails", "cgroup_enable=memory"),
            ([None, None, Some(absent)], true, "with --pids-limit fails", "/cg/cgroup.controllers"),
            ([Some(old); 3], false, "fails", "systemd.unified_cgroup_hierarchy=1"),
        ] {
            let finding = cgroups(&usable(outcomes), is_root);
            assert_eq!(finding.condition, Condition::Degraded, "{finding:?}");
            assert!(finding.detail.contains(detail), "{finding:?}");
            assert!(finding.remedy.as_ref().is_some_and(|said| said.contains(remedy)), "{finding:?}");
        }
    }
}
