//! Blobs from servers that break off, lie, dawdle and refuse.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;

use super::server::{Answer, Request, Server};
use super::*;
use crate::registry::Phase;

const SIZE: usize = 300_000;

fn blob() -> (Vec<u8>, Descriptor) {
    let bytes = noise(1, SIZE);
    let descriptor = Descriptor::new(media_type::LAYER, Digest::of(&bytes), SIZE as u64);
    (bytes, descriptor)
}

type Script = fn(&Request, usize, &[u8]) -> Answer;

fn run(script: Script, settings: Settings) -> (Vec<u8>, Result<(), Error>, Vec<Request>) {
    let (bytes, descriptor) = blob();
    let server = Server::start(move |request, before| script(request, before, &bytes));
    let (sink, result) = fetch(&Client::new(settings, CredentialFiles::none()), &server.host(), &descriptor);
    (sink, result, server.log())
}

#[test]
fn what_can_be_mended_is_mended() {
    let table: &[(&str, usize, Script)] = &[
        ("a good server", 1, |request, _, blob| Answer::ranged(request, blob)),
        ("chunked", 1, |_, _, blob| Answer { chunked: true, ..Answer::new(200, blob) }),
        ("dropped at the first byte", 2, |request, n, blob| match n {
            0 => Answer::ranged(request, blob).cut(0),
            _ => Answer::ranged(request, blob),
        }),
        ("dropped again and again", 5, |request, n, blob| match n {
            0..4 => Answer::ranged(request, blob).cut([1, 70_001, 4, 131_072][n]),
            _ => Answer::ranged(request, blob),
        }),
        ("dropped by a server without ranges", 4, |_, n, blob| match n {
            0..3 => Answer::new(200, blob).cut([100_000, 50_000, 200_000][n]),
            _ => Answer::new(200, blob),
        }),
        ("ranges refused", 3, |request, n, blob| match n {
            0 => Answer::new(200, blob).cut(1000),
            _ if request.range_start().is_some() => Answer::new(416, ""),
            _ => Answer::new(200, blob),
        }),
        ("another range than asked for", 3, |request, n, blob| match request.range_start() {
            None if n == 0 => Answer::new(200, blob).cut(1000),
            None => Answer::new(200, blob),
            Some(_) => Answer::new(206, &blob[5..]).with("Content-Range", format!("bytes 5-{}/{SIZE}", SIZE - 1)),
        }),
        ("hung up without an answer", 2, |_, n, blob| Answer { hang_up: n == 0, ..Answer::new(200, blob) }),
        ("errors that pass", 4, |_, n, blob| match n {
            0..3 => Answer::new([500, 503, 408][n], "down"),
            _ => Answer::new(200, blob),
        }),
        ("too many requests", 2, |_, n, blob| match n {
            0 => Answer::new(429, "").with("Retry-After", 0),
            _ => Answer::new(200, blob),
        }),
        ("a chunked body dropped", 2, |request, n, blob| match n {
            0 => Answer { chunked: true, ..Answer::new(200, blob) }.cut(200_000),
            _ => Answer::ranged(request, blob),
        }),
    ];
    for (name, questions, script) in table {
        let (sink, result, log) = run(*script, settings());
        assert!(result.is_ok(), "{name}: {}", shown(&result.unwrap_err()));
        assert!(sink == blob().0, "{name}: other bytes");
        assert_eq!(log.len(), *questions, "{name}: {log:?}");
    }
}

#[test]
fn a_transfer_is_taken_up_where_it_broke() {
    let (_, _, log) = run(
        |request, n, blob| {
            if n == 0 { Answer::ranged(request, blob).cut(123_456) } else { Answer::ranged(request, blob) }
        },
        settings(),
    );
    assert_eq!(log[0].range_start(), None);
    assert_eq!(log[1].range_start(), Some(123_456));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn connections_may_break_anywhere(cuts in vec(0..SIZE, 0..5), knows_ranges: bool, chunked: bool) {
        let (bytes, descriptor) = blob();
        let expected = bytes.clone();
        let server = Server::start(move |request, before| {
            let answer = if knows_ranges { Answer::ranged(request, &bytes) } else { Answer::new(200, bytes.clone()) };
            Answer { cut: cuts.get(before).copied(), chunked, ..answer }
        });
        let (sink, result) = fetch(&client(), &server.host(), &descriptor);
        prop_assert!(result.is_ok(), "{:?}", result);
        prop_assert!(sink == expected);
    }
}

