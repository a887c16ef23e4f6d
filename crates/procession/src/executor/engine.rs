//! [`Engine`]: what each kind of executor implements, and what it needs for that.

use std::fmt;
use std::sync::{Arc, Weak};

use super::Job;
#[cfg(doc)]
use super::{Executor, JobRunner};
use crate::future::TaskControl;
use crate::task::TaskId;

/// The part of an executor that each kind implements. [`Executor`], with the methods for callers, is
/// implemented for every `Engine`.
///
/// Use it as `dyn Engine` where the kind of executor is chosen at run time. Implement it for an
/// executor of your own: a [`Job`] is a task with the promise of its result, and a [`JobRunner`] runs
/// it. The example `own_executor.rs` of this crate has a queue, a thread and cancelling; `own_threads.rs` has
/// several threads and a priority for each task. This one runs each task on a thread of its own:
///
/// ```
/// use std::sync::{Arc, Mutex};
/// use std::thread::{self, JoinHandle};
///
/// use procession::{Engine, Executor, Job, JobRunner, Shutdown};
/// # use procession::{Context, Failure, Task};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)]
/// # struct Square(u64);
/// # impl Task for Square {
/// #     const NAME: &'static str = "square";
/// #     type Output = u64;
/// #     fn run(self, _: &Context) -> Result<u64, Failure> { Ok(self.0 * self.0) }
/// # }
///
/// #[derive(Default)]
/// struct ThreadPerTask {
///     runner: Arc<JobRunner>,
///     threads: Mutex<Vec<JoinHandle<()>>>,
/// }
///
/// impl Engine for ThreadPerTask {
///     fn enqueue(&self, job: Job) {
///         let runner = Arc::clone(&self.runner);
///         self.threads.lock().unwrap().push(thread::spawn(move || runner.run(job, 0)));
///     }
///
///     fn ahead(&self) -> usize {
///         8
///     }
///
///     fn shut_down(&self, _: Shutdown) {
///         let threads = std::mem::take(&mut *self.threads.lock().unwrap());
///         threads.into_iter().for_each(|thread| drop(thread.join()));
///     }
/// }
///
/// let executor = ThreadPerTask::default();
/// let future = executor.submit(Square(7));
/// assert_eq!(future.result(), Ok(49));
/// assert!(executor.map((1..=3).map(Square)).eq([Ok(1), Ok(4), Ok(9)]));
/// executor.shutdown(Shutdown::Wait);
/// ```
///
/// **Options of a task**, such as a priority, are not in its [`Job`]. An executor that has some returns values which
/// hold them beside a reference to the executor, and which implement `Engine` as well: `executor.at(10).submit(task)`,
/// or `map` in the same way.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an executor",
    label = "not an executor",
    note = "executors are `Sequential`, `ThreadPool`, `ProcessPool` and `dyn Engine`; a `Builder` becomes one by \
            `build`"
)]
pub trait Engine: Send + Sync {
    /// Takes a job. The executor completes it, now or later, by [`JobRunner::run`] or [`Job::fail`]. This
    /// includes a job that cannot be run: after a shutdown, the error is
    /// [`PoolError::ShutDown`](crate::PoolError::ShutDown). See the example of [`Engine`].
    fn enqueue(&self, job: Job);

    /// The number of tasks that [`map`](Executor::map) hands over ahead of its consumer; at least one.
    /// It should keep all workers busy, and is the bound on what is taken from an endless iterator.
    /// See the example of [`Engine`].
    fn ahead(&self) -> usize;

    /// Cancels a task whose result is not needed, if it has not begun. A task that runs is left alone.
    /// Default: [`Canceller::cancel`], which must then leave running tasks alone. See the example of [`Cancel`].
    fn abandon(&self, id: TaskId) {
        if let Some(canceller) = self.canceller() {
            canceller.cancel(id);
        }
    }

    /// What the futures of this executor ask to be cancelled. Default: none, so
    /// [`Future::cancel`](crate::Future::cancel) returns false. See the example of [`Cancel`].
    fn canceller(&self) -> Option<Canceller> {
        None
    }

    /// The implementation of [`Executor::shutdown`]: all futures are done and all threads have ended when it returns,
    /// except in a task or a callback of the executor, whose thread cannot wait for itself. Jobs that are cancelled are
    /// completed together, by [`Job::fail_all`]. When no task runs any more, [`JobRunner::clear_locals`] drops what tasks
    /// have kept by [`Context::local`](crate::Context::local). See the examples of [`Engine`] and [`JobRunner`].
    fn shut_down(&self, how: Shutdown);
}

