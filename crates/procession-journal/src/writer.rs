//! Writes a journal: one file for each process, one `write` for each line.
//!
//! A line is written at once, so a kill of the process does not lose it. It is appended with one call, so lines
//! of several writers do not mix. An error never stops the program: the journal counts the lost lines and
//! reports the first on stderr.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use procession_os::{file_lock, regular_file};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use serde_json::Map;
use thiserror::Error;

use super::entry::{Level, LineRef, LogEntry, ProcessKind, now};
use super::event::LogEvent;
use super::reserve::{self, Reserve};

/// The shortest time between two lines with the CPU time of their process, in microseconds.
const CPU_INTERVAL: i64 = 100_000;

/// Number of attempts to lock a journal, a millisecond apart.
const LOCK_TRIES: u32 = 50;

/// A journal that could not be opened.
#[derive(Debug, Error)]
#[error("cannot open the journal {}", path.display())]
pub struct JournalError {
    /// The file.
    pub path: PathBuf,
    /// The system's error.
    pub source: io::Error,
}

/// A journal. All threads may write to it.
///
/// ```
/// use procession_journal::{Journal, Level, LogEvent, OutputStream};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// let journal = Journal::worker(dir, 1, std::process::id())?;
/// let line = |text: &str| LogEvent::Output { stream: OutputStream::Stdout, text: text.to_owned() };
/// journal.record(Level::Info, line("one"));
/// journal.record_all(vec![(Level::Info, line("two")), (Level::Warn, line("three"))]);
/// assert_eq!((journal.worker_index(), journal.lost()), (Some(1), 0));
/// assert_eq!(std::fs::read_to_string(journal.path())?.lines().count(), 3);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    process: ProcessKind,
    worker: Option<usize>,
    pid: u32,
    writer: Mutex<LineWriter>,
    lost: AtomicU64,
    /// Of a coordinator, if the disk had space for it when the run began.
    reserve: Mutex<Option<Reserve>>,
}

/// Writes one line at a time; behind a lock, so that lines are in the order of their times.
#[derive(Debug)]
struct LineWriter {
    file: File,
    /// Device and inode of the file.
    identity: Option<(u64, u64)>,
    /// Length of the file before the line, in bytes.
    length: u64,
    /// RLIMIT_FSIZE when the journal was opened.
    max_length: Option<u64>,
    /// Reused, so that a line needs no allocation.
    line: Vec<u8>,
    /// Whether the journal is that of this process, whose CPU time is known.
    is_own: bool,
    /// The time of the last line that had the CPU time.
    cpu_at: Option<Timestamp>,
    /// Only part of the last line was written. The next line must begin with a line feed.
    is_incomplete: bool,
}

impl Journal {
    /// Opens the coordinator's journal, `dir/coordinator-4711.jsonl`.
    /// The file stays locked until this process ends, so that other processes can distinguish a
    /// running run from one that was killed; see [`is_being_written`].
    pub fn coordinator(dir: &Path) -> Result<Self, JournalError> {
        let journal = Self::open(dir, ProcessKind::Coordinator, None, std::process::id())?;
        let writer = lock(&journal.writer);
        // A reader that checks the lock holds it for a moment. File systems without locks return
        // another error; there `is_being_written` uses the pid.
        let _ = file_lock::lock_within(&writer.file, LOCK_TRIES);
        drop(writer);
        // Without a reserve, lost lines are reported on stderr only.
        *lock(&journal.reserve) = Reserve::create(dir).ok();
        Ok(journal)
    }

    /// Opens the journal of worker number `worker`, `dir/worker-1-4712.jsonl`: for the worker
    /// itself, and for the coordinator, which records the output of the worker there.
    pub fn worker(dir: &Path, worker: usize, pid: u32) -> Result<Self, JournalError> {
        Self::open(dir, ProcessKind::Worker, Some(worker), pid)
    }

    /// Opens a journal for a worker of another host, `dir/host-2-4712.jsonl`. The coordinator writes it, from the
    /// messages of that host. `number` identifies the host within this run; `name` is the name of the process in reports.
    pub fn of_host(dir: &Path, number: usize, name: &str, pid: u32) -> Result<Self, JournalError> {
        let path = dir.join(format!("host-{number}-{pid}.jsonl"));
        match regular_file::without_link(OpenOptions::new().append(true).create(true), &path) {
            Ok(file) => {
                Ok(Self::with_file(file, path, ProcessKind::Other(name.to_owned()), None, pid))
            }
            Err(source) => Err(JournalError { path, source }),
        }
    }

