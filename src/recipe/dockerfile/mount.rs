//! `RUN --mount=…`: a line of comma-separated values → a typed [`Mount`].
//!
//! Takes the flag's value, gives the mount with its paths and ids as written. Keys with a fixed set of values (`type`,
//! `mode`, `sharing`…) are understood at once where they contain no variable; otherwise the mount is kept for
//! [`read_mount`]. Which keys a type takes, and that `type` comes before those that depend on it, is as in BuildKit.

use crate::diagnostic::{Diagnostic, Span, Spanned, nearest};
use crate::recipe::variable::{self, Error};
use crate::recipe::{Mount, MountKind, Sharing, Word, list};
use crate::units;

/// Every key and its aliases.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "src",
    "target",
    "dst",
    "destination",
    "readonly",
    "ro",
    "readwrite",
    "rw",
    "required",
    "size",
    "id",
    "sharing",
    "mode",
    "uid",
    "gid",
    "env",
];

const TYPES: [&str; 5] = ["bind", "cache", "tmpfs", "secret", "ssh"];

/// Gives the meaning of a value.
type Expand<'a> = dyn Fn(&str) -> Result<String, Error> + 'a;

/// One element of the list: a key in lower case and the value after `=`.
struct Field {
    written: String,
    key: String,
    value: Option<Word>,
    span: Span,
}

