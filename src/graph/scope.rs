//! Which variables a word sees, and what it then says.
//!
//! Takes the arguments before the first stage, `--build-arg` and what `ARG` and `ENV` set in a stage; gives expanded
//! words, and findings about variables nobody declared. Every word of one instruction sees the variables as they were
//! before it. How `$x` is written is `recipe::variable`'s part.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::graph::advice::did_you_mean;
use crate::graph::{Allowed, Request, SOURCE_DATE_EPOCH, Variable, Variables, builtin};
use crate::recipe::platform::Platform;
use crate::recipe::{Arg, Instruction, Mount, Recipe, Word, dockerfile, variable};

/// Arguments that steer the scan of an image's contents: they never become variables of a step.
const NOT_VARIABLES: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

/// Arguments every step sees without declaring them, in the order in which a step gets them, here in lower case.
const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];

/// As many bytes may the words of a recipe become longer, all together, when their variables are replaced.
const BUDGET: usize = 128 << 20;

/// Advice costs a comparison with every variable there is; so many findings get it.
const ADVISED: usize = 1_000;

/// Variables in the order in which they were last set.
#[derive(Debug, Clone, Default)]
pub(super) struct Environment {
    /// `None` where a variable was set again later.
    entries: Vec<Option<Variable>>,
    places: HashMap<Arc<str>, usize>,
    /// What [`Self::shared`] gave, until a variable is set.
    shared: OnceCell<Variables>,
}

impl Environment {
    /// The value of a variable.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let (_, value) = self.entries[*self.places.get(name)?].as_ref()?;
        Some(value)
    }

    /// Sets a variable, which makes it the last.
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.shared.take();
        let name: Arc<str> = name.into();
        if let Some(place) = self.places.insert(Arc::clone(&name), self.entries.len()) {
            self.entries[place] = None;
        }
        self.entries.push(Some((name, value.into())));
        if self.entries.len() > 2 * self.places.len() + 16 {
            self.close_gaps();
        }
    }

    /// Every variable in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.entries.iter().flatten().map(|(name, value)| (&**name, &**value))
    }

    /// Every variable in order, for a step to keep. Steps between which nothing is set have the same list, and all lists
    /// have the same texts, so that a large value costs its size once and not once a step.
    pub(super) fn shared(&self) -> Variables {
        Arc::clone(self.shared.get_or_init(|| self.entries.iter().flatten().cloned().collect()))
    }

    fn close_gaps(&mut self) {
        self.entries.retain(Option::is_some);
        for (place, (name, _)) in self.entries.iter().flatten().enumerate() {
            if let Some(known) = self.places.get_mut(name) {
                *known = place;
            }
        }
    }
}

/// The arguments a stage has declared, its base stages' first.
#[derive(Debug, Clone, Default)]
pub(super) struct Arguments {
    list: Vec<(String, Option<String>)>,
    places: HashMap<String, usize>,
}

impl Arguments {
    /// Records a declaration; a second one of the same name keeps the first one's place.
    fn declare(&mut self, name: &str, value: Option<String>) {
        match self.places.get(name) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(name.to_owned(), self.list.len());
                self.list.push((name.to_owned(), value));
            }
        }
    }

    /// Each argument with the value a step sees: a variable of that name wins.
    pub(super) fn seen_in(&self, environment: &Environment) -> Vec<(String, String)> {
        self.list
            .iter()
            .map(|(name, value)| {
                let value = environment.get(name).or(value.as_deref()).unwrap_or_default();
                (name.clone(), value.to_owned())
            })
            .collect()
    }
}

/// A word with what its expansion looked up.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) value: String,
    /// Variables that have a value, each once.
    pub(super) set: Vec<String>,
    /// Variables that have none, each once.
    pub(super) unset: Vec<String>,
}

