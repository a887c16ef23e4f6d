//! A ring of records in shared memory, from one writer to one reader.
//!
//! | word | written by | meaning |
//! |---|---|---|
//! | `tail` | writer | bytes published since the start |
//! | `head` | reader | bytes read and freed since the start |
//!
//! Each side keeps its own position in private memory and takes only the other's from the shared
//! words, with a check of its bounds. So a wrong value makes an error, and never an access outside
//! the ring. A writer that dies in the middle of a record has not moved `tail`, so the record is
//! not seen.
//!
//! ```text
//!   record:   length (4 bytes, little-endian) │ kind (1) │ unused (1) │ length of the appendix (2)
//!             │ bytes │ appendix │ padding to 8
//! ```
//!
//! The length of the record includes the appendix. Most records have none.
//!
//! Positions are stored with `SeqCst`, which the event counts need (see `event_count.rs`).

use super::sync::{AtomicU64, Bytes, Ordering};

/// The bytes before each record, and its alignment.
pub(crate) const HEADER: usize = 8;

/// Records up to this length, with header, are assembled on the stack and copied at once.
const SHORT: usize = 64;

/// The shared part of a ring.
pub(crate) struct Ring<'m> {
    pub tail: &'m AtomicU64,
    pub head: &'m AtomicU64,
    /// Its length is a power of two.
    pub bytes: Bytes<'m>,
}

/// The other side, or a stray write, left data that break the protocol. The connection is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Garbled;

/// The private part of the writer.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    /// The position up to which it has written.
    at: u64,
    /// The reader's position when it was last loaded.
    head: u64,
}

/// The private part of the reader.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    /// The position up to which it has read.
    at: u64,
}

impl Ring<'_> {
    /// Whether there are records that were not read.
    pub(crate) fn has_unread(&self) -> bool {
        self.tail.load(Ordering::SeqCst) != self.head.load(Ordering::SeqCst)
    }

    /// The writer's position, unchecked.
    pub(crate) fn tail(&self) -> u64 {
        self.tail.load(Ordering::SeqCst)
    }

    /// Whether more than 1/64 of the ring is unread, so that it should be read soon.
    pub(crate) fn is_filling(&self) -> bool {
        let unread =
            self.tail.load(Ordering::SeqCst).wrapping_sub(self.head.load(Ordering::SeqCst));
        unread > self.capacity() / 64
    }

    fn capacity(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn put(&self, at: u64, bytes: &[u8]) {
        let at = self.offset(at);
        let (first, second) = bytes.split_at(bytes.len().min(self.bytes.len() - at));
        self.slice(at, first.len()).copy_from(first);
        self.slice(0, second.len()).copy_from(second);
    }

    fn get(&self, at: u64, bytes: &mut [u8]) {
        let at = self.offset(at);
        let (first, second) = bytes.split_at_mut(bytes.len().min(self.bytes.len() - at));
        self.slice(at, first.len()).copy_to(first);
        self.slice(0, second.len()).copy_to(second);
    }

    fn offset(&self, at: u64) -> usize {
        usize::try_from(at % self.capacity()).expect("less than the length of a slice")
    }

    fn slice(&self, at: usize, len: usize) -> Bytes<'_> {
        self.bytes.subslice(at, len).expect("within the ring")
    }
}

impl Writer {
    /// Whether there is room for a record of these parts. True if `head` is out of bounds: then
    /// `write` returns the error.
    pub(crate) fn fits(&self, ring: &Ring<'_>, parts: &[&[u8]]) -> bool {
        let unread = self.at.checked_sub(ring.head.load(Ordering::SeqCst));
        let unread = unread.filter(|unread| *unread <= ring.capacity());
        unread.is_none_or(|unread| unread + room_for(parts) <= ring.capacity())
    }

    /// Writes a record that consists of `parts`, and publishes it. False if there is no room for it
    /// now.
    pub(crate) fn write(
        &mut self,
        ring: &Ring<'_>,
        kind: u8,
        parts: &[&[u8]],
    ) -> Result<bool, Garbled> {
        self.write_with(ring, kind, parts, 0)
    }

