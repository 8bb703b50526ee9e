//! Reads an image out of an OCI layout, directory or tar, and flattens its layers into a tree.
//!
//! Written for the tests from the image specification, and shares nothing with Strata's own code. Every digest, size and
//! DiffID is verified on the way, and what the specification forbids (a path twice in a layer, a hard link to nothing)
//! fails the test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use tar::{Archive, EntryType};

/// An image with everything a test may ask about.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// The digest of its manifest.
    pub(crate) digest: String,
    /// Its manifest.
    pub(crate) manifest: Value,
    /// Its configuration document.
    pub(crate) config: Value,
    /// The tree its layers make, by path without a leading slash; the root itself, where a layer has it, is ``.
    pub(crate) tree: BTreeMap<String, Entry>,
    /// The paths that stand in each layer, whiteouts included, in order.
    pub(crate) layers: Vec<Vec<String>>,
}

/// One file of an image's tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// `file`, `dir`, `symlink`, `fifo`, `char` or `block`.
    pub(crate) kind: &'static str,
    /// Permission bits, with set-id and sticky.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u64,
    /// Group.
    pub(crate) gid: u64,
    /// Seconds since 1970.
    pub(crate) mtime: u64,
    /// Content of a file.
    pub(crate) content: Vec<u8>,
    /// Target of a symbolic link.
    pub(crate) link: String,
    /// Extended attributes.
    pub(crate) xattrs: BTreeMap<String, Vec<u8>>,
    /// Where it is a hard link: the path of the file it was linked to, in its layer.
    pub(crate) hardlink: Option<String>,
}

/// The bytes of an OCI layout's files, by path.
type Files = BTreeMap<String, Vec<u8>>;

/// Reads the one image of a layout directory or of a tar of one.
#[track_caller]
pub(crate) fn read(path: &Path) -> Image {
    let files = if path.is_dir() { read_directory(path) } else { read_tar(path) };
    let layout = json(&files["oci-layout"]);
    assert_eq!(layout["imageLayoutVersion"], "1.0.0", "oci-layout");
    let index = json(&files["index.json"]);
    let manifests = index["manifests"].as_array().expect("index.json lists manifests");
    assert_eq!(manifests.len(), 1, "one manifest in {index}");
    image(&files, &manifests[0])
}

fn image(files: &Files, descriptor: &Value) -> Image {
    let document = json(&blob(files, descriptor));
    if let Some(manifests) = document["manifests"].as_array() {
        assert_eq!(manifests.len(), 1, "one manifest in {document}");
        return image(files, &manifests[0]);
    }
    let config = json(&blob(files, &document["config"]));
    let descriptors = document["layers"].as_array().expect("the manifest lists layers");
    let diff_ids = config["rootfs"]["diff_ids"].as_array().expect("the configuration lists DiffIDs");
    assert_eq!(descriptors.len(), diff_ids.len(), "as many layers as DiffIDs");
    let history = config["history"].as_array().cloned().unwrap_or_default();
    let with_layer = history.iter().filter(|entry| entry["empty_layer"] != true).count();
    assert_eq!(with_layer, diff_ids.len(), "as many history entries with a layer as layers: {history:#?}");

    let mut tree = BTreeMap::new();
    let mut layers = Vec::new();
    for (descriptor, diff_id) in descriptors.iter().zip(diff_ids) {
        let tar = decompress(descriptor["mediaType"].as_str().unwrap(), &blob(files, descriptor));
        assert_eq!(sha256(&tar), diff_id.as_str().unwrap(), "DiffID of {descriptor}");
        layers.push(apply(&mut tree, &tar));
    }
    let digest = descriptor["digest"].as_str().unwrap().to_owned();
    Image { digest, manifest: document, config, tree, layers }
}

impl Image {
    /// A field of the `config` object of the configuration; null where it is absent.
    pub(crate) fn runtime(&self, field: &str) -> &Value {
        &self.config["config"][field]
    }

    /// The content of a file, as text.
    #[track_caller]
    pub(crate) fn text(&self, path: &str) -> String {
        let entry = self.tree.get(path).unwrap_or_else(|| panic!("no {path} in the image"));
        String::from_utf8_lossy(&entry.content).into_owned()
    }
}

fn json(bytes: &[u8]) -> Value {
    serde_json::from_slice(bytes).expect("a JSON document")
}

/// A blob by its descriptor, verified.
fn blob(files: &Files, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a descriptor has a digest");
    let path = format!("blobs/{}", digest.replace(':', "/"));
    let bytes = files.get(&path).unwrap_or_else(|| panic!("the layout lacks {path}")).clone();
    assert_eq!(sha256(&bytes), digest, "digest of {path}");
    assert_eq!(descriptor["size"].as_u64(), Some(bytes.len() as u64), "size of {path}");
    bytes
}

