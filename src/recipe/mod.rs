//! A recipe: what the user wrote, as one typed value for every recipe language.
//!
//! The front ends ([`dockerfile`], later YAML) take text and give a [`Recipe`] and diagnostics; they never fail on
//! the first error, never touch the disk, and never expand a variable. Words are kept as written ([`Word`]), because
//! what `$x` stands for depends on the base image; [`variable`] expands them when the graph is made.

pub mod dockerfile;
pub mod list;
pub mod platform;
pub mod reference;
pub mod remote;
pub mod variable;

use std::time::Duration;

use crate::diagnostic::{SourceFile, Span, Spanned, nearest};
use crate::recipe::reference::Reference;

/// A word as written: quotes, escapes and variables are still in it.
pub type Word = Spanned<String>;

/// A whole recipe.
#[derive(Debug, Clone)]
pub struct Recipe {
    /// The text it was read from.
    pub source: SourceFile,
    /// The escape character in force: `\` unless a directive says otherwise.
    pub escape: char,
    /// `ARG`s before the first stage, in order.
    pub global_args: Vec<Step>,
    /// The stages, in order; a recipe that parsed without errors has at least one.
    pub stages: Vec<Stage>,
    /// What the recipe says about the warnings it wants.
    pub checks: Checks,
    /// Where comments stand inside of continued instructions, whose spans contain them.
    pub inner_comments: Vec<Span>,
}

/// Which warnings a recipe asks for: `# check=skip=…;error=…;experimental=…` at its top, and `# check=skip=…` directly
/// above single instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checks {
    /// `skip=`: rules that are switched off.
    pub skip: RuleSet,
    /// `experimental=`: rules that are switched on although they are experiments.
    pub experimental: RuleSet,
    /// `error=true`: a warning fails the build.
    pub error: bool,
    /// What comments above single instructions say, in order.
    pub local: Vec<LocalChecks>,
}

/// What a comment directly above an instruction says about checks of that instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalChecks {
    /// The instruction with the comments above it.
    pub span: Span,
    /// The rules switched off.
    pub skip: RuleSet,
    /// The rules switched on.
    pub experimental: RuleSet,
}

impl Checks {
    /// Whether a warning of this rule, at this place, is switched off.
    pub fn skips(&self, rule: &str, span: Span) -> bool {
        self.skip.contains(rule) || self.skips_here(rule, span)
    }

    /// Whether the comment directly above the instruction at this place switches the rule off.
    pub fn skips_here(&self, rule: &str, span: Span) -> bool {
        self.above(span).is_some_and(|above| above.skip.contains(rule))
    }

    /// Whether a rule that is off by default is switched on at this place.
    pub fn wants(&self, rule: &str, span: Span) -> bool {
        self.experimental.contains(rule) || self.above(span).is_some_and(|above| above.experimental.contains(rule))
    }

    fn above(&self, span: Span) -> Option<&LocalChecks> {
        let until = self.local.partition_point(|above| above.span.start <= span.start);
        let above = until.checked_sub(1).and_then(|last| self.local.get(last));
        above.filter(|above| span.start < above.span.end)
    }
}

/// Names of rules, or all rules.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RuleSet {
    /// Whether every rule is meant.
    pub all: bool,
    /// The rules named.
    pub names: Vec<Spanned<String>>,
}

impl RuleSet {
    /// Whether no rule is meant.
    pub fn is_empty(&self) -> bool {
        !self.all && self.names.is_empty()
    }

    /// Means what the other one means, too.
    pub fn extend(&mut self, other: Self) {
        self.all |= other.all;
        self.names.extend(other.names);
    }

    /// Whether this rule is meant; names are case-sensitive.
    pub fn contains(&self, rule: &str) -> bool {
        self.all || self.names.iter().any(|name| name.value == rule)
    }
}

impl Recipe {
    /// Where the recipe names an image, and the nearest name of a stage, which may be what was meant. The place is the
    /// first stage's base for an image that only a variable or a trigger names.
    pub fn place_of_image(&self, image: &Reference) -> (Span, Option<String>) {
        let sources = self.stages.iter().flat_map(|stage| &stage.steps).filter_map(|step| match &step.instruction {
            Instruction::Copy(copy) => copy.from.as_ref(),
            _ => None,
        });
        let mut words = self.stages.iter().map(|stage| &stage.base).chain(sources);
        let Some(word) = words.find(|word| word.value.parse().is_ok_and(|name: Reference| name == *image)) else {
            return (self.stages.first().map(|stage| stage.base.span).unwrap_or_default(), None);
        };
        let stages = self.stages.iter().filter_map(|stage| Some(stage.name.as_ref()?.value.as_str()));
        let help = nearest(&word.value, stages).map(|stage| format!("there is a stage named `{stage}`"));
        (word.span, help)
    }
}

