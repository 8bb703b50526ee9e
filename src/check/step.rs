//! Single steps: how they are written, and whether another instruction would do better.

use crate::check::{copy, shell};
use crate::diagnostic::{Diagnostic, Span};
use crate::recipe::{CommandLine, Files, Healthcheck, Instruction, Recipe, Step};

pub(super) fn check(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    for step in recipe.stages.iter().flat_map(|stage| &stage.steps) {
        match &step.instruction {
            Instruction::Maintainer(_) => findings.push(
                Diagnostic::warning("MaintainerDeprecated", keyword(step, "MAINTAINER"), "`MAINTAINER` is deprecated")
                    .help("write LABEL org.opencontainers.image.authors=…"),
            ),
            Instruction::Cmd(command) | Instruction::Entrypoint(command) => json(command, findings),
            Instruction::Healthcheck(Healthcheck::Command { command, .. }) => json(command, findings),
            Instruction::Run(run) => {
                json(&run.command, findings);
                shell::ownership(step, run, findings);
            }
            Instruction::Copy(copy) => json_of_files(&copy.files, findings),
            Instruction::Add(add) => {
                json_of_files(&add.files, findings);
                copy::add_or_copy(step, add, findings);
            }
            _ => {}
        }
    }
}

/// The keyword a step begins with.
pub(super) fn keyword(step: &Step, name: &str) -> Span {
    Span::new(step.span.start, (step.span.start + name.len()).min(step.span.end))
}

fn json(command: &CommandLine, findings: &mut Vec<Diagnostic>) {
    if let CommandLine::Shell(text) = command
        && looks_like_json(&text.value)
    {
        not_json(text.span, findings);
    }
}

fn json_of_files(files: &Files, findings: &mut Vec<Diagnostic>) {
    let Some(first) = files.sources.first() else { return };
    if first.value.starts_with("[\"") || first.value.starts_with("['") {
        not_json(first.span.to(files.destination.span), findings);
    }
}

fn not_json(span: Span, findings: &mut Vec<Diagnostic>) {
    let message = "this looks like the JSON form, but is not JSON, so it is taken word for word";
    findings.push(
        Diagnostic::warning("InvalidJSONForm", span, message)
            .help("JSON has double quotes only, no comma at the end, and \\\\ for a backslash"),
    );
}

/// Whether a command was meant to be JSON. `[` is also a program (`[ -f x ]`), which takes a blank after it.
fn looks_like_json(text: &str) -> bool {
    let Some(inner) = text.trim().strip_prefix('[') else { return false };
    let quoted = inner.trim_start().starts_with(['"', '\'']);
    let spaced = inner.starts_with([' ', '\t']);
    let list = inner.trim_end().ends_with(']') && (inner.contains("\",") || inner.contains("',"));
    quoted && (!spaced || list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_from_tests_of_the_shell() {
        for (text, expected) in [
            ("[\"a\", \"b\",]", true),
            ("['a', 'b']", true),
            ("[ 'a', 'b' ]", true),
            ("[\"c:\\x\"]", true),
            ("[\"a\"", true),
            ("[ -f x ] && y", false),
            ("[ \"$x\" = y ]", false),
            ("[ \"$x\" = y ] && echo a, b", false),
            ("[[ $x ]]", false),
            ("echo [\"a\"]", false),
            ("", false),
        ] {
            assert_eq!(looks_like_json(text), expected, "{text}");
        }
    }
}
