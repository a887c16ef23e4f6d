//! The scheduler of the process pool: a pure state machine that assigns tasks to workers, decides
//! what the end of a worker means for its tasks, and starts, replaces and ends workers.
//!
//! [`Scheduler::handle`] takes events and the time, and returns actions. The scheduler does no I/O,
//! reads no clock, starts no thread, and does not look into the payload `J` of a job. So a test can
//! drive it through any schedule (`simulation.rs`).
//!
//! # Chunks
//!
//! One `Submitted` event brings one *job* of one or more tasks. A *chunk* is a run of consecutive
//! tasks of one job that are in the same state; it is split when only some of its tasks change
//! state.
//!
//! ```text
//!            Submitted ─► Pending ──Send──► InFlight(worker) ──Replied, Progressed──► completed
//!                          ▲    ▲                 │        │
//!                          │    └── Returned, ────┘        │ failed, timed out, or its worker
//!                          │     or not begun when the     │ died, and may be retried
//!                          │     worker ended              ▼
//!                          └───── pause is over ──────── Paused
//! ```
//!
//! | state | set by | leaves it by |
//! |---|---|---|
//! | `Pending`: in the queue | `Submitted`, `Returned`, end of a pause, `WorkerExited` for tasks that had not begun | `dispatch`, cancellation |
//! | `InFlight(worker)`: sent to one worker | `dispatch` | reply, `Returned`, `WorkerExited`, cancellation |
//! | `Paused`: waits for its next attempt | a fault that its [`Retries`](crate::Retries) cover | `Tick` at the end of the pause, cancellation |
//! | completed: removed from the table | [`Action::Complete`], or `Progressed` (whose outputs were delivered before) | final |
//!
//! # Workers
//!
//! A *worker index* stands for one process at a time. Its processes follow each other; each has a
//! generation of its own. Events of an older generation are stale and ignored. As many worker
//! indices as the pool has workers are *active*; the others are *spares* (`spares.rs`).
//!
//! | [`Stage`] | process | set by | may get calls |
//! |---|---|---|---|
//! | `Vacant { until }` | none; the next starts after `until` | `StartFailed`, `WorkerExited` | no |
//! | `Starting { until }` | starts; killed at `until` | `start_missing` | no |
//! | `Standby` | a spare that is ready | `WorkerReady` | no |
//! | `Ready` | runs calls | `WorkerReady`, `start_missing` for a spare | yes, unless a call is being ended |
//! | `Leaving { until }` | is to exit; killed at `until` | recycling, idle timeout, shutdown | no |
//! | `Killed` | killed; its exit is not reported yet | timeouts, cancellation, shutdown | no |
//! | `Closed` | none, for good | shutdown | no |
//!
//! # Invariants, after each call of `handle`
//!
//! - Each task is in one chunk, or completed. It is completed once.
//! - Each task begins at most as often as its options allow.
//! - Each worker index has at most one process with calls. The successor of a worker that is due
//!   for recycling may start beside it, and gets no call before the exit of its predecessor.
//! - No worker has a free slot while a chunk is pending.
//! - At most as many worker indices have calls as the pool has workers, spares not counted.
//! - After a shutdown every task is completed before [`Action::End`].
//!
//! # Blame
//!
//! A worker claims each call before it begins it, in memory that outlives the worker
//! (`transport/claim.rs`). So the calls that had begun when it died are known. Only these are
//! charged with an attempt; the others return to the head of the queue. `blame.rs` has the
//! exception.
//!
//! # Ending one task
//!
//! A running task is ended by killing its process. Calls behind it that have not begun are taken
//! back first. In a worker with one slot no other task is lost. In a worker with several slots a
//! timeout kills the process and the other running tasks with it; a cancellation does not.

#[cfg(any(test, feature = "simulation"))]
pub mod bench_driver;
mod blame;
mod chunks;
mod deadlines;
mod dispatch;
mod events;
mod lifecycle;
#[cfg(test)]
mod lifecycle_tests;
mod messages;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod nonsense;
mod queue;
#[cfg(any(test, feature = "simulation"))]
pub mod simulation;
mod spares;
mod worker;
mod workers;

use rustc_hash::FxHashMap;
use std::time::{Duration, Instant};

use self::chunks::{Chunk, ChunkId, ChunkState};
pub(crate) use self::dispatch::MAX_CALLS_AHEAD;
pub(crate) use self::messages::{
    Action, Begun, Claimed, Event, NextStart, ResolvedOptions, Settings, UnfitProgram, Verdict,
    WorkerId, WorkerIndex,
};
use self::queue::Queue;
use self::worker::{Stage, Successor, WorkerState, later};
use self::workers::Workers;
use crate::error::PoolError;
use crate::executor::Shutdown;
use crate::task::TaskId;

