//! Base images: whether their names can come to mean something else.

use crate::diagnostic::Diagnostic;
use crate::graph::{Graph, Op};

pub(super) fn check(graph: &Graph, findings: &mut Vec<Diagnostic>) {
    for node in &graph.nodes {
        if let Op::Image(request) = &node.op
            && request.reference.digest.is_none()
        {
            let message = format!("`{}` is whatever its tag stands for on that day", request.reference.familiar());
            findings.push(
                Diagnostic::warning("UnpinnedBaseImage", node.origin.span, message)
                    .help("add @sha256: and the digest of the image"),
            );
        }
    }
}
