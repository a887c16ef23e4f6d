//! The methods of a pool that submit tasks, beyond those of every executor: with options, and where the
//! number of pending tasks is limited.

#[cfg(doc)]
use super::Builder;
use super::ProcessPool;
use super::submit_async::SubmitAsync;
use crate::executor::{Engine, Job, Map, MapUnordered};
use crate::future::Future;
use crate::task::Task;
use crate::task_options::TaskOptions;

/// [`Builder::max_pending`] tasks are pending. Holds the task that was not submitted.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// fn submit_or_run_here(pool: &ProcessPool, n: u64) -> Future<u64> {
///     pool.try_submit(square(n)).unwrap_or_else(|Full(task)| Sequential::new().submit(task))
/// }
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many tasks are pending as the pool allows")]
pub struct Full<T>(pub T);

impl ProcessPool {
    /// Like [`submit`](crate::Executor::submit), with options for this task.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # use std::time::Duration;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// fn urgent(pool: &ProcessPool, n: u64) -> Future<u64> {
    ///     let options = TaskOptions::new().priority(10).timeout(Duration::from_secs(2));
    ///     pool.submit_with(options, square(n))
    /// }
    /// # }
    /// ```
    pub fn submit_with<T: Task>(&self, options: TaskOptions, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.inner.reserve(1);
        self.inner.submit(job, options.resolve(self.inner.setup.options));
        future
    }

    /// Like [`submit`](crate::Executor::submit) for async code: where [`Builder::max_pending`] tasks are
    /// pending, it waits for room without blocking the thread, on any runtime. The task is submitted when
    /// the returned future is polled; until then, dropping it drops the task.
    ///
    /// ```
    /// # use procession::{Context, Failure, ProcessPool, Task, TaskError};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Square(u64);
    /// # impl Task for Square {
    /// #     const NAME: &'static str = "square";
    /// #     type Output = u64;
    /// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
    /// # }
    /// async fn square(pool: &ProcessPool, n: u64) -> Result<u64, TaskError> {
    ///     let future = pool.submit_async(Square(n)).await; // there was room
    ///     future.await
    /// }
    /// ```
    pub fn submit_async<T: Task>(&self, task: T) -> SubmitAsync<'_, T> {
        self.submit_async_with(TaskOptions::new(), task)
    }

    /// Like [`submit_async`](Self::submit_async), with options for this task.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # use std::time::Duration;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// async fn answer(pool: &ProcessPool, n: u64) -> Result<u64, TaskError> {
    ///     let options = TaskOptions::new().timeout(Duration::from_secs(2));
    ///     pool.submit_async_with(options, square(n)).await.cancel_on_drop().await
    /// }
    /// # }
    /// ```
    pub fn submit_async_with<T: Task>(&self, options: TaskOptions, task: T) -> SubmitAsync<'_, T> {
        SubmitAsync::new(self, options.resolve(self.inner.setup.options), task)
    }

    /// Like [`map`](crate::Executor::map), with options for each of these tasks.
    ///
    /// ```no_run
    /// # use procession::{Context, Failure, ProcessPool, Retries, Task, TaskError, TaskOptions};
    /// # use serde::{Deserialize, Serialize};
    /// # use std::time::Duration;
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Square(u64);
    /// # impl Task for Square {
    /// #     const NAME: &'static str = "square";
    /// #     type Output = u64;
    /// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
    /// # }
    /// # fn sum(pool: &ProcessPool) -> Result<u64, TaskError> {
    /// let options = TaskOptions::new().timeout(Duration::from_secs(2)).retries(Retries::times(1));
    /// pool.map_with(options, (1..=10).map(Square)).sum()
    /// # }
    /// ```
    pub fn map_with<I>(&self, options: TaskOptions, tasks: I) -> Map<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        Map::new(self, options, tasks.into_iter())
    }

    /// Like [`map_unordered`](crate::Executor::map_unordered), with options for each of these tasks.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// fn show(pool: &ProcessPool) {
    ///     let options = TaskOptions::new().retries(Retries::times(1));
    ///     for result in pool.map_unordered_with(options, (1..=10).map(square)) {
    ///         println!("{result:?}");
    ///     }
    /// }
    /// # }
    /// ```
    pub fn map_unordered_with<I>(
        &self,
        options: TaskOptions,
        tasks: I,
    ) -> MapUnordered<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        MapUnordered::new(self, options, tasks.into_iter())
    }

    /// Like [`submit`](crate::Executor::submit), but never blocks.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// fn accept(pool: &ProcessPool, n: u64) -> Result<Future<u64>, &'static str> {
    ///     pool.try_submit(square(n)).map_err(|_full| "too busy, try again later")
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Full`], which holds the task, if [`Builder::max_pending`] tasks are pending.
    pub fn try_submit<T: Task>(&self, task: T) -> Result<Future<T::Output>, Full<T>> {
        self.try_submit_with(TaskOptions::new(), task)
    }

    /// Like [`try_submit`](Self::try_submit), with options for this task.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// /// A request that should be answered soon, or not at all.
    /// fn accept(pool: &ProcessPool, n: u64) -> Result<Future<u64>, Full<impl Task>> {
    ///     pool.try_submit_with(TaskOptions::new().priority(10), square(n))
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`try_submit`](Self::try_submit).
    pub fn try_submit_with<T: Task>(
        &self,
        options: TaskOptions,
        task: T,
    ) -> Result<Future<T::Output>, Full<T>> {
        // In a forked copy of the process the lock may be held for ever; the future holds the error.
        if !self.inner.origin.is_forked() && !self.inner.try_reserve(&mut self.inner.lock_state()) {
            return Err(Full(task));
        }
        let (job, future) = Job::new(task, self.canceller());
        self.inner.submit(job, options.resolve(self.inner.setup.options));
        Ok(future)
    }
}
