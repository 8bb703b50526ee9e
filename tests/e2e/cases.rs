//! Runs the Dockerfile cases: `tests/cases/GROUP/NAME/`, each a build context with a `case.json`.
//!
//! A group is a rule and a test; its cases run one after the other and every failing one is named. Expectations come from
//! the Dockerfile reference and from BuildKit's behaviour, never from running Strata. The base images are those of
//! `scripts/base_image.py`; a Dockerfile takes them with `ARG BASE`, `ARG RICH` and `ARG ONBUILD`, to which the runner
//! gives their names.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use crate::layout::{self, Entry, Image};
use crate::registry;
use crate::workspace::{Finished, Who, Workspace};

/// `case.json`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// The rule, in one sentence, and where it is written down if that is not the Dockerfile reference.
    #[allow(dead_code, reason = "for readers of the case")]
    about: String,
    /// Why the case stands although the BuildKit that `scripts/agree` asks does otherwise.
    #[serde(default)]
    #[allow(dead_code, reason = "for readers of the case, and for `scripts/agree`")]
    oracle: Option<String>,
    /// What else the user who builds must be able to do.
    #[serde(default)]
    needs: Needs,
    /// Files of the context that version control cannot hold.
    #[serde(default)]
    files: BTreeMap<String, ContextFile>,
    /// Further arguments of `strata build`.
    #[serde(default)]
    args: Vec<String>,
    /// The exit code: 0 done, 1 a step failed, 2 the recipe is wrong, 3 the environment cannot do it. A list where
    /// that depends on the machine, such as on what a public registry answers.
    #[serde(default)]
    exit: Exit,
    /// Texts that standard error must hold.
    #[serde(default)]
    stderr: Vec<String>,
    /// Texts that standard error must not hold.
    #[serde(default)]
    stderr_not: Vec<String>,
    /// Fields of the image's `config` object. `null` means absent, null, empty or false.
    #[serde(default)]
    config: BTreeMap<String, Value>,
    /// Fields of the configuration document itself, such as `author`.
    #[serde(default)]
    document: BTreeMap<String, Value>,
    /// Every history entry after the base's: the `created_by` text; those without a layer start with `- `.
    /// `*` at the end leaves the rest of the text open.
    history: Option<Vec<String>>,
    /// What must be at a path of the flattened tree; `null` means nothing.
    #[serde(default)]
    tree: BTreeMap<String, Option<Expected>>,
    /// Whether the tree holds nothing but what `tree` says (for images from scratch).
    #[serde(default)]
    only: bool,
    /// The paths of the last layer, in any order.
    last_layer: Option<Vec<String>>,
}

/// One exit code, or any of several.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Exit {
    One(i32),
    AnyOf(Vec<i32>),
}

impl Default for Exit {
    fn default() -> Self {
        Self::One(0)
    }
}

impl Exit {
    fn allows(&self, code: i32) -> bool {
        match self {
            Self::One(one) => *one == code,
            Self::AnyOf(several) => several.contains(&code),
        }
    }
}

/// What the user who builds must be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Needs {
    /// Nothing that a single id of one's own does not give.
    #[default]
    Nothing,
    /// More ids than one.
    Ids,
    /// To be root.
    Root,
}

/// A file that the runner makes in the context.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ContextFile {
    /// Octal permission bits; 0644 for files, 0755 for directories.
    mode: Option<String>,
    /// The content of a file.
    content: Option<String>,
    /// Where a symbolic link points.
    link: Option<String>,
    /// The file of the context that this is a hard link to.
    hardlink: Option<String>,
    /// Entries of an archive, by path; that of a directory ends in `/`.
    tar: Option<BTreeMap<String, ArchiveEntry>>,
    /// How the archive is compressed: none, gzip, bzip2, xz or zstd.
    compression: Option<String>,
    /// How many bytes of the archive are kept.
    cut: Option<usize>,
    /// An empty directory.
    #[serde(default)]
    dir: bool,
    /// A named pipe.
    #[serde(default)]
    fifo: bool,
    /// Extended attributes of the `user` namespace.
    #[serde(default)]
    xattrs: BTreeMap<String, String>,
    /// Seconds since 1970.
    mtime: Option<i64>,
}

