//! All files of a run, merged by time, as a stream: of each file only one line is held at a time.
//!
//! ```text
//!   coordinator-4711.jsonl ─► tail ─┐
//!   worker-0-4712.jsonl ────► tail ─┼─► the earliest line of all ─► logs, story, dashboard
//!   worker-1-4713.jsonl ────► tail ─┘
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;

use super::reserve;
use super::tail::{Line, Tail};

/// The lines of a run's files, by time.
#[derive(Debug)]
pub struct Merge {
    dir: Option<PathBuf>,
    tails: Vec<Tail>,
    known: BTreeMap<OsString, ()>,
    /// The tails that hold a line.
    ready: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// Those that had no further line when they were asked.
    idle: Vec<usize>,
    /// The one whose line was given out last.
    last: Option<usize>,
    /// Whether nothing more will be written, so that a line without an end is one, too.
    is_over: bool,
    strangers: Vec<PathBuf>,
    broken: Vec<(PathBuf, io::Error)>,
}

/// A line, and where it stands.
#[derive(Debug)]
pub struct Item<'m> {
    /// Which of the files, in the order in which they were found.
    pub file: usize,
    /// Its path.
    pub path: &'m Path,
    /// The number of the line in it, from 1.
    pub number: u64,
    /// Where it belongs in time.
    pub at: Timestamp,
    /// The line.
    pub line: Line<'m>,
}

impl Merge {
    /// The lines of all files in a directory, or of one file. `is_over` says that nobody will write
    /// to them any more.
    pub fn open(path: &Path, is_over: bool) -> io::Result<Self> {
        let is_dir = fs::metadata(path)?.is_dir();
        let mut merge = Self {
            dir: is_dir.then(|| path.to_owned()),
            tails: Vec::new(),
            known: BTreeMap::new(),
            ready: BinaryHeap::new(),
            idle: Vec::new(),
            last: None,
            is_over,
            strangers: Vec::new(),
            broken: Vec::new(),
        };
        match is_dir {
            true => merge.look_around()?,
            false => merge.add(path.to_owned()),
        }
        Ok(merge)
    }

    /// Looks for new files, and for new lines in those that had no more.
    pub fn look_again(&mut self, is_over: bool) -> io::Result<()> {
        self.is_over = is_over;
        for index in std::mem::take(&mut self.idle) {
            self.advance(index);
        }
        self.look_around()
    }

    fn look_around(&mut self) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let mut new = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            // It is overwritten, not appended to, as long as the run goes on.
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
                false => self.strangers.push(path),
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
            Ok(true) => self.ready.push(Reverse((tail.at(), index))),
            Ok(false) => self.idle.push(index),
            // It is not asked again.
            Err(error) => self.broken.push((tail.path().to_owned(), error)),
        }
    }

    /// When the earliest line happened that was not given out yet.
    pub fn begin(&self) -> Option<Timestamp> {
        self.ready.peek().map(|Reverse((at, _))| *at)
    }

    /// The earliest line that was not given out yet, if there is one at present.
    #[expect(clippy::should_implement_trait, reason = "what it gives is borrowed from it")]
    pub fn next(&mut self) -> Option<Item<'_>> {
        if let Some(last) = self.last.take() {
            self.advance(last);
        }
        let Reverse((at, index)) = self.ready.pop()?;
        self.last = Some(index);
        let tail = &self.tails[index];
        Some(Item { file: index, path: tail.path(), number: tail.number(), at, line: tail.line() })
    }

    /// What lies among the files and is none of them, as far as it was not asked for before.
    pub fn strangers(&mut self) -> Vec<PathBuf> {
        std::mem::take(&mut self.strangers)
    }

    /// The files in which there was nothing, once nothing will be written any more.
    pub fn empty(&self) -> impl Iterator<Item = &Path> {
        let idle = self.idle.iter().filter(|_| self.is_over).map(|index| &self.tails[*index]);
        idle.filter(|tail| tail.number() == 0 && !tail.path().ends_with(reserve::FILE))
            .map(Tail::path)
    }

    /// The files that could not be read, or not to their end, as far as not asked for before.
    pub fn broken(&mut self) -> Vec<(PathBuf, io::Error)> {
        std::mem::take(&mut self.broken)
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
                Line::Good(_, head) => head.event.to_owned(),
                Line::Bad(..) => "?".to_owned(),
            });
        }
        events
    }

    #[test]
    fn lines_come_by_time_and_those_of_a_file_in_their_order() {
        let dir = tempfile::tempdir().unwrap();
        // The clock of the second was set back.
        fs::write(dir.path().join("a.jsonl"), line(1, "a1") + &line(4, "a4") + &line(6, "a6"))
            .unwrap();
        fs::write(dir.path().join("b.jsonl"), line(3, "b3") + "?\n" + &line(2, "b2")).unwrap();
        fs::write(dir.path().join("notes.txt"), "mine").unwrap();
        fs::create_dir(dir.path().join("c.jsonl")).unwrap();
        let mut merge = Merge::open(dir.path(), true).unwrap();
        assert_eq!(events(&mut merge), ["a1", "b3", "?", "b2", "a4", "a6"]);
        assert_eq!(merge.strangers(), [dir.path().join("notes.txt")]);
        let broken = merge.broken();
        assert_eq!((broken.len(), &broken[0].0), (1, &dir.path().join("c.jsonl")));
    }

    #[test]
    fn new_lines_and_new_files_are_found_by_looking_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.jsonl"), line(1, "a1") + "{\"ts\"").unwrap();
        let mut merge = Merge::open(dir.path(), false).unwrap();
        assert_eq!(events(&mut merge), ["a1"]);
        fs::write(dir.path().join("b.jsonl"), line(2, "b2")).unwrap();
        merge.look_again(false).unwrap();
        assert_eq!(events(&mut merge), ["b2"]);
        merge.look_again(true).unwrap();
        assert_eq!(events(&mut merge), ["?"], "the torn line, once nobody will end it");
    }
}
