//! [`TaskFeed`]: passes the tasks of a map to its executor, one by one or in chunks. It stays so far ahead of
//! the consumer of the results that the workers have tasks.

use std::panic::resume_unwind;
use std::sync::Arc;

use super::chunk::{self, ChunkEnd, LocalChunkExecutor, Results};
use super::{Engine, Job};
use crate::error::TaskError;
use crate::future::{Future, TaskControl};
use crate::task::Task;
use crate::task_options::TaskOptions;

/// The tasks of a map that were not handed over.
pub(super) struct TaskFeed<'e, E: ?Sized, I> {
    pub(super) executor: &'e E,
    /// The executor's interface for chunks is found by this.
    control: Option<Arc<dyn TaskControl>>,
    /// `None`: the iterator has ended.
    tasks: Option<I>,
    options: TaskOptions,
    /// The tasks have blobs, so they cannot be in chunks.
    have_blobs: bool,
}

/// Tasks that were handed over and whose results were not consumed.
pub(super) enum Ahead<O> {
    One(Future<O>),
    Chunk(Results<O>),
    /// A task that could not be encoded.
    Failed(TaskError),
}

impl<O> Ahead<O> {
    /// Number of tasks.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::One(_) | Self::Failed(_) => 1,
            Self::Chunk(results) => results.len(),
        }
    }

    /// Cancels the tasks that have not begun. Those that run are left alone: cancelling them would kill
    /// their worker processes.
    pub(super) fn abandon(&self, executor: &(impl Engine + ?Sized)) {
        match self {
            Self::One(future) => executor.abandon(future.id()),
            Self::Chunk(results) => executor.abandon(results.id()),
            Self::Failed(_) => {}
        }
    }
}

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> TaskFeed<'e, E, I> {
    pub(super) fn new(executor: &'e E, options: TaskOptions, tasks: I) -> Self {
        Self {
            executor,
            control: executor.canceller().and_then(|canceller| canceller.control().upgrade()),
            tasks: Some(tasks),
            options,
            have_blobs: false,
        }
    }

    /// Hands the next task or chunk over and passes it to `put`, if fewer than the executor asks for are
    /// ahead. Returns false if there is nothing to hand over now.
    ///
    /// The iterator is not called again after its end: only a fused iterator returns `None` again.
    pub(super) fn hand_over(
        &mut self,
        ahead: usize,
        mut put: impl FnMut(Ahead<<I::Item as Task>::Output>),
    ) -> bool {
        let Some(tasks) = &mut self.tasks else { return false };
        let local = self.control.as_deref().and_then(|control| control.local_chunks());
        if let Some(executor) = local
            && let size @ 2.. = executor.chunk_size()
        {
            if ahead >= executor.chunks_ahead() {
                return false;
            }
            if !Self::hand_over_local(tasks, executor, size, put) {
                self.tasks = None;
            }
            return self.tasks.is_some();
        }
        let chunks = self.control.as_deref().and_then(|control| control.chunks());
        let chunk = chunks.filter(|_| !self.have_blobs).map(|chunks| (chunks, chunks.chunk_size()));
        let chunk = chunk.filter(|(_, size)| *size > 1);
        let max = match chunk {
            Some((chunks, _)) => chunks.chunks_ahead(),
            None => self.executor.ahead().max(1),
        };
        if ahead >= max {
            return false;
        }
        let Some((chunks, size)) = chunk else {
            match tasks.next() {
                Some(task) => put(Ahead::One(self.submit(task))),
                None => self.tasks = None,
            }
            return self.tasks.is_some();
        };
        let (chunk, end) = chunk::encode(tasks, size);
        if let Some((chunk, results)) = chunk {
            chunks.enqueue_chunk(chunk, self.options);
            put(Ahead::Chunk(results));
        }
        match end {
            ChunkEnd::More => {}
            ChunkEnd::End => self.tasks = None,
            ChunkEnd::HasBlobs(task) => {
                self.have_blobs = true;
                put(Ahead::One(self.submit(task)));
            }
            ChunkEnd::Refused(error) => put(Ahead::Failed(error)),
            ChunkEnd::Panic(panic) => resume_unwind(panic),
        }
        self.tasks.is_some()
    }

    /// The same for a chunk of tasks that are run in this process. Returns false after the last task.
    fn hand_over_local(
        tasks: &mut I,
        executor: &dyn LocalChunkExecutor,
        size: usize,
        mut put: impl FnMut(Ahead<<I::Item as Task>::Output>),
    ) -> bool {
        let (chunk, end) = chunk::collect(tasks, size);
        if let Some((chunk, results)) = chunk {
            executor.enqueue_local(chunk);
            put(Ahead::Chunk(results));
        }
        match end {
            ChunkEnd::Panic(panic) => resume_unwind(panic),
            ChunkEnd::End => false,
            _ => true,
        }
    }

    fn submit(&self, task: I::Item) -> Future<<I::Item as Task>::Output> {
        let (job, future) = Job::new(task, self.executor.canceller());
        let pool = self.control.as_deref().and_then(|control| control.chunks());
        match pool.filter(|_| self.options != TaskOptions::new()) {
            Some(pool) => pool.enqueue_with(job, self.options),
            None => self.executor.enqueue(job),
        }
        future
    }

    /// The size hint of the tasks, and `more`.
    pub(super) fn size_hint(&self, more: usize) -> (usize, Option<usize>) {
        let (least, most) = self.tasks.as_ref().map_or((0, Some(0)), Iterator::size_hint);
        (least.saturating_add(more), most.and_then(|most| most.checked_add(more)))
    }
}
