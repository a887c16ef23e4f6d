//! Sends what a worker has to say: replies, outputs, lines, faults.

mod speak;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use procession_os::fork::Origin;

use super::end_at_once;
use crate::blob::Blob;
use crate::transport::{
    self, Call, Direction, HAS_ATTACHMENT, INLINE_LIMIT, OUTPUT, Passed, REPLY, ReplyBuffer,
    SegmentWriter, SharedRegion, Socket, Status, Stuck, TAKE_IN, TRACED, Timed, UNFIT, Writer,
};

/// What connects a worker with its coordinator.
pub(super) struct WorkerLink {
    pub region: Arc<SharedRegion>,
    pub socket: Arc<Socket>,
    /// What its segments may take, in bytes.
    pub segment_bytes: u64,
}

/// Sends records to the coordinator.
pub(super) struct ReplySender {
    region: Arc<SharedRegion>,
    outbox: Mutex<ReplyWriter>,
    /// The process that shares the memory with the coordinator.
    origin: Origin,
}

/// The ring of replies and the socket, as written by one thread at a time.
struct ReplyWriter {
    writer: Writer,
    socket: Arc<Socket>,
    segments: SegmentWriter,
}

/// The longest wait for room in the socket before the coordinator is asked again to read.
const SOCKET_MAY_BE_FULL: Duration = Duration::from_millis(100);

impl ReplySender {
    pub(super) fn new(link: &WorkerLink) -> Self {
        let (region, socket) = (Arc::clone(&link.region), Arc::clone(&link.socket));
        let out = Arc::clone(&link.region);
        let segments = SegmentWriter::new(out, Direction::ToCoordinator, link.segment_bytes);
        let outbox = Mutex::new(ReplyWriter { writer: Writer::default(), socket, segments });
        Self { region, outbox, origin: Origin::here() }
    }

    /// Gives the segments back to the system that were not used for some time.
    pub(super) fn drop_idle_segments(&self) {
        // A thread that has the lock is using them.
        if let Ok(mut outbox) = self.outbox.try_lock() {
            outbox.segments.drop_idle(Instant::now());
        }
    }

    /// Sends the result of one task of a call. Returns true if it had to wait for room or could not
    /// send the result.
    pub(super) fn send_result(
        &self,
        call: &Call,
        item: u64,
        status: Status,
        ran_for: Duration,
        reply_buffer: &mut ReplyBuffer,
    ) -> bool {
        let (claim, id) = (call.claim, call.id + item);
        let blobs = std::mem::take(&mut reply_buffer.blobs);
        let sent = if call.count > 1 && status == Status::Ok && blobs.is_empty() {
            self.output(Timed { claim, ran_for }, reply_buffer.data())
        } else {
            self.reply(claim, reply_buffer.envelope(id, status, ran_for), &blobs)
        };
        if let Err(stuck) = &sent {
            let reason = format!("the worker {stuck}");
            // First, so that the coordinator sends no call after it has read the reply.
            self.report(UNFIT, 0, &reason);
            let _ = self.reply(claim, &transport::undelivered(id, &reason, ran_for), &[]);
        }
        sent.unwrap_or(true)
    }

    /// Sends a reply with its envelope. Returns whether it waited for room.
    fn reply(&self, claim: u32, reply: &[u8], blobs: &[Blob]) -> Result<bool, Stuck> {
        let has_waited = self.send(REPLY, u64::from(claim), reply, blobs)?;
        self.region.announce_reply(claim, self.region.replies().is_filling());
        Ok(has_waited)
    }

    fn output(&self, timed: Timed, output: &[u8]) -> Result<bool, Stuck> {
        let has_waited = self.send(OUTPUT, timed.to_number(), output, &[])?;
        self.region.announce_reply(timed.claim, self.region.replies().is_filling());
        Ok(has_waited)
    }

    /// Sends a record about a span or an event.
    pub(super) fn trace(&self, task: u64, record: &[u8]) {
        let _ = self.send(TRACED, task, record, &[]);
        self.region.reply_events().notify();
    }

    /// Reports a fault of this process, in a text that needs no attachment.
    pub(super) fn report(&self, kind: u8, claim: u32, reason: &str) {
        let _ = self.send(kind, u64::from(claim), reason.as_bytes(), &[]);
        self.region.reply_events().notify();
    }

    fn send(&self, kind: u8, number: u64, text: &[u8], blobs: &[Blob]) -> Result<bool, Stuck> {
        let ring = self.region.replies();
        let mut has_waited = false;
        let mut outbox = self.outbox.lock().unwrap_or_else(PoisonError::into_inner);
        let ReplyWriter { writer, socket, segments } = &mut *outbox;
        let is_inline = text.len() <= INLINE_LIMIT;
        let attachment = (!is_inline).then_some(text);
        let mut begun = 0;
        let mut appendix = Vec::new();
        let is_attached = loop {
            match transport::pass(attachment, blobs, begun, socket, segments) {
                Passed::Nothing => break false,
                Passed::All => break true,
                Passed::Appendix(message) => {
                    appendix = message;
                    break true;
                }
                Passed::Part(items) => begun = items,
                Passed::Stuck(stuck, _) => return Err(stuck),
            }
            // The coordinator reads the socket with the replies that it has not read yet. If it has read
            // all, a record asks it to read the socket.
            if !ring.has_unread() {
                let _ = writer.write(&ring, TAKE_IN, &[]).unwrap_or_else(|_| end_at_once());
            }
            self.region.reply_events().notify();
            socket.wait_writable(SOCKET_MAY_BE_FULL);
            has_waited = true;
        };
        let kind = if is_attached { kind | HAS_ATTACHMENT } else { kind };
        let inline = if is_inline { text } else { &[] };
        let parts = [&number.to_le_bytes()[..], inline, &appendix];
        let write = |writer: &mut Writer| writer.write_with(&ring, kind, &parts, appendix.len());
        // The ring is full: the handler thread is busy, or waits for a callback.
        while !write(writer).unwrap_or_else(|_| end_at_once()) {
            let fits = || writer.fits(&ring, &parts);
            self.region.space_events().sleep_unless(fits);
            has_waited = true;
        }
        Ok(has_waited)
    }
}
