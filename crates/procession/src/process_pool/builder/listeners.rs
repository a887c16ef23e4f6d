//! Settings of a pool: the functions that it calls, and its journal.

use super::Builder;
use crate::process_pool::{Output, PoolEvent};
use crate::progress_lines::Said;

impl Builder {
    /// Sets the function that is called with each [`PoolEvent`]. Default: none.
    ///
    /// It runs on the threads of the pool, on several at the same time. So it must not take long, and
    /// a wait for a task of this pool returns
    /// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock), and so does a future that is polled in it
    /// before its task is done. The same is true of [`on_output`](Self::on_output) and
    /// [`on_say`](Self::on_say). A panic in it is caught.
    ///
    /// Each task has an event [`PoolEvent::TaskStarted`], also those that [`map`](crate::Executor::map) sends
    /// in a chunk: they have it together, when the chunk is sent.
    ///
    /// ```
    /// # use procession::{PoolEvent, ProcessPool};
    /// let builder = ProcessPool::builder().on_event(|event| {
    ///     if let PoolEvent::WorkerExited { worker, pid, exit, .. } = event {
    ///         eprintln!("worker {worker} (pid {pid}) ended: {exit}");
    ///     }
    /// });
    /// ```
    pub fn on_event(mut self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        self.on_event = Some(Box::new(call));
        self.wants_starts = true;
        self
    }

    /// Like [`on_event`](Self::on_event), without [`PoolEvent::TaskStarted`], which costs a call for each
    /// task.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().on_event_except_starts(|event| eprintln!("{event:?}"));
    /// ```
    pub fn on_event_except_starts(self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        Self { wants_starts: false, ..self.on_event(call) }
    }

    /// Sets the function that is called with each line that a worker writes to its standard output
    /// or error. Default: writes `worker 0 (pid 4712): line` to standard error, with control characters
    /// escaped.
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().on_output(|output| {
    ///     eprintln!("[{} {}] {}", output.worker, output.pid, output.line.escape_debug());
    /// });
    /// ```
    pub fn on_output(mut self, call: impl Fn(&Output<'_>) + Send + Sync + 'static) -> Self {
        self.on_output = Box::new(call);
        self
    }

    /// Sets the function that is called with each line that a task reports by
    /// [`Context::say`](crate::Context::say), before the future of the task is done. Default: writes
    /// the line to standard output, with control characters escaped. A line that a worker reports for a
    /// task that it does not run goes to [`on_output`](Self::on_output).
    ///
    /// ```
    /// # use procession::ProcessPool;
    /// let builder = ProcessPool::builder().on_say(|said| println!("task {}: {}", said.task, said.line));
    /// ```
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.on_say = Box::new(call);
        self
    }

    /// Passes the spans and events that tasks make in their workers, up to this level, to the subscriber of
    /// `tracing` of the thread that calls [`build`](Self::build). Without a subscriber, workers send nothing.
    /// Default: off.
    ///
    /// Level, target, name, fields, file and line are those of the worker, so the filters of this program apply.
    /// The current span of the thread that submits a task becomes the parent of a span `task` (target `procession`,
    /// fields `task`, `name`, `worker`, `pid`), which has the spans and events of the task. They arrive in their
    /// order, before the future is done. What belongs to no task is in a span `worker`.
    ///
    /// - With the feature `log`, the records of the crate `log` arrive as events, too.
    /// - A program that has a subscriber, or a logger, before its worker runs the first task, keeps it there: it
    ///   installs one before [`serve_if_asked`](crate::worker::serve_if_asked), or in the
    ///   [`initializer`](Self::initializer).
    /// - A worker sends 20,000 records in a second at most, with 8 KiB of text in each; it has 1,024 open spans and
    ///   1,024 places in the code with up to 32 fields. What is above is dropped; a warning `spans and events were
    ///   dropped` of the target `procession` says how many. A worker that is killed loses its last count.
    /// - That a span is entered and left is not passed on: only when it is created and closed.
    /// - The subscriber is called on the threads of the pool. So a wait for a task of this pool in it returns
    ///   [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock).
    /// - Control characters of workers are escaped. Names of places in the code are kept for the life of this
    ///   process, 2 KiB each at most.
    ///
    /// ```no_run
    /// # use procession::{PoolError, ProcessPool};
    /// # fn main() -> Result<(), PoolError> {
    /// let pool = ProcessPool::builder().tracing(tracing::Level::DEBUG).build()?;
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tracing")]
    pub fn tracing(mut self, level: impl Into<tracing::level_filters::LevelFilter>) -> Self {
        self.trace_level = Some(level.into());
        self
    }

    /// Keeps a journal of the pool in a new directory in `logs`, which is created if it is missing:
    /// [`journal`](crate::journal) describes it. The journals of the last 20 runs are kept. Default: none.
    ///
    /// ```no_run
    /// # use procession::{PoolError, ProcessPool};
    /// # fn main() -> Result<(), PoolError> {
    /// let pool = ProcessPool::builder().journal("logs").build()?;
    /// println!("{}", pool.journal_dir().expect("a journal").display());
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "journal")]
    pub fn journal(mut self, logs: impl Into<std::path::PathBuf>) -> Self {
        self.journal = Some(logs.into());
        self
    }
}
