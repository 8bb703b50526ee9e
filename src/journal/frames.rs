//! A step's output as it is kept: every piece with its stream and its time.
//!
//! Format 1 is `strata-log 1\n` and, for each piece, a header of 12 bytes (the stream: 1 or 2; three zero bytes; the
//! piece's length; the milliseconds since the step began; both numbers of 32 bits, little-endian) and the piece. It is
//! neither compressed nor buffered: a killed build has lost nothing, and the log of a running step can be read. Readers
//! take a file that ends anywhere.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use crate::progress::Stream;

/// What every log begins with.
pub(super) const MAGIC: &[u8] = b"strata-log 1\n";
const HEADER: usize = 12;
/// A line that is longer is given in parts, so that no output, whatever it holds, fills the memory.
const LONGEST: usize = 16 << 20;

/// A piece with its header.
pub(super) fn frame(stream: Stream, at: Duration, bytes: &[u8]) -> Vec<u8> {
    let mut frames = Vec::with_capacity(HEADER + bytes.len());
    let at = u32::try_from(at.as_millis()).unwrap_or(u32::MAX);
    for piece in bytes.chunks(LONGEST) {
        let length = u32::try_from(piece.len()).unwrap_or(u32::MAX);
        frames.extend([if stream == Stream::Stdout { 1 } else { 2 }, 0, 0, 0]);
        frames.extend(length.to_le_bytes());
        frames.extend(at.to_le_bytes());
        frames.extend(piece);
    }
    frames
}

/// A line of a step's output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Where it was written to.
    pub stream: Stream,
    /// When its end came, since the step began.
    pub at: Duration,
    /// Its bytes with the line end, which the last line of a stream may lack.
    pub bytes: Vec<u8>,
}

/// The lines of a log, in the order in which they were completed.
#[derive(Debug)]
pub struct Lines<R> {
    file: BufReader<R>,
    /// What of the present piece is left to be given, from the offset on.
    piece: Option<(Line, usize)>,
    /// The unfinished lines of both streams, with their times.
    partial: [Option<Line>; 2],
    ended: bool,
}

impl<R: Read> Lines<R> {
    /// The lines of a log.
    ///
    /// # Errors
    /// If it cannot be read, or is no log of a form known here.
    pub fn new(file: R) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(1 << 16, file);
        let mut magic = Vec::new();
        file.by_ref().take(MAGIC.len() as u64).read_until(b'\n', &mut magic)?;
        if magic != MAGIC && !MAGIC.starts_with(&magic) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is no log that this version of strata can read",
            ));
        }
        Ok(Self { file, piece: None, partial: [None, None], ended: false })
    }

    /// The next piece; nothing at the end of what is whole. Of a piece that was cut the beginning counts.
    fn next_piece(&mut self) -> io::Result<Option<Line>> {
        let mut header = [0; HEADER];
        match self.file.read_exact(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            result => result?,
        }
        let [stream, _, _, _, l0, l1, l2, l3, t0, t1, t2, t3] = header;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let at = Duration::from_millis(u32::from_le_bytes([t0, t1, t2, t3]).into());
        let stream = match stream {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidData, "the log is damaged")),
        };
        let mut bytes = Vec::new();
        self.file.by_ref().take(length.into()).read_to_end(&mut bytes)?;
        Ok(Some(Line { stream, at, bytes }))
    }

    /// The next line that ends in the present piece; what is left of the piece is put aside.
    fn complete(&mut self) -> Option<Line> {
        let (piece, from) = self.piece.as_mut()?;
        let rest = piece.bytes.get(*from..).unwrap_or_default();
        let end = rest.iter().position(|&byte| byte == b'\n').map(|end| end + 1);
        let taken = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        let partial = &mut self.partial[usize::from(piece.stream == Stream::Stderr)];
        let mut line = partial.take().unwrap_or(Line { stream: piece.stream, at: piece.at, bytes: Vec::new() });
        line.at = piece.at;
        line.bytes.extend_from_slice(taken);
        *from += taken.len();
        if end.is_none() {
            self.piece = None;
            if line.bytes.len() < LONGEST {
                *partial = (!line.bytes.is_empty()).then_some(line);
                return None;
            }
        }
        Some(line)
    }
}

impl<R: Read> Iterator for Lines<R> {
    type Item = io::Result<Line>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(line) = self.complete() {
                return Some(Ok(line));
            }
            if self.piece.is_some() {
                continue;
            }
            if self.ended {
                return self.partial.iter_mut().find_map(Option::take).map(Ok);
            }
            match self.next_piece() {
                Ok(Some(piece)) => self.piece = Some((piece, 0)),
                Ok(None) => self.ended = true,
                Err(error) => {
                    // What came before the damage is still to be had.
                    self.ended = true;
                    return Some(Err(error));
                }
            }
        }
    }
}

/// Writes lines so that each stands alone: a line without an end gets one where another follows. The output of
/// a step that uses one stream comes out byte for byte. Gives whether the last line has an end.
///
/// # Errors
/// What reading or writing gave.
pub fn whole_lines<E: From<io::Error>>(
    lines: impl Iterator<Item = Result<Line, E>>,
    sink: &mut impl io::Write,
) -> Result<bool, E> {
    let mut ended = true;
    for line in lines {
        let line = line?;
        if !ended {
            sink.write_all(b"\n")?;
        }
        sink.write_all(&line.bytes)?;
        ended = line.bytes.ends_with(b"\n") || line.bytes.len() >= LONGEST;
    }
    Ok(ended)
}
