//! `COPY` and `ADD`: words become paths that stay inside their roots.
//!
//! Takes the instruction as parsed, gives a [`CopyOp`]. Paths are cleaned by their text alone; patterns are left for the
//! engine to match. Sources written in the recipe come after those that are paths, as in BuildKit.

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::instruction::StageInProgress;
use crate::graph::run::inline_file;
use crate::graph::stage::Source;
use crate::graph::{ContextName, CopyOp, CopySource, HttpSource, NodeId, Op, Origin, chmod, path};
use crate::recipe::remote::{self, Remote};
use crate::recipe::{Add, Copy, Files, Heredoc, Step, Word};

/// A copy with every word expanded.
struct Expanded {
    /// Paths as the recipe's author meant them, with where they stand.
    paths: Vec<(String, Word)>,
    inline: Vec<CopySource>,
    /// The names of the inline files.
    inline_names: Vec<String>,
    destination: String,
    chown: Option<String>,
    chmod: Option<String>,
    exclude: Vec<String>,
}

impl StageInProgress<'_> {
    pub(super) fn copy(&mut self, step: &Step, copy: &Copy, trigger: bool) -> Option<()> {
        let source = match self.stages.source(copy.from.as_ref()) {
            Ok(source) => source,
            Err(finding) => {
                self.findings.push(finding);
                return None;
            }
        };
        let expanded = self.expand_files(&copy.files)?;
        for (path, word) in &expanded.paths {
            if !matches!(remote::parse(path), Ok(None)) {
                self.findings.push(
                    Diagnostic::error(word.span, format!("`COPY` copies files, and `{path}` has to be fetched"))
                        .help("`ADD` is the instruction for URLs and git repositories"),
                );
                return None;
            }
        }
        let sources: Vec<CopySource> =
            expanded.paths.iter().map(|(path, _)| CopySource::Path(source_path(path, copy.parents))).collect();
        let from = self.source_node(&source, &sources, copy.from.as_ref())?;
        let flavour = Flavour { name: "COPY", unpack: false, parents: copy.parents };
        self.files(step, &copy.files, expanded, (from, sources), flavour, trigger)
    }

    pub(super) fn add(&mut self, step: &Step, add: &Add, trigger: bool) -> Option<()> {
        let expanded = self.expand_files(&add.files)?;
        let checksum = self.expand_flag(add.checksum.as_ref())?;
        let checksum = checksum.as_deref().zip(add.checksum.as_ref());
        if let Some((_, word)) = checksum
            && expanded.paths.len() + expanded.inline.len() > 1
        {
            self.findings.push(Diagnostic::error(word.span, "`--checksum` can be given for a single source only"));
            return None;
        }
        let mut sources = Vec::with_capacity(expanded.paths.len());
        for (text, word) in &expanded.paths {
            let source = self.added(text, word.span, add, checksum);
            sources.push(source.map_err(|message| self.findings.push(Diagnostic::error(word.span, message))).ok()?);
        }
        let from = self.source_node(&Source::Context, &sources, None)?;
        let flavour = Flavour { name: "ADD", unpack: add.unpack.unwrap_or(true), parents: false };
        self.files(step, &add.files, expanded, (from, sources), flavour, trigger)
    }

    /// One source of `ADD`, with the node that fetches it if it is no path; or what is wrong with it.
    fn added(
        &mut self,
        text: &str,
        span: Span,
        add: &Add,
        checksum: Option<(&str, &Word)>,
    ) -> Result<CopySource, String> {
        let (op, path, unpack) = match remote::parse(text).map_err(|error| error.to_string())? {
            None if checksum.is_some() => {
                return Err(format!("`--checksum` is for what is fetched, and `{text}` is a path"));
            }
            None => return Ok(CopySource::Path(path::source(text))),
            Some(Remote::Http(address)) => {
                let wrong = |_| "`--checksum` of a URL has to be sha256: and 64 hexadecimal digits".to_owned();
                let checksum = checksum.map(|(text, _)| text.parse().map_err(wrong)).transpose()?;
                let name = remote::file_name(&address);
                (Op::Http(HttpSource { address, checksum }), name, add.unpack.unwrap_or(false))
            }
            Some(Remote::Git(mut address)) => {
                address.keep_git_dir = add.keep_git_dir.unwrap_or(address.keep_git_dir);
                if let Some((text, _)) = checksum {
                    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                        return Err("`--checksum` of a repository has to be the beginning of a commit's id".to_owned());
                    }
                    if address.checksum.as_ref().is_some_and(|other| other != text) {
                        return Err("`--checksum` and the address give different commits".to_owned());
                    }
                    address.checksum = Some(text.to_ascii_lowercase());
                }
                (Op::Git(address), ".".to_owned(), false)
            }
        };
        // Without the query, which may be a signature.
        let shown = format!("fetch {}", text.split('?').next().unwrap_or(text));
        let from = self.nodes.intern(op, || Origin { text: shown, span, ..Origin::default() });
        Ok(CopySource::Fetched { from, path, unpack })
    }

    fn expand_files(&mut self, files: &Files) -> Option<Expanded> {
        let chown = self.expand_flag(files.chown.as_ref())?;
        let chmod = self.expand_flag(files.chmod.as_ref())?;
        // Variables are not replaced in these.
        let exclude = files.exclude.iter().map(|word| word.value.clone()).collect();
        let mut heredocs = files.heredocs.iter().peekable();
        let mut paths = Vec::new();
        let mut documents = Vec::new();
        for word in &files.sources {
            let name = word.value.strip_prefix("<<");
            match heredocs.next_if(|document| name == Some(document.name.as_str())) {
                Some(document) => documents.push(document),
                None => paths.push((self.expand(word)?, word.clone())),
            }
        }
        let destination = self.expand(&files.destination)?;
        let inline = documents.iter().map(|document| self.document(document)).collect::<Option<_>>()?;
        let inline_names = documents.iter().map(|document| document.name.clone()).collect();
        if let (Some(mode), Some(word)) = (chmod.as_deref().filter(|mode| !chmod::is_mode(mode)), &files.chmod) {
            let message = format!("`--chmod={mode}` is neither an octal mode up to 7777 nor one such as `u=rwX,go=rX`");
            self.findings.push(Diagnostic::error(word.span, message));
            return None;
        }
        Some(Expanded { paths, inline, inline_names, destination, chown, chmod, exclude })
    }

    /// The outer `None` is an error, the inner one a flag that is absent or empty once expanded.
    fn expand_flag(&mut self, word: Option<&Word>) -> Option<Option<String>> {
        let Some(word) = word else { return Some(None) };
        Some(Some(self.expand(word)?).filter(|value| !value.is_empty()))
    }

    fn document(&mut self, document: &Heredoc) -> Option<CopySource> {
        let content = if document.expand {
            self.scoped(|scope, findings| scope.document(&document.body, findings))?
        } else {
            document.body.value.clone()
        };
        inline_file(document, content, self.findings).map(CopySource::Inline)
    }

    /// The node the paths are in. A copy of nothing but inline and fetched files needs none.
    fn source_node(&mut self, source: &Source, sources: &[CopySource], from: Option<&Word>) -> Option<NodeId> {
        let has_paths = sources.iter().any(|source| matches!(source, CopySource::Path(_)));
        self.files_node(if has_paths { source } else { &Source::Scratch }, from)
    }

    /// The node that a `--from` or `from=` means.
    pub(super) fn files_node(&mut self, source: &Source, from: Option<&Word>) -> Option<NodeId> {
        let shared = |text: String| {
            let span = from.map(|word| word.span).unwrap_or_default();
            move || Origin { text, span, ..Origin::default() }
        };
        match source {
            Source::Context => {
                let op = Op::Context(ContextName::Main);
                Some(self.nodes.intern(op, || Origin { text: "build context".to_owned(), ..Origin::default() }))
            }
            Source::Scratch => Some(self.nodes.intern(Op::Scratch, shared("FROM scratch".to_owned()))),
            Source::Image(image) => {
                let text = format!("FROM {}", image.reference);
                Some(self.nodes.intern(Op::Image(*image.clone()), shared(text)))
            }
            Source::Files(name) => {
                let op = Op::Context(ContextName::Named(name.clone()));
                Some(self.nodes.intern(op, || Origin { text: "build context".to_owned(), ..Origin::default() }))
            }
            // A stage that is not done yet was reported when the stages were followed.
            Source::Stage(number) => self.results.get(*number).copied().flatten(),
        }
    }

    fn files(
        &mut self,
        step: &Step,
        files: &Files,
        expanded: Expanded,
        (from, mut sources): (NodeId, Vec<CopySource>),
        flavour: Flavour,
        trigger: bool,
    ) -> Option<()> {
        // BuildKit links only where no mode is asked for.
        let link = files.link && expanded.chmod.is_none();
        if let (true, Some(word), Some(name)) =
            (link, &files.chown, expanded.chown.as_deref().and_then(super::owner::name))
        {
            let message = format!("`--link` copies without a look at the image, so nobody knows who `{name}` is there");
            let help = "give `--chown` numbers, or leave out `--link`";
            self.findings.push(Diagnostic::error(word.span, message).help(help));
            return None;
        }
        let destination = path::destination(&self.state.config.config.working_dir, &expanded.destination);
        let created_by = created_by(&expanded, flavour);
        sources.extend(expanded.inline);
        let op = CopyOp {
            parent: self.state.node,
            from,
            sources,
            destination,
            chown: expanded.chown,
            link,
            chmod: expanded.chmod,
            parents: flavour.parents,
            exclude: expanded.exclude,
            unpack: flavour.unpack,
            epoch: self.globals.epoch,
        };
        self.commit_layer(Op::Copy(op), created_by, step, trigger)
    }
}

/// What tells the two instructions apart.
#[derive(Debug, Clone, Copy)]
struct Flavour {
    name: &'static str,
    unpack: bool,
    parents: bool,
}

fn source_path(written: &str, parents: bool) -> String {
    if parents { path::source_with_pivot(written) } else { path::source(written) }
}

fn created_by(expanded: &Expanded, flavour: Flavour) -> String {
    let mut words = vec![flavour.name.to_owned()];
    if flavour.parents {
        words.push("--parents".to_owned());
    }
    words.extend(expanded.chown.iter().map(|chown| format!("--chown={chown}")));
    words.extend(expanded.chmod.iter().map(|chmod| format!("--chmod={chmod}")));
    words.extend(expanded.paths.iter().map(|(path, _)| path.clone()));
    words.extend(expanded.inline_names.iter().map(|name| format!("<<{name}")));
    words.push(expanded.destination.clone());
    words.push("# buildkit".to_owned());
    words.join(" ")
}
