//! Settings of a pool: the functions that it calls, and its journal.

use super::Builder;
use crate::process_pool::{Output, PoolEvent};
use crate::progress_lines::Said;

impl Builder {
    /// Sets the function that is called with each [`PoolEvent`]. Default: none.
    ///
    /// It runs on the threads of the pool, on several at the same time. So it must not take long, and
    /// a wait for a task of this pool returns
    /// [`TaskError::WouldDeadlock`](crate::TaskError::WouldDeadlock). The same is true of
    /// [`on_output`](Self::on_output) and [`on_say`](Self::on_say). A panic in it is caught.
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
    pub fn on_event_except_starts(self, call: impl Fn(&PoolEvent) + Send + Sync + 'static) -> Self {
        Self { wants_starts: false, ..self.on_event(call) }
    }

    /// Sets the function that is called with each line that a worker writes to its standard output
    /// or error. Default: writes `worker 0 (pid 4712): line` to standard error, with control characters
    /// escaped.
    pub fn on_output(mut self, call: impl Fn(&Output<'_>) + Send + Sync + 'static) -> Self {
        self.on_output = Box::new(call);
        self
    }

    /// Sets the function that is called with each line that a task reports by
    /// [`Context::say`](crate::Context::say), before the future of the task is done. Default: writes
    /// the line to standard output, with control characters escaped. A line that a worker reports for a
    /// task that it does not run goes to [`on_output`](Self::on_output).
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        self.on_say = Box::new(call);
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
