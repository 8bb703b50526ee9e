//! The stat index against somebody who tries to change files without their `stat` results showing it.
//!
//! Every file keeps its size throughout. Its modification time is set back, or to any other time; it is written in place,
//! replaced, exchanged, or removed and made again, which may give it its old inode. What cannot be faked is the time of the
//! last change of the inode, and that is only as fine as the kernel's clock: so everything happens as fast as it can, many
//! times within a tick, with pauses now and then that let the index trust what it saw.

use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use proptest::prelude::*;
use rustix::fs::{CWD, RenameFlags, Timespec, Timestamps};

use super::*;

const FILES: usize = 4;
/// How long each of the tests goes on.
const LONG: Duration = Duration::from_millis(1500);

/// Digits, all of one length.
fn text(number: u64) -> String {
    format!("{number:020}")
}

fn expected(number: u64) -> ContentId {
    blake3::hash(text(number).as_bytes()).into()
}

/// Chance that is the same in every run.
struct Chance(u64);

impl Chance {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Sets a file's modification time.
fn set_time(path: &Path, (seconds, nanoseconds): Time) {
    let mtime = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    let omit = Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    let times = Timestamps { last_access: omit, last_modification: mtime };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn time_of(path: &Path) -> Time {
    let metadata = fs::metadata(path).unwrap();
    (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap())
}

/// Gives a file another content of the same size in one of many ways, with the modification time it had.
fn change(path: &Path, other: &Path, number: u64, chance: &mut Chance) {
    let before = time_of(path);
    let content = text(number);
    let in_place = || File::options().write(true).open(path).unwrap().write_all_at(content.as_bytes(), 0).unwrap();
    match chance.below(6) {
        0 => in_place(),
        // The size is another for a moment.
        1 => fs::write(path, &content).unwrap(),
        // A new inode, made to look old before it takes the place.
        2 => {
            fs::write(other, &content).unwrap();
            set_time(other, before);
            fs::rename(other, path).unwrap();
            return;
        }
        // Probably the old inode number.
        3 => {
            fs::remove_file(path).unwrap();
            fs::write(path, &content).unwrap();
        }
        4 => {
            fs::write(other, &content).unwrap();
            rustix::fs::renameat_with(CWD, other, CWD, path, RenameFlags::EXCHANGE).unwrap();
        }
        // Twice within a tick.
        _ => {
            fs::write(path, text(u64::MAX)).unwrap();
            in_place();
        }
    }
    match chance.below(4) {
        0 => {}
        1 => set_time(path, (before.0 - 1000, 0)),
        _ => set_time(path, before),
    }
}

/// Directories on different file systems.
fn grounds() -> Vec<tempfile::TempDir> {
    let memory = Path::new("/dev/shm");
    let in_memory = memory.is_dir().then(|| tempfile::tempdir_in(memory).ok()).flatten();
    std::iter::once(tempfile::tempdir().unwrap()).chain(in_memory).collect()
}

#[test]
fn no_trick_gives_a_stale_digest() {
    for ground in grounds() {
        let (dir, index) = (ground.path().join("context"), ground.path().join("index"));
        fs::create_dir(&dir).unwrap();
        let other = ground.path().join("other");
        let path = |file: usize| dir.join(file.to_string());
        let mut chance = Chance(7);
        let mut contents = [0; FILES];
        (0..FILES).for_each(|file| fs::write(path(file), text(0)).unwrap());
        let (began, mut number, mut remembered) = (Instant::now(), 0, 0);
        while began.elapsed() < LONG {
            for _ in 0..=chance.below(3) {
                number += 1;
                let file = usize::try_from(chance.below(FILES as u64)).unwrap();
                change(&path(file), &other, number, &mut chance);
                contents[file] = number;
            }
            // From below a tick to long enough for the index to trust.
            sleep(Duration::from_micros(
                [0, 0, 0, 500, 3000, 11_000, 25_000][usize::try_from(chance.below(7)).unwrap()],
            ));
            let context = open(&dir, "", Some(&index));
            for (file, number) in contents.iter().enumerate() {
                assert_eq!(content(&context, &file.to_string()), expected(*number), "{}", path(file).display());
            }
            remembered += (FILES as u64).saturating_sub(context.files_read());
            context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
        }
        assert!(remembered > 0, "the index was never trusted, so nothing was shown");
    }
}

#[test]
fn nothing_stale_is_seen_or_kept_while_somebody_writes() {
    for ground in grounds() {
        let (dir, index) = (ground.path().join("context"), ground.path().join("index"));
        fs::create_dir(&dir).unwrap();
        let (path, other) = (dir.join("0"), ground.path().join("other"));
        fs::write(&path, text(0)).unwrap();
        let (done, written) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut chance = Chance(11);
                for number in 1.. {
                    if done.load(Ordering::Acquire) {
                        return;
                    }
                    // Whole files only, so that each content read is one that was written.
                    let before = time_of(&path);
                    fs::write(&other, text(number)).unwrap();
                    set_time(&other, before);
                    fs::rename(&other, &path).unwrap();
                    written.store(number, Ordering::Release);
                    if chance.below(50) == 0 {
                        sleep(Duration::from_millis(30));
                    }
                }
            });
            let began = Instant::now();
            while began.elapsed() < LONG {
                let first = written.load(Ordering::Acquire);
                let context = open(&dir, "", Some(&index));
                let found = content(&context, "0");
                context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
                // The writer may be done with one more than it has said.
                let last = written.load(Ordering::Acquire) + 1;
                assert!((first..=last).any(|number| found == expected(number)), "older than {first}");
            }
            done.store(true, Ordering::Release);
        });
        let last = written.load(Ordering::Acquire);
        for _ in 0..2 {
            let context = open(&dir, "", Some(&index));
            assert_eq!(content(&context, "0"), expected(last));
            context.save(&|path, bytes| std::fs::write(path, bytes)).unwrap();
            age(&dir);
        }
    }
}

