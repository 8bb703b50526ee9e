//! What is told is what is read back, and of what was cut everything that is there.

use std::time::Duration;

use proptest::prelude::*;

use super::frames::{MAGIC, frame};
use super::*;
use crate::progress::{Event, Observer, Stream, TaskId};
use crate::store::{Kept, Store};

fn log(pieces: &[(bool, Vec<u8>)]) -> Vec<u8> {
    let mut log = MAGIC.to_vec();
    for (error, bytes) in pieces {
        log.extend(frame(if *error { Stream::Stderr } else { Stream::Stdout }, Duration::ZERO, bytes));
    }
    log
}

fn read(log: &[u8]) -> Vec<Line> {
    Lines::new(log).unwrap().map(Result::unwrap).collect()
}

proptest! {
    #[test]
    fn every_byte_comes_back_on_its_stream(pieces in prop::collection::vec((any::<bool>(), prop::collection::vec(prop::sample::select(b"a\n\r\xff".to_vec()), 0..9)), 0..12)) {
        let lines = read(&log(&pieces));
        for error in [false, true] {
            let of_stream = |line: &&Line| (line.stream == Stream::Stderr) == error;
            let written: Vec<u8> = pieces.iter().filter(|(own, _)| *own == error).flat_map(|(_, bytes)| bytes.clone()).collect();
            let found: Vec<u8> = lines.iter().filter(of_stream).flat_map(|line| line.bytes.clone()).collect();
            prop_assert_eq!(written, found);
            // All but the last line of a stream end in a line end, and hold no other.
            let ends: Vec<bool> = lines.iter().filter(of_stream).map(|line| line.bytes.ends_with(b"\n")).collect();
            prop_assert!(ends.iter().rev().skip(1).all(|ended| *ended));
            prop_assert!(lines.iter().all(|line| line.bytes.iter().filter(|byte| **byte == b'\n').count() <= 1));
        }
    }

    #[test]
    fn a_cut_log_gives_its_beginning(text in "[ab\n]{0,40}", cut: prop::sample::Index) {
        let whole = log(&[(false, text.clone().into_bytes()), (false, b"more\n".to_vec())]);
        let cut = cut.index(whole.len() + 1);
        let found: Vec<u8> = read(&whole[..cut]).into_iter().flat_map(|line| line.bytes).collect();
        let all = format!("{text}more\n").into_bytes();
        prop_assert!(all.starts_with(&found));
        if cut == whole.len() {
            prop_assert_eq!(found.len(), text.len() + 5);
        }
    }
}

#[test]
fn what_is_no_log_is_refused() {
    assert!(Lines::new(&b"something else\n"[..]).is_err());
    let mut damaged = log(&[(false, b"a\n".to_vec())]);
    damaged.extend([9; 12]);
    let lines: Vec<_> = Lines::new(&damaged[..]).unwrap().collect();
    assert!(lines[0].is_ok() && lines[1].is_err() && lines.len() == 2, "{lines:?}");
}

#[test]
fn lines_stand_alone() {
    let shown = |pieces: &[(bool, &[u8])]| {
        let pieces: Vec<_> = pieces.iter().map(|(error, bytes)| (*error, bytes.to_vec())).collect();
        let mut text = Vec::new();
        let ended = whole_lines(Lines::new(&log(&pieces)[..]).unwrap(), &mut text).unwrap();
        (String::from_utf8(text).unwrap(), ended)
    };
    assert_eq!(shown(&[(false, b"he"), (true, b"other\n"), (false, b"llo\n")]), ("other\nhello\n".to_owned(), true));
    assert_eq!(shown(&[(false, b"a"), (true, b"b")]), ("a\nb".to_owned(), false));
    assert_eq!(shown(&[(false, b"10%\r20%\r"), (false, b"30%")]), ("10%\r20%\r30%".to_owned(), false));
    assert_eq!(shown(&[]), (String::new(), true));
}

