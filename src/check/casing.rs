//! Upper and lower case: of keywords, of `AS`, of names of stages.

use crate::diagnostic::{Diagnostic, Span};
use crate::recipe::{Recipe, Stage, Step};

pub(super) fn check(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    for stage in &recipe.stages {
        stage_name(recipe, stage, findings);
        from_and_as(recipe, stage, findings);
    }
    keywords(recipe, findings);
}

fn stage_name(recipe: &Recipe, stage: &Stage, findings: &mut Vec<Diagnostic>) {
    let Some(name) = &stage.name else { return };
    let written = text(recipe, name.span);
    if written.chars().any(char::is_uppercase) {
        let message = format!("the name of stage `{written}` is not in lower case");
        let finding = Diagnostic::warning("StageNameCasing", name.span, message);
        findings.push(finding.help(format!("write {}", name.value)));
    }
}

/// `AS` follows the case of `FROM`; if `FROM` itself is mixed, that is for the rule about keywords.
fn from_and_as(recipe: &Recipe, stage: &Stage, findings: &mut Vec<Diagnostic>) {
    let Some(name) = &stage.name else { return };
    let between = Span::new(stage.base.span.end, name.span.start);
    let Some(at) = find_as(text(recipe, between)) else { return };
    let span = Span::new(between.start + at, between.start + at + "AS".len());
    let (from, written) = (keyword(recipe, stage.span), text(recipe, span));
    let wanted = match (is_lower(from), is_upper(from)) {
        (true, _) => "as",
        (_, true) => "AS",
        _ => return,
    };
    if written != wanted {
        let message = format!("`{written}` is not in the case of `{from}`");
        findings.push(Diagnostic::warning("FromAsCasing", span, message).help(format!("write {wanted}")));
    }
}

/// The place of the word `as` between blanks.
fn find_as(text: &str) -> Option<usize> {
    let blank = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_whitespace);
    let bytes = text.as_bytes();
    (0..bytes.len().saturating_sub(1)).find(|&at| {
        bytes[at..at + 2].eq_ignore_ascii_case(b"as")
            && blank(at.checked_sub(1).and_then(|before| bytes.get(before)))
            && blank(bytes.get(at + 2))
    })
}

/// Every keyword has the case that most have; arguments before the first stage do not count, as in BuildKit.
fn keywords(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    let in_stage = |stage: &Stage| {
        let steps: Vec<Span> = stage.steps.iter().map(|step: &Step| step.span).collect();
        std::iter::once(stage.span).chain(steps)
    };
    let spans: Vec<Span> = recipe.stages.iter().flat_map(in_stage).collect();
    let words: Vec<&str> = spans.iter().map(|span| keyword(recipe, *span)).collect();
    let lower = words.iter().filter(|word| is_lower(word)).count();
    let upper = words.iter().filter(|word| !is_lower(word) && is_upper(word)).count();
    let (fits, case): (fn(&str) -> bool, &str) = if lower > upper { (is_lower, "lower") } else { (is_upper, "upper") };
    for (span, word) in spans.into_iter().zip(words) {
        if !fits(word) {
            let span = Span::new(span.start, span.start + word.len());
            let message = format!("`{word}` is not in {case} case, as most instructions are");
            findings.push(Diagnostic::warning("ConsistentInstructionCasing", span, message));
        }
    }
}

/// The keyword an instruction begins with.
fn keyword(recipe: &Recipe, span: Span) -> &str {
    let text = text(recipe, span);
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    &text[..end]
}

fn text(recipe: &Recipe, span: Span) -> &str {
    recipe.source.text.get(span.start..span.end).unwrap_or_default()
}

fn is_lower(word: &str) -> bool {
    !word.chars().any(char::is_uppercase)
}

fn is_upper(word: &str) -> bool {
    !word.chars().any(char::is_lowercase)
}
