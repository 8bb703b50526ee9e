//! A server that serves what a test tells it to, and breaks off, dawdles and lies as told.
//!
//! Takes a function from request to answer, gives a port on this machine and a log of what was asked. Speaks just enough
//! HTTP/1.1 for that, on a thread a connection; everything ends when it is dropped.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// What was asked.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// With its query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: BTreeMap<String, String>,
    pub(super) body: String,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// The first byte that a `Range` header asks for.
    pub(super) fn range_start(&self) -> Option<usize> {
        self.header("range")?.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok()
    }
}

/// What is answered, and how badly.
#[derive(Debug, Clone, Default)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
    /// Close the connection after this many bytes of the body.
    pub(super) cut: Option<usize>,
    /// Close the connection without a word.
    pub(super) hang_up: bool,
    /// No `Content-Length`: the body in chunks.
    pub(super) chunked: bool,
    /// Repeat the body until the client goes away.
    pub(super) endless: bool,
    /// Wait before the head.
    pub(super) head_delay: Duration,
    /// Send the body in pieces of some bytes, with a wait after each.
    pub(super) trickle: Option<(usize, Duration)>,
}

impl Answer {
    pub(super) fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    pub(super) fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// `body` as a server that knows ranges gives it.
    pub(super) fn ranged(request: &Request, body: &[u8]) -> Self {
        match request.range_start() {
            None => Self::new(200, body),
            Some(start) if start < body.len() => {
                let range = format!("bytes {start}-{}/{}", body.len() - 1, body.len());
                Self::new(206, &body[start..]).with("Content-Range", range)
            }
            Some(_) => Self::new(416, ""),
        }
    }

    pub(super) fn cut(mut self, at: usize) -> Self {
        self.cut = Some(at);
        self
    }
}

/// The running server.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `answer`, which is told the request and how many came before it.
    pub(super) fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let log = Arc::new(Mutex::new(Vec::new()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (answer, log_there, stopping_there) = (Arc::new(answer), log.clone(), stopping.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().take(1000) {
                if stopping_there.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(stream), answer, log) = (stream, answer.clone(), log_there.clone()) else { continue };
                let stopping = stopping_there.clone();
                std::thread::spawn(move || converse(stream, &*answer, &log, &stopping));
            }
        });
        Self { address, log, stopping, thread: Some(thread) }
    }

    /// The host as a reference names it.
    pub(super) fn host(&self) -> String {
        self.address.to_string()
    }

    /// Everything asked so far.
    pub(super) fn log(&self) -> Vec<Request> {
        self.log.lock().unwrap().clone()
    }

    /// `METHOD path` of everything asked so far.
    pub(super) fn lines(&self) -> Vec<String> {
        self.log().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The listener only looks up when somebody comes.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

type Log = Mutex<Vec<Request>>;

fn converse(stream: TcpStream, answer: &dyn Fn(&Request, usize) -> Answer, log: &Log, stopping: &AtomicBool) {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut stream = stream;
    while let Some(request) = read_request(&mut reader) {
        let before = {
            let mut log = log.lock().unwrap();
            log.push(request.clone());
            log.len() - 1
        };
        let answer = answer(&request, before);
        // A client that gives up in the middle is part of what is tested.
        if !send(&mut stream, &request, &answer, stopping).unwrap_or(false) {
            return;
        }
    }
}

/// The next request; `None` at the end, or where what comes is no request (such as a TLS greeting).
fn read_request(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = Vec::new();
    reader.take(8192).read_until(b'\n', &mut line).ok()?;
    let line = String::from_utf8(line).ok()?;
    let mut parts = line.split_whitespace();
    let (method, path) = (parts.next()?.to_owned(), parts.next()?.to_owned());
    parts.next().filter(|version| version.starts_with("HTTP/1."))?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.take(8192).read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").and_then(|length: &String| length.parse().ok()).unwrap_or(0_u64);
    let mut body = String::new();
    reader.take(length.min(1 << 20)).read_to_string(&mut body).ok()?;
    Some(Request { method, path, headers, body })
}

/// Sends an answer; whether the connection can go on.
fn send(stream: &mut TcpStream, request: &Request, answer: &Answer, stopping: &AtomicBool) -> std::io::Result<bool> {
    if answer.hang_up {
        return Ok(false);
    }
    std::thread::sleep(answer.head_delay);
    let mut head = format!("HTTP/1.1 {} Whatever\r\n", answer.status);
    for (name, value) in &answer.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if answer.chunked || answer.endless {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if !answer.headers.iter().any(|(name, _)| name == "Content-Length") {
        head.push_str(&format!("Content-Length: {}\r\n", answer.body.len()));
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if request.method == "HEAD" {
        return Ok(true);
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len()).min(answer.body.len())];
    loop {
        let (size, wait) = answer.trickle.unwrap_or((64 * 1024, Duration::ZERO));
        for piece in body.chunks(size) {
            if stopping.load(Ordering::SeqCst) {
                return Err(ErrorKind::Interrupted.into());
            }
            if answer.chunked || answer.endless {
                stream.write_all(format!("{:x}\r\n", piece.len()).as_bytes())?;
                stream.write_all(piece)?;
                stream.write_all(b"\r\n")?;
            } else {
                stream.write_all(piece)?;
            }
            std::thread::sleep(wait);
        }
        if !answer.endless {
            break;
        }
    }
    if answer.cut.is_some() {
        return Ok(false);
    }
    if answer.chunked {
        stream.write_all(b"0\r\n\r\n")?;
    }
    Ok(true)
}