/// An entry of an archive: the content of a file, or more about it.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum ArchiveEntry {
    Content(String),
    Detailed(ArchiveMember),
}

/// An entry of an archive that is not a plain file.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ArchiveMember {
    /// The content of a file.
    content: String,
    /// Where a symbolic link points.
    link: Option<String>,
    /// The entry that this is a hard link to.
    hardlink: Option<String>,
    /// Octal permission bits; 0640 for files, 0750 for directories.
    mode: Option<String>,
    /// Owner; 7 where it is not said.
    uid: Option<u64>,
    /// Group; 8 where it is not said.
    gid: Option<u64>,
}

/// What must be at a path. Absent fields are not looked at.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    r#type: Option<String>,
    mode: Option<String>,
    uid: Option<u64>,
    gid: Option<u64>,
    content: Option<String>,
    link: Option<String>,
    mtime: Option<u64>,
    xattrs: Option<BTreeMap<String, String>>,
    /// The path of another name of the same file.
    same_as: Option<String>,
}

macro_rules! groups {
    ($($name:ident),* $(,)?) => {
        const GROUPS: &[&str] = &[$(stringify!($name)),*];
        $(
            #[test]
            fn $name() {
                run_group(stringify!($name), &Who::Caller);
            }
        )*
    };
}

groups! {
    add, arg, cmd, config, copy, copy_destination, copy_exclude, copy_from, copy_link, copy_ownership, copy_parents,
    copy_source, dockerignore, entrypoint, env, errors, from, heredoc, history, mount, onbuild, run, shell, syntax, user,
    workdir,
}

#[test]
fn every_directory_of_cases_is_a_group_with_a_test() {
    let mut found: Vec<String> = directories(&root()).into_iter().collect();
    found.sort();
    assert_eq!(found, GROUPS);
}

/// The cases of every group, for another user; gives how many ran.
pub(crate) fn run_all_as(who: &Who) -> usize {
    GROUPS.iter().map(|group| run_group(group, who)).sum()
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cases")
}

