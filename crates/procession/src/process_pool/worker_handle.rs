//! One worker process as the pool sees it: where its calls are put and its replies come from, and
//! how it is ended.
//!
//! Calls are put into the outbox while the scheduler's lock is held, so that they lie there in the
//! order in which they were decided, and are written into the memory that is shared with the
//! worker after it was released. The thread that holds `sending` writes all that is there, so the order
//! stays the same on the way.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use ipc_channel::ipc::IpcSender;

use super::child::Child;
use super::claims::{Claims, Sent};
use super::work_item::WorkItem;
use crate::future::Wake;
use crate::scheduler::{Begun, Claimed, WorkerId};
use crate::transport::{
    self, AdaptiveSpin, Assembly, Attachment, CALL, Call, ENCLOSED, Garbled, INLINE_LIMIT, Passed,
    Patience, Progress, Reader, Record, Records, SharedRegion, Socket, TAKE_IN, Writer,
};

/// A call that waits to be sent.
pub(crate) struct Outgoing {
    pub seq: u64,
    pub attempt: u32,
    pub work_item: Arc<WorkItem>,
    /// Which of the parcel's tasks.
    pub items: Range<u32>,
}

/// Tasks of a call that were answered.
pub(crate) struct Answered {
    pub seq: u64,
    pub work_item: Arc<WorkItem>,
    /// The first of them.
    pub item: u32,
}

/// Why the pool kills a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KillReason {
    /// It took too long.
    Late,
    /// Nobody needs it any more.
    Unneeded,
    /// It says what makes no sense, or is not what was asked for.
    Unusable,
}

/// What became of the order to end a call.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum TerminateOutcome {
    /// It ends with its process.
    Carried,
    /// Not for now.
    Suspended(Claimed),
}

/// One worker process, from the decision to start it until its end.
pub(crate) struct WorkerHandle {
    pub worker_id: WorkerId,
    /// Set when the process was started.
    pub child: OnceLock<Arc<Child>>,
    /// Set before that.
    pub region: OnceLock<SharedRegion>,
    /// Set together with it.
    pub socket: OnceLock<Socket>,
    outbox: Mutex<VecDeque<Outgoing>>,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    /// Whoever receives their own reply; one at a time.
    helping: Mutex<()>,
    handlers_patience: AdaptiveSpin,
    callers_patience: AdaptiveSpin,
    kill_reason: OnceLock<KillReason>,
    /// The handshake is over.
    is_ready: AtomicBool,
    has_ended: AtomicBool,
    /// By the clock of the claims. It may take a while until somebody asks.
    ended_at: OnceLock<u64>,
    is_dismissed: AtomicBool,
    /// A call that has ended by its claim, and where the unread replies ended when that was seen.
    ended: Mutex<Option<(u64, u64)>>,
    /// The worker has said that it should run no further tasks.
    is_unfit: AtomicBool,
    /// There was no room for what lies in the outbox.
    lacks_room: AtomicBool,
    /// There was none in the socket, for what belongs beside it.
    socket_is_full: AtomicBool,
}

#[derive(Default)]
struct Sending {
    writer: Writer,
    claims: Claims,
    /// Held until the worker's end: its breaking means that the coordinator is gone.
    lifeline: Option<IpcSender<()>>,
    /// Of the call of this turn, so many items that belong beside it were sent.
    part: Option<(u64, usize)>,
}

/// Where replies come from.
pub(crate) struct Receiving {
    reader: Reader,
    records: Records,
    assembly: Assembly,
    patience: Patience,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            records: Records::default(),
            assembly: Assembly::default(),
            patience: Patience::of(SHORTAGE_MAY_PASS),
        }
    }
}

/// How long the handler sleeps at most while the socket is full: the worker does not tell when it
/// has taken something out of it.
const SOCKET_MAY_BE_FULL: Duration = Duration::from_millis(1);

/// How long descriptors may be short in this process before what a worker sent is given up.
const SHORTAGE_MAY_PASS: Duration = Duration::from_secs(2);

