use proptest::prelude::*;

use super::*;

#[test]
fn glob_matches_as_filepath_match() {
    for (pattern, path, expected) in [
        ("abc", "abc", true),
        ("*", "abc", true),
        ("*c", "abc", true),
        ("a*", "a", true),
        ("a*", "abc", true),
        ("a*", "ab/c", false),
        ("a*/b", "abc/b", true),
        ("a*/b", "a/c/b", false),
        ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxexxx/f", true),
        ("a*b*c*d*e*/f", "axbxcxdxe/xxx/f", false),
        ("a*b?c*x", "abxbbxdbxebxczzx", true),
        ("a*b?c*x", "abxbbxdbxebxczzy", false),
        ("ab[c]", "abc", true),
        ("ab[b-d]", "abc", true),
        ("ab[e-g]", "abc", false),
        ("ab[^c]", "abc", false),
        ("ab[^b-d]", "abc", false),
        ("ab[^e-g]", "abc", true),
        ("a\\*b", "a*b", true),
        ("a\\*b", "ab", false),
        ("a?b", "a☺b", true),
        ("a[^a]b", "a☺b", true),
        ("a???b", "a☺b", false),
        ("[a-ζ]*", "α", true),
        ("*[a-ζ]", "A", false),
        ("a?b", "a/b", false),
        ("a*b", "a/b", false),
        ("[\\]a]", "]", true),
        ("[\\-]", "-", true),
        ("[x\\-]", "x", true),
        ("[!a]", "!", true),
        ("[!a]", "b", false),
        ("arr[[]0].txt", "arr[0].txt", true),
        ("*x", "xxx", true),
        ("[^a]", "/", true),
        ("", "", true),
        ("", "a", false),
        ("*[^a]*b", "x/b", false),
    ] {
        let glob = Glob::new(pattern).unwrap();
        assert_eq!(glob.matches(path.as_bytes()), expected, "{pattern:?} against {path:?}");
    }
}

#[test]
fn malformed_patterns_are_refused_wherever_the_fault_stands() {
    for pattern in
        ["[]a]", "[-]", "[x-]", "[-x]", "[\\", "[a-b-c]", "[", "[^", "[^bc", "a[", "a\\", "*a[", "x*y*[z", "[^]"]
    {
        assert!(Glob::new(pattern).is_err(), "{pattern:?}");
        assert!(PathPattern::new(pattern).is_err(), "{pattern:?}");
    }
    for pattern in ["[z-a]", "foo\\q", "foo\\1", "[[:nope:]]", "\\é"] {
        assert!(Glob::new(pattern).is_ok(), "{pattern:?}");
        assert!(PathPattern::new(pattern).is_err(), "{pattern:?}");
    }
}

#[test]
fn path_patterns_match_as_patternmatcher() {
    for (pattern, path, expected) in [
        ("**", "file", true),
        ("**", "dir/file", true),
        ("**/**", "dir/file", true),
        ("dir/**", "dir/file", true),
        ("dir/**", "dir/dir2/file", true),
        ("dir/**", "dir", false),
        ("**/dir", "dir", true),
        ("**/dir", "a/b/dir", true),
        ("**/dir", "a/bdir", false),
        ("**file", "afile", true),
        ("**/*.txt", "a.txt", true),
        ("**/*.txt", "a/b/c.txt", true),
        ("**/*.txt", "a/b/c.txtx", false),
        ("**/*/*.txt", "a.txt", false),
        ("**/*/*.txt", "d/a.txt", true),
        ("a**/*.txt", "a/file.txt", true),
        ("a**/*.txt", "a/dir/dir/file.txt", true),
        ("a/*.txt", "a/dir/file.txt", false),
        ("a/*/*.txt", "a/dir/file.txt", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "axb", false),
        ("a**", "abc/def", true),
        ("a[b-d]e", "ae", false),
        ("a[b-d]e", "ace", true),
        ("a[^a]b", "a/b", true),
        ("abc.def", "abcZdef", false),
        ("abc?def", "abc/def", false),
        ("a\\\\", "a\\", true),
        ("**/foo/bar", "foo/bar", true),
        ("**/foo/bar", "dir/foo/bar", true),
        ("abc/**", "abc/def/ghi", true),
        ("**/.*", ".foo", true),
        ("**/.*", "bar.foo", false),
        ("a(b)c/def", "a(b)c/def", true),
        ("a.|)$(}+{bc", "a.|)$(}+{bc", true),
        ("a*c", "a\nc", true),
        ("a/**/c", "a/\n/c", false),
        ("*\\d", "x7", true),
        ("*\\d", "xd", false),
        ("[*]x", "[]x", true),
        ("[*]x", "*x", false),
        ("^a*", "ab", true),
        ("^a", "^a", true),
        ("a^b*", "a^b", false),
        ("foo\\bar", "foobar", false),
        ("[[:digit:]]x", "7x", true),
        ("***", "a/b", true),
    ] {
        let compiled = PathPattern::new(pattern).unwrap();
        assert_eq!(compiled.matches(path.as_bytes()), expected, "{pattern:?} against {path:?}");
    }
}

