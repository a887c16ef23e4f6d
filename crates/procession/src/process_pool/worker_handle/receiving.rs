//! Records from the worker: reading them, waiting for them, and matching replies with their calls.

use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Process, WorkerHandle};
use crate::process_pool::flood::Throttle;
use crate::process_pool::work_item::WorkItem;
use crate::transport::{
    Assembly, Attachment, Direction, Garbled, Patience, Reader, Record, Records, SegmentReader,
    SharedRegion, Socket,
};

/// The state of the reader.
pub(in crate::process_pool) struct Receiving {
    reader: Reader,
    records: Records,
    assembly: Assembly,
    /// How long a shortage of descriptors in this process may still last.
    patience: Patience,
    /// Requests to receive attachments since the last record that had one.
    take_ins: u32,
    /// Set when the worker has ended: how often the ring is still read. A process that the worker
    /// left behind may go on writing to it.
    reads_left: Option<u32>,
    /// Lines and reports of faults are read at a limited rate.
    throttle: Throttle,
    /// The last call that had ended by its claim while its reply was not read: its sequence number,
    /// and the end of the ring of replies when that was seen first.
    ended_call: Option<(u64, u64)>,
}

impl Default for Receiving {
    fn default() -> Self {
        Self {
            reader: Reader::default(),
            records: Records::default(),
            assembly: Assembly::default(),
            patience: Patience::of(LONGEST_SHORTAGE),
            take_ins: 0,
            reads_left: None,
            throttle: Throttle::default(),
            ended_call: None,
        }
    }
}

/// Longest shortage of descriptors in this process; after it, attachments that cannot be received are
/// given up.
const LONGEST_SHORTAGE: Duration = Duration::from_secs(2);

/// Most requests to receive attachments in a row. An honest worker sends one for each time that the
/// socket is full, and an attachment fills it a few times.
const MOST_TAKE_INS: u32 = 1_000;

/// Tasks of a call that were answered.
pub(in crate::process_pool) struct Answered {
    pub(in crate::process_pool) seq: u64,
    pub(in crate::process_pool) work_item: Arc<WorkItem>,
    /// Index of the first of them in the work item.
    pub(in crate::process_pool) item: u32,
}

/// Longest sleep of the handler while the socket is full: the worker does not announce when it has
/// read an attachment.
const SOCKET_POLL: Duration = Duration::from_millis(1);

impl WorkerHandle {
    pub(in crate::process_pool) fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same, if no other thread is receiving.
    pub(in crate::process_pool) fn try_receiving(&self) -> Option<MutexGuard<'_, Receiving>> {
        self.receiving.try_lock().ok()
    }

    /// Counts tasks of a call as answered, if the answer is valid; see
    /// [`Claims::answered`](crate::process_pool::claims::Claims::answered).
    pub(in crate::process_pool) fn answered(
        &self,
        claim: u64,
        items: u32,
        is_valid: impl FnOnce(&WorkItem, u32) -> bool,
    ) -> Result<Answered, Garbled> {
        let (seq, work_item, item) = self.sending().claims.answered(claim, items, is_valid)?;
        Ok(Answered { seq, work_item, item })
    }

    /// Whether the worker has this task and has not answered it.
    pub(in crate::process_pool) fn has_task(&self, id: u64) -> bool {
        self.sending().claims.have_task(id)
    }

    /// The work item of this task and the number of its attempt, if the worker has it and has not answered
    /// it.
    pub(in crate::process_pool) fn work_item_of(&self, id: u64) -> Option<(Arc<WorkItem>, u32)> {
        self.sending().claims.work_item_of(id)
    }

    /// The sequence number of the call with this claim, if there is one.
    pub(in crate::process_pool) fn seq_of(&self, claim: u64) -> Option<u64> {
        self.sending().claims.seq_of(claim)
    }

    /// The id of the first task of the call with this claim that is not answered.
    pub(in crate::process_pool) fn next_unanswered(&self, claim: u64) -> Result<u64, Garbled> {
        self.sending().claims.next_unanswered(claim).ok_or(Garbled)
    }

    /// Waits until the worker has written a record or has ended, or until a blocked outbox may be
    /// flushed.
    pub(in crate::process_pool) fn wait_for_replies(&self) {
        let Some(Process { region, .. }) = self.process() else { return };
        // The worker may have no call to reply to, if all that it had were taken back.
        let has_room = || self.outbox.waits_for_ring() && !region.calls().has_unread();
        let is_there = || region.replies().has_unread() || self.has_ended() || has_room();
        if self.outbox.waits_for_socket() {
            return region.reply_events().sleep_at_most(SOCKET_POLL, is_there);
        }
        region.reply_events().wait_unless(&self.handler_spin, is_there);
    }

    /// Waits while the worker may not be read, since it has written too much.
    pub(in crate::process_pool) fn pause(&self, longest: Duration) {
        const SLICE: Duration = Duration::from_millis(10);
        let until = Instant::now() + longest;
        while !self.has_ended() && Instant::now() < until {
            thread::sleep(SLICE);
        }
    }

    /// Waits for a short time while the worker is busy, so that several replies are read together.
    pub(in crate::process_pool) fn wait_coalesced(&self) {
        let Some(region) = self.region() else { return };
        let is_urgent = || region.is_idle() || region.replies().is_filling() || self.has_ended();
        region.reply_events().doze_unless(is_urgent);
    }
}

