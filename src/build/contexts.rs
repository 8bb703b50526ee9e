//! Where the recipe and the files of a build come from: directories, standard input, and what is fetched.
//!
//! Takes what the command line named, gives the recipe's text and open contexts. What is not a directory is brought into
//! the store, where it is kept as a layer; what no layer can hold goes when the build does. Never runs anything of a context.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::build::{Error as BuildError, Request, Workplace};
use crate::context::opened::Opened;
use crate::context::{self, Context};
use crate::diagnostic::{Diagnostic, SourceFile, Span};
use crate::digest::{ContentId, Digest};
use crate::fetch::{self, HttpFile, Kept};
use crate::graph::epoch::TimeSource;
use crate::graph::{ContextName, Graph, HttpSource, Op};
use crate::layer::compress::archive_decoder;
use crate::layer::entries::{Entries, EntryKind};
use crate::layer::tree::{Kind, Tree};
use crate::layer::unpack;
use crate::layer::view::{Follow, View, resolve};
use crate::recipe::dockerfile;
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
    /// Files that were brought here, and the time that belongs to them as a whole.
    Opened(Opened, Option<i64>),
    /// A recipe.
    Recipe {
        /// The recipe.
        source: SourceFile,
        /// The files that come with it: itself, or nothing.
        files: Option<Opened>,
        /// When it was last changed.
        time: Option<i64>,
    },
}

impl Located {
    /// The time that belongs to a context as a whole, in seconds since 1970: that of the commit; that of an address's file
    /// as its host has it, else of the youngest file in the archive.
    fn time(&self) -> Option<i64> {
        match self {
            Self::Directory(_) => None,
            Self::Opened(_, time) | Self::Recipe { time, .. } => *time,
        }
    }
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
        let located = self.locate(&request.context, request, place)?;
        if matches!(located, Located::Recipe { .. }) && request.recipe != RecipeSource::Default {
            let twice = "the context is a recipe itself, and --file names another";
            return Err(Error::Ambiguous(twice).into());
        }
        Ok(located)
    }

    fn locate(&mut self, source: &ContextSource, request: &Request, place: &Workplace) -> Result<Located, BuildError> {
        match source {
            ContextSource::Directory(path) => Ok(Located::Directory(path.clone())),
            ContextSource::Stdin => {
                let what = "standard input";
                let scratch = place.store.scratch()?;
                let path = scratch.path().join("stdin");
                let content =
                    spool(io::stdin().lock(), &path).map_err(|source| Error::Read { what: what.to_owned(), source })?;
                if is_archive(&path, what)? {
                    return self.archive(&path, what, &content.to_string(), None, request, place);
                }
                Ok(Located::Recipe { source: recipe_file(&path, what)?, files: None, time: None })
            }
            ContextSource::Http(address) => {
                let (file, path) = download(address, None, request, place)?;
                let what = shown(address);
                if is_archive(&path, what)? {
                    return self.archive(&path, what, &file.digest.to_string(), file.modified, request, place);
                }
                let source = recipe_file(&path, what)?;
                let files = Some(self.alone(&path, &file, place)?);
                Ok(Located::Recipe { source, files, time: file.modified })
            }
            ContextSource::Git(address) => {
                let kept = checkout(address, request, place)?;
                let time = kept.time;
                Ok(self.fixed(kept, time))
            }
        }
    }

    /// Unpacks an archive, or finds it unpacked: `content` is a digest of it. Without a `time` of its own it is as old as its
    /// youngest file.
    fn archive(
        &mut self,
        path: &Path,
        what: &str,
        content: &str,
        time: Option<i64>,
        request: &Request,
        place: &Workplace,
    ) -> Result<Located, BuildError> {
        let fetcher = place.fetcher(&request.secrets);
        let squashed = if place.owners == unpack::Owners::Squashed { " squashed" } else { "" };
        let name = format!("archive {content}{squashed}");
        if let Some(kept) = fetcher.kept(&name).map_err(Error::Fetch)? {
            let time = time.or(kept.time);
            return Ok(self.fixed(kept, time));
        }
        let scratch = place.store.scratch()?;
        let tree = scratch.dir("tree")?;
        let stream = File::open(path)
            .and_then(archive_decoder)
            .map_err(|source| Error::Read { what: what.to_owned(), source })?;
        unpack::unpack_files(stream, &tree, place.xattr, place.owners)
            .map_err(|source| Error::Unpack { what: what.to_owned(), source })?;
        let youngest = youngest(path);
        let kept = fetcher.keep(&name, &tree, youngest, scratch).map_err(Error::Fetch)?;
        Ok(self.fixed(kept, time.or(youngest)))
    }

    fn fixed(&mut self, kept: Kept, time: Option<i64>) -> Located {
        let Kept { view, layer, scratch, .. } = kept;
        self.scratches.extend(scratch);
        Located::Opened(Opened::Fixed { view, layer }, time)
    }

    /// A recipe that came from an address, as the only file of its context. BuildKit calls it `context`.
    fn alone(&mut self, path: &Path, file: &HttpFile, place: &Workplace) -> Result<Opened, BuildError> {
        let write = |source| Error::Read { what: "the recipe".to_owned(), source };
        let scratch = place.store.scratch()?;
        let tree = scratch.dir("tree")?;
        let copy = tree.join("context");
        std::fs::copy(path, &copy).map_err(write)?;
        let alone = File::options().write(true).open(&copy).map_err(write)?;
        alone.set_permissions(Permissions::from_mode(0o600)).map_err(write)?;
        let seconds = u64::try_from(file.modified.unwrap_or(0)).unwrap_or(0);
        alone.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)).map_err(write)?;
        let view = View::over(&[tree], place.xattr).map_err(write)?;
        self.scratches.push(scratch);
        Ok(Opened::Fixed { view, layer: None })
    }

    /// The time that belongs to what a recipe's `SOURCE_DATE_EPOCH` names; `None` where it has none, as a directory of this
    /// machine.
    pub(super) fn time_of(
        &mut self,
        source: &TimeSource,
        main: &Located,
        request: &Request,
        place: &Workplace,
    ) -> Result<Option<i64>, BuildError> {
        Ok(match source {
            TimeSource::Nothing => None,
            TimeSource::Context(ContextName::Main) => main.time(),
            TimeSource::Context(ContextName::Named(name)) => match request.contexts.get(name) {
                Some(source) => self.locate(source, request, place)?.time(),
                None => None,
            },
            TimeSource::Git(address) => checkout(address, request, place)?.time,
            TimeSource::Http(HttpSource { address, checksum }) => {
                let (file, path) = download(address, checksum.as_ref(), request, place)?;
                // What has a known checksum is a known archive, whatever its host says of it.
                file.modified.filter(|_| checksum.is_none()).or_else(|| youngest(&path))
            }
        })
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
                    Some(source) => (Some(self.locate(source, request, place)?), None),
                    None => (None, None),
                },
            };
            let opened = match located {
                Some(Located::Directory(path)) => directory(&path, recipe.as_deref(), place)?,
                Some(Located::Opened(opened, _) | Located::Recipe { files: Some(opened), .. }) => opened,
                Some(Located::Recipe { files: None, .. }) | None => nothing(place)?,
            };
            contexts.insert(name.clone(), opened);
        }
        Ok(contexts)
    }
}