    fn open(
        dir: &Path,
        process: ProcessKind,
        worker: Option<usize>,
        pid: u32,
    ) -> Result<Self, JournalError> {
        let number = worker.map(|worker| format!("-{worker}")).unwrap_or_default();
        let path = dir.join(format!("{process}{number}-{pid}.jsonl"));
        match regular_file::without_link(OpenOptions::new().append(true).create(true), &path) {
            Ok(file) => Ok(Self::with_file(file, path, process, worker, pid)),
            Err(source) => Err(JournalError { path, source }),
        }
    }

    fn with_file(
        file: File,
        path: PathBuf,
        process: ProcessKind,
        worker: Option<usize>,
        pid: u32,
    ) -> Self {
        let identity = file.metadata().ok().as_ref().map(identity);
        let (line, length, is_incomplete, cpu_at) = (Vec::new(), 0, false, None);
        // A process of another host may have the same id.
        let is_own = pid == std::process::id() && !matches!(process, ProcessKind::Other(_));
        let max_length = reserve::max_file_size();
        let writer =
            LineWriter { file, identity, length, max_length, line, is_own, cpu_at, is_incomplete };
        let (writer, reserve) = (Mutex::new(writer), Mutex::default());
        Journal { path, process, worker, pid, writer, lost: AtomicU64::new(0), reserve }
    }

    /// Writes a line.
    pub fn record(&self, level: Level, event: LogEvent) {
        // The end of a run is written to the reserve if the file has no space.
        let is_the_end = matches!(event, LogEvent::Summary { .. } | LogEvent::Exit { .. });
        let (written, entry) = {
            // A thread that panicked here has at worst left an incomplete line.
            let mut writer = lock(&self.writer);
            let (process, worker, pid) = (self.process.clone(), self.worker, self.pid);
            let ts = now();
            let own_cpu_s = writer.cpu_time_if_due(ts);
            let extra = Map::new();
            let entry = LogEntry { ts, level, process, worker, pid, own_cpu_s, event, extra };
            let written = writer.check_file(&self.path).and_then(|()| writer.write(&entry));
            (written, entry)
        };
        let Err(error) = written else { return };
        let mut reserve = lock(&self.reserve);
        if let Some(reserve) = reserve.as_mut().filter(|_| is_the_end)
            && reserve.write(&entry).is_ok()
        {
            return;
        }
        drop(reserve);
        self.count_loss(entry, &error);
    }

    /// Writes lines with one write, where that is possible.
    pub fn record_all(&self, mut lines: Vec<(Level, LogEvent)>) {
        let whole = {
            let mut writer = lock(&self.writer);
            let ts = now();
            let mut own_cpu_s = writer.cpu_time_if_due(ts);
            let entries = lines.iter().map(|(level, event)| LineRef {
                ts,
                level,
                process: &self.process,
                worker: self.worker,
                pid: self.pid,
                own_cpu_s: own_cpu_s.take(),
                event,
            });
            match writer.check_file(&self.path) {
                Ok(()) => writer.write_all(entries),
                Err(_) => 0,
            }
        };
        // One by one, which counts those that cannot be written.
        for (level, event) in lines.drain(whole..) {
            self.record(level, event);
        }
    }

