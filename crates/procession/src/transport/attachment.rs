//! Attachments: a long text and the blobs of a record, sent through the socket or named in the record.
//!
//! An attachment is sent in one or more messages. Items up to [`SHORT`] bytes are in the message. A
//! longer item is in a segment ([`segments`](super::segments)), if one is free and it is in no file; else it
//! is a sealed memory file, whose descriptor goes with the message. Where the system has no sealed files,
//! it is an unlinked file, which the other side copies.
//!
//! ```text
//!   kind (1) │ flags (1) │ number of items (1) │ length of each (8), top bit set if inline │ inline bytes
//! ```
//!
//! For an item in a segment its length also has the flag, the slot and the generation of a `SegmentItem`.
//!
//! An attachment whose items are all in segments that the other side has needs no descriptor. If its message
//! is short, that is the appendix of the record ([`MOST_APPENDED`]), and nothing goes through the socket.
//!
//! Other messages are sent before the record that needs them. Sending does not block; receiving waits
//! only for resources that this process lacks ([`Patience`]). If the socket has no room, the sender
//! publishes a [`TAKE_IN`](super::TAKE_IN) record. The other side then receives what is in the
//! socket ([`Assembly::take_in`]), and the sender continues later with the first item that was not
//! sent.

mod send;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

pub(crate) use self::send::{Passed, Stuck, pass};
use super::disposal;
use super::ring::Garbled;
use super::segments::{SegmentItem, SegmentReader};
use super::socket::{Message, Received, Socket};
use crate::blob::{self, Blob};
use crate::received_bytes::ReceivedBytes;

/// The first byte of these messages.
pub(super) const KIND: u8 = 2;

/// The first message of an attachment.
const IS_FIRST: u8 = 1;
/// Another message of the same attachment follows.
const HAS_MORE: u8 = 2;
/// The first item is the text.
const HAS_TEXT: u8 = 4;
/// A flag in the length of an item whose bytes are in the message.
const INLINE: u64 = 1 << 63;
const HEAD: usize = 3;
const LENGTH: usize = 8;
/// The longest item that is sent in the message, in bytes.
const SHORT: usize = 1024;
/// The longest message that goes with the record, in bytes.
pub(crate) const MOST_APPENDED: usize = 128;
/// The most items of an attachment: a text and the blobs.
const MOST_ITEMS: usize = blob::MOST + 1;
/// Maximum number of messages up to the last one of an attachment. Each message of the attachment has an item. Before
/// them there may be messages of attachments that the sender gave up: as many as the socket holds, so several hundreds.
const MOST_MESSAGES: u64 = 32 * 1024;

/// The attachment of a record.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    /// The text, if it is not in the record.
    text: Option<ReceivedBytes>,
    /// The blobs of the text, by their indices there.
    blobs: Vec<ReceivedBytes>,
    /// Why it could not be received, if it could not.
    lost: Option<String>,
    /// What was announced of it up to now.
    bytes: u64,
}

impl Attachment {
    /// Whether the text is not in the record.
    pub(crate) fn has_text(&self) -> bool {
        self.text.is_some()
    }

    /// The text: the attached one, or else that in the record.
    pub(crate) fn text<'t>(&'t self, record: &'t [u8]) -> &'t [u8] {
        self.text.as_deref().unwrap_or(record)
    }

    /// Why it could not be received. The cause is a shortage in this process.
    pub(crate) fn lost(&self) -> Option<&str> {
        self.lost.as_deref()
    }

    /// An attachment that could not be received.
    pub(crate) fn lost_because(reason: impl fmt::Display) -> Self {
        Self { lost: Some(reason.to_string()), ..Self::default() }
    }

    /// Takes the blobs.
    pub(crate) fn take_blobs(&mut self) -> Vec<Blob> {
        std::mem::take(&mut self.blobs).into_iter().map(Blob::from).collect()
    }
}

/// How long a receiver waits for a resource that it lacks. After such a wait in vain it does not
/// wait again until it has received a message.
#[derive(Debug)]
pub(crate) struct Patience {
    /// The end of the present wait.
    until: Option<Instant>,
    longest: Duration,
}

