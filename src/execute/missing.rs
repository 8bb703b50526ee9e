//! What a copy or mount was probably meant to name where there is no file of that name.
//!
//! Takes the tree that was searched and the source as written, gives the error with the nearest name that is there. Reads
//! one directory: the last one on the way that exists.

use std::ffi::OsStr;
use std::path::{Component, Path, PathBuf};

use crate::context::ignore::PatternRef;
use crate::context::opened::Opened;
use crate::diagnostic::nearest;
use crate::execute::{Error, copy, place_of};
use crate::graph::ContextName;
use crate::layer::tree::{Kind, Tree};

/// As many names of a directory are compared: advice must not cost more than the step.
const COMPARED: usize = 10_000;

/// The error where a source is not in a context.
pub(super) fn in_context(error: copy::Error, name: &ContextName, context: &Opened) -> Error {
    match error {
        copy::Error::NotFound { word } => {
            let hidden = context
                .hidden_by(Path::new(word.trim_matches('/')))
                .map(|PatternRef { file, line, text }| format!("{text:?} ({file}:{line})"));
            Error::NotFound {
                // What is there under this very name needs no other.
                nearest: if hidden.is_none() { nearest_path(context.tree(), &word) } else { None },
                hidden,
                source_path: word,
                place: place_of(name),
            }
        }
        other => other.into(),
    }
}

/// The error where a source is not in a stage or image.
pub(super) fn in_layers(error: copy::Error, view: &dyn Tree) -> Error {
    match error {
        copy::Error::NotFound { word } => {
            // There all paths start at the root, however they are written.
            let source_path = format!("/{}", word.trim_start_matches('/'));
            let nearest = nearest_path(view, &source_path);
            Error::NotFound { nearest, source_path, place: "the stage or image".to_owned(), hidden: None }
        }
        other => other.into(),
    }
}

/// The path with the first part that is missing replaced by the nearest name beside it, if what follows is there too.
fn nearest_path(tree: &dyn Tree, word: &str) -> Option<String> {
    let parts: Vec<&OsStr> = Path::new(word)
        .components()
        .filter_map(|part| match part {
            Component::Normal(name) => Some(Some(name)),
            Component::ParentDir => Some(None),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
        })
        .collect::<Option<_>>()?;
    let mut above = PathBuf::new();
    for (place, part) in parts.iter().enumerate() {
        let here = above.join(part);
        match tree.entry(&here).ok()? {
            // A link can lead anywhere, and what is beyond it is not worth the search.
            Some(entry) if entry.kind == Kind::Directory => above = here,
            Some(_) => return None,
            None => {
                let names = tree.names(&above).ok()?;
                let names = names.iter().take(COMPARED).filter_map(|name| name.to_str());
                let mut meant = above.join(nearest(part.to_str()?, names)?);
                meant.extend(&parts[place + 1..]);
                let root = if word.starts_with('/') { "/" } else { "" };
                tree.entry(&meant).ok()??;
                return Some(format!("{root}{}", meant.to_str()?));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

    use super::*;
    use crate::layer::OverlayXattr;
    use crate::layer::view::View;

    #[test]
    fn the_nearest_path_exists() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("src/inner")).unwrap();
        for name in ["package.json", "src/main.rs", "src/inner/lib.rs"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let view = View::over(&[directory.path().to_owned()], OverlayXattr::User).unwrap();
        for (word, expected) in [
            ("pakage.json", Some("package.json")),
            ("Package.json", Some("package.json")),
            ("/pakage.json", Some("/package.json")),
            ("./src/mian.rs", Some("src/main.rs")),
            ("scr/inner/lib.rs", Some("src/inner/lib.rs")),
            ("scr/inner/bil.rs", None),
            ("nothing", None),
            ("package.json/x", None),
            ("../package.json", None),
            ("", None),
        ] {
            assert_eq!(nearest_path(&view, word).as_deref(), expected, "{word}");
        }
    }
}
