//! The lines of all files of a run, merged by time. One line of each file is in memory at a time.
//!
//! While the run goes on, the files are read one after the other, and lines are written meanwhile. So the latest line
//! of one file may be read before an earlier line of another. [`Merge::refresh_in_order`] holds such a late line back.
//!
//! ```text
//!   coordinator-4711.jsonl ─► tail ─┐
//!   worker-0-4712.jsonl ────► tail ─┼─► the earliest line of all ─► logs, history, dashboard
//!   worker-1-4713.jsonl ────► tail ─┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;

use super::reserve;
use super::tail::{LogLine, Tail};

/// The lines of a run's files, in the order of their times.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use procession_journal::{LogLine, Merge};
///
/// let mut merge = Merge::open("logs/latest".as_ref(), true)?; // the run has ended
/// while let Some(merged) = merge.next() {
///     match merged.line {
///         LogLine::Valid(_, header) => println!("{} {} {}", merged.at, header.pid, header.event),
///         LogLine::Invalid(..) => eprintln!("{}:{}", merged.path.display(), merged.number),
///     }
/// }
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Merge {
    dir: Option<PathBuf>,
    tails: Vec<Tail>,
    known: BTreeMap<OsString, ()>,
    /// The tails that hold a line, by its time, with the refresh that has read it.
    ready: BinaryHeap<Reverse<(Timestamp, usize, u64)>>,
    /// The number of refreshes.
    refreshes: u64,
    /// Lines with a later time wait for the next refresh.
    written_until: Timestamp,
    /// The tails that had no further line when they were read last.
    idle: Vec<usize>,
    /// The tail whose line was returned last.
    last: Option<usize>,
    /// Whether nothing more will be written, so that a line without a line feed counts, too.
    is_over: bool,
    /// Files that are no logs, until they are taken.
    other_files: Vec<PathBuf>,
    unreadable_files: Vec<(PathBuf, io::Error)>,
}

/// A line and its position.
#[derive(Debug)]
pub struct MergedLine<'m> {
    /// Index of the file, in the order in which the files were found.
    pub file: usize,
    /// Path of the file.
    pub path: &'m Path,
    /// Number of the line in the file, from 1.
    pub number: u64,
    /// The time by which the line is sorted.
    pub at: Timestamp,
    /// The line.
    pub line: LogLine<'m>,
}

impl Merge {
    /// Opens all files in a directory, or one file. `is_over` says that no process writes to them any
    /// more.
    pub fn open(path: &Path, is_over: bool) -> io::Result<Self> {
        let is_dir = fs::metadata(path)?.is_dir();
        let mut merge = Self {
            dir: is_dir.then(|| path.to_owned()),
            tails: Vec::new(),
            known: BTreeMap::new(),
            ready: BinaryHeap::new(),
            refreshes: 0,
            written_until: Timestamp::MAX,
            idle: Vec::new(),
            last: None,
            is_over,
            other_files: Vec::new(),
            unreadable_files: Vec::new(),
        };
        match is_dir {
            true => merge.find_files()?,
            false => merge.add(path.to_owned()),
        }
        Ok(merge)
    }

    /// Looks for new files, and for new lines in the files that had no more.
    pub fn refresh(&mut self, is_over: bool) -> io::Result<()> {
        self.written_until = Timestamp::MAX;
        self.read_on(is_over)
    }

    /// As [`refresh`](Self::refresh), but [`next`](Self::next) keeps the order of the times also while lines are
    /// written: a line with a time after the begin of this call is returned only after the next call. That call finds
    /// the earlier lines of other files.
    pub fn refresh_in_order(&mut self, is_over: bool) -> io::Result<()> {
        /// A process may write a line this long after the time in the line.
        const WRITING: Duration = Duration::from_millis(50);
        let now = Timestamp::now();
        self.written_until =
            if is_over { Timestamp::MAX } else { now.checked_sub(WRITING).unwrap_or(now) };
        self.read_on(is_over)
    }

    fn read_on(&mut self, is_over: bool) -> io::Result<()> {
        self.is_over = is_over;
        self.refreshes += 1;
        for index in std::mem::take(&mut self.idle) {
            self.advance(index);
        }
        self.find_files()
    }

    fn find_files(&mut self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut new = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // The reserve is overwritten, not appended to, while the run continues.
            if !self.is_over && entry.file_name() == reserve::FILE {
                continue;
            }
            if self.known.insert(entry.file_name(), ()).is_none() {
                new.push(entry.path());
            }
        }
        new.sort();
        for path in new {
            match path.extension().is_some_and(|extension| extension == "jsonl") {
                true => self.add(path),
                false => self.other_files.push(path),
            }
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf) {
        self.tails.push(Tail::of(path));
        self.advance(self.tails.len() - 1);
    }

    fn advance(&mut self, index: usize) {
        let tail = &mut self.tails[index];
        match tail.advance(self.is_over) {
            Ok(true) => self.ready.push(Reverse((tail.at(), index, self.refreshes))),
            Ok(false) => self.idle.push(index),
            // The file is not read again.
            Err(error) => self.unreadable_files.push((tail.path().to_owned(), error)),
        }
    }

