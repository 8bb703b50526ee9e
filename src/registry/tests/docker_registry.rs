//! Debian's `docker-registry`: with and without passwords, and with TLS from an authority of the test's own.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use ureq::http::{Request as HttpRequest, StatusCode};

use super::*;
use crate::registry::NoDocuments;
use crate::settings::Registry;

const PROGRAM: &str = "/usr/bin/docker-registry";

/// Whether these programs are here; says loudly which is missing.
fn has_programs(programs: &[&str]) -> bool {
    let missing: Vec<_> = programs.iter().filter(|program| !Path::new(program).exists()).collect();
    if !missing.is_empty() {
        eprintln!("SKIPPED: this test needs {missing:?} (Debian's docker-registry, apache2-utils and openssl)");
    }
    missing.is_empty()
}

/// A registry that runs until it is dropped.
struct Process {
    child: Child,
    host: String,
    directory: tempfile::TempDir,
}

impl Process {
    /// Starts one with more lines in its configuration, below `http:` and at the top.
    fn start(directory: tempfile::TempDir, http: &str, top: &str) -> Self {
        // Somebody else may take the port in between: then another is tried.
        for _ in 0..5 {
            let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let root = directory.path().display();
            let config = format!(
                "version: 0.1\nlog: {{ level: error }}\nstorage: {{ filesystem: {{ rootdirectory: {root}/data }} }}\nhttp:\n  addr: {host}\n{http}{top}"
            );
            std::fs::write(directory.path().join("config.yml"), config).unwrap();
            let mut command = Command::new(PROGRAM);
            command.arg("serve").arg(directory.path().join("config.yml")).stdout(Stdio::null()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(20) && child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Self { child, host, directory };
                }
                std::thread::sleep(Duration::from_millis(10));
            }
            child.kill().ok();
            child.wait().unwrap();
        }
        panic!("{PROGRAM} does not start");
    }

    /// Puts everything into it, the plain http way.
    fn fill(&self, repository: &Repository, authorization: Option<&str>) {
        let send = |method: &str, address: &str, media_type: &str, body: &[u8]| {
            let mut request = HttpRequest::builder().method(method).uri(address).header("Content-Type", media_type);
            if let Some(authorization) = authorization {
                request = request.header("Authorization", authorization);
            }
            let response = ureq::agent().run(request.body(body).unwrap()).unwrap();
            assert!(matches!(response.status(), StatusCode::CREATED | StatusCode::ACCEPTED), "{method} {address}");
            response.headers().get("location").unwrap().to_str().unwrap().to_owned()
        };
        let base = format!("http://{}/v2/acme/app", self.host);
        // Blobs come before manifests by name, and what an index lists before it by a second round.
        let (blobs, manifests): (Vec<_>, Vec<_>) =
            repository.0.iter().partition(|(key, _)| key.starts_with("blobs/sha256:"));
        for (key, (_, bytes)) in blobs {
            let place = send("POST", &format!("{base}/blobs/uploads/"), "application/octet-stream", b"");
            let digest = key.trim_start_matches("blobs/");
            send("PUT", &format!("{place}&digest={digest}"), "application/octet-stream", bytes);
        }
        let is_index = |media_type: &str| media_type == media_type::INDEX;
        for wanted in [false, true] {
            for (key, (media_type, bytes)) in &manifests {
                let Some(name) = key.strip_prefix("manifests/").filter(|name| !name.is_empty()) else { continue };
                if is_index(media_type) == wanted {
                    send("PUT", &format!("{base}/manifests/{name}"), media_type, bytes);
                }
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn run(program: &str, arguments: &[&str], directory: &Path) {
    let output = Command::new(program).args(arguments).current_dir(directory).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Two platforms of an image, in an index tagged `1`.
fn content() -> (Repository, Vec<u8>) {
    let layer = noise(3, 2_000_000);
    let mut repository = Repository::default();
    let amd64 = repository.image("amd64", "linux/amd64", &[&layer, b"small"]);
    let arm64 = repository.image("", "linux/arm64", &[b"arm"]);
    repository.index("1", &[arm64, amd64]);
    (repository, layer)
}

/// Resolves, and fetches the first layer.
fn pull(client: &Client, host: &str, layer: &[u8]) -> Result<(), Error> {
    let resolved = client.resolve(&reference(host, "1"), &platform("linux/amd64"), &NoDocuments)?;
    assert_eq!(resolved.platform, platform("linux/amd64"));
    assert_eq!(resolved.index.as_ref().map(|index| index.digest), Some(client.digest(&reference(host, "1"))?));
    let (sink, result) = fetch(client, host, &resolved.document.layers[0]);
    result?;
    assert!(sink == layer, "other bytes");
    Ok(())
}

#[test]
fn a_plain_registry() {
    if !has_programs(&[PROGRAM]) {
        return;
    }
    let (repository, layer) = content();
    let process = Process::start(tempfile::tempdir().unwrap(), "", "");
    process.fill(&repository, None);
    pull(&client(), &process.host, &layer).unwrap();
    let error =
        client().resolve(&reference(&process.host, "nope"), &platform("linux/amd64"), &NoDocuments).unwrap_err();
    assert!(matches!(error, Error::NotFound { .. }), "{error:?}");
    assert!(shown(&error).contains(":nope (manifest unknown)"), "{error}");
}

#[test]
fn a_registry_with_passwords() {
    if !has_programs(&[PROGRAM, "/usr/bin/htpasswd"]) {
        return;
    }
    let (repository, layer) = content();
    let directory = tempfile::tempdir().unwrap();
    run("/usr/bin/htpasswd", &["-Bbc", "passwords", "user", "hunter2"], directory.path());
    let passwords = directory.path().join("passwords").display().to_string();
    let process =
        Process::start(directory, "", &format!("auth: {{ htpasswd: {{ realm: here, path: {passwords} }} }}\n"));
    process.fill(&repository, Some("Basic dXNlcjpodW50ZXIy"));

    let error = pull(&client(), &process.host, &layer).unwrap_err();
    assert!(shown(&error).contains("none were sent"), "{error}");
    for (password, works) in [("hunter2", true), ("hunter3", false)] {
        let path = process.directory.path().join("auth.json");
        let entry = json!({ "username": "user", "password": password });
        std::fs::write(&path, json!({ "auths": { &process.host: entry } }).to_string()).unwrap();
        let result = pull(&Client::new(settings(), CredentialFiles::only(&path)), &process.host, &layer);
        assert_eq!(result.is_ok(), works, "{result:?}");
        if let Err(error) = result {
            assert!(matches!(error, Error::Unauthorized { login: Some(_), .. }), "{error:?}");
        }
    }
}

#[test]
fn a_registry_with_an_authority_of_its_own() {
    const OPENSSL: &str = "/usr/bin/openssl";
    if !has_programs(&[PROGRAM, OPENSSL]) {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let openssl = |arguments: &str| run(OPENSSL, &arguments.split(' ').collect::<Vec<_>>(), directory.path());
    let curve = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes";
    openssl(&format!("req -x509 {curve} -keyout ca.key -out ca.pem -subj /CN=test-authority -days 2"));
    openssl(&format!("req -x509 {curve} -keyout other.key -out other.pem -subj /CN=another-authority -days 2"));
    openssl(&format!("req {curve} -keyout server.key -out server.csr -subj /CN=127.0.0.1"));
    std::fs::write(directory.path().join("names"), "subjectAltName=IP:127.0.0.1\nextendedKeyUsage=serverAuth\n")
        .unwrap();
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile names");
    let root = directory.path().display().to_string();
    let process = Process::start(
        directory,
        &format!("  tls: {{ certificate: {root}/server.pem, key: {root}/server.key }}\n"),
        "",
    );

    let with = |registry: Registry| {
        let mut settings = settings();
        settings.registries.insert(process.host.parse().unwrap(), registry);
        Client::new(settings, CredentialFiles::none())
    };
    let ask = |client: &Client| client.digest(&reference(&process.host, "1")).unwrap_err();
    // The registry is empty: that it says so means that the connection stands.
    for trusting in [
        with(Registry { ca: Some(Path::new(&root).join("ca.pem")), ..Registry::default() }),
        with(Registry { insecure: true, ..Registry::default() }),
    ] {
        let error = ask(&trusting);
        assert!(matches!(error, Error::NotFound { .. }), "{}", shown(&error));
    }
    let authority = |file: &str| with(Registry { ca: Some(Path::new(&root).join(file)), ..Registry::default() });
    for (client, words) in [
        (authority("server.key"), "holds no PEM certificate"),
        (authority("none.pem"), "No such file"),
        (authority("other.pem"), "with `ca`, or allow this with `insecure = true`"),
        (client(), "with `ca`, or allow this with `insecure = true`"),
    ] {
        let text = shown(&ask(&client));
        assert!(text.contains(words) && text.contains(&process.host), "{text}");
    }
}
