//! Warnings that take a look at what words say once they are expanded, or at the state of a stage.
//!
//! Takes instructions while they are lowered, and the bases of stages while they are resolved; reports what BuildKit's
//! rules of the same names report, under the same conditions. Changes nothing and never stops a build: `check` decides
//! which of the warnings anybody sees.

use std::collections::BTreeMap;

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::Request;
use crate::graph::instruction::StageInProgress;
use crate::graph::scope::Globals;
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::recipe::{Arg, CommandLine, Pair, Recipe, Stage};

/// Words that make the name of a variable sound like a secret, if they are a whole part of it between `_`.
const SECRET: [&str; 10] =
    ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];

/// Words beside such a one that say that the value is none.
const HARMLESS: [&str; 3] = ["public", "file", "version"];

/// Instructions of which only the last one in a stage counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Single {
    Cmd,
    Entrypoint,
    Healthcheck,
}

/// Where a stage has its instructions of these kinds so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Singles {
    cmd: Option<Span>,
    entrypoint: Option<Span>,
    healthcheck: Option<Span>,
}

impl StageInProgress<'_> {
    /// Warns where an earlier instruction of the kind loses its effect. The finding is at the one that has none; a comment
    /// above either of the two can switch it off.
    pub(super) fn used_once(&mut self, which: Single, span: Span) {
        const RULE: &str = "MultipleInstructionsDisallowed";
        let (place, name) = match which {
            Single::Cmd => (&mut self.singles.cmd, "CMD"),
            Single::Entrypoint => (&mut self.singles.entrypoint, "ENTRYPOINT"),
            Single::Healthcheck => (&mut self.singles.healthcheck, "HEALTHCHECK"),
        };
        let earlier = place.replace(span);
        // A trigger of an image has no place in this recipe.
        let placed = earlier.filter(|earlier| *earlier != Span::default());
        if let Some(earlier) = placed.filter(|_| !self.stages.checks.skips_here(RULE, span)) {
            let message = format!("this `{name}` has no effect: only the last one of a stage counts");
            self.findings.push(Diagnostic::warning(RULE, earlier, message));
        }
    }

    /// Warns of a command that a shell runs, unless the recipe or the base said which.
    pub(super) fn shell_form(&mut self, name: &str, command: &CommandLine, span: Span) {
        let chosen = self.state.config.config.shell.as_ref().is_some_and(|shell| !shell.is_empty());
        if matches!(command, CommandLine::Shell(_)) && !chosen {
            let message =
                format!("`{name}` in shell form runs under a shell, which does not pass signals on to the program");
            let finding = Diagnostic::warning("JSONArgsRecommended", span, message);
            self.findings.push(finding.help(format!("write {name} [\"program\", \"argument\"], or set SHELL")));
        }
    }

    /// Warns of the first `WORKDIR` of a stage and the stages below it if what it means depends on the image below.
    pub(super) fn first_workdir(&mut self, path: &str, span: Span) {
        let first = !std::mem::replace(&mut self.state.workdir_set, true);
        if first && !path.starts_with('/') {
            let message = format!("`WORKDIR {path}` is relative to the base image's directory, which may change");
            let finding = Diagnostic::warning("WorkdirRelativePath", span, message);
            self.findings.push(finding.help("begin it with /"));
        }
    }

    /// Warns of `name value` without `=`.
    pub(super) fn legacy_pairs(&mut self, name: &str, pairs: &[Pair]) {
        for pair in pairs.iter().filter(|pair| pair.legacy) {
            let message = format!("`{name} key value` is the old form, which takes a single variable");
            let finding = Diagnostic::warning("LegacyKeyValueFormat", pair.name.span.to(pair.value.span), message);
            self.findings.push(finding.help(format!("write {name} {}=…", pair.name.value)));
        }
    }

    /// Warns of variables that sound as if they held a secret.
    pub(super) fn secret_variables(&mut self, pairs: &[Pair]) {
        for pair in pairs {
            secret("ENV", &pair.name.value, pair.name.span, self.findings);
        }
    }

    /// Warns of arguments that sound as if they held a secret.
    pub(super) fn secret_arguments(&mut self, arguments: &[Arg]) {
        for argument in arguments {
            secret("ARG", &argument.name.value, argument.name.span, self.findings);
        }
    }
}

