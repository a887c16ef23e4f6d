//! The download of a file as a [`Task`], for any executor to run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::client::{Client, FetchSettings};
use super::download::{UpdateNotes, download};
use super::fetch::{FetchTools, RetryNotice};
use super::item::FileItem;
use super::outcome::{DownloadOutcome, DownloadStatus, milliseconds};
use super::rate::RateGate;
use super::validators::{KnownFile, ValidatorCache};
use procession::{Context, Failure, Task};
use procession_journal as journal;
use procession_journal::{Journal, Level, LogEvent, NamedTask, TaskEnd, TaskSlot};

/// Downloads one file. It holds all its settings, so that workers need none.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Download {
    /// The file.
    pub item: FileItem,
    /// How to fetch.
    pub fetch: FetchSettings,
    /// The directory to save it in, which exists.
    pub dest: PathBuf,
    /// The record of the file that was saved before; an unchanged file is not fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownFile>,
    /// Whether the validators of the response are kept beside the file, for a later run.
    #[serde(default)]
    pub records_validators: bool,
}

impl Download {
    /// A download without validators.
    pub fn new(item: FileItem, fetch: FetchSettings, dest: PathBuf) -> Self {
        Self { item, fetch, dest, known: None, records_validators: false }
    }
}

impl Task for Download {
    const NAME: &'static str = "download";
    type Output = DownloadOutcome;

    /// Never fails as a task: an error of the download is in its outcome.
    fn run(self, context: &Context) -> Result<DownloadOutcome, Failure> {
        let log = TaskLog::open(context, &self.item.code);
        log.started(context.attempt());
        let client = context.local(|| Client::new(&self.fetch));
        let cache = context.local(|| ValidatorCache::open(&self.dest));
        let gate = context.local(|| self.fetch.rate.as_ref().map(RateGate::open));
        let tools = FetchTools { client: &client, gate: gate.as_ref().as_ref(), dest: &self.dest };
        let cache = self.records_validators.then_some(&*cache);
        let notes = UpdateNotes { cache, known: self.known.as_ref() };
        let mut outcome =
            download(tools, &self.fetch, notes, &self.item, |retry| log.try_failed(retry));
        outcome.worker = Some(context.worker());
        outcome.host = std::env::var(HOST_VARIABLE).ok();
        // Earlier attempts of this task ended with their worker: their requests are not known, and
        // each counts as one.
        outcome.attempts += context.attempt() - 1;
        log.ended(&outcome);
        Ok(outcome)
    }
}

/// The environment variable with the name of this host, for workers that run the downloads of coordinators on
/// other hosts.
pub const HOST_VARIABLE: &str = "PROCESSION_HOST";

/// Writes the events of a download into the journal of its process, if that keeps one.
struct TaskLog<'c> {
    journal: Option<(&'static Journal, TaskLane)>,
    code: &'c str,
}

/// Where in its process a task runs.
enum TaskLane {
    /// In a worker process, which may run several at a time.
    Slot(TaskSlot),
    /// On a thread of this number.
    Thread(usize),
}

impl<'c> TaskLog<'c> {
    fn open(context: &Context, code: &'c str) -> Self {
        let lane = |journal: &Journal| match journal.worker_index() {
            Some(_) => TaskLane::Slot(TaskSlot::take()),
            None => TaskLane::Thread(context.worker()),
        };
        Self { journal: journal::current().map(|journal| (journal, lane(journal))), code }
    }

    fn started(&self, run: u32) {
        self.record(Level::Debug, |code, slot| LogEvent::TaskStarted {
            code,
            task: NamedTask::default(),
            late_ms: 0.0,
            slot,
            run,
        });
    }

    fn try_failed(&self, RetryNotice { attempt, error, pause }: &RetryNotice<'_>) {
        let (error, attempt) = (error.message(), *attempt);
        let pause_ms = milliseconds(*pause);
        let event = |code, slot| LogEvent::TryFailed { code, slot, attempt, error, pause_ms };
        self.record(Level::Warn, event);
    }

    fn ended(self, outcome: &DownloadOutcome) {
        let end = |_, slot| task_event(outcome, Some(slot), None);
        self.record(level(outcome), end);
    }

    fn record(&self, level: Level, event: impl FnOnce(String, usize) -> LogEvent) {
        if let Some((journal, lane)) = &self.journal {
            let slot = match lane {
                TaskLane::Slot(slot) => slot.number(),
                TaskLane::Thread(number) => *number,
            };
            journal.record(level, event(self.code.to_string(), slot));
        }
    }
}

/// Logs the outcome of a task that returned none itself. `by` is the worker that had it last, and its
/// process id, where they are known.
pub fn log_lost(outcome: &DownloadOutcome, by: Option<(usize, u32)>) {
    if let Some(journal) = journal::current() {
        journal.record(level(outcome), task_event(outcome, None, by));
    }
}

/// Logs the outcome of a task of another host, whose own logs are there, into a journal for its process. `slot` is
/// one in which no other task of that process ran at that time.
pub fn log_of_host(journal: &Journal, outcome: &DownloadOutcome, slot: usize) {
    journal.record(level(outcome), task_event(outcome, Some(slot), None));
}

fn level(outcome: &DownloadOutcome) -> Level {
    if outcome.status == DownloadStatus::Error { Level::Error } else { Level::Info }
}

fn task_event(
    outcome: &DownloadOutcome,
    slot: Option<usize>,
    by: Option<(usize, u32)>,
) -> LogEvent {
    // All fields, so that a new one cannot be forgotten.
    let DownloadOutcome {
        status,
        code,
        bytes,
        unchanged,
        elapsed_ms,
        ended_us: _,
        attempts,
        http_status,
        error,
        cause,
        worker: _,
        pid: _,
        host: _,
    } = outcome;
    LogEvent::Task(TaskEnd {
        code: code.clone(),
        task: NamedTask::default(),
        slot,
        status: status.as_str().to_owned(),
        http: *http_status,
        bytes: *bytes,
        unchanged: *unchanged,
        elapsed_ms: *elapsed_ms,
        late_ms: 0.0,
        attempt: *attempts,
        error: error.clone(),
        cause: cause.clone(),
        child: by.map(|(worker, _)| worker),
        child_pid: by.map(|(_, pid)| pid),
    })
}
