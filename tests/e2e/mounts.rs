//! What `RUN --mount` keeps, hides and depends on, beyond what one build can show (`tests/cases/mount`).

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use crate::layout;
use crate::registry::shared;
use crate::skip::skip;
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

/// Puts a program of this machine and its libraries into the context, for a base that has neither; gives the words that
/// run it there, where the context is mounted on `/ctx`.
fn bring(workspace: &Workspace, program: &str) -> String {
    let listed = Command::new("ldd").arg(program).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    let paths = listed.split_whitespace().filter(|word| word.starts_with('/'));
    let mut loader = String::new();
    for path in paths.chain([program]) {
        let name = path.rsplit('/').next().unwrap();
        fs::copy(path, workspace.write(&format!("bin/{name}"), "")).unwrap();
        if name.starts_with("ld-linux") {
            name.clone_into(&mut loader);
        }
    }
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(workspace.context().join("bin").join(&loader), mode).unwrap();
    format!("/ctx/bin/{loader} --library-path /ctx/bin /ctx/bin/{}", program.rsplit('/').next().unwrap())
}

#[test]
fn a_step_lists_the_keys_of_agents_and_of_files_through_a_socket_of_its_own() {
    const SSH_ADD: &str = "/usr/bin/ssh-add";
    if !Path::new(SSH_ADD).exists() {
        return skip("SSH keys in a step", "there is no ssh-add; Debian's openssh-client has it");
    }
    let workspace = Workspace::new();
    let [one, two] = ["one", "two"].map(|name| {
        let path = workspace.path().join(name);
        let mut keygen = Command::new("ssh-keygen");
        crate::registry::run(keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(&path));
        path.display().to_string()
    });
    let socket = workspace.path().join("agent");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 5];
            while stream.read_exact(&mut asked).is_ok() {
                assert_eq!(asked, [0, 0, 0, 1, 11], "only what is allowed comes through");
                stream.write_all(&[0, 0, 0, 5, 12, 0, 0, 0, 0]).unwrap();
            }
        }
    });
    let ssh_add = bring(&workspace, SSH_ADD);
    workspace.dockerfile(&format!(
        "ARG BASE\nFROM ${{BASE}}\n\
         RUN --mount=target=/ctx --mount=type=ssh,mode=0620 --mount=type=ssh,id=keys,target=/keys \
         test -S \"$SSH_AUTH_SOCK\" && echo \"$SSH_AUTH_SOCK $(stat -c %a \"$SSH_AUTH_SOCK\") $(stat -c %a /keys)\" >/out; \
         {ssh_add} -l >>/out; {ssh_add} -D 2>/dev/null && echo removed >>/out; \
         SSH_AUTH_SOCK=/keys {ssh_add} -L | cut -d ' ' -f 1,2 >>/out; SSH_AUTH_SOCK=/keys {ssh_add} -D 2>/dev/null && echo removed >>/out; true\n",
    ));
    let build = workspace.build([
        &shared().base_argument(),
        "--ssh=default",
        &format!("--ssh=keys={one},{two}"),
        &workspace.layout_output("image"),
    ]);
    let finished = build.env("SSH_AUTH_SOCK", &socket).run().success();
    let image = layout::read(&workspace.out("image"));
    let public = |path: &str| {
        let text = fs::read_to_string(format!("{path}.pub")).unwrap();
        text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
    };
    let expected = format!(
        "/run/buildkit/ssh_agent.0 620 600\nThe agent has no identities.\n{}\n{}\n",
        public(&one),
        public(&two)
    );
    assert_eq!(image.text("out"), expected, "{}", finished.describe());
    assert!(!image.tree.contains_key("run/buildkit") && !image.tree.contains_key("keys"), "a socket is in the layer");
    let mut found = Vec::new();
    let private = fs::read_to_string(&one).unwrap();
    holding(&workspace.state(), private.lines().nth(2).unwrap(), &mut found);
    assert!(found.is_empty(), "{found:?}");
    workspace.assert_nothing_left();
}

