//! Any text as a word of a recipe, expanded in every way there is.
//!
//! Checked: no panic; what `expand_split` gives is what `expand` gives, without the blanks it was split at; a word that
//! mentions no variable means the same whatever is set; a word in single quotes is itself; the result is not longer
//! than the word and the values can make it.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strata::recipe::variable::{expand, expand_raw, expand_split, names};

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, rest)) = bytes.split_first() else { return };
    let escape = if first & 1 == 0 { '\\' } else { '`' };
    let text = String::from_utf8_lossy(rest);
    // The value of every variable comes from the input too: patterns meet odd values only so.
    let (value, word) = text.split_once('\u{1}').unwrap_or(("a b", &text));
    let scope = |name: &str| (!name.starts_with('u')).then(|| value.to_owned());

    let whole = expand(word, escape, &scope);
    let split = expand_split(word, escape, &scope);
    match (&whole, &split) {
        (Ok(whole), Ok(words)) => {
            assert!(words.iter().all(|word| !word.is_empty()), "an empty word");
            let solid = |text: &str| text.chars().filter(|character| !character.is_whitespace()).collect::<String>();
            assert_eq!(solid(whole), solid(&words.concat()), "{word:?}");
        }
        (Err(one), Err(other)) => assert_eq!(one, other),
        _ => panic!("{whole:?} and {split:?} of {word:?}"),
    }
    let _ = expand_raw(word, escape, &scope);

    if whole.is_ok() && names(word, escape).is_empty() {
        assert_eq!(whole, expand(word, escape, &|_| None), "{word:?}");
    }
    if !word.contains('\'') {
        assert_eq!(expand(&format!("'{word}'"), escape, &scope).as_deref(), Ok(word));
    }
});
