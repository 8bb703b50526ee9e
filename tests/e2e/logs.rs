//! What steps write: shown without loss, kept whole, and found again.

use std::fs;

use rustix::process::Signal;
use serde_json::Value;

use crate::registry::shared;
use crate::rootless::{RANGES, user};
use crate::workspace::Workspace;

/// The steps' outputs of the newest build, as they are kept.
fn log(workspace: &Workspace, step: &str) -> Vec<u8> {
    workspace.strata(["logs", "last", step]).output()
}

fn listed(workspace: &Workspace) -> Vec<Value> {
    let text = workspace.strata(["logs", "--format", "json"]).run().success().stdout;
    serde_json::from_str(&text).unwrap()
}

fn build(workspace: &Workspace, recipe: &str) -> crate::workspace::Finished {
    workspace.dockerfile(&format!("ARG BASE\nFROM ${{BASE}}\n{recipe}\n"));
    workspace.build([shared().base_argument()]).run()
}

#[test]
fn two_hundred_megabytes_at_full_rate_are_shown_and_kept_whole() {
    const TOTAL: usize = 200_000_000;
    let workspace = Workspace::new();
    let recipe = format!("RUN yes $(printf %01000d 0) | head -c {TOTAL}");
    let finished = build(&workspace, &recipe).success();
    let line = [&[b'0'; 1000][..], b"\n"].concat();
    let expected: Vec<u8> = line.iter().copied().cycle().take(TOTAL).collect();
    // Compared without assert_eq, which would print both.
    assert!(log(&workspace, "head") == expected, "the kept log differs");
    let zeros = line[..1000].to_vec();
    let whole = |shown: &str| shown.rsplit(' ').next().is_some_and(|shown| shown.as_bytes() == zeros);
    let shown = finished.stderr.lines().filter(|shown| shown.starts_with('#') && whole(shown)).count();
    assert_eq!(shown, TOTAL / line.len(), "whole lines on the screen");
    let rest = "0".repeat(TOTAL % line.len());
    assert!(finished.stderr.lines().any(|shown| shown.ends_with(&format!(" {rest}"))), "the last line is shown");
}

#[test]
fn any_bytes_are_kept_as_they_are() {
    let workspace = Workspace::new();
    build(
        &workspace,
        "RUN : long && head -c 3000000 /dev/zero | tr '\\0' x\n\
         RUN : binary && printf '\\377\\376\\000\\033[31mred\\n\\n\\001' >&2\n\
         RUN : bar && printf '10%%\\r50%%\\r100%%\\r\\ndone'\n\
         RUN : both && printf 'one\\n' && printf 'two\\n' >&2 && sleep 0.2 && printf 'three'",
    )
    .success();
    for (step, expected) in [
        ("long", "x".repeat(3_000_000).into_bytes()),
        ("binary", b"\xff\xfe\x00\x1b[31mred\n\n\x01".to_vec()),
        ("bar", b"10%\r50%\r100%\r\ndone".to_vec()),
    ] {
        assert!(log(&workspace, step) == expected, "{step}");
    }
    let mut both: Vec<_> = log(&workspace, "both").split(|byte| *byte == b'\n').map(<[u8]>::to_vec).collect();
    both.sort();
    assert_eq!(both, [b"one".to_vec(), b"three".to_vec(), b"two".to_vec()]);
}

#[test]
fn lines_of_steps_that_run_at_once_stay_whole() {
    let workspace = Workspace::new();
    let halves = |name: &str| {
        let half = name.repeat(20);
        format!(
            "for i in $(seq 500); do printf {half}; printf {half} >&2; printf '{half}\\n'; printf '{half}\\n' >&2; done"
        )
    };
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}} AS one\nRUN {} && touch /one\nFROM ${{BASE}} AS two\nRUN {} && touch /two\n\
         FROM scratch\nCOPY --from=one /one /\nCOPY --from=two /two /\n",
        halves("a"),
        halves("b"),
    ));
    let finished = workspace.build([shared().base_argument()]).run().success();
    for (name, stage) in [("a", "one"), ("b", "two")] {
        let whole = name.repeat(40);
        let shown = finished.stderr.lines().filter(|line| line.split(' ').nth(2) == Some(&whole)).count();
        assert_eq!(shown, 1000, "{}", finished.describe());
        let kept = String::from_utf8(log(&workspace, stage)).unwrap();
        assert_eq!(kept.lines().filter(|line| *line == whole).count(), 1000, "{kept}");
        assert_eq!(kept.lines().count(), 1000);
    }
}

#[test]
fn a_failed_step_shows_its_last_lines_and_names_its_log() {
    let workspace = Workspace::new();
    let finished = build(&workspace, "RUN seq 1000 1099; printf unended; exit 7").fails(1, &["exit code: 7"]);
    let (_, error) =
        finished.stderr.split_once("its last lines:\n").unwrap_or_else(|| panic!("{}", finished.describe()));
    let lines: Vec<&str> = error.lines().filter_map(|line| line.strip_prefix("  │ ")).collect();
    assert_eq!((lines.len(), lines[0], lines[19]), (20, "1081", "unended"));
    let hint = error.lines().find_map(|line| line.split_once("strata logs ")).expect("the hint names the command").1;
    let arguments: Vec<&str> = std::iter::once("logs").chain(hint.split(' ')).collect();
    let shown = workspace.strata(&arguments).run().success().stdout;
    assert!(shown.starts_with("1000\n1001\n") && shown.ends_with("1099\nunended"), "{shown}");
    let all = workspace.strata(["logs", "last"]).run().success().stdout;
    assert!(all.contains("] RUN seq") && all.contains("\n1050\n") && all.contains("exit code: 7"), "{all}");
    assert_eq!(listed(&workspace)[0]["outcome"], "failed");
    // The same as an ordinary user.
    let Some(who) = user(RANGES, "rootless: logs") else { return };
    let workspace = Workspace::of(who);
    build(&workspace, "RUN echo of a user; exit 7").fails(1, &["  │ of a user", "strata logs "]);
    assert_eq!(log(&workspace, "RUN"), b"of a user\n");
}