/// One stage: a base and the steps on top of it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The whole `FROM` line.
    pub span: Span,
    /// The base as written: an image, an earlier stage, a named context or `scratch`.
    pub base: Word,
    /// `--platform=`, as written.
    pub platform: Option<Word>,
    /// `AS name`, in lower case.
    pub name: Option<Spanned<String>>,
    /// The comment directly above that describes the stage.
    pub description: Option<String>,
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Step {
    /// From the first byte of the keyword to the end of the instruction, heredoc bodies included.
    pub span: Span,
    /// The instruction on one line as it is shown to people: continuations joined, heredoc bodies left out.
    pub text: String,
    /// What it says.
    pub instruction: Instruction,
    /// Whether an earlier result of it counts.
    pub caching: Caching,
}

/// When a result of an earlier build counts for a step. Never part of a key: what a step makes does not depend on it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Caching {
    /// Never: the step is made in every build.
    pub no_cache: bool,
    /// While it is younger than this.
    pub ttl: Option<Duration>,
}

impl Caching {
    /// What two steps ask for that are one: the stricter of both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        let ttl = self.ttl.into_iter().chain(other.ttl).min();
        Self { no_cache: self.no_cache || other.no_cache, ttl }
    }
}

/// What one instruction says.
#[derive(Debug, Clone)]
pub enum Instruction {
    /// `ARG name[=default]…`
    Arg(Vec<Arg>),
    /// `ENV name=value…`
    Env(Vec<Pair>),
    /// `LABEL name=value…`
    Label(Vec<Pair>),
    /// `MAINTAINER name`
    Maintainer(Word),
    /// `RUN …`
    Run(Run),
    /// `COPY …`
    Copy(Copy),
    /// `ADD …`
    Add(Add),
    /// `WORKDIR path`
    Workdir(Word),
    /// `USER user[:group]`
    User(Word),
    /// `CMD …`
    Cmd(CommandLine),
    /// `ENTRYPOINT …`
    Entrypoint(CommandLine),
    /// `EXPOSE port…`
    Expose(Vec<Word>),
    /// `VOLUME path…`
    Volume(Vec<Word>),
    /// `STOPSIGNAL signal`
    StopSignal(Word),
    /// `SHELL ["program", "argument"…]`
    Shell(Vec<String>),
    /// `HEALTHCHECK …`
    Healthcheck(Healthcheck),
    /// `ONBUILD instruction`: the trigger's text as it is recorded in the image configuration.
    Onbuild(Spanned<String>),
}

/// One variable declared by `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arg {
    /// Its name.
    pub name: Spanned<String>,
    /// Its default as written, if any.
    pub default: Option<Word>,
    /// What a comment directly above the `ARG` says of it.
    pub description: Option<String>,
}

/// `name=value` of `ENV` or `LABEL`, both as written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// The name.
    pub name: Word,
    /// The value.
    pub value: Word,
    /// Whether it was written `name value`, the old form without `=`.
    pub legacy: bool,
}

/// A command as `RUN`, `CMD`, `ENTRYPOINT` and `HEALTHCHECK CMD` take it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CommandLine {
    /// Text for the shell; continuations joined, variables untouched.
    Shell(Spanned<String>),
    /// The JSON form: a program and its arguments.
    Exec(Vec<String>),
}

/// `RUN`.
#[derive(Debug, Clone)]
pub struct Run {
    /// What runs. With heredocs, the command line without their bodies.
    pub command: CommandLine,
    /// The heredocs in the command line, in order.
    pub heredocs: Vec<Heredoc>,
    /// `--mount=…`, in order.
    pub mounts: Vec<Mount>,
    /// `--network=…`
    pub network: Option<Spanned<Network>>,
    /// `--security=…`
    pub security: Option<Spanned<Security>>,
}

/// A here-document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The word after `<<`, without quotes: also the file's name in `COPY` and `ADD`.
    pub name: String,
    /// The body with its last newline; leading tabs already gone for `<<-`.
    pub body: Spanned<String>,
    /// The body as it stands in the recipe, tabs and all: for a shell that reads the here-document itself.
    pub raw: String,
    /// Whether variables in the body are expanded (the word was not quoted).
    pub expand: bool,
    /// Whether `<<-` was written.
    pub strip_tabs: bool,
    /// The file descriptor before `<<`; 0 where none was written.
    pub fd: u32,
}

