//! The handler thread of one worker: it performs the handshake, then receives the replies of the
//! worker until the operating system reports the end of the process.
//!
//! ```text
//!   Hello: right process, protocol, build? ─► Lifeline, Welcome ─► ready
//!                                                                          │
//!             ┌──────── sleep on the event count   ◄───────────────────────┘
//!             ├─ replies ─► to the scheduler, then to the promises
//!             ├─ said ─► to `on_say`
//!             └─ ended, and all replies read ─► to the scheduler
//! ```
//!
//! Until the worker is ready, the handler blocks only in reads of the socket pair. At the end of the process
//! the watch thread shuts the socket down. This wakes the handler and needs no resource. A process that sends
//! nothing is killed at the scheduler's deadline.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use rustix::process::Signal;

use super::PoolEvent;
use super::child::{Child, Ended};
use super::handshake;
use super::inner::PoolInner;
use super::receive;
use super::start_dir::AwaitedStart;
use super::start_failure::StartFailure;
use super::start_worker;
use super::worker_handle::{KillReason, WorkerHandle};
use crate::error::Exit;
use crate::panics;
use crate::printable::printable;
use crate::scheduler::{Event, NextStart, UnfitProgram};
use crate::transport::{Invitation, RunnerThreads};
use procession_os::mark::Mark;

/// What shows that a worker is awaited, until it is ready (`worker/origin.rs`).
pub(crate) struct StartMarks {
    start: AwaitedStart,
    mark: Option<Mark>,
}

impl StartMarks {
    /// The mark records the process that was started. Without it one kind of wrapper is not recognized.
    pub(super) fn new(start: AwaitedStart, mark: Option<Mark>, child: &Child) -> Self {
        let _ = mark.as_ref().map(|mark| mark.note_started(child.pid()));
        Self { start, mark }
    }

    /// Ends the start: the process is ready.
    pub(super) fn end(self) {
        self.start.succeed();
    }

    /// What a process that was started with the mark has said by it.
    pub(super) fn said(&self) -> Option<String> {
        self.mark.as_ref()?.said()
    }
}

/// The arguments of [`attend`].
pub(crate) struct HandlerSetup {
    pub handle: Arc<WorkerHandle>,
    pub awaited: StartMarks,
    pub invitation: Invitation,
    /// Index, in the pool's [`Programs`](super::program::Programs), of the program that the worker runs.
    pub rank: usize,
    /// Receives the end of the process, from the watch thread.
    pub ended: Receiver<Ended>,
}

/// Time from the close of the worker's end of the socket until the process is killed. Usually the
/// process is about to end.
pub(super) const LAST_WORDS: Duration = Duration::from_secs(5);

/// The handler thread of one worker, from the start of the process to its end.
pub(crate) fn attend(pool: &PoolInner, setup: HandlerSetup) {
    let HandlerSetup { handle, awaited, invitation, rank, ended } = setup;
    let _delivering = pool.begin_delivering(Some(handle.worker()));
    // A process that is not awaited does not serve. So a process whose handshake failed is awaited until it ends.
    let mut awaited = Some(awaited);
    // The channel library panics on some malformed messages and at the limit of open files. Such a
    // panic costs this worker, not the pool.
    let handshake =
        panics::catch(|| handshake::perform(pool, &handle, rank, &mut awaited, &invitation));
    let failure = match handshake {
        Ok(Ok(threads)) => return serve(pool, &handle, rank, threads, &ended),
        Ok(Err(failure)) => failure,
        Err(panic) => StartFailure::of_panic(&panic.message),
    };
    end_start(pool, &handle, rank, failure, &ended, awaited);
}

