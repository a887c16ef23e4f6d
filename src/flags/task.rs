//! The download of a flag as a [`Task`], for any executor to run.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::client::{self, FetchSettings};
use super::codes::Code;
use super::download::{SaveTarget, download};
use super::fetch::RetryNotice;
use super::outcome::{DownloadOutcome, DownloadStatus, milliseconds};
use super::validators::{KnownFlag, ValidatorCache};
use procession::{Context, Failure, Task};
use procession_journal as journal;
use procession_journal::{Journal, Level, LogEvent, TaskEnd, TaskSlot};

/// Downloads one flag. All that it must know travels with it, so that workers need no settings of
/// their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Download {
    /// Whose flag.
    pub code: Code,
    /// From where, and how.
    pub fetch: FetchSettings,
    /// The directory to save it in, which exists.
    pub dest: PathBuf,
    /// What is known of the flag that was saved before, if it need not be fetched again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<KnownFlag>,
    /// Whether what the server tells of the flag is noted beside it, for a later run.
    #[serde(default)]
    pub records_validators: bool,
}

impl Download {
    /// Of a flag of which nothing is known or noted.
    pub fn new(code: Code, fetch: FetchSettings, dest: PathBuf) -> Self {
        Self { code, fetch, dest, known: None, records_validators: false }
    }
}

impl Task for Download {
    const NAME: &'static str = "download";
    type Output = DownloadOutcome;

    /// Never fails as a task: what went wrong with the download is in its outcome.
    fn run(self, context: &Context) -> Result<DownloadOutcome, Failure> {
        let log = Log::open(context, self.code);
        log.started(context.attempt());
        let agent = context.local(|| client::agent(&self.fetch));
        let cache = context.local(|| ValidatorCache::open(&self.dest));
        let cache = self.records_validators.then_some(&*cache);
        let place = SaveTarget { dest: &self.dest, cache, known: self.known.as_ref() };
        let mut outcome =
            download(&agent, &self.fetch, place, self.code, |again| log.tries_again(again));
        outcome.worker = Some(context.worker());
        // Those of earlier runs, which did not live to tell how many requests they made, count one
        // each.
        outcome.attempts += context.attempt() - 1;
        log.ended(&outcome);
        Ok(outcome)
    }
}

/// What a running download writes into the journal of its process, if that keeps one.
struct Log {
    journal: Option<(&'static Journal, TaskLane)>,
    code: Code,
}

/// Where in its process a task runs.
enum TaskLane {
    /// In a worker process, which may run several at a time.
    Slot(TaskSlot),
    /// On a thread of this number.
    Thread(usize),
}

impl Log {
    fn open(context: &Context, code: Code) -> Self {
        let place = |journal: &Journal| match journal.worker_index() {
            Some(_) => TaskLane::Slot(TaskSlot::take()),
            None => TaskLane::Thread(context.worker()),
        };
        Self { journal: journal::current().map(|journal| (journal, place(journal))), code }
    }

    fn started(&self, run: u32) {
        self.record(Level::Debug, |code, slot| LogEvent::TaskStarted { code, slot, run });
    }

    fn tries_again(&self, RetryNotice { attempt, error, pause }: &RetryNotice<'_>) {
        let (error, attempt) = (error.to_string(), *attempt);
        let pause_ms = milliseconds(*pause);
        let event = |code, slot| LogEvent::TryFailed { code, slot, attempt, error, pause_ms };
        self.record(Level::Warn, event);
    }

    fn ended(self, outcome: &DownloadOutcome) {
        let end = |_, slot| task_event(outcome, Some(slot), None);
        self.record(level(outcome), end);
    }

    fn record(&self, level: Level, event: impl FnOnce(String, usize) -> LogEvent) {
        if let Some((journal, place)) = &self.journal {
            let slot = match place {
                TaskLane::Slot(slot) => slot.number(),
                TaskLane::Thread(number) => *number,
            };
            journal.record(level, event(self.code.to_string(), slot));
        }
    }
}

/// Writes down what became of a task that gave no outcome itself. `by` is the worker, and its
/// process, that had it last, where that is known.
pub fn note_lost(outcome: &DownloadOutcome, by: Option<(usize, u32)>) {
    if let Some(journal) = journal::current() {
        journal.record(level(outcome), task_event(outcome, None, by));
    }
}

fn level(outcome: &DownloadOutcome) -> Level {
    if outcome.status == DownloadStatus::Error { Level::Error } else { Level::Info }
}

fn task_event(
    outcome: &DownloadOutcome,
    slot: Option<usize>,
    by: Option<(usize, u32)>,
) -> LogEvent {
    // All of it, so that a new field cannot be forgotten.
    let DownloadOutcome {
        status,
        data,
        bytes,
        unchanged,
        elapsed_ms,
        attempts,
        http_status,
        error,
        cause,
        worker: _,
        pid: _,
    } = outcome;
    LogEvent::Task(TaskEnd {
        code: data.to_string(),
        slot,
        status: status.as_str().to_owned(),
        http: *http_status,
        bytes: *bytes,
        unchanged: *unchanged,
        elapsed_ms: *elapsed_ms,
        attempt: *attempts,
        error: error.clone(),
        cause: cause.clone(),
        child: by.map(|(worker, _)| worker),
        child_pid: by.map(|(_, pid)| pid),
    })
}
