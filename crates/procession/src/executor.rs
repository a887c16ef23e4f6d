//! Who does it: the trait [`Executor`] and its three kinds.
//!
//! | | runs tasks | a task that segfaults or hangs |
//! |---|---|---|
//! | [`Sequential`] | in the caller's thread, at once | takes the program along |
//! | [`ThreadPool`] | on threads of this process | takes the program along |
//! | [`ProcessPool`] | in worker processes | costs that task, nothing else |
//!
//! Each kind implements a small heart, [`Engine`]; [`submit`](Executor::submit) and
//! [`map`](Executor::map) are built on it once, so they mean the same everywhere.

pub(crate) mod batch;
pub(crate) mod callbacks;
mod engine;
pub(crate) mod job;
mod map;
mod sequential;
mod threads;

pub use batch::Batch;
pub use engine::{Engine, Shutdown};
pub use job::{Canceller, Job};
pub use map::Map;
pub use sequential::Sequential;
pub use threads::ThreadPool;

use crate::future::Future;
use crate::task::Task;

/// Something that runs tasks: what a caller needs of it.
///
/// Implemented for every [`Engine`], so also for `dyn Engine`, where the kind is chosen at run
/// time.
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
    /// Hands a task over and gives its future.
    ///
    /// This never fails: a task that cannot be run, say because the executor was shut down, has a
    /// future that holds the error.
    fn submit<T: Task>(&self, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.enqueue(job);
        future
    }

    /// Runs many tasks and yields their results in the order of the tasks.
    ///
    /// The tasks are taken from the iterator as results are consumed, only so many beyond them as
    /// keep the workers busy: see [`ahead`](Engine::ahead) and [`chunk_size`](Engine::chunk_size). When the
    /// iterator of the results is dropped before its end, those tasks beyond that have not begun
    /// are cancelled; those that run come to their end, and their results are dropped.
    fn map<I>(&self, tasks: I) -> Map<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        Map::new(self, tasks.into_iter())
    }

    /// Refuses further tasks, deals with those it has as `how` says, and returns when nothing of
    /// the executor is left: no thread, no process. Every future is done then.
    ///
    /// Called from one of the executor's own callbacks it returns at once and the rest happens
    /// behind it, since the callback's thread is part of what would have to end. A second call
    /// may be stricter than the first.
    fn shutdown(&self, how: Shutdown) {
        self.shut_down(how);
    }
}

impl<E: Engine + ?Sized> Executor for E {}