fn directories(path: &Path) -> Vec<String> {
    let entries = fs::read_dir(path).unwrap().map(Result::unwrap).filter(|entry| entry.path().is_dir());
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn run_group(group: &str, who: &Who) -> usize {
    let mut failures = Vec::new();
    let mut ran = 0;
    for name in directories(&root().join(group)) {
        let directory = root().join(group).join(&name);
        let text = fs::read_to_string(directory.join("case.json")).unwrap();
        let case: Case =
            serde_json::from_str(&text).unwrap_or_else(|error| panic!("{group}/{name}/case.json: {error}"));
        if !can(who, case.needs) {
            continue;
        }
        ran += 1;
        let outcome = std::panic::catch_unwind(|| run_case(&directory, &case, who));
        let problems = outcome.unwrap_or_else(|cause| vec![panic_text(cause.as_ref())]);
        if !problems.is_empty() {
            failures.push(format!("{group}/{name}: {}\n    {}", case.about, problems.join("\n    ")));
        }
    }
    assert!(failures.is_empty(), "{} of {ran} cases failed\n{}", failures.len(), failures.join("\n"));
    ran
}

fn panic_text(cause: &(dyn std::any::Any + Send)) -> String {
    let text = cause.downcast_ref::<String>().cloned();
    text.or_else(|| cause.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Whether a user can do what a case needs; what each user is for is said in [`crate::rootless`].
fn can(who: &Who, needs: Needs) -> bool {
    match who {
        Who::Caller => crate::skip::is_root() || needs == Needs::Nothing,
        Who::User { name, .. } if name == crate::rootless::SINGLE => needs == Needs::Nothing,
        Who::User { .. } => needs != Needs::Root,
    }
}

fn run_case(directory: &Path, case: &Case, who: &Who) -> Vec<String> {
    let workspace = Workspace::of(who.clone());
    copy_context(directory, &workspace.context());
    // A file may be a hard link to one that comes later in the order of paths.
    let (links, others): (Vec<_>, Vec<_>) = case.files.iter().partition(|(_, file)| file.hardlink.is_some());
    for (path, file) in others.into_iter().chain(links) {
        make_file(&workspace.context(), path, file);
    }
    workspace.give_context_away();
    // A change of owner takes set-id bits away.
    for (path, file) in case.files.iter().filter(|(_, file)| file.mode.is_some()) {
        make_mode(&workspace.context().join(path), file);
    }
    let registry = registry::shared();
    let recipe = fs::read_to_string(directory.join("Dockerfile")).unwrap_or_default();
    let mut arguments = vec![workspace.layout_output("image")];
    for (argument, image) in registry::IMAGES {
        if recipe.contains(&format!("ARG {argument}")) {
            arguments.push(format!("--build-arg={argument}={}", registry.image(image)));
        }
    }
    arguments.extend(case.args.iter().cloned());
    let finished = workspace.build(&arguments).run();
    workspace.assert_nothing_left();

    let mut problems = check_messages(case, &finished);
    let out = workspace.out("image");
    if !case.exit.allows(0) {
        if out.exists() {
            problems.push("the build failed and left an image".to_owned());
        }
    } else if problems.is_empty() {
        let image = layout::read(&out);
        let bases = registry::IMAGES.map(|(_, name)| layout::read(&registry.layout(name)));
        check_image(case, &image, &bases, &mut problems);
    }
    if !problems.is_empty() {
        problems.push(finished.describe());
    }
    problems
}

fn copy_context(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().unwrap();
        if kind.is_symlink() {
            symlink(fs::read_link(&source).unwrap(), &target).unwrap();
        } else if kind.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_context(&source, &target);
            fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).unwrap();
        } else if entry.file_name() != "case.json" {
            fs::copy(&source, &target).unwrap();
            // Version control keeps the execute bit only; the rest comes from the umask of whoever checked out.
            let executable = fs::metadata(&source).unwrap().permissions().mode() & 0o100 != 0;
            let mode = if executable { 0o755 } else { 0o644 };
            fs::set_permissions(&target, fs::Permissions::from_mode(mode)).unwrap();
        }
    }
}

fn make_mode(target: &Path, file: &ContextFile) {
    let default_mode = if file.dir { 0o755 } else { 0o644 };
    let mode = file.mode.as_deref().map_or(default_mode, octal);
    fs::set_permissions(target, fs::Permissions::from_mode(mode)).unwrap();
}

fn make_file(context: &Path, path: &str, file: &ContextFile) {
    let target = context.join(path);
    fs::create_dir_all(target.parent().unwrap()).unwrap();
    if let Some(link) = &file.link {
        symlink(link, &target).unwrap();
        return;
    }
    if let Some(hardlink) = &file.hardlink {
        fs::hard_link(context.join(hardlink), &target).unwrap();
        return;
    }
    if file.dir {
        fs::create_dir_all(&target).unwrap();
    } else if file.fifo {
        registry::run(std::process::Command::new("mkfifo").arg(&target));
    } else if let Some(entries) = &file.tar {
        let mut bytes = archive(entries, file.compression.as_deref().unwrap_or("none"));
        bytes.truncate(file.cut.unwrap_or(bytes.len()));
        fs::write(&target, bytes).unwrap();
    } else if let Some(content) = &file.content {
        fs::write(&target, content).unwrap();
    }
    make_mode(&target, file);
    for (name, value) in &file.xattrs {
        rustix::fs::setxattr(&target, name.as_str(), value.as_bytes(), rustix::fs::XattrFlags::empty()).unwrap();
    }
    if let Some(mtime) = file.mtime {
        registry::run(std::process::Command::new("touch").args(["-d", &format!("@{mtime}")]).arg(&target));
    }
}

