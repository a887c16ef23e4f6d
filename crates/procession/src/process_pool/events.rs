//! What a pool reports to the functions of its builder: [`PoolEvent`] and [`Output`].

use std::path::PathBuf;
use std::time::Duration;

use super::{OutputStream, ResourceUsage};
use crate::error::{Exit, KeptInput};
use crate::limits::RecyclingReason;
use crate::retries::Fault;
use crate::task::TaskId;

/// An event in a process pool, for [`Builder::on_event`](super::Builder::on_event).
///
/// In all variants, `worker` is the index of the worker, from 0, and `pid` the id of its process.
/// With [spares](super::Builder::spares) there are as many more indices.
/// Reasons are English text for a log, and may change. Several threads report events.
///
/// ```
/// # use procession::PoolEvent;
/// fn log(event: &PoolEvent) {
///     match event {
///         PoolEvent::WorkerExited { worker, pid, exit, .. } => {
///             eprintln!("worker {worker} (pid {pid}) ended: {exit}");
///         }
///         PoolEvent::TaskRetried { task, attempt, .. } => {
///             eprintln!("task {task} will be run again, attempt {attempt}");
///         }
///         _ => {}
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PoolEvent {
    /// A worker is ready to run tasks. A spare does so after [`SparePromoted`](Self::SparePromoted).
    WorkerStarted {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
    },
    /// A spare took the place of a worker that ended, and runs tasks from now on. The next process of
    /// that worker will be a spare.
    SparePromoted {
        /// Index of the worker that was a spare.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Index of the worker whose place it took.
        replaces: usize,
    },
    /// A process ended before it was ready.
    WorkerNotStarted {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// The cause, as text.
        reason: String,
        /// False if the pool had ended the process, because it needs no further worker.
        was_needed: bool,
    },
    /// A worker that had been ready ended.
    WorkerExited {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// How it ended: with exit code 0 if the pool let it end.
        exit: Exit,
        /// The resources that it used, also if it was killed.
        usage: ResourceUsage,
        /// Whether the pool expected this end: exit code 0, or the pool killed the worker because it
        /// needs no further one, as its drop does.
        is_regular: bool,
    },
    /// A worker was killed and did not end within five seconds. The pool goes on without it; its
    /// tasks have failed. [`WorkerExited`](Self::WorkerExited) with [`Exit::WrittenOff`] follows.
    WorkerWrittenOff {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// The cause, as text.
        reason: String,
    },
    /// A worker runs fewer tasks at a time than it should, because the system refused to start more
    /// threads in it. [`WorkerStarted`](Self::WorkerStarted) came before.
    WorkerNarrowed {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Number of tasks that it runs at a time.
        threads: usize,
        /// Number of tasks that it should run at a time.
        wanted: usize,
        /// The error of the system, as text.
        reason: String,
    },
    /// A worker reported that it cannot receive or send large values any more, or that its standard
    /// streams are closed, because of a task that it ran. It is replaced after the tasks that have begun
    /// in it; the others are given to another worker.
    WorkerUnfit {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// The cause, as text.
        reason: String,
    },
    /// A worker has ended its last task and is replaced:
    /// [`Builder::recycling`](super::Builder::recycling). [`WorkerExited`](Self::WorkerExited) follows.
    WorkerRecycled {
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Why it is replaced.
        reason: RecyclingReason,
    },
    /// The start of a worker failed and is tried again. Usually the system is short of threads,
    /// processes, descriptors or memory.
    ///
    /// While another worker is ready, it is tried without end, at intervals that grow to two seconds.
    /// Without any worker the pool is broken after half a minute of shortage, or sooner after failures
    /// of other kinds.
    WorkerDelayed {
        /// Index of the worker.
        worker: usize,
        /// The cause, as text.
        reason: String,
    },
    /// A task was sent to a worker. It begins after the tasks that were sent before; only short tasks
    /// are sent before they can start.
    TaskStarted {
        /// The id of the task: [`Future::id`](crate::Future::id).
        task: TaskId,
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// Number of this attempt, from 1.
        attempt: u32,
    },
    /// An attempt failed, and the task will be run again.
    TaskRetried {
        /// The id of the task: [`Future::id`](crate::Future::id).
        task: TaskId,
        /// Why the attempt failed.
        fault: Fault,
        /// Number of the next attempt, from 1.
        attempt: u32,
        /// The shortest time until the next attempt.
        pause: Duration,
    },
    /// The last attempt of a task exceeded its timeout, and its worker was killed.
    TaskTimedOut {
        /// The id of the task: [`Future::id`](crate::Future::id).
        task: TaskId,
        /// The timeout.
        after: Duration,
    },
    /// A task that ended its worker was kept, or could not be kept:
    /// [`Builder::keep_crashes`](super::Builder::keep_crashes).
    InputKept {
        /// The id of the task: [`Future::id`](crate::Future::id); 0: the initializer.
        task: TaskId,
        /// Index of the worker.
        worker: usize,
        /// Its process id.
        pid: u32,
        /// The file, or why there is none.
        input: KeptInput,
    },
    /// The preload task of [`Builder::preload`](super::Builder::preload) is done: from now on, workers are copies
    /// of this process.
    TemplateStarted {
        /// Its process id.
        pid: u32,
    },
    /// The process whose copies the workers are has ended. The workers go on. The next start of a worker starts
    /// another one.
    TemplateExited {
        /// Its process id.
        pid: u32,
        /// How it ended.
        exit: Exit,
    },
    /// A worker program does not work, and the next one is used.
    ProgramPassedOver {
        /// The path of the program.
        program: PathBuf,
        /// The cause, as text.
        reason: String,
    },
}

/// A line that a worker wrote to its standard output or error, for
/// [`Builder::on_output`](super::Builder::on_output).
///
/// ```
/// use procession::{Output, ProcessPool};
///
/// fn log(output: &Output<'_>) {
///     eprintln!("worker {} wrote to {:?}: {}", output.worker, output.stream, output.line);
/// }
/// let builder = ProcessPool::builder().on_output(log);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Output<'l> {
    /// Index of the worker, from 0.
    pub worker: usize,
    /// Its process id.
    pub pid: u32,
    /// Standard output or standard error.
    pub stream: OutputStream,
    /// The line without its end. Bytes that are not UTF-8 are replaced; lines above 64 KiB are split.
    pub line: &'l str,
}
