//! What BuildKit says of the recipes in `testdata/checks`, and that Strata says the same.
//!
//! `testdata/checks/buildkit.json` is what `scripts/agree-checks --record` heard from a real BuildKit: whether it refuses a
//! recipe, the rules that it finds broken with their lines, and its documents for `--call=outline` and `--call=targets`.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::workspace::Workspace;

/// Rules that Strata alone has, and one that BuildKit kept for those who asked when its answers were recorded.
const OURS: [&str; 10] = [
    "AddInsteadOfCopy",
    "CopyIgnoredFile",
    "FlagWithoutEffect",
    "InvalidJSONForm",
    "InvalidTrigger",
    "MountKeyWithoutEffect",
    "RecursiveOwnership",
    "UnknownPlatform",
    "UnknownRule",
    "UnusedStage",
];

/// Rules whose findings have a better place here: the empty line, or the comment.
const ELSEWHERE: [&str; 2] = ["NoEmptyContinuation", "InvalidDefinitionDescription"];

/// What BuildKit said of one recipe.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default)]
    refused: bool,
    /// Rules, each with the first and last line of the instruction.
    #[serde(default)]
    warnings: Vec<(String, u64, u64)>,
    outline: Option<Value>,
    targets: Option<Value>,
}

#[test]
fn checks_and_calls_say_what_buildkit_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/checks");
    let recorded = fs::read_to_string(directory.join("buildkit.json")).unwrap();
    let recorded: BTreeMap<String, Said> = serde_json::from_str(&recorded).unwrap();
    assert!(recorded.len() > 200, "{}", recorded.len());
    let workspace = Workspace::new();
    let mut problems = Vec::new();
    for (name, said) in &recorded {
        let recipe = directory.join(name);
        let text = String::from_utf8_lossy(&fs::read(&recipe).unwrap()).to_lowercase();
        let ask = |call: &str| -> Option<Value> {
            let arguments = ["build", "--call", &format!("{call},format=json"), "--file"].map(str::to_owned);
            let paths = [&recipe, &directory].map(|path| path.to_str().unwrap().to_owned());
            serde_json::from_str(&workspace.strata(arguments.into_iter().chain(paths)).run().stdout).ok()
        };
        problems.extend(
            compare(said, ask("check").as_ref(), text.contains("onbuild")).map(|what| format!("{name}: {what}")),
        );
        if said.refused {
            continue;
        }
        for (call, expected) in [("outline", &said.outline), ("targets", &said.targets)] {
            let found = ask(call).map(plain);
            if found != expected.clone().map(plain) {
                problems.push(format!("{name}: {call}: BuildKit says {expected:?}, Strata {found:?}"));
            }
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// How a check differs from BuildKit's. What is found in a trigger has the place of the trigger here, of the `FROM` there.
fn compare(said: &Said, document: Option<&Value>, onbuild: bool) -> Option<String> {
    let refused = document.is_none_or(|document| !document["buildError"].is_null());
    if refused || said.refused {
        return (refused != said.refused)
            .then(|| format!("refused by BuildKit: {}, by Strata: {refused}", said.refused));
    }
    let warnings = document.map(|document| &document["warnings"]).and_then(Value::as_array)?;
    let found: Vec<(&str, u64)> = warnings
        .iter()
        .map(|warning| {
            let line = warning["location"]["ranges"][0]["start"]["line"].as_u64();
            (warning["ruleName"].as_str().unwrap_or_default(), line.unwrap_or_default())
        })
        .filter(|(rule, _)| !OURS.contains(rule))
        .collect();
    let is_it = |(rule, first, last): &(String, u64, u64), (ours, line): (&str, u64)| {
        let elsewhere = onbuild || ELSEWHERE.contains(&ours);
        rule == ours && (elsewhere || (*first..=*last).contains(&line))
    };
    let missing = said.warnings.iter().find(|theirs| !found.iter().any(|ours| is_it(theirs, *ours)));
    let extra = found.iter().find(|ours| !said.warnings.iter().any(|theirs| is_it(theirs, **ours)));
    match (missing, extra) {
        (None, None) => None,
        _ => Some(format!("only BuildKit finds {missing:?}, only Strata {extra:?}")),
    }
}

/// A document without what only one of the two says, in one order.
fn plain(document: Value) -> Value {
    match document {
        Value::Object(fields) => fields
            .into_iter()
            .filter(|(name, _)| !matches!(name.as_str(), "sources" | "character" | "cache"))
            .map(|(name, value)| (name, plain(value)))
            .filter(|(_, value)| !matches!(value, Value::Array(list) if list.is_empty()))
            .collect(),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(plain).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        other => other,
    }
}
