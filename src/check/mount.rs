//! Caches that steps for different platforms would share.

use crate::diagnostic::Diagnostic;
use crate::recipe::{Instruction, MountKind, Recipe, Sharing, Stage};

/// Variables that tell platforms apart.
const PLATFORM: [&str; 2] = ["TARGET", "BUILD"];

/// A cache is known by its id alone. In a recipe that is made for several platforms, one without a platform in its id
/// receives files of all of them, unless its stage always runs on the machine that builds.
pub(super) fn check(recipe: &Recipe, findings: &mut Vec<Diagnostic>) {
    if !is_for_several_platforms(recipe) {
        return;
    }
    for stage in recipe.stages.iter().filter(|stage| !runs_where_it_is_built(stage)) {
        for step in &stage.steps {
            let Instruction::Run(run) = &step.instruction else { continue };
            for mount in &run.mounts {
                let MountKind::Cache { id, sharing, .. } = &mount.kind else { continue };
                let name = id.as_ref().or(mount.target.as_ref());
                let apart = name.is_some_and(|name| names_platform(&name.value));
                if !apart && *sharing != Sharing::Private {
                    let message = "steps for every platform share this cache";
                    let name = name.map_or("cache", |name| &name.value);
                    findings.push(
                        Diagnostic::warning("SharedCacheMount", mount.span, message)
                            .help(format!("add id={name}-$TARGETARCH")),
                    );
                }
            }
        }
    }
}

/// Whether the recipe speaks of platforms anywhere.
fn is_for_several_platforms(recipe: &Recipe) -> bool {
    let declares = |instruction: &Instruction| match instruction {
        Instruction::Arg(arguments) => arguments.iter().any(|argument| is_platform(&argument.name.value)),
        _ => false,
    };
    recipe.stages.iter().any(|stage| {
        let platform = stage.platform.as_ref().is_some_and(|word| names_platform(&word.value));
        platform || stage.steps.iter().any(|step| declares(&step.instruction))
    })
}

fn runs_where_it_is_built(stage: &Stage) -> bool {
    stage.platform.as_ref().is_some_and(|word| word.value.contains("BUILDPLATFORM"))
}

fn names_platform(word: &str) -> bool {
    word.contains('$') && word.split(|c: char| !c.is_ascii_alphanumeric()).any(is_platform)
}

fn is_platform(name: &str) -> bool {
    PLATFORM
        .iter()
        .any(|side| name.strip_prefix(side).is_some_and(|part| ["PLATFORM", "ARCH", "OS", "VARIANT"].contains(&part)))
}
