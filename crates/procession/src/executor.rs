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

mod batch;
mod callbacks;
mod job;
mod map;
mod processes;
mod sequential;
mod threads;

pub use batch::Batch;
pub use job::{Canceller, Job};
pub use map::Map;
pub use processes::{
    Builder, Fault, Full, Limits, Output, PoolEvent, PrivateDir, ProcessPool, Recycling, Retries,
    Stats, Stream, TaskOptions, Times, Usage,
};
#[cfg(any(test, feature = "simulation"))]
pub use processes::{bench_driver, simulation};
pub use processes::{resume_all, suspend_all};
pub use sequential::Sequential;
pub use threads::ThreadPool;

use crate::future::Future;
use crate::task::{Task, TaskId};

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
    /// keep the workers busy: see [`ahead`](Engine::ahead) and [`frame`](Engine::frame). When the
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

/// The heart of an executor: what each kind does in its own way. Usable as `dyn Engine`; callers
/// use the methods of [`Executor`].
pub trait Engine: Send + Sync {
    /// Takes a job over; its future tells what became of it.
    fn enqueue(&self, job: Job);

    /// How many tasks [`map`](Executor::map) hands over ahead of the consumer: enough to keep all
    /// workers busy, and bounded, so that an endless iterator is no problem.
    fn ahead(&self) -> usize;

    /// How many tasks it is good to hand over together, as far as is known by now: many if they
    /// are so short that handing them over one by one would take longer than they do.
    fn frame(&self) -> usize {
        1
    }

    /// How many such frames [`map`](Executor::map) hands over ahead of the consumer.
    fn frames(&self) -> usize {
        1
    }

    /// Takes over many tasks at once; only asked of an executor with a [`frame`](Self::frame)
    /// beyond one.
    fn enqueue_batch(&self, batch: Batch) {
        drop(batch);
    }

    /// Cancels what has not begun of a task, or of a batch by the id of its first task, whose
    /// outcome is not wanted any more. What runs is left alone.
    fn abandon(&self, id: TaskId) {
        let _ = id;
    }

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
