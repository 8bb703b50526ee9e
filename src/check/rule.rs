//! The rules by name: what each looks for, where it comes from, when its findings are shown.
//!
//! A table and the ways to look into it. A rule's page is Markdown with a bad and a good example; the examples are the
//! rule's test.

use crate::diagnostic::nearest;

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Its name, as in `# check=skip=NAME`.
    pub name: &'static str,
    /// What it asks for, in one sentence without a full stop.
    pub summary: &'static str,
    /// Whose rule it is.
    pub origin: Origin,
    /// When its findings are shown.
    pub regime: Regime,
    /// Its page, in Markdown.
    pub page: &'static str,
}

/// Whose rule it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// One of BuildKit's, by its name and with its conditions.
    BuildKit,
    /// One of our own.
    Strata,
}

/// When the findings of a rule are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Regime {
    /// In every build and every check, unless they are skipped.
    Always,
    /// In checks only, unless they are skipped.
    WhenChecked,
    /// Only where the recipe names the rule in `# check=experimental=NAME`.
    OnRequest,
}

impl Rule {
    /// Where Docker explains the rule, for those that Docker has.
    pub fn url(&self) -> Option<String> {
        (self.origin == Origin::BuildKit).then(|| {
            let mut slug = String::new();
            let letters: Vec<char> = self.name.chars().collect();
            for (place, letter) in letters.iter().enumerate() {
                let after_small = place > 0 && letters[place - 1].is_lowercase();
                let ends_capitals = place > 0
                    && letters[place - 1].is_uppercase()
                    && letters.get(place + 1).is_some_and(|c| c.is_lowercase());
                if letter.is_uppercase() && (after_small || ends_capitals) {
                    slug.push('-');
                }
                slug.push(letter.to_ascii_lowercase());
            }
            format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")
        })
    }
}

/// The rule of this name; names are case-sensitive.
pub fn find(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

/// The name of a rule that is nearest to this one.
pub fn nearest_to(name: &str) -> Option<&'static str> {
    nearest(name, RULES.iter().map(|rule| rule.name))
}

macro_rules! rules {
    ($($origin:ident $regime:ident $name:ident $summary:literal,)*) => {
        /// Every rule: BuildKit's in the order of its list, then our own.
        pub const RULES: &[Rule] = &[$(Rule {
            name: stringify!($name),
            summary: $summary,
            origin: Origin::$origin,
            regime: Regime::$regime,
            page: include_str!(concat!("rules/", stringify!($name), ".md")),
        },)*];
    };
}

rules! {
    BuildKit Always StageNameCasing "names of stages are in lower case",
    BuildKit Always FromAsCasing "FROM and AS are both in upper case or both in lower case",
    BuildKit Always NoEmptyContinuation "a continued instruction has no empty lines",
    BuildKit Always ConsistentInstructionCasing "all instructions of a recipe are in the same case",
    BuildKit Always DuplicateStageName "a name is given to one stage only",
    BuildKit Always ReservedStageName "no stage is named like something that has a meaning of its own",
    BuildKit Always JSONArgsRecommended "CMD and ENTRYPOINT are written as JSON, so that signals reach the program",
    BuildKit Always MaintainerDeprecated "authors are named by a label, not by MAINTAINER",
    BuildKit Always UndefinedArgInFrom "FROM uses declared arguments only",
    BuildKit Always WorkdirRelativePath "the first WORKDIR is absolute",
    BuildKit Always UndefinedVar "variables are defined before they are used",
    BuildKit Always MultipleInstructionsDisallowed "a stage has one CMD, ENTRYPOINT and HEALTHCHECK at most",
    BuildKit Always LegacyKeyValueFormat "ENV and LABEL are written name=value",
    BuildKit Always InvalidBaseImagePlatform "a base image is for the platform asked for",
    BuildKit Always RedundantTargetPlatform "FROM does not name the platform it has anyway",
    BuildKit Always SecretsUsedInArgOrEnv "secrets are not kept in ARG or ENV",
    BuildKit Always InvalidDefaultArgInFrom "FROM names an image without any --build-arg",
    BuildKit Always FromPlatformFlagConstDisallowed "FROM --platform is not a constant",
    BuildKit Always CopyIgnoredFile "COPY and ADD name no file that .dockerignore hides",
    BuildKit Always ExposeProtoCasing "the protocol in EXPOSE is in lower case",
    BuildKit Always ExposeInvalidFormat "EXPOSE names no address and no port of the host",
    BuildKit OnRequest InvalidDefinitionDescription "a comment above a stage or an argument describes it by name",
    Strata Always InvalidJSONForm "what looks like JSON is JSON",
    Strata Always UnusedBuildArg "every --build-arg is declared by an ARG",
    Strata Always SyntaxTooNew "the syntax asked for is built in",
    Strata Always MountKeyWithoutEffect "keys of --mount have an effect on mounts of that type",
    Strata Always InvalidTrigger "what follows ONBUILD is an instruction without mistakes",
    Strata Always UnknownPlatform "platforms are ones that images are made for",
    Strata Always FlagWithoutEffect "flags have an effect on their instruction",
    Strata Always InvalidCheckComment "a comment about checks can be read",
    Strata Always InvalidCacheComment "a comment about the cache can be read",
    Strata WhenChecked UnknownRule "comments about checks name rules that there are",
    Strata WhenChecked RecursiveOwnership "files get their owner and mode where they are copied",
    Strata WhenChecked AddInsteadOfCopy "ADD is only used where COPY would not do",
    Strata WhenChecked SharedCacheMount "caches of different platforms are apart",
    Strata WhenChecked UnusedStage "every stage is used or described",
    Strata OnRequest UnpinnedBaseImage "base images are named with their digest",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_those_docker_uses() {
        for (name, slug) in [
            ("JSONArgsRecommended", "json-args-recommended"),
            ("FromAsCasing", "from-as-casing"),
            ("SecretsUsedInArgOrEnv", "secrets-used-in-arg-or-env"),
        ] {
            let url = find(name).and_then(Rule::url);
            assert_eq!(url, Some(format!("https://docs.docker.com/go/dockerfile/rule/{slug}/")));
        }
        assert_eq!(find("UnusedStage").and_then(Rule::url), None);
    }

    #[test]
    fn misspelt_names_have_a_nearest() {
        assert_eq!(nearest_to("StageNameCaseing"), Some("StageNameCasing"));
        assert_eq!(nearest_to("jsonargsrecommended"), Some("JSONArgsRecommended"));
        assert_eq!(nearest_to("nothing like it at all"), None);
    }
}
