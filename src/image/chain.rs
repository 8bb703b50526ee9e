//! A chain of layers: what a step starts from and what it leaves.

use std::fmt;
use std::sync::Arc;

use crate::digest::{DiffId, Digest};

/// Layers on top of each other, base first, each by its DiffID. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Chain(Arc<[DiffId]>);

impl Chain {
    /// No layers: `scratch`.
    pub fn scratch() -> Self {
        Self::default()
    }

    /// The layers, base first.
    pub fn layers(&self) -> &[DiffId] {
        &self.0
    }

    /// This chain with one more layer on top.
    #[must_use]
    pub fn with(&self, layer: DiffId) -> Self {
        self.0.iter().copied().chain(std::iter::once(layer)).collect()
    }

    /// The ChainID of the whole chain (OCI image-spec, config.md, "Layer ChainID"); `None` for no layers.
    pub fn id(&self) -> Option<Digest> {
        let (first, rest) = self.0.split_first()?;
        Some(rest.iter().fold(Digest::from(*first), |below, layer| Digest::of(format!("{below} {layer}").as_bytes())))
    }
}

impl FromIterator<DiffId> for Chain {
    fn from_iter<I: IntoIterator<Item = DiffId>>(layers: I) -> Self {
        Self(layers.into_iter().collect())
    }
}

impl fmt::Debug for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_follow_the_specification() {
        let [a, b] = [b"a", b"b"].map(|bytes| DiffId::from(Digest::of(bytes)));
        assert_eq!(Chain::scratch().id(), None);
        assert_eq!(Chain::scratch().with(a).id(), Some(Digest::from(a)));
        let two = Chain::scratch().with(a).with(b);
        assert_eq!(two.id(), Some(Digest::of(format!("{a} {b}").as_bytes())));
        assert_eq!(two.layers(), [a, b]);
    }
}
