//! An executor on several threads, with a queue by priority, that is implemented outside of the library. Shows what
//! `own_executor.rs` does not need: options for each task, and tasks that wait for tasks of the same executor.
//!
//! ```console
//! $ cargo run --release --example own_threads
//! ```

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{self, JoinHandle, ThreadId};

use procession::{
    Cancel, Canceller, Context, Engine, Executor, Failure, Job, JobRunner, PoolError, Shutdown,
    Task, TaskError, TaskId,
};
use serde::{Deserialize, Serialize};

/// Runs tasks on threads: those of higher priority first, equal ones in the order of their submission.
#[derive(Debug)]
pub struct PriorityThreads {
    queue: Arc<Queue>,
    size: usize,
}

/// What the threads and the callers share. The futures hold weak references to it.
#[derive(Debug)]
struct Queue {
    this: Weak<Self>,
    runner: JobRunner,
    state: Mutex<State>,
    /// Notified when there is a job, the executor is shut down, or a thread ends.
    changed: Condvar,
}

/// The order of pending tasks.
type Rank = (Reverse<i32>, TaskId);

#[derive(Debug, Default)]
struct State {
    pending: BTreeMap<Rank, Job>,
    ranks: HashMap<TaskId, Rank>,
    /// The threads that have not ended, with their numbers.
    threads: HashMap<ThreadId, usize>,
    handles: Vec<JoinHandle<()>>,
    is_shut_down: bool,
}

impl State {
    fn take(&mut self, id: TaskId) -> Option<Job> {
        self.pending.remove(&self.ranks.remove(&id)?)
    }

    fn take_first(&mut self) -> Option<Job> {
        let (_, job) = self.pending.pop_first()?;
        self.ranks.remove(&job.id());
        Some(job)
    }
}

impl PriorityThreads {
    /// Starts the threads; at least one.
    pub fn start(size: usize) -> io::Result<Self> {
        let (runner, state, changed) = (JobRunner::new(), Mutex::default(), Condvar::new());
        let queue =
            Arc::new_cyclic(|this| Queue { this: Weak::clone(this), runner, state, changed });
        let executor = Self { queue, size: size.max(1) };
        // If a thread does not start, the threads that were started end when `executor` is dropped.
        for number in 0..executor.size {
            let mut state = executor.queue.lock();
            executor.queue.start_thread(&mut state, number, Queue::run_jobs)?;
        }
        Ok(executor)
    }

    /// An executor whose tasks have this priority, on the same threads.
    pub fn at(&self, priority: i32) -> AtPriority<'_> {
        AtPriority { executor: self, priority }
    }
}

/// A [`PriorityThreads`] with options for tasks: an [`Engine`] as well, so it has `submit`, `map` and the like.
#[derive(Debug, Clone, Copy)]
pub struct AtPriority<'e> {
    executor: &'e PriorityThreads,
    priority: i32,
}

impl Engine for AtPriority<'_> {
    fn enqueue(&self, job: Job) {
        self.executor.queue.add(job, self.priority);
    }

    fn ahead(&self) -> usize {
        self.executor.ahead()
    }

    fn canceller(&self) -> Option<Canceller> {
        self.executor.canceller()
    }

    fn shut_down(&self, how: Shutdown) {
        self.executor.shut_down(how);
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, job: Job, priority: i32) {
        let mut state = self.lock();
        if state.is_shut_down {
            drop(state);
            return job.fail(TaskError::PoolBroken(PoolError::ShutDown));
        }
        let rank = (Reverse(priority), job.id());
        state.ranks.insert(job.id(), rank);
        state.pending.insert(rank, job);
        drop(state);
        self.changed.notify_one();
    }

    /// Starts a thread, which is in the list until `body` has ended.
    fn start_thread(
        &self,
        state: &mut State,
        number: usize,
        body: impl FnOnce(&Self, usize) + Send + 'static,
    ) -> io::Result<()> {
        let Some(queue) = self.this.upgrade() else { return Ok(()) };
        let thread = thread::Builder::new().spawn(move || {
            body(&queue, number);
            let mut state = queue.lock();
            state.threads.remove(&thread::current().id());
            let is_last = state.is_shut_down && state.threads.is_empty();
            drop(state);
            if is_last {
                queue.runner.clear_locals();
            }
            queue.changed.notify_all();
        })?;
        // The thread waits for the lock before it ends.
        state.threads.insert(thread.thread().id(), number);
        state.handles.retain(|handle| !handle.is_finished());
        state.handles.push(thread);
        Ok(())
    }

    /// The body of each thread.
    fn run_jobs(&self, number: usize) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.take_first() {
                // Not under the lock: the task and the callbacks may use the executor.
                drop(state);
                self.runner.run(job, number);
                state = self.lock();
            } else if state.is_shut_down {
                return;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
    }
}

