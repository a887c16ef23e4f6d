//! [`Map`], the iterator of [`Executor::map`]: many tasks, their results in order.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::iter::FusedIterator;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use super::Engine;
#[cfg(doc)]
use super::Executor;
use super::feed::{Ahead, TaskFeed};
use crate::error::TaskError;
use crate::task::Task;
use crate::task_options::TaskOptions;

/// The iterator of [`Executor::map`]: yields the results in the order of the tasks. In async code,
/// [`next_async`](Self::next_async) does; with the feature `stream`, this type is a `futures_core::Stream` as
/// well.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(2);
/// let squares: Result<Vec<u64>, TaskError> = pool.map((1..=3).map(square)).collect();
/// assert_eq!(squares, Ok(vec![1, 4, 9]));
/// # }
/// ```
#[must_use = "no task is handed over before the first result is asked for"]
pub struct Map<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    feed: TaskFeed<'e, E, I>,
    ahead: VecDeque<Ahead<<I::Item as Task>::Output>>,
    /// Number of tasks that were handed over and whose results were not yielded.
    outstanding: usize,
    /// A result was taken from `ahead` since it was filled.
    has_room: bool,
}

/// The result of a task of the iterator `I`.
type TaskResult<I> = Result<<<I as Iterator>::Item as Task>::Output, TaskError>;

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> Map<'e, E, I> {
    pub(crate) fn new(executor: &'e E, options: TaskOptions, tasks: I) -> Self {
        let feed = TaskFeed::new(executor, options, tasks);
        Self { feed, ahead: VecDeque::new(), outstanding: 0, has_room: true }
    }

    /// The next result, for async code on any runtime: awaits it without blocking the thread. `None`: all
    /// were yielded. Nothing is lost if the returned future is dropped.
    ///
    /// Tasks are handed over in this call. If the pool has a
    /// [`max_pending`](crate::Builder::max_pending) that is smaller than what is handed over ahead, that
    /// waits for room and blocks the thread.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, TaskError, ThreadPool};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Square(u64);
    /// # impl Task for Square {
    /// #     const NAME: &'static str = "square";
    /// #     type Output = u64;
    /// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
    /// # }
    /// async fn squares(pool: &ThreadPool) -> Result<Vec<u64>, TaskError> {
    ///     let mut results = pool.map((1..=1000).map(Square));
    ///     let mut squares = Vec::new();
    ///     while let Some(square) = results.next_async().await {
    ///         squares.push(square?); // in the order of the tasks
    ///     }
    ///     Ok(squares)
    /// }
    /// ```
    pub fn next_async(
        &mut self,
    ) -> impl Future<Output = Option<TaskResult<I>>> + use<'_, 'e, E, I> {
        poll_fn(|context| self.poll_next_result(context))
    }

    fn poll_next_result(&mut self, context: &mut Context<'_>) -> Poll<Option<TaskResult<I>>> {
        loop {
            if self.has_room {
                self.fill();
            }
            let executor = self.feed.executor;
            let next = match self.ahead.front_mut() {
                None => return Poll::Ready(None),
                Some(Ahead::Chunk(results)) => {
                    let next = ready!(results.poll_next(context, || executor.canceller()));
                    if next.is_some() {
                        self.outstanding -= 1;
                        return Poll::Ready(next);
                    }
                    None
                }
                Some(Ahead::One(future)) => Some(ready!(Pin::new(future).poll(context))),
                Some(Ahead::Failed(error)) => Some(Err(error.clone())),
            };
            self.has_room = true;
            self.ahead.pop_front();
            if next.is_some() {
                self.outstanding -= 1;
                return Poll::Ready(next);
            }
        }
    }

    fn fill(&mut self) {
        let Self { feed, ahead, outstanding, has_room } = self;
        let mut has_more = true;
        while has_more {
            has_more = feed.hand_over(ahead.len(), &mut |next| {
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
                match results.wait_for_next(&|| executor.canceller()) {
                    Ok(false) => {}
                    Ok(true) => {
                        self.outstanding -= 1;
                        return Some(results.take_ready());
                    }
                    Err(error) => {
                        self.outstanding -= 1;
                        return Some(Err(error));
                    }
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

    /// Passes each result to `f` without a copy: a result is as long as the longest error.
    fn fold<B, F: FnMut(B, Self::Item) -> B>(mut self, init: B, mut f: F) -> B {
        let mut folded = init;
        while let Some(result) = self.next() {
            folded = f(folded, result);
            if let Some(Ahead::Chunk(results)) = self.ahead.front_mut() {
                while results.has_ready() {
                    self.outstanding -= 1;
                    folded = f(folded, results.take_ready());
                }
            }
        }
        folded
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.outstanding)
    }
}

/// Nothing in it is pinned.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Unpin for Map<'_, E, I> {}

#[cfg(feature = "stream")]
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> futures_core::Stream for Map<'_, E, I> {
    type Item = TaskResult<I>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_next_result(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        Iterator::size_hint(self)
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
        while let Some(ahead) = self.ahead.pop_back() {
            ahead.abandon(self.feed.executor);
        }
    }
}
