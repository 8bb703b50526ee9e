//! A registry that serves an OCI layout over HTTP, honestly or not.
//!
//! Takes a layout directory and a [`Lie`]; gives an address, and afterwards the requests that came. Speaks as much of the
//! distribution specification as pulling one tag takes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use serde_json::Value;

/// What is wrong with a registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    /// Nothing.
    None,
    /// One byte of every layer is another, its length is right.
    LayerByte,
    /// Layers end early, and the connection with them.
    LayerCut,
    /// One byte of the configuration is another.
    ConfigByte,
    /// The manifest asked for by digest is another document.
    Manifest,
    /// Manifests are not JSON.
    NotJson,
    /// Every answer is an error of the server.
    ServerError,
    /// Every answer asks for a password over a scheme that nobody knows.
    Unauthorized,
}

/// A registry that runs until the test program ends.
#[derive(Debug)]
pub(crate) struct LyingRegistry {
    address: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl LyingRegistry {
    /// Serves the layout as every repository's tag `latest`.
    pub(crate) fn start(layout: &Path, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let served = Served { layout: layout.to_owned(), lie };
        let log = requests.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (served, log) = (served.clone(), log.clone());
                std::thread::spawn(move || served.answer_all(&stream, &log));
            }
        });
        Self { address, requests }
    }

    /// A name that stands for the layout.
    pub(crate) fn image(&self) -> String {
        format!("{}/lies/image", self.address)
    }

    /// The requests so far: method and path.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

#[derive(Debug, Clone)]
struct Served {
    layout: PathBuf,
    lie: Lie,
}

/// An answer; `length` is what the header says, which a lie may make another than the body's.
struct Answer {
    status: &'static str,
    headers: String,
    body: Vec<u8>,
    length: usize,
}

impl Answer {
    fn new(status: &'static str, headers: impl Into<String>, body: Vec<u8>) -> Self {
        Self { status, headers: headers.into(), length: body.len(), body }
    }
}

impl Served {
    fn answer_all(&self, stream: &TcpStream, log: &Mutex<Vec<String>>) {
        let mut reader = BufReader::new(stream);
        let mut writer = stream;
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line).unwrap_or(0) == 0 {
                return;
            }
            let mut words = line.split_whitespace();
            let (method, path) = (words.next().unwrap_or("").to_owned(), words.next().unwrap_or("").to_owned());
            let mut header = String::new();
            while reader.read_line(&mut header).unwrap_or(0) > 2 {
                header.clear();
            }
            log.lock().unwrap().push(format!("{method} {path}"));
            let answer = self.answer(&path);
            let head =
                format!("HTTP/1.1 {}\r\nContent-Length: {}\r\n{}\r\n", answer.status, answer.length, answer.headers);
            let body: &[u8] = if method == "HEAD" { b"" } else { &answer.body };
            if writer.write_all(head.as_bytes()).and_then(|()| writer.write_all(body)).is_err() {
                return;
            }
            if answer.length != answer.body.len() {
                let _ = stream.shutdown(std::net::Shutdown::Both);
                return;
            }
        }
    }

    fn answer(&self, path: &str) -> Answer {
        match self.lie {
            Lie::ServerError => return Answer::new("500 Internal Server Error", "", b"out of order".to_vec()),
            Lie::Unauthorized => {
                return Answer::new("401 Unauthorized", "WWW-Authenticate: Riddle realm=\"sphinx\"\r\n", Vec::new());
            }
            _ => {}
        }
        if path == "/v2/" || path == "/v2" {
            return Answer::new("200 OK", "Content-Type: application/json\r\n", b"{}".to_vec());
        }
        let reference = path.rsplit('/').next().unwrap_or("");
        if path.contains("/manifests/") {
            return self.manifest(reference);
        }
        if path.contains("/blobs/")
            && let Some(mut bytes) = self.blob(reference)
        {
            let is_layer = bytes.starts_with(&[0x1f, 0x8b]);
            let length = bytes.len();
            match self.lie {
                Lie::LayerByte if is_layer => bytes[length / 2] ^= 1,
                Lie::LayerCut if is_layer => bytes.truncate(length / 2),
                Lie::ConfigByte if !is_layer => bytes[length / 2] ^= 1,
                _ => {}
            }
            return Answer { length, ..Answer::new("200 OK", "Content-Type: application/octet-stream\r\n", bytes) };
        }
        let body = br#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#.to_vec();
        Answer::new("404 Not Found", "Content-Type: application/json\r\n", body)
    }

    fn manifest(&self, reference: &str) -> Answer {
        let index: Value = serde_json::from_slice(&fs::read(self.layout.join("index.json")).unwrap()).unwrap();
        let descriptor = &index["manifests"][0];
        let (digest, media_type) = (descriptor["digest"].as_str().unwrap(), descriptor["mediaType"].as_str().unwrap());
        if reference != "latest" && reference != digest {
            let body = br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#.to_vec();
            return Answer::new("404 Not Found", "Content-Type: application/json\r\n", body);
        }
        let mut body = self.blob(digest).unwrap();
        match self.lie {
            Lie::Manifest => body.push(b'\n'),
            Lie::NotJson => body = b"<html>please log in to the hotel's network</html>".to_vec(),
            _ => {}
        }
        Answer::new("200 OK", format!("Content-Type: {media_type}\r\nDocker-Content-Digest: {digest}\r\n"), body)
    }

    fn blob(&self, digest: &str) -> Option<Vec<u8>> {
        fs::read(self.layout.join("blobs").join(digest.replace(':', "/"))).ok()
    }
}
