//! [`Future`]: the result of a submitted task, now or later. [`as_completed`] and [`wait`] are for
//! several futures.
//!
//! The executor holds the `Promise` and completes it once, with the output or an error. The caller
//! holds the [`Future`], and can block on it, poll it, await it, add callbacks to it or drop it; none of
//! these affects the task.
//!
//! This module knows no executor. A future asks its executor through `TaskControl`, for example to
//! cancel the task.

mod arrivals;
mod awaiters;
mod control;
mod core;
mod partials;
mod poll;
mod several;

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crate::error::TaskError;
use crate::panics;
use crate::task::TaskId;
use crate::waiting::{self, AwaitedTask, Need};

pub(crate) use self::arrivals::Arrivals;
pub(crate) use self::awaiters::Watcher;
use self::awaiters::call_each;
use self::control::begin_to_wait;
pub(crate) use self::control::{TaskControl, Waiter, Wake};
#[cfg(test)]
pub(crate) use self::core::promise;
pub(crate) use self::core::{Core, Promise, promise_of_sent};
use self::core::{Outcome, ResultState, mapped_promise};
pub(crate) use self::partials::EncodedPartial;
pub use partials::{Partial, PartialError, Partials};
pub use several::{AsCompleted, Unfinished, Until, Waited, as_completed, wait};

/// The result of a submitted task: its output, or a [`TaskError`]. Every future is completed.
///
/// It is also a [`std::future::Future`], which works with every async runtime.
///
/// ```
/// # use procession::{Context, Executor, Failure, Task, ThreadPool};
/// # use serde::{Deserialize, Serialize};
/// # use std::time::Duration;
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
/// let pool = ThreadPool::new(2);
/// let future = pool.submit(Square(7));
/// future.on_done(|result| println!("{result:?}"));
/// match future.result_timeout(Duration::from_secs(60)) {
///     Ok(result) => assert_eq!(result, Ok(49)),
///     Err(future) => assert!(future.cancel()), // not done after a minute
/// }
/// ```
pub struct Future<T> {
    core: Arc<Core<T>>,
    /// Whether a poll has stored a waker, which is dropped with the future.
    was_polled: bool,
    cancels_on_drop: bool,
}

/// The state of a task, from [`Future::state`].
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let done = Sequential::new().submit(square(7));
/// assert_eq!(done.state(), FutureState::Finished);
/// println!("task {} is {}", done.id(), done.state()); // "task 1 is finished"
/// # }
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FutureState {
    /// It waits for a worker, or for its next attempt.
    Pending,
    /// It was sent to a worker.
    Running,
    /// It has an output or an error.
    Finished,
    /// It was cancelled before it had a result.
    Cancelled,
}

impl fmt::Display for FutureState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
        })
    }
}

impl<T> Future<T> {
    /// The id of the task, the same as in [`PoolEvent`](crate::PoolEvent) and [`Said`](crate::Said).
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(1);
    /// let future = pool.submit(square(7));
    /// println!("task {} was submitted", future.id());
    /// # }
    /// ```
    pub fn id(&self) -> TaskId {
        self.core.id
    }

    /// Waits for the result.
    ///
    /// A task or a callback may wait for other tasks, also of the same executor.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(1);
    /// match pool.submit(square(7)).result() {
    ///     Ok(output) => assert_eq!(output, 49),
    ///     Err(error) => eprintln!("{error}"),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// - The error of the task.
    /// - [`TaskError::WouldDeadlock`]: the wait would never end.
    /// - [`TaskError::AlreadyTaken`]: the future was awaited before and returned its result.
    pub fn result(self) -> Result<T, TaskError> {
        let inner = self.core.lock();
        if inner.is_done() {
            return self.core.take(inner);
        }
        drop(inner);
        let _waiting = begin_to_wait(self.target(), &*self.core)?;
        self.core.take(self.core.wait_until_done(None).expect("no deadline"))
    }

    /// Waits for the result, at most for `timeout`. The task is not affected by the timeout.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// # use std::time::Duration;
    /// let pool = ThreadPool::new(1);
    /// match pool.submit(square(7)).result_timeout(Duration::from_secs(60)) {
    ///     Ok(result) => assert_eq!(result, Ok(49)),
    ///     Err(future) => println!("after a minute it is {}", future.state()),
    /// }
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The future itself, after the timeout.
    pub fn result_timeout(self, timeout: Duration) -> Result<Result<T, TaskError>, Self> {
        match self.wait_for(timeout) {
            Ok(true) => Ok(self.core.take(self.core.lock())),
            Ok(false) => Err(self),
            Err(error) => Ok(Err(error)),
        }
    }

