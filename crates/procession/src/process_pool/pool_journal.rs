//! [`PoolJournal`]: what the coordinator writes into the journal of its pool. Without the feature
//! `journal` there is none.

#[cfg(not(feature = "journal"))]
pub(super) use off::PoolJournal;
#[cfg(feature = "journal")]
pub(super) use on::PoolJournal;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use crate::error::PoolError;
use crate::task::TaskId;

/// A task that has no output.
#[cfg_attr(not(feature = "journal"), expect(dead_code, reason = "nothing reads it"))]
pub(super) struct LostTask<'t> {
    pub(super) id: TaskId,
    pub(super) name: &'t str,
    /// The label that it had given itself.
    pub(super) label: Option<&'t str>,
    /// Index and process id of the worker that had it last.
    pub(super) by: Option<(usize, u32)>,
}

/// How a task ended without an output.
#[cfg_attr(not(feature = "journal"), expect(dead_code, reason = "nothing reads it"))]
pub(super) struct Loss {
    pub(super) error: String,
    /// What errors of this kind have in common.
    pub(super) cause: String,
    pub(super) ran_for: Duration,
    pub(super) attempts: u32,
}

/// Begins the journal, if there is to be one, and tells the workers of it.
pub(super) fn begin(
    logs: Option<PathBuf>,
    build_id: &str,
    slots: &[usize],
    worker_env: &mut Vec<(OsString, OsString)>,
) -> Result<Option<PoolJournal>, PoolError> {
    let Some(logs) = logs else { return Ok(None) };
    let journal = PoolJournal::begin(&logs, build_id, slots.len(), slots.iter().sum())?;
    worker_env.push(journal.variable());
    Ok(Some(journal))
}

