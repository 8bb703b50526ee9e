//! The last part of a build: from solved steps to documents, outputs and names. Takes the solved graph; never runs a
//! step. Names in the local store are written last, for they are what makes an image visible.

use std::io;

use super::{Error, Plan, Request, Workplace};
use crate::base::BaseImage;
use crate::execute::Executor;
use crate::export::spec::{Destination, Output};
use crate::export::{blobs, layout};
use crate::graph::NodeId;
use crate::image::assemble::{Base, Built as BuiltLayer, Image, assemble};
use crate::image::manifest::Descriptor;
use crate::schedule::solve;

/// The last part of a build: from layers to images under their names.
pub(super) struct Finish<'a> {
    pub(super) request: &'a Request,
    pub(super) place: &'a Workplace,
    pub(super) plan: &'a Plan,
    pub(super) executor: &'a Executor<'a>,
    pub(super) solved: &'a [solve::Solved],
}

impl Finish<'_> {
    /// Writes every output, then the names in the local store, which make the image visible, last.
    pub(super) fn outputs(&self) -> Result<(Image, Vec<(Destination, Descriptor)>), Error> {
        let store = &self.place.store;
        let mut exported = Vec::new();
        for output in &self.request.outputs {
            exported.push((output.destination.clone(), self.export(output)?));
        }
        let image = self.assemble(|layer| blobs::plain(store, layer))?;
        self.put_documents(&image)?;
        for name in &self.request.names {
            let platform = Some(self.plan.graph.platform.clone());
            store.tag(name, &Descriptor { platform, ..image.manifest.descriptor.clone() })?;
        }
        Ok((image, exported))
    }

    fn export(&self, output: &Output) -> Result<Descriptor, Error> {
        let (layers, reporter) = (&self.executor.layers, &self.place.reporter);
        let image = self.assemble(|layer| blobs::compressed(layers, reporter, layer, output.compression))?;
        self.put_documents(&image)?;
        if let Some(base) = self.base() {
            for layer in &base.config.rootfs.diff_ids {
                layers.blob(layer).map_err(blobs::Error::from)?;
            }
        }
        let platform = &self.plan.graph.platform;
        let content = layout::Content { store: &self.place.store, image: &image, platform, names: &self.request.names };
        match &output.destination {
            Destination::Archive(path) => layout::archive(&content, path)?,
            Destination::Directory(path) => layout::directory(&content, path)?,
            Destination::Stdout => layout::stream(&content, io::stdout().lock())?,
        }
        Ok(image.manifest.descriptor)
    }

    fn base(&self) -> Option<&BaseImage> {
        self.plan.graph.base.as_ref().and_then(|request| self.plan.bases.get(request))
    }

    /// The nodes that made the image's own layers, lowest first.
    fn made(&self) -> Vec<solve::Made> {
        let mut made = Vec::new();
        let mut next = Some(self.plan.graph.target);
        while let Some(NodeId(node)) = next {
            made.extend(self.solved[node].made);
            next = self.plan.graph.nodes[node].op.parent();
        }
        made.reverse();
        made
    }

    fn assemble(
        &self,
        mut blob: impl FnMut(crate::digest::DiffId) -> Result<Descriptor, blobs::Error>,
    ) -> Result<Image, Error> {
        let graph = &self.plan.graph;
        let mut built = Vec::new();
        for solve::Made { layer, created } in self.made() {
            built.push(BuiltLayer { diff_id: layer, blob: blob(layer)?, created: rfc3339(created) });
        }
        let base = self.base();
        let named = graph.base.as_ref().zip(base).map(|(request, image)| Base {
            name: request.layout.is_none().then_some(&request.reference),
            digest: image.digest,
            layers: &image.manifest.layers,
        });
        let diff_ids = base.map_or(&[][..], |image| &image.config.rootfs.diff_ids);
        let scratch_time = rfc3339(self.executor.epoch.unwrap_or(0));
        let annotations = &self.request.annotations;
        Ok(assemble(&graph.config, graph.base_history, named.as_ref(), diff_ids, &built, annotations, &scratch_time)?)
    }

    fn put_documents(&self, image: &Image) -> Result<(), Error> {
        self.place.store.put_blob(&image.config.bytes)?;
        self.place.store.put_blob(&image.manifest.bytes)?;
        Ok(())
    }
}

fn rfc3339(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}
