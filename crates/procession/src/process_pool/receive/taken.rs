//! [`ReceivedReplies`]: a record that was read, with its attachment.

use std::cell::{OnceCell, RefCell};
use std::time::Duration;

use crate::blob::Blob;
use crate::future::EncodedPartial;
use crate::process_pool::worker_handle::{Receiving, WorkerHandle};
use crate::transport::{
    self, Attachment, Garbled, HAS_ATTACHMENT, NOT_RECEIVED, PARTIAL, Record, Reply, SAID, TRACED,
    UNFIT,
};

/// The longest line of a task that is passed on, in bytes: to print one takes several times its memory.
const LONGEST_LINE: usize = 16 << 20;

/// A record with its attachment. Most have none, and are moved often.
pub(super) struct ReceivedReplies {
    pub(super) record: Record,
    pub(super) attached: Option<Box<Attached>>,
}

pub(super) struct Attached {
    pub(super) attachment: Attachment,
    /// Taken by the reply or the partial result.
    pub(super) blobs: RefCell<Vec<Blob>>,
    /// The number of the blobs, and of their bytes.
    all_blobs: (usize, usize),
    /// What is passed on if the attachment could not be received.
    pub(super) substitute: OnceCell<Vec<u8>>,
}

impl ReceivedReplies {
    pub(super) fn is(&self, kind: u8) -> bool {
        self.record.kind & !HAS_ATTACHMENT == kind
    }

    /// Why a part of the attachment could not be received, if so.
    pub(super) fn lost(&self) -> Option<String> {
        let reason = self.attached.as_ref()?.attachment.lost()?;
        Some(format!("this process cannot receive it: {reason}"))
    }

    /// An error reply in place of a lost one, to the next task of the call with this claim.
    pub(super) fn undelivered<'r>(
        &'r self,
        claim: u64,
        handle: &WorkerHandle,
    ) -> Result<Reply<'r>, Garbled> {
        let id = handle.next_unanswered(claim)?;
        let reason = self.lost().unwrap_or_default();
        // What has no attachment has lost none.
        let attached = self.attached.as_ref().ok_or(Garbled)?;
        let undelivered = || transport::undelivered(id, &reason, Duration::ZERO);
        Reply::parse(attached.substitute.get_or_init(undelivered))
    }

    /// The line of a task, cut after [`LONGEST_LINE`], or a text that says that the line is lost.
    pub(super) fn line<'r>(&'r self, text: &'r [u8]) -> Result<&'r str, Garbled> {
        // Without an attachment, the line is in the record.
        let Some(attached) = self.attached.as_ref() else { return line(text) };
        let substitute = match self.lost() {
            None if text.len() <= LONGEST_LINE => return line(text),
            None => {
                let is_inside = |at: &usize| text[*at] & 0xc0 == 0x80;
                let end = (0..=LONGEST_LINE).rev().find(|at| !is_inside(at)).unwrap_or_default();
                let bytes = text.len();
                format!("{} ... (cut: the line has {bytes} bytes)", line(&text[..end])?)
            }
            Some(reason) => format!("(a long line is lost: {reason})"),
        };
        line(attached.substitute.get_or_init(|| substitute.into_bytes()))
    }

    /// The value that a task emitted. `None`: its attachment could not be received.
    pub(super) fn partial(&self, text: &[u8]) -> Option<EncodedPartial> {
        if self.lost().is_some() {
            return None;
        }
        // The attempt is that of the call, which the worker is not asked for.
        Some(EncodedPartial { attempt: 0, text: text.to_vec(), blobs: self.take_blobs() })
    }

    /// Whether later records must wait until this one is passed on: a line of a task or a report of a
    /// fault, to keep the order with the replies, and to count them; blobs and long texts, so that they
    /// do not accumulate; and a lost attachment, whose reply is to the first unanswered task.
    pub(super) fn ends_group(&self) -> bool {
        let is_attached = |attached: &Attached| {
            let is_long = attached.has_blobs() || attached.attachment.has_text();
            is_long || attached.attachment.lost().is_some()
        };
        self.is_unasked() || self.attached.as_deref().is_some_and(is_attached)
    }

    /// Whether it answers no task: a worker may send any number of these.
    pub(super) fn is_unasked(&self) -> bool {
        self.is(SAID)
            || self.is(PARTIAL)
            || self.is(TRACED)
            || self.is(UNFIT)
            || self.is(NOT_RECEIVED)
    }

    /// What counts towards the limited rate: as many lines as it has blobs, at least one, and the bytes of its text and
    /// its blobs.
    pub(super) fn weight(&self, receiving: &Receiving) -> (u64, u64) {
        let bytes = receiving.bytes(self.record);
        let Some(Attached { attachment, all_blobs: (blobs, their_bytes), .. }) =
            self.attached.as_deref()
        else {
            return (1, bytes.len() as u64);
        };
        let bytes = attachment.text(bytes).len().saturating_add(*their_bytes);
        (*blobs.max(&1) as u64, bytes as u64)
    }

    pub(super) fn take_blobs(&self) -> Vec<Blob> {
        self.attached.as_ref().map_or_else(Vec::new, |attached| attached.blobs.take())
    }

    /// The number at the head of the record, and the text.
    pub(super) fn split<'r>(
        &'r self,
        receiving: &'r Receiving,
    ) -> Result<(u64, &'r [u8]), Garbled> {
        let (number, text) = transport::split(receiving.bytes(self.record)).ok_or(Garbled)?;
        let attached = self.attached.as_ref();
        Ok((number, attached.map_or(text, |attached| attached.attachment.text(text))))
    }
}

impl Attached {
    pub(super) fn new(mut attachment: Attachment) -> Self {
        let blobs = attachment.take_blobs();
        let all_blobs = (blobs.len(), blobs.iter().map(|blob| blob.len()).sum());
        let (blobs, substitute) = (RefCell::new(blobs), OnceCell::new());
        Self { attachment, blobs, all_blobs, substitute }
    }

    pub(super) fn has_blobs(&self) -> bool {
        !self.blobs.borrow().is_empty()
    }
}

/// The text of a record of the kind `SAID`.
pub(super) fn line(text: &[u8]) -> Result<&str, Garbled> {
    std::str::from_utf8(text).map_err(|_| Garbled)
}