impl Receiving {
    /// Reads all records that the worker has published. Returns false if there are none.
    pub(in crate::process_pool) fn read(&mut self, region: &SharedRegion) -> Result<bool, Garbled> {
        match &mut self.reads_left {
            Some(0) => return Ok(false),
            Some(left) => *left -= 1,
            None => {}
        }
        let has_read = self.reader.read(&region.replies(), &mut self.records)?;
        if has_read {
            region.space_events().notify();
        }
        Ok(has_read)
    }

    pub(in crate::process_pool) fn next(&mut self) -> Result<Option<Record>, Garbled> {
        self.records.next()
    }

    /// The worker has ended: what it had published is one content of the ring at most.
    pub(in crate::process_pool) fn note_end(&mut self) {
        self.reads_left.get_or_insert(1);
    }

    /// Counts a record that is not the answer to a call, of which there may be any number. Returns the
    /// pause that is due after a flood of such records, which is made without the lock. It counts as this number of
    /// lines and bytes.
    pub(in crate::process_pool) fn count_unasked(
        &mut self,
        (lines, bytes): (u64, u64),
    ) -> Option<Duration> {
        self.throttle.count(lines, bytes);
        let mut due = None;
        self.throttle.pause(|left| due = Some(left));
        due
    }

    /// Whether all records that were read were taken.
    pub(in crate::process_pool) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(in crate::process_pool) fn bytes(&self, record: Record) -> &[u8] {
        self.records.bytes(record)
    }

    /// The attachment of the record that was taken last.
    pub(in crate::process_pool) fn attachment(
        &mut self,
        record: Record,
        socket: &Socket,
    ) -> Result<Attachment, Garbled> {
        self.take_ins = 0;
        let before = self.assembly.messages();
        let next = self.assembly.next(self.records.appendix(record), socket, &mut self.patience);
        self.count_messages(before);
        next
    }

    /// Counts the messages that were received since `before`, less one: an honest worker sends one.
    fn count_messages(&mut self, before: u64) {
        let messages = self.assembly.messages() - before;
        self.throttle.count(messages.saturating_sub(1), 0);
    }

    /// Reads the attachments that are in the socket, to make room for more.
    pub(in crate::process_pool) fn take_in(&mut self, socket: &Socket) -> Result<(), Garbled> {
        self.take_ins += 1;
        // There may be many between two records that are counted for their own sake.
        self.throttle.count(1, 0);
        if self.take_ins > MOST_TAKE_INS {
            return Err(Garbled);
        }
        let before = self.assembly.messages();
        let taken = self.assembly.take_in(socket, &mut self.patience);
        self.count_messages(before);
        taken
    }

    /// The worker may send attachments of this length, in bytes.
    pub(super) fn set_segments(&mut self, region: Arc<SharedRegion>, most_bytes: u64) {
        let segments = SegmentReader::new(region, Direction::ToCoordinator);
        self.assembly = Assembly::with(segments).with_most_bytes(most_bytes);
    }

    pub(super) fn drop_idle_segments(&self) {
        self.assembly.segments().drop_given_up();
    }

    pub(super) fn drop_attachments(&mut self) {
        self.assembly = Assembly::default();
    }

    pub(super) fn may_have_unread_reply(&mut self, region: &SharedRegion, seq: u64) -> bool {
        let tail = region.replies().tail();
        let has_unread = !self.reader.has_passed(tail);
        let (_, first) = self.ended_call.filter(|(of, _)| *of == seq).unwrap_or((seq, tail));
        self.ended_call = Some((seq, first));
        // Both positions: the worker may have published a false one at first.
        !self.is_empty() || has_unread && !self.reader.has_passed(first)
    }
}
