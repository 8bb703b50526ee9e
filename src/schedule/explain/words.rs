//! Explanations in words: a line for people, further lines where there is more to say, and an object for programs.
//!
//! Takes what is known of the earlier run and what is different now. Every text that is shown has the values of secrets
//! replaced and control characters written out; the value of a variable that sounds like a secret is never shown, because
//! an earlier one is in no list of values to hide. Pure.

use std::time::Duration;

use serde_json::{Value, json};

use super::age;
use crate::cache::difference::Difference;
use crate::cache::listing::{Change, What};
use crate::cache::record::{Below, MadeBy, Record};
use crate::diagnostic::line_column;
use crate::execute::mask::Mask;
use crate::graph::{ContextName, Graph, Node, NodeId, Op, RunMount, sounds_secret};
use crate::progress::{Answer, Explanation};
use crate::recipe::{Instruction, Recipe};
use crate::units::{write_age, write_duration};

/// As many paths, and as many other differences, have a line of their own.
const LINES: usize = 10;
/// As many paths are in the object for programs.
const PATHS: usize = 1000;
/// Longer values are shortened in lines.
const LONGEST: usize = 72;
/// What stands for a value that is not shown.
const HIDDEN: &str = "***";

/// Where a result came from.
pub(super) fn hit(record: &Record, now: i64, mask: &Mask) -> Explanation {
    let summary = format!("{}; it took {}", made(record, now), took(record));
    Explanation::new(Answer::Hit, summary, json!({ "from": "local", "earlier": earlier(record, mask) }))
}

/// A result that is too old.
pub(super) fn expired(record: &Record, ttl: Duration, now: i64, mask: &Mask) -> Explanation {
    let ttl = write_duration(ttl);
    let summary = format!("its result is older than ttl={ttl}: {}", made(record, now));
    let document = json!({ "reason": "expired", "ttl": ttl, "earlier": earlier(record, mask) });
    Explanation::new(Answer::Miss, summary, document)
}

/// A step that needs a result which is not known.
pub(super) fn unknown(waits: &Node, node: &Node, would_run: bool, mask: &Mask) -> Explanation {
    let title = waited_for(waits, node, mask);
    let shown = line(&title);
    let summary = match (&waits.op, would_run) {
        (Op::Http(_) | Op::Git(_), _) => format!("depends on {shown}, which is only asked for in a build"),
        (_, true) => {
            format!("depends on {shown}, which would run: if it makes the layer it made before, this is a hit")
        }
        (_, false) => format!("depends on {shown}, of which that is not known either"),
    };
    Explanation::new(Answer::Unknown, summary, json!({ "dependsOn": title }))
}

/// The same where it is known that something else changed, too.
pub(super) fn unknown_and_changed(waits: &Node, node: &Node, changed: Explanation, mask: &Mask) -> Explanation {
    let title = waited_for(waits, node, mask);
    let summary = format!("{}; and it depends on {}, which is not known yet", changed.summary, line(&title));
    let mut document = changed.document;
    document["dependsOn"] = title.into();
    Explanation { details: changed.details, ..Explanation::new(Answer::Unknown, summary, document) }
}

fn waited_for(waits: &Node, node: &Node, mask: &Mask) -> String {
    mask.text(&match &waits.op {
        Op::Context(ContextName::Main) => "the build context".to_owned(),
        Op::Context(ContextName::Named(name)) => format!("the build context {name}"),
        _ if waits.origin.of > 0 && waits.origin.stage == node.origin.stage => {
            format!("{}/{} {}", waits.origin.step, waits.origin.of, waits.origin.text)
        }
        _ if waits.origin.of > 0 => waits.origin.title(),
        _ => waits.origin.text.clone(),
    })
}

/// A step whose inputs cannot be had.
pub(super) fn failure(error: &dyn std::error::Error, mask: &Mask) -> Explanation {
    let summary = shown(&mask.text(&format!("it would fail: {error}")));
    Explanation::new(Answer::Miss, summary, json!({ "reason": "error" }))
}

