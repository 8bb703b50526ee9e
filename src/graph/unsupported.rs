//! What a recipe may say that no part of the engine does yet.
//!
//! Takes a step, reports each such thing at its place with its name. Nothing here is ever ignored in silence; whoever
//! builds one of these deletes its lines here.

use crate::diagnostic::{Diagnostic, Span};
use crate::recipe::{Instruction, Mount, MountKind, Network, Run, Security, Step};

/// Reports what in a step cannot be done yet, as far as it can be seen without expanding variables.
pub(super) fn refuse(step: &Step, findings: &mut Vec<Diagnostic>) {
    if let Instruction::Run(run) = &step.instruction {
        refuse_in_run(run, findings);
    }
}

fn refuse_in_run(run: &Run, findings: &mut Vec<Diagnostic>) {
    for mount in &run.mounts {
        findings.push(not_yet(mount.span, &mount_name(mount)));
    }
    if let Some(network) = run.network.as_ref().filter(|network| network.value == Network::Host) {
        findings.push(
            not_yet(network.span, "`RUN --network=host`")
                .help("without the flag the step uses the build's network; `--network=none` gives it none"),
        );
    }
    if let Some(security) = run.security.as_ref().filter(|security| security.value == Security::Insecure) {
        findings.push(not_yet(security.span, "`RUN --security=insecure`"));
    }
}

/// Reports a `SOURCE_DATE_EPOCH` that is not a number: it may name a context or a stage to take the time from.
pub(super) fn epoch(value: &str, span: Span) -> Diagnostic {
    Diagnostic::error(span, format!("`SOURCE_DATE_EPOCH={value}` is not a number of seconds since 1970"))
        .help("taking the time from a context or a stage is not supported yet")
}

fn not_yet(span: Span, what: &str) -> Diagnostic {
    Diagnostic::error(span, format!("{what} is not supported yet")).label("not supported yet")
}

fn mount_name(mount: &Mount) -> String {
    let kind = match mount.kind {
        MountKind::Bind { .. } => "bind",
        MountKind::Cache { .. } => "cache",
        MountKind::Tmpfs { .. } => "tmpfs",
        MountKind::Secret { .. } => "secret",
        MountKind::Ssh { .. } => "ssh",
        MountKind::Deferred(_) => return "`RUN --mount`".to_owned(),
    };
    format!("`RUN --mount=type={kind}`")
}
