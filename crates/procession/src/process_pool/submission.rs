//! Tasks on their way into the scheduler: room for pending tasks, encoding, and the size of chunks.

use std::sync::{Arc, PoisonError};

use super::inner::PoolInner;
use super::state::PoolState;
use super::traces::SubmitterSpan;
use super::work_item::{self, WorkItem};
use crate::error::{PoolError, TaskError};
use crate::executor::callbacks;
use crate::executor::chunk::EncodedChunk;
#[cfg(feature = "remote")]
use crate::executor::job::EncodedJob;
use crate::executor::job::Job;
use crate::scheduler::{Event, ResolvedOptions};
use crate::waiting::{self, Need, RoleGuard};

impl PoolInner {
    /// Number of tasks that may be pending in addition to those that are.
    pub(super) fn room(&self, state: &PoolState) -> usize {
        let pending = || state.scheduler.waiting() + state.reserved;
        self.setup.max_pending.map_or(usize::MAX, |max| max.saturating_sub(pending()))
    }

    /// Whether one more task may be pending.
    pub(super) fn has_room(&self, state: &PoolState) -> bool {
        state.waiting_chunks == 0 && self.room(state) > 0
    }

    /// Reserves room for one task, if there is any.
    pub(super) fn try_reserve(&self, state: &mut PoolState) -> bool {
        let has_room = self.has_room(state);
        state.reserved += usize::from(has_room && self.setup.max_pending.is_some());
        has_room
    }

    /// Waits for room for one task and reserves it.
    pub(super) fn reserve(&self) {
        self.reserve_when(1, |state| self.has_room(state));
    }

    /// The same for a chunk of `tasks`, which are at most [`Builder::max_pending`](super::Builder).
    fn reserve_chunk(&self, tasks: usize) {
        if self.setup.max_pending.is_none() {
            return;
        }
        self.lock_state().waiting_chunks += 1;
        self.reserve_when(tasks, |state| self.room(state) >= tasks);
        self.lock_state().waiting_chunks -= 1;
        self.room_was_made();
    }

    /// In a callback of the pool it does not wait: the thread of the callback may be needed to make room.
    fn reserve_when(&self, tasks: usize, has_room: impl Fn(&PoolState) -> bool) {
        if self.setup.max_pending.is_none() || self.origin.is_forked() {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut state = self.lock_state();
        while !has_room(&state) && !callbacks::is_within(self) && self.collapsed.get().is_none() {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.reserved += tasks;
    }

    /// Encodes a job for which room was reserved, and passes it to the scheduler.
    pub(super) fn submit(&self, job: Job, options: ResolvedOptions) {
        if self.origin.is_forked() {
            return job.fail(TaskError::PoolBroken(PoolError::Forked));
        }
        // `Serialize` is the program's code and may submit tasks. In this role it does not wait for
        // room, which it might never get: one place is reserved for this job.
        let role =
            self.setup.max_pending.map(|_| RoleGuard::serves(callbacks::address(self), None));
        let encoded = job.encode();
        drop(role);
        let encoded = encoded.and_then(|encoded| match work_item::refusal(&encoded) {
            None => Some(encoded),
            Some(error) => {
                encoded.promise.fail(error);
                None
            }
        });
        match encoded {
            Some(encoded) => {
                let submitter = SubmitterSpan::here(self.listeners.traces());
                self.schedule(self.item_pool.work_item(encoded, submitter), options);
            }
            None if self.setup.max_pending.is_some() => {
                self.lock_state().reserved -= 1;
                self.room_was_made();
            }
            None => {}
        }
    }

    /// Passes a task that was encoded before to the scheduler. Room was reserved.
    #[cfg(feature = "remote")]
    pub(super) fn submit_encoded(&self, encoded: EncodedJob, options: ResolvedOptions) {
        let refusal = match self.origin.is_forked() {
            true => Some(TaskError::PoolBroken(PoolError::Forked)),
            false => work_item::refusal(&encoded),
        };
        match refusal {
            None => self.schedule(self.item_pool.work_item(encoded), options),
            Some(error) => {
                encoded.promise.fail(error);
                if self.setup.max_pending.is_some() && !self.origin.is_forked() {
                    self.lock_state().reserved -= 1;
                    self.room_was_made();
                }
            }
        }
    }

    /// Passes a chunk to the scheduler.
    pub(super) fn submit_chunk(&self, chunk: EncodedChunk, options: ResolvedOptions) {
        let submitter = SubmitterSpan::here(self.listeners.traces());
        let work_item = Arc::new(WorkItem::from_chunk(chunk, submitter));
        self.reserve_chunk(work_item.items() as usize);
        if self.origin.is_forked() {
            work_item.fail(0..work_item.items(), TaskError::PoolBroken(PoolError::Forked));
            return;
        }
        self.schedule(work_item, options);
    }

    fn schedule(&self, job: Arc<WorkItem>, options: ResolvedOptions) {
        let (id, count, bytes) = (job.id, job.items(), job.bytes());
        self.handle(Event::Submitted { id, job, count, bytes, options });
    }

    /// Number of tasks of a `map` that are sent in one chunk. One, if each task shares its worker with
    /// others: those of a chunk run one after the other. At most half of the tasks that may be pending, so
    /// that one chunk waits while another is sent.
    pub(super) fn chunk_size(&self) -> usize {
        let may_chunk = self.setup.scheduling.slots.iter().all(|slots| *slots == 1);
        if !may_chunk || self.origin.is_forked() {
            return 1;
        }
        let max = self.setup.max_pending.map_or(usize::MAX, |max| max / 2);
        (self.lock_state().scheduler.chunk_size() as usize).clamp(1, max.max(1))
    }
}
