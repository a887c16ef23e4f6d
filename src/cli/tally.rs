//! What became of the codes so far: every code ends in exactly one outcome, its own, or one that
//! says why there is none.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use crate::flags::codes::Code;
use crate::flags::outcome::{Outcome, Status};
use crate::flags::task::note_lost;
use procession::{PoolError, TaskError};
use procession_journal::{Level, LogEvent};

use super::Exit;
use super::display::Display;
use super::feeder::Feeder;
use super::run_log;

/// How long requests in flight may go on after the first Ctrl-C.
const GRACE: Duration = Duration::from_secs(2);

/// What a run waits for.
pub(super) enum News {
    Done(Code, Result<Outcome, TaskError>),
    Signal(Exit),
}

/// What became of the codes so far.
pub(super) struct Tally {
    pub display: Display,
    unanswered: BTreeSet<Code>,
    pub ended_by: Option<Exit>,
    pub broken: Option<PoolError>,
    /// Why the run could not even begin.
    pub failed: Option<String>,
    began: Instant,
}

impl Tally {
    pub(super) fn new(display: Display, codes: &[Code], began: Instant) -> Self {
        let unanswered = codes.iter().copied().collect();
        Self { display, unanswered, ended_by: None, broken: None, failed: None, began }
    }

    /// Shows what will be done.
    pub(super) fn begin(&mut self, report: &str) {
        self.display.begin(report);
    }

    /// Whether there are codes without an outcome.
    pub(super) fn is_missing_some(&self) -> bool {
        !self.unanswered.is_empty()
    }

    /// Receives outcomes until all are there, or until requests in flight have had their time after
    /// a signal, or after standard output could not be written any more.
    pub(super) fn follow(&mut self, inbox: &Receiver<News>, feeder: &Feeder) {
        let mut deadline: Option<Instant> = None;
        while !self.unanswered.is_empty() {
            let news = match deadline {
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    inbox.recv_timeout(left)
                }
            };
            match news {
                Ok(News::Done(code, result)) => {
                    self.settle(code, result);
                    if self.display.broken().is_some() && deadline.is_none() {
                        deadline = Some(Instant::now() + GRACE);
                        feeder.stop();
                    }
                }
                Ok(News::Signal(exit)) if self.ended_by.is_none() => {
                    self.ended_by = Some(exit);
                    deadline = Some(Instant::now() + GRACE);
                    feeder.stop();
                    if !self.unanswered.is_empty() {
                        self.display.bar().say(format_args!(
                            "coordinator: interrupted: {} s for requests in flight; again to end at once",
                            GRACE.as_secs()
                        ));
                    }
                }
                Ok(News::Signal(_)) | Err(_) => break,
            }
        }
    }

    fn settle(&mut self, code: Code, result: Result<Outcome, TaskError>) {
        let outcome = match result {
            Ok(outcome) => {
                let is_from_a_worker = outcome.pid != std::process::id();
                if outcome.status == Status::Error && is_from_a_worker {
                    let code = code.to_string();
                    run_log::record(Level::Debug, LogEvent::ErrorReceived { code });
                }
                outcome
            }
            Err(error) => {
                if let TaskError::PoolBroken(error) = &error {
                    self.broken.get_or_insert_with(|| error.clone());
                }
                let outcome = lost(code, &error, self.began.elapsed());
                note_lost(&outcome, by(&error));
                outcome
            }
        };
        if self.unanswered.remove(&code) {
            self.display.outcome(&outcome);
        }
    }

    /// No code goes without an outcome.
    pub(super) fn account_for_the_rest(&mut self) {
        let rest: Vec<_> = self.unanswered.iter().copied().collect();
        rest.into_iter().for_each(|code| self.settle(code, Err(TaskError::Cancelled)));
    }
}

/// The outcome of a task that gave none itself.
fn lost(code: Code, error: &TaskError, elapsed: Duration) -> Outcome {
    match error {
        TaskError::Cancelled => Outcome::not_done(code, None),
        // The pool could not run it, whatever it is: it is for the next run.
        TaskError::PoolBroken(_) => Outcome::not_done(code, Some(error.to_string())),
        TaskError::WorkerDied(death) => Outcome {
            worker: Some(death.worker),
            pid: death.pid,
            attempts: death.attempts.max(1),
            cause: Some(format!("worker died of {}", death.exit)),
            ..Outcome::failed(code, error.to_string(), death.ran_for)
        },
        TaskError::TimedOut { after, attempts } => {
            let cause = Some(format!("task ran longer than {after:?}"));
            Outcome {
                attempts: (*attempts).max(1),
                cause,
                ..Outcome::failed(code, error.to_string(), *after)
            }
        }
        // It was tried, as far as the run is concerned: it is among the errors, not among what is
        // left undone.
        _ => Outcome { attempts: 1, ..Outcome::failed(code, error.to_string(), elapsed) },
    }
}

/// The worker, and its process, that is to blame.
fn by(error: &TaskError) -> Option<(usize, u32)> {
    match error {
        TaskError::WorkerDied(death) => Some((death.worker, death.pid)),
        _ => None,
    }
}
