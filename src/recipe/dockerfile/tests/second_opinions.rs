//! What two other parsers make of every recipe in the repository, compared with ours.
//!
//! Compared is the sequence of instructions with the bases and names of the stages, or that a recipe is refused. Where
//! they differ, a rule of [`RULES`] must say why, by what the recipe has in it; a rule that explains nothing any more is
//! an error, so that the list stays true.

use std::fs;
use std::path::{Path, PathBuf};

use parse_dockerfile::Instruction as Second;

use super::*;

/// The other parsers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Other {
    /// `parse-dockerfile`: follows the reference, newer than the next.
    ParseDockerfile,
    /// `dockerfile-parser`: a grammar of 2020.
    DockerfileParser,
}

/// What a parser makes of a recipe: its instructions, or why it refuses it.
type Reading = Result<Vec<String>, String>;

/// A recipe and what is known of it when a difference has to be explained.
struct Subject<'a> {
    text: &'a str,
    ours: &'a Reading,
    theirs: &'a Reading,
}

/// Why another parser may differ from ours.
struct Rule {
    other: Other,
    why: &'static str,
    explains: fn(&Subject<'_>) -> bool,
}

const RULES: &[Rule] = &[
    Rule {
        other: Other::ParseDockerfile,
        why: "it leaves flags, mounts and their values to its user",
        explains: |subject| {
            subject.refused_for(&[
                "unknown flag for",
                "duplicate flag",
                "missing a value on flag",
                "expecting boolean value",
                "invalid network mode",
                "invalid duration",
                "cannot be less than",
                "mount type",
                "unexpected key",
                "doesn't support variable expansion",
            ])
        },
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it leaves the meaning of directives to its user",
        explains: |subject| {
            subject.refused_for(&["invalid check option", "only one syntax parser directive", "the frontend image"])
        },
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it keeps the arguments of ENV and LABEL as one text",
        explains: |subject| {
            subject.refused_for(&[
                "must be of the form name=value",
                "names can not be blank",
                "ENV must have two arguments",
            ])
        },
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it does not check names, paths, triggers and commands as the built-in frontend does",
        explains: |subject| {
            subject.refused_for(&[
                "invalid name for build stage",
                "isn't allowed as an ONBUILD trigger",
                "arrays must be comprised of strings only",
                "VOLUME specified can not be an empty string",
                "missing command after HEALTHCHECK CMD",
            ])
        },
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it does not see a heredoc whose word stands behind a blank",
        explains: |subject| subject.text.contains("<< ") && subject.refused_for(&["unterminated heredoc"]),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it reads triggers, which the built-in frontend only records",
        explains: |subject| subject.text.contains("ONBUILD") && subject.accepted_against("unknown instruction"),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it has no limit on the length of a line",
        explains: |subject| subject.refused_for(&["a line may have at most"]),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it takes the last of several escape characters for a continuation",
        explains: |subject| subject.text.contains("\\\\\n"),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it does not see a heredoc that is not the first word of a command, or has a descriptor",
        explains: |subject| subject.text.contains("<<") && subject.accepted_against("unknown instruction"),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it asks for an argument where the built-in frontend takes an empty command",
        explains: |subject| subject.accepted_against("instruction requires at least one argument"),
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it does not know `--` as the end of the flags",
        explains: |subject| {
            subject.text.contains(" -- ") && subject.accepted_against("requires at least two arguments")
        },
    },
    Rule {
        other: Other::ParseDockerfile,
        why: "it refuses two stages of one name, which the built-in frontend only warns of",
        explains: |subject| subject.accepted_against("duplicate stage name"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "its grammar checks no more than the shape of an instruction, and takes any word for an instruction",
        explains: |subject| subject.theirs.is_ok() && subject.ours.is_err(),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "its grammar is older than heredocs",
        explains: |subject| subject.text.contains("<<"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it does not know the byte order mark",
        explains: |subject| subject.text.starts_with('\u{feff}'),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it does not know the escape directive",
        explains: |subject| subject.text.to_lowercase().contains("escape"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it takes one argument for an ARG",
        explains: |subject| subject.fails_at("ARG ", "EOI") || subject.fails_at("ARG ", "arg_value"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it reads pairs and their values by stricter rules: no empty value, no escaped blank, no quotes inside, and only letters, digits and _ in a name",
        explains: |subject| subject.fails_at("ENV ", "env_") || subject.fails_at("ENV ", "EOI"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it takes a single word for the value of the old form of LABEL",
        explains: |subject| subject.fails_at("LABEL ", "EOI"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it knows neither all modifiers of variables nor all names of stages in FROM",
        explains: |subject| subject.fails_at("FROM ", "EOI"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it does not pass over an empty line inside an instruction, nor an instruction that has nothing",
        explains: |subject| subject.accepted_against("= expected any_breakable"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it fails on arrays that are no JSON, which the built-in frontend takes for the shell form",
        explains: |subject| subject.accepted_against("error unescaping string"),
    },
    Rule {
        other: Other::DockerfileParser,
        why: "it takes the last of several escape characters for a continuation",
        explains: |subject| subject.text.contains("\\\\\n"),
    },
];

impl Subject<'_> {
    /// We refuse it, and for one of these reasons; they do not.
    fn refused_for(&self, reasons: &[&str]) -> bool {
        let ours = self.ours.as_ref().err();
        self.theirs.is_ok() && ours.is_some_and(|ours| reasons.iter().any(|reason| ours.contains(reason)))
    }

    /// They refuse it, with a message that has this in it; we do not.
    fn accepted_against(&self, message: &str) -> bool {
        self.ours.is_ok() && self.theirs.as_ref().err().is_some_and(|theirs| theirs.contains(message))
    }

    /// Their grammar stops in a line of an instruction, and expected this.
    fn fails_at(&self, instruction: &str, expected: &str) -> bool {
        let Err(theirs) = self.theirs else { return false };
        let line = theirs.lines().find_map(|line| line.split_once(" | ")).map_or("", |(_, line)| line);
        self.ours.is_ok()
            && line.starts_with(instruction)
            && theirs.lines().last().is_some_and(|last| last.contains(expected))
    }
}

fn ours(text: &str) -> Reading {
    let (recipe, diagnostics) = parse(&source(text));
    if let Some(error) = diagnostics.into_iter().find(Diagnostic::is_error) {
        return Err(error.message);
    }
    let mut sequence: Vec<String> =
        recipe.global_args.iter().map(|step| keyword(&step.instruction).to_owned()).collect();
    for stage in &recipe.stages {
        sequence.push(from(&stage.base.value, stage.name.as_ref().map(|name| name.value.as_str())));
        sequence.extend(stage.steps.iter().map(|step| keyword(&step.instruction).to_owned()));
    }
    Ok(sequence)
}

fn from(base: &str, name: Option<&str>) -> String {
    let name = name.map(|name| format!(" AS {}", name.to_lowercase()));
    format!("FROM {base}{}", name.unwrap_or_default())
}

fn keyword(instruction: &Instruction) -> &'static str {
    match instruction {
        Instruction::Arg(_) => "ARG",
        Instruction::Env(_) => "ENV",
        Instruction::Label(_) => "LABEL",
        Instruction::Maintainer(_) => "MAINTAINER",
        Instruction::Run(_) => "RUN",
        Instruction::Copy(_) => "COPY",
        Instruction::Add(_) => "ADD",
        Instruction::Workdir(_) => "WORKDIR",
        Instruction::User(_) => "USER",
        Instruction::Cmd(_) => "CMD",
        Instruction::Entrypoint(_) => "ENTRYPOINT",
        Instruction::Expose(_) => "EXPOSE",
        Instruction::Volume(_) => "VOLUME",
        Instruction::StopSignal(_) => "STOPSIGNAL",
        Instruction::Shell(_) => "SHELL",
        Instruction::Healthcheck(_) => "HEALTHCHECK",
        Instruction::Onbuild(_) => "ONBUILD",
    }
}

fn theirs(other: Other, text: &str) -> Reading {
    match other {
        Other::ParseDockerfile => parse_dockerfile(text),
        Other::DockerfileParser => dockerfile_parser(text),
    }
}

fn parse_dockerfile(text: &str) -> Reading {
    let recipe = parse_dockerfile::parse(text).map_err(|error| error.to_string())?;
    let instructions = recipe.instructions.iter().map(|instruction| match instruction {
        Second::From(stage) => from(&stage.image.value, stage.as_.as_ref().map(|(_, name)| &*name.value)),
        Second::Arg(_) => "ARG".to_owned(),
        Second::Env(_) => "ENV".to_owned(),
        Second::Label(_) => "LABEL".to_owned(),
        Second::Maintainer(_) => "MAINTAINER".to_owned(),
        Second::Run(_) => "RUN".to_owned(),
        Second::Copy(_) => "COPY".to_owned(),
        Second::Add(_) => "ADD".to_owned(),
        Second::Workdir(_) => "WORKDIR".to_owned(),
        Second::User(_) => "USER".to_owned(),
        Second::Cmd(_) => "CMD".to_owned(),
        Second::Entrypoint(_) => "ENTRYPOINT".to_owned(),
        Second::Expose(_) => "EXPOSE".to_owned(),
        Second::Volume(_) => "VOLUME".to_owned(),
        Second::Stopsignal(_) => "STOPSIGNAL".to_owned(),
        Second::Shell(_) => "SHELL".to_owned(),
        Second::Healthcheck(_) => "HEALTHCHECK".to_owned(),
        Second::Onbuild(_) => "ONBUILD".to_owned(),
        _ => "?".to_owned(),
    });
    Ok(instructions.collect())
}

fn dockerfile_parser(text: &str) -> Reading {
    use dockerfile_parser::{Dockerfile, Instruction as Third};

    let recipe = Dockerfile::parse(text).map_err(|error| error.to_string())?;
    let instructions = recipe.instructions.iter().map(|instruction| match instruction {
        Third::From(stage) => from(&stage.image.content, stage.alias.as_ref().map(|name| name.content.as_str())),
        Third::Arg(_) => "ARG".to_owned(),
        Third::Label(_) => "LABEL".to_owned(),
        Third::Run(_) => "RUN".to_owned(),
        Third::Entrypoint(_) => "ENTRYPOINT".to_owned(),
        Third::Cmd(_) => "CMD".to_owned(),
        Third::Copy(_) => "COPY".to_owned(),
        Third::Env(_) => "ENV".to_owned(),
        Third::Misc(other) => other.instruction.content.to_uppercase(),
    });
    Ok(instructions.collect())
}

/// Every file in the repository that is a recipe, with its path from the repository's root.
fn recipes() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut left: Vec<PathBuf> = ["testdata/recipes", "tests/cases", "examples"].map(|name| root.join(name)).into();
    let mut recipes = Vec::new();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.to_string_lossy().ends_with("Dockerfile") {
            let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
            recipes.push((name, String::from_utf8_lossy(&fs::read(&path).unwrap()).into_owned()));
        }
    }
    recipes.sort();
    recipes
}

#[test]
fn every_difference_from_two_other_parsers_has_a_reason() {
    let recipes = recipes();
    assert!(recipes.len() >= 400, "only {} recipes", recipes.len());
    let mut used = vec![false; RULES.len()];
    let mut unexplained = Vec::new();
    for (name, text) in &recipes {
        let ours = ours(text);
        for other in [Other::ParseDockerfile, Other::DockerfileParser] {
            let theirs = theirs(other, text);
            let alike = match (&ours, &theirs) {
                (Ok(ours), Ok(theirs)) => ours == theirs,
                (Err(_), Err(_)) => true,
                _ => false,
            };
            if alike {
                continue;
            }
            let subject = Subject { text, ours: &ours, theirs: &theirs };
            let rule = RULES.iter().position(|rule| rule.other == other && (rule.explains)(&subject));
            match rule {
                Some(rule) => used[rule] = true,
                None => unexplained.push(format!("{other:?}: {name}\n  ours   {ours:?}\n  theirs {theirs:?}")),
            }
        }
    }
    assert!(unexplained.is_empty(), "{} differences\n{}", unexplained.len(), unexplained.join("\n"));
    let stale: Vec<_> = RULES.iter().zip(used).filter(|(_, used)| !used).map(|(rule, _)| rule.why).collect();
    assert!(stale.is_empty(), "these rules explain nothing any more: {stale:#?}");
}
