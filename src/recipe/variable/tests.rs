use proptest::prelude::*;

use super::*;

fn scope(name: &str) -> Option<String> {
    let value = match name {
        "a" => "apple",
        "empty" => "",
        "blank" => "x  y z",
        "path" => "/usr/local/bin/tool.tar.gz",
        "dots" => "foo.bar.baz",
        "lines" => "one\ntwo",
        "star" => "a*c",
        "dollar" => "[$0]",
        "hash" => "#foo",
        "quote" => "it's \"so\"",
        "ünïcode" => "ü",
        _ => return None,
    };
    Some(value.to_owned())
}

#[test]
fn words_mean_what_the_built_in_frontend_says() {
    let table: &[(&str, &str)] = &[
        ("", ""),
        ("plain", "plain"),
        ("$a", "apple"),
        ("${a}", "apple"),
        ("x${a}y$a", "xappleyapple"),
        ("$unset", ""),
        ("${unset}", ""),
        ("$ünïcode!", "ü!"),
        // Positional and special parameters are names that nobody set.
        ("$1a", "a"),
        ("$12", ""),
        ("$@$*$#$?$-$$$!$0", ""),
        ("${@}", ""),
        ("$", "$"),
        ("$.", "$."),
        ("a$ b", "a$ b"),
        // Quotes and escapes.
        ("'$a'", "$a"),
        ("\"$a\"", "apple"),
        ("\"it's\"", "it's"),
        ("'a\\'", "a\\"),
        ("\\$a", "$a"),
        ("\\\\$a", "\\apple"),
        ("\\x", "x"),
        ("end\\", "end"),
        ("\"\\x\"", "\\x"),
        ("\"\\$a \\\" \\\\\"", "$a \" \\"),
        ("$quote", "it's \"so\""),
        // Defaults.
        ("${a:-b}", "apple"),
        ("${unset:-b}", "b"),
        ("${empty:-b}", "b"),
        ("${empty-b}", ""),
        ("${unset-b}", "b"),
        ("${a:+b}", "b"),
        ("${empty:+b}", ""),
        ("${empty+b}", "b"),
        ("${unset+b}", ""),
        ("${unset:-${a}}", "apple"),
        ("${unset:-${unset:-${unset:-deep}}}", "deep"),
        ("${unset:-a\\}b}", "a}b"),
        ("${unset:-'}'}", "}"),
        ("${unset:-\"$a\"}", "apple"),
        ("\"${unset:-\"b c\"}\"", "b c"),
        ("${a:?no}", "apple"),
        ("${empty?no}", ""),
        // Trimming.
        ("${path#/}", "usr/local/bin/tool.tar.gz"),
        ("${path#*/}", "usr/local/bin/tool.tar.gz"),
        ("${path##*/}", "tool.tar.gz"),
        ("${path%.*}", "/usr/local/bin/tool.tar"),
        ("${path%%.*}", "/usr/local/bin/tool"),
        ("${path%/*}", "/usr/local/bin"),
        ("${path%%/*}", ""),
        ("${path#nothing}", "/usr/local/bin/tool.tar.gz"),
        ("${a#?}", "pple"),
        ("${a%??}", "app"),
        ("${a##}", "apple"),
        ("${unset#x}", ""),
        ("${star#a\\*}", "c"),
        ("${star%\\*c}", "a"),
        ("${star#a\\?}", "a*c"),
        ("${hash#\\\\}", "#foo"),
        ("${hash#'#'}", "#foo"),
        ("${a#[a]}", "apple"),
        ("${lines#*t}", "one\ntwo"),
        ("${lines##*}", "\ntwo"),
        ("${lines%%*}", "one\n"),
        ("${dots%$unset.baz}", "foo.bar"),
        // Replacing.
        ("${dots/./-}", "foo-bar.baz"),
        ("${dots//./-}", "foo-bar-baz"),
        ("${dots/.*/-}", "foo-"),
        ("${dots//./}", "foobarbaz"),
        ("${path//\\//_}", "_usr_local_bin_tool.tar.gz"),
        ("${a/p*/X}", "aX"),
        ("${a//p/$star}", "aa*ca*cle"),
        ("${a/?/x}", "xpple"),
        ("${a//?/x}", "xxxxx"),
        ("${a//*/x}", "x"),
        ("${a///-}", "-a-p-p-l-e-"),
        ("${a/zz/y}", "apple"),
        ("${unset/a/b}", ""),
        ("${empty///x}", "x"),
        // Only the replacement of all is a template.
        ("${a//p/$dollar}", "a[p][p]le"),
        ("${a/p/$dollar}", "a[$0]ple"),
    ];
    for (word, meaning) in table {
        assert_eq!(expand(word, '\\', &scope).as_deref(), Ok(*meaning), "{word}");
    }
}

