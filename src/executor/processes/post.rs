//! One worker process as the pool sees it: where its calls are put, and how it is ended.
//!
//! Calls are put into the outbox while the scheduler's lock is held, so that they lie there in the
//! order in which they were decided, and are sent after it was released. Whoever holds the link
//! sends all that lies there, many short calls in one frame; so the order stays the same on the
//! way.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use std::{io, iter};

use ipc_channel::IpcError;
use ipc_channel::ipc::IpcSender;

use super::child::Child;
use super::scheduler::Tenant;
use crate::error::TaskError;
use crate::executor::job::{Encoded, Owed};
use crate::task::TaskId;
use crate::wire::{Call, INLINE_LIMIT, Text, ToWorker, Whisper};

/// A task that a process pool owes an answer for.
pub(crate) struct Parcel {
    pub id: TaskId,
    pub name: &'static str,
    pub submitted: Instant,
    json: String,
    inline_limit: usize,
    owed: Mutex<Option<Box<dyn Owed>>>,
}

impl Parcel {
    /// A text that is longer than the limit will travel in shared memory.
    pub(crate) fn new(Encoded { id, name, json, owed }: Encoded, inline_limit: usize) -> Self {
        let submitted = Instant::now();
        Self { id, name, submitted, json, inline_limit, owed: Mutex::new(Some(owed)) }
    }

    /// How many bytes of a socket's buffer the task takes.
    pub(crate) fn bytes(&self) -> usize {
        // Of a text in shared memory only a handle is sent.
        if self.json.len() <= self.inline_limit { self.json.len() } else { 64 }
    }

    fn text(&self) -> Text {
        Text::within(self.inline_limit, &self.json)
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

impl Outgoing {
    fn call(&self) -> Call {
        let Self { turn, attempt, parcel } = self;
        Call {
            id: parcel.id.0,
            turn: *turn,
            attempt: *attempt,
            name: parcel.name.to_owned(),
            task: parcel.text(),
        }
    }
}

/// As many texts in shared memory as the channel carries in one message, which panics beyond that.
const MOST_IN_A_FRAME: usize = 64;

/// Cuts calls into frames that the channel sends in one piece, whatever is in them: see
/// [`wire`](crate::wire) for what is wrong with fragments.
fn frames(calls: &[Outgoing]) -> impl Iterator<Item = &[Outgoing]> {
    let mut rest = calls;
    iter::from_fn(move || {
        let mut bytes = 0;
        let fits = |call: &&Outgoing| {
            bytes += call.parcel.bytes();
            bytes <= INLINE_LIMIT
        };
        // One always goes, so that none is ever left behind.
        let fitting = rest.iter().take(MOST_IN_A_FRAME).take_while(fits).count();
        let (frame, later) = rest.split_at(fitting.max(1).min(rest.len()));
        rest = later;
        (!frame.is_empty()).then_some(frame)
    })
}

/// Sends the calls in one frame, and says whether that succeeded.
fn send(to: &IpcSender<ToWorker>, frame: &[Outgoing]) -> bool {
    loop {
        match to.send(ToWorker::Calls(frame.iter().map(Outgoing::call).collect())) {
            Err(IpcError::Io(error)) if error.kind() == io::ErrorKind::Interrupted => {}
            outcome => return outcome.is_ok(),
        }
    }
}

/// Why the pool kills a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doom {
    /// It took too long.
    Late,
    /// Nobody needs it any more.
    Unneeded,
    /// It says what makes no sense, or is not what was asked for.
    Unfit,
}

/// One worker process, from the decision to start it until its end.
pub(crate) struct Post {
    pub tenant: Tenant,
    /// Set when the process was started.
    pub child: OnceLock<Arc<Child>>,
    outbox: Mutex<Vec<Outgoing>>,
    link: Mutex<Link>,
    doom: OnceLock<Doom>,
    is_deaf: AtomicBool,
    is_dismissed: AtomicBool,
}

/// As long as this lives, nobody reads what the worker says.
pub(crate) struct Deaf<'p>(&'p AtomicBool);

impl Drop for Deaf<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[derive(Default)]
struct Link {
    /// Dropped to let the worker go.
    calls: Option<IpcSender<ToWorker>>,
    /// Held until the worker's end: its breaking means that the coordinator is gone.
    lifeline: Option<IpcSender<Whisper>>,
}

