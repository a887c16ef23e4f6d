//! The deadlines of calls: when they pass, what is ordered then, and how far a claim moves them.
//!
//! A call has the deadline of the task that runs. In a chunk each answer starts it anew, for the next
//! task ([`InFlightCall::begins`]). The end of a call that is overdue is an order: what the claim says
//! then may move the deadline ([`WorkerState::postpone_end`]). What the end of the process costs the
//! tasks is in `blame.rs`.

use std::time::{Duration, Instant};

use super::Scheduler;
use super::dispatch::STUCK_AFTER;
use super::messages::{Action, Claimed, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, EndedCall, InFlightCall, Stage, WorkerState, later};

/// No claim of a worker postpones a deadline for longer.
///
/// A process that is ready waits for a CPU for some time slices, of a few milliseconds each, also where
/// many are ready: with this much patience a worker that is only starved is seldom taken for a stopped
/// one.
const MAX_POSTPONEMENT: Duration = Duration::from_millis(450);
/// A worker that has not begun a call at its deadline, and for this long, is stopped or starved, or its
/// claim is false.
const LONGEST_UNBEGUN: Duration = Duration::from_millis(400);
/// The same for a call that was not begun before another worker ended, and also before its deadline: with
/// both workers, a call that denies to have begun takes half a second longer than it may.
const LONGEST_UNBEGUN_AGAIN: Duration = Duration::from_millis(300);

/// What to do with a call that was not ended after its deadline, because of its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Postponement {
    /// The deadline is moved.
    Granted,
    /// The worker does not begin the call: it is killed.
    Stalled,
    /// The call has had its timeout and [`MAX_POSTPONEMENT`]: its worker is killed.
    Overdue,
}

impl InFlightCall {
    /// When its timeout has passed.
    pub(crate) fn timeout_at(&self) -> Option<Instant> {
        Some(later(self.since?, self.timeout?))
    }

    /// When it is looked at, to be ended.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let begins_by = || Some(later(self.could_run_since?, LONGEST_UNBEGUN_AGAIN));
        let begins_by = self.timeout.filter(|_| self.is_suspect).and_then(|_| begins_by());
        [self.timeout_at(), self.stop_at, begins_by].into_iter().flatten().min()
    }

    /// Starts the deadline of its next task.
    pub(super) fn begins(&mut self, now: Instant) {
        self.since = Some(now);
        self.could_run_since = Some(now);
    }
}

impl WorkerState {
    /// The index of the first running call whose deadline has passed.
    pub(crate) fn overdue(&self, now: Instant) -> Option<usize> {
        let is_overdue =
            |call: &InFlightCall| call.deadline().is_some_and(|deadline| deadline <= now);
        self.running().position(is_overdue)
    }

    /// The earliest deadline of the running calls.
    pub(crate) fn first_deadline(&self) -> Option<Instant> {
        match self.stage {
            Stage::Ready if self.ending.is_none() => {
                self.running().filter_map(InFlightCall::deadline).min()
            }
            _ => None,
        }
    }

