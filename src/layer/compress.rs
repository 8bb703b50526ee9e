//! Packs and unpacks archives: gzip and zstd out, and whatever layers come in.
//!
//! A compressed archive's bytes depend on nothing but the archive, the kind of compression and its level: not on how
//! the bytes are cut into calls, nor on the number of threads or processors. What changes them raises the kind's
//! format version.
//!
//! - gzip: members of 1 MiB of content each (the last one less; one empty member for an empty archive), made by
//!   libdeflate on all of rayon's threads; no name, time zero.
//! - zstd: one frame of 4 MiB jobs, without checksum, made by the library's own threads. One thread makes the same
//!   bytes as many, but none (the library's plain mode) would not, so there is always at least one.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::io::{self, BufReader, Read, Write};
use std::num::NonZero;
use std::sync::mpsc::{Receiver, TryRecvError, sync_channel};

use bzip2::read::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use libdeflater::{CompressionLvl, Compressor};
use liblzma::bufread::XzDecoder;
use zstd::zstd_safe::CParameter;

/// The version of what gzip output looks like.
pub const GZIP_FORMAT: u32 = 1;

/// The version of what zstd output looks like.
pub const ZSTD_FORMAT: u32 = 1;

/// How many bytes of content a gzip member has.
const MEMBER: usize = 1 << 20;

/// How many bytes of content a zstd job has.
const ZSTD_JOB: u32 = 4 << 20;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    None,
    /// As gzip (RFC 1952).
    Gzip {
        /// From 1 (fast) to 12 (small), as libdeflate counts.
        level: u8,
    },
    /// As Zstandard (RFC 8878).
    Zstd {
        /// From 1 (fast) to 22 (small).
        level: u8,
    },
}

impl Compression {
    /// What is put behind the media type of an uncompressed layer (OCI image-spec, layer.md).
    pub const fn media_type_suffix(self) -> &'static str {
        match self {
            Self::None => "",
            Self::Gzip { .. } => "+gzip",
            Self::Zstd { .. } => "+zstd",
        }
    }

    /// The version of what this kind's output looks like; 0 where there is nothing to change.
    pub const fn format(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Gzip { .. } => GZIP_FORMAT,
            Self::Zstd { .. } => ZSTD_FORMAT,
        }
    }
}

/// Compresses what is written to it. [`Encoder::finish`] must be called; what was written before it is no whole
/// stream. Flushing passes nothing on early, because the bytes would then depend on it.
pub struct Encoder<W: Write>(State<W>);

enum State<W: Write> {
    Plain(W),
    Gzip(GzipMembers<W>),
    Zstd(zstd::stream::write::Encoder<'static, W>),
}

impl<W: Write> fmt::Debug for Encoder<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            State::Plain(_) => "Encoder(plain)",
            State::Gzip(_) => "Encoder(gzip)",
            State::Zstd(_) => "Encoder(zstd)",
        })
    }
}

impl<W: Write> Encoder<W> {
    /// An encoder with nothing written yet.
    ///
    /// # Errors
    /// A level that there is not.
    pub fn new(compression: Compression, sink: W) -> io::Result<Self> {
        Ok(Self(match compression {
            Compression::None => State::Plain(sink),
            Compression::Gzip { level } => State::Gzip(GzipMembers::new(level, sink)?),
            Compression::Zstd { level } => State::Zstd(zstd_encoder(level, sink)?),
        }))
    }

    /// Writes what is left and gives the sink back.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            State::Plain(sink) => Ok(sink),
            State::Gzip(members) => members.finish(),
            State::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            State::Plain(sink) => sink.write(bytes),
            State::Gzip(members) => members.write(bytes),
            State::Zstd(encoder) => encoder.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            State::Plain(sink) => sink.flush(),
            State::Gzip(_) | State::Zstd(_) => Ok(()),
        }
    }
}

fn zstd_encoder<W: Write>(level: u8, sink: W) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    if !(1..=22).contains(&level) {
        return Err(no_such_level(level, "zstd has levels 1 to 22"));
    }
    let mut encoder = zstd::stream::write::Encoder::new(sink, level.into())?;
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get).min(64);
    encoder.multithread(u32::try_from(workers).unwrap_or(1))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    encoder.include_checksum(false)?;
    encoder.include_contentsize(false)?;
    Ok(encoder)
}

fn no_such_level(level: u8, levels: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("no compression level {level}: {levels}"))
}

/// Cuts what is written into members that are compressed side by side and passed on in order.
struct GzipMembers<W> {
    level: CompressionLvl,
    sink: W,
    content: Vec<u8>,
    /// Members that are being compressed, oldest first.
    under_way: VecDeque<Receiver<Vec<u8>>>,
    most_under_way: usize,
    is_first: bool,
}

