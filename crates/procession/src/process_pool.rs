//! The process pool: its face, and how its parts hang together.
//!
//! ```text
//!   callers ── submit, cancel, shutdown ──┐                 ┌──► Complete: promise kept
//!   handler threads ── replies, ends ─────┼──► Scheduler ───┼──► Send, Recall: to a worker
//!   supervisor thread ── time, failures ──┘   (under lock)  └──► Spawn: to the supervisor
//! ```
//!
//! - [`scheduler`] decides and does nothing; [`shared`] does what it decided, after the lock was
//!   released.
//! - [`supervisor`] starts workers, [`handler`] talks to one of them each, [`child`] is a worker as
//!   the operating system sees it and [`handle`] as the pool does.
//! - [`simulation`] tries the scheduler in a world of chance.

mod builder;
mod child;
mod claims;
mod clock;
mod completion;
mod endings;
mod handler;
mod inner;
mod program;
mod receive;
mod socket_dir;
mod stats;
mod supervisor;
mod suspension;
mod task_options;
mod trace;
mod work_item;
mod worker_handle;

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError, Weak, mpsc};
use std::time::Duration;

use rustc_hash::FxHashMap;

pub use builder::Builder;
pub use child::{Stream, Usage};
pub use socket_dir::PrivateDir;
pub use stats::{Stats, Times};
pub use suspension::{resume_all, suspend_all};
pub use task_options::TaskOptions;

use self::clock::Clock;
use self::inner::{PoolInner, PoolState, Setup};
use self::stats::Counts;
use self::work_item::ItemPool;
use crate::error::{Exit, PoolError};
use crate::executor::callbacks::{self, CallQueues};
use crate::executor::{Batch, Canceller, Engine, Job, Shutdown};
use crate::future::Future;
use crate::retries::Fault;
use crate::scheduler::{Event, Scheduler};
use crate::task::{Task, TaskId};
use crate::waiting::{self, Need};
use procession_os::fork::Origin;

/// An executor that runs tasks in worker processes.
///
/// A worker may segfault, hang, leak or be killed: that costs the task that it ran, and a new
/// worker takes its place. See [`Builder`] for what can be set.
///
/// Dropped, the pool cancels all that is not finished, kills its workers and leaves nothing
/// behind; to have everything finished, [`shutdown`](super::Executor::shutdown) it with
/// [`Shutdown::Wait`].
pub struct ProcessPool {
    shared: Arc<PoolInner>,
}

