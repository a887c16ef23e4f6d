//! Attachments: a long text and the blobs of a record, sent through the socket.
//!
//! An attachment is sent in one or more messages. Items up to [`SHORT`] bytes are in the message. A longer
//! item is a sealed memory file, whose descriptor goes with the message. Where the system has no sealed
//! files, it is an unlinked file, which the other side copies.
//!
//! ```text
//!   kind (1) │ flags (1) │ number of items (1) │ length of each (8), top bit set if inline │ inline bytes
//! ```
//!
//! The messages are sent before the record that needs them, and nothing here blocks. If the socket has no
//! room, the sender publishes a [`TAKE_IN`](super::TAKE_IN) record. The other side then receives what is in
//! the socket ([`Assembly::take_in`]), and the sender continues later with the first item that was not sent.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::ring::Garbled;
use super::socket::{LONGEST, MOST_FDS, Message, Received, Sent, Socket};
use crate::blob::{self, Blob};
use procession_os::sealed::{self, Sealed};

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
/// The most items of an attachment: a text and the blobs.
const MOST_ITEMS: usize = blob::MOST + 1;

/// One received item.
#[derive(Debug)]
pub(crate) enum ReceivedBytes {
    Sealed(Sealed),
    Own(Vec<u8>),
}

impl Deref for ReceivedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Sealed(memory) => memory,
            Self::Own(bytes) => bytes,
        }
    }
}

impl ReceivedBytes {
    /// An error of kind `InvalidData` means that the file does not fit its length; any other, that the system
    /// lacks a resource.
    fn open(file: OwnedFd, len: u64) -> io::Result<Self> {
        let refused = |why: &str| io::Error::new(io::ErrorKind::InvalidData, why.to_owned());
        let len = usize::try_from(len).map_err(|_| refused("an impossible length"))?;
        if sealed::is_available() {
            return Sealed::open(file, len).map(Self::Sealed);
        }
        let file = File::from(file);
        let metadata = file.metadata()?;
        if !metadata.is_file() || metadata.len() != len as u64 {
            return Err(refused("not a file of the length announced"));
        }
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, 0)?;
        Ok(Self::Own(bytes))
    }
}

/// A new file with these bytes, to be sent.
fn new_file(bytes: &[u8]) -> io::Result<OwnedFd> {
    if sealed::is_available() {
        return sealed::create(bytes);
    }
    let file = tempfile::tempfile()?;
    file.write_all_at(bytes, 0)?;
    Ok(file.into())
}

/// The attachment of a record.
#[derive(Debug, Default)]
pub(crate) struct Attachment {
    /// The text, if it is not in the record.
    text: Option<ReceivedBytes>,
    /// The blobs of the text, by their indices there.
    blobs: Vec<ReceivedBytes>,
    /// Why it could not be received, if it could not.
    lost: Option<String>,
}

impl Attachment {
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

/// How long a receiver waits for a resource that it lacks. After such a wait in vain it does not wait again
/// until it has received a message.
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
#[derive(Debug, Default)]
pub(crate) struct Assembly {
    /// More messages of it will come.
    part: Option<Attachment>,
    /// The record of it was not read yet.
    whole: Option<Attachment>,
}

impl Assembly {
    /// The attachment of the record that was just read. All of it was sent before the record. If this process
    /// lacks a resource to receive it for longer than `patience`, the attachment is [lost](Attachment::lost),
    /// and the next one can be received.
    pub(crate) fn next(
        &mut self,
        from: &Socket,
        patience: &mut Patience,
    ) -> Result<Attachment, Garbled> {
        loop {
            if let Some(whole) = self.whole.take() {
                return Ok(whole);
            }
            if !self.receive(from, patience)? {
                return Err(Garbled);
            }
        }
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
            Received::Message(message) => {
                patience.until = None;
                self.add(message, None)?;
            }
            Received::Nothing | Received::Gone => return Ok(false),
            Received::Cut => return Err(Garbled),
            Received::Short(_) if patience.waits() => {}
            Received::Short(error) => {
                let Some(bytes) = from.discard() else {
                    // It cannot be removed either: a task may have closed the socket of its process.
                    self.part = None;
                    self.whole = Some(Attachment::lost_because(io::Error::from(error)));
                    return Ok(true);
                };
                self.add(Message { bytes, fds: Vec::new() }, Some(error))?;
            }
        }
        Ok(true)
    }