/// What holds before the first stage.
#[derive(Debug)]
pub(super) struct Globals {
    environment: Environment,
    /// Names declared before the first stage, with or without a value.
    declared: HashSet<String>,
    /// `--build-arg`.
    given: BTreeMap<String, String>,
    escape: char,
    /// How many bytes words may still grow by (see [`BUDGET`]); `None` once it was said that they grew too much.
    budget: Cell<Option<usize>>,
    /// Seconds since 1970 that no time in a new layer may exceed.
    pub(super) epoch: Option<i64>,
    /// A `SOURCE_DATE_EPOCH` that is no number, and where it is given.
    epoch_name: Option<(String, Span)>,
    /// What steps may have beyond the sandbox.
    pub(super) allow: Allowed,
}

impl Globals {
    /// Reads the arguments before the first stage.
    pub(super) fn new(recipe: &Recipe, request: &Request, findings: &mut Vec<Diagnostic>) -> Self {
        let mut given = request.build_args.clone();
        if let Some(epoch) = request.source_date_epoch {
            given.insert(SOURCE_DATE_EPOCH.to_owned(), epoch.to_string());
        }
        let mut globals = Self {
            environment: Environment::default(),
            declared: HashSet::new(),
            given,
            escape: recipe.escape,
            budget: Cell::new(Some(BUDGET)),
            epoch: None,
            epoch_name: None,
            allow: request.allow,
        };
        for (name, value) in platform_arguments(recipe, request) {
            let value = globals.given.get(&name).cloned().unwrap_or(value);
            globals.environment.set(&name, &value);
        }
        let mut epoch_span = Span::default();
        for step in &recipe.global_args {
            let Instruction::Arg(arguments) = &step.instruction else { continue };
            for argument in arguments {
                globals.declare(argument, findings);
                if argument.name.value == SOURCE_DATE_EPOCH {
                    epoch_span = step.span;
                }
            }
        }
        globals.set_epoch(epoch_span);
        globals
    }

    fn declare(&mut self, argument: &Arg, findings: &mut Vec<Diagnostic>) {
        let name = &argument.name.value;
        self.declared.insert(name.clone());
        let value = match (self.given.get(name), &argument.default) {
            (Some(given), _) => Some(given.clone()),
            (None, Some(default)) => {
                self.expand(default, &self.environment, variable::expand, findings).map(|(value, _)| value)
            }
            (None, None) => None,
        };
        if let Some(value) = value {
            self.environment.set(name, &value);
        }
    }

    fn set_epoch(&mut self, span: Span) {
        let value = self.given.get(SOURCE_DATE_EPOCH).map(String::as_str);
        match value.or_else(|| self.environment.get(SOURCE_DATE_EPOCH)) {
            None => {}
            Some("") => {
                self.given.remove(SOURCE_DATE_EPOCH);
            }
            Some(text) => match text.parse() {
                Ok(seconds) => self.epoch = Some(seconds),
                Err(_) => self.epoch_name = Some((text.to_owned(), span)),
            },
        }
    }

    /// A `SOURCE_DATE_EPOCH` that is no number but should name something, and where it is given.
    pub(super) fn epoch_name(&self) -> Option<(&str, Span)> {
        self.epoch_name.as_ref().map(|(name, span)| (name.as_str(), *span))
    }

    /// The variables before the first stage, but for the one that bounds times.
    pub(super) fn environment_without_epoch(&self) -> Environment {
        let mut environment = Environment::default();
        self.environment
            .iter()
            .filter(|(name, _)| *name != SOURCE_DATE_EPOCH)
            .for_each(|(name, value)| environment.set(name, value));
        environment
    }

    /// Sets an argument of a stage, if it has a value.
    pub(super) fn declare_in(&self, argument: &Arg, environment: &mut Environment) {
        let name = &argument.name.value;
        let default = || self.expand_quietly(argument.default.as_ref()?, environment);
        if let Some(value) = self.given.get(name).cloned().or_else(default) {
            environment.set(name, &value);
        }
    }

    /// What a word says among some variables; `None` where it says nothing.
    pub(super) fn expand_quietly(&self, word: &Word, environment: &Environment) -> Option<String> {
        Some(self.expand(word, environment, variable::expand, &mut Vec::new())?.0)
    }