/// An archive with these entries.
fn archive(entries: &BTreeMap<String, ArchiveEntry>, compression: &str) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, entry) in entries {
        let member = match entry {
            ArchiveEntry::Content(content) => ArchiveMember { content: content.clone(), ..ArchiveMember::default() },
            ArchiveEntry::Detailed(member) => member.clone(),
        };
        builder.append(&member_header(path, &member), member.content.as_bytes()).unwrap();
    }
    let tar = builder.into_inner().unwrap();
    match compression {
        "none" => tar,
        "gzip" => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&tar).unwrap();
            encoder.finish().unwrap()
        }
        "bzip2" => {
            let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::default());
            encoder.write_all(&tar).unwrap();
            encoder.finish().unwrap()
        }
        "xz" => {
            let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 6);
            encoder.write_all(&tar).unwrap();
            encoder.finish().unwrap()
        }
        "zstd" => zstd::encode_all(tar.as_slice(), 3).unwrap(),
        other => panic!("unknown compression {other}"),
    }
}

/// The header of an entry, whose path may be one that a careful writer refuses: absolute, or with `..`.
fn member_header(path: &str, member: &ArchiveMember) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    let (kind, mode) = match (&member.link, &member.hardlink) {
        (Some(_), _) => (tar::EntryType::Symlink, 0o777),
        (None, Some(_)) => (tar::EntryType::Link, 0o640),
        (None, None) if path.ends_with('/') => (tar::EntryType::Directory, 0o750),
        (None, None) => (tar::EntryType::Regular, 0o640),
    };
    header.set_entry_type(kind);
    header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
    if let Some(target) = member.link.as_ref().or(member.hardlink.as_ref()) {
        header.set_link_name_literal(target).unwrap();
    }
    header.set_mode(member.mode.as_deref().map_or(mode, octal));
    header.set_uid(member.uid.unwrap_or(7));
    header.set_gid(member.gid.unwrap_or(8));
    header.set_mtime(1_600_000_000);
    header.set_size(member.content.len() as u64);
    header.set_cksum();
    header
}

fn octal(text: &str) -> u32 {
    u32::from_str_radix(text, 8).unwrap()
}

fn check_messages(case: &Case, finished: &Finished) -> Vec<String> {
    let mut problems = Vec::new();
    if !finished.code().is_some_and(|code| case.exit.allows(code)) {
        problems.push(format!("exit code {:?}, expected {:?}", finished.code(), case.exit));
    }
    if finished.stderr.contains("panicked at") {
        problems.push("panicked".to_owned());
    }
    for text in &case.stderr {
        if !finished.stderr.contains(text) {
            problems.push(format!("standard error lacks {text:?}"));
        }
    }
    for text in &case.stderr_not {
        if finished.stderr.contains(text) {
            problems.push(format!("standard error has {text:?}"));
        }
    }
    problems
}

fn check_image(case: &Case, image: &Image, bases: &[Image], problems: &mut Vec<String>) {
    for (field, expected) in &case.config {
        check_value(&format!("config.{field}"), image.runtime(field), expected, problems);
    }
    for (field, expected) in &case.document {
        check_value(field, &image.config[field], expected, problems);
    }
    for (path, expected) in &case.tree {
        check_path(path, image, expected.as_ref(), problems);
    }
    if case.only {
        for path in image.tree.keys().filter(|path| !path.is_empty() && !case.tree.contains_key(*path)) {
            problems.push(format!("{path}: not expected"));
        }
    }
    if let Some(expected) = &case.history {
        check_history(image, bases, expected, problems);
    }
    if let Some(expected) = &case.last_layer {
        let mut paths = image.layers.last().cloned().unwrap_or_default();
        paths.sort();
        let mut expected = expected.clone();
        expected.sort();
        if paths != expected {
            problems.push(format!("last layer: {paths:?}, expected {expected:?}"));
        }
    }
}

