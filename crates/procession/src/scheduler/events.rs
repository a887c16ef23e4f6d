//! What events do to tasks and workers: replies, cancellations, time, and shutdown. Deadlines are in
//! `deadlines.rs`. Starts and exits of workers are in `lifecycle.rs` and `blame.rs`.

use std::time::{Duration, Instant};

use super::chunks::{Chunk, ChunkId, ChunkState};
use super::dispatch::STUCK_AFTER;
use super::lifecycle::kill_successor;
use super::messages::{Action, Begun, Verdict, WorkerId, WorkerIndex};
use super::worker::{EndReason, Stage, Successor, later};
use super::{Phase, Scheduler};
use crate::executor::Shutdown;
use crate::retries::Fault;
use crate::task::TaskId;

/// Run times that workers report are cut to this.
const MAX_RUN_TIME: Duration = Duration::from_secs(24 * 3600);

impl<J: Clone> Scheduler<J> {
    /// Notes that the next `count` tasks of a call were answered, each after `ran_for`. `None` if
    /// the worker does not have the call.
    pub(super) fn note_answers(
        &mut self,
        worker_id: WorkerId,
        seq: u64,
        count: u32,
        ran_for: Duration,
        is_over_memory_limit: bool,
        now: Instant,
    ) -> Option<ChunkId> {
        let worker = &mut self.workers[worker_id.worker_index];
        if !worker.is_current(worker_id) {
            return None;
        }
        let id = worker.answered(seq, count, now)?;
        worker.is_over_memory_limit |= is_over_memory_limit;
        self.may_need_recycling |= is_over_memory_limit;
        self.note_run_time(ran_for);
        Some(id)
    }

    fn note_run_time(&mut self, ran_for: Duration) {
        let ran_for = ran_for.min(MAX_RUN_TIME);
        self.early_failures = 0;
        self.typical_run_time = Some(match self.typical_run_time {
            None => ran_for,
            Some(typical) => (typical * 7 + ran_for) / 8,
        });
    }

    /// A reply to one task came: an output, or the task's own error or panic if it `has_failed`.
    pub(super) fn answered(
        &mut self,
        id: ChunkId,
        has_failed: bool,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        chunk.attempts += 1;
        if !(has_failed && self.retry(id, Fault::Failure, None, now, actions)) {
            self.complete(id, Verdict::Answered, actions);
        }
    }

    pub(super) fn returned(
        &mut self,
        worker_id: WorkerId,
        calls: &[Begun],
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let worker = &mut self.workers[worker_id.worker_index];
        if !worker.is_current(worker_id) {
            return;
        }
        let returned = calls.iter().filter_map(|call| worker.take_returned(call, now));
        let returned: Vec<_> = returned.collect();
        let mut not_begun = Vec::new();
        for (id, staying) in returned {
            not_begun.extend(self.split_off_rest(id, staying));
        }
        self.take_back(not_begun, actions);
    }

    pub(super) fn cancelled(&mut self, task: TaskId, now: Instant, actions: &mut Vec<Action<J>>) {
        let id = ChunkId::whole(task);
        let Some(chunk) = self.chunks.get(&id) else { return };
        let grace = chunk.options.grace;
        if let ChunkState::InFlight(worker_index) = chunk.state {
            let worker = &mut self.workers[worker_index];
            let index = worker.calls.iter().position(|call| call.id == id);
            let Some(index) = index.filter(|_| worker.stage == Stage::Ready) else { return };
            let has_timeout = worker.calls[index].timeout.is_some();
            if index < worker.slots && worker.slots > 1 {
                // Other tasks run in the same process.
                return self.ask_to_stop(id, worker_index, index, None, actions);
            } else if index < worker.slots && grace.is_some() {
                let stop_at = grace.map(|grace| later(now, grace));
                return self.ask_to_stop(id, worker_index, index, stop_at, actions);
            } else if index < worker.slots {
                self.end_call(worker_index, index, EndReason::Cancelled, now, actions);
            } else {
                let (worker_id, seq) = (worker.worker_id(), worker.calls[index].seq);
                actions.push(Action::Recall { worker_id, from: seq, through: seq });
                // If the recall comes too late and the call begins, it is ended after this time, or after its own
                // timeout if that is shorter.
                if worker.slots == 1 {
                    let timeout = &mut worker.calls[index].timeout;
                    *timeout = Some(timeout.map_or(STUCK_AFTER, |own| own.min(STUCK_AFTER)));
                    self.timed += usize::from(!has_timeout); // Never subtracted: see below.
                }
            }
            // The call outlives its chunk, and its deadline is still checked. So `timed` must not
            // fall when the chunk is removed. It stays too high until the pool ends, which is
            // harmless.
            self.timed += usize::from(has_timeout);
        }
        self.complete(id, Verdict::Cancelled, actions);
    }