    /// Expands one word; also gives the names it asked for in vain, each once.
    fn expand<T: Expanded>(
        &self,
        word: &Word,
        environment: &Environment,
        how: impl Fn(&str, char, &variable::Scope<'_>) -> Result<T, variable::Error>,
        findings: &mut Vec<Diagnostic>,
    ) -> Option<(T, Vec<String>)> {
        let unset = RefCell::new((Vec::new(), HashSet::new()));
        let look_up = |name: &str| {
            let value = environment.get(name).map(str::to_owned);
            if value.is_none() {
                let (names, known) = &mut *unset.borrow_mut();
                if known.insert(name.to_owned()) {
                    names.push(name.to_owned());
                }
            }
            value
        };
        let value = match how(&word.value, self.escape, &look_up) {
            Ok(value) => value,
            Err(error) => {
                findings.push(Diagnostic::error(word.span, error.to_string()));
                return None;
            }
        };
        let growth = value.length().saturating_sub(word.value.len());
        let budget = self.budget.get()?;
        self.budget.set(budget.checked_sub(growth));
        if self.budget.get().is_none() {
            let message = format!("with this word the recipe's variables stand for more than {BUDGET} bytes");
            findings.push(Diagnostic::error(word.span, message));
            return None;
        }
        Some((value, unset.into_inner().0))
    }

    /// What a word of `FROM` says; warns of arguments that nobody declared before the first stage.
    pub(super) fn expand_in_from(&self, word: &Word, findings: &mut Vec<Diagnostic>) -> Option<String> {
        let (value, unset) = self.expand(word, &self.environment, variable::expand, findings)?;
        for name in unset.iter().filter(|name| !self.declared.contains(*name)) {
            let mut finding = Diagnostic::warning(
                "UndefinedArgInFrom",
                word.span,
                format!("`FROM` uses `${name}`, which no `ARG` before the first stage declares"),
            );
            finding.help = did_you_mean(name, self.environment.iter().map(|(known, _)| known));
            findings.push(finding);
        }
        Some(value)
    }

    /// What a word of `FROM` says and which variables that took; `None` where it says nothing. Reports nothing.
    pub(super) fn look_into(&self, word: &Word) -> Option<Seen> {
        let (set, unset) = (RefCell::new(Vec::new()), RefCell::new(Vec::new()));
        let look_up = |name: &str| {
            let value = self.environment.get(name).map(str::to_owned);
            let mut names = if value.is_some() { set.borrow_mut() } else { unset.borrow_mut() };
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
            value
        };
        let value = variable::expand(&word.value, self.escape, &look_up).ok()?;
        Some(Seen { value, set: set.into_inner(), unset: unset.into_inner() })
    }

    /// The value of an argument before the first stage.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.environment.get(name)
    }

    /// Whether `--build-arg` gives this argument.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// What cache mounts of one name are kept apart by: `--build-arg BUILDKIT_CACHE_MOUNT_NS`, as in BuildKit.
    pub(super) fn cache_namespace(&self) -> Option<&str> {
        self.given.get("BUILDKIT_CACHE_MOUNT_NS").map(String::as_str).filter(|namespace| !namespace.is_empty())
    }

    /// The host name of steps: `--build-arg BUILDKIT_SANDBOX_HOSTNAME`, as in BuildKit.
    pub(super) fn hostname(&self) -> Option<&str> {
        self.given.get("BUILDKIT_SANDBOX_HOSTNAME").map(String::as_str).filter(|name| !name.is_empty())
    }

    /// Proxies given by `--build-arg`, under both spellings, but for names that the step has already.
    pub(super) fn proxies(&self, environment: &Environment) -> Vec<(String, String)> {
        PROXIES
            .iter()
            .filter_map(|name| {
                let (_, value) = self.given.iter().rfind(|(given, _)| given.eq_ignore_ascii_case(name))?;
                (!value.is_empty()).then_some((*name, value))
            })
            .flat_map(|(name, value)| [(name.to_uppercase(), value.clone()), (name.to_owned(), value.clone())])
            .filter(|(name, _)| environment.get(name).is_none())
            .collect()
    }

