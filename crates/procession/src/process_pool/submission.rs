//! Tasks on their way into the scheduler: encoding, and the size of chunks.

use std::sync::Arc;

use super::inner::PoolInner;
use super::traces::SubmitterSpan;
use super::work_item::{self, WorkItem};
use crate::error::{PoolError, TaskError};
use crate::executor::callbacks;
use crate::executor::chunk::EncodedChunk;
#[cfg(feature = "remote")]
use crate::executor::job::EncodedJob;
use crate::executor::job::Job;
use crate::scheduler::{Event, ResolvedOptions};
use crate::waiting::RoleGuard;

impl PoolInner {
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
            None => {
                self.schedule(self.item_pool.work_item(encoded, SubmitterSpan::here(None)), options)
            }
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
        self.reserve(work_item.items() as usize);
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

    /// Number of tasks of a `map` that are sent in one chunk. At most half of the tasks that may be pending, so
    /// that one chunk waits while another is sent.
    pub(super) fn chunk_size(&self) -> usize {
        if self.origin.is_forked() {
            return 1;
        }
        let max = self.setup.max_pending.map_or(usize::MAX, |max| max / 2);
        (self.lock_state().scheduler.chunk_size() as usize).clamp(1, max.max(1))
    }
}
