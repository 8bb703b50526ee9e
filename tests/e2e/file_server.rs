//! A web server for one directory, honest or not.
//!
//! Serves `/files/PATH` with an `ETag` and `Last-Modified`, and answers questions that name the tag. Below `/cut/`,
//! `/redirect/` and `/endless/` the same files come badly, below `/undated/` without their time, and below `/named/` with a
//! `Content-Disposition` that calls them otherwise. Everything that was asked is written down.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// The time every file was changed, as headers have it, and in seconds since 1970.
pub(crate) const MODIFIED: (&str, u64) = ("Wed, 21 Oct 2015 07:28:00 GMT", 1_445_412_480);

/// A server that runs until the test program ends.
#[derive(Debug)]
pub(crate) struct FileServer {
    address: String,
    log: Arc<Mutex<Vec<String>>>,
}

impl FileServer {
    /// Serves a directory.
    pub(crate) fn start(root: &Path) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let log = Arc::new(Mutex::new(Vec::new()));
        let (root, written) = (root.to_owned(), log.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().filter_map(Result::ok) {
                let (root, log) = (root.clone(), written.clone());
                // A client that gives up is part of what is tested.
                std::thread::spawn(move || answer(stream, &root, &log).ok());
            }
        });
        Self { address, log }
    }

    /// The address of a path, such as `/files/a.txt`.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// The questions so far: status and path.
    pub(crate) fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }
}

fn answer(stream: TcpStream, root: &Path, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let path = line.split_whitespace().nth(1).unwrap_or("/").split('?').next().unwrap_or("/").to_owned();
    let mut tag = None;
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("if-none-match")
        {
            tag = Some(value.trim().to_owned());
        }
    }
    let (kind, rest) = path.trim_start_matches('/').split_once('/').unwrap_or(("", ""));
    let body = std::fs::read(PathBuf::from(root).join(rest)).ok();
    let (status, headers, body) = match (kind, body) {
        ("redirect", _) => ("302 Found", format!("Location: /files/{rest}\r\n"), Vec::new()),
        ("files" | "cut" | "endless" | "undated" | "named", Some(body)) => {
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