impl WorkerHandle {
    pub(crate) fn new(worker_id: WorkerId) -> Self {
        Self {
            worker_id,
            child: OnceLock::new(),
            region: OnceLock::new(),
            socket: OnceLock::new(),
            outbox: Mutex::default(),
            sending: Mutex::default(),
            receiving: Mutex::default(),
            helping: Mutex::default(),
            handlers_patience: AdaptiveSpin::default(),
            callers_patience: AdaptiveSpin::default(),
            kill_reason: OnceLock::new(),
            is_ready: AtomicBool::new(false),
            has_ended: AtomicBool::new(false),
            ended_at: OnceLock::new(),
            is_dismissed: AtomicBool::new(false),
            ended: Mutex::default(),
            is_unfit: AtomicBool::new(false),
            lacks_room: AtomicBool::new(false),
            socket_is_full: AtomicBool::new(false),
        }
    }

    /// Which worker of the pool this is, counted from 0.
    pub(crate) fn worker(&self) -> usize {
        self.worker_id.worker_index
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.get().map_or(0, |child| child.pid())
    }

    /// Whether the process was started and has not ended.
    pub(crate) fn is_there(&self) -> bool {
        self.child.get().is_some_and(|child| child.is_there())
    }

    /// Holds the lifeline of a worker that was welcomed.
    pub(crate) fn hold(&self, lifeline: IpcSender<()>) {
        self.sending().lifeline = Some(lifeline);
    }

    /// Takes a call; to be followed by a [`flush`](Self::flush).
    pub(crate) fn put(&self, call: Outgoing) {
        self.outbox().push_back(call);
    }

    /// Writes what lies in the outbox, as far as there is room. Never waits for any.
    pub(crate) fn flush(&self) {
        let Some((region, socket)) = self.region.get().zip(self.socket.get()) else { return };
        let mut sending = self.sending();
        let mut has_written = false;
        self.lacks_room.store(false, Ordering::SeqCst);
        self.socket_is_full.store(false, Ordering::SeqCst);
        loop {
            // Bound first: the outbox must not stay locked while a text is sent.
            let next = self.outbox().pop_front();
            let Some(next) = next else { break };
            match sending.write(region, socket, &next) {
                Ok(Written::Yes) => has_written = true,
                Ok(Written::NoRoom) => {
                    self.outbox().push_front(next);
                    // Once more after that note: the worker may have made room before anybody
                    // knew that it was lacking.
                    if self.lacks_room.swap(true, Ordering::SeqCst) {
                        break;
                    }
                }
                Ok(Written::NoRoomBeside) => {
                    self.outbox().push_front(next);
                    self.socket_is_full.store(true, Ordering::SeqCst);
                    has_written |= sending.ask_to_take_in(region);
                    break;
                }
                Ok(Written::Stuck) => {
                    self.outbox().push_front(next);
                    // It may be better with the next reply, or for the next worker. That there is
                    // none with descriptors so short will be known soon.
                    if sending.claims.are_free() {
                        self.kill(KillReason::Unusable);
                    }
                    break;
                }
                Err(Garbled) => {
                    self.kill(KillReason::Unusable);
                    break;
                }
            }
        }
        drop(sending);
        if has_written {
            region.call_events().notify();
        }
    }

    /// Takes back what the worker has not begun of the calls of these turns, and says what it has.
    pub(crate) fn take_back(&self, seqs: RangeInclusive<u64>) -> Vec<Begun> {
        let Some(region) = self.region.get() else { return Vec::new() };
        // This lock first: what is being written now is found among the claims then.
        let mut sending = self.sending();
        let mut outbox = self.outbox();
        let mut back = sending.claims.revoke(region, &seqs);
        outbox.retain(|call| {
            let stays = !seqs.contains(&call.seq);
            let (seq, items, ran_for) = (call.seq, 0, Duration::ZERO);
            back.extend((!stays).then_some(Begun { seq, items, ran_for }));
            stays
        });
        let has_more = !outbox.is_empty();
        drop((sending, outbox));
        if has_more {
            // No reply may come for what was taken back, and this may have waited for one.
            self.flush();
        }
        back
    }

