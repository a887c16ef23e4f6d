//! Segments: memory files that long items of attachments go through, one after the other. The pages of
//! a segment stay: fresh pages cost several times what it takes to copy into them.
//!
//! Each worker has [`MOST`] slots for each direction, each with at most one segment. Its writer
//! creates it when an item needs it, and its descriptor goes with that item through the socket; later
//! items name the slot. An item that finds no free segment goes in a memory file of its own, as all do
//! where the system has no such files.
//!
//! | what | to the worker | to the coordinator |
//! |---|---|---|
//! | the segment, while its slot is free | is written by the coordinator, through a mapping that it made before it sealed the file | by the worker, in the same way |
//! | the segment, from the message that names it until its return | is not written; the worker reads it in place ([`Lent`](procession_os::segment::Lent)) | is not written, if the worker is honest; the coordinator copies it, and then looks at the copy |
//! | the word `returned` | is written by the worker, when the last handle to the bytes is dropped | by the coordinator, when the record was read |
//! | the word `dropped` | is written by the coordinator | by the worker |
//! | other processes | neither map nor read the segment | the same |
//!
//! The seals refuse each other way to write, also to a process that has the descriptor. `returned` holds the
//! generation of the item, which each use of the slot increments, and whether the segment is lost:
//! the reader does not have it, or a copy of the worker that a task has forked may still read it. Then
//! it is never written again. `dropped` tells after which generation the writer has given the
//! segment up, so that the reader can do so as well; both do after [`IDLE`]. A new segment in the slot sets it
//! back before its first item is sent: generations come again.
//!
//! A worker that returns a segment early, or writes to one late, changes what itself is given or gives.
//! One that names a slot without a segment, or a generation that is not the next, has sent garbage. What
//! its segments may hold in all is bounded, and so is what one attachment makes the coordinator copy,
//! since a slot is free again only after the record. The segments of a worker end with it.

mod reader;
mod writer;

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

pub(crate) use self::reader::SegmentReader;
pub(super) use self::writer::NewSegment;
pub(crate) use self::writer::SegmentWriter;
use super::shared_region::SharedRegion;

/// The number of slots of a worker for each direction.
pub(super) const MOST: usize = 16;
/// The length of the longest segment, and of all segments of a worker for one direction together, in
/// bytes. Only the pages that were written to take memory.
pub(crate) const MOST_BYTES: u64 = 128 << 20;
/// The length of the shortest segment, in bytes. Each other is a power of two.
const SHORTEST: usize = 64 << 10;
/// A free segment is given back to the system after this time.
const IDLE: Duration = Duration::from_secs(2);

/// Which way segments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    ToWorker,
    ToCoordinator,
}

/// The words of a slot in the shared region.
pub(super) struct SlotWords<'m> {
    /// Twice the generation of the last item that was returned; one more if the segment is lost.
    pub returned: &'m AtomicU32,
    /// One more than the generation of the last item, if the segment was given up after it. 0: it was not.
    pub dropped: &'m AtomicU32,
}

/// Where the words of one direction are.
#[derive(Debug, Clone)]
struct SlotLink {
    region: Arc<SharedRegion>,
    direction: Direction,
}

impl SlotLink {
    fn words(&self, slot: usize) -> SlotWords<'_> {
        self.region.slot_words(self.direction, slot)
    }
}

/// An item that is in a segment, as its message says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentItem {
    pub slot: u8,
    pub generation: u32,
    pub len: u32,
    /// The descriptor of the segment comes with the message.
    pub is_new: bool,
}

impl SegmentItem {
    const SLOTS: u32 = 56;
    const GENERATIONS: u32 = 32;
    const IS_NEW: u64 = 1 << 61;
    /// The flag that says that an item is in a segment.
    const FLAG: u64 = 1 << 62;

    /// Other items of a message have neither this flag nor a length of that size.
    pub(super) fn to_word(self) -> u64 {
        let Self { slot, generation, len, is_new } = self;
        Self::FLAG
            | if is_new { Self::IS_NEW } else { 0 }
            | u64::from(slot) << Self::SLOTS
            | u64::from(generation) << Self::GENERATIONS
            | u64::from(len)
    }

    /// `None` if the item is not in a segment.
    pub(super) fn from_word(word: u64) -> Option<Self> {
        (word & Self::FLAG != 0).then_some(Self {
            slot: (word >> Self::SLOTS & 0x1f) as u8,
            generation: (word >> Self::GENERATIONS) as u32 & GENERATIONS,
            len: (word & u64::from(u32::MAX)) as u32,
            is_new: word & Self::IS_NEW != 0,
        })
    }
}

/// The largest generation; 0 follows.
const GENERATIONS: u32 = 0xff_ffff;

fn after(generation: u32) -> u32 {
    (generation + 1) & GENERATIONS
}

/// The word `dropped` of a segment that is in use.
const IN_USE: u32 = 0;

/// The word `dropped` of a segment that was given up after this generation.
fn dropped(generation: u32) -> u32 {
    generation + 1
}

fn returned(generation: u32, is_lost: bool) -> u32 {
    generation << 1 | u32::from(is_lost)
}

#[cfg(test)]
mod tests;