    /// Adds a message, without its descriptors if there was a `shortage`.
    fn add(
        &mut self,
        Message { bytes, fds }: Message,
        shortage: Option<Errno>,
    ) -> Result<(), Garbled> {
        let ([KIND, flags, items], rest) = bytes.split_first_chunk::<HEAD>().ok_or(Garbled)? else {
            return Err(Garbled);
        };
        let (lengths, mut inline) =
            rest.split_at_checked(LENGTH * usize::from(*items)).ok_or(Garbled)?;
        let mut fds = fds.into_iter();
        let mut items_received = Vec::with_capacity(usize::from(*items));
        let mut lost = shortage.map(|error| io::Error::from(error).to_string());
        for length in lengths.chunks_exact(LENGTH) {
            let length = u64::from_le_bytes(length.try_into().map_err(|_| Garbled)?);
            items_received.push(if length & INLINE != 0 {
                let length = usize::try_from(length & !INLINE).map_err(|_| Garbled)?;
                let (bytes, rest) = inline.split_at_checked(length).ok_or(Garbled)?;
                inline = rest;
                ReceivedBytes::Own(bytes.to_vec())
            } else if lost.is_some() {
                drop(fds.next());
                continue;
            } else {
                match ReceivedBytes::open(fds.next().ok_or(Garbled)?, length) {
                    Ok(bytes) => bytes,
                    Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                        return Err(Garbled);
                    }
                    Err(error) => {
                        lost = Some(error.to_string());
                        continue;
                    }
                }
            });
        }
        if !inline.is_empty() || fds.next().is_some() {
            return Err(Garbled);
        }
        // A part before `IS_FIRST` belongs to an attachment that the sender gave up.
        let part =
            if flags & IS_FIRST != 0 { None } else { Some(self.part.take().ok_or(Garbled)?) };
        let mut part = part.unwrap_or_default();
        let mut items_received = items_received.into_iter();
        if flags & HAS_TEXT != 0 {
            part.text = items_received.next();
        }
        part.blobs.extend(items_received);
        if part.blobs.len() > MOST_ITEMS {
            return Err(Garbled);
        }
        if let Some(reason) = lost.or(part.lost.take()) {
            // The other items are of no use.
            part = Attachment::lost_because(reason);
        }
        let place = if flags & HAS_MORE != 0 { &mut self.part } else { &mut self.whole };
        *place = Some(part);
        Ok(())
    }
}

/// An item to send.
#[derive(Clone, Copy)]
enum Item<'i> {
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

    /// The sealed file in which it was received, which can be sent again.
    fn file(self) -> Option<BorrowedFd<'i>> {
        match self {
            Self::Text(_) => None,
            Self::Blob(blob) => blob.file(),
        }
    }
}

/// The progress of sending an attachment.
#[derive(Debug)]
pub(crate) enum Passed {
    /// There is nothing to attach.
    Nothing,
    All,
    /// This number of items was sent. The socket has no room for more now.
    Part(usize),
    /// The system lacks a resource for the next item; this number was sent.
    Stuck(Stuck, usize),
}

/// Why an attachment could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("cannot send an attachment: {0}")]
pub(crate) struct Stuck(io::Error);

/// Sends the attachment of a record, from item `from` on.
pub(crate) fn pass(text: Option<&[u8]>, blobs: &[Blob], from: usize, to: &Socket) -> Passed {
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
        let (draft, shortage) = Draft::of(items.take(most));
        let Some(end) = Some(next + draft.lengths.len()).filter(|end| *end > next) else {
            let shortage = shortage.unwrap_or_else(|| io::ErrorKind::OutOfMemory.into());
            return Passed::Stuck(Stuck(shortage), next);
        };
        let flags = [
            if next == 0 { IS_FIRST } else { 0 },
            if end < number { HAS_MORE } else { 0 },
            if text.is_some() { HAS_TEXT } else { 0 },
        ];
        match draft.send(flags.iter().sum(), to) {
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
struct Draft<'i> {
    lengths: Vec<u64>,
    inline: Vec<u8>,
    files: Vec<Sending<'i>>,
}

enum Sending<'i> {
    New(OwnedFd),
    AsReceived(BorrowedFd<'i>),
}

impl AsFd for Sending<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::New(file) => file.as_fd(),
            Self::AsReceived(file) => *file,
        }
    }
}