    /// Ends a call together with its process, if it has run for as long as it may. Gives what was
    /// taken back meanwhile, if the process lives on.
    pub(crate) fn end_call(
        &self,
        seq: u64,
        allowed: Option<Duration>,
    ) -> (TerminateOutcome, Vec<Begun>) {
        let progress = || {
            let region = self.region.get()?;
            self.sending().claims.progress(region, seq)
        };
        let suspended = TerminateOutcome::Suspended;
        let ended = || suspended(Claimed::Ended { is_being_read: self.may_be_read(seq) });
        let first = progress();
        match first {
            None if !self.is_to_be_sent(seq) => {
                // Its reply was taken, and the scheduler will hear of that.
                return (suspended(Claimed::Ended { is_being_read: true }), Vec::new());
            }
            Some(Progress { begun: 0, .. }) | None if allowed.is_none() => {
                return (suspended(Claimed::NotBegun), self.take_back(seq..=seq));
            }
            Some(Progress { begun: 0, .. }) | None => {
                return (suspended(Claimed::NotBegun), Vec::new());
            }
            Some(Progress { runs_for: None, .. }) => return (ended(), Vec::new()),
            Some(Progress { runs_for: Some(ran_for), .. }) => {
                if allowed.is_some_and(|allowed| ran_for < allowed) {
                    return (suspended(Claimed::RunsFor(ran_for)), Vec::new());
                }
            }
        }
        // So that it cannot be the next one that is hit.
        let back = self.take_back(0..=u64::MAX);
        let runs = progress().filter(|now| now.runs_for.is_some());
        // In a chunk, the next one may have begun before it was taken back.
        let is_the_same = runs.map(|now| now.begun) == first.map(|first| first.begun);
        if runs.is_some() && (is_the_same || allowed.is_none()) {
            self.kill(KillReason::Late);
            return (TerminateOutcome::Carried, Vec::new());
        }
        (ended(), back)
    }

    /// Whether the call of this turn is on its way to the worker: it waits in the outbox, or was
    /// sent a moment ago.
    fn is_to_be_sent(&self, seq: u64) -> bool {
        // This lock first, and for both looks: what is being written lies nowhere else.
        let sending = self.sending();
        sending.claims.of(seq).is_some() || self.outbox().iter().any(|call| call.seq == seq)
    }

