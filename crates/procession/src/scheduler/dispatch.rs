//! Who gets what: hands pending tasks to workers, and takes back what turns out to be stuck there.
//!
//! **How many calls to send ahead.** While a worker does one call, the next may already lie
//! before it, which spares it a round trip. For short tasks that is most of the time, for long
//! ones it is nothing, while a call that lies behind a long one is stuck there. So the number
//! depends on how long tasks took so far, and calls that turn out to be stuck behind a long one
//! while another worker is idle are taken back.

use std::time::{Duration, Instant};

use super::Scheduler;
use super::lifecycle::is_due_for_recycling;
use super::messages::{Action, WorkerIndex};
use super::tasks::{Entry, Place};
use super::worker::{Stage, WorkerState};

/// Calls that lie ahead never exceed this many bytes of text, nor [`MOST_AHEAD`]: both are well
/// below what fills the memory that is shared with a worker.
const BYTES_AHEAD: usize = 64 * 1024;
pub(crate) const MOST_AHEAD: usize = 256;
/// Tasks that are sent together are never more than this.
const LARGEST_CHUNK: u32 = 1024;
/// Calls sent ahead should keep a worker busy for about this long.
const WORK_AHEAD: Duration = Duration::from_millis(1);
/// About what it takes to wake a worker.
const WAKE: Duration = Duration::from_micros(50);
const MOST_PACKED: usize = 32;
/// Tasks that take longer than this gain nothing from lying ahead.
const LONG: Duration = Duration::from_millis(5);
/// A call that lies behind one that has run for this long is recalled if a worker is idle.
pub(super) const STUCK: Duration = Duration::from_millis(5);

impl<J: Clone> Scheduler<J> {
    /// How many tasks it is good to send together: as many as keep a worker busy for about as long
    /// as it should be, by what tasks took so far.
    pub(crate) fn chunk_size(&self) -> u32 {
        match self.typical {
            Some(typical) if typical <= LONG => {
                let items = WORK_AHEAD.as_nanos() / typical.as_nanos().max(1);
                u32::try_from(items).unwrap_or(u32::MAX).clamp(1, LARGEST_CHUNK)
            }
            _ => 1,
        }
    }

    /// Hands pending tasks to the workers that have the least to do.
    pub(super) fn dispatch(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        let (ahead, chunk_size, packed) =
            (self.calls_ahead(), self.chunk_size(), self.calls_packed());
        while self.pending > 0 {
            let id = self.queue.front().expect("what is pending is queued");
            let is_pending = |task: &&Entry<J>| task.place == Place::Pending;
            let Some(task) = self.tasks.get(&id).filter(is_pending) else {
                self.queue.pop();
                continue;
            };
            let items = task.items.min(chunk_size);
            // Of what is a chunk of its own, one lies ahead.
            let ahead = if items > 1 { ahead.min(1) } else { ahead };
            let bytes = share(task.bytes, items, task.items);
            let most = self.settings.max_tasks;
            let room = |state: &&mut WorkerState| {
                let free = state.calls.len() < state.slots;
                let room_ahead = state.calls.len() < state.slots.saturating_add(ahead)
                    && state.bytes.saturating_add(bytes) <= BYTES_AHEAD
                    // Not behind a call that takes long.
                    && state.calls.front().and_then(|call| call.since) > now.checked_sub(STUCK);
                let is_sound = state.stage == Stage::Ready && state.ending.is_none();
                is_sound && !is_due_for_recycling(state, most) && (free || room_ahead)
            };
            // Rather one that is awake and soon free than one that would have to be woken; else
            // the one that has the least to do.
            let is_awake = |state: &&mut WorkerState| {
                !state.calls.is_empty() && state.calls.len() < packed && room(state)
            };
            let awake = if packed > 1 { self.workers.iter_mut().find(is_awake) } else { None };
            let load = |state: &&mut WorkerState| state.calls.len() * 1024 / state.slots;
            let Some(state) = (match awake {
                Some(awake) => Some(awake),
                None => self.workers.iter_mut().filter(room).min_by_key(load),
            }) else {
                return;
            };
            let (worker_id, left) =
                (state.worker_id(), most.map_or(u64::MAX, |most| most.saturating_sub(state.given)));
            let items = items.min(u32::try_from(left).unwrap_or(u32::MAX));
            let whole = self.cut(id, items);
            if whole == id {
                self.queue.pop();
            }
            self.pending -= 1;
            let task = self.tasks.get_mut(&whole).expect("just cut off");
            task.place = Place::InFlight(worker_id.worker_index);
            let (first, attempt, job) = (task.first, task.begun + 1, task.job.clone());
            let state = &mut self.workers[worker_id.worker_index];
            let seq = state.give(whole, items, task.bytes, task.options.timeout, now);
            if items > 1 || state.calls.len() > state.slots {
                self.stuck_check.get_or_insert(now + STUCK);
            }
            actions.push(Action::Send { worker_id, seq, attempt, job, first, items });
        }
    }

    /// How many calls a worker is given beyond those it runs.
    fn calls_ahead(&self) -> usize {
        match self.typical {
            Some(typical) if typical <= LONG => {
                let ahead = WORK_AHEAD.as_nanos().div_ceil(typical.as_nanos().max(1));
                usize::try_from(ahead).unwrap_or(MOST_AHEAD).min(MOST_AHEAD)
            }
            _ => 0,
        }
    }

    /// How many calls a worker may have until another one is woken for the next: as many as take
    /// about as long as to wake it.
    fn calls_packed(&self) -> usize {
        let Some(typical) = self.typical else { return 1 };
        let packed = WAKE.as_nanos() / typical.as_nanos().max(1);
        usize::try_from(packed).unwrap_or(MOST_PACKED).min(MOST_PACKED)
    }

    fn has_free_slot(&self) -> bool {
        self.workers.iter().any(|state| state.free_slots() > 0)
    }

    /// Takes back what lies behind a call that takes long, if somebody is free for it.
    pub(super) fn recall_stuck(&mut self, now: Instant, actions: &mut Vec<Action<J>>) {
        if self.pending == 0 && self.has_free_slot() {
            for worker_index in 0..self.workers.len() {
                if stuck_from(&self.workers[worker_index]).is_some_and(|from| from <= now) {
                    self.recall(worker_index, actions);
                }
            }
        }
        let next = self.workers.iter().filter_map(stuck_from).min();
        self.stuck_check = next.map(|next| next.max(now + STUCK));
    }

    /// Takes back what lies behind the calls that run.
    pub(super) fn recall(&mut self, worker_index: WorkerIndex, actions: &mut Vec<Action<J>>) {
        let state = &mut self.workers[worker_index];
        if let Some((from, through)) = state.recall() {
            actions.push(Action::Recall { worker_id: state.worker_id(), from, through });
        }
    }
}

/// The bytes of some of the items, if all of them have so many.
pub(super) fn share(bytes: usize, some: u32, all: u32) -> usize {
    let share = bytes as u128 * u128::from(some) / u128::from(all.max(1));
    usize::try_from(share).unwrap_or(bytes)
}

/// From when on the calls that lie ahead on this seat count as stuck.
fn stuck_from(state: &WorkerState) -> Option<Instant> {
    let since = state.calls.front()?.since?;
    state.has_tasks_ahead().then_some(since + STUCK)
}
