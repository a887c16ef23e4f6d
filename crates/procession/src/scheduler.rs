//! The scheduler of the process pool: decides which worker gets which task, what a worker's end means
//! for the tasks it had, and when a replacement starts.
//!
//! ```text
//!            Submitted ─► pending ──Send──► at one worker   ──Replied──► Complete
//!                          ▲    ▲                 │        │
//!                          │    └── Returned, ────┘        │ failed, timed out, or its worker
//!                          │     or not begun when the     │ died; and it may be tried again
//!                          │     worker ended              ▼
//!                          └────────── in time ────────── paused
//! ```
//!
//! It is pure: events and the time go in, actions come out. It does no I/O, reads no clock, starts
//! no thread and knows nothing of JSON, so a test can drive it through any schedule (see
//! `simulation.rs`). What holds after each step:
//!
//! - a task is pending, or paused, or in flight on exactly one seat, or completed, and is completed
//!   once;
//! - it is begun no more often than its terms allow;
//! - a seat has at most one process at work; the successor of one that is to be replaced may start
//!   beside it, but gets no task before it has left;
//! - after a shutdown every task is completed before [`Action::End`].
//!
//! **Who is to blame.** A worker claims each call before it begins it, in memory that outlives it
//! (see `transport/shared_region.rs`), so it is known which calls had begun when it died. Only these can have
//! killed it; the others go back to the head of the queue at no cost.
//!
//! **Ending one task.** To end a running task is to end its process. What it has not begun is
//! taken back first, so the next task is not hit by mistake. With one slot nobody else is hurt.
//! With several, a deadline still ends the process, and the other tasks die with it; a cancel does
//! not.

#[cfg(any(test, feature = "simulation"))]
pub mod bench_driver;
mod blame;
mod dispatch;
mod lifecycle;
#[cfg(test)]
mod lifecycle_tests;
mod messages;
#[cfg(test)]
mod nonsense;
mod queue;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod tasks;
mod worker;

use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

pub(crate) use self::dispatch::MOST_AHEAD;
use self::dispatch::STUCK;
use self::lifecycle::kill_successor;
pub(crate) use self::messages::{
    Action, Again, Begun, Claimed, Event, Misuse, ResolvedOptions, Settings, Verdict, WorkerId,
    WorkerIndex,
};
use self::queue::Queue;
use self::tasks::{Entry, Place};
use self::worker::{EndReason, EndedCall, Respite, Sent, Stage, Successor, WorkerState, later};
use crate::error::PoolError;
use crate::executor::Shutdown;
use crate::retries::Fault;
#[cfg(test)]
use crate::retries::Retries;
use crate::task::TaskId;

/// No task is taken to last longer, whatever its worker says.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

#[derive(Debug)]
pub(crate) struct Scheduler<J> {
    settings: Settings,
    tasks: FxHashMap<TaskId, Entry<J>>,
    queue: Queue,
    /// How many entries are in the queue and still pending.
    pending: usize,
    /// How many pieces were cut off what was submitted, for their ids.
    sub_chunks: u64,
    /// How many wait for their next attempt.
    paused: usize,
    workers: Vec<WorkerState>,
    /// How many tasks have a timeout: without any, deadlines need not be looked for.
    timed: usize,
    /// Every seat has its process, ready, and nobody comes or goes.
    is_stable: bool,
    /// Some worker may have grown too large, or done its number of tasks.
    may_need_recycling: bool,
    /// When to look for calls that lie behind a long one.
    stuck_check: Option<Instant>,
    /// How long tasks take, averaged with more weight on the latest.
    typical: Option<Duration>,
    /// Starts that failed, and workers that ended before they began anything, in a row without a
    /// task done in between.
    early_failures: u32,
    last_early_failure: Instant,
    /// Starts that failed without anything to say about the next, since a worker was ready last.
    failed_starts: u32,
    /// Since when there has been no worker because the system is short of something.
    short_since: Option<Instant>,
    phase: Phase,
    has_ended: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Open,
    ShuttingDown(Shutdown),
    Broken(PoolError),
}

