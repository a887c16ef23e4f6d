//! Long buffers that are used again: fresh pages cost several times what it takes to copy into them.
//!
//! The coordinator copies what a worker has sent into such a buffer. Long vectors of numbers are encoded into one. A
//! buffer that is no longer needed is kept for the next use: for [`IDLE`] at most, while this process receives from
//! workers ([`LongBufferUse`]), and if the process has no limit of memory.
//!
//! The list of free buffers is locked for a few comparisons. A thread that finds the list locked does not wait: it
//! allocates or frees memory, as without the list. A forked copy of the process never uses the list, because the thread
//! that had locked it may not exist in the copy.

use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError, TryLockError};
use std::time::{Duration, Instant};

use procession_os::fork::Origin;
use procession_os::memory;

/// The shortest buffer that is kept, in bytes. The allocator itself keeps shorter ones.
const SHORTEST: usize = 1 << 20;
/// The number of bytes that are kept in all.
const MOST_BYTES: usize = 64 << 20;
/// A buffer is not used for less than its length divided by this: a program may keep the bytes, and with them the whole
/// buffer.
const MUCH_TOO_LONG: usize = 2;
/// A buffer that was not used for this time is given back to the system.
const IDLE: Duration = Duration::from_secs(2);

static FREE: Mutex<FreeBuffers> = Mutex::new(FreeBuffers::new());
/// The process that was the first to use the list. Its forked copies have a copy of the list, and do not use it.
static USER: OnceLock<Origin> = OnceLock::new();

/// An empty buffer: a kept one with room for this number of bytes, else a new one without room.
pub(crate) fn take(room: usize) -> Vec<u8> {
    if room < SHORTEST {
        return Vec::new();
    }
    try_free().and_then(|mut free| free.take(room)).unwrap_or_default()
}

/// Keeps a buffer that is no longer needed, if it is long.
pub(crate) fn give(buffer: Vec<u8>) {
    if buffer.capacity() < SHORTEST || memory::is_limited() {
        return;
    }
    // Buffers that are not kept are freed after the list was unlocked, here and below.
    let dropped = try_free().map(|mut free| free.give(buffer, Instant::now()));
    drop(dropped);
}

/// Gives the buffers back to the system that were not used for [`IDLE`].
pub(crate) fn drop_idle() {
    let dropped = try_free().map(|mut free| free.take_idle(Instant::now()));
    drop(dropped);
}

/// The list, locked. `None` if another thread has locked it, if no [`LongBufferUse`] has begun, or in a forked copy of
/// the process.
fn try_free() -> Option<MutexGuard<'static, FreeBuffers>> {
    if USER.get().is_none_or(|user| user.is_forked()) {
        return None;
    }
    match FREE.try_lock() {
        Ok(free) => Some(free),
        Err(TryLockError::Poisoned(free)) => Some(free.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// While a process has one of these, it keeps buffers. A forked copy of a process that had one keeps none.
#[derive(Debug)]
pub(crate) struct LongBufferUse(());

impl LongBufferUse {
    pub(crate) fn begin() -> Self {
        if !USER.get_or_init(Origin::here).is_forked() {
            FREE.lock().unwrap_or_else(PoisonError::into_inner).users += 1;
        }
        Self(())
    }
}

impl Drop for LongBufferUse {
    fn drop(&mut self) {
        if USER.get().is_some_and(|user| !user.is_forked()) {
            let dropped = FREE.lock().unwrap_or_else(PoisonError::into_inner).end_use();
            drop(dropped);
        }
    }
}

/// Bytes whose memory is kept for the next use when they are dropped, if it is long enough.
pub(crate) struct LongBuffer(Vec<u8>);

impl LongBuffer {
    /// Takes the bytes out. Their memory is not kept when they are dropped.
    pub(crate) fn into_vec(mut self) -> Vec<u8> {
        std::mem::take(&mut self.0)
    }
}

impl From<Vec<u8>> for LongBuffer {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for LongBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for LongBuffer {
    fn drop(&mut self) {
        give(std::mem::take(&mut self.0));
    }
}

impl fmt::Debug for LongBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "LongBuffer({} bytes)", self.len())
    }
}

/// The buffers that are kept, the one that was used last at the end.
struct FreeBuffers {
    users: usize,
    buffers: Vec<FreeBuffer>,
}

struct FreeBuffer {
    bytes: Vec<u8>,
    since: Instant,
}

impl FreeBuffers {
    const fn new() -> Self {
        Self { users: 0, buffers: Vec::new() }
    }

    /// The shortest buffer with room for `room` bytes; of several, the one that was used last.
    fn take(&mut self, room: usize) -> Option<Vec<u8>> {
        let fits = |capacity: usize| capacity >= room && capacity / MUCH_TOO_LONG <= room;
        let capacities = self.buffers.iter().map(|buffer| buffer.bytes.capacity()).enumerate();
        let found = capacities.rev().filter(|(_, capacity)| fits(*capacity));
        let (at, _) = found.min_by_key(|(_, capacity)| *capacity)?;
        Some(self.buffers.remove(at).bytes)
    }

