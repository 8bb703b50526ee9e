//! `RUN`: a command line and its here-documents become one process.
//!
//! Takes the instruction as parsed, gives a [`RunOp`] whose arguments need no further reading. What a shell would expand
//! is left to it: no variable is replaced here.

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::instruction::StageInProgress;
use crate::graph::{InlineFile, Op, RunOp, history};
use crate::recipe::{CommandLine, Heredoc, Network, Run, Security, Step};

/// Where scripts given as here-documents are mounted.
const SCRIPTS: &str = "/dev/pipes";

impl StageInProgress<'_> {
    pub(super) fn run(&mut self, step: &Step, run: &Run, trigger: bool) -> Option<()> {
        let (argv, scripts) = self.process(run, step.span)?;
        let (network, security) = self.entitled(run)?;
        let mounts = self.mounts(&run.mounts)?;
        let arguments = self.state.arguments.seen_in(&self.state.environment);
        let created_by = format!("RUN {} # buildkit", history::run(&arguments, &argv));
        let environment = &self.state.environment;
        let op = RunOp {
            parent: self.state.node,
            argv,
            env: environment.shared(),
            proxy_env: self.globals.proxies(environment),
            workdir: self.state.process_directory(),
            user: self.state.config.config.user.clone(),
            network,
            security,
            mounts,
            scripts,
            epoch: self.globals.epoch,
            hostname: self.globals.hostname().map(str::to_owned),
        };
        self.commit_layer(Op::Run(op), created_by, step, trigger)
    }

    /// The network and the confinement asked for, if the user allows them.
    fn entitled(&mut self, run: &Run) -> Option<(Network, Security)> {
        let allow = self.globals.allow;
        let mut refuse = |span: Span, flag: &str, what: &str| {
            let message = format!("`RUN {flag}` is not allowed: it gives the step {what}");
            self.findings.push(Diagnostic::error(span, message).help(format!(
                "if you trust the recipe, build it with `--allow {}`",
                if flag.starts_with("--network") { "network.host" } else { "security.insecure" }
            )));
        };
        let (mut network, mut security) = (Network::Default, Security::Sandbox);
        let mut allowed = true;
        if let Some(asked) = &run.network {
            network = asked.value;
            if network == Network::Host && !allow.network_host {
                refuse(asked.span, "--network=host", "the network of this machine");
                allowed = false;
            }
        }
        if let Some(asked) = &run.security {
            security = asked.value;
            if security == Security::Insecure && !allow.security_insecure {
                refuse(asked.span, "--security=insecure", "every capability of the user who builds");
                allowed = false;
            }
        }
        allowed.then_some((network, security))
    }

    /// The arguments of the process, and the scripts it needs.
    fn process(&mut self, run: &Run, span: Span) -> Option<(Vec<String>, Vec<InlineFile>)> {
        let text = match &run.command {
            CommandLine::Exec(argv) if run.heredocs.is_empty() => return Some((argv.clone(), Vec::new())),
            CommandLine::Exec(_) => {
                self.findings.push(Diagnostic::error(span, "a here-document needs the shell form of `RUN`"));
                return None;
            }
            CommandLine::Shell(text) => &text.value,
        };
        match run.heredocs.as_slice() {
            [] => Some((self.in_shell(text), Vec::new())),
            [document] if is_only_heredoc(text) => self.script(document),
            documents => Some((self.in_shell(&with_bodies(text, documents)), Vec::new())),
        }
    }

    /// A single here-document is the script itself: for its own interpreter if it names one, else for the shell.
    fn script(&mut self, document: &Heredoc) -> Option<(Vec<String>, Vec<InlineFile>)> {
        let body = &document.body;
        if self.state.config.os == "windows" || !body.value.starts_with("#!") {
            return Some((self.in_shell(&body.value), Vec::new()));
        }
        let file = inline_file(document, body.value.clone(), self.findings)?;
        Some((self.in_shell(&format!("{SCRIPTS}/{}", file.name)), vec![file]))
    }
}

/// The file a here-document stands for; its name becomes the file's, so it must be one.
pub(super) fn inline_file(document: &Heredoc, content: String, findings: &mut Vec<Diagnostic>) -> Option<InlineFile> {
    if matches!(document.name.as_str(), "" | "." | "..") || document.name.contains('/') {
        let message = format!("`{}` cannot name the here-document's file", document.name);
        findings.push(Diagnostic::error(document.body.span, message).help("use a plain word, such as `<<EOF`"));
        return None;
    }
    Some(InlineFile { name: document.name.clone(), content: content.into_bytes() })
}

/// Whether a command line is nothing but the start of one here-document, such as `<<-"EOF"`.
fn is_only_heredoc(text: &str) -> bool {
    let text = text.trim().trim_start_matches(|character: char| character.is_ascii_digit());
    let Some(word) = text.strip_prefix("<<") else { return false };
    let word = word.strip_prefix('-').unwrap_or(word).trim_start();
    let mut quote = None;
    for character in word.chars() {
        match (quote, character) {
            (None, '<') => return false,
            (None, blank) if blank.is_whitespace() => return false,
            (None, '"' | '\'') => quote = Some(character),
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
    }
    !word.is_empty() && quote.is_none()
}

/// The command line with its here-documents below it, as a shell reads them.
fn with_bodies(text: &str, documents: &[Heredoc]) -> String {
    let mut script = text.to_owned();
    for document in documents {
        script.push('\n');
        script.push_str(&document.raw);
        script.push_str(&document.name);
    }
    script
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lone_heredoc_is_recognised() {
        for (text, expected) in [
            ("<<EOF", true),
            ("<<-EOF", true),
            ("3<<EOF", true),
            ("<<\"my eof\"", true),
            ("<<'EOF'", true),
            ("<< EOF", true),
            ("<< EOF x", false),
            ("<<EOF cat", false),
            ("cat <<EOF", false),
            ("<<EOF <<TWO", false),
            ("<<<word", false),
            ("<<", false),
            ("<<EOF | sh", false),
            ("<<'EOF", false),
        ] {
            assert_eq!(is_only_heredoc(text), expected, "{text}");
        }
    }
}