impl Patience {
    /// The pause between two tries.
    const PAUSE: Duration = Duration::from_millis(5);

    /// No wait.
    pub(crate) fn none() -> Self {
        Self::of(Duration::ZERO)
    }

    /// Waits for at most `longest` in all.
    pub(crate) fn of(longest: Duration) -> Self {
        Self { until: None, longest }
    }

    /// Waits for [`PAUSE`](Self::PAUSE). False, without a pause, if the wait is over.
    fn waits(&mut self) -> bool {
        let now = Instant::now();
        let is_left = *self.until.get_or_insert(now + self.longest) > now;
        if is_left {
            thread::sleep(Self::PAUSE);
        }
        is_left
    }
}

/// Assembles attachments from messages.
#[derive(Debug)]
pub(crate) struct Assembly {
    /// The most bytes of an attachment. A longer one is lost, and nothing behind its bound is opened.
    most_bytes: u64,
    /// More messages of it will come.
    part: Option<Attachment>,
    /// The record of it was not read yet.
    whole: Option<Attachment>,
    segments: SegmentReader,
    /// The number of messages that were received.
    messages: u64,
    /// That number at the time when the last attachment was taken.
    at_last: u64,
}

impl Default for Assembly {
    fn default() -> Self {
        Self {
            most_bytes: u64::MAX,
            part: None,
            whole: None,
            segments: SegmentReader::default(),
            messages: 0,
            at_last: 0,
        }
    }
}

impl Assembly {
    /// Items may be in these segments.
    pub(crate) fn with(segments: SegmentReader) -> Self {
        Self { segments, ..Self::default() }
    }

    /// An attachment may have this number of bytes.
    pub(crate) fn with_most_bytes(self, most_bytes: u64) -> Self {
        Self { most_bytes, ..self }
    }

    pub(crate) fn segments(&self) -> &SegmentReader {
        &self.segments
    }

    /// The number of messages that were received.
    pub(crate) fn messages(&self) -> u64 {
        self.messages
    }

    /// The attachment of the record that was just read, and that has this appendix. If the appendix is empty, the whole
    /// attachment was sent before the record. If this process lacks a resource to receive it for longer than
    /// `patience`, the attachment is [lost](Attachment::lost), and the next one can be received.
    pub(crate) fn next(
        &mut self,
        appendix: &[u8],
        from: &Socket,
        patience: &mut Patience,
    ) -> Result<Attachment, Garbled> {
        if !appendix.is_empty() {
            // What was received before belongs to an attachment that the sender gave up.
            self.whole = None;
            self.add(appendix, Vec::new(), None)?;
            return self.take_whole().ok_or(Garbled);
        }
        loop {
            if let Some(whole) = self.take_whole() {
                return Ok(whole);
            }
            if !self.receive(from, patience)? {
                return Err(Garbled);
            }
        }
    }

    fn take_whole(&mut self) -> Option<Attachment> {
        let whole = self.whole.take()?;
        self.segments.return_copied();
        self.at_last = self.messages;
        Some(whole)
    }

    /// Receives the messages that are in the socket, to make room for the rest of an attachment.
    pub(crate) fn take_in(
        &mut self,
        from: &Socket,
        patience: &mut Patience,
    ) -> Result<(), Garbled> {
        while self.whole.is_none() && self.receive(from, patience)? {}
        Ok(())
    }

    /// Receives the next message; false if there is none.
    fn receive(&mut self, from: &Socket, patience: &mut Patience) -> Result<bool, Garbled> {
        match from.receive() {
            Received::Message(Message { bytes, fds }) => {
                if !disposal::are_plain(&fds) {
                    disposal::close(fds);
                    return Err(Garbled);
                }
                patience.until = None;
                self.add(&bytes, fds, None)?;
            }
            Received::Nothing | Received::Gone => return Ok(false),
            Received::Cut => return Err(Garbled),
            Received::Short(_) if patience.waits() => {}
            Received::Short(error) => {
                let Some(bytes) = from.discard_unreceived()? else {
                    // It cannot be removed either: a task may have closed the socket of its
                    // process.
                    self.part = None;
                    self.whole = Some(Attachment::lost_because(io::Error::from(error)));
                    return Ok(true);
                };
                self.add(&bytes, Vec::new(), Some(error))?;
            }
        }
        Ok(true)
    }

