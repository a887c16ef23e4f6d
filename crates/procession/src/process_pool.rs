//! The process pool: [`ProcessPool`], its public methods. `process_pool/README.md` in the sources
//! describes the threads of a pool and their locks.
//!
//! ```text
//!   callers ── submit, cancel, shutdown ──┐                 ┌──► Complete: a promise
//!   handler threads ── replies, ends ─────┼──► Scheduler ───┼──► Send, Recall, Kill: to a worker
//!   supervisor thread ── time, failures ──┘   (under lock)  └──► Spawn: to the supervisor
//! ```
//!
//! | module | what it does |
//! |---|---|
//! | [`inner`], [`state`], [`effects`] | events to the scheduler under its lock, and its actions after it |
//! | [`submission`], [`completion`], [`task_control`] | tasks in, results out, and what futures ask of the pool |
//! | [`supervisor`], [`start_worker`] | the thread that starts processes, and ends them |
//! | [`handler`], [`handshake`], [`start_failure`] | one thread per process: handshake, replies |
//! | [`child`], [`output`] | two threads per process: its end, its output |
//! | [`worker_handle`], [`receive`], [`claims`] | one worker: calls to it, replies from it |
//! | [`listeners`], [`events`], [`trace`] | events, output and lines of tasks for the program |
//! | [`traces`] | spans and events of tasks for the program's subscriber |

mod builder;
mod child;
mod claims;
mod clock;
mod completion;
mod crash_keeper;
#[cfg(feature = "dashboard")]
mod dashboard;
mod effects;
mod endings;
mod events;
mod flood;
mod handler;
mod handshake;
mod initializer;
mod inner;
mod listeners;
mod measures;
mod output;
mod pool_journal;
mod program;
mod receive;
mod room;
mod socket_dir;
mod start_failure;
mod start_worker;
mod state;
mod stats;
mod submission;
mod submit_async;
mod supervisor;
mod suspension;
mod task_control;
mod trace;
mod traces;
mod unasked;
mod validate;
mod work_item;
mod worker_handle;

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, OnceLock, Weak, mpsc};

pub use builder::Builder;
pub use child::ResourceUsage;
#[cfg(feature = "dashboard")]
pub use dashboard::PoolDashboard;
pub use events::{Output, PoolEvent};
pub use output::OutputStream;
pub use socket_dir::PrivateDir;
pub use stats::{Stats, Times};
pub use submit_async::SubmitAsync;
pub use suspension::{resume_all, suspend_all};

use self::clock::Clock;
use self::inner::{EndSignal, PoolInner, Setup};
use self::listeners::{ListenerFns, Listeners};
use self::state::PoolState;
use self::work_item::ItemPool;
use crate::error::PoolError;
use crate::executor::callbacks::{self, CallQueues};
use crate::executor::{Canceller, Engine, Job, Map, MapUnordered, Shutdown, ShutdownAsync};
#[cfg(feature = "remote")]
use crate::executor::{chunk::EncodedChunk, job::EncodedJob};
use crate::future::Future;
use crate::sandbox::SandboxReport;
use crate::scheduler::{Event, Scheduler};
use crate::task::{Task, TaskId};
use crate::task_options::TaskOptions;
use crate::waiting;
use procession_os::fork::Origin;

/// An executor that runs tasks in worker processes.
///
/// If a worker segfaults, hangs or is killed, the task that it ran fails, and another process
/// replaces it. [`Builder`] has the settings.
///
/// On drop, the pool cancels all tasks that are not finished, kills its workers, and waits until they
/// have ended. To finish all tasks, call [`shutdown`](super::Executor::shutdown) with
/// [`Shutdown::Wait`] before.
///
/// ```standalone_crate
/// use procession::{Context, Executor, Failure, ProcessPool, Registry, Shutdown, Task, worker};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Serialize, Deserialize)]
/// struct Square(u64);
///
/// impl Task for Square {
///     const NAME: &'static str = "square";
///     type Output = u64;
///     fn run(self, _: &Context) -> Result<u64, Failure> {
///         Ok(self.0 * self.0)
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     worker::serve_if_asked(Registry::new().with::<Square>()); // the workers run this program
///     let pool = ProcessPool::builder().workers(2).build()?;
///     let future = pool.submit(Square(7));
///     assert_eq!(future.result()?, 49);
///     pool.shutdown(Shutdown::Wait);
///     Ok(())
/// }
/// ```
pub struct ProcessPool {
    inner: Arc<PoolInner>,
}

impl ProcessPool {
    /// A pool with the default settings: one worker per CPU. The workers run the executable of this
    /// process, whose `main` must call [`serve_if_asked`](crate::worker::serve_if_asked) first.
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// A builder with the default settings.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Number of worker processes that the pool keeps at most, without
    /// [spares](Builder::spares).
    pub fn workers(&self) -> usize {
        self.inner.setup.scheduling.slots.len()
    }

    /// Process ids of the workers that live now, spares included, in the order of their indices. A worker that is being
    /// replaced may have two.
    pub fn pids(&self) -> Vec<u32> {
        if self.inner.origin.is_forked() {
            return Vec::new();
        }
        self.inner.lock_state().pids()
    }

