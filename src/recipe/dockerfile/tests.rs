mod corpus;
mod second_opinions;

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::diagnostic::Severity;
use crate::recipe::{CommandLine, Healthcheck, MountKind, Network, Security, Word};

fn source(text: &str) -> SourceFile {
    SourceFile { name: "Dockerfile".into(), text: text.into() }
}

/// The recipe and its messages, errors first said as they are, warnings by their rule.
fn read(text: &str) -> (Recipe, Vec<String>) {
    let (recipe, diagnostics) = parse(&source(text));
    let messages = diagnostics.into_iter().map(|diagnostic| match diagnostic.severity {
        Severity::Error => diagnostic.message,
        Severity::Warning => diagnostic.rule.unwrap_or("?").to_owned(),
    });
    (recipe, messages.collect())
}

/// The only step of a stage that has nothing else.
fn step(line: &str) -> Step {
    let (mut recipe, messages) = read(&format!("FROM base\n{line}"));
    assert_eq!(messages, Vec::<String>::new(), "{line}");
    assert_eq!(recipe.stages[0].steps.len(), 1, "{line}");
    recipe.stages[0].steps.remove(0)
}

/// What is wrong with an instruction.
fn problems(line: &str) -> Vec<String> {
    read(&format!("FROM base\n{line}\n")).1
}

fn texts(words: &[Word]) -> Vec<&str> {
    words.iter().map(|word| word.value.as_str()).collect()
}

