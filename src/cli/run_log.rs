//! What a run writes down besides its tasks, and where; reading it is for [`logs`](super::logs).

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, anyhow};

use crate::flags::codes::Code;
use crate::flags::outcome::milliseconds;
use procession::{Output, PoolEvent, Stream, TaskId};
use procession_journal as journal;
use procession_journal::{FORMAT, Journal, Level, LogEvent, ResourceUsage, RunDir};

use super::bar::Bar;
use super::settings::Logs;
use super::{stderr, words};

/// Tells a worker where the logs of its run are.
pub(super) const DIRECTORY_VARIABLE: &str = "PROCESSION_LOG_DIR";

/// Opens the logs of a run and gives their directory, if there are to be any. The logs of so many
/// runs are kept.
pub(super) fn begin(logs: &Logs, keep: usize) -> anyhow::Result<Option<PathBuf>> {
    let (dir, is_optional) = match logs {
        Logs::None => return Ok(None),
        Logs::Default(dir) => (dir, true),
        Logs::Asked(dir) => (dir, false),
    };
    match open(dir, keep) {
        Ok(run) => Ok(Some(run)),
        Err(error) if is_optional => {
            stderr::say(format_args!("coordinator: {error:#}; this run goes without logs"));
            Ok(None)
        }
        Err(error) => Err(anyhow!("{error:#}; name another --log-dir DIR, or take --no-logs")),
    }
}

fn open(logs: &Path, keep: usize) -> anyhow::Result<PathBuf> {
    let run = RunDir::create(logs)?;
    let journal = Journal::coordinator(&run.path())?;
    // A file system without links is no reason to go without logs.
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
        Err(error) => stderr::say(format_args!("worker: {error}; this worker goes without a log")),
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

/// The last line.
pub(super) fn end(exit_code: u8, why: Option<String>) {
    let Some(journal) = journal::current() else { return };
    // It is in the reserve as well, but those who follow the run read only what is appended.
    if let Some(lines_lost) = journal.lines_lost() {
        journal.record(Level::Error, lines_lost);
    }
    journal.record(Level::Info, LogEvent::Exit { exit_code: exit_code.into(), why });
    journal.finish();
}

/// Which task is about which flag; clones are the same.
#[derive(Clone, Default)]
pub(super) struct Submitted(Arc<Mutex<HashMap<TaskId, Code>>>);

impl Submitted {
    pub(super) fn insert(&self, task: TaskId, code: Code) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, code);
    }

    /// `None` in the moment between the submission of a task and its note here.
    fn code(&self, task: TaskId) -> Option<String> {
        let codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.get(&task).map(Code::to_string)
    }
}

/// Writes down what happens in a pool, and says what a person should know of it.
pub(super) struct PoolLog {
    submitted: Submitted,
    bar: Bar,
    /// Whether it was said that the system is short of something.
    has_said: AtomicBool,
}

impl PoolLog {
    pub(super) fn new(submitted: Submitted, bar: Bar) -> Self {
        Self { submitted, bar, has_said: AtomicBool::new(false) }
    }

    /// The first time that the system is short of something is said; the log has all.
    fn say_once(&self, text: &str) {
        if !self.has_said.swap(true, Ordering::Relaxed) {
            self.bar.say(format_args!("coordinator: {text}"));
        }
    }

    pub(super) fn record(&self, event: &PoolEvent) {
        let (level, event) = match event {
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
                self.bar.say(format_args!("coordinator: {text}"));
                (Level::Error, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
                let text = format!(
                    "worker {worker} (pid {pid}) has {} in place of {wanted}: {reason}",
                    words::count(*threads as u64, "connection")
                );
                self.say_once(&format!("{text}; the run takes longer"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::WorkerDelayed { worker, reason } => {
                let text = format!("worker {worker} cannot be started now: {reason}");
                self.say_once(&format!("{text}; it is tried again, and others may go on"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            PoolEvent::TaskRetried { task, fault, attempt, pause } => {
                let code = self.submitted.code(*task);
                let (fault, run, pause_ms) = (fault.to_string(), *attempt, milliseconds(*pause));
                (Level::Warn, LogEvent::TaskRetried { code, fault, run, pause_ms })
            }
            PoolEvent::TaskTimedOut { task, after } => {
                let code = self.submitted.code(*task);
                (Level::Error, LogEvent::TaskTimedOut { code, after_ms: milliseconds(*after) })
            }
            // Whoever runs a task writes that down.
            PoolEvent::TaskStarted { .. } => return,
            PoolEvent::ProgramPassedOver { program, reason } => {
                let text = format!(
                    "{} is not used as the worker program: {reason}; this program serves in its \
                     place",
                    program.display()
                );
                self.bar.say(format_args!("coordinator: {text}"));
                (Level::Warn, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
            // The library may get more events than this program knows.
            other => {
                let text = format!("{other:?}");
                (Level::Info, LogEvent::Output { stream: journal::OutputStream::Stderr, text })
            }
        };
        record(level, event);
    }
}

/// The logs of workers, held open for what they print: it belongs beside what they write down.
pub(super) struct WorkerOutput {
    dir: Option<PathBuf>,
    /// Makes room for what has no log to go to.
    bar: Bar,
    journals: Mutex<HashMap<u32, Option<Journal>>>,
}

impl WorkerOutput {
    pub(super) fn new(dir: Option<&Path>, bar: Bar) -> Self {
        Self { dir: dir.map(Path::to_owned), bar, journals: Mutex::default() }
    }

    /// Writes a line of a worker into its log; without logs, to stderr.
    pub(super) fn record(&self, Output { worker, pid, stream, line, .. }: &Output<'_>) {
        let mut journals = self.journals.lock().unwrap_or_else(|poison| poison.into_inner());
        let journal = journals.entry(*pid).or_insert_with(|| {
            let dir = self.dir.as_ref()?;
            Journal::worker(dir, *worker, *pid).context("a worker's output is not logged").ok()
        });
        match journal {
            Some(journal) => {
                let stream = match stream {
                    Stream::Stdout => journal::OutputStream::Stdout,
                    Stream::Stderr => journal::OutputStream::Stderr,
                };
                journal.record(Level::Info, LogEvent::Output { stream, text: (*line).to_owned() });
            }
            None => self.bar.say(format_args!("worker {worker} (pid {pid}): {line}")),
        }
    }
}
