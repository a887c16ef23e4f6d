//! [`ThreadPool`]: runs tasks on threads of this process.
//!
//! One lock guards the queue (`threads/queue.rs`). A thread is started when a task is submitted and no
//! thread is idle, or when a thread takes something other than what it was woken for, up to the size of the pool.
//! The order of the queue is the order of submission, and a task can be cancelled by its id.
//!
//! Short tasks of `map` come in chunks. A thread that has no task takes part of a chunk that another
//! thread runs. So no task waits behind a long one of its chunk while a thread is idle.
//!
//! While tasks are short, one idle thread spins for 50 µs at most before it sleeps, and so does a caller that
//! waits for a result: sleep and wake-up take longer than such a task.
//!
//! A task that waits for another task of its pool occupies a thread, and all threads may be occupied in
//! this way. So awaited tasks are run first. If no thread is free for them, a further thread is
//! started, which ends when there are no more awaited tasks. There are never more further threads
//! than threads that wait.

mod idle;
mod pending;
mod queue;
mod work;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use self::queue::{Entry, JobQueue};
use super::callbacks;
use super::chunk::{LocalChunk, LocalChunkExecutor};
use super::{Canceller, Engine, Job, Shutdown, ShutdownAsync};
use crate::error::{PoolError, TaskError};
use crate::future::{TaskControl, Waiter};
use crate::panics::{self, Panic};
use crate::progress_lines::Said;
#[cfg(doc)]
use crate::task::Context;
use crate::task::TaskId;
use crate::transport::AdaptiveSpin;
use crate::waiting::{self, HandOver, Need};
use procession_os::fork::Origin;
use procession_os::threads::{self, ThreadSpec};

/// An executor that runs tasks on a limited number of threads of this process.
///
/// A task or a callback may wait for other tasks of the same pool. These are run first, if necessary
/// on a further thread, whose [`Context::worker`] is the index of an existing one. The limit is for
/// threads that do not wait.
///
/// [`map`](super::Executor::map) passes short tasks to the threads in chunks. So tasks of a map that wait
/// for each other by means of their own, such as a barrier, must not be more than the pool has threads:
/// they need not begin in their order.
///
/// On drop, the pool cancels the pending tasks, asks those that run to stop by
/// [`Context::stop_requested`], and waits for them: a thread cannot be killed.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// let pool = ThreadPool::new(2)
///     .stack_size(512 << 10) // 512 KiB
///     .on_say(|said| eprintln!("task {}: {}", said.task, said.line));
/// assert!(pool.map((1..=3).map(square)).eq([Ok(1), Ok(4), Ok(9)]));
/// assert_eq!(pool.shortage(), None); // both threads could be started
/// # }
/// ```
#[derive(Debug)]
pub struct ThreadPool {
    inner: Arc<ThreadPoolInner>,
}

#[derive(Debug)]
struct ThreadPoolInner {
    size: usize,
    queue: Mutex<JobQueue>,
    /// Number of times that the thread that spins was told to look for tasks or a shutdown.
    added: AtomicUsize,
    /// The first awaited task, or 0: threads leave other chunks for it.
    awaited: AtomicU64,
    spin: AdaptiveSpin,
    this: Weak<Self>,
    /// Notified when there is a task to take, or the pool is shut down.
    changed: Condvar,
    /// Notified when a thread has ended.
    ended: Condvar,
    origin: Origin,
}

/// The longest spin of a caller that waits for a result: about what sleep and wake-up take.
const SPIN: Duration = Duration::from_micros(50);

impl ThreadPool {
    /// A pool of at most `size` threads. A thread is started when there is a task for it.
    /// See the example of [`ThreadPool`].
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a thread pool needs at least one thread");
        let inner = Arc::new_cyclic(|this| ThreadPoolInner {
            size,
            queue: Mutex::default(),
            added: AtomicUsize::new(0),
            awaited: AtomicU64::new(0),
            spin: AdaptiveSpin::default(),
            this: Weak::clone(this),
            changed: Condvar::new(),
            ended: Condvar::new(),
            origin: Origin::here(),
        });
        Self { inner }
    }

    /// Sets the function that is called with each line that a task reports by [`Context::say`], on the
    /// thread of the task. Default: writes it to standard output. See the example of [`ThreadPool`].
    pub fn on_say(self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        // It is dropped without the lock.
        let before = self.inner.lock().runner.set_on_say(call);
        drop(before);
        self
    }

    /// Stack size of each thread, in bytes. Values below 256 KiB are raised to 256 KiB. Default: the
    /// default of the standard library, 2 MiB unless `RUST_MIN_STACK` is set.
    ///
    /// Smaller stacks let more threads start under a limit of memory. See the example of [`ThreadPool`].
    pub fn stack_size(self, bytes: usize) -> Self {
        self.inner.lock().stack = Some(bytes);
        self
    }

    /// A text about a shortage: fewer threads run than the pool has tasks for, because the system
    /// refused to start more. All tasks are run, fewer at a time. `None`: there is no shortage.
    /// See the example of [`ThreadPool`].
    pub fn shortage(&self) -> Option<String> {
        let queue = self.inner.lock();
        let refused = queue.refused.as_ref()?;
        let (started, size) = (queue.started, self.inner.size);
        // If no thread was started, each future has the error.
        (0 < started && started < size)
            .then(|| format!("only {started} of {size} threads could be started: {refused}"))
    }
}

