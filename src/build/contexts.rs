//! Where the recipe and the files of a build come from: directories, standard input, and what is fetched.
//!
//! Takes what the command line named, gives the recipe's text and open contexts. What is not a directory is brought into
//! one of the store's scratch directories, which goes when the build does. Never runs anything of a context.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use crate::build::{Error as BuildError, Request, Workplace};
use crate::context::opened::Opened;
use crate::context::{self, Context};
use crate::diagnostic::SourceFile;
use crate::digest::ContentId;
use crate::fetch;
use crate::graph::{ContextName, Graph, Op};
use crate::layer::compress::archive_decoder;
use crate::layer::entries::Entries;
use crate::layer::tree::{Kind, Tree};
use crate::layer::unpack;
use crate::layer::view::{Follow, View, resolve};
use crate::recipe::remote::GitAddress;
use crate::store::Scratch;

/// The largest recipe that is taken from elsewhere than a file.
const RECIPE_LIMIT: u64 = 16 << 20;

/// The names a recipe is looked for by.
const DEFAULT_NAMES: [&str; 2] = ["Dockerfile", "dockerfile"];

/// Where files come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ContextSource {
    /// A directory of this machine.
    Directory(PathBuf),
    /// Standard input: an archive, or a recipe and no files.
    Stdin,
    /// An address of either.
    Http(String),
    /// A git repository.
    Git(GitAddress),
}

/// Where the recipe comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecipeSource {
    /// `Dockerfile` in the context.
    Default,
    /// A file: of this machine where the context is a directory, else of the context.
    File(PathBuf),
    /// Standard input.
    Stdin,
    /// An address.
    Http(String),
}