fn shell(line: &str) -> String {
    match step(line).instruction {
        Instruction::Run(run) => match run.command {
            CommandLine::Shell(word) => word.value,
            other @ CommandLine::Exec(_) => panic!("{line}: {other:?}"),
        },
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn lines_are_joined_as_the_shell_gets_them() {
    for (text, command) in [
        ("RUN a", "a"),
        ("  run  a  b  ", "a  b"),
        ("RUN a \\\n  b", "a   b"),
        ("RUN a\\\nb", "ab"),
        ("RUN a \\  \t\n b", "a  b"),
        ("RUN a \\\r\n  b\r\n", "a   b"),
        ("RUN a \\\n# comment\n   # another\n  b", "a   b"),
        ("RUN a \\\n  # \\\n  b \\\n  c", "a   b   c"),
        ("RUN \\\n  a", "a"),
        ("RUN a \\", "a"),
        ("\\\nRUN a", "a"),
        ("RUN a \\\n\\\nb", "a b"),
        // Two escape characters do not continue a line, and neither do three.
        ("RUN a \\\\", "a \\\\"),
        ("RUN a \\\\\\", "a \\\\\\"),
        ("RUN a # b", "a # b"),
        ("RUN", ""),
        ("RUN ['a', 'b']", "['a', 'b']"),
        ("RUN [\"c:\\x\"]", "[\"c:\\x\"]"),
        ("RUN [ -f a ] && b", "[ -f a ] && b"),
        ("RUN echo \"a  b\" '$c'", "echo \"a  b\" '$c'"),
        ("RUN -- --x", "--x"),
    ] {
        assert_eq!(shell(text), command, "{text}");
    }
    let (recipe, messages) = read("FROM a\nRUN a \\\n\n  \t\n b\nRUN c");
    assert_eq!(messages, ["NoEmptyContinuation"]);
    assert_eq!(recipe.stages[0].steps[0].text, "RUN a  b");
    let (recipe, _) = read("# escape=`\nFROM a\nRUN a `\n b\nRUN c:\\\nRUN d ``\n");
    let text: Vec<_> = recipe.stages[0].steps.iter().map(|step| step.text.as_str()).collect();
    assert_eq!(text, ["RUN a  b", "RUN c:\\", "RUN d ``"]);
}

#[test]
fn steps_have_their_text_and_place() {
    for text in ["\u{feff}FROM a\r\n\r\n  RUN x \\\r\n# c\r\n  y $Z  \r\n", "FROM a\nRUN x \\\n# c\n  y $Z  \n"] {
        let (recipe, messages) = read(text);
        assert_eq!(messages, Vec::<String>::new());
        let step = &recipe.stages[0].steps[0];
        assert_eq!(step.text, "RUN x   y $Z");
        let place = |span: Span| &text[span.start..span.end];
        assert!(place(step.span).starts_with("RUN x") && place(step.span).trim_end().ends_with("$Z"), "{text:?}");
        assert_eq!(place(recipe.stages[0].base.span), "a");
        let Instruction::Run(run) = &step.instruction else { panic!() };
        let CommandLine::Shell(word) = &run.command else { panic!() };
        assert!(place(word.span).starts_with("x ") && place(word.span).ends_with("$Z"));
    }
    let text = "FROM a\nENV k=v \\\n  long=\"a b\" \\\n  z=$Y";
    let (recipe, _) = read(text);
    let Instruction::Env(pairs) = &recipe.stages[0].steps[0].instruction else { panic!() };
    let places: Vec<_> = pairs
        .iter()
        .flat_map(|pair| [&pair.name, &pair.value])
        .map(|word| &text[word.span.start..word.span.end])
        .collect();
    assert_eq!(places, ["k", "v", "long", "\"a b\"", "z", "$Y"]);
}

#[test]
fn stages_and_their_names() {
    let (recipe, messages) = read(
        "# V is the version\n# W comes too\nARG V=1 W\nFROM --platform=$BUILDPLATFORM debian:$V AS Build\nRUN a\n\n# final what ships\nfrom build as final\nCMD b\nFROM scratch\n",
    );
    assert_eq!(messages, Vec::<String>::new());
    assert_eq!(recipe.global_args.len(), 1);
    assert_eq!(descriptions(&recipe.global_args[0]), [Some("is the version"), Some("comes too")]);
    let stages: Vec<_> = recipe
        .stages
        .iter()
        .map(|stage| {
            (stage.base.value.as_str(), stage.name.as_ref().map(|name| name.value.as_str()), stage.steps.len())
        })
        .collect();
    assert_eq!(stages, [("debian:$V", Some("build"), 1), ("build", Some("final"), 1), ("scratch", None, 0)]);
    assert_eq!(recipe.stages[0].platform.as_ref().map(|word| word.value.as_str()), Some("$BUILDPLATFORM"));
    assert_eq!(recipe.stages[1].description.as_deref(), Some("what ships"));
    for line in ["FROM a b", "FROM a AS", "FROM a IS b", "FROM a AS b c"] {
        assert_eq!(problems(line), ["FROM requires either one or three arguments"], "{line}");
    }
    for name in ["1a", "a/b", "a$b", "-a", "é"] {
        let message =
            format!("invalid name for build stage: \"{name}\", name can't start with a number or contain symbols");
        assert_eq!(problems(&format!("FROM a AS {name}\nRUN lost")), [message]);
    }
}

/// What comments say of each argument of an `ARG`.
fn descriptions(step: &Step) -> Vec<Option<&str>> {
    let Instruction::Arg(arguments) = &step.instruction else { return Vec::new() };
    arguments.iter().map(|argument| argument.description.as_deref()).collect()
}

#[test]
fn comments_describe_only_what_is_below_them() {
    for (above, description) in [
        ("# V it is", Some("it is")),
        ("# other\n# V it is", Some("it is")),
        ("# V it is\n\n", Some("it is")),
        ("# V it is\n#\n", None),
        ("  # V it is", None),
        ("# v it is", None),
        ("# V", None),
        ("# Vit is", None),
    ] {
        let (recipe, _) = read(&format!("FROM a\nRUN x\n{above}\nARG V\n"));
        assert_eq!(descriptions(&recipe.stages[0].steps[1]), [description], "{above}");
    }
    let (recipe, _) = read("# syntax=docker/dockerfile:1\nFROM a AS syntax");
    assert_eq!(recipe.stages[0].description, None);
}

#[test]
fn checks_can_be_switched_off_for_one_instruction() {
    let text = "# check=skip=A\nFROM a\n# check=skip=B,C\nRUN x\nRUN y\n# CHECK = skip=all\nRUN z";
    let (recipe, messages) = read(text);
    assert_eq!(messages, Vec::<String>::new());
    let span = |step: usize| recipe.stages[0].steps[step].span;
    for (rule, skipped) in [("A", [true, true, true]), ("B", [true, false, true]), ("D", [false, false, true])] {
        assert_eq!([0, 1, 2].map(|step| recipe.checks.skips(rule, span(step))), skipped, "{rule}");
    }
    assert_eq!(read("FROM a\n# check=nonsense\nRUN x").1, ["InvalidCheckComment"]);
    // Found by fuzzing: the place was counted from the comment's start, and could be inside a character.
    let text = "FROM a\n# check = skip=A;ä=ö\nRUN x";
    let (_, diagnostics) = parse(&source(text));
    assert_eq!(&text[diagnostics[0].span.start..diagnostics[0].span.end], "ä=ö");
}

#[test]
fn variables_are_declared() {
    for keyword in ["ENV", "LABEL"] {
        for (line, pairs) in [
            ("a=b", &[("a", "b", false)] as &[_]),
            (
                "a=b c='d e' f=\"g h\" i=j\\ k l=",
                &[
                    ("a", "b", false),
                    ("c", "'d e'", false),
                    ("f", "\"g h\"", false),
                    ("i", "j\\ k", false),
                    ("l", "", false),
                ],
            ),
            ("a b c=d", &[("a", "b c=d", true)]),
            ("a  \t b ", &[("a", "b", true)]),
            ("\"a b\"=c", &[("\"a b\"", "c", false)]),
            ("a=b=c", &[("a", "b=c", false)]),
            ("a=$x", &[("a", "$x", false)]),
        ] {
            let found = match step(&format!("{keyword} {line}")).instruction {
                Instruction::Env(pairs) | Instruction::Label(pairs) => pairs,
                other => panic!("{other:?}"),
            };
            let found: Vec<_> =
                found.iter().map(|pair| (pair.name.value.as_str(), pair.value.value.as_str(), pair.legacy)).collect();
            assert_eq!(found, pairs, "{line}");
        }
        for (line, message) in [
            ("", format!("{keyword} requires at least one argument")),
            ("a", format!("{keyword} must have two arguments")),
            ("=a", format!("{keyword} names can not be blank")),
            ("a=b c", "can't find = in \"c\": must be of the form name=value".to_owned()),
            ("--x a=b", format!("unknown flag for {keyword}: --x")),
        ] {
            assert_eq!(problems(&format!("{keyword} {line}")), [message], "{line}");
        }
    }
    let Instruction::Arg(args) = step("ARG a b= c=\"d e\" f=$a").instruction else { panic!() };
    let found: Vec<_> = args
        .iter()
        .map(|arg| (arg.name.value.as_str(), arg.default.as_ref().map(|word| word.value.as_str())))
        .collect();
    assert_eq!(found, [("a", None), ("b", Some("")), ("c", Some("\"d e\"")), ("f", Some("$a"))]);
    assert_eq!(problems("ARG"), ["ARG requires at least one argument"]);
    assert_eq!(problems("ARG =a"), ["ARG names can not be blank"]);
    assert_eq!(problems("ARG --x a"), ["FlagWithoutEffect"]);
}

#[test]
fn runs_and_their_flags() {
    let line = "RUN --mount=type=cache,target=/c --mount=\"type=secret,id=s\" --network=none --security=insecure [\"a\", \"b c\"]";
    let Instruction::Run(run) = step(line).instruction else { panic!() };
    assert_eq!(run.command, CommandLine::Exec(vec!["a".to_owned(), "b c".to_owned()]));
    assert!(
        matches!(run.mounts[0].kind, MountKind::Cache { .. }) && matches!(run.mounts[1].kind, MountKind::Secret { .. })
    );
    assert_eq!(run.network.map(|network| network.value), Some(Network::None));
    assert_eq!(run.security.map(|security| security.value), Some(Security::Insecure));
    for (line, message) in [
        ("RUN --mont=a b", "unknown flag for RUN: --mont"),
        ("RUN --device=x b", "unknown flag for RUN: --device"),
        ("RUN --mount b", "missing a value on flag: --mount"),
        ("RUN --network=none --network=host b", "duplicate flag: --network"),
        ("RUN --network=wifi b", "invalid network mode \"wifi\""),
        ("RUN --network= b", "invalid network mode \"\""),
        ("RUN --security=none b", "invalid security mode \"none\""),
        ("RUN [1, 2]", "when using JSON array syntax, arrays must be comprised of strings only"),
        ("CMD --x", "unknown flag for CMD: --x"),
        ("ENTRYPOINT --x a", "unknown flag for ENTRYPOINT: --x"),
        ("SHELL", "SHELL requires at least one argument"),
        ("SHELL []", "SHELL requires at least one argument"),
        ("SHELL /bin/sh -c", "SHELL requires the arguments to be in JSON form"),
    ] {
        assert_eq!(problems(line), [message], "{line}");
    }
    let Instruction::Cmd(CommandLine::Exec(empty)) = step("CMD []").instruction else { panic!() };
    assert!(empty.is_empty());
    let Instruction::Shell(words) = step("SHELL [ \"a\" , \"-c\" ]").instruction else { panic!() };
    assert_eq!(words, ["a", "-c"]);
}

#[test]
fn files_are_brought_in() {
    let line = "COPY --from=build --chown=1:2 --chmod=u=rwX --link --parents=FALSE --exclude=*.o --exclude=x a b $c/";
    let Instruction::Copy(copy) = step(line).instruction else { panic!() };
    let value = |word: &Option<Word>| word.as_ref().map(|word| word.value.clone());
    assert_eq!(value(&copy.from).as_deref(), Some("build"));
    assert_eq!(
        (value(&copy.files.chown).as_deref(), value(&copy.files.chmod).as_deref()),
        (Some("1:2"), Some("u=rwX"))
    );
    assert_eq!((copy.files.link, copy.parents), (true, false));
    assert_eq!(texts(&copy.files.exclude), ["*.o", "x"]);
    assert_eq!((texts(&copy.files.sources), copy.files.destination.value.as_str()), (vec!["a", "b"], "$c/"));
    let Instruction::Copy(copy) = step("COPY [\"a b\", \"/c d\"]").instruction else { panic!() };
    assert_eq!((texts(&copy.files.sources), copy.files.destination.value.as_str()), (vec!["a b"], "/c d"));
    let line = "ADD --checksum=sha256:x --keep-git-dir=true --unpack=false https://a/b /";
    let Instruction::Add(add) = step(line).instruction else { panic!() };
    assert_eq!(
        (value(&add.checksum).as_deref(), add.keep_git_dir, add.unpack),
        (Some("sha256:x"), Some(true), Some(false))
    );
    for (line, message) in [
        ("COPY", "COPY requires at least two arguments: destination could not be determined"),
        (
            "ADD a",
            "ADD requires at least two arguments, but only one was provided: destination could not be determined",
        ),
        (
            "COPY [\"a\"]",
            "COPY requires at least two arguments, but only one was provided: destination could not be determined",
        ),
        ("COPY --link=maybe a b", "expecting boolean value for flag --link, not: maybe"),
        ("COPY --link= a b", "missing a value on flag: --link"),
        ("COPY --chown a b", "missing a value on flag: --chown"),
        ("COPY --unpack a b", "unknown flag for COPY: --unpack"),
        ("ADD --from=x a b", "unknown flag for ADD: --from"),
        ("COPY a <<b\nb", "COPY cannot accept a heredoc as a destination"),
    ] {
        let found = problems(line);
        assert_eq!(found, [message], "{line}");
    }
}

#[test]
fn heredocs_belong_to_their_instruction() {
    let text = "FROM a\nRUN <<EOF\nRUN no \\\n# no\nEOF\nCOPY <<a.txt <<-'b' x /d/\none $X\na.txt\n\t\ttwo\n\tb\nRUN cat <<A 3<<B\n1\nA\n2\nB\nRUN z\n";
    for text in [text.to_owned(), text.replace('\n', "\r\n")] {
        let (recipe, messages) = read(&text);
        assert_eq!(messages, Vec::<String>::new());
        let steps = &recipe.stages[0].steps;
        assert_eq!(
            steps.iter().map(|step| step.text.as_str()).collect::<Vec<_>>(),
            ["RUN <<EOF", "COPY <<a.txt <<-'b' x /d/", "RUN cat <<A 3<<B", "RUN z"]
        );
        let eol = if text.contains('\r') { "\r\n" } else { "\n" };
        let Instruction::Run(run) = &steps[0].instruction else { panic!() };
        assert_eq!(run.heredocs[0].body.value, format!("RUN no \\{eol}# no{eol}"));
        assert_eq!(&text[run.heredocs[0].body.span.start..run.heredocs[0].body.span.end], run.heredocs[0].body.value);
        assert!(text[..steps[0].span.end].ends_with("EOF") && text[steps[0].span.end..].starts_with(eol));
        let Instruction::Copy(copy) = &steps[1].instruction else { panic!() };
        assert_eq!(texts(&copy.files.sources), ["<<a.txt", "<<b", "x"]);
        let bodies: Vec<_> = copy
            .files
            .heredocs
            .iter()
            .map(|heredoc| (heredoc.name.as_str(), heredoc.body.value.trim_end(), heredoc.expand, heredoc.strip_tabs))
            .collect();
        assert_eq!(bodies, [("a.txt", "one $X", true, false), ("b", "two", false, true)]);
        let Instruction::Run(run) = &steps[2].instruction else { panic!() };
        assert_eq!(run.heredocs.iter().map(|heredoc| heredoc.fd).collect::<Vec<_>>(), [0, 3]);
    }
    // None of these announces a heredoc.
    for line in ["RUN cat <<<EOF", "RUN [\"cat\", \"<<EOF\"]", "RUN echo '<<EOF'x", "CMD cat <<EOF", "RUN it's <<EOF"] {
        assert_eq!(problems(line), Vec::<String>::new(), "{line}");
    }
    assert_eq!(problems("RUN <<EOF\nRUN x\n EOF"), ["unterminated heredoc \"EOF\""]);
    assert_eq!(problems("RUN echo $((1 << 2))"), ["unterminated heredoc \"2))\""]);
    assert_eq!(problems("RUN <<-EOF\n\tx\n\tEOF\nRUN y"), Vec::<String>::new());
    let Instruction::Copy(copy) = step("COPY [\"<<EOF\", \"/x\"]").instruction else { panic!() };
    assert_eq!((copy.files.heredocs.len(), copy.files.heredocs[0].body.value.as_str()), (1, ""));
}

#[test]
fn health_checks() {
    let line = "HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=0s --retries=3 CMD curl  x";
    let Instruction::Healthcheck(Healthcheck::Command {
        command,
        interval,
        timeout,
        start_period,
        start_interval,
        retries,
    }) = step(line).instruction
    else {
        panic!()
    };
    let CommandLine::Shell(command) = command else { panic!() };
    assert_eq!(command.value, "curl  x");
    assert_eq!((interval, timeout), (Some(Duration::from_secs(90)), Some(Duration::from_millis(500))));
    assert_eq!((start_period, start_interval, retries), (None, None, Some(3)));
    let Instruction::Healthcheck(Healthcheck::Command { command, .. }) = step("HEALTHCHECK cmd [\"a\"]").instruction
    else {
        panic!()
    };
    assert_eq!(command, CommandLine::Exec(vec!["a".to_owned()]));
    assert!(matches!(step("HEALTHCHECK none").instruction, Instruction::Healthcheck(Healthcheck::None)));
    for (line, message) in [
        ("HEALTHCHECK", "HEALTHCHECK requires at least one argument"),
        ("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments"),
        ("HEALTHCHECK CMD", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK CMD []", "missing command after HEALTHCHECK CMD"),
        ("HEALTHCHECK curl x", "unknown type \"CURL\" in HEALTHCHECK (try CMD)"),
        ("HEALTHCHECK --interval=5 CMD x", "invalid duration \"5\" for --interval"),
        ("HEALTHCHECK --timeout=1us CMD x", "interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --timeout=-1s CMD x", "interval \"timeout\" cannot be less than 1ms"),
        ("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)"),
        ("HEALTHCHECK --retries=x CMD x", "--retries is not a number: x"),
        ("HEALTHCHECK --interval=1s NONE", "FlagWithoutEffect"),
    ] {
        assert_eq!(problems(line), [message], "{line}");
    }
}

#[test]
fn everything_else() {
    for (line, text) in [
        ("WORKDIR /a b", "/a b"),
        ("USER a:b", "a:b"),
        ("STOPSIGNAL SIGKILL", "SIGKILL"),
        ("MAINTAINER A B <c>", "A B <c>"),
    ] {
        let word = match step(line).instruction {
            Instruction::Workdir(word)
            | Instruction::User(word)
            | Instruction::StopSignal(word)
            | Instruction::Maintainer(word) => word,
            other => panic!("{other:?}"),
        };
        assert_eq!(word.value, text);
    }
    let Instruction::Expose(ports) = step("EXPOSE 80 443/tcp $P").instruction else { panic!() };
    assert_eq!(texts(&ports), ["80", "443/tcp", "$P"]);
    for line in ["VOLUME /a /b", "VOLUME [\"/a\", \" /b \"]"] {
        let Instruction::Volume(paths) = step(line).instruction else { panic!() };
        assert_eq!(texts(&paths), ["/a", "/b"]);
    }
    assert_eq!(problems("VOLUME [\"\"]"), ["VOLUME specified can not be an empty string"]);
    for keyword in ["WORKDIR", "USER", "STOPSIGNAL", "MAINTAINER"] {
        assert_eq!(problems(keyword), [format!("{keyword} requires exactly one argument")]);
    }
    for keyword in ["EXPOSE", "VOLUME", "ONBUILD"] {
        assert_eq!(problems(keyword), [format!("{keyword} requires at least one argument")]);
    }
}

#[test]
fn triggers_are_recorded_and_read_again() {
    let text = "FROM a\nONBUILD  RUN --mount=type=cache,target=/c x \\\n  y\nonbuild COPY <<-EOF /f\n\tbody\n\tEOF\n";
    let (recipe, messages) = read(text);
    assert_eq!(messages, Vec::<String>::new());
    let triggers: Vec<_> = recipe.stages[0]
        .steps
        .iter()
        .map(|step| match &step.instruction {
            Instruction::Onbuild(trigger) => trigger.clone(),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(triggers[0].value, "RUN --mount=type=cache,target=/c x   y");
    assert_eq!(triggers[1].value, "COPY <<-EOF /f\n\tbody\nEOF");
    let again = parse_trigger(&triggers[0], '\\').unwrap();
    assert!(matches!(&again.instruction, Instruction::Run(run) if run.mounts.len() == 1));
    assert_eq!((again.span, again.text.as_str()), (triggers[0].span, triggers[0].value.as_str()));
    let Instruction::Copy(copy) = parse_trigger(&triggers[1], '\\').unwrap().instruction else { panic!() };
    assert_eq!(copy.files.heredocs[0].body.value, "body\n");
    for (line, message) in [
        ("ONBUILD ONBUILD RUN x", "chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
        ("ONBUILD FROM x", "FROM isn't allowed as an ONBUILD trigger"),
        ("ONBUILD maintainer x", "MAINTAINER isn't allowed as an ONBUILD trigger"),
        ("ONBUILD --x RUN x", "unknown flag for ONBUILD: --x"),
        ("ONBUILD ENV x", "ENV must have two arguments"),
        ("ONBUILD RUN [1]", "arrays must be comprised of strings only"),
    ] {
        let found = problems(line);
        assert!(found.len() == 1 && found[0].contains(message), "{line}: {found:?}");
        let trigger = line.strip_prefix("ONBUILD ").unwrap();
        assert!(parse_trigger(&Spanned::new(trigger.to_owned(), Span::default()), '\\').is_err());
    }
    // What else is wrong is wrong in the builds on top.
    for trigger in ["RUNN x", "COPY a", "RUN --mount=type=cahce x"] {
        let (recipe, messages) = read(&format!("FROM base\nONBUILD {trigger}"));
        assert_eq!(messages, ["InvalidTrigger"], "{trigger}");
        let Instruction::Onbuild(kept) = &recipe.stages[0].steps[0].instruction else { panic!() };
        assert_eq!(kept.value, trigger);
        assert!(parse_trigger(kept, '\\').is_err());
    }
    for trigger in ["", "RUN a\nRUN b", "RUN <<EOF\nx"] {
        assert!(parse_trigger(&Spanned::new(trigger.to_owned(), Span::default()), '\\').is_err(), "{trigger}");
    }
}

#[test]
fn one_mistake_does_not_hide_the_next() {
    let (recipe, messages) = read("FRMO a\nRUN x\nFROM b\nRNU y\nCOPY\nRUN z\nFROM c d\nRUN lost\nFROM e\nRUN kept\n");
    assert_eq!(
        messages,
        [
            "unknown instruction: FRMO",
            "no build stage in current context: an instruction other than ARG stands before FROM",
            "unknown instruction: RNU",
            "COPY requires at least two arguments: destination could not be determined",
            "FROM requires either one or three arguments",
        ]
    );
    assert_eq!(recipe.stages.iter().map(|stage| stage.steps.len()).collect::<Vec<_>>(), [1, 1]);
    for text in ["", "\n\n", "# only a comment\n", "\u{feff}"] {
        assert_eq!(read(text).1, ["file with no instructions"], "{text:?}");
    }
    assert_eq!(read("ARG a\n").1, ["the recipe has no build stage"]);
    assert_eq!(read("\\\n\\\n").1[0], "a continued line without an instruction");
}

#[test]
fn size_is_no_problem() {
    let many = "FROM a\n".to_owned() + &"RUN x \\\n y\n".repeat(100_000);
    let (recipe, messages) = read(&many);
    assert_eq!((recipe.stages[0].steps.len(), messages.len()), (100_000, 0));
    let continued = "FROM a\nENV ".to_owned() + &"k=v \\\n".repeat(200_000) + "k=v\n";
    let Instruction::Env(pairs) = &read(&continued).0.stages[0].steps[0].instruction else { panic!() };
    assert_eq!(pairs.len(), 200_001);
    let long = "x".repeat(10_000_000);
    let (recipe, messages) = read(&format!("FROM a\nRUN {long}\nRUN y\n"));
    assert_eq!(messages, ["this line has 10000004 bytes; a line may have at most 65535"]);
    assert_eq!(recipe.stages[0].steps.len(), 1);
    let longest = format!("FROM a\nRUN {}\nRUN y", "x".repeat(65_535 - 4));
    assert_eq!(read(&longest).1, Vec::<String>::new());
    let wrong = "FROM a\n".to_owned() + &"BAD x\n".repeat(100_000);
    let (_, diagnostics) = parse(&source(&wrong));
    assert_eq!(diagnostics.len(), 100_000);
}

proptest! {
    #[test]
    fn parsing_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        check_places(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn parsing_never_panics_on_likely_text(
        lines in prop::collection::vec("(FROM|RUN|COPY|ENV|ONBUILD|HEALTHCHECK|CMD|ARG|#|\u{feff}|) ?(--[a-z]{0,4}=?)?[ a-z=<\"'\\\\\\[\\]$,é\u{a0}-]{0,14}\\\\?\r?", 0..12),
    ) {
        check_places(&lines.join("\n"));
    }

    #[test]
    fn simple_recipes_come_back(
        base in "[a-z]{1,8}(:[0-9]{1,3})?",
        name in proptest::option::of("[a-z][a-z0-9_.-]{0,6}"),
        commands in prop::collection::vec("[a-z0-9$;&|]([a-z0-9 $;&|-]{0,20}[a-z0-9])?", 0..6),
        crlf in any::<bool>(),
    ) {
        let eol = if crlf { "\r\n" } else { "\n" };
        let head = name.as_ref().map_or(format!("FROM {base}{eol}"), |name| format!("FROM {base} AS {name}{eol}"));
        let body: String = commands.iter().map(|command| format!("RUN {command}{eol}")).collect();
        let (recipe, messages) = read(&(head + &body));
        prop_assert_eq!(messages, Vec::<String>::new());
        prop_assert_eq!(&recipe.stages[0].base.value, &base);
        prop_assert_eq!(recipe.stages[0].name.as_ref().map(|name| &name.value), name.as_ref());
        let texts: Vec<String> = recipe.stages[0].steps.iter().map(|step| step.text.clone()).collect();
        prop_assert_eq!(texts, commands.iter().map(|command| format!("RUN {command}")).collect::<Vec<_>>());
    }
}

/// Parses and checks that every place is one of the text.
fn check_places(text: &str) {
    let (recipe, diagnostics) = parse(&source(text));
    let steps = recipe.stages.iter().flat_map(|stage| &stage.steps).chain(&recipe.global_args);
    let spans = steps.map(|step| step.span).chain(diagnostics.iter().map(|diagnostic| diagnostic.span));
    for span in spans {
        assert!(text.get(span.start..span.end).is_some(), "{span:?} in {text:?}");
    }
    assert!(!recipe.stages.is_empty() || diagnostics.iter().any(Diagnostic::is_error));
    crate::diagnostic::render(&diagnostics, &source(text), false);
}
