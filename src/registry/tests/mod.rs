//! Questions asked of servers on this machine: a misbehaving one of the tests' own, and Debian's `docker-registry`.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on shall stop")]

mod access;
mod blobs;
mod docker_registry;
mod documents;
mod environment;
mod mirrors;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use self::server::{Answer, Request, Server};
use super::{Client, CredentialFiles, Error};
use crate::digest::Digest;
use crate::image::manifest::{Descriptor, media_type};
use crate::recipe::platform::Platform;
use crate::recipe::reference::Reference;
use crate::settings::{Network, Settings};

/// Settings with little patience.
fn settings() -> Settings {
    let network = Network {
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        retries: 5,
        retry_delay: Duration::from_millis(2),
        pasta: None,
    };
    Settings { network, ..Settings::default() }
}

fn client() -> Client {
    Client::new(settings(), CredentialFiles::none())
}

/// `host/acme/app`, by tag or digest.
fn reference(host: &str, tag: &str) -> Reference {
    let digest = tag.parse().ok();
    let tag = digest.is_none().then(|| tag.to_owned());
    Reference { registry: host.to_owned(), repository: "acme/app".to_owned(), tag, digest }
}

fn platform(text: &str) -> Platform {
    let mut parts = text.split('/').map(str::to_owned);
    let (os, architecture) = (parts.next().unwrap(), parts.next().unwrap());
    Platform { os, architecture, variant: parts.next(), os_version: None }
}

/// Bytes that do not repeat, the same for the same seed.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2).wrapping_add(1);
    let step = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(step).collect()
}

/// What a repository holds: bytes by the last two parts of their path, with their type.
#[derive(Debug, Clone, Default)]
struct Repository(BTreeMap<String, (String, Vec<u8>)>);

impl Repository {
    fn put(&mut self, kind: &str, name: &str, media_type: &str, bytes: &[u8]) -> Descriptor {
        let digest = Digest::of(bytes);
        for name in [name.to_owned(), digest.to_string()] {
            self.0.insert(format!("{kind}/{name}"), (media_type.to_owned(), bytes.to_vec()));
        }
        Descriptor::new(media_type, digest, bytes.len() as u64)
    }

    /// An image with these layers; the name tags it, unless empty.
    fn image(&mut self, name: &str, on: &str, layers: &[&[u8]]) -> Descriptor {
        let on = platform(on);
        let layers: Vec<_> = layers.iter().map(|layer| self.put("blobs", "", media_type::LAYER, layer)).collect();
        let diff_ids: Vec<_> = layers.iter().map(|layer| layer.digest).collect();
        let config = json!({
            "architecture": on.architecture, "os": on.os, "variant": on.variant,
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        });
        let config = self.put("blobs", "", media_type::CONFIG, config.to_string().as_bytes());
        let manifest =
            json!({ "schemaVersion": 2, "mediaType": media_type::MANIFEST, "config": config, "layers": layers });
        let mut descriptor = self.put("manifests", name, media_type::MANIFEST, manifest.to_string().as_bytes());
        descriptor.platform = Some(on);
        descriptor
    }

    fn index(&mut self, name: &str, entries: &[Descriptor]) -> Descriptor {
        let index = json!({ "schemaVersion": 2, "mediaType": media_type::INDEX, "manifests": entries });
        self.put("manifests", name, media_type::INDEX, index.to_string().as_bytes())
    }

    fn document(&mut self, name: &str, media_type: &str, document: &Value) -> Descriptor {
        self.put("manifests", name, media_type, document.to_string().as_bytes())
    }

    /// What an honest registry answers.
    fn answer(&self, request: &Request) -> Answer {
        let path = request.path.split('?').next().unwrap();
        let key: Vec<_> = path.rsplitn(3, '/').take(2).collect();
        match self.0.get(&format!("{}/{}", key[1], key[0])) {
            None => Answer::new(404, r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            Some((media_type, bytes)) => Answer::ranged(request, bytes)
                .with("Content-Type", media_type)
                .with("Docker-Content-Digest", Digest::of(bytes)),
        }
    }

    fn serve(&self) -> Server {
        let repository = Arc::new(self.clone());
        Server::start(move |request, _| repository.answer(request))
    }
}

/// Fetches a blob: its bytes as the sink got them, and how that went.
fn fetch(client: &Client, host: &str, descriptor: &Descriptor) -> (Vec<u8>, Result<(), Error>) {
    let mut sink = Vec::new();
    let result = client.fetch_blob(&reference(host, "1"), descriptor, &mut sink, &|_| {});
    (sink, result)
}

/// An error as a person sees it: with its causes.
fn shown(error: &Error) -> String {
    super::in_one_line(error)
}
