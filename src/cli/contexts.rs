//! What the command line says about contexts → where files come from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::build::contexts::{ContextSource, RecipeSource};
use crate::cli::exit::Error;
use crate::graph::named::{self, NamedContext, NamedContexts};
use crate::recipe::reference::Reference;
use crate::recipe::remote::{self, CheckoutTimes, Remote};

/// The registry's part in the name of an image that comes from a layout on disk.
const LAYOUT_REGISTRY: &str = "oci-layout";

/// `CONTEXT`. Files of a repository can keep its `.git`, and are as old as their commit where times are `bounded`.
pub(super) fn main(context: PathBuf, keep_git_dir: bool, bounded: bool) -> Result<ContextSource, Error> {
    if context.as_os_str() == "-" {
        return Ok(ContextSource::Stdin);
    }
    let mut source =
        files(&context.to_string_lossy(), &context).map_err(|reason| Error::Usage(format!("the context {reason}")))?;
    if let ContextSource::Git(address) = &mut source {
        address.keep_git_dir |= keep_git_dir;
        address.times = address.times.or(bounded.then_some(CheckoutTimes::Commit));
    }
    Ok(source)
}

/// `--file`
pub(super) fn recipe(file: Option<PathBuf>) -> RecipeSource {
    match file {
        None => RecipeSource::Default,
        Some(file) if file.as_os_str() == "-" => RecipeSource::Stdin,
        Some(file) => match file.to_str() {
            Some(text) if text.starts_with("http://") || text.starts_with("https://") => {
                RecipeSource::Http(text.to_owned())
            }
            _ => RecipeSource::File(file),
        },
    }
}

/// Every `--build-context`: what the graph has to know, and where files come from.
pub(super) fn named(given: &[String]) -> Result<(NamedContexts, BTreeMap<String, ContextSource>), Error> {
    let (mut contexts, mut sources) = (NamedContexts::default(), BTreeMap::new());
    for text in given {
        let wrong = |reason: String| Error::Usage(format!("--build-context {text:?}: {reason}"));
        let Some((name, value)) = text.split_once('=').filter(|(_, value)| !value.is_empty()) else {
            return Err(wrong("expected NAME=SOURCE".to_owned()));
        };
        let name = named::name(name).map_err(|error| wrong(error.to_string()))?;
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            image_context(image).map_err(wrong)?
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            layout_context(&name, layout).map_err(wrong)?
        } else {
            sources.insert(name.clone(), files(value, Path::new(value)).map_err(wrong)?);
            NamedContext::Files
        };
        contexts.insert(name, context);
    }
    Ok((contexts, sources))
}

fn image_context(image: &str) -> Result<NamedContext, String> {
    if image == "scratch" {
        return Ok(NamedContext::Scratch);
    }
    let reference = image.parse().map_err(|error: crate::recipe::reference::ParseError| error.to_string())?;
    Ok(NamedContext::Image { reference, layout: None })
}

/// `DIR[:tag][@digest]`
fn layout_context(name: &str, text: &str) -> Result<NamedContext, String> {
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => {
            let digest = digest.parse().map_err(|_| format!("{digest:?} is not sha256: and 64 hexadecimal digits"))?;
            (rest, Some(digest))
        }
        None => (text, None),
    };
    let (path, tag) = match rest.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((path, tag)) => (path, Some(tag.to_owned())),
        None => (rest, None),
    };
    let path = std::path::absolute(path).map_err(|error| format!("{path:?} is not a path: {error}"))?;
    if !path.join("index.json").is_file() {
        return Err(format!("{} is not an OCI layout: it has no index.json", path.display()));
    }
    let name = name.split("::").next().unwrap_or_default();
    let repository = name.replace(':', "-");
    let reference = Reference { registry: LAYOUT_REGISTRY.to_owned(), repository, tag, digest };
    Ok(NamedContext::Image { reference, layout: Some(path) })
}

/// A source of files; the error goes on where "the context" begins.
fn files(text: &str, path: &Path) -> Result<ContextSource, String> {
    // Docker's old way to name a repository, where there is no such directory.
    let https = format!("https://{text}");
    let text = if text.starts_with("github.com/") && !path.exists() { &https } else { text };
    match remote::parse(text).map_err(|error| error.to_string())? {
        Some(Remote::Git(address)) => Ok(ContextSource::Git(address)),
        Some(Remote::Http(address)) => Ok(ContextSource::Http(address)),
        None if path.is_dir() => Ok(ContextSource::Directory(path.to_owned())),
        None => Err(format!("{text} is not a directory")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_context_is_refused() {
        for text in ["", "x", "=.", "x=", "a b=.", "x=/no/such/dir", "x=docker-image://UP:", "x=oci-layout:///no/such"]
        {
            assert!(matches!(named(&[text.to_owned()]), Err(Error::Usage(_))), "{text:?}");
        }
    }

    #[test]
    fn kinds_are_told_apart() {
        let (_, sources) = named(&["Files=.".to_owned(), "none=docker-image://scratch".to_owned()]).unwrap();
        assert_eq!(sources.keys().collect::<Vec<_>>(), ["files"]);
        assert_eq!(recipe(Some("-".into())), RecipeSource::Stdin);
        assert_eq!(main("-".into(), false, false).unwrap(), ContextSource::Stdin);
    }
}
