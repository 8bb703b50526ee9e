//! A logical line → an instruction: one function for each of them.
//!
//! Takes a line and its heredocs, gives a [`Step`] or a new [`Stage`]. What is accepted and what is refused is as in
//! BuildKit; where BuildKit accepts something and forgets it, there is a warning.

use super::command;
use super::files;
use super::flag::{self, Flag, Flags, Known, Takes};
use super::healthcheck;
use super::heredoc::Read;
use super::line::{Line, Part};
use super::word;
use crate::diagnostic::{Diagnostic, Severity, Span, Spanned, nearest};
use crate::recipe::{Arg, Caching, Heredoc, Instruction, Pair, Stage, Step, Word};

/// All keywords.
const KEYWORDS: [&str; 18] = [
    "ADD",
    "ARG",
    "CMD",
    "COPY",
    "ENTRYPOINT",
    "ENV",
    "EXPOSE",
    "FROM",
    "HEALTHCHECK",
    "LABEL",
    "MAINTAINER",
    "ONBUILD",
    "RUN",
    "SHELL",
    "STOPSIGNAL",
    "USER",
    "VOLUME",
    "WORKDIR",
];

/// What an instruction turned out to be.
#[derive(Debug)]
pub(super) enum Parsed {
    /// `FROM`
    Stage(Stage),
    /// Everything else.
    Step(Step),
}

/// A line taken apart: keyword, flags, arguments.
#[derive(Debug)]
pub(super) struct Statement<'a> {
    keyword: Part<'a>,
    flags: Vec<Flag>,
    arguments: Part<'a>,
}

impl<'a> Statement<'a> {
    /// Takes a part of a line apart.
    pub(super) fn split(line: &Line<'_>, part: Part<'a>, escape: char) -> Self {
        let part = part.trim();
        let (keyword, rest) = part.split_blank();
        let (flags, arguments) = match rest {
            Some(rest) => flag::extract(line, rest, escape),
            None => (Vec::new(), part.skip(part.text.len())),
        };
        Self { keyword, flags, arguments }
    }

    /// Whether this is its keyword, in any case.
    pub(super) fn is(&self, keyword: &str) -> bool {
        self.keyword.text.eq_ignore_ascii_case(keyword)
    }

    /// Whether `<<WORD` in it announces a heredoc: `RUN`, `COPY` and `ADD`, also after `ONBUILD`, unless in JSON form.
    pub(super) fn may_have_heredocs(&self, line: &Line<'_>, escape: char) -> bool {
        if self.is("ONBUILD") {
            let trigger = Self::split(line, self.arguments, escape);
            return !trigger.is("ONBUILD") && trigger.may_have_heredocs(line, escape);
        }
        ["RUN", "COPY", "ADD"].iter().any(|keyword| self.is(keyword))
            && matches!(word::json_array(self.arguments), Ok(None))
    }
}

/// One instruction on its way to become a step.
pub(super) struct Input<'a> {
    pub(super) line: &'a Line<'a>,
    pub(super) escape: char,
    /// The keyword in upper case.
    pub(super) name: &'static str,
    pub(super) keyword: Span,
    pub(super) arguments: Part<'a>,
    pub(super) heredocs: Vec<Read>,
    flags: Vec<Flag>,
}