/// Something that happened in a process pool and that an operator may want to know.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A worker is ready for tasks.
    WorkerStarted {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
    },
    /// A process ended before it was ready to be a worker.
    WorkerNotStarted {
        /// Which worker it was to be, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Why, in words.
        reason: String,
        /// Whether that is a loss: a pool that ends has no need of those that are still starting.
        was_needed: bool,
    },
    /// A worker that had been ready ended.
    WorkerExited {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// How it ended: with code 0 if it was let go.
        exit: Exit,
        /// What it used, also if it was killed.
        usage: Usage,
    },
    /// A worker was to be ended and did not end: the operating system refuses it, or cannot do it.
    /// The pool goes on without it; what it ran has failed. [`WorkerExited`](Self::WorkerExited)
    /// follows, with [`Exit::WrittenOff`].
    WorkerWrittenOff {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Why, in words.
        reason: String,
    },
    /// A worker that was to run several tasks at a time runs fewer, because the system refused to
    /// start more threads in it. [`WorkerStarted`](Self::WorkerStarted) came before.
    WorkerNarrowed {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// How many tasks it runs at a time.
        threads: usize,
        /// How many it was to run.
        wanted: usize,
        /// What the system said.
        reason: String,
    },
    /// A task has left its worker in a state in which it cannot receive or send what is large, or has
    /// closed its standard streams. The worker is replaced when it has done what it has begun; what it
    /// has not begun is given to another.
    WorkerUnfit {
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// What the worker said.
        reason: String,
    },
    /// There is no process for a worker now, or it cannot work: most often because the system is short
    /// of threads, processes, descriptors or memory. It is tried again, with a pause that grows to
    /// two seconds, as long as another worker is ready. Without any, the pool is broken after half a
    /// minute of shortage, or sooner where there is another cause.
    WorkerDelayed {
        /// Which worker, counted from 0.
        worker: usize,
        /// Why, in words.
        reason: String,
    },
    /// A task was handed to a worker. It begins when those that were handed over before it are
    /// done; only short tasks are handed over ahead.
    TaskStarted {
        /// The task, as its future has it.
        task: TaskId,
        /// Which worker, counted from 0.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Which attempt this is, counted from 1.
        attempt: u32,
    },
    /// A task came to grief and will be run again.
    TaskRetried {
        /// The task, as its future has it.
        task: TaskId,
        /// What came between.
        fault: Fault,
        /// Which attempt the next one is.
        attempt: u32,
        /// How long until then, at least.
        pause: Duration,
    },
    /// A task ran longer than it may, for the last time, and was ended with its worker.
    TaskTimedOut {
        /// The task, as its future has it.
        task: TaskId,
        /// How long it was allowed to run.
        after: Duration,
    },
    /// A program that was to serve as worker cannot, so another one is used.
    ProgramPassedOver {
        /// The program that was tried.
        program: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// A line that a worker wrote to its standard output or error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<'l> {
    /// Which worker, counted from 0.
    pub worker: usize,
    /// Its process id.
    pub pid: u32,
    /// Where it wrote to.
    pub stream: Stream,
    /// The line, without its end.
    pub line: &'l str,
}

impl ProcessPool {
    /// A pool of one worker per CPU, which run this same program; it must call
    /// [`serve_if_asked`](crate::worker::serve_if_asked) first thing in `main`.
    pub fn new() -> Result<Self, PoolError> {
        Self::builder().build()
    }

    /// For a pool that is not like all others.
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// How many worker processes the pool keeps.
    pub fn workers(&self) -> usize {
        self.shared.setup.scheduling.slots.len()
    }

    /// The process ids of the workers that live now.
    pub fn pids(&self) -> Vec<u32> {
        if self.shared.origin.is_forked() {
            return Vec::new();
        }
        self.shared.pids(&self.shared.lock_state())
    }

    /// What the pool has done so far.
    pub fn stats(&self) -> Stats {
        if self.shared.origin.is_forked() {
            return Stats::default();
        }
        let state = self.shared.lock_state();
        let pids = self.shared.pids(&state);
        let (pending, running) = state.scheduler.not_begun_and_running();
        drop(state);
        let counts = self.shared.counts();
        let Counts { done, failed, cancelled, retried, respawned, wait, run } = &*counts;
        Stats {
            pids,
            pending,
            running,
            done: *done,
            failed: *failed,
            cancelled: *cancelled,
            retried: *retried,
            respawned: *respawned,
            wait: wait.clone(),
            run: run.clone(),
        }
    }

    /// Like [`submit`](super::Executor::submit), under terms of the task's own.
    pub fn submit_with<T: Task>(&self, options: TaskOptions, task: T) -> Future<T::Output> {
        let (job, future) = Job::new(task, self.canceller());
        self.shared.wait_for_room();
        self.shared.enter(job, options.resolve(self.shared.setup.options));
        future
    }

    /// Like [`submit`](super::Executor::submit), but gives the task back where that would wait,
    /// because as many tasks are pending as [`Builder::max_pending`] allows.
    pub fn try_submit<T: Task>(&self, task: T) -> Result<Future<T::Output>, Full<T>> {
        self.try_submit_with(TaskOptions::new(), task)
    }

