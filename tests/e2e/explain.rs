//! Why a step is made again, or where its result comes from: `strata explain`, `strata build --explain`, and the comments
//! that say when a result counts.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::Duration;

use serde_json::Value;

use crate::registry::{self, shared};
use crate::rootless;
use crate::workspace::{Finished, Workspace};

/// Two stages, one that copies files and one that mounts them, and a third that takes from both.
const RECIPE: &str = "ARG BASE\n\
    FROM ${BASE} AS first\n\
    WORKDIR /app\n\
    COPY src src\n\
    FROM ${BASE} AS second\n\
    ARG VERSION=1\n\
    ENV API_TOKEN=none\n\
    RUN --mount=type=bind,source=src,target=/src cat /src/main.txt >/seen\n\
    FROM ${BASE}\n\
    COPY --from=first /app /app\n\
    COPY --from=second /seen /\n";

/// Writes recipe and files anew.
fn ground(workspace: &Workspace) {
    fs::remove_dir_all(workspace.context()).unwrap();
    fs::create_dir(workspace.context()).unwrap();
    workspace.dockerfile(RECIPE);
    for name in ["a.txt", "b.txt", "c.txt", "main.txt"] {
        let path = workspace.write(&format!("src/{name}"), format!("{name}\n"));
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }
}

fn build(workspace: &Workspace, arguments: &[&str]) -> Finished {
    workspace.build([&["-t", "explained", &shared().base_argument()], arguments].concat()).run().success()
}

fn explain(workspace: &Workspace, arguments: &[&str]) -> Finished {
    let (context, base) = (workspace.context(), shared().base_argument());
    let all = [&["explain", &base], arguments, &[context.to_str().unwrap()]].concat();
    workspace.strata(all).run().success()
}

/// What is said of the step whose title holds a text.
fn said(workspace: &Workspace, arguments: &[&str], step: &str) -> Value {
    let document = explain(workspace, &[&["--format", "json"], arguments].concat()).stdout;
    let document: Value = serde_json::from_str(&document).unwrap();
    let steps = document["steps"].as_array().unwrap();
    let step = steps.iter().find(|one| one["title"].as_str().unwrap().contains(step));
    step.unwrap_or_else(|| panic!("no such step in {document:#}")).clone()
}

/// One change, and what must be said of a step then.
struct Case {
    what: &'static str,
    change: fn(&Workspace),
    arguments: &'static [&'static str],
    step: &'static str,
    answer: &'static str,
    summary: &'static str,
}

const fn nothing(_: &Workspace) {}

fn edit(workspace: &Workspace, from: &str, to: &str) {
    assert!(RECIPE.contains(from), "{from}");
    workspace.dockerfile(&RECIPE.replacen(from, to, 1));
}