impl Input<'_> {
    /// An error about the instruction as a whole.
    pub(super) fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(self.keyword, message)
    }

    /// The flags, checked.
    pub(super) fn flags(&mut self, known: Known) -> Result<Flags, Diagnostic> {
        flag::check(std::mem::take(&mut self.flags), self.name, known)
    }

    /// Warns of flags that BuildKit does not look at here.
    pub(super) fn forget_flags(&self, warnings: &mut Vec<Diagnostic>) {
        flag::warn_ignored(&self.flags, self.name, warnings);
    }

    /// The strings of a JSON array, if the arguments are one.
    pub(super) fn json(&self, part: Part<'_>) -> Result<Option<Vec<Word>>, Diagnostic> {
        let elements = word::json_array(part).map_err(|_| {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            Diagnostic::error(self.line.span_of(part), message)
        })?;
        Ok(elements.map(|elements| {
            elements.into_iter().map(|(value, part)| Spanned::new(value, self.line.span_of(part))).collect()
        }))
    }

    /// The arguments as a JSON array or as words between blanks.
    pub(super) fn list(&self) -> Result<Vec<Word>, Diagnostic> {
        Ok(match self.json(self.arguments)? {
            Some(words) => words,
            None => word::split(self.arguments).into_iter().map(|part| self.line.word(part)).collect(),
        })
    }

    fn at_least_one<T>(&self, words: Vec<T>) -> Result<Vec<T>, Diagnostic> {
        if words.is_empty() {
            return Err(self.error(format!("{} requires at least one argument", self.name)));
        }
        Ok(words)
    }

    /// All that follows the keyword, as one word.
    fn only(&mut self) -> Result<Word, Diagnostic> {
        if self.arguments.text.is_empty() {
            return Err(self.error(format!("{} requires exactly one argument", self.name)));
        }
        Ok(self.line.word(self.arguments))
    }
}

/// Reads an instruction.
pub(super) fn parse(
    line: &Line<'_>,
    statement: Statement<'_>,
    heredocs: Vec<Read>,
    escape: char,
    warnings: &mut Vec<Diagnostic>,
) -> Result<Parsed, Diagnostic> {
    let name = keyword(line, &statement)?;
    let end = heredocs.last().map_or(line.span.end, |read| read.end);
    let span = Span::new(line.span.start, end.max(line.span.end));
    let Statement { keyword, flags, arguments } = statement;
    let keyword = line.span_of(keyword);
    let input = Input { line, escape, name, keyword, arguments, heredocs, flags };
    if name == "FROM" {
        return from(input, span).map(Parsed::Stage);
    }
    let instruction = dispatch(input, span, warnings)?;
    Ok(Parsed::Step(Step { span, text: line.all().trim().text.to_owned(), instruction, caching: Caching::default() }))
}

fn dispatch(mut input: Input<'_>, span: Span, warnings: &mut Vec<Diagnostic>) -> Result<Instruction, Diagnostic> {
    match input.name {
        "ADD" => files::add(input),
        "ARG" => arg(&input, warnings).map(Instruction::Arg),
        "CMD" => command::plain(input).map(Instruction::Cmd),
        "COPY" => files::copy(input),
        "ENTRYPOINT" => command::plain(input).map(Instruction::Entrypoint),
        "ENV" => pairs(input).map(Instruction::Env),
        "EXPOSE" => expose(input).map(Instruction::Expose),
        "HEALTHCHECK" => healthcheck::parse(input, warnings).map(Instruction::Healthcheck),
        "LABEL" => pairs(input).map(Instruction::Label),
        "MAINTAINER" => single(input).map(Instruction::Maintainer),
        "ONBUILD" => onbuild(input, span, warnings).map(Instruction::Onbuild),
        "RUN" => command::run(input, warnings).map(Instruction::Run),
        "SHELL" => command::shell(input).map(Instruction::Shell),
        "STOPSIGNAL" => {
            input.forget_flags(warnings);
            input.only().map(Instruction::StopSignal)
        }
        "USER" => single(input).map(Instruction::User),
        "VOLUME" => volume(input).map(Instruction::Volume),
        // `keyword` gives nothing else.
        _ => single(input).map(Instruction::Workdir),
    }
}

/// The keyword in upper case, if it is one.
fn keyword(line: &Line<'_>, statement: &Statement<'_>) -> Result<&'static str, Diagnostic> {
    if let Some(known) = KEYWORDS.iter().find(|known| statement.is(known)) {
        return Ok(known);
    }
    let span = if statement.keyword.text.is_empty() { line.span } else { line.span_of(statement.keyword) };
    if statement.keyword.text.is_empty() {
        return Err(Diagnostic::error(span, "a continued line without an instruction"));
    }
    let diagnostic = Diagnostic::error(span, format!("unknown instruction: {}", statement.keyword.text));
    Err(match nearest(statement.keyword.text, KEYWORDS) {
        Some(known) => diagnostic.help(format!("did you mean {known}?")),
        None => diagnostic,
    })
}

