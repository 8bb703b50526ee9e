//! The directives at the top of a recipe: `# syntax=`, `# escape=` and `# check=`.
//!
//! Takes the whole text, gives what the directives say. A directive is a comment of the form `# key=value` with a known
//! key (in any case) on the very first lines; the first line that is anything else, an empty one included, ends them.
//! The frontend named by `# syntax=` is never fetched: what it would do is built in, or it is an error.

use std::str::FromStr;

use crate::diagnostic::{Diagnostic, Span, Spanned, nearest};
use crate::recipe::reference::Reference;
use crate::recipe::{Checks, RuleSet};

/// The newest stable Dockerfile syntax that is built in.
const BUILT_IN: (u64, u64) = (1, 26);

/// What the directives say.
#[derive(Debug)]
pub(super) struct Directives {
    /// The escape character.
    pub(super) escape: char,
    /// `# check=`
    pub(super) checks: Checks,
    /// Offset past the last line that is a directive; comments after it are comments.
    pub(super) end: usize,
}

/// One line `# key=value`.
struct Directive<'a> {
    key: String,
    value: Spanned<&'a str>,
    line: Span,
}

/// Reads the directives of a whole recipe. A `frontend` named elsewhere stands in for that of `# syntax=`.
pub(super) fn read(text: &str, frontend: Option<&str>, diagnostics: &mut Vec<Diagnostic>) -> Directives {
    let top = if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 };
    let mut directives = Directives { escape: '\\', checks: Checks::default(), end: top };

    // The parser proper, which honours `escape`, allows blanks before the `#`, but no `#!` line first.
    let parsed = scan(text, top, "#", true, diagnostics);
    if let Some(last) = parsed.last() {
        directives.end = last.line.end;
    }
    if let Some(escape) = parsed.iter().find(|directive| directive.key == "escape") {
        directives.escape = escape_character(&escape.value, diagnostics);
    }

    // The detection of frontends and checks is the other way round.
    let below = after_shebang(text, top);
    let detected = scan(text, below, "#", false, &mut Vec::new());
    if let Some(check) = detected.iter().find(|directive| directive.key == "check") {
        directives.checks = checks(&first_word(check.value.clone()), diagnostics);
    }
    let hash = detected.into_iter().find(|directive| directive.key == "syntax").map(|directive| directive.value);
    let slashes = || {
        let found = scan(text, below, "//", false, &mut Vec::new());
        found.into_iter().find(|directive| directive.key == "syntax").map(|directive| directive.value)
    };
    if let Some(frontend) = frontend {
        check_frontend(frontend, Span::default(), diagnostics);
    } else if let Some(syntax) = hash.or_else(slashes) {
        check_frontend(syntax.value, syntax.span, diagnostics);
    } else if let Some(syntax) = json_syntax(&text[below..]) {
        let line = text[below..].find('\n').map_or(text.len(), |length| below + length);
        check_frontend(&syntax, Span::new(below, line), diagnostics);
    }
    directives
}

/// Reads `skip=A,B;error=true;experimental=C`, the value of a check directive or comment.
pub(super) fn parse_checks(value: &Spanned<&str>) -> Result<Checks, Diagnostic> {
    let mut checks = Checks::default();
    // What stands in a trigger of a base image has the place of the `FROM` that brought it.
    let is_in_text = value.span.end - value.span.start == value.value.len();
    let mut at = value.span.start;
    for option in value.value.split(';') {
        let span = if is_in_text { Span::new(at, at + option.len()) } else { value.span };
        at += option.len() + 1;
        if value.value.trim().is_empty() {
            break;
        }
        let invalid = || Diagnostic::error(span, format!("invalid check option \"{}\"", option.trim()));
        let Some((key, setting)) = option.split_once('=') else {
            return Err(invalid().help("write it as key=value, such as skip=JSONArgsRecommended"));
        };
        let setting = setting.trim();
        match key.trim() {
            "skip" => checks.skip = rules(setting, span),
            "experimental" => checks.experimental = rules(setting, span),
            "error" => {
                checks.error =
                    super::word::parse_bool(setting).ok_or_else(|| invalid().help("error is true or false"))?;
            }
            other => {
                return Err(match nearest(other, ["skip", "error", "experimental"]) {
                    Some(known) => invalid().help(format!("did you mean {known}?")),
                    None => invalid().help("the options are skip, error and experimental"),
                });
            }
        }
    }
    Ok(checks)
}