impl<J: Clone> Scheduler<J> {
    /// A scheduler, and its first actions.
    pub(crate) fn new(settings: Settings, now: Instant) -> (Self, Vec<Action<J>>) {
        let workers = settings.slots.iter().enumerate();
        let mut scheduler = Self {
            workers: workers
                .map(|(worker_index, &slots)| WorkerState::new(worker_index, slots, now))
                .collect(),
            settings,
            tasks: FxHashMap::default(),
            queue: Queue::default(),
            pending: 0,
            sub_chunks: 0,
            is_stable: false,
            may_need_recycling: false,
            stuck_check: None,
            paused: 0,
            timed: 0,
            typical: None,
            early_failures: 0,
            last_early_failure: now,
            failed_starts: 0,
            short_since: None,
            phase: Phase::Open,
            has_ended: false,
        };
        let mut actions = Vec::new();
        scheduler.start_missing(now, &mut actions);
        (scheduler, actions)
    }

    /// Takes note of what happened and says what is to be done; several events that are known
    /// together are decided upon together.
    pub(crate) fn handle(
        &mut self,
        events: impl IntoIterator<Item = Event<J>>,
        now: Instant,
    ) -> Vec<Action<J>> {
        let mut actions = Vec::new();
        for event in events {
            self.is_stable &= event.is_about_tasks();
            self.take_note(event, now, &mut actions);
        }
        // What is done for every single task must not depend on the number of workers.
        if !self.is_stable {
            self.start_missing(now, &mut actions);
        }
        self.dispatch(now, &mut actions);
        if self.stuck_check.is_some_and(|at| at <= now) {
            self.recall_stuck(now, &mut actions);
        }
        if self.may_need_recycling || self.settings.max_tasks.is_some() {
            self.recycle_workers(now, &mut actions);
        }
        self.dismiss_the_idle(now, &mut actions);
        self.end_if_done(now, &mut actions);
        if !self.is_stable {
            let is_stable =
                |state: &WorkerState| state.stage == Stage::Ready && state.successor.is_none();
            self.is_stable = self.workers.iter().all(is_stable);
        }
        actions
    }