#[test]
fn builds_are_listed_newest_first_and_named_by_their_beginning() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    let ids: Vec<String> = ["one", "two", "three"]
        .iter()
        .map(|name| {
            let finished = workspace.build(["-t", name]).run().success();
            let (_, rest) = finished.stderr.rsplit_once(", build ").expect("the build's id is printed");
            rest.lines().next().unwrap().to_owned()
        })
        .collect();
    let listed = listed(&workspace);
    let names: Vec<&str> = listed.iter().map(|build| build["names"][0].as_str().unwrap()).collect();
    assert_eq!(names, ["three:latest", "two:latest", "one:latest"]);
    let table = workspace.strata(["logs"]).run().success().stdout;
    let shown: Vec<&str> = table.lines().skip(1).map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(shown, [&ids[2], &ids[1], &ids[0]]);
    for (name, expected) in [(ids[0].as_str(), "one"), (&ids[1][..7], "two"), ("last", "three")] {
        let text = workspace.strata(["logs", name, "--format", "json"]).run().success().stdout;
        let build: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(build["names"][0], format!("{expected}:latest"), "{text}");
        assert_eq!(build["outcome"], "done", "{text}");
    }
    workspace.strata(["logs", "x"]).run().fails(1, &["no build x"]);
    workspace.strata(["logs", "last", "nothing"]).run().fails(1, &["no step nothing", "COPY Dockerfile"]);
    Workspace::new().strata(["logs", "last"]).run().fails(1, &["no build last"]);
}

#[test]
fn a_cached_step_says_where_its_log_is() {
    let workspace = Workspace::new();
    build(&workspace, "RUN echo from the first").success();
    let first = listed(&workspace)[0]["id"].as_str().unwrap().to_owned();
    build(&workspace, "RUN echo from the first").success();
    let second = workspace.strata(["logs", "last"]).run().success().stdout;
    assert!(second.contains(&format!("CACHED: made by build {}", &first[..8])), "{second}");
    assert_eq!(log(&workspace, "RUN"), b"from the first\n");
    let text = workspace.strata(["logs", "last", "RUN", "--format", "json"]).run().success().stdout;
    let build: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(build["steps"][0]["from"]["build"], first.as_str(), "{text}");
    assert_eq!(build["steps"][0]["lines"][0]["text"], "from the first\n");
    assert_eq!(build["steps"][0]["lines"][0]["stream"], "stdout");
}

#[test]
fn secrets_are_hidden_in_logs_as_on_the_screen() {
    let workspace = Workspace::new();
    fs::write(workspace.path().join("secret"), "tell-nobody").unwrap();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\nRUN --mount=type=secret,id=s cat /run/secrets/s; echo; printf tell-; printf nobody; exit 1\n",
    );
    let secret = format!("--secret=id=s,src={}", workspace.path().join("secret").display());
    let finished = workspace.build([&shared().base_argument(), &secret]).run().fails(1, &["***"]);
    assert_eq!(finished.count("tell-nobody"), 0, "{}", finished.describe());
    assert_eq!(log(&workspace, "RUN"), b"***\n***");
    let mut grep = std::process::Command::new("grep");
    let found = grep.arg("-raF").arg("tell-nobody").arg(workspace.state()).output().unwrap();
    assert_eq!(found.status.code(), Some(1), "{}", String::from_utf8_lossy(&found.stdout));
}

#[test]
fn a_killed_build_leaves_what_it_had_come_to() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo be\"fore\"; printf 'half a line'; sleep 3600\n");
    let mut running = workspace.build([shared().base_argument()]).start();
    running.wait_for("before");
    let meanwhile = workspace.strata(["logs", "last"]).run().success().stdout;
    assert!(meanwhile.contains("before\n") && meanwhile.contains("RUNNING"), "{meanwhile}");
    running.signal(Signal::KILL);
    running.wait();
    let text = workspace.strata(["logs", "last"]).run().success().stdout;
    assert!(text.contains("before\nhalf a line\n") && text.contains("KILLED") && text.contains("was killed"), "{text}");
    assert_eq!(listed(&workspace)[0]["outcome"], "killed");
    assert_eq!(log(&workspace, "RUN"), b"before\nhalf a line");
}

#[test]
fn only_so_many_builds_are_kept() {
    let workspace = Workspace::new();
    fs::write(workspace.path().join("config.toml"), "[logs]\nbuilds = 2\nmegabytes = 1\n").unwrap();
    for name in ["one", "two", "three"] {
        build(&workspace, &format!("RUN echo {name}")).success();
    }
    assert_eq!(listed(&workspace).len(), 2);
    assert_eq!(log(&workspace, "RUN"), b"three\n");
    // More than a megabyte: the newest stays whole, alone.
    build(&workspace, "RUN head -c 3000000 /dev/zero").success();
    assert_eq!(listed(&workspace).len(), 1);
    assert_eq!(log(&workspace, "RUN").len(), 3_000_000);
    // A cached step whose log is gone still says where it was.
    build(&workspace, "RUN echo three").success();
    let text = workspace.strata(["logs", "last"]).run().success().stdout;
    assert!(text.contains("CACHED: made by build"), "{text}");
}
