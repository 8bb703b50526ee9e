//! Recipes and contexts that are too large, too deep, or no text at all: through the real binary, with a limit on memory
//! and on time that nothing but a loop or a leak reaches.

use std::fmt::Write;

use crate::workspace::{Finished, Workspace};

/// How much address space a build may have: generous, since threads and mappings of files count.
const MEMORY: u64 = 2 << 30;

/// Builds under the limits. The time limit is the one that every run of the binary has.
fn build(workspace: &Workspace, arguments: &[&str]) -> Finished {
    workspace.build(arguments).limited_to(MEMORY).run()
}

/// A recipe that must be refused, with these texts and in a few words.
#[track_caller]
fn refused(recipe: &[u8], needles: &[&str]) {
    let workspace = Workspace::new();
    workspace.write("Dockerfile", recipe);
    let finished = build(&workspace, &["-t", "never"]).fails(2, needles);
    assert_short(&finished);
    workspace.assert_nothing_left();
}

/// A recipe that must give an image.
#[track_caller]
fn accepted(recipe: &str, arguments: &[&str]) {
    let workspace = Workspace::new();
    workspace.dockerfile(recipe);
    workspace.write("file", "content");
    let output = workspace.layout_output("image");
    let mut all = vec![output.as_str()];
    all.extend(arguments);
    build(&workspace, &all).success();
    workspace.assert_nothing_left();
}

/// Nobody reads more than a few screens of messages, and no terminal should have to print a line of megabytes.
#[track_caller]
fn assert_short(finished: &Finished) {
    let said = finished.stderr.len();
    assert!(said < 64 << 10, "{said} bytes of messages, which begin:\n{:.2000}", finished.stderr);
}

