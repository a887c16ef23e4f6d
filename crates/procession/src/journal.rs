//! The journal of a pool: one directory for each run, with one file for each process. It needs the
//! feature `journal`.
//!
//! [`Builder::journal`](crate::Builder::journal) is all that a program needs:
//!
//! ```no_run
//! # use procession::{PoolError, ProcessPool};
//! # fn main() -> Result<(), PoolError> {
//! let pool = ProcessPool::builder().journal("logs").build()?;
//! # Ok(()) }
//! ```
//!
//! ```text
//!  logs/latest ─► logs/2026-11-22T23-49-32-4711/
//!                   coordinator-4711.jsonl    workers, deaths, retries, lost tasks; the pool writes it
//!                   worker-0-4712.jsonl       tasks; the worker writes it, and the pool adds its output
//! ```
//!
//! `coordinator logs logs/latest` and `coordinator timeline logs/latest` show it, and
//! [`procession_journal::read`] reads it. Each line is a JSON object.
//!
//! | task | lines |
//! |---|---|
//! | runs for a millisecond or longer | one at its end, with id, label, duration and size of the output |
//! | runs for a tenth of a second or longer, or has a [label](crate::Context::label) | one more before its end |
//! | fails, panics, is an attempt beyond the first | one at its end |
//! | shorter | none: such tasks are summed over at least a tenth of a second |
//! | dies with its worker | one of the pool, which knows the task by its claim |
//!
//! The number of lines of a process is bounded. After 10,000 lines of tasks, only those have lines that run
//! twice as long, and so on; failed tasks are summed after 10,000, too. A worker that is killed loses the
//! sums of the last tenth of a second (up to five seconds in a long run): the summary at the end of the
//! run has the right numbers.
//!
//! The other functions here are for programs that keep a journal of their own, as `coordinator` does.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use procession_journal::{Journal, Level, LogEvent, LostBy, NamedTask};

use crate::error::Exit;
use crate::process_pool::{Output, OutputStream, PoolEvent};
use crate::task::TaskId;

/// The environment variable with the process id of the coordinator and the directory of the run, for
/// its workers.
pub(crate) const VARIABLE: &str = "PROCESSION_JOURNAL";

/// The line of an event. `None` for [`PoolEvent::TaskStarted`]: the worker records its tasks.
pub fn line_of(event: &PoolEvent) -> Option<(Level, LogEvent)> {
    Some(match event {
        PoolEvent::TaskStarted { .. } => return None,
        PoolEvent::TaskRetried { task, fault, attempt, pause } => {
            let (fault, run) = (fault.to_string(), *attempt);
            let (code, task, by) = (None, name_of(*task), LostBy::default());
            let pause_ms = pause.as_secs_f64() * 1e3;
            (Level::Warn, LogEvent::TaskRetried { code, task, by, fault, run, pause_ms })
        }
        PoolEvent::TaskTimedOut { task, after } => {
            let after_ms = after.as_secs_f64() * 1e3;
            (Level::Error, LogEvent::TaskTimedOut { code: None, task: name_of(*task), after_ms })
        }
        PoolEvent::WorkerStarted { worker, pid } => {
            (Level::Info, LogEvent::WorkerStarted { child: *worker, child_pid: *pid })
        }
        PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed } => {
            let level = if *was_needed { Level::Warn } else { Level::Info };
            let (child, child_pid, why) = (*worker, *pid, reason.clone());
            let was_needed = *was_needed;
            (level, LogEvent::WorkerNotStarted { child, child_pid, why, was_needed })
        }
        PoolEvent::WorkerExited { worker, pid, exit, usage } => {
            let is_regular = *exit == Exit::Code(0);
            let level = if is_regular { Level::Info } else { Level::Error };
            let usage = procession_journal::ResourceUsage {
                cpu_s: Some(usage.cpu.as_secs_f64()),
                peak_memory: Some(usage.peak_memory),
            };
            let (child, child_pid, how) = (*worker, *pid, exit.to_string());
            (level, LogEvent::WorkerExited { child, child_pid, how, is_regular, usage })
        }
        other => {
            let level = match other {
                PoolEvent::WorkerWrittenOff { .. } => Level::Error,
                PoolEvent::SparePromoted { .. } => Level::Info,
                _ => Level::Warn,
            };
            let (stream, text) = (procession_journal::OutputStream::Stderr, in_words(other));
            (level, LogEvent::Output { stream, text })
        }
    })
}

fn name_of(task: TaskId) -> NamedTask {
    NamedTask { id: Some(task.0), ..NamedTask::default() }
}

/// An event that has no line of its own kind, as a sentence without its full stop.
pub fn in_words(event: &PoolEvent) -> String {
    match event {
        PoolEvent::WorkerWrittenOff { worker, pid, reason } => {
            format!("worker {worker} (pid {pid}) is left behind: {reason}")
        }
        PoolEvent::SparePromoted { worker, pid, replaces } => {
            format!("worker {worker} (pid {pid}), a spare, took the place of worker {replaces}")
        }
        PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
            format!(
                "worker {worker} (pid {pid}) runs {threads} tasks at a time in place of {wanted}: \
                 {reason}"
            )
        }
        PoolEvent::WorkerUnfit { worker, pid, reason } => {
            format!("worker {worker} (pid {pid}) is unfit and will be replaced: {reason}")
        }
        PoolEvent::WorkerDelayed { worker, reason } => {
            format!("worker {worker} cannot be started now: {reason}")
        }
        PoolEvent::ProgramPassedOver { program, reason } => {
            format!("{} is not used as the worker program: {reason}", program.display())
        }
        other => format!("{other:?}"),
    }
}

/// The journals of the workers of a run, open for the lines that these workers print.
#[derive(Debug)]
pub struct WorkerOutputs {
    dir: PathBuf,
    journals: Mutex<HashMap<u32, Option<Journal>>>,
}

impl WorkerOutputs {
    /// Writes into the journals in this directory.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), journals: Mutex::default() }
    }

    /// Writes a line into the journal of its worker. Returns false if that cannot be opened.
    pub fn record(&self, Output { worker, pid, stream, line, .. }: &Output<'_>) -> bool {
        let mut journals = self.journals.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || Journal::worker(&self.dir, *worker, *pid).ok();
        let Some(journal) = journals.entry(*pid).or_insert_with(open) else { return false };
        let stream = match stream {
            OutputStream::Stdout => procession_journal::OutputStream::Stdout,
            OutputStream::Stderr => procession_journal::OutputStream::Stderr,
        };
        journal.record(Level::Info, LogEvent::Output { stream, text: (*line).to_owned() });
        true
    }

    /// Closes the journal of a worker that has ended.
    pub fn close(&self, pid: u32) {
        self.journals.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
    }
}