/// What a comment above an instruction says about checks, if it is `check=…`.
pub(super) fn comment_checks(comment: &Spanned<String>) -> Option<Result<Checks, Diagnostic>> {
    let after = comment.value.get(.."check".len()).filter(|key| key.eq_ignore_ascii_case("check"));
    let value = comment.value[after?.len()..].trim_start_matches(is_regex_blank).strip_prefix('=')?.trim();
    let in_text = comment.span.end - comment.span.start == comment.value.len();
    let span = if in_text { Span::new(comment.span.end - value.len(), comment.span.end) } else { comment.span };
    Some(parse_checks(&first_word(Spanned::new(value, span))))
}

/// What counts of the value of a check directive or comment: everything before the first blank.
fn first_word(value: Spanned<&str>) -> Spanned<&str> {
    let word = value.value.split(' ').next().unwrap_or(value.value);
    let in_text = value.span.end - value.span.start == value.value.len();
    let span = if in_text { Span::new(value.span.start, value.span.start + word.len()) } else { value.span };
    Spanned::new(word, span)
}

fn rules(names: &str, span: Span) -> RuleSet {
    if names == "all" {
        return RuleSet { all: true, names: Vec::new() };
    }
    let names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
    RuleSet { all: false, names: names.map(|name| Spanned::new(name.to_owned(), span)).collect() }
}

/// The directives from an offset on, in order. A second one with the same key is an error and does not count.
fn scan<'a>(
    text: &'a str,
    from: usize,
    comment: &str,
    indented: bool,
    diagnostics: &mut Vec<Diagnostic>,
) -> Vec<Directive<'a>> {
    let mut found: Vec<Directive<'a>> = Vec::new();
    let mut at = from;
    while let Some(directive) = text.get(at..).and_then(|rest| directive(rest, at, comment, indented)) {
        let line_end = text[directive.line.start..].find('\n').map_or(text.len(), |n| directive.line.start + n + 1);
        at = line_end;
        if found.iter().any(|other| other.key == directive.key) {
            let message = format!("only one {} parser directive can be used", directive.key);
            diagnostics.push(Diagnostic::error(directive.line, message).label("this is the second one"));
        } else {
            found.push(directive);
        }
        if at >= text.len() {
            break;
        }
    }
    found
}

/// The directive on the first line of `rest`, which begins at offset `at`.
fn directive<'a>(rest: &'a str, at: usize, comment: &str, indented: bool) -> Option<Directive<'a>> {
    let line = rest.split('\n').next().unwrap_or(rest);
    let content = if indented { line.trim_start() } else { line };
    let content = content.trim_end_matches('\r').strip_prefix(comment)?.trim_start();
    let letters = content.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(content.len());
    let (key, after) = content.split_at(letters);
    let value = after.trim_start_matches(is_regex_blank).strip_prefix('=')?;
    let value = value.trim_matches(is_regex_blank);
    let key = key.to_ascii_lowercase();
    if value.is_empty() || !matches!(key.as_str(), "syntax" | "escape" | "check") {
        return None;
    }
    // The value is the end of the line, so its place follows from its length.
    let end = line.trim_end_matches(is_regex_blank).len();
    let span = Span::new(at + end - value.len(), at + end);
    Some(Directive { key, value: Spanned::new(value, span), line: Span::new(at, at + end) })
}

/// What Go's `\s` matches.
fn is_regex_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\n' | '\x0c' | '\r')
}