    /// Whether the reply to a call, which has ended by its claim, may be among those that are not
    /// read yet. Of all that comes later than the first such question it is not: else a worker
    /// could put off the end of a call by replies to others.
    fn may_be_read(&self, seq: u64) -> bool {
        let Some(region) = self.region.get() else { return false };
        let Some(receiving) = self.try_receiving() else { return true };
        let tail = region.replies().tail();
        let has_unread = !receiving.reader.has_passed(tail);
        let mut ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, first) = ended.filter(|(of, _)| *of == seq).unwrap_or((seq, tail));
        *ended = Some((seq, first));
        // Both: a position may be taken back that was false when it was seen first.
        !receiving.is_empty() || has_unread && !receiving.reader.has_passed(first)
    }

    /// The calls that were begun and not answered when the worker ended.
    pub(crate) fn begun(&self) -> Vec<Begun> {
        let region = self.region.get();
        let at = self.ended_at.get().copied().unwrap_or_else(transport::now);
        region.map_or_else(Vec::new, |region| self.sending().claims.begun(region, at))
    }

    pub(crate) fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if nobody else is at it.
    pub(crate) fn try_receiving(&self) -> Option<MutexGuard<'_, Receiving>> {
        self.receiving.try_lock().ok()
    }

    /// The book of claims, to note what was answered, if that answer makes sense for these tasks.
    pub(crate) fn answered(
        &self,
        claim: u64,
        items: u32,
        makes_sense: impl FnOnce(&WorkItem, u32) -> bool,
    ) -> Result<Answered, Garbled> {
        let (seq, work_item, item) = self.sending().claims.answered(claim, items, makes_sense)?;
        Ok(Answered { seq, work_item, item })
    }

    /// The sequence number of the call of this claim, of which the worker says that it cannot receive it.
    pub(crate) fn seq_of(&self, claim: u64) -> Result<u64, Garbled> {
        self.sending().claims.seq_of(claim).ok_or(Garbled)
    }

    /// The id of the next task of this claim's call that has no answer.
    pub(crate) fn next_unanswered(&self, claim: u64) -> Result<u64, Garbled> {
        self.sending().claims.next_unanswered(claim).ok_or(Garbled)
    }

    /// Sleeps until the worker has replied, or has ended, or has read all its calls while there are
    /// more that found no room. It may have none to reply to: those that were taken back.
    pub(crate) fn wait_for_replies(&self) {
        let Some(region) = self.region.get() else { return };
        let has_room = || self.lacks_room.load(Ordering::SeqCst) && !region.calls().has_unread();
        let is_there = || region.replies().has_unread() || self.has_ended() || has_room();
        if self.socket_is_full.load(Ordering::SeqCst) {
            return region.reply_events().sleep_at_most(SOCKET_MAY_BE_FULL, is_there);
        }
        region.reply_events().wait_unless(&self.handlers_patience, is_there);
    }

    /// Lets replies gather for a short while, as long as the worker is busy.
    pub(crate) fn doze(&self) {
        let Some(region) = self.region.get() else { return };
        let is_urgent = || region.is_idle() || region.replies().is_filling() || self.has_ended();
        region.reply_events().doze_unless(is_urgent);
    }

    /// The process has ended: nothing will come from it any more.
    pub(crate) fn note_end(&self) {
        let _ = self.ended_at.set(transport::now());
        self.has_ended.store(true, Ordering::SeqCst);
        if let Some(region) = self.region.get() {
            region.reply_events().notify_always();
            region.caller_events().notify_always();
        }
        // A handler that waits for the worker to be ready waits there.
        if !self.is_ready.load(Ordering::SeqCst)
            && let Some(socket) = self.socket.get()
        {
            socket.shut_down();
        }
    }

    /// The worker should run no further tasks. False if that was known before.
    pub(crate) fn note_unfit(&self) -> bool {
        !self.is_unfit.swap(true, Ordering::SeqCst)
    }

    /// Nothing waits at the socket any more, and what lies in it may be needed after the end.
    pub(crate) fn note_ready(&self) {
        self.is_ready.store(true, Ordering::SeqCst);
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended.load(Ordering::SeqCst)
    }

    /// Lets a caller receive the reply to the call of this turn, if no other caller does the same:
    /// the handler need not be woken for it.
    pub(crate) fn lend(&self, seq: u64, is_done: &dyn Fn() -> bool, receive: impl Fn() -> bool) {
        let Some(region) = self.region.get() else { return };
        let Ok(_helping) = self.helping.try_lock() else { return };
        let Some(claim) = self.sending().claims.of(seq) else { return };
        region.set_awaited(Some(claim));
        let is_there = || region.replies().has_unread() || is_done() || self.has_ended();
        while !is_done() && !self.has_ended() {
            if !region.replies().has_unread() {
                region.caller_events().wait_unless(&self.callers_patience, is_there);
            } else if !receive() {
                break; // The handler is at it.
            }
        }
        region.set_awaited(None);
        // What was announced to us alone, or arrived behind it, is the handler's again.
        if region.replies().has_unread() {
            region.reply_events().notify();
        }
    }

    /// Lets the worker leave when it has done what it has.
    pub(crate) fn dismiss(&self) {
        self.is_dismissed.store(true, Ordering::Release);
        if let Some(region) = self.region.get() {
            region.close();
        }
    }

    pub(crate) fn is_dismissed(&self) -> bool {
        self.is_dismissed.load(Ordering::Acquire)
    }

    /// Breaks the lifeline of a worker that cannot be killed, unless calls are being sent right now.
    pub(crate) fn hang_up(&self) {
        if let Ok(mut sending) = self.sending.try_lock() {
            sending.lifeline = None;
        }
    }

    /// Drops what is left of the link after the worker's end.
    pub(crate) fn disconnect(&self) {
        self.sending().lifeline = None;
        self.receiving().assembly = Assembly::default();
    }

    /// Ends the process, now or as soon as it is started.
    pub(crate) fn kill(&self, kill_reason: KillReason) {
        let _ = self.kill_reason.set(kill_reason);
        if let Some(child) = self.child.get() {
            child.kill();
        }
    }

    /// Why the process was killed first, if it was.
    pub(crate) fn kill_reason(&self) -> Option<KillReason> {
        self.kill_reason.get().copied()
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake for WorkerHandle {
    fn wake(&self) {
        if let Some(region) = self.region.get() {
            region.caller_events().notify();
        }
    }
}

/// What became of a call that was to be written.
enum Written {
    Yes,
    /// There is no room for it now.
    NoRoom,
    /// There is none for what belongs beside it.
    NoRoomBeside,
    /// What belongs beside it could not be sent.
    Stuck,
}

impl Sending {
    fn write(
        &mut self,
        region: &SharedRegion,
        socket: &Socket,
        call: &Outgoing,
    ) -> Result<Written, Garbled> {
        let Outgoing { seq, attempt, work_item, items } = call;
        let Some(claim) = self.claims.next(region) else { return Ok(Written::NoRoom) };
        // The turn only has to differ from those of earlier calls that may still lie in the ring.
        let short_seq = (seq % (1 << 32)) as u32;
        let (first, number) = (items.start, items.end - items.start);
        let head = Call {
            id: work_item.id.0 + u64::from(first),
            seq: short_seq,
            attempt: *attempt,
            claim,
            name_len: u32::try_from(work_item.name.len()).map_err(|_| Garbled)?,
            items: number,
        };
        let (head, text) = (head.to_bytes(), work_item.text(items));
        let is_inline = text.len() <= INLINE_LIMIT;
        let inline = if is_inline { text } else { &[] };
        let lengths = work_item.lengths(items);
        let parts = [&head[..], work_item.name.as_bytes(), &lengths, inline];
        let ring = region.calls();
        if !self.writer.fits(&ring, &parts) {
            return Ok(Written::NoRoom);
        }
        let enclosed = (!is_inline).then_some(text);
        // What was begun for another call, which was taken back meanwhile, is given up.
        let begun = self.part.take().filter(|(of, _)| of == seq).map_or(0, |(_, items)| items);
        let lacks = match transport::pass(enclosed, &work_item.blobs(), begun, socket) {
            Passed::Nothing => false,
            Passed::All => true,
            Passed::Part(items) => {
                self.part = Some((*seq, items));
                return Ok(Written::NoRoomBeside);
            }
            Passed::Stuck(_, items) => {
                self.part = Some((*seq, items));
                return Ok(Written::Stuck);
            }
        };
        let kind = if lacks { CALL | ENCLOSED } else { CALL };
        let (seq, work_item) = (*seq, Arc::clone(work_item));
        let sent = Sent { seq, work_item, first, items: number, answered: 0 };
        self.claims.publish(region, claim, sent, short_seq);
        let fits = self.writer.write(&ring, kind, &parts)?;
        Ok(if fits { Written::Yes } else { Written::NoRoom })
    }

    /// Asks the worker to make room in the socket; not if it has something to read, which will
    /// have it take something out as well, or was asked before.
    fn ask_to_take_in(&mut self, region: &SharedRegion) -> bool {
        let ring = region.calls();
        // Nonsense in the memory will be noticed with the next call.
        !ring.has_unread() && self.writer.write(&ring, TAKE_IN, &[]).unwrap_or(false)
    }
}

impl Receiving {
    /// Reads all that the worker has published; false if that is nothing.
    pub(crate) fn read(&mut self, region: &SharedRegion) -> Result<bool, Garbled> {
        let has_read = self.reader.read(&region.replies(), &mut self.records)?;
        if has_read {
            region.space_events().notify();
        }
        Ok(has_read)
    }

    pub(crate) fn next(&mut self) -> Result<Option<Record>, Garbled> {
        self.records.next()
    }

    /// Whether all that was read was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(crate) fn bytes(&self, record: Record) -> &[u8] {
        self.records.bytes(record)
    }

    /// What the record lacks that was just taken.
    pub(crate) fn attachment(&mut self, socket: &Socket) -> Result<Attachment, Garbled> {
        self.assembly.next(socket, &mut self.patience)
    }

    /// Takes in what is in the socket, so that the worker can send the rest.
    pub(crate) fn take_in(&mut self, socket: &Socket) -> Result<(), Garbled> {
        self.assembly.take_in(socket, &mut self.patience)
    }
}
