//! What the futures of a pool ask of it: to cancel a task, to take short tasks in chunks, and to let
//! a thread that waits for a result receive the reply itself.
//!
//! **Waiting callers receive.** If a task is the only one in its worker, the thread that waits for
//! the result reads the reply from the ring, and the handler thread is not woken. That saves one
//! wake-up, which is most of the round-trip time of a short task.

use std::sync::Arc;

use super::inner::PoolInner;
use super::receive;
use super::worker_handle::KillReason;
use crate::executor::Job;
use crate::executor::chunk::{ChunkExecutor, EncodedChunk};
use crate::future::{TaskControl, Waiter, Wake};
use crate::panics;
use crate::scheduler::Event;
use crate::task::TaskId;
use crate::task_options::TaskOptions;

impl TaskControl for PoolInner {
    fn cancel(&self, id: TaskId) -> bool {
        !self.origin.is_forked() && self.decide(Event::Cancelled { id }, None) > 0
    }

    fn help_wait(&self, id: TaskId, waiter: &dyn Waiter) {
        if self.origin.is_forked() {
            return;
        }
        let state = self.lock_state();
        let Some((worker_id, seq)) = state.scheduler.only_call(id) else { return };
        let Some(handle) = state.handles.get(&worker_id).map(Arc::clone) else { return };
        drop(state);
        waiter.wake_by(Some(Arc::clone(&handle) as Arc<dyn Wake>));
        let is_done = || waiter.is_done();
        handle.help_wait(seq, &is_done, || {
            // Panics of the channel library must not reach the caller.
            let _delivering = self.begin_delivering(Some(handle.worker()));
            let received = panics::catch(|| receive::until_done(self, &handle, is_done));
            match received {
                Ok(Ok(has_received)) => has_received,
                _ => {
                    handle.kill(KillReason::Unusable);
                    false
                }
            }
        });
        waiter.wake_by(None);
    }

    fn chunks(&self) -> Option<&dyn ChunkExecutor> {
        Some(self)
    }
}

#[cfg(feature = "remote")]
impl PoolInner {
    /// Cancels tasks with consecutive ids, and kills the workers that run them, whatever grace period they have.
    pub(crate) fn kill_tasks(&self, first: TaskId, tasks: u64) {
        let end = first.number().saturating_add(tasks);
        // They are not tried again.
        for id in (first.number()..end).rev() {
            TaskControl::cancel(self, TaskId::of_number(id));
        }
        if self.origin.is_forked() {
            return;
        }
        // Under the lock, so that these workers have no other tasks yet.
        let state = self.lock_state();
        for worker_id in state.scheduler.workers_of(&(first..TaskId::of_number(end))) {
            if let Some(handle) = state.handles.get(&worker_id) {
                handle.kill(KillReason::Late);
            }
        }
    }
}

impl ChunkExecutor for PoolInner {
    fn chunk_size(&self) -> usize {
        PoolInner::chunk_size(self)
    }

    fn chunks_ahead(&self) -> usize {
        // One that runs in each slot; per worker one behind these, and two more while their results are consumed.
        let slots = &self.setup.scheduling.slots;
        slots.iter().sum::<usize>() + 3 * slots.len()
    }

    fn enqueue_chunk(&self, chunk: EncodedChunk, options: TaskOptions) {
        self.submit_chunk(chunk, options.resolve(self.setup.options));
    }

    fn enqueue_with(&self, job: Job, options: TaskOptions) {
        self.reserve(1);
        self.submit(job, options.resolve(self.setup.options));
    }
}
