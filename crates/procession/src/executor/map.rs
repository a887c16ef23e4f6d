//! [`Map`], the iterator of [`Executor::map`]: many tasks, their results in order.

use std::collections::VecDeque;
use std::panic::resume_unwind;
use std::sync::Arc;

use super::chunk::{self, ChunkEnd, Results};
use super::{Engine, Executor};
use crate::error::TaskError;
use crate::future::{Future, TaskControl};
use crate::task::Task;

/// The iterator of [`Executor::map`]: yields the results in the order of the tasks.
pub struct Map<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    executor: &'e E,
    /// The executor's interface for chunks is found by this.
    control: Option<Arc<dyn TaskControl>>,
    /// `None`: the iterator has ended.
    tasks: Option<I>,
    ahead: VecDeque<Ahead<<I::Item as Task>::Output>>,
    /// A result was taken from `ahead` since it was filled.
    has_room: bool,
    /// The tasks have blobs, so they cannot be in chunks.
    have_blobs: bool,
}

/// Tasks that were handed over and whose results were not consumed.
enum Ahead<O> {
    One(Future<O>),
    Chunk(Results<O>),
    /// A task that could not be encoded.
    Failed(TaskError),
}

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> Map<'e, E, I> {
    pub(super) fn new(executor: &'e E, tasks: I) -> Self {
        Self {
            executor,
            control: executor.canceller().and_then(|canceller| canceller.control().upgrade()),
            tasks: Some(tasks),
            ahead: VecDeque::new(),
            has_room: true,
            have_blobs: false,
        }
    }

    fn fill(&mut self) {
        while let Some(tasks) = &mut self.tasks {
            let chunks = self.control.as_deref().and_then(|control| control.chunks());
            let chunks = chunks.filter(|_| !self.have_blobs);
            let chunk = chunks.map(|chunks| (chunks, chunks.chunk_size()));
            let chunk = chunk.filter(|(_, size)| *size > 1);
            let max = match chunk {
                Some((chunks, _)) => chunks.chunks_ahead(),
                None => self.executor.ahead().max(1),
            };
            if self.ahead.len() >= max {
                break;
            }
            if let Some((chunks, size)) = chunk {
                let (chunk, end) = chunk::encode(tasks, size);
                if let Some((chunk, results)) = chunk {
                    chunks.enqueue_chunk(chunk);
                    self.ahead.push_back(Ahead::Chunk(results));
                }
                match end {
                    ChunkEnd::More => {}
                    ChunkEnd::End => self.tasks = None,
                    ChunkEnd::HasBlobs(task) => {
                        self.have_blobs = true;
                        self.ahead.push_back(Ahead::One(self.executor.submit(task)));
                    }
                    ChunkEnd::Refused(error) => self.ahead.push_back(Ahead::Failed(error)),
                    ChunkEnd::Panic(panic) => resume_unwind(panic),
                }
            } else if let Some(task) = tasks.next() {
                self.ahead.push_back(Ahead::One(self.executor.submit(task)));
            } else {
                // Not called again after its end: only a fused iterator returns `None` again.
                self.tasks = None;
            }
        }
        self.has_room = false;
    }
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Iterator for Map<'_, E, I> {
    type Item = Result<<I::Item as Task>::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if self.has_room {
                self.fill();
            }
            if let Ahead::Chunk(results) = self.ahead.front_mut()? {
                let executor = self.executor;
                let next = results.next(|| executor.canceller());
                if next.is_some() {
                    return next;
                }
            }
            self.has_room = true;
            match self.ahead.pop_front()? {
                Ahead::One(future) => return Some(future.result()),
                Ahead::Failed(error) => return Some(Err(error)),
                Ahead::Chunk(_) => {}
            }
        }
    }
}

/// Cancels the tasks that have not begun. Those that run are left alone: cancelling them would kill
/// their worker processes.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for Map<'_, E, I> {
    fn drop(&mut self) {
        for ahead in self.ahead.drain(..).rev() {
            match ahead {
                Ahead::One(future) => self.executor.abandon(future.id()),
                Ahead::Chunk(results) => self.executor.abandon(results.id()),
                Ahead::Failed(_) => {}
            }
        }
    }
}