fn check_value(name: &str, found: &Value, expected: &Value, problems: &mut Vec<String>) {
    let nothing = |value: &Value| match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    };
    if found != expected && !(nothing(found) && nothing(expected)) {
        problems.push(format!("{name}: {found}, expected {expected}"));
    }
}

fn check_path(path: &str, image: &Image, expected: Option<&Expected>, problems: &mut Vec<String>) {
    let (found, expected) = match (image.tree.get(path), expected) {
        (None, None) => return,
        (Some(found), None) => {
            problems.push(format!("{path}: is a {}, expected nothing", found.kind));
            return;
        }
        (None, Some(_)) => {
            problems.push(format!("{path}: missing"));
            return;
        }
        (Some(found), Some(expected)) => (found, expected),
    };
    let mut differs = |field: &str, found: String, expected: String| {
        if found != expected {
            problems.push(format!("{path}: {field} {found}, expected {expected}"));
        }
    };
    if let Some(kind) = &expected.r#type {
        differs("type", found.kind.to_owned(), kind.clone());
    }
    if let Some(mode) = &expected.mode {
        differs("mode", format!("{:04o}", found.mode), format!("{:04o}", octal(mode)));
    }
    if let Some(uid) = expected.uid {
        differs("uid", found.uid.to_string(), uid.to_string());
    }
    if let Some(gid) = expected.gid {
        differs("gid", found.gid.to_string(), gid.to_string());
    }
    if let Some(content) = &expected.content {
        differs("content", format!("{:?}", String::from_utf8_lossy(&found.content)), format!("{content:?}"));
    }
    if let Some(link) = &expected.link {
        differs("link", found.link.clone(), link.clone());
    }
    if let Some(mtime) = expected.mtime {
        differs("mtime", found.mtime.to_string(), mtime.to_string());
    }
    if let Some(xattrs) = &expected.xattrs {
        let text = |(name, value): (&String, &Vec<u8>)| (name.clone(), String::from_utf8_lossy(value).into_owned());
        let found: BTreeMap<_, _> = found.xattrs.iter().map(text).collect();
        differs("xattrs", format!("{found:?}"), format!("{xattrs:?}"));
    }
    if let Some(other) = &expected.same_as {
        let linked = |from: &Entry, to: &str| from.hardlink.as_deref() == Some(to);
        let same = linked(found, other) || image.tree.get(other).is_some_and(|entry| linked(entry, path));
        differs("same as", same.to_string(), "true".to_owned());
    }
}

/// Compares the entries after those of the base: the longest history of a base that this one starts with.
fn check_history(image: &Image, bases: &[Image], expected: &[String], problems: &mut Vec<String>) {
    let entries = image.config["history"].as_array().cloned().unwrap_or_default();
    let histories = bases.iter().filter_map(|base| base.config["history"].as_array());
    let inherited = histories.filter(|base| entries.starts_with(base)).map(Vec::len).max().unwrap_or(0);
    let found: Vec<String> = entries[inherited..]
        .iter()
        .map(|entry| {
            let text = entry["created_by"].as_str().unwrap_or("(none)");
            if entry["empty_layer"] == true { format!("- {text}") } else { text.to_owned() }
        })
        .collect();
    let equal = |found: &String, expected: &String| match expected.strip_suffix('*') {
        Some(start) => found.starts_with(start),
        None => found == expected,
    };
    if found.len() != expected.len() || !found.iter().zip(expected).all(|(found, expected)| equal(found, expected)) {
        problems.push(format!("history: {found:#?}, expected {expected:#?}"));
    }
}
