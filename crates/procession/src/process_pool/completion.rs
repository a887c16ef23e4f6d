//! Completes the promises of tasks that have ended, and counts them.

use std::cell::Cell;
use std::ops::Range;
use std::time::Duration;

use super::PoolEvent;
use super::inner::PoolInner;
use super::stats::Counts;
use super::work_item::WorkItem;
use crate::error::{Death, TaskError};
use crate::scheduler::Verdict;
use crate::transport::{Reply, Status};

/// What an event brought along that the scheduler need not know.
pub(super) enum Settling<'r> {
    Replies {
        replies: &'r [Reply<'r>],
        /// The first of those that were not wanted yet: they are wanted in this order.
        next: Cell<usize>,
    },
    Death {
        worker: usize,
        pid: u32,
        last_output: Vec<String>,
    },
}

impl PoolInner {
    /// Passes on the outputs of tasks that follow each other, each of which took so long.
    pub(super) fn deliver(
        &self,
        work_item: &WorkItem,
        first: u32,
        outputs: &[&[u8]],
        ran_for: Duration,
    ) {
        let number = outputs.len() as u64;
        let waited = work_item.submitted.elapsed().saturating_sub(ran_for);
        let mut counts = self.counts();
        counts.run.note_many(ran_for, number);
        counts.wait.note_many(waited, number);
        drop(counts);
        self.count_and_tell(
            number,
            |counts| &mut counts.done,
            || work_item.deliver(first, outputs),
        );
    }

    /// Counts tasks before anybody is told of their ends, so that nobody who was told finds them
    /// uncounted. Only then it is known to how many an end was still owed: the others were counted
    /// when they were told of another.
    pub(super) fn count_and_tell(
        &self,
        number: u64,
        counter: impl Fn(&mut Counts) -> &mut u64,
        tell: impl FnOnce() -> usize,
    ) {
        *counter(&mut self.counts()) += number;
        let were_owed = tell() as u64;
        *counter(&mut self.counts()) -= number - were_owed;
    }

    pub(super) fn complete(
        &self,
        work_item: &WorkItem,
        items: Range<u32>,
        verdict: Verdict,
        settling: Option<&Settling<'_>>,
    ) {
        let error = match (verdict, settling) {
            (Verdict::Answered, Some(Settling::Replies { replies, next })) => {
                let is_its =
                    |reply: &&Reply<'_>| reply.id == work_item.id.0 + u64::from(items.start);
                let rest = &replies[next.get()..];
                let reply = rest.iter().find(is_its).expect("answered by one of these replies");
                next.set(next.get() + rest.iter().take_while(|reply| !is_its(reply)).count() + 1);
                let ran_for = Duration::from_micros(reply.run_us);
                let mut counts = self.counts();
                let counter = match reply.status {
                    Status::Ok => &mut counts.done,
                    _ => &mut counts.failed,
                };
                *counter += 1;
                counts.run.note(ran_for);
                counts.wait.note(work_item.submitted.elapsed().saturating_sub(ran_for));
                drop(counts);
                work_item.answer(items.start, reply);
                return;
            }
            (
                Verdict::Died { exit, attempts, ran_for, is_collateral },
                Some(Settling::Death { worker, pid, last_output }),
            ) => TaskError::WorkerDied(Death {
                task: work_item.name.to_owned(),
                worker: *worker,
                pid: *pid,
                exit,
                attempts,
                ran_for,
                is_collateral,
                last_output: last_output.clone(),
            }),
            (Verdict::TimedOut { after, attempts }, _) => {
                self.report(|| PoolEvent::TaskTimedOut { task: work_item.id, after });
                TaskError::TimedOut { after, attempts }
            }
            (Verdict::Cancelled, _) => TaskError::Cancelled,
            (Verdict::NotReceived { reason, workers }, _) => TaskError::Undelivered {
                what: "task".to_owned(),
                reason: format!("{workers} fresh workers could not receive it: {reason}"),
            },
            (Verdict::Broken(error), _) => TaskError::PoolBroken(error),
            (verdict @ (Verdict::Answered | Verdict::Died { .. }), _) => {
                unreachable!("{verdict:?} without what it is made of")
            }
        };
        let (number, is_cancelled) = (items.len() as u64, error == TaskError::Cancelled);
        let tell = || work_item.fail(items, error);
        self.count_and_tell(number, |counts| counts.ended(is_cancelled), tell);
    }
}
