//! One file of a journal, read line by line, also while it grows.
//!
//! A line may be incomplete, too long, written by another program, or no text. A file at whose end the reader
//! is, is closed until it is read again: a run may have had thousands of workers.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use procession_os::regular_file;

use super::entry::EntryHeader;

/// All lines that this program writes are shorter.
const MAX_LINE_BYTES: usize = 1 << 20;

/// A file that is read from its beginning.
///
/// ```
/// use procession_journal::Tail;
/// use procession_journal::{LineError, LogLine};
///
/// # fn main() -> std::io::Result<()> {
/// # let dir = tempfile::tempdir()?;
/// # let file = dir.path().join("worker-0-47.jsonl");
/// std::fs::write(&file, "no line of a journal\n")?;
/// let mut tail = Tail::of(file);
/// assert!(tail.advance(false)?);
/// assert!(matches!(tail.line(), LogLine::Invalid(_, LineError::Unrecognized)));
/// assert_eq!(tail.number(), 1);
/// assert!(!tail.advance(false)?); // until more is written
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// Open while there is something to read.
    open: Option<BufReader<File>>,
    /// Number of bytes that were read.
    offset: u64,
    number: u64,
    line: Vec<u8>,
    /// The line exceeds [`MAX_LINE_BYTES`]; the rest of it is skipped.
    is_too_long: bool,
    /// The line has no line feed, and was returned nevertheless.
    is_incomplete: bool,
    /// The time by which the line is sorted: never before that of the line above it.
    at: Timestamp,
}

/// Why a line cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LineError {
    /// It has no line feed: its writer was killed or has not finished.
    Incomplete,
    /// It is not a line of a journal.
    Unrecognized,
    /// It exceeds the maximum length; only its beginning is kept.
    TooLong,
}

/// A line as it was read.
#[derive(Debug, Clone, Copy)]
pub enum LogLine<'l> {
    /// A line of a journal, with its header.
    Valid(&'l str, EntryHeader<'l>),
    /// Anything else.
    Invalid(&'l [u8], LineError),
}

impl Tail {
    /// A file, not read yet.
    pub fn of(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            offset: 0,
            number: 0,
            line: Vec::new(),
            is_too_long: false,
            is_incomplete: false,
            at: Timestamp::MIN,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of the line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The time by which the line is sorted.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Reads the next line; false if there is none at present. With `is_last`, bytes without a line
    /// feed count as a line, too.
    pub fn advance(&mut self, is_last: bool) -> io::Result<bool> {
        loop {
            let Some(whole) = self.read_line()? else { return Ok(false) };
            // The unused part of a reserve is blank.
            let is_blank = self.line.starts_with(b" ") && self.line.trim_ascii().is_empty();
            if !whole && (!is_last || self.line.is_empty() || is_blank) {
                return Ok(false);
            }
            self.is_incomplete = !whole;
            self.number += 1;
            if !is_blank {
                break;
            }
        }
        if let Some(at) = timestamp(&self.line) {
            self.at = self.at.max(at);
        }
        Ok(true)
    }

    /// Reads on, and returns whether the line is whole now; `None` if there is nothing to read.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        if self.is_whole() || self.is_incomplete {
            self.line.clear();
            (self.is_too_long, self.is_incomplete) = (false, false);
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => {
                let metadata = fs::metadata(&self.path)?;
                if metadata.is_file() && metadata.len() <= self.offset && self.line.is_empty() {
                    return Ok(None);
                }
                let file = regular_file::to_read(&self.path)?;
                let mut file = BufReader::with_capacity(64 * 1024, file);
                file.seek(SeekFrom::Start(self.offset))?;
                file
            }
        };
        loop {
            let available = file.fill_buf()?;
            if available.is_empty() {
                // The file is closed until it is read again.
                return Ok(Some(false));
            }
            let end = available.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(available.len(), |end| end + 1);
            let kept = taken.min(MAX_LINE_BYTES.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&available[..kept]);
            if kept < taken {
                self.is_too_long = true;
                if end.is_some() {
                    // So that it counts as whole.
                    self.line.pop();
                    self.line.push(b'\n');
                }
            }
            file.consume(taken);
            self.offset += taken as u64;
            if end.is_some() {
                self.open = Some(file);
                return Ok(Some(true));
            }
        }
    }

    fn is_whole(&self) -> bool {
        self.line.last() == Some(&b'\n')
    }

    /// The line that was read last.
    pub fn line(&self) -> LogLine<'_> {
        let bytes = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        if self.is_too_long {
            return LogLine::Invalid(&bytes[..bytes.len().min(200)], LineError::TooLong);
        }
        let valid = std::str::from_utf8(bytes).ok().and_then(|text| {
            let header = EntryHeader::of(text).ok()?;
            header.timestamp().is_some().then_some((text, header))
        });
        match valid {
            Some((text, header)) => LogLine::Valid(text, header),
            None if self.is_whole() => LogLine::Invalid(bytes, LineError::Unrecognized),
            None => LogLine::Invalid(bytes, LineError::Incomplete),
        }
    }
}

