//! [`MapUnordered`], the iterator of [`Executor::map_unordered`]: many tasks, their results as they
//! arrive.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::task::{Context, Poll};

#[cfg(doc)]
use super::Executor;
use super::feed::{Ahead, TaskFeed};
use super::{Canceller, Engine};
use crate::error::TaskError;
use crate::future::Arrivals;
use crate::task::Task;
use crate::task_options::TaskOptions;
use crate::waiting::{self, AwaitedTask, Need, Waiting};

/// The iterator of [`Executor::map_unordered`]: yields each result with the index of its task. In async
/// code, [`next_async`](Self::next_async) does; with the feature `stream`, this type is a
/// `futures_core::Stream` as well.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(2);
/// let (index, first) = pool.map_unordered([square(2), square(3)]).next().expect("two results");
/// assert_eq!(first, Ok([4, 9][index]));
/// # }
/// ```
#[must_use = "no task is handed over before the first result is asked for"]
pub struct MapUnordered<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    feed: TaskFeed<'e, E, I>,
    /// By the index of their first task.
    ahead: BTreeMap<usize, Ahead<<I::Item as Task>::Output>>,
    /// Results that arrived and were not yielded.
    ready: VecDeque<Indexed<<I::Item as Task>::Output>>,
    /// Index of the next task to be handed over.
    next_index: usize,
    /// Number of results that were yielded.
    yielded: usize,
    /// Something was taken out of `ahead` since it was filled.
    has_room: bool,
    /// Given to all that are in `ahead`: each sends its key when a result is there.
    sender: Arc<Arrivals>,
    arrived: Receiver<usize>,
}

/// The index of a task, and its result.
type Indexed<O> = (usize, Result<O, TaskError>);