fn escape_character(value: &Spanned<&str>, diagnostics: &mut Vec<Diagnostic>) -> char {
    match value.value {
        "\\" => '\\',
        "`" => '`',
        other => {
            let message = format!("invalid escape token '{other}' does not match ` or \\");
            diagnostics.push(Diagnostic::error(value.span, message));
            '\\'
        }
    }
}

/// The checks in force. An option that is not understood is an error.
fn checks(value: &Spanned<&str>, diagnostics: &mut Vec<Diagnostic>) -> Checks {
    parse_checks(value).unwrap_or_else(|diagnostic| {
        diagnostics.push(diagnostic);
        Checks::default()
    })
}

/// The offset of the second line if the first begins with `#!`.
fn after_shebang(text: &str, top: usize) -> usize {
    let rest = &text[top..];
    if !rest.starts_with("#!") {
        return top;
    }
    rest.find('\n').map_or(text.len(), |length| top + length + 1)
}

/// The frontend named by a recipe that is a JSON object.
fn json_syntax(text: &str) -> Option<String> {
    if !text.trim_start().starts_with('{') {
        return None;
    }
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_str(text).ok()?;
    object.get("syntax")?.as_str().map(str::to_owned)
}

/// Accepts Docker's own frontend, from whichever registry it is mirrored, warns where a version is asked for that is
/// newer than what is built in, and refuses every other image.
fn check_frontend(value: &str, span: Span, diagnostics: &mut Vec<Diagnostic>) {
    // The first word is the image, what follows is for the frontend.
    let image = value.split(' ').next().unwrap_or(value);
    if image == "dockerfile.v0" {
        return;
    }
    let known = Reference::from_str(image).ok().filter(|reference| {
        ["docker/dockerfile", "docker/dockerfile-upstream"].iter().any(|name| {
            reference.repository.strip_suffix(name).is_some_and(|mirror| mirror.is_empty() || mirror.ends_with('/'))
        })
    });
    let Some(reference) = known else {
        let message = format!("the frontend image \"{image}\" cannot be used: Dockerfile syntax is built in");
        diagnostics.push(
            Diagnostic::error(span, message)
                .label("asks for another frontend")
                .help("remove the line, or name docker/dockerfile if the recipe is an ordinary Dockerfile"),
        );
        return;
    };
    let tag = reference.tag.as_deref().unwrap_or_default();
    if version(tag).is_some_and(|version| version > BUILT_IN) {
        let (major, minor) = BUILT_IN;
        let message = format!("Dockerfile syntax {tag} is newer than the built-in {major}.{minor}");
        diagnostics.push(
            Diagnostic::warning("SyntaxTooNew", span, message).help("what is new in it is refused where it is used"),
        );
    }
}

