//! The side that writes to segments.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use procession_os::shared::SharedMemory;
use procession_os::{sealed, segment};

use super::{
    Direction, IDLE, IN_USE, MOST, MOST_BYTES, SHORTEST, SegmentItem, SlotLink, after, dropped,
    returned,
};
use crate::transport::SharedRegion;

/// If an item fills less than one part in eight of a free segment, the segment is used for it only if there is no other
/// one.
const MUCH_TOO_LONG: usize = 8;

/// The segments that this process writes to, for one worker and direction.
#[derive(Debug, Default)]
pub(crate) struct SegmentWriter {
    /// `None`: there are no segments.
    link: Option<SlotLink>,
    slots: [WriterSlot; MOST],
    /// The length of all segments together.
    most_bytes: usize,
}

#[derive(Debug, Default)]
struct WriterSlot {
    segment: Option<WrittenSegment>,
    /// Of the last item that was sent.
    generation: u32,
    state: SlotState,
}

#[derive(Debug)]
struct WrittenSegment {
    memory: SharedMemory,
    len: usize,
    /// Until it was sent.
    file: Option<OwnedFd>,
    used_at: Instant,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum SlotState {
    #[default]
    Free,
    /// An item is in it, and was not sent yet.
    Filled,
    /// The other side has an item that is in it.
    Out,
}

/// The descriptor of a new segment, on its way.
#[derive(Debug)]
pub(in crate::transport) struct NewSegment {
    slot: usize,
    pub(in crate::transport) file: OwnedFd,
}

impl SegmentWriter {
    /// For segments of this length together, in bytes.
    pub(crate) fn new(region: Arc<SharedRegion>, direction: Direction, most_bytes: u64) -> Self {
        let link = sealed::is_available().then_some(SlotLink { region, direction });
        let most_bytes = usize::try_from(most_bytes.min(MOST_BYTES)).unwrap_or(0);
        Self { link, most_bytes, ..Self::default() }
    }

    /// Copies an item into a free segment. [`settle`](Self::settle) must follow. `None` if there is no
    /// segment for it.
    pub(in crate::transport) fn place(
        &mut self,
        bytes: &[u8],
    ) -> Option<(SegmentItem, Option<NewSegment>)> {
        self.link.as_ref()?;
        let capacity = bytes.len().checked_next_power_of_two()?.max(SHORTEST);
        if bytes.is_empty() || capacity > self.most_bytes {
            return None;
        }
        self.take_returned();
        let found = self.find(capacity);
        let slot = found.or_else(|| self.create(capacity, bytes))?;
        let WriterSlot { segment, generation, state } = &mut self.slots[slot];
        let segment = segment.as_mut()?;
        let item = SegmentItem {
            slot: u8::try_from(slot).ok()?,
            generation: after(*generation),
            len: u32::try_from(bytes.len()).ok()?,
            is_new: segment.file.is_some(),
        };
        // One that was just created has them already.
        if found.is_some() {
            segment.memory.bytes(0, bytes.len()).copy_from(bytes);
        }
        segment.used_at = Instant::now();
        *state = SlotState::Filled;
        Some((item, segment.file.take().map(|file| NewSegment { slot, file })))
    }

    /// Whether the message with the items that were placed since the last call was sent. If not, their
    /// segments are free again.
    pub(in crate::transport) fn settle(
        &mut self,
        is_sent: bool,
        new: impl Iterator<Item = NewSegment>,
    ) {
        for slot in self.slots.iter_mut().filter(|slot| slot.state == SlotState::Filled) {
            if is_sent {
                slot.generation = after(slot.generation);
                slot.state = SlotState::Out;
            } else {
                slot.state = SlotState::Free;
            }
        }
        if is_sent {
            return;
        }
        for NewSegment { slot, file } in new {
            if let Some(segment) = &mut self.slots[slot].segment {
                segment.file = Some(file);
            }
        }
    }

    /// Gives back to the system what was not used for [`IDLE`].
    pub(crate) fn drop_idle(&mut self, now: Instant) {
        self.take_returned();
        for slot in 0..MOST {
            let is_idle =
                |segment: &WrittenSegment| now.saturating_duration_since(segment.used_at) >= IDLE;
            let WriterSlot { segment, state, .. } = &self.slots[slot];
            if *state == SlotState::Free && segment.as_ref().is_some_and(is_idle) {
                self.drop_segment(slot);
            }
        }
    }

