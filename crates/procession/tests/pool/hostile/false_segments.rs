//! What a compromised worker says about segments, and does to them.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{FallocateFlags, SealFlags};
use serde::{Deserialize, Serialize};

use super::attacks::{
    HAS_ATTACHMENT, HAS_TEXT, REPLY, go_on_changing, memory, message, publish, publish_blob, seal,
    send, text,
};

/// The lies. Each is described by what the worker sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum SegmentLie {
    /// A segment, which a thread goes on changing.
    Flipping,
    /// The same with a text.
    FlippingText,
    /// The name of a slot for which it never sent a segment.
    NeverSent,
    /// A slot with a number that no slot has.
    NoSuchSlot,
    /// The same item twice, in two messages.
    Twice,
    /// A segment of 1 TiB without a page.
    Tebibyte,
    /// A sealed segment of which only the first page is allocated.
    Holes,
    /// A file without seals.
    Unsealed,
    /// An item that is longer than its segment.
    TooLong,
    /// Segments in more slots than there is room for.
    TooMany,
}

/// In a word of a message, see `src/transport/segments.rs`.
const FLAG: u64 = 1 << 62;
const IS_NEW: u64 = 1 << 61;

fn item(slot: u64, generation: u64, len: u64) -> u64 {
    FLAG | slot << 56 | generation << 32 | len
}

/// A segment with these bytes, in a file of this length. The thread that changes it is started before
/// the file is sealed.
fn segment(bytes: &[u8], len: u64, changes: Option<usize>) -> File {
    let file = memory(bytes);
    file.set_len(len).expect("a length");
    // As the library does; one with holes is a lie of its own.
    if len <= 1 << 26 {
        rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, len).expect("memory");
    }
    if let Some(at) = changes {
        go_on_changing(&file, bytes.len(), at);
    }
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
    seal(&file, seals | SealFlags::SEAL);
    file
}

/// Sends the items as blobs, and the record that needs the first of them.
fn blobs(id: u64, words: &[u64], fds: &[BorrowedFd<'_>]) {
    send(&message(0, words, &[]), fds);
    publish_blob(id);
}

/// The length of the blob in [`SegmentLie::Flipping`].
pub(crate) const LEN: usize = 50_000;

/// The honest use of slots begins at the other end.
const SLOT: u64 = 7;

pub(super) fn tell(lie: SegmentLie, id: u64) {
    let whole = |bytes: &[u8]| segment(bytes, 1 << 16, None);
    let first = |len| item(SLOT, 1, len) | IS_NEW;
    match lie {
        SegmentLie::Flipping => {
            let file = segment(&[7; LEN], 1 << 16, Some(LEN / 2));
            blobs(id, &[first(LEN as u64)], &[file.as_fd()]);
        }
        SegmentLie::FlippingText => {
            let text = text(id);
            let at = text.find("ok").unwrap_or_default();
            let file = segment(text.as_bytes(), 1 << 16, Some(at));
            send(&message(HAS_TEXT, &[first(text.len() as u64)], &[]), &[file.as_fd()]);
            publish(REPLY | HAS_ATTACHMENT, 0, "");
        }
        SegmentLie::NeverSent => blobs(id, &[item(SLOT, 1, 100)], &[]),
        SegmentLie::NoSuchSlot => {
            blobs(id, &[item(16, 1, 100) | IS_NEW], &[whole(&[7; 100]).as_fd()]);
        }
        SegmentLie::Twice => {
            let file = whole(&[7; 100]);
            blobs(id, &[first(100), item(SLOT, 2, 100)], &[file.as_fd()]);
        }
        SegmentLie::Tebibyte => {
            blobs(id, &[first(100)], &[segment(&[7; 100], 1 << 40, None).as_fd()]);
        }
        SegmentLie::Holes => {
            let file = memory(&[7; 100]);
            file.set_len(1 << 16).expect("a length");
            let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::FUTURE_WRITE;
            seal(&file, seals | SealFlags::SEAL);
            blobs(id, &[first(100)], &[file.as_fd()]);
        }
        SegmentLie::Unsealed => blobs(id, &[first(100)], &[memory(&[7; 100]).as_fd()]),
        SegmentLie::TooLong => {
            blobs(id, &[first((1 << 16) + 1)], &[whole(&[7; 100]).as_fd()]);
        }
        SegmentLie::TooMany => {
            let files: Vec<_> = (0..8).map(|_| segment(&[7; 100], 1 << 25, None)).collect();
            let words: Vec<_> = (0..8).map(|slot| item(slot, 1, 1 << 25) | IS_NEW).collect();
            blobs(id, &words, &files.iter().map(File::as_fd).collect::<Vec<_>>());
        }
    }
}
