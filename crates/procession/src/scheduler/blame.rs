//! What the end of a worker means for the tasks that it had: which of them are charged with an
//! attempt.

use std::time::{Duration, Instant};

use super::Scheduler;
use super::lifecycle::MIN_LIFETIME;
use super::messages::{Action, Begun, Verdict, WorkerId};
use super::worker::{EndReason, EndedCall, Sent, Stage};
use crate::error::Exit;
use crate::retries::Fault;
use crate::task::TaskId;

/// A call is charged with the end of workers that had not claimed it when it comes to this much:
/// after two workers that had begun nothing at all, or eight that had begun something else.
const CONVICTED: u32 = 8;
const MOST_LIKELY: u32 = 4;
const HARDLY: u32 = 1;
/// A call that this many fresh workers could not receive is given to no other.
const NOT_RECEIVED: u32 = 2;

impl<J: Clone> Scheduler<J> {
    pub(super) fn exited(
        &mut self,
        worker_id: WorkerId,
        exit: Exit,
        begun: &[Begun],
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.workers[worker_id.worker_index];
        if state.is_successor(worker_id) {
            state.successor = None;
            state.has_no_successor = true;
            let cause = format!("a worker ended without a task: {exit}");
            return self.note_early_failure(worker_id.worker_index, &cause, now, actions);
        }
        if !state.is_present(worker_id) {
            return;
        }
        let (stage, idle_since, slots) = (state.stage, state.idle_since, state.slots);
        let killed = match stage {
            Stage::Killed { at, why } => Some((at, why)),
            _ => state.ending.map(|EndedCall { at, why, .. }| (at, why)),
        };
        let calls = state.vacate(now);
        // Those of a call's tasks that were answered are no matter any more, so it is the first of
        // the others that was begun, if any was.
        let begun_of = |call: &Sent| {
            let begun = begun.iter().find(|begun| begun.seq == call.seq);
            begun.filter(|begun| begun.items > call.answered)
        };
        let was_idle_for = now.saturating_duration_since(idle_since);
        let has_begun = calls.iter().any(|call| begun_of(call).is_some());
        let convicted = match killed {
            Some((_, EndReason::Cancelled | EndReason::Unneeded)) => Vec::new(),
            _ => {
                let suspects = calls.iter().take(slots).filter(|call| begun_of(call).is_none());
                let suspects: Vec<_> = suspects.map(|call| call.id).collect();
                self.convicted(&suspects, has_begun)
            }
        };
        if calls.is_empty() && stage == Stage::Ready && was_idle_for < MIN_LIFETIME {
            let cause = format!("a worker ended without a task: {exit}");
            self.note_early_failure(worker_id.worker_index, &cause, now, actions);
        } else if !(calls.is_empty() || has_begun)
            && convicted.is_empty()
            && killed.is_none()
            && self.may_begin_tasks()
        {
            // The next one is given these calls, too, and that must come to an end.
            let cause = format!("a worker ended before it began what it was given: {exit}");
            self.note_early_failure(worker_id.worker_index, &cause, now, actions);
        }
        let mut not_begun = Vec::new();
        for call in &calls {
            // More than one, if a reply was lost: its task may have ended, but that is not known.
            let (charged, ran_for) = match begun_of(call) {
                Some(begun) => (begun.items.min(call.items) - call.answered, begun.ran_for),
                None if convicted.contains(&call.id) => {
                    (1, now.saturating_duration_since(call.could_run_since.unwrap_or(now)))
                }
                None => (0, Duration::ZERO),
            };
            let timed_out = killed.is_some_and(|(at, why)| match why {
                EndReason::TimedOut => call.deadline().is_some_and(|deadline| deadline <= at),
                EndReason::Stalled => convicted.contains(&call.id) && call.timeout.is_some(),
                EndReason::Cancelled | EndReason::Unneeded => false,
            });
            let after = timed_out.then(|| call.timeout.unwrap_or(ran_for));
            let why = killed.map(|(_, why)| why);
            let is_collateral = matches!(
                why,
                Some(EndReason::TimedOut | EndReason::Cancelled | EndReason::Stalled)
            );
            let mut has_rest = true;
            for _ in 0..charged {
                let culprit = self.cut(call.id, 1);
                self.charge(culprit, after, (exit, ran_for, is_collateral), now, actions);
                has_rest = culprit != call.id;
                if !has_rest {
                    break;
                }
            }
            if has_rest {
                not_begun.push(call.id);
            }
        }
        self.take_back(not_begun, actions);
    }

    /// A worker says that it is in no state to run further tasks: it gets none. A call that it could not
    /// receive goes to another worker. If it was the worker's first, no task before it is to blame: it
    /// may be too large for any worker.
    pub(super) fn unfit(
        &mut self,
        worker_id: WorkerId,
        seq: Option<u64>,
        reason: String,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.workers[worker_id.worker_index];
        if !state.is_present(worker_id) {
            return;
        }
        state.is_unfit = true;
        self.may_need_recycling = true;
        let call = seq.and_then(|seq| state.calls.iter().find(|call| call.seq == seq));
        let Some((seq, id)) = call.map(|call| (call.seq, call.id)) else { return };
        let is_first = !state.has_answered;
        // One that runs is not taken back: the worker's claim decides.
        actions.push(Action::Recall { worker_id, from: seq, through: seq });
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.not_received += u32::from(is_first);
        let workers = task.not_received;
        if workers >= NOT_RECEIVED {
            self.complete(id, Verdict::NotReceived { reason, workers }, actions);
        }
    }

    /// A task had begun when its worker ended: it had its attempt. It ran for too long if there is a
    /// time after which.
    fn charge(
        &mut self,
        id: TaskId,
        after: Option<Duration>,
        (exit, ran_for, is_collateral): (Exit, Duration, bool),
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.begun += 1;
        let attempts = task.begun;
        let (fault, verdict) = match after {
            Some(after) => (Fault::Timeout, Verdict::TimedOut { after, attempts }),
            None => (Fault::Crash, Verdict::Died { exit, attempts, ran_for, is_collateral }),
        };
        if !self.retry(id, fault, now, actions) {
            self.complete(id, verdict, actions);
        }
    }

    /// A worker has ended, and these calls could have run in it, but were not claimed. Claims can be
    /// false: a task may undo its own and then end its worker. So that it does not go round for
    /// ever, it is charged with an attempt if that happens again. Gives those that are.
    fn convicted(&mut self, suspects: &[TaskId], has_begun_others: bool) -> Vec<TaskId> {
        let suspicion = if has_begun_others { HARDLY } else { MOST_LIKELY };
        let mut convicted = Vec::new();
        for id in suspects {
            let Some(task) = self.tasks.get_mut(id) else { continue };
            task.suspicion += suspicion;
            if task.suspicion >= CONVICTED {
                task.suspicion = 0;
                convicted.push(*id);
            }
        }
        convicted
    }
}
