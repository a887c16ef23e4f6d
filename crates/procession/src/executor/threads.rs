//! [`ThreadPool`]: runs tasks on threads of this process.
//!
//! One lock guards the queue. A thread is started when a task is submitted and no thread is idle, up to
//! the size of the pool. The queue is a map by task id: its order is the order of submission, and a
//! task can be cancelled by its id.
//!
//! A task that waits for another task of its pool occupies a thread, and all threads may be occupied in
//! this way. So awaited tasks are run first. If no thread is free for them, a further thread is
//! started, which ends when there are no more awaited tasks. There are never more further threads
//! than threads that wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use super::callbacks;
use super::{Canceller, Engine, Job, JobRunner, Shutdown, ShutdownAsync};
use crate::error::{PoolError, TaskError};
use crate::future::TaskControl;
use crate::panics::{self, Panic};
use crate::progress_lines::Said;
#[cfg(doc)]
use crate::task::Context;
use crate::task::TaskId;
use crate::waiting::{self, HandOver, Need, Obligation, RoleGuard};
use procession_os::fork::Origin;
use procession_os::threads::{self, ThreadSpec};

/// An executor that runs tasks on a limited number of threads of this process.
///
/// A task or a callback may wait for other tasks of the same pool. These are run first, if necessary
/// on a further thread, whose [`Context::worker`] is the index of an existing one. The limit is for
/// threads that do not wait.
///
/// On drop, the pool cancels the pending tasks, asks those that run to stop by
/// [`Context::stop_requested`], and waits for them: a thread cannot be killed.
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
/// assert!(pool.map((1..=3).map(Square)).eq([Ok(1), Ok(4), Ok(9)]));
/// ```
#[derive(Debug)]
pub struct ThreadPool {
    inner: Arc<ThreadPoolInner>,
}

#[derive(Debug)]
struct ThreadPoolInner {
    size: usize,
    queue: Mutex<JobQueue>,
    /// Notified when there is a task to take, or the pool is shut down.
    changed: Condvar,
    /// Notified when a thread has ended.
    ended: Condvar,
    origin: Origin,
}

#[derive(Debug, Default)]
struct JobQueue {
    /// Set when a thread of the pool has panicked outside of a task.
    broken: Option<PoolError>,
    pending: BTreeMap<TaskId, Job>,
    /// Tasks that a task or a callback waits for. Some of them may have begun.
    awaited: BTreeSet<TaskId>,
    /// Number of threads that wait for tasks, in a task or a callback.
    waiting: usize,
    runner: JobRunner,
    /// Stack size of each thread, in bytes. `None`: the default of the standard library.
    stack: Option<usize>,
    /// The error of the last failed start of a thread.
    refused: Option<io::Error>,
    /// Number of threads that wait for `changed`.
    idle: usize,
    is_shut_down: bool,
    threads: Vec<JoinHandle<()>>,
    /// Number of threads that were started, without the further ones.
    started: usize,
    /// Number of threads that run tasks or wait for one. A thread that ends is subtracted under the
    /// same lock under which it found no task, so that no task relies on it.
    alive: usize,
}

