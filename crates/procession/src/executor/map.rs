//! [`Executor::map`](super::Executor::map): many tasks, their results in order.

use std::collections::VecDeque;
use std::panic::resume_unwind;

use super::batch::{self, BatchEnd, Results};
use super::{Engine, Executor};
use crate::error::TaskError;
use crate::future::Future;
use crate::task::Task;

/// The iterator of [`Executor::map`].
pub struct Map<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    executor: &'e E,
    tasks: Option<I>,
    ahead: VecDeque<Ahead<<I::Item as Task>::Output>>,
    /// Something was taken from `ahead` since it was filled.
    has_room: bool,
    /// The tasks have blobs, so they travel one by one.
    have_blobs: bool,
}

/// What was handed over and not consumed yet.
enum Ahead<O> {
    One(Future<O>),
    /// Short tasks go together.
    Many(Results<O>),
    /// A task that could not be handed over.
    Failed(TaskError),
}

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> Map<'e, E, I> {
    pub(super) fn new(executor: &'e E, tasks: I) -> Self {
        Self {
            executor,
            tasks: Some(tasks),
            ahead: VecDeque::new(),
            has_room: true,
            have_blobs: false,
        }
    }

    fn fill(&mut self) {
        while let Some(tasks) = &mut self.tasks {
            let chunk_size = if self.have_blobs { 1 } else { self.executor.chunk_size() };
            let most = if chunk_size > 1 {
                self.executor.chunks_ahead()
            } else {
                self.executor.ahead().max(1)
            };
            if self.ahead.len() >= most {
                break;
            }
            if chunk_size > 1 {
                let (batch, behind) = batch::encode(tasks, chunk_size);
                if let Some((batch, results)) = batch {
                    self.executor.enqueue_batch(batch);
                    self.ahead.push_back(Ahead::Many(results));
                }
                match behind {
                    BatchEnd::More => {}
                    BatchEnd::End => self.tasks = None,
                    BatchEnd::HasBlobs(task) => {
                        self.have_blobs = true;
                        self.ahead.push_back(Ahead::One(self.executor.submit(task)));
                    }
                    BatchEnd::Refused(error) => self.ahead.push_back(Ahead::Failed(error)),
                    BatchEnd::Panic(panic) => resume_unwind(panic),
                }
            } else if let Some(task) = tasks.next() {
                self.ahead.push_back(Ahead::One(self.executor.submit(task)));
            } else {
                // An iterator that has ended is not asked again: not all of them stay ended.
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
            if let Ahead::Many(results) = self.ahead.front_mut()? {
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
                Ahead::Many(_) => {}
            }
        }
    }
}

/// Tasks whose results will not be read are not begun. Those that run are left alone: to end them
/// would cost their worker processes.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for Map<'_, E, I> {
    fn drop(&mut self) {
        for ahead in self.ahead.drain(..).rev() {
            match ahead {
                Ahead::One(future) => self.executor.abandon(future.id()),
                Ahead::Many(results) => self.executor.abandon(results.id()),
                Ahead::Failed(_) => {}
            }
        }
    }
}