const MILLISECOND: i128 = 1_000_000;

/// A file whose stamps come from a clock of a coarse grain.
struct Model {
    now: i128,
    grain: i128,
    stamp: i128,
    version: u64,
}

impl Model {
    fn write(&mut self) {
        self.now += 1;
        self.version += 1;
        self.stamp = self.now - self.now % self.grain;
    }

    /// The modification time is whatever somebody sets, as far as the file system can keep it.
    fn stat(&self) -> Stat {
        let split = |time: i128| {
            let (seconds, rest) = (time.div_euclid(1000 * MILLISECOND), time.rem_euclid(1000 * MILLISECOND));
            (i64::try_from(seconds).unwrap(), u32::try_from(rest).unwrap())
        };
        let mtime = (1000, u32::from(self.grain < 1000 * MILLISECOND));
        Stat { device: 1, inode: 2, size: 3, mtime, ctime: split(self.stamp), mode: 0o100_644 }
    }

    fn clock(&self) -> Time {
        let seconds = i64::try_from(self.now / (1000 * MILLISECOND)).unwrap();
        (seconds, u32::try_from(self.now % (1000 * MILLISECOND)).unwrap())
    }
}

proptest! {
    #[test]
    fn no_grain_of_a_clock_gives_a_stale_digest(
        grain in prop::sample::select(vec![1, 4, 10, 1000, 2000]),
        events in prop::collection::vec((0..24_i128, any::<bool>(), 0..3_u8), 1..80),
    ) {
        let grain = grain * MILLISECOND;
        let mut file = Model { now: 1_700_000_000_000 * MILLISECOND + 7, grain, stamp: 0, version: 0 };
        file.write();
        let mut remembered: Option<(Stat, u64)> = None;
        for (pause, is_write, meanwhile) in events {
            file.now += pause * grain / 8;
            if is_write {
                file.write();
                continue;
            }
            // A build: what `content_id` and `digest` do, with somebody who may write before or after the reading.
            let before = file.stat();
            if let Some((_, version)) = remembered.filter(|(stat, _)| *stat == before) {
                prop_assert_eq!(version, file.version);
                continue;
            }
            let taken = file.clock();
            if meanwhile == 1 {
                file.write();
            }
            let read = file.version;
            if meanwhile == 2 {
                file.write();
            }
            if file.stat() == before && !before.is_racy(taken) {
                remembered = Some((before, read));
            }
        }
    }
}