    /// Keeps a buffer. Returns the buffers that then exceed [`MOST_BYTES`], those that were not used for longest.
    fn give(&mut self, mut bytes: Vec<u8>, since: Instant) -> Vec<FreeBuffer> {
        bytes.clear();
        self.buffers.push(FreeBuffer { bytes, since });
        let mut left = if self.users > 0 { MOST_BYTES } else { 0 };
        let fit = self.buffers.iter().rev().take_while(|FreeBuffer { bytes, .. }| {
            left.checked_sub(bytes.capacity()).map(|rest| left = rest).is_some()
        });
        let excess = self.buffers.len() - fit.count();
        self.buffers.drain(..excess).collect()
    }

    fn take_idle(&mut self, now: Instant) -> Vec<FreeBuffer> {
        let is_idle = |free: &FreeBuffer| now.saturating_duration_since(free.since) >= IDLE;
        let idle = self.buffers.iter().take_while(|free| is_idle(free)).count();
        self.buffers.drain(..idle).collect()
    }

    fn end_use(&mut self) -> Vec<FreeBuffer> {
        self.users -= 1;
        if self.users > 0 { Vec::new() } else { std::mem::take(&mut self.buffers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    impl FreeBuffers {
        fn lens(&self) -> Vec<usize> {
            self.buffers.iter().map(|free| free.bytes.capacity() / MIB).collect()
        }
    }

    fn buffer(mib: usize) -> Vec<u8> {
        let mut buffer = Vec::with_capacity(mib * MIB);
        buffer.push(7);
        buffer
    }

    #[test]
    fn the_shortest_buffer_with_room_is_used_again_and_is_empty() {
        let (mut free, now) = (FreeBuffers::new(), Instant::now());
        free.users = 1;
        for mib in [2, 30, 4, 16] {
            assert!(free.give(buffer(mib), now).is_empty());
        }
        let taken = free.take(3 * MIB).expect("one with room");
        assert!(taken.is_empty() && taken.capacity() == 4 * MIB);
        assert_eq!(free.lens(), [2, 30, 16]);
        assert!(free.take(31 * MIB).is_none(), "none is as long");
        assert_eq!(free.take(17 * MIB).expect("one with room").capacity(), 30 * MIB);
        assert!(free.take(7 * MIB).is_none(), "the others are too short or much too long");
        assert_eq!(free.take(8 * MIB).expect("one with room").capacity(), 16 * MIB);
        assert_eq!(free.lens(), [2]);
    }

    #[test]
    fn what_is_kept_is_bounded_and_what_was_used_last_stays() {
        let (mut free, now) = (FreeBuffers::new(), Instant::now());
        free.users = 1;
        for mib in [10, 20, 30] {
            assert!(free.give(buffer(mib), now).is_empty());
        }
        assert_eq!(free.give(buffer(5), now).len(), 1);
        assert_eq!(free.lens(), [20, 30, 5]);
        assert_eq!(free.give(buffer(60), now).len(), 3);
        assert_eq!(free.lens(), [60]);
        assert_eq!(free.give(buffer(65), now).len(), 2, "itself as well");
        assert!(free.lens().is_empty());
    }

    #[test]
    fn nothing_is_kept_for_long_or_without_a_user() {
        let (mut free, now) = (FreeBuffers::new(), Instant::now());
        assert_eq!(free.give(buffer(1), now).len(), 1);
        free.users = 2;
        free.give(buffer(1), now);
        free.give(buffer(2), now + IDLE);
        assert!(free.take_idle(now).is_empty());
        assert_eq!(free.take_idle(now + IDLE).len(), 1);
        assert_eq!(free.lens(), [2]);
        assert!(free.end_use().is_empty());
        assert_eq!(free.end_use().len(), 1);
        assert_eq!(free.give(buffer(1), now).len(), 1);
    }

    #[test]
    fn a_short_buffer_and_one_that_was_taken_are_not_kept() {
        let _use = LongBufferUse::begin();
        assert_eq!(take(100).capacity(), 0);
        let odd = 11 * MIB + 12_345;
        assert_eq!(LongBuffer::from(vec![7; odd]).into_vec(), vec![7; odd]);
        assert_ne!(take(odd).capacity(), odd);
    }

    #[test]
    #[expect(unsafe_code, reason = "a forked copy")]
    fn a_forked_copy_keeps_nothing_and_waits_for_no_thread_of_the_original() {
        const PATIENCE: u32 = 60;
        let _use = LongBufferUse::begin();
        // As if another thread were using the list.
        let list = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let odd = 13 * MIB + 12_345;
        // SAFETY: the copy only allocates and frees, and ends.
        let copy = unsafe { libc::fork() };
        if copy == 0 {
            // SAFETY: a number. Where the copy waits, this ends it.
            unsafe { libc::alarm(PATIENCE) };
            let of_its_pool = LongBufferUse::begin();
            give(Vec::with_capacity(odd));
            drop_idle();
            let has_kept = take(odd).capacity() > 0;
            drop(of_its_pool);
            // SAFETY: it takes a number and does not return.
            unsafe { libc::_exit(if has_kept { 1 } else { 7 }) };
        }
        drop(list);
        let mut status = 0;
        // SAFETY: it waits for the process that was just made.
        assert_eq!(unsafe { libc::waitpid(copy, &raw mut status, 0) }, copy);
        assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status:#x}");
    }
}
