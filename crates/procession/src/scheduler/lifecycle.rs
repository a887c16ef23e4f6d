//! When the process of a worker is replaced, dismissed or killed, and when the pool breaks.
//!
//! | after a failure of | the worker index is started again | the pool breaks |
//! |---|---|---|
//! | a start, `NextStart::AtOnce` | at once | no |
//! | a start, `NextStart::WithBackoff` | after a pause | after [`Settings::start_tries`](super::Settings) tries, if no worker is ready |
//! | a start, `NextStart::AfterShortage` | after a pause | after [`LONGEST_SHORTAGE`], if no worker is ready |
//! | a start, `NextStart::Never` | after a pause | at once, if no worker is ready |
//! | a start, `NextStart::Unfit` | - | at once |
//! | a worker that had begun no task | after a pause | after `start_tries` tries |

use std::time::{Duration, Instant};

use super::messages::{Action, NextStart, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, Stage, Successor, WorkerState, later};
use super::{Phase, Scheduler};
use crate::error::PoolError;

/// The time from a dismissal until the worker is killed.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Failures that are further apart than this are not counted together.
const FAILURE_WINDOW: Duration = Duration::from_secs(60);
/// The end of a worker that was idle for less than this counts as a failure. After a longer time
/// the worker was most likely killed from outside.
pub(super) const MIN_LIFETIME: Duration = Duration::from_secs(10);
const FIRST_BACKOFF: Duration = Duration::from_millis(10);
const LONGEST_BACKOFF: Duration = Duration::from_secs(2);
/// For how long a pool without a worker retries while the system lacks a resource.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(30);

/// The pause after this number of earlier failures.
fn backoff(failures: u32) -> Duration {
    FIRST_BACKOFF.saturating_mul(2u32.saturating_pow(failures)).min(LONGEST_BACKOFF)
}

impl<J: Clone> Scheduler<J> {
    pub(super) fn start_failed(
        &mut self,
        worker_id: WorkerId,
        cause: String,
        next_start: NextStart,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker = &mut self.workers[worker_id.worker_index];
        if worker.is_successor(worker_id) {
            worker.successor = None;
            worker.has_no_successor = next_start != NextStart::AtOnce;
        } else if worker.is_current(worker_id) {
            worker.exited(now);
        } else {
            return;
        }
        if self.phase != Phase::Open && self.chunks.is_empty() {
            return; // The worker was not needed any more, and most likely killed for that reason.
        }
        // A failed start of one worker must not end those that are ready.
        let has_ready_worker = self.workers.iter().any(|worker| worker.stage == Stage::Ready);
        match next_start {
            NextStart::AtOnce => {}
            NextStart::AfterShortage if self.shortage_is_too_long(has_ready_worker, now) => {
                self.break_down(self.failed_starts, cause, now, actions);
            }
            NextStart::AfterShortage => self.delay_start(worker_id.worker_index, now),
            NextStart::WithBackoff | NextStart::Never if has_ready_worker => {
                self.delay_start(worker_id.worker_index, now)
            }
            NextStart::WithBackoff => {
                self.note_early_failure(worker_id.worker_index, &cause, now, actions)
            }
            NextStart::Never => self.break_down(1, cause, now, actions),
            NextStart::Unfit(how) => self.break_with(how.error(cause), now, actions),
        }
    }

    /// A worker is ready, so earlier failures do not concern the whole pool.
    pub(super) fn note_started(&mut self) {
        self.failed_starts = 0;
        self.shortage_since = None;
    }

    fn shortage_is_too_long(&mut self, has_ready_worker: bool, now: Instant) -> bool {
        if has_ready_worker {
            self.shortage_since = None;
            return false;
        }
        let since = *self.shortage_since.get_or_insert(now);
        now.saturating_duration_since(since) >= LONGEST_SHORTAGE
    }

    /// Delays the next start of a worker index, longer with each failed start in a row.
    pub(super) fn delay_start(&mut self, worker_index: WorkerIndex, now: Instant) {
        let workers = u32::try_from(self.workers.len()).unwrap_or(u32::MAX);
        let round = self.failed_starts / workers;
        self.failed_starts = self.failed_starts.saturating_add(1);
        if let Stage::Vacant { until } = &mut self.workers[worker_index].stage {
            *until = Some(now + backoff(round));
        }
    }

    /// Counts a failure. Delays the next start of the worker index, or breaks the pool after
    /// `start_tries`.
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
        // All workers may fail at one time for one reason: that counts as one try.
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

    /// Removes all jobs and returns them, each one once for each of its chunks.
    pub(crate) fn abandon(&mut self) -> Vec<J> {
        self.chunks.drain().map(|(_, chunk)| chunk.job).collect()
    }

    /// Kills a worker; also its successor, if the worker is not needed.
    pub(super) fn kill(
        &mut self,
        worker_index: WorkerIndex,
        why: EndReason,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        self.is_stable = false;
        let worker = &mut self.workers[worker_index];
        if why == EndReason::Unneeded {
            kill_successor(worker, false, now, actions);
        }
        match worker.stage {
            Stage::Starting { .. } | Stage::Standby | Stage::Ready | Stage::Leaving { .. } => {
                worker.stage = Stage::Killed { at: now, why };
                let is_late = why != EndReason::Unneeded;
                actions.push(Action::Kill { worker_id: worker.worker_id(), is_late });
            }
            Stage::Vacant { .. } | Stage::Killed { .. } | Stage::Closed => {}
        }
    }

