//! Sees to it that what was ordered to end does end: workers that were killed, and the pool when one
//! of its own threads has died.

use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::PoolEvent;
use super::child::Child;
use super::inner::PoolInner;
use super::supervisor::Order;
use super::work_item::WorkItem;
use super::worker_handle::{KillReason, WorkerHandle};
use crate::error::{PoolError, TaskError};
use crate::panics::{self, Panic};
use crate::scheduler::Event;
use procession_os::threads::ThreadSpec;

/// How soon after a kill it is looked whether the process has ended, and how often then.
pub(super) const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// How long after a kill a process that lives on is written off.
const WRITE_OFF: Duration = Duration::from_secs(5);

/// A thread of the pool, and the process that it waits for, if there is one.
pub(super) struct PoolThread {
    thread: JoinHandle<()>,
    waits_for: Option<Arc<Child>>,
}

impl PoolThread {
    /// Waits for the thread to end, unless its process was written off.
    pub(super) fn join(self) {
        if !self.waits_for.is_some_and(|child| child.is_written_off()) {
            let _ = self.thread.join();
        }
    }
}

impl PoolInner {
    /// Starts a thread of the pool. Its panic breaks the pool.
    pub(super) fn start_thread(
        self: &Arc<Self>,
        name: String,
        body: impl FnOnce() + Send + 'static,
    ) -> io::Result<JoinHandle<()>> {
        ThreadSpec::new(name).with_stack(self.setup.stack).start(self.guarded(body))
    }

    /// The same for the first thread, without which there is no pool: a shortage is given time to
    /// pass.
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
        let shared = Arc::clone(self);
        move || {
            if let Err(panic) = panics::catch(body) {
                shared.collapse(&panic);
            }
        }
    }

    pub(super) fn keep(&self, thread: JoinHandle<()>, waits_for: Option<Arc<Child>>) {
        let mut threads = self.threads();
        threads.retain(|kept| !kept.thread.is_finished());
        threads.push(PoolThread { thread, waits_for });
    }

    /// Breaks the pool because this thread panicked. The scheduler may be in any state, so it is not
    /// asked what to do.
    pub(super) fn collapse(&self, panic: &Panic) {
        let Panic { message, location } = panic;
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
        self.room.notify_all();
        self.note_the_end();
        let _ = self.orders.send(Order::WakeEarlier);
    }

    /// Deals with an event after the pool has collapsed.
    pub(super) fn refuse(&self, event: Event<Arc<WorkItem>>, error: &PoolError) {
        if let Event::Submitted { job, .. } = event {
            self.fail_whole(&job, error);
        }
    }

    fn fail_whole(&self, work_item: &WorkItem, error: &PoolError) {
        let items = 0..work_item.items();
        let fail = || work_item.fail(items.clone(), TaskError::PoolBroken(error.clone()));
        self.count_and_tell(u64::from(items.end), |counts| &mut counts.failed, fail);
    }

    /// Looks at the processes whose end was ordered: kills them again, makes those that cannot be
    /// killed end by themselves, and writes off those that do not end. Says whether there are any.
    pub(super) fn verify_ends(&self) -> bool {
        let is_dying = |handle: &&Arc<WorkerHandle>| {
            handle.child.get().is_some_and(|child| child.dying().is_some())
        };
        let dying: Vec<_> =
            self.lock_state().handles.values().filter(is_dying).map(Arc::clone).collect();
        for handle in &dying {
            let Some(child) = handle.child.get() else { continue };
            let Some((since, done)) = child.dying() else { continue };
            if since >= WRITE_OFF {
                let (worker, pid) = (handle.worker(), handle.pid());
                self.report(|| PoolEvent::WorkerWrittenOff {
                    worker,
                    pid,
                    reason: match done {
                        Ok(()) => format!("it lives on {WRITE_OFF:?} after it was killed"),
                        Err(error) => format!("it cannot be killed: {error}"),
                    },
                });
                child.write_off();
                continue;
            }
            if since >= LOOK_AGAIN {
                child.kill();
            }
            if done.is_err() {
                // With its lifeline broken it ends by itself.
                handle.hang_up();
            }
        }
        !dying.is_empty()
    }

    /// Waits for the end of all processes of a pool that has collapsed.
    pub(super) fn see_all_out(&self) {
        let is_there = |handle: &Arc<WorkerHandle>| handle.is_there();
        while self.lock_state().handles.values().any(is_there) {
            self.verify_ends();
            thread::sleep(LOOK_AGAIN / 4);
        }
    }
}
