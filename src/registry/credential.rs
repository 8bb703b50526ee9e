//! The user's credentials, as Docker and Podman store them.
//!
//! Takes files in the format of Docker's `config.json`, gives what they hold for a host, asking a credential helper where
//! they name one. Never writes, and never shows a secret: [`Secret`] prints as `***`, and errors about a file say where it
//! is wrong but quote nothing of it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use docker_credential::{CredentialRetrievalError, DockerCredential};
use serde::Deserialize;
use serde_json::{Value, json};

use super::error::{Error, LoginOrigin};
use crate::settings::Host;

/// A text that must not be seen.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret(String);

impl Secret {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself: for the request it belongs in, and nothing else.
    pub(super) fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What a secret of the command line shows to the host of an address, and to no other: the value of an `Authorization`
/// header (RFC 9110, 11.6.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credential {
    /// The secret's id, for messages.
    pub(super) id: String,
    pub(super) header: Secret,
}

impl Credential {
    /// A header of the secret of this id; `None` if no header can hold it.
    pub fn new(id: &str, header: String) -> Option<Self> {
        ureq::http::HeaderValue::from_str(&header).ok()?.to_str().ok()?;
        Some(Self { id: id.to_owned(), header: Secret::new(header) })
    }

    /// The secret's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The header's value: for the request or the program it belongs to, and nothing else.
    pub fn expose(&self) -> &str {
        self.header.expose()
    }
}

/// What a user shows to one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub(super) proof: Proof,
    pub(super) origin: LoginOrigin,
}

/// How a user proves who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Proof {
    Password {
        user: String,
        password: Secret,
    },
    /// A refresh token of the OAuth 2 flavour that Docker's token servers speak.
    IdentityToken(Secret),
}

/// The files that may hold credentials, in the order they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CredentialFiles(Vec<CredentialFile>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct CredentialFile {
    path: PathBuf,
    must_exist: bool,
}

impl CredentialFiles {
    /// No file: every registry is asked without credentials.
    pub fn none() -> Self {
        Self::default()
    }

    /// This one file, which must exist.
    pub fn only(path: &Path) -> Self {
        Self(vec![CredentialFile { path: path.to_owned(), must_exist: true }])
    }

    /// `$STRATA_AUTH_FILE` (which must exist), `$REGISTRY_AUTH_FILE`, Docker's `config.json` (in `$DOCKER_CONFIG`, else
    /// `~/.docker`), and Podman's `auth.json` (in `$XDG_RUNTIME_DIR/containers`, then `~/.config/containers`).
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name| environment(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = set("HOME");
        let docker = set("DOCKER_CONFIG").or_else(|| home.as_ref().map(|home| home.join(".docker")));
        let usual = [
            set("REGISTRY_AUTH_FILE"),
            docker.map(|directory| directory.join("config.json")),
            set("XDG_RUNTIME_DIR").map(|directory| directory.join("containers/auth.json")),
            home.map(|home| home.join(".config/containers/auth.json")),
        ];
        let own = set("STRATA_AUTH_FILE").map(|path| CredentialFile { path, must_exist: true });
        let usual = usual.into_iter().flatten().map(|path| CredentialFile { path, must_exist: false });
        Self(own.into_iter().chain(usual).collect())
    }

    /// What the first file that knows `host` has for it; entries for a part of its repositories (Podman's
    /// `host/path`) come before those for the whole host.
    pub(super) fn login(&self, host: &Host, repository: &str) -> Result<Option<Login>, Error> {
        for file in &self.0 {
            if let Some(login) = file.login(host, repository)? {
                return Ok(Some(login));
            }
        }
        Ok(None)
    }
}

/// The parts of `config.json` that concern credentials.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Content {
    auths: Option<BTreeMap<String, Value>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

/// Who answers for a host.
enum Found {
    Entry(Value),
    Helper { name: String, key: String },
}

impl CredentialFile {
    fn login(&self, host: &Host, repository: &str) -> Result<Option<Login>, Error> {
        let Some(content) = self.read()? else { return Ok(None) };
        let Some(found) = content.find(host, repository) else { return Ok(None) };
        // The library reads a whole file; handing it the one entry that counts leaves no doubt about which it takes, or
        // about which helper an error is from.
        let (document, key, helper) = match found {
            Found::Entry(entry) => (json!({ "auths": { host.as_str(): entry } }), host.to_string(), None),
            Found::Helper { name, key } => {
                (json!({ "credsStore": name }), key, Some(format!("docker-credential-{name}")))
            }
        };
        let path = self.path.clone();
        let proof = match docker_credential::get_credential_from_reader(document.to_string().as_bytes(), &key) {
            Ok(DockerCredential::IdentityToken(token)) => Proof::IdentityToken(Secret::new(token)),
            Ok(DockerCredential::UsernamePassword(user, password)) => {
                Proof::Password { user, password: Secret::new(password) }
            }
            Err(CredentialRetrievalError::NoCredentialConfigured) => return Ok(None),
            Err(error) if has_none(&error) => return Ok(None),
            Err(error) => return Err(explain(&error, path, helper, host)),
        };
        Ok(Some(Login { proof, origin: LoginOrigin::File { path, helper } }))
    }

