//! Collects the outcomes of a run: each item ends in exactly one outcome, that of its task or one that
//! says why the task has none.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use procession::{PoolError, TaskError};
use procession_journal::{Level, LogEvent};

use super::display::RunDisplay;
use super::host_journals::HostJournals;
use super::submitter::Submitter;
use crate::cli::exit::ProgramExit;
use crate::cli::{format, run_log, signals};
use crate::files::item::FileItem;
use crate::files::outcome::{DownloadOutcome, DownloadStatus, milliseconds};
use crate::files::task::log_lost;

/// How long requests in flight may continue after the first signal.
const GRACE: Duration = Duration::from_secs(2);

/// What the main thread of a run waits for.
pub(super) enum RunMessage {
    /// The result of the item of this number.
    Done(usize, Result<DownloadOutcome, TaskError>),
    Signal(ProgramExit),
}

/// A channel of messages, to which signals are sent from now on.
pub(super) fn open_channel() -> io::Result<(Sender<RunMessage>, Receiver<RunMessage>)> {
    let (sender, receiver) = mpsc::channel();
    let signals = sender.clone();
    signals::watch(move |exit| {
        let _ = signals.send(RunMessage::Signal(exit));
    })?;
    Ok((sender, receiver))
}

/// The outcomes so far.
pub(super) struct Collector {
    pub display: RunDisplay,
    items: Arc<[FileItem]>,
    /// The numbers of the items without an outcome.
    unanswered: BTreeSet<usize>,
    /// The number of errors after which no more downloads are begun.
    max_errors: Option<usize>,
    /// Whether that number was reached.
    pub has_failed_too_often: bool,
    /// Exit code of the first signal.
    pub interrupted_by: Option<ProgramExit>,
    pub pool_error: Option<PoolError>,
    began: Instant,
    hosts: HostJournals,
}

impl Collector {
    pub(super) fn new(
        display: RunDisplay,
        items: Arc<[FileItem]>,
        max_errors: Option<usize>,
        began: Instant,
    ) -> Self {
        Self {
            display,
            unanswered: (0..items.len()).collect(),
            items,
            max_errors,
            has_failed_too_often: false,
            interrupted_by: None,
            pool_error: None,
            began,
            hosts: HostJournals::default(),
        }
    }

    /// Whether there are items without an outcome.
    pub(super) fn is_incomplete(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Receives outcomes until each item has one, or until [`GRACE`] has passed after a signal or
    /// after a failed write to standard output.
    pub(super) fn receive(&mut self, messages: &Receiver<RunMessage>, submitter: &Submitter) {
        let mut deadline: Option<Instant> = None;
        while !self.unanswered.is_empty() {
            let message = match deadline {
                None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    messages.recv_timeout(deadline.saturating_duration_since(Instant::now()))
                }
            };
            match message {
                Ok(RunMessage::Done(number, result)) => {
                    self.add(number, result);
                    if !self.has_failed_too_often && self.are_errors_too_many() {
                        self.has_failed_too_often = true;
                        submitter.stop();
                    }
                    if self.display.write_error().is_some() && deadline.is_none() {
                        deadline = Some(Instant::now() + GRACE);
                        submitter.stop();
                    }
                }
                Ok(RunMessage::Signal(exit)) if self.interrupted_by.is_none() => {
                    self.interrupted_by = Some(exit);
                    deadline = Some(Instant::now() + GRACE);
                    submitter.stop();
                    self.display.bar().print_line(format_args!(
                        "coordinator: interrupted: {} s for requests in flight; again to end at once",
                        GRACE.as_secs()
                    ));
                }
                Ok(RunMessage::Signal(_)) | Err(_) => break,
            }
        }
    }

    fn are_errors_too_many(&self) -> bool {
        self.max_errors.is_some_and(|most| self.display.counts().error >= most as u64)
    }

    fn add(&mut self, number: usize, result: Result<DownloadOutcome, TaskError>) {
        let items = Arc::clone(&self.items);
        let item = &items[number];
        let outcome = match result {
            Ok(outcome) => {
                let is_from_a_worker = outcome.pid != std::process::id();
                if outcome.status == DownloadStatus::Error && is_from_a_worker {
                    let code = item.code.clone();
                    run_log::record(Level::Debug, LogEvent::ErrorReceived { code });
                }
                self.hosts.record(&outcome);
                outcome
            }
            Err(error) => {
                if let TaskError::PoolBroken(error) = &error {
                    self.pool_error.get_or_insert_with(|| error.clone());
                }
                let outcome = outcome_of_error(&item.code, &error, self.began.elapsed());
                log_lost(&outcome, worker_of_error(&error));
                outcome
            }
        };
        if self.unanswered.remove(&number) {
            self.display.outcome(item, &outcome);
        }
    }

    /// Gives each item without an outcome that of a cancelled task.
    pub(super) fn cancel_the_rest(&mut self) {
        let rest: Vec<_> = self.unanswered.iter().copied().collect();
        rest.into_iter().for_each(|number| self.add(number, Err(TaskError::Cancelled)));
    }
}

/// The outcome of a task that returned none.
fn outcome_of_error(code: &str, error: &TaskError, elapsed: Duration) -> DownloadOutcome {
    match error {
        TaskError::Cancelled => DownloadOutcome::not_done(code, None),
        // The pool could not run the task; another run may.
        TaskError::PoolBroken(_) => DownloadOutcome::not_done(code, Some(error.to_string())),
        TaskError::WorkerDied(death) => DownloadOutcome {
            worker: Some(death.worker),
            pid: death.pid,
            attempts: death.attempts.max(1),
            cause: Some(format!("worker died of {}", death.exit)),
            ..DownloadOutcome::failed(code, error.to_string(), death.ran_for)
        },
        TaskError::TimedOut { after, attempts, .. } => DownloadOutcome {
            attempts: (*attempts).max(1),
            cause: Some(format!(
                "task ran longer than {}",
                format::milliseconds(milliseconds(*after))
            )),
            ..DownloadOutcome::failed(code, error.to_string(), *after)
        },
        // The task counts as tried: it is an error, and not left to do.
        _ => DownloadOutcome {
            attempts: 1,
            ..DownloadOutcome::failed(code, error.to_string(), elapsed)
        },
    }
}

/// Index and process id of the worker that lost the task.
fn worker_of_error(error: &TaskError) -> Option<(usize, u32)> {
    match error {
        TaskError::WorkerDied(death) => Some((death.worker, death.pid)),
        _ => None,
    }
}