    /// Adds a message, without its descriptors if there was a `shortage`.
    fn add(
        &mut self,
        bytes: &[u8],
        fds: Vec<OwnedFd>,
        shortage: Option<Errno>,
    ) -> Result<(), Garbled> {
        self.messages += 1;
        if self.messages - self.at_last > MOST_MESSAGES {
            return Err(Garbled);
        }
        let ([KIND, flags, items], rest) = bytes.split_first_chunk::<HEAD>().ok_or(Garbled)? else {
            return Err(Garbled);
        };
        let (lengths, mut inline) =
            rest.split_at_checked(LENGTH * usize::from(*items)).ok_or(Garbled)?;
        // A part before `IS_FIRST` belongs to an attachment that the sender gave up.
        let part = self.part.take();
        let mut part =
            if flags & IS_FIRST != 0 { Attachment::default() } else { part.ok_or(Garbled)? };
        let mut fds = fds.into_iter();
        let mut items_received = Vec::with_capacity(usize::from(*items));
        let shortage = || shortage.map(|error| io::Error::from(error).to_string());
        let mut lost = part.lost.take().or_else(shortage);
        for length in lengths.chunks_exact(LENGTH) {
            let length = u64::from_le_bytes(length.try_into().map_err(|_| Garbled)?);
            part.bytes = part.bytes.saturating_add(bytes_of(length));
            if part.bytes > self.most_bytes && lost.is_none() {
                lost = Some(format!("it has more than {} bytes", self.most_bytes));
            }
            if length & INLINE != 0 {
                let length = usize::try_from(length & !INLINE).map_err(|_| Garbled)?;
                let (bytes, rest) = inline.split_at_checked(length).ok_or(Garbled)?;
                inline = rest;
                items_received.push(ReceivedBytes::Own(bytes.to_vec().into()));
                continue;
            }
            match self.open(length, &mut fds, lost.is_some()) {
                Ok(Some(bytes)) => items_received.push(bytes),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(Garbled),
                Err(error) => lost = Some(error.to_string()),
            }
        }
        if !inline.is_empty() || fds.next().is_some() {
            return Err(Garbled);
        }
        let mut items_received = items_received.into_iter();
        if flags & HAS_TEXT != 0 {
            part.text = items_received.next();
        }
        part.blobs.extend(items_received);
        if part.blobs.len() > MOST_ITEMS {
            return Err(Garbled);
        }
        if let Some(reason) = lost {
            // The other items are of no use.
            part = Attachment::lost_because(reason);
        }
        let place = if flags & HAS_MORE != 0 { &mut self.part } else { &mut self.whole };
        *place = Some(part);
        Ok(())
    }

    /// An item that is not in the message. `None` if the attachment is lost. An error of kind
    /// `InvalidData` means that the other side sent garbage.
    fn open(
        &self,
        length: u64,
        fds: &mut impl Iterator<Item = OwnedFd>,
        is_lost: bool,
    ) -> io::Result<Option<ReceivedBytes>> {
        let missing = || io::Error::from(io::ErrorKind::InvalidData);
        let Some(item) = SegmentItem::from_word(length) else {
            return match fds.next() {
                _ if is_lost => Ok(None),
                Some(file) => ReceivedBytes::open(file, length).map(Some),
                None => Err(missing()),
            };
        };
        let file = if item.is_new { fds.next() } else { None };
        match file {
            _ if is_lost => self.segments.refuse(item).map(|()| None),
            None if item.is_new => Err(missing()),
            file => self.segments.take(item, file).map(Some),
        }
    }
}

/// The number of bytes of an item with this word.
fn bytes_of(length: u64) -> u64 {
    match SegmentItem::from_word(length) {
        _ if length & INLINE != 0 => length & !INLINE,
        Some(item) => item.len.into(),
        None => length,
    }
}