    /// The layers of the [`Sandbox`](crate::Sandbox) that the workers have. `None` until a worker is ready.
    pub fn sandbox_report(&self) -> Option<SandboxReport> {
        let report = &self.inner.sandbox_report;
        report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Counters of the pool up to now.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The directory of this run's journal, if the pool keeps one: see [`Builder::journal`].
    #[cfg(feature = "journal")]
    pub fn journal_dir(&self) -> Option<&std::path::Path> {
        self.inner.listeners.journal().map(|journal| journal.dir())
    }

    /// Like [`submit`](super::Executor::submit), with options for this task.
    pub fn submit_with<T: Task>(&self, options: TaskOptions, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.inner.reserve(1);
        self.inner.submit(job, options.resolve(self.inner.setup.options));
        future
    }

    /// Like [`submit`](super::Executor::submit) for async code: where [`Builder::max_pending`] tasks are
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
    pub fn submit_async_with<T: Task>(&self, options: TaskOptions, task: T) -> SubmitAsync<'_, T> {
        SubmitAsync::new(self, options.resolve(self.inner.setup.options), task)
    }

    /// Like [`shutdown`](super::Executor::shutdown) for async code: a thread waits for the end of the
    /// workers, and the returned future is ready after it. The shutdown begins with its first poll.
    ///
    /// ```
    /// # use procession::{ProcessPool, Shutdown};
    /// async fn drain(pool: &ProcessPool) {
    ///     pool.shutdown_async(Shutdown::Wait).await; // all tasks that were submitted are done
    /// }
    /// ```
    pub fn shutdown_async(&self, how: Shutdown) -> ShutdownAsync {
        let inner = Arc::clone(&self.inner);
        ShutdownAsync::new(callbacks::address(&*self.inner), move || inner.shut_down(how))
    }

    /// Like [`map`](super::Executor::map), with options for each of these tasks.
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

    /// Like [`map_unordered`](super::Executor::map_unordered), with options for each of these tasks.
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

    /// Like [`submit`](super::Executor::submit), but never blocks.
    ///
    /// # Errors
    ///
    /// [`Full`], which holds the task, if [`Builder::max_pending`] tasks are pending.
    pub fn try_submit<T: Task>(&self, task: T) -> Result<Future<T::Output>, Full<T>> {
        self.try_submit_with(TaskOptions::new(), task)
    }

    /// Like [`try_submit`](Self::try_submit), with options for this task.
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

    #[cfg(feature = "remote")]
    pub(crate) fn submit_encoded(&self, encoded: EncodedJob, options: TaskOptions) {
        self.inner.reserve(1);
        self.inner.submit_encoded(encoded, options.resolve(self.inner.setup.options));
    }

    #[cfg(feature = "remote")]
    pub(crate) fn kill_tasks(&self, first: TaskId, tasks: u64) {
        self.inner.kill_tasks(first, tasks);
    }

    #[cfg(feature = "remote")]
    pub(crate) fn submit_encoded_chunk(&self, chunk: EncodedChunk, options: TaskOptions) {
        self.inner.submit_chunk(chunk, options.resolve(self.inner.setup.options));
    }

    fn start(setup: Setup, listeners: ListenerFns) -> Result<Self, PoolError> {
        let (origin, clock) = (Origin::here(), Clock::default());
        let now = clock.now();
        let (scheduler, actions) = Scheduler::new(setup.scheduling.clone(), now);
        let (supervisor, messages) = mpsc::channel();
        let (workers, stack) = (setup.scheduling.indices(), setup.stack);
        let inner = Arc::new_cyclic(|inner: &Weak<PoolInner>| {
            let address = waiting::address(inner.as_ptr());
            PoolInner {
                setup,
                state: Mutex::new(PoolState::new(scheduler)),
                room: Condvar::new(),
                counts: Mutex::default(),
                item_pool: ItemPool::default(),
                listeners: Listeners::new(address, listeners),
                callbacks: CallQueues::new(address, workers + 1, stack),
                supervisor,
                threads: Mutex::default(),
                joining: Mutex::default(),
                collapsed: OnceLock::new(),
                origin,
                clock,
                end: EndSignal::default(),
                sandbox_report: Mutex::default(),
            }
        });
        // Before the supervisor may send a `Tick`: an action on a worker that is not in the table of
        // processes yet would be lost.
        let mut state = inner.lock_state();
        let effects = inner.apply_actions(&mut state, actions);
        drop(state);
        let supervised = Arc::clone(&inner);
        let thread = inner
            .start_first_thread("supervisor".to_owned(), move || {
                supervisor::supervise(&supervised, &messages);
            })
            .map_err(|error| PoolError::System(format!("cannot start a thread: {error}")))?;
        inner.add_thread(thread, None);
        suspension::register(&inner);
        inner.run_effects(effects, None);
        Ok(Self { inner })
    }
}

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

impl Engine for ProcessPool {
    fn enqueue(&self, job: Job) {
        self.inner.reserve(1);
        self.inner.submit(job, self.inner.setup.options);
    }

    fn ahead(&self) -> usize {
        // Enough for full outboxes, and as many again that are pending.
        self.inner.setup.scheduling.slots.iter().sum::<usize>() * 2 + self.workers() * 64
    }

    fn abandon(&self, id: TaskId) {
        if !self.inner.origin.is_forked() {
            self.inner.handle(Event::Abandoned { id });
        }
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(Canceller::of_executor(&self.inner))
    }

    fn shut_down(&self, how: Shutdown) {
        self.inner.shut_down(how);
    }
}

impl Drop for ProcessPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}

impl fmt::Debug for ProcessPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessPool")
            .field("workers", &self.workers())
            .field("pids", &self.pids())
            .finish_non_exhaustive()
    }
}
