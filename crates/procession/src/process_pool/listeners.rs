//! [`Listeners`]: the functions of the program that a pool calls with events, output and lines of
//! tasks.

use super::measures::Measures;
use super::pool_journal::PoolJournal;
use super::traces::Traces;
use super::worker_handle::WorkerHandle;
use super::{Output, PoolEvent, trace};
use crate::panics;
use crate::progress_lines::{OnSay, Said};
use crate::transport::Garbled;
use crate::waiting::RoleGuard;

pub(super) type OnEvent = Box<dyn Fn(&PoolEvent) + Send + Sync>;
pub(super) type OnOutput = Box<dyn Fn(&Output<'_>) + Send + Sync>;

/// What the builder was given.
pub(super) struct ListenerFns {
    pub(super) on_event: Option<OnEvent>,
    /// Whether `on_event` is called with [`PoolEvent::TaskStarted`], too.
    pub(super) wants_starts: bool,
    pub(super) on_output: OnOutput,
    pub(super) on_say: OnSay,
    pub(super) journal: Option<PoolJournal>,
    /// Whether spans and events of tasks are passed on.
    pub(super) traces: Option<Traces>,
}

/// Calls the functions, each time in the role of a thread that delivers results: in that role a wait
/// for a task of the pool is refused, because the thread cannot be replaced. Panics are caught.
pub(super) struct Listeners {
    /// Address of the pool, for the role.
    pool: usize,
    functions: ListenerFns,
    pub(super) measures: Measures,
}

impl Listeners {
    pub(super) fn new(pool: usize, functions: ListenerFns) -> Self {
        Self { pool, functions, measures: Measures::new() }
    }

    /// Whether there is a listener for each task that starts.
    pub(super) fn want_starts(&self) -> bool {
        self.functions.wants_starts || trace::follows_tasks()
    }

    /// The journal of the pool, if it keeps one.
    pub(super) fn journal(&self) -> Option<&PoolJournal> {
        self.functions.journal.as_ref()
    }

    /// That the pool passes on what its tasks trace, if it does.
    pub(super) fn traces(&self) -> Option<&Traces> {
        self.functions.traces.as_ref()
    }

    /// Passes an event to the journal, to `on_event`, to `metrics` and to the subscriber of `tracing`; makes it
    /// only if there is one of them.
    pub(super) fn event(&self, event: impl FnOnce() -> PoolEvent) {
        let is_heard = self.functions.on_event.is_some() || self.journal().is_some();
        if !is_heard && !self.measures.follow_events() && !trace::is_on() {
            return;
        }
        let _role = RoleGuard::listens(self.pool);
        self.pass(&event());
    }

    /// Passes an event to all that listen. It is compiled once, and not for each place where an event is made.
    fn pass(&self, event: &PoolEvent) {
        if let Some(journal) = self.journal() {
            journal.event(event);
        }
        self.measures.event(event);
        let _ = panics::catch(|| trace::emit(event));
        if let Some(on_event) = &self.functions.on_event {
            let _ = panics::catch(|| on_event(event));
        }
    }

    /// Passes a line of a worker's output to `on_output`.
    pub(super) fn output(&self, output: &Output<'_>) {
        let _role = RoleGuard::listens(self.pool);
        if let Some(journal) = self.journal() {
            journal.output(output);
        }
        let _ = panics::catch(|| (self.functions.on_output)(output));
    }

    /// Passes a span or an event of a task to the subscriber of `tracing`.
    pub(super) fn traced(
        &self,
        handle: &WorkerHandle,
        task: u64,
        record: &[u8],
    ) -> Result<(), Garbled> {
        // No worker sends one unasked.
        let traces = self.traces().ok_or(Garbled)?;
        let _role = RoleGuard::listens(self.pool);
        handle.traces().pass(traces, handle, task, record)
    }

    /// Passes a line that a task reported to `on_say`.
    pub(super) fn line(&self, said: &Said<'_>) {
        let _role = RoleGuard::listens(self.pool);
        let _ = panics::catch(|| (self.functions.on_say)(said));
    }
}