impl Engine for PriorityThreads {
    fn enqueue(&self, job: Job) {
        self.queue.add(job, 0);
    }

    fn ahead(&self) -> usize {
        4 * self.size
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(Canceller::new(&self.queue))
    }

    fn shut_down(&self, how: Shutdown) {
        let mut state = self.queue.lock();
        state.is_shut_down = true;
        if how == Shutdown::Kill {
            self.queue.runner.ask_to_stop();
        }
        let cancelled = match how {
            Shutdown::Wait => BTreeMap::new(),
            _ => {
                state.ranks.clear();
                std::mem::take(&mut state.pending)
            }
        };
        drop(state);
        self.queue.changed.notify_all();
        // Not under the lock: this calls callbacks, which may wait for each other's futures.
        Job::fail_all(cancelled.into_values(), &TaskError::Cancelled);
        let mut state = self.queue.lock();
        if state.threads.contains_key(&thread::current().id()) {
            return; // In a task or a callback: this thread ends after it.
        }
        while !state.threads.is_empty() {
            state = self.queue.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let handles = std::mem::take(&mut state.handles);
        drop(state);
        handles.into_iter().for_each(|handle| drop(handle.join()));
    }
}

impl Cancel for Queue {
    fn cancel(&self, id: TaskId) -> bool {
        let job = self.lock().take(id);
        job.map(|job| job.fail(TaskError::Cancelled)).is_some()
    }

    /// If all threads waited for pending tasks, no thread would be left to run them. So a task that one of the threads
    /// waits for is run by a new thread, in place of the one that waits. The new thread ends after the task.
    fn can_wait_for(&self, id: TaskId) -> bool {
        let mut state = self.lock();
        let Some(&number) = state.threads.get(&thread::current().id()) else { return true };
        if !state.ranks.contains_key(&id) {
            return true; // It runs, or has ended.
        }
        let run_it = move |queue: &Self, number| {
            let job = queue.lock().take(id);
            job.into_iter().for_each(|job| queue.runner.run(job, number));
        };
        self.start_thread(&mut state, number, run_it).is_ok()
    }
}

impl Drop for PriorityThreads {
    fn drop(&mut self) {
        self.shut_down(Shutdown::CancelPending);
    }
}

/// The task of this example.
#[derive(Debug, Serialize, Deserialize)]
struct Square(u64);

impl Task for Square {
    const NAME: &'static str = "square";
    type Output = u64;

    fn run(self, context: &Context) -> Result<u64, Failure> {
        context.say(format_args!("squaring {}", self.0));
        Ok(self.0 * self.0)
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let executor = PriorityThreads::start(1)?;
    let futures = [1, 2, 3].map(|n| executor.submit(Square(n)));
    let urgent = executor.at(10).submit(Square(7)); // before most of them
    println!("{}", urgent.result()?);
    println!("{:?}", futures.map(|future| future.result()));
    let sum: u64 = executor.at(-1).map((1..=10).map(Square)).sum::<Result<_, _>>()?;
    println!("{sum}");
    executor.shutdown(Shutdown::Wait);
    Ok(())
}
