//! The end of a pool: its shutdown, the check that killed workers have ended, and the end that follows a panic
//! of one of its own threads.

use std::io;
use std::sync::{Arc, PoisonError, Weak};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::PoolEvent;
use super::child::Child;
use super::inner::PoolInner;
use super::measures::EndKind;
use super::supervisor::SupervisorMessage;
use super::work_item::WorkItem;
use super::worker_handle::{KillReason, WorkerHandle};
use crate::error::{PoolError, TaskError, with_unit};
use crate::executor::{Shutdown, callbacks};
use crate::panics::{self, Panic};
use crate::scheduler::Event;
use crate::waiting::{self, Need};
use procession_os::threads::ThreadSpec;

/// Interval at which killed processes are checked.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Time from the kill until a process that still runs is written off.
pub(super) const WRITE_OFF: Duration = Duration::from_secs(5);

/// A thread of the pool, and the process for whose end it waits, if any.
pub(super) struct PoolThread {
    thread: JoinHandle<()>,
    /// Weak: the thread has the process as long as it waits for it. A thread that has ended must not
    /// keep the descriptor of its process open.
    child: Option<Weak<Child>>,
}

impl PoolThread {
    /// Joins the thread, unless its process was written off: then it may never end.
    pub(super) fn join(self) {
        let child = self.child.and_then(|child| child.upgrade());
        if !child.is_some_and(|child| child.is_written_off()) {
            let _ = self.thread.join();
        }
    }
}

impl PoolInner {
    /// Starts a thread of the pool. A panic in it breaks the pool.
    pub(super) fn start_thread(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        ThreadSpec::new(name).with_stack(self.setup.stack).start(self.guarded(body))
    }

    /// The same for the first thread. At a shortage it tries again for a while, because a pool
    /// without this thread cannot exist.
    pub(super) fn start_first_thread(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        ThreadSpec::new(name).with_stack(self.setup.stack).start_with_retries(self.guarded(body))
    }

    fn guarded(
        self: &Arc<Self>,
        body: impl FnOnce() + Send + 'static,
    ) -> impl FnOnce() + Send + 'static {
        let pool = Arc::clone(self);
        move || {
            if let Err(panic) = panics::catch(body) {
                pool.collapse(&panic);
            }
        }
    }

    /// Adds a thread to those that a shutdown joins.
    pub(super) fn add_thread(&self, thread: JoinHandle<()>, child: Option<Weak<Child>>) {
        let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
        threads.retain(|other| !other.thread.is_finished());
        threads.push(PoolThread { thread, child });
    }

    /// Joins all threads of a pool that has ended, or waits until another shutdown has.
    pub(super) fn join_threads(&self) {
        let _joining = self.joining.lock().unwrap_or_else(PoisonError::into_inner);
        // The supervisor, which is one of them, may have added another meanwhile.
        loop {
            let mut threads = self.threads.lock().unwrap_or_else(PoisonError::into_inner);
            let ended = std::mem::take(&mut *threads);
            drop(threads);
            if ended.is_empty() {
                return;
            }
            ended.into_iter().for_each(PoolThread::join);
        }
    }

    /// Shuts the pool down, and waits for its end, except in a callback of the pool.
    pub(super) fn shut_down(&self, how: Shutdown) {
        // A forked copy of the process has neither the threads nor the workers.
        if self.origin.is_forked() {
            return;
        }
        self.handle(Event::ShutDown(how));
        if callbacks::is_within(self) {
            return;
        }
        let _waiting = waiting::begin([], Need::Time);
        self.end.wait();
        self.join_threads();
        self.start_dir.end();
        // No future is completed any more, so no callback is added.
        self.callbacks.finish();
        if let Some(journal) = self.listeners.journal() {
            journal.end(&self.counts(), self.collapsed.get().map(ToString::to_string));
        }
    }

    /// Breaks the pool because this thread panicked. The scheduler may be inconsistent, so it is not
    /// used any more.
    pub(super) fn collapse(&self, panic: &Panic) {
        let Panic { message, location, .. } = panic;
        let at = location.as_ref().map(|at| format!(" at {at}")).unwrap_or_default();
        let thread = thread::current().name().unwrap_or("without a name").to_owned();
        let error = PoolError::ThreadDied { thread, message: format!("{message}{at}") };
        if self.collapsed.set(error.clone()).is_err() {
            return;
        }
        let mut state = self.lock_state();
        let work_items = state.scheduler.abandon();
        let handles: Vec<_> = state.handles.values().map(Arc::clone).collect();
        drop(state);
        for handle in handles {
            handle.kill(KillReason::Unneeded);
        }
        for work_item in work_items {
            self.fail_whole(&work_item, &error);
        }
        self.room_was_made();
        self.end.set();
        let _ = self.supervisor.send(SupervisorMessage::CheckAgain);
    }

    /// Handles an event after the collapse: tasks fail, all else is ignored.
    pub(super) fn refuse(&self, event: Event<Arc<WorkItem>>, error: &PoolError) {
        if let Event::Submitted { job, .. } = event {
            self.fail_whole(&job, error);
        }
    }

    fn fail_whole(&self, work_item: &WorkItem, error: &PoolError) {
        let items = 0..work_item.items();
        let fail = || work_item.fail(items.clone(), TaskError::PoolBroken(error.clone()));
        self.count_and_complete(u64::from(items.end), EndKind::Failed, fail);
    }

    /// Checks the processes that were killed and have not ended: kills them again, breaks the
    /// lifeline of those that cannot be killed, and writes them off after [`WRITE_OFF`]. Returns
    /// whether there are any.
    pub(super) fn verify_ends(&self) -> bool {
        let is_dying = |handle: &&Arc<WorkerHandle>| {
            handle.child().is_some_and(|child| child.dying().is_some())
        };
        let dying: Vec<_> =
            self.lock_state().handles.values().filter(is_dying).map(Arc::clone).collect();
        for handle in &dying {
            let Some(child) = handle.child() else { continue };
            let on_write_off = |killed| {
                let (worker, pid) = (handle.worker(), handle.pid());
                let reason = || match killed {
                    Ok(()) => format!("it still runs {} after it was killed", with_unit(WRITE_OFF)),
                    Err(error) => format!("it cannot be killed: {error}"),
                };
                self.listeners.event(|| PoolEvent::WorkerWrittenOff {
                    worker,
                    pid,
                    reason: reason(),
                });
            };
            if child.verify_end(on_write_off).is_err() {
                // A worker with a broken lifeline ends itself.
                handle.break_lifeline();
            }
        }
        !dying.is_empty()
    }

    /// Waits for the end of all processes after a collapse.
    pub(super) fn await_processes(&self) {
        let is_there = |handle: &Arc<WorkerHandle>| handle.is_there();
        while self.lock_state().handles.values().any(is_there) {
            self.verify_ends();
            thread::sleep(LOOK_AGAIN / 4);
        }
    }
}
