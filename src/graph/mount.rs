//! `RUN --mount`: what is mounted for a step, with every word expanded.
//!
//! Takes the mounts as parsed and the variables of the step, gives [`RunMount`]s with absolute targets and the nodes
//! their files come from. A mount without a target goes where BuildKit puts it: a secret to `/run/secrets/`, an agent
//! to `/run/buildkit/`, anything else on the working directory. Reads no secret and knows none.

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::instruction::StageInProgress;
use crate::graph::stage::Source;
use crate::graph::{Access, CacheMount, NodeId, RunMount, path};
use crate::recipe::{Mount, MountKind, Word};

/// Permission bits of a secret's file where none are given.
const SECRET_MODE: u32 = 0o400;
/// Permission bits of an agent's socket where none are given.
const SOCKET_MODE: u32 = 0o600;

impl StageInProgress<'_> {
    /// Expands the mounts of a step. An error in one does not keep the others from being checked.
    pub(super) fn mounts(&mut self, mounts: &[Mount]) -> Option<Vec<RunMount>> {
        let mut agents = 0;
        let mut expanded = Vec::with_capacity(mounts.len());
        for mount in mounts {
            expanded.push(self.mount(mount, &mut agents));
        }
        expanded.into_iter().collect()
    }

    fn mount(&mut self, mount: &Mount, agents: &mut usize) -> Option<RunMount> {
        match &mount.kind {
            MountKind::Bind { from, source } => Some(RunMount::Bind {
                from: self.mount_source(from.as_ref())?,
                source: path::source(&self.optional(source.as_ref())?.unwrap_or_default()),
                target: self.target(mount)?,
                writable: mount.readonly == Some(false),
            }),
            MountKind::Cache { .. } => self.cache_mount(mount),
            MountKind::Tmpfs { size } => Some(RunMount::Tmpfs {
                target: self.target(mount)?,
                size: size.filter(|size| *size > 0),
                writable: mount.readonly != Some(true),
            }),
            MountKind::Secret { .. } => self.secret_mount(mount),
            MountKind::Ssh { id, required, mode, uid, gid } => {
                let default = format!("/run/buildkit/ssh_agent.{agents}");
                *agents += 1;
                Some(RunMount::Ssh {
                    id: self.optional(id.as_ref())?.unwrap_or_else(|| "default".to_owned()),
                    target: self.target_or(mount, &default)?,
                    required: *required,
                    access: Access { mode: mode.unwrap_or(SOCKET_MODE), uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) },
                })
            }
            MountKind::Deferred(value) => {
                let read = self.scoped(|scope, findings| scope.mount(value, findings))?;
                // A mount is deferred once only: this one's variables are known now.
                if matches!(read.kind, MountKind::Deferred(_)) { None } else { self.mount(&read, agents) }
            }
        }
    }

    fn cache_mount(&mut self, mount: &Mount) -> Option<RunMount> {
        let MountKind::Cache { id, sharing, from, source, mode, uid, gid } = &mount.kind else { return None };
        let target = self.target(mount)?;
        let id = match self.optional(id.as_ref())? {
            Some(id) => id,
            // As it is written and not where it leads: the same cache in steps with other working directories.
            None => {
                let written = self.optional(mount.target.as_ref())?.unwrap_or_default();
                if written.starts_with('/') { path::clean(&written) } else { path::source(&written) }
            }
        };
        let id = match self.globals.cache_namespace() {
            Some(namespace) => format!("{namespace}/{id}"),
            None => id,
        };
        let source = path::source(&self.optional(source.as_ref())?.unwrap_or_default());
        let from = match from {
            Some(from) => Some((self.mount_source(Some(from))?, source)),
            None => None,
        };
        Some(RunMount::Cache(CacheMount {
            id,
            target,
            sharing: *sharing,
            from,
            mode: *mode,
            uid: *uid,
            gid: *gid,
            writable: mount.readonly != Some(true),
        }))
    }

    fn secret_mount(&mut self, mount: &Mount) -> Option<RunMount> {
        let MountKind::Secret { id, env, required, mode, uid, gid } = &mount.kind else { return None };
        let written_target = self.optional(mount.target.as_ref())?;
        let base_name = |text: &str| text.trim_end_matches('/').rsplit('/').next().unwrap_or_default().to_owned();
        let id = match (self.optional(id.as_ref())?, &written_target) {
            (Some(id), _) => id,
            (None, Some(target)) => base_name(target),
            (None, None) => String::new(),
        };
        if id.is_empty() {
            self.findings.push(Diagnostic::error(mount.span, "the secret has no id once its variables are expanded"));
            return None;
        }
        let env = self.optional(env.as_ref())?;
        if let Some(name) = env.as_ref().filter(|name| name.contains(['=', '\0'])) {
            let message = format!("`{name}` cannot name an environment variable");
            self.findings.push(Diagnostic::error(mount.span, message));
            return None;
        }
        let target = match (&written_target, &env) {
            (None, Some(_)) => None,
            _ => Some(self.target_or(mount, &format!("/run/secrets/{}", base_name(&id)))?),
        };
        let access = Access { mode: mode.unwrap_or(SECRET_MODE), uid: uid.unwrap_or(0), gid: gid.unwrap_or(0) };
        Some(RunMount::Secret { id, target, env, required: *required, access })
    }

    /// The node that a `from=` means; the main context where there is none.
    fn mount_source(&mut self, from: Option<&Word>) -> Option<NodeId> {
        let source: Source = match self.stages.source(from) {
            Ok(source) => source,
            Err(finding) => {
                self.findings.push(finding);
                return None;
            }
        };
        self.files_node(&source, from)
    }

    fn target(&mut self, mount: &Mount) -> Option<String> {
        self.target_or(mount, "")
    }

    /// The absolute target of a mount, `default` where none is written.
    fn target_or(&mut self, mount: &Mount, default: &str) -> Option<String> {
        let written = self.optional(mount.target.as_ref())?.unwrap_or_else(|| default.to_owned());
        let workdir = self.state.workdir();
        let target =
            if written.starts_with('/') { path::clean(&written) } else { path::clean(&format!("{workdir}/{written}")) };
        if target == "/" {
            let span = mount.target.as_ref().map_or(mount.span, |word: &Word| word.span);
            self.findings.push(root_as_target(span, mount.target.is_none()));
            return None;
        }
        Some(target)
    }

    /// The outer `None` is an error, the inner one a word that is absent or empty once expanded.
    fn optional(&mut self, word: Option<&Word>) -> Option<Option<String>> {
        let Some(word) = word else { return Some(None) };
        Some(Some(self.expand(word)?).filter(|value| !value.is_empty()))
    }
}

fn root_as_target(span: Span, by_default: bool) -> Diagnostic {
    let finding = Diagnostic::error(span, "invalid mount target \"/\": a mount cannot cover the whole root");
    if by_default {
        finding.help("without `target=` a mount goes on the working directory, which is `/` here")
    } else {
        finding
    }
}