#[test]
fn a_secret_is_in_no_other_process_and_on_no_disk() {
    const VALUE: &str = "s3cret-in-memory-only";
    let workspace = Workspace::new();
    workspace.dockerfile(
        "ARG BASE\nFROM ${BASE}\n\
         RUN --mount=type=secret,id=v,env=V --mount=type=secret,id=f,target=/f \
         test -s /f && echo \"$V\" | tee /dev/stderr && echo now-\"waiting\" && sleep 3 && test -n \"$V\"\n\
         RUN test -z \"$V\" && ! cat /proc/*/environ | grep -q STRATA_TEST_SECRET && test ! -e /f\n",
    );
    let file = workspace.path().join("secret");
    fs::write(&file, VALUE).unwrap();
    let build = workspace.build([
        shared().base_argument(),
        "--secret=id=v,env=STRATA_TEST_SECRET".to_owned(),
        format!("--secret=id=f,src={}", file.display()),
        "-t=x".to_owned(),
    ]);
    let mut running = build.env("STRATA_TEST_SECRET", VALUE).start();
    running.wait_for("now-waiting");
    // The step's own processes have it in a variable, and Strata itself in the one that it was given in.
    let mut with_it = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
        let environ = read("environ");
        if environ.windows(VALUE.len()).any(|window| window == VALUE.as_bytes()) {
            let variables = String::from_utf8_lossy(&environ).replace('\0', "\n");
            let name = variables.lines().find(|line| line.ends_with(VALUE)).unwrap_or_default().to_owned();
            with_it.push((String::from_utf8_lossy(&read("comm")).trim().to_owned(), name));
        }
        assert!(!read("cmdline").windows(VALUE.len()).any(|window| window == VALUE.as_bytes()), "in an argument");
    }
    let mut found = Vec::new();
    holding(&workspace.state(), VALUE, &mut found);
    assert!(found.is_empty(), "while it runs: {found:?}");
    let finished = running.wait().success();
    assert!(!finished.describe().contains(VALUE), "{}", finished.describe());
    assert!(with_it.iter().any(|(_, variable)| variable.starts_with("V=")), "the step has it: {with_it:?}");
    let strangers: Vec<_> = with_it
        .iter()
        .filter(|(process, variable)| {
            // The first process of a sandbox is a copy of Strata's that steps cannot look into: the second step tries.
            let strata = (process.starts_with("strata") || process == "init") && variable.starts_with("STRATA_TEST_");
            let step = ["sh", "sleep"].contains(&process.as_str()) && variable.starts_with("V=");
            !(strata || step)
        })
        .collect();
    assert!(strangers.is_empty(), "{strangers:?}");
    holding(&workspace.state(), VALUE, &mut found);
    assert!(found.is_empty(), "afterwards: {found:?}");
}

#[test]
fn what_is_wrong_with_secrets_agents_and_entitlements_is_said_before_anything_runs() {
    let workspace = Workspace::new();
    workspace.dockerfile("ARG BASE\nFROM ${BASE}\nRUN echo ran-\"step\"\n");
    for (flag, needles) in [
        ("--secret=id=x,src=/no/such/file", &["/no/such/file", "No such file"][..]),
        ("--secret=src=/etc/passwd", &["no id"]),
        ("--secret=id=x,colour=red", &["colour"]),
        ("--secret=id=x,scr=/etc/passwd", &["scr", "did you mean src?"]),
        ("--secret=id=x,type=flie", &["flie", "did you mean file?"]),
        ("--ssh=default", &["SSH_AUTH_SOCK"]),
        ("--ssh=key=/etc/passwd", &["/etc/passwd", "neither a socket nor a private key"]),
        ("--ssh=key=/no/such/key", &["/no/such/key", "No such file"]),
        ("--allow=everything", &["everything", "security.insecure"]),
    ] {
        let finished = workspace.build([&shared().base_argument(), flag]).run().fails(2, needles);
        assert_eq!(finished.count("ran-step"), 0, "{flag}");
    }
}