/// Reads one `--mount`.
pub(super) fn parse(
    value: &Word,
    span: Span,
    escape: char,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Mount, Diagnostic> {
    let fields = fields(value)?;
    for field in fields.iter().filter(|field| field.key == "from") {
        refuse_variable(field)?;
    }
    let varies = |field: &Field| {
        let text = field.value.as_ref().map_or("", |word| word.value.as_str());
        is_typed(&field.key) && !variable::names(text, escape).is_empty()
    };
    if fields.iter().any(varies) {
        return Ok(Mount { span, kind: MountKind::Deferred(value.clone()), target: None, readonly: None });
    }
    build(&fields, span, &|text| variable::expand(text, escape, &|_| None), warnings)
}

/// Reads a mount that was [`MountKind::Deferred`], now that its variables are known. Only the keys with a fixed set of
/// values are expanded; paths and ids are as written, as in every other mount.
pub fn read_mount(
    value: &Word,
    expand: &dyn Fn(&str) -> Result<String, Error>,
) -> Result<(Mount, Vec<Diagnostic>), Diagnostic> {
    let mut warnings = Vec::new();
    let mount = build(&fields(value)?, value.span, expand, &mut warnings)?;
    Ok((mount, warnings))
}

/// The `from=` of a mount that was [`MountKind::Deferred`]: the one key that never holds a variable.
pub fn mount_source(value: &Word) -> Option<Word> {
    let from = fields(value).ok()?.into_iter().rfind(|field| field.key == "from")?.value;
    from.filter(|from| !from.value.is_empty())
}

/// Whether a key's value is one of a fixed set, or a number.
fn is_typed(key: &str) -> bool {
    matches!(
        key,
        "type" | "readonly" | "ro" | "readwrite" | "rw" | "required" | "size" | "sharing" | "mode" | "uid" | "gid"
    )
}

fn refuse_variable(field: &Field) -> Result<(), Diagnostic> {
    let value = field.value.as_ref().map_or("", |word| word.value.as_str());
    if !value.char_indices().any(|(at, character)| character == '$' && at + 1 < value.len()) {
        return Ok(());
    }
    Err(Diagnostic::error(field.span, "'from' doesn't support variable expansion")
        .help(format!("define a stage for it: FROM {value} AS name, and use from=name")))
}

/// Splits the value into its keys, each with its place.
fn fields(value: &Word) -> Result<Vec<Field>, Diagnostic> {
    let text = value.value.as_str();
    let split = list::fields(text)
        .map_err(|error| Diagnostic::error(value.span, format!("this is not a list of key=value: {error}")))?;
    // Where the text is exactly what was written, every field has a place of its own.
    let verbatim = value.span.end.saturating_sub(value.span.start) == text.len();
    let place = |from: usize, to: usize| {
        if verbatim { Span::new(value.span.start + from, value.span.start + to) } else { value.span }
    };
    let field = |list::Field { content, range, quoted }| {
        let span = place(range.start, range.end);
        let (key, setting) =
            content.split_once('=').map_or((content.as_str(), None), |(key, value)| (key, Some(value)));
        let setting = setting.map(|setting| {
            let span = if quoted { span } else { place(range.end - setting.len(), range.end) };
            Spanned::new(setting.to_owned(), span)
        });
        Field { key: key.to_lowercase(), value: setting, span, written: content.clone() }
    };
    Ok(split.into_iter().map(field).collect())
}

/// What the keys said so far.
#[derive(Default)]
struct Draft {
    kind: Kind,
    from: Option<Word>,
    source: Option<Word>,
    target: Option<Word>,
    id: Option<Word>,
    env: Option<Word>,
    readonly: Option<bool>,
    required: bool,
    size: Option<u64>,
    sharing: Option<Sharing>,
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Kind {
    #[default]
    Bind,
    Cache,
    Tmpfs,
    Secret,
    Ssh,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

fn build(
    fields: &[Field],
    span: Span,
    expand: &Expand<'_>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Mount, Diagnostic> {
    let mut draft = Draft::default();
    for field in fields {
        match &field.value {
            Some(value) => draft.set(field, value, expand)?,
            None => draft.switch(field)?,
        }
    }
    draft.check(span)?;
    draft.warn_unused(span, warnings);
    Ok(draft.finish(span))
}

impl Draft {
    /// A key without a value.
    fn switch(&mut self, field: &Field) -> Result<(), Diagnostic> {
        match field.key.as_str() {
            "readonly" | "ro" => self.readonly = Some(true),
            "readwrite" | "rw" => self.readonly = Some(false),
            "required" if matches!(self.kind, Kind::Secret | Kind::Ssh) => self.required = true,
            "required" => return Err(self.misplaced(field)),
            _ => {
                let message = format!("invalid field '{}' must be a key=value pair", field.written);
                return Err(Diagnostic::error(field.span, message));
            }
        }
        Ok(())
    }

    /// A key with a value.
    fn set(&mut self, field: &Field, value: &Word, expand: &Expand<'_>) -> Result<(), Diagnostic> {
        let key = field.key.as_str();
        let word = || Some(value.clone()).filter(|word| !word.value.is_empty());
        let invalid = |text: &str| Diagnostic::error(value.span, format!("invalid value for {key}: {text}"));
        let text = if is_typed(key) {
            expand(&value.value).map_err(|error| Diagnostic::error(value.span, error.to_string()))?
        } else {
            String::new()
        };
        let flag = || super::word::parse_bool(&text).ok_or_else(|| invalid(&text).help("write true or false"));
        match key {
            "type" => self.kind = kind(&text, value.span)?,
            "from" => self.from = word(),
            "source" | "src" => self.source = word(),
            "target" | "dst" | "destination" => self.target = word(),
            "readonly" | "ro" => self.readonly = Some(flag()?),
            "readwrite" | "rw" => self.readonly = Some(!flag()?),
            "required" if matches!(self.kind, Kind::Secret | Kind::Ssh) => self.required = flag()?,
            "size" if self.kind == Kind::Tmpfs => {
                self.size = Some(units::bytes(&text).ok_or_else(|| invalid(&text).help("write it like 512m or 1.5g"))?);
            }
            "env" if self.kind == Kind::Secret => self.env = word(),
            "required" | "size" | "env" => return Err(self.misplaced(field)),
            "id" => self.id = word(),
            "sharing" => self.sharing = Some(sharing(&text, value.span)?),
            "mode" => {
                let octal = || invalid(&text).help("write it in octal, such as 0755");
                self.mode = Some(number(&text, 8).ok_or_else(octal)?);
            }
            "uid" => self.uid = Some(number(&text, 10).ok_or_else(|| invalid(&text))?),
            "gid" => self.gid = Some(number(&text, 10).ok_or_else(|| invalid(&text))?),
            _ => {
                let message = format!("unexpected key '{key}' in '{}'", field.written);
                let diagnostic = Diagnostic::error(field.span, message);
                return Err(match nearest(key, KEYS) {
                    Some(known) if known != key => diagnostic.help(format!("did you mean {known}?")),
                    _ => diagnostic,
                });
            }
        }
        Ok(())
    }

    fn misplaced(&self, field: &Field) -> Diagnostic {
        let message = format!("unexpected key '{}' for mount type '{}'", field.key, self.kind.name());
        Diagnostic::error(field.span, message).help("if the mount has a type that takes it, put type=… first")
    }

    /// Refuses what does not go together.
    fn check(&self, span: Span) -> Result<(), Diagnostic> {
        let refuse = |message: String| Err(Diagnostic::error(span, message));
        let kind = self.kind.name();
        if matches!(self.kind, Kind::Bind | Kind::Tmpfs) {
            for (key, given) in [("mode", self.mode), ("uid", self.uid), ("gid", self.gid)] {
                if given.is_some() {
                    return refuse(format!("{key} not allowed for \"{kind}\" type mounts"));
                }
            }
        }
        if self.sharing.is_some() && self.kind != Kind::Cache {
            return refuse(format!("invalid cache sharing set for {kind} mount"));
        }
        if self.kind == Kind::Secret {
            if self.from.is_some() {
                return refuse("secret mount should not have a from".to_owned());
            }
            if self.source.is_none() && self.target.is_none() && self.id.is_none() {
                return refuse("invalid secret mount: one of id, source, target required".to_owned());
            }
            if self.source.is_some() && self.id.is_some() {
                return refuse("both source and id can't be set".to_owned());
            }
        }
        if self.kind == Kind::Ssh && self.source.is_some() {
            return refuse("ssh mount does not support source".to_owned());
        }
        Ok(())
    }

    /// Warns of keys that BuildKit accepts for every type and forgets for this one.
    fn warn_unused(&self, span: Span, warnings: &mut Vec<Diagnostic>) {
        let unused: &[(&str, bool)] = match self.kind {
            Kind::Bind => &[("id", self.id.is_some())],
            Kind::Cache | Kind::Secret => &[],
            Kind::Tmpfs => {
                &[("id", self.id.is_some()), ("from", self.from.is_some()), ("source", self.source.is_some())]
            }
            Kind::Ssh => &[("from", self.from.is_some())],
        };
        for (key, _) in unused.iter().filter(|(_, given)| *given) {
            let message = format!("{key}= has no effect on a mount of type {}", self.kind.name());
            warnings.push(Diagnostic::warning("MountKeyWithoutEffect", span, message));
        }
    }

    fn finish(self, span: Span) -> Mount {
        let Self { from, source, target, id, env, readonly, required, size, sharing, mode, uid, gid, .. } = self;
        let kind = match self.kind {
            Kind::Bind => MountKind::Bind { from, source },
            Kind::Cache => {
                let sharing = sharing.unwrap_or(Sharing::Shared);
                MountKind::Cache { id, sharing, from, source, mode, uid, gid }
            }
            Kind::Tmpfs => MountKind::Tmpfs { size },
            Kind::Secret => MountKind::Secret { id: id.or(source), env, required, mode, uid, gid },
            Kind::Ssh => MountKind::Ssh { id, required, mode, uid, gid },
        };
        Mount { span, kind, target, readonly }
    }
}

fn kind(text: &str, span: Span) -> Result<Kind, Diagnostic> {
    match text.to_lowercase().as_str() {
        "bind" => Ok(Kind::Bind),
        "cache" => Ok(Kind::Cache),
        "tmpfs" => Ok(Kind::Tmpfs),
        "secret" => Ok(Kind::Secret),
        "ssh" => Ok(Kind::Ssh),
        _ => Err(suggest(Diagnostic::error(span, format!("unsupported mount type \"{text}\"")), text, &TYPES)),
    }
}

fn sharing(text: &str, span: Span) -> Result<Sharing, Diagnostic> {
    match text.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let diagnostic = Diagnostic::error(span, format!("unsupported sharing value \"{text}\""));
            Err(suggest(diagnostic, text, &["shared", "private", "locked"]))
        }
    }
}

/// Adds the nearest of these values as advice, or all of them.
pub(super) fn suggest(diagnostic: Diagnostic, text: &str, known: &[&str]) -> Diagnostic {
    match nearest(text, known.iter().copied()) {
        Some(known) => diagnostic.help(format!("did you mean {known}?")),
        None => diagnostic.help(format!("expected one of {}", known.join(", "))),
    }
}

fn number(text: &str, radix: u32) -> Option<u32> {
    // `from_str_radix` would also take a sign.
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| u32::from_str_radix(text, radix).ok()).flatten()
}

#[cfg(test)]
mod tests;
