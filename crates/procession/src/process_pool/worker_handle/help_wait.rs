//! A thread that waits for the only call of a worker receives the reply itself, so that the handler
//! thread is not woken; see [`task_control`](crate::process_pool::task_control).

use super::WorkerHandle;
use crate::future::Wake;
use crate::process_pool::flood::VainWaits;

impl WorkerHandle {
    /// Waits until `is_done`, the worker has ended, or the handler is receiving. `receive` reads what
    /// is in the ring; it returns false if it could not, because the handler is receiving. At most
    /// one caller does this at a time: for others it returns at once.
    pub(in crate::process_pool) fn help_wait(
        &self,
        seq: u64,
        is_done: &dyn Fn() -> bool,
        receive: impl Fn() -> bool,
    ) {
        let Some(region) = self.region() else { return };
        let Ok(spin) = self.helping.try_lock() else { return };
        let Some(claim) = self.sending().claims.of(seq) else { return };
        region.set_awaited(Some(claim));
        let is_there = || region.replies().has_unread() || is_done() || self.has_ended();
        let mut vain = VainWaits::default();
        while !is_done() && !self.has_ended() {
            if !region.replies().has_unread() {
                vain.wait(|| region.caller_events().wait_unless(&spin, is_there));
            } else if !receive() {
                break;
            } else {
                vain.reset();
            }
        }
        region.set_awaited(None);
        // The worker announced the awaited reply to this thread only. The handler reads the records that
        // are unread now.
        if region.replies().has_unread() {
            region.reply_events().notify();
        }
    }
}

impl Wake for WorkerHandle {
    fn wake(&self) {
        if let Some(region) = self.region() {
            region.caller_events().notify();
        }
    }
}