/// Assigns the tasks of jobs with payload `J` to workers.
#[derive(Debug)]
pub(crate) struct Scheduler<J> {
    settings: Settings,
    chunks: FxHashMap<ChunkId, Chunk<J>>,
    /// The number of chunks that were split off, for their ids.
    splits: u64,
    queue: Queue,
    /// The number of chunks in state `Pending`.
    pending: usize,
    /// The number of chunks in state `Paused`.
    paused: usize,
    /// The number of tasks of these chunks.
    waiting_tasks: usize,
    workers: Workers,
    /// The number of chunks and cancelled calls with a timeout. While it is 0, no deadlines are
    /// checked.
    timed: usize,
    /// Each worker index has a process in stage `Ready`, and no successor.
    is_stable: bool,
    /// A worker became due for recycling and may still be there.
    may_need_recycling: bool,
    /// When to look for calls that wait behind a long one.
    stuck_check: Option<Instant>,
    /// When the next worker reaches the age at which it is replaced.
    age_check: Option<Instant>,
    /// Moving average of run times; each new one has a weight of 1/8.
    typical_run_time: Option<Duration>,
    /// Failed starts, and workers that ended before they began a task, since a task was last
    /// completed.
    early_failures: u32,
    last_early_failure: Instant,
    /// Starts that failed for reasons outside the worker program, since a worker was last ready.
    failed_starts: u32,
    /// Since when the pool has no worker because the system lacks a resource.
    shortage_since: Option<Instant>,
    phase: Phase,
    /// [`Action::End`] was returned.
    has_ended: bool,
}

/// The state of the pool as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Phase {
    Open,
    ShuttingDown(Shutdown),
    Broken(PoolError),
}

impl<J: Clone> Scheduler<J> {
    /// A scheduler, and its first actions.
    pub(crate) fn new(settings: Settings, now: Instant) -> (Self, Vec<Action<J>>) {
        let mut scheduler = Self {
            workers: Workers::new(&settings, now),
            settings,
            chunks: FxHashMap::default(),
            splits: 0,
            queue: Queue::default(),
            pending: 0,
            paused: 0,
            waiting_tasks: 0,
            timed: 0,
            is_stable: false,
            may_need_recycling: false,
            stuck_check: None,
            age_check: None,
            typical_run_time: None,
            early_failures: 0,
            last_early_failure: now,
            failed_starts: 0,
            shortage_since: None,
            phase: Phase::Open,
            has_ended: false,
        };
        let mut actions = Vec::new();
        scheduler.start_missing(now, &mut actions);
        (scheduler, actions)
    }

    /// Applies events that arrived together, then decides once for all of them. The actions must be
    /// carried out in the order returned.
    pub(crate) fn handle(
        &mut self,
        events: impl IntoIterator<Item = Event<J>>,
        now: Instant,
    ) -> Vec<Action<J>> {
        let mut actions = Vec::new();
        for event in events {
            self.is_stable &= event.is_about_tasks();
            self.apply(event, now, &mut actions);
        }
        if self.age_check.is_some_and(|at| at <= now) {
            self.note_ages(now);
        }
        // The steps of each event must not visit all workers: most events concern one task.
        if !self.is_stable {
            self.start_missing(now, &mut actions);
        }
        self.dispatch(now, &mut actions);
        if self.stuck_check.is_some_and(|at| at <= now) {
            self.recall_stuck_calls(now, &mut actions);
        }
        if self.may_need_recycling {
            self.recycle_workers(now, &mut actions);
        }
        // For workers that are leaving now, and for the rest of a chunk that was split.
        while !self.is_stable && self.has_spares() && self.start_missing(now, &mut actions) {
            self.dispatch(now, &mut actions);
        }
        self.dismiss_idle(now, &mut actions);
        self.end_if_done(now, &mut actions);
        if !self.is_stable {
            self.is_stable = self.workers.iter().all(WorkerState::is_stable);
            self.age_check = self.next_age_check();
        }
        actions
    }

