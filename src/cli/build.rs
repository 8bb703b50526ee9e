//! `strata build`

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::build::{self, Built, OnFailure, Request};
use crate::cli::arguments::BuildArguments;
use crate::cli::call::Call;
use crate::cli::flags::{self, ImageFlags};
use crate::cli::limits::LimitFlags;
use crate::cli::{contexts, exit, print, shell, workplace};
use crate::collection;
use crate::execute::agent::Agents;
use crate::export::spec::{Destination, Output};
use crate::graph;
use crate::image::manifest::Descriptor;
use crate::limits::Limits;
use crate::progress::summary::Summary;
use crate::progress::{Silent, Sink, json, plain, terminal};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::secret::Secrets;

/// Nobody waits longer than this for a collection that he did not ask for.
const PATIENCE: Duration = Duration::from_millis(500);

/// What is built, as every command that makes a graph takes it.
#[derive(Debug, Args)]
pub(super) struct Recipe {
    /// The files that COPY and ADD read: a directory, a git repository (URL[#REF[:DIR]]), the URL of an archive or a
    /// recipe, or - for either on standard input
    #[arg(value_name = "CONTEXT")]
    context: PathBuf,

    /// The recipe: a file, a URL, or - for standard input [default: CONTEXT/Dockerfile]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Give a name files or an image: NAME=DIR|URL|docker-image://IMAGE|oci-layout://DIR[:TAG|@DIGEST]
    #[arg(long = "build-context", value_name = "NAME=SOURCE")]
    build_contexts: Vec<String>,

    /// The stage to build [default: the last]
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,

    /// Set a build argument; without a value it is taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    build_args: Vec<String>,

    /// What the image is for, such as linux/arm64 [default: this machine]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,

    /// Ignore results of earlier builds
    #[arg(long)]
    no_cache: bool,

    /// Look up names of base images anew
    #[arg(long)]
    pull: bool,

    /// Ignore results of earlier builds for these stages, by name or number
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    no_cache_filter: Vec<String>,

    /// The network of RUN: default, none or host
    #[arg(long, value_name = "NETWORK")]
    network: Option<String>,

    /// Let RUN resolve a further name
    #[arg(long = "add-host", value_name = "NAME:ADDRESS")]
    hosts: Vec<String>,
    /// Give steps that ask for it a secret: id=NAME[,src=FILE|,env=VARIABLE]. HTTP_AUTH_TOKEN_HOST and
    /// HTTP_AUTH_HEADER_HOST, GIT_AUTH_TOKEN[.HOST] and GIT_AUTH_HEADER[.HOST] authenticate what is fetched
    #[arg(long = "secret", value_name = "SPEC")]
    secrets: Vec<String>,

    /// Give steps that ask for it an SSH agent: default, NAME=SOCKET or NAME=KEYFILE[,KEYFILE]
    #[arg(long = "ssh", value_name = "SPEC")]
    agents: Vec<String>,

    /// Let steps that ask for it out of the sandbox: network.host or security.insecure
    #[arg(long, value_name = "ENTITLEMENT", value_delimiter = ',')]
    allow: Vec<String>,
}

