//! What a step selected → the listing that explains a later change of it.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::cache::listing::{ANY_MODE, ANYBODY, Facts, Kind, Listing, short};
use crate::execute::Files;
use crate::execute::copy::select::{Group, Item, Origin};
use crate::graph::CopyOp;
use crate::layer::tree;

/// The listing of files that a step selected. Of what a copy sets itself, the source's own says nothing.
pub(super) fn of(files: &Files, copy: Option<&CopyOp>) -> Listing {
    let owner = copy.is_none_or(|copy| copy.chown.is_none());
    let exact = |mode: &String| mode.bytes().all(|byte| byte.is_ascii_digit());
    let mode = !copy.and_then(|copy| copy.chmod.as_ref()).is_some_and(exact);
    let groups = &files.selection().groups;
    let mut entries = Vec::with_capacity(groups.iter().map(|group| group.items.len()).sum());
    for group in groups {
        for item in &group.items {
            let mut facts = facts(item);
            if !owner {
                facts.owner = ANYBODY;
            }
            if !mode {
                facts.mode = ANY_MODE;
            }
            entries.push((path(group, item, files.is_joined()), facts));
        }
    }
    Listing::new(entries)
}

/// Where the item comes from, as somebody would name it.
fn path(group: &Group, item: &Item, joined: bool) -> Vec<u8> {
    match &item.origin {
        Origin::Tree(path) if !joined => path.as_os_str().as_bytes().to_vec(),
        Origin::Tree(_) | Origin::Inline(_) if item.path.as_os_str().is_empty() => group.name.as_bytes().to_vec(),
        Origin::Tree(_) | Origin::Inline(_) => {
            Path::new(&group.name).join(&item.path).into_os_string().as_bytes().to_vec()
        }
    }
}

fn facts(item: &Item) -> Facts {
    let entry = &item.entry;
    let (kind, content) = match &entry.kind {
        tree::Kind::File { .. } => (Kind::File, item.content.as_ref().map_or(0, |content| short(content.as_bytes()))),
        tree::Kind::Directory => (Kind::Directory, 0),
        tree::Kind::Symlink { target } => (Kind::Link, short(blake3::hash(target.as_os_str().as_bytes()).as_bytes())),
        tree::Kind::CharDevice { device } | tree::Kind::BlockDevice { device } => {
            (Kind::Device, u64::from(device.0) << 32 | u64::from(device.1))
        }
        tree::Kind::Fifo | tree::Kind::Socket => (Kind::Pipe, 0),
    };
    // The bits of a symbolic link mean nothing.
    let mode = if kind == Kind::Link { 0 } else { u16::try_from(entry.mode & 0o7777).unwrap_or_default() };
    Facts { kind, mode, owner: (entry.uid, entry.gid), content, attributes: attributes(item) }
}

fn attributes(item: &Item) -> u64 {
    if item.xattrs.is_empty() {
        return 0;
    }
    let mut hasher = blake3::Hasher::new();
    for (name, value) in &item.xattrs {
        for part in [name.as_bytes(), value] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
    }
    // Having some is never the same as having none.
    short(hasher.finalize().as_bytes()).max(1)
}
