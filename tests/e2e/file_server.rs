//! A web server for one directory, honest or not.
//!
//! Serves `/files/PATH` with an `ETag` and `Last-Modified`, and answers questions that name the tag. Below `/cut/`,
//! `/redirect/` and `/endless/` the same files come badly, below `/undated/` without their time, and below `/named/` with a
//! `Content-Disposition` that calls them otherwise. Below `/private/` they are for who shows [`TOKEN`], and below
//! `/elsewhere/PORT/` another server of this machine has them. Everything that was asked and shown is written down.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The time every file was changed, as headers have it, and in seconds since 1970.
pub(crate) const MODIFIED: (&str, u64) = ("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480);

/// What opens `/private/`: a bearer token, or the password of the user `x-access-token`.
pub(crate) const TOKEN: &str = "right-token-9a27";

/// A server that runs until the test program ends.
#[derive(Debug)]
pub(crate) struct FileServer {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
    shown: Arc<Mutex<Vec<String>>>,
}

impl FileServer {
    /// Serves a directory.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::new(Mutex::new(Vec::new()));
        let (root, written, seen) = (root.to_owned(), log.clone(), shown.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (root, log, shown) = (root.clone(), written.clone(), seen.clone());
                // A client that gives up is part of what is tested.
                std::thread::spawn(move || answer(stream, &root, &log, &shown).ok());
            }
        });
        Self { address, log, shown }
    }

    /// The address of a path, such as `/files/a.txt`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The questions so far: status and path.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    /// Every `Authorization` header that came.
    pub(crate) fn shown(&self) -> Vec<String> {
        self.shown.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, root: &Path, log: &Mutex<Vec<String>>, shown: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let asked = line.split_whitespace().nth(1).unwrap_or("/").to_owned();
    let path = asked.split('?').next().unwrap_or("/").to_owned();
    let mut authorization = None;
    let mut tag = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        let Some((name, value)) = header.split_once(':') else { continue };
        match name.to_ascii_lowercase().as_str() {
            "if-none-match" => tag = Some(value.trim().to_owned()),
            "authorization" => authorization = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let (kind, rest) = path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
    let body = std::fs::read(PathBuf::from(root).join(rest)).ok();
    let basic = STANDARD.encode(format!("x-access-token:{TOKEN}"));
    let accepted = [format!("Bearer {TOKEN}"), format!("Basic {basic}")];
    let may_have_it = authorization.as_ref().is_some_and(|value| accepted.contains(value));
    shown.lock().unwrap().extend(authorization);
    let (status, headers, body) = match (kind, body) {
        // A host that repeats what it was shown must not get it printed.
        ("private", _) if !may_have_it => {
            let last = shown.lock().unwrap().last().cloned().unwrap_or_default();
            let said = format!("{{\"message\":\"not {last}\"}}");
            ("401 Unauthorized", "WWW-Authenticate: Basic realm=\"x\"\r\n".to_owned(), said.into_bytes())
        }
        ("elsewhere", _) => {
            let (port, _) = rest.split_once('/').unwrap_or((rest, ""));
            let there = asked.split_once(port).map_or("", |(_, there)| there);
            ("302 Found", format!("Location: http://127.0.0.1:{port}{there}\r\n"), Vec::new())
        }
        ("redirect", _) => ("302 Found", format!("Location: /files/{rest}\r\n"), Vec::new()),
        ("files" | "private" | "cut" | "endless" | "undated" | "named", Some(body)) => {
            let etag = format!("\"{}\"", crate::layout::sha256(&body));
            let status = if tag.as_ref() == Some(&etag) { "304 Not Modified" } else { "200 OK" };
            let body = if status.starts_with("304") { Vec::new() } else { body };
            let more = match kind {
                "undated" => String::new(),
                "named" => "Content-Disposition: attachment; filename=\"other\"\r\n".to_owned(),
                _ => format!("Last-Modified: {}\r\n", MODIFIED.0),
            };
            (status, format!("ETag: {etag}\r\n{more}"), body)
        }
        _ => ("404 Not Found", String::new(), b"no such file".to_vec()),
    };
    log.lock().unwrap().push(format!("{} {path}", &status[..3]));
    let mut stream = &stream;
    if kind == "endless" {
        stream.write_all(format!("HTTP/1.1 200 OK\r\nConnection: close\r\n{headers}\r\n").as_bytes())?;
        loop {
            stream.write_all(&[0; 4096])?;
        }
    }
    let length = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    stream.write_all(format!("HTTP/1.1 {status}\r\n{length}{headers}\r\n").as_bytes())?;
    stream.write_all(if kind == "cut" { &body[..body.len() / 2] } else { &body })
}
