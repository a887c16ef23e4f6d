//! The trait [`Executor`] and the executors that run tasks in this process.
//!
//! | | runs tasks | after a segmentation fault in a task |
//! |---|---|---|
//! | [`Sequential`] | in the thread that submits them | the program has ended |
//! | [`ThreadPool`] | on threads of this process | the program has ended |
//! | [`ProcessPool`](crate::ProcessPool) | in worker processes | the task has an error |
//!
//! Each kind implements [`Engine`]. [`submit`](Executor::submit) and [`map`](Executor::map) are built on
//! it, so they are the same for all kinds.

pub(crate) mod callbacks;
pub(crate) mod chunk;
mod engine;
mod feed;
pub(crate) mod job;
mod map;
mod map_unordered;
mod runner;
mod sequential;
mod shutdown_async;
mod threads;

use std::collections::VecDeque;
use std::iter::FusedIterator;
use std::sync::{Arc, Mutex, PoisonError};

pub use engine::{Cancel, Canceller, Engine, Shutdown};
pub use job::Job;
pub use map::Map;
pub use map_unordered::MapUnordered;
pub use runner::JobRunner;
pub use sequential::Sequential;
pub use shutdown_async::ShutdownAsync;
pub use threads::ThreadPool;

use crate::error::TaskError;
use crate::future::Future;
use crate::task::Task;
use crate::task_options::TaskOptions;

/// Runs tasks. Implemented for every [`Engine`], and for `dyn Engine` where the kind of executor is
/// chosen at run time.
///
/// ```
/// # use procession::*;
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
/// fn sum_of_squares(executor: &dyn Engine) -> Result<u64, TaskError> {
///     executor.map((1..=10).map(Square)).sum()
/// }
/// assert_eq!(sum_of_squares(&Sequential::new()), Ok(385));
/// assert_eq!(sum_of_squares(&ThreadPool::new(2)), Ok(385));
/// ```
pub trait Executor: Engine {
    /// Hands a task over and returns its future. If the task cannot be run, for example after a
    /// shutdown, the future holds the error. In a process pool it waits while
    /// [`max_pending`](crate::Builder::max_pending) tasks are pending, if that is set.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(2);
    /// let futures = [1, 2, 3].map(|n| pool.submit(square(n))); // all of them run now
    /// assert_eq!(futures.map(Future::result), [Ok(1), Ok(4), Ok(9)]);
    /// # }
    /// ```
    fn submit<T: Task>(&self, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.enqueue(job);
        future
    }

    /// Runs the tasks of an iterator and yields their results, in the order of the tasks.
    ///
    /// Tasks are taken from the iterator as results are consumed, and ahead of them as far as keeps
    /// the workers busy: up to [`ahead`](Engine::ahead) tasks, or four chunks of short tasks per worker or
    /// thread, and one chunk more for each task after the first that a worker runs at a time. So the iterator may
    /// be endless. A chunk has as many tasks as run in about a millisecond, at most 1,024. In a [`ThreadPool`] its
    /// tasks may begin in another order than that of the iterator.
    ///
    /// If the results are dropped before their end, the tasks that have not begun are cancelled. Those
    /// that run are finished, and their results are dropped.
    ///
    /// The tasks have no futures, so what they [emit](crate::Context::emit) is dropped. To read it,
    /// [`submit`](Self::submit) them, and have as many futures at a time as keep the workers busy.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(2);
    /// let squares = pool.map((1..).map(square)).take(3); // of an endless iterator
    /// assert_eq!(squares.collect::<Result<Vec<_>, _>>(), Ok(vec![1, 4, 9]));
    /// # }
    /// ```
    fn map<I>(&self, tasks: I) -> Map<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        Map::new(self, TaskOptions::new(), tasks.into_iter())
    }

    /// Runs the tasks of an iterator and yields their results as they arrive, each with the index of its
    /// task. Tasks are taken from the iterator as by [`map`](Self::map), so it may be endless, and what they
    /// emit is dropped.
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
    /// # fn main() -> Result<(), TaskError> {
    /// let pool = ThreadPool::new(2);
    /// let numbers = [3, 5, 7];
    /// for (index, result) in pool.map_unordered(numbers.map(Square)) {
    ///     assert_eq!(result?, numbers[index] * numbers[index]);
    /// }
    /// # Ok(()) }
    /// ```
    fn map_unordered<I>(&self, tasks: I) -> MapUnordered<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        MapUnordered::new(self, TaskOptions::new(), tasks.into_iter())
    }

    /// Runs the tasks of an iterator of keys and tasks, and yields each key with the result of its task,
    /// in the order of the tasks. Otherwise like [`map`](Self::map). A key is what tells results apart:
    /// an index, a name, or a clone of the task or of its input; it is not sent anywhere.
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, ThreadPool};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Parse(String);
    /// # impl Task for Parse {
    /// #     const NAME: &'static str = "parse";
    /// #     type Output = i64;
    /// #     fn run(self, _: &Context) -> Result<i64, Failure> { Ok(self.0.trim().parse()?) }
    /// # }
    /// let pool = ThreadPool::new(2);
    /// let lines = ["1", "two", "3"];
    /// let parsed = pool.map_keyed(lines.map(|line| (line, Parse(line.to_owned()))));
    /// let bad: Vec<_> = parsed.filter(|(_, result)| result.is_err()).map(|(line, _)| line).collect();
    /// assert_eq!(bad, ["two"]);
    /// ```
    fn map_keyed<K, T: Task, I>(
        &self,
        pairs: I,
    ) -> impl FusedIterator<Item = (K, Result<T::Output, TaskError>)>
    where
        I: IntoIterator<Item = (K, T)>,
    {
        let keys = Arc::new(Mutex::new(VecDeque::new()));
        let taken = Arc::clone(&keys);
        let tasks = pairs.into_iter().map(move |(key, task)| {
            taken.lock().unwrap_or_else(PoisonError::into_inner).push_back(key);
            task
        });
        self.map(tasks).map(move |result| {
            let key = keys.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            (key.expect("each task was taken with its key"), result)
        })
    }

    /// Ends the executor. Further tasks are refused with
    /// [`PoolError::ShutDown`](crate::PoolError::ShutDown). Returns when its threads and processes
    /// have ended; all futures are done then.
    ///
    /// In a callback of the same executor it returns at once, because the thread of the callback is
    /// one of those that have to end. A second call may be stricter than the first.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(2);
    /// let future = pool.submit(square(7));
    /// pool.shutdown(Shutdown::Wait);
    /// assert_eq!(future.result(), Ok(49)); // without a wait
    /// let late = pool.submit(square(8)).result();
    /// assert_eq!(late, Err(TaskError::PoolBroken(PoolError::ShutDown)));
    /// # }
    /// ```
    fn shutdown(&self, how: Shutdown) {
        self.shut_down(how);
    }
}

impl<E: Engine + ?Sized> Executor for E {}