impl ThreadPool {
    /// A pool of at most `size` threads. A thread is started when there is a task for it.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a thread pool needs at least one thread");
        let inner = ThreadPoolInner {
            size,
            queue: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
            origin: Origin::here(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Sets the function that is called with each line that a task reports by [`Context::say`], on the
    /// thread of the task. Default: writes it to standard output.
    pub fn on_say(self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.inner.lock().runner.set_on_say(call);
        self
    }

    /// Stack size of each thread, in bytes. Values below 256 KiB are raised to 256 KiB. Default: the
    /// default of the standard library, 2 MiB unless `RUST_MIN_STACK` is set.
    ///
    /// Smaller stacks let more threads start under a limit of memory.
    pub fn stack_size(self, bytes: usize) -> Self {
        self.inner.lock().stack = Some(bytes);
        self
    }

    /// A text about a shortage: fewer threads run than the pool has tasks for, because the system
    /// refused to start more. All tasks are run, fewer at a time. `None`: there is no shortage.
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

    fn fail(&self, jobs: impl IntoIterator<Item = Job>, error: &TaskError) {
        callbacks::deliver(self, || jobs.into_iter().for_each(|job| job.fail(error.clone())));
    }

    /// Breaks the pool because this thread panicked: all pending tasks fail.
    fn collapse(&self, Panic { message, location }: &Panic) {
        let at = location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        let error = PoolError::ThreadDied { thread, message: format!("{message}{at}") };
        let mut queue = self.lock();
        queue.broken.get_or_insert_with(|| error.clone());
        queue.is_shut_down = true;
        let pending = std::mem::take(&mut queue.pending);
        self.changed.notify_all();
        self.end_thread(queue);
        self.fail(pending.into_values(), &TaskError::PoolBroken(error));
    }

    /// This thread runs no more tasks.
    fn end_thread(&self, mut queue: MutexGuard<'_, JobQueue>) {
        queue.alive -= 1;
        self.ended.notify_all();
    }

    /// The body of a thread: runs tasks until the shutdown, or with `only_awaited` until there is no
    /// awaited task.
    fn work(self: &Arc<Self>, worker: usize, only_awaited: bool) {
        let role = RoleGuard::serves(
            callbacks::address(&**self),
            Some(Arc::clone(self) as Arc<dyn HandOver>),
        );
        let mut queue = self.lock();
        loop {
            let next = match queue.pop_awaited() {
                None if !only_awaited => queue.pending.pop_first().map(|(_, job)| job),
                next => next,
            };
            if let Some(job) = next {
                let runner = queue.runner.clone();
                drop(queue);
                let obligation = Obligation::to_end(job.id());
                runner.run_in_role(job, worker);
                drop(obligation);
                role.take_back();
                queue = self.lock();
            } else if only_awaited || queue.is_shut_down {
                return self.end_thread(queue);
            } else {
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
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
                    return Ok(queue);
                }
                Err(error) => error,
            };
            // Another caller may have started one meanwhile.
            if queue.started > 0 {
                queue.refused = Some(error);
                return Ok(queue);
            }
            let may_pass = threads::is_short(&error) && !queue.is_shut_down;
            let Some(pause) = pauses.next().filter(|_| may_pass) else {
                let pending = std::mem::take(&mut queue.pending);
                let cause = error.to_string();
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
            Shutdown::Wait => BTreeMap::new(),
            Shutdown::CancelPending | Shutdown::Kill => std::mem::take(&mut queue.pending),
        };
        drop(queue);
        self.changed.notify_all();
        self.fail(cancelled.into_values(), &TaskError::Cancelled);
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

    /// Ensures that a thread runs the awaited tasks. Returns false if none can be started.
    fn ensure_awaited_run(self: &Arc<Self>, queue: &mut JobQueue) -> bool {
        if queue.awaited.is_empty() {
            return true;
        }
        if queue.idle > 0 {
            self.changed.notify_one();
            return true;
        }
        let active = queue.alive.saturating_sub(queue.waiting);
        // An active thread takes them after its task, or calls this function before it waits.
        active >= self.size
            || self.start(queue, queue.alive % self.size, true).is_ok()
            || active > 0
    }
}

/// The first thread could not be started: the tasks to fail, and the error.
struct NoThread {
    pending: BTreeMap<TaskId, Job>,
    cause: String,
}

impl JobQueue {
    fn pop_awaited(&mut self) -> Option<Job> {
        while let Some(id) = self.awaited.pop_first() {
            if let Some(job) = self.pending.remove(&id) {
                return Some(job);
            }
        }
        None
    }
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

impl Engine for ThreadPool {
    fn enqueue(&self, job: Job) {
        if self.inner.origin.is_forked() {
            return self.inner.fail([job], &TaskError::PoolBroken(PoolError::Forked));
        }
        let mut queue = self.inner.lock();
        if let Some(error) = queue.broken.clone() {
            drop(queue);
            return self.inner.fail([job], &TaskError::PoolBroken(error));
        }
        if queue.is_shut_down {
            drop(queue);
            return self.inner.fail([job], &TaskError::PoolBroken(PoolError::ShutDown));
        }
        queue.pending.insert(job.id(), job);
        // Compared with all pending tasks, because a thread that was woken and has not taken its task
        // still counts as idle.
        if queue.pending.len() > queue.idle && queue.started < self.inner.size {
            queue = match self.inner.start_one_more(queue) {
                Ok(queue) => queue,
                Err(NoThread { pending, cause }) => {
                    let error = PoolError::System(format!("cannot start a thread: {cause}"));
                    return self.inner.fail(pending.into_values(), &TaskError::PoolBroken(error));
                }
            };
        }
        drop(queue);
        self.inner.changed.notify_one();
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
        // The lock is released before the future is completed, which calls callbacks.
        let job = self.lock().pending.remove(&id);
        job.map(|job| self.fail([job], &TaskError::Cancelled)).is_some()
    }

    fn prioritize(self: Arc<Self>, id: TaskId) -> bool {
        let mut queue = self.lock();
        if !queue.pending.contains_key(&id) {
            return true;
        }
        queue.awaited.insert(id);
        self.ensure_awaited_run(&mut queue)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}