    /// As `write`, with an appendix: that number of bytes at the end of the parts.
    pub(crate) fn write_with(
        &mut self,
        ring: &Ring<'_>,
        kind: u8,
        parts: &[&[u8]],
        appendix: usize,
    ) -> Result<bool, Garbled> {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let whole = room_for(parts);
        if self.at + whole - self.head > ring.capacity() {
            let head = ring.head.load(Ordering::Acquire);
            let unread = self.at.checked_sub(head).filter(|unread| *unread <= ring.capacity());
            let unread = unread.ok_or(Garbled)?;
            self.head = head;
            if unread + whole > ring.capacity() {
                return Ok(false);
            }
        }
        let mut header = [0; HEADER];
        header[..4].copy_from_slice(&u32::try_from(len).map_err(|_| Garbled)?.to_le_bytes());
        header[4] = kind;
        header[6..].copy_from_slice(&u16::try_from(appendix).map_err(|_| Garbled)?.to_le_bytes());
        let parts = std::iter::once(&header[..]).chain(parts.iter().copied());
        let mut short = [0; SHORT];
        if let Some(mut rest) = short.get_mut(..HEADER + len) {
            for part in parts {
                let (place, behind) = rest.split_at_mut(part.len());
                place.copy_from_slice(part);
                rest = behind;
            }
            ring.put(self.at, &short[..HEADER + len]);
        } else {
            let mut at = self.at;
            for part in parts {
                ring.put(at, part);
                at += part.len() as u64;
            }
        }
        self.at += whole;
        ring.tail.store(self.at, Ordering::SeqCst);
        Ok(true)
    }
}

/// The bytes that a record of these parts takes.
fn room_for(parts: &[&[u8]]) -> u64 {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    (HEADER + len).next_multiple_of(HEADER) as u64
}

impl Reader {
    /// Whether there are records to read.
    pub(crate) fn is_ready(&self, ring: &Ring<'_>) -> bool {
        ring.tail.load(Ordering::SeqCst) != self.at
    }

    /// Whether all records before this position were read.
    pub(crate) fn has_passed(&self, tail: u64) -> bool {
        self.at >= tail
    }

    /// Moves all published records to the end of `records`, and frees their room. False if there
    /// are none.
    pub(crate) fn read(&mut self, ring: &Ring<'_>, records: &mut Records) -> Result<bool, Garbled> {
        let tail = ring.tail.load(Ordering::Acquire);
        let unread = tail.checked_sub(self.at).filter(|unread| *unread <= ring.capacity());
        let unread = usize::try_from(unread.ok_or(Garbled)?).map_err(|_| Garbled)?;
        // Only this reader writes `head`, but others compare it with `tail` to find unread records.
        if ring.head.load(Ordering::Relaxed) != self.at {
            return Err(Garbled);
        }
        if unread == 0 {
            return Ok(false);
        }
        if records.is_empty() {
            records.clear();
        }
        let before = records.bytes.len();
        records.bytes.resize(before + unread, 0);
        ring.get(self.at, &mut records.bytes[before..]);
        self.at = tail;
        ring.head.store(tail, Ordering::SeqCst);
        Ok(true)
    }
}

/// Records that were copied out of the ring, as a queue.
#[derive(Debug, Default)]
pub(crate) struct Records {
    bytes: Vec<u8>,
    at: usize,
}

/// A record in [`Records`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct Record {
    pub kind: u8,
    from: usize,
    to: usize,
    /// Where its appendix ends.
    end: usize,
}

impl Records {
    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.bytes.len()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.at = 0;
    }

    /// Takes the next record.
    pub(crate) fn next(&mut self) -> Result<Option<Record>, Garbled> {
        let Some(header) = self.bytes.get(self.at..self.at + HEADER) else {
            return if self.is_empty() { Ok(None) } else { Err(Garbled) };
        };
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let appendix = usize::from(u16::from_le_bytes([header[6], header[7]]));
        let (kind, from) = (header[4], self.at + HEADER);
        let end = from.checked_add(len).filter(|end| *end <= self.bytes.len()).ok_or(Garbled)?;
        let to = end.checked_sub(appendix).filter(|to| *to >= from).ok_or(Garbled)?;
        self.at = end.next_multiple_of(HEADER).min(self.bytes.len());
        Ok(Some(Record { kind, from, to, end }))
    }

    /// Without the appendix.
    pub(crate) fn bytes(&self, record: Record) -> &[u8] {
        &self.bytes[record.from..record.to]
    }

    /// Empty for most records.
    pub(crate) fn appendix(&self, record: Record) -> &[u8] {
        &self.bytes[record.to..record.end]
    }
}