/// The rest of a comment that begins with this name: what it says about the thing of that name.
fn description(line: &Line<'_>, name: &str) -> Option<String> {
    let about = |comment: &Spanned<String>| comment.value.strip_prefix(name)?.strip_prefix(' ').map(str::to_owned);
    line.comments.iter().find_map(about).filter(|_| !name.is_empty())
}

/// `FROM [--platform=…] base [AS name]`
fn from(mut input: Input<'_>, span: Span) -> Result<Stage, Diagnostic> {
    let words = word::split(input.arguments);
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => (*base, Some(stage_name(&input, *name)?)),
        [] => return Err(input.error("FROM requires either one or three arguments")),
        _ => {
            let message = "FROM requires either one or three arguments";
            let extra = Span::new(input.line.span_of(words[1]).start, input.line.span_of(words[words.len() - 1]).end);
            return Err(Diagnostic::error(extra, message).help("write FROM base, or FROM base AS name"));
        }
    };
    let base = input.line.word(base);
    let flags = input.flags(&[("platform", Takes::Text)])?;
    let description = name.as_ref().and_then(|name: &Spanned<String>| description(input.line, &name.value));
    Ok(Stage { span, base, platform: flags.text("platform"), name, description, steps: Vec::new() })
}

fn stage_name(input: &Input<'_>, written: Part<'_>) -> Result<Spanned<String>, Diagnostic> {
    let span = input.line.span_of(written);
    let name = written.text.to_lowercase();
    let mut bytes = name.bytes();
    let valid = bytes.next().is_some_and(|first| first.is_ascii_lowercase())
        && bytes.all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'));
    if valid {
        return Ok(Spanned::new(name, span));
    }
    let message = format!(
        "invalid name for build stage: \"{}\", name can't start with a number or contain symbols",
        written.text
    );
    Err(Diagnostic::error(span, message).help("use letters, digits, '-', '_' and '.', and begin with a letter"))
}

/// `ARG name[=default]…`
fn arg(input: &Input<'_>, warnings: &mut Vec<Diagnostic>) -> Result<Vec<Arg>, Diagnostic> {
    let words = input.at_least_one(word::split_quoted(input.arguments, input.escape))?;
    input.forget_flags(warnings);
    let one = |word: Part<'_>| {
        let (name, default) = match word::split_pair(word) {
            Some((name, _)) if name.text.is_empty() => {
                return Err(Diagnostic::error(input.line.span_of(word), "ARG names can not be blank"));
            }
            Some((name, default)) => (name, Some(input.line.word(default))),
            None => (word, None),
        };
        Ok(Arg { description: description(input.line, name.text), name: input.line.word(name), default })
    };
    words.into_iter().map(one).collect()
}

/// `ENV name=value…`, `LABEL name=value…`, and the old form `ENV name the whole rest`.
fn pairs(mut input: Input<'_>) -> Result<Vec<Pair>, Diagnostic> {
    let words = word::split_quoted(input.arguments, input.escape);
    if words.first().is_some_and(|first| !first.text.contains('=')) {
        let pair = legacy_pair(&input)?;
        input.flags(&[])?;
        return Ok(vec![pair]);
    }
    for word in &words {
        if !word.text.contains('=') {
            let message = format!("can't find = in \"{}\": must be of the form name=value", word.text);
            let diagnostic = Diagnostic::error(input.line.span_of(*word), message);
            return Err(diagnostic.help("put quotes around a value with blanks"));
        }
    }
    input.flags(&[])?;
    let words = input.at_least_one(words)?;
    let pairs = words.into_iter().filter_map(word::split_pair).map(|(name, value)| {
        if name.text.is_empty() {
            let span = input.line.span_of(name).to(input.line.span_of(value));
            return Err(Diagnostic::error(span, format!("{} names can not be blank", input.name)));
        }
        Ok(Pair { name: input.line.word(name), value: input.line.word(value), legacy: false })
    });
    pairs.collect()
}