    pub(super) fn kill_all(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        for worker_index in 0..self.workers.len() {
            self.kill(worker_index, EndReason::Unneeded, now, actions);
        }
    }

    /// Replaces workers that are due: starts their successors, and dismisses them when they have no
    /// calls. In a pool with spares these take the place of successors.
    pub(super) fn recycle_workers(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let max_tasks = self.settings.max_tasks;
        let has_spares = self.has_spares();
        self.may_need_recycling = false;
        for worker_index in 0..self.workers.len() {
            let worker = &mut self.workers[worker_index];
            if worker.stage != Stage::Ready || !worker.is_due_for_recycling(max_tasks) {
                continue;
            }
            (self.may_need_recycling, self.is_stable) = (true, false);
            let is_wanted = match self.phase {
                Phase::Open => true,
                Phase::ShuttingDown(_) => self.pending > 0,
                Phase::Broken(_) => false,
            };
            let may_have_successor = !has_spares && !worker.has_no_successor;
            if is_wanted && worker.successor.is_none() && may_have_successor {
                let worker_id = worker.start_successor(later(now, self.settings.start_timeout));
                actions.push(Action::Spawn { worker_id });
            }
            if worker.calls.is_empty() {
                let recycled = worker.recycling_reason();
                worker.stage = Stage::Leaving { until: now + LEAVE_TIMEOUT };
                actions.push(Action::Dismiss { worker_id: worker.worker_id(), recycled });
            } else if worker.must_give_calls_back() {
                self.recall(worker_index, actions);
            }
        }
    }

    /// Notes which workers have reached the age at which they are replaced.
    pub(super) fn note_ages(&mut self, now: Instant) {
        let Some(max_age) = self.settings.max_age else { return };
        for worker_index in 0..self.workers.len() {
            if self.workers[worker_index].reaches_age_at(max_age).is_some_and(|at| at <= now) {
                self.workers[worker_index].is_over_age = true;
                self.may_need_recycling = true;
            }
        }
        self.age_check = self.next_age_check();
    }

    /// When the next worker reaches that age.
    pub(super) fn next_age_check(&self) -> Option<Instant> {
        let max_age = self.settings.max_age?;
        self.workers.iter().filter_map(|worker| worker.reaches_age_at(max_age)).min()
    }

    pub(super) fn may_shrink(&self) -> bool {
        self.settings.idle_timeout.is_some()
            && self.phase == Phase::Open
            && self.workers.iter().filter(|worker| worker.is_staying()).count()
                > self.settings.min_workers
    }

    pub(super) fn dismiss_idle(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let Some(timeout) = self.settings.idle_timeout else { return };
        // From the last on, since the first workers get tasks first.
        for worker_index in (0..self.workers.len()).rev() {
            if !self.may_shrink() {
                return;
            }
            let worker = &mut self.workers[worker_index];
            if worker.stage == Stage::Ready
                && worker.calls.is_empty()
                && later(worker.idle_since, timeout) <= now
            {
                self.is_stable = false;
                worker.stage = Stage::Leaving { until: now + LEAVE_TIMEOUT };
                let (worker_id, recycled) = (worker.worker_id(), None);
                actions.push(Action::Dismiss { worker_id, recycled });
            }
        }
    }

    /// In a shutdown without tasks, dismisses or kills the workers. Returns [`Action::End`] after
    /// the last.
    pub(super) fn end_if_done(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.phase == Phase::Open || self.has_ended || !self.chunks.is_empty() {
            return;
        }
        for worker in self.workers.iter_mut() {
            kill_successor(worker, false, now, actions);
            match worker.stage {
                Stage::Ready | Stage::Standby if worker.calls.is_empty() => {
                    worker.stage = Stage::Leaving { until: now + LEAVE_TIMEOUT };
                    let (worker_id, recycled) = (worker.worker_id(), None);
                    actions.push(Action::Dismiss { worker_id, recycled });
                }
                // Its calls were cancelled, or it has not started yet.
                Stage::Ready | Stage::Standby | Stage::Starting { .. } => {
                    worker.stage = Stage::Killed { at: now, why: EndReason::Unneeded };
                    actions.push(Action::Kill { worker_id: worker.worker_id(), is_late: false });
                }
                Stage::Vacant { .. } => worker.stage = Stage::Closed,
                Stage::Leaving { .. } | Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        if self.workers.iter().all(|worker| worker.stage == Stage::Closed) {
            self.has_ended = true;
            actions.push(Action::End);
        }
    }
}

pub(super) fn kill_successor<J>(
    worker: &mut WorkerState,
    is_late: bool,
    now: Instant,
    actions: &mut Vec<Action<J>>,
) {
    let worker_index = worker.worker_id().worker_index;
    if let Some(Successor { generation, stage, .. }) = &mut worker.successor
        && !matches!(stage, Stage::Killed { .. })
    {
        *stage = Stage::Killed { at: now, why: EndReason::Unneeded };
        let worker_id = WorkerId { worker_index, generation: *generation };
        actions.push(Action::Kill { worker_id, is_late });
    }
}
