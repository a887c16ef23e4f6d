//! Completes the promises of tasks that have ended, and counts these tasks.

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;

use super::PoolEvent;
use super::inner::PoolInner;
use super::measures::EndKind;
use super::pool_journal::{Loss, LostTask};
use super::work_item::WorkItem;
use super::worker_handle::WorkerHandle;
use crate::error::{Backtrace, Death, Exit, TaskError, with_unit};
use crate::sandbox::{violation, violation_of_memory, violation_without_name};
use crate::scheduler::{Event, Verdict};
use crate::task::TaskId;
use crate::transport::{Reply, Status};

/// The part of an event that the scheduler does not need, and that the results are made of.
pub(super) enum CompletionData<'r> {
    Replies {
        handle: &'r WorkerHandle,
        replies: &'r [Reply<'r>],
        /// Index of the first reply that was not used yet. The scheduler completes tasks in the
        /// order of their replies, and may skip some.
        next: Cell<usize>,
    },
    Death {
        worker: usize,
        pid: u32,
        last_output: Vec<String>,
        backtrace: Option<Backtrace>,
        violation: Option<Box<str>>,
        /// Labels of tasks that the worker ran last, by their ids, for the journal.
        labels: Vec<(u64, String)>,
    },
}

/// Outputs of consecutive tasks of a chunk.
pub(super) struct Outputs<'r> {
    pub(super) work_item: Arc<WorkItem>,
    /// Index in the work item of the first of these tasks.
    pub(super) first: u32,
    pub(super) texts: Vec<&'r [u8]>,
    /// The average run time.
    pub(super) ran_for: Duration,
}

impl<'r> CompletionData<'r> {
    /// The label that a task had given itself when its worker died.
    pub(super) fn label(&self, task: TaskId) -> Option<&str> {
        let Self::Death { labels, .. } = self else { return None };
        let mut labels = labels.iter().filter(|(id, _)| *id == task.0);
        labels.next().map(|(_, label)| &**label)
    }

    /// The next reply to this task.
    fn take_reply(replies: &'r [Reply<'r>], next: &Cell<usize>, id: u64) -> &'r Reply<'r> {
        let skipped = replies[next.get()..].iter().position(|reply| reply.id == id);
        let index = next.get() + skipped.expect("the scheduler got an event for this reply");
        next.set(index + 1);
        &replies[index]
    }
}