fn legacy_pair(input: &Input<'_>) -> Result<Pair, Diagnostic> {
    let (name, value) = input.arguments.split_blank();
    let Some(value) = value else {
        let help = format!("write {} {}=value", input.name, name.text);
        return Err(
            Diagnostic::error(input.line.span_of(name), format!("{} must have two arguments", input.name)).help(help)
        );
    };
    Ok(Pair { name: input.line.word(name), value: input.line.word(value), legacy: true })
}

/// `EXPOSE port…`
fn expose(mut input: Input<'_>) -> Result<Vec<Word>, Diagnostic> {
    let words = input.at_least_one(word::split(input.arguments))?;
    input.flags(&[])?;
    Ok(words.into_iter().map(|part| input.line.word(part)).collect())
}

/// `VOLUME path…`
fn volume(mut input: Input<'_>) -> Result<Vec<Word>, Diagnostic> {
    let words = input.at_least_one(input.list()?)?;
    input.flags(&[])?;
    let one = |word: Word| {
        let path = word.value.trim();
        if path.is_empty() {
            return Err(Diagnostic::error(word.span, "VOLUME specified can not be an empty string"));
        }
        Ok(Spanned::new(path.to_owned(), word.span))
    };
    words.into_iter().map(one).collect()
}

/// `MAINTAINER`, `USER`, `WORKDIR`: everything that follows is the argument.
fn single(mut input: Input<'_>) -> Result<Word, Diagnostic> {
    let word = input.only()?;
    input.flags(&[])?;
    Ok(word)
}

/// `ONBUILD instruction`: the instruction is read, so that a mistake in it is found now, but recorded as text.
fn onbuild(mut input: Input<'_>, span: Span, warnings: &mut Vec<Diagnostic>) -> Result<Spanned<String>, Diagnostic> {
    if input.arguments.text.is_empty() {
        return Err(input.error("ONBUILD requires at least one argument"));
    }
    input.flags(&[])?;
    let trigger = Statement::split(input.line, input.arguments, input.escape);
    check_trigger(input.line, &trigger)?;

    // What is recorded begins right after the keyword and has the bodies of heredocs again.
    let all = input.line.all();
    let keyword = all.text.len() - all.text.trim_start().len() + "ONBUILD".len();
    let blank = |c: char| matches!(c, ' ' | '\t' | '\n' | '\x0c' | '\r');
    let mut text = all.text[keyword..].trim_start_matches(blank).to_owned();
    for read in &input.heredocs {
        text.extend(["\n", &read.heredoc.raw, &read.heredoc.name]);
    }
    // Lists and pairs are read at once; what else is wrong shows when something is built on the image.
    let at_once = trigger.is("ENV") || trigger.is("LABEL") || trigger.arguments.text.starts_with('[');
    match parse(input.line, trigger, input.heredocs, input.escape, warnings) {
        Err(error) if at_once => return Err(error),
        Err(error) => {
            warnings.push(Diagnostic { severity: Severity::Warning, rule: Some("InvalidTrigger"), ..error });
        }
        Ok(_) => {}
    }
    Ok(Spanned::new(text, span))
}

/// Refuses the instructions that cannot be triggers.
pub(super) fn check_trigger(line: &Line<'_>, trigger: &Statement<'_>) -> Result<(), Diagnostic> {
    let refuse = |message: &str| Err(Diagnostic::error(line.span_of(trigger.keyword), message));
    if trigger.is("ONBUILD") {
        return refuse("chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed");
    }
    match ["FROM", "MAINTAINER"].iter().find(|keyword| trigger.is(keyword)) {
        Some(keyword) => refuse(&format!("{keyword} isn't allowed as an ONBUILD trigger")),
        None => Ok(()),
    }
}

/// The heredocs without what only ONBUILD needs.
pub(super) fn heredocs(read: Vec<Read>) -> Vec<Heredoc> {
    read.into_iter().map(|read| read.heredoc).collect()
}