#[cfg(feature = "journal")]
mod on {
    use std::collections::BTreeMap;
    use std::env;
    use std::ffi::OsString;
    use std::path::{Path, PathBuf};
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Mutex, PoisonError};
    use std::time::{Duration, Instant};

    use procession_journal::{
        FORMAT, Journal, Level, LogEvent, LostBy, NamedTask, ResourceUsage, RunDir, RunReport,
        RunSettings, TaskEnd,
    };

    use super::super::stats::Counts;
    use super::super::{Output, PoolEvent};
    use super::{Loss, LostTask};
    use crate::error::PoolError;
    use crate::process_pool::journal_lines::{WorkerOutputs, line_of};
    use crate::retries::Fault;
    use crate::transport::JOURNAL_VARIABLE;

    /// The number of runs that are kept.
    const KEPT_RUNS: usize = 20;

    /// The largest number of lines for tasks without an output, for crashes and timeouts after which tasks are
    /// tried again, and for such failures of one worker process.
    const MAX_LINES: u64 = 10_000;

    /// The journal of one pool.
    pub(in super::super) struct PoolJournal {
        dir: PathBuf,
        /// `None` after the end of the pool.
        journal: Mutex<Option<Journal>>,
        outputs: WorkerOutputs,
        began: Instant,
        /// Number of lines for tasks without an output.
        lost: AtomicU64,
        /// Number of lines for crashes and timeouts after which a task is tried again.
        retried: AtomicU64,
        /// By worker index.
        failures: Mutex<BTreeMap<usize, RetriedFailures>>,
    }

    /// Failed runs in one process, after which their tasks are tried again.
    #[derive(Default)]
    struct RetriedFailures {
        pid: u32,
        /// Number of those that have lines of their own.
        lines: u64,
        /// Number of those that a line counts.
        counted: u64,
        /// Number of those that no line counts yet.
        uncounted: u64,
    }

    impl RetriedFailures {
        /// The line that counts the others.
        fn count(&mut self, worker: usize) -> Option<LogEvent> {
            let count = std::mem::take(&mut self.uncounted);
            self.counted += count;
            let by = LostBy { child: Some(worker), child_pid: Some(self.pid) };
            (count > 0).then_some(LogEvent::TasksRetried { by, count })
        }
    }

    impl PoolJournal {
        /// Creates the directory of the run in `logs`, and writes the first lines.
        pub(in super::super) fn begin(
            logs: &Path,
            build: &str,
            workers: usize,
            concurrency: usize,
        ) -> Result<Self, PoolError> {
            let failed = |error: &dyn std::error::Error| {
                let cause = error.source().map(|cause| format!(": {cause}"));
                PoolError::Journal(format!("{error}{}", cause.unwrap_or_default()))
            };
            let run = RunDir::create(logs).map_err(|error| failed(&error))?;
            let dir = std::path::absolute(run.path()).map_err(|error| failed(&error))?;
            let journal = Journal::coordinator(&dir).map_err(|error| failed(&error))?;
            // Some file systems have no links.
            let _ = run.link_latest();
            RunDir::prune(logs, KEPT_RUNS);
            let args: Vec<_> =
                env::args_os().map(|arg| arg.to_string_lossy().into_owned()).collect();
            let program = args.first().map(Path::new).and_then(Path::file_name);
            let program = program.map(|name| name.to_string_lossy().into_owned());
            let (version, build) = (env!("CARGO_PKG_VERSION").to_owned(), build.to_owned());
            journal.record(Level::Info, LogEvent::Start { version, build, args, format: FORMAT });
            let settings = RunSettings {
                mode: "processes".to_owned(),
                program: Some(program.unwrap_or_else(|| "a program".to_owned())),
                workers,
                connections: concurrency,
                ..RunSettings::default()
            };
            journal.record(Level::Info, LogEvent::Run(settings));
            let (outputs, journal) = (WorkerOutputs::new(&dir), Mutex::new(Some(journal)));
            let (lost, retried) = (AtomicU64::new(0), AtomicU64::new(0));
            let failures = Mutex::default();
            Ok(Self { dir, journal, outputs, began: Instant::now(), lost, retried, failures })
        }

        /// The directory of the run, as an absolute path.
        pub(in super::super) fn dir(&self) -> &Path {
            &self.dir
        }

        /// The variable by which the workers find it.
        pub(in super::super) fn variable(&self) -> (OsString, OsString) {
            let mut value = OsString::from(format!("{}:", std::process::id()));
            value.push(&self.dir);
            (JOURNAL_VARIABLE.into(), value)
        }

        fn record(&self, level: Level, event: LogEvent) {
            let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(journal) = &*journal {
                journal.record(level, event);
            }
        }

        pub(in super::super) fn event(&self, event: &PoolEvent) {
            // `retried` records more of it.
            if matches!(event, PoolEvent::TaskRetried { .. }) {
                return;
            }
            if let Some((level, line)) = line_of(event) {
                self.record(level, line);
            }
            self.outputs.event(event);
        }

        pub(in super::super) fn output(&self, output: &Output<'_>) {
            self.outputs.record(output);
        }

        /// Records that an attempt has failed and the task will be run again, up to a number of such lines.
        pub(in super::super) fn retried(
            &self,
            task: &LostTask<'_>,
            fault: Fault,
            run: u32,
            pause: Duration,
        ) {
            let has_line = match (fault, task.by) {
                (Fault::Failure, Some((worker, pid))) => self.retried_failure(worker, pid),
                _ => self.retried.fetch_add(1, Ordering::Relaxed) < MAX_LINES,
            };
            if !has_line {
                return;
            }
            // After a failure the worker still runs, and has recorded it.
            let by = task.by.filter(|_| fault != Fault::Failure);
            let by =
                LostBy { child: by.map(|(worker, _)| worker), child_pid: by.map(|(_, pid)| pid) };
            let (fault, pause_ms) = (fault.to_string(), pause.as_secs_f64() * 1e3);
            let (code, task) = (None, named(task));
            self.record(
                Level::Warn,
                LogEvent::TaskRetried { code, task, by, fault, run, pause_ms },
            );
        }

        /// Whether this failed run has a line of its own. If not, it is counted.
        fn retried_failure(&self, worker: usize, pid: u32) -> bool {
            let mut all = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            let of_worker = all.entry(worker).or_default();
            let mut counts = None;
            if of_worker.pid != pid {
                counts = of_worker.count(worker);
                *of_worker = RetriedFailures { pid, ..RetriedFailures::default() };
            }
            let has_line = of_worker.lines < MAX_LINES;
            of_worker.lines += u64::from(has_line);
            of_worker.uncounted += u64::from(!has_line);
            // The number of lines grows with the logarithm of that of the failures.
            if of_worker.uncounted >= MAX_LINES.max(of_worker.counted) / 10 {
                counts = of_worker.count(worker);
            }
            if let Some(counts) = counts {
                self.record(Level::Warn, counts);
            }
            has_line
        }

        /// Records the end of a task that has no output, up to a number of such lines.
        pub(in super::super) fn lost(&self, task: &LostTask<'_>, loss: impl FnOnce() -> Loss) {
            if self.lost.fetch_add(1, Ordering::Relaxed) >= MAX_LINES {
                return;
            }
            let Loss { error, cause, ran_for, attempts } = loss();
            let event = LogEvent::Task(TaskEnd {
                task: named(task),
                status: "error".to_owned(),
                elapsed_ms: ran_for.as_secs_f64() * 1e3,
                attempt: attempts.max(1),
                error: Some(error),
                cause: Some(cause),
                child: task.by.map(|(worker, _)| worker),
                child_pid: task.by.map(|(_, pid)| pid),
                ..TaskEnd::default()
            });
            self.record(Level::Error, event);
        }

        /// Writes the last lines, with the numbers of the pool, and closes the journal.
        pub(in super::super) fn end(&self, counts: &Counts, why: Option<String>) {
            let failures = self.failures.lock().map(|mut failures| std::mem::take(&mut *failures));
            for (worker, mut of_worker) in failures.unwrap_or_default() {
                of_worker.count(worker).into_iter().for_each(|line| self.record(Level::Warn, line));
            }
            let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner).take();
            let Some(journal) = journal else { return };
            let exit_code = i32::from(why.is_some());
            let report = RunReport {
                ok: counts.done,
                not_found: 0,
                error: counts.failed,
                not_done: Some(counts.cancelled),
                unchanged: 0,
                elapsed_s: self.began.elapsed().as_secs_f64(),
                exit_code,
            };
            let usage = ResourceUsage::default();
            journal.record(Level::Info, LogEvent::Summary { report, usage });
            if let Some(lines_lost) = journal.lines_lost() {
                journal.record(Level::Error, lines_lost);
            }
            journal.record(Level::Info, LogEvent::Exit { exit_code, why });
            journal.finish();
        }
    }

    fn named(task: &LostTask<'_>) -> NamedTask {
        let label = task.label.map(str::to_owned);
        NamedTask { id: Some(task.id.0), name: Some(task.name.to_owned()), label }
    }
}