#[test]
fn knows_where_nothing_can_match() {
    for (pattern, dir, expected) in [
        ("src", "node_modules", false),
        ("src/a", "src", true),
        ("src", "src", false),
        ("*/keep", "node_modules", true),
        ("*/keep", "node_modules/a", false),
        ("*.go", "a", false),
        ("**/*.go", "a/b/c", true),
        ("a/**", "a/b", true),
        ("a/**", "b", false),
        ("**/x", "b", true),
        ("a[^b]c", "a", true),
    ] {
        assert_eq!(
            PathPattern::new(pattern).unwrap().may_match_below(dir.as_bytes()),
            expected,
            "{pattern:?} below {dir:?}"
        );
    }
}

#[test]
fn no_pattern_is_slow() {
    let path = "a".repeat(4000);
    assert!(!Glob::new(&("*a".repeat(200) + "b")).unwrap().matches(path.as_bytes()));
    assert!(!PathPattern::new(&("*a".repeat(200) + "b*")).unwrap().matches(path.as_bytes()));
    assert!(!PathPattern::new(&("**/a".repeat(100) + "/[b]")).unwrap().matches("a/".repeat(2000).as_bytes()));
}

/// What the two dialects mean, by trying every way to split the path: slow, but plainly right.
fn oracle(pattern: &[Piece], path: &[char]) -> bool {
    let Some((piece, rest)) = pattern.split_first() else { return path.is_empty() };
    let after_one = |accepts: bool| accepts && oracle(rest, &path[1..]);
    match piece {
        Piece::Plain(own) => after_one(path.first() == Some(own)),
        Piece::Any => after_one(path.first().is_some_and(|c| *c != '/')),
        Piece::Class(members) => after_one(path.first().is_some_and(|c| members.contains(*c))),
        Piece::Star => (0..=path.len())
            .take_while(|taken| !path[..*taken].contains(&'/'))
            .any(|taken| oracle(rest, &path[taken..])),
        Piece::Directories => {
            oracle(rest, path) || (0..path.len()).any(|at| path[at] == '/' && oracle(rest, &path[at + 1..]))
        }
    }
}

#[derive(Debug, Clone)]
enum Piece {
    Plain(char),
    Any,
    Class(&'static str),
    Star,
    Directories,
}

impl Piece {
    fn text(&self) -> String {
        match self {
            Self::Plain(c) => c.to_string(),
            Self::Any => "?".into(),
            Self::Class(members) => format!("[{members}]"),
            Self::Star => "*".into(),
            Self::Directories => "**/".into(),
        }
    }
}

fn piece() -> impl Strategy<Value = Piece> {
    prop_oneof![
        4 => prop::sample::select(vec!['a', 'b', 'é', '.', '/']).prop_map(Piece::Plain),
        1 => Just(Piece::Any),
        1 => prop::sample::select(vec!["ab", "bé", "."]).prop_map(Piece::Class),
        2 => Just(Piece::Star),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn glob_equals_the_oracle(pieces in prop::collection::vec(piece(), 0..8), path in "[abé./]{0,10}") {
        let text: String = pieces.iter().map(Piece::text).collect();
        let path_chars: Vec<char> = path.chars().collect();
        prop_assert_eq!(Glob::new(&text).unwrap().matches(path.as_bytes()), oracle(&pieces, &path_chars), "{}", text);
    }

    #[test]
    fn path_pattern_equals_the_oracle(
        head in prop::collection::vec(piece(), 1..4),
        tail in prop::collection::vec(piece(), 1..4),
        deep in any::<bool>(),
        path in "[abé./]{0,10}",
    ) {
        let mut pieces = head;
        pieces.extend(deep.then_some(Piece::Directories));
        pieces.extend(tail);
        // Two stars in a row are `**`, which these pieces do not mean.
        prop_assume!(!pieces.windows(2).any(|pair| matches!(pair, [Piece::Star, Piece::Star | Piece::Directories])));
        let text: String = pieces.iter().map(Piece::text).collect();
        let path_chars: Vec<char> = path.chars().collect();
        let pattern = PathPattern::new(&text).unwrap();
        let matched = pattern.matches(path.as_bytes());
        prop_assert_eq!(matched, oracle(&pieces, &path_chars), "{}", text);
        if matched {
            for (at, _) in path.match_indices('/') {
                if at + 1 < path.len() {
                    prop_assert!(pattern.may_match_below(&path.as_bytes()[..at]), "{} below {}", text, &path[..at]);
                }
            }
        }
    }

    #[test]
    fn no_pattern_panics(pattern in any::<String>(), odd in "[*?\\[\\]^a\\-\\\\!/:]{0,12}", path in any::<Vec<u8>>()) {
        for text in [pattern, odd] {
            if let Ok(glob) = Glob::new(&text) {
                glob.matches(&path);
            }
            if let Ok(pattern) = PathPattern::new(&text) {
                pattern.matches(&path);
                pattern.may_match_below(&path);
            }
        }
    }
}