    fn read(&self) -> Result<Option<Content>, Error> {
        let fail = |reason: String| Error::CredentialFile { path: self.path.clone(), reason };
        let bytes = match std::fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error)
                if !self.must_exist && matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(None);
            }
            // Another user's `auth.json` (kept by `sudo -E`) is as good as none.
            Err(error) if !self.must_exist && error.kind() == ErrorKind::PermissionDenied => return Ok(None),
            Err(error) => return Err(fail(error.to_string())),
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        // The parser's own message may quote what it stumbled over.
        let place = |error: &serde_json::Error| {
            format!("it is not valid JSON of this kind (line {}, column {})", error.line(), error.column())
        };
        serde_json::from_slice(&bytes).map(Some).map_err(|error| fail(place(&error)))
    }
}

impl Content {
    fn find(self, host: &Host, repository: &str) -> Option<Found> {
        let keys = keys(host);
        let helpers = self.cred_helpers.unwrap_or_default();
        let helper =
            keys.iter().find_map(|key| helpers.get(key).filter(|name| !name.is_empty()).map(|name| (name, key)));
        if let Some((name, key)) = helper {
            return Some(Found::Helper { name: name.clone(), key: key.clone() });
        }
        let auths = self.auths.unwrap_or_default();
        let parts = repository.match_indices('/').map(|(at, _)| &repository[..at]).chain([repository]);
        let parts: Vec<_> = parts.map(|part| format!("{host}/{part}")).collect();
        let entry = parts.iter().rev().chain(&keys).find_map(|key| auths.get(key).filter(|entry| is_usable(entry)));
        let entry = entry.or_else(|| {
            auths.iter().find(|(key, entry)| is_usable(entry) && is_for(key, host)).map(|(_, entry)| entry)
        });
        if let Some(entry) = entry {
            return Some(Found::Entry(entry.clone()));
        }
        let name = self.creds_store.filter(|name| !name.is_empty())?;
        Some(Found::Helper { name, key: keys.into_iter().next()? })
    }
}

/// The names a host has in such files, the one that `docker login` uses first.
fn keys(host: &Host) -> Vec<String> {
    if host.as_str() == "docker.io" {
        ["https://index.docker.io/v1/", "docker.io", "index.docker.io", "registry-1.docker.io"]
            .map(str::to_owned)
            .to_vec()
    } else {
        vec![host.to_string()]
    }
}

/// Whether a key written as an address, as old versions of Docker did, is for this host.
fn is_for(key: &str, host: &Host) -> bool {
    let address = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://"));
    let name = address.and_then(|rest| rest.split('/').next());
    name.is_some_and(|name| name.parse::<Host>().is_ok_and(|parsed| parsed == *host))
}

/// Whether an entry holds anything: `docker login` with a helper leaves empty ones.
fn is_usable(entry: &Value) -> bool {
    ["auth", "identitytoken", "username"].iter().any(|field| entry[field].as_str().is_some_and(|text| !text.is_empty()))
}

/// Whether a helper says, in the words all of them share, that it has nothing.
fn has_none(error: &CredentialRetrievalError) -> bool {
    let CredentialRetrievalError::HelperFailure { stdout, stderr, .. } = error else { return false };
    [stdout, stderr].iter().any(|text| text.contains("credentials not found"))
}

fn explain(error: &CredentialRetrievalError, path: PathBuf, helper: Option<String>, host: &Host) -> Error {
    let Some(helper) = helper else {
        return Error::CredentialFile { path, reason: format!("the entry for {host} cannot be decoded") };
    };
    let reason = match error {
        CredentialRetrievalError::HelperFailure { stdout, stderr, .. } => failure(stdout, stderr),
        CredentialRetrievalError::HelperCommunicationError => {
            "it cannot be run, or ended before it was asked; is it installed, and on the PATH?".to_owned()
        }
        _ => "its answer makes no sense".to_owned(),
    };
    Error::Helper { helper, path, host: host.to_string(), reason }
}

