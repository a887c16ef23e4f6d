//! Writing a journal: one file a process, one `write` a line.
//!
//! A line goes straight to the file, so that none is lost when the process is killed, and in one
//! call to an append-only file, so that none is torn by another writer. Must never fail the
//! program: a journal that cannot be written counts its lost lines, and says so once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde_json::Map;
use thiserror::Error;

use super::entry::{Entry, Level, Process, now};
use super::event::Event;
use super::reserve::{self, Reserve};

/// So often, a millisecond apart, it is tried to lock a journal.
const LOCK_TRIES: u32 = 50;

/// A journal that could not be opened.
#[derive(Debug, Error)]
#[error("cannot open the journal {}: {cause}", path.display())]
pub struct JournalError {
    /// Its file.
    pub path: PathBuf,
    /// What the system said.
    pub cause: io::Error,
}

/// The journal of this process. All threads may write to it.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    process: Process,
    worker: Option<usize>,
    pid: u32,
    pen: Mutex<Pen>,
    lost: AtomicU64,
    /// Of a coordinator, if there was room for it when the run began.
    reserve: Mutex<Option<Reserve>>,
}

/// What one line needs; behind a lock, so that lines stand in the order of their times.
#[derive(Debug)]
struct Pen {
    file: File,
    /// Kept, so that a line costs no allocation of its own.
    line: Vec<u8>,
    /// The disk took only part of the last line. The next one must not be glued to it.
    torn: bool,
}

impl Journal {
    /// Opens the coordinator's journal, `dir/coordinator-4711.jsonl`.
    /// It stays locked as long as this process lives, so that others can tell a run that goes on
    /// from one that was killed; see [`is_being_written`].
    pub fn coordinator(dir: &Path) -> Result<Self, JournalError> {
        let journal = Self::open(dir, Process::Coordinator, None, std::process::id())?;
        let pen = lock(&journal.pen);
        // Somebody may be looking just now whether it is locked. Not all file systems have locks;
        // there the pid has to do.
        for _ in 0..LOCK_TRIES {
            match flock(&pen.file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => thread::sleep(Duration::from_millis(1)),
                _ => break,
            }
        }
        drop(pen);
        // Without room for it, what is lost is told on stderr only.
        *lock(&journal.reserve) = Reserve::create(dir).ok();
        Ok(journal)
    }

    /// Opens the journal of worker number `worker`, `dir/worker-1-4712.jsonl`: for the worker
    /// itself, and for the coordinator, which writes down what the worker prints.
    pub fn worker(dir: &Path, worker: usize, pid: u32) -> Result<Self, JournalError> {
        Self::open(dir, Process::Worker, Some(worker), pid)
    }

    fn open(
        dir: &Path,
        process: Process,
        worker: Option<usize>,
        pid: u32,
    ) -> Result<Self, JournalError> {
        let number = worker.map(|worker| format!("-{worker}")).unwrap_or_default();
        let path = dir.join(format!("{process}{number}-{pid}.jsonl"));
        match OpenOptions::new().append(true).create(true).open(&path) {
            Ok(file) => Ok(Self::with_file(file, path, process, worker, pid)),
            Err(cause) => Err(JournalError { path, cause }),
        }
    }

    fn with_file(
        file: File,
        path: PathBuf,
        process: Process,
        worker: Option<usize>,
        pid: u32,
    ) -> Self {
        let pen = Pen { file, line: Vec::new(), torn: false };
        let (pen, reserve) = (Mutex::new(pen), Mutex::default());
        Journal { path, process, worker, pid, pen, lost: AtomicU64::new(0), reserve }
    }

