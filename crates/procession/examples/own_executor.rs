//! An executor that is implemented outside of the library: one extra thread and a queue. Shows what an
//! `Engine` needs: jobs are queued, run, cancelled, and completed at the end.
//!
//! ```console
//! $ cargo run --release --example own_executor
//! ```

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};

use procession::{
    Cancel, Canceller, Context, Engine, Executor, Failure, Job, JobRunner, PoolError, Shutdown,
    Task, TaskError, TaskId,
};
use serde::{Deserialize, Serialize};

/// Runs tasks on one thread, in the order of their submission.
#[derive(Debug)]
pub struct OneThread {
    queue: Arc<Queue>,
    runner: JobRunner,
    thread: Mutex<Option<JoinHandle<()>>>,
    thread_id: ThreadId,
}

/// What the thread and the callers share. The futures hold weak references to it.
#[derive(Debug, Default)]
struct Queue {
    state: Mutex<State>,
    /// Notified when there is a job, or the executor is shut down.
    changed: Condvar,
    /// Notified when the thread ends.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// By id, which is the order of submission.
    pending: BTreeMap<TaskId, Job>,
    thread: Option<ThreadId>,
    is_shut_down: bool,
    has_ended: bool,
}

impl OneThread {
    /// Starts the thread.
    pub fn start() -> io::Result<Self> {
        Self::start_with(JobRunner::new())
    }

    /// Starts the thread, with a runner that has its own `on_say`.
    pub fn start_with(runner: JobRunner) -> io::Result<Self> {
        let queue = Arc::new(Queue::default());
        let (its_queue, its_runner) = (Arc::clone(&queue), runner.clone());
        let thread = thread::Builder::new().spawn(move || its_queue.run_jobs(&its_runner))?;
        let thread_id = thread.thread().id();
        queue.lock().thread = Some(thread_id);
        Ok(Self { queue, runner, thread: Mutex::new(Some(thread)), thread_id })
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The body of the thread.
    fn run_jobs(&self, runner: &JobRunner) {
        let mut state = self.lock();
        loop {
            if let Some((_, job)) = state.pending.pop_first() {
                // Not under the lock: the task and the callbacks may use the executor.
                drop(state);
                runner.run(job, 0);
                state = self.lock();
            } else if state.is_shut_down {
                break;
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        drop(state);
        runner.clear_locals();
        self.lock().has_ended = true;
        self.ended.notify_all();
    }
}

impl Engine for OneThread {
    fn enqueue(&self, job: Job) {
        let mut state = self.queue.lock();
        if state.is_shut_down {
            drop(state);
            return job.fail(TaskError::PoolBroken(PoolError::ShutDown));
        }
        state.pending.insert(job.id(), job);
        drop(state);
        self.queue.changed.notify_one();
    }

    fn ahead(&self) -> usize {
        16
    }

    fn canceller(&self) -> Option<Canceller> {
        Some(Canceller::new(&self.queue))
    }

    fn shut_down(&self, how: Shutdown) {
        let mut state = self.queue.lock();
        state.is_shut_down = true;
        if how == Shutdown::Kill {
            self.runner.ask_to_stop();
        }
        let cancelled = match how {
            Shutdown::Wait => BTreeMap::new(),
            _ => std::mem::take(&mut state.pending),
        };
        drop(state);
        self.queue.changed.notify_all();
        // Not under the lock: this calls callbacks, which may wait for each other's futures.
        Job::fail_all(cancelled.into_values(), &TaskError::Cancelled);
        if thread::current().id() == self.thread_id {
            return; // In a callback: the thread ends after it.
        }
        let mut state = self.queue.lock();
        while !state.has_ended {
            state = self.queue.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = thread {
            let _ = thread.join();
        }
    }
}

impl Cancel for Queue {
    fn cancel(&self, id: TaskId) -> bool {
        let job = self.lock().pending.remove(&id);
        job.map(|job| job.fail(TaskError::Cancelled)).is_some()
    }

    /// A task or callback on the only thread cannot wait for a task that is behind it in the queue.
    fn can_wait_for(&self, id: TaskId) -> bool {
        let state = self.lock();
        state.thread != Some(thread::current().id()) || !state.pending.contains_key(&id)
    }
}

impl Drop for OneThread {
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
    let executor = OneThread::start()?;
    let future = executor.submit(Square(7));
    println!("{}", future.result()?);
    let sum: u64 = executor.map((1..=10).map(Square)).sum::<Result<_, _>>()?;
    println!("{sum}");
    executor.shutdown(Shutdown::Wait);
    Ok(())
}
