//! [`TaskControl`]: what a future asks of its executor, for example to cancel its task.

use std::sync::{Arc, Weak};

use crate::error::TaskError;
use crate::executor::chunk::{ChunkExecutor, LocalChunkExecutor};
use crate::task::TaskId;
use crate::waiting::{self, AwaitedTask, Need, Waiting};

/// What a future asks of its executor.
pub(crate) trait TaskControl: Send + Sync {
    /// Cancels the task, if that is still possible. Returns whether it did: the future is done then,
    /// or within the grace period of the task.
    fn cancel(&self, id: TaskId) -> bool;

    /// Lets the thread that waits for the task do work of the executor. Returns when the waiter is
    /// done, or when there is nothing to do and the thread has to block.
    fn help_wait(&self, id: TaskId, waiter: &dyn Waiter) {
        let _ = (id, waiter);
    }

    /// A thread that runs tasks or callbacks is about to wait for this task: the executor must be able
    /// to run it without that thread. Returns false if it cannot.
    fn prioritize(self: Arc<Self>, id: TaskId) -> bool {
        let _ = id;
        true
    }

    /// The interface for chunks of short tasks, if the executor takes them.
    fn chunks(&self) -> Option<&dyn ChunkExecutor> {
        None
    }

    /// The same for an executor that runs tasks in this process.
    fn local_chunks(&self) -> Option<&dyn LocalChunkExecutor> {
        None
    }
}

/// A future, for [`TaskControl::help_wait`].
pub(crate) trait Waiter {
    fn is_done(&self) -> bool;
    /// Sets what is woken when the future is completed, because another thread may complete it.
    fn wake_by(&self, wake: Option<Arc<dyn Wake>>);
}

/// Wakes a thread that blocks in [`TaskControl::help_wait`].
pub(crate) trait Wake: Send + Sync {
    fn wake(&self);
}

/// Called before a wait for one task. It is compiled once, and not for each type of results.
pub(super) fn begin_to_wait(
    target: AwaitedTask<'_>,
    waiter: &dyn Waiter,
) -> Result<Waiting, TaskError> {
    let AwaitedTask { id, executor } = target;
    let waiting = waiting::begin([target], Need::All)?;
    if let Some(executor) = executor.and_then(Weak::upgrade) {
        executor.help_wait(id, waiter);
    }
    Ok(waiting)
}
