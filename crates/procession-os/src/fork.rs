//! Tells whether this process is a forked copy of the one that created a value. The copy does not have the
//! other threads of the parent, so a lock that one of them held is never released there.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

/// How many forks lie between the first process and this one.
static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many copies of itself this process has made.
static COPIES: AtomicU32 = AtomicU32::new(0);

/// The process in which a value was created.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin(u32);

impl Origin {
    /// This process.
    #[inline]
    pub fn here() -> Self {
        static COUNTS: Once = Once::new();
        COUNTS.call_once(count_forks);
        Self(GENERATION.load(Ordering::Relaxed))
    }

    /// Whether this process is a copy of that one, made by `fork`.
    #[inline]
    pub fn is_forked(self) -> bool {
        GENERATION.load(Ordering::Relaxed) != self.0
    }
}

/// How many copies of itself this process has made by `fork`. A copy that is being made is counted.
#[inline]
pub fn copies() -> u32 {
    Origin::here();
    COPIES.load(Ordering::SeqCst)
}

/// Ends a forked copy of a process, without running what the original has registered for its exit.
pub fn end_the_copy() -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(0) }
}

extern "C" fn count() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
}

extern "C" fn count_copy() {
    COPIES.fetch_add(1, Ordering::SeqCst);
}

fn count_forks() {
    // SAFETY: `count_copy` is called before the fork, and `count` in the child between `fork` and its
    // return. Both do nothing but change an atomic number. It fails only for want of memory; forks are
    // not noticed then.
    unsafe {
        libc::pthread_atfork(Some(count_copy), None, Some(count));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_not_forked_from_itself() {
        let Origin(here) = Origin::here();
        assert!(!Origin(here).is_forked());
        assert!(Origin(here.wrapping_sub(1)).is_forked());
    }
}