/// Why a context or a recipe cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Standard input is wanted twice, or the recipe is given twice.
    #[error("{0}")]
    Ambiguous(&'static str),
    /// Standard input, or a file made of it, cannot be read or written.
    #[error("{what} cannot be read: {source}")]
    Read {
        /// What.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A recipe larger than any honest one.
    #[error("{what} is neither an archive nor a recipe: it has more than {RECIPE_LIMIT} bytes")]
    TooLarge {
        /// What.
        what: String,
    },
    /// The archive is damaged or dangerous.
    #[error("the archive from {what} cannot be unpacked")]
    Unpack {
        /// Where it came from.
        what: String,
        /// What is wrong with it.
        source: unpack::Error,
    },
    /// It could not be fetched.
    #[error(transparent)]
    Fetch(#[from] fetch::Error),
}

impl Error {
    /// Whether the command line is the cause.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Ambiguous(_) | Self::TooLarge { .. })
    }

    /// Whether this machine or its network is the cause.
    pub fn is_environment(&self) -> bool {
        matches!(self, Self::Fetch(error) if error.is_environment())
    }
}

/// The main context as far as it is known before the recipe is read.
#[derive(Debug)]
pub(super) enum Located {
    /// A directory, opened only if something is copied from it.
    Directory(PathBuf),
    /// Files that were brought here.
    Opened(Opened),
    /// No files, and the recipe.
    Recipe(SourceFile),
}

/// Brings contexts here, and keeps what was brought until it is dropped.
#[derive(Debug, Default)]
pub(super) struct Arrivals {
    scratches: Vec<Scratch>,
}

impl Arrivals {
    /// Finds the main context.
    pub(super) fn main(&mut self, request: &Request, place: &Workplace) -> Result<Located, BuildError> {
        if request.context == ContextSource::Stdin && request.recipe == RecipeSource::Stdin {
            return Err(Error::Ambiguous("standard input cannot be both the context and the recipe").into());
        }
        let located = self.locate(&request.context, place)?;
        if matches!(located, Located::Recipe(_)) && request.recipe != RecipeSource::Default {
            let twice = "the context is a recipe itself, and --file names another";
            return Err(Error::Ambiguous(twice).into());
        }
        Ok(located)
    }

    fn locate(&mut self, source: &ContextSource, place: &Workplace) -> Result<Located, BuildError> {
        match source {
            ContextSource::Directory(path) => Ok(Located::Directory(path.clone())),
            ContextSource::Stdin => {
                let what = "standard input";
                let read = |source| Error::Read { what: what.to_owned(), source };
                let scratch = place.store.scratch()?;
                let path = scratch.path().join("stdin");
                let mut spool = File::create(&path).map_err(read)?;
                io::copy(&mut io::stdin().lock(), &mut spool).and_then(|_| spool.flush()).map_err(read)?;
                drop(spool);
                let located = self.archive_or_recipe(&path, what, place);
                drop(scratch);
                located
            }
            ContextSource::Http(address) => {
                let path = download(address, place)?;
                self.archive_or_recipe(&path, shown(address), place)
            }
            ContextSource::Git(address) => {
                let task = place.reporter.start(&format!("fetch {}", without_credentials(&address.remote)));
                let fetcher = place.fetcher();
                let fetched = fetcher.commit(address).and_then(|commit| fetcher.checkout(&commit));
                task.finish(fetched.as_ref().err().map(ToString::to_string));
                let (context, scratch) = fetched.map_err(Error::Fetch)?;
                self.scratches.push(scratch);
                Ok(Located::Opened(Opened::Directory(Box::new(context))))
            }
        }
    }

    /// A file that is an archive of a context, or a recipe; what it is, its content tells.
    fn archive_or_recipe(&mut self, path: &Path, what: &str, place: &Workplace) -> Result<Located, BuildError> {
        let read = |source| Error::Read { what: what.to_owned(), source };
        let open = || File::open(path).map_err(read);
        if !is_archive(open()?) {
            let text = bounded_text(open()?, what)?;
            return Ok(Located::Recipe(SourceFile { name: what.to_owned().into(), text: text.into() }));
        }
        let scratch = place.store.scratch()?;
        let tree = scratch.dir("tree")?;
        let stream = archive_decoder(open()?).map_err(read)?;
        unpack::unpack(stream, &tree, place.xattr, place.owners)
            .map_err(|source| Error::Unpack { what: what.to_owned(), source })?;
        let view = View::over(&[tree], place.xattr).map_err(read)?;
        self.scratches.push(scratch);
        Ok(Located::Opened(Opened::Unpacked(view)))
    }

    /// Opens every context that a graph reads.
    pub(super) fn open_used(
        &mut self,
        graph: &Graph,
        main: Located,
        request: &Request,
        place: &Workplace,
    ) -> Result<BTreeMap<ContextName, Opened>, BuildError> {
        let used: BTreeSet<&ContextName> = graph
            .nodes
            .iter()
            .filter_map(|node| match &node.op {
                Op::Context(name) => Some(name),
                _ => None,
            })
            .collect();
        let mut main = Some(main);
        let mut contexts = BTreeMap::new();
        for name in used {
            let (located, recipe) = match name {
                // Only the main context has a recipe whose own ignore file may count.
                ContextName::Main => (main.take(), request.recipe_path()),
                ContextName::Named(name) => match request.contexts.get(name) {
                    Some(source) => (Some(self.locate(source, place)?), None),
                    None => (None, None),
                },
            };
            let opened = match located {
                Some(Located::Directory(path)) => directory(&path, recipe.as_deref(), place)?,
                Some(Located::Opened(opened)) => opened,
                Some(Located::Recipe(_)) | None => nothing(place)?,
            };
            contexts.insert(name.clone(), opened);
        }
        Ok(contexts)
    }
}

impl Request {
    /// Where the recipe is, if it is a file of this machine.
    fn recipe_path(&self) -> Option<PathBuf> {
        let ContextSource::Directory(directory) = &self.context else { return None };
        match &self.recipe {
            RecipeSource::Default => Some(default_recipe(directory)),
            RecipeSource::File(path) => Some(path.clone()),
            RecipeSource::Stdin | RecipeSource::Http(_) => None,
        }
    }

    /// The recipe's text.
    pub(super) fn read_recipe(&self, main: &Located, place: &Workplace) -> Result<SourceFile, BuildError> {
        let named = |name: &str, text: String| SourceFile { name: name.into(), text: text.into() };
        match &self.recipe {
            RecipeSource::Stdin => {
                let what = "standard input";
                return Ok(named(what, bounded_text(io::stdin().lock(), what)?));
            }
            RecipeSource::Http(address) => {
                let (path, what) = (download(address, place)?, shown(address));
                let file = File::open(path).map_err(|source| Error::Read { what: what.to_owned(), source })?;
                return Ok(named(what, bounded_text(file, what)?));
            }
            RecipeSource::Default | RecipeSource::File(_) => {}
        }
        match main {
            Located::Recipe(source) => Ok(source.clone()),
            Located::Directory(directory) => {
                let path = self.recipe_path().unwrap_or_else(|| default_recipe(directory));
                let bytes =
                    std::fs::read(&path).map_err(|source| BuildError::ReadRecipe { path: path.clone(), source })?;
                let name = match self.recipe {
                    RecipeSource::File(_) => path.to_string_lossy().into_owned(),
                    _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
                };
                source_file(&path, name, bytes)
            }
            Located::Opened(opened) => {
                let names: Vec<PathBuf> = match &self.recipe {
                    RecipeSource::File(path) => vec![path.clone()],
                    _ => DEFAULT_NAMES.iter().map(PathBuf::from).collect(),
                };
                recipe_in(opened.tree(), &names)
            }
        }
    }
}

/// The file at an address, in the store.
fn download(address: &str, place: &Workplace) -> Result<PathBuf, Error> {
    let task = place.reporter.start(&format!("fetch {}", shown(address)));
    let fetched = place.fetcher().http(address, None, &task);
    task.finish(fetched.as_ref().err().map(ToString::to_string));
    let digest = fetched?.digest;
    let path = place.store.blob_path(&digest);
    path.ok_or_else(|| fetch::Error::from(crate::store::Error::NoBlob { digest }).into())
}

/// An address as it may be shown and kept: without user and password, query and fragment.
pub(super) fn without_credentials(address: &str) -> String {
    let address = shown(address);
    let Some((scheme, rest)) = address.split_once("://") else { return address.to_owned() };
    let (host, path) = rest.split_once('/').map_or((rest, None), |(host, path)| (host, Some(path)));
    let host = host.rsplit('@').next().unwrap_or(host);
    path.map_or_else(|| format!("{scheme}://{host}"), |path| format!("{scheme}://{host}/{path}"))
}

/// An address as messages show it: without its query, which may be a signature.
fn shown(address: &str) -> &str {
    address.split(['?', '#']).next().unwrap_or(address)
}

/// `Dockerfile`, or `dockerfile` where only that is there.
fn default_recipe(directory: &Path) -> PathBuf {
    let [first, second] = DEFAULT_NAMES.map(|name| directory.join(name));
    if !first.exists() && second.exists() { second } else { first }
}

fn source_file(path: &Path, name: String, bytes: Vec<u8>) -> Result<SourceFile, BuildError> {
    let text = utf8(bytes).map_err(|source| BuildError::ReadRecipe { path: path.to_owned(), source })?;
    Ok(SourceFile { name: name.into(), text: text.into() })
}

/// The bytes as text; where they are none, the error says in which line.
fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let before = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count();
        io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text"))
    })
}

