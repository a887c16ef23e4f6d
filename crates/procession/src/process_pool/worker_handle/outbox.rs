//! Calls on their way to the worker.
//!
//! A call is added to the outbox while the scheduler's lock is held, so the outbox has the order of
//! the decisions. It is written to the shared region after the lock is released, by any thread that
//! holds `sending` and takes the calls from the front, so the ring has the same order.

use std::collections::VecDeque;
use std::ops::{Range, RangeInclusive};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ipc_channel::ipc::IpcSender;

use super::{KillReason, Process, WorkerHandle};
use crate::process_pool::claims::{Claims, SentCall};
use crate::process_pool::work_item::WorkItem;
use crate::scheduler::Begun;
use crate::shared_value::ToldReleases;
use crate::transport::{
    self, CALL, Call, Direction, Garbled, HAS_ATTACHMENT, INLINE_LIMIT, MOST_APPENDED, Passed,
    RELEASED, SegmentWriter, SharedRegion, Socket, TAKE_IN, Writer,
};

/// A call that is to be written.
pub(in crate::process_pool) struct Outgoing {
    pub(in crate::process_pool) seq: u64,
    pub(in crate::process_pool) attempt: u32,
    /// The time after which each task is to stop.
    pub(in crate::process_pool) stop_after: Option<Duration>,
    pub(in crate::process_pool) work_item: Arc<WorkItem>,
    /// Which tasks of the work item.
    pub(in crate::process_pool) items: Range<u32>,
}

/// Calls that were not written yet, and what they wait for.
#[derive(Default)]
pub(super) struct Outbox {
    calls: Mutex<VecDeque<Outgoing>>,
    /// One of the constants below.
    blocked: AtomicU8,
}

impl Outbox {
    /// Nothing is known to block the first call.
    const UNBLOCKED: u8 = 0;
    /// The ring of calls was full. There is room again when the worker has read all of it.
    const RING_FULL: u8 = 1;
    /// The socket was full of attachments. The worker does not announce when it has read one.
    const SOCKET_FULL: u8 = 2;

    pub(super) fn lock(&self) -> MutexGuard<'_, VecDeque<Outgoing>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn waits_for_ring(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) == Self::RING_FULL
    }

    pub(super) fn waits_for_socket(&self) -> bool {
        self.blocked.load(Ordering::SeqCst) == Self::SOCKET_FULL
    }
}

/// The state of the writer.
#[derive(Default)]
pub(super) struct Sending {
    writer: Writer,
    pub(super) claims: Claims,
    /// Kept until the end of the worker.
    pub(super) lifeline: Option<IpcSender<()>>,
    /// The call of which only a part of the attachments was sent: its sequence number, and the number
    /// of messages that were.
    partly_sent: Option<(u64, usize)>,
    pub(super) segments: SegmentWriter,
    /// What the worker knows of shared values that it needs no more.
    told: ToldReleases,
}

impl WorkerHandle {
    /// Adds a call to the outbox. A [`flush`](Self::flush) must follow.
    pub(in crate::process_pool) fn enqueue(&self, call: Outgoing) {
        self.outbox.lock().push_back(call);
    }

