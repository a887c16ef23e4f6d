//! Room on the disk for what must not be missing from a log: how many lines are, and how the run
//! ended.
//!
//! ```text
//!   reserve.jsonl   {"ts":…,"event":"lines_lost","lines":594,"why":"the disk is full"}   1st line
//!                   {"ts":…,"event":"summary",…}                                         the end
//!                   {"ts":…,"event":"exit",…}
//! ```
//!
//! The file is made with the log, full of blanks, and overwritten in place: that needs no further
//! block, and the file does not grow. Every process of the run counts in the first line what it
//! could not write. The coordinator writes what ends the run behind it, if its own file does not
//! take it. At the end of a run that lost nothing the file is removed; so one that is there and
//! blank was left by a coordinator that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::entry::Entry;
use super::event::Event;

/// Its name in the directory of the run.
pub const FILE: &str = "reserve.jsonl";

/// The length of the first line.
const LOSS: usize = 512;
/// The length of the file.
const SIZE: usize = 4096;

/// The reserve of a run, held by its coordinator.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    file: File,
    /// Up to where it is written.
    used: usize,
}

impl Reserve {
    /// Makes it, if there is room.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let mut blank = vec![b' '; SIZE];
        (blank[LOSS - 1], blank[SIZE - 1]) = (b'\n', b'\n');
        if let Err(error) = file.write_all_at(&blank, 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { path, file, used: LOSS })
    }

    /// Writes a line that the coordinator's own file did not take.
    pub(super) fn write(&mut self, entry: &Entry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One blank line is left, so that what comes behind the last line is not part of it.
        if self.used + line.len() >= SIZE {
            return Err(ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(&line, self.used as u64)?;
        self.used += line.len();
        Ok(())
    }

    /// What was lost, by the count of all processes.
    pub(super) fn loss(&self) -> Option<Entry> {
        read_loss(&self.file)
    }

    /// At the end of the run: removes it if there is nothing in it, and else what is blank.
    pub(super) fn finish(&mut self) {
        if self.used == LOSS && self.loss().is_none() {
            let _ = fs::remove_file(&self.path);
        } else {
            let _ = self.file.set_len(self.used as u64);
        }
    }
}

/// Counts a line that a process could not write into its file in `dir`.
pub(super) fn count_loss(dir: &Path, lost: Entry, error: &io::Error) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(dir.join(FILE))?;
    flock(&file, FlockOperation::LockExclusive)?;
    let mut entry = read_loss(&file).unwrap_or(Entry {
        event: Event::LinesLost { lines: 0, why: why(error) },
        level: super::Level::Error,
        ..lost
    });
    if let Event::LinesLost { lines, .. } = &mut entry.event {
        *lines += 1;
    }
    let mut line = serde_json::to_vec(&entry)?;
    if line.len() >= LOSS {
        return Err(ErrorKind::InvalidData.into());
    }
    line.resize(LOSS - 1, b' ');
    file.write_all_at(&line, 0)
}

fn read_loss(file: &File) -> Option<Entry> {
    let mut line = [0; LOSS];
    file.read_exact_at(&mut line, 0).ok()?;
    let entry: Entry = serde_json::from_slice(line.trim_ascii()).ok()?;
    matches!(entry.event, Event::LinesLost { .. }).then_some(entry)
}

/// What is in the reserve of the run whose log is in `dir`.
pub fn entries(dir: &Path) -> Vec<Entry> {
    let Ok(bytes) = fs::read(dir.join(FILE)) else { return Vec::new() };
    let lines = bytes[..bytes.len().min(SIZE)].split(|&byte| byte == b'\n');
    lines.filter_map(|line| serde_json::from_slice(line.trim_ascii()).ok()).collect()
}

/// Why a line could not be written, in words that do not differ from one line to the next.
fn why(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::WriteZero => "the disk is full".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::FileTooLarge => "the limit of file sizes (ulimit -f) is reached".to_owned(),
        _ => error.to_string().chars().take(200).collect(),
    }
}