    /// The time of the next line.
    pub fn begin(&self) -> Option<Timestamp> {
        self.ready.peek().map(|Reverse((at, ..))| *at)
    }

    /// The earliest line that was not returned before, if there is one at present.
    #[expect(clippy::should_implement_trait, reason = "the line is borrowed from the merge")]
    pub fn next(&mut self) -> Option<MergedLine<'_>> {
        if let Some(last) = self.last.take() {
            self.advance(last);
        }
        let &Reverse((at, index, read_by)) = self.ready.peek()?;
        // The clock of another host may be ahead. Its lines, too, wait for one refresh only, not until their time.
        if at > self.written_until && read_by == self.refreshes {
            return None;
        }
        self.ready.pop();
        self.last = Some(index);
        let tail = &self.tails[index];
        Some(MergedLine {
            file: index,
            path: tail.path(),
            number: tail.number(),
            at,
            line: tail.line(),
        })
    }

    /// The files in the directory that are no logs and were not taken before.
    pub fn take_other_files(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.other_files)
    }

    /// The files without a line, once nothing will be written any more.
    pub fn empty_files(&self) -> impl Iterator<Item = &Path> {
        let idle = self.idle.iter().filter(|_| self.is_over).map(|index| &self.tails[*index]);
        idle.filter(|tail| tail.number() == 0 && !tail.path().ends_with(reserve::FILE))
            .map(Tail::path)
    }

    /// The files that could not be read to their end and were not taken before.
    pub fn take_unreadable_files(&mut self) -> Vec<(PathBuf, io::Error)> {
        std::mem::take(&mut self.unreadable_files)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(second: u32, event: &str) -> String {
        format!(
            "{{\"ts\":\"2026-11-22T23:49:{second:02}.000000Z\",\"level\":\"info\",\
             \"process\":\"worker\",\"pid\":1,\"event\":\"{event}\"}}\n"
        )
    }

    fn events(merge: &mut Merge) -> Vec<String> {
        let mut events = Vec::new();
        while let Some(item) = merge.next() {
            events.push(match item.line {
                LogLine::Valid(_, header) => header.event.to_owned(),
                LogLine::Invalid(..) => "?".to_owned(),
            });
        }
        events
    }

    #[test]
    fn lines_are_sorted_by_time_and_those_of_a_file_keep_their_order() {
        let dir = tempfile::tempdir().unwrap();
        // The clock of the second was set back.
        fs::write(dir.path().join("a.jsonl"), line(1, "a1") + &line(4, "a4") + &line(6, "a6"))
            .unwrap();
        fs::write(dir.path().join("b.jsonl"), line(3, "b3") + "?\n" + &line(2, "b2")).unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::create_dir(dir.path().join("c.jsonl")).unwrap();
        let mut merge = Merge::open(dir.path(), true).unwrap();
        assert_eq!(events(&mut merge), ["a1", "b3", "?", "b2", "a4", "a6"]);
        assert_eq!(merge.take_other_files(), [dir.path().join("notes.txt")]);
        let unreadable = merge.take_unreadable_files();
        assert_eq!((unreadable.len(), &unreadable[0].0), (1, &dir.path().join("c.jsonl")));
    }

    #[test]
    fn a_refresh_finds_new_lines_and_new_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jsonl"), line(1, "a1") + "{\"ts\"").unwrap();
        let mut merge = Merge::open(dir.path(), false).unwrap();
        assert_eq!(events(&mut merge), ["a1"]);
        fs::write(dir.path().join("b.jsonl"), line(2, "b2")).unwrap();
        merge.refresh(false).unwrap();
        assert_eq!(events(&mut merge), ["b2"]);
        merge.refresh(true).unwrap();
        assert_eq!(events(&mut merge), ["?"], "the incomplete line, once nothing will be added");
    }

    #[test]
    fn lines_that_are_written_while_files_are_read_come_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, event: &str, at: Timestamp| {
            let line = format!(
                "{{\"ts\":\"{at:.6}\",\"level\":\"info\",\"process\":\"worker\",\"pid\":1,\"event\":\"{event}\"}}\n"
            );
            let path = dir.path().join(name);
            let text = fs::read_to_string(&path).unwrap_or_default();
            fs::write(path, text + &line).unwrap();
        };
        let now = Timestamp::now();
        let at = |ms: i64| now + jiff::SignedDuration::from_millis(ms);
        write("coordinator.jsonl", "early", at(-60_000));
        write("coordinator.jsonl", "late", at(60_000));
        let mut merge = Merge::open(dir.path(), false).unwrap();
        assert_eq!(events(&mut merge), ["early", "late"], "what is there at present");
        write("coordinator.jsonl", "later", at(80_000));
        merge.refresh_in_order(false).unwrap();
        assert_eq!(events(&mut merge), [""; 0]);
        // Was written before "later", and its file was read before.
        write("worker.jsonl", "between", at(70_000));
        merge.refresh_in_order(false).unwrap();
        assert_eq!(events(&mut merge), [""; 0], "the first of all was read just now");
        merge.refresh_in_order(false).unwrap();
        assert_eq!(events(&mut merge), ["between", "later"]);
        write("worker.jsonl", "last", at(90_000));
        merge.refresh_in_order(true).unwrap();
        assert_eq!(events(&mut merge), ["last"]);
    }
}
