//! Runs tasks on threads of this process.
//!
//! One lock guards one queue; a thread is started when a task comes and none is idle, up to the
//! size of the pool. The queue is a map by task id, which is both the order of submission and the
//! handle for cancelling.
//!
//! A task that waits for another one of its pool occupies a thread, and all threads may come to be
//! occupied that way. So the tasks that are waited for go first, and where no thread is free for
//! them another one is started, which ends when there are no more of these. At no time more tasks
//! are begun for its sake than threads wait.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::callbacks;
use super::job::Canceller;
use super::{Engine, Job, Shutdown};
use crate::error::{PoolError, TaskError};
use crate::future::TaskControl;
use crate::panics::{self, Panic};
use crate::progress_lines::{LineSink, Said};
use crate::task::{Context, Locals, TaskId};
use crate::waiting::{self, Acting, Need, Owing, StandIn};
use procession_os::fork::Origin;
use procession_os::threads::{self, ThreadSpec};

/// An executor that runs tasks on up to a given number of threads.
///
/// A task, or a callback, may wait for other tasks of the same pool: those are run first, on a
/// further thread if none of the pool's is free, which has the number of one that is there
/// ([`Context::worker`]). Threads that wait do not count as running.
///
/// Dropped, it cancels what is pending and waits for what runs, since a thread cannot be killed.
#[derive(Debug)]
pub struct ThreadPool {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    size: usize,
    queue: Mutex<Queue>,
    /// Signalled when there is a task to take, or nothing more to come.
    changed: Condvar,
    /// Signalled when the last thread has ended.
    ended: Condvar,
    locals: Arc<Locals>,
    origin: Origin,
}

#[derive(Debug, Default)]
struct Queue {
    /// Why nothing is run any more: one of the threads has died.
    broken: Option<PoolError>,
    pending: BTreeMap<TaskId, Job>,
    /// Those that a task or a callback waits for; some of them may have begun.
    awaited: BTreeSet<TaskId>,
    /// How many threads wait for tasks, in a task or a callback.
    waiting: usize,
    lines: LineSink,
    /// The stack of each thread, in bytes, where it is not the usual one.
    stack: Option<usize>,
    /// Why the last thread that was to be started was not.
    refused: Option<io::Error>,
    idle: usize,
    is_shut_down: bool,
    threads: Vec<JoinHandle<()>>,
    started: usize,
    /// How many threads run tasks or wait for one. A thread that has found none to take and ends
    /// is not among them, from the moment at which it looked: nothing may rely on it any more.
    alive: usize,
}

