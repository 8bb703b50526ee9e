//! Any bytes where the store keeps its documents: nothing panics, and nothing but what was written counts.

use proptest::prelude::*;

use super::*;

/// What is put in a file's place: any bytes, or those that were there, cut or with one of them changed.
#[derive(Debug, Clone)]
enum Rubbish {
    Any(Vec<u8>),
    Cut(prop::sample::Index),
    Changed(prop::sample::Index, u8),
}

impl Rubbish {
    fn of(&self, bytes: &[u8]) -> Vec<u8> {
        match self {
            Self::Any(any) => any.clone(),
            Self::Cut(at) => bytes[..at.index(bytes.len())].to_vec(),
            Self::Changed(at, change) => {
                let mut bytes = bytes.to_vec();
                let at = at.index(bytes.len());
                bytes[at] ^= change;
                bytes
            }
        }
    }
}

fn rubbish() -> impl Strategy<Value = Rubbish> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..200).prop_map(Rubbish::Any),
        any::<prop::sample::Index>().prop_map(Rubbish::Cut),
        (any::<prop::sample::Index>(), 1..=255_u8).prop_map(|(at, change)| Rubbish::Changed(at, change)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn is_what_was_written_or_does_not_count(rubbish in rubbish()) {
        let fixture = Fixture::new();
        let layer = layer::publish(&fixture.store, b"layer");
        let name = tag::reference("a", "1");
        fixture.store.tag(&name, &tag::descriptor(Digest::of(b"0"))).unwrap();
        let spoil = |path: &Path| {
            let bytes = rubbish.of(&std::fs::read(path).unwrap());
            std::fs::write(path, bytes).unwrap();
        };
        let root = fixture.root();
        spoil(&root.join("index-copy"));
        prop_assert!(!fixture.store.index_copy_is_sound());
        prop_assert!(fixture.store.tagged(&name).unwrap().is_some());
        spoil(&root.join("oci/index.json"));
        // Another list may come of a changed byte; a panic or a half-read one may not.
        let _ = fixture.store.tags();
        let description = root.join("layers").join(layer.diff_id.hex()).join("layer.json");
        let written = std::fs::read(&description).unwrap();
        spoil(&description);
        let same = |spoiled: &[u8]| {
            let parse = |bytes: &[u8]| serde_json::from_slice::<serde_json::Value>(bytes).ok();
            parse(spoiled).is_some() && parse(spoiled) == parse(&written)
        };
        let spoiled = std::fs::read(&description).unwrap();
        match fixture.reopen().look_at_layer(&layer.diff_id) {
            Ok(LayerState::Whole(found)) => {
                prop_assert!(same(&spoiled), "{}", String::from_utf8_lossy(&spoiled));
                prop_assert_eq!(found.meta, layer.meta);
            }
            Ok(_) | Err(Error::NewerSchema { .. }) => {}
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}