impl Request {
    /// Where the recipe is, if it is a file of this machine: beside a context that is fetched, one that is named from
    /// the root on, as in buildx.
    fn recipe_path(&self) -> Option<PathBuf> {
        let directory = match (&self.context, &self.recipe) {
            (ContextSource::Directory(directory), _) => directory,
            (ContextSource::Http(_) | ContextSource::Git(_), RecipeSource::File(path)) if path.is_absolute() => {
                return Some(path.clone());
            }
            _ => return None,
        };
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
                let (_, path) = download(address, None, self, place)?;
                return Ok(recipe_file(&path, shown(address))?);
            }
            RecipeSource::Default | RecipeSource::File(_) => {}
        }
        if let Located::Recipe { source, .. } = main {
            return Ok(source.clone());
        }
        if let Some(path) = self.recipe_path() {
            let bytes = std::fs::read(&path).map_err(|source| BuildError::ReadRecipe { path: path.clone(), source })?;
            let name = match self.recipe {
                RecipeSource::File(_) => path.to_string_lossy().into_owned(),
                _ => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            };
            return source_file(&path, name, bytes);
        }
        let names: Vec<PathBuf> = match &self.recipe {
            RecipeSource::File(path) => vec![path.clone()],
            _ => DEFAULT_NAMES.iter().map(PathBuf::from).collect(),
        };
        match main {
            Located::Opened(opened, _) => recipe_in(opened.tree(), &names),
            Located::Directory(_) | Located::Recipe { .. } => recipe_in(nothing(place)?.tree(), &names),
        }
    }
}