/// The arguments of `build`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    recipe: Recipe,

    #[command(flatten)]
    image: ImageFlags,

    #[command(flatten)]
    limits: LimitFlags,

    /// Do not build, but: check, outline or targets; with ,format=json as JSON
    #[arg(long, value_name = "METHOD")]
    call: Option<String>,

    /// Do not build, but look for mistakes: --call=check
    #[arg(long, conflicts_with = "call")]
    check: bool,

    /// Name the image in the local store
    #[arg(short, long = "tag", value_name = "NAME")]
    tags: Vec<String>,

    /// Write the image: type=oci,dest=PATH[,tar=false][,compression=gzip|zstd|uncompressed][,compression-level=N]
    #[arg(short, long = "output", value_name = "SPEC")]
    outputs: Vec<String>,

    /// Say of each step why it is made, or where its result comes from: which files, variables or other inputs are not as
    /// they were in the nearest earlier run of the step (strata explain says the same without building)
    #[arg(long)]
    explain: bool,

    /// What is done when a RUN fails: open a shell where it ran, as it left it
    #[arg(long, value_enum, value_name = "ACTION")]
    on_error: Option<OnError>,

    /// How progress is shown
    #[arg(long, value_enum, default_value_t = Progress::Auto, value_name = "MODE")]
    progress: Progress,

    /// Print only the image's id
    #[arg(short, long)]
    quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OnError {
    /// Open a shell
    Shell,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Progress {
    /// tty on a terminal, plain elsewhere, with CI=true or with NO_COLOR
    Auto,
    /// A live display
    Tty,
    /// Lines
    Plain,
    /// One JSON event a line
    Rawjson,
    /// Nothing
    #[value(alias = "none")]
    Quiet,
}

/// Builds.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let call = if arguments.check { Some("check") } else { arguments.call.as_deref() };
    let call = call.map_or(Ok(Call::Build), str::parse)?;
    arguments.image.refuse_attestations()?;
    let mut request = arguments.recipe.request()?;
    request.limits = arguments.limits.read()?;
    request.explain = arguments.explain;
    request.labels = arguments.image.labels()?;
    request.annotations = arguments.image.annotations()?;
    request.names = arguments.tags.iter().map(|name| name.parse()).collect::<Result<Vec<Reference>, _>>()?;
    if let Some(name) = request.names.iter().find(|name| name.digest.is_some()) {
        return Err(exit::Error::Usage(format!(
            "{name} cannot be given to an image: a name with a digest names one already"
        )));
    }
    request.outputs = arguments.outputs.iter().map(|spec| spec.parse()).collect::<Result<Vec<Output>, _>>()?;
    if call != Call::Build {
        if arguments.explain {
            return Err(exit::Error::Usage(
                "--explain says why steps are made, and --call and --check make none: leave one of them out".to_owned(),
            ));
        }
        return call.answer(&request);
    }
    arguments.image.clear()?;
    let to_stdout = request.outputs.iter().any(|output| output.destination == Destination::Stdout);
    if to_stdout && std::io::stdout().is_terminal() {
        return Err(exit::Error::Usage(
            "an archive is not written to a terminal: add dest=FILE to --output".to_owned(),
        ));
    }
    let quiet = arguments.quiet || arguments.progress == Progress::Quiet;
    if quiet && arguments.explain {
        return Err(exit::Error::Usage(
            "--explain has nowhere to speak with --quiet or --progress=quiet: leave one of them out, or see strata explain"
                .to_owned(),
        ));
    }
    let summary = Arc::new(Summary::new(view(arguments.progress, quiet)));
    let shown = Arc::new(AtomicBool::new(false));
    if arguments.on_error == Some(OnError::Shell) {
        request.on_failure = Some(shell_on_failure(&summary, &shown)?);
    }
    let (place, caps) = workplace::open_with_caps(summary.clone())?;
    let built = build::build(&request, &place);
    summary.close();
    let outcome = match built {
        Err(error) if shown.load(Ordering::Relaxed) => Err(exit::Error::shown(&error)),
        Err(error) => Err(error.into()),
        Ok(built) => arguments.image.write(&built).and_then(|()| {
            if !quiet {
                summary.print(&mut std::io::stderr().lock(), built.build.as_ref().map(|build| build.short()));
            }
            if to_stdout { Ok(()) } else { print(&results(&built, arguments.quiet)) }
        }),
    };
    // After the answer is told; and after a failure too, which may have been for want of room.
    if let Err(error) = collection::automatic(&place.store, &caps, PATIENCE) {
        exit::say(&format!("warning: the store cannot be kept below its caps: {}\n", build::sentence(&error)));
    }
    outcome
}

/// Shows the error, and opens a shell where it came from.
fn shell_on_failure(summary: &Arc<Summary>, shown: &Arc<AtomicBool>) -> Result<OnFailure, exit::Error> {
    let (terminal, summary, shown) = (shell::terminal()?, Arc::clone(summary), Arc::clone(shown));
    Ok(OnFailure(Arc::new(move |error, sandbox| {
        summary.close();
        exit::say(&exit::of_build(error));
        shown.store(true, Ordering::Relaxed);
        shell::after_failure(sandbox, &terminal);
    })))
}