#[test]
fn a_build_is_read_back() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let head = Head { context: "/c".to_owned(), names: vec!["x".to_owned()], ..Head::default() };
    let recording = Recording::begin(&store, head.clone()).unwrap();
    let tell = |event: Event| recording.observe(&event);
    let title = |text: &str| -> std::sync::Arc<str> { text.into() };
    let (one, two, three) = (TaskId(1), TaskId(2), TaskId(3));
    let from = Some(crate::progress::Earlier { build: "0123".into(), step: 4 });
    tell(Event::Cached { task: one, title: title("[build 2/3] RUN make"), from, explanation: None });
    tell(Event::Started { task: two, title: title("[build 3/3] RUN make check") });
    tell(Event::Started { task: three, title: title("[2/2] RUN a") });
    tell(Event::Output { task: two, stream: Stream::Stdout, bytes: b"one\ntw".to_vec() });
    tell(Event::Output { task: two, stream: Stream::Stderr, bytes: b"error\n".to_vec() });
    tell(Event::Output { task: two, stream: Stream::Stdout, bytes: b"o\nthree".to_vec() });
    let read = || builds(&store).unwrap().remove(0);
    assert_eq!((read().state, read().steps[1].state.clone()), (State::Running, StepState::Running));
    tell(Event::Finished { task: two, elapsed: Duration::from_secs(1), error: Some("exit code: 1".to_owned()) });
    tell(Event::Warning("w".to_owned()));
    assert_eq!(recording.failed_step("[build 3/3] RUN make check"), Some(2));
    recording.end(&store, Outcome::Failed { error: "e".to_owned() }, Kept::default()).unwrap();
    assert_eq!(last_lines(&recording.stored(), 2, 3), ["error", "two", "three"]);
    drop(recording);
    let build = read();
    assert_eq!((&build.head, &build.state), (&head, &State::Ended(Outcome::Failed { error: "e".to_owned() })));
    let states: Vec<_> = build.steps.iter().map(|step| step.state.clone()).collect();
    assert_eq!(
        states,
        [
            StepState::Cached { from: Some(Earlier { build: "0123".to_owned(), step: 4 }) },
            StepState::Failed { elapsed: Duration::from_secs(1), error: "exit code: 1".to_owned() },
            StepState::Killed,
        ]
    );
    for (name, expected) in [
        ("2", &[2][..]),
        ("#3", &[3]),
        ("build", &[1, 2]),
        ("build/3", &[2]),
        ("build 2/3", &[1]),
        ("2/2", &[3]),
        ("[2/2] RUN a", &[3]),
        ("check", &[2]),
        ("RUN make", &[1, 2]),
        ("9", &[]),
        ("", &[]),
    ] {
        let found: Vec<u64> = build.named(name).iter().map(|step| step.number).collect();
        assert_eq!(found, expected, "{name:?}");
    }
}

#[test]
fn what_cannot_be_kept_is_told_at_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let recording = Recording::begin(&store, Head::default()).unwrap();
    recording.observe(&Event::Started { task: TaskId(1), title: "RUN a".into() });
    let log = directory.path().join(format!("store/builds/{}/1.log", recording.id()));
    std::fs::create_dir(&log).unwrap();
    recording.observe(&Event::Output { task: TaskId(1), stream: Stream::Stdout, bytes: b"a".to_vec() });
    std::fs::remove_dir(&log).unwrap();
    // What follows a gap would be taken for what is missing.
    recording.observe(&Event::Output { task: TaskId(1), stream: Stream::Stdout, bytes: b"b".to_vec() });
    assert!(!log.exists());
    recording.observe(&Event::Finished { task: TaskId(1), elapsed: Duration::ZERO, error: None });
    let error = recording.end(&store, Outcome::Cancelled, Kept::default()).unwrap_err();
    assert!(error.to_string().contains("1.log"), "{error}");
    assert!(builds(&store).unwrap()[0].steps[0].cut);
}

#[test]
fn a_killed_build_and_one_of_the_future_are_told() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(&directory.path().join("store")).unwrap();
    let recording = Recording::begin(&store, Head::default()).unwrap();
    recording.observe(&Event::Started { task: TaskId(1), title: "RUN a".into() });
    drop(recording);
    let future = store.begin_build().unwrap();
    future.note(br#"{"event":"began","format":2,"strata":"9","time":1}"#).unwrap();
    let all = builds(&store).unwrap();
    assert_eq!(all.len(), 1, "what cannot be understood is left out");
    assert_eq!((&all[0].state, &all[0].steps[0].state), (&State::Killed, &StepState::Killed));
}