    /// Frees the slots whose items were returned.
    fn take_returned(&mut self) {
        let Some(link) = &self.link else { return };
        let mut lost = [false; MOST];
        for (n, slot) in self.slots.iter_mut().enumerate() {
            if slot.state != SlotState::Out {
                continue;
            }
            let word = link.words(n).returned.load(Ordering::Acquire);
            lost[n] = word == returned(slot.generation, true);
            if lost[n] || word == returned(slot.generation, false) {
                slot.state = SlotState::Free;
            }
        }
        for slot in (0..MOST).filter(|slot| lost[*slot]) {
            self.drop_segment(slot);
        }
    }

    /// The shortest free segment that is long enough.
    fn find(&self, capacity: usize) -> Option<usize> {
        let lens = self.slots.iter().enumerate().filter_map(|(n, slot)| {
            let len = slot.segment.as_ref().filter(|_| slot.state == SlotState::Free)?.len;
            (len >= capacity).then_some((len, n))
        });
        let (len, slot) = lens.min()?;
        let may_create = len / MUCH_TOO_LONG >= capacity
            && self.len() + capacity <= self.most_bytes
            && self.slots.iter().any(|slot| slot.segment.is_none());
        (!may_create).then_some(slot)
    }

    /// Creates a segment with these bytes, in the place of free ones that are too short if there is no
    /// room. Returns its slot.
    fn create(&mut self, capacity: usize, bytes: &[u8]) -> Option<usize> {
        let is_free = |slot: &WriterSlot| slot.state == SlotState::Free;
        let len_of = |slot: &WriterSlot| slot.segment.as_ref().map_or(0, |segment| segment.len);
        let free = self.slots.iter().map(|slot| if is_free(slot) { len_of(slot) } else { 0 });
        let kept = self.len() - free.sum::<usize>();
        // An empty one, or the shortest.
        let free = self.slots.iter().enumerate().filter(|(_, slot)| is_free(slot));
        let (_, slot) = free.map(|(n, slot)| (len_of(slot), n)).min()?;
        if kept + capacity > self.most_bytes {
            return None;
        }
        self.drop_segment(slot);
        for other in 0..MOST {
            if self.len() + capacity > self.most_bytes && is_free(&self.slots[other]) {
                self.drop_segment(other);
            }
        }
        // The caller sends the bytes in another way, and reports it if that fails, too.
        let (memory, file) = match segment::create(capacity, bytes) {
            Ok(created) => created,
            Err(error) => {
                if error.kind() == io::ErrorKind::InvalidInput {
                    // This kernel has no such files.
                    self.link = None;
                }
                return None;
            }
        };
        // Its descriptor is sent after this.
        self.link.as_ref()?.words(slot).dropped.store(IN_USE, Ordering::Release);
        let (file, used_at) = (Some(file), Instant::now());
        self.slots[slot].segment = Some(WrittenSegment { memory, len: capacity, file, used_at });
        Some(slot)
    }

    fn drop_segment(&mut self, slot: usize) {
        let WriterSlot { segment, generation, .. } = &mut self.slots[slot];
        if segment.take().is_some()
            && let Some(link) = &self.link
        {
            link.words(slot).dropped.store(dropped(*generation), Ordering::Release);
        }
    }

    /// The length of all segments.
    pub(super) fn len(&self) -> usize {
        self.slots.iter().filter_map(|slot| slot.segment.as_ref()).map(|segment| segment.len).sum()
    }

    /// The number of segments.
    #[cfg(test)]
    pub(crate) fn number(&self) -> usize {
        self.slots.iter().filter(|slot| slot.segment.is_some()).count()
    }

    /// The memory that has the words.
    #[cfg(test)]
    pub(super) fn region(&self) -> Option<Arc<SharedRegion>> {
        self.link.as_ref().map(|link| Arc::clone(&link.region))
    }

    /// As if this number of items had gone through each slot.
    #[cfg(test)]
    pub(super) fn set_generation(&mut self, generation: u32) {
        self.slots.iter_mut().for_each(|slot| slot.generation = generation);
    }
}
