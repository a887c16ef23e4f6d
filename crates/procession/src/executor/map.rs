//! [`Map`], the iterator of [`Executor::map`]: many tasks, their results in order.

use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;

use super::Engine;
#[cfg(doc)]
use super::Executor;
use super::feed::{Ahead, TaskFeed};
use crate::error::TaskError;
use crate::task::Task;
use crate::task_options::TaskOptions;

/// The iterator of [`Executor::map`]: yields the results in the order of the tasks.
#[must_use = "no task is handed over before the first result is asked for"]
pub struct Map<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    feed: TaskFeed<'e, E, I>,
    ahead: VecDeque<Ahead<<I::Item as Task>::Output>>,
    /// Number of tasks that were handed over and whose results were not yielded.
    outstanding: usize,
    /// A result was taken from `ahead` since it was filled.
    has_room: bool,
}

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> Map<'e, E, I> {
    pub(crate) fn new(executor: &'e E, options: TaskOptions, tasks: I) -> Self {
        let feed = TaskFeed::new(executor, options, tasks);
        Self { feed, ahead: VecDeque::new(), outstanding: 0, has_room: true }
    }

    fn fill(&mut self) {
        let Self { feed, ahead, outstanding, has_room } = self;
        let mut has_more = true;
        while has_more {
            has_more = feed.hand_over(ahead.len(), |next| {
                *outstanding += next.len();
                ahead.push_back(next);
            });
        }
        *has_room = false;
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
                let executor = self.feed.executor;
                let next = results.next(|| executor.canceller());
                if next.is_some() {
                    self.outstanding -= 1;
                    return next;
                }
            }
            self.has_room = true;
            let result = match self.ahead.pop_front()? {
                Ahead::One(future) => future.result(),
                Ahead::Failed(error) => Err(error),
                Ahead::Chunk(_) => continue,
            };
            self.outstanding -= 1;
            return Some(result);
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.outstanding)
    }
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> FusedIterator for Map<'_, E, I> {}

impl<E: Engine + ?Sized, I: ExactSizeIterator<Item: Task>> ExactSizeIterator for Map<'_, E, I> {}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> fmt::Debug for Map<'_, E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").field("outstanding", &self.outstanding).finish_non_exhaustive()
    }
}

/// Cancels the tasks that have not begun.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for Map<'_, E, I> {
    fn drop(&mut self) {
        for ahead in self.ahead.drain(..).rev() {
            ahead.abandon(self.feed.executor);
        }
    }
}