impl<'i> Draft<'i> {
    /// A message with as many of the items as fit, and the error that excluded the next one, if there was one.
    /// Each new file takes a descriptor until the message is sent.
    fn of(items: impl Iterator<Item = Item<'i>>) -> (Self, Option<io::Error>) {
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
            match item.file() {
                Some(file) => draft.files.push(Sending::AsReceived(file)),
                None => match new_file(bytes) {
                    Ok(file) => draft.files.push(Sending::New(file)),
                    Err(error) => return (draft, Some(error)),
                },
            }
            draft.lengths.push(bytes.len() as u64);
        }
        (draft, None)
    }

    fn send(&self, flags: u8, to: &Socket) -> Sent {
        let Ok(items) = u8::try_from(self.lengths.len()) else {
            return Sent::Short(Errno::INVAL);
        };
        let mut bytes = vec![KIND, flags, items];
        bytes.extend(self.lengths.iter().flat_map(|length| length.to_le_bytes()));
        bytes.extend_from_slice(&self.inline);
        let fds: Vec<_> = self.files.iter().map(AsFd::as_fd).collect();
        to.send(&bytes, &fds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::iter;

    fn pair() -> (Socket, Socket) {
        let (ours, theirs) = Socket::pair().expect("a pair");
        (ours, Socket::of(theirs.as_fd()).expect("an end"))
    }

    fn blobs(lens: impl IntoIterator<Item = usize>) -> Vec<Blob> {
        lens.into_iter().map(|len| vec![(len % 251) as u8; len].into()).collect()
    }

    #[test]
    fn texts_and_blobs_of_all_lengths_arrive() {
        let (one, other) = pair();
        let mut assembly = Assembly::default();
        let long = "x".repeat(100_000);
        for text in [None, Some(""), Some("ü"), Some(&long)] {
            for lens in [vec![], vec![0, 1, 1024, 1025, 100_000], vec![700; 20], vec![5_000; 100]] {
                let blobs = blobs(lens);
                match pass(text.map(str::as_bytes), &blobs, 0, &one) {
                    Passed::All => {}
                    Passed::Nothing if text.is_none() && blobs.is_empty() => continue,
                    other => panic!("{other:?}"),
                }
                let mut got = assembly.next(&other, &mut Patience::none()).expect("sound");
                let expected = text.unwrap_or("in the record");
                assert_eq!(got.text(b"in the record"), expected.as_bytes());
                assert_eq!(got.take_blobs(), blobs);
            }
        }
        assert!(assembly.next(&other, &mut Patience::none()).is_err(), "nothing was sent");
    }

    #[test]
    fn an_attachment_is_continued_after_a_full_socket_and_one_that_was_given_up_is_dropped() {
        let (one, other) = pair();
        let mut assembly = Assembly::default();
        // First messages of attachments that are given up fill the socket.
        let given_up = Draft::of(iter::once(Item::Text(b"given up"))).0;
        while given_up.send(IS_FIRST | HAS_MORE | HAS_TEXT, &one) == Sent::Yes {}
        let many = blobs(iter::repeat_n(900, 256));
        let (mut from, mut rounds) = (0, 0);
        loop {
            match pass(None, &many, from, &one) {
                Passed::All => break,
                Passed::Part(items) => from = items,
                other => panic!("{other:?}"),
            }
            assembly.take_in(&other, &mut Patience::none()).expect("sound");
            rounds += 1;
        }
        assert!(rounds > 0);
        let mut got = assembly.next(&other, &mut Patience::none()).expect("sound");
        assert_eq!(got.text(b"none"), b"none");
        assert_eq!(got.take_blobs(), many);
    }

    #[test]
    fn malformed_messages_are_errors() {
        let garbled = |bytes: &[u8], fds: &[BorrowedFd<'_>]| {
            let (one, other) = pair();
            assert_eq!(one.send(bytes, fds), Sent::Yes);
            Assembly::default().next(&other, &mut Patience::none()).is_err()
        };
        let head = |flags: u8, items: u8| vec![KIND, flags, items];
        let with = |mut head: Vec<u8>, length: u64| {
            head.extend(length.to_le_bytes());
            head
        };
        assert!(!garbled(&head(IS_FIRST, 0), &[]));
        assert!(garbled(b"x", &[]) && garbled(&[9, IS_FIRST, 0], &[]));
        assert!(garbled(&head(0, 0), &[]), "not the first of an attachment");
        assert!(garbled(&head(IS_FIRST, 1), &[]), "no length");
        assert!(garbled(&with(head(IS_FIRST, 1), 1 << 45), &[]), "no descriptor");
        assert!(garbled(&with(head(IS_FIRST, 1), INLINE | 1 << 45), &[]), "no bytes");
        let file = new_file(&[7; 5_000]).expect("a file");
        assert!(!garbled(&with(head(IS_FIRST, 1), 5_000), &[file.as_fd()]));
        assert!(garbled(&head(IS_FIRST, 0), &[file.as_fd()]), "too many descriptors");
        for wrong in [0, 1, 4_999, 5_001, 1 << 45] {
            assert!(garbled(&with(head(IS_FIRST, 1), wrong), &[file.as_fd()]), "{wrong}");
        }
        let (reader, _writer) = io::pipe().expect("a pipe");
        assert!(garbled(&with(head(IS_FIRST, 1), 5_000), &[reader.as_fd()]), "a pipe");
        let disk = File::open(std::env::current_exe().expect("a path")).expect("a file");
        let len = disk.metadata().expect("a length").len();
        if sealed::is_available() {
            assert!(garbled(&with(head(IS_FIRST, 1), len), &[disk.as_fd()]), "a file on disk");
        }
    }
}
