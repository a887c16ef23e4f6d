//! One worker process as the pool sees it: where its calls are put, and how it is ended.
//!
//! Calls are put into the outbox while the scheduler's lock is held, so that they lie there in the
//! order in which they were decided, and are sent after it was released. Whoever holds the link
//! sends all that lies there, in one frame; so the order stays the same on the way.

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use ipc_channel::ipc::IpcSender;

use super::child::Child;
use super::scheduler::Tenant;
use crate::error::TaskError;
use crate::executor::job::{Encoded, Owed};
use crate::task::TaskId;
use crate::wire::{Call, Recall, Text, ToWorker};

/// A task that a process pool owes an answer for.
pub(crate) struct Parcel {
    pub id: TaskId,
    pub name: &'static str,
    pub submitted: Instant,
    json: String,
    owed: Mutex<Option<Box<dyn Owed>>>,
}

impl Parcel {
    pub(crate) fn new(Encoded { id, name, json, owed }: Encoded) -> Self {
        Self { id, name, submitted: Instant::now(), json, owed: Mutex::new(Some(owed)) }
    }

    /// How many bytes of a socket's buffer the task takes.
    pub(crate) fn bytes(&self) -> usize {
        // Of a text in shared memory only a handle is sent.
        if Text::is_inline(self.json.len()) { self.json.len() } else { 64 }
    }

    pub(crate) fn set_running(&self, running: bool) {
        if let Some(owed) = &*self.owed() {
            owed.set_running(running);
        }
    }

    /// The promise, for whoever may keep it; only the first to ask gets it.
    pub(crate) fn take_owed(&self) -> Option<Box<dyn Owed>> {
        self.owed().take()
    }

    pub(crate) fn fail(&self, error: TaskError) {
        if let Some(owed) = self.take_owed() {
            owed.fail(error);
        }
    }

    fn owed(&self) -> MutexGuard<'_, Option<Box<dyn Owed>>> {
        self.owed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that waits to be sent.
pub(crate) struct Outgoing {
    pub turn: u64,
    pub attempt: u32,
    pub parcel: Arc<Parcel>,
}

/// One worker process, from the decision to start it until its end.
pub(crate) struct Post {
    pub tenant: Tenant,
    /// Set when the process was started.
    pub child: OnceLock<Arc<Child>>,
    outbox: Mutex<Vec<Outgoing>>,
    link: Mutex<Link>,
    doom: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Link {
    /// Dropped to let the worker go.
    calls: Option<IpcSender<ToWorker>>,
    /// Held until the worker's end: its breaking means that the coordinator is gone.
    lifeline: Option<IpcSender<Recall>>,
}

impl Post {
    pub(crate) fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            child: OnceLock::new(),
            outbox: Mutex::default(),
            link: Mutex::default(),
            doom: Mutex::default(),
        }
    }

    /// Which worker of the pool this is, counted from 0.
    pub(crate) fn worker(&self) -> usize {
        self.tenant.seat
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.get().map_or(0, |child| child.pid())
    }

    pub(crate) fn connect(&self, calls: IpcSender<ToWorker>, lifeline: IpcSender<Recall>) {
        *self.link() = Link { calls: Some(calls), lifeline: Some(lifeline) };
    }

    /// Takes a call; to be followed by a [`flush`](Self::flush).
    pub(crate) fn put(&self, call: Outgoing) {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// Sends what lies in the outbox. That the worker is gone is noticed elsewhere: then nothing
    /// that was sent counts.
    pub(crate) fn flush(&self) {
        let link = self.link();
        let waiting =
            std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
        if let (Some(calls), false) = (&link.calls, waiting.is_empty()) {
            let frame = waiting.into_iter().map(|Outgoing { turn, attempt, parcel }| Call {
                id: parcel.id.0,
                turn,
                attempt,
                name: parcel.name.to_owned(),
                task: Text::new(&parcel.json),
            });
            let _ = calls.send(ToWorker::Calls(frame.collect()));
        }
    }

    pub(crate) fn recall(&self, recall: Recall) {
        if let Some(lifeline) = &self.link().lifeline {
            let _ = lifeline.send(recall);
        }
    }

    /// Lets the worker leave when it has done what it has.
    pub(crate) fn dismiss(&self) {
        self.link().calls = None;
    }

    /// Drops what is left of the link after the worker's end.
    pub(crate) fn disconnect(&self) {
        *self.link() = Link::default();
    }

    /// Ends the process, now or as soon as it is started.
    pub(crate) fn kill(&self) {
        self.doom.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        if let Some(child) = self.child.get() {
            child.kill();
        }
    }

    /// When the process was told to end, if it was.
    pub(crate) fn doomed(&self) -> Option<Instant> {
        *self.doom.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