#[test]
fn another_escape_character_leaves_backslashes_alone() {
    for (word, meaning) in
        [("C:\\x\\$a", "C:\\x\\apple"), ("`$a", "$a"), ("\"`\"\"", "\""), ("``", "`"), ("\\`a", "\\a")]
    {
        assert_eq!(expand(word, '`', &scope).as_deref(), Ok(meaning), "{word}");
    }
}

#[test]
fn words_are_split_after_substitution_and_outside_quotes() {
    let table: &[(&str, &[&str])] = &[
        ("", &[]),
        ("  a \t b ", &["a", "b"]),
        ("$blank", &["x", "y", "z"]),
        ("\"$blank\"", &["x  y z"]),
        ("1${blank}2", &["1x", "y", "z2"]),
        ("a\\ b", &["a b"]),
        ("'a b'c d", &["a bc", "d"]),
        ("\"\" a ''", &["a"]),
        ("$unset $empty", &[]),
        ("${unset:-p q}", &["p", "q"]),
        ("${unset:-'p q'}", &["p", "q"]),
        ("\"${unset:-p q}\"", &["p q"]),
        ("a\u{a0}b", &["a", "b"]),
    ];
    for (word, words) in table {
        assert_eq!(
            expand_split(word, '\\', &scope).as_deref(),
            Ok(&words.iter().map(ToString::to_string).collect::<Vec<_>>()[..]),
            "{word}"
        );
    }
}

#[test]
fn heredoc_bodies_keep_their_quotes() {
    for (body, meaning) in [
        ("\"$a\" '$a'\n", "\"apple\" 'apple'\n"),
        ("\\$a\n", "$a\n"),
        ("\\\n", "\n"),
        ("\\\\\n", "\\\n"),
        ("it's ${unset:-\"x\"}\n", "it's \"x\"\n"),
    ] {
        assert_eq!(expand_raw(body, '\\', &scope).as_deref(), Ok(meaning), "{body}");
    }
}

#[test]
fn raw_rules_keep_what_they_understand() {
    let keep = Expander::new('\\').keep_quotes(true).keep_escapes(true).keep_unset(true);
    for text in [
        "\"a b\" 'c d'",
        "\\\"x\\\\",
        "$unset ${unset}",
        "${unset:-\"w\"}",
        "${unset#p}${unset%%q}",
        "${unset/p/r}",
        "${unset:1:2}",
        "${unset=w}x",
    ] {
        let meant = keep.expand(text, &|_| None).map(|expansion| expansion.text);
        if text.contains('=') {
            assert!(meant.is_err(), "{text}");
        } else {
            assert_eq!(meant.as_deref(), Ok(text), "{text}");
        }
    }
    let mixed = keep.expand("${unset:-$a}${a:+x}", &scope).map(|expansion| expansion.text);
    assert_eq!(mixed.as_deref(), Ok("${unset:-apple}x"));
}