impl<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> MapUnordered<'e, E, I> {
    pub(crate) fn new(executor: &'e E, options: TaskOptions, tasks: I) -> Self {
        let (sender, arrived) = Arrivals::new();
        Self {
            feed: TaskFeed::new(executor, options, tasks),
            ahead: BTreeMap::new(),
            ready: VecDeque::new(),
            next_index: 0,
            yielded: 0,
            has_room: true,
            sender,
            arrived,
        }
    }

    fn fill(&mut self) {
        let Self { feed, ahead, ready, next_index, sender, .. } = self;
        let mut has_more = true;
        while has_more {
            has_more = feed.hand_over(ahead.len() + ready.len(), &mut |next| {
                let key = *next_index;
                *next_index += next.len();
                match &next {
                    Ahead::One(future) => {
                        if !future.watch(sender, key) {
                            sender.send(key);
                        }
                    }
                    Ahead::Chunk(results) => results.watch(sender, key),
                    Ahead::Failed(error) => return ready.push_back((key, Err(error.clone()))),
                }
                ahead.insert(key, next);
            });
        }
        self.has_room = false;
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
    /// async fn sum_of_squares(pool: &ThreadPool) -> Result<u64, TaskError> {
    ///     let mut results = pool.map_unordered((1..=1000).map(Square));
    ///     let mut sum = 0;
    ///     while let Some((_, square)) = results.next_async().await {
    ///         sum += square?;
    ///     }
    ///     Ok(sum)
    /// }
    /// ```
    pub fn next_async(
        &mut self,
    ) -> impl Future<Output = Option<Indexed<<I::Item as Task>::Output>>> + use<'_, 'e, E, I> {
        poll_fn(|context| self.poll_next_result(context))
    }

    fn poll_next_result(
        &mut self,
        context: &Context<'_>,
    ) -> Poll<Option<Indexed<<I::Item as Task>::Output>>> {
        let mut is_registered = false;
        loop {
            if let Some(next) = self.next_ready() {
                return Poll::Ready(Some(next));
            }
            if self.has_room {
                self.fill();
                continue;
            }
            if self.ahead.is_empty() {
                return Poll::Ready(None);
            }
            match self.arrived.try_recv() {
                Ok(key) => self.take(key),
                // Then once more: a message may have been sent before.
                Err(_) if !is_registered => {
                    self.sender.wake_by(context.waker().clone());
                    is_registered = true;
                }
                Err(_) => {
                    let Err(error) = self.before_pending() else { return Poll::Pending };
                    self.give_up(error);
                }
            }
        }
    }

    fn next_ready(&mut self) -> Option<Indexed<<I::Item as Task>::Output>> {
        let next = self.ready.pop_front()?;
        self.yielded += 1;
        Some(next)
    }

    /// Called before a wait for any of the tasks that are ahead.
    fn begin(&self) -> Result<Waiting, TaskError> {
        if !waiting::has_role() {
            return Ok(Waiting::default());
        }
        let canceller = self.feed.executor.canceller();
        waiting::begin(self.targets(canceller.as_ref()), Need::Any)
    }

    /// Called before a poll returns `Pending`.
    fn before_pending(&self) -> Result<(), TaskError> {
        if !waiting::has_role() {
            return Ok(());
        }
        let canceller = self.feed.executor.canceller();
        self.targets(canceller.as_ref()).try_for_each(waiting::before_pending)
    }

    fn targets<'t>(
        &'t self,
        canceller: Option<&'t Canceller>,
    ) -> impl Iterator<Item = AwaitedTask<'t>> {
        let executor = canceller.map(Canceller::control);
        self.ahead.values().filter_map(move |ahead| match ahead {
            Ahead::One(future) => Some(future.target()),
            Ahead::Chunk(results) => Some(AwaitedTask { id: results.id(), executor }),
            Ahead::Failed(_) => None,
        })
    }

    /// Moves the results that have arrived under this key to `ready`.
    fn take(&mut self, key: usize) {
        let is_empty = match self.ahead.get_mut(&key) {
            Some(Ahead::Chunk(results)) => {
                let arrived = results.take_arrived().into_iter();
                self.ready.extend(arrived.map(|(item, result)| (key + item, result)));
                results.are_all_taken()
            }
            Some(_) => true,
            None => false,
        };
        if is_empty {
            self.has_room = true;
            if let Some(Ahead::One(future)) = self.ahead.remove(&key) {
                self.ready.push_back((key, future.result()));
            }
        }
    }

    /// Gives up the first task, which cannot be waited for here.
    fn give_up(&mut self, error: TaskError) {
        let Some(mut first) = self.ahead.first_entry() else { return };
        let key = *first.key();
        let (item, is_empty) = match first.get_mut() {
            Ahead::Chunk(results) => (results.skip_pending(), results.are_all_taken()),
            _ => (Some(0), true),
        };
        self.ready.extend(item.map(|item| (key + item, Err(error))));
        if is_empty {
            first.remove();
            self.has_room = true;
        }
    }
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Iterator for MapUnordered<'_, E, I> {
    type Item = Indexed<<I::Item as Task>::Output>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.next_ready() {
                return Some(next);
            }
            if self.has_room {
                self.fill();
                continue;
            }
            if self.ahead.is_empty() {
                return None;
            }
            let arrived = self.arrived.try_recv().or_else(|_| {
                let _waiting = self.begin()?;
                Ok(self.arrived.recv().expect("this iterator has a sender"))
            });
            match arrived {
                Ok(key) => self.take(key),
                Err(error) => self.give_up(error),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.feed.size_hint(self.next_index - self.yielded)
    }
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> FusedIterator for MapUnordered<'_, E, I> {}

impl<E, I> ExactSizeIterator for MapUnordered<'_, E, I>
where
    E: Engine + ?Sized,
    I: ExactSizeIterator<Item: Task>,
{
}

/// Nothing in it is pinned.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Unpin for MapUnordered<'_, E, I> {}

#[cfg(feature = "stream")]
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> futures_core::Stream for MapUnordered<'_, E, I> {
    type Item = Indexed<<I::Item as Task>::Output>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Self::Item>> {
        self.poll_next_result(context)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        Iterator::size_hint(self)
    }
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> fmt::Debug for MapUnordered<'_, E, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapUnordered").field("yielded", &self.yielded).finish_non_exhaustive()
    }
}

/// Cancels the tasks that have not begun.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for MapUnordered<'_, E, I> {
    fn drop(&mut self) {
        for ahead in std::mem::take(&mut self.ahead).into_values().rev() {
            ahead.abandon(self.feed.executor);
        }
    }
}
