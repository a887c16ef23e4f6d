//! The supervisor thread: it starts all workers of a pool, sends the scheduler a `Tick` at the time
//! that the scheduler named, and verifies that killed processes end.
//!
//! It ends after the last worker: Linux sends the parent-death signal of a worker at the end of the thread that
//! started it, not at the end of the process.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};

use super::PoolEvent;
use super::endings::LOOK_AGAIN;
use super::inner::PoolInner;
use super::start_worker::{self, NotStarted};
use super::worker_handle::WorkerHandle;
use crate::panics;
use crate::scheduler::{Event, NextStart};

/// A message to the supervisor.
pub(crate) enum SupervisorMessage {
    Start(Arc<WorkerHandle>),
    /// The next `Tick` is due earlier than before, or a process was killed.
    CheckAgain,
    /// What killed programs have left is to be removed.
    Sweep,
    End,
}

/// A variable of the workers' environment that makes the supervisor panic.
#[cfg(test)]
const PANIC: &str = "PROCESSION_TEST_SUPERVISOR_PANICS";

/// The supervisor thread, until the end of the pool.
pub(crate) fn supervise(pool: &Arc<PoolInner>, messages: &Receiver<SupervisorMessage>) {
    let _delivering = pool.begin_delivering(None);
    if let Err(panic) = panics::catch(|| receive_messages(pool, messages)) {
        pool.collapse(&panic);
    }
    if pool.collapsed.get().is_some() {
        pool.await_processes();
    }
    if let Some(template) = &pool.setup.template {
        template.end();
    }
}

impl PoolInner {
    /// Reports a start that failed.
    pub(super) fn note_start(&self, handle: &WorkerHandle, started: Result<(), NotStarted>) {
        let Err(NotStarted { cause, next_start }) = started else { return };
        let (worker_id, worker, reason) = (handle.worker_id, handle.worker(), cause.clone());
        if matches!(next_start, NextStart::WithBackoff | NextStart::AfterShortage) {
            self.listeners.event(|| PoolEvent::WorkerDelayed { worker, reason });
        }
        self.handle(Event::StartFailed { worker_id, cause, next_start });
    }
}

fn receive_messages(pool: &Arc<PoolInner>, messages: &Receiver<SupervisorMessage>) {
    let mut has_dying = false;
    while pool.collapsed.get().is_none() {
        #[cfg(test)]
        assert!(!pool.setup.worker_env.iter().any(|(name, _)| name == PANIC), "on purpose");
        let next_look = has_dying.then_some(LOOK_AGAIN);
        let next_time = pool.next_tick().map(|at| {
            let left = at.saturating_duration_since(pool.clock.now());
            // No time passes on a stopped clock: poll it.
            if pool.clock.is_stopped() { left.max(LOOK_AGAIN) } else { left }
        });
        let message = match [next_look, next_time].into_iter().flatten().min() {
            None => messages.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(left) => messages.recv_timeout(left),
        };
        match message {
            Ok(SupervisorMessage::Start(handle)) => pool.start_worker(handle),
            Ok(SupervisorMessage::CheckAgain) => {}
            Ok(SupervisorMessage::Sweep) => start_worker::sweep(pool),
            Err(RecvTimeoutError::Timeout) => pool.handle(Event::Tick),
            Ok(SupervisorMessage::End) | Err(RecvTimeoutError::Disconnected) => return,
        }
        has_dying = pool.verify_ends();
    }
}
