//! Reserved disk space for what must not be missing from a log: the number of missing lines, and how
//! the run ended.
//!
//! ```text
//!   reserve.jsonl   {"ts":…,"event":"lines_lost","lines":594,"why":"the disk is full"}   1st line
//!                   {"ts":…,"event":"summary",…}                                         the end
//!                   {"ts":…,"event":"exit",…}
//! ```
//!
//! The file is created with the log, full of blanks, and overwritten in place, which needs no further
//! disk block. Every process of the run counts in the first line the lines that it could not write.
//! The coordinator writes the end of the run behind that line if its own file has no space. A run
//! that lost no line removes the file at its end, so a blank file means that the coordinator was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use procession_os::{file_lock, regular_file};
use rustix::process::{Resource, getrlimit};

use super::entry::LogEntry;
use super::event::LogEvent;

/// The name of the file in the directory of the run.
pub const FILE: &str = "reserve.jsonl";

/// Length of the first line, in bytes.
const LOSS_LINE_BYTES: usize = 512;
/// Length of the file, in bytes.
const FILE_BYTES: usize = 4096;

/// The limit of file sizes of this process (`ulimit -f`), in bytes.
pub(super) fn max_file_size() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// The reserve of a run, held by its coordinator.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
    file: File,
    /// Number of bytes that are written.
    used: usize,
}

impl Reserve {
    /// Creates the file, if there is space.
    pub(super) fn create(dir: &Path) -> io::Result<Self> {
        if max_file_size().is_some_and(|max| max < FILE_BYTES as u64) {
            return Err(ErrorKind::FileTooLarge.into());
        }
        let path = dir.join(FILE);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
        let mut blank = vec![b' '; FILE_BYTES];
        (blank[LOSS_LINE_BYTES - 1], blank[FILE_BYTES - 1]) = (b'\n', b'\n');
        if let Err(error) = file.write_all_at(&blank, 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        Ok(Self { path, file, used: LOSS_LINE_BYTES })
    }

    /// Writes a line for which the coordinator's own file had no space.
    pub(super) fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        let mut line = serde_json::to_vec(entry)?;
        line.push(b'\n');
        // One blank line is kept, so that the blanks behind the last line are not part of it.
        if self.used + line.len() >= FILE_BYTES {
            return Err(ErrorKind::StorageFull.into());
        }
        self.file.write_all_at(&line, self.used as u64)?;
        self.used += line.len();
        Ok(())
    }

    /// The lost lines of all processes.
    pub(super) fn loss(&self) -> Option<LogEntry> {
        read_loss(&self.file)
    }

    /// At the end of the run: removes the file if it is blank, else the blanks at its end.
    pub(super) fn finish(&mut self) {
        if self.used == LOSS_LINE_BYTES && self.loss().is_none() {
            let _ = fs::remove_file(&self.path);
        } else {
            let _ = self.file.set_len(self.used as u64);
        }
    }
}

/// Number of attempts to lock the file, a millisecond apart.
const LOCK_TRIES: u32 = 20;

/// Adds one line that a process could not write into its file in `dir`.
pub(super) fn count_loss(dir: &Path, lost: LogEntry, error: &io::Error) -> io::Result<()> {
    let mut options = OpenOptions::new();
    let file = regular_file::without_link(options.read(true).write(true), &dir.join(FILE))?;
    file_lock::lock_within(&file, LOCK_TRIES)?;
    let mut entry = read_loss(&file).unwrap_or(LogEntry {
        event: LogEvent::LinesLost { lines: 0, why: reason(error) },
        level: super::Level::Error,
        own_cpu_s: None,
        ..lost
    });
    if let LogEvent::LinesLost { lines, .. } = &mut entry.event {
        *lines += 1;
    }
    let mut line = serde_json::to_vec(&entry)?;
    if line.len() >= LOSS_LINE_BYTES {
        return Err(ErrorKind::InvalidData.into());
    }
    line.resize(LOSS_LINE_BYTES - 1, b' ');
    file.write_all_at(&line, 0)
}

fn read_loss(file: &File) -> Option<LogEntry> {
    let mut line = [0; LOSS_LINE_BYTES];
    file.read_exact_at(&mut line, 0).ok()?;
    let entry = LogEntry::from_json(line.trim_ascii()).ok()?;
    matches!(entry.event, LogEvent::LinesLost { .. }).then_some(entry)
}

/// The entries in the reserve of the run whose log is in `dir`.
pub fn entries(dir: &Path) -> Vec<LogEntry> {
    let mut bytes = Vec::new();
    let file = regular_file::to_read(&dir.join(FILE));
    let file = file.map(|file| file.take(FILE_BYTES as u64));
    if file.and_then(|mut file| file.read_to_end(&mut bytes)).is_err() {
        return Vec::new();
    }
    let lines = bytes.split(|&byte| byte == b'\n');
    lines.filter_map(|line| LogEntry::from_json(line.trim_ascii()).ok()).collect()
}

/// Why a line could not be written: the same text for each line.
fn reason(error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::WriteZero => "the disk is full".to_owned(),
        ErrorKind::QuotaExceeded => "the disk quota is used up".to_owned(),
        ErrorKind::FileTooLarge => "the limit of file sizes (ulimit -f) is reached".to_owned(),
        _ => error.to_string().chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use rustix::fs::{FlockOperation, flock};

    #[test]
    fn who_holds_the_lock_for_ever_keeps_nobody() {
        let dir = tempfile::tempdir().expect("a directory");
        let reserve = Reserve::create(dir.path()).expect("a reserve");
        let held = File::open(dir.path().join(FILE)).expect("a file");
        flock(&held, FlockOperation::LockShared).expect("a lock");
        let line = r#"{"ts":"2026-11-22T23:49:32Z","level":"info","process":"worker","worker":0,"pid":47,"event":"x"}"#;
        let count = |dir: PathBuf| {
            let (sender, counted) = mpsc::channel();
            let lost = LogEntry::from_json(line.as_bytes()).expect("a line");
            thread::spawn(move || {
                let _ = sender.send(count_loss(&dir, lost, &ErrorKind::StorageFull.into()));
            });
            counted.recv_timeout(Duration::from_secs(30)).expect("an answer")
        };
        assert!(count(dir.path().to_owned()).is_err());
        assert!(reserve.loss().is_none());
        drop(held);
        count(dir.path().to_owned()).expect("it is counted");
        assert!(reserve.loss().is_some());
    }
}