impl Post {
    pub(crate) fn new(tenant: Tenant) -> Self {
        Self {
            tenant,
            child: OnceLock::new(),
            outbox: Mutex::default(),
            link: Mutex::default(),
            doom: OnceLock::new(),
            is_deaf: AtomicBool::new(false),
            is_dismissed: AtomicBool::new(false),
        }
    }

    /// Which worker of the pool this is, counted from 0.
    pub(crate) fn worker(&self) -> usize {
        self.tenant.seat
    }

    /// Notes that what the worker says is not read for a while.
    pub(crate) fn deaf(&self) -> Deaf<'_> {
        self.is_deaf.store(true, Ordering::Release);
        Deaf(&self.is_deaf)
    }

    pub(crate) fn is_deaf(&self) -> bool {
        self.is_deaf.load(Ordering::Acquire)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.get().map_or(0, |child| child.pid())
    }

    /// Whether the process was started and has not ended.
    pub(crate) fn is_there(&self) -> bool {
        self.child.get().is_some_and(|child| child.is_there())
    }

    pub(crate) fn connect(&self, calls: IpcSender<ToWorker>, lifeline: IpcSender<Whisper>) {
        *self.link() = Link { calls: Some(calls), lifeline: Some(lifeline) };
    }

    /// Takes a call; to be followed by a [`flush`](Self::flush).
    pub(crate) fn put(&self, call: Outgoing) {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner).push(call);
    }

    /// Sends what lies in the outbox. If that fails, gives the turn of the first call that has not
    /// been sent, after which none was. That a call was sent does not mean that it was received.
    #[must_use]
    pub(crate) fn flush(&self) -> Option<u64> {
        let link = self.link();
        let waiting =
            std::mem::take(&mut *self.outbox.lock().unwrap_or_else(PoisonError::into_inner));
        frames(&waiting)
            .find(|frame| !link.calls.as_ref().is_some_and(|calls| send(calls, frame)))
            .map(|frame| frame[0].turn)
    }

    pub(crate) fn whisper(&self, whisper: &Whisper) {
        if let Some(lifeline) = &self.link().lifeline {
            let _ = lifeline.send(*whisper);
        }
    }

    /// Lets the worker leave when it has done what it has.
    pub(crate) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        self.link().calls = None;
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Acquire)
    }

    /// Drops what is left of the link after the worker's end.
    pub(crate) fn disconnect(&self) {
        *self.link() = Link::default();
    }

    /// Ends the process, now or as soon as it is started.
    pub(crate) fn kill(&self, doom: Doom) {
        let _ = self.doom.set(doom);
        if let Some(child) = self.child.get() {
            child.kill();
        }
    }

    /// Why the process was killed first, if it was.
    pub(crate) fn doom(&self) -> Option<Doom> {
        self.doom.get().copied()
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Context, Failure, Task};

    #[derive(serde::Serialize, serde::Deserialize)]
    struct Text(String);
    impl Task for Text {
        const NAME: &'static str = "text";
        type Output = ();
        fn run(self, _: &Context) -> Result<(), Failure> {
            Ok(())
        }
    }

    fn frame_sizes(lengths: &[usize]) -> Vec<usize> {
        let outgoing = |length: &usize| {
            let (job, _) = crate::executor::Job::new(Text("x".repeat(*length)), None);
            let parcel = Arc::new(Parcel::new(job.encode().expect("encodable"), INLINE_LIMIT));
            Outgoing { turn: 1, attempt: 1, parcel }
        };
        let calls: Vec<_> = lengths.iter().map(outgoing).collect();
        frames(&calls).map(<[_]>::len).collect()
    }

    #[test]
    fn a_frame_is_small_enough_to_be_sent_in_one_piece() {
        assert_eq!(frame_sizes(&[]), [0; 0]);
        assert_eq!(frame_sizes(&[5; 20]), [20]);
        assert_eq!(frame_sizes(&[60_000, 6_000, 100, 60_000]), [1, 2, 1]);
        assert_eq!(frame_sizes(&[60_000; 3]), [1, 1, 1]);
        // In shared memory.
        assert_eq!(frame_sizes(&[70_000; 100]), [64, 36]);
    }
}
