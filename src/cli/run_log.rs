//! The log of a run: where it is, and the events that are not recorded by tasks. [`logs`](super::logs)
//! reads it.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::anyhow;

use procession::journal::WorkerOutputs;
use procession::{Output, PoolEvent, TaskId};
use procession_journal as journal;
use procession_journal::{FORMAT, Journal, Level, LogEvent, NamedTask, RunDir};

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
            args: without_secrets(env::args_os().map(|arg| arg.to_string_lossy().into_owned())),
            format: FORMAT,
        },
    );
    let _ = journal::set(journal);
}

/// The arguments without the values of headers, which may be secrets.
fn without_secrets(args: impl Iterator<Item = String>) -> Vec<String> {
    const OPTION: &str = "--header";
    let name = |header: &str| header.split(':').next().unwrap_or_default().to_owned() + ": …";
    let mut is_header = false;
    let shown = args.map(|arg| {
        let was_option = std::mem::replace(&mut is_header, arg == OPTION);
        match arg.strip_prefix(OPTION).and_then(|rest| rest.strip_prefix('=')) {
            Some(header) => format!("{OPTION}={}", name(header)),
            None if was_option => name(&arg),
            None => arg,
        }
    });
    shown.collect()
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
pub(super) struct SubmittedCodes(Arc<Mutex<HashMap<TaskId, String>>>);

impl SubmittedCodes {
    pub(super) fn insert(&self, task: TaskId, code: String) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(task, code);
    }

    /// `None` between the submission of a task and its insertion here.
    fn code(&self, task: TaskId) -> Option<String> {
        let codes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        codes.get(&task).cloned()
    }
}

/// Records the events of a pool, and prints those that the user should know.
pub(super) struct PoolLog {
    submitted: SubmittedCodes,
    output: Arc<WorkerOutput>,
    bar: RunProgressBar,
    /// Whether a shortage of the system was printed.
    has_reported: AtomicBool,
}

impl PoolLog {
    pub(super) fn new(
        submitted: SubmittedCodes,
        output: Arc<WorkerOutput>,
        bar: RunProgressBar,
    ) -> Self {
        Self { submitted, output, bar, has_reported: AtomicBool::new(false) }
    }

    /// Prints the first shortage of the system; the log has all.
    fn report_once(&self, text: &str) {
        if !self.has_reported.swap(true, Ordering::Relaxed) {
            self.bar.print_line(format_args!("coordinator: {text}"));
        }
    }

    pub(super) fn record(&self, event: &PoolEvent) {
        self.print(event);
        if let Some((level, line)) = procession::journal::line_of(event) {
            record(level, self.with_code(event, line));
        }
        if let Some(logs) = &self.output.logs {
            logs.event(event);
        }
    }

    /// The line with the code of its task in place of the id.
    fn with_code(&self, event: &PoolEvent, line: LogEvent) -> LogEvent {
        let (PoolEvent::TaskRetried { task, .. } | PoolEvent::TaskTimedOut { task, .. }) = event
        else {
            return line;
        };
        let (known, name) = (self.submitted.code(*task), NamedTask::default());
        match line {
            LogEvent::TaskRetried { code: _, task: _, by, fault, run, pause_ms } => {
                LogEvent::TaskRetried { code: known, task: name, by, fault, run, pause_ms }
            }
            LogEvent::TaskTimedOut { code: _, task: _, after_ms } => {
                LogEvent::TaskTimedOut { code: known, task: name, after_ms }
            }
            other => other,
        }
    }

    fn print(&self, event: &PoolEvent) {
        let text = procession::journal::in_words;
        match event {
            PoolEvent::WorkerWrittenOff { .. } => {
                self.bar.print_line(format_args!("coordinator: {}", text(event)));
            }
            PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason } => {
                let connections = format::count(*threads as u64, "connection");
                self.report_once(&format!(
                    "worker {worker} (pid {pid}) has {connections} in place of {wanted}: {reason}; \
                     the run takes longer"
                ));
            }
            PoolEvent::WorkerDelayed { .. } => {
                let text = text(event);
                self.report_once(&format!("{text}; it is tried again, and others may go on"));
            }
            PoolEvent::ProgramPassedOver { .. } => self.bar.print_line(format_args!(
                "coordinator: {}; this program serves in its place",
                text(event)
            )),
            _ => {}
        }
    }
}

/// The logs of workers, open for the output of these workers.
pub(super) struct WorkerOutput {
    logs: Option<WorkerOutputs>,
    /// Prints the output without a log.
    bar: RunProgressBar,
}

impl WorkerOutput {
    pub(super) fn new(dir: Option<&Path>, bar: RunProgressBar) -> Self {
        Self { logs: dir.map(WorkerOutputs::new), bar }
    }

    /// Writes an output line of a worker into its log; without logs, to stderr.
    pub(super) fn record(&self, output: &Output<'_>) {
        if !self.logs.as_ref().is_some_and(|logs| logs.record(output)) {
            let Output { worker, pid, line, .. } = output;
            self.bar.print_line(format_args!("worker {worker} (pid {pid}): {line}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_headers_are_not_logged() {
        let args = ["a", "--header", "X: secret", "--header=Y:secret", "-v", "X: 1"];
        let shown = without_secrets(args.into_iter().map(str::to_owned));
        assert_eq!(shown, ["a", "--header", "X: …", "--header=Y: …", "-v", "X: 1"]);
    }
}