/// `--network` of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Network {
    /// The build's network.
    Default,
    /// Loopback only.
    None,
    /// The host's network.
    Host,
}

/// `--security` of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Security {
    /// The sandbox.
    Sandbox,
    /// No sandbox; needs to be allowed.
    Insecure,
}

/// One `--mount` of a `RUN`, words as written.
#[derive(Debug, Clone)]
pub struct Mount {
    /// The whole flag.
    pub span: Span,
    /// What is mounted.
    pub kind: MountKind,
    /// Where. If absent, the kind's default place: for a secret `/run/secrets/` and the last part of its id, for SSH
    /// `/run/buildkit/ssh_agent.` and a number, for all others the working directory.
    pub target: Option<Word>,
    /// Whether writing is refused; `None` where nothing was said.
    pub readonly: Option<bool>,
}

/// The kinds of `--mount`.
#[derive(Debug, Clone)]
pub enum MountKind {
    /// Files from a context, a stage or an image.
    Bind {
        /// `from=`: a stage, image or named context; the main context where absent.
        from: Option<Word>,
        /// `source=`: a path in it.
        source: Option<Word>,
    },
    /// A directory that outlives the build.
    Cache {
        /// `id=`; the target where absent.
        id: Option<Word>,
        /// `sharing=`
        sharing: Sharing,
        /// `from=`: what an empty cache starts from.
        from: Option<Word>,
        /// `source=`: a path in it.
        source: Option<Word>,
        /// `mode=`: permission bits of a new directory.
        mode: Option<u32>,
        /// `uid=`
        uid: Option<u32>,
        /// `gid=`
        gid: Option<u32>,
    },
    /// Memory.
    Tmpfs {
        /// `size=` in bytes.
        size: Option<u64>,
    },
    /// A secret, as a file, a variable or both.
    Secret {
        /// `id=` or `source=`; the last part of the target where absent.
        id: Option<Word>,
        /// `env=`: the variable that holds it.
        env: Option<Word>,
        /// `required=`
        required: bool,
        /// `mode=`
        mode: Option<u32>,
        /// `uid=`
        uid: Option<u32>,
        /// `gid=`
        gid: Option<u32>,
    },
    /// The user's SSH agent.
    Ssh {
        /// `id=`
        id: Option<Word>,
        /// `required=`
        required: bool,
        /// `mode=`
        mode: Option<u32>,
        /// `uid=`
        uid: Option<u32>,
        /// `gid=`
        gid: Option<u32>,
    },
    /// A mount whose type or another key with a fixed set of values contains a variable: the flag's value as written.
    /// Once the variables are known, [`dockerfile::read_mount`] gives the mount.
    Deferred(Word),
}

/// How several steps use one cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sharing {
    /// At once.
    Shared,
    /// Each with a copy of its own.
    Private,
    /// One after the other.
    Locked,
}

/// `COPY`.
#[derive(Debug, Clone)]
pub struct Copy {
    /// `--from=`: a stage, image or named context; the main context where absent.
    pub from: Option<Word>,
    /// What and where to.
    pub files: Files,
    /// `--parents`
    pub parents: bool,
}

/// `ADD`.
#[derive(Debug, Clone)]
pub struct Add {
    /// What and where to.
    pub files: Files,
    /// `--checksum=`
    pub checksum: Option<Word>,
    /// `--keep-git-dir`
    pub keep_git_dir: Option<bool>,
    /// `--unpack`
    pub unpack: Option<bool>,
}

/// What `COPY` and `ADD` have in common.
#[derive(Debug, Clone)]
pub struct Files {
    /// The sources as written; a heredoc source is the word `<<NAME`, found by name in `heredocs`.
    pub sources: Vec<Word>,
    /// The destination as written.
    pub destination: Word,
    /// Inline files.
    pub heredocs: Vec<Heredoc>,
    /// `--chown=`
    pub chown: Option<Word>,
    /// `--chmod=`
    pub chmod: Option<Word>,
    /// `--link`
    pub link: bool,
    /// `--exclude=`, in order.
    pub exclude: Vec<Word>,
}

/// `HEALTHCHECK`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`: switches off the base's.
    None,
    /// `CMD …`
    Command {
        /// What is run.
        command: CommandLine,
        /// `--interval`
        interval: Option<Duration>,
        /// `--timeout`
        timeout: Option<Duration>,
        /// `--start-period`
        start_period: Option<Duration>,
        /// `--start-interval`
        start_interval: Option<Duration>,
        /// `--retries`
        retries: Option<u32>,
    },
}
