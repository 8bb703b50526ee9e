#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use proptest::prelude::*;

use super::*;

fn file(content: u64) -> Facts {
    Facts { kind: Kind::File, mode: 0o644, owner: (0, 0), content, attributes: 0 }
}

fn listing(entries: &[(&str, Facts)]) -> Listing {
    Listing::new(entries.iter().map(|(path, facts)| (path.as_bytes().to_vec(), *facts)).collect())
}

#[test]
fn every_kind_of_change_is_told() {
    let old = listing(&[
        ("a", file(1)),
        ("b", file(1)),
        ("c", file(1)),
        ("d", file(1)),
        ("e", file(1)),
        ("f", file(1)),
        ("same", file(1)),
    ]);
    let new = listing(&[
        ("a", file(2)),
        ("b", Facts { mode: 0o755, ..file(1) }),
        ("c", Facts { kind: Kind::Link, ..file(9) }),
        ("d", Facts { owner: (1, 2), attributes: 7, ..file(1) }),
        ("f", Facts { mode: 0o600, ..file(3) }),
        ("g", file(1)),
        ("same", file(1)),
    ]);
    let shown: Vec<String> = Listing::changes(&old, &new)
        .into_iter()
        .map(|Change { path, what }| match what {
            What::Added => format!("{path} added"),
            What::Removed => format!("{path} removed"),
            What::Changed(aspects) => {
                format!("{path} {}", aspects.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))
            }
        })
        .collect();
    assert_eq!(
        shown,
        [
            "a content",
            "b mode 0644 → 0755",
            "c a file → a symbolic link",
            "d owner 0:0 → 1:2, extended attributes",
            "e removed",
            "f content, mode 0644 → 0600",
            "g added",
        ]
    );
}

#[test]
fn what_does_not_count_is_no_change() {
    let old = listing(&[("a", file(1)), ("b", Facts { mode: ANY_MODE, owner: ANYBODY, ..file(1) })]);
    let new = listing(&[("a", Facts { mode: ANY_MODE, owner: ANYBODY, ..file(1) }), ("b", file(2))]);
    let changes = Listing::changes(&old, &new);
    assert_eq!(changes, [Change { path: "b".to_owned(), what: What::Changed(vec![Aspect::Content]) }]);
}

#[test]
fn very_many_entries_are_counted_by_directory() {
    let many = |odd: usize| {
        let entries = (0..MOST + 10).map(|number| {
            let content = u64::from(number == odd);
            (format!("a/b{}/c/d/e/f/g/h/{number}", number % 100).into_bytes(), file(content))
        });
        Listing::new(entries.chain([(b"top".to_vec(), file(1))]).collect())
    };
    let (one, other) = (many(1), many(2));
    assert!(one.len() < 200, "{}", one.len());
    let changes = Listing::changes(&one, &other);
    let paths: Vec<&str> = changes.iter().map(|change| change.path.as_str()).collect();
    assert_eq!(paths, ["a/b1/c/d/e/f/g/h/", "a/b2/c/d/e/f/g/h/"]);
    assert_eq!(Listing::changes(&one, &many(1)), []);
}

fn facts() -> impl Strategy<Value = Facts> {
    let kinds = [Kind::File, Kind::Directory, Kind::Link, Kind::Device, Kind::Pipe];
    (prop::sample::select(kinds.to_vec()), 0..0o7777_u16, (0..9_u32, 0..9_u32), any::<u64>(), any::<u64>())
        .prop_map(|(kind, mode, owner, content, attributes)| Facts { kind, mode, owner, content, attributes })
}

fn entries() -> impl Strategy<Value = BTreeMap<String, Facts>> {
    prop::collection::btree_map("[ab]{1,2}(/[ab]{1,2}){0,4}", facts(), 0..20)
}

fn of(entries: &BTreeMap<String, Facts>) -> Listing {
    Listing::new(entries.iter().map(|(path, facts)| (path.clone().into_bytes(), *facts)).collect())
}

proptest! {
    #[test]
    fn bytes_give_the_listing_back(entries in entries()) {
        let listing = of(&entries);
        prop_assert_eq!(Listing::decode(&listing.encode()), Some(listing));
    }

    #[test]
    fn other_bytes_are_none_or_a_listing(bytes: Vec<u8>, entries in entries(), at: prop::sample::Index, flip in 1..=255_u8) {
        prop_assert_eq!(Listing::decode(&bytes), None);
        let mut whole = of(&entries).encode();
        let at = at.index(whole.len());
        prop_assert_eq!(Listing::decode(&whole[..at]), None);
        whole[at] ^= flip;
        // Must not panic; what the store's own check lets through is a listing.
        let _ = Listing::decode(&whole);
    }

    #[test]
    fn the_changes_are_those_that_were_made(old in entries(), new in entries()) {
        let changes = Listing::changes(&of(&old), &of(&new));
        let mut expected: Vec<&String> =
            old.keys().chain(new.keys()).filter(|path| old.get(*path) != new.get(*path)).collect();
        expected.sort();
        expected.dedup();
        prop_assert_eq!(changes.iter().map(|change| &change.path).collect::<Vec<_>>(), expected);
        for change in &changes {
            let is_there = (old.contains_key(&change.path), new.contains_key(&change.path));
            match &change.what {
                What::Added => prop_assert_eq!(is_there, (false, true)),
                What::Removed => prop_assert_eq!(is_there, (true, false)),
                What::Changed(aspects) => prop_assert!(is_there == (true, true) && !aspects.is_empty()),
            }
        }
        prop_assert_eq!(Listing::changes(&of(&new), &of(&new)), []);
    }

    #[test]
    fn counting_together_hides_no_change(old in entries(), new in entries(), coarse in 0..4_u8, finer in 0..4_u8) {
        let (old, new) = (of(&old), of(&new));
        let depth = coarse.min(finer);
        prop_assert_eq!(old.coarse(coarse.max(finer)).coarse(depth), old.coarse(depth));
        prop_assert_eq!(Listing::changes(&old, &new).is_empty(), Listing::changes(&old.coarse(depth), &new).is_empty());
    }
}
