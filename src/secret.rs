//! Secrets of the command line: where each one is kept, and its value when it is needed.
//!
//! Takes `--secret` as typed, gives values by id: to the step that mounts one, and to what fetches from the host that one is
//! for. Holds no value itself: a file or variable is read when it is needed and forgotten with that, so that printing,
//! hashing or storing anything here can leak nothing.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use crate::diagnostic::nearest;
use crate::recipe::list;

/// The largest secret in bytes, as in BuildKit.
const LARGEST: u64 = 500 * 1024;

/// Why a secret cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `--secret` is not as it should be.
    #[error("--secret {spec:?}: {problem}; expected id=NAME[,src=FILE|,env=VARIABLE][,type=file|env]")]
    Spec {
        /// As typed.
        spec: String,
        /// What is wrong.
        problem: String,
    },
    /// Its file cannot be read.
    #[error("the secret {id} cannot be read from {path}")]
    Read {
        /// The secret's name.
        id: String,
        /// Its file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It is too large.
    #[error("the secret {id} in {path} is larger than {LARGEST} bytes")]
    TooLarge {
        /// The secret's name.
        id: String,
        /// Its file.
        path: PathBuf,
    },
    /// A step needs one that was not given.
    #[error(
        "the secret {id} is required and was not given: add --secret id={id},src=FILE or --secret id={id},env=VARIABLE"
    )]
    Missing {
        /// Its name.
        id: String,
    },
    /// A variable cannot hold it.
    #[error("the secret {id} holds a NUL byte, so that no environment variable can hold it")]
    NulByte {
        /// Its name.
        id: String,
    },
}

/// Where a secret is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    File(PathBuf),
    Variable {
        name: String,
        /// A file that was named too: it has to be there, and the variable counts, as with Docker.
        file: Option<PathBuf>,
    },
}

impl Place {
    fn file(&self) -> Option<&PathBuf> {
        match self {
            Self::File(path) => Some(path),
            Self::Variable { file, .. } => file.as_ref(),
        }
    }
}

/// The secrets given on the command line.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Secrets(BTreeMap<String, Place>);

impl Secrets {
    /// Reads every `--secret` as `docker buildx build` does. A bare id is the environment variable of that name, or
    /// else the file of that name; the last one of an id counts. Files have to be there.
    ///
    /// # Errors
    /// [`Error::Spec`], [`Error::Read`] or [`Error::TooLarge`].
    pub fn parse(specs: &[String]) -> Result<Self, Error> {
        let mut secrets = BTreeMap::new();
        // Docker passes over an empty one, which scripts give for "none".
        for spec in specs.iter().filter(|spec| !spec.is_empty()) {
            let (id, place) = parse(spec)?;
            if let Some(path) = place.file() {
                let failed = |source| Error::Read { id: id.clone(), path: path.clone(), source };
                if std::fs::metadata(path).map_err(failed)?.len() > LARGEST {
                    return Err(Error::TooLarge { id, path: path.clone() });
                }
            }
            secrets.insert(id, place);
        }
        Ok(Self(secrets))
    }

    /// The values that can be had at any time: of variables and of files. A pipe gives its value once, and to the step.
    pub fn readable(&self) -> impl Iterator<Item = Vec<u8>> {
        let can_be_read = |place: &Place| match place {
            Place::Variable { .. } => true,
            Place::File(path) => std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file()),
        };
        let ids = self.0.iter().filter(move |(_, place)| can_be_read(place)).map(|(id, _)| id);
        ids.filter_map(|id| self.value(id).ok().flatten())
    }

    /// The value of a secret; `None` if there is no secret of that name. A variable that is not set is an empty value.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::TooLarge`].
    pub fn value(&self, id: &str) -> Result<Option<Vec<u8>>, Error> {
        let path = match self.0.get(id) {
            None => return Ok(None),
            Some(Place::Variable { name, .. }) => {
                return Ok(Some(std::env::var_os(name).unwrap_or_default().into_vec()));
            }
            Some(Place::File(path)) => path,
        };
        let mut value = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut value));
        read.map_err(|source| Error::Read { id: id.to_owned(), path: path.clone(), source })?;
        if value.len() as u64 > LARGEST {
            return Err(Error::TooLarge { id: id.to_owned(), path: path.clone() });
        }
        Ok(Some(value))
    }
}

/// Every key, and the types.
const KEYS: [&str; 5] = ["id", "src", "source", "env", "type"];
const TYPES: [&str; 2] = ["file", "env"];

