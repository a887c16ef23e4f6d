//! The side that reads segments: a worker in place, the coordinator by copying.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use procession_os::fork::{self, Origin};
use procession_os::sealed;
use procession_os::segment::{Lent, SegmentView};

use super::{Direction, MOST, MOST_BYTES, SegmentItem, SlotLink, after, dropped, returned};
use crate::long_buffers;
use crate::received_bytes::ReceivedBytes;
use crate::transport::SharedRegion;

/// The segments of one worker and direction, as this process reads them. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct SegmentReader {
    /// `None`: there are no segments.
    link: Option<SlotLink>,
    slots: Arc<Mutex<[ReaderSlot; MOST]>>,
}

#[derive(Debug, Default)]
struct ReaderSlot {
    view: Option<Arc<SegmentView>>,
    /// Of the last item that was received.
    generation: u32,
    /// The item that was copied and whose record was not read yet.
    copied: Option<CopiedItem>,
}

#[derive(Debug, Clone, Copy)]
struct CopiedItem {
    /// The word that returns the item.
    word: u32,
    len: usize,
}

/// Maximum number of bytes of the views of one reader, and maximum number of bytes that are copied for one record.
const LONGEST: usize = MOST_BYTES as usize;

fn refused(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_owned())
}

impl SegmentReader {
    pub(crate) fn new(region: Arc<SharedRegion>, direction: Direction) -> Self {
        let link = sealed::is_available().then_some(SlotLink { region, direction });
        Self { link, ..Self::default() }
    }

    /// The bytes of an item, with the descriptor of its segment if that is new. An error of kind
    /// `InvalidData` means that the other side sent garbage; any other, that this process lacks a
    /// resource: then the item is returned.
    pub(in crate::transport) fn take(
        &self,
        item: SegmentItem,
        file: Option<OwnedFd>,
    ) -> io::Result<ReceivedBytes> {
        let link = self.link.as_ref().ok_or_else(|| refused("there are no segments"))?;
        let len = usize::try_from(item.len).ok().filter(|len| (1..=LONGEST).contains(len));
        let len = len.ok_or_else(|| refused("an item of an impossible length"))?;
        let mut slots = self.slots();
        let slot = enter(&mut slots, item)?;
        let number = usize::from(item.slot);
        if let Some(file) = file {
            slots[number].view = None;
            drop_given_up(link, &mut slots);
            match SegmentView::open(&file, LONGEST) {
                Ok(view) => slots[number].view = Some(Arc::new(view)),
                Err(error) if error.kind() == io::ErrorKind::InvalidData => return Err(error),
                // Without the segment, its writer makes a new one.
                Err(error) => {
                    return_now(link, item, true);
                    return Err(error);
                }
            }
            let lens = slots.iter().filter_map(|slot| slot.view.as_ref()).map(|view| view.len());
            if lens.sum::<usize>() > LONGEST {
                return Err(refused("more segments than there may be"));
            }
        } else if slot.view.is_none() {
            return Err(refused("a slot without a segment"));
        }
        let slot = &mut slots[number];
        let Some(view) = slot.view.as_ref().filter(|view| len <= view.len()) else {
            return Err(refused("an item that is longer than its segment"));
        };
        if link.direction == Direction::ToWorker {
            return Ok(ReceivedBytes::Lent(lend(link, view, item)));
        }
        let view = Arc::clone(view);
        // Returned with the record: until then the worker cannot use the slot again.
        slot.copied = Some(CopiedItem { word: returned(item.generation, false), len });
        // The worker may give up its segments and make others, so the lengths of the segments are no bound.
        let lens = slots.iter().filter_map(|slot| slot.copied).map(|copied| copied.len);
        if lens.sum::<usize>() > LONGEST {
            return Err(refused("more bytes in segments than there may be for one record"));
        }
        view.copy(len, long_buffers::take(len)).map(|copy| ReceivedBytes::Own(copy.into()))
    }

    /// Returns an item that cannot be received, because the descriptors of its message were lost.
    pub(in crate::transport) fn refuse(&self, item: SegmentItem) -> io::Result<()> {
        let link = self.link.as_ref().ok_or_else(|| refused("there are no segments"))?;
        let mut slots = self.slots();
        let slot = enter(&mut slots, item)?;
        if item.is_new {
            slot.view = None;
        }
        return_now(link, item, item.is_new);
        Ok(())
    }

    /// Returns the items that were copied. Their record was read.
    pub(in crate::transport) fn return_copied(&self) {
        let Some(link) = self.link.as_ref() else { return };
        if link.direction == Direction::ToWorker {
            return;
        }
        for (number, slot) in self.slots().iter_mut().enumerate() {
            if let Some(CopiedItem { word, .. }) = slot.copied.take() {
                link.words(number).returned.store(word, Ordering::Release);
            }
        }
    }

    /// Drops the segments that the writer has given up.
    pub(crate) fn drop_given_up(&self) {
        if let Some(link) = &self.link {
            drop_given_up(link, &mut self.slots());
        }
    }

    fn slots(&self) -> MutexGuard<'_, [ReaderSlot; MOST]> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of segments.
    #[cfg(any(test, feature = "fuzzing"))]
    pub(crate) fn number(&self) -> usize {
        self.slots().iter().filter(|slot| slot.view.is_some()).count()
    }

    /// The length of all segments.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.slots().iter().filter_map(|slot| slot.view.as_ref()).map(|view| view.len()).sum()
    }

    /// As if this number of items had gone through each slot.
    #[cfg(test)]
    pub(super) fn set_generation(&self, generation: u32) {
        self.slots().iter_mut().for_each(|slot| slot.generation = generation);
    }
}

/// The slot of the next item in it.
fn enter(slots: &mut [ReaderSlot; MOST], item: SegmentItem) -> io::Result<&mut ReaderSlot> {
    let slot = slots.get_mut(usize::from(item.slot)).ok_or_else(|| refused("no such slot"))?;
    if slot.copied.is_some() || item.generation != after(slot.generation) {
        return Err(refused("an item in a slot that is in use"));
    }
    slot.generation = item.generation;
    Ok(slot)
}

fn return_now(link: &SlotLink, item: SegmentItem, is_lost: bool) {
    let word = returned(item.generation, is_lost);
    link.words(usize::from(item.slot)).returned.store(word, Ordering::Release);
}

/// Lends an item; it is returned when it is dropped.
fn lend(link: &SlotLink, view: &Arc<SegmentView>, item: SegmentItem) -> Lent {
    let (link, origin, copies) = (link.clone(), Origin::here(), fork::copies());
    view.lend(item.len as usize, move || {
        // A forked copy of this process returns no items. If a copy was made since the item came, the copy may still
        // read the bytes: the item is returned as lost.
        if !origin.is_forked() {
            return_now(&link, item, fork::copies() != copies);
        }
    })
}

fn drop_given_up(link: &SlotLink, slots: &mut [ReaderSlot; MOST]) {
    for (number, slot) in slots.iter_mut().enumerate() {
        if slot.view.is_some()
            && link.words(number).dropped.load(Ordering::Acquire) == dropped(slot.generation)
        {
            slot.view = None;
        }
    }
}
