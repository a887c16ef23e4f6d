//! The log of a run: where it is, and the events that are not recorded by tasks. [`logs`](super::logs)
//! reads it.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};

use crate::flags::codes::Code;
use crate::flags::outcome::milliseconds;
use procession::{Output, OutputStream, PoolEvent, TaskId};
use procession_journal as journal;
use procession_journal::{FORMAT, Journal, Level, LogEvent, ResourceUsage, RunDir};

use super::bar::RunProgressBar;
use super::run_selection::DEFAULT_LOG_DIR;
use super::{format, stderr};

/// The environment variable with the log directory of the run, for its workers.
pub(super) const DIRECTORY_VARIABLE: &str = "PROCESSION_LOG_DIR";

/// Whether and where a run keeps logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum LogPolicy {
    None,
    /// In the default directory: if that fails, the run continues without logs.
    Default(PathBuf),
    /// In a requested directory: if that fails, so does the run.
    Required(PathBuf),
}

impl LogPolicy {
    pub(super) fn resolve(no_logs: bool, log_dir: Option<PathBuf>) -> Self {
        match (no_logs, log_dir) {
            (true, _) => Self::None,
            (false, Some(dir)) => Self::Required(dir),
            (false, None) => Self::Default(PathBuf::from(DEFAULT_LOG_DIR)),
        }
    }
}

/// Opens the logs of a run and returns their directory, if there are to be any. The logs of the last
/// `keep` runs are kept.
pub(super) fn begin(logs: &LogPolicy, keep: usize) -> anyhow::Result<Option<PathBuf>> {
    let (dir, is_optional) = match logs {
        LogPolicy::None => return Ok(None),
        LogPolicy::Default(dir) => (dir, true),
        LogPolicy::Required(dir) => (dir, false),
    };
    match open(dir, keep) {
        Ok(run) => Ok(Some(run)),
        Err(error) if is_optional => {
            stderr::print(format_args!("coordinator: {error:#}; this run goes without logs"));
            Ok(None)
        }
        Err(error) => Err(anyhow!("{error:#}; name another --log-dir DIR, or take --no-logs")),
    }
}

fn open(logs: &Path, keep: usize) -> anyhow::Result<PathBuf> {
    let run = RunDir::create(logs)?;
    let journal = Journal::coordinator(&run.path())?;
    // Some file systems have no links; the logs are usable without.
    let _ = run.link_latest();
    RunDir::prune(logs, keep);
    adopt(journal);
    Ok(run.path())
}

/// In a worker process: opens its log if its coordinator keeps logs.
pub(super) fn begin_in_worker(worker: usize) {
    let Some(dir) = env::var_os(DIRECTORY_VARIABLE) else { return };
    match Journal::worker(Path::new(&dir), worker, std::process::id()) {
        Ok(journal) => adopt(journal),
        Err(error) => {
            let error = anyhow!(error);
            stderr::print(format_args!("worker: {error:#}; this worker goes without a log"));
        }
    }
}

fn adopt(journal: Journal) {
    journal.record(
        Level::Info,
        LogEvent::Start {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            build: super::BUILD.to_owned(),
            args: env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect(),
            format: FORMAT,
        },
    );
    let _ = journal::set(journal);
}

/// Writes to this process's log, if it keeps one.
pub(super) fn record(level: Level, event: LogEvent) {
    if let Some(journal) = journal::current() {
        journal.record(level, event);
    }
}

/// Writes the last lines and closes the log.
pub(super) fn end(exit_code: u8, why: Option<String>) {
    let Some(journal) = journal::current() else { return };
    // The reserve has this event as well, but `logs --follow` reads only lines that are appended.
    if let Some(lines_lost) = journal.lines_lost() {
        journal.record(Level::Error, lines_lost);
    }
    journal.record(Level::Info, LogEvent::Exit { exit_code: exit_code.into(), why });
    journal.finish();
}

/// The code of each submitted task. Clones share their content.
#[derive(Clone, Default)]
pub(super) struct SubmittedCodes(Arc<Mutex<HashMap<TaskId, Code>>>);

impl SubmittedCodes {
    pub(super) fn insert(&self, task: TaskId, code: Code) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, code);
    }

    /// `None` between the submission of a task and its insertion here.
    fn code(&self, task: TaskId) -> Option<String> {
        let codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.get(&task).map(Code::to_string)
    }
}

/// Records the events of a pool, and prints those that the user should know.
pub(super) struct PoolLog {
    submitted: SubmittedCodes,
    bar: RunProgressBar,
    /// Whether a shortage of the system was printed.
    has_reported: AtomicBool,
}