/// Receives the replies of a worker that is ready, until its end.
fn serve(
    pool: &PoolInner,
    handle: &WorkerHandle,
    rank: usize,
    threads: RunnerThreads,
    ended: &Receiver<Ended>,
) {
    pool.setup.programs.note_ready(rank);
    pool.note_sandbox(&threads.sandbox);
    let (worker_id, worker, pid) = (handle.worker_id, handle.worker(), handle.pid());
    pool.listeners.event(|| PoolEvent::WorkerStarted { worker, pid });
    report_fewer_threads(pool, handle, threads);
    pool.handle(Event::WorkerReady { worker_id });
    start_worker::order_sweep(pool);
    let received = panics::catch(|| receive::until_ended(pool, handle));
    if !matches!(received, Ok(Ok(()))) {
        // The worker wrote malformed records.
        handle.kill(KillReason::Unusable);
    }
    if let Some(traces) = pool.listeners.traces() {
        handle.traces().end(traces, handle);
    }
    let Ended { exit, usage, last_output, is_out_of_memory } = until_ended(handle, ended);
    let is_regular = exit == Exit::Code(0)
        || exit == Exit::Signal(Signal::KILL.as_raw())
            && handle.kill_reason() == Some(KillReason::Unneeded);
    pool.listeners.event(|| PoolEvent::WorkerExited { worker, pid, exit, usage, is_regular });
    pool.exited(handle, exit, last_output, is_out_of_memory);
}

/// Kills a process whose start failed, and reports the failure.
fn end_start(
    pool: &PoolInner,
    handle: &WorkerHandle,
    rank: usize,
    mut failure: StartFailure,
    ended: &Receiver<Ended>,
    awaited: Option<StartMarks>,
) {
    // A process that closed its socket is probably about to end, and its exit code is of interest.
    let early = match failure {
        StartFailure::Mute => ended.recv_timeout(LAST_WORDS),
        _ => Err(RecvTimeoutError::Disconnected),
    };
    let kill_reason = handle.kill_reason();
    if early.as_ref().err() == Some(&RecvTimeoutError::Timeout) && kill_reason.is_none() {
        let reason = "it closed its standard input and did not report".to_owned();
        failure = StartFailure::Misused(UnfitProgram::Wrapper, reason);
    }
    handle.kill(KillReason::Unusable);
    let mut end = match early {
        Ok(end) => {
            handle.release();
            end
        }
        Err(_) => until_ended(handle, ended),
    };
    end.last_output.extend(awaited.as_ref().and_then(StartMarks::said));
    let (worker_id, worker, pid) = (handle.worker_id, handle.worker(), handle.pid());
    let (cause, next_start) = failure.classify(pool, rank, (worker, pid), kill_reason, &end);
    let was_needed = kill_reason != Some(KillReason::Unneeded);
    let reason = cause.clone();
    pool.listeners.event(|| PoolEvent::WorkerNotStarted { worker, pid, reason, was_needed });
    if next_start == NextStart::AfterShortage {
        let reason = cause.clone();
        pool.listeners.event(|| PoolEvent::WorkerDelayed { worker, reason });
    }
    pool.handle(Event::StartFailed { worker_id, cause, next_start });
}

/// Waits for the report of the watch thread.
fn until_ended(handle: &WorkerHandle, ended: &Receiver<Ended>) -> Ended {
    // The watch thread drops its sender without a report only if it panicked.
    let ended = ended.recv().unwrap_or_else(|_| Ended::unknown(Exit::Unknown));
    handle.release();
    ended
}

/// Reports a worker with fewer threads than slots to the scheduler and to `on_event`.
fn report_fewer_threads(
    pool: &PoolInner,
    handle: &WorkerHandle,
    RunnerThreads { threads, refused, sandbox: _ }: RunnerThreads,
) {
    let (worker, pid) = (handle.worker(), handle.pid());
    let wanted = pool.setup.scheduling.threads(worker);
    if threads >= wanted {
        return;
    }
    pool.handle(Event::Narrowed { worker_id: handle.worker_id, slots: threads });
    let reason = printable(&refused.unwrap_or_default()).into_owned();
    pool.listeners.event(|| PoolEvent::WorkerNarrowed { worker, pid, threads, wanted, reason });
}