/// The first of some files that a tree has.
fn recipe_in(tree: &dyn Tree, names: &[PathBuf]) -> Result<SourceFile, BuildError> {
    for name in names {
        let fail = |source| BuildError::ReadRecipe { path: name.clone(), source };
        let relative = name.strip_prefix("/").unwrap_or(name);
        let found = match resolve(tree, relative, Follow::All) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotADirectory => continue,
            Err(error) => return Err(fail(error)),
        };
        if !matches!(found.entry, Some(entry) if matches!(entry.kind, Kind::File { .. })) {
            continue;
        }
        let mut bytes = Vec::new();
        tree.open(&found.path).and_then(|file| file.take(RECIPE_LIMIT).read_to_end(&mut bytes)).map_err(fail)?;
        return source_file(name, name.to_string_lossy().into_owned(), bytes);
    }
    let path = names.first().cloned().unwrap_or_default();
    Err(BuildError::ReadRecipe {
        path,
        source: io::Error::new(io::ErrorKind::NotFound, "the context does not have it"),
    })
}

fn directory(path: &Path, recipe: Option<&Path>, place: &Workplace) -> Result<Opened, BuildError> {
    let ignore = context::ignore_patterns(path, recipe)?;
    let absolute = std::path::absolute(path).unwrap_or_default();
    let place_of_index = ContentId::from(blake3::hash(absolute.as_os_str().as_encoded_bytes()));
    let index = place.store.context_index_path(&place_of_index);
    Ok(Opened::Directory(Box::new(Context::open(path, ignore, Some(index))?)))
}

/// A context without files.
fn nothing(place: &Workplace) -> Result<Opened, BuildError> {
    let view = View::over(&[], place.xattr).map_err(|source| Error::Read { what: "nothing".to_owned(), source })?;
    Ok(Opened::Unpacked(view))
}

/// Whether a file's content begins as an archive does.
fn is_archive(file: File) -> bool {
    let Ok(stream) = archive_decoder(file) else { return false };
    matches!(Entries::new(&mut BufReader::new(stream)).next(), Ok(Some(_)))
}

fn bounded_text(reader: impl Read, what: &str) -> Result<String, Error> {
    let read = |source| Error::Read { what: what.to_owned(), source };
    let mut bytes = Vec::new();
    reader.take(RECIPE_LIMIT + 1).read_to_end(&mut bytes).map_err(read)?;
    if bytes.len() as u64 > RECIPE_LIMIT {
        return Err(Error::TooLarge { what: what.to_owned() });
    }
    utf8(bytes).map_err(read)
}
