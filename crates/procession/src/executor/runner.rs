//! [`JobRunner`]: runs jobs in this process, and holds what the tasks of one executor share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Job;
use crate::progress_lines::{LineSink, Said};
use crate::stop_signal::StopSignal;
use crate::task::{Context, Locals, TaskId};
use crate::waiting::{Obligation, RoleGuard};

/// The address of an executor that is implemented elsewhere: no executor of this crate has it.
pub(super) const FOREIGN: usize = 0;

/// Runs the jobs of an [`Engine`](super::Engine) in this process. It has what their tasks share: the
/// values of [`Context::local`], and the function that [`Context::say`] calls. Clones share both.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// # use procession::*;
/// # #[procession::task]
/// # fn square(n: u64) -> u64 { n * n }
/// /// Runs each task at once.
/// struct AtOnce(JobRunner);
///
/// impl Engine for AtOnce {
///     fn enqueue(&self, job: Job) {
///         self.0.run(job, 0);
///     }
///
///     fn ahead(&self) -> usize {
///         1
///     }
///
///     fn shut_down(&self, how: Shutdown) {
///         if how == Shutdown::Kill {
///             self.0.ask_to_stop();
///         }
///         self.0.clear_locals();
///     }
/// }
///
/// let runner = JobRunner::new().on_say(|said| eprintln!("task {}: {}", said.task, said.line));
/// let executor = AtOnce(runner);
/// assert_eq!(executor.submit(square(7)).result(), Ok(49));
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct JobRunner {
    locals: Arc<Locals>,
    lines: LineSink,
    /// All tasks are asked to stop.
    stops: Arc<AtomicBool>,
}

impl JobRunner {
    /// A runner without values, whose tasks write lines to standard output. See the example of [`JobRunner`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the function that is called with each line that a task reports by [`Context::say`].
    /// Default: writes it to standard output. See the example of [`JobRunner`].
    #[must_use]
    pub fn on_say(mut self, call: impl Fn(&Said<'_>) + Send + Sync + 'static) -> Self {
        drop(self.set_on_say(call));
        self
    }

    /// Sets the function, and returns what called the one before.
    #[must_use]
    pub(super) fn set_on_say(
        &mut self,
        call: impl Fn(&Said<'_>) + Send + Sync + 'static,
    ) -> LineSink {
        std::mem::replace(&mut self.lines, LineSink::calling(Box::new(call)))
    }

    /// Runs a task on this thread, calls its callbacks, and completes its future. `worker` is what
    /// [`Context::worker`] returns. Panics of the task and of callbacks are caught.
    ///
    /// Hold no lock that the executor needs: the task and the callbacks may submit, cancel and wait
    /// for tasks. Before such a wait, [`Cancel::can_wait_for`](super::Cancel::can_wait_for) is called.
    /// See the example of [`JobRunner`].
    pub fn run(&self, job: Job, worker: usize) {
        let _role = RoleGuard::serves(FOREIGN, None);
        let _obligation = Obligation::to_end(job.id());
        self.run_in_role(job, worker);
    }

    /// The same, for a thread whose role is set by its executor.
    pub(super) fn run_in_role(&self, job: Job, worker: usize) {
        let mut context = self.context(job.id(), worker);
        job.run(&mut context);
    }

    /// Asks the tasks that run, and all that follow, to stop: see [`Context::stop_requested`]. For a
    /// [`Shutdown::Kill`](super::Shutdown::Kill). See the example of [`JobRunner`].
    pub fn ask_to_stop(&self) {
        self.stops.store(true, Ordering::Release);
    }

    /// The context of a task.
    pub(super) fn context(&self, task: TaskId, worker: usize) -> Context {
        let (locals, lines) = (Arc::clone(&self.locals), self.lines.clone());
        let stop = StopSignal::Here { future: None, executor: Arc::clone(&self.stops) };
        Context { task, worker, attempt: 1, locals, lines, label: None, stop }
    }

    /// Brings a context of this runner up to date, for the next task of its thread. Returns what the context had
    /// before, which may be the last reference to a function of the program: it is dropped without locks.
    #[must_use]
    pub(super) fn refresh(&self, context: &mut Context) -> Option<LineSink> {
        let is_new = !context.lines.is_same(&self.lines);
        is_new.then(|| std::mem::replace(&mut context.lines, self.lines.clone()))
    }

    /// Drops the values of [`Context::local`] that no task uses any more, for the end of an executor.
    /// See the example of [`JobRunner`].
    pub fn clear_locals(&self) {
        self.locals.clear();
    }
}