impl<W: Write> GzipMembers<W> {
    fn new(level: u8, sink: W) -> io::Result<Self> {
        let known = (1..=12).contains(&level).then(|| CompressionLvl::new(level.into()).ok()).flatten();
        let level = known.ok_or_else(|| no_such_level(level, "gzip has levels 1 to 12"))?;
        let most_under_way = rayon::current_num_threads() + 1;
        Ok(Self { level, sink, content: Vec::new(), under_way: VecDeque::new(), most_under_way, is_first: true })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = bytes.len().min(MEMBER - self.content.len());
        if self.content.capacity() == 0 {
            self.content.reserve_exact(MEMBER);
        }
        self.content.extend_from_slice(&bytes[..length]);
        if self.content.len() == MEMBER {
            self.start_member()?;
        }
        Ok(length)
    }

    fn start_member(&mut self) -> io::Result<()> {
        while self.under_way.len() >= self.most_under_way {
            self.pass_on_oldest()?;
        }
        let content = std::mem::take(&mut self.content);
        let level = self.level;
        let (done, member) = sync_channel(1);
        rayon::spawn(move || {
            // An encoder that was dropped does not wait for its members.
            let _ = done.send(gzip_member(level, &content));
        });
        self.under_way.push_back(member);
        self.is_first = false;
        Ok(())
    }

    fn pass_on_oldest(&mut self) -> io::Result<()> {
        let Some(member) = self.under_way.pop_front() else { return Ok(()) };
        let member = wait_for(&member).ok_or_else(|| io::Error::other("a compression thread failed"))?;
        self.sink.write_all(&member)
    }

    fn finish(mut self) -> io::Result<W> {
        if self.is_first || !self.content.is_empty() {
            self.start_member()?;
        }
        while !self.under_way.is_empty() {
            self.pass_on_oldest()?;
        }
        Ok(self.sink)
    }
}

/// Waits for a member. One of rayon's own threads works meanwhile, since the member may be queued behind it.
fn wait_for(member: &Receiver<Vec<u8>>) -> Option<Vec<u8>> {
    loop {
        match member.try_recv() {
            Ok(member) => return Some(member),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) => match rayon::yield_now() {
                Some(rayon::Yield::Executed) => {}
                Some(rayon::Yield::Idle) | None => return member.recv().ok(),
            },
        }
    }
}

fn gzip_member(level: CompressionLvl, content: &[u8]) -> Vec<u8> {
    thread_local! {
        /// A compressor is large and slow to make, and its level is part of it.
        static KEPT: RefCell<Option<(CompressionLvl, Compressor)>> = const { RefCell::new(None) };
    }
    KEPT.with_borrow_mut(|kept| {
        if kept.as_ref().is_none_or(|(known, _)| *known != level) {
            *kept = Some((level, Compressor::new(level)));
        }
        let (_, compressor) = kept.as_mut().expect("it was just put there");
        let mut member = vec![0; compressor.gzip_compress_bound(content.len())];
        let length = compressor.gzip_compress(content, &mut member).expect("the bound is enough for any content");
        member.truncate(length);
        member
    })
}

/// A reader of what a layer's blob holds, whatever way of those above it is compressed, by its first bytes. Several
/// gzip members or zstd frames are one stream.
///
/// # Errors
/// The reader's.
pub fn decoder<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    open(reader, |_, reader| Ok(Box::new(reader)))
}

/// Like [`decoder`], but also for bzip2 and xz, in which archives that `ADD` unpacks may be compressed.
///
/// # Errors
/// The reader's.
pub fn archive_decoder<'a>(reader: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    open(reader, |start, reader| {
        Ok(if start.starts_with(b"BZh") {
            Box::new(MultiBzDecoder::new(reader))
        } else if start.starts_with(b"\xfd7zXZ\0") {
            Box::new(XzDecoder::new_multi_decoder(reader))
        } else {
            Box::new(reader)
        })
    })
}

/// Everything read so far, then the rest.
type Rewound<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, R>>;

fn open<'a, R: Read + Send + 'a>(
    mut reader: R,
    otherwise: impl FnOnce(&[u8], Rewound<R>) -> io::Result<Box<dyn Read + Send + 'a>>,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut start = Vec::new();
    (&mut reader).take(6).read_to_end(&mut start)?;
    let rewound = BufReader::with_capacity(64 << 10, io::Cursor::new(start.clone()).chain(reader));
    if start.starts_with(&[0x1f, 0x8b]) {
        Ok(Box::new(MultiGzDecoder::new(rewound)))
    } else if is_zstd(&start) {
        Ok(Box::new(zstd::stream::read::Decoder::with_buffer(rewound)?))
    } else {
        otherwise(&start, rewound)
    }
}