    /// Writes the calls of the outbox as far as there is room. Does not wait for room: the handler
    /// flushes again after the next reply, or when there is room.
    pub(in crate::process_pool) fn flush(&self) {
        let Some(Process { region, socket, .. }) = self.process() else { return };
        let mut sending = self.sending();
        let mut has_written = sending.tell_what_was_released(region);
        self.outbox.blocked.store(Outbox::UNBLOCKED, Ordering::SeqCst);
        loop {
            // The outbox is not locked during the write: threads that hold the scheduler's lock add
            // calls to it.
            let next = self.outbox.lock().pop_front();
            let Some(next) = next else { break };
            match sending.write(region, socket, &next) {
                Ok(Written::Yes) => has_written = true,
                Ok(Written::RingFull) => {
                    self.outbox.lock().push_front(next);
                    // Then once more: the worker may have made room before `blocked` was set.
                    let before = self.outbox.blocked.swap(Outbox::RING_FULL, Ordering::SeqCst);
                    if before == Outbox::RING_FULL {
                        break;
                    }
                }
                Ok(Written::SocketFull) => {
                    self.outbox.lock().push_front(next);
                    self.outbox.blocked.store(Outbox::SOCKET_FULL, Ordering::SeqCst);
                    has_written |= sending.ask_to_take_in(region);
                    break;
                }
                Ok(Written::Short) => {
                    self.outbox.lock().push_front(next);
                    // The next reply flushes again. If none is due, another worker is tried: its
                    // start reports the shortage.
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

    /// Takes back what has not begun of the calls with these sequence numbers. Returns the calls that
    /// are shorter now, with the number of their tasks that have begun.
    pub(in crate::process_pool) fn take_back(&self, seqs: RangeInclusive<u64>) -> Vec<Begun> {
        let Some(region) = self.region() else { return Vec::new() };
        // `sending` first: while a call is written, it is neither in the outbox nor among the claims.
        let mut sending = self.sending();
        let mut outbox = self.outbox.lock();
        let mut back = sending.claims.revoke(region, &seqs);
        outbox.retain(|call| {
            let stays = !seqs.contains(&call.seq);
            let (seq, count, ran_for) = (call.seq, 0, Duration::ZERO);
            back.extend((!stays).then_some(Begun { seq, count, ran_for }));
            stays
        });
        let has_more = !outbox.is_empty();
        drop((sending, outbox));
        if has_more {
            // The rest may have waited for a reply to a call that was taken back.
            self.flush();
        }
        back
    }

    /// Whether the call is in the outbox or was sent.
    pub(super) fn has_call(&self, seq: u64) -> bool {
        // `sending` during both: while a call is written, it is neither in the outbox nor among the claims.
        let sending = self.sending();
        sending.claims.of(seq).is_some() || self.outbox.lock().iter().any(|call| call.seq == seq)
    }
}

/// The outcome of an attempt to write a call.
enum Written {
    Yes,
    /// There is no room in the ring, or no free claim.
    RingFull,
    /// There is no room in the socket for an attachment.
    SocketFull,
    /// An attachment could not be sent: the system is short of descriptors or memory.
    Short,
}

/// At least 1, because 0 stands for no time.
fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX).max(1)
}

impl Sending {
    pub(super) fn set_segments(&mut self, region: Arc<SharedRegion>, bytes: u64) {
        self.segments = SegmentWriter::new(region, Direction::ToWorker, bytes);
    }

    fn write(
        &mut self,
        region: &SharedRegion,
        socket: &Socket,
        call: &Outgoing,
    ) -> Result<Written, Garbled> {
        let Outgoing { seq, attempt, stop_after, work_item, items } = call;
        let attempt = attempt.saturating_add(work_item.earlier);
        let Some(claim) = self.claims.next(region) else { return Ok(Written::RingFull) };
        // It only has to differ from earlier calls that may still be in the ring.
        let short_seq = (seq % (1 << 32)) as u32;
        let (first, number) = (items.start, items.end - items.start);
        let head = Call {
            id: work_item.id.0 + u64::from(first),
            seq: short_seq,
            attempt,
            claim,
            name_len: u32::try_from(work_item.name.len()).map_err(|_| Garbled)?,
            count: number,
            stop_after: stop_after.map_or(0, nanos),
        };
        let (head, text) = (head.to_bytes(), work_item.text(items));
        let is_inline = text.len() <= INLINE_LIMIT;
        let inline = if is_inline { text } else { &[] };
        let lengths = work_item.lengths(items);
        let ring = region.calls();
        let with = |appendix| [&head[..], work_item.name.as_bytes(), &lengths, inline, appendix];
        // An item that is in a segment cannot be taken back.
        if !self.writer.fits(&ring, &with(&[0; MOST_APPENDED])) {
            return Ok(Written::RingFull);
        }
        let attached = (!is_inline).then_some(text);
        // Messages of another call, which was taken back since then, do not count.
        let sent = self.partly_sent.take().filter(|(of, _)| of == seq).map_or(0, |(_, sent)| sent);
        let blobs = work_item.blobs();
        let mut appendix = Vec::new();
        let has_attachment =
            match transport::pass(attached, &blobs, sent, socket, &mut self.segments) {
                Passed::Nothing => false,
                Passed::All => true,
                Passed::Appendix(message) => {
                    appendix = message;
                    true
                }
                Passed::Part(sent) => {
                    self.partly_sent = Some((*seq, sent));
                    return Ok(Written::SocketFull);
                }
                Passed::Stuck(_, sent) => {
                    self.partly_sent = Some((*seq, sent));
                    return Ok(Written::Short);
                }
            };
        let kind = if has_attachment { CALL | HAS_ATTACHMENT } else { CALL };
        let (seq, work_item) = (*seq, Arc::clone(work_item));
        let call = SentCall { seq, work_item, first, items: number, answered: 0, attempt };
        self.claims.publish(region, claim, call, short_seq);
        let fits = self.writer.write_with(&ring, kind, &with(&appendix), appendix.len())?;
        Ok(if fits { Written::Yes } else { Written::RingFull })
    }

    /// Tells the worker which shared values it needs no more, if that is new. Returns whether a record was
    /// written; else it is tried again with the next flush.
    fn tell_what_was_released(&mut self, region: &SharedRegion) -> bool {
        let Some((record, told)) = self.told.news() else { return false };
        let is_written = self.writer.write(&region.calls(), RELEASED, &[&record]).unwrap_or(false);
        if is_written {
            self.told = told;
        }
        is_written
    }

    /// Asks the worker to read the attachments in the socket. Not if the ring has an unread record,
    /// which makes the worker do so as well. Returns whether a record was written.
    fn ask_to_take_in(&mut self, region: &SharedRegion) -> bool {
        let ring = region.calls();
        // An error appears again with the next call.
        !ring.has_unread() && self.writer.write(&ring, TAKE_IN, &[]).unwrap_or(false)
    }
}
