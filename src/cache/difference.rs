//! Two runs of a step → what is different about their inputs, by name.
//!
//! Takes the named fields of two keys, and a way to the listings of the files in them. Gives every difference with its old
//! and its new value: of lists the entries that differ, of files the paths. Pure; knows nothing of words or secrets.

use crate::cache::key::{Field, Fields};
use crate::cache::listing::{Change, Listing};
use crate::digest::ContentId;

/// One difference.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The field of the key, such as `env`.
    pub field: String,
    /// Which entry of it: the name of a variable or script, the kind and target of a mount.
    pub of: Option<String>,
    /// The value then; none where there was none.
    pub old: Option<String>,
    /// The value now; none where there is none.
    pub new: Option<String>,
    /// Of files, the paths that differ, where both listings are known. Empty if they differ in how they are put together
    /// alone (their order, or which of them are hard links to each other).
    pub files: Option<Vec<Change>>,
}

/// Everything that is different between two keys' fields. Empty exactly where the fields are equal.
pub fn differences(old: &Fields, new: &Fields, listing: &dyn Fn(&ContentId) -> Option<Listing>) -> Vec<Difference> {
    let mut all = Vec::new();
    let gone = old.names().filter(|name| new.get(name).is_none());
    for name in new.names().chain(gone) {
        let (before, now) = (old.get(name), new.get(name));
        if before == now {
            continue;
        }
        let mut of_field = match name {
            "env" => of_entries(name, before, now, |entry| entry.split_once('=').unwrap_or((entry, ""))),
            "scripts" => of_entries(name, before, now, |entry| entry.rsplit_once(' ').unwrap_or((entry, ""))),
            "mounts" => of_entries(name, before, now, mount),
            "flags" => of_entries(name, before, now, |entry| (entry, "set")),
            _ => Vec::new(),
        };
        if of_field.is_empty() {
            // A text, or a list whose order alone is another.
            let (old, new) = shortened(before, now);
            of_field.push(Difference { field: name.to_owned(), of: None, old, new, files: None });
        }
        for difference in &mut of_field {
            difference.files = files(difference, listing);
        }
        all.append(&mut of_field);
    }
    all
}

/// The entries of a list that differ, where each has a name that `split` parts from its value.
fn of_entries<'a>(
    field: &str,
    old: Option<&'a Field>,
    new: Option<&'a Field>,
    split: impl Fn(&'a str) -> (&'a str, &'a str),
) -> Vec<Difference> {
    let entries = |field: Option<&'a Field>| -> Vec<(&'a str, &'a str)> {
        field.map(Field::entries).unwrap_or_default().iter().map(|entry| split(entry)).collect()
    };
    let (old, new) = (entries(old), entries(new));
    let value = |entries: &[(&str, &str)], name: &str| {
        entries.iter().rev().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned())
    };
    let mut found: Vec<Difference> = Vec::new();
    for (name, _) in old.iter().chain(&new) {
        let (before, now) = (value(&old, name), value(&new, name));
        if before != now && !found.iter().any(|known| known.of.as_deref() == Some(*name)) {
            let of = Some((*name).to_owned());
            found.push(Difference { field: field.to_owned(), of, old: before, new: now, files: None });
        }
    }
    found
}

/// `bind "/src" ro blake3:…` → `bind "/src"` and the rest.
fn mount(entry: &str) -> (&str, &str) {
    let Some(open) = entry.find('"') else { return (entry, "") };
    let mut escaped = false;
    let close = entry[open + 1..].find(|c| {
        let ends = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    });
    match close {
        Some(close) => {
            let (name, rest) = entry.split_at(open + 1 + close + 1);
            (name, rest.trim_start())
        }
        None => (entry, ""),
    }
}

/// Both values in full, but for the words that two lists of the same length begin with alike: of two commands the shell.
fn shortened(old: Option<&Field>, new: Option<&Field>) -> (Option<String>, Option<String>) {
    let common = match (old, new) {
        (Some(Field::List(old)), Some(Field::List(new))) if old.len() == new.len() => {
            old.iter().zip(new).take_while(|(a, b)| a == b).count()
        }
        _ => 0,
    };
    let text = |field: &Field| match field {
        Field::Text(text) => text.clone(),
        Field::List(entries) => match entries.get(common..).unwrap_or_default() {
            [only] => only.clone(),
            several => several.iter().map(|entry| format!("{entry:?}")).collect::<Vec<_>>().join(" "),
        },
    };
    (old.map(text), new.map(text))
}

/// The paths that differ, where a difference is one of files.
fn files(difference: &Difference, listing: &dyn Fn(&ContentId) -> Option<Listing>) -> Option<Vec<Change>> {
    let digest = |value: &Option<String>| -> Option<ContentId> { value.as_ref()?.rsplit(' ').next()?.parse().ok() };
    let (old, new) = (digest(&difference.old)?, digest(&difference.new)?);
    let of_files = difference.field == "files"
        || (difference.field == "mounts" && difference.of.as_ref().is_some_and(|of| of.starts_with("bind ")));
    (of_files && old != new).then(|| Some(Listing::changes(&listing(&old)?, &listing(&new)?))).flatten()
}

#[cfg(test)]
mod tests;