/// The major and minor version of a tag such as `1`, `1.4`, `1.4.3` or `1.7-labs`; a missing minor counts as 0.
fn version(tag: &str) -> Option<(u64, u64)> {
    let mut numbers = tag.split('-').next()?.split('.');
    let major = numbers.next()?.parse().ok()?;
    Some((major, numbers.next().map_or(Ok(0), str::parse).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> (Directives, Vec<String>) {
        let mut diagnostics = Vec::new();
        let directives = read(text, None, &mut diagnostics);
        (directives, diagnostics.into_iter().map(|diagnostic| diagnostic.message).collect())
    }

    #[test]
    fn the_escape_character_is_found_only_at_the_very_top() {
        for (text, escape) in [
            ("", '\\'),
            ("# escape=`\nFROM a", '`'),
            ("#escape=`", '`'),
            ("  #\tEsCaPe  =  ` \t\r\nFROM a", '`'),
            ("\u{feff}# escape=`\n", '`'),
            ("# syntax=docker/dockerfile:1\n# check=skip=all\n# escape=`\n", '`'),
            ("# a comment\n# escape=`\n", '\\'),
            ("# unknown=x\n# escape=`\n", '\\'),
            ("\n# escape=`\n", '\\'),
            ("#\n# escape=`\n", '\\'),
            ("FROM a\n# escape=`\n", '\\'),
            ("#!/usr/bin/env x\n# escape=`\n", '\\'),
            ("# escape=\n", '\\'),
        ] {
            let (directives, messages) = messages(text);
            assert_eq!((directives.escape, messages), (escape, vec![]), "{text}");
        }
        assert_eq!(messages("# escape=x\n").1, ["invalid escape token 'x' does not match ` or \\"]);
        assert_eq!(messages("# escape=`\n# ESCAPE=\\\n").1, ["only one escape parser directive can be used"]);
        assert_eq!(messages("# check=error=true\n# check=skip=all").1, ["only one check parser directive can be used"]);
    }

    #[test]
    fn only_dockers_own_frontend_is_accepted() {
        for accepted in [
            "docker/dockerfile",
            "docker/dockerfile:1",
            "docker/dockerfile:1.26",
            "docker/dockerfile:1.26.3",
            "docker/dockerfile:1.7-labs",
            "docker/dockerfile:labs",
            "docker.io/docker/dockerfile:1.4",
            "docker/dockerfile-upstream:master",
            "registry.example.com:5000/mirror/docker/dockerfile:1",
            "docker/dockerfile:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
            "docker/dockerfile:1 with arguments",
            "dockerfile.v0",
        ] {
            assert_eq!(messages(&format!("# syntax={accepted}\nFROM a\n")).1, Vec::<String>::new(), "{accepted}");
        }
        for newer in ["docker/dockerfile:1.27", "docker/dockerfile:2", "docker/dockerfile:1.30.1-labs"] {
            let (_, messages) = messages(&format!("# syntax={newer}\nFROM a\n"));
            assert!(messages.len() == 1 && messages[0].contains("is newer than"), "{newer}: {messages:?}");
        }
        for text in [
            "# syntax=example.com/frontend:1\n",
            "#!/usr/bin/env build\n# syntax=example.com/frontend:1\n",
            "// syntax=example.com/frontend:1\n",
            "{\"syntax\": \"example.com/frontend:1\"}",
            "# syntax=example.com/frontend:1 arguments\n",
        ] {
            assert_eq!(
                messages(text).1,
                ["the frontend image \"example.com/frontend:1\" cannot be used: Dockerfile syntax is built in"],
                "{text}"
            );
        }
        for refused in ["Docker/dockerfile", "my-docker/dockerfile", "docker/dockerfile:1/x"] {
            assert_eq!(messages(&format!("# syntax={refused}\n")).1.len(), 1, "{refused}");
        }
        // An indented line is a comment for the detection of frontends.
        assert_eq!(messages(" # syntax=example.com/frontend\n").1, Vec::<String>::new());
    }

    #[test]
    fn places_are_those_of_the_source() {
        let mut diagnostics = Vec::new();
        let text = "\u{feff}#!x\r\n# syntax = foo/bar \r\n";
        read(text, None, &mut diagnostics);
        let span = diagnostics[0].span;
        assert_eq!(&text[span.start..span.end], "foo/bar");
    }

    #[test]
    fn checks_are_read() {
        let (directives, messages) = messages("# check=skip=A,B;error=true;experimental=all\n");
        assert_eq!(messages, Vec::<String>::new());
        assert!(directives.checks.error && directives.checks.experimental.all);
        assert!(directives.checks.skip.contains("A") && directives.checks.skip.contains("B"));
        assert!(!directives.checks.skip.contains("C") && directives.checks.experimental.contains("C"));
        for (value, message) in [
            ("skip", "invalid check option \"skip\""),
            ("skp=A", "invalid check option \"skp=A\""),
            ("error=maybe", "invalid check option \"error=maybe\""),
        ] {
            assert_eq!(self::messages(&format!("# check={value}\n")).1, [message]);
        }
    }
}
