//! Jobs of a [`Work`] as a measured run: in a process of its own each time, this program once more
//! or CPython, that makes its pool, measures the work alone, and tells.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::Map;

use crate::flags::outcome::{Counts, milliseconds};
use crate::workload::Work;
use procession_journal::entry::now;
use procession_journal::{Level, LogEntry, LogEvent, ProcessKind, TaskEnd};

use super::flags::scratch;
use super::mode::{Language, Mode};
use super::process::Stage;
use super::run::{Brought, Job, Run, Trouble, Turn, run_program};

/// The script, which is written anew for each run: CPython's worker processes may have to import
/// it, so it must be a file.
const SCRIPT: &str = include_str!("python.py");

/// What to do, how often.
#[derive(Clone)]
pub(super) struct Labour {
    /// This executable.
    pub program: PathBuf,
    pub work: Work,
    pub jobs: usize,
    pub size: u64,
    /// Shows the runs as the tasks of their mode: they keep no logs.
    pub tell: Option<Tell>,
}

pub(super) type Tell = Arc<dyn Fn(LogEntry) + Send + Sync>;

/// What the measured process tells, as a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Told {
    /// From the first submitted job to the last result, in a pool that stands.
    pub seconds: f64,
    pub ok: u64,
    pub error: u64,
    /// SHA-256 over the outputs, each with a line feed.
    pub digest: String,
    pub first_error: Option<String>,
}

impl Labour {
    /// The same workers with nothing to do, so many times.
    pub(super) fn idle(&self, jobs: usize) -> Self {
        Self { work: Work::Noop, jobs, size: 0, ..self.clone() }
    }
}

impl Job for Labour {
    fn run(&self, turn: Turn, stage: &Stage) -> Result<Run, Trouble> {
        self.tell(turn, LogEvent::TaskStarted { code: self.title(turn), slot: 0, run: 1 });
        let began = Instant::now();
        let run = self.measure(turn, stage);
        self.tell(turn, self.outcome(turn, began.elapsed(), &run));
        run
    }
}

impl Labour {
    fn measure(&self, turn: Turn, stage: &Stage) -> Result<Run, Trouble> {
        let mode = turn.mode;
        let Self { program, work, jobs, size, tell: _ } = self;
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
                let kind = Mode { language: Language::Rust, ..mode }.kind();
                let workers = mode.concurrency().unwrap_or(1).to_string();
                let mut command = Command::new("python3");
                command.arg(script).args([work.name(), &jobs, &size, &kind, &workers]);
                command
            }
        };
        let (used, told) = run_program(&mut command, scratch.path(), stage, &[0])?;
        let told: Told = serde_json::from_str(&told)
            .map_err(|error| Trouble::CouldNot(format!("it told {told:?}: {error}")))?;
        let things = [(RESULTS.to_owned(), told.digest)].into();
        let counts =
            Counts { ok: told.ok, not_found: 0, error: told.error, not_done: 0, unchanged: 0 };
        Ok(Run {
            round: turn.number,
            seconds: told.seconds,
            user: used.user.as_secs_f64(),
            system: used.system.as_secs_f64(),
            peak_rss: used.peak_rss,
            workers: mode.workers(),
            concurrency: mode.concurrency().unwrap_or(1),
            brought: Brought { counts, things, error: told.first_error },
        })
    }

    fn title(&self, turn: Turn) -> String {
        match self.work {
            // Most often beside other work, to see the price of a task.
            Work::Noop => format!("noop, {}", turn.name()),
            _ => turn.name(),
        }
    }

    fn outcome(&self, turn: Turn, took: Duration, run: &Result<Run, Trouble>) -> LogEvent {
        let error = match run {
            Ok(run) => run.brought.error.clone(),
            Err(Trouble::Stopped) => Some("stopped".to_owned()),
            Err(Trouble::CouldNot(why)) => Some(why.clone()),
        };
        LogEvent::Task(TaskEnd {
            code: self.title(turn),
            slot: Some(0),
            status: if error.is_none() { "ok" } else { "error" }.to_owned(),
            elapsed_ms: milliseconds(took),
            attempt: 1,
            error,
            ..TaskEnd::default()
        })
    }

    fn tell(&self, turn: Turn, event: LogEvent) {
        let Some(tell) = &self.tell else { return };
        tell(LogEntry {
            ts: now(),
            level: Level::Info,
            process: ProcessKind::Other(turn.mode.to_string()),
            worker: None,
            pid: std::process::id(),
            event,
            extra: Map::new(),
        });
    }
}

/// The name of what is compared.
const RESULTS: &str = "the list of results";

/// The Python that is there.
#[derive(Debug, Clone)]
pub(super) struct Python {
    /// Such as `CPython 3.11.7`.
    pub name: String,
    /// Whether only one of its threads runs at a time.
    pub has_gil: bool,
}

/// The Python that `python3` starts, if there is one.
pub(super) fn find_python() -> Option<Python> {
    let script = "import sys, platform\n\
                  gil = getattr(sys, '_is_gil_enabled', lambda: True)()\n\
                  name = platform.python_implementation()\n\
                  print(gil, name, platform.python_version())";
    let output = Command::new("python3").args(["-I", "-c", script]).output().ok()?;
    let told = String::from_utf8(output.stdout).ok()?;
    let (gil, name) = told.trim().split_once(' ').filter(|_| output.status.success())?;
    Some(Python { name: name.to_owned(), has_gil: gil == "True" })
}
