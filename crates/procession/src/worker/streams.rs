//! Whether the standard streams of this process are open. Where a task has closed one, the next file
//! that is opened here gets its number, and what a later task prints is written into that file.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use procession_os::descriptors;

/// A system call for each call would be felt with short ones, so it is looked after this time, in
/// nanoseconds, at the soonest.
const LOOK_AGAIN: u64 = 20_000;

/// The standard streams as they were before the first task.
#[derive(Debug)]
pub(super) struct Streams {
    /// A bit for each that was open.
    were_open: AtomicU8,
    /// By the clock of the claims.
    looked_at: AtomicU64,
}

impl Streams {
    pub(super) fn as_they_are() -> Self {
        Self {
            were_open: AtomicU8::new(descriptors::open_standard()),
            looked_at: AtomicU64::new(0),
        }
    }

    /// Takes them for what they should be: an initializer may close what it likes.
    pub(super) fn settle(&self) {
        self.were_open.store(descriptors::open_standard(), Ordering::Relaxed);
    }

    /// Which of them was closed by a task, if it is time to look. Something empty is opened in its
    /// place.
    pub(super) fn closed(&self, now: u64) -> Option<&'static str> {
        if now.saturating_sub(self.looked_at.load(Ordering::Relaxed)) < LOOK_AGAIN {
            return None;
        }
        self.looked_at.store(now, Ordering::Relaxed);
        let closed = self.were_open.load(Ordering::Relaxed) & !descriptors::open_standard();
        if closed == 0 {
            return None;
        }
        descriptors::fill_standard();
        const NAMES: [&str; 3] = ["standard input", "standard output", "standard error"];
        NAMES.get(closed.trailing_zeros() as usize).copied()
    }
}