impl PoolInner {
    /// Passes replies and outputs to the scheduler. Then completes the tasks whose replies the scheduler accepts, and all
    /// tasks with outputs: about these the scheduler decides nothing, but it counts them as running until it has their
    /// events.
    pub(super) fn replied(
        &self,
        handle: &WorkerHandle,
        events: Vec<Event<Arc<WorkItem>>>,
        replies: &[Reply<'_>],
        outputs: &[Outputs<'_>],
    ) {
        let data = CompletionData::Replies { handle, replies, next: Cell::new(0) };
        self.decide_all(self.lock_state(), events, Some(data));
        outputs.iter().for_each(|outputs| self.complete_outputs(outputs));
    }

    /// Passes the end of a worker that had been ready to the scheduler, and completes the tasks that
    /// end with it.
    pub(super) fn exited(
        &self,
        handle: &WorkerHandle,
        exit: Exit,
        last_output: Vec<String>,
        is_out_of_memory: bool,
    ) {
        let worker_id = handle.worker_id;
        let (worker, pid) = (worker_id.worker_index, handle.pid());
        let begun = handle.begun();
        let record = handle.crash(exit);
        let is_refused = self.setup.sandbox.is_on() && exit == Exit::Signal(Signal::SYS.as_raw());
        let refused_call = record.as_ref().and_then(|record| record.refused_call);
        let too_much = self.setup.sandbox.total_memory_bytes().filter(|_| is_out_of_memory);
        let violation = refused_call.map(violation);
        let violation = violation.or_else(|| is_refused.then(violation_without_name));
        let violation = violation.or_else(|| too_much.map(violation_of_memory));
        let backtrace = record.and_then(|record| Backtrace::from_record(&record));
        let labels = self.listeners.journal().map_or_else(Vec::new, |_| handle.labels());
        let data = CompletionData::Death { worker, pid, last_output, backtrace, violation, labels };
        self.decide(Event::WorkerExited { worker_id, exit, begun }, Some(data));
    }

    fn complete_outputs(&self, outputs: &Outputs<'_>) {
        let Outputs { work_item, first, texts, ran_for } = outputs;
        let number = texts.len() as u64;
        let (waited, ran_for) = waited_and_ran(work_item, *ran_for);
        let mut counts = self.counts();
        counts.run.add_many(ran_for, number);
        counts.wait.add_many(waited, number);
        drop(counts);
        self.listeners.measures.ran(waited, ran_for, number);
        let complete = || work_item.complete(*first, texts);
        self.count_and_complete(number, EndKind::Done, complete);
    }

    /// Counts tasks, completes them, and corrects the count. The count comes first, so that a thread
    /// that sees a future done sees its task counted. `complete` returns the number of tasks that
    /// were not complete before: the others were counted then.
    pub(super) fn count_and_complete(
        &self,
        number: u64,
        outcome: EndKind,
        complete: impl FnOnce() -> usize,
    ) {
        *self.counts().of(outcome) += number;
        let completed = complete() as u64;
        *self.counts().of(outcome) -= number - completed;
        // Counters of `metrics` only grow.
        self.listeners.measures.ended(outcome, completed);
    }

    /// Completes tasks of a work item as the scheduler decided.
    pub(super) fn complete(
        &self,
        work_item: &WorkItem,
        items: Range<u32>,
        verdict: Verdict,
        data: Option<&CompletionData<'_>>,
    ) {
        // Several tasks are completed together only if none of them ended the worker.
        let task = work_item.id_of(items.start);
        let kept = self.keep(work_item, items.start, &verdict, data);
        let error = match (verdict, data) {
            (Verdict::Answered, Some(CompletionData::Replies { replies, next, .. })) => {
                let reply = CompletionData::take_reply(replies, next, task.0);
                return self.complete_with(work_item, items.start, reply);
            }
            (
                Verdict::Died { exit, attempts, ran_for, is_collateral },
                Some(CompletionData::Death {
                    worker, pid, last_output, backtrace, violation, ..
                }),
            ) => TaskError::WorkerDied(Box::new(Death {
                task: work_item.name.to_owned(),
                worker: *worker,
                pid: *pid,
                host: None,
                exit,
                attempts,
                ran_for,
                is_collateral,
                last_output: last_output.clone(),
                backtrace: backtrace.clone(),
                violation: violation.clone(),
                kept,
            })),
            (
                Verdict::TimedOut { after, attempts },
                Some(CompletionData::Death { worker, pid, last_output, .. }),
            ) => {
                self.listeners.event(|| PoolEvent::TaskTimedOut { task, after });
                TaskError::TimedOut {
                    task: work_item.name.to_owned(),
                    worker: *worker,
                    pid: *pid,
                    host: None,
                    after,
                    attempts,
                    last_output: last_output.clone(),
                    kept,
                }
            }
            (Verdict::Cancelled, _) => TaskError::Cancelled,
            (Verdict::NotReceived { reason, workers }, _) => TaskError::Undelivered {
                what: "task".to_owned(),
                reason: format!("{workers} fresh workers could not receive it: {reason}"),
            },
            (Verdict::Broken(error), _) => TaskError::PoolBroken(error),
            (
                verdict @ (Verdict::Answered | Verdict::Died { .. } | Verdict::TimedOut { .. }),
                _,
            ) => {
                unreachable!("{verdict:?} without its data")
            }
        };
        self.fail(work_item, items, error, data);
    }

    /// Completes tasks without an output.
    fn fail(
        &self,
        work_item: &WorkItem,
        items: Range<u32>,
        error: TaskError,
        data: Option<&CompletionData<'_>>,
    ) {
        self.record_lost(work_item, items.clone(), &error, data);
        let number = items.len() as u64;
        let outcome = match error {
            TaskError::Cancelled => EndKind::Cancelled,
            _ => EndKind::Failed,
        };
        self.count_and_complete(number, outcome, || work_item.fail(items, error));
    }

    /// Records tasks without an output in the journal, except those that no worker could have.
    fn record_lost(
        &self,
        work_item: &WorkItem,
        items: Range<u32>,
        error: &TaskError,
        data: Option<&CompletionData<'_>>,
    ) {
        let Some(journal) = self.listeners.journal() else { return };
        let (by, cause, ran_for, attempts) = match error {
            TaskError::WorkerDied(death) => {
                let cause = format!("worker died of {}", death.exit);
                (Some((death.worker, death.pid)), cause, death.ran_for, death.attempts)
            }
            TaskError::TimedOut { worker, pid, after, attempts, .. } => {
                let cause = format!("task ran longer than {}", with_unit(after));
                (Some((*worker, *pid)), cause, *after, *attempts)
            }
            TaskError::Undelivered { .. } => {
                (None, "task could not be delivered".to_owned(), Duration::ZERO, 1)
            }
            _ => return,
        };
        for item in items {
            let id = work_item.id_of(item);
            let label = data.and_then(|data| data.label(id));
            journal.lost(&LostTask { id, name: work_item.name, label, by }, || Loss {
                error: error.to_string(),
                cause: cause.clone(),
                ran_for,
                attempts,
            });
        }
    }

    fn complete_with(&self, work_item: &WorkItem, item: u32, reply: &Reply<'_>) {
        let (waited, ran_for) = waited_and_ran(work_item, Duration::from_micros(reply.run_us));
        let outcome = match reply.status {
            Status::Ok => EndKind::Done,
            _ => EndKind::Failed,
        };
        let mut counts = self.counts();
        *counts.of(outcome) += 1;
        counts.run.add(ran_for);
        counts.wait.add(waited);
        drop(counts);
        self.listeners.measures.ran(waited, ran_for, 1);
        self.listeners.measures.ended(outcome, 1);
        work_item.complete_with(item, reply);
    }
}

/// How long a task waited, and how long it ran. A worker cannot tell a longer time than since the task was
/// submitted.
fn waited_and_ran(work_item: &WorkItem, ran_for: Duration) -> (Duration, Duration) {
    let since = work_item.submitted.elapsed();
    let ran_for = ran_for.min(since);
    (since - ran_for, ran_for)
}
