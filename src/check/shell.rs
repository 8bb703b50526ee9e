//! What commands of a `RUN` do to the size of an image, as far as their text tells.

use crate::check::step::keyword;
use crate::diagnostic::Diagnostic;
use crate::recipe::{CommandLine, Run, Step};

/// Programs that change what is recorded of a file, which puts the whole file into the layer.
const CHANGERS: [&str; 3] = ["chown", "chmod", "chgrp"];

/// Warns where owners or modes of a whole tree change that was there before the step.
pub(super) fn ownership(step: &Step, run: &Run, findings: &mut Vec<Diagnostic>) {
    let mut texts: Vec<(String, _)> = vec![match &run.command {
        CommandLine::Shell(text) => (text.value.clone(), text.span),
        CommandLine::Exec(argv) => (argv.join(" "), keyword(step, "RUN")),
    }];
    texts.extend(run.heredocs.iter().map(|document| (document.body.value.clone(), document.body.span)));
    for (text, span) in texts {
        if let Some(program) = changes_a_tree(&text) {
            let message = format!("`{program} -R` puts every file it changes into this layer once more");
            let finding = Diagnostic::warning("RecursiveOwnership", span, message);
            findings.push(finding.help("use --chown and --chmod where the files are copied"));
        }
    }
}

/// The program that changes a tree which the same script has not mentioned before, as it would if it made it.
fn changes_a_tree(script: &str) -> Option<&'static str> {
    let mut before = String::new();
    for command in script.split(['\n', ';', '&', '|', '(', ')']) {
        let words: Vec<&str> = command.split_whitespace().collect();
        if let Some(at) = words.iter().position(|word| CHANGERS.contains(word)) {
            let arguments = &words[at + 1..];
            let recursive = arguments.iter().any(|word| {
                *word == "--recursive" || (word.starts_with('-') && !word.starts_with("--") && word.contains('R'))
            });
            // The first operand is the owner or mode.
            let trees: Vec<&&str> = arguments.iter().filter(|word| !word.starts_with('-')).skip(1).collect();
            if recursive && trees.iter().any(|tree| !before.contains(tree.trim_end_matches('/'))) {
                return CHANGERS.iter().find(|program| **program == words[at]).copied();
            }
        }
        before.push_str(command);
        before.push('\n');
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_trees_from_below_count() {
        for (script, expected) in [
            ("chown -R app /srv", Some("chown")),
            ("apt-get update && chmod -Rv go-w /srv", Some("chmod")),
            ("chgrp --recursive app /srv /opt", Some("chgrp")),
            ("mkdir -p /srv && chown -R app /srv", None),
            ("mkdir -p /srv && chown -R app /srv /opt", Some("chown")),
            ("tar -C /srv -xf a.tar; chown -R app /srv/", None),
            ("chown app /srv", None),
            ("chmod u+x,g-R /srv", None),
            ("echo chown", None),
            ("chown -R", None),
        ] {
            assert_eq!(changes_a_tree(script), expected, "{script}");
        }
    }
}
