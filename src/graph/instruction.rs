//! What each instruction does to the stage it stands in.
//!
//! Takes one step and the stage's state before it; changes the state, adds nodes and history, reports findings. An
//! instruction that cannot be understood leaves the state as it was, so that the ones after it are still checked.
//! `RUN` is in `run`, `COPY` and `ADD` are in `copy`.

use std::time::Duration;

use serde_json::{Map, Value};

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::advice::did_you_mean;
use crate::graph::lint::{Single, Singles};
use crate::graph::nodes::Nodes;
use crate::graph::scope::{self, Globals, Scope};
use crate::graph::stage::Stages;
use crate::graph::state::StageState;
use crate::graph::{MkdirOp, NodeId, Op, Origin, history, path, ports, signal};
use crate::image::config::{HealthConfig, History};
use crate::recipe::{Arg, CommandLine, Healthcheck, Instruction, Pair, Step, Word};

/// One stage while its steps are carried out.
#[derive(Debug)]
pub(super) struct StageInProgress<'a> {
    pub(super) globals: &'a Globals,
    pub(super) stages: &'a Stages<'a>,
    /// The file systems of the stages done so far.
    pub(super) results: &'a [Option<NodeId>],
    pub(super) nodes: &'a mut Nodes,
    pub(super) findings: &'a mut Vec<Diagnostic>,
    pub(super) state: StageState,
    /// What this stage adds to the history.
    pub(super) history: Vec<History>,
    /// The stage's name in progress.
    pub(super) label: &'a str,
    /// How many steps that show progress were met, and how many there are.
    pub(super) shown: usize,
    pub(super) shown_total: usize,
    /// Whether this stage has a `CMD` of its own.
    pub(super) command_set: bool,
    /// Where instructions stand of which only the last counts.
    pub(super) singles: Singles,
}

/// Whether a step shows progress, and so has a number.
pub(super) fn is_shown(step: &Step) -> bool {
    matches!(
        step.instruction,
        Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_)
    )
}

