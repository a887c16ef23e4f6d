//! [`WorkerHandle`]: one worker process as the pool sees it, from the order to start it until the pool
//! knows its end.
//!
//! | file | what it does |
//! |---|---|
//! | `outbox.rs` | calls on their way to the worker: queued, written to the ring, taken back |
//! | `receiving.rs` | records from the worker: read, waited for, matched with their calls |
//! | `help_wait.rs` | a thread that waits for a result receives in place of the handler |
//! | `end_call.rs` | ends one running call, and with it the process |
//!
//! **States.** They follow each other in this order, except that most workers are never unfit, and that a
//! process may be killed or end at any time after `ordered`.
//!
//! | state | recorded as | set by |
//! |---|---|---|
//! | ordered | a new handle | the action `Spawn` |
//! | started | `process` | supervisor, [`set_started`](WorkerHandle::set_started) |
//! | ready | `is_ready` | handler, after the handshake |
//! | unfit | `is_unfit` | receiving thread, when the worker reports that it can run no further tasks |
//! | dismissed | `is_dismissed`, and the ring of calls is closed | the action `Dismiss` |
//! | killed | `kill_reason`, the first one | any thread |
//! | ended | `ended_at` | watch thread |
//!
//! **Locks.** Taken in this order; a lock in parentheses is only tried, never waited for.
//!
//! | lock | guards | taken by |
//! |---|---|---|
//! | (`helping`) | the right to receive for one waiting caller; its spin state | that caller, for the whole wait |
//! | `receiving` | positions in the ring of replies, records that were read, attachments, the segments from the worker | the handler; (a waiting caller; `end_call`) |
//! | `traces` | open spans of its tasks, in the program's subscriber | while `receiving` is held, or by the handler after the end |
//! | [`PoolState`](super::state::PoolState) | the scheduler | while `receiving` is held, by the thread that receives |
//! | `sending` | the ring of calls, the table of claims, the lifeline, the segments to the worker | each thread that flushes, takes back, ends a call, or reads a reply |
//! | `outbox` | calls that were not written yet | with the pool's state held, to add calls; with `sending` held, to write or take them back |
//!
//! `sending` is never taken while the pool's state is held: writing an attachment is I/O.

mod end_call;
mod help_wait;
mod outbox;
mod receiving;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use ipc_channel::ipc::IpcSender;
use procession_os::crash::CrashRecord;
use rustix::process::Signal;

pub(super) use self::end_call::TerminateOutcome;
pub(super) use self::outbox::Outgoing;
use self::outbox::{Outbox, Sending};
pub(super) use self::receiving::{Answered, Receiving};
use super::child::Child;
use super::traces::WorkerTraces;
use crate::error::Exit;
use crate::scheduler::{Begun, WorkerId};
use crate::transport::{self, AdaptiveSpin, SegmentWriter, SharedRegion, Socket};

/// One worker process. See the head of the file for its states and locks.
pub(super) struct WorkerHandle {
    pub(super) worker_id: WorkerId,
    process: OnceLock<Process>,
    outbox: Outbox,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    handler_spin: AdaptiveSpin,
    /// Held by the one caller that may receive; guards the spin state of callers.
    helping: Mutex<AdaptiveSpin>,
    traces: Mutex<WorkerTraces>,
    is_ready: AtomicBool,
    is_dismissed: AtomicBool,
    is_unfit: AtomicBool,
    kill_reason: OnceLock<KillReason>,
    /// In nanoseconds of the clock of the claims. The report of the end may follow much later.
    ended_at: OnceLock<u64>,
}

/// A process that was started.
pub(super) struct Process {
    pub(super) child: Arc<Child>,
    /// The memory that it shares with this process.
    pub(super) region: Arc<SharedRegion>,
    /// This end of its socket pair.
    pub(super) socket: Socket,
}

/// Why the pool kills a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum KillReason {
    /// A timeout passed.
    Late,
    /// The pool ends, or needs fewer workers.
    Unneeded,
    /// It sent malformed data, or its handshake failed.
    Unusable,
}

impl WorkerHandle {
    pub(super) fn new(worker_id: WorkerId) -> Self {
        Self {
            worker_id,
            process: OnceLock::new(),
            outbox: Outbox::default(),
            sending: Mutex::default(),
            receiving: Mutex::default(),
            handler_spin: AdaptiveSpin::default(),
            helping: Mutex::default(),
            traces: Mutex::default(),
            is_ready: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
            is_unfit: AtomicBool::new(false),
            kill_reason: OnceLock::new(),
            ended_at: OnceLock::new(),
        }
    }

    /// Index of the worker in the pool.
    pub(super) fn worker(&self) -> usize {
        self.worker_id.worker_index
    }

    pub(super) fn process(&self) -> Option<&Process> {
        self.process.get()
    }

