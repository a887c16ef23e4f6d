//! Starts of processes, and spares: processes that are started and initialised in advance, and are
//! promoted at once when an active worker ends.
//!
//! A pool of `n` workers and `m` spares has `n + m` worker indices. At any time `n` of them are
//! active; only these get calls. The others are spares. Each index has one process at most, so there
//! are never more than `n + m`.
//!
//! ```text
//!   index 0  active   runs a call ── dies          spare    starts ─────── stands by
//!   index 1  active   runs calls ───────────────────────────────────────────────────
//!   index 2  spare    stands by ───── is promoted: active   runs calls ────────────
//! ```
//!
//! A promotion exchanges the roles of two indices: no process changes its index. The index of the worker
//! that ended becomes the spare, and its next process is started in advance. A spare is promoted over an
//! active index that has no process, or one that is starting, leaving, or killed without a call; of
//! these, those without a process and those that are leaving only if another worker is wanted.
//!
//! Spares start when no active worker is about to: these are needed first. A process of a spare that
//! ends is replaced like any other. After a shutdown no spare is started.

use std::time::Instant;

use super::messages::{Action, WorkerIndex};
use super::worker::{Stage, WorkerState, later};
use super::{Phase, Scheduler};

impl<J: Clone> Scheduler<J> {
    /// Starts workers, or promotes spares: up to `min_workers`, and more while there are more
    /// pending chunks than free slots. Then starts the spares. Returns whether a spare was promoted.
    pub(super) fn start_missing(&mut self, now: Instant, actions: &mut Vec<Action<J>>) -> bool {
        let min_workers = match self.phase {
            Phase::Open => self.settings.min_workers,
            Phase::ShuttingDown(_) => 0,
            Phase::Broken(_) => return false,
        };
        let has_spares = self.has_spares();
        let is_vacant = |worker: &WorkerState| matches!(worker.stage, Stage::Vacant { .. });
        if !(has_spares || self.workers.iter().any(is_vacant)) {
            return false;
        }
        // A spare may be promoted over a worker that is leaving; without spares its index is occupied.
        let counts = |worker: &&WorkerState| {
            let is_leaving = matches!(worker.stage, Stage::Leaving { .. });
            worker.is_active && worker.has_process() && !(has_spares && is_leaving)
        };
        let mut processes = self.workers.iter().filter(counts).count();
        let max_tasks = self.settings.max_tasks;
        let free_soon = |worker: &WorkerState| match worker.stage {
            Stage::Starting { .. } if worker.is_active => worker.slots,
            _ if worker.is_due_for_recycling(max_tasks) => 0,
            _ => worker.free_slots(),
        };
        let mut free_slots = self.workers.iter().map(free_soon).fold(0, usize::saturating_add);
        let mut has_promoted = false;
        for index in 0..self.workers.len() {
            let worker = &self.workers[index];
            let is_wanted = processes < min_workers || self.pending > free_slots;
            let may_be_replaced = match worker.stage {
                Stage::Starting { .. } => true,
                Stage::Killed { .. } => worker.calls.is_empty(),
                Stage::Vacant { .. } | Stage::Leaving { .. } => is_wanted,
                Stage::Standby | Stage::Ready | Stage::Closed => false,
            };
            if !(worker.is_active && may_be_replaced) {
                continue;
            }
            let (counted, free_before) = (counts(&worker), free_soon(worker));
            let is_startable = worker.stage == Stage::Vacant { until: None };
            let new = match self.standby() {
                Some(spare) => {
                    has_promoted = true;
                    self.workers.promote(spare, index, now);
                    let worker_id = self.workers[spare].worker_id();
                    actions.push(Action::Promote { worker_id, replaces: index });
                    spare
                }
                None if is_wanted && is_startable => {
                    self.start(index, now, actions);
                    index
                }
                None => continue,
            };
            processes += usize::from(!counted);
            let free_now = free_slots.saturating_add(self.workers[new].slots);
            free_slots = free_now.saturating_sub(free_before);
        }
        if self.phase == Phase::Open {
            self.start_spares(now, actions);
        }
        has_promoted
    }

    pub(super) fn has_spares(&self) -> bool {
        self.settings.spares > 0
    }

    /// The first spare that stands by.
    fn standby(&self) -> Option<WorkerIndex> {
        if !self.has_spares() {
            return None;
        }
        self.workers.iter().position(|worker| worker.stage == Stage::Standby)
    }

    /// The number of spares that stand by.
    pub(crate) fn spares(&self) -> usize {
        if !self.has_spares() {
            return 0;
        }
        self.workers.iter().filter(|worker| worker.stage == Stage::Standby).count()
    }

    /// Starts the processes of spares, unless an active worker is about to start.
    fn start_spares(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let is_about_to_start = |worker: &WorkerState| {
            worker.is_active
                && matches!(worker.stage, Stage::Starting { .. } | Stage::Vacant { until: Some(_) })
        };
        if !self.has_spares() || self.workers.iter().any(is_about_to_start) {
            return;
        }
        for index in 0..self.workers.len() {
            let worker = &self.workers[index];
            if !worker.is_active && worker.stage == (Stage::Vacant { until: None }) {
                self.start(index, now, actions);
            }
        }
    }

    fn start(&mut self, index: WorkerIndex, now: Instant, actions: &mut Vec<Action<J>>) {
        let until = later(now, self.settings.start_timeout);
        let worker_id = self.workers[index].start(until);
        actions.push(Action::Spawn { worker_id });
    }
}