impl StageInProgress<'_> {
    /// Carries out one step.
    pub(super) fn step(&mut self, step: &Step, trigger: bool) {
        if is_shown(step) {
            self.shown += 1;
        }
        // `None` only says that a finding was reported and nothing was done.
        let _done: Option<()> = match &step.instruction {
            Instruction::Arg(arguments) => self.arg(arguments),
            Instruction::Env(pairs) => self.env(pairs),
            Instruction::Label(pairs) => self.label(pairs),
            Instruction::Maintainer(name) => self.maintainer(name),
            Instruction::Run(run) => self.run(step, run, trigger),
            Instruction::Copy(copy) => self.copy(step, copy, trigger),
            Instruction::Add(add) => self.add(step, add, trigger),
            Instruction::Workdir(path) => self.workdir(step, path, trigger),
            Instruction::User(user) => self.user(user),
            Instruction::Cmd(command) => self.cmd(step, command),
            Instruction::Entrypoint(command) => self.entrypoint(step, command),
            Instruction::Expose(words) => self.expose(words),
            Instruction::Volume(words) => self.volume(words),
            Instruction::StopSignal(word) => self.stop_signal(word),
            Instruction::Shell(shell) => self.shell(shell),
            Instruction::Healthcheck(check) => self.healthcheck(step, check),
            Instruction::Onbuild(text) => {
                // Neither a layer nor history: the text is all there is.
                self.state.config.config.on_build.push(text.value.clone());
                Some(())
            }
        };
    }

    fn arg(&mut self, arguments: &[Arg]) -> Option<()> {
        self.secret_arguments(arguments);
        let mut shown = Vec::with_capacity(arguments.len());
        let (environment, declared) = self.state.argument_scope();
        // Unlike everywhere else, each argument sees those before it in the same instruction.
        for argument in arguments {
            shown.push(scope::declare(self.globals, environment, declared, argument, self.findings)?);
        }
        self.commit(format!("ARG {}", shown.join(" ")))
    }

    fn env(&mut self, pairs: &[Pair]) -> Option<()> {
        self.legacy_pairs("ENV", pairs);
        self.secret_variables(pairs);
        let pairs = self.expand_pairs(pairs)?;
        for (name, value) in &pairs {
            self.state.set_env(name, value);
        }
        self.commit(format!("ENV {}", join_pairs(&pairs)))
    }

    fn label(&mut self, pairs: &[Pair]) -> Option<()> {
        self.legacy_pairs("LABEL", pairs);
        let pairs = self.expand_pairs(pairs)?;
        let text = format!("LABEL {}", join_pairs(&pairs));
        self.state.config.config.labels.extend(pairs);
        self.commit(text)
    }

    fn maintainer(&mut self, name: &Word) -> Option<()> {
        self.state.config.author = Some(name.value.clone());
        self.commit(format!("MAINTAINER {}", name.value))
    }

    fn workdir(&mut self, step: &Step, word: &Word, trigger: bool) -> Option<()> {
        let written = self.expand(word)?;
        self.first_workdir(&written, word.span);
        let path = path::workdir(&self.state.config.config.working_dir, &written);
        let text = format!("WORKDIR {path}");
        self.state.config.config.working_dir = path;
        let path = self.state.workdir();
        if path == "/" {
            return self.commit(text);
        }
        let op = MkdirOp {
            parent: self.state.node,
            path,
            user: self.state.config.config.user.clone(),
            epoch: self.globals.epoch,
        };
        self.commit_layer(Op::Mkdir(op), text, step, trigger)
    }

    fn user(&mut self, word: &Word) -> Option<()> {
        let user = self.expand(word)?;
        let text = format!("USER {user}");
        self.state.config.config.user = user;
        self.commit(text)
    }

    fn cmd(&mut self, step: &Step, command: &CommandLine) -> Option<()> {
        self.used_once(Single::Cmd, step.span);
        self.shell_form("CMD", command, step.span);
        let argv = self.argv(command);
        let text = format!("CMD {}", history::quoted_list(&argv));
        let config = &mut self.state.config.config;
        config.cmd = (!argv.is_empty()).then_some(argv);
        config.args_escaped = true;
        self.command_set = true;
        self.commit(text)
    }

    fn entrypoint(&mut self, step: &Step, command: &CommandLine) -> Option<()> {
        self.used_once(Single::Entrypoint, step.span);
        self.shell_form("ENTRYPOINT", command, step.span);
        let argv = self.argv(command);
        let text = format!("ENTRYPOINT {}", history::quoted_list(&argv));
        let config = &mut self.state.config.config;
        config.entrypoint = (!argv.is_empty()).then_some(argv);
        if !self.command_set {
            // A command of the base was meant for the base's entry point.
            config.cmd = None;
        }
        self.commit(text)
    }

    fn expose(&mut self, words: &[Word]) -> Option<()> {
        let mut words: Vec<&Word> = words.iter().collect();
        words.sort_by(|left, right| left.value.cmp(&right.value));
        let mut exposed = Vec::new();
        for word in words {
            for text in self.scoped(|scope, findings| scope.words(word, findings))? {
                exposed.extend(self.ports(&text, word.span)?);
            }
        }
        let text = format!("EXPOSE {}", history::list(&exposed));
        self.state.config.config.exposed_ports.extend(exposed.into_iter().map(|port| (port, empty_object())));
        self.commit(text)
    }

    fn ports(&mut self, text: &str, span: Span) -> Option<Vec<String>> {
        match ports::parse(text) {
            Ok(ports) => {
                if ports.names_host {
                    self.findings.push(Diagnostic::warning(
                        "ExposeInvalidFormat",
                        span,
                        format!("`EXPOSE {text}` names an address or port of the host, which an image cannot decide"),
                    ));
                }
                if ports.odd_case {
                    self.findings.push(Diagnostic::warning(
                        "ExposeProtoCasing",
                        span,
                        format!("the protocol in `EXPOSE {text}` is not in lower case"),
                    ));
                }
                Some(ports.exposed)
            }
            Err(error) => {
                let mut finding = Diagnostic::error(span, error.to_string());
                finding.help = error.help();
                self.findings.push(finding);
                None
            }
        }
    }

    fn volume(&mut self, words: &[Word]) -> Option<()> {
        let mut paths = Vec::with_capacity(words.len());
        for word in words {
            let path = self.expand(word)?;
            if path.is_empty() {
                self.findings.push(Diagnostic::error(word.span, "a volume needs a path: this is empty once expanded"));
                return None;
            }
            paths.push(path);
        }
        let text = format!("VOLUME {}", history::list(&paths));
        self.state.config.config.volumes.extend(paths.into_iter().map(|path| (path, empty_object())));
        self.commit(text)
    }

    fn stop_signal(&mut self, word: &Word) -> Option<()> {
        let name = self.expand(word)?;
        if !signal::is_signal(&name) {
            let mut finding = Diagnostic::error(word.span, format!("`{name}` is not a signal"));
            let bare = name.to_uppercase();
            finding.help = did_you_mean(bare.strip_prefix("SIG").unwrap_or(&bare), signal::names());
            self.findings.push(finding);
            return None;
        }
        let text = format!("STOPSIGNAL {name}");
        self.state.config.config.stop_signal = Some(name);
        self.commit(text)
    }

    fn shell(&mut self, shell: &[String]) -> Option<()> {
        self.state.config.config.shell = (!shell.is_empty()).then(|| shell.to_vec());
        self.commit(format!("SHELL {}", history::list(shell)))
    }

    fn healthcheck(&mut self, step: &Step, check: &Healthcheck) -> Option<()> {
        self.used_once(Single::Healthcheck, step.span);
        let health = match check {
            Healthcheck::None => HealthConfig { test: vec!["NONE".to_owned()], ..HealthConfig::default() },
            Healthcheck::Command { command, interval, timeout, start_period, start_interval, retries } => {
                let (kind, argv) = match command {
                    CommandLine::Shell(text) => ("CMD-SHELL", vec![text.value.clone()]),
                    CommandLine::Exec(argv) => ("CMD", argv.clone()),
                };
                let mut test = vec![kind.to_owned()];
                test.extend(argv);
                HealthConfig {
                    test,
                    interval: nanoseconds(*interval),
                    timeout: nanoseconds(*timeout),
                    start_period: nanoseconds(*start_period),
                    start_interval: nanoseconds(*start_interval),
                    retries: retries.filter(|retries| *retries != 0),
                    other: Map::new(),
                }
            }
        };
        let text = format!("HEALTHCHECK {}", history::health(&health));
        self.state.config.config.healthcheck = Some(health);
        self.commit(text)
    }

    /// A command with the shell in front of it where it is text for one.
    fn argv(&self, command: &CommandLine) -> Vec<String> {
        match command {
            CommandLine::Exec(argv) => argv.clone(),
            CommandLine::Shell(text) => self.in_shell(&text.value),
        }
    }

    /// Text as an argument of the shell in force.
    pub(super) fn in_shell(&self, text: &str) -> Vec<String> {
        let mut argv = match self.state.config.config.shell.as_deref() {
            Some(shell) if !shell.is_empty() => shell.to_vec(),
            _ if self.state.config.os == "windows" => ["cmd", "/S", "/C"].map(str::to_owned).to_vec(),
            _ => ["/bin/sh", "-c"].map(str::to_owned).to_vec(),
        };
        argv.push(text.to_owned());
        argv
    }

    fn expand_pairs(&mut self, pairs: &[Pair]) -> Option<Vec<(String, String)>> {
        pairs.iter().map(|pair| Some((self.expand(&pair.name)?, self.expand(&pair.value)?))).collect()
    }

    /// What a word says to the step being carried out.
    pub(super) fn expand(&mut self, word: &Word) -> Option<String> {
        self.scoped(|scope, findings| scope.word(word, findings))
    }

    /// Calls with the variables as they are now.
    pub(super) fn scoped<T>(&mut self, call: impl FnOnce(&Scope<'_>, &mut Vec<Diagnostic>) -> T) -> T {
        let scope =
            Scope { globals: self.globals, environment: &self.state.environment, arguments: &self.state.arguments };
        call(&scope, self.findings)
    }

    /// Ends a step that only changed the configuration.
    fn commit(&mut self, created_by: String) -> Option<()> {
        self.history.push(history::entry(created_by, false));
        Some(())
    }

    /// Ends a step that makes a layer.
    pub(super) fn commit_layer(&mut self, op: Op, created_by: String, step: &Step, trigger: bool) -> Option<()> {
        let (label, number, of) = (self.label, self.shown, self.shown_total);
        self.state.node = self.nodes.intern_step(op, label, step.caching, || Origin {
            stage: label.to_owned(),
            step: number,
            of,
            text: if trigger { format!("ONBUILD {}", step.text) } else { step.text.clone() },
            span: step.span,
        });
        self.history.push(history::entry(created_by, true));
        Some(())
    }
}

fn join_pairs(pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

fn empty_object() -> Value {
    Value::Object(Map::new())
}

/// Nanoseconds as the configuration holds them (a signed number in Go); zero is left out there.
fn nanoseconds(duration: Option<Duration>) -> Option<u64> {
    let nanoseconds = duration?.as_nanos().min(i64::MAX.unsigned_abs().into());
    u64::try_from(nanoseconds).ok().filter(|nanoseconds| *nanoseconds != 0)
}
