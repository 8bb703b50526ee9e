use proptest::prelude::*;

use super::*;

fn source(text: &str) -> SourceFile {
    SourceFile { name: "Dockerfile".into(), text: text.into() }
}

#[test]
fn an_error_shows_its_line() {
    let text = source("FROM a\r\nRUN --mout=type=cache x\r\n");
    let found = Diagnostic::error(Span::new(12, 28), "unknown flag for RUN: --mout")
        .label("this one")
        .help("did you mean --mount?");
    let expected = "\
error: unknown flag for RUN: --mout
 --> Dockerfile:2:5
  |
2 | RUN --mout=type=cache x
  |     ^^^^^^^^^^^^^^^^ this one
  |
  = help: did you mean --mount?

";
    assert_eq!(render(std::slice::from_ref(&found), &text, false), expected);
    let coloured = render(&[found], &text, true);
    assert!(coloured.contains("\u{1b}[") && coloured.contains("help"));
}

#[test]
fn a_warning_names_its_rule() {
    let text = source("\u{feff}FROM a\n");
    let found = Diagnostic::warning("StageNameCasing", Span::new(8, 9), "stage name");
    let expected = "\
warning[StageNameCasing]: stage name
 --> Dockerfile:1:6
  |
1 | FROM a
  |      ^

";
    assert_eq!(render(&[found], &text, false), expected);
}

#[test]
fn long_lines_and_long_spans_are_cut() {
    let text = source(&format!("FROM a\nRUN {} needle {}\n", "x".repeat(5_000_000), "y".repeat(5_000_000)));
    let at = text.text.find("needle").unwrap();
    let found = Diagnostic::error(Span::new(at, at + 6), "found");
    let shown = render(&vec![found; 100], &text, false);
    assert!(shown.len() < 100 * 600 && shown.contains("^^^^^^") && shown.contains("Dockerfile:2:5000006"), "{shown}");
    let all = Diagnostic::error(Span::new(0, text.text.len()), "everything");
    assert!(render(&[all], &text, false).len() < 2_000);
    let lines = source(&"RUN x\n".repeat(100_000));
    let all = Diagnostic::error(Span::new(0, lines.text.len()), "everything");
    assert!(render(&[all], &lines, false).len() < 2_000);
}

#[test]
fn places_count_from_one() {
    for (text, offset, place) in [
        ("", 0, (1, 1)),
        ("ab\ncd", 0, (1, 1)),
        ("ab\ncd", 2, (1, 3)),
        ("ab\ncd", 3, (2, 1)),
        ("ab\ncd", 99, (2, 3)),
        ("ab\n", 3, (2, 1)),
        ("é1", 2, (1, 2)),
        ("é1", 1, (1, 1)),
        ("\u{feff}ab", 3, (1, 1)),
    ] {
        assert_eq!(line_column(text, offset), place, "{text:?} {offset}");
    }
}

proptest! {
    #[test]
    fn rendering_never_panics(text in "[a-zé…\t\r\n\u{feff}\u{1b} ]{0,300}", start in 0..400_usize, length in 0..400_usize, label in "\\PC{0,8}") {
        let found = Diagnostic::error(Span::new(start, start + length), "wrong").label(label).help("do\nthis");
        let shown = render(&[found], &source(&text), false);
        prop_assert!(shown.starts_with("error: wrong"));
    }
}
