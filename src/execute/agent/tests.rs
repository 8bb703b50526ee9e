//! Agents as OpenSSH's own tools see them.

use std::os::unix::net::{UnixListener, UnixStream};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use super::*;
use crate::graph::Access;

/// Whether OpenSSH is here; says loudly if it is not.
fn has_openssh() -> bool {
    let missing: Vec<_> = ["ssh-add", "ssh-agent", "ssh-keygen"]
        .into_iter()
        .filter(|program| !Path::new("/usr/bin").join(program).exists())
        .collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: this test needs {missing:?} (Debian's openssh-client)");
    }
    missing.is_empty()
}

/// A directory with keys, and a socket as a step has it.
struct Bench {
    directory: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Makes a key with `ssh-keygen`, and gives its path.
    fn key(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let path = self.path(name);
        let mut command = Command::new("ssh-keygen");
        let made = command.args(["-q", "-C", "who@where"]).args(arguments).arg("-f").arg(&path).output().unwrap();
        assert!(made.status.success(), "{made:?}");
        path
    }

    fn start(&self, agent: &Agent) -> Forwarding {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Forwarding::start(agent, self.directory.path(), "step", Access { mode: 0o600, uid, gid }).unwrap()
    }

    /// Runs one of OpenSSH's tools on the step's socket.
    fn tool(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.current_dir(self.directory.path()).args(arguments).stdin(Stdio::null());
        command
            .env("SSH_AUTH_SOCK", self.path("step"))
            .env_remove("SSH_ASKPASS")
            .env_remove("DISPLAY")
            .output()
            .unwrap()
    }
}

fn text(output: &Output) -> String {
    [&output.stdout[..], &output.stderr[..]].concat().iter().map(|byte| char::from(*byte)).collect()
}

fn of_keys(paths: &[&Path]) -> Result<Agent, Error> {
    let paths: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    parse(&format!("k={}", paths.join(",")), None).map(|(_, agent)| agent)
}

const KINDS: [(&str, &[&str]); 4] = [
    ("ed25519", &["-t", "ed25519"]),
    ("p256", &["-t", "ecdsa", "-b", "256"]),
    ("p384", &["-t", "ecdsa", "-b", "384"]),
    ("rsa", &["-t", "rsa", "-b", "2048"]),
];

#[test]
fn keys_of_every_kind_and_form_are_listed_and_sign() {
    if !has_openssh() {
        return;
    }
    for (kind, arguments) in KINDS {
        for form in ["RFC4716", "PKCS8", "PEM"] {
            let bench = Bench::new();
            let key = bench.key(kind, &[arguments, &["-m", form, "-N", ""]].concat());
            let forwarding = bench.start(&of_keys(&[&key]).unwrap_or_else(|error| panic!("{kind} {form}: {error:?}")));
            // Only the public key is left for the tools to look at.
            std::fs::remove_file(&key).unwrap();
            let public = std::fs::read_to_string(bench.path(&format!("{kind}.pub"))).unwrap();
            let listed = text(&bench.tool("ssh-add", &["-L"]));
            let words = |text: &str| text.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&listed), words(&public), "{kind} {form}");
            assert!(!listed.contains("who@where"), "the comment is not told: {listed}");
            for hash in ["sha256", "sha512"] {
                std::fs::write(bench.path("data"), format!("{kind} {form} {hash}")).unwrap();
                std::fs::remove_file(bench.path("data.sig")).unwrap_or_default();
                let hash = format!("hashalg={hash}");
                let signed = bench.tool(
                    "ssh-keygen",
                    &["-Y", "sign", "-O", &hash, "-n", "test", "-f", &format!("{kind}.pub"), "data"],
                );
                assert!(signed.status.success(), "{kind} {form}: {}", text(&signed));
                let mut check = Command::new("ssh-keygen");
                check.args(["-Y", "check-novalidate", "-n", "test", "-s"]).arg(bench.path("data.sig"));
                let checked = check.stdin(std::fs::File::open(bench.path("data")).unwrap()).output().unwrap();
                assert!(checked.status.success(), "{kind} {form}: {}", text(&checked));
            }
            drop(forwarding);
        }
    }
}