/// The file at an address, and where it is in the store.
fn download(
    address: &str,
    checksum: Option<&Digest>,
    request: &Request,
    place: &Workplace,
) -> Result<(HttpFile, PathBuf), Error> {
    let task = place.reporter.start(&format!("fetch {}", shown(address)));
    let fetched = place.fetcher(&request.secrets).http(address, checksum, &task);
    task.finish(fetched.as_ref().err().map(ToString::to_string));
    let file = fetched?;
    let path = place.store.blob_path(&file.digest);
    let path = path.ok_or_else(|| fetch::Error::from(crate::store::Error::NoBlob { digest: file.digest }))?;
    Ok((file, path))
}

/// The files of the commit that the address of a repository stands for.
fn checkout(address: &GitAddress, request: &Request, place: &Workplace) -> Result<Kept, Error> {
    let task = place.reporter.start(&format!("fetch {}", without_credentials(&address.remote)));
    let fetcher = place.fetcher(&request.secrets);
    let fetched = fetcher.commit(address).and_then(|commit| fetcher.checkout(&commit));
    task.finish(fetched.as_ref().err().map(ToString::to_string));
    Ok(fetched?)
}

/// Writes a stream to a file, and gives a digest of it.
fn spool(mut stream: impl Read, path: &Path) -> io::Result<ContentId> {
    let mut file = File::create(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                file.write_all(&buffer[..length])?;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(hasher.finalize().into())
}

/// The time of the youngest file in an archive; `None` for what is no archive, or a damaged one.
fn youngest(path: &Path) -> Option<i64> {
    let stream = File::open(path).and_then(archive_decoder).ok()?;
    let mut stream = BufReader::new(stream);
    let mut entries = Entries::new(&mut stream);
    let mut latest = None;
    while let Some(entry) = entries.next().ok()? {
        if matches!(entry.kind, EntryKind::File) {
            latest = latest.max(Some(entry.mtime.0));
        }
    }
    latest
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

/// The bytes as text. In comments any bytes do; elsewhere, the error says in which line they are no text.
fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).or_else(|error| {
        let mut text = String::new();
        let mut replaced = Vec::new();
        for chunk in error.as_bytes().utf8_chunks() {
            text.push_str(chunk.valid());
            if !chunk.invalid().is_empty() {
                replaced.push(text.len());
                text.push(char::REPLACEMENT_CHARACTER);
            }
        }
        let outside = outside_of_comments(&text);
        match replaced.into_iter().find(|place| outside.iter().any(|span| (span.start..span.end).contains(place))) {
            None => Ok(text),
            Some(place) => {
                let line = text[..place].split('\n').count();
                Err(io::Error::new(io::ErrorKind::InvalidData, format!("line {line} is not UTF-8 text")))
            }
        }
    })
}

/// Where a recipe says something: its instructions, and all of it if it has mistakes.
fn outside_of_comments(text: &str) -> Vec<Span> {
    let (recipe, problems) = dockerfile::parse(&SourceFile { name: "".into(), text: text.into() });
    if problems.iter().any(Diagnostic::is_error) {
        return vec![Span::new(0, text.len())];
    }
    let steps = recipe.global_args.iter().chain(recipe.stages.iter().flat_map(|stage| &stage.steps));
    recipe.stages.iter().map(|stage| stage.span).chain(steps.map(|step| step.span)).collect()
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
    Ok(Opened::Fixed { view, layer: None })
}

/// Whether a file's content begins as an archive does.
fn is_archive(path: &Path, what: &str) -> Result<bool, Error> {
    let file = File::open(path).map_err(|source| Error::Read { what: what.to_owned(), source })?;
    let Ok(stream) = archive_decoder(file) else { return Ok(false) };
    Ok(matches!(Entries::new(&mut BufReader::new(stream)).next(), Ok(Some(_))))
}

/// A recipe from elsewhere, called `what`, in the file that it was brought into.
fn recipe_file(path: &Path, what: &str) -> Result<SourceFile, Error> {
    let file = File::open(path).map_err(|source| Error::Read { what: what.to_owned(), source })?;
    Ok(SourceFile { name: what.to_owned().into(), text: bounded_text(file, what)?.into() })
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