    fn region(&self) -> Option<&SharedRegion> {
        self.process().map(|process| &*process.region)
    }

    pub(super) fn child(&self) -> Option<&Arc<Child>> {
        self.process().map(|process| &process.child)
    }

    /// The process id; 0 before the start.
    pub(super) fn pid(&self) -> u32 {
        self.child().map_or(0, |child| child.pid())
    }

    /// Whether the process was started and has not been reaped.
    pub(super) fn is_there(&self) -> bool {
        self.child().is_some_and(|child| child.is_there())
    }

    /// The process was started. In bytes: `segment_bytes` is the maximum length of its segments together, `most_sent`
    /// that of an output, a partial result or a line.
    pub(super) fn set_started(
        &self,
        child: Arc<Child>,
        region: SharedRegion,
        socket: Socket,
        segment_bytes: u64,
        most_sent: u64,
    ) {
        let region = Arc::new(region);
        self.sending().set_segments(Arc::clone(&region), segment_bytes);
        self.receiving().set_segments(Arc::clone(&region), most_sent);
        let _ = self.process.set(Process { child, region, socket });
    }

    /// Keeps the lifeline of a worker until its end. The worker takes a broken lifeline for the end of
    /// the coordinator.
    pub(super) fn set_lifeline(&self, lifeline: IpcSender<()>) {
        self.sending().lifeline = Some(lifeline);
    }

    /// Breaks the lifeline, unless calls are being sent at the moment.
    pub(super) fn break_lifeline(&self) {
        if let Ok(mut sending) = self.sending.try_lock() {
            sending.lifeline = None;
        }
    }

    /// The handshake is complete: no thread blocks in a read of the socket any more.
    pub(super) fn note_ready(&self) {
        self.is_ready.store(true, Ordering::SeqCst);
    }

    /// The process has ended and will publish nothing more. Wakes all threads that wait for it.
    pub(super) fn note_end(&self) {
        let _ = self.ended_at.set(transport::now());
        let Some(Process { region, socket, .. }) = self.process() else { return };
        // Always, since the worker may have changed the words that say whether a thread sleeps.
        region.reply_events().notify_always();
        region.caller_events().notify_always();
        // Before the worker is ready, the handler blocks in a read of the socket. Later the socket
        // may hold attachments of replies, which are still read.
        if !self.is_ready.load(Ordering::SeqCst) {
            socket.shut_down();
        }
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended_at.get().is_some()
    }

    /// The calls that had begun and were not answered at the end of the worker.
    pub(super) fn begun(&self) -> Vec<Begun> {
        let at = self.ended_at.get().copied().unwrap_or_else(transport::now);
        let region = self.region();
        region.map_or_else(Vec::new, |region| self.sending().claims.begun(region, at))
    }

    /// Gives the segments back to the system that were not used for some time.
    pub(super) fn drop_idle_segments(&self) {
        self.sending().segments.drop_idle(Instant::now());
        self.receiving().drop_idle_segments();
    }

    /// What the worker has recorded of the crash that ended it.
    pub(super) fn crash(&self, exit: Exit) -> Option<CrashRecord> {
        let Exit::Signal(signal) = exit else { return None };
        let record = self.region()?.crash()?;
        // The standard library answers the SIGSEGV of a stack overflow with SIGABRT.
        let is_overflow =
            record.signal == Signal::SEGV.as_raw() && signal == Signal::ABORT.as_raw();
        // A process that the task has forked shares the memory.
        (record.pid == self.pid() && (record.signal == signal || is_overflow)).then_some(record)
    }

    /// The labels of the tasks that the worker ran last, by their ids.
    pub(super) fn labels(&self) -> Vec<(u64, String)> {
        self.region().map_or_else(Vec::new, SharedRegion::labels)
    }

    /// Lets the worker end after its last call.
    pub(super) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        if let Some(region) = self.region() {
            region.close();
        }
    }

    pub(super) fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Acquire)
    }

    /// The worker reported that it can run no further tasks. Returns false if it had before.
    pub(super) fn note_unfit(&self) -> bool {
        !self.is_unfit.swap(true, Ordering::SeqCst)
    }

    /// Kills the process, now or as soon as it is started.
    pub(super) fn kill(&self, reason: KillReason) {
        let _ = self.kill_reason.set(reason);
        if let Some(child) = self.child() {
            child.kill();
        }
    }

    /// The reason of the first kill.
    pub(super) fn kill_reason(&self) -> Option<KillReason> {
        self.kill_reason.get().copied()
    }

    /// Releases the descriptors of the link after the end of the worker.
    pub(super) fn release(&self) {
        let mut sending = self.sending();
        sending.lifeline = None;
        sending.segments = SegmentWriter::default();
        drop(sending);
        self.receiving().drop_attachments();
    }

    /// The spans of its tasks.
    pub(super) fn traces(&self) -> MutexGuard<'_, WorkerTraces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
