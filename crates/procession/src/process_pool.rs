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
//! | [`submit`] | the public methods that submit tasks with options |
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
mod control_groups;
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
#[cfg(feature = "journal")]
pub(crate) mod journal_lines;
mod listeners;
mod measures;
mod output;
mod pool_journal;
mod program;
mod receive;
mod room;
mod socket_dir;
mod start_dir;
mod start_failure;
mod start_worker;
mod state;
mod stats;
mod submission;
mod submit;
mod submit_async;
mod supervisor;
mod suspension;
mod task_control;
mod template;
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
pub use submit::Full;
pub use submit_async::SubmitAsync;
pub use suspension::{resume_all, suspend_all};
#[cfg(all(feature = "tracing", any(test, feature = "fuzzing")))]
pub(crate) use traces::traced_from;

use self::clock::Clock;
use self::inner::{EndSignal, PoolInner, Setup};
use self::listeners::{ListenerFns, Listeners};
use self::start_dir::StartDirSlot;
use self::state::PoolState;
use self::work_item::ItemPool;
use crate::error::PoolError;
use crate::executor::callbacks::{self, CallQueues};
use crate::executor::{Canceller, Engine, Job, Shutdown, ShutdownAsync};
#[cfg(feature = "remote")]
use crate::executor::{chunk::EncodedChunk, job::EncodedJob};
use crate::sandbox::SandboxReport;
use crate::scheduler::{Event, Scheduler};
use crate::task::TaskId;
#[cfg(feature = "remote")]
use crate::task_options::TaskOptions;
use crate::waiting;
use procession_os::fork::Origin;
use procession_os::threads;

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
    /// ```no_run
    /// # use procession::*;
    /// # fn main() -> Result<(), PoolError> {
    /// worker::serve_if_asked(Registry::new()); // or `#[procession::main]`
    /// let pool = ProcessPool::new()?;
    /// println!("{} workers", pool.workers());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Builder::build`].
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// A builder with the default settings.
    ///
    /// ```no_run
    /// # use procession::*;
    /// # fn main() -> Result<(), PoolError> {
    /// let pool = ProcessPool::builder().workers(2).build()?;
    /// # Ok(()) }
    /// ```
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// Number of worker processes that the pool keeps at most, without
    /// [spares](Builder::spares).
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// fn is_busy(pool: &ProcessPool) -> bool {
    ///     pool.stats().running >= pool.workers()
    /// }
    /// ```
    pub fn workers(&self) -> usize {
        self.inner.setup.scheduling.slots.len()
    }

    /// Process ids of the workers that live now, spares included, in the order of their indices. A worker that is being
    /// replaced may have two.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// fn show(pool: &ProcessPool) {
    ///     println!("gdb -p {:?}", pool.pids());
    /// }
    /// ```
    pub fn pids(&self) -> Vec<u32> {
        if self.inner.origin.is_forked() {
            return Vec::new();
        }
        self.inner.lock_state().pids()
    }

    /// The layers of the [`Sandbox`](crate::Sandbox) that the workers have. `None` until a worker is ready, so also just
    /// after [`build`](Builder::build): there is a report after the first result or
    /// [`PoolEvent::WorkerStarted`](crate::PoolEvent::WorkerStarted).
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// fn show(pool: &ProcessPool) {
    ///     if let Some(report) = pool.sandbox_report().filter(|report| !report.is_complete()) {
    ///         eprintln!("without some layers: {:?}", report.layers());
    ///     }
    /// }
    /// ```
    pub fn sandbox_report(&self) -> Option<SandboxReport> {
        let report = &self.inner.sandbox_report;
        report.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Counters of the pool up to now.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// fn show(pool: &ProcessPool) {
    ///     let stats = pool.stats();
    ///     println!("{} pending, {} running, {} done, {} failed", stats.pending, stats.running, stats.done, stats.failed);
    /// }
    /// ```
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// The directory of this run's journal, if the pool keeps one: see [`Builder::journal`].
    ///
    /// ```no_run
    /// # use procession::{PoolError, ProcessPool};
    /// let pool = ProcessPool::builder().journal("logs").build()?;
    /// println!("see: coordinator logs {}", pool.journal_dir().expect("a journal").display());
    /// # Ok::<(), PoolError>(())
    /// ```
    #[cfg(feature = "journal")]
    pub fn journal_dir(&self) -> Option<&std::path::Path> {
        self.inner.listeners.journal().map(|journal| journal.dir())
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
    pub(crate) fn typical_task_run_time(&self) -> Option<std::time::Duration> {
        self.inner.lock_state().scheduler.typical_run_time()
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
                start_dir: StartDirSlot::default(),
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
            .map_err(|error| PoolError::System(threads::refusal(&error)))?;
        inner.add_thread(thread, None);
        suspension::register(&inner);
        inner.run_effects(effects, None);
        Ok(Self { inner })
    }
}

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
