//! Files that a step copies from the context and that the context hides.

use std::path::Path;

use crate::context::ignore::Ignore;
use crate::diagnostic::Diagnostic;
use crate::graph::{ContextName, CopySource, Graph, Op};

/// Patterns that bring files back (`!`) silence the rule, as in BuildKit: a directory may be hidden and hold files that are
/// not.
pub(super) fn check(graph: &Graph, ignore: &Ignore, findings: &mut Vec<Diagnostic>) {
    if ignore.has_exceptions() {
        return;
    }
    for node in &graph.nodes {
        let Op::Copy(copy) = &node.op else { continue };
        if graph[copy.from].op != Op::Context(ContextName::Main) {
            continue;
        }
        for source in &copy.sources {
            let CopySource::Path(path) = source else { continue };
            if is_root(path) && !ignore.hides_everything() {
                continue;
            }
            let Some(pattern) = ignore.verdict(Path::new(path)).hidden_by else { continue };
            let message = format!("`{path}` is hidden by the pattern `{}`", pattern.text);
            findings.push(
                Diagnostic::warning("CopyIgnoredFile", node.origin.span, message)
                    .help(format!("see {}:{}", pattern.file, pattern.line)),
            );
        }
    }
}

/// Whether a source is the context itself, which no pattern hides that does not hide all there is in it.
fn is_root(path: &str) -> bool {
    path.split('/').all(|part| matches!(part, "" | "."))
}