    /// When to send the next [`Event::Tick`], if nothing else happens.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let mut earliest = self.queue.due_at();
        let mut at = |time: Option<Instant>| {
            earliest = match (earliest, time) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        at(self.stuck_check);
        let excess = self.may_shrink();
        if self.is_stable && self.timed == 0 && !excess {
            return earliest;
        }
        for state in &self.workers {
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = state.successor {
                at(Some(until));
            }
            match state.stage {
                Stage::Vacant { until } => at(until),
                Stage::Starting { until } | Stage::Leaving { until } => at(Some(until)),
                Stage::Ready => {
                    if self.timed > 0 {
                        at(state.first_deadline());
                    }
                    if excess && state.calls.is_empty() {
                        let timeout = self.settings.idle_timeout;
                        at(timeout.map(|timeout| later(state.idle_since, timeout)));
                    }
                }
                Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        earliest
    }

    /// The call by which a task was sent, if it is the only one that its worker has.
    pub(crate) fn only_call(&self, id: TaskId) -> Option<(WorkerId, u64)> {
        let Place::InFlight(worker_index) = self.tasks.get(&id)?.place else { return None };
        let state = &self.workers[worker_index];
        let call = state.calls.front().filter(|call| state.calls.len() == 1 && call.id == id)?;
        Some((state.worker_id(), call.seq))
    }

    /// How many tasks wait for a worker, or for their next attempt.
    pub(crate) fn waiting(&self) -> usize {
        self.pending + self.paused
    }

    /// How many tasks have not begun, and how many run. Those that were cancelled are not counted,
    /// whatever their worker still does.
    pub(crate) fn not_begun_and_running(&self) -> (usize, usize) {
        let running = self.workers.iter().flat_map(WorkerState::running);
        let running = running.filter(|call| self.tasks.contains_key(&call.id)).count();
        let all: usize = self.tasks.values().map(|task| task.items as usize).sum();
        (all - running, running)
    }

    fn take_note(&mut self, event: Event<J>, now: Instant, actions: &mut Vec<Action<J>>) {
        match event {
            Event::Submitted { id, job, items, bytes, options } => {
                self.submitted(id, job, items, bytes, options, actions);
            }
            Event::Cancelled { id } => self.cancelled(id, now, actions),
            Event::Abandoned { id } => self.abandoned(id, actions),
            Event::WorkerReady { worker_id } => self.ready(worker_id, now),
            Event::Narrowed { worker_id, slots } => {
                self.workers[worker_id.worker_index].narrow(worker_id, slots)
            }
            Event::Replied { worker_id, seq, ran_for, has_failed, is_over_memory_limit } => {
                let state = &mut self.workers[worker_id.worker_index];
                if state.is_present(worker_id)
                    && let Some(id) = state.answered(seq, 1, now)
                {
                    state.is_over_memory_limit |= is_over_memory_limit;
                    self.may_need_recycling |= is_over_memory_limit;
                    self.learn(ran_for);
                    let id = self.cut(id, 1);
                    self.answered(id, has_failed, now, actions);
                }
            }
            Event::Progressed { worker_id, seq, items, ran_for, is_over_memory_limit } => {
                let state = &mut self.workers[worker_id.worker_index];
                if state.is_present(worker_id)
                    && let Some(id) = state.answered(seq, items, now)
                {
                    state.is_over_memory_limit |= is_over_memory_limit;
                    self.may_need_recycling |= is_over_memory_limit;
                    self.learn(ran_for);
                    self.advance(id, items);
                }
            }
            Event::Unfit { worker_id, seq, reason } => self.unfit(worker_id, seq, reason, actions),
            Event::Returned { worker_id, calls } => {
                let state = &mut self.workers[worker_id.worker_index];
                if state.is_present(worker_id) {
                    let returned = calls.iter().filter_map(|call| state.take_returned(call, now));
                    let returned: Vec<_> = returned.collect();
                    let mut back = Vec::new();
                    for (id, staying) in returned {
                        back.extend(self.cut_rest(id, staying));
                    }
                    self.take_back(back, actions);
                }
            }
            Event::StartFailed { worker_id, cause, again } => {
                self.start_failed(worker_id, cause, again, now, actions);
            }
            Event::WorkerExited { worker_id, exit, begun } => {
                self.exited(worker_id, exit, &begun, now, actions);
            }
            Event::NotYet { worker_id, seq, claimed } => {
                self.not_yet(worker_id, seq, claimed, now, actions);
            }
            Event::Tick => self.tick(now, actions),
            Event::ShutDown(how) => self.shut_down(how, now, actions),
        }
    }

    fn cancelled(&mut self, id: TaskId, now: Instant, actions: &mut Vec<Action<J>>) {
        let Some(task) = self.tasks.get(&id) else { return };
        if let Place::InFlight(worker_index) = task.place {
            let state = &mut self.workers[worker_index];
            let index = state.calls.iter().position(|call| call.id == id);
            let Some(index) = index.filter(|_| state.stage == Stage::Ready) else { return };
            let has_timeout = state.calls[index].timeout.is_some();
            if index < state.slots && state.slots > 1 {
                return; // Others run in the same process.
            } else if index < state.slots {
                self.end_call(worker_index, index, EndReason::Cancelled, now, actions);
            } else {
                let (worker_id, seq) = (state.worker_id(), state.calls[index].seq);
                actions.push(Action::Recall { worker_id, from: seq, through: seq });
                // Should it begin nevertheless, because the recall came too late, it is ended.
                if state.slots == 1 {
                    state.calls[index].timeout = Some(STUCK);
                    self.timed += usize::from(!has_timeout); // Until the pool's end: see below.
                }
            }
            // The call is still there when the task is not: its deadline goes on being looked for,
            // until the pool's end, which does no harm.
            self.timed += usize::from(has_timeout);
        }
        self.complete(id, Verdict::Cancelled, actions);
    }

    fn ready(&mut self, worker_id: WorkerId, now: Instant) {
        self.note_started();
        let state = &mut self.workers[worker_id.worker_index];
        if state.is_present(worker_id) && matches!(state.stage, Stage::Starting { .. }) {
            state.stage = Stage::Ready;
            state.idle_since = now;
        } else if let Some(successor) = &mut state.successor
            && successor.generation == worker_id.generation
            && matches!(successor.stage, Stage::Starting { .. })
        {
            successor.stage = Stage::Ready;
        }
    }

    /// A call that was to be ended was not, because of what its worker claims.
    fn not_yet(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        claimed: Claimed,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.workers[worker_id.worker_index];
        if !state.is_present(worker_id) {
            return;
        }
        // A cancelled call whose reply does not come would keep its slot for ever.
        let is_cancelled = |call: &&mut Sent| {
            call.seq == seq && call.timeout.is_none() && !self.tasks.contains_key(&call.id)
        };
        if let Some(call) = state.calls.iter_mut().find(is_cancelled) {
            call.timeout = Some(STUCK);
            self.timed += 1; // Until the pool's end, which does no harm.
        }
        match state.put_off(seq, claimed, now) {
            Respite::Granted => {}
            Respite::Stalled => self.kill(worker_id.worker_index, EndReason::Stalled, now, actions),
            Respite::OverDue => {
                self.kill(worker_id.worker_index, EndReason::TimedOut, now, actions)
            }
        }
    }

    fn learn(&mut self, ran_for: Duration) {
        self.early_failures = 0;
        self.typical = Some(match self.typical {
            None => ran_for.min(LONGEST),
            Some(typical) => (typical * 7 + ran_for.min(LONGEST)) / 8,
        });
    }

    fn answered(
        &mut self,
        id: TaskId,
        has_failed: bool,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(task) = self.tasks.get_mut(&id) else { return };
        task.begun += 1;
        if !(has_failed && self.retry(id, Fault::Failure, now, actions)) {
            self.complete(id, Verdict::Answered, actions);
        }
    }

    fn may_begin_tasks(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ShuttingDown(Shutdown::Wait))
    }

    /// Ends a running call, and with it its process, if it has not finished the call meanwhile.
    fn end_call(
        &mut self,
        worker_index: WorkerIndex,
        index: usize,
        why: EndReason,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let state = &mut self.workers[worker_index];
        if state.ending.is_none() {
            let Sent { seq, timeout, .. } = state.calls[index];
            let allowed = timeout.filter(|_| why == EndReason::TimedOut);
            state.ending = Some(EndedCall { seq, at: now, why });
            actions.push(Action::EndCall { worker_id: state.worker_id(), seq, allowed });
        }
    }

    fn tick(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        while let Some(id) = self.queue.pop_due(now) {
            if let Some(task) = self.tasks.get_mut(&id).filter(|task| task.place == Place::Paused) {
                task.place = Place::Pending;
                self.paused -= 1;
                self.pending += 1;
                self.queue.push_front(task.options.priority, id);
            }
        }
        for worker_index in 0..self.workers.len() {
            let state = &mut self.workers[worker_index];
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = state.successor
                && until <= now
            {
                kill_successor(state, true, now, actions);
            }
            match state.stage {
                Stage::Vacant { until: Some(until) } if until <= now => {
                    state.stage = Stage::Vacant { until: None };
                }
                Stage::Starting { until } | Stage::Leaving { until } if until <= now => {
                    self.kill(worker_index, EndReason::TimedOut, now, actions);
                }
                Stage::Ready => {
                    if let (None, Some(index)) = (state.ending, state.overdue(now)) {
                        self.end_call(worker_index, index, EndReason::TimedOut, now, actions);
                    }
                }
                _ => {}
            }
        }
    }

    fn shut_down(&mut self, how: Shutdown, now: Instant, actions: &mut Vec<Action<J>>) {
        match self.phase {
            Phase::Open => {}
            // Once more, and stricter.
            Phase::ShuttingDown(before) if how > before => {}
            _ => return,
        }
        self.phase = Phase::ShuttingDown(how);
        match how {
            Shutdown::Wait => {}
            Shutdown::CancelPending => {
                let waiting = |task: &Entry<J>| !matches!(task.place, Place::InFlight(_));
                let mut ids: Vec<_> = self
                    .tasks
                    .iter()
                    .filter(|(_, task)| waiting(task))
                    .map(|(id, _)| *id)
                    .collect();
                ids.sort_unstable();
                for id in ids {
                    self.complete(id, Verdict::Cancelled, actions);
                }
                for worker_index in 0..self.workers.len() {
                    self.recall(worker_index, actions);
                }
            }
            Shutdown::Kill => {
                self.complete_all(&Verdict::Cancelled, actions);
                self.kill_all(now, actions);
            }
        }
    }
}