#[cfg(not(feature = "journal"))]
mod off {
    use std::ffi::OsString;
    use std::path::Path;
    use std::time::Duration;

    use super::super::stats::Counts;
    use super::super::{Output, PoolEvent};
    use super::{Loss, LostTask};
    use crate::error::PoolError;
    use crate::retries::Fault;

    /// There is none.
    pub(in super::super) enum PoolJournal {}

    impl PoolJournal {
        pub(in super::super) fn begin(
            _: &Path,
            _: &str,
            _: usize,
            _: usize,
        ) -> Result<Self, PoolError> {
            Err(PoolError::Journal("this build of procession keeps no journals".to_owned()))
        }

        pub(in super::super) fn variable(&self) -> (OsString, OsString) {
            match *self {}
        }

        pub(in super::super) fn event(&self, _: &PoolEvent) {
            match *self {}
        }

        pub(in super::super) fn output(&self, _: &Output<'_>) {
            match *self {}
        }

        pub(in super::super) fn retried(&self, _: &LostTask<'_>, _: Fault, _: u32, _: Duration) {
            match *self {}
        }

        pub(in super::super) fn lost(&self, _: &LostTask<'_>, _: impl FnOnce() -> Loss) {
            match *self {}
        }

        pub(in super::super) fn end(&self, _: &Counts, _: Option<String>) {
            match *self {}
        }
    }
}
