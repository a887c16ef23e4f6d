//! Knows whose callbacks a thread is in. A callback cannot wait for the end of its executor, which
//! in turn waits for the callback; and it may run on any thread, also on one that cancels a task
//! or shuts the executor down.

use std::cell::RefCell;

thread_local! {
    /// The executors on whose behalf this thread calls the user's code, by their addresses.
    static WITHIN: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
}

/// Notes, as long as it lives, that this thread calls the user's code on an executor's behalf.
pub(super) struct Calling(());

impl Calling {
    pub(super) fn on_behalf_of<E>(executor: &E) -> Self {
        WITHIN.with_borrow_mut(|executors| executors.push(address(executor)));
        Self(())
    }
}

impl Drop for Calling {
    fn drop(&mut self) {
        WITHIN.with_borrow_mut(Vec::pop);
    }
}

/// Whether this thread is in a callback, or a task, of this executor.
pub(super) fn is_within<E>(executor: &E) -> bool {
    WITHIN.with_borrow(|executors| executors.contains(&address(executor)))
}

fn address<E>(executor: &E) -> usize {
    std::ptr::from_ref(executor).addr()
}