    /// Writes a line.
    pub fn record(&self, level: Level, event: Event) {
        // How a run ended must not be missing.
        let is_the_end = matches!(event, Event::Summary { .. } | Event::Exit { .. });
        let (written, entry) = {
            // A thread that panicked here has at worst left a torn line.
            let mut pen = lock(&self.pen);
            let (process, worker, pid) = (self.process.clone(), self.worker, self.pid);
            let entry = Entry { ts: now(), level, process, worker, pid, event, extra: Map::new() };
            (pen.write(&entry), entry)
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

    /// Counts a line that was not written. The first one is told on stderr. The journal is not
    /// locked meanwhile: stderr may itself be a pipe that ends in it.
    fn count_loss(&self, lost: Entry, error: &io::Error) {
        if let Some(dir) = self.path.parent() {
            // Without a reserve the loss is known to this process only.
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

    /// In a coordinator, once the last line is written: removes the reserve if it was not needed.
    pub fn finish(&self) {
        let mut reserve = lock(&self.reserve);
        if let Some(reserve) = reserve.as_mut() {
            reserve.finish();
        }
    }

    /// How many lines of all processes of the run are missing, and why, as a line for its log.
    pub fn missing(&self) -> Option<Event> {
        lock(&self.reserve).as_ref()?.loss().map(|entry| entry.event)
    }

    /// Which worker writes it, if it is one.
    pub fn worker_number(&self) -> Option<usize> {
        self.worker
    }

    /// Its file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How many lines could not be written.
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Pen {
    fn write(&mut self, entry: &Entry) -> io::Result<()> {
        self.line.clear();
        if self.torn {
            self.line.push(b'\n');
        }
        serde_json::to_writer(&mut self.line, entry)?;
        self.line.push(b'\n');
        let mut rest = &self.line[..];
        while !rest.is_empty() {
            match self.file.write(rest) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // More than one write is needed only where the disk is about to be full; the next
                // one tells why.
                Ok(taken @ 1..) => (rest, self.torn) = (&rest[taken..], true),
                Ok(_) => return Err(io::ErrorKind::WriteZero.into()),
                Err(error) => return Err(error),
            }
        }
        self.torn = false;
        Ok(())
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whether the process that opened this as its [`Journal::coordinator`] lives.
pub fn is_being_written(coordinator: &Path) -> bool {
    let Ok(file) = File::open(coordinator) else { return false };
    match flock(&file, FlockOperation::NonBlockingLockShared) {
        Ok(()) => false,
        Err(Errno::WOULDBLOCK) => true,
        // No locks here: somebody lives who has that pid.
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

/// Makes `journal` the one of this process. Only the first call counts; a later one gives its
/// journal back.
pub fn set(journal: Journal) -> Result<(), Box<Journal>> {
    CURRENT.set(journal).map_err(Box::new)
}

/// The journal of this process, if it has one.
pub fn current() -> Option<&'static Journal> {
    CURRENT.get()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Stream;

    fn output(text: String) -> Event {
        Event::Output { stream: Stream::Stdout, text }
    }

    fn entries(journal: &Journal) -> Vec<Entry> {
        let text = std::fs::read_to_string(journal.path()).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn files_are_named_after_their_process() {
        let dir = tempfile::tempdir().unwrap();
        let pid = std::process::id();
        let name =
            |journal: Journal| journal.path().file_name().unwrap().to_str().unwrap().to_owned();
        let coordinator = name(Journal::coordinator(dir.path()).unwrap());
        assert_eq!(coordinator, format!("coordinator-{pid}.jsonl"));
        let worker = name(Journal::worker(dir.path(), 1, std::process::id()).unwrap());
        assert_eq!(worker, format!("worker-1-{pid}.jsonl"));
    }

    #[test]
    fn lines_say_who_wrote_them_and_are_appended() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["one", "two"] {
            let journal = Journal::worker(dir.path(), 3, std::process::id()).unwrap();
            journal.record(Level::Info, output(text.into()));
        }
        let journal = Journal::worker(dir.path(), 3, std::process::id()).unwrap();
        let entries = entries(&journal);
        assert_eq!(entries[1].event, output("two".into()));
        assert_eq!((entries.len(), entries[0].worker), (2, Some(3)));
        assert_eq!((&entries[0].process, entries[0].pid), (&Process::Worker, std::process::id()));
    }

    #[test]
    fn threads_do_not_mix_their_lines_and_times_only_grow() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::coordinator(dir.path()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let journal = &journal;
                scope.spawn(move || {
                    for n in 0..200 {
                        let text = format!("{thread} {n} {}", "x".repeat(n * 20));
                        journal.record(Level::Debug, output(text));
                    }
                });
            }
        });
        let entries = entries(&journal);
        assert_eq!((entries.len(), journal.lost()), (1600, 0));
        assert!(entries.is_sorted_by_key(|entry| entry.ts));
    }

    #[test]
    fn a_full_disk_loses_lines_and_nothing_else() {
        let file = OpenOptions::new().append(true).open("/dev/full").unwrap();
        let journal = Journal::with_file(file, "/dev/full".into(), Process::Coordinator, None, 1);
        journal.record(Level::Info, output("one".into()));
        journal.record(Level::Info, output("two".into()));
        assert_eq!(journal.lost(), 2);
    }

    #[test]
    fn a_torn_line_spoils_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::coordinator(dir.path()).unwrap();
        std::fs::write(journal.path(), r#"{"ts":"2026"#).unwrap();
        journal.pen.lock().unwrap().torn = true;
        journal.record(Level::Info, output("whole".into()));
        journal.record(Level::Info, output("whole".into()));
        let text = std::fs::read_to_string(journal.path()).unwrap();
        let whole = text.lines().filter(|line| serde_json::from_str::<Entry>(line).is_ok());
        assert_eq!((whole.count(), text.lines().count()), (2, 3));
    }

    #[test]
    fn a_journal_tells_whether_its_coordinator_lives() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::coordinator(dir.path()).unwrap();
        let path = journal.path().to_owned();
        assert!(is_being_written(&path));
        drop(journal);
        assert!(!is_being_written(&path), "though this process lives, whose pid it names");
        assert!(!is_being_written(&dir.path().join("no")));
    }

    #[test]
    fn a_missing_directory_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = Journal::coordinator(&dir.path().join("no")).unwrap_err().to_string();
        assert!(error.starts_with("cannot open the journal ") && error.contains("/no/"), "{error}");
    }

    #[test]
    fn a_process_has_one_journal() {
        let dir = tempfile::tempdir().unwrap();
        // All tests are one process: another one may have been first.
        let _ = set(Journal::worker(dir.path(), 0, std::process::id()).unwrap());
        let first = current().expect("a journal was set").path();
        let second = Journal::worker(dir.path(), 1, std::process::id()).unwrap();
        assert_eq!(set(second).unwrap_err().worker, Some(1));
        assert_eq!(current().unwrap().path(), first);
    }
}
