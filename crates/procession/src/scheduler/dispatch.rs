//! Sends pending chunks to workers, and recalls calls that wait behind a long one.
//!
//! **Calls ahead.** A worker may be sent more calls than it has slots, so that it need not wait for
//! the coordinator between two of them. For short tasks that wait is most of the time; for long
//! tasks it is nothing, and a call behind a long one waits while other workers may be idle. So the
//! number of calls ahead follows from the run times so far, and calls behind a long one, or the rest of its
//! chunk, are recalled when a slot is free, of the same worker or of another.

use std::time::{Duration, Instant};

use super::Scheduler;
use super::chunks::{Chunk, ChunkId, ChunkState};
use super::messages::{Action, WorkerIndex};
use super::worker::{Stage, WorkerState};

/// The calls of a worker never exceed this many encoded bytes (except a single call), nor its
/// slots plus [`MAX_CALLS_AHEAD`]. Both are well below what fills the memory that is shared with a
/// worker.
const MAX_BYTES: usize = 64 * 1024;
pub(crate) const MAX_CALLS_AHEAD: usize = 256;
/// The most tasks in one call.
const MAX_CHUNK: u32 = 1024;
/// The run time of the tasks that are sent ahead, about.
const WORK_AHEAD: Duration = Duration::from_millis(1);
/// The time that it takes to wake a worker, about.
const WAKE_UP: Duration = Duration::from_micros(50);
/// The most calls that a worker has before the next worker is woken.
const MAX_CALLS_PACKED: usize = 32;
/// Tasks that run longer than this are not sent ahead.
const LONG: Duration = Duration::from_millis(5);
/// Tasks are recalled from behind one that has run for this long, if a slot is free.
pub(super) const STUCK_AFTER: Duration = Duration::from_millis(5);

impl<J: Clone> Scheduler<J> {
    /// The moving mean of the run times of tasks. `None`: none has ended yet.
    #[cfg(feature = "remote")]
    pub(crate) fn typical_run_time(&self) -> Option<Duration> {
        self.typical_run_time
    }

    /// The number of tasks to put into one call: about [`WORK_AHEAD`] of work, by the run times so
    /// far.
    pub(crate) fn chunk_size(&self) -> u32 {
        match self.typical_run_time {
            Some(run_time) if run_time <= LONG => {
                let count = WORK_AHEAD.as_nanos() / run_time.as_nanos().max(1);
                u32::try_from(count).unwrap_or(u32::MAX).clamp(1, MAX_CHUNK)
            }
            _ => 1,
        }
    }

