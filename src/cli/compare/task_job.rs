//! Tasks of a [`WorkKind`] as a measured job: each run is a process of its own, this program or CPython,
//! which creates its pool, measures the tasks alone, and prints the measurement.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::files::outcome::{OutcomeCounts, milliseconds};
use crate::workload::WorkKind;
use procession_journal::now;
use procession_journal::{Level, LogEntry, LogEvent, NamedTask, ProcessKind, TaskEnd};

use super::flags_job::scratch;
use super::mode::{Language, MeasuredMode};
use super::run::{MeasuredJob, MeasuredRun, RunError, RunId, RunResult, run_program};
use super::runner::ProcessRunner;

/// The script, which is written to a file for each run, since CPython's worker processes may import it.
const SCRIPT: &str = include_str!("python.py");

/// The tasks and their number.
#[derive(Clone)]
pub(super) struct TaskJob {
    /// This executable.
    pub program: PathBuf,
    pub work: WorkKind,
    pub jobs: usize,
    pub size: u64,
    /// Shows each run in the dashboard as a task of its mode, since the runs keep no logs.
    pub show: Option<EntrySink>,
}

pub(super) type EntrySink = Arc<dyn Fn(LogEntry) + Send + Sync>;

/// The output of the measured process, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Measurement {
    /// From the first submission to the last result, in a pool whose workers have started.
    pub seconds: f64,
    pub ok: u64,
    pub error: u64,
    /// SHA-256 of the outputs, each with a line feed.
    pub digest: String,
    pub first_error: Option<String>,
}

impl TaskJob {
    /// The same job with empty tasks.
    pub(super) fn idle(&self, jobs: usize) -> Self {
        Self { work: WorkKind::Noop, jobs, size: 0, ..self.clone() }
    }
}

impl MeasuredJob for TaskJob {
    fn run(&self, id: RunId, runner: &ProcessRunner) -> Result<MeasuredRun, RunError> {
        let (code, task) = (self.title(id), NamedTask::default());
        self.show(id, LogEvent::TaskStarted { code, task, late_ms: 0.0, slot: 0, run: 1 });
        let began = Instant::now();
        let run = self.measure(id, runner);
        self.show(id, self.outcome(id, began.elapsed(), &run));
        run
    }
}

impl TaskJob {
    fn measure(&self, id: RunId, runner: &ProcessRunner) -> Result<MeasuredRun, RunError> {
        let mode = id.mode;
        let Self { program, work, jobs, size, show: _ } = self;
        let scratch = scratch()?;
        let (jobs, size) = (jobs.to_string(), size.to_string());
        let mut command = match mode.language {
            Language::Rust => {
                let mut command = Command::new(program);
                let mode = mode.to_string();
                command.args(["compare", "--once", "--task", work.name(), "--modes", &mode]);
                command.args(["--jobs", &jobs, "--size", &size]);
                command
            }
            Language::Python => {
                let script = scratch.path().join("compare.py");
                std::fs::write(&script, SCRIPT)?;
                let kind = MeasuredMode { language: Language::Rust, ..mode }.kind();
                let workers = mode.concurrency().unwrap_or(1).to_string();
                let mut command = Command::new("python3");
                command.arg(script).args([work.name(), &jobs, &size, &kind, &workers]);
                command
            }
        };
        let (used, output) = run_program(&mut command, scratch.path(), runner, &[0])?;
        let measurement: Measurement = serde_json::from_slice(output.as_bytes())
            .map_err(|error| RunError::Output { output, error })?;
        let Measurement { seconds, ok, error, digest, first_error } = measurement;
        Ok(MeasuredRun {
            round: id.number,
            seconds,
            user: used.user.as_secs_f64(),
            system: used.system.as_secs_f64(),
            peak_rss: used.peak_rss,
            workers: mode.workers(),
            concurrency: mode.concurrency().unwrap_or(1),
            result: RunResult {
                counts: OutcomeCounts { ok, error, ..OutcomeCounts::default() },
                digests: [(RESULTS.to_owned(), digest)].into(),
                error: first_error,
            },
        })
    }

    fn title(&self, id: RunId) -> String {
        match self.work {
            // Distinguishes the measurement of the overhead from that of other work.
            WorkKind::Noop => format!("noop, {}", id.name()),
            _ => id.name(),
        }
    }

    fn outcome(&self, id: RunId, took: Duration, run: &Result<MeasuredRun, RunError>) -> LogEvent {
        let error = match run {
            Ok(run) => run.result.error.clone(),
            Err(error) => Some(error.to_string()),
        };
        LogEvent::Task(TaskEnd {
            code: self.title(id),
            slot: Some(0),
            status: if error.is_none() { "ok" } else { "error" }.to_owned(),
            elapsed_ms: milliseconds(took),
            attempt: 1,
            error,
            ..TaskEnd::default()
        })
    }

    fn show(&self, id: RunId, event: LogEvent) {
        let Some(show) = &self.show else { return };
        show(LogEntry {
            ts: now(),
            level: Level::Info,
            process: ProcessKind::Other(id.mode.to_string()),
            worker: None,
            pid: std::process::id(),
            own_cpu_s: None,
            event,
            extra: Map::new(),
        });
    }
}

/// The name of the compared digest.
const RESULTS: &str = "the list of results";

/// An installed Python.
#[derive(Debug, Clone)]
pub(super) struct PythonInfo {
    /// Such as `CPython 3.11.7`.
    pub name: String,
    /// Whether a global lock lets one thread run at a time.
    pub has_gil: bool,
}

/// The Python that `python3` starts, if it is installed.
pub(super) fn find_python() -> Option<PythonInfo> {
    let script = "import sys, platform\n\
                  gil = getattr(sys, '_is_gil_enabled', lambda: True)()\n\
                  name = platform.python_implementation()\n\
                  print(gil, name, platform.python_version())";
    let output = Command::new("python3").args(["-I", "-c", script]).output().ok()?;
    let told = String::from_utf8(output.stdout).ok()?;
    let (gil, name) = told.trim().split_once(' ').filter(|_| output.status.success())?;
    Some(PythonInfo { name: name.to_owned(), has_gil: gil == "True" })
}