    /// When to send the next [`Event::Tick`], if no other event comes before.
    pub(crate) fn wake_at(&self) -> Option<Instant> {
        let mut earliest = self.queue.due_at();
        let mut at = |time: Option<Instant>| {
            earliest = match (earliest, time) {
                (Some(one), Some(other)) => Some(one.min(other)),
                (one, other) => one.or(other),
            };
        };
        at(self.stuck_check);
        at(self.age_check);
        let may_shrink = self.may_shrink();
        if self.is_stable && self.timed == 0 && !may_shrink {
            return earliest;
        }
        for worker in self.workers.iter() {
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = worker.successor {
                at(Some(until));
            }
            match worker.stage {
                Stage::Vacant { until } => at(until),
                Stage::Starting { until } | Stage::Leaving { until } => at(Some(until)),
                Stage::Ready => {
                    if self.timed > 0 {
                        at(worker.first_deadline());
                    }
                    if may_shrink && worker.calls.is_empty() {
                        let timeout = self.settings.idle_timeout;
                        at(timeout.map(|timeout| later(worker.idle_since, timeout)));
                    }
                }
                Stage::Standby | Stage::Killed { .. } | Stage::Closed => {}
            }
        }
        earliest
    }

    /// The call of a task, if it is the only call of its worker.
    pub(crate) fn only_call(&self, task: TaskId) -> Option<(WorkerId, u64)> {
        let id = ChunkId::whole(task);
        let ChunkState::InFlight(worker_index) = self.chunks.get(&id)?.state else { return None };
        let worker = &self.workers[worker_index];
        let call = worker.calls.front().filter(|call| worker.calls.len() == 1 && call.id == id)?;
        Some((worker.worker_id(), call.seq))
    }

    /// The workers that run tasks with these ids.
    #[cfg(feature = "remote")]
    pub(crate) fn workers_of(&self, ids: &std::ops::Range<TaskId>) -> Vec<WorkerId> {
        let runs = |worker: &&WorkerState| worker.running().any(|call| ids.contains(&call.id.task));
        self.workers.iter().filter(runs).map(WorkerState::worker_id).collect()
    }

    /// The number of tasks that wait for a worker or for their next attempt.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting_tasks
    }

    /// The number of tasks that have not begun, and of tasks that run. Cancelled tasks are not
    /// counted, even while a worker still runs them.
    pub(crate) fn not_begun_and_running(&self) -> (usize, usize) {
        let running = self.workers.iter().flat_map(WorkerState::running);
        let running = running.filter(|call| self.chunks.contains_key(&call.id)).count();
        let all: usize = self.chunks.values().map(|chunk| chunk.count as usize).sum();
        (all - running, running)
    }

    fn apply(&mut self, event: Event<J>, now: Instant, actions: &mut Vec<Action<J>>) {
        match event {
            Event::Submitted { id, job, count, bytes, options } => {
                self.submitted(id, job, count, bytes, options, actions);
            }
            Event::Cancelled { id } => self.cancelled(id, now, actions),
            Event::Abandoned { id } => self.abandoned(id, actions),
            Event::WorkerReady { worker_id } => self.ready(worker_id, now),
            Event::Narrowed { worker_id, slots } => {
                self.workers[worker_id.worker_index].narrow(worker_id, slots);
            }
            Event::Replied { worker_id, seq, ran_for, has_failed, is_over_memory_limit } => {
                if let Some(id) =
                    self.note_answers(worker_id, seq, 1, ran_for, is_over_memory_limit, now)
                {
                    let id = self.split_off_first(id, 1);
                    self.answered(id, has_failed, now, actions);
                }
            }
            Event::Progressed { worker_id, seq, count, ran_for, is_over_memory_limit } => {
                if let Some(id) =
                    self.note_answers(worker_id, seq, count, ran_for, is_over_memory_limit, now)
                {
                    self.advance(id, count);
                }
            }
            Event::Unfit { worker_id, seq, reason } => self.unfit(worker_id, seq, reason, actions),
            Event::Returned { worker_id, calls } => {
                self.returned(worker_id, &calls, now, actions);
            }
            Event::StartFailed { worker_id, cause, next_start } => {
                self.start_failed(worker_id, cause, next_start, now, actions);
            }
            Event::WorkerExited { worker_id, exit, begun } => {
                self.exited(worker_id, exit, &begun, now, actions);
            }
            Event::NotEnded { worker_id, seq, claimed } => {
                self.not_ended(worker_id, seq, claimed, now, actions);
            }
            Event::Tick => self.tick(now, actions),
            Event::ShutDown(how) => self.shut_down(how, now, actions),
        }
    }

    /// Whether tasks that have not begun may still begin.
    fn may_begin_tasks(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::ShuttingDown(Shutdown::Wait))
    }
}