/// The time of a line. Lines of a journal begin with it, so the rest need not be parsed.
fn timestamp(line: &[u8]) -> Option<Timestamp> {
    let start = line.strip_prefix(br#"{"ts":""#)?;
    let end = start.iter().take(40).position(|&byte| byte == b'"')?;
    std::str::from_utf8(&start[..end]).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    fn line(second: u32) -> String {
        format!(
            "{{\"ts\":\"2026-11-22T23:49:{second:02}.000000Z\",\"level\":\"info\",\
             \"process\":\"worker\",\"pid\":1,\"event\":\"x\"}}\n"
        )
    }

    fn error(tail: &Tail) -> Option<LineError> {
        match tail.line() {
            LogLine::Valid(..) => None,
            LogLine::Invalid(_, error) => Some(error),
        }
    }

    #[test]
    fn a_file_is_read_while_it_grows() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut file = File::create(&path).unwrap();
        let mut tail = Tail::of(path);
        assert!(!tail.advance(false).unwrap());
        let (start, end) = (line(1), line(2));
        file.write_all(start.as_bytes()).unwrap();
        file.write_all(&end.as_bytes()[..20]).unwrap();
        assert!(tail.advance(false).unwrap() && error(&tail).is_none());
        assert!(!tail.advance(false).unwrap(), "the second is not whole");
        file.write_all(&end.as_bytes()[20..]).unwrap();
        assert!(tail.advance(false).unwrap() && error(&tail).is_none());
        assert_eq!((tail.number(), tail.at().as_second() % 60), (2, 2));
        assert!(!tail.advance(true).unwrap());
    }

    #[test]
    fn lines_that_cannot_be_read_are_reported_and_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut bytes = line(1).into_bytes();
        bytes.extend(b"\xff\xfe\0garbage\n{}\n[1]\n\n");
        bytes.extend(vec![b'x'; MAX_LINE_BYTES * 2 + 7]);
        bytes.push(b'\n');
        bytes.extend(line(3).into_bytes());
        bytes.extend("{\"ts\":\"2026-11-22T23:49:32.000000Z\",\"text\":\"ü".as_bytes());
        bytes.pop(); // in the middle of a character
        fs::write(&path, &bytes).unwrap();
        let mut tail = Tail::of(path);
        let mut errors = Vec::new();
        while tail.advance(true).unwrap() {
            errors.push(error(&tail));
        }
        let unrecognized = Some(LineError::Unrecognized);
        let (too_long, incomplete) = (Some(LineError::TooLong), Some(LineError::Incomplete));
        assert_eq!(errors[..5], [None, unrecognized, unrecognized, unrecognized, unrecognized]);
        assert_eq!(errors[5..], [too_long, None, incomplete]);
        assert!(!tail.advance(true).unwrap(), "the incomplete line is read once");
    }

    #[test]
    fn a_last_line_without_a_line_feed_is_valid_if_it_can_be_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, line(1).trim_end()).unwrap();
        let mut tail = Tail::of(path);
        assert!(tail.advance(true).unwrap() && error(&tail).is_none());
        assert!(!tail.advance(true).unwrap());
    }
}
