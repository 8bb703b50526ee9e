//! `strata doctor`: what it finds here, and that it says what mends what is missing.

use serde_json::Value;

use crate::registry::{free_address, shared};
use crate::rootless::{RANGES, SINGLE, user};
use crate::workspace::{Finished, Workspace};

/// The findings of a run, by name.
fn findings(finished: &Finished) -> Vec<(String, String, Value)> {
    let rows: Vec<Value> = serde_json::from_str(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.describe()));
    let text = |row: &Value, key: &str| row[key].as_str().unwrap_or_else(|| panic!("{key} of {row}")).to_owned();
    rows.into_iter().map(|row| (text(&row, "name"), text(&row, "condition"), row)).collect()
}

fn condition<'a>(findings: &'a [(String, String, Value)], wanted: &str) -> &'a str {
    let found = findings.iter().find(|(name, ..)| name == wanted);
    found.map(|(_, condition, _)| condition.as_str()).unwrap_or_else(|| panic!("{wanted} in {findings:?}"))
}

#[test]
fn whoever_can_build_is_fit() {
    let mut places = vec![("root", Workspace::new())];
    for name in [RANGES, SINGLE] {
        places.extend(user(name, "doctor").map(|who| (name, Workspace::of(who))));
    }
    for (name, workspace) in places {
        let finished = workspace.strata(["doctor", "--offline", "--format", "json"]).run().success();
        let findings = findings(&finished);
        for part in ["kernel", "user namespaces", "overlay", "seccomp", "sandbox"] {
            assert_eq!(condition(&findings, part), "fine", "{name}: {}", finished.describe());
        }
        let ids = if name == SINGLE { "degraded" } else { "fine" };
        assert_eq!(condition(&findings, "id ranges"), ids, "{name}: {}", finished.describe());
        for (_, condition, row) in &findings {
            assert_eq!(row["remedy"].is_string(), condition != "fine", "{row}");
        }
        workspace.assert_nothing_left();
    }
}

#[test]
fn registries_are_asked() {
    let workspace = Workspace::new();
    let (there, gone) = (shared().address().to_owned(), free_address());
    let finished =
        workspace.strata(["doctor", "--format", "json", "--registry", &there, "--registry", &gone]).run().success();
    let said = |host: &str| {
        let row = findings(&finished).into_iter().find(|(_, _, row)| row["detail"].to_string().contains(host));
        row.unwrap_or_else(|| panic!("{host} in {}", finished.describe())).1
    };
    assert_eq!((said(&there).as_str(), said(&gone).as_str()), ("fine", "degraded"), "{}", finished.describe());
}

#[test]
fn a_machine_that_cannot_build_is_told_so() {
    let workspace = Workspace::new();
    let file = workspace.write("no-directory", "");
    let finished = workspace.strata(["doctor", "--offline"]).env("STRATA_ROOT", file).run().ended_with(3);
    assert!(finished.stdout.contains("missing") && finished.stdout.contains("to mend it"), "{}", finished.describe());
    workspace.strata(["doctor", "--registry", "no/host"]).run().fails(2, &["--registry", "no/host"]);
}