    /// Asks a running task to stop. With `stop_at` it is ended then, if it still runs.
    fn ask_to_stop(
        &mut self,
        id: ChunkId,
        worker_index: WorkerIndex,
        index: usize,
        stop_at: Option<Instant>,
        actions: &mut Vec<Action<J>>,
    ) {
        let Some(chunk) = self.chunks.get_mut(&id) else { return };
        // It is not tried again.
        chunk.is_abandoned = true;
        let worker = &mut self.workers[worker_index];
        let (worker_id, call) = (worker.worker_id(), &mut worker.calls[index]);
        if !chunk.has_stop_deadline && stop_at.is_some() {
            chunk.has_stop_deadline = true;
            self.timed += 1;
            call.stop_at = stop_at;
        }
        let (seq, will_end) = (call.seq, stop_at.is_some());
        actions.push(Action::AskToStop { worker_id, seq, will_end });
    }

    pub(super) fn ready(&mut self, worker_id: WorkerId, now: Instant) {
        self.note_started();
        let worker = &mut self.workers[worker_id.worker_index];
        if worker.is_current(worker_id) && matches!(worker.stage, Stage::Starting { .. }) {
            worker.stage = if worker.is_active { Stage::Ready } else { Stage::Standby };
            (worker.idle_since, worker.active_since) = (now, now);
        } else if let Some(successor) = &mut worker.successor
            && successor.generation == worker_id.generation
            && matches!(successor.stage, Stage::Starting { .. })
        {
            successor.stage = Stage::Ready;
        }
    }

    pub(super) fn tick(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        while let Some(id) = self.queue.pop_due(now) {
            let is_paused = |chunk: &&mut Chunk<J>| chunk.state == ChunkState::Paused;
            if let Some(chunk) = self.chunks.get_mut(&id).filter(is_paused) {
                chunk.state = ChunkState::Pending;
                self.paused -= 1;
                self.pending += 1;
                self.queue.push_front(chunk.options.priority, id);
            }
        }
        for worker_index in 0..self.workers.len() {
            let worker = &mut self.workers[worker_index];
            if let Some(Successor { stage: Stage::Starting { until }, .. }) = worker.successor
                && until <= now
            {
                kill_successor(worker, true, now, actions);
            }
            match worker.stage {
                Stage::Vacant { until: Some(until) } if until <= now => {
                    worker.stage = Stage::Vacant { until: None };
                }
                Stage::Starting { until } | Stage::Leaving { until } if until <= now => {
                    self.kill(worker_index, EndReason::TimedOut, now, actions);
                }
                Stage::Ready => self.end_overdue(worker_index, now, actions),
                _ => {}
            }
        }
    }

    pub(super) fn shut_down(&mut self, how: Shutdown, now: Instant, actions: &mut Vec<Action<J>>) {
        match self.phase {
            Phase::Open => {}
            // A second shutdown counts only if it is stricter.
            Phase::ShuttingDown(before) if how > before => {}
            _ => return,
        }
        self.phase = Phase::ShuttingDown(how);
        match how {
            Shutdown::Wait => {}
            Shutdown::CancelPending => {
                let ids = self.ids_in_order(|_, chunk| !chunk.is_in_flight());
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
