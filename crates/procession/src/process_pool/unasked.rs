//! [`Unasked`]: what a task sends while it runs.

use super::inner::PoolInner;
use super::worker_handle::WorkerHandle;
use super::{Output, OutputStream};
use crate::future::EncodedPartial;
use crate::progress_lines::Said;
use crate::task::TaskId;
use crate::transport::Garbled;

/// What a task sends while it runs, with the id of the task.
pub(super) enum Unasked<'r> {
    Line(u64, &'r str),
    /// `None`: its attachment could not be received.
    Partial(u64, Option<EncodedPartial>),
    Trace(u64, &'r [u8]),
}

impl Unasked<'_> {
    /// Passes it on as that of a task, if the worker has this task. The line of another task, or of one
    /// that is answered, is a line that the worker wrote: no worker speaks for a task that it does not run.
    pub(super) fn pass(self, pool: &PoolInner, handle: &WorkerHandle) -> Result<(), Garbled> {
        match self {
            Self::Trace(task, record) => return pool.listeners.traced(handle, task, record),
            Self::Partial(task, partial) => {
                if let Some((work_item, attempt)) = handle.work_item_of(task) {
                    work_item
                        .put_partial(partial.map(|partial| EncodedPartial { attempt, ..partial }));
                }
            }
            Self::Line(id, line) if handle.has_task(id) => {
                let (task, worker, pid) = (TaskId(id), handle.worker(), handle.pid());
                let said = Said { task, worker, pid, line };
                let work_item = handle.work_item_of(id);
                // The task of another host: its line is for that one.
                if !work_item.is_some_and(|(work_item, _)| work_item.put_line(&said)) {
                    pool.listeners.line(&said);
                }
            }
            Self::Line(_, line) => {
                let (worker, pid, stream) = (handle.worker(), handle.pid(), OutputStream::Stdout);
                pool.listeners.output(&Output { worker, pid, stream, line });
            }
        }
        Ok(())
    }
}