/// `sha256:HEX` of bytes.
pub(crate) fn sha256(bytes: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, bytes);
    digest.as_ref().iter().fold(String::from("sha256:"), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

fn decompress(media_type: &str, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    if media_type.ends_with("tar+gzip") || media_type.ends_with("tar.gzip") {
        flate2::read::MultiGzDecoder::new(bytes).read_to_end(&mut out).expect("gzip");
    } else if media_type.ends_with("tar+zstd") {
        zstd::Decoder::new(bytes).unwrap().read_to_end(&mut out).expect("zstd");
    } else {
        assert!(media_type.ends_with(".tar"), "unknown media type {media_type}");
        out.extend_from_slice(bytes);
    }
    out
}

fn read_directory(path: &Path) -> Files {
    let mut files = Files::new();
    let mut todo = vec![path.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let found = entry.unwrap().path();
            if found.is_dir() {
                todo.push(found);
            } else {
                let name = found.strip_prefix(path).unwrap().to_str().unwrap().to_owned();
                files.insert(name, fs::read(found).unwrap());
            }
        }
    }
    files
}

fn read_tar(path: &Path) -> Files {
    let mut files = Files::new();
    for entry in Archive::new(File::open(path).unwrap()).entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.header().entry_type().is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            files.insert(normal(&entry.path_bytes()), bytes);
        }
    }
    files
}

/// A path of an archive without `./` and slashes at the ends.
fn normal(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    let text = text.trim_matches('/');
    text.strip_prefix("./").unwrap_or(if text == "." { "" } else { text }).to_owned()
}

fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(parent, _)| parent)
}

/// Whether `path` is below the directory `above`.
fn below(path: &str, above: &str) -> bool {
    if above.is_empty() { !path.is_empty() } else { path.strip_prefix(above).is_some_and(|rest| rest.starts_with('/')) }
}

/// Lays a layer over a tree; gives the paths that stand in the layer.
fn apply(tree: &mut BTreeMap<String, Entry>, tar: &[u8]) -> Vec<String> {
    let lower: BTreeSet<String> = tree.keys().cloned().collect();
    let mut seen = Vec::new();
    let mut twice = BTreeSet::new();
    for entry in Archive::new(tar).entries().unwrap() {
        let mut entry = entry.unwrap();
        let path = normal(&entry.path_bytes());
        assert!(twice.insert(path.clone()), "{path} stands twice in a layer");
        assert!(!path.split('/').any(|part| part == ".."), "{path} leaves the layer");
        seen.push(path.clone());
        let name = path.rsplit('/').next().unwrap();
        if name == ".wh..wh..opq" {
            let directory = parent(&path);
            for hidden in lower.iter().filter(|other| below(other, directory)) {
                tree.remove(hidden);
            }
            continue;
        }
        if let Some(hidden) = name.strip_prefix(".wh.") {
            let hidden = if path.contains('/') { format!("{}/{hidden}", parent(&path)) } else { hidden.to_owned() };
            assert!(lower.contains(&hidden), "the whiteout {path} hides nothing");
            tree.retain(|path, _| *path != hidden && !below(path, &hidden));
            continue;
        }
        let read = read_entry(&mut entry, tree);
        if read.kind != "dir" {
            tree.retain(|other, _| !below(other, &path));
        }
        tree.insert(path, read);
    }
    seen
}

fn read_entry(entry: &mut tar::Entry<'_, &[u8]>, tree: &BTreeMap<String, Entry>) -> Entry {
    let mut xattrs = BTreeMap::new();
    for extension in entry.pax_extensions().unwrap().into_iter().flatten() {
        let extension = extension.unwrap();
        if let Some(name) = extension.key().unwrap().strip_prefix("SCHILY.xattr.") {
            xattrs.insert(name.to_owned(), extension.value_bytes().to_vec());
        }
    }
    let link = entry.link_name_bytes().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let header = entry.header().clone();
    let kind = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous => "file",
        EntryType::Directory => "dir",
        EntryType::Symlink => "symlink",
        EntryType::Fifo => "fifo",
        EntryType::Char => "char",
        EntryType::Block => "block",
        EntryType::Link => {
            let target = normal(link.as_bytes());
            let linked = tree.get(&target).unwrap_or_else(|| panic!("a hard link to {target}, which is not there"));
            return Entry { hardlink: Some(target), ..linked.clone() };
        }
        other => panic!("unexpected entry type {other:?} in a layer"),
    };
    let mut content = Vec::new();
    entry.read_to_end(&mut content).unwrap();
    Entry {
        kind,
        mode: header.mode().unwrap() & 0o7777,
        uid: header.uid().unwrap(),
        gid: header.gid().unwrap(),
        mtime: header.mtime().unwrap(),
        content,
        link: if kind == "symlink" { link } else { String::new() },
        xattrs,
        hardlink: None,
    }
}
