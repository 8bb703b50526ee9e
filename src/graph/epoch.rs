//! What a `SOURCE_DATE_EPOCH` that is not a number names: the context, a named one, or a stage that only adds one thing.
//!
//! Takes a recipe and the user's choices, says whose time is wanted. Finding that time is somebody else's; the graph is
//! made when it is known.

use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::graph::named::NamedContext;
use crate::graph::scope::{Environment, Globals};
use crate::graph::{ContextName, HttpSource, Request};
use crate::recipe::remote::{self, GitAddress, Remote};
use crate::recipe::{Add, Instruction, Recipe, Stage};

/// What means the main context.
const CONTEXT: &str = "context";

/// Whose time is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimeSource {
    /// A context's.
    Context(ContextName),
    /// That of a file at an address.
    Http(HttpSource),
    /// A commit's.
    Git(GitAddress),
    /// That of something without a time of its own: an image.
    Nothing,
}

/// Says whose time the recipe's or the user's `SOURCE_DATE_EPOCH` means; `None` where it is a number, empty or absent.
///
/// # Errors
/// The value means nothing, or a stage that is more than one `ADD` of something that is fetched.
pub fn time_source(recipe: &Recipe, request: &Request) -> Result<Option<TimeSource>, Vec<Diagnostic>> {
    let mut findings = Vec::new();
    // What else is wrong with the arguments is said when the graph is made.
    let globals = Globals::new(recipe, request, &mut Vec::new());
    let Some((value, span)) = globals.epoch_name() else { return Ok(None) };
    if value == CONTEXT {
        return Ok(Some(TimeSource::Context(ContextName::Main)));
    }
    match request.contexts.get(value, &request.platform) {
        Some((name, NamedContext::Files)) => {
            return Ok(Some(TimeSource::Context(ContextName::Named(name.to_owned()))));
        }
        Some((_, NamedContext::Image { .. } | NamedContext::Scratch)) => return Ok(Some(TimeSource::Nothing)),
        None => {}
    }
    let named = |stage: &&Stage| stage.name.as_ref().is_some_and(|name| name.value.eq_ignore_ascii_case(value));
    let Some(stage) = recipe.stages.iter().find(named) else {
        return Err(vec![meaningless(value, span, recipe)]);
    };
    match stage_source(&globals, stage, &mut findings) {
        Some(source) => Ok(Some(source)),
        None => Err(findings),
    }
}

/// A `SOURCE_DATE_EPOCH` that neither is a number nor names anything.
pub(super) fn meaningless(value: &str, span: Span, recipe: &Recipe) -> Diagnostic {
    let stages = recipe.stages.iter().filter_map(|stage| Some(stage.name.as_ref()?.value.as_str()));
    let mut finding = Diagnostic::error(
        span,
        format!("`SOURCE_DATE_EPOCH={value}` is no number of seconds since 1970, and names no context and no stage"),
    );
    finding.help = nearest(value, stages.chain([CONTEXT])).map(|name| format!("did you mean `{name}`?"));
    finding
}

/// What a stage adds, which must be all it does.
fn stage_source(globals: &Globals, stage: &Stage, findings: &mut Vec<Diagnostic>) -> Option<TimeSource> {
    const RULE: &str =
        "a stage that `SOURCE_DATE_EPOCH` names starts from scratch and has one `ADD`, of one URL or repository";
    let mut wrong = |span| {
        findings.push(Diagnostic::error(span, RULE));
        None
    };
    if globals.look_into(&stage.base)?.value != "scratch" {
        return wrong(stage.base.span);
    }
    let mut environment = globals.environment_without_epoch();
    let mut source = None;
    for step in &stage.steps {
        match &step.instruction {
            Instruction::Arg(arguments) => {
                arguments.iter().for_each(|argument| globals.declare_in(argument, &mut environment));
            }
            Instruction::Add(add) if source.is_none() => match added(globals, add, &environment) {
                Some(found) => source = Some(found),
                None => return wrong(step.span),
            },
            _ => return wrong(step.span),
        }
    }
    source.or_else(|| wrong(stage.span))
}

fn added(globals: &Globals, add: &Add, environment: &Environment) -> Option<TimeSource> {
    let [word] = add.files.sources.as_slice() else { return None };
    if !add.files.heredocs.is_empty() {
        return None;
    }
    let checksum = match &add.checksum {
        Some(word) => Some(globals.expand_quietly(word, environment)?).filter(|text| !text.is_empty()),
        None => None,
    };
    match remote::parse(&globals.expand_quietly(word, environment)?).ok()?? {
        Remote::Http(address) => {
            let checksum = checksum.map(|text| text.parse()).transpose().ok()?;
            Some(TimeSource::Http(HttpSource { address, checksum }))
        }
        Remote::Git(mut address) => {
            address.keep_git_dir = add.keep_git_dir.unwrap_or(address.keep_git_dir);
            address.checksum = checksum.map(|text| text.to_ascii_lowercase()).or(address.checksum);
            Some(TimeSource::Git(address))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnostic::SourceFile;
    use crate::recipe::dockerfile;
    use crate::recipe::platform::Platform;

    fn source(text: &str) -> Result<Option<TimeSource>, String> {
        let (recipe, _) = dockerfile::parse(&SourceFile { name: "Dockerfile".into(), text: text.into() });
        let mut request = Request::plain(Platform::host());
        request.contexts.insert("files".to_owned(), NamedContext::Files);
        request.contexts.insert("image".to_owned(), NamedContext::Scratch);
        time_source(&recipe, &request)
            .map_err(|findings| findings[0].message.clone() + findings[0].help.as_deref().unwrap_or(""))
    }

    #[test]
    fn names_are_looked_for_among_contexts_then_stages() {
        let global =
            |value: &str, rest: &str| source(&format!("ARG SOURCE_DATE_EPOCH={value}\n{rest}FROM scratch\nCOPY x /\n"));
        assert_eq!(global("5", ""), Ok(None));
        assert_eq!(global("\"\"", ""), Ok(None));
        assert_eq!(global("context", "FROM scratch AS context\n"), Ok(Some(TimeSource::Context(ContextName::Main))));
        let named = TimeSource::Context(ContextName::Named("files".to_owned()));
        assert_eq!(global("Files", "FROM scratch AS files\n"), Ok(Some(named)));
        assert_eq!(global("image", ""), Ok(Some(TimeSource::Nothing)));
        assert!(global("contxt", "").is_err_and(|text| text.contains("did you mean `context`?")));
        let add = "FROM scratch AS src\nARG V=1\nADD https://h/$V.tar /\n";
        let address = "https://h/1.tar".to_owned();
        assert_eq!(global("SRC", add), Ok(Some(TimeSource::Http(HttpSource { address, checksum: None }))));
        let git = "FROM scratch AS src\nADD --checksum=ABC https://h/x.git#v1 /\n";
        assert!(
            matches!(global("src", git), Ok(Some(TimeSource::Git(found))) if found.checksum.as_deref() == Some("abc"))
        );
        for wrong in [
            "FROM debian AS src\nADD https://h/x /\n",
            "FROM scratch AS src\n",
            "FROM scratch AS src\nADD x /\n",
            "FROM scratch AS src\nADD https://h/x https://h/y /\n",
            "FROM scratch AS src\nADD https://h/x /\nADD https://h/x /\n",
            "FROM scratch AS src\nADD https://h/x /\nENV a=b\n",
        ] {
            assert!(global("src", wrong).is_err_and(|text| text.contains("has one `ADD`")), "{wrong}");
        }
    }
}