/// Bytes that look like nothing, the same in every run.
fn noise(length: usize, mut state: u64) -> Vec<u8> {
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn random_bytes() {
    for seed in 0..8 {
        refused(&noise(64 << 10, seed), &["Dockerfile"]);
        refused(&[b"FROM scratch\n", &noise(64 << 10, seed)[..]].concat(), &["Dockerfile"]);
    }
    refused(&noise(10 << 20, 99), &["Dockerfile"]);
}

#[test]
fn bytes_that_are_not_utf8_and_nul_bytes() {
    refused(b"FROM scratch\nENV A=\xff\xfe\nBAD \xc3\x28\n", &["Dockerfile", "line 2 is not UTF-8"]);
    // No file has such a name.
    let workspace = Workspace::new();
    workspace.write("Dockerfile", b"FROM scratch\nCOPY a\0b /\n");
    build(&workspace, &["-t", "never"]).fails(1, &["Dockerfile:2"]);
    refused(b"FROM scr\0atch\n", &["Dockerfile:1"]);
    refused(&[0; 100_000], &["Dockerfile"]);
}

#[test]
fn lines_of_ten_megabytes() {
    let long = "x".repeat(10 << 20);
    refused(format!("FROM scratch\nENV A={long}\n").as_bytes(), &["Dockerfile:2", "65535"]);
    refused(long.as_bytes(), &["Dockerfile:1"]);
    refused(format!("FROM scratch\n# {long}\n").as_bytes(), &["Dockerfile:2", "65535"]);
}

#[test]
fn one_instruction_of_ten_megabytes() {
    let mut recipe = "FROM scratch\nENV A=\\\n".to_owned();
    for _ in 0..(10 << 20) / 60_000 {
        recipe.extend([&"x".repeat(60_000), "\\\n"]);
    }
    accepted(&recipe, &[]);
    refused(recipe.replacen("ENV", "ENW", 1).as_bytes(), &["Dockerfile:2", "ENV"]);
}

#[test]
fn ten_thousand_stages() {
    let mut recipe = "FROM scratch AS s0\nCOPY file /\n".to_owned();
    for stage in 1..10_000 {
        writeln!(recipe, "FROM s{} AS s{stage}\nENV E=$E.", stage - 1).unwrap();
    }
    accepted(&recipe, &[]);
    let unused = "FROM scratch\n".to_owned()
        + &"FROM no.invalid/image AS x\nRUN y\n".repeat(10_000)
        + "FROM scratch\nCOPY file /\n";
    accepted(&unused, &[]);
}

#[test]
fn a_hundred_thousand_instructions() {
    let recipe = "FROM scratch\n".to_owned() + &"LABEL a=b\n".repeat(100_000) + "COPY file /\n";
    accepted(&recipe, &[]);
    let mistakes = "FROM scratch\n".to_owned() + &"LABLE a=b\n".repeat(100_000);
    refused(mistakes.as_bytes(), &["Dockerfile:2", "LABEL"]);
}

#[test]
fn deep_triggers() {
    refused(format!("FROM scratch\n{}ENV a=b\n", "ONBUILD ".repeat(5_000)).as_bytes(), &["Dockerfile:2", "ONBUILD"]);
    let mut recipe = "FROM scratch AS s0\n".to_owned();
    for stage in 1..2_000 {
        writeln!(recipe, "ONBUILD ENV E{stage}=1\nFROM s{} AS s{stage}", stage - 1).unwrap();
    }
    recipe.push_str("COPY file /\n");
    accepted(&recipe, &[]);
    let many = "FROM scratch AS base\n".to_owned() + &"ONBUILD LABEL a=b\n".repeat(20_000) + "FROM base\nCOPY file /\n";
    accepted(&many, &[]);
}

#[test]
fn stages_that_need_each_other() {
    refused(b"FROM b AS a\nCOPY --from=b /x /\nFROM a AS b\nCOPY --from=a /x /\n", &["Dockerfile"]);
    refused(b"FROM scratch AS a\nCOPY --from=a /x /\n", &["Dockerfile:2", "a"]);
    refused(b"FROM scratch\nCOPY --from=0 /x /\n", &["Dockerfile:2", "0"]);
    // By a trigger, a stage can be told to copy from the stage that is made of it.
    refused(
        b"FROM scratch AS base\nONBUILD COPY --from=last /x /\nFROM base AS last\nCOPY file /\n",
        &["Dockerfile", "last"],
    );
}

#[test]
fn long_values() {
    let value = "v".repeat(64 << 10);
    accepted(
        &format!("FROM scratch\nENV A=\\\n{}\\\n{}\nLABEL l=$A$A\nCOPY file /\n", &value[..40_000], &value[40_000..]),
        &[],
    );
    // Each line doubles what came before: the result would have 2^40 bytes.
    let mut doubling = "FROM scratch\nENV A0=xxxxxxxxxx\n".to_owned();
    for line in 1..40 {
        writeln!(doubling, "ENV A{line}=$A{0}$A{0}", line - 1).unwrap();
    }
    refused(doubling.as_bytes(), &["Dockerfile:"]);
}

#[test]
fn ten_thousand_build_arguments() {
    let workspace = Workspace::new();
    let mut recipe = "FROM scratch\n".to_owned();
    let mut arguments = vec![workspace.layout_output("image")];
    for number in 0..10_000 {
        writeln!(recipe, "ARG A{number}").unwrap();
        arguments.push(format!("--build-arg=A{number}=value"));
    }
    workspace.dockerfile(&(recipe + "ENV E=$A0$A9999\nCOPY Dockerfile /\n"));
    workspace.build(&arguments).limited_to(MEMORY).run().success();
}

#[test]
fn an_ignore_file_of_a_hundred_thousand_patterns() {
    let workspace = Workspace::new();
    let mut patterns = String::new();
    for number in 0..100_000 {
        writeln!(patterns, "dir{number}/**/*.[oa]").unwrap();
    }
    workspace.write(".dockerignore", patterns);
    workspace.dockerfile("FROM scratch\nCOPY . /\n");
    for number in 0..50 {
        workspace.write(&format!("dir{number}/sub/file.o"), "hidden");
        workspace.write(&format!("dir{number}/sub/file.c"), "shown");
    }
    let output = workspace.layout_output("image");
    build(&workspace, &[&output]).success();
    let image = crate::layout::read(&workspace.out("image"));
    assert!(image.tree.contains_key("dir7/sub/file.c") && !image.tree.contains_key("dir7/sub/file.o"));
}

#[test]
fn a_word_that_nests_a_hundred_thousand_times() {
    let depth = 7_000;
    let mut recipe = "FROM scratch\nENV A=\\\n".to_owned();
    for (part, times) in [("${u:-", 14), ("}", 14)] {
        for _ in 0..times {
            recipe.extend([&part.repeat(depth), "\\\n"]);
        }
    }
    accepted(&format!("{recipe}end\nCOPY file /\n"), &[]);
}