#[test]
fn what_is_wrong_is_said() {
    let table = [
        ("${a", "the brace of ${a is never closed"),
        ("${", "the brace of ${ is never closed"),
        ("${a:", "the brace of ${a is never closed"),
        ("${a:-b", "the brace of ${a is never closed"),
        ("${a:-${empty}", "the brace of ${a is never closed"),
        ("'a", "the quote ' is never closed"),
        ("\"a", "the quote \" is never closed"),
        ("\"a\\", "the quote \" is never closed"),
        ("${a/b}", "${a/… needs a second '/' between the pattern and its replacement"),
        ("${a/b/c", "the brace of ${a is never closed"),
        ("${}", "bad substitution: a variable's name must follow '${'"),
        ("${{a}}", "bad substitution: a variable's name must follow '${'"),
        ("${:a}", "bad substitution: a variable's name must follow '${'"),
        ("${a@Q}", "unsupported modifier (@) in the substitution of a"),
        ("${a^^}", "unsupported modifier (^) in the substitution of a"),
        ("${#a}", "unsupported modifier (a) in the substitution of #"),
        ("${a:=b}", "unsupported modifier (:=) in the substitution of a"),
        ("${a:1:2}", "unsupported modifier (:1) in the substitution of a"),
        ("${a:#b}", "unsupported modifier (:#) in the substitution of a"),
        ("${a:%b}", "unsupported modifier (:%) in the substitution of a"),
        ("${unset?}", "unset: is not allowed to be unset"),
        ("${unset:?give $a}", "unset: give apple"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        ("${a#\\x}", "invalid escape '\\x' in the pattern (\\x)"),
        ("${a/\\x/y}", "invalid escape '\\x' in the pattern (\\x)"),
    ];
    for (word, message) in table {
        assert_eq!(expand(word, '\\', &scope).map_err(|error| error.to_string()), Err(message.to_owned()), "{word}");
    }
}

#[test]
fn names_are_reported_in_order() {
    for (word, expected) in [
        ("plain", &[] as &[&str]),
        ("$a${b}$a", &["a", "b", "a"]),
        ("${a:-$b}${c:+${d}}", &["a", "b", "c", "d"]),
        ("${a/$b/$c}", &["a", "b", "c"]),
        ("'$a'\\$b\"$c\"", &["c"]),
        ("${a:?$b}", &["a", "b"]),
        ("$a ${b", &["a"]),
    ] {
        assert_eq!(names(word, '\\'), expected, "{word}");
    }
    let expansion = Expander::new('\\').expand("$a $zz", &scope);
    assert_eq!(expansion.map(|expansion| expansion.unset), Ok(vec!["zz".to_owned()]));
}

#[test]
fn deep_nesting_and_long_words_are_no_problem() {
    let depth = 200_000;
    let nested = "${u:-".repeat(depth) + "x" + &"}".repeat(depth);
    assert_eq!(expand(&nested, '\\', &|_| None).as_deref(), Ok("x"));
    assert_eq!(names(&nested, '\\').len(), depth);
    let long = "x\"y\"\\z${u}".repeat(500_000);
    assert_eq!(expand(&long, '\\', &|_| None).map(|text| text.len()), Ok(1_500_000));
    assert!(expand(&"\"${u:-".repeat(depth), '\\', &|_| None).is_err());
}

#[test]
fn no_word_takes_all_the_memory() {
    let value = "v".repeat(1 << 16);
    let given = |_: &str| Some(value.clone());
    let fits = "$a".repeat(LIMIT >> 16);
    assert_eq!(expand(&fits, '\\', &given).map(|text| text.len()), Ok(LIMIT));
    for word in [
        format!("{fits}$a"),
        "${a//?/$a}".to_owned(),
        "${a//v/x$0$0$0$0$0$0$0$0$0$a}".to_owned(),
        "${a+".repeat(1_000) + &"}".repeat(1_000),
    ] {
        assert_eq!(expand(&word, '\\', &given), Err(Error::TooLong), "{word:.40}");
    }
}

/// A slow but obvious matcher: every way to match the pattern at the start of the value, by length.
fn lengths(pattern: &[char], value: &[char]) -> Vec<usize> {
    match pattern.split_first() {
        None => vec![0],
        Some(('*', rest)) => {
            let mut all = lengths(rest, value);
            if value.first().is_some_and(|c| *c != '\n') {
                all.extend(lengths(pattern, &value[1..]).into_iter().map(|length| length + 1));
            }
            all
        }
        Some((wanted, rest)) => match value.split_first() {
            Some((found, value)) if (*wanted == '?' && *found != '\n') || wanted == found => {
                lengths(rest, value).into_iter().map(|length| length + 1).collect()
            }
            _ => Vec::new(),
        },
    }
}

/// A part of a word, whose meaning is known without reading the word.
#[derive(Debug, Clone)]
enum Part {
    /// Begins with a character that no name can have, so that it never becomes part of one before it.
    Plain(String),
    Escaped(char),
    Single(String),
    Double(Vec<Self>),
    Variable(&'static str),
    Braced(&'static str),
    Operator(&'static str, &'static str, Vec<Self>),
}

impl Part {
    fn text(&self) -> String {
        let joined = |parts: &[Self]| parts.iter().map(Self::text).collect::<String>();
        match self {
            Self::Plain(text) => text.clone(),
            Self::Escaped(character) => format!("\\{character}"),
            Self::Single(text) => format!("'{text}'"),
            Self::Double(parts) => format!("\"{}\"", joined(parts)),
            Self::Variable(name) => format!("${name}"),
            Self::Braced(name) => format!("${{{name}}}"),
            Self::Operator(name, operator, word) => format!("${{{name}{operator}{}}}", joined(word)),
        }
    }

    fn meaning(&self) -> String {
        let joined = |parts: &[Self]| parts.iter().map(Self::meaning).collect::<String>();
        match self {
            Self::Plain(text) | Self::Single(text) => text.clone(),
            Self::Escaped(character) => character.to_string(),
            Self::Double(parts) => joined(parts),
            Self::Variable(name) | Self::Braced(name) => scope(name).unwrap_or_default(),
            Self::Operator(name, operator, word) => {
                let value = scope(name).filter(|value| !operator.starts_with(':') || !value.is_empty());
                match (operator.ends_with('+'), value) {
                    (true, Some(_)) | (false, None) => joined(word),
                    (true, None) => String::new(),
                    (false, Some(value)) => value,
                }
            }
        }
    }

    fn names(&self) -> Vec<&'static str> {
        match self {
            Self::Plain(_) | Self::Escaped(_) | Self::Single(_) => Vec::new(),
            Self::Double(parts) => parts.iter().flat_map(Self::names).collect(),
            Self::Variable(name) | Self::Braced(name) => vec![name],
            Self::Operator(name, _, word) => std::iter::once(*name).chain(word.iter().flat_map(Self::names)).collect(),
        }
    }
}

/// Words of nested parts. What stands in double quotes has no quotes and no escapes of its own here.
fn parts() -> impl Strategy<Value = Vec<Part>> {
    let name = || prop::sample::select(vec!["a", "empty", "blank", "unset", "quote"]);
    let operator = || prop::sample::select(vec![":-", "-", ":+", "+"]);
    let bare = prop_oneof![
        3 => "[ .,=~][a-z .]{0,4}".prop_map(Part::Plain),
        2 => name().prop_map(Part::Variable),
        2 => name().prop_map(Part::Braced),
    ]
    .prop_recursive(3, 12, 3, move |part| {
        (name(), operator(), prop::collection::vec(part, 0..3))
            .prop_map(|(name, operator, word)| Part::Operator(name, operator, word))
    });
    let part = prop_oneof![
        4 => bare.clone(),
        1 => prop::sample::select(vec!['$', '"', '\'', '\\', 'x', ' ', '}']).prop_map(Part::Escaped),
        1 => "[^']{0,5}".prop_map(Part::Single),
        2 => prop::collection::vec(bare, 0..4).prop_map(Part::Double),
    ];
    let name = || prop::sample::select(vec!["a", "empty", "blank", "unset", "quote"]);
    let operator = || prop::sample::select(vec![":-", "-", ":+", "+"]);
    let nested = part.prop_recursive(3, 16, 3, move |part| {
        (name(), operator(), prop::collection::vec(part, 0..3))
            .prop_map(|(name, operator, word)| Part::Operator(name, operator, word))
    });
    prop::collection::vec(nested, 0..6)
}

proptest! {
    #[test]
    fn a_word_means_what_its_parts_mean(parts in parts()) {
        let word: String = parts.iter().map(Part::text).collect();
        let meaning: String = parts.iter().map(Part::meaning).collect();
        prop_assert_eq!(expand(&word, '\\', &scope), Ok(meaning), "{}", word);
        let expected: Vec<&str> = parts.iter().flat_map(Part::names).collect();
        prop_assert_eq!(names(&word, '\\'), expected, "{}", word);
    }

    #[test]
    fn expansion_never_panics(word in "\\PC*", escape in prop::sample::select(vec!['\\', '`'])) {
        let _ = expand(&word, escape, &scope);
        let _ = expand_raw(&word, escape, &scope);
        let _ = expand_split(&word, escape, &scope);
        let _ = names(&word, escape);
    }

    #[test]
    fn expansion_never_panics_on_syntax(word in "[ab{}$:/#%?*+'\"\\\\ -]{0,40}") {
        let _ = expand(&word, '\\', &scope);
        let _ = expand_split(&word, '\\', &|_| Some("a b".to_owned()));
        let _ = names(&word, '\\');
    }

    #[test]
    fn text_without_special_characters_is_itself(word in "[^$'\"\\\\]*") {
        prop_assert_eq!(expand(&word, '\\', &scope), Ok(word.clone()));
        let split: Vec<String> = word.split_whitespace().map(str::to_owned).collect();
        prop_assert_eq!(expand_split(&word, '\\', &scope), Ok(split));
    }

    #[test]
    fn quoted_values_come_back(word in "[^']*") {
        prop_assert_eq!(expand(&format!("'{word}'"), '\\', &scope), Ok(word));
    }

    #[test]
    fn trimming_agrees_with_the_obvious_matcher(pattern in "[ab*?]{1,6}", value in "[ab\n]{0,8}") {
        let characters: Vec<char> = value.chars().collect();
        let shape: Vec<char> = pattern.chars().collect();
        let all = lengths(&shape, &characters);
        let given = |_: &str| Some(value.clone());
        let shortest = &value[all.iter().min().copied().unwrap_or(0)..];
        let longest = &value[all.iter().max().copied().unwrap_or(0)..];
        prop_assert_eq!(expand(&format!("${{v#{pattern}}}"), '\\', &given), Ok(shortest.to_owned()));
        prop_assert_eq!(expand(&format!("${{v##{pattern}}}"), '\\', &given), Ok(longest.to_owned()));
        let backward: Vec<char> = characters.iter().rev().copied().collect();
        let shape: Vec<char> = shape.iter().rev().copied().collect();
        let all = lengths(&shape, &backward);
        let shortest = &value[..value.len() - all.iter().min().copied().unwrap_or(0)];
        prop_assert_eq!(expand(&format!("${{v%{pattern}}}"), '\\', &given), Ok(shortest.to_owned()));
        let first = (0..=characters.len()).find_map(|start| {
            lengths(&shape.iter().rev().copied().collect::<Vec<_>>(), &characters[start..]).into_iter().max().map(|length| (start, start + length))
        });
        let replaced = first.map_or(value.clone(), |(start, end)| format!("{}X{}", &value[..start], &value[end..]));
        prop_assert_eq!(expand(&format!("${{v/{pattern}/X}}"), '\\', &given), Ok(replaced));
    }
}
