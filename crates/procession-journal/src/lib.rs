//! Per-process logs: every process of a run writes a file of its own, and none waits for another.
//!
//! ```text
//!  logs/latest ─► logs/2026-11-22T23-49-32-4711/   run_dir: one directory a run
//!                   coordinator-4711.jsonl         writer:  one file a process
//!                   worker-0-4712.jsonl            entry:   one JSON object a line
//!                   reserve.jsonl                  reserve: how it ended, if the disk is full
//!                         │
//!                         ▼
//!                   tail ─► merge ─► history       read: by line, by time, as a whole
//! ```
//!
//! A program of one process, which reads its own log at the end:
//!
//! ```
//! use procession_journal::{Journal, Level, LogEvent, OutputStream, RunDir};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let logs = tempfile::tempdir()?;
//! # let logs = logs.path();
//! let run = RunDir::create(logs)?;
//! let journal = Journal::coordinator(&run.path())?;
//! let text = "hello".to_owned();
//! journal.record(Level::Info, LogEvent::Output { stream: OutputStream::Stdout, text });
//! journal.record(Level::Info, LogEvent::Exit { exit_code: 0, why: None });
//! journal.finish();
//! drop(journal);
//!
//! let (history, warnings) = procession_journal::read(&run.path())?;
//! assert_eq!(history.processes[0].name(), "coordinator");
//! assert!(!history.is_open() && warnings.lines().is_empty());
//! # Ok(()) }
//! ```

mod entry;
mod event;
mod history;
mod merge;
pub mod reserve;
mod run_dir;
mod slots;
mod tail;
mod warnings;
mod writer;

use std::io;
use std::path::Path;

pub use entry::{EntryHeader, Level, LogEntry, ProcessKind, now};
pub use event::{
    FORMAT, LogEvent, LostBy, NamedTask, OutputStream, ResourceUsage, RunOptions, RunReport,
    RunSettings, TaskEnd, TaskSum, TaskSums,
};
pub use history::{
    Annotation, ErrorGroup, FailedTry, FinalOutcome, FinalStatus, LogSummary, MAX_SLOTS, MAX_SPANS,
    Micros, MissingLines, ProcessRecord, ProcessSummary, RunHistory, SlowTask, Span, SpanOutcome,
    TaskKey,
};
pub use merge::{Merge, MergedLine};
pub use run_dir::{
    FindError, KEPT_UNFINISHED, RunDir, RunDirError, coordinators, is_fresh, is_running,
};
pub use slots::TaskSlot;
pub use tail::{LineError, LogLine, Tail};
pub use warnings::ReadWarnings;
pub use writer::{Journal, JournalError, current, is_being_written, set};

/// Reads the whole history of a run from its directory, or from one of its files.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// let (history, warnings) = procession_journal::read("logs/latest".as_ref())?;
/// warnings.lines().iter().for_each(|warning| eprintln!("{warning}"));
/// println!("{} tasks in {} processes", history.spans.len(), history.processes.len());
/// # Ok(()) }
/// ```
///
/// # Errors
///
/// Those of the system: there is no such directory, say. A line that cannot be read is a warning.
pub fn read(path: &Path) -> io::Result<(RunHistory, ReadWarnings)> {
    let is_running = is_running(path);
    let mut merge = Merge::open(path, !is_running)?;
    let (mut history, mut warnings) = (RunHistory::default(), ReadWarnings::default());
    read_available(&mut merge, &mut history, &mut warnings);
    if is_running {
        // The lines of the reserve are overwritten until the run ends, so the merge excludes it.
        reserve::entries(path).into_iter().for_each(|entry| history.add(entry));
    }
    match is_running {
        true => history.extend_to(entry::now().as_microsecond()),
        false => history.close(),
    }
    warnings.add_gaps(&history, is_running);
    Ok((history, warnings))
}

/// Adds all lines that can be read at present to the history.
///
/// ```no_run
/// # fn main() -> std::io::Result<()> {
/// use procession_journal::{Merge, ReadWarnings, RunHistory, read_available};
///
/// let mut merge = Merge::open("logs/latest".as_ref(), false)?; // the run goes on
/// let (mut history, mut warnings) = (RunHistory::default(), ReadWarnings::default());
/// while history.is_open() {
///     read_available(&mut merge, &mut history, &mut warnings);
///     println!("{} tasks", history.spans.len());
///     std::thread::sleep(std::time::Duration::from_millis(100));
///     merge.refresh(false)?;
/// }
/// # Ok(()) }
/// ```
pub fn read_available(merge: &mut Merge, history: &mut RunHistory, warnings: &mut ReadWarnings) {
    while read_some(merge, history, warnings, usize::MAX) {}
}

/// Adds lines that can be read at present to the history, up to this number. Returns whether that many were
/// read, so that there may be more: processes may write faster than their lines can be read.
pub fn read_some(
    merge: &mut Merge,
    history: &mut RunHistory,
    warnings: &mut ReadWarnings,
    most: usize,
) -> bool {
    let mut read = 0;
    while read < most
        && let Some(merged) = merge.next()
    {
        read += 1;
        let error = match merged.line {
            LogLine::Valid(text, _) => match LogEntry::from_json(text.as_bytes()) {
                Ok(entry) => {
                    history.add(entry);
                    continue;
                }
                Err(_) => LineError::Unrecognized,
            },
            LogLine::Invalid(_, error) => error,
        };
        warnings.add_line(merged.path, merged.number, error);
    }
    warnings.add_files(merge);
    read == most
}