    /// The call was not ended, because of what its claim says. Moves its deadline, by
    /// [`MAX_POSTPONEMENT`] at most.
    pub(crate) fn postpone_end(
        &mut self,
        seq: u64,
        claimed: Claimed,
        now: Instant,
    ) -> Postponement {
        self.ending.take_if(|ending| ending.seq == seq);
        let Some(call) = self.calls.iter_mut().find(|call| call.seq == seq) else {
            return Postponement::Granted;
        };
        call.is_suspect &= claimed == Claimed::NotBegun;
        if let Claimed::Ended { is_being_read: true } = claimed {
            // The coordinator is late, not the worker. The next check is a full postponement from
            // now.
            let next_check = later(now, MAX_POSTPONEMENT);
            call.since = call.timeout.and_then(|timeout| next_check.checked_sub(timeout));
            call.since = call.since.or(Some(now));
            call.could_run_since = call.since.and_then(|since| since.checked_sub(MAX_POSTPONEMENT));
            return Postponement::Granted;
        }
        let could_run_since = *call.could_run_since.get_or_insert(call.since.unwrap_or(now));
        let waited = now.saturating_duration_since(could_run_since);
        let begins_within = if call.is_suspect { LONGEST_UNBEGUN_AGAIN } else { LONGEST_UNBEGUN };
        if claimed == Claimed::NotBegun && waited >= begins_within {
            return Postponement::Stalled;
        }
        let is_overdue = |timeout: Duration| waited >= timeout.saturating_add(MAX_POSTPONEMENT);
        if call.timeout.is_some_and(is_overdue) {
            call.since = Some(could_run_since);
            return Postponement::Overdue;
        }
        let since = match claimed {
            Claimed::RunsFor(ran_for) => now.checked_sub(ran_for).or(call.since).unwrap_or(now),
            // The next look is when it must have begun.
            Claimed::NotBegun => {
                let next_look = later(could_run_since, begins_within);
                call.timeout.and_then(|timeout| next_look.checked_sub(timeout)).unwrap_or(now)
            }
            Claimed::Ended { .. } => now,
        };
        call.since = Some(since.min(later(could_run_since, MAX_POSTPONEMENT)));
        Postponement::Granted
    }
}

impl<J: Clone> Scheduler<J> {
    /// Orders the end of a call whose deadline has passed, if the worker runs one.
    pub(super) fn end_overdue(
        &mut self,
        worker_index: WorkerIndex,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker = &self.workers[worker_index];
        let (None, Some(index)) = (worker.ending, worker.overdue(now)) else { return };
        if worker.calls[index].stop_at.is_some_and(|at| at <= now) {
            self.end_grace(worker_index, index, now, actions);
        } else {
            self.end_call(worker_index, index, EndReason::TimedOut, now, actions);
        }
    }

    /// A call was to be ended and was not, because of its claim.
    pub(super) fn not_ended(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        claimed: Claimed,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker_index = worker_id.worker_index;
        let worker = &mut self.workers[worker_index];
        if !worker.is_current(worker_id) {
            return;
        }
        // Without a timeout, a cancelled call whose reply does not come would keep its slot for
        // ever.
        let is_cancelled = |call: &&mut InFlightCall| {
            call.seq == seq && call.timeout.is_none() && !self.chunks.contains_key(&call.id)
        };
        if let Some(call) = worker.calls.iter_mut().find(is_cancelled) {
            call.timeout = Some(STUCK_AFTER);
            self.timed += 1; // Never subtracted: see `cancelled`.
        }
        match worker.postpone_end(seq, claimed, now) {
            Postponement::Granted => {}
            Postponement::Stalled => self.kill(worker_index, EndReason::Stalled, now, actions),
            Postponement::Overdue => self.kill(worker_index, EndReason::TimedOut, now, actions),
        }
    }

    /// Orders the end of a running call, and of its process. The call may finish before that.
    pub(super) fn end_call(
        &mut self,
        worker_index: WorkerIndex,
        index: usize,
        why: EndReason,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker = &mut self.workers[worker_index];
        if worker.ending.is_none() {
            let InFlightCall { seq, timeout, .. } = worker.calls[index];
            let allowed = timeout.filter(|_| why == EndReason::TimedOut);
            worker.ending = Some(EndedCall { seq, at: now, why });
            actions.push(Action::EndCall { worker_id: worker.worker_id(), seq, allowed });
        }
    }

    /// The grace period of a task that was asked to stop has passed: it is cancelled.
    fn end_grace(
        &mut self,
        worker_index: WorkerIndex,
        index: usize,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let call = &mut self.workers[worker_index].calls[index];
        call.stop_at = None;
        let id = call.id;
        // The call outlives its chunk, as in `cancelled`.
        self.timed += usize::from(call.timeout.is_some());
        self.end_call(worker_index, index, EndReason::Cancelled, now, actions);
        self.complete(id, Verdict::Cancelled, actions);
    }
}
