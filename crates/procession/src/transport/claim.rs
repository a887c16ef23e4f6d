//! Claims: which side has a call, and how far the worker has got with it.

use std::time::Duration;

use super::sync::{AtomicU32, AtomicU64, Ordering};

/// Set in a claim's state when the rest was taken back; below it stands the number of tasks that
/// were begun, above it the turn of the call.
const STRUCK: u64 = 1 << 31;

/// Who has a call. It may consist of several tasks, which are begun one after the other.
pub(crate) struct Claim<'m> {
    pub state: &'m AtomicU64,
    pub ended: &'m AtomicU32,
    pub begun_at: &'m AtomicU64,
}

/// What the coordinator learns from a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// How many of the call's tasks were begun.
    pub begun: u32,
    /// For how long the last of them runs, if it does.
    pub runs_for: Option<Duration>,
}

impl Claim<'_> {
    /// The coordinator lays the claim out for a call. The turn tells it from those that used the
    /// same words before and may still lie in the ring.
    pub(crate) fn publish(&self, seq: u32) {
        self.ended.store(0, Ordering::Release);
        self.state.store(u64::from(seq) << 32, Ordering::SeqCst);
    }

    /// The worker is about to begin the next task of the call, at this time by [`now`]; false if
    /// the coordinator has taken it back.
    pub(crate) fn begin(&self, seq: u32, now: u64) -> bool {
        let is_ours = |state: u64| state >> 32 == u64::from(seq) && state & STRUCK == 0;
        if !is_ours(self.state.load(Ordering::SeqCst)) {
            return false;
        }
        // The time first: whoever sees that the task has begun must see when.
        // Never back: of several threads, one that was held up here may find the claim laid out
        // for another call, which a second one has begun.
        self.begun_at.fetch_max(now, Ordering::AcqRel);
        let begin = |state| is_ours(state).then_some(state + 1);
        self.state.fetch_update(Ordering::SeqCst, Ordering::SeqCst, begin).is_ok()
    }

    /// The task has ended, if not yet been replied to: from here on a word to end it comes too
    /// late.
    pub(crate) fn end(&self) {
        // Only whoever began it writes this word. At once or a moment later is the same: nobody
        // sees the reply before.
        self.ended.store(self.ended.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The coordinator takes back what was not begun. Gives the number of tasks that were.
    pub(crate) fn revoke(&self) -> u32 {
        begun(self.state.fetch_or(STRUCK, Ordering::SeqCst))
    }

    /// What the worker has done by this time by [`now`].
    pub(crate) fn progress(&self, at: u64) -> Progress {
        let begun = begun(self.state.load(Ordering::SeqCst));
        let runs = begun > self.ended.load(Ordering::SeqCst);
        let since = || at.saturating_sub(self.begun_at.load(Ordering::Acquire));
        Progress { begun, runs_for: runs.then(|| Duration::from_nanos(since())) }
    }
}

/// The number of tasks that were begun.
fn begun(state: u64) -> u32 {
    u32::try_from(state & (STRUCK - 1)).expect("31 bits")
}
