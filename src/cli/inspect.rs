//! `strata inspect`

use clap::Args;
use serde_json::json;

use crate::cli::table::{size, table};
use crate::cli::{Format, exit, print, print_json, workplace};
use crate::diagnostic::nearest;
use crate::image::config::ImageConfig;
use crate::image::manifest::{Descriptor, Manifest};
use crate::recipe::reference::Reference;
use crate::store::Store;

/// The arguments of `inspect`.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The image's name
    name: String,

    /// How the image is printed
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// An image of the local store, read.
pub(super) struct Stored {
    pub(super) manifest: Manifest,
    pub(super) config: ImageConfig,
}

/// Shows an image.
pub(super) fn run(arguments: Arguments) -> Result<(), exit::Error> {
    let name: Reference = arguments.name.parse()?;
    let store = workplace::store()?;
    let descriptor = find(&store, &name)?;
    let stored = read(&store, &name, &descriptor)?;
    match arguments.format {
        Format::Json => print_json(&json!({
            "name": name.familiar(),
            "id": stored.manifest.config.digest,
            "digest": descriptor.digest,
            "manifest": stored.manifest,
            "config": stored.config,
            "layers": layers(&stored),
        })),
        Format::Text => print(&text(&name, &stored)),
    }
}

/// The descriptor behind a name.
pub(super) fn find(store: &Store, name: &Reference) -> Result<Descriptor, exit::Error> {
    if let Some(descriptor) = store.tagged(name)? {
        return Ok(descriptor);
    }
    let names: Vec<String> = store.tags()?.into_iter().map(|(name, _)| name.familiar()).collect();
    let wanted = name.familiar();
    let nearest = nearest(&wanted, names.iter().map(String::as_str)).map(str::to_owned);
    Err(exit::Error::NoImage { name: wanted, nearest })
}

/// The documents behind a descriptor.
pub(super) fn read(store: &Store, name: &Reference, descriptor: &Descriptor) -> Result<Stored, exit::Error> {
    let damaged = |what| exit::Error::Damaged { name: name.familiar(), what };
    let bytes = store.read_blob(&descriptor.digest)?.ok_or(damaged("the manifest"))?;
    let manifest: Manifest = serde_json::from_slice(&bytes).map_err(|_| damaged("the manifest"))?;
    let bytes = store.read_blob(&manifest.config.digest)?.ok_or(damaged("the configuration"))?;
    let config = serde_json::from_slice(&bytes).map_err(|_| damaged("the configuration"))?;
    Ok(Stored { manifest, config })
}

/// The layers, base first, each with the step that made it.
fn layers(stored: &Stored) -> Vec<serde_json::Value> {
    steps(stored)
        .map(|(layer, diff_id, step)| {
            json!({ "digest": layer.digest, "diffId": diff_id, "mediaType": layer.media_type, "size": layer.size, "createdBy": step })
        })
        .collect()
}

fn steps(stored: &Stored) -> impl Iterator<Item = (&Descriptor, String, &str)> {
    let with_layer = stored.config.history.iter().filter(|entry| !entry.empty_layer);
    let mut steps = with_layer.map(|entry| entry.created_by.as_deref().unwrap_or("")).fuse();
    stored.manifest.layers.iter().enumerate().map(move |(n, layer)| {
        let diff_id = stored.config.rootfs.diff_ids.get(n).map(ToString::to_string).unwrap_or_default();
        (layer, diff_id, steps.next().unwrap_or(""))
    })
}

fn text(name: &Reference, stored: &Stored) -> String {
    let Stored { manifest, config } = stored;
    let run = &config.config;
    let words = |words: &Option<Vec<String>>| words.as_ref().map(|words| json!(words).to_string());
    let keys = |map: &std::collections::BTreeMap<String, serde_json::Value>| {
        (!map.is_empty()).then(|| map.keys().cloned().collect::<Vec<_>>().join(" "))
    };
    let text_of = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let mut rows = vec![
        ("name", Some(name.familiar())),
        ("id", Some(manifest.config.digest.to_string())),
        ("created", config.created.clone()),
        ("author", config.author.clone()),
        ("platform", Some(format!("{}/{}", config.os, config.architecture))),
        ("base", manifest.annotations.get(crate::image::assemble::BASE_NAME).cloned()),
        ("entrypoint", words(&run.entrypoint)),
        ("cmd", words(&run.cmd)),
        ("workdir", text_of(&run.working_dir)),
        ("user", text_of(&run.user)),
        ("ports", keys(&run.exposed_ports)),
        ("volumes", keys(&run.volumes)),
        ("stopsignal", run.stop_signal.clone()),
        ("shell", words(&run.shell)),
        ("healthcheck", run.healthcheck.as_ref().map(|check| json!(check.test).to_string())),
    ];
    rows.extend(run.env.iter().map(|variable| ("env", Some(variable.clone()))));
    rows.extend(run.labels.iter().map(|(name, value)| ("label", Some(format!("{name}={value}")))));
    rows.extend(run.on_build.iter().map(|trigger| ("onbuild", Some(trigger.clone()))));
    let rows: Vec<Vec<String>> =
        rows.into_iter().filter_map(|(name, value)| Some(vec![name.to_owned(), value?])).collect();
    let mut lines = vec![["LAYER", "SIZE", "MADE BY"].map(str::to_owned).to_vec()];
    lines.extend(
        steps(stored)
            .map(|(layer, _, step)| vec![layer.digest.hex()[..12].to_owned(), size(layer.size), one_line(step)]),
    );
    format!("{}\n{}", table(&rows), table(&lines))
}

fn one_line(step: &str) -> String {
    const WIDTH: usize = 100;
    let line = step.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= WIDTH { line } else { line.chars().take(WIDTH - 1).chain(['…']).collect() }
}
