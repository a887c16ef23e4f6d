//! What each kind of executor implements.

#[cfg(doc)]
use super::Executor;
use super::{Batch, Canceller, Job};
use crate::task::TaskId;

/// The heart of an executor: what each kind does in its own way. Usable as `dyn Engine`; callers
/// use the methods of [`Executor`].
pub trait Engine: Send + Sync {
    /// Takes a job over; its future tells what became of it.
    fn enqueue(&self, job: Job);

    /// How many tasks [`map`](Executor::map) hands over ahead of the consumer: enough to keep all
    /// workers busy, and bounded, so that an endless iterator is no problem.
    fn ahead(&self) -> usize;

    /// How many tasks it is good to hand over together, as far as is known by now: many if they
    /// are so short that handing them over one by one would take longer than they do.
    fn chunk_size(&self) -> usize {
        1
    }

    /// How many such chunks [`map`](Executor::map) hands over ahead of the consumer.
    fn chunks_ahead(&self) -> usize {
        1
    }

    /// Takes over many tasks at once; only asked of an executor with a [`chunk_size`](Self::chunk_size)
    /// beyond one.
    fn enqueue_batch(&self, batch: Batch) {
        drop(batch);
    }

    /// Cancels what has not begun of a task, or of a batch by the id of its first task, whose
    /// outcome is not wanted any more. What runs is left alone.
    fn abandon(&self, id: TaskId) {
        let _ = id;
    }

    /// The one to ask when a future of this executor is cancelled.
    fn canceller(&self) -> Option<Canceller>;

    /// See [`Executor::shutdown`].
    fn shut_down(&self, how: Shutdown);
}

/// What becomes of the tasks of an executor that is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// All tasks that were submitted are run.
    Wait,
    /// Tasks that no worker has begun are cancelled, the others run to their end.
    CancelPending,
    /// Tasks that run in worker processes are killed, too, and cancelled. Threads cannot be
    /// killed: there it means the same as [`CancelPending`](Self::CancelPending).
    Kill,
}