impl ThreadPool {
    /// Like [`shutdown`](super::Executor::shutdown) for async code: a further thread waits for the end,
    /// and the returned future is ready after it. The shutdown begins with its first poll.
    ///
    /// ```
    /// # use procession::{Shutdown, ThreadPool};
    /// async fn drain(pool: &ThreadPool) {
    ///     pool.shutdown_async(Shutdown::Wait).await; // all tasks that were submitted are done
    /// }
    /// ```
    pub fn shutdown_async(&self, how: Shutdown) -> ShutdownAsync {
        let inner = Arc::clone(&self.inner);
        ShutdownAsync::new(callbacks::address(&*self.inner), move || inner.shut_down(how))
    }
}

impl ThreadPoolInner {
    fn lock(&self) -> MutexGuard<'_, JobQueue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, entries: impl IntoIterator<Item = Entry>, error: &TaskError) {
        callbacks::deliver(self, || entries.into_iter().for_each(|entry| entry.fail(error)));
    }

    /// Breaks the pool because this thread panicked: all pending tasks fail.
    fn collapse(&self, Panic { message, location, .. }: &Panic) {
        let at = location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        let error = PoolError::ThreadDied { thread, message: format!("{message}{at}") };
        let mut queue = self.lock();
        queue.broken.get_or_insert_with(|| error.clone());
        queue.is_shut_down = true;
        let pending = queue.take_all();
        self.tell_spinning(&queue);
        self.changed.notify_all();
        self.end_thread(queue);
        self.fail(pending, &TaskError::PoolBroken(error));
    }

    /// This thread runs no more tasks.
    fn end_thread(&self, mut queue: MutexGuard<'_, JobQueue>) {
        queue.alive -= 1;
        self.ended.notify_all();
    }

    /// Starts a thread with this index.
    fn start(
        self: &Arc<Self>,
        queue: &mut JobQueue,
        worker: usize,
        only_awaited: bool,
    ) -> io::Result<()> {
        let pool = Arc::clone(self);
        let thread = ThreadSpec::new(format!("procession-thread-{worker}"));
        let thread = thread.with_stack(queue.stack);
        let body = move || {
            if let Err(panic) = panics::catch(|| pool.work(worker, only_awaited)) {
                pool.collapse(&panic);
            }
        };
        // Without the first thread no task is run.
        let is_needed = queue.alive == 0;
        let thread = if is_needed { thread.start_unchecked(body) } else { thread.start(body) }?;
        queue.threads.retain(|thread| !thread.is_finished());
        queue.threads.push(thread);
        queue.alive += 1;
        Ok(())
    }

    /// Starts a thread for the pending tasks. A failure is an error only for the first thread, whose
    /// start is tried again for a while at a shortage.
    fn start_one_more<'q>(
        self: &'q Arc<Self>,
        mut queue: MutexGuard<'q, JobQueue>,
    ) -> Result<MutexGuard<'q, JobQueue>, NoThread> {
        // Only once, so that not each `submit` waits.
        let was_refused = queue.refused.is_some();
        let mut pauses = threads::pauses().filter(|_| !was_refused);
        loop {
            let worker = queue.started;
            let error = match self.start(&mut queue, worker, false) {
                Ok(()) => {
                    queue.started += 1;
                    queue.starting += 1;
                    return Ok(queue);
                }
                Err(error) => error,
            };
            // Another caller may have started one by now.
            if queue.started > 0 {
                queue.refused = Some(error);
                return Ok(queue);
            }
            let may_pass = threads::is_short(&error) && !queue.is_shut_down;
            let Some(pause) = pauses.next().filter(|_| may_pass) else {
                let pending = queue.take_all();
                let cause = threads::refusal(&error);
                queue.refused = Some(error);
                return Err(NoThread { pending, cause });
            };
            drop(queue);
            thread::sleep(pause);
            queue = self.lock();
            if queue.started > 0 {
                return Ok(queue);
            }
        }
    }

    fn shut_down(&self, how: Shutdown) {
        if self.origin.is_forked() {
            return;
        }
        let mut queue = self.lock();
        queue.is_shut_down = true;
        if how == Shutdown::Kill {
            queue.runner.ask_to_stop();
        }
        let cancelled = match how {
            Shutdown::Wait => Vec::new(),
            Shutdown::CancelPending | Shutdown::Kill => queue.take_all(),
        };
        self.tell_spinning(&queue);
        drop(queue);
        self.changed.notify_all();
        self.fail(cancelled, &TaskError::Cancelled);
        if callbacks::is_within(self) {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut queue = self.lock();
        while queue.alive > 0 {
            queue = self.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let threads = std::mem::take(&mut queue.threads);
        drop(queue);
        for thread in threads {
            let _ = thread.join();
        }
        let runner = self.lock().runner.clone();
        runner.clear_locals();
    }
}

/// The first thread could not be started: the tasks to fail, and the error.
struct NoThread {
    pending: Vec<Entry>,
    cause: String,
}

impl HandOver for ThreadPoolInner {
    fn hand_over(self: Arc<Self>) -> bool {
        let mut queue = self.lock();
        queue.waiting += 1;
        let can_run = self.ensure_awaited_run(&mut queue);
        queue.waiting -= usize::from(!can_run);
        can_run
    }

    fn take_back(&self) -> bool {
        self.lock().waiting -= 1;
        true
    }
}

impl ThreadPoolInner {
    fn fail_without_thread(&self, NoThread { pending, cause }: NoThread) {
        let error = PoolError::System(cause);
        self.fail(pending, &TaskError::PoolBroken(error));
    }

    /// Adds a task or a chunk, for which a thread is woken or started.
    fn enqueue(self: &Arc<Self>, id: TaskId, entry: Entry) {
        if self.origin.is_forked() {
            return self.fail([entry], &TaskError::PoolBroken(PoolError::Forked));
        }
        let mut queue = self.lock();
        if let Some(error) = queue.broken.clone() {
            drop(queue);
            return self.fail([entry], &TaskError::PoolBroken(error));
        }
        if queue.is_shut_down {
            drop(queue);
            return self.fail([entry], &TaskError::PoolBroken(PoolError::ShutDown));
        }
        queue.pending.insert(id, entry);
        self.tell_spinning(&queue);
        if queue.is_short_of_threads(self.size) {
            queue = match self.start_one_more(queue) {
                Ok(queue) => queue,
                Err(no_thread) => return self.fail_without_thread(no_thread),
            };
        }
        self.wake_for_pending(queue);
    }
}

impl Engine for ThreadPool {
    fn enqueue(&self, job: Job) {
        self.inner.enqueue(job.id(), Entry::Job(job));
    }

    fn ahead(&self) -> usize {
        /// A bound on what is taken from an endless iterator, if `size` is very large.
        const MAX: usize = 1 << 15;
        self.inner.size.min(MAX) * 2 + 16
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(Canceller::of_executor(&self.inner))
    }

    fn shut_down(&self, how: Shutdown) {
        self.inner.shut_down(how);
    }
}

impl TaskControl for ThreadPoolInner {
    fn cancel(&self, id: TaskId) -> bool {
        if self.origin.is_forked() {
            return false;
        }
        let mut queue = self.lock();
        let entries = queue.take(id);
        let ended = queue.take_ended();
        // The lock is released before futures are completed, which calls callbacks.
        drop(queue);
        drop(ended);
        let is_there = !entries.is_empty();
        self.fail(entries, &TaskError::Cancelled);
        is_there
    }

    fn help_wait(&self, _: TaskId, waiter: &dyn Waiter) {
        let queue = self.lock();
        let is_next = queue.pending.len() <= 1;
        let is_short = queue.typical_run_time.is_some_and(|run_time| run_time < SPIN);
        drop(queue);
        if is_next && is_short {
            let begun = Instant::now();
            while !waiter.is_done() && begun.elapsed() < SPIN {
                thread::yield_now();
            }
        }
    }

    fn prioritize(self: Arc<Self>, id: TaskId) -> bool {
        let mut queue = self.lock();
        if !queue.has_not_begun(id) {
            return true;
        }
        queue.awaited.insert(id);
        self.note_awaited(&queue);
        self.ensure_awaited_run(&mut queue)
    }

    fn local_chunks(&self) -> Option<&dyn LocalChunkExecutor> {
        Some(self)
    }
}

impl LocalChunkExecutor for ThreadPoolInner {
    fn chunk_size(&self) -> usize {
        self.lock().chunk_size()
    }

    fn chunks_ahead(&self) -> usize {
        /// A bound on what is taken from an endless iterator, if `size` is very large.
        const MAX: usize = 1 << 12;
        self.size.min(MAX) * 4
    }

    fn enqueue_local(&self, chunk: Arc<dyn LocalChunk>) {
        // The map that calls this borrows the pool.
        if let Some(pool) = self.this.upgrade() {
            pool.enqueue(chunk.id(), Entry::Chunk(chunk));
        }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}