/// A step with the nearest of its earlier runs.
pub(super) struct Changed<'a> {
    pub(super) found: &'a [Difference],
    pub(super) before: &'a Record,
    /// What the step starts from now.
    pub(super) below: Below,
    pub(super) graph: &'a Graph,
    pub(super) node: &'a Node,
    pub(super) recipe: &'a Recipe,
    pub(super) mask: &'a Mask,
}

/// One difference in words.
struct Said {
    /// In a few words, as part of a line.
    short: String,
    /// In full, a line each.
    full: Vec<String>,
    document: Value,
}

impl Changed<'_> {
    /// The explanation, `now` milliseconds after 1970.
    pub(super) fn explain(&self, now: i64) -> Explanation {
        // What was changed on purpose says more than that something below it changed.
        let sets = |field: &str| self.found.iter().any(|difference| difference.field == field);
        // Owners and modes that the step sets itself are no more those of the files.
        let beside = |difference: &&Difference| {
            difference.files.as_ref().is_some_and(Vec::is_empty) && (sets("chown") || sets("chmod"))
        };
        let mut found: Vec<&Difference> = self.found.iter().filter(|difference| !beside(difference)).collect();
        found.sort_by_key(|difference| difference.field == "parent");
        let said: Vec<Said> = found.iter().map(|difference| self.say(difference)).collect();
        let compared = if self.before.step == self.node.origin.text {
            format!("compared with the run {}", made(self.before, now))
        } else {
            format!("compared with {}, {}", line(&self.mask.text(&self.before.step)), made(self.before, now))
        };
        let summary = match said.as_slice() {
            [] => "nothing that is known changed; another version of Strata made it".to_owned(),
            [one] => one.short.clone(),
            [one, two] => format!("{}, {}", one.short, two.short),
            [one, two, more @ ..] => format!("{}, {} (+{} more)", one.short, two.short, more.len()),
        };
        let full: Vec<&String> = said.iter().flat_map(|said| &said.full).collect();
        // A single line that says no more than the summary is not said twice.
        let mut details: Vec<String> = match full.as_slice() {
            [one] if **one == summary => Vec::new(),
            several => several.iter().take(2 * LINES).map(|line| (*line).clone()).collect(),
        };
        if full.len() > 2 * LINES {
            details.push(format!("and {} more", full.len() - 2 * LINES));
        }
        details.push(compared);
        let document = json!({
            "reason": "changed",
            "earlier": earlier(self.before, self.mask),
            "differences": said.into_iter().map(|said| said.document).collect::<Vec<_>>(),
        });
        Explanation { details, ..Explanation::new(Answer::Miss, summary, document) }
    }

    fn say(&self, difference: &Difference) -> Said {
        let Difference { field, of, .. } = difference;
        match (field.as_str(), of) {
            ("parent", _) => self.parent(),
            ("env", Some(name)) => self.variable(difference, name),
            ("files", _) => self.files(difference, &self.source()),
            ("mounts", Some(mount)) if mount.starts_with("bind ") && difference.files.is_some() => {
                self.files(difference, &self.mounted(mount))
            }
            _ => self.value(difference),
        }
    }

    fn parent(&self) -> Said {
        let line_of = |node: &Node| self.line_of(node).map(|number| format!("line {number}, ")).unwrap_or_default();
        let above = self.node.op.parent().map(|parent| &self.graph[parent]);
        let place = above.map(line_of).unwrap_or_default();
        let shown = |text: &str| line(&self.mask.text(text));
        let short = match (&self.before.below, &self.below) {
            (Below::Image { name, digest: old }, Below::Image { name: same, digest: new }) if name == same => {
                format!("base image {} moved: {} → {}", shown(name), brief(old), brief(new))
            }
            (Below::Image { name: old, .. }, Below::Image { name: new, .. }) => {
                format!("base image {} → {}", shown(old), shown(new))
            }
            (Below::Step { text: old, layer: before }, Below::Step { text, layer }) if old == text => {
                if before == layer {
                    format!("what is below the step above ({place}{}) changed", shown(text))
                } else {
                    format!("the step above ({place}{}) made another layer", shown(text))
                }
            }
            (old, new) => format!("it starts from {}, not from {}", shown(&called(new)), shown(&called(old))),
        };
        let side = |below: &Below| match below {
            Below::Scratch => json!("scratch"),
            Below::Image { name, digest } => json!({ "image": self.mask.text(name), "digest": digest }),
            Below::Step { text, layer } => {
                json!({ "step": self.mask.text(text), "layer": layer.map(|layer| layer.to_string()) })
            }
        };
        let document = json!({
            "field": "parent",
            "old": side(&self.before.below),
            "new": side(&self.below),
            "line": above.and_then(|above| self.line_of(above)),
        });
        Said { full: vec![short.clone()], short, document }
    }

    fn variable(&self, difference: &Difference, name: &str) -> Said {
        let (old, new) = if sounds_secret(name) { hidden_sides(difference) } else { self.sides(difference) };
        let declared = self.declared(name);
        let place = declared.map(|(word, number)| format!(" ({word}, line {number})")).unwrap_or_default();
        let name = self.mask.text(name);
        let short = match (&old, &new) {
            (None, Some(new)) => format!("{name}={} is new", quoted(new)),
            (Some(old), None) => format!("{name} is gone (it was {})", quoted(old)),
            (Some(old), Some(new)) if old == new => format!("{name} changed (its value is not shown)"),
            (Some(old), Some(new)) => format!("{name}: {} → {}", quoted(old), quoted(new)),
            (None, None) => format!("{name} changed"),
        };
        let full = format!("{short}{place}");
        let document =
            json!({ "field": "env", "name": name, "old": old, "new": new, "line": declared.map(|(_, line)| line) });
        Said { short: full.clone(), full: vec![full], document }
    }

    fn files(&self, difference: &Difference, source: &str) -> Said {
        let source = self.mask.text(source);
        let of = difference.of.as_ref().map(|of| self.mask.text(of));
        let Some(changes) = &difference.files else {
            let short = format!("files of {source} changed (which of them is not known)");
            let document = json!({ "field": difference.field, "name": of, "source": source });
            return Said { full: vec![short.clone()], short, document };
        };
        let Some(first) = changes.first() else {
            let short = format!("files of {source} are the same, but put together in another way");
            let document = json!({ "field": difference.field, "name": of, "source": source, "paths": [] });
            return Said { full: vec![short.clone()], short, document };
        };
        let path = |change: &Change| shown(&self.mask.text(&change.path));
        let verb = match first.what {
            What::Added => "added",
            What::Removed => "removed",
            What::Changed(_) => "changed",
        };
        let more = match changes.len() - 1 {
            0 => String::new(),
            1 => " (+1 file)".to_owned(),
            more => format!(" (+{more} files)"),
        };
        let short = format!("{} {verb}{more}", path(first));
        let mut full: Vec<String> =
            changes.iter().take(LINES).map(|change| format!("{}: {}", path(change), became(&change.what))).collect();
        if changes.len() > LINES {
            full.push(format!("and {} more of {source}", changes.len() - LINES));
        }
        let count = |wanted: fn(&What) -> bool| changes.iter().filter(|change| wanted(&change.what)).count();
        let paths = changes
            .iter()
            .take(PATHS)
            .map(|change| json!({ "path": self.mask.text(&change.path), "change": became(&change.what) }));
        let document = json!({
            "field": difference.field,
            "name": of,
            "source": source,
            "added": count(|what| *what == What::Added),
            "removed": count(|what| *what == What::Removed),
            "changed": count(|what| matches!(what, What::Changed(_))),
            "paths": paths.collect::<Vec<_>>(),
        });
        Said { short, full, document }
    }

    fn value(&self, difference: &Difference) -> Said {
        let (old, new) = self.sides(difference);
        let of = difference.of.as_ref().map(|of| self.mask.text(of));
        let name = title(&difference.field, of.as_deref());
        let is_owner = matches!(difference.field.as_str(), "user" | "owner");
        let called =
            |value: Option<String>| value.map(|user| if is_owner && user.is_empty() { "root".into() } else { user });
        let (old, new) = (called(old), called(new));
        let (shown_old, shown_new) = match (&old, &new) {
            (Some(old), Some(new)) => around(old, new),
            _ => (old.clone().unwrap_or_default(), new.clone().unwrap_or_default()),
        };
        let entry = difference.of.is_some();
        let short = match (&old, &new) {
            (None, Some(_)) if entry => format!("{name} is new"),
            (Some(_), None) if entry => format!("{name} is gone"),
            (None, _) => format!("{name}: not set → {}", quoted(&shown_new)),
            (_, None) => format!("{name}: {} → not set", quoted(&shown_old)),
            _ => format!("{name}: {} → {}", quoted(&shown_old), quoted(&shown_new)),
        };
        let document = json!({ "field": difference.field, "name": of, "old": old, "new": new });
        Said { full: vec![short.clone()], short, document }
    }

    /// Both values as they may be shown. Where one holds a secret, the other is probably another value of it.
    fn sides(&self, difference: &Difference) -> (Option<String>, Option<String>) {
        let masked = |value: &Option<String>| value.as_ref().map(|value| self.mask.text(value));
        let (old, new) = (masked(&difference.old), masked(&difference.new));
        let secret = old != difference.old || new != difference.new;
        if secret && difference.field == "env" { hidden_sides(difference) } else { (old, new) }
    }

    /// What the files of a copy come from.
    fn source(&self) -> String {
        self.node.op.copy().map(|copy| self.called(copy.from)).unwrap_or_default()
    }

    /// What a bind mount shows, found by its target.
    fn mounted(&self, name: &str) -> String {
        let Op::Run(run) = &self.node.op else { return String::new() };
        let from = run.mounts.iter().find_map(|mount| match mount {
            RunMount::Bind { from, target, .. } if format!("bind {target:?}") == name => Some(*from),
            _ => None,
        });
        from.map(|from| self.called(from)).unwrap_or_default()
    }

    fn called(&self, id: NodeId) -> String {
        let node = &self.graph[id];
        match &node.op {
            Op::Context(ContextName::Main) => "the build context".to_owned(),
            Op::Context(ContextName::Named(name)) => format!("the build context {name}"),
            Op::Image(image) => format!("image {}", image.reference.familiar()),
            Op::Scratch => "scratch".to_owned(),
            _ => format!("stage {}", node.origin.stage),
        }
    }

    /// Where the recipe sets a variable for the step: the word, and the line.
    fn declared(&self, name: &str) -> Option<(&'static str, usize)> {
        let at = self.node.origin.span;
        // A trigger of a base image has no place in this recipe.
        let stage = self.recipe.stages.iter().rfind(|stage| at.end > 0 && stage.span.start <= at.start)?;
        let above = stage.steps.iter().rev().filter(|step| step.span.start < at.start);
        above.into_iter().find_map(|step| {
            let word = match &step.instruction {
                Instruction::Arg(arguments) if arguments.iter().any(|one| one.name.value == name) => "ARG",
                Instruction::Env(pairs) if pairs.iter().any(|one| one.name.value == name) => "ENV",
                _ => return None,
            };
            Some((word, line_column(&self.recipe.source.text, step.span.start).0))
        })
    }

    fn line_of(&self, node: &Node) -> Option<usize> {
        let span = node.origin.span;
        (span.end > 0).then(|| line_column(&self.recipe.source.text, span.start).0)
    }
}