/// A frame, or a skippable frame before the first (RFC 8878, sections 3.1.1 and 3.1.2).
fn is_zstd(start: &[u8]) -> bool {
    match start.first_chunk() {
        Some([0x28, 0xb5, 0x2f, 0xfd]) => true,
        Some([first, 0x2a, 0x4d, 0x18]) => first & 0xf0 == 0x50,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    /// Bytes that compress somewhat, the same on every machine.
    fn content(length: usize) -> Vec<u8> {
        let mut state = 1u32;
        let next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            b"abcdefgh \n0123xyz"[(state >> 24) as usize % 17]
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn compressed(compression: Compression, content: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
        for piece in content.chunks(piece) {
            encoder.write_all(piece).unwrap();
            encoder.flush().unwrap();
        }
        encoder.finish().unwrap()
    }

    const KINDS: [Compression; 3] = [Compression::None, Compression::Gzip { level: 6 }, Compression::Zstd { level: 3 }];

    #[test]
    fn comes_back_whole_and_does_not_depend_on_pieces() {
        let content = content((9 << 20) + 12_345);
        for kind in KINDS {
            for length in [0, 1, MEMBER, MEMBER + 1, content.len()] {
                let content = &content[..length];
                let packed = compressed(kind, content, 1 << 30);
                assert_eq!(packed, compressed(kind, content, 77_777), "{kind:?} {length}");
                let mut back = Vec::new();
                decoder(packed.as_slice()).unwrap().read_to_end(&mut back).unwrap();
                assert!(back == content, "{kind:?} {length}");
            }
        }
    }

    #[test]
    fn does_not_depend_on_threads() {
        let content = content(5 << 20);
        let expected = compressed(KINDS[1], &content, 1 << 20);
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            assert!(pool.install(|| compressed(KINDS[1], &content, 1 << 20)) == expected, "{threads} threads");
        }
        for workers in [1, 3] {
            let mut encoder = zstd_encoder(3, Vec::new()).unwrap();
            encoder.multithread(workers).unwrap();
            encoder.write_all(&content).unwrap();
            assert!(encoder.finish().unwrap() == compressed(KINDS[2], &content, 1 << 20), "{workers} workers");
        }
    }

    #[test]
    fn the_formats_have_not_changed() {
        let content = content((5 << 20) + 1);
        for (kind, expected) in [
            (KINDS[1], "sha256:88d154b47fe84aa45b8fd9020c55351fab3185db9e68ad5ee2cb2728331025f8"),
            (KINDS[2], "sha256:ef1e5ab4f19ea21dcf9bf421842e4938f274e87e42ee0e8805f0240d55823ae9"),
        ] {
            let digest = Digest::of(&compressed(kind, &content, 1 << 20));
            assert_eq!(digest.to_string(), expected, "{kind:?}: raise the format's version if this is meant");
        }
    }

    #[test]
    fn several_streams_are_one() {
        for kind in [KINDS[1], KINDS[2]] {
            let both = [compressed(kind, b"one ", 9), compressed(kind, b"two", 9)].concat();
            let mut back = String::new();
            decoder(both.as_slice()).unwrap().read_to_string(&mut back).unwrap();
            assert_eq!(back, "one two");
        }
    }

    #[test]
    fn frames_that_hold_no_content_are_passed_over() {
        let skippable = |content: &[u8]| {
            let length = u32::try_from(content.len()).unwrap().to_le_bytes();
            [&[0x50, 0x2a, 0x4d, 0x18][..], &length, content].concat()
        };
        let [one, two] = [&b"one "[..], b"two"].map(|content| compressed(KINDS[2], content, 9));
        let toc = skippable(b"a table of contents, as zstd:chunked has it");
        let empty = skippable(b"");
        for parts in [[&one, &toc, &two, &toc], [&toc, &one, &two, &toc], [&empty, &toc, &one, &two]] {
            let mut back = String::new();
            decoder(parts.map(Vec::as_slice).concat().as_slice()).unwrap().read_to_string(&mut back).unwrap();
            assert_eq!(back, "one two");
        }
    }

    #[test]
    fn archives_may_be_bzip2_or_xz() {
        let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
        let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
        bzip2.write_all(b"content").unwrap();
        xz.write_all(b"content").unwrap();
        for packed in [bzip2.finish().unwrap(), xz.finish().unwrap(), compressed(KINDS[1], b"content", 9)] {
            let mut back = Vec::new();
            archive_decoder(packed.as_slice()).unwrap().read_to_end(&mut back).unwrap();
            assert_eq!(back, b"content");
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        for kind in [KINDS[1], KINDS[2]] {
            let packed = compressed(kind, &content(5000), 5000);
            for length in [7, packed.len() / 2, packed.len() - 1] {
                let mut reader = decoder(&packed[..length]).unwrap();
                assert!(reader.read_to_end(&mut Vec::new()).is_err(), "{kind:?} {length}");
            }
        }
    }

    #[test]
    fn levels_are_checked() {
        for kind in [Compression::Gzip { level: 0 }, Compression::Gzip { level: 13 }, Compression::Zstd { level: 23 }] {
            assert!(Encoder::new(kind, Vec::new()).is_err(), "{kind:?}");
        }
    }
}