    /// Sends pending chunks as long as a worker has room for the first of them.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.pending == 0 {
            return;
        }
        let (ahead, packed) = (self.calls_ahead(), self.calls_packed());
        let chunk_size = self.chunk_size();
        while self.pending > 0 {
            let id = self.queue.front().expect("a pending chunk is in the queue");
            let is_pending = |chunk: &&Chunk<J>| chunk.state == ChunkState::Pending;
            let Some(chunk) = self.chunks.get(&id).filter(is_pending) else {
                self.queue.pop();
                continue;
            };
            let count = chunk.count.min(chunk_size);
            // Of calls with several tasks one ahead is enough.
            let ahead = if count > 1 { ahead.min(1) } else { ahead };
            let bytes = share(chunk.bytes, count, chunk.count);
            let Some(worker_index) = self.choose_worker(ahead, packed, bytes, now) else { return };
            self.send(id, count, worker_index, now, actions);
        }
    }

    /// Prefers a worker that is awake and soon free to one that would have to be woken; else takes
    /// the one with the lowest load.
    fn choose_worker(
        &mut self,
        ahead: usize,
        packed: usize,
        bytes: usize,
        now: Instant,
    ) -> Option<WorkerIndex> {
        let max_tasks = self.settings.max_tasks;
        let long_since = now.checked_sub(STUCK_AFTER);
        let has_room = |worker: &WorkerState| {
            let is_free = worker.calls.len() < worker.slots;
            let has_room_ahead = || {
                !worker.has_more_threads_than_slots()
                    && worker.calls.len() < worker.slots.saturating_add(ahead)
                    && worker.bytes.saturating_add(bytes) <= MAX_BYTES
                    // Not behind a call that takes long.
                    && worker.calls.front().and_then(|call| call.could_run_since) > long_since
            };
            worker.stage == Stage::Ready
                && worker.ending.is_none()
                && !worker.is_due_for_recycling(max_tasks)
                && (is_free || has_room_ahead())
        };
        let busy = if packed > 1 { self.workers.first_busy(packed, has_room) } else { None };
        busy.or_else(|| self.workers.least_loaded(ahead, has_room))
    }

    fn send(
        &mut self,
        id: ChunkId,
        count: u32,
        worker_index: WorkerIndex,
        now: Instant,
        actions: &mut Vec<Action<J>>,
    ) {
        let max_tasks = self.settings.max_tasks;
        let tasks_given = self.workers[worker_index].tasks_given;
        let tasks_left = max_tasks.map(|max| max.saturating_sub(tasks_given));
        let count =
            tasks_left.map_or(count, |left| count.min(u32::try_from(left).unwrap_or(count)));
        let sent = self.split_off_first(id, count);
        if sent == id {
            self.queue.pop();
        }
        self.pending -= 1;
        let chunk = self.chunks.get_mut(&sent).expect("a chunk that was just split off");
        chunk.state = ChunkState::InFlight(worker_index);
        self.waiting_tasks -= chunk.count as usize;
        let (first, attempt, job) = (chunk.first, chunk.attempts + 1, chunk.job.clone());
        let is_suspect = chunk.suspicion > 0;
        let worker = &mut self.workers[worker_index];
        let (stop_after, allowed) = chunk.options.soft_and_hard_timeout();
        let seq = worker.give(sent, count, chunk.bytes, allowed, now);
        if let Some(call) = worker.calls.back_mut() {
            call.is_suspect = is_suspect;
        }
        if count > 1 || worker.calls.len() > worker.slots {
            self.stuck_check.get_or_insert(now + STUCK_AFTER);
        }
        self.may_need_recycling |= worker.is_due_for_recycling(max_tasks);
        let worker_id = worker.worker_id();
        actions.push(Action::Send { worker_id, seq, attempt, stop_after, job, first, count });
    }

    /// The number of calls that a worker gets beyond its slots.
    fn calls_ahead(&self) -> usize {
        match self.typical_run_time {
            Some(run_time) if run_time <= LONG => {
                let ahead = WORK_AHEAD.as_nanos().div_ceil(run_time.as_nanos().max(1));
                usize::try_from(ahead).unwrap_or(MAX_CALLS_AHEAD).min(MAX_CALLS_AHEAD)
            }
            _ => 0,
        }
    }

    /// The number of calls that a worker gets before the next worker is woken: as many as run for
    /// about [`WAKE_UP`].
    fn calls_packed(&self) -> usize {
        let Some(run_time) = self.typical_run_time else { return 1 };
        let packed = WAKE_UP.as_nanos() / run_time.as_nanos().max(1);
        usize::try_from(packed).unwrap_or(MAX_CALLS_PACKED).min(MAX_CALLS_PACKED)
    }

    /// Recalls tasks from behind long ones, if a worker has a free slot.
    pub(super) fn recall_stuck_calls(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let has_free_slot = self.workers.iter().any(|worker| worker.free_slots() > 0);
        if self.pending == 0 && has_free_slot {
            for worker_index in 0..self.workers.len() {
                if stuck_from(&self.workers[worker_index]).is_some_and(|from| from <= now) {
                    self.recall(worker_index, actions);
                }
            }
        }
        let next = self.workers.iter().filter_map(stuck_from).min();
        self.stuck_check = next.map(|next| next.max(now + STUCK_AFTER));
    }

    /// Recalls the calls behind those that run.
    pub(super) fn recall(&mut self, worker_index: WorkerIndex, actions: &mut Vec<Action<J>>) {
        let worker = &mut self.workers[worker_index];
        if let Some((from, through)) = worker.recall() {
            actions.push(Action::Recall { worker_id: worker.worker_id(), from, through });
        }
    }
}

/// The bytes of `some` of `all` tasks, if all have the same length.
pub(super) fn share(bytes: usize, some: u32, all: u32) -> usize {
    if some == all {
        return bytes;
    }
    let share = bytes as u128 * u128::from(some) / u128::from(all.max(1));
    usize::try_from(share).unwrap_or(bytes)
}

/// The time from which on the calls ahead at this worker count as stuck.
fn stuck_from(worker: &WorkerState) -> Option<Instant> {
    // Not `since`, which a postponed end moves into the future.
    let since = worker.running().filter_map(|call| call.could_run_since).min()?;
    worker.has_calls_ahead().then_some(since + STUCK_AFTER)
}
