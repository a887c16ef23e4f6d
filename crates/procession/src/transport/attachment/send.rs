//! Sends attachments.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

use procession_os::sealed;

use super::{HAS_MORE, HAS_TEXT, HEAD, INLINE, IS_FIRST, KIND, LENGTH, MOST_APPENDED, SHORT};
use crate::blob::Blob;
use crate::temporary_files::unnamed_file;
use crate::transport::segments::{NewSegment, SegmentItem, SegmentWriter};
use crate::transport::socket::{LONGEST, MOST_FDS, Sent, Socket};

/// A new file with these bytes, to be sent.
pub(super) fn new_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    if sealed::is_available() {
        return sealed::create(bytes);
    }
    let file = unnamed_file()?;
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}

/// Bytes up to this number are copied for each receiver: a descriptor costs it several times as much.
const MOST_AGAIN: usize = 64 * 1024;

/// An item to send.
#[derive(Clone, Copy)]
pub(super) enum Item<'i> {
    Text(&'i [u8]),
    Blob(&'i Blob),
}

impl<'i> Item<'i> {
    fn bytes(self) -> &'i [u8] {
        match self {
            Self::Text(text) => text,
            Self::Blob(blob) => blob,
        }
    }

    /// Puts the bytes into a segment. Long bytes that are in a file, or will be since there are clones, are not put there.
    fn place(self, segments: &mut SegmentWriter) -> Option<(SegmentItem, Option<NewSegment>)> {
        match self {
            Self::Blob(blob)
                if blob.len() > MOST_AGAIN && (blob.file().is_some() || blob.has_clones()) =>
            {
                None
            }
            Self::Blob(_) | Self::Text(_) => segments.place(self.bytes()),
        }
    }

    /// A file with the bytes: that in which a blob was received or sent before, or a new one.
    fn open(self) -> io::Result<OpenFile<'i>> {
        let Self::Blob(blob) = self else { return new_file(self.bytes()).map(OpenFile::New) };
        if let Some(file) = blob.file() {
            return Ok(OpenFile::Kept(file));
        }
        let file = new_file(blob)?;
        let file = if sealed::is_available() { blob.keep_file(file) } else { Some(file) };
        match file {
            Some(file) => Ok(OpenFile::New(file)),
            None => Ok(OpenFile::Kept(blob.file().expect("it was kept"))),
        }
    }
}

/// The progress of sending an attachment.
#[derive(Debug)]
pub(crate) enum Passed {
    /// There is nothing to attach.
    Nothing,
    All,
    /// Nothing was sent: write these bytes as the appendix of the record.
    Appendix(Vec<u8>),
    /// This number of items was sent. The socket has no room for more now.
    Part(usize),
    /// The system lacks a resource for the next item; this number was sent.
    Stuck(Stuck, usize),
}

/// Why an attachment could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send an attachment: {0}")]
pub(crate) struct Stuck(io::Error);

/// Sends the attachment of a record, from item `from` on. Items that are in no file go in a segment, if
/// one is free.
pub(crate) fn pass(
    text: Option<&[u8]>,
    blobs: &[Blob],
    from: usize,
    to: &Socket,
    segments: &mut SegmentWriter,
) -> Passed {
    if text.is_none() && blobs.is_empty() {
        return Passed::Nothing;
    }
    let number = usize::from(text.is_some()) + blobs.len();
    let mut next = from;
    // Halved where the system lacks a resource.
    let mut most = MOST_FDS;
    while next < number {
        let skipped = next.saturating_sub(usize::from(text.is_some()));
        let text = text.filter(|_| next == 0);
        let items = text.map(Item::Text).into_iter().chain(blobs[skipped..].iter().map(Item::Blob));
        let (draft, shortage) = Draft::of(items.take(most), segments);
        let Some(end) = Some(next + draft.lengths.len()).filter(|end| *end > next) else {
            draft.settle(false, segments);
            let shortage = shortage.unwrap_or_else(|| io::ErrorKind::OutOfMemory.into());
            return Passed::Stuck(Stuck(shortage), next);
        };
        let flags = [
            if next == 0 { IS_FIRST } else { 0 },
            if end < number { HAS_MORE } else { 0 },
            if text.is_some() { HAS_TEXT } else { 0 },
        ];
        let message = draft.message(flags.iter().sum());
        if draft.is_appendix(&message) && next == 0 && end == number {
            draft.settle(true, segments);
            return Passed::Appendix(message);
        }
        let sent = draft.send(&message, to);
        draft.settle(sent == Sent::Yes, segments);
        match sent {
            Sent::Yes => next = end,
            // The exit of the other side is reported elsewhere.
            Sent::Gone => break,
            Sent::NoRoom => return Passed::Part(next),
            Sent::Short(error) if end - next == 1 => {
                return Passed::Stuck(Stuck(error.into()), next);
            }
            Sent::Short(_) => most = (end - next) / 2,
        }
    }
    Passed::All
}

/// A message to send.
#[derive(Default)]
pub(super) struct Draft<'i> {
    lengths: Vec<u64>,
    inline: Vec<u8>,
    files: Vec<OpenFile<'i>>,
}

enum OpenFile<'i> {
    New(OwnedFd),
    Kept(BorrowedFd<'i>),
    Segment(NewSegment),
}

impl AsFd for OpenFile<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::New(file) => file.as_fd(),
            Self::Kept(file) => *file,
            Self::Segment(segment) => segment.file.as_fd(),
        }
    }
}

impl<'i> Draft<'i> {
    /// A message with as many of the items as fit, and the error that excluded the next one, if
    /// there was one. Each new file takes a descriptor until the message is sent.
    pub(super) fn of(
        items: impl Iterator<Item = Item<'i>>,
        segments: &mut SegmentWriter,
    ) -> (Self, Option<io::Error>) {
        let mut draft = Self::default();
        for item in items {
            let bytes = item.bytes();
            if bytes.len() <= SHORT {
                let len = HEAD + LENGTH * (draft.lengths.len() + 1) + draft.inline.len();
                if len + bytes.len() > LONGEST {
                    break;
                }
                draft.inline.extend_from_slice(bytes);
                draft.lengths.push(bytes.len() as u64 | INLINE);
                continue;
            }
            if let Some((placed, new)) = item.place(segments) {
                draft.lengths.push(placed.to_word());
                draft.files.extend(new.map(OpenFile::Segment));
                continue;
            }
            match item.open() {
                Ok(file) => draft.files.push(file),
                Err(error) => return (draft, Some(error)),
            }
            draft.lengths.push(bytes.len() as u64);
        }
        (draft, None)
    }

    /// Tells the segments whether the message was sent.
    fn settle(self, is_sent: bool, segments: &mut SegmentWriter) {
        let new = self.files.into_iter().filter_map(|file| match file {
            OpenFile::Segment(new) => Some(new),
            OpenFile::New(_) | OpenFile::Kept(_) => None,
        });
        segments.settle(is_sent, new);
    }

    pub(super) fn message(&self, flags: u8) -> Vec<u8> {
        // Each item takes a part of the length of the message, so there are fewer than 256.
        let mut bytes = vec![KIND, flags, self.lengths.len() as u8];
        bytes.extend(self.lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend_from_slice(&self.inline);
        bytes
    }

    /// Whether its message can go with the record.
    fn is_appendix(&self, message: &[u8]) -> bool {
        self.files.is_empty() && message.len() <= MOST_APPENDED
    }

    pub(super) fn send(&self, message: &[u8], to: &Socket) -> Sent {
        let fds: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        to.send(message, &fds)
    }
}