    /// Counts a line that was not written, and reports the first on stderr. The journal is not locked
    /// during this, since stderr may be a pipe whose lines are recorded in it.
    fn count_loss(&self, lost: LogEntry, error: &io::Error) {
        if let Some(dir) = self.path.parent() {
            // Without a reserve only this process counts the loss.
            let _ = reserve::count_loss(dir, lost, error);
        }
        if self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            let path = self.path.display();
            // Not `eprintln!`, which panics when stderr is closed.
            let _ = writeln!(
                io::stderr(),
                "warning: cannot write the journal {path}: {error}; its further losses are silent"
            );
        }
    }

    /// Removes the reserve if it was not needed; for a coordinator, after its last line.
    pub fn finish(&self) {
        let mut reserve = lock(&self.reserve);
        if let Some(reserve) = reserve.as_mut() {
            reserve.finish();
        }
    }

    /// The event that records the lost lines of all processes of the run.
    pub fn lines_lost(&self) -> Option<LogEvent> {
        lock(&self.reserve).as_ref()?.loss().map(|entry| entry.event)
    }

    /// Index of the worker that writes it, if it is the journal of a worker.
    pub fn worker_index(&self) -> Option<usize> {
        self.worker
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Number of lines of this process that could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl LineWriter {
    /// Opens the file again if a task has closed its descriptor: another file may have the same number
    /// now, and must not get the lines.
    fn check_file(&mut self, path: &Path) -> io::Result<()> {
        let metadata = self.file.metadata().ok();
        let is_ours = metadata.as_ref().map(identity) == self.identity;
        if self.identity.is_some() && !is_ours {
            let file = regular_file::without_link(OpenOptions::new().append(true), path)?;
            self.identity = file.metadata().ok().as_ref().map(identity);
            // Not dropped: the descriptor is that of another file.
            let _ = std::mem::replace(&mut self.file, file).into_raw_fd();
        }
        self.length = metadata.filter(|_| is_ours).map_or(0, |metadata| metadata.len());
        Ok(())
    }

    /// The CPU time for a line at this time, if the last line that had it is old enough.
    fn cpu_time_if_due(&mut self, ts: Timestamp) -> Option<f64> {
        let is_due = self.cpu_at.is_none_or(|last| {
            ts.as_microsecond().saturating_sub(last.as_microsecond()) >= CPU_INTERVAL
        });
        if !self.is_own || !is_due {
            return None;
        }
        self.cpu_at = Some(ts);
        let used = Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).ok()?;
        Some(used.as_micros() as f64 / 1e6)
    }

    /// Refuses a line beyond RLIMIT_FSIZE: the write would end this process by SIGXFSZ.
    fn check_length(&self) -> io::Result<()> {
        match self.max_length {
            Some(max) if self.length + self.line.len() as u64 > max => {
                Err(io::ErrorKind::FileTooLarge.into())
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, entry: &LogEntry) -> io::Result<()> {
        self.begin_line();
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        self.check_length()?;
        self.write_out().map_err(|(_, error)| error)
    }

    /// Writes several lines at once. Returns the number of those that were written.
    fn write_all<'e>(&mut self, entries: impl Iterator<Item = LineRef<'e>>) -> usize {
        self.begin_line();
        let mut ends = Vec::new();
        for entry in entries {
            if serde_json::to_writer(&mut self.line, &entry).is_err() {
                return 0;
            }
            self.line.push(b'\n');
            ends.push(self.line.len());
        }
        if self.check_length().is_err() {
            return 0;
        }
        match self.write_out() {
            Ok(()) => ends.len(),
            Err((written, _)) => ends.partition_point(|end| *end <= written),
        }
    }

    fn begin_line(&mut self) {
        self.line.clear();
        if self.is_incomplete {
            self.line.push(b'\n');
        }
    }

    /// Writes the buffer. An error comes with the number of bytes that were written before.
    fn write_out(&mut self) -> Result<(), (usize, io::Error)> {
        let mut written = 0;
        while written < self.line.len() {
            match self.file.write(&self.line[written..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A partial write means that the disk is full; the next write returns the error.
                Ok(taken @ 1..) => {
                    written += taken;
                    self.is_incomplete = self.line[written - 1] != b'\n';
                }
                Ok(_) => return Err((written, io::ErrorKind::WriteZero.into())),
                Err(error) => return Err((written, error)),
            }
        }
        self.is_incomplete = false;
        Ok(())
    }
}

/// Device and inode of a file.
fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the process that opened this file with [`Journal::coordinator`] is alive.
pub fn is_being_written(coordinator: &Path) -> bool {
    let Ok(file) = regular_file::to_read(coordinator) else { return false };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => false,
        Err(Errno::WOULDBLOCK) => true,
        // The file system has no locks: a process with that pid exists.
        Err(_) => pid_in(coordinator)
            .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH)),
    }
}

/// The pid in the name of a journal.
fn pid_in(path: &Path) -> Option<rustix::process::Pid> {
    let (_, pid) = path.file_stem()?.to_str()?.rsplit_once('-')?;
    rustix::process::Pid::from_raw(pid.parse().ok().filter(|pid| *pid > 0)?)
}

static CURRENT: OnceLock<Journal> = OnceLock::new();

/// Makes `journal` the journal of this process. Only the first call has an effect.
///
/// ```
/// use procession_journal::{Journal, current, set};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # let dir = dir.path();
/// set(Journal::coordinator(dir)?).expect("it is the first");
/// assert!(current().is_some()); // from everywhere in this process
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// The journal itself, if this process has one already.
pub fn set(journal: Journal) -> Result<(), Box<Journal>> {
    CURRENT.set(journal).map_err(Box::new)
}

/// The journal of this process, if it has one. See the example of [`set`].
pub fn current() -> Option<&'static Journal> {
    CURRENT.get()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