fn parse(spec: &str) -> Result<(String, Place), Error> {
    let wrong = |problem: String| Error::Spec { spec: spec.to_owned(), problem };
    let (mut id, mut source, mut variable, mut kind) = (None, None, None, None);
    for field in list::fields(spec).map_err(|error| wrong(error.to_string()))? {
        let Some((key, value)) = field.content.split_once('=') else {
            return Err(wrong(format!("{:?} is no key=value", field.content)));
        };
        let value = value.to_owned();
        match key.to_ascii_lowercase().as_str() {
            "id" => id = Some(value),
            "src" | "source" => source = Some(value),
            "env" => variable = Some(value),
            "type" if TYPES.contains(&value.as_str()) => kind = Some(value),
            "type" => return Err(wrong(format!("there is no type {value:?}{}", meant(&value, &TYPES)))),
            _ => return Err(wrong(format!("there is no key {key:?}{}", meant(key, &KEYS)))),
        }
    }
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    let (mut source, mut variable) = (given(source), given(variable));
    if kind.as_deref() == Some("env") && variable.is_none() {
        variable = source.take();
    }
    let Some(id) = given(id) else { return Err(wrong("it has no id".to_owned())) };
    let place = match (variable, source) {
        (Some(name), file) => Place::Variable { name, file: file.map(PathBuf::from) },
        (None, Some(path)) => Place::File(path.into()),
        (None, None) if std::env::var_os(&id).is_some() => Place::Variable { name: id.clone(), file: None },
        (None, None) => Place::File(id.clone().into()),
    };
    Ok((id, place))
}

fn meant(word: &str, known: &[&'static str]) -> String {
    nearest(word, known.iter().copied()).map(|name| format!(", did you mean {name}?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn specs_are_read_as_buildx_reads_them() {
        let file = |path: &str| Place::File(path.into());
        let variable = |name: &str| Place::Variable { name: name.to_owned(), file: None };
        let both = |name: &str, file: &str| Place::Variable { name: name.to_owned(), file: Some(file.into()) };
        for (spec, id, place) in [
            ("id=a,src=/f", "a", file("/f")),
            ("type=file,id=a,source=/f", "a", file("/f")),
            ("\"id=a,b\",\"src=/f,g\"", "a,b", file("/f,g")),
            ("id==,src=/f", "=", file("/f")),
            ("id=a,env=B", "a", variable("B")),
            ("id=a,env=B,src=/f,type=file", "a", both("B", "/f")),
            ("id=a,src=/f,src=/g,env=", "a", file("/g")),
            ("id=no-such-variable,type=env,src=", "no-such-variable", file("no-such-variable")),
            ("id=a,type=env,src=B", "a", variable("B")),
            ("ID=a,Env=B", "a", variable("B")),
            ("id=PATH", "PATH", variable("PATH")),
            ("id=no-such-variable", "no-such-variable", file("no-such-variable")),
        ] {
            assert_eq!(parse(spec).unwrap(), (id.to_owned(), place), "{spec}");
        }
        for (spec, problem) in [
            ("a", "no key=value"),
            ("id=a,,src=/f", "no key=value"),
            ("src=/f", "no id"),
            ("id=,src=/f", "no id"),
            ("id=a,type=x", "type"),
            ("id=a,type=", "type"),
            ("id=a,type=fil", "did you mean file?"),
            ("id=a,mode=1", "no key"),
            ("id=a,sorce=1", "did you mean source?"),
            ("id=a, src=1", "no key"),
            ("id=\"a\",src=/f", "whole key=value"),
            ("\"id=a,src=/f", "missing"),
        ] {
            let error = parse(spec).unwrap_err();
            assert!(matches!(error, Error::Spec { .. }) && error.to_string().contains(problem), "{spec}: {error}");
        }
        assert_eq!(Secrets::parse(&[String::new()]).unwrap(), Secrets::default());
    }

    #[test]
    fn files_are_looked_at_at_once_and_read_when_needed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s");
        let spec = [format!("id=s,src={}", path.display())];
        assert!(matches!(Secrets::parse(&spec), Err(Error::Read { .. })));
        std::fs::write(&path, vec![b'x'; 500 * 1024 + 1]).unwrap();
        assert!(matches!(Secrets::parse(&spec), Err(Error::TooLarge { .. })));
        std::fs::write(&path, "value").unwrap();
        let secrets = Secrets::parse(&spec).unwrap();
        assert_eq!(secrets.value("s").unwrap().as_deref(), Some(&b"value"[..]));
        assert_eq!(secrets.value("t").unwrap(), None);
        assert!(!format!("{secrets:?}").contains("value"));
    }
}