impl ThreadPool {
    /// A pool of at most `size` threads; none is started before there is a task for it.
    ///
    /// # Panics
    ///
    /// If `size` is 0.
    pub fn new(size: usize) -> Self {
        assert!(size > 0, "a thread pool needs at least one thread");
        let shared = Shared {
            size,
            queue: Mutex::default(),
            changed: Condvar::new(),
            ended: Condvar::new(),
            locals: Arc::default(),
            origin: Origin::here(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who is called with each line that a task [says](Context::say), from the task's thread.
    /// Default: it is written to standard output.
    pub fn on_say(self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.shared.lock().lines = LineSink::calling(Box::new(call));
        self
    }

    /// How many bytes the stack of each thread has. Default: what the standard library gives to a
    /// thread, which is 2 MiB unless `RUST_MIN_STACK` says otherwise. Less than that lets more threads
    /// start under a limit of memory; less than 256 KiB is raised to that.
    pub fn stack_size(self, bytes: usize) -> Self {
        self.shared.lock().stack = Some(bytes);
        self
    }

    /// Tells, in words, if fewer threads run than there was work for, because the system refused to
    /// start more: it is short of threads, or of memory for their stacks. All tasks run all the same,
    /// fewer at a time.
    pub fn shortage(&self) -> Option<String> {
        let queue = self.shared.lock();
        let refused = queue.refused.as_ref()?;
        let (started, size) = (queue.started, self.shared.size);
        // Where none was started, no task ran, and each future tells why.
        (0 < started && started < size)
            .then(|| format!("only {started} of {size} threads could be started: {refused}"))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, jobs: impl IntoIterator<Item = Job>, error: &TaskError) {
        callbacks::deliver(self, || jobs.into_iter().for_each(|job| job.fail(error.clone())));
    }

    /// Gives all tasks up because this thread panicked.
    fn collapse(&self, Panic { message, location }: &Panic) {
        let at = location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        let error = PoolError::ThreadDied { thread, message: format!("{message}{at}") };
        let mut queue = self.lock();
        queue.broken.get_or_insert_with(|| error.clone());
        queue.is_shut_down = true;
        let pending = std::mem::take(&mut queue.pending);
        self.changed.notify_all();
        self.ends(queue);
        self.fail(pending.into_values(), &TaskError::PoolBroken(error));
    }

    /// This thread runs no more tasks.
    fn ends(&self, mut queue: MutexGuard<'_, Queue>) {
        queue.alive -= 1;
        self.ended.notify_all();
    }

    /// Runs tasks until there are no more to come; or only those that are waited for.
    fn work(self: &Arc<Self>, worker: usize, only_awaited: bool) {
        let acting =
            Acting::serves(callbacks::address(&**self), Some(Arc::clone(self) as Arc<dyn StandIn>));
        let mut queue = self.lock();
        loop {
            let next = match queue.pop_awaited() {
                None if !only_awaited => queue.pending.pop_first().map(|(_, job)| job),
                next => next,
            };
            if let Some(job) = next {
                let context = Context {
                    task: job.id(),
                    worker,
                    attempt: 1,
                    locals: Arc::clone(&self.locals),
                    lines: queue.lines.clone(),
                };
                drop(queue);
                let owing = Owing::the_end_of(job.id());
                job.run(&context);
                drop(owing);
                acting.come_back();
                queue = self.lock();
            } else if only_awaited || queue.is_shut_down {
                return self.ends(queue);
            } else {
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }

    /// Starts a thread for this worker's tasks.
    fn start(
        self: &Arc<Self>,
        queue: &mut Queue,
        worker: usize,
        only_awaited: bool,
    ) -> io::Result<()> {
        let shared = Arc::clone(self);
        let thread = ThreadSpec::new(format!("procession-thread-{worker}"));
        let thread = thread.with_stack(queue.stack);
        let body = move || {
            if let Err(panic) = panics::catch(|| shared.work(worker, only_awaited)) {
                shared.collapse(&panic);
            }
        };
        // Without the first one nothing is run at all.
        let is_needed = queue.alive == 0;
        let thread = if is_needed { thread.start_unchecked(body) } else { thread.start(body) }?;
        queue.threads.retain(|thread| !thread.is_finished());
        queue.threads.push(thread);
        queue.alive += 1;
        Ok(())
    }

    /// Starts a thread for what is pending. With at least one thread the work still gets done, only
    /// later; for the first one a shortage is given time to pass.
    fn start_one_more<'q>(
        self: &'q Arc<Self>,
        mut queue: MutexGuard<'q, Queue>,
    ) -> Result<MutexGuard<'q, Queue>, Unstartable> {
        // Once is enough: whoever submits should not wait for each task again.
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
            // Another thread of the caller may have started one meanwhile.
            if queue.started > 0 {
                queue.refused = Some(error);
                return Ok(queue);
            }
            let may_pass = threads::is_short(&error) && !queue.is_shut_down;
            let Some(pause) = pauses.next().filter(|_| may_pass) else {
                let pending = std::mem::take(&mut queue.pending);
                let cause = error.to_string();
                queue.refused = Some(error);
                return Err(Unstartable { pending, cause });
            };
            drop(queue);
            thread::sleep(pause);
            queue = self.lock();
            if queue.started > 0 {
                return Ok(queue);
            }
        }
    }

    /// Sees to it that a thread runs the tasks that are waited for; false if none can.
    fn attend_to_awaited(self: &Arc<Self>, queue: &mut Queue) -> bool {
        if queue.awaited.is_empty() {
            return true;
        }
        if queue.idle > 0 {
            self.changed.notify_one();
            return true;
        }
        let active = queue.alive.saturating_sub(queue.waiting);
        // One that is active looks for them when it is done, or comes here when it has to wait.
        active >= self.size
            || self.start(queue, queue.alive % self.size, true).is_ok()
            || active > 0
    }
}

/// Why there is no thread at all, and what it was to run.
struct Unstartable {
    pending: BTreeMap<TaskId, Job>,
    cause: String,
}

impl Queue {
    fn pop_awaited(&mut self) -> Option<Job> {
        while let Some(id) = self.awaited.pop_first() {
            if let Some(job) = self.pending.remove(&id) {
                return Some(job);
            }
        }
        None
    }
}

impl StandIn for Shared {
    fn leave(self: Arc<Self>) -> bool {
        let mut queue = self.lock();
        queue.waiting += 1;
        let is_attended = self.attend_to_awaited(&mut queue);
        queue.waiting -= usize::from(!is_attended);
        is_attended
    }

    fn come_back(&self) -> bool {
        self.lock().waiting -= 1;
        true
    }
}

impl Engine for ThreadPool {
    fn enqueue(&self, job: Job) {
        if self.shared.origin.is_forked() {
            return self.shared.fail([job], &TaskError::PoolBroken(PoolError::Forked));
        }
        let mut queue = self.shared.lock();
        if let Some(error) = queue.broken.clone() {
            drop(queue);
            return self.shared.fail([job], &TaskError::PoolBroken(error));
        }
        if queue.is_shut_down {
            drop(queue);
            return self.shared.fail([job], &TaskError::PoolBroken(PoolError::ShutDown));
        }
        queue.pending.insert(job.id(), job);
        // Idle threads that were woken but have not taken their task yet still count as idle,
        // hence the comparison with all that is pending.
        if queue.pending.len() > queue.idle && queue.started < self.shared.size {
            queue = match self.shared.start_one_more(queue) {
                Ok(queue) => queue,
                Err(Unstartable { pending, cause }) => {
                    let error = PoolError::System(format!("cannot start a thread: {cause}"));
                    return self.shared.fail(pending.into_values(), &TaskError::PoolBroken(error));
                }
            };
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    fn ahead(&self) -> usize {
        /// No more than threads that a system can have, so that an endless iterator ends.
        const MOST: usize = 1 << 15;
        self.shared.size.min(MOST) * 2 + 16
    }

    fn abandon(&self, id: TaskId) {
        self.shared.cancel(id);
    }

    fn canceller(&self) -> Option<Canceller> {
        let weak: Weak<Shared> = Arc::downgrade(&self.shared);
        Some(Canceller(weak))
    }

    fn shut_down(&self, how: Shutdown) {
        if self.shared.origin.is_forked() {
            return;
        }
        let mut queue = self.shared.lock();
        queue.is_shut_down = true;
        let cancelled = match how {
            Shutdown::Wait => BTreeMap::new(),
            Shutdown::CancelPending | Shutdown::Kill => std::mem::take(&mut queue.pending),
        };
        drop(queue);
        self.shared.changed.notify_all();
        self.shared.fail(cancelled.into_values(), &TaskError::Cancelled);
        if callbacks::is_within(&*self.shared) {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        let mut queue = self.shared.lock();
        while queue.alive > 0 {
            queue = self.shared.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let threads = std::mem::take(&mut queue.threads);
        drop(queue);
        for thread in threads {
            let _ = thread.join();
        }
        self.shared.locals.clear();
    }
}

impl TaskControl for Shared {
    fn cancel(&self, id: TaskId) -> bool {
        if self.origin.is_forked() {
            return false;
        }
        // Bound first: fulfilling the future calls user code, which must not meet our lock.
        let job = self.lock().pending.remove(&id);
        job.map(|job| self.fail([job], &TaskError::Cancelled)).is_some()
    }

    fn hasten(self: Arc<Self>, id: TaskId) -> bool {
        let mut queue = self.lock();
        if !queue.pending.contains_key(&id) {
            return true;
        }
        queue.awaited.insert(id);
        self.attend_to_awaited(&mut queue)
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}