#[test]
fn what_cannot_be_mended_is_named() {
    type Check = fn(&Error) -> bool;
    let table: &[(&str, Script, Check, &str)] = &[
        ("missing", |_, _, _| Answer::new(404, ""), |e| matches!(e, Error::NotFound { .. }), "has no blob sha256:"),
        (
            "corrupted",
            |_, _, blob| {
                let mut wrong = blob.to_vec();
                wrong[SIZE / 2] ^= 1;
                Answer::new(200, wrong)
            },
            |e| matches!(e, Error::WrongDigest { .. }),
            "expected sha256:",
        ),
        (
            "corrupted after it was taken up",
            |request, n, blob| match n {
                0 => Answer::new(200, blob).cut(1000),
                _ => {
                    let wrong = blob.iter().map(|byte| !byte).collect::<Vec<_>>();
                    Answer::ranged(request, &wrong)
                }
            },
            |e| matches!(e, Error::WrongDigest { .. }),
            "sent wrong bytes",
        ),
        (
            "too long",
            |_, _, blob| Answer::new(200, [blob, b"more"].concat()),
            |e| matches!(e, Error::WrongSize { actual: Some(300_004), .. }),
            "sent 300004 bytes",
        ),
        (
            "too short",
            |_, _, blob| Answer::new(200, &blob[1..]),
            |e| matches!(e, Error::WrongSize { actual: Some(299_999), .. }),
            "its size is 300000",
        ),
        (
            "too short in chunks",
            |_, _, blob| Answer { chunked: true, ..Answer::new(200, &blob[..5]) },
            |e| matches!(e, Error::WrongSize { actual: Some(5), .. }),
            "sent 5 bytes",
        ),
        (
            "endless",
            |_, _, _| Answer { endless: true, ..Answer::new(200, vec![b'x'; 1000]) },
            |e| matches!(e, Error::WrongSize { actual: None, .. }),
            "more than 300000 bytes",
        ),
        (
            "always dropped",
            |request, _, blob| Answer::ranged(request, blob).cut(10),
            |e| matches!(e, Error::Interrupted { phase: Phase::Received, .. }),
            "broke while blob sha256:",
        ),
        (
            "always down",
            |_, _, _| Answer::new(503, r#"{"errors":[{"code":"DOWN","message":"back soon"}]}"#),
            |e| matches!(e, Error::Unavailable { status: 503, .. }),
            "status 503",
        ),
        (
            "busy for an hour",
            |_, _, _| Answer::new(429, "").with("Retry-After", 3600),
            |e| matches!(e, Error::RateLimited { .. }),
            "come back in 3600 s",
        ),
        ("a teapot", |_, _, _| Answer::new(418, ""), |e| matches!(e, Error::Status { status: 418, .. }), "status 418"),
        (
            "an endless redirect",
            |_, n, _| Answer::new(307, "").with("Location", format!("/{n}")),
            |e| matches!(e, Error::TooManyRedirects { .. }),
            "more than 10 times",
        ),
        (
            "a redirect to nowhere",
            |_, _, _| Answer::new(307, "").with("Location", "ftp://x/y"),
            |e| matches!(e, Error::Redirect { .. }),
            "neither https nor http",
        ),
        (
            "a redirect out of https",
            |_, _, _| Answer::new(307, "").with("Location", "http://192.0.2.1/y?Signature=hidden"),
            |e| matches!(e, Error::PlainHttp { .. }),
            "192.0.2.1",
        ),
        ("no http", |_, _, _| Answer::new(99, ""), |e| matches!(e, Error::Protocol { .. }), "does not answer in http"),
    ];
    for (name, script, check, words) in table {
        let (sink, result, _) = run(*script, settings());
        let error = result.expect_err(name);
        let text = shown(&error);
        assert!(check(&error), "{name}: {error:?}");
        assert!(text.contains(words) && text.contains("127.0.0.1:") && text.contains("acme/app"), "{name}: {text}");
        assert!(!text.contains("hidden"), "{name}: {text}");
        assert!(sink.len() <= SIZE, "{name}: the sink got {} bytes", sink.len());
    }
}

#[test]
fn silence_ends_in_a_time_out() {
    let mut settings = settings();
    settings.network.idle_timeout = Duration::from_millis(150);
    settings.network.retries = 1;
    let table: &[(&str, Script)] = &[
        ("no head", |_, _, blob| Answer { head_delay: Duration::from_secs(3), ..Answer::new(200, blob) }),
        ("no body", |_, _, blob| Answer { trickle: Some((50_000, Duration::from_secs(3))), ..Answer::new(200, blob) }),
        ("drop by drop", |_, _, blob| Answer {
            trickle: Some((1, Duration::from_millis(20))),
            ..Answer::new(200, blob)
        }),
    ];
    for (name, script) in table {
        let (_, result, _) = run(*script, settings.clone());
        let error = result.expect_err(name);
        assert!(matches!(error, Error::Timeout { .. }), "{name}: {error:?}");
        assert!(shown(&error).contains("kept silent"), "{name}: {error}");
    }
}

#[test]
fn nobody_there_is_said_at_once() {
    let (_, descriptor) = blob();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let (_, result) = fetch(&client(), &format!("127.0.0.1:{port}"), &descriptor);
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(shown(&error).contains(&format!("127.0.0.1:{port}")), "{error}");
}

#[test]
fn a_full_sink_is_not_the_hosts_fault() {
    struct Full;
    impl io::Write for Full {
        fn write(&mut self, _bytes: &[u8]) -> io::Result<usize> {
            Err(io::ErrorKind::StorageFull.into())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let (bytes, descriptor) = blob();
    let server = Server::start(move |request, _| Answer::ranged(request, &bytes));
    let error = client().fetch_blob(&reference(&server.host(), "1"), &descriptor, &mut Full, &|_| {}).unwrap_err();
    assert!(matches!(&error, Error::Sink { source, .. } if source.kind() == io::ErrorKind::StorageFull), "{error:?}");
    assert_eq!(server.log().len(), 1);
}

#[test]
fn progress_grows_to_the_size() {
    let (bytes, descriptor) = blob();
    let server = Server::start(move |request, n| {
        if n == 0 { Answer::ranged(request, &bytes).cut(70_000) } else { Answer::ranged(request, &bytes) }
    });
    let last = AtomicU64::new(0);
    let progress = |done: u64| assert!(last.swap(done, Ordering::Relaxed) < done);
    client().fetch_blob(&reference(&server.host(), "1"), &descriptor, &mut io::sink(), &progress).unwrap();
    assert_eq!(last.into_inner(), SIZE as u64);
}

#[test]
fn an_empty_blob_is_a_blob() {
    let server = Server::start(|request, _| Answer::ranged(request, b""));
    let descriptor = Descriptor::new(media_type::LAYER, Digest::of(b""), 0);
    let (sink, result) = fetch(&client(), &server.host(), &descriptor);
    result.unwrap();
    assert!(sink.is_empty());
}

#[test]
fn one_client_serves_many_threads_over_few_connections() {
    let (bytes, descriptor) = blob();
    let server = Server::start(move |request, _| Answer::ranged(request, &bytes));
    let client = client();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| fetch(&client, &server.host(), &descriptor).1.unwrap());
        }
    });
    assert_eq!(server.log().len(), 8);
}

#[test]
fn cancelling_ends_what_is_going_on_and_what_comes() {
    let (bytes, descriptor) = blob();
    let slow = Duration::from_secs(30);
    let scripts: [fn(&[u8], Duration) -> Answer; 3] = [
        |blob, slow| Answer { trickle: Some((1000, slow)), ..Answer::new(200, blob) },
        |blob, slow| Answer { head_delay: slow.min(Duration::from_secs(4)), ..Answer::new(200, blob) },
        |_, _| Answer::new(503, "").with("Retry-After", 30),
    ];
    for script in scripts {
        let (bytes, descriptor) = (bytes.clone(), descriptor.clone());
        let server = Server::start(move |_, _| script(&bytes, slow));
        let client = client();
        let begun = Instant::now();
        let result = std::thread::scope(|scope| {
            let transfer = scope.spawn(|| fetch(&client, &server.host(), &descriptor).1);
            while server.log().is_empty() {
                std::thread::yield_now();
            }
            client.cancel();
            transfer.join().unwrap()
        });
        assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
        assert!(begun.elapsed() < Duration::from_secs(25));
        assert!(matches!(fetch(&client, &server.host(), &descriptor).1, Err(Error::Cancelled)));
    }
}
