//! What `RUN --mount` keeps, hides and depends on, beyond what one build can show (`tests/cases/mount`).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

use crate::layout;
use crate::registry::shared;
use crate::workspace::Workspace;

/// Every file below a directory that holds the text.
fn holding(directory: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let kind = entry.file_type().unwrap();
        if kind.is_dir() {
            holding(&entry.path(), text, found);
        } else if kind.is_file() {
            let content = fs::read(entry.path()).unwrap();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(entry.path().display().to_string());
            }
        }
    }
}

#[test]
fn a_secret_is_seen_by_its_step_and_by_nothing_else() {
    const VALUE: &str = "tops3cret-value";
    let workspace = Workspace::new();
    let file = workspace.path().join("secret");
    fs::write(&file, format!("{VALUE}\n")).unwrap();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\n\
         RUN --mount=type=secret,id=s --mount=type=secret,id=s,env=S \
         cat /run/secrets/s && echo \"in a line: $S.\" && printf %s \"$S\" | wc -c >/length && echo ran-\"step\"\n",
    );
    let secret = format!("--secret=id=s,src={}", file.display());
    let build = || {
        let arguments = [shared().base_argument(), secret.clone(), workspace.layout_output("image")];
        let finished = workspace.build(arguments).run().success();
        fs::remove_dir_all(workspace.out("image.kept")).unwrap_or_default();
        fs::rename(workspace.out("image"), workspace.out("image.kept")).unwrap();
        finished
    };
    let finished = build();
    assert!(finished.stderr.contains("in a line: ***"), "{}", finished.describe());
    assert!(!finished.describe().contains(VALUE), "{}", finished.describe());
    let image = layout::read(&workspace.out("image.kept"));
    assert_eq!(image.text("length").trim(), (VALUE.len() + 1).to_string());
    let mut found = Vec::new();
    holding(&workspace.state(), VALUE, &mut found);
    holding(&workspace.out("image.kept"), VALUE, &mut found);
    assert!(found.is_empty(), "{found:?}");
    workspace.assert_nothing_left();
    // The value is not in the key; nor is the secret needed where the step is not run.
    fs::write(&file, "another value").unwrap();
    assert_eq!(build().count("ran-step"), 0);
}

#[test]
fn a_cache_outlives_the_build_and_is_not_in_the_key() {
    let workspace = Workspace::new();
    let recipe = |extra: &str| {
        format!(
            "ARG BASE\nFROM ${{BASE}}\nRUN --mount=type=cache,id=kept,target=/c{extra} echo x >>/c/f && wc -l </c/f >/lines && echo ran-\"step\"\n"
        )
    };
    let build = |arguments: &[&str]| {
        let base = shared().base_argument();
        workspace.build([&["-t", "x", &base], arguments].concat()).run().success()
    };
    workspace.dockerfile(&recipe(""));
    assert_eq!(build(&[]).count("ran-step"), 1);
    // The cache has changed since, and the step is not run again; nor if it only shares the cache in another way.
    assert_eq!(build(&[]).count("ran-step"), 0);
    workspace.dockerfile(&recipe(",sharing=locked"));
    assert_eq!(build(&[]).count("ran-step"), 0);
    workspace.dockerfile(&recipe(",sharing=private"));
    let output = workspace.layout_output("image");
    assert_eq!(build(&["--no-cache", &output]).count("ran-step"), 1);
    assert_eq!(layout::read(&workspace.out("image")).text("lines").trim(), "2", "what the first build wrote is there");
    workspace.assert_nothing_left();
}

#[test]
fn a_step_depends_on_what_its_bind_mounts_show() {
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\n\
         FROM ${BASE} AS made\nCOPY made.txt /d/\nCOPY aside.txt /aside/\n\
         FROM ${BASE}\n\
         RUN --mount=source=dir,target=/src --mount=from=made,source=/d,target=/made cat /src/* /made/* && echo ran-\"step\"\n",
    );
    for file in ["dir/a.txt", "other.txt", "made.txt", "aside.txt"] {
        workspace.write(file, "one\n");
    }
    let ran = || {
        let finished = workspace.build(["-t", "x", &shared().base_argument()]).run().success();
        finished.count("ran-step") == 1
    };
    assert!(ran(), "the first time");
    assert!(!ran(), "nothing changed");
    workspace.write("other.txt", "two\n");
    assert!(!ran(), "a file that is not shown changed");
    workspace.write("aside.txt", "two\n");
    assert!(!ran(), "a file of the stage that is not shown changed");
    workspace.write("dir/a.txt", "two\n");
    assert!(ran(), "a file that is shown changed");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(workspace.context().join("dir/a.txt"), mode).unwrap();
    assert!(ran(), "its mode changed");
    workspace.write("dir/b.txt", "");
    assert!(ran(), "a file came");
    workspace.write("made.txt", "two\n");
    assert!(ran(), "a file of the stage that is shown changed");
    assert!(!ran(), "nothing changed");
}

#[test]
fn a_step_talks_to_the_agent_through_a_socket_of_its_own() {
    let workspace = Workspace::new();
    let socket = workspace.path().join("agent");
    let agent = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in agent.incoming().flatten() {
            let mut asked = [0; 1];
            if stream.read_exact(&mut asked).is_ok() {
                let _ = stream.write_all(b"!");
            }
        }
    });
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\n\
         RUN --mount=type=ssh,mode=0620 --mount=type=ssh,id=other,target=/o \
         test -S \"$SSH_AUTH_SOCK\" && echo \"$SSH_AUTH_SOCK $(stat -c %a \"$SSH_AUTH_SOCK\") $(stat -c %a /o)\" >/out\n",
    );
    let build = workspace.build([
        &shared().base_argument(),
        "--ssh=default",
        &format!("--ssh=other={}", socket.display()),
        &workspace.layout_output("image"),
    ]);
    build.env("SSH_AUTH_SOCK", &socket).run().success();
    let image = layout::read(&workspace.out("image"));
    assert_eq!(image.text("out"), "/run/buildkit/ssh_agent.0 620 600\n");
    assert!(!image.tree.contains_key("run/buildkit"), "the socket's directory is in the layer");
    workspace.assert_nothing_left();
}

#[test]
fn what_is_wrong_with_secrets_agents_and_entitlements_is_said_before_anything_runs() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo ran-\"step\"\n");
    for (flag, needles) in [
        ("--secret=id=x,src=/no/such/file", &["/no/such/file", "No such file"][..]),
        ("--secret=src=/etc/passwd", &["no id"]),
        ("--secret=id=x,colour=red", &["colour"]),
        ("--ssh=default", &["SSH_AUTH_SOCK"]),
        ("--ssh=key=/etc/passwd", &["keys given by path", "ssh-add"]),
        ("--allow=everything", &["everything", "security.insecure"]),
    ] {
        let finished = workspace.build([&shared().base_argument(), flag]).run().fails(2, needles);
        assert_eq!(finished.count("ran-step"), 0, "{flag}");
    }
}