    /// Warns of every `--build-arg` that no `ARG` of the recipe declares. `declared` holds the names in its stages.
    pub(super) fn warn_of_unused(&self, declared: &HashSet<&str>, findings: &mut Vec<Diagnostic>) {
        let known = |name: &str| {
            declared.contains(name)
                || self.declared.contains(name)
                || self.environment.get(name).is_some()
                || name == SOURCE_DATE_EPOCH
                || builtin::NAMES.contains(&name)
                || PROXIES.iter().any(|proxy| proxy.eq_ignore_ascii_case(name))
        };
        findings.extend(builtin::without_effect(&self.given).filter(|(name, _)| !declared.contains(name)).map(
            |(name, reason)| {
                let message = format!("`--build-arg {name}` has no effect: {reason}");
                Diagnostic::warning("UnusedBuildArg", Span::default(), message)
            },
        ));
        for name in self.given.keys().filter(|name| !known(name)) {
            let built_in = builtin::NAMES.iter().copied().filter(|_| name.starts_with("BUILDKIT_"));
            let names = declared.iter().copied().chain(self.declared.iter().map(String::as_str)).chain(built_in);
            // Sorted, so that two names equally close always give the same advice.
            let mut names: Vec<&str> = names.collect();
            names.sort_unstable();
            let mut finding = Diagnostic::warning(
                "UnusedBuildArg",
                Span::default(),
                format!("`--build-arg {name}` has no effect: no `ARG` declares it"),
            );
            finding.help = did_you_mean(name, names);
            findings.push(finding);
        }
    }
}

/// The variables of a stage as one instruction sees them.
#[derive(Debug)]
pub(super) struct Scope<'a> {
    pub(super) globals: &'a Globals,
    pub(super) environment: &'a Environment,
    pub(super) arguments: &'a Arguments,
}

impl Scope<'_> {
    /// What a word says; `None` after reporting that it says nothing.
    pub(super) fn word(&self, word: &Word, findings: &mut Vec<Diagnostic>) -> Option<String> {
        let (value, unset) = self.globals.expand(word, self.environment, variable::expand, findings)?;
        self.report(word, &unset, findings);
        Some(value)
    }

    /// What a word says once it is split at the blanks that its variables brought in. BuildKit reports no undefined
    /// variable here.
    pub(super) fn words(&self, word: &Word, findings: &mut Vec<Diagnostic>) -> Option<Vec<String>> {
        let expanded = self.globals.expand(word, self.environment, variable::expand_split, findings)?;
        Some(expanded.0)
    }

    /// What an inline file says: only its variables are replaced. Its escape character is always `\`.
    pub(super) fn document(&self, body: &Word, findings: &mut Vec<Diagnostic>) -> Option<String> {
        let raw = |body: &str, _: char, scope: &variable::Scope<'_>| variable::expand_raw(body, '\\', scope);
        let (value, unset) = self.globals.expand(body, self.environment, raw, findings)?;
        self.report(body, &unset, findings);
        Some(value)
    }

    /// A mount that waited for its variables.
    pub(super) fn mount(&self, value: &Word, findings: &mut Vec<Diagnostic>) -> Option<Mount> {
        let look_up = |name: &str| self.environment.get(name).map(str::to_owned);
        match dockerfile::read_mount(value, &|text| variable::expand(text, self.globals.escape, &look_up)) {
            Ok((mount, warnings)) => {
                findings.extend(warnings);
                Some(mount)
            }
            Err(finding) => {
                findings.push(finding);
                None
            }
        }
    }

    /// The value an `ARG` of this stage gets: given on the command line, else its default, else that of the same
    /// argument before the first stage.
    fn argument(&self, argument: &Arg, findings: &mut Vec<Diagnostic>) -> Option<Option<String>> {
        let name = &argument.name.value;
        match (self.globals.given.get(name), &argument.default) {
            (Some(given), _) => Some(Some(given.clone())),
            (None, Some(default)) => self.word(default, findings).map(Some),
            (None, None) => Some(self.globals.environment.get(name).map(str::to_owned)),
        }
    }

    fn report(&self, word: &Word, unset: &[String], findings: &mut Vec<Diagnostic>) {
        if unset.is_empty() {
            return;
        }
        for name in unset {
            if self.arguments.places.contains_key(name) || NOT_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let mut finding = Diagnostic::warning("UndefinedVar", word.span, format!("`${name}` is not defined here"));
            if findings.len() < ADVISED {
                finding.help = did_you_mean(name, self.environment.iter().map(|(known, _)| known));
            }
            findings.push(finding);
        }
    }
}

