//! Runs tasks on threads of this process.
//!
//! One lock guards one queue; a thread is started when a task comes and none is idle, up to the
//! size of the pool. The queue is a map by task id, which is both the order of submission and the
//! handle for cancelling.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle};

use super::callbacks::{self, Calling};
use super::job::Canceller;
use super::{Engine, Job, Shutdown};
use crate::error::{PoolError, TaskError};
use crate::future::Patron;
use crate::guard;
use crate::task::{Context, Locals, TaskId};
use crate::voice::{Said, Voice};

/// An executor that runs tasks on up to a given number of threads.
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
}

#[derive(Debug, Default)]
struct Queue {
    pending: BTreeMap<TaskId, Job>,
    voice: Voice,
    idle: usize,
    is_shut_down: bool,
    threads: Vec<JoinHandle<()>>,
    started: usize,
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
        };
        Self { shared: Arc::new(shared) }
    }

    /// Who is called with each line that a task [says](Context::say), from the task's thread.
    /// Default: it is written to standard output.
    pub fn on_say(self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.shared.lock().voice = Voice::heard_by(Box::new(call));
        self
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn fail(&self, job: Job, error: TaskError) {
        let _calling = Calling::on_behalf_of(self);
        job.fail(error);
    }

    fn work(&self, worker: usize) {
        let mut queue = self.lock();
        loop {
            if let Some((_, job)) = queue.pending.pop_first() {
                let context = Context {
                    task: job.id(),
                    worker,
                    attempt: 1,
                    locals: Arc::clone(&self.locals),
                    voice: queue.voice.clone(),
                };
                drop(queue);
                let calling = Calling::on_behalf_of(self);
                job.run(&context);
                drop(calling);
                queue = self.lock();
            } else if queue.is_shut_down {
                return;
            } else {
                queue.idle += 1;
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
                queue.idle -= 1;
            }
        }
    }
}

impl Engine for ThreadPool {
    fn enqueue(&self, job: Job) {
        let mut queue = self.shared.lock();
        if queue.is_shut_down {
            drop(queue);
            return self.shared.fail(job, TaskError::PoolBroken(PoolError::ShutDown));
        }
        queue.pending.insert(job.id(), job);
        // Idle threads that were woken but have not taken their task yet still count as idle,
        // hence the comparison with all that is pending.
        if queue.pending.len() > queue.idle && queue.started < self.shared.size {
            let worker = queue.started;
            let shared = Arc::clone(&self.shared);
            let spawned = thread::Builder::new().name(format!("procession-thread-{worker}")).spawn(
                move || {
                    let _ = guard::catch(|| shared.work(worker));
                    shared.lock().alive -= 1;
                    shared.ended.notify_all();
                },
            );
            match spawned {
                Ok(thread) => {
                    queue.threads.push(thread);
                    queue.started += 1;
                    queue.alive += 1;
                }
                // With at least one thread the work still gets done, only later.
                Err(_) if queue.started > 0 => {}
                Err(error) => {
                    let pending = std::mem::take(&mut queue.pending);
                    drop(queue);
                    let error = PoolError::System(format!("cannot start a thread: {error}"));
                    for job in pending.into_values() {
                        self.shared.fail(job, TaskError::PoolBroken(error.clone()));
                    }
                    return;
                }
            }
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    fn ahead(&self) -> usize {
        self.shared.size * 2 + 16
    }

    fn canceller(&self) -> Option<Canceller> {
        let weak: Weak<Shared> = Arc::downgrade(&self.shared);
        Some(Canceller(weak))
    }

    fn shut_down(&self, how: Shutdown) {
        let mut queue = self.shared.lock();
        queue.is_shut_down = true;
        let cancelled = match how {
            Shutdown::Wait => BTreeMap::new(),
            Shutdown::CancelPending | Shutdown::Kill => std::mem::take(&mut queue.pending),
        };
        drop(queue);
        self.shared.changed.notify_all();
        for job in cancelled.into_values() {
            self.shared.fail(job, TaskError::Cancelled);
        }
        if callbacks::is_within(&*self.shared) {
            return;
        }
        let mut queue = self.shared.lock();
        while queue.alive > 0 {
            queue = self.shared.ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        let threads = std::mem::take(&mut queue.threads);
        drop(queue);
        for thread in threads {
            let _ = thread.join();
        }
    }
}

impl Patron for Shared {
    fn cancel(&self, id: TaskId) -> bool {
        // Bound first: fulfilling the future calls user code, which must not meet our lock.
        let job = self.lock().pending.remove(&id);
        job.map(|job| self.fail(job, TaskError::Cancelled)).is_some()
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        self.shut_down(Shutdown::Kill);
    }
}