    /// [`try_submit`](Self::try_submit) under terms of the task's own.
    pub fn try_submit_with<T: Task>(
        &self,
        options: TaskOptions,
        task: T,
    ) -> Result<Future<T::Output>, Full<T>> {
        // In a forked child the lock may be held for ever; the future tells.
        if !self.shared.origin.is_forked()
            && !self.shared.try_take_room(&mut self.shared.lock_state())
        {
            return Err(Full(task));
        }
        let (job, future) = Job::new(task, self.canceller());
        self.shared.enter(job, options.resolve(self.shared.setup.options));
        Ok(future)
    }

    fn start(setup: Setup) -> Result<Self, PoolError> {
        let (origin, clock) = (Origin::here(), Clock::default());
        let now = clock.now();
        let (scheduler, actions) = Scheduler::new(setup.scheduling.clone(), now);
        let (orders, receiver) = mpsc::channel();
        let (workers, stack) = (setup.scheduling.slots.len(), setup.stack);
        let shared = Arc::new_cyclic(|shared: &Weak<PoolInner>| PoolInner {
            callbacks: CallQueues::new(waiting::address(shared.as_ptr()), workers + 1, stack),
            setup,
            state: Mutex::new(PoolState {
                scheduler,
                handles: FxHashMap::default(),
                entering: 0,
                lost: HashSet::new(),
                wakes_at: None,
            }),
            room: Condvar::new(),
            counts: Mutex::default(),
            item_pool: ItemPool::default(),
            orders,
            threads: Mutex::default(),
            collapsed: OnceLock::new(),
            origin,
            clock,
            ended: Mutex::new(false),
            has_ended: Condvar::new(),
        });
        let supervised = Arc::clone(&shared);
        let supervisor = shared
            .start_first_thread("supervisor".to_owned(), move || {
                supervisor::supervise(&supervised, &receiver);
            })
            .map_err(|error| PoolError::System(format!("cannot start a thread: {error}")))?;
        shared.keep(supervisor, None);
        suspension::note(&shared);
        let mut state = shared.lock_state();
        let effects = shared.apply_actions(&mut state, actions);
        drop(state);
        shared.run_effects(effects, None);
        Ok(Self { shared })
    }
}

/// There is no room for a further pending task; holds the task that was to be submitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many tasks are pending as the pool allows")]
pub struct Full<T>(pub T);

impl Engine for ProcessPool {
    fn enqueue(&self, job: Job) {
        self.shared.wait_for_room();
        self.shared.enter(job, self.shared.setup.options);
    }

    fn ahead(&self) -> usize {
        // Enough for full outboxes, and as much again waiting.
        self.shared.setup.scheduling.slots.iter().sum::<usize>() * 2 + self.workers() * 64
    }

    fn chunk_size(&self) -> usize {
        self.shared.chunk_size()
    }

    fn chunks_ahead(&self) -> usize {
        // One that runs, one that lies behind it, and the same again while these are consumed.
        self.workers() * 4
    }

    fn enqueue_batch(&self, batch: Batch) {
        self.shared.enter_batch(batch);
    }

    fn abandon(&self, id: TaskId) {
        if !self.shared.origin.is_forked() {
            self.shared.handle(Event::Abandoned { id });
        }
    }

    fn canceller(&self) -> Option<Canceller> {
        let weak: Weak<PoolInner> = Arc::downgrade(&self.shared);
        Some(Canceller(weak))
    }

    fn shut_down(&self, how: Shutdown) {
        // The workers are the parent's, and its threads are not here.
        if self.shared.origin.is_forked() {
            return;
        }
        self.shared.handle(Event::ShutDown(how));
        if callbacks::is_within(&*self.shared) {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut ended = self.shared.ended.lock().unwrap_or_else(PoisonError::into_inner);
        while !*ended {
            ended = self.shared.has_ended.wait(ended).unwrap_or_else(PoisonError::into_inner);
        }
        drop(ended);
        let threads = std::mem::take(&mut *self.shared.threads());
        for thread in threads {
            thread.join();
        }
        // Nothing completes a future any more.
        self.shared.callbacks.finish();
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