/// The first line a failing helper wrote, unless it looks like an answer (which would hold the secret).
fn failure(stdout: &str, stderr: &str) -> String {
    let lines = [stderr, stdout].into_iter().filter(|text| !text.contains("Secret")).flat_map(str::lines);
    let line = lines.map(str::trim).find(|line| !line.is_empty()).unwrap_or("it failed without a word");
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(content: &str, host: &str, repository: &str) -> Result<Option<Login>, Error> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        std::fs::write(&path, content).unwrap();
        CredentialFiles::only(&path).login(&host.parse().unwrap(), repository)
    }

    fn user(content: &str, host: &str, repository: &str) -> Option<String> {
        match login(content, host, repository).unwrap()?.proof {
            Proof::Password { user, password } => Some(format!("{user}:{}", password.expose())),
            Proof::IdentityToken(token) => Some(format!("token:{}", token.expose())),
        }
    }

    #[test]
    fn finds_the_entry_for_a_host() {
        // `dTpw` is `u:p`.
        let auth = r#"{"auth":"dTpw"}"#;
        for (auths, host, expected) in [
            (format!(r#"{{"quay.io":{auth}}}"#), "quay.io", Some("u:p")),
            (format!(r#"{{"quay.io":{auth}}}"#), "ghcr.io", None),
            (format!(r#"{{"https://quay.io/v1/":{auth}}}"#), "quay.io", Some("u:p")),
            (format!(r#"{{"http://r.lan:5000":{auth}}}"#), "r.lan:5000", Some("u:p")),
            (format!(r#"{{"https://index.docker.io/v1/":{auth}}}"#), "docker.io", Some("u:p")),
            (format!(r#"{{"docker.io":{auth}}}"#), "docker.io", Some("u:p")),
            (format!(r#"{{"quay.io/acme":{auth}}}"#), "quay.io", Some("u:p")),
            (format!(r#"{{"quay.io/other":{auth}}}"#), "quay.io", None),
            (r#"{"quay.io":{}}"#.to_owned(), "quay.io", None),
            (r#"{"quay.io":{"auth":""}}"#.to_owned(), "quay.io", None),
            (r#"{"quay.io":{"username":"a","password":"b"}}"#.to_owned(), "quay.io", Some("a:b")),
            (r#"{"quay.io":{"auth":"dTo=","identitytoken":"t"}}"#.to_owned(), "quay.io", Some("token:t")),
        ] {
            let content = format!(r#"{{"auths":{auths}}}"#);
            assert_eq!(user(&content, host, "acme/app").as_deref(), expected, "{content} for {host}");
        }
        let both =
            r#"{"auths":{"q.io":{"username":"host","password":"p"},"q.io/a":{"username":"part","password":"p"}}}"#;
        assert_eq!(user(both, "q.io", "a/b").as_deref(), Some("part:p"));
        assert_eq!(user(both, "q.io", "b/a").as_deref(), Some("host:p"));
        assert_eq!(user("", "quay.io", "a"), None);
        assert_eq!(user("{}", "quay.io", "a"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_quoting() {
        for content in [r#"{"auths": {"quay.io": {"auth": "hunter2!!"}}}"#, r#"{"auths": "hunter2!!"}"#, "hunter2!!"] {
            let error = login(content, "quay.io", "a").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(matches!(error, Error::CredentialFile { .. }), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
            assert!(shown.contains("config.json"), "{shown}");
        }
    }

    #[test]
    fn a_missing_helper_is_named() {
        for content in [r#"{"credsStore":"strata-missing"}"#, r#"{"credHelpers":{"quay.io":"strata-missing"}}"#] {
            let shown = login(content, "quay.io", "a").unwrap_err().to_string();
            assert!(shown.contains("docker-credential-strata-missing") && shown.contains("config.json"), "{shown}");
            assert!(shown.contains("quay.io"), "{shown}");
        }
    }

    #[test]
    fn helpers_answers_are_told_apart() {
        let failed = |stdout: &str| CredentialRetrievalError::HelperFailure {
            helper: "h".into(),
            stdout: stdout.into(),
            stderr: String::new(),
        };
        assert!(has_none(&failed("credentials not found in native keychain")));
        assert!(!has_none(&failed("the keychain is locked")));
        assert_eq!(failure("locked\n", ""), "locked");
        assert!(!failure(r#"{"Username":"u","Secret":"hunter2"}"#, "").contains("hunter2"));
    }

    #[test]
    fn a_secret_is_never_shown() {
        let content = r#"{"auths":{"quay.io":{"username":"a","password":"hunter2"}}}"#;
        let shown = format!("{:?}", login(content, "quay.io", "a").unwrap());
        assert!(shown.contains("***") && !shown.contains("hunter2"), "{shown}");
    }

    #[test]
    fn files_follow_the_environment() {
        let paths = |pairs: &[(&str, &str)]| -> Vec<String> {
            let find = |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            let files = CredentialFiles::from_environment(&find);
            files.0.iter().map(|file| file.path.display().to_string()).collect()
        };
        assert_eq!(
            paths(&[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/run/u")]),
            ["/h/.docker/config.json", "/run/u/containers/auth.json", "/h/.config/containers/auth.json"]
        );
        assert_eq!(
            paths(&[("STRATA_AUTH_FILE", "/s"), ("REGISTRY_AUTH_FILE", "/r"), ("DOCKER_CONFIG", "/d")]),
            ["/s", "/r", "/d/config.json"]
        );
        let missing = CredentialFiles::only(Path::new("/nonexistent/auth.json"));
        assert!(missing.login(&"a".parse().unwrap(), "b").is_err());
    }
}
