#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::cache::listing::{Facts, Kind, What};

fn fields(fields: &[(&str, Field)]) -> Fields {
    serde_json::from_value(serde_json::to_value(fields).unwrap()).unwrap()
}

fn text(text: &str) -> Field {
    Field::Text(text.to_owned())
}

fn list(entries: &[&str]) -> Field {
    Field::List(entries.iter().map(|entry| (*entry).to_owned()).collect())
}

fn shown(old: &[(&str, Field)], new: &[(&str, Field)]) -> Vec<String> {
    differences(&fields(old), &fields(new), &|_| None)
        .into_iter()
        .map(|Difference { field, of, old, new, .. }| {
            let side = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            let of = of.map(|of| format!("[{of}]")).unwrap_or_default();
            format!("{field}{of}: {} → {}", side(old), side(new))
        })
        .collect()
}

#[test]
fn differences_have_names_and_values() {
    let shell = |command: &str| list(&["/bin/sh", "-c", command]);
    let digest = |byte: u8| ContentId::from_bytes([byte; 32]);
    let bind = |target: &str, byte: u8| format!("bind {target:?} ro {}", digest(byte));
    for (old, new, expected) in [
        (vec![("op", text("run"))], vec![("op", text("run"))], vec![]),
        (vec![("user", text(""))], vec![("user", text("me"))], vec!["user:  → me"]),
        (vec![("epoch", text("1"))], vec![], vec!["epoch: 1 → -"]),
        (vec![], vec![("hostname", text("x"))], vec!["hostname: - → x"]),
        (
            vec![("env", list(&["A=1", "B=2", "C="]))],
            vec![("env", list(&["A=1", "B=3=3", "D="]))],
            vec!["env[B]: 2 → 3=3", "env[C]:  → -", "env[D]: - → "],
        ),
        (
            vec![("env", list(&["A=1", "B=2"]))],
            vec![("env", list(&["B=2", "A=1"]))],
            vec!["env: \"A=1\" \"B=2\" → \"B=2\" \"A=1\""],
        ),
        (vec![("argv", shell("make"))], vec![("argv", shell("make all"))], vec!["argv: make → make all"]),
        (
            vec![("argv", list(&["/bin/sh", "-c", "make"]))],
            vec![("argv", list(&["/bin/bash", "-c", "make"]))],
            vec!["argv: \"/bin/sh\" \"-c\" \"make\" → \"/bin/bash\" \"-c\" \"make\""],
        ),
        (vec![("argv", list(&["a", "b"]))], vec![("argv", list(&["a"]))], vec!["argv: \"a\" \"b\" → a"]),
        (
            vec![("mounts", list(&["cache \"/c\" rw", "tmpfs \"/t \\\" x\" rw any"]))],
            vec![("mounts", list(&["cache \"/c\" ro", "tmpfs \"/t \\\" x\" rw 1", "ssh \"k\" \"/s\" 600 0:0"]))],
            vec![
                "mounts[cache \"/c\"]: rw → ro",
                "mounts[tmpfs \"/t \\\" x\"]: rw any → rw 1",
                "mounts[ssh \"k\"]: - → \"/s\" 600 0:0",
            ],
        ),
        (vec![("flags", list(&["link"]))], vec![("flags", list(&[]))], vec!["flags[link]: set → -"]),
        (
            vec![("scripts", list(&["EOF sha256:a", "E O F sha256:b"]))],
            vec![("scripts", list(&["EOF sha256:a", "E O F sha256:c"]))],
            vec!["scripts[E O F]: sha256:b → sha256:c"],
        ),
    ] {
        assert_eq!(shown(&old, &new), expected);
    }
    let (old, new) = (vec![("mounts", list(&[&bind("/s", 1)]))], vec![("mounts", list(&[&bind("/s", 2)]))]);
    assert_eq!(shown(&old, &new), [format!("mounts[bind \"/s\"]: ro {} → ro {}", digest(1), digest(2))]);
}

#[test]
fn files_are_told_by_path_where_both_listings_are_known() {
    let listing = |content: u64| {
        let facts = Facts { kind: Kind::File, mode: 0o644, owner: (0, 0), content, attributes: 0 };
        Listing::new(vec![(b"a".to_vec(), facts)])
    };
    let digest = |byte: u8| ContentId::from_bytes([byte; 32]);
    let known = |id: &ContentId| match id.as_bytes().first() {
        Some(1) => Some(listing(1)),
        Some(2) => Some(listing(2)),
        _ => None,
    };
    let of_copy = |byte: u8| fields(&[("files", text(&digest(byte).to_string()))]);
    let of_mount = |byte: u8| fields(&[("mounts", list(&[&format!("bind \"/s\" ro {}", digest(byte))]))]);
    for of in [&of_copy as &dyn Fn(u8) -> Fields, &of_mount] {
        let found = differences(&of(1), &of(2), &known);
        let files = found.first().unwrap().files.as_ref().unwrap();
        assert_eq!((found.len(), files.len(), files[0].path.as_str()), (1, 1, "a"));
        assert!(matches!(files[0].what, What::Changed(_)));
        assert_eq!(differences(&of(1), &of(3), &known)[0].files, None);
    }
}

fn field() -> impl Strategy<Value = Field> {
    prop_oneof![
        "[a-c= \"\\\\]{0,6}".prop_map(Field::Text),
        prop::collection::vec("[a-c= \"\\\\]{0,6}", 0..4).prop_map(Field::List),
    ]
}

fn any_fields() -> impl Strategy<Value = BTreeMap<String, Field>> {
    let names = ["op", "parent", "argv", "env", "scripts", "mounts", "flags", "files", "user"];
    prop::collection::btree_map(prop::sample::select(names.to_vec()).prop_map(str::to_owned), field(), 0..6)
}

proptest! {
    #[test]
    fn every_changed_field_is_named_and_no_other(old in any_fields(), new in any_fields()) {
        let of = |map: &BTreeMap<String, Field>| -> Fields {
            fields(&map.iter().map(|(name, field)| (name.as_str(), field.clone())).collect::<Vec<_>>())
        };
        let found = differences(&of(&old), &of(&new), &|_| None);
        let named: BTreeSet<&str> = found.iter().map(|difference| difference.field.as_str()).collect();
        let changed: BTreeSet<&str> =
            old.keys().chain(new.keys()).filter(|name| old.get(*name) != new.get(*name)).map(String::as_str).collect();
        prop_assert_eq!(named, changed);
        prop_assert!(found.iter().all(|one| one.old != one.new || one.of.is_none()));
        prop_assert_eq!(differences(&of(&new), &of(&new), &|_| None), []);
    }
}