#[test]
fn an_rsa_key_signs_as_it_is_asked_to() {
    if !has_openssh() {
        return;
    }
    let bench = Bench::new();
    let key = Key::read(&std::fs::read(bench.key("rsa", &["-t", "rsa", "-b", "3072", "-N", ""])).unwrap()).unwrap();
    for (flags, algorithm) in [(2, Some("rsa-sha2-256")), (4, Some("rsa-sha2-512")), (0, None), (1, None)] {
        let signature = key.sign(b"data", flags);
        let name = signature.as_ref().map(|signature| wire::Reader::new(signature).string().unwrap());
        assert_eq!(name, algorithm.map(str::as_bytes), "{flags}");
    }
}

#[test]
fn several_keys_are_one_agent() {
    if !has_openssh() {
        return;
    }
    let bench = Bench::new();
    let [one, two] = ["one", "two"].map(|name| bench.key(name, &["-t", "ed25519", "-N", ""]));
    let _forwarding = bench.start(&of_keys(&[&one, &two, &one]).unwrap());
    assert_eq!(text(&bench.tool("ssh-add", &["-L"])).lines().count(), 2);
}

#[test]
fn keys_that_cannot_be_used_are_refused_with_the_reason() {
    if !has_openssh() {
        return;
    }
    let bench = Bench::new();
    std::fs::write(bench.path("text"), "just text").unwrap();
    std::fs::write(bench.path("cut"), "-----BEGIN OPENSSH PRIVATE KEY-----\nb3Blbn\n").unwrap();
    std::fs::write(bench.path("rubbish"), "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n").unwrap();
    for (path, part) in [
        (bench.key("locked", &["-t", "ed25519", "-N", "secret"]), "passphrase"),
        (bench.key("locked-pem", &["-t", "rsa", "-b", "2048", "-m", "PEM", "-N", "secret"]), "passphrase"),
        (bench.key("locked-pkcs8", &["-t", "ecdsa", "-m", "PKCS8", "-N", "secret"]), "passphrase"),
        (bench.key("p521", &["-t", "ecdsa", "-b", "521", "-N", ""]), "nistp521"),
        (bench.key("p521-pem", &["-t", "ecdsa", "-b", "521", "-m", "PEM", "-N", ""]), "ECDSA on another curve"),
        (bench.key("small", &["-t", "rsa", "-b", "1024", "-N", ""]), "RSA of 2048"),
        (bench.path("small.pub"), "neither a socket nor a private key"),
        (bench.path("text"), "neither a socket nor a private key"),
        (bench.path("cut"), "cut off"),
        (bench.path("rubbish"), "damaged"),
    ] {
        match of_keys(&[&path]) {
            Err(Error::Key { source, .. }) => {
                assert!(source.to_string().contains(part), "{}: {source}", path.display());
            }
            other => panic!("{}: {other:?}", path.display()),
        }
    }
}

/// A real agent that runs until this is dropped.
struct RealAgent(Child);

impl Drop for RealAgent {
    fn drop(&mut self) {
        self.0.kill().unwrap_or_default();
        self.0.wait().map(drop).unwrap_or_default();
    }
}

#[test]
fn a_step_may_list_and_sign_and_no_more() {
    if !has_openssh() {
        return;
    }
    let bench = Bench::new();
    let socket = bench.path("real");
    let mut command = Command::new("ssh-agent");
    let _agent = RealAgent(command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap());
    let begun = Instant::now();
    while UnixStream::connect(&socket).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "ssh-agent does not start");
        std::thread::sleep(Duration::from_millis(10));
    }
    let [first, second] = ["first", "second"].map(|name| bench.key(name, &["-t", "ed25519", "-N", ""]));
    let mut add = Command::new("ssh-add");
    assert!(add.arg("-q").arg(&first).env("SSH_AUTH_SOCK", &socket).status().unwrap().success());
    for agent in [Agent::Socket(socket), of_keys(&[&first]).unwrap()] {
        let forwarding = bench.start(&agent);
        std::fs::write(bench.path("data"), "data").unwrap();
        std::fs::remove_file(bench.path("data.sig")).unwrap_or_default();
        let signed = bench.tool("ssh-keygen", &["-Y", "sign", "-n", "test", "-f", "first.pub", "data"]);
        assert!(signed.status.success(), "{}", text(&signed));
        let second = second.display().to_string();
        for refused in [&[second.as_str()][..], &["-d", "first"], &["-D"], &["-X"], &["-e", "/no/such/lib.so"]] {
            let outcome = bench.tool("ssh-add", refused);
            assert!(!outcome.status.success(), "{agent:?} {refused:?}: {}", text(&outcome));
        }
        assert_eq!(text(&bench.tool("ssh-add", &["-L"])).lines().count(), 1, "{agent:?}");
        drop(forwarding);
        std::fs::remove_file(bench.path("step")).unwrap();
    }
}