/// Declares one `ARG` of a stage. Gives `name` or `name=value` for the history, or `None` after reporting an error.
pub(super) fn declare(
    globals: &Globals,
    environment: &mut Environment,
    arguments: &mut Arguments,
    argument: &Arg,
    findings: &mut Vec<Diagnostic>,
) -> Option<String> {
    let value = Scope { globals, environment, arguments }.argument(argument, findings)?;
    let name = &argument.name.value;
    if let Some(value) = value.as_deref().filter(|_| !NOT_VARIABLES.contains(&name.as_str())) {
        environment.set(name, value);
    }
    let shown = value.as_ref().map_or_else(|| name.clone(), |value| format!("{name}={value}"));
    arguments.declare(name, value);
    Some(shown)
}

/// What a word can become.
trait Expanded {
    /// Its length in bytes.
    fn length(&self) -> usize;
}

impl Expanded for String {
    fn length(&self) -> usize {
        self.len()
    }
}

impl Expanded for Vec<String> {
    fn length(&self) -> usize {
        self.iter().map(String::len).sum()
    }
}

/// The platform arguments, in BuildKit's order.
fn platform_arguments(recipe: &Recipe, request: &Request) -> Vec<(String, String)> {
    let parts = |side: &str, platform: &Platform| {
        let value = |part: &Option<String>| part.clone().unwrap_or_default();
        [
            (format!("{side}PLATFORM"), platform.to_string()),
            (format!("{side}OS"), platform.os.clone()),
            (format!("{side}OSVERSION"), value(&platform.os_version)),
            (format!("{side}ARCH"), platform.architecture.clone()),
            (format!("{side}VARIANT"), value(&platform.variant)),
        ]
    };
    let last_name = recipe.stages.last().and_then(|stage| stage.name.as_ref()).map(|name| name.value.clone());
    let target = request.target.clone().filter(|target| !target.is_empty()).or(last_name);
    let mut arguments = Vec::with_capacity(11);
    arguments.extend(parts("BUILD", &request.build_platform));
    arguments.extend(parts("TARGET", &request.platform));
    arguments.push(("TARGETSTAGE".to_owned(), target.unwrap_or_else(|| "default".to_owned())));
    arguments
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_environment_is_a_list_without_its_older_entries(sets in prop::collection::vec(("[a-d]", "[0-9]"), 0..200)) {
            let mut environment = Environment::default();
            let mut naive: Vec<(String, String)> = Vec::new();
            for (name, value) in sets {
                environment.set(&name, &value);
                naive.retain(|(known, _)| *known != name);
                naive.push((name, value));
            }
            let pairs: Vec<_> = environment.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
            prop_assert_eq!(&pairs, &naive);
            for (name, value) in &naive {
                prop_assert_eq!(environment.get(name), Some(value.as_str()));
            }
        }
    }

    #[test]
    fn what_is_set_last_comes_last() {
        let mut environment = Environment::default();
        for round in 0..100 {
            for name in ["A", "B", "C"] {
                environment.set(name, &format!("{name}{round}"));
            }
        }
        environment.set("A", "x");
        let pairs: Vec<_> = environment.iter().collect();
        assert_eq!(pairs, [("B", "B99"), ("C", "C99"), ("A", "x")]);
        assert!(environment.entries.len() < 32, "gaps are closed");
        assert_eq!(environment.get("B"), Some("B99"));
        assert_eq!(environment.get("D"), None);
    }

    #[test]
    fn lists_are_shared_until_a_variable_is_set() {
        let mut environment = Environment::default();
        environment.set("A", &"a".repeat(1_000));
        let first = environment.shared();
        assert!(Arc::ptr_eq(&first, &environment.shared()));
        environment.set("B", "b");
        let second = environment.shared();
        assert_eq!(second.len(), 2);
        assert!(Arc::ptr_eq(&first[0].1, &second[0].1), "the value is there once");
    }
}