impl Recipe {
    /// What is typed → what it means.
    pub(super) fn request(self) -> Result<Request, exit::Error> {
        let arguments = BuildArguments::parse(&self.build_args, &|name| std::env::var(name).ok())?;
        let context = contexts::main(self.context, arguments.keep_git_dir, arguments.bounds_times())?;
        let (named, sources) = contexts::named(&self.build_contexts)?;
        let build_platform = Platform::host();
        let platform = match &self.platform {
            Some(text) if text.contains(',') => {
                return Err(exit::Error::Usage(
                    "several platforms at once are not supported yet: give one --platform".to_owned(),
                ));
            }
            Some(text) => text.parse()?,
            None => build_platform.clone(),
        };
        let platform_given = self.platform.is_some();
        let graph = graph::Request {
            target: self.target,
            build_args: arguments.values,
            platform,
            platform_given,
            build_platform,
            source_date_epoch: arguments.epoch,
            every_stage: false,
            contexts: named,
            allow: allowed(&self.allow)?,
        };
        Ok(Request {
            context,
            contexts: sources,
            recipe: contexts::recipe(self.file),
            graph,
            names: Vec::new(),
            outputs: Vec::new(),
            use_cache: !self.no_cache,
            pull: self.pull,
            fresh_stages: self.no_cache_filter,
            explain: false,
            network: flags::network(self.network.as_deref())?,
            hosts: flags::hosts(&self.hosts)?,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            secrets: Secrets::parse(&self.secrets)?,
            agents: Agents::parse(&self.agents)?,
            on_failure: None,
            limits: Limits::default(),
        })
    }
}

/// What `--allow` grants.
fn allowed(given: &[String]) -> Result<graph::Allowed, exit::Error> {
    let mut allowed = graph::Allowed::default();
    for text in given {
        match text.as_str() {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.security_insecure = true,
            _ => {
                return Err(exit::Error::Usage(format!(
                    "--allow {text:?} is not known: expected network.host or security.insecure"
                )));
            }
        }
    }
    Ok(allowed)
}

/// The view of progress of commands that have no flag for it.
pub(super) fn progress_view() -> Box<dyn Sink> {
    view(Progress::Auto, false)
}

fn view(progress: Progress, quiet: bool) -> Box<dyn Sink> {
    match progress.on(std::io::stderr().is_terminal(), &|name| std::env::var(name).ok()) {
        _ if quiet => Box::new(Silent),
        Progress::Tty => Box::new(terminal::Terminal::new()),
        Progress::Rawjson => Box::new(json::Json::new(std::io::stderr())),
        _ => Box::new(plain::Plain::new(std::io::stderr())),
    }
}

impl Progress {
    /// What `auto` comes to: a live display on a terminal, lines elsewhere and where the environment asks for them.
    fn on(self, terminal: bool, variable: &dyn Fn(&str) -> Option<String>) -> Self {
        let no_color = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
        let ci = variable("CI").is_some_and(|value| value == "true");
        match self {
            Self::Auto if terminal && !no_color && !ci => Self::Tty,
            Self::Auto => Self::Plain,
            chosen => chosen,
        }
    }
}

fn results(built: &Built, quiet: bool) -> String {
    if quiet {
        return format!("{}\n", built.image_id);
    }
    let mut text = format!("image {}\n", built.image_id);
    for name in &built.names {
        text += &format!("name {}\n", name.familiar());
    }
    for (destination, Descriptor { digest, .. }) in &built.exported {
        if let Destination::Archive(path) | Destination::Directory(path) = destination {
            text += &format!("output {} {digest}\n", path.display());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_live_only_for_people() {
        let on = |terminal: bool, set: &[(&str, &str)]| {
            let variable = |name: &str| set.iter().find(|(own, _)| *own == name).map(|(_, value)| (*value).to_owned());
            Progress::Auto.on(terminal, &variable)
        };
        assert_eq!(on(true, &[]), Progress::Tty);
        assert_eq!(on(true, &[("CI", "false"), ("NO_COLOR", "")]), Progress::Tty);
        assert_eq!(on(false, &[]), Progress::Plain);
        assert_eq!(on(true, &[("CI", "true")]), Progress::Plain);
        assert_eq!(on(true, &[("NO_COLOR", "1")]), Progress::Plain);
        assert_eq!(Progress::Tty.on(false, &|_| Some("true".to_owned())), Progress::Tty);
    }
}