/// A summary may be given by its beginning and its end, with `…` between.
const CASES: &[Case] = &[
    Case { what: "nothing", change: nothing, arguments: &[], step: "COPY src", answer: "hit", summary: "made …" },
    Case {
        what: "a file is edited",
        change: |workspace| drop(workspace.write("src/main.txt", "edited\n")),
        arguments: &[],
        step: "COPY src",
        answer: "miss",
        summary: "src/main.txt changed",
    },
    Case {
        what: "a mounted file is edited",
        change: |workspace| drop(workspace.write("src/main.txt", "edited\n")),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "src/main.txt changed",
    },
    Case {
        what: "what depends on that",
        change: |workspace| drop(workspace.write("src/main.txt", "edited\n")),
        arguments: &[],
        step: "COPY --from=first",
        answer: "unknown",
        summary: "depends on [first 3/3] COPY src src, which would run…",
    },
    Case {
        what: "files are edited, added and removed",
        change: |workspace| {
            workspace.write("src/a.txt", "edited\n");
            workspace.write("src/new.txt", "new\n");
            fs::remove_file(workspace.context().join("src/b.txt")).unwrap();
        },
        arguments: &[],
        step: "COPY src",
        answer: "miss",
        summary: "src/a.txt changed (+2 files)",
    },
    Case {
        what: "a file is added",
        change: |workspace| drop(workspace.write("src/new.txt", "new\n")),
        arguments: &[],
        step: "COPY src",
        answer: "miss",
        summary: "src/new.txt added",
    },
    Case {
        what: "a mode is changed",
        change: |workspace| {
            let path = workspace.context().join("src/main.txt");
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        },
        arguments: &[],
        step: "COPY src",
        answer: "miss",
        summary: "src/main.txt changed",
    },
    Case {
        what: "a file becomes a link",
        change: |workspace| {
            fs::remove_file(workspace.context().join("src/a.txt")).unwrap();
            symlink("main.txt", workspace.context().join("src/a.txt")).unwrap();
        },
        arguments: &[],
        step: "COPY src",
        answer: "miss",
        summary: "src/a.txt changed",
    },
    Case {
        what: "an argument is changed",
        change: nothing,
        arguments: &["--build-arg=VERSION=2"],
        step: "RUN",
        answer: "miss",
        summary: "VERSION: 1 → 2 (ARG, line 6)",
    },
    Case {
        what: "a variable that sounds secret is changed",
        change: |workspace| edit(workspace, "API_TOKEN=none", "API_TOKEN=other"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "API_TOKEN changed (its value is not shown) (ENV, line 7)",
    },
    Case {
        what: "a variable is new, and another changed",
        change: |workspace| edit(workspace, "ARG VERSION=1\n", "ARG VERSION=2\nENV B=\"x y\"\n"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "VERSION: 1 → 2 (ARG, line 6), B=\"x y\" is new (ENV, line 7)",
    },
    Case {
        what: "the command is edited",
        change: |workspace| edit(workspace, "cat /src/main.txt >/seen", "cat /src/a.txt >/seen"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "the command: \"cat /src/main.txt >/seen\" → \"cat /src/a.txt >/seen\"",
    },
    Case {
        what: "a step is new, and none of its own is taken for it",
        change: |workspace| edit(workspace, "RUN --mount", "RUN echo a\nRUN --mount"),
        arguments: &[],
        step: "RUN echo a",
        answer: "miss",
        summary: "never run before",
    },
    Case {
        what: "the user is another",
        change: |workspace| edit(workspace, "ARG VERSION", "USER 1000\nARG VERSION"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "user: root → 1000",
    },
    Case {
        what: "the network is another",
        change: nothing,
        arguments: &["--network=none"],
        step: "RUN",
        answer: "miss",
        summary: "network: default → none",
    },
    Case {
        what: "times are bounded",
        change: nothing,
        arguments: &["--build-arg=SOURCE_DATE_EPOCH=1"],
        step: "COPY src",
        answer: "unknown",
        summary: "SOURCE_DATE_EPOCH: not set → 1; and it depends on 2/3 WORKDIR /app, which is not known yet",
    },
    Case {
        what: "times are bounded, as the first step sees it",
        change: nothing,
        arguments: &["--build-arg=SOURCE_DATE_EPOCH=1"],
        step: "WORKDIR",
        answer: "miss",
        summary: "SOURCE_DATE_EPOCH: not set → 1",
    },
    Case {
        what: "files get an owner",
        change: |workspace| edit(workspace, "COPY src src", "COPY --chown=1 --chmod=600 src src"),
        arguments: &[],
        step: "COPY --chown",
        answer: "miss",
        summary: "--chown: not set → 1, --chmod: not set → 600",
    },
    Case {
        what: "the place of a mount is another",
        change: |workspace| edit(workspace, "target=/src cat /src", "target=/other cat /other"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "the command: …",
    },
    Case {
        what: "the base is another",
        change: |workspace| edit(workspace, "FROM ${BASE} AS first", "ARG RICH\nFROM scratch AS first"),
        arguments: &[],
        step: "WORKDIR",
        answer: "miss",
        summary: "it starts from nothing, not from image …",
    },
    Case {
        what: "nobody wants results",
        change: nothing,
        arguments: &["--no-cache"],
        step: "RUN",
        answer: "miss",
        summary: "not looked up: --no-cache",
    },
    Case {
        what: "nobody wants results of a stage, by name",
        change: nothing,
        arguments: &["--no-cache-filter=SECOND"],
        step: "RUN",
        answer: "miss",
        summary: "not looked up: --no-cache-filter second",
    },
    Case {
        what: "nobody wants results of a stage, by number",
        change: nothing,
        arguments: &["--no-cache-filter=0"],
        step: "WORKDIR",
        answer: "miss",
        summary: "not looked up: --no-cache-filter first",
    },
    Case {
        what: "nobody wants results of another stage",
        change: nothing,
        arguments: &["--no-cache-filter=0"],
        step: "RUN",
        answer: "hit",
        summary: "made …",
    },
    Case {
        what: "nobody wants copies of the last stage, which has no name",
        change: nothing,
        arguments: &["--no-cache-filter=stage-2"],
        step: "COPY --from=first",
        answer: "miss",
        summary: "not looked up: --no-cache-filter stage-2",
    },
    Case {
        what: "the recipe wants no results",
        change: |workspace| edit(workspace, "RUN --mount", "# strata: no-cache\nRUN --mount"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "not looked up: `# strata: no-cache` stands above it",
    },
    Case {
        what: "the recipe wants young results",
        change: |workspace| edit(workspace, "RUN --mount", "# strata: ttl=1ms\nRUN --mount"),
        arguments: &[],
        step: "RUN",
        answer: "miss",
        summary: "its result is older than ttl=1ms: made …",
    },
    Case {
        what: "the recipe wants results that are young enough: no other key comes of it",
        change: |workspace| edit(workspace, "RUN --mount", "# strata: ttl=24h\nRUN --mount"),
        arguments: &[],
        step: "RUN",
        answer: "hit",
        summary: "made …",
    },
];

#[test]
fn every_change_is_named() {
    let workspace = Workspace::new();
    ground(&workspace);
    build(&workspace, &[]);
    for case in CASES {
        ground(&workspace);
        (case.change)(&workspace);
        let said = said(&workspace, case.arguments, case.step);
        let summary = said["summary"].as_str().unwrap();
        let fits = match case.summary.split_once('…') {
            Some((start, end)) => summary.starts_with(start) && summary.ends_with(end),
            None => summary == case.summary,
        };
        assert!(fits && said["answer"] == case.answer, "{}: {summary}\n{said:#}", case.what);
        // The same in text, which has the summary on a line of its own.
        let text = explain(&workspace, case.arguments).stdout;
        // Its age may be another by then.
        let said = summary.split(" (").next().unwrap();
        assert!(text.lines().any(|line| line.trim().starts_with(said)), "{}: {text}", case.what);
    }
    // Nothing of all this changed an answer.
    ground(&workspace);
    let again = build(&workspace, &[]);
    assert!(again.stderr.contains("0 done, 5 cached"), "{}", again.describe());
}

#[test]
fn documents_say_all_that_lines_shorten() {
    let workspace = Workspace::new();
    ground(&workspace);
    build(&workspace, &[]);
    workspace.write("src/main.txt", "edited\n");
    let path = workspace.context().join("src/a.txt");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    fs::remove_file(workspace.context().join("src/b.txt")).unwrap();
    for number in 0..20 {
        workspace.write(&format!("src/new/{number:02}"), "");
    }
    let copy = said(&workspace, &[], "COPY src");
    assert_eq!((&copy["line"], &copy["stage"], &copy["reason"]), (&4.into(), &"first".into(), &"changed".into()));
    assert_eq!(
        (&copy["earlier"]["text"], &copy["earlier"]["step"]),
        (&"COPY src src".into(), &copy["earlier"]["step"])
    );
    assert_eq!(copy["earlier"]["build"].as_str().unwrap().len(), 32);
    let files = &copy["differences"][0];
    assert_eq!(copy["differences"].as_array().unwrap().len(), 1);
    assert_eq!((&files["field"], &files["source"]), (&"files".into(), &"the build context".into()));
    assert_eq!((&files["added"], &files["removed"], &files["changed"]), (&21.into(), &1.into(), &2.into()));
    let change = |path: &str| {
        let paths = files["paths"].as_array().unwrap();
        paths.iter().find(|one| one["path"] == path).unwrap()["change"].as_str().unwrap().to_owned()
    };
    assert_eq!(change("src/main.txt"), "content");
    assert_eq!(change("src/a.txt"), "mode 0644 → 0600");
    assert_eq!(change("src/b.txt"), "removed");
    assert_eq!(change("src/new/07"), "added");
    let text = explain(&workspace, &[]).stdout;
    for line in ["src/a.txt changed (+23 files)", "src/b.txt: removed", "and 14 more of the build context"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert!(text.ends_with("1 known, 2 to be made, 2 depend on these\n"), "{text}");
}

#[test]
fn a_build_explains_each_step_as_it_comes() {
    let workspace = Workspace::new();
    ground(&workspace);
    let first = build(&workspace, &["--explain"]);
    assert_eq!((first.count(" MISS never run before"), first.count(" MISS ")), (5, 5), "{}", first.describe());
    let second = build(&workspace, &["--explain"]);
    assert_eq!((second.count(" HIT made "), second.count(" MISS ")), (5, 0), "{}", second.describe());
    // Who made it is the build that `strata logs` knows.
    let logs = workspace.strata(["logs", "--format=json"]).run().success().stdout;
    let made_by = logs.matches("\"id\"").count();
    assert_eq!(made_by, 2, "{logs}");
    let short = |line: &str| line.split("by build ").nth(1).unwrap().split(',').next().unwrap().to_owned();
    let line = second.stderr.lines().find(|line| line.contains(" HIT made ")).unwrap();
    assert!(line.contains(" ago)") && line.contains("; it took "), "{line}");
    workspace.strata(["logs", &short(line)]).run().success();

    // What the copy makes is another layer, so what stands on it is explained by that.
    workspace.write("src/main.txt", "edited\n");
    let third = build(&workspace, &["--explain"]);
    assert_eq!(third.count(" MISS "), 4, "{}", third.describe());
    for line in [
        "MISS src/main.txt changed",
        "MISS app/src/main.txt changed",
        "MISS seen changed, the step above (line 10, COPY --from=first /app /app) made another layer",
        "  src/main.txt: content",
        "  compared with the run made ",
    ] {
        assert!(third.stderr.contains(line), "{line:?}: {}", third.describe());
    }
}

#[test]
fn events_for_programs_hold_the_explanation() {
    let workspace = Workspace::new();
    ground(&workspace);
    let context = workspace.context();
    let base = shared().base_argument();
    let arguments = ["build", "--progress=rawjson", "--explain", &base, context.to_str().unwrap()];
    let events = || -> Vec<Value> {
        let finished = workspace.strata(arguments).run().success();
        let lines = finished.stderr.lines().filter(|line| line.starts_with('{'));
        lines.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let explained: Vec<Value> = events().into_iter().filter(|event| event["event"] == "explained").collect();
    assert_eq!(explained.len(), 5);
    assert!(explained.iter().all(|event| event["explanation"]["reason"] == "never-run" && event["task"].is_u64()));
    let cached: Vec<Value> = events().into_iter().filter(|event| event["event"] == "cached").collect();
    assert_eq!(cached.len(), 5);
    assert!(cached.iter().all(|event| event["explanation"]["answer"] == "hit"), "{cached:?}");
}

#[test]
fn a_base_that_moved_is_named_with_both_digests() {
    let workspace = Workspace::new();
    let name = format!("{}/strata/moving", shared().address());
    workspace.dockerfile(&format!("FROM {name}\nRUN true\nRUN echo again\n"));
    registry::push(&shared().layout("busybox"), &format!("{name}:latest"), &[]);
    workspace.build(["-t", "x"]).run().success();
    registry::push(&shared().layout("rich"), &format!("{name}:latest"), &[]);
    let step = said(&workspace, &["--pull"], "RUN true");
    let differences = step["differences"].as_array().unwrap();
    let parent = differences.iter().find(|one| one["field"] == "parent").unwrap();
    let digest = |side: &str| parent[side]["digest"].as_str().unwrap().to_owned();
    assert_ne!(digest("old"), digest("new"));
    let brief = |side: &str| format!("{}…", &digest(side)[..19]);
    let moved = format!("base image {name}:latest moved: {} → {}", brief("old"), brief("new"));
    let built = workspace.build(["--pull", "--explain", "-t", "x"]).run().success();
    assert!(built.stderr.contains(&moved), "{moved}: {}", built.describe());
    // The first step adds nothing to either base: its layer is the same, and what is below it is not.
    assert!(built.stderr.contains("what is below the step above (line 2, RUN true) changed"), "{}", built.describe());
}

#[test]
fn a_checkout_elsewhere_is_compared_with_the_first() {
    let workspace = Workspace::new();
    ground(&workspace);
    build(&workspace, &[]);
    let moved = workspace.path().join("moved");
    fs::rename(workspace.context(), &moved).unwrap();
    fs::create_dir(workspace.context()).unwrap();
    fs::write(moved.join("src/main.txt"), "edited\n").unwrap();
    let base = shared().base_argument();
    let arguments = ["explain", &base, moved.to_str().unwrap()];
    let text = workspace.strata(arguments).run().success().stdout;
    assert!(text.contains("src/main.txt changed"), "{text}");
}

#[test]
fn secrets_are_hidden() {
    let workspace = Workspace::new();
    ground(&workspace);
    let file = workspace.path().join("secret");
    fs::write(&file, "hunter2-is-long\n").unwrap();
    let secret = format!("--secret=id=s,src={}", file.display());
    build(&workspace, &["--build-arg=VERSION=earlier-secret", &secret]);
    let arguments = ["--build-arg=VERSION=a hunter2-is-long b", &secret];
    for format in ["text", "json"] {
        let finished = explain(&workspace, &[&["--format", format][..], &arguments].concat());
        assert!(finished.stdout.contains("VERSION changed (its value is not shown)"), "{}", finished.describe());
        for value in ["hunter2", "earlier-secret"] {
            let shown = finished.stdout.contains(value) || finished.stderr.contains(value);
            assert!(!shown, "{value}: {}", finished.describe());
        }
    }
    let built = build(&workspace, &[&["--explain"][..], &arguments].concat());
    assert!(built.stderr.contains("VERSION changed (its value is not shown)"), "{}", built.describe());
    assert!(!built.stderr.contains("hunter2") && !built.stderr.contains("earlier-secret"), "{}", built.describe());
}

#[test]
fn what_is_damaged_or_gone_is_a_miss_with_that_reason() {
    let workspace = Workspace::new();
    ground(&workspace);
    // The same layers each time, so that each step has the key it had.
    let build = || build(&workspace, &["--explain", "--build-arg=SOURCE_DATE_EPOCH=1"]);
    build();
    let records = || {
        let mut files = Vec::new();
        let mut todo = vec![workspace.state().join("cache/steps-v1")];
        while let Some(path) = todo.pop() {
            if path.is_dir() {
                todo.extend(fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()));
            } else {
                files.push(path);
            }
        }
        files
    };
    for path in records() {
        fs::write(path, "damaged").unwrap();
    }
    let damaged = build();
    assert_eq!(damaged.count(" MISS what was remembered of it was damaged"), 5, "{}", damaged.describe());
    for path in records() {
        fs::remove_file(path).unwrap();
    }
    let removed = build();
    assert_eq!(removed.count(" MISS it was made before, but what was remembered of it was removed"), 5);
    // Without all that only explaining needs, everything is built as before.
    for bucket in ["history-v1", "listings-v1"] {
        let directory = workspace.state().join("cache").join(bucket);
        for entry in fs::read_dir(&directory).unwrap() {
            for file in fs::read_dir(entry.unwrap().path()).unwrap() {
                fs::write(file.unwrap().path(), "damaged").unwrap();
            }
        }
    }
    workspace.write("src/main.txt", "edited\n");
    let built = build();
    assert!(built.stderr.contains(" MISS never run before"), "{}", built.describe());
    workspace.write("src/main.txt", "edited again\n");
    let built = build();
    assert!(built.stderr.contains("MISS src/main.txt changed"), "{}", built.describe());
}

#[test]
fn comments_say_when_results_count() {
    let workspace = Workspace::new();
    let say = |name: &str| format!("RUN echo ran-\"{name}\"");
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}}\n# strata: no-cache\n{} && date +%N >/tmp/x && rm /tmp/x\n{}\n# strata: ttl=2s\n{}\n# strata: no-cache\nCOPY f /\n\
         # strata: tll=1h\nWORKDIR /a\n",
        say("always"),
        say("above"),
        say("young"),
    ));
    workspace.write("f", "f\n");
    let ran =
        |finished: &Finished| ["always", "above", "young"].map(|name| finished.count(&format!("ran-{name}\n")) > 0);
    let first = build(&workspace, &[]);
    assert_eq!(ran(&first), [true, true, true], "{}", first.describe());
    assert!(first.stderr.contains("did you mean `ttl`?"), "{}", first.describe());
    let second = build(&workspace, &[]);
    // The layer is the same each time, so that what stands on it is known.
    let young = ran(&second)[2];
    assert_eq!(ran(&second), [true, false, young], "{}", second.describe());
    std::thread::sleep(Duration::from_millis(2100));
    let third = build(&workspace, &["--explain"]);
    assert_eq!(ran(&third), [true, false, true], "{}", third.describe());
    for line in ["MISS its result is older than ttl=2s: made ", "MISS not looked up: `# strata: no-cache`"] {
        assert!(third.stderr.contains(line), "{}", third.describe());
    }
    assert_eq!(third.count(" CACHED"), 2, "{}", third.describe());
}

#[test]
fn every_kind_of_step_can_be_made_anew() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE} AS one\nWORKDIR /a\nCOPY f /f\nADD f /g\nRUN true\nFROM ${BASE}\nWORKDIR /a\nCOPY --from=one /f /h\n",
    );
    workspace.write("f", "f\n");
    // The same layers each time, so that what stands on a step that is made anew is known.
    let build = |arguments: &[&str]| build(&workspace, &[&["--build-arg=SOURCE_DATE_EPOCH=1"], arguments].concat());
    build(&[]);
    let cached = |arguments: &[&str]| build(arguments).count(" CACHED");
    assert_eq!(cached(&[]), 5);
    assert_eq!(cached(&["--no-cache"]), 0);
    assert_eq!(cached(&["--no-cache-filter", "ONE"]), 1);
    // `WORKDIR /a` on the same base is one step of both stages: whoever wants it anew gets it.
    assert_eq!(cached(&["--no-cache-filter", "1"]), 3);
    assert_eq!(cached(&["--no-cache-filter", "one,stage-1"]), 0);
    let unknown = build(&["--no-cache-filter", "ome"]);
    assert!(unknown.stderr.contains("did you mean one?") && unknown.count(" CACHED") == 5, "{}", unknown.describe());
}

#[test]
fn an_ordinary_user_gets_the_same_explanations() {
    let Some(who) = rootless::user(rootless::RANGES, "rootless: explanations") else { return };
    let workspace = Workspace::of(who);
    ground(&workspace);
    build(&workspace, &[]);
    workspace.write("src/main.txt", "edited\n");
    assert_eq!(said(&workspace, &[], "COPY src")["summary"], "src/main.txt changed");
    assert!(build(&workspace, &["--explain"]).stderr.contains("MISS src/main.txt changed"));
}

#[test]
fn what_cannot_be_explained_is_refused() {
    let workspace = Workspace::new();
    workspace.dockerfile("FROM scratch\nCOPY Dockerfile /\n");
    for arguments in [&["--explain", "--check"][..], &["--explain", "--call=outline"], &["--explain", "-q"]] {
        let finished = workspace.build(arguments).run().ended_with(2);
        assert!(finished.stderr.contains("--explain"), "{}", finished.describe());
    }
}