impl PoolLog {
    pub(super) fn new(submitted: SubmittedCodes, bar: RunProgressBar) -> Self {
        Self { submitted, bar, has_reported: AtomicBool::new(false) }
    }

    /// Prints the first shortage of the system; the log has all.
    fn report_once(&self, text: &str) {
        if !self.has_reported.swap(true, Ordering::Relaxed) {
            self.bar.print_line(format_args!("coordinator: {text}"));
        }
    }

    pub(super) fn record(&self, event: &PoolEvent) {
        // The task itself records its start.
        if let PoolEvent::TaskStarted { .. } = event {
            return;
        }
        let (level, event) = self.of_task(event).unwrap_or_else(|| self.of_worker(event));
        record(level, event);
    }

    fn of_task(&self, event: &PoolEvent) -> Option<(Level, LogEvent)> {
        Some(match event {
            PoolEvent::TaskRetried { task, fault, attempt, pause } => {
                let code = self.submitted.code(*task);
                let (fault, run, pause_ms) = (fault.to_string(), *attempt, milliseconds(*pause));
                (Level::Warn, LogEvent::TaskRetried { code, fault, run, pause_ms })
            }
            PoolEvent::TaskTimedOut { task, after } => {
                let code = self.submitted.code(*task);
                (Level::Error, LogEvent::TaskTimedOut { code, after_ms: milliseconds(*after) })
            }
            _ => return None,
        })
    }

    fn of_worker(&self, event: &PoolEvent) -> (Level, LogEvent) {
        match event {
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
                let is_regular = *exit == procession::Exit::Code(0);
                let level = if is_regular { Level::Info } else { Level::Error };
                let usage = ResourceUsage {
                    cpu_s: Some(usage.cpu.as_secs_f64()),
                    peak_memory: Some(usage.peak_memory),
                };
                let (child, child_pid, how) = (*worker, *pid, exit.to_string());
                (level, LogEvent::WorkerExited { child, child_pid, how, is_regular, usage })
            }
            PoolEvent::WorkerWrittenOff { worker, pid, reason } => {
                let text = format!("worker {worker} (pid {pid}) is left behind: {reason}");
                self.bar.print_line(format_args!("coordinator: {text}"));
                (Level::Error, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
                let text = format!(
                    "worker {worker} (pid {pid}) has {} in place of {wanted}: {reason}",
                    format::count(*threads as u64, "connection")
                );
                self.report_once(&format!("{text}; the run takes longer"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::WorkerDelayed { worker, reason } => {
                let text = format!("worker {worker} cannot be started now: {reason}");
                self.report_once(&format!("{text}; it is tried again, and others may go on"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::ProgramPassedOver { program, reason } => {
                let text = format!(
                    "{} is not used as the worker program: {reason}; this program serves in its \
                     place",
                    program.display()
                );
                self.bar.print_line(format_args!("coordinator: {text}"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            // Events of a later version of the library.
            other => {
                let text = format!("{other:?}");
                (Level::Info, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
        }
    }
}

/// The logs of workers, open for the output of these workers.
pub(super) struct WorkerOutput {
    dir: Option<PathBuf>,
    /// Prints the output without a log.
    bar: RunProgressBar,
    journals: Mutex<HashMap<u32, Option<Journal>>>,
}

impl WorkerOutput {
    pub(super) fn new(dir: Option<&Path>, bar: RunProgressBar) -> Self {
        Self { dir: dir.map(Path::to_owned), bar, journals: Mutex::default() }
    }

    /// Writes an output line of a worker into its log; without logs, to stderr.
    pub(super) fn record(&self, Output { worker, pid, stream, line, .. }: &Output<'_>) {
        let mut journals = self.journals.lock().unwrap_or_else(|poison| poison.into_inner());
        let journal = journals.entry(*pid).or_insert_with(|| {
            let dir = self.dir.as_ref()?;
            Journal::worker(dir, *worker, *pid).context("a worker's output is not logged").ok()
        });
        match journal {
            Some(journal) => {
                let stream = match stream {
                    OutputStream::Stdout => journal::OutputStream::Stdout,
                    OutputStream::Stderr => journal::OutputStream::Stderr,
                };
                journal.record(Level::Info, LogEvent::Output { stream, text: (*line).to_owned() });
            }
            None => self.bar.print_line(format_args!("worker {worker} (pid {pid}): {line}")),
        }
    }
}
