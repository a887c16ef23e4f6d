//! [`MapUnordered`], the iterator of [`Executor::map_unordered`]: many tasks, their results as they
//! arrive.

use std::collections::{BTreeMap, VecDeque};
use std::iter::FusedIterator;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

#[cfg(doc)]
use super::Executor;
use super::feed::{Ahead, TaskFeed};
use super::{Canceller, Engine};
use crate::error::TaskError;
use crate::future::Arrivals;
use crate::task::Task;
use crate::task_options::TaskOptions;
use crate::waiting::{self, AwaitedTask, Need, Waiting};

/// The iterator of [`Executor::map_unordered`]: yields each result with the index of its task.
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
            has_more = feed.hand_over(ahead.len() + ready.len(), |next| {
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

    /// Called before a wait for any of the tasks that are ahead.
    fn begin(&self) -> Result<Waiting, TaskError> {
        if !waiting::has_role() {
            return Ok(Waiting::default());
        }
        let canceller = self.feed.executor.canceller();
        let executor = canceller.as_ref().map(Canceller::control);
        let targets = self.ahead.values().filter_map(|ahead| match ahead {
            Ahead::One(future) => Some(future.target()),
            Ahead::Chunk(results) => Some(AwaitedTask { id: results.id(), executor }),
            Ahead::Failed(_) => None,
        });
        waiting::begin(targets, Need::Any)
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
            if let Some(next) = self.ready.pop_front() {
                self.yielded += 1;
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

/// Cancels the tasks that have not begun.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for MapUnordered<'_, E, I> {
    fn drop(&mut self) {
        for ahead in std::mem::take(&mut self.ahead).into_values().rev() {
            ahead.abandon(self.feed.executor);
        }
    }
}
