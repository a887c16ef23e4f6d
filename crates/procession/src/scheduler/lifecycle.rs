//! Who works: when a process is started on a seat, replaced, let go or killed, and when the pool
//! gives up.

use std::time::{Duration, Instant};

use super::messages::{Action, Again, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, Stage, Successor, WorkerState, later};
use super::{Phase, Scheduler};
use crate::error::PoolError;

/// How long a worker may take to leave after it was told to.
const LEAVE: Duration = Duration::from_secs(5);
/// Failures that lie further apart than this are no series.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// A worker that ends without a task sooner than this was of no use. One that was there for longer
/// was most likely killed by somebody.
pub(super) const MIN_LIFETIME: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// How long a pool without any worker goes on trying while the system is short of something.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(30);

/// The pause after so many failures before.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn start_failed(
        &mut self,
        worker_id: WorkerId,
        cause: String,
        again: Again,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.workers[worker_id.worker_index];
        if state.is_successor(worker_id) {
            state.successor = None;
            state.has_no_successor = again != Again::AtOnce;
        } else if state.is_present(worker_id) {
            state.vacate(now);
        } else {
            return;
        }
        if self.phase != Phase::Open && self.tasks.is_empty() {
            return; // Nobody needs it any more; it was most likely killed for that reason.
        }
        // What keeps one worker from starting must not end those that work.
        let is_at_work = self.workers.iter().any(|state| state.stage == Stage::Ready);
        match again {
            Again::AtOnce => {}
            Again::AfterShortage if self.is_short_for_too_long(is_at_work, now) => {
                self.break_down(self.failed_starts, cause, now, actions);
            }
            Again::AfterShortage => self.leave_vacant(worker_id.worker_index, now),
            Again::WithBackoff | Again::Never if is_at_work => {
                self.leave_vacant(worker_id.worker_index, now)
            }
            Again::WithBackoff => {
                self.note_early_failure(worker_id.worker_index, &cause, now, actions)
            }
            Again::Never => self.break_down(1, cause, now, actions),
            Again::Misused(how) => self.break_with(how.error(cause), now, actions),
        }
    }

    /// A worker is ready: whatever kept others from starting, it is no matter of all.
    pub(super) fn note_started(&mut self) {
        self.failed_starts = 0;
        self.short_since = None;
    }

    fn is_short_for_too_long(&mut self, is_at_work: bool, now: Instant) -> bool {
        if is_at_work {
            self.short_since = None;
            return false;
        }
        let since = *self.short_since.get_or_insert(now);
        now.saturating_duration_since(since) >= LONGEST_SHORTAGE
    }

    /// Leaves a seat vacant for a while, longer with each start that fails in a row.
    fn leave_vacant(&mut self, worker_index: WorkerIndex, now: Instant) {
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let round = self.failed_starts / workers;
        self.failed_starts = self.failed_starts.saturating_add(1);
        if let Stage::Vacant { until } = &mut self.workers[worker_index].stage {
            *until = Some(now + backoff(round));
        }
    }

    /// Leaves the seat vacant for a while, longer each time; gives up when it is of no use.
    pub(super) fn note_early_failure(
        &mut self,
        worker_index: WorkerIndex,
        cause: &str,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        if now.saturating_duration_since(self.last_early_failure) > FAILURE_WINDOW {
            self.early_failures = 0;
        }
        self.last_early_failure = now;
        self.early_failures += 1;
        // All seats may fail for one reason at one time: that is one try, not many.
        let tries =
            self.early_failures.div_ceil(u32::try_from(self.workers.len()).unwrap_or(u32::MAX));
        if tries >= self.settings.start_tries {
            return self.break_down(tries, cause.to_owned(), now, actions);
        }
        if let Stage::Vacant { until } = &mut self.workers[worker_index].stage {
            *until = Some(now + backoff(tries - 1));
        }
    }

    pub(super) fn break_down(
        &mut self,
        tries: u32,
        cause: String,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.break_with(PoolError::CannotStart { tries, cause }, now, actions);
    }

    fn break_with(&mut self, error: PoolError, now: Instant, actions: &mut Vec<Action<J>>) {
        self.phase = Phase::Broken(error.clone());
        self.complete_all(&Verdict::Broken(error), actions);
        self.kill_all(now, actions);
    }

    /// Gives all jobs up, whatever state they are in; nothing is decided any more.
    pub(crate) fn abandon(&mut self) -> Vec<J> {
        self.tasks.drain().map(|(_, task)| task.job).collect()
    }

    /// Ends the process on a seat, and its successor if it is not needed, either.
    pub(super) fn kill(
        &mut self,
        worker_index: WorkerIndex,
        why: EndReason,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.is_stable = false;
        let state = &mut self.workers[worker_index];
        if why == EndReason::Unneeded {
            kill_successor(state, false, now, actions);
        }
        match state.stage {
            Stage::Starting { .. } | Stage::Ready | Stage::Leaving { .. } => {
                state.stage = Stage::Killed { at: now, why };
                let is_late = why != EndReason::Unneeded;
                actions.push(Action::Kill { worker_id: state.worker_id(), is_late });
            }
            Stage::Vacant { .. } | Stage::Killed { .. } | Stage::Closed => {}
        }
    }

    pub(super) fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        for worker_index in 0..self.workers.len() {
            self.kill(worker_index, EndReason::Unneeded, now, actions);
        }
    }

    /// Starts processes on vacant seats: those that are always wanted, and others as long as there
    /// are more tasks than slots for them.
    pub(super) fn start_missing(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let min_workers = match self.phase {
            Phase::Open => self.settings.min_workers,
            Phase::ShuttingDown(_) => 0,
            Phase::Broken(_) => return,
        };
        if self.workers.iter().all(|state| !matches!(state.stage, Stage::Vacant { .. })) {
            return;
        }
        let mut occupied = self.workers.iter().filter(|state| state.is_occupied()).count();
        let coming = |state: &WorkerState| match state.stage {
            Stage::Starting { .. } => state.slots,
            _ => state.free_slots(),
        };
        let mut room = self.workers.iter().map(coming).fold(0, usize::saturating_add);
        for state in &mut self.workers {
            let is_wanted = occupied < min_workers || self.pending > room;
            if is_wanted && state.stage == (Stage::Vacant { until: None }) {
                let worker_id = state.fill(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { worker_id });
                occupied += 1;
                room = room.saturating_add(state.slots);
            }
        }
    }

    /// Workers that have served their time are let go when they have done what they have, and
    /// their successors start meanwhile.
    pub(super) fn recycle_workers(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let most = self.settings.max_tasks;
        self.may_need_recycling = false;
        for worker_index in 0..self.workers.len() {
            let state = &mut self.workers[worker_index];
            if state.stage != Stage::Ready || !is_due_for_recycling(state, most) {
                continue;
            }
            (self.may_need_recycling, self.is_stable) = (true, false);
            let is_wanted = match self.phase {
                Phase::Open => true,
                Phase::ShuttingDown(_) => self.pending > 0,
                Phase::Broken(_) => false,
            };
            if is_wanted && state.successor.is_none() && !state.has_no_successor {
                let worker_id = state.call_successor(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { worker_id });
            }
            if state.calls.is_empty() {
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { worker_id: state.worker_id() });
            } else if state.is_over_memory_limit || state.is_unfit {
                self.recall(worker_index, actions);
            }
        }
    }

    pub(super) fn may_shrink(&self) -> bool {
        self.settings.idle_timeout.is_some()
            && self.phase == Phase::Open
            && self.workers.iter().filter(|state| state.is_staying()).count()
                > self.settings.min_workers
    }

    pub(super) fn dismiss_the_idle(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let Some(timeout) = self.settings.idle_timeout else { return };
        // From the last seat on, since the first ones are given tasks first.
        for worker_index in (0..self.workers.len()).rev() {
            if !self.may_shrink() {
                return;
            }
            let state = &mut self.workers[worker_index];
            if state.stage == Stage::Ready
                && state.calls.is_empty()
                && later(state.idle_since, timeout) <= now
            {
                self.is_stable = false;
                state.stage = Stage::Leaving { until: now + LEAVE };
                actions.push(Action::Dismiss { worker_id: state.worker_id() });
            }
        }
    }

    /// In a shutdown, lets workers go when there is nothing left for them, and notes the end.
    pub(super) fn end_if_done(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.phase == Phase::Open || self.has_ended || !self.tasks.is_empty() {
            return;
        }
        for state in &mut self.workers {
            kill_successor(state, false, now, actions);
            match state.stage {
                Stage::Ready if state.calls.is_empty() => {
                    state.stage = Stage::Leaving { until: now + LEAVE };
                    actions.push(Action::Dismiss { worker_id: state.worker_id() });
                }
                // What still runs was cancelled; and who is starting has nothing to lose.
                Stage::Ready | Stage::Starting { .. } => {
                    state.stage = Stage::Killed { at: now, why: EndReason::Unneeded };
                    actions.push(Action::Kill { worker_id: state.worker_id(), is_late: false });
                }
                Stage::Vacant { .. } => state.stage = Stage::Closed,
                Stage::Leaving { .. } | Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        if self.workers.iter().all(|state| state.stage == Stage::Closed) {
            self.has_ended = true;
            actions.push(Action::End);
        }
    }
}

/// Whether the worker gets no further task: it has done as many as it may, or grown too large.
pub(super) fn is_due_for_recycling(state: &WorkerState, max_tasks: Option<u64>) -> bool {
    state.is_over_memory_limit
        || state.is_unfit
        || max_tasks.is_some_and(|most| state.given >= most)
}

pub(super) fn kill_successor<J>(
    state: &mut WorkerState,
    is_late: bool,
    now: Instant,
    actions: &mut Vec<Action<J>>,
) {
    let worker_index = state.worker_id().worker_index;
    if let Some(Successor { generation, stage, .. }) = &mut state.successor
        && !matches!(stage, Stage::Killed { .. })
    {
        *stage = Stage::Killed { at: now, why: EndReason::Unneeded };
        let worker_id = WorkerId { worker_index, generation: *generation };
        actions.push(Action::Kill { worker_id, is_late });
    }
}
