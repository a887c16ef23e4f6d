//! One file of a journal, read line by line, also while it grows.
//!
//! Must never trust what it reads: a line may be cut short, endless, of another program, or not
//! even text. And never hold a file open that has nothing more to give at present, since a run may
//! have had thousands of workers.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::entry::Head;

/// No line of ours is as long as this.
const LONGEST: usize = 1 << 20;

/// A file that is read from its beginning.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    /// While there is something to read.
    open: Option<BufReader<File>>,
    /// Up to where it was read.
    offset: u64,
    number: u64,
    line: Vec<u8>,
    /// The line is longer than any of ours, and the rest of it is passed over.
    is_endless: bool,
    /// The line has no end, and was given out all the same.
    is_torn: bool,
    /// Where the line belongs in time: never before the line above it.
    at: Timestamp,
}

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Flaw {
    /// It has no end, and cannot be read so: whoever wrote it was killed meanwhile, or is not done.
    Torn,
    /// It is none of ours.
    Foreign,
    /// It is longer than any of ours; only its beginning is kept.
    Endless,
}

/// A line as it was read.
#[derive(Debug, Clone, Copy)]
pub enum Line<'l> {
    /// One of ours, with what is at its head.
    Good(&'l str, Head<'l>),
    /// Something else.
    Bad(&'l [u8], Flaw),
}

impl Tail {
    /// A file that will be read.
    pub fn of(path: PathBuf) -> Self {
        Self {
            path,
            open: None,
            offset: 0,
            number: 0,
            line: Vec::new(),
            is_endless: false,
            is_torn: false,
            at: Timestamp::MIN,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number of the line, from 1.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Where the line belongs in time.
    pub fn at(&self) -> Timestamp {
        self.at
    }

    /// Reads the next line; false if there is none at present. If `is_last`, what has no end counts
    /// as a line, too.
    pub fn advance(&mut self, is_last: bool) -> io::Result<bool> {
        loop {
            let Some(whole) = self.read_line()? else { return Ok(false) };
            // The reserve of a run is blank as far as it was not needed.
            let is_blank = self.line.starts_with(b" ") && self.line.trim_ascii().is_empty();
            if !whole && (!is_last || self.line.is_empty() || is_blank) {
                return Ok(false);
            }
            self.is_torn = !whole;
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

    /// Reads on, and tells whether the line is whole now; `None` if there is nothing to read.
    fn read_line(&mut self) -> io::Result<Option<bool>> {
        if self.is_whole() || self.is_torn {
            self.line.clear();
            (self.is_endless, self.is_torn) = (false, false);
        }
        let mut file = match self.open.take() {
            Some(file) => file,
            None => {
                let there = fs::metadata(&self.path)?;
                if !there.is_file() {
                    // A pipe would make us wait for ever.
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
                }
                if there.len() <= self.offset && self.line.is_empty() {
                    return Ok(None);
                }
                let mut file = BufReader::with_capacity(64 * 1024, File::open(&self.path)?);
                file.seek(SeekFrom::Start(self.offset))?;
                file
            }
        };
        loop {
            let there = file.fill_buf()?;
            if there.is_empty() {
                // It is closed until there is more.
                return Ok(Some(false));
            }
            let end = there.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(there.len(), |end| end + 1);
            let kept = taken.min(LONGEST.saturating_sub(self.line.len()));
            self.line.extend_from_slice(&there[..kept]);
            if kept < taken {
                self.is_endless = true;
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
    pub fn line(&self) -> Line<'_> {
        let bytes = self.line.strip_suffix(b"\n").unwrap_or(&self.line);
        if self.is_endless {
            return Line::Bad(&bytes[..bytes.len().min(200)], Flaw::Endless);
        }
        let good = std::str::from_utf8(bytes).ok().and_then(|text| {
            let head = Head::of(text).ok()?;
            head.timestamp().is_some().then_some((text, head))
        });
        match good {
            Some((text, head)) => Line::Good(text, head),
            None if self.is_whole() => Line::Bad(bytes, Flaw::Foreign),
            None => Line::Bad(bytes, Flaw::Torn),
        }
    }
}

/// The time of a line. Ours begin with it, so the rest need not be looked at.
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

    fn kind(tail: &Tail) -> Option<Flaw> {
        match tail.line() {
            Line::Good(..) => None,
            Line::Bad(_, flaw) => Some(flaw),
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
        assert!(tail.advance(false).unwrap() && kind(&tail).is_none());
        assert!(!tail.advance(false).unwrap(), "the second is not whole");
        file.write_all(&end.as_bytes()[20..]).unwrap();
        assert!(tail.advance(false).unwrap() && kind(&tail).is_none());
        assert_eq!((tail.number(), tail.at().as_second() % 60), (2, 2));
        assert!(!tail.advance(true).unwrap());
    }

    #[test]
    fn what_is_no_line_is_told_and_read_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        let mut bytes = line(1).into_bytes();
        bytes.extend(b"\xff\xfe\0garbage\n{}\n[1]\n\n");
        bytes.extend(vec![b'x'; LONGEST * 2 + 7]);
        bytes.push(b'\n');
        bytes.extend(line(3).into_bytes());
        bytes.extend("{\"ts\":\"2026-11-22T23:49:32.000000Z\",\"text\":\"ü".as_bytes());
        bytes.pop(); // in the middle of a character
        fs::write(&path, &bytes).unwrap();
        let mut tail = Tail::of(path);
        let mut kinds = Vec::new();
        while tail.advance(true).unwrap() {
            kinds.push(kind(&tail));
        }
        let foreign = Some(Flaw::Foreign);
        let expected =
            [None, foreign, foreign, foreign, foreign, Some(Flaw::Endless), None, Some(Flaw::Torn)];
        assert_eq!(kinds, expected);
        assert!(!tail.advance(true).unwrap(), "the torn one is read once");
    }

    #[test]
    fn a_last_line_without_its_end_that_can_be_read_is_a_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.jsonl");
        fs::write(&path, line(1).trim_end()).unwrap();
        let mut tail = Tail::of(path);
        assert!(tail.advance(true).unwrap() && kind(&tail).is_none());
        assert!(!tail.advance(true).unwrap());
    }
}