fn secret(instruction: &str, name: &str, span: Span, findings: &mut Vec<Diagnostic>) {
    if sounds_secret(name) {
        let message = format!("`{instruction} {name}` would keep a secret in the image for everybody to read");
        let finding = Diagnostic::warning("SecretsUsedInArgOrEnv", span, message);
        findings.push(finding.help("hand secrets to the step that needs them with RUN --mount=type=secret"));
    }
}

/// Whether a variable sounds as if it held a secret: a part of the name is a word for secrets, and none says that the value
/// is not one.
pub fn sounds_secret(name: &str) -> bool {
    let has = |words: &[&str]| name.split('_').any(|part| words.iter().any(|word| part.eq_ignore_ascii_case(word)));
    has(&SECRET) && !has(&HARMLESS)
}

/// Looks at the `--platform` of a `FROM`.
pub(super) fn platform_of_base(stage: &Stage, globals: &Globals, findings: &mut Vec<Diagnostic>) {
    let Some(word) = &stage.platform else { return };
    let Some(seen) = globals.look_into(word) else { return };
    unknown_platform(&seen.value, word.span, findings);
    match (seen.set.as_slice(), seen.unset.is_empty()) {
        ([name], true) if name == "TARGETPLATFORM" && globals.get(name) == Some(seen.value.as_str()) => {
            let message = format!("`--platform={}` changes nothing: that is the platform anyway", word.value);
            findings.push(Diagnostic::warning("RedundantTargetPlatform", word.span, message).help("remove the flag"));
        }
        ([], true) => constant_platform(stage, &seen.value, word.span, findings),
        _ => {}
    }
}

fn unknown_platform(value: &str, span: Span, findings: &mut Vec<Diagnostic>) {
    let Ok(platform) = value.parse::<Platform>() else { return };
    if let Some((part, nearest)) = platform.unknown_part() {
        let message = format!("`{part}` is no operating system or architecture that images are made for");
        let mut finding = Diagnostic::warning("UnknownPlatform", span, message);
        finding.help = nearest.map(|nearest| format!("did you mean `{nearest}`?"));
        findings.push(finding);
    }
}

fn constant_platform(stage: &Stage, value: &str, span: Span, findings: &mut Vec<Diagnostic>) {
    let Ok(platform) = value.parse::<Platform>() else { return };
    let name = stage.name.as_ref().map_or("", |name| &name.value);
    // A stage named after the platform is for that platform on purpose.
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("`--platform={value}` is the same for every platform the image is built for");
        let finding = Diagnostic::warning("FromPlatformFlagConstDisallowed", span, message);
        findings.push(finding.help("use $BUILDPLATFORM or $TARGETPLATFORM, or --platform on the command line"));
    }
}

/// Looks at the bases as they would be if nobody gave a `--build-arg`.
pub(super) fn default_bases(recipe: &Recipe, request: &Request, findings: &mut Vec<Diagnostic>) {
    if recipe.stages.iter().all(|stage| !stage.base.value.contains('$')) {
        return;
    }
    let defaults = Request { build_args: BTreeMap::new(), source_date_epoch: None, ..request.clone() };
    let mut errors = Vec::new();
    let globals = Globals::new(recipe, &defaults, &mut errors);
    if !errors.is_empty() {
        return;
    }
    for stage in recipe.stages.iter().filter(|stage| stage.base.value.contains('$')) {
        let Some(seen) = globals.look_into(&stage.base) else { return };
        if seen.value.parse::<Reference>().is_err() {
            let message = format!("`FROM {}` names no image unless a --build-arg is given", stage.base.value);
            let finding = Diagnostic::warning("InvalidDefaultArgInFrom", stage.base.span, message);
            findings.push(finding.help("give the ARG a default"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_secrets_are_told_from_others() {
        for (name, expected) in [
            ("PASSWORD", true),
            ("DATABASE_PASSWORD", true),
            ("github_token", true),
            ("secret_MESSAGE", true),
            ("AUTH", true),
            ("API_KEY", true),
            ("apikey", true),
            ("KEYBOARD", false),
            ("MONKEY", false),
            ("PUBLIC_KEY", false),
            ("PASSWORD_FILE", false),
            ("KEY_VERSION", false),
            ("PROFILE_KEY", true),
            ("TOKENIZER", false),
            ("", false),
        ] {
            assert_eq!(sounds_secret(name), expected, "{name}");
        }
    }
}