fn hidden_sides(difference: &Difference) -> (Option<String>, Option<String>) {
    let hidden = |value: &Option<String>| value.as_ref().map(|_| HIDDEN.to_owned());
    (hidden(&difference.old), hidden(&difference.new))
}

/// When and by whom, as part of a sentence.
fn made(record: &Record, now: i64) -> String {
    let by = record.made_by.as_ref().map(|MadeBy { build, step }| {
        let short: String = build.chars().take(8).collect();
        format!(" by build {short}, step {step}")
    });
    let ago = write_age(age(record.made, now).as_secs());
    format!("made {} ({ago}){}", time(record.made).replace('T', " "), by.unwrap_or_default())
}

fn took(record: &Record) -> String {
    write_duration(Duration::from_millis(record.elapsed_ms))
}

fn earlier(record: &Record, mask: &Mask) -> Value {
    let by = record.made_by.as_ref();
    json!({
        "made": time(record.made),
        "build": by.map(|by| by.build.as_str()),
        "step": by.map(|by| by.step),
        "text": mask.text(&record.step),
        "seconds": Duration::from_millis(record.elapsed_ms).as_secs_f64(),
    })
}

/// RFC 3339, in whole seconds.
fn time(milliseconds: i64) -> String {
    let seconds = milliseconds.div_euclid(1000);
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

fn called(below: &Below) -> String {
    match below {
        Below::Scratch => "nothing".to_owned(),
        Below::Image { name, digest } => format!("image {name} ({})", brief(digest)),
        Below::Step { text, .. } => text.clone(),
    }
}

/// What a field is called.
fn title(field: &str, of: Option<&str>) -> String {
    let name = match field {
        "argv" => "the command",
        "env" => "the order of variables",
        "epoch" => "SOURCE_DATE_EPOCH",
        "mounts" => "mount",
        "scripts" => "heredoc",
        "flags" | "chown" | "chmod" => "--",
        "path" => "the directory",
        "destination" => "the destination",
        "hostname" => "the host name",
        other => other,
    };
    match (field, of) {
        ("chown" | "chmod", _) => format!("--{field}"),
        ("flags", Some(of)) => format!("--{of}"),
        ("flags", None) => "the flags".to_owned(),
        (_, Some(of)) => format!("{name} {}", line(of)),
        (_, None) => name.to_owned(),
    }
}

fn became(what: &What) -> String {
    match what {
        What::Added => "added".to_owned(),
        What::Removed => "removed".to_owned(),
        What::Changed(aspects) => aspects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
    }
}

/// A digest short enough to read.
fn brief(digest: &str) -> String {
    digest.chars().take("sha256:".len() + 12).chain(['…']).collect()
}

/// Two long values from a little before they differ on.
fn around(old: &str, new: &str) -> (String, String) {
    /// How much is shown of what they have in common.
    const CONTEXT: usize = 16;
    if old.chars().count().max(new.chars().count()) <= LONGEST {
        return (old.to_owned(), new.to_owned());
    }
    let common = old.chars().zip(new.chars()).take_while(|(a, b)| a == b).count();
    let from = common.saturating_sub(CONTEXT);
    let cut = |text: &str| {
        let dots = if from > 0 { "…" } else { "" };
        format!("{dots}{}", text.chars().skip(from).collect::<String>())
    };
    (cut(old), cut(new))
}

/// A value as it is shown in a line: in quotes where its limits could not be seen otherwise.
fn quoted(value: &str) -> String {
    let text = line(value);
    if text.is_empty() || text.contains(char::is_whitespace) { format!("\"{text}\"") } else { text }
}

/// A text on one line of bearable length.
fn line(text: &str) -> String {
    let text = shown(text);
    if text.chars().count() <= LONGEST { text } else { text.chars().take(LONGEST - 1).chain(['…']).collect() }
}

/// A text without control characters: a path could hold what a terminal obeys.
fn shown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() { out.extend(character.escape_default()) } else { out.push(character) }
    }
    out
}

#[cfg(test)]
mod tests;