#[test]
fn only_whole_messages_of_the_allowed_kinds_reach_an_agent() {
    let bench = Bench::new();
    let agent_path = bench.path("agent");
    let agent = UnixListener::bind(&agent_path).unwrap();
    let _forwarding = bench.start(&Agent::Socket(agent_path));
    let answering = std::thread::spawn(move || {
        let (mut stream, _) = agent.accept().unwrap();
        let mut heard = Vec::new();
        while let Ok(Some(request)) = keyring::read_message(&mut stream) {
            keyring::write_message(&mut stream, &[12, 0, 0, 0, 0]).unwrap();
            heard.push(request);
        }
        heard
    });
    let mut step = UnixStream::connect(bench.path("step")).unwrap();
    let mut ask = |request: &[u8]| {
        keyring::write_message(&mut step, request).unwrap();
        keyring::read_message(&mut step).unwrap()
    };
    for (request, answer) in [
        (&[11][..], &[12, 0, 0, 0, 0][..]),
        (&[27, 0, 0, 0, 0], &[5]),
        (&[19], &[5]),
        (&[], &[5]),
        (&[13, 1], &[12, 0, 0, 0, 0]),
    ] {
        assert_eq!(ask(request).as_deref(), Some(answer), "{request:?}");
    }
    io::Write::write_all(&mut step, &[0xff; 4]).unwrap();
    assert!(
        !matches!(keyring::read_message(&mut step), Ok(Some(_))),
        "a message that is too large ends the connection"
    );
    drop(step);
    assert_eq!(answering.join().unwrap(), [vec![11], vec![13, 1]]);
}

#[test]
fn specs_are_read_as_buildx_reads_them() {
    let bench = Bench::new();
    let (socket, other) = (bench.path("a"), bench.path("b"));
    let _listening = [UnixListener::bind(&socket).unwrap(), UnixListener::bind(&other).unwrap()];
    let path = |path: &Path| path.display().to_string();
    let given = |specs: &[String]| Agents::parse_with(specs, Some(&other));
    for (spec, id, expected) in [
        ("default".to_owned(), "default", &other),
        (String::new(), "default", &other),
        (format!("x={}", path(&socket)), "x", &socket),
        (format!("={}", path(&socket)), "default", &socket),
        ("x=".to_owned(), "x", &other),
    ] {
        let agents = given(std::slice::from_ref(&spec)).unwrap();
        assert!(matches!(agents.get(id), Some(Agent::Socket(found)) if found == expected), "{spec}: {agents:?}");
    }
    for (specs, part) in [
        (vec!["x=/no/such/socket".to_owned()], "/no/such/socket"),
        (vec![format!("x={},{}", path(&socket), path(&other))], "stands alone"),
        (vec!["default".to_owned(), format!("={}", path(&socket))], "given already"),
    ] {
        let error = given(&specs).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let error = Agents::parse_with(&["default".to_owned()], None).unwrap_err().to_string();
    assert!(error.contains("SSH_AUTH_SOCK is not set"), "{error}");
}

#[test]
fn a_socket_may_lie_deep() {
    let bench = Bench::new();
    let deep = bench.path(&"x".repeat(150));
    std::fs::create_dir(&deep).unwrap();
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let agent = Agent::Keys(Arc::new(Keyring::default()));
    let forwarding = Forwarding::start(&agent, &deep, "s", Access { mode: 0o620, uid, gid }).unwrap();
    assert_eq!(forwarding.path, deep.join("s"));
    std::os::unix::fs::symlink(&deep, bench.path("short")).unwrap();
    let mut step = UnixStream::connect(bench.path("short/s")).unwrap();
    keyring::write_message(&mut step, &[11]).unwrap();
    assert_eq!(keyring::read_message(&mut step).unwrap().as_deref(), Some(&[12, 0, 0, 0, 0][..]));
}