/// The part of an [`Engine`] that its futures use; see [`Canceller`].
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// use std::sync::{Arc, Mutex};
///
/// /// Runs all of its tasks when it is shut down.
/// #[derive(Default)]
/// struct AtTheEnd {
///     queue: Arc<Queue>,
///     runner: JobRunner,
/// }
///
/// #[derive(Default)]
/// struct Queue(Mutex<Vec<Job>>);
///
/// impl Cancel for Queue {
///     fn cancel(&self, id: TaskId) -> bool {
///         let mut jobs = self.0.lock().unwrap();
///         let found = jobs.iter().position(|job| job.id() == id).map(|index| jobs.remove(index));
///         drop(jobs); // since `fail` calls callbacks
///         let is_found = found.is_some();
///         found.into_iter().for_each(|job| job.fail(TaskError::Cancelled));
///         is_found
///     }
///
///     fn can_wait_for(&self, _: TaskId) -> bool {
///         false // the thread that waits runs all tasks
///     }
/// }
///
/// impl Engine for AtTheEnd {
///     fn enqueue(&self, job: Job) {
///         self.queue.0.lock().unwrap().push(job);
///     }
///
///     fn ahead(&self) -> usize {
///         1
///     }
///
///     fn canceller(&self) -> Option<Canceller> {
///         Some(Canceller::new(&self.queue))
///     }
///
///     fn shut_down(&self, _: Shutdown) {
///         let jobs = std::mem::take(&mut *self.queue.0.lock().unwrap());
///         jobs.into_iter().for_each(|job| self.runner.run(job, 0));
///     }
/// }
///
/// let executor = AtTheEnd::default();
/// let (first, second) = (executor.submit(square(2)), executor.submit(square(3)));
/// assert!(first.cancel());
/// executor.shutdown(Shutdown::Wait);
/// assert_eq!(first.result(), Err(TaskError::Cancelled));
/// assert_eq!(second.result(), Ok(9));
/// # }
/// ```
pub trait Cancel: Send + Sync + 'static {
    /// Cancels a task that has not begun: takes its [`Job`] out of the queue and completes it by
    /// [`Job::fail`] with [`TaskError::Cancelled`](crate::TaskError::Cancelled). Returns whether it was
    /// in the queue.
    ///
    /// Release the lock of the queue before [`Job::fail`], which calls callbacks. See the example of [`Cancel`].
    fn cancel(&self, id: TaskId) -> bool;

    /// Called when a thread that runs a task or a callback is about to wait for the task `id`. Returns
    /// false if the task cannot be run while this thread waits: the wait then returns
    /// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock).
    ///
    /// An executor whose only thread runs the task or callback that waits must return false: nothing
    /// else would ever run the task. The same is so with several threads if all of them wait for tasks that
    /// are pending, and no method is called when a wait ends. So an executor whose tasks wait for each other starts a
    /// thread here that runs the task in place of the one that waits, as the example `own_threads.rs` does.
    /// See the example of [`Cancel`].
    fn can_wait_for(&self, id: TaskId) -> bool;

    /// How the tasks of a [`map`](Executor::map) are taken several at a time, for an executor of other
    /// hosts. Default: they are not. See the example of [`RemoteChunks`](crate::RemoteChunks).
    #[cfg(feature = "remote")]
    fn remote_chunks(&self) -> Option<&crate::RemoteChunks> {
        None
    }
}

impl<C: Cancel> TaskControl for C {
    fn cancel(&self, id: TaskId) -> bool {
        Cancel::cancel(self, id)
    }

    fn prioritize(self: Arc<Self>, id: TaskId) -> bool {
        self.can_wait_for(id)
    }

    #[cfg(feature = "remote")]
    fn chunks(&self) -> Option<&dyn super::chunk::ChunkExecutor> {
        self.remote_chunks().map(|chunks| chunks as _)
    }
}

/// A weak reference to the executor, which each of its futures has: a future does not keep its executor
/// alive.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(1);
/// let future = pool.submit(square(7));
/// let canceller = pool.canceller().expect("a thread pool has one");
/// let was_in_the_queue = canceller.cancel(future.id());
/// assert_eq!(future.result().is_err(), was_in_the_queue);
/// # }
/// ```
#[derive(Clone)]
pub struct Canceller(Weak<dyn TaskControl>);

impl Canceller {
    /// A reference to the part of an executor that implements [`Cancel`]. See the example of [`Cancel`].
    pub fn new<C: Cancel>(executor: &Arc<C>) -> Self {
        Self::of_executor(executor)
    }

    pub(crate) fn of_executor<C: TaskControl + 'static>(executor: &Arc<C>) -> Self {
        let weak: Weak<C> = Arc::downgrade(executor);
        Self(weak)
    }

    /// Cancels a task, as [`Future::cancel`](crate::Future::cancel) does. Returns whether it was
    /// cancelled. See the example of [`Canceller`].
    pub fn cancel(&self, id: TaskId) -> bool {
        self.0.upgrade().is_some_and(|executor| executor.cancel(id))
    }

    pub(crate) fn control(&self) -> &Weak<dyn TaskControl> {
        &self.0
    }

    pub(crate) fn into_control(self) -> Weak<dyn TaskControl> {
        self.0
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").finish_non_exhaustive()
    }
}

/// What a shutdown does with the tasks of an executor. A later value is stricter.
///
/// ```
/// use procession::{Executor, Shutdown, ThreadPool};
///
/// let pool = ThreadPool::new(2);
/// pool.shutdown(Shutdown::Wait);
/// assert!(Shutdown::Kill > Shutdown::CancelPending);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Shutdown {
    /// All submitted tasks are run.
    Wait,
    /// Tasks that have not begun are cancelled; those that run are waited for.
    CancelPending,
    /// All tasks are cancelled, and worker processes are killed. Threads cannot be killed: their tasks
    /// are asked to stop, by [`Context::stop_requested`](crate::Context::stop_requested), and are
    /// waited for.
    Kill,
}
