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

mod callbacks;
mod job;
mod processes;
mod sequential;
mod threads;

use std::collections::VecDeque;

pub use job::{Canceller, Job};
pub use processes::{
    Builder, Fault, Full, Limits, Output, PoolEvent, PrivateDir, ProcessPool, Recycling, Retries,
    Stats, Stream, Terms, Times, Usage,
};
#[doc(hidden)]
pub use processes::{drill, simulation};
pub use sequential::Sequential;
pub use threads::ThreadPool;

use crate::error::TaskError;
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
    /// The tasks are taken from the iterator as results are consumed, never more than
    /// [`ahead`](Engine::ahead) beyond them.
    fn map<I>(&self, tasks: I) -> Map<'_, Self, I::IntoIter>
    where
        I: IntoIterator<Item: Task>,
    {
        Map { executor: self, tasks: Some(tasks.into_iter()), ahead: VecDeque::new() }
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

/// The heart of an executor: what each kind does in its own way. Usable as `dyn Engine`; callers
/// use the methods of [`Executor`].
pub trait Engine: Send + Sync {
    /// Takes a job over; its future tells what became of it.
    fn enqueue(&self, job: Job);

    /// How many tasks [`map`](Executor::map) hands over ahead of the consumer: enough to keep all
    /// workers busy, and bounded, so that an endless iterator is no problem.
    fn ahead(&self) -> usize;

    /// The one to ask when a future of this executor is cancelled.
    fn canceller(&self) -> Option<Canceller>;

    /// See [`Executor::shutdown`].
    fn shut_down(&self, how: Shutdown);
}

/// What becomes of the tasks of an executor that is shut down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Shutdown {
    /// All tasks that were submitted are run.
    Wait,
    /// Tasks that no worker has begun are cancelled, the others run to their end.
    CancelPending,
    /// Tasks that run in worker processes are killed, too, and cancelled. Threads cannot be
    /// killed: there it means the same as [`CancelPending`](Self::CancelPending).
    Kill,
}

/// The iterator of [`Executor::map`].
pub struct Map<'e, E: Engine + ?Sized, I: Iterator<Item: Task>> {
    executor: &'e E,
    tasks: Option<I>,
    ahead: VecDeque<Future<<I::Item as Task>::Output>>,
}

impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Iterator for Map<'_, E, I> {
    type Item = Result<<I::Item as Task>::Output, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let most = self.executor.ahead().max(1);
        while self.ahead.len() < most {
            // An iterator that has ended is not asked again: not all of them stay ended.
            let Some(task) = self.tasks.as_mut().and_then(Iterator::next) else {
                self.tasks = None;
                break;
            };
            self.ahead.push_back(self.executor.submit(task));
        }
        self.ahead.pop_front().map(Future::result)
    }
}

/// Results that nobody will consume need not be worked for.
impl<E: Engine + ?Sized, I: Iterator<Item: Task>> Drop for Map<'_, E, I> {
    fn drop(&mut self) {
        for future in self.ahead.drain(..).rev() {
            future.cancel();
        }
    }
}
