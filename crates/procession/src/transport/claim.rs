//! Claims: one set of words in shared memory for each call in flight. They decide whether the
//! worker or the coordinator has a task, and can be read after the worker's death.
//!
//! ```text
//!   state, 64 bits:   seq of the call (32) │ revoked (1) │ number of tasks that have begun (31)
//! ```
//!
//! | step | by | effect on `state` |
//! |---|---|---|
//! | [`publish`](Claim::publish) | coordinator, before it sends the call | new `seq`, not revoked, 0 begun |
//! | [`begin`](Claim::begin) | worker, before each task | 1 more begun; fails if revoked or of another `seq` |
//! | [`revoke`](Claim::revoke) | coordinator, to take back the rest | revoked; returns the number begun |
//!
//! `begin` and `revoke` are single atomic steps on the same word, so each task either begins or is
//! taken back.

use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// The bit in `state` that says that the rest of the call was taken back.
const REVOKED: u64 = 1 << 31;

/// The words of one claim. The tasks of its call begin one after the other.
pub(crate) struct Claim<'m> {
    pub state: &'m AtomicU64,
    /// The number of tasks that have ended. Only the worker's thread that began them writes it.
    pub ended: &'m AtomicU32,
    /// When the last task began, by [`now`](super::now).
    pub begun_at: &'m AtomicU64,
    /// 1: the tasks of the call are asked to stop. Only the coordinator writes it.
    pub stop: &'m AtomicU32,
}

/// The progress of a call, read from its claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// The number of tasks that have begun.
    pub begun: u32,
    /// The run time of the last of them, if it still runs.
    pub runs_for: Option<Duration>,
}

impl Claim<'_> {
    /// Prepares the claim for a call. Earlier calls that used the same words may still be in the
    /// ring; they have another `seq`.
    pub(crate) fn publish(&self, seq: u32) {
        self.ended.store(0, Ordering::Release);
        self.stop.store(0, Ordering::Release);
        self.state.store(u64::from(seq) << 32, Ordering::SeqCst);
    }

    /// Begins the next task of the call, at time `now`. False if the coordinator has taken it back.
    pub(crate) fn begin(&self, seq: u32, now: u64) -> bool {
        let is_ours = |state: u64| state >> 32 == u64::from(seq) && state & REVOKED == 0;
        if !is_ours(self.state.load(Ordering::SeqCst)) {
            return false;
        }
        // Before `state`, so that a reader who sees that the task has begun also sees when. `max`,
        // since a thread that was delayed here may find the claim published for another call, which
        // another thread has begun at a later time.
        self.begun_at.fetch_max(now, Ordering::AcqRel);
        let begin = |state| is_ours(state).then_some(state + 1);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, begin).is_ok()
    }

    /// The current task has ended; its reply may not be published yet. It is not ended by force any
    /// more.
    pub(crate) fn end(&self) {
        // One writer, so load and store need not be one step. `Release`: visible before the reply
        // is.
        self.ended.store(self.ended.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Takes back the tasks that have not begun. Returns the number of those that have.
    pub(crate) fn revoke(&self) -> u32 {
        begun(self.state.fetch_or(REVOKED, Ordering::SeqCst))
    }

    /// Asks the tasks of the call to stop.
    pub(crate) fn ask_to_stop(&self) {
        self.stop.store(1, Ordering::Release);
    }

    pub(crate) fn is_asked_to_stop(&self) -> bool {
        self.stop.load(Ordering::Acquire) != 0
    }

    /// The progress at time `at`.
    pub(crate) fn progress(&self, at: u64) -> Progress {
        let begun = begun(self.state.load(Ordering::SeqCst));
        let runs = begun > self.ended.load(Ordering::SeqCst);
        let since = || at.saturating_sub(self.begun_at.load(Ordering::Acquire));
        Progress { begun, runs_for: runs.then(|| Duration::from_nanos(since())) }
    }
}

/// The number of tasks that have begun.
fn begun(state: u64) -> u32 {
    u32::try_from(state & (REVOKED - 1)).expect("31 bits")
}
