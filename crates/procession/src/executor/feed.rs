//! [`TaskFeed`]: passes the tasks of a map to its executor, one by one or in chunks. It stays so far ahead of
//! the consumer of the results that the workers have tasks.

use std::panic::resume_unwind;
use std::sync::Arc;

use super::chunk::{self, ChunkEnd, ChunkExecutor, LocalChunkExecutor, Results};
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
        put: &mut dyn FnMut(Ahead<<I::Item as Task>::Output>),
    ) -> bool {
        let Some(tasks) = &mut self.tasks else { return false };
        let control = self.control.as_deref();
        let most_ahead = || self.executor.ahead();
        let has_more = match step(control, self.have_blobs, ahead, &most_ahead) {
            Step::Wait => return false,
            Step::Local(executor, size) => Self::hand_over_local(tasks, executor, size, put),
            Step::One => match tasks.next() {
                Some(task) => {
                    put(Ahead::One(self.submit(task)));
                    true
                }
                None => false,
            },
            Step::Chunk(chunks, size) => {
                let (chunk, end) = chunk::encode(tasks, size);
                if let Some((chunk, results)) = chunk {
                    chunks.enqueue_chunk(chunk, self.options);
                    put(Ahead::Chunk(results));
                }
                match end {
                    ChunkEnd::More => true,
                    ChunkEnd::End => false,
                    ChunkEnd::HasBlobs(task) => {
                        self.have_blobs = true;
                        put(Ahead::One(self.submit(task)));
                        true
                    }
                    ChunkEnd::Refused(error) => {
                        put(Ahead::Failed(error));
                        true
                    }
                    ChunkEnd::Panic(panic) => resume_unwind(panic),
                }
            }
        };
        if !has_more {
            self.tasks = None;
        }
        has_more
    }

    /// The same for a chunk of tasks that are run in this process. Returns false after the last task.
    fn hand_over_local(
        tasks: &mut I,
        executor: &dyn LocalChunkExecutor,
        size: usize,
        put: &mut dyn FnMut(Ahead<<I::Item as Task>::Output>),
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
        match takes_options(self.control.as_deref(), &self.options) {
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

/// What to hand over next.
enum Step<'c> {
    /// Nothing: there is enough ahead.
    Wait,
    One,
    /// A chunk of at most this number of tasks.
    Chunk(&'c dyn ChunkExecutor, usize),
    /// The same in this process.
    Local(&'c dyn LocalChunkExecutor, usize),
}

// These two are compiled once, and not for each type of task.

/// `most_ahead`: the number of tasks that an executor without chunks wants ahead.
fn step<'c>(
    control: Option<&'c dyn TaskControl>,
    have_blobs: bool,
    ahead: usize,
    most_ahead: &dyn Fn() -> usize,
) -> Step<'c> {
    if let Some(executor) = control.and_then(TaskControl::local_chunks)
        && let size @ 2.. = executor.chunk_size()
    {
        return if ahead < executor.chunks_ahead() {
            Step::Local(executor, size)
        } else {
            Step::Wait
        };
    }
    let chunks = control.and_then(TaskControl::chunks).filter(|_| !have_blobs);
    let chunk = chunks.map(|chunks| (chunks, chunks.chunk_size())).filter(|(_, size)| *size > 1);
    let (most, step) = match chunk {
        Some((chunks, size)) => (chunks.chunks_ahead(), Step::Chunk(chunks, size)),
        None => (most_ahead().max(1), Step::One),
    };
    if ahead < most { step } else { Step::Wait }
}

/// The executor's interface for a task with options of its own, if it has such options.
fn takes_options<'c>(
    control: Option<&'c dyn TaskControl>,
    options: &TaskOptions,
) -> Option<&'c dyn ChunkExecutor> {
    let pool = control.and_then(TaskControl::chunks);
    pool.filter(|_| *options != TaskOptions::new())
}