    /// Waits until the task is done, at most for `timeout`, and returns whether it is. Does not wait if
    /// [`result`](Self::result) would return [`TaskError::WouldDeadlock`].
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// # use std::time::Duration;
    /// let pool = ThreadPool::new(1);
    /// let future = pool.submit(square(7));
    /// while !future.wait_timeout(Duration::from_secs(1)) {
    ///     println!("still at work");
    /// }
    /// assert_eq!(future.result(), Ok(49));
    /// # }
    /// ```
    pub fn wait_timeout(&self, timeout: Duration) -> bool {
        self.wait_for(timeout).unwrap_or(false)
    }

    fn wait_for(&self, timeout: Duration) -> Result<bool, TaskError> {
        if self.is_done() {
            return Ok(true);
        }
        // `None`: a deadline beyond the range of the clock.
        let deadline = Instant::now().checked_add(timeout);
        let need = if deadline.is_some() { Need::Time } else { Need::All };
        let _waiting = waiting::begin([self.target()], need)?;
        Ok(self.core.wait_until_done(deadline).is_some())
    }

    pub(crate) fn target(&self) -> AwaitedTask<'_> {
        AwaitedTask { id: self.core.id, executor: self.core.executor.as_ref() }
    }

    /// Whether the result is there: [`result`](Self::result) will not block.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let future = Sequential::new().submit(square(7));
    /// assert!(future.is_done(), "a sequential executor runs the task in `submit`");
    /// # }
    /// ```
    pub fn is_done(&self) -> bool {
        self.core.lock().is_done()
    }

    /// The state of the task.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let future = Sequential::new().submit(square(7));
    /// assert_eq!(future.state(), FutureState::Finished);
    /// assert_eq!(future.state().to_string(), "finished");
    /// # }
    /// ```
    pub fn state(&self) -> FutureState {
        match &self.core.lock().stage {
            ResultState::Ready(Err(error)) if **error == TaskError::Cancelled => {
                FutureState::Cancelled
            }
            ResultState::InCallback(Outcome::Cancelled) => FutureState::Cancelled,
            ResultState::Ready(_) | ResultState::InCallback(_) | ResultState::Consumed => {
                FutureState::Finished
            }
            ResultState::Pending | ResultState::Notifying if self.core.is_running() => {
                FutureState::Running
            }
            ResultState::Pending | ResultState::Notifying => FutureState::Pending,
        }
    }

    /// Cancels the task. Returns whether it did: the future is then done, with
    /// [`TaskError::Cancelled`], or is done within the [grace period](crate::TaskOptions::grace) of the
    /// task.
    ///
    /// A task that has not begun is not run, and one that waits for its next attempt is not run again.
    /// A task that runs depends on the executor:
    ///
    /// - [`ProcessPool`](crate::ProcessPool) kills the worker process and starts another one; not if
    ///   the worker runs several tasks at a time. With a grace period it first asks the task to stop,
    ///   by [`Context::stop_requested`](crate::Context::stop_requested). The future then holds what the
    ///   task returns within that period, its output or its error, and after it `Cancelled`.
    /// - [`ThreadPool`](crate::ThreadPool) and a worker that runs several tasks do not end it: a thread
    ///   cannot be killed. They ask the task to stop and return false. The future holds what the task
    ///   returns.
    /// - [`Sequential`](crate::Sequential) has finished each task before `submit` returns.
    ///
    /// A task that was asked to stop is not tried again.
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let pool = ThreadPool::new(1);
    /// let futures: Vec<_> = (0..100).map(|n| pool.submit(square(n))).collect();
    /// let cancelled = futures.iter().filter(|future| future.cancel()).count();
    /// let missing = futures.into_iter().filter(|future| future.state() == FutureState::Cancelled);
    /// assert_eq!(missing.count(), cancelled);
    /// # }
    /// ```
    pub fn cancel(&self) -> bool {
        let Some(executor) = self.core.executor.as_ref().and_then(Weak::upgrade) else {
            return false;
        };
        if self.is_done() {
            return false;
        }
        self.core.ask_to_stop();
        executor.cancel(self.core.id)
    }

    /// Makes the future [cancel](Self::cancel) its task when it is dropped before the task is done. Without
    /// it, a future can be dropped and the task goes on.
    ///
    /// With it a task ends with the async code that waits for it, for example with a request whose client
    /// is gone. In a process pool that costs the worker of a task that runs.
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
    /// async fn answer(pool: &ThreadPool, n: u64) -> Result<u64, TaskError> {
    ///     pool.submit(Square(n)).cancel_on_drop().await
    /// }
    /// ```
    #[must_use = "the task is cancelled when the future is dropped"]
    pub fn cancel_on_drop(mut self) -> Self {
        self.cancels_on_drop = true;
        self
    }

    /// Calls `callback` with the result: at once if the future is done, else when the task ends and
    /// before the result can be had from this future. Callbacks are called in the order in which they
    /// were added. A panic in one is reported by the panic hook and does not affect the others.
    ///
    /// The thread that calls it:
    ///
    /// - [`ThreadPool`](crate::ThreadPool): the thread that ran the task.
    /// - [`ProcessPool`](crate::ProcessPool): one thread per worker, for the callbacks of its tasks. It
    ///   is started with the first callback. A slow callback delays the callbacks behind it, but not
    ///   results of futures without callbacks.
    /// - After a [`cancel`](Self::cancel) or a shutdown: the thread that called that.
    ///
    /// A callback may submit tasks to the same executor and wait for them: during the wait another thread
    /// calls the callbacks behind it. A wait for its own future, and waits of two callbacks for each
    /// other's futures, return [`TaskError::WouldDeadlock`].
    ///
    /// If the future was awaited before and returned its result, `callback` is called with
    /// [`TaskError::AlreadyTaken`].
    ///
    /// ```
    /// # #[cfg(feature = "macros")] {
    /// # use procession::*;
    /// # #[procession::task]
    /// # fn square(n: u64) -> u64 { n * n }
    /// let future = Sequential::new().submit(square(7));
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// future.on_done(move |result| sender.send(result.clone()).unwrap());
    /// assert_eq!(receiver.recv(), Ok(Ok(49)));
    /// assert_eq!(future.result(), Ok(49));
    /// # }
    /// ```
    pub fn on_done(&self, callback: impl FnOnce(&Result<T, TaskError>) + Send + 'static)
    where
        T: 'static,
    {
        let callback = Box::new(move |result: &dyn Any| {
            callback(result.downcast_ref().expect("the type is that of the future"));
        });
        let mut inner = self.core.lock();
        match inner.stage {
            ResultState::Pending | ResultState::Notifying | ResultState::InCallback(_) => {
                inner.awaiters.add_callback(callback);
            }
            ResultState::Consumed => {
                drop(inner);
                call_each(vec![callback], &Err::<T, _>(TaskError::AlreadyTaken));
            }
            ResultState::Ready(ref result) => {
                // The result is taken out of the lock while the callback runs.
                let shown = ResultState::InCallback(Outcome::of(result));
                let ResultState::Ready(result) = std::mem::replace(&mut inner.stage, shown) else {
                    unreachable!("just seen")
                };
                inner.awaiters.add_callback(callback);
                let result = result.map_err(|error| *error);
                let mut inner = self.core.run_callbacks(&result, inner);
                inner.stage = ResultState::ready(result);
            }
        }
    }

    /// A future of what `f` makes of the output. An error of the task stays that error; a panic of `f` is
    /// [`TaskError::Panicked`].
    ///
    /// It stands for the same task: it has its [id](Self::id) and its [state](Self::state), and
    /// [`cancel`](Self::cancel) cancels the task. `f` runs in this process: at once if the task is done,
    /// else at the end of the task, after its callbacks and on their thread; see
    /// [`on_done`](Self::on_done).
    ///
    /// ```
    /// # use procession::{Context, Executor, Failure, Task, ThreadPool};
    /// # use serde::{Deserialize, Serialize};
    /// # #[derive(Serialize, Deserialize)]
    /// # struct Square(u64);
    /// # impl Task for Square {
    /// #     const NAME: &'static str = "square";
    /// #     type Output = u64;
    /// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
    /// # }
    /// let pool = ThreadPool::new(2);
    /// let text = pool.submit(Square(7)).map(|square| square.to_string());
    /// assert_eq!(text.result(), Ok("49".to_owned()));
    /// ```
    pub fn map<U: Send + 'static>(mut self, f: impl FnOnce(T) -> U + Send + 'static) -> Future<U>
    where
        T: Send + 'static,
    {
        let (promise, mut mapped) = mapped_promise(&self.core);
        mapped.cancels_on_drop = std::mem::take(&mut self.cancels_on_drop);
        self.core.continue_with(move |result| {
            let mapped =
                result.and_then(|output| panics::catch(|| f(output)).map_err(TaskError::from));
            promise.complete(mapped);
        });
        mapped
    }

    fn failed(&self) -> bool {
        let stage = &self.core.lock().stage;
        matches!(
            stage,
            ResultState::Ready(Err(_))
                | ResultState::InCallback(Outcome::Error | Outcome::Cancelled)
        )
    }
}
