//! Checks whether the standard streams of this process are open. After a task has closed one, the next file that
//! is opened gets its number, and the output of later tasks would go into that file.

use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use procession_os::descriptors;

/// The shortest time between two checks, in nanoseconds. A check is a system call of about a microsecond,
/// and may cost a worker with short tasks 1 % of its time.
const LOOK_AGAIN: u64 = 100_000;

/// The standard streams as they were before the first task.
#[derive(Debug)]
pub(super) struct Streams {
    /// A bit for each stream that was open.
    were_open: AtomicU8,
    /// Time of the last check, in nanoseconds of the clock of the claims.
    looked_at: AtomicU64,
}

impl Streams {
    pub(super) fn as_they_are() -> Self {
        Self {
            were_open: AtomicU8::new(descriptors::open_standard()),
            looked_at: AtomicU64::new(0),
        }
    }

    /// Takes the present state as the reference: an initializer may close streams.
    pub(super) fn settle(&self) {
        self.were_open.store(descriptors::open_standard(), Ordering::Relaxed);
    }

    /// The stream that a task has closed, if a check is due. An empty file is opened under its number.
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
